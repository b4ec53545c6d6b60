package controller_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// TestNothingIsHeldWhenBackstayGoes deletes Backstay's own namespace: what its finalizers hold is let go, there and in tenants'
// namespaces, while the controller is still there, and is not held again.
func TestNothingIsHeldWhenBackstayGoes(t *testing.T) {
	w := newWorld(t)
	w.start()
	tenant := w.namespace()
	var all []client.Object
	for _, namespace := range []string{w.system, tenant} {
		w.location(namespace)
		r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "back"}, Spec: v1alpha1.RestoreSpec{RestorePoint: "shop-1"}}
		all = append(all, w.point(namespace))
		w.create(r)
		w.stands(r, &r.Status.Conditions, "Reconciling", "True/Pending")
		all = append(all, r)
	}
	w.remove(w.object(w.system))
	unheld := func(o client.Object) string {
		if err := w.get(o); err != nil {
			return err.Error()
		}
		if held := o.GetFinalizers(); len(held) > 0 {
			return "it has finalizers " + held[0]
		}
		return ""
	}
	for _, o := range all {
		w.eventually("finalizers of "+o.GetNamespace()+"/"+o.GetName(), func() string { return unheld(o) })
	}
	for _, o := range all { // has them all looked at again
		o.SetLabels(map[string]string{"looked": "at"})
		if err := w.admin.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond) // nothing happens, which nothing tells
	for _, o := range all {
		if said := unheld(o); said != "" {
			t.Errorf("%s/%s: %s", o.GetNamespace(), o.GetName(), said)
		}
	}
}
