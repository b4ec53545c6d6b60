package sourcehut_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/sourcehut"
)

type object = map[string]any

// services are the tracker and the lists of the fake, at the address of its git service.
type services struct {
	server
	tickets []object
	events  map[int64][]object
	tracker bool
	newest  int // mail
	denied  bool
	asked   []string // "tickets", "events 1", "lists", "mbox"
	url     string
}

func (s *services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/archive/") {
		s.asked = append(s.asked, "mbox")
		io.WriteString(w, "From jo")
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var q struct {
		Query     string         `json:"query"`
		Variables map[string]any `json:"variables"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	user := object{}
	cursor, _ := q.Variables["cursor"].(string)
	switch {
	case strings.Contains(q.Query, "list(name"):
		s.asked = append(s.asked, "lists")
		if q.Variables["n1"] == "api-devel" && s.newest > 0 {
			user["l1"] = object{"id": 3, "name": "api-devel", "archive": s.url + "/archive/3.mbox", "emails": object{"results": []object{{"id": s.newest}, {"id": 1}}}}
		}
	case strings.Contains(q.Query, "tracker(name"):
		user["tracker"] = nil
		if s.tracker && q.Variables["name"] == "api" && q.Variables["username"] == "tester" {
			user["tracker"] = s.answer(q.Query, q.Variables, cursor)
		}
	default:
		s.server.ServeHTTP(w, r)
		return
	}
	document := object{"data": object{"user": user}}
	if s.denied {
		document = object{"data": nil, "errors": []object{{"message": "Access denied: TRACKERS:RO", "extensions": object{"code": "ERR_ACCESS_DENIED"}}}}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(document)
}

// answer is what a tracker says, 25 a page.
func (s *services) answer(query string, variables object, cursor string) object {
	page := func(all []object) object {
		from, _ := strconv.Atoi(cursor)
		to := min(from+25, len(all))
		p := object{"results": append([]object{}, all[from:to]...), "cursor": nil}
		if to < len(all) {
			p["cursor"] = strconv.Itoa(to)
		}
		return p
	}
	switch {
	case strings.Contains(query, "events("):
		id, _ := variables["id"].(float64)
		s.asked = append(s.asked, "events "+strconv.Itoa(int(id)))
		return object{"ticket": object{"events": page(s.events[int64(id)])}}
	case strings.Contains(query, "tickets("):
		s.asked = append(s.asked, "tickets")
		return object{"tickets": page(s.tickets)}
	case strings.Contains(query, "labels("):
		return object{"labels": page([]object{{"id": 1, "name": "bug", "backgroundColor": "#FF0000", "foregroundColor": "#000000"}})}
	}
	return object{"id": 9, "name": "api", "visibility": "PUBLIC"}
}

func who(name string) object { return object{"canonicalName": "~" + name, "username": name} }

func day(n int) string { return "2026-01-0" + strconv.Itoa(n) + "T00:00:00Z" }

func furnish(t *testing.T) (*services, *forgetest.Capturing) {
	t.Helper()
	clock := forgetest.NewClock()
	s := &services{server: server{world: forgetest.NewWorld(clock.Now)}, tracker: true, newest: 41}
	s.world.Add(forgetest.Repo{Owner: "~tester", Name: "api", Description: "an API"})
	s.tickets = []object{
		{
			"id": 2, "created": day(2), "updated": day(3), "ref": "~tester/api#2", "subject": "Later", "body": nil, "status": "IN_PROGRESS", "resolution": "UNRESOLVED",
			"labels": []object{}, "assignees": []object{}, "submitter": object{"canonicalName": "Eve <eve@example.com>", "mailbox": "eve@example.com", "name": "Eve"},
		},
		{
			"id": 1, "created": day(1), "updated": day(5), "ref": "~tester/api#1", "subject": "It breaks", "body": "Always", "status": "RESOLVED", "resolution": "WONT_FIX",
			"labels": []object{{"id": 1, "name": "bug"}}, "assignees": []object{who("ada")}, "submitter": who("jo"),
		},
	}
	s.events = map[int64][]object{1: {
		{"id": 12, "created": day(5), "changes": []object{
			{"eventType": "COMMENT", "author": who("ada"), "text": "No", "supersededBy": object{"text": "Not so", "supersededBy": nil}},
			{"eventType": "STATUS_CHANGE", "editor": who("ada"), "oldStatus": "REPORTED", "newStatus": "RESOLVED", "oldResolution": "UNRESOLVED", "newResolution": "WONT_FIX"},
		}},
		{"id": 11, "created": day(1), "changes": []object{{"eventType": "CREATED", "author": who("jo")}}},
		{"id": 13, "created": day(2), "changes": []object{{"eventType": "LABEL_ADDED", "labeler": who("ada"), "label": object{"name": "bug"}}}},
	}}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	s.url = web.URL
	p, err := sourcehut.New(sourcehut.Options{URL: web.URL, Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}})
	if err != nil {
		t.Fatal(err)
	}
	return s, &forgetest.Capturing{Provider: p, Clock: clock, Files: true}
}

func TestTicketsComeBackWhole(t *testing.T) {
	_, c := furnish(t)
	made := c.Run(t)
	if len(made.Open) > 0 || len(made.Notes) > 0 {
		t.Errorf("does not close: %q, notes %q", made.Open, made.Notes)
	}
	items, o := forgetest.Decoded(t, sourcehut.Decode, made.Reader)
	i := items[1]
	if i == nil || i.Title != "It breaks" || i.Body != "Always" || !i.Closed || i.Reason != "not_planned" || i.ClosedAt.Day() != 5 || i.ClosedBy.Login != "ada" {
		t.Fatalf("%+v", i)
	}
	if i.Author.Login != "jo" || !slices.Equal(i.Labels, []string{"bug"}) || len(i.Assignees) != 1 {
		t.Errorf("%+v", i)
	}
	if len(i.Comments) != 1 || i.Comments[0].Body != "Not so" || i.Comments[0].Author.Login != "ada" {
		t.Errorf("comments %+v", i.Comments)
	}
	if len(i.Events) != 2 || i.Events[0].Text != "labeled bug" || i.Events[1].Text != "closed as wont fix" {
		t.Errorf("events %+v", i.Events)
	}
	other := items[2]
	if other.Closed || other.Author.Login != "" || other.Author.Email != "eve@example.com" || !slices.Equal(other.Labels, []string{"State: in progress"}) {
		t.Errorf("%+v", other)
	}
	if len(o.Labels) != 2 || o.Labels[0].Color != "ff0000" || o.Settings.Description != "an API" || !o.Settings.HasIssues {
		t.Errorf("%+v, labels %+v", o.Settings, o.Labels)
	}
	if made.Count("lists") != 1 || made.Count("files") != 1 {
		t.Errorf("%d lists, %d files", made.Count("lists"), made.Count("files"))
	}
}

func TestCaptureCostsWhatChanged(t *testing.T) {
	s, c := furnish(t)
	c.Run(t)
	s.asked = nil
	if second := c.Run(t); !second.Part.Unchanged || !slices.Equal(s.asked, []string{"tickets", "lists"}) {
		t.Errorf("unchanged, it asks %q", s.asked)
	}
	s.asked = nil
	s.tickets[1]["updated"], s.newest = day(9), 42
	s.events[1] = s.events[1][1:]
	items, _ := forgetest.Decoded(t, sourcehut.Decode, c.Run(t).Reader)
	if len(items[1].Comments) != 0 {
		t.Errorf("a comment that is gone: %+v", items[1].Comments)
	}
	if want := []string{"tickets", "events 1", "lists", "mbox"}; !slices.Equal(s.asked, want) {
		t.Errorf("it asks %q, want %q", s.asked, want)
	}
	s.tickets = s.tickets[1:]
	if items, _ := forgetest.Decoded(t, sourcehut.Decode, c.Run(t).Reader); len(items) != 1 {
		t.Errorf("%d tickets after one was deleted", len(items))
	}
}

func TestManyTickets(t *testing.T) {
	s, c := furnish(t)
	s.tickets, s.events = nil, nil
	for n := range 60 {
		s.tickets = append(s.tickets, object{"id": 60 - n, "updated": day(1), "subject": "x", "status": "REPORTED"})
	}
	if made := c.Run(t); made.Count("issues") != 60 || len(made.Open) > 0 {
		t.Errorf("%d tickets, open %q", made.Count("issues"), made.Open)
	}
}

// A repository without a tracker lacks nothing, and one that the token may not read is named.
func TestWithoutATracker(t *testing.T) {
	s, c := furnish(t)
	s.tracker, s.newest = false, 0
	made := c.Run(t)
	if len(made.Open) > 0 || len(made.Notes) > 0 || made.Count("settings") != 1 {
		t.Errorf("open %q, notes %q", made.Open, made.Notes)
	}
	s, c = furnish(t)
	s.denied = true
	made = c.Run(t)
	if notes := strings.Join(made.Notes, "\n"); !strings.Contains(notes, "issues: not read") || !strings.Contains(notes, "TRACKERS:RO") || len(made.Open) > 0 {
		t.Errorf("notes %q, open %q", notes, made.Open)
	}
}

func TestTicketsWithoutNumbersAreNoRecords(t *testing.T) {
	s, c := furnish(t)
	s.tickets = append(s.tickets, object{"id": 0})
	if made := c.Run(t); !slices.Contains(made.Open, "collections") {
		t.Errorf("counts as whole: %+v", made.Part.Counts)
	}
}

// The archive of a list is fetched from the lists' own address, wherever an answer leads.
func TestArchivesOfOtherHosts(t *testing.T) {
	p, err := sourcehut.New(sourcehut.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for address, own := range map[string]bool{
		"https://lists.sr.ht/archive/3.mbox": true, "https://lists.sr.ht.evil.example/3": false, "http://lists.sr.ht/3": false, "https://jo@lists.sr.ht/3": false,
		"https://git.sr.ht/3": false, "": false,
	} {
		r := forgetest.Record("lists/3", `{"name":"api","newest":4,"archive":"`+address+`"}`)
		if got := len(p.FileURLs(r)) == 1; got != own {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func FuzzDecodeArchive(f *testing.F) {
	for _, seed := range []string{
		`{"id":7,"status":"RESOLVED","labels":[{}],"assignees":[{}],"submitter":null}`, `{"id":-1}`, `null`, `[]`, `{"id":7,"changes":[{"eventType":"COMMENT","supersededBy":{}}]}`,
		`{"id":7,"changes":[{"eventType":"ASSIGNED_USER"}]}`, `{"HEAD":null,"visibility":"PRIVATE"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		forgetest.DecodeHostile(t, sourcehut.Decode, archive.Header{Dialect: "sourcehut", Host: "git.sr.ht", Repository: "~jo/api"}, raw,
			"settings/repository", "trackers/api", "labels/1", "issues/7", "timeline/1 in issues/7", "timeline/2 in issues/7", "lists/1", "files/x")
	})
}
