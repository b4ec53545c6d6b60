package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	conflicts "k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
)

// farewellTime is what letting objects go may take after the process was told to end: a pod has half a minute then.
const farewellTime = 25 * time.Second

// addFarewell lets all objects go when Backstay's own namespace is deleted: nobody would take their finalizers off later, and this
// namespace, and every other with such objects, could never be deleted. Kubernetes waits some seconds before it ends the pods of a
// namespace that is deleted, so there is time.
func (c *controller) addFarewell(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("farewell").
		For(&corev1.Namespace{}, builder.OnlyMetadata). // of the cache, which has no other namespace
		Complete(calmly(c.farewell))
}

func (c *controller) farewell(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	if ends, err := c.ends(ctx, r.Name); !ends || err != nil {
		return reconcile.Result{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime) // the signal to end comes in the middle of it
	defer cancel()
	gone := 0
	var failed []error
	letGo := func(list client.ObjectList) {
		_ = meta.EachListItem(list, func(item runtime.Object) error { // it fails for what is no list
			if o, is := item.(client.Object); is && len(o.GetFinalizers()) > 0 {
				gone++
				failed = append(failed, c.drop(ctx, o))
			}
			return nil
		})
	}
	for _, list := range []client.ObjectList{&v1alpha1.RestorePointList{}, &v1alpha1.BackupList{}, &v1alpha1.RestoreList{}, &v1alpha1.DrillList{}} {
		if err := c.client.List(ctx, list); err != nil {
			return reconcile.Result{}, fmt.Errorf("list what is to be let go: %w", err)
		}
		letGo(list)
	}
	sets := actionSetMetadata()
	if err := c.direct.List(ctx, sets); err == nil { // else there are none, or none that were taken in
		letGo(sets)
	}
	if gone > 0 {
		c.Log.Info("Backstay's own namespace is deleted: objects are let go, points stay in their locations", "objects", gone)
	}
	return reconcile.Result{}, errors.Join(failed...)
}

// drop takes our finalizers off an object.
func (c *controller) drop(ctx context.Context, o client.Object) error {
	changed := false
	return conflicts.RetryOnConflict(conflicts.DefaultRetry, func() error {
		if changed {
			if err := c.direct.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				return client.IgnoreNotFound(err)
			}
		}
		changed = true // where this fails for it
		return c.mark(ctx, o, func() {
			controllerutil.RemoveFinalizer(o, v1alpha1.FinalizerPoint)
			controllerutil.RemoveFinalizer(o, v1alpha1.FinalizerRunning)
		})
	})
}

// holds reports whether an object of a namespace may be kept from being deleted: not where that namespace ends, nor where Backstay does.
func (c *controller) holds(ctx context.Context, namespace string) (bool, error) {
	for _, name := range []string{namespace, c.System} {
		if ends, err := c.ends(ctx, name); ends || err != nil {
			return false, err
		}
	}
	return true, nil
}

// ends reports whether a namespace is deleted, or gone.
func (c *controller) ends(ctx context.Context, name string) (bool, error) {
	namespace := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
	err := c.direct.Get(ctx, types.NamespacedName{Name: name}, &namespace)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return err != nil || !namespace.DeletionTimestamp.IsZero(), nil
}
