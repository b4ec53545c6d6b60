package protect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Restorer brings one part back to a place: a directory on the local disk, which is empty or not there, or whatever else the
// one who set it up meant. The reader is rooted at the part. Notes say what was left out on purpose or is left to do. An error
// that is fault.ErrIncomplete means that the part is there, but not all of it, ErrStays that nothing was brought back, and that is well.
type Restorer func(ctx context.Context, from point.Reader, part point.Part, to string) (notes []string, err error)

// ErrStays is a Restorer's word for a part that has no place where it goes, as its notes explain.
var ErrStays = errors.New("the part stays in the point")

// Restoration says what of a point is wanted, and where.
type Restoration struct {
	Part      string // full name, or the end of one that only one part has; "" for all parts
	To        string
	Single    bool                // To takes no more than one part
	Finds     bool                // parts find their own places at To, which is no directory
	Last      string              // kind of parts that come after all others; "" for none
	Restorers map[string]Restorer // by kind of part
}

// Restored is one part that was asked for, and where it went.
type Restored struct {
	Part point.Part `json:"part"`
	To   string     `json:"to,omitempty"` // "" where the point does not hold the part, or it has no place there
	// Notes say what was left out on purpose or is left to do.
	Notes []string `json:"notes,omitempty"`
}

// Restore brings parts back. A single part goes to To itself, several to directories below it named like the parts. A part inside
// another comes along with it. Parts that the point does not hold, because they were skipped or failed, are told by an error
// that is fault.ErrIncomplete, after all others are back.
func Restore(ctx context.Context, store Store, id string, r Restoration) ([]Restored, error) {
	op := "restore point " + id
	record, from, err := store.Open(ctx, id)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	parts, err := chosen(record.Point.Parts, r.Part)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if r.Single && len(parts) > 1 {
		return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("%d parts cannot go to %s", len(parts), r.To), "choose one of them by its name")
	}
	slices.SortStableFunc(parts, func(a, b point.Part) int {
		return cmp.Compare(comesLast(a, r.Last), comesLast(b, r.Last))
	})
	var (
		done    []Restored
		missing []error
	)
	for _, part := range parts {
		if !filepath.IsLocal(filepath.FromSlash(part.Name)) {
			return done, fault.New(op, fault.ErrCorrupt, fmt.Sprintf("part %q has a name that leads out of the point", part.Name), "")
		}
		if part.State == point.Skipped && r.Part == "" {
			continue // who wants all of the point wants what was meant to be in it
		}
		if part.State != point.Stored && part.State != point.Carried {
			cause := fmt.Sprintf("%s: it %s: %s", part.Name, past(part.State), part.Reason)
			missing = append(missing, fault.New("not in the point", fault.ErrIncomplete, cause, ""))
			done = append(done, Restored{Part: part})
			continue
		}
		restore := r.Restorers[part.Kind]
		if restore == nil {
			return done, fault.New(op, fault.ErrUnsupported, fmt.Sprintf("%s: parts of the kind %q cannot go there", part.Name, part.Kind), "")
		}
		to := r.To
		if len(parts) > 1 && !r.Finds {
			to = below(r.To, part.Name)
		}
		notes, err := restore(ctx, Within(from, part.Name), part, to)
		if errors.Is(err, ErrStays) {
			to, err = "", nil
		}
		if err != nil && !errors.Is(err, fault.ErrIncomplete) {
			return done, fault.Wrap(op+": "+part.Name, localClass(err), err, "")
		}
		if err != nil {
			missing = append(missing, fault.Wrap(part.Name, nil, err, ""))
		}
		more, lacks := shortcomings(record.Point.Parts, part.Name)
		missing = append(missing, lacks...)
		done = append(done, Restored{part, to, append(notes, more...)})
	}
	return done, fault.Wrap(op, nil, errors.Join(missing...), "")
}

func comesLast(p point.Part, kind string) int {
	if kind != "" && p.Kind == kind {
		return 1
	}
	return 0
}

// shortcomings tells what the point does not hold of a part and of the parts inside it: what was known when it was made comes back
// as notes, what should have been there as errors.
func shortcomings(parts []point.Part, name string) (notes []string, lacks []error) {
	for _, p := range parts {
		inside := strings.HasPrefix(p.Name, name+"/")
		if p.Name != name && !inside {
			continue
		}
		switch p.State {
		case point.Skipped:
			notes = append(notes, fmt.Sprintf("%s was left out: %s", p.Name, p.Reason))
		case point.Carried:
			notes = append(notes, fmt.Sprintf("%s is the copy of %s: %s", p.Name, p.CarriedFrom.UTC().Format(time.DateTime), p.Reason))
		}
		for _, c := range p.Counts {
			if n := len(c.MissingAtSource); n > 0 {
				notes = append(notes, fmt.Sprintf("%s: missing at the source when the point was made: %d of %d %s", p.Name, n, c.Expected, c.Of))
			}
		}
		lacks = append(lacks, Lacks(p)...)
	}
	return notes, lacks
}

// Lacks tells what a part of a point should hold and does not. Errors: fault.ErrIncomplete.
func Lacks(p point.Part) (all []error) {
	lack := func(format string, args ...any) {
		all = append(all, fault.New("not in the point", fault.ErrIncomplete, fmt.Sprintf(format, args...), ""))
	}
	if p.State == point.Failed {
		lack("%s: it failed: %s", p.Name, p.Reason)
	}
	for _, c := range p.Counts {
		if !c.Closes() {
			lack("%s: it has %d of %d %s", p.Name, c.Stored, c.Expected, c.Of)
		}
	}
	return all
}

// localClass is the class of an error of the local disk, which has none of its own; nil for any other.
func localClass(err error) error {
	var (
		onPath *fs.PathError
		onLink *os.LinkError
	)
	switch {
	case fault.Of(err).Exit != 1:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fault.ErrDenied
	case errors.As(err, &onPath), errors.As(err, &onLink):
		return fault.ErrRefused
	}
	return nil
}

// past says what happened to a part that is not in a point.
func past(s point.State) string {
	switch s {
	case point.Skipped:
		return "was left out"
	case point.Vanished:
		return "had vanished from the source"
	}
	return "failed"
}

// chosen returns the outermost parts, or the one that name means.
func chosen(parts []point.Part, name string) ([]point.Part, error) {
	if name == "" {
		return outermost(parts), nil
	}
	var found []point.Part
	var names []string
	for _, p := range parts {
		names = append(names, p.Name)
		switch {
		case p.Name == name:
			return []point.Part{p}, nil
		case strings.HasSuffix("/"+strings.TrimSuffix(p.Name, ".git"), "/"+strings.TrimSuffix(name, ".git")):
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		hint := "parts there are: " + strings.Join(names[:min(len(names), candidatesShown)], ", ")
		return nil, fault.New(fmt.Sprintf("find part %q", name), fault.ErrNotFound, "", hint)
	case 1:
		return found, nil
	}
	return nil, fault.New(fmt.Sprintf("find part %q", name), fault.ErrInvalid, fmt.Sprintf("%d parts end so", len(found)), "give more of its name")
}

// outermost leaves out the parts that lie in another.
func outermost(parts []point.Part) []point.Part {
	names := make(map[string]bool, len(parts))
	for _, p := range parts {
		names[p.Name] = true
	}
	return slices.DeleteFunc(slices.Clone(parts), func(p point.Part) bool {
		for dir := path.Dir(p.Name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if names[dir] {
				return true
			}
		}
		return false
	})
}

// below joins a part's name to the directory it is restored under, without its first element, which says the kind.
func below(dir, name string) string {
	_, rest, found := strings.Cut(name, "/")
	if !found {
		rest = name
	}
	return filepath.Join(dir, filepath.FromSlash(rest))
}

// Within returns a reader rooted at a directory of r.
func Within(r point.Reader, dir string) point.Reader { return within{r, dir} }

// within is a reader rooted at a directory of another.
type within struct {
	point.Reader
	dir string
}

func (w within) List(ctx context.Context, p string) ([]point.Entry, error) {
	return w.Reader.List(ctx, path.Join(w.dir, p))
}

func (w within) Open(ctx context.Context, p string) (io.ReadSeekCloser, error) {
	return w.Reader.Open(ctx, path.Join(w.dir, p))
}

func (w within) Extract(ctx context.Context, p, dest string) error {
	return w.Reader.Extract(ctx, path.Join(w.dir, p), dest)
}

// RestoreFiles is the Restorer of plain files: it writes the part's tree into the directory to.
func RestoreFiles(ctx context.Context, from point.Reader, part point.Part, to string) ([]string, error) {
	if err := Vacant(to); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	entries, err := from.List(ctx, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != filepath.Base(e.Name) || !filepath.IsLocal(e.Name) {
			return nil, fault.New("restore "+part.Name, fault.ErrCorrupt, fmt.Sprintf("entry %q is no file name", e.Name), "")
		}
		if err := from.Extract(ctx, e.Name, filepath.Join(to, e.Name)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Vacant refuses (fault.ErrExists) a path where there is anything but an empty directory.
func Vacant(dir string) error {
	op := "restore to " + dir
	const hint = "choose a directory that is empty or not there"
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Lstat(dir); err == nil {
			return fault.New(op, fault.ErrExists, "a symbolic link to what is not there", hint)
		}
		return nil
	case err != nil:
		if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
			return fault.New(op, fault.ErrExists, "not a directory", hint)
		}
		return fault.Wrap(op, fault.ErrDenied, err, "")
	case slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), point.UnfinishedPrefix) }):
		return fault.New(op, fault.ErrExists, "the directory is not empty", hint)
	}
	return nil
}
