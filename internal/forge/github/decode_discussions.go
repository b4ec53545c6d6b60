package github

import (
	"context"
	"iter"
	"slices"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// discussion is one of GraphQL's.
type discussion struct {
	authored
	Number     number `json:"number"`
	Title      words  `json:"title"`
	Closed     bool   `json:"closed"`
	ClosedAt   moment `json:"closed_at"`
	Reason     words  `json:"state_reason"`
	Locked     bool   `json:"locked"`
	LockReason words  `json:"active_lock_reason"`
	Category   *struct {
		Name words `json:"name"`
	} `json:"category"`
	Answered bool   `json:"answered"`
	Votes    number `json:"votes"`
	Labels   nodes[struct {
		Name words `json:"name"`
	}] `json:"labels"`
	Reactions nodes[reaction] `json:"reactions"`
}

// discussionComment may be a reply to another one.
type discussionComment struct {
	authored
	Answer  bool `json:"is_answer"`
	ReplyTo *struct {
		ID number `json:"id"`
	} `json:"reply_to"`
	Reactions nodes[reaction] `json:"reactions"`
}

// Discussions implements neutral.Source.
func (s *source) Discussions(ctx context.Context) iter.Seq2[*neutral.Discussion, error] {
	return func(yield func(*neutral.Discussion, error) bool) {
		for r, err := range s.All(ctx, "discussions") {
			var d *neutral.Discussion
			if err == nil {
				d, err = s.discussion(ctx, r)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

func (s *source) discussion(ctx context.Context, r archive.Record) (*neutral.Discussion, error) {
	var o discussion
	if err := decode(r, &o); err != nil {
		return nil, err
	}
	d := &neutral.Discussion{
		Item: neutral.Item{
			Origin: s.origin(o.authored), Number: numberOf(r.Key), Title: string(o.Title), Body: string(o.Body),
			Closed: o.Closed, ClosedAt: o.ClosedAt.Time, Reason: string(o.Reason), Locked: o.Locked, LockReason: string(o.LockReason),
			Reactions: neutralReactions(o.Reactions),
		},
		Answered: o.Answered, Votes: int64(o.Votes),
	}
	if o.Category != nil {
		d.Category = string(o.Category.Name)
	}
	for _, label := range o.Labels.Nodes {
		d.Labels = append(d.Labels, string(label.Name))
	}
	if err := s.discussionComments(ctx, r.Key, d); err != nil {
		return nil, err
	}
	neutral.Recall(&d.Item, s.account)
	return d, nil
}

func (s *source) discussionComments(ctx context.Context, key archive.Key, d *neutral.Discussion) error {
	var found []*discussionComment
	err := all(s.Children(ctx, key, "discussion-comments"), func(_ archive.Record, o *discussionComment) { found = append(found, o) })
	slices.SortStableFunc(found, func(a, b *discussionComment) int { return a.Created.Compare(b.Created.Time) })
	comments := map[number]*neutral.Comment{}
	for _, o := range found {
		c := &neutral.Comment{Origin: s.origin(o.authored), Item: d.Number, Body: string(o.Body), Answer: o.Answer, Reactions: neutralReactions(o.Reactions)}
		comments[o.ID] = c
		if o.ReplyTo != nil && comments[o.ReplyTo.ID] != nil {
			comments[o.ReplyTo.ID].Replies = append(comments[o.ReplyTo.ID].Replies, c)
			continue
		}
		d.Comments = append(d.Comments, c)
	}
	return err
}

func neutralReactions(list nodes[reaction]) (all []neutral.Reaction) {
	for _, o := range list.Nodes {
		all = append(all, o.neutral())
	}
	return all
}
