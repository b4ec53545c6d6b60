package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// restoration gives an extracted tree what the file of attributes says. Paths are resolved below root, which no link leads out of.
type restoration struct {
	root    *os.Root
	touched map[string]time.Time // directories, with the times to give back
	remarks remarks
}

func restoreAttributes(ctx context.Context, r point.Reader, dest string) error {
	op := "restore attributes in " + quote(dest)
	root, err := os.OpenRoot(dest)
	if err != nil {
		return localFault(op, err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	x := &restoration{root: root, touched: map[string]time.Time{}}
	if err := x.all(ctx, r); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if missing := x.remarks.all(); len(missing) > 0 {
		return fault.New(op, fault.ErrIncomplete, strings.Join(missing, "; "), "restore as root, to a file system that keeps attributes")
	}
	return nil
}

func (x *restoration) all(ctx context.Context, r point.Reader) error {
	f, err := r.Open(ctx, AttributesFile)
	switch {
	case errors.Is(err, fault.ErrNotFound):
	case err != nil:
		return err
	default:
		defer f.Close()
		if err := x.touch("."); err != nil {
			return err
		}
		if err := x.root.RemoveAll(attributesDir); err != nil {
			return localFault("remove "+attributesDir, err)
		}
		err := readAttributes(f, func(a attributes) error {
			if err := x.apply(a); err != nil {
				x.remarks.add("%s: %v", quote(string(a.Path)), err)
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	for dir, at := range x.touched {
		if err := x.root.Chtimes(dir, at, at); err != nil {
			x.remarks.add("%s: %v", quote(dir), err)
		}
	}
	return nil
}

// apply gives one path its attributes.
func (x *restoration) apply(a attributes) error {
	name := string(a.Path)
	if !filepath.IsLocal(name) || a.HardLinkTo != nil && !filepath.IsLocal(string(*a.HardLinkTo)) {
		return errors.New("not a path below the tree")
	}
	dir, err := x.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	if a.Special != nil {
		if err := x.special(dir, name, a.Special); err != nil {
			return err
		}
	}
	if a.HardLinkTo != nil {
		return x.hardLink(name, string(*a.HardLinkTo))
	}
	for _, attr := range a.Xattrs {
		file := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + path.Base(name)
		if err := unix.Lsetxattr(file, string(attr.Name), attr.Value, 0); err != nil {
			return fmt.Errorf("attribute %s: %w", attr.Name, err)
		}
	}
	if a.NoPermissions {
		return x.root.Chmod(name, 0)
	}
	return nil
}

// hardLink makes name another name of first, in the place of the copy that was extracted or of the pipe that was made.
func (x *restoration) hardLink(name, first string) error {
	if err := x.touch(path.Dir(name)); err != nil {
		return err
	}
	if _, err := x.root.Lstat(first); err != nil {
		return err
	}
	if err := x.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return x.root.Link(first, name)
}

func (x *restoration) special(dir *os.File, name string, s *special) error {
	if err := x.touch(path.Dir(name)); err != nil {
		return err
	}
	kind, ok := map[string]uint32{"fifo": unix.S_IFIFO, "char": unix.S_IFCHR, "block": unix.S_IFBLK}[s.Type]
	if !ok {
		return fmt.Errorf("a file of the unknown type %q", s.Type)
	}
	at, base := int(dir.Fd()), path.Base(name)
	device := 0
	if kind != unix.S_IFIFO {
		device = int(unix.Mkdev(s.Major, s.Minor))
	}
	if err := unix.Mknodat(at, base, kind|0o600, device); err != nil {
		return fmt.Errorf("make %s: %w", s.Type, err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchownat(at, base, int(s.UID), int(s.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if err := unix.Fchmodat(at, base, s.Mode&0o7777, 0); err != nil {
		return err
	}
	return setTime(dir, base, s.Time)
}

// touch remembers the time of a directory before something is put into it.
func (x *restoration) touch(dir string) error {
	if _, known := x.touched[dir]; known {
		return nil
	}
	info, err := x.root.Stat(dir)
	if err != nil {
		return err
	}
	x.touched[dir] = info.ModTime()
	return nil
}

// setFileTime sets the time of an open file.
func setFileTime(_ *os.Root, _ string, f *os.File, at time.Time) error {
	t, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), []unix.Timespec{t, t}, 0)
}

// setLinkTime sets the time of a symbolic link.
func setLinkTime(root *os.Root, name string, at time.Time) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	return setTime(dir, path.Base(name), at)
}

func setTime(dir *os.File, base string, at time.Time) error {
	t, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}
