package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Repaired is what Repair did, and what it could not do.
type Repaired struct {
	Format   bool          `json:"format"`   // the format blobs were put back from a copy
	Indexes  []string      `json:"indexes"`  // damaged index blobs that were removed
	Packs    int           `json:"packs"`    // packs whose contents were entered in the index again
	Metadata int           `json:"metadata"` // directories and the like that were written back from the catalogue
	Evidence int           `json:"evidence"` // statements that were written again
	Points   []string      `json:"points"`   // ids of points that are listed again
	Gone     []point.Fault `json:"gone"`     // points that cannot be listed again
	Notes    []string      `json:"notes,omitempty"`
	Report   *point.Report `json:"report"` // of a check of all points after the repair: what is still lost
}

// Repair brings back what the loss of format blobs, of indexes or of metadata packs has hidden, as far as it can be brought back.
// It deletes nothing that can be read. Nobody should back up meanwhile; maintenance is kept out.
func Repair(ctx context.Context, loc Location, password fault.Secret, o Options) (*Repaired, error) {
	st, err := loc.storage(ctx, o.env(), false)
	if err != nil {
		return nil, err
	}
	done, err := repairIn(ctx, st, loc.String(), password, o)
	return done, errors.Join(err, st.Close(ctx))
}

// repairIn repairs the vault in st, which stays the caller's to close.
func repairIn(ctx context.Context, st blob.Storage, name string, password fault.Secret, o Options) (done *Repaired, err error) {
	op := "repair vault " + name
	x := &repair{done: &Repaired{Indexes: []string{}, Points: []string{}, Gone: []point.Fault{}}} // lists are never null in JSON
	if x.done.Format, err = repairFormat(ctx, st, name, password); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	o.ReadOnly = false
	l, err := x.open(ctx, st, name, password, o)
	if err != nil {
		return nil, err
	}
	err = newLease(x.v.store, x.v.now).hold(ctx, func(ctx context.Context) error { return x.run(ctx, l, o.ReadData) })
	if err = errors.Join(err, x.v.Close(ctx)); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return x.done, nil
}

// repairFormat puts the format blobs back in place from the newest copy that the password opens, unless they are as in a copy.
func repairFormat(ctx context.Context, st blob.Storage, name string, password fault.Secret) (bool, error) {
	copies, err := readFormatCopies(ctx, st)
	if err != nil {
		return false, err
	}
	for _, c := range copies {
		same, err := c.same(ctx, st)
		if err != nil {
			return false, err
		}
		if same && c.opens(ctx, password) {
			return false, nil
		}
	}
	for _, c := range copies {
		if !c.opens(ctx, password) {
			continue
		}
		for _, id := range formatBlobs {
			// Without a lock of its own: openIn reads the lock from these very blobs, and copyFormat writes them into a new copy.
			if err := st.PutBlob(ctx, id, &raw{c.Blobs[id]}, blob.PutOptions{}); err != nil {
				return false, storageFault("put "+string(id)+" back", err)
			}
		}
		return true, nil
	}
	return false, nil // openIn says what is wrong
}

// repair is one run of Repair on a vault that opens.
type repair struct {
	v      *Vault
	done   *Repaired
	before map[string]bool // points that were listed before
}

func (x *repair) run(ctx context.Context, l *listing, readData bool) error {
	if err := x.v.copyFormat(ctx); err != nil {
		return err
	}
	x.before = map[string]bool{}
	for _, s := range l.points {
		x.before[s.ID] = true
	}
	if err := x.reindex(ctx); err != nil {
		return err
	}
	l, err := x.v.manifests(ctx)
	if err != nil {
		return err
	}
	if err := x.rebuild(ctx, l); err != nil {
		return err
	}
	if l, err = x.v.manifests(ctx); err != nil {
		return err
	}
	if err := x.attestAgain(ctx, l); err != nil {
		return err
	}
	check := newVerification(x.v, readData)
	if err := check.points(ctx, nil); err != nil {
		return err
	}
	x.done.Report = check.report
	return x.forget(ctx, check)
}

// forget takes what is lost out of the index. As long as it is there, kopia writes none of it again, and a part that needs it looks
// whole; without it the next backup writes it anew, and older points that need the same bytes are whole again, too.
func (x *repair) forget(ctx context.Context, check *verification) error {
	if !check.anyBad() {
		return nil
	}
	x.done.Notes = append(x.done.Notes, "data is lost; the next backups store again what the sources still have of it. "+
		"Points that are still damaged then stop maintenance: delete them")
	return x.v.session(ctx, "forget what is lost", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		for id, what := range check.bad {
			if what == "" {
				continue
			}
			if err := w.ContentManager().DeleteContent(ctx, id); err != nil && !errors.Is(err, content.ErrContentNotFound) {
				return storageFault("forget content", err)
			}
		}
		return nil
	})
}

// open opens the vault and lists its manifests. Where an index blob is damaged, kopia opens nothing at all: damaged ones are taken
// away, for the packs hold all that indexes say; all of them, if no checksum tells which one it is.
func (x *repair) open(ctx context.Context, st blob.Storage, name string, password fault.Secret, o Options) (*listing, error) {
	tryOpen := func() (l *listing, err error) {
		if x.v, err = openIn(ctx, keepOpen{st}, name, password, o); err != nil {
			return nil, err
		}
		if l, err = x.v.manifests(ctx); err != nil {
			return nil, errors.Join(err, x.v.Close(ctx))
		}
		return l, nil
	}
	l, err := tryOpen()
	for _, find := range []func(context.Context, *Vault, []blob.ID) ([]blob.ID, error){
		damagedBlobs,
		func(_ context.Context, _ *Vault, all []blob.ID) ([]blob.ID, error) { return all, nil },
	} {
		if !errors.Is(err, fault.ErrCorrupt) {
			break
		}
		if err := x.dropIndexes(ctx, st, name, password, find); err != nil {
			return nil, fault.Wrap("repair vault "+name, nil, err, "")
		}
		l, err = tryOpen()
	}
	return l, err
}

// dropIndexes deletes the index blobs that find chooses. It opens the vault as if it had none.
func (x *repair) dropIndexes(
	ctx context.Context, st blob.Storage, name string, password fault.Secret,
	find func(context.Context, *Vault, []blob.ID) ([]blob.ID, error),
) error {
	var all []blob.ID
	for _, prefix := range indexPrefixes {
		list, err := blob.ListAllBlobs(ctx, st, prefix)
		if err != nil {
			return storageFault("list indexes", err)
		}
		all = append(all, blob.IDsFromMetadata(list)...)
	}
	v, err := openIn(ctx, blind{keepOpen{st}}, name, password, Options{ReadOnly: true})
	if err != nil {
		return err
	}
	bad, err := find(ctx, v, all)
	if err = errors.Join(err, v.Close(ctx)); err != nil {
		return err
	}
	for _, id := range bad {
		if err := st.DeleteBlob(ctx, id); err != nil {
			return storageFault("remove damaged index "+string(id), err)
		}
		x.done.Indexes = append(x.done.Indexes, string(id))
	}
	return nil
}

// indexPrefixes are those of kopia's index blobs.
var indexPrefixes = []blob.ID{"n", "x"}

// blind is a storage that lists no index blobs.
type blind struct{ blob.Storage }

// ListBlobs lists all the others.
func (b blind) ListBlobs(ctx context.Context, prefix blob.ID, each func(blob.Metadata) error) error {
	return b.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if slices.ContainsFunc(indexPrefixes, func(p blob.ID) bool { return strings.HasPrefix(string(m.BlobID), string(p)) }) {
			return nil
		}
		return each(m)
	})
}

// damagedBlobs returns those of the blobs that are not as they were written.
func damagedBlobs(ctx context.Context, v *Vault, blobs []blob.ID) ([]blob.ID, error) {
	leaves, err := blob.ListAllBlobs(ctx, v.store, cataloguePrefix)
	if err != nil {
		return nil, storageFault("list catalogue", err)
	}
	check := newVerification(v, true)
	recorded, err := check.recorded(ctx, leaves)
	if err != nil {
		return nil, err
	}
	var bad []blob.ID
	for _, id := range blobs {
		what, err := check.blob(ctx, id, recorded[id], nil)
		if err != nil && !errors.Is(err, fault.ErrCorrupt) {
			return nil, err
		}
		if what != "" || err != nil {
			bad = append(bad, id)
		}
	}
	return bad, nil
}

// reindex enters the contents of packs that the index does not know. Each pack ends with an index of its own.
func (x *repair) reindex(ctx context.Context) error {
	var packs []blob.Metadata
	for _, prefix := range content.PackBlobIDPrefixes {
		all, err := blob.ListAllBlobs(ctx, x.v.store, prefix)
		if err != nil {
			return storageFault("list packs", err)
		}
		packs = append(packs, all...)
	}
	return x.v.session(ctx, "rebuild indexes", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		for _, m := range packs {
			if err := x.reindexPack(ctx, w, m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *repair) reindexPack(ctx context.Context, w repo.DirectRepositoryWriter, m blob.Metadata) error {
	infos, err := w.ContentManager().RecoverIndexFromPackBlob(ctx, m.BlobID, m.Length, false)
	if err != nil {
		if kind, _ := classify(err); errors.Is(kind, fault.ErrCorrupt) || strings.Contains(err.Error(), "postamble") {
			x.done.Notes = append(x.done.Notes, fmt.Sprintf("pack %s: %v", m.BlobID, err))
			return nil
		}
		return storageFault("read pack "+string(m.BlobID), err)
	}
	for _, i := range infos {
		if i.Deleted {
			continue
		}
		_, err := w.ContentInfo(ctx, i.ContentID)
		if err == nil {
			continue
		}
		if !errors.Is(err, content.ErrContentNotFound) {
			return storageFault("look up content", err)
		}
		if _, err := w.ContentManager().RecoverIndexFromPackBlob(ctx, m.BlobID, m.Length, true); err != nil {
			return storageFault("read pack "+string(m.BlobID), err)
		}
		x.done.Packs++
		return nil
	}
	return nil
}

// rebuild writes lost metadata back, lists points again that the catalogue knows, and takes out what must not be listed.
func (x *repair) rebuild(ctx context.Context, l *listing) error {
	c, err := x.v.readCatalogue(ctx)
	if err != nil {
		return err
	}
	unlist, err := x.unlist(ctx, l, c)
	if err != nil {
		return err
	}
	if len(l.unread) > 0 {
		x.done.Notes = append(x.done.Notes, "lists of points were lost: what unfinished runs had checkpointed may be fetched again")
	}
	if err := x.v.session(ctx, "bring points back", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		for _, id := range slices.Sorted(maps.Keys(c.points)) {
			if err := x.bringBack(ctx, w, l, id); err != nil {
				return fmt.Errorf("point %s: %w", id, err)
			}
		}
		for _, id := range c.sums {
			if _, err := x.restoreFrom(ctx, w, id); err != nil {
				return err
			}
		}
		if err := x.holdAgain(ctx, w, l, c); err != nil {
			return err
		}
		if err := x.proveAgain(ctx, w, l, c); err != nil {
			return err
		}
		for _, u := range l.unread { // kopia lists nothing as long as one of them is in the index
			if kind, _ := classify(u.err); !errors.Is(kind, fault.ErrCorrupt) {
				return u.err
			}
			if err := w.ContentManager().DeleteContent(ctx, u.id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil || len(unlist) == 0 {
		return err
	}
	return x.v.session(ctx, "take out points", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, x.v, unlist)
	})
}

// holdAgain puts the holds back of points that have none any more. A hold that was lifted may come back where the store would not
// let go of its leaf; that is the lesser evil.
func (x *repair) holdAgain(ctx context.Context, w repo.DirectRepositoryWriter, l *listing, c *catalogue) error {
	for id, leaves := range c.holds {
		if len(l.holds[id]) > 0 || !c.points[id] {
			continue
		}
		for _, b := range leaves {
			h, err := x.v.getLeaf(ctx, b)
			if errors.Is(err, fault.ErrCorrupt) || err == nil && h.Hold == nil {
				continue
			}
			if err != nil {
				return err
			}
			if err := putHold(ctx, w, id, *h.Hold); err != nil {
				return storageFault("hold point "+id, err)
			}
		}
	}
	return nil
}

// restoreFrom writes the metadata back that a leaf has copies of. A damaged leaf gives nothing; Verify names it.
func (x *repair) restoreFrom(ctx context.Context, w repo.DirectRepositoryWriter, id blob.ID) (*leaf, error) {
	l, err := x.v.getLeaf(ctx, id)
	if errors.Is(err, fault.ErrCorrupt) {
		return nil, nil //nolint:nilnil // no leaf
	}
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Concat(l.Own, l.Shared) {
		restored, err := restoreMeta(ctx, w, c)
		if err != nil {
			return nil, err
		}
		if restored {
			x.done.Metadata++
		}
	}
	return l, nil
}

// bringBack restores the metadata of a point, and its manifest where that is lost.
func (x *repair) bringBack(ctx context.Context, w repo.DirectRepositoryWriter, l *listing, id string) error {
	leaf, err := x.restoreFrom(ctx, w, pointLeaf(id))
	if err != nil {
		return err
	}
	_, listed := l.find(id)
	switch {
	case listed && !x.before[id]:
		x.done.Points = append(x.done.Points, id)
	case listed:
	case leaf == nil || leaf.Snapshot == nil:
		x.done.Gone = append(x.done.Gone, point.Fault{Point: id, What: "its manifest is lost, and its entry in the catalogue is damaged"})
	default:
		if _, err := snapshot.SaveSnapshot(ctx, w, leaf.Snapshot); err != nil {
			return storageFault("write manifest", err)
		}
		x.done.Points = append(x.done.Points, id)
	}
	return nil
}

// unlist returns the manifests of points that came up from the packs, but must not be listed: they have expired, or were never
// published.
func (x *repair) unlist(ctx context.Context, l *listing, c *catalogue) ([]manifest.ID, error) {
	var ids []manifest.ID
	for _, s := range l.points {
		if x.before[s.ID] || c.points[s.ID] {
			continue
		}
		_, _, err := x.v.openSaved(ctx, s)
		switch {
		case c.tombstones[s.ID] || errors.Is(err, fault.ErrCorrupt):
			ids = append(ids, s.manifest)
		case err != nil:
			return nil, err
		default:
			x.done.Points = append(x.done.Points, s.ID)
		}
	}
	return ids, nil
}
