package export_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/webdav"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/protect"
)

// failing is a directory of which the operation with the number at, and all after it, fail. A file that fails is read halfway.
type failing struct {
	*export.Local
	n, at int
}

var errFull = fault.New("write", fault.ErrRefused, "no space left", "")

func (f *failing) fails() bool {
	f.n++
	return f.at > 0 && f.n >= f.at
}

func (f *failing) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	if f.fails() {
		n, err := io.CopyN(io.Discard, body, 10)
		if err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		return n, errFull
	}
	return f.Local.Put(ctx, name, body)
}

func (f *failing) MakeDir(ctx context.Context, dir string) error {
	if f.fails() {
		return errFull
	}
	return f.Local.MakeDir(ctx, dir)
}

func (f *failing) Remove(ctx context.Context, name string) error {
	if f.fails() {
		return errFull
	}
	return f.Local.Remove(ctx, name)
}

func (f *failing) Copy(ctx context.Context, from, to string) error {
	if f.fails() {
		return errFull
	}
	return f.Local.Copy(ctx, from, to)
}

func (f *failing) Rename(ctx context.Context, from, to string) error {
	if f.fails() {
		return errFull
	}
	return f.Local.Rename(ctx, from, to)
}

// TestEveryFailureLeavesAWholeCopy makes each operation of an update fail in turn, as a full disk or a crash does, and looks whether
// what lies there is the old state or the new one, and whether the next run mends it.
func TestEveryFailureLeavesAWholeCopy(t *testing.T) {
	t.Parallel()
	for _, layout := range []export.Layout{{}, {Keep: 2}, {Dated: true}, {Zip: true}, {Zip: true, Keep: 2}} {
		t.Run(fmt.Sprintf("%+v", layout), func(t *testing.T) {
			u := newUpstream(t, "example.com/acme/api")
			run(t, u.dir, "branch", "foo")
			first, now := filepath.Join(t.TempDir(), "first"), clock()
			l, err := export.NewLocal(first)
			must(t, err)
			backUp(t, exporter(t, export.Options{Place: l, Layout: layout, Clock: now}), u)
			old, rewritten := refs(t, u.dir), run(t, u.dir, "rev-parse", "HEAD")
			run(t, u.dir, "branch", "-D", "foo")
			run(t, u.dir, "commit", "-q", "--allow-empty", "-m", "another")
			run(t, u.dir, "branch", "foo/bar")
			run(t, u.dir, "reset", "-q", "--hard", rewritten)
			run(t, u.dir, "commit", "-q", "--amend", "-m", "rewritten")
			u.commit(t)
			for at := 1; ; at++ {
				if at > 100 {
					t.Fatal("it never succeeds")
				}
				dir := filepath.Join(t.TempDir(), "copy")
				must(t, os.CopyFS(dir, os.DirFS(first)))
				l, err := export.NewLocal(dir)
				must(t, err)
				_, err = protect.Backup(t.Context(), exporter(t, export.Options{Place: &failing{l, 0, at}, Layout: layout, Clock: now}), u.source(t), "")
				if err == nil {
					if at < 3 && !layout.Zip {
						t.Errorf("only %d operations", at-1)
					}
					break
				}
				if !errors.Is(err, fault.ErrRefused) {
					t.Fatalf("operation %d: %v", at, err)
				}
				got := readable(t, dir)
				if !slices.Equal(got, old) && !slices.Equal(got, refs(t, u.dir)) {
					t.Errorf("operation %d: refs are neither old nor new:\n%s", at, strings.Join(got, "\n"))
				}
				backUp(t, exporter(t, export.Options{Place: l, Layout: layout, Clock: now}), u)
				if got := readable(t, dir); !slices.Equal(got, refs(t, u.dir)) {
					t.Errorf("operation %d: not mended:\n%s", at, strings.Join(got, "\n"))
				}
				repository := newest(t, dir)
				run(t, repository, "gc", "-q", "--prune=now")
				run(t, repository, "cat-file", "commit", rewritten)
			}
		})
	}
}

// readable returns the refs of the newest copy below dir after checking it.
func readable(t *testing.T, dir string) []string {
	t.Helper()
	repository := newest(t, dir)
	if out, err := tryGit(t, repository, "fsck", "--full", "--strict"); err != nil {
		t.Fatalf("fsck of %s: %v\n%s", repository, err, out)
	}
	return slices.DeleteFunc(refs(t, repository), func(line string) bool { return strings.Contains(line, "refs/backstay/") })
}

// newest finds the newest copy of the repository "api" in any layout; a zip file is unpacked.
func newest(t *testing.T, dir string) string {
	t.Helper()
	for _, pattern := range []string{"api.git/1*.zip", "api.git.zip", "api.git/1*", "2*/api.git", "api.git"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		if len(found) == 0 {
			continue
		}
		slices.Sort(found)
		last := found[len(found)-1]
		if filepath.Ext(last) != ".zip" {
			return last
		}
		to := t.TempDir()
		unzip(t, last, to)
		return filepath.Join(to, "api.git")
	}
	t.Fatalf("no copy in %s", dir)
	return ""
}

// davServer serves a directory by WebDAV. While fail is set, it answers 507 to every PUT from that number on.
func davServer(t *testing.T) (place *export.WebDAV, dir string, fail *atomic.Int64) {
	t.Helper()
	dir, fail = t.TempDir(), &atomic.Int64{}
	handler := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "backstay" || password != "not-much-of-a-secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPut && fail.Load() > 0 && fail.Add(-1) == 0 {
			fail.Store(1) // and the next one, too
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	place, err := export.NewWebDAV(export.WebDAVOptions{
		URL: server.URL, Path: "deep/down", Username: "backstay", Password: "not-much-of-a-secret", Scratch: t.TempDir(),
	})
	must(t, err)
	return place, dir, fail
}

// killed is a directory whose process is killed while it removes another.
type killed struct{ *export.Local }

func (k killed) Remove(ctx context.Context, name string) error {
	if strings.HasSuffix(name, ".issues") {
		return k.Local.Remove(ctx, name)
	}
	for _, file := range []string{".backstay", "HEAD"} {
		if err := k.Local.Remove(ctx, name+"/"+file); err != nil {
			return err
		}
	}
	return errFull
}

func TestCopiesThatAreDroppedGoAtOnce(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	u := newUpstream(t, "example.com/acme/api")
	o := export.Options{Place: place, Layout: export.Layout{Keep: 1}}
	backUp(t, exporter(t, o), u)
	u.commit(t)
	o.Place = killed{place}
	if _, err := protect.Backup(t.Context(), exporter(t, o), u.source(t), ""); !errors.Is(err, fault.ErrRefused) {
		t.Fatalf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "api.git", "[0-9]*"))
	if must(t, err); len(left) != 1 {
		t.Errorf("%q are left, want the newest", left)
	}
	for _, copied := range left {
		run(t, copied, "fsck", "--full")
	}
}

func TestFullWebDAVServerKeepsTheOldCopy(t *testing.T) {
	t.Parallel()
	place, dir, fail := davServer(t)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{Structured: true}})
	u := newUpstream(t, "example.com/acme/api")
	backUp(t, e, u)
	copied := filepath.Join(dir, "deep/down/example.com/acme/api")
	same(t, u, copied)
	old := refs(t, u.dir)
	run(t, u.dir, "branch", "more")
	u.commit(t)
	for at := int64(1); ; at++ {
		fail.Store(at)
		_, err := protect.Backup(t.Context(), e, u.source(t), "")
		fail.Store(0)
		if err == nil {
			if at < 5 {
				t.Errorf("only %d files were put", at-1)
			}
			break
		}
		if !errors.Is(err, fault.ErrRefused) || !strings.Contains(strings.Join(fault.Hints(err), " "), "full") {
			t.Fatalf("put %d: %v (%v)", at, err, fault.Hints(err))
		}
		if strings.Contains(err.Error(), "not-much-of-a-secret") {
			t.Errorf("the error holds the password: %v", err)
		}
		if out, err := tryGit(t, copied, "fsck", "--full"); err != nil {
			t.Fatalf("put %d: fsck: %v\n%s", at, err, out)
		}
		got := refs(t, copied)
		got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, "refs/backstay/") })
		if !slices.Equal(got, old) && !slices.Equal(got, refs(t, u.dir)) {
			t.Errorf("put %d: refs are neither old nor new: %s", at, got)
		}
	}
	same(t, u, copied)
}

func TestWrongPasswordIsDenied(t *testing.T) {
	t.Parallel()
	place, _, _ := davServer(t)
	server := strings.TrimSuffix(place.String(), "/deep/down")
	wrong, err := export.NewWebDAV(export.WebDAVOptions{URL: server, Username: "backstay", Password: "something-else"})
	must(t, err)
	_, err = protect.Backup(t.Context(), exporter(t, export.Options{Place: wrong}), newUpstream(t, "example.com/acme/api").source(t), "")
	if !errors.Is(err, fault.ErrDenied) {
		t.Errorf("got %v", err)
	}
}

// A server that is not what it was, or that somebody has taken over, must not get copies and passwords brought elsewhere.
func TestWebDAVStaysWithItsServer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(elsewhere.Close)
	for name, hostile := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"login elsewhere": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", "Passport1.4 ct=1")
			w.Header().Set("Location", elsewhere.URL+"/login")
			w.WriteHeader(http.StatusFound)
		},
	} {
		server := httptest.NewServer(hostile)
		t.Cleanup(server.Close)
		place, err := export.NewWebDAV(export.WebDAVOptions{URL: server.URL, Username: "backstay", Password: "dav-password-5e"})
		must(t, err)
		for what, call := range map[string]func() error{
			"list": func() error { _, err := place.List(t.Context(), "a"); return err },
			"put":  func() error { _, err := place.Put(t.Context(), "a/b", strings.NewReader("c")); return err },
			"open": func() error { _, err := place.Open(t.Context(), "a/b"); return err },
		} {
			if err := call(); err == nil {
				t.Errorf("%s, %s: no error", name, what)
			}
		}
	}
	if asked.Load() > 0 {
		t.Errorf("%d requests went elsewhere", asked.Load())
	}
}
