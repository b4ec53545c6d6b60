package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

func isNotFound(err error) bool { return errors.Is(err, fault.ErrNotFound) }

// Items implements neutral.Source.
func (s *source) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] {
	return forge.ItemsOf(ctx, s.All(ctx, "issues"), s.item)
}

// item reads an issue or a pull request with all that belongs to it.
func (s *source) item(ctx context.Context, record archive.Record) (*neutral.Item, error) {
	var d issueDocument
	if err := json.Unmarshal(record.Raw, &d); err != nil || d.Number <= 0 {
		return nil, fault.Wrap("read "+record.Key.String(), fault.ErrCorrupt, cmp.Or(err, errItem()), "")
	}
	item := &neutral.Item{
		Origin: s.origin(&d.textDocument), Number: d.Number, Title: d.Title, Body: d.Body, Closed: d.State == "closed",
		ClosedAt: d.Closed.Time, Locked: d.Locked, Pinned: d.PinOrder > 0, Assignees: users(d.Assignees), Due: d.Due.Time,
	}
	if d.Assignees == nil && d.Assignee != nil {
		item.Assignees = []neutral.User{d.Assignee.user()}
	}
	for _, l := range d.Labels {
		item.Labels = append(item.Labels, l.Name)
	}
	if d.Milestone != nil {
		item.Milestone = d.Milestone.Title
	}
	assets := map[*neutral.Comment][]assetDocument{}
	if err := s.comments(ctx, record.Key, item, assets); err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, archive.Key, *neutral.Item) error{s.reactions, s.events, s.dependencies} {
		if err := read(ctx, record.Key, item); err != nil {
			return nil, err
		}
	}
	if d.Pull != nil {
		item.Pull = &neutral.Pull{Merged: d.Pull.Merged, MergedAt: d.Pull.MergedAt.Time, Draft: d.Pull.Draft}
		if err := s.pull(ctx, item); err != nil {
			return nil, err
		}
	}
	neutral.Recall(item, s.h.Account)
	item.Body = withAssets(item.Body, d.Assets)
	for _, c := range item.Comments {
		c.Body = withAssets(c.Body, assets[c])
	}
	return item, nil
}

// withAssets adds the files that hang on a text and are not named in it, as links: other forges have files only in texts.
func withAssets(body string, assets []assetDocument) string {
	var links []string
	for _, a := range assets {
		id := a.URL[strings.LastIndexByte(a.URL, '/')+1:]
		if id == "" || strings.Contains(body, "/attachments/"+id) {
			continue
		}
		name := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, "\n", " ", "<", `\<`).Replace(a.Name)
		links = append(links, "["+name+"]("+a.URL+")")
	}
	if len(links) == 0 {
		return body
	}
	return strings.TrimLeft(body+"\n\n", "\n") + strings.Join(links, "\n")
}

type reactionDocument struct {
	Content string        `json:"content"`
	User    *userDocument `json:"user"`
	Created jsonTime      `json:"created_at"`
}

func (d *reactionDocument) reaction() neutral.Reaction {
	return neutral.Reaction{Content: d.Content, User: d.User.user(), Created: d.Created.Time}
}

func (s *source) reactions(ctx context.Context, key archive.Key, item *neutral.Item) error {
	err := of(ctx, s, key, "reactions", func(_ archive.Record, d *reactionDocument) {
		item.Reactions = append(item.Reactions, d.reaction())
	})
	sortReactions(item.Reactions)
	return err
}

func sortReactions(all []neutral.Reaction) {
	slices.SortStableFunc(all, func(a, b neutral.Reaction) int { return a.Created.Compare(b.Created) })
}

// comments also notes which files hang on them.
func (s *source) comments(ctx context.Context, key archive.Key, item *neutral.Item, assets map[*neutral.Comment][]assetDocument) error {
	var failed error
	err := of(ctx, s, key, "comments", func(r archive.Record, d *textDocument) {
		c := &neutral.Comment{Origin: s.origin(d), Item: item.Number, Body: d.Body}
		assets[c] = d.Assets
		item.Comments = append(item.Comments, c)
		failed = cmp.Or(failed, of(ctx, s, r.Key, "comment-reactions", func(_ archive.Record, d *reactionDocument) {
			c.Reactions = append(c.Reactions, d.reaction())
		}))
		sortReactions(c.Reactions)
	})
	return cmp.Or(err, failed)
}

// kinds are GitHub's words for what happens to issues, by Gitea's.
var kinds = map[string]string{
	"close": "closed", "reopen": "reopened", "issue_ref": "cross-referenced", "comment_ref": "cross-referenced", "pull_ref": "cross-referenced",
	"commit_ref": "referenced", "label": "labeled", "milestone": "milestoned", "assignees": "assigned", "change_title": "renamed",
	"delete_branch": "head_ref_deleted", "lock": "locked", "unlock": "unlocked", "change_target_branch": "base_ref_changed",
	"review_request": "review_requested", "merge_pull": "merged", "pull_push": "committed", "dismiss_review": "review_dismissed",
	"pin": "pinned", "unpin": "unpinned", "add_dependency": "blocked_by_added", "remove_dependency": "blocked_by_removed",
}

type eventDocument struct {
	textDocument
	Type         string             `json:"type"`
	OldTitle     string             `json:"old_title"`
	NewTitle     string             `json:"new_title"`
	OldRef       string             `json:"old_ref"`
	NewRef       string             `json:"new_ref"`
	OldMilestone *milestoneDocument `json:"old_milestone"`
	Milestone    *milestoneDocument `json:"milestone"`
	Label        *labelDocument     `json:"label"`
	Assignee     *userDocument      `json:"assignee"`
	Unassigned   bool               `json:"removed_assignee"`
	RefIssue     *numberedDocument  `json:"ref_issue"`
	Dependent    *numberedDocument  `json:"dependent_issue"`
	RefCommit    string             `json:"ref_commit_sha"`
}

// numberedDocument is an issue, named.
type numberedDocument struct {
	Number     int64 `json:"number"`
	Repository struct {
		FullName string `json:"full_name"`
	} `json:"repository"`
}

// name is "#17" for one of the repository itself, and "owner/name#17" for one of another.
func (d *numberedDocument) name(repository string) string {
	if d == nil || d.Number <= 0 {
		return ""
	}
	if d.Repository.FullName == repository {
		return "#" + strconv.FormatInt(d.Number, 10)
	}
	return d.Repository.FullName + "#" + strconv.FormatInt(d.Number, 10)
}

// events are what happened, but for reviews, which are read by themselves.
func (s *source) events(ctx context.Context, key archive.Key, item *neutral.Item) error {
	return of(ctx, s, key, "timeline", func(_ archive.Record, d *eventDocument) {
		if d.Type == "comment" || d.Type == "review" || d.Type == "code" {
			return
		}
		o := s.origin(&d.textDocument)
		e := &neutral.Event{Kind: cmp.Or(kinds[d.Type], d.Type), Actor: o.Author, Created: o.Created}
		s.describe(e, d)
		item.Events = append(item.Events, e)
		if e.Kind == "closed" || e.Kind == "merged" {
			item.ClosedBy = e.Actor
		}
	})
}

// describe fills in what a person reads. Where one word of Gitea's is for doing and undoing, the kind tells which it was.
func (s *source) describe(e *neutral.Event, d *eventDocument) {
	e.Text = strings.ReplaceAll(e.Kind, "_", " ")
	add := func(text string) {
		if text != "" {
			e.Text += " " + text
		}
	}
	switch {
	case d.Type == "label" && d.Label != nil:
		if d.Body != "1" { // as Gitea notes a label that was added
			e.Kind = "unlabeled"
		}
		e.Text = e.Kind + " " + d.Label.Name
	case d.Type == "milestone" && d.Milestone == nil && d.OldMilestone != nil:
		e.Kind = "demilestoned"
		e.Text = e.Kind + " " + d.OldMilestone.Title
	case d.Type == "milestone" && d.Milestone != nil:
		add(d.Milestone.Title)
	case d.Assignee != nil:
		if d.Unassigned && d.Type == "assignees" {
			e.Kind = "unassigned"
			e.Text = e.Kind
		}
		add(d.Assignee.user().Login)
	case d.Type == "change_title":
		e.Text = "renamed from " + strconv.Quote(d.OldTitle) + " to " + strconv.Quote(d.NewTitle)
	case d.OldRef+d.NewRef != "":
		add(strings.TrimSpace(d.OldRef + " " + d.NewRef))
	case d.RefIssue != nil:
		add(d.RefIssue.name(s.h.Repository))
	case d.Dependent != nil:
		add(d.Dependent.name(s.h.Repository))
	default:
		add(d.RefCommit)
	}
}

func (s *source) dependencies(ctx context.Context, key archive.Key, item *neutral.Item) error {
	return of(ctx, s, key, "dependencies", func(_ archive.Record, d *numberedDocument) {
		if d.Number > 0 {
			to := cmp.Or(d.Repository.FullName, s.h.Repository) + "#" + strconv.FormatInt(d.Number, 10)
			item.Links = append(item.Links, neutral.Link{Kind: "blocked_by", To: to})
		}
	})
}

// pull reads what a pull request has beside an issue.
func (s *source) pull(ctx context.Context, item *neutral.Item) error {
	key := archive.Key{Collection: "pulls", ID: strconv.FormatInt(item.Number, 10)}
	record, err := s.Get(ctx, key)
	if isNotFound(err) {
		return nil // it was opened between the two readings; the next one has it
	}
	if err != nil {
		return err
	}
	var d pullDocument
	if err := json.Unmarshal(record.Raw, &d); err != nil {
		return fault.Wrap("read "+key.String(), fault.ErrCorrupt, err, "")
	}
	p := item.Pull
	p.Draft, p.Merged = p.Draft || d.Draft, p.Merged || d.Merged
	p.MergedAt, p.MergedBy, p.MergeOID = cmp.Or(d.MergedAt.Time, p.MergedAt), d.MergedBy.user(), d.MergeOID
	p.RequestedReviewers = users(d.Requested)
	if d.Base != nil {
		p.Base, p.BaseOID = d.Base.Ref, d.Base.OID
	}
	p.BaseOID = cmp.Or(d.MergeBase, p.BaseOID)
	if d.Head != nil {
		p.Head, p.HeadOID = d.Head.Ref, d.Head.OID
		if d.Head.Repository != nil {
			p.HeadRepository = d.Head.Repository.FullName
		}
	}
	return s.reviews(ctx, key, item)
}

// states are the neutral words for those of reviews. A request for a review is none.
var states = map[string]string{
	"APPROVED": "approved", "REQUEST_CHANGES": "changes_requested", "COMMENT": "commented", "PENDING": "pending",
}

func (s *source) reviews(ctx context.Context, key archive.Key, item *neutral.Item) error {
	type document struct {
		textDocument
		State     string `json:"state"`
		OID       string `json:"commit_id"`
		Dismissed bool   `json:"dismissed"`
	}
	reviews := map[int64]*neutral.Review{}
	err := of(ctx, s, key, "reviews", func(_ archive.Record, d *document) {
		state, ok := states[d.State]
		if !ok {
			return
		}
		if d.Dismissed {
			state = "dismissed"
		}
		r := &neutral.Review{Origin: s.origin(&d.textDocument), Item: item.Number, State: state, OID: d.OID, Body: d.Body}
		reviews[d.ID] = r
		item.Pull.Reviews = append(item.Pull.Reviews, r)
	})
	if err != nil {
		return err
	}
	return s.reviewComments(ctx, key, item, reviews)
}

// reviewComments adds to reviews what they say of code. What is said of the same line in the same review is a thread.
func (s *source) reviewComments(ctx context.Context, key archive.Key, item *neutral.Item, reviews map[int64]*neutral.Review) error {
	type document struct {
		textDocument
		Review      int64         `json:"pull_request_review_id"`
		Resolver    *userDocument `json:"resolver"`
		Path        string        `json:"path"`
		OID         string        `json:"commit_id"`
		OriginalOID string        `json:"original_commit_id"`
		Hunk        string        `json:"diff_hunk"`
		Line        int64         `json:"position"`
		OldLine     int64         `json:"original_position"`
	}
	type place struct {
		review    int64
		path      string
		line, old int64
	}
	threads := map[place]*neutral.Comment{}
	return of(ctx, s, key, "review-comments", func(_ archive.Record, d *document) {
		c := &neutral.Comment{Origin: s.origin(&d.textDocument), Item: item.Number, Body: d.Body}
		at := place{d.Review, d.Path, d.Line, d.OldLine}
		if thread := threads[at]; thread != nil {
			thread.Replies = append(thread.Replies, c)
			return
		}
		c.Code = &neutral.Code{
			Path: d.Path, OID: d.OID, OriginalOID: d.OriginalOID, Side: "right", Line: d.Line, Hunk: d.Hunk,
			Resolved: d.Resolver != nil, ResolvedBy: d.Resolver.user(),
		}
		if d.Line == 0 && d.OldLine > 0 {
			c.Code.Side, c.Code.Line = "left", d.OldLine
		}
		threads[at] = c
		if r := reviews[d.Review]; r != nil {
			r.Comments = append(r.Comments, c)
		}
	})
}
