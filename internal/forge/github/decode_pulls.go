package github

import (
	"context"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// branch is an end of a pull request, in REST's list of them.
type branch struct {
	Ref  words `json:"ref"`
	SHA  words `json:"sha"`
	Repo *struct {
		FullName words `json:"full_name"`
	} `json:"repo"` // null where it is gone
}

// commit is one of GraphQL's.
type commit struct {
	OID words `json:"oid"`
}

// pull is a pull request, of GraphQL.
type pull struct {
	BaseRef  words   `json:"base_ref"`
	BaseOID  words   `json:"base_oid"`
	HeadRef  words   `json:"head_ref"`
	HeadOID  words   `json:"head_oid"`
	Draft    bool    `json:"draft"`
	Merged   bool    `json:"merged"`
	MergedAt moment  `json:"merged_at"`
	By       *person `json:"merged_by"`
	Merge    *commit `json:"merge_commit"`
	HeadRepo *struct {
		FullName words `json:"full_name"`
	} `json:"head_repository"` // null where it is gone
	Reviewers nodes[struct {
		Reviewer *struct {
			person
			Slug         words   `json:"slug"` // of a team
			Organization *person `json:"organization"`
		} `json:"reviewer"`
	}] `json:"reviewers"`
}

// pull reads what a pull request has beside an issue. What GraphQL did not tell is as the list of pull requests had it.
func (s *source) pull(ctx context.Context, o issue, item *neutral.Item) error {
	p := &neutral.Pull{Draft: o.Draft}
	if o.Base != nil {
		p.Base, p.BaseOID = string(o.Base.Ref), string(o.Base.SHA)
	}
	if o.Head != nil {
		p.Head, p.HeadOID = string(o.Head.Ref), string(o.Head.SHA)
		if o.Head.Repo != nil {
			p.HeadRepository = string(o.Head.Repo.FullName)
		}
	}
	item.Pull = p
	err := all(s.Children(ctx, keyOf("issues", item.Number), "pulls"), func(_ archive.Record, raw *pull) { raw.fill(p) })
	if err != nil {
		return err
	}
	p.Reviews, err = s.reviews(ctx, keyOf("pulls", item.Number))
	return err
}

func (o *pull) fill(p *neutral.Pull) {
	p.Base, p.BaseOID, p.Head, p.HeadOID = string(o.BaseRef), string(o.BaseOID), string(o.HeadRef), string(o.HeadOID)
	p.Draft, p.Merged, p.MergedAt, p.MergedBy = o.Draft, o.Merged, o.MergedAt.Time, o.By.somebody()
	if p.Merged && o.By == nil {
		p.MergedBy = o.By.user()
	}
	if o.Merge != nil {
		p.MergeOID = string(o.Merge.OID)
	}
	p.HeadRepository = ""
	if o.HeadRepo != nil {
		p.HeadRepository = string(o.HeadRepo.FullName)
	}
	for _, requested := range o.Reviewers.Nodes {
		switch r := requested.Reviewer; {
		case r == nil:
		case r.Slug != "" && r.Organization != nil:
			p.RequestedReviewers = append(p.RequestedReviewers, neutral.User{Login: string(r.Organization.Login) + "/" + string(r.Slug)})
		default:
			p.RequestedReviewers = append(p.RequestedReviewers, r.user())
		}
	}
}

// reviews reads the reviews of a pull request with their comments: the first of a thread belongs to its review, and has the others as
// its replies. Reviews that held nothing but replies are none.
func (s *source) reviews(ctx context.Context, pull archive.Key) ([]*neutral.Review, error) {
	type review struct {
		authored
		State     words   `json:"state"`
		Commit    *commit `json:"commit"`
		Submitted moment  `json:"submitted_at"`
	}
	var reviews []*neutral.Review
	err := all(s.Children(ctx, pull, "reviews"), func(_ archive.Record, o *review) {
		r := &neutral.Review{Origin: s.origin(o.authored), Item: numberOf(pull), State: strings.ToLower(string(o.State)), Body: string(o.Body)}
		if !o.Submitted.IsZero() {
			r.Created = o.Submitted.Time
		}
		if o.Commit != nil {
			r.OID = string(o.Commit.OID)
		}
		reviews = append(reviews, r)
	})
	if err != nil {
		return nil, err
	}
	if reviews, err = s.reviewComments(ctx, pull, reviews); err != nil {
		return nil, err
	}
	reviews = slices.DeleteFunc(reviews, func(r *neutral.Review) bool { return r.State == "commented" && r.Body == "" && len(r.Comments) == 0 })
	slices.SortStableFunc(reviews, func(a, b *neutral.Review) int { return a.Created.Compare(b.Created) })
	return reviews, nil
}

// onCode is a comment on a line.
type onCode struct {
	authored
	Review       number `json:"pull_request_review_id"`
	ReplyTo      number `json:"in_reply_to_id"`
	Path         words  `json:"path"`
	Commit       words  `json:"commit_id"`
	Original     words  `json:"original_commit_id"`
	Side         words  `json:"side"`
	Line         number `json:"line"`
	Start        number `json:"start_line"`
	OriginalLine number `json:"original_line"`
	Hunk         words  `json:"diff_hunk"`
}

func (o *onCode) code() *neutral.Code {
	return &neutral.Code{
		Path: string(o.Path), OID: string(o.Commit), OriginalOID: string(o.Original), Side: strings.ToLower(string(o.Side)),
		Line: int64(max(o.Line, 0)), StartLine: int64(max(o.Start, 0)), OriginalLine: int64(max(o.OriginalLine, 0)), Hunk: string(o.Hunk),
	}
}

// reviewComments puts comments into their reviews. One whose review is not there gets one of its own.
func (s *source) reviewComments(ctx context.Context, pull archive.Key, reviews []*neutral.Review) ([]*neutral.Review, error) {
	found, roots := []*onCode{}, map[number]*neutral.Comment{}
	if err := all(s.Children(ctx, pull, "review-comments"), func(_ archive.Record, o *onCode) { found = append(found, o) }); err != nil {
		return nil, err
	}
	resolved, err := s.resolved(ctx, pull)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b *onCode) int { return a.Created.Compare(b.Created.Time) })
	for _, o := range found {
		c := &neutral.Comment{Origin: s.origin(o.authored), Item: numberOf(pull), Body: string(o.Body), Code: o.code()}
		if c.Reactions, err = s.reactions(ctx, keyOf("review-comments", int64(o.ID)), "review-comment-reactions"); err != nil {
			return nil, err
		}
		if root := roots[o.ReplyTo]; root != nil {
			root.Replies = append(root.Replies, c)
			continue
		}
		if by, ok := resolved[o.ID]; ok {
			c.Code.Resolved, c.Code.ResolvedBy = true, by
		}
		roots[o.ID] = c
		i := slices.IndexFunc(reviews, func(r *neutral.Review) bool { return r.ID == o.Review.text() })
		if i < 0 {
			i = len(reviews)
			own := neutral.Origin{Forge: c.Forge, ID: o.Review.text(), Author: c.Author, Created: c.Created}
			reviews = append(reviews, &neutral.Review{Origin: own, Item: c.Item, State: "commented", OID: c.Code.OriginalOID})
		}
		reviews[i].Comments = append(reviews[i].Comments, c)
	}
	return reviews, nil
}

// resolved says which threads are, by the number of their first comment, and who did it.
func (s *source) resolved(ctx context.Context, pull archive.Key) (map[number]neutral.User, error) {
	type thread struct {
		Resolved bool    `json:"resolved"`
		By       *person `json:"resolved_by"`
		Comments nodes[struct {
			ID number `json:"id"`
		}] `json:"comments"`
	}
	by := map[number]neutral.User{}
	err := all(s.Children(ctx, pull, "review-threads"), func(_ archive.Record, o *thread) {
		if o.Resolved && len(o.Comments.Nodes) > 0 {
			by[o.Comments.Nodes[0].ID] = o.By.user()
		}
	})
	return by, err
}
