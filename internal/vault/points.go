package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Points lists points, newest first. When points that the catalogue knows are missing, it gives the ones that are there together
// with an error (fault.ErrCorrupt) that says how many are lost.
func (v *Vault) Points(ctx context.Context, f point.Filter) ([]point.Point, error) {
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	l, missing, err := v.compare(ctx)
	if err != nil {
		return nil, fault.Wrap("list points of vault "+v.name, nil, err, "")
	}
	list := []point.Point{}
	for _, s := range l.points {
		if (f.Subject == nil || *f.Subject == s.Subject) && (f.Policy == "" || f.Policy == s.Policy) {
			p := s.Point
			p.Holds, p.Proof = l.holdsOf(p.ID), l.proofOf(p.ID)
			list = append(list, p)
		}
	}
	return list, v.alarm(l, missing)
}

// alarm is the error about points that should be there; nil when all are.
func (v *Vault) alarm(l *listing, missing []string) error {
	switch {
	case len(missing) > 0:
		return fault.New("vault "+v.name, fault.ErrCorrupt,
			fmt.Sprintf("%d of %d points are lost", len(missing), len(missing)+len(l.points)), hintRepair)
	case len(l.unread) > 0:
		return fault.Wrap("vault "+v.name+": read manifests", fault.ErrCorrupt, l.unread[0].err, hintRepair)
	}
	return nil
}

// compare reads the manifests and the catalogue, and returns the ids of points that only the catalogue knows.
func (v *Vault) compare(ctx context.Context) (*listing, []string, error) {
	// The catalogue is read first: a point is entered there after its manifest is written.
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, err := v.manifests(ctx)
	if err != nil {
		return nil, nil, err
	}
	missing := c.missing(l)
	if len(missing) == 0 && len(l.points) == 0 {
		return l, nil, v.lostIndexes(ctx)
	}
	if len(missing) == 0 {
		return l, nil, nil
	}
	// What was expired between the two is not missing.
	if c, err = v.readCatalogue(ctx); err != nil {
		return nil, nil, err
	}
	return l, slices.DeleteFunc(missing, func(id string) bool { return !c.points[id] }), nil
}

// missing returns the ids of points in the catalogue that have no manifest, in order.
func (c *catalogue) missing(l *listing) []string {
	there := make(map[string]bool, len(l.points))
	for _, s := range l.points {
		there[s.ID] = true
	}
	var ids []string
	for id := range c.points {
		if !there[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// tidy mends what a run that was cut short left undone: points that are not in the catalogue, a missing copy of the format
// blobs, and too many small contents of manifests, each of which costs every reader a request. It returns what it cannot mend.
func (v *Vault) tidy(ctx context.Context, l *listing) (warnings []string, err error) {
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return nil, err
	}
	if len(c.formats) == 0 {
		if err := v.copyFormat(ctx); err != nil {
			return nil, err
		}
	}
	if warnings, err = v.losses(ctx, l, c); err != nil {
		return nil, err
	}
	for _, s := range l.points {
		if c.points[s.ID] || c.tombstones[s.ID] {
			continue
		}
		warning, err := v.enter(ctx, s, c)
		if err != nil {
			return nil, fault.Wrap("enter point "+s.ID+" in the catalogue", nil, err, "")
		}
		warnings = withWarning(warnings, warning)
	}
	if len(l.unread) > 0 || l.contents < 64+(len(l.points)+len(l.drafts))/20 {
		return warnings, nil
	}
	return warnings, v.session(ctx, "compact manifests", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		_, err := w.FindManifests(ctx, map[string]string{labelType: typeHold}) // kopia compacts on reading
		return err
	})
}

// losses says what is lost of the lists of points.
func (v *Vault) losses(ctx context.Context, l *listing, c *catalogue) (warnings []string, err error) {
	missing := c.missing(l)
	if len(missing) > 0 { // unless they were published or expired between the two looks
		if l, missing, err = v.compare(ctx); err != nil {
			return nil, err
		}
	}
	const remedy = ": run `backstay location repair`"
	if len(missing) > 0 {
		warnings = append(warnings, fmt.Sprintf("%d points are missing from the list%s", len(missing), remedy))
	}
	if len(l.unread) > 0 {
		warnings = append(warnings, fmt.Sprintf("%d lists of points cannot be read%s", len(l.unread), remedy))
	}
	return warnings, nil
}

// enter puts a point that is listed into the catalogue, and says that it was made where nobody did.
func (v *Vault) enter(ctx context.Context, s saved, c *catalogue) (warning string, err error) {
	if !c.attested[s.ID] {
		if warning, err = v.attestFound(ctx, s); err != nil {
			return warning, err
		}
	}
	return warning, v.enterLeaf(ctx, s)
}

// enterLeaf writes the leaf of a point that is listed.
func (v *Vault) enterLeaf(ctx context.Context, s saved) error {
	m, err := snapshot.LoadSnapshot(ctx, v.rep, s.manifest)
	if err != nil {
		return storageFault("read manifest", err)
	}
	l := leaf{Snapshot: m}
	ids := []object.ID{s.root}
	if record, err := (&reader{v, rootOf(s)}).find(ctx, recordName); err == nil {
		ids = append(ids, record.entry.ObjectID)
	}
	if l.Own, err = copyMeta(ctx, v.rep, ids); err != nil {
		return err
	}
	return v.putLeaf(ctx, pointLeaf(s.ID), l)
}

// Open reads a point's record and gives access to its tree.
func (v *Vault) Open(ctx context.Context, id string) (*point.Record, point.Reader, error) {
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	l, err := v.manifests(ctx)
	if err != nil {
		return nil, nil, fault.Wrap("open point "+id, nil, err, "")
	}
	s, ok := l.find(id)
	if !ok {
		return nil, nil, v.absent(ctx, l, id)
	}
	record, r, err := v.openSaved(ctx, s)
	if err != nil {
		return nil, nil, fault.Wrap("open point "+id, nil, err, "")
	}
	record.Point.Holds, record.Point.Proof = l.holdsOf(id), l.proofOf(id)
	return record, r, nil
}

// absent explains why a point is not there.
func (v *Vault) absent(ctx context.Context, l *listing, id string) error {
	op := "point " + id
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if c.points[id] {
		return fault.New(op, fault.ErrCorrupt, "it is in the catalogue, but lost", hintRepair)
	}
	if err := v.alarm(l, c.missing(l)); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	return fault.New(op, fault.ErrNotFound, "no such point", "`backstay points` lists them")
}

// openSaved reads the record of a point or a checkpoint.
func (v *Vault) openSaved(ctx context.Context, s saved) (*point.Record, *reader, error) {
	r := &reader{v, &node{entry: snapshot.DirEntry{Type: snapshot.EntryTypeDirectory, Permissions: 0o755, ObjectID: s.root}}}
	f, err := r.Open(ctx, recordName)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil, fault.New("point "+s.ID, fault.ErrCorrupt, "it has no record", hintRepair)
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, nil, err
	}
	record, err := decodeRecord(b)
	if err != nil {
		return nil, nil, fault.Wrap("record of point "+s.ID, nil, err, "")
	}
	if record.Point.ID != s.ID {
		return nil, nil, fault.New("record of point "+s.ID, fault.ErrCorrupt, "it is of another point", hintRepair)
	}
	return record, r, nil
}

// decodeRecord reads /backstay.json.
func decodeRecord(b []byte) (*point.Record, error) {
	var record point.Record
	if err := json.Unmarshal(b, &record); err != nil {
		return nil, fault.Wrap("decode", fault.ErrCorrupt, err, hintRepair)
	}
	if record.Version > point.RecordVersion {
		return nil, fault.New("decode", fault.ErrUnsupported, fmt.Sprintf("version %d", record.Version), "use a newer backstay")
	}
	return &record, nil
}

// Hold puts a hold on a point, once for each reason; an empty reason lifts all its holds.
func (v *Vault) Hold(ctx context.Context, id, reason string) error {
	op := "hold point " + id
	if err := v.writable(op); err != nil {
		return err
	}
	l, err := v.manifests(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if _, ok := l.find(id); !ok {
		return v.absent(ctx, l, id)
	}
	if reason == "" && len(l.holds[id]) == 0 {
		return nil
	}
	if reason == "" {
		return v.lift(ctx, op, l, id)
	}
	if slices.ContainsFunc(l.holds[id], func(h hold) bool { return h.Reason == reason }) {
		return fault.Wrap(op, nil, v.revive(ctx, id), "")
	}
	h := point.Hold{Reason: reason, Time: v.now().UTC()}
	if err := v.session(ctx, op, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return putHold(ctx, w, id, h)
	}); err != nil {
		return err
	}
	if err := v.putLeaf(ctx, holdPrefix+blob.ID(id+randomID()), leaf{Hold: &h}); err != nil {
		return err
	}
	return fault.Wrap(op, nil, v.revive(ctx, id), "")
}

// revive takes the tombstone off a point that is listed: a deletion that was cut short left it, or one that gives way to a hold now.
func (v *Vault) revive(ctx context.Context, id string) error {
	c, err := v.readCatalogue(ctx)
	if err != nil || !c.tombstones[id] {
		return err
	}
	l, err := v.manifests(ctx)
	if err != nil {
		return err
	}
	if _, ok := l.find(id); !ok {
		return v.absent(ctx, l, id) // the deletion was faster
	}
	v.strike(ctx, tombstoneLeaf(id))
	return nil
}

// putHold writes the manifest of a hold.
func putHold(ctx context.Context, w repo.RepositoryWriter, id string, h point.Hold) error {
	_, err := w.PutManifest(ctx, map[string]string{
		labelType: typeHold, labelPoint: id, labelReason: h.Reason, labelHeld: h.Time.Format(time.RFC3339Nano),
	}, struct{}{})
	return err
}

// lift takes all holds off a point.
func (v *Vault) lift(ctx context.Context, op string, l *listing, id string) error {
	if err := v.session(ctx, op, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, v, manifestsOf(l.holds[id]))
	}); err != nil {
		return err
	}
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return err
	}
	v.strike(ctx, c.holds[id]...)
	return nil
}

func manifestsOf(holds []hold) []manifest.ID {
	var ids []manifest.ID
	for _, h := range holds {
		ids = append(ids, h.manifest)
	}
	return ids
}

// Delete takes points out of the catalog.
func (v *Vault) Delete(ctx context.Context, ids ...string) error {
	op := "delete points"
	if len(ids) == 0 {
		return nil
	}
	if err := v.writable(op); err != nil {
		return err
	}
	if _, _, err := v.deletable(ctx, op, ids); err != nil {
		return err
	}
	// The tombstone goes first: a crash must not leave a point that the catalogue misses without reason.
	for _, id := range ids {
		if err := v.putLeaf(ctx, tombstoneLeaf(id), leaf{}); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	points, manifests, err := v.deletable(ctx, op, ids) // somebody may have put one on hold meanwhile
	if errors.Is(err, fault.ErrRefused) {
		for _, id := range ids {
			v.strike(ctx, tombstoneLeaf(id))
		}
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := v.inherit(ctx, id); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	if err := v.attestDeleted(ctx, points); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err := v.session(ctx, op, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, v, manifests)
	}); err != nil {
		return err
	}
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	for _, id := range ids {
		v.strike(ctx, c.proofs[id]...)
		v.strike(ctx, pointLeaf(id), tombstoneLeaf(id)) // the tombstone last: as long as the other is there, it is needed
	}
	return nil
}

// deletable returns points, none of which may be on hold, and the manifests of them and of their proofs.
func (v *Vault) deletable(ctx context.Context, op string, ids []string) (points []saved, manifests []manifest.ID, err error) {
	l, err := v.manifests(ctx)
	if err != nil {
		return nil, nil, fault.Wrap(op, nil, err, "")
	}
	var held []string
	for _, id := range ids {
		s, ok := l.find(id)
		if !ok {
			return nil, nil, v.absent(ctx, l, id)
		}
		points = append(points, s)
		manifests = append(append(manifests, s.manifest), proofManifests(l.proofs[id])...)
		if len(l.holds[id]) > 0 {
			held = append(held, id)
		}
	}
	if len(held) > 0 {
		return nil, nil, fault.New(op, fault.ErrRefused, "on hold: "+strings.Join(held, ", "), "lift the hold with `backstay hold --lift`")
	}
	return points, manifests, nil
}

// inherit keeps what came with a point whose leaf is about to go, and other points may need: checksums of blobs, and copies of
// metadata. A leaf that is damaged has nothing to give.
func (v *Vault) inherit(ctx context.Context, id string) error {
	l, err := v.getLeaf(ctx, pointLeaf(id))
	if errors.Is(err, fault.ErrCorrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	v.store.returnSums(l.Sums)
	if len(l.Shared) == 0 {
		return nil // the next flush records the checksums
	}
	return v.putLeaf(ctx, newSumsLeaf(), leaf{Shared: l.Shared})
}

// strike removes leaves in their order. On a store with object lock they may have to stay, which does no harm.
func (v *Vault) strike(ctx context.Context, leaves ...blob.ID) {
	for _, b := range leaves {
		if err := v.store.DeleteBlob(ctx, b); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
			return
		}
	}
}

func pointLeaf(id string) blob.ID     { return pointPrefix + blob.ID(id) }
func tombstoneLeaf(id string) blob.ID { return tombstonePrefix + blob.ID(id) }
