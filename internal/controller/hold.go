package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	heldFor   = 10 * time.Minute // after it has opened, a Gate of a sync that was held lets that sync through once
	deniedFor = time.Minute      // after it has closed, it says why; then another begins
	refreshBy = "argocd.argoproj.io/refresh"
)

// ask says whether a sync may be asked for now: empty, or what who asked is told. A sync that would run no hooks waits, where its policy
// says Hold, until a point is there; that is begun, unless dry.
func (d deployments) ask(ctx context.Context, before, after *unstructured.Unstructured, dry bool) (string, error) {
	wanted := after.DeepCopy()
	unstructured.RemoveNestedField(wanted.Object, "status", "operationState") // of the sync before
	a := gitops.ReadApplication(wanted)
	o, state := a.Operation(), gitops.ReadApplication(before).State()
	if o == nil || a.Dry() || len(state.Live) == 0 || state.Namespace == "" {
		return "", nil
	}
	p, application, err := d.governing(ctx, state)
	if err != nil || p == nil || p.Spec.GitOps.Ungated != v1alpha1.UngatedHold {
		return "", err
	}
	if _, broken := after.GetAnnotations()[v1alpha1.AnnotationBreakGlass]; broken {
		return "", nil
	}
	if reason, err := d.skipsGates(ctx, a, state.Name); err != nil || reason == "" {
		return "", err
	}
	ours, err := d.restores(ctx, o.Restore, state.Name)
	if err != nil || ours {
		return "", err
	}
	sync := &v1alpha1.Sync{Deployment: state.Name, From: state.Live, To: o.Revisions, By: o.User}
	if o.Automated {
		sync.By = "automated"
	}
	held, err := d.held(ctx, sync)
	if err != nil {
		return "", err
	}
	for i := range held {
		s := &held[i].Status
		switch {
		case s.Phase == v1alpha1.GateOpen && d.Now().Sub(s.Ended.Time) < heldFor:
			return "", nil
		case s.Phase == v1alpha1.GateWaiting:
			return "a point is being made first; try again in a few seconds (" + s.Message + ")", nil
		case s.Phase == v1alpha1.GateClosed && d.Now().Sub(s.Ended.Time) < deniedFor:
			return "no point could be made: " + s.Message, nil
		}
	}
	busy, err := d.waiting(ctx, state.Name)
	switch {
	case err != nil:
		return "", err
	case busy:
		return "a point is being made before another sync; try again in a few seconds", nil
	case dry:
		return "a point would be made first", nil
	}
	if err := d.begin(ctx, p, application, state.Namespace, sync); err != nil {
		return "", err
	}
	d.tell(after, corev1.EventTypeNormal, "SyncHeld", fmt.Sprintf("the sync to %s waits: a point is made first", strings.Join(o.Revisions, ",")))
	return "a point is being made first; try again in a few seconds", nil
}

// skipsGates is why a sync that is asked for would come by no gate: it runs no hooks, or the last one that did had none waiting. Empty
// where it will ask itself.
func (d deployments) skipsGates(ctx context.Context, a gitops.Application, deployment string) (string, error) {
	if reason := a.Unhooked(); reason != "" {
		return reason, nil
	}
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates, client.UnsafeDisableDeepCopy); err != nil {
		return "", fmt.Errorf("list gates: %w", err)
	}
	var last *v1alpha1.Gate
	for i := range gates.Items {
		g := &gates.Items[i]
		of := g.Status.Sync != nil && g.Status.Sync.Deployment == deployment && (g.Spec.Pod != "" || g.Status.Reason == v1alpha1.GateNoHook)
		if of && (last == nil || last.CreationTimestamp.Before(&g.CreationTimestamp)) {
			last = g
		}
	}
	if last != nil && last.Spec.Pod == "" {
		return v1alpha1.GateNoHook, nil
	}
	return "", nil
}

// held are the Gates of syncs of these revisions that were held and have not begun, the newest first.
func (d deployments) held(ctx context.Context, sync *v1alpha1.Sync) ([]v1alpha1.Gate, error) {
	var gates v1alpha1.GateList
	if err := d.direct.List(ctx, &gates, client.HasLabels{labelHeld}); err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	of := slices.DeleteFunc(gates.Items, func(g v1alpha1.Gate) bool {
		s := g.Status.Sync
		return s == nil || s.Started != nil || s.Deployment != sync.Deployment || len(s.To) > 0 && !slices.Equal(s.To, sync.To)
	})
	slices.SortFunc(of, func(a, b v1alpha1.Gate) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	return of, nil
}

// waiting reports whether a sync of a deployment is held at present: one at a time is, whoever asks.
func (d deployments) waiting(ctx context.Context, deployment string) (bool, error) {
	var gates v1alpha1.GateList
	if err := d.direct.List(ctx, &gates, client.HasLabels{labelHeld}); err != nil {
		return false, fmt.Errorf("list gates: %w", err)
	}
	return slices.ContainsFunc(gates.Items, func(g v1alpha1.Gate) bool {
		return g.Spec.Deployment == deployment && !g.Status.Phase.Final() && d.Now().Sub(g.CreationTimestamp.Time) < heldFor
	}), nil
}

// begin makes the Gate of a sync that is held.
func (d deployments) begin(ctx context.Context, p *v1alpha1.Policy, application v1alpha1.Applications, namespace string, sync *v1alpha1.Sync) error {
	_, name, _ := strings.Cut(strings.TrimPrefix(sync.Deployment, v1alpha1.EngineArgoCD+"/"), "/")
	g := &v1alpha1.Gate{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: short("held-"+name) + "-", Labels: map[string]string{labelHeld: "true"}},
		Spec:       v1alpha1.GateSpec{Deployment: sync.Deployment},
	}
	if err := d.client.Create(ctx, g); err != nil {
		return fmt.Errorf("make a gate for %s: %w", sync.Deployment, err)
	}
	return d.save(ctx, g, func() {
		now := metav1.NewMicroTime(d.Now())
		g.Status = v1alpha1.GateStatus{
			Phase: v1alpha1.GateWaiting, Reason: "Waiting", Message: "waits for its point", Sync: sync, Policy: p.Namespace + "/" + p.Name, Begun: &now,
			Backup: g.Name, // which is made unless a point is there
		}
	})
}

// reconcileHeld brings the Gate of a sync that is held one step on.
func (d deployments) reconcileHeld(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var o v1alpha1.Gate
	if err := d.client.Get(ctx, r.NamespacedName, &o); err != nil || o.Status.Phase != v1alpha1.GateWaiting || o.Labels[labelHeld] == "" {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	u, err := gitops.Object(ctx, d.direct, o.Status.Sync.Deployment)
	if err != nil {
		return reconcile.Result{}, err
	}
	g := &gate{controller: d.controller, object: &o, deployment: u, state: gitops.ReadApplication(u).State()}
	if g.policy, g.application, err = d.governing(ctx, g.state); err != nil {
		return reconcile.Result{}, err
	}
	for _, ask := range []func(context.Context) (answer, error){g.brokenGlass, g.protected, g.fresh, d.heldPoint(g)} {
		a, err := ask(ctx)
		if err != nil {
			return reconcile.Result{}, err
		}
		if a.phase == "" {
			continue
		}
		if !a.phase.Final() {
			a = g.bounded(a)
		}
		if err := g.give(ctx, a); err != nil || a.phase != v1alpha1.GateOpen {
			return reconcile.Result{RequeueAfter: a.again}, err
		}
		return reconcile.Result{}, d.nudge(ctx, u)
	}
	return reconcile.Result{}, nil
}

// heldPoint waits for the Backup of a sync that is held, and makes it.
func (d deployments) heldPoint(g *gate) func(context.Context) (answer, error) {
	return func(ctx context.Context) (answer, error) {
		sync, now := g.object.Status.Sync.DeepCopy(), metav1.NewTime(g.object.Status.Begun.Time)
		sync.Started = &now // as far as it goes
		b := d.syncBackup(g.policy, g.application, sync, g.object.Status.Backup)
		if err := d.client.Create(ctx, b); err != nil && !apierrors.IsAlreadyExists(err) {
			return answer{}, fmt.Errorf("create backup %s: %w", b.Name, err)
		}
		return g.point(ctx)
	}
}

// nudge has Argo CD look at an Application now: it asks for a sync of its own again when it looks next, which may be minutes.
func (d deployments) nudge(ctx context.Context, u *unstructured.Unstructured) error {
	before := u.DeepCopy()
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[refreshBy] = "normal"
	u.SetAnnotations(annotations)
	err := d.client.Patch(ctx, u, client.MergeFrom(before)) // whatever else is written meanwhile
	if apierrors.IsForbidden(err) {                         // a right that comes with the webhook
		return nil
	}
	return client.IgnoreNotFound(err)
}

// used notes that a sync that was held has begun: its Gate lets no other through. It reports whether there was one.
func (d deployments) used(ctx context.Context, sync *v1alpha1.Sync) (bool, error) {
	var gates v1alpha1.GateList
	if err := d.direct.List(ctx, &gates, client.HasLabels{labelHeld}); err != nil { // as held does: a sync may begin before the cache has its Gate
		return false, fmt.Errorf("list gates: %w", err)
	}
	for i := range gates.Items {
		g := &gates.Items[i]
		s := g.Status.Sync
		switch {
		case g.Status.Phase != v1alpha1.GateOpen || s == nil || s.Deployment != sync.Deployment || len(s.To) > 0 && !slices.Equal(s.To, sync.To):
		case s.Started != nil && s.Started.Equal(sync.Started):
			return true, nil
		case s.Started == nil && !sync.Started.Time.Before(g.Status.Ended.Time.Truncate(time.Second)):
			return true, d.save(ctx, g, func() { g.Status.Sync.Started, g.Status.Sync.To = sync.Started, sync.To })
		}
	}
	return false, nil
}
