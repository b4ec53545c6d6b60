package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/controller"
)

var argoOnce sync.Once

// argo installs the definition of Applications: as Argo CD's own it has no subresource for the status.
func (w *world) argo() {
	w.Helper()
	argoOnce.Do(func() {
		w.create(w.parse(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: applications.argoproj.io}, spec: {
			group: argoproj.io, scope: Namespaced, names: {kind: Application, listKind: ApplicationList, plural: applications, singular: application},
			versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {
				spec: {type: object, x-kubernetes-preserve-unknown-fields: true},
				operation: {type: object, x-kubernetes-preserve-unknown-fields: true},
				status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]}}`))
	})
	w.served("argoproj.io", "v1alpha1", "Application")
}

// application makes an Application that deploys into a namespace, and has deployed the revision aaa.
func (w *world) application(namespace, name, into string) *unstructured.Unstructured {
	w.Helper()
	a := w.parse(`{apiVersion: argoproj.io/v1alpha1, kind: Application, spec: {project: default, destination: {namespace: ` + into + `},
		source: {repoURL: http://git/shop.git, path: ., targetRevision: main}}, status: {history: [{id: 0, revision: aaa, deployedAt: "2026-11-20T00:00:00Z"}]}}`)
	a.SetNamespace(namespace)
	a.SetName(name)
	w.eventually("make application", func() string { // its definition may be a moment old
		if err := w.admin.Create(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
	w.Cleanup(func() { _ = w.admin.Delete(context.Background(), a) }) // the test's own context is over
	return a
}

// syncs writes an operation as Argo CD's controller does, and returns when it began.
func (w *world) syncs(a *unstructured.Unstructured, phase, operation string, more ...string) time.Time {
	w.Helper()
	started := w.clock.now().Truncate(time.Second)
	w.syncsAt(a, started, phase, operation, more...)
	return started
}

func (w *world) syncsAt(a *unstructured.Unstructured, started time.Time, phase, operation string, more ...string) {
	w.Helper()
	state := fmt.Sprintf(`{phase: %s, startedAt: %q, operation: %s %s}`, phase, started.UTC().Format(time.RFC3339), operation, strings.Join(more, ""))
	w.eventually("write operation", func() string {
		if err := w.get(a); err != nil {
			return err.Error()
		}
		if err := unstructured.SetNestedMap(a.Object, w.parse(state).Object, "status", "operationState"); err != nil {
			w.Fatal(err)
		}
		if err := w.admin.Update(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
}

// guards makes a policy whose syncs wait for points.
func (w *world) guards(into string, change ...func(*v1alpha1.GitOps)) *v1alpha1.Policy {
	w.Helper()
	g := &v1alpha1.GitOps{}
	for _, c := range change {
		c(g)
	}
	p := &v1alpha1.Policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "gated"},
		Spec: v1alpha1.PolicySpec{
			Location: "vault", Suspend: true, GitOps: g, Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{into}}}},
		},
	}
	w.create(p)
	w.seen(p)
	return p
}

// gates are the Gates of a namespace whose phase is known, by their reasons.
func (w *world) gates(namespace string) map[string][]v1alpha1.Gate {
	w.Helper()
	var all v1alpha1.GateList
	if err := w.admin.List(w.Context(), &all, client.InNamespace(namespace)); err != nil {
		w.Fatal(err)
	}
	by := map[string][]v1alpha1.Gate{}
	for _, g := range all.Items {
		by[g.Status.Reason] = append(by[g.Status.Reason], g)
	}
	return by
}

// recorded waits for the only Gate of a reason.
func (w *world) recorded(namespace, reason string) *v1alpha1.Gate {
	w.Helper()
	var g v1alpha1.Gate
	w.eventually("gate "+reason, func() string {
		of := w.gates(namespace)
		if len(of[reason]) != 1 {
			return fmt.Sprintf("there are %v", of)
		}
		g = of[reason][0]
		return ""
	})
	return &g
}

const (
	selfHeal  = `{sync: {revision: aaa, autoHealAttemptsCount: 1, resources: [{kind: Deployment, name: web}]}, initiatedBy: {automated: true}}`
	selective = `{sync: {revision: bbb, resources: [{kind: ConfigMap, name: web}]}, initiatedBy: {username: ada}}`
	rollsBack = `{sync: {revision: zzz, syncStrategy: {apply: {}}, source: {repoURL: "http://git/shop.git"}}, initiatedBy: {username: ada}}`
	full      = `{sync: {revision: bbb}, initiatedBy: {automated: true}}`
)

func TestSyncsWithoutHooksAreRecordedWithAPoint(t *testing.T) {
	for _, test := range []struct{ reason, operation, to, by string }{
		{v1alpha1.GateSelfHeal, selfHeal, "aaa", "automated"},
		{v1alpha1.GateSelective, selective, "bbb", "ada"},
		{v1alpha1.GateRollback, rollsBack, "zzz", "ada"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			w := newWorld(t)
			w.argo()
			w.start()
			into := w.namespace()
			a := w.application(w.system, "shop", into)
			w.location(w.system)
			w.guards(into)
			started := w.syncs(a, "Running", test.operation)
			g := w.recorded(into, test.reason)
			sync := g.Status.Sync
			if g.Status.Phase != v1alpha1.GateUngated || sync.Deployment != "argocd/"+w.system+"/shop" || !slices.Equal(sync.From, []string{"aaa"}) ||
				!slices.Equal(sync.To, []string{test.to}) || sync.By != test.by || !sync.Started.Time.Equal(started) || g.Status.Policy != w.system+"/gated" {
				t.Errorf("gate %+v, sync %+v", g.Status, sync)
			}
			b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: g.Status.Backup}}
			if err := w.get(b); err != nil {
				t.Fatal(err)
			}
			if b.Spec.Policy != "gated" || !slices.Equal(b.Spec.Application.Namespaces, []string{into}) || !slices.Equal(b.Spec.Sync.To, sync.To) {
				t.Errorf("backup %+v", b.Spec)
			}
			w.event(w.system, "SyncUngated")
			w.syncsAt(a, started, "Succeeded", test.operation, `, finishedAt: "2026-11-22T00:00:00Z", message: done`)
			w.settled(a)
			if of := w.gates(into); len(of[test.reason]) != 1 || len(of) != 1 {
				t.Errorf("one operation has Gates %v", of)
			}
		})
	}
}

// settled waits until the controller has seen what was written of an Application before: it does one thing after another.
func (w *world) settled(a *unstructured.Unstructured) {
	w.Helper()
	later := w.clock.now().Truncate(time.Second).Add(time.Minute) // than any that the test has
	w.syncsAt(a, later, "Running", `{sync: {revision: fff, resources: [{kind: Fence, name: x}]}}`)
	w.eventually("next operation", func() string {
		for _, g := range w.gates(into(a))[v1alpha1.GateSelective] {
			if g.Status.Sync.To[0] == "fff" {
				if err := w.admin.Delete(w.Context(), &g); err != nil {
					w.Fatal(err)
				}
				return ""
			}
		}
		return "it is not recorded"
	})
}

func into(a *unstructured.Unstructured) string {
	namespace, _, _ := unstructured.NestedString(a.Object, "spec", "destination", "namespace")
	return namespace
}

func TestOneGateForOneOperationThoughTheControllerEnds(t *testing.T) {
	w := newWorld(t)
	w.argo()
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	w.guards(into)
	started := w.syncs(a, "Running", selfHeal)
	for range 3 {
		stop := w.start()
		w.recorded(into, v1alpha1.GateSelfHeal)
		stop()
	}
	w.syncsAt(a, started, "Succeeded", selfHeal)
	w.start()
	w.settled(a)
	if of := w.gates(into); len(of) != 1 || len(of[v1alpha1.GateSelfHeal]) != 1 {
		t.Errorf("Gates %v", of)
	}
	var backups v1alpha1.BackupList
	if err := w.admin.List(t.Context(), &backups, client.InNamespace(w.system)); err != nil {
		t.Fatal(err)
	}
	heals := slices.DeleteFunc(backups.Items, func(b v1alpha1.Backup) bool { return b.Spec.Sync.To[0] == "fff" })
	if len(heals) != 1 {
		t.Errorf("%d Backups", len(heals))
	}
}

// TestOperationsThatComeAndGo: each has its Gate, though the next has taken its place in the Application before anybody looks.
func TestOperationsThatComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	w.guards(into)
	base := w.clock.now().Truncate(time.Second)
	w.syncsAt(a, base, "Succeeded", selfHeal)
	w.recorded(into, v1alpha1.GateSelfHeal) // it watches
	fence := w.knocks(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: into, Name: "gone"}})
	w.answered(fence, "Closed/BackupFailed") // so its cache has the Gate that was made before
	const many = 15
	for i := range many {
		w.syncsAt(a, base.Add(time.Duration(i)*time.Second), "Succeeded", selfHeal)
	}
	w.eventually("gates", func() string {
		if n := len(w.gates(into)[v1alpha1.GateSelfHeal]); n != many {
			return fmt.Sprintf("%d of %d", n, many)
		}
		return ""
	})
	backups := map[string]bool{}
	for _, g := range w.gates(into)[v1alpha1.GateSelfHeal] {
		backups[g.Status.Backup] = true
	}
	if len(backups) != 1 {
		t.Errorf("self-heals one after another have Backups %v", backups)
	}
}

func TestWhatIsNotRecorded(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	into, other := w.namespace(), w.namespace()
	a, free := w.application(w.system, "shop", into), w.application(w.system, "free", other)
	w.location(w.system)
	w.guards(into, func(g *v1alpha1.GitOps) { g.Ungated = v1alpha1.UngatedRecord })
	w.syncs(free, "Running", selfHeal) // of no policy
	w.syncs(a, "Running", `{sync: {revision: bbb, dryRun: true, resources: [{kind: Deployment, name: web}]}}`)
	w.syncs(a, "Running", full) // its hooks may come
	w.syncsAt(a, w.clock.now().Add(-48*time.Hour), "Succeeded", selfHeal)
	w.settled(a)
	if of := w.gates(into); len(of) != 0 {
		t.Errorf("recorded: %v", of)
	}
	if of := w.gates(other); len(of) != 0 {
		t.Errorf("recorded though no policy asks: %v", of)
	}
	var backups v1alpha1.BackupList
	if err := w.admin.List(t.Context(), &backups); err != nil || len(backups.Items) != 0 {
		t.Errorf("the policy says to record only, and there are %d Backups (%v)", len(backups.Items), err)
	}
}

func TestASyncWhoseHooksDoNotWait(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	w.guards(into)
	w.syncs(a, "Running", full, `, syncResult: {revision: bbb, resources: [
		{kind: Job, namespace: `+into+`, name: migrate, hookType: PreSync, hookPhase: Succeeded, syncPhase: PreSync},
		{kind: ConfigMap, name: web, namespace: `+into+`, syncPhase: Sync, status: Synced}]}`)
	if g := w.recorded(into, v1alpha1.GateNoHook); !strings.Contains(g.Status.Message, "a point is made") {
		t.Errorf("it says %q", g.Status.Message)
	}
}

func TestPodsOfAGovernedApplicationMayMakeGates(t *testing.T) {
	w := newWorld(t)
	w.argo()
	w.start()
	into := w.system + "-later"
	a := w.application(w.system, "shop", into)
	w.guards(into)
	w.syncs(a, "Running", full)
	w.cached() // the namespace is made while the sync is under way
	w.create(w.object(into))
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: into, Name: "backstay-gate"}}
	w.eventually("binding", func() string {
		if err := w.get(binding); err != nil {
			return err.Error()
		}
		return ""
	})
	if s := binding.Subjects; len(s) != 1 || s[0].Kind != "Group" || s[0].Name != "system:serviceaccounts:"+into {
		t.Errorf("subjects %v", s)
	}
}

func TestAHookThatDoesNotStart(t *testing.T) {
	for _, test := range []struct {
		name, want string
		pod        string // its status; none for no pod
	}{
		{"image", "ImagePullBackOff: no such image", `{phase: Pending, containerStatuses: [{name: gate, image: x, imageID: "", ready: false, restartCount: 0,
			state: {waiting: {reason: ImagePullBackOff, message: no such image}}}]}`},
		{"quota", `exceeded quota`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.argo()
			w.start()
			into := w.namespace()
			a := w.application(w.system, "shop", into)
			w.guards(into)
			job := w.gateJob(into, "gate")
			if test.pod == "" {
				e := w.parse(`{apiVersion: v1, kind: Event, metadata: {generateName: e-}, reason: FailedCreate, message: "exceeded quota: pods", type: Warning,
					lastTimestamp: "2026-11-22T00:00:00Z", involvedObject: {kind: Job, name: gate, namespace: ` + into + `, uid: ` + string(job.UID) + `}}`)
				e.SetNamespace(into)
				w.create(e)
			} else {
				w.podOf(job, test.pod)
			}
			hooks := `, syncResult: {revision: bbb, resources: [{kind: Job, namespace: ` + into + `, name: gate, hookType: PreSync, hookPhase: Running, syncPhase: PreSync}]}`
			started := w.syncs(a, "Running", full, hooks)
			w.clock.forward(20 * time.Second)
			w.syncsAt(a, started, "Running", full, hooks, `, message: waiting`)
			w.event(w.system, v1alpha1.GateNotStarted)
			w.event(into, v1alpha1.GateNotStarted)
			if of := w.gates(into); len(of) != 0 {
				t.Errorf("before the deadline there are Gates %v", of)
			}
			w.clock.forward(15 * time.Minute)
			w.syncsAt(a, started, "Running", full, hooks, `, message: still waiting`)
			g := w.recorded(into, v1alpha1.GateNotStarted)
			if g.Status.Phase != v1alpha1.GateClosed || !strings.Contains(g.Status.Message, test.want) {
				t.Errorf("gate %+v", g.Status)
			}
			if err := w.get(job); err != nil {
				t.Fatal(err)
			}
			if c := job.Status.Conditions; len(c) != 1 || c[0].Type != batchv1.JobFailureTarget || !strings.Contains(c[0].Message, test.want) {
				t.Errorf("the Job says %v", c)
			}
		})
	}
}

// gateJob is the Job of a gate.
func (w *world) gateJob(namespace, name string) *batchv1.Job {
	w.Helper()
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.LabelGate: "true"}},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "gate", Image: "backstay:test"}},
		}}},
	}
	w.create(j)
	return j
}

// podOf makes a pod of a Job, as the Job controller and the kubelet do.
func (w *world) podOf(j *batchv1.Job, status string) {
	w.Helper()
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: j.Namespace, Name: j.Name + "-abc", Labels: map[string]string{batchv1.JobNameLabel: j.Name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: j.Name, UID: j.UID, Controller: &yes}},
		},
		Spec: j.Spec.Template.Spec,
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: j.Namespace, Name: "default"}}
	if err := w.admin.Create(w.Context(), account); err != nil && !apierrors.IsAlreadyExists(err) {
		w.Fatal(err)
	}
	w.create(p)
	w.status(p, func() {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(w.parse(status).Object, &p.Status); err != nil {
			w.Fatal(err)
		}
	})
}

// opened is a Gate at which a pod waited for a sync, and which let it on with a point.
func (w *world) opened(namespace, name, deployment string, started time.Time, point string) *v1alpha1.Gate {
	w.Helper()
	g := &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.GateSpec{Pod: name}}
	w.create(g)
	at, now := metav1.NewTime(started), metav1.NewMicroTime(w.clock.now())
	w.status(g, func() {
		g.Status = v1alpha1.GateStatus{
			Phase: v1alpha1.GateOpen, Reason: v1alpha1.GateStored, Policy: w.system + "/gated", Point: point, Begun: &now, Ended: &now,
			Sync: &v1alpha1.Sync{Deployment: deployment, From: []string{"aaa"}, To: []string{"bbb"}, Started: &at},
		}
	})
	return g
}

func TestASyncThatFailsBehindAnOpenGate(t *testing.T) {
	for _, test := range []struct {
		wants, phase, message string
		restores, plans       bool
	}{
		{v1alpha1.AfterFailurePropose, "Failed", "one or more synchronization tasks completed unsuccessfully", true, true},
		{v1alpha1.AfterFailureRollBack, "Error", "hook failed", true, false},
		{v1alpha1.AfterFailureRollBack, "Succeeded", "successfully synced", false, false},
		{v1alpha1.AfterFailureRollBack, "Failed", "Operation terminated", false, false},
		{"", "Failed", "hook failed", false, false},
	} {
		t.Run(test.wants+" "+test.phase+" "+test.message[:4], func(t *testing.T) {
			w := newWorld(t)
			w.argo()
			w.start()
			into := w.namespace()
			a := w.application(w.system, "shop", into)
			w.location(w.system)
			w.guards(into, func(g *v1alpha1.GitOps) { g.AfterFailure = test.wants })
			started := w.clock.now().Truncate(time.Second)
			point := w.point(w.system)
			w.opened(into, "gate-one", "argocd/"+w.system+"/shop", started, point.Spec.Point)
			ended := `, finishedAt: "` + w.clock.now().UTC().Format(time.RFC3339) + `", message: ` + test.message
			w.syncsAt(a, started, test.phase, full, ended)
			if test.restores {
				var r v1alpha1.Restore
				w.eventually("restore", func() string {
					var all v1alpha1.RestoreList
					if err := w.admin.List(t.Context(), &all, client.InNamespace(w.system)); err != nil || len(all.Items) != 1 {
						return fmt.Sprintf("there are %d (%v)", len(all.Items), err)
					}
					r = all.Items[0]
					return ""
				})
				if r.Spec.PlanOnly != test.plans || r.Spec.RestorePoint != point.Name || r.Spec.GitOps == nil || r.Spec.GitOps.Deployment != "argocd/"+w.system+"/shop" {
					t.Errorf("restore %+v", r.Spec)
				}
				w.event(w.system, "SyncFailed")
			}
			w.settled(a)
			w.syncsAt(a, started, test.phase, full, ended) // seen again
			w.settled(a)
			var all v1alpha1.RestoreList
			if err := w.admin.List(t.Context(), &all, client.InNamespace(w.system)); err != nil || (len(all.Items) == 1) != test.restores {
				t.Errorf("%d Restores (%v)", len(all.Items), err)
			}
		})
	}
}

func TestGatesAreCountedAndGo(t *testing.T) {
	address := "127.0.0.1:" + freePort(t)
	w := newWorld(t, func(o *controller.Options) { o.Metrics = address })
	w.argo()
	stop := w.start()
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	w.guards(into)
	w.syncs(a, "Running", rollsBack)
	g := w.recorded(into, v1alpha1.GateRollback)
	for _, want := range []string{
		`backstay_gates{phase="Ungated",reason="Rollback"} 1`,
		`backstay_gate_wait_seconds_count{phase="Ungated",reason="Rollback"} 1`,
	} {
		w.eventually(want, func() string {
			if text := w.fetch("http://" + address + "/metrics"); !strings.Contains(text, "\n"+want+"\n") {
				return "there is no such line"
			}
			return ""
		})
	}
	stop()
	w.clock.forward(8 * 24 * time.Hour)
	w.start()
	w.eventually("the Gate goes", func() string {
		if err := w.get(g); apierrors.IsNotFound(err) {
			return ""
		}
		return "it is there"
	})
}

const tasksFailed = "one or more synchronization tasks completed unsuccessfully"

// ends ends the sync of a shop as Argo CD's controller does when a hook's Job has failed.
func (w *world) ends(s shop, started time.Time, message string) {
	w.Helper()
	_, told, _ := strings.Cut(w.cause(s.job), ": ")
	phase := "Failed"
	if told == "" {
		phase = "Succeeded"
	}
	w.syncsAt(s.application, started, "Failed", full, fmt.Sprintf(`, finishedAt: %q, message: %q, syncResult: {revision: bbb, resources: [
		{kind: Job, namespace: %s, name: %s, hookType: PreSync, hookPhase: %s, syncPhase: PreSync, message: %q}]}`,
		w.clock.now().UTC().Format(time.RFC3339), message, s.into, s.job.Name, phase, told))
}

// words are what Argo CD says of the last operation of an Application.
func (w *world) words(a *unstructured.Unstructured) string {
	w.Helper()
	if err := w.get(a); err != nil {
		w.Fatal(err)
	}
	message, _, _ := unstructured.NestedString(a.Object, "status", "operationState", "message")
	return message
}

// explained waits until Argo CD says so of the last operation.
func (w *world) explained(a *unstructured.Unstructured, want string) {
	w.Helper()
	w.eventually("message of the operation", func() string {
		if got := w.words(a); got != want {
			return fmt.Sprintf("it is %q, want %q", got, want)
		}
		return ""
	})
}

// TestArgoCDSaysWhyAGateWasClosed: behind its own words, once, and of no other operation.
func TestArgoCDSaysWhyAGateWasClosed(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	s := w.shop()
	started := w.startOf(s.application)
	g := w.knocks(s.pod)
	b := w.waited(g)
	w.status(b, func() {
		b.Status.Phase, b.Status.Problems = v1alpha1.PhaseFailed, []string{"repository not found: " + strings.Repeat("ä", 2000)}
	})
	w.answered(g, "Closed/BackupFailed")
	if got := w.words(s.application); got != "" {
		t.Errorf("of an operation that runs it says %q", got)
	}
	w.ends(s, started, tasksFailed)
	want := tasksFailed + "; backstay gate: BackupFailed: " + g.Status.Message
	w.explained(s.application, want)
	if !strings.Contains(g.Status.Message, "repository not found") || len(want) > 1200 {
		t.Errorf("the cause has %d bytes: %q", len(want), g.Status.Message)
	}
	w.deploys(s.application, `{sync: {status: OutOfSync, revision: bbb}}`) // as a refresh does
	w.explained(s.application, want)
	stop()
	w.start()
	w.fenced(s.application)
	w.explained(s.application, want)

	again := started.Add(time.Minute)
	w.syncsAt(s.application, again, "Running", full, `, message: waiting for completion of hook`)
	w.fenced(s.application)
	w.explained(s.application, "waiting for completion of hook")
	w.ends(s, again, tasksFailed) // of the same Job, for all that Argo CD says
	w.fenced(s.application)
	w.explained(s.application, tasksFailed)
}

// startOf is when the operation of an Application began.
func (w *world) startOf(a *unstructured.Unstructured) time.Time {
	w.Helper()
	text, _, _ := unstructured.NestedString(a.Object, "status", "operationState", "startedAt")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		w.Fatal(err)
	}
	return at
}

// fenced waits until the controller has looked at an Application as it stands: after that it looks at one that has a cause to tell.
func (w *world) fenced(a *unstructured.Unstructured) {
	w.Helper()
	into := w.namespace()
	w.deploys(a, `{sync: {status: OutOfSync, revision: `+into+`}}`)
	fence := w.application(w.system, into, into)
	started := w.clock.now().Truncate(time.Second)
	g := w.opened(into, "gate", "argocd/"+w.system+"/"+into, started, "")
	w.status(g, func() {
		g.Status.Phase, g.Status.Reason, g.Status.Message = v1alpha1.GateClosed, v1alpha1.GateFailed, "fence"
	})
	w.syncsAt(fence, started, "Failed", full, `, message: failed, syncResult: {revision: bbb, resources: [
		{kind: Job, namespace: `+into+`, name: gate, hookType: PreSync, hookPhase: Failed, syncPhase: PreSync, message: "backstay: fence"}]}`)
	w.explained(fence, "failed; backstay gate: BackupFailed: fence")
}

func TestWhatArgoCDIsNotTold(t *testing.T) {
	for _, test := range []struct {
		name    string
		policy  func(*v1alpha1.GitOps)
		message string // with which the sync ends
		want    string // what is added
	}{
		{name: "the deadline is over", message: tasksFailed, want: "; backstay gate: DeadlineExceeded: it took longer than 15m0s: backup "},
		{name: "a policy lets syncs through", policy: func(g *v1alpha1.GitOps) { g.OnFailure = v1alpha1.OnFailureProceed }, message: tasksFailed},
		{name: "somebody ended the sync", message: "Operation terminated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			var change []func(*v1alpha1.GitOps)
			if test.policy != nil {
				change = append(change, test.policy)
			}
			s := w.shop(change...)
			g := w.knocks(s.pod)
			b := w.waited(g)
			w.clock.forward(16 * time.Minute)
			w.status(b, func() { b.Status.Phase = v1alpha1.PhaseQuiescing }) // so that the Gate is looked at
			w.eventually("answer", func() string {
				if err := w.get(g); err != nil || !g.Status.Phase.Final() {
					return string(g.Status.Phase)
				}
				return ""
			})
			w.ends(s, w.startOf(s.application), test.message)
			if test.want == "" {
				w.fenced(s.application)
				w.explained(s.application, test.message)
				return
			}
			w.eventually("message of the operation", func() string {
				if got := w.words(s.application); !strings.HasPrefix(got, test.message+test.want) {
					return got
				}
				return ""
			})
		})
	}
}
