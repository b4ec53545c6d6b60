package sourcehut_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/sourcehut"
)

func TestConforms(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return &server{world: w} },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return sourcehut.New(sourcehut.Options{URL: o.Base, Token: forgetest.Token, Client: o})
		},
		Selection: func(owner string) forge.Selection { return forge.Selection{User: owner} },
		Owners:    []string{"~acme", "~umbrella"},
		Listing:   func(*http.Request) bool { return true },
		Unmarked:  true,
		Untold:    true,
		Tells:     "private empty description branch",
		PerOwner:  50,
	})
}

const pageSize = 20

// server is the GraphQL API of git.sr.ht, as far as the provider's queries go.
type server struct {
	world *forgetest.World
	made  []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+forgetest.Token || r.URL.Path != "/query" {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"errors":[{"message":"Invalid or expired OAuth 2.0 bearer token"}]}`)
		return
	}
	var q struct {
		Query     string         `json:"query"`
		Variables map[string]any `json:"variables"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	text := func(name string) string {
		v, _ := q.Variables[name].(string)
		return v
	}
	data := map[string]any{}
	switch {
	case strings.Contains(q.Query, "createRepository"):
		s.made = append(s.made, text("name")+" "+text("visibility"))
		data["createRepository"] = document(s.world.Add(forgetest.Repo{Owner: "~tester", Name: text("name")}))
	case strings.Contains(q.Query, "me { repository("):
		data["me"] = map[string]any{"repository": s.named("~tester/" + text("name"))}
	case strings.Contains(q.Query, "me { username }"):
		data["me"] = map[string]any{"username": "tester"}
	case strings.Contains(q.Query, "repository(id"):
		id, _ := q.Variables["id"].(float64)
		repo, found := s.world.ByID(int64(id))
		data["repository"] = nil
		if found {
			data["repository"] = document(repo)
		}
	case s.world.OwnerID("~"+text("username")) == 0:
		data["user"] = nil
	default:
		data["user"] = map[string]any{"repositories": s.page("~"+text("username"), text("cursor"))}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func (s *server) named(full string) any {
	repo, _, found := s.world.ByName(full)
	if !found {
		return nil
	}
	return document(repo)
}

func (s *server) page(owner, cursor string) map[string]any {
	from, _ := strconv.Atoi(cursor)
	all := s.world.Of(owner, false)
	from = min(from, len(all))
	to := min(from+pageSize, len(all))
	results := []any{}
	for _, r := range all[from:to] {
		results = append(results, document(r))
	}
	page := map[string]any{"results": results, "cursor": nil}
	if to < len(all) {
		page["cursor"] = strconv.Itoa(to)
	}
	return page
}

func document(r forgetest.Repo) map[string]any {
	visibility := "PUBLIC"
	if r.Private {
		visibility = "PRIVATE"
	}
	d := map[string]any{
		"id": r.ID, "updated": r.Updated, "name": r.Name, "description": r.Description, "visibility": visibility,
		"owner": map[string]string{"canonicalName": r.Owner}, "HEAD": map[string]string{"name": "refs/heads/" + r.DefaultBranch},
	}
	if r.Empty {
		d["HEAD"] = nil
	}
	return d
}

func start(t *testing.T) (*server, *sourcehut.Provider) {
	t.Helper()
	s := &server{world: forgetest.NewWorld(time.Now)}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	p, err := sourcehut.New(sourcehut.Options{URL: web.URL, Token: "Bearer " + forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestDocsAreTheWiki(t *testing.T) {
	s, p := start(t)
	for _, name := range []string{"api", "api-docs", "web"} {
		s.world.Add(forgetest.Repo{Owner: "~tester", Name: name})
	}
	wikis := map[string]string{}
	for r, err := range p.Repositories(t.Context(), forge.Selection{Wikis: true}) {
		if err != nil {
			t.Fatal(err)
		}
		wikis[r.Name] = r.WikiSSHURL
	}
	if wikis["api"] != "git@127.0.0.1:~tester/api-docs" || wikis["web"] != "" || len(wikis) != 3 {
		t.Errorf("wikis are %q", wikis)
	}
}

func TestAListingOfNobodyIsNotEmpty(t *testing.T) {
	_, p := start(t)
	var last error
	for _, err := range p.Repositories(t.Context(), forge.Selection{User: "nobody"}) {
		last = err
	}
	if !errors.Is(last, fault.ErrNotFound) {
		t.Errorf("got %v", last)
	}
}

func TestMakeMakesOnceAndForItsOwnAccount(t *testing.T) {
	s, p := start(t)
	for range 2 {
		r, err := p.Make(t.Context(), forge.NewRepository{Owner: "tester", Name: "api", Visibility: "unlisted"})
		if err != nil || r.SSHURL != "git@127.0.0.1:~tester/api" || r.HTTPURL != "" {
			t.Fatalf("made %+v, %v", r, err)
		}
	}
	if len(s.made) != 1 || s.made[0] != "api UNLISTED" {
		t.Errorf("made %q", s.made)
	}
	if _, err := p.Make(t.Context(), forge.NewRepository{Owner: "~acme", Name: "api"}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("for another account: %v", err)
	}
	if _, err := p.Make(t.Context(), forge.NewRepository{Name: "api", Visibility: "internal"}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("internal: %v", err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"data":{"user":{"repositories":{"results":[{"id":1,"name":"a","owner":{"canonicalName":"~b"}}],"cursor":null}}}}`))
	f.Add([]byte(`{"data":{"user":{"repositories":{"results":[{"id":1,"name":"../a","owner":{"canonicalName":"~b"}}],"cursor":"x"}}}}`))
	f.Add([]byte(`{"data":null,"errors":[{"message":"no"}]}`))
	f.Add([]byte(`{"data":{"user":null}}`))
	var body []byte
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	f.Cleanup(web.Close)
	clock := forgetest.NewClock()
	p, err := sourcehut.New(sourcehut.Options{URL: web.URL, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body = b
		for r, err := range p.Repositories(t.Context(), forge.Selection{User: "b", Wikis: true}) {
			if err == nil && (r.ID == "" || strings.Contains("/"+r.FullName()+"/", "/../") || strings.Count(r.FullName(), "/") != 1) {
				t.Errorf("took %+v", r)
			}
		}
	})
}
