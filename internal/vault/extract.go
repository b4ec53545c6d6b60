package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	// maxBatch is how many files and chunks are planned before they are read: enough for long runs, few enough to remember.
	maxBatch = 4096
	// maxListing is how many directories are read at once.
	maxListing = 64
)

// Extract writes the file or tree at from to dest.
func (r *reader) Extract(ctx context.Context, from, dest string) (err error) {
	op := "extract " + quote(from)
	ctx, done, err := r.v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	n, err := r.find(ctx, from)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if info, err := os.Lstat(dest); err == nil {
		if info.Mode().Type() == fs.ModeDevice {
			return fault.Wrap(op, nil, r.extractOnto(ctx, n, dest), "")
		}
		return fault.New(op, fault.ErrExists, quote(dest)+" is there already", "")
	}
	parent, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return localFault(op, err)
	}
	defer parent.Close() //nolint:errcheck // opened for reading
	name := filepath.Base(dest)
	x := &extraction{r: r, root: parent, owners: os.Geteuid() == 0, open: map[*os.File]bool{}}
	if x.sparse, err = r.sparseFiles(ctx, from, name); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	err = x.run(ctx, n, name)
	for f := range x.open { // only after an error
		err = errors.Join(err, f.Close())
	}
	if err != nil && x.begun {
		err = errors.Join(err, parent.RemoveAll(name))
	}
	return fault.Wrap(op, nil, err, "")
}

// sparseFiles returns which files of a tree had holes, by the path that they will have below name.
func (r *reader) sparseFiles(ctx context.Context, dir, name string) (map[string]bool, error) {
	n, err := r.find(ctx, path.Join(dir, AttributesFile))
	if errors.Is(err, fault.ErrNotFound) || err == nil && n.entry.Type != snapshot.EntryTypeFile {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := r.v.openFile(ctx, AttributesFile, &n.entry)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	sparse := map[string]bool{}
	err = readAttributes(f, func(a attributes) error {
		if a.Sparse {
			sparse[name+"/"+string(a.Path)] = true
		}
		return ctx.Err()
	})
	return sparse, err
}

// extraction writes below root, which no path of the point can leave. Symbolic links are made last, so none is ever followed.
//
// One goroutine plans: it makes directories and lines up what is to be read, batch by batch. Others read the batch before and make its
// files.
type extraction struct {
	r      *reader
	root   *os.Root
	owners bool
	begun  bool // something of ours lies at the destination

	batch   []fetch
	batches chan []fetch
	dirs    []placed
	todo    []placed        // directories that were made, and not filled yet
	sparse  map[string]bool // files that had holes

	mu    sync.Mutex
	open  map[*os.File]bool // files not yet written to their end
	links []link
}

// placed is a node and the path at which it belongs, relative to the root.
type placed struct {
	path string
	node *node
}

// link is a symbolic link to be made.
type link struct {
	placed
	to string
}

func (x *extraction) run(ctx context.Context, n *node, name string) error {
	if err := x.files(ctx, n, name); err != nil {
		return err
	}
	for _, l := range x.links {
		if err := x.link(l); err != nil {
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

// files makes all directories and files.
func (x *extraction) files(ctx context.Context, n *node, name string) error {
	group, ctx := errgroup.WithContext(ctx)
	x.batches = make(chan []fetch)
	group.Go(func() error {
		for batch := range x.batches {
			if err := x.r.v.fetchAll(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		defer close(x.batches)
		if err := x.plan(ctx, n, name); err != nil {
			return err
		}
		return x.flush(ctx)
	})
	return group.Wait()
}

// plan lines up n and, where it is a directory, what lies below it.
func (x *extraction) plan(ctx context.Context, n *node, name string) error {
	if err := x.planAll(ctx, []placed{{name, n}}); err != nil {
		return err
	}
	for len(x.todo) > 0 {
		first := max(0, len(x.todo)-maxListing)
		dirs := slices.Clone(x.todo[first:])
		x.todo = x.todo[:first]
		kids, err := x.r.kidsOf(ctx, dirs)
		if err != nil {
			return err
		}
		if err := x.planAll(ctx, kids); err != nil {
			return err
		}
	}
	return nil
}

// kidsOf reads several directories at once.
func (r *reader) kidsOf(ctx context.Context, dirs []placed) ([]placed, error) {
	lists := make([]map[string]*node, len(dirs))
	fetches := make([]fetch, len(dirs))
	for i, d := range dirs {
		fetches[i] = fetch{object: d.node.entry.ObjectID, use: func(ctx context.Context) (err error) {
			lists[i], err = r.kids(ctx, d.node)
			return err
		}}
	}
	if err := r.v.fetchAll(ctx, fetches); err != nil {
		return nil, err
	}
	var all []placed
	for i, d := range dirs {
		for _, stored := range slices.Sorted(maps.Keys(lists[i])) {
			name := rawName(stored)
			if names, err := elements(name); err != nil || len(names) != 1 {
				return nil, fault.New(quote(d.path), fault.ErrCorrupt, "it holds the impossible name "+quote(name), "")
			}
			all = append(all, placed{d.path + "/" + name, lists[i][stored]})
		}
	}
	return all, nil
}

// planAll makes directories and lines files and links up.
func (x *extraction) planAll(ctx context.Context, all []placed) error {
	lists, err := x.r.chunkLists(ctx, all)
	if err != nil {
		return err
	}
	for i, p := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch p.node.entry.Type {
		case snapshot.EntryTypeFile:
			err = x.planFile(ctx, p, lists[i])
		case snapshot.EntryTypeSymlink:
			err = x.lineUp(ctx, fetch{object: p.node.entry.ObjectID, use: func(ctx context.Context) error { return x.readLink(ctx, p) }})
		case snapshot.EntryTypeDirectory:
			x.todo, x.dirs = append(x.todo, p), append(x.dirs, p)
			err = localFault("make directory "+quote(p.path), x.root.Mkdir(p.path, 0o700))
			x.begun = x.begun || err == nil
		default:
			err = fault.New(quote(p.path), fault.ErrUnsupported, "an entry of an unknown type", "use a newer backstay")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chunkLists returns the chunks of the files among all, in their order.
func (r *reader) chunkLists(ctx context.Context, all []placed) ([][]object.IndirectObjectEntry, error) {
	lists := make([][]object.IndirectObjectEntry, len(all))
	var long []fetch
	for i, p := range all {
		e := &p.node.entry
		if e.Type != snapshot.EntryTypeFile {
			continue
		}
		read := func(ctx context.Context) (err error) {
			lists[i], err = r.v.chunks(ctx, e)
			return storageFault("read "+quote(p.path), err)
		}
		if index, ok := e.ObjectID.IndexObjectID(); ok {
			long = append(long, fetch{object: index, use: read})
		} else if err := read(ctx); err != nil {
			return nil, err
		}
	}
	return lists, r.v.fetchAll(ctx, long)
}

// planFile lines the chunks of a file up.
func (x *extraction) planFile(ctx context.Context, p placed, chunks []object.IndirectObjectEntry) error {
	t := &target{x: x, placed: p, left: len(chunks)}
	if len(chunks) == 0 {
		t.left = 1
		return t.done()
	}
	for _, c := range chunks {
		f := fetch{object: c.Object, use: func(ctx context.Context) error { return t.write(ctx, c) }}
		if err := x.lineUp(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (x *extraction) lineUp(ctx context.Context, f fetch) error {
	x.batch = append(x.batch, f)
	if len(x.batch) < maxBatch {
		return nil
	}
	return x.flush(ctx)
}

// flush hands over what is lined up.
func (x *extraction) flush(ctx context.Context) error {
	batch := x.batch
	x.batch = nil
	select {
	case x.batches <- batch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
	f, err := t.open()
	if err != nil {
		return err
	}
	if err := t.x.r.v.copyChunk(ctx, f, c, []int64{c.Start}, t.x.sparse[t.path]); err != nil {
		return fault.Wrap(quote(t.path), nil, err, "")
	}
	return t.done()
}

// copyChunk copies a chunk to its places in f. Where blank, f is known to hold zeros, and none are written.
func (v *Vault) copyChunk(ctx context.Context, f *os.File, c object.IndirectObjectEntry, places []int64, blank bool) error {
	o, err := v.rep.OpenObject(ctx, c.Object)
	if err != nil {
		return storageFault("read", err)
	}
	defer o.Close()
	if o.Length() != c.Length {
		return fault.New("read", fault.ErrCorrupt, "a chunk is not as long as it was", hintRepair)
	}
	source := &latch{r: o}
	buffer := v.buffers.take()
	defer v.buffers.give(buffer)
	_, err = io.CopyBuffer(&placedWriter{f: f, places: places, blank: blank}, source, buffer[:])
	if source.err != nil {
		return storageFault("read", source.err)
	}
	return localFault("write", err)
}

// placedWriter writes to a file, from each of several places on. What is blank stays a hole.
type placedWriter struct {
	f      *os.File
	places []int64
	blank  bool
	done   int64
}

// Write writes on.
func (w *placedWriter) Write(p []byte) (int, error) {
	at := w.done
	w.done += int64(len(p))
	if w.blank && zeros(p) {
		return len(p), nil
	}
	for _, place := range w.places {
		if n, err := w.f.WriteAt(p, place+at); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// zeros reports whether there is nothing but zeros in p.
func zeros(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// open makes the file for its first chunk.
func (t *target) open() (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened()
}

// opened is open for who holds mu.
func (t *target) opened() (*os.File, error) {
	if t.file != nil {
		return t.file, nil
	}
	f, err := t.x.root.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, localFault("make file "+quote(t.path), err)
	}
	t.file = f
	t.x.note(f, true)
	if t.x.sparse[t.path] {
		return f, localFault("write "+quote(t.path), f.Truncate(t.node.entry.FileSize))
	}
	return f, nil
}

// note remembers which files are open.
func (x *extraction) note(f *os.File, open bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begun = true
	if open {
		x.open[f] = true
	} else {
		delete(x.open, f)
	}
}

// done counts a chunk. After the last the file is given its attributes and closed.
func (t *target) done() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left--; t.left > 0 {
		return nil
	}
	f, err := t.opened()
	if err != nil {
		return err
	}
	if err := t.x.finishFile(f, t.placed); err != nil {
		return err
	}
	t.x.note(f, false)
	return localFault("write "+quote(t.path), f.Close())
}

// finishFile gives a file owner, mode and time, in this order: a change of owner takes the setuid bit away.
func (x *extraction) finishFile(f *os.File, p placed) error {
	op := "set attributes of " + quote(p.path)
	e := entryOf(&p.node.entry)
	if x.owners {
		if err := f.Chown(int(e.UID), int(e.GID)); err != nil {
			return localFault(op, err)
		}
	}
	if err := f.Chmod(x.mode(e)); err != nil {
		return localFault(op, err)
	}
	return localFault(op, setFileTime(x.root, p.path, f, e.Time))
}

// finish gives a directory its owner, mode and time.
func (x *extraction) finish(p placed) error {
	op := "set attributes of " + quote(p.path)
	e := entryOf(&p.node.entry)
	if x.owners {
		if err := x.root.Lchown(p.path, int(e.UID), int(e.GID)); err != nil {
			return localFault(op, err)
		}
	}
	if err := x.root.Chmod(p.path, x.mode(e)); err != nil {
		return localFault(op, err)
	}
	return localFault(op, x.root.Chtimes(p.path, e.Time, e.Time))
}

// mode is what an entry may be given: a setuid bit means something else under another owner.
func (x *extraction) mode(e point.Entry) fs.FileMode {
	if x.owners {
		return e.Mode & modeBits
	}
	return e.Mode & fs.ModePerm
}

// readLink reads where a link points. It is made at the end.
func (x *extraction) readLink(ctx context.Context, p placed) error {
	to, err := x.r.v.readLink(ctx, &p.node.entry)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.links = append(x.links, link{p, to})
	return nil
}

// link makes a symbolic link.
func (x *extraction) link(l link) error {
	op := "make link " + quote(l.path)
	if err := x.root.Symlink(l.to, l.path); err != nil {
		return localFault(op, err)
	}
	x.begun = true
	e := entryOf(&l.node.entry)
	if x.owners {
		if err := x.root.Lchown(l.path, int(e.UID), int(e.GID)); err != nil {
			return localFault(op, err)
		}
	}
	return localFault(op, setLinkTime(x.root, l.path, e.Time))
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
