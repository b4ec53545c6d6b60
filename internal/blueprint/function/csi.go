package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// annotationPhase is on what a phase makes outside pods, and holds its Call.ID: by it a run that takes up an interrupted one knows its own.
const annotationPhase = "backstay.io/phase"

// snapshotGrace is how long a driver's error must last before it counts: snapshot controllers report, and get over, many.
const snapshotGrace = 30 * time.Second

// mostOfDriver bounds what is taken over from a driver's messages, in bytes.
const mostOfDriver = 400

// snapshotFunctions are those on CSI snapshots.
func (o Options) snapshotFunctions() []blueprint.Function {
	return []blueprint.Function{
		{
			Name: "CreateCSISnapshot", Interrupted: blueprint.Attaches, Run: o.createSnapshot,
			Required: []string{"pvc", "namespace", "snapshotClass"}, Optional: []string{"name", "labels"},
		},
		{
			Name: "CreateCSISnapshotStatic", Interrupted: blueprint.Attaches, Run: o.createSnapshotStatic,
			Required: []string{"name", "namespace", "driver", "snapshotHandle", "snapshotClass"},
		},
		{
			Name: "RestoreCSISnapshot", Interrupted: blueprint.Attaches, Run: o.restoreSnapshot,
			Required: []string{"name", "pvc", "namespace", "storageClass", "restoreSize"},
			Optional: []string{"accessModes", "volumeMode", "labels"},
		},
		{
			Name: "DeleteCSISnapshot", Interrupted: blueprint.Repeats, Run: o.deleteSnapshot,
			Required: []string{"name", "namespace"},
		},
		{
			Name: "DeleteCSISnapshotContent", Interrupted: blueprint.Repeats, Run: o.deleteSnapshotContent,
			Required: []string{"name"},
		},
	}
}

// createSnapshot takes a snapshot of a claim, and waits until volumes can be made of it.
func (o Options) createSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	claim, namespace, class, labels := a.text("pvc"), a.text("namespace"), a.text("snapshotClass"), a.table("labels")
	name := a.textOr("name", snapshotName(claim, c.ID))
	if a.err != nil {
		return nil, a.err
	}
	op := fmt.Sprintf("take snapshot %s/%s", namespace, name)
	s := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim},
			VolumeSnapshotClassName: &class,
		},
	}
	output := map[string]any{"name": name, "pvc": claim, "namespace": namespace}
	if err := o.make(ctx, c, s); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	err := o.followSnapshot(ctx, c, s, claim, output)
	if err != nil && !resumed(ctx) {
		err = errors.Join(err, o.dropSnapshot(ctx, c, s))
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return output, nil
}

// followSnapshot adds to the output what is known of a snapshot once it can be used.
func (o Options) followSnapshot(ctx context.Context, c blueprint.Call, s *snapshotv1.VolumeSnapshot, claim string, output map[string]any) error {
	if err := c.Save(ctx, output); err != nil {
		return err
	}
	if err := o.awaitSnapshot(ctx, s); err != nil {
		return err
	}
	size, err := o.restoreSize(ctx, s, claim)
	output["restoreSize"], output["snapshotContent"] = size, *s.Status.BoundVolumeSnapshotContentName
	return err
}

// dropSnapshot deletes a snapshot whose phase has failed: no artifact may tell of it, and the driver may yet have it cut. It waits until
// it is gone, as the next attempt's has the same name.
func (o Options) dropSnapshot(ctx context.Context, c blueprint.Call, s *snapshotv1.VolumeSnapshot) error {
	do := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		return o.gone(ctx, s)
	}
	if c.After == nil {
		return do(ctx)
	}
	c.After(do)
	return nil
}

// snapshotName is what a snapshot is called that is given no name.
func snapshotName(claim, id string) string {
	const most = 253
	end := "-snapshot-" + id
	return strings.TrimRight(claim[:min(len(claim), most-len(end))], "-.") + end
}

// createSnapshotStatic makes an object of a snapshot that is at the storage already.
func (o Options) createSnapshotStatic(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	name, namespace, driver, handle, class := a.text("name"), a.text("namespace"), a.text("driver"), a.text("snapshotHandle"), a.text("snapshotClass")
	if a.err != nil {
		return nil, a.err
	}
	op := fmt.Sprintf("make snapshot %s/%s", namespace, name)
	var of snapshotv1.VolumeSnapshotClass
	err := o.call(ctx, func(ctx context.Context) error { return o.Cluster.Client.Get(ctx, client.ObjectKey{Name: class}, &of) })
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: snapshotName(name, c.ID)},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver: driver, DeletionPolicy: of.DeletionPolicy, VolumeSnapshotClassName: &class,
			Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
			VolumeSnapshotRef: corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: namespace, Name: name},
		},
	}
	s := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &content.Name},
			VolumeSnapshotClassName: &class,
		},
	}
	output := map[string]any{"name": name, "namespace": namespace, "snapshotContent": content.Name}
	for _, object := range []client.Object{content, s} {
		if err := o.make(ctx, c, object); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	if err := c.Save(ctx, output); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := o.awaitSnapshot(ctx, s); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	output["restoreSize"] = "0"
	if s.Status.RestoreSize != nil {
		output["restoreSize"] = s.Status.RestoreSize.String()
	}
	return output, nil
}

// restoreSnapshot makes a claim of a snapshot. It does not wait until a volume is bound: that may take a pod.
func (o Options) restoreSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	name, claim, namespace, class := a.text("name"), a.text("pvc"), a.text("namespace"), a.text("storageClass")
	labels, modes := a.table("labels"), a.list("accessModes")
	mode := corev1.PersistentVolumeMode(a.textOr("volumeMode", string(corev1.PersistentVolumeFilesystem)))
	sizeText := a.text("restoreSize")
	if a.err != nil {
		return nil, a.err
	}
	op := fmt.Sprintf("restore snapshot %s/%s", namespace, name)
	size, err := resource.ParseQuantity(sizeText)
	if err != nil || size.Sign() <= 0 {
		return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("restoreSize %q is no size of a volume", sizeText), "")
	}
	access, err := accessModes(modes)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	group := snapshotv1.GroupName
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: claim, Labels: labels},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: access, VolumeMode: &mode, StorageClassName: &class,
			DataSource: &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: name},
			Resources:  corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
	return nil, fault.Wrap(op, nil, o.make(ctx, c, pvc), "")
}

// accessModes reads names of access modes; ReadWriteOnce where there are none.
func accessModes(names []string) ([]corev1.PersistentVolumeAccessMode, error) {
	known := []corev1.PersistentVolumeAccessMode{
		corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod,
	}
	if len(names) == 0 {
		return known[:1], nil
	}
	var modes []corev1.PersistentVolumeAccessMode
	for _, name := range names {
		mode := corev1.PersistentVolumeAccessMode(name)
		if !slices.Contains(known, mode) {
			return nil, fault.New("argument accessModes", fault.ErrInvalid, fmt.Sprintf("there is no access mode %.40q", name), "")
		}
		modes = append(modes, mode)
	}
	return modes, nil
}

// deleteSnapshot deletes a snapshot and waits until it is gone. One that is not there is gone.
func (o Options) deleteSnapshot(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	s := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: a.text("namespace"), Name: a.text("name")}}
	if a.err != nil {
		return nil, a.err
	}
	op := fmt.Sprintf("delete snapshot %s/%s", s.Namespace, s.Name)
	return nil, fault.Wrap(op, nil, o.gone(ctx, s), "")
}

// gone deletes a snapshot, if it is there, and waits until it is not.
func (o Options) gone(ctx context.Context, s *snapshotv1.VolumeSnapshot) error {
	if err := o.remove(ctx, s); err != nil {
		return err
	}
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		err := o.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(s), &snapshotv1.VolumeSnapshot{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// deleteSnapshotContent deletes a snapshot's content. It does not wait: content that a snapshot is bound to stays as long as that does.
func (o Options) deleteSnapshotContent(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: a.text("name")}}
	if a.err != nil {
		return nil, a.err
	}
	return nil, fault.Wrap("delete content "+content.Name, nil, o.remove(ctx, content), "")
}

// remove deletes an object, if it is there.
func (o Options) remove(ctx context.Context, object client.Object) error {
	return o.call(ctx, func(ctx context.Context) error {
		return client.IgnoreNotFound(o.Cluster.Client.Delete(ctx, object))
	})
}

// make creates an object, or finds the one that an earlier run of this phase created. One of the same name that is somebody else's is
// fault.ErrExists.
func (o Options) make(ctx context.Context, c blueprint.Call, object client.Object) error {
	annotations := maps.Clone(object.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationPhase] = c.ID
	object.SetAnnotations(annotations)
	return o.call(ctx, func(ctx context.Context) error {
		err := o.Cluster.Client.Create(ctx, object)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		if err := kube.Refresh(ctx, o.Cluster.Client, object); err != nil {
			return err
		}
		if object.GetAnnotations()[annotationPhase] != c.ID {
			return err
		}
		return nil
	})
}

// awaitSnapshot waits until volumes can be made of a snapshot.
func (o Options) awaitSnapshot(ctx context.Context, s *snapshotv1.VolumeSnapshot) error {
	var trouble string
	var since time.Time
	return o.await(ctx, func(ctx context.Context) (bool, error) {
		if err := kube.Refresh(ctx, o.Cluster.Client, s); err != nil {
			return false, err
		}
		if s.Status == nil {
			return false, nil
		}
		if s.Status.ReadyToUse != nil && *s.Status.ReadyToUse && s.Status.BoundVolumeSnapshotContentName != nil {
			return true, nil
		}
		if s.Status.Error == nil || s.Status.Error.Message == nil {
			trouble = ""
			return false, nil
		}
		if trouble == "" {
			since = o.Now()
		}
		trouble = *s.Status.Error.Message
		if o.Now().Sub(since) < snapshotGrace {
			return false, nil
		}
		return false, fault.New("", fault.ErrUnavailable, "the driver says: "+trouble[:min(len(trouble), mostOfDriver)], "")
	})
}

// restoreSize is how large a volume has to be that is made of a snapshot: as the driver says, else as large as the claim is.
func (o Options) restoreSize(ctx context.Context, s *snapshotv1.VolumeSnapshot, claim string) (string, error) {
	if s.Status.RestoreSize != nil && !s.Status.RestoreSize.IsZero() {
		return s.Status.RestoreSize.String(), nil
	}
	var pvc corev1.PersistentVolumeClaim
	err := o.call(ctx, func(ctx context.Context) error {
		return o.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: claim}, &pvc)
	})
	size := pvc.Status.Capacity[corev1.ResourceStorage]
	if size.IsZero() {
		size = pvc.Spec.Resources.Requests[corev1.ResourceStorage]
	}
	return size.String(), err
}
