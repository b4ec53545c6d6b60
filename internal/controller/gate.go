package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	defaultGateDeadline = 15 * time.Minute
	gateLook            = time.Second      // for what Argo CD writes a moment after it has started a hook
	gateDoubt           = 30 * time.Second // after which that will not be written any more
	gateBackups         = 20               // that retries of one sync may make, one after another
	toldHook            = "backstay: "     // before the cause that a hook's Job fails with
)

// addGates answers the hooks that wait at gates. Gates of syncs that nobody waits with are made, and answered, where they are seen.
func (c *controller) addGates(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("gate").
		For(&v1alpha1.Gate{}).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(c.gatesOf)).
		Complete(calmly(c.reconcileGate))
}

// gatesOf are the Gates that a Backup is for.
func (c *controller) gatesOf(ctx context.Context, b client.Object) []reconcile.Request {
	var all v1alpha1.GateList
	if err := c.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil // they look again by themselves
	}
	return requestsFor(all.Items, func(g *v1alpha1.Gate) bool {
		return g.Status.Backup == b.GetName() && strings.HasPrefix(g.Status.Policy, b.GetNamespace()+"/")
	})
}

// gate is one look at a Gate.
type gate struct {
	*controller
	object *v1alpha1.Gate

	hook        *batchv1.Job               // whose pod waits
	deployment  *unstructured.Unstructured // that the hook is of
	state       gitops.State
	policy      *v1alpha1.Policy
	application v1alpha1.Applications // that the policy captures

	made, good string // the Backup that is waited for, and the point
}

// answer is what a look at a Gate comes to. One that is not final is looked at again after a while, and when its Backup changes.
type answer struct {
	phase   v1alpha1.GatePhase
	reason  string
	message string
	again   time.Duration
}

func open(reason, message string) answer {
	return answer{phase: v1alpha1.GateOpen, reason: reason, message: message}
}

func shut(reason, message string) answer {
	return answer{phase: v1alpha1.GateClosed, reason: reason, message: message}
}

func wait(message string, again time.Duration) answer {
	return answer{phase: v1alpha1.GateWaiting, reason: "Waiting", message: message, again: again}
}

func (c *controller) reconcileGate(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var o v1alpha1.Gate
	if err := c.client.Get(ctx, r.NamespacedName, &o); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case !o.DeletionTimestamp.IsZero() || o.Spec.Pod == "":
		return reconcile.Result{}, nil
	case o.Status.Phase.Final():
		return reconcile.Result{}, c.keepUp(ctx, &o)
	}
	g := &gate{controller: c, object: &o, made: o.Status.Backup}
	a, err := g.answer(ctx)
	if err == nil && !a.phase.Final() {
		a = g.bounded(a)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := g.give(ctx, a); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: a.again}, nil
}

// answer decides whether the sync may go on. The first that applies is why.
func (g *gate) answer(ctx context.Context) (answer, error) {
	a, err := g.find(ctx)
	if err != nil || a.phase != "" {
		return a, err
	}
	for _, ask := range []func(context.Context) (answer, error){g.brokenGlass, g.protected, g.first, g.fresh, g.skipped, g.point} {
		if a, err := ask(ctx); err != nil || a.phase != "" {
			return a, err
		}
	}
	return answer{}, errors.New("a gate has no answer") // the last one always has
}

// find reads what the Gate is of: its pod, the hook, the deployment and its sync. An answer is why the Gate cannot be of any.
func (g *gate) find(ctx context.Context) (answer, error) {
	job, err := g.job(ctx)
	if err == nil {
		g.hook = job
		err = g.read(ctx)
	}
	if class := fault.Of(err); err != nil && (class.Retry || class.Exit == fault.Of(errors.New("no class")).Exit) {
		return answer{}, err
	} else if err != nil {
		return shut(v1alpha1.GateFailed, say(err)), nil
	}
	if o := g.state.Operation; o == nil || o.Ended() || o.Started.IsZero() || len(o.Revisions) == 0 {
		if g.age() < gateDoubt {
			return wait("waits for Argo CD to say what it syncs", gateLook), nil
		}
		return shut(v1alpha1.GateFailed, "no sync of "+g.state.Name+" is under way"), nil
	}
	if g.policy, g.application, err = g.governing(ctx, g.state); err != nil || g.object.Status.Sync != nil {
		return answer{}, err
	}
	return answer{}, g.save(ctx, g.object, func() {
		now := metav1.NewMicroTime(g.Now())
		g.object.Status.Sync, g.object.Status.Begun = g.sync(), &now
	})
}

// job is the Job of the pod that waits. The pod is of the Gate's own namespace: who makes the Gate can make it wait, and no more.
func (g *gate) job(ctx context.Context) (*batchv1.Job, error) {
	op := "pod " + g.object.Spec.Pod
	var pod metav1.PartialObjectMetadata
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err := g.direct.Get(ctx, types.NamespacedName{Namespace: g.object.Namespace, Name: g.object.Spec.Pod}, &pod)
	if apierrors.IsNotFound(err) {
		return nil, fault.New(op, fault.ErrNotFound, "it is gone", "")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", op, err)
	}
	owner := metav1.GetControllerOf(&pod)
	if owner == nil || owner.Kind != "Job" {
		return nil, fault.New(op, fault.ErrInvalid, "it is of no Job", "a gate is a hook, and hooks are Jobs")
	}
	var job batchv1.Job
	err = g.direct.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: owner.Name}, &job)
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != owner.UID:
		return nil, fault.New("job "+owner.Name, fault.ErrNotFound, "it is gone", "")
	case err != nil:
		return nil, fmt.Errorf("read job %s: %w", owner.Name, err)
	}
	return &job, nil
}

// read reads what deploys the hook, and how it stands.
func (g *gate) read(ctx context.Context) (err error) {
	name := g.object.Spec.Deployment
	if name == "" {
		if name, err = gitops.OfHook(ctx, g.direct, g.hook); err != nil {
			return err
		}
	}
	if g.deployment, err = gitops.Object(ctx, g.direct, name); err != nil {
		return err
	}
	if !gitops.Reaches(g.deployment, g.object.Namespace) {
		return fault.New("gate "+g.object.Name, fault.ErrDenied, name+" has nothing in namespace "+g.object.Namespace, "")
	}
	g.state = gitops.ReadApplication(g.deployment).State()
	return nil
}

// sync is the sync that waits, as it is recorded.
func (g *gate) sync() *v1alpha1.Sync {
	o := g.state.Operation
	started := metav1.NewTime(o.Started)
	by := o.User
	if o.Automated {
		by = "automated"
	}
	return &v1alpha1.Sync{Deployment: g.state.Name, From: g.state.Live, To: o.Revisions, Started: &started, By: by}
}

// brokenGlass lets a sync through without a point, where somebody said so at the deployment.
func (g *gate) brokenGlass(context.Context) (answer, error) {
	reason, is := g.deployment.GetAnnotations()[v1alpha1.AnnotationBreakGlass]
	if !is {
		return answer{}, nil
	}
	return open(v1alpha1.GateBrokenGlass, fmt.Sprintf("no point is made: %q, as annotation %s of %s says (%s)",
		reason, v1alpha1.AnnotationBreakGlass, g.state.Name, writer(g.deployment, v1alpha1.AnnotationBreakGlass))), nil
}

// writer is who wrote an annotation and when, as far as the API server keeps that.
func writer(o client.Object, annotation string) string {
	for _, m := range o.GetManagedFields() {
		if m.FieldsV1 != nil && strings.Contains(string(m.FieldsV1.Raw), `"f:`+annotation+`"`) && m.Time != nil {
			return "written by " + m.Manager + " at " + m.Time.UTC().Format(time.RFC3339)
		}
	}
	return "nobody knows who wrote it"
}

func (g *gate) protected(context.Context) (answer, error) {
	if g.policy != nil {
		return answer{}, nil
	}
	return shut(v1alpha1.GateUnprotected, fmt.Sprintf("no policy has syncs of %s wait for a point; add `gitops: {}` to one that selects it, "+
		"or the annotation %s with a reason to the Application", g.state.Name, v1alpha1.AnnotationBreakGlass)), nil
}

// first lets the first sync through, where there is nothing to protect: claims and pods of an application that was here before are something.
func (g *gate) first(ctx context.Context) (answer, error) {
	if len(g.state.Live) > 0 || !gitops.ReadApplication(g.deployment).Empty() {
		return answer{}, nil
	}
	for _, kind := range []string{"PersistentVolumeClaim", "Pod"} {
		var there metav1.PartialObjectMetadataList
		there.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
		if err := g.direct.List(ctx, &there, client.InNamespace(g.object.Namespace)); err != nil {
			return answer{}, fmt.Errorf("list each %s: %w", kind, err)
		}
		if slices.ContainsFunc(there.Items, func(o metav1.PartialObjectMetadata) bool { return o.Labels[v1alpha1.LabelGate] == "" }) {
			return answer{}, nil
		}
	}
	return open(v1alpha1.GateFirstSync, "first sync: there is nothing to protect yet"), nil
}

// fresh finds a point that is good enough: complete, of the revisions that are live, and made after any sync that may have changed data.
func (g *gate) fresh(ctx context.Context) (answer, error) {
	span := spanOr(g.policy.Spec.GitOps.FreshFor, 0)
	if span == 0 || len(g.state.Live) == 0 {
		return answer{}, nil
	}
	after, err := g.lastSync(ctx)
	if err != nil {
		return answer{}, err
	}
	var points v1alpha1.RestorePointList
	if err := g.client.List(ctx, &points, client.InNamespace(g.policy.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return answer{}, fmt.Errorf("list restore points: %w", err)
	}
	var newest *v1alpha1.RestorePoint
	for i := range points.Items {
		p := &points.Items[i]
		good := p.Spec.State == stateComplete && p.Spec.Deployment == g.state.Name && p.Spec.Policy == g.policy.Name &&
			slices.Equal(p.Spec.Revisions, g.state.Live) && p.Spec.Time.After(after) && g.Now().Sub(p.Spec.Time.Time) <= span
		if good && p.DeletionTimestamp.IsZero() && (newest == nil || newest.Spec.Time.Before(&p.Spec.Time)) {
			newest = p
		}
	}
	if newest == nil {
		return answer{}, nil
	}
	g.good = newest.Spec.Point
	return open(v1alpha1.GateFresh, fmt.Sprintf("point %s of %s is fresh enough", newest.Spec.Point, newest.Spec.Time.UTC().Format(time.RFC3339))), nil
}

// lastSync is when a sync before this one may last have changed data: one that ended well, or one that asked at a gate and failed.
func (g *gate) lastSync(ctx context.Context) (time.Time, error) {
	last := gitops.ReadApplication(g.deployment).Since()
	var all v1alpha1.GateList
	if err := g.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return last, fmt.Errorf("list gates: %w", err)
	}
	for i := range all.Items {
		s := all.Items[i].Status
		if s.Sync == nil || s.Sync.Deployment != g.state.Name || s.Begun == nil || s.Phase == v1alpha1.GateClosed || s.Sync.Started.Equal(g.object.Status.Sync.Started) {
			continue
		}
		if s.Begun.After(last) {
			last = s.Begun.Time
		}
	}
	return last, nil
}

// skipped lets a sync through that changes nothing but kinds which the policy names. What else its hooks do only their author knows.
func (g *gate) skipped(context.Context) (answer, error) {
	skip := g.policy.Spec.GitOps.SkipKinds
	if len(skip) == 0 || g.hook.Annotations[v1alpha1.AnnotationOnlyHook] != "true" || !slices.Equal(g.state.Head, g.state.Operation.Revisions) {
		return answer{}, nil
	}
	var names []string
	for _, kind := range gitops.ReadApplication(g.deployment).Changes() {
		mapping, err := g.client.RESTMapper().RESTMapping(kind)
		if err != nil { // a kind that comes with the sync
			return answer{}, nil
		}
		name := mapping.Resource.GroupResource().String()
		if !slices.Contains(skip, name) && !slices.Contains(skip, "*."+kind.Group) {
			return answer{}, nil
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return answer{}, nil
	}
	return open(v1alpha1.GateSkipped, "only "+strings.Join(names, ", ")+" change, which the policy skips"), nil
}

// point waits for the Backup of this sync.
func (g *gate) point(ctx context.Context) (answer, error) {
	b, err := g.backup(ctx)
	if err != nil {
		return answer{}, err
	}
	return g.after(b), nil
}

// backup is the Backup that the sync waits for: its own, of an earlier look or hook, or one of the same application that has not come to its
// instant yet. One that had failed before this hook began is not asked again: the hook's retry is to have another try.
func (g *gate) backup(ctx context.Context) (*v1alpha1.Backup, error) {
	if name := g.object.Status.Backup; name != "" {
		var b v1alpha1.Backup
		err := g.direct.Get(ctx, types.NamespacedName{Namespace: g.policy.Namespace, Name: name}, &b)
		if err == nil || !apierrors.IsNotFound(err) {
			return &b, err
		}
	}
	name := g.backupName()
	for i := range gateBackups {
		b := g.syncBackup(g.policy, g.application, g.object.Status.Sync, name)
		if i > 0 {
			b = g.syncBackup(g.policy, g.application, g.object.Status.Sync, fmt.Sprintf("%s-%d", name, i+1))
		}
		var is v1alpha1.Backup
		switch err := g.direct.Get(ctx, client.ObjectKeyFromObject(b), &is); {
		case err == nil && failedBefore(&is, g.object.CreationTimestamp.Time):
			continue
		case err == nil:
			return &is, nil
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("read backup %s: %w", b.Name, err)
		}
		if other, err := g.underWay(ctx); other != nil || err != nil {
			return other, err
		}
		if err := g.client.Create(ctx, b); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create backup %s: %w", b.Name, err)
		}
		return b, nil
	}
	return nil, fault.New("gate "+g.object.Name, fault.ErrUnavailable, "backups of this sync fail again and again", "")
}

func failedBefore(b *v1alpha1.Backup, at time.Time) bool {
	return (b.Status.Phase == v1alpha1.PhaseFailed || b.Status.Phase == v1alpha1.PhaseIncomplete) && b.Status.Finished != nil && b.Status.Finished.Time.Before(at)
}

// underWay is a Backup of the same application that has begun and not come to its instant; nil for none.
func (g *gate) underWay(ctx context.Context) (*v1alpha1.Backup, error) {
	var all v1alpha1.BackupList
	if err := g.client.List(ctx, &all, client.InNamespace(g.policy.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	for i := range all.Items {
		b := &all.Items[i]
		if b.Spec.Policy == g.policy.Name && nameOf(b.Spec.Application) == nameOf(g.application) && b.Status.Started != nil &&
			b.Status.Instant == nil && !b.Status.Phase.Final() && b.DeletionTimestamp.IsZero() {
			return b.DeepCopy(), nil
		}
	}
	return nil, nil //nolint:nilnil // none is an answer
}

// backupName is that of the sync's Backup: the same for each hook and each try of one operation.
func (g *gate) backupName() string {
	s := g.object.Status.Sync
	_, name, _ := strings.Cut(strings.SplitN(s.Deployment, "/", 2)[1], "/")
	return short("gate-"+name) + "-" + digits(strings.Join(append([]string{g.state.UID, s.Started.UTC().Format(time.RFC3339)}, s.To...), "\n"))
}

// syncBackup is a Backup for a sync. It is of no run of its policy: that is judged by its own runs.
func (c *controller) syncBackup(p *v1alpha1.Policy, application v1alpha1.Applications, sync *v1alpha1.Sync, name string) *v1alpha1.Backup {
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: p.Namespace,
			Labels:     map[string]string{v1alpha1.LabelRun: name},
			Finalizers: []string{v1alpha1.FinalizerRunning},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPolicy, Name: p.Name, UID: p.UID},
			},
		},
		Spec: v1alpha1.BackupSpec{
			Policy: p.Name, Application: application, ServiceAccountName: p.Spec.ServiceAccountName, Deadline: p.Spec.Deadline, Sync: sync,
		},
	}
	if of := nameOf(application); len(validation.IsValidLabelValue(of)) == 0 {
		b.Labels[v1alpha1.LabelApplication] = of
	}
	return b
}

// after is what a Backup means for the sync.
func (g *gate) after(b *v1alpha1.Backup) answer {
	g.made, g.good = b.Name, b.Status.Point
	name := "backup " + b.Namespace + "/" + b.Name
	s := &b.Status
	switch {
	case s.Phase == v1alpha1.PhaseComplete:
		return open(v1alpha1.GateStored, "point "+s.Point+" is complete")
	case s.Phase.Final():
		return g.failed(v1alpha1.GateFailed, name+": "+causeOf(b))
	case s.Instant == nil || s.Instant.Listed == nil || s.Dumping(): // the sync may change tables, which breaks dumps
		return wait(name+": "+standing(b), 0)
	}
	if cause := lacks(s); cause != "" {
		return g.failed(v1alpha1.GateFailed, name+": "+cause)
	}
	if g.policy.Spec.GitOps.WaitFor == v1alpha1.WaitForStored {
		return wait(name+": "+standing(b), 0)
	}
	return open(v1alpha1.GateSnapshot, name+": its snapshots are taken, and their data is on its way")
}

// failed is what the policy says to a sync before which no point can be made.
func (g *gate) failed(reason, cause string) answer {
	if g.policy != nil && g.policy.Spec.GitOps.OnFailure == v1alpha1.OnFailureProceed {
		return open(v1alpha1.GateProceed, "no point is made, and the policy lets syncs through: "+cause)
	}
	return shut(reason, cause)
}

// lacks is what will be missing in a point though its instant is over; empty for nothing.
func lacks(s *v1alpha1.BackupStatus) string {
	if s.HookProblem != "" {
		return s.HookProblem
	}
	for _, v := range s.Volumes {
		if v.Problem != "" && !v.Skipped {
			return "claim " + v.Namespace + "/" + v.Claim + ": " + v.Problem
		}
	}
	for _, d := range s.Databases {
		if d.Problem != "" {
			return "database " + d.Name + ": " + d.Problem
		}
	}
	return ""
}

// causeOf is why a Backup did not end well.
func causeOf(b *v1alpha1.Backup) string {
	cause := strings.Join(b.Status.Problems, "; ")
	for _, c := range b.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			cause = cmp.Or(cause, c.Message)
		}
	}
	return cmp.Or(cause, lacks(&b.Status), string(b.Status.Phase))
}

// standing is how far a Backup is.
func standing(b *v1alpha1.Backup) string {
	s := &b.Status
	taken, stored := 0, 0
	for _, v := range s.Volumes {
		if v.Taken != nil {
			taken++
		}
		if v.Stored {
			stored++
		}
	}
	switch s.Phase {
	case "", v1alpha1.PhasePending:
		if s.Started != nil {
			return "waits for another Backup or Restore of the application"
		}
		for _, c := range s.Conditions {
			if c.Type == v1alpha1.ConditionReady {
				return c.Message
			}
		}
		return "waits for its Job"
	case v1alpha1.PhaseActing:
		return "Blueprints capture data"
	case v1alpha1.PhaseQuiescing:
		return fmt.Sprintf("snapshots are taken, %d of %d", taken, len(s.Volumes))
	case v1alpha1.PhaseListing:
		return "objects are listed"
	}
	if s.Dumping() {
		return "databases are dumped"
	}
	return fmt.Sprintf("data is stored, %d of %d volumes", stored, len(s.Volumes))
}

// bounded fails a Gate that has waited for too long.
func (g *gate) bounded(a answer) answer {
	most := defaultGateDeadline
	if g.policy != nil {
		most = spanOr(g.policy.Spec.GitOps.Deadline, most)
	}
	left := most - g.age()
	if left <= 0 {
		return g.failed(v1alpha1.GateDeadline, fmt.Sprintf("it took longer than %s: %s", most, a.message))
	}
	if a.again == 0 || left < a.again {
		a.again = left
	}
	return a
}

func (g *gate) age() time.Duration { return g.Now().Sub(g.object.CreationTimestamp.Time) }

// give writes an answer. The hook's Job is told first why it fails: its pod ends as soon as it reads the Gate, and Argo CD shows what the Job says.
func (g *gate) give(ctx context.Context, a answer) error {
	s, policy := &g.object.Status, ""
	if g.policy != nil {
		policy = g.policy.Namespace + "/" + g.policy.Name
	}
	if s.Phase == a.phase && s.Message == shorten(a.message) && s.Policy == policy && s.Backup == g.made {
		return nil
	}
	if a.phase == v1alpha1.GateClosed && g.hook != nil {
		if err := g.failHook(ctx, g.hook, a.reason, a.message); err != nil {
			return err
		}
	}
	err := g.save(ctx, g.object, func() {
		now := metav1.NewMicroTime(g.Now())
		s.Phase, s.Reason, s.Message, s.ObservedGeneration = a.phase, a.reason, shorten(a.message), g.object.Generation
		s.Policy, s.Backup, s.Point = policy, g.made, g.good
		if s.Begun == nil {
			s.Begun = &now
		}
		if a.phase.Final() {
			s.Ended = &now
		}
		v := verdict{truth(a.phase == v1alpha1.GateOpen), !a.phase.Final(), a.phase == v1alpha1.GateClosed, a.reason, a.message}
		judge(&s.Conditions, g.object.Generation, now.Time, v)
	})
	if err != nil || !a.phase.Final() {
		return err
	}
	kind := corev1.EventTypeNormal
	if a.phase == v1alpha1.GateClosed || a.reason == v1alpha1.GateProceed || a.reason == v1alpha1.GateBrokenGlass {
		kind = corev1.EventTypeWarning
	}
	g.tell(g.object, kind, a.reason, a.message)
	if g.deployment != nil {
		g.events.Event(g.deployment, kind, "Gate"+string(a.phase), shorten(a.reason+": "+a.message))
	}
	return nil
}

// failHook has Kubernetes end a hook's Job as failed, with a cause in the place of "Job has reached the specified backoff limit".
func (c *controller) failHook(ctx context.Context, hook *batchv1.Job, reason, message string) error {
	if hook.Labels[v1alpha1.LabelGate] == "" || !hook.DeletionTimestamp.IsZero() {
		return nil
	}
	for _, condition := range hook.Status.Conditions {
		if condition.Status == corev1.ConditionTrue && (condition.Type == batchv1.JobFailureTarget || condition.Type == batchv1.JobFailed ||
			condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobSuccessCriteriaMet) {
			return nil
		}
	}
	now := metav1.NewTime(c.Now())
	return c.save(ctx, hook, func() {
		hook.Status.Conditions = append(hook.Status.Conditions, batchv1.JobCondition{
			Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: reason, Message: shorten(toldHook + message),
			LastProbeTime: now, LastTransitionTime: now,
		})
	})
}

// keepUp notes what became of the point of a sync that was let go on before it was stored.
func (c *controller) keepUp(ctx context.Context, o *v1alpha1.Gate) error {
	s := &o.Status
	if s.Phase == v1alpha1.GateClosed || s.Backup == "" || s.Point != "" || s.Reason == v1alpha1.GateProceed || meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionStalled) {
		return nil
	}
	namespace, _, _ := strings.Cut(s.Policy, "/")
	var b v1alpha1.Backup
	if err := c.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: s.Backup}, &b); err != nil || !b.Status.Phase.Final() {
		return client.IgnoreNotFound(err)
	}
	problem := ""
	if b.Status.Phase != v1alpha1.PhaseComplete {
		problem = "the point of a sync that went on is " + strings.ToLower(string(b.Status.Phase)) + ": " + causeOf(&b)
	}
	err := c.save(ctx, o, func() {
		s.Point = b.Status.Point
		if problem != "" {
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: v1alpha1.GateFailed, Message: shorten(problem),
				ObservedGeneration: o.Generation, LastTransitionTime: metav1.NewTime(c.Now()),
			})
		}
	})
	if err == nil && problem != "" {
		c.tell(o, corev1.EventTypeWarning, v1alpha1.GateFailed, problem)
	}
	return err
}

// say is an error with what can be done about it.
func say(err error) string {
	return strings.Join(append([]string{err.Error()}, fault.Hints(err)...), "; ")
}

// spanOr is a span, as written, or what stands for none. Its text was checked on admission.
func spanOr(text string, otherwise time.Duration) time.Duration {
	if span, err := time.ParseDuration(text); err == nil {
		return span
	}
	return otherwise
}
