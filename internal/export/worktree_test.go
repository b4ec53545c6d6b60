package export_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/backstay/backstay/internal/export"
)

// checkOut stands for git's own: it makes the files match HEAD.
func checkOut(t *testing.T) func(context.Context, string) error {
	return func(_ context.Context, dir string) error {
		_, err := tryGit(t, dir, "reset", "-q", "--hard")
		return err
	}
}

func TestCloneWithFiles(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("of the host"), 0o600))
	for _, zipped := range []bool{false, true} {
		place, dir := local(t)
		e := exporter(t, export.Options{
			Place: place, Layout: export.Layout{Form: export.Worktree, Zip: zipped}, UpdateWorkTree: checkOut(t),
		})
		u := newUpstream(t, "example.com/acme/api")
		must(t, os.Symlink(outside, filepath.Join(u.dir, "link")))
		must(t, os.Symlink("/", filepath.Join(u.dir, "root")))
		for range 3 {
			u.commit(t)
			backUp(t, e, u)
			backUp(t, e, u)
			at := filepath.Join(dir, "api")
			if zipped {
				to := t.TempDir()
				unzip(t, at+".zip", to)
				at = filepath.Join(to, "api")
			}
			same(t, u, at)
			if out := run(t, at, "status", "--porcelain"); out != "" {
				t.Errorf("zipped %v: status:\n%s", zipped, out)
			}
			target, err := os.Readlink(filepath.Join(at, "link"))
			must(t, err)
			if target != outside {
				t.Errorf("the link points to %s", target)
			}
		}
	}
}
