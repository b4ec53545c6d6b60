// Package onedev speaks to OneDev as a provider of package forge. No OneDev could be run to check it: it follows the documented REST
// API, and the server's source where that says more.
//
// A project below another is a repository whose owner is the path of the one above; projects at the top have no owner. Projects that
// hold no code are not listed. OneDev's listings tell neither the last activity of a project nor its last push.
package onedev

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says which server is asked, and as whom: with a token, with a user name and a password, or as nobody.
type Options struct {
	URL      string       // of the server; "" is https://code.onedev.io
	Token    fault.Secret // access token
	Username string       // with Password
	Password fault.Secret

	// Client says how the API is reached. Base, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of one OneDev. Safe for concurrent use.
type Provider struct {
	o      Options
	web    *url.URL // of the server, without slash at its end
	client *forge.Client
	files  *forge.FileClient

	mu        sync.Mutex
	people    map[int64]json.RawMessage // by number; nil for who is gone
	strangers bool                      // the account is not told who others are
}

// Every ability that OneDev has.
var (
	_ forge.Provider    = (*Provider)(nil)
	_ forge.Inspector   = (*Provider)(nil)
	_ forge.Finder      = (*Provider)(nil)
	_ forge.IssueReader = (*Provider)(nil)
	_ forge.Maker       = (*Provider)(nil)
)

// New makes a provider. It sends nothing.
func New(o Options) (*Provider, error) {
	web, err := forge.ParseSite(cmp.Or(o.URL, "https://code.onedev.io"), "/~api")
	if err != nil {
		return nil, err
	}
	p := &Provider{o: o, web: web}
	options := o.Client
	options.Base = web.String() + "/~api"
	options.Authorize = forge.Authorize("Bearer", o.Token, o.Username, o.Password)
	options.Secrets = []fault.Secret{o.Token, o.Password}
	if p.client, err = forge.NewClient(options); err != nil {
		return nil, err
	}
	if p.files, err = p.client.Files(forge.FileHosts{Own: []string{web.String()}}); err != nil {
		return nil, err
	}
	return p, nil
}

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.web) }

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// Requests counts the requests sent so far.
func (p *Provider) Requests() int64 { return p.client.Requests() }

// GitCredentials are for git over https; both are "" where there are none. OneDev takes any name beside a token.
func (p *Provider) GitCredentials(context.Context) (username string, password fault.Secret, err error) {
	if p.o.Token != "" {
		return p.o.Username, p.o.Token, nil
	}
	return p.o.Username, p.o.Password, nil
}

// Inspect implements forge.Inspector. OneDev's tokens have no scopes, and it does not say when they expire.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	name, err := p.whoami(ctx)
	return forge.Credentials{Account: name}, err
}

func (p *Provider) whoami(ctx context.Context) (string, error) {
	var user struct {
		Name string `json:"name"`
	}
	if _, err := p.client.Do(ctx, http.MethodGet, "/users/me", nil, nil, &user); err != nil {
		return "", err
	}
	if user.Name == "" {
		return "", fault.New("account", fault.ErrUnavailable, "the server answers without a name", "")
	}
	return user.Name, nil
}

// quoted makes a value of OneDev's query language.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
