package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Make implements forge.Maker. The default branch is not set: GitLab takes the first one that is pushed.
func (p *Provider) Make(ctx context.Context, r forge.NewRepository) (forge.Repository, error) {
	made, err := p.make(ctx, r)
	return made, fault.Wrap("make "+path.Join(r.Owner, r.Name)+" on "+p.Host(), nil, err, "")
}

func (p *Provider) make(ctx context.Context, r forge.NewRepository) (forge.Repository, error) {
	visibility, err := visibilityOf(r.Visibility)
	if err != nil {
		return forge.Repository{}, err
	}
	if r.Name == "" || strings.Contains(r.Name, "/") {
		return forge.Repository{}, fault.New("", fault.ErrInvalid, "the name must be one segment of a path", "")
	}
	owner := r.Owner
	if owner == "" {
		if owner, err = p.account(ctx); err != nil {
			return forge.Repository{}, err
		}
	}
	there, err := p.found(ctx, owner+"/"+r.Name)
	if !notFound(err) {
		return there, err
	}
	body := map[string]any{"name": r.Name, "path": r.Name, "description": r.Description, "visibility": visibility}
	if r.Owner != "" {
		if body["namespace_id"], err = p.namespace(ctx, r.Owner); err != nil {
			return forge.Repository{}, err
		}
	}
	var raw json.RawMessage
	if _, err := p.client.Do(ctx, http.MethodPost, "/projects", nil, body, &raw); err != nil {
		if isTaken(err) {
			if there, lost := p.found(ctx, owner+"/"+r.Name); lost == nil {
				return there, nil
			}
		}
		return forge.Repository{}, err
	}
	return p.decodeProject(raw, true)
}

// isTaken reports whether a refusal may mean that the name is taken, as where another run made it meanwhile.
func isTaken(err error) bool {
	return errors.Is(err, fault.ErrInvalid) || errors.Is(err, fault.ErrExists)
}

// namespace is the number of a group, or of a person's own space.
func (p *Provider) namespace(ctx context.Context, name string) (int64, error) {
	var in struct {
		ID   int64  `json:"id"`
		Path string `json:"full_path"`
	}
	if err := p.get(ctx, "/namespaces/"+escaped(name), nil, &in); err != nil {
		if notFound(err) {
			return 0, fault.Wrap("owner "+name, nil, err, "make the group first, or let backstay make it")
		}
		return 0, err
	}
	switch {
	case in.ID <= 0:
		return 0, fault.New("owner "+name, fault.ErrUnavailable, "the server answered without its ID", "")
	case !strings.EqualFold(in.Path, strings.Trim(name, "/")): // GitLab takes a name of digits for an ID
		return 0, fault.New("owner "+name, fault.ErrNotFound, "GitLab takes the name for the ID of "+in.Path, "choose a name with letters")
	}
	return in.ID, nil
}

// MakeOwner implements forge.Maker: the group, and the groups it is in.
func (p *Provider) MakeOwner(ctx context.Context, name, visibility string) error {
	op := "make group " + name + " on " + p.Host()
	visibility, err := visibilityOf(visibility)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	var parent int64
	var at string
	for _, segment := range strings.Split(name, "/") {
		at = path.Join(at, segment)
		if parent, err = p.group(ctx, parent, at, visibility); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	return nil
}

// group finds or makes one group, and returns its number. parent is 0 at the top.
func (p *Provider) group(ctx context.Context, parent int64, fullPath, visibility string) (int64, error) {
	id, err := p.namespace(ctx, fullPath)
	if !notFound(err) {
		return id, err
	}
	segment := path.Base(fullPath)
	body := map[string]any{"name": segment, "path": segment, "visibility": visibility}
	if parent != 0 {
		body["parent_id"] = parent
	}
	var in struct {
		ID int64 `json:"id"`
	}
	_, err = p.client.Do(ctx, http.MethodPost, "/groups", nil, body, &in)
	switch {
	case errors.Is(err, fault.ErrDenied):
		return 0, fault.Wrap("", nil, err, "groups at the top of gitlab.com are made in the browser only; make it there, and run again")
	case isTaken(err):
		if id, lost := p.namespace(ctx, fullPath); lost == nil {
			return id, nil
		}
	}
	return in.ID, err
}

func visibilityOf(asked string) (string, error) {
	switch asked {
	case "", "private":
		return "private", nil
	case "internal", "public":
		return asked, nil
	}
	return "", fault.New("", fault.ErrUnsupported, "GitLab has no visibility "+asked, "use private, internal or public")
}
