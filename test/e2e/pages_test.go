//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every page that opens with an example opens with one that works: its first block of sh is run here as it stands, in a directory with a
// repository named api, by a user who has never run Backstay.
func TestPagesOpenWithExamplesThatWork(t *testing.T) {
	for _, page := range []string{"git.md", "locations.md", "recovery.md", "evidence.md", "keys.md"} {
		t.Run(page, func(t *testing.T) {
			home := t.TempDir()
			if err := os.Rename(newWorkTree(t), filepath.Join(home, "api")); err != nil {
				t.Fatal(err)
			}
			runScript(t, home, home, block(t, filepath.Join("docs", page), "sh"))
		})
	}
}

// The pages for a person with a token, an organisation, and moving from gickup run as they stand, against a stand-in for github.com.
func TestPagesOfAccounts(t *testing.T) {
	for _, page := range []string{"accounts.md", "organisations.md", "gickup.md"} {
		t.Run(page, func(t *testing.T) {
			h := newHub(t)
			h.add(t, owner, "api")
			h.add(t, owner, "web-scratch")
			env := append(h.asGitHub(t), "GITHUB_TOKEN="+h.token, "VAULT_PASSWORD="+password)
			home := t.TempDir()
			runScript(t, home, home, block(t, filepath.Join("docs", page), "sh"), env...)
		})
	}
}

// The page on plain copies opens with a policy, and with what lies there after a run of it.
func TestPageOfExports(t *testing.T) {
	const page = "docs/exports.md"
	h := newHub(t)
	api := h.add(t, owner, "api")
	h.mu.Lock()
	api.Wiki, api.Issues = true, 1
	h.mu.Unlock()
	git(t, h.dir, "clone", "--quiet", "--bare", newWorkTree(t), h.bare(owner, "api.wiki"))
	home := t.TempDir()
	policy := strings.ReplaceAll(block(t, page, "yaml"), "/srv/", home+"/")
	script := "cat > policy.yaml <<'EOF'\n" + policy + "EOF\nbackstay run -f policy.yaml --once\n"
	runScript(t, home, home, script, append(h.asGitHub(t), "GITHUB_TOKEN="+h.token)...)

	text, err := os.ReadFile(filepath.Join(root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "After a run:\n\n```\n")
	shown, _, found := strings.Cut(after, "```\n")
	if !found {
		t.Fatal("the page does not show what is there after a run")
	}
	above, _, _ := strings.Cut(shown, "\n")
	dirs := []string{strings.Replace(above, "/srv", home, 1)}
	for line := range strings.Lines(strings.TrimPrefix(shown, above+"\n")) {
		name := strings.Fields(line)[0]
		depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		dirs = append(dirs[:depth], filepath.Join(dirs[depth-1], name))
		if strings.HasSuffix(name, "…") {
			continue // this one has no LFS objects
		}
		if _, err := os.Stat(dirs[depth]); err != nil {
			t.Errorf("the page shows %s: %v", strings.TrimSpace(line), err)
		}
	}
	same(t, filepath.Join(dirs[0], "api.git"), h.bare(owner, "api"))
	same(t, filepath.Join(dirs[0], "api.wiki.git"), h.bare(owner, "api.wiki"))
}

// The README's first command is run in a clone of the tree as it stands, and so is its session.
func TestReadme(t *testing.T) {
	home := t.TempDir()
	clone := filepath.Join(home, "backstay")
	git(t, "", "clone", "--quiet", root(t), clone)
	goRun, _, found := strings.Cut(block(t, "README.md", "sh"), "\nmake test")
	if !found {
		t.Fatal("the README does not name `make test`")
	}
	runScript(t, home, clone, goRun)

	runScript(t, t.TempDir(), clone, commands(block(t, "README.md", "console")))
}

// The README's session with an account runs as it stands, and tells what the README shows.
func TestReadmeOfAnAccount(t *testing.T) {
	text := block(t, "README.md", "console account")
	h := newHub(t)
	api := h.add(t, owner, "api")
	h.add(t, owner, "web")
	h.mu.Lock()
	api.Wiki = true
	h.mu.Unlock()
	git(t, h.dir, "clone", "--quiet", "--bare", newWorkTree(t), h.bare(owner, "api.wiki"))
	env := append(h.asGitHub(t), "GITHUB_TOKEN="+h.token)
	home := t.TempDir()
	said := runScript(t, home, home, commands(text), env...)
	for _, shown := range regexp.MustCompile(`(?m)^(complete: .* refs|restored .*)`).FindAllString(text, -1) {
		if !strings.Contains(said, shown) {
			t.Errorf("the README shows %q; it is %s", shown, said)
		}
	}
}

// commands are what a session types.
func commands(session string) string {
	var typed strings.Builder
	for line := range strings.Lines(session) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			typed.WriteString(command)
		}
	}
	return typed.String()
}

// block is the first fenced block of a language in a page.
func block(t *testing.T, page, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n```"+language+"\n")
	content, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return content + "\n"
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// runScript runs a script of sh in dir, with backstay and kopia among the programs.
func runScript(t *testing.T, home, dir, script string, env ...string) string {
	t.Helper()
	bin := t.TempDir()
	for name, variable := range map[string]string{"backstay": "BACKSTAY_TEST_BINARY", "kopia": "BACKSTAY_TEST_KOPIA"} {
		if err := os.Symlink(program(t, variable), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // a first `go run` compiles
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eux")
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir = dir
	cmd.Env = append(cleanEnv(), "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "KOPIA_CHECK_FOR_UPDATES=false")
	cmd.Env = append(append(cmd.Env, goCaches(t)...), env...)
	r := finish(t, cmd)
	if r.exit != 0 {
		t.Errorf("exit %d\n%s%s", r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// goCaches lets `go run` use what was compiled already, although the script's home is new.
func goCaches(t *testing.T) []string {
	t.Helper()
	var env []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS"} {
		r := finish(t, exec.CommandContext(t.Context(), "go", "env", name))
		env = append(env, name+"="+strings.TrimSpace(r.stdout))
	}
	return env
}
