package gitea

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Inspect implements forge.Inspector. These forges limit no requests, their tokens do not expire, and a scope shows by asking for what
// needs it. What would write is asked for with a body that is none.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	var c forge.Credentials
	if p.o.Token == "" && p.o.Password == "" {
		return c, nil
	}
	name, err := p.whoami(ctx)
	if c.Missing = missingScopes(err); err != nil && len(c.Missing) == 0 {
		return c, err
	}
	c.Account = name
	if p.o.Gogs {
		return c, nil // its tokens have no scopes
	}
	one := url.Values{"limit": {"1"}}
	for _, l := range p.listings(p.o.Selection) {
		if err := p.miss(&c, p.do(ctx, http.MethodGet, l.paths[0], one, nil, nil)); err != nil {
			return c, err
		}
	}
	if p.o.Copies {
		for _, at := range []string{"/user/repos", "/orgs"} {
			if err := p.miss(&c, p.do(ctx, http.MethodPost, at, nil, struct{}{}, nil)); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// miss takes the scopes out of a refusal. That something is not there, or that there is nothing to make, says nothing of scopes.
func (p *Provider) miss(c *forge.Credentials, err error) error {
	for _, scope := range missingScopes(err) {
		if !slices.Contains(c.Missing, scope) {
			c.Missing = append(c.Missing, scope)
		}
	}
	if errors.Is(err, fault.ErrUnavailable) || errors.Is(err, fault.ErrThrottled) || ctxEnded(err) {
		return err
	}
	return nil
}

func ctxEnded(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
