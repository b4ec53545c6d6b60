package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// How many objects one request asks GraphQL for. A query may ask for 500,000 nodes, and has ten seconds.
const (
	timelineBatch   = 50
	reactionBatch   = 100
	discussionBatch = 5
)

const (
	commentFields  = `node_id: id id: databaseId body html_url: url user: author ` + userFields + ` created_at: createdAt updated_at: updatedAt`
	reactionFields = `node_id: id id: databaseId content user ` + userFields + ` created_at: createdAt`
	reviewFields   = commentFields + ` state commit { oid } submitted_at: submittedAt`
	threadFields   = `node_id: id resolved: isResolved resolved_by: resolvedBy ` + userFields + ` outdated: isOutdated path line start_line: startLine
  comments(first: 1) { nodes { id: databaseId } }`
	pullFields = `
  node_id: id number base_ref: baseRefName base_oid: baseRefOid head_ref: headRefName head_oid: headRefOid
  head_repository: headRepository { full_name: nameWithOwner } draft: isDraft merged merged_at: mergedAt merged_by: mergedBy ` + userFields + `
  merge_commit: mergeCommit { oid } maintainer_can_modify: maintainerCanModify created_at: createdAt updated_at: updatedAt
  reviewers: reviewRequests(first: 100) { nodes { reviewer: requestedReviewer {
    ... on User { login id: databaseId } ... on Mannequin { login } ... on Bot { login } ... on Team { slug organization { login } }
  } } }
  commits(first: 100) { totalCount nodes { commit { oid } } }`
	mentionedFields = ` { ... on Issue { number repository { full_name: nameWithOwner } } ... on PullRequest { number repository { full_name: nameWithOwner } } }`
)

// events are the types of what timelines tell, with the fields that they have beside id, actor and createdAt. Not among them are those
// that are records of other collections, and mentions and subscriptions, which only tell who got mail.
func events(ofPulls bool) []struct{ name, fields string } {
	all := []struct{ name, fields string }{
		{"AssignedEvent", ` assignee { ... on User { login } ... on Bot { login } ... on Mannequin { login } ... on Organization { login } }`},
		{"UnassignedEvent", ` assignee { ... on User { login } ... on Bot { login } ... on Mannequin { login } ... on Organization { login } }`},
		{"ClosedEvent", ` closer { __typename ... on Commit { oid } ... on PullRequest { number repository { full_name: nameWithOwner } } }`},
		{"ReopenedEvent", ""},
		{"CommentDeletedEvent", ` author: deletedCommentAuthor { login }`},
		{"ConnectedEvent", ` source` + mentionedFields + ` subject` + mentionedFields},
		{"DisconnectedEvent", ` source` + mentionedFields + ` subject` + mentionedFields},
		{"ConvertedToDiscussionEvent", ` discussion { number }`},
		{"CrossReferencedEvent", ` source` + mentionedFields + ` will_close: willCloseTarget`},
		{"ReferencedEvent", ` commit { oid } repository: commitRepository { full_name: nameWithOwner }`},
		{"LabeledEvent", ` label { name }`},
		{"UnlabeledEvent", ` label { name }`},
		{"LockedEvent", ` lock_reason: lockReason`},
		{"UnlockedEvent", ""},
		{"MarkedAsDuplicateEvent", ` canonical` + mentionedFields},
		{"UnmarkedAsDuplicateEvent", ` canonical` + mentionedFields},
		{"MilestonedEvent", ` milestone_title: milestoneTitle`},
		{"DemilestonedEvent", ` milestone_title: milestoneTitle`},
		{"PinnedEvent", ""},
		{"UnpinnedEvent", ""},
		{"RenamedTitleEvent", ` previous_title: previousTitle current_title: currentTitle`},
		{"TransferredEvent", ` from_repository: fromRepository { full_name: nameWithOwner }`},
		{"UserBlockedEvent", ` duration: blockDuration subject_user: subject { login }`},
	}
	if !ofPulls {
		return all
	}
	return append(all, []struct{ name, fields string }{
		{"AutoMergeDisabledEvent", ""},
		{"AutoMergeEnabledEvent", ""},
		{"AutomaticBaseChangeSucceededEvent", ""},
		{"BaseRefChangedEvent", ` previous_ref_name: previousRefName current_ref_name: currentRefName`},
		{"BaseRefDeletedEvent", ""},
		{"BaseRefForcePushedEvent", ` before_commit: beforeCommit { oid } after_commit: afterCommit { oid }`},
		{"ConvertToDraftEvent", ""},
		{"DeployedEvent", ` deployment { id environment }`},
		{"HeadRefDeletedEvent", ` head_ref: headRefName`},
		{"HeadRefForcePushedEvent", ` before_commit: beforeCommit { oid } after_commit: afterCommit { oid }`},
		{"HeadRefRestoredEvent", ""},
		{"MergedEvent", ` commit { oid } merge_ref: mergeRefName`},
		{"ReadyForReviewEvent", ""},
		{"ReviewDismissedEvent", ` dismissal_message: dismissalMessage review { id: databaseId }`},
		{"ReviewRequestedEvent", ` reviewer: requestedReviewer { ... on User { login } ... on Mannequin { login } ... on Bot { login } ... on Team { slug } }`},
		{"ReviewRequestRemovedEvent", ` reviewer: requestedReviewer { ... on User { login } ... on Mannequin { login } ... on Bot { login } ... on Team { slug } }`},
	}...)
}

// kind is a type of objects that have lists of records.
type kind struct {
	name       string // "PullRequest"
	collection string // that the object is itself a record of; "" for one that came from REST
	fields     string
	lists      []nested
}

// nested is a list that an object of GraphQL has.
type nested struct {
	collection string
	parents    string // collection of the parents, where that is another one than the object's
	field      string // with its arguments but for the page, and an open parenthesis
	fields     string
	record     func(node json.RawMessage) archive.Record
}

func timelineOf(ofPulls bool) nested {
	var types []string
	fields := `__typename `
	for _, e := range events(ofPulls) {
		types = append(types, typeWord(e.name))
		fields += "\n    ... on " + e.name + " { node_id: id created_at: createdAt actor " + userFields + e.fields + " }"
	}
	return nested{"timeline", "", "timelineItems(itemTypes: [" + strings.Join(types, ", ") + "], ", fields, noded("timeline")}
}

// typeWord is the word for a type in lists of types: "HEAD_REF_DELETED_EVENT".
func typeWord(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func reactionsOf(collection string) nested {
	return nested{collection, "", "reactions(", reactionFields, noded(collection)}
}

// details reads what lies on issues and pull requests.
func (m *metadata) details(ctx context.Context, q forge.Query) records {
	kinds := []kind{
		{name: "Issue", lists: []nested{timelineOf(false), reactionsOf("reactions")}},
		{name: "PullRequest", collection: "pulls", fields: pullFields, lists: []nested{
			{"reviews", "pulls", "reviews(", reviewFields, counted("reviews")},
			{"review-threads", "pulls", "reviewThreads(", threadFields, noded("review-threads")},
			timelineOf(true), reactionsOf("reactions"),
		}},
	}
	return m.inside(ctx, "timeline", q.Parents, kinds, timelineBatch)
}

// reactions are who reacted to comments, of those where somebody did. Estimates take one comment in ten for such a one.
func (m *metadata) reactions(name, of, typeName string) forge.Collection {
	kinds := []kind{{name: typeName, lists: []nested{reactionsOf(name)}}}
	return forge.Collection{
		Name: name, Of: of, Wants: hasReactions, Batch: reactionBatch, Requests: func(n int64) int64 { return n/(10*reactionBatch) + 1 },
		Read: func(ctx context.Context, q forge.Query) records {
			return m.inside(ctx, name, q.Parents, kinds, reactionBatch)
		},
	}
}

func hasReactions(comment archive.Record) bool {
	var o struct {
		Reactions struct {
			Total number `json:"total_count"`
		} `json:"reactions"`
	}
	return json.Unmarshal(comment.Raw, &o) == nil && o.Reactions.Total > 0
}

// inside reads the lists that objects have, in batches.
func (m *metadata) inside(ctx context.Context, op string, parents []archive.Record, kinds []kind, batch int) records {
	return each(m.op(op), func(yield func(archive.Record) bool) error {
		for some := range slices.Chunk(parents, batch) {
			if stopped, err := m.insideSome(ctx, some, kinds, yield); stopped || err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *metadata) insideSome(ctx context.Context, parents []archive.Record, kinds []kind, yield func(archive.Record) bool) (stopped bool, err error) {
	var ids []string
	of := map[string]archive.Record{}
	for _, parent := range parents {
		if id := string(identify(parent.Raw).Node); id != "" {
			ids, of[id] = append(ids, id), parent
		}
	}
	if len(ids) == 0 {
		return false, nil
	}
	found, err := m.bisected(ctx, ids, kinds)
	for _, object := range found {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == object.kind })
		parent, known := of[object.id]
		if i < 0 || !known {
			continue // gone, or what the issue is now
		}
		if stopped, err := m.yieldNode(ctx, object, kinds[i], parent, yield); stopped || err != nil {
			return stopped, err
		}
	}
	return false, err
}

// nodeObject is an object of GraphQL with its fields.
type nodeObject struct {
	id, kind string
	fields   map[string]json.RawMessage
}

// bisected asks for objects, in halves where GitHub does not answer for so many in its time.
func (m *metadata) bisected(ctx context.Context, ids []string, kinds []kind) ([]nodeObject, error) {
	found, err := m.nodes(ctx, ids, kinds)
	if !errors.Is(err, fault.ErrUnavailable) || len(ids) < 2 || ctx.Err() != nil {
		return found, err
	}
	half := len(ids) / 2
	if found, err = m.bisected(ctx, ids[:half], kinds); err != nil {
		return nil, err
	}
	rest, err := m.bisected(ctx, ids[half:], kinds)
	return append(found, rest...), err
}

// nodes asks for objects. Those that are gone are left out.
func (m *metadata) nodes(ctx context.Context, ids []string, kinds []kind) (found []nodeObject, err error) {
	var query strings.Builder
	query.WriteString("query($ids: [ID!]!) { nodes(ids: $ids) { __typename")
	for _, k := range kinds {
		query.WriteString("\n... on " + k.name + " { self: id " + k.fields)
		for _, l := range k.lists {
			query.WriteString("\n  " + l.alias(k) + ": " + l.field + "first: 100) {" + pageFields + "nodes { " + l.fields + " } }")
		}
		query.WriteString(" }")
	}
	query.WriteString("\n} }")
	var answer struct {
		Nodes []map[string]json.RawMessage `json:"nodes"`
	}
	_, err = m.p.client.GraphQL(ctx, m.p.graphql, query.String(), map[string]any{"ids": ids}, &answer)
	if err != nil && (!errors.Is(err, fault.ErrNotFound) || len(answer.Nodes) == 0) {
		return nil, err
	}
	for _, fields := range answer.Nodes {
		var id, kind words
		json.Unmarshal(fields["self"], &id)         //nolint:errcheck // words take everything
		json.Unmarshal(fields["__typename"], &kind) //nolint:errcheck // as above
		delete(fields, "self")
		delete(fields, "__typename")
		found = append(found, nodeObject{string(id), string(kind), fields})
	}
	return found, nil
}

// alias tells apart what lists of two types have with other fields.
func (l nested) alias(k kind) string {
	return strings.ToLower(k.name) + "_" + strings.ReplaceAll(l.collection, "-", "_")
}

// yieldNode yields what an object is a record of, and its lists.
func (m *metadata) yieldNode(ctx context.Context, o nodeObject, k kind, parent archive.Record, yield func(archive.Record) bool) (stopped bool, err error) {
	pages := make([]connection, len(k.lists))
	for i, l := range k.lists {
		if err := read(l.collection, o.fields[l.alias(k)], &pages[i]); err != nil {
			return false, err
		}
		delete(o.fields, l.alias(k))
	}
	if k.collection != "" {
		raw, err := json.Marshal(o.fields)
		if err != nil {
			return false, err
		}
		r := numbered(k.collection)(raw)
		if r.Parent = parent.Key; !yield(r) {
			return true, nil
		}
	}
	for i, l := range k.lists {
		on := parent.Key
		if l.parents != "" {
			on.Collection = l.parents
		}
		if stopped, err := m.yieldList(ctx, o.id, k, l, pages[i], on, yield); stopped || err != nil {
			return stopped, err
		}
	}
	return false, nil
}

// yieldList yields a list from its first page on.
func (m *metadata) yieldList(ctx context.Context, id string, k kind, l nested, page connection, parent archive.Key,
	yield func(archive.Record) bool,
) (stopped bool, err error) {
	var guard forge.Guard
	for cursor := ""; ; cursor = page.Page.End {
		if err := guard.Page(cursor, page.Nodes); err != nil {
			return false, err
		}
		for _, node := range page.Nodes {
			r := l.record(node)
			if r.Parent = parent; !yield(r) {
				return true, nil
			}
		}
		if !page.Page.More {
			return false, nil
		}
		if page, err = m.more(ctx, id, k, l, page.Page.End); err != nil {
			return false, err
		}
	}
}

// more asks for a further page of an object's list.
func (m *metadata) more(ctx context.Context, id string, k kind, l nested, after string) (connection, error) {
	query := fmt.Sprintf("query($id: ID!, $after: String) { node(id: $id) { ... on %s { list: %sfirst: 100, after: $after) {%snodes { %s } } } } }",
		k.name, l.field, pageFields, l.fields)
	var answer struct {
		Node struct {
			List connection `json:"list"`
		} `json:"node"`
	}
	_, err := m.p.client.GraphQL(ctx, m.p.graphql, query, map[string]any{"id": id, "after": after}, &answer)
	return answer.Node.List, err
}
