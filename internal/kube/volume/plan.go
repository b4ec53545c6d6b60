package volume

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Annotations by which a class of snapshots is the default of its driver.
const (
	defaultSnapshotClass = "snapshot.storage.kubernetes.io/is-default-class"
	defaultGroupClass    = "groupsnapshot.storage.kubernetes.io/is-default-class"
)

// source is what the snapshots of a claim are made from. It is kept on the snapshot, whose claim may be gone when it is read.
type source struct {
	Claim        string `json:"claim"`
	StorageClass string `json:"storageClass,omitempty"`
	Size         string `json:"size"`
	Block        bool   `json:"block,omitempty"`

	driver, snapshotClass, groupClass string
}

// Plan decides how each claim is captured, in the order given, for Snapshot of the same Keeper. What is not captured has its reason in
// Problem. An error means that the cluster could not be asked.
func (k *Keeper) Plan(ctx context.Context, claims []corev1.PersistentVolumeClaim, capture v1alpha1.VolumeCapture) ([]v1alpha1.VolumeStatus, error) {
	const op = "plan the capture of volumes"
	s := survey{keeper: k, capture: capture}
	if err := s.readClasses(ctx); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	planned := make([]v1alpha1.VolumeStatus, 0, len(claims))
	sources := map[claimKey]source{}
	for _, claim := range claims {
		v, from, err := s.plan(ctx, claim)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		planned = append(planned, v)
		sources[keyOf(v)] = from
	}
	s.group(planned, sources)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.planned = sources
	return planned, nil
}

// PartName is the name of a claim's part in a point.
func PartName(namespace, claim string) string { return partPrefix + namespace + "/" + claim }

// survey is what one plan knows of the cluster.
type survey struct {
	keeper       *Keeper
	capture      v1alpha1.VolumeCapture
	snapshots    bool // the cluster knows them
	classes      []snapshotv1.VolumeSnapshotClass
	groupClasses []groupClass
}

func (s *survey) readClasses(ctx context.Context) error {
	var list snapshotv1.VolumeSnapshotClassList
	err := s.keeper.call(ctx, "list classes of snapshots", func(ctx context.Context) error {
		err := s.keeper.Cluster.Client.List(ctx, &list)
		s.snapshots = err == nil
		return ignoreAbsent(err)
	})
	if err != nil || !s.snapshots {
		return err
	}
	s.classes = list.Items
	s.groupClasses, err = s.keeper.readGroupClasses(ctx)
	return err
}

// plan decides for one claim, groups apart.
func (s *survey) plan(ctx context.Context, claim corev1.PersistentVolumeClaim) (v1alpha1.VolumeStatus, source, error) {
	block := claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock
	v := v1alpha1.VolumeStatus{
		Namespace: claim.Namespace, Claim: claim.Name, Part: PartName(claim.Namespace, claim.Name),
		Method: v1alpha1.MethodNone, Block: block,
	}
	from := source{Claim: claim.Name, Size: claim.Status.Capacity.Storage().String(), Block: block}
	switch {
	case excluded(s.capture.Exclude, claim.Name):
		v.Problem, v.Skipped = "excluded by the policy", true
		return v, from, nil
	case claim.Status.Phase == corev1.ClaimLost:
		v.Problem = "its volume is lost"
		return v, from, nil
	case claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound:
		v.Problem, v.Skipped = "not bound to a volume: there is no data yet", true
		return v, from, nil
	}
	var pv corev1.PersistentVolume
	err := s.keeper.call(ctx, "read the volume of claim "+claim.Namespace+"/"+claim.Name, func(ctx context.Context) error {
		return s.keeper.Cluster.Client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &pv)
	})
	if err != nil {
		return v, from, err
	}
	if of := pv.Spec.ClaimRef; of == nil || of.UID != claim.UID {
		v.Problem = "its volume is bound to another claim"
		return v, from, nil
	}
	from.StorageClass = pv.Spec.StorageClassName
	if size := pv.Spec.Capacity.Storage(); size.Cmp(*claim.Status.Capacity.Storage()) > 0 {
		from.Size = size.String()
	}
	if pv.Spec.CSI != nil {
		from.driver = pv.Spec.CSI.Driver
	}
	lacking, wrong := "", ""
	from.snapshotClass, lacking, wrong = s.class(from.driver)
	switch {
	case wrong != "":
		v.Problem = wrong
	case lacking != "":
		return s.without(ctx, v, pv, lacking), from, nil
	default:
		v.Method = v1alpha1.MethodSnapshot
	}
	return v, from, nil
}

// excluded reports whether a pattern matches the name of a claim. A pattern that is none matches nothing but itself.
func excluded(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matches, err := path.Match(pattern, name)
		return pattern == name || err == nil && matches
	})
}

// class finds the VolumeSnapshotClass for a driver. Without one it says what the driver or cluster lacks, or what is wrong with what the
// policy or the classes say.
func (s *survey) class(driver string) (name, lacking, wrong string) {
	switch {
	case driver == "":
		return "", "its volume is not one of a CSI driver", ""
	case !s.snapshots:
		return "", "the cluster knows no snapshots: VolumeSnapshot is not installed", ""
	}
	var all, defaults []string
	named := s.capture.SnapshotClass == ""
	for _, c := range s.classes {
		named = named || c.Name == s.capture.SnapshotClass
		if c.Driver != driver {
			continue
		}
		if c.Name == s.capture.SnapshotClass {
			return c.Name, "", ""
		}
		all = append(all, c.Name)
		if c.Annotations[defaultSnapshotClass] == "true" {
			defaults = append(defaults, c.Name)
		}
	}
	if !named {
		return "", "", fmt.Sprintf("the policy names VolumeSnapshotClass %s, which does not exist", s.capture.SnapshotClass)
	}
	switch {
	case len(defaults) == 1:
		return defaults[0], "", ""
	case len(all) == 1:
		return all[0], "", ""
	case len(all) == 0:
		return "", "no VolumeSnapshotClass is of its driver " + driver, ""
	}
	slices.Sort(all)
	return "", "", fmt.Sprintf("driver %s has several VolumeSnapshotClasses, and not one is the default: %s; name one in the policy",
		driver, strings.Join(all, ", "))
}

// without decides what is done with a claim whose driver takes no snapshots.
func (s *survey) without(ctx context.Context, v v1alpha1.VolumeStatus, pv corev1.PersistentVolume, lacking string) v1alpha1.VolumeStatus {
	v.Problem = lacking
	switch s.capture.WithoutSnapshot {
	case v1alpha1.WithoutSnapshotSkip:
		v.Skipped = true
	case v1alpha1.WithoutSnapshotLive:
		if _, err := s.keeper.findMount(ctx, v, pv); err != nil {
			v.Problem += "; " + err.Error()
			return v
		}
		v.Method, v.Problem = v1alpha1.MethodLive, ""
	}
	return v
}

// group joins claims of one namespace and driver to a group where the driver takes one snapshot of all.
func (s *survey) group(planned []v1alpha1.VolumeStatus, sources map[claimKey]source) {
	members := map[claimKey][]int{} // by namespace and driver
	for i, v := range planned {
		if v.Method == v1alpha1.MethodSnapshot {
			of := claimKey{v.Namespace, sources[keyOf(v)].driver}
			members[of] = append(members[of], i)
		}
	}
	for of, numbers := range members {
		class := chooseGroupClass(s.groupClasses, of.name)
		if class == "" || len(numbers) < 2 {
			continue
		}
		for _, i := range numbers {
			planned[i].Method = v1alpha1.MethodGroup
			from := sources[keyOf(planned[i])]
			from.groupClass = class
			sources[keyOf(planned[i])] = from
		}
	}
}
