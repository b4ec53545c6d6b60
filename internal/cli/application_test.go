package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// catalogue is a cluster that knows restore points, and nothing else.
type catalogue struct {
	client.Client
	points []v1alpha1.RestorePoint
}

func (c catalogue) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	switch list := into.(type) {
	case *v1alpha1.RestorePointList:
		list.Items = append(list.Items, c.points...)
	case *v1alpha1.RestoreList, *v1alpha1.GateList: // there are none
	default:
		return errors.New("only restore points are known")
	}
	return nil
}

func restorePoint(name, id, location string, day int) v1alpha1.RestorePoint {
	at := metav1.NewTime(time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC))
	return v1alpha1.RestorePoint{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.RestorePointSpec{Location: location, Point: id, Application: "shop", Time: at, State: "complete"},
	}
}

func TestWhichPointOfAnApplicationIsMeant(t *testing.T) {
	points := []v1alpha1.RestorePoint{
		restorePoint("shop-1", "aaaa1111", "main", 1), restorePoint("shop-2", "aaaa2222", "main", 2), restorePoint("shop-3", "bbbb3333", "far", 3),
	}
	for _, test := range []struct {
		location, point string
		want            string // the RestorePoint, or latest/LOCATION
		class           error
	}{
		{"", "shop-1", "shop-1", nil},
		{"", "bbbb", "shop-3", nil},
		{"", "aaaa", "", fault.ErrInvalid}, // of two
		{"main", "bbbb", "", fault.ErrNotFound},
		{"", "bbb", "", fault.ErrNotFound},
		{"", "", "", fault.ErrInvalid}, // several locations
		{"main", "", "latest/main", nil},
		{"main", "latest", "latest/main", nil},
		{"none", "", "", fault.ErrNotFound},
	} {
		s := &site{app: &app{}, client: catalogue{points: points}, namespace: defaultNamespace}
		s.global.location = test.location
		spec, err := s.restoreSpec(t.Context(), "shop", test.point, restoreOptions{})
		got := spec.RestorePoint
		if spec.Latest != nil && err == nil {
			got = "latest/" + spec.Latest.Location
		}
		if !errors.Is(err, test.class) || got != test.want {
			t.Errorf("%q in %q: %q, %v; want %q, %v", test.point, test.location, got, err, test.want, test.class)
		}
	}
}

func TestRestoreIsOfThePointThatWasPlanned(t *testing.T) {
	points := []v1alpha1.RestorePoint{restorePoint("shop-1", "aaaa1111", "main", 1), restorePoint("shop-2", "aaaa2222", "main", 2)}
	s := &site{app: &app{}, client: catalogue{points: points}, namespace: defaultNamespace}
	spec := v1alpha1.RestoreSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: "shop"}}
	got, err := s.pinned(t.Context(), "shop", spec, "aaaa1111") // though there is a newer one
	if err != nil || got.RestorePoint != "shop-1" || got.Latest != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.pinned(t.Context(), "shop", spec, "cccc"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a point that is gone: %v", err)
	}
}

// oneRestore is a cluster that knows one Restore, and lets nothing be made.
type oneRestore struct {
	client.Client
	known v1alpha1.Restore
}

func (c oneRestore) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	r, is := into.(*v1alpha1.Restore)
	if !is {
		return errors.New("only a restore is known")
	}
	*r = c.known
	return nil
}

func (c oneRestore) Create(context.Context, client.Object, ...client.CreateOption) error {
	return errors.New("made")
}

func TestUndoIsAskedAbout(t *testing.T) {
	known := v1alpha1.Restore{Status: v1alpha1.RestoreStatus{Volumes: []v1alpha1.VolumeStatus{
		{Namespace: "shop", Claim: "data", OldVolume: "pvc-1", NewVolume: "pvc-2"}, {Namespace: "shop", Claim: "new", NewVolume: "pvc-3"},
	}}}
	for _, yes := range []bool{false, true} {
		var said strings.Builder
		s := &site{app: &app{Process: Process{Stdin: strings.NewReader("yes\n"), Stderr: &said}}, client: oneRestore{known: known}, namespace: "backstay-system"}
		err := s.undoRestore(t.Context(), "shop", applicationRestore{undo: "r", yes: yes})
		if made := err != nil && strings.Contains(err.Error(), "made"); made != yes || errors.Is(err, fault.ErrRefused) == yes {
			t.Errorf("yes %v: %v", yes, err)
		}
		if told := said.String(); !yes && (!strings.Contains(told, "shop/data") || !strings.Contains(told, "pvc-1") || strings.Contains(told, "shop/new")) {
			t.Errorf("it says %q", told)
		}
	}
}

func TestExitStatusOfAnEnd(t *testing.T) {
	ready := func(reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: "why"}}
	}
	for _, test := range []struct {
		phase      v1alpha1.Phase
		conditions []metav1.Condition
		exit       int
	}{
		{v1alpha1.PhaseComplete, nil, 0},
		{v1alpha1.PhasePlanned, nil, 0},
		{v1alpha1.PhaseIncomplete, ready("Incomplete"), 3},
		{v1alpha1.PhaseFailed, ready("NotFound"), 4},
		{v1alpha1.PhaseFailed, ready("Denied"), 5},
		{v1alpha1.PhaseFailed, ready("Corrupt"), 7},
		{v1alpha1.PhaseFailed, ready("DeadlineExceeded"), 75},
		{v1alpha1.PhaseFailed, nil, 75},
	} {
		err := outcome("back up", test.phase, test.conditions, nil)
		if got := fault.Of(err).Exit; got != test.exit {
			t.Errorf("%s, %v: %d, want %d", test.phase, test.conditions, got, test.exit)
		}
		if len(test.conditions) > 0 && test.phase == v1alpha1.PhaseFailed && !strings.Contains(err.Error(), "why") {
			t.Errorf("%s: %v", test.phase, err)
		}
	}
}

func TestPointsOfAnApplicationAsADocument(t *testing.T) {
	text, err := json.Marshal(applicationPointsOf([]v1alpha1.RestorePoint{restorePoint("shop-1", "aaaa1111", "main", 1)}))
	if err != nil || !strings.Contains(string(text), `"name":"shop-1","location":"main","point":"aaaa1111"`) {
		t.Errorf("%s, %v", text, err)
	}
	if text, err = json.Marshal(applicationPointsOf(nil)); err != nil || !strings.Contains(string(text), `"points":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPointsOfAnApplicationTellWhatIsProven(t *testing.T) {
	told := func(proofs ...*v1alpha1.PointProof) string {
		var points []v1alpha1.RestorePoint
		for i, proof := range proofs {
			p := restorePoint(fmt.Sprintf("shop-%d", i), "aaaa1111", "main", 1)
			p.Spec.Proof = proof
			points = append(points, p)
		}
		var out bytes.Buffer
		if err := (&app{Process: Process{Stdout: &out}}).tellApplicationPoints(points); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	at := metav1.Date(2026, 11, 20, 4, 0, 0, 0, time.UTC)
	table := told(nil, &v1alpha1.PointProof{Time: at, Proven: true}, &v1alpha1.PointProof{Time: at, Proven: true, Excepted: []string{"databases/orders"}},
		&v1alpha1.PointProof{Time: at})
	lines := strings.Split(table, "\n")
	for i, want := range []string{`PROVEN +HOLD`, ` 0 B\s*$`, ` 2026-11-20\s*$`, ` 2026-11-20 in part\s*$`, ` failed 2026-11-20\s*$`} {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %d is %q, want %s", i, lines[i], want)
		}
	}
	if table := told(nil); strings.Contains(table, "PROVEN") {
		t.Errorf("of a point that nobody drilled: %s", table)
	}
}

func TestProofLineNamesWhatNobodyLookedAt(t *testing.T) {
	p := &point.Proof{Proven: true, Checks: []point.Check{{What: "ready", OK: true}, {What: "database", Of: "databases/orders", Excepted: true}}}
	if got := proofLine(p); !strings.HasSuffix(got, ": 1 check passed, restored in 0.0 s; nobody looked at databases/orders") {
		t.Error(got)
	}
}
