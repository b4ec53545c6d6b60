// Package github speaks to GitHub, github.com and Enterprise Server, as a provider of package forge.
package github

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says which GitHub is asked, and as whom: with a token, as an App, with a user name and a password, or as nobody.
type Options struct {
	URL      string       // of the instance; "" is https://github.com
	Token    fault.Secret // classic or fine-grained
	App      *App         // instead of a token
	Username string       // with Password; GitHub takes a token for it
	Password fault.Secret

	// What Inspect measures the token's scopes by: what will be listed, and whether repositories are to be made and pushed to.
	Selection forge.Selection
	Copies    bool

	// Client says how the API is reached. Base, Header, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of one GitHub. Safe for concurrent use.
type Provider struct {
	o       Options
	web     *url.URL // of the instance: https://github.com
	graphql string   // URL of the GraphQL API
	client  *forge.Client
	imports *forge.Client // of the same API, for the import of issues, which it does not document
	uploads *forge.Client // where assets are sent
	files   *forge.FileClient
	app     *installation // nil without App

	mu   sync.Mutex
	self *account // whose the credentials are, once asked for
}

// What GitHub can do.
var (
	_ forge.Provider    = (*Provider)(nil)
	_ forge.Inspector   = (*Provider)(nil)
	_ forge.Finder      = (*Provider)(nil)
	_ forge.IssueReader = (*Provider)(nil)
	_ forge.Maker       = (*Provider)(nil)
)

// account is a user or an organisation.
type account struct {
	Login string `json:"login"`
	Type  string `json:"type"` // "User", "Organization"
}

func (a account) organization() bool { return a.Type == "Organization" }

func (a account) is(login string) bool { return strings.EqualFold(a.Login, login) }

// New makes a provider. It sends nothing.
func New(o Options) (*Provider, error) {
	const op = "github"
	web, api, graphql, err := addresses(o.URL)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	p := &Provider{o: o, web: web, graphql: graphql}
	options := o.Client
	options.Base, options.Header, options.Secrets = api, header(), []fault.Secret{o.Token, o.Password}
	if o.App != nil {
		if p.app, err = newInstallation(options, *o.App); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		options.Secrets = p.app.budget()
	}
	options.Authorize = p.authorize
	if options.Budget == nil {
		options.Budget = &forge.Budget{} // which the clients share
	}
	if p.client, err = forge.NewClient(options); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := p.restores(options); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if p.files, err = p.client.Files(fileHosts(web)); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return p, nil
}

func header() map[string]string {
	return map[string]string{"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
}

// addresses says where an instance has its pages and its two APIs. An address of an API, as people copy it, is taken for its
// instance.
func addresses(instance string) (web *url.URL, api, graphql string, err error) {
	web, err = forge.ParseSite(cmp.Or(instance, "https://github.com"), "/api/v3", "/api/graphql")
	if err != nil {
		return nil, "", "", err
	}
	if host, isAPI := strings.CutPrefix(web.Host, "api."); isAPI && inCloud(host) {
		web.Host = host
	}
	web.Host = strings.TrimPrefix(web.Host, "www.")
	if inCloud(web.Host) {
		api = web.Scheme + "://api." + web.Host
		return web, api, api + "/graphql", nil
	}
	return web, web.String() + "/api/v3", web.String() + "/api/graphql", nil
}

// inCloud reports whether a host is run by GitHub: its API has a host of its own then.
func inCloud(host string) bool { return host == "github.com" || strings.HasSuffix(host, ".ghe.com") }

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.web) }

// Requests counts the requests made to the API so far.
func (p *Provider) Requests() int64 {
	return p.client.Requests() + p.imports.Requests() + p.uploads.Requests()
}

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// account returns whose the credentials are. There is none without credentials.
func (p *Provider) account(ctx context.Context) (account, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.self != nil {
		return *p.self, nil
	}
	var self account
	switch {
	case p.anonymous():
		return account{}, errAnonymous()
	case p.app != nil:
		i, err := p.app.describe(ctx)
		if err != nil {
			return account{}, err
		}
		self = i.Account
	default:
		if _, err := p.client.Do(ctx, http.MethodGet, "/user", nil, nil, &self); err != nil {
			return account{}, fault.Wrap("github account", nil, err, "")
		}
	}
	if !plain(self.Login) {
		return account{}, fault.New("github account", fault.ErrCorrupt, "the answer names no account", "")
	}
	p.self = &self
	return self, nil
}

func errAnonymous() error {
	return fault.New("github account", fault.ErrInvalid, "there are no credentials", "name a user or an organisation, or give a token")
}

func (p *Provider) anonymous() bool { return p.app == nil && p.o.Token == "" && p.o.Password == "" }

// owns reports whether login is the account that the credentials are of.
func (p *Provider) owns(ctx context.Context, login string) (bool, error) {
	if p.anonymous() {
		return false, nil
	}
	self, err := p.account(ctx)
	return err == nil && self.is(login), err
}
