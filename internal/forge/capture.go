package forge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

// noWiki is the reason of skipping a wiki that the forge only said there might be.
const noWiki = "it has no wiki"

// Capture writes the account into the sink: the listing, and every repository that the filter takes. It fails where nothing could be
// listed, for then there is nothing to make a point of.
func (a *Account) Capture(ctx context.Context, to point.Sink) error {
	l, err := a.list(ctx)
	if err != nil {
		return fault.Wrap(a.o.Name, nil, err, "")
	}
	c, err := a.newCapture(ctx, to)
	if err != nil {
		return err
	}
	if err := c.listing(ctx, l); err != nil {
		return err
	}
	chosen := a.choose(l)
	c.ids = map[string]bool{}
	for _, r := range l.all {
		c.ids[a.partID(r, "")] = true
	}
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

	ids map[string]bool // of the parts of the repositories listed; nil for a single repository

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

// fail ends a part as failed, with the parts inside it; older copies are carried.
func (c *capture) fail(ctx context.Context, name, kind string, reason error) error {
	c.take(name)
	w, err := c.to.Part(ctx, name, kind)
	if err != nil {
		return err
	}
	err = w.Fail(ctx, reason)
	for _, p := range c.last {
		if err == nil && known(p) && isInside(p, name) {
			err = c.fail(ctx, p.Name, p.Kind, reason)
		}
	}
	return err
}

// isInside reports whether p is of the LFS objects of the repository whose part has the name.
func isInside(p point.Part, name string) bool {
	return p.Kind == point.KindLFS && path.Dir(p.Name) == name
}

// vanish ends a part that the forge has no more.
func (c *capture) vanish(ctx context.Context, name, kind, reason string) error {
	c.take(name)
	return c.to.Vanish(ctx, name, kind, reason)
}

// segmentBytes is about how long a segment of the listing gets.
const segmentBytes = 2 << 20

// listing writes what the forge listed, as it answered. A listing that broke off fails, and the one before is carried.
func (c *capture) listing(ctx context.Context, l *listing) error {
	name := c.a.listingName()
	if l.err != nil {
		return c.fail(ctx, name, point.KindListing, l.err)
	}
	c.take(name)
	w, err := c.to.Part(ctx, name, point.KindListing)
	if err != nil {
		return err
	}
	count := point.Count{Of: "repositories", Expected: int64(len(l.all)), Stored: int64(len(l.all))}
	p := point.Part{Mark: l.mark(), Counts: []point.Count{count}}
	if prior := w.Prior(); prior != nil && prior.Part.Mark == p.Mark {
		p.Unchanged = true
		if err := w.Keep(ctx, "."); err != nil {
			return err
		}
		return w.Store(ctx, p)
	}
	var segment bytes.Buffer
	segments := 0
	flush := func() error {
		segments++
		_, err := w.Put(ctx, point.Entry{Name: fmt.Sprintf("%05d.ndjson", segments)}, bytes.NewReader(segment.Bytes()), point.Text)
		segment.Reset()
		return err
	}
	for _, r := range l.all {
		segment.Write(r.line())
		segment.WriteByte('\n')
		if segment.Len() >= segmentBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if segment.Len() > 0 || segments == 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return w.Store(ctx, p)
}

// mark is a hash of what was listed.
func (l *listing) mark() string {
	sum := sha256.New()
	for _, r := range l.all {
		fmt.Fprintf(sum, "%s\n", r.line())
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// line is the repository on one line, as the forge answered.
func (r Repository) line() []byte {
	var line bytes.Buffer
	if len(r.Raw) > 0 && json.Compact(&line, r.Raw) == nil {
		return line.Bytes()
	}
	r.Raw = nil
	b, err := json.Marshal(r)
	if err != nil { // its fields are texts, numbers and times
		return []byte("{}")
	}
	return b
}

// noteRenames tells the sink which parts went by other names before.
func (c *capture) noteRenames(all []Repository) {
	for _, r := range all {
		c.noteRename(c.a.partName(r), c.a.partID(r, ""))
		c.noteRename(c.a.wikiName(r), c.a.partID(r, ofWiki))
		c.noteRename(c.a.issuesName(r), c.a.partID(r, ofIssues))
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

// repository captures one repository with its wiki and issues.
func (c *capture) repository(ctx context.Context, j job) error {
	if j.unfit != nil {
		return c.unfit(ctx, j)
	}
	fresh := c.fresh(j.Repository) // before the part is ended
	if err := c.git(ctx, j.Repository, c.a.partName(j.Repository), "", j.HTTPURL, j.SSHURL); err != nil {
		return err
	}
	if err := c.wiki(ctx, j.Repository, fresh); err != nil {
		return err
	}
	return c.issues(ctx, j.Repository)
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
	before := c.last[name]
	if c.ids == nil || !known(before) || before.ID == "" || id == "" || before.ID == id || c.ids[repositoryID(before.ID)] {
		return c.to
	}
	return alarmedSink{c.to, name, "the repository that had this name is gone, and another one has it"}
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

// wiki captures a repository's wiki, where it has one. Many forges only say that there might be one. No listing tells
// when a wiki was edited, so one that is there is asked at every run; one that was not there is looked for when its repository is asked.
func (c *capture) wiki(ctx context.Context, r Repository, fresh bool) error {
	name := c.a.wikiName(r)
	before, inLast := c.last[cmp.Or(c.byID[c.a.partID(r, ofWiki)], name)]
	switch {
	case !c.a.o.Selection.Wikis && inLast && known(before):
		c.skip(name, point.KindGit, "wikis are left out")
		return nil
	case !c.a.o.Selection.Wikis:
		return nil
	case r.WikiHTTPURL == "" && r.WikiSSHURL == "":
		if inLast && known(before) {
			return c.vanish(ctx, before.Name, point.KindGit, "the repository has no wiki any more")
		}
		return nil
	case fresh && inLast && before.State == point.Skipped && before.Reason == noWiki:
		c.skip(name, point.KindGit, noWiki)
		return nil
	}
	if !inLast || before.State != point.Stored {
		there, err := c.hasWiki(ctx, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !there && inLast && known(before):
			return c.vanish(ctx, before.Name, point.KindGit, "the repository has no wiki any more")
		case err == nil && !there:
			c.skip(name, point.KindGit, noWiki)
			return nil
		}
	}
	return c.git(ctx, r, name, ofWiki, r.WikiHTTPURL, r.WikiSSHURL)
}

// WikiFinder says whether somebody wrote a wiki, for forges that do not tell git so: Gitea answers with an internal error.
type WikiFinder interface {
	HasWiki(ctx context.Context, r Repository) (bool, error)
}

func (c *capture) hasWiki(ctx context.Context, r Repository) (bool, error) {
	if finder, ok := c.a.o.Provider.(WikiFinder); ok {
		return finder.HasWiki(ctx, r)
	}
	return c.exists(ctx, r, r.WikiHTTPURL, r.WikiSSHURL)
}

// exists asks whether a git repository is there.
func (c *capture) exists(ctx context.Context, r Repository, httpURL, sshURL string) (bool, error) {
	address, o, err := c.reach(ctx, r, httpURL, sshURL)
	if err != nil {
		return false, err
	}
	u, err := git.ParseURL(address)
	if err != nil {
		return false, err
	}
	remote, err := git.Dial(ctx, u, o.Options)
	if err != nil {
		return false, err
	}
	defer remote.Close() //nolint:errcheck // nothing was written
	defer func() { c.a.requests.Add(remote.Requests()) }()
	switch _, err = remote.ListRefs(ctx); {
	case errors.Is(err, fault.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// missing ends the parts of the last point that were not captured: those of repositories that the forge does not list any more, and
// those that are not wanted any more.
func (c *capture) missing(ctx context.Context, l *listing, chosen *choice) error {
	var gone []point.Part
	for _, p := range c.last {
		if known(p) && !c.ended(p) {
			gone = append(gone, p)
		}
	}
	slices.SortFunc(gone, func(a, b point.Part) int { return strings.Compare(a.Name, b.Name) })
	fates := map[string]fate{} // by repository
	for _, p := range gone {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.isNamed(p.Name) { // with the part that it lies in
			continue
		}
		r, ok := c.a.repositoryOf(p)
		if !ok {
			c.skip(p.Name, p.Kind, notTaken)
			continue
		}
		path := c.a.path(r)
		f, judged := fates[path]
		if !judged {
			if f, judged = chosen.fate(path); !judged {
				f = c.judge(ctx, l, r)
			}
			fates[path] = f
		}
		if err := c.end(ctx, p, f); err != nil {
			return err
		}
	}
	return nil
}

// notTaken is the reason of skipping parts that nobody asks for any more.
const notTaken = "the source does not take it any more"

// fate is what becomes of the other parts of a repository that is listed.
func (ch *choice) fate(path string) (fate, bool) {
	if reason := ch.left[path]; reason != "" {
		return fate{skipped: reason}, true
	}
	unfit, listed := ch.paths[path]
	if unfit != nil {
		return fate{failed: unfit}, true
	}
	return fate{skipped: notTaken}, listed
}

func (c *capture) isNamed(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.named[name]
}

// ended reports whether a part was named in this run, itself or the one that it lies in.
func (c *capture) ended(p point.Part) bool {
	return c.isNamed(p.Name) || (p.Kind == point.KindLFS && c.isNamed(path.Dir(p.Name)))
}

// fate is what becomes of a repository that is not listed any more. One of its fields is set.
type fate struct {
	failed   error
	vanished string
	skipped  string
}

func (c *capture) end(ctx context.Context, p point.Part, f fate) error {
	switch {
	case f.failed != nil:
		return c.fail(ctx, p.Name, p.Kind, f.failed)
	case f.skipped != "":
		c.skip(p.Name, p.Kind, f.skipped)
		return nil
	}
	return c.vanish(ctx, p.Name, p.Kind, f.vanished)
}

// judge finds out what became of a repository that is not listed any more.
func (c *capture) judge(ctx context.Context, l *listing, r Repository) fate {
	const hint = "check what the token may see"
	if l.err != nil {
		return fate{failed: l.err}
	}
	finder, ok := c.a.o.Provider.(Finder)
	if !ok {
		return fate{vanished: "the forge does not list it any more"}
	}
	now, err := finder.Find(ctx, r)
	switch {
	case errors.Is(err, fault.ErrNotFound):
		return fate{vanished: "the forge has it no more"}
	case errors.Is(err, fault.ErrUnsupported):
		return fate{vanished: "the forge does not list it any more"}
	case err != nil:
		return fate{failed: fault.Wrap("it is not listed any more; look it up", nil, err, "")}
	case c.a.o.Selection.Starred || c.a.o.Selection.Contributed:
		return fate{skipped: notTaken}
	case now.FullName() != r.FullName():
		return fate{vanished: "it moved to " + printable(now.FullName()) + ", which is not selected"}
	}
	return fate{failed: fault.New("", fault.ErrIncomplete, "it is there, but the forge does not list it any more", hint)}
}

// repositoryOf is the repository that a part is of, as far as the part says.
func (a *Account) repositoryOf(p point.Part) (Repository, bool) {
	host := segmentOf(a.o.Provider.Host()) + "/"
	name, isGit := strings.CutPrefix(p.Name, "git/"+host)
	if isGit {
		name, _, isGit = strings.Cut(name+"/", ".git/")
		name = strings.TrimSuffix(name, ".wiki")
	} else if name, isGit = strings.CutPrefix(p.Name, "forge/"+host); isGit {
		name, isGit = strings.CutSuffix(name, "/issues")
	}
	owner := path.Dir(name)
	if !isGit || owner == "." {
		return Repository{}, false
	}
	id := strings.TrimPrefix(repositoryID(p.ID), a.o.Provider.Host()+":")
	r := Repository{ID: id, Owner: unescaped(owner), Name: unescaped(path.Base(name))}
	if rest, ok := strings.CutSuffix(owner, "/gists"); ok {
		r.Owner, r.Class = unescaped(rest), Gist
	}
	return r, true
}

// issueBytes is how much of a repository's issues is held in memory, to see whether they are all as they were.
const issueBytes = 8 << 20

// issues captures a repository's issues, where that is wanted and the provider reads them.
func (c *capture) issues(ctx context.Context, r Repository) error {
	reader, ok := c.a.o.Provider.(IssueReader)
	if !ok || !c.a.o.Issues || r.Class == Gist {
		return nil
	}
	name := c.a.issuesName(r)
	w := &issueWriter{c: c, name: name, r: r}
	for issue, err := range reader.Issues(ctx, r) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return w.fail(ctx, err)
		}
		if err := w.add(ctx, issue); err != nil {
			return err
		}
	}
	return w.store(ctx)
}

// issueWriter writes issues into their part, which it opens when there is something to say.
type issueWriter struct {
	c    *capture
	name string
	r    Repository

	part    point.PartWriter
	pending []Issue // not written yet
	bytes   int
	count   int64
	sum     []byte
}

func (w *issueWriter) open(ctx context.Context) (err error) {
	if w.part == nil {
		w.c.take(w.name)
		w.part, err = w.c.to.Part(ctx, w.name, point.KindIssues)
	}
	return err
}

// fail ends the part for what the forge answered. Issues that are switched off are no failure.
func (w *issueWriter) fail(ctx context.Context, reason error) error {
	if w.part == nil && (errors.Is(reason, fault.ErrNotFound) || errors.Is(reason, fault.ErrUnsupported)) {
		if before, ok := w.c.last[w.name]; ok && known(before) {
			return w.c.vanish(ctx, w.name, point.KindIssues, "the repository has no issues any more")
		}
		w.c.skip(w.name, point.KindIssues, "it has no issues")
		return nil
	}
	if err := w.open(ctx); err != nil {
		return err
	}
	return w.part.Fail(ctx, reason)
}

func (w *issueWriter) add(ctx context.Context, issue Issue) error {
	sum := sha256.New()
	fmt.Fprintf(sum, "%x %d %s", w.sum, issue.Number, issue.Raw)
	w.sum = sum.Sum(nil)
	w.pending = append(w.pending, issue)
	w.bytes += len(issue.Raw)
	w.count++
	if w.bytes < issueBytes {
		return nil
	}
	return w.flush(ctx)
}

func (w *issueWriter) flush(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	for _, issue := range w.pending {
		e := point.Entry{Name: fmt.Sprintf("%d.json", issue.Number), Time: issue.Updated}
		if _, err := w.part.Put(ctx, e, io.Reader(bytes.NewReader(issue.Raw)), point.Text); err != nil {
			return err
		}
	}
	w.pending, w.bytes = nil, 0
	return nil
}

func (w *issueWriter) store(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	p := point.Part{
		ID: w.c.a.partID(w.r, ofIssues), Mark: hex.EncodeToString(w.sum),
		Counts: []point.Count{{Of: "issues", Expected: w.count, Stored: w.count}},
	}
	prior := w.part.Prior()
	p.Unchanged = prior != nil && prior.Part.State == point.Stored && prior.Part.Mark == p.Mark
	if p.Unchanged && int64(len(w.pending)) == w.count {
		if err := w.part.Keep(ctx, "."); err != nil {
			return err
		}
	} else if err := w.flush(ctx); err != nil {
		return err
	}
	return w.part.Store(ctx, p)
}
