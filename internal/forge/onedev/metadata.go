package onedev

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var _ forge.MetadataReader = (*Provider)(nil)

const dialect = "onedev"

// Dialect implements forge.MetadataReader.
func (p *Provider) Dialect() string { return dialect }

// Collections implements forge.MetadataReader. Issues and pull requests are numbered apart, and so are their comments. What the API lists
// nowhere is not in it: comments on code. Builds and packages are not captured.
func (p *Provider) Collections(forge.Repository) []forge.Collection {
	return []forge.Collection{
		{Name: "settings", Read: forge.OneRecord("settings", "repository", p.document)},
		{Name: "labels", Read: p.whole("labels", func(forge.Repository) string { return "/label-specs" })},
		{Name: "milestones", Read: p.whole("milestones", func(r forge.Repository) string { return "/projects/" + r.ID + "/iterations" })},
		{Name: "issues", Since: true, Read: p.changed("issues", "Project")},
		{Name: "comments", Of: "issues", Read: p.of("comments", "issues", "comments", "commentCount")},
		{Name: "timeline", Of: "issues", Read: p.of("timeline", "issues", "changes", "")},
		{Name: "issue-milestones", Of: "issues", Read: p.of("issue-milestones", "issues", "iterations", "")},
		{Name: "links", Of: "issues", Read: p.of("links", "issues", "links", "")},
		{Name: "votes", Of: "issues", Read: p.of("votes", "issues", "votes", "voteCount")},
		{Name: "times", Of: "issues", Read: p.of("times", "issues", "works", "ownSpentTime")},
		{Name: "pulls", Since: true, Read: p.changed("pulls", "Target Project")},
		{Name: "review-comments", Of: "pulls", Read: p.of("review-comments", "pulls", "comments", "commentCount")},
		{Name: "pull-timeline", Of: "pulls", Read: p.of("pull-timeline", "pulls", "changes", "")},
		{Name: "reviews", Of: "pulls", Read: p.of("reviews", "pulls", "reviews", "")},
		{Name: "assignments", Of: "pulls", Read: p.of("assignments", "pulls", "assignments", "")},
		{Name: "pull-labels", Of: "pulls", Read: p.of("pull-labels", "pulls", "labels", "")},
		{Name: "updates", Of: "pulls", Read: p.of("updates", "pulls", "updates", "")},
		{Name: "rules", Also: []string{"hooks", "policies"}, Read: p.setting},
		{Name: "collaborators", Read: p.collaborators},
	}
}

// document is the project's, with the address of its page, which it lacks.
func (p *Provider) document(ctx context.Context, r forge.Repository) (json.RawMessage, error) {
	var d map[string]json.RawMessage
	_, err := p.client.Do(ctx, http.MethodGet, "/projects/"+r.ID, nil, nil, &d)
	if err != nil {
		return nil, err
	}
	if d["webUrl"], err = json.Marshal(r.WebURL); err != nil || len(d) == 1 {
		return nil, errItem()
	}
	return json.Marshal(d)
}

// identity is what items are known by.
type identity struct {
	ID           int64 `json:"id"`
	Number       int64 `json:"number"`
	UserID       int64 `json:"userId"`
	SubmitterID  int64 `json:"submitterId"`
	LastActivity struct {
		Date json.RawMessage `json:"date"`
	} `json:"lastActivity"`
}

func errItem() error {
	return fault.New("read metadata", fault.ErrUnavailable, "the server lists something without a number", "")
}

// numbered makes a record of an issue or a pull request.
func numbered(collection string, raw json.RawMessage) (archive.Record, error) {
	var i identity
	if json.Unmarshal(raw, &i) != nil || i.ID <= 0 || i.Number <= 0 {
		return archive.Record{}, errItem()
	}
	key := archive.Key{Collection: collection, ID: strconv.FormatInt(i.Number, 10)}
	return archive.Record{Key: key, Updated: timeOf(i.LastActivity.Date), Raw: raw}, nil
}

// whole reads a list from its beginning to its end each time.
func (p *Provider) whole(collection string, at func(forge.Repository) string) func(context.Context, forge.Query) forge.Records {
	return func(ctx context.Context, q forge.Query) forge.Records {
		return forge.Whole(forge.RecordsOf(p.client.List(ctx, p.pages(at(q.Repository), "")), collection, func(raw json.RawMessage) (archive.Record, error) {
			var i identity
			if json.Unmarshal(raw, &i) != nil || i.ID <= 0 {
				return archive.Record{}, errItem()
			}
			return archive.Record{Key: archive.Key{ID: strconv.FormatInt(i.ID, 10)}, Raw: raw}, nil
		}))
	}
}

// changed reads issues or pull requests by the time of their last activity.
func (p *Provider) changed(collection, project string) func(context.Context, forge.Query) forge.Records {
	return func(ctx context.Context, q forge.Query) forge.Records {
		l := activityList{p: p, collection: collection, query: quoted(project) + " is " + quoted(strings.TrimPrefix(q.Repository.FullName(), "/"))}
		records := l.all(ctx)
		if !q.Since.IsZero() {
			records = l.recent(ctx, q.Since)
		}
		return p.withPeople(ctx, records)
	}
}

// activityList is a list of what changes its place with every activity.
type activityList struct {
	p          *Provider
	collection string
	query      string
}

// page reads up to a hundred records.
func (l activityList) page(ctx context.Context, direction string, from int) ([]archive.Record, error) {
	query := offset(l.query+` order by "Last Activity Date" `+direction, from)
	if l.collection == "issues" {
		query.Set("withFields", "true")
	}
	var items []json.RawMessage
	if _, err := l.p.client.Do(ctx, http.MethodGet, "/"+l.collection, query, nil, &items); err != nil {
		return nil, err
	}
	if len(items) > pageSize {
		return nil, fault.New("list "+l.collection, fault.ErrUnavailable, "the server gives more than was asked for", "")
	}
	var page []archive.Record
	for _, raw := range items {
		r, err := numbered(l.collection, raw)
		if err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, nil
}

// maxSteps bounds the pages of a listing: those of a million records, each page read twice.
const maxSteps = 20_000

// all reads everything, the oldest activity first. What is active meanwhile moves to the end, and the rest up: a page begins with the last
// record of the one before, or it is gone back until one begins with what is no younger.
func (l activityList) all(ctx context.Context) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		seen := map[string]time.Time{} // when each was active
		var last time.Time
		for from, steps := 0, 0; steps < maxSteps; steps++ {
			page, err := l.page(ctx, "asc", from)
			if err != nil {
				yield(archive.Record{}, err)
				return
			}
			if from > 0 && (len(page) == 0 || page[0].Updated.After(last)) {
				from = max(from-pageSize, 0)
				continue
			}
			for _, r := range page {
				if at, has := seen[r.ID]; has && at.Equal(r.Updated) {
					continue
				}
				if seen[r.ID] = r.Updated; !yield(r, nil) {
					return
				}
				last = r.Updated
			}
			if len(page) < pageSize {
				return
			}
			from += len(page) - 1
		}
		yield(archive.Record{}, fault.New("list "+l.collection, fault.ErrUnsupported, "the listing does not end", ""))
	}
}

// recent reads what was active since, the newest first, and yields it in its order: what moves meanwhile is seen twice, not missed.
func (l activityList) recent(ctx context.Context, since time.Time) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		found := map[string]archive.Record{}
		for from := 0; from < maxSteps*pageSize; from += pageSize {
			page, err := l.page(ctx, "desc", from)
			if err != nil {
				yield(archive.Record{}, err)
				return
			}
			older := len(page) < pageSize
			for _, r := range page {
				if older = older || r.Updated.Before(since); !r.Updated.Before(since) {
					found[r.ID] = r
				}
			}
			if older {
				break
			}
		}
		var sorted []archive.Record
		for _, r := range found {
			sorted = append(sorted, r)
		}
		slices.SortFunc(sorted, func(a, b archive.Record) int {
			if c := a.Updated.Compare(b.Updated); c != 0 {
				return c
			}
			return strings.Compare(a.ID, b.ID)
		})
		for _, r := range sorted {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// of reads what belongs to an issue or a pull request, all in an answer: unasked where count, a field of it, is 0.
func (p *Provider) of(collection, parents, at, count string) func(context.Context, forge.Query) forge.Records {
	return forge.OfEach(func(ctx context.Context, _ forge.Repository, parent archive.Record) forge.Records {
		return p.withPeople(ctx, func(yield func(archive.Record, error) bool) {
			var fields map[string]json.RawMessage
			var i identity
			if json.Unmarshal(parent.Raw, &fields) != nil || json.Unmarshal(parent.Raw, &i) != nil || i.ID <= 0 {
				yield(archive.Record{}, errItem())
				return
			}
			if count != "" && string(fields[count]) == "0" {
				return
			}
			var items []json.RawMessage
			path := "/" + parents + "/" + strconv.FormatInt(i.ID, 10) + "/" + at
			if _, err := p.client.Do(ctx, http.MethodGet, path, nil, nil, &items); err != nil {
				yield(archive.Record{}, err)
				return
			}
			for _, raw := range items {
				r, err := belonging(collection, parent, raw)
				if !yield(r, err) || err != nil {
					return
				}
			}
		})
	})
}

// belonging names what belongs to a parent: by its own number where it has one of its own, else by the parent's and what it leads to.
func belonging(collection string, parent archive.Record, raw json.RawMessage) (archive.Record, error) {
	var i identity
	if json.Unmarshal(raw, &i) != nil {
		return archive.Record{}, errItem()
	}
	id := ""
	switch shared := collection == "issue-milestones" || collection == "links"; {
	case i.ID > 0 && shared: // several issues have it
		id = parent.ID + ":" + strconv.FormatInt(i.ID, 10)
	case i.ID > 0:
		id = strconv.FormatInt(i.ID, 10)
	case i.UserID > 0:
		id = parent.ID + ":" + strconv.FormatInt(i.UserID, 10)
	default:
		return archive.Record{}, errItem()
	}
	return archive.Record{Key: archive.Key{Collection: collection, ID: id}, Raw: raw}, nil
}

// setting reads how branches and tags are protected, webhooks without secrets and headers, and how issues and pull requests are handled.
// What jobs get is left out: there are secrets among it.
func (p *Provider) setting(ctx context.Context, q forge.Query) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		var all map[string]json.RawMessage
		if _, err := p.client.Do(ctx, http.MethodGet, "/projects/"+q.Repository.ID+"/setting", nil, nil, &all); err != nil {
			yield(archive.Record{}, err)
			return
		}
		for _, list := range []struct{ at, collection, prefix string }{
			{"branchProtections", "rules", branchRule}, {"tagProtections", "rules", tagRule}, {"webHooks", "hooks", ""},
		} {
			var items []map[string]json.RawMessage
			if len(all[list.at]) > 0 && json.Unmarshal(all[list.at], &items) != nil {
				yield(archive.Record{}, errItem())
				return
			}
			for i, item := range items {
				if list.collection == "hooks" {
					item = hook(item)
				}
				raw, err := json.Marshal(item)
				key := archive.Key{Collection: list.collection, ID: list.prefix + strconv.Itoa(i+1)}
				if !yield(archive.Record{Key: key, Raw: raw}, err) || err != nil {
					return
				}
			}
		}
		for _, name := range []string{"issueSetting", "pullRequestSetting"} {
			if raw := all[name]; strings.HasPrefix(string(raw), "{") && !yield(archive.Record{Key: archive.Key{Collection: "policies", ID: name}, Raw: raw}, nil) {
				return
			}
		}
	}
}

// What the IDs of rules begin with: they have no names, but an order.
const (
	branchRule = "branch:"
	tagRule    = "tag:"
)

// hook is what of a webhook is no secret.
func hook(all map[string]json.RawMessage) map[string]json.RawMessage {
	kept := map[string]json.RawMessage{"eventTypes": all["eventTypes"]}
	if len(kept["eventTypes"]) == 0 {
		delete(kept, "eventTypes")
	}
	var address string
	if json.Unmarshal(all["postUrl"], &address) == nil {
		if u, err := url.Parse(address); err == nil {
			u.User, u.RawQuery, u.Fragment = nil, "", ""
			kept["postUrl"], _ = json.Marshal(u.String()) // a string always can be
		}
	}
	return kept
}

// collaborators are who was given a role in the project itself.
func (p *Provider) collaborators(ctx context.Context, q forge.Query) forge.Records {
	return p.withPeople(ctx, func(yield func(archive.Record, error) bool) {
		var items []json.RawMessage
		if _, err := p.client.Do(ctx, http.MethodGet, "/projects/"+q.Repository.ID+"/user-authorizations", nil, nil, &items); err != nil {
			yield(archive.Record{}, err)
			return
		}
		for _, raw := range items {
			r, err := belonging("collaborators", archive.Record{}, raw)
			if !yield(r, err) || err != nil {
				return
			}
		}
	})
}

// withPeople puts who is meant beside the numbers that the answers have of people, as "user" and "submitter".
func (p *Provider) withPeople(ctx context.Context, records iter.Seq2[archive.Record, error]) forge.Records {
	return func(yield func(archive.Record, error) bool) {
		for r, err := range records {
			if err == nil {
				r.Raw, err = p.named(ctx, r.Raw)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (p *Provider) named(ctx context.Context, raw json.RawMessage) (json.RawMessage, error) {
	var i identity
	if json.Unmarshal(raw, &i) != nil || i.UserID <= 0 && i.SubmitterID <= 0 {
		return raw, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return raw, nil
	}
	for field, id := range map[string]int64{"user": i.UserID, "submitter": i.SubmitterID} {
		who, err := p.person(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(who) > 0 {
			fields[field] = who
		}
	}
	return json.Marshal(fields)
}

// person finds out who somebody is, once. Accounts other than administrators' are told only of themselves, and others stay numbers.
func (p *Provider) person(ctx context.Context, id int64) (json.RawMessage, error) {
	if id <= 0 {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if who, known := p.people[id]; known || p.strangers {
		return who, nil
	}
	if p.people == nil {
		p.people = map[int64]json.RawMessage{}
		if err := p.meet(ctx, "me"); err != nil {
			p.people = nil
			return nil, err
		}
	}
	if who, known := p.people[id]; known {
		return who, nil
	}
	err := p.meet(ctx, strconv.FormatInt(id, 10))
	switch {
	case errors.Is(err, fault.ErrDenied):
		p.strangers = true
		return nil, nil
	case errors.Is(err, fault.ErrNotFound):
		p.people[id] = nil
		return nil, nil
	}
	return p.people[id], err
}

// meet asks for somebody, and keeps the names.
func (p *Provider) meet(ctx context.Context, who string) error {
	var d struct {
		ID       int64  `json:"id"`
		Name     string `json:"name"`
		FullName string `json:"fullName,omitempty"`
	}
	if _, err := p.client.Do(ctx, http.MethodGet, "/users/"+who, nil, nil, &d); err != nil {
		if who == "me" && errors.Is(err, fault.ErrDenied) {
			return nil // nobody asks
		}
		return err
	}
	raw, err := json.Marshal(d)
	if err == nil && d.ID > 0 {
		p.people[d.ID] = raw
	}
	return err
}
