package forge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
)

// closed tells whether the part's counts close.
func closed(p point.Part) bool { return point.LedgerOf([]point.Part{p}).Closed }

// bad is run, whose point must not be complete.
func (s *shelf) bad() point.Part {
	s.Helper()
	p, err := s.run(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if closed(p) {
		s.Fatalf("the ledger closes: %+v, notes %q", p.Counts, p.Notes)
	}
	return p
}

func (s *shelf) noted(p point.Part, text string) {
	s.Helper()
	if !slices.ContainsFunc(p.Notes, func(note string) bool { return strings.Contains(note, text) }) {
		s.Errorf("no note says %q: %q", text, p.Notes)
	}
}

// mute is a sink whose parts are not saved any more once the run was killed, as by a power failure.
type mute struct {
	point.Sink
	killed *bool
}

func (m mute) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := m.Sink.Part(ctx, name, kind)
	return mutePart{w, m.killed}, err
}

type mutePart struct {
	point.PartWriter
	killed *bool
}

func (m mutePart) Save(ctx context.Context, p point.Part) error {
	if *m.killed {
		return errKilled
	}
	saver, ok := m.PartWriter.(point.Saver)
	if !ok {
		return errors.New("it cannot be saved")
	}
	return saver.Save(ctx, p)
}

func TestAPowerFailureCostsWhatWasReadSinceTheLastSave(t *testing.T) {
	h := newHub(1_000, 5)
	h.pace = 7 * time.Second // a page; a minute has eight or nine
	s := newShelf(t, h)
	killed, kills := false, 0
	s.sink = func(to point.Sink) point.Sink { return mute{to, &killed} }
	for seed := 0; ; seed++ {
		ctx, cancel := context.WithCancel(t.Context())
		killed = false
		left := 1500 + seed*137%900
		h.meddle = func(archive.Record) error {
			if left--; left < 0 && kills < 20 {
				killed = true
				cancel()
				return ctx.Err()
			}
			return nil
		}
		p, err := s.run(ctx)
		cancel()
		if err == nil {
			if !closed(p) {
				t.Errorf("the ledger does not close: %+v %q", p.Counts, p.Notes)
			}
			break
		}
		kills++
	}
	if kills == 0 {
		t.Error("it was never killed")
	}
	s.whole()
}

func TestWhatFailsIsReadInTheNextRun(t *testing.T) {
	for _, name := range []string{"labels", "issues", "comments", "timeline", "releases", "assets"} {
		t.Run(name, func(t *testing.T) {
			h := newHub(250, 4)
			h.mark = func() string { return "same" }
			s := newShelf(t, h)
			n := 0
			h.meddle = func(r archive.Record) error {
				if n++; r.Collection == name && n > 150 || r.Collection == name && h.lists[name].n < 10 {
					return fault.New("get page", fault.ErrUnavailable, "502", "")
				}
				return nil
			}
			p := s.bad()
			s.noted(p, name+": not read to the end")
			if len(s.warnings) == 0 {
				t.Error("nobody was warned")
			}
			h.meddle = nil
			s.good()
			s.whole()
			if s.good(); h.requests != 0 {
				t.Errorf("%d requests in the end", h.requests)
			}
		})
	}
}

func TestWhatATokenMayNotReadIsNamed(t *testing.T) {
	for _, name := range []string{"labels", "timeline", "comments"} {
		t.Run(name, func(t *testing.T) {
			h := newHub(250, 4)
			h.totals = false
			h.refuse = map[string]error{name: fault.New("get", fault.ErrDenied, "403", "the token needs the scope read:"+name)}
			s := newShelf(t, h)
			p := s.good()
			s.noted(p, name+": not read")
			if !slices.ContainsFunc(s.warnings, func(w string) bool { return strings.Contains(w, "read:"+name) }) {
				t.Errorf("no warning names the scope: %q", s.warnings)
			}
			clear(h.yielded)
			s.noted(s.good(), name+": not read")
			if again := len(h.yielded); again > 60 {
				t.Errorf("%d records were read again", again)
			}
			h.refuse = nil // the scope was granted
			h.lists["issues"].edited[3] = edit{h.now, "edited"}
			s.good()
			s.good()
			s.whole()
		})
	}
}

func TestARepositoryThatMayNotBeReadFails(t *testing.T) {
	h := newHub(50, 2)
	s := newShelf(t, h)
	s.good()
	h.refuse = map[string]error{}
	for name := range h.lists {
		h.refuse[name] = fault.New("get", fault.ErrDenied, "403", "")
	}
	if _, err := s.run(t.Context()); !errors.Is(err, fault.ErrDenied) { // it is the only part of the point
		t.Errorf("it came out as %v", err)
	}
	s.whole()
}

func TestOneCollectionOfTwoParents(t *testing.T) {
	h := newHub(120, 2)
	h.change = func(all []forge.Collection) []forge.Collection {
		i := slices.IndexFunc(all, func(c forge.Collection) bool { return c.Name == "assets" })
		all[i] = forge.Collection{Name: "timeline", Of: "releases", Batch: 50, Read: func(context.Context, forge.Query) iter.Seq2[archive.Record, error] {
			return func(yield func(archive.Record, error) bool) {
				r := h.record("timeline", 0)
				r.ID, r.Parent = "of a release", archive.Key{Collection: "releases", ID: "0"}
				yield(r, nil)
			}
		}}
		return all
	}
	h.totals = false
	delete(h.lists, "assets")
	s := newShelf(t, h)
	s.good()
	s.good()
	r := s.archive()
	if r.Count("timeline") != 121 || r.Header().Collections["timeline of releases"].Read.IsZero() {
		t.Errorf("%d in the timeline, %+v", r.Count("timeline"), r.Header().Collections)
	}
}

// replaced is a hub one of whose collections is read in another way.
func replaced(h *hub, name string, read func(yield func(archive.Record, error) bool)) {
	h.change = func(all []forge.Collection) []forge.Collection {
		i := slices.IndexFunc(all, func(c forge.Collection) bool { return c.Name == name })
		all[i].Keys = nil
		all[i].Read = func(context.Context, forge.Query) iter.Seq2[archive.Record, error] { return read }
		return all
	}
}

func TestAListingThatNeverEnds(t *testing.T) {
	h := newHub(50, 2)
	s := newShelf(t, h)
	replaced(h, "labels", func(yield func(archive.Record, error) bool) {
		for n := 0; yield(archive.Record{Key: archive.Key{Collection: "labels", ID: fmt.Sprint(n % 9)}, Raw: json.RawMessage(`{}`)}, nil); n++ {
		}
	})
	s.noted(s.bad(), "does not end")
}

func TestTwoRecordsOfOneName(t *testing.T) {
	h := newHub(50, 2)
	h.lists["labels"].n = 1
	s := newShelf(t, h)
	replaced(h, "labels", func(yield func(archive.Record, error) bool) {
		r := h.record("labels", 0)
		r.Raw = json.RawMessage(`{"other":1}`)
		_ = yield(r, nil) && yield(h.record("labels", 0), nil)
	})
	s.noted(s.good(), "two records had one name")
	s.whole()
}

func TestRecordsThatAreNone(t *testing.T) {
	h := newHub(50, 2)
	s := newShelf(t, h)
	replaced(h, "labels", func(yield func(archive.Record, error) bool) {
		for _, r := range []archive.Record{
			{Key: archive.Key{Collection: "labels"}, Raw: json.RawMessage(`{}`)},
			{Key: archive.Key{Collection: "labels", ID: "x"}, Raw: json.RawMessage(`{"half":`)},
			{Key: archive.Key{Collection: "hooks", ID: "x"}, Raw: json.RawMessage(`{}`)},
			h.record("labels", 0), h.record("labels", 1), h.record("labels", 2),
		} {
			if !yield(r, nil) {
				return
			}
		}
	})
	s.noted(s.bad(), "3 records could not be taken")
	s.whole()
}

func TestManyRecordsGoneAtOnceAreAnAlarm(t *testing.T) {
	h := newHub(50, 2)
	h.lists["labels"].n = 60
	s := newShelf(t, h)
	s.good()
	for n := range 40 {
		h.lists["labels"].gone[n] = true
	}
	s.noted(s.good(), point.AlarmNote+"40 of 60 labels are gone")
	s.whole()
	points, err := s.store.Points(t.Context(), point.Filter{})
	if err != nil || len(points) != 2 || len(points[1].Holds) == 0 {
		t.Errorf("the point before is not on hold: %+v, %v", points, err)
	}
}

func TestMarksOfCollections(t *testing.T) {
	h := newHub(250, 4)
	issues := 1
	h.mark = func() string { return fmt.Sprintf("issues=%d comments=%d", issues, issues/10) }
	s := newShelf(t, h)
	s.good()
	issues++
	h.lists["issues"].edited[9] = edit{h.now, "edited"}
	s.good()
	if h.requests != 3 { // the issue, its timeline, the totals
		t.Errorf("%d requests", h.requests)
	}
	s.whole()
	h.now = h.now.Add(2 * forge.DefaultRecheck)
	h.lists["releases"].edited[1] = edit{h.now, "edited"}
	s.good()
	s.whole()
}

func TestMarksOfCollectionsSpareNothingThatIsLacking(t *testing.T) {
	h := newHub(250, 4)
	issues := 1
	h.mark = func() string { return fmt.Sprintf("issues=%d comments=1 releases=1", issues) }
	h.refuse = map[string]error{"timeline": fault.New("get", fault.ErrDenied, "403", "")}
	s := newShelf(t, h)
	odd := true
	h.change = func(all []forge.Collection) []forge.Collection {
		i := slices.IndexFunc(all, func(c forge.Collection) bool { return c.Name == "releases" })
		all[i].Read = func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
			return func(yield func(archive.Record, error) bool) {
				if odd && !yield(archive.Record{}, nil) {
					return
				}
				h.read("releases")(ctx, q)(yield)
			}
		}
		return all
	}
	h.totals = false
	s.bad()
	s.bad()
	odd = false
	s.good()
	h.refuse = nil
	issues++
	h.lists["issues"].edited[3] = edit{h.now, "edited"}
	s.good()
	s.good()
	s.whole()
	if s.good(); h.requests != 0 {
		t.Errorf("%d requests in the end", h.requests)
	}
}

func TestADifferenceThatStaysIsLookedIntoOnce(t *testing.T) {
	h := newHub(250, 4)
	s := newShelf(t, h)
	hidden := 5
	h.more = map[string]int64{"issues": int64(hidden)}
	s.bad()
	s.bad()
	if h.requests > 8 {
		t.Errorf("%d requests", h.requests)
	}
	h.more = nil
	s.good()
	s.whole()
}

func TestTheSweepFindsWhatNothingTells(t *testing.T) {
	h := newHub(250, 4)
	h.totals = false
	s := newShelf(t, h)
	s.good()
	h.lists["comments"].gone[40] = true
	h.lists["issues"].gone[3], h.lists["timeline"].gone[3] = true, true
	for n := 12; n < 16; n++ {
		h.lists["comments"].gone[n] = true
	}
	s.good()
	if r := s.archive(); r.Count("issues") != 250 {
		t.Errorf("without anything that tells it, %d issues", r.Count("issues"))
	}
	h.now = h.now.Add(8 * 24 * time.Hour)
	s.good()
	s.whole()
}

func TestWhatChangedDuringAKilledReadingIsRead(t *testing.T) {
	h := newHub(250, 4)
	moved := 1
	h.mark = func() string { return fmt.Sprint("mark-", moved) }
	s := newShelf(t, h)
	h.meddle = func(r archive.Record) error {
		if r.Collection == "releases" {
			return fault.New("get page", fault.ErrUnavailable, "502", "")
		}
		return nil
	}
	s.bad()
	h.meddle = nil
	h.lists["labels"].edited[1] = edit{h.now, "edited"} // labels were read by then
	moved++
	s.good()
	s.good()
	s.whole()
	if s.good(); h.requests != 0 {
		t.Errorf("%d requests in the end", h.requests)
	}
}

func TestWhatIsReadAlongIsGoneAlong(t *testing.T) {
	h := newHub(120, 2)
	h.totals = false
	h.lists["reviews"] = &list{n: 120, of: "timeline", each: 1, edited: map[int]edit{}, gone: map[int]bool{}}
	delete(h.lists, "assets")
	h.change = func(all []forge.Collection) []forge.Collection {
		all = slices.DeleteFunc(all, func(c forge.Collection) bool { return c.Name == "assets" })
		i := slices.IndexFunc(all, func(c forge.Collection) bool { return c.Name == "timeline" })
		all[i].Also = []string{"reviews"}
		all[i].Read = func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
			return func(yield func(archive.Record, error) bool) {
				var parents []archive.Record
				for r, err := range h.below("timeline")(ctx, q) {
					parents = append(parents, r)
					if !yield(r, err) {
						return
					}
				}
				h.below("reviews")(ctx, forge.Query{Parents: parents})(yield)
			}
		}
		return all
	}
	s := newShelf(t, h)
	s.good()
	s.whole()
	h.lists["issues"].edited[5] = edit{h.now, "edited"}
	h.lists["reviews"].gone[5] = true
	s.good()
	s.whole()
}
