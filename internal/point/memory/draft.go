package memory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// ended is a part that Store or Fail has ended.
type ended struct {
	part  point.Part
	files tree
	time  time.Time // when it was captured
}

// At says which moment the point is of.
func (d *draft) At(moment time.Time) { d.point.Time = moment.UTC() }

// Deployed says what had deployed the subject.
func (d *draft) Deployed(by *point.Deployment, revisions map[string]string) {
	d.point.Deployment, d.point.Revisions = by, revisions
}

// good reports whether the part can stand in for a later one.
func (e *ended) good() bool { return e.part.State == point.Stored || e.part.State == point.Carried }

type draft struct {
	store *Store
	point point.Point
	last  []point.Part // as it was when the draft began

	mu       sync.Mutex
	closed   bool
	open     map[string]bool // parts begun and not ended
	order    []string
	renamed  map[string]string // new names to old ones
	parts    map[string]*ended
	failures []error
	written  int64
}

func (d *draft) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.name(name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.open[name] = true
	d.mu.Unlock()
	return &partWriter{draft: d, name: name, kind: kind, prior: d.prior(name), files: tree{}}, nil
}

// prior finds the newest good copy of a part, if need be under the name it had before.
func (d *draft) prior(name string) *ended {
	if e := d.store.prior(d.point.Subject, name); e != nil {
		return e
	}
	if before := d.before(name); before != "" {
		return d.store.prior(d.point.Subject, before)
	}
	return nil
}

// before is the name that a part had before; "" where it had no other.
func (d *draft) before(name string) string {
	_, renamed := d.store.lastParts(d.point.Subject, d.point.Policy)
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(renamed, d.renamed)
	for now, before := range renamed {
		if below, inside := strings.CutPrefix(name+"/", now+"/"); inside {
			return path.Join(before, below)
		}
	}
	return ""
}

// holdLast holds the last point that has a good copy of the part, under the name it had there.
func (d *draft) holdLast(name, reason string) error {
	return d.store.holdLast(d.point.Subject, []string{name, d.before(name)}, point.AlarmNote+name+": "+reason)
}

func (d *draft) Last(ctx context.Context) ([]point.Part, error) {
	return d.last, ctx.Err()
}

func (d *draft) Renamed(name, before string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renamed[name] = before
}

func (d *draft) Vanish(ctx context.Context, name, kind, reason string) error {
	if err := d.name(name); err != nil {
		return err
	}
	d.end(&ended{part: point.Part{Name: name, Kind: kind, State: point.Vanished, Reason: reason}})
	return errors.Join(ctx.Err(), d.holdLast(name, reason))
}

func (d *draft) Skip(name, kind, reason string) {
	if d.name(name) != nil {
		return
	}
	d.end(&ended{part: point.Part{Name: name, Kind: kind, State: point.Skipped, Reason: reason}})
}

// name takes a part's name, which a draft does once.
func (d *draft) name(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return fmt.Errorf("part %s: the draft is closed", name)
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("part %q: not a path below the point", name)
	}
	for _, taken := range d.order {
		if taken == name {
			return fmt.Errorf("part %s: named twice", name)
		}
	}
	d.order = append(d.order, name)
	return nil
}

// end records an ended part and checkpoints it at once.
func (d *draft) end(e *ended) {
	d.mu.Lock()
	delete(d.open, e.part.Name)
	d.parts[e.part.Name] = e
	d.written += e.part.NewBytes
	d.mu.Unlock()
	if e.good() {
		d.store.checkpoint(d.point, e)
	}
}

func (d *draft) Checkpoint(ctx context.Context) error { return ctx.Err() }

func (d *draft) Abandon(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *draft) Commit(ctx context.Context) (*point.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, errors.New("commit: the draft is closed")
	case len(d.open) > 0:
		return nil, fmt.Errorf("commit: %d parts were not ended", len(d.open))
	}
	d.closed = true

	files := tree{}
	p := d.point
	p.Revisions = map[string]string{}
	maps.Copy(p.Revisions, d.point.Revisions)
	for _, name := range d.order {
		e := d.parts[name]
		p.Parts = append(p.Parts, e.part)
		files.graft(name, e.files)
		if e.part.Revision != "" {
			p.Revisions[name] = e.part.Revision
		}
	}
	ledger := point.LedgerOf(p.Parts)
	if ledger.Stored == 0 {
		if len(d.failures) > 0 {
			return nil, errors.Join(d.failures...)
		}
		return nil, fault.New("commit point of "+p.Subject.Name, fault.ErrIncomplete, "no part was stored", "")
	}
	p.State, p.Bytes = ledger.State(), ledger.Bytes
	record := point.Record{
		Version: point.RecordVersion, Point: p, Ledger: ledger, Finished: d.store.clock().UTC(), Tool: "backstay (memory)",
	}
	d.store.publish(&saved{record: record, parts: d.parts, files: files})
	return &point.Receipt{Record: record, StoredBytes: d.written}, nil
}

type partWriter struct {
	draft      *draft
	name, kind string
	prior      *ended

	mu      sync.Mutex
	done    bool
	files   tree
	written int64
	notes   []string
	saved   *ended // nil for nothing
}

func (w *partWriter) Prior() *point.Prior {
	if w.prior == nil {
		return nil
	}
	return &point.Prior{Reader: &reader{w.prior.files, w.prior.time}, Part: w.prior.part, Time: w.prior.time}
}

func (w *partWriter) Put(ctx context.Context, e point.Entry, r io.Reader, _ point.Content) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	p := e.Name
	if !fs.ValidPath(p) {
		return 0, fmt.Errorf("put %q: not a path below the part", p)
	}
	var data []byte
	if r != nil {
		var err error
		if data, err = io.ReadAll(r); err != nil {
			return int64(len(data)), err
		}
	}
	e.Size = int64(len(data))
	if e.Mode.Perm() == 0 {
		e.Mode |= 0o644
		if e.Mode.IsDir() {
			e.Mode |= 0o755
		}
	}
	if e.Time.IsZero() {
		e.Time = w.draft.point.Time
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return 0, fmt.Errorf("put %s: part %s has ended", p, w.name)
	}
	w.files[p] = &file{entry: e, data: data, sum: sha256.Sum256(data)}
	w.written += e.Size
	return e.Size, nil
}

func (w *partWriter) Keep(ctx context.Context, p string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p = path.Clean(p)
	if w.prior == nil {
		return notFound("keep", w.name+"/"+p)
	}
	kept := w.prior.files.below(p)
	if len(kept) == 0 && p != "." {
		return notFound("keep", w.name+"/"+p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("keep %s: part %s has ended", p, w.name)
	}
	w.files.graft(".", kept)
	return nil
}

func (w *partWriter) Alarm(ctx context.Context, finding string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	w.notes = append(w.notes, point.AlarmNote+finding)
	w.mu.Unlock()
	return w.draft.holdLast(w.name, finding)
}

func (w *partWriter) Store(ctx context.Context, p point.Part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.finish(); err != nil {
		return err
	}
	captured := w.draft.point.Time
	p.Name, p.Kind, p.State = w.name, w.kind, point.Stored
	if p.CarriedFrom != nil {
		p.State, captured = point.Carried, *p.CarriedFrom
	}
	if p.Unchanged {
		p.NewBytes = 0
	}
	p.Bytes, p.NewBytes = w.files.bytes(), max(p.NewBytes, w.written)
	p.Notes = append(p.Notes, w.notes...)
	w.draft.end(&ended{part: p, files: w.files, time: captured})
	return nil
}

// Save keeps what was put and kept so far for the next run.
func (w *partWriter) Save(ctx context.Context, p point.Part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("save part %s: it has ended", w.name)
	}
	p.Name, p.Kind, p.State, p.CarriedFrom = w.name, w.kind, point.Stored, nil
	p.Bytes, p.NewBytes = w.files.bytes(), w.written
	p.Notes = append(slices.Clone(p.Notes), w.notes...)
	w.saved = &ended{part: p, files: maps.Clone(w.files), time: w.draft.point.Time}
	w.draft.store.checkpoint(w.draft.point, w.saved)
	return nil
}

func (w *partWriter) Fail(_ context.Context, reason error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.finish(); err != nil {
		return err
	}
	w.draft.store.forget(w.draft.point, w.saved)
	w.draft.mu.Lock()
	w.draft.failures = append(w.draft.failures, fmt.Errorf("%s: %w", w.name, reason))
	w.draft.mu.Unlock()

	e := &ended{part: point.Part{Name: w.name, Kind: w.kind, State: point.Failed}}
	if w.prior != nil {
		e.part, e.files, e.time = w.prior.part, w.prior.files, w.prior.time
		e.part.Name, e.part.Kind = w.name, w.kind // it may have gone by another name
		e.part.State, e.part.NewBytes, e.part.Unchanged = point.Carried, 0, false
		e.part.CarriedFrom = &e.time
	}
	e.part.Reason = strings.TrimSpace(reason.Error())
	e.part.Notes = w.notes
	w.draft.end(e)
	return nil
}

func (w *partWriter) finish() error {
	if w.done {
		return fmt.Errorf("part %s: ended twice", w.name)
	}
	w.done = true
	return nil
}
