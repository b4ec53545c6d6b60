package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	readTries = 3
	// racy is how much older than the last capture a file must be to be taken for unchanged: a file system may count time in steps.
	racy = 2 * time.Second
	// fileReaders is how many files are read at once. More would hide the latency of a slow volume better, and take more memory.
	fileReaders = 6
)

var errChanged = errors.New("it changed while it was read")

// capture walks one tree. Names are resolved against open directories and links are never followed, so that nobody can lead it
// elsewhere by exchanging a directory.
//
// One goroutine walks, and does in order all that depends on what came before: links, attributes, what is kept. What files hold is read
// by others.
type capture struct {
	w       point.PartWriter
	prior   *point.Prior
	side    attributesWriter
	exclude map[inode]bool
	links   map[inode]linked
	readers *errgroup.Group

	mu                                      sync.Mutex // of what follows
	files, dirs, symlinks, specials, xattrs point.Count
	bytes                                   int64 // of the files
	remarks                                 remarks
}

type inode struct{ dev, ino uint64 }

// linked is the first name of a file that has several.
type linked struct {
	path string
	size int64
	time unix.Timespec
}

func captureTree(ctx context.Context, w point.PartWriter, root *os.File, exclude []string) (point.Part, error) {
	c := &capture{
		w: w, prior: w.Prior(), side: attributesWriter{w: w}, exclude: map[inode]bool{}, links: map[inode]linked{},
		files: point.Count{Of: "files"}, dirs: point.Count{Of: "directories"}, symlinks: point.Count{Of: "symbolic links"},
		specials: point.Count{Of: "special files"}, xattrs: point.Count{Of: "extended attributes"},
	}
	for _, name := range exclude {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err == nil {
			c.exclude[inodeOf(&st)] = true
		}
	}
	if err := c.side.close(c.walk(ctx, root)); err != nil {
		return point.Part{}, err
	}
	return c.part(), nil
}

// walk captures the tree. The first error of a reader or of the walk ends both.
func (c *capture) walk(ctx context.Context, root *os.File) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fileReaders + 1)
	c.readers = group
	group.Go(func() error { return c.dir(ctx, root, ".") })
	return group.Wait()
}

func (c *capture) part() point.Part {
	p := point.Part{Bytes: c.bytes, Counts: []point.Count{c.files, c.dirs}, Notes: c.remarks.all()}
	for _, n := range []point.Count{c.symlinks, c.specials, c.xattrs} {
		if n.Expected > 0 {
			p.Counts = append(p.Counts, n)
		}
	}
	return p
}

// dir captures an open directory. An error ends the whole capture; what the source does wrong is counted and noted.
func (c *capture) dir(ctx context.Context, f *os.File, name string) error {
	c.dirs.Expected++
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		c.failed(name, err)
		return nil
	}
	if err := c.put(ctx, name, &st, ""); err != nil {
		return err
	}
	if err := c.attributes(ctx, f, name, &st, nil); err != nil {
		return err
	}
	before, err := c.before(ctx, name)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		c.failed(name, err)
		return nil
	}
	c.dirs.Stored++
	slices.Sort(names)
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := c.entry(ctx, f, path.Join(name, n), before[n]); err != nil {
			return err
		}
	}
	return nil
}

// before lists what the prior copy has in a directory. One that is damaged has nothing.
func (c *capture) before(ctx context.Context, name string) (map[string]point.Entry, error) {
	if c.prior == nil {
		return nil, nil
	}
	list, err := c.prior.List(ctx, name)
	if errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	before := make(map[string]point.Entry, len(list))
	for _, e := range list {
		before[e.Name] = e
	}
	return before, nil
}

// entry captures one name of a directory.
func (c *capture) entry(ctx context.Context, dir *os.File, name string, before point.Entry) error {
	if name == attributesDir {
		c.expect(&c.files)
		c.failed(name, errors.New("backstay uses this name itself"))
		return nil
	}
	var st unix.Stat_t
	if err := lstat(dir, name, &st); err != nil {
		c.expect(&c.files)
		c.missing(&c.files, name, err)
		return nil
	}
	if c.exclude[inodeOf(&st)] {
		count := &c.files
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			count = &c.dirs
		}
		c.excluded(count, name, " as asked")
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.subdir(ctx, dir, name)
	case unix.S_IFREG:
		return c.file(ctx, dir, name, before)
	case unix.S_IFLNK:
		return c.symlink(ctx, dir, name, &st, before)
	case unix.S_IFSOCK:
		c.excluded(&c.specials, name, ": a socket lives only as long as its program")
		return nil
	default:
		return c.special(ctx, dir, name, &st)
	}
}

func (c *capture) subdir(ctx context.Context, dir *os.File, name string) error {
	f, err := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		c.dirs.Expected++
		c.missing(&c.dirs, name, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return c.dir(ctx, f, name)
}

// file captures a regular file: it is opened here, and read by another goroutine.
func (c *capture) file(ctx context.Context, dir *os.File, name string, before point.Entry) error {
	c.expect(&c.files)
	var st unix.Stat_t
	f, err := openRegular(dir, name, &st)
	if err != nil {
		c.missing(&c.files, name, err)
		return nil
	}
	first, known := c.links[inodeOf(&st)]
	if known && (first.size != st.Size || first.time != st.Mtim) {
		c.failed(name, fmt.Errorf("it is %s by another name: %w", quote(first.path), errChanged))
		return f.Close()
	}
	if err := c.attributes(ctx, f, name, &st, c.link(name, &st)); err != nil {
		return errors.Join(err, f.Close())
	}
	if c.unchanged(&st, before) {
		if err := errors.Join(f.Close(), c.w.Keep(ctx, name)); err != nil {
			return err
		}
		c.storedFile(st.Size)
		return nil
	}
	c.readers.Go(func() error {
		defer f.Close() //nolint:errcheck // opened for reading
		return c.content(ctx, f, name)
	})
	return nil
}

// content stores what a file holds. One that changes under the reader is read again a few times.
func (c *capture) content(ctx context.Context, f *os.File, name string) error {
	for try := 1; ; try++ {
		r := &steady{f: f}
		source := r.begin()
		if source == nil {
			_, err := c.w.Put(ctx, entryFrom(name, &r.st, ""), r, contentOf(name))
			if source = r.failure(); source == nil && err != nil {
				return err
			}
		}
		switch {
		case source == nil:
			c.storedFile(r.st.Size)
			return nil
		case !errors.Is(source, errChanged) || try == readTries:
			c.missing(&c.files, name, source)
			return nil
		}
	}
}

// openRegular opens a regular file. It does not wait for the writer of a pipe that was put in the file's place.
func openRegular(dir *os.File, name string, st *unix.Stat_t) (*os.File, error) {
	f, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err = unix.Fstat(int(f.Fd()), st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errChanged
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// link remembers a file that has several names, and returns the first of them where this is a further one.
func (c *capture) link(name string, st *unix.Stat_t) *text {
	if st.Nlink < 2 {
		return nil
	}
	if first, known := c.links[inodeOf(st)]; known {
		to := text(first.path)
		return &to
	}
	c.links[inodeOf(st)] = linked{name, st.Size, st.Mtim}
	return nil
}

// unchanged reports whether a file is as in the prior copy. Its inode must not have changed since either: a time of modification
// can be set back.
func (c *capture) unchanged(st *unix.Stat_t, before point.Entry) bool {
	if c.prior == nil || before.Name == "" {
		return false
	}
	now := entryFrom(before.Name, st, before.Link)
	now.Size = st.Size
	settled := c.prior.Time.Add(-racy)
	return now.Mode == before.Mode && now.Size == before.Size && now.Time.Equal(before.Time) && now.UID == before.UID &&
		now.GID == before.GID && time.Unix(st.Ctim.Unix()).Before(settled)
}

func (c *capture) symlink(ctx context.Context, dir *os.File, name string, st *unix.Stat_t, before point.Entry) error {
	c.symlinks.Expected++
	target := make([]byte, 64<<10)
	n, err := unix.Readlinkat(int(dir.Fd()), path.Base(name), target)
	if err != nil || n == len(target) {
		c.missing(&c.symlinks, name, errors.Join(err, errChanged))
		return nil
	}
	if before.Link == string(target[:n]) && before.Mode&fs.ModeSymlink != 0 && c.unchanged(st, point.Entry{
		Name: before.Name, Mode: before.Mode, Size: st.Size, Time: before.Time, UID: before.UID, GID: before.GID,
	}) {
		err = c.w.Keep(ctx, name)
	} else {
		err = c.put(ctx, name, st, string(target[:n]))
	}
	if err != nil {
		return err
	}
	c.symlinks.Stored++
	return c.attributesAt(ctx, dir, name, st)
}

// special records a named pipe or device beside the tree.
func (c *capture) special(ctx context.Context, dir *os.File, name string, st *unix.Stat_t) error {
	c.specials.Expected++
	s := &special{
		Type: "fifo", Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Time: time.Unix(st.Mtim.Unix()).UTC(),
		Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
	case unix.S_IFCHR:
		s.Type = "char"
	case unix.S_IFBLK:
		s.Type = "block"
	default:
		c.failed(name, fmt.Errorf("a file of the unknown type %#o", st.Mode&unix.S_IFMT))
		return nil
	}
	if err := c.side.put(ctx, attributes{Path: text(name), Special: s}); err != nil {
		return err
	}
	c.specials.Stored++
	return c.attributesAt(ctx, dir, name, st)
}

// put writes a directory or a symbolic link.
func (c *capture) put(ctx context.Context, name string, st *unix.Stat_t, target string) error {
	_, err := c.w.Put(ctx, entryFrom(name, st, target), nil, point.Tree)
	return err
}

// attributesAt records the attributes of what cannot be opened for reading without side effects.
func (c *capture) attributesAt(ctx context.Context, dir *os.File, name string, st *unix.Stat_t) error {
	f, err := openAt(dir, name, unix.O_PATH)
	if err != nil {
		c.xattrs.Expected++
		c.missing(&c.xattrs, name, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // opened for nothing at all
	return c.attributes(ctx, f, name, st, c.link(name, st))
}

// attributes records what the tree cannot hold of an entry. Where the entry is not stored in the end, they are there for nothing.
func (c *capture) attributes(ctx context.Context, f *os.File, name string, st *unix.Stat_t, hardLink *text) error {
	a := attributes{Path: text(name), HardLinkTo: hardLink}
	a.NoPermissions = st.Mode&0o7777 == 0 && (st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if hardLink == nil { // else they are the first name's
		var err error
		if a.Xattrs, err = listXattrs(f); err != nil {
			c.xattrs.Expected++
			c.failed(name, fmt.Errorf("extended attributes: %w", err))
		}
		c.xattrs.Expected += int64(len(a.Xattrs))
		c.xattrs.Stored += int64(len(a.Xattrs))
	}
	a.Sparse = st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 < st.Size && hasHole(f, st.Size)
	if len(a.Xattrs) == 0 && a.HardLinkTo == nil && !a.NoPermissions && !a.Sparse {
		return nil
	}
	return c.side.put(ctx, a)
}

// expect counts one more that the source has.
func (c *capture) expect(n *point.Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Expected++
}

// storedFile counts a file of so many bytes as stored.
func (c *capture) storedFile(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files.Stored++
	c.bytes += bytes
}

// excluded counts what is left out, and says why.
func (c *capture) excluded(n *point.Count, name, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Expected++
	n.Excluded++
	c.remarks.add("%s was left out%s", quote(name), why)
}

// failed notes what is not in the part though the source has it.
func (c *capture) failed(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remarks.add("%s is not in the point: %v", quote(name), err)
}

// missing notes what is not in the part, and counts it as missing at the source where it vanished after it was listed.
func (c *capture) missing(n *point.Count, name string, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		c.failed(name, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.MissingAtSource = append(n.MissingAtSource, name)
}

// steady reads a file, and fails when it is not the same at its end as it was at its beginning.
type steady struct {
	f    *os.File
	st   unix.Stat_t // as it was at the beginning
	read int64       // by Read

	mu  sync.Mutex
	err error // of the file, which by this differs from the vault's
}

// begin goes to the beginning of the file, whatever was read before.
func (s *steady) begin() error {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return unix.Fstat(int(s.f.Fd()), &s.st)
}

// Read reads on. At the end it fails unless the file is what it was.
func (s *steady) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	s.read += int64(n)
	switch {
	case s.read > s.st.Size: // it may grow for ever
		return 0, s.fail(errChanged)
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, s.fail(err)
	case s.read != s.st.Size:
		return n, s.fail(errChanged)
	}
	if err := s.Steady(); err != nil {
		return n, err
	}
	return n, io.EOF
}

// ReadAt reads at a place. Safe for concurrent use.
func (s *steady) ReadAt(p []byte, at int64) (int, error) {
	n, err := s.f.ReadAt(p, at)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		return n, s.fail(err)
	case at+int64(n) < s.st.Size:
		return n, s.fail(errChanged)
	}
	return n, err
}

// Size is the bytes of the file as it was at the beginning.
func (s *steady) Size() int64 { return s.st.Size }

// Steady returns an error where the file has changed since the beginning.
func (s *steady) Steady() error {
	var now unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &now); err != nil {
		return s.fail(err)
	}
	if now.Size != s.st.Size || now.Mtim != s.st.Mtim {
		return s.fail(errChanged)
	}
	return nil
}

// Hole reports whether there is no data in a range.
func (s *steady) Hole(at, length int64) bool { return hole(s.f, at, length) }

// hole asks the file system, which may say less than it knows. It moves the place where Read goes on.
func hole(f *os.File, at, length int64) bool {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	return errors.Is(err, unix.ENXIO) || err == nil && data >= at+length
}

// hasHole reports whether a file has a hole: one of few blocks may also be compressed, or have its bytes in its inode.
func hasHole(f *os.File, size int64) bool {
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	return err == nil && at < size
}

// zeroed makes the first bytes of a device read as zeros, and reports whether it could, by a way that takes no writing of them.
func zeroed(f *os.File, size int64) bool {
	return size > 0 && unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size) == nil
}

func (s *steady) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = cmp.Or(s.err, err)
	return err
}

func (s *steady) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} } //nolint:unconvert // narrower on some systems

func entryFrom(name string, st *unix.Stat_t, target string) point.Entry {
	e := point.Entry{
		Name: name, Mode: fs.FileMode(st.Mode & 0o777), Time: time.Unix(st.Mtim.Unix()).UTC(), UID: st.Uid, GID: st.Gid, Link: target,
	}
	for _, bit := range []struct {
		system uint32
		mode   fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if st.Mode&bit.system != 0 {
			e.Mode |= bit.mode
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Mode |= fs.ModeDir
	case unix.S_IFLNK:
		e.Mode |= fs.ModeSymlink
	}
	return e
}

func lstat(dir *os.File, name string, st *unix.Stat_t) error {
	return unix.Fstatat(int(dir.Fd()), path.Base(name), st, unix.AT_SYMLINK_NOFOLLOW)
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), path.Base(name), flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listXattrs reads all extended attributes of an open file. It goes by way of /proc, because those of links and pipes cannot be
// read by the descriptor itself.
func listXattrs(f *os.File) ([]xattr, error) {
	file := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	names, err := growing(func(b []byte) (int, error) { return unix.Listxattr(file, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := growing(func(b []byte) (int, error) { return unix.Getxattr(file, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // gone since it was listed
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, xattr{text(name), value})
	}
	return all, nil
}

// growing calls read with ever larger buffers until one is large enough. The system knows no attribute above 64 KiB.
func growing(read func([]byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		return b[:max(n, 0)], err
	}
}
