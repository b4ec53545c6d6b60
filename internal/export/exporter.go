package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Options says where copies go, and how.
type Options struct {
	Place   Place
	Layout  Layout
	Clock   func() time.Time
	Scratch string // directory for scratch files; "" for the system's
	// UpdateWorkTree makes the files of a clone match its HEAD, which has just moved. Needed for the form Worktree.
	UpdateWorkTree func(ctx context.Context, dir string) error
	// Lost returns those of before that nothing in after reaches, in the repository gitDir on the local disk. Without it, as on
	// servers, every tip that a ref left is taken for lost.
	Lost func(ctx context.Context, gitDir string, before, after []string) ([]string, error)
}

// Exporter makes copies in one place. It is a protect.Drafter. Safe for concurrent use.
type Exporter struct {
	o Options

	mu     sync.Mutex
	claims map[string]string // paths being written, and the repositories they are of
}

// New checks the options; it does not look at the place.
func New(o Options) (*Exporter, error) {
	if o.Layout.Form == "" {
		o.Layout.Form = Bare
	}
	if err := o.Layout.check(o); err != nil {
		return nil, err
	}
	return &Exporter{o: o, claims: map[string]string{}}, nil
}

// Begin starts a draft of the copies of a subject's repositories; usually it is one.
func (e *Exporter) Begin(ctx context.Context, s point.Subject, policy string) (point.Draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &draft{
		exporter: e, subject: s, policy: policy, started: e.o.Clock(),
		copies: map[string]*copying{}, taken: map[string]bool{},
	}, nil
}

// claim takes a path for a repository until it is released. The record in the place decides between runs, this one within.
func (e *Exporter) claim(path, repository string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if holder, taken := e.claims[path]; taken {
		return occupied(e.o.Place, path, repository, holder)
	}
	e.claims[path] = repository
	return nil
}

func (e *Exporter) release(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.claims, path)
}

// occupied is the error for a path that another repository has.
func occupied(p Place, path, repository, holder string) error {
	if holder == repository {
		return fault.New("export "+repository, fault.ErrBusy, fmt.Sprintf("%s in %s is being written", path, p), "")
	}
	return fault.New("export "+repository, fault.ErrExists, fmt.Sprintf("%s in %s holds %s", path, p, holder),
		"repositories of one name need `structured: true`, or exports of their own; the copy of one that was renamed can be moved away")
}

// draft is the copies of one subject being made.
type draft struct {
	exporter *Exporter
	subject  point.Subject
	policy   string
	started  time.Time

	mu       sync.Mutex
	closed   bool
	copies   map[string]*copying // by repository
	order    []*copying
	parts    []*writer
	skipped  []point.Part
	taken    map[string]bool
	failures []error
	stored   int64
	warnings []string
}

// Part opens a part. Parts that copies do not have are read and dropped.
func (d *draft) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	if err := d.name(ctx, name); err != nil {
		return nil, err
	}
	repository, in := repositoryOf(name, kind)
	w := &writer{draft: d, name: name, kind: kind}
	if repository != "" && (in != slotLFS || d.exporter.o.Layout.LFS) {
		c, err := d.copy(ctx, repository)
		if err != nil {
			return nil, err
		}
		w.slot, w.copying = in, c
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = append(d.parts, w)
	if w.copying != nil {
		w.copying.parts = append(w.copying.parts, w)
	}
	return w, nil
}

func (d *draft) name(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return fmt.Errorf("part %s: the draft is closed", name)
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("part %q: not a path below the point", name)
	case d.taken[name]:
		return fmt.Errorf("part %s: named twice", name)
	}
	d.taken[name] = true
	return nil
}

// copy returns the copy of a repository, opened once.
func (d *draft) copy(ctx context.Context, repository string) (*copying, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.copies[repository]; c != nil {
		return c, nil
	}
	c, err := d.exporter.open(ctx, repository, d.originOf(repository), d.started)
	if err != nil {
		return nil, err
	}
	d.copies[repository] = c
	d.order = append(d.order, c)
	return c, nil
}

// originOf is whose copy a repository of the subject is. A subject that is a repository may lie under another name than its own, and
// others under the same; beside it there is only its wiki.
func (d *draft) originOf(repository string) string {
	const wiki = ".wiki"
	switch of := d.subject.Name; {
	case d.subject.Kind != point.SubjectRepository:
		return repository
	case strings.HasSuffix(repository, wiki) && !strings.HasSuffix(of, wiki):
		return of + wiki
	default:
		return of
	}
}

// Skip notes what was left out.
func (d *draft) Skip(name, kind, reason string) {
	if d.name(context.Background(), name) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.skipped = append(d.skipped, point.Part{Name: name, Kind: kind, State: point.Skipped, Reason: reason})
}

// Last is empty: what lies in the place is found by name, and each repository is a subject of its own.
func (d *draft) Last(ctx context.Context) ([]point.Part, error) { return nil, ctx.Err() }

// Renamed changes nothing: a repository of another name is copied to another path, and the old copy stays.
func (d *draft) Renamed(string, string) {}

// Vanish ends a part that the source has no more. Its copy stays.
func (d *draft) Vanish(ctx context.Context, name, kind, reason string) error {
	if err := d.name(ctx, name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.skipped = append(d.skipped, point.Part{Name: name, Kind: kind, State: point.Vanished, Reason: reason})
	return nil
}

// Checkpoint does nothing: files are in their place as soon as they are put.
func (d *draft) Checkpoint(ctx context.Context) error { return ctx.Err() }

// Commit makes the new state of each copy valid. Copies that were done when another failed stay done.
func (d *draft) Commit(ctx context.Context) (*point.Receipt, error) {
	if err := d.end(); err != nil {
		return nil, err
	}
	defer d.free()
	for _, c := range d.order {
		if err := c.commit(ctx); err != nil {
			return nil, err
		}
		d.warnings = append(d.warnings, c.warnings...)
	}
	return d.receipt()
}

// end closes the draft for more parts.
func (d *draft) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("commit: the draft is closed")
	}
	for _, w := range d.parts {
		if !w.ended() {
			return fmt.Errorf("commit: part %s was not ended", w.name)
		}
	}
	d.closed = true
	return nil
}

func (d *draft) receipt() (*point.Receipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parts := d.skipped
	for _, w := range d.parts {
		parts = append(parts, w.entry)
		d.stored += w.entry.NewBytes
	}
	ledger := point.LedgerOf(parts)
	if ledger.Stored == 0 {
		if len(d.failures) > 0 {
			return nil, errors.Join(d.failures...)
		}
		return nil, fault.New("export "+d.subject.Name, fault.ErrIncomplete, "no part was stored", "")
	}
	p := point.Point{
		Subject: d.subject, Policy: d.policy, Time: d.started.UTC(), State: ledger.State(), Bytes: ledger.Bytes, Parts: parts,
		Revisions: map[string]string{},
	}
	for _, part := range parts {
		if part.Revision != "" {
			p.Revisions[part.Name] = part.Revision
		}
	}
	record := point.Record{Version: point.RecordVersion, Point: p, Ledger: ledger, Finished: d.exporter.o.Clock().UTC(), Tool: "backstay"}
	return &point.Receipt{Record: record, StoredBytes: d.stored, Warnings: d.warnings}, nil
}

// Abandon leaves what was written: it is new beside what was there, and the next run finds it.
func (d *draft) Abandon(context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if !closed {
		d.free()
	}
	return nil
}

// free gives up what the copies hold.
func (d *draft) free() {
	for _, w := range d.parts {
		w.free()
	}
	for _, c := range d.order {
		c.free()
	}
}
