package git

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// alarms compares the refs with those of the prior copy and raises an alarm for changes as a damaged or hijacked source shows
// them. The prior copy is then held; this one is stored all the same.
func (c *capture) alarms(ctx context.Context, had *packSet) error {
	if c.before == nil {
		return nil
	}
	fresh, err := c.newPacks(ctx)
	if err != nil {
		return err
	}
	defer fresh.close()
	j := &judge{before: c.before.refs, now: c.now, history: newHistory(c.now.Format, fresh, had)}
	err = j.compare(ctx)
	if errors.Is(err, fault.ErrCorrupt) {
		c.part.Notes = append(c.part.Notes, "how branches moved could not be followed: "+shorten(err.Error()))
		return inVault(c.w.Alarm(ctx, "an earlier pack cannot be read; verify the vault with --read-data"))
	}
	if err != nil {
		return inVault(err)
	}
	for _, finding := range j.findings(c.source.o.AlarmPercent, c.source.o.AlarmLeast) {
		if err := c.w.Alarm(ctx, finding); err != nil {
			return inVault(err)
		}
	}
	if j.unknown > 0 {
		c.part.Notes = append(c.part.Notes, fmt.Sprintf("%d branches moved in a way that could not be followed", j.unknown))
	}
	return nil
}

// newPacks opens the new pack like stored ones; nil where nothing arrived.
func (c *capture) newPacks(ctx context.Context) (*packSet, error) {
	if c.new == nil {
		return nil, nil
	}
	return openPacks(ctx, diskFiles(c.new.dir), c.now.Format)
}

// judge compares two lists of refs.
type judge struct {
	before, now *RefList
	history     *history

	refs      int // of before, but for HEAD and those that forges make up
	gone      int // of them
	branches  int // of before
	rewritten int // branches
	unknown   int // branches that moved in a way the walk could not follow
	main      string
	mainMoved string // what happened to the default branch; "" for nothing bad
}

func (j *judge) compare(ctx context.Context) error {
	if h := j.before.find(head); h != nil {
		j.main = h.Target
	}
	now := make(map[string]*Ref, len(j.now.Refs))
	for i := range j.now.Refs {
		now[j.now.Refs[i].Name] = &j.now.Refs[i]
	}
	for _, old := range j.before.Refs {
		if old.Name == head || madeByForge(old.Name) {
			continue
		}
		j.refs++
		branch := strings.HasPrefix(old.Name, "refs/heads/")
		if branch {
			j.branches++
		}
		switch ref := now[old.Name]; {
		case ref == nil:
			j.lost(old, now[head])
		case branch && old.OID != "" && ref.OID != old.OID:
			if err := j.moved(ctx, old, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *judge) lost(old Ref, newHead *Ref) {
	j.gone++
	if old.Name != j.main {
		return
	}
	j.mainMoved = "default branch " + printable(old.Name) + " is gone"
	if newHead != nil && newHead.Target != "" && newHead.Target != old.Name {
		j.mainMoved += ", HEAD names " + printable(newHead.Target) + " now"
	}
}

func (j *judge) moved(ctx context.Context, old Ref, ref *Ref) error {
	forward, err := j.history.descends(ctx, ref.OID, old.OID)
	switch {
	case errors.Is(err, errUnknown):
		j.unknown++
		return nil
	case err != nil:
		return err
	case forward:
		return nil
	}
	j.rewritten++
	if old.Name == j.main {
		j.mainMoved = fmt.Sprintf("default branch %s was rewritten: %s is no ancestor of %s", printable(old.Name), short(old.OID), short(ref.OID))
	}
	return nil
}

// short is enough of an object id for a person to find it.
func short(oid string) string { return oid[:min(len(oid), 12)] }

// findings tells what deserves an alarm. From least refs or branches on, a share above percent does.
func (j *judge) findings(percent, least int) []string {
	var all []string
	many := func(n, of int) bool { return n >= least && n*100 > of*percent }
	switch {
	case j.refs > 0 && j.now.count() == 0:
		all = append(all, fmt.Sprintf("all %d refs are gone", j.refs))
	case many(j.gone, j.refs):
		all = append(all, fmt.Sprintf("%d of %d refs are gone", j.gone, j.refs))
	}
	if many(j.rewritten, j.branches) {
		all = append(all, fmt.Sprintf("%d of %d branches were rewritten", j.rewritten, j.branches))
	}
	if j.mainMoved != "" {
		all = append(all, j.mainMoved)
	}
	return all
}
