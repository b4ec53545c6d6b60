package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	fluxLook  = 2 * time.Second // at a Backup that a sync of Flux waits for
	fluxRetry = 5 * time.Minute // after which a gate that closed has another try, as Flux has
)

// addFluxGates starts to answer for gates before Kustomizations when Flux is there, be it later.
func (c *controller) addFluxGates(m manager.Manager) error {
	return c.whenServed(m, "Kustomizations", func(ctx context.Context) error {
		for _, kind := range gitops.FluxGateKinds() {
			if _, err := m.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version); err != nil {
				return err
			}
			if err := c.direct.List(ctx, listOf(kind), client.Limit(1)); err != nil {
				return err
			}
		}
		return nil
	}, c.watchFluxGates)
}

func listOf(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return list
}

func (c *controller) watchFluxGates(m manager.Manager) error {
	b := ctrl.NewControllerManagedBy(m).Named("flux-gate").
		Watches(&v1alpha1.Policy{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
			return fluxGates(ctx, m.GetCache(), nil)
		}))
	for _, kind := range gitops.FluxGateKinds() {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(kind)
		b = b.Watches(o, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, changed client.Object) []reconcile.Request {
			return fluxGates(ctx, m.GetCache(), changed)
		}))
	}
	return b.Complete(calmly(c.reconcileFluxGate))
}

// fluxGates are those that have to do with what changed; all for nil.
func fluxGates(ctx context.Context, known client.Reader, changed client.Object) []reconcile.Request {
	all := listOf(gitops.KustomizationKind())
	if known.List(ctx, all, client.HasLabels{v1alpha1.LabelGate}, client.UnsafeDisableDeepCopy) != nil {
		return nil // they change soon enough
	}
	var requests []reconcile.Request
	if changed == nil {
		for i := range all.Items {
			requests = append(requests, requestFor(&all.Items[i]))
		}
		return requests
	}
	for _, name := range gitops.GatesOfFlux(all.Items, changed) {
		requests = append(requests, reconcile.Request{NamespacedName: name})
	}
	return requests
}

// reconcileFluxGate lets a revision of a source through to a Kustomization, once there is a point of before. What it says stands in the
// status of the gate, where Flux reads it: a gate that nobody answers for stays shut.
func (c *controller) reconcileFluxGate(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	f, err := gitops.ReadFluxGate(ctx, c.client, r.NamespacedName)
	if f == nil || err != nil {
		return reconcile.Result{}, err
	}
	if err := f.Unfit(); err != nil {
		return reconcile.Result{}, c.sayFlux(ctx, f, metav1.ConditionFalse, "Unfit", say(err))
	}
	next := f.Next()
	switch {
	case f.Held():
		return reconcile.Result{}, c.sayFlux(ctx, f, metav1.ConditionTrue, "Restore", "a Restore deploys")
	case next == "" || f.Suspended() || f.Open(next):
		return reconcile.Result{}, nil
	case f.Passed(next):
		return reconcile.Result{}, c.sayFlux(ctx, f, metav1.ConditionTrue, string(v1alpha1.GateOpen), "revision "+next+" may be applied")
	}
	o, err := c.fluxGate(ctx, f)
	if err == nil {
		err = c.passOver(ctx, o)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if !o.Status.Phase.Final() {
		if err := c.askFlux(ctx, f, o); err != nil {
			return reconcile.Result{}, err
		}
	}
	s := o.Status
	said := fmt.Sprintf("%s: gate %s: %s", next, o.Name, s.Message)
	switch s.Phase {
	case v1alpha1.GateOpen:
		return reconcile.Result{}, c.sayFlux(ctx, f, metav1.ConditionTrue, s.Reason, said)
	case v1alpha1.GateClosed:
		return reconcile.Result{RequeueAfter: fluxRetry}, c.sayFlux(ctx, f, metav1.ConditionFalse, s.Reason, said)
	}
	return reconcile.Result{RequeueAfter: fluxLook}, c.sayFlux(ctx, f, metav1.ConditionUnknown, "Waiting", said)
}

// sayFlux writes the status of a gate, if it is another.
func (c *controller) sayFlux(ctx context.Context, f *gitops.FluxGate, ready metav1.ConditionStatus, reason, message string) error {
	before := f.Object().DeepCopy()
	if !f.Say(ready, reason, shorten(message), c.Now()) {
		return nil
	}
	err := c.client.Status().Patch(ctx, f.Object(), client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of gate %s: %w", f.Object().GetName(), err)
	}
	return nil
}

// fluxGate is the Gate of a sync: the same however often it is looked at, until it has closed and another try is due.
func (c *controller) fluxGate(ctx context.Context, f *gitops.FluxGate) (*v1alpha1.Gate, error) {
	state, o := f.State(), &v1alpha1.Gate{}
	key := types.NamespacedName{
		Namespace: f.Gated().GetNamespace(),
		Name:      short("gate-"+f.Gated().GetName()) + "-" + digits(state.UID+"\n"+state.Operation.Started.String()+"\n"+f.Next()),
	}
	first := key.Name
	for try := 2; ; try++ {
		err := c.direct.Get(ctx, key, o)
		if apierrors.IsNotFound(err) {
			o = &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: v1alpha1.GateSpec{Deployment: state.Name}}
			err = c.client.Create(ctx, o)
		}
		if err != nil {
			return nil, fmt.Errorf("gate %s: %w", key.Name, err)
		}
		if o.Status.Phase != v1alpha1.GateClosed || o.Status.Ended == nil {
			return o, nil
		}
		ended := o.Status.Ended.Time
		if c.Now().Sub(ended) < fluxRetry && !f.Asked().After(ended) || try > gateBackups {
			return o, nil
		}
		key.Name = fmt.Sprintf("%s-%d", first, try)
	}
}

// passOver closes the Gates of revisions that will not be applied any more, as another came while they waited.
func (c *controller) passOver(ctx context.Context, by *v1alpha1.Gate) error {
	var all v1alpha1.GateList
	if err := c.client.List(ctx, &all, client.InNamespace(by.Namespace)); err != nil {
		return fmt.Errorf("list gates: %w", err)
	}
	for i := range all.Items {
		o := &all.Items[i]
		if o.Spec.Deployment != by.Spec.Deployment || o.Name == by.Name || o.Status.Phase != v1alpha1.GateWaiting {
			continue
		}
		err := c.save(ctx, o, func() {
			s, now := &o.Status, metav1.NewMicroTime(c.Now())
			s.Phase, s.Reason, s.Message, s.Ended = v1alpha1.GateClosed, v1alpha1.GateSuperseded, "another revision came while it waited", &now
			judge(&s.Conditions, o.Generation, now.Time, verdict{metav1.ConditionFalse, false, false, s.Reason, s.Message})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// askFlux decides whether a sync may go on, as it is decided for hooks.
func (c *controller) askFlux(ctx context.Context, f *gitops.FluxGate, o *v1alpha1.Gate) (err error) {
	g := &gate{controller: c, object: o, deployment: f.Gated(), state: f.State(), made: o.Status.Backup}
	if g.policy, g.application, err = c.governing(ctx, g.state); err != nil {
		return err
	}
	if o.Status.Sync == nil {
		err := c.save(ctx, o, func() {
			now := metav1.NewMicroTime(c.Now())
			o.Status.Sync, o.Status.Begun = g.sync(), &now
		})
		if err != nil {
			return err
		}
	}
	first := func(ctx context.Context) (answer, error) { return g.firstOfFlux(ctx, f) }
	for _, ask := range []func(context.Context) (answer, error){g.brokenGlass, g.protected, first, g.fresh, g.point} {
		a, err := ask(ctx)
		if err != nil {
			return err
		}
		if a.phase == "" {
			continue
		}
		if !a.phase.Final() {
			a = g.bounded(a)
		}
		return g.give(ctx, a)
	}
	return errors.New("a gate has no answer") // the last one always has
}

// firstOfFlux lets the first sync through, where there is nothing to protect: claims of an application that was here before are something.
func (g *gate) firstOfFlux(ctx context.Context, f *gitops.FluxGate) (answer, error) {
	if !f.Empty() {
		return answer{}, nil
	}
	var claims metav1.PartialObjectMetadataList
	claims.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaimList"))
	if err := g.direct.List(ctx, &claims, client.InNamespace(g.state.Namespace), client.Limit(1)); err != nil {
		return answer{}, fmt.Errorf("list claims: %w", err)
	}
	if len(claims.Items) > 0 {
		return answer{}, nil
	}
	return open(v1alpha1.GateFirstSync, "first sync: there is nothing to protect yet"), nil
}
