package controller

import (
	"context"

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
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(ofJob(c.drills, workDrill))).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(untaken(c.drills))).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(untaken(c.drills))).
		Complete(calmly(c.reconcileDrill))
}

func deedOfDrill(d *v1alpha1.Drill) deed {
	s := &d.Status
	return deed{d, d.Spec.Deadline, &s.Conditions, &s.ObservedGeneration, &s.Phase, s.Started, &s.Finished, &s.Job, &s.Problems, false}
}

// drills are all of them, as far as the options go.
func (c *controller) drills(ctx context.Context, of ...client.ListOption) ([]deed, error) {
	var all v1alpha1.DrillList
	err := c.client.List(ctx, &all, append(of, client.UnsafeDisableDeepCopy)...)
	return deedsOf(all.Items, deedOfDrill), err
}

func (c *controller) reconcileDrill(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var d v1alpha1.Drill
	if err := c.client.Get(ctx, request.NamespacedName, &d); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.discard(ctx, workDrill, request.NamespacedName)
	}
	is, t := deedOfDrill(&d), taskOf(workDrill, &d)
	if d.Status.Phase == "" {
		return c.admit(ctx, is, "", t.name(), func() error { return c.checkDrill(ctx, &d) })
	}
	result, err := c.advance(ctx, t, []deed{is}, func() ([]waiting, error) { return ahead(ctx, c.drills, t) })
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
