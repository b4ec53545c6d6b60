package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

var repoB = point.Subject{Kind: point.SubjectRepository, Name: "example.com/acme/web"}

// signing makes options with a key of its own.
func signing() (Options, []evidence.PublicKey) {
	key := evidence.NewKey()
	return Options{Tool: "backstay test", Evidence: func(context.Context) (*evidence.Key, error) { return key, nil }}, []evidence.PublicKey{key.Public()}
}

// reportOf checks the evidence of a vault.
func reportOf(t testing.TB, v *Vault, keys []evidence.PublicKey) *evidence.Report {
	t.Helper()
	e, err := v.Evidence(t.Context())
	must(t, err)
	return e.Report(keys)
}

// wantFaults wants as many faults as texts, each with its text.
func wantFaults(t testing.TB, r *evidence.Report, texts ...string) {
	t.Helper()
	if len(r.Faults) != len(texts) {
		t.Fatalf("faults %v, want %q", r.Faults, texts)
	}
	for i, text := range texts {
		if !strings.Contains(r.Faults[i].String(), text) {
			t.Errorf("fault %q, want %q", r.Faults[i], text)
		}
	}
}

func TestEvidenceOfALife(t *testing.T) {
	ctx := t.Context()
	o, keys := signing()
	v := newVault(t, t.TempDir(), o)
	first := backUp(t, v, repoA, 1, 1000).Point
	second := backUp(t, v, repoA, 2, 1000)
	third := backUp(t, v, repoB, 3, 1000).Point
	must(t, v.Delete(ctx, first.ID, third.ID))
	r := reportOf(t, v, keys)
	wantFaults(t, r)
	if r.Statements != 4 || r.Points != 3 || r.Deleted != 2 || len(r.Heads) != 1 || len(r.Unsigned) != 0 || len(r.Notes) != 0 {
		t.Errorf("report %+v", r)
	}
	if len(second.Warnings) > 0 {
		t.Errorf("warnings %q", second.Warnings)
	}
	e, err := v.Evidence(ctx)
	must(t, err)
	s := e.Statements[1]
	if s.What != evidence.Committed || s.Points[0].ID != second.Point.ID || s.Made.Subject != repoA || s.Made.Ledger != second.Ledger || s.Made.Late {
		t.Errorf("the second statement is %+v of %+v", s, s.Made)
	}
	_, tree, err := v.Open(ctx, second.Point.ID)
	must(t, err)
	dest := filepath.Join(t.TempDir(), "record")
	must(t, tree.Extract(ctx, recordName, dest))
	record, err := os.ReadFile(dest)
	must(t, err)
	if got := fmt.Sprintf("%x", sha256.Sum256(record)); got != s.Points[0].Record {
		t.Errorf("the record has %s, the statement says %s", got, s.Points[0].Record)
	}
	_, strangers := signing()
	if r := reportOf(t, v, strangers); len(r.Faults) != 4 {
		t.Errorf("with a stranger's key: %v", r.Faults)
	}
}

// TestEvidenceCostsOneWrite: a point writes one blob more, and reads none.
func TestEvidenceCostsOneWrite(t *testing.T) {
	dir := t.TempDir()
	o, _ := signing()
	v := newVault(t, dir, o)
	for n := range byte(3) {
		backUp(t, v, repoA, n+1, 1000)
		if got := len(blobFiles(t, dir, "be")); got != int(n)+1 {
			t.Errorf("%d blobs of evidence after %d points", got, n+1)
		}
	}
	for _, f := range blobFiles(t, dir, "be") {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() > 4<<10 {
			t.Errorf("%s: %v, %d bytes", f, err, info.Size())
		}
	}
}

func TestEvidenceOfTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	o, keys := signing()
	newVault(t, dir, o)
	var all sync.WaitGroup
	for process := range byte(3) {
		v := openVault(t, dir, o)
		for n := range byte(2) {
			all.Add(1)
			go func() {
				defer all.Done()
				if _, err := flakyBackup(context.WithoutCancel(t.Context()), v, 10*process+n); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	all.Wait()
	v := openVault(t, dir, o)
	r := reportOf(t, v, keys)
	wantFaults(t, r)
	if r.Statements != 6 || r.Points != 6 {
		t.Errorf("report %+v", r)
	}
	backUp(t, v, repoB, 50, 100) // which follows up to four of the heads
	backUp(t, v, repoB, 51, 100)
	if r = reportOf(t, v, keys); len(r.Heads) != 1 {
		t.Errorf("%d heads are left", len(r.Heads))
	}
}

func TestEvidenceWithoutAKey(t *testing.T) {
	dir := t.TempDir()
	o, keys := signing()
	good := o.Evidence
	o.Evidence = func(context.Context) (*evidence.Key, error) { return nil, errors.New("the key is gone") }
	v := newVault(t, dir, o)
	receipt := backUp(t, v, repoA, 1, 1000)
	if len(receipt.Warnings) != 1 || !strings.Contains(receipt.Warnings[0], "the key is gone") {
		t.Errorf("warnings %q", receipt.Warnings)
	}
	o.Evidence = good
	backUp(t, openVault(t, dir, o), repoA, 2, 1000)
	r := reportOf(t, v, keys)
	wantFaults(t, r)
	if len(r.Unsigned) != 1 || r.Statements != 2 || len(r.Heads) != 1 {
		t.Errorf("report %+v", r)
	}
}

// TestEvidenceWhereARunIsCutShort stops a backup and a deletion after each of their writes: what is there is told of, once the next
// run has been, and nothing else.
func TestEvidenceWhereARunIsCutShort(t *testing.T) {
	for _, deed := range []struct {
		name string
		do   func(v *Vault, first string) error
	}{
		{"backup", func(v *Vault, _ string) error { _, err := flakyBackup(context.Background(), v, 2); return err }},
		{"delete", func(v *Vault, first string) error { return v.Delete(context.Background(), first) }},
	} {
		t.Run(deed.name, func(t *testing.T) {
			base := t.TempDir()
			o, keys := signing()
			v := newVault(t, base, o)
			first := backUp(t, v, repoB, 1, 1000).Point.ID
			backUp(t, v, repoB, 5, 1000)
			must(t, v.Close(t.Context()))
			late := 0
			for puts := 0; ; puts++ {
				dir := clone(t, base)
				st := newFlaky(keepOpen{directory(t, dir)}, 1)
				v, err := openIn(t.Context(), st, dir, testPassword, o)
				must(t, err)
				st.puts = puts
				err = deed.do(v, first)
				st.puts = 0
				_ = v.Close(context.Background())

				v = openVault(t, dir, o)
				wantFaults(t, reportOf(t, v, keys))
				backUp(t, v, repoB, 3, 1000)
				r := reportOf(t, v, keys)
				wantFaults(t, r)
				points, listErr := v.Points(t.Context(), point.Filter{})
				must(t, listErr)
				if r.Points-r.Deleted != len(points) && len(r.Notes) == 0 {
					t.Errorf("after %d writes: %d points made, %d deleted, %d listed", puts, r.Points, r.Deleted, len(points))
				}
				late += strings.Count(strings.Join(r.Notes, ""), "cut short")
				if err == nil {
					break
				}
			}
			if (late > 0) != (deed.name == "backup") {
				t.Errorf("%d were told late", late)
			}
		})
	}
}

func TestEvidenceThatIsLostComesBack(t *testing.T) {
	base := t.TempDir()
	o, keys := signing()
	v := newVault(t, base, o)
	for n := range byte(3) {
		backUp(t, v, repoA, n+1, 1000)
	}
	must(t, v.Close(t.Context()))
	leaves := blobFiles(t, base, "be")
	for _, damage := range []struct {
		name string
		do   func(path string) error
	}{
		{"lost", os.Remove},
		{"damaged", func(path string) error { return os.WriteFile(path, []byte("nothing that opens"), 0o600) }},
	} {
		for i, f := range leaves {
			t.Run(fmt.Sprint(damage.name, i), func(t *testing.T) {
				dir := clone(t, base)
				must(t, damage.do(filepath.Join(dir, f)))
				before := reportOf(t, openVault(t, dir, o), keys)
				done, err := repairIn(t.Context(), directory(t, dir), dir, testPassword, o)
				must(t, err)
				if done.Evidence != 1 {
					t.Errorf("%d statements came back", done.Evidence)
				}
				after := reportOf(t, openVault(t, dir, o), keys)
				newest := before.Statements == 2 // no other has a copy
				if newest && len(before.Faults) == 0 {
					t.Error("that the newest is lost is not seen")
				}
				if damage.name == "lost" || !newest {
					wantFaults(t, after)
				}
				if after.Points != 3 {
					t.Errorf("after the repair: %+v", after)
				}
			})
		}
	}
}

// TestEvidenceOfWhatStrangersDo: who knows the password, but has not the key, takes a point away, or slips one in.
func TestEvidenceOfWhatStrangersDo(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	o, keys := signing()
	v := newVault(t, dir, o)
	victim := backUp(t, v, repoA, 1, 1000).Point
	backUp(t, v, repoA, 2, 1000)

	stranger := openVault(t, dir, Options{})
	l, err := stranger.manifests(ctx)
	must(t, err)
	s, _ := l.find(victim.ID)
	must(t, stranger.session(ctx, "steal", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, stranger, []manifest.ID{s.manifest})
	}))
	stranger.strike(ctx, pointLeaf(victim.ID))
	wantFaults(t, reportOf(t, v, keys), "point "+victim.ID+" was made, and is neither listed nor said to be deleted")

	backUp(t, stranger, repoB, 3, 1000)
	if r := reportOf(t, v, keys); len(r.Unsigned) != 1 {
		t.Errorf("a stranger's point: %+v", r)
	}
	if err := stranger.Prove(ctx, point.Proof{Point: l.points[0].ID, Proven: true}); err != nil {
		t.Fatal(err)
	}
	if r := reportOf(t, v, keys); len(r.Unsigned) != 2 {
		t.Errorf("a stranger's proof: %+v", r)
	}
	for _, f := range blobFiles(t, dir, "be")[1:] { // all but one
		remove(t, dir, f)
	}
	if r := reportOf(t, v, keys); len(r.Faults) == 0 {
		t.Errorf("without its leaves the evidence is good: %+v", r)
	}
}

func TestEvidenceNames(t *testing.T) {
	n := evidenceName{hash: strings.Repeat("a", hashLength), made: strings.Repeat("b", idLength), previous: []string{strings.Repeat("c", shortHash)}}
	got, ok := parseEvidenceName(n.leaf())
	if !ok || got.hash != n.hash || got.made != n.made || len(got.previous) != 1 || got.previous[0] != n.previous[0] {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, id := range []string{"", "be", "be0", "bp" + n.hash, string(n.leaf()) + "0", string(n.leaf()[:90])} {
		if _, ok := parseEvidenceName(blob.ID(id)); ok {
			t.Errorf("%q is taken for a name", id)
		}
	}
}

func TestEvidenceIsRefusedWhereNothingMayBeWritten(t *testing.T) {
	dir := t.TempDir()
	o, keys := signing()
	id := backUp(t, newVault(t, dir, o), repoA, 1, 100).Point.ID
	o.ReadOnly = true
	v := openVault(t, dir, o)
	wantFault(t, v.Delete(t.Context(), id), fault.ErrRefused)
	if r := reportOf(t, v, keys); r.Statements != 1 {
		t.Errorf("report %+v", r)
	}
}
