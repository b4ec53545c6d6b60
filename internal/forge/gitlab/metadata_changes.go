package gitlab

import (
	"context"
	"iter"
	"net/url"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// changing is a collection of which GitLab tells what changed since: issues and merge requests.
//
// A note that is written or edited, a label, a state move updated_at, but not within a minute of the move before; a note that is
// removed and a reaction do not. The sweep finds those.
func (p *Provider) changing(name, path string, query ...string) forge.Collection {
	return forge.Collection{Name: name, Since: true, Read: func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			c := changes{
				p: p, at: q.Since, seen: map[string]time.Time{}, yield: func(r archive.Record) bool { return yield(r, nil) },
				listing: listing{name: name, path: projectPath(q.Repository) + path, id: byIID},
				query:   with(hundred(), append(query, "order_by", "updated_at", "sort", "asc")...),
			}
			for !c.done {
				if err := c.advance(ctx); err != nil {
					yield(archive.Record{}, fault.Wrap(name+" of "+q.Repository.FullName(), nil, err, ""))
					return
				}
			}
		}
	}}
}

// changes is how far a reading of what changed has come. Each page is asked for by the time of the last change on the page before, not
// by its number: what changes meanwhile moves to the end and leaves no gap, and there is no 50,000th that GitLab refuses.
type changes struct {
	listing
	p     *Provider
	query url.Values
	at    time.Time            // the last change
	seen  map[string]time.Time // by ID, those of that instant
	yield func(archive.Record) bool
	done  bool // all are read, or nobody listens
}

// advance reads on until a change is newer than at, a page mostly; more where many changed in one instant, as by imports.
func (c *changes) advance(ctx context.Context) error {
	query := c.query
	if !c.at.IsZero() {
		query = with(query, "updated_after", c.at.UTC().Format(time.RFC3339Nano)) // or at it
	}
	for page, err := range c.p.pages(ctx, c.path, query) {
		if err != nil {
			return err
		}
		last, err := c.take(page)
		if err != nil || c.done {
			return err
		}
		next, err := forge.NextLink(page)
		if err != nil {
			return err
		}
		if next != "" && last.After(c.at) {
			c.move(last)
			return nil
		}
	}
	c.done = true
	return nil
}

// move goes on to a later instant. What changed before it will not come again unchanged.
func (c *changes) move(to time.Time) {
	c.at = to
	for id, updated := range c.seen {
		if updated.Before(to) {
			delete(c.seen, id)
		}
	}
}

// take yields what is new on a page, and says when the last of it changed.
func (c *changes) take(page forge.Page) (last time.Time, err error) {
	for _, raw := range page.Items {
		record, err := c.record(raw)
		if err != nil {
			return last, err
		}
		if record.Updated.IsZero() {
			return last, fault.New("gitlab "+c.name, fault.ErrUnavailable, "the server listed one without a date", "")
		}
		last = record.Updated
		if updated, seen := c.seen[record.ID]; seen && updated.Equal(last) {
			continue
		}
		c.seen[record.ID] = last
		if !c.yield(record) {
			c.done = true
			return last, nil
		}
	}
	return last, nil
}
