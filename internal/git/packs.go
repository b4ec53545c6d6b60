package git

import (
	"context"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"sort"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const packDir = "objects/pack"

var packName = regexp.MustCompile(`^pack-([0-9a-f]{40}|[0-9a-f]{64})\.pack$`)

// storedPack is a pack that the vault has.
type storedPack struct {
	name  string // "pack-<hexadecimal>", without extension
	size  int64  // bytes of the pack itself
	index *packIndex

	indexFile io.Closer
	pack      io.ReadSeekCloser // opened when first needed
}

// packFiles is what packs are read by: a point, or a directory of the local disk.
type packFiles interface {
	List(ctx context.Context, path string) ([]point.Entry, error)
	Open(ctx context.Context, path string) (io.ReadSeekCloser, error)
}

// packSet is the packs of one stored repository, newest name order aside. Not safe for concurrent use.
type packSet struct {
	from  packFiles
	packs []*storedPack
}

// openPacks opens the indexes of all packs in a stored repository. The caller must close the set.
func openPacks(ctx context.Context, from packFiles, format string) (*packSet, error) {
	set := &packSet{from: from}
	entries, err := from.List(ctx, packDir)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	for _, e := range entries {
		if !e.Mode.IsRegular() || !packName.MatchString(e.Name) {
			continue
		}
		p := &storedPack{name: e.Name[:len(e.Name)-len(".pack")], size: e.Size}
		if err := p.openIndex(ctx, from, format); err != nil {
			set.close()
			return nil, err
		}
		set.packs = append(set.packs, p)
	}
	return set, nil
}

func (p *storedPack) openIndex(ctx context.Context, from packFiles, format string) error {
	f, err := from.Open(ctx, p.indexPath())
	if err != nil {
		return err
	}
	p.indexFile = f
	if p.index, err = openPackIndex(f, format); err != nil {
		f.Close()
		return fault.Wrap(p.indexPath(), nil, err, "")
	}
	return nil
}

func (p *storedPack) packPath() string  { return path.Join(packDir, p.name+".pack") }
func (p *storedPack) indexPath() string { return path.Join(packDir, p.name+".idx") }

// close closes what is open. A nil set is empty.
func (s *packSet) close() {
	if s == nil {
		return
	}
	for _, p := range s.packs {
		p.indexFile.Close()
		if p.pack != nil {
			p.pack.Close()
		}
	}
}

// has tells whether a pack holds the object. A nil set holds none.
func (s *packSet) has(oid string) (bool, error) {
	lacking, err := s.lacking([]string{oid})
	return err == nil && len(lacking) == 0, err
}

// locate returns the pack that holds the object, nil when none does, and where in it the object begins.
func (s *packSet) locate(oid string) (*storedPack, int64, error) {
	if s == nil {
		return nil, 0, nil
	}
	for i, p := range s.packs {
		offset, found, err := p.index.find(oid)
		if err != nil {
			return nil, 0, fault.Wrap(p.indexPath(), nil, err, "")
		}
		if found {
			if i > 0 { // objects that are asked for together lie together
				s.packs[0], s.packs[i] = s.packs[i], s.packs[0]
			}
			return p, offset, nil
		}
	}
	return nil, 0, nil
}

// lacking returns which of oids no pack holds. It sorts oids, so that each index is read from front to back.
func (s *packSet) lacking(oids []string) ([]string, error) {
	sort.Strings(oids)
	left := oids
	if s == nil {
		return left, nil
	}
	for _, p := range s.packs {
		var still []string
		for _, oid := range left {
			found, err := p.index.has(oid)
			if err != nil {
				return nil, fault.Wrap(p.indexPath(), nil, err, "")
			}
			if !found {
				still = append(still, oid)
			}
		}
		if left = still; len(left) == 0 {
			break
		}
	}
	return left, nil
}

// named tells whether a pack of that name is in the set.
func (s *packSet) named(name string) bool {
	return s != nil && slices.ContainsFunc(s.packs, func(p *storedPack) bool { return p.name == name })
}
