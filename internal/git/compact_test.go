package git

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// compact runs Compact on the newest copy, as maintenance does: in a draft that is checkpointed and never committed.
func (b *bench) compact(o CompactOptions) int {
	b.t.Helper()
	d, err := b.store.Begin(b.t.Context(), b.last.Subject(), "")
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Abandon(b.t.Context())
	w, err := d.Part(b.t.Context(), b.last.PartName(), point.KindGit)
	if err != nil {
		b.t.Fatal(err)
	}
	o.Scratch = b.o.Scratch
	n, err := Compact(b.t.Context(), w, w.Prior(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := d.Checkpoint(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) packs(id string) int {
	b.t.Helper()
	entries, err := b.part(id).List(b.t.Context(), packDir)
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if packName.MatchString(e.Name) {
			n++
		}
	}
	return n
}

// noise is text that does not compress.
func noise(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestCompact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := newRepo(t)
	s.commit("refs/heads/main", "big", noise(r, 200_000))
	b := newBench(t, s.dir)
	b.backup()
	for i := range 8 {
		s.commit("refs/heads/main", fmt.Sprint("file", i), noise(r, 500))
		b.backup()
	}
	forced := s.git("rev-parse", "refs/heads/main")
	s.git("update-ref", "refs/heads/main", s.commitOn("", "new", "start"))
	before := b.backup()
	if n := b.compact(CompactOptions{Above: 20}); n != 0 {
		t.Errorf("%d of 10 packs merged though 20 are allowed", n)
	}
	if n := b.compact(CompactOptions{Above: 5}); n != 9 {
		t.Errorf("%d packs merged, want the nine small ones", n)
	}
	s.commit("refs/heads/main", "more", "1")
	after := b.backup()
	if n := b.packs(after.Point.ID); n != 3 {
		t.Errorf("%d packs, want the big one, the merged one and the new one", n)
	}
	if b.last.Received() > 2000 {
		t.Errorf("received %d bytes for one small commit", b.last.Received())
	}
	requireSame(t, s.dir, b.restore(after.Point.ID))
	b.restore(before.Point.ID) // its own check passes

	s.git("update-ref", "refs/heads/again", forced) // nothing of the old history was dropped
	b.backup()
	if b.last.Requests() > requestsToList {
		t.Error("the history before the forced push had to be fetched again")
	}
}

func TestFullCompactDropsWhatNoPointKeeps(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	secret := s.commit("refs/heads/main", "a", "the secret")
	first := b.backup()
	s.git("update-ref", "refs/heads/main", s.commitOn("", "a", "clean"))
	kept := s.commit("refs/heads/side", "b", "kept")
	second := b.backup()
	s.git("update-ref", "-d", "refs/heads/side")
	b.backup()
	if n := b.compact(CompactOptions{Full: true, Kept: []point.Reader{b.part(second.Point.ID)}}); n != 2 { // the first point has expired
		t.Errorf("%d packs merged, want 2", n)
	}
	last := b.backup()
	requireSame(t, s.dir, b.restore(last.Point.ID))
	had, err := openPacks(t.Context(), b.part(last.Point.ID), "sha1")
	if err != nil {
		t.Fatal(err)
	}
	defer had.close()
	for oid, want := range map[string]bool{secret: false, kept: true} {
		if has, err := had.has(oid); err != nil || has != want {
			t.Errorf("%s is in the copy: %v, %v", oid, has, err)
		}
	}
	b.restore(first.Point.ID) // older points keep their own packs

	s.git("update-ref", "refs/heads/back", secret)
	requireSame(t, s.dir, b.restore(b.backup().Point.ID))
}

func TestCompactStopsAtADamagedPack(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	s.commit("refs/heads/main", "a", "1")
	b.backup()
	s.commit("refs/heads/main", "a", "2")
	last := b.backup()
	entries, err := b.part(last.Point.ID).List(t.Context(), packDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if packName.MatchString(e.Name) {
			if err := b.store.Corrupt(last.Point.ID, b.last.PartName()+"/"+packDir+"/"+e.Name); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	d, err := b.store.Begin(t.Context(), b.last.Subject(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abandon(t.Context())
	w, err := d.Part(t.Context(), b.last.PartName(), point.KindGit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compact(t.Context(), w, w.Prior(), CompactOptions{Full: true, Scratch: t.TempDir()}); fault.Of(err).Reason != "Corrupt" {
		t.Errorf("error %v, want one that says the copy is corrupt", err)
	}
}
