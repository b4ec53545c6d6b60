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

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

const (
	// pageSize is what is asked for; servers give what they are set to, 50 by default.
	pageSize = "100"
	// maxReadings is how often a listing is read that changes under the reader: where pages are cut by number, something deleted
	// meanwhile shifts the rest, and one goes unseen.
	maxReadings = 3
)

// Repositories implements forge.Provider.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		seen := map[string]bool{}
		for _, l := range p.listings(s) {
			more, err := p.list(ctx, l, s, seen, func(r forge.Repository) bool { return yield(r, nil) })
			if err != nil {
				yield(forge.Repository{}, err)
			}
			if err != nil || !more {
				return
			}
		}
		if err := p.unsupported(s); err != nil {
			yield(forge.Repository{}, err)
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

// list yields the repositories of a listing that were not seen before.
func (p *Provider) list(
	ctx context.Context, l listing, s forge.Selection, seen map[string]bool, yield func(forge.Repository) bool,
) (more bool, err error) {
	for _, at := range l.paths {
		more, err = p.readSteady(ctx, at, l, s, seen, yield)
		if !errors.Is(err, fault.ErrNotFound) {
			break
		}
	}
	return more, scoped(err)
}

// readSteady reads a listing until nothing changes meanwhile. What comes a second time was seen before.
func (p *Provider) readSteady(
	ctx context.Context, at string, l listing, s forge.Selection, seen map[string]bool, yield func(forge.Repository) bool,
) (more bool, err error) {
	for range maxReadings {
		more, steady, err := p.read(ctx, at, l, s, seen, yield)
		switch {
		case errors.Is(err, fault.ErrIncomplete): // fewer came than were counted
		case err != nil, !more, steady:
			return more, err
		}
	}
	return false, fault.New("list "+at, fault.ErrIncomplete, "repositories came or went each time they were listed", "run it again")
}

// read reads a listing once. It is steady where the number of repositories did not change meanwhile.
func (p *Provider) read(
	ctx context.Context, at string, l listing, s forge.Selection, seen map[string]bool, yield func(forge.Repository) bool,
) (more, steady bool, err error) {
	first := ""
	steady = true
	for page, err := range p.client.List(ctx, pages(at, url.Values{}, l.filtered)) {
		if err != nil {
			return false, steady, err
		}
		total := page.Response.Header.Get(totalCount)
		if first == "" {
			first = total
		}
		steady = steady && total == first
		fresh, err := p.fresh(ctx, page, l, s, seen)
		if err != nil {
			return false, steady, err
		}
		for _, r := range fresh {
			if !yield(r) {
				return false, steady, nil
			}
		}
	}
	return true, steady, nil
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

// fresh decodes what a page has that was not seen before. Wikis are only said to be enabled, as every new repository's is; HasWiki
// tells more.
func (p *Provider) fresh(ctx context.Context, page forge.Page, l listing, s forge.Selection, seen map[string]bool) ([]forge.Repository, error) {
	var fresh []forge.Repository
	listed := page.Response.Date()
	for _, raw := range page.Items {
		r, d, err := p.decode(raw, listed)
		if err != nil {
			return nil, err
		}
		if seen[r.ID] {
			continue
		}
		seen[r.ID] = true
		r.Class = l.class
		if s.Wikis && d.hasWiki() {
			r.WikiHTTPURL, r.WikiSSHURL = wikiURL(r.HTTPURL), wikiURL(r.SSHURL)
		}
		if s.Languages && !p.o.Gogs {
			if r.Languages, err = p.languages(ctx, r); err != nil {
				return nil, err
			}
		}
		fresh = append(fresh, r)
	}
	return fresh, nil
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
	answer, err := p.client.Do(ctx, http.MethodGet, wikiURL(p.repositoryURL(owner, name))+"/HEAD", nil, nil, nil, unclear...)
	if err != nil {
		return "", false, scoped(err)
	}
	if answer.Status == http.StatusOK {
		head = strings.TrimSpace(string(answer.Body[:min(len(answer.Body), 1024)]))
	}
	return head, answer.Status != http.StatusNotFound, nil
}

// wikiURL is the address of a repository's wiki: "…/api.git" → "…/api.wiki.git".
func wikiURL(address string) string {
	if address == "" {
		return ""
	}
	return strings.TrimSuffix(address, ".git") + ".wiki.git"
}

// languages are all languages of a repository, the main one first.
func (p *Provider) languages(ctx context.Context, r forge.Repository) ([]string, error) {
	var bytes map[string]int64
	if err := p.do(ctx, http.MethodGet, path("repos", r.Owner, r.Name, "languages"), nil, nil, &bytes); err != nil {
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
