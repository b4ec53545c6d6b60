package gitlab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// pullMirror is a mirror as GitLab tells and takes it.
type pullMirror struct {
	Enabled  bool   `json:"enabled"`
	URL      string `json:"url"`
	User     string `json:"auth_user,omitempty"`
	Password string `json:"auth_password,omitempty"`

	Status    string `json:"update_status,omitempty"` // of the last pull: "finished", "failed"
	LastError string `json:"last_error,omitempty"`
}

// PullMirror implements forge.Puller. How often it pulls GitLab decides, every half an hour or so; LFS objects come with it, a wiki does
// not. The project is made empty first: one that is empty is taken for it, so that what was interrupted goes on.
func (p *Provider) PullMirror(ctx context.Context, m forge.PullMirror) error {
	err := p.pullMirror(ctx, m)
	if err == nil && m.Wiki {
		err = fault.New("", fault.ErrUnsupported, "GitLab mirrors the code, and not the wiki", "let backstay push the copies itself, or leave wikis out")
	}
	return fault.Wrap("pull mirror "+path.Join(m.Owner, m.Name)+" on "+p.Host(), nil, err, "")
}

func (p *Provider) pullMirror(ctx context.Context, m forge.PullMirror) error {
	from, err := url.Parse(m.From)
	if err != nil || (from.Scheme != "https" && from.Scheme != "http") || from.Host == "" {
		return fault.New("", fault.ErrInvalid, "the source must be a URL for git over https", "")
	}
	from.User = nil // credentials go in fields of their own
	r, err := p.make(ctx, m.NewRepository)
	if err != nil {
		return err
	}
	at := "/projects/" + escaped(r.ID) + "/mirror/pull"
	set := pullMirror{Enabled: true, URL: from.String(), User: m.Username, Password: m.Password.Reveal()}
	if !isMirror(r) && !r.Empty {
		return fault.New("", fault.ErrExists, "there is a project of that name, and it is no mirror",
			"name another owner for the mirrors, or rename or delete that project")
	}
	if err := m.RefusePublic(r); err != nil {
		return err
	}
	if isMirror(r) {
		return p.confirm(ctx, at, from, set)
	}
	return p.setMirror(ctx, at, set)
}

func (p *Provider) setMirror(ctx context.Context, at string, m pullMirror) error {
	var got pullMirror
	answer, err := p.client.Do(ctx, http.MethodPut, at, nil, m, &got,
		http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity)
	switch {
	case err != nil:
		return err
	case answer.Status == http.StatusBadRequest, answer.Status == http.StatusUnprocessableEntity:
		// Not in the server's words, which may repeat what was sent.
		return fault.New("", fault.ErrInvalid, "the server does not take the source", "it must be allowed to reach it")
	case answer.Status != http.StatusOK, !got.Enabled:
		return fault.New("", fault.ErrUnsupported, "the server sets up no pull mirrors",
			"they need GitLab Premium 17.6 or newer and a maintainer's token; or let backstay push the copies itself")
	}
	return nil
}

// isMirror reports whether a project pulls from elsewhere; servers that cannot leave the field out.
func isMirror(r forge.Repository) bool {
	var in project
	return json.Unmarshal(r.Raw, &in) == nil && in.Mirror
}

// confirm refuses a mirror of something else. One whose last pull failed gets the credentials anew, and that is told.
func (p *Provider) confirm(ctx context.Context, at string, from *url.URL, set pullMirror) error {
	var is pullMirror
	if err := p.get(ctx, at, nil, &is); err != nil {
		return err
	}
	u, err := url.Parse(is.URL)
	if err != nil || !strings.EqualFold(u.Host, from.Host) || repositoryPath(u) != repositoryPath(from) {
		return fault.New("", fault.ErrExists, "there is a mirror of that name, and it is one of another source", "rename or delete that project")
	}
	if is.Status != "failed" {
		return nil
	}
	if err := p.setMirror(ctx, at, set); err != nil {
		return err
	}
	said := fault.Redact(is.LastError, fault.Secret(set.Password), p.o.Token)
	return fault.New("", fault.ErrUnavailable, fmt.Sprintf("the server's last pull failed: %.300q", said),
		"it has the credentials anew; see at the next run whether it works now")
}

func repositoryPath(u *url.URL) string {
	return strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
}
