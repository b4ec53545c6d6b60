package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/policy"
)

// addPolicies runs policies at their times: a run is one Backup for each application.
func (c *controller) addPolicies(m manager.Manager) error {
	ofBackup := func(_ context.Context, o client.Object) []reconcile.Request {
		b, is := o.(*v1alpha1.Backup)
		if !is || b.Labels[v1alpha1.LabelPolicy] == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: b.Namespace, Name: b.Labels[v1alpha1.LabelPolicy]}}}
	}
	ended := predicate.Funcs{ // what it does on the way is of no interest
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, is := e.ObjectOld.(*v1alpha1.Backup)
			after, alsoIs := e.ObjectNew.(*v1alpha1.Backup)
			return is && alsoIs && before.Status.Phase.Final() != after.Status.Phase.Final()
		},
	}
	return ctrl.NewControllerManagedBy(m).Named("policy").
		For(&v1alpha1.Policy{}).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(ofBackup), builder.WithPredicates(ended)).
		Complete(calmly(c.reconcilePolicy))
}

// turn is one look at a policy.
type turn struct {
	*controller
	policy *v1alpha1.Policy
	times  *policy.Schedule // nil for none
	jitter time.Duration
	runs   []run // that are there, the newest first
	now    time.Time
}

func (c *controller) reconcilePolicy(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var p v1alpha1.Policy
	if err := c.client.Get(ctx, r.NamespacedName, &p); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !p.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	runs, err := c.runsOf(ctx, &p)
	if err != nil {
		return reconcile.Result{}, err
	}
	t := &turn{controller: c, policy: &p, runs: runs, now: c.Now()}
	err = t.read()
	stalled := meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionStalled)
	if err == nil && (stalled || p.Status.ObservedGeneration != p.Generation) {
		err = t.take(ctx)
	}
	if err != nil {
		return t.refuse(ctx, err)
	}
	if err := t.sum(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := t.prune(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if err := t.runIfDue(ctx); err != nil {
		return t.refuse(ctx, err)
	}
	if next := p.Status.NextRun; next != nil {
		return reconcile.Result{RequeueAfter: max(next.Sub(t.now), time.Second)}, nil
	}
	return reconcile.Result{}, nil
}

// applicationsOf is the policy's sources that concern a cluster.
func applicationsOf(p *v1alpha1.Policy) []v1alpha1.Applications {
	var all []v1alpha1.Applications
	for _, s := range p.Spec.Sources {
		if s.Applications != nil {
			all = append(all, *s.Applications)
		}
	}
	return all
}

// hasRepositories reports whether a policy has sources that do not concern the cluster.
func hasRepositories(p *v1alpha1.Policy) bool { return len(applicationsOf(p)) < len(p.Spec.Sources) }

// read understands what the policy says. Errors are the user's to mend.
func (t *turn) read() error {
	p := t.policy
	op := "policy " + p.Name
	if hasRepositories(p) && p.Namespace != t.System {
		return fault.New(op, fault.ErrDenied, "it has sources that are no applications", "those are backed up by policies in Backstay's own namespace, "+t.System)
	}
	if p.Spec.Location == "" {
		return fault.New(op, fault.ErrInvalid, "it names no location", "")
	}
	if s := p.Spec.Schedule; s != nil {
		var err error
		t.times, t.jitter, err = readSchedule(op, s)
		return err
	}
	return nil
}

func readSchedule(op string, s *v1alpha1.Schedule) (_ *policy.Schedule, jitter time.Duration, _ error) {
	times, err := policy.ParseSchedule(s.Cron, s.TimeZone)
	if err != nil {
		return nil, 0, fault.Wrap(op, nil, err, "")
	}
	if s.Jitter != "" {
		if jitter, err = time.ParseDuration(s.Jitter); err != nil {
			return nil, 0, fault.Wrap(op+": jitter", fault.ErrInvalid, err, "")
		}
	}
	return &times, jitter, nil
}

// refuse says what is wrong with a policy. An error without a class is the API server's, and tried again.
func (t *turn) refuse(ctx context.Context, problem error) (reconcile.Result, error) {
	class := fault.Of(problem)
	if class.Retry || class.Exit == fault.Of(errors.New("no class")).Exit {
		return reconcile.Result{}, problem
	}
	p := t.policy
	v := verdict{metav1.ConditionFalse, false, true, class.Reason, problem.Error()}
	again := reconcile.Result{RequeueAfter: retry} // a right that was missing may be given meanwhile
	if judged(p.Status.Conditions, p.Generation, v) {
		return again, nil
	}
	err := t.save(ctx, p, func() {
		p.Status.ObservedGeneration, p.Status.NextRun = p.Generation, nil
		judge(&p.Status.Conditions, p.Generation, t.now, v)
	})
	if err == nil {
		t.tell(p, corev1.EventTypeWarning, class.Reason, problem.Error())
	}
	return again, err
}

// take takes notice of a policy that is new or changed, or was refused before.
func (t *turn) take(ctx context.Context) error {
	p := t.policy
	chosen, err := t.choose(ctx)
	if err != nil {
		return err
	}
	return t.save(ctx, p, func() {
		p.Status.ObservedGeneration, p.Status.Applications = p.Generation, len(chosen)
		p.Status.NextRun = t.next(t.now)
		if stalled := meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionStalled); stalled || len(t.runs) == 0 {
			judge(&p.Status.Conditions, p.Generation, t.now, verdict{metav1.ConditionTrue, false, false, "Scheduled", "it has not run since it was made or changed"})
		}
	})
}

// next is the run after a time, later by a span that is another one each time and for each policy, and always the same for both.
func (t *turn) next(after time.Time) *metav1.Time {
	if t.times == nil || t.policy.Spec.Suspend {
		return nil
	}
	at := t.times.Next(after)
	if at.IsZero() {
		return nil
	}
	if t.jitter > 0 {
		at = at.Add(time.Duration(number(string(t.policy.UID), at.UTC().Format(time.RFC3339)) % uint64(t.jitter))) //nolint:gosec // it is positive
	}
	next := metav1.NewTime(at.UTC())
	return &next
}

// cause is why a policy runs now.
type cause struct {
	run   string // name of the run: the same cause makes the same run, however often it is looked at
	token string // that asked for it
}

// due is why the policy runs now, if it does. Times that went by while nobody looked are made up for by one run.
func (t *turn) due() (cause, bool) {
	p := t.policy
	token := p.Annotations[v1alpha1.AnnotationRunNow]
	switch next := p.Status.NextRun; {
	case token != p.Status.RunNow && token != "":
		return cause{runName(p.Name, "now-"+digits(token)), token}, true
	case p.Spec.Suspend:
		return cause{}, false
	case next != nil && !next.After(t.now):
		return cause{runName(p.Name, stamp(next.Time)), p.Status.RunNow}, true
	case t.times == nil && p.Status.LastRun == nil: // once, when it is new
		return cause{runName(p.Name, stamp(p.CreationTimestamp.Time)), p.Status.RunNow}, true
	}
	return cause{}, false
}

// runIfDue starts a run whose time has come, unless another is not over. What was asked for by hand waits for that instead.
func (t *turn) runIfDue(ctx context.Context) error {
	p := t.policy
	why, due := t.due()
	if !due {
		return nil
	}
	asked := why.token != p.Status.RunNow
	if asked && p.Spec.Suspend {
		t.tell(p, corev1.EventTypeWarning, "Suspended", "it is suspended, and not run")
		return t.save(ctx, p, func() { p.Status.RunNow = why.token })
	}
	for _, r := range t.runs {
		if r.open == 0 || r.name == why.run {
			continue
		}
		if asked {
			return nil // the end of that run has the policy looked at again
		}
		t.tell(p, corev1.EventTypeWarning, "Skipped", "the run of "+p.Status.NextRun.UTC().Format(time.RFC3339)+" is left out: run "+r.name+" is not over")
		return t.save(ctx, p, func() { p.Status.NextRun = t.next(t.now) })
	}
	chosen, err := t.choose(ctx)
	if err != nil {
		return err
	}
	for _, a := range chosen {
		if err := t.create(ctx, why.run, a); err != nil {
			return err
		}
	}
	what, none := fmt.Sprintf("%d applications", len(chosen)), len(chosen) == 0
	if hasRepositories(p) {
		if err := t.createRepositories(ctx, why.run); err != nil {
			return err
		}
		what, none = what+" and its repositories", false
	}
	err = t.save(ctx, p, func() {
		at := metav1.NewTime(t.now)
		p.Status.LastRun, p.Status.NextRun, p.Status.RunNow, p.Status.Applications = &at, t.next(t.now), why.token, len(chosen)
		if none {
			judge(&p.Status.Conditions, p.Generation, t.now, verdict{metav1.ConditionFalse, false, false, "NotFound", "it selects no application"})
		}
	})
	switch {
	case err != nil:
		return err
	case none:
		t.tell(p, corev1.EventTypeWarning, "NotFound", "it selects no application")
	default:
		t.tell(p, corev1.EventTypeNormal, "Started", "run "+why.run+" backs up "+what)
	}
	return nil
}
