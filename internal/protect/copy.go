package protect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// CopyOf is a source of parts that a point holds already: it writes them as they are into whatever takes points. from is opened on
// the point's root, parts are entries of its record.
func CopyOf(s point.Subject, from point.Reader, parts []point.Part) Source {
	return copySource{s, from, parts}
}

type copySource struct {
	subject point.Subject
	from    point.Reader
	parts   []point.Part
}

// Subject is what was given.
func (c copySource) Subject() point.Subject { return c.subject }

// Capture copies the parts. One that the point cannot give whole fails; the others are copied all the same.
func (c copySource) Capture(ctx context.Context, to point.Sink) error {
	for _, p := range c.parts {
		if p.State == point.Skipped {
			to.Skip(p.Name, p.Kind, p.Reason)
			continue
		}
		w, err := to.Part(ctx, p.Name, p.Kind)
		if err != nil {
			return err
		}
		switch err := c.copyPart(ctx, p, w); {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			var unreadable *unreadableError
			if !errors.As(err, &unreadable) {
				return err
			}
			if err := w.Fail(ctx, unreadable.error); err != nil {
				return err
			}
		}
	}
	return nil
}

// unreadableError is an error of the point that is read, not of what is written.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

func (c copySource) copyPart(ctx context.Context, p point.Part, w point.PartWriter) error {
	if p.State != point.Stored && p.State != point.Carried {
		return &unreadableError{fault.New("", fault.ErrNotFound, fmt.Sprintf("the point does not hold it: %s", p.Reason), "")}
	}
	if err := c.copyTree(ctx, Within(c.from, p.Name), ".", c.inside(p.Name), w); err != nil {
		return err
	}
	p.Unchanged = false
	return w.Store(ctx, p)
}

// inside are the paths, below a part, of parts that lie in it.
func (c copySource) inside(name string) map[string]bool {
	inner := map[string]bool{}
	for _, p := range c.parts {
		if below, ok := strings.CutPrefix(p.Name, name+"/"); ok {
			inner[below] = true
		}
	}
	return inner
}

func (c copySource) copyTree(ctx context.Context, from point.Reader, dir string, leave map[string]bool, w point.PartWriter) error {
	entries, err := from.List(ctx, dir)
	if err != nil {
		return &unreadableError{err}
	}
	there := sizes(ctx, w.Prior(), dir)
	for _, e := range entries {
		base := e.Name
		e.Name = path.Join(dir, base)
		if leave[e.Name] {
			continue
		}
		switch {
		case e.Mode.IsDir():
			if _, err := w.Put(ctx, e, nil, point.Text); err != nil {
				return err
			}
			err = c.copyTree(ctx, from, e.Name, leave, w)
		case e.Mode.Type() == fs.ModeSymlink:
			_, err = w.Put(ctx, e, nil, point.Text)
		case there[base] == e.Size && namedByContent(base):
			err = w.Keep(ctx, e.Name)
		default:
			err = copyFile(ctx, from, e, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sizes of the files of a directory of the copy that is there already.
func sizes(ctx context.Context, prior *point.Prior, dir string) map[string]int64 {
	if prior == nil {
		return nil
	}
	entries, _ := prior.List(ctx, dir) // what cannot be read is written again
	found := make(map[string]int64, len(entries))
	for _, e := range entries {
		if e.Mode.IsRegular() {
			found[e.Name] = e.Size
		}
	}
	return found
}

// contentName is a hash of forty digits and more: what bears one is never written again with other bytes.
var contentName = regexp.MustCompile(`(^|-)[0-9a-f]{40,}(\.|$)`)

func namedByContent(base string) bool { return contentName.MatchString(base) }

func copyFile(ctx context.Context, from point.Reader, e point.Entry, w point.PartWriter) error {
	f, err := from.Open(ctx, e.Name)
	if err != nil {
		return &unreadableError{err}
	}
	defer f.Close()
	content := point.Text
	if namedByContent(path.Base(e.Name)) {
		content = point.Packed
	}
	var broken error
	_, err = w.Put(ctx, e, readerFunc(func(b []byte) (int, error) {
		n, err := f.Read(b)
		if err != nil && err != io.EOF { //nolint:errorlint // readers return it bare
			broken = err
		}
		return n, err
	}), content)
	if broken != nil {
		return &unreadableError{broken}
	}
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
