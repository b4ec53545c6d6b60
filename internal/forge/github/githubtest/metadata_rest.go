package githubtest

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// deepest is the last page of a list that GitHub gives.
const deepest = 100

// metadataRoutes are the paths of lists that belong to a repository's metadata, below /repos/{owner}/{repo}.
func (x *exchange) metadataRoutes() map[string]func(r forgetest.Repo, m *Metadata) {
	return map[string]func(r forgetest.Repo, m *Metadata){
		"issues/comments": x.listComments,
		"pulls/comments":  x.listReviewComments,
	}
}

// routeMetadata serves those paths, by name and by number of the repository.
func (x *exchange) routeMetadata(handle func(pattern string, serve func())) {
	for path, serve := range x.metadataRoutes() {
		for _, prefix := range []string{"GET /repos/{owner}/{repo}/", "GET /repositories/{id}/"} {
			handle(prefix+path, func() {
				r, ok := x.named()
				if !ok {
					return
				}
				m := x.Metadata[r.ID]
				if m == nil {
					m = &Metadata{}
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				serve(r, m)
			})
		}
	}
}

// window answers with a page of a list that knows since.
func window[T any](x *exchange, r forgetest.Repo, path string, all []*T, updated func(*T) time.Time, object func(*T) any) {
	query := x.r.URL.Query()
	if since, err := time.Parse(time.RFC3339, query.Get("since")); err == nil {
		all = after(all, updated, since)
	}
	paged(x, r, path, all, object)
}

// paged answers with a page of a list.
func paged[T any](x *exchange, r forgetest.Repo, path string, all []T, object func(T) any) {
	query := x.r.URL.Query()
	size, err := strconv.Atoi(query.Get("per_page"))
	if err != nil || size <= 0 || size > 100 {
		size = 30
	}
	number, _ := strconv.Atoi(query.Get("page"))
	if number = max(number, 1); number > deepest {
		x.answer(http.StatusUnprocessableEntity, map[string]any{
			"message":           "In order to keep the API fast for everyone, pagination is limited for this resource.",
			"documentation_url": "https://docs.github.com/v3/#pagination",
		})
		return
	}
	from := min((number-1)*size, len(all))
	to := min(from+size, len(all))
	if to < len(all) {
		q := maps.Clone(query)
		q.Set("page", strconv.Itoa(number+1))
		x.w.Header().Set("Link", fmt.Sprintf("<%s/repositories/%d/%s?%s>; rel=\"next\"", x.rest, r.ID, path, q.Encode()))
	}
	items := []any{}
	for _, o := range all[from:to] {
		items = append(items, object(o))
	}
	x.answer(http.StatusOK, items)
}

func (x *exchange) listItems(r forgetest.Repo, m *Metadata) {
	window(x, r, "issues", m.arranged().items, func(i *Item) time.Time { return i.Updated }, func(i *Item) any { return x.itemObject(r, m, i) })
}

func (x *exchange) listComments(r forgetest.Repo, m *Metadata) {
	window(x, r, "issues/comments", m.arranged().comments, func(c *Comment) time.Time { return c.Updated }, func(c *Comment) any {
		at := x.rest + "/repos/" + r.FullName()
		o := x.commentObject(r, "IC", c)
		kind := "issues"
		if i := m.item(c.On); i != nil && i.Pull != nil {
			kind = "pull"
		}
		o["url"], o["issue_url"] = fmt.Sprintf("%s/issues/comments/%d", at, c.ID), fmt.Sprintf("%s/issues/%d", at, c.On)
		o["html_url"] = fmt.Sprintf("%s/%s/%s/%d#issuecomment-%d", x.web, r.FullName(), kind, c.On, c.ID)
		return o
	})
}

func (x *exchange) listReviewComments(r forgetest.Repo, m *Metadata) {
	window(x, r, "pulls/comments", m.arranged().reviewComments, func(c *ReviewComment) time.Time { return c.Updated }, func(c *ReviewComment) any {
		at := x.rest + "/repos/" + r.FullName()
		o := x.commentObject(r, "PRRC", &c.Comment)
		pull := fmt.Sprintf("%s/pulls/%d", at, c.On)
		o["url"], o["pull_request_url"] = fmt.Sprintf("%s/pulls/comments/%d", at, c.ID), pull
		o["html_url"] = fmt.Sprintf("%s/%s/pull/%d#discussion_r%d", x.web, r.FullName(), c.On, c.ID)
		o["_links"] = map[string]any{
			"self": map[string]any{"href": o["url"]}, "html": map[string]any{"href": o["html_url"]}, "pull_request": map[string]any{"href": pull},
		}
		o["pull_request_review_id"], o["diff_hunk"], o["path"] = c.Review, c.Hunk, c.Path
		o["commit_id"], o["original_commit_id"], o["subject_type"] = c.OID, c.OID, "line"
		o["original_line"], o["side"], o["start_line"], o["original_start_line"], o["start_side"] = c.OriginalLine, "RIGHT", number(c.Start), nil, nil
		if c.Left {
			o["side"] = "LEFT"
		}
		if c.Line > 0 {
			o["line"] = c.Line
		}
		if c.ReplyTo > 0 {
			o["in_reply_to_id"] = c.ReplyTo
		}
		return o
	})
}

// commentObject is what all comments have.
func (x *exchange) commentObject(r forgetest.Repo, kind string, c *Comment) map[string]any {
	return map[string]any{
		"id": c.ID, "node_id": nodeID(kind, r.ID, c.ID), "user": x.somebody(c.User), "body": c.Body, "author_association": "NONE",
		"created_at": stamp(c.Created), "updated_at": stamp(c.Updated), "reactions": x.rollup(c.Reactions),
	}
}

// itemObject is an issue or a pull request, as lists of issues have it.
func (x *exchange) itemObject(r forgetest.Repo, m *Metadata, i *Item) map[string]any {
	o := x.issueObject(r, forgetest.Issue{Number: i.Number, Title: i.Title, Body: i.Body, Closed: i.Closed, Pull: i.Pull != nil, Updated: i.Updated})
	kind, page := "I", fmt.Sprintf("%s/%s/issues/%d", x.web, r.FullName(), i.Number)
	if i.Pull != nil {
		kind, page = "PR", fmt.Sprintf("%s/%s/pull/%d", x.web, r.FullName(), i.Number)
		address := fmt.Sprintf("%s/repos/%s/pulls/%d", x.rest, r.FullName(), i.Number)
		o["draft"] = i.Pull.Draft
		o["pull_request"] = map[string]any{"url": address, "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch", "merged_at": moment(i.Pull.MergedAt)}
	}
	o["node_id"], o["html_url"], o["user"], o["body"] = nodeID(kind, r.ID, i.Number), page, x.somebody(i.User), text(i.Body)
	o["created_at"], o["closed_at"], o["state_reason"] = stamp(i.Created), moment(i.ClosedAt), text(i.Reason)
	o["closed_by"], o["locked"], o["active_lock_reason"] = x.somebody(i.ClosedBy), i.Locked, text(i.LockReason)
	o["timeline_url"] = o["url"].(string) + "/timeline"
	labels, assignees := []any{}, []any{}
	for n, l := range m.Labels {
		for _, name := range i.Labels {
			if l.Name == name {
				labels = append(labels, x.labelObject(r, n, l))
			}
		}
	}
	for _, login := range i.Assignees {
		assignees = append(assignees, x.account(login, false))
		o["assignee"] = assignees[0]
	}
	o["labels"], o["assignees"], o["reactions"] = labels, assignees, x.rollup(i.Reactions)
	for _, milestone := range m.Milestones {
		if milestone.Number == i.Milestone {
			o["milestone"] = x.milestoneObject(r, milestone)
		}
	}
	if i.Parent > 0 {
		o["parent_issue_url"] = fmt.Sprintf("%s/repos/%s/issues/%d", x.rest, r.FullName(), i.Parent)
	}
	return o
}

func (x *exchange) labelObject(r forgetest.Repo, n int, l Label) map[string]any {
	return map[string]any{
		"id": r.ID*1000 + int64(n), "node_id": nodeID("LA", r.ID, int64(n)), "url": x.rest + "/repos/" + r.FullName() + "/labels/" + strings.ReplaceAll(l.Name, " ", "%20"),
		"name": l.Name, "description": text(l.Description), "color": l.Color, "default": false,
	}
}

func (x *exchange) milestoneObject(r forgetest.Repo, m Milestone) map[string]any {
	at := fmt.Sprintf("%s/repos/%s/milestones/%d", x.rest, r.FullName(), m.Number)
	o := map[string]any{
		"url": at, "html_url": fmt.Sprintf("%s/%s/milestone/%d", x.web, r.FullName(), m.Number), "labels_url": at + "/labels", "id": r.ID*1000 + m.Number,
		"node_id": nodeID("MI", r.ID, m.Number), "number": m.Number, "state": "open", "title": m.Title, "description": text(m.Description), "creator": nil,
		"open_issues": 0, "closed_issues": 0, "created_at": stamp(m.Created), "updated_at": stamp(m.Updated), "closed_at": nil, "due_on": moment(m.Due),
	}
	if m.Closed {
		o["state"], o["closed_at"] = "closed", stamp(m.Updated)
	}
	return o
}

// rollup counts reactions.
func (x *exchange) rollup(all []Reaction) map[string]any {
	o := map[string]any{"url": x.rest + "/reactions", "total_count": len(all)}
	for _, content := range strings.Fields("+1 -1 laugh confused heart hooray eyes rocket") {
		n := 0
		for _, r := range all {
			if r.Content == content {
				n++
			}
		}
		o[content] = n
	}
	return o
}

// somebody is a user, or null for one who left.
func (x *exchange) somebody(login string) any {
	if login == "" {
		return nil
	}
	return x.account(login, false)
}

// moment is a time, or null for none.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// number is a number, or null for none.
func number(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// nodeID names an object of a repository in GraphQL.
func nodeID(kind string, repository, id int64) string {
	return fmt.Sprintf("%s_%d_%d", kind, repository, id)
}
