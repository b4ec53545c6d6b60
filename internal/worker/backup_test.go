package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

func TestBackupOfAnApplicationWithoutVolumes(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.opened = fault.New("open", fault.ErrNotFound, "", "")
	s := l.backedUp("one", app)
	points := l.points()
	if s.Phase != v1alpha1.PhaseComplete || len(points) != 1 || s.Point != points[0].ID || l.created != 1 {
		t.Fatalf("%d points, %d vaults made, status %+v", len(points), l.created, s)
	}
	if p := points[0]; p.Subject.Name != clusterName+"/"+app || !p.Time.Equal(s.Instant.Versioned.Time) {
		t.Errorf("point %+v, instant %+v", p, s.Instant)
	}
	if s.Started == nil || s.Finished == nil || s.Parts.Stored != 2 || len(s.Problems) > 0 || s.Instant.Listed == nil {
		t.Errorf("status %+v", s)
	}
	o, made := l.restorePoints()[s.Point]
	if !made || o.Name != s.RestorePoint || o.Spec.Application != app || o.Spec.State != "complete" || len(o.Finalizers) != 1 {
		t.Errorf("object %+v", o)
	}
	var leases coordinationv1.LeaseList
	if err := l.cluster.Client.List(t.Context(), &leases, client.InNamespace(l.system)); err != nil || len(leases.Items) > 0 {
		t.Errorf("leases are left: %v, %v", leases.Items, err)
	}
}

func TestOneBadBackupOfARunIsItsOwnTrouble(t *testing.T) {
	l := newLab(t)
	good, other := l.application(), l.application()
	of := func(b *v1alpha1.Backup) { b.Labels[v1alpha1.LabelRun] = "night" }
	l.backup("good", good, of)
	l.backup("gone", "no-such-namespace", of)
	l.backup("lost", good, of, func(b *v1alpha1.Backup) { b.Spec.Location = "no-such-location" })
	l.backup("policy", good, of, func(b *v1alpha1.Backup) { b.Spec.Policy, b.Spec.Location = "no-such-policy", "" })
	l.backup("other", other, of)
	if err := l.worker().Backup(t.Context(), l.system, "night"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"good": "Complete", "other": "Complete", "gone": "NotFound", "lost": "NotFound", "policy": "NotFound"} {
		s := l.statusOf(name)
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != want || (s.Phase == v1alpha1.PhaseFailed) != (want == "NotFound") || (len(s.Problems) > 0) != (want == "NotFound") {
			t.Errorf("%s: %s, %+v, problems %q", name, s.Phase, ready, s.Problems)
		}
	}
	if n := len(l.points()); n != 2 {
		t.Errorf("%d points", n)
	}
}

func TestBackupThatIsKilledAnywhereMakesOnePoint(t *testing.T) {
	l := newLab(t)
	for n := int64(1); ; n += step() {
		name := fmt.Sprint("kill-", n)
		l.backup(name, l.application()) // of its own: who is killed with the last write leaves a lease to run out
		before := len(l.points())
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Backup(ctx, l.system, name) })
		if err := l.worker().Backup(t.Context(), l.system, name); err != nil {
			t.Fatalf("killed after %d writes, taken up again: %v", n, err)
		}
		s := l.statusOf(name)
		if s.Phase != v1alpha1.PhaseComplete || len(s.Resting) > 0 || len(l.points()) != before+1 || l.restorePoints()[s.Point].Name != s.RestorePoint {
			t.Errorf("killed after %d writes: %d points more, status %+v", n, len(l.points())-before, s)
		}
		if !killed {
			if n < 8 {
				t.Errorf("only %d writes", n)
			}
			return
		}
	}
}

func TestWhatEndsABackupAndWhatIsTriedAgain(t *testing.T) {
	l := newLab(t)
	app := l.application()
	for _, test := range []struct {
		class error
		phase v1alpha1.Phase
	}{
		{fault.ErrDenied, v1alpha1.PhaseFailed},
		{fault.ErrCorrupt, v1alpha1.PhaseFailed},
		{fault.ErrUnavailable, ""},
		{fault.ErrThrottled, ""},
		{fault.ErrBusy, ""},
	} {
		name := strings.ReplaceAll(test.class.Error(), " ", "-")
		l.opened = fault.New("open vault", test.class, "", "look there")
		l.backup(name, app)
		err := l.worker().Backup(t.Context(), l.system, name)
		if got := l.statusOf(name); got.Phase != test.phase || errors.Is(err, test.class) != (test.phase == "") {
			t.Errorf("%s: phase %q, error %v", name, got.Phase, err)
		}
		if test.phase == "" {
			continue
		}
		s := l.statusOf(name)
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		if ready.Reason != fault.Of(test.class).Reason || len(s.Problems) != 2 || s.Problems[1] != "look there" {
			t.Errorf("%s: %+v, problems %q", name, ready, s.Problems)
		}
	}
}

func TestBackupWhoseTimeIsOverSaysSo(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.backup("late", app, func(b *v1alpha1.Backup) { b.Spec.Deadline = "1h" })
	var b v1alpha1.Backup
	l.get("late", &b)
	began := metav1.NewTime(time.Now().Add(-2 * time.Hour))
	b.Status.Started = &began
	if err := l.cluster.Client.Status().Update(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := l.worker().Backup(t.Context(), l.system, "late"); err != nil {
		t.Fatal(err)
	}
	s := l.statusOf("late")
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if s.Phase != v1alpha1.PhaseFailed || ready.Reason != "DeadlineExceeded" || !strings.Contains(ready.Message, "longer than 1h0m0s") || len(l.points()) > 0 {
		t.Errorf("%s, %+v", s.Phase, ready)
	}
}

func TestRetentionAfterABackupTakesObjectsAlong(t *testing.T) {
	l := newLab(t)
	app, other := l.application(), l.application()
	l.create(&v1alpha1.Policy{
		ObjectMeta: l.named("nightly"),
		Spec: v1alpha1.PolicySpec{
			Location: "main", Retention: &v1alpha1.Retention{Last: 2},
			Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{app}}}},
		},
	})
	nightly := func(b *v1alpha1.Backup) { b.Spec.Policy, b.Spec.Location = "nightly", "" }
	by := l.backedUp("by-hand", app)
	l.backedUp("others", other, nightly)
	first := l.backedUp("first", app, nightly)
	l.backedUp("second", app, nightly)
	l.backedUp("third", app, nightly)
	objects := l.restorePoints()
	if _, there := objects[first.Point]; there || len(objects) != 4 || len(l.points()) != 4 {
		t.Errorf("%d points, objects %v", len(l.points()), objects)
	}
	if _, there := objects[by.Point]; !there {
		t.Error("a point of no policy was let go")
	}
}

func TestWhatTheControllerEndedStaysEnded(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.backup("one", app)
	var b v1alpha1.Backup
	l.get("one", &b)
	stale := &backup{Worker: l.worker(), object: b.DeepCopy()}
	b.Status.Phase, b.Status.Job = v1alpha1.PhaseFailed, "its-job"
	if err := l.cluster.Client.Status().Update(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	err := stale.save(t.Context(), func(s *v1alpha1.BackupStatus) { s.Phase = v1alpha1.PhaseMoving })
	if s := l.statusOf("one"); !errors.Is(err, errEnded) || s.Phase != v1alpha1.PhaseFailed {
		t.Errorf("phase %s, error %v", s.Phase, err)
	}
}

func TestStatusKeepsWhatOthersWroteMeanwhile(t *testing.T) {
	l := newLab(t)
	l.backup("one", l.application())
	var b v1alpha1.Backup
	l.get("one", &b)
	b.Status.Resting = []v1alpha1.RestingPod{{Namespace: "a", Pod: "b"}}
	if err := l.cluster.Client.Status().Update(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	stale := &backup{Worker: l.worker(), object: b.DeepCopy()}
	b.Status.Job, b.Status.Resting = "its-job", nil
	if err := l.cluster.Client.Status().Update(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := stale.save(t.Context(), func(s *v1alpha1.BackupStatus) { s.Phase = v1alpha1.PhaseMoving }); err != nil {
		t.Fatal(err)
	}
	if s := l.statusOf("one"); s.Phase != v1alpha1.PhaseMoving || s.Job != "its-job" || len(s.Resting) > 0 {
		t.Errorf("status %+v", s)
	}
}

// hooked makes a Backup with a hook whose pod cannot be reached: there is no node.
func (l *lab) hooked(name, app string) {
	l.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "db", Labels: map[string]string{"app": "db"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "db", Image: "none"}}},
	}
	l.create(pod)
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "db", Image: "none", ImageID: "none", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	if err := l.cluster.Client.Status().Update(l.Context(), pod); err != nil {
		l.Fatal(err)
	}
	l.backup(name, app, func(b *v1alpha1.Backup) {
		b.Spec.Application.Hooks = []v1alpha1.Hook{{
			Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Before: []string{"stop"}, After: []string{"go"},
		}}
	})
}

func TestHookThatFailsLeavesAnIncompletePointAndIsUndoneLater(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.hooked("hooked", app)
	if err := l.worker().Backup(t.Context(), l.system, "hooked"); err != nil {
		t.Fatal(err)
	}
	s := l.statusOf("hooked")
	if s.Phase != v1alpha1.PhaseIncomplete || len(s.Resting) != 1 || len(s.Problems) == 0 || !strings.Contains(s.Problems[0], partHooks) {
		t.Fatalf("status %+v", s)
	}
	record, _, err := l.store.Open(t.Context(), s.Point)
	if err != nil || record.Ledger.Failed != 1 || record.Ledger.Stored != 2 || record.Point.State != point.Incomplete {
		t.Fatalf("record %+v, %v", record, err)
	}
	for range 2 {
		if err := l.worker().Tidy(t.Context()); err != nil {
			t.Errorf("one application's hook fails the tidying of all: %v", err)
		}
	}
	told := l.statusOf("hooked").Problems
	if len(told) != len(s.Problems)+1 || !strings.HasPrefix(told[0], "still at rest: ") || !strings.Contains(told[0], app+"/db") {
		t.Errorf("a hook that cannot be undone: %q", told)
	}
	// The pod is gone, and so is its rest.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "db"}}
	if err := l.cluster.Client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	_ = l.worker().Tidy(t.Context()) // that the pod ended while it was at rest is an error
	if s := l.statusOf("hooked"); len(s.Resting) > 0 || s.Started == nil {
		t.Errorf("status %+v", s)
	}
}

func TestLacksNameWhatIsMissing(t *testing.T) {
	got := lacks([]point.Part{
		{Name: "a", State: point.Stored, Counts: []point.Count{{Of: "objects", Expected: 3, Stored: 3}}},
		{Name: "b", State: point.Stored, Counts: []point.Count{{Of: "objects", Expected: 3, Stored: 2}}},
		{
			Name: "c", State: point.Stored, Counts: []point.Count{{Of: "lists of widgets", Expected: 1}},
			Notes: []string{"missing: lists of widgets: no answer", "listed live"},
		},
		{Name: "d", State: point.Skipped, Reason: "asked for"},
		{Name: "e", State: point.Failed, Reason: "no driver"},
	})
	want := "b has 2 of 3 objects|c lacks lists of widgets: no answer|e failed: no driver"
	if strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", strings.Join(got, "|"), want)
	}
}

func TestBackupOfRepositories(t *testing.T) {
	l := newLab(t)
	p := &v1alpha1.Policy{ObjectMeta: l.named("code"), Spec: v1alpha1.PolicySpec{Location: "main", Sources: []v1alpha1.Source{
		{Git: &v1alpha1.Git{Access: v1alpha1.Access{URL: "https://git.example.com/a.git"}}},
		{Applications: &v1alpha1.Applications{Namespaces: []string{"shop"}}},
	}}}
	l.create(p)
	of := func(b *v1alpha1.Backup) {
		b.Spec = v1alpha1.BackupSpec{Policy: "code", Repositories: true}
	}
	report := &point.Run{State: point.Incomplete, Sources: []point.SourceRun{{
		Subject: point.Subject{Name: "git.example.com"}, State: point.Incomplete, Point: "p1",
		Repositories: []point.RepositoryRun{{State: point.Stored}, {Host: "git.example.com", Owner: "o", Name: "a", State: point.Carried, Reason: "gone"}},
	}}}
	var took v1alpha1.Policy
	var secret string
	w := l.worker()
	w.Repositories = func(
		ctx context.Context, p v1alpha1.Policy, _ Store, read func(context.Context, v1alpha1.SecretKeyRef) ([]byte, error), _ *protect.Shared,
	) (*point.Run, error) {
		took = p
		value, err := read(ctx, v1alpha1.SecretKeyRef{Name: "vault", Key: "password"})
		secret = string(value)
		return report, err
	}
	l.backup("code", "", of)
	if err := w.Backup(t.Context(), l.system, "code"); err != nil {
		t.Fatal(err)
	}
	s := l.statusOf("code")
	if len(took.Spec.Sources) != 1 || took.Spec.Sources[0].Git == nil || secret != "secret" {
		t.Errorf("took %+v, secret %q", took.Spec.Sources, secret)
	}
	want := v1alpha1.SourceStatus{Name: "git.example.com", State: "incomplete", Point: "p1", Repositories: 2, Lacking: 1}
	if s.Phase != v1alpha1.PhaseIncomplete || len(s.Sources) != 1 || s.Sources[0] != want || !strings.Contains(strings.Join(s.Problems, " "), "o/a carried: gone") {
		t.Errorf("status %+v", s)
	}
	w.Repositories = func(
		context.Context, v1alpha1.Policy, Store, func(context.Context, v1alpha1.SecretKeyRef) ([]byte, error), *protect.Shared,
	) (*point.Run, error) {
		return nil, fault.New("plan", fault.ErrInvalid, "no such forge", "")
	}
	l.backup("broken", "", of)
	if err := w.Backup(t.Context(), l.system, "broken"); err != nil {
		t.Fatal(err)
	}
	if s := l.statusOf("broken"); s.Phase != v1alpha1.PhaseFailed || !strings.Contains(strings.Join(s.Problems, " "), "no such forge") {
		t.Errorf("status %+v", s)
	}
}
