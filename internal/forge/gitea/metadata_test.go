package gitea_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/gitea"
)

var api = forge.Repository{ID: "1", Owner: "acme", Name: "api"}

// collection finds one of a repository by its name.
func collection(t *testing.T, p *gitea.Provider, r forge.Repository, name string) forge.Collection {
	t.Helper()
	for _, c := range p.Collections(r) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no collection %s", name)
	return forge.Collection{}
}

func read(t *testing.T, c forge.Collection, q forge.Query) (all []archive.Record) {
	t.Helper()
	q.Repository = api
	for r, err := range c.Read(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// issueList is a list of issues as Gitea has it: the newest first, in pages of fifty, by the time of change where that is asked for.
type issueList struct {
	updated  map[int64]time.Time
	requests int
	meddle   func(page int) // before a page is answered
}

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func issuesOf(n int) *issueList {
	l := &issueList{updated: map[int64]time.Time{}, meddle: func(int) {}}
	for i := range int64(n) {
		l.updated[i+1] = began.Add(time.Duration(i*7919%int64(n)) * time.Minute)
	}
	return l
}

func (l *issueList) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.requests++
	page, _ := strconv.Atoi(cmp.Or(r.FormValue("page"), "1"))
	l.meddle(page)
	since, _ := time.Parse(time.RFC3339, r.FormValue("since"))
	before, err := time.Parse(time.RFC3339, r.FormValue("before"))
	if err != nil {
		before = began.AddDate(100, 0, 0)
	}
	var numbers []int64
	for n, at := range l.updated {
		if !at.Before(since) && !at.After(before) {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b int64) int { return cmp.Compare(b, a) })
	w.Header().Set("X-Total-Count", strconv.Itoa(len(numbers)))
	from, to := min((page-1)*50, len(numbers)), min(page*50, len(numbers))
	if to < len(numbers) {
		w.Header().Set("Link", fmt.Sprintf(`<https://git.internal/x?page=%d>; rel="next"`, page+1))
	}
	w.Header().Set("Date", began.AddDate(0, 1, 0).Format(http.TimeFormat))
	items := []any{}
	for _, n := range numbers[from:to] {
		items = append(items, map[string]any{"id": n + 1000, "number": n, "updated_at": l.updated[n]})
	}
	answer(w, http.StatusOK, items)
}

func TestIssuesComeByTheirTimeOfChange(t *testing.T) {
	l := issuesOf(4000)
	p := serve(t, gitea.Options{}, routes{"GET /repos/acme/api/issues": l.ServeHTTP})
	all := read(t, collection(t, p, api, "issues"), forge.Query{})
	seen := map[string]bool{}
	for i, r := range all {
		if i > 0 && r.Updated.Before(all[i-1].Updated) {
			t.Fatalf("%s comes after %s", r.Key, all[i-1].Key)
		}
		seen[r.ID] = true
	}
	if len(all) != 4000 || len(seen) != 4000 || all[0].Collection != "issues" {
		t.Errorf("%d were read, %d of them different", len(all), len(seen))
	}
	if l.requests > 4000/50+60 {
		t.Errorf("it took %d requests", l.requests)
	}
	l.requests = 0
	if recent := read(t, collection(t, p, api, "issues"), forge.Query{Since: began.Add(3990 * time.Minute)}); len(recent) != 10 || l.requests != 1 {
		t.Errorf("%d changed since, in %d requests", len(recent), l.requests)
	}
}

// What is changed while pages are read leaves the span of time that they are of, and all behind it move up.
func TestAnIssueThatChangesMeanwhileHidesNoOther(t *testing.T) {
	l := issuesOf(300)
	changes := 0
	l.meddle = func(page int) {
		if page == 3 && changes < 2 {
			changes++
			delete(l.updated, int64(300-changes)) // it stood on the first page
		}
	}
	p := serve(t, gitea.Options{}, routes{"GET /repos/acme/api/issues": l.ServeHTTP})
	seen := map[string]bool{}
	for _, r := range read(t, collection(t, p, api, "issues"), forge.Query{}) {
		seen[r.ID] = true
	}
	for n := range l.updated {
		if !seen[strconv.FormatInt(n, 10)] {
			t.Errorf("issue %d was not seen", n)
		}
	}
}

func TestPullRequestsThatChanged(t *testing.T) {
	requests := 0
	p := serve(t, gitea.Options{}, routes{"GET /repos/acme/api/pulls": func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.FormValue("sort") != "recentupdate" || r.FormValue("state") != "all" {
			t.Errorf("it asks for %s", r.URL.RawQuery)
		}
		w.Header().Set("X-Total-Count", "500")
		w.Header().Set("Link", `<x?page=9>; rel="next"`)
		var items []any
		for i := range 50 {
			n := 500 - (requests-1)*50 - i
			items = append(items, map[string]any{"id": n + 1000, "number": n, "updated_at": began.Add(time.Duration(n) * time.Hour)})
		}
		answer(w, http.StatusOK, items)
	}})
	all := read(t, collection(t, p, api, "pulls"), forge.Query{Since: began.Add(420 * time.Hour)})
	if len(all) != 81 || all[0].ID != "420" || all[80].ID != "500" || requests != 2 || all[0].Parent.ID != "420" {
		t.Errorf("%d pull requests in %d requests: %v", len(all), requests, all[0].Key)
	}
}

// Pages of a timeline leave out what is said of code, so they may be short, and even empty, before the last one.
func TestATimelineGoesOnBehindShortPages(t *testing.T) {
	var asked []string
	handler := routes{
		"GET /settings/api": says(http.StatusOK, map[string]any{"max_response_items": 4}),
		"GET /repos/acme/api/issues/7/timeline": func(w http.ResponseWriter, r *http.Request) {
			page := cmp.Or(r.FormValue("page"), "1")
			asked = append(asked, page)
			items := map[string][]any{
				"1": {map[string]any{"id": 1, "type": "label"}, map[string]any{"id": 2, "type": "comment"}}, "3": {map[string]any{"id": 9, "type": "close"}},
			}[page]
			w.Header().Set("X-Total-Count", strconv.Itoa(len(items)))
			answer(w, http.StatusOK, append([]any{}, items...))
		},
	}
	p := serve(t, gitea.Options{}, handler)
	for _, test := range []struct {
		issue string
		want  string
		pages string
	}{
		{`{"number":7,"comments":12,"pull_request":{"merged":false}}`, "1 9", "1 2 3 4 5"},
		{`{"number":7,"comments":12}`, "1", "1 2 3 4 5"},
	} {
		asked = nil
		parent := archive.Record{Key: archive.Key{Collection: "issues", ID: "7"}, Raw: json.RawMessage(test.issue)}
		var ids []string
		for _, r := range read(t, collection(t, p, api, "timeline"), forge.Query{Parents: []archive.Record{parent}}) {
			ids = append(ids, r.ID)
			if r.Parent != parent.Key {
				t.Errorf("%s belongs to %s", r.Key, r.Parent)
			}
		}
		if !strings.HasPrefix(strings.Join(ids, " "), test.want) || !strings.HasPrefix(test.pages, strings.Join(asked, " ")) {
			t.Errorf("%s: events %s on pages %s", test.issue, ids, asked)
		}
	}
}

func TestReviewsBringWhatTheySayOfCode(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{
		"GET /repos/acme/api/pulls/7/reviews": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Total-Count", "3") // one of them is another's, not yet sent
			if r.FormValue("page") == "2" {
				answer(w, http.StatusOK, []any{})
				return
			}
			answer(w, http.StatusOK, []any{
				map[string]any{"id": 1, "comments_count": 0}, map[string]any{"id": 2, "comments_count": 1, "submitted_at": began},
			})
		},
		"GET /repos/acme/api/pulls/7/reviews/2/comments": says(http.StatusOK, []any{map[string]any{"id": 5, "pull_request_review_id": 2}}),
	})
	c := collection(t, p, api, "reviews")
	parent := archive.Record{Key: archive.Key{Collection: "pulls", ID: "7"}}
	var got []string
	for _, r := range read(t, c, forge.Query{Parents: []archive.Record{parent}}) {
		got = append(got, r.Key.String()+" of "+r.Parent.String())
	}
	if want := "[reviews/1 of pulls/7 reviews/2 of pulls/7 review-comments/5 of pulls/7]"; fmt.Sprint(got) != want || fmt.Sprint(c.Also) != "[review-comments]" {
		t.Errorf("read %s, want %s", got, want)
	}
}

func TestHooksAreKeptWithoutSecrets(t *testing.T) {
	hook := func(id int, sort, url string) map[string]any {
		return map[string]any{
			"id": id, "type": sort, "authorization_header": "Bearer hunter22", "events": []string{"push"}, "active": true,
			"config": map[string]string{"url": url, "content_type": "json", "secret": "hunter22"},
		}
	}
	p := serve(t, gitea.Options{}, routes{"GET /repos/acme/api/hooks": says(http.StatusOK, []any{
		hook(1, "gitea", "https://me:hunter22@ci.example.com/build?token=hunter22"), hook(2, "slack", "https://hooks.slack.com/services/T/B/hunter22"),
	})})
	want := []string{"https://ci.example.com/build", "https://hooks.slack.com"}
	for i, r := range read(t, collection(t, p, api, "hooks"), forge.Query{}) {
		if strings.Contains(string(r.Raw), "hunter22") || !strings.Contains(string(r.Raw), `"`+want[i]+`"`) || !strings.Contains(string(r.Raw), "push") {
			t.Errorf("kept is %s", r.Raw)
		}
	}
}

func TestWhatIsSwitchedOffIsNotRead(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{})
	names := func(raw string) (all string) {
		for _, c := range p.Collections(forge.Repository{Raw: json.RawMessage(raw)}) {
			all += c.Name + " "
		}
		return all
	}
	if all := names(`{"has_issues":false,"has_pull_requests":false,"has_releases":false}`); strings.Contains(all, "issues") || strings.Contains(all, "releases") {
		t.Errorf("read are %s", all)
	}
	if all := names(`{"topics":[]}`); strings.Contains(all, "topics") || !strings.Contains(names(`{}`), "topics") {
		t.Errorf("read are %s", all)
	}
	if all := names(`{"internal_tracker":{"enable_time_tracker":false,"enable_issue_dependencies":true}}`); strings.Contains(all, "times") ||
		!strings.Contains(all, "dependencies") || !strings.Contains(all, "pulls") {
		t.Errorf("read are %s", all)
	}
}

func TestTotals(t *testing.T) {
	counts := func(n string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Total-Count", n)
			answer(w, http.StatusOK, []any{})
		}
	}
	p := serve(t, gitea.Options{}, routes{"GET /repos/acme/api/issues": counts("12"), "GET /repos/acme/api/issues/comments": counts("345")})
	if totals, err := p.Totals(t.Context(), api); err != nil || fmt.Sprint(totals) != "map[comments:345 issues:12]" {
		t.Errorf("the totals are %v, %v", totals, err)
	}
}

func TestOnlyTheForgesOwnFilesAreNamed(t *testing.T) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	p := serve(t, gitea.Options{}, routes{"GET /attachments/" + id: says(http.StatusOK, "a file")})
	record := archive.Record{Key: archive.Key{Collection: "comments", ID: "1"}, Raw: json.RawMessage(`{
		"body": "![](/attachments/` + id + `) [x](https://evil.example.com/attachments/` + id + `) http://169.254.169.254/latest/meta-data",
		"assets": [{"name": "a.txt", "size": 9, "browser_download_url": "https://git.internal/acme/api/releases/download/v1/a.txt"},
			{"name": "elsewhere", "type": "external", "browser_download_url": "https://evil.example.com/acme/api/releases/download/v1/b"},
			{"name": "odd", "browser_download_url": "https://evil.example.com/b"}]}`)}
	var names []string
	for _, f := range p.FileURLs(record) {
		names = append(names, f.Name+" "+f.URL[strings.LastIndex(f.URL, ":"):])
	}
	if len(names) != 2 || names[0] != "a.txt ://git.internal/acme/api/releases/download/v1/a.txt" || !strings.HasSuffix(names[1], "/attachments/"+id) {
		t.Errorf("named are %q", names)
	}
	if _, err := p.GetFile(t.Context(), api, archive.File{URL: "https://evil.example.com/b"}, 1000); err == nil {
		t.Error("an address that is not the forge's was asked")
	}
}
