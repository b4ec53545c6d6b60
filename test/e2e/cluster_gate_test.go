//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// gatedFiles are an application with data, and its gate. What a version changes is configuration.
func gatedFiles(t *testing.T, version string) map[string]string {
	t.Helper()
	return map[string]string{
		"gate.yaml":     gateOf(t),
		"settings.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {version: " + version + "}}\n",
		"claim.yaml": `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: web, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sleep, infinity], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`,
	}
}

// gateOf is the gate as it is put into repositories, with the image of the tests.
func gateOf(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "deploy", "argocd", "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "backstay:dev", backstayImage)
}

// newest is the Gate of the last hook that asked.
func (a *application) newest(t *testing.T) *v1alpha1.Gate {
	t.Helper()
	var all v1alpha1.GateList
	if err := a.api.List(t.Context(), &all, client.InNamespace(a.namespace)); err != nil {
		t.Fatal(err)
	}
	var newest *v1alpha1.Gate
	for i := range all.Items {
		if g := &all.Items[i]; newest == nil || newest.CreationTimestamp.Before(&g.CreationTimestamp) {
			newest = g
		}
	}
	if newest == nil || newest.Status.Ended == nil {
		t.Fatalf("no gate has ended: %+v", newest)
	}
	return newest
}

// gated is what became of the hook of a sync, and how long its pod waited. How long pods take to start is not the gate's, and only logged.
func (a *application) gated(t *testing.T) (*v1alpha1.Gate, time.Duration) {
	t.Helper()
	newest := a.newest(t)
	times := strings.Fields(a.kubectl(t, "-n", a.namespace, "get", "job", "backstay-gate", "-o",
		`jsonpath={.metadata.creationTimestamp} {.status.conditions[-1:].lastTransitionTime}`))
	created, err := time.Parse(time.RFC3339, times[0])
	if err != nil {
		t.Fatal(err)
	}
	ended, err := time.Parse(time.RFC3339, times[1])
	if err != nil {
		t.Fatal(err)
	}
	waited := newest.Status.Ended.Sub(newest.Status.Begun.Time)
	t.Logf("gate %s/%s: %s; the hook's Job took %v, of which the gate %v", newest.Status.Phase, newest.Status.Reason, newest.Status.Message,
		ended.Sub(created), waited.Round(10*time.Millisecond))
	return newest, waited
}

// TestClusterGate: a sync of Argo CD waits for a point of the application, and no longer than it must. The gate and the policy are set up as
// docs/argocd.md opens with.
func TestClusterGate(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t) // before Backstay, which looks for it when it starts and from time to time
	i := install(t, c, t.TempDir())
	files := gatedFiles(t, "one")
	delete(files, "gate.yaml") // which the page adds
	app := a.newApplication(t, "shop", files, applicationOptions{})
	env := append(i.inside(t), "IMAGE="+backstayImage, "BACKSTAY="+root(t),
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com")
	runScript(t, t.TempDir(), app.work, block(t, "docs/argocd.md", "sh"), env...)
	syncs := func(revision, reason string, most time.Duration) *v1alpha1.Gate {
		t.Helper()
		app.seen(t, revision)
		app.sync(t, revision)
		if o := app.ended(t, revision); o.Phase != "Succeeded" {
			t.Fatalf("the sync is %s: %s", o.Phase, o.Message)
		}
		g, took := app.gated(t)
		if g.Status.Reason != reason || g.Status.Sync.To[0] != revision {
			t.Errorf("the gate is %+v, want %s for %s", g.Status, reason, revision)
		}
		if took > most {
			t.Errorf("the gate held the sync up for %v, want at most %v", took, most)
		}
		app.well(t, revision)
		return g
	}
	first := app.head(t) // with the gate
	syncs(first, v1alpha1.GateFirstSync, 5*time.Second)

	second := app.commit(t, "second", map[string]string{"settings.yaml": gatedFiles(t, "two")["settings.yaml"]})
	g := syncs(second, v1alpha1.GateSnapshot, 10*time.Second+snapshotTime)
	if from := g.Status.Sync.From; len(from) != 1 || from[0] != first {
		t.Errorf("the point is of %v, want %s", from, first)
	}
	b := &v1alpha1.Backup{}
	app.wait(t, "the point is stored", patience, func() (bool, string) {
		if err := a.api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: g.Status.Backup}, b); err != nil {
			return false, err.Error()
		}
		return b.Status.Phase.Final(), string(b.Status.Phase)
	})
	if b.Status.Phase != v1alpha1.PhaseComplete {
		t.Fatalf("the backup is %s: %v", b.Status.Phase, b.Status.Problems)
	}
	instant := b.Status.Instant
	t.Logf("backup: created %s, begun %s, instant %s to %s, listed %s, finished %s", b.CreationTimestamp.UTC(), b.Status.Started.UTC(),
		instant.Begun.UTC(), instant.Released.UTC(), instant.Listed.UTC(), b.Status.Finished.UTC())

	app.apply(t, system, `{apiVersion: backstay.io/v1alpha1, kind: Backup, metadata: {name: live}, spec: {policy: pipeline, application: {argocd: [shop]}}}`)
	i.kubectl(t, "-n", system, "wait", "--for=condition=Ready", "--timeout=240s", "backups.backstay.io/live")
	third := app.commit(t, "third", map[string]string{"settings.yaml": gatedFiles(t, "three")["settings.yaml"]})
	syncs(third, v1alpha1.GateFresh, 5*time.Second)

	// No snapshot, no sync; and Argo CD says why, of the hook and of the operation: when it has tried as often as it was asked to.
	i.gitops(t, `{"freshFor":"0s"}`)
	c.storageFaults(t, "CreateSnapshot shop/data fail")
	fourth := app.commit(t, "fourth", map[string]string{"settings.yaml": gatedFiles(t, "four")["settings.yaml"]})
	app.seen(t, fourth)
	app.retries(t, fourth, 1)
	o := app.fails(t, fourth, "(retried 1 times).; backstay gate: BackupFailed: backup "+system+"/gate-shop-")
	if !strings.Contains(o.Message, "CreateSnapshot of shop/data fails") || strings.Count(o.Message, "backstay gate: ") != 1 {
		t.Errorf("Argo CD says %q of the sync", o.Message)
	}
	says := c.kubectl(t, "-n", argoNamespace, "get", "application", "shop", "-o", `jsonpath={.status.operationState.syncResult.resources[0].message}`)
	if !strings.HasPrefix(says, "backstay: backup "+system+"/gate-shop-") || !strings.Contains(says, "CreateSnapshot of shop/data fails") {
		t.Errorf("Argo CD says %q of the hook", says)
	}
	if got := c.kubectl(t, "-n", "shop", "get", "configmap", "settings", "-o", "jsonpath={.data.version}"); got != "three" {
		t.Errorf("settings are %q though the gate was closed", got)
	}
	if g := app.newest(t); g.Status.Phase != v1alpha1.GateClosed {
		t.Errorf("the gate is %+v", g.Status)
	}
	app.patch(t, `{"metadata":{"annotations":{"argocd.argoproj.io/refresh":"hard"}}}`)
	app.wait(t, "Argo CD has compared again", patience, func() (bool, string) {
		left := c.kubectl(t, "-n", argoNamespace, "get", "application", "shop", "-o", `jsonpath={.metadata.annotations.argocd\.argoproj\.io/refresh}`)
		return left == "", left
	})
	if now := app.stands(t).Status.OperationState; now.Message != o.Message {
		t.Errorf("after a refresh Argo CD says %q, and %q before", now.Message, o.Message)
	}
	if told := app.cli(t, "app", "get", "shop", "--show-operation"); !strings.Contains(told.stdout, "backstay gate: BackupFailed") {
		t.Errorf("argocd app get --show-operation: exit %d\n%s%s", told.exit, told.stdout, told.stderr)
	}

	// A policy that lets syncs through explains nothing, and nothing is left of the last sync.
	i.gitops(t, `{"onFailure":"Proceed"}`)
	syncs(fourth, v1alpha1.GateProceed, patience)
	if says := app.stands(t).Status.OperationState.Message; strings.Contains(says, "backstay") {
		t.Errorf("Argo CD says %q of a sync that was let through", says)
	}
	c.storageFaults(t)

	// A Backup that cannot begin is waited for until the deadline.
	i.gitops(t, `{"onFailure":"Block","deadline":"5s"}`)
	c.kubectl(t, "-n", system, "create", "quota", "none", "--hard=pods=0")
	app.wait(t, "no pod may begin", patience, func() (bool, string) {
		stands := c.kubectl(t, "-n", system, "get", "quota", "none", "-o", "jsonpath={.status.hard.pods}")
		return stands == "0", stands
	})
	fifth := app.commit(t, "fifth", map[string]string{"settings.yaml": gatedFiles(t, "five")["settings.yaml"]})
	app.seen(t, fifth)
	app.sync(t, fifth)
	o = app.fails(t, fifth, "backstay gate: DeadlineExceeded: it took longer than 5s: backup "+system+"/gate-shop-")
	t.Logf("Argo CD says: %s", o.Message)
	c.kubectl(t, "-n", system, "delete", "quota", "none")
	i.gitops(t, `{"deadline":"15m"}`)
	syncs(fifth, v1alpha1.GateSnapshot, patience) // the Job that had no pod tries again only after a while
}

// gitops changes what the policy says of syncs.
func (i *installed) gitops(t *testing.T, merge string) {
	t.Helper()
	i.kubectl(t, "-n", system, "patch", "policies.backstay.io/pipeline", "--type=merge", "-p", `{"spec":{"gitops":`+merge+`}}`)
}

// retries asks for a sync to a revision, and that Argo CD tries it again, so often, when it fails.
func (a *application) retries(t *testing.T, revision string, limit int) {
	t.Helper()
	a.patch(t, manifestOf(t, map[string]any{
		"operation": map[string]any{
			"initiatedBy": map[string]any{"username": "ada"}, "sync": map[string]any{"revision": revision, "prune": true},
			"retry": map[string]any{"limit": limit, "backoff": map[string]any{"duration": "1s"}},
		},
		"status": map[string]any{"operationState": nil},
	}))
}

// fails waits until Argo CD says words of a sync to a revision that has failed. While one runs, it says nothing of gates.
func (a *application) fails(t *testing.T, revision, words string) (o operation) {
	t.Helper()
	a.wait(t, "Argo CD says why "+revision+" failed", 2*patience, func() (bool, string) {
		s := a.stands(t)
		if s.Operation != nil || s.Status.OperationState == nil {
			if o := s.Status.OperationState; o != nil && strings.Contains(o.Message, "backstay gate") {
				t.Errorf("of a sync that is %s Argo CD says %q", o.Phase, o.Message)
			}
			return false, s.String()
		}
		o = *s.Status.OperationState
		return o.Phase == "Failed" && o.SyncResult.Revision == revision && strings.Contains(o.Message, words), s.String()
	})
	return o
}

// inside is the environment of scripts whose kubectl is in the cluster's network, as its administrator.
func (c *cluster) inside(t *testing.T) []string {
	t.Helper()
	bin := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter -t %s -n %s \"$@\"\n", c.node, filepath.Join(c.dir, "programs", "kubectl"))
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(c.dir, "kubeconfig", "admin")}
}

// snapshotTime is what a snapshot takes on the test cluster.
const snapshotTime = 2 * time.Second
