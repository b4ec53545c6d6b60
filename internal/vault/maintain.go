package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/maintenancestats"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"

	"github.com/backstay/backstay/internal/fault"
)

const (
	fullEvery   = 20 * time.Hour      // less than a day, so that a daily run is always a full one
	draftsKept  = 14 * 24 * time.Hour // checkpoints of runs that nobody took up again
	sumsMerged  = 16                  // blobs of checksums that are let be
	sumsPerBlob = 200_000             // keeps a merged one well below maxLeaf
)

// upkeepBlob remembers past maintenance. It is overwritten by each, so it is not put under object lock.
const upkeepBlob blob.ID = "bx"

// MaintainOptions chooses what Maintain does.
type MaintainOptions struct {
	Full bool // free space and extend locks even if that was done less than 20 hours ago
}

// MaintainReport is what Maintain did.
type MaintainReport struct {
	Full           bool  `json:"full"`
	FreedBlobs     int64 `json:"freedBlobs"`
	FreedBytes     int64 `json:"freedBytes"`
	RewrittenBytes int64 `json:"rewrittenBytes"` // moved out of blobs that were mostly garbage
	Drafts         int   `json:"drafts"`         // checkpoints deleted, of runs older than 14 days
	ExtendedBlobs  int64 `json:"extendedBlobs"`  // whose object lock was extended
	// FreedLockedUntil is when the store lets go of what was freed, and stops billing it. Zero without object lock.
	FreedLockedUntil time.Time   `json:"freedLockedUntil,omitzero"`
	Lock             *LockStatus `json:"lock,omitempty"` // afterwards; nil without object lock
}

// upkeep is what one maintenance leaves for the next to know.
type upkeep struct {
	LastFull      time.Time `json:"lastFull,omitzero"`      // began
	LastExtension time.Time `json:"lastExtension,omitzero"` // began, of the last that reached every blob
	Failure       string    `json:"failure,omitempty"`      // of the last extension
}

// Maintain frees what no point refers to, compacts indexes, extends object locks, and merges the lists of checksums. Writers may
// be at work meanwhile, here or elsewhere; a second maintainer gets fault.ErrBusy. Freed space shows after a day or two, because
// nothing is deleted that a running backup could still refer to.
//
// Where something failed, the report says what was done nevertheless, and comes with the error.
func (v *Vault) Maintain(ctx context.Context, o MaintainOptions) (*MaintainReport, error) {
	op := "maintain vault " + v.name
	if err := v.writable(op); err != nil {
		return nil, err
	}
	var report *MaintainReport
	err := newLease(v.store, v.now).hold(ctx, func(ctx context.Context) error {
		var err error
		report, err = v.maintain(ctx, o)
		return err
	})
	return report, fault.Wrap(op, nil, err, "")
}

func (v *Vault) maintain(ctx context.Context, o MaintainOptions) (*MaintainReport, error) {
	past, err := v.readUpkeep(ctx)
	if err != nil {
		return nil, err
	}
	began := v.now().UTC()
	r := &MaintainReport{Full: o.Full || began.Sub(past.LastFull) >= v.fullCycle() || past.Failure != ""}
	var extendErr error
	if r.Full && v.locked() {
		// First of all, and whatever becomes of the rest: damage that stops kopia must not let the locks run out.
		r.ExtendedBlobs, extendErr = v.extendAll(ctx)
		past.extended(began, extendErr)
		if err := v.writeUpkeep(ctx, past); err != nil {
			return r, errors.Join(extendErr, err)
		}
	}
	err = v.clean(ctx, r, began)
	if err == nil && r.Full {
		past.LastFull = began
		err = v.writeUpkeep(ctx, past)
	}
	var lockErr error
	r.Lock, lockErr = v.lockStatus(ctx, past)
	if v.locked() && r.FreedBytes > 0 {
		r.FreedLockedUntil = past.LastExtension.Add(v.lock.RetentionPeriod)
	}
	return r, errors.Join(extendErr, err, lockErr)
}

// clean does all but the object locks.
func (v *Vault) clean(ctx context.Context, r *MaintainReport, began time.Time) error {
	var err error
	if r.Drafts, err = v.dropDrafts(ctx, began.Add(-draftsKept)); err != nil {
		return err
	}
	if err := v.forgetNotes(ctx); err != nil {
		return err
	}
	if err := v.dropProofs(ctx); err != nil {
		return err
	}
	if err := v.runKopia(ctx, r, began); err != nil {
		return err
	}
	if !r.Full {
		return nil
	}
	if err := v.foldEvidence(ctx); err != nil {
		return err
	}
	return v.mergeSums(ctx)
}

// fullCycle is the time between two full runs. A short lock is extended four times in its period.
func (v *Vault) fullCycle() time.Duration {
	if v.locked() {
		return min(fullEvery, v.lock.RetentionPeriod/4)
	}
	return fullEvery
}

func (u *upkeep) extended(at time.Time, err error) {
	u.Failure = ""
	if err != nil {
		u.Failure = err.Error()
		return
	}
	u.LastExtension = at
}

// dropDrafts deletes the checkpoints of runs that began before a time.
func (v *Vault) dropDrafts(ctx context.Context, before time.Time) (int, error) {
	l, err := v.manifests(ctx)
	if err != nil {
		return 0, err
	}
	var old []manifest.ID
	for _, d := range l.drafts {
		if d.Time.Before(before) {
			old = append(old, d.manifest)
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	return len(old), v.session(ctx, "delete old checkpoints", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return deleteManifests(ctx, w, v, old)
	})
}

// runKopia runs kopia's own maintenance, always with full safety: without it a writer at work loses what it writes.
func (v *Vault) runKopia(ctx context.Context, r *MaintainReport, began time.Time) error {
	mode := maintenance.ModeQuick
	if r.Full {
		mode = maintenance.ModeFull
	}
	return v.session(ctx, "maintain", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		if err := v.ownMaintenance(ctx, w); err != nil {
			return err
		}
		if err := snapshotmaintenance.Run(ctx, w, mode, false, maintenance.SafetyFull); err != nil {
			return err
		}
		s, err := maintenance.GetSchedule(ctx, w)
		if err != nil {
			return err
		}
		return r.add(s, began)
	})
}

// ownMaintenance pins the owner of maintenance to the identity that all our writers have, so that it never stops because a
// machine or a pod has another name. kopia's own extension of locks stays off: it would come last, and leave out the catalogue.
func (v *Vault) ownMaintenance(ctx context.Context, w repo.DirectRepositoryWriter) error {
	p, err := maintenance.GetParams(ctx, w)
	if err != nil {
		return err
	}
	owner := v.rep.ClientOptions().UsernameAtHost()
	if p.Owner == owner && !p.ExtendObjectLocks {
		return nil
	}
	p.Owner, p.ExtendObjectLocks = owner, false
	if err := maintenance.SetParams(ctx, w, p); err != nil {
		return err
	}
	return w.Flush(ctx)
}

// add sums what kopia's tasks report of the runs that started at began or later.
func (r *MaintainReport) add(s *maintenance.Schedule, began time.Time) error {
	for _, runs := range s.Runs {
		for _, run := range runs {
			if run.Start.Before(began) {
				break // newest first
			}
			for _, extra := range run.Extra {
				stats, err := maintenancestats.BuildFromExtra(extra)
				if err != nil {
					return fmt.Errorf("read what was done: %w", err)
				}
				r.addStats(stats)
			}
		}
	}
	return nil
}

func (r *MaintainReport) addStats(stats maintenancestats.Summarizer) {
	switch s := stats.(type) {
	case *maintenancestats.DeleteUnreferencedPacksStats:
		r.FreedBlobs += int64(s.DeletedPackCount)
		r.FreedBytes += int64(s.DeletedTotalSize)
	case *maintenancestats.CleanupSupersededIndexesStats:
		r.FreedBlobs += int64(s.DeletedBlobCount)
		r.FreedBytes += int64(s.DeletedTotalSize)
	case *maintenancestats.RewriteContentsStats:
		r.RewrittenBytes += int64(s.RewrittenContentSize)
	}
}

// mergeSums writes many lists of checksums as one, without those of blobs that are gone. The new list is written before the old
// ones are deleted.
func (v *Vault) mergeSums(ctx context.Context) error {
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return err
	}
	if len(c.sums) <= sumsMerged {
		return nil
	}
	there := map[blob.ID]bool{}
	if err := v.store.ListBlobs(ctx, "", func(m blob.Metadata) error { there[m.BlobID] = true; return nil }); err != nil {
		return storageFault("list blobs", err)
	}
	var old []blob.ID
	var kept []sum
	var copies []metaCopy
	size := 0
	for _, id := range c.sums {
		l, err := v.getLeaf(ctx, id)
		if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
			continue // Verify names it
		}
		if err != nil {
			return err
		}
		shared := v.known(ctx, l.Shared)
		for _, c := range shared {
			size += len(c.Data)
		}
		if size > maxCopies {
			continue // another day; half of them and more have expired then
		}
		old = append(old, id)
		copies = append(copies, shared...)
		for _, s := range l.Sums {
			if there[s.ID] {
				kept = append(kept, s)
			}
		}
	}
	if len(copies) > 0 {
		if err := v.putLeaf(ctx, newSumsLeaf(), leaf{Shared: copies}); err != nil {
			return err
		}
	}
	for len(kept) > 0 {
		n := min(len(kept), sumsPerBlob)
		v.store.returnSums(slices.Clip(kept[:n]))
		if err := v.flushChecksums(ctx); err != nil {
			return err
		}
		kept = kept[n:]
	}
	for _, id := range old {
		if err := v.store.DeleteBlob(ctx, id); err != nil {
			if kind, _ := classify(err); errors.Is(kind, fault.ErrLocked) || errors.Is(kind, fault.ErrDenied) {
				return nil // the store keeps them; they do no harm
			}
			return storageFault("delete merged checksums", err)
		}
	}
	return nil
}

// known leaves out the copies of metadata that the vault has collected as garbage.
func (v *Vault) known(ctx context.Context, copies []metaCopy) []metaCopy {
	return slices.DeleteFunc(copies, func(c metaCopy) bool {
		id, _, ok := c.ID.ContentID()
		if !ok {
			return true
		}
		info, err := v.rep.ContentInfo(ctx, id)
		return errors.Is(err, content.ErrContentNotFound) || err == nil && info.Deleted
	})
}

// readUpkeep gives what is known of past maintenance: nothing before the first.
func (v *Vault) readUpkeep(ctx context.Context) (u upkeep, err error) {
	b, err := getBlob(ctx, v.store, upkeepBlob)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return u, nil
	}
	if err != nil {
		return u, storageFault("read record of maintenance", err)
	}
	seal, err := v.sealer()
	if err != nil {
		return u, err
	}
	if n := seal.NonceSize(); len(b) >= n {
		if plain, err := seal.Open(nil, b[:n], b[n:], []byte(upkeepBlob)); err == nil && json.Unmarshal(plain, &u) == nil {
			return u, nil
		}
	}
	return upkeep{}, nil // damaged or forged it tells nothing, and the next maintenance is a full one
}

func (v *Vault) writeUpkeep(ctx context.Context, u upkeep) error {
	seal, err := v.sealer()
	if err != nil {
		return err
	}
	plain, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode record of maintenance: %w", err)
	}
	nonce := newNonce(seal.NonceSize())
	sealed := seal.Seal(nonce, nonce, plain, []byte(upkeepBlob))
	return storageFault("write record of maintenance", v.store.PutBlob(ctx, upkeepBlob, &raw{sealed}, blob.PutOptions{}))
}
