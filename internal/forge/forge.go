// Package forge knows accounts and organisations of forges: it lists their repositories, chooses among them, notices what moved,
// and captures all of an account into one restore point. What differs between forges is in the packages below it.
package forge

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Repository is one repository as its forge lists it. Unknown values are zero.
type Repository struct {
	ID    string // the forge's own, the same over renames and transfers: "1296269"
	Owner string // "acme", "group/subgroup"
	Name  string // "api"; a gist's is its ID
	Class Class

	HTTPURL, SSHURL         string // for git
	WikiHTTPURL, WikiSSHURL string // "" where the forge knows that there is no wiki
	WebURL                  string

	Description   string
	DefaultBranch string
	Private       bool // not for everybody to see and find, or the forge does not tell
	Fork          bool
	Archived      bool
	Empty         bool
	Stars         int
	Languages     []string // the main one at least; nil where the forge does not list it
	Size          int64    // bytes, roughly
	Active        time.Time
	// Mark changes whenever a branch or tag moves, as far as the forge tells: the time of the last push. "" where it tells
	// nothing, or where the push was so short a time ago that another one could carry the same mark.
	Mark string

	Raw json.RawMessage // as the forge answered
}

// Class says why a repository is listed.
type Class string

// Classes.
const (
	Owned       Class = ""
	Starred     Class = "starred"
	Contributed Class = "contributed"
	Gist        Class = "gist" // or snippet
)

// FullName is "owner/name".
func (r Repository) FullName() string { return r.Owner + "/" + r.Name }

// Selection says which repositories of a forge are listed.
type Selection struct {
	User         string // "" with no Organization either: the token's own account and all it is a member of
	Organization string // with its subgroups
	// Organizations are listed beside User; names of owners, with their subgroups.
	Organizations []string
	Starred       bool
	Contributed   bool
	Gists         bool
	Wikis         bool // fill in WikiHTTPURL and WikiSSHURL
	Languages     bool // fill in all Languages, where that costs requests
}

// Provider is an account's view of one forge. What else a provider can do, it shows by the interfaces below. Errors are of
// package fault's classes: ErrDenied with the missing scope by its name, ErrNotFound, ErrThrottled, ErrUnavailable. Safe for
// concurrent use.
type Provider interface {
	// Host names the forge in restore points: "github.com", "git.example.com_3000".
	Host() string
	// Repositories yields what the selection names, no repository twice. Where it cannot be sure that it has seen all, the
	// sequence ends with an error: a listing that ends without one is complete.
	Repositories(ctx context.Context, s Selection) iter.Seq2[Repository, error]
}

// Inspector says what its credentials are worth, before a run.
type Inspector interface {
	Inspect(ctx context.Context) (Credentials, error)
}

// Credentials is what a forge says of the credentials that it was asked with.
type Credentials struct {
	Account string    // "" where the forge does not say, as of a GitHub App
	Expires time.Time // zero where they do not, or the forge does not say
	Missing []string  // scopes that the selection needs and the credentials lack, by the forge's names
	// Remaining requests, of Limit, until Reset; Limit is 0 where the forge has none.
	Remaining, Limit int
	Reset            time.Time
}

// Finder looks a repository up that is not listed any more. A repository that is not there gives fault.ErrNotFound. One that was
// renamed or transferred is found by its ID, or by its old name where that still leads to it.
type Finder interface {
	Find(ctx context.Context, r Repository) (Repository, error)
}

// Issue is an issue as its forge answered.
type Issue struct {
	Number  int64
	Updated time.Time
	Raw     json.RawMessage
}

// IssueReader reads the issues of a repository, in every state.
type IssueReader interface {
	Issues(ctx context.Context, r Repository) iter.Seq2[Issue, error]
}

// NewRepository is a repository to be made.
type NewRepository struct {
	Owner         string // "" for the token's own account
	Name          string
	Description   string
	DefaultBranch string
	Visibility    string // "private", "public", "internal", "limited", "unlisted"; one the forge has not is fault.ErrUnsupported
}

// RefusePublic refuses a repository that was there already and shows everybody what was to be seen by some.
func (n NewRepository) RefusePublic(r Repository) error {
	if n.Visibility == "public" || r.Private {
		return nil
	}
	return fault.New("", fault.ErrRefused, "everybody can see "+printable(r.FullName())+", which is there already, and the copy is to be "+
		cmp.Or(n.Visibility, "private"), "make that repository private, or say visibility: public where the copy may be seen by everybody")
}

// Maker makes repositories, for mirrors and for restoring.
type Maker interface {
	// Make makes the repository, or returns the one that is there already.
	Make(ctx context.Context, r NewRepository) (Repository, error)
	// MakeOwner makes an organisation or group unless an owner of the name is there. Forges where only people can do it answer
	// fault.ErrUnsupported.
	MakeOwner(ctx context.Context, name, visibility string) error
}

// PullMirror is what a forge is to pull by itself.
type PullMirror struct {
	NewRepository
	From     string // URL for git over https
	Username string
	Password fault.Secret
	Interval time.Duration // 0 for the forge's default
	LFS      bool
	Wiki     bool
}

// Puller lets the forge itself mirror a repository from elsewhere.
type Puller interface {
	// PullMirror sets the mirror up, or leaves one of the same source as it is. A repository of the name that is no mirror of it
	// is refused (fault.ErrExists).
	PullMirror(ctx context.Context, m PullMirror) error
}
