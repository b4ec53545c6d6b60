package controller_test

import (
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// held is a Restore that has ended and holds syncs off.
func (w *world) held(name string) *v1alpha1.Restore {
	w.Helper()
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, name, v1alpha1.RestoreSpec{RestorePoint: "shop-1", GitOps: &v1alpha1.Transaction{NoUndoPoint: true}})
	j := w.job("restore")
	now := metav1.NewTime(w.clock.now())
	w.status(r, func() {
		r.Status.Phase, r.Status.Started, r.Status.Finished = v1alpha1.PhaseComplete, &now, &now
		r.Status.GitOps = &v1alpha1.TransactionStatus{Deployment: "argocd/none/shop", Held: "git still has it"}
	})
	w.succeed(j)
	return r
}

func TestHeldSyncsAreLookedAtWhenSomebodyAsks(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := w.held("back")
	w.asksFor(r, v1alpha1.ReleaseMended)
	j := w.job("release")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:4], []string{"worker", "release", w.system + "/back", "--force=false"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	w.succeed(j)
	w.eventually("answer", func() string {
		_ = w.get(r)
		return r.Annotations[v1alpha1.AnnotationRelease]
	})
	if len(r.Finalizers) == 0 {
		t.Error("what is still held was let go")
	}
	w.status(r, func() { r.Status.GitOps.Held = "" })
	w.letGo(r)
}

func TestHeldSyncsGoWithTheirRestore(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := w.held("back")
	w.remove(r)
	var j *batchv1.Job
	w.eventually("a Job that lets them go", func() string { // one that only looks may have begun before
		for _, one := range w.jobs("release") {
			if one.Spec.Template.Spec.Containers[0].Args[3] == "--force=true" {
				j = &one
				return ""
			}
		}
		return "there is none"
	})
	if err := w.get(r); err != nil {
		t.Fatalf("it is gone before syncs were let go: %v", err)
	}
	w.status(r, func() { r.Status.GitOps.Held = "" })
	w.succeed(j)
	w.eventually("gone", func() string {
		if w.get(r) == nil {
			return "there"
		}
		return ""
	})
}

func (w *world) asksFor(r *v1alpha1.Restore, release string) {
	w.Helper()
	if err := w.get(r); err != nil {
		w.Fatal(err)
	}
	metav1.SetMetaDataAnnotation(&r.ObjectMeta, v1alpha1.AnnotationRelease, release)
	if err := w.admin.Update(w.Context(), r); err != nil {
		w.Fatal(err)
	}
}
