package vault

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
)

// volumePrefix begins the names of leaves that hold many statements. An "s" is no hexadecimal digit: no single one is named so.
const volumePrefix = evidencePrefix + "s"

const (
	foldedAt  = 500    // statements that are let be
	perVolume = 10_000 // statements of one volume
)

// statementLeaves is what the leaves of evidence hold.
type statementLeaves struct {
	singles map[blob.ID]*evidence.Statement // by the leaf that is named for it; nil where that is damaged
	bound   map[string]bool                 // hashes of those in volumes
	copies  map[string]*evidence.Statement  // all, by hash, also where only another's leaf has it
	damaged []blob.ID                       // volumes
}

// readStatements reads the leaves of evidence. Where one goes meanwhile, somebody folds them: it begins anew.
func (v *Vault) readStatements(ctx context.Context) (*statementLeaves, error) {
	const tries = 5
	for try := 1; ; try++ {
		read, whole, err := v.tryStatements(ctx)
		if err != nil {
			return nil, err
		}
		if whole {
			return read, nil
		}
		if try == tries {
			return nil, fault.New("read evidence", fault.ErrUnavailable, "it is written anew again and again", "try again later")
		}
	}
}

func (v *Vault) tryStatements(ctx context.Context) (read *statementLeaves, whole bool, err error) {
	leaves, err := blob.ListAllBlobs(ctx, v.store, evidencePrefix)
	if err != nil {
		return nil, false, storageFault("list evidence", err)
	}
	read = &statementLeaves{singles: map[blob.ID]*evidence.Statement{}, bound: map[string]bool{}, copies: map[string]*evidence.Statement{}}
	whole = true
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, m := range leaves {
		group.Go(func() error {
			l, err := v.getLeaf(ctx, m.BlobID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, blob.ErrBlobNotFound):
				whole = false
			case err == nil || errors.Is(err, fault.ErrCorrupt): // what it says may stand in another
				read.take(m.BlobID, l)
			default:
				return err
			}
			return nil
		})
	}
	return read, whole, group.Wait()
}

// take takes a leaf in; nil is one that is damaged.
func (r *statementLeaves) take(id blob.ID, l *leaf) {
	name, single := parseEvidenceName(id)
	volume := strings.HasPrefix(string(id), string(volumePrefix))
	if single {
		r.singles[id] = nil
	}
	if l == nil {
		if volume {
			r.damaged = append(r.damaged, id)
		}
		return
	}
	for _, line := range l.Evidence {
		s, err := evidence.Parse([]byte(line))
		if err != nil {
			continue
		}
		r.copies[s.Hash] = s
		if volume {
			r.bound[s.Hash] = true
		}
		if single && s.Hash == name.hash {
			r.singles[id] = s
		}
	}
}

// all is the statements in order.
func (r *statementLeaves) all() []*evidence.Statement {
	list := make([]*evidence.Statement, 0, len(r.copies))
	for _, s := range r.copies {
		list = append(list, s)
	}
	return evidence.Sort(list)
}

// lost says what leaves should have, and no other has.
func (r *statementLeaves) lost() (faults []evidence.Fault) {
	for id := range r.singles {
		if n, _ := parseEvidenceName(id); r.copies[n.hash] == nil {
			faults = append(faults, evidence.Fault{Hash: n.hash, What: string(id) + " is damaged, and no other has a copy"})
		}
	}
	for _, id := range r.damaged {
		faults = append(faults, evidence.Fault{What: string(id) + " is damaged"})
	}
	slices.SortFunc(faults, func(a, b evidence.Fault) int { return strings.Compare(a.What, b.What) })
	return faults
}

// homeless reports whether a statement has no leaf of its own, nor is in a volume.
func (r *statementLeaves) homeless(s *evidence.Statement) bool {
	return !r.bound[s.Hash] && r.singles[nameOf(s).leaf()] == nil
}

// foldEvidence puts many statements into few leaves: whoever lists the catalogue pays for each. Those that nothing follows stay, for the
// next one follows them. What is folded is written before its leaves are struck.
func (v *Vault) foldEvidence(ctx context.Context) error {
	read, err := v.readStatements(ctx)
	if err != nil {
		return err
	}
	followed := map[string]bool{}
	for _, s := range read.copies {
		for _, p := range s.Previous {
			followed[p] = true
		}
	}
	var fresh []*evidence.Statement
	var old []blob.ID
	for id, s := range read.singles {
		if s == nil || !followed[s.Hash] {
			continue
		}
		old = append(old, id)
		if !read.bound[s.Hash] {
			fresh = append(fresh, s)
		}
	}
	if len(old) <= foldedAt {
		return nil
	}
	for some := range slices.Chunk(evidence.Sort(fresh), perVolume) {
		var l leaf
		for _, s := range some {
			l.Evidence = append(l.Evidence, string(s.Line))
		}
		if err := v.writeLeaf(ctx, volumePrefix+blob.ID(randomID()), l); err != nil {
			return err
		}
	}
	v.strike(ctx, old...)
	return nil
}
