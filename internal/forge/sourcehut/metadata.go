package sourcehut

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var (
	_ forge.MetadataReader = (*Provider)(nil)
	_ forge.FileGetter     = (*Provider)(nil)
)

const dialect = "sourcehut"

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return dialect }

// sibling is where another service of the same Sourcehut is: git.sr.ht has todo.sr.ht beside it. Where the name of the git service does
// not begin with its word, all are taken to be at one address.
func sibling(git *url.URL, service string) string {
	at := *git
	if rest, ok := strings.CutPrefix(git.Host, "git."); ok {
		at.Host = service + "." + rest
	}
	return at.String()
}

// Collections implements forge.MetadataReader. Nothing ties a tracker or a list to a repository: those of its owner that bear its name are
// taken for its own, lists also with what is usual behind it. A tracker's tickets are listed whole each time, for it cannot be asked what
// changed. Builds, and patches that came to other lists, are not captured.
func (p *Provider) Collections(forge.Repository) []forge.Collection {
	pages := func(n int64) int64 { return n/ticketsPerPage + 1 }
	return []forge.Collection{
		{Name: "settings", Read: forge.OneRecord("settings", "repository", p.document)},
		{Name: "trackers", Read: p.tracker},
		{Name: "labels", Read: p.ofTracker("labels", labelFields)},
		{Name: "issues", Read: p.ofTracker("tickets", ticketFields), Requests: pages},
		{Name: "timeline", Of: "issues", Read: forge.OfEach(p.eventsOf)},
		{Name: "lists", Read: p.mailingLists},
	}
}

const (
	ticketsPerPage = 25
	entity         = `{ canonicalName ... on User { username } ... on EmailAddress { mailbox name } ... on ExternalUser { externalUrl } }`
	labelFields    = `id created name backgroundColor foregroundColor`
	ticketFields   = `id created updated ref subject body status resolution authenticity labels { id name } submitter ` + entity + ` assignees ` + entity
	// A comment that was edited leads to what it is now.
	eventFields = `id created changes { eventType
		... on Created { author ` + entity + ` }
		... on Comment { author ` + entity + ` text authenticity supersededBy { text supersededBy { text } } }
		... on StatusChange { editor ` + entity + ` oldStatus newStatus oldResolution newResolution }
		... on LabelUpdate { labeler ` + entity + ` label { name } }
		... on Assignment { assigner ` + entity + ` assignee ` + entity + ` }
		... on UserMention { author ` + entity + ` }
		... on TicketMention { author ` + entity + ` mentioned { ref } }
	}`
)

func (p *Provider) document(ctx context.Context, r forge.Repository) (json.RawMessage, error) {
	id, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		return nil, fault.New("read repository", fault.ErrInvalid, "it has no ID", "")
	}
	var answer struct {
		Repository json.RawMessage `json:"repository"`
	}
	if err := p.ask(ctx, `query($id: Int!) { repository(id: $id) { `+fields+` } }`, map[string]any{"id": id}, &answer); err != nil {
		return nil, err
	}
	_, err = p.found(answer.Repository, "read repository")
	return answer.Repository, err
}

// cursored is a list of the API, a page at a time.
type cursored struct {
	Results []json.RawMessage `json:"results"`
	Cursor  *string           `json:"cursor"`
}

// maxItems is how many items a page may have; the services give 25.
const maxItems = 10_000

// each yields what a list holds. page asks for the page behind a cursor, nil for the first; it answers nil where there is no such list.
func each(page func(cursor *string) (*cursored, error)) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		var guard forge.Guard
		var cursor *string
		for range maxPages {
			answer, err := page(cursor)
			if err != nil {
				yield(nil, err)
				return
			}
			if answer == nil {
				return
			}
			at := ""
			if cursor != nil {
				at = *cursor
			}
			if err = guard.Page(at, answer.Results); err == nil && len(answer.Results) > maxItems {
				err = fault.New("", fault.ErrUnavailable, "the server gives more on a page than anybody can read", "")
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, raw := range answer.Results {
				if !yield(raw, nil) {
					return
				}
			}
			if cursor = answer.Cursor; cursor == nil {
				return
			}
		}
		yield(nil, fault.New("", fault.ErrUnsupported, "the listing does not end", ""))
	}
}

// numbered names a record by its ID.
func numbered(collection string, raw json.RawMessage) (archive.Record, error) {
	var d struct {
		ID      int64     `json:"id"`
		Updated time.Time `json:"updated"`
	}
	if json.Unmarshal(raw, &d) != nil || d.ID <= 0 {
		return archive.Record{}, fault.New("read "+collection, fault.ErrUnavailable, "the server lists something without a number", "")
	}
	return archive.Record{Key: archive.Key{Collection: collection, ID: strconv.FormatInt(d.ID, 10)}, Updated: d.Updated, Raw: raw}, nil
}

// askTracker asks for something of the tracker that bears the repository's name. false is that there is none.
func (p *Provider) askTracker(ctx context.Context, r forge.Repository, declared, selection string, more map[string]any, into any) (bool, error) {
	variables := map[string]any{"username": strings.TrimPrefix(r.Owner, "~"), "name": r.Name}
	for name, value := range more {
		variables[name] = value
	}
	var answer struct {
		User *struct {
			Tracker json.RawMessage `json:"tracker"`
		} `json:"user"`
	}
	query := `query($username: String!, $name: String!` + declared + `) { user(username: $username) { tracker(name: $name) { ` + selection + ` } } }`
	_, err := p.todo.GraphQL(ctx, "/query", query, variables, &answer)
	switch {
	case errors.Is(err, fault.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case answer.User == nil || len(answer.User.Tracker) == 0 || string(answer.User.Tracker) == "null":
		return false, nil
	}
	if json.Unmarshal(answer.User.Tracker, into) != nil {
		return false, fault.New("read tracker", fault.ErrUnavailable, "the answer is not what was asked for", "")
	}
	return true, nil
}

// tracker reads what a tracker is.
func (p *Provider) tracker(ctx context.Context, q forge.Query) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		var raw json.RawMessage
		there, err := p.askTracker(ctx, q.Repository, "", `id created updated name description visibility`, nil, &raw)
		if err != nil || there {
			yield(archive.Record{Key: archive.Key{Collection: "trackers", ID: q.Repository.Name}, Raw: raw}, err)
		}
	}
}

// ofTracker reads one of the lists of a tracker: "tickets", "labels".
func (p *Provider) ofTracker(list, fields string) func(context.Context, forge.Query) forge.Records {
	collection := list
	if list == "tickets" {
		collection = "issues"
	}
	selection := list + `(cursor: $cursor) { results { ` + fields + ` } cursor }`
	return func(ctx context.Context, q forge.Query) forge.Records {
		return named(collection, each(func(cursor *string) (*cursored, error) {
			var answer map[string]*cursored
			there, err := p.askTracker(ctx, q.Repository, `, $cursor: Cursor`, selection, map[string]any{"cursor": cursor}, &answer)
			if there && answer[list] == nil {
				err = fault.New("list "+list, fault.ErrUnavailable, "the server answers without a list", "")
			}
			return answer[list], err
		}))
	}
}

func named(collection string, items iter.Seq2[json.RawMessage, error]) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		for raw, err := range items {
			var r archive.Record
			if err == nil {
				r, err = numbered(collection, raw)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// eventsOf reads what happened to a ticket, comments among it.
func (p *Provider) eventsOf(ctx context.Context, r forge.Repository, ticket archive.Record) forge.Records {
	id, err := strconv.ParseInt(ticket.ID, 10, 64)
	return named("timeline", each(func(cursor *string) (*cursored, error) {
		if err != nil {
			return nil, fault.New("read ticket", fault.ErrCorrupt, "it has no number", "")
		}
		var answer struct {
			Ticket *struct {
				Events *cursored `json:"events"`
			} `json:"ticket"`
		}
		there, err := p.askTracker(ctx, r, `, $id: Int!, $cursor: Cursor`, `ticket(id: $id) { events(cursor: $cursor) { results { `+eventFields+` } cursor } }`,
			map[string]any{"id": id, "cursor": cursor}, &answer)
		switch {
		case err != nil:
			return nil, err
		case !there || answer.Ticket == nil:
			return nil, fault.New("read ticket "+ticket.ID, fault.ErrNotFound, "it is gone", "")
		case answer.Ticket.Events == nil:
			return nil, fault.New("read ticket "+ticket.ID, fault.ErrUnavailable, "the server answers without a list", "")
		}
		return answer.Ticket.Events, nil
	}))
}

// listSuffixes are what the lists of a project are usually called, behind its name.
func listSuffixes() []string { return []string{"", "-devel", "-announce", "-discuss"} }

// mailingLists are those of the repository's owner that bear its name. Of their mails only the newest is noted, so that the archive, which
// is a file, is fetched when there is another one.
func (p *Provider) mailingLists(ctx context.Context, q forge.Query) forge.Records {
	query := `query($username: String!`
	selection, variables := "", map[string]any{"username": strings.TrimPrefix(q.Repository.Owner, "~")}
	for i, suffix := range listSuffixes() {
		n := strconv.Itoa(i)
		query += `, $n` + n + `: String!`
		variables["n"+n] = q.Repository.Name + suffix
		selection += ` l` + n + `: list(name: $n` + n + `) { id created name description visibility archive emails { results { id } } }`
	}
	query += `) { user(username: $username) {` + selection + ` } }`
	return func(yield func(archive.Record, error) bool) {
		var answer struct {
			User map[string]map[string]json.RawMessage `json:"user"`
		}
		if _, err := p.lists.GraphQL(ctx, "/query", query, variables, &answer); err != nil {
			if !errors.Is(err, fault.ErrNotFound) {
				yield(archive.Record{}, err)
			}
			return
		}
		for i := range listSuffixes() {
			list := answer.User["l"+strconv.Itoa(i)]
			if list == nil {
				continue
			}
			r, err := listRecord(list)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func listRecord(list map[string]json.RawMessage) (archive.Record, error) {
	var mails struct {
		Results []struct {
			ID int64 `json:"id"`
		} `json:"results"`
	}
	if len(list["emails"]) > 0 && json.Unmarshal(list["emails"], &mails) != nil {
		return archive.Record{}, fault.New("read lists", fault.ErrUnavailable, "the answer is not what was asked for", "")
	}
	delete(list, "emails")
	if len(mails.Results) > 0 {
		list["newest"] = json.RawMessage(strconv.FormatInt(mails.Results[0].ID, 10))
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return archive.Record{}, err
	}
	return numbered("lists", raw)
}

// FileURLs implements forge.FileGetter: the archive of a list, which is an mbox.
func (p *Provider) FileURLs(r archive.Record) []archive.File {
	var d struct {
		Name    string `json:"name"`
		Archive string `json:"archive"`
		Newest  int64  `json:"newest"`
	}
	if r.Collection != "lists" || json.Unmarshal(r.Raw, &d) != nil || d.Newest <= 0 || !p.isOfLists(d.Archive) {
		return nil
	}
	return []archive.File{{URL: d.Archive, Name: d.Name + ".mbox", Digest: "mail:" + strconv.FormatInt(d.Newest, 10)}}
}

func (p *Provider) isOfLists(address string) bool {
	u, err := url.Parse(address)
	own, ownErr := url.Parse(sibling(p.web, "lists"))
	return err == nil && ownErr == nil && u.Scheme == own.Scheme && u.Host == own.Host && u.User == nil
}

// GetFile implements forge.FileGetter.
func (p *Provider) GetFile(ctx context.Context, _ forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	if !p.isOfLists(f.URL) {
		return nil, fault.New("get file", fault.ErrNotFound, "it is at no address of the lists", "")
	}
	return p.files.Get(ctx, f.URL, nil, limit)
}
