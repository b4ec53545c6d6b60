package github_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/neutral"
)

func recordOf(collection, id, parent, raw string) archive.Record {
	r := archive.Record{Key: archive.Key{Collection: collection, ID: id}, Raw: json.RawMessage(raw)}
	if on, number, found := strings.Cut(parent, "/"); found {
		r.Parent = archive.Key{Collection: on, ID: number}
	}
	return r
}

// TestOddAnswers decodes what is missing, null, or out of range.
func TestOddAnswers(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name    string
		records []archive.Record
		want    neutral.Item
	}{
		{"nothing but a name", []archive.Record{recordOf("issues", "7", "", `{}`)}, neutral.Item{
			Origin: neutral.Origin{Forge: "github.com", ID: "0", Author: neutral.User{Login: "ghost"}}, Number: 7,
		}},
		{"nulls", []archive.Record{recordOf("issues", "7", "", `{"id":1,"user":null,"body":null,"labels":null,"milestone":null,"assignees":null,
			"closed_at":null,"state_reason":null,"pull_request":null,"created_at":"2026-01-01T00:00:00Z","reactions":null}`)}, neutral.Item{
			Origin: neutral.Origin{Forge: "github.com", ID: "1", Author: neutral.User{Login: "ghost"}, Created: day}, Number: 7,
		}},
		{"numbers and times out of range", []archive.Record{
			recordOf("issues", "7", "", `{"id":1e400,"user":{"login":"ada","id":-5},"created_at":"yesterday","state":7,"title":["no"]}`),
		}, neutral.Item{Origin: neutral.Origin{Forge: "github.com", ID: "0", Author: neutral.User{Login: "ada"}}, Number: 7}},
		{"labels by name alone", []archive.Record{recordOf("issues", "7", "", `{"id":1,"user":{"login":"ada"},"labels":["bug",{"name":"help"},null,3]}`)}, neutral.Item{
			Origin: neutral.Origin{Forge: "github.com", ID: "1", Author: neutral.User{Login: "ada"}}, Number: 7, Labels: []string{"bug", "help"},
		}},
		{"a pull request from a fork that is gone", []archive.Record{
			recordOf("issues", "7", "", `{"id":1,"user":{"login":"ada"},"head":{"ref":"x","sha":"1","repo":null,"user":null},"base":{"ref":"main","sha":"2","repo":{"full_name":"a/b"}}}`),
		}, neutral.Item{
			Origin: neutral.Origin{Forge: "github.com", ID: "1", Author: neutral.User{Login: "ada"}}, Number: 7,
			Pull: &neutral.Pull{Base: "main", Head: "x", BaseOID: "2", HeadOID: "1"},
		}},
		{"a review whose author is gone, and a reply to nothing", []archive.Record{
			recordOf("issues", "7", "", `{"id":1,"user":{"login":"ada"},"pull_request":{}}`),
			recordOf("pulls", "7", "issues/7", `{"head_repository":null,"merged":true,"merged_by":null,"reviewers":{"nodes":[{"reviewer":null}]}}`),
			recordOf("reviews", "9", "pulls/7", `{"id":9,"user":null,"state":"APPROVED","commit":null}`),
			recordOf("review-comments", "10", "pulls/7", `{"id":10,"pull_request_review_id":null,"in_reply_to_id":99999999999999999999,"line":-1}`),
		}, neutral.Item{
			Origin: neutral.Origin{Forge: "github.com", ID: "1", Author: neutral.User{Login: "ada"}}, Number: 7,
			Pull: &neutral.Pull{Merged: true, MergedBy: neutral.User{Login: "ghost"}, Reviews: []*neutral.Review{
				{Origin: neutral.Origin{Forge: "github.com", ID: "9", Author: neutral.User{Login: "ghost"}}, Item: 7, State: "approved"},
				{
					Origin: neutral.Origin{Forge: "github.com", ID: "0", Author: neutral.User{Login: "ghost"}}, Item: 7, State: "commented",
					Comments: []*neutral.Comment{{
						Origin: neutral.Origin{Forge: "github.com", ID: "10", Author: neutral.User{Login: "ghost"}}, Item: 7, Code: &neutral.Code{},
					}},
				},
			}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, items, _ := decoded(t, test.records, "")
			same(t, "items", items, []*neutral.Item{&test.want})
		})
	}
}

// TestMarksOfTheAccount believes what the account that reads has restored, and nobody else.
func TestMarksOfTheAccount(t *testing.T) {
	first := neutral.Origin{
		Forge: "gitea.example.com", URL: "https://gitea.example.com/a/b/issues/3", ID: "3", Author: neutral.User{Login: "ada"},
		Created: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	marked, err := json.Marshal(neutral.Mark{Sort: neutral.SortIssue, Origin: first}.Write("it broke"))
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprintf(`{"id":1,"user":{"login":"restorer"},"body":%s,"tag_name":"v1","author":{"login":"restorer"}}`, marked)
	records := []archive.Record{recordOf("issues", "7", "", raw), recordOf("comments", "8", "issues/7", raw), recordOf("releases", "9", "", raw)}
	o, items, _ := decoded(t, records, "Restorer")
	for what, got := range map[string]struct {
		neutral.Origin
		body string
	}{
		"issue": {items[0].Origin, items[0].Body}, "comment": {items[0].Comments[0].Origin, items[0].Comments[0].Body},
		"release": {o.Releases[0].Origin, o.Releases[0].Body},
	} {
		if got.body != "it broke" || got.Origin != first {
			t.Errorf("the %s is %+v", what, got)
		}
	}
	_, items, _ = decoded(t, records, "somebody")
	if items[0].Author.Login != "restorer" || items[0].Body == "it broke" {
		t.Errorf("a mark of another account is believed: %+v", items[0])
	}
}

func TestOtherDialect(t *testing.T) {
	r, err := archive.Of(archive.Header{Dialect: "gitlab"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := github.Decode(r); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// FuzzDecode decodes objects as a hostile forge could answer them, as records of every collection.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"number":7,"title":"a","user":{"login":"ada"},"labels":["x",{"name":"y"}],"pull_request":{"url":"x"},"state":"closed"}`,
		`{"id":5,"pull_request_review_id":5,"in_reply_to_id":5,"path":"a","line":1,"body":"<!-- backstay:1 {} -->","user":{"login":"restorer"}}`,
		`{"__typename":"LabeledEvent","label":{"name":"x"},"actor":null,"source":{"number":-1},"created_at":"2026-01-01T00:00:00Z"}`,
		`{"topics":{"nodes":[{"topic":null}]},"pinned":{"nodes":null},"default_branch":{"name":"main"},"reviewers":{"nodes":[{"reviewer":{"slug":"a"}}]}}`,
		`{"conditions":{"ref_name":{"include":["~ALL","refs/heads/"]}},"target":"branch","enforcement":"active","rules":[{"type":"update"}]}`,
		`{"config":{"url":"http://a:b@[::1"},"resolved":true,"comments":{"nodes":[]},"reply_to":{"id":5},"user":[]}`,
		`{"type":"DRAFT_ISSUE","content":{"number":"x","title":1,"repository":null},"values":{"nodes":[null,{"number":1e400},{"field":null,"text":"x"}]}}`,
		`{"owner":null,"fields":{"nodes":[null,{"options":[null,"x",{"name":"y"}],"configuration":{"iterations":[null]}}]},"views":{"nodes":[null,3]}}`,
		`{}`, `{"labels":{}}`, `{"user":{"login":{}}}`, `[]`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) || !strings.HasPrefix(strings.TrimSpace(string(raw)), "{") {
			return
		}
		records := []archive.Record{recordOf("issues", "7", "", string(raw)), recordOf("discussions", "8", "", string(raw))}
		for _, name := range strings.Fields("settings labels milestones releases rules rulesets hooks keys collaborators teams projects files") {
			records = append(records, recordOf(name, "1", "", string(raw)))
		}
		for name, parent := range map[string]string{
			"comments": "issues/7", "timeline": "issues/7", "reactions": "issues/7", "pulls": "issues/7", "reviews": "pulls/7", "review-threads": "pulls/7",
			"review-comments": "pulls/7", "discussion-comments": "discussions/8", "assets": "releases/1", "comment-reactions": "comments/5",
			"project-items": "projects/1",
		} {
			records = append(records, recordOf(name, "5", parent, string(raw)))
		}
		r, err := archive.Of(archive.Header{Dialect: "github", Host: "github.com", Repository: "a/b", Account: "restorer"}, records...)
		if err != nil {
			return
		}
		s, err := github.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.Overview(t.Context())
		corrupt(t, err)
		for _, h := range hooksOf(o) {
			if u, err := url.Parse(h.URL); err == nil && u.User != nil {
				t.Errorf("a hook tells %q", h.URL)
			}
		}
		for item, err := range s.Items(t.Context()) {
			if corrupt(t, err); err == nil && item.Number != 7 {
				t.Errorf("an item of number %d", item.Number)
			}
		}
		for _, err := range s.Discussions(t.Context()) {
			corrupt(t, err)
		}
	})
}

func hooksOf(o *neutral.Overview) []*neutral.Hook {
	if o == nil {
		return nil
	}
	return o.Hooks
}

func corrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
