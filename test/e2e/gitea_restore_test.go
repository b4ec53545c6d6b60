//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// What is read of a real Gitea comes back on another one by its API. Whatever differs stands in the plan.
func TestGiteaRestoreMetadata(t *testing.T) {
	from := startGitea(t)
	from.people(t)
	from.populate(t, "alpha/api")
	source, header := from.metadata(t, "alpha/api")
	to := startGitea(t)
	to.organisation(t, "alpha")
	mirror := filepath.Join(t.TempDir(), "api.git")
	gitEnv(t, from.gitEnv(), t.TempDir(), "clone", "-q", "--mirror", from.url+"/alpha/api.git", mirror)
	p := to.provider(t)
	plan, err := forge.PlanMetadata(t.Context(), source, p.Target().Keeps())
	if err != nil {
		t.Fatal(err)
	}
	keeps := neutral.Fidelity{}
	for _, line := range plan.Lines {
		t.Log(line)
		keeps[line.Field] = neutral.Fate{State: line.State, How: line.How}
	}

	back := to.restored(t, "api", mirror, source, header.Host)
	compareMetadata(t, source, back, keeps, from.url, to.url)
	// What was restored is restored once more: it is still by those who wrote it first.
	again := to.restored(t, "again", mirror, back, p.Host())
	compareMetadata(t, source, again, keeps, from.url, to.url)
}

// restored makes a repository, restores what is of alpha/api into it, twice, and reads it again.
func (g *gitea) restored(t *testing.T, name, mirror string, from neutral.Source, host string) neutral.Source {
	t.Helper()
	g.call(t, http.MethodPost, "/orgs/alpha/repos", map[string]any{"name": name, "private": false, "default_branch": "main"}, nil)
	gitEnv(t, g.gitEnv(), mirror, "push", "-q", g.url+"/alpha/"+name+".git", "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
	p := g.provider(t)
	r, err := p.Find(t.Context(), forge.Repository{Owner: "alpha", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	r.Empty = false
	for _, most := range []int64{1000, 1} { // the settings are written each time
		report, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
			From: from, Host: host, Repository: "alpha/api", Target: p.Target(), To: r,
		})
		if err != nil || report.Written > most {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	back, _ := g.metadata(t, "alpha/"+name)
	return back
}

// By the commands: an organisation is backed up with its metadata, and restored on a fresh server after what the plan says.
func TestGiteaOrganisationComesBackWithItsMetadata(t *testing.T) {
	from := startGitea(t)
	from.people(t)
	from.populate(t, "alpha/api")
	source, _ := from.metadata(t, "alpha/api")
	to := startGitea(t)
	to.organisation(t, "alpha") // one that the restore made would be private, and so would be what is in it
	b := newBackstay(t)
	access := func(g *gitea) []string {
		token := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(token, []byte(g.token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"--forge", "gitea", "--git-token-file", token, "--ca-file", g.ca}
	}
	b.ok(t, append([]string{"backup", "--organization", "alpha", "--metadata", from.url}, access(from)...)...)
	restore := append([]string{"restore", "latest", "--to", to.url, "--metadata", "--visibility", "public"}, access(to)...)

	var planned struct {
		Parts []struct {
			Part string             `json:"part"`
			Plan forge.MetadataPlan `json:"plan"`
		} `json:"parts"`
	}
	decode(t, b.ok(t, append(restore, "--plan", "--json")...), &planned)
	if len(planned.Parts) != 1 || planned.Parts[0].Plan.Counts["issue"] != 55 {
		t.Fatalf("the plan is of %+v", planned)
	}
	keeps := neutral.Fidelity{}
	for _, line := range planned.Parts[0].Plan.Lines {
		keeps[line.Field] = neutral.Fate{State: line.State, How: line.How}
	}
	for _, writes := range []int64{40, 90} {
		to.killAfter(t, b, writes, restore)
	}
	b.ok(t, restore...)
	back, _ := to.metadata(t, "alpha/api")
	compareMetadata(t, source, back, keeps, from.url, to.url)
	if again := b.ok(t, restore...); !strings.Contains(again, "1 written") { // the settings
		t.Errorf("run again, it says %s", again)
	}
}

// killAfter runs a command, and kills it at a write to the server.
func (g *gitea) killAfter(t *testing.T, b *backstay, writes int64, args []string) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	var n atomic.Int64
	watch := func(r *http.Request) {
		if r.Method != http.MethodGet && strings.HasPrefix(r.URL.Path, "/api/") && n.Add(1) == writes {
			kill()
		}
	}
	g.watch.Store(&watch)
	defer g.watch.Store(nil)
	if err := b.command(ctx, args...).Run(); err == nil {
		t.Fatalf("it was to be killed at write %d, and made %d", writes, n.Load())
	}
}
