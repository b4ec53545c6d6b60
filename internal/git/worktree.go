package git

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/scratchdir"
)

// checkoutFile, in the git directory of a clone that is updated from outside, names the commit whose files lie there; while they are
// changed, that one and the next.
const checkoutFile = "backstay-checkout"

// UpdateWorkTree makes the files of dir, a clone whose git directory was brought up to date without them, match what HEAD names now.
// Files that git does not have, and changes to those it has, are never lost: where they are in the way nothing is touched, and the
// error (fault.ErrRefused) names them. A run that was killed is finished by the next. Git sees none of the clone's configuration,
// hooks and filters.
func UpdateWorkTree(ctx context.Context, dir string) error {
	op := "update the files in " + dir
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	info, err := os.Lstat(filepath.Join(dir, ".git"))
	if err != nil || !info.IsDir() {
		return fault.New(op, fault.ErrInvalid, "there is no git directory", "")
	}
	t := &workTree{dir: dir, gitDir: filepath.Join(dir, ".git")}
	return fault.Wrap(op, nil, t.update(ctx), "")
}

// workTree is one run of UpdateWorkTree.
type workTree struct {
	dir, gitDir string
	clean       string // a git directory with a configuration of our own
}

func (t *workTree) update(ctx context.Context) error {
	to, err := t.head(ctx)
	if err != nil || to == "" {
		return err
	}
	scratch, err := scratchdir.New("", scratchPrefix)
	if err != nil {
		return scratchError("make scratch directory", err)
	}
	defer scratch.Remove()
	t.clean = filepath.Join(scratch.Path, "clean.git")
	if err := writeBare(t.clean, &RefList{Format: formatOf(to), Refs: []Ref{{Name: head, OID: to}}}); err != nil {
		return scratchError("make scratch repository", err)
	}
	if err := writePlain(t.clean, plainFile{"config", configFile(formatOf(to), false)}); err != nil {
		return scratchError("make scratch repository", err)
	}
	from, err := t.from(ctx, to)
	if err != nil {
		return err
	}
	if err := t.try(ctx, from, to); err != nil {
		return err
	}
	if err := t.note(from + " " + to); err != nil {
		return err
	}
	if err := run(t.readTree(ctx, from, to), 0); err != nil {
		return fault.Wrap("", fault.ErrUnavailable, err, "the next run goes on where this one stopped")
	}
	if err := t.note(to); err != nil {
		return err
	}
	return placeLargeFiles(ctx, t.dir, t.gitDir, RestoreOptions{})
}

// formatOf is the object format of an id.
func formatOf(oid string) string {
	if len(oid) == oidLength("sha256") {
		return "sha256"
	}
	return "sha1"
}

// emptyTree is the id of the tree of nothing, which git has in every repository.
func emptyTree(format string) string {
	if format == "sha256" {
		return "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
	}
	return "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
}

// head is what the clone's HEAD names; "" for an unborn branch.
func (t *workTree) head(ctx context.Context) (string, error) {
	oid, err := output(gitCommand(ctx, t.gitDir, "rev-parse", "--verify", "--quiet", "HEAD"))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", nil
	}
	return oid, err
}

// output runs a command and returns what it printed, without the line feed at its end.
func output(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout = &out
	err := run(cmd, 0)
	return strings.TrimSuffix(out.String(), "\n"), err
}

// git prepares git on the clone's objects, index and files.
func (t *workTree) git(ctx context.Context, args ...string) *exec.Cmd {
	cmd := gitCommand(ctx, t.clean, append([]string{"--work-tree=" + t.dir}, args...)...)
	cmd.Dir = t.dir
	cmd.Env = append(cmd.Env, "GIT_OBJECT_DIRECTORY="+filepath.Join(t.gitDir, "objects"), "GIT_INDEX_FILE="+filepath.Join(t.gitDir, "index"))
	return cmd
}

// note writes checkoutFile, whole or not at all.
func (t *workTree) note(text string) error {
	path := filepath.Join(t.gitDir, checkoutFile)
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// from finds out what files lie there now: those of a commit, or of a tree.
func (t *workTree) from(ctx context.Context, to string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(t.gitDir, checkoutFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	known := strings.Fields(string(raw))
	for _, oid := range known {
		if !validOID(oid, formatOf(to)) {
			return "", fault.New("read "+checkoutFile, fault.ErrCorrupt, "it names no commit", "delete the clone; the next run makes it again")
		}
	}
	switch {
	case len(known) == 1:
		return known[0], nil
	case len(known) == 2:
		return t.resume(ctx, known[0], known[1])
	}
	if _, err := os.Lstat(filepath.Join(t.gitDir, "index")); errors.Is(err, fs.ErrNotExist) {
		return emptyTree(formatOf(to)), nil
	}
	return t.recognize(ctx)
}

// resume clears away what a run left that was killed on its way. What it would have changed was nobody's but git's.
func (t *workTree) resume(ctx context.Context, from, to string) (string, error) {
	if err := os.Remove(filepath.Join(t.gitDir, "index.lock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if run(t.git(ctx, "diff-index", "--cached", "--quiet", to), 0) == nil {
		return to, nil // it came as far as the index, which is written last
	}
	names, err := output(t.git(ctx, "diff-tree", "-r", "-z", "--name-only", "--no-renames", treeOf(from), treeOf(to)))
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // opened for reading
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		if name != "" {
			root.Remove(name) //nolint:errcheck // what stays is in the way, and said to be
		}
	}
	return from, nil
}

// treeOf names the tree of a commit, or a tree.
func treeOf(oid string) string { return oid + "^{tree}" }

// recognize finds the commit whose files the index has, in a clone that others made.
func (t *workTree) recognize(ctx context.Context) (string, error) {
	const hint = "commit or undo what is staged there, or delete the clone: the next run makes it again"
	tree, err := output(t.git(ctx, "write-tree"))
	if err != nil {
		return "", fault.Wrap("read the index", fault.ErrRefused, err, hint)
	}
	trees, err := output(gitCommand(ctx, t.gitDir, "rev-list", "--all", "--no-commit-header", "--format=%T"))
	if err != nil {
		return "", err
	}
	for known := range strings.Lines(trees) {
		if strings.TrimSpace(known) == tree {
			return tree, nil
		}
	}
	return "", fault.New("", fault.ErrRefused, "changes are staged there that no commit has", hint)
}

// readTree prepares the change of the files from one commit, or tree, to another.
func (t *workTree) readTree(ctx context.Context, from, to string, how ...string) *exec.Cmd {
	return t.git(ctx, append(append([]string{"read-tree", "-m", "-u"}, how...), treeOf(from), treeOf(to))...)
}

// try finds out whether anything is in the way.
func (t *workTree) try(ctx context.Context, from, to string) error {
	run(t.git(ctx, "update-index", "-q", "--refresh"), 0) //nolint:errcheck // it names files that were changed; what is in the way is named below
	err := run(t.readTree(ctx, from, to, "--dry-run"), 0)
	var failed *programError
	if errors.As(err, &failed) && ctx.Err() == nil {
		return fault.Wrap("", fault.ErrRefused, err, "move away what was changed there; the next run updates the files")
	}
	return err
}
