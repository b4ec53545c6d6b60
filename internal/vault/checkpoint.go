package vault

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// checkpoints is what a draft has made last so far. Its parts are in up to three checkpoints, each an unlisted snapshot: the base, the
// recent ones, and those that are open, as they were last saved. A checkpoint after every part, of all parts, would write the record of
// an account as often as it has repositories.
type checkpoints struct {
	names  []string // of parts that were ended, in that order
	inBase int      // of names
	atRisk int      // parts that brought bytes of their own, and are in no checkpoint
	count  int      // checkpoints so far
	base   manifest.ID
	recent manifest.ID // "" for none
	open   manifest.ID // "" for none
	moved  bool        // what is saved of open parts is not what open has
	last   time.Time   // when the last one began

	changes int // parts that were ended or saved
	secured int // of changes, those that a checkpoint made last
}

// due tells whether what is at risk is worth a checkpoint. Each makes an index, and each index makes all that is looked up slower and
// opening the vault, too, until maintenance merges them: a long run waits for a part more after every so many.
func (c *checkpoints) due() bool {
	const patience = 256
	return c.atRisk*patience > c.count
}

// ended notes a part. Objects of a cluster are listed faster than a checkpoint of them is made.
func (c *checkpoints) ended(e *ended) {
	c.names = append(c.names, e.part.Name)
	c.changes++
	if e.brought > 0 && e.part.Kind != point.KindObjects {
		c.atRisk++
	}
}

// saved notes that an open part is saved in another state, or is not open any more.
func (c *checkpoints) saved() {
	c.moved = true
	c.changes++
}

// manifests are those that are there.
func (c *checkpoints) manifests() []manifest.ID { return given(c.base, c.recent, c.open) }

// given leaves out what is none.
func given(ids ...manifest.ID) []manifest.ID {
	return slices.DeleteFunc(ids, func(id manifest.ID) bool { return id == "" })
}

// plan decides what the next checkpoint holds: the parts that are not in the base, or all parts, as a new base. With the square root
// of the number of parts as the measure, making n of them last costs n times that.
func (c *checkpoints) plan() (names []string, rebase bool) {
	recent := len(c.names) - c.inBase
	if recent*recent > 16*len(c.names) {
		return c.names, true
	}
	return c.names[c.inBase:], false
}

// made notes a checkpoint of n parts and returns the manifests that it stands in for.
func (c *checkpoints) made(id manifest.ID, n int, rebase bool) (replaced []manifest.ID) {
	c.count++
	if rebase {
		replaced = given(c.base, c.recent)
		c.base, c.recent, c.inBase = id, "", n
		return replaced
	}
	replaced = given(c.recent)
	c.recent = id
	return replaced
}

// madeOpen notes a checkpoint of the open parts, "" for none of them, and returns the manifest that it stands in for.
func (c *checkpoints) madeOpen(id manifest.ID) (replaced []manifest.ID) {
	c.count++
	replaced, c.open = given(c.open), id
	return replaced
}

// secureEnded is called when a part has ended. A part that is alone is left to Commit, or to the next that begins.
func (d *draft) secureEnded(ctx context.Context) error {
	d.mu.Lock()
	alone := len(d.open) == 0
	old := d.v.now().Sub(d.checkpoints.last) >= checkpointEvery
	d.mu.Unlock()
	switch {
	case old:
		return d.Checkpoint(ctx)
	case alone:
		return nil
	}
	return d.secure(ctx)
}

// secure makes last, before more is begun, what would have to be fetched again after a crash. One caller at a time does so, also for
// parts that end meanwhile; the others go on as long as few are at risk.
func (d *draft) secure(ctx context.Context) error {
	for {
		d.mu.Lock()
		due, many := d.checkpoints.due(), d.checkpoints.atRisk > maxAtRisk
		d.mu.Unlock()
		switch {
		case !due:
			return nil
		case many:
			d.flushing.Lock()
		case !d.flushing.TryLock():
			return nil // whoever holds the lock looks again after letting go
		}
		err := d.flush(ctx)
		d.flushing.Unlock()
		if err != nil {
			return err
		}
	}
}

// Checkpoint makes what was ended so far last, as snapshots that are not listed. Of several that wait for each other the first makes the
// checkpoint of all.
func (d *draft) Checkpoint(ctx context.Context) error {
	d.mu.Lock()
	wanted := d.checkpoints.changes
	d.mu.Unlock()
	d.flushing.Lock()
	defer d.flushing.Unlock()
	d.mu.Lock()
	made := d.checkpoints.secured >= wanted
	d.mu.Unlock()
	if made {
		return nil
	}
	return d.flush(ctx)
}

// flush makes a checkpoint. The caller holds flushing.
func (d *draft) flush(ctx context.Context) error {
	op := "checkpoint point of " + d.point.Subject.Name
	ctx, done, err := d.v.operation(ctx)
	if err != nil {
		return err
	}
	defer done()
	d.mu.Lock()
	c := &d.checkpoints
	c.last, c.atRisk = d.v.now(), 0
	names, rebase := c.plan()
	closed, all, moved, changes := d.closed, len(c.names), c.moved, c.changes
	record, parts := d.record(names, d.ended)
	open, saved := d.record(slices.Sorted(maps.Keys(d.saved)), d.saved)
	c.moved = false
	d.mu.Unlock()
	if closed || len(parts) == 0 && !moved {
		return nil
	}
	ctx = countWritten(ctx, &d.written)
	id, err := d.unlisted(ctx, record, parts)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	var idOpen manifest.ID
	if moved {
		if idOpen, err = d.unlisted(ctx, open, saved); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	shared, err := d.takeFresh(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	d.mu.Lock()
	var replaced []manifest.ID
	if id != "" {
		replaced = c.made(id, all, rebase)
	}
	if moved {
		replaced = append(replaced, c.madeOpen(idOpen)...)
	}
	d.mu.Unlock()
	if err := deleteManifests(ctx, d.w, d.v, replaced); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err := d.w.Flush(ctx); err != nil {
		return storageFault(op, err)
	}
	if err := d.v.putLeaf(ctx, newSumsLeaf(), leaf{Shared: shared}); err != nil {
		return err
	}
	d.mu.Lock()
	c.secured = changes
	d.mu.Unlock()
	return nil
}

// unlisted writes the snapshot of a checkpoint and returns its manifest; "" for one of no parts.
func (d *draft) unlisted(ctx context.Context, record *point.Record, parts []ended) (manifest.ID, error) {
	if len(parts) == 0 {
		return "", nil
	}
	m, _, err := d.snapshot(ctx, record, parts, draftPoint)
	if err != nil {
		return "", err
	}
	m.IncompleteReason = "checkpoint"
	id, err := snapshot.SaveSnapshot(ctx, d.w, m)
	return id, storageFault("write manifest", err)
}
