package volume_test

import (
	"errors"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
)

// TestKeptSnapshotsOfOneNamespace: who works for one namespace neither sees nor deletes the kept snapshots of others.
func TestKeptSnapshotsOfOneNamespace(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	k, vols := l.planned(l.one, l.claim("data", nil))
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	l.ok(k.Keep(t.Context(), vols, "p-one"))

	other := l.keeper(l.two, l.cluster)
	other.Within = "elsewhere"
	if kept, err := other.Kept(t.Context(), "p-one"); err != nil || len(kept) != 0 {
		t.Errorf("another namespace's worker sees %v, %v", kept, err)
	}
	l.ok(other.ForgetPoint(t.Context(), "p-one"))
	l.ok(other.KeepNewest(t.Context(), 0))
	other.Within = l.app
	if kept, err := other.Kept(t.Context(), "p-one"); err != nil || len(kept) != 1 {
		t.Errorf("the snapshot of another namespace was not left alone: %v, %v", kept, err)
	}
	l.ok(other.ForgetPoint(t.Context(), "p-one"))
	l.clean()
}

// TestFillFromASnapshotThatLies: a snapshot that says that another's content is its own is not restored from.
func TestFillFromASnapshotThatLies(t *testing.T) {
	l := fillLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	k, vols := l.planned(l.two, l.claim("data", nil), l.claim("secret", nil))
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	l.ok(k.Keep(t.Context(), vols, "p-lie"))
	var kept map[types.NamespacedName]*snapshotv1.VolumeSnapshot
	of := func(claim string) *snapshotv1.VolumeSnapshot {
		return kept[types.NamespacedName{Namespace: l.app, Name: claim}]
	}
	l.eventually("the snapshots are ready", func() (ready bool) {
		var err error
		kept, err = k.Kept(t.Context(), "p-lie")
		for _, claim := range []string{"data", "secret"} {
			s := of(claim)
			if err != nil || s == nil || s.Status == nil || s.Status.ReadyToUse == nil || !*s.Status.ReadyToUse {
				return false
			}
		}
		return true
	})
	data := of("data")
	itsOwn := *data.Status.BoundVolumeSnapshotContentName
	data.Status.BoundVolumeSnapshotContentName = of("secret").Status.BoundVolumeSnapshotContentName
	l.ok(l.cluster.Client.Status().Update(t.Context(), data))
	w := l.wanted()
	w.Point = "p-lie"
	_, err := l.fill(l.cluster, w)
	l.ok(err)
	l.with(func() {
		if len(l.tasks) != 1 {
			t.Errorf("%d movers ran, want the one that fills the volume from the location", len(l.tasks))
		}
	})
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(data), data))
	data.Status.BoundVolumeSnapshotContentName = &itsOwn
	l.ok(l.cluster.Client.Status().Update(t.Context(), data))
	l.ok(k.ForgetPoint(t.Context(), "p-lie"))
	l.clean()
}

// TestSwapTakesNoVolumeOfOthers: a volume that was not made for this Restore goes behind no claim, whatever a status says.
func TestSwapTakesNoVolumeOfOthers(t *testing.T) {
	s := newScene(t)
	name := s.filled("10Mi", "b")
	for _, owner := range []string{"", s.uid("b")} {
		s.own(name, owner)
		_, err := s.restorer("a", s.cluster).Swap(t.Context(), volume.Exchange{Claim: *claim(s.ns), NewVolume: name})
		if !errors.Is(err, fault.ErrDenied) {
			t.Errorf("owned by %q: %v", owner, err)
		}
		if ref := s.volume(name).Spec.ClaimRef; ref == nil || ref.Name != "gone" {
			t.Errorf("owned by %q it was given to %+v", owner, ref)
		}
	}
	s.ok(s.cluster.Client.Delete(t.Context(), &corev1.PersistentVolume{ObjectMeta: s.volume(name).ObjectMeta}))
}
