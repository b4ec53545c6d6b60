//go:build e2e

package e2e

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/webdav"
)

// The faults of gickup that were reproduced, each with a test that shows what Backstay makes of the same file.

// drop is a Backstay that runs gickup's files, without a vault.
type drop struct {
	*backstay
	dir string // of the file and of the copies
}

func newDrop(t *testing.T, env ...string) *drop {
	t.Helper()
	return &drop{bareBackstay(t, env...), t.TempDir()}
}

// conf writes a gickup file.
func (d *drop) conf(t *testing.T, text string) string {
	t.Helper()
	write(t, d.dir, "conf.yml", text)
	return filepath.Join(d.dir, "conf.yml")
}

func (d *drop) path(elements ...string) string {
	return filepath.Join(append([]string{d.dir}, elements...)...)
}

// pings counts what a heartbeat's URL gets.
func pings(t *testing.T) (address string, count *atomic.Int64) {
	t.Helper()
	count = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { count.Add(1) }))
	t.Cleanup(s.Close)
	return s.URL + "/ping/secret-of-the-heartbeat", count
}

func TestGickupUnreachableSourceIsNoSuccess(t *testing.T) {
	beat, count := pings(t)
	h := newHub(t)
	d := newDrop(t)
	conf := d.conf(t, fmt.Sprintf(`
source:
  any:
    - url: http://127.0.0.1:%s/gone/api.git
      username: ann
      password: password-of-the-source
  github:
    - url: %s
      token: token-that-is-wrong
destination:
  local:
    - path: %s
      bare: true
metrics:
  heartbeat:
    urls: [%s]
`, freePort(t), h.url, d.path("copies"), beat))
	for _, args := range [][]string{{"gickup", conf}, {"gickup", "--silent", conf}} {
		r := d.run(t, args...)
		if r.exit != 3 {
			t.Errorf("%v: exit %d, want 3\n%s", args, r.exit, r.stderr)
		}
		if n := count.Load(); n != 0 {
			t.Errorf("%v: %d heartbeats of success after a failure", args, n)
		}
		for _, secret := range []string{"password-of-the-source", "token-that-is-wrong", "secret-of-the-heartbeat"} {
			if strings.Contains(r.stdout+r.stderr, secret) {
				t.Errorf("%v: %s was printed:\n%s%s", args, secret, r.stdout, r.stderr)
			}
		}
		if args[1] != "--silent" && (!strings.Contains(r.stderr, "gone/api") || !strings.Contains(r.stderr, "token")) {
			t.Errorf("what failed is not said:\n%s", r.stderr)
		}
	}
}

// TestGickupRepositoryThatIsMissing: one that the file names, and the forge does not list, is not backed up.
func TestGickupRepositoryThatIsMissing(t *testing.T) {
	beat, count := pings(t)
	h := newHub(t)
	h.add(t, "acme", "api")
	d := &drop{newBackstay(t), t.TempDir()}
	conf := d.conf(t, fmt.Sprintf(`
source: {github: [{url: %s, token: %s, include: [api, web]}]}
destination: {local: [{path: %s, bare: true}]}
metrics: {heartbeat: {urls: [%s]}}
`, h.url, h.token, d.path("copies"), beat))
	for _, args := range [][]string{{"gickup", conf}, {"gickup", "--location", "file://" + d.vault, conf}} {
		r := d.run(t, args...)
		if r.exit != 3 || count.Load() != 0 || !strings.Contains(r.stderr, "no repository is named web") {
			t.Errorf("%v: exit %d, %d heartbeats, want 3, none, and the name:\n%s", args, r.exit, count.Load(), r.stderr)
		}
		same(t, d.path("copies", "api.git"), h.bare("acme", "api"))
	}
	h.add(t, "acme", "web")
	if d.ok(t, "gickup", conf); count.Load() != 1 {
		t.Errorf("%d heartbeats when all is there, want 1", count.Load())
	}
}

// TestGickupWithoutDestination: what goes nowhere is no backup.
func TestGickupWithoutDestination(t *testing.T) {
	beat, count := pings(t)
	d := &drop{newBackstay(t), t.TempDir()}
	source := newWorkTree(t)
	conf := d.conf(t, fmt.Sprintf(`
source: {any: [{url: %[1]s}]}
metrics: {heartbeat: {urls: [%[2]s]}}
---
source: {any: [{url: %[1]s}]}
destination: {local: [{path: %[3]s, bare: true}]}
`, source, beat, d.path("copies")))
	if r := d.run(t, "gickup", conf); r.exit == 0 || count.Load() != 0 || !strings.Contains(r.stderr, "no destination") {
		t.Errorf("exit %d, %d heartbeats:\n%s", r.exit, count.Load(), r.stderr)
	}
	same(t, d.path("copies", filepath.Base(source)+".git"), source) // of the other document
	if d.ok(t, "gickup", "--location", "file://"+d.vault, conf); count.Load() != 1 {
		t.Errorf("%d heartbeats after a run that made points, want 1", count.Load())
	}
}

func TestGickupHeartbeatAfterSuccess(t *testing.T) {
	beat, count := pings(t)
	d := newDrop(t)
	source := newWorkTree(t)
	d.ok(t, "gickup", d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {local: [{path: %s}]}\nmetrics: {heartbeat: {urls: [%s]}}\n",
		source, d.path("copies"), beat)))
	if n := count.Load(); n != 1 {
		t.Errorf("%d heartbeats, want 1", n)
	}
	if _, err := os.Stat(d.path("copies", filepath.Base(source), "README")); err != nil {
		t.Errorf("the working tree: %v", err)
	}
}

func TestGickupSameNameUnderTwoOwners(t *testing.T) {
	h := newHub(t)
	h.add(t, "acme", "api")
	h.add(t, "widgets", "api")
	d := newDrop(t)
	text := fmt.Sprintf("source: {github: [{url: %s, token: %s}]}\ndestination: {local: [{path: %s, bare: true, structured: STRUCTURED}]}\n",
		h.url, h.token, d.path("copies"))
	r := d.run(t, "gickup", d.conf(t, strings.ReplaceAll(text, "STRUCTURED", "false")))
	if r.exit != 3 || !strings.Contains(r.stderr, "acme/api") || !strings.Contains(r.stderr, "widgets/api") {
		t.Errorf("exit %d, want 3 and both names:\n%s", r.exit, r.stderr)
	}
	d.ok(t, "gickup", d.conf(t, strings.ReplaceAll(text, "STRUCTURED", "true")))
	host := strings.ReplaceAll(strings.TrimPrefix(h.url, "http://"), ":", "_")
	for _, owner := range []string{"acme", "widgets"} {
		same(t, d.path("copies", host, owner, "api.git"), h.bare(owner, "api"))
	}
}

// TestGickupSameNameByURL: repositories by their URLs are all of the owner "git", and so of one name in copies and in points.
func TestGickupSameNameByURL(t *testing.T) {
	h := newHub(t)
	d := &drop{newBackstay(t), t.TempDir()}
	for _, owner := range []string{"acme", "widgets"} {
		h.add(t, owner, "api")
	}
	conf := d.conf(t, strings.NewReplacer("URL", h.url, "TOKEN", h.token, "COPIES", d.path("copies")).Replace(`
source:
  any:
    - {url: URL/acme/api.git, user: git, username: x, password: TOKEN}
    - {url: URL/widgets/api.git, user: git, username: x, password: TOKEN}
destination: {local: [{path: COPIES, structured: true, bare: true}]}
`))
	host := strings.ReplaceAll(strings.TrimPrefix(h.url, "http://"), ":", "_")
	for _, args := range [][]string{{"gickup", conf}, {"gickup", conf}, {"gickup", "--location", "file://" + d.vault, conf}} {
		r := d.run(t, args...)
		if r.exit != 3 || !strings.Contains(r.stderr, "holds "+host+"/acme/api") || !strings.Contains(r.stderr, host+"/widgets/api") {
			t.Errorf("%v: exit %d, want 3 and both names:\n%s", args, r.exit, r.stderr)
		}
		same(t, d.path("copies", host, "git", "api.git"), h.bare("acme", "api"))
	}
	if ids := d.points(t); len(ids) != 2 { // neither is taken for the other, rewritten
		t.Errorf("points: %q", ids)
	}
	if list := d.ok(t, "points"); strings.Contains(list, "alarm") {
		t.Errorf("one repository was taken for the other:\n%s", list)
	}
}

func TestGickupTakesOverClonesByURL(t *testing.T) {
	d := newDrop(t)
	source := newWorkTree(t)
	git(t, d.dir, "clone", "--quiet", "--bare", source, d.path("copies", filepath.Base(source)+".git"))
	git(t, source, "commit", "--quiet", "--allow-empty", "-m", "second")
	d.ok(t, "gickup", d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {local: [{path: %s, bare: true}]}\n", source, d.path("copies"))))
	same(t, d.path("copies", filepath.Base(source)+".git"), source)
}

func TestGickupBranchThatBecomesADirectory(t *testing.T) {
	d := newDrop(t)
	source := newWorkTree(t)
	git(t, source, "branch", "foo")
	conf := d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {local: [{path: %s, mirror: true}]}\n", source, d.path("copies")))
	d.ok(t, "gickup", conf)
	git(t, source, "branch", "-D", "foo")
	git(t, source, "branch", "foo/bar")
	git(t, source, "commit", "--quiet", "--allow-empty", "-m", "second")
	d.ok(t, "gickup", conf)
	same(t, d.path("copies", filepath.Base(source)+".git"), source)
}

func TestGickupTwoStructuredDestinations(t *testing.T) {
	h := newHub(t)
	h.add(t, "acme", "api")
	d := newDrop(t)
	d.ok(t, "gickup", d.conf(t, fmt.Sprintf(`
source: {github: [{url: %s, token: %s}]}
destination:
  local:
    - {path: %s, structured: true, bare: true}
    - {path: %s, structured: true, bare: true}
`, h.url, h.token, d.path("one"), d.path("two"))))
	host := strings.ReplaceAll(strings.TrimPrefix(h.url, "http://"), ":", "_")
	for _, place := range []string{"one", "two"} {
		same(t, d.path(place, host, "acme", "api.git"), h.bare("acme", "api"))
	}
}

func TestGickupHostileLinkStaysALink(t *testing.T) {
	d := newDrop(t)
	write(t, d.dir, "hostsecret", "the host's secret")
	source := newWorkTree(t)
	for link, to := range map[string]string{"link": d.path("hostsecret"), "up": "../../hostsecret", "dir": ".."} {
		if err := os.Symlink(to, filepath.Join(source, link)); err != nil {
			t.Fatal(err)
		}
	}
	git(t, source, "add", ".")
	git(t, source, "commit", "--quiet", "-m", "links")
	d.ok(t, "gickup", d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {local: [{path: %s, zip: true}]}\n", source, d.path("copies"))))
	z, err := zip.OpenReader(d.path("copies", filepath.Base(source)+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	links := 0
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || bytes.Contains(content, []byte("the host's secret")) {
			t.Errorf("%s holds a file of the host (%v)", f.Name, err)
		}
		if f.Mode()&os.ModeSymlink != 0 {
			links++
		}
	}
	if links != 3 {
		t.Errorf("%d links in the archive, want 3", links)
	}
}

func TestGickupSlipInTheFileStopsNothing(t *testing.T) {
	d := newDrop(t)
	source := newWorkTree(t)
	good := fmt.Sprintf("cron: '@every 1s'\nsource: {any: [{url: %s}]}\ndestination: {local: [{path: %s, bare: true}]}\n", source, d.path("copies"))
	conf := d.conf(t, good)
	cmd := d.command(t.Context(), "gickup", conf)
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended where all went well
	copied := d.path("copies", filepath.Base(source)+".git")
	until(t, &said, func() bool { _, err := os.Stat(filepath.Join(copied, "packed-refs")); return err == nil })
	write(t, d.dir, "conf.yml", "source: {any: [\n")
	until(t, &said, func() bool {
		return strings.Contains(said.String(), "conf.yml") && strings.Contains(said.String(), "stays in effect")
	})
	git(t, source, "commit", "--quiet", "--allow-empty", "-m", "second")
	tip := strings.TrimSpace(git(t, source, "rev-parse", "HEAD"))
	until(t, &said, func() bool {
		refs, _ := os.ReadFile(filepath.Join(copied, "packed-refs"))
		return bytes.Contains(refs, []byte(tip))
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("stopped with %v\n%s", err, said.String())
	}
	same(t, copied, source)
}

func TestGickupWhatItIgnoresIsSaid(t *testing.T) {
	h := newHub(t)
	h.token = "0457"
	h.add(t, "acme", "api")
	h.add(t, "acme", "web")
	source := newWorkTree(t)
	d := newDrop(t)
	conf := d.conf(t, fmt.Sprintf(`
source:
  github:
    - url: %s
      token: 0457
      inclde: [api]
destination: {local: [{path: %s, structured: true, bare: true}]}
---
# nothing here
---
source: {any: [{url: %s}]}
destination: {local: [{path: %s, bare: true}]}
`, h.url, d.path("one"), source, d.path("two")))
	r := d.run(t, "gickup", conf)
	if r.exit != 0 || !strings.Contains(r.stderr, "inclde") {
		t.Errorf("exit %d, want 0 and the unknown key by its name:\n%s", r.exit, r.stderr)
	}
	host := strings.ReplaceAll(strings.TrimPrefix(h.url, "http://"), ":", "_")
	same(t, d.path("one", host, "acme", "api.git"), h.bare("acme", "api"))
	same(t, d.path("two", filepath.Base(source)+".git"), source) // of the document behind the empty one

	lint := d.run(t, "gickup", "--lint", conf)
	for _, want := range []string{"[unknown-key]", "[number-as-text]", "[empty-document]"} {
		if !strings.Contains(lint.stdout, want) {
			t.Errorf("lint says nothing of %s:\n%s", want, lint.stdout)
		}
	}
	if strings.Contains(lint.stdout, "0457") {
		t.Errorf("lint tells the token:\n%s", lint.stdout)
	}
}

func TestGickupForcePushLosesNothing(t *testing.T) {
	d := newDrop(t)
	source := newWorkTree(t)
	conf := d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {local: [{path: %s, mirror: true}]}\n", source, d.path("copies")))
	d.ok(t, "gickup", conf)
	lost := strings.TrimSpace(git(t, source, "rev-parse", "main"))
	git(t, source, "commit", "--quiet", "--amend", "--allow-empty", "-m", "rewritten")
	git(t, source, "tag", "-d", "v1")
	git(t, source, "branch", "-D", "feature/one")
	d.ok(t, "gickup", conf)
	copied := d.path("copies", filepath.Base(source)+".git")
	git(t, copied, "gc", "--quiet", "--prune=now")
	git(t, copied, "cat-file", "-e", lost+"^{commit}")
}

func TestGickupCostsWhatChanged(t *testing.T) {
	h := newHub(t)
	api := h.add(t, "acme", "api")
	h.add(t, "acme", "web")
	d := newDrop(t)
	conf := d.conf(t, fmt.Sprintf("source: {github: [{url: %s, token: %s}]}\ndestination: {local: [{path: %s, bare: true, keep: 3}]}\n",
		h.url, h.token, d.path("copies")))
	d.ok(t, "gickup", conf)
	h.reset()
	d.ok(t, "gickup", conf)
	if n := sum(h.fetches); n != 0 {
		t.Errorf("an unchanged run fetched %d packs", n)
	}
	time.Sleep(time.Second) // copies are named by the second
	h.push(t, api, "second")
	d.ok(t, "gickup", conf)
	if h.fetches["acme/api"] != 1 || h.fetches["acme/web"] != 0 {
		t.Errorf("packs fetched: %v", h.fetches)
	}
	kept, err := os.ReadDir(d.path("copies", "api.git"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d copies of the one that changed, want 2 (%v)", len(kept), err)
	}
	same(t, d.path("copies", "api.git", kept[len(kept)-1].Name()), h.bare("acme", "api"))
}

// TestGickupFullWebDAVServer: a server that takes no more leaves the old copy whole, whichever file it refuses.
func TestGickupFullWebDAVServer(t *testing.T) {
	d := newDrop(t)
	var room atomic.Int64 // files that are still taken
	room.Store(1000)
	dav := &webdav.Handler{FileSystem: webdav.Dir(d.path()), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && room.Add(-1) < 0 {
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		dav.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	beat, count := pings(t)
	source := newWorkTree(t)
	conf := d.conf(t, fmt.Sprintf("source: {any: [{url: %s}]}\ndestination: {webdav: [{url: %s, path: copies, structured: true}]}\n"+
		"metrics: {heartbeat: {urls: [%s]}}\n", source, server.URL, beat))
	d.ok(t, "gickup", conf)
	copied := d.path("copies", "local", "git", filepath.Base(source))
	same(t, copied, source)
	write(t, source, "more", "than fits\n")
	git(t, source, "add", ".")
	git(t, source, "commit", "--quiet", "-m", "second")
	old, refused := git(t, source, "rev-parse", "main~"), int64(0)
	for ; ; refused++ {
		count.Store(0)
		room.Store(refused)
		r := d.run(t, "gickup", conf)
		if r.exit == 0 {
			break
		}
		git(t, copied, "fsck", "--full", "--strict")
		tip := git(t, copied, "rev-parse", "main")
		if r.exit != 3 || count.Load() != 0 || !strings.Contains(r.stderr, "full") || tip != old && tip != git(t, source, "rev-parse", "main") {
			t.Fatalf("after %d files: exit %d, %d heartbeats, main is %s:\n%s", refused, r.exit, count.Load(), tip, r.stderr)
		}
	}
	if refused < 3 {
		t.Errorf("only %d files were put", refused)
	}
	same(t, copied, source)
}
