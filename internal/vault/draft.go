package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	recordName      = "backstay.json"
	checkpointEvery = time.Minute
	checkpointBytes = 8 << 20   // new in parts that ended: worth a checkpoint before the minute is over
	trusted         = time.Hour // what was there when a draft began is there: maintenance waits longer before it takes anything
	lookBack        = 8         // points in which the last good copy of a part is sought
	maxRecord       = 256 << 20
)

// draft is a point being made, in one write session of kopia's: a session for each part would make three blobs a part.
type draft struct {
	v       *Vault
	w       repo.DirectRepositoryWriter
	point   point.Point
	past    []*past // of the subject, newest first
	left    []manifest.ID
	written atomic.Int64

	packs packs

	flushing sync.Mutex // one checkpoint or commit at a time

	mu          sync.Mutex
	closed      bool
	checked     map[object.ID]bool // objects known to be there
	fresh       []object.ID        // metadata of parts that no leaf has a copy of yet
	order       []string           // names of parts
	renamed     map[string]string  // new names of parts to old ones
	open        map[string]bool
	ended       map[string]ended
	failures    []error
	warnings    []string
	checkpoint  manifest.ID // the last
	lastFlushed time.Time
	unflushed   int64 // new bytes of parts that ended since
}

// ended is a part that Store, Fail or Skip has ended.
type ended struct {
	part point.Part
	node *node // stored; nil where the point has nothing of it
}

// past is an earlier point, or a checkpoint, of the draft's subject. Its record is read when it is asked for.
type past struct {
	saved
	listed bool

	mu     sync.Mutex
	record *point.Record
	root   *node
	broken bool
}

// Begin starts a point of a subject.
func (v *Vault) Begin(ctx context.Context, s point.Subject, policy string) (point.Draft, error) {
	op := "begin point of " + s.Name
	if err := v.writable(op); err != nil {
		return nil, err
	}
	if s.Kind == "" || s.Name == "" {
		return nil, fault.New(op, fault.ErrInvalid, "a subject has a kind and a name", "")
	}
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := v.manifests(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	warnings, err := v.tidy(ctx, l)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	_, w, err := v.rep.NewDirectWriter(ctx, repo.WriteSessionOptions{Purpose: "backup"})
	if err != nil {
		return nil, storageFault(op, err)
	}
	now := v.now().UTC()
	d := &draft{
		v: v, w: w, lastFlushed: now,
		point: point.Point{ID: randomID(), Subject: s, Policy: policy, Time: now},
		open:  map[string]bool{}, renamed: map[string]string{}, ended: map[string]ended{}, checked: map[object.ID]bool{},
		packs: packs{lost: map[blob.ID]bool{}}, warnings: warnings,
	}
	d.recall(l)
	return d, nil
}

// recall notes the subject's past from the manifests.
func (d *draft) recall(l *listing) {
	points := 0
	for _, s := range l.points {
		if s.Subject == d.point.Subject && points < lookBack {
			points++
			d.past = append(d.past, &past{saved: s, listed: true})
		}
	}
	for _, s := range l.drafts {
		if s.Subject != d.point.Subject {
			continue
		}
		d.left = append(d.left, s.manifest)
		if len(d.left) <= lookBack {
			d.past = append(d.past, &past{saved: s})
		}
	}
	slices.SortStableFunc(d.past, func(a, b *past) int { return b.Time.Compare(a.Time) })
}

// load reads the record of an earlier point. A point that is damaged is passed over.
func (d *draft) load(ctx context.Context, p *past) (*point.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || p.record != nil {
		return p.record, nil
	}
	record, r, err := d.v.openSaved(ctx, p.saved)
	if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
		p.broken = true
		return nil, nil //nolint:nilnil // no record
	}
	if err != nil {
		return nil, err
	}
	p.record, p.root = record, r.root
	return record, nil
}

// prior finds the newest good copy of a part; nil if there is none. Where it passes over a damaged one, it sees to it that what is
// lost can be stored again.
func (d *draft) prior(ctx context.Context, name string) (*prior, error) {
	damaged := false
	found, err := d.seekPrior(ctx, name, &damaged)
	if err == nil && damaged {
		err = d.forgetLost(ctx)
	}
	return found, err
}

func (d *draft) seekPrior(ctx context.Context, name string, damaged *bool) (*prior, error) {
	for _, p := range d.past {
		record, err := d.load(ctx, p)
		if err != nil {
			return nil, err
		}
		if record == nil {
			*damaged = true
			continue
		}
		i := slices.IndexFunc(record.Point.Parts, func(p point.Part) bool { return p.Name == name })
		if i < 0 || !good(record.Point.Parts[i].State) {
			continue
		}
		found, err := d.take(ctx, p, record.Point.Parts[i])
		if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
			*damaged = true
			continue // an older copy may be whole
		}
		return found, err
	}
	return nil, nil //nolint:nilnil // there is none
}

// good reports whether a part of that state can stand in for a later one.
func good(s point.State) bool { return s == point.Stored || s == point.Carried }

// take makes a prior of a part of an earlier point, without the parts that lie inside it, and checks that it is all there.
func (d *draft) take(ctx context.Context, p *past, part point.Part) (*prior, error) {
	r := &reader{d.v, p.root}
	n, err := r.find(ctx, part.Name)
	if err != nil {
		return nil, err
	}
	var inside [][]string
	for _, other := range p.record.Point.Parts {
		if below, ok := strings.CutPrefix(other.Name, part.Name+"/"); ok {
			inside = append(inside, strings.Split(below, "/"))
		}
	}
	bare, err := n.without(ctx, d.w, inside)
	if err != nil {
		return nil, err
	}
	if bare == nil {
		bare = newDir(n.entry.Name)
	}
	if err := d.present(ctx, bare); err != nil {
		return nil, err
	}
	at := p.Time
	if part.CarriedFrom != nil {
		at = *part.CarriedFrom
	}
	return &prior{Prior: point.Prior{Reader: &reader{d.v, bare}, Part: part, Time: at}, node: bare}, nil
}

// prior is a point.Prior with its tree.
type prior struct {
	point.Prior
	node *node
}

// Part opens a part for writing.
func (d *draft) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := d.takeName(name, true); err != nil {
		return nil, err
	}
	found, err := d.prior(ctx, name)
	if before := d.before(name); found == nil && err == nil && before != "" {
		found, err = d.prior(ctx, before)
	}
	if err != nil {
		return nil, fault.Wrap("begin part "+name, nil, err, "")
	}
	return &part{d: d, name: name, kind: kind, prior: found, root: newDir("")}, nil
}

// Last lists the parts of the subject's last point, and what was ended since.
func (d *draft) Last(ctx context.Context) ([]point.Part, error) {
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	last := map[string]point.Part{}
	for _, p := range d.past { // newest first
		record, err := d.load(ctx, p)
		if err != nil {
			return nil, fault.Wrap("read the last point of "+d.point.Subject.Name, nil, err, "")
		}
		if record == nil {
			continue
		}
		for _, part := range record.Point.Parts {
			if _, newer := last[part.Name]; !newer {
				last[part.Name] = part
			}
		}
		if p.listed {
			break
		}
	}
	return slices.SortedFunc(maps.Values(last), func(a, b point.Part) int { return strings.Compare(a.Name, b.Name) }), nil
}

// Renamed tells that a part, and what lies inside it, went by another name before.
func (d *draft) Renamed(name, before string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.renamed[name] = before
}

// before is the name that a part had before; "" where nobody said that it had another.
func (d *draft) before(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := name; dir != "."; dir = path.Dir(dir) {
		if old, ok := d.renamed[dir]; ok {
			return old + name[len(dir):]
		}
	}
	return ""
}

// Vanish ends a part that the source has no more, and holds the last point that has it.
func (d *draft) Vanish(ctx context.Context, name, kind, reason string) error {
	if err := d.takeName(name, false); err != nil {
		return err
	}
	d.end(ended{part: point.Part{Name: name, Kind: kind, State: point.Vanished, Reason: reason}})
	return d.holdLast(ctx, name, reason)
}

// holdLast holds the last point that has a good copy of the part.
func (d *draft) holdLast(ctx context.Context, name, reason string) error {
	for _, past := range d.past {
		if !past.listed {
			continue
		}
		record, err := d.load(ctx, past)
		if err != nil {
			return err
		}
		if record == nil {
			continue
		}
		for _, q := range record.Point.Parts {
			if q.Name == name && good(q.State) {
				return d.v.Hold(ctx, past.ID, point.AlarmNote+name+": "+reason)
			}
		}
	}
	return nil
}

// Skip leaves a part out on purpose.
func (d *draft) Skip(name, kind, reason string) {
	if d.takeName(name, false) != nil {
		return
	}
	d.end(ended{part: point.Part{Name: name, Kind: kind, State: point.Skipped, Reason: reason}})
}

// takeName takes a part's name, which a draft does once.
func (d *draft) takeName(name string, open bool) error {
	names, err := elements(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return fmt.Errorf("part %s: the draft has ended", name)
	case len(names) == 0 || names[0] == recordName:
		return fault.New("part "+quote(name), fault.ErrInvalid, "not a name for a part", "")
	case slices.Contains(d.order, name):
		return fmt.Errorf("part %s: named twice", name)
	}
	d.order = append(d.order, name)
	if open {
		d.open[name] = true
	}
	return nil
}

func (d *draft) end(e ended) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, e.part.Name)
	d.ended[e.part.Name] = e
	d.unflushed += e.part.NewBytes
}

// checkpointIfDue checkpoints when the last one is a minute old, or much has come since.
func (d *draft) checkpointIfDue(ctx context.Context) error {
	d.mu.Lock()
	due := d.v.now().Sub(d.lastFlushed) >= checkpointEvery || d.unflushed >= checkpointBytes
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.Checkpoint(ctx)
}

// Checkpoint makes what was ended so far last, as a snapshot that is not listed.
func (d *draft) Checkpoint(ctx context.Context) error {
	op := "checkpoint point of " + d.point.Subject.Name
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	d.flushing.Lock()
	defer d.flushing.Unlock()
	d.mu.Lock()
	closed, last := d.closed, d.checkpoint
	record, parts := d.record()
	d.lastFlushed, d.unflushed = d.v.now(), 0
	d.mu.Unlock()
	if closed || len(parts) == 0 {
		return nil
	}
	ctx = countWritten(ctx, &d.written)
	m, _, err := d.snapshot(ctx, record, parts, draftPoint)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	shared, err := d.takeFresh(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	m.IncompleteReason = "checkpoint"
	id, err := snapshot.SaveSnapshot(ctx, d.w, m)
	if err != nil {
		return storageFault(op, err)
	}
	if last != "" {
		if err := deleteManifests(ctx, d.w, d.v, []manifest.ID{last}); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	if err := d.w.Flush(ctx); err != nil {
		return storageFault(op, err)
	}
	d.mu.Lock()
	d.checkpoint = id
	d.mu.Unlock()
	return d.v.putLeaf(ctx, newSumsLeaf(), leaf{Shared: shared})
}

// takeFresh copies the metadata that no leaf has a copy of. Where the leaf cannot be written, the run fails altogether.
func (d *draft) takeFresh(ctx context.Context) ([]metaCopy, error) {
	d.mu.Lock()
	fresh := d.fresh
	d.fresh = nil
	d.mu.Unlock()
	return copyMeta(ctx, d.w, fresh)
}

// record returns the record of what was ended so far, and these parts, outer before inner. The caller holds mu.
func (d *draft) record() (*point.Record, []ended) {
	p := d.point
	p.Revisions = map[string]string{}
	var parts []ended
	for _, name := range d.order {
		e, ok := d.ended[name]
		if !ok {
			continue
		}
		parts = append(parts, e)
		p.Parts = append(p.Parts, e.part)
		if e.part.Revision != "" {
			p.Revisions[name] = e.part.Revision
		}
	}
	ledger := point.LedgerOf(p.Parts)
	p.State, p.Bytes = ledger.State(), ledger.Bytes
	slices.SortStableFunc(parts, func(a, b ended) int {
		return strings.Count(a.part.Name, "/") - strings.Count(b.part.Name, "/")
	})
	return &point.Record{
		Version: point.RecordVersion, Point: p, Ledger: ledger, Finished: d.v.now().UTC(), Tool: d.v.tool,
	}, parts
}

// snapshot writes the tree of a point, the record last. It returns the manifest and the objects of the record and of the directories
// that lie above the parts.
func (d *draft) snapshot(
	ctx context.Context, record *point.Record, parts []ended, state string,
) (*snapshot.Manifest, []object.ID, error) {
	root := newDir("")
	for _, e := range parts {
		if e.node == nil {
			continue
		}
		names, err := elements(e.part.Name)
		if err != nil {
			return nil, nil, err
		}
		if err := root.replace(ctx, d.w, names, e.node.copy()); err != nil {
			return nil, nil, fmt.Errorf("place part %s: %w", e.part.Name, err)
		}
	}
	if state == listedPoint {
		if err := d.doubt(ctx); err != nil {
			return nil, nil, err
		}
		// Present looks at what was kept and at what was written alike: the vault must have it all before it is named.
		if err := d.present(ctx, root); err != nil {
			return nil, nil, err
		}
	}
	entry, err := d.writeRecord(ctx, record)
	if err != nil {
		return nil, nil, err
	}
	root.kids[recordName] = &node{entry: *entry}
	own := []object.ID{entry.ObjectID}
	rootEntry, err := root.write(ctx, d.w, func(id object.ID) { own = append(own, id) })
	if err != nil {
		return nil, nil, err
	}
	s := summary(rootEntry)
	return &snapshot.Manifest{
		Source:    sourceOf(record.Point.Subject),
		StartTime: fs.UTCTimestampFromTime(record.Point.Time),
		EndTime:   fs.UTCTimestampFromTime(record.Finished),
		Stats: snapshot.Stats{
			TotalFileSize: s.TotalFileSize, TotalFileCount: int32(s.TotalFileCount), TotalDirectoryCount: int32(s.TotalDirCount), //nolint:gosec // display
		},
		RootEntry: rootEntry,
		Tags:      labelsOf(&record.Point, state),
	}, own, nil
}

// doubt forgets what was found to be there, if that was so long ago that maintenance elsewhere may have collected it since.
func (d *draft) doubt(ctx context.Context) error {
	if d.v.now().Sub(d.point.Time) < trusted {
		return nil
	}
	d.mu.Lock()
	d.checked = map[object.ID]bool{}
	d.mu.Unlock()
	d.packs.mu.Lock()
	defer d.packs.mu.Unlock()
	return d.packs.refresh(ctx, d.v)
}

// sourceOf is where stock kopia lists the points of a subject.
func sourceOf(s point.Subject) snapshot.SourceInfo {
	return snapshot.SourceInfo{Host: hostname, UserName: username, Path: "/" + s.Kind + "/" + s.Name}
}

// writeRecord writes the record. Its prefix packs it with the directories, so that a point in which nothing changed is one pack.
func (d *draft) writeRecord(ctx context.Context, record *point.Record) (*snapshot.DirEntry, error) {
	b, err := json.MarshalIndent(record, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	oid, err := writeMeta(ctx, d.w, "r", b)
	if err != nil {
		return nil, storageFault("write record", err)
	}
	return &snapshot.DirEntry{
		Name: recordName, Type: snapshot.EntryTypeFile, Permissions: 0o644, FileSize: int64(len(b)),
		ModTime: fs.UTCTimestampFromTime(record.Finished), ObjectID: oid,
	}, nil
}

// Commit publishes the point.
func (d *draft) Commit(ctx context.Context) (*point.Receipt, error) {
	op := "commit point of " + d.point.Subject.Name
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	d.flushing.Lock()
	defer d.flushing.Unlock()
	d.mu.Lock()
	closed, open, failures := d.closed, slices.Sorted(maps.Keys(d.open)), d.failures
	record, parts := d.record()
	d.closed = d.closed || len(open) == 0
	d.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("%s: the draft has ended", op)
	case len(open) > 0:
		return nil, fmt.Errorf("%s: part %s was not ended", op, open[0])
	}
	ctx = countWritten(ctx, &d.written)
	if record.Ledger.Stored == 0 {
		return nil, errors.Join(d.nothing(op, failures), d.release(ctx))
	}
	if err := d.publish(ctx, record, parts); err != nil {
		return nil, errors.Join(fault.Wrap(op, nil, err, ""), d.release(ctx))
	}
	if err := d.release(ctx); err != nil {
		return nil, err
	}
	return &point.Receipt{Record: *record, StoredBytes: d.written.Load(), Warnings: d.warnings}, nil
}

// nothing explains why there is no point.
func (d *draft) nothing(op string, failures []error) error {
	if len(failures) == 0 {
		return fault.New(op, fault.ErrIncomplete, "no part was stored", "")
	}
	return errors.Join(failures...)
}

// publish writes the point, makes it visible in one flush, and enters it in the catalogue.
func (d *draft) publish(ctx context.Context, record *point.Record, parts []ended) error {
	m, own, err := d.snapshot(ctx, record, parts, listedPoint)
	if err != nil {
		return err
	}
	l := leaf{Snapshot: m}
	if l.Own, err = copyMeta(ctx, d.w, own); err != nil {
		return err
	}
	if l.Shared, err = d.takeFresh(ctx); err != nil {
		return err
	}
	if _, err := snapshot.SaveSnapshot(ctx, d.w, m); err != nil {
		return storageFault("write manifest", err)
	}
	if d.checkpoint != "" {
		d.left = append(d.left, d.checkpoint)
	}
	if err := deleteManifests(ctx, d.w, d.v, d.left); err != nil {
		return err
	}
	if err := d.w.Flush(ctx); err != nil {
		return storageFault("write point", err)
	}
	return d.v.putLeaf(ctx, pointLeaf(record.Point.ID), l)
}

// Abandon ends the draft without a point.
func (d *draft) Abandon(ctx context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil
	}
	err := d.Checkpoint(ctx)
	d.flushing.Lock()
	defer d.flushing.Unlock()
	d.mu.Lock()
	closed, d.closed = d.closed, true
	d.mu.Unlock()
	if closed {
		return err
	}
	return errors.Join(err, d.release(ctx))
}

// release ends kopia's session. What was not flushed is dropped.
func (d *draft) release(ctx context.Context) error {
	return storageFault("end session", d.w.Close(ctx))
}
