package volume_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
)

// longest is what tests wait for that is to come: it only ends a hang.
const longest = 2 * time.Minute

// lab is a real API server where the test plays the rest of a cluster: snapshot controller and driver, provisioner, Jobs and kubelet.
// Its driver has one class each of volumes, snapshots and group snapshots; all are named like the application's namespace.
type lab struct {
	*testing.T
	config      *rest.Config
	cluster     *kube.Cluster
	player      client.Client // the rest of the cluster's own: what it asks must not slow the others down
	app, system string
	one, two    string // uids of owners, which are this lab's alone

	mu      sync.Mutex
	broken  map[string]string // by claim: what the driver says is wrong
	grouped string            // what it says is wrong with groups
	slow    bool              // snapshots do not get ready
	taken   int64             // snapshots that the driver holds
	outcome func(volume.Task) ending
	tasks   []volume.Task // that movers carried out
	idle    bool          // nobody carries out Jobs
	unbound bool          // nobody makes volumes for claims
}

// ending is how a mover's pod ends.
type ending struct {
	exit    int32
	message string
	reason  string // of the container's end
	job     string // reason of the Job's failure; "" if it did not fail
	lost    bool   // the pod is deleted at once
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, config: kubetest.Start(t), broken: map[string]string{}, outcome: stored}
	l.app, l.system = kubetest.Namespace(t, l.config), kubetest.Namespace(t, l.config)
	l.one, l.two = "1"+l.app[len(l.app)-5:]+"-one", "2"+l.app[len(l.app)-5:]+"-two"
	cluster, err := kube.New(l.config)
	l.ok(err)
	l.cluster = cluster
	player, err := kube.New(l.config)
	l.ok(err)
	l.player = player.Client
	ctx, cancel := context.WithCancel(t.Context())
	var playing sync.WaitGroup
	playing.Go(func() {
		for ctx.Err() == nil {
			l.round(ctx)
			time.Sleep(20 * time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); playing.Wait() })
	immediate := storagev1.VolumeBindingImmediate
	l.create(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: l.app}, Provisioner: l.app, VolumeBindingMode: &immediate})
	return l
}

// stored is a mover that stores everything.
func stored(t volume.Task) ending {
	var r volume.Result
	for _, v := range t.Volumes {
		r.Parts = append(r.Parts, volume.PartResult{Part: v.Part, State: point.Stored, Bytes: 7})
	}
	text, _ := json.Marshal(r)
	return ending{message: string(text)}
}

func (l *lab) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) create(objects ...client.Object) {
	l.Helper()
	for _, o := range objects {
		l.ok(l.cluster.Client.Create(context.WithoutCancel(l.Context()), o))
	}
}

// snapshotClass makes a class of snapshots of the lab's driver.
func (l *lab) snapshotClass(name string, policy snapshotv1.DeletionPolicy, annotations map[string]string) {
	l.Helper()
	l.create(&snapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Driver: l.app, DeletionPolicy: policy,
	})
}

const groupAPI = "groupsnapshot.storage.k8s.io/v1beta1"

func (l *lab) groupClass() {
	l.Helper()
	l.create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": groupAPI, "kind": "VolumeGroupSnapshotClass", "metadata": map[string]any{"name": l.app},
		"driver": l.app, "deletionPolicy": "Delete",
	}})
}

// claim makes a claim that is bound to a volume of the lab's driver; change may say otherwise.
func (l *lab) claim(name string, change func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)) corev1.PersistentVolumeClaim {
	l.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: l.app + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes, StorageClassName: l.app,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: l.app, VolumeHandle: name}},
		},
	}
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.app, Name: name, Labels: map[string]string{"app": "shop"}, Annotations: map[string]string{"tracking": "git"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size}, VolumeName: pv.Name, StorageClassName: &l.app,
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: size},
	}
	if change != nil {
		change(pvc, pv)
	}
	status := pvc.Status
	l.create(pvc)
	if pv.Spec.ClaimRef == nil {
		pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: l.app, Name: name, UID: pvc.UID}
	}
	l.create(pv)
	pvc.Status = status
	l.ok(l.cluster.Client.Status().Update(l.Context(), pvc))
	return *pvc
}

// keeper makes a Keeper of an owner, in a world of its own: hurried in its waiting.
func (l *lab) keeper(owner string, cluster *kube.Cluster) *volume.Keeper {
	return volume.New(volume.Options{
		Cluster: cluster, System: l.system, Owner: owner, Series: "lab", Now: time.Now, Image: "backstay:test", Poll: 5 * time.Millisecond,
		CutDeadline: longest, ReadyDeadline: longest, Note: func(text string) { l.Log("note: ", text) },
	})
}

// planned makes a keeper that has planned the claims.
func (l *lab) planned(owner string, claims ...corev1.PersistentVolumeClaim) (*volume.Keeper, []v1alpha1.VolumeStatus) {
	l.Helper()
	k := l.keeper(owner, l.cluster)
	vols, err := k.Plan(l.Context(), claims, v1alpha1.VolumeCapture{})
	l.ok(err)
	return k, vols
}

func unsaved([]v1alpha1.VolumeStatus) error { return nil }

// everything lists what there is of a kind in both namespaces, or of the lab's among those of the cluster.
func (l *lab) everything(list client.ObjectList) []string {
	l.Helper()
	l.ok(l.cluster.Client.List(context.WithoutCancel(l.Context()), list))
	var names []string
	text, err := json.Marshal(list)
	l.ok(err)
	var read struct {
		Items []struct{ Metadata metav1.ObjectMeta }
	}
	l.ok(json.Unmarshal(text, &read))
	for _, item := range read.Items {
		m := item.Metadata
		if m.DeletionTimestamp == nil && (m.Namespace == l.app || m.Namespace == l.system || m.Namespace == "") {
			names = append(names, strings.TrimPrefix(m.Namespace+"/"+m.Name, "/"))
		}
	}
	return names
}

// eventually waits until something is so.
func (l *lab) eventually(what string, so func() bool) {
	l.Helper()
	for limit := time.Now().Add(longest); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			l.Fatalf("not so within %s: %s", longest, what)
		}
	}
}

// clean waits until nothing is left that a Keeper made.
func (l *lab) clean() {
	l.Helper()
	left := func() []string {
		var all []string
		for _, list := range []client.ObjectList{&batchv1.JobList{}, &corev1.PodList{}, &corev1.SecretList{}, &snapshotv1.VolumeSnapshotList{}} {
			all = append(all, l.everything(list)...)
		}
		for _, name := range l.everything(&corev1.PersistentVolumeClaimList{}) {
			if strings.HasPrefix(name, l.system+"/") {
				all = append(all, name)
			}
		}
		var contents snapshotv1.VolumeSnapshotContentList
		l.ok(l.cluster.Client.List(context.WithoutCancel(l.Context()), &contents))
		for _, c := range contents.Items {
			if c.Spec.Driver == l.app {
				all = append(all, c.Name)
			}
		}
		return all
	}
	all := left()
	for limit := time.Now().Add(longest); len(all) > 0 && time.Now().Before(limit); all = left() {
		time.Sleep(5 * time.Millisecond)
	}
	if len(all) > 0 {
		l.Errorf("left behind: %v", all)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken != 0 {
		l.Errorf("the driver holds %d snapshots", l.taken)
	}
}

// round does what the controllers of a cluster would do by now. What fails is done in the next round.
func (l *lab) round(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.playSnapshots(ctx)
	l.playGroups(ctx)
	l.playContents(ctx)
	l.playClaims(ctx)
	if !l.idle {
		l.playJobs(ctx)
	}
}

func (l *lab) mine(namespace string) bool { return namespace == l.app || namespace == l.system }

func (l *lab) playSnapshots(ctx context.Context) {
	var list snapshotv1.VolumeSnapshotList
	_ = l.player.List(ctx, &list)
	for i := range list.Items {
		s := &list.Items[i]
		claim := s.Spec.Source.PersistentVolumeClaimName
		if !l.mine(s.Namespace) || s.Status != nil && s.Status.CreationTime != nil {
			continue
		}
		if claim == nil { // static
			_ = l.bindSnapshot(ctx, s, *s.Spec.Source.VolumeSnapshotContentName)
			continue
		}
		if said := l.broken[*claim]; said != "" {
			s.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: &said}}
			_ = l.player.Status().Update(ctx, s)
			continue
		}
		if len(s.OwnerReferences) == 0 {
			l.content(ctx, s, *s.Spec.VolumeSnapshotClassName)
		}
		_ = l.bindSnapshot(ctx, s, "snapcontent-"+string(s.UID))
	}
}

// content makes what a dynamic snapshot stands for.
func (l *lab) content(ctx context.Context, s *snapshotv1.VolumeSnapshot, class string) {
	policy := snapshotv1.VolumeSnapshotContentDelete
	var of snapshotv1.VolumeSnapshotClass
	if l.player.Get(ctx, client.ObjectKey{Name: class}, &of) == nil {
		policy = of.DeletionPolicy
	}
	handle, at := "handle-"+string(s.UID), time.Now().UnixNano()
	c := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "snapcontent-" + string(s.UID)},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: s.Namespace, Name: s.Name, UID: s.UID},
			DeletionPolicy:    policy, Driver: l.app, VolumeSnapshotClassName: &class,
			Source: snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &handle},
		},
	}
	if l.player.Create(ctx, c) != nil {
		return
	}
	l.taken++
	c.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle, CreationTime: &at}
	_ = l.player.Status().Update(ctx, c)
}

func (l *lab) bindSnapshot(ctx context.Context, s *snapshotv1.VolumeSnapshot, content string) error {
	now, ready, size := metav1.Now(), !l.slow, resource.MustParse("2Gi")
	s.Status = &snapshotv1.VolumeSnapshotStatus{
		BoundVolumeSnapshotContentName: &content, CreationTime: &now, ReadyToUse: &ready, RestoreSize: &size,
	}
	return l.player.Status().Update(ctx, s)
}

// playContents deletes what snapshots stood for that are gone.
func (l *lab) playContents(ctx context.Context) {
	var list snapshotv1.VolumeSnapshotContentList
	_ = l.player.List(ctx, &list)
	for i := range list.Items {
		c := &list.Items[i]
		if c.Spec.Driver != l.app || c.Spec.Source.SnapshotHandle != nil {
			continue
		}
		var s snapshotv1.VolumeSnapshot
		err := l.player.Get(ctx, types.NamespacedName{Namespace: c.Spec.VolumeSnapshotRef.Namespace, Name: c.Spec.VolumeSnapshotRef.Name}, &s)
		gone := client.IgnoreNotFound(err) == nil && s.UID != c.Spec.VolumeSnapshotRef.UID
		if gone && c.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete && l.player.Delete(ctx, c) == nil {
			l.taken--
		}
	}
}

// playGroups takes group snapshots, as snapshot controllers do it: a member of its own for each claim that the selector chooses. Where
// it is gone, its members go.
func (l *lab) playGroups(ctx context.Context) {
	var list unstructured.UnstructuredList
	list.SetAPIVersion(groupAPI)
	list.SetKind("VolumeGroupSnapshotList")
	_ = l.player.List(ctx, &list, client.InNamespace(l.app))
	there := map[types.UID]bool{}
	for i := range list.Items {
		g := &list.Items[i]
		there[g.GetUID()] = true
		if at, _, _ := unstructured.NestedString(g.Object, "status", "creationTime"); at != "" {
			continue
		}
		status := map[string]any{"creationTime": time.Now().UTC().Format(time.RFC3339), "readyToUse": true}
		if l.grouped != "" {
			status = map[string]any{"error": map[string]any{"message": l.grouped}}
		} else {
			l.takeMembers(ctx, g)
		}
		g.Object["status"] = status
		_ = l.player.Status().Update(ctx, g)
	}
	var members snapshotv1.VolumeSnapshotList
	_ = l.player.List(ctx, &members, client.InNamespace(l.app))
	for i, m := range members.Items {
		if len(m.OwnerReferences) > 0 && !there[m.OwnerReferences[0].UID] {
			_ = l.player.Delete(ctx, &members.Items[i])
		}
	}
}

func (l *lab) takeMembers(ctx context.Context, g *unstructured.Unstructured) {
	labels, _, _ := unstructured.NestedStringMap(g.Object, "spec", "source", "selector", "matchLabels")
	var claims corev1.PersistentVolumeClaimList
	_ = l.player.List(ctx, &claims, client.InNamespace(l.app), client.MatchingLabels(labels))
	for _, c := range claims.Items {
		s := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
			Namespace: l.app, Name: "member-" + c.Name + "-" + string(g.GetUID())[:8],
			OwnerReferences: []metav1.OwnerReference{{APIVersion: groupAPI, Kind: "VolumeGroupSnapshot", Name: g.GetName(), UID: g.GetUID()}},
		}}
		s.Spec.Source.PersistentVolumeClaimName = &c.Name
		if l.player.Create(ctx, s) == nil {
			l.content(ctx, s, l.app)
		}
	}
}

// playClaims binds claims of the system namespace and lets them go.
func (l *lab) playClaims(ctx context.Context) {
	var list corev1.PersistentVolumeClaimList
	_ = l.player.List(ctx, &list, client.InNamespace(l.system))
	for i := range list.Items {
		c := &list.Items[i]
		switch {
		case c.DeletionTimestamp != nil:
			c.Finalizers = nil
			_ = l.player.Update(ctx, c)
		case c.Status.Phase != corev1.ClaimBound && !l.unbound:
			c.Status.Phase = corev1.ClaimBound
			_ = l.player.Status().Update(ctx, c)
		}
	}
}

// playJobs runs movers, and removes pods whose Job is gone.
func (l *lab) playJobs(ctx context.Context) {
	var jobs batchv1.JobList
	_ = l.player.List(ctx, &jobs, client.InNamespace(l.system))
	there := map[string]bool{}
	for i := range jobs.Items {
		j := &jobs.Items[i]
		there[string(j.UID)] = true
		if len(j.Status.Conditions) == 0 {
			l.runJob(ctx, j)
		}
	}
	var pods corev1.PodList
	_ = l.player.List(ctx, &pods, client.InNamespace(l.system))
	for i, p := range pods.Items {
		if uid := p.Labels[batchv1.ControllerUidLabel]; uid != "" && !there[uid] {
			_ = l.player.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0))
		}
	}
}

// runJob does what the mover of a Job does: it reads its Secret and says how it fared.
func (l *lab) runJob(ctx context.Context, j *batchv1.Job) {
	var secret corev1.Secret
	var task volume.Task
	if l.player.Get(ctx, client.ObjectKeyFromObject(j), &secret) != nil || json.Unmarshal(secret.Data["task.json"], &task) != nil {
		return
	}
	end := l.outcome(task)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: j.Namespace, Name: j.Name + "-0", Labels: map[string]string{}}, Spec: j.Spec.Template.Spec}
	for key, value := range j.Spec.Template.Labels {
		pod.Labels[key] = value
	}
	pod.Labels[batchv1.ControllerUidLabel] = string(j.UID)
	pod.Spec.ServiceAccountName = "default"
	if l.player.Create(ctx, pod) != nil {
		return
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{
		Name:  "mover",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: end.exit, Message: end.message, Reason: end.reason}},
	}}}
	_ = l.player.Status().Update(ctx, pod)
	if end.lost {
		_ = l.player.Delete(ctx, pod, client.GracePeriodSeconds(0))
	}
	now := metav1.Now()
	j.Status.StartTime = &now
	if end.job == "" {
		j.Status.Succeeded, j.Status.CompletionTime = 1, &now
		j.Status.Conditions = conditions(now, "", batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
	} else {
		j.Status.Failed = 1
		j.Status.Conditions = conditions(now, end.job, batchv1.JobFailureTarget, batchv1.JobFailed)
	}
	if err := l.player.Status().Update(ctx, j); err == nil {
		l.tasks = append(l.tasks, task)
	}
}

func conditions(at metav1.Time, reason string, kinds ...batchv1.JobConditionType) (all []batchv1.JobCondition) {
	for _, kind := range kinds {
		all = append(all, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: at})
	}
	return all
}

// with changes how the lab behaves.
func (l *lab) with(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// statusOf finds a volume by its claim.
func statusOf(vols []v1alpha1.VolumeStatus, claim string) v1alpha1.VolumeStatus {
	i := slices.IndexFunc(vols, func(v v1alpha1.VolumeStatus) bool { return v.Claim == claim })
	if i < 0 {
		return v1alpha1.VolumeStatus{Problem: fmt.Sprintf("no volume of claim %s", claim)}
	}
	return vols[i]
}
