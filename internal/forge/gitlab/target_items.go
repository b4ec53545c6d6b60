package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// joiner is not seen. It keeps a slash at the beginning of a line from being a command to GitLab: "/close".
const joiner = "\u200d"

var (
	commands = regexp.MustCompile(`(?m)^([ \t]*)(` + joiner + `*)/([a-z_])`)
	joined   = regexp.MustCompile(`(?m)^([ \t]*)` + joiner + `(` + joiner + `*)/([a-z_])`)
)

// quiet is a text in which GitLab finds no commands.
func quiet(text string) string { return commands.ReplaceAllString(text, "${1}"+joiner+"${2}/${3}") }

// loud is the way back from quiet.
func loud(text string) string { return joined.ReplaceAllString(text, "${1}${2}/${3}") }

// maxTitle is how long a title may be, in characters.
const maxTitle = 255

// titleOf is a title as GitLab takes it.
func titleOf(title string) string {
	runes := []rune(title)
	if len(runes) > maxTitle {
		return string(runes[:maxTitle-1]) + "…"
	}
	if strings.TrimSpace(title) == "" {
		return "(no title)"
	}
	return title
}

// writeItem makes an issue or a merge request, open.
func (t *target) writeItem(ctx context.Context, i *neutral.Item) (neutral.Written, error) {
	fits, err := t.canMerge(ctx, i.Pull)
	if err != nil {
		return neutral.Written{}, err
	}
	if fits {
		w, err := t.writePull(ctx, i)
		if !errors.Is(err, fault.ErrExists) { // there is one of the same branches, open
			return w, err
		}
	}
	return t.writeIssue(ctx, i)
}

// canMerge reports whether a merge request can be made of a pull request: both of its branches are there, and nothing else is on its own.
func (t *target) canMerge(ctx context.Context, pull *neutral.Pull) (bool, error) {
	if pull == nil || pull.Head == "" || pull.Base == "" || pull.Head == pull.Base || pull.HeadOID == "" {
		return false, nil
	}
	head, err := t.branch(ctx, pull.Head)
	if err != nil || head != pull.HeadOID {
		return false, err
	}
	base, err := t.branch(ctx, pull.Base)
	return base != "", err
}

// Foresee implements forge.MetadataForeseer. Merge requests are numbered in a row of their own. Issues keep their numbers, if the account
// may set them, and pull requests that become issues keep theirs where no issue has it.
func (t *target) Foresee(ctx context.Context, r forge.Repository, items []*neutral.Item) ([]neutral.Written, error) {
	var last int64
	asked := map[int64]bool{}
	for n := range t.taken {
		last = max(last, n)
	}
	for _, i := range items {
		if t.dated && i.Pull == nil {
			asked[i.Number] = true
		}
		if t.dated {
			last = max(last, i.Number)
		}
	}
	pull, open := t.lastPull, maps.Clone(t.open)
	all := make([]neutral.Written, len(items))
	for at, i := range items {
		fits, err := t.canMerge(ctx, i.Pull)
		if err != nil {
			return nil, err
		}
		if fits && !open[pairOf(i.Pull)] {
			pull++
			open[pairOf(i.Pull)] = !i.Closed
			all[at] = foreseen(r, "merge_requests", pull)
			continue
		}
		n := i.Number
		if !t.dated || t.taken[n] || i.Pull != nil && asked[n] {
			last++
			n = last
		}
		t.taken[n], t.numbers[ref{i.Pull != nil, i.Number}] = true, n
		all[at] = foreseen(r, "issues", n)
	}
	return all, nil
}

// pairOf names the branches of a pull request. GitLab takes one open merge request of a pair.
func pairOf(p *neutral.Pull) string { return p.Head + " " + p.Base }

func foreseen(r forge.Repository, collection string, n int64) neutral.Written {
	w, err := written(collection, item{IID: n, URL: strings.TrimSuffix(r.WebURL, "/") + "/-/" + collection + "/" + number(n)})
	if err != nil {
		return neutral.Written{}
	}
	return w
}

// common are the fields that issues and merge requests both have.
func (t *target) common(i *neutral.Item) map[string]any {
	body := map[string]any{"title": titleOf(i.Title), "description": quiet(i.Body)}
	var labels []string
	for _, l := range i.Labels {
		labels = append(labels, labelName(l))
	}
	if len(labels) > 0 {
		body["labels"] = strings.Join(labels, ",")
	}
	if id := t.milestones[i.Milestone]; id != 0 {
		body["milestone_id"] = id
	}
	return body
}

func (t *target) writePull(ctx context.Context, i *neutral.Item) (neutral.Written, error) {
	body := t.common(i)
	body["source_branch"], body["target_branch"] = i.Pull.Head, i.Pull.Base
	if i.Pull.Draft {
		body["title"] = titleOf("Draft: " + i.Title)
	}
	var made item
	if err := t.post(ctx, t.path+"/merge_requests", body, &made); err != nil {
		return neutral.Written{}, err
	}
	return written("merge_requests", made)
}

// writeIssue makes an issue, of the number that it had unless another one has that.
func (t *target) writeIssue(ctx context.Context, i *neutral.Item) (neutral.Written, error) {
	body := t.common(i)
	if !i.Due.IsZero() {
		body["due_date"] = i.Due.Format(time.DateOnly)
	}
	if i.Confidential {
		body["confidential"] = true
	}
	var made item
	if t.dated {
		if body["iid"] = i.Number; t.numbers[ref{i.Pull != nil, i.Number}] != 0 {
			body["iid"] = t.numbers[ref{i.Pull != nil, i.Number}]
		}
		if !i.Created.IsZero() {
			body["created_at"] = timestamp(i.Created)
		}
	}
	err := t.post(ctx, t.path+"/issues", body, &made)
	if errors.Is(err, fault.ErrExists) && t.dated {
		delete(body, "iid")
		err = t.post(ctx, t.path+"/issues", body, &made)
	}
	if err != nil {
		return neutral.Written{}, err
	}
	return written("issues", made)
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// written says what was made. Its ID is the path below the project's, which tells issues from merge requests.
func written(collection string, made item) (neutral.Written, error) {
	if made.IID <= 0 {
		return neutral.Written{}, fault.New("", fault.ErrUnavailable, "the server answered without its number", "")
	}
	n := number(made.IID)
	sign := "#"
	if collection == "merge_requests" {
		sign = "!"
	}
	return neutral.Written{ID: collection + "/" + n, Number: made.IID, URL: made.URL, Ref: sign + n}, nil
}

// writeState closes and locks.
func (t *target) writeState(ctx context.Context, s *neutral.State) error {
	i := s.Item
	if i == nil { // a release is published already
		return nil
	}
	body := map[string]any{}
	if i.Closed && s.Written.State != "closed" {
		body["state_event"] = "close"
		if t.dated && !i.ClosedAt.IsZero() && strings.HasPrefix(s.Written.ID, "issues/") {
			body["updated_at"] = timestamp(i.ClosedAt) // it is then closed at that time, too
		}
	}
	if i.Locked {
		body["discussion_locked"] = true
	}
	if len(body) == 0 {
		return nil
	}
	return t.put(ctx, t.path+"/"+s.Written.ID, body)
}

// writeComment writes a note: into the thread of the one that it answers, if that can be found.
func (t *target) writeComment(ctx context.Context, c *neutral.Comment) (w neutral.Written, err error) {
	body := map[string]any{"body": quiet(c.Body)}
	if t.dated && !c.Created.IsZero() {
		body["created_at"] = timestamp(c.Created)
	}
	_, mark, marked := neutral.Unmark(c.Body)
	at, thread := c.On.ID+"/notes", ""
	if marked && mark.In != "" {
		if thread, err = t.threadOf(ctx, mark); err != nil {
			return w, err
		}
		if thread != "" {
			at = c.On.ID + "/discussions/" + thread + "/notes"
		}
	}
	if c.Internal && thread == "" { // answers are as what they answer
		body["internal"] = true
	}
	var made note
	if err := t.post(ctx, t.path+"/"+at, body, &made); err != nil {
		return w, err
	}
	if made.ID <= 0 {
		return w, fault.New("", fault.ErrUnavailable, "the server answered without its ID", "")
	}
	if marked {
		t.notes[mark.Key()] = said{c.On.ID, made.ID, thread}
	}
	return neutral.Written{ID: c.On.ID + "/notes/" + number(made.ID)}, nil
}

// threadOf finds the thread that a mark's text belongs in; "" where what it answers is not there.
func (t *target) threadOf(ctx context.Context, m neutral.Mark) (string, error) {
	of := m
	of.ID = m.In
	key := of.Key()
	answered, ok := t.notes[key]
	if !ok || answered.thread != "" {
		return answered.thread, nil
	}
	err := t.p.items(ctx, t.path+"/"+answered.item+"/discussions", hundred(), func(raw json.RawMessage) (more bool, err error) {
		var thread struct {
			ID    string `json:"id"`
			Notes []struct {
				ID int64 `json:"id"`
			} `json:"notes"`
		}
		if err := json.Unmarshal(raw, &thread); err != nil {
			return false, fault.Wrap("gitlab thread", fault.ErrUnavailable, err, "")
		}
		for _, n := range thread.Notes {
			if n.ID == answered.note {
				answered.thread = thread.ID
			}
		}
		return answered.thread == "", nil
	})
	t.notes[key] = answered
	return answered.thread, err
}

// findItems finds issues and merge requests that bear marks, and what was said on them.
func (t *target) findItems(ctx context.Context) error {
	for _, collection := range []string{"issues", "merge_requests"} {
		query := with(hundred(), "scope", "all", "state", "all", "order_by", "created_at", "sort", "asc")
		err := t.p.items(ctx, t.path+"/"+collection, query, func(raw json.RawMessage) (more bool, err error) {
			return true, t.foundItem(ctx, collection, raw)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *target) foundItem(ctx context.Context, collection string, raw json.RawMessage) error {
	var it item
	if err := json.Unmarshal(raw, &it); err != nil {
		return fault.Wrap("gitlab "+collection, fault.ErrUnavailable, err, "")
	}
	if collection == "issues" {
		t.taken[it.IID] = true
	} else {
		t.lastPull = max(t.lastPull, it.IID)
		if it.State == "opened" {
			t.open[pairOf(&neutral.Pull{Head: it.Source, Base: it.Target})] = true
		}
	}
	mark, ok := t.markOf(it.Author, it.Body)
	if !ok {
		return nil
	}
	w, err := written(collection, it)
	if err != nil {
		return err
	}
	w.Pending = mark.Pending
	switch {
	case it.Locked:
		w.State = "locked"
	case it.State != "opened":
		w.State = "closed"
	}
	t.things[mark.Key()] = w
	return t.findNotes(ctx, w.ID)
}

// markOf reads the mark of a text that the account itself wrote.
func (t *target) markOf(author user, text string) (neutral.Mark, bool) {
	if !strings.EqualFold(author.Username, t.account) {
		return neutral.Mark{}, false
	}
	_, mark, ok := neutral.Unmark(text)
	return mark, ok
}

// findNotes finds what was said on an item.
func (t *target) findNotes(ctx context.Context, item string) error {
	return t.p.items(ctx, t.path+"/"+item+"/discussions", hundred(), func(raw json.RawMessage) (more bool, err error) {
		var thread struct {
			ID    string `json:"id"`
			Notes []note `json:"notes"`
		}
		if err := json.Unmarshal(raw, &thread); err != nil {
			return false, fault.Wrap("gitlab thread", fault.ErrUnavailable, err, "")
		}
		for _, n := range thread.Notes {
			if mark, ok := t.markOf(n.Author, n.Body); ok {
				t.things[mark.Key()] = neutral.Written{ID: item + "/notes/" + strconv.FormatInt(n.ID, 10), Pending: mark.Pending}
				t.notes[mark.Key()] = said{item, n.ID, thread.ID}
			}
		}
		return true, nil
	})
}

// findNamed finds labels and milestones.
func (t *target) findNamed(ctx context.Context) error {
	err := t.eachNamed(ctx, t.path+"/labels", func(n named) {
		t.things[neutral.KeyOf(&neutral.Label{Name: n.Name})] = neutral.Written{ID: number(n.ID)}
	})
	if err != nil {
		return err
	}
	return t.eachNamed(ctx, t.path+"/milestones?include_ancestors=true", func(n named) {
		t.milestones[n.Title] = n.ID
		if n.State == "closed" { // one that is open may have to be closed
			t.things[neutral.KeyOf(&neutral.Milestone{Title: n.Title})] = neutral.Written{ID: number(n.ID)}
		}
	})
}

// named is what is read of things that are found by their names.
type named struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Title string `json:"title"`
	State string `json:"state"` // "active", "closed"
}

func (t *target) eachNamed(ctx context.Context, path string, f func(named)) error {
	return t.p.items(ctx, path, hundred(), func(raw json.RawMessage) (more bool, err error) {
		var in named
		if err := json.Unmarshal(raw, &in); err != nil {
			return false, fault.Wrap("gitlab "+path, fault.ErrUnavailable, err, "")
		}
		f(in)
		return true, nil
	})
}

// findReleases finds releases by their marks, and what they link to.
func (t *target) findReleases(ctx context.Context) error {
	return t.p.items(ctx, t.path+"/releases", hundred(), func(raw json.RawMessage) (more bool, err error) {
		var r release
		if err := json.Unmarshal(raw, &r); err != nil {
			return false, fault.Wrap("gitlab release", fault.ErrUnavailable, err, "")
		}
		if mark, ok := t.markOf(r.Author, r.Body); ok {
			t.things[mark.Key()] = neutral.Written{ID: r.Tag, URL: r.Links.Self, State: "published", Pending: mark.Pending}
		}
		for _, l := range r.Assets.Links {
			asset := &neutral.Asset{Release: r.Tag, File: neutral.File{Name: l.Name}}
			t.things[neutral.KeyOf(asset)] = neutral.Written{ID: number(l.ID), URL: l.URL}
		}
		return true, nil
	})
}

// findRules finds protected branches and tags, but for what GitLab protects by itself: that of the default branch is written anew.
func (t *target) findRules(ctx context.Context) error {
	var project struct {
		DefaultBranch string `json:"default_branch"`
	}
	if err := t.p.get(ctx, t.path, nil, &project); err != nil {
		return err
	}
	for _, tags := range []bool{false, true} {
		at := t.path + "/protected_branches"
		if tags {
			at = t.path + "/protected_tags"
		}
		err := t.eachNamed(ctx, at, func(n named) {
			if tags || n.Name != project.DefaultBranch {
				t.things[neutral.KeyOf(&neutral.Rule{Pattern: n.Name, Tags: tags})] = neutral.Written{ID: n.Name}
			}
		})
		if err != nil && !errors.Is(err, fault.ErrDenied) {
			return err
		}
	}
	return nil
}
