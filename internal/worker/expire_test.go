package worker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// counting counts what is expensive in a vault of many points. It may refuse to delete.
type counting struct {
	open
	lists, deletions int
	begun            int
	refuse           error
}

func (c *counting) Begin(ctx context.Context, s point.Subject, policy string) (point.Draft, error) {
	c.begun++
	return c.open.Begin(ctx, s, policy)
}

func (c *counting) Points(ctx context.Context, f point.Filter) ([]point.Point, error) {
	c.lists++
	return c.open.Points(ctx, f)
}

func (c *counting) Delete(ctx context.Context, ids ...string) error {
	c.deletions++
	if c.refuse != nil {
		return c.refuse
	}
	return c.open.Delete(ctx, ids...)
}

// TestPointsExpireOnceARun holds a run of many applications to what a run of one costs, beside the points themselves.
func TestPointsExpireOnceARun(t *testing.T) {
	l := newLab(t)
	apps := []string{l.application(), l.application(), l.application()}
	l.create(&v1alpha1.Policy{
		ObjectMeta: l.named("nightly"),
		Spec: v1alpha1.PolicySpec{
			Location: "main", Retention: &v1alpha1.Retention{Last: 1}, Parallel: 1,
			Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: apps}}},
		},
	})
	run := func(name string, s Store) {
		t.Helper()
		for _, app := range apps {
			l.backup(name+"-"+app, app, func(b *v1alpha1.Backup) {
				b.Spec.Policy, b.Labels[v1alpha1.LabelRun] = "nightly", name
			})
		}
		if err := l.workerOf(l.cluster, s).Backup(l.Context(), l.system, name); err != nil {
			t.Fatal(err)
		}
	}
	run("first", open{l.store})
	store := &counting{open: open{l.store}}
	run("second", store)
	if n := len(l.points()); n != 3 || len(l.restorePoints()) != 3 {
		t.Errorf("%d points, %d objects, want 3 of each", n, len(l.restorePoints()))
	}
	if store.begun != 3 || store.lists != 2 || store.deletions != 1 {
		t.Errorf("%d drafts, %d lists, %d deletions; want a draft for each application, a list for what expires and one for the objects, one deletion",
			store.begun, store.lists, store.deletions)
	}

	run("third", &counting{open: open{l.store}, refuse: fault.New("delete", fault.ErrDenied, "the bucket allows no deletion", "")})
	said := 0
	for _, app := range apps {
		s := l.statusOf("third-" + app)
		if s.Phase != v1alpha1.PhaseComplete {
			t.Errorf("%s: %s", app, s.Phase)
		}
		if slices.ContainsFunc(s.Problems, func(p string) bool { return p == "expire: expire points: delete: the bucket allows no deletion" }) {
			said++
		}
	}
	if said != 1 {
		t.Errorf("%d Backups say that points could not be deleted, want one: %q", said, l.statusOf("third-"+apps[0]).Problems)
	}
}

// TestPointsBeforeSyncsAndOfRestoresStay: retention lets neither the point before a sync go at once, nor one that a Restore is to bring back.
func TestPointsBeforeSyncsAndOfRestoresStay(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.create(&v1alpha1.Policy{
		ObjectMeta: l.named("nightly"),
		Spec: v1alpha1.PolicySpec{
			Location: "main", Retention: &v1alpha1.Retention{Last: 1}, Parallel: 1,
			Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{app}}}},
		},
	})
	run := func(name string, later time.Duration) string {
		t.Helper()
		l.backup(name, app, func(b *v1alpha1.Backup) { b.Spec.Policy, b.Labels[v1alpha1.LabelRun] = "nightly", name })
		w := l.workerAt(l.cluster, open{l.store}, func() time.Time { return time.Now().Add(later) })
		if err := w.Backup(l.Context(), l.system, name); err != nil {
			t.Fatal(err)
		}
		return l.statusOf(name).Point
	}
	left := func(want ...string) {
		t.Helper()
		var ids []string
		for _, p := range l.points() {
			ids = append(ids, p.ID)
		}
		slices.Sort(ids)
		slices.Sort(want)
		if !slices.Equal(ids, want) {
			t.Errorf("there are %q, want %q", ids, want)
		}
	}
	before := run("sync", 0)
	var o v1alpha1.RestorePoint
	l.get(l.statusOf("sync").RestorePoint, &o)
	o.Spec.NextRevisions = []string{"bbbbbbb"}
	if err := l.cluster.Client.Update(t.Context(), &o); err != nil {
		t.Fatal(err)
	}
	second := run("second", time.Minute)
	left(before, second)
	l.create(&v1alpha1.Restore{ObjectMeta: l.named("back"), Spec: v1alpha1.RestoreSpec{RestorePoint: l.statusOf("second").RestorePoint}})
	third := run("third", 2*time.Minute)
	left(before, second, third)
	left(second, run("a-day-later", syncKept+time.Hour))
}
