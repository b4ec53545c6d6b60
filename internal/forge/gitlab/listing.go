package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// maxReadings is how often a list is read that shrinks meanwhile: where pages are cut by number, what follows something deleted moves
// up, and one item goes unseen.
const maxReadings = 3

// Repositories implements forge.Provider. Snippets are those that the token's own account wrote, personal and in projects: GitLab
// lists nobody else's. What an account contributed to, GitLab knows for a year back. A group that is not there costs no other group.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		listings, err := p.listings(ctx, s)
		if err != nil {
			yield(forge.Repository{}, err)
			return
		}
		seen := map[string]bool{}
		take := func(r forge.Repository) (err error) {
			if seen[r.ID] {
				return nil
			}
			if s.Languages && r.Class != forge.Gist {
				if r.Languages, err = p.languages(ctx, r); err != nil {
					return err
				}
			}
			seen[r.ID] = true
			if !yield(r, nil) {
				return errStopped
			}
			return nil
		}
		var failed []error
		for _, l := range listings {
			err := p.read(ctx, l, take)
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				failed = append(failed, err)
			}
			if err != nil && !ofOneList(err) {
				break
			}
		}
		if len(failed) > 0 {
			yield(forge.Repository{}, errors.Join(failed...))
		}
	}
}

// errStopped says that nobody wants more of a listing.
var errStopped = errors.New("stopped")

// ofOneList reports whether what failed may fail for one list, and not for others.
func ofOneList(err error) bool {
	return errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrUnsupported)
}

// listing is one list of the API.
type listing struct {
	path   string
	query  url.Values
	decode func(json.RawMessage) (forge.Repository, error)
	refuse error // why it cannot be read
}

// listings are what a selection takes, in the order in which classes win: what is owned and starred is owned.
func (p *Provider) listings(ctx context.Context, s forge.Selection) ([]listing, error) {
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
	var found []listing
	projects := func(class forge.Class, path string, query url.Values) {
		found = append(found, listing{path: path, query: query, decode: func(raw json.RawMessage) (forge.Repository, error) {
			r, err := p.decodeProject(raw, s.Wikis)
			r.Class = class
			return r, err
		}})
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
		found = append(found, listing{refuse: fault.New("snippets of "+s.User, fault.ErrUnsupported,
			"GitLab lists only those of the token's own account, "+account, "leave gists out, or use a token of "+s.User)})
	case s.Gists:
		found = append(found, listing{path: "/snippets", query: url.Values{"per_page": {"100"}}, decode: p.decodeSnippet})
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

// read follows a listing to its end, or until take fails. One that shrank meanwhile is read again; what comes twice is take's to notice.
func (p *Provider) read(ctx context.Context, l listing, take func(forge.Repository) error) error {
	if l.refuse != nil {
		return l.refuse
	}
	var err error
	for range maxReadings {
		if err = p.readOnce(ctx, l, take); !errors.Is(err, fault.ErrIncomplete) {
			break
		}
	}
	return pastLimit(err)
}

func (p *Provider) readOnce(ctx context.Context, l listing, take func(forge.Repository) error) error {
	for page, err := range p.pages(ctx, l.path, l.query) {
		if err != nil {
			return err
		}
		for _, raw := range page.Items {
			r, err := l.decode(raw)
			if err != nil {
				return err
			}
			if err := take(r); err != nil {
				return err
			}
		}
	}
	return nil
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
