package volume_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/volume"
)

// scene is an application's namespace with one bound claim, and a volume filled for it.
type scene struct {
	*testing.T
	config   *rest.Config
	cluster  *kube.Cluster
	ns       string
	old, new string // volumes
	before   *corev1.PersistentVolumeClaim
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{T: t, config: kubetest.Start(t)}
	s.ns = kubetest.Namespace(t, s.config)
	cluster, err := kube.New(s.config)
	s.ok(err)
	s.cluster = cluster
	bind(t, s.config, s.ns)
	s.ok(s.cluster.Client.Create(t.Context(), claim(s.ns)))
	s.before = s.bound()
	s.old = s.before.Spec.VolumeName
	s.new = s.filled("10Mi", "first")
	return s
}

func (s *scene) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func claim(ns string) *corev1.PersistentVolumeClaim {
	class := "fast"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: "data", Labels: map[string]string{"app": "shop"},
			Annotations: map[string]string{
				"argocd.argoproj.io/tracking-id":                   "shop:/PersistentVolumeClaim:" + ns + "/data",
				"kubectl.kubernetes.io/last-applied-configuration": `{"apiVersion":"v1","kind":"PersistentVolumeClaim"}`,
			},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}},
		},
	}
}

// filled makes a volume as Fill leaves it behind.
func (s *scene) filled(size, owner string) string {
	s.Helper()
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "filled-", Labels: map[string]string{v1alpha1.LabelOwner: s.uid(owner), v1alpha1.LabelClaim: "x"},
			Annotations: map[string]string{volume.AnnotationReclaim: "Delete"},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, StorageClassName: "other",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "test.backstay.io", VolumeHandle: "x"}},
			ClaimRef:                      &corev1.ObjectReference{Namespace: s.ns, Name: "gone", UID: "5f3a"},
		},
	}
	s.ok(s.cluster.Client.Create(s.Context(), v))
	return v.Name
}

// own makes a volume a Restore's.
func (s *scene) own(name, uid string) {
	s.Helper()
	s.ok(s.cluster.Client.Patch(s.Context(), s.volume(name), client.RawPatch(types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+v1alpha1.LabelOwner+`":"`+uid+`"}}}`))))
}

func (s *scene) restorer(owner string, cluster *kube.Cluster) *volume.Restorer {
	return &volume.Restorer{
		Cluster: cluster, Application: cluster, System: s.ns, Owner: s.uid(owner), Keep: time.Hour,
		Wait: longest, Poll: 10 * time.Millisecond, Now: time.Now,
	}
}

// uid is that of a Restore, by its name in the test. Volumes are the cluster's, so no other scene may have the same.
func (s *scene) uid(restore string) string { return restore + s.ns[strings.LastIndexByte(s.ns, '-'):] }

// others is of all Restores but this scene's: they are active.
func (s *scene) others(uid string) bool { return uid[strings.LastIndexByte(uid, '-'):] != s.uid("") }

func (s *scene) exchange() volume.Exchange {
	return volume.Exchange{Claim: *claim(s.ns), NewVolume: s.new}
}

// bound waits for the claim to be bound.
func (s *scene) bound() *corev1.PersistentVolumeClaim {
	s.Helper()
	var c corev1.PersistentVolumeClaim
	s.eventually("the claim is bound", func() bool {
		err := s.cluster.Client.Get(s.Context(), client.ObjectKey{Namespace: s.ns, Name: "data"}, &c)
		return err == nil && c.Status.Phase == corev1.ClaimBound && c.DeletionTimestamp == nil
	})
	return &c
}

func (s *scene) eventually(what string, done func() bool) {
	s.Helper()
	for limit := time.Now().Add(longest); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			s.Fatalf("waited in vain until %s", what)
		}
	}
}

func (s *scene) volume(name string) *corev1.PersistentVolume {
	s.Helper()
	var v corev1.PersistentVolume
	s.ok(s.cluster.Client.Get(s.Context(), client.ObjectKey{Name: name}, &v))
	return &v
}

// want checks which volume is behind the claim, that nothing else about the claim changed, and that the volume is like any other.
func (s *scene) want(behind string) {
	s.Helper()
	c := s.bound()
	if c.Spec.VolumeName != behind {
		s.Fatalf("the claim has volume %s, want %s", c.Spec.VolumeName, behind)
	}
	spec := c.Spec.DeepCopy()
	spec.VolumeName = s.before.Spec.VolumeName
	if !reflect.DeepEqual(*spec, s.before.Spec) {
		s.Errorf("spec: %+v, before %+v", c.Spec, s.before.Spec)
	}
	if !maps.Equal(c.Labels, s.before.Labels) || !maps.Equal(c.Annotations, s.before.Annotations) {
		s.Errorf("labels %v and annotations %v, before %v and %v", c.Labels, c.Annotations, s.before.Labels, s.before.Annotations)
	}
	v := s.volume(behind)
	if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		s.Errorf("the volume's policy is %s, before Delete", v.Spec.PersistentVolumeReclaimPolicy)
	}
	for name := range v.Labels {
		if strings.HasPrefix(name, v1alpha1.Group) {
			s.Errorf("the volume still has label %s", name)
		}
	}
	for name := range v.Annotations {
		if strings.HasPrefix(name, v1alpha1.Group) {
			s.Errorf("the volume still has annotation %s", name)
		}
	}
}

// wantKept checks that a volume is kept for an undo.
func (s *scene) wantKept(name, owner string) {
	s.Helper()
	v := s.volume(name)
	if v.Labels[v1alpha1.LabelUndo] != s.uid(owner) || v.Annotations[volume.AnnotationTaken] == "" ||
		v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		s.Errorf("volume %s with labels %v, annotations %v, %s: want it kept for %s", name, v.Labels, v.Annotations, v.Spec.PersistentVolumeReclaimPolicy, owner)
	}
}

func (s *scene) wantGone(name string) {
	s.Helper()
	s.eventually("volume "+name+" is gone", func() bool {
		err := s.cluster.Client.Get(s.Context(), client.ObjectKey{Name: name}, &corev1.PersistentVolume{})
		return client.IgnoreNotFound(err) == nil && err != nil
	})
}

func TestSwapAndUndoAndUndoOfUndo(t *testing.T) {
	s := newScene(t)
	old, err := s.restorer("first", s.cluster).Swap(t.Context(), s.exchange())
	s.ok(err)
	if old != s.old {
		t.Errorf("Swap took out %q, want %s", old, s.old)
	}
	s.want(s.new)
	s.wantKept(s.old, "first")

	vols, err := s.restorer("second", s.cluster).Undo(t.Context(), s.uid("first"))
	s.ok(err)
	if len(vols) != 1 || vols[0].OldVolume != s.new || vols[0].NewVolume != s.old || vols[0].Claim != "data" {
		t.Errorf("Undo says %+v", vols)
	}
	s.want(s.old)
	s.wantKept(s.new, "second")

	_, err = s.restorer("third", s.cluster).Undo(t.Context(), s.uid("second"))
	s.ok(err)
	s.want(s.new)
	s.wantKept(s.old, "third")

	if _, err = s.restorer("fourth", s.cluster).Undo(t.Context(), s.uid("first")); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("an undo of what is undone: %v", err)
	}
	r := s.restorer("", s.cluster)
	s.ok(r.DeleteUndo(t.Context(), s.others))
	s.wantKept(s.old, "third")
	r.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	s.ok(r.DeleteUndo(t.Context(), func(string) bool { return true }))
	s.wantKept(s.old, "third")
	s.ok(r.DeleteUndo(t.Context(), s.others))
	s.wantGone(s.old)
	s.want(s.new)
}

func TestSwapWithoutClaim(t *testing.T) {
	s := newScene(t)
	s.ok(s.cluster.Client.Delete(t.Context(), s.before))
	s.wantGone(s.old)
	delete(s.before.Annotations, provisioner)
	old, err := s.restorer("first", s.cluster).Swap(t.Context(), s.exchange())
	s.ok(err)
	if old != "" {
		t.Errorf("Swap took out %q of a claim that was not there", old)
	}
	s.want(s.new)
}

// killed is a connection that breaks for good before the write of a number.
type killed struct {
	next http.RoundTripper
	left *atomic.Int64
}

var errKilled = errors.New("killed")

func (k killed) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet {
		if k.left.Load() < 0 {
			return nil, errKilled
		}
		return k.next.RoundTrip(request)
	}
	if k.left.Add(-1) < 0 {
		return nil, errKilled
	}
	return k.next.RoundTrip(request)
}

// dying is a cluster that dies after so many writes.
func dying(t *testing.T, config *rest.Config, writes int) *kube.Cluster {
	t.Helper()
	config = rest.CopyConfig(config)
	left := &atomic.Int64{}
	left.Store(int64(writes))
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return killed{next: next, left: left} })
	c, err := kube.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// everyKill runs work killed before its first write, its second, and so on until it comes to its end, each in a scene of its own, and
// checks what then makes of it. No work has more than eight writes.
func everyKill(t *testing.T, prepare func(*scene), work func(*scene, *kube.Cluster) error, then func(*scene)) {
	t.Helper()
	kubetest.Start(t) // or skip all
	const most = 8
	for writes := range most + 1 {
		t.Run(fmt.Sprintf("%d writes", writes), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			prepare(s)
			err := work(s, dying(t, s.config, writes))
			if err != nil && (writes == most || !strings.Contains(err.Error(), errKilled.Error())) {
				t.Fatalf("killed after %d writes, it says: %v", writes, err)
			}
			then(s)
		})
	}
}

func swap(owner string) func(s *scene, c *kube.Cluster) error {
	return func(s *scene, c *kube.Cluster) error {
		_, err := s.restorer(owner, c).Swap(s.Context(), s.exchange())
		return err
	}
}

func TestSwapKilledGoesOn(t *testing.T) {
	everyKill(t, func(*scene) {}, swap("first"), func(s *scene) {
		old, err := s.restorer("first", s.cluster).Swap(s.Context(), s.exchange())
		s.ok(err)
		if old != s.old {
			s.Errorf("Swap took out %q, want %s", old, s.old)
		}
		s.want(s.new)
		s.wantKept(s.old, "first")
	})
}

func TestSwapKilledIsTakenBack(t *testing.T) {
	everyKill(t, func(*scene) {}, swap("first"), func(s *scene) {
		s.ok(s.restorer("first", s.cluster).TakeBack(s.Context()))
		s.want(s.old)
		s.wantGone(s.new)
		s.ok(s.restorer("first", s.cluster).TakeBack(s.Context()))
		s.want(s.old)
	})
}

func TestTakeBackKilledGoesOn(t *testing.T) {
	everyKill(t,
		func(s *scene) { s.ok(swap("first")(s, s.cluster)) },
		func(s *scene, c *kube.Cluster) error { return s.restorer("first", c).TakeBack(s.Context()) },
		func(s *scene) {
			s.ok(s.restorer("first", s.cluster).TakeBack(s.Context()))
			s.want(s.old)
			s.wantGone(s.new)
		})
}

func TestUndoKilledGoesOn(t *testing.T) {
	everyKill(t,
		func(s *scene) { s.ok(swap("first")(s, s.cluster)) },
		func(s *scene, c *kube.Cluster) error {
			_, err := s.restorer("second", c).Undo(s.Context(), s.uid("first"))
			return err
		},
		func(s *scene) {
			_, err := s.restorer("second", s.cluster).Undo(s.Context(), s.uid("first"))
			s.ok(err)
			s.want(s.old)
			s.wantKept(s.new, "second")
		})
}

// Whatever a Restore that was killed and deleted has done: the claim is whole, and no volume is lost that was kept.
func TestTidyVolumesAfterAnyKill(t *testing.T) {
	t.Run("swap", func(t *testing.T) {
		everyKill(t, func(*scene) {}, swap("first"), func(s *scene) {
			s.ok(s.restorer("", s.cluster).TidyVolumes(s.Context(), s.others))
			s.bound()
			s.ok(s.restorer("", s.cluster).TidyVolumes(s.Context(), s.others))
			if s.bound().Spec.VolumeName == s.old {
				s.want(s.old)
				s.wantGone(s.new)
				return
			}
			s.want(s.new)
			s.wantKept(s.old, "first")
		})
	})
	t.Run("undo", func(t *testing.T) {
		everyKill(t,
			func(s *scene) { s.ok(swap("first")(s, s.cluster)) },
			func(s *scene, c *kube.Cluster) error {
				_, err := s.restorer("second", c).Undo(s.Context(), s.uid("first"))
				return err
			},
			func(s *scene) {
				s.ok(s.restorer("", s.cluster).TidyVolumes(s.Context(), s.others))
				s.bound()
				s.ok(s.restorer("", s.cluster).TidyVolumes(s.Context(), s.others))
				if s.bound().Spec.VolumeName == s.old {
					s.want(s.old)
					s.wantKept(s.new, "second")
					return
				}
				s.want(s.new)
				s.wantKept(s.old, "first")
			})
	})
}

// ended makes the scene one of a Restore that has put its volume behind the claim, and ended.
func (s *scene) ended(phase v1alpha1.Phase, keep time.Duration) *volume.Restorer {
	s.Helper()
	o := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "r"}, Spec: v1alpha1.RestoreSpec{RestorePoint: "p"}}
	s.ok(s.cluster.Client.Create(s.Context(), o))
	o.Status.Phase = phase
	s.ok(s.cluster.Client.Status().Update(s.Context(), o))
	r := s.restorer("", s.cluster)
	r.Owner, r.Keep = string(o.UID), keep
	s.own(s.new, r.Owner)
	_, err := r.Swap(s.Context(), s.exchange())
	s.ok(err)
	return r
}

// A Restore that came to its end is not taken back for a volume that it filled and did not need; one that failed is, whatever it did.
func TestTidyVolumesByHowRestoresEnded(t *testing.T) {
	for _, phase := range []v1alpha1.Phase{v1alpha1.PhaseComplete, v1alpha1.PhaseIncomplete, v1alpha1.PhaseFailed} {
		for _, spares := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, spare volume %v", phase, spares), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				r := s.ended(phase, time.Hour)
				spare := s.filled("10Mi", "spare")
				if spares {
					s.own(spare, r.Owner)
				}
				s.ok(r.TidyVolumes(t.Context(), func(uid string) bool { return uid != r.Owner }))
				if phase == v1alpha1.PhaseFailed {
					s.want(s.old)
				} else {
					s.want(s.new)
				}
				if spares {
					s.wantGone(spare)
				}
			})
		}
	}
}

// What a Restore took out of use is not deleted before it is certain that it does not come back.
func TestDeleteUndoOfWhatMayComeBack(t *testing.T) {
	s := newScene(t)
	r := s.ended(v1alpha1.PhaseFailed, 0)
	mine := func(uid string) bool { return uid != r.Owner }
	s.ok(r.DeleteUndo(t.Context(), func(string) bool { return true }))
	s.ok(r.DeleteUndo(t.Context(), mine))
	if s.volume(s.old).DeletionTimestamp != nil {
		t.Fatal("the volume that is to come back is deleted")
	}
	s.ok(r.TidyVolumes(t.Context(), mine))
	s.want(s.old)
}

// What a Restore stopped does not run while half of its volumes are others.
func TestStartAllWaitsForVolumesToComeBack(t *testing.T) {
	s := newScene(t)
	r := s.ended(v1alpha1.PhaseFailed, time.Hour)
	zero, app := int32(0), map[string]string{"app": "shop"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.ns, Name: "shop", Labels: map[string]string{v1alpha1.LabelOwner: r.Owner},
			Annotations: map[string]string{v1alpha1.AnnotationScaled: `{"replicas":1}`},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: &zero, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: podOf(s.ns, "shop", "data").Spec},
		},
	}
	s.ok(s.cluster.Client.Create(t.Context(), d))
	replicas := func() int32 {
		s.ok(s.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d))
		return *d.Spec.Replicas
	}
	mine := func(uid string) bool { return uid != r.Owner }
	s.ok(r.StartAll(t.Context(), mine))
	if exchanged, err := r.Exchanged(t.Context()); !exchanged || err != nil || replicas() != 0 {
		t.Errorf("exchanged %v, %v, replicas %d", exchanged, err, replicas())
	}
	s.ok(r.TidyVolumes(t.Context(), mine))
	s.ok(r.StartAll(t.Context(), mine))
	if exchanged, err := r.Exchanged(t.Context()); exchanged || err != nil || replicas() != 1 {
		t.Errorf("taken back: exchanged %v, %v, replicas %d", exchanged, err, replicas())
	}
	s.want(s.old)
}

func TestDiscard(t *testing.T) {
	for keep, gone := range map[time.Duration]bool{0: true, time.Hour: false} {
		t.Run(keep.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			r := s.ended(v1alpha1.PhaseComplete, keep)
			s.ok(r.Discard(t.Context()))
			if gone {
				s.wantGone(s.old)
			} else if v := s.volume(s.old); v.Labels[v1alpha1.LabelUndo] != r.Owner {
				t.Errorf("volume with labels %v: want it kept", v.Labels)
			}
			s.want(s.new)
		})
	}
}

// A GitOps controller that creates the claim as soon as it is gone gets the restored volume, not an empty one.
func TestSwapAgainstSelfHeal(t *testing.T) {
	s := newScene(t)
	healer, err := kube.New(s.config)
	s.ok(err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				bare := claim(s.ns)
				bare.Labels = nil
				_ = healer.Client.Create(s.Context(), bare)
			}
		}
	}()
	_, err = s.restorer("first", s.cluster).Swap(t.Context(), s.exchange())
	close(stop)
	<-stopped
	s.ok(err)
	s.want(s.new)
	s.wantKept(s.old, "first")
}

func TestSwapRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*scene)
		class   error
		says    string
	}{
		{"a claim in use", func(s *scene) { s.ok(s.cluster.Client.Create(s.Context(), podOf(s.ns, "user", "data"))) }, fault.ErrBusy, "in use by pod user"},
		{"a volume that is too small", func(s *scene) { s.new = s.filled("1Mi", "first") }, fault.ErrRefused, "asks for 10Mi"},
		{"a volume that is in use", func(s *scene) {
			s.new = s.old
			s.own(s.old, s.uid("first"))
			other := claim(s.ns)
			other.Name = "other"
			s.ok(s.cluster.Client.Create(s.Context(), other))
			s.before.Name = "other"
		}, fault.ErrRefused, "in use"},
		{"a claim applied with its volume", func(s *scene) {
			s.before.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"spec":{"volumeName":"` + s.old + `"}}`}
			s.ok(s.cluster.Client.Update(s.Context(), s.before))
		}, fault.ErrRefused, "spec.volumeName"},
		{"a volume that is not there", func(s *scene) { s.new = "none" }, fault.ErrNotFound, "none"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			test.prepare(s)
			x := s.exchange()
			x.Claim.Name = s.before.Name
			_, err := s.restorer("first", s.cluster).Swap(t.Context(), x)
			if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("Swap: %v", err)
			}
			s.ok(s.restorer("first", s.cluster).TakeBack(t.Context()))
			c := s.bound()
			if c.Spec.VolumeName != s.old || c.UID != s.before.UID {
				t.Error("the claim was touched")
			}
		})
	}
}

func podOf(ns, name, claim string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "none"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}},
		},
	}
}
