package vault

import (
	"context"
	"io"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/point"
)

// Long files are stored in ranges, several at a time. Where they meet is a place at which a file is cut whatever it holds, so what
// moves within a file finds fewer of its chunks again; files that are cut at fixed places anyway lose nothing.
const (
	treeRange  = 256 << 20
	blockRange = 64 << 20
	// rangeWriters is how many ranges of a draft are stored at once; each takes up to three chunks of memory.
	rangeWriters = 4
	// flushEvery is how much a kill may cost of a part that takes long: what was stored by then need not be stored again.
	flushEvery = time.Minute
)

// ranged is a reader, for Put, of which any range can be read at any time.
type ranged interface {
	io.Reader
	io.ReaderAt
	Size() int64
	// Hole reports whether a range holds nothing but zeros, where that can be told without reading it.
	Hole(at, length int64) bool
	// Steady returns an error where the bytes have changed since they were first read.
	Steady() error
}

// rangeOf is the length of the ranges in which content is stored.
func rangeOf(c point.Content) int64 {
	if c == point.Block {
		return blockRange
	}
	return treeRange
}

// storeRanges writes a long file as one object. An error of the file comes back as it is.
func (d *draft) storeRanges(ctx context.Context, f ranged, c point.Content) (object.ID, int64, error) {
	length, size := rangeOf(c), f.Size()
	parts := make([]object.ID, size/length) // the last is longer, so that none is a single chunk
	group, inner := errgroup.WithContext(ctx)
	for i := range parts {
		at, n := int64(i)*length, length
		if i == len(parts)-1 {
			n = size - at
		}
		if inner.Err() != nil {
			break
		}
		d.ranges <- struct{}{}
		group.Go(func() (err error) {
			defer func() { <-d.ranges }()
			parts[i], err = d.storeRange(inner, f, at, n, c)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return noObject, 0, err
	}
	if err := f.Steady(); err != nil {
		return noObject, 0, err
	}
	oid, err := d.w.ConcatenateObjects(ctx, parts, repo.ConcatenateOptions{Compressor: compressor})
	if err != nil {
		return noObject, size, storageFault("write file", err)
	}
	if list, ok := oid.IndexObjectID(); ok {
		d.wrote(list)
	}
	return oid, size, nil
}

// storeRange writes one range. One that is known to be a hole is stored once and for all.
func (d *draft) storeRange(ctx context.Context, f ranged, at, length int64, c point.Content) (object.ID, error) {
	hole := length == rangeOf(c) && f.Hole(at, length)
	if hole {
		d.mu.Lock()
		oid, known := d.holes[c]
		d.mu.Unlock()
		if known {
			return oid, nil
		}
	}
	oid, n, err := d.storeOne(ctx, io.NewSectionReader(f, at, length), c)
	switch {
	case err != nil:
		return noObject, err
	case n != length:
		return noObject, io.ErrUnexpectedEOF // the file has become shorter
	case hole:
		d.mu.Lock()
		d.holes[c] = oid
		d.mu.Unlock()
	}
	return oid, d.settle(ctx)
}

// settle enters what was stored so far in the vault's index once in a while, though no point has it yet.
func (d *draft) settle(ctx context.Context) error {
	d.mu.Lock()
	due := !d.closed && d.v.now().Sub(d.settled) >= flushEvery
	d.mu.Unlock()
	if !due || !d.flushing.TryLock() {
		return nil
	}
	defer d.flushing.Unlock()
	err := d.w.Flush(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = d.v.now()
	return storageFault("flush", err)
}
