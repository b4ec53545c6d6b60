package forge

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

// Capture writes the account into the sink: the listing, and every repository that the filter takes. It fails where nothing could be
// listed, for then there is nothing to make a point of.
func (a *Account) Capture(ctx context.Context, to point.Sink) error { return a.capture(ctx, to, nil) }

// capture writes the account. What was captured of some repositories already is taken over; nil for nothing.
func (a *Account) capture(ctx context.Context, to point.Sink, captured map[string][]point.Part) error {
	l, err := a.list(ctx)
	if err != nil {
		return err
	}
	c, err := a.newCapture(ctx, to)
	if err != nil {
		return err
	}
	if err := c.listing(ctx, l); err != nil {
		return err
	}
	chosen := a.choose(l)
	c.know(l)
	c.captured = captured
	c.noteRenames(l.all)
	for _, r := range l.all {
		if reason := chosen.left[a.path(r)]; reason != "" {
			c.skip(a.partName(r), point.KindGit, reason)
		}
	}
	if err := c.repositories(ctx, slices.Clone(chosen.taken)); err != nil {
		return err
	}
	return c.missing(ctx, l, chosen)
}

// capture is one account, or one repository of it, on its way into a sink.
type capture struct {
	a    *Account
	to   point.Sink
	last map[string]point.Part // by name
	byID map[string]string     // names of parts of the last point by their IDs

	ids      map[string]bool         // of the parts of the repositories listed; nil for a single repository
	captured map[string][]point.Part // before, by others, of repositories by their paths

	mu    sync.Mutex
	named map[string]bool // parts that were begun, skipped or vanished
}

func (a *Account) newCapture(ctx context.Context, to point.Sink) (*capture, error) {
	last, err := to.Last(ctx)
	if err != nil {
		return nil, err
	}
	c := &capture{a: a, to: to, last: map[string]point.Part{}, byID: map[string]string{}, named: map[string]bool{}}
	for _, p := range last {
		c.last[p.Name] = p
		if p.ID != "" && known(p) {
			c.byID[p.ID] = p.Name
		}
	}
	return c, nil
}

// know notes which repositories are listed.
func (c *capture) know(l *listing) {
	c.ids = map[string]bool{}
	for _, r := range l.all {
		c.ids[c.a.partID(r, "")] = true
	}
}

// known reports whether the vault has a copy of the part.
func known(p point.Part) bool { return p.State == point.Stored || p.State == point.Carried }

// take notes that a part is named now.
func (c *capture) take(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named[name] = true
}

func (c *capture) skip(name, kind, reason string) {
	if c.isNamed(name) {
		return
	}
	c.take(name)
	c.to.Skip(name, kind, reason)
}

// fail ends a part as failed, with the LFS objects inside it; older copies are carried.
func (c *capture) fail(ctx context.Context, name, kind string, reason error) error {
	c.take(name)
	w, err := c.to.Part(ctx, name, kind)
	if err != nil {
		return err
	}
	if err := w.Fail(ctx, reason); err != nil {
		return err
	}
	if inside := c.last[name+"/lfs"]; inside.Kind == point.KindLFS && known(inside) {
		return c.fail(ctx, inside.Name, inside.Kind, reason)
	}
	return nil
}

// vanish ends a part that the forge has no more.
func (c *capture) vanish(ctx context.Context, name, kind, reason string) error {
	c.take(name)
	return c.to.Vanish(ctx, name, kind, reason)
}

// noteRenames tells the sink which parts went by other names before.
func (c *capture) noteRenames(all []Repository) {
	for _, r := range all {
		c.noteRename(c.a.partName(r), c.a.partID(r, ""))
		c.noteRename(c.a.wikiName(r), c.a.partID(r, ofWiki))
		c.noteRename(c.a.issuesName(r), c.a.partID(r, ofIssues))
		c.noteRename(c.a.metadataName(r), c.a.partID(r, ofMetadata))
	}
}

func (c *capture) noteRename(name, id string) {
	if before := c.byID[id]; id != "" && before != "" && before != name {
		c.take(before)
		c.to.Renamed(name, before)
	}
}

// repositories captures, the biggest first, some at once. What goes wrong with one leaves the others alone.
func (c *capture) repositories(ctx context.Context, taken []job) error {
	slices.SortStableFunc(taken, func(a, b job) int { return cmp.Compare(b.Size, a.Size) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.a.o.Parallel)
	var done atomic.Int64
	for _, j := range taken {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := c.repository(ctx, j)
			c.a.o.Observe(point.Event{What: "repositories", Done: done.Add(1), Total: int64(len(taken)), Unit: "repositories"})
			return err
		})
	}
	return group.Wait()
}

// repository captures one repository with its wiki, issues and metadata.
func (c *capture) repository(ctx context.Context, j job) error {
	if j.unfit != nil {
		return c.unfit(ctx, j)
	}
	if done, err := c.takeOver(ctx, j.Repository, c.captured[c.a.path(j.Repository)]); done || err != nil {
		return err
	}
	fresh := c.fresh(j.Repository) // before the part is ended
	if err := c.git(ctx, j.Repository, c.a.partName(j.Repository), "", j.HTTPURL, j.SSHURL); err != nil {
		return err
	}
	if err := c.wiki(ctx, j.Repository, fresh); err != nil {
		return err
	}
	if err := c.issues(ctx, j.Repository); err != nil {
		return err
	}
	return c.metadata(ctx, j.Repository)
}

// unfit fails the repository that has no name of its own. Of two with the very same name it is one part that fails.
func (c *capture) unfit(ctx context.Context, j job) error {
	name := c.a.partName(j.Repository)
	c.mu.Lock()
	taken := c.named[name]
	c.named[name] = true
	c.mu.Unlock()
	if taken {
		return nil
	}
	return c.fail(ctx, name, point.KindGit, j.unfit)
}

// fresh reports whether the repository's mark says that nothing moved since it was asked, not long ago.
func (c *capture) fresh(r Repository) bool {
	p, ok := c.last[c.byID[c.a.partID(r, "")]]
	if !ok || p.State != point.Stored || r.Mark == "" || p.Mark != r.Mark || p.Checked == nil {
		return false
	}
	age := c.a.o.Clock().Sub(*p.Checked)
	return age >= 0 && age < c.a.o.Recheck
}

// git captures one git repository: the code, or the wiki.
func (c *capture) git(ctx context.Context, r Repository, name, of, httpURL, sshURL string) error {
	source, err := c.source(ctx, r, name, of, httpURL, sshURL)
	if err != nil {
		return c.fail(ctx, name, point.KindGit, err)
	}
	c.take(name)
	defer func() { c.a.requests.Add(source.Requests()) }()
	return source.Capture(ctx, c.watching(name, c.a.partID(r, of)))
}

// watching is the sink, which raises an alarm where another repository took the name of one that is gone.
func (c *capture) watching(name, id string) point.Sink {
	if !c.usurps(name, id) {
		return c.to
	}
	return alarmedSink{c.to, name, usurped}
}

const usurped = "the repository that had this name is gone, and another one has it"

// usurps reports whether a part has the name of one whose repository is gone.
func (c *capture) usurps(name, id string) bool {
	before := c.last[name]
	return c.ids != nil && known(before) && before.ID != "" && id != "" && before.ID != id && !c.ids[repositoryID(before.ID)]
}

// repositoryID is a part's ID without what tells it from the other parts of its repository.
func repositoryID(id string) string {
	id, _, _ = strings.Cut(id, "/")
	return id
}

// alarmedSink raises an alarm in one part as it is begun.
type alarmedSink struct {
	point.Sink
	name, finding string
}

func (s alarmedSink) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	w, err := s.Sink.Part(ctx, name, kind)
	if err == nil && name == s.name {
		err = w.Alarm(ctx, s.finding)
	}
	return w, err
}

// source prepares the capture of one git repository.
func (c *capture) source(ctx context.Context, r Repository, name, of, httpURL, sshURL string) (*git.Source, error) {
	address, o, err := c.reach(ctx, r, httpURL, sshURL)
	if err != nil {
		return nil, err
	}
	o.Name = strings.TrimSuffix(strings.TrimPrefix(name, "git/"), ".git")
	o.ID, o.Recheck, o.Now = c.a.partID(r, of), c.a.o.Recheck, c.a.o.Clock
	if of == "" {
		o.Mark = r.Mark
	}
	if o.Observe == nil {
		o.Observe = c.a.o.Observe
	}
	return git.NewSource(address, o)
}

// reach says where a repository is, and with which credentials.
func (c *capture) reach(ctx context.Context, r Repository, httpURL, sshURL string) (string, git.SourceOptions, error) {
	var o git.SourceOptions
	var err error
	if c.a.o.Git != nil {
		if o, err = c.a.o.Git(ctx, r); err != nil {
			return "", o, err
		}
	}
	address := httpURL
	if c.a.o.SSH {
		address = sshURL
	}
	if address == "" {
		return "", o, fault.New("", fault.ErrUnsupported, "the forge gives no address for git", "")
	}
	u, err := git.ParseURL(address)
	if err != nil {
		return "", o, err
	}
	switch u.Scheme {
	case "https", "http":
		err = c.a.authorize(ctx, u, &o)
	case "ssh":
	default: // the address is the forge's word: it must not make us read this machine's files
		return "", o, fault.New("", fault.ErrRefused, "the forge gives an address of scheme "+u.Scheme, "")
	}
	return address, o, err
}

// authorize sees to it that credentials go to the forge's own host only: those given for git, or else the provider's.
func (a *Account) authorize(ctx context.Context, u *git.URL, o *git.SourceOptions) (err error) {
	if !a.ownHost(u) {
		o.Username, o.Password, o.Credentials = "", "", nil
		return nil
	}
	if access, ok := a.o.Provider.(GitAccess); ok && o.Password == "" {
		o.Username, o.Password, err = access.GitCredentials(ctx)
	}
	return err
}

// ownHost reports whether an address is on the forge's own host, or one below it, as gists are.
func (a *Account) ownHost(u *git.URL) bool {
	host, _ := u.Subject("")
	own := a.o.Provider.Host()
	return strings.EqualFold(host, own) || strings.HasSuffix(strings.ToLower(host), "."+strings.ToLower(own))
}
