//go:build e2e && long

package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/gitops"
)

// flux is Flux's kustomize-controller on a cluster, with a forge. The test plays source-controller.
type flux struct {
	*argo // for its forge alone
	url   string

	archives sync.Map // by path
}

const fluxNamespace = "flux-system"

// flux starts kustomize-controller until the test ends, without objects of earlier tests.
func (c *cluster) flux(t *testing.T) *flux {
	t.Helper()
	program(t, "BACKSTAY_TEST_FLUX")
	script := func(ctx context.Context, what string) {
		if r := finish(t, exec.CommandContext(ctx, "../cluster/flux.sh", what, c.name)); r.exit != 0 {
			t.Errorf("flux.sh %s %s: exit %d\n%s%s", what, c.name, r.exit, r.stdout, r.stderr)
		}
	}
	t.Cleanup(func() { script(context.Background(), "down") })
	if script(t.Context(), "up"); t.Failed() {
		t.FailNow()
	}
	f := &flux{argo: &argo{cluster: c, api: c.connect(t).Client, forgeDir: t.TempDir(), private: map[string]string{}}}
	f.forgeURL = f.serve(t, f.forge)
	f.url = f.serve(t, func(w http.ResponseWriter, r *http.Request) {
		content, known := f.archives.Load(r.URL.Path)
		if !known {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content.([]byte))
	})
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := f.command(context.Background(), filepath.Join(f.dir, "programs", "kubectl"), "-n", fluxNamespace, "get",
				"kustomizations,gitrepositories,gates.backstay.io", "-o", "yaml").CombinedOutput()
			t.Logf("%s", said)
		}
	})
	f.kubectl(t, "-n", fluxNamespace, "delete", "kustomizations,gitrepositories", "--all", "--timeout=60s")
	f.fetch(t)
	return f
}

func fluxObject(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "source.toolkit.fluxcd.io", Version: "v1", Kind: kind})
	return u
}

// fetch is source-controller, as far as it is needed here: once a second it looks at each repository.
func (f *flux) fetch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		for ctx.Err() == nil {
			all := &unstructured.UnstructuredList{}
			all.SetGroupVersionKind(fluxObject("GitRepositoryList").GroupVersionKind())
			if f.api.List(ctx, all, client.InNamespace(fluxNamespace)) == nil {
				for i := range all.Items {
					f.fetchOne(ctx, &all.Items[i])
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

// fetchOne writes what is found of a repository into its status. What cannot be written is written the next time.
func (f *flux) fetchOne(ctx context.Context, o *unstructured.Unstructured) {
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(o.Object, fields...)
		return s
	}
	if suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend"); suspended {
		return
	}
	bare := filepath.Join(f.forgeDir, path.Base(text("spec", "url")))
	commit, prefix := text("spec", "ref", "commit"), ""
	if branch := text("spec", "ref", "branch"); commit == "" {
		commit, prefix = "refs/heads/"+branch, branch+"@"
	}
	sha, err := exec.CommandContext(ctx, "git", "-C", bare, "rev-parse", "--verify", "--quiet", commit+"^{commit}").Output()
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(kind, status, reason, message string) any {
		return map[string]any{
			"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now, "observedGeneration": o.GetGeneration(),
		}
	}
	status, _, _ := unstructured.NestedMap(o.Object, "status")
	if status == nil {
		status = map[string]any{}
	}
	revision := prefix + "sha1:" + strings.TrimSpace(string(sha))
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && strings.Contains(fmt.Sprint(status["conditions"]), "FetchFailed"):
		return
	case err != nil:
		status["conditions"] = []any{
			condition("FetchFailed", "True", "GitOperationFailed", "failed to checkout and determine revision"),
			condition("Ready", "False", "GitOperationFailed", "failed to checkout and determine revision"),
		}
	case text("status", "artifact", "revision") == revision && !strings.Contains(fmt.Sprint(status["conditions"]), "FetchFailed"):
		return
	default:
		content, err := exec.CommandContext(ctx, "git", "-C", bare, "archive", "--format=tar.gz", strings.TrimSpace(string(sha))+"^{tree}").Output()
		if err != nil {
			return
		}
		at := "/" + o.GetName() + "/" + strings.TrimSpace(string(sha)) + ".tar.gz"
		f.archives.Store(at, content)
		status["artifact"] = map[string]any{
			"path": at, "url": f.url + at, "revision": revision, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(content)),
			"lastUpdateTime": now, "size": int64(len(content)),
		}
		status["conditions"] = []any{condition("Ready", "True", "Succeeded", "stored artifact")}
	}
	status["observedGeneration"] = o.GetGeneration()
	before := o.DeepCopy()
	o.Object["status"] = status
	_ = f.api.Status().Patch(ctx, o, client.MergeFrom(before))
}

// kustomized is an application that Flux deploys, and the Kustomization of its parent, which has all of Flux's objects in git and heals them.
type kustomized struct {
	*flux
	app, fleet *repository
	namespace  string
}

// newKustomized makes one with a file of the application and, below fleet, what Flux has to know of it.
func (f *flux) newKustomized(t *testing.T, name string, gated bool, files map[string]string) *kustomized {
	t.Helper()
	f.newNamespace(t, name)
	k := &kustomized{flux: f, app: f.newRepository(t, name), fleet: f.newRepository(t, name+"-fleet"), namespace: name}
	gate, depends := "", ""
	if gated {
		gate = fmt.Sprintf(`
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[1]s-gate, namespace: flux-system, labels: {backstay.io/gate: %[1]s}}
spec: {suspend: true, interval: 1h, path: ./backstay-answers, prune: false, sourceRef: {kind: GitRepository, name: %[1]s}}
`, name)
		depends = fmt.Sprintf("dependsOn: [{name: %s-gate}], ", name)
	}
	k.app.commit(t, "first", files)
	k.fleet.commit(t, "first", map[string]string{"fleet.yaml": fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: %[1]s, namespace: flux-system}
spec: {interval: 10s, url: %[2]q, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[1]s, namespace: flux-system}
spec: {%[3]sinterval: 10s, retryInterval: 5s, timeout: 1m, path: ./, prune: true, wait: true, targetNamespace: %[1]s, sourceRef: {kind: GitRepository, name: %[1]s}}
`, name, k.app.url, depends) + gate})
	f.apply(t, fluxNamespace, fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: %[1]s-fleet}
spec: {interval: 10s, url: %[2]q, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[1]s-fleet}
spec: {interval: 5s, path: ./, prune: true, sourceRef: {kind: GitRepository, name: %[1]s-fleet}}
`, name, k.fleet.url))
	for _, o := range []string{"kustomization/" + name, "kustomization/" + name + "-gate", "kustomization/" + name + "-fleet"} {
		f.clean(t, "-n", fluxNamespace, "delete", o, "--ignore-not-found", "--timeout=60s")
	}
	return k
}

// deployed waits until a revision is applied, and well.
func (k *kustomized) deployed(t *testing.T, revision string) {
	t.Helper()
	k.wait(t, "revision "+revision+" of "+k.namespace, 3*time.Minute, func() (bool, string) {
		said := k.kubectl(t, "-n", fluxNamespace, "get", "kustomization", k.namespace, "--ignore-not-found", "-o",
			`jsonpath={.status.lastAppliedRevision} {.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}`)
		applied, rest, _ := strings.Cut(said, " ")
		return strings.HasSuffix(applied, "sha1:"+revision) && strings.HasPrefix(rest, "True"), said
	})
}

// spec is the Kustomization's.
func (k *kustomized) spec(t *testing.T) string {
	t.Helper()
	return k.kubectl(t, "-n", fluxNamespace, "get", "kustomization", k.namespace, "-o", "jsonpath={.spec}")
}

// version is what the application's ConfigMap says; empty for none.
func (k *kustomized) version(t *testing.T) string {
	t.Helper()
	return k.kubectl(t, "-n", k.namespace, "get", "configmap", "settings", "--ignore-not-found", "-o", "jsonpath={.data.version}")
}

func (k *kustomized) stays(t *testing.T, what, version string, long time.Duration) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if is := k.version(t); is != version {
			t.Fatalf("%s: version %q came in the place of %q", what, is, version)
		}
	}
}

func settings(version string) map[string]string {
	return map[string]string{"settings.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {version: " + version + "}}\n"}
}

// What package gitops takes for granted about Flux, asked of the real kustomize-controller: docs/adr/0018.
func TestClusterFluxStandsStill(t *testing.T) {
	f := startCluster(t, "backstay").flux(t)
	k := f.newKustomized(t, "still", false, settings("one"))
	first := k.app.head(t)
	k.deployed(t, first)
	second := k.app.commit(t, "second", settings("two"))
	k.deployed(t, second)
	spec := k.spec(t)

	const by = "5f0c1c52-1111-4222-8333-444455556666"
	d, err := gitops.Open(f.api, "flux/flux-system/still")
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Suspensions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if err := d.Suspend(t.Context(), s, by); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if err := d.Stop(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	t.Logf("at rest after %v", time.Since(begun).Round(100*time.Millisecond))

	// A commit, what is changed on the cluster, and a parent that applies all it has, of which this one is left out.
	k.app.commit(t, "third", settings("three"))
	k.kubectl(t, "-n", "still", "patch", "configmap", "settings", "-p", `{"data":{"version":"changed"}}`)
	other := map[string]string{"other.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: still}}\n"}
	fleet := k.fleet.commit(t, "something else", other)
	k.wait(t, "the parent's commit "+fleet, time.Minute, func() (bool, string) {
		is := k.kubectl(t, "-n", "still", "get", "configmap", "other", "--ignore-not-found", "-o", "name")
		return is != "", is
	})
	k.stays(t, "while it is held", "changed", 12*time.Second)

	begun = time.Now()
	if err := d.Deploy(t.Context(), []string{first}, by); err != nil {
		t.Fatal(err)
	}
	f.wait(t, "the first revision again", time.Minute, func() (bool, string) {
		s, err := d.State(t.Context())
		return err == nil && s.Operation.Phase == "Succeeded" && s.Healthy && len(s.Live) == 1 && s.Live[0] == first, fmt.Sprintf("%+v %+v %v", s, s.Operation, err)
	})
	t.Logf("deployed after %v", time.Since(begun).Round(100*time.Millisecond))
	k.stays(t, "while it is pinned", "one", 15*time.Second)

	if err := d.Deploy(t.Context(), []string{strings.Repeat("9", 40)}, by); err != nil {
		t.Fatal(err)
	}
	f.wait(t, "a revision that git does not have", 2*time.Minute, func() (bool, string) {
		s, err := d.State(t.Context())
		return err == nil && s.Lost && s.Operation.Phase == "Failed", fmt.Sprintf("%+v %+v %v", s, s.Operation, err)
	})

	for _, s := range all {
		if err := errors.Join(d.Resume(t.Context(), s, by), d.Resume(t.Context(), s, by)); err != nil {
			t.Fatal(err)
		}
	}
	if is := k.spec(t); is != spec {
		t.Errorf("spec %s\nwas  %s", is, spec)
	}
	k.deployed(t, k.app.head(t))
	k.stays(t, "when it is let go", "three", 6*time.Second)
	if is := k.spec(t); is != spec {
		t.Errorf("spec %s\nwas  %s", is, spec)
	}
	if left := k.kubectl(t, "-n", fluxNamespace, "get", "gitrepositories", "-l", "backstay.io/restore", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// pets is an application with data, which a commit may empty.
func pets(version string, migration bool) map[string]string {
	files := settings(version)
	files["web.yaml"] = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: web, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sleep, infinity], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`
	if migration {
		files["migration.yaml"] = `
apiVersion: batch/v1
kind: Job
metadata: {name: migration}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: migration, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sh, -c, "rm /data/pets"], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`
	}
	return files
}

// The gate holds a revision until there is a point, and a rollback brings data and configuration back.
func TestClusterFluxGateAndRollback(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	f := c.flux(t)
	c.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: pets}
spec: {schedule: {cron: "@daily"}, location: main, retention: {daily: 14}, sources: [{applications: {flux: [pets]}}], gitops: {deadline: 90s}}
`)
	k := f.newKustomized(t, "pets", true, pets("one", false))
	k.deployed(t, k.app.head(t)) // there was nothing to protect
	sh := func(command string) string {
		return strings.TrimSpace(c.kubectl(t, "-n", "pets", "exec", "deployment/web", "--", "sh", "-c", command))
	}
	sh("echo seven > /data/pets; sync")
	reasons := func() string {
		return c.kubectl(t, "-n", fluxNamespace, "get", "gates.backstay.io", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].status.reason}")
	}

	begun := time.Now()
	good := k.app.commit(t, "second", settings("two"))
	k.deployed(t, good)
	t.Logf("the second revision took %v", time.Since(begun).Round(100*time.Millisecond))
	if got := reasons(); got != "FirstSync Snapshot" && got != "FirstSync Stored" {
		t.Errorf("gates %s", got)
	}

	// No point can be made: the revision does not come, and says why.
	c.storageFaults(t, "CreateSnapshot pets/* fail")
	k.app.commit(t, "while no snapshots can be taken", settings("three"))
	c.wait(t, "the gate stays shut", 3*time.Minute, func() (bool, string) {
		said := c.kubectl(t, "-n", fluxNamespace, "get", "kustomization", "pets-gate", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
		return strings.Contains(said, `"status":"False"`), said
	})
	k.stays(t, "behind a gate that is shut", "two", 10*time.Second)
	c.storageFaults(t)

	bad := k.app.commit(t, "a migration", pets("bad", true))
	k.deployed(t, bad)
	if got := sh("cat /data/pets 2>&1 || true"); strings.Contains(got, "seven") {
		t.Fatalf("the migration left %q", got)
	}
	spec := k.spec(t)

	begun = time.Now()
	t.Logf("%s", i.backstay(t, "rollback", "pets", "--to", good, "--yes"))
	t.Logf("the rollback took %v", time.Since(begun).Round(100*time.Millisecond))
	if got := sh("cat /data/pets"); got != "seven" {
		t.Errorf("data is %q", got)
	}
	k.stays(t, "after the rollback", "two", 15*time.Second)

	// A commit without the migration lets go by itself, or Backstay says that it holds, and why.
	git(t, k.app.work, "revert", "--no-edit", "HEAD")
	git(t, k.app.work, "push", "--quiet", "origin", "main")
	k.deployed(t, k.app.head(t))
	if is := k.spec(t); is != spec {
		t.Errorf("spec %s\nwas  %s", is, spec)
	}
	if got := sh("cat /data/pets"); got != "seven" {
		t.Errorf("data is %q after the revert", got)
	}
}
