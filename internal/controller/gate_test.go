package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
)

// hook is a Job that Argo CD made, with the pod that the Job controller would make.
func (w *world) hook(namespace, name, application string) (*batchv1.Job, *corev1.Pod) {
	w.Helper()
	spec := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "gate", Image: "backstay:test"}}}
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.LabelGate: "true"},
			Annotations: map[string]string{"argocd.argoproj.io/tracking-id": application + ":batch/Job:" + namespace + "/" + name},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: spec}},
	}
	w.create(j)
	yes := true
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name + "-x7k2p",
		Labels:          map[string]string{v1alpha1.LabelGate: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: j.Name, UID: j.UID, Controller: &yes}},
	}, Spec: spec}
	w.create(p)
	return j, p
}

// knocks makes the Gate of a pod.
func (w *world) knocks(p *corev1.Pod) *v1alpha1.Gate {
	w.Helper()
	g := &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Spec: v1alpha1.GateSpec{Pod: p.Name}}
	w.create(g)
	return g
}

// answered waits until a Gate stands so: Open/Snapshot.
func (w *world) answered(g *v1alpha1.Gate, want string) {
	w.Helper()
	w.eventually("gate "+g.Name, func() string {
		if err := w.get(g); err != nil {
			return err.Error()
		}
		if got := string(g.Status.Phase) + "/" + g.Status.Reason; got != want {
			return "it is " + got + " (" + g.Status.Message + "), want " + want
		}
		return ""
	})
}

// shop is an application under a policy, whose sync to bbb runs.
type shop struct {
	into        string
	application *unstructured.Unstructured
	job         *batchv1.Job
	pod         *corev1.Pod
}

func (w *world) shop(change ...func(*v1alpha1.GitOps)) shop {
	w.Helper()
	w.argo()
	s := shop{into: w.namespace()}
	s.application = w.application(w.system, "shop", s.into)
	w.location(w.system)
	w.guards(s.into, change...)
	w.syncs(s.application, "Running", full)
	s.job, s.pod = w.hook(s.into, "backstay-gate", "shop")
	return s
}

// deploys sets what Argo CD says of an Application.
func (w *world) deploys(a *unstructured.Unstructured, status string) {
	w.Helper()
	w.eventually("write status", func() string {
		if err := w.get(a); err != nil {
			return err.Error()
		}
		is, _, _ := unstructured.NestedMap(a.Object, "status")
		for name, value := range w.parse(status).Object {
			is[name] = value
		}
		a.Object["status"] = is
		if err := w.admin.Update(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
}

// waited is the Backup that a Gate waits for.
func (w *world) waited(g *v1alpha1.Gate) *v1alpha1.Backup {
	w.Helper()
	w.eventually("backup of gate "+g.Name, func() string {
		if err := w.get(g); err != nil {
			return err.Error()
		}
		if g.Status.Backup == "" {
			return string(g.Status.Phase) + ": " + g.Status.Message
		}
		return ""
	})
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: g.Status.Backup}}
	w.phase(b, v1alpha1.PhasePending)
	return b
}

// cause is why a Job is to fail, as the controller told Kubernetes.
func (w *world) cause(j *batchv1.Job) string {
	w.Helper()
	if err := w.get(j); err != nil {
		w.Fatal(err)
	}
	for _, c := range j.Status.Conditions {
		if c.Type == batchv1.JobFailureTarget {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

func instant(at time.Time, listed bool) *v1alpha1.Instant {
	moment := metav1.NewMicroTime(at)
	i := &v1alpha1.Instant{Begun: moment, Released: moment, Versioned: moment}
	if listed {
		i.Listed = &moment
	}
	return i
}

func TestAGateOpensAtTheInstantOfItsPoint(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	g := w.knocks(s.pod)
	b := w.waited(g)
	if b.Spec.Policy != "gated" || b.Spec.Sync == nil || !slices.Equal(b.Spec.Sync.From, []string{"aaa"}) || !slices.Equal(b.Spec.Sync.To, []string{"bbb"}) ||
		b.Spec.Sync.Deployment != "argocd/"+w.system+"/shop" || b.Spec.Sync.By != "automated" || !slices.Equal(b.Spec.Application.Namespaces, []string{s.into}) {
		t.Errorf("backup %+v of %+v", b.Spec, b.Spec.Sync)
	}
	w.job("backup")
	w.status(b, func() {
		b.Status.Phase, b.Status.Volumes = v1alpha1.PhaseQuiescing, []v1alpha1.VolumeStatus{{Claim: "data", Method: "snapshot"}}
	})
	w.eventually("progress", func() string {
		if err := w.get(g); err != nil {
			return err.Error()
		}
		if !strings.HasSuffix(g.Status.Message, "snapshots are taken, 0 of 1") {
			return g.Status.Message
		}
		return ""
	})
	w.status(b, func() { b.Status.Phase, b.Status.Instant = v1alpha1.PhaseMoving, instant(w.clock.now(), true) })
	w.answered(g, "Open/Snapshot")
	if g.Status.Ended == nil || g.Status.Policy != w.system+"/gated" || condition(g.Status.Conditions, "Ready") != "True/Snapshot" || w.cause(s.job) != "" {
		t.Errorf("gate %+v, job %q", g.Status, w.cause(s.job))
	}
	w.event(s.into, "Snapshot")
	w.event(w.system, "GateOpen")

	w.status(b, func() { b.Status.Phase, b.Status.Point = v1alpha1.PhaseComplete, "0123" })
	w.eventually("point", func() string {
		if err := w.get(g); err != nil {
			return err.Error()
		}
		if g.Status.Point != "0123" {
			return "the gate has point " + g.Status.Point
		}
		return ""
	})
}

func TestAPointThatIsNotStoredThoughItsGateWasOpen(t *testing.T) {
	w := newWorld(t)
	w.start()
	g := w.knocks(w.shop().pod)
	b := w.waited(g)
	w.status(b, func() { b.Status.Phase, b.Status.Instant = v1alpha1.PhaseMoving, instant(w.clock.now(), true) })
	w.answered(g, "Open/Snapshot")
	w.status(b, func() { b.Status.Phase, b.Status.Problems = v1alpha1.PhaseFailed, []string{"the bucket is full"} })
	w.eventually("condition", func() string {
		if err := w.get(g); err != nil {
			return err.Error()
		}
		if got := condition(g.Status.Conditions, "Stalled"); got != "True/BackupFailed" {
			return got
		}
		return ""
	})
	w.event(g.Namespace, "BackupFailed")
	if got := condition(g.Status.Conditions, "Ready"); got != "True/Snapshot" {
		t.Errorf("Ready is %s", got)
	}
}

// TestWhatAGateAnswers: what the policy and the Application say decides.
func TestWhatAGateAnswers(t *testing.T) {
	const away = `{kind: Deployment, group: apps, name: web, status: OutOfSync}`
	for _, test := range []struct {
		name   string
		policy func(*v1alpha1.GitOps)
		before func(*world, shop) // before the hook's pod asks
		backup func(*v1alpha1.BackupStatus, time.Time)
		want   string
		says   string
	}{
		{name: "no policy", before: func(w *world, _ shop) {
			p := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "gated"}}
			if err := w.admin.Delete(w.Context(), p); err != nil {
				w.Fatal(err)
			}
			later := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "later"}, Spec: v1alpha1.PolicySpec{
				Location: "vault", Suspend: true, Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{w.system}}}},
			}}
			w.create(later)
			w.seen(later) // and that the other is gone
		}, want: "Closed/Unprotected", says: "gitops: {}"},
		{name: "first sync", before: func(w *world, s shop) {
			w.deploys(s.application, `{history: [], resources: [`+away+`, {kind: Namespace, name: shop, status: Synced}]}`)
		}, want: "Open/FirstSync"},
		{name: "first sync over claims that stayed", before: func(w *world, s shop) {
			w.deploys(s.application, `{history: [], resources: [`+away+`]}`)
			claim := w.parse(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: ` + s.into + `},
				spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`)
			w.create(claim)
		}, backup: complete, want: "Open/Stored"},
		{name: "first sync over pods that stayed", before: func(w *world, s shop) {
			w.deploys(s.application, `{history: [], resources: [`+away+`]}`)
			w.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.into, Name: "db"}, Spec: s.pod.Spec})
		}, backup: complete, want: "Open/Stored"},
		{name: "first sync over objects that are there", before: func(w *world, s shop) {
			w.deploys(s.application, `{history: [], resources: [`+away+`, {kind: ConfigMap, name: web, status: Synced}]}`)
		}, backup: complete, want: "Open/Stored"},
		{name: "break glass", before: func(w *world, s shop) {
			w.annotate(s.application, v1alpha1.AnnotationBreakGlass, "storage is down, INC-7")
		}, want: "Open/BreakGlass", says: `"storage is down, INC-7"`},
		{name: "stored", policy: func(g *v1alpha1.GitOps) { g.WaitFor = v1alpha1.WaitForStored }, backup: complete, want: "Open/Stored"},
		{name: "stored, and it is not yet", policy: func(g *v1alpha1.GitOps) { g.WaitFor = v1alpha1.WaitForStored }, backup: func(s *v1alpha1.BackupStatus, at time.Time) {
			s.Phase, s.Instant = v1alpha1.PhaseMoving, instant(at, true)
		}, want: "Waiting/Waiting", says: "data is stored, 0 of 0"},
		{name: "not listed yet", backup: func(s *v1alpha1.BackupStatus, at time.Time) {
			s.Phase, s.Instant = v1alpha1.PhaseListing, instant(at, false)
		}, want: "Waiting/Waiting", says: "objects are listed"},
		{name: "backup fails", backup: func(s *v1alpha1.BackupStatus, at time.Time) {
			s.Phase, s.Problems, s.Finished = v1alpha1.PhaseFailed, []string{"the bucket is gone"}, &metav1.Time{Time: at}
		}, want: "Closed/BackupFailed", says: "the bucket is gone"},
		{name: "something is missing", backup: func(s *v1alpha1.BackupStatus, _ time.Time) {
			s.Phase, s.Problems = v1alpha1.PhaseIncomplete, []string{"claim data was not captured"}
		}, want: "Closed/BackupFailed", says: "claim data was not captured"},
		{name: "a claim without snapshot", backup: func(s *v1alpha1.BackupStatus, at time.Time) {
			s.Phase, s.Instant = v1alpha1.PhaseMoving, instant(at, true)
			s.Volumes = []v1alpha1.VolumeStatus{{Claim: "cache", Skipped: true, Problem: "left out"}, {Namespace: "shop", Claim: "data", Problem: "no driver"}}
		}, want: "Closed/BackupFailed", says: "claim shop/data: no driver"},
		{name: "the application was not at rest", backup: func(s *v1alpha1.BackupStatus, at time.Time) {
			s.Phase, s.Instant, s.HookProblem = v1alpha1.PhaseMoving, instant(at, true), "pause: exit status 1"
		}, want: "Closed/BackupFailed", says: "pause: exit status 1"},
		{name: "fails, and proceeds", policy: func(g *v1alpha1.GitOps) { g.OnFailure = v1alpha1.OnFailureProceed }, backup: func(s *v1alpha1.BackupStatus, _ time.Time) {
			s.Phase, s.Problems = v1alpha1.PhaseFailed, []string{"the bucket is gone"}
		}, want: "Open/Proceed", says: "the bucket is gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			var change []func(*v1alpha1.GitOps)
			if test.policy != nil {
				change = append(change, test.policy)
			}
			s := w.shop(change...)
			if test.before != nil {
				test.before(w, s)
			}
			g := w.knocks(s.pod)
			if test.backup != nil {
				b := w.waited(g)
				w.status(b, func() { test.backup(&b.Status, w.clock.now()) })
			}
			w.eventually("message", func() string {
				if w.answered(g, test.want); !strings.Contains(g.Status.Message, test.says) {
					return g.Status.Message
				}
				return ""
			})
			cause := w.cause(s.job)
			if closed := strings.HasPrefix(test.want, "Closed/"); closed != (cause != "") || closed && !strings.Contains(cause, test.says) {
				t.Errorf("the hook's Job has cause %q", cause)
			}
		})
	}
}

func complete(s *v1alpha1.BackupStatus, at time.Time) {
	s.Phase, s.Point, s.Instant = v1alpha1.PhaseComplete, "0123", instant(at, true)
}

func (w *world) annotate(a *unstructured.Unstructured, name, value string) {
	w.Helper()
	w.eventually("annotate", func() string {
		if err := w.get(a); err != nil {
			return err.Error()
		}
		annotations := a.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[name] = value
		a.SetAnnotations(annotations)
		if err := w.admin.Update(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestAGateIsBrokenWhileItWaits(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	g := w.knocks(s.pod)
	b := w.waited(g)
	w.annotate(s.application, v1alpha1.AnnotationBreakGlass, "now")
	w.status(b, func() { b.Status.Phase = v1alpha1.PhaseQuiescing })
	w.answered(g, "Open/BreakGlass")
	if !strings.Contains(g.Status.Message, "written by controller.test at ") {
		t.Errorf("who broke it: %q", g.Status.Message)
	}
	w.event(w.system, "GateOpen")
}

func TestAGateThatWaitsTooLong(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop(func(g *v1alpha1.GitOps) { g.Deadline = "5m" })
	g := w.knocks(s.pod)
	b := w.waited(g)
	w.status(b, func() { b.Status.Phase = v1alpha1.PhaseQuiescing })
	w.eventually("what it waits for", func() string {
		if err := w.get(g); err != nil || !strings.Contains(g.Status.Message, "snapshots are taken") {
			return "it says: " + g.Status.Message
		}
		return ""
	})
	w.clock.forward(5 * time.Minute)
	w.status(b, func() { b.Status.Problems = []string{"the gate looks again"} })
	w.answered(g, "Closed/DeadlineExceeded")
	if cause := w.cause(s.job); !strings.Contains(cause, "it took longer than 5m0s: backup "+w.system+"/"+b.Name+": snapshots are taken") {
		t.Errorf("cause %q", cause)
	}
}

// TestPodsThatAreNoHooks: a Gate is worth no more than its pod.
func TestPodsThatAreNoHooks(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	elsewhere := w.namespace()
	_, stranger := w.hook(elsewhere, "backstay-gate", "shop") // says of itself that it is of the Application
	_, nobodys := w.hook(s.into, "other", "nobody")
	job, untracked := w.hook(s.into, "untracked", "shop")
	job.Annotations = nil
	if err := w.admin.Update(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	alone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.into, Name: "alone"}, Spec: untracked.Spec}
	w.create(alone)
	for _, test := range []struct {
		pod  *corev1.Pod
		says string
	}{
		{stranger, "no Application shop deploys into namespace " + elsewhere},
		{nobodys, "no Application nobody deploys into"},
		{untracked, "no annotation or label of Argo CD"},
		{alone, "it is of no Job"},
		{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.into, Name: "gone"}}, "it is gone"},
	} {
		g := w.knocks(test.pod)
		w.answered(g, "Closed/BackupFailed")
		if !strings.Contains(g.Status.Message, test.says) {
			t.Errorf("%s: %q, want %q", test.pod.Name, g.Status.Message, test.says)
		}
	}
	var backups v1alpha1.BackupList
	if err := w.admin.List(t.Context(), &backups); err != nil || len(backups.Items) > 0 {
		t.Errorf("%d Backups (%v)", len(backups.Items), err)
	}
}

func TestAHookWithoutASync(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	w.syncs(s.application, "Succeeded", full)
	g := w.knocks(s.pod)
	w.answered(g, "Waiting/Waiting")
	w.clock.forward(time.Minute)
	w.answered(g, "Closed/BackupFailed")
	if !strings.Contains(g.Status.Message, "no sync of argocd/"+w.system+"/shop is under way") {
		t.Errorf("it says %q", g.Status.Message)
	}
}

// TestOnePointForOneSync: however often its hook is tried.
func TestOnePointForOneSync(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	first := w.knocks(s.pod)
	b := w.waited(first)
	_, again := w.hook(s.into, "backstay-gate-2", "shop")
	second := w.knocks(again)
	if other := w.waited(second); other.Name != b.Name {
		t.Errorf("the sync has Backups %s and %s", b.Name, other.Name)
	}
	w.status(b, func() { b.Status.Phase, b.Status.Finished = v1alpha1.PhaseFailed, &metav1.Time{Time: w.clock.now()} })
	w.answered(first, "Closed/BackupFailed")
	w.answered(second, "Closed/BackupFailed")

	time.Sleep(1100 * time.Millisecond) // times of objects are whole seconds
	_, retry := w.hook(s.into, "backstay-gate-3", "shop")
	third := w.knocks(retry)
	if other := w.waited(third); other.Name != b.Name+"-2" {
		t.Errorf("the retry has Backup %s", other.Name)
	}
}

// TestABackupThatIsUnderWayIsJoined: what it captures is still as it was before the sync.
func TestABackupThatIsUnderWayIsJoined(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.shop()
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "nightly"},
		Spec:       v1alpha1.BackupSpec{Policy: "gated", Application: v1alpha1.Applications{Namespaces: []string{s.into}}},
	}
	w.create(b)
	w.job("backup")
	w.status(b, func() { b.Status.Started = &metav1.Time{Time: w.clock.now()} })
	w.phase(w.backup(w.system, "later", w.namespace()), v1alpha1.PhasePending) // so the controller has seen that the other was begun
	g := w.knocks(s.pod)
	if got := w.waited(g); got.Name != "nightly" {
		t.Errorf("it waits for %s", got.Name)
	}
}

func TestAFreshPoint(t *testing.T) {
	fresh := func(g *v1alpha1.GitOps) { g.FreshFor = "1h" }
	for _, test := range []struct {
		name   string
		change func(*world, shop, *v1alpha1.RestorePointSpec)
		fresh  bool
	}{
		{"as it should be", func(*world, shop, *v1alpha1.RestorePointSpec) {}, true},
		{"too old", func(w *world, _ shop, p *v1alpha1.RestorePointSpec) { p.Time.Time = w.clock.now().Add(-2 * time.Hour) }, false},
		{"incomplete", func(_ *world, _ shop, p *v1alpha1.RestorePointSpec) { p.State = "incomplete" }, false},
		{"of another revision", func(_ *world, _ shop, p *v1alpha1.RestorePointSpec) { p.Revisions = []string{"zzz"} }, false},
		{"of another application", func(_ *world, _ shop, p *v1alpha1.RestorePointSpec) { p.Deployment = "argocd/argocd/bank" }, false},
		{"before the last sync ended", func(w *world, s shop, p *v1alpha1.RestorePointSpec) {
			at := w.clock.now().Add(-time.Minute)
			p.Time.Time = at.Add(-time.Minute)
			w.deploys(s.application, `{history: [{revision: aaa, deployedAt: "`+at.UTC().Format(time.RFC3339)+`"}]}`)
		}, false},
		{"before a sync that failed", func(w *world, s shop, p *v1alpha1.RestorePointSpec) {
			p.Time.Time = w.clock.now().Add(-time.Minute)
			g := &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: s.into, Name: "gate-before"}, Spec: v1alpha1.GateSpec{Deployment: p.Deployment}}
			w.create(g)
			w.status(g, func() {
				at, started := metav1.NewMicroTime(w.clock.now().Add(-30*time.Second)), metav1.NewTime(w.clock.now().Add(-30*time.Second))
				g.Status = v1alpha1.GateStatus{
					Phase: v1alpha1.GateOpen, Reason: v1alpha1.GateSnapshot, Begun: &at,
					Sync: &v1alpha1.Sync{Deployment: p.Deployment, To: []string{"bbb"}, Started: &started},
				}
			})
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			s := w.shop(fresh)
			p := &v1alpha1.RestorePoint{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "shop-1"},
				Spec: v1alpha1.RestorePointSpec{
					Location: "vault", Point: "0123456789abcdef", Cluster: "test", Application: s.into, Policy: "gated", State: "complete",
					Time: metav1.NewTime(w.clock.now().Add(-time.Second)), Deployment: "argocd/" + w.system + "/shop", Revisions: []string{"aaa"},
				},
			}
			test.change(w, s, &p.Spec)
			w.create(p)
			w.eventually("the point is seen", func() string {
				if err := w.get(p); err != nil {
					return err.Error()
				}
				if len(p.Status.Conditions) == 0 {
					return "nothing is said of it"
				}
				return ""
			})
			g := w.knocks(s.pod)
			if !test.fresh {
				w.waited(g)
				return
			}
			if w.answered(g, "Open/FreshPoint"); g.Status.Point != p.Spec.Point || g.Status.Backup != "" {
				t.Errorf("gate %+v", g.Status)
			}
		})
	}
}

func TestKindsThatNeedNoPoint(t *testing.T) {
	const config, deployment = `, {kind: ConfigMap, name: web, status: OutOfSync}`, `, {kind: Deployment, group: apps, name: web, status: OutOfSync}`
	for _, test := range []struct {
		name, compared, resources, only string
		skips                           bool
	}{
		{"only such", "bbb", config, "true", true},
		{"others, too", "bbb", config + deployment, "true", false},
		{"nothing: a hook is what comes", "bbb", "", "true", false},
		{"other hooks may come", "bbb", config, "false", false},
		{"compared with another revision", "ccc", config, "true", false},
		{"of an unknown kind", "bbb", `, {kind: Cache, group: example.com, status: OutOfSync}`, "true", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			s := w.shop(func(g *v1alpha1.GitOps) { g.SkipKinds = []string{"configmaps", "ingresses.networking.k8s.io"} })
			w.deploys(s.application, `{sync: {status: OutOfSync, revision: `+test.compared+`}, resources: [{kind: Secret, name: s, status: Synced}`+test.resources+`]}`)
			w.eventually("annotate", func() string {
				if err := w.get(s.job); err != nil {
					return err.Error()
				}
				s.job.Annotations[v1alpha1.AnnotationOnlyHook] = test.only
				if err := w.admin.Update(w.Context(), s.job); err != nil {
					return err.Error()
				}
				return ""
			})
			g := w.knocks(s.pod)
			if !test.skips {
				w.waited(g)
				return
			}
			if w.answered(g, "Open/Skipped"); !strings.Contains(g.Status.Message, "only configmaps change") {
				t.Errorf("it says %q", g.Status.Message)
			}
		})
	}
}

// TestSyncsDoNotQueue: a Backup for a sync waits for none of other applications.
func TestSyncsDoNotQueue(t *testing.T) {
	w := newWorld(t)
	s := w.shop()
	for _, name := range []string{"a", "b", "c"} {
		w.backup(w.system, name, w.namespace())
	}
	w.start()
	w.eventually("jobs", func() string {
		if n := len(w.jobs("backup")); n != 2 {
			return "there are not two"
		}
		return ""
	})
	g := w.knocks(s.pod)
	b := w.waited(g)
	w.eventually("job of the sync's backup", func() string {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: b.Status.Job}}
		if err := w.get(j); err != nil {
			return err.Error()
		}
		return ""
	})
	if n := len(w.jobs("backup")); n != 3 {
		t.Errorf("%d Jobs, want the two that ran and the sync's", n)
	}
}

// TestWhichPolicyGoverns: the one that says most exactly what it means.
func TestWhichPolicyGoverns(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	w.location(w.system)
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	policy := func(name string, source v1alpha1.Applications) {
		p := &v1alpha1.Policy{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: name},
			Spec: v1alpha1.PolicySpec{
				Location: "vault", Suspend: true, GitOps: &v1alpha1.GitOps{}, Sources: []v1alpha1.Source{{Applications: &source}},
			},
		}
		w.create(p)
		w.seen(p)
	}
	for i, test := range []struct {
		name   string
		source v1alpha1.Applications
		wins   bool
		want   v1alpha1.Applications
	}{
		{"a-glob", v1alpha1.Applications{Namespaces: []string{"app-*"}}, true, v1alpha1.Applications{Namespaces: []string{into}}},
		{"elsewhere", v1alpha1.Applications{Namespaces: []string{w.system}}, false, v1alpha1.Applications{}},
		{"a-part", v1alpha1.Applications{Namespaces: []string{into}, Objects: []string{"configmap/web"}}, false, v1alpha1.Applications{}},
		{"namespace", v1alpha1.Applications{Namespaces: []string{into, "gone"}}, true, v1alpha1.Applications{Namespaces: []string{into}}},
		{"argocd-glob", v1alpha1.Applications{ArgoCD: []string{"sh*"}}, true, v1alpha1.Applications{ArgoCD: []string{w.system + "/shop"}}},
		{"flux", v1alpha1.Applications{Flux: []string{"shop"}}, false, v1alpha1.Applications{}},
		{"other", v1alpha1.Applications{ArgoCD: []string{"elsewhere/shop"}}, false, v1alpha1.Applications{}},
		{"argocd", v1alpha1.Applications{ArgoCD: []string{"shop"}}, true, v1alpha1.Applications{ArgoCD: []string{w.system + "/shop"}}},
		{"z-argocd", v1alpha1.Applications{ArgoCD: []string{w.system + "/shop"}}, false, v1alpha1.Applications{}},
	} {
		policy(test.name, test.source)
		w.syncsAt(a, w.clock.now().Add(time.Duration(i)*time.Second), "Running", full)
		_, pod := w.hook(into, "gate-"+test.name, "shop")
		g := w.knocks(pod)
		b := w.waited(g)
		got := b.Spec.Application
		if won := b.Spec.Policy == test.name; won != test.wins {
			t.Errorf("with policy %s it is %s that governs", test.name, b.Spec.Policy)
		} else if won && (!slices.Equal(got.Namespaces, test.want.Namespaces) || !slices.Equal(got.ArgoCD, test.want.ArgoCD)) {
			t.Errorf("policy %s captures %+v", test.name, got)
		}
	}
}

func TestPoliciesOfTenants(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	mine, theirs := w.namespace(), w.namespace()
	p := &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: mine, Name: "gated"},
		Spec: v1alpha1.PolicySpec{
			Location: "vault", Suspend: true, GitOps: &v1alpha1.GitOps{}, Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{}}},
		},
	}
	w.create(p)
	w.seen(p)
	w.location(mine)
	for _, test := range []struct {
		into, want string
	}{{theirs, "Closed/Unprotected"}, {mine, "Waiting/Waiting"}} {
		a := w.application(w.system, "shop-"+test.into, test.into)
		w.syncs(a, "Running", full)
		_, pod := w.hook(test.into, "backstay-gate", a.GetName())
		g := w.knocks(pod)
		if w.answered(g, test.want); g.Status.Backup != "" {
			b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: mine, Name: g.Status.Backup}}
			if err := w.get(b); err != nil {
				t.Error(err)
			}
		}
	}
}
