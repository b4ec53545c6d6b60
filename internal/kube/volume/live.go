package volume

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// NoteLive begins the note on a part that was read while the application wrote.
const NoteLive = "crash-inconsistent: "

// liveMount is where a claim can be read on a node.
type liveMount struct{ pod, node, directory string }

// moveLive has a mover read a volume where a running pod has it mounted.
func (k *Keeper) moveLive(ctx context.Context, v v1alpha1.VolumeStatus, t Task) (Result, error) {
	var claim corev1.PersistentVolumeClaim
	var pv corev1.PersistentVolume
	err := k.call(ctx, "read claim "+v.Namespace+"/"+v.Claim, func(ctx context.Context) error {
		if err := k.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: v.Namespace, Name: v.Claim}, &claim); err != nil {
			return err
		}
		return k.Cluster.Client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &pv)
	})
	if err != nil {
		return Result{}, err
	}
	if of := pv.Spec.ClaimRef; of == nil || of.UID != claim.UID {
		return Result{}, fault.New("", fault.ErrDenied, "its volume is bound to another claim", "")
	}
	from, err := k.findMount(ctx, v, pv)
	if err != nil {
		return Result{}, err
	}
	mount := &t.Volumes[0]
	mount.Notes = append(slices.Clone(mount.Notes), NoteLive+"read from under pod "+from.pod+" while it ran")
	return k.runMover(ctx, mover{name: k.Name(v.Namespace, v.Claim), live: &from, task: t, deadline: k.MoveDeadline})
}

// findMount finds a running pod that has a claim mounted, and the directory on its node.
func (k *Keeper) findMount(ctx context.Context, v v1alpha1.VolumeStatus, pv corev1.PersistentVolume) (liveMount, error) {
	const op = "read it live"
	if v.Block {
		return liveMount{}, fault.New(op, fault.ErrUnsupported, "a volume in block mode cannot be read from under its pod", "")
	}
	var pods corev1.PodList
	err := k.call(ctx, "list pods of "+v.Namespace, func(ctx context.Context) error {
		return k.Cluster.Client.List(ctx, &pods, client.InNamespace(v.Namespace))
	})
	if err != nil {
		return liveMount{}, fault.Wrap(op, nil, err, "")
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil || !hasMounted(pod, v.Claim) {
			continue
		}
		directory, err := k.directory(pod, pv)
		return liveMount{pod.Name, pod.Spec.NodeName, directory}, fault.Wrap(op, nil, err, "")
	}
	return liveMount{}, fault.New(op, fault.ErrNotFound, "no running pod has it mounted", "")
}

// hasMounted reports whether a pod has a claim among its volumes, those made for the pod included.
func hasMounted(pod corev1.Pod, claim string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim ||
			v.Ephemeral != nil && pod.Name+"-"+v.Name == claim
	})
}

// directory is where a node has a volume mounted for a pod, as kubelet lays it out.
func (k *Keeper) directory(pod corev1.Pod, pv corev1.PersistentVolume) (string, error) {
	below := func(plugin string, rest ...string) string {
		return path.Join(append([]string{k.KubeletDir, "pods", string(pod.UID), "volumes", plugin, pv.Name}, rest...)...)
	}
	switch {
	case pv.Spec.CSI != nil:
		return below("kubernetes.io~csi", "mount"), nil
	case pv.Spec.NFS != nil:
		return below("kubernetes.io~nfs"), nil
	case pv.Spec.Local != nil:
		return below("kubernetes.io~local-volume"), nil
	case pv.Spec.ISCSI != nil:
		return below("kubernetes.io~iscsi"), nil
	case pv.Spec.FC != nil:
		return below("kubernetes.io~fc"), nil
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, nil
	}
	return "", fault.New("", fault.ErrUnsupported, fmt.Sprintf("volume %s is of a sort whose place on a node is not known", pv.Name), "")
}
