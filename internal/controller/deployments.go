package controller

import (
	"context"
	"errors"
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
	// labelHeld is on Gates of syncs that the webhook held.
	labelHeld = v1alpha1.Group + "/held"

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
		Watches(&v1alpha1.Gate{}, handler.EnqueueRequestsFromMapFunc(ofGate)).
		Complete(calmly(d.reconcile))
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(m).Named("held").For(&v1alpha1.Gate{}).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(d.gatesOf)).
		Complete(calmly(d.reconcileHeld))
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

// ofGate is the Application whose sync a Gate is.
func ofGate(_ context.Context, o client.Object) []reconcile.Request {
	g, is := o.(*v1alpha1.Gate)
	if !is || g.Status.Sync == nil {
		return nil
	}
	engine, rest, _ := strings.Cut(g.Status.Sync.Deployment, "/")
	namespace, name, _ := strings.Cut(rest, "/")
	if engine != v1alpha1.EngineArgoCD {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
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
	if err := d.explain(ctx, u); err != nil {
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
	if err := errors.Join(d.admitGates(ctx, state.Namespace), d.afterFailure(ctx, u, p)); err != nil {
		return reconcile.Result{}, err
	}
	again, err := d.hooks(ctx, u, p)
	return reconcile.Result{RequeueAfter: again}, err
}

// sighting is one sync that was seen to run, or to have run, without asking. Each is looked into though the next has come meanwhile: that
// is why it is a request itself, and holds all that the Application will not say any more then.
type sighting struct {
	application types.NamespacedName
	uid         types.UID
	reason      string
	from, to    string // revisions, with commas
	by          string
	restore     string // that says it asked for it
	started     string // RFC 3339
}

// see asks for a look at the operation of an Application, if it may be one that went ungated.
func see(u *unstructured.Unstructured, to workqueue.TypedRateLimitingInterface[sighting]) {
	if s, is := sightingOf(gitops.ReadApplication(u)); is && s.reason != "" {
		to.Add(s)
	}
}

// sightingOf is the operation of an Application, last or under way, if it has begun and changes something. It has a reason where it asked
// nobody, unless there is a Gate of it.
func sightingOf(a gitops.Application) (sighting, bool) {
	o := a.Operation()
	if o == nil || o.Started.IsZero() || a.Dry() {
		return sighting{}, false
	}
	s := sighting{
		application: a.Name(), uid: a.UID(), reason: a.Unhooked(), from: strings.Join(a.Before(), ","), to: strings.Join(o.Revisions, ","),
		by: o.User, restore: o.Restore, started: o.Started.UTC().Format(time.RFC3339),
	}
	if o.Automated {
		s.by = "automated"
	}
	if s.reason == "" && a.Applying() {
		s.reason = v1alpha1.GateNoHook
	}
	return s, true
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
	asked, err := d.asked(ctx, sync, s.restore)
	if asked || err != nil {
		return reconcile.Result{}, err
	}
	var g v1alpha1.Gate
	key := types.NamespacedName{Namespace: state.Namespace, Name: s.name()}
	if err := d.direct.Get(ctx, key, &g); client.IgnoreNotFound(err) != nil || g.Status.Phase != "" {
		return reconcile.Result{}, err
	}
	now := d.Now()
	if age := now.Sub(sync.Started.Time); age > recordFor || sync.Started.Time.Before(p.CreationTimestamp.Time) {
		return reconcile.Result{}, nil
	}
	at := metav1.NewMicroTime(now)
	status := v1alpha1.GateStatus{
		Phase: v1alpha1.GateUngated, Reason: s.reason, Message: s.why(), Sync: sync, Policy: p.Namespace + "/" + p.Name, Begun: &at, Ended: &at,
	}
	said, err := d.earlyPoint(ctx, &status, p, application, s)
	if err != nil {
		return reconcile.Result{}, err
	}
	status.Message += "; " + said
	if err := d.record(ctx, key, status); err != nil {
		return reconcile.Result{}, err
	}
	d.tell(u, corev1.EventTypeWarning, "SyncUngated", fmt.Sprintf("the sync to %s asked for no point: %s", s.to, status.Message))
	return reconcile.Result{}, d.prune(ctx, sync.Deployment)
}

// asked reports whether a sync is known otherwise: a pod waited for it at a gate, it was held until there was a point, or a Restore asked for
// it.
func (d deployments) asked(ctx context.Context, sync *v1alpha1.Sync, restore string) (bool, error) {
	gates, err := d.gatesOfSync(ctx, sync)
	if err != nil || len(gates) > 0 {
		return len(gates) > 0, err
	}
	if held, err := d.used(ctx, sync); held || err != nil {
		return held, err
	}
	return d.restores(ctx, restore, sync.Deployment)
}

// restores reports whether a Restore, by its uid, is a transaction of a deployment: anybody can write such a uid.
func (d deployments) restores(ctx context.Context, uid, deployment string) (bool, error) {
	if uid == "" {
		return false, nil
	}
	var restores v1alpha1.RestoreList
	if err := d.client.List(ctx, &restores, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list restores: %w", err)
	}
	return slices.ContainsFunc(restores.Items, func(r v1alpha1.Restore) bool {
		return string(r.UID) == uid && r.Status.GitOps != nil && r.Status.GitOps.Deployment == deployment
	}), nil
}

// gatesOfSync are the Gates at which pods waited for a sync, the oldest first: each try of it has one.
func (d deployments) gatesOfSync(ctx context.Context, sync *v1alpha1.Sync) ([]v1alpha1.Gate, error) {
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates); err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	of := slices.DeleteFunc(gates.Items, func(g v1alpha1.Gate) bool {
		s := g.Status.Sync
		return g.Spec.Pod == "" || s == nil || s.Deployment != sync.Deployment || s.Started == nil || !s.Started.Time.Equal(sync.Started.Time)
	})
	slices.SortFunc(of, func(a, b v1alpha1.Gate) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return of, nil
}

// earlyPoint has a point made of what is there, where the policy wants that and it is not too late, and says what becomes of it.
func (d deployments) earlyPoint(ctx context.Context, status *v1alpha1.GateStatus, p *v1alpha1.Policy, application v1alpha1.Applications, s sighting) (string, error) {
	switch {
	case p.Spec.GitOps.Ungated == v1alpha1.UngatedRecord:
		return "no point is made, as the policy says", nil
	case len(status.Sync.From) == 0 && s.reason == v1alpha1.GateNoHook:
		return "it is the first, and there is nothing to protect yet", nil
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

// record makes a Gate of the controller's own. It may be there without a status: the process may end between the two.
func (d deployments) record(ctx context.Context, key types.NamespacedName, status v1alpha1.GateStatus) error {
	g := &v1alpha1.Gate{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec:       v1alpha1.GateSpec{Deployment: status.Sync.Deployment},
	}
	err := d.client.Create(ctx, g)
	if apierrors.IsAlreadyExists(err) {
		err = d.direct.Get(ctx, key, g)
	}
	if err != nil {
		return fmt.Errorf("record sync of %s: %w", status.Sync.Deployment, err)
	}
	if g.Status.Phase != "" {
		return nil
	}
	return d.save(ctx, g, func() {
		status.ObservedGeneration = g.Generation
		g.Status = status
		v := verdict{metav1.ConditionFalse, false, status.Phase == v1alpha1.GateClosed, status.Reason, status.Message}
		judge(&g.Status.Conditions, g.Generation, d.Now(), v)
	})
}

// addRecords keeps Gates that have ended: they are counted, get to know what became of their points, and go after a while.
func (c *controller) addRecords(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("gate-record").
		For(&v1alpha1.Gate{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: c.countGate})).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(c.gatesOf)).
		Complete(calmly(c.keepGate))
}

// countGate counts Gates that come to an end.
func (c *controller) countGate(e event.UpdateEvent) bool {
	before, is := e.ObjectOld.(*v1alpha1.Gate)
	after, alsoIs := e.ObjectNew.(*v1alpha1.Gate)
	if is && alsoIs && !before.Status.Phase.Final() && after.Status.Phase.Final() {
		waited := time.Duration(0)
		if s := &after.Status; s.Begun != nil && s.Ended != nil {
			waited = s.Ended.Sub(s.Begun.Time)
		}
		c.counted.gate(after.Status.Phase, after.Status.Reason, waited)
	}
	return true
}

func (c *controller) keepGate(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var g v1alpha1.Gate
	if err := c.client.Get(ctx, r.NamespacedName, &g); err != nil || !g.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if g.Status.Phase == v1alpha1.GateUngated {
		if err := c.keepUp(ctx, &g); err != nil {
			return reconcile.Result{}, err
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
