package gitea_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitea"
)

func TestGiteaConforms(t *testing.T) { forgetest.Run(t, dialect(false)) }

func TestGogsConforms(t *testing.T) { forgetest.Run(t, dialect(true)) }

func dialect(gogs bool) forgetest.Dialect {
	d := forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return &server{world: w, gogs: gogs, most: 100} },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return gitea.New(gitea.Options{URL: o.Base, Gogs: gogs, Token: forgetest.Token, Selection: forge.Selection{Organization: "acme"}, Client: o})
		},
		Listing: func(r *http.Request) bool {
			return strings.HasPrefix(r.URL.Path, "/api/v1/") && strings.HasSuffix(r.URL.Path, "/repos")
		},
		ETags:    true, // the servers send none, but proxies before them do
		Unmarked: gogs,
		Tells:    "private fork empty stars description branch",
	}
	if gogs {
		d.Circular = true // its lists have one page each; that of the account as a user stands in for the first
		d.Selection = func(owner string) forge.Selection {
			return forge.Selection{User: owner, Organizations: []string{owner}, Wikis: true}
		}
	} else {
		d.Scope = "read:repository"
		d.Tells += " archived"
	}
	return d
}

// server is the API of Gitea or Gogs.
type server struct {
	world *forgetest.World
	gogs  bool
	most  int // items of a page
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "token "+forgetest.Token {
		answer(w, http.StatusUnauthorized, map[string]string{"message": "invalid username, password or token"})
		return
	}
	if name, ok := strings.CutSuffix(r.URL.Path, ".wiki.git/HEAD"); ok {
		s.wiki(w, strings.Trim(name, "/"))
		return
	}
	scopes := s.world.Token().Scopes
	if scopes == nil && s.world.Token().Expires.IsZero() {
		scopes = []string{"read:repository"}
	}
	segments := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
	switch at := strings.Join(segments, " "); {
	case at == "user":
		answer(w, http.StatusOK, map[string]any{"id": 1, "login": s.world.Token().Account})
	case segments[0] == "repositories" && len(segments) == 2:
		id, _ := strconv.ParseInt(segments[1], 10, 64)
		repo, found := s.world.ByID(id)
		s.one(w, repo, found && !s.gogs)
	case segments[len(segments)-1] == "repos" && len(scopes) == 0 && !s.gogs:
		answer(w, http.StatusForbidden, map[string]string{
			"message": "token does not have at least one of required scope(s), required=[read:repository], token scope=read:user",
		})
	case len(segments) == 3 && segments[2] == "repos":
		s.list(w, r, s.repositories(s.world.Of(segments[1], false)), s.gogs)
	case segments[0] == "repos" && len(segments) == 3:
		repo, moved, found := s.world.ByName(segments[1] + "/" + segments[2])
		if moved {
			w.Header().Set("Location", "/api/v1/repos/"+repo.FullName())
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		s.one(w, repo, found)
	case segments[0] == "repos" && len(segments) == 4 && segments[3] == "issues":
		s.issues(w, r, segments[1]+"/"+segments[2])
	default:
		s.one(w, forgetest.Repo{}, false)
	}
}

func (s *server) wiki(w http.ResponseWriter, name string) {
	repo, _, found := s.world.ByName(name)
	if !found || !repo.Wiki {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	fmt.Fprint(w, "ref: refs/heads/main\n")
}

func (s *server) one(w http.ResponseWriter, repo forgetest.Repo, found bool) {
	switch {
	case !found:
		answer(w, http.StatusNotFound, map[string]any{"message": "not found", "errors": nil})
	case repo.Blocked:
		answer(w, http.StatusUnavailableForLegalReasons, map[string]string{"message": "blocked"})
	default:
		answer(w, http.StatusOK, s.repository(repo))
	}
}

func (s *server) repositories(repos []forgetest.Repo) []any {
	var all []any
	for _, r := range repos {
		all = append(all, s.repository(r))
	}
	return all
}

func (s *server) repository(r forgetest.Repo) map[string]any {
	document := map[string]any{
		"id": r.ID, "owner": map[string]any{"id": s.world.OwnerID(r.Owner), "login": r.Owner}, "name": r.Name, "full_name": r.FullName(),
		"description": r.Description, "default_branch": r.DefaultBranch, "private": r.Private, "fork": r.Fork, "empty": r.Empty,
		"stars_count": r.Stars, "size": r.Size >> 10, "updated_at": r.Pushed, "mirror": false,
		"clone_url": "https://elsewhere.example.com/" + r.FullName() + ".git", "ssh_url": "git@git.example.com:" + r.FullName() + ".git",
	}
	if !s.gogs {
		document["archived"], document["language"], document["has_wiki"], document["has_issues"] = r.Archived, r.Language, true, true
		document["release_counter"], document["open_pr_counter"], document["mirror_updated"] = 0, 0, "0001-01-01T00:00:00Z"
	}
	return document
}

func (s *server) issues(w http.ResponseWriter, r *http.Request, name string) {
	repo, _, _ := s.world.ByName(name)
	var all []any
	for _, i := range s.world.Issues(repo.ID) {
		state := "open"
		if i.Closed {
			state = "closed"
		}
		if asked := r.FormValue("state"); asked == state || asked == "all" && !s.gogs {
			all = append(all, map[string]any{"id": i.Number + 1000, "number": i.Number, "title": i.Title, "state": state, "updated_at": i.Updated})
		}
	}
	s.list(w, r, all, false)
}

// list answers with one page. Links name the host that the server was configured with.
func (s *server) list(w http.ResponseWriter, r *http.Request, all []any, whole bool) {
	if whole {
		answer(w, http.StatusOK, all)
		return
	}
	size, _ := strconv.Atoi(r.FormValue("limit"))
	page, _ := strconv.Atoi(r.FormValue("page"))
	size, page = min(max(size, 1), s.most), max(page, 1)
	if s.gogs {
		size = 10
	} else {
		w.Header().Set("X-Total-Count", strconv.Itoa(len(all)))
	}
	from := min((page-1)*size, len(all))
	to := min(from+size, len(all))
	if to < len(all) {
		w.Header().Set("Link", fmt.Sprintf(`<https://elsewhere.example.com%s?page=%d>; rel="next"`, r.URL.Path, page+1))
	}
	answer(w, http.StatusOK, all[from:to])
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document)
}
