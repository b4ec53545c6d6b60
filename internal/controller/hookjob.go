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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
)

const (
	hookLook   = 10 * time.Second // between two looks at a hook that has made no Gate; a cause that stands by then is told
	hookStarts = time.Minute      // in which a pod that only waits, for an image or a node, may begin
)

// hooks looks after Jobs at whose gate nobody has come to wait: an image that cannot be pulled, a quota, no room. Argo CD waits for such a
// Job in silence; here it is told, and failed with its cause when the policy's deadline is over. It returns when to look again.
func (d deployments) hooks(ctx context.Context, u *unstructured.Unstructured, p *v1alpha1.Policy) (time.Duration, error) {
	a := gitops.ReadApplication(u)
	seen, is := sightingOf(a)
	if !is || a.Operation().Ended() || !a.Operation().Hooks() {
		return 0, nil
	}
	again := time.Duration(0)
	for _, h := range a.HookJobs() {
		var j batchv1.Job
		err := d.direct.Get(ctx, types.NamespacedName{Namespace: h.Namespace, Name: h.Name}, &j)
		if client.IgnoreNotFound(err) != nil {
			return 0, fmt.Errorf("read job %s: %w", h.Name, err)
		}
		if err != nil || !h.Running || j.Labels[v1alpha1.LabelGate] == "" || outcomeOf(&j).state != running {
			continue
		}
		waits, err := d.waits(ctx, &j)
		if err != nil || waits {
			return 0, err
		}
		again = hookLook
		if err := d.late(ctx, u, p, &j, seen); err != nil {
			return 0, err
		}
	}
	return again, nil
}

// waits reports whether a pod of a Job has made its Gate.
func (d deployments) waits(ctx context.Context, j *batchv1.Job) (bool, error) {
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates, client.InNamespace(j.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list gates: %w", err)
	}
	for i := range gates.Items {
		g := &gates.Items[i]
		if g.Spec.Pod != "" && !g.CreationTimestamp.Time.Before(j.CreationTimestamp.Time) {
			return true, nil
		}
	}
	return false, nil
}

// explain adds to Argo CD's words on a sync that failed why its gate was closed, where it was the gate's hook that failed it: Argo CD tells
// that only of the hook.
func (d deployments) explain(ctx context.Context, u *unstructured.Unstructured) error {
	a := gitops.ReadApplication(u)
	o := a.Operation()
	seen, is := sightingOf(a)
	if !is || !o.Failed() || strings.HasPrefix(o.Message, terminated) {
		return nil
	}
	i := slices.IndexFunc(a.HookJobs(), func(h gitops.HookJob) bool { return h.Failed && strings.HasPrefix(h.Message, toldHook) })
	if i < 0 {
		return nil
	}
	g, err := d.closed(ctx, a.HookJobs()[i].Namespace, seen.sync(v1alpha1.EngineArgoCD+"/"+seen.application.String()))
	if g == nil || err != nil {
		return err
	}
	err = gitops.Explain(ctx, d.Cluster.Client, u, o.Started, g.Status.Reason+": "+g.Status.Message)
	if errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrNotFound) { // a right that may be taken away; an Application that is gone
		return nil
	}
	return err
}

// closed is the Gate of a sync that stayed closed, the last where there are several; nil for none.
func (d deployments) closed(ctx context.Context, namespace string, sync *v1alpha1.Sync) (*v1alpha1.Gate, error) {
	var gates v1alpha1.GateList
	if err := d.client.List(ctx, &gates, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	var last *v1alpha1.Gate
	for i := range gates.Items {
		g := &gates.Items[i]
		s := g.Status.Sync
		of := g.Status.Phase == v1alpha1.GateClosed && s != nil && s.Deployment == sync.Deployment && s.Started.Equal(sync.Started)
		if of && (last == nil || last.CreationTimestamp.Before(&g.CreationTimestamp)) {
			last = g
		}
	}
	return last, nil
}

// late tells of a hook that does not start, and fails it in the end.
func (d deployments) late(ctx context.Context, u *unstructured.Unstructured, p *v1alpha1.Policy, j *batchv1.Job, s sighting) error {
	age := d.Now().Sub(j.CreationTimestamp.Time)
	cause, stands, err := d.holdsUp(ctx, j)
	if err != nil || age < hookLook || !stands && age < hookStarts {
		return err
	}
	most := spanOr(p.Spec.GitOps.Deadline, defaultGateDeadline)
	message := fmt.Sprintf("the pod of hook %s/%s does not start: %s", j.Namespace, j.Name, cause)
	if age < most {
		message += fmt.Sprintf("; the sync fails when %s are over", most)
		for _, o := range []client.Object{u, j} { // each look makes one event count further
			d.events.Event(o, corev1.EventTypeWarning, v1alpha1.GateNotStarted, shorten(message))
		}
		return nil
	}
	if err := d.failHook(ctx, j, v1alpha1.GateNotStarted, message); err != nil {
		return err
	}
	begun, now := metav1.NewMicroTime(j.CreationTimestamp.Time), metav1.NewMicroTime(d.Now())
	key := types.NamespacedName{Namespace: j.Namespace, Name: s.name()}
	d.tell(u, corev1.EventTypeWarning, v1alpha1.GateNotStarted, message)
	return d.record(ctx, key, v1alpha1.GateStatus{
		Phase: v1alpha1.GateClosed, Reason: v1alpha1.GateNotStarted, Message: message, Policy: p.Namespace + "/" + p.Name,
		Sync: s.sync(v1alpha1.EngineArgoCD + "/" + s.application.String()), Begun: &begun, Ended: &now,
	})
}

// holdsUp is why a Job's pod does not start, and whether that is more than a matter of time.
func (d deployments) holdsUp(ctx context.Context, j *batchv1.Job) (cause string, stands bool, _ error) {
	var pods corev1.PodList
	if err := d.direct.List(ctx, &pods, client.InNamespace(j.Namespace), client.MatchingLabels{batchv1.JobNameLabel: j.Name}); err != nil {
		return "", false, fmt.Errorf("list pods of job %s: %w", j.Name, err)
	}
	pods.Items = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !metav1.IsControlledBy(&p, j) })
	if len(pods.Items) == 0 {
		cause, err := d.notMade(ctx, j)
		return cmp.Or(cause, "it has no pod"), cause != "", err
	}
	cause, stands = whyPending(&pods.Items[0])
	return cause, stands, nil
}

// notMade is what the Job controller said last where it could make no pod.
func (d deployments) notMade(ctx context.Context, j *batchv1.Job) (string, error) {
	var said corev1.EventList
	err := d.direct.List(ctx, &said, client.InNamespace(j.Namespace), client.MatchingFieldsSelector{
		Selector: fields.OneTermEqualSelector("involvedObject.uid", string(j.UID)),
	})
	if err != nil && !apierrors.IsForbidden(err) {
		return "", fmt.Errorf("list events of job %s: %w", j.Name, err)
	}
	last := ""
	var at time.Time
	for _, e := range said.Items {
		if e.Reason == "FailedCreate" && !e.LastTimestamp.Time.Before(at) {
			last, at = e.Message, e.LastTimestamp.Time
		}
	}
	return last, nil
}

// whyPending is why a pod does not run.
func whyPending(p *corev1.Pod) (cause string, stands bool) {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			starting := w.Reason == "ContainerCreating" || w.Reason == "PodInitializing"
			if cause = w.Reason; w.Message != "" {
				cause += ": " + w.Message
			}
			return cause, !starting
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message, false // a node may come
		}
	}
	if p.Status.Phase == corev1.PodRunning {
		return "it runs, and asks for no Gate; see its log", false
	}
	return string(cmp.Or(p.Status.Phase, corev1.PodPending)), false
}
