package volume

import (
	"context"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// LabelSnapshot is on the claims of a group while their snapshot is taken, which chooses them by it. Its value is the owner's uid, a
// dot, and the group's digest.
const LabelSnapshot = v1alpha1.Group + "/snapshot"

// groupSnapshots is the group of VolumeGroupSnapshot, which this module speaks without its types: a cluster has it in one of the
// versions below, newest first, and the fields used here are the same in all of them.
const (
	groupSnapshots     = "groupsnapshot.storage.k8s.io"
	kindGroupSnapshot  = "VolumeGroupSnapshot"
	kindGroupContent   = "VolumeGroupSnapshotContent"
	kindGroupClassList = "VolumeGroupSnapshotClassList"
)

var groupVersions = [...]string{"v1", "v1beta2", "v1beta1"}

// unlabelTime is what taking labels off claims again may cost when the work itself was interrupted.
const unlabelTime = 30 * time.Second

// groupClass is what matters of a VolumeGroupSnapshotClass.
type groupClass struct {
	name, driver string
	standard     bool // the default of its driver
}

// groupVersion finds the version of group snapshots that the cluster has; none where it has none.
func (k *Keeper) groupVersion() (schema.GroupVersion, bool, error) {
	groups, err := k.Cluster.Discovery.ServerGroups()
	if err != nil {
		return schema.GroupVersion{}, false, err
	}
	for _, g := range groups.Groups {
		if g.Name != groupSnapshots {
			continue
		}
		for _, version := range groupVersions {
			served := slices.ContainsFunc(g.Versions, func(v metav1.GroupVersionForDiscovery) bool { return v.Version == version })
			if served {
				return schema.GroupVersion{Group: groupSnapshots, Version: version}, true, nil
			}
		}
	}
	return schema.GroupVersion{}, false, nil
}

// readGroupClasses lists the classes of group snapshots; none where the cluster knows none.
func (k *Keeper) readGroupClasses(ctx context.Context) ([]groupClass, error) {
	var list unstructured.UnstructuredList
	err := k.call(ctx, "list classes of group snapshots", func(ctx context.Context) error {
		version, found, err := k.groupVersion()
		if err != nil || !found {
			return err
		}
		list.SetGroupVersionKind(version.WithKind(kindGroupClassList))
		return ignoreAbsent(k.Cluster.Client.List(ctx, &list))
	})
	var classes []groupClass
	for _, item := range list.Items {
		driver, _, _ := unstructured.NestedString(item.Object, "driver")
		classes = append(classes, groupClass{item.GetName(), driver, item.GetAnnotations()[defaultGroupClass] == "true"})
	}
	return classes, err
}

// chooseGroupClass is the driver's default class, or its only one; else none, and claims get snapshots of their own.
func chooseGroupClass(classes []groupClass, driver string) string {
	var all, defaults []string
	for _, c := range classes {
		if c.driver != driver {
			continue
		}
		all = append(all, c.name)
		if c.standard {
			defaults = append(defaults, c.name)
		}
	}
	switch {
	case len(defaults) == 1:
		return defaults[0]
	case len(all) == 1:
		return all[0]
	}
	return ""
}

// snapshotGroup is the claims of one namespace and driver.
type snapshotGroup struct {
	namespace, driver, class string
	numbers                  []int // of vols
	sources                  map[claimKey]source
	failed                   error
}

// groups joins the volumes that Plan meant for groups.
func (k *Keeper) groups(vols []v1alpha1.VolumeStatus, sources map[claimKey]source) []*snapshotGroup {
	var groups []*snapshotGroup
	found := map[claimKey]*snapshotGroup{}
	for _, i := range numbersOf(vols, v1alpha1.MethodGroup) {
		from := sources[keyOf(vols[i])]
		of := claimKey{vols[i].Namespace, from.driver}
		if found[of] == nil {
			found[of] = &snapshotGroup{namespace: of.namespace, driver: of.name, class: from.groupClass, sources: sources}
			groups = append(groups, found[of])
		}
		found[of].numbers = append(found[of].numbers, i)
	}
	return groups
}

// cutGroup takes one snapshot of all claims of a group. The claims are marked by a label meanwhile, which goes whatever happens: here,
// by Discard, or by Tidy.
func (k *Keeper) cutGroup(ctx context.Context, g *snapshotGroup, vols []v1alpha1.VolumeStatus) (err error) {
	limited, cancel := context.WithTimeout(ctx, k.CutDeadline/2) // the rest is for snapshots one by one
	defer cancel()
	version, found, err := k.groupVersion()
	if err != nil || !found {
		return fault.Wrap("find the version of group snapshots", fault.ErrUnsupported, err, "")
	}
	value := k.Owner + "." + digest(g.driver)
	defer func() {
		tidy, stop := context.WithTimeout(context.WithoutCancel(ctx), unlabelTime)
		defer stop()
		for _, claim := range claimsOf(vols, g.numbers) {
			if off := k.unmark(tidy, claim); off != nil {
				k.Note(off.Error())
			}
		}
	}()
	for _, claim := range claimsOf(vols, g.numbers) {
		if err := k.mark(limited, claim, map[string]any{LabelSnapshot: value}, nil); err != nil {
			return err
		}
	}
	group, err := ensure(limited, k, k.groupSnapshot(version, g, value))
	if err == nil {
		err = k.waitForGroup(limited, group, g, vols)
	}
	if err != nil && group != nil && ctx.Err() == nil {
		if left := k.remove(ctx, group); left != nil {
			k.Note(left.Error())
		}
	}
	return err
}

func (k *Keeper) groupSnapshot(version schema.GroupVersion, g *snapshotGroup, value string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{
			"volumeGroupSnapshotClassName": g.class,
			"source":                       map[string]any{"selector": map[string]any{"matchLabels": map[string]any{LabelSnapshot: value}}},
		},
	}}
	u.SetGroupVersionKind(version.WithKind(kindGroupSnapshot))
	u.SetNamespace(g.namespace)
	u.SetName(k.prefix() + "group-" + digest(g.driver))
	u.SetLabels(map[string]string{v1alpha1.LabelOwner: k.Owner})
	return u
}

// waitForGroup waits until a group snapshot is cut and each claim has its member.
func (k *Keeper) waitForGroup(ctx context.Context, group *unstructured.Unstructured, g *snapshotGroup, vols []v1alpha1.VolumeStatus) error {
	trouble := trouble{grace: cutGrace}
	var members map[string]*snapshotv1.VolumeSnapshot
	err := k.watch(ctx, "take group snapshot "+group.GetName(), &trouble, func(ctx context.Context) (bool, error) {
		if err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(group), group); err != nil {
			return false, err
		}
		if at, _, _ := unstructured.NestedString(group.Object, "status", "creationTime"); at == "" {
			message, _, _ := unstructured.NestedString(group.Object, "status", "error", "message")
			if message != "" {
				message = "the driver says: " + clip(message)
			}
			return false, trouble.add(k.Now(), message)
		}
		var err error
		members, err = k.members(ctx, group)
		return len(members) >= len(g.numbers), err
	})
	if err != nil {
		return err
	}
	taken, err := groupTaken(group)
	if err != nil {
		return err
	}
	return k.adopt(ctx, g, vols, members, taken)
}

// members lists the snapshots of a group by the names of their claims.
func (k *Keeper) members(ctx context.Context, group *unstructured.Unstructured) (map[string]*snapshotv1.VolumeSnapshot, error) {
	var list snapshotv1.VolumeSnapshotList
	err := k.call(ctx, "list the snapshots of "+group.GetName(), func(ctx context.Context) error {
		return k.Cluster.Client.List(ctx, &list, client.InNamespace(group.GetNamespace()))
	})
	if err != nil {
		return nil, err
	}
	members := map[string]*snapshotv1.VolumeSnapshot{}
	for i := range list.Items {
		s := &list.Items[i]
		ours := slices.ContainsFunc(s.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == group.GetUID() })
		if of := s.Spec.Source.PersistentVolumeClaimName; ours && of != nil {
			members[*of] = s
		}
	}
	return members, nil
}

// adopt writes down which member is of which claim, and makes the members the owner's.
func (k *Keeper) adopt(
	ctx context.Context, g *snapshotGroup, vols []v1alpha1.VolumeStatus, members map[string]*snapshotv1.VolumeSnapshot, taken metav1.MicroTime,
) error {
	for _, i := range g.numbers {
		if members[vols[i].Claim] == nil {
			return fault.New("take a group snapshot", fault.ErrIncomplete, "it has none of claim "+vols[i].Claim, "")
		}
	}
	for _, i := range g.numbers {
		v := &vols[i]
		annotations, err := g.sources[keyOf(*v)].annotations()
		if err != nil {
			return err
		}
		member := members[v.Claim]
		if err := k.mark(ctx, member, anyMap(k.labels(v.Namespace, v.Claim)), anyMap(annotations)); err != nil {
			return err
		}
		exact := k.precise(ctx, member, taken)
		v.Snapshot, v.Taken = member.Name, &exact
	}
	return nil
}

func anyMap(m map[string]string) map[string]any {
	out := map[string]any{}
	for key, value := range m {
		out[key] = value
	}
	return out
}

// groupTaken is the moment that a group snapshot is of, in whole seconds.
func groupTaken(group *unstructured.Unstructured) (metav1.MicroTime, error) {
	text, _, _ := unstructured.NestedString(group.Object, "status", "creationTime")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return metav1.MicroTime{}, fault.Wrap("read when "+group.GetName()+" was taken", fault.ErrCorrupt, err, "")
	}
	return metav1.NewMicroTime(at), nil
}
