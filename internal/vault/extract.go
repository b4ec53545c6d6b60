package vault

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
)

// maxBatch is how many files and chunks are planned before they are read: enough for long runs, few enough to remember.
const maxBatch = 4096

// Extract writes the file or tree at path to dest.
func (r *reader) Extract(ctx context.Context, path, dest string) (err error) {
	op := "extract " + quote(path)
	ctx, done, err := r.v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	n, err := r.find(ctx, path)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if _, err := os.Lstat(dest); err == nil {
		return fault.New(op, fault.ErrExists, quote(dest)+" is there already", "")
	}
	parent, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return localFault(op, err)
	}
	defer parent.Close() //nolint:errcheck // opened for reading
	name := filepath.Base(dest)
	x := &extraction{r: r, root: parent, owners: os.Geteuid() == 0, open: map[*os.File]bool{}}
	err = x.run(ctx, n, name)
	for f := range x.open { // only after an error
		err = errors.Join(err, f.Close())
	}
	if err != nil && x.begun {
		err = errors.Join(err, parent.RemoveAll(name))
	}
	return fault.Wrap(op, nil, err, "")
}

// extraction writes below root, which no path of the point can leave. Symbolic links are made last, so none is ever followed.
type extraction struct {
	r      *reader
	root   *os.Root
	owners bool
	begun  bool // something of ours lies at the destination

	batch []fetch
	links []placed
	dirs  []placed

	mu   sync.Mutex
	open map[*os.File]bool // files not yet written to their end
}

// placed is a node and the path at which it belongs, relative to the root.
type placed struct {
	path string
	node *node
}

func (x *extraction) run(ctx context.Context, n *node, name string) error {
	if err := x.plan(ctx, n, name); err != nil {
		return err
	}
	if err := x.flush(ctx); err != nil {
		return err
	}
	for _, l := range x.links {
		if err := x.link(ctx, l); err != nil {
			return err
		}
	}
	for _, d := range slices.Backward(x.dirs) { // what lies inside first, for its making changes the directory's time
		if err := x.finish(d); err != nil {
			return err
		}
	}
	return nil
}

// plan makes the directories of n and lines its files up.
func (x *extraction) plan(ctx context.Context, n *node, path string) error {
	switch n.entry.Type {
	case snapshot.EntryTypeFile:
		return x.planFile(ctx, placed{path, n})
	case snapshot.EntryTypeSymlink:
		x.links = append(x.links, placed{path, n})
		return nil
	case snapshot.EntryTypeDirectory:
	default:
		return fault.New(quote(path), fault.ErrUnsupported, "an entry of an unknown type", "use a newer backstay")
	}
	if err := x.root.Mkdir(path, 0o700); err != nil {
		return localFault("make directory "+quote(path), err)
	}
	x.begun = true
	x.dirs = append(x.dirs, placed{path, n})
	kids, err := x.r.kids(ctx, n)
	if err != nil {
		return err
	}
	for _, stored := range slices.Sorted(maps.Keys(kids)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := rawName(stored)
		if names, err := elements(name); err != nil || len(names) != 1 {
			return fault.New(quote(path), fault.ErrCorrupt, "it holds the impossible name "+quote(name), "")
		}
		if err := x.plan(ctx, kids[stored], path+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// planFile makes a file and lines up its chunks.
func (x *extraction) planFile(ctx context.Context, p placed) error {
	chunks, err := x.r.v.chunks(ctx, &p.node.entry)
	if err != nil {
		return storageFault("read "+quote(p.path), err)
	}
	f, err := x.root.OpenFile(p.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localFault("make file "+quote(p.path), err)
	}
	x.begun = true
	if err := f.Close(); err != nil {
		return localFault("make file "+quote(p.path), err)
	}
	t := &target{x: x, placed: p, left: len(chunks)}
	if len(chunks) == 0 {
		return x.finish(p)
	}
	for _, c := range chunks {
		x.batch = append(x.batch, fetch{object: c.Object, use: func(ctx context.Context) error { return t.write(ctx, c) }})
	}
	if len(x.batch) >= maxBatch {
		return x.flush(ctx)
	}
	return nil
}

// flush reads what is lined up.
func (x *extraction) flush(ctx context.Context) error {
	batch := x.batch
	x.batch = nil
	return x.r.v.fetchAll(ctx, batch)
}

// chunks returns the pieces in which a file is stored, with their places. They add up to its length, or it is corrupt.
func (v *Vault) chunks(ctx context.Context, e *snapshot.DirEntry) ([]object.IndirectObjectEntry, error) {
	chunks := []object.IndirectObjectEntry{{Length: e.FileSize, Object: e.ObjectID}}
	if index, ok := e.ObjectID.IndexObjectID(); ok {
		var err error
		if chunks, err = object.LoadIndexObject(ctx, contents{v.rep.ContentReader(), v}, index); err != nil {
			return nil, err
		}
	}
	var at int64
	for _, c := range chunks {
		if c.Start != at || c.Length < 0 {
			return nil, fault.New("chunks", fault.ErrCorrupt, "they leave a hole", hintRepair)
		}
		at += c.Length
	}
	if at != e.FileSize {
		return nil, fault.New("chunks", fault.ErrCorrupt, "they are not as long as the file", hintRepair)
	}
	return chunks, nil
}

// contents is the view of contents that kopia's objects are read through.
type contents struct {
	content.Reader
	v *Vault
}

// PrefetchContents does nothing: there is no cache to fetch them into.
func (contents) PrefetchContents(context.Context, []content.ID, string) []content.ID { return nil }

// target is a file being written by several goroutines.
type target struct {
	x *extraction
	placed

	mu   sync.Mutex
	file *os.File
	left int // chunks
}

// write writes one chunk; the last one finishes the file.
func (t *target) write(ctx context.Context, c object.IndirectObjectEntry) error {
	o, err := t.x.r.v.rep.OpenObject(ctx, c.Object)
	if err != nil {
		return storageFault("read "+quote(t.path), err)
	}
	defer o.Close()
	if o.Length() != c.Length {
		return fault.New("read "+quote(t.path), fault.ErrCorrupt, "a chunk is not as long as it was", hintRepair)
	}
	f, err := t.open()
	if err != nil {
		return err
	}
	if err := copyAt(f, c.Start, o); err != nil {
		return fault.Wrap("write "+quote(t.path), nil, err, "")
	}
	return t.done()
}

// copyAt copies r to f at an offset.
func copyAt(f *os.File, at int64, r io.Reader) error {
	source := &latch{r: r}
	if _, err := io.Copy(io.NewOffsetWriter(f, at), source); err != nil {
		if source.err != nil {
			return storageFault("read", source.err)
		}
		return localFault("write", err)
	}
	return nil
}

// open opens the file for its first chunk.
func (t *target) open() (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		f, err := t.x.root.OpenFile(t.path, os.O_WRONLY, 0)
		if err != nil {
			return nil, localFault("open "+quote(t.path), err)
		}
		t.file = f
		t.x.note(f, true)
	}
	return t.file, nil
}

// note remembers which files are open.
func (x *extraction) note(f *os.File, open bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if open {
		x.open[f] = true
	} else {
		delete(x.open, f)
	}
}

// done counts a chunk, and closes the file after the last.
func (t *target) done() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left--; t.left > 0 {
		return nil
	}
	t.x.note(t.file, false)
	if err := t.file.Close(); err != nil {
		return localFault("write "+quote(t.path), err)
	}
	return t.x.finish(t.placed)
}

// finish gives a file or directory its owner, mode and time, in this order: a change of owner takes the setuid bit away.
func (x *extraction) finish(p placed) error {
	op := "set attributes of " + quote(p.path)
	e := entryOf(&p.node.entry)
	mode := e.Mode & modeBits
	if x.owners {
		if err := x.root.Lchown(p.path, int(e.UID), int(e.GID)); err != nil {
			return localFault(op, err)
		}
	} else {
		mode &= fs.ModePerm // a setuid bit means something else under another owner
	}
	if err := x.root.Chmod(p.path, mode); err != nil {
		return localFault(op, err)
	}
	return localFault(op, x.root.Chtimes(p.path, e.Time, e.Time))
}

// link makes a symbolic link.
func (x *extraction) link(ctx context.Context, p placed) error {
	to, err := x.r.v.readLink(ctx, &p.node.entry)
	if err != nil {
		return err
	}
	if err := x.root.Symlink(to, p.path); err != nil {
		return localFault("make link "+quote(p.path), err)
	}
	x.begun = true
	if x.owners {
		return localFault("set owner of "+quote(p.path), x.root.Lchown(p.path, int(p.node.entry.UserID), int(p.node.entry.GroupID)))
	}
	return nil
}

// localFault gives an error of the local disk a class. Nil stays nil.
func localFault(op string, err error) error {
	if err == nil {
		return nil
	}
	kind := fault.ErrRefused
	switch {
	case errors.Is(err, fs.ErrExist):
		kind = fault.ErrExists
	case errors.Is(err, fs.ErrPermission):
		kind = fault.ErrDenied
	case errors.Is(err, fs.ErrNotExist):
		kind = fault.ErrNotFound
	}
	return fault.Wrap(op, kind, err, "")
}
