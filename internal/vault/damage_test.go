package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const gitPart = "git/example.com/acme/api.git"

// packBytes returns bytes that do not compress.
func packBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// backUp makes a point: pack n holds packBytes n, and what the point before had is kept.
func backUp(t testing.TB, v *Vault, subject point.Subject, n byte, size int) *point.Receipt {
	t.Helper()
	ctx := t.Context()
	d, err := v.Begin(ctx, subject, "daily")
	must(t, err)
	w, err := d.Part(ctx, gitPart, point.KindGit)
	must(t, err)
	if w.Prior() != nil {
		must(t, w.Keep(ctx, "objects"))
	}
	if n > 0 {
		name := fmt.Sprintf("objects/pack/pack-%d.pack", n)
		_, err = w.Put(ctx, point.Entry{Name: name}, bytes.NewReader(packBytes(n, size)), point.Packed)
		must(t, err)
	}
	_, err = w.Put(ctx, point.Entry{Name: "packed-refs"}, strings.NewReader(strings.Repeat("ref ", 100)), point.Text)
	must(t, err)
	must(t, w.Store(ctx, point.Part{Revision: fmt.Sprintf("%040d", n)}))
	r, err := d.Commit(ctx)
	must(t, err)
	return r
}

// whole fails the test unless the points, and only these, are listed, and read as they were put.
func whole(t testing.TB, dir string, want map[string][]byte) {
	t.Helper()
	ctx := t.Context()
	v := openVault(t, dir, Options{ReadOnly: true})
	defer v.Close(ctx)
	points, err := v.Points(ctx, point.Filter{})
	must(t, err)
	if len(points) != len(want) {
		t.Fatalf("%d points are listed, want %d", len(points), len(want))
	}
	report, err := v.Verify(ctx, true)
	must(t, err)
	if len(report.Faults) > 0 {
		t.Fatalf("faults: %+v", report.Faults)
	}
	for _, p := range points {
		_, r, err := v.Open(ctx, p.ID)
		must(t, err)
		dest := filepath.Join(t.TempDir(), "out")
		must(t, r.Extract(ctx, ".", dest))
		packs, ok := want[p.ID]
		if !ok {
			t.Fatalf("point %s is listed", p.ID)
		}
		for _, n := range packs {
			got, err := os.ReadFile(filepath.Join(dest, gitPart, fmt.Sprintf("objects/pack/pack-%d.pack", n)))
			must(t, err)
			if !bytes.Equal(got, packBytes(n, len(got))) || len(got) == 0 {
				t.Fatalf("point %s: pack %d differs", p.ID, n)
			}
		}
	}
}

// sample makes a vault of three points: two with packs, the second of which grew, and one in which nothing changed.
func sample(t testing.TB) (dir string, points map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	v := newVault(t, dir, Options{Tool: "backstay test"})
	points = map[string][]byte{}
	points[backUp(t, v, repoA, 1, 30<<10).Point.ID] = []byte{1}
	points[backUp(t, v, repoA, 2, 20<<10).Point.ID] = []byte{1, 2}
	last := backUp(t, v, repoA, 0, 0).Point.ID
	points[last] = []byte{1, 2}
	must(t, v.Hold(t.Context(), last, "a hold"))
	must(t, v.Close(t.Context()))
	return dir, points
}

// blobFiles returns the files of a location, relative to it, that begin with one of the prefixes.
func blobFiles(t testing.TB, dir string, prefixes ...string) []string {
	t.Helper()
	var files []string
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if name := strings.ReplaceAll(rel, "/", ""); slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			files = append(files, rel)
		}
		return err
	}))
	return files
}

// clone copies a location.
func clone(t testing.TB, dir string) string {
	t.Helper()
	c := filepath.Join(t.TempDir(), "clone")
	must(t, os.CopyFS(c, os.DirFS(dir)))
	return c
}

func remove(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		must(t, os.Remove(filepath.Join(dir, f)))
	}
}

func repaired(t testing.TB, dir string) *Repaired {
	t.Helper()
	done, err := repairIn(t.Context(), directory(t, dir), dir, testPassword, Options{})
	must(t, err)
	t.Logf("%+v", *done)
	return done
}

func wantFault(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want one that is %v", err, want)
	}
}

func TestOpenFaults(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	st := directory(t, dir)
	_, err := openIn(ctx, st, dir, testPassword, Options{})
	wantFault(t, err, fault.ErrNotFound)
	if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "location create") {
		t.Errorf("hints %q do not say how to make a vault", hints)
	}
	wantFault(t, createIn(ctx, st, dir, "", Options{}), fault.ErrInvalid)
	must(t, createIn(ctx, st, dir, testPassword, Options{}))
	wantFault(t, createIn(ctx, st, dir, testPassword, Options{}), fault.ErrExists)
	_, err = openIn(ctx, st, dir, "wrong", Options{})
	wantFault(t, err, fault.ErrDenied)
}

func TestReadOnly(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	before := blobFiles(t, dir, "")
	v := openVault(t, dir, Options{ReadOnly: true})
	_, err := v.Begin(ctx, repoA, "")
	wantFault(t, err, fault.ErrRefused)
	for id := range points {
		wantFault(t, v.Delete(ctx, id), fault.ErrRefused)
		wantFault(t, v.Hold(ctx, id, "x"), fault.ErrRefused)
	}
	wantFault(t, v.ChangePassword(ctx, "new"), fault.ErrRefused)
	must(t, v.Close(ctx))
	whole(t, dir, points)
	if after := blobFiles(t, dir, ""); !slices.Equal(before, after) {
		t.Errorf("blobs changed: %q, then %q", before, after)
	}
}

func TestLostIndexes(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	remove(t, dir, blobFiles(t, dir, "x", "n")...)
	v := openVault(t, dir, Options{})
	left, err := v.Points(ctx, point.Filter{})
	wantFault(t, err, fault.ErrCorrupt)
	if !strings.Contains(err.Error(), "3 of 3 points are lost") || len(left) != 0 {
		t.Errorf("%d points and the alarm %q", len(left), err)
	}
	if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "location repair") {
		t.Errorf("hints %q do not say how to repair", hints)
	}
	report, err := v.Verify(ctx, false)
	must(t, err)
	if len(report.Faults) != 3 {
		t.Errorf("verify finds %+v", report.Faults)
	}
	status, err := v.Status(ctx)
	must(t, err)
	if len(status.Missing) != 3 {
		t.Errorf("status is %+v", status)
	}
	must(t, v.Close(ctx))
	done := repaired(t, dir)
	if len(done.Points) != 3 || len(done.Gone) != 0 || len(done.Report.Faults) != 0 {
		t.Errorf("repaired: %+v", done)
	}
	whole(t, dir, points)
}

// TestLostPack deletes every pack of metadata in turn, after which kopia itself lists nothing, or too little.
func TestLostPack(t *testing.T) {
	base, points := sample(t)
	for _, pack := range blobFiles(t, base, "q") {
		t.Run(filepath.Base(pack), func(t *testing.T) {
			ctx := t.Context()
			dir := clone(t, base)
			remove(t, dir, pack)
			v := openVault(t, dir, Options{})
			_, err := v.Points(ctx, point.Filter{})
			wantFault(t, err, fault.ErrCorrupt)
			must(t, v.Close(ctx))
			done := repaired(t, dir)
			gone := map[string]bool{}
			for _, f := range done.Gone {
				gone[f.Point] = true
			}
			left := map[string][]byte{}
			for id, packs := range points {
				if !gone[id] {
					left[id] = packs
				}
			}
			if len(left) == 0 && len(points) > 0 {
				t.Errorf("nothing is left: %+v", done)
			}
			whole(t, dir, left)
			v = openVault(t, dir, Options{})
			list, err := v.Points(ctx, point.Filter{})
			must(t, err)
			if len(list) == 0 || len(list[0].Holds) != 1 {
				t.Errorf("the hold is lost: %+v", list)
			}
			backUp(t, v, repoA, 3, 1000)
			must(t, v.Close(ctx))
		})
	}
}

func TestLostFormatBlobs(t *testing.T) {
	base, points := sample(t)
	for _, lost := range [][]string{{"kopia.repository.f"}, {"kopia.blobcfg.f"}, {"kopia.repository.f", "kopia.blobcfg.f"}} {
		t.Run(strings.Join(lost, " "), func(t *testing.T) {
			dir := clone(t, base)
			remove(t, dir, lost...)
			_, err := openIn(t.Context(), directory(t, dir), dir, testPassword, Options{})
			wantFault(t, err, fault.ErrCorrupt)
			if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "location repair") {
				t.Errorf("hints %q do not say how to repair", hints)
			}
			namesBlobs(t, err, lost)
			_, err = repairIn(t.Context(), directory(t, dir), dir, "wrong", Options{})
			if err == nil {
				t.Error("repaired with a wrong password")
			}
			if done := repaired(t, dir); !done.Format {
				t.Errorf("repaired: %+v", done)
			}
			whole(t, dir, points)
		})
	}
}

// namesBlobs fails the test unless the error names all blobs of the files.
func namesBlobs(t *testing.T, err error, files []string) {
	t.Helper()
	for _, f := range files {
		if name := strings.TrimSuffix(f, ".f"); !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

// TestDamagedFormatBlobs flips a byte in each.
func TestDamagedFormatBlobs(t *testing.T) {
	base, _ := sample(t)
	for _, name := range []string{"kopia.repository.f", "kopia.blobcfg.f"} {
		dir := clone(t, base)
		b := readFile(t, dir, name)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		_, err := openIn(t.Context(), directory(t, dir), dir, testPassword, Options{})
		wantFault(t, err, fault.ErrCorrupt)
		namesBlobs(t, err, []string{name})
	}
}

// TestLostData takes a pack of data away, or damages it. What the source still has is stored again after a repair, and heals the
// older points with it.
func TestLostData(t *testing.T) {
	base, points := sample(t)
	for name, spoil := range map[string]func(t *testing.T, file string){
		"lost":      func(t *testing.T, file string) { must(t, os.Remove(file)) },
		"cut short": func(t *testing.T, file string) { must(t, os.Truncate(file, 1000)) },
		"flipped": func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			must(t, err)
			b[len(b)/2] ^= 1
			must(t, os.WriteFile(file, b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := clone(t, base)
			spoil(t, filepath.Join(dir, blobFiles(t, dir, "p")[0]))
			v := openVault(t, dir, Options{})
			report, err := v.Verify(ctx, true)
			must(t, err)
			found := slices.ContainsFunc(report.Faults, func(f point.Fault) bool {
				return points[f.Point] != nil && strings.HasPrefix(f.Path, gitPart+"/") && f.Blob != ""
			})
			if !found {
				t.Errorf("no fault names point, path and blob: %+v", report.Faults)
			}
			must(t, v.Close(ctx))
			done, err := repairIn(ctx, directory(t, dir), dir, testPassword, Options{ReadData: true})
			must(t, err)
			if len(done.Report.Faults) == 0 {
				t.Errorf("repaired: %+v", done)
			}
			v = openVault(t, dir, Options{})
			d, err := v.Begin(ctx, repoA, "")
			must(t, err)
			w, err := d.Part(ctx, gitPart, point.KindGit)
			must(t, err)
			if prior := w.Prior(); prior != nil && prior.Part.Revision != fmt.Sprintf("%040d", 1) {
				t.Errorf("a damaged copy of %s is offered", prior.Part.Revision)
			}
			for n, size := range map[byte]int{1: 30 << 10, 2: 20 << 10} {
				name := fmt.Sprintf("objects/pack/pack-%d.pack", n)
				_, err = w.Put(ctx, point.Entry{Name: name}, bytes.NewReader(packBytes(n, size)), point.Packed)
				must(t, err)
			}
			_, err = w.Put(ctx, point.Entry{Name: "packed-refs"}, strings.NewReader(strings.Repeat("ref ", 100)), point.Text)
			must(t, err)
			must(t, w.Store(ctx, point.Part{}))
			_, err = d.Commit(ctx)
			must(t, err)
			report, err = v.Verify(ctx, true)
			must(t, err)
			if name != "lost" { // the blob is still as damaged as it was, but nobody needs it
				report.Faults = slices.DeleteFunc(report.Faults, func(f point.Fault) bool { return f.Point == "" })
			}
			if len(report.Faults) != 0 {
				t.Errorf("after the backup: %+v", report.Faults)
			}
			must(t, v.Close(ctx))
		})
	}
}

// TestDamagedIndex damages the indexes in turn, after which kopia lists nothing.
func TestDamagedIndex(t *testing.T) {
	base, points := sample(t)
	for _, index := range blobFiles(t, base, "x", "n")[:2] {
		dir := clone(t, base)
		b := readFile(t, dir, index)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(filepath.Join(dir, index), b, 0o600))
		v, err := openIn(t.Context(), directory(t, dir), dir, testPassword, Options{})
		if err == nil {
			_, err = v.Points(t.Context(), point.Filter{})
			_ = v.Close(t.Context())
		}
		wantFault(t, err, fault.ErrCorrupt)
		if done := repaired(t, dir); len(done.Indexes) != 1 {
			t.Errorf("repaired: %+v", done)
		}
		whole(t, dir, points)
	}
}

// TestFlippedBytes flips a byte at several places of every blob: all are found, and named.
func TestFlippedBytes(t *testing.T) {
	base, points := sample(t)
	v := openVault(t, base, Options{})
	must(t, v.putLeaf(t.Context(), tombstoneLeaf(randomID()), leaf{}))
	d, err := v.Begin(t.Context(), repoA, "")
	must(t, err)
	w, err := d.Part(t.Context(), gitPart, point.KindGit)
	must(t, err)
	must(t, w.Store(t.Context(), point.Part{}))
	must(t, d.Abandon(t.Context()))
	_, err = v.Maintain(t.Context(), MaintainOptions{Full: true})
	must(t, err)
	must(t, v.Close(t.Context()))

	names := blobFiles(t, base, "p", "q", "x", "n", "b", "k", "s", "_")
	t.Logf("%d blobs", len(names))
	dir := clone(t, base)
	open := openVault(t, dir, Options{ReadOnly: true})
	for _, name := range names {
		file := filepath.Join(dir, name)
		onOpening := strings.ContainsAny(name[:1], "xnk") // what is read once, when a vault is opened
		good, err := os.ReadFile(file)
		must(t, err)
		for _, at := range slices.Compact([]int{0, len(good) / 2, len(good) - 1}) {
			if at < 0 || at >= len(good) {
				continue
			}
			bad := slices.Clone(good)
			bad[at] ^= 0x20
			must(t, os.WriteFile(file, bad, 0o600))
			v := open
			if onOpening {
				if v, err = openIn(t.Context(), directory(t, dir), dir, testPassword, Options{ReadOnly: true}); err != nil {
					wantFault(t, err, fault.ErrCorrupt)
					continue
				}
			}
			if err := findFlip(t.Context(), v, strings.TrimSuffix(strings.ReplaceAll(name, "/", ""), ".f")); err != nil {
				t.Errorf("byte %d of the %d of %s: %v", at, len(good), name, err)
			}
			if onOpening {
				must(t, v.Close(t.Context()))
			}
		}
		must(t, os.WriteFile(file, good, 0o600))
	}
	whole(t, dir, points)
}

// findFlip returns an error unless the blob is found to be damaged.
func findFlip(ctx context.Context, v *Vault, name string) error {
	report, err := v.Verify(ctx, true)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, f := range report.Faults {
		if f.Blob == name {
			return nil
		}
	}
	return fmt.Errorf("not among the faults %+v", report.Faults)
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	return b
}

func sessionFor(purpose string) repo.WriteSessionOptions {
	return repo.WriteSessionOptions{Purpose: purpose}
}
