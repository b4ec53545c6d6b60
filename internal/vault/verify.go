package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Verify checks points. Without readData it checks that the index knows all they hold and that the packs are there and long
// enough. With readData it reads and checks every file; and, for no ids, compares every blob of the location with what was written.
func (v *Vault) Verify(ctx context.Context, readData bool, ids ...string) (*point.Report, error) {
	op := "verify vault " + v.name
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	x := newVerification(v, readData)
	err = x.points(ctx, ids)
	if err == nil && len(ids) == 0 {
		err = x.formatCopies(ctx)
	}
	if errors.Is(err, fault.ErrCorrupt) {
		x.found(point.Fault{What: err.Error()})
		err = nil
	}
	if err == nil && readData && len(ids) == 0 {
		err = x.blobs(ctx)
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return x.report, nil
}

// formatCopies reports when no copy of the format blobs is left: the loss of one of them would be the loss of the vault.
func (x *verification) formatCopies(ctx context.Context) error {
	copies, err := readFormatCopies(ctx, x.v.store)
	if err == nil && len(copies) == 0 {
		x.found(point.Fault{What: "there is no copy of the format blobs; the next backup makes one"})
	}
	return err
}

// verification is one run of Verify. What points share is checked once.
type verification struct {
	v        *Vault
	readData bool
	packs    map[blob.ID]int64 // lengths

	mu     sync.Mutex
	report *point.Report
	seen   map[object.ID]bool
	bad    map[content.ID]string // what is wrong with a content; "" for nothing
}

func newVerification(v *Vault, readData bool) *verification {
	return &verification{v: v, readData: readData, report: &point.Report{}, seen: map[object.ID]bool{}, bad: map[content.ID]string{}}
}

func (x *verification) found(f point.Fault) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Faults = append(x.report.Faults, f)
}

// points checks the points of ids, or all.
func (x *verification) points(ctx context.Context, ids []string) error {
	l, missing, err := x.v.compare(ctx)
	if err != nil {
		return err
	}
	chosen, err := x.choose(ctx, l, missing, ids)
	if err != nil {
		return err
	}
	if x.packs, err = x.v.listPacks(ctx); err != nil {
		return err
	}
	x.report.Points = len(chosen)
	r := &reader{v: x.v}
	for _, s := range chosen {
		if err := x.scan(ctx, r, s); err != nil {
			return err
		}
	}
	if !x.anyBad() {
		return nil
	}
	for _, s := range chosen {
		if err := x.attribute(ctx, r, s); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the points to check, and reports those that should be there.
func (x *verification) choose(ctx context.Context, l *listing, missing, ids []string) ([]saved, error) {
	if len(ids) == 0 {
		for _, id := range missing {
			x.found(point.Fault{Point: id, What: "it is in the catalogue, but lost"})
		}
		for _, u := range l.unread {
			x.found(point.Fault{What: fmt.Sprintf("manifests %s: %v", u.id, u.err)})
		}
		return l.points, nil
	}
	var chosen []saved
	for _, id := range ids {
		switch s, ok := l.find(id); {
		case ok:
			chosen = append(chosen, s)
		case slices.Contains(missing, id):
			x.found(point.Fault{Point: id, What: "it is in the catalogue, but lost"})
		default:
			return nil, x.v.absent(ctx, l, id)
		}
	}
	return chosen, nil
}

func (x *verification) anyBad() bool {
	for _, what := range x.bad {
		if what != "" {
			return true
		}
	}
	return false
}

// scan checks what a point holds that no point before it held. It only remembers which contents are bad: attribute says whose.
func (x *verification) scan(ctx context.Context, r *reader, s saved) error {
	level := []*node{rootOf(s)}
	for len(level) > 0 {
		var mu sync.Mutex
		var below []*node
		var fetches []fetch
		var single []content.ID
		for _, n := range level {
			if x.seen[n.entry.ObjectID] {
				continue
			}
			x.seen[n.entry.ObjectID] = true
			if !n.isDir() {
				x.report.Files++
			}
			if id, _, ok := n.entry.ObjectID.ContentID(); ok && !n.isDir() {
				single = append(single, id)
				continue
			}
			fetches = append(fetches, fetch{object: n.entry.ObjectID, use: func(ctx context.Context) error {
				contents, kids, err := x.open(ctx, r, n)
				mu.Lock()
				defer mu.Unlock()
				single = append(single, contents...)
				for _, kid := range kids {
					below = append(below, kid)
				}
				return err
			}})
		}
		if err := x.v.fetchAll(ctx, fetches); err != nil {
			return err
		}
		if err := x.contents(ctx, single); err != nil {
			return err
		}
		level = below
	}
	return nil
}

// open lists the contents of a directory or of a large file, and what lies in the directory. What cannot be read is left to
// attribute.
func (x *verification) open(ctx context.Context, r *reader, n *node) ([]content.ID, map[string]*node, error) {
	contents, err := x.v.rep.VerifyObject(ctx, n.entry.ObjectID)
	if err != nil {
		return nil, nil, x.note(n.entry.ObjectID, storageFault("list contents", err))
	}
	if !n.isDir() {
		return contents, nil, nil
	}
	kids, err := r.kids(ctx, n)
	return contents, kids, x.note(n.entry.ObjectID, err)
}

// note remembers that the object of an entry is damaged; other errors it gives back.
func (x *verification) note(id object.ID, err error) error {
	if err == nil || !errors.Is(err, fault.ErrCorrupt) {
		return err
	}
	if index, ok := id.IndexObjectID(); ok {
		id = index
	}
	if c, _, ok := id.ContentID(); ok {
		x.mark(c, err.Error())
	}
	return nil
}

func (x *verification) mark(id content.ID, what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.bad[id] == "" {
		x.bad[id] = what
	}
}

// contents checks contents that were not checked before.
func (x *verification) contents(ctx context.Context, ids []content.ID) error {
	var fetches []fetch
	for _, id := range ids {
		if _, known := x.bad[id]; known {
			continue
		}
		info, what, err := x.known(ctx, id)
		if err != nil {
			return err
		}
		x.bad[id] = what
		if what != "" || !x.readData {
			continue
		}
		fetches = append(fetches, fetch{object: object.DirectObjectID(id), info: info, use: func(ctx context.Context) error {
			return x.read(ctx, id)
		}})
	}
	return x.v.fetchAll(ctx, fetches)
}

// known asks the index for a content and looks for its pack.
func (x *verification) known(ctx context.Context, id content.ID) (info content.Info, what string, err error) {
	info, err = x.v.rep.ContentInfo(ctx, id)
	if errors.Is(err, content.ErrContentNotFound) {
		return info, "content " + id.String() + " is not in the index", nil
	}
	if err != nil {
		return info, "", storageFault("look up content", err)
	}
	return info, lacking(x.packs, info), nil
}

// read reads and checks a content.
func (x *verification) read(ctx context.Context, id content.ID) error {
	b, err := x.v.rep.ContentReader().GetContent(ctx, id)
	if err != nil {
		err = storageFault("read content", err)
		if !errors.Is(err, fault.ErrCorrupt) {
			return err
		}
		x.mark(id, err.Error())
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Bytes += int64(len(b))
	return nil
}

// attribute reports every file of a point that a bad content belongs to.
func (x *verification) attribute(ctx context.Context, r *reader, s saved) error {
	return x.attributeNode(ctx, r, s.ID, rootOf(s), ".")
}

func (x *verification) attributeNode(ctx context.Context, r *reader, id string, n *node, path string) error {
	contents, err := x.v.rep.VerifyObject(ctx, n.entry.ObjectID)
	if err = storageFault("read", err); err != nil && !errors.Is(err, fault.ErrCorrupt) {
		return err
	}
	if err != nil {
		x.found(point.Fault{Point: id, Path: path, What: err.Error()})
		return nil
	}
	for _, c := range contents {
		if what := x.bad[c]; what != "" {
			info, _ := x.v.rep.ContentInfo(ctx, c)
			x.found(point.Fault{Point: id, Path: path, Blob: string(info.PackBlobID), What: what})
			return nil
		}
	}
	if !n.isDir() {
		return nil
	}
	kids, err := r.kids(ctx, n)
	if err != nil {
		return err
	}
	for _, kid := range kids {
		if err := x.attributeNode(ctx, r, id, kid, strings.TrimPrefix(path+"/"+rawName(kid.entry.Name), "./")); err != nil {
			return err
		}
	}
	return nil
}

func rootOf(s saved) *node {
	return &node{entry: snapshot.DirEntry{Type: snapshot.EntryTypeDirectory, Permissions: 0o755, ObjectID: s.root}}
}
