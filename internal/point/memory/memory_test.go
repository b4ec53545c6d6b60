package memory_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault/vaulttest"
)

var _ protect.Store = (*memory.Store)(nil)

var subject = point.Subject{Kind: point.SubjectDirectory, Name: "host/data"}

// ticking returns a clock that goes on by an hour at each look.
func ticking() func() time.Time {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Hour)
		return now
	}
}

func begin(t *testing.T, s *memory.Store) point.Draft {
	t.Helper()
	d, err := s.Begin(t.Context(), subject, "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func part(t *testing.T, d point.Draft, name string) point.PartWriter {
	t.Helper()
	w, err := d.Part(t.Context(), name, point.KindDir)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func put(t *testing.T, w point.PartWriter, name, text string) {
	t.Helper()
	n, err := w.Put(t.Context(), point.Entry{Name: name}, strings.NewReader(text), point.Text)
	if err != nil || n != int64(len(text)) {
		t.Fatalf("Put(%s) = %d, %v", name, n, err)
	}
}

func store(t *testing.T, w point.PartWriter) {
	t.Helper()
	if err := w.Store(t.Context(), point.Part{}); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, d point.Draft) *point.Receipt {
	t.Helper()
	r, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, s *memory.Store, id, name string) string {
	t.Helper()
	_, r, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestKeepTakesFilesOverWithoutNestedParts(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	outer, inner := part(t, d, "a"), part(t, d, "a/in")
	put(t, outer, "x/1", "one")
	put(t, inner, "2", "two")
	store(t, outer)
	store(t, inner)
	commit(t, d)

	d = begin(t, s)
	outer = part(t, d, "a")
	if err := outer.Keep(t.Context(), "."); err != nil {
		t.Fatal(err)
	}
	store(t, outer)
	got := commit(t, d)
	if text := read(t, s, got.Point.ID, "a/x/1"); text != "one" {
		t.Errorf("kept file reads %q", text)
	}
	if got.Ledger.NewBytes != 0 || got.Ledger.Bytes != 3 {
		t.Errorf("ledger = %+v, want 3 bytes, none new", got.Ledger)
	}
	_, r, _ := s.Open(t.Context(), got.Point.ID)
	if _, err := r.List(t.Context(), "a/in"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("the inner part came along: %v", err)
	}
}

func TestFailedPartIsCarriedWithItsDate(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	w := part(t, d, "a")
	put(t, w, "f", "good")
	store(t, w)
	first := commit(t, d)

	for range 2 { // carrying a carried part keeps the first date
		d = begin(t, s)
		w, other := part(t, d, "a"), part(t, d, "b")
		put(t, w, "f", "half")
		if err := w.Fail(t.Context(), errors.New("the line went dead")); err != nil {
			t.Fatal(err)
		}
		store(t, other)
		got := commit(t, d)
		p := got.Point.Parts[0]
		if p.State != point.Carried || p.CarriedFrom == nil || !p.CarriedFrom.Equal(first.Point.Time) || p.Reason != "the line went dead" {
			t.Errorf("part = %+v", p)
		}
		if got.Point.State != point.Incomplete {
			t.Errorf("state = %s", got.Point.State)
		}
		if text := read(t, s, got.Point.ID, "a/f"); text != "good" {
			t.Errorf("carried file reads %q", text)
		}
	}
}

func TestCommitRefusesAPointOfNothing(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	if err := part(t, d, "a").Fail(t.Context(), fault.New("fetch", fault.ErrUnavailable, "no route", "")); err != nil {
		t.Fatal(err)
	}
	d.Skip("b", point.KindDir, "excluded")
	if _, err := d.Commit(t.Context()); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("Commit = %v, want the reason of the failed part", err)
	}
	if points, _ := s.Points(t.Context(), point.Filter{}); len(points) != 0 {
		t.Errorf("published %v", points)
	}

	d = begin(t, s)
	part(t, d, "a")
	if _, err := d.Commit(t.Context()); err == nil {
		t.Error("a part that was not ended was published")
	}
}

func TestEndedPartsOfAnAbandonedDraftAreFoundAgain(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	done, cut := part(t, d, "done"), part(t, d, "cut")
	put(t, done, "f", "text")
	put(t, cut, "f", "text")
	store(t, done)
	if err := d.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
	d = begin(t, s)
	if p := part(t, d, "done").Prior(); p == nil || p.Part.State != point.Stored {
		t.Errorf("prior of an ended part = %+v", p)
	}
	if p := part(t, d, "cut").Prior(); p != nil {
		t.Errorf("prior of a part that was not ended = %+v", p)
	}
}

func TestAlarmHoldsTheLastPointThatHasThePart(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	w := part(t, d, "a")
	store(t, w)
	good := commit(t, d)
	d = begin(t, s)
	w = part(t, d, "a")
	if err := w.Alarm(t.Context(), "the default branch was rewritten"); err != nil {
		t.Fatal(err)
	}
	store(t, w)
	bad := commit(t, d)
	if notes := bad.Point.Parts[0].Notes; len(notes) != 1 || !strings.Contains(notes[0], "rewritten") {
		t.Errorf("notes = %q", notes)
	}
	if err := s.Delete(t.Context(), bad.Point.ID, good.Point.ID); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("Delete = %v, want refused", err)
	}
	if points, _ := s.Points(t.Context(), point.Filter{}); len(points) != 2 {
		t.Errorf("%d points after a refused deletion, want 2", len(points))
	}
	if err := s.Hold(t.Context(), good.Point.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), bad.Point.ID, good.Point.ID); err != nil {
		t.Error(err)
	}
}

func TestPutReturnsTheReadersErrorAsItIs(t *testing.T) {
	d := begin(t, memory.New(ticking()))
	w := part(t, d, "a")
	r := io.MultiReader(strings.NewReader("half"), failing{})
	if _, err := w.Put(t.Context(), point.Entry{Name: "f"}, r, point.Text); err != errDead { //nolint:errorlint // identity is the contract
		t.Errorf("Put = %v", err)
	}
	store(t, w)
	if got := commit(t, d); got.Point.Bytes != 0 {
		t.Errorf("the half file was kept: %d bytes", got.Point.Bytes)
	}
	for _, name := range []string{"", "..", "/etc/passwd", "a/../../b", "a//b"} {
		if _, err := w.Put(t.Context(), point.Entry{Name: name}, strings.NewReader(""), point.Text); err == nil {
			t.Errorf("Put(%q) was taken", name)
		}
	}
}

var errDead = errors.New("dead")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errDead }

func TestReaderListsAndExtracts(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	w := part(t, d, "a")
	put(t, w, "x/y/deep", "12345")
	put(t, w, "top", "1")
	if _, err := w.Put(t.Context(), point.Entry{Name: "link", Mode: os.ModeSymlink, Link: "top"}, nil, point.Tree); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Put(t.Context(), point.Entry{Name: "empty", Mode: os.ModeDir | 0o700}, nil, point.Tree); err != nil {
		t.Fatal(err)
	}
	store(t, w)
	got := commit(t, d)
	_, r, err := s.Open(t.Context(), got.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.List(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if want := []string{"empty", "link", "top", "x"}; !slices.Equal(names, want) {
		t.Errorf("List = %q, want %q", names, want)
	}
	if e := entries[3]; !e.Mode.IsDir() || e.Size != 5 {
		t.Errorf("x = %+v", e)
	}

	dest := filepath.Join(t.TempDir(), "out")
	if err := r.Extract(t.Context(), "a", dest); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dest, "x", "y", "deep")); string(data) != "12345" {
		t.Errorf("deep = %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(dest, "empty")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("empty = %v, %v", info, err)
	}
	if err := r.Extract(t.Context(), "a", dest); !errors.Is(err, fault.ErrExists) {
		t.Errorf("Extract over something = %v", err)
	}
}

func TestVerifyFindsAFlippedBit(t *testing.T) {
	s := memory.New(ticking())
	d := begin(t, s)
	w := part(t, d, "a")
	put(t, w, "f", "text")
	store(t, w)
	id := commit(t, d).Point.ID
	if err := s.Corrupt(id, "a/f"); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Verify(t.Context(), false); err != nil || len(report.Faults) != 0 {
		t.Errorf("Verify without data = %+v, %v", report, err)
	}
	report, err := s.Verify(t.Context(), true, id)
	if err != nil || len(report.Faults) != 1 || report.Faults[0].Path != "a/f" {
		t.Errorf("Verify = %+v, %v", report, err)
	}
	_, r, _ := s.Open(t.Context(), id)
	if _, err := r.Open(context.Background(), "a/f"); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("Open = %v", err)
	}
}

func TestSuite(t *testing.T) {
	vaulttest.Run(t, func(_ *testing.T, clock func() time.Time) protect.Store { return memory.New(clock) })
}
