package onedev_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/forge/onedev"
)

type object = map[string]any

// desk is what a project of the fake has beside its code, by path: "issues", "issues/501/comments".
type desk struct {
	server
	shelf  map[string][]object
	admin  bool // the account is told who others are
	asked  []string
	before func(path string, from int) // called before an answer
}

var activityQuery = regexp.MustCompile(`^"(Project|Target Project)" is "acme/api" order by "Last Activity Date" (asc|desc)$`)

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/~api/")
	d.asked = append(d.asked, path)
	from, _ := strconv.Atoi(r.FormValue("offset"))
	if d.before != nil {
		d.before(path, from)
	}
	segments := strings.Split(path, "/")
	switch m := activityQuery.FindStringSubmatch(r.FormValue("query")); {
	case strings.HasPrefix(r.URL.Path, "/~downloads/"):
		io.WriteString(w, "bytes of "+segments[len(segments)-1])
	case m != nil && (path == "issues") == (m[1] == "Project"):
		sorted := slices.Clone(d.shelf[path])
		slices.SortStableFunc(sorted, func(a, b object) int { return strings.Compare(active(a), active(b)) })
		if m[2] == "desc" {
			slices.Reverse(sorted)
		}
		var all []any
		for _, o := range sorted {
			shown := object{}
			for name, value := range o {
				if name != "fields" || r.FormValue("withFields") == "true" {
					shown[name] = value
				}
			}
			all = append(all, shown)
		}
		d.page(w, r, all)
	case segments[0] == "users" && len(segments) == 2 && segments[1] != "me":
		if !d.admin {
			answer(w, http.StatusForbidden, "Permission denied")
			return
		}
		answer(w, http.StatusOK, object{"id": segments[1][0] - '0', "name": "user" + segments[1], "fullName": "User " + segments[1]})
	case strings.HasSuffix(path, "/setting"):
		answer(w, http.StatusOK, d.shelf["setting"][0])
	case d.shelf[path] != nil || len(segments) == 3 && segments[2] != "clone-url" || path == "label-specs":
		var all []any
		for _, o := range d.shelf[path] {
			all = append(all, o)
		}
		if r.FormValue("count") != "" {
			d.page(w, r, all)
			return
		}
		answer(w, http.StatusOK, append([]any{}, all...))
	default:
		d.server.ServeHTTP(w, r)
	}
}

func active(o object) string {
	date, _ := o["lastActivity"].(object)["date"].(string)
	return date
}

func day(n int) string {
	return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC).Format("2006-01-02T15:04:05.000Z07:00")
}

func furnish(t *testing.T) (*desk, *forgetest.Capturing) {
	t.Helper()
	clock := forgetest.NewClock()
	d := &desk{server: server{world: forgetest.NewWorld(clock.Now)}, admin: true}
	d.world.Add(forgetest.Repo{Owner: "acme", Name: "api", Description: "an API"})
	id := d.world.All()[0].ID
	project := "projects/" + strconv.FormatInt(id, 10)
	item := func(number int, title, text string, at int, more object) object {
		o := object{
			"id": 500 + number, "number": number, "title": title, "description": text, "submitterId": 2, "submitDate": day(1),
			"lastActivity": object{"date": day(at), "description": "x"}, "commentCount": 0, "voteCount": 0,
		}
		for name, value := range more {
			o[name] = value
		}
		return o
	}
	change := func(id, by, at int, data object) object {
		return object{"id": id, "userId": by, "date": day(at), "data": data}
	}
	d.shelf = map[string][]object{
		"label-specs":                    {{"id": 1, "name": "urgent", "color": "#FF0000"}},
		project + "/iterations":          {{"id": 4, "name": "v1", "dueDay": 20_500, "closed": true, "projectId": id}},
		project + "/user-authorizations": {{"id": 6, "userId": 3, "projectId": id, "roleId": 2}},
		"setting": {{
			"branchProtections": []object{{"enabled": true, "branches": "main release/** -release/old", "preventForcedPush": true, "preventDeletion": true, "jobNames": []string{"CI"}}},
			"tagProtections":    []object{{"enabled": true, "tags": "v*", "preventUpdate": true, "preventDeletion": true}},
			"webHooks":          []object{{"postUrl": "https://ci.example.com/?k=sesame", "secret": "sesame", "headers": []object{{"value": "sesame"}}, "eventTypes": []string{"CODE_PUSH"}}},
			"buildSetting":      object{"jobSecrets": []object{{"value": "sesame"}}}, "issueSetting": object{"x": 1},
		}},
		"issues": {
			item(1, "It breaks", "See ![shot](/~downloads/projects/1/attachments/6a5a1a20-c8c0-44a5-a1bb-8a3d2a830094/shot.png)", 5, object{
				"state": "Closed", "confidential": true, "commentCount": 2, "voteCount": 1, "fields": []object{
					{"name": "Priority", "type": "Enumeration", "value": "High"},
					{"name": "Assignees", "type": "User", "value": "ada"},
					{"name": "Version", "type": "Text", "value": "1.2"},
				},
			}),
			item(2, "Another", "", 3, object{"state": "In Review"}),
		},
		"issues/501/comments":   {{"id": 71, "userId": 3, "date": day(2), "content": "Me too"}, {"id": 72, "userId": 2, "date": day(4), "content": "Fixed"}},
		"issues/501/changes":    {change(81, 2, 5, object{"@type": "IssueStateChangeData", "oldState": "Open", "newState": "Closed"})},
		"issues/501/iterations": {{"id": 4, "name": "v1"}},
		"issues/501/links":      {{"id": 91, "sourceId": 501, "targetId": 502, "specId": 1}},
		"issues/501/votes":      {{"id": 95, "userId": 3, "date": day(3)}},
		"pulls": {item(1, "Fix", "text", 6, object{
			"status": "MERGED", "closeDate": day(6), "targetBranch": "main", "sourceBranch": "fix", "targetProjectId": id, "sourceProjectId": id, "baseCommitHash": "22", "commentCount": 1,
		})},
		"pulls/501/comments":    {{"id": 71, "userId": 3, "date": day(4), "content": "Nice"}},
		"pulls/501/changes":     {change(81, 3, 6, object{"@type": "PullRequestMergeData"})},
		"pulls/501/reviews":     {{"userId": 3, "requestId": 501, "status": "APPROVED", "statusDate": day(5)}, {"userId": 4, "requestId": 501, "status": "PENDING", "statusDate": day(5)}},
		"pulls/501/assignments": {{"userId": 3, "requestId": 501}},
		"pulls/501/labels":      {{"id": 5, "requestId": 501, "specId": 1}},
		"pulls/501/updates":     {{"id": 1, "headCommitHash": "11", "date": day(1)}, {"id": 2, "headCommitHash": "12", "date": day(2)}},
	}
	web := httptest.NewServer(d)
	t.Cleanup(web.Close)
	p, err := onedev.New(onedev.Options{URL: web.URL, Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}})
	if err != nil {
		t.Fatal(err)
	}
	return d, &forgetest.Capturing{Provider: p, Clock: clock, Files: true}
}

func decode(t *testing.T, r *archive.Reader) (issues, pulls map[int64]*neutral.Item, o *neutral.Overview) {
	t.Helper()
	s, err := onedev.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	if o, err = s.Overview(t.Context()); err != nil {
		t.Fatal(err)
	}
	issues, pulls = map[int64]*neutral.Item{}, map[int64]*neutral.Item{}
	last := int64(0)
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if item.Number < last {
			t.Errorf("%d comes after %d", item.Number, last)
		}
		if last = item.Number; item.Pull == nil {
			issues[item.Number] = item
		} else {
			pulls[item.Number] = item
		}
	}
	return issues, pulls, o
}

func TestIssuesComeBackWhole(t *testing.T) {
	_, c := furnish(t)
	made := c.Run(t)
	if len(made.Open) > 0 || len(made.Notes) > 0 {
		t.Errorf("does not close: %q, notes %q", made.Open, made.Notes)
	}
	issues, _, o := decode(t, made.Reader)
	i := issues[1]
	if i == nil || i.Title != "It breaks" || !i.Closed || !i.Confidential || i.ClosedAt.Day() != 5 || i.ClosedBy.Login != "user2" || i.Author.Name != "User 2" {
		t.Fatalf("%+v", i)
	}
	if !strings.HasSuffix(i.Body, "\n\n- Version: 1.2") || !slices.Equal(i.Labels, []string{"Priority: High"}) || i.Milestone != "v1" || i.Assignees[0].Login != "ada" {
		t.Errorf("%+v", i)
	}
	if len(i.Comments) != 2 || i.Comments[0].Body != "Me too" || i.Comments[0].Author.Login != "user3" || i.Comments[0].Created.Day() != 2 {
		t.Errorf("comments %+v", i.Comments)
	}
	if len(i.Links) != 1 || i.Links[0].To != "acme/api#2" || len(i.Reactions) != 1 || i.Reactions[0].User.Login != "user3" {
		t.Errorf("links %+v, reactions %+v", i.Links, i.Reactions)
	}
	if !strings.HasSuffix(i.URL, "/acme/api/~issues/1") {
		t.Errorf("page %q", i.URL)
	}
	if issues[2].Closed || !slices.Equal(issues[2].Labels, []string{"State: In Review"}) {
		t.Errorf("%+v", issues[2])
	}
	var labels []string
	for _, l := range o.Labels {
		labels = append(labels, l.Name+" "+l.Color)
	}
	if want := []string{"urgent ff0000", "State: In Review cccccc", "Priority: High cccccc"}; !slices.Equal(slices.Sorted(slices.Values(labels)), slices.Sorted(slices.Values(want))) {
		t.Errorf("labels %q", labels)
	}
	if m := o.Milestones[0]; m.Title != "v1" || !m.Closed || m.Due.Year() != 2026 {
		t.Errorf("milestone %+v", m)
	}
	if made.Count("files") != 1 {
		t.Errorf("%d files", made.Count("files"))
	}
}

func TestPullRequestsComeBackWhole(t *testing.T) {
	_, c := furnish(t)
	made := c.Run(t)
	_, pulls, o := decode(t, made.Reader)
	i := pulls[1]
	if i == nil || !i.Closed || !i.Pull.Merged || i.Pull.MergedBy.Login != "user3" || i.Pull.MergedAt.Day() != 6 || i.Pull.HeadOID != "12" || i.Pull.HeadRepository != "acme/api" {
		t.Fatalf("%+v", i)
	}
	p := i.Pull
	if len(p.Reviews) != 1 || p.Reviews[0].State != "approved" || len(p.RequestedReviewers) != 1 || p.RequestedReviewers[0].Login != "user4" {
		t.Errorf("reviews %+v, %+v", p.Reviews, p.RequestedReviewers)
	}
	if len(i.Comments) != 1 || i.Comments[0].Body != "Nice" || !slices.Equal(i.Labels, []string{"urgent"}) || i.Assignees[0].Login != "user3" {
		t.Errorf("%+v", i)
	}
	var rules []string
	for _, r := range o.Rules {
		rules = append(rules, fmt.Sprintf("%s tags=%v force=%v delete=%v %v", r.Pattern, r.Tags, r.ForcePush, r.Delete, r.Checks))
	}
	want := []string{"main tags=false force=false delete=false [CI]", "release/** tags=false force=false delete=false [CI]", "v* tags=true force=false delete=false []"}
	if !slices.Equal(rules, want) {
		t.Errorf("rules %q", rules)
	}
	if len(o.Hooks) != 1 || o.Hooks[0].URL != "https://ci.example.com/" {
		t.Errorf("hooks %+v", o.Hooks[0])
	}
	for _, collection := range []string{"rules", "hooks", "policies"} {
		for r, err := range made.All(t.Context(), collection) {
			if err != nil || strings.Contains(string(r.Raw), "sesame") {
				t.Errorf("%s: %s, %v", r.Key, r.Raw, err)
			}
		}
	}
}

func TestCaptureCostsWhatChanged(t *testing.T) {
	d, c := furnish(t)
	c.Run(t)
	d.asked = nil
	if second := c.Run(t); !second.Part.Unchanged {
		t.Error("what did not change counts as changed")
	}
	if slices.ContainsFunc(d.asked, func(at string) bool {
		return strings.HasPrefix(at, "issues/") || strings.HasPrefix(at, "users/") && at != "users/me"
	}) || len(d.asked) > 12 {
		t.Errorf("unchanged, %d requests: %q", len(d.asked), d.asked)
	}
	d.asked = nil
	d.shelf["issues"][0]["lastActivity"] = object{"date": c.Clock.Now().Format(time.RFC3339)}
	d.shelf["issues/501/comments"] = []object{{"id": 71, "userId": 3, "date": day(2), "content": "Not me"}}
	issues, _, _ := decode(t, c.Run(t).Reader)
	if comments := issues[1].Comments; len(comments) != 1 || comments[0].Body != "Not me" {
		t.Errorf("after an edit and a deletion: %+v", comments)
	}
	if len(d.asked) > 18 || slices.Contains(d.asked, "issues/502/changes") {
		t.Errorf("one issue that changed costs %d requests: %q", len(d.asked), d.asked)
	}
	d.shelf["issues"] = d.shelf["issues"][1:]
	c.Clock.Advance(8 * 24 * time.Hour)
	if issues, _, _ := decode(t, c.Run(t).Reader); len(issues) != 1 {
		t.Errorf("%d issues a week after one was deleted", len(issues))
	}
}

// Who others are, administrators are told; for anybody else they stay numbers, and nobody is asked for again and again.
func TestStrangers(t *testing.T) {
	d, c := furnish(t)
	d.admin = false
	made := c.Run(t)
	issues, _, _ := decode(t, made.Reader)
	if a := issues[1].Author; a.Login != "" || a.Name != "user 2" || a.ID != "2" || len(made.Notes) > 0 {
		t.Errorf("%+v, notes %q", a, made.Notes)
	}
	asked := 0
	for _, at := range d.asked {
		if strings.HasPrefix(at, "users/") && at != "users/me" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// What is active while pages are read moves to the end, and the others up: none of them is missed.
func TestAnIssueThatMovesHidesNoOther(t *testing.T) {
	d, c := furnish(t)
	d.shelf["issues"] = nil
	for n := range 250 {
		at := time.Date(2025, 1, 1, 0, n, 0, 0, time.UTC).Format(time.RFC3339)
		d.shelf["issues"] = append(d.shelf["issues"], object{"id": n + 1, "number": n + 1, "state": "Open", "lastActivity": object{"date": at}})
	}
	moves := 0
	d.before = func(path string, from int) {
		if path == "issues" && from > 0 && moves < 5 {
			d.shelf["issues"][moves]["lastActivity"] = object{"date": c.Clock.Now().Add(time.Duration(moves) * time.Second).Format(time.RFC3339)}
			moves++
		}
	}
	if made := c.Run(t); made.Count("issues") != 250 || len(made.Open) > 0 {
		t.Errorf("%d issues, open %q", made.Count("issues"), made.Open)
	}
}

func TestItemsWithoutNumbersAreNoRecords(t *testing.T) {
	for path, item := range map[string]object{
		"issues": {"id": 7, "number": -1}, "issues/501/comments": {"content": "x"}, "label-specs": {"id": "x"}, "pulls/501/reviews": {"status": "APPROVED"},
	} {
		t.Run(path, func(t *testing.T) {
			d, c := furnish(t)
			if path == "issues" {
				item["lastActivity"] = object{"date": day(9)}
			}
			d.shelf[path] = append(d.shelf[path], item)
			if made := c.Run(t); !slices.Contains(made.Open, "collections") {
				t.Errorf("counts as whole: %+v", made.Part.Counts)
			}
		})
	}
}

func FuzzDecodeArchive(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"number":7,"state":"Closed","fields":[{"name":"a","type":"Text","value":"b"}],"lastActivity":{"date":5}}`, `{"number":-1}`, `null`, `[]`,
		`{"id":1,"number":7,"status":"MERGED","data":{"@type":"PullRequestMergeData"},"dueDay":99999999999}`, `{"sourceId":1,"targetId":1,"id":1,"number":2}`,
		`{"branches":"- -a b","enabled":true,"user":{"id":-1},"userId":-4}`, `{"lastActivity":7,"id":1}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		forgetest.DecodeHostile(t, onedev.Decode, archive.Header{Dialect: "onedev", Repository: "acme/api"}, raw,
			"settings/repository", "labels/1", "milestones/1", "rules/branch:1", "hooks/1", "collaborators/1", "issues/7", "comments/1 in issues/7",
			"timeline/1 in issues/7", "issue-milestones/7:1 in issues/7", "links/7:1 in issues/7", "votes/1 in issues/7", "pulls/7", "review-comments/1 in pulls/7",
			"pull-timeline/1 in pulls/7", "reviews/7:1 in pulls/7", "assignments/7:1 in pulls/7", "pull-labels/1 in pulls/7", "updates/1 in pulls/7", "files/x")
	})
}
