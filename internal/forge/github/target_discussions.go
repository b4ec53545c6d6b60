package github

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// saidThere is a comment of a discussion.
type saidThere struct {
	authored
	Node   words `json:"node_id"`
	Answer bool  `json:"is_answer"`
}

// findSaid notes a comment of a discussion that bears a mark. Answers come after what they answer, and are of its thread.
func (t *target) findSaid(d *saidThere) {
	m, ok := t.findMark(d.User, d.Body, neutral.Written{ID: "said " + string(d.Node), URL: string(d.URL)})
	if !ok {
		return
	}
	t.heard(m, string(d.Node))
	var was neutral.Comment
	if len(m.More) > 0 && json.Unmarshal(m.More, &was) == nil && was.Answer && !d.Answer {
		t.answers = append(t.answers, string(d.Node))
	}
}

// heard notes where answers to a comment go: GitHub has threads of one level.
func (t *target) heard(m neutral.Mark, id string) {
	first := id
	if m.In != "" {
		of := m
		of.ID = m.In
		first = cmp.Or(t.said[of.Key()], id)
	}
	t.said[m.Key()] = first
}

// nodeMade is what a mutation made.
type nodeMade struct {
	ID     words  `json:"id"`
	Number number `json:"number"`
	URL    words  `json:"url"`
}

// writeDiscussion opens a discussion, where the repository has any.
func (t *target) writeDiscussion(ctx context.Context, d *neutral.Discussion) (w neutral.Written, err error) {
	if t.categories == nil {
		return w, fault.New("", fault.ErrUnsupported, "the repository has no discussions", "")
	}
	var answer struct {
		Done struct {
			Discussion nodeMade `json:"discussion"`
		} `json:"done"`
	}
	err = t.mutate(ctx, "createDiscussion", "discussion { id number url }", map[string]any{
		"repositoryId": t.node, "categoryId": cmp.Or(t.categories[strings.ToLower(d.Category)], t.categories[""]),
		"title": titleOf(d.Title), "body": t.text(d.Body),
	}, &answer)
	if err != nil {
		return w, err
	}
	is := answer.Done.Discussion
	if is.Number <= 0 || is.ID == "" {
		return w, fault.New("", fault.ErrUnavailable, "the server answered without its number", "run it again")
	}
	n := int64(is.Number)
	t.taken(n)
	t.bare[n] = true
	w = neutral.Written{ID: "discussion " + string(is.ID), Number: n, URL: string(is.URL)}
	return w, t.dress(ctx, w, &d.Item)
}

func (t *target) labelDiscussion(ctx context.Context, id string, names []string) error {
	var labels []string
	for _, name := range names {
		if l := t.labels[strings.ToLower(name)]; l.node != "" {
			labels = append(labels, l.node)
		}
	}
	if len(labels) == 0 {
		return nil
	}
	return t.mutate(ctx, "addLabelsToLabelable", "clientMutationId", map[string]any{"labelableId": id, "labelIds": labels}, nil)
}

// discuss comments on a discussion, in answer to what it answers, and says that it is the answer.
func (t *target) discuss(ctx context.Context, c *neutral.Comment, on string) (w neutral.Written, err error) {
	input := map[string]any{"discussionId": on, "body": t.text(c.Body)}
	_, mark, marked := neutral.Unmark(c.Body)
	if marked && mark.In != "" {
		of := mark
		of.ID = mark.In
		if to := t.said[of.Key()]; to != "" {
			input["replyToId"] = to
		}
	}
	var answer struct {
		Done struct {
			Comment nodeMade `json:"comment"`
		} `json:"done"`
	}
	if err := t.mutate(ctx, "addDiscussionComment", "comment { id url }", input, &answer); err != nil {
		return w, err
	}
	is := answer.Done.Comment
	if marked {
		t.heard(mark, string(is.ID))
	}
	if c.Answer {
		err = t.choose(ctx, string(is.ID))
	}
	return neutral.Written{ID: "said " + string(is.ID), URL: string(is.URL)}, err
}

// choose says that a comment is the answer, where the category has answers.
func (t *target) choose(ctx context.Context, id string) error {
	err := t.mutate(ctx, "markDiscussionCommentAsAnswer", "clientMutationId", map[string]any{"id": id}, nil)
	if refusedBy(err) || errors.Is(err, fault.ErrDenied) {
		return nil
	}
	return err
}

// endDiscussion closes and locks a discussion.
func (t *target) endDiscussion(ctx context.Context, id string, s *neutral.State) error {
	if s.Item.Closed && s.Written.State != "closed" && s.Written.State != "locked" {
		input := map[string]any{"discussionId": id}
		if reason := strings.ToUpper(s.Item.Reason); reason == "RESOLVED" || reason == "OUTDATED" || reason == "DUPLICATE" {
			input["reason"] = reason
		}
		if err := t.mutate(ctx, "closeDiscussion", "clientMutationId", input, nil); err != nil {
			return err
		}
	}
	if !s.Item.Locked || s.Written.State == "locked" {
		return nil
	}
	return t.mutate(ctx, "lockLockable", "clientMutationId", map[string]any{"lockableId": id}, nil)
}
