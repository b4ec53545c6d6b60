package gitlab

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// archived is an archive of one repository's records.
func archived(t testing.TB, records ...archive.Record) *archive.Reader {
	t.Helper()
	r, err := archive.Of(archive.Header{Version: 1, Dialect: "gitlab", Host: "gitlab.com", Repository: "acme/api", Account: "robot"}, records...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func recordOf(collection, id, parent, raw string) archive.Record {
	of, number, _ := strings.Cut(parent, "/")
	return archive.Record{Key: archive.Key{Collection: collection, ID: id}, Parent: archive.Key{Collection: of, ID: number}, Raw: json.RawMessage(raw)}
}

// everything reads all of a source.
func everything(t testing.TB, r *archive.Reader) (*neutral.Overview, []*neutral.Item, error) {
	t.Helper()
	s, err := Decode(r)
	if err != nil {
		return nil, nil, err
	}
	o, err := s.Overview(t.Context())
	if err != nil {
		return nil, nil, err
	}
	var all []*neutral.Item
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			return nil, nil, err
		}
		all = append(all, item)
	}
	for _, err := range s.Files(t.Context()) {
		if err != nil {
			return nil, nil, err
		}
	}
	return o, all, nil
}

// What GitLab leaves out, or says is null, is nothing and no failure.
func TestDecodeOfLittle(t *testing.T) {
	_, all, err := everything(t, archived(t,
		recordOf("issues", "1", "", `{"id":5,"iid":1,"author":null,"milestone":null,"labels":null,"assignees":null,"closed_by":null,"description":null,"due_date":"soon"}`),
		recordOf("pulls", "1", "", `{"id":5,"iid":1,"state":"merged","source_project_id":null,"target_project_id":7,"merge_user":null,"merged_by":null,"title":"WIP: x"}`),
		recordOf("review-comments", "3", "pulls/1", `{"id":3,"body":"on a line that is gone","position":{"old_path":"a","old_line":4,"new_line":null,"line_range":null}}`),
		recordOf("pull-timeline", "milestone:1", "pulls/1", `{"action":"remove","milestone":null,"user":null}`),
		recordOf("reviews", "1", "pulls/1", `{"approved_by":null}`),
		recordOf("links", "9", "issues/1", `{"link_type":"blocks","web_url":"https://gitlab.com/other/x/-/issues/9"}`),
	))
	if err != nil || len(all) != 2 {
		t.Fatalf("%d items, %v", len(all), err)
	}
	issue, merge := all[0], all[1]
	if issue.ID == merge.ID || issue.Closed || !issue.Due.IsZero() || issue.Links[0].To == "" {
		t.Errorf("issue %+v", issue)
	}
	if !merge.Closed || !merge.Pull.Merged || merge.Pull.HeadRepository != "" || merge.Title != "x" {
		t.Errorf("merge request %+v, %+v", merge, merge.Pull)
	}
	if code := merge.Pull.Reviews[0].Comments[0].Code; code.Side != "left" || code.Line != 4 || code.Path != "a" {
		t.Errorf("code %+v", code)
	}
	if e := merge.Events[0]; e.Kind != "demilestoned" {
		t.Errorf("event %+v", e)
	}
}

// Marks are believed that the account wrote which restores, and nobody else's.
func TestMarksOfOthersAreTheirWords(t *testing.T) {
	mark := neutral.Mark{Sort: neutral.SortIssue, Origin: neutral.Origin{Forge: "github.com", ID: "77", Author: neutral.User{Login: "octo"}}}
	body, err := json.Marshal(mark.Write("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for author, want := range map[string]string{"robot": "github.com", "mallory": "gitlab.com"} {
		_, all, err := everything(t, archived(t, recordOf("issues", "1", "", `{"id":5,"iid":1,"author":{"username":"`+author+`"},"description":`+string(body)+`}`)))
		if err != nil || all[0].Forge != want || (all[0].Body == "hello") != (author == "robot") {
			t.Errorf("by %s: %+v, %v", author, all[0], err)
		}
	}
}

func TestQuietTextsComeBack(t *testing.T) {
	for _, text := range []string{"/close", "a\n/assign @x\n\n  /label ~y", "\u200d/close", "\u200d\u200d/a\n/b", "and/or", "https://x/y", "```\n/close\n```", "/", "//"} {
		quieted := quiet(text)
		if back := loud(quieted); back != text {
			t.Errorf("%q comes back as %q", text, back)
		}
		for line := range strings.Lines(quieted) {
			if strings.HasPrefix(line, "/close") || strings.HasPrefix(line, "/assign") {
				t.Errorf("%q holds a command", quieted)
			}
		}
	}
}

func FuzzDecodeMetadata(f *testing.F) {
	for _, seed := range []struct{ collection, raw string }{
		{"issues", `{"id":1,"iid":1,"title":"t","state":"closed","author":{"id":1,"username":"robot"},"labels":["a"],"milestone":{"title":"m"}}`},
		{"pulls", `{"id":1,"iid":1,"title":"Draft: ","state":"merged","source_project_id":1,"target_project_id":1,"reviewers":[{"id":2}]}`},
		{"comments", `{"discussion_id":"x","id":1,"body":"b","system":true,"position":{"new_line":1,"line_range":{"start":{"new_line":1}}}}`},
		{"reviews", `{"approved_by":[{"user":{"id":1},"approved_at":"2026-01-02T03:04:05Z"}]}`},
		{"timeline", `{"action":"add","label":{"name":"x"}}`},
		{"links", `{"link_type":"is_blocked_by","references":{"full":"a/b#1"}}`},
		{"releases", `{"tag_name":"v1","assets":{"links":[{"url":"u","name":"n"}]},"_links":{"self":"s"}}`},
		{"rules", `{"name":"main","push_access_levels":[{"access_level":40}]}`},
		{"hooks", `{"url":"https://a:b@c/?d","push_events":true}`},
		{"settings", `{"visibility":"public","topics":["x"],"merge_method":"ff","squash_option":"always"}`},
		{"files", `{"url":"u","size":-1}`},
		{"collaborators", `{"username":"x","access_level":40}`},
		{"keys", `{"can_push":true}`},
		{"hooks", `null`},
		{"settings", `[]`},
		{"labels", `{"name":"a::b","color":"red"}`},
		{"milestones", `{"due_date":"2026-99-99"}`},
	} {
		f.Add(seed.collection, []byte(seed.raw))
	}
	p := newProvider(f, "")
	f.Fuzz(func(t *testing.T, collection string, raw []byte) {
		if collection == "" || !json.Valid(raw) {
			return
		}
		r := recordOf(collection, "1", "", string(raw))
		p.FileURLs(r)
		child := recordOf(collection, "2", "pulls/1", string(raw))
		_, all, err := everything(t, archived(t, r, child,
			recordOf("pulls", "9", "", `{"id":9,"iid":9}`), recordOf("review-comments", "7", "pulls/9", `{"id":7}`)))
		if err == nil && len(all) == 0 {
			t.Error("an item is lost")
		}
		l := listing{name: "comments", id: byID}
		if _, err := l.thread(raw, func(archive.Record) bool { return true }); err != nil && err.Error() == "" {
			t.Error("no reason")
		}
		if clean, err := cleanHook(raw); err == nil && strings.Contains(string(clean), "a:b@") && collection == "hooks" {
			t.Errorf("cleaned it is %s", clean)
		}
	})
}
