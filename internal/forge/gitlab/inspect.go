package gitlab

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/forge"
)

// needed are the scopes that the token should have, each with those that include it, by GitLab's names.
func (o Options) needed() [][]string {
	if o.Copies {
		return [][]string{{"api"}}
	}
	return [][]string{{"read_api", "api"}, {"read_repository", "write_repository", "api"}}
}

// Inspect implements forge.Inspector.
func (p *Provider) Inspect(ctx context.Context) (forge.Credentials, error) {
	if p.o.Token == "" {
		return forge.Credentials{}, nil
	}
	account, err := p.account(ctx)
	if err != nil {
		return forge.Credentials{}, err
	}
	c := forge.Credentials{Account: account}

	var token struct {
		Scopes  []string `json:"scopes"`
		Expires string   `json:"expires_at"`
	}
	// OAuth tokens, and servers before 16.0, know no answer to this.
	allow := []int{http.StatusBadRequest, http.StatusNotFound}
	answer, err := p.client.Do(ctx, http.MethodGet, "/personal_access_tokens/self", nil, nil, &token, allow...)
	if err != nil {
		return c, err
	}
	said := p.client.Seen()
	c.Remaining, c.Limit, c.Reset = said.Remaining, said.Limit, said.Reset
	if answer.Status != http.StatusOK {
		return c, nil
	}
	if day, err := time.Parse(time.DateOnly, token.Expires); err == nil {
		c.Expires = day // at midnight UTC that day begins, and the token ends
	}
	for _, scopes := range p.o.needed() {
		if !slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(token.Scopes, s) }) {
			c.Missing = append(c.Missing, scopes[0])
		}
	}
	return c, nil
}
