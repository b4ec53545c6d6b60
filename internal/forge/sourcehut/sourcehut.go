// Package sourcehut speaks to git.sr.ht, and to Sourcehuts elsewhere, as a provider of package forge. No Sourcehut could be run to check
// it: it follows the published GraphQL schema of git.sr.ht.
//
// Sourcehut takes pushes over ssh alone, and serves what is private over ssh alone. Where it has "docs" beside "api", as "api-docs",
// that counts as the wiki of "api". Its trackers and mailing lists are other services beside it, at todo.sr.ht and lists.sr.ht: they are
// asked for what bears the repository's name, with the same token, where that is wanted. Listings say when a repository was updated,
// but not that this is so for every push: they carry no mark.
package sourcehut

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says which Sourcehut is asked, and as whom.
type Options struct {
	URL   string       // of its git service; "" is https://git.sr.ht
	Token fault.Secret // personal access token, with the scope git.sr.ht/REPOSITORIES (:RW to make some)

	// Client says how the API is reached. Base, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of one Sourcehut. Safe for concurrent use.
type Provider struct {
	o      Options
	web    *url.URL
	client *forge.Client
	todo   *forge.Client // of the tracker beside it
	lists  *forge.Client // and of the mailing lists
	files  *forge.FileClient
}

// Every ability that Sourcehut has.
var (
	_ forge.Provider  = (*Provider)(nil)
	_ forge.Inspector = (*Provider)(nil)
	_ forge.Finder    = (*Provider)(nil)
	_ forge.Maker     = (*Provider)(nil)
)

// New makes a provider. It sends nothing.
func New(o Options) (*Provider, error) {
	web, err := forge.ParseSite(cmp.Or(o.URL, "https://git.sr.ht"), "/query")
	if err != nil {
		return nil, err
	}
	o.Token = bare(o.Token)
	p := &Provider{o: o, web: web}
	options := o.Client
	options.Base = web.String()
	options.Secrets = []fault.Secret{o.Token}
	options.Authorize = forge.Authorize("Bearer", o.Token, "", "")
	if p.client, err = forge.NewClient(options); err != nil {
		return nil, err
	}
	options.Base = sibling(web, "todo")
	if p.todo, err = forge.NewClient(options); err != nil {
		return nil, err
	}
	options.Base = sibling(web, "lists")
	if p.lists, err = forge.NewClient(options); err != nil {
		return nil, err
	}
	p.files, err = p.lists.Files(forge.FileHosts{})
	return p, err
}

// bare takes the word off that stands before a token in a header, where it was copied along.
func bare(token fault.Secret) fault.Secret {
	word, rest, found := strings.Cut(strings.TrimSpace(token.Reveal()), " ")
	if found && (strings.EqualFold(word, "bearer") || strings.EqualFold(word, "token")) {
		return fault.Secret(strings.TrimSpace(rest))
	}
	return fault.Secret(strings.TrimSpace(token.Reveal()))
}

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.web) }

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// Requests counts the requests sent so far.
func (p *Provider) Requests() int64 {
	return p.client.Requests() + p.todo.Requests() + p.lists.Requests()
}

// GitCredentials are none: over https Sourcehut serves what is public, to everybody.
func (p *Provider) GitCredentials(context.Context) (username string, password fault.Secret, err error) {
	return "", "", nil
}

// ask sends a query.
func (p *Provider) ask(ctx context.Context, query string, variables map[string]any, into any) error {
	_, err := p.client.GraphQL(ctx, "/query", query, variables, into)
	return err
}

// Inspect implements forge.Inspector. The service does not say which scopes a token has, nor when it expires.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	name, err := p.whoami(ctx)
	return forge.Credentials{Account: name}, err
}

func (p *Provider) whoami(ctx context.Context) (string, error) {
	var answer struct {
		Me struct {
			Username string `json:"username"`
		} `json:"me"`
	}
	if err := p.ask(ctx, `query { me { username } }`, nil, &answer); err != nil {
		return "", err
	}
	if answer.Me.Username == "" {
		return "", fault.New("account", fault.ErrUnavailable, "the server answers without a name", "")
	}
	return answer.Me.Username, nil
}

// repository is what is read of a repository.
type repository struct {
	ID          int64     `json:"id"`
	Updated     time.Time `json:"updated"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Visibility  string    `json:"visibility"`
	Owner       struct {
		CanonicalName string `json:"canonicalName"`
	} `json:"owner"`
	HEAD *struct {
		Name string `json:"name"`
	} `json:"HEAD"`
}

const fields = `id updated name description visibility owner { canonicalName } HEAD { name }`

func (p *Provider) decode(raw json.RawMessage) (forge.Repository, error) {
	var d repository
	if err := json.Unmarshal(raw, &d); err != nil || d.ID <= 0 || !forge.PlainName(d.Name) || !forge.PlainName(d.Owner.CanonicalName) {
		return forge.Repository{}, fault.New("repository", fault.ErrUnavailable, "the server answers with what is no repository", "")
	}
	at := "/" + d.Owner.CanonicalName + "/" + d.Name
	r := forge.Repository{
		ID: strconv.FormatInt(d.ID, 10), Owner: d.Owner.CanonicalName, Name: d.Name,
		HTTPURL: p.web.String() + at, WebURL: p.web.String() + at, SSHURL: "git@" + p.web.Hostname() + ":" + strings.TrimPrefix(at, "/"),
		Description: d.Description, Private: !strings.EqualFold(d.Visibility, "public"), Active: d.Updated, Raw: raw,
	}
	if d.HEAD == nil {
		r.Empty = true
	} else {
		r.DefaultBranch = strings.TrimPrefix(d.HEAD.Name, "refs/heads/")
	}
	return r, nil
}

// Repositories implements forge.Provider. Owners are users, with or without their "~".
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	owners, err := p.owners(ctx, s)
	if err != nil {
		return forge.Refusal(err)
	}
	var lists []forge.Repositories
	for _, owner := range owners {
		lists = append(lists, p.ofUser(ctx, owner, s.Wikis))
	}
	if s.Starred || s.Contributed || s.Gists {
		lists = append(lists, forge.Refusal(fault.New("list repositories", fault.ErrUnsupported,
			"Sourcehut has no lists of what somebody starred or contributed to, and pastes are another service", "leave that out of the selection")))
	}
	return forge.Union(lists...)
}

// ofUser lists what a user owns.
func (p *Provider) ofUser(ctx context.Context, user string, wikis bool) forge.Repositories {
	return func(yield func(forge.Repository, error) bool) {
		all, err := p.list(ctx, user)
		if wikis {
			addDocs(all)
		}
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(forge.Repository{}, err)
		}
	}
}

// owners are those whose repositories a selection takes, each once.
func (p *Provider) owners(ctx context.Context, s forge.Selection) ([]string, error) {
	var owners []string
	seen := map[string]bool{"": true}
	add := func(name string) {
		name = strings.TrimPrefix(name, "~")
		if !seen[name] {
			seen[name] = true
			owners = append(owners, name)
		}
	}
	add(s.User)
	add(s.Organization)
	if len(owners) == 0 {
		self, err := p.whoami(ctx)
		if err != nil {
			return nil, err
		}
		add(self)
	}
	for _, name := range s.Organizations {
		add(name)
	}
	return owners, nil
}

// maxPages is how many pages a user's listing may have.
const maxPages = 10_000

// list reads all of a user's repositories. What it has comes with the error.
func (p *Provider) list(ctx context.Context, user string) ([]forge.Repository, error) {
	const query = `query($username: String!, $cursor: Cursor) { user(username: $username) { repositories(cursor: $cursor) { results { ` +
		fields + ` } cursor } } }`
	var (
		all    []forge.Repository
		cursor *string
		guard  forge.Guard
	)
	for range maxPages {
		var answer struct {
			User *struct {
				Repositories *struct {
					Results []json.RawMessage `json:"results"`
					Cursor  *string           `json:"cursor"`
				} `json:"repositories"`
			} `json:"user"`
		}
		at := ""
		if cursor != nil {
			at = *cursor
		}
		err := p.ask(ctx, query, map[string]any{"username": user, "cursor": cursor}, &answer)
		switch {
		case err != nil:
			return all, fault.Wrap("list repositories of "+user, nil, err, "")
		case answer.User == nil:
			return all, fault.New("list repositories of "+user, fault.ErrNotFound, "there is no such user", "")
		case answer.User.Repositories == nil:
			return all, fault.New("list repositories of "+user, fault.ErrUnavailable, "the server answers without a list", "")
		}
		page := answer.User.Repositories
		if err := guard.Page(at, page.Results); err != nil {
			return all, fault.Wrap("list repositories of "+user, nil, err, "")
		}
		for _, raw := range page.Results {
			r, err := p.decode(raw)
			if err != nil {
				return all, err
			}
			all = append(all, r)
		}
		if page.Cursor == nil {
			return all, nil
		}
		cursor = page.Cursor
	}
	return all, fault.New("list repositories of "+user, fault.ErrUnsupported, "the listing does not end", "")
}

// docsSuffix is what the repository of the documentation of another one is called.
const docsSuffix = "-docs"

// addDocs takes "api-docs" for the wiki of "api".
func addDocs(all []forge.Repository) {
	named := map[string]forge.Repository{}
	for _, r := range all {
		named[r.FullName()] = r
	}
	for i, r := range all {
		if docs, ok := named[r.FullName()+docsSuffix]; ok {
			all[i].WikiHTTPURL, all[i].WikiSSHURL = docs.HTTPURL, docs.SSHURL
		}
	}
}

// Find implements forge.Finder.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	id, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		return forge.Repository{}, fault.New("find repository", fault.ErrInvalid, "it has no ID", "")
	}
	var answer struct {
		Repository json.RawMessage `json:"repository"`
	}
	if err := p.ask(ctx, `query($id: Int!) { repository(id: $id) { `+fields+` } }`, map[string]any{"id": id}, &answer); err != nil {
		return forge.Repository{}, err
	}
	return p.found(answer.Repository, "find repository "+r.ID)
}

func (p *Provider) found(raw json.RawMessage, op string) (forge.Repository, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return forge.Repository{}, fault.New(op, fault.ErrNotFound, "it is not there, or the token cannot see it", "")
	}
	return p.decode(raw)
}

// Make implements forge.Maker, for the token's own account. The repository has no address over https, for it takes no pushes there.
func (p *Provider) Make(ctx context.Context, n forge.NewRepository) (forge.Repository, error) {
	op := "make repository " + n.Name
	visibility, ok := map[string]string{"": "PRIVATE", "private": "PRIVATE", "public": "PUBLIC", "unlisted": "UNLISTED"}[n.Visibility]
	if !ok {
		return forge.Repository{}, fault.New(op, fault.ErrUnsupported, "repositories here are not "+n.Visibility, "")
	}
	if n.Owner != "" {
		if err := p.MakeOwner(ctx, n.Owner, ""); err != nil {
			return forge.Repository{}, fault.Wrap(op, nil, err, "")
		}
	}
	var mine struct {
		Me struct {
			Repository json.RawMessage `json:"repository"`
		} `json:"me"`
	}
	err := p.ask(ctx, `query($name: String!) { me { repository(name: $name) { `+fields+` } } }`, map[string]any{"name": n.Name}, &mine)
	if err != nil {
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	r, err := p.found(mine.Me.Repository, op)
	if errors.Is(err, fault.ErrNotFound) {
		r, err = p.create(ctx, n, visibility)
	}
	r.HTTPURL = ""
	return r, fault.Wrap(op, nil, err, "")
}

func (p *Provider) create(ctx context.Context, n forge.NewRepository, visibility string) (forge.Repository, error) {
	const query = `mutation($name: String!, $visibility: Visibility!, $description: String) {
		createRepository(name: $name, visibility: $visibility, description: $description) { ` + fields + ` } }`
	body := map[string]any{
		"query": query, "variables": map[string]any{"name": n.Name, "visibility": visibility, "description": n.Description},
	}
	var answer struct {
		Data struct {
			CreateRepository json.RawMessage `json:"createRepository"`
		} `json:"data"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	// Not GraphQL, which tries again: what was made must not be made twice.
	if _, err := p.client.Do(ctx, http.MethodPost, "/query", nil, body, &answer); err != nil {
		return forge.Repository{}, err
	}
	if len(answer.Errors) > 0 {
		return forge.Repository{}, fault.New("", fault.ErrInvalid, fault.Redact(oneLine(answer.Errors[0].Message), p.o.Token), "")
	}
	return p.found(answer.Data.CreateRepository, "")
}

// oneLine makes a server's words fit to be shown.
func oneLine(text string) string {
	const most = 300
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// MakeOwner implements forge.Maker. Only the token's own account can own what is made.
func (p *Provider) MakeOwner(ctx context.Context, name, _ string) error {
	self, err := p.whoami(ctx)
	if err == nil && strings.TrimPrefix(name, "~") != self {
		err = fault.New("owner "+name, fault.ErrUnsupported, "Sourcehut makes repositories for the token's own account alone", "leave the owner out")
	}
	return err
}
