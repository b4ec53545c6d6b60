package protect

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Change is one difference between two points.
type Change struct {
	Part   string `json:"part"`
	Item   string `json:"item,omitempty"`   // file or ref; "" where the whole part came or went
	What   string `json:"what"`             // "added", "removed" or "changed"
	Before string `json:"before,omitempty"` // what the item was: an object id, or mode, size and time
	After  string `json:"after,omitempty"`
}

// Differ tells how a part of one kind changed, item by item; what it tells need not name the part. Readers are rooted at the part.
type Differ func(ctx context.Context, before, after point.Reader, tell func(Change)) error

// Diff tells what changed from one point to another. Parts of a kind without a Differ are compared file by file.
func Diff(ctx context.Context, store Store, before, after string, differs map[string]Differ, tell func(Change)) error {
	op := "compare " + before + " with " + after
	old, oldTree, err := store.Open(ctx, before)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	fresh, freshTree, err := store.Open(ctx, after)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	oldParts, freshParts := held(old.Point.Parts), held(fresh.Point.Parts)
	names := maps.Clone(oldParts)
	maps.Copy(names, freshParts)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		_, was := oldParts[name]
		_, is := freshParts[name]
		switch {
		case !was:
			tell(Change{Part: name, What: "added"})
		case !is:
			tell(Change{Part: name, What: "removed"})
		default:
			differ := differs[names[name].Kind]
			if differ == nil {
				differ = DiffFiles
			}
			ofPart := func(c Change) {
				c.Part = name
				tell(c)
			}
			if err := differ(ctx, Within(oldTree, name), Within(freshTree, name), ofPart); err != nil {
				return fault.Wrap(op+": "+name, nil, err, "")
			}
		}
	}
	return nil
}

// held are the parts of which a point has something, by name.
func held(parts []point.Part) map[string]point.Part {
	all := map[string]point.Part{}
	for _, p := range parts {
		if p.State == point.Stored || p.State == point.Carried {
			all[p.Name] = p
		}
	}
	return all
}

// DiffFiles compares two trees by the type, mode, size, owner, time and link of their files. It holds one directory at a time in
// memory, and those above it.
func DiffFiles(ctx context.Context, before, after point.Reader, tell func(Change)) error {
	return diffDirectory(ctx, ".", before, after, tell)
}

func diffDirectory(ctx context.Context, dir string, before, after point.Reader, tell func(Change)) error {
	old, err := before.List(ctx, dir)
	if err != nil {
		return err
	}
	fresh, err := after.List(ctx, dir)
	if err != nil {
		return err
	}
	byName := func(a, b point.Entry) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(old, byName)
	slices.SortFunc(fresh, byName)
	for len(old) > 0 || len(fresh) > 0 {
		switch {
		case len(fresh) == 0 || len(old) > 0 && old[0].Name < fresh[0].Name:
			tell(Change{Item: path.Join(dir, old[0].Name), What: "removed", Before: attributes(old[0])})
			old = old[1:]
		case len(old) == 0 || fresh[0].Name < old[0].Name:
			tell(Change{Item: path.Join(dir, fresh[0].Name), What: "added", After: attributes(fresh[0])})
			fresh = fresh[1:]
		default:
			was, is := old[0], fresh[0]
			old, fresh = old[1:], fresh[1:]
			item := path.Join(dir, is.Name)
			if was.Mode.IsDir() && is.Mode.IsDir() {
				if err := diffDirectory(ctx, item, before, after, tell); err != nil {
					return err
				}
				continue
			}
			if attributes(was) != attributes(is) {
				tell(Change{Item: item, What: "changed", Before: attributes(was), After: attributes(is)})
			}
		}
	}
	return nil
}

// attributes is what DiffFiles compares of a file, and shows.
func attributes(e point.Entry) string {
	s := fmt.Sprintf("%s %d:%d", e.Mode, e.UID, e.GID)
	switch {
	case e.Mode.IsDir():
		return s
	case e.Link != "":
		return s + " -> " + e.Link
	}
	return fmt.Sprintf("%s %d B %s", s, e.Size, e.Time.UTC().Format(time.RFC3339Nano))
}
