package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	maxAtRisk       = 16        // parts that wait for a checkpoint while others are begun
	trusted         = time.Hour // what was there when a draft began is there: maintenance waits longer before it takes anything
	lookBack        = 8         // points of a policy in which the last good copy of a part is sought
	draftsBack      = 64        // checkpoints in which it is sought: a run that is killed leaves up to three
	maxHolds        = 4         // that one draft puts on a point: the point is kept, and each finding is in the record
	maxRecord       = 256 << 20
)

// draft is a point being made, in one write session of kopia's: a session for each part would make three blobs a part.
type draft struct {
	v       *Vault
	w       repo.DirectRepositoryWriter
	point   point.Point
	began   time.Time
	past    []*past // of the subject, newest first
	left    []manifest.ID
	written atomic.Int64

	packs packs

	flushing sync.Mutex    // one checkpoint or commit at a time
	ranges   chan struct{} // held by those who store ranges
	writers  chan struct{} // held by those who store files, where the vault bounds them

	mu          sync.Mutex
	closed      bool
	checked     map[object.ID]bool // objects known to be there
	fresh       []object.ID        // metadata of parts that no leaf has a copy of yet
	order       []string           // names of parts
	named       map[string]bool    // the same
	renamed     map[string]string  // new names of parts to old ones
	open        map[string]bool
	ended       map[string]ended
	saved       map[string]ended // of parts that are open, as Save left them
	failures    []error
	warnings    []string
	held        map[string]int              // holds by point
	settled     time.Time                   // when what was stored was last entered in the index
	recorded    string                      // SHA-256 of the record as it was last written
	holes       map[point.Content]object.ID // of ranges of zeros, whole
	checkpoints checkpoints

	lastMu sync.Mutex
	last   *lastParts // nil until asked for
}

// ended is a part that Store, Fail or Skip has ended.
type ended struct {
	part point.Part
	node *node // stored; nil where the point has nothing of it
	// brought is bytes that this draft stored of it; the part may have more that are new, which another draft stored as a shard.
	brought int64
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
		v: v, w: w, checkpoints: checkpoints{last: now},
		point: point.Point{ID: randomID(), Subject: s, Policy: policy, Time: now}, began: now,
		named: map[string]bool{}, open: map[string]bool{}, renamed: map[string]string{}, ended: map[string]ended{},
		saved:   map[string]ended{},
		checked: map[object.ID]bool{}, held: map[string]int{},
		packs: packs{lost: map[blob.ID]bool{}}, warnings: warnings,
		settled: now, holes: map[point.Content]object.ID{}, ranges: make(chan struct{}, rangeWriters),
	}
	if v.writers > 0 {
		d.writers = make(chan struct{}, v.writers)
		d.ranges = make(chan struct{}, min(v.writers, rangeWriters))
	}
	d.recall(l)
	return d, nil
}

// At says which moment the point is of.
func (d *draft) At(moment time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.point.Time = moment.UTC()
}

// Deployed says what had deployed the subject.
func (d *draft) Deployed(by *point.Deployment, revisions map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.point.Deployment, d.point.Revisions = by, revisions
}

// Part opens a part for writing.
func (d *draft) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := d.secure(ctx); err != nil {
		return nil, err
	}
	if err := d.takeName(name, true); err != nil {
		return nil, err
	}
	found, err := d.prior(ctx, name)
	if err == nil && found == nil {
		found, err = d.priorBefore(ctx, name)
	}
	if err != nil {
		return nil, fault.Wrap("begin part "+name, nil, err, "")
	}
	return &part{d: d, name: name, kind: kind, prior: found, root: newDir("")}, nil
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
	case d.named[name]:
		return fmt.Errorf("part %s: named twice", name)
	}
	d.order = append(d.order, name)
	d.named[name] = true
	if open {
		d.open[name] = true
	}
	return nil
}

func (d *draft) end(e ended) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, e.part.Name)
	if _, saved := d.saved[e.part.Name]; saved {
		delete(d.saved, e.part.Name)
		d.checkpoints.saved()
	}
	d.ended[e.part.Name] = e
	d.checkpoints.ended(&e)
}

// save notes how an open part is to be found by the next run.
func (d *draft) save(e ended) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[e.part.Name] {
		d.saved[e.part.Name] = e
		d.checkpoints.saved()
	}
}

// takeFresh copies the metadata that no leaf has a copy of. Where the leaf cannot be written, the run fails altogether.
func (d *draft) takeFresh(ctx context.Context) ([]metaCopy, error) {
	d.mu.Lock()
	fresh := d.fresh
	d.fresh = nil
	d.mu.Unlock()
	return copyMeta(ctx, d.w, fresh)
}

// record returns the record of the parts of names that are among those of ended, and these parts, outer before inner. The caller
// holds mu.
func (d *draft) record(names []string, among map[string]ended) (*point.Record, []ended) {
	p := d.point
	p.Revisions = map[string]string{}
	maps.Copy(p.Revisions, d.point.Revisions)
	var parts []ended
	for _, name := range names {
		e, ok := among[name]
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
	if d.v.now().Sub(d.began) < trusted {
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
	sum := sha256.Sum256(b)
	d.recorded = hex.EncodeToString(sum[:])
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
	record, parts := d.record(d.order, d.ended)
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
	if err := deleteManifests(ctx, d.w, d.v, append(d.left, d.checkpoints.manifests()...)); err != nil {
		return err
	}
	if err := d.w.Flush(ctx); err != nil {
		return storageFault("write point", err)
	}
	// The leaf last: a point without one is entered by the next run, with its statement where it has none.
	warning, err := d.v.attestMade(ctx, saved{Point: record.Point, root: m.RootObjectID()}, record, d.recorded, false)
	if err != nil {
		return err
	}
	d.warnings = withWarning(d.warnings, warning)
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
	if err == nil && d.written.Load() > 0 {
		err = storageFault("flush", d.w.Flush(ctx)) // what was stored of parts that did not end need not be stored again
	}
	return errors.Join(err, d.release(ctx))
}

// release ends kopia's session. What was not flushed is dropped.
func (d *draft) release(ctx context.Context) error {
	return storageFault("end session", d.w.Close(ctx))
}
