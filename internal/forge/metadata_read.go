package forge

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// metadataReading reads one repository's metadata into its archive.
//
// What a repository has is a forest: roots, which are read as a whole or by what changed, and below them what is read for each of their
// records that changed. A record waits in the queue of each branch below until a request's worth of them is together. How far each
// branch has come is saved with what was read, and with it who waits: there the next run goes on when a reading breaks off.
type metadataReading struct {
	c    *capture
	r    Repository
	part point.PartWriter
	w    *archive.Writer

	roots    []*branch
	branches []*branch // parents before their children
	began    time.Time
	mark     string
	words    map[string]string // of the mark; nil where it tells of all together
	id       string
	first    bool // nothing was ever read to its end

	saved      time.Time
	savedBytes int64
	totals     map[string]int64
	again      bool       // the mark is not to spare the next run
	files      *fileTaker // nil where files are not wanted
	failed     []error
}

// branch is a collection on its way.
type branch struct {
	Collection
	key   string // of its Progress: Name, or where several branches have that name, with what they are of
	root  *branch
	above *branch // nil for a root
	below []*branch
	was   archive.Progress // when the run began

	until    time.Time            // how far it has come, as the reading began: everything of roots that changed before was read
	all      bool                 // everything is read, and what is not found is gone
	position time.Time            // of a root: the newest change that was read
	tangled  bool                 // of a root: changes do not come in their order
	queue    []waiting            // parents whose records are to be read
	done     map[archive.Key]bool // parents all of whose records were read
	fresh    []archive.Key        // yielded in the request that is under way, where it yields what belongs to them, too
	yielded  int64
	asked    bool // the forge answered
	complete bool // read to its end

	denied   error // the forge does not give it
	failed   error
	lost     []time.Time // of a branch that failed: the oldest parent that was not read
	unfit    int         // records that are none
	unfitFor error
	collided int
}

// leftOut reports whether a branch is not there for a reason that the forge gave, in this run or the last that asked.
func (b *branch) leftOut() bool { return b.denied != nil || b.wasLeftOut() && !b.asked }

// wasLeftOut tells what was denied from what failed, which is never read to its end.
func (b *branch) wasLeftOut() bool { return b.was.Reason != "" && !b.was.Read.IsZero() }

// waiting is a parent in a queue.
type waiting struct {
	parent archive.Record
	at     time.Time // when the root that it belongs to changed
}

// newReading prepares a reading.
func newReading(c *capture, r Repository, part point.PartWriter, w *archive.Writer, collections []Collection) *metadataReading {
	m := &metadataReading{c: c, r: r, part: part, w: w, began: c.a.o.Clock().UTC(), first: true}
	m.saved = m.began
	if getter, ok := c.a.o.Provider.(FileGetter); ok && c.a.o.Metadata.Files {
		m.files = newFileTaker(getter, r, w, part.Prior(), c.a.o.Metadata.MaxFile, c.a.o.Clock, m.saveInTime)
	}
	of := map[string][]*branch{"": {nil}} // by what they yield
	for _, collection := range collections {
		for _, above := range of[collection.Of] {
			b := m.plant(collection, above)
			for _, name := range b.names() {
				of[name] = append(of[name], b)
			}
		}
	}
	return m
}

// plant adds a branch below another one, or a root where that is nil.
func (m *metadataReading) plant(collection Collection, above *branch) *branch {
	b := &branch{Collection: collection, key: collection.Name, above: above, done: map[archive.Key]bool{}}
	if slices.ContainsFunc(m.branches, func(other *branch) bool { return other.key == b.key }) {
		b.key = fmt.Sprintf("%s (%d)", b.key, len(m.branches))
		if above != nil {
			b.key = b.Name + " of " + above.key
		}
	}
	b.root = b
	if above == nil {
		m.roots = append(m.roots, b)
	} else {
		b.root = above.root
		above.below = append(above.below, b)
	}
	b.was = m.progress(b)
	b.until = b.was.Until
	m.first = m.first && b.was.Read.IsZero()
	m.branches = append(m.branches, b)
	return b
}

// names are the collections whose records a branch yields.
func (b *branch) names() []string { return append([]string{b.Name}, b.Also...) }

// size is how many parents are read at once.
func (b *branch) size() int { return max(b.Batch, 1) }

// tree is a branch with all below.
func (b *branch) tree() iter.Seq[*branch] {
	return func(yield func(*branch) bool) { b.walk(yield) }
}

func (b *branch) walk(yield func(*branch) bool) bool {
	if !yield(b) {
		return false
	}
	for _, below := range b.below {
		if !below.walk(yield) {
			return false
		}
	}
	return true
}

// named says what the archive is of.
func (m *metadataReading) named(dialect, id, mark string) {
	h := &m.w.Header
	h.Dialect, h.Host, h.Repository, h.ID = dialect, m.c.a.o.Provider.Host(), m.r.FullName(), m.r.ID
	m.id, m.mark, m.words = id, mark, wordsOfMark(mark)
	h.Account = m.c.a.account()
}

func (m *metadataReading) progress(b *branch) archive.Progress { return m.w.Header.Collections[b.key] }

func (m *metadataReading) note(b *branch, change func(p *archive.Progress)) {
	p := m.w.Header.Collections[b.key]
	change(&p)
	m.w.Header.Collections[b.key] = p
}

// capture reads everything, and ends the part.
func (m *metadataReading) capture(ctx context.Context) error {
	h := &m.w.Header
	if h.Began.IsZero() || m.began.Sub(h.Began) >= m.c.a.o.Recheck {
		h.Began, h.Mark = m.began, m.mark
	}
	if err := m.estimate(ctx); err != nil {
		return err
	}
	err := m.takeUp(ctx)
	if err == nil {
		err = m.readAll(ctx)
	}
	if ctx.Err() != nil {
		return m.callOff(ctx)
	}
	if err != nil {
		return err
	}
	return m.store(ctx)
}

// takeUp lets those wait again who did when the last reading broke off.
func (m *metadataReading) takeUp(ctx context.Context) error {
	latest := map[archive.Key]archive.Record{}
	for _, b := range m.branches {
		for _, w := range m.progress(b).Waiting {
			latest[w.Key()] = archive.Record{}
		}
	}
	if len(latest) == 0 {
		return nil
	}
	for r, err := range archive.Scan(ctx, m.part.Prior()) {
		if err != nil {
			return err
		}
		if _, waits := latest[r.Key]; waits {
			latest[r.Key] = r
		}
	}
	for _, b := range m.branches {
		for _, w := range m.progress(b).Waiting {
			if r := latest[w.Key()]; r.Raw != nil && r.Gone.IsZero() {
				b.queue = append(b.queue, waiting{r, w.Changed})
			}
		}
	}
	return nil
}

// callOff saves what was read when the run is called off, so that the next goes on from there.
func (m *metadataReading) callOff(ctx context.Context) error {
	reason := ctx.Err()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalSaving)
	defer cancel()
	if err := m.save(ctx); err != nil {
		return errors.Join(reason, err)
	}
	return reason
}

// readAll reads the roots, and looks into those whose totals are not what was read.
func (m *metadataReading) readAll(ctx context.Context) error {
	for _, root := range m.roots {
		if m.spared(root) {
			root.complete = true
			continue
		}
		if err := m.read(ctx, root, false); err != nil {
			return err
		}
		if m.stopped() {
			return nil
		}
	}
	return m.settle(ctx)
}

// stopped tells whether the forge wants no more requests in this run.
func (m *metadataReading) stopped() bool {
	for _, err := range m.failed {
		if errors.Is(err, fault.ErrThrottled) {
			return true
		}
	}
	return false
}

// spared reports whether a root need not be read: the forge says that it did not change, or a run that was cut short has read it.
func (m *metadataReading) spared(root *branch) bool {
	for b := range root.tree() {
		if m.progress(b).Read.IsZero() || len(b.queue) > 0 {
			return false
		}
	}
	p := m.progress(root)
	if !root.Since && !p.Read.Before(m.w.Header.Began) {
		return true
	}
	age := m.began.Sub(p.Read)
	if m.words == nil || age < 0 || age >= m.c.a.o.Recheck {
		return false
	}
	word, named := m.words[root.Name]
	return !named || word == p.Mark
}

// read reads a root, and what is below it. With whole, all of it; else what changed, where it tells.
func (m *metadataReading) read(ctx context.Context, root *branch, whole bool) error {
	since := m.since(root)
	if whole || !root.Since || m.overdue(root) {
		since = time.Time{}
	}
	root.begin(since)
	for b := range root.tree() {
		for _, name := range b.names() {
			m.w.Begin(name)
		}
	}
	for r, err := range root.Read(ctx, Query{Repository: m.r, Since: since}) {
		if err != nil {
			if err := m.refused(ctx, root, err); err != nil {
				return err
			}
			break
		}
		if err := m.add(ctx, root, r, r.Updated); err != nil {
			return err
		}
		if root.failed != nil {
			break
		}
	}
	root.asked = root.asked || root.denied == nil
	for b := range root.tree() { // parents first: what they yield waits below
		for b != root && len(b.queue) > 0 {
			if err := m.readBelow(ctx, b); err != nil {
				return err
			}
		}
	}
	return m.end(ctx, root)
}

// begin readies a root and all below it for a reading.
func (b *branch) begin(since time.Time) {
	b.position, b.tangled = time.Time{}, false
	for below := range b.tree() {
		below.yielded, below.complete, below.fresh = 0, false, nil
		below.all = below.until.IsZero()
	}
	b.all = since.IsZero()
}

// since is the moment from which changes of a root are read: the furthest that all below it have come to, and a bit before.
func (m *metadataReading) since(root *branch) time.Time {
	since := root.until
	for b := range root.tree() {
		if !b.wasLeftOut() {
			since = earlier(since, b.until)
		}
	}
	if since.IsZero() {
		return since
	}
	return since.Add(-overlap)
}

// overdue reports whether all of a root is to be read, because it was compared with all that the forge has long ago. What is below it
// and was not read for all its parents for longer begins anew.
func (m *metadataReading) overdue(root *branch) bool {
	overdue := m.isOld(root, sweepAfter) && root.Keys == nil
	for b := range root.tree() {
		if b != root && m.isOld(b, sweepBelow) {
			b.until, overdue = time.Time{}, true
		}
	}
	return overdue
}

// isOld reports whether a branch was not compared with all that the forge has for a time.
func (m *metadataReading) isOld(b *branch, age time.Duration) bool {
	swept := m.progress(b).Swept
	return !swept.IsZero() && m.began.Sub(swept) >= age
}

// refused judges an error of reading a branch: what the forge has not, or does not show, is left out; else the branch has failed.
// Only errors that end the run come back.
func (m *metadataReading) refused(ctx context.Context, b *branch, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	notGiven := errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrUnsupported) || errors.Is(err, fault.ErrNotFound)
	if notGiven && !b.asked && b.yielded == 0 {
		b.denied = err
		return nil
	}
	b.failed = err
	m.failed = append(m.failed, err)
	m.c.a.warn("%s: %s could not be read to the end: %v", m.c.a.path(m.r), b.key, err)
	return nil
}

// maxRead bounds a reading of one collection that never ends: beside twice what the forge says that there are.
const (
	maxRead        = 100_000
	maxReadUnknown = 5_000_000 // where it does not say
)

// limit is how many records a branch may yield.
func (m *metadataReading) limit(b *branch) int64 {
	total, known := m.totals[b.Name]
	if !known {
		return 2*m.w.Count(b.Name) + maxReadUnknown
	}
	return 2*max(total, m.w.Count(b.Name)) + maxRead
}

// add takes a record that a branch yielded. Errors are the vault's; what is wrong with the record fails the branch.
func (m *metadataReading) add(ctx context.Context, b *branch, r archive.Record, at time.Time) error {
	if b.yielded++; b.yielded > m.limit(b) {
		return m.refused(ctx, b, fault.New(b.key, fault.ErrUnavailable, fmt.Sprintf("the listing does not end after %d records", b.yielded-1), ""))
	}
	if !slices.Contains(b.names(), r.Collection) {
		b.refuse(fault.New(b.key, fault.ErrCorrupt, fmt.Sprintf("a record of %q", r.Collection), ""))
		return nil
	}
	r.Seen, r.Gone = m.began, time.Time{}
	found, err := m.w.Add(ctx, r)
	if errors.Is(err, fault.ErrInvalid) {
		b.refuse(err)
		return nil
	}
	if err != nil {
		return err
	}
	if found == archive.Collided && !m.editedMeanwhile(r) {
		b.collided++
	}
	if found != archive.Same {
		m.filesOf(r)
	}
	if len(b.Also) > 0 {
		b.fresh = append(b.fresh, r.Key)
	}
	if err := m.enqueue(ctx, b, r, at, found != archive.Same); err != nil {
		return err
	}
	if b.above == nil {
		b.advance(r.Updated)
	}
	return m.saveInTime(ctx)
}

// editedMeanwhile tells a record that was edited while it was read from two that have one name.
func (m *metadataReading) editedMeanwhile(r archive.Record) bool {
	return r.Updated.After(m.began.Add(-overlap))
}

// refuse notes a record that cannot be taken. The others can.
func (b *branch) refuse(reason error) {
	b.unfit++
	b.unfitFor = reason
}

// advance notes the newest change of a root that was read.
func (b *branch) advance(updated time.Time) {
	b.tangled = b.tangled || updated.Before(b.position)
	if updated.After(b.position) {
		b.position = updated
	}
}

// enqueue lets a record wait for the branches below that need it: for those that have not come so far, or all where it changed.
func (m *metadataReading) enqueue(ctx context.Context, above *branch, r archive.Record, at time.Time, changed bool) error {
	for _, b := range above.below {
		if b.Of != r.Collection || !changed && !m.due(b, at) {
			continue
		}
		if b.Wants != nil && !b.Wants(r) {
			b.done[r.Key] = true
			continue
		}
		if b.stopped() {
			b.lose(at)
			continue
		}
		b.queue = append(b.queue, waiting{r, at})
		if len(b.queue) < b.size() {
			continue
		}
		if err := m.readBelow(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// due reports whether a branch, or one below it, has not come as far as a record that changed at that time. Roots that are read whole
// have no order: of them, it is whether the branch ever came to its end.
func (m *metadataReading) due(b *branch, at time.Time) bool {
	for b := range b.tree() {
		if !b.wasLeftOut() && (b.until.IsZero() || b.root.Since && !at.Before(b.until)) {
			return true
		}
	}
	return false
}

// stopped reports whether a branch is not read any more in this run.
func (b *branch) stopped() bool { return b.failed != nil || b.denied != nil }

// lose notes a parent whose records are not read.
func (b *branch) lose(at time.Time) {
	if len(b.lost) == 0 {
		b.lost = []time.Time{at}
	}
	b.lost[0] = earlier(b.lost[0], at)
}

// readBelow reads the records that belong to the first that wait.
func (m *metadataReading) readBelow(ctx context.Context, b *branch) error {
	batch := b.queue[:min(len(b.queue), b.size())]
	err := m.readBatch(ctx, b, batch)
	if errors.Is(err, fault.ErrNotFound) && len(batch) > 1 { // one of them is gone
		for i := range batch {
			if err = m.readBatch(ctx, b, batch[i:i+1]); err != nil && !errors.Is(err, fault.ErrNotFound) {
				break
			}
		}
	}
	var fromVault vaultError
	switch {
	case errors.As(err, &fromVault):
		return fromVault.error
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fault.ErrNotFound): // they are gone, with all that belongs to them
	case err != nil:
		if err := m.refused(ctx, b, err); err != nil {
			return err
		}
	}
	if b.stopped() {
		for _, w := range b.queue {
			b.lose(w.at)
		}
		b.queue = nil
		return nil
	}
	b.asked = b.asked || err == nil
	for _, w := range batch {
		b.fresh = append(b.fresh, w.parent.Key)
	}
	b.finish()
	b.queue = append(b.queue[:0], b.queue[len(batch):]...)
	return nil
}

// finish notes that what was yielded has all that belongs to it.
func (b *branch) finish() {
	for _, key := range b.fresh {
		b.done[key] = true
	}
	b.fresh = b.fresh[:0]
}

// vaultError is an error that ends the run, among those of the forge.
type vaultError struct{ error }

func (m *metadataReading) readBatch(ctx context.Context, b *branch, batch []waiting) error {
	q := Query{Repository: m.r}
	at, first := map[archive.Key]time.Time{}, batch[0].at
	for _, w := range batch {
		q.Parents = append(q.Parents, w.parent)
		at[w.parent.Key] = w.at
		first = earlier(first, w.at)
	}
	for r, err := range b.Read(ctx, q) {
		if err != nil {
			return err
		}
		when, known := at[r.Parent]
		if !known { // it belongs to another record of this batch
			when = first
		}
		if err := m.add(ctx, b, r, when); err != nil {
			return vaultError{err}
		}
		if b.failed != nil {
			return nil
		}
	}
	return nil
}

// filesOf looks for files in a record that is new or was edited.
func (m *metadataReading) filesOf(r archive.Record) {
	if m.files != nil {
		m.files.note(r)
	}
}
