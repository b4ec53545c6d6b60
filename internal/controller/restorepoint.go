package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
)

// deletionTime is how long the deletion of a point is tried.
const deletionTime = time.Hour

// stateComplete is how a RestorePoint calls a point that lacks nothing.
const stateComplete = "complete"

// addRestorePoints sees to it that deleting a RestorePoint deletes the point, and that this never blocks for ever. The worker of the
// location does it: see locationDue.
func (c *controller) addRestorePoints(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("restorepoint").
		For(&v1alpha1.RestorePoint{}).
		Watches(&v1alpha1.Location{}, handler.EnqueueRequestsFromMapFunc(c.deletedPoints)).
		Complete(calmly(c.reconcileRestorePoint))
}

// deletedPoints are the points of a location that wait for its worker.
func (c *controller) deletedPoints(ctx context.Context, l client.Object) []reconcile.Request {
	var all v1alpha1.RestorePointList
	if err := c.client.List(ctx, &all, client.InNamespace(l.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil // they look again by themselves
	}
	var requests []reconcile.Request
	for i := range all.Items {
		if p := &all.Items[i]; p.Spec.Location == l.GetName() && !p.DeletionTimestamp.IsZero() {
			requests = append(requests, requestFor(p))
		}
	}
	return requests
}

func (c *controller) reconcileRestorePoint(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var p v1alpha1.RestorePoint
	if err := c.client.Get(ctx, r.NamespacedName, &p); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !p.DeletionTimestamp.IsZero() {
		return c.deletePoint(ctx, &p)
	}
	if !controllerutil.ContainsFinalizer(&p, v1alpha1.FinalizerPoint) {
		if holds, err := c.holds(ctx, p.Namespace); !holds || err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.mark(ctx, &p, func() { controllerutil.AddFinalizer(&p, v1alpha1.FinalizerPoint) })
	}
	v := verdict{metav1.ConditionTrue, false, false, "Complete", "the location holds it"}
	if p.Spec.State != stateComplete {
		v = verdict{metav1.ConditionFalse, false, true, "Incomplete", "the location holds it; something of the application is missing in it"}
	}
	if judged(p.Status.Conditions, p.Generation, v) {
		return reconcile.Result{}, c.tellProof(ctx, &p)
	}
	return reconcile.Result{}, c.save(ctx, &p, func() { judge(&p.Status.Conditions, p.Generation, c.Now(), v) })
}

// deletePoint waits for the location's worker to delete the point, as long as there is hope.
func (c *controller) deletePoint(ctx context.Context, p *v1alpha1.RestorePoint) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(p, v1alpha1.FinalizerPoint) {
		return reconcile.Result{}, nil
	}
	why, err := c.hopeless(ctx, p)
	if err != nil {
		return reconcile.Result{}, err
	}
	if why == "" {
		left := deletionTime - c.Now().Sub(p.DeletionTimestamp.Time)
		if left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		why = "its location's worker failed for an hour"
	}
	if err := c.mark(ctx, p, func() { controllerutil.RemoveFinalizer(p, v1alpha1.FinalizerPoint) }); err != nil {
		return reconcile.Result{}, err
	}
	c.tell(p, corev1.EventTypeWarning, "PointKept", fmt.Sprintf("the object goes, point %s stays in location %s: %s", p.Spec.Point, p.Spec.Location, why))
	return reconcile.Result{}, nil
}

// hopeless says why nobody will delete the point: its location is gone or going. With a namespace its objects go, and not what stands
// elsewhere: that is what backups are for.
func (c *controller) hopeless(ctx context.Context, p *v1alpha1.RestorePoint) (why string, _ error) {
	switch ends, err := c.ends(ctx, p.Namespace); {
	case err != nil:
		return "", err
	case ends:
		return "its namespace is deleted", nil
	}
	var l v1alpha1.Location
	switch err := c.client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Location}, &l); {
	case apierrors.IsNotFound(err):
		return "there is no such location any more", nil
	case err != nil:
		return "", fmt.Errorf("read location %s: %w", p.Spec.Location, err)
	case !l.DeletionTimestamp.IsZero():
		return "the location is deleted", nil
	}
	return "", nil
}
