//go:build e2e

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// The machine and the forge are gone. Another machine, with nothing but the program, the store and the password, brings the repositories
// back and what their forge knew, by the commands of docs/disaster.md as they stand. TestClusterDisaster loses a cluster, too.
func TestDisaster(t *testing.T) {
	b := newBackstay(t)
	lost := loseForge(t, b)
	store := filepath.Join(t.TempDir(), "store") // what is left
	if err := os.Rename(b.vault, store); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.home); err != nil {
		t.Fatal(err)
	}
	lost.comesBack(t, "VAULT_URL=file://"+store, "VAULT_PASSWORD="+password)
}

// lostForge is what is known of a forge that is gone.
type lostForge struct {
	url        string
	source     neutral.Source // its metadata
	repository string         // a mirror of its repository
}

// loseForge backs up a forge and ends it.
func loseForge(t *testing.T, b *backstay) *lostForge {
	t.Helper()
	g := startGitea(t)
	g.people(t)
	g.populateWith(t, "alpha/api", 7, 9)
	g.call(t, http.MethodPatch, "/repos/alpha/api", map[string]any{"private": true}, nil) // as restores make them
	lost := &lostForge{url: g.url, repository: filepath.Join(t.TempDir(), "api.git")}
	lost.source, _ = g.metadata(t, "alpha/api")
	gitEnv(t, g.gitEnv(), t.TempDir(), "clone", "-q", "--mirror", g.url+"/alpha/api.git", lost.repository)
	token := filepath.Join(b.home, "token")
	if err := os.WriteFile(token, []byte(g.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok(t, "backup", "--organization", "alpha", "--metadata", g.url, "--forge", "gitea", "--git-token-file", token, "--ca-file", g.ca)
	g.wipe(t)
	return lost
}

// comesBack runs the page's commands on a new machine, with a new forge; env says where the store is.
func (lost *lostForge) comesBack(t *testing.T, env ...string) {
	t.Helper()
	const page = "docs/disaster.md"
	home := t.TempDir()
	said := runScript(t, home, home, block(t, page, "sh"), env...)
	if !strings.Contains(said, "\ngood: 1 point") {
		t.Errorf("nothing was verified: %s", said)
	}
	found, err := filepath.Glob(filepath.Join(home, "repositories", "*", "alpha", "api.git"))
	if err != nil || len(found) != 1 {
		t.Fatalf("repositories %q, %v", found, err)
	}
	if fsck := git(t, found[0], "fsck", "--full", "--strict"); strings.Contains(fsck, "missing") {
		t.Errorf("git says %s", fsck)
	}
	same(t, found[0], lost.repository)
	if _, err := os.Stat(filepath.Join(home, "pages", "index.html")); err != nil {
		t.Error(err)
	}

	next := startGitea(t)
	next.organisation(t, "alpha") // one that the restore made would be private
	if err := os.WriteFile(filepath.Join(home, "token"), []byte(next.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := strings.ReplaceAll(block(t, page, "sh forge"), "--git-token-file token", "--git-token-file token --ca-file "+next.ca)
	runScript(t, home, home, trusting, append(env, "NEW_FORGE="+next.url)...)
	back, _ := next.metadata(t, "alpha/api")
	compareMetadata(t, lost.source, back, fidelityOf(t, lost.source, next), lost.url, next.url)
	again := filepath.Join(t.TempDir(), "api.git")
	gitEnv(t, next.gitEnv(), t.TempDir(), "clone", "-q", "--mirror", next.url+"/alpha/api.git", again)
	for _, ref := range []string{"refs/heads/", "refs/tags/"} { // those of pull requests are the forge's own
		if got, want := git(t, again, "for-each-ref", ref), git(t, lost.repository, "for-each-ref", ref); got != want {
			t.Errorf("the new forge has\n%s\nwant\n%s", got, want)
		}
	}
}

// fidelityOf is what a forge keeps of what it is given.
func fidelityOf(t *testing.T, source neutral.Source, to *gitea) neutral.Fidelity {
	t.Helper()
	plan, err := forge.PlanMetadata(t.Context(), source, to.provider(t).Target().Keeps())
	if err != nil {
		t.Fatal(err)
	}
	keeps := neutral.Fidelity{}
	for _, line := range plan.Lines {
		keeps[line.Field] = neutral.Fate{State: line.State, How: line.How}
	}
	return keeps
}
