package onedev

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// pageSize is the most that OneDev gives.
const pageSize = 100

// project is what is read of a project's document.
type project struct {
	ID           int64  `json:"id"`
	ForkedFromID int64  `json:"forkedFromId"`
	Name         string `json:"name"`
	Path         string `json:"path"`
	Description  string `json:"description"`
	Code         *bool  `json:"codeManagement"`
}

func (p *Provider) decode(raw json.RawMessage) (r forge.Repository, code bool, err error) {
	var d project
	if err := json.Unmarshal(raw, &d); err != nil || d.ID <= 0 || !plainPath(d.Path) {
		return r, false, fault.New("project", fault.ErrUnavailable, "the server answers with what is no project", "")
	}
	owner, name := "", d.Path
	if at := strings.LastIndexByte(d.Path, '/'); at >= 0 {
		owner, name = d.Path[:at], d.Path[at+1:]
	}
	r = forge.Repository{
		ID: strconv.FormatInt(d.ID, 10), Owner: owner, Name: name, HTTPURL: p.web.JoinPath(escaped(d.Path)).String(),
		WebURL: p.web.JoinPath(escaped(d.Path)).String(), Description: d.Description, Fork: d.ForkedFromID > 0, Raw: raw,
		Private: true, // roles decide who may see it; no answer tells
	}
	return r, d.Code == nil || *d.Code, nil
}

// plainPath reports whether each segment of a path can be a directory.
func plainPath(path string) bool {
	for s := range strings.SplitSeq(path, "/") {
		if s == "" || s == "." || s == ".." || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
			return false
		}
	}
	return true
}

// escaped escapes the segments of a path.
func escaped(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// Repositories implements forge.Provider. Without User and Organization it takes all projects that the account may see. OneDev has no
// stars and no gists.
func (p *Provider) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	var lists []forge.Repositories
	for _, query := range queries(s) {
		lists = append(lists, forge.Steady(p.list(ctx, query)))
	}
	if s.Starred || s.Contributed || s.Gists {
		lists = append(lists, forge.Refusal(fault.New("list projects", fault.ErrUnsupported,
			"OneDev has no lists of what somebody starred or contributed to, and no gists", "leave that out of the selection")))
	}
	return forge.Union(lists...)
}

// queries are what a selection takes, in OneDev's words.
func queries(s forge.Selection) []string {
	var all []string
	if s.User != "" {
		all = append(all, "owned by "+quoted(s.User))
	}
	for _, above := range append([]string{s.Organization}, s.Organizations...) {
		if above != "" {
			all = append(all, `"Path" is `+quoted(strings.Trim(above, "/")+"/**"))
		}
	}
	if s.User == "" && s.Organization == "" {
		all = append(all, "")
	}
	return all
}

// list reads a listing once.
func (p *Provider) list(ctx context.Context, query string) forge.Repositories {
	return func(yield func(forge.Repository, error) bool) {
		all, err := p.read(ctx, strings.TrimSpace(query+` order by "Name"`))
		p.addSSH(ctx, all)
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(forge.Repository{}, err)
		}
	}
}

// read reads a listing once. What it has comes with the error. The server does not count: a listing of several pages is complete where
// its beginning is the same after the end.
func (p *Provider) read(ctx context.Context, query string) (all []forge.Repository, err error) {
	first, pages := "", 0
	for page, err := range p.client.List(ctx, p.pages("/projects", query)) {
		if err != nil {
			return all, err
		}
		if pages++; pages == 1 {
			first = text(page.Items)
		}
		for _, raw := range page.Items {
			r, code, err := p.decode(raw)
			if err != nil {
				return all, err
			}
			if code {
				all = append(all, r)
			}
		}
	}
	if pages <= 1 {
		return all, nil
	}
	var again []json.RawMessage
	if _, err := p.client.Do(ctx, http.MethodGet, "/projects", offset(query, 0), nil, &again); err != nil {
		return all, err
	}
	if text(again) != first {
		return all, fault.New("list projects", fault.ErrIncomplete, "projects came or went while they were listed", "run it again")
	}
	return all, nil
}

func text(items []json.RawMessage) string {
	var b strings.Builder
	for _, i := range items {
		b.Write(i)
	}
	return b.String()
}

// pages is a listing that ends with a page that is not full.
func (p *Provider) pages(at, query string) forge.Listing {
	from := 0
	return forge.Listing{Path: at, Query: offset(query, 0), Next: func(page forge.Page) (string, error) {
		if len(page.Items) < pageSize {
			return "", nil
		}
		from += len(page.Items)
		return at + "?" + offset(query, from).Encode(), nil
	}}
}

func offset(query string, from int) url.Values {
	return url.Values{"query": {query}, "offset": {strconv.Itoa(from)}, "count": {strconv.Itoa(pageSize)}}
}

// addSSH fills in the addresses for git over ssh. Where the server has ssh is in no listing, so it is asked for one project; where it
// does not say, they stay away.
func (p *Provider) addSSH(ctx context.Context, all []forge.Repository) {
	if len(all) == 0 {
		return
	}
	var clone struct {
		SSH string `json:"ssh"`
	}
	path := strings.TrimPrefix(all[0].FullName(), "/")
	if _, err := p.client.Do(ctx, http.MethodGet, "/projects/"+all[0].ID+"/clone-url", nil, nil, &clone); err != nil {
		return
	}
	root, ok := strings.CutSuffix(clone.SSH, path)
	if !ok {
		return
	}
	for i := range all {
		all[i].SSHURL = root + strings.TrimPrefix(all[i].FullName(), "/")
	}
}

// Find implements forge.Finder.
func (p *Provider) Find(ctx context.Context, r forge.Repository) (forge.Repository, error) {
	if _, err := strconv.ParseInt(r.ID, 10, 64); err != nil {
		return forge.Repository{}, fault.New("find project", fault.ErrInvalid, "it has no ID", "")
	}
	var raw json.RawMessage
	if _, err := p.client.Do(ctx, http.MethodGet, "/projects/"+r.ID, nil, nil, &raw); err != nil {
		return forge.Repository{}, err
	}
	found, _, err := p.decode(raw)
	return found, err
}

// Make implements forge.Maker. Who may see a new project is up to the roles that the server gives by default.
func (p *Provider) Make(ctx context.Context, n forge.NewRepository) (forge.Repository, error) {
	op := "make project " + strings.TrimPrefix(n.Owner+"/"+n.Name, "/")
	if n.Visibility != "" && n.Visibility != "private" {
		return forge.Repository{}, fault.New(op, fault.ErrUnsupported, "its API makes no project "+n.Visibility, "set it on the website")
	}
	r, err := p.ensure(ctx, strings.Trim(n.Owner, "/"), n.Name, map[string]any{"description": n.Description, "codeManagement": true})
	return r, fault.Wrap(op, nil, err, "")
}

// MakeOwner implements forge.Maker: each project of the path that is not there.
func (p *Provider) MakeOwner(ctx context.Context, name, visibility string) error {
	op := "make project " + name
	if visibility != "" && visibility != "private" {
		return fault.New(op, fault.ErrUnsupported, "its API makes no project "+visibility, "set it on the website")
	}
	above := ""
	for s := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if _, err := p.ensure(ctx, above, s, map[string]any{"codeManagement": false, "issueManagement": false}); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
		above = strings.TrimPrefix(above+"/"+s, "/")
	}
	return nil
}

// ensure finds a project by its path, or makes it.
func (p *Provider) ensure(ctx context.Context, above, name string, body map[string]any) (forge.Repository, error) {
	full := strings.TrimPrefix(above+"/"+name, "/")
	r, err := p.byPath(ctx, full)
	if !errors.Is(err, fault.ErrNotFound) {
		return r, err
	}
	body["name"] = name
	if above != "" {
		parent, err := p.byPath(ctx, above)
		if err != nil {
			return r, fault.Wrap("", nil, err, "make the project "+above+" first, or ask for owners to be made")
		}
		if body["parentId"], err = strconv.ParseInt(parent.ID, 10, 64); err != nil {
			return r, err
		}
	}
	if _, err := p.client.Do(ctx, http.MethodPost, "/projects", nil, body, nil); err != nil {
		return r, err
	}
	return p.byPath(ctx, full)
}

// byPath finds a project by its path.
func (p *Provider) byPath(ctx context.Context, path string) (forge.Repository, error) {
	var found []json.RawMessage
	if _, err := p.client.Do(ctx, http.MethodGet, "/projects", offset(`"Path" is `+quoted(path), 0), nil, &found); err != nil {
		return forge.Repository{}, err
	}
	for _, raw := range found {
		r, _, err := p.decode(raw)
		if err != nil {
			return r, err
		}
		if strings.EqualFold(strings.TrimPrefix(r.FullName(), "/"), path) { // the query takes wildcards
			one := []forge.Repository{r}
			p.addSSH(ctx, one)
			return one[0], nil
		}
	}
	return forge.Repository{}, fault.New("project "+path, fault.ErrNotFound, "it is not there, or the account cannot see it", "")
}
