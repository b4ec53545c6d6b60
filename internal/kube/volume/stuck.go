package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// waiting is since when a mover could have started and has not.
type waiting struct{ since time.Time }

func since(now time.Time) waiting { return waiting{now} }

// refusalGrace is how long a mover may be without a pod before somebody is asked who refused it.
const refusalGrace = 15 * time.Second

// stuck is an error once a mover has had all it needs for StartDeadline and does not run. As long as its claims are being made it
// only waits.
func (k *Keeper) stuck(ctx context.Context, w *waiting, m mover, job *batchv1.Job, pods []corev1.Pod) error {
	started := slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodPending })
	if started {
		w.since = k.Now()
		return nil
	}
	waited := k.Now().Sub(w.since)
	if len(pods) == 0 && waited >= refusalGrace {
		if warned := k.warning(ctx, job.UID); strings.Contains(warned, "forbidden") { // by a quota, or the namespace's pod security
			return fault.New("", fault.ErrDenied, "its pod may not be made: "+warned, "volumes that are read live need pods with a path of the node; see docs/kubernetes.md")
		}
	}
	if waited < k.StartDeadline {
		return nil
	}
	if unbound, err := k.unbound(ctx, m); err != nil || unbound {
		w.since = k.Now()
		return err
	}
	return fault.New("", fault.ErrUnavailable, fmt.Sprintf("it did not start within %s: %s", k.StartDeadline, k.why(ctx, job, pods)), "")
}

// selectedNode is on a claim once a node is chosen for its pod, and its volume is made there.
const selectedNode = "volume.kubernetes.io/selected-node"

// unbound reports whether a claim's volume is being made: a driver may take hours to fill one from a snapshot. One that waits for a node
// is not being made.
func (k *Keeper) unbound(ctx context.Context, m mover) (bool, error) {
	for _, c := range m.claims {
		var claim corev1.PersistentVolumeClaim
		if err := k.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: k.System, Name: c.Claim}, &claim); err != nil {
			return false, err
		}
		if claim.Status.Phase != corev1.ClaimPending {
			continue
		}
		if claim.Annotations[selectedNode] != "" || claim.Spec.StorageClassName == nil {
			return true, nil
		}
		var class storagev1.StorageClass
		if err := k.Cluster.Client.Get(ctx, client.ObjectKey{Name: *claim.Spec.StorageClassName}, &class); err != nil {
			return false, err
		}
		if mode := class.VolumeBindingMode; mode == nil || *mode == storagev1.VolumeBindingImmediate {
			return true, nil
		}
	}
	return false, nil
}

// why says what keeps a mover from starting.
func (k *Keeper) why(ctx context.Context, job *batchv1.Job, pods []corev1.Pod) string {
	if len(pods) == 0 {
		return "no pod was made; " + k.warning(ctx, job.UID)
	}
	pod := pods[len(pods)-1]
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return clip("no node takes it: " + c.Message)
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" {
			return clip(strings.TrimSpace(fmt.Sprintf("image %s: %s %s", c.Image, w.Reason, w.Message)))
		}
	}
	return "its pod is being made; " + k.warning(ctx, pod.UID)
}

// warning is the last that the cluster warned of concerning an object. Who may not read events is told so.
func (k *Keeper) warning(ctx context.Context, uid types.UID) string {
	var list corev1.EventList
	err := k.Cluster.Client.List(ctx, &list, client.InNamespace(k.System), client.MatchingFields{"involvedObject.uid": string(uid)})
	if err != nil {
		return clip("events cannot be read: " + err.Error())
	}
	var last *corev1.Event
	for i, e := range list.Items {
		if e.Type == corev1.EventTypeWarning && (last == nil || last.LastTimestamp.Before(&list.Items[i].LastTimestamp)) {
			last = &list.Items[i]
		}
	}
	if last == nil {
		return "nobody warned of anything"
	}
	return clip(last.Reason + ": " + last.Message)
}
