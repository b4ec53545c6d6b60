package vault

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Snapshot gives access to what a snapshot holds, and reports whether that is a directory: else it is one file, at ".".
func (s *Server) Snapshot(ctx context.Context, id string) (r point.Reader, isDir bool, err error) {
	op := "open snapshot " + id
	m, err := s.load(ctx, op, id)
	if err != nil {
		return nil, false, err
	}
	root, err := snapshotfs.SnapshotRoot(s.rep, m)
	if err != nil {
		return nil, false, fault.Wrap(op, fault.ErrCorrupt, err, "")
	}
	return serverTree{root}, root.IsDir(), nil
}

// serverTree is the tree of a snapshot. Whoever wrote it is not trusted: no name in it leads out of where it is restored to.
type serverTree struct{ root fs.Entry }

func (t serverTree) find(ctx context.Context, name string) (fs.Entry, error) {
	op := "find " + quote(name)
	names, err := elements(name)
	if err != nil {
		return nil, err
	}
	entry := t.root
	for _, n := range names {
		dir, is := entry.(fs.Directory)
		if !is {
			return nil, fault.New(op, fault.ErrNotFound, "there is no such file", "")
		}
		if entry, err = dir.Child(ctx, n); errors.Is(err, fs.ErrEntryNotFound) {
			return nil, fault.New(op, fault.ErrNotFound, "there is no such file", "")
		}
		if err != nil {
			return nil, serverFault(op, err)
		}
	}
	return entry, nil
}

// List lists a directory.
func (t serverTree) List(ctx context.Context, name string) (entries []point.Entry, err error) {
	err = t.each(ctx, name, func(e fs.Entry) error {
		entries = append(entries, point.Entry{
			Name: e.Name(), Mode: e.Mode(), Size: e.Size(), Time: e.ModTime(), UID: e.Owner().UserID, GID: e.Owner().GroupID,
		})
		return nil
	})
	return entries, err
}

func (t serverTree) each(ctx context.Context, name string, do func(fs.Entry) error) error {
	entry, err := t.find(ctx, name)
	if err != nil {
		return err
	}
	dir, is := entry.(fs.Directory)
	if !is {
		return fault.New("list "+quote(name), fault.ErrInvalid, "it is no directory", "")
	}
	return eachIn(ctx, dir, do)
}

func eachIn(ctx context.Context, dir fs.Directory, do func(fs.Entry) error) error {
	entries, err := dir.Iterate(ctx)
	if err != nil {
		return serverFault("list "+quote(dir.Name()), err)
	}
	defer entries.Close()
	for {
		e, err := entries.Next(ctx)
		if err != nil || e == nil {
			return serverFault("list "+quote(dir.Name()), err)
		}
		if n := e.Name(); n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\x00") {
			return fault.New("list "+quote(dir.Name()), fault.ErrCorrupt, quote(n)+" is no name of a file", "")
		}
		if err := do(e); err != nil {
			return err
		}
	}
}

// Open opens a file.
func (t serverTree) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	entry, err := t.find(ctx, name)
	if err != nil {
		return nil, err
	}
	file, is := entry.(fs.File)
	if !is {
		return nil, fault.New("open "+quote(name), fault.ErrInvalid, "it is no file", "")
	}
	r, err := file.Open(ctx)
	return r, serverFault("open "+quote(name), err)
}

// Extract writes a file or a tree to dest, which must not exist.
func (t serverTree) Extract(ctx context.Context, from, dest string) error {
	op := "extract " + quote(from)
	entry, err := t.find(ctx, from)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return localFault(op, err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	name := filepath.Base(dest)
	if _, err := root.Lstat(name); err == nil {
		return fault.New(op, fault.ErrExists, quote(dest)+" is there already", "")
	}
	if err := extractEntry(ctx, root, name, entry); err != nil {
		return fault.Wrap(op, nil, errors.Join(err, root.RemoveAll(name)), "")
	}
	return nil
}

// extractEntry writes an entry below a root, where nothing may be of its name.
func extractEntry(ctx context.Context, root *os.Root, name string, entry fs.Entry) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var err error
	switch e := entry.(type) {
	case fs.Directory:
		if err := root.Mkdir(name, 0o700); err != nil {
			return localFault("make "+quote(name), err)
		}
		err = eachIn(ctx, e, func(below fs.Entry) error { return extractEntry(ctx, root, path.Join(name, below.Name()), below) })
	case fs.Symlink:
		return extractLink(ctx, root, name, e)
	case fs.File:
		err = extractFile(ctx, root, name, e)
	default:
		err = fault.New("extract "+quote(name), fault.ErrUnsupported, "it is neither file, directory nor symbolic link", "")
	}
	if err != nil {
		return err
	}
	return localFault("set attributes of "+quote(name), errors.Join(
		own(root, name, entry),
		root.Chmod(name, entry.Mode()&modeBits),
		root.Chtimes(name, entry.ModTime(), entry.ModTime()),
	))
}

// own gives what was extracted its owner, where the process may.
func own(root *os.Root, name string, entry fs.Entry) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return root.Lchown(name, int(entry.Owner().UserID), int(entry.Owner().GroupID))
}

func extractLink(ctx context.Context, root *os.Root, name string, e fs.Symlink) error {
	to, err := e.Readlink(ctx)
	if err != nil {
		return serverFault("read link "+quote(name), err)
	}
	if err := root.Symlink(to, name); err != nil {
		return localFault("make link "+quote(name), err)
	}
	return localFault("set attributes of "+quote(name), errors.Join(own(root, name, e), setLinkTime(root, name, e.ModTime())))
}

func extractFile(ctx context.Context, root *os.Root, name string, e fs.File) (err error) {
	from, err := e.Open(ctx)
	if err != nil {
		return serverFault("read "+quote(name), err)
	}
	defer from.Close()
	to, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localFault("write "+quote(name), err)
	}
	source := &latch{r: from}
	_, err = io.Copy(to, source)
	if source.err != nil {
		return errors.Join(serverFault("read "+quote(name), source.err), to.Close())
	}
	return localFault("write "+quote(name), errors.Join(err, to.Close()))
}
