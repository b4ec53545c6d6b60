package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/scratchdir"
)

// RestoreOptions says what of a repository is brought back. The zero value brings back all of it.
type RestoreOptions struct {
	Refs    []string // full names, or patterns that end in "/*"; none means all
	NoLFS   bool     // leave Git LFS objects out
	Limits  Limits   // of git's checks
	Part    string   // name of the part, for progress
	Observe point.Observer
}

// RestoreBare makes dir a bare repository of the stored one; r is opened on its part. dir must not exist, or be empty. It
// appears whole and checked, or not at all.
func RestoreBare(ctx context.Context, r point.Reader, dir string, o RestoreOptions) error {
	return restoreTo(ctx, r, dir, o, func(ctx context.Context, tmp string, l *RefList) error { return layBare(ctx, r, tmp, l, o) })
}

// restoreTo lets lay fill a directory beside dir, and gives it the name dir when all went well.
func restoreTo(ctx context.Context, r point.Reader, dir string, o RestoreOptions, lay func(ctx context.Context, tmp string, l *RefList) error) error {
	op := "restore to " + dir
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	there, err := vacant(dir)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	l, err := ReadRefs(ctx, r)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if l, err = chooseRefs(l, o.Refs); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	parent, prefix, settle := filepath.Dir(dir), "."+filepath.Base(dir)+".backstay-", settleAs
	if there { // it may be a mount point, a symbolic link, or where the user stands
		parent, prefix, settle = dir, point.UnfinishedPrefix, settleIn
	} else if err := os.MkdirAll(parent, 0o755); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	beside, err := scratchdir.New(parent, prefix)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	defer beside.Remove()
	tmp := filepath.Join(beside.Path, "repository")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	err = lay(ctx, tmp, l)
	if err == nil {
		err = settle(tmp, dir)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(op, fault.ErrUnavailable, err, "free space there, or restore to another disk")
	}
	return fault.Wrap(op, nil, err, "")
}

// vacant fails unless nothing, or an empty directory, is at dir. It tells which.
func vacant(dir string) (there bool, err error) {
	scratchdir.Sweep(dir, point.UnfinishedPrefix)
	const hint = "restore to a directory that does not exist yet"
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(dir); err == nil {
			return false, fault.New("", fault.ErrRefused, "it is a symbolic link to what is not there", hint)
		}
		return false, nil
	case err != nil:
		return false, fault.Wrap("", fault.ErrRefused, err, hint)
	case len(entries) > 0:
		return false, fault.New("", fault.ErrRefused, "the directory is not empty", hint)
	}
	return true, nil
}

// settleAs renames tmp to dir, with the permissions that a directory made there would have.
func settleAs(tmp, dir string) error {
	if err := os.Chmod(tmp, 0o755); err != nil { // an ordinary repository, as git init makes it
		return err
	}
	return os.Rename(tmp, dir)
}

// settleIn moves what is in tmp to dir, and last that by which git knows a repository, so that there is a whole one or none.
func settleIn(tmp, dir string) (err error) {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	last := func(e fs.DirEntry) bool { return e.Name() == head || e.Name() == ".git" }
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int {
		switch {
		case last(a) == last(b):
			return 0
		case last(a):
			return 1
		}
		return -1
	})
	for i, e := range entries {
		if err := os.Rename(filepath.Join(tmp, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			for _, e := range entries[:i] {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
			return err
		}
	}
	return nil
}

// chooseRefs returns the refs that match a name or pattern, and HEAD with what it points to. No names choose all.
func chooseRefs(l *RefList, names []string) (*RefList, error) {
	if len(names) == 0 {
		return l, nil
	}
	chosen := &RefList{Format: l.Format}
	matched := make([]bool, len(names))
	for _, r := range l.Refs {
		take := false
		for i, name := range names {
			if r.Name == name || (strings.HasSuffix(name, "/*") && strings.HasPrefix(r.Name, name[:len(name)-1])) {
				take, matched[i] = true, true
			}
		}
		if take {
			chosen.Refs = append(chosen.Refs, r)
		}
	}
	for i := 0; i < len(chosen.Refs); i++ { // a symbolic ref is nothing without what it points to, which may be symbolic as well
		if target := l.find(chosen.Refs[i].Target); target != nil && chosen.find(target.Name) == nil {
			chosen.Refs = append(chosen.Refs, *target)
		}
	}
	slices.SortFunc(chosen.Refs, compareRefNames)
	if i := slices.Index(matched, false); i >= 0 {
		return nil, fault.New("", fault.ErrNotFound, fmt.Sprintf("the point has no ref %q", names[i]), "the point's refs are shown by backstay show --refs")
	}
	if chosen.find(head) == nil {
		chosen.Refs = append(chosen.Refs, chosenHead(l, chosen))
		slices.SortFunc(chosen.Refs, compareRefNames)
	}
	return chosen, nil
}

// chosenHead is the HEAD of a subset: the point's own where its branch is among the chosen, else the first branch chosen.
func chosenHead(l, chosen *RefList) Ref {
	if h := l.find(head); h != nil && h.Target != "" && chosen.find(h.Target) != nil {
		return *h
	}
	for _, r := range chosen.Refs {
		if strings.HasPrefix(r.Name, "refs/heads/") {
			return Ref{Name: head, OID: r.OID, Target: r.Name}
		}
	}
	return Ref{Name: head, Target: "refs/heads/main"}
}

// layBare fills the empty directory dir with a bare repository.
func layBare(ctx context.Context, r point.Reader, dir string, l *RefList, o RestoreOptions) error {
	if err := layObjects(ctx, r, dir, o); err != nil {
		return err
	}
	if err := writeBare(dir, l); err != nil {
		return err
	}
	return checkRestored(ctx, dir, l, o)
}

// layObjects brings the packs and the LFS objects. Nothing else of a stored tree is taken: the other files are made anew from
// the list of refs.
func layObjects(ctx context.Context, r point.Reader, dir string, o RestoreOptions) error {
	if o.Observe != nil {
		o.Observe(point.Event{Part: o.Part, What: "restoring"})
	}
	if err := r.Extract(ctx, "objects", filepath.Join(dir, "objects")); err != nil && !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	if o.NoLFS {
		return nil
	}
	_, err := r.List(ctx, lfsObjects)
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "lfs"), 0o755); err != nil {
		return err
	}
	return r.Extract(ctx, lfsObjects, filepath.Join(dir, filepath.FromSlash(lfsObjects)))
}

// checkRestored makes sure that git reads the repository at dir, with the refs of l, and that everything they reach is there.
func checkRestored(ctx context.Context, dir string, l *RefList, o RestoreOptions) error {
	const op = "check the restored repository"
	if o.Observe != nil {
		o.Observe(point.Event{Part: o.Part, What: "verifying"})
	}
	cmd := gitCommand(ctx, dir, "rev-list", "--objects", "--all", "--quiet") // with HEAD, which may be detached
	err := runLarge(ctx, cmd, o.Limits, func(err error) error {
		return fault.Wrap(op, fault.ErrCorrupt, err, "verify the point with --read-data")
	})
	if err != nil {
		return err
	}
	return compareRefs(ctx, dir, l)
}

// runLarge runs git on a repository of any size. What it says against it goes through explain; the end of ctx does not.
func runLarge(ctx context.Context, cmd *exec.Cmd, l Limits, explain func(error) error) error {
	found := &findings{}
	cmd.Stderr = found
	smallWindows(cmd)
	err := run(cmd, l.orDefaults().Memory)
	switch said := found.said(); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case said != "":
		err = errors.New(said)
	}
	return explain(err)
}

// smallWindows lets git map packs in small pieces, so that the size of a repository does not count against a limit of memory.
func smallWindows(cmd *exec.Cmd) {
	addConfig(cmd, "core.packedGitWindowSize", "32m", "core.packedGitLimit", "256m", "core.bigFileThreshold", "16m")
}

// compareRefs fails unless git finds exactly the refs of l in the repository at dir.
func compareRefs(ctx context.Context, dir string, l *RefList) error {
	var out strings.Builder
	cmd := gitCommand(ctx, dir, "for-each-ref", "--format=%(objectname) %(refname)")
	cmd.Stdout = &out
	if err := run(cmd, 0); err != nil {
		return fault.Wrap("read the restored refs", fault.ErrCorrupt, err, "")
	}
	var want strings.Builder
	for _, r := range l.Refs {
		if r.Name != head && r.OID != "" {
			want.WriteString(r.OID + " " + r.Name + "\n")
		}
	}
	if out.String() != want.String() {
		return fault.New("compare the restored refs", fault.ErrCorrupt, "git reads other refs than the point records", "")
	}
	return nil
}
