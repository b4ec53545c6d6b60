//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
)

// keptPart is a part as `show --json` has it.
type keptPart struct {
	Name      string   `json:"name"`
	State     string   `json:"state"`
	Unchanged bool     `json:"unchanged"`
	Notes     []string `json:"notes"`
	Counts    []struct {
		Of              string   `json:"of"`
		Expected        int      `json:"expected"`
		Stored          int      `json:"stored"`
		Excluded        int      `json:"excluded"`
		MissingAtSource []string `json:"missingAtSource"`
	} `json:"counts"`
}

// metadataPart is the newest point's metadata of a repository.
func (b *backstay) metadataPart(t *testing.T, repository string) keptPart {
	t.Helper()
	var shown struct {
		Point struct {
			State string     `json:"state"`
			Parts []keptPart `json:"parts"`
		} `json:"point"`
	}
	decode(t, b.ok(t, "show", "latest", "--json"), &shown)
	for _, p := range shown.Point.Parts {
		if strings.HasSuffix(p.Name, "/"+repository+"/metadata") {
			if p.State != "stored" || shown.Point.State != "complete" {
				t.Errorf("the point is %s, the metadata of %s %s: %+v", shown.Point.State, repository, p.State, p)
			}
			return p
		}
	}
	t.Fatalf("no metadata of %s in %+v", repository, shown)
	return keptPart{}
}

func (p keptPart) count(t *testing.T, of string) (stored int) {
	t.Helper()
	for _, c := range p.Counts {
		if c.Of == of {
			return c.Stored
		}
	}
	t.Errorf("no %s were counted: %+v", of, p.Counts)
	return 0
}

// TestMetadataOfARealServer backs up what a Gitea knows beside the code, and looks at what people did between two points.
func TestMetadataOfARealServer(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a server inside was asked for %s", r.URL)
	}))
	defer inside.Close()
	g := startGitea(t)
	g.people(t)
	g.populate(t, "alpha/api")
	const at = "/repos/alpha/api"
	g.as(t, "bob", http.MethodPost, at+"/issues/10/comments", map[string]any{
		"body": "![x](" + inside.URL + "/attachments/0f8fad5b-d9cb-469f-a165-70867728950e) " + inside.URL + "/x.png " +
			g.url + "/attachments/0f8fad5b-d9cb-469f-a165-70867728950f",
	}, nil)
	b := newBackstay(t, "GITEA_TOKEN="+g.token)
	policy := filepath.Join(b.home, "policies", "all.yaml")
	write(t, b.home, "policies/all.yaml", fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec: {url: %s, password: {env: BACKSTAY_PASSWORD}}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: all}
spec:
  location: main
  sources:
    - gitea: {url: %s, token: {env: GITEA_TOKEN}, caFile: %s, organization: alpha, metadata: true, maxFile: 1MB}
`, b.vault, g.url, g.ca))
	run := func() { b.ok(t, "run", "--once", "-f", policy) }

	run()
	first := b.metadataPart(t, "alpha/api")
	if n := first.count(t, "issues"); n != 59 {
		t.Errorf("%d issues and pull requests were stored, want 59", n)
	}
	for _, c := range first.Counts {
		missing := 0
		if c.Of == "files" {
			missing = 1 // which never was there
		}
		if c.Stored+missing != c.Expected || len(c.MissingAtSource) != missing || c.Excluded > 0 {
			t.Errorf("counted %+v", c)
		}
	}
	const same = "no difference\n"
	again, said := first, ""
	for range 10 { // until the forge has counted what the first run downloaded, and the languages
		run()
		again, said = b.metadataPart(t, "alpha/api"), b.ok(t, "diff", b.points(t)[1], b.points(t)[0])
		if again.Unchanged && said == same {
			break
		}
	}
	if !again.Unchanged || said != same {
		t.Errorf("nothing was done, and the metadata is another: %+v; %s", again, said)
	}

	var comments, releases []struct {
		ID     int64 `json:"id"`
		Assets []struct {
			ID int64 `json:"id"`
		} `json:"assets"`
	}
	g.call(t, http.MethodGet, at+"/issues/2/comments", nil, &comments)
	g.call(t, http.MethodGet, at+"/releases?draft=false", nil, &releases)
	g.call(t, http.MethodPatch, fmt.Sprintf("%s/issues/comments/%d", at, comments[0].ID), map[string]any{"body": "edited"}, nil)
	g.call(t, http.MethodDelete, at+"/issues/55", nil, nil)
	g.call(t, http.MethodPost, at+"/issues", map[string]any{"title": "A new one"}, nil)
	asset := fmt.Sprintf("%s/releases/%d/assets", at, releases[0].ID)
	g.call(t, http.MethodDelete, fmt.Sprintf("%s/%d", asset, releases[0].Assets[0].ID), nil, nil)
	g.upload(t, asset, "tool #1.tar", strings.Repeat("BINARY", 1000)) // as long as before
	run()
	b.metadataPart(t, "alpha/api")
	points := b.points(t)
	said = b.ok(t, "diff", points[1], points[0])
	for _, want := range []string{
		fmt.Sprintf(`metadata comments/%d  body: "Yes`, comments[0].ID), `body: "edited"`, "metadata issues/55  \"Issue 55", "metadata issues/60  \"A new one",
		fmt.Sprintf("metadata releases/%d  ", releases[0].ID), "metadata files/" + g.url + "/alpha/api/releases/download/v1.0/tool",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("diff does not tell of %s:\n%s", want, said)
		}
	}
	for i, want := range []string{strings.Repeat("BINARY", 1000), strings.Repeat("binary", 1000)} {
		dir := filepath.Join(t.TempDir(), "restored")
		b.ok(t, "restore", points[i], "--part", "alpha/api/metadata", "--to", dir)
		if got := restoredAsset(t, dir); got != want {
			t.Errorf("the asset of point %d is %.20q…, want %.20q…", i, got, want)
		}
	}
}

// restoredAsset is the release's asset in a directory of plain files, found as somebody without Backstay would.
func restoredAsset(t *testing.T, dir string) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, archive.SegmentDir, "*.ndjson"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	slices.Sort(segments)
	sum := ""
	for _, segment := range segments {
		text, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var record struct {
				Collection string       `json:"c"`
				Raw        archive.File `json:"raw"`
			}
			if json.Unmarshal(line, &record) == nil && record.Collection == archive.FilesCollection && record.Raw.Name == "tool #1.tar" {
				sum = record.Raw.SHA256
			}
		}
	}
	if sum == "" {
		t.Fatal("no record of the asset")
	}
	content, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(archive.FilePath(sum))))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
