package github

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// perPage is the most that GitHub gives in one answer.
const perPage = "100"

// decoder makes a repository of an object that GitHub answered at a time.
type decoder = func(raw json.RawMessage, answered time.Time) (forge.Repository, error)

// Repositories implements forge.Provider.
//
// A listing is complete when GitHub's links end, and no answer says that organisations are left out. It is not compared with the
// counts of repositories that accounts have: those count what the credentials need not see. A repository that moved to an earlier page
// while we read is missing, until Find tells that it is there.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		parts, err := p.parts(ctx, s)
		if err != nil {
			yield(forge.Repository{}, err)
			return
		}
		for r, err := range forge.Union(parts...) {
			if err == nil {
				err = p.complement(ctx, s, &r)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// parts gives the listings that the selection is made of, owned repositories first.
func (p *Provider) parts(ctx context.Context, s forge.Selection) ([]forge.Repositories, error) {
	for _, name := range append([]string{s.User, s.Organization}, s.Organizations...) {
		if name != "" && !plain(name) {
			return nil, fault.New(fmt.Sprintf("list repositories of %.80q", name), fault.ErrInvalid, "GitHub has no accounts of such a name", "")
		}
	}
	parts, err := p.owned(ctx, s)
	if err != nil {
		return nil, err
	}
	personal := []struct {
		wanted bool
		what   string
		list   func(ctx context.Context, login string) forge.Repositories
	}{
		{s.Contributed, "repositories it has contributed to", p.contributed},
		{s.Starred, "starred repositories", p.starred},
		{s.Gists, "gists", p.gists},
	}
	for _, l := range personal {
		if !l.wanted {
			continue
		}
		login, err := p.person(ctx, s.User, l.what)
		if err != nil {
			return nil, err
		}
		parts = append(parts, l.list(ctx, login))
	}
	return parts, nil
}

// owned gives the listings of the accounts that the selection names.
func (p *Provider) owned(ctx context.Context, s forge.Selection) ([]forge.Repositories, error) {
	var parts []forge.Repositories
	switch {
	case s.User != "":
		part, err := p.ofUser(ctx, s.User)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	case s.Organization == "":
		if p.anonymous() {
			return nil, errAnonymous()
		}
		parts = append(parts, p.visible(ctx))
	}
	if s.Organization != "" {
		parts = append(parts, p.ofOrganization(ctx, s.Organization))
	}
	for _, name := range s.Organizations {
		parts = append(parts, p.ofOrganization(ctx, name))
	}
	return parts, nil
}

// person returns the user whose stars, gists and contributions are meant: "" for the account that the token is of.
func (p *Provider) person(ctx context.Context, user, what string) (login string, err error) {
	if p.app != nil {
		return "", fault.New("list "+what, fault.ErrUnsupported, "a GitHub App acts for nobody who has any", "give a token of the account")
	}
	if user == "" {
		_, err := p.account(ctx)
		return "", err
	}
	owns, err := p.owns(ctx, user)
	if owns || err != nil {
		return "", err
	}
	return user, nil
}

// visible lists all that the credentials' own account owns, or may see as a member or collaborator.
func (p *Provider) visible(ctx context.Context) forge.Repositories {
	if p.app != nil {
		return p.list(ctx, "/installation/repositories", nil, "repositories", p.decode)
	}
	query := url.Values{"affiliation": {"owner,collaborator,organization_member"}, "sort": {"full_name"}}
	return p.list(ctx, "/user/repos", query, "", p.decode)
}

// ofUser lists what a user owns: of the credentials' own account all, of another one what is public.
func (p *Provider) ofUser(ctx context.Context, login string) (forge.Repositories, error) {
	owns, err := p.owns(ctx, login)
	if err != nil {
		return nil, err
	}
	var owner account
	switch {
	case owns:
		owner, err = p.account(ctx)
	default:
		_, err = p.client.Do(ctx, http.MethodGet, "/users/"+login, nil, nil, &owner)
	}
	switch {
	case err != nil:
		return nil, fault.Wrap("list repositories of "+login, nil, err, "")
	case owner.organization(): // the list of a user would be without its private repositories
		return p.ofOrganization(ctx, login), nil
	case owns && p.app != nil:
		return only(p.visible(ctx), login), nil
	case owns:
		return p.list(ctx, "/user/repos", url.Values{"affiliation": {"owner"}, "sort": {"full_name"}}, "", p.decode), nil
	}
	query := url.Values{"type": {"owner"}, "sort": {"full_name"}}
	return p.list(ctx, "/users/"+login+"/repos", query, "", p.decode), nil
}

func (p *Provider) ofOrganization(ctx context.Context, name string) forge.Repositories {
	query := url.Values{"type": {"all"}, "sort": {"full_name"}, "direction": {"asc"}}
	return p.list(ctx, "/orgs/"+name+"/repos", query, "", p.decode)
}

// starred lists in the order of starring, so that a new star moves nothing between pages.
func (p *Provider) starred(ctx context.Context, login string) forge.Repositories {
	path := "/user/starred"
	if login != "" {
		path = "/users/" + login + "/starred"
	}
	decode := func(raw json.RawMessage, answered time.Time) (forge.Repository, error) {
		r, err := p.decode(raw, answered)
		r.Class = forge.Starred
		return r, err
	}
	return p.list(ctx, path, url.Values{"sort": {"created"}, "direction": {"asc"}}, "", decode)
}

// gists lists the account's own with its secret ones, or the public ones of another user.
func (p *Provider) gists(ctx context.Context, login string) forge.Repositories {
	path := "/gists"
	if login != "" {
		path = "/users/" + login + "/gists"
	}
	return p.list(ctx, path, nil, "", p.decodeGist)
}

// only keeps the repositories of one owner.
func only(all forge.Repositories, owner string) forge.Repositories {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range all {
			if (err != nil || strings.EqualFold(r.Owner, owner)) && !yield(r, err) {
				return
			}
		}
	}
}

// list follows a listing to its end. key names the array in the answer, where the answer is not one itself.
func (p *Provider) list(ctx context.Context, path string, query url.Values, key string, decode decoder) forge.Repositories {
	return func(yield func(forge.Repository, error) bool) {
		if query == nil {
			query = url.Values{}
		}
		query.Set("per_page", perPage)
		for page, err := range p.client.List(ctx, forge.Listing{Path: path, Query: query, At: key, Total: total}) {
			if err == nil {
				err = leftOut(page.Response.Header)
			}
			if err != nil {
				yield(forge.Repository{}, err)
				return
			}
			for _, raw := range page.Items {
				r, err := decode(raw, page.Response.Date())
				if !yield(r, fault.Wrap("list "+path, nil, err, "")) || err != nil {
					return
				}
			}
		}
	}
}

// total reads how many repositories an installation has; other listings do not tell.
func total(page forge.Page) int {
	var answer struct {
		Total *int `json:"total_count"`
	}
	if json.Unmarshal(page.Response.Body, &answer) != nil || answer.Total == nil {
		return -1
	}
	return *answer.Total
}

// leftOut is an error where GitHub says that it lists without the organisations that want a single sign-on first.
func leftOut(header http.Header) error {
	kind, organizations, _ := strings.Cut(header.Get("X-GitHub-SSO"), ";")
	if kind != "partial-results" {
		return nil
	}
	return fault.New("single sign-on", fault.ErrDenied,
		fmt.Sprintf("repositories are left out of organisations by their ids:%.200s", organizations),
		"authorise the token for the organisations' single sign-on, in GitHub's settings of the token")
}

// complement fits a repository to the selection.
func (p *Provider) complement(ctx context.Context, s forge.Selection, r *forge.Repository) error {
	if !s.Wikis {
		r.WikiHTTPURL, r.WikiSSHURL = "", ""
	}
	if !s.Languages || r.Class == forge.Gist {
		return nil
	}
	var languages map[string]int64 // bytes of code
	path := "/repos/" + r.Owner + "/" + r.Name + "/languages"
	answer, err := p.client.Do(ctx, http.MethodGet, path, nil, nil, &languages,
		http.StatusNotFound, http.StatusUnavailableForLegalReasons)
	if err != nil {
		return fault.Wrap("languages of "+r.FullName(), nil, err, "")
	}
	if answer.Status != http.StatusOK {
		return nil // gone or blocked since: the main language stands, and git will say the rest
	}
	r.Languages = nil
	for name := range languages {
		r.Languages = append(r.Languages, name)
	}
	slices.SortFunc(r.Languages, func(a, b string) int {
		if languages[a] != languages[b] {
			return int(min(max(languages[b]-languages[a], -1), 1))
		}
		return strings.Compare(a, b)
	})
	return nil
}
