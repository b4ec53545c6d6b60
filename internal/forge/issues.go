package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// issueBytes is how much of a repository's issues is held in memory, to see whether they are all as they were.
const issueBytes = 8 << 20

// issues captures a repository's issues, where that is wanted and the provider reads them.
func (c *capture) issues(ctx context.Context, r Repository) error {
	reader, ok := c.a.o.Provider.(IssueReader)
	if !ok || !c.a.o.Issues || r.Class == Gist {
		return nil
	}
	name := c.a.issuesName(r)
	w := &issueWriter{c: c, name: name, r: r}
	for issue, err := range reader.Issues(ctx, r) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return w.fail(ctx, err)
		}
		if err := w.add(ctx, issue); err != nil {
			return err
		}
	}
	return w.store(ctx)
}

// issueWriter writes issues into their part, which it opens when there is something to say.
type issueWriter struct {
	c    *capture
	name string
	r    Repository

	part    point.PartWriter
	pending []Issue // not written yet
	bytes   int
	count   int64
	sum     []byte
}

func (w *issueWriter) open(ctx context.Context) (err error) {
	if w.part == nil {
		w.c.take(w.name)
		w.part, err = w.c.to.Part(ctx, w.name, point.KindIssues)
	}
	return err
}

// fail ends the part for what the forge answered. Issues that are switched off are no failure.
func (w *issueWriter) fail(ctx context.Context, reason error) error {
	if w.part == nil && (errors.Is(reason, fault.ErrNotFound) || errors.Is(reason, fault.ErrUnsupported)) {
		if before, ok := w.c.last[w.name]; ok && known(before) {
			return w.c.vanish(ctx, w.name, point.KindIssues, "the repository has no issues any more")
		}
		w.c.skip(w.name, point.KindIssues, "it has no issues")
		return nil
	}
	if err := w.open(ctx); err != nil {
		return err
	}
	return w.part.Fail(ctx, reason)
}

func (w *issueWriter) add(ctx context.Context, issue Issue) error {
	sum := sha256.New()
	fmt.Fprintf(sum, "%x %d %s", w.sum, issue.Number, issue.Raw)
	w.sum = sum.Sum(nil)
	w.pending = append(w.pending, issue)
	w.bytes += len(issue.Raw)
	w.count++
	if w.bytes < issueBytes {
		return nil
	}
	return w.flush(ctx)
}

func (w *issueWriter) flush(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	for _, issue := range w.pending {
		e := point.Entry{Name: fmt.Sprintf("%d.json", issue.Number), Time: issue.Updated}
		if _, err := w.part.Put(ctx, e, bytes.NewReader(issue.Raw), point.Text); err != nil {
			return err
		}
	}
	w.pending, w.bytes = nil, 0
	return nil
}

func (w *issueWriter) store(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	p := point.Part{
		ID: w.c.a.partID(w.r, ofIssues), Mark: hex.EncodeToString(w.sum),
		Counts: []point.Count{{Of: "issues", Expected: w.count, Stored: w.count}},
	}
	prior := w.part.Prior()
	p.Unchanged = prior != nil && prior.Part.State == point.Stored && prior.Part.Mark == p.Mark
	if p.Unchanged && int64(len(w.pending)) == w.count {
		if err := w.part.Keep(ctx, "."); err != nil {
			return err
		}
	} else if err := w.flush(ctx); err != nil {
		return err
	}
	return w.part.Store(ctx, p)
}
