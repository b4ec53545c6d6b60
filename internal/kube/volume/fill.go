package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Wanted is a volume that is to be made for a claim.
type Wanted struct {
	// Claim is what the volume is for, as it is on the cluster or is to be: its class, size and mode are the volume's.
	Claim corev1.PersistentVolumeClaim
	// Point is that whose local snapshot of the claim is taken, where one is kept; empty for none.
	Point string
	// From is the claim's namespace in the point. Default: that of Claim.
	From string
	// Size is what the data takes, where that is more than the claim asks for: drivers round up, and applications write all they got.
	Size resource.Quantity
}

// noProvisioner is of classes whose volumes somebody makes by hand.
const noProvisioner = "kubernetes.io/no-provisioner"

// Fill makes a volume and fills it: from a local snapshot of the point where there is one, else by a mover that carries out the task,
// whose one volume says the part. The volume is free for Swap, and nothing else can take it. It is k that makes claim and mover, in
// Backstay's own namespace, and everything but the volume is removed. Called again it goes on, or returns the same volume.
func (r *Restorer) Fill(ctx context.Context, k *Keeper, w Wanted, t Task) (string, error) {
	f := filling{
		Restorer: r, keeper: k, wanted: w,
		status: v1alpha1.VolumeStatus{
			Namespace: w.Claim.Namespace, Claim: w.Claim.Name, Block: isBlock(w.Claim.Spec.VolumeMode), Method: v1alpha1.MethodSnapshot,
		},
	}
	name, err := f.fill(ctx, t)
	return name, fault.Wrap(fmt.Sprintf("fill a volume for claim %s/%s", w.Claim.Namespace, w.Claim.Name), nil, err, "")
}

// filling is one call of Fill.
type filling struct {
	*Restorer
	keeper *Keeper
	wanted Wanted
	status v1alpha1.VolumeStatus // by which the Keeper names what it makes
}

func (f *filling) fill(ctx context.Context, t Task) (string, error) {
	if len(t.Volumes) != 1 {
		return "", fault.New("", fault.ErrInvalid, fmt.Sprintf("the task has %d volumes", len(t.Volumes)), "")
	}
	made, err := f.volumes(ctx, client.MatchingLabels(f.keeper.labels(f.status.Namespace, f.status.Claim)))
	if err != nil {
		return "", err
	}
	if len(made) > 0 {
		return made[0].Name, f.clear(ctx)
	}
	class, err := f.class(ctx)
	if err != nil {
		return "", err
	}
	volume, err := f.fromSnapshot(ctx, class)
	if err != nil {
		return "", err
	}
	if volume == "" {
		if volume, err = f.fromPoint(ctx, class, t); err != nil {
			return "", err
		}
	}
	if err := f.take(ctx, volume); err != nil {
		return "", err
	}
	return volume, f.clear(ctx)
}

// class reads the storage class of the claim, and refuses what would be waited for in vain.
func (f *filling) class(ctx context.Context) (*storagev1.StorageClass, error) {
	const hint = "name another in storageClasses of the restore"
	name := ""
	if f.wanted.Claim.Spec.StorageClassName != nil {
		name = *f.wanted.Claim.Spec.StorageClassName
	}
	if name == "" {
		return nil, fault.New("", fault.ErrUnsupported, "the claim has no storage class, and nobody makes volumes for it", hint)
	}
	var class storagev1.StorageClass
	err := f.call(ctx, "read storage class "+name, func(ctx context.Context) error {
		return f.Cluster.Client.Get(ctx, client.ObjectKey{Name: name}, &class)
	})
	if errors.Is(err, fault.ErrNotFound) {
		return nil, fault.New("", fault.ErrNotFound, "the cluster has no storage class "+name, hint)
	}
	if err == nil && class.Provisioner == noProvisioner {
		err = fault.New("", fault.ErrUnsupported, "volumes of storage class "+name+" are made by hand", hint)
	}
	return &class, err
}

// fromSnapshot makes the volume from a local snapshot of the point. It returns none where there is no snapshot that fits, or where the
// driver makes nothing of it: the data is in the location, too.
func (f *filling) fromSnapshot(ctx context.Context, class *storagev1.StorageClass) (string, error) {
	if f.wanted.Point == "" {
		return "", nil
	}
	kept, err := f.keeper.Kept(ctx, f.wanted.Point)
	if err != nil {
		return "", err
	}
	from := f.wanted.From
	if from == "" {
		from = f.status.Namespace
	}
	snapshot := kept[types.NamespacedName{Namespace: from, Name: f.status.Claim}]
	content, err := f.readable(ctx, snapshot, class)
	if err != nil || content == nil {
		return "", err
	}
	name, err := f.cloneOf(ctx, snapshot, content, class)
	if err == nil || ctx.Err() != nil {
		return name, err
	}
	f.keeper.Note(fmt.Sprintf("claim %s/%s is filled from the location: %s", f.status.Namespace, f.status.Claim, err))
	return "", f.clear(ctx)
}

// readable returns the content of a snapshot if the class's driver can make a volume of it; nil if not.
func (f *filling) readable(ctx context.Context, s *snapshotv1.VolumeSnapshot, class *storagev1.StorageClass) (*snapshotv1.VolumeSnapshotContent, error) {
	if s == nil || s.Status == nil || s.Status.ReadyToUse == nil || !*s.Status.ReadyToUse || s.Status.BoundVolumeSnapshotContentName == nil {
		return nil, nil //nolint:nilnil // documented
	}
	from, err := sourceOf(s)
	if err != nil || from.Block != f.status.Block {
		return nil, nil //nolint:nilnil,nilerr // a snapshot that nobody understands is none
	}
	var content snapshotv1.VolumeSnapshotContent
	err = f.call(ctx, "read the content of snapshot "+s.Name, func(ctx context.Context) error {
		return client.IgnoreNotFound(f.Cluster.Client.Get(ctx, client.ObjectKey{Name: *s.Status.BoundVolumeSnapshotContentName}, &content))
	})
	if err != nil || content.UID == "" || content.Spec.Driver != class.Provisioner ||
		content.Spec.VolumeSnapshotRef.UID != s.UID { // else a snapshot could give its owner what is somebody else's
		return nil, err
	}
	return &content, nil
}

// cloneOf has the driver make the volume from a snapshot.
func (f *filling) cloneOf(ctx context.Context, s *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent,
	class *storagev1.StorageClass,
) (string, error) {
	if err := f.keeper.standIn(ctx, f.status, content); err != nil {
		return "", err
	}
	group := snapshotv1.GroupName
	c := f.claim(class, s.Status.RestoreSize)
	c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: c.Name}
	made, err := ensure(ctx, f.keeper, c)
	if err != nil {
		return "", err
	}
	if err := f.chooseNode(ctx, made, class, true); err != nil {
		return "", err
	}
	return f.bound(ctx)
}

// fromPoint has a mover fill the volume.
func (f *filling) fromPoint(ctx context.Context, class *storagev1.StorageClass, t Task) (string, error) {
	made, err := ensure(ctx, f.keeper, f.claim(class, nil))
	if err != nil {
		return "", err
	}
	if err := f.chooseNode(ctx, made, class, false); err != nil {
		return "", err
	}
	mount := t.Volumes[0]
	mount.Kind, mount.Path = point.KindVolume, mountPath
	if f.status.Block {
		mount.Kind, mount.Path = point.KindBlock, devicePath
	}
	t.Volumes = []Mount{mount}
	result, err := f.keeper.RunMover(ctx, made.Name, []MoverClaim{{Claim: made.Name, Path: mount.Path, Block: f.status.Block}}, t, f.keeper.MoveDeadline)
	if err == nil && result.Parts[0].State != point.Stored {
		err = fault.New("restore "+mount.Part, fault.ErrIncomplete, result.Parts[0].Reason, "")
	}
	if err != nil {
		if ctx.Err() == nil { // who tries again begins with an empty volume
			err = errors.Join(err, f.clear(ctx))
		}
		return "", err
	}
	return f.bound(ctx)
}

// claim is the one that the volume is made by, in Backstay's own namespace: at least as large as least.
func (f *filling) claim(class *storagev1.StorageClass, least *resource.Quantity) *corev1.PersistentVolumeClaim {
	spec := f.wanted.Claim.Spec
	size := spec.Resources.Requests[corev1.ResourceStorage]
	if least != nil && least.Cmp(size) > 0 {
		size = *least
	}
	if f.wanted.Size.Cmp(size) > 0 {
		size = f.wanted.Size
	}
	modes := spec.AccessModes
	if !slices.ContainsFunc(modes, func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany }) {
		modes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce} // it is written to once
	}
	mode := volumeMode(f.status.Block)
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: f.keeper.meta(f.status.Namespace, f.status.Claim),
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class.Name, AccessModes: modes, VolumeMode: &mode, VolumeAttributesClassName: spec.VolumeAttributesClassName,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
}

// bound waits until the claim in Backstay's own namespace has its volume. A driver may take hours to fill one from a snapshot.
func (f *filling) bound(ctx context.Context) (volume string, err error) {
	name := f.keeper.Name(f.status.Namespace, f.status.Claim)
	err = f.keeper.await(ctx, f.keeper.ReadyDeadline, "wait for the volume of claim "+name, func(ctx context.Context) (bool, error) {
		var c corev1.PersistentVolumeClaim
		err := f.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: f.System, Name: name}, &c)
		volume = c.Spec.VolumeName
		return err == nil && c.Status.Phase == corev1.ClaimBound && volume != "", err
	})
	return volume, err
}

// take makes the volume one that outlives its claim, and that Fill finds again.
func (f *filling) take(ctx context.Context, name string) error {
	return f.changeVolume(ctx, name, func(v *corev1.PersistentVolume) {
		if v.Annotations[AnnotationReclaim] == "" {
			metav1.SetMetaDataAnnotation(&v.ObjectMeta, AnnotationReclaim, string(v.Spec.PersistentVolumeReclaimPolicy))
		}
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		for key, value := range f.keeper.labels(f.status.Namespace, f.status.Claim) {
			setLabel(v, key, value)
		}
	})
}

// clear removes everything but the volume, and waits until the claim is gone: then the volume is free. It keeps the reference to that
// claim, so that no other gets it.
func (f *filling) clear(ctx context.Context) error {
	if err := f.keeper.clean(ctx, f.status); err != nil {
		return err
	}
	meta := f.keeper.meta(f.status.Namespace, f.status.Claim)
	return f.keeper.gone(ctx, f.keeper.StartDeadline, &corev1.PersistentVolumeClaim{ObjectMeta: meta})
}

// chooseNode has the volume of a class that waits for the first pod made where the application's pods run, or ran: a volume in another
// zone would be of no use to them. Else the mover's node decides; or, where there is no mover and it must be one, any node that has the
// driver.
func (f *filling) chooseNode(ctx context.Context, c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, must bool) error {
	if class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer ||
		c.Spec.VolumeName != "" || c.Annotations[selectedNode] != "" {
		return nil
	}
	node, err := f.nodeOfPods(ctx)
	if err == nil && node == "" {
		node, err = f.nodeOfVolume(ctx)
	}
	if err == nil && node == "" && must {
		node, err = f.nodeOfDriver(ctx, class.Provisioner)
	}
	if err != nil || node == "" {
		return err
	}
	return f.keeper.mark(ctx, c, nil, map[string]any{selectedNode: node})
}

// nodeOfPods is where a pod runs that uses the claim.
func (f *filling) nodeOfPods(ctx context.Context) (string, error) {
	var pods []corev1.Pod
	err := f.call(ctx, "find the node of the claim's pods", func(ctx context.Context) (err error) {
		pods, err = f.podsUsing(ctx, f.status.Namespace, []string{f.status.Claim})
		return err
	})
	for _, p := range pods {
		if p.Spec.NodeName != "" && !ended(&p) {
			return p.Spec.NodeName, err
		}
	}
	return "", err
}

// nodeOfVolume is one from which the volume behind the claim can be reached, if that is not any.
func (f *filling) nodeOfVolume(ctx context.Context) (string, error) {
	live, err := f.liveClaim(ctx, key(&f.wanted.Claim))
	if err != nil || live == nil || live.Spec.VolumeName == "" {
		return "", err
	}
	var v corev1.PersistentVolume
	if err := f.readVolume(ctx, live.Spec.VolumeName, &v); err != nil {
		return "", err
	}
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return "", nil
	}
	var nodes corev1.NodeList
	err = f.call(ctx, "list nodes", func(ctx context.Context) error { return f.Cluster.Client.List(ctx, &nodes) })
	for _, n := range nodes.Items {
		if !n.Spec.Unschedulable && reaches(&n, v.Spec.NodeAffinity.Required) {
			return n.Name, err
		}
	}
	return "", err
}

// reaches reports whether one of a volume's terms fits a node's labels.
func reaches(n *corev1.Node, affinity *corev1.NodeSelector) bool {
	return slices.ContainsFunc(affinity.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		for _, e := range term.MatchExpressions {
			operator, known := map[corev1.NodeSelectorOperator]selection.Operator{
				corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
				corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
				corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
			}[e.Operator]
			requirement, err := labels.NewRequirement(e.Key, operator, e.Values)
			if !known || err != nil || !requirement.Matches(labels.Set(n.Labels)) {
				return false
			}
		}
		return len(term.MatchExpressions) > 0 && len(term.MatchFields) == 0
	})
}

// nodeOfDriver is one that the driver runs on.
func (f *filling) nodeOfDriver(ctx context.Context, driver string) (string, error) {
	var nodes storagev1.CSINodeList
	err := f.call(ctx, "find a node with driver "+driver, func(ctx context.Context) error { return f.Cluster.Client.List(ctx, &nodes) })
	for _, n := range nodes.Items {
		if slices.ContainsFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver }) {
			return n.Name, err
		}
	}
	return "", err
}
