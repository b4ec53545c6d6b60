package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// proof is what a drill of a point found, as a manifest of kopia keeps it. A leaf of the catalogue has it, too.
type proof struct {
	point.Proof
	manifest manifest.ID
}

// proofBody is the manifest's body.
type proofBody struct {
	Proof *point.Proof `json:"proof,omitempty"`
}

// maxProof bounds a proof in bytes: every listing of points reads them all.
const maxProof = 256 << 10

// Prove keeps what a drill of a point found, in place of what an earlier one found, whatever the clocks of the two said.
func (v *Vault) Prove(ctx context.Context, p point.Proof) error {
	op := "prove point " + p.Point
	if err := v.writable(op); err != nil {
		return err
	}
	if b, err := json.Marshal(p); err != nil || len(b) > maxProof {
		return fault.New(op, fault.ErrInvalid, fmt.Sprintf("%d checks are too much to keep", len(p.Checks)), "")
	}
	l, err := v.manifests(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	s, ok := l.find(p.Point)
	if !ok {
		return v.absent(ctx, l, p.Point)
	}
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err := v.session(ctx, op, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		if err := putProof(ctx, w, p); err != nil {
			return err
		}
		return deleteManifests(ctx, w, v, proofManifests(l.proofs[p.Point]))
	}); err != nil {
		return err
	}
	if err := v.attestDrilled(ctx, s, p); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err := v.putLeaf(ctx, proofPrefix+blob.ID(p.Point+randomID()), leaf{Proof: &p}); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	v.strike(ctx, c.proofs[p.Point]...)
	return nil
}

// putProof writes the manifest of a proof.
func putProof(ctx context.Context, w repo.RepositoryWriter, p point.Proof) error {
	_, err := w.PutManifest(ctx, map[string]string{labelType: typeProof, labelPoint: p.Point}, proofBody{&p})
	return err
}

// proofOf returns the newest proof of a point, nil for none.
func (l *listing) proofOf(id string) *point.Proof {
	var newest *point.Proof
	for _, p := range l.proofs[id] {
		if newest == nil || p.Finished.After(newest.Finished) {
			newest = &p.Proof
		}
	}
	return newest
}

func proofManifests(proofs []proof) []manifest.ID {
	var ids []manifest.ID
	for _, p := range proofs {
		ids = append(ids, p.manifest)
	}
	return ids
}

// dropProofs deletes the proofs of points that are neither listed nor in the catalogue: a drill ended while its point expired.
func (v *Vault) dropProofs(ctx context.Context) error {
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return err
	}
	l, err := v.manifests(ctx)
	if err != nil {
		return err
	}
	expired := func(id string) bool {
		_, listed := l.find(id)
		return !listed && !c.points[id]
	}
	for id, leaves := range c.proofs {
		if expired(id) {
			v.strike(ctx, leaves...)
		}
	}
	var orphans []manifest.ID
	for id, proofs := range l.proofs {
		if expired(id) {
			orphans = append(orphans, proofManifests(proofs)...)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	return v.session(ctx, "delete proofs of expired points", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, v, orphans)
	})
}

// proveAgain brings lost proofs back from the catalogue.
func (x *repair) proveAgain(ctx context.Context, w repo.DirectRepositoryWriter, l *listing, c *catalogue) error {
	for id, leaves := range c.proofs {
		if !c.points[id] {
			continue
		}
		newest := l.proofOf(id)
		for _, b := range leaves {
			kept, err := x.v.getLeaf(ctx, b)
			if errors.Is(err, fault.ErrCorrupt) {
				continue
			}
			if err != nil {
				return err
			}
			if kept.Proof != nil && kept.Proof.Point == id && (newest == nil || kept.Proof.Finished.After(newest.Finished)) {
				newest = kept.Proof
			}
		}
		if newest == nil || slices.ContainsFunc(l.proofs[id], func(p proof) bool { return p.Finished.Equal(newest.Finished) }) {
			continue
		}
		if err := putProof(ctx, w, *newest); err != nil {
			return storageFault("prove point "+id, err)
		}
	}
	return nil
}
