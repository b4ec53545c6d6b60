package gitlab

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// issue is what is read of an issue.
type issue struct {
	Number  int64     `json:"iid"`
	Created time.Time `json:"created_at"`
	Updated time.Time `json:"updated_at"`
}

// Issues implements forge.IssueReader: oldest first.
func (p *Provider) Issues(ctx context.Context, r forge.Repository) iter.Seq2[forge.Issue, error] {
	return func(yield func(forge.Issue, error) bool) {
		l := issueList{
			p: p, path: "/projects/" + escaped(r.ID) + "/issues", seen: map[int64]bool{},
			yield: func(i forge.Issue) bool { return yield(i, nil) },
		}
		for !l.done {
			if err := l.advance(ctx); err != nil {
				yield(forge.Issue{}, fault.Wrap("issues of "+r.FullName(), nil, err, ""))
				return
			}
		}
	}
}

// issueList is how far a project's issues have been read. Each page is asked for by the time of the last issue of the page before,
// not by its number: so nothing is missed when issues are deleted meanwhile, and there is no 50,000th that GitLab refuses. (Its own way
// to do that came with version 18.3.)
type issueList struct {
	p     *Provider
	path  string
	since time.Time // the last one's creation
	seen  map[int64]bool
	yield func(forge.Issue) bool
	done  bool // all are read, or nobody listens
}

// advance reads on until an issue is newer than since, a page mostly; more where many were made in one instant, as imports do.
func (l *issueList) advance(ctx context.Context) error {
	query := url.Values{"scope": {"all"}, "state": {"all"}, "order_by": {"created_at"}, "sort": {"asc"}, "per_page": {"100"}}
	if !l.since.IsZero() {
		query.Set("created_after", l.since.Format(time.RFC3339Nano)) // or at it
	}
	for page, err := range l.p.pages(ctx, l.path, query) {
		if err != nil {
			return err
		}
		last, err := l.take(page.Items)
		if err != nil || l.done {
			return err
		}
		next, err := forge.NextLink(page)
		if err != nil {
			return err
		}
		if next != "" && last.After(l.since) {
			l.since = last
			return nil
		}
	}
	l.done = true
	return nil
}

// take yields the issues of a page that are new, and says when the last one was made.
func (l *issueList) take(items []json.RawMessage) (last time.Time, err error) {
	for _, raw := range items {
		var in issue
		if err := json.Unmarshal(raw, &in); err != nil {
			return last, fault.Wrap("gitlab issue", fault.ErrUnavailable, err, "")
		}
		if in.Number <= 0 || in.Created.IsZero() {
			return last, fault.New("gitlab issue", fault.ErrUnavailable, "the server listed one without number or date", "")
		}
		last = in.Created
		if l.seen[in.Number] {
			continue
		}
		l.seen[in.Number] = true
		if !l.yield(forge.Issue{Number: in.Number, Updated: in.Updated, Raw: raw}) {
			l.done = true
			return last, nil
		}
	}
	return last, nil
}
