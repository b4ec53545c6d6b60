package githubtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

const (
	maxBody  = 65_536 // characters of a text
	maxTitle = 256
)

// restoreRoutes are the paths that change a repository's metadata.
func (x *exchange) restoreRoutes() map[string]func(r forgetest.Repo, m *Metadata) {
	routes := map[string]func(r forgetest.Repo, m *Metadata){}
	for pattern, serve := range map[string]func(r forgetest.Repo, m *Metadata){
		"PATCH ":                          x.changeRepository,
		"PUT /topics":                     x.setTopics,
		"GET /branches":                   x.listBranches,
		"POST /labels":                    x.createLabel,
		"PATCH /labels/{label}":           x.changeLabel,
		"POST /milestones":                x.createMilestone,
		"POST /issues":                    x.createIssue,
		"GET /issues/{number}":            x.oneIssue,
		"PATCH /issues/{number}":          x.changeIssue,
		"PUT /issues/{number}/lock":       x.lockIssue,
		"POST /issues/{number}/comments":  x.createComment,
		"GET /import/issues":              x.listImports,
		"POST /import/issues":             x.importIssue,
		"GET /import/issues/{import}":     x.importStatus,
		"POST /pulls":                     x.createPull,
		"GET /pulls/{number}/reviews":     x.listReviews,
		"POST /pulls/{number}/reviews":    x.createReview,
		"POST /releases":                  x.createRelease,
		"PATCH /releases/{release}":       x.changeRelease,
		"POST /releases/{release}/assets": x.uploadAsset,
		"DELETE /releases/assets/{asset}": x.deleteAsset,
		"POST /rulesets":                  x.createRuleset,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		routes[method+" /repos/{owner}/{repo}"+path] = serve
	}
	return routes
}

// admitWrite refuses a write as GitHub's secondary limit does.
func (x *exchange) admitWrite(m *Metadata) bool {
	if m.Limit == 0 || x.r.Method == http.MethodGet {
		return true
	}
	if m.writes == m.Limit {
		m.writes, m.pushed = 0, x.now()
	}
	if left := m.LimitFor - x.now().Sub(m.pushed); !m.pushed.IsZero() && left > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(left.Seconds())+1))
		x.answer(http.StatusForbidden, map[string]any{
			"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.", "documentation_url": "https://docs.github.com/rest",
		})
		return false
	}
	m.writes++
	return true
}

// body decodes what was sent, and refuses what is no JSON.
func (x *exchange) body(into any) bool {
	err := json.NewDecoder(x.r.Body).Decode(into)
	if err != nil {
		x.answer(http.StatusBadRequest, map[string]any{"message": "Problems parsing JSON", "documentation_url": "https://docs.github.com/rest"})
	}
	return err == nil
}

// invalid refuses what GitHub does not take.
func (x *exchange) invalid(resource, field, code, message string) {
	problem := map[string]any{"resource": resource, "code": code, "field": field}
	if message != "" {
		problem["message"] = message
	}
	x.answer(http.StatusUnprocessableEntity, map[string]any{
		"message": "Validation Failed", "documentation_url": "https://docs.github.com/rest", "errors": []any{problem},
	})
}

// fits refuses texts that are too long.
func (x *exchange) fits(resource, title, body string) bool {
	switch {
	case utf8.RuneCountInString(title) > maxTitle:
		x.invalid(resource, "title", "custom", "title is too long (maximum is 256 characters)")
	case utf8.RuneCountInString(body) > maxBody:
		x.invalid(resource, "body", "custom", "body is too long (maximum is 65536 characters)")
	default:
		return true
	}
	return false
}

func (m *Metadata) isDefault(name string) bool {
	return slices.ContainsFunc(m.Labels[:min(m.Defaults, len(m.Labels))], func(l Label) bool { return l.Name == name })
}

// graphChanged are the settings that were changed, by the names of GraphQL.
func (m *Metadata) graphChanged() object {
	o := object{}
	for rest, field := range map[string]string{
		"homepage": "homepageUrl", "has_issues": "hasIssuesEnabled", "has_wiki": "hasWikiEnabled", "has_projects": "hasProjectsEnabled",
		"allow_merge_commit": "mergeCommitAllowed", "allow_squash_merge": "squashMergeAllowed", "allow_rebase_merge": "rebaseMergeAllowed",
		"delete_branch_on_merge": "deleteBranchOnMerge",
	} {
		if value, there := m.Changed[rest]; there {
			o[field] = value
		}
	}
	return o
}

// next is a number of an object that is new.
func (m *Metadata) next() int64 {
	m.lastID++
	return 70_000 + m.lastID
}

// nextNumber is the next one of issues, pull requests and discussions.
func (m *Metadata) nextNumber() int64 {
	last := int64(0)
	for _, i := range m.Items {
		last = max(last, i.Number)
	}
	for _, d := range m.Discussions {
		last = max(last, d.Number)
	}
	return last + 1
}

func (x *exchange) now() time.Time { return x.World.Now().UTC().Truncate(time.Second) }

func (x *exchange) me() string { return x.World.Token().Account }

func (x *exchange) changeRepository(r forgetest.Repo, m *Metadata) {
	var body map[string]any
	if !x.body(&body) {
		return
	}
	if r.Archived && body["archived"] != false {
		x.answer(http.StatusForbidden, map[string]any{"message": "Repository was archived so is read-only.", "documentation_url": "https://docs.github.com/rest"})
		return
	}
	if m.Changed == nil {
		m.Changed = map[string]any{}
	}
	for key, value := range body {
		m.Changed[key] = value
	}
	x.World.Change(r.ID, func(r *forgetest.Repo) {
		if text, ok := body["description"].(string); ok {
			r.Description = text
		}
		if is, ok := body["archived"].(bool); ok {
			r.Archived = is
		}
		if branch, ok := body["default_branch"].(string); ok {
			r.DefaultBranch = branch
		}
	})
	r, _ = x.World.ByID(r.ID)
	x.answer(http.StatusOK, x.fullObject(r))
}

func (x *exchange) setTopics(_ forgetest.Repo, m *Metadata) {
	var body struct{ Names []string }
	if x.body(&body) {
		m.Topics = body.Names
		x.answer(http.StatusOK, map[string]any{"names": body.Names})
	}
}

func (x *exchange) listBranches(r forgetest.Repo, m *Metadata) {
	var names []string
	for name := range m.Branches {
		names = append(names, name)
	}
	slices.Sort(names)
	paged(x, r, "branches", names, func(name string) any {
		return map[string]any{
			"name": name, "protected": false,
			"commit": map[string]any{"sha": m.Branches[name], "url": x.rest + "/repos/" + r.FullName() + "/commits/" + m.Branches[name]},
		}
	})
}

func (x *exchange) createLabel(r forgetest.Repo, m *Metadata) {
	var l Label
	if !x.body(&l) {
		return
	}
	if slices.ContainsFunc(m.Labels, func(o Label) bool { return strings.EqualFold(o.Name, l.Name) }) {
		x.invalid("Label", "name", "already_exists", "")
		return
	}
	m.Labels = append(m.Labels, l)
	x.answer(http.StatusCreated, x.labelNode(x.labelObject(r, len(m.Labels)-1, l)))
}

// labelNode has the label's node as GraphQL names it here.
func (x *exchange) labelNode(o map[string]any) map[string]any {
	o["node_id"] = fmt.Sprint("LA_", o["name"])
	return o
}

func (x *exchange) changeLabel(r forgetest.Repo, m *Metadata) {
	var body struct {
		NewName            string `json:"new_name"`
		Color, Description string
	}
	if !x.body(&body) {
		return
	}
	for n, l := range m.Labels {
		if strings.EqualFold(l.Name, x.r.PathValue("label")) {
			m.Labels[n] = Label{cmp.Or(body.NewName, l.Name), body.Color, body.Description}
			x.answer(http.StatusOK, x.labelNode(x.labelObject(r, n, m.Labels[n])))
			return
		}
	}
	x.notFound()
}

func (x *exchange) createMilestone(r forgetest.Repo, m *Metadata) {
	var body struct {
		Title, Description, State string
		Due                       time.Time `json:"due_on"`
	}
	if !x.body(&body) {
		return
	}
	number := int64(1)
	for _, o := range m.Milestones {
		if number = max(number, o.Number+1); o.Title == body.Title {
			x.invalid("Milestone", "title", "already_exists", "")
			return
		}
	}
	o := Milestone{
		Number: number, Title: body.Title, Description: body.Description, Closed: body.State == "closed", Due: body.Due, Created: x.now(), Updated: x.now(),
	}
	m.Milestones = append(m.Milestones, o)
	x.answer(http.StatusCreated, x.milestoneObject(r, o))
}

// add adds an issue or a pull request, of the next number.
func (m *Metadata) add(i *Item) *Item {
	i.Number = m.nextNumber()
	m.Items = append(m.Items, i)
	m.edited()
	return i
}

func (x *exchange) createIssue(r forgetest.Repo, m *Metadata) {
	var body struct {
		Title, Body string
		Labels      []string
		Milestone   int64
	}
	if !x.body(&body) || !x.fits("Issue", body.Title, body.Body) {
		return
	}
	i := m.add(&Item{
		Title: body.Title, Body: body.Body, Labels: body.Labels, Milestone: body.Milestone, User: x.me(), Created: x.now(), Updated: x.now(),
	})
	x.answer(http.StatusCreated, x.itemObject(r, m, i))
}

// numbered is the item that the path names.
func (x *exchange) numbered(m *Metadata) *Item {
	n, _ := strconv.ParseInt(x.r.PathValue("number"), 10, 64)
	i := m.item(n)
	if i == nil {
		x.notFound()
	}
	return i
}

func (x *exchange) oneIssue(r forgetest.Repo, m *Metadata) {
	if i := x.numbered(m); i != nil {
		x.answer(http.StatusOK, x.itemObject(r, m, i))
	}
}

func (x *exchange) changeIssue(r forgetest.Repo, m *Metadata) {
	var body struct {
		State     string
		Reason    string `json:"state_reason"`
		Labels    *[]string
		Milestone int64
	}
	i := x.numbered(m)
	if i == nil || !x.body(&body) {
		return
	}
	if body.State == "closed" && !i.Closed {
		i.Closed, i.ClosedAt, i.ClosedBy = true, x.now(), x.me()
		if i.Pull == nil {
			i.Reason = cmp.Or(body.Reason, "completed")
		}
	}
	if body.Labels != nil {
		i.Labels = *body.Labels
	}
	i.Milestone = cmp.Or(body.Milestone, i.Milestone)
	i.Updated = x.now()
	m.edited()
	x.answer(http.StatusOK, x.itemObject(r, m, i))
}

func (x *exchange) lockIssue(_ forgetest.Repo, m *Metadata) {
	var body struct {
		Reason string `json:"lock_reason"`
	}
	if i := x.numbered(m); i != nil && x.body(&body) {
		i.Locked, i.LockReason = true, body.Reason
		x.w.WriteHeader(http.StatusNoContent)
	}
}

func (x *exchange) createComment(r forgetest.Repo, m *Metadata) {
	var body struct{ Body string }
	i := x.numbered(m)
	if i == nil || !x.body(&body) || !x.fits("IssueComment", "", body.Body) {
		return
	}
	c := &Comment{ID: m.next(), On: i.Number, User: x.me(), Body: body.Body, Created: x.now(), Updated: x.now()}
	m.Comments = append(m.Comments, c)
	i.Updated = x.now()
	m.edited()
	x.answer(http.StatusCreated, x.issueComment(r, m, c))
}

// createPull opens a pull request of branches that are there and differ.
func (x *exchange) createPull(r forgetest.Repo, m *Metadata) {
	var body struct {
		Title, Body, Head, Base string
		Draft                   bool
	}
	if !x.body(&body) || !x.fits("PullRequest", body.Title, body.Body) {
		return
	}
	head, base := m.Branches[body.Head], m.Branches[body.Base]
	open := slices.ContainsFunc(m.Items, func(i *Item) bool {
		return !i.Closed && i.Pull != nil && i.Pull.Head == body.Head && i.Pull.Base == body.Base
	})
	switch {
	case head == "":
		x.invalid("PullRequest", "head", "invalid", "")
	case base == "":
		x.invalid("PullRequest", "base", "invalid", "")
	case head == base:
		x.invalid("PullRequest", "", "custom", "No commits between "+body.Base+" and "+body.Head)
	case open:
		x.invalid("PullRequest", "", "custom", "A pull request already exists for "+r.Owner+":"+body.Head+".")
	default:
		i := m.add(&Item{Title: body.Title, Body: body.Body, User: x.me(), Created: x.now(), Updated: x.now(), Pull: &Pull{
			Base: body.Base, Head: body.Head, BaseOID: base, HeadOID: head, HeadRepository: r.FullName(), Draft: body.Draft,
		}})
		x.answer(http.StatusCreated, x.wholePull(r, m, i))
	}
}

// wholePull is a pull request as it is answered alone.
func (x *exchange) wholePull(r forgetest.Repo, m *Metadata, i *Item) map[string]any {
	o := x.pullObject(r, m, i)
	for key, value := range map[string]any{
		"merged": false, "mergeable": nil, "rebaseable": nil, "mergeable_state": "unknown", "merged_by": nil, "maintainer_can_modify": false,
		"comments": 0, "review_comments": 0, "commits": 1, "additions": 1, "deletions": 0, "changed_files": 1,
	} {
		o[key] = value
	}
	return o
}

func (x *exchange) reviewObject(r forgetest.Repo, i *Item, v Review) map[string]any {
	at := fmt.Sprintf("%s/repos/%s/pulls/%d", x.rest, r.FullName(), i.Number)
	page := fmt.Sprintf("%s/%s/pull/%d#pullrequestreview-%d", x.web, r.FullName(), i.Number, v.ID)
	return map[string]any{
		"id": v.ID, "node_id": nodeID("PRR", r.ID, v.ID), "user": x.somebody(v.User), "body": v.Body, "state": v.State, "html_url": page,
		"pull_request_url": at, "submitted_at": stamp(v.Submitted), "commit_id": text(v.OID), "author_association": "OWNER",
		"_links": map[string]any{"html": map[string]any{"href": page}, "pull_request": map[string]any{"href": at}},
	}
}

func (x *exchange) listReviews(r forgetest.Repo, m *Metadata) {
	if i := x.numbered(m); i != nil && i.Pull != nil {
		paged(x, r, fmt.Sprintf("pulls/%d/reviews", i.Number), i.Pull.Reviews, func(v Review) any { return x.reviewObject(r, i, v) })
	}
}

// createReview reviews what is in the diff.
func (x *exchange) createReview(r forgetest.Repo, m *Metadata) {
	var body struct {
		Body, Event string
		Commit      string `json:"commit_id"`
		Comments    []struct {
			Path, Body, Side string
			Line             int64
			Start            int64 `json:"start_line"`
		}
	}
	i := x.numbered(m)
	if i == nil || !x.body(&body) || !x.fits("PullRequestReview", "", body.Body) {
		return
	}
	for _, c := range body.Comments {
		if m.Diff != nil && (c.Line > m.Diff[c.Path] || body.Commit != i.Pull.HeadOID) {
			x.answer(http.StatusUnprocessableEntity, map[string]any{"message": "Unprocessable Entity", "documentation_url": "https://docs.github.com/rest", "errors": []string{"Line could not be resolved"}})
			return
		}
	}
	v := Review{ID: m.next(), User: x.me(), Body: body.Body, State: "COMMENTED", OID: body.Commit, Submitted: x.now()}
	i.Pull.Reviews = append(i.Pull.Reviews, v)
	for _, c := range body.Comments {
		id := m.next()
		i.Pull.Threads = append(i.Pull.Threads, Thread{First: id})
		m.ReviewComments = append(m.ReviewComments, &ReviewComment{
			Comment: Comment{ID: id, On: i.Number, User: x.me(), Body: c.Body, Created: x.now(), Updated: x.now()}, Review: v.ID, Path: c.Path,
			OID: body.Commit, Line: c.Line, Start: c.Start, OriginalLine: c.Line, Left: c.Side == "LEFT", Hunk: "@@ -1 +1 @@",
		})
	}
	i.Updated = x.now()
	m.edited()
	x.answer(http.StatusOK, x.reviewObject(r, i, v))
}

func (x *exchange) createRelease(r forgetest.Repo, m *Metadata) {
	var body struct {
		Tag               string `json:"tag_name"`
		Target            string `json:"target_commitish"`
		Name, Body        string
		Draft, Prerelease bool
	}
	if !x.body(&body) {
		return
	}
	if slices.Contains(m.Burned, body.Tag) {
		x.invalid("Release", "tag_name", "custom", "tag_name was used by an immutable release")
		return
	}
	o := &Release{
		ID: m.next(), Tag: body.Tag, Target: cmp.Or(body.Target, r.DefaultBranch), Name: body.Name, Body: body.Body, User: x.me(), Draft: body.Draft,
		Prerelease: body.Prerelease, Created: x.now(), Updated: x.now(),
	}
	m.Releases = append(m.Releases, o)
	x.answer(http.StatusCreated, x.releaseObject(r, o))
}

// released is the release that the path names.
func (x *exchange) released(m *Metadata) *Release {
	for _, o := range m.Releases {
		if strconv.FormatInt(o.ID, 10) == x.r.PathValue("release") {
			return o
		}
	}
	x.notFound()
	return nil
}

func (x *exchange) changeRelease(r forgetest.Repo, m *Metadata) {
	var body struct{ Draft, Prerelease bool }
	o := x.released(m)
	if o == nil || !x.body(&body) {
		return
	}
	if o.Draft && !body.Draft {
		o.Published = x.now()
	}
	o.Draft, o.Prerelease, o.Updated = body.Draft, body.Prerelease, x.now()
	x.answer(http.StatusOK, x.releaseObject(r, o))
}

// uploadAsset takes an asset. GitHub does so at an address of its own.
func (x *exchange) uploadAsset(r forgetest.Repo, m *Metadata) {
	o := x.released(m)
	content, err := io.ReadAll(x.r.Body)
	if o == nil || err != nil {
		return
	}
	query := x.r.URL.Query()
	name := query.Get("name")
	if slices.ContainsFunc(o.Assets, func(a Asset) bool { return a.Name == name }) {
		x.invalid("ReleaseAsset", "name", "already_exists", "")
		return
	}
	if strings.ContainsAny(name, " /") || name != url.PathEscape(name) {
		x.invalid("ReleaseAsset", "name", "invalid", "the fake wants names that GitHub leaves as they are")
		return
	}
	a := Asset{
		ID: m.next(), Name: name, Label: query.Get("label"), Type: x.r.Header.Get("Content-Type"), Content: content, Created: x.now(), Updated: x.now(),
	}
	o.Assets = append(o.Assets, a)
	x.answer(http.StatusCreated, x.assetObject(r, o, a))
}

func (x *exchange) deleteAsset(_ forgetest.Repo, m *Metadata) {
	for _, o := range m.Releases {
		o.Assets = slices.DeleteFunc(o.Assets, func(a Asset) bool { return strconv.FormatInt(a.ID, 10) == x.r.PathValue("asset") })
	}
	x.w.WriteHeader(http.StatusNoContent)
}

func (x *exchange) createRuleset(r forgetest.Repo, m *Metadata) {
	var body struct {
		Name, Target string
		Rules        []map[string]any
		Bypass       []map[string]any `json:"bypass_actors"`
		Conditions   struct {
			Ref struct{ Include []string } `json:"ref_name"`
		}
	}
	if !x.body(&body) {
		return
	}
	switch {
	case m.Free:
		x.answer(http.StatusForbidden, map[string]any{
			"message": "Upgrade to GitHub Pro or make this repository public to enable this feature.", "documentation_url": "https://docs.github.com/rest",
		})
		return
	case slices.ContainsFunc(m.Rulesets, func(s Ruleset) bool { return strings.EqualFold(s.Name, body.Name) }):
		x.invalid("RepositoryRuleset", "name", "custom", "Name must be unique")
		return
	}
	s := Ruleset{
		ID: m.next(), Name: body.Name, Patterns: body.Conditions.Ref.Include, Tags: body.Target == "tag", Rules: body.Rules, Bypass: body.Bypass, Updated: x.now(),
	}
	m.Rulesets = append(m.Rulesets, s)
	x.answer(http.StatusCreated, x.wholeRuleset(r, s))
}
