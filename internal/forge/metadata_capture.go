package forge

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// MetadataOptions says what of a repository's metadata is captured.
type MetadataOptions struct {
	Files   bool  // also release assets and attachments
	MaxFile int64 // bytes of the largest file that is taken; 0 for DefaultMaxFile
}

// metadata captures what the forge knows of a repository beside its code, where that is wanted and the provider reads it.
func (c *capture) metadata(ctx context.Context, r Repository) error {
	reader, ok := c.a.o.Provider.(MetadataReader)
	if !ok || c.a.o.Metadata == nil {
		return nil
	}
	collections := reader.Collections(r)
	if !slices.ContainsFunc(collections, func(c Collection) bool { return c.Of == "" }) {
		return nil
	}
	name, id := c.a.metadataName(r), c.a.partID(r, ofMetadata)
	mark := c.a.metadataMark(ctx, r)
	c.take(name)
	part, err := c.watching(name, id).Part(ctx, name, point.KindMetadata)
	if err != nil {
		return err
	}
	if p, ok := c.unmoved(part.Prior(), mark); ok {
		if err := part.Keep(ctx, "."); err != nil {
			return err
		}
		p.ID = id
		return part.Store(ctx, p)
	}
	w, err := archive.NewWriter(ctx, part)
	switch {
	case errors.Is(err, fault.ErrUnsupported):
		return part.Fail(ctx, err)
	case errors.Is(err, fault.ErrCorrupt), errors.Is(err, fault.ErrNotFound): // the points before keep what was there
		w = archive.Fresh(part)
	case err != nil:
		return err
	}
	m := newReading(c, r, part, w, collections)
	m.named(reader.Dialect(), id, mark)
	return m.capture(ctx)
}

// unmoved is the part as it is stored where nothing changed since the last run read it, by the forge's word, which is believed for a
// while.
func (c *capture) unmoved(prior *point.Prior, mark string) (point.Part, bool) {
	if prior == nil || mark == "" || prior.Part.Mark != mark || prior.Part.State != point.Stored || prior.Part.Checked == nil {
		return point.Part{}, false
	}
	before := prior.Part
	age := c.a.o.Clock().Sub(*before.Checked)
	open := slices.ContainsFunc(before.Counts, func(n point.Count) bool { return !n.Closes() })
	if open || age < 0 || age >= c.a.o.Recheck {
		return point.Part{}, false
	}
	notes := slices.DeleteFunc(slices.Clone(before.Notes), func(note string) bool { return strings.HasPrefix(note, point.AlarmNote) })
	return point.Part{Unchanged: true, Mark: mark, Checked: before.Checked, Counts: before.Counts, Notes: notes}, true
}

// metadataMarks are the marks of an account's repositories, which are asked in bulk.
type metadataMarks struct {
	asked map[int]bool      // by number of the bulk
	words map[string]string // by repository
	told  map[string]string // by those who asked in another process
}

// marksAtOnce is how many repositories are asked about in a bulk.
const marksAtOnce = 100

// metadataMark is the forge's word for the state of a repository's metadata; "" where it has none.
func (a *Account) metadataMark(ctx context.Context, r Repository) string {
	marker, ok := a.o.Provider.(MetadataMarker)
	if !ok || r.ID == "" {
		return ""
	}
	a.mu.Lock()
	all := []Repository{r}
	if a.listed != nil {
		all = a.listed.all
	}
	a.mu.Unlock()
	a.marking.Lock() // others wait: most will want the same bulk
	defer a.marking.Unlock()
	if mark, told := a.marks.told[r.ID]; told {
		return mark
	}
	at := slices.IndexFunc(all, func(other Repository) bool { return other.ID == r.ID })
	bulk := at / marksAtOnce
	if at < 0 || a.marks.asked[bulk] {
		return a.marks.words[r.ID]
	}
	if a.marks.asked == nil {
		a.marks.asked, a.marks.words = map[int]bool{}, map[string]string{}
	}
	a.marks.asked[bulk] = true
	words, err := marker.MetadataMarks(ctx, all[bulk*marksAtOnce:min(len(all), (bulk+1)*marksAtOnce)])
	if err != nil && ctx.Err() == nil {
		a.warn("%s: what changed could not be found out in bulk, and is looked for in each repository: %v", a.o.Name, err)
	}
	for id, word := range words {
		a.marks.words[id] = word
	}
	return a.marks.words[r.ID]
}

// wordsOfMark splits a mark that tells of each collection; nil for one that does not.
func wordsOfMark(mark string) map[string]string {
	words := map[string]string{}
	for _, field := range strings.Fields(mark) {
		name, word, ok := strings.Cut(field, "=")
		if !ok {
			return nil
		}
		words[name] = word
	}
	if len(words) == 0 {
		return nil
	}
	return words
}

// Sums of requests.
const (
	requestsBeside = 5   // marks, totals, and what is asked again because something changed meanwhile
	longReading    = 200 // requests that are worth a remark before they are made
)

// Estimate is about how many requests reading a repository's metadata for the first time costs, by collection, of how many records
// there are.
func Estimate(collections []Collection, totals map[string]int64) (by map[string]int64, sum int64) {
	by, sum = map[string]int64{}, requestsBeside
	for _, c := range collections {
		var n int64
		switch {
		case c.Requests != nil:
			n = c.Requests(totals[cmp.Or(c.Of, c.Name)])
		case c.Of != "":
			n = (totals[c.Of] + int64(max(c.Batch, 1)) - 1) / int64(max(c.Batch, 1))
		default:
			n = max((totals[c.Name]+99)/100, 1)
		}
		by[c.Name] += n
		sum += n
	}
	return by, sum
}

// Times of reading.
const (
	overlap     = 10 * time.Minute   // that readings of what changed overlap: forges write times before they show what has them
	sweepAfter  = 7 * 24 * time.Hour // what is read by what changed is compared as a whole
	sweepBelow  = 4 * sweepAfter     // so are those read for each of their parents
	saveEvery   = time.Minute
	saveBytes   = 16 << 20
	finalSaving = 20 * time.Second // for a reading that is called off
)
