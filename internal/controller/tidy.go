package controller

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/backstay/backstay/api/v1alpha1"
)

// retry is when a Job that failed is tried anew.
const retry = 5 * time.Minute

func (c *controller) tidyTask() task {
	return task{work: workTidy, key: types.NamespacedName{Namespace: c.System, Name: workTidy}, deadline: tidyTime}
}

// addTidy has the cluster tidied: when leadership begins, after work that failed, when kept volumes are to go, and every hour.
func (c *controller) addTidy(m manager.Manager) error {
	request := reconcile.Request{NamespacedName: c.tidyTask().key}
	always := func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{request} }
	t := &tidier{controller: c}
	return ctrl.NewControllerManagedBy(m).Named("tidy").
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			t.leading = c.Now()
			queue.Add(request)
			return nil
		})).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, j client.Object) []reconcile.Request {
			if j.GetLabels()[LabelWork] != workTidy {
				return nil
			}
			return always(ctx, j)
		})).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			if b, is := o.(*v1alpha1.Backup); !is || b.Status.Phase != v1alpha1.PhaseFailed {
				return nil
			}
			return always(ctx, o)
		})).
		Watches(&v1alpha1.Restore{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			if r, is := o.(*v1alpha1.Restore); !is || !r.Status.Phase.Final() {
				return nil
			}
			return always(ctx, o)
		})).
		Watches(&v1alpha1.Drill{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			if d, is := o.(*v1alpha1.Drill); !is || d.Status.Phase != v1alpha1.PhaseFailed {
				return nil
			}
			return always(ctx, o)
		})).
		Complete(calmly(t.reconcile))
}

// tidier starts tidying, never twice at once: its Job has one name.
type tidier struct {
	*controller
	leading time.Time // since when this process leads; written before the first call
}

func (t *tidier) reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	j, err := t.find(ctx, t.tidyTask())
	if err != nil {
		return reconcile.Result{}, err
	}
	o := outcomeOf(j)
	if o.state == running {
		return reconcile.Result{}, nil
	}
	if o.state == absent {
		started, err := t.start(ctx, t.tidyTask(), nil)
		if err != nil || started {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: queueLook}, nil
	}
	due, err := t.due(ctx, o)
	if err != nil {
		return reconcile.Result{}, err
	}
	if wait := due.Sub(t.Now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return reconcile.Result{RequeueAfter: queueLook}, t.stop(ctx, j) // its name is free once it is gone
}

// due is when the cluster is to be tidied after a Job that ended.
func (t *tidier) due(ctx context.Context, last outcome) (time.Time, error) {
	due := last.ended.Add(t.TidyEvery)
	if last.state == failed {
		due = last.ended.Add(min(retry, t.TidyEvery))
	}
	ask := func(at time.Time) {
		if last.state == succeeded && !at.IsZero() && !last.began.After(at) && at.Before(due) {
			due = at
		}
	}
	if last.state == succeeded && last.began.Before(t.leading.Truncate(time.Second)) { // times of objects are whole seconds
		return last.ended, nil
	}
	var backups v1alpha1.BackupList
	if err := t.client.List(ctx, &backups, client.UnsafeDisableDeepCopy); err != nil {
		return due, fmt.Errorf("list backups: %w", err)
	}
	for i := range backups.Items {
		b := &backups.Items[i]
		if b.Status.Phase == v1alpha1.PhaseFailed && len(b.Finalizers) > 0 && b.Status.Finished != nil {
			ask(b.Status.Finished.Time)
		}
		if again := last.ended.Add(retry); b.Status.Phase.Final() && len(b.Status.Resting) > 0 && again.Before(due) {
			due = again
		}
	}
	var restores v1alpha1.RestoreList
	if err := t.client.List(ctx, &restores, client.UnsafeDisableDeepCopy); err != nil {
		return due, fmt.Errorf("list restores: %w", err)
	}
	for i := range restores.Items {
		r := &restores.Items[i]
		if r.Status.Phase == v1alpha1.PhaseFailed && len(r.Finalizers) > 0 && r.Status.Finished != nil {
			ask(r.Status.Finished.Time)
		}
		ask(undoOver(r))
	}
	var drills v1alpha1.DrillList
	if err := t.client.List(ctx, &drills, client.UnsafeDisableDeepCopy); err != nil {
		return due, fmt.Errorf("list drills: %w", err)
	}
	for i := range drills.Items {
		d := &drills.Items[i]
		if d.Status.Phase == v1alpha1.PhaseFailed && len(d.Finalizers) > 0 && d.Status.Finished != nil {
			ask(d.Status.Finished.Time)
		}
	}
	return due, nil
}

// tidiedSince reports whether a Job that began after a time tidied the cluster.
func (c *controller) tidiedSince(ctx context.Context, at time.Time) (bool, error) {
	j, err := c.find(ctx, c.tidyTask())
	if err != nil {
		return false, err
	}
	o := outcomeOf(j)
	return o.state == succeeded && o.began.After(at), nil
}
