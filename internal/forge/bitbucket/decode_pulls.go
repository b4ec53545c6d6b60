package bitbucket

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

func errCorrupt(r archive.Record, err error) error {
	return fault.Wrap("read "+r.Key.String(), fault.ErrCorrupt, err, "")
}

// Items implements neutral.Source: pull requests.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return forge.ItemsOf(ctx, s.All(ctx, "pulls"), s.item)
}

// item reads a pull request with all that belongs to it.
func (s *source) item(ctx context.Context, record archive.Record) (*neutral.Item, error) {
	var d pullRequest
	if err := decodeRaw(record, &d); err != nil {
		return nil, err
	}
	if d.ID <= 0 {
		return nil, errCorrupt(record, errors.New("it has no number"))
	}
	item := &neutral.Item{
		Origin: s.origin(d.ID, d.Links.HTML.Href, d.Author, d.Created, d.Updated),
		Number: d.ID, Title: d.Title, Body: d.Description, Closed: d.State != "OPEN", ClosedBy: d.ClosedBy.neutral(),
		Pull: &neutral.Pull{
			Base: d.Destination.Branch.Name, BaseOID: d.Destination.oid(), Head: d.Source.Branch.Name, HeadOID: d.Source.oid(),
			Merged: d.State == "MERGED", Draft: d.Draft,
		},
	}
	if item.Body == "" {
		item.Body = d.Summary.Raw
	}
	if d.Source.Repository != nil {
		item.Pull.HeadRepository = d.Source.Repository.FullName
	}
	if d.MergeCommit != nil {
		item.Pull.MergeOID = d.MergeCommit.Hash
	}
	if d.State == "SUPERSEDED" {
		item.Reason = "duplicate"
	}
	decided := s.reviews(item, &d)
	for i := range d.Reviewers {
		if !decided[d.Reviewers[i].UUID] {
			item.Pull.RequestedReviewers = append(item.Pull.RequestedReviewers, d.Reviewers[i].neutral())
		}
	}
	for _, read := range []func(context.Context, archive.Key, *neutral.Item) error{s.comments, s.tasks, s.events} {
		if err := read(ctx, record.Key, item); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(item.Comments, forge.ByTime(func(c *neutral.Comment) time.Time { return c.Created }))
	slices.SortStableFunc(item.Pull.Reviews, forge.ByTime(func(r *neutral.Review) time.Time { return r.Created }))
	return item, nil
}

func (s *source) origin(id int64, address string, by *user, created, updated time.Time) neutral.Origin {
	return neutral.Origin{
		Forge: s.h.Host, URL: address, ID: strconv.FormatInt(id, 10), Author: by.neutral(), Created: created, Updated: updated,
	}
}

// reviews are what participants have decided in the end; decided are those who did.
func (s *source) reviews(item *neutral.Item, d *pullRequest) (decided map[string]bool) {
	decided = map[string]bool{}
	for _, p := range d.Participants {
		if p.User == nil || p.State != "approved" && p.State != "changes_requested" {
			continue
		}
		decided[p.User.UUID] = true
		o := s.origin(d.ID, item.URL, p.User, p.At, p.At)
		o.ID = fmt.Sprintf("%d-%s-%s", d.ID, p.State, p.User.UUID)
		item.Pull.Reviews = append(item.Pull.Reviews, &neutral.Review{Origin: o, Item: item.Number, State: p.State, OID: item.Pull.HeadOID})
	}
	return decided
}

// comment is one as Bitbucket has it.
type comment struct {
	ID      int64     `json:"id"`
	Content content   `json:"content"`
	User    *user     `json:"user"`
	Created time.Time `json:"created_on"`
	Updated time.Time `json:"updated_on"`
	Deleted bool      `json:"deleted"`
	Pending bool      `json:"pending"` // its author's alone, so far
	Parent  *struct {
		ID int64 `json:"id"`
	} `json:"parent"`
	Inline *struct {
		Path      string `json:"path"`
		From      int64  `json:"from"` // line before the change
		To        int64  `json:"to"`   // and after it; both 0 for a file
		StartFrom int64  `json:"start_from"`
		StartTo   int64  `json:"start_to"`
	} `json:"inline"`
	Resolution *struct {
		User *user `json:"user"`
	} `json:"resolution"`
	Links struct {
		HTML link `json:"html"`
	} `json:"links"`
}

// comments puts answers below what they answer, and what is on code into a review of its own: Bitbucket does not tell which were sent
// together.
func (s *source) comments(ctx context.Context, key archive.Key, item *neutral.Item) error {
	var all []*comment
	err := forge.DecodeRecords(s.Children(ctx, key, "comments"), func(_ archive.Record, d *comment) {
		if !d.Deleted && !d.Pending {
			all = append(all, d)
		}
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, forge.ByTime(func(c *comment) time.Time { return c.Created }))
	heads := map[int64]*neutral.Comment{} // of threads on code, by each comment in them
	for _, d := range all {
		c := &neutral.Comment{
			Origin: s.origin(d.ID, d.Links.HTML.Href, d.User, d.Created, d.Updated), Item: item.Number, Body: d.Content.Raw,
		}
		if d.Parent != nil && heads[d.Parent.ID] != nil {
			head := heads[d.Parent.ID]
			head.Replies = append(head.Replies, c)
			heads[d.ID] = head
			continue
		}
		if c.Code = d.code(item.Pull.HeadOID); c.Code == nil {
			item.Comments = append(item.Comments, c)
			continue
		}
		heads[d.ID] = c
		item.Pull.Reviews = append(item.Pull.Reviews, &neutral.Review{
			Origin: c.Origin, Item: item.Number, State: "commented", OID: c.Code.OID, Comments: []*neutral.Comment{c},
		})
	}
	return nil
}

// code is where a comment stands; nil for one that is not on code.
func (d *comment) code(head string) *neutral.Code {
	if d.Inline == nil {
		return nil
	}
	at := &neutral.Code{Path: d.Inline.Path, OID: head, Side: "right", Line: d.Inline.To, StartLine: d.Inline.StartTo}
	if d.Inline.To == 0 && d.Inline.From > 0 {
		at.Side, at.Line, at.StartLine = "left", d.Inline.From, d.Inline.StartFrom
	}
	if at.StartLine == at.Line {
		at.StartLine = 0
	}
	if d.Resolution != nil {
		at.Resolved, at.ResolvedBy = true, d.Resolution.User.neutral()
	}
	return at
}

// tasks are comments with a box to tick.
func (s *source) tasks(ctx context.Context, key archive.Key, item *neutral.Item) error {
	type document struct {
		ID      int64     `json:"id"`
		State   string    `json:"state"` // "RESOLVED", "UNRESOLVED"
		Content content   `json:"content"`
		Creator *user     `json:"creator"`
		Created time.Time `json:"created_on"`
		Updated time.Time `json:"updated_on"`
	}
	return forge.DecodeRecords(s.Children(ctx, key, "tasks"), func(_ archive.Record, d *document) {
		o := s.origin(d.ID, item.URL, d.Creator, d.Created, d.Updated)
		o.ID = "task-" + o.ID // they are numbered apart from comments
		box := "- [ ] "
		if d.State == "RESOLVED" {
			box = "- [x] "
		}
		item.Comments = append(item.Comments, &neutral.Comment{Origin: o, Item: item.Number, Body: box + strings.TrimSpace(d.Content.Raw)})
	})
}

// events are what happened, in its order. They tell when a pull request was closed, too.
func (s *source) events(ctx context.Context, key archive.Key, item *neutral.Item) error {
	var all []*activity
	err := forge.DecodeRecords(s.Children(ctx, key, "timeline"), func(_ archive.Record, a *activity) {
		if _, h := a.what(); h != nil {
			all = append(all, a)
		}
	})
	slices.SortStableFunc(all, forge.ByTime(func(a *activity) time.Time {
		_, h := a.what()
		return h.Date
	}))
	was := &happened{State: "OPEN"}
	for _, a := range all {
		sort, h := a.what()
		if sort != "update" {
			text := map[string]string{"approval": "approved", "changes_requested": "requested changes"}[sort]
			item.Events = append(item.Events, &neutral.Event{Kind: "reviewed", Actor: h.User.neutral(), Created: h.Date, Text: text})
			continue
		}
		e := h.event(was)
		item.Events = append(item.Events, e)
		if was = h; item.Closed && (e.Kind == "merged" || e.Kind == "closed") {
			item.ClosedAt = e.Created
			if item.ClosedBy == (neutral.User{}) {
				item.ClosedBy = e.Actor
			}
		}
	}
	if item.Pull.Merged {
		item.Pull.MergedAt, item.Pull.MergedBy = item.ClosedAt, item.ClosedBy
	}
	return err
}

// event is what GitHub would call an update, which comes as the state after it.
func (h *happened) event(was *happened) *neutral.Event {
	e := &neutral.Event{Kind: "edited", Actor: h.Author.neutral(), Created: h.Date, Text: "edited"}
	switch {
	case h.State == was.State && h.Source.oid() != was.Source.oid():
		e.Kind, e.Text = "committed", "committed "+h.Source.oid()
	case h.State == was.State && was.Title != "" && h.Title != was.Title:
		e.Kind, e.Text = "renamed", "renamed from "+strconv.Quote(was.Title)+" to "+strconv.Quote(h.Title)
	case h.State == was.State:
	case h.State == "OPEN":
		e.Kind, e.Text = "reopened", "reopened"
	case h.State == "MERGED":
		e.Kind, e.Text = "merged", "merged"
	default:
		e.Kind, e.Text = "closed", strings.TrimSpace("closed "+h.Reason)
	}
	return e
}
