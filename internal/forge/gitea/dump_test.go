package gitea_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/neutral"
)

const (
	headOID = "1111111111111111111111111111111111111111"
	mainOID = "2222222222222222222222222222222222222222"
)

// bare makes what is looked at of a bare repository.
func bare(t *testing.T, refs string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	put(t, filepath.Join(dir, gitea.DumpGit, "HEAD"), "ref: refs/heads/main\n")
	put(t, filepath.Join(dir, gitea.DumpGit, "packed-refs"), "# pack-refs with: peeled fully-peeled sorted\n"+refs)
	return dir
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestADumpHasWhatRestoreRepoReads(t *testing.T) {
	dir := bare(t, mainOID+" refs/heads/bob\n"+mainOID+" refs/heads/main\n"+headOID+" refs/pull/8/head\n"+headOID+" refs/pull/9/head\n")
	source := decodeAll(t,
		raw("settings/repository", `{"description":"true","default_branch":"main","private":true}`), raw("labels/1", `{"name":"bug","color":"ff0000"}`),
		raw("issues/7", `{"id":1,"number":7,"title":"Odd \u007f\ufeff \ufffe \ud83d\ude00 <b>","body":"- a\n\n  b: |\n","user":{"id":5,"login":"alice"},"labels":[{"name":"bug"}],
			"created_at":"2026-01-01T00:00:00Z","state":"closed","closed_at":"2026-01-02T00:00:00Z"}`),
		raw("comments/1 in issues/7", `{"id":1,"body":"second","created_at":"2026-01-03T00:00:00Z","user":{"login":"bob"}}`),
		raw("timeline/2 in issues/7", `{"id":2,"type":"close","created_at":"2026-01-02T00:00:00Z","user":{"login":"carol"}}`),
		raw("timeline/3 in issues/7", `{"id":3,"type":"label","label":{"name":"bug"},"created_at":"2026-01-02T00:00:00Z"}`),
		raw("issues/8", `{"id":2,"number":8,"title":"From a fork","pull_request":{},"state":"open"}`),
		raw("pulls/8 in issues/8", `{"number":8,"base":{"ref":"main","sha":"`+mainOID+`"},"head":{"ref":"fix","sha":"`+headOID+`","repo":{"full_name":"eve/api"}}}`),
		raw("issues/9", `{"id":3,"number":9,"title":"From one with an odd name","pull_request":{},"state":"open"}`),
		raw("pulls/9 in issues/9", `{"number":9,"base":{"ref":"main"},"head":{"ref":"../../config","sha":"`+headOID+`","repo":{"full_name":"bob/api"}}}`),
		raw("reviews/1 in pulls/8", `{"id":1,"state":"APPROVED","dismissed":true,"body":"Good","user":{"id":6,"login":"bob"}}`),
		raw("reviews/2 in pulls/8", `{"id":2,"state":"PENDING","body":"unsent","user":{"id":6,"login":"bob"}}`),
		raw("review-comments/1 in pulls/8", `{"id":1,"pull_request_review_id":1,"body":"Why?","path":"a.go","original_position":3,"user":{"id":6,"login":"bob"}}`),
		raw("review-comments/2 in pulls/8", `{"id":2,"pull_request_review_id":1,"body":"So.","path":"a.go","original_position":3,"user":{"id":5,"login":"alice"}}`),
	)
	report, err := gitea.WriteDump(t.Context(), gitea.Dump{
		Dir: dir, Source: source, Repository: "acme/api", Forge: "gitea", Host: "git.example.com", Site: "https://new.example.com/",
	})
	if err != nil || report.Issues != 1 || report.Pulls != 2 || report.Comments != 1 || report.Reviews != 1 || !report.Private {
		t.Fatalf("%+v, %v", report, err)
	}
	for name, want := range map[string][]string{
		"repo.yml":       {`"description":"true"`, `"default_branch":"main"`, `"original_url":"https://new.example.com/acme/api"`, `"service_type":"3"`},
		"label.yml":      {`- {"name":"bug","color":"ff0000"`},
		"issue.yml":      {`- {"poster_id":5,"poster_name":"alice"`, `"number":7`, `Odd \U0000007f\U0000feff \U0000fffe 😀 <b>`, `"closed":"2026-01-02T00:00:00Z"`, `"name":"bug"`},
		"comments/7.yml": {`"comment_type":"close"`, `"comment_type":"comment"`, `"content":"second"`},
		"pull_request.yml": {
			`"foreignindex":8`, `"head":{"ref":"eve/fix","sha":"` + headOID + `","repo_name":"api","owner_name":"acme"}`,
			`"foreignindex":9`, `"head":{"ref":"head-pr-9"`, `"patch_url":"empty.patch"`,
		},
		"reviews/8.yml": {`"reviewer_name":"bob"`, `"state":"COMMENTED"`, `"line":-3`, `"reviewer_name":"alice"`},
		"empty.patch":   {""},
	} {
		got := text(t, dir, name)
		for _, piece := range want {
			if !strings.Contains(got, piece) {
				t.Errorf("%s is not in %s:\n%s", piece, name, got)
			}
		}
		for line := range strings.Lines(got) {
			line = regexp.MustCompile(`\\U[0-9a-f]{8}`).ReplaceAllString(strings.TrimPrefix(line, "- "), "")
			if !json.Valid([]byte(line)) {
				t.Errorf("a line of %s is no JSON: %s", name, line)
			}
		}
		if strings.Contains(got, "unsent") {
			t.Errorf("%s has a review that was never sent", name)
		}
	}
	if strings.Index(text(t, dir, "comments/7.yml"), "close") > strings.Index(text(t, dir, "comments/7.yml"), "second") {
		t.Error("what happened first comes last")
	}
	for ref, want := range map[string]string{"eve/fix": headOID, "head-pr-9": headOID} {
		if got := text(t, dir, gitea.DumpGit, "refs", "heads", ref); got != want+"\n" {
			t.Errorf("%s is at %q", ref, got)
		}
	}
}

// Files that a point does not have are named, and nothing is written over.
func TestADumpNamesWhatIsMissing(t *testing.T) {
	dir := bare(t, "")
	source := decodeAll(t,
		raw("releases/1", `{"id":1,"tag_name":"v1","assets":[{"name":"a","browser_download_url":"https://git.example.com/acme/api/releases/download/v1/a"}]}`),
		raw("files/https://git.example.com/attachments/u1", `{"url":"https://git.example.com/attachments/u1","size":9,"reason":"too large"}`),
	)
	d := gitea.Dump{Dir: dir, Source: source, Repository: "acme/api", Host: "git.example.com"}
	report, err := gitea.WriteDump(t.Context(), d)
	if err != nil || len(report.Missing) != 2 || !strings.HasSuffix(strings.Join(report.Missing, " "), "its bytes were not captured") ||
		!strings.Contains(strings.Join(report.Missing, " "), "too large") {
		t.Errorf("%+v, %v", report, err)
	}
	if strings.Contains(text(t, dir, "release.yml"), "download_url") {
		t.Error("an asset without bytes is in the dump: restore-repo fails at it")
	}
	if _, err := gitea.WriteDump(t.Context(), d); err == nil {
		t.Error("a dump was written over another")
	}
	d.Dir = t.TempDir()
	if _, err := gitea.WriteDump(t.Context(), d); err == nil {
		t.Error("a dump was written without a git part")
	}
}

// GitLab numbers merge requests apart from issues, and here both have one row of numbers.
func TestADumpOfGitLabNumbersMergeRequestsBehindIssues(t *testing.T) {
	dir := bare(t, headOID+" refs/merge-requests/3/head\n")
	source := decodeAll(t,
		raw("issues/3", `{"number":3,"pull_request":{}}`), raw("pulls/3 in issues/3", `{"number":3,"head":{"ref":"fix","repo":{"full_name":"eve/api"}}}`),
		raw("reviews/1 in pulls/3", `{"id":1,"state":"COMMENT","body":"Hm"}`), raw("issues/7", `{"number":7}`),
	)
	if _, err := gitea.WriteDump(t.Context(), gitea.Dump{Dir: dir, Source: source, Repository: "acme/api", Forge: "gitlab", Host: "gitlab.com"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"pull_request.yml": `"number":10,`, "issue.yml": `"number":7,`, "reviews/10.yml": `"issue_index":10,`} {
		if got := text(t, dir, name); !strings.Contains(got, want) {
			t.Errorf("%s is not in %s: %s", want, name, got)
		}
	}
	if got := text(t, dir, gitea.DumpGit, "refs/heads/eve/fix"); got != headOID+"\n" {
		t.Errorf("the head from a fork is %q", got)
	}
}

func TestPlansNameEveryField(t *testing.T) {
	p, err := gitea.New(gitea.Options{URL: "https://gitea.example.com", Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, keeps := range map[string]neutral.Fidelity{"restore-repo": gitea.DumpKeeps(), "the API": p.Target().Keeps()} {
		if unnamed := forgetest.Unplanned(keeps); len(unnamed) > 0 {
			t.Errorf("%s says nothing of %q", name, unnamed)
		}
	}
}
