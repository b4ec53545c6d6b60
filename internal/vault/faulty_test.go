package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

var errFlaky = errors.New("the store had a bad moment")

// flaky is a storage that fails, times out, truncates and delays one in so many operations.
type flaky struct {
	blob.Storage
	mu    sync.Mutex
	rand  *rand.Rand
	oneIn int // 0 for never
	bad   int // operations spoilt so far
	puts  int // puts still allowed; negative for any number
}

func newFlaky(st blob.Storage, seed uint64) *flaky {
	return &flaky{Storage: st, rand: rand.New(rand.NewPCG(seed, 0)), puts: -1}
}

const (
	fine = iota
	fails
	failsAfter
	truncates
	delays
	kinds
)

func (f *flaky) mood(ctx context.Context) int {
	f.mu.Lock()
	mood := fine
	if f.oneIn > 0 && f.rand.IntN(f.oneIn) == 0 {
		mood = fails + f.rand.IntN(kinds-1)
		f.bad++
	}
	f.mu.Unlock()
	if mood == delays {
		select {
		case <-ctx.Done():
			return fails
		case <-time.After(3 * time.Millisecond):
		}
		return fine
	}
	return mood
}

func (f *flaky) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	f.mu.Lock()
	if f.puts == 0 {
		f.mu.Unlock()
		return errFlaky
	}
	f.puts--
	f.mu.Unlock()
	switch f.mood(ctx) {
	case fails, truncates:
		return errFlaky
	case failsAfter: // it arrived, but nobody is told
		return errors.Join(f.Storage.PutBlob(ctx, id, data, o), errFlaky)
	}
	return f.Storage.PutBlob(ctx, id, data, o)
}

func (f *flaky) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	switch f.mood(ctx) {
	case fails, failsAfter:
		return errFlaky
	case truncates:
		if length > 1 {
			return f.Storage.GetBlob(ctx, id, offset, length/2, out)
		}
	}
	return f.Storage.GetBlob(ctx, id, offset, length, out)
}

func (f *flaky) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	if f.mood(ctx) != fine {
		return blob.Metadata{}, errFlaky
	}
	return f.Storage.GetMetadata(ctx, id)
}

func (f *flaky) DeleteBlob(ctx context.Context, id blob.ID) error {
	if f.mood(ctx) != fine {
		return errFlaky
	}
	return f.Storage.DeleteBlob(ctx, id)
}

func (f *flaky) ListBlobs(ctx context.Context, prefix blob.ID, each func(blob.Metadata) error) error {
	switch f.mood(ctx) {
	case fails, failsAfter:
		return errFlaky
	case truncates:
		n := 0
		if err := f.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			if n++; n > 2 {
				return errFlaky
			}
			return each(m)
		}); err != nil {
			return err
		}
		return errFlaky
	}
	return f.Storage.ListBlobs(ctx, prefix, each)
}

// TestFlakyStore makes many points on a store that spoils one in twenty operations: each is made or not, and none is broken.
func TestFlakyStore(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	must(t, createIn(ctx, directory(t, dir), dir, testPassword, Options{}))
	st := newFlaky(keepOpen{directory(t, dir)}, 7)
	v, err := openIn(ctx, st, dir, testPassword, Options{})
	must(t, err)
	st.oneIn = 20
	made := map[string]byte{}
	failures := 0
	var kept []string
	for n := range byte(60) {
		id, err := flakyBackup(ctx, v, n)
		if err != nil {
			failures++
			if fault.Of(err).Exit == 1 {
				t.Errorf("a failure of no class: %v", err)
			}
			continue
		}
		made[id] = n
		kept = append(kept, id)
		if n%7 == 6 {
			_ = v.Delete(ctx, kept[0]) // a deletion that fails may have deleted
			delete(made, kept[0])
			kept = kept[1:]
		}
	}
	_ = v.Close(ctx)
	t.Logf("%d points made, %d failed, %d operations spoilt", len(made), failures, st.bad)
	if len(made) < 10 || failures == 0 {
		t.Errorf("%d points and %d failures prove nothing", len(made), failures)
	}

	v = openVault(t, dir, Options{})
	_, err = flakyBackup(ctx, v, 99)
	must(t, err)
	points, err := v.Points(ctx, point.Filter{})
	must(t, err)
	listed := map[string]bool{}
	for _, p := range points {
		listed[p.ID] = true
	}
	for id := range made {
		if !listed[id] {
			t.Errorf("point %s was made and is not listed", id)
		}
	}
	report, err := v.Verify(ctx, true)
	must(t, err)
	if len(report.Faults) > 0 {
		t.Errorf("faults: %+v", report.Faults)
	}
}

func flakyBackup(ctx context.Context, v *Vault, n byte) (id string, err error) {
	d, err := v.Begin(ctx, repoA, "")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = d.Abandon(ctx)
		}
	}()
	w, err := d.Part(ctx, gitPart, point.KindGit)
	if err != nil {
		return "", err
	}
	if w.Prior() != nil && n%3 == 0 {
		if err := w.Keep(ctx, "."); err != nil {
			return "", err
		}
	}
	for i := range byte(4) {
		e := point.Entry{Name: fmt.Sprintf("d%d/file-%d", i, n)}
		if _, err := w.Put(ctx, e, bytes.NewReader(packBytes(n+i, 10<<10)), point.Packed); err != nil {
			return "", err
		}
	}
	if n%5 == 0 {
		if err := d.Checkpoint(ctx); err != nil {
			return "", err
		}
	}
	if err := w.Store(ctx, point.Part{}); err != nil {
		return "", err
	}
	if n%5 == 1 {
		if err := d.Checkpoint(ctx); err != nil {
			return "", err
		}
	}
	r, err := d.Commit(ctx)
	if err != nil {
		return "", err
	}
	return r.Point.ID, nil
}

func TestChangePassword(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	v := openVault(t, dir, Options{})
	wantFault(t, v.ChangePassword(ctx, ""), fault.ErrInvalid)
	must(t, v.ChangePassword(ctx, "second"))
	points[backUp(t, v, repoA, 4, 1000).Point.ID] = []byte{1, 2, 4}
	must(t, v.Close(ctx))

	_, err := openIn(ctx, directory(t, dir), dir, testPassword, Options{})
	wantFault(t, err, fault.ErrDenied)
	// Nor does it open when the blobs in place are lost: no copy is left of before.
	lost := clone(t, dir)
	remove(t, lost, "kopia.repository.f", "kopia.blobcfg.f")
	if _, err := repairIn(ctx, directory(t, lost), lost, testPassword, Options{}); err == nil {
		t.Error("the old password repaired the vault")
	}
	if _, err := repairIn(ctx, directory(t, lost), lost, "second", Options{}); err != nil {
		t.Error(err)
	}
	v, err = openIn(ctx, directory(t, dir), dir, "second", Options{})
	must(t, err)
	report, err := v.Verify(ctx, true)
	must(t, err)
	if len(report.Faults) > 0 || report.Points != len(points) {
		t.Errorf("report %+v", report)
	}
	must(t, v.ChangePassword(ctx, testPassword))
	must(t, v.Close(ctx))
	whole(t, dir, points)
}

// TestPasswordChangeCutShort stops a change after each of its writes: one of the two passwords opens the vault, if need be after
// a repair.
func TestPasswordChangeCutShort(t *testing.T) {
	base, points := sample(t)
	const all = 5 // two of them of the lease
	for puts := range all + 1 {
		t.Run(fmt.Sprint(puts), func(t *testing.T) {
			ctx := t.Context()
			dir := clone(t, base)
			st := newFlaky(keepOpen{directory(t, dir)}, 1)
			v, err := openIn(ctx, st, dir, testPassword, Options{})
			must(t, err)
			st.puts = puts
			err = v.ChangePassword(ctx, "second")
			if (err == nil) != (puts == all) {
				t.Fatalf("with %d puts: %v", puts, err)
			}
			st.puts = 0
			_ = v.Close(ctx)
			opened := fault.Secret("")
			for _, password := range []fault.Secret{testPassword, "second"} {
				if v, err = openIn(ctx, directory(t, dir), dir, password, tomorrow()); err != nil {
					if _, err := repairIn(ctx, directory(t, dir), dir, password, tomorrow()); err != nil {
						continue
					}
					v, err = openIn(ctx, directory(t, dir), dir, password, tomorrow())
				}
				must(t, err)
				opened = password
				break
			}
			if opened == "" {
				t.Fatal("no password opens the vault")
			}
			list, err := v.Points(ctx, point.Filter{})
			must(t, err)
			if len(list) != len(points) {
				t.Errorf("%d points", len(list))
			}
			report, err := v.Verify(ctx, true)
			must(t, err)
			t.Logf("opened by %q; faults %+v", opened.Reveal(), report.Faults)
			must(t, v.Close(ctx))
		})
	}
}

// TestNothingSecretOnDisk looks at what an open vault leaves in temporary files.
func TestNothingSecretOnDisk(t *testing.T) {
	ctx := t.Context()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	dir := t.TempDir()
	v := newVault(t, dir, Options{})
	backUp(t, v, repoA, 1, 1000)
	files := blobFiles(t, tmp, "")
	if len(files) == 0 {
		t.Error("there is no configuration to look at")
	}
	for _, f := range files {
		text := string(readFile(t, tmp, f))
		for _, secret := range []string{testPassword.Reveal(), dir, "filesystem", "secret", "key"} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("%s holds %q: %s", f, secret, text)
			}
		}
	}
	if info := v.store.ConnectionInfo(); fmt.Sprintf("%+v", info) != "{Type:backstay Config:0x0}" && info.Type != storageType {
		t.Errorf("the storage tells %+v of itself", info)
	}
	must(t, v.Close(ctx))
	if files := blobFiles(t, tmp, ""); len(files) > 0 {
		t.Errorf("closing leaves %q", files)
	}
}

// TestCatalogueDiverges takes away what either side knows of a point.
func TestCatalogueDiverges(t *testing.T) {
	ctx := t.Context()
	base, points := sample(t)

	// A point that is not in the catalogue is entered by the next backup.
	dir := clone(t, base)
	remove(t, dir, blobFiles(t, dir, "bp")...)
	v := openVault(t, dir, Options{})
	status, err := v.Status(ctx)
	must(t, err)
	if status.Unentered != 3 || len(status.Missing) != 0 {
		t.Errorf("status %+v", status)
	}
	backUp(t, v, repoA, 5, 100)
	if status, err = v.Status(ctx); err != nil || status.Unentered != 0 {
		t.Errorf("status %+v, %v", status, err)
	}

	// A point whose manifest was deleted past us is missed.
	dir = clone(t, base)
	v = openVault(t, dir, Options{})
	l, err := v.manifests(ctx)
	must(t, err)
	_, w, err := v.rep.NewDirectWriter(ctx, sessionFor("test"))
	must(t, err)
	must(t, w.DeleteManifest(ctx, l.points[0].manifest))
	must(t, w.Flush(ctx))
	must(t, w.Close(ctx))
	left, err := v.Points(ctx, point.Filter{})
	wantFault(t, err, fault.ErrCorrupt)
	if len(left) != 2 {
		t.Errorf("%d points are listed", len(left))
	}
	if _, _, err := v.Open(ctx, l.points[0].ID); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("opening the lost point: %v", err)
	}
	must(t, v.Close(ctx))
	repaired(t, dir)
	whole(t, dir, points)
}

// TestExpiryStopsHalfway stops the deletion of a point after each of its writes. The point is there or not, and no alarm is raised.
func TestExpiryStopsHalfway(t *testing.T) {
	base, points := sample(t)
	for puts := range 6 {
		t.Run(fmt.Sprint(puts), func(t *testing.T) {
			ctx := t.Context()
			dir := clone(t, base)
			st := newFlaky(keepOpen{directory(t, dir)}, 1)
			v, err := openIn(ctx, st, dir, testPassword, Options{})
			must(t, err)
			list, err := v.Points(ctx, point.Filter{})
			must(t, err)
			st.puts = puts
			gone := list[2].ID
			err = v.Delete(ctx, gone)
			st.puts = 0
			_ = v.Close(ctx)
			left := map[string][]byte{}
			for id, packs := range points {
				left[id] = packs
			}
			v = openVault(t, dir, Options{ReadOnly: true})
			now, listErr := v.Points(ctx, point.Filter{})
			must(t, listErr)
			if len(now) == 2 {
				delete(left, gone)
			} else if err == nil {
				t.Error("the point was deleted and is listed")
			}
			must(t, v.Close(ctx))
			whole(t, dir, left)
		})
	}
}
