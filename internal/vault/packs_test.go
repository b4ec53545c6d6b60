package vault

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// TestDraftOutlivedByWhatItKept has maintenance elsewhere collect what a draft kept, for days, before it commits.
func TestDraftOutlivedByWhatItKept(t *testing.T) {
	ctx := t.Context()
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now})
	kept := pointOf(t, v, "s", noise(1, 1<<20))
	clock.forward(30 * time.Hour)
	d, err := v.Begin(ctx, point.Subject{Kind: point.SubjectRepository, Name: "s"}, "")
	must(t, err)
	w, err := d.Part(ctx, "git/x.git", point.KindGit)
	must(t, err)
	must(t, w.Keep(ctx, "pack"))

	elsewhere, err := openIn(ctx, keepOpen{st}, "test", testPassword, Options{Clock: clock.now})
	must(t, err)
	t.Cleanup(func() { _ = elsewhere.Close(context.Background()) })
	pointOf(t, elsewhere, "s", noise(9, 1<<20))
	must(t, elsewhere.Delete(ctx, kept))
	for range 5 {
		_, err := elsewhere.Maintain(ctx, MaintainOptions{Full: true})
		must(t, err)
		clock.forward(26 * time.Hour)
	}

	_, err = w.Put(ctx, point.Entry{Name: "HEAD"}, strings.NewReader("x"), point.Text)
	must(t, err)
	must(t, w.Store(ctx, point.Part{}))
	_, err = d.Commit(ctx)
	wantFault(t, err, fault.ErrCorrupt)
	points, err := elsewhere.Points(ctx, point.Filter{})
	must(t, err)
	report, err := elsewhere.Verify(ctx, true)
	must(t, err)
	if len(points) != 1 || len(report.Faults) != 0 {
		t.Errorf("%d points, faults %+v", len(points), report.Faults)
	}
}

// TestLostPackIsStoredAgain takes a pack of data away, or the end of it. The next backup offers no copy that needs it, stores the
// same bytes again without a repair, and says so.
func TestLostPackIsStoredAgain(t *testing.T) {
	base, _ := sample(t)
	for name, spoil := range map[string]func(t *testing.T, file string){
		"lost":      func(t *testing.T, file string) { must(t, os.Remove(file)) },
		"cut short": func(t *testing.T, file string) { must(t, os.Truncate(file, 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := clone(t, base)
			for _, pack := range blobFiles(t, dir, "p") {
				spoil(t, filepath.Join(dir, pack))
			}
			v := openVault(t, dir, Options{})
			d, err := v.Begin(ctx, repoA, "")
			must(t, err)
			w, err := d.Part(ctx, gitPart, point.KindGit)
			must(t, err)
			if w.Prior() != nil {
				t.Error("a copy is offered whose data is lost")
			}
			for n, size := range map[byte]int{1: 30 << 10, 2: 20 << 10} {
				e := point.Entry{Name: "objects/pack/pack-" + string('0'+n) + ".pack"}
				_, err = w.Put(ctx, e, bytes.NewReader(packBytes(n, size)), point.Packed)
				must(t, err)
			}
			_, err = w.Put(ctx, point.Entry{Name: "packed-refs"}, strings.NewReader(strings.Repeat("ref ", 100)), point.Text)
			must(t, err)
			must(t, w.Store(ctx, point.Part{}))
			r, err := d.Commit(ctx)
			must(t, err)
			if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "packs are lost") {
				t.Errorf("warnings %q", r.Warnings)
			}
			// All that was lost is there again, so that the older points are whole, too.
			report, err := v.Verify(ctx, true, r.Point.ID)
			must(t, err)
			if len(report.Faults) != 0 {
				t.Errorf("the new point: %+v", report.Faults)
			}
			report, err = v.Verify(ctx, false)
			must(t, err)
			if len(report.Faults) != 0 {
				t.Errorf("all points: %+v", report.Faults)
			}
		})
	}
}

// TestNewDataInALostPack puts bytes that the index has, in a pack that is lost, where no earlier copy of the part tells of it.
func TestNewDataInALostPack(t *testing.T) {
	dir, _ := sample(t)
	remove(t, dir, blobFiles(t, dir, "p")...)
	v := openVault(t, dir, Options{})
	d, err := v.Begin(t.Context(), point.Subject{Kind: point.SubjectRepository, Name: "another"}, "")
	must(t, err)
	w, err := d.Part(t.Context(), gitPart, point.KindGit)
	must(t, err)
	_, err = w.Put(t.Context(), point.Entry{Name: "pack"}, bytes.NewReader(packBytes(1, 30<<10)), point.Packed)
	must(t, err)
	must(t, w.Store(t.Context(), point.Part{}))
	_, err = d.Commit(t.Context())
	wantFault(t, err, fault.ErrCorrupt)
	if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "location repair") {
		t.Errorf("hints %q do not say how to repair", hints)
	}
}

// lister counts how often packs of data are listed.
type lister struct {
	blob.Storage
	packs atomic.Int64
}

// ListBlobs lists.
func (l *lister) ListBlobs(ctx context.Context, prefix blob.ID, each func(blob.Metadata) error) error {
	if prefix == "p" {
		l.packs.Add(1)
	}
	return l.Storage.ListBlobs(ctx, prefix, each)
}

// TestPacksAreListedOnce counts what it costs to know that all packs are there.
func TestPacksAreListedOnce(t *testing.T) {
	dir, _ := sample(t)
	st := &lister{Storage: directory(t, dir)}
	v, err := openIn(t.Context(), st, dir, testPassword, Options{})
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	r := backUp(t, v, repoA, 3, 1000)
	if n := st.packs.Load(); n != 1 || len(r.Warnings) != 0 {
		t.Errorf("packs are listed %d times for a draft; warnings %q", n, r.Warnings)
	}
}

// TestBackupWarnsOfLostPoints takes a point past us out of the list.
func TestBackupWarnsOfLostPoints(t *testing.T) {
	ctx := t.Context()
	dir, _ := sample(t)
	v := openVault(t, dir, Options{})
	l, err := v.manifests(ctx)
	must(t, err)
	_, w, err := v.rep.NewDirectWriter(ctx, sessionFor("test"))
	must(t, err)
	must(t, w.DeleteManifest(ctx, l.points[2].manifest))
	must(t, w.Flush(ctx))
	must(t, w.Close(ctx))
	r := backUp(t, v, repoA, 3, 1000)
	if len(r.Warnings) != 1 || r.Warnings[0] != "1 points are missing from the list: run `backstay location repair`" {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// TestNoCopyOfTheFormatBlobs is a fault also where no data is read.
func TestNoCopyOfTheFormatBlobs(t *testing.T) {
	dir, _ := sample(t)
	remove(t, dir, blobFiles(t, dir, "bf")...)
	v := openVault(t, dir, Options{ReadOnly: true})
	report, err := v.Verify(t.Context(), false)
	must(t, err)
	status, err := v.Status(t.Context())
	must(t, err)
	if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].What, "copy of the format blobs") || status.FormatCopies != 0 {
		t.Errorf("faults %+v, status %+v", report.Faults, status)
	}
}

// TestNothingButPacks takes the indexes and the catalogue away: that is not an empty vault. A first run that was killed is one.
func TestNothingButPacks(t *testing.T) {
	ctx := t.Context()
	dir, _ := sample(t)
	remove(t, dir, blobFiles(t, dir, "x", "n", "bp", "bm", "bh", "bt")...)
	v := openVault(t, dir, Options{ReadOnly: true})
	_, err := v.Points(ctx, point.Filter{})
	wantFault(t, err, fault.ErrCorrupt)
	if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "location repair") {
		t.Errorf("hints %q do not say how to repair", hints)
	}
	_, err = v.Status(ctx)
	wantFault(t, err, fault.ErrCorrupt)
	report, err := v.Verify(ctx, false)
	must(t, err)
	if len(report.Faults) == 0 {
		t.Error("verify finds nothing")
	}

	dir = t.TempDir()
	v = newVault(t, dir, Options{})
	d, err := v.Begin(ctx, repoA, "")
	must(t, err)
	w, err := d.Part(ctx, gitPart, point.KindGit)
	must(t, err)
	_, err = w.Put(ctx, point.Entry{Name: "pack"}, bytes.NewReader(packBytes(1, 60<<20)), point.Packed)
	must(t, err)
	if packs := blobFiles(t, dir, "p"); len(packs) == 0 {
		t.Fatal("no pack is written yet")
	}
	killed := clone(t, dir)
	must(t, d.Abandon(ctx))
	points, err := openVault(t, killed, Options{ReadOnly: true}).Points(ctx, point.Filter{})
	if err != nil || len(points) != 0 {
		t.Errorf("after a first run that was killed: %d points, %v", len(points), err)
	}
}

// TestLostLayout takes the file away in which the layout of directories is noted.
func TestLostLayout(t *testing.T) {
	ctx := t.Context()
	loc := mustParse(t, "file://"+t.TempDir())
	must(t, Create(ctx, loc, testPassword, Options{}))
	v := openLocation(t, loc, Options{})
	id := backUp(t, v, repoA, 1, 1000).Point.ID
	must(t, v.Close(ctx))
	must(t, os.Remove(filepath.Join(loc.path, ".shards")))
	v = openLocation(t, loc, Options{ReadOnly: true})
	points, err := v.Points(ctx, point.Filter{})
	must(t, err)
	if len(points) != 1 || points[0].ID != id {
		t.Errorf("points %+v", points)
	}
}

// TestLostLeaf deletes what the catalogue has of each of two points. Of the last one a run that was killed would leave as much.
func TestLostLeaf(t *testing.T) {
	ctx := t.Context()
	clock := newHandClock()
	dir := t.TempDir()
	v := newVault(t, dir, Options{Clock: clock.now})
	first := backUp(t, v, repoA, 1, 1000).Point.ID
	clock.forward(2 * time.Hour)
	second := backUp(t, v, repoA, 2, 1000).Point.ID
	for id, faults := range map[string]int{first: 1, second: 0} {
		copied := clone(t, dir)
		remove(t, copied, blobFiles(t, copied, "bp"+id)...)
		v := openVault(t, copied, Options{Clock: clock.now})
		report, err := v.Verify(ctx, true)
		must(t, err)
		if len(report.Faults) != faults || faults > 0 && report.Faults[0].Blob != "bp"+first {
			t.Errorf("want %d faults, got %+v", faults, report.Faults)
		}
		backUp(t, v, repoA, 3, 1000)
		report, err = v.Verify(ctx, true)
		must(t, err)
		if len(report.Faults) != 0 {
			t.Errorf("after the next backup: %+v", report.Faults)
		}
	}
}
