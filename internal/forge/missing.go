package forge

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

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
		if p.Kind == point.KindLFS {
			name = path.Dir(name)
		}
		name, isGit = strings.CutSuffix(name, ".git")
		if p.ID == "" || strings.HasSuffix(p.ID, ofWiki) {
			name = strings.TrimSuffix(name, ".wiki")
		}
	} else if name, isGit = strings.CutPrefix(p.Name, "forge/"+host); isGit {
		if p.Kind == point.KindMetadata {
			name, isGit = strings.CutSuffix(name, ofMetadata)
		} else {
			name, isGit = strings.CutSuffix(name, ofIssues)
		}
	}
	if !isGit {
		return Repository{}, false
	}
	owner := strings.TrimPrefix(path.Dir(name), ".") // OneDev has repositories without one
	id := strings.TrimPrefix(repositoryID(p.ID), a.o.Provider.Host()+":")
	r := Repository{ID: id, Owner: unescaped(owner), Name: unescaped(path.Base(name))}
	if rest, ok := strings.CutSuffix(owner, "/gists"); ok {
		r.Owner, r.Class = unescaped(rest), Gist
	}
	return r, true
}
