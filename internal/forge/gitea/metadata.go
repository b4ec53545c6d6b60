package gitea

import (
	"cmp"
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
	"github.com/backstay/backstay/internal/forge/archive"
)

var (
	_ forge.MetadataReader  = (*Provider)(nil)
	_ forge.MetadataCounter = (*Provider)(nil)
)

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return "gitea" }

// units is what of a repository is switched on, by its document. What the document does not tell is.
type units struct {
	HasIssues   *bool     `json:"has_issues"`
	HasPulls    *bool     `json:"has_pull_requests"`
	HasReleases *bool     `json:"has_releases"`
	Topics      *[]string `json:"topics"` // older servers have them apart
	Tracker     *struct {
		Times        bool `json:"enable_time_tracker"`
		Dependencies bool `json:"enable_issue_dependencies"`
	} `json:"internal_tracker"`
}

func on(b *bool) bool { return b == nil || *b }

// Collections implements forge.MetadataReader. Issues and pull requests share numbers and the list "issues". What these forges have no
// API for is not in it: projects, and who is notified. Commits that only a pull request holds are refs of the git part.
func (p *Provider) Collections(r forge.Repository) []forge.Collection {
	if p.o.Gogs {
		return p.gogsCollections()
	}
	var u units
	if len(r.Raw) > 0 && json.Unmarshal(r.Raw, &u) != nil {
		u = units{}
	}
	all := []forge.Collection{
		{Name: "settings", Read: p.settings},
		{Name: "labels", Read: p.whole("labels", nil, byID)},
		{Name: "milestones", Read: p.whole("milestones", url.Values{"state": {"all"}}, byID)},
	}
	if u.Topics == nil {
		all = append(all, forge.Collection{Name: "topics", Read: p.topics})
	}
	if on(u.HasIssues) || on(u.HasPulls) {
		all = append(all, p.conversations(u)...)
	}
	if on(u.HasPulls) {
		all = append(all,
			forge.Collection{Name: "pulls", Since: true, Read: p.pullRequests},
			forge.Collection{
				Name: "reviews", Of: "pulls", Also: []string{"review-comments"}, Read: p.children("reviews", p.reviewsOf),
				Requests: func(n int64) int64 { return 2 * n },
			},
		)
	}
	if on(u.HasReleases) {
		all = append(all, forge.Collection{Name: "releases", Read: p.whole("releases", nil, byID)})
	}
	return append(all,
		forge.Collection{Name: "rules", Read: p.rules},
		forge.Collection{Name: "hooks", Read: p.whole("hooks", nil, hook)},
		forge.Collection{Name: "keys", Read: p.whole("keys", nil, byID)},
		forge.Collection{Name: "collaborators", Read: p.collaborators},
		forge.Collection{Name: "teams", Read: p.teams},
	)
}

// conversations are issues and pull requests with what is said and done in them. Reactions to comments cost a request each: the
// answers do not tell which comments have some.
func (p *Provider) conversations(u units) []forge.Collection {
	all := []forge.Collection{
		{Name: "issues", Since: true, Read: p.changed("issues", url.Values{"state": {"all"}}, byNumber)},
		{Name: "comments", Since: true, Read: p.changed("issues/comments", nil, comment)},
		{Name: "timeline", Of: "issues", Read: p.children("timeline", p.timelineOf)},
		{Name: "reactions", Of: "issues", Read: p.children("reactions", p.reactionsOf)},
		{Name: "comment-reactions", Of: "comments", Read: p.children("comment-reactions", p.reactionsOf)},
	}
	if u.Tracker == nil || u.Tracker.Dependencies {
		all = append(all, forge.Collection{Name: "dependencies", Of: "issues", Read: p.children("dependencies", p.dependenciesOf)})
	}
	if u.Tracker == nil || u.Tracker.Times {
		all = append(all, forge.Collection{Name: "times", Since: true, Read: p.changed("times", nil, trackedTime)})
	}
	return all
}

// gogsCollections is what Gogs has an API for, by its source.
func (p *Provider) gogsCollections() []forge.Collection {
	return []forge.Collection{
		{Name: "settings", Read: p.settings},
		{Name: "labels", Read: p.whole("labels", nil, byID)},
		{Name: "milestones", Read: p.whole("milestones", nil, byID)},
		{Name: "issues", Read: p.gogsIssues},
		{Name: "comments", Of: "issues", Read: p.children("comments", p.gogsCommentsOf)},
		{Name: "releases", Read: p.whole("releases", nil, byID)},
		{Name: "hooks", Read: p.whole("hooks", nil, hook)},
		{Name: "keys", Read: p.whole("keys", nil, byID)},
		{Name: "collaborators", Read: p.whole("collaborators", nil, byID)},
	}
}

// Totals implements forge.MetadataCounter, of what is read in pieces: a request each. Whole lists tell their own.
func (p *Provider) Totals(ctx context.Context, r forge.Repository) (map[string]int64, error) {
	totals := map[string]int64{}
	if p.o.Gogs {
		return totals, nil // its answers carry no counts
	}
	for _, c := range p.Collections(r) {
		at, counted := map[string]string{"issues": "issues", "comments": "issues/comments", "pulls": "pulls"}[c.Name]
		if !counted {
			continue
		}
		answer, err := p.client.Do(ctx, http.MethodGet, below(r, at), url.Values{"state": {"all"}, "limit": {"1"}}, nil, nil)
		if errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied) {
			continue // reading it says so
		}
		if err != nil {
			return nil, scoped(err)
		}
		if n, err := strconv.ParseInt(answer.Header.Get(totalCount), 10, 64); err == nil && n >= 0 {
			totals[c.Name] = n
		}
	}
	return totals, nil
}

// below is a path of the API below a repository's.
func below(r forge.Repository, at string) string {
	return path("repos", r.Owner, r.Name) + "/" + at
}

// reading is forge.Collection.Read.
type reading = func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error]

// naming makes a record of an item: its key but for the collection, its parent, its time.
type naming func(raw json.RawMessage) (archive.Record, error)

// identity is what an item is known by.
type identity struct {
	ID       int64     `json:"id"`
	Number   int64     `json:"number"`
	Updated  jsonTime  `json:"updated_at"`
	Created  jsonTime  `json:"created"`
	Issue    *identity `json:"issue"`
	IssueURL string    `json:"issue_url"`
	PullURL  string    `json:"pull_request_url"`
}

func identify(raw json.RawMessage) (identity, error) {
	var i identity
	if err := json.Unmarshal(raw, &i); err != nil {
		return i, errItem()
	}
	return i, nil
}

func errItem() error {
	return fault.New("read metadata", fault.ErrUnavailable, "the server answers with an item that has no number", "")
}

func numbered(n int64, i identity, raw json.RawMessage) (archive.Record, error) {
	if n <= 0 {
		return archive.Record{}, errItem()
	}
	return archive.Record{Key: archive.Key{ID: strconv.FormatInt(n, 10)}, Updated: i.Updated.Time, Raw: raw}, nil
}

func byID(raw json.RawMessage) (archive.Record, error) {
	i, err := identify(raw)
	if err != nil {
		return archive.Record{}, err
	}
	return numbered(i.ID, i, raw)
}

func byNumber(raw json.RawMessage) (archive.Record, error) {
	i, err := identify(raw)
	if err != nil {
		return archive.Record{}, err
	}
	return numbered(i.Number, i, raw)
}

// issueKey names an issue or a pull request.
func issueKey(number int64) archive.Key {
	return archive.Key{Collection: "issues", ID: strconv.FormatInt(number, 10)}
}

// comment finds what a comment is on at the end of the address of that: ".../issues/17", ".../pulls/17".
func comment(raw json.RawMessage) (archive.Record, error) {
	i, err := identify(raw)
	if err != nil {
		return archive.Record{}, err
	}
	r, err := numbered(i.ID, i, raw)
	if err != nil {
		return r, err
	}
	on := cmp.Or(i.IssueURL, i.PullURL)
	number, err := strconv.ParseInt(on[strings.LastIndexByte(on, '/')+1:], 10, 64)
	if err != nil || number <= 0 {
		return r, fault.New("read comments", fault.ErrUnavailable, "the server does not say what comment "+r.ID+" is on", "")
	}
	r.Parent = issueKey(number)
	return r, nil
}

func trackedTime(raw json.RawMessage) (archive.Record, error) {
	i, err := identify(raw)
	if err != nil {
		return archive.Record{}, err
	}
	i.Updated = i.Created
	r, err := numbered(i.ID, i, raw)
	if err == nil && i.Issue != nil {
		r.Parent = issueKey(i.Issue.Number)
	}
	return r, err
}

// hook takes out what is secret: the header that is sent along, and of the address all that may be a credential. Of chats' hooks that
// is everything behind the host.
func hook(raw json.RawMessage) (archive.Record, error) {
	r, err := byID(raw)
	if err != nil {
		return r, err
	}
	var h map[string]json.RawMessage
	var sort string
	var config map[string]string
	if json.Unmarshal(raw, &h) != nil || json.Unmarshal(h["type"], &sort) != nil || json.Unmarshal(h["config"], &config) != nil {
		return r, errItem()
	}
	kept := map[string]string{"url": withoutSecrets(config["url"], sort)}
	for _, plain := range []string{"content_type", "http_method", "channel", "username", "color"} {
		if v, ok := config[plain]; ok {
			kept[plain] = v
		}
	}
	delete(h, "authorization_header")
	if h["config"], err = json.Marshal(kept); err != nil {
		return r, err
	}
	r.Raw, err = json.Marshal(h)
	return r, err
}

func withoutSecrets(address, sort string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	if sort != "gitea" && sort != "gogs" && sort != "forgejo" {
		u.Path, u.RawPath = "", ""
	}
	return u.String()
}
