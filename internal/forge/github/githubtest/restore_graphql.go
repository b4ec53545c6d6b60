package githubtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// mutations are what a mutation begins with.
func (x *exchange) mutations() object {
	o := object{"__typename": "Mutation"}
	for name, change := range map[string]func(r forgetest.Repo, m *Metadata, input map[string]any) (object, error){
		"createDiscussion":              x.createDiscussion,
		"addDiscussionComment":          x.addDiscussionComment,
		"markDiscussionCommentAsAnswer": x.markAnswer,
		"closeDiscussion":               x.closeDiscussion,
		"lockLockable":                  x.lockDiscussion,
		"addLabelsToLabelable":          x.labelDiscussion,
		"pinIssue":                      x.pinIssue,
	} {
		o[name] = resolver(func(arguments map[string]any) (any, error) {
			input, _ := arguments["input"].(map[string]any)
			r, err := x.repositoryOf(input)
			if err != nil {
				return nil, err
			}
			m := x.metadata(r)
			m.mu.Lock()
			defer m.mu.Unlock()
			answer, err := change(r, m, input)
			if err != nil {
				return nil, err
			}
			answer["__typename"], answer["clientMutationId"] = name, nil
			m.edited()
			return answer, nil
		})
	}
	return o
}

// repositoryOf is the repository that something in an input is of.
func (x *exchange) repositoryOf(input map[string]any) (forgetest.Repo, error) {
	for _, key := range []string{"repositoryId", "discussionId", "labelableId", "lockableId", "issueId", "id"} {
		parts := strings.Split(fmt.Sprint(input[key]), "_")
		if len(parts) > 1 {
			id, _ := strconv.ParseInt(parts[1], 10, 64)
			if r, ok := x.World.ByID(id); ok {
				return r, nil
			}
		}
	}
	return forgetest.Repo{}, errNotFound("node of " + fmt.Sprint(input))
}

// numberIn is the last part of a node's name.
func numberIn(input map[string]any, key string) int64 {
	id := fmt.Sprint(input[key])
	n, _ := strconv.ParseInt(id[strings.LastIndex(id, "_")+1:], 10, 64)
	return n
}

func (m *Metadata) discussion(number int64) (*Discussion, error) {
	for _, d := range m.Discussions {
		if d.Number == number {
			return d, nil
		}
	}
	return nil, errNotFound("Discussion")
}

func (x *exchange) createDiscussion(r forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	category := strings.TrimPrefix(fmt.Sprint(input["categoryId"]), "DIC_")
	if !slices.Contains(m.Categories, category) {
		return nil, errNotFound("DiscussionCategory")
	}
	d := &Discussion{
		Number: m.nextNumber(), Title: fmt.Sprint(input["title"]), Body: fmt.Sprint(input["body"]), Category: category, User: x.me(), Created: x.now(), Updated: x.now(),
	}
	m.Discussions = append(m.Discussions, d)
	return object{"discussion": x.graphDiscussion(r, d)}, nil
}

// addDiscussionComment adds a comment, or an answer to one that is none itself.
func (x *exchange) addDiscussionComment(r forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	d, err := m.discussion(numberIn(input, "discussionId"))
	if err != nil {
		return nil, err
	}
	c := DiscussionComment{ID: m.next(), User: x.me(), Body: fmt.Sprint(input["body"]), Created: x.now(), Updated: x.now()}
	if input["replyToId"] == nil {
		d.Comments = append(d.Comments, c)
		return object{"comment": x.graphDiscussionComment(r, d, c, 0)}, nil
	}
	to := numberIn(input, "replyToId")
	for n := range d.Comments {
		if d.Comments[n].ID == to {
			d.Comments[n].Replies = append(d.Comments[n].Replies, c)
			return object{"comment": x.graphDiscussionComment(r, d, c, to)}, nil
		}
	}
	return nil, errors.New("Parent comment is already in a thread, cannot reply to it") //nolint:staticcheck // GitHub's own words
}

func (x *exchange) markAnswer(r forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	id := numberIn(input, "id")
	for _, d := range m.Discussions {
		for _, c := range d.Comments {
			if c.ID == id {
				d.Answer = id
				return object{"discussion": x.graphDiscussion(r, d)}, nil
			}
		}
	}
	return nil, errNotFound("DiscussionComment")
}

func (x *exchange) closeDiscussion(r forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	d, err := m.discussion(numberIn(input, "discussionId"))
	if err != nil {
		return nil, err
	}
	d.Closed = true
	return object{"discussion": x.graphDiscussion(r, d)}, nil
}

func (x *exchange) lockDiscussion(_ forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	d, err := m.discussion(numberIn(input, "lockableId"))
	if err == nil {
		d.Locked = true
	}
	return object{}, err
}

func (x *exchange) labelDiscussion(_ forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	d, err := m.discussion(numberIn(input, "labelableId"))
	if err != nil {
		return nil, err
	}
	labels, _ := input["labelIds"].([]any)
	for _, id := range labels {
		d.Labels = append(d.Labels, strings.TrimPrefix(fmt.Sprint(id), "LA_"))
	}
	return object{}, nil
}

func (x *exchange) pinIssue(_ forgetest.Repo, m *Metadata, input map[string]any) (object, error) {
	if len(m.Pinned) == 3 {
		return nil, errors.New("Maximum 3 pinned issues per repository") //nolint:staticcheck // GitHub's own words
	}
	m.Pinned = append(m.Pinned, numberIn(input, "issueId"))
	return object{"issue": object{"__typename": "Issue", "id": input["issueId"]}}, nil
}
