package gitlab_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// recordedOfGitea is what a real Gitea answered after the sample of a GitHub was restored to it: TestGitHubComesToGitea of test/e2e
// writes it, with -update.
func recordedOfGitea(t *testing.T) neutral.Source {
	t.Helper()
	text, err := os.ReadFile("testdata/gitea.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	var records []archive.Record
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Collection string          `json:"c"`
			ID         string          `json:"id"`
			Of         string          `json:"pc"`
			Parent     string          `json:"p"`
			Raw        json.RawMessage `json:"raw"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		records = append(records, archive.Record{
			Key: archive.Key{Collection: line.Collection, ID: line.ID}, Parent: archive.Key{Collection: line.Of, ID: line.Parent}, Raw: line.Raw,
		})
	}
	r, err := archive.Of(archive.Header{Dialect: "gitea", Host: "gitea.example.com", Repository: "alpha/api", Account: "acme"}, records...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gitea.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGitHubGiteaGitLab takes what people leave on a GitHub to a GitLab, by way of a Gitea: nothing that the model has is lost.
func TestGitHubGiteaGitLab(t *testing.T) {
	h, b := newHub(t), newBench(t)
	b.fake.owner50 = true
	first := h.source(t, h.repository(t, "api", githubtest.Sample()))
	there := b.empty(t)
	_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: recordedOfGitea(t), Host: "gitea.example.com", Repository: "alpha/api", Target: b.Target(), To: there,
	})
	if err != nil {
		t.Fatal(err)
	}
	last := b.source(t, there)
	before, after := forgetest.Items(t, first), forgetest.Items(t, last)
	if len(before) != len(after) {
		t.Fatalf("there were %d items, and are %d", len(before), len(after))
	}
	for number, item := range after {
		// Gitea's API says that whoever locks by it is the owner, so that this lock looks like somebody else's, and later.
		item.Events = slices.DeleteFunc(item.Events, func(e *neutral.Event) bool { return e.Actor.Login == "alpha" })
		for _, difference := range forgetest.Differences(t, before[number], item) {
			if !strings.HasPrefix(difference, "was: ") {
				t.Errorf("item %d: %s", number, difference)
			}
		}
	}
	was, err := first.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is, err := last.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What differs of the rest stands in what GitLab says of itself.
	told := map[string]string{
		"Milestones.0.Created": "milestone.created", "Milestones.0.Updated": "milestone.updated",
		"Settings.HasWiki": "settings.hasWiki", "Settings.Merges": "settings.merges",
	}
	for _, difference := range forgetest.Differences(t, was, is) {
		name, _, _ := strings.Cut(difference, ":")
		if field, known := told[name]; !known || b.Target().Keeps().Of(field).State == neutral.Kept {
			t.Errorf("the plan says nothing of %s", difference)
		}
	}
}
