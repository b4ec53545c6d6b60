package worker

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// stored puts a point into the vault beside the cluster.
func (l *lab) stored(kind, name string) string {
	l.Helper()
	draft, err := l.store.Begin(l.Context(), point.Subject{Kind: kind, Name: name}, "theirs")
	if err != nil {
		l.Fatal(err)
	}
	w, err := draft.Part(l.Context(), "part", point.KindDir)
	if err != nil {
		l.Fatal(err)
	}
	if _, err := w.Put(l.Context(), point.Entry{Name: "file"}, strings.NewReader("text"), point.Text); err != nil {
		l.Fatal(err)
	}
	if err := w.Store(l.Context(), point.Part{}); err != nil {
		l.Fatal(err)
	}
	receipt, err := draft.Commit(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	return receipt.Point.ID
}

func (l *lab) synced() v1alpha1.LocationStatus {
	l.Helper()
	if err := l.worker().Location(l.Context(), l.system, "main"); err != nil {
		l.Fatal(err)
	}
	return l.locationStatus()
}

func (l *lab) locationStatus() v1alpha1.LocationStatus {
	l.Helper()
	var location v1alpha1.Location
	l.get("main", &location)
	return location.Status
}

func TestObjectsFollowTheLocation(t *testing.T) {
	l := newLab(t)
	mine := l.stored(point.SubjectApplication, "other/shop")
	gone := l.stored(point.SubjectApplication, "other/mail")
	l.stored(point.SubjectRepository, "github.com/acme/api")
	s := l.synced()
	objects := l.restorePoints()
	if len(objects) != 2 || objects[mine].Spec.Cluster != "other" || objects[mine].Spec.Application != "shop" || objects[mine].Spec.Policy != "theirs" {
		t.Fatalf("objects %+v", objects)
	}
	if s.Points != 2 || s.Synced == nil || s.Maintained == nil || !meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("status %+v", s)
	}
	if err := errors.Join(l.store.Hold(t.Context(), mine, "audit"), l.store.Delete(t.Context(), gone)); err != nil {
		t.Fatal(err)
	}
	s = l.synced()
	objects = l.restorePoints()
	if len(objects) != 1 || s.Points != 1 || strings.Join(objects[mine].Spec.Holds, "|") != "audit" {
		t.Errorf("%d points, objects %+v", s.Points, objects)
	}
	if err := l.store.Hold(t.Context(), mine, ""); err != nil {
		t.Fatal(err)
	}
	l.synced()
	if o := l.restorePoints()[mine]; len(o.Spec.Holds) > 0 {
		t.Errorf("holds %q", o.Spec.Holds)
	}
}

func TestDeletingAnObjectDeletesItsPointUnlessThatIsOnHold(t *testing.T) {
	l := newLab(t)
	held, loose := l.stored(point.SubjectApplication, "other/shop"), l.stored(point.SubjectApplication, "other/mail")
	if err := l.store.Hold(t.Context(), held, "audit"); err != nil {
		t.Fatal(err)
	}
	l.synced()
	for _, o := range l.restorePoints() {
		if err := l.cluster.Client.Delete(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	later := l.stored(point.SubjectApplication, "other/new")
	s := l.synced() // what is on hold keeps nothing else from being done
	objects := l.restorePoints()
	ready := meta.FindStatusCondition(objects[held].Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != "Refused" || !strings.Contains(ready.Message, "hold") {
		t.Errorf("the object of the point on hold says %+v", ready)
	}
	if _, there := objects[loose]; there || objects[later].Name == "" || len(objects) != 2 || len(l.points()) != 2 || s.Points != 2 {
		t.Errorf("%d points, objects %+v", len(l.points()), objects)
	}
	if err := l.store.Hold(t.Context(), held, ""); err != nil {
		t.Fatal(err)
	}
	if s = l.synced(); s.Points != 1 || len(l.restorePoints()) != 1 {
		t.Errorf("%d points, objects %+v", s.Points, l.restorePoints())
	}
}

func TestLocationThatDoesNotOpenSaysWhy(t *testing.T) {
	l := newLab(t)
	for _, class := range []error{fault.ErrDenied, fault.ErrCorrupt, fault.ErrUnavailable} {
		l.opened = fault.New("open vault", class, "no", "")
		err := l.worker().Location(t.Context(), l.system, "main")
		conditions := l.locationStatus().Conditions
		ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
		if !errors.Is(err, class) || ready == nil || ready.Reason != fault.Of(class).Reason || !strings.Contains(ready.Message, "open vault: no") {
			t.Errorf("%v: error %v, condition %+v", class, err, ready)
		}
		stalled, retried := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled), meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReconciling)
		if again := errors.Is(class, fault.ErrUnavailable); retried != again || stalled == again {
			t.Errorf("%v: stalled %v, tried again %v", class, stalled, retried)
		}
	}
	l.opened = fault.New("open vault", fault.ErrNotFound, "", "")
	if s := l.synced(); l.created != 1 || !meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("%d vaults made, status %+v", l.created, s)
	}
	if err := l.worker().Location(t.Context(), l.system, "none"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a location that is not there: %v", err)
	}
}
