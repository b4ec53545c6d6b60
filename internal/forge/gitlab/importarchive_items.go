package gitlab

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // GitLab names places in diffs and threads by it
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// ImportKeeps is what GitLab's project import keeps of the model, as its published sources say. A field that is not named is lost.
func ImportKeeps() neutral.Fidelity {
	f := neutral.Fidelity{
		"label.name":      {State: neutral.Kept, How: "commas become semicolons"},
		"item.labels":     {State: neutral.Kept, How: "commas become semicolons"},
		"item.title":      {State: neutral.Kept, How: "255 characters of it"},
		"label.exclusive": changed("labels named scope::value exclude each other"),
	}
	for sort, fields := range map[string]string{
		"settings": "description private archived hasIssues hasWiki deleteBranch defaultBranch", "label": "color description",
		"milestone": "title description closed due created updated", "item": "number body created updated closed closedAt locked confidential due milestone",
		"pull": "base head merged mergedAt mergeOID draft", "comment": "body created updated internal", "review": "body created",
		"review-comment": "body created updated internal", "release": "tag target name body created published updated", "asset": "name",
		"rule": "name pattern tags forcePush", "discussion": "number title body created updated closed closedAt locked labels",
	} {
		for _, field := range strings.Fields(fields) {
			f[sort+"."+field] = kept()
		}
	}
	who := "GitLab finds members by their e-mail address when an administrator imports; "
	for field, how := range map[string]string{
		"item.author":           who + "others stand in the text, and the importing account is the author",
		"comment.author":        who + "below a comment of others GitLab says who wrote it",
		"review.author":         who + "below what others said GitLab says who did",
		"review-comment.author": who + "below a comment of others GitLab says who wrote it",
		"release.author":        who + "others stand in the text",
		"item.assignees":        who + "others stay in the mark, unseen", "item.closedBy": who + "others stay in the mark, unseen",
		"item.reactions": who + "others stay in the mark, unseen", "comment.reactions": who + "those of others are lost",
		"pull.mergedBy": who + "others stay in the mark, unseen", "pull.requestedReviewers": who + "others stay in the mark, unseen",
		"review.state":        "approvals are GitLab's for members that it finds; said as an event for all; pending reviews are lost",
		"item.events":         "notes of the system, with who and when",
		"pull.headRepository": "the project itself: GitLab makes a branch of an open one from a fork", "settings.merges": "the nearest way of merging",
		"pull.headOID": "GitLab makes the diff from it", "pull.baseOID": "GitLab makes the diff from it",
		"review-comment.code": "where the commits and the line are known on the line, else said in the text", "rule.pushBy": "by the nearest role",
		"collaborator": "those whose e-mail address is known are members, maintainers at most, those who could only read are guests; others are lost",
		"discussion":   "becomes an issue", "item.reason": "stays in the mark of a text, unseen", "item.lockReason": "stays in the mark of a text, unseen",
	} {
		f[field] = changed(how)
	}
	f["file"] = kept()
	for _, sort := range []string{"settings", "label", "milestone", "item", "pull", "comment", "review", "review-comment", "release", "asset", "rule", "hook", "key", "project", "project-item"} {
		f[sort] = lost("a project import takes none")
	}
	f["release.draft"] = lost("GitLab has no drafts; they are not written")
	return f
}

// items writes issues, discussions as such, and merge requests, one at a time.
func (i *importer) items(ctx context.Context, _ *neutral.Overview) (err error) {
	issues, err := i.open("issues")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, issues.close()) }()
	pulls, err := i.open("merge_requests")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pulls.close()) }()
	for item, err := range i.Source.Items(ctx) {
		if err != nil {
			return err
		}
		if item.Pull == nil {
			err = issues.line(i.issue(item))
		} else {
			err = pulls.line(i.pull(item))
		}
		if err != nil {
			return err
		}
	}
	for talk, err := range i.Source.Discussions(ctx) {
		if err == nil {
			err = issues.line(i.issue(&talk.Item))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *importer) issue(item *neutral.Item) object {
	i.report.Issues++
	line := i.common(item, "Issue")
	line["issue_type"], line["confidential"], line["due_date"] = "issue", item.Confidential, day(item.Due)
	if item.Closed {
		line["state"], line["closed_at"], line["closed_by_id"] = "closed", momentOrNone(item.ClosedAt), i.known(item.Forge, item.ClosedBy)
	}
	line["issue_assignees"] = i.people(item.Forge, item.Assignees, nil)
	return line
}

// common are the fields that issues and merge requests both have.
func (i *importer) common(item *neutral.Item, sort string) object {
	labels := []object{}
	for _, name := range item.Labels {
		label := i.labels[name]
		if label == nil { // of a group, or gone meanwhile
			label = labelLine(&neutral.Label{Name: name})
		}
		labels = append(labels, object{"target_type": sort, "created_at": moment(item.Created), "updated_at": moment(item.Created), "label": label})
	}
	line := object{
		"iid": item.Number, "title": titleOf(item.Title), "description": i.description(item), "state": "opened", "project_id": importProject,
		"author_id": i.user(item.Forge, item.Author), "created_at": moment(item.Created), "updated_at": moment(cmp.Or(item.Updated, item.Created)),
		"discussion_locked": item.Locked, "label_links": labels, "award_emoji": i.awards(item.Forge, item.Reactions, sort), "notes": i.notes(item, sort), "events": []any{},
	}
	if item.Milestone != "" {
		line["milestone"] = i.stones[item.Milestone]
		if line["milestone"] == nil { // as above; GitLab gives it a number
			line["milestone"] = object{"title": item.Milestone, "project_id": importProject, "state": "active", "created_at": moment(item.Created), "updated_at": moment(item.Created)}
		}
	}
	return line
}

// description is the text of an item. It bears a mark where somebody did something that GitLab would take for the importing account's.
func (i *importer) description(item *neutral.Item) string {
	people := append([]neutral.User{item.Author}, item.Assignees...)
	for _, r := range item.Reactions {
		people = append(people, r.User)
	}
	if item.Closed {
		people = append(people, item.ClosedBy)
	}
	sort := neutral.SortIssue
	if p := item.Pull; p != nil {
		sort = neutral.SortPull
		people = append(append(people, p.RequestedReviewers...), p.MergedBy)
	}
	stranger := func(u neutral.User) bool { return u != (neutral.User{}) && i.known(item.Forge, u) == nil }
	if !slices.ContainsFunc(people, stranger) {
		return i.text(item.Body)
	}
	bare := *item
	bare.Events = nil // they are notes
	return i.marked(neutral.Mark{Sort: sort, Origin: item.Origin, More: neutral.More("item", &bare, ImportKeeps())}, item.Body)
}

func (i *importer) pull(item *neutral.Item) object {
	i.report.Pulls++
	p := item.Pull
	line := i.common(item, "MergeRequest")
	source := importProject
	if p.HeadRepository != i.Repository {
		source = importProject + 1 // any other: GitLab takes it for a fork
	}
	if p.Draft {
		line["title"] = titleOf("Draft: " + item.Title)
	}
	line["source_project_id"], line["target_project_id"], line["merge_status"] = source, importProject, "unchecked"
	line["source_branch"], line["target_branch"] = cmp.Or(p.Head, fmt.Sprintf("merge-request-%d", item.Number)), cmp.Or(p.Base, "main")
	line["diff_head_sha"], line["source_branch_sha"], line["target_branch_sha"] = plainOID(p.HeadOID), plainOID(p.HeadOID), plainOID(p.BaseOID)
	metrics := object{"created_at": moment(item.Created), "updated_at": moment(item.Created), "target_project_id": importProject}
	switch {
	case p.Merged:
		line["state"], line["merge_commit_sha"], line["merge_user_id"] = "merged", plainOID(p.MergeOID), i.known(item.Forge, p.MergedBy)
		metrics["merged_at"], metrics["merged_by_id"] = momentOrNone(p.MergedAt), i.known(item.Forge, p.MergedBy)
	case item.Closed:
		line["state"] = "closed"
		metrics["latest_closed_at"], metrics["latest_closed_by_id"] = momentOrNone(item.ClosedAt), i.known(item.Forge, item.ClosedBy)
	}
	line["metrics"] = metrics
	line["merge_request_assignees"] = i.people(item.Forge, item.Assignees, object{"created_at": moment(item.Created)})
	line["merge_request_reviewers"] = i.people(item.Forge, p.RequestedReviewers, object{"created_at": moment(item.Created)})
	approvals := []object{}
	for _, r := range p.Reviews {
		if id := i.known(r.Forge, r.Author); id != nil && r.State == "approved" {
			approvals = append(approvals, object{"user_id": id, "created_at": moment(r.Created), "updated_at": moment(r.Created)})
		}
	}
	line["approvals"] = approvals
	return line
}

// people are those whom GitLab can find.
func (i *importer) people(forge string, all []neutral.User, with object) []object {
	found := []object{}
	for _, u := range all {
		if id := i.known(forge, u); id != nil {
			one := object{"user_id": id}
			for k, v := range with {
				one[k] = v
			}
			found = append(found, one)
		}
	}
	return found
}

// awards are the reactions of those whom GitLab can find.
func (i *importer) awards(forge string, all []neutral.Reaction, sort string) []object {
	names := map[string]string{}
	for theirs, ours := range reactionWords() {
		names[ours] = theirs
	}
	found := []object{}
	for _, r := range all {
		if id := i.known(forge, r.User); id != nil {
			found = append(found, object{
				"user_id": id, "name": cmp.Or(names[r.Content], r.Content), "awardable_type": sort, "created_at": moment(r.Created), "updated_at": moment(r.Created),
			})
		}
	}
	return found
}

// dated is a note, and when it was written.
type dated struct {
	at   time.Time
	line object
}

// notes are all that was said on an item, and what happened to it, by time.
func (i *importer) notes(item *neutral.Item, sort string) []object {
	var all []dated
	for _, c := range item.Comments {
		i.report.Comments++
		all = append(all, i.thread(c, item, sort)...)
	}
	for _, e := range item.Events {
		text := cmp.Or(e.Text, strings.ReplaceAll(e.Kind, "_", " "))
		if i.Forge != "gitlab" { // GitLab's own are Markdown
			text = neutral.Plain(text)
		}
		all = append(all, i.happened(neutral.Origin{Forge: item.Forge, Author: e.Actor, Created: e.Created}, text, sort))
	}
	if item.Pull != nil {
		for _, r := range item.Pull.Reviews {
			all = append(all, i.review(r, item, sort)...)
		}
	}
	slices.SortStableFunc(all, func(a, b dated) int { return a.at.Compare(b.at) })
	lines := []object{}
	for _, n := range all {
		lines = append(lines, n.line)
	}
	return lines
}

// verdict is what GitLab says of a review; "" for one that only says something.
func verdict(state string) string {
	return map[string]string{
		"approved": "approved this merge request", "changes_requested": "requested changes", "dismissed": "reviewed this merge request; the review was dismissed",
	}[state]
}

func (i *importer) review(r *neutral.Review, item *neutral.Item, sort string) []dated {
	if r.State == "pending" {
		return nil
	}
	i.report.Reviews++
	var all []dated
	if text := verdict(r.State); text != "" && i.Forge != "gitlab" { // which noted it itself
		all = append(all, i.happened(neutral.Origin{Forge: r.Forge, Author: r.Author, Created: r.Created}, text, sort))
	}
	if strings.TrimSpace(r.Body) != "" {
		all = append(all, i.note(r.Origin, i.text(r.Body), sort))
	}
	for _, c := range r.Comments {
		all = append(all, i.thread(c, item, sort)...)
	}
	return all
}

// happened is a note of the system.
func (i *importer) happened(o neutral.Origin, text, sort string) dated {
	n := i.note(o, text, sort)
	n.line["system"] = true
	return n
}

func (i *importer) note(o neutral.Origin, text, sort string) dated {
	if strings.TrimSpace(text) == "" {
		text = "(no text)"
	}
	return dated{o.Created, object{
		"note": text, "noteable_type": sort, "author_id": i.user(o.Forge, o.Author), "author": object{"name": cmp.Or(o.Author.Name, o.Author.Login, "ghost")}, //nolint:misspell // GitLab's own word
		"created_at": moment(o.Created), "updated_at": moment(cmp.Or(o.Updated, o.Created)), "project_id": importProject, "system": false, "events": []any{},
	}}
}

// thread is a comment with its replies, in code where GitLab can show it there.
func (i *importer) thread(c *neutral.Comment, item *neutral.Item, sort string) []dated {
	place := positionOf(c.Code, item.Pull, i.Forge)
	var all []dated
	for n, one := range slices.Concat([]*neutral.Comment{c}, flat(c.Replies)) {
		text := i.text(one.Body)
		if c.Code != nil && place == nil && n == 0 {
			text = "on " + neutral.Plain(fmt.Sprintf("%s line %d", c.Code.Path, cmp.Or(c.Code.Line, c.Code.OriginalLine))) + ":\n\n" + text
		}
		written := i.note(one.Origin, text, sort)
		written.line["award_emoji"] = i.awards(one.Forge, one.Reactions, "Note")
		if one.Internal || c.Internal {
			written.line["confidential"] = true
		}
		if len(c.Replies) > 0 || c.Code != nil {
			written.line["discussion_id"], written.line["type"] = digest(c.Forge+" "+sort+" "+c.ID), "DiscussionNote"
		}
		if place != nil {
			place.put(written.line, c.Code.Hunk, n == 0)
		}
		if c.Code != nil && c.Code.Resolved {
			written.line["resolved_at"], written.line["resolved_by_id"] = moment(cmp.Or(c.Updated, c.Created)), i.known(c.Forge, c.Code.ResolvedBy)
		}
		all = append(all, written)
	}
	return all
}

// flat are comments with their replies behind them.
func flat(all []*neutral.Comment) (found []*neutral.Comment) {
	for _, c := range all {
		found = append(append(found, c), flat(c.Replies)...)
	}
	return found
}

func digest(s string) string {
	sum := sha1.Sum([]byte(s)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// place is where in a diff something was said.
type place struct {
	path       string
	old, fresh int64 // lines, one of both
	base, head string
}

// positionOf is nil where GitLab would not take it: it wants both commits, and a line.
func positionOf(c *neutral.Code, p *neutral.Pull, forge string) *place {
	if c == nil || p == nil {
		return nil
	}
	line, head := c.Line, cmp.Or(c.OID, p.HeadOID)
	if line == 0 && forge != "gitlab" { // which gives the other side's line for it
		line, head = c.OriginalLine, cmp.Or(c.OriginalOID, head)
	}
	at := &place{path: c.Path, fresh: line, base: p.BaseOID, head: head}
	if c.Side == "left" {
		at.old, at.fresh = line, 0
	}
	if line <= 0 || c.Path == "" || plainOID(at.base) == nil || plainOID(at.head) == nil {
		return nil
	}
	return at
}

func (p *place) put(line object, hunk string, first bool) {
	number := func(n int64) any {
		if n == 0 {
			return nil
		}
		return n
	}
	at := object{
		"base_sha": p.base, "start_sha": p.base, "head_sha": p.head, "old_path": p.path, "new_path": p.path, "position_type": "text",
		"old_line": number(p.old), "new_line": number(p.fresh),
	}
	line["type"], line["position"], line["original_position"] = "DiffNote", at, at
	line["line_code"] = fmt.Sprintf("%s_%d_%d", digest(p.path), p.old, p.fresh)
	if first && hunk != "" {
		line["note_diff_file"] = object{
			"new_path": p.path, "old_path": p.path, "a_mode": "100644", "b_mode": "100644", "new_file": false, "renamed_file": false,
			"deleted_file": false, "diff_export": hunk,
		}
	}
}

var oids = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// plainOID is a commit's name; nil for what is none.
func plainOID(oid string) any {
	if !oids.MatchString(oid) {
		return nil
	}
	return oid
}

var numberRef = regexp.MustCompile(`(^|[^0-9A-Za-z_/.#&!-])#([0-9]{1,9})\b`)

// referring is a text with the new addresses of files, and references to pull requests as GitLab has them.
func (i *importer) referring(text string) string {
	links := forge.Links(text)
	slices.SortFunc(links, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // a long one may have a short one in it
	var pairs []string
	for _, link := range links {
		pairs = append(pairs, link, cmp.Or(i.moved[link], link))
	}
	text = strings.NewReplacer(pairs...).Replace(text)
	if len(i.pulls) == 0 {
		return text
	}
	return neutral.Prose(text, func(prose string) string {
		return numberRef.ReplaceAllStringFunc(prose, func(ref string) string {
			before, number, _ := strings.Cut(ref, "#")
			if n, err := strconv.ParseInt(number, 10, 64); err != nil || !i.pulls[n] {
				return ref
			}
			return before + "!" + number
		})
	})
}

// text is what somebody wrote. Mentions of other forges' people notify nobody.
func (i *importer) text(s string) string {
	if i.Forge == "gitlab" {
		return i.referring(s)
	}
	return neutral.Silence(i.referring(s))
}

// marked is a text that says where it comes from.
func (i *importer) marked(m neutral.Mark, text string) string {
	return quiet(m.Write(i.referring(text)))
}
