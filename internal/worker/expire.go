package worker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

// expire lets older points of the applications go that got a new one, where their policy does not keep them, and the objects that stand
// for them. It is done once for all Backups of a run: to list a vault for each of many applications takes longer than to back them up.
// What fails is said in the status of one of them, and tried again after the next run.
func (w *Worker) expire(ctx context.Context, store Store, namespace, location string, done []*backup) error {
	byPolicy := map[string][]*backup{}
	for _, b := range done {
		if b.policy != nil && b.object.Status.Point != "" {
			byPolicy[b.policy.Name] = append(byPolicy[b.policy.Name], b)
		}
	}
	deleted := 0
	for _, name := range slices.Sorted(maps.Keys(byPolicy)) {
		of := byPolicy[name]
		n, err := w.expireOf(ctx, store, of[0].policy, of)
		if deleted += n; err == nil {
			continue
		}
		err = of[0].save(ctx, func(s *v1alpha1.BackupStatus) { s.Problems = listed(append(s.Problems, "expire: "+err.Error())) })
		if err != nil {
			return err
		}
	}
	if deleted == 0 {
		return nil
	}
	_, err := w.syncObjects(ctx, namespace, location, store)
	return err
}

// syncKept is how long the point before a sync is kept, whatever retention says: what the sync did may show late, and the points made
// after it have that in them.
const syncKept = 24 * time.Hour

// needed are points that are not to go now, by their ids, each with the reason.
func (w *Worker) needed(ctx context.Context, namespace string) (map[string]string, error) {
	var points v1alpha1.RestorePointList
	if err := w.Cluster.Client.List(ctx, &points, client.InNamespace(namespace)); err != nil {
		return nil, fault.Wrap("list restore points", kube.ClassOf(err), err, "")
	}
	var restores v1alpha1.RestoreList
	if err := w.Cluster.Client.List(ctx, &restores, client.InNamespace(namespace)); err != nil {
		return nil, fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	all, ids := map[string]string{}, map[string]string{}
	for _, p := range points.Items {
		ids[p.Name] = p.Spec.Point
		if len(p.Spec.NextRevisions) > 0 && w.Now().Sub(p.Spec.Time.Time) < syncKept {
			all[p.Spec.Point] = "made before a sync, less than a day ago"
		}
	}
	for _, r := range restores.Items {
		if j := r.Status.GitOps; !r.Status.Phase.Final() || j != nil && j.Held != "" {
			all[cmp.Or(r.Status.Point, ids[r.Spec.RestorePoint])] = "restore " + r.Name + " needs it"
		}
	}
	return all, nil
}

// expireOf deletes points of one policy, and returns how many.
func (w *Worker) expireOf(ctx context.Context, store Store, p *v1alpha1.Policy, of []*backup) (deleted int, _ error) {
	kept, err := w.Retention(p.Spec.Retention)
	if err != nil || kept.IsEmpty() {
		return 0, err
	}
	zone := time.Local
	if s := p.Spec.Schedule; s != nil && s.TimeZone != "" {
		if zone, err = policy.ParseZone(s.TimeZone); err != nil {
			return 0, err
		}
	}
	points, err := store.Points(ctx, point.Filter{Policy: p.Name})
	if err != nil {
		return 0, err
	}
	subjects := map[point.Subject]bool{}
	for _, b := range of {
		subjects[b.subject()] = true
	}
	points = slices.DeleteFunc(points, func(p point.Point) bool { return !subjects[p.Subject] })
	needed, err := w.needed(ctx, of[0].object.Namespace)
	if err != nil {
		return 0, err
	}
	for i := range points {
		if why := needed[points[i].ID]; why != "" {
			points[i].Holds = append(points[i].Holds, point.Hold{Reason: why, Time: w.Now()})
		}
	}
	expired, err := protect.Expire(ctx, letting{store, w, of[0].object.Namespace, of[0].secrets}, points, protect.Expiry{Retention: kept, Now: w.Now(), Zone: zone})
	if errors.Is(err, fault.ErrLocked) {
		err = nil // the store lets them go later
	}
	if expired != nil {
		deleted = expired.Deleted
	}
	return deleted, err
}
