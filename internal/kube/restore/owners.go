package restore

import (
	"cmp"
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// owner is one that an object is to have: an object of the plan, whose uid is known once that is on the cluster, or with item nil one
// that is on the cluster already.
type owner struct {
	ref  metav1.OwnerReference
	item *Item
}

// Bounds on owners, for each that is not in the point costs a request.
const (
	maxOwners = 32   // of an object
	maxAsked  = 1000 // of all objects, on the cluster
)

// link finds the owners of every object: in the plan, else on the cluster where they are the very same. References to others are
// dropped, for the garbage collector deletes objects whose owner it does not find.
func (b *builder) link(ctx context.Context) error {
	for _, i := range b.all {
		if i.Action != "" {
			continue
		}
		refs := i.object.GetOwnerReferences()
		unstructured.RemoveNestedField(i.object.Object, "metadata", "ownerReferences")
		for n, ref := range refs {
			if n == maxOwners {
				i.say("only its first owners are considered")
				break
			}
			o, found, err := b.findOwner(ctx, i, ref)
			if err != nil {
				return err
			}
			if !found {
				i.say("without its owner, which does not come back: " + plain(kindName(groupKindOf(ref))+"/"+ref.Name, maxName))
				continue
			}
			i.owners = append(i.owners, o)
		}
	}
	return nil
}

func groupKindOf(ref metav1.OwnerReference) schema.GroupKind {
	return schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
}

func (b *builder) findOwner(ctx context.Context, i *Item, ref metav1.OwnerReference) (owner, bool, error) {
	if o, found := b.origin[string(ref.UID)]; found && o.object != nil && o.Action == "" && (o.cluster || o.Namespace == i.Namespace && !i.cluster) {
		ref.APIVersion, ref.Kind, ref.Name, ref.UID = o.object.GetAPIVersion(), o.Kind, o.Name, ""
		return owner{ref: ref, item: o}, true, nil
	}
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if badIdentity(named(live, ref.Name)) != "" || b.asked == maxAsked || i.From != "" {
		return owner{}, false, nil
	}
	b.asked++
	err := b.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: i.Namespace, Name: ref.Name}, live)
	if err != nil && unreachable(err) {
		return owner{}, false, unavailable("read owner of "+i.String(), err)
	}
	return owner{ref: ref}, err == nil && live.GetUID() == ref.UID, nil
}

func named(u *unstructured.Unstructured, name string) *unstructured.Unstructured {
	u.SetName(name)
	return u
}

// onCluster is the uid of the object that stands for an item on the cluster; empty while there is none.
func (i *Item) onCluster() types.UID {
	if i.made != "" {
		return i.made
	}
	if i.live != nil && i.live.GetDeletionTimestamp() == nil && !i.recreate {
		return i.live.GetUID()
	}
	return ""
}

// withOwners is the object as it is to be, with the owners whose uid is known; with all of them to compare it, for that leaves uids out.
func (i *Item) withOwners(all bool) *unstructured.Unstructured {
	u := i.object.DeepCopy()
	var refs []metav1.OwnerReference
	for _, o := range i.owners {
		ref, known := o.reference()
		if known || all {
			refs = append(refs, ref)
		}
	}
	if len(refs) > 0 {
		u.SetOwnerReferences(refs)
	}
	return u
}

// reference is the reference with the owner's uid, where that is known.
func (o owner) reference() (metav1.OwnerReference, bool) {
	ref := o.ref
	if o.item != nil {
		ref.UID = o.item.onCluster()
	}
	return ref, ref.UID != ""
}

// order sorts items as they are applied: by rank, owners before what they own, then by name. What a program reads when it starts comes
// before its owner all the same: an operator that does not find a password makes another. It gets its owner afterwards.
func order(items []*Item) {
	o := orderer{rank: map[*Item]int{}, depth: map[*Item]int{}}
	for _, i := range items {
		o.place(i)
	}
	slices.SortStableFunc(items, func(a, b *Item) int {
		return cmp.Or(
			cmp.Compare(o.rank[a], o.rank[b]), cmp.Compare(o.depth[a], o.depth[b]),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.namespace, b.namespace),
		)
	})
}

type orderer struct{ rank, depth map[*Item]int }

// place finds rank and depth of i. Owners that own each other in a circle count as they are met.
func (o *orderer) place(i *Item) (rank, depth int) {
	if rank, done := o.rank[i]; done {
		return rank, o.depth[i]
	}
	rank = rankOf(i.groupKind(), i.cluster)
	o.rank[i], o.depth[i] = rank, 0
	if rank < rankServices {
		return rank, 0
	}
	for _, of := range i.owners {
		if of.item == nil {
			continue
		}
		r, d := o.place(of.item)
		if r > rank {
			rank, depth = r, d+1
		} else if r == rank {
			depth = max(depth, d+1)
		}
	}
	o.rank[i], o.depth[i] = rank, depth
	return rank, depth
}
