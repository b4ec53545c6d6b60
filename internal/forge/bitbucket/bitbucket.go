// Package bitbucket lists workspaces of Bitbucket Cloud. What could not be seen is said where it matters: Bitbucket cannot be run
// elsewhere, so this follows its published description. Its issue tracker was removed in August 2026: where a repository still says that it
// has one, that is asked for, and counts as gone.
package bitbucket

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says as whom Bitbucket is asked.
type Options struct {
	URL string // "" for https://bitbucket.org

	// Token is an API token of the account whose e-mail address is Username; or, without that, an access token of a workspace, project
	// or repository. Password is taken where there is no Token.
	Token    fault.Secret
	Username string
	Password fault.Secret

	// Client says how the API is reached. Base, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of Bitbucket Cloud.
type Provider struct {
	o      Options
	site   *url.URL
	api    string // address
	client *forge.Client
	files  *forge.FileClient
}

// Every ability that Bitbucket has. It makes no repositories, for nobody mirrors to it.
var (
	_ forge.Provider  = (*Provider)(nil)
	_ forge.Inspector = (*Provider)(nil)
	_ forge.Finder    = (*Provider)(nil)
)

// The names that git gives with a token: an API token of a person, and an access token.
const (
	apiTokenName    = "x-bitbucket-api-token-auth"
	accessTokenName = "x-token-auth"
)

// New makes a provider. It sends nothing yet.
func New(o Options) (*Provider, error) {
	site, api, err := addresses(o.URL)
	if err != nil {
		return nil, err
	}
	o.Client.Base = api
	o.Client.Authorize = authorize(o)
	o.Client.Secrets = []fault.Secret{o.Token, o.Password}
	client, err := forge.NewClient(o.Client)
	if err != nil {
		return nil, fault.Wrap("bitbucket", nil, err, "")
	}
	files, err := client.Files(forge.FileHosts{Own: []string{site.String()}, Stores: stores()})
	if err != nil {
		return nil, fault.Wrap("bitbucket", nil, err, "")
	}
	return &Provider{o: o, site: site, api: api, client: client, files: files}, nil
}

// addresses says where the site is, and its API: on another host for Bitbucket itself.
func addresses(address string) (site *url.URL, api string, err error) {
	site, err = forge.ParseSite(cmp.Or(address, "https://bitbucket.org"), "/2.0")
	if err != nil {
		return nil, "", err
	}
	switch strings.TrimPrefix(strings.TrimPrefix(site.Host, "www."), "api.") {
	case "bitbucket.org":
		return &url.URL{Scheme: site.Scheme, Host: "bitbucket.org"}, site.Scheme + "://api.bitbucket.org/2.0", nil
	}
	return site, site.JoinPath("2.0").String(), nil
}

func authorize(o Options) func(context.Context, http.Header) error {
	return func(_ context.Context, header http.Header) error {
		secret := cmp.Or(o.Token, o.Password)
		switch {
		case secret == "":
		case o.Username != "":
			forge.SetBasicAuth(header, o.Username, secret)
		default:
			header.Set("Authorization", "Bearer "+secret.Reveal())
		}
		return nil
	}
}

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.site) }

// Requests counts the requests made to the API so far.
func (p *Provider) Requests() int64 { return p.client.Requests() }

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// GitCredentials are for git over https; both are "" where there are none.
func (p *Provider) GitCredentials(context.Context) (username string, password fault.Secret, err error) {
	secret := cmp.Or(p.o.Token, p.o.Password)
	switch {
	case secret == "":
		return "", "", nil
	case p.o.Username == "":
		return accessTokenName, secret, nil
	case strings.Contains(p.o.Username, "@"): // which the API knows, and git does not
		return apiTokenName, secret, nil
	}
	return p.o.Username, secret, nil
}
