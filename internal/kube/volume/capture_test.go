package volume_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
)

func TestPlan(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	block := corev1.PersistentVolumeBlock
	claims := []corev1.PersistentVolumeClaim{
		l.claim("plain", nil),
		l.claim("block", func(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			c.Spec.VolumeMode, v.Spec.VolumeMode = &block, &block
		}),
		l.claim("unbound", func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			c.Spec.VolumeName, c.Status.Phase = "", corev1.ClaimPending
		}),
		l.claim("lost", func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { c.Status.Phase = corev1.ClaimLost }),
		l.claim("cache-1", nil),
		l.claim("foreign", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.CSI.Driver = "other." + l.app
		}),
		l.claim("local", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.CSI, v.Spec.HostPath = nil, &corev1.HostPathVolumeSource{Path: "/srv"}
		}),
		l.claim("stolen", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "bank", Name: "money", UID: "u"}
		}),
	}
	pod := podOf(l.app, "web", "local")
	pod.Spec.NodeName = "node1"
	l.create(pod)
	pod.Status.Phase = corev1.PodRunning
	l.ok(l.cluster.Client.Status().Update(t.Context(), pod))

	tests := []struct {
		name    string
		capture v1alpha1.VolumeCapture
		want    map[string]string // claim: method, skipped, and a piece of the problem
	}{
		{"as it is", v1alpha1.VolumeCapture{Exclude: []string{"cache-*"}}, map[string]string{
			"plain": "snapshot", "block": "snapshot block",
			"stolen": "none: bound to another claim", "unbound": "none skipped: no data yet", "lost": "none: lost", "cache-1": "none skipped: excluded",
			"foreign": "none: no VolumeSnapshotClass is of its driver other.", "local": "none: not one of a CSI driver",
		}},
		{"skip", v1alpha1.VolumeCapture{WithoutSnapshot: v1alpha1.WithoutSnapshotSkip}, map[string]string{
			"plain": "snapshot", "cache-1": "snapshot", "lost": "none: lost",
			"foreign": "none skipped: no VolumeSnapshotClass", "local": "none skipped: not one of a CSI driver",
		}},
		{"live", v1alpha1.VolumeCapture{WithoutSnapshot: v1alpha1.WithoutSnapshotLive}, map[string]string{
			"plain": "snapshot", "foreign": "none: no running pod has it mounted", "local": "live", "lost": "none: lost",
		}},
		{"class that is not there", v1alpha1.VolumeCapture{SnapshotClass: "nonesuch", WithoutSnapshot: v1alpha1.WithoutSnapshotSkip}, map[string]string{
			"plain": "none: nonesuch, which does not exist",
		}},
	}
	check := func(t *testing.T, capture v1alpha1.VolumeCapture, want map[string]string) {
		vols, err := l.keeper(l.one, l.cluster).Plan(t.Context(), claims, capture)
		if err != nil {
			t.Fatal(err)
		}
		if len(vols) != len(claims) {
			t.Fatalf("%d volumes of %d claims", len(vols), len(claims))
		}
		for claim, expected := range want {
			v := statusOf(vols, claim)
			said := v.Method
			if v.Skipped {
				said += " skipped"
			}
			if v.Block {
				said += " block"
			}
			kind, problem, _ := strings.Cut(expected, ": ")
			if said != kind || !strings.Contains(v.Problem, problem) || (problem == "") != (v.Problem == "") {
				t.Errorf("%s: %s: %q, want %s", claim, said, v.Problem, expected)
			}
			if v.Part != "volumes/"+l.app+"/"+claim {
				t.Errorf("part %s", v.Part)
			}
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { check(t, test.capture, test.want) })
	}
	l.snapshotClass(l.app+"-b", snapshotv1.VolumeSnapshotContentDelete, nil)
	t.Run("two classes", func(t *testing.T) {
		check(t, v1alpha1.VolumeCapture{}, map[string]string{"plain": "none: several VolumeSnapshotClasses"})
		check(t, v1alpha1.VolumeCapture{SnapshotClass: l.app + "-b"}, map[string]string{"plain": "snapshot"})
	})
	l.snapshotClass(l.app+"-c", snapshotv1.VolumeSnapshotContentDelete, map[string]string{"snapshot.storage.kubernetes.io/is-default-class": "true"})
	t.Run("one of them the default", func(t *testing.T) {
		check(t, v1alpha1.VolumeCapture{}, map[string]string{"plain": "snapshot"})
	})
}

// hurried is a clock that runs so fast that no grace lasts.
func hurried() func() time.Time {
	begun := time.Now()
	var looks atomic.Int64 // several wait at once
	return func() time.Time { return begun.Add(time.Duration(looks.Add(1)) * time.Minute) }
}

func TestSnapshotsOfAllButTheBroken(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentRetain, nil)
	claims := []corev1.PersistentVolumeClaim{l.claim("a", nil), l.claim("b", nil), l.claim("c", nil)}
	l.with(func() { l.broken["b"] = "no space" })
	k, vols := l.planned(l.one, claims...)
	k.Now = hurried()
	before := time.Now()
	saved := 0
	l.ok(k.Snapshot(t.Context(), vols, func([]v1alpha1.VolumeStatus) error { saved++; return nil }))
	if saved == 0 {
		t.Error("nothing was saved")
	}
	for _, v := range vols {
		if v.Claim == "b" {
			if v.Taken != nil || !strings.Contains(v.Problem, "no space") {
				t.Errorf("b: %+v", v)
			}
			continue
		}
		if v.Problem != "" || v.Taken == nil || v.Taken.Time.Before(before) || v.Taken.Nanosecond() == 0 {
			t.Errorf("%s: %q, taken %v", v.Claim, v.Problem, v.Taken)
		}
	}
	k, again := l.planned(l.one, claims...)
	l.with(func() { delete(l.broken, "b") })
	l.ok(k.Snapshot(t.Context(), again, unsaved))
	if a := statusOf(again, "a"); a.Taken == nil || !a.Taken.Equal(statusOf(vols, "a").Taken) {
		t.Errorf("taken up again, a is of %v, not %v", a.Taken, statusOf(vols, "a").Taken)
	}
	l.ok(k.Discard(t.Context()))
	l.clean() // and the driver holds none, though the class says Retain
	l.ok(k.Snapshot(t.Context(), again, unsaved))
	if a := statusOf(again, "a"); a.Taken == nil || !a.Taken.After(statusOf(vols, "a").Taken.Time) {
		t.Errorf("started over, a is of %v", a.Taken)
	}
	_, unplanned := l.planned(l.two, claims...)
	if err := l.keeper(l.two, l.cluster).Snapshot(t.Context(), unplanned, unsaved); err == nil {
		t.Error("claims that were not planned are snapshot")
	}
}

func TestSnapshotInTimeOrNotAtAll(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	a := l.claim("a", nil)
	l.with(func() { l.broken["a"] = "later" })
	k, vols := l.planned(l.one, a)
	k.CutDeadline = 50 * time.Millisecond
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	if vols[0].Problem == "" || vols[0].Taken != nil {
		t.Errorf("%+v", vols[0])
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Snapshot(ended, vols, unsaved); err == nil {
		t.Error("interrupted, it says nothing of it")
	}
}

// marks are labels and annotations of a claim.
func (l *lab) marks(claim string) (labels, annotations map[string]string) {
	l.Helper()
	var c corev1.PersistentVolumeClaim
	l.ok(l.cluster.Client.Get(context.WithoutCancel(l.Context()), client.ObjectKey{Namespace: l.app, Name: claim}, &c))
	return c.Labels, c.Annotations
}

// unmarked checks that a claim is as it was made.
func (l *lab) unmarked(claim string) {
	l.Helper()
	labels, annotations := l.marks(claim)
	if len(labels) != 1 || labels["app"] != "shop" || annotations["tracking"] != "git" {
		l.Errorf("claim %s has labels %v, annotations %v", claim, labels, annotations)
	}
}

func TestGroup(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	l.groupClass()
	claims := []corev1.PersistentVolumeClaim{l.claim("a", nil), l.claim("b", nil), l.claim("other", nil)}
	if _, alone := l.planned(l.one, claims[0]); alone[0].Method != v1alpha1.MethodSnapshot {
		t.Errorf("a claim alone is captured by %s", alone[0].Method)
	}
	k, vols := l.planned(l.one, claims[:2]...)
	if vols[0].Method != v1alpha1.MethodGroup || vols[1].Method != v1alpha1.MethodGroup {
		t.Fatalf("planned: %+v", vols)
	}
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	for _, v := range vols {
		if v.Problem != "" || v.Taken == nil || !strings.HasPrefix(v.Snapshot, "member-"+v.Claim) || v.Method != v1alpha1.MethodGroup {
			t.Errorf("%+v", v)
		}
		l.unmarked(v.Claim)
	}
	if found := l.everything(&snapshotv1.VolumeSnapshotList{}); len(found) != 2 {
		t.Errorf("snapshots %v: the selector chose other claims", found)
	}
	result, err := k.Move(t.Context(), vols[0], task(vols[0]))
	if err != nil || result.State != point.Stored {
		t.Errorf("moved: %+v, %v", result, err)
	}
	l.eventually("the mover's pod and its claim are gone", func() bool { // which Tidy would end once more, and say so
		var claims corev1.PersistentVolumeClaimList
		l.ok(l.cluster.Client.List(t.Context(), &claims, client.InNamespace(l.system)))
		return len(l.everything(&corev1.PodList{})) == 0 && len(claims.Items) == 0
	})
	l.ok(k.Keep(t.Context(), vols, "point1"))
	if removed, err := k.Tidy(t.Context(), l.others); err != nil || len(removed) != 0 {
		t.Errorf("tidied away what is kept: %v, %v", removed, err)
	}
	kept, err := k.Kept(t.Context(), "point1")
	if err != nil || len(kept) != 2 {
		t.Errorf("kept: %v, %v", kept, err)
	}
	l.ok(k.ForgetPoint(t.Context(), "point1"))
	l.clean()
}

func TestGroupThatFails(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	l.groupClass()
	claims := []corev1.PersistentVolumeClaim{l.claim("a", nil), l.claim("b", nil)}
	l.with(func() { l.grouped = "not today" })
	k, vols := l.planned(l.one, claims...)
	k.Now = hurried()
	noted := ""
	k.Note = func(text string) { noted += text }
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	for _, v := range vols {
		if v.Problem != "" || v.Taken == nil || v.Method != v1alpha1.MethodSnapshot {
			t.Errorf("%+v", v)
		}
		l.unmarked(v.Claim)
	}
	if !strings.Contains(noted, "not today") {
		t.Errorf("noted %q", noted)
	}
	l.ok(k.Forget(t.Context()))
	l.clean()
}

// others are active: the owners of other tests on the same server.
func (l *lab) others(uid string) bool { return uid != l.one && uid != l.two }

func task(v v1alpha1.VolumeStatus) volume.Task {
	return volume.Task{
		Operation: volume.Backup, Subject: point.Subject{Kind: point.SubjectApplication, Name: "c/shop"},
		Location: volume.Location{URL: "s3://b", Password: "swordfish"}, Volumes: []volume.Mount{{Part: v.Part, Mark: "m"}},
	}
}

func TestKeepNewest(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	claims := []corev1.PersistentVolumeClaim{l.claim("a", nil), l.claim("b", nil)}
	for _, owner := range []string{l.one, l.two} {
		k, vols := l.planned(owner, claims...)
		l.ok(k.Snapshot(t.Context(), vols, unsaved))
		l.ok(k.Keep(t.Context(), vols, "p"+owner[:1]))
		l.ok(k.Keep(t.Context(), vols, "p"+owner[:1])) // taken up again
		time.Sleep(1100 * time.Millisecond)            // ages are in whole seconds
	}
	k := l.keeper(l.two, l.cluster)
	l.ok(k.KeepNewest(t.Context(), 2))
	if found := l.everything(&snapshotv1.VolumeSnapshotList{}); len(found) != 4 {
		t.Errorf("of two points kept: %v", found)
	}
	other := l.keeper(l.two, l.cluster)
	other.Series = "another"
	l.ok(other.KeepNewest(t.Context(), 0))
	l.ok(k.KeepNewest(t.Context(), 1))
	kept, err := k.Kept(t.Context(), "p2")
	if err != nil || len(kept) != 2 {
		t.Errorf("the newest: %v, %v", kept, err)
	}
	if old, err := k.Kept(t.Context(), "p1"); err != nil || len(old) != 0 {
		t.Errorf("the older: %v, %v", old, err)
	}
	l.ok(k.KeepNewest(t.Context(), 0))
	l.clean()
}
