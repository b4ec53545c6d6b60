package controller

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// addRestores gives each Restore its Job.
func (c *controller) addRestores(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("restore").
		For(&v1alpha1.Restore{}).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(ofJob(c.restores, workRestore, workLoadBack, workRelease))).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(untaken(c.restores))).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(untaken(c.restores))).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestForOwner(m.GetScheme(), m.GetRESTMapper(), &v1alpha1.Restore{})).
		Complete(calmly(c.reconcileRestore))
}

// restores are all of them, as far as the options go.
func (c *controller) restores(ctx context.Context, of ...client.ListOption) ([]deed, error) {
	var all v1alpha1.RestoreList
	err := c.client.List(ctx, &all, append(of, client.UnsafeDisableDeepCopy)...)
	return deedsOf(all.Items, deedOfRestore), err
}

func (c *controller) reconcileRestore(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var r v1alpha1.Restore
	if err := c.client.Get(ctx, request.NamespacedName, &r); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.discard(ctx, workRestore, request.NamespacedName)
	}
	d, t := deedOfRestore(&r), taskOf(workRestore, &r)
	if r.Status.Phase == "" {
		return c.admit(ctx, d, "", t.name(), func() error { return c.checkRestore(ctx, &r) })
	}
	if err := c.keepUndoPoint(ctx, &r); err != nil {
		return reconcile.Result{}, err
	}
	if wantsUndoPoint(&r) {
		ready, err := c.undoPoint(ctx, &r)
		if err != nil {
			return c.refuse(ctx, d, err)
		}
		if !ready {
			return reconcile.Result{}, nil // until its Backup changes
		}
	}
	result, err := c.advance(ctx, t, []deed{d}, func() ([]waiting, error) { return ahead(ctx, c.restores, t) })
	if err != nil || !r.Status.Phase.Final() {
		return result, err
	}
	if holdsSyncs(&r) {
		return c.hold(ctx, &r)
	}
	if overdue := r.DeletionTimestamp != nil && c.Now().Sub(r.DeletionTimestamp.Time) > releaseTime; r.Status.LoadsBack() && !overdue {
		return c.loadBack(ctx, &r)
	}
	return c.release(ctx, d)
}

// workLoadBack puts back what databases had before a Restore that failed without doing so. Not the tidying: that has no time for it.
const workLoadBack = "load-back"

// loadBack gives such a Restore a Job, and another one a while after that fails.
func (c *controller) loadBack(ctx context.Context, r *v1alpha1.Restore) (reconcile.Result, error) {
	t := taskOf(workLoadBack, r)
	t.deadline, t.urgent = deedOfRestore(r).deadline()+jobGrace, true
	j, err := c.find(ctx, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	o := outcomeOf(j)
	switch wait := retry - c.Now().Sub(o.ended); {
	case o.state == absent:
		_, err = c.start(ctx, t, nil)
	case o.state == succeeded: // its word in the status is on its way
		return reconcile.Result{RequeueAfter: queueLook}, nil
	case o.state == failed && wait > 0:
		return reconcile.Result{RequeueAfter: wait}, nil
	case o.state == failed:
		return reconcile.Result{RequeueAfter: queueLook}, c.stop(ctx, j) // its name is free once it is gone
	}
	return reconcile.Result{}, err
}

// checkRestore finds what is wrong with a Restore before any work is done for it.
func (c *controller) checkRestore(ctx context.Context, r *v1alpha1.Restore) error {
	op := "restore " + r.Name
	if err := c.tenantRestore(op, r); err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: r.Namespace}
	switch {
	case r.Spec.RestorePoint != "":
		key.Name = r.Spec.RestorePoint
		return c.need(ctx, op, "restore point", key, &v1alpha1.RestorePoint{})
	case r.Spec.Latest != nil:
		key.Name = r.Spec.Latest.Location
		return c.need(ctx, op, "location", key, &v1alpha1.Location{})
	case r.Spec.Undo != "":
		key.Name = r.Spec.Undo
		return c.need(ctx, op, "restore", key, &v1alpha1.Restore{})
	}
	return fault.New(op, fault.ErrInvalid, "it names neither a restore point nor a restore to undo", "")
}

// tenantRestore refuses what a Restore outside Backstay's own namespace may not do.
func (c *controller) tenantRestore(op string, r *v1alpha1.Restore) error {
	if r.Namespace == c.System {
		return nil
	}
	const hint = "restores outside Backstay's own namespace reach their own namespace only"
	for from, to := range r.Spec.Namespaces {
		if to != r.Namespace {
			return fault.New(op, fault.ErrDenied, fmt.Sprintf("namespace %s to %s: it is not %s", from, to, r.Namespace), hint)
		}
	}
	if r.Spec.ClusterObjects != nil && *r.Spec.ClusterObjects {
		return fault.New(op, fault.ErrDenied, "clusterObjects: it may not create objects of the cluster", hint)
	}
	return nil
}

// undoOver is when the volumes that a Restore keeps are to go; the zero time for never.
func undoOver(r *v1alpha1.Restore) time.Time {
	if r.Status.UndoUntil == nil {
		return time.Time{}
	}
	return r.Status.UndoUntil.Time
}
