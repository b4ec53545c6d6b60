package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// maintenanceBlob is where kopia notes when it maintained what. It is rewritten in place and proves itself.
const maintenanceBlob blob.ID = "kopia.maintenance"

// published is how long after its end a point has surely been published, by whatever clocks.
const published = time.Hour

// blobs compares every blob of the location with what was written. It finds also what reading points cannot: damage to indexes,
// to the catalogue, and to bytes between the contents of a pack.
func (x *verification) blobs(ctx context.Context) error {
	all, err := blob.ListAllBlobs(ctx, x.v.store, "")
	if err != nil {
		return storageFault("list blobs", err)
	}
	if err := x.unentered(ctx, all); err != nil {
		return err
	}
	copies, err := readFormatCopies(ctx, x.v.store)
	if err != nil {
		return err
	}
	recorded, err := x.recorded(ctx, all)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, m := range all {
		group.Go(func() error {
			what, err := x.blob(ctx, m.BlobID, recorded[m.BlobID], copies)
			if errors.Is(err, blob.ErrBlobNotFound) {
				return nil // deleted since it was listed; whoever needs it reports it
			}
			if err != nil && !errors.Is(err, fault.ErrCorrupt) {
				return err
			}
			if err != nil {
				what = err.Error()
			}
			if what != "" {
				x.found(point.Fault{Blob: string(m.BlobID), What: what})
			}
			return nil
		})
	}
	return group.Wait()
}

// unentered reports listed points whose leaf is gone. A run that was killed leaves such a point, too, but the next run enters it in
// the catalogue before it does anything else: only where a run has begun since, the leaf was there and was lost.
func (x *verification) unentered(ctx context.Context, all []blob.Metadata) error {
	// The manifests are read after the blobs were listed, for a leaf is deleted after the manifest of its point.
	l, err := x.v.manifests(ctx)
	if err != nil || len(l.points) == 0 {
		return err
	}
	there := map[blob.ID]bool{}
	for _, m := range all {
		there[m.BlobID] = true
	}
	newest := l.points[0].Time
	for _, s := range l.points {
		if there[pointLeaf(s.ID)] || newest.Sub(s.Time) < published {
			continue
		}
		m, err := snapshot.LoadSnapshot(ctx, x.v.rep, s.manifest)
		if errors.Is(err, snapshot.ErrSnapshotNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return storageFault("read manifest", err)
		}
		if newest.Sub(m.EndTime.ToTime()) >= published {
			x.found(point.Fault{Point: s.ID, Blob: string(pointLeaf(s.ID)), What: "it is missing; the next backup writes it again"})
		}
	}
	return nil
}

// recorded collects the checksums of all blobs; a name that was written several times has several. Leaves that do not open are
// reported.
func (x *verification) recorded(ctx context.Context, all []blob.Metadata) (map[blob.ID][]sum, error) {
	recorded := map[blob.ID][]sum{}
	for _, s := range x.v.store.pending() {
		recorded[s.ID] = append(recorded[s.ID], s)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, m := range all {
		if !isLeaf(m.BlobID) {
			continue
		}
		group.Go(func() error {
			l, err := x.v.getLeaf(ctx, m.BlobID)
			switch {
			case errors.Is(err, blob.ErrBlobNotFound):
				return nil // expired since it was listed
			case errors.Is(err, fault.ErrCorrupt):
				x.found(point.Fault{Blob: string(m.BlobID), What: err.Error()})
				return nil
			case err != nil:
				return err
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			x.report.Blobs++
			for _, s := range l.Sums {
				recorded[s.ID] = append(recorded[s.ID], s)
			}
			return nil
		})
	}
	return recorded, group.Wait()
}

func isLeaf(id blob.ID) bool {
	return slices.ContainsFunc([]blob.ID{pointPrefix, tombstonePrefix, holdPrefix, proofPrefix, evidencePrefix, sumsPrefix}, func(p blob.ID) bool {
		return strings.HasPrefix(string(id), string(p))
	})
}

// blob checks one blob that is not a leaf, and says what is wrong with it.
func (x *verification) blob(ctx context.Context, id blob.ID, sums []sum, copies []formatCopy) (what string, err error) {
	switch {
	case isLeaf(id) || isPassing(id):
		return "", nil
	case id == maintenanceBlob:
		_, err := maintenance.GetSchedule(ctx, x.v.rep)
		return "", storageFault("read maintenance schedule", err)
	case id == upkeepBlob:
		_, err := x.v.unseal(ctx, id)
		return "", err
	case !strings.HasPrefix(string(id), string(formatPrefix)) && !slices.Contains(formatBlobs, id) && len(sums) == 0:
		return "", nil // of a run that was killed before it could record what it wrote; points read it, or nobody does
	}
	h := hasher{Hash: sha256.New()}
	if err := x.v.store.Storage.GetBlob(ctx, id, 0, -1, &h); err != nil {
		return "", wholeBlobFault(id, err)
	}
	x.mu.Lock()
	x.report.Blobs++
	x.report.Bytes += int64(h.n)
	x.mu.Unlock()
	got := hex.EncodeToString(h.Sum(nil))
	if len(sums) == 0 {
		sums = expected(id, copies)
	}
	for _, s := range sums {
		if s.SHA256 == got {
			return "", nil
		}
	}
	return fmt.Sprintf("its %d bytes are not those that were written", h.n), nil
}

func wholeBlobFault(id blob.ID, err error) error {
	if errors.Is(err, blob.ErrBlobNotFound) {
		return err
	}
	return storageFault("read blob "+string(id), err)
}

// expected returns the checksums of the format blobs and of their copies, which no leaf records.
func expected(id blob.ID, copies []formatCopy) []sum {
	var sums []sum
	for _, c := range copies {
		if c.id == id { // its name was checked when it was read
			sums = append(sums, sum{ID: id, SHA256: c.sha256})
		}
		for _, name := range slices.Sorted(maps.Keys(c.Blobs)) {
			if name == id {
				h := sha256.Sum256(c.Blobs[name])
				sums = append(sums, sum{ID: id, SHA256: hex.EncodeToString(h[:])})
			}
		}
	}
	return sums
}

// hasher is an output for blobs that keeps nothing but their checksum.
type hasher struct {
	hash.Hash
	n int
}

// Write takes bytes.
func (h *hasher) Write(p []byte) (int, error) {
	h.n += len(p)
	return h.Hash.Write(p)
}

// Length returns the bytes taken.
func (h *hasher) Length() int { return h.n }

// Reset starts anew, as a storage does that tries again.
func (h *hasher) Reset() {
	h.n = 0
	h.Hash.Reset()
}
