package git

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func (b *bench) push(id, url string, o PushOptions) (*PushReport, error) {
	if o.Options.NetrcFile == "" {
		o.Options = testOptions()
	}
	o.Scratch = b.o.Scratch
	return Push(b.t.Context(), b.part(id), url, o)
}

func TestPush(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/trunk", "a", "1")
	s.git("symbolic-ref", "HEAD", "refs/heads/trunk")
	s.commit("refs/heads/main", "b", "2")
	s.commit("refs/heads/caf\xe9", "b", "2")
	s.git("tag", "-m", "one", "v1", "refs/heads/main")
	s.git("notes", "add", "-m", "remark", "refs/heads/main")
	s.git("update-ref", "refs/pull/7/head", s.commitOn("", "c", "3"))
	s.git("update-ref", "refs/remotes/origin/x", "refs/heads/main")
	s.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID

	target := newRepo(t)
	report, err := b.push(id, target.dir, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := "refs/heads/caf\xe9\nrefs/heads/main\nrefs/heads/trunk\nrefs/notes/commits\nrefs/tags/v1"
	if got := target.git("for-each-ref", "--format=%(refname)"); got != want {
		t.Errorf("the target has %q", got)
	}
	if target.git("rev-parse", "refs/tags/v1") != s.git("rev-parse", "refs/tags/v1") {
		t.Error("the tag is another")
	}
	if report.Pushed != 5 || report.There != 0 || len(report.Skipped) != 3 || len(report.Notes) != 1 {
		t.Errorf("the report is %+v", report)
	}

	report, err = b.push(id, target.dir, PushOptions{PullRequests: true}) // goes on where it was
	if err != nil || report.Pushed != 1 || report.There != 5 {
		t.Errorf("the second report is %+v, %v", report, err)
	}
	if target.git("rev-parse", "refs/heads/backup-pr/7") != s.git("rev-parse", "refs/pull/7/head") {
		t.Error("the pull request is not there as a branch")
	}
	if left, _ := os.ReadDir(b.o.Scratch); len(left) > 0 {
		t.Errorf("the scratch directory still holds %v", left)
	}
}

func TestPushRefusesAndForces(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	target := newRepo(t)
	target.commit("refs/heads/main", "other", "work")
	theirs := target.commit("refs/heads/theirs", "other", "work")
	_, err := b.push(id, target.dir, PushOptions{})
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "refs/heads/main, refs/heads/theirs") {
		t.Fatalf("error %v, want a refusal that names the target's refs", err)
	}
	if _, err := b.push(id, target.dir, PushOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if target.git("rev-parse", "refs/heads/main") != s.git("rev-parse", "refs/heads/main") || target.git("rev-parse", "refs/heads/theirs") != theirs {
		t.Error("force did not overwrite the one and leave the other")
	}
}

func TestPushNamesWhatTheTargetDidNotTake(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.commit("refs/heads/locked", "a", "2")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	target := newRepo(t)
	hook := "#!/bin/sh\ntest \"$1\" != refs/heads/locked\n"
	if err := errors.Join(os.MkdirAll(filepath.Join(target.dir, "hooks"), 0o755),
		os.WriteFile(filepath.Join(target.dir, "hooks", "update"), []byte(hook), 0o755)); err != nil { // a hook
		t.Fatal(err)
	}
	report, err := b.push(id, target.dir, PushOptions{})
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "1 of 2 refs: refs/heads/locked (") {
		t.Errorf("error %v, want one that names the ref", err)
	}
	if report == nil || report.Pushed != 1 {
		t.Errorf("the report is %+v", report)
	}
}

func TestPushOverHTTP(t *testing.T) {
	root := t.TempDir()
	stockGit(t, root, "init", "-q", "--bare", "-b", "main", "api.git")
	stockGit(t, root, "--git-dir=api.git", "config", "http.receivepack", "true")
	backend := httpBackend(root)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "x-access-token" || password != "s3cret-token" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	o := testOptions()
	o.Password = "wrong-token"
	if _, err := b.push(id, server.URL+"/api.git", PushOptions{Options: o}); !errors.Is(err, fault.ErrDenied) || strings.Contains(err.Error(), "wrong-token") {
		t.Errorf("error %v, want one that says access is denied", err)
	}
	o.Password = "s3cret-token"
	if _, err := b.push(id, server.URL+"/api.git", PushOptions{Options: o}); err != nil {
		t.Fatal(err)
	}
	if want, got := look(t, s.dir), look(t, filepath.Join(root, "api.git")); got != want {
		t.Errorf("the target is\n%s\nwant\n%s", got, want)
	}
}

func TestPushOverSSH(t *testing.T) {
	program, _ := stubSSH(t)
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.git("tag", "v1", "refs/heads/main")
	b := newBench(t, s.dir)
	target := newRepo(t)
	o := withSSH(testOptions(), program)
	if _, err := b.push(b.backup().Point.ID, "ssh://git@git.example:2222"+target.dir, PushOptions{Options: o}); err != nil {
		t.Fatal(err)
	}
	if want, got := look(t, s.dir), look(t, target.dir); got != want {
		t.Errorf("the target is\n%s\nwant\n%s", got, want)
	}
}

// What ssh is told of keys reaches it whole, whatever is in the names, for fetching, for pushing and for LFS.
func TestSSHTakesKeyAndHostKeys(t *testing.T) {
	program, argsFile := stubSSH(t)
	dir := filepath.Join(t.TempDir(), "it's a dir; $(touch no)!")
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	o := withSSH(testOptions(), program)
	o.KeyFile, o.KnownHostsFile = filepath.Join(dir, "key"), filepath.Join(dir, "known")
	url := "ssh://git@git.example" + newRepo(t).dir
	if _, err := b.push(id, url, PushOptions{Options: o}); fault.Of(err).Reason != "Invalid" {
		t.Errorf("files that are not there: %v", err)
	}
	dir = strings.ReplaceAll(dir, "$", "")
	o.KeyFile, o.KnownHostsFile = filepath.Join(dir, "key"), filepath.Join(dir, "known")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{o.KeyFile, o.KnownHostsFile} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"-i\n" + o.KeyFile + "\n", "IdentitiesOnly=yes\n", `UserKnownHostsFile="` + o.KnownHostsFile + "\"\n", "StrictHostKeyChecking=yes\n", "BatchMode=yes\n",
	}
	seen := func(what string) {
		t.Helper()
		raw, err := os.ReadFile(argsFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, arg := range want {
			if !strings.Contains(string(raw), arg) {
				t.Errorf("%s: the arguments of ssh lack %q:\n%s", what, arg, raw)
			}
		}
		if err := os.Remove(argsFile); err != nil {
			t.Fatal(err)
		}
	}
	u, err := ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	push := &push{o: PushOptions{Options: o}, url: u}
	cmd := gitCommand(t.Context(), "", "ls-remote", url)
	if _, err := push.access(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if err := run(cmd, 0); err != nil {
		t.Fatal(err)
	}
	seen("git's own")
	r := dialTest(t, url, o)
	if _, err := r.ListRefs(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen("listing")
	r.LFSDownload(t.Context(), []Pointer{pointerOf("x")}, nil) //nolint:errcheck // there is no LFS server
	seen("LFS")
}

// A target that has everything is only asked for its refs: nothing is brought out of the vault.
func TestPushOfNothingNew(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	target := newRepo(t)
	if _, err := b.push(id, target.dir, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	entries, err := b.part(id).List(t.Context(), packDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := b.store.Corrupt(id, b.last.PartName()+"/"+packDir+"/"+e.Name); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := b.push(id, target.dir, PushOptions{}); err != nil || r.There != 1 || r.Pushed != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Tokens expire in long runs: each connection takes the one of its time.
func TestCredentialsAreTakenAtEachConnection(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	var tokens []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, token, _ := r.BasicAuth()
		tokens = append(tokens, token)
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	n := 0
	o := testOptions()
	o.Username, o.Password = "old", "old"
	o.Credentials = func(context.Context) (string, fault.Secret, error) {
		n++
		return "x", fault.Secret(fmt.Sprint("token-", n)), nil
	}
	for range 2 {
		if _, err := b.push(id, server.URL+"/x.git", PushOptions{Options: o}); fault.Of(err).Reason != "NotFound" {
			t.Errorf("got %v", err)
		}
	}
	if !slices.Equal(tokens, []string{"token-1", "token-2"}) {
		t.Errorf("the server saw %q", tokens)
	}
	o.Credentials = func(context.Context) (string, fault.Secret, error) {
		return "", "", fault.New("make a token", fault.ErrDenied, "the app was taken away", "")
	}
	if _, err := b.push(id, server.URL+"/x.git", PushOptions{Options: o}); fault.Of(err).Reason != "Denied" || len(tokens) > 2 {
		t.Errorf("got %v after %d requests", err, len(tokens))
	}
}

// No credential may be seen by others on the machine: they see arguments.
func TestPushHidesCredentials(t *testing.T) {
	o := testOptions()
	o.Password = "s3cret-token"
	u, err := ParseURL("https://forge.example/acme/api.git")
	if err != nil {
		t.Fatal(err)
	}
	cmd := gitCommand(t.Context(), "/nowhere", "push", u.String())
	secrets, err := (&push{o: PushOptions{Options: o}, url: u}).access(t.Context(), cmd)
	if err != nil || len(secrets) != 2 {
		t.Fatalf("%d secrets, %v", len(secrets), err)
	}
	for _, secret := range secrets {
		if strings.Contains(strings.Join(cmd.Args, " "), secret.Reveal()) {
			t.Errorf("the arguments hold a credential: %q", cmd.Args)
		}
	}
	env := strings.Join(cmd.Env, "\n")
	for _, want := range []string{"=http.https://forge.example/acme/api.git.extraHeader\n", "=protocol.https.allow\n", "=http.followRedirects\n", "=core.hooksPath\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment lacks the key %q", want)
		}
	}
}

func TestPushBringsLargeFiles(t *testing.T) {
	s := newRepo(t)
	oid := s.large("one.bin", "one", false)
	s.large("gone.bin", "gone", true)
	b := newBench(t, s.dir)
	target := newRepo(t)
	report, err := b.push(b.backup().Point.ID, target.dir, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(target.dir, "lfs", objectPath(oid))); err != nil || string(raw) != "one" {
		t.Errorf("the large file at the target is %q, %v", raw, err)
	}
	if len(report.Notes) != 1 {
		t.Errorf("notes are %q", report.Notes)
	}
}

func TestBatches(t *testing.T) {
	var refs []Ref
	for i := range 1200 {
		refs = append(refs, Ref{Name: fmt.Sprintf("refs/heads/%04d", i), OID: strings.Repeat("1", 40)})
	}
	all := batches(refs)
	if len(all[0]) != 1 || !slices.EqualFunc(slices.Concat(all...), refs, func(a, b Ref) bool { return a == b }) {
		t.Errorf("%d batches, the first of %d refs; some refs are lost or moved", len(all), len(all[0]))
	}
	for _, batch := range all {
		if len(batch) == 0 || len(batch) > 500 {
			t.Errorf("a batch of %d refs", len(batch))
		}
	}
	if n := len(batches(refs[:1])); n != 1 {
		t.Errorf("%d batches of one ref", n)
	}
}
