package git

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// A repository that has vanished is carried, and its large files with it.
func TestSourceThatIsGone(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	b := newBench(t, s.dir)
	first := b.backup()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.try(); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("error %v, want one that says the repository is not there", err)
	}

	d, err := b.store.Begin(t.Context(), b.last.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Part(t.Context(), "other", point.KindDir) // another part went well, so there is a point
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Store(t.Context(), point.Part{}), b.last.Capture(t.Context(), d)); err != nil {
		t.Fatal(err)
	}
	r, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Point.State != point.Incomplete || len(r.Point.Parts) != 3 {
		t.Fatalf("the point is %s: %+v", r.Point.State, r.Point.Parts)
	}
	for _, p := range r.Point.Parts[1:] {
		if p.State != point.Carried || p.CarriedFrom == nil || !p.CarriedFrom.Equal(first.Point.Time) || p.Reason == "" {
			t.Errorf("the part is %+v", p)
		}
	}
	b.restore(r.Point.ID)
}

var errVault = errors.New("the vault failed")

// brokenSink is a vault that fails at one operation on a path.
type brokenSink struct {
	point.Sink
	at    string // "put", "keep", "store" or "alarm"
	ended []string
}

type brokenWriter struct {
	point.PartWriter
	sink *brokenSink
}

func (s *brokenSink) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := s.Sink.Part(ctx, name, kind)
	return &brokenWriter{w, s}, err
}

func (w *brokenWriter) Put(ctx context.Context, e point.Entry, r io.Reader, c point.Content) (int64, error) {
	if w.sink.at == "put" && strings.HasSuffix(e.Name, ".pack") {
		io.CopyN(io.Discard, r, 20) // some of it was read before the failure
		return 0, errVault
	}
	return w.PartWriter.Put(ctx, e, r, c)
}

func (w *brokenWriter) Keep(ctx context.Context, path string) error {
	if w.sink.at == "keep" {
		return errVault
	}
	return w.PartWriter.Keep(ctx, path)
}

func (w *brokenWriter) Alarm(ctx context.Context, finding string) error {
	if w.sink.at == "alarm" {
		return errVault
	}
	return w.PartWriter.Alarm(ctx, finding)
}

func (w *brokenWriter) Store(ctx context.Context, p point.Part) error {
	w.sink.ended = append(w.sink.ended, "stored")
	if w.sink.at == "store" {
		return errVault
	}
	return w.PartWriter.Store(ctx, p)
}

func (w *brokenWriter) Fail(ctx context.Context, reason error) error {
	w.sink.ended = append(w.sink.ended, "failed")
	return w.PartWriter.Fail(ctx, reason)
}

// What the vault does wrong ends the run: the source is not to blame, and no part may say so.
func TestVaultThatFails(t *testing.T) {
	for _, at := range []string{"put", "keep", "alarm", "store"} {
		t.Run(at, func(t *testing.T) {
			s := newRepo(t)
			first := s.commit("refs/heads/main", "a", "1")
			b := newBench(t, s.dir)
			b.backup()
			s.git("update-ref", "refs/heads/main", s.commitOn("", "b", first))
			d, err := b.store.Begin(t.Context(), b.last.Subject(), "")
			if err != nil {
				t.Fatal(err)
			}
			sink := &brokenSink{Sink: d, at: at}
			if err := b.last.Capture(t.Context(), sink); !errors.Is(err, errVault) {
				t.Errorf("error %v, want the vault's own", err)
			}
			if slices.Contains(sink.ended, "failed") {
				t.Error("the repository's part was failed for what the vault did")
			}
			if left, _ := os.ReadDir(b.o.Scratch); len(left) > 0 {
				t.Errorf("the scratch directory still holds %v", left)
			}
		})
	}
}

// cancellingSink interrupts the run when the first file is put.
type cancellingSink struct {
	point.Sink
	cancel context.CancelFunc
}

type cancellingWriter struct {
	point.PartWriter
	cancel context.CancelFunc
}

func (s *cancellingSink) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := s.Sink.Part(ctx, name, kind)
	return &cancellingWriter{w, s.cancel}, err
}

func (w *cancellingWriter) Put(ctx context.Context, e point.Entry, r io.Reader, c point.Content) (int64, error) {
	w.cancel()
	return w.PartWriter.Put(ctx, e, r, c)
}

func TestInterruptedCapture(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	source, err := NewSource(b.url, b.o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d, err := b.store.Begin(ctx, source.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Capture(ctx, &cancellingSink{d, cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the interruption", err)
	}
	if left, _ := os.ReadDir(b.o.Scratch); len(left) > 0 {
		t.Errorf("the scratch directory still holds %v", left)
	}
	requireSame(t, s.dir, b.restore(b.backup().Point.ID))
}

// A last copy that is damaged must not be built upon: the repository is captured whole again, and that is said.
func TestDamagedCopyIsReplaced(t *testing.T) {
	for _, damaged := range []string{refsFile, "index"} {
		t.Run(damaged, func(t *testing.T) {
			s := newRepo(t)
			s.commit("refs/heads/main", "a", "1")
			b := newBench(t, s.dir)
			first := b.backup()
			path := damaged
			if damaged == "index" {
				entries, err := b.part(first.Point.ID).List(t.Context(), packDir)
				if err != nil {
					t.Fatal(err)
				}
				path = packDir + "/" + entries[0].Name // "….idx" sorts before "….pack"
			}
			if err := b.store.Corrupt(first.Point.ID, b.last.PartName()+"/"+path); err != nil {
				t.Fatal(err)
			}
			s.commit("refs/heads/main", "a", "2")
			second := b.backup()
			if notes := second.Point.Parts[0].Notes; len(notes) != 1 || !strings.Contains(notes[0], "damaged") {
				t.Errorf("notes are %q", notes)
			}
			requireSame(t, s.dir, b.restore(second.Point.ID))
		})
	}
}

func TestObserverIsTold(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	seen := map[string]bool{}
	b.o.Observe = func(e point.Event) {
		if e.Part != b.last.PartName() {
			t.Errorf("event of part %q", e.Part)
		}
		seen[e.What] = true
	}
	b.backup()
	for _, what := range []string{"refs", "receiving", "indexing"} {
		if !seen[what] {
			t.Errorf("nothing was told of %s", what)
		}
	}
}

func TestRefusalsOfIndexPack(t *testing.T) {
	for said, want := range map[string]error{
		"fatal: write error: No space left on device":                   fault.ErrUnavailable,
		"fatal: Out of memory, malloc failed (tried to allocate 99 GB)": fault.ErrRefused,
		"fatal: pack exceeds maximum allowed size (1.00 KiB)":           fault.ErrRefused,
		"fatal: pack is corrupted (SHA1 mismatch)":                      fault.ErrCorrupt,
		"fatal: fsck error in packed object":                            errStrict,
		"fatal: early EOF":                                              fault.ErrCorrupt,
	} {
		x := &indexer{scratch: &scratch{limits: Limits{}.orDefaults()}, found: &findings{}}
		x.found.Write([]byte(said + "\n")) //nolint:errcheck // never fails
		if err := x.refusal(errors.New("exit status 128")); !errors.Is(err, want) {
			t.Errorf("%q becomes %v, want %v", said, err, want)
		}
	}
}

func TestRemembersTipsNewestFirst(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	var oids []string
	for _, content := range []string{"1", "2", "3"} {
		oid := s.commitOn("", "a", content)
		s.git("update-ref", "refs/heads/main", oid)
		oids = append(oids, oid)
		b.backup()
	}
	points, err := b.store.Points(t.Context(), point.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	was, err := readStored(t.Context(), b.part(points[0].ID))
	if err != nil || !slices.Equal(was.tips, []string{oids[1], oids[0]}) {
		t.Errorf("remembered tips are %v, %v; want %v and %v", was.tips, err, oids[1], oids[0])
	}
}

// Damage in an old pack that a capture comes across is said, and takes nothing from the capture.
func TestDamagedPackIsSaid(t *testing.T) {
	s := newRepo(t)
	first := s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	entries, err := b.part(id).List(t.Context(), packDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Corrupt(id, b.last.PartName()+"/"+packDir+"/"+entries[1].Name); err != nil {
		t.Fatal(err)
	}
	s.git("update-ref", "refs/heads/main", s.commitOn("", "b", first))
	notes := b.backup().Point.Parts[0].Notes
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, "alarm: an earlier pack cannot be read") }) {
		t.Errorf("notes are %q", notes)
	}
}
