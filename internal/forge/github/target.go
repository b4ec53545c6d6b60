package github

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var (
	_ forge.MetadataRestorer = (*Provider)(nil)
	_ forge.MetadataTarget   = (*target)(nil)
	_ forge.MetadataImporter = (*target)(nil)
)

// previewOfImports is what the import of issues wants to be asked for.
const previewOfImports = "application/vnd.github.golden-comet-preview+json"

// restores makes the clients that only restores need. They send nothing before.
func (p *Provider) restores(o forge.ClientOptions) (err error) {
	imports := o
	imports.Header = header()
	imports.Header["Accept"] = previewOfImports
	if p.imports, err = forge.NewClient(imports); err != nil {
		return err
	}
	o.Base = uploadsOf(p.web)
	p.uploads, err = forge.NewClient(o)
	return err
}

// uploadsOf is where an instance takes assets. Its answers name the address, too, but credentials go where we know.
func uploadsOf(web *url.URL) string {
	if inCloud(web.Host) {
		return web.Scheme + "://uploads." + web.Host
	}
	return web.String() + "/api/uploads"
}

// target restores into one repository, as the account that the token is of, and knows what Begin found there.
type target struct {
	p     *Provider
	at    string // of the API: "/repos/acme/api"
	node  string // GraphQL's word for the repository
	self  string // login
	found neutral.Restored

	labels     map[string]label  // by name in lower case
	milestones map[string]int64  // numbers by title
	branches   map[string]string // commits by name; nil until somebody asks
	pulls      map[int64]bool    // numbers of items that are pull requests
	bare       map[int64]bool    // of those that have neither labels nor a milestone yet, with discussions
	pinned     map[int64]bool
	rulesets   map[string]bool   // by name in lower case
	broken     map[string]string // IDs of assets whose upload broke off, by key
	categories map[string]string // of discussions, by name in lower case; nil where the repository has none
	said       map[string]string // threads of discussions, by the keys of the marks of their comments
	answers    []string          // comments of discussions that are still to be chosen as the answer
	issueless  bool              // issues are to be switched off in the end
	documented bool              // the import of issues is gone: they are made by the documented API
}

// label is one that is there.
type label struct {
	node  string
	fresh bool // a new repository has it, as GitHub makes it
}

// Target implements forge.MetadataRestorer.
func (p *Provider) Target() forge.MetadataTarget { return &target{p: p} }

// Begin implements forge.MetadataTarget. It switches issues on, and takes the repository out of the archive.
func (t *target) Begin(ctx context.Context, r forge.Repository) (neutral.Restored, error) {
	op := "look at " + r.FullName()
	*t = target{
		p: t.p, at: "/repos/" + r.FullName(), found: neutral.Restored{Things: map[string]neutral.Written{}, Next: 1},
		labels: map[string]label{}, milestones: map[string]int64{}, pulls: map[int64]bool{}, bare: map[int64]bool{}, pinned: map[int64]bool{},
		rulesets: map[string]bool{}, broken: map[string]string{}, said: map[string]string{},
	}
	if t.p.app != nil {
		return neutral.Restored{}, fault.New(op, fault.ErrUnsupported, "an App cannot restore metadata: its marks would not be found again", "give a token")
	}
	self, err := t.p.account(ctx)
	if err != nil {
		return neutral.Restored{}, fault.Wrap(op, nil, err, "")
	}
	t.self = self.Login
	for _, look := range []func(context.Context, forge.Repository) error{
		t.ready, t.awaitImports, t.findFrame, t.findItems, t.findComments, t.findReviews, t.findReleases, t.findRulesets, t.findDiscussions,
	} {
		if err := look(ctx, r); err != nil {
			return neutral.Restored{}, fault.Wrap(op, nil, err, "")
		}
	}
	t.found.Empty = t.found.Next == 1
	t.keepLabels()
	return t.found, nil
}

// ready switches on what a restore needs.
func (t *target) ready(ctx context.Context, _ forge.Repository) error {
	var is struct {
		Node      words `json:"node_id"`
		Archived  bool  `json:"archived"`
		HasIssues bool  `json:"has_issues"`
	}
	if err := t.send(ctx, http.MethodGet, "", nil, &is); err != nil {
		return err
	}
	if t.node = string(is.Node); !is.Archived && is.HasIssues {
		return nil
	}
	err := t.send(ctx, http.MethodPatch, "", map[string]any{"archived": false, "has_issues": true}, nil)
	return fault.Wrap("", nil, err, "restoring metadata takes an account that is an administrator of the repository")
}

// send asks the API for something of the repository.
func (t *target) send(ctx context.Context, method, path string, body, into any) error {
	_, err := t.p.client.Do(ctx, method, t.at+path, nil, body, into)
	return err
}

// mutate carries out a mutation of GraphQL, whose fields are of its input.
func (t *target) mutate(ctx context.Context, name, answer string, input map[string]any, into any) error {
	mutation := "mutation($input: " + strings.ToUpper(name[:1]) + name[1:] + "Input!) { done: " + name + "(input: $input) { " + answer + " } }"
	return t.p.client.Mutate(ctx, t.p.graphql, mutation, map[string]any{"input": input}, into)
}

// written names what there is.
func written(sort string, id, at int64, address string) neutral.Written {
	return neutral.Written{ID: sort + " " + strconv.FormatInt(id, 10), Number: at, URL: address}
}

// idOf is what written named.
func idOf(w neutral.Written, sort string) string {
	id, of := strings.CutPrefix(w.ID, sort+" ")
	if !of {
		return ""
	}
	return id
}

// Write implements forge.MetadataTarget.
func (t *target) Write(ctx context.Context, r forge.Repository, thing neutral.Thing) (w neutral.Written, err error) {
	switch thing := thing.(type) {
	case *neutral.Settings:
		err = t.writeSettings(ctx, thing)
	case *neutral.Label:
		err = t.writeLabel(ctx, thing)
	case *neutral.Milestone:
		err = t.writeMilestone(ctx, thing)
	case *neutral.Discussion:
		w, err = t.writeDiscussion(ctx, thing)
	case *neutral.Item:
		w, _, err = t.Import(ctx, r, thing)
	case *neutral.Comment:
		w, err = t.writeComment(ctx, thing)
	case *neutral.Review:
		w, err = t.writeReview(ctx, thing)
	case *neutral.Release:
		w, err = t.writeRelease(ctx, thing)
	case *neutral.Asset:
		w, err = t.writeAsset(ctx, thing)
	case *neutral.Rule:
		err = t.writeRule(ctx, thing)
	case *neutral.State:
		err = t.writeState(ctx, thing)
	default:
		err = fault.New("", fault.ErrUnsupported, "it is not restored here", "")
	}
	return w, err
}

// Upload implements forge.MetadataTarget. What people attach goes by the browser only.
func (t *target) Upload(context.Context, forge.Repository, archive.File, io.Reader) (string, error) {
	return "", fault.New("", fault.ErrUnsupported, "GitHub takes no attachments by its API", "")
}

// Finish implements forge.MetadataTarget.
func (t *target) Finish(ctx context.Context, _ forge.Repository) error {
	for _, id := range t.answers {
		if err := t.choose(ctx, id); err != nil {
			return err
		}
	}
	if !t.issueless {
		return nil
	}
	return t.send(ctx, http.MethodPatch, "", map[string]any{"has_issues": false}, nil)
}

// text is a text with its mark as GitHub takes it. Of a restore from github.com to it the first line leads to the original by way of a
// redirect, or else every original would tell of its copy.
func (t *target) text(marked string) string {
	head, rest, more := strings.Cut(marked, "\n")
	if t.p.web.Host == "github.com" && more {
		head = strings.Replace(head, ", originally https://github.com/", ", originally https://redirect.github.com/", 1)
		marked = head + "\n" + rest
	}
	return fit(marked)
}

// maxText is how long GitHub takes a text, in characters.
const maxText = 65_536

// fit shortens a text that is too long, before the mark at its end.
func fit(marked string) string {
	runes := []rune(marked)
	if len(runes) <= maxText {
		return marked
	}
	const cut = "\n\n*(cut: GitHub takes no longer text; the rest is in the backup)*"
	end := 0
	if _, _, ok := neutral.Unmark(marked); ok {
		end = len([]rune(marked[strings.LastIndex(marked, "\n\n<!-- "):]))
	}
	keep := max(maxText-end-len(cut), 0)
	return string(runes[:keep]) + cut + string(runes[len(runes)-end:])
}

// refusedBy reports whether an error is GitHub's word on what was sent, and not on who sent it or when.
func refusedBy(err error) bool {
	return errors.Is(err, fault.ErrInvalid) || errors.Is(err, fault.ErrExists) || errors.Is(err, fault.ErrNotFound)
}

// Keeps implements forge.MetadataTarget. Whether there are discussions Begin finds out.
func (t *target) Keeps() neutral.Fidelity {
	all := maps.Clone(keeps())
	switch {
	case t.at == "":
		all["discussion"] = changed("a discussion where the repository has them switched on, in a category of the name or else in the first one; else an issue")
	case t.categories == nil:
		all["discussion"] = changed("an issue: the repository has no discussions switched on, and that is done in the browser")
	default:
		all["discussion"] = changed("a discussion, in a category of the name or else in the first one")
	}
	return all
}

func changed(how string) neutral.Fate  { return neutral.Fate{State: neutral.Changed, How: how} }
func lost(because string) neutral.Fate { return neutral.Fate{State: neutral.Lost, How: because} }

func keeps() neutral.Fidelity {
	kept, said := neutral.Fate{State: neutral.Kept}, changed("in the text")
	of := func(how string) neutral.Fate { return neutral.Fate{State: neutral.Kept, How: how} }
	long := of("65,536 characters of it, with what is said above and below it")
	onlyMembers := lost("whoever sees the repository sees it: never restored to one that everybody sees")
	all := neutral.Fidelity{
		"settings": kept, "settings.private": changed("as --visibility says"),
		"settings.topics": changed("20 at most, and those that are plain words"),
		"label":           kept, "label.exclusive": lost("GitHub has none"),
		"label.description": of("100 characters of it"),
		"milestone":         kept, "milestone.created": lost("it is when it was restored"),
		"milestone.updated": lost("it is when it was restored"), "milestone.closedAt": lost("it is when it was restored"),

		"item": kept, "item.title": of("256 characters of it"), "item.body": long,
		"item.number":   changed("in their order, from the next free number on; --keep-numbers leaves no gap out"),
		"item.created":  of("by the import of issues, which GitHub does not document; of pull requests that stay such in the text"),
		"item.updated":  lost("what is done to it afterwards moves it"),
		"item.closedAt": changed("kept like item.created, and in the text"),
		"item.closedBy": said, "item.reason": said, "item.assignees": said, "item.reactions": said, "item.links": said,
		"item.lockReason": said, "item.due": changed("in the text: GitHub has it of milestones only"),
		"item.pinned":       changed("as many as GitHub allows: three"),
		"item.events":       lost("where they are few they stay in the mark, unseen"),
		"item.confidential": onlyMembers, "comment.internal": onlyMembers,
		"pull": changed("in the text; a pull request only where its branch is there as it was, and it was not merged, else an issue"),

		"comment": kept, "comment.body": long, "comment.reactions": said, "comment.code": said,
		"comment.answer":  changed("in the text; chosen again in a discussion that is one"),
		"comment.created": changed("kept of what comes with a new issue; in the text of pull requests that stay such and of discussions"),
		"review":          kept, "review.body": long, "review.state": said, "review.oid": said,
		"review-comment": kept, "review-comment.body": long, "review-comment.reactions": said, "review-comment.internal": onlyMembers,
		"review-comment.code": changed("at its place in a pull request that is one, else in the text"),
		"discussion.votes":    lost("people vote themselves"),

		"release": kept, "release.body": long, "release.published": said,
		"release.immutable": lost("it is as the new repository's settings say; GitHub never gives a tag of an immutable release again"),
		"asset":             lost("GitHub counts and tells anew"), "asset.label": kept, "asset.release": kept, "asset.type": kept,
		"asset.name": of("what is no letter, digit or one of -_. becomes a dot, and the name stands in the label"),
		"file":       lost("GitHub takes no attachments by its API: texts keep their addresses"),

		"rule": kept, "rule.pushBy": changed("nobody but by pull requests"), "rule.name": of("as a ruleset; of two with one name the second has its pattern, too"),
		"hook":         lost("it would be without its secret: make it again"),
		"key":          lost("who has access is not restored"),
		"collaborator": lost("who has access is not restored"),
		"project":      lost("projects are not restored"),
		"project-item": lost("projects are not restored"),
	}
	for _, sort := range []string{"item", "comment", "review", "review-comment", "release"} {
		all[sort+".author"] = said
		if _, told := all[sort+".created"]; !told {
			all[sort+".created"] = said
		}
		if _, told := all[sort+".updated"]; !told {
			all[sort+".updated"] = lost("it is when it was restored")
		}
	}
	return all
}
