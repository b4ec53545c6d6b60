package export

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// recheck is how often a copy that did not change has its record written again, to say that the source was asked.
const recheck = 24 * time.Hour

// commit makes the new state of the copy valid.
func (c *copying) commit(ctx context.Context) error {
	if !slices.ContainsFunc(c.parts, func(w *writer) bool { return w.entry.State == point.Stored || w.entry.State == point.Carried }) {
		return nil // the first copy failed; what came of it helps the next run
	}
	changed := c.due || c.prior == nil || c.prior.record.Updating
	for _, w := range c.parts {
		if w.changed() {
			changed = true
		} else if w.entry.State == point.Stored {
			w.entry.Unchanged = true
			w.entry.NewBytes = 0
		}
	}
	if !changed {
		return c.unchanged(ctx)
	}
	r, err := c.publish(ctx)
	if err != nil {
		return fault.Wrap("export "+c.repository+" to "+c.place.String(), nil, err, "")
	}
	return fault.Wrap("export "+c.repository+" to "+c.place.String(), nil, c.settle(ctx, r), "")
}

// unchanged leaves the copy as it is. What the source says of itself is noted when it says something else, and once a day. Copies that
// a killed run was about to drop go now.
func (c *copying) unchanged(ctx context.Context) error {
	if c.e.o.Layout.Keep > 0 {
		return fault.Wrap("export "+c.repository+" to "+c.place.String(), nil, c.dropOlder(ctx), "")
	}
	if !c.inPlace() {
		return nil
	}
	due := false
	for _, w := range c.parts {
		had := w.before()
		if had == nil || w.entry.State != point.Stored {
			continue
		}
		due = due || had.Part.Mark != w.entry.Mark || had.Part.ID != w.entry.ID ||
			w.entry.Checked != nil && (had.Part.Checked == nil || w.entry.Checked.Sub(*had.Part.Checked) >= recheck)
	}
	if !due {
		return nil
	}
	return c.writeRecord(ctx, c.newRecord(c.prior.record.Kept))
}

// newRecord describes the copy as it is after this run. Parts that this run did not touch stay described.
func (c *copying) newRecord(kept []string) *record {
	r := &record{Version: recordVersion, Of: c.origin, Time: c.started.UTC(), Parts: map[slot]contents{}, Kept: kept}
	if c.prior != nil {
		maps.Copy(r.Parts, c.prior.record.Parts)
	}
	for _, w := range c.parts {
		if w.entry.State == point.Stored || w.entry.State == point.Carried {
			r.Parts[w.slot] = w.contents()
		}
	}
	return r
}

// publish brings all files to where they are written, in the order that keeps the repository whole: what nothing refers to yet first.
func (c *copying) publish(ctx context.Context) (*record, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if err := c.bring(ctx); err != nil {
		return nil, err
	}
	var kept []string
	var git *writer
	for _, w := range c.parts {
		if w.slot == slotGit {
			git = w
		} else if err := c.putAll(ctx, w, w.small); err != nil {
			return nil, err
		}
	}
	if git != nil && (git.entry.State == point.Stored || git.entry.State == point.Carried) {
		var err error
		if kept, err = c.layRepository(ctx, git); err != nil {
			return nil, err
		}
	} else if c.prior != nil {
		kept = c.prior.record.Kept
	}
	r := c.newRecord(kept)
	return r, c.writeRecord(ctx, r)
}

// putAll writes small files as they are, but for those that lie there already.
func (c *copying) putAll(ctx context.Context, w *writer, names map[string]*spool) error {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := c.putSmall(ctx, w, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) putSmall(ctx context.Context, w *writer, name string) error {
	if had := w.before(); had != nil && c.inPlace() && had.Sums[name] == w.sums[name] {
		return nil
	}
	_, err := c.w.Put(ctx, c.at.path(w.slot, name), w.small[name].content())
	return err
}

// bring copies what is kept from the prior copy, unless the copy is that one. Into a zip file that holds no checked-out files, entries
// go later, as they are.
func (c *copying) bring(ctx context.Context) error {
	if c.prior == nil || c.inPlace() || (c.stage != "" && c.e.o.Layout.Form != Worktree) {
		return nil
	}
	return c.eachKept(ctx, func(in slot, name string) error {
		from, to := c.prior.at.path(in, name), c.at.path(in, name)
		if p, same := c.prior.from.(Place); same && c.stage == "" {
			return copyFile(ctx, p, from, to)
		}
		f, err := c.prior.from.Open(ctx, from)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = c.w.Put(ctx, to, f)
		return err
	})
}

// eachKept calls each for the files of the prior copy that the new one has, too: also those of parts that this run did not touch.
func (c *copying) eachKept(ctx context.Context, each func(in slot, name string) error) error {
	untouched := maps.Clone(c.prior.record.Parts)
	for _, w := range c.parts {
		delete(untouched, w.slot)
		for name := range w.kept {
			if err := each(w.slot, name); err != nil {
				return err
			}
		}
		if !w.all {
			continue
		}
		if err := c.eachOf(ctx, w.slot, func(name string) bool { return w.wrote(name) }, each); err != nil {
			return err
		}
	}
	for in := range untouched {
		if err := c.eachOf(ctx, in, func(string) bool { return false }, each); err != nil {
			return err
		}
	}
	return nil
}

// ofCheckout are files of a clone that speak of the files that lie beside it, which are checked out anew in another copy.
var ofCheckout = []string{"index", "index.lock", "backstay-checkout"}

// eachOf calls each for all files of a slot of the prior copy, but for those left out.
func (c *copying) eachOf(ctx context.Context, in slot, leave func(name string) bool, each func(in slot, name string) error) error {
	return walk(ctx, c.prior.from, c.prior.at.path(in, "."), func(name string, e point.Entry) error {
		others := in == slotGit && (strings.HasPrefix(name, "lfs/") || slices.Contains(ofCheckout, name))
		if !e.Mode.IsRegular() || others || strings.HasPrefix(path.Base(name), recordName) || leave(name) {
			return nil
		}
		return each(in, name)
	})
}

// settle puts a copy that was made elsewhere where it belongs, and removes what is needed no more.
func (c *copying) settle(ctx context.Context, r *record) error {
	switch {
	case c.stage != "":
		if err := c.putArchive(ctx); err != nil {
			return err
		}
	case c.at != c.final:
		if err := c.moveIn(ctx, r); err != nil {
			return err
		}
	}
	if c.e.o.Layout.Keep > 0 {
		return c.dropOlder(ctx)
	}
	if err := c.dropSuperseded(ctx); err != nil {
		return err
	}
	return c.tidy(ctx)
}

// tidy removes files that runs have left half written that were killed a day ago and longer.
func (c *copying) tidy(ctx context.Context) error {
	dirs := []string{c.final.path(slotGit, "."), c.final.path(slotGit, "objects/pack")}
	if c.e.o.Layout.Zip {
		dirs = []string{c.final.dir}
	}
	for _, dir := range dirs {
		entries, err := c.place.List(ctx, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name, point.UnfinishedPrefix) || !e.Mode.IsRegular() || e.Time.After(c.started.Add(-recheck)) {
				continue
			}
			if err := c.place.Remove(ctx, path.Join(dir, e.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveIn renames what was built beside, issues first, so that the copy is whole once its directory is there.
func (c *copying) moveIn(ctx context.Context, r *record) error {
	place, renames := c.place.(renamer)
	if !renames {
		return nil
	}
	if _, has := r.Parts[slotIssues]; has {
		if err := place.Rename(ctx, c.at.path(slotIssues, "."), c.final.path(slotIssues, ".")); err != nil {
			return err
		}
	}
	return place.Rename(ctx, c.at.top(), c.final.top())
}

// dropOlder removes the oldest of the copies kept beside each other: only those whose record says that they are ours.
func (c *copying) dropOlder(ctx context.Context) error {
	entries, err := c.place.List(ctx, c.path)
	if err != nil {
		return err
	}
	left := c.e.o.Layout.Keep
	for _, stamp := range c.stamps(entries) {
		at := c.siteOf(c.path, strconv.FormatInt(stamp, 10))
		whole, ours := true, true
		if stamp != c.stamp {
			if whole, ours, err = c.isOurs(ctx, at); err != nil {
				return err
			}
		}
		if whole {
			left--
		}
		old := stamp <= c.started.Add(-recheck).Unix()
		if (whole && left < 0) || (ours && !whole && old) {
			if err := c.drop(ctx, at); err != nil {
				return err
			}
		}
	}
	return c.dropUnfinished(ctx, entries)
}

// isOurs tells whether a copy is this repository's, and whether it was finished.
func (c *copying) isOurs(ctx context.Context, at site) (whole, ours bool, err error) {
	found, ours, err := c.look(ctx, at)
	switch {
	case errors.Is(err, fault.ErrExists), errors.Is(err, fault.ErrCorrupt), errors.Is(err, fault.ErrUnsupported):
		return false, false, nil
	case found == nil:
		return false, ours, err
	}
	if a, is := found.from.(*archive); is {
		a.close()
	}
	return true, true, nil
}

// dropUnfinished removes what runs have left that were killed a day ago and longer.
func (c *copying) dropUnfinished(ctx context.Context, entries []point.Entry) error {
	for _, e := range entries {
		stamp, unfinished := strings.CutPrefix(e.Name, point.UnfinishedPrefix)
		n, err := strconv.ParseInt(strings.TrimSuffix(stamp, ".issues"), 10, 64)
		if !unfinished || err != nil || n > c.started.Add(-recheck).Unix() {
			continue
		}
		if err := c.place.Remove(ctx, path.Join(c.path, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a copy, its record and its name first, so that what a crash leaves of it is never taken for whole.
func (c *copying) drop(ctx context.Context, at site) error {
	if c.e.o.Layout.Zip {
		return c.place.Remove(ctx, at.top()+".zip")
	}
	unfinished := &record{Version: recordVersion, Of: c.origin, Updating: true}
	if _, err := c.place.Put(ctx, at.record(), bytes.NewReader(unfinished.encode())); err != nil {
		return err
	}
	if err := c.place.Remove(ctx, at.path(slotIssues, ".")); err != nil {
		return err
	}
	if place, renames := c.place.(renamer); renames {
		named := at.top()
		at.leaf = point.UnfinishedPrefix + at.leaf
		if err := place.Rename(ctx, named, at.top()); err != nil {
			return err
		}
	}
	return c.place.Remove(ctx, at.top())
}
