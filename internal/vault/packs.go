package vault

import (
	"context"
	"errors"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"

	"github.com/backstay/backstay/internal/fault"
)

// listPacks lists the packs of the location with their lengths.
func (v *Vault) listPacks(ctx context.Context) (map[blob.ID]int64, error) {
	packs := map[blob.ID]int64{}
	for _, prefix := range content.PackBlobIDPrefixes {
		if err := v.store.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			packs[m.BlobID] = m.Length
			return nil
		}); err != nil {
			return nil, storageFault("list packs", err)
		}
	}
	return packs, nil
}

// lacking says what is wrong with the pack that a content lies in; "" for nothing.
func lacking(packs map[blob.ID]int64, i content.Info) string {
	length, ok := packs[i.PackBlobID]
	switch {
	case !ok:
		return "pack " + string(i.PackBlobID) + " is missing"
	case length < int64(i.PackOffset)+int64(i.PackedLength):
		return "pack " + string(i.PackBlobID) + " is cut short"
	}
	return ""
}

// lostIndexes returns an error where a vault that lists nothing has packs that an index told of, and no index any more. Packs of
// runs that never came to writing an index do not count: the marks of their sessions lie there still.
func (v *Vault) lostIndexes(ctx context.Context) error {
	// In this order: a run that ends meanwhile writes its index before it takes its mark away.
	packs, err := v.listPacks(ctx)
	if err != nil {
		return err
	}
	open := map[content.SessionID]bool{}
	indexes := 0
	for _, prefix := range append([]blob.ID{content.BlobIDPrefixSession}, indexPrefixes...) {
		if err := v.store.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			if prefix == content.BlobIDPrefixSession {
				open[content.SessionIDFromBlobID(m.BlobID)] = true
			} else {
				indexes++
			}
			return nil
		}); err != nil {
			return storageFault("list indexes", err)
		}
	}
	for id := range packs {
		if indexes == 0 && !open[content.SessionIDFromBlobID(id)] {
			return fault.New("list points", fault.ErrCorrupt, "there are packs, but no index of them", hintRepair)
		}
	}
	return nil
}

// packs is what a draft knows of the location's packs. It is listed once, and again for a pack that is not in the list.
type packs struct {
	mu      sync.Mutex
	lengths map[blob.ID]int64 // nil before the first look
	lost    map[blob.ID]bool  // lacking at a second look, too
	forgot  bool              // forgetLost has run
}

// refresh reads the indexes again, and lists the packs after them: what an index names was written before it. The caller holds mu.
func (p *packs) refresh(ctx context.Context, v *Vault) error {
	if err := v.rep.Refresh(ctx); err != nil {
		return storageFault("read indexes", err)
	}
	lengths, err := v.listPacks(ctx)
	if err != nil {
		return err
	}
	p.lengths = lengths
	return nil
}

// locate looks a content up in the index and for its pack in the location. One whose pack is lost is fault.ErrCorrupt.
func (d *draft) locate(ctx context.Context, id content.ID) (content.Info, error) {
	p := &d.packs
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lengths == nil { // the draft has read the indexes when it began
		lengths, err := d.v.listPacks(ctx)
		if err != nil {
			return content.Info{}, err
		}
		p.lengths = lengths
	}
	info, err := d.w.ContentInfo(ctx, id)
	if err != nil || lacking(p.lengths, info) == "" {
		return info, err
	}
	if !p.lost[info.PackBlobID] {
		if own, err := d.unwritten(ctx, info); own || err != nil {
			return info, err
		}
		if err := p.refresh(ctx, d.v); err != nil {
			return info, err
		}
		if info, err = d.w.ContentInfo(ctx, id); err != nil {
			return info, err
		}
	}
	what := lacking(p.lengths, info)
	if what == "" {
		return info, nil
	}
	p.lost[info.PackBlobID] = true
	return info, fault.New("content "+id.String(), fault.ErrCorrupt, what, hintRepair)
}

// unwritten reports whether this session has a content that it has not entered in the vault's index yet: its pack may still be in
// memory.
func (d *draft) unwritten(ctx context.Context, info content.Info) (bool, error) {
	entered, err := d.v.rep.ContentInfo(ctx, info.ContentID)
	if errors.Is(err, content.ErrContentNotFound) {
		return true, nil
	}
	return err == nil && entered.PackBlobID != info.PackBlobID, err
}

// forgetLost takes everything whose pack is lost out of the index, once in a draft: as long as it is there, kopia writes none of it
// again, and a point that needs it would be broken at birth. Lists of points stay, for without them nobody would miss the points.
func (d *draft) forgetLost(ctx context.Context) error {
	p := &d.packs
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forgot {
		return nil
	}
	p.forgot = true
	if err := p.refresh(ctx, d.v); err != nil {
		return err
	}
	var mu sync.Mutex
	var lost []content.Info
	if err := d.v.rep.ContentReader().IterateContents(ctx, content.IterateOptions{}, func(i content.Info) error {
		if i.ContentID.Prefix() != manifestContents && lacking(p.lengths, i) != "" {
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, i)
		}
		return nil
	}); err != nil {
		return storageFault("look for lost data", err)
	}
	if len(lost) == 0 {
		return nil
	}
	var err error
	if p.lengths, err = d.v.listPacks(ctx); err != nil { // an index may have come since, with its packs
		return err
	}
	forgotten := 0
	for _, i := range lost {
		if lacking(p.lengths, i) == "" {
			continue
		}
		forgotten++
		if err := d.w.ContentManager().DeleteContent(ctx, i.ContentID); err != nil && !errors.Is(err, content.ErrContentNotFound) {
			return storageFault("forget lost data", err)
		}
	}
	if forgotten > 0 {
		d.warn("packs are lost; what the source still has of them is stored again. Earlier points may stay damaged, and then " +
			"stop maintenance: run `backstay verify`")
	}
	return nil
}

// warn notes what somebody must see to.
func (d *draft) warn(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, what)
}
