package vault

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// reader reads the tree below a node, which it never changes. It reads a directory when somebody asks for what lies in it.
type reader struct {
	v    *Vault
	root *node
}

// maxLink bounds the bytes of a symbolic link's target.
const maxLink = 64 << 10

// kids returns what lies in a directory.
func (r *reader) kids(ctx context.Context, n *node) (map[string]*node, error) {
	if n.kids != nil {
		return n.kids, nil
	}
	return r.v.recent.kids(ctx, r.v.rep, &n.entry)
}

// recentDirs keeps the directories that were read last: whoever asks for one file of a directory asks for the next one soon.
type recentDirs struct {
	mu    sync.Mutex
	dirs  []recentDir // the last one used is at the end
	names int         // in all of them
}

type recentDir struct {
	id   object.ID
	kids map[string]*node // which nobody changes
}

// maxRecent is how many names are kept, beside those of the last directory.
const maxRecent = 16 << 10

func (c *recentDirs) kids(ctx context.Context, rep repo.Repository, e *snapshot.DirEntry) (map[string]*node, error) {
	if kids := c.known(e.ObjectID); kids != nil && e.Type == snapshot.EntryTypeDirectory {
		return kids, nil
	}
	kids, err := readKids(ctx, rep, e)
	if err == nil {
		c.keep(recentDir{e.ObjectID, kids})
	}
	return kids, err
}

func (c *recentDirs) known(id object.ID) map[string]*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.dirs, func(d recentDir) bool { return d.id == id })
	if i < 0 {
		return nil
	}
	found := c.dirs[i]
	c.dirs = append(slices.Delete(c.dirs, i, i+1), found)
	return found.kids
}

func (c *recentDirs) keep(d recentDir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirs = append(c.dirs, d)
	for c.names += len(d.kids); c.names > maxRecent && len(c.dirs) > 1; c.dirs = slices.Delete(c.dirs, 0, 1) {
		c.names -= len(c.dirs[0].kids)
	}
}

// find returns the node at a path.
func (r *reader) find(ctx context.Context, path string) (*node, error) {
	names, err := elements(path)
	if err != nil {
		return nil, err
	}
	n := r.root
	for _, name := range names {
		if !n.isDir() {
			return nil, fault.New(quote(path), fault.ErrNotFound, "no such file in the point", "")
		}
		kids, err := r.kids(ctx, n)
		if err != nil {
			return nil, err
		}
		if n = kids[storedName(name)]; n == nil {
			return nil, fault.New(quote(path), fault.ErrNotFound, "no such file in the point", "")
		}
	}
	return n, nil
}

// List lists a directory by name.
func (r *reader) List(ctx context.Context, path string) ([]point.Entry, error) {
	ctx, done, err := r.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	dir, err := r.find(ctx, path)
	if err != nil {
		return nil, err
	}
	kids, err := r.kids(ctx, dir)
	if err != nil {
		return nil, err
	}
	entries := make([]point.Entry, 0, len(kids))
	for _, n := range kids {
		e := entryOf(&n.entry)
		if n.kids != nil {
			e.Size = sizeBelow(n)
		}
		if n.entry.Type == snapshot.EntryTypeSymlink {
			if e.Link, err = r.v.readLink(ctx, &n.entry); err != nil {
				return nil, err
			}
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b point.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// sizeBelow sums the files below a directory that is not stored as it is.
func sizeBelow(n *node) int64 {
	if n.kids == nil {
		return size(&n.entry)
	}
	var sum int64
	for _, kid := range n.kids {
		sum += sizeBelow(kid)
	}
	return sum
}

// entryOf translates kopia's entry, without the target of a link.
func entryOf(e *snapshot.DirEntry) point.Entry {
	mode := fs.FileMode(e.Permissions) & modeBits
	switch e.Type {
	case snapshot.EntryTypeDirectory:
		mode |= fs.ModeDir
	case snapshot.EntryTypeSymlink:
		mode |= fs.ModeSymlink
	}
	return point.Entry{
		Name: rawName(e.Name), Mode: mode, Size: size(e), Time: e.ModTime.ToTime().UTC(), UID: e.UserID, GID: e.GroupID,
	}
}

// readLink reads the target of a symbolic link.
func (v *Vault) readLink(ctx context.Context, e *snapshot.DirEntry) (string, error) {
	op := "read link " + quote(rawName(e.Name))
	o, err := v.rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return "", storageFault(op, err)
	}
	defer o.Close()
	if o.Length() > maxLink {
		return "", fault.New(op, fault.ErrCorrupt, "its target is too long", "")
	}
	b, err := io.ReadAll(o)
	return string(b), storageFault(op, err)
}

// Open opens a file.
func (r *reader) Open(ctx context.Context, path string) (io.ReadSeekCloser, error) {
	n, err := r.find(ctx, path)
	if err != nil {
		return nil, err
	}
	if n.entry.Type != snapshot.EntryTypeFile {
		return nil, fault.New("open "+quote(path), fault.ErrInvalid, "not a file", "")
	}
	return r.v.openFile(ctx, path, &n.entry)
}

// openFile opens the file of an entry and checks its length.
func (v *Vault) openFile(ctx context.Context, path string, e *snapshot.DirEntry) (*file, error) {
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	o, err := v.rep.OpenObject(ctx, e.ObjectID)
	if err == nil && o.Length() != e.FileSize {
		err = fault.New("length", fault.ErrCorrupt, "the file is not as long as it was", hintRepair)
	}
	if err != nil {
		done()
		return nil, storageFault("open "+quote(path), err)
	}
	return &file{path: path, object: o, done: done}, nil
}

// file is an open file of a point.
type file struct {
	path   string
	object object.Reader
	done   func()
}

// Read reads on.
func (f *file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.object.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, storageFault("read "+quote(f.path), err)
	}
	return n, err
}

// Seek moves to where the next Read begins.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	n, err := f.object.Seek(offset, whence)
	return n, storageFault("seek in "+quote(f.path), err)
}

// Close ends the reading. Idempotent.
func (f *file) Close() error {
	f.done()
	return f.object.Close()
}
