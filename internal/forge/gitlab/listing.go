package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Repositories implements forge.Provider. Snippets are those that the token's own account wrote, personal and in projects: GitLab
// lists nobody else's. What an account contributed to, GitLab knows for a year back. A group that is not there costs no other group.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		lists, err := p.lists(ctx, s)
		if err != nil {
			yield(forge.Repository{}, err)
			return
		}
		for r, err := range forge.Union(lists...) {
			if err == nil && s.Languages && r.Class != forge.Gist {
				r.Languages, err = p.languages(ctx, r)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// lists are what a selection takes, in the order in which classes win: what is owned and starred is owned.
func (p *Provider) lists(ctx context.Context, s forge.Selection) ([]forge.Repositories, error) {
	own := s.User == "" && s.Organization == ""
	if p.o.Token == "" && (own || s.Gists || s.User == "" && (s.Starred || s.Contributed)) {
		// Asked without one, GitLab lists every public project there is.
		return nil, fault.New("list "+p.Host(), fault.ErrDenied, "without a token there is no own account", "give a token")
	}
	account := s.User
	if s.Gists && s.User != "" || s.Contributed && s.User == "" {
		var err error
		if account, err = p.account(ctx); err != nil {
			return nil, err
		}
	}

	byNumber := url.Values{"order_by": {"id"}, "sort": {"asc"}, "per_page": {"100"}}
	keyset := with(byNumber, "pagination", "keyset")
	var found []forge.Repositories
	projects := func(class forge.Class, path string, query url.Values) {
		found = append(found, p.list(ctx, path, query, func(raw json.RawMessage, _ time.Time) (forge.Repository, error) {
			r, err := p.decodeProject(raw, s.Wikis)
			r.Class = class
			return r, err
		}))
	}
	user := "/users/" + escaped(s.User)
	switch {
	case own:
		projects(forge.Owned, "/projects", with(keyset, "membership", "true", "statistics", "true"))
	case s.User != "":
		projects(forge.Owned, user+"/projects", with(keyset, "statistics", "true"))
	}
	for _, group := range append([]string{s.Organization}, s.Organizations...) {
		if group != "" {
			// Projects that other groups share with this one have another owner, and are in its listing.
			query := with(byNumber, "include_subgroups", "true", "with_shared", "false")
			projects(forge.Owned, "/groups/"+escaped(group)+"/projects", query)
		}
	}
	switch {
	case s.Starred && s.User == "":
		projects(forge.Starred, "/projects", with(keyset, "starred", "true"))
	case s.Starred:
		projects(forge.Starred, user+"/starred_projects", keyset)
	}
	switch {
	case s.Contributed && s.User == "":
		projects(forge.Contributed, "/users/"+escaped(account)+"/contributed_projects", byNumber)
	case s.Contributed:
		projects(forge.Contributed, user+"/contributed_projects", byNumber)
	}
	switch {
	case s.Gists && s.User != "" && !strings.EqualFold(s.User, account):
		found = append(found, forge.Refusal(fault.New("snippets of "+s.User, fault.ErrUnsupported,
			"GitLab lists only those of the token's own account, "+account, "leave gists out, or use a token of "+s.User)))
	case s.Gists:
		found = append(found, p.list(ctx, "/snippets", url.Values{"per_page": {"100"}}, func(raw json.RawMessage, _ time.Time) (forge.Repository, error) {
			return p.decodeSnippet(raw)
		}))
	}
	return found, nil
}

func with(query url.Values, pairs ...string) url.Values {
	query = maps.Clone(query)
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return query
}

// list is one list of the API.
func (p *Provider) list(
	ctx context.Context, path string, query url.Values, decode func(json.RawMessage, time.Time) (forge.Repository, error),
) forge.Repositories {
	list := forge.Steady(forge.Decode(p.pages(ctx, path, query), decode))
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range list {
			if !yield(r, pastLimit(err)) || err != nil {
				return
			}
		}
	}
}

// pastLimit says what GitLab's refusal of a page number beyond 50,000 items means.
func pastLimit(err error) error {
	if err == nil || !strings.Contains(err.Error(), "maximum allowed offset") {
		return err
	}
	return fault.Wrap("", fault.ErrUnsupported, err, "GitLab lists at most 50,000 projects of a group; name its subgroups one by one")
}

// languages of a project, the main one first.
func (p *Provider) languages(ctx context.Context, r forge.Repository) ([]string, error) {
	share := map[string]float64{}
	err := p.get(ctx, "/projects/"+r.ID+"/languages", nil, &share)
	if err != nil {
		if notFound(err) { // as where the project's repository is switched off
			return nil, nil
		}
		return nil, err
	}
	names := slices.Sorted(maps.Keys(share))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(share[b], share[a]) })
	return names, nil
}
