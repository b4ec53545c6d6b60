package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/restore"
	"github.com/backstay/backstay/internal/kube/volume"
)

const (
	defaultSettle = 10 * time.Minute
	engineLook    = time.Second // between two looks at how a deployment stands
)

// transaction is a Restore during which what deploys the application out of git stands still. Its journal is status.gitops: what is about
// to be changed is written down before, so that another process can go on, or take it back.
type transaction struct {
	*restoration
	engine  gitops.Deployment
	by      string
	objects *restore.Plan // by which the point's own came back; nil where the engine deployed
}

// deployment is what deploys an application, by its name ENGINE/NAMESPACE/NAME.
func (w *Worker) deployment(name string) (gitops.Deployment, error) {
	if w.Deployment != nil {
		return w.Deployment(name)
	}
	return gitops.Open(w.Cluster.Client, name)
}

// transact does what the plan says, and brings the revisions back that go with the data.
func (r *restoration) transact(ctx context.Context) error {
	t, err := r.begin(ctx)
	if err != nil {
		return err
	}
	if err := t.suspend(ctx); err != nil {
		return err
	}
	if err := t.data(ctx); err != nil {
		return err
	}
	problems, err := t.configuration(ctx)
	if err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	failed, err := r.act(ctx)
	if err != nil {
		return err
	}
	if err := t.databasesInPods(ctx); err != nil {
		return err
	}
	lagging, err := t.await(ctx)
	if err != nil {
		return err
	}
	unpushed, err := t.revert(ctx)
	if err != nil {
		return err
	}
	problems = slices.Concat(problems, failed, lagging, unpushed, r.lacks())
	journal, err := t.letGo(ctx, lagging)
	if err != nil {
		return err
	}
	if err := t.end(ctx, phaseOf(problems), problems, journal); err != nil {
		return err
	}
	if err := t.letUndoneGo(ctx, t.object); err != nil {
		t.Log.Warn("syncs that were held off before the undo are left to `worker tidy`", "restore", t.object.Name, "error", err.Error())
	}
	return nil
}

// begin finds what deploys the application, and writes down how it stands and what will be held off. That is decided once.
func (r *restoration) begin(ctx context.Context) (*transaction, error) {
	to, name := r.revisions()
	t, err := r.resumed(name)
	if err != nil || t != nil {
		return t, err
	}
	op := "restore " + r.object.Name
	if len(r.object.Spec.Namespaces) > 0 {
		return nil, fault.New(op, fault.ErrInvalid, "gitops brings an application back where it is, and namespaces takes it elsewhere", "")
	}
	if name == "" {
		return nil, fault.New(op, fault.ErrInvalid, "the point does not say what deployed the application", "say gitops.deployment, or restore without gitops")
	}
	engine, err := r.deployment(name)
	if err != nil {
		return nil, err
	}
	state, err := engine.State(ctx)
	if err != nil {
		return nil, err
	}
	if r.object.Namespace != r.System && state.Namespace != r.object.Namespace {
		return nil, fault.New(op, fault.ErrDenied, fmt.Sprintf("%s deploys into namespace %s, not %s", name, state.Namespace, r.object.Namespace), "")
	}
	if r.object.Spec.Only == v1alpha1.OnlyData || len(to) == 0 {
		to = state.Live
	}
	if r.object.Spec.Only != v1alpha1.OnlyData && len(to) != len(state.Sources) {
		cause := fmt.Sprintf("the point has revisions of %d sources, and %s has %d", len(to), name, len(state.Sources))
		return nil, fault.New(op, fault.ErrUnsupported, cause, "bring data alone back, with only: data, and deploy by hand")
	}
	holds, err := engine.Suspensions(ctx)
	if err != nil {
		return nil, err
	}
	err = r.journal(ctx, func(j *v1alpha1.TransactionStatus) {
		j.Deployment, j.From, j.To, j.RolledBack, j.Suspensions = name, state.Live, to, rolledBack(state, to), holds
	})
	return &transaction{restoration: r, engine: engine, by: string(r.object.UID)}, err
}

// resumed is the transaction that an earlier process has begun; nil for none.
func (r *restoration) resumed(name string) (*transaction, error) {
	j := r.object.Status.GitOps
	if j == nil || j.Deployment == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if name != "" && j.Deployment != name {
		return nil, fault.New("restore "+r.object.Name, fault.ErrDenied, "its status names "+j.Deployment+", and is of "+name, "")
	}
	engine, err := r.deployment(j.Deployment)
	return &transaction{restoration: r, engine: engine, by: string(r.object.UID)}, err
}

// revisions are those that go with the data, of each source, and what deploys them.
func (r *restoration) revisions() (to []string, deployment string) {
	if r.undone != nil {
		return r.undone.Status.GitOps.From, r.undone.Status.GitOps.Deployment
	}
	d := r.record.Point.Deployment
	if d == nil {
		return nil, r.object.Spec.GitOps.Deployment
	}
	for _, s := range d.Sources {
		to = append(to, s.From)
	}
	if slices.Contains(to, "") { // a point made before the first sync
		to = nil
	}
	if said := r.object.Spec.GitOps.Deployment; said != "" {
		return to, said
	}
	return to, d.Name
}

// spec is what is compared with the cluster: in a transaction the engine brings the objects, unless git has lost them.
func (r *restoration) spec() v1alpha1.RestoreSpec {
	spec := r.object.Spec
	switch j := r.object.Status.GitOps; {
	case spec.GitOps == nil:
	case j != nil && j.FromPoint:
		spec.Only, spec.Existing = v1alpha1.OnlyConfig, v1alpha1.ExistingReplace
	default:
		spec.Only, spec.Objects, spec.Transforms = v1alpha1.OnlyData, nil, nil
	}
	return spec
}

// planTransaction has the plan say what will be deployed.
func (r *restoration) planTransaction(ctx context.Context) error {
	if r.object.Spec.Only == v1alpha1.OnlyConfig {
		r.plan.Volumes = nil
	}
	to, name := r.revisions()
	if name == "" || r.object.Status.PlanName != "" {
		return nil
	}
	engine, err := r.deployment(name)
	if err != nil {
		return err
	}
	s, err := engine.State(ctx)
	if err != nil {
		return err
	}
	live := cmp.Or(strings.Join(shortened(s.Live), ", "), "nothing")
	line := fmt.Sprintf("%s deploys %s, where %s is live", name, strings.Join(shortened(to), ", "), live)
	if len(to) == 0 || r.object.Spec.Only == v1alpha1.OnlyData {
		line = fmt.Sprintf("%s stands still, and %s stays live", name, live)
	}
	r.plan.Actions = append(r.plan.Actions, line)
	return nil
}

// rolledBack are the revisions that go: those of the last sync, which may have failed, else those that are live; else those that git still
// has, for somebody may have had the engine roll its configuration back already.
func rolledBack(s gitops.State, to []string) []string {
	for _, gone := range [][]string{operationOf(s).Revisions, s.Live, s.Head} {
		if len(gone) == len(to) && !slices.Equal(gone, to) {
			return gone
		}
	}
	return nil
}

func operationOf(s gitops.State) gitops.Operation {
	if s.Operation == nil {
		return gitops.Operation{}
	}
	return *s.Operation
}

// journal changes status.gitops and writes it.
func (r *restoration) journal(ctx context.Context, change func(*v1alpha1.TransactionStatus)) error {
	return r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		if s.GitOps == nil {
			s.GitOps = &v1alpha1.TransactionStatus{}
		}
		change(s.GitOps)
	})
}

func (r *restoration) micro() *metav1.MicroTime {
	now := metav1.NewMicroTime(r.Now())
	return &now
}

// suspend holds syncs off and ends the one that is under way.
func (t *transaction) suspend(ctx context.Context) error {
	j := t.object.Status.GitOps
	if j.Suspended == nil {
		if err := t.phase(ctx, v1alpha1.PhaseSuspending); err != nil {
			return err
		}
		for _, s := range j.Suspensions {
			if err := t.engine.Suspend(ctx, s, t.by); err != nil {
				return err
			}
		}
		if err := t.journal(ctx, func(j *v1alpha1.TransactionStatus) { j.Suspended = t.micro() }); err != nil {
			return err
		}
	}
	return t.engine.Stop(ctx, t.by)
}

// data puts the volumes of the point behind the claims. What uses them is left stopped: it is to start with the configuration that goes
// with the data, not with what is rolled back.
func (t *transaction) data(ctx context.Context) error {
	if t.object.Status.GitOps.DataBack != nil {
		return nil
	}
	if err := t.bring(ctx); err != nil {
		return err
	}
	return t.journal(ctx, func(j *v1alpha1.TransactionStatus) { j.DataBack = t.micro() })
}

func (t *transaction) bring(ctx context.Context) error {
	if t.undone != nil {
		if claims := takenOut(t.undone); len(claims) > 0 {
			return t.putBack(ctx, claims, string(t.undone.UID))
		}
		return nil
	}
	if t.object.Spec.Only == v1alpha1.OnlyConfig {
		return nil
	}
	if err := t.plan.Refusal(); err != nil {
		return err
	}
	if err := t.exchange(ctx); err != nil {
		return err
	}
	_, err := t.load(ctx, false)
	return err
}

// databasesInPods brings back databases whose servers have started with the application; an undo, all that were changed.
func (t *transaction) databasesInPods(ctx context.Context) error {
	if t.object.Status.GitOps.Settled != nil {
		return nil
	}
	if t.undone != nil {
		return t.loadBack(ctx, t.undone, func(string) error { return nil })
	}
	_, err := t.load(ctx, true)
	return err
}

// configuration deploys the revisions that go with the data. Where git does not have them any more the point's own objects take their
// place; problems are what of those could not be brought back.
func (t *transaction) configuration(ctx context.Context) (problems []string, _ error) {
	if t.object.Spec.Only == v1alpha1.OnlyData || t.object.Status.GitOps.Settled != nil || len(t.object.Status.GitOps.To) == 0 {
		return nil, nil
	}
	if err := t.phase(ctx, v1alpha1.PhaseSyncing); err != nil {
		return nil, err
	}
	if !t.object.Status.GitOps.FromPoint {
		lost, err := t.deploy(ctx, t.object.Status.GitOps.To)
		switch {
		case !lost:
			return nil, err
		case t.undone != nil:
			problems = []string{"what was live is not deployed again: " + err.Error()}
			return problems, t.journal(ctx, func(j *v1alpha1.TransactionStatus) { j.To = nil })
		}
		t.Log.Warn("git does not have the revisions any more; the point's own objects are taken", "restore", t.object.Name, "error", err.Error())
		if err := t.journal(ctx, func(j *v1alpha1.TransactionStatus) { j.FromPoint = true }); err != nil {
			return nil, err
		}
	}
	return t.fromPoint(ctx)
}

// deploy has the engine deploy revisions, and waits until it has. An error for which git is the reason is marked lost.
func (t *transaction) deploy(ctx context.Context, to []string) (lost bool, _ error) {
	if err := t.ask(ctx, to); err != nil {
		return errors.Is(err, fault.ErrNotFound), err
	}
	op := "deploy " + strings.Join(shortened(to), ", ")
	patience, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	for {
		s, err := t.engine.State(patience)
		if err != nil && !fault.Of(err).Retry {
			return false, err
		}
		switch o := operationOf(s); {
		case err != nil, !o.Ended(), !slices.Equal(o.Revisions, to):
		case o.Phase == "Succeeded":
			return false, nil
		case s.Lost:
			return true, fault.New(op, fault.ErrNotFound, s.Message, "")
		default:
			return false, fault.New(op, fault.ErrRefused, o.Message, "")
		}
		if kube.Pause(patience, engineLook) == nil {
			continue
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, fault.New(op, fault.ErrRefused, fmt.Sprintf("it has not ended after %s: %s", stepTime, operationOf(s).Message), "")
	}
}

// ask asks for a sync, and ends one that somebody else began meanwhile by hand.
func (t *transaction) ask(ctx context.Context, to []string) error {
	const tries = 3
	for n := 1; ; n++ {
		err := t.engine.Deploy(ctx, to, t.by)
		if !errors.Is(err, fault.ErrBusy) || n == tries {
			return err
		}
		if err := t.engine.Stop(ctx, t.by); err != nil {
			return err
		}
	}
}

// shortened are revisions as people read them.
func shortened(revisions []string) []string {
	const digits = 7
	var all []string
	for _, r := range revisions {
		if len(r) == 40 || len(r) == 64 { // of commits; a chart has a version
			r = r[:digits]
		}
		all = append(all, r)
	}
	return all
}

// fromPoint replaces the application's objects by those in the point.
func (t *transaction) fromPoint(ctx context.Context) (problems []string, _ error) {
	data := t.plan
	defer func() { t.plan = data }()
	if err := t.build(ctx); err != nil {
		return nil, err
	}
	t.objects = t.plan
	outcome, err := t.plan.Apply(ctx, 0)
	if err != nil {
		return nil, err
	}
	for _, f := range outcome.Failed {
		problems = append(problems, f.Object+": "+f.Why)
	}
	return problems, nil
}

// await waits until the application runs with what was deployed, and says what does not when the time for that is over.
func (t *transaction) await(ctx context.Context) (lagging []string, _ error) {
	if t.object.Status.GitOps.Settled != nil {
		return nil, nil
	}
	if err := t.phase(ctx, v1alpha1.PhaseWaiting); err != nil {
		return nil, err
	}
	settle := defaultSettle
	if g := t.object.Spec.GitOps; g != nil {
		if d, err := time.ParseDuration(g.Settle); err == nil && d > 0 {
			settle = d
		}
	}
	// What was stopped, and only then the engine: it may say how it was with nothing running.
	lagging, err := t.awaitObjects(ctx, settle)
	if err != nil || len(lagging) > 0 {
		return lagging, err
	}
	if t.object.Status.GitOps.FromPoint { // an engine that cannot read git says nothing of what runs
		return nil, t.settled(ctx)
	}
	patience, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		s, err := t.engine.State(patience)
		if err != nil && !fault.Of(err).Retry && patience.Err() == nil {
			return nil, err
		}
		if err == nil && s.Healthy && (len(t.object.Status.GitOps.To) == 0 || slices.Equal(s.Live, t.object.Status.GitOps.To)) {
			return nil, t.settled(ctx)
		}
		if kube.Pause(patience, engineLook) == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return []string{fmt.Sprintf("%s is not healthy after %s: %s", t.object.Status.GitOps.Deployment, settle, s.Message)}, nil
	}
}

// awaitObjects waits until what uses the volumes runs, or what came out of the point.
func (t *transaction) awaitObjects(ctx context.Context, settle time.Duration) (lagging []string, _ error) {
	plan := cmp.Or(t.objects, t.plan)
	if plan == nil { // an undo has none
		return nil, nil
	}
	behind, err := plan.Ready(ctx, settle)
	for _, n := range behind {
		if !n.Before {
			lagging = append(lagging, n.Object+" is not ready: "+n.Why)
		}
	}
	return lagging, err
}

// settled writes down that application and data are back, and how long that took.
func (t *transaction) settled(ctx context.Context) error {
	return t.save(ctx, func(s *v1alpha1.RestoreStatus) {
		s.GitOps.Settled = t.micro()
		s.GitOps.Took = s.GitOps.Settled.Sub(s.Started.Time).Round(time.Second).String()
	})
}

// letGo lets syncs go again, or finds why they are still to be held off. What the journal says of it is written with the end: a transaction
// that is held and has not ended would have its data taken back, and not its configuration, if it never did end.
func (t *transaction) letGo(ctx context.Context, lagging []string) (journal func(*v1alpha1.RestoreStatus), _ error) {
	s, err := t.engine.State(ctx)
	if err != nil {
		return nil, err
	}
	why := strings.Join(lagging, "; ")
	if why == "" && t.undone == nil {
		why = t.judge(ctx, t.object, s)
	}
	if why != "" {
		return func(r *v1alpha1.RestoreStatus) { r.GitOps.Held, r.GitOps.HeldAt = shorten(why), s.Head }, nil
	}
	if err := t.resume(ctx, t.engine, t.object); err != nil {
		return nil, err
	}
	return func(r *v1alpha1.RestoreStatus) { r.GitOps.Resumed = t.micro() }, nil
}

// letUndoneGo lets the syncs go that a transaction holds off which was undone. Not before the undo has ended: if that were taken back, they
// would bring what was rolled back to the data of before.
func (w *Worker) letUndoneGo(ctx context.Context, undo *v1alpha1.Restore) error {
	j := undo.Status.GitOps
	done := undo.Status.Phase == v1alpha1.PhaseComplete || undo.Status.Phase == v1alpha1.PhaseIncomplete
	if undo.Spec.Undo == "" || !done || j == nil || j.Resumed == nil {
		return nil
	}
	var r v1alpha1.Restore
	err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: undo.Namespace, Name: undo.Spec.Undo}, &r)
	if client.IgnoreNotFound(err) != nil {
		return fault.Wrap("read restore "+undo.Spec.Undo, kube.ClassOf(err), err, "")
	}
	later := undo.CreationTimestamp.Before(&r.CreationTimestamp) // another one of that name
	if err != nil || later || r.Status.GitOps == nil || r.Status.GitOps.Held == "" {
		return nil
	}
	engine, err := w.deployment(r.Status.GitOps.Deployment)
	if err != nil {
		return err
	}
	if err := w.resume(ctx, engine, &r); err != nil {
		return err
	}
	return w.tellResumed(ctx, &r)
}

// letAllUndoneGo does so in the place of processes that were killed before they did.
func (w *Worker) letAllUndoneGo(ctx context.Context) error {
	var all v1alpha1.RestoreList
	if err := w.Cluster.Client.List(ctx, &all); err != nil {
		return fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	var errs []error
	for i := range all.Items {
		errs = append(errs, fault.Wrap("restore "+all.Items[i].Name, nil, w.letUndoneGo(ctx, &all.Items[i]), ""))
	}
	return errors.Join(errs...)
}

// resume takes back what holds syncs off: what was suspended last first.
func (w *Worker) resume(ctx context.Context, engine gitops.Deployment, r *v1alpha1.Restore) error {
	for _, s := range slices.Backward(r.Status.GitOps.Suspensions) {
		if err := engine.Resume(ctx, s, string(r.UID)); err != nil {
			return err
		}
	}
	return nil
}

// undoTransaction takes back what a transaction changed that will not come to its end, once the volumes are as they were: the revisions
// that were live are deployed again, and syncs let go.
func (w *Worker) undoTransaction(ctx context.Context, r *v1alpha1.Restore) error {
	engine, err := w.deployment(r.Status.GitOps.Deployment)
	if errors.Is(err, fault.ErrNotFound) {
		return w.tellResumed(ctx, r) // there is nothing to let go
	}
	if err != nil {
		return err
	}
	t := &transaction{restoration: &restoration{Worker: w, object: r}, engine: engine, by: string(r.UID)}
	if j := r.Status.GitOps; j.DataBack != nil && r.Spec.Only != v1alpha1.OnlyData && len(j.From) > 0 && !slices.Equal(j.From, j.To) {
		if _, err := t.deploy(ctx, j.From); err != nil {
			if fault.Of(err).Retry || ctx.Err() != nil {
				return err
			}
			w.Log.Error("the revisions that were live could not be deployed again", "restore", r.Name, "error", err.Error())
		}
	}
	if err := w.resume(ctx, engine, r); err != nil {
		return err
	}
	return w.tellResumed(ctx, r)
}

// takeBackTransaction ends the transaction of a Restore whose process could not. Syncs are not let go while volumes of two times are
// behind the claims.
func (w *Worker) takeBackTransaction(ctx context.Context, r *v1alpha1.Restore) error {
	claims := &volume.Restorer{Cluster: w.Cluster, Application: w.Cluster, System: w.System, Owner: string(r.UID), Wait: stepTime, Poll: time.Second, Now: w.Now}
	exchanged, err := claims.Exchanged(ctx)
	if err != nil {
		return err
	}
	if exchanged {
		return fault.New("", fault.ErrBusy, "its volumes are not back yet", "")
	}
	return w.undoTransaction(ctx, r)
}

// tellResumed writes down that syncs are let go, on a Restore that has ended, too.
func (w *Worker) tellResumed(ctx context.Context, r *v1alpha1.Restore) error {
	err := w.persist(ctx, r, func() error {
		now := metav1.NewMicroTime(w.Now())
		r.Status.GitOps.Resumed, r.Status.GitOps.Held = &now, ""
		return nil
	})
	if errors.Is(err, fault.ErrNotFound) { // it is gone
		return nil
	}
	return err
}

// stopDeploying ends the sync that a transaction has asked for and that is to be taken back.
func (w *Worker) stopDeploying(ctx context.Context, r *v1alpha1.Restore) error {
	if r.Status.GitOps.DataBack == nil {
		return nil
	}
	engine, err := w.deployment(r.Status.GitOps.Deployment)
	if err != nil {
		return err
	}
	return engine.Stop(ctx, "")
}

// owes reports whether a transaction holds syncs off without a word about it.
func owes(r *v1alpha1.Restore) bool {
	j := r.Status.GitOps
	return j != nil && j.Deployment != "" && j.Resumed == nil && j.Held == ""
}

// unresolved are the Restores that have ended, and whose transactions have not.
func (w *Worker) unresolved(ctx context.Context) ([]v1alpha1.Restore, error) {
	var all v1alpha1.RestoreList
	if err := w.Cluster.Client.List(ctx, &all); err != nil {
		return nil, fault.Wrap("list restores", kube.ClassOf(err), err, "")
	}
	return slices.DeleteFunc(all.Items, func(r v1alpha1.Restore) bool {
		return !owes(&r) || !r.Status.Phase.Final() && r.DeletionTimestamp.IsZero()
	}), nil
}

// forUnresolved does something for each of them, and goes on after a failure.
func (w *Worker) forUnresolved(ctx context.Context, do func(context.Context, *v1alpha1.Restore) error) error {
	all, err := w.unresolved(ctx)
	errs := []error{err}
	for i := range all {
		errs = append(errs, fault.Wrap("transaction of restore "+all[i].Name, nil, do(ctx, &all[i]), ""))
	}
	return errors.Join(errs...)
}

// Release lets the syncs go that a Restore holds off, if what git has now is safe or with force, and writes down what it found.
func (w *Worker) Release(ctx context.Context, namespace, name string, force bool) error {
	var r v1alpha1.Restore
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &r); err != nil {
		return fault.Wrap(fmt.Sprintf("read restore %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	if r.Status.GitOps == nil || r.Status.GitOps.Held == "" {
		return nil
	}
	engine, err := w.deployment(r.Status.GitOps.Deployment)
	if err != nil {
		return err
	}
	s, err := engine.State(ctx)
	gone := errors.Is(err, fault.ErrNotFound)
	if err != nil && !gone {
		return err
	}
	why := ""
	if !force && !gone {
		why = w.judge(ctx, &r, s)
	}
	if why == "" {
		if err := w.resume(ctx, engine, &r); err != nil {
			return err
		}
		return errors.Join(w.tellResumed(ctx, &r), w.letUndoneGo(ctx, &r))
	}
	return w.persist(ctx, &r, func() error {
		r.Status.GitOps.Held, r.Status.GitOps.HeldAt = shorten(why), s.Head
		return nil
	})
}
