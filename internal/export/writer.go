package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// writer writes one part of a copy. Without a copy it drops what it is given.
//
// Objects are written at once, for their names are new. The few small files of a repository wait in small until all objects of the
// copy are in place.
type writer struct {
	draft      *draft
	name, kind string
	slot       slot
	copying    *copying

	mu      sync.Mutex
	done    bool
	all     bool             // all of the prior part is kept
	kept    map[string]int64 // sizes of files kept one by one
	put     map[string]int64 // sizes of files written at once
	small   map[string]*spool
	sums    map[string]string // of put and small files whose names do not say what is in them
	written int64
	entry   point.Part
}

func (w *writer) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

// before is what the copy that is there has of the part; nil for nothing.
func (w *writer) before() *contents {
	if w.copying == nil || w.copying.prior == nil {
		return nil
	}
	c, there := w.copying.prior.record.Parts[w.slot]
	if !there || c.Part.Name != w.name {
		return nil
	}
	return &c
}

// Prior is what lies in the place.
func (w *writer) Prior() *point.Prior {
	had := w.before()
	if had == nil {
		return nil
	}
	p := w.copying.prior
	return &point.Prior{Reader: slotReader{p.from, p.at, w.slot}, Part: had.Part, Time: p.record.Time}
}

// byContent tells whether a file is never written again with other bytes: packs and their indexes, LFS objects.
func (w *writer) byContent(name string) bool {
	return w.slot != slotIssues && strings.HasPrefix(name, "objects/")
}

// Put writes objects and issues at once and sets the other files aside.
func (w *writer) Put(ctx context.Context, e point.Entry, r io.Reader, _ point.Content) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	switch {
	case !fs.ValidPath(e.Name) || e.Name == "." || strings.HasPrefix(path.Base(e.Name), recordName):
		return 0, fault.New(fmt.Sprintf("put %q", e.Name), fault.ErrInvalid, "not a file of a copy", "")
	case w.ended():
		return 0, fmt.Errorf("put %s: part %s has ended", e.Name, w.name)
	case e.Mode.IsDir():
		return 0, nil // those that a repository needs are made anyway
	case !e.Mode.IsRegular():
		return 0, fault.New("put "+e.Name, fault.ErrUnsupported, "copies hold no symbolic links of their own", "")
	case w.copying == nil:
		return io.Copy(io.Discard, r)
	case w.byContent(e.Name):
		n, err := w.copying.put(ctx, w.slot, e.Name, r)
		return n, w.note(e.Name, n, err)
	}
	return w.putSmall(ctx, e.Name, r)
}

func (w *writer) note(name string, n int64, err error) error {
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.put == nil {
		w.put = map[string]int64{}
	}
	w.put[name] = n
	w.written += n
	return nil
}

// putSmall takes a file whose name does not say what is in it. An issue that is there already with the same bytes is kept.
func (w *writer) putSmall(ctx context.Context, name string, r io.Reader) (int64, error) {
	digest := sha256.New()
	s, err := newSpool(w.draft.exporter.o.Scratch, io.TeeReader(r, digest))
	if err != nil {
		return 0, err
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	w.mu.Lock()
	if w.sums == nil {
		w.sums, w.small = map[string]string{}, map[string]*spool{}
	}
	w.sums[name] = sum
	if w.slot != slotIssues {
		w.small[name] = s
		w.mu.Unlock()
		return s.size, nil
	}
	w.mu.Unlock()
	defer s.close()
	if had := w.before(); had != nil && had.Sums[name] == sum {
		if size, err := w.copying.sizeOf(ctx, w.slot, name); err == nil && size == s.size {
			return s.size, w.Keep(ctx, name)
		}
	}
	n, err := w.copying.put(ctx, w.slot, name, s.content())
	return n, w.note(name, n, err)
}

// Keep takes a file, or all of them, over from what lies there.
func (w *writer) Keep(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	had := w.before()
	if had == nil {
		return fault.New("keep "+w.name+"/"+name, fault.ErrNotFound, "", "")
	}
	if path.Clean(name) == "." {
		w.mu.Lock()
		w.all = true
		w.mu.Unlock()
		return nil
	}
	size, err := w.copying.sizeOf(ctx, w.slot, name)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kept == nil {
		w.kept = map[string]int64{}
	}
	w.kept[path.Clean(name)] = size
	return nil
}

// Alarm adds the finding to the part's notes. Older states stay reachable in the copy all the same.
func (w *writer) Alarm(ctx context.Context, finding string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entry.Notes = append(w.entry.Notes, point.AlarmNote+finding)
	return ctx.Err()
}

// Store ends the part. It becomes valid with Commit.
func (w *writer) Store(ctx context.Context, p point.Part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.finish(); err != nil {
		return err
	}
	p.Notes = append(p.Notes, w.entry.Notes...)
	p.Name, p.Kind, p.State = w.name, w.kind, point.Stored
	switch {
	case w.copying == nil:
		p = point.Part{Name: w.name, Kind: w.kind, State: point.Skipped, Reason: "copies in " + w.draft.exporter.o.Place.String() + " do not have it"}
	case p.CarriedFrom != nil:
		p.State = point.Carried
	}
	p.Bytes, p.NewBytes = w.size(), w.written
	w.entry = p
	return nil
}

// size sums the part's files; the caller holds mu.
func (w *writer) size() int64 {
	var n int64
	if w.all {
		if had := w.before(); had != nil {
			n = had.Part.Bytes
		}
	}
	for _, sizes := range []map[string]int64{w.kept, w.put} {
		for _, size := range sizes {
			n += size
		}
	}
	for _, s := range w.small {
		n += s.size
		w.written += s.size
	}
	return n
}

// Fail ends the part as failed; what lies in the place stays.
func (w *writer) Fail(_ context.Context, reason error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.finish(); err != nil {
		return err
	}
	notes := w.entry.Notes
	w.entry = point.Part{Name: w.name, Kind: w.kind, State: point.Failed}
	if had := w.before(); had != nil {
		captured := w.copying.prior.record.Time
		w.entry = had.Part
		w.entry.State, w.entry.CarriedFrom, w.entry.NewBytes = point.Carried, &captured, 0
		w.closeSmall()
		w.all, w.put, w.kept, w.sums = true, nil, nil, nil
	}
	w.entry.Reason, w.entry.Notes = strings.TrimSpace(reason.Error()), notes
	w.draft.mu.Lock()
	w.draft.failures = append(w.draft.failures, fmt.Errorf("%s: %w", w.name, reason))
	w.draft.mu.Unlock()
	return nil
}

func (w *writer) finish() error {
	if w.done {
		return errors.New("part " + w.name + ": ended twice")
	}
	w.done = true
	return nil
}

func (w *writer) free() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeSmall()
}

// closeSmall drops the files set aside; the caller holds mu.
func (w *writer) closeSmall() {
	for _, s := range w.small {
		s.close()
	}
	w.small = nil
}

// changed tells whether the part differs from what lies there.
func (w *writer) changed() bool {
	had := w.before()
	if len(w.put) > 0 || had == nil && w.entry.State == point.Stored {
		return true
	}
	for name := range w.small {
		if had.Sums[name] != w.sums[name] {
			return true
		}
	}
	if w.all || had == nil {
		return false
	}
	for name := range had.Sums {
		if _, still := w.sums[name]; !still && w.slot != slotIssues {
			return true
		}
	}
	return false
}

// wrote tells whether this run has given the file new bytes.
func (w *writer) wrote(name string) bool {
	_, put := w.put[name]
	return put || w.small[name] != nil
}

// contents is what the record says of the part.
func (w *writer) contents() contents {
	c := contents{Part: w.entry, Sums: w.sums}
	if had := w.before(); had != nil && (w.all || w.slot == slotIssues) {
		merged := map[string]string{}
		for name, sum := range had.Sums {
			merged[name] = sum
		}
		for name, sum := range w.sums {
			merged[name] = sum
		}
		c.Sums = merged
	}
	return c
}
