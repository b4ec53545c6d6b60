package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// labelPhase is on the pods that are made for phases, beside blueprint.LabelActionSet: it is Call.ID.
const labelPhase = "backstay.io/phase"

// container is what the container of a pod is called that has one: podOverrides of published Blueprints name it.
const container = "container"

// How long something may keep a pod from starting before the phase fails by it.
const (
	imageGrace    = time.Minute      // a registry, or a Secret that is about to be made
	scheduleGrace = 10 * time.Minute // a node that is being added
)

// cleanTime is what removing a pod may take, whose phase is over.
const cleanTime = 30 * time.Second

// newPod makes a phase's pod of its arguments: podOverride, podLabels and podAnnotations. Of the overrides the ActionSet's holds, of labels
// and annotations the Blueprint's.
func (o Options) newPod(c blueprint.Call, spec corev1.PodSpec) (*corev1.Pod, error) {
	args := arguments(c.Args)
	namespace, err := args.text("namespace")
	if err != nil {
		return nil, err
	}
	if namespace == "" {
		namespace = c.Namespace
	}
	var override map[string]any
	if err := args.into("podOverride", &override); err != nil {
		return nil, args.wrong("podOverride", "a map")
	}
	for _, patch := range []map[string]any{override, c.Params.PodOverride} {
		if spec, err = merge(spec, patch); err != nil {
			return nil, err
		}
	}
	spec.RestartPolicy = corev1.RestartPolicyNever
	if spec.ServiceAccountName == "" && namespace == o.System {
		spec.ServiceAccountName = o.ServiceAccount
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "backstay-" + c.ID},
		Spec:       spec,
	}
	if pod.Labels, err = joined(args, "podLabels", c.Params.PodLabels); err != nil {
		return nil, err
	}
	if pod.Annotations, err = joined(args, "podAnnotations", c.Params.PodAnnotations); err != nil {
		return nil, err
	}
	mark(pod, c)
	return pod, nil
}

// joined is a map of an argument, over one of the ActionSet's.
func joined(args arguments, name string, under map[string]string) (map[string]string, error) {
	over, err := args.table(name)
	all := map[string]string{}
	maps.Copy(all, under)
	maps.Copy(all, over)
	return all, err
}

// mark tells whose an object is that is made for a phase.
func mark(object client.Object, c blueprint.Call) {
	labels := object.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelPhase] = c.ID
	if c.Owner.UID != "" {
		labels[blueprint.LabelActionSet] = string(c.Owner.UID)
		if object.GetNamespace() == c.Namespace {
			object.SetOwnerReferences([]metav1.OwnerReference{c.Owner})
		}
	}
	object.SetLabels(labels)
}

// merge puts an override into the specification of a pod, as kubectl patch does.
func merge(spec corev1.PodSpec, override map[string]any) (corev1.PodSpec, error) {
	const op = "merge podOverride"
	if len(override) == 0 {
		return spec, nil
	}
	before, err := json.Marshal(spec)
	if err != nil {
		return spec, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	patch, err := json.Marshal(override)
	if err != nil {
		return spec, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.PodSpec{})
	if err != nil {
		return spec, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	var merged corev1.PodSpec
	err = json.Unmarshal(after, &merged)
	return merged, fault.Wrap(op, fault.ErrInvalid, err, "")
}

// runPod runs a pod to its end and returns what one of its containers put out. A pod that an earlier run of the phase began is taken over.
// It is removed afterwards, unless this process is only told to stop: then another one takes it over.
func (o Options) runPod(ctx context.Context, c blueprint.Call, pod *corev1.Pod, main string) (map[string]any, error) {
	op := fmt.Sprintf("run pod %s/%s", pod.Namespace, pod.Name)
	result, err := o.follow(ctx, c, pod, main)
	err = fault.Wrap(op, nil, err, "")
	remove := func(ctx context.Context) error { return fault.Wrap(op, nil, o.removePod(ctx, pod), "") }
	switch {
	case resumed(ctx):
	case c.After != nil:
		c.After(remove)
	default:
		err = errors.Join(err, remove(ctx))
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// resumed reports whether what ends with ctx is taken up by another process: this one was told to stop. What took too long, or was called
// off by an error that stays, is not.
func resumed(ctx context.Context) bool {
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return false
	}
	const none, canceled = 1, 130 // exit statuses: of errors without a class, and of context.Canceled
	class := fault.Of(context.Cause(ctx))
	return class.Retry || class.Exit == none || class.Exit == canceled
}

// follow starts a pod, or takes it over, and reads the log of one container until the pod has ended.
func (o Options) follow(ctx context.Context, c blueprint.Call, pod *corev1.Pod, main string) (map[string]any, error) {
	if err := o.mountProfile(ctx, c, pod); err != nil {
		return nil, err
	}
	if err := o.ensurePod(ctx, c, pod); err != nil {
		return nil, err
	}
	if err := o.ownProfile(ctx, pod); err != nil {
		return nil, err
	}
	if err := o.started(ctx, pod, main); err != nil {
		return nil, err
	}
	said := newOutputs(c.Log)
	if err := o.readLog(ctx, c, pod, main, said); err != nil {
		return nil, err
	}
	err := o.await(ctx, func(ctx context.Context) (bool, error) {
		err := o.look(ctx, pod)
		return err == nil && over(pod), err
	})
	if err != nil {
		return nil, err
	}
	result, err := said.result()
	if pod.Status.Phase == corev1.PodFailed {
		return nil, o.failure(ctx, pod, result)
	}
	return result, err
}

// podFailed is the end of a pod that ended badly, and what it put out before.
type podFailed struct {
	text   string
	result map[string]any
}

func (p *podFailed) Error() string { return p.text }

// ensurePod creates a pod, or finds the one of an earlier run of the phase. One that is being deleted is waited for.
func (o Options) ensurePod(ctx context.Context, c blueprint.Call, pod *corev1.Pod) error {
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		made := pod.DeepCopy()
		err := o.Cluster.Client.Create(ctx, made)
		if apierrors.IsAlreadyExists(err) {
			if err = kube.Refresh(ctx, o.Cluster.Client, made); apierrors.IsNotFound(err) {
				return false, nil // it went in between
			}
		}
		switch {
		case err != nil:
			return false, err
		case made.Labels[labelPhase] != c.ID:
			return false, fault.New("", fault.ErrExists, "there is a pod of that name that is not of this phase", "delete it")
		case made.DeletionTimestamp != nil:
			return false, nil
		}
		*pod = *made
		return true, nil
	})
}

// look reads a pod again. One that is gone, or another one under its name, is an error.
func (o Options) look(ctx context.Context, pod *corev1.Pod) error {
	uid := pod.UID
	err := kube.Refresh(ctx, o.Cluster.Client, pod)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != uid {
		return fault.New("", fault.ErrRefused, "somebody deleted the pod before it had ended", "")
	}
	if err == nil && !over(pod) && pod.DeletionTimestamp != nil && o.Now().Sub(pod.DeletionTimestamp.Time) > patience {
		return fault.New("", fault.ErrUnavailable, "the pod was deleted, and its node does not end it: "+pod.Spec.NodeName, "look after the node")
	}
	return err
}

// started waits until a container runs, or the pod has ended.
func (o Options) started(ctx context.Context, pod *corev1.Pod, main string) error {
	var before hindrance
	var since time.Time
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := o.look(ctx, pod); err != nil {
			return false, err
		}
		if state := stateOf(pod, main); state.Running != nil || state.Terminated != nil || over(pod) {
			return true, nil
		}
		now := hindranceOf(pod)
		if now.what != before.what {
			since = o.Now()
		}
		before = now
		if now.what == "" || o.Now().Sub(since) < now.grace {
			return false, nil
		}
		return false, fault.New("", fault.ErrRefused, "it cannot start: "+now.why, now.hint)
	})
}

// hindrance is what keeps a pod from starting, and how long that may be.
type hindrance struct {
	what, why, hint string
	grace           time.Duration
}

// hindranceOf finds what keeps a pod from starting that does not look as if it will pass by itself.
func hindranceOf(pod *corev1.Pod) hindrance {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return hindrance{"node", "no node takes it: " + c.Message, "", scheduleGrace}
		}
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.State.Waiting == nil {
			continue
		}
		why := strings.TrimSpace(fmt.Sprintf("%s %s", c.State.Waiting.Reason, c.State.Waiting.Message))
		switch c.State.Waiting.Reason {
		case "InvalidImageName", "ErrImageNeverPull":
			return hindrance{"image", "image " + c.Image + ": " + why, "name an image that the nodes can pull", 0}
		case "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable":
			return hindrance{"image", "image " + c.Image + ": " + why, "name an image that the nodes can pull", imageGrace}
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError":
			return hindrance{"container", "container " + c.Name + ": " + why, "", imageGrace}
		}
	}
	return hindrance{}
}

// stateOf is how a container is.
func stateOf(pod *corev1.Pod, name string) corev1.ContainerState {
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == name {
			return c.State
		}
	}
	return corev1.ContainerState{}
}

// readLog reads the log of a container to its end, from the beginning each time that the connection breaks: outputs may come twice. The
// end of the log is what is read once the container is known to have ended.
func (o Options) readLog(ctx context.Context, c blueprint.Call, pod *corev1.Pod, name string, said *outputs) error {
	var logged int64
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := o.look(ctx, pod); err != nil {
			return false, err
		}
		state := stateOf(pod, name)
		if over(pod) && state.Terminated == nil {
			return true, nil // it never ran, or the node has forgotten it
		}
		if !over(pod) && anotherFailed(pod, name) {
			return false, o.failure(ctx, pod, nil) // what shares the pod with it waits in vain
		}
		to := said.stream()
		to.quiet = logged
		whole, err := o.copyLog(ctx, c, pod, name, to)
		logged = max(logged, to.read)
		if err != nil || !whole || state.Terminated == nil {
			return false, err
		}
		to.close()
		return true, nil
	})
}

// copyLog follows a log for as long as the connection, the pod, and what shares the pod with the container hold. It reports whether it
// came to the end that the node gave it.
func (o Options) copyLog(ctx context.Context, c blueprint.Call, pod *corev1.Pod, name string, to *stream) (whole bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	log, err := o.Cluster.Log(ctx, pod.Namespace, pod.Name, name, true)
	if err != nil {
		stop()
		return false, cause(err)
	}
	defer log.Close()
	var watching sync.WaitGroup
	watching.Go(func() {
		defer stop()
		o.watch(ctx, c, pod.DeepCopy(), name, to.outputs)
	})
	_, broken := io.Copy(to, log) // the reason shows when the pod is looked at, or passes
	stop()
	watching.Wait()
	return broken == nil, nil
}

// watch returns when nothing more comes from a log. Meanwhile it saves what was put out: nodes keep the end of long logs only, and a
// process that takes the pod over would not find it there.
func (o Options) watch(ctx context.Context, c blueprint.Call, pod *corev1.Pod, name string, said *outputs) {
	const rarely = 5 // the log itself tells of most ends
	for kube.Pause(ctx, rarely*o.Poll) == nil {
		if news := said.news(); news != nil {
			_ = c.Save(ctx, news) // it is saved with the result, too
		}
		err := o.look(ctx, pod)
		if err == nil && !over(pod) && anotherFailed(pod, name) || err != nil && kube.ClassOf(err) == nil {
			return
		}
	}
}

// anotherFailed reports whether a container other than the one that is named has ended badly.
func anotherFailed(pod *corev1.Pod, but string) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name != but && c.State.Terminated != nil && c.State.Terminated.ExitCode != 0
	})
}

// cause is what the API server, or the way to it, said, for await to judge.
func cause(err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}

// failure says how a pod ended, with the end of what its containers said.
func (o Options) failure(ctx context.Context, pod *corev1.Pod, result map[string]any) error {
	text := "it failed"
	if pod.Status.Reason != "" {
		text += ": " + strings.TrimSpace(pod.Status.Reason+" "+pod.Status.Message)
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		ended := c.State.Terminated
		if ended == nil || ended.ExitCode == 0 {
			continue
		}
		text += fmt.Sprintf(": container %s ended with status %d", c.Name, ended.ExitCode)
		if ended.Reason != "" && ended.Reason != "Error" {
			text += " (" + ended.Reason + ")"
		}
		if said := o.lastWords(ctx, pod, c.Name); said != "" {
			text += ": " + said
		}
	}
	return fault.Wrap("", fault.ErrRefused, &podFailed{text, result}, "")
}

// lastWords is the end of a container's log; what cannot be read is left out.
func (o Options) lastWords(ctx context.Context, pod *corev1.Pod, name string) string {
	log, err := o.Cluster.Log(ctx, pod.Namespace, pod.Name, name, false)
	if err != nil {
		return ""
	}
	defer log.Close()
	var said kube.Tail
	if _, err := io.Copy(&said, log); err != nil {
		return ""
	}
	return said.String()
}

// removePod deletes a phase's pod, and what came with it, also when ctx has ended. One of its name that is not the phase's stays.
func (o Options) removePod(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	failures := []error{fault.Wrap("delete the pod", nil, o.removeOwn(ctx, pod.DeepCopy()), "")}
	if hasProfile(pod) {
		failures = append(failures, fault.Wrap("delete the pod's profile", nil, o.removeOwn(ctx, profileSecret(pod)), ""))
	}
	return errors.Join(failures...)
}

// removeOwn deletes an object, if it is there and has the mark that it should have.
func (o Options) removeOwn(ctx context.Context, object client.Object) error {
	id := object.GetLabels()[labelPhase]
	return o.call(ctx, func(ctx context.Context) error {
		if err := kube.Refresh(ctx, o.Cluster.Client, object); err != nil || object.GetLabels()[labelPhase] != id {
			return client.IgnoreNotFound(err)
		}
		uid := object.GetUID()
		err := o.Cluster.Client.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		return client.IgnoreNotFound(err)
	})
}
