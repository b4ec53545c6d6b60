package git

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
)

// marked makes a bench whose source says that the repository's state is mark, at a time that the test sets.
func markedBench(t *testing.T, url string) (b *bench, now *time.Time) {
	now = new(time.Time)
	*now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	b = newBench(t, url)
	b.o.Name, b.o.ID, b.o.Mark, b.o.Recheck = "example.com/acme/api", "example.com:7", "pushed at noon", 24*time.Hour
	b.o.Now = func() time.Time { return *now }
	return b, now
}

func TestMarkSparesTheSource(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	b, now := markedBench(t, s.dir)
	first := b.backup().Point.Parts[0]
	if first.ID != "example.com:7" || first.Mark != "pushed at noon" || first.Checked == nil || !first.Checked.Equal(*now) || first.Unchanged {
		t.Fatalf("the part is %+v", first)
	}
	asked := *now
	tip := s.commit("refs/heads/main", "unnoticed", "1") // the mark says otherwise, so nobody looks

	tests := []struct {
		name    string
		change  func()
		spared  bool
		checked time.Time
	}{
		{"the same mark", func() { *now = asked.Add(23 * time.Hour) }, true, asked},
		{"still the same", func() {}, true, asked},
		{"another id", func() { b.o.ID = "example.com:8" }, false, asked.Add(23 * time.Hour)},
		{"another mark", func() { b.o.Mark = "pushed at one" }, false, asked.Add(23 * time.Hour)},
		{"checked too long ago", func() { *now = asked.Add(48 * time.Hour) }, false, asked.Add(48 * time.Hour)},
		{"a clock that was put back", func() { *now = asked.Add(40 * time.Hour) }, false, asked.Add(40 * time.Hour)},
		{"no mark", func() { b.o.Mark = "" }, false, asked.Add(40 * time.Hour)},
		{"no mark again", func() {}, false, asked.Add(40 * time.Hour)},
	}
	for _, test := range tests {
		test.change()
		r := b.backup()
		part, lfs := r.Point.Parts[0], lfsPart(t, r)
		if spared := b.last.Requests() == 0; spared != test.spared {
			t.Errorf("%s: %d requests", test.name, b.last.Requests())
		}
		if part.State != point.Stored || part.Mark != b.o.Mark || part.ID != b.o.ID || !part.Checked.Equal(test.checked) {
			t.Errorf("%s: the part is %+v", test.name, part)
		}
		if test.spared && (!part.Unchanged || part.Revision != first.Revision || len(part.Counts) != 1 || part.NewBytes != 0 || part.Bytes != first.Bytes) {
			t.Errorf("%s: what was kept is %+v", test.name, part)
		}
		if lfs.State != point.Stored || !lfs.Unchanged || lfs.NewBytes != 0 || lfs.Counts[0].Stored != 1 {
			t.Errorf("%s: the part of LFS objects is %+v", test.name, lfs)
		}
		if !test.spared && part.Revision != tip {
			t.Errorf("%s: the copy is of %s", test.name, part.Revision)
		}
	}
}

// Without a clock, or after a capture that failed, the mark is not believed.
func TestMarkIsBelievedAfterSuccessOnly(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b, _ := markedBench(t, s.dir)
	clock := b.o.Now
	b.o.Now = nil
	for range 2 {
		if p := b.backup().Point.Parts[0]; b.last.Requests() == 0 || p.Checked != nil {
			t.Errorf("without a clock: %d requests, %+v", b.last.Requests(), p)
		}
	}
	b.o.Now = clock
	b.backup()
	b.o.Mark = "pushed later"
	away := s.dir + ".away"
	if err := os.Rename(s.dir, away); err != nil {
		t.Fatal(err)
	}
	d, err := b.store.Begin(t.Context(), b.last.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewSource(b.url, b.o)
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Part(t.Context(), "other", point.KindDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Store(t.Context(), point.Part{}); err != nil {
		t.Fatal(err)
	}
	if err := again.Capture(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	r, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Point.Parts[1]; p.State != point.Carried || p.Mark != "pushed at noon" {
		t.Errorf("the part is %+v", p)
	}
	if err := os.Rename(away, s.dir); err != nil {
		t.Fatal(err)
	}
	b.o.Mark = "pushed at noon" // what the copy has; but it is carried
	if b.backup(); b.last.Requests() == 0 {
		t.Error("a copy that was carried was taken for good")
	}
}

// What the LFS server did not give is asked for again, whatever the mark says.
func TestMarkSparesNoMissingLargeFiles(t *testing.T) {
	s := newRepo(t)
	gone := s.large("gone.bin", "gone", true)
	s.large("there.bin", "there", false)
	b, _ := markedBench(t, s.dir)
	b.backup()
	r := b.backup()
	if lfs := lfsPart(t, r); !r.Point.Parts[0].Unchanged || len(lfs.Counts[0].MissingAtSource) != 1 || lfs.NewBytes != 0 || !lfs.Unchanged {
		t.Errorf("the parts are %+v", r.Point.Parts)
	}
	s.object(gone, "gone")
	r = b.backup()
	if lfs := lfsPart(t, r); !r.Point.Parts[0].Unchanged || lfs.Counts[0].Stored != 2 || lfs.Unchanged {
		t.Errorf("the parts are %+v", r.Point.Parts)
	}
	requireSame(t, s.dir, b.restore(r.Point.ID))
}

// deafSink loses the part of LFS objects, as a run does that is killed before it ends.
type deafSink struct{ point.Sink }

func (s deafSink) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	if kind == point.KindLFS {
		return nil, context.Canceled
	}
	return s.Sink.Part(ctx, name, kind)
}

// A run that was cut short between a repository and its LFS objects leaves no gap that the mark hides.
func TestMarkAfterARunCutShort(t *testing.T) {
	for _, before := range []bool{false, true} {
		s := newRepo(t)
		s.commit("refs/heads/main", "a", "1")
		b, _ := markedBench(t, s.dir)
		if before {
			s.large("one.bin", "one", false)
			b.backup()
		}
		b.o.Mark = "pushed at one"
		s.large("two.bin", "two", false)
		source, err := NewSource(b.url, b.o)
		if err != nil {
			t.Fatal(err)
		}
		d, err := b.store.Begin(t.Context(), source.Subject(), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Capture(t.Context(), deafSink{d}); err == nil {
			t.Fatal("the capture was not cut short")
		}
		r := b.backup()
		if lfs := lfsPart(t, r); !r.Point.Parts[0].Unchanged || !lfs.Counts[0].Closes() || lfs.NewBytes == 0 {
			t.Errorf("after a copy before: %v: the parts are %+v", before, r.Point.Parts)
		}
		requireSame(t, s.dir, b.restore(r.Point.ID))
	}
}

func TestMarkAndWhatIsAskedFor(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	s.git("update-ref", "refs/pull/1/merge", "refs/heads/main")
	b, _ := markedBench(t, s.dir)
	b.o.SkipLFS = true
	b.backup()
	b.o.SkipLFS = false
	if r := b.backup(); lfsPart(t, r).Counts[0].Stored != 1 || !r.Point.Parts[0].Unchanged {
		t.Errorf("LFS objects that are wanted now are %+v", r.Point.Parts)
	}
	b.o.AllRefs = true
	if p := b.backup().Point.Parts[0]; p.Unchanged || p.Counts[0].Excluded != 0 {
		t.Errorf("all refs are wanted now: %+v", p)
	}
}

// A repository that was renamed is the one it was: nothing of it is fetched again.
func TestRenamedIsNotFetchedAgain(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	b, _ := markedBench(t, s.dir)
	old := b.backup()
	account := b.last.Subject()

	b.o.Name = "example.com/acme/renamed"
	source, err := NewSource(b.url, b.o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.store.Begin(t.Context(), account, "")
	if err != nil {
		t.Fatal(err)
	}
	d.Renamed(source.PartName(), old.Point.Parts[0].Name)
	if err := source.Capture(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	r, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if source.Requests() != 0 || r.Ledger.NewBytes != 0 || r.Ledger.Unchanged != 2 || len(r.Point.Parts) != 2 {
		t.Errorf("%d requests, parts %+v", source.Requests(), r.Point.Parts)
	}
	for _, p := range r.Point.Parts {
		if !strings.HasPrefix(p.Name, "git/example.com/acme/renamed.git") {
			t.Errorf("a part is named %s", p.Name)
		}
	}
}

// A copy that turns out damaged is not kept on the source's word.
func TestMarkKeepsNoDamagedCopy(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	b, _ := markedBench(t, s.dir)
	first := b.backup()
	if err := b.store.Corrupt(first.Point.ID, b.last.PartName()+"/"+lfsFile); err != nil {
		t.Fatal(err)
	}
	p := b.backup().Point.Parts[0]
	if p.Unchanged || b.last.Requests() == 0 || len(p.Notes) == 0 {
		t.Errorf("%d requests, the part is %+v", b.last.Requests(), p)
	}
}
