package gitlab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// marksAtOnce is how many projects are asked about in a query: GitLab bounds how much one may ask for.
const marksAtOnce = 50

// settled is how old the newest change must be for a mark: for a minute after one, GitLab gives others the same time, or rather none.
const settled = 61 * time.Second

const marksQuery = `query($ids: [ID!]) {
  projects(ids: $ids, first: 50) {
    nodes {
      id
      issues(sort: UPDATED_DESC, first: 1) { count nodes { updatedAt } }
      mergeRequests(sort: UPDATED_DESC, first: 1) { count nodes { updatedAt } }
      releases(first: 1) { count }
    }
  }
}`

// newest is how many of a sort there are, and when the last of them changed.
type newest struct {
	Count int64 `json:"count"`
	Nodes []struct {
		Updated time.Time `json:"updatedAt"`
	} `json:"nodes"`
}

func (n *newest) at() time.Time {
	if n == nil || len(n.Nodes) == 0 {
		return time.Time{}
	}
	return n.Nodes[0].Updated
}

func (n *newest) word() string {
	if n == nil {
		return "-" // switched off
	}
	return fmt.Sprintf("%d/%d", n.at().Unix(), n.Count)
}

// MetadataMarks implements forge.MetadataMarker. A note, an edit, a label move the time of an issue or merge request; what was removed
// changes how many there are. Reactions and notes that were removed do neither, and an edited release shows in nothing: those are found
// when the project is looked at again. (last_activity_at, which lists have, misses edits, and tells of one event an hour.)
func (p *Provider) MetadataMarks(ctx context.Context, all []forge.Repository) (map[string]string, error) {
	marks := map[string]string{}
	for chunk := range slices.Chunk(all, marksAtOnce) {
		var ids []string
		for _, r := range chunk {
			if !strings.HasPrefix(r.ID, snippetPrefix) {
				ids = append(ids, "gid://gitlab/Project/"+r.ID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		err := p.marksOf(ctx, ids, marks)
		if errors.Is(err, fault.ErrInvalid) || notFound(err) {
			return nil, nil // a server that is too old for the question: each project is asked
		}
		if err != nil {
			return nil, fault.Wrap("what changed on "+p.Host(), nil, err, "")
		}
	}
	return marks, nil
}

// marksOf adds the marks of some projects.
func (p *Provider) marksOf(ctx context.Context, ids []string, marks map[string]string) error {
	var data struct {
		Projects struct {
			Nodes []struct {
				ID       string  `json:"id"`
				Issues   *newest `json:"issues"`
				Pulls    *newest `json:"mergeRequests"`
				Releases *newest `json:"releases"`
			} `json:"nodes"`
		} `json:"projects"`
	}
	answer, err := p.client.GraphQL(ctx, p.site.String()+"/api/graphql", marksQuery, map[string]any{"ids": ids}, &data)
	if err != nil {
		return err
	}
	for _, n := range data.Projects.Nodes {
		old := answer.Date().Add(-settled)
		if n.Issues.at().After(old) || n.Pulls.at().After(old) {
			continue
		}
		marks[strings.TrimPrefix(n.ID, "gid://gitlab/Project/")] = "issues=" + n.Issues.word() + " pulls=" + n.Pulls.word() + " releases=" + n.Releases.word()
	}
	return nil
}
