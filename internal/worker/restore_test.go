package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// settings is the ConfigMap of an application; nil where there is none.
func (l *lab) settings(app string) *corev1.ConfigMap {
	l.Helper()
	var m corev1.ConfigMap
	err := l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: app, Name: "settings"}, &m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		l.Fatal(err)
	}
	return &m
}

// loses deletes the ConfigMap of an application.
func (l *lab) loses(app string) {
	l.Helper()
	if m := l.settings(app); m != nil {
		if err := l.cluster.Client.Delete(l.Context(), m); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *lab) restore(name string, spec v1alpha1.RestoreSpec) {
	l.Helper()
	l.create(&v1alpha1.Restore{ObjectMeta: l.named(name), Spec: spec})
}

func (l *lab) restored(name string, spec v1alpha1.RestoreSpec) v1alpha1.RestoreStatus {
	l.Helper()
	l.restore(name, spec)
	if err := l.worker().Restore(l.Context(), l.system, name); err != nil {
		l.Fatal(err)
	}
	return l.restoreStatus(name)
}

func (l *lab) restoreStatus(name string) v1alpha1.RestoreStatus {
	l.Helper()
	var r v1alpha1.Restore
	l.get(name, &r)
	return r.Status
}

func latest(app string) *v1alpha1.LatestPoint {
	return &v1alpha1.LatestPoint{Location: "main", Application: app}
}

func TestRestoreBringsObjectsBack(t *testing.T) {
	l := newLab(t)
	app := l.application()
	made := l.backedUp("backup", app)
	l.loses(app)
	planned := l.restored("plan", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint, PlanOnly: true})
	if planned.Phase != v1alpha1.PhasePlanned || planned.Plan.Create != 1 || l.settings(app) != nil {
		t.Fatalf("plan %+v, settings %v", planned, l.settings(app))
	}
	var plan corev1.ConfigMap
	l.get(planned.PlanName, &plan)
	if !strings.Contains(plan.Data[v1alpha1.PlanText], "settings") || len(plan.OwnerReferences) != 1 {
		t.Errorf("plan %+v", plan)
	}
	s := l.restored("restore", v1alpha1.RestoreSpec{Latest: latest(app)})
	if s.Phase != v1alpha1.PhaseComplete || s.Point != made.Point || len(s.Problems) > 0 || l.settings(app).Data["colour"] != "blue" {
		t.Errorf("status %+v, settings %v", s, l.settings(app))
	}
}

func TestRestoreThatMayNotChangeAnything(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.backedUp("backup", app)
	m := l.settings(app)
	m.Data["colour"] = "red"
	if err := l.cluster.Client.Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	s := l.restored("fails", v1alpha1.RestoreSpec{Latest: latest(app), Existing: v1alpha1.ExistingFail})
	if s.Phase != v1alpha1.PhaseFailed || s.Plan.Conflict != 1 || l.settings(app).Data["colour"] != "red" {
		t.Errorf("status %+v, settings %v", s, l.settings(app).Data)
	}
	s = l.restored("keeps", v1alpha1.RestoreSpec{Latest: latest(app)})
	if s.Phase != v1alpha1.PhaseComplete || s.Plan.Keep != 1 || l.settings(app).Data["colour"] != "red" {
		t.Errorf("status %+v, settings %v", s, l.settings(app).Data)
	}
	s = l.restored("replaces", v1alpha1.RestoreSpec{Latest: latest(app), Existing: v1alpha1.ExistingReplace})
	if s.Phase != v1alpha1.PhaseComplete || s.Plan.Replace != 1 || l.settings(app).Data["colour"] != "blue" {
		t.Errorf("status %+v, settings %v", s, l.settings(app).Data)
	}
}

func TestRestoreThatIsKilledAnywhereComesToItsEnd(t *testing.T) {
	l := newLab(t)
	for n := int64(1); ; n += step() {
		app, name := l.application(), fmt.Sprint("kill-", n)
		l.backedUp("of-"+name, app)
		l.loses(app)
		l.restore(name, v1alpha1.RestoreSpec{Latest: latest(app), Existing: v1alpha1.ExistingFail})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, l.system, name) })
		if err := l.worker().Restore(t.Context(), l.system, name); err != nil {
			t.Fatalf("killed after %d writes, taken up again: %v", n, err)
		}
		s := l.restoreStatus(name)
		if s.Phase != v1alpha1.PhaseComplete || l.settings(app) == nil || s.Plan.Create != 1 {
			t.Errorf("killed after %d writes: settings %v, status %+v", n, l.settings(app), s)
		}
		if !killed {
			return
		}
	}
}

func TestRestoreOfAPointWhoseHookFailed(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.hooked("hooked", app)
	if err := l.worker().Backup(t.Context(), l.system, "hooked"); err != nil {
		t.Fatal(err)
	}
	made := l.statusOf("hooked")
	l.loses(app)
	s := l.restored("restore", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint})
	if s.Phase == v1alpha1.PhaseFailed || l.settings(app) == nil {
		t.Errorf("status %+v", s)
	}
	if s := l.restored("latest", v1alpha1.RestoreSpec{Latest: latest(app)}); s.Phase != v1alpha1.PhaseFailed {
		t.Errorf("an incomplete point is the newest: %+v", s)
	}
}

func TestRestoreOfWhatIsNotThere(t *testing.T) {
	l := newLab(t)
	app := l.application()
	made := l.backedUp("backup", app)
	for name, test := range map[string]struct {
		spec   v1alpha1.RestoreSpec
		reason string
	}{
		"no-object":   {v1alpha1.RestoreSpec{RestorePoint: "none"}, "NotFound"},
		"no-point":    {v1alpha1.RestoreSpec{Latest: latest("another")}, "NotFound"},
		"too-early":   {v1alpha1.RestoreSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: app, AsOf: &metav1.Time{Time: time.Unix(1, 0)}}}, "NotFound"},
		"other":       {v1alpha1.RestoreSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: app, Cluster: "there"}}, "NotFound"},
		"undo":        {v1alpha1.RestoreSpec{Undo: "none"}, "NotFound"},
		"undo-itself": {v1alpha1.RestoreSpec{Undo: "undo-itself"}, "Refused"},
	} {
		s := l.restored(name, test.spec)
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		if s.Phase != v1alpha1.PhaseFailed || ready.Reason != test.reason || len(s.Problems) == 0 {
			t.Errorf("%s: %s, %+v", name, s.Phase, ready)
		}
	}
	if err := l.store.Delete(t.Context(), made.Point); err != nil {
		t.Fatal(err)
	}
	if s := l.restored("deleted", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint}); s.Phase != v1alpha1.PhaseFailed {
		t.Errorf("a point that is no more: %+v", s)
	}
	l.restore("away", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint})
	l.opened = fault.New("open vault", fault.ErrUnavailable, "", "")
	err := l.worker().Restore(t.Context(), l.system, "away")
	if s := l.restoreStatus("away"); !errors.Is(err, fault.ErrUnavailable) || s.Phase.Final() {
		t.Errorf("%v, %+v", err, s)
	}
}

// badlyClosed is a vault that does not close.
type badlyClosed struct{ open }

func (badlyClosed) Close(context.Context) error { return errors.New("the cache is full") }

func TestRestoreIsCompleteThoughItsVaultDoesNotClose(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.backedUp("backup", app)
	l.loses(app)
	l.restore("restore", v1alpha1.RestoreSpec{Latest: latest(app)})
	err := l.workerOf(l.cluster, badlyClosed{open{l.store}}).Restore(t.Context(), l.system, "restore")
	if s := l.restoreStatus("restore"); err != nil || s.Phase != v1alpha1.PhaseComplete {
		t.Errorf("%v, status %+v", err, s)
	}
}

func TestBackupAndRestoreOfANamespaceWaitForEachOther(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.backedUp("first", app)
	_, release, err := l.worker().holdAll(t.Context(), []string{app}, "another")
	if err != nil {
		t.Fatal(err)
	}
	l.loses(app)
	l.backup("waits", app)
	l.restore("waits", v1alpha1.RestoreSpec{Latest: latest(app)})
	backup, restore := make(chan error, 1), make(chan error, 1)
	go func() { backup <- l.worker().Backup(t.Context(), l.system, "waits") }()
	go func() { restore <- l.worker().Restore(t.Context(), l.system, "waits") }()
	time.Sleep(500 * time.Millisecond)
	if l.settings(app) != nil || len(l.points()) != 1 || l.restoreStatus("waits").Plan != nil {
		t.Error("one did not wait")
	}
	release()
	if err := errors.Join(<-backup, <-restore); err != nil {
		t.Fatal(err)
	}
	if b, r := l.statusOf("waits"), l.restoreStatus("waits"); b.Phase != v1alpha1.PhaseComplete || r.Phase != v1alpha1.PhaseComplete {
		t.Errorf("backup %s, restore %s: %v", b.Phase, r.Phase, r.Problems)
	}
}

func TestNewestPointIsThatOfThisCluster(t *testing.T) {
	at := func(name, cluster string) v1alpha1.RestorePoint {
		return v1alpha1.RestorePoint{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RestorePointSpec{Cluster: cluster}}
	}
	here, east, west := at("here", clusterName), at("east", "east"), at("west", "west")
	for _, test := range []struct {
		wanted string
		points []*v1alpha1.RestorePoint
		want   string
		class  error
	}{
		{"", []*v1alpha1.RestorePoint{&east, &west, &here}, "here", nil},
		{"west", []*v1alpha1.RestorePoint{&east, &west, &here}, "west", nil},
		{"", []*v1alpha1.RestorePoint{&east}, "east", nil},
		{"", []*v1alpha1.RestorePoint{&east, &west}, "", fault.ErrInvalid},
		{"west", []*v1alpha1.RestorePoint{&east, &here}, "", fault.ErrNotFound},
		{"", nil, "", fault.ErrNotFound},
	} {
		newest := map[string]*v1alpha1.RestorePoint{}
		for _, p := range test.points {
			newest[p.Spec.Cluster] = p
		}
		got, err := chosen("find", newest, &v1alpha1.LatestPoint{Application: "shop", Cluster: test.wanted}, clusterName)
		if !errors.Is(err, test.class) || err == nil && got.Name != test.want {
			t.Errorf("of %d points, cluster %q: %v, %v", len(test.points), test.wanted, got, err)
		}
	}
}

// TestExcludedClaimsAreNotMissing: what a policy leaves out comes back empty, and the Restore is complete.
func TestExcludedClaimsAreNotMissing(t *testing.T) {
	l := newLab(t)
	app := l.application()
	cache := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "cache"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	l.create(cache)
	made := l.backedUp("backup", app, func(b *v1alpha1.Backup) { b.Spec.Application.Volumes.Exclude = []string{"cac*"} })
	if made.Phase != v1alpha1.PhaseComplete {
		t.Fatalf("backup %+v", made)
	}
	cache.Finalizers = nil
	if err := l.cluster.Client.Update(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	if err := l.cluster.Client.Delete(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	s := l.restored("back", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint})
	var plan corev1.ConfigMap
	l.get(s.PlanName, &plan)
	err := l.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(cache), &corev1.PersistentVolumeClaim{})
	if err != nil || s.Phase != v1alpha1.PhaseComplete || !strings.Contains(plan.Data[v1alpha1.PlanText], "excluded by the policy") {
		t.Errorf("%v, %+v\n%s", err, s, plan.Data[v1alpha1.PlanText])
	}
	if s := l.restored("asked", v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint, Only: v1alpha1.OnlyData, Claims: []string{"cache"}}); s.Phase != v1alpha1.PhaseIncomplete {
		t.Errorf("what was asked for by name: %+v", s)
	}
}
