// Package gitea speaks to Gitea, Forgejo and Gogs as a provider of package forge.
//
// All of it was checked against a real Gitea 1.26. Forgejo has the same API. Gogs could not be run; its thinner API is spoken as its
// source describes it.
//
// What a listing's mark (Repository.Mark) does not see, as Gitea 1.26 behaves: a tag that is made or deleted by the API or on the
// website without a release, refs that are neither branch nor tag (refs/notes, and refs/pull when a fork is pushed to), and wikis.
// Those are noticed when the source itself is asked next (git.SourceOptions.Recheck). Gogs' listings carry no mark at all.
package gitea

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says which instance is asked, and as whom: with a token, with a user name and a password, or as nobody.
type Options struct {
	URL      string // of the instance; "" is https://gitea.com
	Gogs     bool   // the instance is a Gogs
	Token    fault.Secret
	Username string // with Password; or the name that goes with Token for git
	Password fault.Secret

	// What Inspect measures the token's scopes by: what will be listed, and whether repositories are to be made.
	Selection forge.Selection
	Copies    bool

	// Client says how the API is reached. Base, Header, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of one instance. Safe for concurrent use.
type Provider struct {
	o      Options
	web    *url.URL // of the instance, without slash at its end
	client *forge.Client
	files  *forge.FileClient

	mu      sync.Mutex
	self    string // whose the credentials are, once asked for
	perPage int    // items that the server puts on a page, once asked for
}

// Every ability that these forges have.
var (
	_ forge.Provider    = (*Provider)(nil)
	_ forge.Inspector   = (*Provider)(nil)
	_ forge.Finder      = (*Provider)(nil)
	_ forge.IssueReader = (*Provider)(nil)
	_ forge.WikiFinder  = (*Provider)(nil)
	_ forge.Maker       = (*Provider)(nil)
	_ forge.WikiMaker   = (*Provider)(nil)
	_ forge.Puller      = (*Provider)(nil)
)

// New makes a provider. It sends nothing.
func New(o Options) (*Provider, error) {
	web, err := forge.ParseSite(cmp.Or(o.URL, "https://gitea.com"), "/api/v1")
	if err != nil {
		return nil, err
	}
	p := &Provider{o: o, web: web}
	options := o.Client
	options.Base = web.String() + "/api/v1"
	options.Header = map[string]string{"Accept": "application/json"}
	options.Authorize = forge.Authorize("token", o.Token, o.Username, o.Password)
	options.Secrets = []fault.Secret{o.Token, o.Password}
	if p.client, err = forge.NewClient(options); err != nil {
		return nil, err
	}
	p.files, err = p.client.Files(forge.FileHosts{Own: []string{web.String()}})
	return p, err
}

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.web) }

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// Requests counts the requests sent so far.
func (p *Provider) Requests() int64 { return p.client.Requests() }

// GitCredentials are for git over https; both are "" where there are none. Git LFS wants the token's own account as user name, so that
// is asked for unless it was given.
func (p *Provider) GitCredentials(ctx context.Context) (username string, password fault.Secret, err error) {
	if p.o.Token == "" {
		return p.o.Username, p.o.Password, nil
	}
	if p.o.Username != "" {
		return p.o.Username, p.o.Token, nil
	}
	username, err = p.account(ctx)
	if errors.Is(err, fault.ErrDenied) {
		return "", p.o.Token, nil // a token that may not say whose it is can still be good for git
	}
	return username, p.o.Token, err
}

// account is who the credentials belong to. It is asked for once.
func (p *Provider) account(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.self == "" {
		name, err := p.whoami(ctx)
		if err != nil {
			return "", err
		}
		p.self = name
	}
	return p.self, nil
}

func (p *Provider) whoami(ctx context.Context) (string, error) {
	if p.o.Token == "" && p.o.Password == "" {
		return "", fault.New("account", fault.ErrInvalid, "there are no credentials", "name a user or an organisation, or give a token")
	}
	var user account
	if err := p.do(ctx, http.MethodGet, "/user", nil, nil, &user); err != nil {
		return "", err
	}
	if !forge.PlainName(user.name()) {
		return "", fault.New("account", fault.ErrUnavailable, "the server answers without a name", "")
	}
	return user.name(), nil
}

// do sends one request. A scope that the token lacks is named in the hint.
func (p *Provider) do(ctx context.Context, method, path string, query url.Values, body, into any) error {
	_, err := p.client.Do(ctx, method, path, query, body, into)
	return scoped(err)
}

// neededScopes is how Gitea, from 1.20 on, says what a token lacks.
var neededScopes = regexp.MustCompile(`required=\[([a-z:, ]{1,200})\]`)

// missingScopes reads them from a refusal.
func missingScopes(err error) []string {
	if !errors.Is(err, fault.ErrDenied) {
		return nil
	}
	if m := neededScopes.FindStringSubmatch(err.Error()); m != nil {
		return strings.FieldsFunc(m[1], func(r rune) bool { return r == ' ' || r == ',' })
	}
	return nil
}

// scoped adds a hint to a refusal that names scopes.
func scoped(err error) error {
	scopes := missingScopes(err)
	if len(scopes) == 0 {
		return err
	}
	return fault.Wrap("", fault.ErrDenied, err, "give the token the scope "+strings.Join(scopes, " and "))
}

// path joins segments, each escaped, to a path of the API.
func path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}
