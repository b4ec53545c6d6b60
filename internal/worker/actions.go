package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// annotationWorker is on an ActionSet and says which process works on it. Who finds another's there has been replaced, and does no more:
// a process on a node that does not answer may live on beside the one that took its place.
const annotationWorker = v1alpha1.Group + "/worker"

// subjectArtifact is what points are of that an ActionSet makes by itself, not as a part of an application's.
const subjectArtifact = "artifact"

const (
	deletionLook = 3 * time.Second // between two looks of a worker whether its ActionSet is deleted
	mostLines    = 1000            // of what the pods of a phase say that are logged
)

// errReplaced ends work that another process has taken up.
var errReplaced = fault.New("write the status", fault.ErrBusy, "another worker has taken it up", "")

// actions is the work on one ActionSet.
type actions struct {
	*Worker
	id     string                     // of this process
	object *unstructured.Unstructured // all of it: what other tools wrote there stays
	set    *blueprint.ActionSet       // what we know of it
}

// Actions runs an ActionSet until it has ended. It returns an error where the work should be taken up again.
func (w *Worker) Actions(ctx context.Context, namespace, name string) error {
	o := kanister("ActionSet")
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, o); err != nil {
		return fault.Wrap(fmt.Sprintf("read ActionSet %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	a := &actions{Worker: w, id: rand.Text(), object: o, set: &blueprint.ActionSet{}}
	rights, err := w.tenant(namespace, "")
	if err != nil {
		return fault.Wrap("ActionSet "+name, nil, err, "")
	}
	if a.state().Final() {
		return a.clear(ctx, rights) // in the place of a process that was killed before it did
	}
	if err = a.claim(ctx); err == nil {
		err = a.prepared(ctx, rights)
	}
	switch {
	case errors.Is(err, errEnded):
		return nil
	case err == nil, errors.Is(err, errReplaced), again(ctx, err):
		return err
	}
	return a.abort(ctx, err)
}

// runActions runs an ActionSet that a worker made for itself to its end, from where its status stands; what became of it is in
// set.Status. An error means that it is to be taken up again.
func (w *Worker) runActions(
	ctx context.Context, set *blueprint.ActionSet, rights *kube.Cluster, blueprints map[string]*blueprint.Blueprint, o blueprint.ResolveOptions,
) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(set)
	if err != nil {
		return fault.Wrap("read ActionSet "+set.Name, fault.ErrInvalid, err, "")
	}
	object := kanister("ActionSet")
	object.SetUnstructuredContent(content)
	object.SetGroupVersionKind(blueprint.GroupVersion.WithKind("ActionSet"))
	a := &actions{Worker: w, id: rand.Text(), object: object, set: set}
	if a.state().Final() {
		return nil
	}
	if err := a.claim(ctx); err != nil {
		return err
	}
	return a.run(ctx, rights, blueprints, o)
}

// kanister is an empty object of one of Kanister's kinds.
func kanister(kind string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(blueprint.GroupVersion.WithKind(kind))
	return o
}

// state is the state that the object was last seen in.
func (a *actions) state() blueprint.State {
	text, _, _ := unstructured.NestedString(a.object.Object, "status", "state") // of another type: none that is final
	return blueprint.State(text)
}

// claim makes this process the one that works on the ActionSet.
func (a *actions) claim(ctx context.Context) error {
	return a.patch(ctx, func() {
		annotations := a.object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationWorker] = a.id
		a.object.SetAnnotations(annotations)
	})
}

// prepared reads what the ActionSet names, and runs it.
func (a *actions) prepared(ctx context.Context, rights *kube.Cluster) error {
	op := "ActionSet " + a.object.GetName()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(a.object.Object, a.set); err != nil {
		return fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	blueprints, err := a.blueprints(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	return a.run(ctx, rights, blueprints, blueprint.ResolveOptions{Confined: a.set.Namespace != a.System, Vault: a.vaultOf, Now: a.Now})
}

// run runs the actions with some rights. Points that they make by themselves are of their object.
func (a *actions) run(ctx context.Context, rights *kube.Cluster, blueprints map[string]*blueprint.Blueprint, o blueprint.ResolveOptions) error {
	runner := &blueprint.Runner{
		Functions: a.Functions(rights),
		Resolve: func(ctx context.Context, set *blueprint.ActionSet, action blueprint.ActionSpec, b *blueprint.Blueprint) (*blueprint.Params, error) {
			of := o
			of.Vault = func(ctx context.Context, namespace, location string) (*blueprint.VaultDocument, error) {
				d, err := o.Vault(ctx, namespace, location)
				if err == nil && d.Subject.Kind == "" {
					d.Subject = blueprint.VaultSubject{Kind: subjectArtifact, Name: strings.TrimPrefix(action.Object.Namespace+"/"+action.Object.Name, "/")}
				}
				return d, err
			}
			return blueprint.Resolve(ctx, rights, set, action, b, of)
		},
		Objects: func(ctx context.Context, set *blueprint.ActionSet, refs map[string]blueprint.ObjectReference) (*blueprint.PhaseParams, error) {
			return blueprint.ResolveObjects(ctx, rights, set, refs)
		},
		Save: a.save,
		Log:  a.linesTo(a.Log.With("actionset", a.set.Name)),
		Now:  a.Now,
	}
	deleted, done := a.watch(ctx)
	runner.Cancel = deleted
	err := runner.Run(ctx, a.set, blueprints)
	done()
	if err == nil {
		err = a.clear(ctx, rights)
	}
	return err
}

// linesTo logs what pods of phases say, the first of it: some dump a database there.
func (a *actions) linesTo(log *slog.Logger) func(action, phase, line string) {
	var mu sync.Mutex // actions run side by side
	said := map[[2]string]int{}
	return func(action, phase, line string) {
		mu.Lock()
		defer mu.Unlock()
		key := [2]string{action, phase}
		switch said[key]++; {
		case said[key] <= mostLines:
			log.Info("a pod said", "action", action, "phase", phase, "line", line)
		case said[key] == mostLines+1:
			log.Info("what it says after this is not logged", "action", action, "phase", phase)
		}
	}
}

// watch looks whether the ActionSet is deleted, until done is called. It closes the channel then.
func (a *actions) watch(ctx context.Context) (deleted <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen, ended := make(chan struct{}), make(chan struct{})
	key, uid := client.ObjectKeyFromObject(a.object), a.object.GetUID()
	go func() {
		defer close(ended)
		for {
			o := &metav1.PartialObjectMetadata{}
			o.SetGroupVersionKind(blueprint.GroupVersion.WithKind("ActionSet"))
			err := a.Cluster.Client.Get(ctx, key, o)
			if apierrors.IsNotFound(err) || err == nil && (o.UID != uid || !o.DeletionTimestamp.IsZero()) {
				close(seen)
				return
			}
			if kube.Pause(ctx, deletionLook) != nil { // what cannot be read now is read then
				return
			}
		}
	}()
	return seen, func() {
		cancel()
		<-ended
	}
}

// clear deletes the pods that were made for phases and are still there: a process that is killed cleans up nothing, and neither does a
// phase that is not taken up again. What else was made for a phase goes with its pod.
func (a *actions) clear(ctx context.Context, rights *kube.Cluster) error {
	var pods corev1.PodList
	if err := a.Cluster.Client.List(ctx, &pods, client.MatchingLabels{blueprint.LabelActionSet: string(a.object.GetUID())}); err != nil {
		return fault.Wrap("list pods of phases", kube.ClassOf(err), err, "")
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if err := rights.Client.Delete(ctx, p); err != nil && !apierrors.IsNotFound(err) {
			a.Log.Warn("a pod of a phase is left", "namespace", p.Namespace, "pod", p.Name, "error", err.Error()) // tidying tries again
		}
	}
	return nil
}

// vaultOf is how kando reaches the vault of a Location, for Profiles that stand for one. Where there is no vault yet it is made.
func (w *Worker) vaultOf(ctx context.Context, namespace, location string) (*blueprint.VaultDocument, error) {
	store, l, err := w.open(ctx, namespace, location, true)
	if err != nil {
		return nil, err
	}
	if err := store.Close(ctx); err != nil {
		return nil, fault.Wrap("close location "+location, nil, err, "")
	}
	return &blueprint.VaultDocument{URL: l.URL, Password: l.Password, OtherPassword: l.OtherPassword, Credentials: l.Credentials}, nil
}

// blueprints are those that the ActionSet names, of its own namespace.
func (a *actions) blueprints(ctx context.Context) (map[string]*blueprint.Blueprint, error) {
	all := map[string]*blueprint.Blueprint{}
	if a.set.Spec == nil {
		return all, nil
	}
	for _, action := range a.set.Spec.Actions {
		o, b := kanister("Blueprint"), &blueprint.Blueprint{}
		op := "read Blueprint " + action.Blueprint
		if err := a.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: a.set.Namespace, Name: action.Blueprint}, o); err != nil {
			return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, b); err != nil {
			return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
		}
		all[action.Blueprint] = b
	}
	return all, nil
}

// save makes a status last.
func (a *actions) save(ctx context.Context, status *blueprint.ActionSetStatus) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return fmt.Errorf("write status of %s: %w", a.object.GetName(), err)
	}
	return a.patch(ctx, func() { a.object.Object["status"] = content })
}

// patch changes the object, and goes on trying while the API server is away. ActionSets have no status of their own to write to, so what
// others wrote beside must stay. It fails where the controller, or another worker, has taken over.
func (a *actions) patch(ctx context.Context, change func()) error {
	op := "write status of " + a.object.GetName()
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		before := a.object.DeepCopy()
		change()
		err := a.Cluster.Client.Patch(ctx, a.object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if err == nil {
			return nil
		}
		a.object = before
		if apierrors.IsConflict(err) {
			if err = a.refresh(ctx); err == nil {
				continue
			}
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case apierrors.IsNotFound(err):
			return errEnded
		case errors.Is(err, errEnded), errors.Is(err, errReplaced):
			return err
		case !kube.Transient(err):
			return fault.Wrap(op, kube.ClassOf(err), err, "")
		}
		a.Log.Warn("the API server does not answer; trying again", "error", err.Error())
		if err := kube.Pause(ctx, wait); err != nil {
			return context.Cause(ctx)
		}
	}
}

// refresh reads the object again, and reports whether it is still this process's to work on.
func (a *actions) refresh(ctx context.Context) error {
	fresh := kanister("ActionSet")
	if err := a.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(a.object), fresh); err != nil {
		return err
	}
	claimed := a.object.GetAnnotations()[annotationWorker] == a.id
	same := fresh.GetUID() == a.object.GetUID()
	a.object = fresh
	switch {
	case !same, a.state().Final():
		return errEnded
	case claimed && fresh.GetAnnotations()[annotationWorker] != a.id:
		return errReplaced
	}
	return nil
}

// abort ends the ActionSet as failed for a reason that lies outside its phases.
func (a *actions) abort(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	err := a.patch(ctx, func() {
		status, _, _ := unstructured.NestedMap(a.object.Object, "status") // of another type: it is replaced
		if status == nil {
			status = map[string]any{}
		}
		status["state"] = string(blueprint.StateFailed)
		status["error"] = map[string]any{"message": shorten(why.Error())}
		status["progress"] = map[string]any{"lastTransitionTime": a.Now().UTC().Format(time.RFC3339)}
		a.object.Object["status"] = status
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// clearPhases deletes the pods of phases whose ActionSets have ended or are gone.
func (w *Worker) clearPhases(ctx context.Context) error {
	var pods corev1.PodList
	if err := w.Cluster.Client.List(ctx, &pods, client.HasLabels{blueprint.LabelActionSet}); err != nil {
		return fault.Wrap("list pods of phases", kube.ClassOf(err), err, "")
	}
	if len(pods.Items) == 0 {
		return nil
	}
	running, err := w.runningActionSets(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for i := range pods.Items {
		if p := &pods.Items[i]; !running[p.Labels[blueprint.LabelActionSet]] {
			failed = append(failed, ignoreRace(w.Cluster.Client.Delete(ctx, p, client.Preconditions{UID: &p.UID})))
		}
	}
	return errors.Join(failed...)
}

// runningActionSets are the uids of ActionSets that have not ended.
func (w *Worker) runningActionSets(ctx context.Context) (map[string]bool, error) {
	all := &metav1.PartialObjectMetadataList{}
	all.SetGroupVersionKind(blueprint.GroupVersion.WithKind("ActionSetList"))
	err := w.Cluster.Client.List(ctx, all)
	if err != nil && !meta.IsNoMatchError(err) {
		return nil, fault.Wrap("list ActionSets", kube.ClassOf(err), err, "")
	}
	running := map[string]bool{}
	for i := range all.Items {
		a := &actions{object: kanister("ActionSet")}
		switch err := w.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(&all.Items[i]), a.object); {
		case err == nil:
			running[string(a.object.GetUID())] = !a.state().Final()
		case !apierrors.IsNotFound(err):
			return nil, fault.Wrap("read ActionSet "+all.Items[i].Name, kube.ClassOf(err), err, "")
		}
	}
	return running, nil
}
