package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// readyPoll is how often objects are looked at that are not ready.
const readyPoll = time.Second

// watchable reports whether an object is one that Ready waits for.
func (i *Item) watchable() bool {
	if i.original == nil {
		return false
	}
	switch {
	case i.unchosen: // data alone came back: what runs on it is looked at all the same
		return rankOf(i.groupKind(), i.cluster) == rankWorkloads
	case i.Action == Create, i.Action == Replace, i.Action == Keep, i.Action == Same:
		switch rankOf(i.groupKind(), i.cluster) {
		case rankClaims, rankServices, rankWorkloads, rankOthers, rankGates:
			return true
		}
	case i.Action == "": // a claim that comes with its data
		return true
	}
	return false
}

// NotReady is an object that came back and does not run.
type NotReady struct {
	Object string `json:"object"` // NAMESPACE/KIND.GROUP/NAME
	Why    string `json:"why"`
	// Before says that it was no better when the point was taken.
	Before bool `json:"before,omitempty"`
}

// Ready waits until what came back runs, as long as patience says. It returns what does not run then, and why, as its pods say. What
// did not run when the point was taken is named, but not waited for. An API server that does not answer is asked again. An error is
// that of ctx.
func (p *Plan) Ready(ctx context.Context, patience time.Duration) ([]NotReady, error) {
	w := waiter{client: p.options.Cluster.Client}
	left := p.watched
	for {
		lagging := w.round(ctx, left)
		if patience <= 0 || !slices.ContainsFunc(lagging, func(l lag) bool { return !l.before }) {
			return w.explain(ctx, lagging), fault.Wrap("wait until it runs", nil, ctx.Err(), "")
		}
		if err := kube.Pause(ctx, min(readyPoll, patience)); err != nil {
			return nil, fault.Wrap("wait until it runs", nil, err, "")
		}
		patience -= readyPoll
		left = left[:0:0]
		for _, l := range lagging {
			left = append(left, l.item)
		}
	}
}

// round looks at every object once and returns those that are not ready.
func (w waiter) round(ctx context.Context, items []*Item) []lag {
	var lagging []lag
	for _, i := range items {
		if l := w.look(ctx, i); l != nil {
			lagging = append(lagging, *l)
		}
	}
	return lagging
}

// lag is an object that is not ready.
type lag struct {
	item *Item
	live *unstructured.Unstructured
	why  string
	// before says that it was not ready when the point was taken.
	before bool
}

type waiter struct{ client client.Client }

// look reads one object; nil means that there is nothing to wait for.
func (w waiter) look(ctx context.Context, i *Item) *lag {
	_, before := unready(i.original)
	before = before && i.original.Object["status"] != nil
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(i.original.GroupVersionKind())
	err := w.client.Get(ctx, key(i.Ref), live)
	switch {
	case apierrors.IsNotFound(err) || isNoMatch(err):
		if i.unchosen || i.made == "" && i.live == nil && i.Action != "" {
			return nil // it did not come back, which is said elsewhere
		}
		return &lag{i, nil, "it is gone", false}
	case apierrors.IsForbidden(err):
		return nil
	case err != nil:
		return &lag{i, nil, reason(err, nil), false}
	}
	why, not := unready(live)
	if !not || w.boundLater(ctx, live) {
		return nil
	}
	return &lag{i, live, why, before}
}

// boundLater reports whether a claim has no volume because its class waits for a pod to use it.
func (w waiter) boundLater(ctx context.Context, u *unstructured.Unstructured) bool {
	name, _, _ := unstructured.NestedString(u.Object, "spec", "storageClassName")
	if !isKind(u, "persistentvolumeclaim") || name == "" || u.GetAnnotations()["volume.kubernetes.io/selected-node"] != "" {
		return false
	}
	var c storagev1.StorageClass
	if err := w.client.Get(ctx, client.ObjectKey{Name: name}, &c); err != nil {
		return false
	}
	return c.VolumeBindingMode != nil && *c.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// explain adds what the pods say.
func (w waiter) explain(ctx context.Context, all []lag) []NotReady {
	var found []NotReady
	for _, l := range all {
		why := l.why
		if l.live != nil {
			if said := w.pods(ctx, l.live); said != "" {
				why += "; " + said
			}
		}
		found = append(found, NotReady{Object: l.item.String(), Why: plain(why, maxWhy), Before: l.before})
	}
	return found
}

// pods says why the pods of a workload do not run; the first that has something to say.
func (w waiter) pods(ctx context.Context, u *unstructured.Unstructured) string {
	if podSpec(u) == nil {
		return ""
	}
	if isKind(u, "pod") {
		return podTrouble(u)
	}
	var selector metav1.LabelSelector
	m, _, _ := unstructured.NestedMap(u.Object, "spec", "selector", "matchLabels")
	selector.MatchLabels = map[string]string{}
	for k, v := range m {
		selector.MatchLabels[k], _ = v.(string)
	}
	if len(selector.MatchLabels) == 0 {
		return ""
	}
	pods := &unstructured.UnstructuredList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	const enough = 20
	err := w.client.List(ctx, pods, client.InNamespace(u.GetNamespace()), client.Limit(enough),
		client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(selector.MatchLabels)})
	if err != nil {
		return ""
	}
	for n := range pods.Items {
		if said := podTrouble(&pods.Items[n]); said != "" {
			return "pod " + pods.Items[n].GetName() + ": " + said
		}
	}
	return ""
}

// podTrouble is what a pod's status says of why it does not run.
func podTrouble(u *unstructured.Unstructured) string {
	if status, reason, message := conditionOf(u, "PodScheduled"); status == metav1.ConditionFalse {
		return reason + ": " + message
	}
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		all, _, _ := unstructured.NestedSlice(u.Object, "status", field)
		for _, one := range all {
			c, _ := one.(map[string]any)
			name, _ := c["name"].(string)
			for _, state := range []string{"waiting", "terminated"} {
				reason, found, _ := unstructured.NestedString(c, "state", state, "reason")
				message, _, _ := unstructured.NestedString(c, "state", state, "message")
				if found && reason != "Completed" && reason != "PodInitializing" && reason != "ContainerCreating" {
					return strings.TrimSuffix("container "+name+": "+reason+": "+message, ": ")
				}
			}
		}
	}
	return ""
}

// unready says what an object lacks to be ready, by the rules of its kind.
func unready(u *unstructured.Unstructured) (why string, not bool) {
	if seen, found, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); found && seen < u.GetGeneration() {
		return "its controller has not seen it yet", true
	}
	status := func(field string) int64 {
		n, _, _ := unstructured.NestedInt64(u.Object, "status", field)
		return n
	}
	want, asked, _ := unstructured.NestedInt64(u.Object, "spec", "replicas")
	if !asked {
		want = 1
	}
	switch kindName(u.GroupVersionKind().GroupKind()) {
	case "deployment.apps":
		if _, reason, message := conditionOf(u, "Progressing"); reason == "ProgressDeadlineExceeded" {
			return message, true
		}
		return fewer(min(status("updatedReplicas"), status("availableReplicas")), want, u)
	case "statefulset.apps", "replicaset.apps", "replicationcontroller":
		return fewer(status("readyReplicas"), want, u)
	case "daemonset.apps":
		return fewer(status("numberReady"), status("desiredNumberScheduled"), u)
	case "pod":
		return unreadyPod(u)
	case "job.batch":
		return unreadyJob(u)
	case "persistentvolumeclaim":
		if phase, _, _ := unstructured.NestedString(u.Object, "status", "phase"); phase != "Bound" {
			return "it has no volume", true
		}
	case "service":
		kind, _, _ := unstructured.NestedString(u.Object, "spec", "type")
		given, _, _ := unstructured.NestedSlice(u.Object, "status", "loadBalancer", "ingress")
		if kind == "LoadBalancer" && len(given) == 0 {
			return "it has no load balancer", true
		}
	default:
		return unreadyOther(u)
	}
	return "", false
}

// fewer compares pods. A controller that has not seen the object says nothing in its status.
func fewer(have, want int64, u *unstructured.Unstructured) (string, bool) {
	if _, seen, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); !seen {
		return "its controller has not seen it yet", true
	}
	if have < want {
		return fmt.Sprintf("%d of %d pods are ready", have, want), true
	}
	return "", false
}

func unreadyPod(u *unstructured.Unstructured) (string, bool) {
	phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
	if phase == "Succeeded" || condition(u, "Ready") == metav1.ConditionTrue {
		return "", false
	}
	return "the pod is " + strings.ToLower(phase), true
}

func unreadyJob(u *unstructured.Unstructured) (string, bool) {
	suspended, _, _ := unstructured.NestedBool(u.Object, "spec", "suspend")
	active, _, _ := unstructured.NestedInt64(u.Object, "status", "active")
	if _, reason, message := conditionOf(u, "Failed"); condition(u, "Failed") == metav1.ConditionTrue {
		return "it failed: " + reason + ": " + message, true
	}
	if suspended || active > 0 || condition(u, "Complete") == metav1.ConditionTrue {
		return "", false
	}
	return "it has not begun", true
}

// unreadyOther reads conditions as kstatus does. Kinds that have none are ready when they are there.
func unreadyOther(u *unstructured.Unstructured) (string, bool) {
	for _, kind := range []string{"Stalled", "Reconciling"} {
		if status, reason, message := conditionOf(u, kind); status == metav1.ConditionTrue {
			return kind + ": " + reason + ": " + message, true
		}
	}
	for _, kind := range []string{"Ready", "Available", "Established"} {
		if status, reason, message := conditionOf(u, kind); status == metav1.ConditionFalse || status == metav1.ConditionUnknown {
			return "not " + kind + ": " + reason + ": " + message, true
		}
	}
	return "", false
}
