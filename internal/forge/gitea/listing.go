package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// pageSize is what is asked for; servers give what they are set to, 50 by default.
const pageSize = "100"

// Repositories implements forge.Provider.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	var lists []forge.Repositories
	for _, l := range p.listings(s) {
		lists = append(lists, p.list(ctx, l, s.Wikis))
	}
	if err := p.unsupported(s); err != nil {
		lists = append(lists, forge.Refusal(err))
	}
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range forge.Union(lists...) {
			if err == nil && s.Languages && !p.o.Gogs {
				r.Languages, err = p.languages(ctx, r)
			}
			if !yield(r, scoped(err)) || err != nil {
				return
			}
		}
	}
}

// listing is one list of repositories.
type listing struct {
	paths []string // the first that is there
	class forge.Class
	// filtered lists leave out what the account may not see, and count it nevertheless.
	filtered bool
}

// listings are what a selection takes, in the order in which classes win: what is owned and starred is owned.
func (p *Provider) listings(s forge.Selection) []listing {
	var found []listing
	add := func(l listing) { found = append(found, l) }
	switch {
	case s.User != "":
		add(listing{paths: []string{path("users", s.User, "repos")}, filtered: true})
	case s.Organization == "":
		add(listing{paths: []string{"/user/repos"}})
	}
	if s.Organization != "" {
		add(listing{paths: []string{path("orgs", s.Organization, "repos")}, filtered: true})
	}
	for _, owner := range s.Organizations {
		add(listing{paths: []string{path("orgs", owner, "repos"), path("users", owner, "repos")}, filtered: true})
	}
	if s.Starred && !p.o.Gogs {
		starred := "/user/starred"
		if s.User != "" {
			starred = path("users", s.User, "starred")
		}
		add(listing{paths: []string{starred}, class: forge.Starred, filtered: true})
	}
	return found
}

// unsupported says what of a selection these forges do not have.
func (p *Provider) unsupported(s forge.Selection) error {
	var lacking []string
	if s.Starred && p.o.Gogs {
		lacking = append(lacking, "a list of starred repositories")
	}
	if s.Contributed {
		lacking = append(lacking, "a list of contributions")
	}
	if s.Gists {
		lacking = append(lacking, "gists")
	}
	if len(lacking) == 0 {
		return nil
	}
	return fault.New("list repositories", fault.ErrUnsupported, "the forge has not "+strings.Join(lacking, ", "), "leave that out of the selection")
}

// list reads a listing.
func (p *Provider) list(ctx context.Context, l listing, wikis bool) forge.Repositories {
	return forge.Steady(forge.Decode(p.firstThere(ctx, l), func(raw json.RawMessage, answered time.Time) (forge.Repository, error) {
		r, d, err := p.decode(raw, answered)
		r.Class = l.class
		// Wikis are only said to be enabled, as every new repository's is; HasWiki tells more.
		if wikis && d.hasWiki() {
			r.WikiHTTPURL, r.WikiSSHURL = forge.WikiBeside(r.HTTPURL), forge.WikiBeside(r.SSHURL)
		}
		return r, err
	}))
}

// firstThere are the pages of the first of a listing's paths that is there.
func (p *Provider) firstThere(ctx context.Context, l listing) iter.Seq2[forge.Page, error] {
	return func(yield func(forge.Page, error) bool) {
		for i, at := range l.paths {
			elsewhere := false
			for page, err := range p.counted(ctx, at, l.filtered) {
				if elsewhere = errors.Is(err, fault.ErrNotFound) && i < len(l.paths)-1; elsewhere {
					break
				}
				if !yield(page, err) || err != nil {
					return
				}
			}
			if !elsewhere {
				return
			}
		}
	}
}

// counted are the pages of a list, which is incomplete where the number of repositories changes from page to page.
func (p *Provider) counted(ctx context.Context, at string, filtered bool) iter.Seq2[forge.Page, error] {
	return func(yield func(forge.Page, error) bool) {
		first, steady := "", true
		for page, err := range p.client.List(ctx, pages(at, url.Values{}, filtered)) {
			if err == nil {
				total := page.Response.Header.Get(totalCount)
				first = cmp.Or(first, total)
				steady = steady && total == first
			}
			if !yield(page, err) || err != nil {
				return
			}
		}
		if !steady {
			yield(forge.Page{}, fault.New("list "+at, fault.ErrIncomplete, "repositories came or went while they were listed", "run it again"))
		}
	}
}

const totalCount = "X-Total-Count"

// pages is a listing by page numbers. The links say whether there is another page; where it is is not taken from them, for they name
// the host that the server was configured with. Without links, as behind some proxies, it goes on while the count says so. Where
// filtered, the count says nothing of what arrives.
func pages(at string, query url.Values, filtered bool) forge.Listing {
	query.Set("limit", pageSize)
	number, arrived := 1, 0
	l := forge.Listing{Path: at, Query: query, Next: func(page forge.Page) (string, error) {
		arrived += len(page.Items)
		link := page.Response.Header.Get("Link")
		total, err := strconv.Atoi(page.Response.Header.Get(totalCount))
		more := strings.Contains(link, `rel="next"`)
		if link == "" && err == nil {
			more = len(page.Items) > 0 && arrived < total
		}
		if !more {
			return "", nil
		}
		number++
		next := url.Values{"page": {strconv.Itoa(number)}}
		for k, v := range query {
			next[k] = v
		}
		return at + "?" + next.Encode(), nil
	}}
	if filtered {
		l.Total = func(forge.Page) int { return -1 }
	}
	return l
}

// HasWiki implements forge.WikiFinder: a wiki that somebody wrote is a repository of its own, which has a HEAD. Gitea 1.26 answers git
// with an internal error where there is none. What is unclear counts as a wiki; git will tell.
func (p *Provider) HasWiki(ctx context.Context, r forge.Repository) (bool, error) {
	_, found, err := p.wikiHead(ctx, r.Owner, r.Name)
	return found, err
}

// wikiHead reads the HEAD of a wiki's repository, "" where it cannot be read.
func (p *Provider) wikiHead(ctx context.Context, owner, name string) (head string, found bool, err error) {
	unclear := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}
	answer, err := p.client.Do(ctx, http.MethodGet, forge.WikiBeside(p.repositoryURL(owner, name))+"/HEAD", nil, nil, nil, unclear...)
	if err != nil {
		return "", false, scoped(err)
	}
	if answer.Status == http.StatusOK {
		head = strings.TrimSpace(string(answer.Body[:min(len(answer.Body), 1024)]))
	}
	return head, answer.Status != http.StatusNotFound, nil
}

// languages are all languages of a repository, the main one first.
func (p *Provider) languages(ctx context.Context, r forge.Repository) ([]string, error) {
	var bytes map[string]int64
	if _, err := p.client.Do(ctx, http.MethodGet, path("repos", r.Owner, r.Name, "languages"), nil, nil, &bytes); err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Keys(bytes), func(a, b string) int {
		return cmp.Or(cmp.Compare(bytes[b], bytes[a]), strings.Compare(a, b))
	}), nil
}

// Find implements forge.Finder.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	if p.o.Gogs || r.ID == "" { // Gogs finds nothing by its ID
		found, _, err := p.get(ctx, r.Owner, r.Name)
		if err == nil && r.ID != "" && found.ID != r.ID {
			err = fault.New("find "+r.FullName(), fault.ErrNotFound, "another repository has the name now", "")
		}
		return found, err
	}
	if _, err := strconv.ParseInt(r.ID, 10, 64); err != nil {
		return forge.Repository{}, fault.New("find repository", fault.ErrInvalid, fmt.Sprintf("%q is no ID", r.ID), "")
	}
	found, _, err := p.fetch(ctx, path("repositories", r.ID))
	return found, err
}

// get asks for a repository by name.
func (p *Provider) get(ctx context.Context, owner, name string) (forge.Repository, repository, error) {
	return p.fetch(ctx, path("repos", owner, name))
}

func (p *Provider) fetch(ctx context.Context, at string) (forge.Repository, repository, error) {
	var raw json.RawMessage
	answer, err := p.client.Do(ctx, http.MethodGet, at, nil, nil, &raw)
	if err != nil {
		return forge.Repository{}, repository{}, scoped(err)
	}
	return p.decode(raw, answer.Date())
}
