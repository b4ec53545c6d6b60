package githubtest

import (
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// root is what a query begins with.
func (x *exchange) root() object {
	return object{
		"__typename": "Query",
		"repository": resolver(func(arguments map[string]any) (any, error) {
			owner, _ := arguments["owner"].(string)
			name, _ := arguments["name"].(string)
			r, _, found := x.byName(owner + "/" + name)
			if !found || r.Blocked {
				return nil, errNotFound("Repository with the name '" + owner + "/" + name + "'")
			}
			return x.graphRepository(r), nil
		}),
	}
}

// graphUser is an actor; null for one who left.
func (x *exchange) graphUser(login string) any {
	if login == "" {
		return nil
	}
	kind := "User"
	if strings.HasSuffix(login, "[bot]") {
		kind = "Bot"
	}
	return object{"__typename": kind, "login": strings.TrimSuffix(login, "[bot]"), "url": x.web + "/" + login, "databaseId": x.World.OwnerID(login)}
}

func (x *exchange) graphRepository(r forgetest.Repo) object {
	m := x.Metadata[r.ID]
	if m == nil {
		m = &Metadata{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	visibility := "PUBLIC"
	if r.Private {
		visibility = "PRIVATE"
	}
	issues := slices.DeleteFunc(slices.Clone(m.arranged().items), func(i *Item) bool { return i.Pull != nil })
	pulls := slices.DeleteFunc(slices.Clone(m.arranged().items), func(i *Item) bool { return i.Pull == nil })
	return object{
		"__typename": "Repository", "id": node("R", r.ID), "databaseId": r.ID, "name": r.Name, "owner": object{"__typename": "User", "login": r.Owner},
		"description": text(r.Description), "homepageUrl": nil, "url": x.web + "/" + r.FullName(), "isPrivate": r.Private, "visibility": visibility,
		"isFork": r.Fork, "isArchived": r.Archived, "isTemplate": false, "defaultBranchRef": object{"__typename": "Ref", "name": r.DefaultBranch},
		"licenseInfo": nil, "hasIssuesEnabled": !slices.Contains(x.Issueless, r.ID), "hasWikiEnabled": r.Wiki, "hasProjectsEnabled": true,
		"hasDiscussionsEnabled": len(m.Discussions) > 0, "mergeCommitAllowed": true, "squashMergeAllowed": false, "rebaseMergeAllowed": true,
		"autoMergeAllowed": false, "allowUpdateBranch": false, "deleteBranchOnMerge": true, "webCommitSignoffRequired": false,
		"createdAt": stamp(r.Created), "updatedAt": stamp(r.Updated), "pushedAt": stamp(r.Pushed),
		"repositoryTopics": pages(m.Topics, func(topic string) object {
			return object{"__typename": "RepositoryTopic", "topic": object{"__typename": "Topic", "name": topic}}
		}),
		"pinnedIssues": pages(m.Pinned, func(number int64) object {
			return object{"__typename": "PinnedIssue", "issue": object{"__typename": "Issue", "number": number}}
		}),
		"labels": pages(m.Labels, func(l Label) object {
			return object{
				"__typename": "Label", "id": "LA_" + l.Name, "name": l.Name, "color": l.Color, "description": text(l.Description), "isDefault": false,
				"createdAt": stamp(r.Created), "updatedAt": stamp(r.Created),
			}
		}),
		"milestones":   pages(m.Milestones, func(o Milestone) object { return x.graphMilestone(r, o) }),
		"issues":       pages(issues, func(i *Item) object { return x.graphItem(r, i) }),
		"pullRequests": pages(pulls, func(i *Item) object { return x.graphItem(r, i) }),
		"releases": pages(m.Releases, func(o *Release) object {
			return object{"__typename": "Release", "databaseId": o.ID, "updatedAt": stamp(o.Updated)}
		}),
		"discussions": pages(m.Discussions, func(*Discussion) object { return object{} }),
	}
}

func (x *exchange) graphMilestone(r forgetest.Repo, m Milestone) object {
	o := object{
		"__typename": "Milestone", "id": nodeID("MI", r.ID, m.Number), "number": m.Number, "title": m.Title, "description": text(m.Description), "state": "OPEN",
		"url": x.web + "/" + r.FullName() + "/milestone/1", "creator": nil, "dueOn": moment(m.Due), "closedAt": nil,
		"createdAt": stamp(m.Created), "updatedAt": stamp(m.Updated),
	}
	if m.Closed {
		o["state"], o["closedAt"] = "CLOSED", stamp(m.Updated)
	}
	return o
}

// graphItem is an issue or a pull request.
func (x *exchange) graphItem(r forgetest.Repo, i *Item) object {
	o := object{"__typename": "Issue", "id": nodeID("I", r.ID, i.Number), "number": i.Number, "updatedAt": stamp(i.Updated)}
	if i.Pull != nil {
		o["__typename"], o["id"] = "PullRequest", nodeID("PR", r.ID, i.Number)
	}
	return o
}
