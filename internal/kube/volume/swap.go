package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Annotations on volumes that a Restore works with.
const (
	// AnnotationExchange is on a volume that is being put behind a claim, and holds the record of it. An exchange that was cut short
	// goes on from there.
	AnnotationExchange = v1alpha1.Group + "/exchange"
	// AnnotationTaken is beside LabelUndo on a volume that was taken from behind a claim, and holds the record of that.
	AnnotationTaken = v1alpha1.Group + "/taken"
	// AnnotationReclaim is on a volume that was filled, and says the reclaim policy that it was made with.
	AnnotationReclaim = v1alpha1.Group + "/reclaim"
)

// Annotations by which the cluster binds claims, as k8s.io/component-helpers names them.
const (
	bindCompleted     = "pv.kubernetes.io/bind-completed"
	boundByController = "pv.kubernetes.io/bound-by-controller"
	lastApplied       = "kubectl.kubernetes.io/last-applied-configuration"
)

// annotationsOfBinding are put into a claim while a volume is found for it. A new claim that has them already would be given an empty
// volume at once, or be taken for one that lost its volume; they are put back when it is bound.
var annotationsOfBinding = [...]string{
	bindCompleted,
	boundByController,
	"volume.kubernetes.io/selected-node",
	"volume.kubernetes.io/storage-provisioner",
	"volume.beta.kubernetes.io/storage-provisioner",
}

// Restorer changes the volumes behind claims, and stops and starts what uses them, for one Restore. Everything it does can be cut
// short at any call and be done again.
type Restorer struct {
	Cluster *kube.Cluster // Backstay's own rights: volumes, and everything in its own namespace
	// Application has the rights of the one who restores, in the application's namespaces: claims, workloads, pods.
	Application *kube.Cluster
	System      string           // Backstay's own namespace
	Owner       string           // uid of the Restore
	Keep        time.Duration    // how long volumes taken out of use are kept
	Wait        time.Duration    // the longest that any one thing is waited for: pods that end, claims that bind
	Poll        time.Duration    // how often it is looked for
	Now         func() time.Time // the clock
}

// Exchange asks for one claim's volume to be exchanged.
type Exchange struct {
	// Claim is what is created where there is none: namespace, name, labels, annotations, owners, spec. A claim that is there comes
	// back as it was, whatever is said here.
	Claim corev1.PersistentVolumeClaim
	// NewVolume is to be behind it: one that Fill made.
	NewVolume string

	known   bool // Claim is one that was on this cluster
	back    bool // it is the work of this very Restore that is taken back
	discard bool // nobody will miss the volume that is there now
}

// record is what must be known of an exchange to go on with it, or to undo it later.
type record struct {
	Restore string                        `json:"restore"`          // uid
	Claim   *corev1.PersistentVolumeClaim `json:"claim"`            // as it is to be
	UID     types.UID                     `json:"uid,omitempty"`    // of the claim that is deleted
	Volume  string                        `json:"volume,omitempty"` // that was behind it
	By      string                        `json:"by"`               // the volume that is to be behind it
	// Reclaim is the policy of the volume behind the claim before and after. In between it is Retain.
	Reclaim corev1.PersistentVolumeReclaimPolicy `json:"reclaim"`
	Begun   metav1.Time                          `json:"begun"`
	Until   metav1.Time                          `json:"until"`            // the old volume is kept so long
	Filled  bool                                 `json:"filled,omitempty"` // the new volume was made for this exchange, by Fill
	Back    bool                                 `json:"back,omitempty"`   // see Exchange
	Discard bool                                 `json:"discard,omitempty"`
}

// Swap puts a volume behind a claim in such a way that nobody who compares the claim with what was applied sees a difference: its
// name, labels, annotations and spec are the same afterwards, but for the name of the volume. It returns the volume that was there
// before (empty for none), which is kept for undo. No pod may use the claim: fault.ErrBusy. A claim that cannot take the volume is
// fault.ErrRefused, before anything is touched.
func (r *Restorer) Swap(ctx context.Context, x Exchange) (string, error) {
	old, err := r.swap(ctx, x)
	return old, fault.Wrap(fmt.Sprintf("exchange the volume of claim %s/%s", x.Claim.Namespace, x.Claim.Name), nil, err, "")
}

func (r *Restorer) swap(ctx context.Context, x Exchange) (string, error) {
	rec, err := r.begin(ctx, x)
	if err != nil {
		return "", err
	}
	if rec == nil { // an earlier call came to the end
		return r.takenFrom(ctx, key(&x.Claim))
	}
	if err := r.takeOut(ctx, rec); err != nil {
		return "", err
	}
	if err := r.removeClaim(ctx, rec); err != nil {
		return "", err
	}
	if err := r.bind(ctx, rec); err != nil {
		return "", err
	}
	return rec.Volume, r.finish(ctx, rec, rec.By)
}

// begin writes down what is to be done on the new volume, and promises that volume to the claim: from now on a claim of this name that
// anybody creates gets it. Nil is an exchange that is done.
func (r *Restorer) begin(ctx context.Context, x Exchange) (*record, error) {
	var v corev1.PersistentVolume
	if err := r.readVolume(ctx, x.NewVolume, &v); err != nil {
		return nil, err
	}
	if text, ok := v.Annotations[AnnotationExchange]; ok {
		return r.resume(text, x)
	}
	live, err := r.liveClaim(ctx, key(&x.Claim))
	if err != nil {
		return nil, err
	}
	if live != nil && live.DeletionTimestamp == nil && live.Spec.VolumeName == v.Name {
		return nil, nil //nolint:nilnil // documented: done
	}
	if !x.known && v.Labels[v1alpha1.LabelOwner] != r.Owner { // its name stands in a status, which others may write
		return nil, fault.New("", fault.ErrDenied, "volume "+v.Name+" was not made for this Restore", "")
	}
	rec, err := r.plan(ctx, live, x, &v)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("write down the exchange: %w", err)
	}
	if err := r.standDown(ctx, key(rec.Claim), v.Name); err != nil {
		return nil, err
	}
	return rec, r.changeVolume(ctx, v.Name, func(v *corev1.PersistentVolume) {
		setLabel(v, v1alpha1.LabelOwner, r.Owner)
		metav1.SetMetaDataAnnotation(&v.ObjectMeta, AnnotationExchange, string(text))
		promise(v, rec.Claim)
	})
}

// resume reads the record of an exchange that was begun before.
func (r *Restorer) resume(text string, x Exchange) (*record, error) {
	rec, err := parseRecord(text)
	if err != nil {
		return nil, err
	}
	if rec.Restore != r.Owner || key(rec.Claim) != key(&x.Claim) {
		return nil, fault.New("", fault.ErrRefused,
			fmt.Sprintf("volume %s is being put behind claim %s by Restore %s", x.NewVolume, key(rec.Claim), rec.Restore), "")
	}
	return rec, nil
}

// plan says what is to be done to put v behind the live claim, or behind a new one where live is nil.
func (r *Restorer) plan(ctx context.Context, live *corev1.PersistentVolumeClaim, x Exchange, v *corev1.PersistentVolume) (*record, error) {
	now := r.Now()
	rec := &record{
		Restore: r.Owner, By: v.Name, Claim: asWritten(&x.Claim), Begun: metav1.NewTime(now), Until: metav1.NewTime(now.Add(r.Keep)),
		Reclaim: madeWith(v), Filled: v.Annotations[AnnotationReclaim] != "", Back: x.back, Discard: x.discard,
	}
	if x.known {
		rec.Claim.Annotations = x.Claim.Annotations
	}
	if live != nil {
		rec.UID, rec.Volume = live.UID, live.Spec.VolumeName
		if !x.back { // else it may be half of what it was
			rec.Claim = asWritten(live)
			rec.Claim.Annotations = live.Annotations
		}
		if err := namesItsVolume(live); err != nil {
			return nil, err
		}
		if rec.Volume != "" {
			var old corev1.PersistentVolume
			if err := r.readVolume(ctx, rec.Volume, &old); err != nil {
				return nil, err
			}
			rec.Reclaim = madeWith(&old)
		}
	}
	used, err := r.inUse(ctx, v)
	if err != nil {
		return nil, err
	}
	if used {
		return nil, fault.New("", fault.ErrRefused, "volume "+v.Name+" is in use", "")
	}
	return rec, fits(rec.Claim, v)
}

// inUse reports whether a volume is behind a claim. Its phase says so too, but late.
func (r *Restorer) inUse(ctx context.Context, v *corev1.PersistentVolume) (bool, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return false, nil
	}
	var c corev1.PersistentVolumeClaim
	err := r.call(ctx, "read claim "+ref.Namespace+"/"+ref.Name, func(ctx context.Context) error {
		return client.IgnoreNotFound(r.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &c))
	})
	return c.UID == ref.UID, err
}

// namesItsVolume refuses claims of which somebody wrote down the volume: they cannot have another and stay what they are.
func namesItsVolume(live *corev1.PersistentVolumeClaim) error {
	if live.Spec.VolumeName == "" || live.Annotations[boundByController] != "" {
		return nil
	}
	var applied corev1.PersistentVolumeClaim
	text := live.Annotations[lastApplied]
	if text == "" || json.Unmarshal([]byte(text), &applied) != nil || applied.Spec.VolumeName == "" {
		return nil
	}
	return fault.New("", fault.ErrRefused, "the claim was applied with spec.volumeName, which cannot change",
		"take volumeName out of what is applied, or restore into another namespace")
}

// fits refuses a volume that would never be bound to the claim, or that would be less than it asks for.
func fits(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) error {
	asked, has := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	why := ""
	switch {
	case v.DeletionTimestamp != nil:
		why = "is being deleted"
	case has.Cmp(asked) < 0:
		why = fmt.Sprintf("has %s, and the claim asks for %s", has.String(), asked.String())
	case isBlock(c.Spec.VolumeMode) != isBlock(v.Spec.VolumeMode):
		why = "and the claim differ in their volumeMode"
	}
	if why != "" {
		return fault.New("", fault.ErrRefused, "volume "+v.Name+" "+why, "")
	}
	if owner := metav1.GetControllerOf(c); owner != nil && owner.Kind == "Pod" {
		return fault.New("", fault.ErrUnsupported, "the claim is an ephemeral volume of pod "+owner.Name+", and goes with it", "")
	}
	return nil
}

// promise makes v one that is bound to claim c and to no other, as soon as there is a claim c.
func promise(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) {
	v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	v.Spec.ClaimRef = &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name,
	}
	v.Spec.AccessModes = c.Spec.AccessModes
	v.Spec.StorageClassName = ""
	if c.Spec.StorageClassName != nil {
		v.Spec.StorageClassName = *c.Spec.StorageClassName
	}
	if c.Spec.VolumeAttributesClassName != nil {
		v.Spec.VolumeAttributesClassName = c.Spec.VolumeAttributesClassName
	}
	delete(v.Annotations, boundByController)
}

// withdraw makes v one that is bound to no claim at all. A volume without a claimRef would be given to the next claim that it fits.
func (r *Restorer) withdraw(v *corev1.PersistentVolume) {
	v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	v.Spec.ClaimRef = &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: r.System, Name: "backstay-none", UID: types.UID(r.Owner),
	}
	delete(v.Annotations, AnnotationExchange)
}

// standDown takes back the promise of a claim to other volumes, of an exchange that is given up.
func (r *Restorer) standDown(ctx context.Context, claim types.NamespacedName, but string) error {
	all, err := r.volumes(ctx, client.HasLabels{v1alpha1.LabelOwner})
	if err != nil {
		return err
	}
	for _, v := range all {
		ref := v.Spec.ClaimRef
		if v.Name == but || v.Annotations[AnnotationExchange] == "" || ref == nil || ref.UID != "" ||
			ref.Namespace != claim.Namespace || ref.Name != claim.Name {
			continue
		}
		if err := r.changeVolume(ctx, v.Name, r.withdraw); err != nil {
			return err
		}
	}
	return nil
}

// takeOut marks the volume behind the claim as one that is kept for undo, or that is to be deleted.
func (r *Restorer) takeOut(ctx context.Context, rec *record) error {
	if rec.Volume == "" || rec.Volume == rec.By {
		return nil
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write down the exchange: %w", err)
	}
	return r.changeVolume(ctx, rec.Volume, func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		if rec.Discard {
			setLabel(v, v1alpha1.LabelOwner, rec.Restore)
			delete(v.Annotations, AnnotationExchange)
			return
		}
		delete(v.Labels, v1alpha1.LabelOwner)
		delete(v.Annotations, AnnotationExchange)
		if rec.Back && v.Labels[v1alpha1.LabelUndo] != "" {
			return // it is kept by who kept it before
		}
		setLabel(v, v1alpha1.LabelUndo, rec.Restore)
		metav1.SetMetaDataAnnotation(&v.ObjectMeta, AnnotationTaken, string(text))
	})
}

// takenFrom is the volume that this Restore took from behind a claim.
func (r *Restorer) takenFrom(ctx context.Context, claim types.NamespacedName) (string, error) {
	taken, err := r.taken(ctx, r.Owner)
	if err != nil {
		return "", err
	}
	for _, t := range taken {
		if key(t.record.Claim) == claim {
			return t.volume.Name, nil
		}
	}
	return "", nil
}

// removeClaim deletes the claim that was there at the beginning, and waits until it is gone.
func (r *Restorer) removeClaim(ctx context.Context, rec *record) error {
	if rec.UID == "" {
		return nil
	}
	live, err := r.liveClaim(ctx, key(rec.Claim))
	if err != nil || live == nil || live.UID != rec.UID {
		return err
	}
	return r.deleteClaim(ctx, live)
}

// deleteClaim deletes exactly this claim and waits until it is gone. While a pod uses it, it would neither go nor come back.
func (r *Restorer) deleteClaim(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	pods, err := r.podsUsing(ctx, c.Namespace, []string{c.Name})
	if err != nil {
		return err
	}
	if len(pods) > 0 && c.DeletionTimestamp == nil {
		return fault.New("", fault.ErrBusy, "in use by "+podNames(pods), "stop what uses the claim; a GitOps controller may have started it again")
	}
	err = r.call(ctx, "delete the claim", func(ctx context.Context) error {
		err := client.IgnoreNotFound(r.Application.Client.Delete(ctx, c, client.Preconditions{UID: &c.UID}))
		if apierrors.IsConflict(err) {
			return nil // there is another one by now
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.until(ctx, "wait until the old claim is gone", func(ctx context.Context) (bool, error) {
		live, err := r.liveClaim(ctx, key(c))
		return err == nil && (live == nil || live.UID != c.UID), err
	})
}

// bind creates the claim and waits until it is bound to the volume, whoever creates it first.
func (r *Restorer) bind(ctx context.Context, rec *record) error {
	return r.until(ctx, "wait until the claim is bound to volume "+rec.By, func(ctx context.Context) (bool, error) {
		live, err := r.liveClaim(ctx, key(rec.Claim))
		switch {
		case err != nil:
			return false, err
		case live == nil:
			return false, r.createClaim(ctx, rec)
		case live.Spec.VolumeName == rec.By:
			return live.Status.Phase == corev1.ClaimBound, nil
		case live.Spec.VolumeName != "":
			return false, r.removeStray(ctx, rec, live)
		}
		return false, nil
	})
}

func (r *Restorer) createClaim(ctx context.Context, rec *record) error {
	return r.call(ctx, "create the claim", func(ctx context.Context) error {
		err := r.Application.Client.Create(ctx, asWritten(rec.Claim))
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// removeStray deletes a claim that somebody created in between and that was given another volume. That volume goes with it only if it
// was made for this very claim after the old claim was deleted, so that nothing can be in it that anybody misses.
func (r *Restorer) removeStray(ctx context.Context, rec *record, stray *corev1.PersistentVolumeClaim) error {
	if rec.UID == "" { // it may have been there first
		taken := *rec
		taken.Volume = stray.Spec.VolumeName
		if err := r.takeOut(ctx, &taken); err != nil {
			return err
		}
		return r.deleteClaim(ctx, stray)
	}
	err := r.changeVolume(ctx, stray.Spec.VolumeName, func(v *corev1.PersistentVolume) {
		ref := v.Spec.ClaimRef
		fresh := ref != nil && ref.UID == stray.UID && !v.CreationTimestamp.Before(&stray.CreationTimestamp)
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		if fresh {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		}
	})
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	return r.deleteClaim(ctx, stray)
}

// finish makes the claim the same as before, whoever created it, and the volume one like any other.
func (r *Restorer) finish(ctx context.Context, rec *record, volume string) error {
	err := r.call(ctx, "update the claim", func(ctx context.Context) error {
		live, err := r.liveClaim(ctx, key(rec.Claim))
		if err != nil || live == nil {
			return err
		}
		was := live.DeepCopy()
		live.Labels = rec.Claim.Labels
		live.Annotations = maps.Clone(rec.Claim.Annotations)
		for _, k := range annotationsOfBinding {
			if v, ok := was.Annotations[k]; ok {
				metav1.SetMetaDataAnnotation(&live.ObjectMeta, k, v)
			}
		}
		if maps.Equal(was.Labels, live.Labels) && maps.Equal(was.Annotations, live.Annotations) {
			return nil
		}
		return r.Application.Client.Update(ctx, live)
	})
	if err != nil {
		return err
	}
	return r.changeVolume(ctx, volume, func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = rec.Reclaim
		for _, k := range []string{v1alpha1.LabelOwner, v1alpha1.LabelClaim, v1alpha1.LabelUndo} {
			delete(v.Labels, k)
		}
		for _, k := range []string{AnnotationExchange, AnnotationTaken, AnnotationReclaim} {
			delete(v.Annotations, k)
		}
	})
}

// changeVolume changes a volume, again if somebody else changes it at the same time.
func (r *Restorer) changeVolume(ctx context.Context, name string, change func(v *corev1.PersistentVolume)) error {
	return r.call(ctx, "change volume "+name, func(ctx context.Context) error {
		var v corev1.PersistentVolume
		if err := r.Cluster.Client.Get(ctx, client.ObjectKey{Name: name}, &v); err != nil {
			return err
		}
		change(&v)
		return r.Cluster.Client.Update(ctx, &v)
	})
}

func (r *Restorer) readVolume(ctx context.Context, name string, v *corev1.PersistentVolume) error {
	return r.call(ctx, "read volume "+name, func(ctx context.Context) error {
		return r.Cluster.Client.Get(ctx, client.ObjectKey{Name: name}, v)
	})
}

func (r *Restorer) volumes(ctx context.Context, which client.ListOption) ([]corev1.PersistentVolume, error) {
	var all corev1.PersistentVolumeList
	err := r.call(ctx, "list volumes", func(ctx context.Context) error { return r.Cluster.Client.List(ctx, &all, which) })
	return all.Items, err
}

// liveClaim is nil for a claim that is not there.
func (r *Restorer) liveClaim(ctx context.Context, name types.NamespacedName) (*corev1.PersistentVolumeClaim, error) {
	var c corev1.PersistentVolumeClaim
	err := r.call(ctx, "read claim "+name.String(), func(ctx context.Context) error {
		return client.IgnoreNotFound(r.Application.Client.Get(ctx, name, &c))
	})
	if err != nil || c.UID == "" {
		return nil, err
	}
	return &c, nil
}

// call makes one call, again while the API server is away or somebody else writes at the same time.
func (r *Restorer) call(ctx context.Context, op string, f func(context.Context) error) error {
	return r.asking().call(ctx, op, f)
}

// until waits for a condition, as long as r.Wait.
func (r *Restorer) until(ctx context.Context, op string, done func(context.Context) (bool, error)) error {
	return r.asking().await(ctx, r.Wait, op, done)
}

// asking is a Keeper that is good for waiting only.
func (r *Restorer) asking() *Keeper {
	return &Keeper{Options: Options{Poll: max(r.Poll, time.Millisecond)}}
}

// asWritten is a claim as its author wrote it: without what the server and the binding of a volume put in.
func asWritten(live *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: live.Namespace, Name: live.Name,
			Labels: maps.Clone(live.Labels), Annotations: maps.Clone(live.Annotations), OwnerReferences: live.OwnerReferences,
		},
		Spec: *live.Spec.DeepCopy(),
	}
	c.Spec.VolumeName = ""
	for _, k := range annotationsOfBinding {
		delete(c.Annotations, k)
	}
	return c
}

// madeWith is the reclaim policy of a volume before Backstay touched it.
func madeWith(v *corev1.PersistentVolume) corev1.PersistentVolumeReclaimPolicy {
	for _, k := range []string{AnnotationExchange, AnnotationTaken} {
		if rec, err := parseRecord(v.Annotations[k]); err == nil {
			return rec.Reclaim
		}
	}
	if p := v.Annotations[AnnotationReclaim]; p != "" {
		return corev1.PersistentVolumeReclaimPolicy(p)
	}
	return v.Spec.PersistentVolumeReclaimPolicy
}

func parseRecord(text string) (*record, error) {
	var rec record
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return nil, fault.Wrap("read the record of an exchange", fault.ErrCorrupt, err, "")
	}
	if rec.Claim == nil || rec.Claim.Namespace == "" || rec.Claim.Name == "" {
		return nil, fault.New("read the record of an exchange", fault.ErrCorrupt, "it names no claim", "")
	}
	return &rec, nil
}

func key(c *corev1.PersistentVolumeClaim) types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

func isBlock(mode *corev1.PersistentVolumeMode) bool {
	return mode != nil && *mode == corev1.PersistentVolumeBlock
}

func setLabel(v *corev1.PersistentVolume, name, value string) {
	metav1.SetMetaDataLabel(&v.ObjectMeta, name, value)
}
