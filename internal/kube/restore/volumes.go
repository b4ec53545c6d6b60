package restore

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// volumes plans what happens to the data of each claim.
func (b *builder) volumes(ctx context.Context) error {
	all := slices.Clone(b.Data)
	slices.SortFunc(all, func(x, y Data) int { return strings.Compare(x.Namespace+"/"+x.Claim, y.Namespace+"/"+y.Claim) })
	for _, d := range all {
		if !b.dataChosen(d) {
			b.plan.NotChosen++
			continue
		}
		v, err := b.volume(ctx, d)
		if err != nil {
			return err
		}
		b.plan.Volumes = append(b.plan.Volumes, v)
	}
	return nil
}

func (b *builder) volume(ctx context.Context, d Data) (Volume, error) {
	v := Volume{Namespace: b.mapping.to(d.Namespace), Claim: d.Claim, Part: d.Part, Block: d.Block, Bytes: d.Bytes}
	if b.leftOut(d) {
		v.Action, v.Why = Skip, "left out of the point: "+d.Missing
		return v, nil
	}
	wanted, why := b.claim(d)
	if wanted != nil {
		v.Namespace, v.Claim = wanted.Namespace, wanted.Name
	}
	if v.Namespace != d.Namespace {
		v.From = d.Namespace
	}
	switch {
	case d.Missing != "":
		return v.conflict("the point does not hold its data: " + d.Missing), nil
	case why != "":
		return v.conflict(why), nil
	case b.live[v.Namespace].ending:
		return v.conflict("namespace " + v.Namespace + " is being deleted"), nil
	}
	var live corev1.PersistentVolumeClaim
	switch err := b.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: v.Namespace, Name: v.Claim}, &live); {
	case apierrors.IsNotFound(err):
		return b.newVolume(v, wanted), nil
	case apierrors.IsForbidden(err):
		return v.conflict("the claim cannot be read on the cluster: " + reason(err, nil)), nil
	case err != nil:
		return v, unavailable("read claim "+v.Namespace+"/"+v.Claim, err)
	}
	v.Live = &live
	return b.exchange(v, wanted), nil
}

// leftOut reports whether a point lacks data on purpose, and nobody asks for it by name.
func (b *builder) leftOut(d Data) bool { return d.LeftOut && !slices.Contains(b.Spec.Claims, d.Claim) }

func (v Volume) conflict(why string) Volume {
	v.Action, v.Why = Conflict, why
	return v
}

// claim is the claim of the point as it is to be on the cluster; nil where the point has none. Why says what is wrong with it.
func (b *builder) claim(d Data) (claim *corev1.PersistentVolumeClaim, why string) {
	at := slices.IndexFunc(b.all, func(i *Item) bool {
		return i.original != nil && isKind(i.original, "persistentvolumeclaim") && i.namespace == d.Namespace && i.original.GetName() == d.Claim
	})
	if at < 0 {
		return nil, ""
	}
	i := b.all[at]
	if i.unchosen { // as an object; its data is
		i.Action, i.unchosen = "", false
		b.prepare(i)
	}
	if i.Action == Conflict || i.object == nil {
		return nil, i.Why
	}
	claim, why = claimOf(i.object)
	if claim != nil {
		claim.OwnerReferences = nil // a StatefulSet that owns its claims says so again
	}
	return claim, why
}

// claimOf reads an object as a claim.
func claimOf(u *unstructured.Unstructured) (*corev1.PersistentVolumeClaim, string) {
	var claim corev1.PersistentVolumeClaim
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &claim); err != nil {
		return nil, "the point's object is no claim"
	}
	return &claim, ""
}

// newVolume plans a claim that the cluster does not have.
func (b *builder) newVolume(v Volume, wanted *corev1.PersistentVolumeClaim) Volume {
	if wanted == nil {
		return v.conflict("neither the point nor the cluster has the claim itself")
	}
	if mode := volumeMode(wanted); (mode == corev1.PersistentVolumeBlock) != v.Block {
		return v.conflict("the claim is of mode " + string(mode) + ", the data is not")
	}
	v.Action, v.Wanted = Create, wanted
	v.Class, v.Size = class(wanted), b.size(v, wanted, nil)
	return v
}

// exchange plans a claim that the cluster has: it gets a new volume, and stays as it is otherwise.
func (b *builder) exchange(v Volume, wanted *corev1.PersistentVolumeClaim) Volume {
	mode := volumeMode(v.Live)
	switch {
	case v.Live.DeletionTimestamp != nil && !b.Begun: // else it may be the exchange that deletes it
		return v.conflict("the claim is being deleted on the cluster")
	case (mode == corev1.PersistentVolumeBlock) != v.Block:
		return v.conflict("the claim on the cluster is of mode " + string(mode) + ", the data is not")
	case b.strict():
		return v.conflict("the claim is there")
	}
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v.Live)
	if err != nil {
		return v.conflict("the claim on the cluster cannot be read")
	}
	object := &unstructured.Unstructured{Object: u}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
	strip(object)
	claim, why := claimOf(object)
	if claim == nil {
		return v.conflict(why)
	}
	v.Action, v.Wanted = Exchange, claim
	v.Class, v.Size = class(claim), b.size(v, wanted, v.Live)
	v.Why = "what was written since the point is in the old volume, which is kept for undo"
	if v.Live.Status.Phase == corev1.ClaimPending {
		v.Why = "the claim has no volume yet"
	}
	return v
}

func volumeMode(c *corev1.PersistentVolumeClaim) corev1.PersistentVolumeMode {
	if c.Spec.VolumeMode == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *c.Spec.VolumeMode
}

// class is the StorageClass that a claim names; empty for the cluster's default.
func class(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.StorageClassName == nil {
		return c.Annotations[corev1.BetaStorageClassAnnotation]
	}
	return *c.Spec.StorageClassName
}

// size is what the new volume must have: as much as the volume in the point had, as the claims ask for, and as the data takes.
func (b *builder) size(v Volume, claims ...*corev1.PersistentVolumeClaim) resource.Quantity {
	var size resource.Quantity
	if v.Block {
		size = *resource.NewQuantity(v.Bytes, resource.BinarySI)
	}
	consider := func(q resource.Quantity, found bool) {
		if found && q.Cmp(size) > 0 {
			size = q
		}
	}
	for _, c := range claims {
		if c == nil {
			continue
		}
		q, found := c.Spec.Resources.Requests[corev1.ResourceStorage]
		consider(q, found)
		q, found = c.Status.Capacity[corev1.ResourceStorage]
		consider(q, found)
	}
	at := slices.IndexFunc(b.all, func(i *Item) bool {
		return i.original != nil && isKind(i.original, "persistentvolumeclaim") && i.Namespace == v.Namespace && i.Name == v.Claim
	})
	if at >= 0 {
		if c, _ := claimOf(b.all[at].original); c != nil {
			q, found := c.Status.Capacity[corev1.ResourceStorage]
			consider(q, found)
		}
	}
	return size
}
