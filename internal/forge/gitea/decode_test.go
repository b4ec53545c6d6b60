package gitea_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// raw makes a record: "comments/7 in issues/2" and an object.
func raw(key, object string) archive.Record {
	own, parent, _ := strings.Cut(key, " in ")
	keyOf := func(s string) (k archive.Key) {
		k.Collection, k.ID, _ = strings.Cut(s, "/")
		return k
	}
	return archive.Record{Key: keyOf(own), Parent: keyOf(parent), Raw: json.RawMessage(object)}
}

func decodeAll(t *testing.T, records ...archive.Record) neutral.Source {
	t.Helper()
	r, err := archive.Of(archive.Header{Dialect: "gitea", Host: "git.example.com", Repository: "acme/api", Account: "robot"}, records...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gitea.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// first is the first item, as JSON.
func first(t *testing.T, s neutral.Source) (*neutral.Item, string) {
	t.Helper()
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		return item, string(text)
	}
	t.Fatal("there is no item")
	return nil, ""
}

func TestDecodeItems(t *testing.T) {
	const issue = `"id":101,"number":7,"created_at":"2026-01-01T00:00:00Z"`
	for name, test := range map[string]struct {
		records []archive.Record
		want    []string // pieces of the item
	}{
		"an issue": {[]archive.Record{raw("issues/7", `{`+issue+`,"title":"It <b>breaks</b>","body":"Hm","state":"closed","closed_at":"2026-01-02T00:00:00Z",
			"user":{"id":5,"login":"alice","full_name":"Alice A."},"labels":[{"name":"bug"}],"milestone":{"title":"v1"},"assignees":[{"login":"bob"}],
			"due_date":"2026-03-01T00:00:00Z","is_locked":true,"pin_order":2,"html_url":"https://git.example.com/acme/api/issues/7"}`)}, []string{
			`"id":"101"`, `"login":"alice"`, `"name":"Alice A."`, `"Closed":true`, `"ClosedAt":"2026-01-02T00:00:00Z"`, `"Labels":["bug"]`, `"Milestone":"v1"`,
			`"Assignees":[{"login":"bob"}]`, `"Due":"2026-03-01T00:00:00Z"`, `"Locked":true`, `"Pinned":true`, `"forge":"git.example.com"`, `"Pull":null`,
		}},
		"nobody wrote it": {
			[]archive.Record{raw("issues/7", `{`+issue+`,"user":null,"milestone":null,"labels":null,"assignees":null,"closed_at":null}`)},
			[]string{`"author":{"login":""}`, `"Closed":false`},
		},
		"a ghost, by Gitea's word": {[]archive.Record{raw("issues/7", `{`+issue+`,"user":{"id":-1,"login":"Ghost"}}`)}, []string{`"author":{"login":"Ghost"}`}},
		"migrated from elsewhere": {
			[]archive.Record{raw("issues/7", `{`+issue+`,"user":{"id":1,"login":"admin"},"original_author":"octocat"}`)},
			[]string{`"author":{"login":"octocat"}`},
		},
		"times that are none": {
			[]archive.Record{raw("issues/7", `{`+issue+`,"closed_at":"soon","due_date":"9999-01-01T00:00:00Z"}`)},
			[]string{`"ClosedAt":"0001-01-01T00:00:00Z"`, `"Due":"0001-01-01T00:00:00Z"`},
		},
		"files that hang on it": {[]archive.Record{
			raw("issues/7", `{`+issue+`,"body":"![x](/attachments/u1)","assets":[{"name":"x.png","browser_download_url":"https://git.example.com/attachments/u1"},
				{"name":"a [b].txt","browser_download_url":"https://git.example.com/attachments/u2"}]}`),
			raw("comments/9 in issues/7", `{"id":9,"body":"","assets":[{"name":"log","browser_download_url":"https://git.example.com/attachments/u3"}]}`),
		}, []string{`"Body":"![x](/attachments/u1)\n\n[a \\[b\\].txt](https://git.example.com/attachments/u2)"`, `"Body":"[log](https://git.example.com/attachments/u3)"`}},
		"what was said and done": {[]archive.Record{
			raw("issues/7", `{`+issue+`}`),
			raw("comments/9 in issues/7", `{"id":9,"body":"Yes","user":{"id":6,"login":"bob"},"created_at":"2026-01-03T00:00:00Z"}`),
			raw("reactions/7:+1:bob in issues/7", `{"content":"+1","user":{"login":"bob"}}`),
			raw("comment-reactions/9:heart:alice in comments/9", `{"content":"heart","user":{"login":"alice"}}`),
			raw("timeline/11 in issues/7", `{"id":11,"type":"close","user":{"login":"carol"}}`),
			raw("timeline/12 in issues/7", `{"id":12,"type":"label","body":"","label":{"name":"bug"}}`),
			raw("timeline/13 in issues/7", `{"id":13,"type":"change_title","old_title":"a","new_title":"b"}`),
			raw("timeline/14 in issues/7", `{"id":14,"type":"issue_ref","ref_issue":{"number":3,"repository":{"full_name":"acme/web"}}}`),
			raw("dependencies/7:acme/web#4 in issues/7", `{"number":4,"repository":{"full_name":"acme/web"}}`),
			raw("dependencies/7:#0 in issues/7", `{"title":"HIDDEN"}`),
		}, []string{
			`"Body":"Yes"`, `"Content":"+1"`, `"Content":"heart"`, `"ClosedBy":{"login":"carol"}`, `"Kind":"unlabeled"`, `"Text":"unlabeled bug"`,
			`"Text":"renamed from \"a\" to \"b\""`, `"Text":"cross-referenced acme/web#3"`, `"Links":[{"Kind":"blocked_by","To":"acme/web#4"}]`,
		}},
		"a pull request from a fork that is gone": {[]archive.Record{
			raw("issues/7", `{`+issue+`,"pull_request":{"merged":true,"merged_at":"2026-02-01T00:00:00Z"}}`),
			raw("pulls/7 in issues/7", `{"number":7,"merged":true,"merge_commit_sha":"cc","merged_by":{"login":"dora"},"merge_base":"aa",
				"base":{"ref":"main","sha":"bb"},"head":{"ref":"fix","sha":"dd","repo":null},"requested_reviewers":null}`),
		}, []string{`"Merged":true`, `"BaseOID":"aa"`, `"HeadOID":"dd"`, `"HeadRepository":""`, `"MergedBy":{"login":"dora"}`, `"MergeOID":"cc"`}},
		"a pull request of which only the issue was read": {
			[]archive.Record{raw("issues/7", `{`+issue+`,"pull_request":{"merged":false,"draft":true}}`)},
			[]string{`"Draft":true`, `"Base":""`},
		},
		"reviews": {[]archive.Record{
			raw("issues/7", `{`+issue+`,"pull_request":{}}`), raw("pulls/7 in issues/7", `{"number":7}`),
			raw("reviews/1 in pulls/7", `{"id":1,"state":"REQUEST_CHANGES","dismissed":true,"body":"No","user":{"login":"bob"},"submitted_at":"2026-01-05T00:00:00Z","commit_id":"ee"}`),
			raw("reviews/2 in pulls/7", `{"id":2,"state":"REQUEST_REVIEW","user":{"login":"eve"}}`),
			raw("review-comments/5 in pulls/7", `{"id":5,"pull_request_review_id":1,"body":"Why?","path":"a.go","position":0,"original_position":3,"resolver":{"login":"alice"}}`),
			raw("review-comments/6 in pulls/7", `{"id":6,"pull_request_review_id":1,"body":"So.","path":"a.go","position":0,"original_position":3}`),
		}, []string{
			`"State":"dismissed"`, `"created":"2026-01-05T00:00:00Z"`, `"OID":"ee"`, `"Side":"left","Line":3`, `"Resolved":true`, `"Replies":[{`, `"Body":"So."`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := first(t, decodeAll(t, test.records...))
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s is not in %s", want, got)
				}
			}
			if strings.Contains(got, "eve") || strings.Contains(got, "HIDDEN") {
				t.Errorf("a request for a review, or what nobody may see, is in %s", got)
			}
		})
	}
}

func TestDecodeOverview(t *testing.T) {
	o, err := decodeAll(t,
		raw("settings/repository", `{"description":"Does things","website":"https://x","default_branch":"main","internal":true,"allow_squash_merge":true,"allow_rebase":true,"has_wiki":false}`),
		raw("topics/repository", `{"topics":["git"]}`),
		raw("labels/1", `{"name":"bug","color":"#00AAFF","exclusive":true}`),
		raw("issues/3", `{"number":3,"labels":[{"name":"bug"},{"name":"of the organisation","color":"ffffff"}]}`),
		raw("milestones/4", `{"id":4,"title":"v1","state":"closed","due_on":"2026-03-01T00:00:00Z"}`),
		raw("releases/5", `{"id":5,"tag_name":"v1","author":{"login":"alice"},"draft":true,"created_at":"2026-02-01T00:00:00Z",
			"assets":[{"name":"a","size":3,"browser_download_url":"https://g/a"},{"name":"b","browser_download_url":"https://g/b"}]}`),
		raw("files/https://g/a", `{"url":"https://g/a","size":3,"sha256":"`+strings.Repeat("a", 64)+`"}`),
		raw("rules/branch:main", `{"rule_name":"main","required_approvals":2,"enable_status_check":true,"status_check_contexts":["ci"],"enable_push":true,
			"enable_push_whitelist":true,"push_whitelist_usernames":["alice"],"push_whitelist_teams":["ops"]}`),
		raw("rules/tag:1", `{"id":1,"name_pattern":"v*","whitelist_teams":["ops"]}`),
		raw("hooks/1", `{"config":{"url":"https://ci","content_type":"json"},"events":["push"],"active":true}`),
		raw("keys/1", `{"title":"deploy","key":"ssh-ed25519 AAAA","read_only":true}`),
		raw("collaborators/1", `{"permission":"write","user":{"login":"bob"}}`), raw("collaborators/2", `{"login":"eve"}`),
		raw("teams/1", `{"name":"ops","permission":"owner"}`),
	).Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"Description":"Does things"`, `"Private":true`, `"HasWiki":false`, `"HasIssues":true`, `"Merges":["rebase","squash"]`, `"Topics":["git"]`,
		`{"Name":"bug","Color":"00aaff","Description":"","Exclusive":true}`, `"Name":"of the organisation"`, `"Closed":true,"Due":"2026-03-01T00:00:00Z"`,
		`"Tag":"v1"`, `"author":{"login":"alice"}`, `"SHA256":"aaaa`, `"Reason":"its bytes were not captured"`, `"Approvals":2,"Checks":["ci"],"PushBy":["alice","ops"]`,
		`"Pattern":"v*","Tags":true`, `"PushBy":["ops"]`, `"URL":"https://ci"`, `"ReadOnly":true`, `"login":"bob","Permission":"write"`,
		`"login":"eve","Permission":"read"`, `"login":"acme/ops","id":"1","Permission":"admin"`, `"Items":1`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

// Marks are believed only where the account that reads had written them.
func TestMarksAreBelievedOfTheAccountOnly(t *testing.T) {
	mark := neutral.Mark{Sort: neutral.SortIssue, Origin: neutral.Origin{Forge: "github.com", ID: "99", Author: neutral.User{Login: "octocat"}}}
	body, err := json.Marshal(mark.Write("It breaks"))
	if err != nil {
		t.Fatal(err)
	}
	for author, want := range map[string]string{"robot": "octocat", "eve": "eve"} {
		item, _ := first(t, decodeAll(t, raw("issues/7", `{"id":1,"number":7,"user":{"login":"`+author+`"},"body":`+string(body)+`}`)))
		if item.Author.Login != want || (item.Body == "It breaks") != (author == "robot") {
			t.Errorf("what %s wrote is by %s: %q", author, item.Author.Login, item.Body)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"number":7,"pull_request":{},"user":null,"assets":[{"browser_download_url":""}]}`, `{"number":-1}`, `{"number":7,"labels":{}}`, `[]`, `null`,
		`{"number":9223372036854775807,"milestone":{"due_on":7}}`, `{"type":"label","label":null,"assignee":{}}`, `{"config":{"url":"://"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		var records []archive.Record
		for _, key := range []string{
			"settings/repository", "labels/1", "milestones/1", "releases/1", "rules/tag:1", "hooks/1", "keys/1", "collaborators/1", "teams/1", "issues/7", "pulls/7 in issues/7",
			"comments/1 in issues/7", "timeline/1 in issues/7", "reactions/1 in issues/7", "reviews/1 in pulls/7", "review-comments/1 in pulls/7", "files/x",
		} {
			records = append(records, raw(key, string(object)))
		}
		r, err := archive.Of(archive.Header{Dialect: "gitea", Repository: "acme/api"}, records...)
		if err != nil {
			return
		}
		s, err := gitea.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Overview(t.Context()) // only that they end is asked
		for item, err := range s.Items(t.Context()) {
			if err == nil && item.Number <= 0 {
				t.Errorf("an item has the number %d", item.Number)
			}
		}
		for file, err := range s.Files(t.Context()) {
			if err == nil && file == nil {
				t.Error("a file is nil")
			}
		}
	})
}
