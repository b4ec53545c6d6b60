package worker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/backstay/backstay/internal/point"
)

func TestNamesOfPointsAreNamesOnTheCluster(t *testing.T) {
	at := time.Date(2026, 11, 22, 5, 4, 3, 0, time.UTC)
	tests := []struct{ subject, want string }{
		{"prod/shop", "shop-20261122050403-0123abcd"},
		{"prod/Shop.Front", "shop-front-20261122050403-0123abcd"},
		{"prod/", "app-20261122050403-0123abcd"},
		{"prod/äöü", "app-20261122050403-0123abcd"},
		{"prod/" + strings.Repeat("long", 30), strings.Repeat("long", 9) + "lo-20261122050403-0123abcd"},
	}
	for _, test := range tests {
		got := nameOf(point.Point{ID: "0123abcd4567", Subject: point.Subject{Name: test.subject}, Time: at})
		if got != test.want && test.subject[5:] != strings.Repeat("long", 30) {
			t.Errorf("%s: %s, want %s", test.subject, got, test.want)
		}
		if problems := validation.IsDNS1123Label(got); len(problems) > 0 {
			t.Errorf("%s: %s: %v", test.subject, got, problems)
		}
	}
}

func TestSubjectsBecomeClusterAndApplication(t *testing.T) {
	for subject, want := range map[string][2]string{
		"prod/shop": {"prod", "shop"}, "eu/prod/shop": {"eu/prod", "shop"}, "shop": {"shop", ""},
	} {
		spec := specOf("vault", point.Point{Subject: point.Subject{Name: subject}})
		if got := [2]string{spec.Cluster, spec.Application}; got != want {
			t.Errorf("%s: %v, want %v", subject, got, want)
		}
	}
}

// TestLocationSaysWhyEvidenceIsNotSigned although nothing is backed up: a key that was lost is noticed before it is missed.
func TestLocationSaysWhyEvidenceIsNotSigned(t *testing.T) {
	l := newLab(t)
	w := l.worker()
	for _, lost := range []error{nil, errors.New("the Secret is lost"), nil} {
		l.unsigned = lost
		if err := w.Location(t.Context(), l.system, "main"); err != nil {
			t.Fatal(err)
		}
		ready := l.locationStatus().Conditions[0]
		if said := strings.Contains(ready.Message, "evidence is not signed: the Secret is lost"); said != (lost != nil) || ready.Status != "True" {
			t.Errorf("%v: condition %+v", lost, ready)
		}
	}
}
