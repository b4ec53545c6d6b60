package githubtest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
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
		"issues/comments":         x.listComments,
		"pulls/comments":          x.listReviewComments,
		"pulls":                   x.listPulls,
		"comments":                x.listCommitComments,
		"releases":                x.listReleases,
		"rulesets":                x.listRulesets,
		"rulesets/{ruleset}":      x.ruleset,
		"hooks":                   x.listHooks,
		"teams":                   x.listTeams,
		"releases/assets/{asset}": x.asset,
	}
}

// routeMetadata serves those paths, by name and by number of the repository.
func (x *exchange) routeMetadata(handle func(pattern string, serve func())) {
	for path, serve := range x.metadataRoutes() {
		for _, prefix := range []string{"GET /repos/{owner}/{repo}/", "GET /repositories/{id}/"} {
			handle(prefix+path, func() { x.within(serve) })
		}
	}
	for pattern, serve := range x.restoreRoutes() {
		handle(pattern, func() {
			x.within(func(r forgetest.Repo, m *Metadata) {
				if x.admitWrite(m) {
					serve(r, m)
				}
			})
		})
	}
}

// within serves what is of a repository.
func (x *exchange) within(serve func(r forgetest.Repo, m *Metadata)) {
	r, ok := x.named()
	if !ok {
		return
	}
	m := x.metadata(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	serve(r, m)
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
		return x.issueComment(r, m, c)
	})
}

// issueComment is a comment on an issue or a pull request.
func (x *exchange) issueComment(r forgetest.Repo, m *Metadata, c *Comment) map[string]any {
	at := x.rest + "/repos/" + r.FullName()
	o := x.commentObject(r, "IC", c)
	kind := "issues"
	if i := m.item(c.On); i != nil && i.Pull != nil {
		kind = "pull"
	}
	o["url"], o["issue_url"] = fmt.Sprintf("%s/issues/comments/%d", at, c.ID), fmt.Sprintf("%s/issues/%d", at, c.On)
	o["html_url"] = fmt.Sprintf("%s/%s/%s/%d#issuecomment-%d", x.web, r.FullName(), kind, c.On, c.ID)
	return o
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
	o["timeline_url"] = fmt.Sprintf("%v/timeline", o["url"])
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

// listPulls lists pull requests, which knows no since.
func (x *exchange) listPulls(r forgetest.Repo, m *Metadata) {
	all := slices.Clone(m.arranged().pulls)
	if x.r.URL.Query().Get("direction") == "desc" {
		slices.Reverse(all)
	}
	paged(x, r, "pulls", all, func(i *Item) any { return x.pullObject(r, m, i) })
}

// pullObject is a pull request as lists of pull requests have it.
func (x *exchange) pullObject(r forgetest.Repo, m *Metadata, i *Item) map[string]any {
	o := x.itemObject(r, m, i)
	for _, key := range strings.Fields("pull_request reactions state_reason closed_by comments repository_url labels_url events_url timeline_url parent_issue_url") {
		delete(o, key)
	}
	at, page := fmt.Sprintf("%s/repos/%s/pulls/%d", x.rest, r.FullName(), i.Number), fmt.Sprint(o["html_url"])
	o["url"], o["diff_url"], o["patch_url"] = at, page+".diff", page+".patch"
	links := map[string]any{"html": map[string]any{"href": page}, "self": map[string]any{"href": at}}
	for _, link := range strings.Fields("issue commits review_comments review_comment comments statuses") {
		o[link+"_url"], links[link] = at+"/"+link, map[string]any{"href": at + "/" + link}
	}
	o["_links"], o["auto_merge"], o["merged_at"], o["merge_commit_sha"] = links, nil, moment(i.Pull.MergedAt), text(i.Pull.MergeOID)
	end := func(ref, sha string) map[string]any {
		return map[string]any{"label": r.Owner + ":" + ref, "ref": ref, "sha": sha, "user": x.account(r.Owner, false), "repo": x.object(r)}
	}
	o["head"], o["base"] = end(i.Pull.Head, i.Pull.HeadOID), end(i.Pull.Base, i.Pull.BaseOID)
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

func (x *exchange) listCommitComments(r forgetest.Repo, m *Metadata) {
	paged(x, r, "comments", m.CommitComments, func(c *CommitComment) any {
		o := x.commentObject(r, "CC", &c.Comment)
		o["url"] = fmt.Sprintf("%s/repos/%s/comments/%d", x.rest, r.FullName(), c.ID)
		o["html_url"] = fmt.Sprintf("%s/%s/commit/%s#commitcomment-%d", x.web, r.FullName(), c.OID, c.ID)
		o["path"], o["position"], o["line"], o["commit_id"] = text(c.Path), number(c.Line), number(c.Line), c.OID
		return o
	})
}

func (x *exchange) listReleases(r forgetest.Repo, m *Metadata) {
	newest := slices.Clone(m.Releases)
	slices.Reverse(newest)
	paged(x, r, "releases", newest, func(o *Release) any { return x.releaseObject(r, o) })
}

func (x *exchange) releaseObject(r forgetest.Repo, o *Release) map[string]any {
	at, page := fmt.Sprintf("%s/repos/%s/releases/%d", x.rest, r.FullName(), o.ID), fmt.Sprintf("%s/%s/releases/tag/%s", x.web, r.FullName(), o.Tag)
	assets := []any{}
	for _, a := range o.Assets {
		assets = append(assets, x.assetObject(r, o, a))
	}
	return map[string]any{
		"url": at, "html_url": page, "assets_url": at + "/assets", "upload_url": at + "/assets{?name,label}", "tarball_url": nil, "zipball_url": nil, "id": o.ID,
		"node_id": nodeID("RE", r.ID, o.ID), "tag_name": o.Tag, "target_commitish": o.Target, "name": text(o.Name), "body": text(o.Body), "draft": o.Draft,
		"prerelease": o.Prerelease, "immutable": false, "created_at": stamp(o.Created), "updated_at": stamp(o.Updated), "published_at": moment(o.Published),
		"author": x.account(o.User, false), "assets": assets,
	}
}

func (x *exchange) assetObject(r forgetest.Repo, o *Release, a Asset) map[string]any {
	return map[string]any{
		"url": fmt.Sprintf("%s/repos/%s/releases/assets/%d", x.rest, r.FullName(), a.ID), "id": a.ID, "node_id": nodeID("RA", r.ID, a.ID), "name": a.Name,
		"browser_download_url": fmt.Sprintf("%s/%s/releases/download/%s/%s", x.web, r.FullName(), o.Tag, a.Name), "label": text(a.Label), "state": a.state(),
		"content_type": a.Type, "size": len(a.Content), "digest": text(a.Digest), "download_count": a.Downloads, "created_at": stamp(a.Created),
		"updated_at": stamp(a.Updated), "uploader": x.account(o.User, false),
	}
}

// asset answers with an asset, or its bytes.
func (x *exchange) asset(r forgetest.Repo, m *Metadata) {
	for _, o := range m.Releases {
		for _, a := range o.Assets {
			if strconv.FormatInt(a.ID, 10) != x.r.PathValue("asset") {
				continue
			}
			if x.r.Header.Get("Accept") != "application/octet-stream" {
				x.answer(http.StatusOK, x.assetObject(r, o, a))
				return
			}
			x.w.Header().Set("Content-Type", "application/octet-stream")
			x.w.Write(a.Content) //nolint:errcheck // the client may have gone away
			return
		}
	}
	x.notFound()
}

func (x *exchange) rulesetObject(r forgetest.Repo, s Ruleset) map[string]any {
	o := map[string]any{
		"id": s.ID, "name": s.Name, "target": "branch", "source_type": "Repository", "source": r.FullName(), "enforcement": "active",
		"node_id": nodeID("RRS", r.ID, s.ID), "created_at": stamp(s.Updated), "updated_at": stamp(s.Updated),
	}
	if s.Tags {
		o["target"] = "tag"
	}
	if s.Disabled {
		o["enforcement"] = "disabled"
	}
	return o
}

func (x *exchange) listRulesets(r forgetest.Repo, m *Metadata) {
	paged(x, r, "rulesets", m.Rulesets, func(s Ruleset) any { return x.rulesetObject(r, s) })
}

func (x *exchange) ruleset(r forgetest.Repo, m *Metadata) {
	for _, s := range m.Rulesets {
		if strconv.FormatInt(s.ID, 10) == x.r.PathValue("ruleset") {
			x.answer(http.StatusOK, x.wholeRuleset(r, s))
			return
		}
	}
	x.notFound()
}

// wholeRuleset is a ruleset as it is answered alone, with its rules.
func (x *exchange) wholeRuleset(r forgetest.Repo, s Ruleset) map[string]any {
	o := x.rulesetObject(r, s)
	o["conditions"] = map[string]any{"ref_name": map[string]any{"include": s.Patterns, "exclude": []string{}}}
	o["rules"], o["bypass_actors"] = append([]map[string]any{}, s.Rules...), append([]map[string]any{}, s.Bypass...)
	return o
}

func (x *exchange) listHooks(r forgetest.Repo, m *Metadata) {
	if slices.Contains(x.NoAdmin, r.ID) {
		x.notFound()
		return
	}
	paged(x, r, "hooks", m.Hooks, func(h Hook) any {
		at := fmt.Sprintf("%s/repos/%s/hooks/%d", x.rest, r.FullName(), h.ID)
		return map[string]any{
			"type": "Repository", "id": h.ID, "name": "web", "active": h.Active, "events": h.Events, "created_at": stamp(r.Created), "updated_at": stamp(r.Created),
			"config": map[string]any{"url": h.URL, "content_type": "json", "insecure_ssl": "0", "secret": "********"},
			"url":    at, "test_url": at + "/test", "ping_url": at + "/pings", "deliveries_url": at + "/deliveries",
			"last_response": map[string]any{"code": nil, "status": "unused", "message": nil},
		}
	})
}

func (x *exchange) listTeams(r forgetest.Repo, m *Metadata) {
	paged(x, r, "teams", m.Teams, func(t Team) any {
		at := fmt.Sprintf("%s/organizations/1/team/%d", x.rest, t.ID)
		return map[string]any{
			"id": t.ID, "node_id": nodeID("T", 1, t.ID), "name": t.Slug, "slug": t.Slug, "description": nil, "permission": t.Permission, "url": at, "type": "organization",
			"html_url": x.web + "/orgs/" + r.Owner + "/teams/" + t.Slug, "members_url": at + "/members{/member}", "repositories_url": at + "/repos", "parent": nil,
		}
	})
}
