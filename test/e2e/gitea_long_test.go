//go:build e2e && long

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// TestLargeGiteaComesBack takes two organisations with 500 issues and 2,000 comments from a server that is wiped then, by the API and
// by restore-repo. Whatever differs stands in what was printed before.
func TestLargeGiteaComesBack(t *testing.T) {
	from := startGitea(t)
	from.people(t)
	repositories := []string{"alpha/api", "beta/lib"}
	large := make([]string, len(repositories)) // LFS objects
	filled := t.Run("fill", func(t *testing.T) {
		for i, name := range repositories {
			t.Run(filepath.Base(name), func(t *testing.T) {
				t.Parallel()
				from.populateWith(t, name, 250, 1000)
				large[i] = from.pushLarge(t, name)
			})
		}
	})
	if !filled {
		return
	}
	b := newBackstay(t)
	for _, name := range repositories {
		owner, _, _ := strings.Cut(name, "/")
		b.patient(t, append([]string{"backup", "--organization", owner, "--metadata", from.url}, from.access(t)...)...)
	}
	points := b.points(t) // the newest first
	was := map[string]remembered{}
	for _, name := range repositories {
		was[name] = from.remember(t, name)
	}
	from.wipe(t)

	t.Run("by the API", func(t *testing.T) {
		to := startGitea(t)
		for i, name := range repositories {
			owner, _, _ := strings.Cut(name, "/")
			to.organisation(t, owner)
			restore := append([]string{"restore", points[len(points)-1-i], "--to", to.url, "--metadata", "--visibility", "public"}, to.access(t)...)
			keeps, counts := planned(t, b, restore)
			if counts["issue"] != 250 || counts["comment"] < 1000 || counts["pull"] != 4 {
				t.Errorf("the plan of %s is of %v", name, counts)
			}
			b.patient(t, restore...)
			back, _ := to.metadata(t, name)
			compareMetadata(t, was[name].Source, back, keeps, from.url, to.url)
			if got := to.remoteRefs(t, name+".wiki.git", "HEAD"); got != was[name].wiki {
				t.Errorf("the wiki of %s is at %s, want %s", name, got, was[name].wiki)
			}
			if n := to.offered(t, to.url+"/"+name+".git", []string{large[i]}); n != 1 {
				t.Errorf("%s offers no LFS object %s", name, large[i])
			}
		}
	})
	t.Run("by restore-repo", func(t *testing.T) {
		to := startGitea(t)
		to.people(t)
		for i, name := range repositories {
			dump := filepath.Join(t.TempDir(), "dump")
			said := b.patient(t, "restore", points[len(points)-1-i], "--format", "gitea-restore-repo", "--to", dump, "--site", to.url)
			keeps := printed(t, said)
			to.restoreRepo(t, dump, name, was[name], keeps)
			found, _ := filepath.Glob(filepath.Join(dump, was[name].Host, filepath.FromSlash(name), "git", "lfs", "objects", "*", "*", large[i]))
			if len(found) != 1 {
				t.Errorf("LFS object %s of %s is not in the dump", large[i], name)
			}
		}
	})
}

// pushLarge adds a file that Git LFS has to main, and returns its id.
func (g *gitea) pushLarge(t *testing.T, name string) string {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	gitEnv(t, g.gitEnv(), t.TempDir(), "clone", "--quiet", g.url+"/"+name+".git", work)
	git(t, work, "lfs", "install", "--local")
	git(t, work, "lfs", "track", "*.bin")
	content := strings.Repeat(name+"\n", 1000)
	write(t, work, "large.bin", content)
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "a large file")
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", "origin", "main")
	return sha256Hex(content)
}

// access is how commands reach the server.
func (g *gitea) access(t *testing.T) []string {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(g.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--forge", "gitea", "--git-token-file", token, "--ca-file", g.ca}
}

// planned is what the plan of a restore of one repository says.
func planned(t *testing.T, b *backstay, restore []string) (neutral.Fidelity, map[string]int64) {
	t.Helper()
	var plan struct {
		Parts []struct {
			Plan forge.MetadataPlan `json:"plan"`
		} `json:"parts"`
	}
	decode(t, b.ok(t, append(restore, "--plan", "--json")...), &plan)
	if len(plan.Parts) != 1 {
		t.Fatalf("the plan is of %d repositories", len(plan.Parts))
	}
	keeps := neutral.Fidelity{}
	for _, line := range plan.Parts[0].Plan.Lines {
		keeps[line.Field] = neutral.Fate{State: line.State, How: line.How}
	}
	return keeps, plan.Parts[0].Plan.Counts
}
