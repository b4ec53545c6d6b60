package bitbucket

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var (
	_ forge.MetadataReader  = (*Provider)(nil)
	_ forge.MetadataCounter = (*Provider)(nil)
)

const dialect = "bitbucket"

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return dialect }

// Collections implements forge.MetadataReader. Pull requests carry who approved them. Their patches are taken because Bitbucket shows
// git no refs of them: once a fork or a branch is gone, they are all that is left of its commits.
func (p *Provider) Collections(r forge.Repository) []forge.Collection {
	if r.Class == forge.Gist {
		return nil
	}
	all := []forge.Collection{
		{Name: "settings", Read: forge.OneRecord("settings", "repository", p.document)},
		{Name: "pulls", Since: true, Read: p.pulls, Requests: func(n int64) int64 { return n/pullsPerPage + 1 }},
		{Name: "comments", Of: "pulls", Read: forge.OfEach(p.commentsOf)},
		{Name: "tasks", Of: "pulls", Read: forge.OfEach(p.tasksOf)},
		{Name: "timeline", Of: "pulls", Read: forge.OfEach(p.activityOf)},
		{Name: "statuses", Of: "pulls", Read: forge.OfEach(p.statusesOf)},
		{Name: "commits-of-pulls", Of: "pulls", Read: forge.OfEach(p.commitsOf)},
		{Name: "patches", Of: "pulls", Read: forge.OfEach(p.patchOf)},
		{Name: "rules", Read: p.whole("rules", "branch-restrictions", byID)},
		{Name: "default-reviewers", Read: p.whole("default-reviewers", "default-reviewers", byUUID)},
		{Name: "downloads", Read: p.whole("downloads", "downloads", byName)},
		{Name: "hooks", Read: p.whole("hooks", "hooks", hook)},
		{Name: "keys", Read: p.whole("keys", "deploy-keys", byID)},
		{Name: "collaborators", Read: p.whole("collaborators", "permissions-config/users", permission)},
		{Name: "teams", Read: p.whole("teams", "permissions-config/groups", permission)},
		{Name: "pipelines", Read: p.pipelines},
	}
	var had struct {
		Issues bool `json:"has_issues"`
	}
	if json.Unmarshal(r.Raw, &had) == nil && had.Issues {
		all = append(all, forge.Collection{Name: "issues", Read: p.issues})
	}
	return all
}

// Totals implements forge.MetadataCounter, of pull requests: whole lists tell their own.
func (p *Provider) Totals(ctx context.Context, r forge.Repository) (map[string]int64, error) {
	query := allStates()
	query.Set("pagelen", "1")
	var e envelope
	_, err := p.client.Do(ctx, http.MethodGet, below(r, "pullrequests"), query, nil, &e)
	if errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied) {
		return nil, nil // reading it says so
	}
	if err != nil || e.Size == nil || *e.Size < 0 {
		return nil, err
	}
	return map[string]int64{"pulls": int64(*e.Size)}, nil
}

// at is the path of a repository.
func at(r forge.Repository) string {
	return "/repositories/" + url.PathEscape(r.Owner) + "/" + url.PathEscape(r.Name)
}

func below(r forge.Repository, path string) string { return at(r) + "/" + path }

func (p *Provider) document(ctx context.Context, r forge.Repository) (json.RawMessage, error) {
	var raw json.RawMessage
	_, err := p.client.Do(ctx, http.MethodGet, at(r), nil, nil, &raw)
	return raw, err
}

// naming makes a record of an item, but for its collection and parent.
type naming = func(raw json.RawMessage) (archive.Record, error)

// whole reads a list of the repository from its beginning to its end each time.
func (p *Provider) whole(collection, path string, name naming) func(context.Context, forge.Query) forge.Records {
	return func(ctx context.Context, q forge.Query) forge.Records {
		return forge.Whole(forge.RecordsOf(p.pages(ctx, below(q.Repository, path), nil), collection, name))
	}
}

// issues are gone: Bitbucket removed its issue tracker in August 2026. Where it answers once more, they are taken as they come.
func (p *Provider) issues(ctx context.Context, q forge.Query) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		for r, err := range p.whole("issues", "issues", byID)(ctx, q) {
			if errors.Is(err, fault.ErrNotFound) {
				err = fault.New("", fault.ErrNotFound, "gone at source: Bitbucket has removed its issue tracker", "")
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// identity is what items are known by.
type identity struct {
	ID      int64     `json:"id"`
	UUID    string    `json:"uuid"`
	Name    string    `json:"name"`
	Hash    string    `json:"hash"`
	Key     string    `json:"key"`
	Updated time.Time `json:"updated_on"`
	Deleted bool      `json:"deleted"`
	User    struct {
		UUID string `json:"uuid"`
	} `json:"user"`
	Group struct {
		Slug string `json:"slug"`
	} `json:"group"`
}

// record names an item by what name finds; "" is an error.
func record(raw json.RawMessage, name func(i identity) string) (archive.Record, error) {
	var i identity
	if json.Unmarshal(raw, &i) != nil || name(i) == "" {
		return archive.Record{}, errItem()
	}
	return archive.Record{Key: archive.Key{ID: name(i)}, Updated: i.Updated, Raw: raw}, nil
}

func errItem() error {
	return fault.New("read metadata", fault.ErrUnavailable, "the server lists something without a name", "")
}

func number(i identity) string {
	if i.ID <= 0 {
		return ""
	}
	return strconv.FormatInt(i.ID, 10)
}

func byID(raw json.RawMessage) (archive.Record, error) { return record(raw, number) }

func byUUID(raw json.RawMessage) (archive.Record, error) {
	return record(raw, func(i identity) string { return i.UUID })
}

func byName(raw json.RawMessage) (archive.Record, error) {
	return record(raw, func(i identity) string { return i.Name })
}

func permission(raw json.RawMessage) (archive.Record, error) {
	return record(raw, func(i identity) string { return i.User.UUID + i.Group.Slug })
}

// hook takes what may be a credential out of the address.
func hook(raw json.RawMessage) (archive.Record, error) {
	r, err := byUUID(raw)
	if err != nil {
		return r, err
	}
	var h map[string]json.RawMessage
	var address string
	if json.Unmarshal(raw, &h) != nil || json.Unmarshal(h["url"], &address) != nil {
		return r, errItem()
	}
	delete(h, "secret")
	if h["url"], err = json.Marshal(withoutSecrets(address)); err != nil {
		return r, err
	}
	r.Raw, err = json.Marshal(h)
	return r, err
}

// withoutSecrets leaves scheme, host and path of an address. What chats take is secret in the path, too.
func withoutSecrets(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	for _, chat := range []string{"hooks.slack.com", "discord.com", "discordapp.com", "chat.googleapis.com"} {
		if u.Hostname() == chat {
			u.Path, u.RawPath = "", ""
		}
	}
	return u.String()
}

// pipelines are whether they run, and the names of the variables that they get, without values.
func (p *Provider) pipelines(ctx context.Context, q forge.Query) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		var raw json.RawMessage
		_, err := p.client.Do(ctx, http.MethodGet, below(q.Repository, "pipelines_config"), nil, nil, &raw)
		if errors.Is(err, fault.ErrNotFound) {
			return // they never ran
		}
		if !yield(archive.Record{Key: archive.Key{Collection: "pipelines", ID: "config"}, Raw: raw}, err) || err != nil {
			return
		}
		for r, err := range p.whole("pipelines", "pipelines_config/variables", variable)(ctx, q) {
			if errors.Is(err, fault.ErrNotFound) || !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func variable(raw json.RawMessage) (archive.Record, error) {
	var v map[string]json.RawMessage
	r, err := record(raw, func(i identity) string { return i.Key })
	if err != nil || json.Unmarshal(raw, &v) != nil {
		return r, errItem()
	}
	r.ID = "variable:" + r.ID
	delete(v, "value")
	r.Raw, err = json.Marshal(v)
	return r, err
}
