package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Taken is a volume that a Restore took from behind a claim, and keeps.
type Taken struct {
	Volume    string
	Namespace string
	Claim     string
}

type taken struct {
	volume corev1.PersistentVolume
	record *record
}

// TakenBy lists the volumes that a Restore took from behind claims and that are still kept, by their claims.
func (r *Restorer) TakenBy(ctx context.Context, restore string) ([]Taken, error) {
	all, err := r.taken(ctx, restore)
	var list []Taken
	for _, t := range all {
		list = append(list, Taken{t.volume.Name, t.record.Claim.Namespace, t.record.Claim.Name})
	}
	return list, err
}

// Undo puts a volume that a Restore took out back behind its claim. The volume that is there now is kept in its stead, by r.Owner: an
// undo can be undone. With r.Owner the Restore itself it is what a Restore does that fails: what it had begun is taken back, too. No
// pod may use the claim.
func (r *Restorer) Undo(ctx context.Context, t Taken) error {
	err := r.undo(ctx, t)
	return fault.Wrap(fmt.Sprintf("put volume %s back behind claim %s/%s", t.Volume, t.Namespace, t.Claim), nil, err, "")
}

func (r *Restorer) undo(ctx context.Context, t Taken) error {
	var v corev1.PersistentVolume
	if err := r.Cluster.Client.Get(ctx, client.ObjectKey{Name: t.Volume}, &v); err != nil {
		return readFault("read volume "+t.Volume, err)
	}
	if v.Labels[v1alpha1.LabelUndo] == "" && v.Annotations[AnnotationExchange] == "" { // an earlier call came to the end
		return nil
	}
	rec, err := parseRecord(v.Annotations[AnnotationTaken])
	if err != nil {
		return err
	}
	live, err := r.liveClaim(ctx, key(rec.Claim))
	if err != nil {
		return err
	}
	if live != nil && live.Spec.VolumeName == v.Name && v.Annotations[AnnotationExchange] == "" { // it never left
		if live.DeletionTimestamp == nil {
			return r.stay(ctx, rec, v.Name)
		}
		if err := r.deleteClaim(ctx, live); err != nil {
			return err
		}
	}
	_, err = r.swap(ctx, Exchange{Claim: *rec.Claim, NewVolume: v.Name})
	return err
}

// stay gives up an exchange of which nothing was done but to write it down.
func (r *Restorer) stay(ctx context.Context, rec *record, volume string) error {
	if err := r.standDown(ctx, key(rec.Claim), volume); err != nil {
		return err
	}
	return r.finish(ctx, rec, volume)
}

// DeleteUndo deletes the volumes kept for undo whose time is over, with what is in them. Those of a class that retains volumes are
// only let go, as the class wants it: their names are returned.
func (r *Restorer) DeleteUndo(ctx context.Context) (retained []string, err error) {
	all, err := r.taken(ctx, "")
	if err != nil {
		return nil, err
	}
	now := r.Now()
	for _, t := range all {
		if now.Before(t.record.Until.Time) || t.volume.Annotations[AnnotationExchange] != "" {
			continue
		}
		kept, err := r.letGo(ctx, t)
		if err != nil {
			return retained, err
		}
		if kept {
			retained = append(retained, t.volume.Name)
		}
	}
	return retained, nil
}

// DropUndo deletes the volumes that a Restore keeps for undo, whatever their time.
func (r *Restorer) DropUndo(ctx context.Context, restore string) (retained []string, err error) {
	all, err := r.taken(ctx, restore)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.volume.Annotations[AnnotationExchange] != "" {
			continue
		}
		kept, err := r.letGo(ctx, t)
		if err != nil {
			return retained, err
		}
		if kept {
			retained = append(retained, t.volume.Name)
		}
	}
	return retained, nil
}

// letGo makes of a volume kept for undo what Kubernetes makes of one whose claim is deleted.
func (r *Restorer) letGo(ctx context.Context, t taken) (retained bool, err error) {
	used, err := r.inUse(ctx, &t.volume)
	if err != nil {
		return false, err
	}
	err = r.changeVolume(ctx, t.volume.Name, func(v *corev1.PersistentVolume) {
		delete(v.Labels, v1alpha1.LabelUndo)
		delete(v.Annotations, AnnotationTaken)
		v.Spec.PersistentVolumeReclaimPolicy = t.record.Reclaim
	})
	if errors.Is(err, fault.ErrNotFound) {
		return false, nil
	}
	return !used && t.record.Reclaim == corev1.PersistentVolumeReclaimRetain, err
}

// taken lists the volumes kept for undo of one Restore, or of all where restore is empty, by their claims.
func (r *Restorer) taken(ctx context.Context, restore string) ([]taken, error) {
	var volumes corev1.PersistentVolumeList
	if err := r.Cluster.Client.List(ctx, &volumes, client.HasLabels{v1alpha1.LabelUndo}); err != nil {
		return nil, readFault("list volumes", err)
	}
	var all []taken
	var broken error
	for _, v := range volumes.Items {
		if restore != "" && v.Labels[v1alpha1.LabelUndo] != restore {
			continue
		}
		rec, err := parseRecord(v.Annotations[AnnotationTaken])
		if err != nil {
			broken = errors.Join(broken, fault.Wrap("volume "+v.Name, nil, err, ""))
			continue
		}
		all = append(all, taken{v, rec})
	}
	if restore != "" && broken != nil {
		return nil, broken
	}
	slices.SortFunc(all, func(a, b taken) int {
		return cmp.Compare(a.record.Claim.Namespace+"/"+a.record.Claim.Name, b.record.Claim.Namespace+"/"+b.record.Claim.Name)
	})
	return all, nil
}

// TidyVolumes puts right what ended Restores left of their exchanges: a claim that was deleted comes back with the volume that it
// had, a filled volume that is behind its claim becomes an ordinary one, any other is deleted. active says whether the Restore of a uid
// is still under way.
func (r *Restorer) TidyVolumes(ctx context.Context, active func(uid string) bool) error {
	var volumes corev1.PersistentVolumeList
	if err := r.Cluster.Client.List(ctx, &volumes, client.HasLabels{v1alpha1.LabelOwner}); err != nil {
		return readFault("list volumes", err)
	}
	var errs []error
	for _, v := range volumes.Items {
		if owner := v.Labels[v1alpha1.LabelOwner]; !active(owner) {
			errs = append(errs, fault.Wrap("tidy volume "+v.Name, nil, r.of(owner).tidyVolume(ctx, &v), ""))
		}
	}
	kept, err := r.taken(ctx, "")
	errs = append(errs, err)
	for _, t := range kept {
		if owner := t.volume.Labels[v1alpha1.LabelUndo]; !active(owner) {
			errs = append(errs, fault.Wrap("tidy volume "+t.volume.Name, nil, r.of(owner).tidyTaken(ctx, t), ""))
		}
	}
	return errors.Join(errs...)
}

// of is r for another Restore.
func (r *Restorer) of(owner string) *Restorer {
	other := *r
	other.Owner = owner
	return &other
}

// tidyVolume puts right one volume that was on its way behind a claim.
func (r *Restorer) tidyVolume(ctx context.Context, v *corev1.PersistentVolume) error {
	if text := v.Annotations[AnnotationExchange]; text != "" {
		rec, err := parseRecord(text)
		if err != nil {
			return err
		}
		live, err := r.liveClaim(ctx, key(rec.Claim))
		switch {
		case err != nil:
			return err
		case live != nil && live.Spec.VolumeName == v.Name:
			return r.finish(ctx, rec, v.Name)
		case live != nil && live.Spec.VolumeName == "":
			return nil // it is about to be bound; the next time will tell
		case live == nil && rec.UID != "" && rec.Volume != "":
			if err := r.bringBack(ctx, rec); err != nil {
				return err
			}
		}
	}
	if v.Labels[v1alpha1.LabelUndo] != "" { // of an undo that was given up: it is kept as before
		return r.changeVolume(ctx, v.Name, func(v *corev1.PersistentVolume) {
			r.withdraw(v)
			delete(v.Labels, v1alpha1.LabelOwner)
		})
	}
	used, err := r.inUse(ctx, v)
	if err != nil || used { // by the claim it is filled through, which is tidied by itself
		return err
	}
	return r.deleteVolume(ctx, v)
}

// bringBack creates a claim that was deleted again, with the volume that it had, if its namespace is still there.
func (r *Restorer) bringBack(ctx context.Context, rec *record) error {
	var ns corev1.Namespace
	err := r.Cluster.Client.Get(ctx, client.ObjectKey{Name: rec.Claim.Namespace}, &ns)
	if apierrors.IsNotFound(err) || (err == nil && ns.DeletionTimestamp != nil) {
		return nil
	}
	if err != nil {
		return readFault("read namespace "+rec.Claim.Namespace, err)
	}
	return r.undo(ctx, Taken{Volume: rec.Volume, Namespace: rec.Claim.Namespace, Claim: rec.Claim.Name})
}

// tidyTaken makes a volume that was marked as taken out, but never left its claim, an ordinary one.
func (r *Restorer) tidyTaken(ctx context.Context, t taken) error {
	if t.volume.Annotations[AnnotationExchange] != "" {
		return nil
	}
	live, err := r.liveClaim(ctx, key(t.record.Claim))
	if err != nil || live == nil || live.DeletionTimestamp != nil || live.Spec.VolumeName != t.volume.Name {
		return err
	}
	return r.stay(ctx, t.record, t.volume.Name)
}

// deleteVolume deletes a volume that Backstay made, and what its driver keeps behind it. Only the cluster's own controller does that,
// and only to a volume whose claim is gone.
func (r *Restorer) deleteVolume(ctx context.Context, v *corev1.PersistentVolume) error {
	err := r.changeVolume(ctx, v.Name, func(v *corev1.PersistentVolume) {
		if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == "" {
			r.withdraw(v)
		}
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		delete(v.Annotations, AnnotationExchange)
	})
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}
