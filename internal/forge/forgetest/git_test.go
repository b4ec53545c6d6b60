package forgetest_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

func TestGitServesAndCounts(t *testing.T) {
	g := forgetest.NewGit(t, "")
	g.Commit(t, "acme/api", "README.md", "one")
	g.Commit(t, "acme/api", "README.md", "two")
	g.Create(t, "acme/empty")
	refs := func(name string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "git", "-c", "protocol.version=2", "ls-remote", g.URL+"/"+name+".git").CombinedOutput()
		return string(out), err
	}
	if out, err := refs("acme/api"); err != nil || !strings.Contains(out, g.Head(t, "acme/api")+"\trefs/heads/main") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := refs("acme/empty"); err != nil || out != "" {
		t.Errorf("an empty repository: %v: %s", err, out)
	}
	if out, err := refs("acme/nowhere"); err == nil {
		t.Errorf("served what is not there: %s", out)
	}
	clone := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", g.URL+"/acme/api.git", clone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", clone, "rev-list", "--count", "HEAD").Output(); err != nil || strings.TrimSpace(string(out)) != "2" {
		t.Errorf("%v: %s commits", err, out)
	}
	if got, want := g.Asked("acme/api"), (forgetest.Counts{Greetings: 2, Refs: 2, Fetches: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
