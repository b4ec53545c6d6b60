//go:build e2e && long

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
)

// forget has Argo CD start anew without its copies of repositories and what it made of them.
func (a *argo) forget(t *testing.T) {
	t.Helper()
	for _, what := range []string{"down", "up"} {
		cmd := exec.CommandContext(t.Context(), "../cluster/argo.sh", what, a.cluster.name)
		cmd.Env = append(os.Environ(), "ARGOCD_SYNC_WAVE_DELAY=0")
		if r := finish(t, cmd); r.exit != 0 {
			t.Fatalf("argo.sh %s: exit %d\n%s%s", what, r.exit, r.stdout, r.stderr)
		}
		if what == "down" {
			if err := os.RemoveAll(filepath.Join(a.dir, "argo", "tmp")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// rewrite makes a commit without parents of what there is and some files, in the place of all history, at the forge too.
func (r *repository) rewrite(t *testing.T, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		write(t, r.work, name, text)
	}
	git(t, r.work, "checkout", "--quiet", "--orphan", "rewritten")
	git(t, r.work, "add", "--all")
	git(t, r.work, "commit", "--quiet", "-m", "all there is")
	git(t, r.work, "branch", "--quiet", "--move", "--force", "rewritten", "main")
	git(t, r.work, "push", "--quiet", "--force", "origin", "main")
	git(t, r.bare, "gc", "--quiet", "--prune=now")
	return r.head(t)
}

// fromPoint rolls back to what only the point has any more.
func (s *shop) fromPoint(t *testing.T) *v1alpha1.Restore {
	t.Helper()
	said := s.installed.backstay(t, "rollback", s.name, "--to", s.good[:7], "--yes")
	t.Log(said)
	r := s.rolled(t)
	if got := s.data(t); got != "one, rows" || !r.Status.GitOps.FromPoint || !strings.Contains(said, "the configuration came out of the point") {
		t.Fatalf("after the rollback: %s, %+v", got, r.Status.GitOps)
	}
	s.asItWas(t)
	return r
}

// TestClusterRollbackFromPoint rolls back to a revision that neither git nor Argo CD has: the point alone holds it.
func TestClusterRollbackFromPoint(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	a := c.argo(t)
	o := applicationOptions{automated: true, selfHeal: true, prune: true}

	t.Run("rewritten", func(t *testing.T) { // what git had is known from the copy in the point
		s := newShop(t, i, a, "rewritten", o)
		s.bad = s.rewrite(t, below("shop", shopFiles("four", migration)))
		s.deployed(t, s.bad, true)
		a.forget(t)
		r := s.fromPoint(t)
		if want := "git still has shop/settings.yaml, shop/shop.yaml as in " + s.bad[:7]; !strings.Contains(r.Status.GitOps.Held, want) {
			t.Errorf("held: %q, want %q", r.Status.GitOps.Held, want)
		}
		if r := i.run(t, "rollback", s.name, "--release"); r.exit != 6 || !strings.Contains(r.stderr, "git still has shop/settings.yaml") {
			t.Errorf("released though git was not mended: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
		}
		mended := s.commit(t, "mended", below("shop", shopFiles("five", mendedMigration)))
		s.refresh(t)
		s.released(t, "mended")
		s.well(t, mended)
		if got := s.data(t); got != "five, rows" {
			t.Errorf("after it was mended: %s", got)
		}
		s.asItWas(t)
	})

	t.Run("gone", func(t *testing.T) {
		s := newShop(t, i, a, "gone", o)
		s.lose(t)
		a.forget(t)
		r := s.fromPoint(t)
		if held := r.Status.GitOps.Held; !strings.Contains(held, "git cannot be read") {
			t.Errorf("held: %q", held)
		}
		undone := i.run(t, "restore", "app/"+s.namespace, "--undo", r.Name, "--yes")
		t.Logf("%s%s", undone.stdout, undone.stderr)
		s.kubectl(t, "-n", s.namespace, "rollout", "status", "--timeout=60s", "deployment/shop") // nobody waits for what Argo CD cannot compare
		if got := s.data(t); undone.exit != 3 || got != "one, no rows" || !strings.Contains(undone.stdout+undone.stderr, "what was live is not deployed again") {
			t.Errorf("undone without git: exit %d, %s", undone.exit, got)
		}
		s.released(t, "undone")
		git(t, a.forgeDir, "init", "--quiet", "--bare", "--initial-branch=main", s.bare)
		git(t, s.work, "push", "--quiet", "origin", "main")
		s.refresh(t)
		s.seen(t, s.bad)
		s.sync(t, s.bad) // a revision that could not be deployed is not tried again by Argo CD itself
		s.well(t, s.bad)
		if got := s.data(t); got != "two, no rows" {
			t.Errorf("with git back: %s", got)
		}
		s.asItWas(t)
	})
}

// TestClusterRollbackUndone takes a rollback back: volumes, revision and syncs are as before it.
func TestClusterRollbackUndone(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	s := newShop(t, i, c.argo(t), "undone", applicationOptions{automated: true, selfHeal: true, prune: true})
	t.Log(i.backstay(t, "rollback", s.name, "--to", s.good[:7], "--yes"))
	if got := s.data(t); got != "one, rows" {
		t.Fatalf("after the rollback: %s", got)
	}
	r := s.rolled(t)
	said := i.backstay(t, "restore", "app/"+s.namespace, "--undo", r.Name, "--yes")
	t.Log(said)
	if want := "what was there before is back after "; !strings.Contains(said, want) || !strings.Contains(said, s.bad[:7]+" is live") {
		t.Errorf("it does not say %q", want)
	}
	if got := s.data(t); got != "two, no rows" {
		t.Errorf("after the undo: %s", got)
	}
	s.released(t, "undone")
	s.asItWas(t)
	s.calm(t, s.bad)
	// The rollback's point is still there, and what was undone can be done.
	i.backstay(t, "rollback", s.name, "--to", s.good[:7], "--yes")
	if got := s.data(t); got != "one, rows" {
		t.Errorf("rolled back again: %s", got)
	}
}
