package vault

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

func proofFor(id, detail string, proven bool, minute int) point.Proof {
	at := time.Date(2026, 11, 20, 3, minute, 0, 0, time.UTC)
	return point.Proof{
		Point: id, Started: at, Finished: at, Proven: proven, Checks: []point.Check{{What: "fsck", OK: proven, Detail: detail}},
	}
}

// proofsIn lists what the newest drill of each point found.
func proofsIn(t *testing.T, v *Vault) map[string]string {
	t.Helper()
	list, err := v.Points(t.Context(), point.Filter{})
	must(t, err)
	found := map[string]string{}
	for _, p := range list {
		if p.Proof != nil {
			found[p.ID] = p.Proof.Checks[0].Detail
		}
	}
	return found
}

func TestProofs(t *testing.T) {
	ctx := t.Context()
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
	}{
		{"lost indexes", func(t *testing.T, dir string) { remove(t, dir, blobFiles(t, dir, "x", "n")...) }},
		{"lost metadata packs", func(t *testing.T, dir string) { remove(t, dir, blobFiles(t, dir, "q")...) }},
		{"lost leaves of proofs", func(t *testing.T, dir string) { remove(t, dir, blobFiles(t, dir, "bd")...) }},
		{"nothing", func(*testing.T, string) {}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir, points := sample(t)
			v := openVault(t, dir, Options{})
			for id := range points {
				must(t, v.Prove(ctx, proofFor(id, "first", true, 0)))
				must(t, v.Prove(ctx, proofFor(id, "second", false, 1)))
			}
			if left := blobFiles(t, dir, "bd"); len(left) != len(points) {
				t.Errorf("leaves of proofs: %q", left)
			}
			must(t, v.Close(ctx))
			test.damage(t, dir)
			repaired(t, dir)
			found := proofsIn(t, openVault(t, dir, Options{}))
			for id := range points {
				if found[id] != "second" {
					t.Errorf("after the repair, point %s has the proof %q", id, found[id])
				}
			}
		})
	}
}

// TestProofsOfExpiredPoints ends a drill while its point expires: nothing of it stays after maintenance.
func TestProofsOfExpiredPoints(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	v := openVault(t, dir, Options{})
	var id string
	for id = range points {
		must(t, v.Hold(ctx, id, ""))
		must(t, v.Prove(ctx, proofFor(id, "good", true, 0)))
	}
	must(t, v.Delete(ctx, id))
	if left := len(blobFiles(t, dir, "bd")); left != len(points)-1 {
		t.Errorf("%d leaves of proofs are left of %d points", left, len(points)-1)
	}
	late := proofFor(id, "late", true, 2)
	must(t, v.session(ctx, "prove", func(ctx context.Context, w repo.DirectRepositoryWriter) error { return putProof(ctx, w, late) }))
	must(t, v.putLeaf(ctx, proofPrefix+pointLeaf(id)[2:]+pointLeaf(randomID())[2:], leaf{Proof: &late}))
	_, err := v.Maintain(ctx, MaintainOptions{})
	must(t, err)
	l, err := v.manifests(ctx)
	must(t, err)
	if len(l.proofs) != len(points)-1 || len(l.proofs[id]) > 0 {
		t.Errorf("after maintenance there are proofs of %d points, of the expired one %d", len(l.proofs), len(l.proofs[id]))
	}
	for _, left := range blobFiles(t, dir, "bd"+id) {
		t.Errorf("%s is left", left)
	}
}

func TestProofsAreBounded(t *testing.T) {
	dir, points := sample(t)
	v := openVault(t, dir, Options{})
	for id := range points {
		p := proofFor(id, strings.Repeat("x", maxProof), true, 0)
		wantFault(t, v.Prove(t.Context(), p), fault.ErrInvalid)
	}
	must(t, v.Close(t.Context()))
	for id := range points {
		wantFault(t, openVault(t, dir, Options{ReadOnly: true}).Prove(t.Context(), proofFor(id, "x", true, 0)), fault.ErrRefused)
		break
	}
}
