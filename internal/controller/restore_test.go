package controller_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

func (w *world) restore(namespace, name string, spec v1alpha1.RestoreSpec) *v1alpha1.Restore {
	w.Helper()
	r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
	w.create(r)
	return r
}

func TestRestoreHasAJobAndItsOldVolumesGo(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.succeed(w.job("tidy"))
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1"})
	w.stands(r, &r.Status.Conditions, "Reconciling", "True/NotFound")
	w.location(w.system)
	w.point(w.system)
	j := w.job("restore")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:3], []string{"worker", "restore", w.system + "/back"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	over := metav1.NewTime(w.clock.now().Add(24 * time.Hour))
	w.status(r, func() { r.Status.Phase, r.Status.UndoUntil = v1alpha1.PhaseComplete, &over })
	w.succeed(j)
	w.letGo(r)
	if n := len(w.jobs("tidy")); n != 1 || w.jobs("tidy")[0].DeletionTimestamp != nil {
		t.Errorf("tidied too early: %d jobs", n)
	}
	w.clock.forward(24*time.Hour + time.Minute)
	w.touch(r)
	w.gone(&w.jobs("tidy")[0]) // the one that has ended makes way
	w.job("tidy")
}

func TestDeletedRestoreIsStoppedAndTidied(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1"})
	j := w.job("restore")
	w.status(r, func() { r.Status.Phase, r.Status.Started = v1alpha1.PhaseSwapping, &metav1.Time{Time: w.clock.now()} })
	w.remove(r)
	w.gone(j)
	w.eventually("phase", func() string {
		if err := w.get(r); err != nil {
			return err.Error()
		}
		if r.Status.Phase != v1alpha1.PhaseFailed {
			return "it is " + string(r.Status.Phase)
		}
		return ""
	})
	w.letGoTidied(r)
	if n := len(w.jobs("restore")); n > 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestDatabasesOfAFailedRestoreGetBackWhatTheyHad(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.succeed(w.job("tidy"))
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1"})
	ended := w.job("restore")
	begun := metav1.NewMicroTime(w.clock.now())
	w.status(r, func() {
		r.Status.Phase, r.Status.Finished = v1alpha1.PhaseFailed, &metav1.Time{Time: begun.Time}
		r.Status.Databases = []v1alpha1.DatabaseStatus{{Name: "orders", Engine: "mysql", Begun: &begun}}
	})
	w.succeed(ended)
	j := w.job("load-back")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:3], []string{"worker", "restore", w.system + "/back"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	w.fail(j, "BackoffLimitExceeded", "the server is away")
	w.clock.forward(6 * time.Minute)
	w.touch(r)
	w.gone(j)
	w.succeed(w.job("load-back"))
	if _ = w.get(r); len(r.Finalizers) == 0 {
		t.Error("it was let go before its databases had what they had")
	}
	w.status(r, func() { r.Status.Databases[0].Begun = nil })
	w.letGoTidied(r)
}

func TestTenantsRestoreIntoTheirNamespaceOnly(t *testing.T) {
	w := newWorld(t)
	w.start()
	tenant, other := w.namespace(), w.namespace()
	w.location(tenant)
	w.point(tenant)
	yes := true
	for _, r := range []*v1alpha1.Restore{
		w.restore(tenant, "elsewhere", v1alpha1.RestoreSpec{RestorePoint: "shop-1", Namespaces: map[string]string{"shop": other}}),
		w.restore(tenant, "cluster", v1alpha1.RestoreSpec{RestorePoint: "shop-1", ClusterObjects: &yes}),
	} {
		w.stands(r, &r.Status.Conditions, "Stalled", "True/Denied")
		if r.Status.Phase != v1alpha1.PhaseFailed {
			t.Errorf("%s is %s", r.Name, r.Status.Phase)
		}
	}
	if n := len(w.jobs("restore")); n > 0 {
		t.Errorf("%d jobs were started", n)
	}
}

func TestUndoPointComesBeforeATransaction(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1", GitOps: &v1alpha1.Transaction{}})
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "back-undo"}}
	w.eventually("undo backup", func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		return ""
	})
	if len(b.OwnerReferences) != 1 || b.Spec.Policy != "" || b.Spec.Location != "vault" || len(w.jobs("restore")) > 0 {
		t.Errorf("backup %+v, %d jobs of restores", b.Spec, len(w.jobs("restore")))
	}
	now := metav1.NewMicroTime(w.clock.now())
	w.status(b, func() {
		b.Status.Phase, b.Status.Instant = v1alpha1.PhaseMoving, &v1alpha1.Instant{Begun: now, Versioned: now, Released: now, Listed: &now}
	})
	w.job("restore")
	w.status(b, func() { b.Status.Phase, b.Status.Point = v1alpha1.PhaseComplete, "0123456789abcdef" })
	w.eventually("undo point", func() string {
		if err := w.get(r); err != nil {
			return err.Error()
		}
		if r.Status.GitOps.UndoPoint != "0123456789abcdef" {
			return "it is " + r.Status.GitOps.UndoPoint
		}
		return ""
	})
}

func TestRestoreFailsWhereNoUndoPointCanBeMade(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1", GitOps: &v1alpha1.Transaction{}})
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "back-undo"}}
	w.eventually("undo backup", func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		return ""
	})
	w.status(b, func() { b.Status.Phase, b.Status.Problems = v1alpha1.PhaseFailed, []string{"no snapshots"} })
	w.stands(r, &r.Status.Conditions, "Stalled", "True/UndoPointFailed")
	w.restore(w.system, "without", v1alpha1.RestoreSpec{RestorePoint: "shop-1", GitOps: &v1alpha1.Transaction{NoUndoPoint: true}})
	w.job("restore")
}

// TestRestoreFailsWhereTheUndoPointLacksADatabase: it would be the only copy of what the database has now.
func TestRestoreFailsWhereTheUndoPointLacksADatabase(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	w.point(w.system)
	r := w.restore(w.system, "back", v1alpha1.RestoreSpec{RestorePoint: "shop-1", GitOps: &v1alpha1.Transaction{}})
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "back-undo"}}
	w.eventually("undo backup", func() string {
		if err := w.get(b); err != nil {
			return err.Error()
		}
		return ""
	})
	now := metav1.NewMicroTime(w.clock.now())
	w.status(b, func() {
		b.Status.Phase, b.Status.Instant = v1alpha1.PhaseMoving, &v1alpha1.Instant{Begun: now, Versioned: now, Released: now, Listed: &now}
		b.Status.Databases = []v1alpha1.DatabaseStatus{{Name: "orders", Engine: v1alpha1.EngineMySQL, Problem: "access denied"}}
	})
	w.stands(r, &r.Status.Conditions, "Stalled", "True/UndoPointFailed")
	if len(w.jobs("restore")) > 0 {
		t.Error("a Job was started")
	}
}
