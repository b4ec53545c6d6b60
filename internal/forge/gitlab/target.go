package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// owner is the role that may say when something was written, and by which number it is called.
const owner = 50

// Target implements forge.MetadataRestorer.
func (p *Provider) Target() forge.MetadataTarget { return &target{p: p} }

// target restores into one project, and knows what Begin found there.
type target struct {
	p          *Provider
	path       string // of the API: "/projects/12"
	account    string
	dated      bool // the token's account owns the project or administers the server: dates and numbers of issues are kept
	milestones map[string]int64
	branches   map[string]string // commits by name; nil until somebody asks
	notes      map[string]said   // by marks
	things     map[string]neutral.Written
	taken      map[int64]bool  // numbers of issues
	lastPull   int64           // number of the newest merge request
	open       map[string]bool // pairs of branches that have a merge request open
	numbers    map[ref]int64   // that issues are going to have
}

// ref is how the source calls an item.
type ref struct {
	pull   bool
	number int64
}

// said is a note that something can be said in answer to.
type said struct {
	item   string // "issues/3"
	note   int64
	thread string // "" where it is not known yet
}

// Keeps implements forge.MetadataTarget. What the account may do Begin finds out.
func (t *target) Keeps() neutral.Fidelity {
	date, number := kept(), changed("issues keep theirs where it is free; merge requests are numbered anew")
	switch {
	case t.path == "":
		date = changed("kept where the account owns the project or administers the server, else in the text")
		number = changed("issues keep theirs where the account owns the project or administers the server; merge requests are numbered anew")
	case !t.dated:
		date = changed("in the text: only owners of the project and administrators can set it")
		number = changed("numbered anew: only owners of the project and administrators can set it")
	}
	return fidelity(date, number)
}

// Fates that many fields have.
func kept() neutral.Fate               { return neutral.Fate{State: neutral.Kept} }
func changed(how string) neutral.Fate  { return neutral.Fate{State: neutral.Changed, How: how} }
func lost(because string) neutral.Fate { return neutral.Fate{State: neutral.Lost, How: because} }

// fidelity is what GitLab keeps, beside dates and numbers.
func fidelity(date, number neutral.Fate) neutral.Fidelity {
	inText := changed("in the text")
	named := neutral.Fate{State: neutral.Kept, How: "commas become semicolons"}
	return neutral.Fidelity{
		"label": kept(), "label.name": named, "label.exclusive": changed("labels named scope::value exclude each other"),
		"milestone": kept(), "milestone.closedAt": lost("GitLab has none"), "milestone.created": lost("it cannot be set"),
		"milestone.updated": lost("it cannot be set"),

		"item": inText, "item.title": {State: neutral.Kept, How: "255 characters of it"}, "item.body": kept(), "item.closed": kept(),
		"item.locked": kept(), "item.labels": named, "item.pinned": lost("nothing is pinned by the API"),
		"item.events":    lost("where they are few they stay in the mark, unseen"),
		"item.milestone": kept(), "item.due": kept(), "item.number": number, "item.confidential": kept(), "item.created": date,
		"item.closedAt": changed("in the text, and kept of issues like item.created"),
		"item.updated":  lost("it stays in the mark, unseen"),
		"pull":          changed("in the text; a merge request where both branches are there and at the same commit, closed if it was merged; else an issue"),
		"pull.base":     kept(), "pull.head": kept(), "pull.draft": kept(),

		"comment": inText, "comment.body": kept(), "comment.internal": kept(), "comment.created": date,
		"review": changed("a comment"), "review.created": date,
		"review-comment": inText, "review-comment.body": kept(), "review-comment.internal": kept(), "review-comment.created": date,

		"release": inText, "release.tag": kept(), "release.target": kept(), "release.name": kept(), "release.body": kept(),
		"release.published": kept(), "release.draft": lost("GitLab has no drafts"),
		"release.prerelease": inText, "release.immutable": lost("GitLab has none"),
		"asset": lost("GitLab counts none"), "asset.name": kept(), "asset.type": lost("GitLab tells it by the name"),

		"settings": lost("the project's own stay"), "settings.description": kept(), "settings.topics": kept(),
		"settings.defaultBranch": kept(), "settings.archived": kept(), "settings.merges": changed("the nearest way of merging"),
		"settings.deleteBranch": kept(), "settings.private": lost("the project stays as visible as it was made"),

		"rule": lost("GitLab's protected branches have none"), "rule.name": kept(), "rule.pattern": kept(), "rule.tags": kept(),
		"rule.forcePush": kept(), "rule.pushBy": changed("by the nearest role"),
		"hook": lost("it is not made: its secret is not in the point"), "key": lost("who has access is not restored"),
		"collaborator": lost("who has access is not restored"), "file": kept(),
		"project": lost("GitLab's boards are made of labels"), "project-item": lost("GitLab's boards are made of labels"),
		"discussion": changed("an issue"),
	}
}

// Begin implements forge.MetadataTarget. It changes nothing.
func (t *target) Begin(ctx context.Context, r forge.Repository) (neutral.Restored, error) {
	*t = target{
		p: t.p, path: projectPath(r), milestones: map[string]int64{},
		notes: map[string]said{}, things: map[string]neutral.Written{}, taken: map[int64]bool{}, numbers: map[ref]int64{},
		open: map[string]bool{},
	}
	for _, find := range []func(context.Context) error{t.rights, t.findNamed, t.findReleases, t.findRules, t.findItems} {
		if err := find(ctx); err != nil {
			return neutral.Restored{}, fault.Wrap("look into "+r.FullName(), nil, err, "")
		}
	}
	return neutral.Restored{Empty: len(t.taken) == 0 && t.lastPull == 0 && len(t.milestones) == 0, Things: t.things}, nil
}

// rights finds out who the account is, and whether it may set dates and numbers.
func (t *target) rights(ctx context.Context) error {
	var me struct {
		Username string `json:"username"`
		Admin    bool   `json:"is_admin"`
	}
	if err := t.p.get(ctx, "/user", nil, &me); err != nil {
		return err
	}
	type access struct {
		Level int64 `json:"access_level"`
	}
	var project struct {
		Permissions struct {
			Project *access `json:"project_access"`
			Group   *access `json:"group_access"`
		} `json:"permissions"`
		Owner struct {
			Username string `json:"username"`
		} `json:"owner"`
	}
	if err := t.p.get(ctx, t.path, nil, &project); err != nil {
		return err
	}
	t.account, t.dated = me.Username, me.Admin || me.Username != "" && project.Owner.Username == me.Username
	for _, a := range []*access{project.Permissions.Project, project.Permissions.Group} {
		t.dated = t.dated || a != nil && a.Level >= owner
	}
	return nil
}

// Write implements forge.MetadataTarget.
func (t *target) Write(ctx context.Context, _ forge.Repository, thing neutral.Thing) (w neutral.Written, err error) {
	switch v := thing.(type) {
	case *neutral.Settings:
		err = t.writeSettings(ctx, v)
	case *neutral.Label:
		err = t.writeLabel(ctx, v)
	case *neutral.Milestone:
		w, err = t.writeMilestone(ctx, v)
	case *neutral.Item:
		w, err = t.writeItem(ctx, v)
	case *neutral.Comment:
		w, err = t.writeComment(ctx, v)
	case *neutral.State:
		err = t.writeState(ctx, v)
	case *neutral.Release:
		w, err = t.writeRelease(ctx, v)
	case *neutral.Asset:
		w, err = t.writeAsset(ctx, v)
	case *neutral.Rule:
		err = t.writeRule(ctx, v)
	default:
		err = fault.New("", fault.ErrUnsupported, "GitLab takes none by its API", "")
	}
	return w, err
}

// Upload implements forge.MetadataTarget. The address is good in texts of the project.
func (t *target) Upload(ctx context.Context, _ forge.Repository, f archive.File, content io.Reader) (string, error) {
	made, err := t.attach(ctx, forge.Upload{Name: cmp.Or(f.Name, path.Base(f.URL)), Type: f.Type, Size: f.Size, Body: content})
	return made.URL, err
}

// Finish implements forge.MetadataTarget.
func (t *target) Finish(context.Context, forge.Repository) error { return nil }

// post makes something.
func (t *target) post(ctx context.Context, path string, body, into any) error {
	_, err := t.p.client.Do(ctx, http.MethodPost, path, nil, body, into)
	return err
}

// put changes something.
func (t *target) put(ctx context.Context, path string, body any) error {
	_, err := t.p.client.Do(ctx, http.MethodPut, path, nil, body, nil)
	return err
}

// there forgives that something is there already.
func there(err error) error {
	if errors.Is(err, fault.ErrExists) {
		return nil
	}
	return err
}

func (t *target) writeSettings(ctx context.Context, s *neutral.Settings) error {
	body := map[string]any{"description": s.Description, "remove_source_branch_after_merge": s.DeleteBranch}
	if len(s.Topics) > 0 {
		body["topics"] = s.Topics
	}
	if s.DefaultBranch != "" {
		commit, err := t.branch(ctx, s.DefaultBranch)
		if err != nil {
			return err
		}
		if commit != "" {
			body["default_branch"] = s.DefaultBranch
		}
	}
	squash := "never"
	for _, way := range s.Merges {
		switch way {
		case "merge":
			body["merge_method"] = "merge"
		case "rebase":
			if body["merge_method"] == nil {
				body["merge_method"] = "ff"
			}
		case "squash":
			squash = "default_off"
		}
	}
	if len(s.Merges) > 0 {
		body["squash_option"] = squash
	}
	if err := t.put(ctx, t.path, body); err != nil {
		return err
	}
	if s.Archived {
		return t.post(ctx, t.path+"/archive", nil, nil)
	}
	return nil
}

// branch is the commit of a branch; "" for one that is not there. All are listed once: there are as many questions as pull requests.
func (t *target) branch(ctx context.Context, name string) (string, error) {
	if t.branches == nil {
		all := map[string]string{}
		err := t.p.items(ctx, t.path+"/repository/branches", hundred(), func(raw json.RawMessage) (more bool, err error) {
			var b struct {
				Name   string `json:"name"`
				Commit struct {
					ID string `json:"id"`
				} `json:"commit"`
			}
			if err := json.Unmarshal(raw, &b); err != nil {
				return false, fault.Wrap("gitlab branch", fault.ErrUnavailable, err, "")
			}
			all[b.Name] = b.Commit.ID
			return true, nil
		})
		if err != nil && !notFound(err) { // a project without code has none
			return "", err
		}
		t.branches = all
	}
	return t.branches[name], nil
}

// labelName is a label's name as GitLab takes it: commas separate labels there.
func labelName(name string) string { return strings.ReplaceAll(name, ",", ";") }

func (t *target) writeLabel(ctx context.Context, l *neutral.Label) error {
	body := map[string]any{"name": labelName(l.Name), "color": "#" + cmp.Or(l.Color, "6699cc"), "description": l.Description}
	return there(t.post(ctx, t.path+"/labels", body, nil))
}

// writeMilestone makes a milestone unless one of its title is there, of the project or of its groups, and closes it.
func (t *target) writeMilestone(ctx context.Context, m *neutral.Milestone) (w neutral.Written, err error) {
	if t.milestones[m.Title] == 0 {
		var made named
		body := map[string]any{"title": m.Title, "description": m.Description}
		if !m.Due.IsZero() {
			body["due_date"] = m.Due.Format(time.DateOnly)
		}
		if err := t.post(ctx, t.path+"/milestones", body, &made); err != nil {
			return w, err
		}
		t.milestones[m.Title] = made.ID
	}
	w.ID = number(t.milestones[m.Title])
	if m.Closed {
		err = t.put(ctx, t.path+"/milestones/"+w.ID, map[string]any{"state_event": "close"})
	}
	return w, err
}

// writeRule protects a branch or tags. What GitLab protected by itself, as it does the default branch, is protected anew where it is
// not protected like this: roles cannot be changed.
func (t *target) writeRule(ctx context.Context, rule *neutral.Rule) error {
	level := levelOf(rule)
	at, body := t.path+"/protected_branches", map[string]any{
		"name": rule.Pattern, "push_access_level": level, "merge_access_level": 40, "allow_force_push": rule.ForcePush,
	}
	if rule.Tags {
		at, body = t.path+"/protected_tags", map[string]any{"name": rule.Pattern, "create_access_level": level}
	}
	err := t.post(ctx, at, body, nil)
	if !errors.Is(err, fault.ErrExists) {
		return err
	}
	var is struct {
		Push      levels `json:"push_access_levels"`
		Create    levels `json:"create_access_levels"`
		ForcePush bool   `json:"allow_force_push"`
	}
	if err := t.p.get(ctx, at+"/"+escaped(rule.Pattern), nil, &is); err != nil {
		return err
	}
	if may := append(is.Push, is.Create...); len(may) == 1 && may[0].Level == level && is.ForcePush == rule.ForcePush {
		return nil
	}
	if _, err := t.p.client.Do(ctx, http.MethodDelete, at+"/"+escaped(rule.Pattern), nil, nil, nil); err != nil && !notFound(err) {
		return err
	}
	return t.post(ctx, at, body, nil)
}

// levelOf is the role that may push: developers where they were named, nobody where pull requests are needed.
func levelOf(rule *neutral.Rule) int {
	level := 40
	for _, name := range rule.PushBy {
		switch {
		case strings.HasPrefix(name, "Developers"):
			return 30
		case name == "No one":
			level = 0
		}
	}
	if rule.PushBy == nil && rule.Approvals > 0 {
		level = 0
	}
	return level
}

// writeRelease makes a release. It is published at once: GitLab has no drafts, and one that was never published is not made.
func (t *target) writeRelease(ctx context.Context, r *neutral.Release) (w neutral.Written, err error) {
	if r.Published.IsZero() {
		return w, fault.New("", fault.ErrUnsupported, "GitLab has no drafts of releases", "")
	}
	body := map[string]any{
		"tag_name": r.Tag, "name": cmp.Or(r.Name, r.Tag), "description": r.Body, "released_at": r.Published.UTC().Format(time.RFC3339Nano),
	}
	if r.Target != "" {
		body["ref"] = r.Target // for a tag that is not there
	}
	var made release
	if err := t.post(ctx, t.path+"/releases", body, &made); err != nil {
		return w, err
	}
	return neutral.Written{ID: r.Tag, URL: made.Links.Self, State: "published"}, nil
}

// writeAsset stores a file in the project's package registry, as GitLab advises, or where that is switched off as an attachment, and
// links the release to it.
func (t *target) writeAsset(ctx context.Context, a *neutral.Asset) (w neutral.Written, err error) {
	address, err := t.store(ctx, a)
	if err != nil {
		return w, err
	}
	body := map[string]any{"name": a.Name, "url": address, "link_type": "package"}
	var made link
	if err := t.post(ctx, t.path+"/releases/"+escaped(a.Release)+"/assets/links", body, &made); err != nil {
		return w, err
	}
	return neutral.Written{ID: number(made.ID), URL: address}, nil
}

// store uploads an asset, and returns its address.
func (t *target) store(ctx context.Context, a *neutral.Asset) (string, error) {
	at := fmt.Sprintf("%s/packages/generic/release-assets/%s/%s", t.path, plainName(a.Release), plainName(a.Name))
	u := forge.Upload{Name: a.Name, Type: a.Type, Size: a.Size, Body: a.Content}
	err := t.p.client.Send(ctx, http.MethodPut, at, nil, u, nil)
	again, ok := a.Content.(io.Seeker)
	if !ok || !notFound(err) && !errors.Is(err, fault.ErrDenied) {
		return t.p.site.String() + "/api/v4" + at, err
	}
	if _, err := again.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	made, err := t.attach(ctx, u)
	return t.p.site.String() + made.Path, err
}

// attachment is where an upload is: as texts of the project say it, and on the server.
type attachment struct {
	URL  string `json:"url"`
	Path string `json:"full_path"`
}

func (t *target) attach(ctx context.Context, u forge.Upload) (made attachment, err error) {
	u.Field = "file"
	if err := t.p.client.Send(ctx, http.MethodPost, t.path+"/uploads", nil, u, &made); err != nil {
		return made, err
	}
	if made.URL == "" {
		return made, fault.New("upload", fault.ErrUnavailable, "the server answered without an address", "")
	}
	return made, nil
}

// plainName is a name as the package registry takes it.
func plainName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+", r) {
			return r
		}
		return '-'
	}, name)
	return cmp.Or(strings.Trim(plain, "-."), "file")
}
