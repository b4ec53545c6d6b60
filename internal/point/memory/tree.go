package memory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// file is one entry as put. Points share files, so their bytes are never written to again, but by Store.Corrupt.
type file struct {
	entry point.Entry // Name is not used: the tree's key is the path
	data  []byte
	sum   [sha256.Size]byte
}

// intact reports whether the bytes are those that were put.
func (f *file) intact() bool { return sha256.Sum256(f.data) == f.sum }

// tree holds files by slash-separated path. Directories are there only where they were put; others are implied by what lies below.
type tree map[string]*file

// bytes is the size of all files.
func (t tree) bytes() int64 {
	var n int64
	for _, f := range t {
		n += int64(len(f.data))
	}
	return n
}

// below returns what lies at or under p, under the same paths.
func (t tree) below(p string) tree {
	found := tree{}
	for name, f := range t {
		if p == "." || name == p || strings.HasPrefix(name, p+"/") {
			found[name] = f
		}
	}
	return found
}

// graft adds other's files under the directory dir.
func (t tree) graft(dir string, other tree) {
	for name, f := range other {
		t[path.Join(dir, name)] = f
	}
}

// reader gives access to one tree.
type reader struct {
	files tree
	time  time.Time // of directories that were not put
}

func (r *reader) List(ctx context.Context, p string) ([]point.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p = path.Clean(p)
	inside := r.files.below(p)
	if f := r.files[p]; f != nil && !f.entry.Mode.IsDir() {
		return nil, fault.New("list "+p, fault.ErrInvalid, "not a directory", "")
	}
	if len(inside) == 0 && p != "." {
		return nil, notFound("list", p)
	}
	children := map[string]point.Entry{}
	for name := range inside {
		rest := name
		if p != "." {
			rest = strings.TrimPrefix(strings.TrimPrefix(name, p), "/")
		}
		child, _, _ := strings.Cut(rest, "/")
		if child == "" || child == "." {
			continue
		}
		if _, known := children[child]; !known {
			children[child] = r.stat(path.Join(p, child))
		}
	}
	return slices.SortedFunc(maps.Values(children), func(a, b point.Entry) int { return strings.Compare(a.Name, b.Name) }), nil
}

// stat describes the entry at p, which is there.
func (r *reader) stat(p string) point.Entry {
	e := point.Entry{Mode: fs.ModeDir | 0o755, Time: r.time}
	if f := r.files[p]; f != nil {
		e = f.entry
	}
	e.Name, e.Size = path.Base(p), r.files.below(p).bytes()
	return e
}

func (r *reader) Open(ctx context.Context, p string) (io.ReadSeekCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p = path.Clean(p)
	f := r.files[p]
	switch {
	case f == nil && len(r.files.below(p)) == 0:
		return nil, notFound("open", p)
	case f == nil || !f.entry.Mode.IsRegular():
		return nil, fault.New("open "+p, fault.ErrInvalid, "not a file", "")
	case !f.intact():
		return nil, fault.New("open "+p, fault.ErrCorrupt, "the bytes are not those that were stored", "")
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(f.data), io.NopCloser(nil)}, nil
}

func (r *reader) Extract(ctx context.Context, p, dest string) error {
	p = path.Clean(p)
	inside := r.files.below(p)
	if len(inside) == 0 && p != "." {
		return notFound("extract", p)
	}
	if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
		return fault.New("extract "+p+" to "+dest, fault.ErrExists, "", "")
	}
	if f := r.files[p]; f == nil || f.entry.Mode.IsDir() {
		return r.extractDir(ctx, p, dest)
	}
	return r.extractFile(ctx, p, dest)
}

// extractDir writes the directory at p. Its mode and time are set last, for a read-only directory takes no files.
func (r *reader) extractDir(ctx context.Context, p, dest string) error {
	if err := os.Mkdir(dest, 0o700); err != nil {
		return err
	}
	children, err := r.List(ctx, p)
	if err != nil {
		return err
	}
	for _, child := range children {
		from, to := path.Join(p, child.Name), filepath.Join(dest, child.Name)
		if child.Mode.IsDir() {
			err = r.extractDir(ctx, from, to)
		} else {
			err = r.extractFile(ctx, from, to)
		}
		if err != nil {
			return err
		}
	}
	e := r.stat(p)
	return errors.Join(os.Chmod(dest, e.Mode.Perm()), os.Chtimes(dest, e.Time, e.Time))
}

func (r *reader) extractFile(ctx context.Context, p, dest string) error {
	e := r.stat(p)
	if e.Mode&fs.ModeSymlink != 0 {
		return os.Symlink(e.Link, dest)
	}
	src, err := r.Open(ctx, p)
	if err != nil {
		return err
	}
	defer src.Close()
	data, err := io.ReadAll(src)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dest, data, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chmod(dest, e.Mode.Perm()), os.Chtimes(dest, e.Time, e.Time))
}

func notFound(verb, p string) error { return fault.New(verb+" "+p, fault.ErrNotFound, "", "") }
