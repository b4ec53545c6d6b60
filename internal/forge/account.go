package forge

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

// Defaults of AccountOptions.
const (
	DefaultParallel = 4
	DefaultRecheck  = 24 * time.Hour
)

// expiresSoon is how long before a token expires that is said.
const expiresSoon = 14 * 24 * time.Hour

// AccountOptions says what of a forge is captured, and how.
type AccountOptions struct {
	Provider  Provider
	Name      string // of the subject: "github.com/acme"
	Selection Selection
	Filter    *Filter // nil takes all
	SSH       bool    // git goes over ssh
	// Git gives credentials and limits for a repository, just before it is captured; Name, ID, Mark, Recheck and Now are filled in.
	// Nil, or without a Password, those of the Provider are used, where it is a GitAccess. A repository on another host than the
	// forge's is captured without credentials.
	Git      func(ctx context.Context, r Repository) (git.SourceOptions, error)
	Issues   bool             // also issues, where the provider reads them
	Metadata *MetadataOptions // also what the forge knows beside the code, where the provider reads it; nil for nothing
	Parallel int              // repositories captured at once; 0 for DefaultParallel
	Recheck  time.Duration    // how long a Mark is believed before the repository itself is asked; 0 for DefaultRecheck
	Clock    func() time.Time
	Observe  point.Observer // nil for nobody
}

// Account is the repositories of a forge that are listed together: a source of one point, for one run. Safe for concurrent use.
type Account struct {
	o AccountOptions

	requests atomic.Int64 // for git

	mu       sync.Mutex
	listed   *listing
	warnings []string
	login    string // whose credentials are used; "" where the forge does not say

	marking sync.Mutex
	marks   metadataMarks
}

// NewAccount prepares an account. Nothing is asked of the forge yet.
func NewAccount(o AccountOptions) (*Account, error) {
	if o.Provider == nil || o.Name == "" || o.Clock == nil {
		return nil, errors.New("an account needs a provider, a name and a clock")
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Recheck <= 0 {
		o.Recheck = DefaultRecheck
	}
	if o.Observe == nil {
		o.Observe = func(point.Event) {}
	}
	return &Account{o: o}, nil
}

// Subject names the account.
func (a *Account) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectAccount, Name: a.o.Name}
}

// Requests counts the requests made so far, for git and, where the provider counts them, to the API.
func (a *Account) Requests() int64 {
	n := a.requests.Load()
	if p, ok := a.o.Provider.(interface{ Requests() int64 }); ok {
		n += p.Requests()
	}
	return n
}

// Remaining is how many requests the forge still allows; false where it sets no limit, or the provider does not say.
func (a *Account) Remaining() (int, bool) {
	p, ok := a.o.Provider.(interface{ Seen() Seen })
	if !ok {
		return 0, false
	}
	seen := p.Seen()
	return seen.Remaining, seen.Limit > 0
}

// Warnings are what somebody must see to soon, though the run is good.
func (a *Account) Warnings() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.warnings)
}

func (a *Account) warn(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
}

// account is whose credentials are used; "" where the forge does not say.
func (a *Account) account() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.login
}

// Listed counts the repositories that the forge has, before the filter; 0 before they were listed.
func (a *Account) Listed() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listed == nil {
		return 0
	}
	return len(a.listed.all)
}

// Missing are names that the filter asks for and a complete listing does not have; none before it was listed.
func (a *Account) Missing() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listed == nil || a.listed.err != nil {
		return nil
	}
	return a.o.Filter.Missing(a.listed.all)
}

// inspect fails for credentials that are worth nothing, and warns of those that soon will be, or are not worth enough.
func (a *Account) inspect(ctx context.Context) error {
	inspector, ok := a.o.Provider.(Inspector)
	if !ok {
		return nil
	}
	c, err := inspector.Inspect(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fault.ErrDenied):
		return err
	case errors.Is(err, fault.ErrUnsupported):
		return nil
	case err != nil:
		a.warn("%s: what the token may do, and until when, could not be found out: %v", a.o.Name, err)
		return nil
	}
	a.mu.Lock()
	a.login = c.Account
	a.mu.Unlock()
	now := a.o.Clock()
	date := c.Expires.UTC().Format(time.DateOnly)
	switch left := c.Expires.Sub(now); {
	case c.Expires.IsZero():
	case left <= 0:
		return fault.New("inspect the token", fault.ErrDenied, "it expired on "+date, "make a new token and give that")
	case left <= expiresSoon:
		a.warn("%s: the token expires on %s, in %d days", a.o.Name, date, int(left.Hours()/24))
	}
	for _, scope := range c.Missing {
		a.warn("%s: the token lacks %s", a.o.Name, scope)
	}
	return nil
}

// AccountRepository is one repository of an account: a source of its parts alone.
type AccountRepository struct {
	account *Account
	job     job
}

// Repositories lists the repositories that the filter takes. They are listed once a run. A listing that broke off gives what it had,
// with the error.
func (a *Account) Repositories(ctx context.Context) ([]*AccountRepository, error) {
	l, err := a.list(ctx)
	if err != nil {
		return nil, fault.Wrap(a.o.Name, nil, err, "")
	}
	taken := a.choose(l).taken
	chosen := make([]*AccountRepository, 0, len(taken))
	for _, j := range taken {
		chosen = append(chosen, &AccountRepository{a, j})
	}
	return chosen, fault.Wrap(a.o.Name, nil, l.err, "")
}

// job is one repository to capture.
type job struct {
	Repository
	unfit error // why it cannot be captured under its name; nil where it can
}

// choice is what the filter makes of a listing.
type choice struct {
	taken []job
	left  map[string]string // reasons of what is left out, by path
	paths map[string]error  // of what is taken, with why it is unfit
}

func (a *Account) choose(l *listing) *choice {
	now, c := a.o.Clock(), &choice{left: map[string]string{}, paths: map[string]error{}}
	var all []Repository
	for _, r := range l.all {
		if reason := a.o.Filter.Excludes(r, now); reason != "" {
			c.left[a.path(r)] = reason
		} else {
			all = append(all, r)
		}
	}
	collisions := a.collisions(all)
	for _, r := range all {
		unfit := collisions[r.key()]
		c.taken = append(c.taken, job{r, unfit})
		c.paths[a.path(r)] = unfit
		delete(c.left, a.path(r))
	}
	return c
}

// Repository is what the forge says of it.
func (r *AccountRepository) Repository() Repository { return r.job.Repository }

// PartName is the name of its part in points.
func (r *AccountRepository) PartName() string { return r.account.partName(r.job.Repository) }

// Subject names the repository.
func (r *AccountRepository) Subject() point.Subject {
	return point.Subject{Kind: point.SubjectRepository, Name: r.account.path(r.job.Repository)}
}

// Capture writes the repository's parts into the sink.
func (r *AccountRepository) Capture(ctx context.Context, to point.Sink) error {
	c, err := r.account.newCapture(ctx, to)
	if err != nil {
		return err
	}
	return c.repository(ctx, r.job)
}

// key tells repositories of a listing apart.
func (r Repository) key() string { return r.ID + " " + r.FullName() }

// path names a repository in points: "<host>/<owner>/<name>".
func (a *Account) path(r Repository) string {
	var owner []string
	for _, segment := range strings.FieldsFunc(r.Owner, func(c rune) bool { return c == '/' }) {
		owner = append(owner, segmentOf(segment))
	}
	if r.Class == Gist {
		owner = append(owner, "gists")
	}
	return path.Join(segmentOf(a.o.Provider.Host()), path.Join(owner...), segmentOf(r.Name))
}

func (a *Account) partName(r Repository) string   { return "git/" + a.path(r) + ".git" }
func (a *Account) wikiName(r Repository) string   { return "git/" + a.path(r) + ".wiki.git" }
func (a *Account) issuesName(r Repository) string { return "forge/" + a.path(r) + "/issues" }
func (a *Account) metadataName(r Repository) string {
	return "forge/" + a.path(r) + "/metadata"
}

// listingName is the name of the part that holds the listing.
func (a *Account) listingName() string {
	host := a.o.Provider.Host()
	var segments []string
	for segment := range strings.SplitSeq(strings.TrimPrefix(a.o.Name, host+"/"), "/") {
		segments = append(segments, segmentOf(segment))
	}
	return path.Join("forge", segmentOf(host), path.Join(segments...), "listing")
}

// partID is a repository's name over renames; "" where the forge has none.
func (a *Account) partID(r Repository, of string) string {
	if r.ID == "" {
		return ""
	}
	return a.o.Provider.Host() + ":" + r.ID + of
}

// What parts beside the repository itself add to its ID.
const (
	ofWiki     = "/wiki"
	ofIssues   = "/issues"
	ofMetadata = "/metadata"
)
