package export

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Files of a stored repository that have an order among them.
const (
	packedRefs = "packed-refs"
	headFile   = "HEAD"
	configFile = "config"
	refsFile   = "backstay-refs" // by which the next capture knows what is there: the last one written
)

const (
	keptRefs = "refs/backstay/kept/"
	// keptMost bounds the refs for tips that were left. Beyond it only the names go: no pack of a copy that is brought up to date is
	// ever removed.
	keptMost = 1000
	maxRefs  = 256 << 20 // bytes of packed-refs

	maxLooseRef = 4096 // bytes; a longer file is no ref
)

// placeholders keep the directories that make a repository one where a place has files only. Git passes over names of refs that end
// in .lock, and objects/info/packs is its own list of packs.
var placeholders = []string{"refs/backstay.lock", "objects/info/packs"}

// layRepository writes the small files of the repository. Until packed-refs is replaced the old state is whole, from then on the new one;
// each step finds the repository readable, and a next run mends what is left undone, for backstay-refs comes last.
func (c *copying) layRepository(ctx context.Context, w *writer) (kept []string, err error) {
	if err := c.makeDirs(ctx); err != nil {
		return nil, err
	}
	if w.small[packedRefs] == nil { // all is kept, or was carried
		if c.inPlace() {
			return c.keptBefore(), nil
		}
		return c.keptBefore(), c.checkOut(ctx)
	}
	fresh := !c.inPlace() && c.adopted == nil
	if err := c.putEarly(ctx, w, fresh); err != nil {
		return nil, err
	}
	if kept, err = c.putRefs(ctx, w); err != nil {
		return nil, err
	}
	if err := c.putLate(ctx, w, fresh); err != nil {
		return nil, err
	}
	if err := c.checkOut(ctx); err != nil || w.small[refsFile] == nil {
		return kept, err
	}
	return kept, c.putSmall(ctx, w, refsFile)
}

// putEarly writes what the old state does not mind. A fresh copy gets its HEAD, too: without one it is no repository that Lost could ask.
func (c *copying) putEarly(ctx context.Context, w *writer, fresh bool) error {
	for name := range w.small {
		if slices.Contains([]string{packedRefs, headFile, configFile, refsFile}, name) || strings.HasPrefix(name, "refs/") {
			continue
		}
		if err := c.putSmall(ctx, w, name); err != nil {
			return err
		}
	}
	if fresh && w.small[headFile] != nil {
		if err := c.putSmall(ctx, w, headFile); err != nil {
			return err
		}
	}
	return c.putConfig(ctx, w)
}

// putLate brings HEAD and symbolic refs after packed-refs, once no file of an old ref is in their way.
func (c *copying) putLate(ctx context.Context, w *writer, fresh bool) error {
	if err := c.dropLooseRefs(ctx, w); err != nil {
		return err
	}
	for name := range w.small {
		if strings.HasPrefix(name, "refs/") || name == headFile && !fresh {
			if err := c.putSmall(ctx, w, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkOut makes the files of a clone match its HEAD.
func (c *copying) checkOut(ctx context.Context) error {
	if c.e.o.Layout.Form != Worktree {
		return nil
	}
	return c.e.o.UpdateWorkTree(ctx, c.w.(onDisk).Path(c.at.top())) //nolint:errcheck // New has checked that it is
}

func (c *copying) makeDirs(ctx context.Context) error {
	if c.inPlace() && !c.prior.record.Updating {
		return nil
	}
	for _, dir := range []string{"refs", "objects/pack"} {
		if err := c.w.MakeDir(ctx, c.at.path(slotGit, dir)); err != nil {
			return err
		}
	}
	if _, local := c.w.(onDisk); local {
		return nil
	}
	for _, name := range placeholders {
		if _, err := c.w.Put(ctx, c.at.path(slotGit, name), strings.NewReader("\n")); err != nil {
			return err
		}
	}
	return nil
}

// putConfig writes git's configuration. A clone that was taken over keeps its own.
func (c *copying) putConfig(ctx context.Context, w *writer) error {
	if w.small[configFile] == nil {
		return nil
	}
	if c.adopted != nil {
		f, err := c.place.Open(ctx, c.at.path(slotGit, configFile))
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, fault.ErrNotFound) {
			return err
		}
	}
	if c.e.o.Layout.Form != Worktree {
		return c.putSmall(ctx, w, configFile)
	}
	if had := w.before(); had != nil && c.inPlace() && had.Sums[configFile] == w.sums[configFile] {
		return nil
	}
	data, err := w.read(configFile, maxRecord)
	if err != nil {
		return err
	}
	data = bytes.ReplaceAll(data, []byte("\tbare = true\n"), []byte("\tbare = false\n"))
	_, err = c.w.Put(ctx, c.at.path(slotGit, configFile), bytes.NewReader(data))
	return err
}

// read reads a small file again.
func (w *writer) read(name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(w.small[name].content(), limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fault.New("write "+name, fault.ErrUnsupported, "it is too long", "")
	}
	return data, systemFault("read scratch file", err)
}

func (c *copying) keptBefore() []string {
	if c.prior == nil {
		return nil
	}
	return c.prior.record.Kept
}

// putRefs writes packed-refs: the refs of the source, and refs to the tips that the source's refs have left. A force push then takes
// nothing away from the copy, not even by git gc.
func (c *copying) putRefs(ctx context.Context, w *writer) (kept []string, err error) {
	data, err := w.read(packedRefs, maxRefs)
	if err != nil {
		return nil, err
	}
	now := parsePackedRefs(data)
	before, err := c.tipsBefore(ctx)
	if err != nil {
		return nil, err
	}
	if kept, err = c.lost(ctx, before, now); err != nil {
		return nil, err
	}
	_, err = c.w.Put(ctx, c.at.path(slotGit, packedRefs), bytes.NewReader(withKept(data, kept)))
	return kept, err
}

// tipsBefore are the tips of the refs that the copy has so far, also of those that somebody made in it.
func (c *copying) tipsBefore(ctx context.Context) ([]string, error) {
	if c.adopted != nil {
		return c.adopted.tips, nil
	}
	if c.prior == nil {
		return nil, nil
	}
	return tipsOf(ctx, c.prior.from, c.prior.at)
}

// lost chooses the tips that get refs of their own: those that refs have left and, where that can be found out, no ref reaches any
// more. On servers it cannot, so that also tips that were only passed by get one: the newest keptMost.
func (c *copying) lost(ctx context.Context, before []string, now []packedRef) ([]string, error) {
	seen := map[string]bool{}
	var after, left, kept []string
	for _, r := range now {
		if !seen[r.oid] {
			seen[r.oid] = true
			after = append(after, r.oid)
		}
	}
	for _, oid := range c.keptBefore() {
		if !seen[oid] {
			seen[oid] = true
			kept = append(kept, oid)
		}
	}
	for _, oid := range before {
		if !seen[oid] {
			seen[oid] = true
			left = append(left, oid)
		}
	}
	if disk, local := c.w.(onDisk); local && c.stage == "" && c.e.o.Lost != nil && len(left) > 0 {
		var err error
		if left, err = c.e.o.Lost(ctx, disk.Path(c.at.path(slotGit, ".")), left, after); err != nil {
			return nil, err
		}
	}
	kept = slices.Concat(left, kept)
	return kept[:min(len(kept), keptMost)], nil
}

// dropLooseRefs removes files of refs that packed-refs now has, or that are gone: git would believe them.
func (c *copying) dropLooseRefs(ctx context.Context, w *writer) error {
	if !c.inPlace() && c.adopted == nil {
		return nil
	}
	root := c.at.path(slotGit, "refs")
	return walk(ctx, c.place, root, func(name string, e point.Entry) error {
		full := path.Join("refs", name)
		if _, wanted := w.small[full]; wanted || slices.Contains(placeholders, full) || strings.HasPrefix(full, keptRefs) {
			return nil
		}
		return c.place.Remove(ctx, path.Join(root, name))
	})
}

// packedRef is one line of packed-refs.
type packedRef struct{ oid, name string }

// parsePackedRefs reads the refs of a packed-refs file; lines that are none are passed over.
func parsePackedRefs(data []byte) []packedRef {
	var refs []packedRef
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		oid, name, ok := strings.Cut(lines.Text(), " ")
		if ok && isOID(oid) && strings.HasPrefix(name, "refs/") {
			refs = append(refs, packedRef{oid, name})
		}
	}
	return refs
}

// withKept adds refs to tips to a packed-refs file, which stays sorted.
func withKept(data []byte, tips []string) []byte {
	if len(tips) == 0 {
		return data
	}
	var added bytes.Buffer
	sorted := slices.Clone(tips)
	sort.Strings(sorted)
	for _, oid := range slices.Compact(sorted) {
		added.WriteString(oid + " " + keptRefs + oid + "\n")
	}
	// Lines "^oid" belong to the line before, so that the new ones go in before the first ref of a greater name.
	at := 0
	for line := range bytes.Lines(data) {
		if _, name, ok := bytes.Cut(line, []byte(" ")); ok && line[0] != '#' && bytes.Compare(name, []byte(keptRefs)) > 0 {
			break
		}
		at += len(line)
	}
	return slices.Concat(data[:at], added.Bytes(), data[at:])
}

// isOID tells whether s is an object id, of SHA-1 or SHA-256.
func isOID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// adopted is a repository that lies at the path of a copy and was never whole as ours: a clone that another program made, which the
// copy takes over, or what a run left that was cut short.
type adopted struct{ tips []string }

// adopt looks at a site without a record. An empty one is free. A clone of the same repository is taken over: its objects stay, and
// what its refs name stays reachable. Anything else is not ours to touch.
func (c *copying) adopt(ctx context.Context, at site) error {
	entries, err := c.place.List(ctx, at.top())
	if err != nil || len(entries) == 0 {
		return err
	}
	refuse := func(what string) error {
		return fault.New("", fault.ErrExists, at.top()+" in "+c.place.String()+" "+what, "move it away; Backstay replaces only what it has written")
	}
	config, err := readLimited(ctx, c.place, at.path(slotGit, configFile), maxRecord)
	if errors.Is(err, fault.ErrNotFound) {
		return refuse("is neither a copy of ours nor a clone")
	}
	if err != nil {
		return err
	}
	for _, odd := range []string{"shallow", "objects/info/alternates"} {
		switch f, err := c.place.Open(ctx, at.path(slotGit, odd)); {
		case err == nil:
			f.Close()
			return refuse("is a clone that lacks objects of its own")
		case !errors.Is(err, fault.ErrNotFound):
			return err
		}
	}
	if !clonedFrom(string(config), c.origin) {
		return refuse("is a clone of something else")
	}
	tips, err := tipsOf(ctx, c.place, at)
	c.adopted = &adopted{tips}
	c.warnings = append(c.warnings, at.top()+" in "+c.place.String()+": the clone that another program made was taken over")
	return err
}

// tipsOf are the tips of all refs of a repository. Files of refs that are kept already stay as they are, and are left out.
func tipsOf(ctx context.Context, from files, at site) ([]string, error) {
	var tips []string
	data, err := readLimited(ctx, from, at.path(slotGit, packedRefs), maxRefs)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	for _, r := range parsePackedRefs(data) {
		tips = append(tips, r.oid)
	}
	loose := func(name string) error {
		data, err := readLimited(ctx, from, at.path(slotGit, name), maxLooseRef)
		if oid := strings.TrimSpace(string(data)); err == nil && isOID(oid) {
			tips = append(tips, oid)
		}
		return err
	}
	err = walk(ctx, from, at.path(slotGit, "refs"), func(name string, e point.Entry) error {
		full := path.Join("refs", name)
		if !e.Mode.IsRegular() || e.Size > maxLooseRef || slices.Contains(placeholders, full) || strings.HasPrefix(full, keptRefs) {
			return nil
		}
		return loose(full)
	})
	if err != nil {
		return nil, err
	}
	if err := loose(headFile); err != nil && !errors.Is(err, fault.ErrNotFound) { // it may be detached
		return nil, err
	}
	return tips, nil
}

// clonedFrom tells whether a git configuration has a remote that is the repository, "<host>/<owner>/<name>".
func clonedFrom(config, repository string) bool {
	for line := range strings.Lines(config) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.TrimSpace(key) == "url" && sameRepository(strings.Trim(strings.TrimSpace(value), `"`), repository) {
			return true
		}
	}
	return false
}

// sameRepository compares a remote's URL, in whatever way it is written, with a repository's name.
func sameRepository(raw, repository string) bool {
	if _, rest, ok := strings.Cut(raw, "://"); ok {
		raw = rest
	} else if host, rest, ok := strings.Cut(raw, ":"); ok && !strings.Contains(host, "/") { // user@host:path
		raw = host + "/" + strings.TrimPrefix(rest, "/")
	}
	host, rest, _ := strings.Cut(raw, "/")
	if host == "" {
		host = "local"
	}
	if at := strings.LastIndex(host, "@"); at >= 0 {
		host = host[at+1:]
	}
	rest = strings.TrimSuffix(strings.TrimRight(rest, "/"), ".git")
	theirs := strings.ReplaceAll(host, ":", "_") + "/" + rest
	return strings.EqualFold(theirs, strings.TrimSuffix(repository, ".git"))
}
