package github

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// What GitHub tells of a repository beside its code.
var (
	_ forge.MetadataReader  = (*Provider)(nil)
	_ forge.MetadataCounter = (*Provider)(nil)
)

const dialect = "github"

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return dialect }

// records is what a collection is read as.
type records = iter.Seq2[archive.Record, error]

// metadata reads one repository.
type metadata struct {
	p  *Provider
	r  forge.Repository
	at string // "/repos/acme/api"

	linked linked // as the settings told it; the zero value asks
}

// Collections implements forge.MetadataReader.
//
// Issues and pull requests with their comments come from REST's lists of the whole repository, which know "since". What only GraphQL
// has, and what it has in one request where REST takes one each, comes from there, with the fields named as REST names them.
func (p *Provider) Collections(r forge.Repository) []forge.Collection {
	if r.Class == forge.Gist || !plain(r.Owner) || !plain(r.Name) {
		return nil
	}
	m := &metadata{p: p, r: r, at: "/repos/" + r.FullName()}
	all := []forge.Collection{
		{Name: "settings", Also: []string{"labels", "milestones"}, Read: m.settings, Requests: once},
		{Name: "projects", Also: []string{"project-items"}, Read: m.projects, Requests: once},
		{Name: "issues", Read: m.issues, Since: true, Requests: bySince},
		{Name: "comments", Read: m.comments, Since: true, Requests: bySince},
		{Name: "review-comments", Read: m.reviewComments, Since: true, Requests: bySince},
		{Name: "commit-comments", Read: m.plainList("commit-comments", "/comments")},
		{Name: "releases", Also: []string{"assets"}, Read: m.releases},
		{Name: "discussions", Read: m.discussions, Since: true, Requests: func(n int64) int64 { return n/50 + 1 }},
		{Name: "rulesets", Read: m.rulesets, Requests: func(n int64) int64 { return n + 1 }},
		{Name: "rules", Also: []string{"keys", "collaborators"}, Read: m.protection, Requests: once},
		{Name: "hooks", Read: m.hooks, Requests: once},
		{
			Name: "timeline", Of: "issues", Also: []string{"pulls", "reviews", "review-threads", "reactions"},
			Batch: timelineBatch, Read: m.details,
		},
		m.reactions("comment-reactions", "comments", "IssueComment"),
		m.reactions("review-comment-reactions", "review-comments", "PullRequestReviewComment"),
		{Name: "discussion-comments", Of: "discussions", Batch: discussionBatch, Read: m.discussionComments},
	}
	if m.ofOrganization() {
		all = append(all, forge.Collection{Name: "teams", Read: m.plainList("teams", "/teams"), Requests: once})
	}
	return all
}

// ofOrganization reports whether the repository belongs to an organisation: people have no teams.
func (m *metadata) ofOrganization() bool {
	var o struct {
		Owner struct {
			Type words `json:"type"`
		} `json:"owner"`
	}
	return json.Unmarshal(m.r.Raw, &o) == nil && o.Owner.Type == "Organization"
}

// once is the price of what comes with one request.
func once(int64) int64 { return 1 }

// identity is what names an object, by the names of REST.
type identity struct {
	ID      number `json:"id"`
	Number  number `json:"number"`
	Node    words  `json:"node_id"`
	Name    words  `json:"name"`
	Issue   words  `json:"issue_url"`
	Pull    words  `json:"pull_request_url"`
	Updated moment `json:"updated_at"`
	Created moment `json:"created_at"`
}

func identify(raw json.RawMessage) (o identity) {
	if json.Unmarshal(raw, &o) != nil {
		return identity{}
	}
	return o
}

// record makes a record of an object. One without a name is for the engine to count: the others are none the worse for it.
func (o identity) record(collection, id string, raw json.RawMessage) archive.Record {
	updated := o.Updated.Time
	if updated.IsZero() {
		updated = o.Created.Time
	}
	return archive.Record{Key: archive.Key{Collection: collection, ID: id}, Updated: updated, Raw: raw}
}

// numbered makes a record of an object that people know by its number.
func numbered(collection string) func(raw json.RawMessage) archive.Record {
	return func(raw json.RawMessage) archive.Record {
		o := identify(raw)
		return o.record(collection, o.Number.id(), raw)
	}
}

// counted makes a record of an object that has only GitHub's number of such objects.
func counted(collection string) func(raw json.RawMessage) archive.Record {
	return func(raw json.RawMessage) archive.Record {
		o := identify(raw)
		return o.record(collection, o.ID.id(), raw)
	}
}

// noded makes a record of an object that has only GraphQL's word for it.
func noded(collection string) func(raw json.RawMessage) archive.Record {
	return func(raw json.RawMessage) archive.Record {
		o := identify(raw)
		return o.record(collection, string(o.Node), raw)
	}
}

// commented makes a record of a comment. The address of what it is on, issue or pull request, says its number: ".../issues/17".
func commented(collection, parents string) func(raw json.RawMessage) archive.Record {
	return func(raw json.RawMessage) archive.Record {
		o := identify(raw)
		address := string(o.Issue + o.Pull)
		on, err := strconv.ParseInt(address[strings.LastIndex(address, "/")+1:], 10, 64)
		if err != nil || on <= 0 {
			return o.record(collection, "", raw)
		}
		r := o.record(collection, o.ID.id(), raw)
		r.Parent = keyOf(parents, on)
		return r
	}
}

// read decodes what GitHub answered.
func read(collection string, raw json.RawMessage, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return fault.Wrap(collection+" object", fault.ErrCorrupt, err, "")
	}
	return nil
}

func keyOf(collection string, number int64) archive.Key {
	return archive.Key{Collection: collection, ID: strconv.FormatInt(number, 10)}
}

// each yields what a reading gives piece by piece, and its error at the end.
func each(op string, reading func(yield func(archive.Record) bool) error) records {
	return func(yield func(archive.Record, error) bool) {
		stopped := false
		err := reading(func(r archive.Record) bool {
			stopped = !yield(r, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(archive.Record{}, fault.Wrap(op, nil, err, ""))
		}
	}
}

func (m *metadata) op(collection string) string {
	return fmt.Sprintf("%s of %s", collection, m.r.FullName())
}
