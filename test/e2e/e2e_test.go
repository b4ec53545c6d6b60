//go:build e2e

// Package e2e drives the built program from outside, against real servers. `make e2e` builds them and says where they are.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// program returns the path in an environment variable that `make e2e` sets. Where it is missing the test fails in CI, and else is
// skipped by name.
func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	switch {
	case path != "":
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not set: run `make e2e`", variable)
	default:
		t.Skipf("%s is not set: run `make e2e`", variable)
	}
	return ""
}

// backstay is the program with a vault and a home of its own.
type backstay struct {
	binary string
	home   string
	vault  string
	env    []string // beside the vault's
}

// newBackstay creates a vault in a temporary directory.
func newBackstay(t *testing.T, env ...string) *backstay {
	t.Helper()
	b := bareBackstay(t, env...)
	b.ok(t, "location", "create")
	return b
}

// bareBackstay has no vault yet.
func bareBackstay(t *testing.T, env ...string) *backstay {
	t.Helper()
	home := t.TempDir()
	return &backstay{binary: program(t, "BACKSTAY_TEST_BINARY"), home: home, vault: filepath.Join(home, "vault"), env: env}
}

// result is how a run ended.
type result struct {
	exit           int // -1 where it was killed
	stdout, stderr string
}

func (b *backstay) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	cmd.Env = append(cleanEnv(), "HOME="+b.home, "TMPDIR="+b.home, "BACKSTAY_LOCATION=file://"+b.vault, "BACKSTAY_PASSWORD="+password)
	cmd.Env = append(cmd.Env, b.env...)
	return cmd
}

const password = "the vault's password"

// cleanEnv is the environment without what steers git, Backstay or the place of their files.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GIT_") || strings.HasPrefix(v, "BACKSTAY_") || strings.HasPrefix(v, "XDG_") || strings.HasPrefix(v, "SSH_")
	})
}

func (b *backstay) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // it only ends a hang
	defer cancel()
	return finish(t, b.command(ctx, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok runs a command that must succeed.
func (b *backstay) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := b.run(t, args...)
	if r.exit != 0 {
		t.Fatalf("backstay %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// receipt is what `backup --json` prints.
type receipt struct {
	Version int `json:"version"`
	Point   struct {
		ID    string `json:"id"`
		State string `json:"state"`
		Parts []struct {
			Name   string `json:"name"`
			Kind   string `json:"kind"`
			State  string `json:"state"`
			Counts []struct {
				Of              string   `json:"of"`
				Expected        int      `json:"expected"`
				Stored          int      `json:"stored"`
				MissingAtSource []string `json:"missingAtSource"`
			} `json:"counts"`
		} `json:"parts"`
	} `json:"point"`
	Ledger struct {
		MissingAtSource int  `json:"missingAtSource"`
		Closed          bool `json:"closed"`
	} `json:"ledger"`
	Requests    int   `json:"requests"`
	StoredBytes int64 `json:"storedBytes"`
}

func (b *backstay) backup(t *testing.T, args ...string) receipt {
	t.Helper()
	var r receipt
	decode(t, b.ok(t, append([]string{"backup", "--json"}, args...)...), &r)
	if r.Version != 1 || r.Point.ID == "" {
		t.Fatalf("backup --json: no version 1 document with a point: %+v", r)
	}
	return r
}

// points lists the ids of all points, newest first.
func (b *backstay) points(t *testing.T) []string {
	t.Helper()
	var list struct {
		Points []struct {
			ID string `json:"id"`
		} `json:"points"`
	}
	decode(t, b.ok(t, "points", "--json"), &list)
	var ids []string
	for _, p := range list.Points {
		ids = append(ids, p.ID)
	}
	return ids
}

// decode reads the last line that is a JSON document.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	text = strings.TrimSpace(text)
	if err := json.Unmarshal([]byte(text), into); err == nil {
		return
	}
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), into); err != nil {
		t.Fatalf("not a JSON document: %v\n%s", err, text)
	}
}

// git runs git without the user's configuration and returns its output.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return gitEnv(t, nil, dir, args...)
}

func gitEnv(t *testing.T, env []string, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(cleanEnv(), "HOME="+os.TempDir(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com")
	cmd.Env = append(cmd.Env, env...)
	r := finish(t, cmd)
	if r.exit != 0 {
		t.Fatalf("git %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// write puts a file into a working tree.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newWorkTree makes a repository with a commit, a branch and an annotated tag.
func newWorkTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	write(t, dir, "README", "hello\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "-m", "first")
	git(t, dir, "branch", "feature/one")
	git(t, dir, "tag", "-a", "-m", "release", "v1")
	return dir
}

// same fails unless two repositories have the same refs and HEAD, and the same objects from them.
func same(t *testing.T, got, want string) {
	t.Helper()
	for _, look := range [][]string{
		{"for-each-ref", "--format=%(objectname) %(refname)"},
		{"symbolic-ref", "HEAD"},
		{"rev-list", "--objects", "--all"},
	} {
		g, w := git(t, got, look...), git(t, want, look...)
		if look[0] == "rev-list" {
			g, w = sorted(g), sorted(w)
		}
		if g != w {
			t.Errorf("git %s:\n got %s\nwant %s", strings.Join(look, " "), shorten(g), shorten(w))
		}
	}
	git(t, got, "fsck", "--full", "--strict")
}

func sorted(lines string) string {
	list := strings.Split(lines, "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func shorten(s string) string {
	return cmp.Or(s[:min(len(s), 2000)], "nothing")
}

// lockedBuffer is what a running program prints, read while it runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// until waits, at most five minutes, for what a running program does.
func until(t *testing.T, said *lockedBuffer, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen within five minutes:\n%s", said.String())
		}
	}
}
