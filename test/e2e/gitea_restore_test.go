//go:build e2e

package e2e

import (
	"net/http"
	"path/filepath"
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
	to.call(t, http.MethodPost, "/orgs/alpha/repos", map[string]any{"name": "api", "private": false, "default_branch": "main"}, nil)
	mirror := filepath.Join(t.TempDir(), "api.git")
	gitEnv(t, from.gitEnv(), t.TempDir(), "clone", "-q", "--mirror", from.url+"/alpha/api.git", mirror)
	gitEnv(t, to.gitEnv(), mirror, "push", "-q", to.url+"/alpha/api.git", "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")

	p := to.provider(t)
	r, err := p.Find(t.Context(), forge.Repository{Owner: "alpha", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	r.Empty = false
	restore := func() *forge.MetadataRestored {
		report, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
			From: source, Host: header.Host, Repository: "alpha/api", Target: p.Target(), To: r,
		})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	t.Logf("restored %+v with %d requests", restore(), p.Requests())
	back, _ := to.metadata(t, "alpha/api")
	plan, err := forge.PlanMetadata(t.Context(), source, p.Target().Keeps())
	if err != nil {
		t.Fatal(err)
	}
	keeps := neutral.Fidelity{}
	for _, line := range plan.Lines {
		t.Log(line)
		keeps[line.Field] = neutral.Fate{State: line.State, How: line.How}
	}
	compareMetadata(t, source, back, keeps, from.url, to.url)
	if again := restore(); again.Written > 1 { // the settings
		t.Errorf("run again, it wrote %d things", again.Written)
	}
}
