package git

import (
	"context"
	"errors"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// marked tells whether the source's word for the repository's state is that of the prior copy, and the refs themselves were compared
// so lately that the word is enough.
func (c *capture) marked() bool {
	o := c.source.o
	if c.prior == nil || o.Mark == "" || o.Now == nil {
		return false
	}
	p := c.prior.Part
	if p.State != point.Stored || p.Mark != o.Mark || p.ID != o.ID || p.Checked == nil {
		return false
	}
	if o.AllRefs && slices.ContainsFunc(p.Counts, func(n point.Count) bool { return n.Excluded > 0 }) {
		return false // the copy was made when less was asked for
	}
	age := o.Now().Sub(*p.Checked)
	return age >= 0 && age < o.Recheck
}

// keepMarked keeps the prior copy without asking the source. It keeps nothing of a copy that it finds damaged.
func (c *capture) keepMarked(ctx context.Context) (kept bool, _ error) {
	list, err := c.prior.Open(ctx, lfsFile)
	switch {
	case err == nil:
		list.Close()
		c.pointersUnread = true
	case errors.Is(err, fault.ErrCorrupt):
		return false, nil
	case !errors.Is(err, fault.ErrNotFound):
		return false, inVault(err)
	}
	p := c.prior.Part
	p.Notes = mergeNotes(p.Notes, nil)
	return true, c.keepWhole(ctx, p)
}

// keepWhole ends the repository's part with the prior copy as it is.
func (c *capture) keepWhole(ctx context.Context, p point.Part) error {
	if err := c.w.Keep(ctx, "."); err != nil {
		return inVault(err)
	}
	p.Unchanged, c.kept = true, true
	return inVault(c.w.Store(ctx, p))
}

// complete tells whether a prior copy of the LFS objects is all that the repository's own, which was kept, has pointers for. It is
// where both come from one run: one that was cut short between the two leaves the objects of an earlier state.
func (c *capture) complete(lfs *point.Prior) bool {
	if !c.kept || lfs == nil || lfs.Part.State != point.Stored || !lfs.Time.Equal(c.prior.Time) {
		return false
	}
	return !slices.ContainsFunc(lfs.Part.Counts, func(n point.Count) bool { return !n.Closes() || len(n.MissingAtSource) > 0 })
}
