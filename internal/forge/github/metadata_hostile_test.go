package github_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// hostile makes a provider of github.com whose every answer is given by a function.
func hostile(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *github.Provider {
	t.Helper()
	transport := roundTrip(func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		answer(w, r)
		return w.Result()
	})
	clock := forgetest.NewClock()
	p, err := github.New(github.Options{Token: forgetest.Token, Client: forge.ClientOptions{Transport: transport, Clock: clock.Now, Sleep: clock.Sleep}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// collection reads one collection, up to a number of records.
func collection(t *testing.T, p *github.Provider, name string, parents ...archive.Record) (found []archive.Record, err error) {
	t.Helper()
	r := forge.Repository{Owner: "acme", Name: "api"}
	for _, c := range p.Collections(r) {
		if c.Name != name {
			continue
		}
		for record, err := range c.Read(t.Context(), forge.Query{Repository: r, Parents: parents}) {
			if err != nil {
				return found, err
			}
			if found = append(found, record); len(found) == 1000 {
				return found, nil
			}
		}
		return found, nil
	}
	t.Fatalf("there is no collection %s", name)
	return nil, nil
}

func TestListsThatDoNotEnd(t *testing.T) {
	for _, test := range []struct {
		name, collection string
		answer           string
		want             int // records before the error
	}{
		{"one page again and again", "issues", `[{"number":1,"updated_at":"2026-01-01T00:00:00Z"}]`, 1},
		{"nothing, with a page behind it", "comments", `[]`, 0},
		{"one page of GraphQL again and again", "discussions", `{"data":{"repository":{"list":{"pageInfo":{"hasNextPage":true,"endCursor":"x"},"nodes":[{"number":1}]}}}}`, 1},
		{"one page of releases", "releases", `[{"id":1}]`, 1},
		{
			"one page of labels", "settings",
			`{"data":{"repository":{"labels":{"pageInfo":{"hasNextPage":true,"endCursor":"x"},"nodes":[{"name":"a"}]},"milestones":{"nodes":[]}}}}`, 2,
		},
		{
			"one page of projects", "projects",
			`{"data":{"repository":{"projects":{"pageInfo":{"hasNextPage":true,"endCursor":"x"},"nodes":[{"node_id":"a"}]}}}}`, 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			requests := 0
			p := hostile(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				w.Header().Set("Link", fmt.Sprintf("<https://api.github.com%s?page=%d>; rel=\"next\"", r.URL.Path, requests))
				io.WriteString(w, test.answer)
			})
			found, err := collection(t, p, test.collection)
			if !errors.Is(err, fault.ErrUnavailable) || len(found) != test.want || requests > 5 {
				t.Errorf("got %d records and %v after %d requests", len(found), err, requests)
			}
		})
	}
}

// TestNestedListThatDoesNotEnd has a timeline whose page comes again.
func TestNestedListThatDoesNotEnd(t *testing.T) {
	page := `{"pageInfo":{"hasNextPage":true,"endCursor":"x"},"nodes":[{"__typename":"ClosedEvent","node_id":"E1"}]}`
	p := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "node(id") {
			fmt.Fprintf(w, `{"data":{"node":{"list":%s}}}`, page)
			return
		}
		fmt.Fprintf(w, `{"data":{"nodes":[{"__typename":"Issue","self":"I_1","issue_timeline":%s,"issue_reactions":{}}]}}`, page)
	})
	found, err := collection(t, p, "timeline", recordOf("issues", "1", "", `{"node_id":"I_1"}`))
	if !errors.Is(err, fault.ErrUnavailable) || len(found) != 1 {
		t.Errorf("got %d records, %v", len(found), err)
	}
}

// TestOneOddRecord is followed by good ones: they come, and the odd one has no name, for which the engine counts it.
func TestOneOddRecord(t *testing.T) {
	p := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `[{"id":1},{"id":"two","issue_url":"x/3"},7,{"id":4,"issue_url":"https://elsewhere.example/issues/3","updated_at":"2026-01-01T00:00:00Z"}]`)
	})
	found, err := collection(t, p, "comments")
	if err != nil || len(found) != 4 || found[3].String() != "comments/4" || found[3].Parent.String() != "issues/3" {
		t.Fatalf("got %v, %v", found, err)
	}
	for _, odd := range found[:3] {
		if odd.ID != "" {
			t.Errorf("%s has a name", odd.Raw)
		}
	}
}

// TestNodesThatAreGone are left out, and what is there comes.
func TestNodesThatAreGone(t *testing.T) {
	p := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"data":{"nodes":[null,{"__typename":"Issue","self":"I_2","issue_timeline":{"nodes":[{"node_id":"E"}]},"issue_reactions":null},
			{"__typename":"Issue","self":"I_9","issue_timeline":{"nodes":[{"node_id":"F"}]}}]},"errors":[{"type":"NOT_FOUND","message":"no I_1"}]}`)
	})
	found, err := collection(t, p, "timeline", recordOf("issues", "1", "", `{"node_id":"I_1"}`), recordOf("issues", "2", "", `{"node_id":"I_2"}`))
	if err != nil || len(found) != 1 || found[0].String() != "timeline/E" || found[0].Parent.String() != "issues/2" {
		t.Errorf("got %v, %v", found, err)
	}
}

// TestTooMuchAtOnce has a GitHub that cannot answer for more than ten objects in its time.
func TestTooMuchAtOnce(t *testing.T) {
	p := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ Variables struct{ IDs []string } }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Variables.IDs) > 10 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		var nodes []string
		for _, id := range asked.Variables.IDs {
			nodes = append(nodes, fmt.Sprintf(`{"__typename":"Issue","self":%q,"issue_timeline":{"nodes":[{"node_id":"E%s"}]},"issue_reactions":{}}`, id, id))
		}
		fmt.Fprintf(w, `{"data":{"nodes":[%s]}}`, strings.Join(nodes, ","))
	})
	var parents []archive.Record
	for i := range 50 {
		parents = append(parents, recordOf("issues", strconv.Itoa(i+1), "", fmt.Sprintf(`{"node_id":"I%d"}`, i)))
	}
	if found, err := collection(t, p, "timeline", parents...); err != nil || len(found) != 50 {
		t.Errorf("got %d records, %v", len(found), err)
	}
}

func TestMarksInBulk(t *testing.T) {
	s := serve(t, &githubtest.API{Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}})
	made := s.World.Grow("tester", 250)
	old := githubtest.Grow(s.clock.Now().Add(-time.Hour), 20, 0)
	s.Metadata[made[0].ID] = old
	s.Metadata[made[1].ID] = githubtest.Grow(s.clock.Now().Add(time.Hour*40), 1, 0) // its newest change is not yet over
	p := s.connect(t, github.Options{})
	_, all, err := list(t.Context(), p, forge.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	marks := func() map[string]string {
		t.Helper()
		before := p.Requests()
		marks, err := p.MetadataMarks(t.Context(), all)
		if n := p.Requests() - before; err != nil || len(marks) != 250-1 || n != 3 {
			t.Fatalf("%d marks in %d requests, %v", len(marks), n, err)
		}
		return marks
	}
	s.World.Delete(made[9].ID)
	first := marks()
	id := fmt.Sprint(made[0].ID)
	if again := marks(); again[id] != first[id] || strings.Contains(first[id], "  ") || len(strings.Fields(first[id])) != 7 {
		t.Errorf("without a change the mark is %q, then %q", first[id], again[id])
	}
	old.Edit(func(m *githubtest.Metadata) { m.Items[3].Updated = s.clock.Now().Add(-2 * time.Minute) })
	if again := marks(); again[id] == first[id] || field(again[id], "releases") != field(first[id], "releases") ||
		field(again[id], "comments") == field(first[id], "comments") || field(again[id], "settings") != field(first[id], "settings") {
		t.Errorf("after a change of an issue the mark is %q, before %q", again[id], first[id])
	}
}

// TestMarkOfWhatIsDenied names only what the token may count: the rest is looked at once a day.
func TestMarkOfWhatIsDenied(t *testing.T) {
	p := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"data":{"nodes":[{"self":"R_1","pulls":{"totalCount":3,"nodes":[]},"issues":null,"discussions":null,"releases":{"totalCount":0,"nodes":[]}}]},
			"errors":[{"type":"FORBIDDEN","message":"Resource not accessible"}]}`)
	})
	marks, err := p.MetadataMarks(t.Context(), []forge.Repository{{ID: "1", Raw: json.RawMessage(`{"node_id":"R_1"}`)}})
	if m := marks["1"]; err != nil || field(m, "issues") != "none" || field(m, "comments") != "none" || field(m, "discussions") != "none" ||
		field(m, "review-comments") == "none" || field(m, "releases") == "none" {
		t.Errorf("got %q, %v", marks, err)
	}
}

func TestTotalsOfWhatIsDenied(t *testing.T) {
	p := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"data":{"repository":{"has_issues":true,"issues":null,"pulls":{"totalCount":3},"releases":{"totalCount":-1},"labels":[]}},
			"errors":[{"type":"FORBIDDEN","message":"Resource not accessible"}]}`)
	})
	totals, err := p.Totals(t.Context(), forge.Repository{Owner: "acme", Name: "api"})
	if want := map[string]int64{"settings": 1, "pulls": 3, "releases": 0}; err != nil || !maps.Equal(totals, want) {
		t.Errorf("got %v, %v", totals, err)
	}
}

// field is the word of a collection in a mark.
func field(mark, name string) string {
	for _, word := range strings.Fields(mark) {
		if after, found := strings.CutPrefix(word, name+"="); found {
			return after
		}
	}
	return "none"
}

func TestFileAddresses(t *testing.T) {
	p, err := github.New(github.Options{Token: forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	server, err := github.New(github.Options{URL: "https://git.example.com", Token: forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		p         *github.Provider
		raw, want string
	}{
		{
			p, `{"body":"![a](https://github.com/user-attachments/assets/1-2) and https://github.com/user-attachments/files/12/log.txt"}`,
			"https://github.com/user-attachments/assets/1-2 https://github.com/user-attachments/files/12/log.txt",
		},
		{p, `{"body":"<img src=\"https://user-images.githubusercontent.com/1/2.png\">"}`, "https://user-images.githubusercontent.com/1/2.png"},
		{
			p, `{"body":"https://github.com/acme/api/assets/7/ab-cd https://github.com/acme/api/files/8/a.zip"}`,
			"https://github.com/acme/api/assets/7/ab-cd https://github.com/acme/api/files/8/a.zip",
		},
		{p, `{"body":"http://169.254.169.254/user-attachments/assets/1 https://github.com.evil.example/user-attachments/assets/1"}`, ""},
		{p, `{"body":"https://x:y@github.com/user-attachments/assets/1 https://github.com/acme/api/issues/1 https://github.com/logout"}`, ""},
		{p, `{"body":"https://raw.githubusercontent.com/a/b/main/c http://github.com/user-attachments/assets/1 /user-attachments/assets/1"}`, ""},
		{p, `{"title":"https://github.com/user-attachments/assets/1","body":7}`, ""},
		{
			server, `{"body":"https://git.example.com/user-attachments/assets/1 https://media.git.example.com/user/1/files/2 https://github.com/user-attachments/assets/1"}`,
			"https://git.example.com/user-attachments/assets/1 https://media.git.example.com/user/1/files/2",
		},
	} {
		var got []string
		for _, f := range test.p.FileURLs(recordOf("comments", "1", "", test.raw)) {
			got = append(got, f.URL)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q, want %q", test.raw, got, test.want)
		}
	}
	asset := `{"url":"https://api.github.com/repos/a/b/releases/assets/1","name":"a.tgz","size":5,"digest":"sha256:00","state":"uploaded","content_type":"x/y"}`
	got := p.FileURLs(recordOf("assets", "1", "", asset))
	want := archive.File{URL: "https://api.github.com/repos/a/b/releases/assets/1", Name: "a.tgz", Size: 5, Digest: "sha256:00", Type: "x/y"}
	if len(got) != 1 || got[0] != want {
		t.Errorf("of an asset: got %+v", got)
	}
	elsewhere := strings.Replace(asset, "api.github.com", "10.0.0.1", 1)
	if got := p.FileURLs(recordOf("assets", "1", "", elsewhere)); len(got) != 0 {
		t.Errorf("of an asset elsewhere: got %+v", got)
	}
}

// TestAssetsAreStored captures the bytes of an asset, and reads them by the neutral model.
func TestAssetsAreStored(t *testing.T) {
	m := everything()
	m.Releases[0].Assets[0].Digest = "sha256:" + "d1c99f4d1a1b9a1fbeb2bf4c5e1f1c3a3f6a3a4a9b0e6f3c7d8e9fa0b1c2d3e4" // not the one of "asset"
	m.Comments[0].Body = "nothing attached"
	e := newEngine(t, m)
	e.files = true
	if open, notes := e.run(); len(open) != 1 || !strings.Contains(strings.Join(notes, " "), "assets/601: its SHA-256 is") {
		t.Errorf("a wrong digest goes unseen: open counts %q, notes %q", open, notes)
	}
	e.Edit(func(m *githubtest.Metadata) {
		m.Releases[0].Assets[0].Digest, m.Releases[0].Assets[0].Updated = "", e.clock.Now()
	})
	e.good()
	s, err := github.Decode(e.archive())
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), &o.Releases[0].Assets[0].File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content, err := io.ReadAll(f); err != nil || string(content) != "asset" {
		t.Errorf("the asset is %q, %v", content, err)
	}
}
