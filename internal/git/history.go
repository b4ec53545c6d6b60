package git

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/scratchdir"
)

// History is a repository in a scratch directory: all that the branches and tags of a server reach, or a copy in a point.
type History struct {
	dir    string
	own    *scratchdir.Dir
	format string
}

// FetchHistory fetches a repository. Revisions that no branch and no tag reaches any more are asked for besides: servers may have them still.
// Errors: as of Remote.ListRefs and Fetch. The caller must call Close.
func FetchHistory(ctx context.Context, raw string, o Options, scratchIn string, l Limits, revisions ...string) (*History, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	op := "fetch " + u.String()
	remote, err := Dial(ctx, u, o)
	if err != nil {
		return nil, err
	}
	defer remote.Close() //nolint:errcheck // all that was wanted has arrived
	refs, err := remote.ListRefs(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newScratch(scratchIn, refs.Format, l)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	h := &History{dir: s.dir, own: s.own, format: refs.Format}
	tips := tipsOf(refs)
	if len(tips) == 0 {
		return h, nil
	}
	if err := h.fetch(ctx, remote, s, tips, nil); err != nil {
		h.Close()
		return nil, fault.Wrap(op, nil, err, "")
	}
	for _, r := range revisions {
		if validOID(r, refs.Format) && !h.has(ctx, r) {
			_ = h.fetch(ctx, remote, s, []string{r}, tips) // who asks for its files is told that it is not there
		}
	}
	return h, nil
}

// tipsOf are what branches and tags point at.
func tipsOf(l *RefList) []string {
	tips := map[string]bool{}
	for _, r := range l.Refs {
		if strings.HasPrefix(r.Name, "refs/heads/") || strings.HasPrefix(r.Name, "refs/tags/") {
			tips[r.OID] = true
		}
	}
	return slices.Sorted(maps.Keys(tips))
}

func (h *History) fetch(ctx context.Context, remote *Remote, s *scratch, wants, haves []string) error {
	index, err := s.index(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := remote.Fetch(ctx, wants, haves, index); err != nil {
		index.abort()
		return err
	}
	return index.finish()
}

// OpenHistory makes a scratch repository of one that is stored in a point; r is opened on its part. The caller must call Close.
func OpenHistory(ctx context.Context, r point.Reader, scratchIn string, l Limits) (*History, error) {
	own, err := scratchdir.New(scratchIn, scratchPrefix)
	if err != nil {
		return nil, scratchError("make scratch directory", err)
	}
	refs, err := ReadRefs(ctx, r)
	h := &History{dir: filepath.Join(own.Path, "repository.git"), own: own}
	if err == nil {
		h.format = refs.Format
		err = RestoreBare(ctx, r, h.dir, RestoreOptions{NoLFS: true, Limits: l})
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Close removes the scratch directory.
func (h *History) Close() { h.own.Remove() }

func (h *History) has(ctx context.Context, revision string) bool {
	return run(gitCommand(ctx, h.dir, "cat-file", "-e", revision+"^{commit}"), 0) == nil
}

// Files are the files of a commit below a directory, "" or "." for all: by their paths in the repository, with mode and object id. A commit
// that is not there is fault.ErrNotFound; a directory that is not has no files.
func (h *History) Files(ctx context.Context, revision, dir string) (map[string]string, error) {
	op := fmt.Sprintf("list the files of %.100s", printable(revision))
	if !validOID(revision, h.format) {
		return nil, fault.New(op, fault.ErrInvalid, "it is no full commit id", "")
	}
	if !h.has(ctx, revision) {
		return nil, fault.New(op, fault.ErrNotFound, "git does not have it", "")
	}
	args := []string{"ls-tree", "-r", "-z", "--full-tree", revision}
	if dir = inTree(dir); dir != "" {
		args = append(args, "--", dir+"/")
	}
	out, err := output(gitCommand(ctx, h.dir, args...))
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	files := map[string]string{}
	for line := range strings.SplitSeq(out, "\x00") {
		what, name, found := strings.Cut(line, "\t")
		if fields := strings.Fields(what); found && len(fields) == 3 { // mode, type, id
			files[name] = fields[0] + " " + fields[2]
		}
	}
	return files, nil
}

// inTree is a directory as git names it: "" for all.
func inTree(dir string) string { return strings.TrimPrefix(path.Clean("/"+dir), "/") }

// Revert makes a commit upon head in which a directory is as it was in good, and returns its id. Where it is so already, that is head.
func (h *History) Revert(ctx context.Context, head, good, dir, message string) (string, error) {
	op := "revert to " + good
	now, err := h.Files(ctx, head, "")
	if err != nil {
		return "", fault.Wrap(op, nil, err, "")
	}
	then, err := h.Files(ctx, good, dir)
	if err != nil {
		return "", fault.Wrap(op, nil, err, "")
	}
	files := maps.Clone(then)
	for name, what := range now {
		if below := inTree(dir); below != "" && !strings.HasPrefix(name, below+"/") {
			files[name] = what
		}
	}
	if maps.Equal(files, now) {
		return head, nil
	}
	commit, err := h.commit(ctx, files, head, message)
	return commit, fault.Wrap(op, nil, err, "")
}

func (h *History) commit(ctx context.Context, files map[string]string, parent, message string) (string, error) {
	var index bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		index.WriteString(files[name] + "\t" + name + "\x00")
	}
	own := "GIT_INDEX_FILE=" + filepath.Join(h.own.Path, "index")
	update := gitCommand(ctx, h.dir, "update-index", "-z", "--index-info")
	update.Env, update.Stdin = append(update.Env, own), &index
	if err := run(update, 0); err != nil {
		return "", err
	}
	write := gitCommand(ctx, h.dir, "write-tree")
	write.Env = append(write.Env, own)
	tree, err := output(write)
	if err != nil {
		return "", err
	}
	commit := gitCommand(ctx, h.dir, "commit-tree", "-p", parent, tree)
	const name, address = "Backstay", "backstay@localhost"
	commit.Env = append(commit.Env, "GIT_AUTHOR_NAME="+name, "GIT_AUTHOR_EMAIL="+address, "GIT_COMMITTER_NAME="+name, "GIT_COMMITTER_EMAIL="+address)
	commit.Stdin = strings.NewReader(message)
	return output(commit)
}

// Push pushes a commit as a branch, which must be new or an ancestor of it.
func (h *History) Push(ctx context.Context, raw, branch, commit string, o Options) error {
	u, err := ParseURL(raw)
	if err != nil {
		return err
	}
	p := &push{o: PushOptions{Options: o}, url: u, report: &PushReport{}}
	ref := Ref{Name: "refs/heads/" + branch, OID: commit}
	op := "push " + branch + " to " + u.String()
	if err := p.pushBatch(ctx, h.dir, []Ref{ref}); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	there := &RefList{}
	err = p.dial(ctx, func(remote *Remote) (err error) {
		there, err = remote.ListRefs(ctx)
		return err
	})
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if r := there.find(ref.Name); r == nil || r.OID != commit {
		return fault.New(op, fault.ErrRefused, "the server did not take it: "+nameSome(p.said), "may the token push branches?")
	}
	return nil
}
