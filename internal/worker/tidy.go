package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
)

// Tidy removes what Backups, Restores and Drills that have ended, or are gone, left on the cluster, puts right what they changed, and deletes
// the volumes kept for an undo whose time is over. It goes on after a failure, and its error says what could not be done.
func (w *Worker) Tidy(ctx context.Context) error {
	claims := &volume.Restorer{Cluster: w.Cluster, Application: w.Cluster, System: w.System, Wait: stepTime, Poll: time.Second, Now: w.Now}
	steps := []func(active func(uid string) bool) error{
		func(active func(uid string) bool) error {
			removed, err := w.keeper(w.System, "", "").Tidy(ctx, active)
			for _, what := range removed {
				w.Log.Info("tidied away", "object", what)
			}
			return err
		},
		func(func(uid string) bool) error { return w.releaseEnded(ctx) },
		func(func(uid string) bool) error { return w.clearPhases(ctx) },
		func(func(uid string) bool) error { return w.forUnresolved(ctx, w.stopDeploying) },
		// Volumes before the workloads that use them.
		func(active func(uid string) bool) error { return claims.TidyVolumes(ctx, active) },
		func(func(uid string) bool) error { return w.forUnresolved(ctx, w.takeBackTransaction) },
		func(func(uid string) bool) error { return w.letAllUndoneGo(ctx) },
		func(active func(uid string) bool) error { return claims.StartAll(ctx, active) },
		func(active func(uid string) bool) error { return claims.DeleteUndo(ctx, active) },
		func(active func(uid string) bool) error { return w.dropLeases(ctx, active) },
		func(active func(uid string) bool) error {
			return w.dropActionSets(ctx, func(owner string) bool { return !active(owner) })
		},
		func(active func(uid string) bool) error { return w.clearEnded(ctx, active) },
	}
	var failed []error
	for _, step := range steps {
		o := owners{list: func() (map[string]bool, error) { return w.active(ctx) }}
		err := step(o.active)
		failed = append(failed, err, o.err)
	}
	return errors.Join(failed...)
}

// owners are the Backups, Restores and Drills under way, as of when they are first asked about: who begins to work after something was listed
// must not be taken for gone. Where they cannot be listed, everybody is at work.
type owners struct {
	list func() (map[string]bool, error)
	uids map[string]bool
	err  error
}

func (o *owners) active(uid string) bool {
	if o.uids == nil && o.err == nil {
		o.uids, o.err = o.list()
	}
	return o.err != nil || o.uids[uid]
}

// active lists the uids of Backups, Restores and Drills that are under way.
func (w *Worker) active(ctx context.Context) (map[string]bool, error) {
	active := map[string]bool{}
	var backups v1alpha1.BackupList
	if err := w.Cluster.Client.List(ctx, &backups); err != nil {
		return nil, fault.Wrap("list backups", kube.ClassOf(err), err, "")
	}
	for _, b := range backups.Items {
		active[string(b.UID)] = !b.Status.Phase.Final() && b.DeletionTimestamp.IsZero()
	}
	var restores v1alpha1.RestoreList
	if err := w.Cluster.Client.List(ctx, &restores); err != nil {
		return nil, fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	for _, r := range restores.Items {
		active[string(r.UID)] = !r.Status.Phase.Final() && r.DeletionTimestamp.IsZero()
	}
	var drills v1alpha1.DrillList
	if err := w.Cluster.Client.List(ctx, &drills); err != nil {
		return nil, fault.Wrap("list drills", kube.ClassOf(err), err, "")
	}
	for _, d := range drills.Items {
		active[string(d.UID)] = !d.Status.Phase.Final() && d.DeletionTimestamp.IsZero()
	}
	return active, nil
}

// releaseEnded undoes the hooks of Backups that ended without doing so themselves.
func (w *Worker) releaseEnded(ctx context.Context) error {
	var all v1alpha1.BackupList
	if err := w.Cluster.Client.List(ctx, &all); err != nil {
		return fault.Wrap("list backups", kube.ClassOf(err), err, "")
	}
	var failed []error
	for i := range all.Items {
		b := &backup{Worker: w, object: &all.Items[i]}
		if !b.object.Status.Phase.Final() && b.object.DeletionTimestamp.IsZero() {
			continue
		}
		if err := b.release(ctx); err != nil {
			failed = append(failed, b.tellRest(ctx, err))
		}
	}
	return errors.Join(failed...)
}

// tellRest says in the status of a Backup that has ended why its application is still at rest. That is no failure of tidying: what one
// pod refuses holds up nobody else.
func (b *backup) tellRest(ctx context.Context, why error) error {
	const still = "still at rest: "
	b.Log.Error("an application is still at rest", "namespace", b.object.Namespace, "backup", b.object.Name, "error", why.Error())
	err := b.persist(ctx, b.object, func() error {
		old := slices.DeleteFunc(b.object.Status.Problems, func(p string) bool { return strings.HasPrefix(p, still) })
		b.object.Status.Problems = listed(append([]string{still + why.Error()}, old...))
		return nil
	})
	if errors.Is(err, fault.ErrNotFound) { // it is gone
		return nil
	}
	return err
}

// dropLeases removes the leases of those that have ended.
func (w *Worker) dropLeases(ctx context.Context, active func(uid string) bool) error {
	var all coordinationv1.LeaseList
	if err := w.Cluster.Client.List(ctx, &all, client.InNamespace(w.System), client.HasLabels{v1alpha1.LabelOwner}); err != nil {
		return fault.Wrap("list leases", kube.ClassOf(err), err, "")
	}
	ended := slices.DeleteFunc(all.Items, func(l coordinationv1.Lease) bool { return active(l.Labels[v1alpha1.LabelOwner]) })
	var failed []error
	for i := range ended {
		unchanged := client.Preconditions{ResourceVersion: &ended[i].ResourceVersion} // another may have taken it
		failed = append(failed, ignoreRace(w.Cluster.Client.Delete(ctx, &ended[i], unchanged)))
	}
	return errors.Join(failed...)
}
