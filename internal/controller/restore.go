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
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(c.restoresOfJob)).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(c.newRestores)).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(c.newRestores)).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestForOwner(m.GetScheme(), m.GetRESTMapper(), &v1alpha1.Restore{})).
		Complete(calmly(c.reconcileRestore))
}

// restoresOfJob are the Restore of a Job and those that wait for it to end, or those that the end of tidying may let go.
func (c *controller) restoresOfJob(ctx context.Context, j client.Object) []reconcile.Request {
	var requests []reconcile.Request
	key, known := keyFor(j)
	work := j.GetLabels()[LabelWork]
	if (work == workRestore || work == workRelease) && known {
		requests = append(requests, reconcile.Request{NamespacedName: key})
	}
	var all v1alpha1.RestoreList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return requests // they look again by themselves
	}
	return append(requests, requestsFor(all.Items, func(r *v1alpha1.Restore) bool {
		untidy := work == workTidy && r.Status.Phase == v1alpha1.PhaseFailed && len(r.Finalizers) > 0
		return untidy || work == workRestore && r.Status.Phase == v1alpha1.PhasePending
	})...)
}

// newRestores are those that may have waited for a point or location to be there.
func (c *controller) newRestores(ctx context.Context, o client.Object) []reconcile.Request {
	var all v1alpha1.RestoreList
	if err := c.client.List(ctx, &all, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil // they look again by themselves
	}
	return requestsFor(all.Items, func(r *v1alpha1.Restore) bool { return r.Status.Phase == "" })
}

func restoreTask(r *v1alpha1.Restore) task {
	return task{work: workRestore, key: types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, uid: r.UID}
}

func (c *controller) reconcileRestore(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var r v1alpha1.Restore
	if err := c.client.Get(ctx, request.NamespacedName, &r); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.discard(ctx, workRestore, request.NamespacedName)
	}
	d, t := deedOfRestore(&r), restoreTask(&r)
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
	result, err := c.advance(ctx, t, []deed{d}, func() ([]waiting, error) { return c.restoresBefore(ctx, &r) })
	if err != nil || !r.Status.Phase.Final() {
		return result, err
	}
	if holdsSyncs(&r) {
		return c.hold(ctx, &r)
	}
	return c.release(ctx, d)
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

// restoresBefore is the Restores that have waited longer.
func (c *controller) restoresBefore(ctx context.Context, r *v1alpha1.Restore) ([]waiting, error) {
	var all v1alpha1.RestoreList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list restores: %w", err)
	}
	wait := map[types.NamespacedName]waiting{}
	for i := range all.Items {
		other := &all.Items[i]
		if other.Status.Phase == v1alpha1.PhasePending && other.Status.Started == nil && other.DeletionTimestamp.IsZero() {
			t := restoreTask(other)
			wait[t.key] = waiting{t.key, t.name(), other.CreationTimestamp.Time}
		}
	}
	return before(inOrder(wait), client.ObjectKeyFromObject(r)), nil
}

// undoOver is when the volumes that a Restore keeps are to go; the zero time for never.
func undoOver(r *v1alpha1.Restore) time.Time {
	if r.Status.UndoUntil == nil {
		return time.Time{}
	}
	return r.Status.UndoUntil.Time
}
