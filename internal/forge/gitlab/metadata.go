package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// Names of collections that others refer to.
const (
	issuesName   = "issues" // by their iid, as people call them: "#12"
	pullsName    = "pulls"  // merge requests by theirs, which GitLab counts apart: "!12"
	settingsName = "settings"
	settingsID   = "repository"
)

// maxReadings is how often a listing is read that changes meanwhile.
const maxReadings = 3

// thing is what is read of every record to name and date it. Each sort of thing has some of the fields.
type thing struct {
	ID      int64     `json:"id"`
	IID     int64     `json:"iid"`
	Name    string    `json:"name"`
	Tag     string    `json:"tag_name"`
	Updated time.Time `json:"updated_at"`
}

func byID(t thing) string   { return number(t.ID) }
func byIID(t thing) string  { return number(t.IID) }
func byName(t thing) string { return t.Name }
func byTag(t thing) string  { return t.Tag }

// number is an ID as people write it; "" for none.
func number(n int64) string {
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return "gitlab" }

// Collections implements forge.MetadataReader. What belongs to one issue or merge request GitLab gives for one at a time only: it costs
// a request each, for those that changed. Not read are reactions to comments, a request each comment; comments on commits, a request
// each commit; what is the group's, but for the labels and milestones that the project uses of it; packages, pipelines, variables.
func (p *Provider) Collections(r forge.Repository) []forge.Collection {
	if strings.HasPrefix(r.ID, snippetPrefix) {
		return nil // it is a repository, and what GitLab says beside it is in its listing
	}
	has := featuresOf(r.Raw)
	all := []forge.Collection{
		{Name: settingsName, Read: p.readSettings},
		p.whole("labels", "/labels", byID, "include_ancestor_groups", "true"),
		p.whole("milestones", "/milestones", byID, "include_ancestors", "true"),
	}
	if has.issues {
		all = append(all, p.changing(issuesName, "/issues", "scope", "all", "state", "all"))
		all = append(all, p.belonging(issuesName, "/issues/")...)
		all = append(all, p.each("links", issuesName, "/issues/", "/links", byID)) // by the other issue
		all = append(all, p.whole("boards", "/boards", byID))
	}
	if has.pulls {
		all = append(all, p.changing(pullsName, "/merge_requests", "scope", "all", "state", "all"))
		all = append(all, p.belonging(pullsName, "/merge_requests/")...)
		all = append(all, p.each("commits-of-pulls", pullsName, "/merge_requests/", "/versions", byID), p.approvals())
	}
	if has.releases {
		all = append(all, p.whole("releases", "/releases", byTag, "order_by", "created_at", "sort", "asc"))
	}
	if has.snippets {
		all = append(all, p.whole("snippets", "/snippets", byID))
	}
	return append(all,
		p.whole("rules", "/protected_branches", byName),
		p.whole("tag-rules", "/protected_tags", byName),
		p.cleaned(p.whole("hooks", "/hooks", byID)),
		p.whole("keys", "/deploy_keys", byID),
		p.whole("collaborators", "/members/all", byID),
	)
}

// features are what a project has switched on.
type features struct{ issues, pulls, releases, snippets bool }

// featuresOf reads them of a project as listed. What it does not say is taken to be there: the forge refuses what is not.
func featuresOf(raw json.RawMessage) features {
	var in struct {
		Issues   string `json:"issues_access_level"`
		Pulls    string `json:"merge_requests_access_level"`
		Releases string `json:"releases_access_level"`
		Snippets string `json:"snippets_access_level"`
	}
	if json.Unmarshal(raw, &in) != nil {
		return features{true, true, true, true}
	}
	return features{in.Issues != off, in.Pulls != off, in.Releases != off, in.Snippets != off}
}

// off is the access level of what a project has not.
const off = "disabled"

func projectPath(r forge.Repository) string { return "/projects/" + escaped(r.ID) }

// whole is a collection that is read whole each time.
func (p *Provider) whole(name, path string, id func(thing) string, query ...string) forge.Collection {
	return forge.Collection{Name: name, Read: func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			l := listing{name: name, path: projectPath(q.Repository) + path, query: with(hundred(), query...), id: id}
			if err := p.read(ctx, l, func(r archive.Record) bool { return yield(r, nil) }); err != nil {
				yield(archive.Record{}, fault.Wrap(name+" of "+q.Repository.FullName(), nil, err, maintainerHint(err)))
			}
		}
	}}
}

// maintainerHint says what most refusals mean: GitLab shows hooks and rules to maintainers only.
func maintainerHint(err error) string {
	if errors.Is(err, fault.ErrDenied) {
		return "the token needs the scope read_api, and its account the role Maintainer in the project"
	}
	return ""
}

func hundred() url.Values { return url.Values{"per_page": {"100"}} }

// listing is one list of the API, and what its items are called.
type listing struct {
	name   string
	path   string
	query  url.Values
	id     func(thing) string
	parent archive.Key
}

// read yields all of a listing.
func (p *Provider) read(ctx context.Context, l listing, yield func(archive.Record) bool) error {
	return p.items(ctx, l.path, l.query, func(raw json.RawMessage) (more bool, err error) {
		record, err := l.record(raw)
		return err == nil && yield(record), err
	})
}

// items yields the items of a listing. Pages are cut by number: where something was deleted meanwhile, and less came than there is, it
// is read again, and some of it comes twice.
func (p *Provider) items(ctx context.Context, path string, query url.Values, yield func(json.RawMessage) (more bool, err error)) error {
	for reading := 1; ; reading++ {
		err := p.itemsOnce(ctx, path, query, yield)
		if !errors.Is(err, fault.ErrIncomplete) || reading == maxReadings {
			return err
		}
	}
}

func (p *Provider) itemsOnce(ctx context.Context, path string, query url.Values, yield func(json.RawMessage) (more bool, err error)) error {
	for page, err := range p.pages(ctx, path, query) {
		if err != nil {
			return err
		}
		for _, raw := range page.Items {
			if more, err := yield(raw); err != nil || !more {
				return err
			}
		}
	}
	return nil
}

// record names and dates an item.
func (l listing) record(raw json.RawMessage) (archive.Record, error) {
	var in thing
	if err := json.Unmarshal(raw, &in); err != nil {
		return archive.Record{}, fault.Wrap("gitlab "+l.name, fault.ErrUnavailable, err, "")
	}
	id := l.id(in)
	if id == "" {
		return archive.Record{}, fault.New("gitlab "+l.name, fault.ErrUnavailable, "the server listed one without a name", "")
	}
	return archive.Record{Key: archive.Key{Collection: l.name, ID: id}, Parent: l.parent, Updated: in.Updated, Raw: raw}, nil
}

// readSettings yields the project itself, without the token that it shows to maintainers.
func (p *Provider) readSettings(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		var raw json.RawMessage
		err := p.get(ctx, projectPath(q.Repository), nil, &raw)
		if err == nil {
			raw, err = without(raw, "import_url", "runners_token")
		}
		if err != nil {
			yield(archive.Record{}, fault.Wrap("settings of "+q.Repository.FullName(), nil, err, ""))
			return
		}
		l := listing{name: settingsName, id: func(thing) string { return settingsID }}
		yield(l.record(raw))
	}
}

// cleaned takes out of hooks' addresses what may be a secret: name, password and query.
func (p *Provider) cleaned(c forge.Collection) forge.Collection {
	read := c.Read
	c.Read = func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			for record, err := range read(ctx, q) {
				if err == nil {
					record.Raw, err = cleanHook(record.Raw)
				}
				if !yield(record, err) || err != nil {
					return
				}
			}
		}
	}
	return c
}

func cleanHook(raw json.RawMessage) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return nil, fault.New("gitlab hook", fault.ErrUnavailable, "the server listed one that is no object", "")
	}
	var address string
	_ = json.Unmarshal(object["url"], &address) // what is no text is no address
	u, err := url.Parse(address)
	if err != nil {
		u = &url.URL{}
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	clean, err := json.Marshal(u.String())
	if err != nil {
		return nil, err
	}
	object["url"] = clean
	delete(object, "token")
	return json.Marshal(object)
}

// without takes fields out of an object; one that has none of them stays as it was answered.
func without(raw json.RawMessage, names ...string) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fault.Wrap("gitlab project", fault.ErrUnavailable, err, "")
	}
	before := len(object)
	for _, name := range names {
		delete(object, name)
	}
	if len(object) == before {
		return raw, nil
	}
	return json.Marshal(object)
}

// Totals implements forge.MetadataCounter: what GitLab can count in a request each. Other listings tell how long they are themselves,
// and fail when they turn out shorter. Of more than 10,000 merge requests it does not tell the number.
func (p *Provider) Totals(ctx context.Context, r forge.Repository) (map[string]int64, error) {
	totals := map[string]int64{}
	has := featuresOf(r.Raw)
	if has.issues {
		var in struct {
			Statistics struct {
				Counts struct {
					All *int64 `json:"all"`
				} `json:"counts"`
			} `json:"statistics"`
		}
		if err := p.get(ctx, projectPath(r)+"/issues_statistics", url.Values{"scope": {"all"}}, &in); err != nil {
			return nil, fault.Wrap("count issues of "+r.FullName(), nil, err, "")
		}
		if all := in.Statistics.Counts.All; all != nil && *all >= 0 {
			totals[issuesName] = *all
		}
	}
	if has.pulls {
		query := url.Values{"scope": {"all"}, "state": {"all"}, "per_page": {"1"}}
		answer, err := p.client.Do(ctx, "GET", projectPath(r)+"/merge_requests", query, nil, nil)
		if err != nil {
			return nil, fault.Wrap("count merge requests of "+r.FullName(), nil, err, "")
		}
		if n, err := strconv.ParseInt(answer.Header.Get("X-Total"), 10, 64); err == nil && n >= 0 {
			totals[pullsName] = n
		}
	}
	return totals, nil
}
