package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// CompactOptions says how packs are merged.
type CompactOptions struct {
	Above   int            // merge only where there are more packs; 0 for DefaultCompactAbove
	Full    bool           // pack everything anew and drop what neither the copy's own refs nor those of Kept reach
	Kept    []point.Reader // with Full: copies of the repository in the points that are kept
	Scratch string         // directory for scratch files; "" for the system's
	Limits  Limits
}

// DefaultCompactAbove is the number of packs from which on merging them is worth the work.
const DefaultCompactAbove = 50

// Compact writes prior, the newest copy of a repository, into w with fewer packs: small ones are merged, large ones kept. It
// ends the part as carried from prior's time, for the source was not asked, and returns how many packs were merged: 0 means
// that the copy was kept as it was. Older points are not touched; they keep the packs they have.
// Any error means that the run on this vault should stop; w was not ended then.
func Compact(ctx context.Context, w point.PartWriter, prior *point.Prior, o CompactOptions) (merged int, err error) {
	l, err := ReadRefs(ctx, prior)
	if err != nil {
		return 0, err
	}
	had, err := openPacks(ctx, prior, l.Format)
	if err != nil {
		return 0, err
	}
	defer had.close()
	c := &compaction{o: o, w: w, prior: prior, refs: l, had: had}
	for _, copied := range o.Kept {
		l, err := ReadRefs(ctx, copied)
		if err != nil {
			return 0, err
		}
		c.kept = append(c.kept, l.tips()...)
	}
	c.choose()
	if len(c.merge) < 2 && !o.Full || len(c.merge) == 0 {
		if err := w.Keep(ctx, "."); err != nil {
			return 0, err
		}
		return 0, w.Store(ctx, c.entry())
	}
	return len(c.merge), c.run(ctx)
}

// compaction is one run of Compact.
type compaction struct {
	o     CompactOptions
	w     point.PartWriter
	prior *point.Prior
	refs  *RefList
	had   *packSet
	kept  []string // tips of the points that are kept, with Full
	merge []*storedPack
	keep  []*storedPack

	scratch *scratch
}

// entry is the part's entry in the ledger: that of the copy, with its date.
func (c *compaction) entry() point.Part {
	p := c.prior.Part
	p.Unchanged = false
	p.CarriedFrom, p.Reason = &c.prior.Time, "packs were looked after; the source was not asked"
	return p
}

// choose decides which packs are merged. It keeps the largest ones of which each is at least twice as large as all smaller
// ones together, so that every object is rewritten only a logarithmic number of times.
func (c *compaction) choose() {
	packs := slices.Clone(c.had.packs)
	slices.SortFunc(packs, func(a, b *storedPack) int { return int(min(1, max(-1, a.size-b.size))) })
	if c.o.Full {
		c.merge = packs
		return
	}
	above := c.o.Above
	if above == 0 {
		above = DefaultCompactAbove
	}
	if len(packs) <= above {
		return
	}
	var smaller int64
	split := 0
	for i, p := range packs {
		if p.size < 2*smaller {
			split = i + 1
		}
		smaller += p.size
	}
	c.merge, c.keep = packs[:split], packs[split:]
}

func (c *compaction) run(ctx context.Context) error {
	var err error
	if c.scratch, err = newScratch(c.o.Scratch, c.refs.Format, c.o.Limits); err != nil {
		return err
	}
	defer c.scratch.remove()
	if err := c.bring(ctx); err != nil {
		return err
	}
	name, err := c.pack(ctx)
	if err != nil {
		return fault.Wrap("merge packs", nil, err, "")
	}
	if err := c.put(ctx, name); err != nil {
		return err
	}
	return c.w.Store(ctx, c.entry())
}

// bring copies the packs to be merged into the scratch repository, where git checks and indexes them anew.
func (c *compaction) bring(ctx context.Context) error {
	for _, p := range c.merge {
		dest := filepath.Join(c.scratch.dir, filepath.FromSlash(p.packPath()))
		if err := c.prior.Extract(ctx, p.packPath(), dest); err != nil {
			return scratchError("bring pack to be merged", err)
		}
		found := &findings{}
		cmd := gitCommand(ctx, c.scratch.dir, "index-pack", dest)
		cmd.Stderr = found
		if err := run(cmd, c.scratch.limits.Memory); err != nil {
			return fault.Wrap("check pack "+p.name, fault.ErrCorrupt, errors.New(found.said()), "verify the vault with --read-data")
		}
	}
	return nil
}

// pack makes one pack of the objects to be kept and returns its path without extension.
func (c *compaction) pack(ctx context.Context) (string, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	args := []string{"pack-objects", "--quiet", "--delta-base-offset"}
	if c.o.Full {
		args = append(args, "--revs")
	}
	cmd := gitCommand(ctx, c.scratch.dir, append(args, filepath.Join(c.scratch.dir, "merged"))...)
	var out bytes.Buffer
	cmd.Stdout = &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	packer, err := start(cmd, c.scratch.limits.Memory)
	if err != nil {
		return "", err
	}
	listed, listErr := c.list(ctx, stdin)
	if listErr != nil {
		stop()
	}
	stdin.Close() // a broken pipe shows in how the program ended
	if err := packer.wait(); err != nil && listErr == nil {
		return "", err
	}
	if listErr != nil {
		return "", listErr
	}
	hash := strings.TrimSpace(out.String())
	if !validOID(hash, c.refs.Format) {
		return "", fmt.Errorf("git pack-objects printed %.100q", hash)
	}
	c.scratch.pack = filepath.Join(c.scratch.dir, "merged-"+hash)
	return c.scratch.pack, c.verify(listed)
}

// list writes what is to be packed: with Full the tips, else the objects of the merged packs that no kept pack holds.
// It returns the number of objects, -1 where git is to find them itself.
func (c *compaction) list(ctx context.Context, to io.Writer) (int, error) {
	if c.o.Full {
		tips, err := c.keptTips()
		if err != nil {
			return 0, err
		}
		_, err = io.WriteString(to, strings.Join(tips, "\n")+"\n")
		return -1, err
	}
	cmd := gitCommand(ctx, c.scratch.dir, "cat-file", "--batch-check=%(objectname)", "--batch-all-objects", "--buffer")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	lister, err := start(cmd, c.scratch.limits.Memory)
	if err != nil {
		return 0, err
	}
	n, copyErr := copyLacking(to, out, &packSet{from: c.prior, packs: slices.Clone(c.keep)})
	_, drainErr := io.Copy(io.Discard, out)
	return n, errors.Join(copyErr, drainErr, lister.wait())
}

// copyLacking copies lines of object ids but for those that kept holds, and counts them.
func copyLacking(to io.Writer, from io.Reader, kept *packSet) (n int, err error) {
	out := bufio.NewWriter(to)
	pass := func(oids []string) error {
		lacking, err := kept.lacking(oids)
		if err != nil {
			return err
		}
		n += len(lacking)
		for _, oid := range lacking {
			if _, err := out.WriteString(oid + "\n"); err != nil {
				return err
			}
		}
		return nil
	}
	in := bufio.NewScanner(from)
	oids := make([]string, 0, boundaryRun)
	for in.Scan() {
		if oids = append(oids, in.Text()); len(oids) == cap(oids) {
			if err := pass(oids); err != nil {
				return n, err
			}
			oids = oids[:0]
		}
	}
	if err := errors.Join(in.Err(), pass(oids)); err != nil {
		return n, err
	}
	return n, out.Flush()
}

// keptTips are the tips that a full compaction starts from: those that the copy's refs name, and of the others those it has.
func (c *compaction) keptTips() ([]string, error) {
	tips := c.refs.tips()
	for _, oid := range c.kept {
		has, err := c.had.has(oid)
		if err != nil {
			return nil, err
		}
		if has {
			tips = append(tips, oid)
		}
	}
	return distinct(len(tips), tips), nil
}

// verify makes sure that the new pack holds as many objects as were listed and all that refs name.
func (c *compaction) verify(listed int) error {
	x, file, err := c.scratch.openIndex()
	if err != nil {
		return err
	}
	defer file.Close()
	if listed >= 0 && x.count() != listed {
		return fault.New("check the merged pack", fault.ErrCorrupt, fmt.Sprintf("it holds %d objects instead of %d", x.count(), listed), "")
	}
	for _, oid := range c.refs.tips() {
		found, err := x.has(oid)
		if err == nil && !found {
			found, err = (&packSet{from: c.prior, packs: slices.Clone(c.keep)}).has(oid)
		}
		if err != nil {
			return err
		}
		if !found {
			return fault.New("check the merged pack", fault.ErrCorrupt, "it lacks "+oid, "")
		}
	}
	return nil
}

// put writes the copy: the new pack, the packs that stay, and every other file as it was.
func (c *compaction) put(ctx context.Context, packed string) error {
	entries, err := c.prior.List(ctx, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name == "objects" || e.Name == "lfs" || (e.Name == tipsFile && c.o.Full) {
			continue
		}
		if err := c.w.Keep(ctx, e.Name); err != nil {
			return err
		}
	}
	if c.o.Full {
		if err := c.putTips(ctx); err != nil {
			return err
		}
	}
	if _, err := c.w.Put(ctx, point.Entry{Name: packDir, Mode: fs.ModeDir}, nil, point.Text); err != nil {
		return err
	}
	for _, p := range c.keep {
		if err := errors.Join(c.w.Keep(ctx, p.packPath()), c.w.Keep(ctx, p.indexPath())); err != nil {
			return err
		}
	}
	name := "pack-" + strings.TrimPrefix(filepath.Base(packed), "merged-")
	for _, ext := range []string{".pack", ".idx"} {
		if err := c.putFile(ctx, packed+ext, packDir+"/"+name+ext); err != nil {
			return err
		}
	}
	return nil
}

// putTips stores which older tips the copy still has: those that points still to be kept name.
func (c *compaction) putTips(ctx context.Context) error {
	all, err := c.keptTips()
	if err != nil {
		return err
	}
	older := distinct(maxTips, all[len(c.refs.tips()):])
	if len(older) == 0 {
		return nil
	}
	_, err = c.w.Put(ctx, point.Entry{Name: tipsFile}, strings.NewReader(encodeTips(older)), point.Text)
	return err
}

func (c *compaction) putFile(ctx context.Context, from, name string) error {
	f, err := os.Open(from)
	if err != nil {
		return scratchError("open merged pack", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	_, err = c.w.Put(ctx, point.Entry{Name: name, Mode: 0o444}, f, point.Packed)
	return err
}
