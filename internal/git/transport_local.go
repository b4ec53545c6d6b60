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
)

// gitDir is where a local repository lies.
type gitDir struct {
	dir    string // of HEAD
	common string // of refs and objects; another one only for a linked worktree
}

// openGitDir finds the git directory of the repository at path: a working tree, a linked worktree, a bare repository, or a git directory
// itself. It refuses clones that do not hold the whole history.
func openGitDir(path string) (gitDir, error) {
	for _, candidate := range []string{filepath.Join(path, ".git"), path, path + ".git"} {
		dir, err := followGitFile(candidate)
		if err != nil {
			return gitDir{}, err
		}
		d := gitDir{dir: dir, common: commonDir(dir)}
		if d.exists() {
			return d, d.checkWhole()
		}
	}
	if _, err := os.Stat(path); err != nil {
		return gitDir{}, statFault(err)
	}
	return gitDir{}, fault.New("", fault.ErrNotFound, "it is not a git repository", "name the top directory of a working tree, or a bare repository")
}

func statFault(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fault.New("", fault.ErrDenied, "the directory cannot be read", "check its permissions")
	case errors.Is(err, fs.ErrNotExist):
		return fault.New("", fault.ErrNotFound, "there is no such directory", "a repository on a server begins with https://, ssh:// or user@host:")
	}
	return fault.Wrap("", fault.ErrUnavailable, err, "")
}

// smallFile bounds what is read of git's one-line files, in bytes.
const smallFile = 64 << 10

// followGitFile reads "gitdir: <path>" where candidate is a file of a linked worktree or a submodule.
func followGitFile(candidate string) (string, error) {
	info, err := os.Stat(candidate)
	if err != nil || !info.Mode().IsRegular() || info.Size() > smallFile {
		return candidate, nil
	}
	text, err := os.ReadFile(candidate)
	if err != nil {
		return "", statFault(err)
	}
	target, ok := strings.CutPrefix(strings.TrimRight(string(text), "\r\n"), "gitdir: ")
	if !ok {
		return candidate, nil
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(candidate), target)
	}
	return target, nil
}

// commonDir is the directory that dir shares with other worktrees: dir itself where it shares none.
func commonDir(dir string) string {
	path := filepath.Join(dir, "commondir")
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > smallFile {
		return dir
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return dir
	}
	common := strings.TrimRight(string(text), "\r\n")
	if !filepath.IsAbs(common) {
		common = filepath.Join(dir, common)
	}
	return common
}

// exists reports whether it looks like a git directory to git.
func (d gitDir) exists() bool {
	if _, err := os.Lstat(filepath.Join(d.dir, "HEAD")); err != nil {
		return false
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(d.common, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// checkWhole refuses shallow and partial clones.
func (d gitDir) checkWhole() error {
	if info, err := os.Stat(filepath.Join(d.common, "shallow")); err == nil && info.Size() > 0 {
		return errShallow()
	}
	partial, err := filepath.Glob(filepath.Join(escapeGlob(d.common), "objects", "pack", "*.promisor"))
	if err == nil && len(partial) > 0 {
		return fault.New("", fault.ErrUnsupported, "the source is a partial clone: it does not hold all its objects",
			"back up the repository it was cloned from, or run git fetch --refetch --no-filter in it")
	}
	return nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}

// localTransport runs upload-pack on a local repository.
type localTransport struct {
	dir gitDir
	opt Options
}

func (t *localTransport) open(ctx context.Context, _ *watch) (*stream, error) {
	if err := t.dir.checkWhole(); err != nil {
		return nil, err
	}
	return startStream(ctx, t.command)
}

// command is upload-pack with the user's own configuration, for its list of safe directories. Nothing of the repository's runs:
// upload-pack knows no hooks of the repository, and what its configuration hides is shown.
func (t *localTransport) command(ctx context.Context) *exec.Cmd {
	cmd := command(ctx, "git", "upload-pack", "--strict", t.dir.dir)
	cmd.Env = append(cleanEnviron(neededEnviron(t.opt.Env)), "GIT_PROTOCOL=version="+t.opt.protocol)
	cmd.Env = append(cmd.Env, configEnviron(
		"protocol.allow", "never",
		"core.hooksPath", os.DevNull,
		"core.fsmonitor", "false",
		"transfer.hideRefs", "!refs",
		"uploadpack.hideRefs", "!refs",
		"uploadpack.allowAnySHA1InWant", "true",
	)...)
	return cmd
}
