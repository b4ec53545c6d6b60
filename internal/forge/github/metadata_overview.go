package github

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// Parts of queries. Fields have the names that REST has for them.
const (
	pageFields = ` totalCount pageInfo { hasNextPage endCursor } `
	userFields = `{ login html_url: url ... on User { id: databaseId } }`

	settingsFields = `
  id: databaseId node_id: id name owner { login } description homepage: homepageUrl html_url: url private: isPrivate visibility fork: isFork
  archived: isArchived is_template: isTemplate default_branch: defaultBranchRef { name } license: licenseInfo { spdx_id: spdxId }
  has_issues: hasIssuesEnabled has_wiki: hasWikiEnabled has_projects: hasProjectsEnabled has_discussions: hasDiscussionsEnabled
  allow_merge_commit: mergeCommitAllowed allow_squash_merge: squashMergeAllowed allow_rebase_merge: rebaseMergeAllowed
  allow_auto_merge: autoMergeAllowed allow_update_branch: allowUpdateBranch delete_branch_on_merge: deleteBranchOnMerge
  web_commit_signoff_required: webCommitSignoffRequired created_at: createdAt
  topics: repositoryTopics(first: 100) { nodes { topic { name } } }
  pinned: pinnedIssues(first: 10) { nodes { issue { number } } }`
	labelFields     = `node_id: id name color description default: isDefault created_at: createdAt updated_at: updatedAt`
	milestoneFields = `node_id: id number title description state html_url: url creator ` + userFields + `
  due_on: dueOn closed_at: closedAt created_at: createdAt updated_at: updatedAt`
)

// list is a short list of a repository, that comes with others in one request.
type list struct {
	collection string
	field      string // of Repository
	nodes      string // "nodes", or "nodes: edges"
	fields     string
	record     func(node json.RawMessage) archive.Record
}

// connection is a page of such a list.
type connection struct {
	Total int64 `json:"totalCount"`
	Page  struct {
		More bool   `json:"hasNextPage"`
		End  string `json:"endCursor"`
	} `json:"pageInfo"`
	Nodes []json.RawMessage `json:"nodes"`
}

func ofSettings() []list {
	return []list{
		{"labels", "labels", "nodes", labelFields, func(node json.RawMessage) archive.Record {
			o := identify(node)
			return o.record("labels", string(o.Name), node)
		}},
		{"milestones", "milestones", "nodes", milestoneFields, numbered("milestones")},
	}
}

// short reads lists in one request, and what they have more than a hundred of in further ones. The fields of the repository itself
// are yielded as a record without a name.
func (m *metadata) short(ctx context.Context, fields string, lists []list, yield func(archive.Record) bool) error {
	guards := make(map[string]*forge.Guard, len(lists))
	for _, l := range lists {
		guards[l.collection] = &forge.Guard{}
	}
	for after := (map[string]string{}); len(lists) > 0; fields = "" {
		answer, err := m.ask(ctx, fields, lists, after)
		if err != nil {
			return err
		}
		var left []list
		for _, l := range lists {
			var page connection
			if err := read(l.collection, answer[alias(l)], &page); err != nil {
				return err
			}
			delete(answer, alias(l))
			if err := guards[l.collection].Page(after[l.collection], page.Nodes); err != nil {
				return fault.Wrap(l.collection, nil, err, "")
			}
			for _, node := range page.Nodes {
				if string(node) == "null" {
					continue
				}
				if !yield(l.record(node)) {
					return nil
				}
			}
			if page.Page.More {
				left, after[l.collection] = append(left, l), page.Page.End
			}
		}
		if fields != "" {
			raw, err := json.Marshal(answer)
			if err != nil {
				return err
			}
			if !yield(archive.Record{Raw: raw}) {
				return nil
			}
		}
		lists = left
	}
	return nil
}

func alias(l list) string { return strings.ReplaceAll(l.collection, "-", "_") }

// ask asks for fields of the repository, and for a page of each list.
func (m *metadata) ask(ctx context.Context, fields string, lists []list, after map[string]string) (map[string]json.RawMessage, error) {
	var query strings.Builder
	query.WriteString("query($owner: String!, $name: String!")
	variables := map[string]any{"owner": m.r.Owner, "name": m.r.Name}
	for _, l := range lists {
		query.WriteString(", $" + alias(l) + ": String")
		if cursor := after[l.collection]; cursor != "" {
			variables[alias(l)] = cursor
		}
	}
	query.WriteString(") { repository(owner: $owner, name: $name) {" + fields)
	for _, l := range lists {
		query.WriteString("\n  " + alias(l) + ": " + l.field + "(first: 100, after: $" + alias(l) + ") {" + pageFields + l.nodes + " { " + l.fields + " } }")
	}
	query.WriteString("\n} }")
	var answer struct {
		Repository map[string]json.RawMessage `json:"repository"`
	}
	_, err := m.p.client.GraphQL(ctx, m.p.graphql, query.String(), variables, &answer)
	if err == nil && answer.Repository == nil {
		err = fault.New("", fault.ErrNotFound, "the repository is not there", "")
	}
	return answer.Repository, err
}

// totalFields are what is counted of a repository.
const totalFields = `
  has_issues: hasIssuesEnabled issues { totalCount } pulls: pullRequests { totalCount } labels { totalCount } milestones { totalCount }
  releases { totalCount } discussions { totalCount }`

// Totals implements forge.MetadataCounter. What the token may not count is not named.
func (p *Provider) Totals(ctx context.Context, r forge.Repository) (map[string]int64, error) {
	m := &metadata{p: p, r: r}
	counts, err := m.ask(ctx, totalFields, nil, nil)
	if err != nil && (counts == nil || !errors.Is(err, fault.ErrDenied)) {
		return nil, fault.Wrap("totals of "+r.FullName(), nil, err, "")
	}
	totals := map[string]int64{"settings": 1}
	for name, raw := range counts {
		var c *connection
		if json.Unmarshal(raw, &c) == nil && c != nil {
			totals[name] = max(c.Total, 0)
		}
	}
	pulls, known := totals["pulls"]
	if string(counts["has_issues"]) == "false" {
		totals["issues"] = 0 // nobody sees those that were there
	}
	if _, both := totals["issues"]; known && both {
		totals["issues"] += pulls // which GitHub lists as issues
	} else {
		delete(totals, "issues")
	}
	return totals, nil
}
