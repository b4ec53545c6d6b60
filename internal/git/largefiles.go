package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	lfsObjects = "lfs/objects" // in a git directory
	// Sizes in bytes between which a blob can be an LFS pointer, by the LFS specification.
	leastPointer = 100
	mostPointer  = 1024
	// maxPointerList bounds our list of pointers, in bytes.
	maxPointerList = 256 << 20
	// maxPointers bounds the pointers of a repository.
	maxPointers = 2_000_000
)

func (c *capture) lfsName() string { return c.source.PartName() + "/lfs" }

// largeFiles captures the LFS objects that the repository's pointers name, if it has any. What the LFS server does wrong ends
// as a failed part of its own.
func (c *capture) largeFiles(ctx context.Context) error {
	if len(c.pointers) == 0 && !c.pointersUnread {
		return nil
	}
	if c.source.o.SkipLFS {
		c.sink.Skip(c.lfsName(), point.KindLFS, "LFS objects are left out by choice")
		return nil
	}
	w, err := c.sink.Part(ctx, c.lfsName(), point.KindLFS)
	if err != nil {
		return err
	}
	err = c.lfs(ctx, w)
	if err == nil {
		return nil
	}
	if end := ends(ctx, err); end != nil {
		return end
	}
	return w.Fail(ctx, err)
}

func (c *capture) lfs(ctx context.Context, w point.PartWriter) error {
	if prior := w.Prior(); c.complete(prior) {
		return inVault(keepObjects(ctx, w, prior.Part))
	}
	if err := c.readPointers(ctx); err != nil {
		return err
	}
	had, err := c.storedObjects(ctx, w)
	if err != nil {
		return err
	}
	lacking := slices.DeleteFunc(slices.Clone(c.pointers), func(p Pointer) bool { return had.objects[p.OID] })
	came, missing, err := c.download(ctx, w, lacking)
	if err != nil && (ends(ctx, err) != nil || len(came) == 0) {
		return err
	}
	part := point.Part{}
	if err != nil { // the ledger does not close; the next run asks for the rest only
		part.Notes = []string{"LFS objects that did not come: " + strconv.Itoa(len(lacking)-len(came)-len(missing)) + ": " + printable(err.Error())}
	}
	stored := int64(len(c.pointers) - len(lacking) + len(came))
	part.Counts = []point.Count{{Of: "lfs objects", Expected: int64(len(c.pointers)), Stored: stored, MissingAtSource: missing}}
	absent := map[string]bool{}
	for _, p := range lacking {
		absent[p.OID] = !came[p.OID]
	}
	list := encodePointers(c.pointers, absent)
	if list == had.list {
		return inVault(keepObjects(ctx, w, part))
	}
	if len(had.objects) > 0 {
		if err := w.Keep(ctx, "."); err != nil {
			return inVault(err)
		}
	}
	if _, err := w.Put(ctx, point.Entry{Name: lfsFile}, strings.NewReader(list), point.Text); err != nil {
		return inVault(err)
	}
	return inVault(w.Store(ctx, part))
}

// keepObjects ends the part of the LFS objects with the prior copy as it is.
func keepObjects(ctx context.Context, w point.PartWriter, p point.Part) error {
	if err := w.Keep(ctx, "."); err != nil {
		return err
	}
	p.Unchanged = true
	return w.Store(ctx, p)
}

// readPointers reads the pointers of a repository that was kept without being looked at.
func (c *capture) readPointers(ctx context.Context) (err error) {
	if c.pointersUnread {
		c.pointers, _, err = readPointers(ctx, c.prior)
	}
	return inPrior(err)
}

// objectsHad is what the prior copy of the LFS part says of itself.
type objectsHad struct {
	list    string // as stored; "" where there is no copy
	objects map[string]bool
}

// storedObjects names the objects that the prior copy of the LFS part has. A copy that is damaged counts for nothing.
func (c *capture) storedObjects(ctx context.Context, w point.PartWriter) (had objectsHad, _ error) {
	prior := w.Prior()
	if prior == nil {
		return had, nil
	}
	pointers, missing, err := readPointers(ctx, prior)
	if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrNotFound) {
		finding := fmt.Sprintf("the last copy, of %s, is damaged; the objects were captured again: %v", prior.Time.Format("2006-01-02 15:04"), err)
		return had, inVault(w.Alarm(ctx, finding))
	}
	if err != nil {
		return had, inVault(err)
	}
	had.list, had.objects = encodePointers(pointers, missing), make(map[string]bool, len(pointers))
	for _, p := range pointers {
		had.objects[p.OID] = !missing[p.OID]
	}
	return had, nil
}

// download stores objects and returns the ids of those that came, and of those that the server lacks, also with an error.
func (c *capture) download(ctx context.Context, w point.PartWriter, ps []Pointer) (came map[string]bool, missing []string, err error) {
	if len(ps) == 0 {
		return nil, nil, nil
	}
	if err := c.dial(ctx); err != nil {
		return nil, nil, err
	}
	came = map[string]bool{}
	var mu sync.Mutex
	lacking, err := c.remote.LFSDownload(ctx, ps, func(ctx context.Context, p Pointer, body io.Reader) error {
		in := &watched{r: body}
		_, err := w.Put(ctx, point.Entry{Name: objectPath(p.OID)}, in, point.Packed)
		if err != nil && in.err == nil {
			return inVault(err)
		}
		if in.err != nil {
			return in.err
		}
		mu.Lock()
		defer mu.Unlock()
		came[p.OID] = true
		c.source.o.Observe(point.Event{Part: c.lfsName(), What: "receiving", Done: int64(len(came)), Total: int64(len(ps)), Unit: "objects"})
		return nil
	})
	for _, m := range lacking {
		missing = append(missing, m.OID)
	}
	slices.Sort(missing)
	return came, missing, err
}

// objectPath is where git-lfs looks for an object, below its directory.
func objectPath(oid string) string { return "objects/" + oid[:2] + "/" + oid[2:4] + "/" + oid }

// watched remembers the error of a reader, to tell it from errors of the vault that reads it.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// findPointers adds the pointers in the new pack to those known before.
func (c *capture) findPointers(ctx context.Context) error {
	all := map[string]Pointer{}
	if c.before != nil {
		for _, p := range c.before.pointers {
			all[p.OID] = p
		}
	}
	if c.new != nil {
		err := c.new.smallBlobs(ctx, func(content []byte) {
			if p, ok := ParsePointer(content); ok && all[p.OID].OID == "" && len(all) <= maxPointers {
				all[p.OID] = p
			}
		})
		if err != nil {
			return err
		}
	}
	if len(all) > maxPointers {
		return fault.New("look for LFS pointers", fault.ErrRefused, fmt.Sprintf("the repository has more than %d", maxPointers), "")
	}
	c.pointers = make([]Pointer, 0, len(all))
	for _, p := range all {
		c.pointers = append(c.pointers, p)
	}
	slices.SortFunc(c.pointers, func(a, b Pointer) int { return strings.Compare(a.OID, b.OID) })
	return nil
}

// smallBlobs calls each with the content of every blob of the pack that is of a pointer's size.
func (s *scratch) smallBlobs(ctx context.Context, each func(content []byte)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	list := gitCommand(ctx, s.dir, "cat-file", "--batch-check=%(objecttype) %(objectsize) %(objectname)", "--batch-all-objects", "--unordered", "--buffer")
	sizes, err := list.StdoutPipe()
	if err != nil {
		return err
	}
	show := gitCommand(ctx, s.dir, "cat-file", "--batch", "--buffer")
	names, err := show.StdinPipe()
	if err != nil {
		return err
	}
	contents, err := show.StdoutPipe()
	if err != nil {
		return err
	}
	lister, err := start(list, s.limits.Memory)
	if err != nil {
		return err
	}
	shower, err := start(show, s.limits.Memory)
	if err != nil {
		stop()
		return errors.Join(err, lister.wait())
	}
	chosen := make(chan error, 1)
	go func() {
		defer names.Close() // a broken pipe shows in how the program ended
		chosen <- chooseSmall(sizes, names)
	}()
	readErr := readBlobs(contents, each)
	if readErr != nil {
		stop()
	}
	chooseErr := <-chosen
	for _, err := range []error{lister.wait(), shower.wait(), readErr, chooseErr} {
		if err != nil {
			return fault.Wrap("look for LFS pointers", nil, err, "")
		}
	}
	return nil
}

// chooseSmall passes on the names of blobs that can be pointers, out of lines "type size name".
func chooseSmall(lines io.Reader, names io.Writer) error {
	out := bufio.NewWriter(names)
	in := bufio.NewScanner(lines)
	for in.Scan() {
		kind, rest, _ := strings.Cut(in.Text(), " ")
		size, name, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if kind != "blob" || err != nil || n <= leastPointer || n >= mostPointer {
			continue
		}
		if _, err := out.WriteString(name + "\n"); err != nil {
			return err
		}
	}
	return errors.Join(in.Err(), out.Flush())
}

// readBlobs reads what git cat-file --batch prints for small blobs.
func readBlobs(r io.Reader, each func(content []byte)) error {
	in := bufio.NewReader(r)
	content := make([]byte, mostPointer)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return err
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return fmt.Errorf("git cat-file printed %q", line)
		}
		size, err := strconv.Atoi(fields[2])
		if err != nil || size < 0 || size >= mostPointer {
			return fmt.Errorf("git cat-file printed %q", line)
		}
		if _, err := io.ReadFull(in, content[:size+1]); err != nil { // and a line feed
			return err
		}
		each(content[:size])
	}
}

const pointersHeader = "backstay-lfs 1\n"

// encodePointers writes pointers as the stored document: a line "oid size", with " missing" for an object that the source
// does not have.
func encodePointers(ps []Pointer, missing map[string]bool) string {
	var b strings.Builder
	b.WriteString(pointersHeader)
	for _, p := range ps {
		b.WriteString(p.OID + " " + strconv.FormatInt(p.Size, 10))
		if missing[p.OID] {
			b.WriteString(" missing")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func decodePointers(raw []byte) (ps []Pointer, missing map[string]bool, err error) {
	body, ok := bytes.CutPrefix(raw, []byte(pointersHeader))
	if !ok {
		return nil, nil, corruptList(lfsFile, nil, "it is not a list of LFS objects")
	}
	missing = map[string]bool{}
	for line := range strings.Lines(string(body)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !validOID(fields[0], "sha256") {
			return nil, nil, corruptList(lfsFile, nil, fmt.Sprintf("line %.100q names no object", line))
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || size < 0 {
			return nil, nil, corruptList(lfsFile, nil, fmt.Sprintf("line %.100q has no size", line))
		}
		ps = append(ps, Pointer{OID: fields[0], Size: size})
		if len(fields) > 2 && fields[2] == "missing" {
			missing[fields[0]] = true
		}
	}
	return ps, missing, nil
}

// readPointers reads the list in a part: of a repository, all pointers seen; of LFS objects, which of them are there.
func readPointers(ctx context.Context, r point.Reader) (ps []Pointer, missing map[string]bool, err error) {
	raw, err := readAll(ctx, r, lfsFile, maxPointerList)
	if err != nil {
		return nil, nil, err
	}
	return decodePointers(raw)
}
