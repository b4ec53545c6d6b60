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
	minFlight = 8 << 20  // bytes of packs that they may read at once; in memory they are there three times
	maxRun    = 4 << 20  // bytes asked for in one request
	maxGap    = 64 << 10 // bytes that are read for nothing rather than asking twice
)

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
	flight := semaphore.NewWeighted(v.flight)
	for len(all) > 0 {
		n, length := nextRun(all)
		run := all[:n]
		all = all[n:]
		weight := min(length, v.flight)
		if flight.Acquire(ctx, weight) != nil {
			break // a fetch failed, or the caller gave up: Wait says which
		}
		group.Go(func() error {
			defer flight.Release(weight)
			return v.fetchRun(ctx, run, length)
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

// fetchRun reads a run and hands it to its fetches by the context.
func (v *Vault) fetchRun(ctx context.Context, run []fetch, length int64) error {
	if len(run) > 1 {
		r := &runOfBytes{blob: run[0].info.PackBlobID, start: int64(run[0].info.PackOffset)}
		buf := raw{make([]byte, 0, length)}
		if err := v.store.GetBlob(ctx, r.blob, r.start, length, &buf); err == nil { // else each fetch finds out by itself
			r.bytes = buf.b
			ctx = context.WithValue(ctx, runKey{}, r)
		}
	}
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
		fetches = append(fetches, fetch{object: n.entry.ObjectID, use: func(ctx context.Context) error {
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
