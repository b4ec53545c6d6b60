package export

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Local is a directory of this machine. It is made when first written to. No symbolic link leads out of it: a repository's files may
// hold any.
type Local struct{ dir string }

// NewLocal returns the place at dir; "~" at its start is the user's home.
func NewLocal(dir string) (*Local, error) {
	if rest, home := strings.CutPrefix(dir, "~"); home && (rest == "" || rest[0] == '/') {
		base, err := os.UserHomeDir()
		if err != nil {
			return nil, fault.Wrap("open export "+dir, fault.ErrInvalid, err, "write the path in full")
		}
		dir = base + rest
	}
	if dir == "" {
		return nil, fault.New("open export", fault.ErrInvalid, "it has no path", "name a directory")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, systemFault("open export "+dir, err)
	}
	return &Local{abs}, nil
}

// String is the directory's path.
func (l *Local) String() string { return l.dir }

// Path is where a name lies on the disk.
func (l *Local) Path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

// in calls do with the place opened such that nothing leads out of it.
func (l *Local) in(ctx context.Context, op, name string, do func(root *os.Root, name string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := os.OpenRoot(l.dir)
	if err == nil {
		defer root.Close() //nolint:errcheck // a handle; what it wrote was closed by itself
		err = do(root, filepath.FromSlash(name))
	}
	return systemFault(op+" "+l.Path(name), err)
}

// List reads a directory.
func (l *Local) List(ctx context.Context, dir string) ([]point.Entry, error) {
	var entries []point.Entry
	err := l.in(ctx, "list", dir, func(root *os.Root, dir string) error {
		f, err := root.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read from
		infos, err := f.ReadDir(-1)
		if err != nil {
			return err
		}
		for _, i := range infos {
			info, err := i.Info()
			if errors.Is(err, fs.ErrNotExist) { // gone meanwhile
				continue
			}
			if err != nil {
				return err
			}
			e := point.Entry{Name: info.Name(), Mode: info.Mode(), Time: info.ModTime()}
			if info.Mode().IsRegular() {
				e.Size = info.Size()
			}
			entries = append(entries, e)
		}
		return nil
	})
	if errors.Is(err, fault.ErrNotFound) || isNoDir(err) {
		return nil, nil
	}
	return entries, err
}

// Open opens a file, not a symbolic link that leads out.
func (l *Local) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	var f *os.File
	err := l.in(ctx, "read", name, func(root *os.Root, name string) (err error) {
		if f, err = root.Open(name); err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fs.ErrNotExist
		}
		if err != nil {
			f.Close() //nolint:errcheck // only opened
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Put writes beside, syncs and renames.
func (l *Local) Put(ctx context.Context, name string, body io.Reader) (n int64, err error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return 0, systemFault("make "+l.dir, err)
	}
	var bodyErr error
	err = l.in(ctx, "write", name, func(root *os.Root, name string) error {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		beside := filepath.Join(filepath.Dir(name), unfinished())
		f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		latched := &latch{r: body}
		n, err = io.Copy(f, latched)
		bodyErr = latched.err
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if err == nil {
			err = root.Rename(beside, name)
		}
		if err != nil {
			return errors.Join(err, root.Remove(beside))
		}
		return syncDir(root, filepath.Dir(name))
	})
	if bodyErr != nil {
		return n, bodyErr
	}
	return n, err
}

// unfinished names a file that is being written. Git and this package pass over such names.
func unfinished() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return point.UnfinishedPrefix + hex.EncodeToString(b[:])
}

// syncDir makes a rename last.
func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // only synced
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// MakeDir makes a directory and those above.
func (l *Local) MakeDir(ctx context.Context, dir string) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return systemFault("make "+l.dir, err)
	}
	return l.in(ctx, "make", dir, func(root *os.Root, dir string) error { return root.MkdirAll(dir, 0o755) })
}

// Remove removes a file or a tree.
func (l *Local) Remove(ctx context.Context, name string) error {
	err := l.in(ctx, "remove", name, func(root *os.Root, name string) error { return root.RemoveAll(name) })
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}

// Copy links the file, or copies it where the file system has no links.
func (l *Local) Copy(ctx context.Context, from, to string) error {
	err := l.in(ctx, "link", to, func(root *os.Root, to string) error {
		if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Link(filepath.FromSlash(from), to)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return copyThrough(ctx, l, from, l, to)
}

// Rename renames a directory.
func (l *Local) Rename(ctx context.Context, from, to string) error {
	return l.in(ctx, "rename to", to, func(root *os.Root, to string) error {
		if _, err := root.Lstat(to); err == nil {
			return fs.ErrExist
		}
		if err := root.Rename(filepath.FromSlash(from), to); err != nil {
			return err
		}
		return syncDir(root, filepath.Dir(to))
	})
}

// copyThrough copies a file by reading and writing it.
func copyThrough(ctx context.Context, src Place, from string, dst Place, to string) error {
	f, err := src.Open(ctx, from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = dst.Put(ctx, to, f)
	return err
}

// copyFile copies a file within a place as cheaply as the place can.
func copyFile(ctx context.Context, p Place, from, to string) error {
	if path.Clean(from) == path.Clean(to) {
		return nil
	}
	if c, can := p.(copier); can {
		return c.Copy(ctx, from, to)
	}
	return copyThrough(ctx, p, from, p, to)
}

// latch remembers the error that ended a reader, to tell it from one of writing.
type latch struct {
	r   io.Reader
	err error
}

func (l *latch) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	return n, err
}
