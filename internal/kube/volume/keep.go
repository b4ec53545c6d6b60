package volume

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// labelSeries is on snapshots that are kept, and says of which application and policy: Options.Series, digested.
const labelSeries = v1alpha1.Group + "/series"

// Forget deletes the snapshots of this owner. It does not wait until they are gone.
func (k *Keeper) Forget(ctx context.Context) error {
	made, err := k.snapshots(ctx, client.MatchingLabels{v1alpha1.LabelOwner: k.Owner})
	return fault.Wrap("delete snapshots", nil, errors.Join(err, k.dropAll(ctx, made)), "")
}

// Keep keeps the snapshots of these volumes on the cluster, as those of a point: they belong to no owner any more. Snapshots that are
// gone are passed over.
func (k *Keeper) Keep(ctx context.Context, vols []v1alpha1.VolumeStatus, pointID string) error {
	labels := map[string]any{v1alpha1.LabelOwner: nil, v1alpha1.LabelPoint: pointID, labelSeries: digest(k.Series)}
	made, err := k.snapshots(ctx, client.MatchingLabels{v1alpha1.LabelOwner: k.Owner})
	if err != nil {
		return fault.Wrap("keep snapshots", nil, err, "")
	}
	wanted := map[string]bool{}
	for _, v := range vols {
		wanted[v.Namespace+"/"+v.Snapshot] = v.Problem == ""
	}
	var failures []error
	for _, object := range made { // groups first: their members go with them
		_, single := object.(*snapshotv1.VolumeSnapshot)
		if !single || wanted[object.GetNamespace()+"/"+object.GetName()] {
			failures = append(failures, ignoreNotFound(k.mark(ctx, object, labels, nil)))
		}
	}
	return fault.Wrap("keep snapshots", nil, errors.Join(failures...), "")
}

// KeepNewest deletes the kept snapshots of all but the newest n points of the series.
func (k *Keeper) KeepNewest(ctx context.Context, n int) error {
	const op = "trim kept snapshots"
	kept, err := k.kept(ctx, client.MatchingLabels{labelSeries: digest(k.Series)})
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	newest := map[string]time.Time{}
	for _, s := range kept {
		point := s.GetLabels()[v1alpha1.LabelPoint]
		if at := s.GetCreationTimestamp().Time; at.After(newest[point]) {
			newest[point] = at
		}
	}
	points := slices.SortedFunc(maps.Keys(newest), func(a, b string) int {
		return cmp.Or(newest[b].Compare(newest[a]), cmp.Compare(a, b))
	})
	old := slices.DeleteFunc(kept, func(s client.Object) bool {
		number := slices.Index(points, s.GetLabels()[v1alpha1.LabelPoint])
		return number < n
	})
	return fault.Wrap(op, nil, k.dropAll(ctx, old), "")
}

// ForgetPoint deletes the kept snapshots of a point.
func (k *Keeper) ForgetPoint(ctx context.Context, pointID string) error {
	kept, err := k.kept(ctx, client.MatchingLabels{v1alpha1.LabelPoint: pointID})
	return fault.Wrap("delete the snapshots of point "+pointID, nil, errors.Join(err, k.dropAll(ctx, kept)), "")
}

// Kept finds the snapshots that are kept of a point, by namespace and claim.
func (k *Keeper) Kept(ctx context.Context, pointID string) (map[types.NamespacedName]*snapshotv1.VolumeSnapshot, error) {
	kept, err := k.kept(ctx, client.MatchingLabels{v1alpha1.LabelPoint: pointID})
	if err != nil {
		return nil, fault.Wrap("find the snapshots of point "+pointID, nil, err, "")
	}
	found := map[types.NamespacedName]*snapshotv1.VolumeSnapshot{}
	for _, object := range kept {
		s, ok := object.(*snapshotv1.VolumeSnapshot)
		if !ok || s.DeletionTimestamp != nil {
			continue
		}
		if from, err := sourceOf(s); err == nil { // else nobody can tell what it is of
			found[types.NamespacedName{Namespace: s.Namespace, Name: from.Claim}] = s
		}
	}
	return found, nil
}

// kept lists the snapshots and group snapshots that are kept, groups first.
func (k *Keeper) kept(ctx context.Context, which client.ListOption) ([]client.Object, error) {
	return k.snapshots(ctx, which, client.HasLabels{v1alpha1.LabelPoint}, client.InNamespace(k.Within))
}
