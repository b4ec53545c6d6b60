package protect_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/policy"
	"github.com/backstay/backstay/internal/protect"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// daily returns a clock that goes on by a day at each look, and starts on January 2nd.
func daily() func() time.Time {
	var days atomic.Int64
	return func() time.Time { return start.AddDate(0, 0, int(days.Add(1))) }
}

// source is a directory of files in memory, each a part of its own named after the directory it is in.
type source struct {
	name  string
	files map[string]string // by part and path: "dir/a/f"
	fails map[string]error  // parts that fail
	ends  error             // what Capture returns
	stop  context.CancelFunc
}

func (s *source) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectDirectory, Name: s.name}
}

func (s *source) Capture(ctx context.Context, to point.Sink) error {
	parts := map[string][]string{}
	for name := range s.files {
		part := filepath.Dir(name)
		parts[part] = append(parts[part], name)
	}
	for part := range s.fails {
		parts[part] = nil
	}
	for part, names := range parts {
		w, err := to.Part(ctx, part, point.KindDir)
		if err != nil {
			return err
		}
		if err := s.fails[part]; err != nil {
			if err := w.Fail(ctx, err); err != nil {
				return err
			}
			continue
		}
		for _, name := range names {
			e := point.Entry{Name: filepath.Base(name), Time: start}
			if _, err := w.Put(ctx, e, strings.NewReader(s.files[name]), point.Text); err != nil {
				return err
			}
		}
		if err := w.Store(ctx, point.Part{}); err != nil {
			return err
		}
	}
	if s.stop != nil {
		s.stop()
	}
	return s.ends
}

func backup(t *testing.T, store protect.Store, s *source) string {
	t.Helper()
	receipt, err := protect.Backup(t.Context(), store, s, "")
	if err != nil && !errors.Is(err, fault.ErrIncomplete) {
		t.Fatal(err)
	}
	return receipt.Point.ID
}

func count(t *testing.T, store protect.Store) int {
	t.Helper()
	points, err := store.Points(t.Context(), point.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return len(points)
}

func TestBackup(t *testing.T) {
	dead := fault.New("read", fault.ErrUnavailable, "the line went dead", "")
	cases := []struct {
		name   string
		source source
		want   error // class
		points int
	}{
		{"all parts stored", source{files: map[string]string{"dir/a/f": "1", "dir/b/f": "2"}}, nil, 1},
		{"one part of two fails", source{files: map[string]string{"dir/a/f": "1"}, fails: map[string]error{"dir/b": dead}}, fault.ErrIncomplete, 1},
		{"every part fails", source{fails: map[string]error{"dir/b": dead}}, fault.ErrUnavailable, 0},
		{"no parts at all", source{}, fault.ErrIncomplete, 0},
		{"the vault breaks", source{files: map[string]string{"dir/a/f": "1"}, ends: fault.New("put", fault.ErrDenied, "", "")}, fault.ErrDenied, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			store := memory.New(daily())
			receipt, err := protect.Backup(t.Context(), store, &c.source, "")
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("Backup = %v, want %v", err, c.want)
			}
			if n := count(t, store); n != c.points || (receipt != nil) != (n == 1) {
				t.Errorf("%d points and receipt %v, want %d", n, receipt, c.points)
			}
		})
	}
}

func TestInterruptedBackupPublishesNothingAndGoesOnWhereItWas(t *testing.T) {
	store := memory.New(daily())
	ctx, cancel := context.WithCancel(t.Context())
	s := &source{name: "a", files: map[string]string{"dir/a/f": "1"}, stop: cancel}
	if _, err := protect.Backup(ctx, store, s, ""); !errors.Is(err, context.Canceled) {
		t.Fatalf("Backup = %v, want canceled", err)
	}
	if n := count(t, store); n != 0 {
		t.Errorf("%d points after an interrupt", n)
	}
	draft, err := store.Begin(t.Context(), s.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	w, err := draft.Part(t.Context(), "dir/a", point.KindDir)
	if err != nil || w.Prior() == nil {
		t.Errorf("the part that was ended is gone: %v", err)
	}
}

// withID is a store that lists points with ids of the test's choosing.
type withID struct {
	protect.Store
	points []point.Point
	err    error
}

func (s withID) Points(context.Context, point.Filter) ([]point.Point, error) { return s.points, s.err }

func TestResolve(t *testing.T) {
	at := func(id, subject string, day int) point.Point {
		return point.Point{ID: id, Subject: point.Subject{Name: subject}, Time: start.AddDate(0, 0, day)}
	}
	points := []point.Point{
		at("aaaa2222000000000000000000000000", "github.com/acme/web", 3),
		at("aaaa1111000000000000000000000000", "github.com/acme/api", 2),
		at("bbbb0000000000000000000000000000", "github.com/acme/api", 1),
	}
	lost := fault.New("list", fault.ErrCorrupt, "1 point is lost", "")
	cases := []struct {
		ref   string
		asOf  time.Time
		alarm error
		want  string
		class error
		says  string // in the error or its hints
	}{
		{ref: "aaaa1111000000000000000000000000", want: "aaaa1111"},
		{ref: "AAAA11", want: "aaaa1111"},
		{ref: "bbbb", want: "bbbb0000"},
		{ref: "latest", want: "aaaa2222"},
		{ref: "latest:github.com/acme/api", want: "aaaa1111"},
		{ref: "latest:github.com/acme/api", asOf: start.AddDate(0, 0, 2), want: "aaaa1111"},
		{ref: "latest:github.com/acme/api", asOf: start.AddDate(0, 0, 2).Add(-1), want: "bbbb0000"},
		{ref: "latest", asOf: start, class: fault.ErrNotFound, says: "the oldest is of 2026-01-02"},
		{ref: "aaaa", class: fault.ErrInvalid, says: "aaaa2222000000000000000000000000 (github.com/acme/web"},
		{ref: "cccc", class: fault.ErrNotFound, says: "bbbb0000"},
		{ref: "bbb", class: fault.ErrInvalid, says: "at least 4 digits"},
		{ref: "lates", class: fault.ErrInvalid, says: "latest:SUBJECT"},
		{ref: "", class: fault.ErrInvalid},
		{ref: "bbbb", asOf: start, class: fault.ErrInvalid, says: "a time goes with latest"},
		{ref: "latest:api", class: fault.ErrNotFound, says: "subjects there are: github.com/acme/api, github.com/acme/web"},
		{ref: "bbbb", alarm: lost, want: "bbbb0000"},
		{ref: "latest", alarm: lost, class: fault.ErrCorrupt},
		{ref: "bbbb", alarm: fault.New("list", fault.ErrUnavailable, "", ""), class: fault.ErrUnavailable},
	}
	for _, c := range cases {
		p, err := protect.Resolve(t.Context(), withID{points: points, err: c.alarm}, c.ref, c.asOf)
		switch {
		case c.class != nil:
			said := strings.Join(fault.Hints(err), " ")
			if err != nil {
				said += " " + err.Error()
			}
			if !errors.Is(err, c.class) || !strings.Contains(said, c.says) {
				t.Errorf("Resolve(%q) = %v, hints %q; want %v saying %q", c.ref, err, fault.Hints(err), c.class, c.says)
			}
		case err != nil || !strings.HasPrefix(p.ID, c.want):
			t.Errorf("Resolve(%q, %s) = %v, %v; want %s", c.ref, c.asOf, p, err, c.want)
		}
	}
}

func TestExpire(t *testing.T) {
	store := memory.New(daily())
	var ids []string
	for range 4 {
		ids = append(ids, backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1"}}))
	}
	listed, err := store.Points(t.Context(), point.Filter{}) // before the hold, as another process may have seen it
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Hold(t.Context(), ids[0], "audit"); err != nil {
		t.Fatal(err)
	}
	rule := protect.Expiry{Retention: policy.Retention{Last: 2}, Now: start.AddDate(1, 0, 0), Zone: time.UTC, DryRun: true}
	expired, err := protect.Expire(t.Context(), store, listed, rule)
	if err != nil || expired.Deleted != 0 || count(t, store) != 4 {
		t.Errorf("dry run = %+v, %v; %d points left", expired, err, count(t, store))
	}
	rule.DryRun = false
	expired, err = protect.Expire(t.Context(), store, listed, rule)
	if !errors.Is(err, fault.ErrRefused) || expired.Deleted != 1 || count(t, store) != 3 {
		t.Errorf("Expire = %+v, %v; %d points left; want one deleted and one refused", expired, err, count(t, store))
	}
}

func restorers() map[string]protect.Restorer {
	return map[string]protect.Restorer{point.KindDir: protect.RestoreFiles}
}

func TestRestoreLaysPartsOut(t *testing.T) {
	store := memory.New(daily())
	several := backup(t, store, &source{name: "a", files: map[string]string{"dir/host/a/f": "1", "dir/host/b/f": "2", "dir/host/b/in/g": "3"}})
	single := backup(t, store, &source{name: "b", files: map[string]string{"dir/host/a/f": "1", "dir/host/a/in/g": "3"}})
	cases := []struct {
		name, id, part string
		want           []string
	}{
		{"several parts go below the directory, with the parts inside them", several, "", []string{"host/a/f", "host/b/f", "host/b/in/g"}},
		{"a single part goes to the directory itself", single, "", []string{"f", "in/g"}},
		{"one part of several, by its full name", several, "dir/host/b", []string{"f", "in/g"}},
		{"one part of several, by its end", several, "a", []string{"f"}},
		{"an inner part alone", several, "b/in", []string{"g"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "to")
			if _, err := protect.Restore(t.Context(), store, c.id, protect.Restoration{Part: c.part, To: to, Restorers: restorers()}); err != nil {
				t.Fatal(err)
			}
			if got := filesIn(t, to); !slices.Equal(got, c.want) {
				t.Errorf("restored %q, want %q", got, c.want)
			}
		})
	}
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRestoreRefuses(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{
		name: "a", files: map[string]string{"dir/a/f": "1", "dir/x/a/f": "1"}, fails: map[string]error{"dir/b": errors.New("gone")},
	})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name  string
		id    string
		r     protect.Restoration
		class error
	}{
		{"a directory that is not empty", id, protect.Restoration{Part: "dir/a", To: full, Restorers: restorers()}, fault.ErrExists},
		{"a file", id, protect.Restoration{Part: "dir/a", To: filepath.Join(full, "mine"), Restorers: restorers()}, fault.ErrExists},
		{"a place where no directory can be", id, protect.Restoration{Part: "dir/a", To: "/dev/null/x", Restorers: restorers()}, fault.ErrDenied},
		{"an unknown point", strings.Repeat("0", 32), protect.Restoration{To: t.TempDir(), Restorers: restorers()}, fault.ErrNotFound},
		{"an unknown part", id, protect.Restoration{Part: "c", To: t.TempDir(), Restorers: restorers()}, fault.ErrNotFound},
		{"a name of two parts", id, protect.Restoration{Part: "a", To: t.TempDir(), Restorers: restorers()}, fault.ErrInvalid},
		{"a kind without restorer", id, protect.Restoration{To: t.TempDir()}, fault.ErrUnsupported},
		{"a failed part", id, protect.Restoration{To: t.TempDir(), Restorers: restorers()}, fault.ErrIncomplete},
	}
	for _, c := range cases {
		if _, err := protect.Restore(t.Context(), store, c.id, c.r); !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", c.name, err, c.class)
		}
	}
	if got := filesIn(t, full); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("the directory now holds %q", got)
	}
}

func TestRestoreGoesOnAfterAPartThatCameBackIncomplete(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1", "dir/b/f": "2"}})
	partly := func(_ context.Context, _ point.Reader, part point.Part, _ string) ([]string, error) {
		if part.Name == "dir/a" {
			return []string{"one ref was left out"}, fault.New("push", fault.ErrIncomplete, "1 ref was not taken", "")
		}
		return nil, nil
	}
	r := protect.Restoration{To: "url", Restorers: map[string]protect.Restorer{point.KindDir: partly}}
	done, err := protect.Restore(t.Context(), store, id, r)
	if !errors.Is(err, fault.ErrIncomplete) || len(done) != 2 || !strings.Contains(err.Error(), "dir/a: push: 1 ref was not taken") {
		t.Errorf("Restore = %+v, %v", done, err)
	}
	r.Single = true
	if done, err := protect.Restore(t.Context(), store, id, r); !errors.Is(err, fault.ErrInvalid) || len(done) != 0 {
		t.Errorf("several parts to a place for one: %+v, %v", done, err)
	}
}

func TestRestoreTellsWhatStaysInThePoint(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1", "dir/b/f": "2"}})
	one := func(_ context.Context, _ point.Reader, part point.Part, _ string) ([]string, error) {
		if part.Name == "dir/a" {
			return []string{"it has no place there"}, protect.ErrStays
		}
		return nil, nil
	}
	done, err := protect.Restore(t.Context(), store, id, protect.Restoration{To: "url", Finds: true, Restorers: map[string]protect.Restorer{point.KindDir: one}})
	if err != nil || len(done) != 2 {
		t.Fatalf("Restore = %+v, %v", done, err)
	}
	for _, r := range done {
		if stays := r.Part.Name == "dir/a"; stays != (r.To == "") || stays != (len(r.Notes) == 1) {
			t.Errorf("restored %+v", r)
		}
	}
}

// TestRestoreKeepsToItsDirectory plants names in a point that lead out of it.
func TestRestoreKeepsToItsDirectory(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1"}})
	for _, s := range []hostile{{Store: store, part: "../../evil"}, {Store: store, part: "/etc/evil"}, {Store: store, part: "dir/a", entry: "../evil"}} {
		dir := t.TempDir()
		to := filepath.Join(dir, "deep", "to")
		if _, err := protect.Restore(t.Context(), s, id, protect.Restoration{To: to, Restorers: restorers()}); !errors.Is(err, fault.ErrCorrupt) {
			t.Errorf("%+v: %v, want corrupt", s, err)
		}
		if got := filesIn(t, dir); len(got) > 0 {
			t.Errorf("wrote %q", got)
		}
	}
}

// hostile is a store whose points name parts and entries as it likes.
type hostile struct {
	protect.Store
	part, entry string
}

func (h hostile) Open(ctx context.Context, id string) (*point.Record, point.Reader, error) {
	record, r, err := h.Store.Open(ctx, id)
	if err == nil {
		record.Point.Parts[0].Name = h.part
	}
	return record, hostileReader{r, h.entry}, err
}

type hostileReader struct {
	point.Reader
	entry string
}

func (r hostileReader) List(context.Context, string) ([]point.Entry, error) {
	return []point.Entry{{Name: r.entry}}, nil
}

func TestDiffFiles(t *testing.T) {
	store := memory.New(daily())
	before := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/same": "1", "dir/a/longer": "1", "dir/a/z": "1", "dir/gone/f": "1"}})
	after := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/same": "1", "dir/a/longer": "12", "dir/a/b": "1", "dir/new/f": "1"}})
	var got []string
	err := protect.Diff(t.Context(), store, before, after, nil, func(c protect.Change) {
		got = append(got, strings.TrimSpace(c.What+" "+c.Part+" "+c.Item))
	})
	want := []string{"added dir/a b", "changed dir/a longer", "removed dir/a z", "removed dir/gone", "added dir/new"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Diff told %q, %v; want %q", got, err, want)
	}
}

func TestVerifyIsAnErrorWhereAnythingIsWrong(t *testing.T) {
	store := memory.New(daily())
	id := backup(t, store, &source{name: "a", files: map[string]string{"dir/a/f": "1"}})
	if _, err := protect.Verify(t.Context(), store, true); err != nil {
		t.Error(err)
	}
	if err := store.Corrupt(id, "dir/a/f"); err != nil {
		t.Fatal(err)
	}
	report, err := protect.Verify(t.Context(), store, true, id)
	if !errors.Is(err, fault.ErrCorrupt) || !strings.Contains(err.Error(), "dir/a/f") || len(report.Faults) != 1 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// joining merges the files of a part into one, where there are several.
var joining = protect.Compactor{
	Due: func(ctx context.Context, from point.Reader) (bool, error) {
		list, err := from.List(ctx, ".")
		return len(list) > 1, err
	},
	Compact: func(ctx context.Context, w point.PartWriter, prior *point.Prior) (int, error) {
		list, err := prior.List(ctx, ".")
		if err != nil {
			return 0, err
		}
		if _, err := w.Put(ctx, point.Entry{Name: "all"}, strings.NewReader("joined"), point.Text); err != nil {
			return 0, err
		}
		p := prior.Part
		p.CarriedFrom = &prior.Time
		return len(list), w.Store(ctx, p)
	},
}

func TestCompactIsFoundByTheNextRunAndChangesNoPoint(t *testing.T) {
	store := memory.New(daily())
	s := &source{name: "a", files: map[string]string{"dir/a/f": "1", "dir/a/g": "2", "dir/b/h": "3"}}
	id := backup(t, store, s)
	merged, err := protect.Compact(t.Context(), store, map[string]protect.Compactor{point.KindDir: joining}, false)
	if err != nil || merged != 2 {
		t.Fatalf("Compact = %d, %v; want the two files of dir/a", merged, err)
	}
	if again, err := protect.Compact(t.Context(), store, map[string]protect.Compactor{point.KindDir: joining}, false); err != nil || again != 0 {
		t.Errorf("a second Compact = %d, %v; want nothing left to do", again, err)
	}
	if n := count(t, store); n != 1 {
		t.Errorf("%d points afterwards", n)
	}
	_, r, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(t.Context(), "dir/a"); err != nil || len(list) != 2 {
		t.Errorf("the point changed: %v, %v", list, err)
	}
	draft, err := store.Begin(t.Context(), s.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	w, err := draft.Part(t.Context(), "dir/a", point.KindDir)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := w.Prior().List(t.Context(), "."); err != nil || len(list) != 1 || list[0].Name != "all" {
		t.Errorf("the next run finds %v, %v", list, err)
	}
}

func TestRepackSeesTheCopiesOfAllPoints(t *testing.T) {
	store := memory.New(daily())
	s := &source{name: "a", files: map[string]string{"dir/a/f": "1"}}
	backup(t, store, s)
	s.files["dir/a/f"] = "2"
	backup(t, store, s)
	var seen []string
	repacking := joining
	repacking.Repack = func(ctx context.Context, w point.PartWriter, prior *point.Prior, kept []point.Reader) (int, error) {
		for _, r := range kept {
			f, err := r.Open(ctx, "f")
			if err != nil {
				return 0, err
			}
			b, err := io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return 0, err
			}
			seen = append(seen, string(b))
		}
		return joining.Compact(ctx, w, prior)
	}
	if n, err := protect.Compact(t.Context(), store, map[string]protect.Compactor{point.KindDir: repacking}, true); err != nil || n != 1 {
		t.Fatalf("Compact = %d, %v", n, err)
	}
	if !slices.Equal(seen, []string{"2", "1"}) {
		t.Errorf("repacked for copies %q", seen)
	}
}

// What a point lacks inside a part is told when the part is restored: what should have been there as an error, the rest as notes.
func TestRestoreTellsWhatAPartLacks(t *testing.T) {
	lost := errors.New("the server went away")
	tests := []struct {
		name      string
		inside    string // how the inner part ends
		wantError bool
		want      string
	}{
		{name: "failed", inside: "fails", wantError: true, want: "the server went away"},
		{name: "short", inside: "short", wantError: true, want: "1 of 3 things"},
		{name: "skipped", inside: "skipped", want: "left out: by choice"},
		{name: "missing at the source", inside: "missing", want: "missing at the source when the point was made: 1 of 2 things"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			store := memory.New(daily())
			draft, err := store.Begin(ctx, point.Subject{Kind: point.SubjectDirectory, Name: "s"}, "")
			must(t, err)
			outer, err := draft.Part(ctx, "dir/a", point.KindDir)
			must(t, err)
			_, err = outer.Put(ctx, point.Entry{Name: "f"}, strings.NewReader("1"), point.Text)
			must(t, err)
			must(t, outer.Store(ctx, point.Part{}))
			if test.inside == "skipped" {
				draft.Skip("dir/a/in", point.KindDir, "by choice")
			} else {
				inner, err := draft.Part(ctx, "dir/a/in", point.KindDir)
				must(t, err)
				switch test.inside {
				case "fails":
					must(t, inner.Fail(ctx, lost))
				case "short":
					must(t, inner.Store(ctx, point.Part{Counts: []point.Count{{Of: "things", Expected: 3, Stored: 1}}}))
				default:
					must(t, inner.Store(ctx, point.Part{Counts: []point.Count{{Of: "things", Expected: 2, Stored: 1, MissingAtSource: []string{"x"}}}}))
				}
			}
			receipt, err := draft.Commit(ctx)
			must(t, err)
			done, err := protect.Restore(ctx, store, receipt.Point.ID, protect.Restoration{
				To: filepath.Join(t.TempDir(), "to"), Restorers: map[string]protect.Restorer{point.KindDir: protect.RestoreFiles},
			})
			if errors.Is(err, fault.ErrIncomplete) != test.wantError || (err != nil) != test.wantError {
				t.Fatalf("error %v", err)
			}
			said := strings.Join(done[0].Notes, "\n")
			if err != nil {
				said += err.Error()
			}
			if !strings.Contains(said, test.want) {
				t.Errorf("said %q, want %q", said, test.want)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
