package github

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// maxDescription is the longest description that GitHub takes, in characters.
const maxDescription = 350

// Make implements forge.Maker. The default branch is the one that is pushed first.
func (p *Provider) Make(ctx context.Context, n forge.NewRepository) (forge.Repository, error) {
	op := "make repository " + n.Owner + "/" + n.Name
	if !plain(n.Name) || (n.Owner != "" && !plain(n.Owner)) || strings.HasSuffix(n.Name, ".git") || strings.HasSuffix(n.Name, ".wiki") {
		// GitHub would take it, under another name.
		return forge.Repository{}, fault.New(op, fault.ErrInvalid, "GitHub has no repositories of such a name",
			"names have letters, digits, \"-\", \"_\" and \".\", and do not end in .git or .wiki")
	}
	self, err := p.account(ctx)
	if err != nil {
		return forge.Repository{}, fault.Wrap(op, nil, err, "")
	}
	if n.Owner == "" {
		n.Owner = self.Login
	}
	there, found, err := p.existing(ctx, n)
	if err != nil || found {
		return there, fault.Wrap(op, nil, err, "")
	}
	made, err := p.create(ctx, n, self.is(n.Owner) && !self.organization())
	return made, fault.Wrap(op, nil, err, "")
}

// existing finds the repository of the name. Not the one that moved away from the name: GitHub leads there too.
func (p *Provider) existing(ctx context.Context, n forge.NewRepository) (r forge.Repository, found bool, err error) {
	var raw json.RawMessage
	answer, err := p.client.Do(ctx, http.MethodGet, "/repos/"+n.Owner+"/"+n.Name, nil, nil, &raw, http.StatusNotFound)
	if err != nil || answer.Status == http.StatusNotFound {
		return r, false, err
	}
	r, err = p.decode(raw, answer.Date())
	return r, strings.EqualFold(r.FullName(), n.Owner+"/"+n.Name), err
}

// create makes the repository for the token's own account, or for an organisation.
func (p *Provider) create(ctx context.Context, n forge.NewRepository, own bool) (forge.Repository, error) {
	body := map[string]any{"name": n.Name, "description": fitting(n.Description)}
	switch n.Visibility {
	case "", "private":
		body["private"] = true
	case "public":
		body["private"] = false
	case "internal":
		if own {
			return forge.Repository{}, fault.New("", fault.ErrUnsupported, "only organisations have internal repositories", "")
		}
		body["visibility"] = "internal"
	default:
		return forge.Repository{}, fault.New("", fault.ErrUnsupported, "GitHub has no visibility "+n.Visibility,
			"private, public or internal")
	}
	path := "/orgs/" + n.Owner + "/repos"
	if own {
		path = "/user/repos"
	}
	var raw json.RawMessage
	answer, err := p.client.Do(ctx, http.MethodPost, path, nil, body, &raw, http.StatusUnprocessableEntity)
	if err != nil {
		return forge.Repository{}, err
	}
	if answer.Status == http.StatusUnprocessableEntity {
		return p.afterRefusal(ctx, n, answer.Body)
	}
	return p.decode(raw, answer.Date())
}

// afterRefusal returns the repository that another one made meanwhile, or else why GitHub did not make it.
func (p *Provider) afterRefusal(ctx context.Context, n forge.NewRepository, body []byte) (forge.Repository, error) {
	there, found, err := p.existing(ctx, n)
	if err != nil || found {
		return there, err
	}
	return forge.Repository{}, fault.New("", fault.ErrInvalid, refusal(body), "")
}

// refusal reads what a 422 says.
func refusal(body []byte) string {
	var answer struct {
		Message string `json:"message"`
		Errors  []struct {
			Field   string `json:"field"`
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Message == "" {
		return "refused without a reason"
	}
	said := []string{answer.Message}
	for _, e := range answer.Errors {
		said = append(said, strings.TrimSpace(e.Field+" "+max(e.Message, e.Code)))
	}
	return fitting(strings.Join(said, "; "))
}

// fitting keeps a text to one line of the length that GitHub takes for descriptions.
func fitting(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > maxDescription {
		return string(runes[:maxDescription])
	}
	return text
}

// MakeOwner implements forge.Maker: people make accounts and organisations at GitHub, programs cannot.
func (p *Provider) MakeOwner(ctx context.Context, name, _ string) error {
	op := "make owner " + name
	if !plain(name) {
		return fault.New(op, fault.ErrInvalid, "GitHub has no accounts of such a name", "")
	}
	answer, err := p.client.Do(ctx, http.MethodGet, "/users/"+name, nil, nil, nil, http.StatusNotFound)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if answer.Status == http.StatusNotFound {
		return fault.New(op, fault.ErrUnsupported, "organisations of GitHub are made by people only", "make it in the browser")
	}
	return nil
}
