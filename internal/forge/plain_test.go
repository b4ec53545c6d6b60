package forge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
)

// plain is a provider for an API as simple as one can be: it shows what Client does by itself.
type plain struct {
	client *forge.Client
	git    string // where repositories are; "" for the API's own host
	host   string
}

func newPlain(o forge.ClientOptions) (forge.Provider, error) {
	o.Secrets = []fault.Secret{forgetest.Token}
	o.Authorize = func(_ context.Context, h http.Header) error {
		h.Set("Authorization", "Bearer "+forgetest.Token)
		return nil
	}
	client, err := forge.NewClient(o)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(o.Base)
	if err != nil {
		return nil, err
	}
	return &plain{client: client, git: o.Base, host: strings.ReplaceAll(u.Host, ":", "_")}, nil
}

func (p *plain) Host() string { return p.host }

func (p *plain) Requests() int64 { return p.client.Requests() }

func (p *plain) Seen() forge.Seen { return p.client.Seen() }

func (p *plain) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for page, err := range p.client.Pages(ctx, "/orgs/"+s.Organization+"/repos", nil, "") {
			if err != nil {
				yield(forge.Repository{}, err)
				return
			}
			for _, raw := range page.Items {
				r, err := p.read(raw, page.Response)
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

func (p *plain) read(raw json.RawMessage, answer *forge.Response) (forge.Repository, error) {
	var r forgetest.Repo
	if err := json.Unmarshal(raw, &r); err != nil {
		return forge.Repository{}, fault.New("repository", fault.ErrUnavailable, "not as expected", "")
	}
	wiki := ""
	if r.Wiki {
		wiki = p.git + "/" + r.FullName() + ".wiki.git"
	}
	return forge.Repository{
		ID: strconv.FormatInt(r.ID, 10), Owner: r.Owner, Name: r.Name, HTTPURL: p.git + "/" + r.FullName() + ".git", WikiHTTPURL: wiki,
		Description: r.Description, DefaultBranch: r.DefaultBranch, Private: r.Private, Fork: r.Fork, Archived: r.Archived, Empty: r.Empty, Stars: r.Stars, Size: r.Size,
		Active: r.Pushed, Mark: forge.MarkOf(r.Pushed, answer.Date()), Raw: raw,
	}, nil
}

func (p *plain) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	var raw json.RawMessage
	answer, err := p.client.Do(ctx, http.MethodGet, "/repositories/"+r.ID, nil, nil, &raw)
	if err != nil {
		return forge.Repository{}, err
	}
	return p.read(raw, answer)
}

func (p *plain) Inspect(ctx context.Context) (forge.Credentials, error) {
	if _, err := p.client.Do(ctx, http.MethodGet, "/user", nil, nil, nil); err != nil {
		return forge.Credentials{}, err
	}
	seen := p.client.Seen()
	c := forge.Credentials{Account: "tester", Expires: seen.Expires}
	if seen.Scopes != nil && len(seen.Scopes) == 0 {
		c.Missing = []string{"repo"}
	}
	return c, nil
}

// plainAPI renders a world for plain.
func plainAPI(w *forgetest.World) http.Handler { return plainPages(w, 100) }

func plainPages(w *forgetest.World, size int) http.Handler {
	answer := func(out http.ResponseWriter, value any) {
		out.Header().Set("Content-Type", "application/json")
		if token := w.Token(); !token.Expires.IsZero() {
			out.Header().Set("github-authentication-token-expiration", token.Expires.Format("2006-01-02 15:04:05 MST"))
			out.Header().Set("X-OAuth-Scopes", strings.Join(token.Scopes, ", "))
		}
		json.NewEncoder(out).Encode(value)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /user", func(out http.ResponseWriter, _ *http.Request) { answer(out, struct{}{}) })
	mux.HandleFunc("GET /orgs/{owner}/repos", func(out http.ResponseWriter, r *http.Request) {
		all := w.Of(r.PathValue("owner"), true)
		page, _ := strconv.Atoi(r.FormValue("page"))
		from := min(max(page-1, 0)*size, len(all))
		to := min(from+size, len(all))
		if to < len(all) {
			out.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=%d>; rel="next"`, r.Host, r.URL.Path, max(page, 1)+1))
		}
		out.Header().Set("X-Total-Count", strconv.Itoa(len(all)))
		answer(out, all[from:to])
	})
	mux.HandleFunc("GET /repositories/{id}", func(out http.ResponseWriter, r *http.Request) {
		id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
		repo, found := w.ByID(id)
		switch {
		case !found:
			http.Error(out, "not there", http.StatusNotFound)
		case repo.Blocked:
			http.Error(out, "blocked", http.StatusUnavailableForLegalReasons)
		default:
			answer(out, repo)
		}
	})
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+forgetest.Token {
			http.Error(out, "who are you", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(out, r)
	})
}

func TestPlainProvider(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: plainAPI, New: newPlain, ETags: true, Scope: "repo", Expiry: true, Untold: true,
		Tells: "private archived fork empty wiki stars description branch",
	})
}
