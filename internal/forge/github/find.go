package github

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Find implements forge.Finder. What GitHub blocks is there still: that is fault.ErrDenied.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	op := "find " + r.FullName()
	path, decode := "/repositories/"+r.ID, p.decode
	id, isGist := strings.CutPrefix(r.ID, "gist:")
	if r.ID == "" {
		id, isGist = r.Name, r.Class == forge.Gist
	}
	switch {
	case isGist:
		path, decode = "/gists/"+id, p.decodeGist
	case r.ID == "":
		path = "/repos/" + r.FullName()
	}
	if !plain(id) || (r.ID == "" && !plain(r.Owner)) {
		return forge.Repository{}, fault.New(op, fault.ErrInvalid, "GitHub has no repositories of such names", "")
	}
	var raw json.RawMessage
	answer, err := p.client.Do(ctx, http.MethodGet, path, nil, nil, &raw)
	if err != nil {
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	found, err := decode(raw, answer.Date())
	found.Class = r.Class
	return found, fault.Wrap(op, nil, err, "")
}

// Issues implements forge.IssueReader. Pull requests are issues to GitHub, and are among them.
func (p *Provider) Issues(ctx context.Context, r forge.Repository) iter.Seq2[forge.Issue, error] {
	op := "issues of " + r.FullName()
	// The oldest first: what is new while we read comes last, and moves nothing between pages.
	query := url.Values{"state": {"all"}, "sort": {"created"}, "direction": {"asc"}, "per_page": {perPage}}
	path := "/repos/" + r.FullName() + "/issues"
	return func(yield func(forge.Issue, error) bool) {
		if !plain(r.Owner) || !plain(r.Name) {
			yield(forge.Issue{}, fault.New(op, fault.ErrInvalid, "GitHub has no repositories of such names", ""))
			return
		}
		for page, err := range p.client.Pages(ctx, path, query, "") {
			if errors.Is(err, fault.ErrNotFound) && p.withoutIssues(ctx, path) {
				return
			}
			if err != nil {
				yield(forge.Issue{}, fault.Wrap(op, nil, err, ""))
				return
			}
			for _, raw := range page.Items {
				issue, err := decodeIssue(raw)
				if !yield(issue, fault.Wrap(op, nil, err, "")) || err != nil {
					return
				}
			}
		}
	}
}

// withoutIssues reports whether a repository's issues are switched off, which GitHub tells by 410.
func (p *Provider) withoutIssues(ctx context.Context, path string) bool {
	answer, err := p.client.Do(ctx, http.MethodGet, path, url.Values{"per_page": {"1"}}, nil, nil, http.StatusGone)
	return err == nil && answer.Status == http.StatusGone
}

func decodeIssue(raw json.RawMessage) (forge.Issue, error) {
	var o struct {
		Number  int64     `json:"number"`
		Updated time.Time `json:"updated_at"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return forge.Issue{}, fault.Wrap("issue object", fault.ErrCorrupt, err, "")
	}
	if o.Number <= 0 {
		return forge.Issue{}, fault.New("issue object", fault.ErrCorrupt, "it has no number", "")
	}
	return forge.Issue{Number: o.Number, Updated: o.Updated, Raw: raw}, nil
}
