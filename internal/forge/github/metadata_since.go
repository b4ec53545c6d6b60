package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// maxSteps is how many pages of one list are read.
const maxSteps = 200_000

// bySince is the price of a list that is read by its times: one record of each page stood on the page before.
func bySince(n int64) int64 { return n/99 + 1 }

// issues reads issues and pull requests. Where issues are switched off, GitHub lists pull requests only as such.
func (m *metadata) issues(ctx context.Context, q forge.Query) records {
	query := url.Values{"state": {"all"}, "sort": {"updated"}, "direction": {"asc"}}
	return func(yield func(archive.Record, error) bool) {
		for r, err := range m.since(ctx, "issues", m.at+"/issues", query, q.Since, numbered("issues")) {
			if errors.Is(err, fault.ErrNotFound) && m.p.withoutIssues(ctx, m.at+"/issues") {
				m.pulls(ctx, q)(yield)
				return
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// pulls reads the list of pull requests, which knows no "since": what is new is read from the newest on, and then yielded the other way
// round.
func (m *metadata) pulls(ctx context.Context, q forge.Query) records {
	return each(m.op("pull requests"), func(yield func(archive.Record) bool) error {
		query := url.Values{"state": {"all"}, "sort": {"updated"}, "direction": {"asc"}}
		if !q.Since.IsZero() {
			query.Set("direction", "desc")
		}
		var recent []archive.Record
		err := m.paged(ctx, "/pulls", query, func(raw json.RawMessage) error {
			r := numbered("issues")(raw)
			switch {
			case !q.Since.IsZero() && !r.Updated.Before(q.Since):
				if recent = append(recent, r); len(recent) > maxRecent {
					return errRecent()
				}
			case !q.Since.IsZero() || !yield(r):
				return errEnough
			}
			return nil
		})
		if err := enough(err); err != nil {
			return err
		}
		slices.Reverse(recent)
		for _, r := range recent {
			if !yield(r) {
				break
			}
		}
		return nil
	})
}

// maxRecent is how much that is new is held, where it has to be turned round.
const maxRecent = 50_000

func errRecent() error {
	return fault.New("", fault.ErrUnavailable, fmt.Sprintf("the list has more than %d changes since the last run, or does not end", maxRecent), "")
}

func (m *metadata) comments(ctx context.Context, q forge.Query) records {
	query := url.Values{"sort": {"updated"}, "direction": {"asc"}}
	return m.since(ctx, "comments", m.at+"/issues/comments", query, q.Since, commented("comments", "issues"))
}

func (m *metadata) reviewComments(ctx context.Context, q forge.Query) records {
	query := url.Values{"sort": {"updated"}, "direction": {"asc"}}
	return m.since(ctx, "review-comments", m.at+"/pulls/comments", query, q.Since, commented("review-comments", "pulls"))
}

// since reads a list in the order of its updates, each page from the time where the one before ended. Pages by number would miss what
// moves up while something that was read moves to the end, and GitHub refuses high ones (422).
func (m *metadata) since(ctx context.Context, collection, path string, query url.Values, from time.Time,
	record func(json.RawMessage) archive.Record,
) records {
	return each(m.op(collection), func(yield func(archive.Record) bool) error {
		s := &stepper{m: m, path: path, query: query, record: record, from: from, page: 1, seen: map[archive.Key]bool{}}
		for range maxSteps {
			found, last, err := s.step(ctx)
			if err != nil {
				return err
			}
			for _, r := range found {
				if !yield(r) {
					return nil
				}
			}
			if last {
				return nil
			}
		}
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("the list has more than %d pages", maxSteps), "")
	})
}

// stepper is how far a list has been read.
type stepper struct {
	m      *metadata
	path   string
	query  url.Values
	record func(json.RawMessage) archive.Record

	from time.Time
	page int                  // more than one where a whole page has this one time
	seen map[archive.Key]bool // what of this time was yielded: pages overlap in it
}

// step reads the next page, and says whether it is the last.
func (s *stepper) step(ctx context.Context) (found []archive.Record, last bool, err error) {
	items, answer, err := s.fetch(ctx)
	if err != nil {
		return nil, false, err
	}
	newest, at := s.from, map[archive.Key]bool{}
	for _, raw := range items {
		r := s.record(raw)
		if r.Updated.After(newest) {
			newest, at = r.Updated, map[archive.Key]bool{}
		}
		if r.Updated.Equal(newest) {
			at[r.Key] = true
		}
		if !s.seen[r.Key] || !r.Updated.Equal(s.from) {
			found = append(found, r)
		}
	}
	next, err := forge.NextLink(forge.Page{Response: answer})
	switch {
	case err != nil || next == "":
		return found, true, err
	case newest.After(s.from):
		s.from, s.page, s.seen = newest, 1, at
	case len(found) == 0 && s.page > 1:
		return nil, false, fault.New("", fault.ErrUnavailable, "the forge gives a page of the listing twice", "try again later; the listing cannot be complete")
	default:
		s.page++
		maps.Copy(s.seen, at)
	}
	return found, false, nil
}

func (s *stepper) fetch(ctx context.Context) ([]json.RawMessage, *forge.Response, error) {
	query := maps.Clone(s.query)
	query.Set("per_page", perPage)
	if !s.from.IsZero() {
		query.Set("since", s.from.UTC().Format(time.RFC3339))
	}
	if s.page > 1 {
		query.Set("page", strconv.Itoa(s.page))
	}
	var items []json.RawMessage
	answer, err := s.m.p.client.Do(ctx, http.MethodGet, s.path, query, nil, &items)
	return items, answer, err
}
