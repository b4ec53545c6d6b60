package github

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

const (
	maxTopics           = 20
	maxLabelDescription = 100 // characters
)

func (t *target) writeSettings(ctx context.Context, s *neutral.Settings) error {
	body := map[string]any{
		"description": fitting(s.Description), "homepage": s.Homepage, "has_wiki": s.HasWiki, "has_projects": s.HasProjects,
		"delete_branch_on_merge": s.DeleteBranch,
	}
	for method, key := range map[string]string{"merge": "allow_merge_commit", "squash": "allow_squash_merge", "rebase": "allow_rebase_merge"} {
		if slices.ContainsFunc(s.Merges, isMerge) { // one of them must be allowed
			body[key] = slices.Contains(s.Merges, method)
		}
	}
	if err := t.listBranches(ctx); err != nil {
		return err
	}
	if t.branches[s.DefaultBranch] != "" {
		body["default_branch"] = s.DefaultBranch
	}
	if topics := plainTopics(s.Topics); len(topics) > 0 && !s.Archived {
		if err := t.send(ctx, http.MethodPut, "/topics", map[string]any{"names": topics}, nil); err != nil {
			return err
		}
	}
	t.issueless = !s.HasIssues && !s.Archived
	if s.Archived {
		body["archived"], body["has_issues"] = true, s.HasIssues
	}
	err := t.send(ctx, http.MethodPatch, "", body, nil)
	if refusedBy(err) { // as where the organisation has no projects
		delete(body, "has_projects")
		err = t.send(ctx, http.MethodPatch, "", body, nil)
	}
	return err
}

func isMerge(method string) bool {
	return method == "merge" || method == "squash" || method == "rebase"
}

// plainTopics are those that GitHub takes: up to 50 lower-case letters, digits and hyphens, which do not begin with a hyphen.
func plainTopics(all []string) []string {
	var plain []string
	for _, topic := range all {
		topic = strings.ToLower(topic)
		odd := strings.Trim(topic, "abcdefghijklmnopqrstuvwxyz0123456789-")
		if odd == "" && topic != "" && topic[0] != '-' && len(topic) <= 50 && len(plain) < maxTopics {
			plain = append(plain, topic)
		}
	}
	return plain
}

// writeLabel makes a label. One that every new repository has is changed; names that differ by case are one.
func (t *target) writeLabel(ctx context.Context, l *neutral.Label) error {
	is, there := t.labels[strings.ToLower(l.Name)]
	if there && !is.fresh {
		return nil
	}
	description := []rune(l.Description)
	body := map[string]any{
		"color": cmp.Or(l.Color, "ededed"), "description": string(description[:min(len(description), maxLabelDescription)]),
	}
	method, at := http.MethodPost, "/labels"
	if there {
		method, at = http.MethodPatch, "/labels/"+url.PathEscape(l.Name)
		body["new_name"] = l.Name
	} else {
		body["name"] = l.Name
	}
	var made identity
	if err := t.send(ctx, method, at, body, &made); err != nil {
		return err
	}
	t.labels[strings.ToLower(l.Name)] = label{node: string(made.Node)}
	return nil
}

func (t *target) writeMilestone(ctx context.Context, m *neutral.Milestone) error {
	body := map[string]any{"title": m.Title, "description": m.Description, "state": "open"}
	if m.Closed {
		body["state"] = "closed"
	}
	if !m.Due.IsZero() {
		body["due_on"] = m.Due.UTC()
	}
	var is made
	err := t.send(ctx, http.MethodPost, "/milestones", body, &is)
	if err == nil {
		t.milestones[m.Title] = int64(is.Number)
	}
	return err
}

// burned names the one refusal of a release that another try does not mend.
func burned(err error) error {
	if errors.Is(err, fault.ErrInvalid) && strings.Contains(err.Error(), "immutable") {
		return fault.Wrap("", fault.ErrRefused, err, "GitHub never gives the tag of an immutable release again: restore into a repository of another name")
	}
	return err
}

// writeRelease makes a draft.
func (t *target) writeRelease(ctx context.Context, r *neutral.Release) (neutral.Written, error) {
	body := map[string]any{"tag_name": r.Tag, "name": r.Name, "body": t.text(r.Body), "draft": r.Draft, "prerelease": r.Prerelease}
	if r.Target != "" {
		body["target_commitish"] = r.Target // for a tag that is not there
	}
	var is made
	err := t.send(ctx, http.MethodPost, "/releases", body, &is)
	return written("release", int64(is.ID), 0, string(is.URL)), burned(err)
}

func (t *target) publish(ctx context.Context, s *neutral.State) error {
	return burned(t.send(ctx, http.MethodPatch, "/releases/"+idOf(s.Written, "release"), map[string]any{
		"draft": false, "prerelease": s.Release.Prerelease, "make_latest": "legacy", // the newest of all, not the one that is published last
	}, nil))
}

// writeAsset uploads an asset. One whose upload broke off before is removed.
func (t *target) writeAsset(ctx context.Context, a *neutral.Asset) (neutral.Written, error) {
	key := neutral.KeyOf(a)
	if id := t.broken[key]; id != "" {
		if err := t.send(ctx, http.MethodDelete, "/releases/assets/"+id, nil, nil); err != nil && !errors.Is(err, fault.ErrNotFound) {
			return neutral.Written{}, err
		}
		delete(t.broken, key)
	}
	query := url.Values{"name": {assetName(a.Name)}}
	if caption := cmp.Or(a.Label, a.Name); caption != query.Get("name") {
		query.Set("label", caption)
	}
	var is asset
	u := forge.Upload{Name: a.Name, Type: a.Type, Size: a.Size, Body: a.Content}
	err := t.p.uploads.Send(ctx, http.MethodPost, t.at+"/releases/"+idOf(a.On, "release")+"/assets", query, u, &is)
	return neutral.Written{ID: is.ID.text(), URL: string(is.Page)}, err
}

// assetName is a name as GitHub makes it.
func assetName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+@", r) {
			return r
		}
		return '.'
	}, name)
	return cmp.Or(strings.Trim(plain, "."), "file")
}

// writeRule makes a ruleset: one of branches or tags that need not be there, as the older protection of branches cannot be made.
func (t *target) writeRule(ctx context.Context, rule *neutral.Rule) error {
	body := rulesetOf(rule)
	name := cmp.Or(rule.Name, rule.Pattern)
	if t.rulesets[strings.ToLower(name)] {
		name += " (" + rule.Pattern + ")"
	}
	body["name"] = name
	err := t.send(ctx, http.MethodPost, "/rulesets", body, nil)
	if unavailable(err) {
		return fault.Wrap("", fault.ErrRefused, err, "GitHub has rulesets of private repositories in paid plans only")
	}
	if err == nil {
		t.rulesets[strings.ToLower(name)] = true
	}
	return err
}

// unavailable reports whether GitHub refuses for the plan that the owner has.
func unavailable(err error) bool {
	return errors.Is(err, fault.ErrDenied) && strings.Contains(err.Error(), "Upgrade to ")
}

// admin is the role of repositories that may do what others may not.
const admin = 5

// rulesetOf is a rule as a ruleset.
func rulesetOf(rule *neutral.Rule) map[string]any {
	prefix, kind := "refs/heads/", "branch"
	if rule.Tags {
		prefix, kind = "refs/tags/", "tag"
	}
	include := prefix + rule.Pattern
	if rule.Pattern == "*" {
		include = "~ALL"
	}
	rules := []map[string]any{}
	add := func(wanted bool, name string, parameters map[string]any) {
		switch {
		case !wanted:
		case parameters == nil:
			rules = append(rules, map[string]any{"type": name})
		default:
			rules = append(rules, map[string]any{"type": name, "parameters": parameters})
		}
	}
	add(!rule.ForcePush, "non_fast_forward", nil)
	add(!rule.Delete, "deletion", nil)
	add(rule.Signed, "required_signatures", nil)
	add(rule.Linear, "required_linear_history", nil)
	add(rule.PushBy != nil && rule.Tags, "update", map[string]any{"update_allows_fetch_and_merge": false})
	add((rule.PushBy != nil || rule.Approvals > 0) && !rule.Tags, "pull_request", map[string]any{
		"required_approving_review_count": min(rule.Approvals, 10), "dismiss_stale_reviews_on_push": false, "require_code_owner_review": false,
		"require_last_push_approval": false, "required_review_thread_resolution": false,
	})
	checks := []map[string]any{}
	for _, check := range rule.Checks {
		checks = append(checks, map[string]any{"context": check})
	}
	add(len(checks) > 0, "required_status_checks", map[string]any{"required_status_checks": checks, "strict_required_status_checks_policy": false})
	bypass := []map[string]any{}
	if !rule.Admins {
		bypass = append(bypass, map[string]any{"actor_id": admin, "actor_type": "RepositoryRole", "bypass_mode": "always"})
	}
	return map[string]any{
		"target": kind, "enforcement": "active", "bypass_actors": bypass, "rules": rules,
		"conditions": map[string]any{"ref_name": map[string]any{"include": []string{include}, "exclude": []string{}}},
	}
}
