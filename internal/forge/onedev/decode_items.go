package onedev

import (
	"cmp"
	"context"
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

// The documents, as far as they are read.
type (
	// itemDocument is what issues and pull requests have in common.
	itemDocument struct {
		ID           int64    `json:"id"`
		Number       int64    `json:"number"`
		Title        string   `json:"title"`
		Description  string   `json:"description"`
		SubmitterID  int64    `json:"submitterId"`
		Submitter    *person  `json:"submitter"`
		Submitted    jsonTime `json:"submitDate"`
		LastActivity struct {
			Date jsonTime `json:"date"`
		} `json:"lastActivity"`
	}
	issueDocument struct {
		itemDocument
		State        string   `json:"state"`
		Confidential bool     `json:"confidential"`
		Pinned       jsonTime `json:"pinDate"`
		Fields       []struct {
			Name  string `json:"name"`
			Type  string `json:"type"` // "Enumeration", "User", "Text"
			Value string `json:"value"`
		} `json:"fields"`
	}
	pullDocument struct {
		itemDocument
		Status        string   `json:"status"` // "OPEN", "MERGED", "DISCARDED"
		Closed        jsonTime `json:"closeDate"`
		Target        string   `json:"targetBranch"`
		Source        string   `json:"sourceBranch"`
		TargetProject int64    `json:"targetProjectId"`
		SourceProject int64    `json:"sourceProjectId"`
		Base          string   `json:"baseCommitHash"`
	}
	commentDocument struct {
		ID      int64    `json:"id"`
		Content string   `json:"content"`
		Date    jsonTime `json:"date"`
		UserID  int64    `json:"userId"`
		User    *person  `json:"user"`
	}
	changeDocument struct {
		Date   jsonTime `json:"date"`
		UserID int64    `json:"userId"`
		User   *person  `json:"user"`
		Data   struct {
			Type      string `json:"@type"`
			OldState  string `json:"oldState"`
			NewState  string `json:"newState"`
			OldTitle  string `json:"oldTitle"`
			NewTitle  string `json:"newTitle"`
			Iteration string `json:"iteration"`
		} `json:"data"`
	}
)

// closedStates are the words for being done in OneDev's own workflows; servers can have others.
var closedStates = []string{"closed", "done", "resolved", "fixed", "released", "rejected", "cancelled", "canceled", "duplicate", "invalid"}

func isClosed(state string) bool { return slices.Contains(closedStates, strings.ToLower(state)) }

// labels are the state, where it says more than open or closed, and the fields that have one of a few words.
func (d *issueDocument) labels() []string {
	var all []string
	if d.State != "" && !strings.EqualFold(d.State, "open") && !strings.EqualFold(d.State, "closed") {
		all = append(all, "State: "+d.State)
	}
	for _, f := range d.Fields {
		if f.Type == "Enumeration" && f.Value != "" {
			all = append(all, f.Name+": "+f.Value)
		}
	}
	return all
}

// Items implements neutral.Source. An issue and a pull request may have the same number.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return func(yield func(*neutral.Item, error) bool) {
		if err := s.learn(ctx); err != nil {
			yield(nil, err)
			return
		}
		for record, err := range forge.ByNumber(s.All(ctx, "issues"), s.All(ctx, "pulls")) {
			var item *neutral.Item
			switch {
			case err != nil:
			case record.Collection == "issues":
				item, err = s.issue(ctx, record)
			default:
				item, err = s.pull(ctx, record)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// item is what issues and pull requests have in common. sort is the word that addresses have for them.
func (s *source) item(d *itemDocument, sort string) (*neutral.Item, error) {
	if d.Number <= 0 || d.ID <= 0 {
		return nil, fault.New("read "+sort, fault.ErrCorrupt, "one has no number", "")
	}
	return &neutral.Item{
		Origin: s.origin(sort, d.ID, d.Submitter.user(d.SubmitterID), d.Submitted, d.LastActivity.Date, s.page(sort, d.Number)),
		Number: d.Number, Title: d.Title, Body: d.Description,
	}, nil
}

// origin is where something was written. IDs of different sorts are numbered apart.
func (s *source) origin(sort string, id int64, by neutral.User, created, updated jsonTime, page string) neutral.Origin {
	return neutral.Origin{
		Forge: s.h.Host, URL: page, ID: sort + "-" + strconv.FormatInt(id, 10), Author: by, Created: created.Time, Updated: updated.Time,
	}
}

// page is the address of an item, where the archive tells that of the project.
func (s *source) page(sort string, number int64) string {
	if s.address == "" {
		return ""
	}
	return s.address + "/~" + sort + "/" + strconv.FormatInt(number, 10)
}

func (s *source) issue(ctx context.Context, record archive.Record) (*neutral.Item, error) {
	var d issueDocument
	if err := decodeRaw(record, &d); err != nil {
		return nil, err
	}
	item, err := s.item(&d.itemDocument, "issues")
	if err != nil {
		return nil, err
	}
	item.Closed, item.Confidential, item.Pinned, item.Labels = isClosed(d.State), d.Confidential, !d.Pinned.IsZero(), d.labels()
	var below []string
	for _, f := range d.Fields {
		switch {
		case f.Value == "" || f.Type == "Enumeration":
		case f.Type == "User":
			item.Assignees = append(item.Assignees, neutral.User{Login: f.Value})
		default:
			below = append(below, "- "+f.Name+": "+strings.Join(strings.Fields(f.Value), " "))
		}
	}
	if len(below) > 0 {
		item.Body = strings.TrimLeft(item.Body+"\n\n", "\n") + strings.Join(below, "\n")
	}
	for _, read := range []func() error{
		func() error { return s.comments(ctx, record.Key, "comments", item) },
		func() error { return s.changes(ctx, record.Key, "timeline", item) },
		func() error { return s.milestone(ctx, record.Key, item) },
		func() error { return s.links(ctx, record.Key, &d, item) },
		func() error { return s.votes(ctx, record.Key, item) },
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return item, nil
}

func (s *source) comments(ctx context.Context, key archive.Key, collection string, item *neutral.Item) error {
	err := forge.DecodeRecords(s.Children(ctx, key, collection), func(_ archive.Record, d *commentDocument) {
		page := ""
		if item.URL != "" {
			page = item.URL + "#comment-" + strconv.FormatInt(d.ID, 10)
		}
		item.Comments = append(item.Comments, &neutral.Comment{
			Origin: s.origin(collection, d.ID, d.User.user(d.UserID), d.Date, d.Date, page), Item: item.Number, Body: d.Content,
		})
	})
	slices.SortStableFunc(item.Comments, forge.ByTime(func(c *neutral.Comment) time.Time { return c.Created }))
	return err
}

// changes are what happened. The last that closed an item says when and by whom.
func (s *source) changes(ctx context.Context, key archive.Key, collection string, item *neutral.Item) error {
	err := forge.DecodeRecords(s.Children(ctx, key, collection), func(_ archive.Record, d *changeDocument) {
		item.Events = append(item.Events, d.event())
	})
	slices.SortStableFunc(item.Events, forge.ByTime(func(e *neutral.Event) time.Time { return e.Created }))
	for _, e := range item.Events {
		if item.Closed && (e.Kind == "closed" || e.Kind == "merged") {
			item.ClosedAt, item.ClosedBy = e.Created, e.Actor
		}
	}
	return err
}

// event is what GitHub would call a change; of others OneDev's own word stays.
func (d *changeDocument) event() *neutral.Event {
	data := d.Data
	e := &neutral.Event{Actor: d.User.user(d.UserID), Created: d.Date.Time}
	switch {
	case data.NewState != "" && isClosed(data.NewState):
		e.Kind, e.Text = "closed", "closed as "+data.NewState
	case data.NewState != "" && isClosed(data.OldState):
		e.Kind, e.Text = "reopened", "reopened as "+data.NewState
	case data.NewState != "":
		e.Kind, e.Text = "state_changed", "changed state from "+data.OldState+" to "+data.NewState
	case data.NewTitle != "":
		e.Kind, e.Text = "renamed", "renamed from "+strconv.Quote(data.OldTitle)+" to "+strconv.Quote(data.NewTitle)
	default:
		e.Kind = pullKinds[data.Type]
		if e.Kind == "" {
			e.Kind = cmp.Or(strings.TrimSuffix(data.Type, "Data"), "changed")
		}
		e.Text = strings.TrimSpace(strings.ReplaceAll(e.Kind, "_", " ") + " " + data.Iteration)
	}
	return e
}

// pullKinds are GitHub's words by OneDev's.
var pullKinds = map[string]string{
	"PullRequestMergeData": "merged", "PullRequestDiscardData": "closed", "PullRequestReopenData": "reopened",
	"PullRequestSourceBranchDeleteData": "head_ref_deleted", "PullRequestSourceBranchRestoreData": "head_ref_restored",
	"PullRequestTargetBranchChangeData": "base_ref_changed", "IssueIterationAddData": "milestoned", "IssueIterationRemoveData": "demilestoned",
}

// milestone is the first of the iterations that an issue is in: elsewhere it can be in one.
func (s *source) milestone(ctx context.Context, key archive.Key, item *neutral.Item) error {
	return forge.DecodeRecords(s.Children(ctx, key, "issue-milestones"), func(_ archive.Record, d *struct {
		Name string `json:"name"`
	},
	) {
		item.Milestone = cmp.Or(item.Milestone, d.Name)
	})
}

// links lead to other issues of the project. Of others only their IDs are told, and of links not of what sort they are.
func (s *source) links(ctx context.Context, key archive.Key, issue *issueDocument, item *neutral.Item) error {
	return forge.DecodeRecords(s.Children(ctx, key, "links"), func(_ archive.Record, d *struct {
		Source int64 `json:"sourceId"`
		Target int64 `json:"targetId"`
	},
	) {
		other := d.Target
		if other == issue.ID {
			other = d.Source
		}
		if n := s.numbers[other]; n > 0 && n != item.Number {
			item.Links = append(item.Links, neutral.Link{Kind: "relates_to", To: s.h.Repository + "#" + strconv.FormatInt(n, 10)})
		}
	})
}

func (s *source) votes(ctx context.Context, key archive.Key, item *neutral.Item) error {
	return forge.DecodeRecords(s.Children(ctx, key, "votes"), func(_ archive.Record, d *commentDocument) {
		item.Reactions = append(item.Reactions, neutral.Reaction{Content: "+1", User: d.User.user(d.UserID), Created: d.Date.Time})
	})
}

func (s *source) pull(ctx context.Context, record archive.Record) (*neutral.Item, error) {
	var d pullDocument
	if err := decodeRaw(record, &d); err != nil {
		return nil, err
	}
	item, err := s.item(&d.itemDocument, "pulls")
	if err != nil {
		return nil, err
	}
	item.Closed = d.Status == "MERGED" || d.Status == "DISCARDED"
	item.Pull = &neutral.Pull{Base: d.Target, Head: d.Source, BaseOID: d.Base, Merged: d.Status == "MERGED"}
	if d.SourceProject > 0 && d.SourceProject == d.TargetProject {
		item.Pull.HeadRepository = s.h.Repository
	}
	for _, read := range []func() error{
		func() error { return s.updates(ctx, record.Key, item) },
		func() error { return s.comments(ctx, record.Key, "review-comments", item) },
		func() error { return s.changes(ctx, record.Key, "pull-timeline", item) },
		func() error { return s.reviews(ctx, record.Key, item) },
		func() error { return s.assignments(ctx, record.Key, item) },
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if item.Closed {
		item.ClosedAt = cmp.Or(d.Closed.Time, item.ClosedAt)
	}
	if item.Pull.Merged {
		item.Pull.MergedAt, item.Pull.MergedBy = item.ClosedAt, item.ClosedBy
	}
	return item, nil
}

// updates are pushes to a pull request; the last has its head.
func (s *source) updates(ctx context.Context, key archive.Key, item *neutral.Item) error {
	var newest time.Time
	return forge.DecodeRecords(s.Children(ctx, key, "updates"), func(_ archive.Record, d *struct {
		Head string   `json:"headCommitHash"`
		Date jsonTime `json:"date"`
	},
	) {
		if item.Pull.HeadOID == "" || !d.Date.Before(newest) {
			item.Pull.HeadOID, newest = d.Head, d.Date.Time
		}
	})
}

func (s *source) reviews(ctx context.Context, key archive.Key, item *neutral.Item) error {
	return forge.DecodeRecords(s.Children(ctx, key, "reviews"), func(r archive.Record, d *struct {
		UserID int64    `json:"userId"`
		User   *person  `json:"user"`
		Status string   `json:"status"` // "PENDING", "APPROVED", "REQUESTED_FOR_CHANGES"
		Date   jsonTime `json:"statusDate"`
	},
	) {
		by := d.User.user(d.UserID)
		state := map[string]string{"APPROVED": "approved", "REQUESTED_FOR_CHANGES": "changes_requested"}[d.Status]
		if state == "" {
			item.Pull.RequestedReviewers = append(item.Pull.RequestedReviewers, by)
			return
		}
		o := neutral.Origin{Forge: s.h.Host, URL: item.URL, ID: "review-" + r.ID, Author: by, Created: d.Date.Time, Updated: d.Date.Time}
		item.Pull.Reviews = append(item.Pull.Reviews, &neutral.Review{Origin: o, Item: item.Number, State: state, OID: item.Pull.HeadOID})
	})
}

// assignments are whom a pull request is assigned to, and its labels.
func (s *source) assignments(ctx context.Context, key archive.Key, item *neutral.Item) error {
	err := forge.DecodeRecords(s.Children(ctx, key, "assignments"), func(_ archive.Record, d *commentDocument) {
		item.Assignees = append(item.Assignees, d.User.user(d.UserID))
	})
	if err != nil {
		return err
	}
	return forge.DecodeRecords(s.Children(ctx, key, "pull-labels"), func(_ archive.Record, d *struct {
		Spec int64 `json:"specId"`
	},
	) {
		if name := s.specs[d.Spec]; name != "" {
			item.Labels = append(item.Labels, name)
		}
	})
}
