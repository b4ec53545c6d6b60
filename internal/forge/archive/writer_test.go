package archive_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// shelf is a part in a store, of which each run makes a point.
type shelf struct {
	*testing.T
	store *memory.Store
	now   time.Time
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{T: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	s.store = memory.New(func() time.Time { s.now = s.now.Add(time.Second); return s.now })
	return s
}

func (s *shelf) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// run writes a point.
func (s *shelf) run(write func(w *archive.Writer)) *archive.Reader {
	s.Helper()
	d, part := s.begin()
	w, err := archive.NewWriter(s.Context(), part)
	s.must(err)
	write(w)
	s.must(w.Flush(s.Context()))
	s.must(part.Store(s.Context(), point.Part{}))
	_, err = d.Commit(s.Context())
	s.must(err)
	_, part = s.begin()
	r, err := archive.Open(s.Context(), part.Prior())
	s.must(err)
	return r
}

func (s *shelf) begin() (point.Draft, point.PartWriter) {
	s.Helper()
	d, err := s.store.Begin(s.Context(), point.Subject{Kind: point.SubjectRepository, Name: "x"}, "daily")
	s.must(err)
	part, err := d.Part(s.Context(), "m", point.KindMetadata)
	s.must(err)
	return d, part
}

func issue(n int, body string) archive.Record {
	return archive.Record{Key: archive.Key{Collection: "issues", ID: fmt.Sprint(n)}, Raw: json.RawMessage(fmt.Sprintf(`{"body": %q}`, body))}
}

func (s *shelf) add(w *archive.Writer, r archive.Record, want archive.Found) {
	s.Helper()
	got, err := w.Add(s.Context(), r)
	s.must(err)
	if got != want {
		s.Errorf("adding %s: change %d, want %d", r.Key, got, want)
	}
}

func (s *shelf) raw(r *archive.Reader, n int, want string) {
	s.Helper()
	got, err := r.Get(s.Context(), issue(n, "").Key)
	s.must(err)
	if string(got.Raw) != fmt.Sprintf(`{"body":%q}`, want) {
		s.Errorf("issue %d is %s, want %q", n, got.Raw, want)
	}
}

func TestARunAddsWhatChanged(t *testing.T) {
	s := newShelf(t)
	s.run(func(w *archive.Writer) {
		s.add(w, issue(1, "one <b>"), archive.New)
		s.add(w, issue(2, "two"), archive.New)
		s.add(w, issue(3, "three"), archive.New)
		s.must(w.Flush(s.Context())) // a segment that was put grows
		s.add(w, issue(4, "four"), archive.New)
		s.add(w, issue(4, "other four"), archive.Collided)
	})
	r := s.run(func(w *archive.Writer) {
		w.Begin("issues")
		s.add(w, issue(1, "one <b>"), archive.Same)
		s.add(w, issue(2, "second"), archive.Edited)
		unseen := w.Unseen("issues", nil)
		if fmt.Sprint(unseen) != "[issues/3 issues/4]" {
			t.Errorf("unseen are %v", unseen)
		}
		s.must(w.Gone(t.Context(), s.now, unseen[0]))
		if w.Added() != 2 || w.Count("issues") != 3 {
			t.Errorf("added %d, %d are there", w.Added(), w.Count("issues"))
		}
	})
	s.raw(r, 1, "one <b>")
	s.raw(r, 2, "second")
	s.raw(r, 3, "three")
	s.raw(r, 4, "other four")
	if gone, err := r.Get(t.Context(), issue(3, "").Key); err != nil || !gone.Gone.Equal(s.now.Add(-time.Second)) && gone.Gone.IsZero() {
		t.Errorf("the issue that is gone: %+v, %v", gone, err)
	}
	if r.Count("issues") != 3 || r.Header().Collections["issues"].Living != 3 || r.Header().Collections["issues"].Gone != 1 {
		t.Errorf("%d issues, header %+v", r.Count("issues"), r.Header())
	}
	r = s.run(func(w *archive.Writer) { s.add(w, issue(3, "three"), archive.New) })
	if r.Count("issues") != 4 {
		t.Error("an issue that came back is gone")
	}
}

func TestWornSegmentsAreWrittenAnew(t *testing.T) {
	s := newShelf(t)
	text := strings.Repeat("x", 1000)
	const issues = 3000
	var r *archive.Reader
	for round := range 4 {
		r = s.run(func(w *archive.Writer) {
			want := archive.Edited
			if round == 0 {
				want = archive.New
			}
			for n := range issues - round {
				s.add(w, issue(n, fmt.Sprint(text, round)), want)
			}
			s.must(w.Gone(t.Context(), s.now, issue(issues-1-round, "").Key))
		})
	}
	if got := archive.Segments(r); got > 4 { // two a round
		t.Errorf("there are %d segments", got)
	}
	for range 2 { // what is written anew is read as what it was written from
		r = s.run(func(*archive.Writer) {})
		if r.Count("issues") != issues-4 {
			t.Errorf("%d issues", r.Count("issues"))
		}
		s.raw(r, 17, text+"3")
		for round := range 4 {
			gone, err := r.Get(t.Context(), issue(issues-1-round, "").Key)
			if want := fmt.Sprint(round, `"}`); err != nil || gone.Gone.IsZero() || !strings.HasSuffix(string(gone.Raw), want) {
				t.Errorf("issue %s, gone at %v, ends with %.10s, want %s: %v", gone.Key, gone.Gone, gone.Raw[max(0, len(gone.Raw)-10):], want, err)
			}
		}
	}
}

func TestManySmallSegmentsBecomeOne(t *testing.T) {
	s := newShelf(t)
	var r *archive.Reader
	for n := range 70 {
		r = s.run(func(w *archive.Writer) {
			s.add(w, issue(n, "n"), archive.New)
			if n > 0 && n%5 == 0 {
				s.must(w.Gone(t.Context(), s.now, issue(n-1, "").Key))
			}
		})
	}
	if got := archive.Segments(r); got > 10 {
		t.Errorf("there are %d segments", got)
	}
	if r.Count("issues") != 57 {
		t.Errorf("%d issues", r.Count("issues"))
	}
	s.raw(r, 4, "n")
}

func TestHostileRecordsAreRefused(t *testing.T) {
	s := newShelf(t)
	s.run(func(w *archive.Writer) {
		for name, r := range map[string]archive.Record{
			"no name":   {Raw: json.RawMessage(`{}`)},
			"no object": {Key: archive.Key{Collection: "issues", ID: "1"}, Raw: json.RawMessage(`{"a":`)},
			"no raw":    {Key: archive.Key{Collection: "issues", ID: "1"}},
			"long name": {Key: archive.Key{Collection: "issues", ID: strings.Repeat("9", 1<<20)}, Raw: json.RawMessage(`{}`)},
		} {
			if _, err := w.Add(t.Context(), r); !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if w.Added() != 0 {
			t.Error("something was added")
		}
	})
}

func TestTheIndexOfManyRecordsIsSmall(t *testing.T) {
	s := newShelf(t)
	s.run(func(w *archive.Writer) {
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		const records = 100_000
		before := heap()
		for n := range records {
			r := archive.Record{Key: archive.Key{Collection: "c", ID: fmt.Sprint(1_000_000_000 + n)}, Raw: json.RawMessage(`1`)}
			r.Parent = archive.Key{Collection: "issues", ID: fmt.Sprint(n / 5)}
			s.add(w, r, archive.New)
		}
		stored := w.Written() * 5 / 2 // of the segments, which this store has in memory, and their indexes
		if got := int64(heap()-before) - stored; got > records*150 {
			t.Errorf("%d records take %d bytes, %d each", records, got, got/records)
		}
		runtime.KeepAlive(w)
	})
}
