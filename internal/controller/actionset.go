package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

const (
	workActions = "actions"
	// annotationJob is on ActionSets that this controller took in, and names their Job. Published ActionSets have no field for it.
	annotationJob = v1alpha1.Group + "/job"

	actionsPerJob    = 5 // ActionSets run at once for each other Job: they wait more than they work
	defaultPhaseTime = 24 * time.Hour
	stopTime         = 20 * time.Minute // that the end of an ActionSet which is deleted under way may take; its deferPhase runs then
)

// actionSets work on ActionSets. The definition may be another's, and what it lets through may be anything: the cache holds metadata
// alone, and each ActionSet is read by itself, so that one which cannot be read stops no other.
type actionSets struct {
	*controller
}

func kanisterKind(kind string) schema.GroupVersionKind {
	return blueprint.GroupVersion.WithKind(kind)
}

// actionSetMetadata is a list of ActionSets, without what is in them.
func actionSetMetadata() *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kanisterKind("ActionSetList"))
	return list
}

// addActionSets starts the work on ActionSets when their definitions are there, be it later.
func (c *controller) addActionSets(m manager.Manager) error {
	a := actionSets{c}
	return c.whenServed(m, "ActionSets", func(ctx context.Context) error { return a.ready(ctx, m) }, a.watch)
}

// ready reports why ActionSets cannot be worked on: a controller that cannot list what it watches would end the whole process.
func (a actionSets) ready(ctx context.Context, m manager.Manager) error {
	for _, kind := range []string{"ActionSet", "Blueprint"} {
		gvk := kanisterKind(kind)
		if _, err := m.GetRESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
			return err
		}
	}
	return a.direct.List(ctx, actionSetMetadata(), client.Limit(1))
}

func (a actionSets) watch(m manager.Manager) error {
	set := &metav1.PartialObjectMetadata{}
	set.SetGroupVersionKind(kanisterKind("ActionSet"))
	return ctrl.NewControllerManagedBy(m).Named("actionset").
		For(set, builder.OnlyMetadata, builder.WithPredicates(predicate.NewPredicateFuncs(a.ours))).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(a.ofJob)).
		Complete(calmly(a.reconcile))
}

// ours reports whether an ActionSet is the controller's to run: not those of namespaces where another does, nor those that a worker made
// for a Backup or Restore, and runs itself.
func (a actionSets) ours(o client.Object) bool {
	_, made := o.GetLabels()[v1alpha1.LabelOwner]
	return !made && !slices.Contains(a.ForeignActionSets, o.GetNamespace())
}

// ofJob are the ActionSet of a Job and those that wait for it to end.
func (a actionSets) ofJob(ctx context.Context, j client.Object) []reconcile.Request {
	key, known := keyFor(j)
	if j.GetLabels()[LabelWork] != workActions || !known {
		return nil
	}
	requests := []reconcile.Request{{NamespacedName: key}}
	waiting, err := a.waiting(ctx)
	if err != nil {
		return requests // they look again by themselves
	}
	for _, w := range waiting {
		requests = append(requests, reconcile.Request{NamespacedName: w.key})
	}
	return requests
}

// waiting are the ActionSets that were taken in and have not ended, in the order in which they came.
func (a actionSets) waiting(ctx context.Context) ([]waiting, error) {
	all := actionSetMetadata()
	if err := a.client.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list ActionSets: %w", err)
	}
	sets := map[types.NamespacedName]waiting{}
	for i := range all.Items {
		set := &all.Items[i]
		if job := set.Annotations[annotationJob]; job != "" && a.ours(set) && controllerutil.ContainsFinalizer(set, v1alpha1.FinalizerRunning) {
			key := client.ObjectKeyFromObject(set)
			sets[key] = waiting{key, job, set.CreationTimestamp.Time}
		}
	}
	return inOrder(sets), nil
}

// actionSet is one ActionSet as it was read: object is all of it, and set what we know of it.
type actionSet struct {
	object *unstructured.Unstructured
	set    blueprint.ActionSet
}

func (s *actionSet) state() blueprint.State {
	if s.set.Status == nil {
		return ""
	}
	return s.set.Status.State
}

func (s *actionSet) deleted() bool { return !s.object.GetDeletionTimestamp().IsZero() }

// taken reports whether this controller, or an earlier one, took the ActionSet in.
func (s *actionSet) taken() bool { return s.object.GetAnnotations()[annotationJob] != "" }

func (s *actionSet) task() task {
	return task{work: workActions, key: client.ObjectKeyFromObject(s.object), uid: s.object.GetUID()}
}

func (a actionSets) reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	s := &actionSet{object: &unstructured.Unstructured{}}
	s.object.SetGroupVersionKind(kanisterKind("ActionSet"))
	if err := a.direct.Get(ctx, r.NamespacedName, s.object); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, a.discard(ctx, workActions, r.NamespacedName)
	}
	malformed := runtime.DefaultUnstructuredConverter.FromUnstructured(s.object.Object, &s.set)
	switch {
	case !a.ours(s.object):
		return reconcile.Result{}, nil
	case malformed != nil:
		state, _, _ := unstructured.NestedString(s.object.Object, "status", "state")
		if state == string(blueprint.StateFailed) {
			return reconcile.Result{}, a.release(ctx, s)
		}
		return reconcile.Result{}, a.fail(ctx, s, "Invalid", "it cannot be read: "+malformed.Error())
	case s.state().Final():
		return reconcile.Result{}, a.release(ctx, s)
	case !s.taken() && (s.state() == blueprint.StateRunning || s.deleted()):
		return reconcile.Result{}, nil // another runs it, or did
	case !s.taken():
		return reconcile.Result{}, a.admit(ctx, s)
	}
	return a.advance(ctx, s)
}

// admit takes an ActionSet in, or fails it at once where something is wrong with it.
func (a actionSets) admit(ctx context.Context, s *actionSet) error {
	if _, err := a.check(ctx, s); err != nil {
		class := fault.Of(err)
		if class.Retry || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			return err // what the API server said, not what is wrong
		}
		return a.fail(ctx, s, class.Reason, err.Error())
	}
	holds, err := a.holds(ctx, s.object.GetNamespace())
	if err != nil || !holds {
		return err
	}
	return a.mark(ctx, s.object, func() {
		annotations := s.object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationJob] = s.task().name()
		s.object.SetAnnotations(annotations)
		controllerutil.AddFinalizer(s.object, v1alpha1.FinalizerRunning)
		_ = unstructured.SetNestedField(s.object.Object, string(blueprint.StatePending), "status", "state") // it was read: a status is a map
	})
}

// check finds what is wrong with an ActionSet before any work is done for it, and the time that its actions may take.
func (a actionSets) check(ctx context.Context, s *actionSet) (time.Duration, error) {
	op := "ActionSet " + s.object.GetName()
	if s.set.Spec == nil || len(s.set.Spec.Actions) == 0 {
		return 0, fault.New(op, fault.ErrInvalid, "it has no actions", "")
	}
	var longest time.Duration
	for _, wanted := range s.set.Spec.Actions {
		if wanted.Name == "" || wanted.Blueprint == "" {
			return 0, fault.New(op, fault.ErrInvalid, "an action names no Blueprint, or has no name", "")
		}
		b, err := a.blueprint(ctx, op, s.object.GetNamespace(), wanted.Blueprint)
		if err != nil {
			return 0, err
		}
		action := b.Actions[wanted.Name]
		if action == nil {
			return 0, fault.New(op, fault.ErrNotFound, fmt.Sprintf("Blueprint %s has no action %q; it has %s", b.Name, wanted.Name, actionsOf(b)), "")
		}
		longest = max(longest, time.Duration(len(action.Phases)+1)*phaseTime(b)) // and its deferPhase
	}
	return longest, nil
}

func actionsOf(b *blueprint.Blueprint) string {
	return strings.Join(slices.Sorted(maps.Keys(b.Actions)), ", ")
}

// phaseTime is how long each phase of a Blueprint may take. Its worker says so where the text is none.
func phaseTime(b *blueprint.Blueprint) time.Duration {
	if span, err := time.ParseDuration(b.Annotations[blueprint.AnnotationDeadline]); err == nil && span > 0 {
		return span
	}
	return defaultPhaseTime
}

// blueprint reads a Blueprint. One that is not there is fault.ErrNotFound; one that cannot be read fault.ErrInvalid.
func (a actionSets) blueprint(ctx context.Context, op, namespace, name string) (*blueprint.Blueprint, error) {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kanisterKind("Blueprint"))
	err := a.direct.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, o)
	if apierrors.IsNotFound(err) {
		return nil, fault.New(op, fault.ErrNotFound, fmt.Sprintf("there is no Blueprint %s in namespace %s", name, namespace), "")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read Blueprint %s: %w", op, name, err)
	}
	var b blueprint.Blueprint
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &b)
	return &b, fault.Wrap(op+": read Blueprint "+name, fault.ErrInvalid, err, "")
}

// advance sees to it that a Job works on what was taken in, and fails what a Job can no longer end.
func (a actionSets) advance(ctx context.Context, s *actionSet) (reconcile.Result, error) {
	t := s.task()
	j, err := a.find(ctx, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	begun := s.state() == blueprint.StateRunning
	switch o := outcomeOf(j); {
	case s.deleted() && !begun && o.state == running:
		return reconcile.Result{}, a.stop(ctx, j) // and fail it when that is gone
	case s.deleted() && !begun:
		return reconcile.Result{}, a.fail(ctx, s, "Canceled", "it was deleted before it began")
	case s.deleted() && a.Now().Sub(s.object.GetDeletionTimestamp().Time) > stopTime:
		if err := a.stop(ctx, j); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{}, a.fail(ctx, s, "Canceled", "it was deleted while it ran, and does not end")
	case o.state == running && s.deleted(): // its worker sees to it
		return reconcile.Result{RequeueAfter: stopTime}, nil
	case o.state == running:
		return a.late(s, j, begun)
	case o.state == failed:
		return reconcile.Result{}, a.fail(ctx, s, o.reason, o.message)
	case o.state == succeeded:
		return reconcile.Result{}, a.fail(ctx, s, "Failed", "the worker ended without a word about it")
	}
	return a.begin(ctx, s, t)
}

// begin starts the Job of an ActionSet that has none, if it is its turn. It may have had one: a worker takes up what was begun.
func (a actionSets) begin(ctx context.Context, s *actionSet, t task) (reconcile.Result, error) {
	span, err := a.check(ctx, s)
	switch {
	case err != nil && s.state() == blueprint.StatePending && fault.Of(err).Reason == fault.Of(fault.ErrNotFound).Reason:
		return reconcile.Result{}, a.fail(ctx, s, fault.Of(err).Reason, err.Error()) // gone since
	case err != nil && !s.deleted():
		return reconcile.Result{}, err
	}
	t.deadline = span + jobGrace
	waiting, err := a.waiting(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	started, err := a.start(ctx, t, before(waiting, t.key))
	if err != nil {
		return reconcile.Result{}, err
	}
	if !started {
		return reconcile.Result{RequeueAfter: queueLook}, nil
	}
	a.tell(s.object, corev1.EventTypeNormal, "Started", "job "+t.name()+" in namespace "+a.System+" runs its actions")
	return reconcile.Result{}, nil
}

// late says so where a Job does not begin.
func (a actionSets) late(s *actionSet, j *batchv1.Job, begun bool) (reconcile.Result, error) {
	if begun {
		return reconcile.Result{}, nil
	}
	if left := startTime - a.Now().Sub(j.CreationTimestamp.Time); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	a.tell(s.object, corev1.EventTypeWarning, "NotStarted", "job "+j.Name+" does not begin; see `kubectl describe` of it and its pods")
	return reconcile.Result{RequeueAfter: startTime}, nil
}

// fail ends an ActionSet that no worker will end.
func (a actionSets) fail(ctx context.Context, s *actionSet, reason, message string) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(failedStatus(s.set.Status, shorten(message), a.Now()))
	if err != nil {
		return fmt.Errorf("write status of %s: %w", s.object.GetName(), err)
	}
	err = a.mark(ctx, s.object, func() { s.object.Object["status"] = content })
	if err == nil && !s.taken() { // what was taken in is told of when it is let go
		a.tell(s.object, corev1.EventTypeWarning, reason, message)
	}
	return err
}

// failedStatus is a status that says so. What ran is failed, and what did not begin stays pending.
func failedStatus(was *blueprint.ActionSetStatus, message string, now time.Time) *blueprint.ActionSetStatus {
	status := was.DeepCopy()
	if status == nil {
		status = &blueprint.ActionSetStatus{}
	}
	at := metav1.NewTime(now)
	status.State, status.Error.Message = blueprint.StateFailed, message
	status.Progress.RunningPhase, status.Progress.LastTransitionTime = "", &at
	failed := func(p *blueprint.PhaseStatus) {
		if p.State == blueprint.StateRunning {
			p.State = blueprint.StateFailed
		}
	}
	for i := range status.Actions {
		failed(&status.Actions[i].DeferPhase)
		for j := range status.Actions[i].Phases {
			failed(&status.Actions[i].Phases[j])
		}
	}
	return status
}

// release lets an ActionSet go that has ended, tells of it, and counts it.
func (a actionSets) release(ctx context.Context, s *actionSet) error {
	if !s.taken() {
		return nil
	}
	j, err := a.find(ctx, s.task())
	if err != nil {
		return err
	}
	if err := a.settle(ctx, j); err != nil || !controllerutil.ContainsFinalizer(s.object, v1alpha1.FinalizerRunning) {
		return err
	}
	err = a.mark(ctx, s.object, func() { controllerutil.RemoveFinalizer(s.object, v1alpha1.FinalizerRunning) })
	if err != nil {
		return err
	}
	var took time.Duration
	if j != nil {
		took = a.Now().Sub(j.CreationTimestamp.Time)
	}
	if s.set.Spec != nil {
		for _, action := range s.set.Spec.Actions {
			a.counted.act(action.Name, string(s.state()), took)
		}
	}
	if s.state() == blueprint.StateComplete {
		a.tell(s.object, corev1.EventTypeNormal, "Complete", "its actions are complete")
		return nil
	}
	message := "it failed"
	if s.set.Status != nil && s.set.Status.Error.Message != "" {
		message = s.set.Status.Error.Message
	}
	a.tell(s.object, corev1.EventTypeWarning, "Failed", message)
	return nil
}
