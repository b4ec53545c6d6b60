package volume

import (
	"context"
	"errors"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Tidy removes what Keepers made for owners that are not active any more: movers with their Secrets, clones, static contents and
// snapshots, and labels left on claims. What carries LabelPoint or LabelUndo is kept on purpose and left alone. active is asked after
// everything was listed: one that reads the owners when it is asked first takes nobody for gone who is new. Tidy goes on after a
// failure, and says what it removed. The Keeper needs no owner.
func (k *Keeper) Tidy(ctx context.Context, active func(uid string) bool) (removed []string, err error) {
	const op = "tidy up volumes"
	made, err := k.made(ctx, client.HasLabels{v1alpha1.LabelOwner})
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	marked, err := k.list(ctx, &corev1.PersistentVolumeClaimList{}, client.HasLabels{LabelSnapshot})
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var failures []error
	note := func(object client.Object, err error) {
		if err != nil {
			failures = append(failures, err)
			return
		}
		removed = append(removed, describe(object))
	}
	for _, object := range made {
		if !active(object.GetLabels()[v1alpha1.LabelOwner]) {
			note(object, k.drop(ctx, object))
		}
	}
	for _, claim := range marked {
		if !active(markedBy(claim)) {
			note(claim, k.unmark(ctx, claim))
		}
	}
	return removed, fault.Wrap(op, nil, errors.Join(failures...), "")
}

// made lists what Keepers made and did not keep: in Backstay's own namespace, and snapshots everywhere.
func (k *Keeper) made(ctx context.Context, which client.ListOption) ([]client.Object, error) {
	var made []client.Object
	for _, list := range []client.ObjectList{
		&batchv1.JobList{}, &corev1.PodList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{},
	} {
		objects, err := k.list(ctx, list, which, client.InNamespace(k.System))
		if err != nil {
			return nil, err
		}
		made = append(made, objects...)
	}
	snapshots, err := k.snapshots(ctx, which)
	if err != nil {
		return nil, err
	}
	contents, err := k.list(ctx, &snapshotv1.VolumeSnapshotContentList{}, which)
	made = append(append(made, snapshots...), contents...)
	return slices.DeleteFunc(made, func(object client.Object) bool {
		labels := object.GetLabels()
		return labels[v1alpha1.LabelPoint] != "" || labels[v1alpha1.LabelUndo] != ""
	}), err
}

// snapshots lists group snapshots and snapshots, in this order, in all namespaces.
func (k *Keeper) snapshots(ctx context.Context, which ...client.ListOption) ([]client.Object, error) {
	version, found, err := k.groupVersion()
	if err != nil {
		return nil, err
	}
	var groups []client.Object
	if found {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(version.WithKind(kindGroupSnapshot + "List"))
		if groups, err = k.list(ctx, &list, which...); err != nil {
			return nil, err
		}
	}
	snapshots, err := k.list(ctx, &snapshotv1.VolumeSnapshotList{}, which...)
	return append(groups, snapshots...), err
}

// dropAll deletes objects, and goes on after a failure.
func (k *Keeper) dropAll(ctx context.Context, objects []client.Object) error {
	var failures []error
	for _, object := range objects {
		failures = append(failures, k.drop(ctx, object))
	}
	return errors.Join(failures...)
}

// markedBy is the owner whose label is on a claim.
func markedBy(claim client.Object) string {
	owner, _, _ := strings.Cut(claim.GetLabels()[LabelSnapshot], ".")
	return owner
}

// unmark takes the label of a group off a claim.
func (k *Keeper) unmark(ctx context.Context, claim client.Object) error {
	return ignoreNotFound(k.mark(ctx, claim, map[string]any{LabelSnapshot: nil}, nil))
}

// drop deletes an object; of a snapshot also what the driver holds, whatever its class says.
func (k *Keeper) drop(ctx context.Context, object client.Object) error {
	var err error
	switch o := object.(type) {
	case *snapshotv1.VolumeSnapshot:
		// Static ones, of the system namespace, only stand for a snapshot that is another's.
		if o.Spec.Source.PersistentVolumeClaimName != nil {
			err = k.letGo(ctx, contentOf(o), "volumeSnapshotRef", o)
		}
	case *unstructured.Unstructured:
		err = k.letGroupGo(ctx, o)
	}
	if err != nil {
		return err
	}
	return k.remove(ctx, object)
}

// contentOf names the content of a snapshot; while that does not know its content, by the name that snapshot controllers give it.
func contentOf(s *snapshotv1.VolumeSnapshot) *unstructured.Unstructured {
	content := &unstructured.Unstructured{}
	content.SetGroupVersionKind(snapshotv1.SchemeGroupVersion.WithKind("VolumeSnapshotContent"))
	content.SetName(dynamicContent(s))
	if s.Status != nil && s.Status.BoundVolumeSnapshotContentName != nil {
		content.SetName(*s.Status.BoundVolumeSnapshotContentName)
	}
	return content
}

func dynamicContent(s *snapshotv1.VolumeSnapshot) string { return "snapcontent-" + string(s.UID) }

// letGroupGo lets go of a group's content and of those of its members, which may not have been made ours yet.
func (k *Keeper) letGroupGo(ctx context.Context, group *unstructured.Unstructured) error {
	members, err := k.members(ctx, group)
	if err != nil {
		return err
	}
	for _, member := range members {
		if err := k.letGo(ctx, contentOf(member), "volumeSnapshotRef", member); err != nil {
			return err
		}
	}
	name, _, _ := unstructured.NestedString(group.Object, "status", "boundVolumeGroupSnapshotContentName")
	if name == "" {
		return nil
	}
	content := &unstructured.Unstructured{}
	content.SetGroupVersionKind(group.GroupVersionKind().GroupVersion().WithKind(kindGroupContent))
	content.SetName(name)
	return k.letGo(ctx, content, "volumeGroupSnapshotRef", group)
}

// letGo has the driver delete what a content stands for when its snapshot goes: a class may say Retain, and nobody would ever find what
// is left. A content that is not of this snapshot is left alone, whatever the snapshot says.
func (k *Keeper) letGo(ctx context.Context, content *unstructured.Unstructured, reference string, snapshot client.Object) error {
	return k.call(ctx, "release "+describe(content), func(ctx context.Context) error {
		if err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(content), content); err != nil {
			return client.IgnoreNotFound(err)
		}
		uid, _, _ := unstructured.NestedString(content.Object, "spec", reference, "uid")
		policy, _, _ := unstructured.NestedString(content.Object, "spec", "deletionPolicy")
		if uid != string(snapshot.GetUID()) || policy == string(snapshotv1.VolumeSnapshotContentDelete) {
			return nil
		}
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"deletionPolicy":"Delete"}}`))
		return client.IgnoreNotFound(k.Cluster.Client.Patch(ctx, content, patch))
	})
}
