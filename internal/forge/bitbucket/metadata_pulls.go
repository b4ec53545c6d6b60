package bitbucket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

const (
	pullsPerPage = 50 // the most that Bitbucket gives of them
	// maxPatch is the longest patch that is taken, in bytes.
	maxPatch = 16 << 20
)

// allStates asks for pull requests in every state: without, the open ones come.
func allStates() url.Values {
	return url.Values{"state": {"OPEN", "MERGED", "DECLINED", "SUPERSEDED"}}
}

// pulls reads pull requests by the time of their change. An approval need not count as one, so the open ones are read each time: those that
// are as they were cost nothing more.
func (p *Provider) pulls(ctx context.Context, q forge.Query) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		var open []archive.Record
		if !q.Since.IsZero() {
			for r, err := range p.pullPages(ctx, q.Repository, url.Values{"state": {"OPEN"}, "sort": {"created_on"}}) {
				if err != nil {
					yield(archive.Record{}, err)
					return
				}
				if r.Updated.Before(q.Since) { // the others come by themselves
					open = append(open, r)
				}
			}
		}
		slices.SortStableFunc(open, forge.ByTime(func(r archive.Record) time.Time { return r.Updated }))
		for _, r := range open {
			if !p.yieldPull(ctx, q.Repository, r, yield) {
				return
			}
		}
		p.changedPulls(ctx, q, yield)
	}
}

// changedPulls asks after each page for what is no older than its last: what changes meanwhile moves to the end, and page numbers would
// hide what moves up in its place.
func (p *Provider) changedPulls(ctx context.Context, q forge.Query, yield func(archive.Record, error) bool) {
	seen := map[string]time.Time{}
	for from, more := q.Since, true; more; {
		query := allStates()
		query.Set("sort", "updated_on")
		if !from.IsZero() {
			query.Set("q", "updated_on >= "+from.UTC().Format("2006-01-02T15:04:05.000000-07:00"))
		}
		more = false
		n, last := 0, from
		for r, err := range p.pullPages(ctx, q.Repository, query) {
			if err != nil {
				yield(archive.Record{}, err)
				return
			}
			n++
			if last = r.Updated; !seen[r.ID].Equal(last) || last.IsZero() {
				if seen[r.ID] = last; !p.yieldPull(ctx, q.Repository, r, yield) {
					return
				}
			}
			if n%pullsPerPage == 0 && last.After(from) { // the end of a page
				from, more = last, true
				break
			}
		}
	}
}

// pullPages lists pull requests with participants and reviewers, which lists leave out unless asked.
func (p *Provider) pullPages(ctx context.Context, r forge.Repository, query url.Values) forge.Records {
	query.Set("pagelen", strconv.Itoa(pullsPerPage))
	query.Set("fields", "+values.participants,+values.reviewers")
	return forge.RecordsOf(p.pages(ctx, below(r, "pullrequests"), query), "pulls", byID)
}

// yieldPull asks for a pull request by itself where the list left out who takes part.
func (p *Provider) yieldPull(ctx context.Context, in forge.Repository, r archive.Record, yield func(archive.Record, error) bool) bool {
	var err error
	if !hasParticipants(r.Raw) {
		_, err = p.client.Do(ctx, http.MethodGet, below(in, "pullrequests/"+r.ID), nil, nil, &r.Raw)
	}
	return yield(r, err) && err == nil
}

func hasParticipants(raw json.RawMessage) bool {
	var d struct {
		Participants json.RawMessage `json:"participants"`
	}
	return json.Unmarshal(raw, &d) == nil && len(d.Participants) > 0
}

// listOf reads a list that belongs to a pull request.
func (p *Provider) listOf(ctx context.Context, r forge.Repository, pull archive.Record, collection, path string, name naming) forge.Records {
	return forge.Whole(forge.RecordsOf(p.pages(ctx, below(r, "pullrequests/"+url.PathEscape(pull.ID)+"/"+path), nil), collection, name))
}

// none is what a pull request has that counts none of it, unasked.
func none(func(archive.Record, error) bool) {}

// saysNone reports whether a pull request says that it has none.
func saysNone(pull archive.Record, of string) bool {
	var d map[string]json.RawMessage
	return json.Unmarshal(pull.Raw, &d) == nil && string(d[of]) == "0"
}

// commentsOf leaves out those that were deleted: Bitbucket keeps their places, without words, where others answer them.
func (p *Provider) commentsOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	if saysNone(pull, "comment_count") {
		return none
	}
	return p.listOf(ctx, r, pull, "comments", "comments", func(raw json.RawMessage) (archive.Record, error) {
		r, err := byID(raw)
		if err == nil && isDeleted(raw) {
			r.ID = ""
		}
		return r, err
	})
}

func isDeleted(raw json.RawMessage) bool {
	var i identity
	return json.Unmarshal(raw, &i) == nil && i.Deleted
}

func (p *Provider) tasksOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	if saysNone(pull, "task_count") {
		return none
	}
	return p.listOf(ctx, r, pull, "tasks", "tasks", byID)
}

// activity is what happened to a pull request: one of the fields is set.
type activity struct {
	Comment          json.RawMessage `json:"comment"` // these are read by themselves
	Update           *happened       `json:"update"`
	Approval         *happened       `json:"approval"`
	ChangesRequested *happened       `json:"changes_requested"`
}

type happened struct {
	Date   time.Time `json:"date"`
	User   *user     `json:"user"`
	Author *user     `json:"author"` // of updates
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	Title  string    `json:"title"`
	Source endpoint  `json:"source"`
}

// what is what happened, and by which word.
func (a *activity) what() (sort string, h *happened) {
	switch {
	case a.Approval != nil:
		return "approval", a.Approval
	case a.ChangesRequested != nil:
		return "changes_requested", a.ChangesRequested
	}
	return "update", a.Update
}

// activityOf reads what happened. It bears no IDs, but no two things by one person at one time.
func (p *Provider) activityOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	return p.listOf(ctx, r, pull, "timeline", "activity", func(raw json.RawMessage) (archive.Record, error) {
		var a activity
		if json.Unmarshal(raw, &a) != nil {
			return archive.Record{}, errItem()
		}
		sort, h := a.what()
		if h == nil {
			if len(a.Comment) > 0 {
				return archive.Record{}, nil
			}
			return archive.Record{}, errItem()
		}
		who := cmp.Or(h.User, h.Author, &user{}).UUID
		id := strings.Join([]string{pull.ID, sort, h.Date.UTC().Format(time.RFC3339Nano), who}, ":")
		return archive.Record{Key: archive.Key{ID: id}, Updated: h.Date, Raw: raw}, nil
	})
}

func (p *Provider) statusesOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	return p.listOf(ctx, r, pull, "statuses", "statuses", func(raw json.RawMessage) (archive.Record, error) {
		return record(raw, func(i identity) string {
			if i.Key == "" {
				return ""
			}
			return pull.ID + ":" + i.Key
		})
	})
}

func (p *Provider) commitsOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	return p.listOf(ctx, r, pull, "commits-of-pulls", "commits", func(raw json.RawMessage) (archive.Record, error) {
		return record(raw, func(i identity) string {
			if i.Hash == "" {
				return ""
			}
			return pull.ID + ":" + i.Hash
		})
	})
}

// patch is the raw of a record of patches: what `git am` takes. Bytes that are no text come as base64 in Binary.
type patch struct {
	Source      string `json:"source"` // commits that it was made of, as the pull request named them
	Destination string `json:"destination"`
	Patch       string `json:"patch,omitempty"`
	Binary      []byte `json:"binary,omitempty"`
	Size        int    `json:"size"`
	Reason      string `json:"reason,omitempty"` // why it is not there
}

// patchOf fetches the commits of a pull request as text. Where they are gone, the last that was read stays in the archive, with its
// tombstone.
func (p *Provider) patchOf(ctx context.Context, r forge.Repository, pull archive.Record) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		var d pullRequest
		if json.Unmarshal(pull.Raw, &d) != nil {
			yield(archive.Record{}, errItem())
			return
		}
		made := patch{Source: d.Source.oid(), Destination: d.Destination.oid()}
		answer, err := p.client.Do(ctx, http.MethodGet, below(r, "pullrequests/"+url.PathEscape(pull.ID)+"/patch"), nil, nil, nil, statusTooCostly)
		switch {
		case errors.Is(err, fault.ErrRefused): // longer than any answer may be
			made.Reason = err.Error()
		case err != nil:
			yield(archive.Record{}, err)
			return
		default:
			made.fill(answer)
		}
		raw, err := json.Marshal(made)
		yield(archive.Record{Key: archive.Key{Collection: "patches", ID: pull.ID}, Raw: raw}, err)
	}
}

// statusTooCostly is Bitbucket's own answer where making a patch takes it too long.
const statusTooCostly = 555

func (made *patch) fill(answer *forge.Response) {
	text := answer.Body
	made.Size = len(text)
	switch {
	case answer.Status == statusTooCostly:
		made.Size, made.Reason = 0, "making it takes Bitbucket too long"
	case len(text) > maxPatch:
		made.Reason = fmt.Sprintf("it is longer than %d MiB", maxPatch>>20)
	case utf8.Valid(text) && !bytes.ContainsRune(text, 0):
		made.Patch = string(text)
	default:
		made.Binary = text
	}
}
