package forge_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// hub is a forge of one repository, whose records are made up when they are asked for. Lists have pages of a hundred, and children come
// for fifty parents in a request.
type hub struct {
	now      time.Time
	lists    map[string]*list
	requests int
	yielded  map[archive.Key]int // how often a record was given
	mark     func() string       // nil for none
	totals   bool
	more     map[string]int64             // than there are, by the totals
	pace     time.Duration                // of a page
	refuse   map[string]error             // by collection
	meddle   func(r archive.Record) error // before a record is given
	change   func(c []forge.Collection) []forge.Collection
}

// list is a collection: record n was changed n minutes after the beginning, unless it was edited.
type list struct {
	n      int
	of     string // what its records belong to
	each   int    // and how many to each
	size   int    // bytes of a record
	edited map[int]edit
	gone   map[int]bool
}

type edit struct {
	at   time.Time
	text string
}

var (
	beginning = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	acme      = forge.Repository{ID: "7", Owner: "acme", Name: "api"}
)

const metadataPart = "forge/hub.example/acme/api/metadata"

func newHub(issues, perIssue int) *hub {
	h := &hub{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), lists: map[string]*list{}, yielded: map[archive.Key]int{}, totals: true, pace: time.Second}
	for name, l := range map[string]list{
		"labels": {n: 3}, "issues": {n: issues}, "comments": {n: issues * perIssue, of: "issues", each: perIssue},
		"timeline": {n: issues, of: "issues", each: 1}, "releases": {n: 4}, "assets": {n: 8, of: "releases", each: 2},
	} {
		l.edited, l.gone = map[int]edit{}, map[int]bool{}
		h.lists[name] = &l
	}
	return h
}

func (h *hub) Host() string { return "hub.example" }

func (h *hub) Repositories(context.Context, forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) { yield(acme, nil) }
}

func (h *hub) Dialect() string { return "hub" }

func (h *hub) Collections(forge.Repository) []forge.Collection {
	all := []forge.Collection{
		{Name: "labels", Read: h.read("labels")},
		{Name: "issues", Read: h.read("issues"), Since: true, Keys: h.keys("issues")},
		{Name: "comments", Read: h.read("comments"), Since: true},
		{Name: "timeline", Of: "issues", Batch: 50, Read: h.below("timeline")},
		{Name: "releases", Read: h.read("releases")},
		{Name: "assets", Of: "releases", Batch: 50, Read: h.below("assets")},
	}
	if h.change != nil {
		return h.change(all)
	}
	return all
}

func (h *hub) Totals(context.Context, forge.Repository) (map[string]int64, error) {
	h.requests++
	if !h.totals {
		return nil, fault.New("totals", fault.ErrUnsupported, "", "")
	}
	totals := map[string]int64{}
	for name, l := range h.lists {
		totals[name] = int64(l.n-len(l.gone)) + h.more[name]
	}
	return totals, nil
}

func (h *hub) MetadataMarks(context.Context, []forge.Repository) (map[string]string, error) {
	if h.mark == nil {
		return nil, nil
	}
	return map[string]string{acme.ID: h.mark()}, nil
}

func (l *list) updated(n int) time.Time {
	if e, ok := l.edited[n]; ok {
		return e.at
	}
	return beginning.Add(time.Duration(n) * time.Minute)
}

func (h *hub) record(name string, n int) archive.Record {
	l := h.lists[name]
	text := cmp.Or(l.edited[n].text, "text")
	raw := fmt.Sprintf(`{"id":%d,"body":%q,"filler":%q}`, n, text, strings.Repeat("x", l.size))
	r := archive.Record{Key: archive.Key{Collection: name, ID: fmt.Sprint(n)}, Updated: l.updated(n), Raw: json.RawMessage(raw)}
	if l.of != "" {
		r.Parent = archive.Key{Collection: l.of, ID: fmt.Sprint(n / l.each)}
	}
	return r
}

// since lists what changed, the oldest change first.
func (l *list) since(since time.Time) []int {
	var numbers []int
	for n := max(0, int(since.Sub(beginning)/time.Minute)); n < l.n; n++ {
		if _, edited := l.edited[n]; !edited && !l.gone[n] && !l.updated(n).Before(since) {
			numbers = append(numbers, n)
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(l.edited), func(a, b int) int { return l.edited[a].at.Compare(l.edited[b].at) }) {
		if !l.gone[n] && !l.updated(n).Before(since) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

type reading = func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error]

func (h *hub) read(name string) reading {
	return func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			since := q.Since
			if since.IsZero() {
				since = beginning
			}
			h.give(ctx, name, h.lists[name].since(since), yield)
		}
	}
}

func (h *hub) below(name string) reading {
	return func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			l := h.lists[name]
			var numbers []int
			for _, parent := range q.Parents {
				var of int
				_, _ = fmt.Sscan(parent.ID, &of)
				for n := of * l.each; n < (of+1)*l.each; n++ {
					if !l.gone[n] {
						numbers = append(numbers, n)
					}
				}
			}
			h.give(ctx, name, numbers, yield)
		}
	}
}

func (h *hub) keys(name string) reading {
	return func(ctx context.Context, _ forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			for _, n := range h.lists[name].since(beginning) {
				if !yield(archive.Record{Key: archive.Key{Collection: name, ID: fmt.Sprint(n)}}, nil) {
					return
				}
			}
		}
	}
}

// give yields records page by page.
func (h *hub) give(ctx context.Context, name string, numbers []int, yield func(archive.Record, error) bool) {
	h.requests += max(1, (len(numbers)+99)/100)
	if err := h.refuse[name]; err != nil {
		yield(archive.Record{}, err)
		return
	}
	for i, n := range numbers {
		r := h.record(name, n)
		if i%100 == 0 {
			h.now = h.now.Add(h.pace)
		}
		err := ctx.Err()
		if err == nil && h.meddle != nil {
			err = h.meddle(r)
		}
		if err != nil {
			yield(archive.Record{}, err)
			return
		}
		h.yielded[r.Key]++
		if !yield(r, nil) {
			return
		}
	}
}

// shelf takes points of a hub.
type shelf struct {
	*testing.T
	hub      *hub
	store    *memory.Store
	warnings []string
	sink     func(point.Sink) point.Sink
}

func newShelf(t *testing.T, h *hub) *shelf {
	s := &shelf{T: t, hub: h}
	s.store = memory.New(func() time.Time { h.now = h.now.Add(time.Millisecond); return h.now })
	return s
}

func (s *shelf) account() *forge.Account {
	s.Helper()
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: s.hub, Name: "hub.example/acme", Clock: func() time.Time { return s.hub.now }, Metadata: &forge.MetadataOptions{},
	})
	if err != nil {
		s.Fatal(err)
	}
	return a
}

// run makes a point an hour later, and returns how its part came out. Where the run was cut short, it returns the reason.
func (s *shelf) run(ctx context.Context) (point.Part, error) {
	s.Helper()
	s.hub.now = s.hub.now.Add(time.Hour)
	s.hub.requests = 0
	d, err := s.store.Begin(s.Context(), point.Subject{Kind: point.SubjectAccount, Name: "hub.example/acme"}, "daily")
	if err != nil {
		s.Fatal(err)
	}
	a := s.account()
	sink := point.Sink(d)
	if s.sink != nil {
		sink = s.sink(d)
	}
	if err := forge.CaptureMetadata(ctx, a, sink, acme); err != nil {
		if err := d.Abandon(s.Context()); err != nil {
			s.Fatal(err)
		}
		return point.Part{}, err
	}
	s.warnings = a.Warnings()
	receipt, err := d.Commit(s.Context())
	if err != nil {
		return point.Part{}, err
	}
	return receipt.Point.Parts[0], nil
}

// good is run, which must end with a complete point.
func (s *shelf) good() point.Part {
	s.Helper()
	p, err := s.run(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if !point.LedgerOf([]point.Part{p}).Closed {
		s.Fatalf("the ledger does not close: %+v, notes %q", p.Counts, p.Notes)
	}
	return p
}

// archive opens what the last run has.
func (s *shelf) archive() *archive.Reader {
	s.Helper()
	d, err := s.store.Begin(s.Context(), point.Subject{Kind: point.SubjectAccount, Name: "hub.example/acme"}, "daily")
	if err != nil {
		s.Fatal(err)
	}
	w, err := d.Part(s.Context(), metadataPart, point.KindMetadata)
	if err != nil {
		s.Fatal(err)
	}
	r, err := archive.Open(s.Context(), w.Prior())
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// whole compares the archive with the hub, record by record.
func (s *shelf) whole() {
	s.Helper()
	r := s.archive()
	for name, l := range s.hub.lists {
		if got := r.Count(name); got != l.n-len(l.gone) {
			s.Errorf("%d %s, want %d", got, name, l.n-len(l.gone))
		}
		n := 0
		for record, err := range r.All(s.Context(), name) {
			if err != nil {
				s.Fatal(err)
			}
			for l.gone[n] {
				n++
			}
			if want := s.hub.record(name, n); record.Key != want.Key || string(record.Raw) != string(want.Raw) || record.Parent != want.Parent {
				s.Fatalf("%s is %s, want %s: %s", record.Key, record.Raw, want.Key, want.Raw)
			}
			n++
		}
	}
}

func TestMetadataIsReadOnceAndThenWhatChanged(t *testing.T) {
	h := newHub(250, 4)
	moved := 0
	h.mark = func() string { return fmt.Sprint("mark ", moved) }
	s := newShelf(t, h)
	p := s.good()
	s.whole()
	if budget := 1 + 3 + 10 + 5 + 1 + 1 + 5; h.requests > budget || p.ID != "hub.example:7/metadata" || p.Kind != point.KindMetadata {
		t.Errorf("%d requests, want at most %d; part %+v", h.requests, budget, p)
	}
	if p = s.good(); h.requests != 0 || !p.Unchanged {
		t.Errorf("with nothing changed: %d requests, unchanged %t", h.requests, p.Unchanged)
	}
	moved++
	clear(h.yielded)
	h.lists["comments"].edited[17] = edit{h.now, "edited"}
	h.lists["issues"].edited[4] = edit{h.now, ""}
	if p = s.good(); h.requests > 7 || p.Unchanged {
		t.Errorf("with one comment edited: %d requests, unchanged %t", h.requests, p.Unchanged)
	}
	s.whole()
	for key, n := range h.yielded {
		if n > 1 || (key.Collection == "timeline" && key.ID != "4") {
			t.Errorf("%s was read %d times", key, n)
		}
	}
}

func TestWhatIsGoneHasATombstone(t *testing.T) {
	h := newHub(250, 4)
	s := newShelf(t, h)
	s.good()
	h.lists["issues"].gone[7], h.lists["timeline"].gone[7] = true, true
	for n := 28; n < 32; n++ {
		h.lists["comments"].gone[n] = true
	}
	h.lists["labels"].gone[1] = true
	s.good()
	s.whole()
	r := s.archive()
	for _, key := range []archive.Key{{Collection: "issues", ID: "7"}, {Collection: "comments", ID: "30"}, {Collection: "timeline", ID: "7"}, {Collection: "labels", ID: "1"}} {
		record, err := r.Get(t.Context(), key)
		if err != nil || record.Gone.IsZero() || len(record.Raw) < 10 {
			t.Errorf("%s: gone %v, %s, %v", key, record.Gone, record.Raw, err)
		}
	}
	h.lists["issues"].gone, h.lists["timeline"].gone = map[int]bool{}, map[int]bool{}
	h.lists["comments"].gone = map[int]bool{}
	s.good() // it came back
	s.whole()
}

// errKilled is what ends a run in the middle.
var errKilled = errors.New("killed")

func TestAReadingThatIsKilledGoesOn(t *testing.T) { killed(t, 1_000) }

// killed kills the first reading of so many issues, with five comments each, twenty times.
func killed(t *testing.T, issues int) {
	h := newHub(issues, 5)
	s := newShelf(t, h)
	random := rand.New(rand.NewPCG(1, 2))
	kills := 0
	for {
		ctx, cancel := context.WithCancelCause(t.Context())
		left := issues/10 + random.IntN(issues*2/5)
		h.meddle = func(archive.Record) error {
			if left--; left < 0 && kills < 20 {
				cancel(errKilled)
				return ctx.Err()
			}
			return nil
		}
		p, err := s.run(ctx)
		cancel(nil)
		if err == nil {
			if !point.LedgerOf([]point.Part{p}).Closed {
				t.Fatalf("the ledger does not close: %+v %q", p.Counts, p.Notes)
			}
			break
		}
		kills++
	}
	if kills != 20 {
		t.Errorf("it was killed %d times", kills)
	}
	s.whole()
	again := map[string]int{}
	for key, n := range h.yielded {
		again[key.Collection] += n - 1
	}
	for name, n := range again {
		most := kills * 11 // the overlap is of ten minutes, of a record each
		if name == "timeline" {
			most += kills * 50 // a batch that was not read to its end
		}
		if n > most {
			t.Errorf("%d %s were read again", n, name)
		}
	}
}
