package gitea

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Issues implements forge.IssueReader. Gogs takes one state at a time.
func (p *Provider) Issues(ctx context.Context, r forge.Repository) iter.Seq2[forge.Issue, error] {
	states := []string{"all"}
	if p.o.Gogs {
		states = []string{"open", "closed"}
	}
	return func(yield func(forge.Issue, error) bool) {
		var d repository
		if json.Unmarshal(r.Raw, &d) == nil && d.HasIssues != nil && !*d.HasIssues {
			return
		}
		seen := map[int64]bool{}
		for _, state := range states {
			query := url.Values{"state": {state}, "type": {"issues"}}
			for page, err := range p.client.List(ctx, pages(path("repos", r.Owner, r.Name, "issues"), query, false)) {
				if err != nil {
					yield(forge.Issue{}, scoped(err))
					return
				}
				for _, raw := range page.Items {
					issue, err := decodeIssue(raw)
					if err == nil && seen[issue.Number] {
						continue
					}
					seen[issue.Number] = true
					if !yield(issue, err) || err != nil {
						return
					}
				}
			}
		}
	}
}

func decodeIssue(raw json.RawMessage) (forge.Issue, error) {
	var d struct {
		Number  int64     `json:"number"`
		Updated time.Time `json:"updated_at"`
	}
	if err := json.Unmarshal(raw, &d); err != nil || d.Number <= 0 {
		return forge.Issue{}, fault.New("issue", fault.ErrUnavailable, "the server answers with what is no issue", "")
	}
	return forge.Issue{Number: d.Number, Updated: d.Updated, Raw: raw}, nil
}
