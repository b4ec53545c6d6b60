package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// One Backup or Restore at a time works on a namespace: a lease in Backstay's namespace says whose turn it is.
const (
	leaseTime  = 90 * time.Second
	leaseRenew = 20 * time.Second
	leaseLook  = 2 * time.Second
)

// holdAll waits for the leases on namespaces, in their order, and keeps them.
func (w *Worker) holdAll(ctx context.Context, namespaces []string, owner string) (held context.Context, release func(), _ error) {
	var releases []func()
	release = func() {
		for _, r := range slices.Backward(releases) {
			r()
		}
	}
	held = ctx
	for _, namespace := range slices.Sorted(slices.Values(namespaces)) {
		next, one, err := w.hold(held, namespace, owner)
		if err != nil {
			release()
			return nil, nil, err
		}
		held, releases = next, append(releases, one)
	}
	return held, release, nil
}

// holding does work while it has the leases on namespaces. When one is lost, that is the error.
func (w *Worker) holding(ctx context.Context, namespaces []string, owner string, work func(context.Context) error) error {
	held, release, err := w.holdAll(ctx, namespaces, owner)
	if err != nil {
		return err
	}
	defer release()
	err = work(held)
	if err != nil && held.Err() != nil && ctx.Err() == nil {
		return context.Cause(held)
	}
	return err
}

// hold waits for the lease on a namespace and keeps it. The context it returns ends when the lease is lost; release gives it back.
func (w *Worker) hold(ctx context.Context, namespace, owner string) (_ context.Context, release func(), _ error) {
	sum := sha256.Sum256([]byte(namespace))
	key := types.NamespacedName{Namespace: w.System, Name: "backstay-app-" + hex.EncodeToString(sum[:8])}
	for {
		taken, err := w.takeLease(ctx, key, owner)
		if err != nil && !kube.Transient(err) {
			return nil, nil, fault.Wrap("hold namespace "+namespace, kube.ClassOf(err), err, "")
		}
		if taken {
			break
		}
		if err := kube.Pause(ctx, leaseLook); err != nil {
			return nil, nil, context.Cause(ctx)
		}
	}
	held, lose := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		w.renew(held, lose, key, owner, leaseRenew)
	}()
	return held, func() {
		lose(nil)
		<-renewed
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
		defer cancel()
		if err := w.giveBack(tidy, key, owner); err != nil {
			w.Log.Warn("the lease is left to run out", "namespace", namespace, "error", err.Error())
		}
	}, nil
}

// giveBack deletes a lease that is still the owner's.
func (w *Worker) giveBack(ctx context.Context, key types.NamespacedName, owner string) error {
	var l coordinationv1.Lease
	if err := w.Cluster.Client.Get(ctx, key, &l); err != nil {
		return client.IgnoreNotFound(err)
	}
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != owner {
		return nil
	}
	return ignoreRace(w.Cluster.Client.Delete(ctx, &l, client.Preconditions{ResourceVersion: &l.ResourceVersion}))
}

// takeLease takes the lease if it is free, has run out, or is the owner's own.
func (w *Worker) takeLease(ctx context.Context, key types.NamespacedName, owner string) (bool, error) {
	now := metav1.NewMicroTime(w.Now())
	seconds := int32(leaseTime / time.Second)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &owner, LeaseDurationSeconds: &seconds, RenewTime: &now}
	var l coordinationv1.Lease
	err := w.Cluster.Client.Get(ctx, key, &l)
	if apierrors.IsNotFound(err) {
		l = coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{v1alpha1.LabelOwner: owner}},
			Spec:       spec,
		}
		err = w.Cluster.Client.Create(ctx, &l)
		return err == nil, ignoreRace(err)
	}
	if err != nil {
		return false, err
	}
	another := l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != owner
	if another && l.Spec.RenewTime != nil && now.Sub(l.Spec.RenewTime.Time) < leaseTime {
		return false, nil
	}
	l.Spec, l.Labels = spec, map[string]string{v1alpha1.LabelOwner: owner}
	err = w.Cluster.Client.Update(ctx, &l)
	return err == nil, ignoreRace(err)
}

// ignoreRace takes for nothing that another was first.
func ignoreRace(err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// renew takes the lease again and again until ctx ends. When it is lost, or may soon be, it ends the work.
func (w *Worker) renew(ctx context.Context, lose context.CancelCauseFunc, key types.NamespacedName, owner string, every time.Duration) {
	last := w.Now()
	for kube.Pause(ctx, every) == nil {
		taken, err := w.renewOnce(ctx, key, owner)
		switch {
		case taken:
			last = w.Now()
		case ctx.Err() != nil:
			return
		case err == nil, w.Now().Sub(last) > leaseTime-leaseRenew: // before it runs out
			lose(errLeaseLost)
			return
		}
	}
}

// renewOnce takes the lease again, in the time until the next renewal.
func (w *Worker) renewOnce(ctx context.Context, key types.NamespacedName, owner string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	taken, err := w.takeLease(ctx, key, owner)
	if taken || err != nil {
		return taken, err
	}
	return w.takeLease(ctx, key, owner) // it may only have been tidied away between two looks
}
