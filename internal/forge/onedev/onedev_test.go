package onedev_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/onedev"
)

func TestConforms(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return &server{world: w} },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return onedev.New(onedev.Options{URL: o.Base, Token: forgetest.Token, Client: o})
		},
		Selection: func(owner string) forge.Selection { return forge.Selection{Organization: owner} },
		Owners:    []string{"acme", "acme/team", "umbrella"},
		Listing:   func(r *http.Request) bool { return r.URL.Path == "/~api/projects" },
		ETags:     true, // the server sends none, but proxies before it do
		Unmarked:  true,
		Tells:     "fork description",
	})
}

// server is OneDev's API, and understands as much of its query language as the provider speaks.
type server struct {
	world *forgetest.World

	mu   sync.Mutex
	made []string // bodies of projects that were made
}

var pathQuery = regexp.MustCompile(`^"(Path|Project)" is "([^"]*)"( order by "(Name|Submit Date)")?$`)

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+forgetest.Token {
		answer(w, http.StatusUnauthorized, "not authorized")
		return
	}
	at := strings.TrimPrefix(r.URL.Path, "/~api/")
	segments := strings.Split(at, "/")
	switch {
	case at == "users/me":
		answer(w, http.StatusOK, map[string]any{"id": 1, "name": "tester"})
	case at == "projects" && r.Method == http.MethodPost:
		s.create(w, r)
	case at == "projects":
		s.page(w, r, s.projects(r.FormValue("query")))
	case at == "issues":
		s.page(w, r, s.issues(r.FormValue("query")))
	case segments[0] == "issues" && len(segments) == 3:
		answer(w, http.StatusOK, []any{map[string]any{"id": 1, "content": "me too, in " + segments[1]}})
	case segments[0] == "projects" && len(segments) >= 2:
		id, _ := strconv.ParseInt(segments[1], 10, 64)
		repo, found := s.world.ByID(id)
		switch {
		case !found:
			answer(w, http.StatusNotFound, "no such project")
		case len(segments) == 3:
			answer(w, http.StatusOK, map[string]string{"http": "https://elsewhere/" + repo.FullName(), "ssh": "ssh://ssh.example.com:6611/" + repo.FullName()})
		default:
			answer(w, http.StatusOK, document(repo))
		}
	default:
		answer(w, http.StatusNotFound, "no such resource")
	}
}

func document(r forgetest.Repo) map[string]any {
	d := map[string]any{
		"id": r.ID, "parentId": 7, "name": r.Name, "path": strings.TrimPrefix(r.FullName(), "/"), "description": r.Description,
		"createDate": r.Created, "codeManagement": true,
	}
	if r.Fork {
		d["forkedFromId"] = 8
	}
	return d
}

func (s *server) projects(query string) []any {
	var all []any
	m := pathQuery.FindStringSubmatch(query)
	for _, owner := range s.world.Owners() { // projects that hold no code
		if m != nil && matches(m[2], owner) {
			all = append(all, map[string]any{"id": s.world.OwnerID(owner) + 1_000_000, "name": owner, "path": owner, "codeManagement": false})
		}
	}
	for _, r := range s.world.All() {
		if m == nil || matches(m[2], strings.TrimPrefix(r.FullName(), "/")) {
			all = append(all, document(r))
		}
	}
	return all
}

func matches(pattern, path string) bool {
	if above, ok := strings.CutSuffix(pattern, "**"); ok {
		return strings.HasPrefix(path, above)
	}
	return strings.EqualFold(pattern, path)
}

func (s *server) issues(query string) []any {
	var all []any
	m := pathQuery.FindStringSubmatch(query)
	for _, r := range s.world.All() {
		if m == nil || r.FullName() != m[2] {
			continue
		}
		for _, i := range s.world.Issues(r.ID) {
			all = append(all, map[string]any{
				"id": 5000 + i.Number, "number": i.Number, "title": i.Title, "lastActivity": map[string]any{"date": i.Updated.UnixMilli()},
			})
		}
	}
	return all
}

func (s *server) page(w http.ResponseWriter, r *http.Request, all []any) {
	from, _ := strconv.Atoi(r.FormValue("offset"))
	count, _ := strconv.Atoi(r.FormValue("count"))
	if count > 100 {
		answer(w, http.StatusNotAcceptable, "Count should not be greater than 100")
		return
	}
	from = min(from, len(all))
	answer(w, http.StatusOK, slices.Clone(all[from:min(from+count, len(all))]))
}

func (s *server) create(w http.ResponseWriter, r *http.Request) {
	var p struct {
		Name     string `json:"name"`
		ParentID int64  `json:"parentId"`
		Code     bool   `json:"codeManagement"`
	}
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Name == "" {
		answer(w, http.StatusBadRequest, "no name")
		return
	}
	s.mu.Lock()
	s.made = append(s.made, fmt.Sprintf("%s code=%v", p.Name, p.Code))
	s.mu.Unlock()
	owner := ""
	for _, name := range s.world.Owners() {
		if s.world.OwnerID(name)+1_000_000 == p.ParentID {
			owner = name
		}
	}
	if !p.Code {
		s.world.AddOwner(strings.TrimPrefix(owner+"/"+p.Name, "/"))
		answer(w, http.StatusOK, 1)
		return
	}
	answer(w, http.StatusOK, s.world.Add(forgetest.Repo{Owner: owner, Name: p.Name}).ID)
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document)
}

// start serves a world and returns a provider for it.
func start(t *testing.T) (*server, *onedev.Provider) {
	t.Helper()
	s := &server{world: forgetest.NewWorld(time.Now)}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	p, err := onedev.New(onedev.Options{URL: web.URL + "/", Token: forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestRepositoriesHaveAddressesForHTTPSAndSSH(t *testing.T) {
	s, p := start(t)
	s.world.Add(forgetest.Repo{Owner: "acme/team", Name: "a b"})
	s.world.Add(forgetest.Repo{Owner: "acme", Name: "api", Fork: true})
	got := map[string]forge.Repository{}
	for r, err := range p.Repositories(t.Context(), forge.Selection{Organization: "acme"}) {
		if err != nil {
			t.Fatal(err)
		}
		got[r.FullName()] = r
	}
	r := got["acme/team/a b"]
	if !strings.HasSuffix(r.HTTPURL, "/acme/team/a%20b") || strings.Contains(r.HTTPURL, "elsewhere") {
		t.Errorf("git over https at %q", r.HTTPURL)
	}
	if r.SSHURL != "ssh://ssh.example.com:6611/acme/team/a b" {
		t.Errorf("git over ssh at %q", r.SSHURL)
	}
	if !r.Private {
		t.Error("who may see it is not known, and it counts as public")
	}
	if !got["acme/api"].Fork || r.Fork {
		t.Errorf("forks are not told apart: %+v", got)
	}
}

func TestMakeMakesWhatIsMissing(t *testing.T) {
	s, p := start(t)
	if _, err := p.Make(t.Context(), forge.NewRepository{Owner: "acme/team", Name: "api"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("below a project that is not there: %v", err)
	}
	for range 2 {
		if err := p.MakeOwner(t.Context(), "acme/team", ""); err != nil {
			t.Fatal(err)
		}
		r, err := p.Make(t.Context(), forge.NewRepository{Owner: "acme/team", Name: "api"})
		if err != nil || r.FullName() != "acme/team/api" || r.ID == "" {
			t.Fatalf("made %+v, %v", r, err)
		}
	}
	if want := []string{"acme code=false", "team code=false", "api code=true"}; !slices.Equal(s.made, want) {
		t.Errorf("made %q, want %q", s.made, want)
	}
	if _, err := p.Make(t.Context(), forge.NewRepository{Name: "x", Visibility: "public"}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a public project: %v", err)
	}
}

func TestIssuesHaveTheirComments(t *testing.T) {
	s, p := start(t)
	repo := s.world.Add(forgetest.Repo{Owner: "acme", Name: "api"})
	s.world.AddIssues(repo.ID, 1)
	for issue, err := range p.Issues(t.Context(), forge.Repository{Owner: "acme", Name: "api"}) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(issue.Raw), "me too, in 5001") || issue.Updated.IsZero() {
			t.Errorf("issue of %s: %s", issue.Updated, issue.Raw)
		}
	}
}

func TestWhatOneDevHasNotIsSaid(t *testing.T) {
	_, p := start(t)
	var last error
	for _, err := range p.Repositories(t.Context(), forge.Selection{Starred: true}) {
		last = err
	}
	if !errors.Is(last, fault.ErrUnsupported) {
		t.Errorf("starred: %v", last)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`[{"id":1,"path":"a/b"}]`))
	f.Add([]byte(`[{"id":1,"path":"../b"},{"id":-1},null,7]`))
	f.Add([]byte(`{"id":1,"name":"x","path":"","number":1,"lastActivity":{"date":"2024-01-02T03:04:05.000+0000"}}`))
	var body []byte
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	f.Cleanup(web.Close)
	noWait := forge.ClientOptions{Clock: forgetest.NewClock().Now, Sleep: forgetest.NewClock().Sleep}
	p, err := onedev.New(onedev.Options{URL: web.URL, Client: noWait})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body = b
		for r, err := range p.Repositories(t.Context(), forge.Selection{}) {
			if err == nil && (r.ID == "" || r.Name == "" || strings.Contains("/"+r.FullName()+"/", "/../")) {
				t.Errorf("took %+v", r)
			}
		}
		for _, err := range p.Issues(t.Context(), forge.Repository{Owner: "a", Name: "b"}) {
			_ = err
		}
	})
}
