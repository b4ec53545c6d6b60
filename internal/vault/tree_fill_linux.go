package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// A tree is restored into a directory by way of another inside it, and moved up from there when it is whole. From then on the file of
// progress is there, too.
const (
	wholeTree    = point.UnfinishedPrefix + "tree"
	progressFile = point.UnfinishedPrefix + "progress"
	maxProgress  = 64 << 10
)

// progress is what must not be forgotten while a tree is moved up.
type progress struct {
	Time  time.Time `json:"time"`            // of the tree's own directory; moving changes it
	Lacks string    `json:"lacks,omitempty"` // what could not be restored
}

func restoreInto(ctx context.Context, r point.Reader, dir string) error {
	op := "restore into " + quote(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return localFault(op, err)
	}
	defer root.Close() //nolint:errcheck // opened for reading
	f := &filling{r: r, root: root, dir: dir}
	return fault.Wrap(op, nil, f.run(ctx), "")
}

// filling is a restore into a directory that is there. Where one was cut short, the next goes on: the names in the directory tell how
// far it came.
type filling struct {
	r    point.Reader
	root *os.Root
	dir  string
}

func (f *filling) run(ctx context.Context) error {
	p, whole, err := f.progress()
	if err != nil {
		return err
	}
	if !whole {
		done, err := f.done(ctx)
		if done || err != nil {
			return err
		}
		if p, err = f.extract(ctx); err != nil {
			return err
		}
	}
	if err := f.settle(ctx, p); err != nil {
		return err
	}
	if p.Lacks != "" {
		return fault.New("", fault.ErrIncomplete, p.Lacks, "")
	}
	return nil
}

// progress reads how far an earlier restore came. A file that was not written to its end tells of nothing that was moved.
func (f *filling) progress() (p progress, whole bool, err error) {
	file, err := f.root.Open(progressFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, localFault("read "+progressFile, err)
	}
	defer file.Close() //nolint:errcheck // opened for reading
	err = json.NewDecoder(io.LimitReader(file, maxProgress)).Decode(&p)
	return p, err == nil, nil
}

// names lists the directory without what the file system itself has put there.
func (f *filling) names() ([]string, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, localFault("list", err)
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, localFault("list", err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == lostFound }), nil
}

// done reports whether the directory holds the tree already, as after a restore that was killed before it could say so. A directory
// that holds anything else is refused.
func (f *filling) done(ctx context.Context) (bool, error) {
	names, err := f.names()
	if err != nil {
		return false, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, point.UnfinishedPrefix) })
	if len(names) == 0 {
		return false, nil
	}
	there := fault.New("", fault.ErrExists, "the directory is not empty", "restore into an empty one")
	want, err := f.r.List(ctx, ".")
	if err != nil {
		return false, err
	}
	found := 0
	for _, e := range want {
		if e.Name == attributesDir {
			continue
		}
		info, err := f.root.Lstat(e.Name)
		if err != nil || info.Mode().Type() != e.Mode.Type() || !info.ModTime().Equal(e.Time) || info.Mode().IsRegular() && info.Size() != e.Size {
			return false, there
		}
		found++
	}
	if found == 0 || found > len(names) {
		return false, there
	}
	// What is there besides must be what only attributes tell of: pipes and devices.
	for _, name := range names {
		info, err := f.root.Lstat(name)
		known := slices.ContainsFunc(want, func(e point.Entry) bool { return e.Name == name })
		if err != nil || !known && info.Mode()&(fs.ModeNamedPipe|fs.ModeDevice) == 0 {
			return false, there
		}
	}
	return true, nil
}

// extract makes the tree below the directory, whole and on the disk.
func (f *filling) extract(ctx context.Context) (p progress, err error) {
	for _, name := range []string{wholeTree, progressFile} {
		if err := f.root.RemoveAll(name); err != nil {
			return p, localFault("remove "+name, err)
		}
	}
	err = RestoreTree(ctx, f.r, f.dir+"/"+wholeTree)
	if errors.Is(err, fault.ErrIncomplete) {
		p.Lacks, err = err.Error()[:min(len(err.Error()), maxProgress/8)], nil
	}
	if err != nil {
		return p, err
	}
	info, err := f.root.Stat(wholeTree)
	if err != nil {
		return p, localFault("open what was restored", err)
	}
	p.Time = info.ModTime()
	if err := f.sync(); err != nil {
		return p, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return p, fmt.Errorf("encode progress: %w", err)
	}
	return p, localFault("write "+progressFile, f.root.WriteFile(progressFile, b, 0o600))
}

// settle moves what was restored up, and gives the directory itself its attributes.
func (f *filling) settle(ctx context.Context, p progress) error {
	if err := f.moveUp(ctx); err != nil {
		return err
	}
	for _, name := range []string{wholeTree, progressFile} { // in this order, or the next would take what is there for somebody else's
		if err := f.root.RemoveAll(name); err != nil {
			return localFault("remove "+name, err)
		}
	}
	if err := f.root.Chtimes(".", time.Time{}, p.Time); err != nil {
		return localFault("set time", err)
	}
	return f.sync()
}

// moveUp moves what was restored up; there is nothing to move where that was done and no more.
func (f *filling) moveUp(ctx context.Context) error {
	from, err := f.root.Open(wholeTree)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return localFault("open what was restored", err)
	}
	defer from.Close() //nolint:errcheck // opened for reading
	names, err := from.Readdirnames(-1)
	if err != nil {
		return localFault("list what was restored", err)
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f.root.Rename(wholeTree+"/"+name, name); err != nil {
			return localFault("move up "+quote(name), err)
		}
	}
	return localFault("set attributes", likewise(f.root, ".", from))
}

// likewise gives a directory the owner, mode and attributes of another.
func likewise(root *os.Root, name string, from *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	to, err := root.Open(name)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // opened for reading
	if os.Geteuid() == 0 {
		if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	xattrs, err := listXattrs(from)
	if err != nil {
		return err
	}
	for _, a := range xattrs {
		if err := unix.Setxattr("/proc/self/fd/"+strconv.Itoa(int(to.Fd())), string(a.Name), a.Value, 0); err != nil {
			return err
		}
	}
	return nil
}

// sync waits until the file system has everything on its disk.
func (f *filling) sync() error {
	dir, err := f.root.Open(".")
	if err != nil {
		return localFault("sync", err)
	}
	defer dir.Close() //nolint:errcheck // opened for reading
	return localFault("sync", unix.Syncfs(int(dir.Fd())))
}
