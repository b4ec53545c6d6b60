package github

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

var _ forge.MetadataMarker = (*Provider)(nil)

const (
	// marksBatch is how many repositories one request asks about.
	marksBatch = 100
	// freshness is how old a change must be for its time to tell it from the next: GitHub's times have whole seconds, and clocks differ.
	freshness = time.Minute

	newest = `(first: 1, orderBy: {field: UPDATED_AT, direction: DESC}) { totalCount nodes { updated_at: updatedAt } }`

	markFields = `
  id: databaseId
  issues: issues` + newest + `
  pulls: pullRequests` + newest + `
  discussions: discussions` + newest + `
  milestones: milestones` + newest + `
  releases(first: 10, orderBy: {field: CREATED_AT, direction: DESC}) { totalCount nodes { updated_at: updatedAt
    assets: releaseAssets(first: 20) { totalCount nodes { updated_at: updatedAt } } } }
  commit_comments: commitComments { totalCount }
  settings: owner { login } name description homepage: homepageUrl private: isPrivate archived: isArchived
  has_issues: hasIssuesEnabled has_wiki: hasWikiEnabled has_projects: hasProjectsEnabled default_branch: defaultBranchRef { name }
  topics: repositoryTopics(first: 20) { nodes { topic { name } } }
  labels(first: 100) { totalCount nodes { name color description } }`
)

// marked is what the mark of a repository is made of.
type marked struct {
	ID             number       `json:"id"`
	Issues         *recentNodes `json:"issues"`
	Pulls          *recentNodes `json:"pulls"`
	Discussions    *recentNodes `json:"discussions"`
	Releases       *recentNodes `json:"releases"`
	CommitComments *connection  `json:"commit_comments"`
}

// recentNodes is a list's number of nodes, and when the newest of them changed.
type recentNodes struct {
	Total number `json:"totalCount"`
	Nodes []struct {
		Updated moment       `json:"updated_at"`
		Assets  *recentNodes `json:"assets"` // of a release
	} `json:"nodes"`
}

// all counts what is in the nodes, too.
func (l recentNodes) all() (n number) {
	n = l.Total
	for _, node := range l.Nodes {
		if node.Assets != nil {
			n += node.Assets.Total
		}
	}
	return n
}

// newest is the newest of the changes.
func (l recentNodes) newest() (t time.Time) {
	for _, n := range l.Nodes {
		if n.Updated.After(t) {
			t = n.Updated.Time
		}
		if n.Assets != nil && n.Assets.newest().After(t) {
			t = n.Assets.newest()
		}
	}
	return t
}

// MetadataMarks implements forge.MetadataMarker: a request for a hundred repositories. What changes nothing of this, as webhooks, rules
// and teams do, is not named in a mark.
func (p *Provider) MetadataMarks(ctx context.Context, all []forge.Repository) (map[string]string, error) {
	marks := map[string]string{}
	of := map[string]string{} // ID of the repository, by the word that GraphQL has for it
	var ids []string
	for _, r := range all {
		if node := string(identify(r.Raw).Node); r.Class != forge.Gist && node != "" {
			ids, of[node] = append(ids, node), r.ID
		}
	}
	for batch := range slices.Chunk(ids, marksBatch) {
		if err := p.markSome(ctx, batch, of, marks); err != nil {
			return marks, fault.Wrap("marks of repositories", nil, err, "")
		}
	}
	return marks, nil
}

func (p *Provider) markSome(ctx context.Context, ids []string, of, marks map[string]string) error {
	query := `query($ids: [ID!]!) { nodes(ids: $ids) { ... on Repository { self: id ` + markFields + ` } } }`
	var answer struct {
		Nodes []map[string]json.RawMessage `json:"nodes"`
	}
	said, err := p.client.GraphQL(ctx, p.graphql, query, map[string]any{"ids": ids}, &answer)
	if err != nil && (!(errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied)) || len(answer.Nodes) == 0) {
		return err
	}
	for _, node := range answer.Nodes {
		var self words
		var m marked
		raw, err := json.Marshal(node)
		if err != nil || json.Unmarshal(node["self"], &self) != nil || json.Unmarshal(raw, &m) != nil {
			continue // no mark: it is read
		}
		if id := of[string(self)]; id != "" {
			marks[id] = m.mark(node, said.Date())
		}
	}
	return nil
}

// mark says of each collection what changes with it. Issues stand for their comments, and pull requests for theirs: those move them.
// What the token may not count is not named.
func (m *marked) mark(node map[string]json.RawMessage, answered time.Time) string {
	sum := sha256.New()
	for _, field := range []string{
		"name", "settings", "description", "homepage", "private", "archived", "has_issues", "has_wiki", "has_projects", "default_branch",
		"topics", "labels", "milestones",
	} {
		fmt.Fprintf(sum, "%s %s\n", field, node[field])
	}
	words := []string{"settings=" + hex.EncodeToString(sum.Sum(nil)[:8])}
	if m.Issues != nil && m.Pulls != nil {
		word := wordOf(answered, m.Issues, m.Pulls)
		words = append(words, "issues="+word, "comments="+word)
	}
	if m.Pulls != nil {
		words = append(words, "review-comments="+wordOf(answered, m.Pulls))
	}
	if m.Discussions != nil {
		words = append(words, "discussions="+wordOf(answered, m.Discussions))
	}
	if m.Releases != nil {
		words = append(words, "releases="+wordOf(answered, m.Releases))
	}
	if m.CommitComments != nil {
		words = append(words, "commit-comments="+strconv.FormatInt(m.CommitComments.Total, 10))
	}
	return strings.Join(words, " ")
}

// wordOf says when the newest of lists' nodes changed, and how many there are.
func wordOf(answered time.Time, lists ...*recentNodes) string {
	var total number
	var last time.Time
	for _, l := range lists {
		total += l.all()
		if l.newest().After(last) {
			last = l.newest()
		}
	}
	text := total.text()
	if !last.IsZero() {
		text = last.UTC().Format(time.RFC3339) + "/" + text
	}
	if answered.Sub(last) < freshness {
		text += "/" + answered.UTC().Format(time.RFC3339) // something may yet change at that time
	}
	return text
}
