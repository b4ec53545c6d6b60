package export

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// maxIndexes bounds the indexes that are read at once to find packs that are needed no more, in bytes.
const maxIndexes = 128 << 20

// dropSuperseded removes packs of which every object is in the packs that this run has written or kept: a vault that merged packs hands
// out the merged one. A pack with anything else in it stays, for a lost tip may need it.
func (c *copying) dropSuperseded(ctx context.Context) error {
	i := slices.IndexFunc(c.parts, func(w *writer) bool { return w.slot == slotGit && w.small[packedRefs] != nil && !w.all })
	if i < 0 || !c.inPlace() {
		return nil
	}
	packs := c.at.path(slotGit, "objects/pack")
	entries, err := c.place.List(ctx, packs)
	if err != nil {
		return err
	}
	var current, extra []string
	var size int64
	for _, e := range entries {
		stem, isIndex := strings.CutSuffix(e.Name, ".idx")
		if !isIndex || !strings.HasPrefix(stem, "pack-") {
			continue
		}
		size += e.Size
		if c.parts[i].has("objects/pack/" + e.Name) {
			current = append(current, stem)
		} else {
			extra = append(extra, stem)
		}
	}
	if len(extra) == 0 || size > maxIndexes {
		return nil
	}
	superseded, err := c.superseded(ctx, packs, extra, current)
	if err != nil {
		return err
	}
	for _, stem := range superseded {
		// The index goes last: what a crash leaves is found again by it.
		for _, ending := range []string{".bitmap", ".rev", ".pack", ".idx"} {
			if err := c.place.Remove(ctx, path.Join(packs, stem+ending)); err != nil {
				return err
			}
		}
	}
	return nil
}

// has tells whether the part has the file after this run.
func (w *writer) has(name string) bool {
	_, kept := w.kept[name]
	_, put := w.put[name]
	return kept || put
}

// superseded returns those of extra whose objects the packs of current have. An index that cannot be read decides nothing.
func (c *copying) superseded(ctx context.Context, dir string, extra, current []string) ([]string, error) {
	var now []*packIndex
	for _, stem := range current {
		index, err := c.readIndex(ctx, path.Join(dir, stem+".idx"))
		if errors.Is(err, fault.ErrCorrupt) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		now = append(now, index)
	}
	var found []string
	for _, stem := range extra {
		index, err := c.readIndex(ctx, path.Join(dir, stem+".idx"))
		if errors.Is(err, fault.ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if index.within(now) {
			found = append(found, stem)
		}
	}
	return found, nil
}

func (c *copying) readIndex(ctx context.Context, name string) (*packIndex, error) {
	raw, err := readLimited(ctx, c.place, name, maxIndexes)
	if err != nil {
		return nil, err
	}
	index, err := parsePackIndex(raw)
	return index, fault.Wrap("read "+name, nil, err, "")
}

// packIndex is the sorted list of the objects of a pack.
type packIndex struct {
	names []byte
	width int // bytes of a name
}

const (
	indexHeader = 8       // bytes: magic number and version
	fanoutSize  = 256 * 4 // bytes
)

// parsePackIndex reads the names of an index file of version 2. Their width is the one that the file's own size agrees with.
func parsePackIndex(raw []byte) (*packIndex, error) {
	corrupt := fault.New("", fault.ErrCorrupt, "not an index of a pack that can be read", "")
	if len(raw) < indexHeader+fanoutSize || !bytes.HasPrefix(raw, []byte("\xfftOc\x00\x00\x00\x02")) {
		return nil, corrupt
	}
	count := int64(binary.BigEndian.Uint32(raw[indexHeader+fanoutSize-4:]))
	for _, width := range []int{20, 32} {
		// Each object has its name, a checksum and an offset of four bytes each, and at most eight more for a large offset.
		least := indexHeader + fanoutSize + count*int64(width+8) + 2*int64(width)
		if size := int64(len(raw)); size < least || size > least+8*count || (size-least)%8 != 0 {
			continue
		}
		names := raw[indexHeader+fanoutSize:][:count*int64(width)]
		p := &packIndex{names, width}
		if p.sorted() {
			return p, nil
		}
	}
	return nil, corrupt
}

func (p *packIndex) len() int { return len(p.names) / p.width }

func (p *packIndex) name(i int) []byte { return p.names[i*p.width : (i+1)*p.width] }

func (p *packIndex) sorted() bool {
	for i := 1; i < p.len(); i++ {
		if bytes.Compare(p.name(i-1), p.name(i)) >= 0 {
			return false
		}
	}
	return true
}

func (p *packIndex) has(name []byte) bool {
	i := sort.Search(p.len(), func(i int) bool { return bytes.Compare(p.name(i), name) >= 0 })
	return i < p.len() && bytes.Equal(p.name(i), name)
}

// within tells whether each object is in one of others.
func (p *packIndex) within(others []*packIndex) bool {
	for i := range p.len() {
		if !slices.ContainsFunc(others, func(o *packIndex) bool { return o.has(p.name(i)) }) {
			return false
		}
	}
	return true
}
