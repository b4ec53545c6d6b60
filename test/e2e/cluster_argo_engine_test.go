//go:build e2e && long

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/gitops"
)

// What package gitops takes for granted about Argo CD, asked of the real one: docs/adr/0017.
func TestClusterArgoStandsStill(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	for name, o := range map[string]applicationOptions{
		"alone": {}, "by label": {tracking: "label"}, "of a set": {appset: true}, "of a parent": {parent: true},
		"of a parent, by label": {parent: true, tracking: "label"},
	} {
		o.automated, o.selfHeal, o.prune = true, true, true
		t.Run(name, func(t *testing.T) { stillStand(t, a, o) })
	}
}

// engineFiles are an application with a hook before each sync, of which a Job remains.
func engineFiles(version string) map[string]string {
	return map[string]string{
		"settings.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {version: " + version + "}}\n",
		"claim.yaml": `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
`,
		"hook.yaml": hookRunning("true"),
	}
}

func hookRunning(command string) string {
	return `
apiVersion: batch/v1
kind: Job
metadata: {generateName: migrate-, annotations: {argocd.argoproj.io/hook: PreSync}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: migrate, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sh, -c, "` + command + `"]}]
`
}

func stillStand(t *testing.T, a *argo, o applicationOptions) {
	const by = "5f0c1c52-1111-4222-8333-444455556666"
	a.kubectl(t, "-n", argoNamespace, "delete", "configmap", "other", "--ignore-not-found")
	a.kubectl(t, "-n", argoNamespace, "patch", "appproject", "default", "--type=merge", "-p", `{"metadata":{"annotations":null,"labels":null},"spec":{"syncWindows":null}}`)
	app := a.newApplication(t, "still", engineFiles("one"), o)
	first := app.head(t)
	if app.parent != nil {
		// The AppProject of both is in the parent's git, with a window of its own, so that ours is a difference that is healed.
		app.parent.commit(t, "the project", map[string]string{"project.yaml": `
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: default, namespace: argocd}
spec:
  sourceRepos: ["*"]
  destinations: [{namespace: "*", server: "*"}]
  clusterResourceWhitelist: [{group: "*", kind: "*"}]
  syncWindows: [{kind: allow, schedule: "* * * * *", duration: 2h, applications: ["*"], manualSync: true, timeZone: UTC}]
`})
		app.parent.well(t, app.parent.head(t))
	}
	app.well(t, first)
	jobs := len(app.list(t, "-n", app.namespace, "jobs"))
	before, project := specOf(t, a, "Application", app.name), specOf(t, a, "AppProject", "default")

	d, err := gitops.Open(a.api, "argocd/argocd/still")
	if err != nil {
		t.Fatal(err)
	}
	suspensions, err := d.Suspensions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("suspensions %+v", suspensions)
	for _, s := range suspensions {
		if err := d.Suspend(t.Context(), s, by); err != nil {
			t.Fatal(err)
		}
	}

	if err := d.Stop(t.Context(), by); err != nil {
		t.Fatal(err)
	}

	// A commit; what is changed; what is deleted; a person.
	second := app.commit(t, "second", map[string]string{"settings.yaml": engineFiles("two")["settings.yaml"]})
	app.seen(t, second)
	a.kubectl(t, "-n", app.namespace, "delete", "pvc", "data")
	a.kubectl(t, "-n", app.namespace, "patch", "configmap", "settings", "-p", `{"data":{"version":"changed"}}`)
	if r := a.cli(t, "app", "sync", app.name); r.exit == 0 || !strings.Contains(r.stderr, "blocked by sync window") {
		t.Errorf("argocd app sync: exit %d: %s%s", r.exit, r.stdout, r.stderr)
	}
	app.sync(t, second)
	if app.parent != nil {
		app.parent.commit(t, "another", map[string]string{"other.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: argocd}}\n"})
	}
	app.stays(t, 12*time.Second, func() string {
		return version(t, app) + " " + a.kubectl(t, "-n", app.namespace, "get", "pvc", "-o", "name") +
			a.kubectl(t, "-n", argoNamespace, "get", "configmap", "other", "--ignore-not-found", "-o", "name")
	}, "changed ")
	if s := app.stands(t); s.Status.OperationState == nil || s.Status.OperationState.Message != "Sync operation blocked by sync window" {
		t.Errorf("a sync that somebody asked for: %s", s)
	}

	// Our own sync passes, without hooks, and stays.
	begun := time.Now()
	if err := d.Deploy(t.Context(), []string{first}, by); err != nil {
		t.Fatal(err)
	}
	app.wait(t, "it is deployed", patience, func() (bool, string) {
		s := engineState(t, d)
		return s.Operation != nil && s.Operation.Phase == "Succeeded" && s.Operation.Restore == by && slices.Equal(s.Live, []string{first}), s.Message
	})
	t.Logf("deployed after %v", time.Since(begun).Round(100*time.Millisecond))
	app.wait(t, "it is healthy", patience, func() (bool, string) { s := engineState(t, d); return s.Healthy, s.Message })
	t.Logf("state %+v", engineState(t, d))
	app.stays(t, 12*time.Second, func() string {
		return version(t, app) + " " + a.kubectl(t, "-n", app.namespace, "get", "pvc", "-o", "name")
	},
		"one persistentvolumeclaim/data\n")
	if s := engineState(t, d); !slices.Equal(s.Live, []string{first}) || !slices.Equal(s.Head, []string{second}) || s.Synced {
		t.Errorf("state %+v", s)
	}

	// Reverted, and let go: nothing is done.
	third := app.commit(t, "revert", map[string]string{"settings.yaml": engineFiles("one")["settings.yaml"]})
	app.seen(t, third)
	app.wait(t, "it is Synced", patience, func() (bool, string) { s := engineState(t, d); return s.Synced && s.Healthy, s.Message })
	for _, s := range slices.Backward(suspensions) {
		if err := d.Resume(t.Context(), s, by); err != nil {
			t.Fatal(err)
		}
	}
	if app.parent != nil {
		app.parent.well(t, app.parent.head(t))
	}
	app.stays(t, 12*time.Second, func() string { s := engineState(t, d); return s.Operation.Restore + " " + s.Message }, by+" ")
	if got := len(app.list(t, "-n", app.namespace, "jobs")); got != jobs {
		t.Errorf("hooks ran %d times, want %d", got, jobs)
	}
	if after := specOf(t, a, "Application", app.name); after != before {
		t.Errorf("the Application is\n%s, was\n%s", after, before)
	}
	if after := specOf(t, a, "AppProject", "default"); after != project {
		t.Errorf("the AppProject is\n%s, was\n%s", after, project)
	}

	// It heals and syncs again. The last sync was of another revision, so what heals is not partial: it has hooks. A bad hook in git that
	// changes no object, at which the Application is Synced, would run now.
	a.kubectl(t, "-n", app.namespace, "delete", "configmap", "settings")
	app.wait(t, "it heals", patience, func() (bool, string) { got := version(t, app); return got == "one", got })
	app.well(t, app.commit(t, "fourth", map[string]string{"settings.yaml": engineFiles("four")["settings.yaml"]}))
	if got := len(app.list(t, "-n", app.namespace, "jobs")); got != jobs+2 {
		t.Errorf("hooks ran %d times, want %d", got, jobs+2)
	}
}

// An automated sync in its hook ends at once, and does not begin again, though windows keep Argo CD from ending automated syncs.
func TestClusterArgoStops(t *testing.T) {
	const by = "5f0c1c52-1111-4222-8333-444455556666"
	c := startCluster(t, "backstay")
	a := c.argo(t)
	app := a.newApplication(t, "stops", engineFiles("one"), applicationOptions{automated: true, selfHeal: true, prune: true})
	first := app.head(t)
	app.well(t, first)
	d, err := gitops.Open(a.api, "argocd/argocd/stops")
	if err != nil {
		t.Fatal(err)
	}
	app.commit(t, "second", map[string]string{"settings.yaml": engineFiles("two")["settings.yaml"], "hook.yaml": hookRunning("sleep 600")})
	app.wait(t, "the hook runs", patience, func() (bool, string) {
		s := app.stands(t)
		return s.Status.OperationState != nil && strings.HasPrefix(s.Status.OperationState.Message, "waiting for completion of hook"), s.String()
	})
	suspensions, err := d.Suspensions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range suspensions {
		if err := d.Suspend(t.Context(), s, by); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begun := time.Now()
	if err := d.Stop(ctx, by); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped after %v: %s", time.Since(begun).Round(100*time.Millisecond), app.stands(t))
	if o := app.stands(t).Status.OperationState; o.Phase != "Failed" {
		t.Errorf("the operation is %s: %s", o.Phase, o.Message)
	}
	app.wait(t, "the hook is gone", patience, func() (bool, string) {
		left := app.list(t, "-n", app.namespace, "jobs")
		return len(left) == 1, a.kubectl(t, "-n", app.namespace, "get", "jobs,pods")
	})

	// The repository goes, and with it the revision.
	app.lose(t)
	a.kubectl(t, "-n", argoNamespace, "get", "applications", "stops")
	if err := d.Deploy(t.Context(), []string{"0123456789012345678901234567890123456789"}, by); err != nil {
		t.Fatal(err)
	}
	app.wait(t, "it is told to be lost", 2*patience, func() (bool, string) { s := engineState(t, d); return s.Lost, s.Message })
	t.Logf("lost: %+v %+v", engineState(t, d), engineState(t, d).Operation)
	for _, s := range suspensions {
		if err := d.Resume(t.Context(), s, by); err != nil {
			t.Fatal(err)
		}
	}
}

// In whatever moment of a sync it is stopped, nothing moves afterwards, and the next commit is synced once it is let go. An operation that
// Argo CD had decided on before may still be asked for; the window blocks it, and Resume ends it.
func TestClusterArgoStopsInAnyMoment(t *testing.T) {
	const by, rounds = "5f0c1c52-1111-4222-8333-444455556666", 12
	c := startCluster(t, "backstay")
	a := c.argo(t)
	app := a.newApplication(t, "moments", engineFiles("first"), applicationOptions{automated: true, selfHeal: true, prune: true})
	app.well(t, app.head(t))
	d, err := gitops.Open(a.api, "argocd/argocd/moments")
	if err != nil {
		t.Fatal(err)
	}
	suspensions, err := d.Suspensions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	moves := func() string {
		return fmt.Sprint(version(t, app), ", hooks: ", len(app.list(t, "-n", app.namespace, "jobs")))
	}
	for i := range rounds {
		app.commit(t, "another", map[string]string{"settings.yaml": engineFiles(fmt.Sprint("v", i))["settings.yaml"]})
		app.refresh(t)
		time.Sleep(time.Duration(i) * 150 * time.Millisecond)
		for _, s := range suspensions {
			if err := d.Suspend(t.Context(), s, by); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if err := d.Stop(t.Context(), by); err != nil {
			t.Fatal(err)
		}
		took, still := time.Since(begun).Round(10*time.Millisecond), moves()
		t.Logf("round %d: %s, stopped in %v", i, still, took)
		app.stays(t, 4*time.Second, moves, still)
		if s := app.stands(t); s.Operation != nil && s.Status.OperationState.Message != "Sync operation blocked by sync window" {
			t.Errorf("it goes on: %s", s)
		}
		for _, s := range suspensions {
			if err := d.Resume(t.Context(), s, by); err != nil {
				t.Fatal(err)
			}
		}
	}
	app.well(t, app.commit(t, "last", map[string]string{"settings.yaml": engineFiles("last")["settings.yaml"]}))
}

func engineState(t *testing.T, d gitops.Deployment) gitops.State {
	t.Helper()
	s, err := d.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func version(t *testing.T, app *application) string {
	t.Helper()
	return app.kubectl(t, "-n", app.namespace, "get", "configmap", "settings", "--ignore-not-found", "-o", "jsonpath={.data.version}")
}

// specOf is an object's spec as the API server has it.
func specOf(t *testing.T, a *argo, kind, name string) string {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: kind})
	if err := a.api.Get(t.Context(), client.ObjectKey{Namespace: argoNamespace, Name: name}, u); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(u.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stays fails the test where something does not stay as it is for so long.
func (a *application) stays(t *testing.T, long time.Duration, read func() string, want string) {
	t.Helper()
	for deadline := time.Now().Add(long); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if got := read(); got != want {
			t.Fatalf("it is %q, and was to stay %q: %s", got, want, a.stands(t))
		}
	}
}
