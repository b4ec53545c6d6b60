package gitea

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

const (
	// windowSize is how many records are held to be sorted by their time of change, at most where the forge can be asked so.
	windowSize = 1000
	// maxReadings is how often a list is read that changes meanwhile.
	maxReadings = 3
)

// record is a document of its own, one of its collection.
func (p *Provider) record(ctx context.Context, at, collection string) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		var raw json.RawMessage
		_, err := p.client.Do(ctx, http.MethodGet, at, nil, nil, &raw)
		yield(archive.Record{Key: archive.Key{Collection: collection, ID: "repository"}, Raw: raw}, scoped(err))
	}
}

func (p *Provider) settings(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return p.record(ctx, path("repos", q.Repository.Owner, q.Repository.Name), "settings")
}

func (p *Provider) topics(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return p.record(ctx, below(q.Repository, "topics"), "topics")
}

// whole reads a list that is read from its beginning to its end each time.
func (p *Provider) whole(at string, query url.Values, name naming) reading {
	collection := at
	return func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return named(collection, p.steadily(ctx, list{at: below(q.Repository, at), query: query, name: name}))
	}
}

// named sets the collection of records.
func named(collection string, records iter.Seq2[archive.Record, error]) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		for r, err := range records {
			r.Collection = collection
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// list is one list of the API.
type list struct {
	at    string
	query url.Values
	name  naming
	most  int64 // more records than that are errMany; 0 for any number
	// partly is a list whose count tells nothing of what arrives.
	partly bool
}

// many says that a list has more than was asked for, by the server's count at the time of its clock.
type many struct{ answered time.Time }

func (many) Error() string { return "the list is long" }

// steadily yields what a list has. Pages are cut by number: what follows something that left the list meanwhile moves up, and one
// record goes unseen. So a list whose count changed is read again, for what was missed.
func (p *Provider) steadily(ctx context.Context, l list) iter.Seq2[archive.Record, error] {
	return func(yield func(archive.Record, error) bool) {
		seen := map[string]bool{}
		for range maxReadings {
			stopped, steady, err := p.once(ctx, l, seen, yield)
			if stopped || steady {
				return
			}
			if err != nil && !errors.Is(err, fault.ErrIncomplete) {
				yield(archive.Record{}, err)
				return
			}
		}
		yield(archive.Record{}, fault.New("list "+l.at, fault.ErrIncomplete, "it changed each time it was read", "run it again"))
	}
}

// once reads a list, and yields what was not seen. It was steady where its count stayed the same and as many came.
func (p *Provider) once(ctx context.Context, l list, seen map[string]bool, yield func(archive.Record, error) bool) (stopped, steady bool, err error) {
	arrived, first, last := map[string]bool{}, "", ""
	for page, err := range p.client.List(ctx, pages(l.at, maps.Clone(withValues(l.query)), l.partly)) {
		if err != nil {
			return false, false, scoped(err)
		}
		last = page.Response.Header.Get(totalCount)
		if first == "" {
			first = last
			if n, err := strconv.ParseInt(first, 10, 64); err == nil && l.most > 0 && n > l.most && !page.Response.Date().IsZero() {
				return false, false, many{page.Response.Date()}
			}
		}
		for _, raw := range page.Items {
			r, err := l.name(raw)
			if err != nil {
				return false, false, err
			}
			arrived[r.ID] = true
			if seen[r.ID] {
				continue
			}
			seen[r.ID] = true
			if !yield(r, nil) {
				return true, false, nil
			}
		}
	}
	total, err := strconv.Atoi(last)
	return false, l.partly || err != nil || first == last && len(arrived) >= total, nil
}

func withValues(query url.Values) url.Values {
	if query == nil {
		return url.Values{}
	}
	return query
}

// changed reads a list that can be asked for what changed in a span of time. The forge sorts by creation, and what is read is to come
// by its time of change, so that a reading that is cut short can go on from there: time is cut into spans with few records each.
func (p *Provider) changed(at string, query url.Values, name naming) reading {
	collection := at
	if at == "issues/comments" {
		collection = "comments"
	}
	return func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			from := q.Since.Truncate(time.Second)
			for ends := []time.Time{{}}; len(ends) > 0; {
				until := ends[len(ends)-1]
				records, err := p.span(ctx, list{at: below(q.Repository, at), query: query, name: name}, from, until)
				var long many
				if errors.As(err, &long) {
					ends = append(ends, middle(from, until, long.answered))
					continue
				}
				for _, r := range records {
					r.Collection = collection
					if !yield(r, nil) {
						return
					}
				}
				if err != nil {
					yield(archive.Record{}, err)
					return
				}
				ends, from = ends[:len(ends)-1], until.Add(time.Second)
			}
		}
	}
}

// span reads what changed from one second to another, both of them in it, by the time of change. Zero times are open ends.
func (p *Provider) span(ctx context.Context, l list, from, until time.Time) ([]archive.Record, error) {
	l.query = maps.Clone(withValues(l.query))
	if from.Unix() > 0 {
		l.query.Set("since", from.UTC().Format(time.RFC3339))
	}
	if !until.IsZero() {
		l.query.Set("before", until.UTC().Format(time.RFC3339))
	}
	if until.IsZero() || until.Sub(from) > time.Second {
		l.most = windowSize
	}
	var all []archive.Record
	for r, err := range p.steadily(ctx, l) {
		if err != nil {
			return nil, err
		}
		all = append(all, r)
		if l.most == 0 && len(all) > 100*windowSize {
			return nil, fault.New("list "+l.at, fault.ErrUnsupported, "too many of them changed in the same second", "")
		}
	}
	slices.SortStableFunc(all, func(a, b archive.Record) int { return a.Updated.Compare(b.Updated) })
	return all, nil
}

// middle halves a span of time, whose open end is now.
func middle(from, until, now time.Time) time.Time {
	if from.Unix() <= 0 {
		from = time.Unix(1, 0)
	}
	if until.IsZero() {
		until = now
	}
	if !until.After(from) { // the server's clock is behind what it says
		until = from.AddDate(1, 0, 0)
	}
	return from.Add(until.Sub(from) / 2).Truncate(time.Second).UTC()
}

// pullRequests reads the list of pull requests, which can be sorted by change but not asked for a span of time.
func (p *Provider) pullRequests(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	l := list{at: below(q.Repository, "pulls"), query: url.Values{"state": {"all"}, "sort": {"leastupdate"}}, name: pull}
	if q.Since.IsZero() {
		return named("pulls", p.steadily(ctx, l))
	}
	return func(yield func(archive.Record, error) bool) {
		// The newest change comes first, so what moves meanwhile is seen twice, and not missed.
		l.query.Set("sort", "recentupdate")
		var recent []archive.Record
		_, _, err := p.once(ctx, l, map[string]bool{}, func(r archive.Record, _ error) bool {
			if r.Updated.Before(q.Since) {
				return false
			}
			recent = append(recent, r)
			return true
		})
		slices.SortStableFunc(recent, func(a, b archive.Record) int { return a.Updated.Compare(b.Updated) })
		for _, r := range recent {
			r.Collection = "pulls"
			if err == nil && !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(archive.Record{}, err)
		}
	}
}

func pull(raw json.RawMessage) (archive.Record, error) {
	i, err := identify(raw)
	if err != nil {
		return archive.Record{}, err
	}
	r, err := numbered(i.Number, i, raw)
	r.Parent = issueKey(i.Number)
	return r, err
}

// rules are the protections of branches and, where the forge has them, of tags.
func (p *Provider) rules(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	branches := list{at: below(q.Repository, "branch_protections"), name: func(raw json.RawMessage) (archive.Record, error) {
		var d struct {
			Rule   string `json:"rule_name"`
			Branch string `json:"branch_name"` // all that older ones have
		}
		if err := json.Unmarshal(raw, &d); err != nil || d.Rule+d.Branch == "" {
			return archive.Record{}, errItem()
		}
		name := d.Rule
		if name == "" {
			name = d.Branch
		}
		return archive.Record{Key: archive.Key{ID: branchRule + name}, Raw: raw}, nil
	}}
	tags := list{at: below(q.Repository, "tag_protections"), name: func(raw json.RawMessage) (archive.Record, error) {
		r, err := byID(raw)
		r.ID = tagRule + r.ID
		return r, err
	}}
	return named("rules", func(yield func(archive.Record, error) bool) {
		for r, err := range p.steadily(ctx, branches) {
			if !yield(r, err) || err != nil {
				return
			}
		}
		for r, err := range p.steadily(ctx, tags) {
			if errors.Is(err, fault.ErrNotFound) {
				return // it came with Gitea 1.23
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	})
}

// What the IDs of rules begin with.
const (
	branchRule = "branch:"
	tagRule    = "tag:"
)

// collaborators are read with their permissions, where the account may ask.
func (p *Provider) collaborators(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return named("collaborators", func(yield func(archive.Record, error) bool) {
		for r, err := range p.steadily(ctx, list{at: below(q.Repository, "collaborators"), name: byID}) {
			if err == nil {
				err = p.permission(ctx, q.Repository, &r)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	})
}

// permission puts what an account may do in the place of the account, which is part of it.
func (p *Provider) permission(ctx context.Context, r forge.Repository, of *archive.Record) error {
	var who account
	if err := json.Unmarshal(of.Raw, &who); err != nil || !forge.PlainName(who.name()) {
		return errItem()
	}
	var raw json.RawMessage
	_, err := p.client.Do(ctx, http.MethodGet, below(r, "collaborators")+path(who.name(), "permission"), nil, nil, &raw)
	if errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err == nil {
		of.Raw = raw
	}
	return scoped(err)
}

// teams are an organisation's; users have none.
func (p *Provider) teams(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
	return named("teams", func(yield func(archive.Record, error) bool) {
		for r, err := range p.steadily(ctx, list{at: below(q.Repository, "teams"), name: byID}) {
			if errors.Is(err, fault.ErrUnsupported) {
				return
			}
			if err == nil {
				r.Raw, err = withSortedUnits(r.Raw)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	})
}

// withSortedUnits brings what a team may do into an order: the forge names it in another one each time.
func withSortedUnits(raw json.RawMessage) (json.RawMessage, error) {
	var team map[string]json.RawMessage
	var units []string
	if json.Unmarshal(raw, &team) != nil || json.Unmarshal(team["units"], &units) != nil {
		return raw, nil // an older one names none
	}
	slices.Sort(units)
	var err error
	if team["units"], err = json.Marshal(units); err != nil {
		return nil, err
	}
	return json.Marshal(team)
}
