package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

const (
	ruleFields = `node_id: id id: databaseId pattern approvals: requiredApprovingReviewCount requires_approvals: requiresApprovingReviews
  requires_checks: requiresStatusChecks checks: requiredStatusCheckContexts strict: requiresStrictStatusChecks
  restricts_pushes: restrictsPushes push: pushAllowances(first: 100) { nodes { actor { ... on User { login } ... on Team { slug organization { login } } ... on App { slug } } } }
  force_push: allowsForcePushes delete: allowsDeletions signed: requiresCommitSignatures linear: requiresLinearHistory admins: isAdminEnforced
  code_owners: requiresCodeOwnerReviews dismiss_stale: dismissesStaleReviews conversations: requiresConversationResolution locked: lockBranch`
	keyFields          = `node_id: id title key read_only: readOnly verified created_at: createdAt`
	collaboratorFields = `permission user: node { login id: databaseId name html_url: url }`
)

// onlyAdmins are the lists that administrators see.
func onlyAdmins() []list {
	return []list{
		{"rules", "branchProtectionRules", "nodes", ruleFields, noded("rules")},
		{"keys", "deployKeys", "nodes", keyFields, noded("keys")},
		{"collaborators", "collaborators", "nodes: edges", collaboratorFields, func(edge json.RawMessage) archive.Record {
			var o struct {
				User person `json:"user"`
			}
			if json.Unmarshal(edge, &o) != nil {
				o.User.Login = ""
			}
			return archive.Record{Key: archive.Key{Collection: "collaborators", ID: string(o.User.Login)}, Raw: edge}
		}},
	}
}

// protection reads the rules of branches, and who may do what.
func (m *metadata) protection(ctx context.Context, _ forge.Query) records {
	return each(m.op("branch protection and access"), func(yield func(archive.Record) bool) error {
		if err := m.wantsAdmin(); err != nil {
			return err
		}
		return m.short(ctx, "", onlyAdmins(), yield)
	})
}

// wantsAdmin refuses what only administrators see, where the listing says that the credentials are not of one.
func (m *metadata) wantsAdmin() error {
	var o struct {
		Permissions *struct {
			Admin bool `json:"admin"`
		} `json:"permissions"`
	}
	if json.Unmarshal(m.r.Raw, &o) != nil || o.Permissions == nil || o.Permissions.Admin {
		return nil
	}
	return fault.New("", fault.ErrDenied, "only its administrators see it", "give a token of one of the repository's administrators")
}

// paged reads a whole list of REST.
func (m *metadata) paged(ctx context.Context, path string, query url.Values, record func(json.RawMessage) error) error {
	if query == nil {
		query = url.Values{}
	}
	query.Set("per_page", perPage)
	for page, err := range m.p.client.Pages(ctx, m.at+path, query, "") {
		if err != nil {
			return err
		}
		for _, raw := range page.Items {
			if err := record(raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// errEnough ends a list that nobody wants more of.
var errEnough = errors.New("enough")

// plainList reads a list of REST whose objects have ids.
func (m *metadata) plainList(collection, path string) func(ctx context.Context, q forge.Query) records {
	return func(ctx context.Context, _ forge.Query) records {
		return each(m.op(collection), func(yield func(archive.Record) bool) error {
			return enough(m.paged(ctx, path, nil, func(raw json.RawMessage) error {
				if !yield(counted(collection)(raw)) {
					return errEnough
				}
				return nil
			}))
		})
	}
}

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// hooks reads webhooks. GitHub hides their secrets.
func (m *metadata) hooks(ctx context.Context, q forge.Query) records {
	if err := m.wantsAdmin(); err != nil {
		return each(m.op("hooks"), func(func(archive.Record) bool) error { return err })
	}
	return m.plainList("hooks", "/hooks")(ctx, q)
}

// releases reads releases, with their assets as records of their own.
func (m *metadata) releases(ctx context.Context, _ forge.Query) records {
	return each(m.op("releases"), func(yield func(archive.Record) bool) error {
		return enough(m.paged(ctx, "/releases", nil, func(raw json.RawMessage) error {
			release, assets := counted("releases")(raw), []json.RawMessage{}
			var err error
			if release.Raw, err = without(raw, "assets", &assets); err != nil {
				return err
			}
			if !yield(release) {
				return errEnough
			}
			for _, raw := range assets {
				asset := counted("assets")(raw)
				if asset.Parent = release.Key; !yield(asset) {
					return errEnough
				}
			}
			return nil
		}))
	})
}

// without takes a field out of an object, into what it is decoded as.
func without(raw json.RawMessage, field string, into any) (json.RawMessage, error) {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil || o[field] == nil {
		return raw, nil
	}
	if err := read(field, o[field], into); err != nil {
		return nil, err
	}
	delete(o, field)
	return json.Marshal(o)
}

// rulesets reads the list, and each of it, for the list has no rules.
func (m *metadata) rulesets(ctx context.Context, _ forge.Query) records {
	return each(m.op("rulesets"), func(yield func(archive.Record) bool) error {
		var all []archive.Record
		err := m.paged(ctx, "/rulesets", url.Values{"includes_parents": {"false"}}, func(raw json.RawMessage) error {
			all = append(all, counted("rulesets")(raw))
			return nil
		})
		for _, r := range all {
			if err != nil || r.ID == "" {
				break
			}
			var raw json.RawMessage
			path := fmt.Sprintf("%s/rulesets/%s", m.at, r.ID)
			var answer *forge.Response
			answer, err = m.p.client.Do(ctx, http.MethodGet, path, nil, nil, &raw, http.StatusNotFound)
			if err == nil && answer.Status == http.StatusOK {
				if !yield(counted("rulesets")(raw)) {
					return nil
				}
			}
		}
		return err
	})
}

const discussionFields = `
  node_id: id id: databaseId number title body html_url: url user: author ` + userFields + ` created_at: createdAt updated_at: updatedAt
  closed closed_at: closedAt state_reason: stateReason locked active_lock_reason: activeLockReason category { name emoji answerable: isAnswerable }
  answered: isAnswered answer { id: databaseId } answered_at: answerChosenAt answered_by: answerChosenBy ` + userFields + ` votes: upvoteCount
  poll { question votes: totalVoteCount options(first: 20) { nodes { option votes: totalVoteCount } } }
  labels(first: 50) { nodes { name } } reactions(first: 100) { totalCount nodes { ` + reactionFields + ` } }`

// discussions reads discussions by their updates. GraphQL has no "since", so that what is new is read from the newest on, and then
// yielded the other way round.
func (m *metadata) discussions(ctx context.Context, q forge.Query) records {
	return each(m.op("discussions"), func(yield func(archive.Record) bool) error {
		direction := "ASC"
		if !q.Since.IsZero() {
			direction = "DESC"
		}
		var recent []archive.Record
		stopped, err := m.discussionPages(ctx, direction, func(r archive.Record) bool {
			if q.Since.IsZero() {
				return yield(r)
			}
			if r.Updated.Before(q.Since) || len(recent) > maxRecent {
				return false
			}
			recent = append(recent, r)
			return true
		})
		switch {
		case err != nil || stopped && q.Since.IsZero():
			return err
		case len(recent) > maxRecent:
			return errRecent()
		}
		slices.Reverse(recent)
		for _, r := range recent {
			if !yield(r) {
				return nil
			}
		}
		return nil
	})
}

func (m *metadata) discussionPages(ctx context.Context, direction string, yield func(archive.Record) bool) (stopped bool, err error) {
	query := `query($owner: String!, $name: String!, $after: String) { repository(owner: $owner, name: $name) {
  list: discussions(first: 50, after: $after, orderBy: {field: UPDATED_AT, direction: ` + direction + `}) {` + pageFields + `nodes {` + discussionFields + `} } } }`
	var guard forge.Guard
	for cursor := ""; ; {
		variables := map[string]any{"owner": m.r.Owner, "name": m.r.Name}
		if cursor != "" {
			variables["after"] = cursor
		}
		var answer struct {
			Repository *struct {
				List connection `json:"list"`
			} `json:"repository"`
		}
		_, err := m.p.client.GraphQL(ctx, m.p.graphql, query, variables, &answer)
		if err == nil && answer.Repository == nil {
			err = fault.New("", fault.ErrNotFound, "the repository is not there", "")
		}
		if err == nil {
			err = guard.Page(cursor, answer.Repository.List.Nodes)
		}
		if err != nil {
			return false, err
		}
		page := answer.Repository.List
		for _, node := range page.Nodes {
			if !yield(numbered("discussions")(node)) {
				return true, nil
			}
		}
		if !page.Page.More {
			return false, nil
		}
		cursor = page.Page.End
	}
}

// discussionComments reads the comments of discussions, with their replies as records of their own.
func (m *metadata) discussionComments(ctx context.Context, q forge.Query) records {
	fields := commentFields + ` is_answer: isAnswer votes: upvoteCount minimized: isMinimized reply_to: replyTo { id: databaseId }`
	comments := nested{
		"discussion-comments", "", "comments(", fields + ` reactions(first: 50) { totalCount nodes { ` + reactionFields + ` } }
  replies(first: 100) {` + pageFields + `nodes { ` + fields + ` reactions(first: 5) { totalCount nodes { ` + reactionFields + ` } } } }`,
		counted("discussion-comments"),
	}
	replies := nested{"discussion-comments", "", "replies(", fields + ` reactions(first: 20) { totalCount nodes { ` + reactionFields + ` } }`, comments.record}
	return each(m.op("discussion comments"), func(yield func(archive.Record) bool) error {
		for r, err := range m.inside(ctx, "discussion comments", q.Parents, []kind{{name: "Discussion", lists: []nested{comments}}}, discussionBatch) {
			if err != nil {
				return err
			}
			if stopped, err := m.yieldReplies(ctx, r, replies, yield); stopped || err != nil {
				return err
			}
		}
		return nil
	})
}

// yieldReplies yields a comment without its replies, and then those.
func (m *metadata) yieldReplies(ctx context.Context, r archive.Record, replies nested, yield func(archive.Record) bool) (stopped bool, err error) {
	var page connection
	id := string(identify(r.Raw).Node)
	if r.Raw, err = without(r.Raw, "replies", &page); err != nil {
		return false, err
	}
	if !yield(r) {
		return true, nil
	}
	return m.yieldList(ctx, id, kind{name: "DiscussionComment"}, replies, page, r.Parent, yield)
}
