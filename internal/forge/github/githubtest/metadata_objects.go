package githubtest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// root is what a query begins with.
func (x *exchange) root() object {
	return object{
		"__typename": "Query",
		"repository": resolver(func(arguments map[string]any) (any, error) {
			full := fmt.Sprintf("%v/%v", arguments["owner"], arguments["name"])
			r, _, found := x.byName(full)
			if !found || r.Blocked {
				return nil, errNotFound("Repository with the name '" + full + "'")
			}
			return x.graphRepository(r), nil
		}),
		"node": resolver(func(arguments map[string]any) (any, error) { return x.byNode(fmt.Sprint(arguments["id"])) }),
		"nodes": resolver(func(arguments map[string]any) (any, error) {
			ids, _ := arguments["ids"].([]any)
			if len(ids) > 100 {
				return nil, fmt.Errorf("You may not provide more than 100 node ids; you provided %d", len(ids)) //nolint:staticcheck // GitHub's own words
			}
			all := []object{}
			var problem error
			for _, id := range ids {
				o, err := x.byNode(fmt.Sprint(id))
				if err != nil {
					problem = err
				}
				all = append(all, o)
			}
			return all, problem
		}),
	}
}

// byNode finds an object by its ID: kind, repository, number.
func (x *exchange) byNode(id string) (object, error) {
	parts := strings.Split(id, "_")
	missing := errNotFound("node with the global id of '" + id + "'")
	if len(parts) < 2 {
		return nil, missing
	}
	repository, _ := strconv.ParseInt(parts[1], 10, 64)
	r, found := x.World.ByID(repository)
	if !found {
		return nil, missing
	}
	if parts[0] == "R" {
		return x.graphRepository(r), nil
	}
	m := x.metadata(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	number, _ := strconv.ParseInt(parts[len(parts)-1], 10, 64)
	if o := x.inside(r, m, parts[0], number); o != nil {
		return o, nil
	}
	return nil, missing
}

// inside finds an object of a repository.
func (x *exchange) inside(r forgetest.Repo, m *Metadata, kind string, number int64) object {
	switch kind {
	case "I", "PR":
		if i := m.item(number); i != nil && (i.Pull != nil) == (kind == "PR") {
			return x.graphItem(r, m, i)
		}
	case "IC":
		if c := m.arranged().comment[number]; c != nil {
			return object{"__typename": "IssueComment", "id": nodeID(kind, r.ID, c.ID), "reactions": x.graphReactions(r, c.Reactions)}
		}
	case "PRRC":
		for _, c := range m.ReviewComments {
			if c.ID == number {
				return object{"__typename": "PullRequestReviewComment", "id": nodeID(kind, r.ID, c.ID), "reactions": x.graphReactions(r, c.Reactions)}
			}
		}
	case "PVT":
		for _, p := range m.Projects {
			if p.ID == number {
				return x.graphProject(r, p)
			}
		}
	case "D":
		for _, d := range m.Discussions {
			if d.Number == number {
				return x.graphDiscussion(r, d)
			}
		}
	case "DC":
		for _, d := range m.Discussions {
			for _, c := range d.Comments {
				if c.ID == number {
					return x.graphDiscussionComment(r, d, c, 0)
				}
			}
		}
	}
	return nil
}

// metadata is that of a repository; nothing for one without.
func (x *exchange) metadata(r forgetest.Repo) *Metadata {
	if m := x.kept(r.ID); m != nil {
		return m
	}
	return &Metadata{}
}

// kept is the metadata that a repository has; nil for none.
func (a *API) kept(id int64) *Metadata {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Metadata[id]
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
	return object{
		"__typename": kind, "login": strings.TrimSuffix(login, "[bot]"), "url": x.web + "/" + login, "databaseId": x.World.OwnerID(login), "name": nil,
	}
}

func (x *exchange) graphRepository(r forgetest.Repo) object {
	m := x.metadata(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	visibility := "PUBLIC"
	if r.Private {
		visibility = "PRIVATE"
	}
	s := m.arranged()
	o := object{
		"__typename": "Repository", "id": node("R", r.ID), "databaseId": r.ID, "name": r.Name, "owner": object{"__typename": "User", "login": r.Owner},
		"description": text(r.Description), "homepageUrl": nil, "url": x.web + "/" + r.FullName(), "isPrivate": r.Private, "visibility": visibility,
		"isFork": r.Fork, "isArchived": r.Archived, "isTemplate": false, "defaultBranchRef": object{"__typename": "Ref", "name": r.DefaultBranch},
		"licenseInfo": nil, "hasIssuesEnabled": !slices.Contains(x.Issueless, r.ID), "hasWikiEnabled": r.Wiki, "hasProjectsEnabled": true,
		"hasDiscussionsEnabled": len(m.Discussions)+len(m.Categories) > 0, "mergeCommitAllowed": true, "squashMergeAllowed": false, "rebaseMergeAllowed": true,
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
				"__typename": "Label", "id": "LA_" + l.Name, "name": l.Name, "color": l.Color, "description": text(l.Description), "isDefault": m.isDefault(l.Name),
				"createdAt": stamp(r.Created), "updatedAt": stamp(r.Created),
			}
		}),
		"milestones":   pages(m.Milestones, func(o Milestone) object { return x.graphMilestone(r, o) }),
		"issues":       pages(s.issues, func(i *Item) object { return x.graphItem(r, m, i) }),
		"pullRequests": pages(s.pulls, func(i *Item) object { return x.graphItem(r, m, i) }),
		"releases": pages(m.Releases, func(o *Release) object {
			return object{
				"__typename": "Release", "databaseId": o.ID, "updatedAt": stamp(o.Updated),
				"releaseAssets": pages(o.Assets, func(a Asset) object { return object{"__typename": "ReleaseAsset", "updatedAt": stamp(a.Updated)} }),
			}
		}),
		"commitComments": pages(m.CommitComments, func(*CommitComment) object { return object{"__typename": "CommitComment"} }),
		"discussionCategories": pages(m.Categories, func(name string) object {
			return object{"__typename": "DiscussionCategory", "id": "DIC_" + name, "name": name}
		}),
		"projectsV2":  x.graphProjects(m, r),
		"discussions": pages(s.discussions, func(d *Discussion) object { return x.graphDiscussion(r, d) }),
	}
	maps.Copy(o, x.graphAccess(r, m))
	maps.Copy(o, m.graphChanged())
	return o
}

// graphAccess is what only administrators see.
func (x *exchange) graphAccess(r forgetest.Repo, m *Metadata) object {
	if slices.Contains(x.NoAdmin, r.ID) {
		refuse := resolver(func(map[string]any) (any, error) {
			return nil, errForbidden("Resource not accessible by personal access token")
		})
		return object{"branchProtectionRules": refuse, "deployKeys": refuse, "collaborators": refuse}
	}
	return object{
		"branchProtectionRules": pages(m.Rules, func(o Rule) object {
			return object{
				"__typename": "BranchProtectionRule", "id": nodeID("BPR", r.ID, o.ID), "databaseId": o.ID, "pattern": o.Pattern,
				"requiredApprovingReviewCount": o.Approvals, "requiresApprovingReviews": o.Approvals > 0, "requiresStatusChecks": len(o.Checks) > 0,
				"requiredStatusCheckContexts": o.Checks, "requiresStrictStatusChecks": false, "restrictsPushes": len(o.PushBy) > 0,
				"pushAllowances": pages(o.PushBy, func(login string) object {
					return object{"__typename": "PushAllowance", "actor": x.graphUser(login)}
				}),
				"allowsForcePushes": false, "allowsDeletions": false, "requiresCommitSignatures": false, "requiresLinearHistory": o.Linear,
				"isAdminEnforced": o.Admins, "requiresCodeOwnerReviews": false, "dismissesStaleReviews": false, "requiresConversationResolution": false,
				"lockBranch": false,
			}
		}),
		"deployKeys": pages(m.Keys, func(k Key) object {
			return object{
				"__typename": "DeployKey", "id": nodeID("DK", r.ID, k.ID), "title": k.Title, "key": k.Key, "readOnly": k.ReadOnly, "verified": true,
				"createdAt": stamp(r.Created),
			}
		}),
		"collaborators": pages(m.Collaborators, func(c Collaborator) object {
			return object{"__typename": "RepositoryCollaboratorEdge", "permission": strings.ToUpper(c.Permission), "node": x.graphUser(c.User)}
		}),
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
func (x *exchange) graphItem(r forgetest.Repo, m *Metadata, i *Item) object {
	o := object{
		"__typename": "Issue", "id": nodeID("I", r.ID, i.Number), "number": i.Number, "createdAt": stamp(i.Created), "updatedAt": stamp(i.Updated),
		"reactions": x.graphReactions(r, i.Reactions),
		"timelineItems": resolver(func(arguments map[string]any) (any, error) {
			types, _ := arguments["itemTypes"].([]any)
			wanted := slices.DeleteFunc(slices.Clone(i.Timeline), func(e Event) bool { return !slices.Contains(types, any(typeWord(e.Type))) })
			n := 0
			return pages(wanted, func(e Event) object {
				o := object{"__typename": e.Type, "id": fmt.Sprintf("EV_%d_%d_%s_%d", r.ID, i.Number, e.Created.Format("150405"), n), "createdAt": stamp(e.Created), "actor": x.graphUser(e.Actor)}
				n++
				maps.Copy(o, e.Fields)
				return o
			})(arguments)
		}),
	}
	if i.Pull != nil {
		maps.Copy(o, x.graphPull(r, m, i))
	}
	return o
}

// typeWord is the word for a type in lists of types.
func typeWord(name string) string {
	var b strings.Builder
	for i, c := range name {
		if c >= 'A' && c <= 'Z' && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}

func graphCommit(oid string) any {
	if oid == "" {
		return nil
	}
	return object{"__typename": "Commit", "oid": oid}
}

// graphPull is what a pull request has beside an issue.
func (x *exchange) graphPull(r forgetest.Repo, m *Metadata, i *Item) object {
	p := i.Pull
	var head any
	if p.HeadRepository != "" {
		head = object{"__typename": "Repository", "nameWithOwner": p.HeadRepository}
	}
	return object{
		"__typename": "PullRequest", "id": nodeID("PR", r.ID, i.Number), "baseRefName": p.Base, "baseRefOid": p.BaseOID, "headRefName": p.Head,
		"headRefOid": p.HeadOID, "headRepository": head, "isDraft": p.Draft, "merged": !p.MergedAt.IsZero(), "mergedAt": moment(p.MergedAt),
		"mergedBy": x.graphUser(p.MergedBy), "mergeCommit": graphCommit(p.MergeOID), "maintainerCanModify": false,
		"reviewRequests": pages(p.Reviewers, func(login string) object {
			return object{"__typename": "ReviewRequest", "requestedReviewer": x.graphUser(login)}
		}),
		"commits": pages(p.Commits, func(oid string) object { return object{"__typename": "PullRequestCommit", "commit": graphCommit(oid)} }),
		"reviews": pages(p.Reviews, func(v Review) object {
			page := fmt.Sprintf("%s/%s/pull/%d#pullrequestreview-%d", x.web, r.FullName(), i.Number, v.ID)
			return object{
				"__typename": "PullRequestReview", "id": nodeID("PRR", r.ID, v.ID), "databaseId": v.ID, "body": v.Body, "url": page, "author": x.graphUser(v.User),
				"state": v.State, "commit": graphCommit(v.OID), "submittedAt": moment(v.Submitted), "createdAt": stamp(v.Submitted), "updatedAt": stamp(v.Submitted),
			}
		}),
		"reviewThreads": pages(p.Threads, func(t Thread) object {
			path, line := "", int64(0)
			for _, c := range m.ReviewComments {
				if c.ID == t.First {
					path, line = c.Path, c.Line
				}
			}
			return object{
				"__typename": "PullRequestReviewThread", "id": nodeID("PRRT", r.ID, t.First), "isResolved": t.ResolvedBy != "", "resolvedBy": x.graphUser(t.ResolvedBy),
				"isOutdated": line == 0, "path": path, "line": number(line), "startLine": nil,
				"comments": pages([]int64{t.First}, func(id int64) object { return object{"__typename": "PullRequestReviewComment", "databaseId": id} }),
			}
		}),
	}
}

func (x *exchange) graphReactions(r forgetest.Repo, all []Reaction) resolver {
	return pages(all, func(o Reaction) object {
		content := map[string]string{"+1": "THUMBS_UP", "-1": "THUMBS_DOWN"}[o.Content]
		if content == "" {
			content = strings.ToUpper(o.Content)
		}
		return object{
			"__typename": "Reaction", "id": nodeID("REA", r.ID, o.ID), "databaseId": o.ID, "content": content, "createdAt": stamp(o.Created),
			"user": x.graphUser(o.User),
		}
	})
}

func (x *exchange) graphDiscussion(r forgetest.Repo, d *Discussion) object {
	page := fmt.Sprintf("%s/%s/discussions/%d", x.web, r.FullName(), d.Number)
	o := object{
		"__typename": "Discussion", "id": nodeID("D", r.ID, d.Number), "databaseId": r.ID*1000 + d.Number, "number": d.Number, "title": d.Title, "body": d.Body,
		"url": page, "author": x.graphUser(d.User), "createdAt": stamp(d.Created), "updatedAt": stamp(d.Updated), "closed": d.Closed, "closedAt": nil,
		"stateReason": nil, "locked": d.Locked, "activeLockReason": nil, "isAnswered": d.Answer > 0, "answer": nil, "answerChosenAt": nil, "answerChosenBy": nil,
		"category": object{"__typename": "DiscussionCategory", "name": d.Category, "emoji": ":bulb:", "isAnswerable": d.Answer > 0}, "upvoteCount": d.Votes,
		"poll": nil, "reactions": x.graphReactions(r, d.Reactions),
		"labels":   pages(d.Labels, func(name string) object { return object{"__typename": "Label", "name": name} }),
		"comments": pages(d.Comments, func(c DiscussionComment) object { return x.graphDiscussionComment(r, d, c, 0) }),
	}
	if d.Answer > 0 {
		o["answer"] = object{"__typename": "DiscussionComment", "databaseId": d.Answer}
	}
	return o
}

func (x *exchange) graphDiscussionComment(r forgetest.Repo, d *Discussion, c DiscussionComment, to int64) object {
	o := object{
		"__typename": "DiscussionComment", "id": nodeID("DC", r.ID, c.ID), "databaseId": c.ID, "body": c.Body, "author": x.graphUser(c.User),
		"url":       fmt.Sprintf("%s/%s/discussions/%d#discussioncomment-%d", x.web, r.FullName(), d.Number, c.ID),
		"createdAt": stamp(c.Created), "updatedAt": stamp(c.Updated), "isAnswer": d.Answer == c.ID, "upvoteCount": 1, "isMinimized": false, "replyTo": nil,
		"reactions": x.graphReactions(r, c.Reactions),
		"replies":   pages(c.Replies, func(reply DiscussionComment) object { return x.graphDiscussionComment(r, d, reply, c.ID) }),
	}
	if to > 0 {
		o["replyTo"] = object{"__typename": "DiscussionComment", "databaseId": to}
	}
	return o
}
