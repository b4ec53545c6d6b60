package vault

import (
	"context"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// modeBits are the bits of a mode that are kept.
const modeBits = iofs.ModePerm | iofs.ModeSetuid | iofs.ModeSetgid | iofs.ModeSticky

// part writes one part of a draft.
type part struct {
	d          *draft
	name, kind string
	prior      *prior

	mu       sync.Mutex
	ended    bool
	root     *node
	loose    int // entries put since some were last stored
	newBytes int64
	notes    []string
}

// Prior is the newest good copy of the part.
func (p *part) Prior() *point.Prior {
	if p.prior == nil {
		return nil
	}
	return &p.prior.Prior
}

// Put writes a file, a directory or a symbolic link.
func (p *part) Put(ctx context.Context, e point.Entry, r io.Reader, c point.Content) (int64, error) {
	names, err := elements(e.Name)
	if err != nil {
		return 0, err
	}
	n, err := p.newNode(e, len(names))
	if err != nil {
		return 0, err
	}
	ctx, done, err := p.d.v.operation(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	ctx = countWritten(ctx, &p.d.written)
	var read int64
	switch n.entry.Type {
	case snapshot.EntryTypeSymlink:
		r = strings.NewReader(e.Link)
		fallthrough
	case snapshot.EntryTypeFile:
		if n.entry.ObjectID, read, err = p.d.store(ctx, r, c); err != nil {
			return read, err
		}
		n.entry.FileSize = read
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return 0, fmt.Errorf("put %s: part %s has ended", quote(e.Name), p.name)
	}
	if err := p.root.put(ctx, p.d.w, names, n); err != nil {
		return 0, err
	}
	p.newBytes += read
	if err := p.shed(ctx, names); err != nil {
		return 0, err
	}
	return read, p.d.settle(ctx)
}

// maxLoose is how many entries of a part are kept in memory, beside those of the directories that are being filled.
const maxLoose = 1 << 16

// shed stores the directories that are likely complete once there is much in memory. One that was not is read again. The caller holds mu.
func (p *part) shed(ctx context.Context, names []string) error {
	if p.loose++; p.loose < maxLoose {
		return nil
	}
	p.loose = 0
	return p.root.shed(ctx, p.d.w, names, p.d.wrote)
}

// newNode makes the node of an entry, without its object.
func (p *part) newNode(e point.Entry, depth int) (*node, error) {
	n := &node{entry: snapshot.DirEntry{UserID: e.UID, GroupID: e.GID, Permissions: snapshot.Permissions(e.Mode & modeBits)}}
	switch e.Mode.Type() {
	case 0:
		n.entry.Type = snapshot.EntryTypeFile
	case iofs.ModeDir:
		n.entry.Type, n.kids = snapshot.EntryTypeDirectory, map[string]*node{}
	case iofs.ModeSymlink:
		n.entry.Type = snapshot.EntryTypeSymlink
	default:
		return nil, fault.New("put "+quote(e.Name), fault.ErrUnsupported, "a "+e.Mode.Type().String()+" cannot be stored", "")
	}
	if depth == 0 && !n.isDir() {
		return nil, fault.New("put "+quote(e.Name), fault.ErrInvalid, "a part is a directory", "")
	}
	if e.Mode&modeBits == 0 {
		n.entry.Permissions = 0o644
		if n.isDir() {
			n.entry.Permissions = 0o755
		}
	}
	if e.Time.IsZero() {
		e.Time = p.d.point.Time
	}
	n.entry.ModTime = fs.UTCTimestampFromTime(e.Time)
	return n, nil
}

// copyBuffer is what bytes pass through on their way into the vault, or out of it.
type copyBuffer [128 << 10]byte

// copyBuffers are buffers that are used again and again: one for each small file would keep the garbage collector busy.
type copyBuffers struct{ pool sync.Pool }

func (b *copyBuffers) take() *copyBuffer {
	if buffer, ok := b.pool.Get().(*copyBuffer); ok {
		return buffer
	}
	return new(copyBuffer)
}

func (b *copyBuffers) give(buffer *copyBuffer) { b.pool.Put(buffer) }

// store writes the bytes of r as an object. An error of r comes back as it is.
func (d *draft) store(ctx context.Context, r io.Reader, c point.Content) (object.ID, int64, error) {
	if d.writers != nil {
		select {
		case d.writers <- struct{}{}:
			defer func() { <-d.writers }()
		case <-ctx.Done():
			return noObject, 0, context.Cause(ctx)
		}
	}
	if f, ok := r.(ranged); ok && f.Size() >= 2*rangeOf(c) {
		return d.storeRanges(ctx, f, c)
	}
	oid, n, err := d.storeOne(ctx, r, c)
	if list, ok := oid.IndexObjectID(); ok {
		d.wrote(list)
	}
	return oid, n, err
}

// storeOne writes the bytes of r one after another.
func (d *draft) storeOne(ctx context.Context, r io.Reader, c point.Content) (object.ID, int64, error) {
	w := d.w.NewObjectWriter(ctx, writerOptions(c))
	defer w.Close()
	source := &latch{r: r}
	buffer := d.v.buffers.take()
	defer d.v.buffers.give(buffer)
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, source, buffer[:])
	if source.err != nil {
		return noObject, n, source.err
	}
	if err != nil {
		return noObject, n, storageFault("write file", err)
	}
	oid, err := w.Result()
	return oid, n, storageFault("write file", err)
}

// wrote notes an object of metadata that is not copied into the catalogue yet.
func (d *draft) wrote(id object.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fresh = append(d.fresh, id)
}

// latch remembers the error of a reader, to tell it from errors of the vault.
type latch struct {
	r   io.Reader
	err error
}

// Read reads on.
func (l *latch) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

// Keep takes an entry over from the prior copy.
func (p *part) Keep(ctx context.Context, path string) error {
	op := "keep " + quote(path) + " of " + p.name
	names, err := elements(path)
	if err != nil {
		return err
	}
	if p.prior == nil {
		return fault.New(op, fault.ErrNotFound, "there is no earlier copy of the part", "")
	}
	ctx, done, err := p.d.v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	n, err := (&reader{p.d.v, p.prior.node}).find(ctx, path)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return fmt.Errorf("%s: the part has ended", op)
	}
	if err := p.root.put(ctx, p.d.w, names, n.copy()); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	return fault.Wrap(op, nil, p.shed(ctx, names), "")
}

// Alarm records a finding and holds the last point that has the part.
func (p *part) Alarm(ctx context.Context, finding string) error {
	p.mu.Lock()
	p.notes = append(p.notes, point.AlarmNote+finding)
	p.mu.Unlock()
	return p.d.holdLast(ctx, p.name, finding)
}

// Store ends the part as stored, or as carried.
func (p *part) Store(ctx context.Context, q point.Part) error {
	n, err := p.close(ctx, "store part "+p.name, p.root)
	if err != nil {
		return err
	}
	q.Name, q.Kind, q.State = p.name, p.kind, point.Stored
	if q.CarriedFrom != nil {
		q.State = point.Carried
	}
	if q.Unchanged {
		q.NewBytes = 0
	} // else what was kept may have been new in this run, when a shard of it was written: its writer says so
	q.Bytes, q.NewBytes, q.Notes = size(&n.entry), max(q.NewBytes, p.newBytes), append(q.Notes, p.notes...)
	p.d.end(ended{q, n, p.newBytes})
	return p.d.secureEnded(ctx)
}

// Save makes what was put and kept so far last, as a part that is stored; it stays open.
func (p *part) Save(ctx context.Context, q point.Part) error {
	op := "save part " + p.name
	n, err := p.copy(ctx, op)
	if err != nil {
		return err
	}
	q.Name, q.Kind, q.State, q.CarriedFrom = p.name, p.kind, point.Stored, nil
	q.Bytes = size(&n.entry)
	p.mu.Lock()
	q.NewBytes, q.Notes = p.newBytes, append(slices.Clone(q.Notes), p.notes...)
	p.mu.Unlock()
	p.d.save(ended{part: q, node: n})
	return fault.Wrap(op, nil, p.d.Checkpoint(ctx), "")
}

// copy writes the directories of the part's tree as it is, and returns a copy of that.
func (p *part) copy(ctx context.Context, op string) (*node, error) {
	ctx, done, err := p.d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, fmt.Errorf("%s: it has ended already", op)
	}
	n := p.root.copy()
	_, err = n.write(countWritten(ctx, &p.d.written), p.d.w, p.d.wrote)
	return n, fault.Wrap(op, nil, err, "")
}

// Fail ends the part as failed, or carries its prior copy.
func (p *part) Fail(ctx context.Context, reason error) error {
	var kept *node
	q := point.Part{Name: p.name, Kind: p.kind, State: point.Failed}
	if p.prior != nil {
		kept = p.prior.node.copy()
		q = p.prior.Part
		at := p.prior.Time
		q.Name, q.Kind = p.name, p.kind // it may have gone by another name
		q.State, q.CarriedFrom, q.NewBytes, q.Unchanged = point.Carried, &at, 0, false
	}
	n, err := p.close(ctx, "end part "+p.name, kept)
	if err != nil {
		return err
	}
	q.Reason, q.Notes = strings.TrimSpace(reason.Error()), p.notes
	p.d.mu.Lock()
	p.d.failures = append(p.d.failures, fmt.Errorf("%s: %w", p.name, reason))
	p.d.mu.Unlock()
	p.d.end(ended{part: q, node: n})
	return p.d.secureEnded(ctx)
}

// close ends the part, writes the directories of its tree and returns it.
func (p *part) close(ctx context.Context, op string, n *node) (*node, error) {
	ctx, done, err := p.d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, fmt.Errorf("%s: it has ended already", op)
	}
	if n == nil {
		p.ended, p.root = true, nil
		return nil, nil //nolint:nilnil // the point has nothing of the part
	}
	if n.entry.ModTime == 0 && len(n.kids) == 0 && n.kids != nil {
		n.entry.ModTime = fs.UTCTimestampFromTime(p.d.point.Time)
	}
	if _, err := n.write(countWritten(ctx, &p.d.written), p.d.w, p.d.wrote); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	p.ended, p.root = true, nil
	return n, nil
}
