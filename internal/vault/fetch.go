package vault

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/backstay/backstay/internal/fault"
)

const (
	readers   = 16       // goroutines that read at once
	minFlight = 8 << 20  // bytes of packs that they may have read at once
	minUnpack = 8 << 20  // bytes of packs that they may unpack at once; in memory they are there four times more
	maxRun    = 4 << 20  // bytes asked for in one request
	maxGap    = 64 << 10 // bytes that are read for nothing rather than asking twice
)

// bounds are how much is read from the location, and unpacked, at once. What waits for a store takes the memory of its bytes and no
// more, so that much can be waited for; what is unpacked keeps processors busy, and few are enough.
type bounds struct{ flight, unpack int64 }

// boundsOf are those by which reading stays within an amount of memory.
func boundsOf(memory int64) bounds {
	return bounds{max(minFlight, memory/6), max(minUnpack, memory/24)}
}

// fetch is one object to be read, and what to do then.
type fetch struct {
	object object.ID
	info   content.Info // zero where the object is more than one content
	use    func(context.Context) error
}

// fetchAll calls use for every fetch, several at a time. Objects that lie side by side in a pack are read by one request: a store
// that answers in 30 ms would take as long as that for every small file.
func (v *Vault) fetchAll(outer context.Context, all []fetch) error {
	for i := range all {
		if id, _, ok := all[i].object.ContentID(); ok {
			if info, err := v.rep.ContentInfo(outer, id); err == nil {
				all[i].info = info
			}
		}
	}
	slices.SortStableFunc(all, func(a, b fetch) int {
		if c := strings.Compare(string(a.info.PackBlobID), string(b.info.PackBlobID)); c != 0 {
			return c
		}
		return int(int64(a.info.PackOffset) - int64(b.info.PackOffset))
	})
	group, ctx := errgroup.WithContext(outer)
	group.SetLimit(readers)
	flight, unpack := semaphore.NewWeighted(v.bounds.flight), semaphore.NewWeighted(v.bounds.unpack)
	for len(all) > 0 {
		n, length := nextRun(all)
		run := all[:n]
		all = all[n:]
		read, unpacked := min(length, v.bounds.flight), min(length, v.bounds.unpack)
		if flight.Acquire(ctx, read) != nil {
			break // a fetch failed, or the caller gave up: Wait says which
		}
		group.Go(func() error {
			defer flight.Release(read)
			ctx, done := v.readRun(ctx, run, length)
			defer done()
			if err := unpack.Acquire(ctx, unpacked); err != nil {
				return err
			}
			defer unpack.Release(unpacked)
			return useAll(ctx, run)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(outer)
}

// nextRun returns how many of the fetches, which are sorted, lie so close that one request serves them, and its length in bytes.
func nextRun(all []fetch) (n int, length int64) {
	first := all[0].info
	start, end := int64(first.PackOffset), int64(first.PackOffset)+int64(first.PackedLength)
	for n = 1; n < len(all); n++ {
		i := all[n].info
		if i.PackBlobID != first.PackBlobID || i.PackBlobID == "" || int64(i.PackOffset) > end+maxGap {
			break
		}
		if e := max(end, int64(i.PackOffset)+int64(i.PackedLength)); e-start <= maxRun {
			end = e
			continue
		}
		break
	}
	return n, end - start
}

// readRun reads a run into the context that it returns, until done is called. Where it cannot, each fetch finds out by itself.
func (v *Vault) readRun(ctx context.Context, run []fetch, length int64) (_ context.Context, done func()) {
	if length == 0 {
		return ctx, func() {}
	}
	buffer := v.runs.take(length)
	done = func() { v.runs.give(buffer) }
	r := &runOfBytes{blob: run[0].info.PackBlobID, start: int64(run[0].info.PackOffset)}
	if v.store.GetBlob(ctx, r.blob, r.start, length, buffer) != nil {
		return ctx, done
	}
	r.bytes = buffer.b
	return context.WithValue(ctx, runKey{}, r), done
}

// runBuffers are buffers that runs are read into, used again and again: to clear a new one costs about as much as to fill it.
type runBuffers struct{ pool sync.Pool }

func (b *runBuffers) take(length int64) *raw {
	need := int(length) + 1 // of which the last finds the end
	buffer, ok := b.pool.Get().(*raw)
	if !ok {
		buffer = &raw{}
	}
	if cap(buffer.b) < need {
		buffer.b = make([]byte, 0, need)
	}
	return buffer
}

func (b *runBuffers) give(buffer *raw) {
	const least = 1 << 20 // shorter ones are cheap, and would stand in the way of long ones
	if cap(buffer.b) >= least {
		b.pool.Put(buffer)
	}
}

func useAll(ctx context.Context, run []fetch) error {
	for _, f := range run {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.use(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runOfBytes is a piece of a pack in memory.
type runOfBytes struct {
	blob  blob.ID
	start int64
	bytes []byte
}

type runKey struct{}

// runBytes returns bytes of a blob from the run in the context; nil where it has them not.
func runBytes(ctx context.Context, id blob.ID, offset, length int64) []byte {
	r, ok := ctx.Value(runKey{}).(*runOfBytes)
	if !ok || r.blob != id || length < 0 || offset < r.start || offset+length > r.start+int64(len(r.bytes)) {
		return nil
	}
	return r.bytes[offset-r.start : offset-r.start+length]
}

// present checks that the index knows every object of a tree and its packs are there, and saves from collection what was about to be collected.
func (d *draft) present(ctx context.Context, n *node) error {
	seen := map[object.ID]bool{}
	level := []*node{n}
	for len(level) > 0 {
		var next, stored []*node
		for _, n := range level {
			if n.kids == nil && !d.known(n.entry.ObjectID) && !seen[n.entry.ObjectID] {
				seen[n.entry.ObjectID] = true
				stored = append(stored, n)
			}
			for _, kid := range n.kids {
				next = append(next, kid)
			}
		}
		below, err := d.presentAll(ctx, stored)
		if err != nil {
			return err
		}
		level = append(next, below...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.checked, seen) // only now: what lies below a directory counts, too
	return nil
}

func (d *draft) known(id object.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checked[id]
}

// presentAll checks stored entries and returns what lies in those that are directories. For files it reads nothing
// but the lists of the chunks of large ones.
func (d *draft) presentAll(ctx context.Context, nodes []*node) ([]*node, error) {
	var mu sync.Mutex
	var below []*node
	var fetches []fetch
	for _, n := range nodes {
		if n.entry.ObjectID == noObject {
			return nil, fault.New(quote(rawName(n.entry.Name)), fault.ErrCorrupt, "has no object", "")
		}
		list := outline(n)
		if list == noObject {
			if err := d.presentObject(ctx, n); err != nil {
				return nil, err
			}
			continue
		}
		fetches = append(fetches, fetch{object: list, use: func(ctx context.Context) error {
			if err := d.presentObject(ctx, n); err != nil || !n.isDir() {
				return err
			}
			kids, err := readKids(ctx, d.w, &n.entry)
			mu.Lock()
			defer mu.Unlock()
			for _, kid := range kids {
				below = append(below, kid)
			}
			return err
		}})
	}
	err := d.v.fetchAll(ctx, fetches)
	return below, err
}

// outline is the object that must be read to know what an entry consists of: a directory, or the list of the chunks of a large file.
// Of a small file none need be.
func outline(n *node) object.ID {
	if n.isDir() {
		return n.entry.ObjectID
	}
	if index, ok := n.entry.ObjectID.IndexObjectID(); ok {
		return index
	}
	return noObject
}

// presentObject checks one object.
func (d *draft) presentObject(ctx context.Context, n *node) error {
	op := "check " + quote(rawName(n.entry.Name))
	contents, err := d.w.VerifyObject(ctx, n.entry.ObjectID)
	if err != nil {
		return storageFault(op, err)
	}
	for _, id := range contents {
		info, err := d.locate(ctx, id)
		if err != nil {
			return storageFault(op, err)
		}
		if !info.Deleted {
			continue
		}
		if err := d.w.ContentManager().UndeleteContent(ctx, id); err != nil {
			return storageFault(op, err)
		}
	}
	return nil
}
