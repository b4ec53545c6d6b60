package forge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// estimate tells what a first reading costs, where that is much.
func (m *metadataReading) estimate(ctx context.Context) error {
	if !m.first {
		return nil
	}
	if err := m.count(ctx); err != nil {
		return err
	}
	var collections []Collection
	for _, b := range m.branches {
		collections = append(collections, b.Collection)
	}
	by, sum := Estimate(collections, m.totals)
	if sum < longReading {
		return nil
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(by), func(a, b string) int { return int(by[b] - by[a]) }) {
		if by[name] > 1 {
			parts = append(parts, fmt.Sprintf("%s %d", name, by[name]))
		}
	}
	m.c.a.o.Observe(point.Event{
		Part: m.c.a.metadataName(m.r), What: "metadata",
		Text: fmt.Sprintf("%s: about %d requests for what is beside the code: %s", m.c.a.path(m.r), sum, strings.Join(parts, ", ")),
	})
	return nil
}

// count asks how many records there are. A forge that does not say leaves the totals as they are.
func (m *metadataReading) count(ctx context.Context) error {
	counter, ok := m.c.a.o.Provider.(MetadataCounter)
	if !ok || m.stopped() {
		return nil
	}
	totals, err := counter.Totals(ctx, m.r)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		m.c.a.warn("%s: how many records there are could not be found out: %v", m.c.a.path(m.r), err)
		return nil
	}
	m.totals = totals
	return nil
}

// saveInTime saves when a while has gone by, or much was written.
func (m *metadataReading) saveInTime(ctx context.Context) error {
	now := m.c.a.o.Clock()
	if now.Sub(m.saved) < saveEvery && m.w.Written()-m.savedBytes < saveBytes {
		return nil
	}
	m.c.a.o.Observe(point.Event{Part: m.c.a.metadataName(m.r), What: "metadata", Done: m.w.Added(), Unit: "records"})
	return m.save(ctx)
}

// save makes what was read last, for the next run.
func (m *metadataReading) save(ctx context.Context) error {
	saver, ok := m.part.(point.Saver)
	if !ok {
		return nil
	}
	for _, b := range m.branches {
		if err := m.bury(ctx, b); err != nil {
			return err
		}
		until, wait := b.reached(), b.waiting()
		m.note(b, func(p *archive.Progress) { p.Until, p.Waiting = until, wait })
	}
	if err := m.w.Flush(ctx); err != nil {
		return err
	}
	m.saved, m.savedBytes = m.c.a.o.Clock(), m.w.Written()
	return saver.Save(ctx, point.Part{ID: m.id})
}

// waiting are the parents in a branch's queue, as they are saved. A root that has no order is read anew.
func (b *branch) waiting() (all []archive.Waiting) {
	if !b.root.Since {
		return nil
	}
	for _, w := range b.queue {
		all = append(all, archive.Waiting{Collection: w.parent.Collection, ID: w.parent.ID, Changed: w.at})
	}
	return all
}

// reached is how far a branch has come: everything of roots that changed before was read, but for the parents that wait.
func (b *branch) reached() time.Time {
	until, waits := b.until, false
	if b.root.Since && !b.root.tangled && b.root.position.After(until) {
		until = b.root.position
	}
	for above := b; above.above != nil; above = above.above {
		if above.failed != nil {
			until = earlier(until, b.until)
		}
		if above != b || !b.root.Since { // what waits for the branch itself is saved
			for _, w := range above.queue {
				until, waits = earlier(until, w.at), true
			}
		}
		for _, at := range above.lost {
			until, waits = earlier(until, at), true
		}
	}
	if waits && !b.root.Since { // there is no order to go on in
		return time.Time{}
	}
	return until
}

// failure is why a branch, or one above it, was not read to its end.
func (b *branch) failure() error {
	for above := b; above != nil; above = above.above {
		if above.failed != nil {
			return above.failed
		}
	}
	return nil
}

// bury writes tombstones for what a branch did not find any more of the parents that it has read.
func (m *metadataReading) bury(ctx context.Context, b *branch) error {
	if len(b.done) == 0 {
		return nil
	}
	for _, name := range b.names() {
		if err := m.gone(ctx, m.w.Unseen(name, func(parent archive.Key) bool { return b.done[parent] })); err != nil {
			return err
		}
	}
	clear(b.done)
	return nil
}

// gone writes that records are gone, and what belongs to them.
func (m *metadataReading) gone(ctx context.Context, keys []archive.Key) error {
	for len(keys) > 0 {
		if err := m.w.Gone(ctx, m.began, keys...); err != nil {
			return err
		}
		parents := map[archive.Key]bool{}
		for _, key := range keys {
			parents[key] = true
		}
		keys = m.w.Below(func(parent archive.Key) bool { return parents[parent] })
	}
	return nil
}

// manyGone is how many records must be gone at once for an alarm, where they are more than half of all.
const manyGone = 20

// sweep writes tombstones for everything of a branch that was not seen in this reading.
func (m *metadataReading) sweep(ctx context.Context, b *branch, names ...string) error {
	for _, name := range names {
		before := m.w.Count(name)
		unseen := m.w.Unseen(name, nil)
		if n := int64(len(unseen)); n > manyGone && n > before/2 {
			if err := m.part.Alarm(ctx, fmt.Sprintf("%d of %d %s are gone", n, before, name)); err != nil {
				return err
			}
		}
		if err := m.gone(ctx, unseen); err != nil {
			return err
		}
	}
	m.note(b, func(p *archive.Progress) { p.Swept = m.began })
	return nil
}

// end notes how the reading of a root and of what is below it ended.
func (m *metadataReading) end(ctx context.Context, root *branch) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if root.all && !root.stopped() {
		if err := m.sweep(ctx, root, root.names()...); err != nil {
			return err
		}
	}
	if !root.stopped() && !root.all {
		root.finish()
	}
	for b := range root.tree() {
		if err := m.bury(ctx, b); err != nil {
			return err
		}
		m.endBranch(b)
	}
	return m.saveInTime(ctx)
}

// endBranch notes how far a branch has come.
func (m *metadataReading) endBranch(b *branch) {
	until, failure := b.reached(), b.failure()
	b.complete = failure == nil
	again := b.complete && b.above != nil && b.wasLeftOut() && !b.leftOut() // it is there for what changed only; the rest is the next run's
	switch {
	case again:
		m.again, until = true, time.Time{}
	case failure == nil && b.root.denied == nil:
		until = m.arrived(b, until)
	}
	b.until = until
	m.note(b, func(p *archive.Progress) {
		p.Until, p.Reason, p.Waiting = until, "", nil
		switch {
		case failure != nil:
			p.Read, p.Reason = time.Time{}, failure.Error()
			return
		case b.denied != nil:
			p.Reason = b.denied.Error()
		case b.leftOut():
			p.Reason = b.was.Reason
		case b.all || p.Swept.IsZero():
			p.Swept = m.began
		}
		if p.Read, p.Mark = m.began, m.words[b.Name]; again || b.unfit > 0 {
			p.Read = time.Time{}
		}
	})
}

// arrived is how far a branch has come that was read to its end: behind the newest change, but never in the future.
func (m *metadataReading) arrived(b *branch, until time.Time) time.Time {
	if !b.root.Since {
		return m.began
	}
	if b.root.position.IsZero() {
		return until
	}
	if last := earlier(b.root.position, m.began).Add(1); last.After(until) {
		return last
	}
	return until
}

// settle compares what was read with what the forge says that there is, and looks again where they differ.
func (m *metadataReading) settle(ctx context.Context) error {
	if err := m.count(ctx); err != nil {
		return err
	}
	looked := false
	for _, b := range m.branches {
		if !m.differs(b) || m.stopped() {
			continue
		}
		looked = true
		if err := m.lookAgain(ctx, b); err != nil {
			return err
		}
	}
	for _, root := range m.roots {
		if m.isOld(root, sweepAfter) && root.complete && !root.stopped() && root.Keys != nil {
			looked = true
			if err := m.compare(ctx, root); err != nil {
				return err
			}
		}
	}
	if !looked {
		return nil
	}
	return m.count(ctx)
}

// differs reports whether a branch has another number of records than the forge says, and not only as it had in the last run: some
// forges count what they do not show.
func (m *metadataReading) differs(b *branch) bool {
	total, known := m.totals[b.Name]
	if !known || !b.complete || b.stopped() || total == m.w.Count(b.Name) {
		return false
	}
	asBefore := b.was.Total-b.was.Living == total-m.w.Count(b.Name)
	return !asBefore || m.isOld(b, sweepAfter)
}

// lookAgain reads what changed meanwhile, and if that does not explain the difference, everything.
func (m *metadataReading) lookAgain(ctx context.Context, b *branch) error {
	if b.root.Since {
		if err := m.read(ctx, b.root, false); err != nil || !m.differs(b) {
			return err
		}
	}
	if b.above != nil {
		b.until = time.Time{} // for all its parents
		return m.read(ctx, b.root, true)
	}
	if b.Keys != nil {
		if err := m.compare(ctx, b); err != nil || !m.differs(b) {
			return err
		}
	}
	return m.read(ctx, b, true)
}

// compare looks which records of a root the forge has, and reads all where the archive lacks one.
func (m *metadataReading) compare(ctx context.Context, root *branch) error {
	m.w.Begin(root.Name)
	lacking, n := false, int64(0)
	for r, err := range root.Keys(ctx, Query{Repository: m.r}) {
		if n++; err == nil && n > m.limit(root) {
			err = fault.New(root.key, fault.ErrUnavailable, fmt.Sprintf("the listing does not end after %d records", n-1), "")
		}
		if err != nil {
			return m.refused(ctx, root, err)
		}
		lacking = !m.w.See(r.Key) || lacking
	}
	if err := m.sweep(ctx, root, root.Name); err != nil || !lacking {
		return err
	}
	return m.read(ctx, root, true)
}

// store ends the part.
func (m *metadataReading) store(ctx context.Context) error {
	if err := m.refusal(); err != nil {
		return m.part.Fail(ctx, err)
	}
	h := &m.w.Header
	checked, mark := m.began, h.Mark
	p := point.Part{ID: m.id, Checked: &checked}
	if m.files != nil {
		err := m.files.take(ctx)
		if ctx.Err() != nil {
			return m.callOff(ctx)
		}
		if err != nil {
			return err
		}
		p.Counts = append(p.Counts, m.files.count)
		p.Notes = append(p.Notes, m.files.notes...)
		if m.files.denied {
			m.c.a.warn("%s: the token may not read some of the files", m.c.a.path(m.r))
		}
	}
	p.Counts = append(m.ledger(), p.Counts...)
	p.Notes = append(m.remarks(), p.Notes...)
	if len(m.failed) == 0 {
		h.Began, h.Mark = time.Time{}, ""
		if !m.again && !m.unfit() {
			p.Mark = mark
		}
	}
	prior := m.part.Prior()
	p.Unchanged = prior != nil && prior.Part.State == point.Stored && m.w.Written() == 0
	if err := m.w.Flush(ctx); err != nil {
		return err
	}
	return m.part.Store(ctx, p)
}

// refusal is why nothing at all was read; nil where something was.
func (m *metadataReading) refusal() error {
	for _, root := range m.roots {
		if root.denied == nil {
			return nil
		}
	}
	return m.roots[0].denied
}

// unfit reports whether records came that could not be taken.
func (m *metadataReading) unfit() bool {
	return slices.ContainsFunc(m.branches, func(b *branch) bool { return b.unfit > 0 })
}

// ledger sets what the forge says that there is against what is stored.
func (m *metadataReading) ledger() []point.Count {
	read := point.Count{Of: "collections"}
	counts := []point.Count{}
	seen := map[string]bool{}
	for _, b := range m.branches {
		if !b.leftOut() {
			read.Expected++
			if b.root.complete && b.failure() == nil && b.unfit == 0 {
				read.Stored++
			}
		}
		for _, name := range b.names() {
			if seen[name] {
				continue
			}
			seen[name] = true
			stored := m.w.Count(name)
			total, known := m.totals[name]
			m.setTotal(name, total, known)
			if !known || b.leftOut() {
				total = stored
			}
			if total > 0 || stored > 0 {
				counts = append(counts, point.Count{Of: name, Expected: total, Stored: stored})
			}
		}
	}
	return append(counts, read)
}

func (m *metadataReading) setTotal(name string, total int64, known bool) {
	p := m.w.Header.Collections[name]
	if p.Total = total; !known {
		p.Total = -1
	}
	m.w.Header.Collections[name] = p
}

// remarks are the notes of the part. What a token may not read is a warning, too.
func (m *metadataReading) remarks() []string {
	var notes []string
	for _, b := range m.branches {
		switch {
		case b.failed != nil:
			notes = append(notes, b.key+": not read to the end: "+b.failed.Error())
		case b.denied != nil:
			notes = append(notes, b.key+": not read: "+b.denied.Error())
			if errors.Is(b.denied, fault.ErrDenied) {
				m.c.a.warn("%s: the token may not read %s: %s", m.c.a.path(m.r), b.key, strings.Join(fault.Hints(b.denied), "; "))
			}
		case b.leftOut():
			notes = append(notes, b.key+": not read: "+b.was.Reason)
		}
		if b.collided > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d times two records had one name; the later counts", b.key, b.collided))
		}
		if b.unfit > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d records could not be taken: %v", b.key, b.unfit, b.unfitFor))
		}
	}
	return notes
}
