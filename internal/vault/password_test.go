package vault

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// TestOthersGoOnWhenThePasswordChanges: kopia reads the format blobs again after a quarter of an hour, with the password of before.
func TestOthersGoOnWhenThePasswordChanges(t *testing.T) {
	ctx := t.Context()
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	o := Options{Clock: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Millisecond)
		return now
	}}
	later := func() {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(20 * time.Minute)
	}
	dir := t.TempDir()
	v := newVault(t, dir, o)
	first := backUp(t, v, repoA, 1, 1000).Point.ID
	d, err := v.Begin(ctx, repoA, "daily")
	must(t, err)
	must(t, openVault(t, dir, o).ChangePassword(ctx, "second"))
	later()
	w, err := d.Part(ctx, gitPart, point.KindGit)
	must(t, err)
	must(t, w.Keep(ctx, "."))
	must(t, w.Store(ctx, point.Part{}))
	if _, err := d.Commit(ctx); err != nil {
		t.Fatal("what was under way: ", err)
	}
	later()
	backUp(t, v, repoA, 2, 1000)
	must(t, v.Delete(ctx, first))
	later()
	wantFault(t, v.ChangePassword(ctx, "third"), fault.ErrDenied) // it is not this one's to change any more
	must(t, v.Close(ctx))

	_, err = openIn(ctx, directory(t, dir), dir, testPassword, o)
	wantFault(t, err, fault.ErrDenied)
	v, err = openIn(ctx, directory(t, dir), dir, "second", o)
	must(t, err)
	report, err := v.Verify(ctx, true)
	must(t, err)
	if report.Points != 2 || len(report.Faults) > 0 {
		t.Errorf("report %+v", report)
	}
	must(t, v.ChangePassword(ctx, "third"))
	must(t, v.ChangePassword(ctx, "fourth")) // by who changed it before
	later()
	if list, err := v.Points(ctx, point.Filter{}); err != nil || len(list) != 2 {
		t.Errorf("%d points, %v", len(list), err)
	}
	must(t, v.Close(ctx))
}

// tomorrow is when leases of today have run out.
func tomorrow() Options {
	return Options{Clock: func() time.Time { return time.Now().Add(24 * time.Hour) }}
}

// TestRotationGoesOnWhereItWasCutShort stops a rotation after each of its writes, and asks for it once more.
func TestRotationGoesOnWhereItWasCutShort(t *testing.T) {
	base, points := sample(t)
	for puts := 0; ; puts++ {
		dir := clone(t, base)
		st := newFlaky(keepOpen{directory(t, dir)}, 1)
		st.puts = puts
		_, err := rotateIn(context.Background(), st, dir, testPassword, "second", Options{})
		again, err2 := rotateIn(t.Context(), directory(t, dir), dir, testPassword, "second", tomorrow())
		if err2 != nil || err == nil && again {
			t.Fatalf("after %d writes: changed %v, %v", puts, again, err2)
		}
		v, err3 := openIn(t.Context(), directory(t, dir), dir, "second", Options{})
		must(t, err3)
		list, err3 := v.Points(t.Context(), point.Filter{})
		must(t, err3)
		if len(list) != len(points) {
			t.Errorf("after %d writes: %d points", puts, len(list))
		}
		must(t, v.Close(t.Context()))
		if err == nil {
			break
		}
	}
}

func TestRotationWithWrongPasswords(t *testing.T) {
	dir, _ := sample(t)
	_, err := rotateIn(t.Context(), directory(t, dir), dir, "wrong", "second", Options{})
	wantFault(t, err, fault.ErrDenied)
	changed, err := rotateIn(t.Context(), directory(t, dir), dir, "wrong", testPassword, Options{}) // it has it already
	if changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	_, err = rotateIn(t.Context(), directory(t, t.TempDir()), "nothing", testPassword, "second", Options{})
	wantFault(t, err, fault.ErrNotFound)
}

// TestOnePasswordOpensNoOthersVault: what policies keep in vaults of their own is closed to each other.
func TestOnePasswordOpensNoOthersVault(t *testing.T) {
	dirs := map[fault.Secret]string{"one": t.TempDir(), "two": t.TempDir()}
	for password, dir := range dirs {
		must(t, createIn(t.Context(), directory(t, dir), dir, password, Options{}))
	}
	for password, dir := range dirs {
		for other := range dirs {
			v, err := openIn(t.Context(), directory(t, dir), dir, other, Options{})
			if other == password {
				must(t, err)
				must(t, v.Close(t.Context()))
				continue
			}
			wantFault(t, err, fault.ErrDenied)
		}
	}
	one, err := openIn(t.Context(), directory(t, dirs["one"]), "one", "one", Options{})
	must(t, err)
	defer one.Close(t.Context())
	two, err := openIn(t.Context(), directory(t, dirs["two"]), "two", "two", Options{})
	must(t, err)
	defer two.Close(t.Context())
	if fmt.Sprintf("%x", one.rep.FormatManager().GetMasterKey()) == fmt.Sprintf("%x", two.rep.FormatManager().GetMasterKey()) {
		t.Error("both have one key")
	}
}
