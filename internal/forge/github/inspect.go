package github

import (
	"context"
	"net/http"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Inspect implements forge.Inspector: one request with a token, two as an App. Fine-grained tokens do not tell what they may.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	c, err := p.inspect(ctx)
	return c, fault.Wrap("inspect credentials", nil, err, "")
}

func (p *Provider) inspect(ctx context.Context) (forge.Credentials, error) {
	var owner account
	var lacks []string
	path, into := "/user", any(&owner)
	if p.app != nil {
		d, err := p.app.describe(ctx)
		if err != nil {
			return forge.Credentials{}, err
		}
		owner, lacks = d.Account, p.withheld(d.Permissions)
	}
	if p.app != nil || p.anonymous() {
		path, into = "/rate_limit", nil
	}
	if _, err := p.client.Do(ctx, http.MethodGet, path, nil, nil, into); err != nil {
		return forge.Credentials{}, err
	}
	said := p.client.Seen()
	if said.Scopes != nil && p.app == nil && !p.anonymous() {
		lacks = missing(said.Scopes, p.needs(owner))
	}
	return forge.Credentials{
		Account: owner.Login, Expires: said.Expires, Missing: lacks,
		Remaining: said.Remaining, Limit: said.Limit, Reset: said.Reset,
	}, nil
}

// withheld are the permissions that an App needs and lacks.
func (p *Provider) withheld(granted map[string]string) []string {
	var lacks []string
	for _, need := range []string{"metadata", "contents"} {
		if granted[need] == "" {
			lacks = append(lacks, need+":read")
		}
	}
	if !p.o.Copies {
		return lacks
	}
	for _, need := range []string{"administration", "contents", "workflows"} {
		if granted[need] != "write" {
			lacks = append(lacks, need+":write")
		}
	}
	return lacks
}

// needs are the scopes of a classic token that the selection takes. Without "repo" GitHub lists private repositories not at all, and
// says nothing; "workflow" is what a push of .github/workflows wants.
func (p *Provider) needs(self account) []string {
	var scopes []string
	s := p.o.Selection
	own := s.User == "" || self.is(s.User)
	if own || s.Organization != "" || len(s.Organizations) > 0 || p.o.Copies {
		scopes = append(scopes, "repo")
	}
	if p.o.Copies {
		scopes = append(scopes, "workflow")
	}
	if s.Gists && own {
		scopes = append(scopes, "gist")
	}
	return scopes
}

func missing(granted, needed []string) []string {
	return slices.DeleteFunc(needed, func(scope string) bool { return slices.Contains(granted, scope) })
}
