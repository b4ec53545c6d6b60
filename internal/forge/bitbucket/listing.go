package bitbucket

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// snippetPrefix tells the IDs of snippets from those of repositories.
const snippetPrefix = "snippet-"

// Repositories implements forge.Provider. Users and organisations are both workspaces; without either these are all workspaces that
// the account is a member of. Gists are the workspaces' snippets. Stars and contributions Bitbucket does not know. A workspace that is
// not there costs no other one.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	lists, err := p.lists(ctx, s)
	if err != nil {
		return forge.Refusal(err)
	}
	if s.Starred || s.Contributed {
		lists = append(lists, forge.Refusal(fault.New("list "+p.Host(), fault.ErrUnsupported,
			"Bitbucket lists neither starred repositories nor those contributed to", "leave starred and contributed out")))
	}
	return forge.Union(lists...)
}

// workspaces are those that a selection names, each once.
func (p *Provider) workspaces(ctx context.Context, s forge.Selection) ([]string, error) {
	named := append([]string{s.User, s.Organization}, s.Organizations...)
	if s.User == "" && s.Organization == "" {
		own, err := p.ownWorkspaces(ctx)
		if err != nil {
			return nil, err
		}
		named = append(own, named...)
	}
	var all []string
	seen := map[string]bool{"": true}
	for _, name := range named {
		if key := strings.ToLower(name); !seen[key] {
			seen[key] = true
			all = append(all, name)
		}
	}
	return all, nil
}

func (p *Provider) ownWorkspaces(ctx context.Context) ([]string, error) {
	if p.o.Token == "" && p.o.Password == "" {
		return nil, fault.New("list "+p.Host(), fault.ErrDenied, "without a token there is no own account", "give a token, or name a workspace")
	}
	var all []string
	for page, err := range p.pages(ctx, "/user/workspaces", nil) {
		if err != nil {
			return nil, err
		}
		for _, raw := range page.Items {
			var in struct {
				Workspace struct {
					Slug string `json:"slug"`
				} `json:"workspace"`
			}
			if err := json.Unmarshal(raw, &in); err != nil || in.Workspace.Slug == "" {
				return nil, fault.New("list "+p.Host(), fault.ErrUnavailable, "the server listed a workspace without a name", "")
			}
			all = append(all, in.Workspace.Slug)
		}
	}
	return all, nil
}

// lists are what a selection takes.
func (p *Provider) lists(ctx context.Context, s forge.Selection) ([]forge.Repositories, error) {
	workspaces, err := p.workspaces(ctx, s)
	if err != nil {
		return nil, err
	}
	var all []forge.Repositories
	for _, workspace := range workspaces {
		name := url.PathEscape(workspace)
		byAge := url.Values{"sort": {"created_on"}} // what is added meanwhile comes last
		all = append(all, forge.Steady(forge.Decode(p.pages(ctx, "/repositories/"+name, byAge),
			func(raw json.RawMessage, _ time.Time) (forge.Repository, error) { return p.decode(raw, s.Wikis) })))
		if s.Gists {
			all = append(all, forge.Steady(forge.Decode(p.pages(ctx, "/snippets/"+name, nil),
				func(raw json.RawMessage, _ time.Time) (forge.Repository, error) {
					return p.decodeSnippet(raw, workspace)
				})))
		}
	}
	return all, nil
}

// pages follows the "next" addresses in the answers; the client sees to it that they stay on the host.
func (p *Provider) pages(ctx context.Context, path string, query url.Values) iter.Seq2[forge.Page, error] {
	first := url.Values{"pagelen": {"100"}}
	for name, values := range query {
		first[name] = values
	}
	return p.client.List(ctx, forge.Listing{
		Path: path, Query: first, At: "values",
		Next: func(page forge.Page) (string, error) {
			e, err := envelopeOf(page)
			return e.Next, err
		},
		Total: func(page forge.Page) int {
			if e, err := envelopeOf(page); err == nil && e.Size != nil {
				return *e.Size
			}
			return -1
		},
	})
}

// envelope is what a page says of the listing.
type envelope struct {
	Next string `json:"next"` // address of the next page
	Size *int   `json:"size"` // how many items there are in all; left out where that is costly to know
}

func envelopeOf(page forge.Page) (e envelope, err error) {
	if err := json.Unmarshal(page.Response.Body, &e); err != nil {
		return e, fault.Wrap("", fault.ErrUnavailable, err, "")
	}
	return e, nil
}

// Find implements forge.Finder. Bitbucket finds a repository by its UUID wherever it moved to.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	var raw json.RawMessage
	get := func(path string) error {
		_, err := p.client.Do(ctx, http.MethodGet, path, nil, nil, &raw)
		return err
	}
	if at, ok := strings.CutPrefix(r.ID, snippetPrefix); ok {
		workspace, id, _ := strings.Cut(at, "/")
		if err := get("/snippets/" + url.PathEscape(workspace) + "/" + url.PathEscape(id)); err != nil {
			return forge.Repository{}, err
		}
		return p.decodeSnippet(raw, workspace)
	}
	path := "/repositories/" + url.PathEscape(r.Owner) + "/" + url.PathEscape(r.Name)
	if r.ID != "" {
		path = "/repositories/" + url.PathEscape("{}") + "/" + url.PathEscape(r.ID)
	}
	if err := get(path); err != nil {
		return forge.Repository{}, err
	}
	return p.decode(raw, r.WikiHTTPURL != "")
}

// Inspect implements forge.Inspector. Bitbucket does not say when a token expires.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	if p.o.Token == "" && p.o.Password == "" {
		return forge.Credentials{}, nil
	}
	var in struct {
		Username string `json:"username"`
		Nickname string `json:"nickname"`
	}
	// Access tokens of workspaces and repositories are nobody's; tokens without the scope for the account may be good all the same.
	answer, err := p.client.Do(ctx, http.MethodGet, "/user", nil, nil, &in, http.StatusForbidden, http.StatusNotFound)
	if err != nil {
		return forge.Credentials{}, err
	}
	c := forge.Credentials{Account: in.Username}
	if c.Account == "" {
		c.Account = in.Nickname
	}
	said := p.client.Seen()
	c.Remaining, c.Limit, c.Reset, c.Expires = said.Remaining, said.Limit, said.Reset, said.Expires
	if scopes := answer.Header.Get("X-OAuth-Scopes"); scopes != "" && !readsRepositories(scopes) {
		c.Missing = []string{"read:repository:bitbucket"}
	}
	return c, nil
}

// readsRepositories reports whether one of the scopes lets repositories be read: of API tokens, or as OAuth and access tokens name
// them.
func readsRepositories(scopes string) bool {
	for scope := range strings.FieldsFuncSeq(scopes, func(r rune) bool { return r == ',' || r == ' ' }) {
		switch scope {
		case "read:repository:bitbucket", "repository", "repository:write", "repository:admin", "pullrequest", "pullrequest:write":
			return true
		}
	}
	return false
}
