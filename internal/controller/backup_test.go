package controller_test

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

func (w *world) backup(namespace, name string, application ...string) *v1alpha1.Backup {
	w.Helper()
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.BackupSpec{Location: "vault", Application: v1alpha1.Applications{Namespaces: application}},
	}
	w.create(b)
	return b
}

// phase waits until a Backup is in a phase.
func (w *world) phase(b *v1alpha1.Backup, want v1alpha1.Phase) {
	w.Helper()
	w.eventually("phase of "+b.Name, func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		if b.Status.Phase != want {
			return "it is " + string(b.Status.Phase) + ", want " + string(want)
		}
		return ""
	})
}

func TestBackupHasOneJobAndEnds(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	b := w.backup(w.system, "now", w.namespace())
	j := w.job("backup")
	w.phase(b, v1alpha1.PhasePending)
	if b.Status.Job != j.Name {
		t.Errorf("job of the status is %q, want %q", b.Status.Job, j.Name)
	}
	want := []string{"worker", "backup", "--namespace", w.system, "--run", b.Labels[v1alpha1.LabelRun], "--cluster-name", "test"}
	if got := j.Spec.Template.Spec.Containers[0].Args; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if !slices.Contains(b.Finalizers, v1alpha1.FinalizerRunning) {
		t.Errorf("finalizers %q", b.Finalizers)
	}
	w.status(b, func() { b.Status.Phase = v1alpha1.PhaseComplete })
	w.succeed(j)
	w.eventually("end", func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		if len(b.Finalizers) > 0 {
			return "it still has its finalizer"
		}
		if err := w.get(j); err != nil {
			return err.Error()
		}
		if j.Spec.TTLSecondsAfterFinished == nil {
			return "its job stays for ever"
		}
		return ""
	})
}
