package volume_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
)

// backup is a task of one part.
func backup(part string) volume.Task {
	return volume.Task{
		Operation: volume.Backup, Location: volume.Location{URL: "s3://b", Password: "swordfish"},
		Volumes: []volume.Mount{{Part: part, Kind: point.KindVolume, Path: "/v"}},
	}
}

func TestMoverOutcomes(t *testing.T) {
	report := func(r volume.Result) string {
		text, _ := json.Marshal(r)
		return string(text)
	}
	tests := []struct {
		name  string
		end   ending
		state point.State // of the part
		want  string      // in its reason, or in the error
		class error
	}{
		{"stored", ending{message: report(volume.Result{Parts: []volume.PartResult{{Part: "p", State: point.Stored}}})}, point.Stored, "", nil},
		{
			"one part failed",
			ending{
				exit: 3, job: "PodFailurePolicy",
				message: report(volume.Result{Parts: []volume.PartResult{{Part: "p", State: point.Failed, Reason: "bad disk"}}, Error: "e"}),
			},
			point.Failed, "bad disk", nil,
		},
		{
			"the vault is shut",
			ending{exit: 5, job: "PodFailurePolicy", message: report(volume.Result{Error: "wrong password", Class: "Denied"})},
			"", "wrong password", fault.ErrDenied,
		},
		{"out of memory", ending{exit: 137, reason: "OOMKilled", job: "BackoffLimitExceeded"}, "", "more memory than its limit, 512Mi", fault.ErrUnavailable},
		{"too late", ending{exit: 143, job: batchv1.JobReasonDeadlineExceeded}, "", "not done within 20s", fault.ErrUnavailable},
		{"died in silence", ending{exit: 2, reason: "Error", job: "BackoffLimitExceeded"}, "", "ended with status 2 and no report", fault.ErrUnavailable},
		{"not a report", ending{message: "hello"}, "", "invalid character", fault.ErrCorrupt},
		{"of another part", ending{message: report(volume.Result{Parts: []volume.PartResult{{Part: "q", State: point.Stored}}})}, "", "says nothing of p", fault.ErrCorrupt},
		{"of no known state", ending{message: `{"parts":[{"part":"p","state":"fine"}]}`}, "", `is "fine"`, fault.ErrCorrupt},
	}
	l := newLab(t)
	k := l.keeper(l.one, l.cluster)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l.with(func() { l.outcome = func(volume.Task) ending { return test.end } })
			result, err := k.RunMover(t.Context(), fmt.Sprintf("mover-%d", i), nil, backup("p"), 20*time.Second)
			if test.class != nil {
				if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p := result.Parts[0]; p.State != test.state || p.Reason != test.want {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestMoverReportsAgain(t *testing.T) {
	l := newLab(t)
	k := l.keeper(l.one, l.cluster)
	for _, test := range []struct {
		name string
		lost int // pods that are deleted before they are read
		jobs int
		want error
	}{{"twice", 2, 3, nil}, {"always", 9, 3, fault.ErrUnavailable}} {
		t.Run(test.name, func(t *testing.T) {
			jobs := 0
			l.with(func() {
				l.outcome = func(task volume.Task) ending {
					end := stored(task)
					end.lost = jobs < test.lost
					jobs++
					return end
				}
			})
			_, err := k.RunMover(t.Context(), "mover-"+test.name, nil, backup("p"), 20*time.Second)
			l.with(func() {
				if !errors.Is(err, test.want) || jobs != test.jobs {
					t.Errorf("%v after %d Jobs, want %d", err, jobs, test.jobs)
				}
			})
		})
	}
}

// cut ends connections, so many, as a server that is killed does.
type cut struct {
	next http.RoundTripper
	left *atomic.Int64
	with string
}

func (c cut) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodPost && c.left.Add(-1) >= 0 {
		return nil, errors.New(c.with)
	}
	return c.next.RoundTrip(request)
}

func TestMoverOutlivesConnections(t *testing.T) {
	l := newLab(t)
	for name, with := range map[string]string{
		"lost": "http2: client connection lost", "closed": "http2: client connection force closed via ClientConn.Close",
	} {
		config, left := rest.CopyConfig(l.config), &atomic.Int64{}
		left.Store(2)
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return cut{next, left, with} })
		cluster, err := kube.New(config)
		l.ok(err)
		if _, err := l.keeper(l.one, cluster).RunMover(t.Context(), "mover-"+name, nil, backup("p"), 20*time.Second); err != nil || left.Load() > 0 {
			t.Errorf("%s: %v; %d were to come", name, err, left.Load())
		}
	}
}

func TestMoverPod(t *testing.T) {
	l := newLab(t)
	l.with(func() { l.idle = true })
	k := l.keeper(l.one, l.cluster)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	task := backup("p")
	go func() {
		_, err := k.RunMover(ctx, k.Name(l.app, "a"), []volume.MoverClaim{{Claim: "c", Path: "/v", ReadOnly: true}, {Claim: "d", Path: "/dev/x", Block: true}}, task, time.Hour)
		ran <- err
	}()
	var job batchv1.Job
	key := client.ObjectKey{Namespace: l.system, Name: k.Name(l.app, "a")}
	l.eventually("there is a Job", func() bool { return l.cluster.Client.Get(t.Context(), key, &job) == nil })
	cancel()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted, it says %v", err)
	}
	pod := job.Spec.Template.Spec
	container := pod.Containers[0]
	text, err := json.Marshal(pod)
	l.ok(err)
	if strings.Contains(string(text), "swordfish") {
		t.Error("the pod's specification holds a secret")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.HostNetwork || pod.HostPID {
		t.Error("the pod has a token, or the node's network or processes")
	}
	security := container.SecurityContext
	if *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem || security.Privileged != nil ||
		!slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(security.Capabilities.Add, []corev1.Capability{"DAC_OVERRIDE"}) {
		t.Errorf("security %+v", security)
	}
	if *job.Spec.ActiveDeadlineSeconds != 3600 || job.Spec.TTLSecondsAfterFinished != nil || *job.Spec.BackoffLimit != 2 {
		t.Errorf("Job %+v", job.Spec)
	}
	if m := container.VolumeMounts[2]; m.MountPath != "/v" || !m.ReadOnly {
		t.Errorf("mount %+v", m)
	}
	if d := container.VolumeDevices[0]; d.DevicePath != "/dev/x" {
		t.Errorf("device %+v", d)
	}
	if mode := pod.Volumes[0].Secret.DefaultMode; *mode != 0o400 {
		t.Errorf("the task has mode %o", *mode)
	}

	// Somebody else takes it up, with a new password.
	task.Location.Password = "herring"
	again := l.keeper(l.one, l.cluster)
	go func() {
		_, err := again.RunMover(t.Context(), key.Name, nil, task, time.Hour)
		ran <- err
	}()
	l.eventually("the Secret has the new password", func() bool { // only then may it be read
		var secret corev1.Secret
		l.ok(l.cluster.Client.Get(t.Context(), key, &secret))
		return strings.Contains(string(secret.Data[path.Base(volume.TaskFile)]), "herring")
	})
	l.with(func() { l.idle = false })
	l.ok(<-ran)
	var taken batchv1.Job
	l.ok(l.cluster.Client.Get(t.Context(), key, &taken))
	if taken.UID != job.UID {
		t.Error("it is another Job")
	}
	l.with(func() {
		if len(l.tasks) != 1 || l.tasks[0].Location.Password != "herring" {
			t.Errorf("carried out: %d tasks", len(l.tasks))
		}
	})
	if _, err := l.keeper(l.two, l.cluster).RunMover(t.Context(), key.Name, nil, task, time.Hour); !errors.Is(err, fault.ErrExists) {
		t.Errorf("another owner: %v", err)
	}
	l.ok(again.EndMover(t.Context(), key.Name))
	l.ok(again.EndMover(t.Context(), key.Name))
	l.clean()
}

func TestMoverThatDoesNotStart(t *testing.T) {
	l := newLab(t)
	l.with(func() { l.idle = true })
	run := func(name string, change func(*corev1.Pod)) error {
		k := l.keeper(l.one, l.cluster)
		k.StartDeadline = 300 * time.Millisecond
		begun, changed := time.Now(), make(chan struct{})
		k.Now = func() time.Time { // it stands still until all is as the test wants it
			select {
			case <-changed:
				return time.Now()
			default:
				return begun
			}
		}
		ran := make(chan error)
		go func() {
			_, err := k.RunMover(t.Context(), name, nil, backup("p"), time.Hour)
			ran <- err
		}()
		if change != nil {
			var job batchv1.Job
			l.eventually("there is a Job", func() bool {
				return l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.system, Name: name}, &job) == nil
			})
			pod := podOf(l.system, name, "none")
			pod.Labels = map[string]string{batchv1.ControllerUidLabel: string(job.UID)}
			l.create(pod)
			change(pod)
			l.ok(l.cluster.Client.Status().Update(t.Context(), pod))
		}
		close(changed)
		return <-ran
	}
	tests := []struct {
		name, want string
		change     func(*corev1.Pod)
	}{
		{"nothing-happens", "no pod was made", nil},
		{"no-node", "no node takes it: 3 nodes are full", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "3 nodes are full"}}
		}},
		{"no-image", "image backstay:1: ErrImagePull not there", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "mover", Image: "backstay:1", State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not there"},
			}}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := run(test.name, test.change); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

func TestMoverWaitsForVolumesThatAreBeingMade(t *testing.T) {
	l := newLab(t)
	l.with(func() { l.idle, l.unbound = true, true })
	late := storagev1.VolumeBindingWaitForFirstConsumer
	l.create(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: l.app + "-late"}, Provisioner: l.app, VolumeBindingMode: &late})
	run := func(name, class string) <-chan error {
		l.create(&corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: l.system, Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		})
		k := l.keeper(l.one, l.cluster)
		k.StartDeadline = 200 * time.Millisecond
		ran := make(chan error, 1)
		go func() {
			_, err := k.RunMover(t.Context(), name, []volume.MoverClaim{{Claim: name, Path: "/v"}}, backup("p"), time.Hour)
			ran <- err
		}()
		return ran
	}
	made := run("made-at-once", l.app)
	if err := <-run("made-for-a-node", l.app+"-late"); err == nil || !strings.Contains(err.Error(), "it did not start") {
		t.Errorf("no node is found: %v", err)
	}
	select {
	case err := <-made:
		t.Fatalf("its volume is being made: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	l.with(func() { l.unbound = false })
	if err := <-made; err == nil || !strings.Contains(err.Error(), "no pod was made") {
		t.Errorf("its volume is made: %v", err)
	}
}

func TestMoveWithoutTheClaim(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentDelete, nil)
	k, vols := l.planned(l.one, l.claim("a", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Spec.CSI.Driver = l.app }))
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	var claim corev1.PersistentVolumeClaim // goes while the backup runs
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.app, Name: "a"}, &claim))
	claim.Finalizers = nil
	l.ok(l.cluster.Client.Update(t.Context(), &claim))
	l.ok(l.cluster.Client.Delete(t.Context(), &claim))
	result, err := k.Move(t.Context(), vols[0], task(vols[0]))
	if err != nil || result.State != point.Stored || result.Bytes != 7 {
		t.Errorf("%+v, %v", result, err)
	}
	l.with(func() { l.outcome = func(volume.Task) ending { return ending{exit: 1, job: "BackoffLimitExceeded"} } })
	if result, err := k.Move(t.Context(), vols[0], task(vols[0])); err != nil || result.State != point.Failed {
		t.Errorf("a mover that fails: %+v, %v", result, err)
	}
	l.ok(k.Forget(t.Context()))
	l.clean()
}

func TestMoveLive(t *testing.T) {
	l := newLab(t)
	claim := l.claim("a", nil) // of a driver without snapshots
	k := l.keeper(l.one, l.cluster)
	pod := podOf(l.app, "web-0", "a")
	pod.Spec.NodeName = "node7"
	l.create(pod)
	pod.Status.Phase = corev1.PodRunning
	l.ok(l.cluster.Client.Status().Update(t.Context(), pod))
	vols, err := k.Plan(t.Context(), []corev1.PersistentVolumeClaim{claim}, v1alpha1.VolumeCapture{WithoutSnapshot: v1alpha1.WithoutSnapshotLive})
	l.ok(err)
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	var spec corev1.PodSpec
	l.with(func() {
		l.outcome = func(t volume.Task) ending {
			var jobs batchv1.JobList
			_ = l.cluster.Client.List(context.Background(), &jobs, client.InNamespace(l.system))
			spec = jobs.Items[0].Spec.Template.Spec
			return stored(t)
		}
	})
	result, err := k.Move(t.Context(), vols[0], task(vols[0]))
	if err != nil || result.State != point.Stored {
		t.Fatalf("%+v, %v", result, err)
	}
	host := spec.Volumes[len(spec.Volumes)-1].HostPath
	if want := "/var/lib/kubelet/pods/" + string(pod.UID) + "/volumes/kubernetes.io~csi/" + l.app + "-a/mount"; host == nil || host.Path != want {
		t.Errorf("reads %+v, want %s", host, want)
	}
	if m := spec.Containers[0].VolumeMounts[2]; !m.ReadOnly {
		t.Errorf("mount %+v", m)
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if terms[0].MatchFields[0].Values[0] != "node7" {
		t.Errorf("on %+v", terms)
	}
	l.with(func() {
		if notes := l.tasks[0].Volumes[0].Notes; len(notes) != 1 || !strings.HasPrefix(notes[0], volume.NoteLive) {
			t.Errorf("notes %v", notes)
		}
	})
	l.ok(l.cluster.Client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	if result, err := k.Move(t.Context(), vols[0], task(vols[0])); err != nil || !strings.Contains(result.Reason, "no running pod") {
		t.Errorf("its pod is gone: %+v, %v", result, err)
	}
	l.clean()
}

// TestKilledAnywhere kills a capture before its first write, its sixth, and so on. Another one that starts over brings it to its end,
// and then nothing is left; or Tidy removes what was.
func TestKilledAnywhere(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentRetain, nil)
	l.groupClass()
	claims := []corev1.PersistentVolumeClaim{l.claim("a", nil), l.claim("b", nil)}
	capture := func(cluster *kube.Cluster) error {
		k := l.keeper(l.one, cluster)
		k.Note = func(string) {} // it says a lot of a connection that is gone
		if err := k.Discard(t.Context()); err != nil {
			return err
		}
		vols, err := k.Plan(t.Context(), claims, v1alpha1.VolumeCapture{})
		if err != nil {
			return err
		}
		if err := k.Snapshot(t.Context(), vols, unsaved); err != nil {
			return err
		}
		result, err := k.Move(t.Context(), vols[0], task(vols[0]))
		if err != nil || result.State != point.Stored {
			return fmt.Errorf("move: %w: %+v", err, result)
		}
		return k.Forget(t.Context())
	}
	for writes := 0; ; writes += 5 { // one at a time they take a minute
		if writes > 60 {
			t.Fatal("it never ends")
		}
		config := rest.CopyConfig(l.config)
		left := &atomic.Int64{}
		left.Store(int64(writes))
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return killed{next: next, left: left} })
		dying, err := kube.New(config)
		l.ok(err)
		done := capture(dying) == nil && left.Load() >= 0
		if writes%2 == 0 {
			if err := capture(l.cluster); err != nil {
				t.Fatalf("killed after %d writes, it does not go on: %v", writes, err)
			}
		} else if _, err := l.keeper("", l.cluster).Tidy(t.Context(), l.others); err != nil {
			t.Fatal(err)
		}
		l.clean()
		l.unmarked("a")
		l.unmarked("b")
		if t.Failed() {
			t.Fatalf("after %d writes", writes)
		}
		if done {
			t.Logf("%d writes", writes)
			return
		}
	}
}

func TestTidySpares(t *testing.T) {
	l := newLab(t)
	labelled := func(namespace, name, label, value string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{label: value}}}
	}
	kept := labelled(l.system, "kept", v1alpha1.LabelOwner, l.one)
	kept.GetLabels()[v1alpha1.LabelPoint] = "p"
	undo := labelled(l.system, "undo", v1alpha1.LabelOwner, l.one)
	undo.GetLabels()[v1alpha1.LabelUndo] = "u"
	l.create(
		labelled(l.system, "ended", v1alpha1.LabelOwner, l.one), labelled(l.system, "active", v1alpha1.LabelOwner, l.two),
		labelled(l.system, "ours", "app", "x"), labelled(l.app, "theirs", v1alpha1.LabelOwner, l.one), kept, undo,
	)
	removed, err := l.keeper("", l.cluster).Tidy(t.Context(), func(uid string) bool { return uid != l.one })
	if err != nil || !slices.Equal(removed, []string{"Secret " + l.system + "/ended"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	want := []string{l.app + "/theirs", l.system + "/active", l.system + "/kept", l.system + "/ours", l.system + "/undo"}
	found := l.everything(&corev1.SecretList{})
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("left %v, want %v", found, want)
	}
}

// TestForeignContent has a snapshot that says it is bound to somebody else's content: what is behind that is neither shown nor deleted.
func TestForeignContent(t *testing.T) {
	l := newLab(t)
	l.snapshotClass(l.app, snapshotv1.VolumeSnapshotContentRetain, nil)
	k, vols := l.planned(l.one, l.claim("a", nil))
	l.ok(k.Snapshot(t.Context(), vols, unsaved))
	victim, handle := "victim-"+l.app, "precious"
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: victim},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "another", Name: "s", UID: "u"}, Driver: "other." + l.app,
			DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain, Source: snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
		},
	}
	l.create(content)
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle}
	l.ok(l.cluster.Client.Status().Update(t.Context(), content))
	var s snapshotv1.VolumeSnapshot
	l.eventually("the snapshot is ready", func() bool {
		err := l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: l.app, Name: vols[0].Snapshot}, &s)
		return err == nil && s.Status != nil && s.Status.BoundVolumeSnapshotContentName != nil
	})
	s.Status.BoundVolumeSnapshotContentName = &victim
	l.ok(l.cluster.Client.Status().Update(t.Context(), &s))
	result, err := k.Move(t.Context(), vols[0], task(vols[0]))
	if err != nil || result.State != point.Failed || !strings.Contains(result.Reason, "another snapshot's") {
		t.Errorf("moved: %+v, %v", result, err)
	}
	l.ok(k.Forget(t.Context()))
	l.ok(l.cluster.Client.Get(t.Context(), client.ObjectKey{Name: victim}, content))
	if content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain {
		t.Error("somebody else's content is to be deleted")
	}
}
