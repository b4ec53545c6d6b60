package gitlab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// item is what is read of an issue or a merge request.
type item struct {
	ID        int64     `json:"id"`
	IID       int64     `json:"iid"`
	Title     string    `json:"title"`
	Body      string    `json:"description"`
	State     string    `json:"state"` // "opened", "closed", "merged", "locked" while it is being merged
	Author    user      `json:"author"`
	Created   time.Time `json:"created_at"`
	Updated   time.Time `json:"updated_at"`
	ClosedAt  time.Time `json:"closed_at"`
	ClosedBy  *user     `json:"closed_by"`
	Locked    bool      `json:"discussion_locked"`
	Secret    bool      `json:"confidential"`
	Labels    []string  `json:"labels"`
	Milestone *struct {
		Title string `json:"title"`
	} `json:"milestone"`
	Assignees []user `json:"assignees"`
	Due       string `json:"due_date"`
	URL       string `json:"web_url"`
	Reference struct {
		Full string `json:"full"` // "acme/api!12"
	} `json:"references"`

	// Of merge requests.
	MergedAt      time.Time `json:"merged_at"`
	MergeUser     *user     `json:"merge_user"`
	MergedBy      *user     `json:"merged_by"` // before 14.7
	Source        string    `json:"source_branch"`
	Target        string    `json:"target_branch"`
	SourceProject int64     `json:"source_project_id"`
	TargetProject int64     `json:"target_project_id"`
	SHA           string    `json:"sha"`
	MergeSHA      string    `json:"merge_commit_sha"`
	SquashSHA     string    `json:"squash_commit_sha"`
	Draft         bool      `json:"draft"`
	InProgress    bool      `json:"work_in_progress"` // as drafts were called
	Reviewers     []user    `json:"reviewers"`
}

// item reads an issue or a merge request with all that belongs to it.
func (s *source) item(ctx context.Context, r archive.Record) (*neutral.Item, error) {
	in, err := decoded[item](r)
	if err != nil {
		return nil, err
	}
	of := reader{source: s, parent: r.Key, in: in, out: s.plain(in, r.Collection == pullsName)}
	for _, read := range []func(context.Context) error{of.pull, of.notes, of.timeline, of.reactions, of.links} {
		if err := read(ctx); err != nil {
			return nil, err
		}
	}
	id, closed := of.out.ID, of.out.ClosedAt
	of.aloud(of.out)
	of.out.ClosedAt = time.Time{}
	neutral.Recall(of.out, s.h.Account)
	closedHere := of.out.ClosedAt.IsZero()
	if closedHere {
		of.out.ClosedAt = closed
	}
	of.join(of.out.ID != id, closedHere)
	return of.out, nil
}

// aloud undoes what keeps GitLab from finding commands in texts that were restored.
func (of *reader) aloud(i *neutral.Item) {
	undo := func(o *neutral.Origin, body *string) {
		if _, _, ok := neutral.Unmark(*body); ok && strings.EqualFold(o.Author.Login, of.h.Account) {
			*body = loud(*body)
		}
	}
	var comments func(all []*neutral.Comment)
	comments = func(all []*neutral.Comment) {
		for _, c := range all {
			undo(&c.Origin, &c.Body)
			comments(c.Replies)
		}
	}
	undo(&i.Origin, &i.Body)
	comments(i.Comments)
}

// join adds what happened on this GitLab to what happened before. What a restore did is nothing that happened; closedHere tells that no mark
// has another time of closing.
func (of *reader) join(restored, closedHere bool) {
	for _, e := range of.events {
		if !restored || !strings.EqualFold(e.Actor.Login, of.h.Account) {
			of.out.Events = append(of.out.Events, e)
		}
	}
	if restored && closedHere && of.out.Pull != nil && of.out.Pull.Merged {
		of.out.ClosedAt, of.out.ClosedBy = time.Time{}, neutral.User{}
	}
	slices.SortStableFunc(of.out.Events, func(a, b *neutral.Event) int { return a.Created.Compare(b.Created) })
	of.out.Reactions = append(of.out.Reactions, of.reacted...)
}

// plain is the item alone. Its ID says of which sort it is, since GitLab counts both apart.
func (s *source) plain(in item, pull bool) *neutral.Item {
	id := "issue-" + number(in.ID)
	if pull {
		id = "merge-request-" + number(in.ID)
	}
	out := &neutral.Item{
		Origin: s.origin(id, in.URL, in.Author, in.Created, in.Updated),
		Number: in.IID, Title: in.Title, Body: in.Body, Closed: in.State == "closed" || in.State == "merged", ClosedAt: in.ClosedAt,
		Locked: in.Locked, Confidential: in.Secret, Labels: in.Labels, Assignees: people(in.Assignees), Due: date(in.Due),
	}
	if in.ClosedBy != nil {
		out.ClosedBy = in.ClosedBy.neutral()
	}
	if in.Milestone != nil {
		out.Milestone = in.Milestone.Title
	}
	if pull {
		out.Pull = s.merge(in)
		out.Title = undrafted(in.Title)
	}
	return out
}

// merge is what a merge request has beside an issue. Of one that comes from another project, GitLab tells that project's number only.
func (s *source) merge(in item) *neutral.Pull {
	out := &neutral.Pull{
		Base: in.Target, Head: in.Source, HeadOID: in.SHA, Merged: in.State == "merged", MergedAt: in.MergedAt, MergeOID: in.MergeSHA,
		Draft: in.Draft || in.InProgress, RequestedReviewers: people(in.Reviewers),
	}
	if in.SourceProject == in.TargetProject {
		out.HeadRepository = s.h.Repository
	}
	if out.MergeOID == "" {
		out.MergeOID = in.SquashSHA
	}
	for _, u := range []*user{in.MergedBy, in.MergeUser} {
		if u != nil {
			out.MergedBy = u.neutral()
		}
	}
	return out
}

// undrafted is the title of a merge request without the word by which it is a draft.
func undrafted(title string) string {
	for _, prefix := range []string{"draft:", "[draft]", "(draft)", "wip:", "[wip]"} {
		if len(title) > len(prefix) && strings.EqualFold(title[:len(prefix)], prefix) {
			return strings.TrimSpace(title[len(prefix):])
		}
	}
	return title
}

// reader reads what belongs to one item.
type reader struct {
	*source
	parent archive.Key
	in     item
	out    *neutral.Item
	said   map[string]time.Time // by account, when GitLab noted that it approved

	events  []*neutral.Event
	reacted []neutral.Reaction
}

// named is the collection of a sort of things that belong to the item.
func (of *reader) named(issue, pull string) string {
	if of.out.Pull != nil {
		return pull
	}
	return issue
}

// pull reads what a merge request had at its newest push.
func (of *reader) pull(ctx context.Context) error {
	if of.out.Pull == nil {
		return nil
	}
	return each(of.Children(ctx, of.parent, "commits-of-pulls"), func(in *struct {
		Base string `json:"base_commit_sha"`
		Head string `json:"head_commit_sha"`
	}, _ archive.Record,
	) error {
		if in.Head == of.out.Pull.HeadOID {
			of.out.Pull.BaseOID = in.Base
		}
		return nil
	})
}

// note is a comment, or something that GitLab itself noted.
type note struct {
	ID         int64     `json:"id"`
	Thread     string    `json:"discussion_id"` // added when it was read; "" for one that stands alone
	Body       string    `json:"body"`
	Author     user      `json:"author"`
	Created    time.Time `json:"created_at"`
	Updated    time.Time `json:"updated_at"`
	System     bool      `json:"system"`
	Internal   bool      `json:"internal"`
	Secret     bool      `json:"confidential"` // as it was called before 15.5
	Position   *position `json:"position"`
	Original   *position `json:"original_position"`
	Resolved   bool      `json:"resolved"`
	ResolvedBy *user     `json:"resolved_by"`
}

// position is where in a diff a note is. A line that is gone has an old number only.
type position struct {
	Head    string `json:"head_sha"`
	OldPath string `json:"old_path"`
	NewPath string `json:"new_path"`
	OldLine int64  `json:"old_line"`
	NewLine int64  `json:"new_line"`
	Range   *struct {
		Start struct {
			OldLine int64 `json:"old_line"`
			NewLine int64 `json:"new_line"`
		} `json:"start"`
	} `json:"line_range"`
}

// notes reads comments and threads in the order they were begun, and what GitLab noted as events.
func (of *reader) notes(ctx context.Context) error {
	var all []*note
	err := each(of.Children(ctx, of.parent, of.named("comments", "review-comments")), func(in *note, _ archive.Record) error {
		if in.System {
			of.noted(in)
		} else {
			all = append(all, in)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := of.approvals(ctx); err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b *note) int { return a.Created.Compare(b.Created) })
	threads := map[string]*neutral.Comment{}
	for _, n := range all {
		comment := of.comment(n)
		if first := threads[n.Thread]; n.Thread != "" && first != nil {
			first.Replies = append(first.Replies, comment)
			continue
		}
		threads[n.Thread] = comment
		of.place(comment)
	}
	return nil
}

// place puts what begins a thread where it belongs: what is on code is a review of its own, since GitLab does not tell which were sent
// together.
func (of *reader) place(c *neutral.Comment) {
	if c.Code == nil || of.out.Pull == nil {
		of.out.Comments = append(of.out.Comments, c)
		return
	}
	review := &neutral.Review{
		Origin: c.Origin, Item: of.out.Number, State: "commented", OID: c.Code.OID, Comments: []*neutral.Comment{c},
	}
	of.out.Pull.Reviews = append(of.out.Pull.Reviews, review)
}

func (of *reader) comment(n *note) *neutral.Comment {
	return &neutral.Comment{
		Origin: of.origin(number(n.ID), fmt.Sprintf("%s#note_%d", of.in.URL, n.ID), n.Author, n.Created, n.Updated),
		Item:   of.out.Number, Body: n.Body, Code: codeOf(n), Internal: n.Internal || n.Secret,
	}
}

func codeOf(n *note) *neutral.Code {
	if n.Position == nil {
		return nil
	}
	at := n.Position
	code := &neutral.Code{Path: at.NewPath, OID: at.Head, Side: "right", Line: at.NewLine, OriginalLine: at.OldLine, Resolved: n.Resolved}
	if at.NewLine == 0 {
		code.Path, code.Side, code.Line = at.OldPath, "left", at.OldLine
	}
	if at.Range != nil {
		code.StartLine = at.Range.Start.NewLine
		if code.Side == "left" {
			code.StartLine = at.Range.Start.OldLine
		}
	}
	if code.StartLine == code.Line {
		code.StartLine = 0
	}
	if n.Original != nil {
		code.OriginalOID = n.Original.Head
	}
	if n.ResolvedBy != nil {
		code.ResolvedBy = n.ResolvedBy.neutral()
	}
	return code
}

// noted makes an event of what GitLab noted.
func (of *reader) noted(n *note) {
	if strings.HasPrefix(n.Body, "approved this merge request") {
		if of.said == nil {
			of.said = map[string]time.Time{}
		}
		of.said[n.Author.Username] = n.Created
	}
	of.events = append(of.events, &neutral.Event{Kind: kindOf(n.Body), Actor: n.Author.neutral(), Created: n.Created, Text: n.Body})
}

// kindOf is GitHub's word for what GitLab noted, by how its notes begin; "noted" for what GitHub has no word for.
func kindOf(text string) string {
	for _, known := range []struct{ begin, kind string }{
		{"changed title", "renamed"},
		{"assigned to", "assigned"},
		{"unassigned", "unassigned"},
		{"mentioned in", "cross-referenced"},
		{"requested review", "review_requested"},
		{"marked this merge request as **draft**", "convert_to_draft"},
		{"marked this merge request as **ready**", "ready_for_review"},
		{"locked this", "locked"},
		{"unlocked this", "unlocked"},
		{"approved this merge request", "reviewed"},
		{"moved from", "transferred"},
		{"marked this issue as a duplicate", "marked_as_duplicate"},
	} {
		if strings.HasPrefix(text, known.begin) {
			return known.kind
		}
	}
	return "noted"
}

// approvals are reviews without words.
func (of *reader) approvals(ctx context.Context) error {
	if of.out.Pull == nil {
		return nil
	}
	return each(of.Children(ctx, of.parent, "reviews"), func(in *struct {
		By []struct {
			User user      `json:"user"`
			At   time.Time `json:"approved_at"` // since 18.0
		} `json:"approved_by"`
	}, _ archive.Record,
	) error {
		for _, by := range in.By {
			at := by.At
			if at.IsZero() {
				at = of.said[by.User.Username]
			}
			of.out.Pull.Reviews = append(of.out.Pull.Reviews, &neutral.Review{
				Origin: of.origin(fmt.Sprintf("approval-%d-%d", of.in.ID, by.User.ID), of.in.URL, by.User, at, at),
				Item:   of.out.Number, State: "approved", OID: of.in.SHA,
			})
		}
		return nil
	})
}

// timeline reads what GitLab keeps of labels, states and milestones.
func (of *reader) timeline(ctx context.Context) error {
	return each(of.Children(ctx, of.parent, of.named("timeline", "pull-timeline")), func(in *struct {
		User    user      `json:"user"`
		Created time.Time `json:"created_at"`
		Action  string    `json:"action"` // "add", "remove"
		State   string    `json:"state"`  // "closed", "reopened", "merged"
		Label   *struct {
			Name string `json:"name"`
		} `json:"label"`
		Milestone *struct {
			Title string `json:"title"`
		} `json:"milestone"`
	}, r archive.Record,
	) error {
		e := &neutral.Event{Actor: in.User.neutral(), Created: in.Created, Kind: in.State, Text: in.State}
		sort, _, _ := strings.Cut(r.ID, ":")
		what := "" // a label that is gone
		switch sort {
		case "label":
			e.Kind = "labeled"
			if in.Label != nil {
				what = in.Label.Name
			}
		case "milestone":
			e.Kind = "milestoned"
			if in.Milestone != nil {
				what = in.Milestone.Title
			}
		}
		if sort != "state" {
			if in.Action == "remove" {
				e.Kind = map[string]string{"labeled": "unlabeled", "milestoned": "demilestoned"}[e.Kind]
			}
			e.Text = strings.TrimSpace(e.Kind + " " + what)
		}
		of.events = append(of.events, e)
		return nil
	})
}

// reactions are award emoji, by the words that GitHub has for some of them.
func (of *reader) reactions(ctx context.Context) error {
	return each(of.Children(ctx, of.parent, of.named("reactions", "pull-reactions")), func(in *struct {
		Name    string    `json:"name"`
		User    user      `json:"user"`
		Created time.Time `json:"created_at"`
	}, _ archive.Record,
	) error {
		content := in.Name
		if word := reactionWords()[content]; word != "" {
			content = word
		}
		of.reacted = append(of.reacted, neutral.Reaction{Content: content, User: in.User.neutral(), Created: in.Created})
		return nil
	})
}

// reactionWords are GitHub's words by GitLab's.
func reactionWords() map[string]string {
	return map[string]string{
		"thumbsup": "+1", "thumbsdown": "-1", "laughing": "laugh", "tada": "hooray", "confused": "confused", "heart": "heart",
		"rocket": "rocket", "eyes": "eyes",
	}
}

// links reads how issues hang together.
func (of *reader) links(ctx context.Context) error {
	return each(of.Children(ctx, of.parent, "links"), func(in *struct {
		item
		Type string `json:"link_type"` // "relates_to", "blocks", "is_blocked_by"
	}, _ archive.Record,
	) error {
		kind := in.Type
		if kind == "is_blocked_by" {
			kind = "blocked_by"
		}
		to := in.Reference.Full
		if to == "" {
			to = in.URL
		}
		of.out.Links = append(of.out.Links, neutral.Link{Kind: kind, To: to})
		return nil
	})
}
