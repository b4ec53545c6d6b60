package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// taken is a volume that a Restore took from behind a claim, and keeps.
type taken struct {
	volume corev1.PersistentVolume
	record *record
}

// Undo puts the volumes that a Restore took out, and that are still kept, back behind their claims, and says how each claim is now. The
// volumes that were there are kept in their stead, by r.Owner: an undo can be undone. No pod may use the claims. Nothing to undo is
// fault.ErrNotFound.
func (r *Restorer) Undo(ctx context.Context, restore string) ([]v1alpha1.VolumeStatus, error) {
	op := "undo restore " + restore
	all, err := r.taken(ctx, restore)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	for _, t := range all {
		if err := r.undo(ctx, t, Exchange{}); err != nil {
			return nil, fault.Wrap(fmt.Sprintf("%s: claim %s", op, key(t.record.Claim)), nil, err, "")
		}
	}
	done, err := r.taken(ctx, r.Owner) // with those of an earlier call
	if err == nil && len(done) == 0 {
		err = fault.New("", fault.ErrNotFound, "no volume is kept of it", "volumes are kept as long as keepOld of the restore says")
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var vols []v1alpha1.VolumeStatus
	for _, t := range done {
		c := t.record.Claim
		vols = append(vols, v1alpha1.VolumeStatus{
			Namespace: c.Namespace, Claim: c.Name, Part: PartName(c.Namespace, c.Name), Method: v1alpha1.MethodNone,
			Block: isBlock(c.Spec.VolumeMode), Stored: true, OldVolume: t.volume.Name, NewVolume: t.record.By,
		})
	}
	return vols, nil
}

// TakeBack undoes what this Restore itself did to claims and volumes so far: what a Restore does that fails. What uses the claims is
// stopped, if it is not, and left for Start. Volumes that were filled are deleted. If a claim cannot be put back all stay as they are.
func (r *Restorer) TakeBack(ctx context.Context) error {
	return fault.Wrap("take the exchange of volumes back", nil, r.takeBack(ctx), "")
}

func (r *Restorer) takeBack(ctx context.Context) error {
	all, err := r.taken(ctx, r.Owner)
	if err != nil {
		return err
	}
	var claims []types.NamespacedName
	all = slices.DeleteFunc(all, func(t taken) bool { return t.record.Back })
	for _, t := range all {
		claims = append(claims, key(t.record.Claim))
	}
	if len(claims) > 0 {
		if _, err := r.Stop(ctx, claims); err != nil {
			return err
		}
	}
	var errs []error
	for _, t := range all {
		gone, err := r.namespaceGone(ctx, t.record.Claim.Namespace)
		if err == nil && !gone {
			err = r.undo(ctx, t, Exchange{back: true, discard: t.record.Filled})
		}
		errs = append(errs, err)
	}
	own, err := r.volumes(ctx, client.MatchingLabels{v1alpha1.LabelOwner: r.Owner})
	errs = append(errs, err)
	for i := range own {
		errs = append(errs, fault.Wrap("volume "+own[i].Name, nil, r.tidyVolume(ctx, &own[i]), ""))
	}
	return errors.Join(errs...)
}

// namespaceGone reports whether there is nothing left of a namespace that a claim could come back to.
func (r *Restorer) namespaceGone(ctx context.Context, name string) (bool, error) {
	var ns corev1.Namespace
	err := r.call(ctx, "read namespace "+name, func(ctx context.Context) error {
		return client.IgnoreNotFound(r.Cluster.Client.Get(ctx, client.ObjectKey{Name: name}, &ns))
	})
	return ns.UID == "" || ns.DeletionTimestamp != nil, err
}

// undo puts one volume back behind its claim.
func (r *Restorer) undo(ctx context.Context, t taken, x Exchange) error {
	name := t.volume.Name
	live, err := r.liveClaim(ctx, key(t.record.Claim))
	if err != nil {
		return err
	}
	if live != nil && live.Spec.VolumeName == name && t.volume.Annotations[AnnotationExchange] == "" { // it never left
		if live.DeletionTimestamp == nil {
			return r.stay(ctx, t.record, name)
		}
		if err := r.deleteClaim(ctx, live); err != nil {
			return err
		}
	}
	x.Claim, x.NewVolume, x.known = *t.record.Claim, name, true
	_, err = r.swap(ctx, x)
	return err
}

// stay gives up an exchange of which nothing was done but to write it down.
func (r *Restorer) stay(ctx context.Context, rec *record, volume string) error {
	if err := r.standDown(ctx, key(rec.Claim), volume); err != nil {
		return err
	}
	return r.finish(ctx, rec, volume)
}

// DeleteUndo deletes the volumes kept for undo whose time is over, of whatever Restore that has ended. Those that a failed one took out
// are to come back, and stay until TidyVolumes has seen to that. active says whether the Restore of a uid is still under way. It goes on
// after a failure.
func (r *Restorer) DeleteUndo(ctx context.Context, active func(uid string) bool) error {
	all, err := r.taken(ctx, "")
	errs := []error{err}
	restores, err := r.restores(ctx)
	if err != nil {
		return fault.Wrap("delete volumes kept for undo", nil, errors.Join(append(errs, err)...), "")
	}
	for _, t := range all {
		restore, back := t.volume.Labels[v1alpha1.LabelUndo], false
		if r.Now().Before(t.record.Until.Time) || active(restore) {
			continue
		}
		if restores[restore] == v1alpha1.PhaseFailed && !t.record.Back {
			gone, err := r.namespaceGone(ctx, t.record.Claim.Namespace)
			errs, back = append(errs, err), !gone
		}
		if !back {
			errs = append(errs, r.letGo(ctx, t))
		}
	}
	return fault.Wrap("delete volumes kept for undo", nil, errors.Join(errs...), "")
}

// Discard deletes the volumes that this Restore, which came to its end, took out of use and that nobody is to put back.
func (r *Restorer) Discard(ctx context.Context) error {
	own, err := r.taken(ctx, r.Owner)
	errs := []error{err}
	for _, t := range own {
		if !r.Now().Before(t.record.Until.Time) {
			errs = append(errs, r.letGo(ctx, t))
		}
	}
	return fault.Wrap("delete volumes taken out of use", nil, errors.Join(errs...), "")
}

// letGo makes of a volume kept for undo what Kubernetes makes of one whose claim is deleted: by its own policy it is deleted with what
// is in it, or stays. One that stays keeps the record of what it was.
func (r *Restorer) letGo(ctx context.Context, t taken) error {
	err := r.changeVolume(ctx, t.volume.Name, func(v *corev1.PersistentVolume) {
		if v.Annotations[AnnotationExchange] != "" { // it is on its way back
			return
		}
		delete(v.Labels, v1alpha1.LabelUndo)
		if t.record.Reclaim != corev1.PersistentVolumeReclaimRetain {
			delete(v.Annotations, AnnotationTaken)
		}
		v.Spec.PersistentVolumeReclaimPolicy = t.record.Reclaim
	})
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}

// taken lists the volumes kept for undo of one Restore, or of all where restore is empty, by their claims.
func (r *Restorer) taken(ctx context.Context, restore string) ([]taken, error) {
	volumes, err := r.volumes(ctx, client.HasLabels{v1alpha1.LabelUndo})
	if err != nil {
		return nil, err
	}
	var all []taken
	var broken error
	for _, v := range volumes {
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
	slices.SortFunc(all, func(a, b taken) int {
		return cmp.Compare(a.record.Claim.Namespace+"/"+a.record.Claim.Name, b.record.Claim.Namespace+"/"+b.record.Claim.Name)
	})
	return all, broken
}

// TidyVolumes puts right what ended Restores left of their exchanges. What one did that was cut short, or failed, is taken back; of one
// that came to its end only volumes that it filled and did not use are deleted. active says whether the Restore of a uid is still under
// way. It is to come before StartAll and DeleteUndo, and goes on after a failure.
func (r *Restorer) TidyVolumes(ctx context.Context, active func(uid string) bool) error {
	const op = "put volumes right"
	left, err := r.volumes(ctx, client.HasLabels{v1alpha1.LabelOwner})
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	kept, broken := r.taken(ctx, "")
	restores, err := r.restores(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	done, back := map[string]bool{}, map[string]bool{} // back: with all of its volumes
	for uid, phase := range restores {
		done[uid] = phase == v1alpha1.PhaseComplete || phase == v1alpha1.PhaseIncomplete
	}
	for _, t := range kept {
		restore := t.volume.Labels[v1alpha1.LabelUndo]
		back[restore] = back[restore] || restores[restore] == v1alpha1.PhaseFailed && !t.record.Back
	}
	for _, v := range left {
		owner := v.Labels[v1alpha1.LabelOwner]
		_, known := restores[owner]
		back[owner] = back[owner] || !done[owner] && (known || v.Annotations[AnnotationExchange] != "")
	}
	errs := []error{broken}
	for _, restore := range slices.Sorted(maps.Keys(back)) {
		if back[restore] && !active(restore) {
			errs = append(errs, fault.Wrap("restore "+restore, nil, r.of(restore).takeBack(ctx), ""))
		}
	}
	for i := range left {
		if owner := left[i].Labels[v1alpha1.LabelOwner]; !back[owner] && !active(owner) {
			errs = append(errs, fault.Wrap("volume "+left[i].Name, nil, r.of(owner).tidyVolume(ctx, &left[i]), ""))
		}
	}
	return fault.Wrap(op, nil, errors.Join(errs...), "")
}

// Exchanged reports whether claims have volumes by this Restore, or are about to. Then what uses them is to start only when it is to work
// with those.
func (r *Restorer) Exchanged(ctx context.Context) (bool, error) {
	own, broken := r.taken(ctx, r.Owner)
	left, err := r.volumes(ctx, client.MatchingLabels{v1alpha1.LabelOwner: r.Owner})
	is := slices.ContainsFunc(own, func(t taken) bool { return !t.record.Back }) ||
		slices.ContainsFunc(left, func(v corev1.PersistentVolume) bool { return v.Annotations[AnnotationExchange] != "" })
	return is, errors.Join(broken, err)
}

// halfway are the Restores whose exchange was cut short, or failed, and is not taken back.
func (r *Restorer) halfway(ctx context.Context) (map[string]bool, error) {
	left, err := r.volumes(ctx, client.HasLabels{v1alpha1.LabelOwner})
	if err != nil {
		return nil, err
	}
	restores, err := r.restores(ctx)
	if err != nil {
		return nil, err
	}
	halfway := map[string]bool{}
	for _, v := range left {
		if v.Annotations[AnnotationExchange] != "" {
			halfway[v.Labels[v1alpha1.LabelOwner]] = true
		}
	}
	kept, _ := r.taken(ctx, "") // of a record that cannot be read nobody knows whose it is; TidyVolumes tells
	for _, t := range kept {
		if restore := t.volume.Labels[v1alpha1.LabelUndo]; restores[restore] == v1alpha1.PhaseFailed && !t.record.Back {
			halfway[restore] = true
		}
	}
	return halfway, nil
}

// restores are the phases of all Restores, by their uids.
func (r *Restorer) restores(ctx context.Context) (map[string]v1alpha1.Phase, error) {
	var all v1alpha1.RestoreList
	err := r.call(ctx, "list restores", func(ctx context.Context) error { return r.Cluster.Client.List(ctx, &all) })
	phases := map[string]v1alpha1.Phase{}
	for _, o := range all.Items {
		phases[string(o.UID)] = o.Status.Phase
	}
	return phases, err
}

// of is r for another Restore.
func (r *Restorer) of(owner string) *Restorer {
	other := *r
	other.Owner = owner
	return &other
}

// tidyVolume puts right one volume that was on its way behind a claim, after all that can be taken back is.
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
		case live != nil && live.Spec.VolumeName == v.Name: // a new claim, that had no volume before
			return r.finish(ctx, rec, v.Name)
		case live != nil && live.Spec.VolumeName == "":
			return nil // it is about to be bound; the next time will tell
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
