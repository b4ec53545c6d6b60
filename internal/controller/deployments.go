package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	// annotationStatus is on Gates that the controller makes, and says what their status is to be: that is written by a request of its
	// own, and the process may end between the two.
	annotationStatus = v1alpha1.Group + "/status"

	namespaceLook = 2 * time.Second    // for a namespace that the sync under way makes
	pointFor      = time.Minute        // after its beginning a sync that nobody held has changed what a point of before would show
	recordFor     = 24 * time.Hour     // that a sync which nobody saw is still recorded afterwards
	healEvery     = 10 * time.Minute   // of self-heals one after another, one has a point
	gatesKept     = 7 * 24 * time.Hour // after they ended
	mostUngated   = 100                // Gates of syncs that went ungated, of one deployment
)

// deployments watch Applications of Argo CD: their pods are let to the gates, and syncs that ask nobody are recorded, with a point made as
// early as can be.
type deployments struct {
	*controller
	known client.Reader // Applications, trimmed
}

func applicationObject() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gitops.ApplicationKind())
	return u
}

func applicationObjects() *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gitops.ApplicationKind())
	return list
}

// addDeployments starts the watch when the definition of Applications is there, be it later.
func (c *controller) addDeployments(m manager.Manager) error {
	d := deployments{c, m.GetCache()}
	return c.whenServed(m, "Applications", func(ctx context.Context) error {
		kind := gitops.ApplicationKind()
		if _, err := m.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version); err != nil {
			return err
		}
		return c.direct.List(ctx, applicationObjects(), client.Limit(1))
	}, d.watch)
}

func (d deployments) watch(m manager.Manager) error {
	err := ctrl.NewControllerManagedBy(m).Named("deployment").
		For(applicationObject(), builder.WithPredicates(predicate.Funcs{UpdateFunc: changed})).
		Watches(&v1alpha1.Policy{}, handler.EnqueueRequestsFromMapFunc(d.all), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(calmly(d.reconcile))
	if err != nil {
		return err
	}
	return builder.TypedControllerManagedBy[sighting](m).Named("ungated").
		WatchesRawSource(source.TypedKind(m.GetCache(), applicationObject(), handler.TypedFuncs[*unstructured.Unstructured, sighting]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*unstructured.Unstructured], to workqueue.TypedRateLimitingInterface[sighting]) {
				see(e.Object, to)
			},
			UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*unstructured.Unstructured], to workqueue.TypedRateLimitingInterface[sighting]) {
				see(e.ObjectNew, to)
			},
		})).
		Complete(reconcile.TypedFunc[sighting](d.ungated))
}

// changed reports whether anything of an Application that is read is another: Argo CD writes its status every few minutes.
func changed(e event.UpdateEvent) bool {
	before, is := e.ObjectOld.(*unstructured.Unstructured)
	after, alsoIs := e.ObjectNew.(*unstructured.Unstructured)
	if !is || !alsoIs {
		return true
	}
	for _, part := range []string{"spec", "operation", "status"} {
		if !reflect.DeepEqual(before.Object[part], after.Object[part]) {
			return true
		}
	}
	return false
}

// all are the Applications that are known.
func (d deployments) all(ctx context.Context, _ client.Object) []reconcile.Request {
	list := applicationObjects()
	if d.known.List(ctx, list, client.UnsafeDisableDeepCopy) != nil {
		return nil // they change soon enough
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, requestFor(&list.Items[i]))
	}
	return requests
}

// read is an Application, as it was trimmed; nil for none.
func (d deployments) read(ctx context.Context, key types.NamespacedName) (*unstructured.Unstructured, error) {
	u := applicationObject()
	err := d.known.Get(ctx, key, u)
	if apierrors.IsNotFound(err) || err == nil && !u.GetDeletionTimestamp().IsZero() {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read application %s: %w", key, err)
	}
	return u, nil
}

func (d deployments) reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	u, err := d.read(ctx, r.NamespacedName)
	if u == nil || err != nil {
		return reconcile.Result{}, err
	}
	state := gitops.ReadApplication(u).State()
	if o := state.Operation; o != nil && !o.Ended() && state.Namespace != "" {
		if missing, err := d.ends(ctx, state.Namespace); missing || err != nil {
			return reconcile.Result{RequeueAfter: namespaceLook}, err // the sync is to make it
		}
	}
	p, _, err := d.governing(ctx, state)
	if p == nil || err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, d.admitGates(ctx, state.Namespace)
}

// sighting is one sync that was seen to run, or to have run, without asking. Each is looked into though the next has come meanwhile: that
// is why it is a request itself, and holds all that the Application will not say any more then.
type sighting struct {
	application types.NamespacedName
	uid         types.UID
	reason      string
	from, to    string // revisions, with commas
	by          string
	started     string // RFC 3339
}

// see asks for a look at the operation of an Application, if it may be one that went ungated.
func see(u *unstructured.Unstructured, to workqueue.TypedRateLimitingInterface[sighting]) {
	a := gitops.ReadApplication(u)
	o := a.Operation()
	if o == nil || o.Started.IsZero() || a.Dry() {
		return
	}
	reason := a.Unhooked()
	if reason == "" && a.Applying() {
		reason = v1alpha1.GateNoHook // unless there is a Gate
	}
	if reason == "" {
		return
	}
	by := o.User
	if o.Automated {
		by = "automated"
	}
	to.Add(sighting{
		application: a.Name(), uid: a.UID(), reason: reason, from: strings.Join(a.Before(), ","), to: strings.Join(o.Revisions, ","), by: by,
		started: o.Started.UTC().Format(time.RFC3339),
	})
}

// sync is what was seen.
func (s sighting) sync(deployment string) *v1alpha1.Sync {
	sync := &v1alpha1.Sync{Deployment: deployment, By: s.by}
	if s.from != "" {
		sync.From = strings.Split(s.from, ",")
	}
	if s.to != "" {
		sync.To = strings.Split(s.to, ",")
	}
	if at, err := time.Parse(time.RFC3339, s.started); err == nil {
		started := metav1.NewTime(at)
		sync.Started = &started
	}
	return sync
}

// name is that of the Gate: one operation has one. The revisions are no part of it, as Argo CD may find them out while it runs.
func (s sighting) name() string {
	return short("gate-"+s.application.Name) + "-" + digits(string(s.uid)+"\n"+s.started)
}

// why says in a sentence why nobody was asked.
func (s sighting) why() string {
	switch s.reason {
	case v1alpha1.GateSelfHeal:
		return "Argo CD put right what was changed on the cluster, and runs no hooks then"
	case v1alpha1.GateSelective:
		return "only some resources were synced, and no hooks run then"
	case v1alpha1.GateRollback:
		return "Argo CD's own rollback runs no hooks, and brings no data back"
	}
	return "none of its hooks waited at a gate"
}

// ungated records a sync that nobody held, once, and has a point made of what is there.
func (d deployments) ungated(ctx context.Context, s sighting) (reconcile.Result, error) {
	u, err := d.read(ctx, s.application)
	if u == nil || err != nil || u.GetUID() != s.uid {
		return reconcile.Result{}, err
	}
	state := gitops.ReadApplication(u).State()
	p, application, err := d.governing(ctx, state)
	if p == nil || err != nil {
		return reconcile.Result{}, err
	}
	sync := s.sync(state.Name)
	asked, err := d.asked(ctx, sync)
	if asked || err != nil {
		return reconcile.Result{}, err
	}
	var g v1alpha1.Gate
	key := types.NamespacedName{Namespace: state.Namespace, Name: s.name()}
	if err := d.direct.Get(ctx, key, &g); err == nil || !apierrors.IsNotFound(err) {
		return reconcile.Result{}, err // its own reconciler goes on with it
	}
	now := d.Now()
	if age := now.Sub(sync.Started.Time); age > recordFor || sync.Started.Time.Before(p.CreationTimestamp.Time) {
		return reconcile.Result{}, nil
	}
	at := metav1.NewMicroTime(now)
	status := v1alpha1.GateStatus{
		Phase: v1alpha1.GateUngated, Reason: s.reason, Message: s.why(), Sync: sync, Policy: p.Namespace + "/" + p.Name, Begun: &at, Ended: &at,
	}
	said, err := d.pointOf(ctx, &status, p, application, s)
	if err != nil {
		return reconcile.Result{}, err
	}
	status.Message += "; " + said
	if err := d.makeGate(ctx, key, status); err != nil {
		return reconcile.Result{}, err
	}
	d.tell(u, corev1.EventTypeWarning, "SyncUngated", fmt.Sprintf("the sync to %s asked for no point: %s", s.to, status.Message))
	return reconcile.Result{}, d.prune(ctx, sync.Deployment)
}

// asked reports whether a sync is known otherwise: a pod waited for it at a gate, or a Restore asked for it.
func (d deployments) asked(ctx context.Context, sync *v1alpha1.Sync) (bool, error) {
	g, err := d.gateOf(ctx, sync)
	if err != nil || g != nil {
		return g != nil, err
	}
	var restores v1alpha1.RestoreList
	if err := d.client.List(ctx, &restores, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list restores: %w", err)
	}
	return slices.ContainsFunc(restores.Items, func(r v1alpha1.Restore) bool { return ran(&r, sync) }), nil
}

// ran reports whether a Restore's transaction was under way when a sync began.
func ran(r *v1alpha1.Restore, sync *v1alpha1.Sync) bool {
	t := r.Status.GitOps
	if t == nil || t.Deployment != sync.Deployment || t.Suspended == nil {
		return false
	}
	began, ended := t.Suspended.Time.Truncate(time.Second), t.Resumed
	return !sync.Started.Time.Before(began) && (ended == nil || !sync.Started.Time.After(ended.Time))
}

// gateOf is the Gate at which a pod waited for a sync; nil for none.
func (d deployments) gateOf(ctx context.Context, sync *v1alpha1.Sync) (*v1alpha1.Gate, error) {
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	for i := range gates.Items {
		g := &gates.Items[i]
		of := g.Status.Sync
		if g.Spec.Pod != "" && of != nil && of.Deployment == sync.Deployment && of.Started != nil && of.Started.Time.Equal(sync.Started.Time) {
			return g, nil
		}
	}
	return nil, nil //nolint:nilnil // none is an answer
}

// pointOf has a point made of what is there, where the policy wants that and it is not too late, and says what becomes of it.
func (d deployments) pointOf(ctx context.Context, status *v1alpha1.GateStatus, p *v1alpha1.Policy, application v1alpha1.Applications, s sighting) (string, error) {
	switch {
	case p.Spec.GitOps != nil && p.Spec.GitOps.Ungated == v1alpha1.UngatedRecord:
		return "no point is made, as the policy says", nil
	case d.Now().Sub(status.Sync.Started.Time) > pointFor:
		return "it was seen too late for a point", nil
	}
	if s.reason == v1alpha1.GateSelfHeal {
		last, err := d.healed(ctx, status.Sync.Deployment)
		if last != "" || err != nil {
			status.Backup = last
			return "the point of a self-heal just before stands for it", err
		}
	}
	b := d.syncBackup(p, application, status.Sync, s.name())
	status.Backup = b.Name
	if err := d.client.Create(ctx, b); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("create backup %s: %w", b.Name, err)
	}
	return "a point is made while it runs", nil
}

// healed is the Backup of a self-heal of the last minutes: Argo CD and who works against it may go on for days.
func (d deployments) healed(ctx context.Context, deployment string) (string, error) {
	gates, err := d.ungatedOf(ctx, deployment)
	if err != nil {
		return "", err
	}
	for _, g := range gates {
		if g.Status.Reason == v1alpha1.GateSelfHeal && g.Status.Backup == g.Name && d.Now().Sub(g.Status.Begun.Time) < healEvery {
			return g.Status.Backup, nil
		}
	}
	return "", nil
}

// ungatedOf are the Gates of syncs of a deployment that went ungated, the newest first.
func (d deployments) ungatedOf(ctx context.Context, deployment string) ([]v1alpha1.Gate, error) {
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	of := slices.DeleteFunc(gates.Items, func(g v1alpha1.Gate) bool {
		return g.Status.Phase != v1alpha1.GateUngated || g.Spec.Deployment != deployment || g.Status.Begun == nil
	})
	slices.SortFunc(of, func(a, b v1alpha1.Gate) int { return b.Status.Begun.Compare(a.Status.Begun.Time) })
	return of, nil
}

// prune deletes the oldest Gates of a deployment whose syncs go ungated again and again.
func (d deployments) prune(ctx context.Context, deployment string) error {
	gates, err := d.ungatedOf(ctx, deployment)
	if err != nil || len(gates) <= mostUngated {
		return err
	}
	for i := range gates[mostUngated:] {
		if err := d.client.Delete(ctx, &gates[mostUngated+i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete gate %s: %w", gates[mostUngated+i].Name, err)
		}
	}
	return nil
}

// makeGate makes a Gate of the controller's own, which says of itself what its status is to be.
func (d deployments) makeGate(ctx context.Context, key types.NamespacedName, status v1alpha1.GateStatus) error {
	text, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("make gate %s: %w", key, err)
	}
	g := &v1alpha1.Gate{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Annotations: map[string]string{annotationStatus: string(text)}},
		Spec:       v1alpha1.GateSpec{Deployment: status.Sync.Deployment},
	}
	if err := d.client.Create(ctx, g); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make gate %s: %w", key, err)
	}
	return nil
}

// addRecords gives Gates that the controller made their status, and deletes Gates that ended long ago.
func (c *controller) addRecords(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("gate-record").For(&v1alpha1.Gate{}).Complete(calmly(c.keepGate))
}

func (c *controller) keepGate(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var g v1alpha1.Gate
	if err := c.client.Get(ctx, r.NamespacedName, &g); err != nil || !g.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if text := g.Annotations[annotationStatus]; g.Status.Phase == "" && g.Spec.Pod == "" && text != "" {
		var status v1alpha1.GateStatus
		if err := json.Unmarshal([]byte(text), &status); err == nil && status.Phase == v1alpha1.GateUngated {
			return reconcile.Result{}, c.recordGate(ctx, &g, status)
		}
	}
	since := g.CreationTimestamp.Time
	if g.Status.Ended != nil {
		since = g.Status.Ended.Time
	}
	if left := gatesKept - c.Now().Sub(since); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := c.client.Delete(ctx, &g); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("delete gate %s: %w", g.Name, err)
	}
	return reconcile.Result{}, nil
}

func (c *controller) recordGate(ctx context.Context, g *v1alpha1.Gate, status v1alpha1.GateStatus) error {
	return c.save(ctx, g, func() {
		status.ObservedGeneration = g.Generation
		g.Status = status
		judge(&g.Status.Conditions, g.Generation, c.Now(), verdict{metav1.ConditionFalse, false, false, status.Reason, status.Message})
	})
}
