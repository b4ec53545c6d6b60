package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Find implements forge.Finder. GitLab answers alike for what is gone and for what the token may not see any more.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	if number, ok := strings.CutPrefix(r.ID, snippetPrefix); ok {
		return p.findSnippet(ctx, number, r.Owner)
	}
	var raw json.RawMessage
	if err := p.get(ctx, "/projects/"+escaped(cmp.Or(r.ID, r.FullName())), nil, &raw); err != nil {
		return forge.Repository{}, err
	}
	return p.decodeProject(raw, r.WikiHTTPURL != "")
}

// findSnippet looks for a snippet by its number, and for one of a project there too.
func (p *Provider) findSnippet(ctx context.Context, number, owner string) (forge.Repository, error) {
	var raw json.RawMessage
	err := p.get(ctx, "/snippets/"+escaped(number), nil, &raw)
	if notFound(err) && strings.Contains(owner, "/") {
		err = p.get(ctx, "/projects/"+escaped(owner)+"/snippets/"+escaped(number), nil, &raw)
	}
	if err != nil {
		return forge.Repository{}, err
	}
	return p.decodeSnippet(raw)
}

// found is the project of exactly this path, letters' case aside. GitLab redirects from the old path of what was renamed: such a
// project is another one.
func (p *Provider) found(ctx context.Context, fullName string) (forge.Repository, error) {
	var raw json.RawMessage
	if err := p.get(ctx, "/projects/"+escaped(fullName), nil, &raw); err != nil {
		return forge.Repository{}, err
	}
	r, err := p.decodeProject(raw, true)
	if err == nil && !strings.EqualFold(r.FullName(), strings.Trim(fullName, "/")) {
		return forge.Repository{}, fault.New("find "+fullName, fault.ErrNotFound, "it is "+r.FullName()+" now", "")
	}
	return r, err
}
