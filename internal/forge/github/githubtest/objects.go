package githubtest

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// Objects of the API lead everywhere. These are the ends of their addresses.
const (
	accountLinks    = "followers following{/other_user} gists{/gist_id} starred{/owner}{/repo} subscriptions orgs repos events{/privacy} received_events"
	repositoryLinks = "archive assignees blobs branches collaborators comments commits compare contents contributors deployments downloads " +
		"events forks git_commits git_refs git_tags hooks issue_comment issue_events issues keys labels languages merges milestones " +
		"notifications pulls releases stargazers statuses subscribers subscription tags teams trees"
)

// account is a user or an organisation: as the owner of something, or whole.
func (x *exchange) account(name string, whole bool) map[string]any {
	kind := "Organization"
	if x.isUser(name) {
		kind = "User"
	}
	at := x.rest + "/users/" + url.PathEscape(name)
	o := map[string]any{
		"login": name, "id": x.World.OwnerID(name), "node_id": node("U", x.World.OwnerID(name)), "type": kind, "site_admin": false,
		"avatar_url": x.web + "/avatars/" + url.PathEscape(name), "gravatar_id": "", "url": at, "html_url": x.web + "/" + url.PathEscape(name),
		"organizations_url": at + "/orgs",
	}
	for _, link := range strings.Fields(accountLinks) {
		key, _, _ := strings.Cut(link, "{")
		if key != "orgs" {
			o[key+"_url"] = at + "/" + link
		}
	}
	o["events_url"] = at + "/events{/privacy}"
	if whole {
		for _, key := range []string{"name", "company", "location", "email", "hireable", "bio"} {
			o[key] = nil
		}
		for _, key := range []string{"public_repos", "public_gists", "followers", "following"} {
			o[key] = 0
		}
		o["blog"], o["created_at"], o["updated_at"] = "", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"
	}
	return o
}

func node(kind string, id int64) string { return fmt.Sprintf("%s_%d", kind, id) }

// object is a repository as listings have it.
func (x *exchange) object(r forgetest.Repo) map[string]any {
	at, page := x.rest+"/repos/"+r.FullName(), x.web+"/"+r.FullName()
	host, _ := url.Parse(x.web)
	o := map[string]any{
		"id": r.ID, "node_id": node("R", r.ID), "name": r.Name, "full_name": r.FullName(), "owner": x.account(r.Owner, false),
		"private": r.Private, "fork": r.Fork, "archived": r.Archived, "disabled": false, "description": text(r.Description),
		"url": at, "html_url": page, "clone_url": page + ".git", "svn_url": page, "git_url": "git://" + host.Host + "/" + r.FullName() + ".git",
		"ssh_url": "git@" + host.Hostname() + ":" + r.FullName() + ".git", "mirror_url": nil, "homepage": nil, "license": nil,
		"language": text(r.Language), "default_branch": r.DefaultBranch, "size": r.Size / 1024,
		"stargazers_count": r.Stars, "watchers_count": r.Stars, "watchers": r.Stars,
		"forks_count": 0, "forks": 0, "open_issues_count": 0, "open_issues": 0, "topics": []any{}, "visibility": "public",
		"has_issues": true, "has_projects": true, "has_wiki": r.Wiki, "has_pages": false, "has_downloads": true, "has_discussions": false,
		"created_at": stamp(r.Created), "updated_at": stamp(r.Updated), "pushed_at": stamp(r.Pushed),
	}
	if r.Private {
		o["visibility"] = "private"
	}
	if r.Empty {
		o["pushed_at"] = nil
	}
	for _, link := range strings.Fields(repositoryLinks) {
		o[link+"_url"] = at + "/" + link
	}
	return o
}

// fullObject is a repository as it is answered alone. It always tells a push.
func (x *exchange) fullObject(r forgetest.Repo) map[string]any {
	o := x.object(r)
	o["pushed_at"], o["network_count"], o["subscribers_count"] = stamp(r.Pushed), 0, 0
	return o
}

// node is a repository as the provider's query names its fields.
func (x *exchange) node(r forgetest.Repo) map[string]any {
	o := x.object(r)
	n := map[string]any{"empty": r.Empty, "owner": map[string]any{"login": r.Owner}, "default_branch": nil, "language": nil}
	for _, key := range strings.Fields("id node_id name private fork archived description html_url ssh_url stargazers_count size has_wiki pushed_at " +
		"created_at updated_at") {
		n[key] = o[key]
	}
	if !r.Empty {
		n["default_branch"] = map[string]any{"name": r.DefaultBranch}
	}
	if r.Language != "" {
		n["language"] = map[string]any{"name": r.Language}
	}
	return n
}

func (x *exchange) gistObject(g Gist) map[string]any {
	at, page := x.rest+"/gists/"+g.ID, x.web+"/gist/"+g.ID
	if x.web == "https://github.com" {
		page = "https://gist.github.com/" + g.ID
	}
	return map[string]any{
		"id": g.ID, "node_id": "G_" + g.ID, "url": at, "forks_url": at + "/forks", "commits_url": at + "/commits", "comments_url": at + "/comments",
		"git_pull_url": page + ".git", "git_push_url": page + ".git", "html_url": page, "public": !g.Secret, "description": "a gist",
		"comments": 0, "user": nil, "owner": x.account(g.Owner, false), "truncated": false,
		"created_at": "2020-01-02T03:04:05Z", "updated_at": "2021-01-02T03:04:05Z",
		"files": map[string]any{"a.txt": map[string]any{
			"filename": "a.txt", "type": "text/plain", "language": "Text", "raw_url": page + "/raw/a.txt", "size": 12,
		}},
	}
}

func (x *exchange) issueObject(r forgetest.Repo, i forgetest.Issue) map[string]any {
	at, page := fmt.Sprintf("%s/repos/%s/issues/%d", x.rest, r.FullName(), i.Number), fmt.Sprintf("%s/%s/issues/%d", x.web, r.FullName(), i.Number)
	o := map[string]any{
		"id": r.ID*1000 + i.Number, "node_id": node("I", i.Number), "number": i.Number, "title": i.Title, "body": i.Body, "state": "open",
		"url": at, "html_url": page, "repository_url": x.rest + "/repos/" + r.FullName(), "labels_url": at + "/labels{/name}",
		"comments_url": at + "/comments", "events_url": at + "/events", "user": x.account(r.Owner, false), "labels": []any{},
		"assignee": nil, "assignees": []any{}, "milestone": nil, "locked": false, "comments": 0, "author_association": "OWNER",
		"created_at": stamp(i.Updated), "updated_at": stamp(i.Updated), "closed_at": nil,
	}
	if i.Closed {
		o["state"], o["closed_at"] = "closed", stamp(i.Updated)
	}
	if i.Pull {
		o["pull_request"] = map[string]any{"url": at, "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch"}
	}
	return o
}

// text is a string, or null for none.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func stamp(t time.Time) any { return t.UTC().Format(time.RFC3339) }
