package gitea

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// account is a user or an organisation.
type account struct {
	ID       int64  `json:"id"`
	Login    string `json:"login"`
	Username string `json:"username"` // all that old Gogs has
	// Visibility is who sees the account and all that it has: "public", "limited" to who is signed in, "private".
	Visibility string `json:"visibility"`
}

func (a account) name() string {
	if a.Login != "" {
		return a.Login
	}
	return a.Username
}

// repository is what is read of a repository's document.
type repository struct {
	ID            int64           `json:"id"`
	Owner         account         `json:"owner"`
	Name          string          `json:"name"`
	Description   string          `json:"description"`
	HTMLURL       string          `json:"html_url"`
	SSHURL        string          `json:"ssh_url"`
	OriginalURL   string          `json:"original_url"`
	DefaultBranch string          `json:"default_branch"`
	Language      string          `json:"language"`
	Private       bool            `json:"private"`
	Fork          bool            `json:"fork"`
	Archived      bool            `json:"archived"`
	Empty         bool            `json:"empty"`
	Mirror        bool            `json:"mirror"`
	Stars         int             `json:"stars_count"`
	Size          int64           `json:"size"` // KiB; of Gogs, bytes
	Updated       time.Time       `json:"updated_at"`
	MirrorUpdated time.Time       `json:"mirror_updated"`
	Releases      int64           `json:"release_counter"`
	OpenPulls     int64           `json:"open_pr_counter"`
	HasIssues     *bool           `json:"has_issues"` // Gogs does not say
	HasWiki       *bool           `json:"has_wiki"`
	ExternalWiki  json.RawMessage `json:"external_wiki"`
}

// decode reads a repository's document; listed is the time of the answer by the server's clock.
func (p *Provider) decode(raw json.RawMessage, listed time.Time) (forge.Repository, repository, error) {
	var d repository
	if err := json.Unmarshal(raw, &d); err != nil || d.ID <= 0 || !forge.PlainName(d.Owner.name()) || !forge.PlainName(d.Name) {
		return forge.Repository{}, d, fault.New("repository", fault.ErrUnavailable, "the server answers with what is no repository", "")
	}
	r := forge.Repository{
		ID: strconv.FormatInt(d.ID, 10), Owner: d.Owner.name(), Name: d.Name,
		// Not the address in the answer, which is that of the server's own configuration: credentials go where the user sent them.
		HTTPURL: p.repositoryURL(d.Owner.name(), d.Name), SSHURL: d.SSHURL, WebURL: d.HTMLURL,
		Description: d.Description, DefaultBranch: d.DefaultBranch,
		Private: d.isPrivate(), Fork: d.Fork, Archived: d.Archived, Empty: d.Empty,
		Stars: d.Stars, Size: max(d.Size, 0), Active: d.Updated, Raw: raw,
	}
	if d.Language != "" {
		r.Languages = []string{d.Language}
	}
	if !p.o.Gogs {
		r.Size *= 1 << 10
		r.Mark = mark(d, listed)
	}
	return r, d, nil
}

// isPrivate tells also of repositories that are as public as their owner, which is not for everybody.
func (d repository) isPrivate() bool {
	return d.Private || d.Owner.Visibility == "limited" || d.Owner.Visibility == "private"
}

// mark is made of all in a listing that moves with refs. A pull mirror's time of update is that of its newest commit, so there the time
// of the last pull counts. Releases made on the website bring tags, and pull requests bring refs, without moving the time of update.
func mark(d repository, listed time.Time) string {
	at := d.Updated
	if d.Mirror {
		at = d.MirrorUpdated
	}
	m := forge.MarkOf(at, listed)
	if m == "" {
		return ""
	}
	return m + " " + strconv.FormatInt(d.Releases, 10) + " " + strconv.FormatInt(d.OpenPulls, 10)
}

// repositoryURL is where git finds a repository.
func (p *Provider) repositoryURL(owner, name string) string {
	return p.web.String() + path(owner, name) + ".git"
}

// hasWiki reports whether a wiki is enabled that git can read. A wiki elsewhere is none.
func (d repository) hasWiki() bool {
	external := len(d.ExternalWiki) > 0 && string(d.ExternalWiki) != "null"
	return (d.HasWiki == nil || *d.HasWiki) && !external
}
