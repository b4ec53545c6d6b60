package git

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// RestoreClone makes dir an ordinary clone of the stored repository: a working tree of what HEAD names, with its .git. It has
// all branches, no remote, no hooks and no submodules. r is opened on the repository's part. dir must not exist, or be
// empty. Large files are put in place where git-lfs is installed; else an event says what is left to do.
func RestoreClone(ctx context.Context, r point.Reader, dir string, o RestoreOptions) error {
	return restoreTo(ctx, r, dir, o, func(ctx context.Context, tmp string, l *RefList) error {
		if h := l.find(head); len(o.Refs) > 0 && h != nil && h.Target != "" && l.find(h.Target) == nil {
			return fault.New("", fault.ErrInvalid, "there is no branch among the chosen refs to check out", "choose a branch, too, or restore without a working tree")
		}
		gitDir := filepath.Join(tmp, ".git")
		if err := os.Mkdir(gitDir, 0o755); err != nil {
			return err
		}
		if err := layBare(ctx, r, gitDir, l, o); err != nil {
			return err
		}
		if err := writePlain(gitDir, plainFile{"config", configFile(l.Format, false)}); err != nil {
			return err
		}
		return checkOut(ctx, tmp, gitDir, l, o)
	})
}

// checkOut fills the working tree. Git runs no program of the repository's choosing: it has no filters, no hooks and no
// configuration but the one written here.
func checkOut(ctx context.Context, dir, gitDir string, l *RefList, o RestoreOptions) error {
	h := l.find(head)
	if h == nil || h.OID == "" { // nothing to show yet
		return nil
	}
	cmd := gitCommand(ctx, gitDir, "--work-tree="+dir, "-c", "submodule.recurse=false", "reset", "--hard", "--quiet")
	cmd.Dir = dir
	err := runLarge(ctx, cmd, o.Limits, func(err error) error {
		return fault.Wrap("check out "+h.OID, fault.ErrRefused, err, "restore to a bare repository instead: it takes what a working tree cannot hold")
	})
	if err != nil {
		return err
	}
	return placeLargeFiles(ctx, dir, gitDir, o)
}

// placeLargeFiles puts LFS objects in place of their pointers, by git-lfs.
func placeLargeFiles(ctx context.Context, dir, gitDir string, o RestoreOptions) error {
	if _, err := os.Stat(filepath.Join(gitDir, filepath.FromSlash(lfsObjects))); err != nil {
		return nil //nolint:nilerr // there are none
	}
	lfs := func(args ...string) error {
		cmd := gitCommand(ctx, gitDir, append([]string{"--work-tree=" + dir, "lfs"}, args...)...)
		cmd.Dir = dir
		return run(cmd, 0)
	}
	if lfs("version") != nil {
		say(o, "large files are pointers still: install git-lfs, then run git lfs install and git lfs checkout in "+dir)
		return nil
	}
	if err := lfs("install", "--local", "--skip-repo"); err != nil {
		return fault.Wrap("set up git-lfs", nil, err, "")
	}
	if err := lfs("checkout"); err != nil {
		return fault.Wrap("put large files in place", nil, err, "")
	}
	return os.RemoveAll(filepath.Join(gitDir, "hooks")) // those of git-lfs, which it installs unasked
}

func say(o RestoreOptions, text string) {
	if o.Observe != nil {
		o.Observe(point.Event{Part: o.Part, What: "restoring", Text: strings.TrimSpace(text)})
	}
}
