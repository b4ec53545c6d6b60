package worker

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// Revisions of a past.
const (
	pastA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	pastB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	pastC = "cccccccccccccccccccccccccccccccccccccccc"
)

// pasts makes a Past, one thing an hour.
type pasts struct {
	Past
	hour int
}

func (p *pasts) now() time.Time {
	p.hour++
	return time.Date(2026, 1, 1, p.hour, 0, 0, 0, time.UTC)
}

// point is made while from is live, for a sync to to, or for none.
func (p *pasts) point(from, to string) *pasts { return p.pointIn("complete", from, to) }

func (p *pasts) pointIn(state, from, to string) *pasts {
	n := fmt.Sprint(len(p.Points) + 1)
	made := v1alpha1.RestorePoint{
		ObjectMeta: metav1.ObjectMeta{Name: n},
		Spec:       v1alpha1.RestorePointSpec{Point: n, State: state, Deployment: deployed, Time: metav1.NewTime(p.now())},
	}
	if from != "" {
		made.Spec.Revisions = []string{from}
	}
	if to != "" {
		made.Spec.NextRevisions = []string{to}
	}
	p.Points = append(p.Points, made)
	return p
}

// gate ends, of a sync that has no point of its own.
func (p *pasts) gate(phase v1alpha1.GatePhase, from, to string) *pasts {
	ended := metav1.NewMicroTime(p.now())
	p.Gates = append(p.Gates, v1alpha1.Gate{Status: v1alpha1.GateStatus{
		Phase: phase, Ended: &ended, Sync: &v1alpha1.Sync{Deployment: deployed, From: []string{from}, To: []string{to}},
	}})
	return p
}

// restore brings a point back.
func (p *pasts) restore(point string, change ...func(*v1alpha1.Restore)) *pasts {
	back := metav1.NewMicroTime(p.now())
	r := v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("restore-", len(p.Restores)+1)}}
	r.Status = v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseComplete, Point: point, GitOps: &v1alpha1.TransactionStatus{DataBack: &back}}
	for _, c := range change {
		c(&r)
	}
	p.Restores = append(p.Restores, r)
	return p
}

func only(what string) func(*v1alpha1.Restore) {
	return func(r *v1alpha1.Restore) { r.Spec.Only = what }
}

func failed(r *v1alpha1.Restore) { r.Status.Phase = v1alpha1.PhaseFailed }

func undo(name string) func(*v1alpha1.Restore) {
	return func(r *v1alpha1.Restore) { r.Spec.Undo = name }
}

// TestPointOf goes back to A.
func TestPointOf(t *testing.T) {
	start := func() *pasts { return &pasts{} }
	for _, test := range []struct {
		name   string
		past   *pasts
		want   string // "" for none
		passed int    // -1 for one that is touched itself
	}{
		{"none is of it", start().point(pastB, "").point("", pastA), "", 0},
		{"the newest, before the sync away from it", start().point(pastA, "").point(pastA, pastB).point(pastB, ""), "2", 0},
		{"it came after another", start().point(pastB, pastA).point(pastA, "").point(pastA, pastC), "3", 0},
		{"the one before the sync is not complete", start().point(pastA, "").pointIn("incomplete", pastA, pastB).point(pastA, ""), "1", 1},
		{"a sync to itself", start().point(pastA, pastA).point(pastA, ""), "2", 0},

		{"the engine went back to it", start().point(pastA, pastB).point(pastB, pastA).point(pastA, ""), "1", 1},
		{"and that was seen by nobody", start().point(pastA, pastB).point(pastA, ""), "1", 1},
		{"and the sync away too", start().point(pastA, "").point(pastB, "").point(pastA, ""), "1", 1},
		{"the sync away failed, and was tried again", start().point(pastA, pastB).point(pastA, pastB).point(pastA, pastC), "1", 2},
		{"a point of before the first sync", start().point(pastA, "").point("", pastA).point(pastA, pastB), "3", 0},
		{"nothing but what others have touched", start().pointIn("incomplete", pastA, pastB).point(pastB, pastA).point(pastA, "").point(pastA, ""), "4", -1},

		{"a gate opened for a fresh point", start().point(pastA, "").gate(v1alpha1.GateOpen, pastA, pastB).point(pastA, ""), "1", 1},
		{"a gate stayed closed", start().point(pastA, "").gate(v1alpha1.GateClosed, pastA, pastB).point(pastA, ""), "2", 0},
		{"a sync asked at no gate", start().point(pastA, "").gate(v1alpha1.GateUngated, pastA, pastB).point(pastA, ""), "1", 1},

		{"rolled back", start().point(pastA, pastB).point(pastB, pastA).restore("1").point(pastA, "").point(pastA, pastC), "4", 0},
		{"rolled back after the engine was", start().point(pastA, pastB).point(pastB, pastA).point(pastA, pastA).restore("1").point(pastA, ""), "4", 0},
		{"the configuration alone", start().point(pastA, pastB).point(pastB, pastA).restore("1", only(v1alpha1.OnlyConfig)).point(pastA, ""), "1", 1},
		{"the rollback failed", start().point(pastA, pastB).point(pastB, pastA).restore("1", failed).point(pastA, ""), "1", 1},
		{"the rollback was undone", start().point(pastA, pastB).point(pastA, pastA).restore("1").point(pastA, "").restore("", undo("restore-1")).point(pastA, ""), "3", 1},
		{"rolled back to what another had touched", start().point(pastA, pastB).point(pastA, "").restore("2").point(pastA, ""), "1", 2},
		{"rolled back beyond it, and deployed again", start().point(pastC, pastA).point(pastA, pastC).restore("1").point(pastC, pastA).point(pastA, pastB), "4", 0},
		{"to a point that is no more", start().point(pastA, pastB).restore("expired").point(pastA, ""), "1", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, named := range []string{pastA, pastA[:7]} {
				c := test.past.PointOf(named)
				got, passed := "", len(c.Passed)
				if c.Point != nil {
					got = c.Point.Name
				}
				if c.Touched {
					passed = -1
				}
				if got != test.want || passed != test.passed {
					t.Errorf("%s: point %q, passed %d; want %q, %d", named, got, passed, test.want, test.passed)
				}
			}
		})
	}
}
