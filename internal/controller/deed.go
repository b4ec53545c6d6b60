package controller

import (
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
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// deed is a Backup, a Restore or a Drill: what a Job works on. The controller writes Pending, and Failed where the Job cannot; everything else in
// the status is the worker's.
type deed struct {
	object     client.Object
	spans      string // its deadline, as written
	conditions *[]metav1.Condition
	observed   *int64
	phase      *v1alpha1.Phase
	started    *metav1.Time
	finished   **metav1.Time
	job        *string
	problems   *[]string
	rests      bool // its hooks are not undone
}

func deedOfBackup(b *v1alpha1.Backup) deed {
	s := &b.Status
	return deed{b, b.Spec.Deadline, &s.Conditions, &s.ObservedGeneration, &s.Phase, s.Started, &s.Finished, &s.Job, &s.Problems, len(s.Resting) > 0}
}

func deedOfRestore(r *v1alpha1.Restore) deed {
	s := &r.Status
	return deed{r, r.Spec.Deadline, &s.Conditions, &s.ObservedGeneration, &s.Phase, s.Started, &s.Finished, &s.Job, &s.Problems, false}
}

const (
	defaultDeadline = 4 * time.Hour
	patience        = time.Minute      // for a location or a policy that is created after what names it
	releaseTime     = 10 * time.Minute // after which nothing of ours keeps an object from being deleted
	startTime       = 5 * time.Minute  // for a Job to begin
	conflictPause   = 100 * time.Millisecond
	maxProblem      = 1000 // bytes of a message in a status
)

func (d deed) deleted() bool { return !d.object.GetDeletionTimestamp().IsZero() }

// deadline is the time that the work may take. Both kinds check the text on admission.
func (d deed) deadline() time.Duration {
	if span, err := time.ParseDuration(d.spans); err == nil && span > 0 {
		return span
	}
	return defaultDeadline
}

// save writes a status as change makes it. It fails where somebody else wrote meanwhile: what was decided was decided on another.
func (c *controller) save(ctx context.Context, o client.Object, change func()) error {
	before, _ := o.DeepCopyObject().(client.Object) // a copy of an object is one
	change()
	err := c.client.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of %s: %w", o.GetName(), err)
	}
	return nil
}

// mark changes an object's metadata.
func (c *controller) mark(ctx context.Context, o client.Object, change func()) error {
	before, _ := o.DeepCopyObject().(client.Object) // a copy of an object is one
	change()
	err := c.client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("mark %s: %w", o.GetName(), err)
	}
	return nil
}

// calmly has a reconciler look again without a word where somebody else wrote at the same time, or where the process is to end.
func calmly(look reconcile.Func) reconcile.Func {
	return func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
		result, err := look(ctx, r)
		if apierrors.IsConflict(err) || err != nil && ctx.Err() != nil {
			return reconcile.Result{RequeueAfter: conflictPause}, nil
		}
		return result, err
	}
}

// tell makes an event that the user sees with the object, and a line in the log.
func (c *controller) tell(o client.Object, kind, reason, message string) {
	c.Log.Info(message, "namespace", o.GetNamespace(), "name", o.GetName(), "reason", reason) //nolint:sloglint // the text is what is to be told
	c.events.Event(o, kind, reason, shorten(message))
}

func shorten(text string) string {
	if len(text) > maxProblem {
		return strings.ToValidUTF8(text[:maxProblem], "") // it may be cut within a letter
	}
	return text
}

// verdict is what conditions say, as kstatus reads them.
type verdict struct {
	ready       metav1.ConditionStatus
	reconciling bool
	stalled     bool
	reason      string
	message     string
}

// judge sets the three conditions.
func judge(conditions *[]metav1.Condition, generation int64, now time.Time, v verdict) {
	set := func(kind string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: kind, Status: status, Reason: v.reason, Message: shorten(v.message), ObservedGeneration: generation,
			LastTransitionTime: metav1.NewTime(now),
		})
	}
	set(v1alpha1.ConditionReady, v.ready)
	set(v1alpha1.ConditionReconciling, truth(v.reconciling))
	set(v1alpha1.ConditionStalled, truth(v.stalled))
}

func truth(is bool) metav1.ConditionStatus {
	if is {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// judged reports whether conditions say so already.
func judged(conditions []metav1.Condition, generation int64, v verdict) bool {
	for kind, status := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReady: v.ready, v1alpha1.ConditionReconciling: truth(v.reconciling), v1alpha1.ConditionStalled: truth(v.stalled),
	} {
		have := meta.FindStatusCondition(conditions, kind)
		if have == nil || have.Status != status || have.Reason != v.reason || have.Message != shorten(v.message) || have.ObservedGeneration != generation {
			return false
		}
	}
	return true
}

// fail ends a deed that no worker will end.
func (c *controller) fail(ctx context.Context, d deed, reason, message string) error {
	now := metav1.NewTime(c.Now())
	err := c.save(ctx, d.object, func() {
		*d.phase, *d.finished, *d.observed = v1alpha1.PhaseFailed, &now, d.object.GetGeneration()
		*d.problems = append(*d.problems, shorten(message))
		judge(d.conditions, d.object.GetGeneration(), now.Time, verdict{metav1.ConditionFalse, false, true, reason, message})
	})
	if err == nil {
		c.tell(d.object, corev1.EventTypeWarning, reason, message)
	}
	return err
}

// admit takes a deed in: its finalizer, its label, and if nothing is wrong with it the phase Pending. It says how long to wait for what
// it names and is not there yet.
func (c *controller) admit(ctx context.Context, d deed, run, job string, check func() error) (reconcile.Result, error) {
	if d.deleted() && !controllerutil.ContainsFinalizer(d.object, v1alpha1.FinalizerRunning) {
		return reconcile.Result{}, nil
	}
	if !d.deleted() && (!controllerutil.ContainsFinalizer(d.object, v1alpha1.FinalizerRunning) || run != "" && d.object.GetLabels()[v1alpha1.LabelRun] != run) {
		if holds, err := c.holds(ctx, d.object.GetNamespace()); !holds || err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, c.mark(ctx, d.object, func() {
			controllerutil.AddFinalizer(d.object, v1alpha1.FinalizerRunning)
			if run != "" {
				labels := d.object.GetLabels()
				if labels == nil {
					labels = map[string]string{}
				}
				labels[v1alpha1.LabelRun] = run
				d.object.SetLabels(labels)
			}
		})
	}
	if *d.phase != "" {
		return reconcile.Result{}, nil
	}
	if d.deleted() {
		return reconcile.Result{}, c.fail(ctx, d, "Canceled", "it was deleted before it began")
	}
	generation := d.object.GetGeneration()
	if err := check(); err != nil {
		return c.refuse(ctx, d, err)
	}
	return reconcile.Result{}, c.save(ctx, d.object, func() {
		*d.phase, *d.job, *d.observed = v1alpha1.PhasePending, job, generation
		judge(d.conditions, generation, c.Now(), verdict{metav1.ConditionFalse, true, false, "Pending", "waits for its Job"})
	})
}

// refuse ends a deed for which something is wrong, but for what is not there: that may be created a moment later. An error without a
// class is the API server's answer, not the user's mistake.
func (c *controller) refuse(ctx context.Context, d deed, problem error) (reconcile.Result, error) {
	class := fault.Of(problem)
	if class.Retry || class.Exit == fault.Of(errors.New("no class")).Exit {
		return reconcile.Result{}, problem
	}
	wait := patience - c.Now().Sub(d.object.GetCreationTimestamp().Time)
	if !errors.Is(problem, fault.ErrNotFound) || wait <= 0 {
		return reconcile.Result{}, c.fail(ctx, d, class.Reason, problem.Error())
	}
	result := reconcile.Result{RequeueAfter: wait} // or when it is created
	v := verdict{metav1.ConditionFalse, true, false, class.Reason, problem.Error()}
	if judged(*d.conditions, d.object.GetGeneration(), v) {
		return result, nil
	}
	return result, c.save(ctx, d.object, func() { judge(d.conditions, d.object.GetGeneration(), c.Now(), v) })
}

// advance brings a task one step on: its Job is started for what is open, and what a Job can no longer end is failed.
func (c *controller) advance(ctx context.Context, t task, all []deed, before func() ([]waiting, error)) (reconcile.Result, error) {
	var open, deleted []deed
	explained := false // an absent Job: it was stopped for one of these
	for _, d := range all {
		explained = explained || d.deleted()
		switch {
		case *d.phase == "" || d.phase.Final():
		case d.deleted():
			deleted = append(deleted, d)
		default:
			open = append(open, d)
		}
	}
	j, err := c.find(ctx, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	o := outcomeOf(j)
	switch {
	case len(open)+len(deleted) == 0:
		return reconcile.Result{}, c.settle(ctx, j)
	case o.state == running && len(deleted) > 0:
		return c.stopFor(ctx, deleted, func() error { return c.stop(ctx, j) })
	case o.state == running:
		return c.watch(ctx, open, j)
	}
	if err := c.failAll(ctx, deleted, "Canceled", "it was deleted while it ran"); err != nil {
		return reconcile.Result{}, err
	}
	switch o.state {
	case failed:
		return reconcile.Result{}, c.failAll(ctx, open, o.reason, o.message)
	case succeeded:
		if yielded(j, open) {
			return reconcile.Result{}, c.stop(ctx, j)
		}
		return c.afterwards(ctx, open, o, func() error { return c.stop(ctx, j) })
	}
	var waiting []deed
	for _, d := range open {
		if d.started == nil || explained {
			waiting = append(waiting, d)
		} else if err := c.fail(ctx, d, "JobLost", "its Job is gone"); err != nil {
			return reconcile.Result{}, err
		}
	}
	if len(waiting) == 0 {
		return reconcile.Result{}, nil
	}
	ahead, err := before()
	if err != nil {
		return reconcile.Result{}, err
	}
	t.deadline = timeFor(waiting)
	started, err := c.start(ctx, t, ahead)
	if err != nil || started {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: queueLook}, nil
}

// watch says so where a Job does not begin: an image that cannot be pulled, a quota, no room on any node.
func (c *controller) watch(ctx context.Context, open []deed, j *batchv1.Job) (reconcile.Result, error) {
	if left := startTime - c.Now().Sub(j.CreationTimestamp.Time); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	v := verdict{metav1.ConditionFalse, true, false, "NotStarted", fmt.Sprintf("job %s does not begin; see `kubectl describe` of it and its pods", j.Name)}
	for _, d := range open {
		generation := d.object.GetGeneration()
		if d.started != nil || judged(*d.conditions, generation, v) {
			continue
		}
		if err := c.save(ctx, d.object, func() { judge(d.conditions, generation, c.Now(), v) }); err != nil {
			return reconcile.Result{}, err
		}
		c.tell(d.object, corev1.EventTypeWarning, v.reason, v.message)
	}
	return reconcile.Result{}, nil
}

// stopFor stops a Job for the sake of deeds that are deleted. One whose pods do not end is not waited for without end.
func (c *controller) stopFor(ctx context.Context, deleted []deed, stop func() error) (reconcile.Result, error) {
	if err := stop(); err != nil {
		return reconcile.Result{}, err
	}
	wait := releaseTime
	for _, d := range deleted {
		left := releaseTime - c.Now().Sub(d.object.GetDeletionTimestamp().Time)
		if left > 0 {
			wait = min(wait, left)
			continue
		}
		if err := c.fail(ctx, d, "Canceled", "it was deleted while it ran, and its Job does not stop"); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// afterwards deals with what is open though the Job is done: what came too late gets another, the rest was forgotten.
func (c *controller) afterwards(ctx context.Context, open []deed, o outcome, remove func() error) (reconcile.Result, error) {
	for _, d := range open {
		if !d.object.GetCreationTimestamp().Time.Before(o.began) {
			return reconcile.Result{}, remove()
		}
	}
	return reconcile.Result{}, c.failAll(ctx, open, "Failed", "the worker ended without a word about it")
}

func (c *controller) failAll(ctx context.Context, deeds []deed, reason, message string) error {
	for _, d := range deeds {
		if err := c.fail(ctx, d, reason, message); err != nil {
			return err
		}
	}
	return nil
}

// timeFor is how long a Job may take over deeds, of which several may wait for each other.
func timeFor(deeds []deed) time.Duration {
	var sum, longest time.Duration
	for _, d := range deeds {
		sum += d.deadline()
		longest = max(longest, d.deadline())
	}
	return min(sum, max(longest, maxRunTime)) + jobGrace
}

// release takes the finalizer off a deed that has ended: at once where its worker saw to everything, else when it was tidied up after,
// and in any case after a while.
func (c *controller) release(ctx context.Context, d deed) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(d.object, v1alpha1.FinalizerRunning) {
		return reconcile.Result{}, nil
	}
	if (*d.phase == v1alpha1.PhaseFailed || d.rests) && *d.finished != nil {
		ended := (*d.finished).Time
		tidy, err := c.tidiedSince(ctx, ended)
		if err != nil {
			return reconcile.Result{}, err
		}
		tidy = tidy && !d.rests
		if left := releaseTime - c.Now().Sub(ended); !tidy && left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		} else if !tidy {
			c.tell(d.object, corev1.EventTypeWarning, "Untidy", "what it left on the cluster could not be put right yet; `worker tidy` tries again")
		}
	}
	err := c.mark(ctx, d.object, func() { controllerutil.RemoveFinalizer(d.object, v1alpha1.FinalizerRunning) })
	ready := meta.FindStatusCondition(*d.conditions, v1alpha1.ConditionReady)
	if err == nil && ready != nil && ready.Status == metav1.ConditionFalse { // once: only who takes the finalizer off comes here
		c.tell(d.object, corev1.EventTypeWarning, ready.Reason, ready.Message)
	}
	return reconcile.Result{}, err
}

// requestFor is the reconciler's request of an object.
func requestFor(o client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// requestsFor asks for another look at those of a list that are wanted.
func requestsFor[T any, P interface {
	*T
	client.Object
}](items []T, wanted func(P) bool) []reconcile.Request {
	var requests []reconcile.Request
	for i := range items {
		if o := P(&items[i]); wanted(o) {
			requests = append(requests, requestFor(o))
		}
	}
	return requests
}

// A lister lists the deeds of one kind.
type lister func(ctx context.Context, of ...client.ListOption) ([]deed, error)

func deedsOf[T any](items []T, of func(*T) deed) []deed {
	deeds := make([]deed, len(items))
	for i := range items {
		deeds[i] = of(&items[i])
	}
	return deeds
}

func taskOf(work string, o client.Object) task {
	return task{work: work, key: client.ObjectKeyFromObject(o), uid: o.GetUID()}
}

// ofJob finds the deed of a Job of that work, or of more that is done for it, and those that wait for it to end, and those that the end of
// tidying may let go.
func ofJob(list lister, work string, more ...string) handler.MapFunc {
	return func(ctx context.Context, j client.Object) []reconcile.Request {
		var requests []reconcile.Request
		done := j.GetLabels()[LabelWork]
		if key, known := keyFor(j); known && (done == work || slices.Contains(more, done)) {
			requests = append(requests, reconcile.Request{NamespacedName: key})
		}
		all, err := list(ctx)
		if err != nil {
			return requests // they look again by themselves
		}
		for _, d := range all {
			untidy := done == workTidy && *d.phase == v1alpha1.PhaseFailed && len(d.object.GetFinalizers()) > 0
			if untidy || done == work && *d.phase == v1alpha1.PhasePending {
				requests = append(requests, requestFor(d.object))
			}
		}
		return requests
	}
}

// untaken finds the deeds that may have waited for an object of their namespace to be there.
func untaken(list lister) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		var requests []reconcile.Request
		all, err := list(ctx, client.InNamespace(o.GetNamespace()))
		if err != nil {
			return nil // they look again by themselves
		}
		for _, d := range all {
			if *d.phase == "" {
				requests = append(requests, requestFor(d.object))
			}
		}
		return requests
	}
}

// ahead are the tasks of the same work that have waited longer.
func ahead(ctx context.Context, list lister, t task) ([]waiting, error) {
	all, err := list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list what waits for a %s: %w", t.work, err)
	}
	wait := map[types.NamespacedName]waiting{}
	for _, d := range all {
		if *d.phase == v1alpha1.PhasePending && d.started == nil && !d.deleted() {
			other := taskOf(t.work, d.object)
			wait[other.key] = waiting{other.key, other.name(), d.object.GetCreationTimestamp().Time}
		}
	}
	return before(inOrder(wait), t.key), nil
}
