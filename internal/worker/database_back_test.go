package worker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/point"
)

// revised is a lab whose application is deployed, with a point of the good revision, and rows that came after it in the point named undo.
func (k *keeping) revised() (good v1alpha1.BackupStatus) {
	k.Helper()
	k.deployed = &point.Deployment{Name: deployed, Sources: []point.DeployedSource{{URL: "https://git.example.com/shop.git", Path: "shop", From: goodOne, To: badOne}}}
	k.history = &history{files: map[string]map[string]string{goodOne: {"shop/app.yaml": "1"}, badOne: {"shop/app.yaml": "2"}}}
	k.engine = newEngine()
	good = k.backedUp("good", k.app, k.databases)
	k.fill("after")
	k.backedUp("undo", k.app, k.databases)
	return good
}

// rollback makes a Restore before which the point named undo was made.
func (k *keeping) rollback(name string, to v1alpha1.BackupStatus) {
	k.Helper()
	r := &v1alpha1.Restore{ObjectMeta: k.named(name), Spec: v1alpha1.RestoreSpec{RestorePoint: to.RestorePoint, GitOps: &v1alpha1.Transaction{}}}
	k.create(r)
	r.Status.GitOps = &v1alpha1.TransactionStatus{UndoBackup: "undo"}
	if err := k.cluster.Client.Status().Update(k.Context(), r); err != nil {
		k.Fatal(err)
	}
}

func (k *keeping) worked(name string) v1alpha1.RestoreStatus {
	k.Helper()
	if err := k.worker().Restore(k.Context(), k.system, name); err != nil {
		k.Fatal(err)
	}
	return k.restoreStatus(name)
}

// TestRollbackOfDatabases: rows return with the revision that they go with; a rollback that fails, and an undo, put back those that were there.
func TestRollbackOfDatabases(t *testing.T) {
	k := newKeeping(t)
	good := k.revised()
	k.engine.refuses = goodOne
	k.rollback("fails", good)
	if s := k.worked("fails"); s.Phase != v1alpha1.PhaseFailed || len(s.Databases) == 0 || s.LoadsBack() || k.rows() != "after after" {
		t.Errorf("a rollback that fails: rows %s, %+v", k.rows(), s)
	}
	k.engine.refuses = ""
	k.rollback("done", good)
	if s := k.worked("done"); s.Phase != v1alpha1.PhaseComplete || k.rows() != "before before" {
		t.Errorf("a rollback: rows %s, %+v", k.rows(), s)
	}
	if s := k.restored("undone", v1alpha1.RestoreSpec{Undo: "done"}); s.Phase != v1alpha1.PhaseComplete || k.rows() != "after after" {
		t.Errorf("a rollback that is undone: rows %s, %+v", k.rows(), s)
	}
}

// ended has the controller end a Restore whose worker was killed.
func (k *keeping) ended(name string, change func(*v1alpha1.Restore)) {
	k.Helper()
	var r v1alpha1.Restore
	k.get(name, &r)
	now := metav1.Now()
	r.Status.Phase, r.Status.Finished = v1alpha1.PhaseFailed, &now
	if change != nil {
		change(&r)
	}
	if err := k.cluster.Client.Status().Update(k.Context(), &r); err != nil {
		k.Fatal(err)
	}
}

// TestDatabasesOfARollbackThatNobodyEnded get back what they had, wherever its worker was killed, and whoever puts it back.
func TestDatabasesOfARollbackThatNobodyEnded(t *testing.T) {
	k := newKeeping(t)
	good := k.revised()
	changed := 0
	for n := int64(1); ; n += 2 * step() {
		name := fmt.Sprintf("killed-%d", n)
		k.rollback(name, good)
		if !k.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, k.system, name) }) {
			break
		}
		if k.restoreStatus(name).Phase.Final() {
			break
		}
		k.ended(name, nil)
		if s := k.restoreStatus(name); s.LoadsBack() {
			changed++
			k.killedAfter(n%5+1, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, k.system, name) })
		}
		if s := k.worked(name); s.LoadsBack() || k.rows() != "after after" {
			t.Errorf("killed after %d writes: rows %s, %+v", n, k.rows(), s)
		}
		if err := k.worker().Tidy(t.Context()); err != nil { // its leases, and the revision
			t.Fatal(err)
		}
	}
	if changed == 0 {
		t.Error("it was never killed while databases were changed")
	}
}

func TestDatabasesThatAreLeftAsARollbackMadeThem(t *testing.T) {
	k := newKeeping(t)
	good := k.revised()
	k.rollback("later", good)
	k.worked("later") // which has changed them
	for _, test := range []struct {
		name, why string
		change    func(*v1alpha1.Restore)
	}{
		{"overtaken", "restore later began since", func(r *v1alpha1.Restore) {
			var later v1alpha1.Restore
			k.get("later", &later)
			ended := metav1.NewTime(later.Status.Started.Add(-time.Minute))
			r.Status.Finished = &ended
		}},
		{"late", "nobody could for a day", func(r *v1alpha1.Restore) {
			ended := metav1.NewTime(time.Now().Add(-2 * loadBackTime))
			r.Status.Finished = &ended
		}},
		{"pointless", "no point was made before", func(r *v1alpha1.Restore) { r.Status.GitOps.UndoBackup = "" }},
		{"lost", "not found", func(r *v1alpha1.Restore) { r.Status.GitOps.UndoBackup = "gone" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			k.rollback(test.name, good)
			k.ended(test.name, func(r *v1alpha1.Restore) {
				begun := metav1.NowMicro()
				r.Status.GitOps.Deployment = deployed
				r.Status.Databases = []v1alpha1.DatabaseStatus{{Name: "orders", Engine: "mysql", Begun: &begun}, {Name: "stock", Engine: "mysql"}}
				test.change(r)
			})
			s := k.worked(test.name)
			if s.LoadsBack() || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "database orders: it has not got back what it had: ") ||
				!strings.Contains(s.Problems[0], test.why) || s.Databases[1].Problem != "" || k.rows() != "before before" {
				t.Errorf("rows %s, %+v", k.rows(), s)
			}
		})
	}
}
