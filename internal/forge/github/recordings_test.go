package github_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
)

// recorded is one answer that GitHub gave, as test/recordings.sh fetches them.
type recorded struct {
	Method   string
	Path     string
	Body     json.RawMessage
	Status   int
	Response json.RawMessage
	Headers  map[string]any
}

// player is a github.com that gives recorded answers, each once.
type player struct {
	t    *testing.T
	left []recorded
}

func record(t *testing.T, scenario string) *player {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(forgetest.Recordings(t, "BACKSTAY_TEST_GITHUB_RECORDINGS"), scenario, "normalized-fixture.json"))
	if err != nil {
		t.Fatal(err)
	}
	p := &player{t: t}
	if err := json.Unmarshal(content, &p.left); err != nil {
		t.Fatal(err)
	}
	return p
}

// RoundTrip gives the first answer left that was given to the method and the path, and to the page of a listing.
func (p *player) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "api.github.com" || r.Header.Get("Authorization") != "Bearer 0000000000000000000000000000000000000001" {
		p.t.Errorf("%s with other credentials, or elsewhere", r.URL)
	}
	i := slices.IndexFunc(p.left, func(a recorded) bool {
		u, err := url.Parse(a.Path)
		return err == nil && strings.EqualFold(a.Method, r.Method) && u.Path == r.URL.Path && u.Query().Get("page") == r.URL.Query().Get("page")
	})
	if i < 0 {
		return nil, fmt.Errorf("%s %s was not recorded", r.Method, r.URL)
	}
	a := p.left[i]
	p.left = slices.Delete(p.left, i, i+1)
	answer := httptest.NewRecorder()
	for name, value := range a.Headers {
		if name != "content-length" { // of the answer before it was normalised
			answer.Header().Set(name, fmt.Sprint(value))
		}
	}
	answer.WriteHeader(a.Status)
	answer.Write(a.Response) //nolint:errcheck // into memory
	return answer.Result(), nil
}

func (p *player) provider() *github.Provider {
	p.t.Helper()
	provider, err := github.New(github.Options{
		Token: "0000000000000000000000000000000000000001", Client: forge.ClientOptions{Transport: p},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return provider
}

func TestRecordedIssues(t *testing.T) {
	p := record(t, "paginate-issues")
	var numbers []int64
	for issue, err := range p.provider().Issues(t.Context(), forge.Repository{Owner: "octokit-fixture-org", Name: "paginate-issues"}) {
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, issue.Number)
	}
	slices.Sort(numbers) // they were recorded with the newest first
	if want := []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}; !slices.Equal(numbers, want) || len(p.left) > 0 {
		t.Errorf("got %v, and %d pages are left", numbers, len(p.left))
	}
}

// TestRecordedIssuesBreakOff has the recording end before its last page.
func TestRecordedIssuesBreakOff(t *testing.T) {
	p := record(t, "paginate-issues")
	p.left[4].Status, p.left[4].Response = http.StatusUnprocessableEntity, json.RawMessage(`{"message":"pagination is limited"}`)
	var err error
	for _, err = range p.provider().Issues(t.Context(), forge.Repository{Owner: "octokit-fixture-org", Name: "paginate-issues"}) {
		if err != nil {
			break
		}
	}
	wantClass(t, err, fault.ErrInvalid, "pagination is limited")
}

func TestRecordedRepository(t *testing.T) {
	p := record(t, "get-repository")
	r, err := p.provider().Find(t.Context(), forge.Repository{Owner: "octokit-fixture-org", Name: "hello-world"})
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "1000" || r.FullName() != "octokit-fixture-org/hello-world" || r.HTTPURL != "https://github.com/octokit-fixture-org/hello-world.git" ||
		r.SSHURL != "git@github.com:octokit-fixture-org/hello-world.git" || r.DefaultBranch != "master" || r.Stars != 42 || r.Private || r.Active.IsZero() ||
		r.WikiHTTPURL != "https://github.com/octokit-fixture-org/hello-world.wiki.git" {
		t.Errorf("got %+v", withoutRaw(r))
	}
	account := recorded{Method: "get", Path: "/user", Status: http.StatusOK, Response: json.RawMessage(`{"login":"octokit-fixture-user-a"}`)}
	p = &player{t, append(record(t, "get-repository").left, account)}
	made, err := p.provider().Make(t.Context(), forge.NewRepository{Owner: "octokit-fixture-org", Name: "hello-world"})
	if err != nil || made.ID != "1000" {
		t.Errorf("a mirror that finds its repository there gets %+v, %v", withoutRaw(made), err)
	}
}

// TestRecordedRename follows the redirect from a name of old to the repository's number.
func TestRecordedRename(t *testing.T) {
	p := record(t, "rename-repository")
	old := forge.Repository{Owner: "octokit-fixture-org", Name: "rename-repository"}
	r, err := p.provider().Find(t.Context(), old)
	if err != nil || r.ID != "1000" || r.Name != "rename-repository-newname" {
		t.Errorf("got %+v, %v", withoutRaw(r), err)
	}
	p = record(t, "rename-repository")
	old.ID = "1000"
	if r, err = p.provider().Find(t.Context(), old); err != nil || r.Name != "rename-repository-newname" {
		t.Errorf("by its ID: %+v, %v", withoutRaw(r), err)
	}
}

// TestRecordedRefusal reads what a 422 says.
func TestRecordedRefusal(t *testing.T) {
	refusal := record(t, "errors").left[0]
	account := recorded{Method: "get", Path: "/user", Status: http.StatusOK, Response: json.RawMessage(`{"login":"octokit-fixture-user-a","type":"User"}`)}
	gone := recorded{Method: "get", Path: "/repos/octokit-fixture-org/copy", Status: http.StatusNotFound, Response: json.RawMessage(`{"message":"Not Found"}`)}
	refusal.Path = "/orgs/octokit-fixture-org/repos"
	p := &player{t, []recorded{account, gone, refusal, gone}}
	_, err := p.provider().Make(t.Context(), forge.NewRepository{Owner: "octokit-fixture-org", Name: "copy"})
	wantClass(t, err, fault.ErrInvalid, "Validation Failed; color invalid")
	if len(p.left) > 0 {
		t.Errorf("%d answers are left", len(p.left))
	}
}

// TestRecordingsFitTheDescription holds the two sources against each other: both are GitHub's.
func TestRecordingsFitTheDescription(t *testing.T) {
	d := openAPI(t)
	checked := 0
	for _, scenario := range []string{"get-repository", "paginate-issues", "rename-repository"} {
		for _, a := range record(t, scenario).left {
			r := httptest.NewRequestWithContext(t.Context(), strings.ToUpper(a.Method), a.Path, nil)
			answer := httptest.NewRecorder()
			answer.WriteHeader(a.Status)
			answer.Write(a.Response) //nolint:errcheck // into memory
			err := d.exchange(r, nil, answer)
			if err != nil && !strings.HasSuffix(err.Error(), "has_discussions is missing") { // GitHub had none yet
				t.Errorf("%s: %v", scenario, err)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d answers were recorded", checked)
	}
}
