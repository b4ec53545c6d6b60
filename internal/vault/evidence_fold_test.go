package vault

import (
	"testing"

	"github.com/backstay/backstay/internal/evidence"
)

// TestEvidenceIsFolded makes more statements than are let be: few leaves have them then, and nothing is lost, also of another fold.
func TestEvidenceIsFolded(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	o, keys := signing()
	v := newVault(t, dir, o)
	backUp(t, v, repoA, 1, 100)
	other := openVault(t, dir, o) // which knows the heads of before
	backUp(t, other, repoA, 2, 100)
	said := func(n int) {
		for range n {
			_, err := v.attest(ctx, evidence.Deed{What: evidence.Deleted, Points: []evidence.Point{{ID: randomID(), Root: "k1"}}})
			must(t, err)
		}
	}
	said(foldedAt + 10)
	before := reportOf(t, v, keys)
	for range 2 {
		must(t, v.foldEvidence(ctx))
		if singles, all := len(before.Heads), len(blobFiles(t, dir, "be")); all != singles+1 {
			t.Errorf("%d leaves are left, %d of them heads", all, singles)
		}
	}
	after := reportOf(t, v, keys)
	wantFaults(t, after)
	if after.Statements != before.Statements || after.Points != before.Points {
		t.Errorf("%+v became %+v", before, after)
	}
	backUp(t, other, repoA, 3, 100)
	backUp(t, openVault(t, dir, o), repoA, 4, 100)
	if r := reportOf(t, v, keys); r.Statements != before.Statements+2 || len(r.Faults) > 0 {
		t.Errorf("afterwards: %+v", r)
	}
	must(t, v.Close(ctx))
	must(t, other.Close(ctx))
	done, err := repairIn(ctx, directory(t, dir), dir, testPassword, o)
	must(t, err)
	if done.Evidence != 0 {
		t.Errorf("a repair writes %d statements again", done.Evidence)
	}
	report, err := openVault(t, dir, o).Verify(ctx, true)
	must(t, err)
	if len(report.Faults) > 0 {
		t.Errorf("faults %+v", report.Faults)
	}
}
