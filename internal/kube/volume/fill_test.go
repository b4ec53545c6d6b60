package volume_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
)

// fillLab is a lab where claims of Backstay's own namespace get volumes.
func fillLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	bind(t, l.config, l.system)
	return l
}

func (l *lab) wanted() volume.Wanted {
	c := claim(l.app)
	c.Spec.StorageClassName = &l.app
	return volume.Wanted{Claim: *c}
}

func (l *lab) fill(cluster *kube.Cluster, w volume.Wanted) (string, error) {
	r := &volume.Restorer{
		Cluster: cluster, Application: cluster, System: l.system, Owner: l.one, Wait: longest, Poll: 5 * time.Millisecond, Now: time.Now,
	}
	task := volume.Task{Operation: volume.Restore, Volumes: []volume.Mount{{Part: "volumes/shop/data"}}}
	return r.Fill(l.Context(), l.keeper(l.one, cluster), w, task)
}

// wantFree checks that there is one volume of this lab, that it waits for its claim, and that nobody else can get it.
func (l *lab) wantFree(name string) {
	l.Helper()
	var all corev1.PersistentVolumeList
	l.ok(l.cluster.Client.List(l.Context(), &all, client.MatchingLabels{v1alpha1.LabelOwner: l.one}))
	if len(all.Items) != 1 || all.Items[0].Name != name {
		l.Fatalf("volumes %+v, want %s alone", all.Items, name)
	}
	v := all.Items[0]
	if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || v.Annotations[volume.AnnotationReclaim] != "Delete" {
		l.Errorf("its policy is %s, and was %q", v.Spec.PersistentVolumeReclaimPolicy, v.Annotations[volume.AnnotationReclaim])
	}
	if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Namespace != l.system {
		l.Errorf("any claim can get it: %+v", v.Spec.ClaimRef)
	}
	if size := v.Spec.Capacity[corev1.ResourceStorage]; size.String() != "10Mi" {
		l.Errorf("it has %s, want 10Mi", size.String())
	}
}

func TestFillByMover(t *testing.T) {
	l := fillLab(t)
	name, err := l.fill(l.cluster, l.wanted())
	l.ok(err)
	l.wantFree(name)
	again, err := l.fill(l.cluster, l.wanted())
	l.ok(err)
	if again != name {
		t.Errorf("Fill, again, made %s, want %s", again, name)
	}
	l.with(func() {
		if len(l.tasks) != 1 || l.tasks[0].Volumes[0].Path == "" || l.tasks[0].Volumes[0].Kind != point.KindVolume {
			t.Errorf("movers carried out %+v", l.tasks)
		}
	})
	l.clean()
}

func TestFillFromKeptSnapshot(t *testing.T) {
	l := fillLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	c := l.claim("data", nil)
	k, vols := l.planned(l.two, c)
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	l.ok(k.Keep(t.Context(), vols, "point-1"))
	l.eventually("the snapshot is ready", func() bool {
		kept, err := k.Kept(t.Context(), "point-1")
		s := kept[types.NamespacedName{Namespace: l.app, Name: "data"}]
		return err == nil && s != nil && s.Status != nil && s.Status.ReadyToUse != nil && *s.Status.ReadyToUse
	})
	w := l.wanted()
	w.Claim.Namespace, w.Point, w.From = l.system, "point-1", l.app // into another namespace
	w.Claim.Spec.Resources.Requests = c.Spec.Resources.Requests
	name, err := l.fill(l.cluster, w)
	l.ok(err)
	var v corev1.PersistentVolume
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Name: name}, &v))
	l.with(func() {
		if len(l.tasks) > 0 {
			t.Errorf("a mover ran, though the snapshot is there: %+v", l.tasks)
		}
	})
	l.ok(k.ForgetPoint(t.Context(), "point-1"))
	l.clean()
}

func TestFillKilled(t *testing.T) {
	kubetest.Start(t) // or skip all
	for writes := range 10 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			l := fillLab(t)
			_, err := l.fill(dying(t, l.config, writes), l.wanted())
			if err != nil && !strings.Contains(err.Error(), errKilled.Error()) {
				t.Fatalf("killed after %d writes, it says: %v", writes, err)
			}
			name, err := l.fill(l.cluster, l.wanted())
			l.ok(err)
			l.wantFree(name)
			l.clean()
		})
	}
}

func TestFillFails(t *testing.T) {
	none, absent := "", "absent"
	tests := []struct {
		name    string
		prepare func(*lab, *volume.Wanted)
		class   error
		says    string
	}{
		{"a claim without class", func(_ *lab, w *volume.Wanted) { w.Claim.Spec.StorageClassName = &none }, fault.ErrUnsupported, "no storage class"},
		{"a class that is not there", func(_ *lab, w *volume.Wanted) { w.Claim.Spec.StorageClassName = &absent }, fault.ErrNotFound, "absent"},
		{"a mover that cannot restore the part", func(l *lab, _ *volume.Wanted) {
			l.with(func() {
				l.outcome = func(task volume.Task) ending {
					text, err := json.Marshal(volume.Result{Parts: []volume.PartResult{{Part: task.Volumes[0].Part, State: point.Failed, Reason: "no space left"}}})
					l.ok(err)
					return ending{message: string(text)}
				}
			})
		}, fault.ErrIncomplete, "no space left"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := fillLab(t)
			w := l.wanted()
			test.prepare(l, &w)
			if _, err := l.fill(l.cluster, w); !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Fill: %v", err)
			}
			l.clean()
		})
	}
}
