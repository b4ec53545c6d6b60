package github_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// metadataQueries captures one of each, and collects what GraphQL was asked. Lists longer than their first page are among it.
func metadataQueries(t *testing.T) []string {
	t.Helper()
	api := &githubtest.API{World: forgetest.NewWorld(forgetest.NewClock().Now), Metadata: map[int64]*githubtest.Metadata{}}
	made := api.World.Add(forgetest.Repo{Owner: "tester", Name: "api"})
	m := everything()
	long := m.Items[1]
	for i := range 150 {
		long.Timeline = append(long.Timeline, githubtest.Event{Type: "ReopenedEvent", Actor: "ada", Created: later(i)})
		m.Labels = append(m.Labels, githubtest.Label{Name: fmt.Sprint("label ", i), Color: "000000"})
		reply := githubtest.DiscussionComment{ID: int64(10_000 + i), Body: "me too", Created: later(i), Updated: later(i)}
		m.Discussions[0].Comments[0].Replies = append(m.Discussions[0].Comments[0].Replies, reply)
	}
	for i := range 150 {
		m.Projects[0].Items = append(m.Projects[0].Items, githubtest.ProjectItem{ID: int64(1000 + i), Title: fmt.Sprint("draft ", i), Created: later(i), Updated: later(i)})
	}
	api.Metadata[made.ID] = m
	queries := map[string]bool{}
	transport := roundTrip(func(r *http.Request) *http.Response {
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			var asked struct{ Query string }
			if err != nil || json.Unmarshal(body, &asked) != nil {
				t.Error("a query that is none")
			}
			queries[asked.Query] = true
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		return w.Result()
	})
	p, err := github.New(github.Options{Token: forgetest.Token, Client: forge.ClientOptions{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Find(t.Context(), forge.Repository{Owner: "tester", Name: "api"})
	if err != nil {
		t.Fatal(err)
	}
	records, failed := capture(t.Context(), p, r, time.Time{})
	wantAll(t, failed)
	if n := count(records); n["timeline"] != 154 || n["labels"] != 151 || n["discussion-comments"] != 152 || n["project-items"] != 154 {
		t.Errorf("of long lists there came %v", n)
	}
	_, failed = capture(t.Context(), p, r, later(1))
	wantAll(t, failed)
	if _, err := p.Totals(t.Context(), r); err != nil {
		t.Error(err)
	}
	if marks, err := p.MetadataMarks(t.Context(), []forge.Repository{r}); err != nil || marks[r.ID] == "" {
		t.Errorf("marks %v, %v", marks, err)
	}
	return slices.Sorted(maps.Keys(queries))
}

func TestMetadataQueriesFitTheSchema(t *testing.T) {
	types := graphSchema(t)
	queries := metadataQueries(t)
	if len(queries) < 10 {
		t.Errorf("only %d queries were asked", len(queries))
	}
	enums := map[string]bool{}
	for _, name := range []string{"IssueTimelineItemsItemType", "PullRequestTimelineItemsItemType"} {
		for _, value := range types[name].EnumValues {
			enums[value.Name] = true
		}
	}
	for _, query := range queries {
		if err := checkWhole(types, query); err != nil {
			t.Errorf("%v in %s", err, query)
		}
		for good, bad := range map[string]string{"createdAt": "created", "... on User": "... on Label", "(first: 100": "(limit: 100", "login": "name_of"} {
			if strings.Contains(query, good) && checkWhole(types, strings.Replace(query, good, bad, 1)) == nil {
				t.Errorf("%s for %s is not noticed in %s", bad, good, query)
			}
		}
		_, list, found := strings.Cut(query, "itemTypes: [")
		list, _, _ = strings.Cut(list, "]")
		for kind := range strings.SplitSeq(list, ", ") {
			if found && !enums[kind] {
				t.Errorf("timelines have no %s", kind)
			}
		}
	}
}
