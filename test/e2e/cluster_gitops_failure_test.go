//go:build e2e && long

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// failureFiles are a gated application whose migration deletes the rows and fails, with what the application runs then.
const failureFiles = `
apiVersion: batch/v1
kind: Job
metadata:
  name: migration
  annotations: {argocd.argoproj.io/hook: PreSync, argocd.argoproj.io/sync-wave: "2", argocd.argoproj.io/hook-delete-policy: BeforeHookCreation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: migration
          image: lab.local/mariadb:10.11
          imagePullPolicy: Never
          command: [sh, -c, "rm -f /data/rows; sync; exit 1"]
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: batch/v1
kind: Job
metadata:
  name: on-failure
  annotations: {argocd.argoproj.io/hook: SyncFail, argocd.argoproj.io/hook-delete-policy: BeforeHookCreation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: told, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sh, -c, "echo the sync failed"]}
`

const failurePolicy = `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: failing, namespace: backstay-system}
spec:
  location: main
  suspend: true
  sources: [{applications: {argocd: [%s]}}]
  gitops: {%s}
`

// newGated deploys an application with a gate and rows.
func newGated(t *testing.T, i *installed, a *argo, name, settings string, o applicationOptions) *application {
	t.Helper()
	a.apply(t, system, fmt.Sprintf(failurePolicy, name, settings))
	app := a.newApplication(t, name, gatedFiles(t, "one"), o)
	if first := app.head(t); o.automated {
		app.well(t, first)
	} else {
		app.sync(t, first)
		app.well(t, first)
	}
	return app
}

// rows writes or reads what is in the volume.
func (a *application) rows(t *testing.T, script string) string {
	t.Helper()
	return strings.TrimSpace(a.exec(t, a.namespace, "deployment/web", "sh", "-c", script))
}

// TestClusterAfterFailure: a migration deletes rows and fails. A policy has the rollback planned; then it has it done.
func TestClusterAfterFailure(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	app := newGated(t, i, a, "failing", "afterFailure: Propose", applicationOptions{automated: true, selfHeal: true, prune: true})
	good := app.head(t)
	app.rows(t, "echo rows > /data/rows; sync")
	bad := app.commit(t, "bad", map[string]string{"migration.yaml": failureFiles})

	fails := func() *v1alpha1.Restore {
		t.Helper()
		app.seen(t, bad)
		app.sync(t, bad)
		if o := app.ended(t, bad); o.Phase != "Failed" {
			t.Fatalf("the sync is %s: %s", o.Phase, o.Message)
		}
		app.kubectl(t, "-n", app.namespace, "wait", "--for=condition=Complete", "--timeout=60s", "job/on-failure")
		return app.answered(t, bad)
	}
	r := fails()
	if s := r.Status; !r.Spec.PlanOnly || s.Phase != v1alpha1.PhasePlanned || s.Plan == nil || s.Plan.Volumes != 1 {
		t.Errorf("proposed: %+v of %+v", s, r.Spec)
	}
	if got := app.rows(t, "cat /data/rows || echo none"); got != "none" {
		t.Errorf("planned, and the rows are %q", got)
	}
	said := c.kubectl(t, "-n", argoNamespace, "get", "events", "--field-selector", "involvedObject.name=failing,reason=SyncFailed", "-o", "jsonpath={.items[*].message}")
	if !strings.Contains(said, "may be rolled back as planned by Restore "+system+"/"+r.Name) {
		t.Errorf("events say %q", said)
	}

	app.rows(t, "echo more > /data/rows; sync")
	a.apply(t, system, fmt.Sprintf(failurePolicy, "failing", "afterFailure: RollBack"))
	r = fails()
	j := r.Status.GitOps
	if r.Status.Phase != v1alpha1.PhaseComplete || j == nil || !slices.Equal(j.RolledBack, []string{bad}) || !slices.Equal(j.To, []string{good}) || j.Held == "" {
		t.Fatalf("rolled back: %s %q, %+v", r.Status.Phase, r.Status.Problems, j)
	}
	if got := app.rows(t, "cat /data/rows || echo none"); got != "more" {
		t.Errorf("after the rollback the rows are %q", got)
	}
	app.calm(t, bad) // of hooks Argo CD takes no notice

	good = app.commit(t, "mended", map[string]string{"migration.yaml": strings.Replace(failureFiles, "rm -f /data/rows; sync; exit 1", "cp /data/rows /data/copy", 1)})
	app.refresh(t)
	app.wait(t, "syncs go on again", patience, func() (bool, string) {
		err := a.api.Get(t.Context(), client.ObjectKeyFromObject(r), r)
		return err == nil && r.Status.GitOps.Held == "" && r.Status.GitOps.Resumed != nil, fmt.Sprintf("%v, %+v", err, r.Status.GitOps)
	})
	app.sync(t, good)
	app.well(t, good)
	if got := app.rows(t, "cat /data/copy"); got != "more" {
		t.Errorf("after the migration that was mended the rows are %q", got)
	}
}

// answered waits for the Restore that the last sync's failure was answered with, until it has ended.
func (a *application) answered(t *testing.T, to string) *v1alpha1.Restore {
	t.Helper()
	started := a.stands(t).Status.OperationState.StartedAt
	r := &v1alpha1.Restore{}
	a.wait(t, "the failure is answered", 2*patience, func() (bool, string) {
		var all v1alpha1.GateList
		if err := a.api.List(t.Context(), &all, client.InNamespace(a.namespace)); err != nil {
			return false, err.Error()
		}
		i := slices.IndexFunc(all.Items, func(g v1alpha1.Gate) bool {
			s := g.Status.Sync
			return s != nil && slices.Equal(s.To, []string{to}) && s.Started != nil && s.Started.Time.Equal(started)
		})
		if i < 0 || all.Items[i].Status.Restore == "" {
			return false, fmt.Sprintf("no gate of the sync that began %s names a Restore: %+v", started, all.Items)
		}
		err := a.api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: all.Items[i].Status.Restore}, r)
		return err == nil && r.Status.Phase.Final(), fmt.Sprintf("%v, %s %q, %+v", err, r.Status.Phase, r.Status.Problems, r.Status.GitOps)
	})
	return r
}

// TestClusterHookThatCannotStart: the gate's image does not exist. That is told while the sync waits, and ends it at the deadline.
func TestClusterHookThatCannotStart(t *testing.T) {
	const deadline = 40 * time.Second
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	app := newGated(t, i, a, "stuck", "deadline: "+deadline.String(), applicationOptions{})
	stuck := app.commit(t, "stuck", map[string]string{
		"gate.yaml":     strings.ReplaceAll(gateOf(t), backstayImage, "lab.local/nothing:none"),
		"settings.yaml": gatedFiles(t, "two")["settings.yaml"],
	})
	app.seen(t, stuck)
	app.sync(t, stuck)
	began := time.Now()
	events := func() string {
		return c.kubectl(t, "-n", argoNamespace, "get", "events", "--field-selector", "involvedObject.name=stuck,reason="+v1alpha1.GateNotStarted, "-o", "jsonpath={.items[*].message}")
	}
	app.wait(t, "it is told", patience, func() (bool, string) { said := events(); return said != "", app.stands(t).String() })
	told := time.Since(began)
	if said := events(); told > deadline-5*time.Second || !strings.Contains(said, "the pod of hook stuck/backstay-gate does not start: ") ||
		!strings.Contains(said, "lab.local/nothing:none") || !strings.Contains(said, "the sync fails when "+deadline.String()+" are over") {
		t.Errorf("after %v it is told: %s", told, said)
	}
	o := app.ended(t, stuck)
	took := o.FinishedAt.Sub(o.StartedAt)
	says := c.kubectl(t, "-n", argoNamespace, "get", "application", "stuck", "-o", `jsonpath={.status.operationState.syncResult.resources[?(@.name=="backstay-gate")].message}`)
	t.Logf("told after %v; the sync was %s after %v: %s; of the hook it says %s", told.Round(time.Second), o.Phase, took, o.Message, says)
	if o.Phase != "Failed" || took < deadline || took > deadline+30*time.Second || !strings.HasPrefix(says, "backstay: the pod of hook stuck/backstay-gate does not start: ") {
		t.Errorf("it was %s after %v, and says %q", o.Phase, took, says)
	}
	app.wait(t, "it is recorded", patience, func() (bool, string) {
		var all v1alpha1.GateList
		if err := a.api.List(t.Context(), &all, client.InNamespace(app.namespace)); err != nil {
			return false, err.Error()
		}
		return slices.ContainsFunc(all.Items, func(g v1alpha1.Gate) bool {
			return g.Status.Phase == v1alpha1.GateClosed && g.Status.Reason == v1alpha1.GateNotStarted && slices.Equal(g.Status.Sync.To, []string{stuck})
		}), fmt.Sprintf("%+v", all.Items)
	})
	if got := app.settings(t); got != "one" {
		t.Errorf("settings are %q though no gate was passed", got)
	}
	mended := app.commit(t, "mended", map[string]string{"gate.yaml": gateOf(t)})
	app.seen(t, mended)
	app.sync(t, mended)
	app.well(t, mended)
	if got := app.settings(t); got != "two" {
		t.Errorf("with its gate back settings are %q", got)
	}
}
