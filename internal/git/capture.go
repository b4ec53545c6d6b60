package git

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// maxTips bounds the older tips that a repository remembers, and with them a part of the haves of a fetch.
const maxTips = 2000

// maxHaves bounds the haves of a fetch.
const maxHaves = 10_000

// capture is one run over one repository.
type capture struct {
	source *Source
	sink   point.Sink
	w      point.PartWriter
	prior  *point.Prior // nil where the vault has no good copy

	remote *Remote
	before *stored  // what the prior copy holds; nil where there is none
	now    *RefList // what is stored of what the source advertises
	part   point.Part
	new    *scratch // holds the new pack; nil where nothing arrived

	kept           bool      // the prior copy, whole
	pointers       []Pointer // to LFS objects, of this capture and all before
	pointersUnread bool      // there are pointers, in the prior copy's list
}

// stored is what a prior copy says of itself.
type stored struct {
	refs     *RefList
	document []byte   // refs as stored
	tips     []string // of older captures, newest first
	pointers []Pointer
}

func (c *capture) close() {
	if c.remote != nil {
		c.source.requests.Add(c.remote.Requests())
		c.source.received.Add(c.remote.BytesReceived())
		c.remote.Close() //nolint:errcheck // all that was wanted has arrived
	}
	if c.new != nil {
		c.new.remove()
	}
}

func (c *capture) observe(what string, done int64, unit string) {
	c.source.o.Observe(point.Event{Part: c.source.PartName(), What: what, Done: done, Unit: unit})
}

// fail ends the part, and the part of LFS objects with it, unless err ends the run.
func (c *capture) fail(ctx context.Context, err error) error {
	if end := ends(ctx, err); end != nil {
		return end
	}
	if failed := c.w.Fail(ctx, err); failed != nil {
		return failed
	}
	if c.before == nil || len(c.before.pointers) == 0 {
		return nil
	}
	lfs, lfsErr := c.sink.Part(ctx, c.lfsName(), point.KindLFS)
	if lfsErr != nil {
		return lfsErr
	}
	return lfs.Fail(ctx, fault.Wrap("the repository could not be read", nil, err, ""))
}

// repository captures all but the LFS objects.
func (c *capture) repository(ctx context.Context) error {
	if c.marked() {
		if kept, err := c.keepMarked(ctx); kept || err != nil {
			return err
		}
	}
	if err := c.readPrior(ctx); err != nil {
		return err
	}
	if err := c.listRefs(ctx); err != nil {
		return err
	}
	if c.before != nil && bytes.Equal(c.before.document, encodeRefs(c.now)) {
		return c.unchanged(ctx)
	}
	had, err := c.priorPacks(ctx)
	if err != nil {
		return err
	}
	defer had.close()
	err = c.receive(ctx, had)
	if errors.Is(err, fault.ErrUnavailable) {
		switch moved, listErr := c.movedOn(ctx); {
		case listErr != nil: // the first error says more
		case moved:
			err = c.receive(ctx, had)
		default:
			err = stillAdvertised(err)
		}
	}
	if err != nil {
		return err
	}
	return c.finish(ctx, had)
}

// stillAdvertised is the error of a fetch that the source refuses although its list of refs has not changed: one of its servers
// lags behind, or the ref names an object that is lost.
func stillAdvertised(err error) error {
	var said *remoteError
	if errors.As(err, &said) && strings.Contains(said.said, "not our ref") {
		return fault.New("fetch", fault.ErrUnavailable, "the source advertises what it does not have: "+said.said, "if it stays so, run git fsck in the source, and delete or mend the ref")
	}
	return err
}

// movedOn lists the refs again after a fetch failed, and tells whether that gives reason to try another: somebody may have
// pushed between list and fetch.
func (c *capture) movedOn(ctx context.Context) (bool, error) {
	before := encodeRefs(c.now)
	if c.new != nil {
		c.new.remove()
	}
	c.new, c.part = nil, point.Part{}
	if err := c.listRefs(ctx); err != nil {
		return false, err
	}
	return !bytes.Equal(before, encodeRefs(c.now)), nil
}

// readPrior reads the small files of the prior copy. A copy that is damaged is not built upon: the repository is captured
// whole again, and an alarm says so.
func (c *capture) readPrior(ctx context.Context) error {
	if c.prior == nil {
		return nil
	}
	before, err := readStored(ctx, c.prior)
	if err != nil {
		return c.distrust(ctx, err)
	}
	c.before = before
	return nil
}

// distrust gives the prior copy up where err says that it is damaged.
func (c *capture) distrust(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fault.ErrUnsupported):
		return err
	case !errors.Is(err, fault.ErrCorrupt) && !errors.Is(err, fault.ErrNotFound):
		return inVault(err)
	}
	finding := fmt.Sprintf("the last copy, of %s, is damaged; the repository was captured whole again: %v", c.prior.Time.Format("2006-01-02 15:04"), err)
	c.prior, c.before = nil, nil
	return inVault(c.w.Alarm(ctx, finding))
}

func readStored(ctx context.Context, r point.Reader) (*stored, error) {
	var s stored
	var err error
	if s.document, err = readAll(ctx, r, refsFile, DefaultMaxRefBytes); err != nil {
		return nil, err
	}
	if s.refs, err = decodeRefs(bytes.NewReader(s.document)); err != nil {
		return nil, err
	}
	raw, err := readAll(ctx, r, tipsFile, 1<<20)
	if err == nil {
		s.tips, err = decodeTips(s.refs.Format, raw)
	}
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	s.pointers, _, err = readPointers(ctx, r)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	return &s, nil
}

// readAll reads a file of at most limit bytes.
func readAll(ctx context.Context, r point.Reader, path string, limit int64) ([]byte, error) {
	f, err := r.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fault.New("read "+path, fault.ErrCorrupt, "it is too long", "")
	}
	return raw, err
}

func (c *capture) dial(ctx context.Context) (err error) {
	if c.remote == nil {
		c.remote, err = Dial(ctx, c.source.url, c.source.o.Options)
	}
	return err
}

// listRefs asks the source for its refs and decides which are stored.
func (c *capture) listRefs(ctx context.Context) error {
	if err := c.dial(ctx); err != nil {
		return err
	}
	c.part.ID, c.part.Mark = c.source.o.ID, c.source.o.Mark
	if c.source.o.Now != nil {
		asked := c.source.o.Now().UTC()
		c.part.Checked = &asked
	}
	all, err := c.remote.ListRefs(ctx)
	if err != nil {
		return err
	}
	if oidLength(all.Format) == 0 {
		return fault.New("list refs", fault.ErrUnsupported, "object format "+printable(all.Format)+" is not known", "")
	}
	c.now = &RefList{Format: all.Format}
	refs, clashing := usableRefs(all.Refs)
	made := 0
	for _, r := range refs {
		if madeByForge(r.Name) && !c.source.o.AllRefs {
			made++
			continue
		}
		c.now.Refs = append(c.now.Refs, r)
	}
	slices.SortFunc(c.now.Refs, compareRefNames)
	c.describe(all, made, clashing)
	c.observe("refs", c.now.count(), "refs")
	return nil
}

// describe fills in the part's entry as far as the refs tell it.
func (c *capture) describe(all *RefList, made int, clashing []string) {
	excluded := int64(made + len(clashing))
	c.part.Counts = []point.Count{{Of: "refs", Expected: all.count(), Stored: all.count() - excluded, Excluded: excluded}}
	if made > 0 {
		c.part.Notes = append(c.part.Notes, fmt.Sprintf("refs left out that the forge makes up, such as refs/pull/*/merge: %d", made))
	}
	if len(clashing) > 0 {
		c.part.Notes = append(c.part.Notes, fmt.Sprintf("refs left out that git cannot hold beside others: %d, %q first", len(clashing), clashing[0]))
	}
	if h := c.now.find(head); h != nil {
		c.part.Revision = h.OID
	}
}

// unchanged keeps the prior copy as it is.
func (c *capture) unchanged(ctx context.Context) error {
	c.pointers = c.before.pointers
	c.part.Notes = mergeNotes(c.prior.Part.Notes, c.part.Notes)
	return c.keepWhole(ctx, c.part)
}

// priorPacks opens the packs of the prior copy, nil where there is none.
func (c *capture) priorPacks(ctx context.Context) (*packSet, error) {
	if c.before == nil {
		return nil, nil
	}
	if c.before.refs.Format != c.now.Format {
		finding := fmt.Sprintf("the object format changed from %s to %s", c.before.refs.Format, c.now.Format)
		c.prior, c.before = nil, nil
		return nil, inVault(c.w.Alarm(ctx, finding))
	}
	had, err := openPacks(ctx, c.prior, c.now.Format)
	if err != nil {
		return nil, c.distrust(ctx, err)
	}
	return had, nil
}

// receive fetches what the vault lacks and puts it there as one pack.
func (c *capture) receive(ctx context.Context, had *packSet) error {
	wants, err := had.lacking(c.now.tips())
	if err != nil {
		return inPrior(err)
	}
	if len(wants) == 0 {
		return nil
	}
	if c.new, err = newScratch(c.source.o.Scratch, c.now.Format, c.source.o.Limits); err != nil {
		return err
	}
	haves := c.haves()
	var strict []string
	if len(haves) == 0 {
		strict = fsckIDs(ctx)
	}
	name := newPackName(had, wants, haves)
	found, err := c.transfer(ctx, name, wants, haves, strict)
	if errors.Is(err, errStrict) {
		c.part.Notes = append(c.part.Notes, fsckNote+"the strict check gave up, the plain one was made: "+shorten(err.Error()))
		strict = nil
		if err = c.new.clear(); err == nil {
			found, err = c.transfer(ctx, name, wants, haves, nil)
		}
	}
	if err == nil {
		err = c.check(ctx, had, strict != nil, found)
	}
	if err != nil {
		return err
	}
	c.part.Notes = append(c.part.Notes, found.notes()...)
	return c.putIndex(ctx, name)
}

// haves are the tips that need not be sent again: first what refs named that have moved since, then the others.
func (c *capture) haves() []string {
	if c.before == nil {
		return nil
	}
	var moved []string
	for _, change := range DiffRefs(c.before.refs, c.now) {
		if change.Old != nil && change.Old.OID != "" {
			moved = append(moved, change.Old.OID)
		}
	}
	return distinct(maxHaves, moved, c.before.refs.tips(), c.before.tips)
}

// newPackName names a pack before it has arrived, so that it can be stored while it arrives. Git takes any name.
func newPackName(had *packSet, wants, haves []string) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n\n%s", n, strings.Join(wants, "\n"), strings.Join(haves, "\n")))
		if name := "pack-" + hex.EncodeToString(sum[:20]); !had.named(name) {
			return name
		}
	}
}

// transfer fetches a pack into the vault and through git index-pack at the same time.
func (c *capture) transfer(ctx context.Context, name string, wants, haves, strict []string) (*findings, error) {
	index, err := c.new.index(ctx, strict)
	if err != nil {
		return nil, err
	}
	fetching, hangUp := context.WithCancel(ctx)
	defer hangUp()
	from, to := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := c.remote.Fetch(fetching, wants, haves, to)
		to.CloseWithError(err)
	}()
	in := &incoming{from: from, index: index, limit: c.new.limits.PackBytes, observe: c.observe}
	_, err = c.w.Put(ctx, point.Entry{Name: packDir + "/" + name + ".pack", Mode: 0o444}, in, point.Packed)
	from.CloseWithError(errors.New("the pack is no longer read"))
	hangUp()
	<-done
	if !in.ended {
		index.abort()
	}
	switch {
	case in.err != nil:
		return nil, in.err
	case err != nil:
		return nil, inVault(err)
	}
	return index.found, nil
}

// check makes sure that the new pack and the prior ones hold all that the refs reach.
func (c *capture) check(ctx context.Context, had *packSet, strict bool, found *findings) error {
	c.observe("indexing", 0, "")
	if strict { // git index-pack has seen that the pack's objects link to objects of the pack only
		_, err := c.new.missingTips(c.now.tips(), had)
		return err
	}
	return c.new.fsck(ctx, c.now.tips(), had, found)
}

// putIndex stores the index of the new pack.
func (c *capture) putIndex(ctx context.Context, name string) error {
	f, err := os.Open(c.new.pack + ".idx")
	if err != nil {
		return scratchError("open index of new pack", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	_, err = c.w.Put(ctx, point.Entry{Name: packDir + "/" + name + ".idx", Mode: 0o444}, f, point.Packed)
	return inVault(err)
}

// finish stores everything but the new pack, which is in the vault already, and ends the part.
func (c *capture) finish(ctx context.Context, had *packSet) error {
	if err := c.findPointers(ctx); err != nil {
		return err
	}
	if err := c.keepPacks(ctx, had); err != nil {
		return inVault(err)
	}
	if err := c.putFiles(ctx); err != nil {
		return inVault(err)
	}
	if err := c.alarms(ctx, had); err != nil {
		return err
	}
	if c.prior != nil {
		c.part.Notes = mergeNotes(c.prior.Part.Notes, c.part.Notes)
	}
	return inVault(c.w.Store(ctx, c.part))
}

func (c *capture) keepPacks(ctx context.Context, had *packSet) error {
	if had == nil {
		return nil
	}
	for _, p := range had.packs {
		for _, path := range []string{p.packPath(), p.indexPath()} {
			if err := c.w.Keep(ctx, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// putFiles stores the files that make the part a bare repository, and our own lists.
func (c *capture) putFiles(ctx context.Context) error {
	for _, dir := range bareDirs() {
		if _, err := c.w.Put(ctx, point.Entry{Name: dir, Mode: fs.ModeDir}, nil, point.Text); err != nil {
			return err
		}
	}
	files := bareFiles(c.now)
	files = append(files, plainFile{refsFile, string(encodeRefs(c.now))})
	if tips := c.olderTips(); len(tips) > 0 {
		files = append(files, plainFile{tipsFile, encodeTips(tips)})
	}
	if len(c.pointers) > 0 {
		files = append(files, plainFile{lfsFile, encodePointers(c.pointers, nil)})
	}
	for _, f := range files {
		if !storable(f.path) { // only in our own list then, from which a restore makes it again
			continue
		}
		if _, err := c.w.Put(ctx, point.Entry{Name: f.path}, strings.NewReader(f.data), point.Text); err != nil {
			return err
		}
	}
	return nil
}

// olderTips are the tips of earlier captures that no ref names now.
func (c *capture) olderTips() []string {
	if c.before == nil {
		return nil
	}
	current := map[string]bool{}
	for _, oid := range c.now.tips() {
		current[oid] = true
	}
	older := slices.Concat(c.before.refs.tips(), c.before.tips)
	older = slices.DeleteFunc(older, func(oid string) bool { return current[oid] })
	return distinct(maxTips, older)
}

const tipsHeader = "backstay-tips 1\n"

func encodeTips(tips []string) string { return tipsHeader + strings.Join(tips, "\n") + "\n" }

func decodeTips(format string, raw []byte) ([]string, error) {
	body, ok := strings.CutPrefix(string(raw), tipsHeader)
	tips := strings.Fields(body)
	bad := slices.ContainsFunc(tips, func(oid string) bool { return !validOID(oid, format) })
	if !ok || bad || len(tips) > maxTips {
		return nil, corruptList(tipsFile, nil, "it is not a list of object ids")
	}
	return tips, nil
}

// incoming is a pack on its way into the vault. What is read of it goes to git index-pack, too, and it ends only when that has
// found it good: a pack that is not leaves nothing behind in the vault.
type incoming struct {
	from    io.Reader
	index   *indexer
	limit   int64
	observe func(what string, done int64, unit string)

	head  []byte // the first bytes, until the number of objects is known
	n     int64
	ended bool  // index has finished
	err   error // what Read returned, io.EOF apart
}

const packHeader = 12

func (in *incoming) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	if in.ended {
		return 0, io.EOF
	}
	n, err := in.from.Read(p)
	if n > 0 {
		in.err = in.pass(p[:n])
	}
	if in.err == nil && errors.Is(err, io.EOF) {
		in.ended = true
		if in.err = in.index.finish(); in.err == nil {
			in.err = in.index.scratch.sameSize(in.n)
		}
		if in.err == nil {
			return n, io.EOF
		}
	} else if in.err == nil {
		in.err = err
	}
	return n, in.err
}

// pass hands bytes to git index-pack.
func (in *incoming) pass(p []byte) error {
	in.n += int64(len(p))
	if in.n > in.limit {
		return fault.New("receive pack", fault.ErrRefused, fmt.Sprintf("it is larger than the %d MiB allowed", in.limit>>20),
			"if the repository is to be trusted, raise the size limit of a pack")
	}
	if len(in.head) < packHeader {
		in.head = append(in.head, p[:min(len(p), packHeader-len(in.head))]...)
		if len(in.head) == packHeader && bytes.Equal(in.head[8:], []byte{0, 0, 0, 0}) {
			return fault.New("receive pack", fault.ErrCorrupt, "the server left out all that was asked for", "run git fsck on the server's repository")
		}
	}
	in.observe("receiving", in.n, "B")
	if _, err := in.index.Write(p); err != nil {
		in.ended = true // Write has waited for its end
		return err
	}
	return nil
}
