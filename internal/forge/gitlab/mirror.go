package gitlab

import (
	"context"
	"encoding/json"
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
}

// PullMirror implements forge.Puller. How often it pulls GitLab decides, every half an hour or so; LFS objects come with it. The project
// is made empty first: one that is empty is taken for it, so that what was interrupted goes on.
func (p *Provider) PullMirror(ctx context.Context, m forge.PullMirror) error {
	return fault.Wrap("pull mirror "+path.Join(m.Owner, m.Name)+" on "+p.Host(), nil, p.pullMirror(ctx, m), "")
}

func (p *Provider) pullMirror(ctx context.Context, m forge.PullMirror) error {
	if m.Wiki {
		return fault.New("", fault.ErrUnsupported, "GitLab's pull mirrors leave wikis out", "let backstay push the copies itself")
	}
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
	if isMirror(r) {
		return p.sameSource(ctx, at, from)
	}
	if !r.Empty {
		return fault.New("", fault.ErrExists, "there is a project of that name, and it is no mirror",
			"name another owner for the mirrors, or rename or delete that project")
	}
	set := pullMirror{Enabled: true, URL: from.String(), User: m.Username, Password: m.Password.Reveal()}
	var got pullMirror
	answer, err := p.client.Do(ctx, http.MethodPut, at, nil, set, &got,
		http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity)
	if err != nil {
		return err
	}
	if answer.Status == http.StatusBadRequest || answer.Status == http.StatusUnprocessableEntity {
		// Not in the server's words, which may repeat what was sent.
		return fault.New("", fault.ErrInvalid, "the server does not take "+from.Host+" as a source", "it must be allowed to reach it")
	}
	if answer.Status != http.StatusOK || !got.Enabled {
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

// sameSource refuses a mirror of something else.
func (p *Provider) sameSource(ctx context.Context, at string, from *url.URL) error {
	var is pullMirror
	if err := p.get(ctx, at, nil, &is); err != nil {
		return err
	}
	u, err := url.Parse(is.URL)
	if err != nil || !strings.EqualFold(u.Host, from.Host) || repositoryPath(u) != repositoryPath(from) {
		return fault.New("", fault.ErrExists, "there is a mirror of that name, and it is one of another source", "rename or delete that project")
	}
	return nil
}

func repositoryPath(u *url.URL) string {
	return strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
}
