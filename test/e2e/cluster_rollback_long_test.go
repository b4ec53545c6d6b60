//go:build e2e && long

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// rollbackWork is a rollback of a shop, with all its phases.
func rollbackWork(s *shop, name string) work {
	r := &v1alpha1.Restore{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: system},
		Spec: v1alpha1.RestoreSpec{
			Latest: &v1alpha1.LatestPoint{Location: "main", Application: s.namespace, Revision: s.good}, GitOps: &v1alpha1.Transaction{}, KeepOld: "0s",
		},
	}
	return work{
		r, func() (v1alpha1.Phase, string, []string) { return r.Status.Phase, r.Status.Job, r.Status.Problems },
		[]v1alpha1.Phase{
			v1alpha1.PhasePending, v1alpha1.PhasePlanning, v1alpha1.PhaseSuspending, v1alpha1.PhaseMoving, v1alpha1.PhaseSwapping,
			v1alpha1.PhaseSyncing, v1alpha1.PhaseWaiting,
		},
	}
}

// TestClusterRollbackKilledInEveryPhase kills what takes part in a rollback, in each of its phases: it is done, or undone, and the Application is
// as it was.
func TestClusterRollbackKilledInEveryPhase(t *testing.T) {
	cl := startCluster(t, "backstay")
	i := install(t, cl, t.TempDir())
	c := &crashes{installed: i, api: cl.connect(t).Client}
	s := newShop(t, i, cl.argo(t), "shop", applicationOptions{automated: true, selfHeal: true, prune: true})
	later := []v1alpha1.Phase{v1alpha1.PhaseSuspending, v1alpha1.PhaseSwapping, v1alpha1.PhaseSyncing, v1alpha1.PhaseWaiting}
	for _, v := range []victim{
		{name: "worker", kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.workers()) }},
		{name: "controller", kill: killController},
		{name: "apiserver", kill: func(t *testing.T, c *crashes, _ work) bool { c.kill(t, "kube-apiserver"); return true }},
		{name: "job", fatal: true, kill: func(t *testing.T, c *crashes, w work) bool { return c.removeJob(t, w) }},
		{name: "workers", only: later, always: true, kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.workers()) }},
	} {
		for _, at := range rollbackWork(s, "").phases {
			works := v.name == "controller" || v.name == "apiserver" || at != v1alpha1.PhasePending // else there is nothing to kill yet
			if !works || len(v.only) > 0 && !slices.Contains(v.only, at) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", v.name, at), func(t *testing.T) {
				const tries = 10 // to see a phase that may be over before anybody looks
				for try := range tries {
					if s.crash(t, c, fmt.Sprintf("%s-%s-%d", v.name, at, try), at, v) {
						return
					}
				}
				t.Errorf("it was never seen in %s with a %s", at, v.name)
			})
		}
	}
}

// crash strikes a victim in a phase of a rollback, and has the bad revision deployed again afterwards. It reports whether it saw the phase.
func (s *shop) crash(t *testing.T, c *crashes, name string, at v1alpha1.Phase, v victim) (struck bool) {
	t.Helper()
	w, volumes := rollbackWork(s, strings.ToLower(name)), c.volumesOf(t, s.namespace)
	began := time.Now()
	struck = c.strike(t, w, at, v)
	phase, _, problems := w.status()
	t.Logf("killed: %v; %s after %.0f s %q", struck, phase, time.Since(began).Seconds(), problems)
	r, _ := w.object.(*v1alpha1.Restore)
	switch phase {
	case v1alpha1.PhaseComplete:
		if got := s.data(t); got != "one, rows" || r.Status.GitOps.Held == "" || s.windows(t) == "" {
			t.Errorf("done, and it is %s; %+v", got, r.Status.GitOps)
		}
		s.asItWas(t)
		s.kubectl(t, "-n", system, "annotate", "restores.backstay.io", r.Name, v1alpha1.AnnotationRelease+"="+v1alpha1.ReleaseForce)
	case v1alpha1.PhaseFailed:
		if !v.always && !v.fatal {
			t.Errorf("it failed: %q", problems)
		}
	default:
		t.Errorf("it ended %s: %q", phase, problems)
	}
	s.wait(t, "syncs go on, and nothing is left of it", 3*time.Minute, func() (bool, string) {
		err := s.api.Get(t.Context(), client.ObjectKeyFromObject(r), r)
		left, windows := c.leftBy(t, string(r.UID)), s.windows(t)
		return err == nil && windows == "" && len(r.Finalizers) == 0 && len(left) == 0, fmt.Sprintf("%v, %s, %+v, %s", err, windows, r.Status.GitOps, left)
	})
	if kept := slices.Equal(c.volumesOf(t, s.namespace), volumes); kept != (phase == v1alpha1.PhaseFailed) {
		t.Errorf("%s, and the volumes are those that were there: %v", phase, kept)
	}
	s.asItWas(t)
	s.well(t, s.bad)
	if got := s.data(t); got != "two, no rows" {
		t.Errorf("as before the rollback: %s", got)
	}
	return struck
}

// TestClusterRollbackHolds rolls back what a parent in git, or an ApplicationSet, would put right, and mends git in different ways.
func TestClusterRollbackHolds(t *testing.T) {
	cl := startCluster(t, "backstay")
	i := install(t, cl, t.TempDir())
	a := cl.argo(t)
	for name, o := range map[string]applicationOptions{
		"parent": {automated: true, selfHeal: true, prune: true, parent: true}, "set": {automated: true, selfHeal: true, prune: true, appset: true},
		"label": {automated: true, selfHeal: true, prune: true, tracking: "label"}, "manual": {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, i, a, name, o)
			said := i.backstay(t, "rollback", name, "--to", s.good[:7], "--yes", "--no-undo-point")
			t.Log(said)
			s.stays(t, 10*time.Second, func() string { return s.data(t) }, "one, rows")
			s.asItWas(t)
			if held := s.rolled(t).Status.GitOps.Held; (held != "") != o.automated {
				t.Fatalf("held: %q", held)
			}
			good := s.commit(t, "mended", below("shop", shopFiles("three", mendedMigration)))
			s.refresh(t)
			if o.automated {
				s.released(t, "mended")
			} else {
				s.seen(t, good)
				s.sync(t, good)
			}
			s.well(t, good)
			if got := s.data(t); got != "three, rows" {
				t.Errorf("after it was mended: %s", got)
			}
			s.asItWas(t)
		})
	}
}

// TestClusterRollbackOfWhatGitHasLost rolls back to a revision whose repository the forge has lost, and undoes that.
func TestClusterRollbackOfWhatGitHasLost(t *testing.T) {
	cl := startCluster(t, "backstay")
	i := install(t, cl, t.TempDir())
	s := newShop(t, i, cl.argo(t), "lost", applicationOptions{automated: true, selfHeal: true, prune: true})
	s.lose(t)
	s.kubectl(t, "-n", argoNamespace, "annotate", "applications.argoproj.io", s.name, "argocd.argoproj.io/refresh=hard")
	said := i.backstay(t, "rollback", "lost", "--to", s.good[:7], "--yes")
	t.Log(said)
	if got := s.data(t); got != "one, rows" {
		t.Errorf("after the rollback: %s", got)
	}
	if j := s.rolled(t).Status.GitOps; j.Held == "" { // Argo CD may have a copy of the revision; what git has now nobody knows
		t.Error("syncs are not held")
	}
	s.asItWas(t)
	i.backstay(t, "rollback", "lost", "--release", "--force")
	s.released(t, "by force")
}

// TestClusterRollbackOfAGigabyte rolls 1 GB back by a snapshot that is on the cluster.
func TestClusterRollbackOfAGigabyte(t *testing.T) {
	cl := startCluster(t, "backstay")
	i := install(t, cl, t.TempDir())
	a := cl.argo(t)
	files := shopFiles("one", harmless)
	files["claim.yaml"] = strings.ReplaceAll(files["claim.yaml"], "16Mi", "2Gi")
	s := &shop{installed: i, application: a.newApplication(t, "gigabyte", files, applicationOptions{automated: true, selfHeal: true, prune: true})}
	s.good = s.head(t)
	s.deployed(t, s.good, true)
	s.exec(t, s.namespace, "deployment/shop", "sh", "-c", "head -c 1000000000 /dev/urandom > /data/base; echo rows > /data/rows; sync")
	i.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: gigabyte}
spec:
  location: main
  sources: [{applications: {namespaces: [gigabyte], volumes: {keepSnapshots: 1}}}]
`)
	i.backstay(t, "backup", "app/gigabyte", "--policy", "gigabyte")
	bad := shopFiles("two", migration)
	s.bad = s.commit(t, "bad", map[string]string{"settings.yaml": bad["settings.yaml"], "shop.yaml": bad["shop.yaml"]})
	s.deployed(t, s.bad, true)
	began := time.Now()
	t.Log(i.backstay(t, "rollback", "gigabyte", "--to", s.good[:7], "--yes"))
	took, err := time.ParseDuration(s.rolled(t).Status.GitOps.Took)
	if err != nil || took > time.Minute {
		t.Errorf("it took %v, %v", took, err)
	}
	t.Logf("RTO %v; with the point of what was there before %v", took, time.Since(began).Round(time.Second))
	if got := s.data(t); got != "one, rows" {
		t.Errorf("after the rollback: %s", got)
	}
}
