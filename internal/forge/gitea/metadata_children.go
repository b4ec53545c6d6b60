package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// child reads what belongs to a record.
type child func(ctx context.Context, r forge.Repository, of archive.Record) iter.Seq2[archive.Record, error]

// children reads what belongs to each of the parents, one after the other. What went meanwhile has none.
func (p *Provider) children(collection string, read child) reading {
	return func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			for _, parent := range q.Parents {
				for r, err := range read(ctx, q.Repository, parent) {
					if errors.Is(err, fault.ErrNotFound) {
						break
					}
					r.Collection, r.Parent = cmp.Or(r.Collection, collection), parent.Key
					if !yield(r, err) || err != nil {
						return
					}
				}
			}
		}
	}
}

// timelineOf reads what happened to an issue, but for its comments, which are read by themselves.
func (p *Provider) timelineOf(ctx context.Context, r forge.Repository, issue archive.Record) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		size, err := p.pageItems(ctx)
		if err != nil {
			yield(archive.Record{}, err)
			return
		}
		for page, err := range p.client.List(ctx, timelinePages(below(r, "issues/"+issue.ID+"/timeline"), size, hidden(issue.Raw))) {
			if err != nil {
				yield(archive.Record{}, scoped(err))
				return
			}
			for _, raw := range page.Items {
				event, err := byID(raw)
				if err == nil && sortOf(raw) == "comment" {
					continue
				}
				if !yield(event, err) || err != nil {
					return
				}
			}
		}
	}
}

func sortOf(raw json.RawMessage) string {
	var d struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(raw, &d) // one without a type is of none
	return d.Type
}

// hidden is how many entries of a timeline may be left out of its pages: those that are said of code. The issue counts them.
func hidden(raw json.RawMessage) int {
	var d struct {
		Comments int       `json:"comments"`
		Pull     *struct{} `json:"pull_request"`
	}
	if json.Unmarshal(raw, &d) != nil || d.Pull == nil {
		return 0
	}
	return max(d.Comments, 0)
}

// timelinePages go on until a page is short or two are empty. They carry neither links nor a count of the whole, and leave out entries
// after they were cut: what is said of code, and references in repositories that the account cannot see. So a page is short only
// where the hidden ones, and as many unseen ones as half a page, would not fill it.
func timelinePages(at string, size, hidden int) forge.Listing {
	number, empty := 1, 0
	return forge.Listing{
		Path: at, Query: url.Values{"limit": {strconv.Itoa(size)}},
		Next: func(page forge.Page) (string, error) {
			if empty++; len(page.Items) > 0 {
				empty = 0
			}
			if empty == 2 || len(page.Items)+hidden < size/2 {
				return "", nil
			}
			number++
			return at + "?" + url.Values{"limit": {strconv.Itoa(size)}, "page": {strconv.Itoa(number)}}.Encode(), nil
		},
		Total: func(forge.Page) int { return -1 },
	}
}

// pageItems is how many items the server puts on a page at most. It is asked for once.
func (p *Provider) pageItems(ctx context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.perPage == 0 {
		var d struct {
			Max int `json:"max_response_items"`
		}
		err := p.do(ctx, http.MethodGet, "/settings/api", nil, nil, &d)
		if err != nil && !errors.Is(err, fault.ErrNotFound) && !errors.Is(err, fault.ErrDenied) {
			return 0, err
		}
		if p.perPage = d.Max; d.Max <= 0 || d.Max > 1000 {
			p.perPage = 50
		}
	}
	return p.perPage, nil
}

// reactionsOf reads who reacted how to an issue or a comment.
func (p *Provider) reactionsOf(ctx context.Context, r forge.Repository, of archive.Record) iter.Seq2[archive.Record, error] {
	at := "issues/" + of.ID
	if of.Collection == "comments" {
		at = "issues/comments/" + of.ID
	}
	return p.steadily(ctx, list{at: below(r, at+"/reactions"), name: func(raw json.RawMessage) (archive.Record, error) {
		var d struct {
			Content string  `json:"content"`
			User    account `json:"user"`
		}
		if err := json.Unmarshal(raw, &d); err != nil || d.Content == "" {
			return archive.Record{}, fault.New("read reactions", fault.ErrUnavailable, "the server answers with what is no reaction", "")
		}
		return archive.Record{Key: archive.Key{ID: of.ID + ":" + d.Content + ":" + d.User.name()}, Raw: raw}, nil
	}})
}

// dependenciesOf reads what blocks an issue. Those that the account may not see have no number.
func (p *Provider) dependenciesOf(ctx context.Context, r forge.Repository, issue archive.Record) iter.Seq2[archive.Record, error] {
	l := list{at: below(r, "issues/"+issue.ID+"/dependencies"), partly: true, name: func(raw json.RawMessage) (archive.Record, error) {
		var d struct {
			Number     int64 `json:"number"`
			Repository struct {
				FullName string `json:"full_name"`
			} `json:"repository"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return archive.Record{}, errItem()
		}
		return archive.Record{Key: archive.Key{ID: issue.ID + ":" + d.Repository.FullName + "#" + strconv.FormatInt(d.Number, 10)}, Raw: raw}, nil
	}}
	return p.steadily(ctx, l)
}

// reviewsOf reads the reviews of a pull request, and what they say of code: for each that does, in a request. All are read whenever the
// pull request changed, for a comment that is resolved changes no review. The count of reviews holds others' that are not yet sent,
// which are not shown.
func (p *Provider) reviewsOf(ctx context.Context, r forge.Repository, pull archive.Record) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		at := below(r, "pulls/"+pull.ID+"/reviews")
		for of, err := range p.steadily(ctx, list{at: at, partly: true, name: review}) {
			if !yield(of, err) || err != nil {
				return
			}
			var d struct {
				Comments *int64 `json:"comments_count"`
			}
			if json.Unmarshal(of.Raw, &d) == nil && d.Comments != nil && *d.Comments == 0 {
				continue
			}
			for said, err := range p.steadily(ctx, list{at: at + "/" + of.ID + "/comments", name: byID}) {
				said.Collection = "review-comments"
				if !yield(said, err) || err != nil {
					return
				}
			}
		}
	}
}

func review(raw json.RawMessage) (archive.Record, error) {
	r, err := byID(raw)
	if r.Updated.IsZero() { // older servers tell only when it was sent
		var d struct {
			Submitted jsonTime `json:"submitted_at"`
		}
		_ = json.Unmarshal(raw, &d) // it may have no time
		r.Updated = d.Submitted.Time
	}
	return r, err
}

// gogsIssues reads a list for each state, as Gogs has them.
func (p *Provider) gogsIssues(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return named("issues", func(yield func(archive.Record, error) bool) {
		for issue, err := range p.Issues(ctx, q.Repository) {
			if err != nil {
				yield(archive.Record{}, err)
				return
			}
			r, err := byNumber(issue.Raw)
			if !yield(r, err) || err != nil {
				return
			}
		}
	})
}

// gogsCommentsOf reads the comments of an issue, all on one page. One that counts none is not asked for them.
func (p *Provider) gogsCommentsOf(ctx context.Context, r forge.Repository, issue archive.Record) iter.Seq2[archive.Record, error] {
	var d struct {
		Comments *int `json:"comments"`
	}
	if json.Unmarshal(issue.Raw, &d) == nil && d.Comments != nil && *d.Comments == 0 {
		return func(func(archive.Record, error) bool) {}
	}
	return p.steadily(ctx, list{at: below(r, "issues/"+issue.ID+"/comments"), name: byID})
}
