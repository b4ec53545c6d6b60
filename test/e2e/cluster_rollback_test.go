//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// shop is an application that Argo CD deploys, with rows in a volume that a bad revision deletes when it starts.
type shop struct {
	*application
	installed *installed
	good, bad string // revisions
	spec      string // of the Application
}

// shopFiles are those of a revision: what runs before the application itself starts.
func shopFiles(version, migration string) map[string]string {
	return map[string]string{
		"claim.yaml": `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
`,
		"settings.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {version: " + version + "}}\n",
		"shop.yaml": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers:
        - {name: migrate, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sh, -c, "` + migration + `"], volumeMounts: [{name: data, mountPath: /data}]}
      containers:
        - {name: shop, image: "lab.local/mariadb:10.11", imagePullPolicy: Never, command: [sleep, infinity], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`,
	}
}

const (
	harmless        = "true"
	migration       = "rm -f /data/rows"
	mendedMigration = "echo mended"
)

// newShop deploys a shop, makes a point of it, and then has the bad revision deployed.
func newShop(t *testing.T, i *installed, a *argo, name string, o applicationOptions) *shop {
	t.Helper()
	s := &shop{installed: i}
	o.path = "shop"
	s.application = a.newApplication(t, name, below("shop", shopFiles("one", harmless)), o)
	s.good = s.head(t)
	s.deployed(t, s.good, o.automated)
	s.exec(t, s.namespace, "deployment/shop", "sh", "-c", "echo rows > /data/rows; sync")
	i.backstay(t, "backup", "app/"+s.namespace)
	s.spec = s.specText(t)
	s.bad = s.commit(t, "bad", below("shop", shopFiles("two", migration)))
	s.deployed(t, s.bad, o.automated)
	if got := s.data(t); got != "two, no rows" {
		t.Fatalf("after the bad revision: %s", got)
	}
	return s
}

func below(dir string, files map[string]string) map[string]string {
	all := map[string]string{}
	for name, text := range files {
		all[dir+"/"+name] = text
	}
	return all
}

// deployed waits until a revision runs.
func (s *shop) deployed(t *testing.T, revision string, automated bool) {
	t.Helper()
	s.wait(t, s.name+" is there", patience, func() (bool, string) { is := s.stands(t); return is.Spec != nil, is.String() }) // a parent makes it
	s.refresh(t)
	if !automated {
		s.sync(t, revision)
	}
	s.well(t, revision)
}

// data is the configuration and what is in the volume.
func (s *shop) data(t *testing.T) string {
	t.Helper()
	version := s.kubectl(t, "-n", s.namespace, "get", "configmap", "settings", "--ignore-not-found", "-o", "jsonpath={.data.version}")
	rows := strings.TrimSpace(s.exec(t, s.namespace, "deployment/shop", "sh", "-c", "cat /data/rows 2>/dev/null || echo no rows"))
	return version + ", " + rows
}

// specText is the Application's spec, byte for byte.
func (s *shop) specText(t *testing.T) string {
	t.Helper()
	var spec strings.Builder
	if err := json.NewEncoder(&spec).Encode(s.stands(t).Spec); err != nil {
		t.Fatal(err)
	}
	return spec.String()
}

// rolled is the Restore that was made last.
func (s *shop) rolled(t *testing.T) *v1alpha1.Restore {
	t.Helper()
	var all v1alpha1.RestoreList
	if err := s.api.List(t.Context(), &all, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	var last *v1alpha1.Restore
	for i := range all.Items {
		r := &all.Items[i]
		if r.Spec.PlanOnly || r.Status.GitOps == nil || r.Status.GitOps.Deployment != "argocd/argocd/"+s.name {
			continue
		}
		if last == nil || last.CreationTimestamp.Before(&r.CreationTimestamp) {
			last = r
		}
	}
	if last == nil {
		t.Fatal("there is no Restore of " + s.name)
	}
	return last
}

// asItWas fails where the Application is another than it was.
func (s *shop) asItWas(t *testing.T) {
	t.Helper()
	if now := s.specText(t); now != s.spec {
		t.Errorf("the Application is\n%s, was\n%s", now, s.spec)
	}
}

// windows are the sync windows of the project.
func (s *shop) windows(t *testing.T) string {
	t.Helper()
	return s.kubectl(t, "-n", argoNamespace, "get", "appproject", "default", "-o", "jsonpath={.spec.syncWindows}")
}

// released waits until syncs go on again.
func (s *shop) released(t *testing.T, why string) {
	t.Helper()
	s.wait(t, "syncs go on again: "+why, patience, func() (bool, string) {
		j := s.rolled(t).Status.GitOps
		return j.Held == "" && j.Resumed != nil && s.windows(t) == "", j.Held + " " + s.windows(t)
	})
}

// TestClusterRollback rolls an application back whose bad revision deleted its rows, while workers are killed; reverts it in git; and has
// syncs go on by themselves.
func TestClusterRollback(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	s := newShop(t, i, c.argo(t), "shop", applicationOptions{automated: true, selfHeal: true, prune: true})
	if plan := i.backstay(t, "rollback", "shop", "--to", s.good[:7], "--plan"); !strings.Contains(plan, s.good[:7]+", where "+s.bad[:7]+" is live") {
		t.Errorf("the plan says\n%s", plan)
	}
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		s.killWorkers(t, v1alpha1.PhaseSuspending, v1alpha1.PhaseSyncing)
	}()
	began := time.Now()
	said := i.backstay(t, "rollback", "argocd/shop", "--to", s.good[:7], "--yes", "--revert")
	t.Logf("%.0f s:\n%s", time.Since(began).Seconds(), said)
	<-killed
	for _, want := range []string{"rows and configuration of " + s.good[:7] + " are back after ", "held off: git still has shop/settings.yaml, shop/shop.yaml as in " + s.bad[:7], "backstay/revert-" + s.bad[:7]} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	s.asItWas(t)
	if got := s.data(t); got != "one, rows" {
		t.Fatalf("after the rollback: %s", got)
	}
	if r := i.run(t, "rollback", "shop", "--release"); r.exit != 6 {
		t.Errorf("released though git was not mended: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
	}
	git(t, s.work, "fetch", "--quiet", "origin")
	git(t, s.work, "merge", "--quiet", "--ff-only", "origin/backstay/revert-"+s.bad[:7])
	git(t, s.work, "push", "--quiet", "origin", "main")
	s.refresh(t)
	s.released(t, "reverted")
	s.well(t, s.head(t))
	if got := s.data(t); got != "one, rows" {
		t.Fatalf("after syncs went on: %s", got)
	}
	s.asItWas(t)
}

// killWorkers kills the pod of the Restore's worker once in each phase, in which it may not be seen.
func (s *shop) killWorkers(t *testing.T, phases ...v1alpha1.Phase) {
	for end := time.Now().Add(patience); len(phases) > 0 && time.Now().Before(end) && t.Context().Err() == nil; time.Sleep(30 * time.Millisecond) {
		var all v1alpha1.RestoreList
		if s.api.List(t.Context(), &all, client.InNamespace(system)) != nil {
			continue
		}
		for _, r := range all.Items {
			switch {
			case r.Spec.PlanOnly:
			case r.Status.Phase == v1alpha1.PhaseComplete:
				return
			case r.Status.Phase == phases[0]:
				if r := s.try(t, "", "-n", system, "delete", "pods", "-l", "app.kubernetes.io/component=worker,job-name="+r.Status.Job, "--force", "--grace-period=0"); r.exit == 0 {
					phases = phases[1:]
				}
			}
		}
	}
}
