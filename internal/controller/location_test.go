package controller_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// stands waits until conditions say something.
func (w *world) stands(o client.Object, conditions *[]metav1.Condition, kind, want string) {
	w.Helper()
	w.eventually(kind+" of "+o.GetName(), func() string {
		if err := w.get(o); err != nil {
			return err.Error()
		}
		if got := condition(*conditions, kind); got != want {
			return "it is " + got + ", want " + want
		}
		return ""
	})
}

func TestLocationIsReadyWhenItsJobSucceeds(t *testing.T) {
	w := newWorld(t)
	w.start()
	l := w.location(w.system)
	j := w.job("location")
	w.stands(l, &l.Status.Conditions, "Ready", "Unknown/Pending")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:3], []string{"worker", "location", w.system + "/vault"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	w.succeed(j)
	w.stands(l, &l.Status.Conditions, "Ready", "True/Succeeded")

	l.Spec.URL = "s3://another?endpoint=s3.example" // a changed one is looked at again at once
	if err := w.admin.Update(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	w.gone(j)
	again := w.job("location")
	w.fail(again, "PodFailurePolicy", "Container worker for pod x/y failed with exit code 5 matching FailJob rule at index 2")
	w.stands(l, &l.Status.Conditions, "Ready", "False/Denied")
	w.stands(l, &l.Status.Conditions, "Stalled", "True/Denied")

	w.clock.forward(6 * time.Minute) // and one that failed, after a while
	w.touch(l)
	w.gone(again)
	w.job("location")
}

func (w *world) point(namespace string) *v1alpha1.RestorePoint {
	w.Helper()
	p := &v1alpha1.RestorePoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop-1"},
		Spec: v1alpha1.RestorePointSpec{
			Location: "vault", Point: "0123456789abcdef", Cluster: "test", Application: "shop", Time: metav1.Now(), State: "complete",
		},
	}
	w.create(p)
	w.stands(p, &p.Status.Conditions, "Ready", "True/Complete")
	return p
}

func (w *world) remove(o client.Object) {
	w.Helper()
	if err := w.admin.Delete(w.Context(), o); err != nil {
		w.Fatal(err)
	}
}

func TestDeletedRestorePointHasItsPointDeleted(t *testing.T) {
	w := newWorld(t)
	w.start()
	l := w.location(w.system)
	p := w.point(w.system)
	first := w.job("location")
	w.succeed(first)
	w.stands(l, &l.Status.Conditions, "Ready", "True/Succeeded")
	time.Sleep(1100 * time.Millisecond) // times of objects are whole seconds
	w.remove(p)
	w.gone(first)
	w.job("location") // which deletes the point, and lets the object go
	if err := w.get(p); err != nil || len(p.Finalizers) != 1 {
		t.Errorf("the object did not wait for it: %v, finalizers %q", err, p.Finalizers)
	}
	w.clock.forward(61 * time.Minute)
	w.touch(p)
	w.letGo(p)
	w.event(w.system, "PointKept")
}

func TestRestorePointsOutliveNeitherLocationNorNamespace(t *testing.T) {
	for _, test := range []struct {
		name   string
		delete func(w *world, namespace string, l *v1alpha1.Location, p *v1alpha1.RestorePoint)
	}{
		{"location first", func(w *world, _ string, l *v1alpha1.Location, p *v1alpha1.RestorePoint) {
			w.remove(l)
			w.remove(p)
		}},
		{"location last", func(w *world, _ string, l *v1alpha1.Location, p *v1alpha1.RestorePoint) {
			w.remove(p)
			w.remove(l)
		}},
		{"namespace", func(w *world, namespace string, _ *v1alpha1.Location, p *v1alpha1.RestorePoint) {
			w.remove(w.object(namespace))
			w.remove(p)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			namespace := w.namespace()
			l := w.location(namespace)
			p := w.point(namespace)
			test.delete(w, namespace, l, p)
			w.letGo(p)
		})
	}
}
