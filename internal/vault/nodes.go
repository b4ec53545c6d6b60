package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/backstay/backstay/internal/fault"
)

// node is a file, a symbolic link or a directory of a tree that grows. A directory whose kids are nil is stored already, and
// its object tells what it holds; it is read only when something below it changes.
type node struct {
	entry snapshot.DirEntry // Name is the stored one
	kids  map[string]*node  // by stored name
}

// newDir returns an empty directory. Where its time stays zero it gets that of its newest kid, so that directories that nobody
// put come out the same as long as what they hold is the same.
func newDir(name string) *node {
	return &node{
		entry: snapshot.DirEntry{Name: name, Type: snapshot.EntryTypeDirectory, Permissions: 0o755},
		kids:  map[string]*node{},
	}
}

func (n *node) isDir() bool { return n.entry.Type == snapshot.EntryTypeDirectory }

// open reads the kids of a stored directory.
func (n *node) open(ctx context.Context, rep repo.Repository) error {
	if n.kids != nil {
		return nil
	}
	kids, err := readKids(ctx, rep, &n.entry)
	if err != nil {
		return err
	}
	n.kids = kids
	return nil
}

// readKids reads a stored directory.
func readKids(ctx context.Context, rep repo.Repository, e *snapshot.DirEntry) (map[string]*node, error) {
	if e.Type != snapshot.EntryTypeDirectory {
		return nil, fault.New(quote(rawName(e.Name)), fault.ErrInvalid, "not a directory", "")
	}
	r, err := rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return nil, storageFault("read directory "+quote(rawName(e.Name)), err)
	}
	defer r.Close()
	var d snapshot.DirManifest
	if err := json.NewDecoder(r).Decode(&d); err != nil {
		return nil, fault.Wrap("read directory "+quote(rawName(e.Name)), fault.ErrCorrupt, err, hintRepair)
	}
	kids := make(map[string]*node, len(d.Entries))
	for _, e := range d.Entries {
		kids[e.Name] = &node{entry: *e}
	}
	return kids, nil
}

// put places leaf at the path names below n, making directories on the way. Two directories become one.
func (n *node) put(ctx context.Context, rep repo.Repository, names []string, leaf *node) error {
	if len(names) == 0 {
		return n.merge(ctx, rep, leaf)
	}
	if err := n.open(ctx, rep); err != nil {
		return err
	}
	n.entry.ObjectID, n.entry.DirSummary = noObject, nil
	name := storedName(names[0])
	kid := n.kids[name]
	if kid == nil || !kid.isDir() {
		if len(names) == 1 {
			leaf.entry.Name = name
			n.kids[name] = leaf
			return nil
		}
		kid = newDir(name)
		n.kids[name] = kid
	}
	return kid.put(ctx, rep, names[1:], leaf)
}

// merge makes n what other is; a directory keeps the kids that other has not.
func (n *node) merge(ctx context.Context, rep repo.Repository, other *node) error {
	other.entry.Name = n.entry.Name
	empty := n.kids != nil && len(n.kids) == 0
	if !n.isDir() || !other.isDir() || empty {
		*n = *other
		return nil
	}
	if err := n.open(ctx, rep); err != nil {
		return err
	}
	if err := other.open(ctx, rep); err != nil {
		return err
	}
	kids := n.kids
	*n = node{entry: other.entry, kids: kids}
	n.entry.ObjectID, n.entry.DirSummary = noObject, nil
	for name, theirs := range other.kids {
		if ours := kids[name]; ours != nil {
			if err := ours.merge(ctx, rep, theirs); err != nil {
				return err
			}
			continue
		}
		kids[name] = theirs
	}
	return nil
}

// replace places leaf at the path names below n, instead of whatever was there.
func (n *node) replace(ctx context.Context, rep repo.Repository, names []string, leaf *node) error {
	parent := n
	for _, name := range names[:len(names)-1] {
		if err := parent.open(ctx, rep); err != nil {
			return err
		}
		name = storedName(name)
		kid := parent.kids[name]
		if kid == nil || !kid.isDir() {
			kid = newDir(name)
			parent.kids[name] = kid
		}
		parent.entry.ObjectID, parent.entry.DirSummary = noObject, nil
		parent = kid
	}
	if err := parent.open(ctx, rep); err != nil {
		return err
	}
	parent.entry.ObjectID, parent.entry.DirSummary = noObject, nil
	leaf.entry.Name = storedName(names[len(names)-1])
	parent.kids[leaf.entry.Name] = leaf
	return nil
}

// copy returns a node that can change without n changing.
func (n *node) copy() *node {
	c := &node{entry: n.entry}
	if n.kids != nil {
		c.kids = make(map[string]*node, len(n.kids))
		for name, kid := range n.kids {
			c.kids[name] = kid.copy()
		}
	}
	return c
}

// without returns n without what lies at the paths, and without directories that are empty for that reason; nil if nothing is left.
func (n *node) without(ctx context.Context, rep repo.Repository, paths [][]string) (*node, error) {
	below := map[string][][]string{}
	for _, path := range paths {
		if len(path) == 0 {
			return nil, nil //nolint:nilnil // nothing is left of n
		}
		name := storedName(path[0])
		below[name] = append(below[name], path[1:])
	}
	if len(below) == 0 {
		return n, nil
	}
	rest := n.copy()
	if err := rest.open(ctx, rep); err != nil {
		return nil, err
	}
	for name, paths := range below {
		kid := rest.kids[name]
		if kid == nil || !kid.isDir() && len(paths[0]) > 0 {
			continue
		}
		left, err := kid.without(ctx, rep, paths)
		if err != nil {
			return nil, err
		}
		if left == nil {
			delete(rest.kids, name)
		} else {
			rest.kids[name] = left
		}
	}
	if len(rest.kids) == 0 {
		return nil, nil //nolint:nilnil // nothing is left of n
	}
	rest.entry.ObjectID, rest.entry.DirSummary = noObject, nil
	return rest, nil
}

// write stores every directory of the tree that is not stored yet, and returns the entry of n itself. The kids are let go.
// Wrote is told of each object.
func (n *node) write(ctx context.Context, w repo.RepositoryWriter, wrote func(object.ID)) (*snapshot.DirEntry, error) {
	if !n.isDir() || n.kids == nil {
		return &n.entry, nil
	}
	var b snapshotfs.DirManifestBuilder
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		e, err := n.kids[name].write(ctx, w, wrote)
		if err != nil {
			return nil, err
		}
		b.AddEntry(e)
	}
	d := b.Build(n.entry.ModTime, "")
	if n.entry.ModTime == 0 {
		n.entry.ModTime = d.Summary.MaxModTime
	}
	oid, err := snapshotfs.WriteDirManifest(ctx, w, rawName(n.entry.Name), d, compressor)
	if err != nil {
		return nil, storageFault("write directory "+quote(rawName(n.entry.Name)), err)
	}
	wrote(oid)
	n.entry.ObjectID, n.entry.DirSummary, n.entry.FileSize, n.kids = oid, d.Summary, d.Summary.TotalFileSize, nil
	return &n.entry, nil
}

// shed stores the directories below n but for those on the path names. Those that nobody put stay: their times are not known yet.
func (n *node) shed(ctx context.Context, w repo.RepositoryWriter, names []string, wrote func(object.ID)) error {
	for name, kid := range n.kids {
		switch {
		case kid.kids == nil || kid.entry.ModTime == 0:
		case len(names) > 0 && name == storedName(names[0]):
			if err := kid.shed(ctx, w, names[1:], wrote); err != nil {
				return err
			}
		default:
			if _, err := kid.write(ctx, w, wrote); err != nil {
				return err
			}
		}
	}
	return nil
}

// size returns the bytes of the files of an entry.
func size(e *snapshot.DirEntry) int64 {
	if e.Type == snapshot.EntryTypeDirectory && e.DirSummary != nil {
		return e.DirSummary.TotalFileSize
	}
	return e.FileSize
}

// summary returns what is known of the files below an entry.
func summary(e *snapshot.DirEntry) fs.DirectorySummary {
	if e.DirSummary != nil {
		return *e.DirSummary
	}
	return fs.DirectorySummary{TotalFileCount: 1, TotalFileSize: e.FileSize}
}

// quote shows a name of any bytes on one line.
func quote(name string) string { return fmt.Sprintf("%q", name) }
