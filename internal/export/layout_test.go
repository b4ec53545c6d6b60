package export_test

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/protect"
)

// unzip unpacks as unzip does, with links as links.
func unzip(t *testing.T, name, to string) {
	t.Helper()
	z, err := zip.OpenReader(name)
	must(t, err)
	defer z.Close()
	for _, f := range z.File {
		dest := filepath.Join(to, filepath.FromSlash(f.Name))
		must(t, os.MkdirAll(filepath.Dir(dest), 0o755))
		r, err := f.Open()
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		switch {
		case f.Mode().IsDir():
			must(t, os.MkdirAll(dest, 0o755))
		case f.Mode().Type() == fs.ModeSymlink:
			must(t, os.Symlink(string(data), dest))
		default:
			must(t, os.WriteFile(dest, data, 0o644))
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		if e.Name() != lockFile {
			all = append(all, e.Name())
		}
	}
	return all
}

// lockFile is beside the copies in a directory.
const lockFile = ".backstay.lock"

func TestTwoRepositoriesOfOneName(t *testing.T) {
	t.Parallel()
	for _, zipped := range []bool{false, true} {
		place, dir := local(t)
		o := export.Options{Place: place, Layout: export.Layout{Zip: zipped}}
		one, two := newUpstream(t, "example.com/one/api"), newUpstream(t, "example.com/two/api")
		backUp(t, exporter(t, o), one)
		before := state(t, dir)
		_, err := protect.Backup(t.Context(), exporter(t, o), two.source(t), "")
		if !errors.Is(err, fault.ErrExists) || !strings.Contains(err.Error(), "example.com/one/api") || !strings.Contains(err.Error(), "example.com/two/api") {
			t.Errorf("got %v", err)
		}
		if !equal(before, state(t, dir)) {
			t.Error("the first one's copy was touched")
		}
		backUp(t, exporter(t, o), one)
	}
}

func TestClaimsHoldWithinARun(t *testing.T) {
	t.Parallel()
	place, _ := local(t)
	e := exporter(t, export.Options{Place: place})
	one, two := newUpstream(t, "example.com/one/api"), newUpstream(t, "example.com/two/api")
	draft, err := e.Begin(t.Context(), one.source(t).Subject(), "")
	must(t, err)
	_, err = draft.Part(t.Context(), "git/example.com/one/api.git", "git")
	must(t, err)
	if _, err := protect.Backup(t.Context(), e, two.source(t), ""); !errors.Is(err, fault.ErrExists) {
		t.Errorf("got %v", err)
	}
	must(t, draft.Abandon(t.Context()))
	backUp(t, e, two)
}

func TestKeepCopiesWhatChanged(t *testing.T) {
	t.Parallel()
	for _, zipped := range []bool{false, true} {
		place, dir := local(t)
		e := exporter(t, export.Options{Place: place, Layout: export.Layout{Keep: 2, Zip: zipped}})
		u := newUpstream(t, "example.com/acme/api")
		top := filepath.Join(dir, "api.git")
		// What is not ours stays: a number that is no copy, a copy that another program made, a note.
		foreign := []string{"100", "1600000000", "notes"}
		for _, name := range foreign {
			must(t, os.MkdirAll(filepath.Join(top, name), 0o755))
			must(t, os.WriteFile(filepath.Join(top, name, "HEAD"), []byte("ref: refs/heads/main\n"), 0o644))
		}
		for range 4 {
			u.commit(t)
			backUp(t, e, u)
			backUp(t, e, u) // nothing new: no copy
		}
		left := names(t, top)
		if len(left) != len(foreign)+2 {
			t.Fatalf("left are %v", left)
		}
		for _, name := range foreign {
			if !slices.Contains(left, name) {
				t.Errorf("%s is gone", name)
			}
		}
		if got := readable(t, dir); !slices.Equal(got, refs(t, u.dir)) {
			t.Errorf("refs %v", got)
		}
		if !zipped {
			copies, _ := filepath.Glob(top + "/177*/objects/pack/*.pack")
			if shared := sharedInodes(t, copies); shared == 0 {
				t.Error("the copies share no pack")
			}
		}
		// One too many, as a run leaves it that is killed before its end, goes although nothing is new.
		backUp(t, exporter(t, export.Options{Place: place, Layout: export.Layout{Keep: 1, Zip: zipped}}), u)
		if left := names(t, top); len(left) != len(foreign)+1 {
			t.Errorf("left are %v", left)
		}
	}
}

func sharedInodes(t *testing.T, files []string) int {
	t.Helper()
	shared := 0
	for i, a := range files {
		for _, b := range files[i+1:] {
			one, err := os.Stat(a)
			must(t, err)
			two, err := os.Stat(b)
			must(t, err)
			if os.SameFile(one, two) {
				shared++
			}
		}
	}
	return shared
}

func TestDatedCopies(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{Dated: true, Structured: true}, Clock: func() time.Time { return now }})
	u := newUpstream(t, "example.com/acme/api")
	backUp(t, e, u)
	u.commit(t)
	backUp(t, e, u)
	now = now.AddDate(0, 0, 1)
	backUp(t, e, u)
	if got := names(t, dir); !slices.Equal(got, []string{"2026-05-01", "2026-05-02"}) {
		t.Fatalf("got %v", got)
	}
	same(t, u, filepath.Join(dir, "2026-05-01/example.com/acme/api.git"))
	same(t, u, filepath.Join(dir, "2026-05-02/example.com/acme/api.git"))
}

func TestClonesOfOthers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		make   func(t *testing.T, u *upstream, at string)
		taken  bool
		origin string
	}{
		{"bare clone", func(t *testing.T, u *upstream, at string) { run(t, ".", "clone", "-q", "--bare", "file://"+u.dir, at) }, true, "https://example.com/acme/api.git"},
		{"mirror over ssh", func(t *testing.T, u *upstream, at string) {
			run(t, ".", "clone", "-q", "--mirror", "file://"+u.dir, at)
		}, true, "git@example.com:acme/api.git"},
		{"of something else", func(t *testing.T, u *upstream, at string) { run(t, ".", "clone", "-q", "--bare", "file://"+u.dir, at) }, false, "https://example.com/other/api"},
		{"no clone", func(t *testing.T, _ *upstream, at string) {
			must(t, os.MkdirAll(at, 0o755))
			must(t, os.WriteFile(filepath.Join(at, "precious"), nil, 0o644))
		}, false, ""},
		{"shallow", func(t *testing.T, u *upstream, at string) {
			run(t, ".", "clone", "-q", "--bare", "--depth=1", "file://"+u.dir, at)
		}, false, "https://example.com/acme/api.git"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			place, dir := local(t)
			u := newUpstream(t, "example.com/acme/api")
			u.commit(t)
			lost := run(t, u.dir, "rev-parse", "HEAD")
			at := filepath.Join(dir, "api.git")
			test.make(t, u, at)
			if test.origin != "" {
				run(t, at, "remote", "set-url", "origin", test.origin)
			}
			before := state(t, dir)
			run(t, u.dir, "reset", "-q", "--hard", "HEAD~1")
			u.commit(t)
			receipt, err := protect.Backup(t.Context(), exporter(t, export.Options{Place: place}), u.source(t), "")
			if !test.taken {
				if !errors.Is(err, fault.ErrExists) || len(fault.Hints(err)) == 0 {
					t.Errorf("got %v", err)
				}
				if !equal(before, state(t, dir)) {
					t.Error("it was touched")
				}
				return
			}
			must(t, err)
			if len(receipt.Warnings) != 1 {
				t.Errorf("warnings %v", receipt.Warnings)
			}
			same(t, u, at)
			run(t, at, "gc", "-q", "--prune=now")
			run(t, at, "cat-file", "commit", lost)
			u.commit(t)
			backUp(t, exporter(t, export.Options{Place: place}), u)
			same(t, u, at)
		})
	}
}

func TestTakingOverThatIsCutShortIsMended(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		place, dir := local(t)
		u := newUpstream(t, "example.com/acme/api")
		lost := u.commit(t)
		copied := filepath.Join(dir, "api.git")
		run(t, ".", "clone", "-q", "--bare", "file://"+u.dir, copied)
		run(t, copied, "remote", "set-url", "origin", "https://example.com/acme/api")
		run(t, u.dir, "reset", "-q", "--hard", "HEAD~1")
		u.commit(t)
		_, err := protect.Backup(t.Context(), exporter(t, export.Options{Place: &failing{place, 0, at}}), u.source(t), "")
		backUp(t, exporter(t, export.Options{Place: place}), u)
		same(t, u, copied)
		run(t, copied, "gc", "-q", "--prune=now")
		run(t, copied, "cat-file", "commit", lost)
		if err == nil {
			return
		}
		if at > 50 {
			t.Fatal("it never succeeds")
		}
	}
}

func TestRefsMadeInACopyAreKept(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	e := exporter(t, export.Options{Place: place})
	u := newUpstream(t, "example.com/acme/api")
	backUp(t, e, u)
	copied := filepath.Join(dir, "api.git")
	mine := run(t, copied, "commit-tree", "-m", "mine", "HEAD^{tree}")
	run(t, copied, "update-ref", "refs/heads/mine", mine)
	u.commit(t)
	backUp(t, e, u)
	same(t, u, copied)
	if got := run(t, copied, "rev-parse", "refs/backstay/kept/"+mine); got != mine {
		t.Errorf("got %s", got)
	}
}

func TestHostileNamesAreRefused(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	for _, name := range []string{"example.com/acme/..", "example.com/../api", "example.com/acme/.git", `example.com/a\b/api`, "example.com/acme/.backstay"} {
		e := exporter(t, export.Options{Place: place, Layout: export.Layout{Structured: true}})
		u := newUpstream(t, name)
		if _, err := protect.Backup(t.Context(), e, u.source(t), ""); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestNoLinkLeadsOut(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	outside := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(dir, "api.git")))
	_, err := protect.Backup(t.Context(), exporter(t, export.Options{Place: place}), newUpstream(t, "example.com/acme/api").source(t), "")
	if err == nil {
		t.Error("it was followed")
	}
	if left := names(t, outside); len(left) > 0 {
		t.Errorf("outside are %v", left)
	}
}
