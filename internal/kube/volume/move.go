package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// readyGrace is how long a driver may complain of a snapshot that is cut and not ready before it is given up.
const readyGrace = 5 * time.Minute

// Paths in a mover's pod.
const (
	mountPath  = "/volumes/0"
	devicePath = "/dev/backstay0"
)

// Move moves the data of a volume that was snapshot, or is read live, to the location: by a mover that has a clone of the snapshot in
// Backstay's own namespace. Of t's Volumes there is one, which says the part and its Mark; where and how it is mounted is filled in.
// Whatever comes of it is in the result, and what was made on the way is removed. Only when ctx ends there is an error: then all is
// left as it is, for who goes on or tidies up.
func (k *Keeper) Move(ctx context.Context, v v1alpha1.VolumeStatus, t Task) (PartResult, error) {
	op := fmt.Sprintf("move claim %s/%s", v.Namespace, v.Claim)
	if len(t.Volumes) != 1 {
		return PartResult{}, fault.New(op, fault.ErrInvalid, fmt.Sprintf("the task has %d volumes", len(t.Volumes)), "")
	}
	mount := t.Volumes[0]
	mount.Kind, mount.Path = point.KindVolume, mountPath
	if v.Block {
		mount.Kind, mount.Path = point.KindBlock, devicePath
	}
	t.Volumes = []Mount{mount}
	var result Result
	var err error
	switch {
	case v.Problem != "":
		return failed(mount.Part, errors.New(v.Problem)), nil
	case v.Method == v1alpha1.MethodLive:
		result, err = k.moveLive(ctx, v, t)
	case v.Snapshot != "":
		result, err = k.moveSnapshot(ctx, v, t)
	default:
		err = fault.New("", fault.ErrInvalid, "it has no snapshot", "")
	}
	if ctx.Err() != nil {
		return PartResult{}, fault.Wrap(op, nil, ctx.Err(), "")
	}
	if left := k.clean(ctx, v); left != nil {
		k.Note(left.Error()) // the data is where it belongs; Tidy removes what is left
	}
	if err != nil {
		return failed(mount.Part, err), nil
	}
	return result.Parts[0], nil
}

func failed(part string, err error) PartResult {
	return PartResult{Part: part, State: point.Failed, Reason: err.Error()}
}

// moveSnapshot makes the clone and runs the mover.
func (k *Keeper) moveSnapshot(ctx context.Context, v v1alpha1.VolumeStatus, t Task) (Result, error) {
	snapshot, err := k.waitUntilReady(ctx, v)
	if err != nil {
		return Result{}, err
	}
	clone, err := k.clone(ctx, v, snapshot)
	if err != nil {
		return Result{}, err
	}
	mount := t.Volumes[0]
	return k.RunMover(ctx, clone.Name, []MoverClaim{{Claim: clone.Name, Path: mount.Path, Block: v.Block, ReadOnly: true}}, t, k.MoveDeadline)
}

// waitUntilReady waits until a snapshot can be read.
func (k *Keeper) waitUntilReady(ctx context.Context, v v1alpha1.VolumeStatus) (*snapshotv1.VolumeSnapshot, error) {
	snapshot := &snapshotv1.VolumeSnapshot{}
	trouble := trouble{grace: readyGrace}
	err := k.await(ctx, k.ReadyDeadline, "wait until snapshot "+v.Snapshot+" is ready", func(ctx context.Context) (bool, error) {
		if err := k.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: v.Namespace, Name: v.Snapshot}, snapshot); err != nil {
			return false, err
		}
		status := snapshot.Status
		if status != nil && status.ReadyToUse != nil && *status.ReadyToUse && status.BoundVolumeSnapshotContentName != nil {
			return true, nil
		}
		return false, trouble.add(k.Now(), snapshotError(status))
	})
	return snapshot, err
}

// clone makes a claim in Backstay's own namespace that is filled from the snapshot: by a content and a snapshot there that stand for the
// same thing at the driver, and whose deletion leaves that alone.
func (k *Keeper) clone(ctx context.Context, v v1alpha1.VolumeStatus, snapshot *snapshotv1.VolumeSnapshot) (*corev1.PersistentVolumeClaim, error) {
	from, err := sourceOf(snapshot)
	if err != nil {
		return nil, err
	}
	var content snapshotv1.VolumeSnapshotContent
	err = k.call(ctx, "read the content of snapshot "+snapshot.Name, func(ctx context.Context) error {
		return k.Cluster.Client.Get(ctx, client.ObjectKey{Name: *snapshot.Status.BoundVolumeSnapshotContentName}, &content)
	})
	if err != nil {
		return nil, err
	}
	if content.Spec.VolumeSnapshotRef.UID != snapshot.UID { // else a snapshot could show its owner what is somebody else's
		return nil, fault.New("clone snapshot "+snapshot.Name, fault.ErrDenied, "content "+content.Name+" is another snapshot's", "")
	}
	class, err := k.cloneClass(ctx, from.StorageClass, content.Spec.Driver)
	if err != nil {
		return nil, err
	}
	if err := k.standIn(ctx, v, &content); err != nil {
		return nil, err
	}
	size, err := resource.ParseQuantity(from.Size)
	if err != nil {
		return nil, fault.Wrap("read the size of snapshot "+snapshot.Name, fault.ErrCorrupt, err, "")
	}
	if least := snapshot.Status.RestoreSize; least != nil && least.Cmp(size) > 0 {
		size = *least
	}
	return ensure(ctx, k, k.cloneClaim(v, class, size))
}

func (k *Keeper) cloneClaim(v v1alpha1.VolumeStatus, class string, size resource.Quantity) *corev1.PersistentVolumeClaim {
	group, mode := snapshotv1.GroupName, volumeMode(v.Block)
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: k.meta(v.Namespace, v.Claim),
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			VolumeMode:       &mode,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
			DataSource:       &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: k.Name(v.Namespace, v.Claim)},
		},
	}
}

func volumeMode(block bool) corev1.PersistentVolumeMode {
	if block {
		return corev1.PersistentVolumeBlock
	}
	return corev1.PersistentVolumeFilesystem
}

// standIn makes the content and the snapshot in Backstay's own namespace.
func (k *Keeper) standIn(ctx context.Context, v v1alpha1.VolumeStatus, of *snapshotv1.VolumeSnapshotContent) error {
	if of.Status == nil || of.Status.SnapshotHandle == nil {
		return fault.New("read content "+of.Name, fault.ErrUnavailable, "it does not name the driver's snapshot", "")
	}
	meta, mode := k.meta(v.Namespace, v.Claim), volumeMode(v.Block)
	static := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: meta.Name, Labels: meta.Labels},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef:       corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: meta.Namespace, Name: meta.Name},
			DeletionPolicy:          snapshotv1.VolumeSnapshotContentRetain,
			Driver:                  of.Spec.Driver,
			VolumeSnapshotClassName: of.Spec.VolumeSnapshotClassName,
			Source:                  snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: of.Status.SnapshotHandle},
			SourceVolumeMode:        &mode,
		},
	}
	made, err := ensure(ctx, k, static)
	if err != nil {
		return err
	}
	if handle := made.Spec.Source.SnapshotHandle; handle == nil || *handle != *of.Status.SnapshotHandle {
		return fault.New("create "+describe(static), fault.ErrExists, "there is one of another snapshot", "")
	}
	_, err = ensure(ctx, k, &snapshotv1.VolumeSnapshot{
		ObjectMeta: meta,
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &static.Name},
			VolumeSnapshotClassName: of.Spec.VolumeSnapshotClassName,
		},
	})
	return err
}

// cloneClass is the storage class of a clone: that of the source, or the only one of its driver where that is gone or there never was
// one.
func (k *Keeper) cloneClass(ctx context.Context, name, driver string) (string, error) {
	var list storagev1.StorageClassList
	err := k.call(ctx, "list storage classes", func(ctx context.Context) error { return k.Cluster.Client.List(ctx, &list) })
	if err != nil {
		return "", err
	}
	var others []string
	for _, class := range list.Items {
		switch {
		case class.Name == name:
			return name, nil
		case class.Provisioner == driver:
			others = append(others, class.Name)
		}
	}
	if len(others) == 1 {
		return others[0], nil
	}
	return "", fault.New("clone a snapshot", fault.ErrNotFound,
		fmt.Sprintf("storage class %q is not there, and %d others are of driver %s", name, len(others), driver), "")
}

// clean removes what Move made for a volume; the snapshot in the claim's namespace stays.
func (k *Keeper) clean(ctx context.Context, v v1alpha1.VolumeStatus) error {
	meta := k.meta(v.Namespace, v.Claim)
	failures := []error{k.EndMover(ctx, meta.Name)}
	if v.Method == v1alpha1.MethodLive {
		return failures[0]
	}
	meta.Labels = nil
	for _, object := range []client.Object{
		&corev1.PersistentVolumeClaim{ObjectMeta: meta},
		&snapshotv1.VolumeSnapshot{ObjectMeta: meta},
		&snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}},
	} {
		failures = append(failures, k.remove(ctx, object))
	}
	return errors.Join(failures...)
}

// EndMover removes a mover's Job, with its pods, and its Secret. It does not wait until they are gone.
func (k *Keeper) EndMover(ctx context.Context, name string) error {
	meta := metav1.ObjectMeta{Namespace: k.System, Name: name}
	return errors.Join(
		k.remove(ctx, &batchv1.Job{ObjectMeta: meta}),
		k.remove(ctx, &corev1.Secret{ObjectMeta: meta}),
	)
}
