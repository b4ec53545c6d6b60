package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var (
	_ forge.MetadataRestorer = (*Provider)(nil)
	_ forge.MetadataTarget   = (*target)(nil)
	_ forge.MetadataAttacher = (*target)(nil)
)

// target restores by the API, as the account that the credentials belong to.
type target struct {
	p          *Provider
	self       string
	labels     map[string]int64 // IDs by name in lower case
	milestones map[string]int64 // IDs by title
	pulls      map[int64]bool   // numbers of items that are pull requests
	pinned     map[int64]bool   // and of those that are pinned: a second time is an error
	found      neutral.Restored
}

// Target implements forge.MetadataRestorer.
func (p *Provider) Target() forge.MetadataTarget { return &target{p: p} }

const (
	maxTitle  = 255 // runes of an issue's title
	maxTopics = 25

	maxAwait  = 20 * time.Second
	awaitStep = 250 * time.Millisecond
)

// Keeps implements forge.MetadataTarget.
func (t *target) Keeps() neutral.Fidelity {
	kept := neutral.Fate{State: neutral.Kept}
	said := neutral.Fate{State: neutral.Changed, How: "in the text"}
	lost := func(how string) neutral.Fate { return neutral.Fate{State: neutral.Lost, How: how} }
	changed := func(how string) neutral.Fate { return neutral.Fate{State: neutral.Changed, How: how} }
	all := neutral.Fidelity{
		"settings":         kept,
		"settings.private": changed("as --visibility says"),
		"settings.topics":  changed("25 at most, and those that are plain words"),

		"label":               kept,
		"milestone":           kept,
		"milestone.closedAt":  lost("it is when it was restored"),
		"milestone.created":   lost("it is when it was restored"),
		"milestone.updated":   lost("it is when it was restored"),
		"item":                kept,
		"item.title":          changed("255 characters of it"),
		"item.number":         changed("in their order, from the next free number on; --keep-numbers leaves no gap out"),
		"item.closedAt":       said,
		"item.closedBy":       said,
		"item.reason":         said,
		"item.lockReason":     said,
		"item.assignees":      said,
		"item.reactions":      said,
		"item.links":          said,
		"item.pinned":         changed("as many as the forge allows"),
		"item.events":         lost("where they are few they stay in the mark, unseen"),
		"item.confidential":   lost("whoever sees the repository sees it: never restored to one that everybody sees"),
		"comment.internal":    lost("whoever sees the repository sees it: never restored to one that everybody sees"),
		"pull":                changed("in the text; a pull request only where its branch is there as it was, and it was not merged, else an issue"),
		"comment":             kept,
		"comment.reactions":   said,
		"comment.answer":      said,
		"comment.code":        said,
		"review":              kept,
		"review.state":        said,
		"review.oid":          said,
		"review-comment":      kept,
		"review-comment.code": changed("at its place in a pull request that is one, else in the text"),

		"review-comment.reactions": said,

		"release":           kept,
		"release.published": said,
		"release.immutable": lost("the forge has no such releases"),
		"asset":             lost("the forge counts and tells anew"),
		"asset.name":        kept,
		"asset.release":     kept,
		"file":              changed("hangs on the issue or comment that refers to it"),
		"rule":              kept,
		"rule.pushBy":       lost("nobody pushes there but by pull requests"),
		"rule.delete":       lost("protected branches cannot be deleted"),
		"rule.linear":       lost("the forge has no such rule"),
		"hook":              lost("it would be without its secret: make it again"),
		"key":               lost("who has access is not restored"),
		"collaborator":      lost("who has access is not restored"),
		"project":           lost("there is no API for projects"),
		"project-item":      lost("there is no API for projects"),
	}
	for _, sort := range []string{"item", "comment", "review", "review-comment", "release"} {
		all[sort+".author"], all[sort+".created"] = said, said
		all[sort+".updated"] = lost("it is when it was restored")
	}
	return all
}

// Begin implements forge.MetadataTarget.
func (t *target) Begin(ctx context.Context, r forge.Repository) (neutral.Restored, error) {
	op := "look at " + r.FullName()
	if t.p.o.Gogs {
		return neutral.Restored{}, fault.New(op, fault.ErrUnsupported, "metadata cannot be restored into Gogs", "")
	}
	var err error
	if t.self, err = t.p.account(ctx); err != nil {
		return neutral.Restored{}, fault.Wrap(op, nil, err, "")
	}
	t.labels, t.milestones, t.pulls, t.pinned = map[string]int64{}, map[string]int64{}, map[int64]bool{}, map[int64]bool{}
	t.found = neutral.Restored{Things: map[string]neutral.Written{}, Next: 1}
	ready := map[string]any{"archived": false, "has_issues": true, "has_pull_requests": true, "has_releases": true}
	if err := t.p.do(ctx, http.MethodPatch, path("repos", r.Owner, r.Name), nil, ready, nil); err != nil {
		return neutral.Restored{}, fault.Wrap(op, nil, err, "restoring metadata takes an account that is an administrator of the repository")
	}
	for _, look := range []func(context.Context, forge.Repository) error{
		t.awaitPush, t.findLabels, t.findMilestones, t.findItems, t.findComments, t.findReviews, t.findReleases, t.findRules,
	} {
		if err := look(ctx, r); err != nil {
			return neutral.Restored{}, fault.Wrap(op, nil, err, "")
		}
	}
	t.found.Empty = t.found.Next == 1
	return t.found, nil
}

// awaitPush waits until the forge has seen what was pushed just before, which it looks at on its own time: releases and pull requests
// need it. One that never does has nothing to wait for.
func (t *target) awaitPush(ctx context.Context, r forge.Repository) error {
	for waited := time.Duration(0); !r.Empty && waited < maxAwait; waited += awaitStep {
		now, _, err := t.p.get(ctx, r.Owner, r.Name)
		if err != nil || !now.Empty {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(awaitStep):
		}
	}
	return nil
}

// eachOf reads a list to its end, and decodes what is in it.
func eachOf[D any](ctx context.Context, p *Provider, at string, query url.Values, name naming, use func(*D)) error {
	for record, err := range p.steadily(ctx, list{at: at, query: query, name: name}) {
		if err != nil {
			return err
		}
		var d D
		if err := json.Unmarshal(record.Raw, &d); err != nil {
			return fault.Wrap("list "+at, fault.ErrUnavailable, err, "")
		}
		use(&d)
	}
	return nil
}

func (t *target) findLabels(ctx context.Context, r forge.Repository) error {
	type document struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	return eachOf(ctx, t.p, below(r, "labels"), nil, byID, func(d *document) { t.haveLabel(d.Name, d.ID) })
}

func (t *target) haveLabel(name string, id int64) {
	t.labels[strings.ToLower(name)] = id
	t.found.Things[neutral.KeyOf(&neutral.Label{Name: name})] = neutral.Written{ID: strconv.FormatInt(id, 10)}
}

func (t *target) findMilestones(ctx context.Context, r forge.Repository) error {
	return eachOf(ctx, t.p, below(r, "milestones"), url.Values{"state": {"all"}}, byID, func(d *milestoneDocument) {
		t.milestones[d.Title] = d.ID
		t.found.Things[neutral.KeyOf(&neutral.Milestone{Title: d.Title})] = neutral.Written{ID: strconv.FormatInt(d.ID, 10)}
	})
}

// findMark notes what bears a mark by the target's own account.
func (t *target) findMark(by *userDocument, body string, w neutral.Written) {
	if !strings.EqualFold(by.user().Login, t.self) {
		return
	}
	if _, m, ok := neutral.Unmark(body); ok {
		w.Pending = m.Pending
		t.found.Things[m.Key()] = w
	}
}

func (t *target) findItems(ctx context.Context, r forge.Repository) error {
	return eachOf(ctx, t.p, below(r, "issues"), url.Values{"state": {"all"}}, byNumber, func(d *issueDocument) {
		t.found.Next = max(t.found.Next, d.Number+1)
		if d.Pull != nil {
			t.pulls[d.Number] = true
		}
		if d.PinOrder > 0 {
			t.pinned[d.Number] = true
		}
		w := written("issue", d.Number, d.Number, d.URL)
		switch {
		case d.Locked:
			w.State = "locked"
		case d.State == "closed":
			w.State = "closed"
		}
		t.findMark(d.User, d.Body, w)
	})
}

func (t *target) findComments(ctx context.Context, r forge.Repository) error {
	return eachOf(ctx, t.p, below(r, "issues/comments"), nil, byID, func(d *textDocument) {
		t.findMark(d.User, d.Body, written("comment", d.ID, 0, d.URL))
	})
}

func (t *target) findReviews(ctx context.Context, r forge.Repository) error {
	for number := range t.pulls {
		at := below(r, "pulls/"+strconv.FormatInt(number, 10)+"/reviews")
		err := eachOf(ctx, t.p, at, nil, byID, func(d *textDocument) { t.findMark(d.User, d.Body, written("review", d.ID, 0, d.URL)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// releaseOf is a release as the target reads it.
type releaseOf struct {
	ID     int64           `json:"id"`
	Tag    string          `json:"tag_name"`
	Body   string          `json:"body"`
	Draft  bool            `json:"draft"`
	URL    string          `json:"html_url"`
	Author *userDocument   `json:"author"`
	Assets []assetDocument `json:"assets"`
}

func (t *target) findReleases(ctx context.Context, r forge.Repository) error {
	return eachOf(ctx, t.p, below(r, "releases"), nil, byID, func(d *releaseOf) {
		w := written("release", d.ID, 0, d.URL)
		if !d.Draft {
			w.State = "published"
		}
		t.findMark(d.Author, d.Body, w)
		for _, a := range d.Assets {
			asset := &neutral.Asset{File: neutral.File{Name: a.Name}, Release: d.Tag}
			t.found.Things[neutral.KeyOf(asset)] = neutral.Written{ID: strconv.FormatInt(a.ID, 10), URL: a.URL}
		}
	})
}

func (t *target) findRules(ctx context.Context, r forge.Repository) error {
	type document struct {
		Rule    string `json:"rule_name"`
		Pattern string `json:"name_pattern"`
	}
	for at, tags := range map[string]bool{"branch_protections": false, "tag_protections": true} {
		var all []document
		err := t.p.do(ctx, http.MethodGet, below(r, at), nil, nil, &all)
		if tags && errors.Is(err, fault.ErrNotFound) {
			continue // older ones have none of these
		}
		if err != nil {
			return err
		}
		for _, d := range all {
			t.found.Things[neutral.KeyOf(&neutral.Rule{Pattern: cmp.Or(d.Pattern, d.Rule), Tags: tags})] = neutral.Written{}
		}
	}
	return nil
}

// written names what there is at the target, so that Attach and Rewrite find it.
func written(sort string, id, number int64, address string) neutral.Written {
	return neutral.Written{ID: sort + " " + strconv.FormatInt(id, 10), Number: number, URL: address}
}

// Write implements forge.MetadataTarget.
func (t *target) Write(ctx context.Context, r forge.Repository, thing neutral.Thing) (neutral.Written, error) {
	switch thing := thing.(type) {
	case *neutral.Settings:
		return neutral.Written{}, t.settings(ctx, r, thing)
	case *neutral.Label:
		return t.label(ctx, r, thing)
	case *neutral.Milestone:
		return t.milestone(ctx, r, thing)
	case *neutral.Item:
		return t.item(ctx, r, thing)
	case *neutral.Comment:
		var d textDocument
		err := t.post(ctx, r, "issues/"+strconv.FormatInt(thing.Item, 10)+"/comments", map[string]any{"body": thing.Body}, &d)
		return written("comment", d.ID, 0, d.URL), err
	case *neutral.Review:
		return t.review(ctx, r, thing)
	case *neutral.Release:
		return t.release(ctx, r, thing)
	case *neutral.Asset:
		return t.asset(ctx, r, thing)
	case *neutral.Rule:
		return neutral.Written{}, t.rule(ctx, r, thing)
	case *neutral.State:
		return neutral.Written{}, t.state(ctx, r, thing)
	}
	return neutral.Written{}, fault.New("", fault.ErrUnsupported, "it is not restored here", "")
}

func (t *target) post(ctx context.Context, r forge.Repository, at string, body, into any) error {
	return t.p.do(ctx, http.MethodPost, below(r, at), nil, body, into)
}

func (t *target) settings(ctx context.Context, r forge.Repository, s *neutral.Settings) error {
	body := map[string]any{
		"description": s.Description, "website": s.Homepage, "has_wiki": s.HasWiki, "has_projects": s.HasProjects, "archived": s.Archived,
		"default_delete_branch_after_merge": s.DeleteBranch,
	}
	if s.DefaultBranch != "" {
		body["default_branch"] = s.DefaultBranch // one that is not there is passed over
	}
	if len(s.Merges) > 0 {
		for method, key := range map[string]string{"merge": "allow_merge_commits", "squash": "allow_squash_merge", "rebase": "allow_rebase"} {
			body[key] = slices.Contains(s.Merges, method)
		}
	}
	if topics := plainTopics(s.Topics); len(topics) > 0 && !s.Archived {
		err := t.p.do(ctx, http.MethodPut, below(r, "topics"), nil, map[string]any{"topics": topics}, nil)
		if err != nil {
			return err
		}
	}
	return t.p.do(ctx, http.MethodPatch, path("repos", r.Owner, r.Name), nil, body, nil)
}

// plainTopics are those that Gitea takes: up to 35 of lower-case letters, digits, dots and hyphens, not at the ends.
func plainTopics(all []string) []string {
	var plain []string
	for _, topic := range all {
		topic = strings.ToLower(topic)
		odd := strings.Trim(topic, "abcdefghijklmnopqrstuvwxyz0123456789-.")
		if odd == "" && topic != "" && len(topic) <= 35 && strings.Trim(topic, "-.") == topic && len(plain) < maxTopics {
			plain = append(plain, topic)
		}
	}
	return plain
}

func (t *target) label(ctx context.Context, r forge.Repository, l *neutral.Label) (neutral.Written, error) {
	var d struct {
		ID int64 `json:"id"`
	}
	err := t.post(ctx, r, "labels", map[string]any{
		"name": l.Name, "color": "#" + cmp.Or(l.Color, "ededed"), "description": l.Description, "exclusive": l.Exclusive,
	}, &d)
	if err == nil {
		t.haveLabel(l.Name, d.ID)
	}
	return neutral.Written{ID: strconv.FormatInt(d.ID, 10)}, err
}

func (t *target) milestone(ctx context.Context, r forge.Repository, m *neutral.Milestone) (neutral.Written, error) {
	body := map[string]any{"title": m.Title, "description": m.Description, "state": "open"}
	if m.Closed {
		body["state"] = "closed"
	}
	if !m.Due.IsZero() {
		body["due_on"] = m.Due
	}
	var d milestoneDocument
	err := t.post(ctx, r, "milestones", body, &d)
	if err == nil {
		t.milestones[m.Title] = d.ID
	}
	return neutral.Written{ID: strconv.FormatInt(d.ID, 10)}, err
}

// item makes a pull request where that is one still, else an issue.
func (t *target) item(ctx context.Context, r forge.Repository, item *neutral.Item) (neutral.Written, error) {
	body := map[string]any{"title": titleOf(item.Title), "body": item.Body}
	var labels []int64
	for _, name := range item.Labels {
		if id, ok := t.labels[strings.ToLower(name)]; ok {
			labels = append(labels, id)
		}
	}
	body["labels"] = labels
	if id, ok := t.milestones[item.Milestone]; ok {
		body["milestone"] = id
	}
	if !item.Due.IsZero() {
		body["due_date"] = item.Due
	}
	var d issueDocument
	opens, err := t.opens(ctx, r, item.Pull)
	if err != nil {
		return neutral.Written{}, err
	}
	if opens {
		body["head"], body["base"] = item.Pull.Head, item.Pull.Base
		err := t.post(ctx, r, "pulls", body, &d)
		if err == nil {
			t.pulls[d.Number] = true
			return written("issue", d.Number, d.Number, d.URL), nil
		}
		if !errors.Is(err, fault.ErrExists) && !errors.Is(err, fault.ErrInvalid) && !errors.Is(err, fault.ErrNotFound) {
			return neutral.Written{}, err
		}
		delete(body, "head")
		delete(body, "base")
	}
	err = t.post(ctx, r, "issues", body, &d)
	return written("issue", d.Number, d.Number, d.URL), err
}

func titleOf(title string) string {
	runes := []rune(cmp.Or(strings.TrimSpace(title), "(no title)"))
	return string(runes[:min(len(runes), maxTitle)])
}

// opens reports whether a pull request can be one again: it was not merged, and its branches are there, the head as it was.
func (t *target) opens(ctx context.Context, r forge.Repository, p *neutral.Pull) (bool, error) {
	if p == nil || p.Merged || p.Head == "" || p.Base == "" || p.Head == p.Base || p.HeadOID == "" {
		return false, nil
	}
	for branch, oid := range map[string]string{p.Base: "", p.Head: p.HeadOID} {
		var d struct {
			Commit struct {
				ID string `json:"id"`
			} `json:"commit"`
		}
		err := t.p.do(ctx, http.MethodGet, path("repos", r.Owner, r.Name, "branches", branch), nil, nil, &d)
		if errors.Is(err, fault.ErrNotFound) || err == nil && oid != "" && d.Commit.ID != oid {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// review writes a review that comments: nobody can approve what the same account opened. Its comments must have a place in a commit
// that is there.
func (t *target) review(ctx context.Context, r forge.Repository, review *neutral.Review) (neutral.Written, error) {
	unsupported := fault.New("", fault.ErrUnsupported, "it has no place here", "")
	if !t.pulls[review.Item] || review.OID == "" {
		return neutral.Written{}, unsupported
	}
	var comments []map[string]any
	for _, c := range review.Comments {
		if c.Code == nil || c.Code.Path == "" || c.Code.Line <= 0 {
			return neutral.Written{}, unsupported
		}
		comment := map[string]any{"path": c.Code.Path, "body": c.Body, "new_position": c.Code.Line}
		if c.Code.Side == "left" {
			comment = map[string]any{"path": c.Code.Path, "body": c.Body, "old_position": c.Code.Line}
		}
		comments = append(comments, comment)
	}
	err := t.p.do(ctx, http.MethodGet, path("repos", r.Owner, r.Name, "git", "commits", review.OID), nil, nil, nil)
	if errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrInvalid) {
		return neutral.Written{}, unsupported
	}
	if err != nil {
		return neutral.Written{}, err
	}
	var d textDocument
	err = t.post(ctx, r, "pulls/"+strconv.FormatInt(review.Item, 10)+"/reviews", map[string]any{
		"body": review.Body, "event": "COMMENT", "commit_id": review.OID, "comments": comments,
	}, &d)
	if errors.Is(err, fault.ErrInvalid) {
		err = unsupported
	}
	return written("review", d.ID, 0, d.URL), err
}

func (t *target) release(ctx context.Context, r forge.Repository, release *neutral.Release) (neutral.Written, error) {
	var d releaseOf
	err := t.post(ctx, r, "releases", map[string]any{
		"tag_name": release.Tag, "target_commitish": release.Target, "name": release.Name, "body": release.Body, "draft": release.Draft,
		"prerelease": release.Prerelease,
	}, &d)
	return written("release", d.ID, 0, d.URL), err
}

func (t *target) asset(ctx context.Context, r forge.Repository, a *neutral.Asset) (neutral.Written, error) {
	_, id, _ := strings.Cut(a.On.ID, " ")
	d, err := t.send(ctx, r, "releases/"+id+"/assets", archive.File{Name: a.Name, Size: a.Size}, a.Content)
	return neutral.Written{ID: strconv.FormatInt(d.ID, 10), URL: d.URL}, err
}

func (t *target) rule(ctx context.Context, r forge.Repository, rule *neutral.Rule) error {
	if rule.Tags {
		return t.post(ctx, r, "tag_protections", map[string]any{"name_pattern": rule.Pattern}, nil)
	}
	return t.post(ctx, r, "branch_protections", map[string]any{
		"rule_name": rule.Pattern, "required_approvals": rule.Approvals, "enable_status_check": len(rule.Checks) > 0,
		"status_check_contexts": rule.Checks, "enable_force_push": rule.ForcePush, "require_signed_commits": rule.Signed,
		"block_admin_merge_override": rule.Admins,
	}, nil)
}

// state closes, locks and pins an item, or publishes a release.
func (t *target) state(ctx context.Context, r forge.Repository, s *neutral.State) error {
	_, id, _ := strings.Cut(s.Written.ID, " ")
	if s.Release != nil {
		return t.p.do(ctx, http.MethodPatch, below(r, "releases/"+id), nil, map[string]any{"draft": false, "prerelease": s.Release.Prerelease}, nil)
	}
	at := below(r, "issues/"+strconv.FormatInt(s.Written.Number, 10))
	if s.Item.Closed && s.Written.State == "" {
		if err := t.p.do(ctx, http.MethodPatch, at, nil, map[string]any{"state": "closed"}, nil); err != nil {
			return err
		}
	}
	if s.Item.Pinned && !t.pinned[s.Written.Number] {
		err := t.p.do(ctx, http.MethodPost, at+"/pin", nil, nil, nil)
		if err != nil && !errors.Is(err, fault.ErrInvalid) && !errors.Is(err, fault.ErrExists) { // there are as many as can be
			return err
		}
	}
	if !s.Item.Locked {
		return nil
	}
	return t.p.do(ctx, http.MethodPut, at+"/lock", nil, map[string]any{}, nil)
}

// Finish implements forge.MetadataTarget.
func (t *target) Finish(context.Context, forge.Repository) error { return nil }
