package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// previous is the newest whole copy of a repository in the place.
type previous struct {
	from   files
	at     site
	record *record
}

// copying is the copy of one repository being made or brought up to date.
type copying struct {
	e          *Exporter
	repository string // "<host>/<owner>/<name>": where it lies
	origin     string // whose copy it is: the repository, or the subject of which it is the only one
	path       string // what is claimed
	started    time.Time
	place      Place // the exporter's, with the repository's tag
	prior      *previous
	adopted    *adopted // what was there of a clone that another program made

	w     Place // where files are written: the place, or a scratch directory that becomes a zip file
	at    site  // and where there
	final site  // where the copy is in the end
	stage string
	stamp int64 // of a copy beside others, with Keep
	due   bool  // a copy is made though nothing changed: today has none yet

	began    sync.Once
	beganErr error

	mu       sync.Mutex
	listings map[string]map[string]int64
	parts    []*writer
	warnings []string
	unlock   func() // nil where the place has no locks
}

// open finds what lies in the place of a repository and prepares for changing it. Nothing is written yet.
func (e *Exporter) open(ctx context.Context, repository, origin string, now time.Time) (*copying, error) {
	_, local := e.o.Place.(onDisk)
	name, err := e.o.Layout.path(repository, local)
	if err != nil {
		return nil, err
	}
	if err := e.claim(name, origin); err != nil {
		return nil, err
	}
	c := &copying{e: e, repository: repository, origin: origin, path: name, started: now, place: e.o.Place, listings: map[string]map[string]int64{}}
	if t, can := c.place.(tagger); can {
		c.place = t.Tagged(addressOf(origin))
	}
	if l, can := c.place.(locker); can {
		if c.unlock, err = l.Lock(ctx, name); err != nil {
			c.free()
			return nil, fault.Wrap("export "+repository, nil, err, "")
		}
	}
	if err := c.locate(ctx); err != nil {
		c.free()
		return nil, fault.Wrap("export "+repository, nil, err, "")
	}
	return c, nil
}

// locate finds the newest copy, and where the new state of it is written.
func (c *copying) locate(ctx context.Context) (err error) {
	l := c.e.o.Layout
	c.w, c.final = c.place, c.siteOf(path.Dir(c.path), path.Base(c.path))
	switch {
	case l.Keep > 0:
		err = c.locateAmong(ctx)
	case l.Dated:
		err = c.locateByDay(ctx)
	default:
		err = c.lookOrAdopt(ctx, c.final)
	}
	if err != nil {
		return err
	}
	c.at = c.final
	switch _, renames := c.place.(renamer); {
	case l.Zip:
		return c.openStage()
	case l.Keep > 0 && renames:
		c.at.leaf = point.UnfinishedPrefix + c.final.leaf
	}
	return nil
}

func (c *copying) siteOf(dir, leaf string) site {
	s := site{dir: dir, leaf: leaf}
	if c.e.o.Layout.Form == Worktree {
		s.git = ".git"
	}
	return s
}

// inPlace tells whether the copy that is there is brought up to date, rather than another made.
func (c *copying) inPlace() bool { return c.prior != nil && !c.e.o.Layout.Zip && c.prior.at == c.at }

// openStage makes the scratch directory in which the content of a zip file is gathered.
func (c *copying) openStage() error {
	dir, err := os.MkdirTemp(c.e.o.Scratch, "backstay-export-")
	if err != nil {
		return systemFault("make scratch directory", err)
	}
	c.stage, c.w, c.at = dir, &Local{dir}, c.siteOf(".", path.Base(c.path))
	return nil
}

// lookOrAdopt finds what lies where the copy goes.
func (c *copying) lookOrAdopt(ctx context.Context, at site) (err error) {
	var ours bool
	c.prior, ours, err = c.look(ctx, at)
	switch {
	case err != nil || c.prior != nil || c.e.o.Layout.Zip:
		return err
	case ours: // cut short while it was made, or while a clone was taken over
		tips, err := tipsOf(ctx, c.place, at)
		c.adopted = &adopted{tips}
		return err
	}
	return c.adopt(ctx, at)
}

// look reads the copy at a site. It is ours where it has a record, and nil where it was never whole. One of another repository is
// fault.ErrExists.
func (c *copying) look(ctx context.Context, at site) (found *previous, ours bool, err error) {
	if c.e.o.Layout.Zip {
		found, err = c.lookIntoZip(ctx, at)
		return found, found != nil, err
	}
	r, err := readRecord(ctx, c.place, at)
	switch {
	case err != nil || r == nil:
		return nil, false, err
	case r.Of != c.origin:
		return nil, false, occupied(c.place, at.top(), c.origin, r.Of)
	case !r.whole():
		return nil, true, nil
	}
	return &previous{c.place, at, r}, true, nil
}

func (c *copying) lookIntoZip(ctx context.Context, at site) (*previous, error) {
	name := at.top() + ".zip"
	inside := c.siteOf(".", path.Base(c.path))
	a, err := openArchive(ctx, c.place, name)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	var r *record
	if err == nil {
		r, err = readRecord(ctx, a, inside)
	}
	switch {
	case errors.Is(err, fault.ErrCorrupt), err == nil && r == nil:
		err = fault.New("", fault.ErrExists, fmt.Sprintf("%s in %s is no file of ours", name, c.place), "move it away; Backstay replaces only what it has written")
	case err == nil && r.Of != c.origin:
		err = occupied(c.place, name, c.origin, r.Of)
	}
	if err != nil {
		if a != nil {
			a.close()
		}
		return nil, err
	}
	return &previous{a, inside, r}, nil
}

// daysBack is how many older days are looked at for a copy to take files from.
const daysBack = 31

func (c *copying) locateByDay(ctx context.Context) error {
	below := c.final
	on := func(day string) site {
		s := below
		s.dir = path.Join(day, below.dir)
		return s
	}
	today := c.started.Format(time.DateOnly)
	c.final = on(today)
	if err := c.lookOrAdopt(ctx, c.final); err != nil || c.prior != nil || c.adopted != nil {
		return err
	}
	c.due = true
	entries, err := c.place.List(ctx, ".")
	if err != nil {
		return err
	}
	var days []string
	for _, e := range entries {
		if _, err := time.Parse(time.DateOnly, e.Name); err == nil && e.Name < today {
			days = append(days, e.Name)
		}
	}
	slices.Sort(days)
	slices.Reverse(days)
	for _, day := range days[:min(len(days), daysBack)] {
		var err error
		c.prior, _, err = c.look(ctx, on(day))
		if errors.Is(err, fault.ErrExists) { // another day's, which is not touched
			continue
		}
		if err != nil || c.prior != nil {
			return err
		}
	}
	return nil
}

// locateAmong finds the newest of the copies that are kept beside each other.
func (c *copying) locateAmong(ctx context.Context) error {
	entries, err := c.place.List(ctx, c.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name == "HEAD" || e.Name == recordName || e.Name == ".git" {
			return fault.New("", fault.ErrExists, fmt.Sprintf("%s in %s is a copy that was brought up to date", c.path, c.place),
				"move it away, or export without keep")
		}
	}
	stamps := c.stamps(entries)
	c.stamp = c.started.Unix()
	if len(stamps) > 0 {
		c.stamp = max(c.stamp, stamps[0]+1)
	}
	c.final = c.siteOf(c.path, strconv.FormatInt(c.stamp, 10))
	foreign := 0
	for _, stamp := range stamps {
		found, ours, err := c.look(ctx, c.siteOf(c.path, strconv.FormatInt(stamp, 10)))
		switch {
		case errors.Is(err, fault.ErrExists), err == nil && !ours:
			foreign++
		case err != nil:
			return err
		}
		if c.prior = found; found != nil {
			break
		}
	}
	if foreign > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%s in %s: copies that another program made are left as they are, and do not count: %d", c.path, c.place, foreign))
	}
	return nil
}

// stamps are the Unix times that name copies, newest first.
func (c *copying) stamps(entries []point.Entry) []int64 {
	var stamps []int64
	for _, e := range entries {
		name := e.Name
		if c.e.o.Layout.Zip {
			var isZip bool
			if name, isZip = strings.CutSuffix(name, ".zip"); !isZip {
				continue
			}
		}
		if n, err := strconv.ParseInt(name, 10, 64); err == nil && n > 0 && strconv.FormatInt(n, 10) == name {
			stamps = append(stamps, n)
		}
	}
	slices.Sort(stamps)
	slices.Reverse(stamps)
	return stamps
}

// put writes a file of a slot at once.
func (c *copying) put(ctx context.Context, in slot, name string, r io.Reader) (int64, error) {
	if err := c.begin(ctx); err != nil {
		return 0, err
	}
	return c.w.Put(ctx, c.at.path(in, name), r)
}

// begin writes the record before anything else is: of a new copy, to say whose it will be; of one that is there, to say that its files
// may be newer than the record knows.
func (c *copying) begin(ctx context.Context) error {
	c.began.Do(func() {
		r := &record{Version: recordVersion, Of: c.origin, Updating: true}
		if c.inPlace() {
			*r = *c.prior.record
			r.Updating, r.Parts = true, map[slot]contents{}
			for in, had := range c.prior.record.Parts {
				r.Parts[in] = contents{Part: had.Part}
			}
		}
		c.beganErr = c.writeRecord(ctx, r)
	})
	return c.beganErr
}

func (c *copying) writeRecord(ctx context.Context, r *record) error {
	_, err := c.w.Put(ctx, c.at.record(), bytes.NewReader(r.encode()))
	return err
}

// sizeOf is the size of a file of the prior copy.
func (c *copying) sizeOf(ctx context.Context, in slot, name string) (int64, error) {
	full := c.prior.at.path(in, name)
	dir := path.Dir(full)
	c.mu.Lock()
	defer c.mu.Unlock()
	listing, read := c.listings[dir]
	if !read {
		entries, err := c.prior.from.List(ctx, dir)
		if err != nil {
			return 0, err
		}
		listing = make(map[string]int64, len(entries))
		for _, e := range entries {
			if e.Mode.IsRegular() {
				listing[e.Name] = e.Size
			}
		}
		c.listings[dir] = listing
	}
	size, there := listing[path.Base(full)]
	if !there {
		return 0, fault.New("keep "+full, fault.ErrNotFound, "", "")
	}
	return size, nil
}

// free ends the claim and the lock, and removes the scratch directory.
func (c *copying) free() {
	if c.unlock != nil {
		defer c.unlock()
	}
	c.e.release(c.path)
	if c.stage != "" {
		os.RemoveAll(c.stage) //nolint:errcheck // scratch
	}
	if c.prior != nil {
		if a, is := c.prior.from.(*archive); is {
			a.close()
		}
	}
}
