package volume

import (
	"context"
	"errors"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Tidy removes what Keepers made for owners that are not active any more: movers with their Secrets, clones, static contents and
// snapshots, and labels left on claims. What carries LabelPoint or LabelUndo is kept on purpose and left alone. It goes on after a
// failure, and says what it removed. The Keeper needs no owner.
func (k *Keeper) Tidy(ctx context.Context, active func(uid string) bool) (removed []string, err error) {
	var failures []error
	note := func(objects []client.Object, err error) {
		for _, object := range objects {
			removed = append(removed, describe(object))
		}
		failures = append(failures, err)
	}
	owned := client.HasLabels{v1alpha1.LabelOwner}
	for _, list := range []client.ObjectList{
		&batchv1.JobList{}, &corev1.PodList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{},
	} {
		note(k.sweep(ctx, list, active, owned, client.InNamespace(k.System)))
	}
	note(k.sweepSnapshots(ctx, owned, active))
	note(k.sweep(ctx, &snapshotv1.VolumeSnapshotContentList{}, active, owned))
	note(k.unlabel(ctx, active))
	return removed, fault.Wrap("tidy up volumes", nil, errors.Join(failures...), "")
}

// sweepSnapshots deletes the snapshots and group snapshots, in all namespaces, whose owner is not active.
func (k *Keeper) sweepSnapshots(ctx context.Context, which client.ListOption, active func(string) bool) ([]client.Object, error) {
	var groups []client.Object
	version, found, groupErr := k.groupVersion()
	if found {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(version.WithKind(kindGroupSnapshot + "List"))
		groups, groupErr = k.sweep(ctx, &list, active, which)
	}
	snapshots, err := k.sweep(ctx, &snapshotv1.VolumeSnapshotList{}, active, which)
	return append(groups, snapshots...), errors.Join(groupErr, err)
}

// sweep deletes the objects of a list whose owner is not active. A kind that the cluster does not know has none.
func (k *Keeper) sweep(ctx context.Context, list client.ObjectList, active func(string) bool, which ...client.ListOption) ([]client.Object, error) {
	objects, err := k.list(ctx, list, which...)
	if err != nil {
		return nil, err
	}
	var swept []client.Object
	var failures []error
	for _, object := range objects {
		labels := object.GetLabels()
		if labels[v1alpha1.LabelPoint] != "" || labels[v1alpha1.LabelUndo] != "" || active(labels[v1alpha1.LabelOwner]) {
			continue
		}
		if err := k.drop(ctx, object); err != nil {
			failures = append(failures, err)
			continue
		}
		swept = append(swept, object)
	}
	return swept, errors.Join(failures...)
}

// drop deletes an object; of a snapshot also what the driver holds, whatever its class says.
func (k *Keeper) drop(ctx context.Context, object client.Object) error {
	var err error
	switch o := object.(type) {
	case *snapshotv1.VolumeSnapshot:
		// Static ones, of the system namespace, only stand for a snapshot that is another's.
		if o.Status != nil && o.Status.BoundVolumeSnapshotContentName != nil && o.Spec.Source.PersistentVolumeClaimName != nil {
			content := &unstructured.Unstructured{}
			content.SetGroupVersionKind(snapshotv1.SchemeGroupVersion.WithKind("VolumeSnapshotContent"))
			content.SetName(*o.Status.BoundVolumeSnapshotContentName)
			err = k.letGo(ctx, content, "volumeSnapshotRef", o)
		}
	case *unstructured.Unstructured:
		if name, _, _ := unstructured.NestedString(o.Object, "status", "boundVolumeGroupSnapshotContentName"); name != "" {
			content := &unstructured.Unstructured{}
			content.SetGroupVersionKind(o.GroupVersionKind().GroupVersion().WithKind(kindGroupContent))
			content.SetName(name)
			err = k.letGo(ctx, content, "volumeGroupSnapshotRef", o)
		}
	}
	if err != nil {
		return err
	}
	return k.remove(ctx, object)
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

// unlabel takes the label of groups off claims whose owner is not active.
func (k *Keeper) unlabel(ctx context.Context, active func(string) bool) ([]client.Object, error) {
	claims, err := k.list(ctx, &corev1.PersistentVolumeClaimList{}, client.HasLabels{LabelSnapshot})
	if err != nil {
		return nil, err
	}
	var done []client.Object
	var failures []error
	for _, claim := range claims {
		owner, _, _ := strings.Cut(claim.GetLabels()[LabelSnapshot], ".")
		if active(owner) {
			continue
		}
		if err := k.mark(ctx, claim, map[string]any{LabelSnapshot: nil}, nil); client.IgnoreNotFound(err) != nil {
			failures = append(failures, err)
			continue
		}
		done = append(done, claim)
	}
	return done, errors.Join(failures...)
}
