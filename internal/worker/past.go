package worker

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
)

// Past is what is known of one application on one cluster: its points, Restores, and the syncs that came to gates, others' among them and
// in any order.
type Past struct {
	Points   []v1alpha1.RestorePoint
	Restores []v1alpha1.Restore
	Gates    []v1alpha1.Gate
}

// ReadPast reads the past that goes with points of an application, for each cluster that they were made on. Who may not read Gates gets none.
func ReadPast(ctx context.Context, c client.Reader, namespace string, points []v1alpha1.RestorePoint) (map[string]Past, error) {
	var restores v1alpha1.RestoreList
	if err := c.List(ctx, &restores, client.InNamespace(namespace)); err != nil {
		return nil, fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	var gates v1alpha1.GateList
	if err := c.List(ctx, &gates); err != nil && !apierrors.IsForbidden(err) {
		return nil, fault.Wrap("list gates", kube.ClassOf(err), err, "")
	}
	all := map[string]Past{}
	for _, p := range points {
		past := all[p.Spec.Cluster]
		past.Points, past.Restores, past.Gates = append(past.Points, p), restores.Items, gates.Items
		all[p.Spec.Cluster] = past
	}
	return all, nil
}

// Choice is the point that goes with a revision.
type Choice struct {
	Point   *v1alpha1.RestorePoint   // nil for none
	Passed  []*v1alpha1.RestorePoint // that are newer, newest first: another revision has touched their data
	Touched bool                     // the data of Point, too: there is no other point
}

// PointOf is the newest complete point that was made while a revision was live, of data that no sync away from it has touched. An engine
// that goes back to a revision takes along what was done to the data meanwhile, and so does a sync that failed; a Restore does not. Where
// there is none it is the newest complete one.
func (p Past) PointOf(revision string) Choice {
	l := lineage{revision: revision, points: map[string]bearing{}, restores: map[string]bearing{}}
	for _, h := range p.happened() {
		h.told(&l)
	}
	slices.Reverse(l.made)
	switch i := slices.Index(l.made, l.untouched); {
	case i >= 0:
		return Choice{Point: l.untouched, Passed: l.made[:i]}
	case len(l.made) > 0:
		return Choice{Point: l.made[0], Touched: true}
	}
	return Choice{}
}

// bearing is how data bears on a revision.
type bearing int

const (
	before bearing = iota // the revision was not live with it
	of                    // nothing but the revision was, since
	after                 // another one was, or was tried
)

// lineage follows the data of an application through its past.
type lineage struct {
	revision  string
	now       bearing
	points    map[string]bearing       // of the data in points, by their ids
	restores  map[string]bearing       // of the data that Restores took out of use, by their names
	made      []*v1alpha1.RestorePoint // complete, while the revision was live
	untouched *v1alpha1.RestorePoint   // the last of them whose data is of the revision
}

func (l *lineage) is(revisions []string) bool {
	return slices.ContainsFunc(revisions, func(r string) bool { return point.SameRevision(r, l.revision) })
}

// seen is told of a point, and of the sync that it was made for.
func (l *lineage) seen(p *v1alpha1.RestorePoint) {
	live := l.is(p.Spec.Revisions)
	switch {
	case live && l.now == before:
		l.now = of
	case !live && l.now == of && len(p.Spec.Revisions) > 0:
		l.now = after
	}
	l.points[p.Spec.Point] = l.now
	if live && p.Spec.State == string(point.Complete) {
		l.made = append(l.made, p)
		if l.now == of {
			l.untouched = p
		}
	}
	l.left(p.Spec.Revisions, p.Spec.NextRevisions)
}

// left is told of a sync.
func (l *lineage) left(from, to []string) {
	if l.is(from) && len(to) > 0 && !l.is(to) {
		l.now = after
	}
}

// restored is told that the data of a point is back, or what a Restore had taken out of use.
func (l *lineage) restored(r *v1alpha1.Restore) {
	was := l.now
	if r.Spec.Undo != "" {
		if undone, known := l.restores[r.Spec.Undo]; known {
			l.now = undone
		}
	} else if of, known := l.points[r.Status.Point]; known {
		l.now = of
	}
	l.restores[r.Name] = was
}

// happening is something that bears on an application's data.
type happening struct {
	at   time.Time
	told func(*lineage)
}

// happened is all of it, in its order.
func (p Past) happened() []happening {
	var all []happening
	deployments := map[string]bool{}
	for i := range p.Points {
		made := &p.Points[i]
		deployments[made.Spec.Deployment] = true
		all = append(all, happening{made.Spec.Time.Time, func(l *lineage) { l.seen(made) }})
	}
	for i := range p.Gates {
		s := &p.Gates[i].Status
		// A sync that asked nobody, and has a point: that says so, and was made after the sync had begun.
		told := s.Phase == v1alpha1.GateOpen || s.Phase == v1alpha1.GateUngated && s.Backup == ""
		if told && s.Sync != nil && s.Ended != nil && deployments[s.Sync.Deployment] {
			all = append(all, happening{s.Ended.Time, func(l *lineage) { l.left(s.Sync.From, s.Sync.To) }})
		}
	}
	for i := range p.Restores {
		r := &p.Restores[i]
		if at := dataBack(r); !at.IsZero() {
			all = append(all, happening{at, func(l *lineage) { l.restored(r) }})
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return a.at.Compare(b.at) })
	return all
}

// dataBack is when a Restore had brought all data back where it came from; zero where it has not.
func dataBack(r *v1alpha1.Restore) time.Time {
	done := r.Status.Phase == v1alpha1.PhaseComplete || r.Status.Phase == v1alpha1.PhaseIncomplete
	switch j := r.Status.GitOps; {
	case !done, r.Spec.PlanOnly, r.Spec.Only == v1alpha1.OnlyConfig, len(r.Spec.Namespaces) > 0, len(r.Spec.Claims) > 0:
		return time.Time{}
	case j != nil && j.DataBack != nil:
		return j.DataBack.Time
	case r.Status.Finished != nil:
		return r.Status.Finished.Time
	}
	return time.Time{}
}
