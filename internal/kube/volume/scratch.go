package volume

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// provisionedBy is on volumes that a driver made for a claim. Others are somebody's who would miss them.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

// GiveUp makes the volumes behind the claims of a namespace, all of whose content is a copy, go with their claims, whatever their class
// says of volumes whose claim is deleted.
func (r *Restorer) GiveUp(ctx context.Context, namespace string) error {
	all, err := r.volumes(ctx, client.MatchingLabels{})
	if err != nil {
		return fault.Wrap("give up volumes of "+namespace, nil, err, "")
	}
	for _, v := range all {
		if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Namespace != namespace || v.Annotations[provisionedBy] == "" {
			continue
		}
		err := r.changeVolume(ctx, v.Name, func(v *corev1.PersistentVolume) {
			setLabel(v, v1alpha1.LabelOwner, r.Owner)
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		})
		if err := ignoreNotFound(err); err != nil {
			return fault.Wrap("give up volumes of "+namespace, nil, err, "")
		}
	}
	return nil
}

// AllGone waits until no volume of this owner is left.
func (r *Restorer) AllGone(ctx context.Context) error {
	var left []string
	err := r.until(ctx, "wait until volumes are gone", func(ctx context.Context) (bool, error) {
		own, err := r.volumes(ctx, client.MatchingLabels{v1alpha1.LabelOwner: r.Owner})
		left = left[:0]
		for _, v := range own {
			left = append(left, v.Name)
		}
		return err == nil && len(own) == 0, err
	})
	if err != nil && len(left) > 0 {
		slices.Sort(left)
		return fault.Wrap("volumes "+strings.Join(left, ", "), nil, err, "")
	}
	return err
}
