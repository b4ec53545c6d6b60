package github

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

const (
	// importsSince is how old imports may be that are waited for.
	importsSince = time.Hour

	firstLook   = 100 * time.Millisecond // how soon an import is looked after; it doubles
	longestLook = 10 * time.Second
	looks       = 60 // how often
)

// awaitImports waits for issues that a run which was cut short asked for, and that are not there yet. Where GitHub does not list its
// imports there is nothing to be waited for.
func (t *target) awaitImports(ctx context.Context, _ forge.Repository) error {
	since := url.Values{"per_page": {perPage}, "since": {t.now().Add(-importsSince).UTC().Format(time.RFC3339)}}
	for page, err := range t.p.imports.Pages(ctx, t.at+"/import/issues", since, "") {
		if refusedBy(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, raw := range page.Items {
			var i imported
			if err := read("imports", raw, &i); err != nil {
				return err
			}
			if !i.waiting() {
				continue
			}
			if _, err := t.awaitImport(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *target) now() time.Time {
	if clock := t.p.o.Client.Clock; clock != nil {
		return clock()
	}
	return time.Now() //nolint:forbidigo // GitHub's imports go by the real clock
}

// reading reads the repository as a capture does.
func (t *target) reading(r forge.Repository) *metadata { return &metadata{p: t.p, r: r, at: t.at} }

// findFrame finds labels and milestones by their names, and what is pinned.
func (t *target) findFrame(ctx context.Context, r forge.Repository) error {
	type document struct {
		Node        words  `json:"node_id"`
		Name        words  `json:"name"`
		Default     bool   `json:"default"`
		Title       words  `json:"title"`
		Number      number `json:"number"`
		Discussions bool   `json:"has_discussions"`
		Pinned      nodes[struct {
			Issue struct {
				Number number `json:"number"`
			} `json:"issue"`
		}] `json:"pinned"`
	}
	err := all(t.reading(r).settings(ctx, forge.Query{Repository: r}), func(r archive.Record, d *document) {
		switch r.Collection {
		case "settings":
			for _, n := range d.Pinned.Nodes {
				t.pinned[int64(n.Issue.Number)] = true
			}
			if d.Discussions {
				t.categories = map[string]string{}
			}
		case "labels":
			t.labels[strings.ToLower(string(d.Name))] = label{string(d.Node), d.Default}
		case "milestones":
			t.milestones[string(d.Title)] = int64(d.Number)
			t.found.Things[neutral.KeyOf(&neutral.Milestone{Title: string(d.Title)})] = neutral.Written{ID: d.Number.id()}
		}
	})
	return err
}

// keepLabels notes the labels that are to stay as they are: all, unless the repository is new and has them of GitHub.
func (t *target) keepLabels() {
	for name, l := range t.labels {
		if !l.fresh || !t.found.Empty {
			t.found.Things[neutral.KeyOf(&neutral.Label{Name: name})] = neutral.Written{ID: l.node}
		}
	}
}

// findMark notes what bears a mark by the target's own account.
func (t *target) findMark(by *person, body words, w neutral.Written) (neutral.Mark, bool) {
	if by == nil || !strings.EqualFold(string(by.Login), t.self) {
		return neutral.Mark{}, false
	}
	_, m, ok := neutral.Unmark(string(body))
	if ok {
		t.found.Things[m.Key()] = w
	}
	return m, ok
}

func (t *target) findItems(ctx context.Context, r forge.Repository) error {
	return all(t.reading(r).issues(ctx, forge.Query{Repository: r}), func(_ archive.Record, d *issue) {
		n := int64(d.Number)
		t.taken(n)
		w := written("issue", n, n, string(d.URL))
		switch {
		case d.Locked:
			w.State = "locked"
		case d.State == "closed":
			w.State = "closed"
		}
		if d.Pull != nil || d.Base != nil {
			t.pulls[n] = true
			if w.State == "" && len(d.Labels) == 0 && d.Milestone == nil {
				t.bare[n], w.State = true, "bare"
			}
		}
		t.findMark(d.User, d.Body, w)
	})
}

// taken notes that a number is.
func (t *target) taken(n int64) { t.found.Next = max(t.found.Next, n+1) }

func (t *target) findComments(ctx context.Context, r forge.Repository) error {
	return all(t.reading(r).comments(ctx, forge.Query{Repository: r}), func(_ archive.Record, d *authored) {
		t.findMark(d.User, d.Body, written("comment", int64(d.ID), 0, string(d.URL)))
	})
}

func (t *target) findReviews(ctx context.Context, r forge.Repository) error {
	for n := range t.pulls {
		err := t.reading(r).paged(ctx, fmt.Sprintf("/pulls/%d/reviews", n), nil, func(raw json.RawMessage) error {
			var d authored
			if err := read("reviews", raw, &d); err != nil {
				return err
			}
			t.findMark(d.User, d.Body, written("review", int64(d.ID), 0, string(d.URL)))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// release is one as the target reads it.
type release struct {
	authored
	By     *person `json:"author"`
	Tag    words   `json:"tag_name"`
	Draft  bool    `json:"draft"`
	Assets []asset `json:"assets"`
}

func (t *target) findReleases(ctx context.Context, r forge.Repository) error {
	return t.reading(r).paged(ctx, "/releases", nil, func(raw json.RawMessage) error {
		var d release
		if err := read("releases", raw, &d); err != nil {
			return err
		}
		w := written("release", int64(d.ID), 0, string(d.URL))
		if !d.Draft {
			w.State = "published"
		}
		t.findMark(d.By, d.Body, w)
		for _, a := range d.Assets {
			t.findAsset(string(d.Tag), a)
		}
		return nil
	})
}

// findAsset notes an asset by its name, and by its label, which has the name that GitHub does not take. One whose upload broke off is in
// the way.
func (t *target) findAsset(tag string, a asset) {
	for _, name := range []words{a.Name, a.Label} {
		key := neutral.KeyOf(&neutral.Asset{File: neutral.File{Name: string(name)}, Release: tag})
		switch {
		case name == "":
		case a.State == "uploaded":
			t.found.Things[key] = neutral.Written{ID: a.ID.text(), URL: string(a.Page)}
		default:
			t.broken[key] = a.ID.text()
		}
	}
}

func (t *target) findRulesets(ctx context.Context, r forge.Repository) error {
	err := all(t.reading(r).rulesets(ctx, forge.Query{Repository: r}), func(_ archive.Record, d *ruleset) {
		t.rulesets[strings.ToLower(string(d.Name))] = true
		for _, rule := range d.inForce(r.DefaultBranch) {
			t.found.Things[neutral.KeyOf(rule)] = neutral.Written{}
		}
	})
	if unavailable(err) {
		return nil // writing one will tell
	}
	return err
}

// findDiscussions finds discussions and their comments by their marks, and the categories that there are.
func (t *target) findDiscussions(ctx context.Context, r forge.Repository) error {
	if t.categories == nil {
		return nil
	}
	if err := t.findCategories(ctx, r); err != nil {
		return err
	}
	type document struct {
		discussion
		Node words `json:"node_id"`
	}
	var marked []archive.Record
	err := all(t.reading(r).discussions(ctx, forge.Query{Repository: r}), func(r archive.Record, d *document) {
		n := int64(d.Number)
		t.taken(n)
		w := neutral.Written{ID: "discussion " + string(d.Node), Number: n, URL: string(d.URL)}
		switch {
		case d.Locked:
			w.State = "locked"
		case d.Closed:
			w.State = "closed"
		case len(d.Labels.Nodes) == 0:
			t.bare[n], w.State = true, "bare"
		}
		if _, ok := t.findMark(d.User, d.Body, w); ok {
			marked = append(marked, r)
		}
	})
	if err != nil {
		return err
	}
	for len(marked) > 0 {
		some := marked[:min(len(marked), discussionBatch)]
		marked = marked[len(some):]
		err := all(t.reading(r).discussionComments(ctx, forge.Query{Repository: r, Parents: some}), func(r archive.Record, d *saidThere) { t.findSaid(d) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *target) findCategories(ctx context.Context, r forge.Repository) error {
	var answer struct {
		Repository struct {
			Categories nodes[struct {
				ID   string `json:"id"`
				Name string `json:"name"`
			}] `json:"discussionCategories"`
		} `json:"repository"`
	}
	_, err := t.p.client.GraphQL(ctx, t.p.graphql,
		`query($owner: String!, $name: String!) { repository(owner: $owner, name: $name) { discussionCategories(first: 100) { nodes { id name } } } }`,
		map[string]any{"owner": r.Owner, "name": r.Name}, &answer)
	for _, c := range answer.Repository.Categories.Nodes {
		if t.categories[""] == "" {
			t.categories[""] = c.ID // for those whose own is not there
		}
		t.categories[strings.ToLower(c.Name)] = c.ID
	}
	if err == nil && len(t.categories) == 0 {
		t.categories = nil
	}
	return fault.Wrap("categories of discussions", nil, err, "")
}
