package function

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// driver plays the snapshot controller and its driver until the test ends: it asks what becomes of each snapshot that is not ready yet.
func (l *lab) driver(status func(s *snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotStatus) {
	ctx := l.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for kube.Pause(ctx, 5*time.Millisecond) == nil {
			var all snapshotv1.VolumeSnapshotList
			if l.cluster.Client.List(ctx, &all, client.InNamespace(l.ns)) != nil {
				continue
			}
			for _, s := range all.Items {
				if s.Status = status(&s); s.Status != nil {
					_ = l.cluster.Client.Status().Update(ctx, &s) // or in the next round
				}
			}
		}
	}()
	l.Cleanup(func() { <-done })
}

// cut is the status of a snapshot that is ready.
func cut(content, size string) *snapshotv1.VolumeSnapshotStatus {
	yes := true
	s := &snapshotv1.VolumeSnapshotStatus{ReadyToUse: &yes, BoundVolumeSnapshotContentName: &content}
	if size != "" {
		q := resource.MustParse(size)
		s.RestoreSize = &q
	}
	return s
}

func (l *lab) claim(name, size string) {
	l.Helper()
	l.ok(l.cluster.Client.Create(l.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}))
}

func TestCreateCSISnapshot(t *testing.T) {
	l := newLab(t)
	l.claim("data", "3Gi")
	asked := 0
	l.driver(func(s *snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotStatus {
		switch asked++; {
		case asked == 1: // drivers get over it
			text := "the object has been modified"
			return &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: &text}}
		case s.Name == "unsized":
			return cut("content-2", "")
		}
		return cut("content-1", "2Gi")
	})
	args := map[string]any{
		"pvc": "data", "namespace": l.ns, "snapshotClass": "fast", "labels": map[string]any{"app": "shop"},
	}
	output, err := l.run(t.Context(), "CreateCSISnapshot", l.call(args))
	l.ok(err)
	want := map[string]any{"name": "data-snapshot-abcde12345", "pvc": "data", "namespace": l.ns, "restoreSize": "2Gi", "snapshotContent": "content-1"}
	if !maps.Equal(output, want) {
		t.Errorf("output %v, want %v", output, want)
	}
	var s snapshotv1.VolumeSnapshot
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: "data-snapshot-abcde12345"}, &s))
	if s.Labels["app"] != "shop" || *s.Spec.VolumeSnapshotClassName != "fast" {
		t.Errorf("snapshot %+v", s)
	}
	if len(l.saved) != 1 || l.saved[0]["name"] != s.Name {
		t.Errorf("saved %v before the snapshot was ready", l.saved)
	}

	t.Run("taken up", func(t *testing.T) {
		again, err := l.run(t.Context(), "CreateCSISnapshot", l.call(args))
		if err != nil || !maps.Equal(again, want) {
			t.Errorf("output %v, %v; want %v", again, err, want)
		}
	})
	t.Run("name of somebody else's", func(t *testing.T) {
		other := l.call(args)
		other.ID = "another123"
		other.Args["name"] = s.Name
		if _, err := l.run(t.Context(), "CreateCSISnapshot", other); !errors.Is(err, fault.ErrExists) {
			t.Errorf("error %v, want exists", err)
		}
		delete(args, "name")
	})
	t.Run("driver without sizes", func(t *testing.T) {
		c := l.call(map[string]any{"pvc": "data", "namespace": l.ns, "snapshotClass": "fast", "name": "unsized"})
		output, err := l.run(t.Context(), "CreateCSISnapshot", c)
		if err != nil || output["restoreSize"] != "3Gi" {
			t.Errorf("output %v, %v; want the claim's 3Gi", output, err)
		}
	})
}

func TestCreateCSISnapshotFails(t *testing.T) {
	l := newLab(t)
	text := "there is no room" + strings.Repeat("!", 1000)
	l.driver(func(*snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotStatus {
		l.later(time.Second)
		return &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: &text}}
	})
	_, err := l.run(t.Context(), "CreateCSISnapshot", l.call(map[string]any{"pvc": "data", "namespace": l.ns, "snapshotClass": "fast"}))
	if err == nil || !strings.Contains(err.Error(), "there is no room") || len(err.Error()) > 600 {
		t.Errorf("error %v", err)
	}
	if left := l.snapshots(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestCreateCSISnapshotInterrupted: another process waits for what this one began.
func TestCreateCSISnapshotInterrupted(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.driver(func(*snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotStatus {
		cancel()
		return nil
	})
	_, err := l.run(ctx, "CreateCSISnapshot", l.call(map[string]any{"pvc": "data", "namespace": l.ns, "snapshotClass": "fast"}))
	if left := l.snapshots(); err == nil || len(left) != 1 {
		t.Errorf("error %v, left: %v", err, left)
	}
}

// snapshots are the names of those in the lab's namespace.
func (l *lab) snapshots() (names []string) {
	l.Helper()
	var list snapshotv1.VolumeSnapshotList
	if err := l.cluster.Client.List(l.Context(), &list, client.InNamespace(l.ns)); err != nil {
		l.Fatal(err)
	}
	for _, s := range list.Items {
		names = append(names, s.Name)
	}
	return names
}

func TestCreateCSISnapshotStatic(t *testing.T) {
	l := newLab(t)
	l.ok(client.IgnoreAlreadyExists(l.cluster.Client.Create(t.Context(), &snapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: "keep"}, Driver: "lab.local", DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain,
	})))
	l.driver(func(s *snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotStatus {
		return cut(*s.Spec.Source.VolumeSnapshotContentName, "1Gi")
	})
	args := map[string]any{
		"name": "found-" + l.ns, "namespace": l.ns, "driver": "lab.local", "snapshotHandle": "snap-1", "snapshotClass": "keep",
	}
	for range 2 { // the second takes up the first
		output, err := l.run(t.Context(), "CreateCSISnapshotStatic", l.call(args))
		l.ok(err)
		name, _ := output["snapshotContent"].(string)
		var content snapshotv1.VolumeSnapshotContent
		l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Name: name}, &content))
		if *content.Spec.Source.SnapshotHandle != "snap-1" || content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain ||
			content.Spec.VolumeSnapshotRef.Namespace != l.ns || output["restoreSize"] != "1Gi" {
			t.Errorf("content %+v, output %v", content.Spec, output)
		}
	}
}

func TestRestoreCSISnapshot(t *testing.T) {
	l := newLab(t)
	args := map[string]any{
		"name": "snap", "pvc": "back", "namespace": l.ns, "storageClass": "standard", "restoreSize": "2Gi",
		"accessModes": []any{"ReadWriteMany"}, "volumeMode": "Block", "labels": map[string]any{"app": "shop"},
	}
	for range 2 { // the second takes up the first
		_, err := l.run(t.Context(), "RestoreCSISnapshot", l.call(args))
		l.ok(err)
	}
	var claim corev1.PersistentVolumeClaim
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.ns, Name: "back"}, &claim))
	of := claim.Spec.DataSource
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if of == nil || of.Kind != "VolumeSnapshot" || of.Name != "snap" || *of.APIGroup != "snapshot.storage.k8s.io" || size.String() != "2Gi" ||
		claim.Spec.AccessModes[0] != corev1.ReadWriteMany || *claim.Spec.VolumeMode != corev1.PersistentVolumeBlock || claim.Labels["app"] != "shop" {
		t.Errorf("claim %+v", claim)
	}
	other := l.call(args)
	other.ID = "another123"
	if _, err := l.run(t.Context(), "RestoreCSISnapshot", other); !errors.Is(err, fault.ErrExists) {
		t.Errorf("onto a claim that is there: %v, want exists", err)
	}
	for name, value := range map[string]any{"restoreSize": "0", "accessModes": []any{"Sometimes"}, "volumeMode": "Tape"} {
		bad := map[string]any{"name": "snap", "pvc": "bad", "namespace": l.ns, "storageClass": "standard", "restoreSize": "2Gi"}
		bad[name] = value
		if _, err := l.run(t.Context(), "RestoreCSISnapshot", l.call(bad)); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s %v: %v, want invalid", name, value, err)
		}
	}
}

func TestDeleteCSISnapshot(t *testing.T) {
	l := newLab(t)
	claim := "data"
	s := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: "snap"},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim}},
	}
	l.ok(l.cluster.Client.Create(t.Context(), s))
	for range 2 { // what is gone is deleted
		_, err := l.run(t.Context(), "DeleteCSISnapshot", l.call(map[string]any{"name": "snap", "namespace": l.ns}))
		l.ok(err)
		_, err = l.run(t.Context(), "DeleteCSISnapshotContent", l.call(map[string]any{"name": "none"}))
		l.ok(err)
	}
	if err := l.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); !apierrors.IsNotFound(err) {
		t.Errorf("the snapshot is there: %v", err)
	}
}

func TestSnapshotNameFits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 228) + "." + strings.Repeat("b", 24)
	if got := snapshotName(long, "abcde12345"); len(got) > 253 || strings.Contains(got, ".-") || !strings.HasSuffix(got, "-snapshot-abcde12345") {
		t.Errorf("%q", got)
	}
}
