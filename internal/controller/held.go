package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	workRelease = "release"
	releaseJob  = 10 * time.Minute // that a look at git may take
	headLook    = 15 * time.Second // between two looks at which revision git has
)

// holdsSyncs reports whether a Restore that has ended holds syncs off.
func holdsSyncs(r *v1alpha1.Restore) bool {
	return r.Status.Phase.Final() && r.Status.GitOps != nil && r.Status.GitOps.Held != ""
}

// releaseTask looks whether the syncs that a Restore holds off may go. With force they go.
func releaseTask(r *v1alpha1.Restore, force bool) task {
	t := task{
		work: workRelease, key: types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, uid: r.UID, deadline: releaseJob, force: force, urgent: true,
	}
	if force {
		t.uid += " force" // it does not wait for one that has begun without
	}
	return t
}

// hold looks after a Restore that holds syncs off: again when git has something else, when somebody asks for it, and last when the Restore
// is deleted: then syncs go whatever git has.
func (c *controller) hold(ctx context.Context, r *v1alpha1.Restore) (reconcile.Result, error) {
	asked, deleted := r.Annotations[v1alpha1.AnnotationRelease], !r.DeletionTimestamp.IsZero()
	if deleted && c.Now().Sub(r.DeletionTimestamp.Time) > releaseTime {
		c.tell(r, corev1.EventTypeWarning, "Untidy", "syncs of "+r.Status.GitOps.Deployment+" are still held off, and nobody could let them go")
		return reconcile.Result{}, c.mark(ctx, r, func() { controllerutil.RemoveFinalizer(r, v1alpha1.FinalizerRunning) })
	}
	t := releaseTask(r, deleted || asked == v1alpha1.ReleaseForce)
	j, err := c.find(ctx, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	look := reconcile.Result{RequeueAfter: headLook}
	switch o := outcomeOf(j); {
	case o.state == running:
		return look, nil
	case o.state != absent && asked != "" && !deleted: // it is the answer
		return look, c.mark(ctx, r, func() { delete(r.Annotations, v1alpha1.AnnotationRelease) })
	case o.state != absent && c.Now().Sub(o.ended) < headLook:
		return look, nil
	case o.state != absent:
		return look, c.stop(ctx, j) // its name is free once it is gone
	}
	if asked == "" && !deleted {
		if moved, err := c.moved(ctx, r); !moved || err != nil {
			return look, err
		}
	}
	_, err = c.start(ctx, t, nil)
	return look, err
}

// moved reports whether git has something else than when syncs were held off, or looked at last.
func (c *controller) moved(ctx context.Context, r *v1alpha1.Restore) (bool, error) {
	engine, err := gitops.Open(c.Cluster.Client, r.Status.GitOps.Deployment)
	if err != nil {
		return false, err
	}
	s, err := engine.State(ctx)
	if errors.Is(err, fault.ErrNotFound) { // what was held off is no more, but for what held it
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return len(s.Head) > 0 && !slices.Equal(s.Head, r.Status.GitOps.HeldAt), nil
}
