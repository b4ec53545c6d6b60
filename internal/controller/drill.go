package controller

import (
	"context"
	"fmt"

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

const workDrill = "drill"

// addDrills gives each Drill its Job.
func (c *controller) addDrills(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("drill").
		For(&v1alpha1.Drill{}).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(c.drillsOfJob)).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(c.newDrills)).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(c.newDrills)).
		Complete(calmly(c.reconcileDrill))
}

// drillsOfJob are the Drill of a Job and those that wait for it to end, or those that the end of tidying may let go.
func (c *controller) drillsOfJob(ctx context.Context, j client.Object) []reconcile.Request {
	var requests []reconcile.Request
	work := j.GetLabels()[LabelWork]
	if key, known := keyFor(j); known && work == workDrill {
		requests = append(requests, reconcile.Request{NamespacedName: key})
	}
	var all v1alpha1.DrillList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return requests // they look again by themselves
	}
	return append(requests, requestsFor(all.Items, func(d *v1alpha1.Drill) bool {
		untidy := work == workTidy && d.Status.Phase == v1alpha1.PhaseFailed && len(d.Finalizers) > 0
		return untidy || work == workDrill && d.Status.Phase == v1alpha1.PhasePending
	})...)
}

// newDrills are those that may have waited for a point or location to be there.
func (c *controller) newDrills(ctx context.Context, o client.Object) []reconcile.Request {
	var all v1alpha1.DrillList
	if err := c.client.List(ctx, &all, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil // they look again by themselves
	}
	return requestsFor(all.Items, func(d *v1alpha1.Drill) bool { return d.Status.Phase == "" })
}

func drillTask(d *v1alpha1.Drill) task {
	return task{work: workDrill, key: types.NamespacedName{Namespace: d.Namespace, Name: d.Name}, uid: d.UID}
}

func deedOfDrill(d *v1alpha1.Drill) deed {
	s := &d.Status
	return deed{d, d.Spec.Deadline, &s.Conditions, &s.ObservedGeneration, &s.Phase, s.Started, &s.Finished, &s.Job, &s.Problems, false}
}

func (c *controller) reconcileDrill(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var d v1alpha1.Drill
	if err := c.client.Get(ctx, request.NamespacedName, &d); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.discard(ctx, workDrill, request.NamespacedName)
	}
	is, t := deedOfDrill(&d), drillTask(&d)
	if d.Status.Phase == "" {
		return c.admit(ctx, is, "", t.name(), func() error { return c.checkDrill(ctx, &d) })
	}
	result, err := c.advance(ctx, t, []deed{is}, func() ([]waiting, error) { return c.drillsBefore(ctx, &d) })
	if err != nil || !d.Status.Phase.Final() {
		return result, err
	}
	return c.release(ctx, is)
}

// checkDrill finds what is wrong with a Drill before any work is done for it.
func (c *controller) checkDrill(ctx context.Context, d *v1alpha1.Drill) error {
	op := "drill " + d.Name
	if d.Namespace != c.System {
		return fault.New(op, fault.ErrDenied, "drills of applications are made in Backstay's own namespace only, "+c.System,
			"the namespaces that they make are with nobody's rights but Backstay's")
	}
	if latest := d.Spec.Latest; latest != nil {
		return c.need(ctx, op, "location", types.NamespacedName{Namespace: d.Namespace, Name: latest.Location}, &v1alpha1.Location{})
	}
	return c.need(ctx, op, "restore point", types.NamespacedName{Namespace: d.Namespace, Name: d.Spec.RestorePoint}, &v1alpha1.RestorePoint{})
}

// drillsBefore is the names of the Jobs of Drills that have waited longer.
func (c *controller) drillsBefore(ctx context.Context, d *v1alpha1.Drill) ([]waiting, error) {
	var all v1alpha1.DrillList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list drills: %w", err)
	}
	wait := map[types.NamespacedName]waiting{}
	for i := range all.Items {
		other := &all.Items[i]
		if other.Status.Phase == v1alpha1.PhasePending && other.Status.Started == nil && other.DeletionTimestamp.IsZero() {
			t := drillTask(other)
			wait[t.key] = waiting{t.key, t.name(), other.CreationTimestamp.Time}
		}
	}
	return before(inOrder(wait), client.ObjectKeyFromObject(d)), nil
}
