package controller

import (
	"context"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
)

// addLocations has each location looked at: when it is new or changed, when points are to be deleted, and every hour.
func (c *controller) addLocations(m manager.Manager) error {
	ofJob := func(_ context.Context, j client.Object) []reconcile.Request {
		key, known := keyFor(j)
		if j.GetLabels()[LabelWork] != workLocation || !known {
			return nil
		}
		return []reconcile.Request{{NamespacedName: key}}
	}
	ofPoint := func(_ context.Context, o client.Object) []reconcile.Request {
		p, is := o.(*v1alpha1.RestorePoint)
		if !is || p.DeletionTimestamp.IsZero() {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Location}}}
	}
	return ctrl.NewControllerManagedBy(m).Named("location").
		For(&v1alpha1.Location{}).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(ofJob)).
		Watches(&v1alpha1.RestorePoint{}, handler.EnqueueRequestsFromMapFunc(ofPoint)).
		Complete(calmly(c.reconcileLocation))
}

func locationTask(l *v1alpha1.Location) task {
	return task{
		work: workLocation, key: types.NamespacedName{Namespace: l.Namespace, Name: l.Name}, uid: l.UID,
		generation: l.Generation, deadline: locationTime,
	}
}

func (c *controller) reconcileLocation(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var l v1alpha1.Location
	if err := c.client.Get(ctx, r.NamespacedName, &l); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.discard(ctx, workLocation, r.NamespacedName)
	}
	if !l.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	t := locationTask(&l)
	j, err := c.find(ctx, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	o := outcomeOf(j)
	if o.state == running || o.state == absent {
		if l.Status.ObservedGeneration != l.Generation || len(l.Status.Conditions) == 0 {
			v := verdict{metav1.ConditionUnknown, true, false, "Pending", "it is looked at for the first time"}
			if err := c.sayLocation(ctx, &l, v); err != nil {
				return reconcile.Result{}, err
			}
		}
		if o.state == running {
			return reconcile.Result{}, nil
		}
		started, err := c.start(ctx, t, nil)
		if err != nil || started {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: queueLook}, nil
	}
	if err := c.sayResult(ctx, &l, j, o); err != nil {
		return reconcile.Result{}, err
	}
	due, err := c.locationDue(ctx, &l, j, o)
	if err != nil {
		return reconcile.Result{}, err
	}
	if wait := due.Sub(c.Now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return reconcile.Result{RequeueAfter: queueLook}, c.stop(ctx, j) // its name is free once it is gone
}

// sayLocation writes what is to be said of a location, unless it is said.
func (c *controller) sayLocation(ctx context.Context, l *v1alpha1.Location, v verdict) error {
	if judged(l.Status.Conditions, l.Generation, v) {
		return nil
	}
	err := c.save(ctx, l, func() {
		l.Status.ObservedGeneration = l.Generation
		judge(&l.Status.Conditions, l.Generation, c.Now(), v)
	})
	if err == nil && v.stalled {
		c.tell(l, corev1.EventTypeWarning, v.reason, v.message)
	}
	return err
}

// sayResult writes what became of a Job. What the worker wrote itself says more, and stays.
func (c *controller) sayResult(ctx context.Context, l *v1alpha1.Location, j *batchv1.Job, o outcome) error {
	if j.Annotations[annotationGeneration] != strconv.FormatInt(l.Generation, 10) {
		return nil // of another spec
	}
	ready := meta.FindStatusCondition(l.Status.Conditions, v1alpha1.ConditionReady)
	told := ready != nil && ready.ObservedGeneration == l.Generation
	switch {
	case o.state == succeeded && (!told || ready.Status != metav1.ConditionTrue):
		return c.sayLocation(ctx, l, verdict{metav1.ConditionTrue, false, false, "Succeeded", "points and objects are in line"})
	case o.state == failed && (!told || ready.Status != metav1.ConditionFalse):
		return c.sayLocation(ctx, l, verdict{metav1.ConditionFalse, o.retries, !o.retries, o.reason, o.message})
	}
	return nil
}

// locationDue is when a location is to be looked at again after a Job that ended.
func (c *controller) locationDue(ctx context.Context, l *v1alpha1.Location, j *batchv1.Job, last outcome) (time.Time, error) {
	if j.Annotations[annotationGeneration] != strconv.FormatInt(l.Generation, 10) {
		return last.ended, nil
	}
	due := last.ended.Add(c.LocationEvery)
	again := last.ended.Add(min(retry, c.LocationEvery))
	if last.state == failed {
		due = again
	}
	var points v1alpha1.RestorePointList
	if err := c.client.List(ctx, &points, client.InNamespace(l.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return due, fmt.Errorf("list restore points: %w", err)
	}
	for i := range points.Items {
		p := &points.Items[i]
		switch {
		case p.Spec.Location != l.Name || p.DeletionTimestamp.IsZero():
		case !last.began.After(p.DeletionTimestamp.Time): // not seen by that Job, perhaps
			return last.ended, nil
		case again.Before(due):
			due = again
		}
	}
	return due, nil
}
