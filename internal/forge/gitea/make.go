package gitea

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Make implements forge.Maker.
func (p *Provider) Make(ctx context.Context, n forge.NewRepository) (forge.Repository, error) {
	op := "make repository " + n.Owner + "/" + n.Name
	private, err := isPrivate(n.Visibility)
	if err != nil {
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	self, err := p.account(ctx)
	if err != nil {
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	if n.Owner == "" {
		n.Owner = self
	}
	r, err := p.existing(ctx, n.Owner, n.Name)
	if !errors.Is(err, fault.ErrNotFound) {
		return r, fault.Wrap(op, nil, err, "")
	}
	body := map[string]any{"name": n.Name, "description": n.Description, "private": private}
	if n.DefaultBranch != "" && !p.o.Gogs {
		body["default_branch"] = n.DefaultBranch
	}
	err = p.do(ctx, http.MethodPost, p.makerOf(n.Owner, self), nil, body, nil)
	if err != nil && !errors.Is(err, fault.ErrExists) {
		if errors.Is(err, fault.ErrNotFound) {
			err = fault.Wrap("", nil, err, "there is no organisation "+n.Owner+": ask for owners to be made")
		}
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	r, err = p.existing(ctx, n.Owner, n.Name)
	return r, fault.Wrap(op, nil, err, "")
}

// makerOf is where a repository of an owner is made.
func (p *Provider) makerOf(owner, self string) string {
	switch {
	case strings.EqualFold(owner, self):
		return "/user/repos"
	case p.o.Gogs:
		return path("org", owner, "repos")
	}
	return path("orgs", owner, "repos")
}

// existing finds the repository of exactly this name: one that had it before answers to it, too. One that the server pulls takes no
// pushes.
func (p *Provider) existing(ctx context.Context, owner, name string) (forge.Repository, error) {
	r, d, err := p.get(ctx, owner, name)
	switch {
	case err != nil:
		return forge.Repository{}, err
	case !strings.EqualFold(r.FullName(), owner+"/"+name):
		return forge.Repository{}, fault.New("", fault.ErrNotFound, "it goes by another name now", "")
	case d.Mirror:
		return forge.Repository{}, fault.New("", fault.ErrExists, "it is there, and the server pulls it from elsewhere", "let the server pull, or choose another owner")
	}
	return r, nil
}

func isPrivate(visibility string) (bool, error) {
	switch visibility {
	case "", "private":
		return true, nil
	case "public":
		return false, nil
	}
	return false, fault.New("", fault.ErrUnsupported, "repositories here are private or public, not "+visibility, "")
}

// MakeOwner implements forge.Maker. Organisations of Gogs are public.
func (p *Provider) MakeOwner(ctx context.Context, name, visibility string) error {
	op := "make organisation " + name
	body := map[string]any{"username": name}
	switch {
	case p.o.Gogs && visibility != "" && visibility != "public", visibility == "internal", visibility == "unlisted":
		return fault.New(op, fault.ErrUnsupported, "organisations here are not "+visibility, "")
	case visibility == "":
		body["visibility"] = "private"
	default:
		body["visibility"] = visibility
	}
	// Users are owners just as well.
	err := p.do(ctx, http.MethodGet, path("users", name), nil, nil, nil)
	if !errors.Is(err, fault.ErrNotFound) {
		return fault.Wrap(op, nil, err, "")
	}
	at := "/orgs"
	if p.o.Gogs {
		at = "/user/orgs"
	}
	return fault.Wrap(op, nil, p.do(ctx, http.MethodPost, at, nil, body, nil), "")
}

// The page by which a wiki is begun. It goes when the wiki itself is pushed.
const (
	placeholder = "This wiki is being copied here.\n"
	beginning   = "begin the wiki, to be replaced by a copy"
)

// MakeWiki implements forge.WikiMaker. Gitea makes a wiki's repository with its first page; over https it takes no push before that.
func (p *Provider) MakeWiki(ctx context.Context, r forge.Repository) (forge.NewWiki, error) {
	op := "make wiki of " + r.FullName()
	w := forge.NewWiki{HTTPURL: forge.WikiBeside(r.HTTPURL), SSHURL: forge.WikiBeside(r.SSHURL)}
	if p.o.Gogs {
		return w, nil // it has no such call
	}
	_, d, err := p.get(ctx, r.Owner, r.Name)
	if err == nil && !d.hasWiki() {
		err = p.do(ctx, http.MethodPatch, path("repos", r.Owner, r.Name), nil, map[string]any{"has_wiki": true}, nil)
	}
	if err != nil {
		return w, fault.Wrap(op, nil, err, "")
	}
	head, found, err := p.wikiHead(ctx, r.Owner, r.Name)
	if err == nil && !found {
		page := map[string]string{
			"title": "Home", "content_base64": base64.StdEncoding.EncodeToString([]byte(placeholder)), "message": beginning,
		}
		if err = p.do(ctx, http.MethodPost, wikiPath(r, "new"), nil, page, nil); err == nil {
			head, _, err = p.wikiHead(ctx, r.Owner, r.Name)
		}
	}
	if branch, ok := strings.CutPrefix(head, "ref: refs/heads/"); ok {
		w.Branch = branch
	}
	if err == nil {
		w.Fresh, err = p.freshWiki(ctx, r)
	}
	return w, fault.Wrap(op, nil, err, "")
}

func wikiPath(r forge.Repository, what string) string {
	return path("repos", r.Owner, r.Name, "wiki", what)
}

// freshWiki reports whether a wiki has nothing but the page it was begun with, perhaps by a run that was cut short.
func (p *Provider) freshWiki(ctx context.Context, r forge.Repository) (bool, error) {
	var pages []struct {
		LastCommit struct {
			Message string `json:"message"`
		} `json:"last_commit"`
	}
	err := p.do(ctx, http.MethodGet, wikiPath(r, "pages"), nil, nil, &pages)
	if errors.Is(err, fault.ErrNotFound) { // no page on the branch that is shown
		return false, nil
	}
	return len(pages) == 1 && strings.TrimSpace(pages[0].LastCommit.Message) == beginning, err
}

// PullMirror implements forge.Puller. A server that is to pull from its own network must be allowed to (migrations.ALLOW_LOCALNETWORKS
// and ALLOWED_DOMAINS). Gogs takes neither an interval nor LFS nor a wiki.
func (p *Provider) PullMirror(ctx context.Context, m forge.PullMirror) error {
	op := "mirror to " + m.Owner + "/" + m.Name
	private, err := isPrivate(m.Visibility)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	self, err := p.account(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if m.Owner == "" {
		m.Owner = self
	}
	there, err := p.pulls(ctx, m)
	if err != nil || there {
		return fault.Wrap(op, nil, err, "")
	}
	body := map[string]any{
		"clone_addr": m.From, "repo_owner": m.Owner, "repo_name": m.Name, "description": m.Description, "private": private,
		"mirror": true, "service": "git", "lfs": m.LFS, "wiki": m.Wiki, "auth_username": m.Username, "auth_password": m.Password.Reveal(),
	}
	if m.Interval > 0 {
		body["mirror_interval"] = m.Interval.String()
	}
	if p.o.Gogs {
		var owner account
		if err := p.do(ctx, http.MethodGet, path("users", m.Owner), nil, nil, &owner); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
		body["uid"] = owner.ID
	}
	err = p.do(ctx, http.MethodPost, "/repos/migrate", nil, body, nil)
	if err != nil { // servers repeat what they were told
		text := fault.Redact(err.Error(), m.Password)
		err = fault.Wrap(op, class(err), errors.New(text), "the server itself must reach the source; one in its own network needs migrations.ALLOW_LOCALNETWORKS")
	}
	return err
}

// pulls reports whether a mirror of the same source is there already. Anything else of the name is refused.
func (p *Provider) pulls(ctx context.Context, m forge.PullMirror) (bool, error) {
	r, d, err := p.get(ctx, m.Owner, m.Name)
	switch {
	case errors.Is(err, fault.ErrNotFound), err == nil && !strings.EqualFold(r.FullName(), m.Owner+"/"+m.Name):
		return false, nil
	case err != nil:
		return false, err
	case d.Mirror && d.Empty && d.MirrorUpdated.IsZero() && sameSource(d.OriginalURL, m.From):
		return false, fault.New("", fault.ErrUnavailable, "the server was told before, and has pulled nothing yet", "where it failed, remove the repository to try again")
	case d.Mirror && (sameSource(d.OriginalURL, m.From) || p.o.Gogs && d.OriginalURL == ""):
		return true, m.RefusePublic(r) // Gogs does not say of what
	}
	return false, fault.New("", fault.ErrExists, "a repository of the name is there that is no mirror of the source", "choose another owner, or remove it")
}

// sameSource compares addresses but for what git does not tell apart.
func sameSource(a, b string) bool {
	plain := func(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "/"), ".git") }
	return a != "" && strings.EqualFold(plain(a), plain(b))
}

// class is the class that an error has.
func class(err error) error {
	for _, c := range []error{
		context.Canceled, fault.ErrDenied, fault.ErrExists, fault.ErrNotFound, fault.ErrThrottled, fault.ErrUnavailable, fault.ErrUnsupported,
	} {
		if errors.Is(err, c) {
			return c
		}
	}
	return fault.ErrInvalid
}
