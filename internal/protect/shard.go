package protect

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Shard is a part that is captured apart from its point: by another process, or earlier in a run that went on in another process. It is
// written by WriteShard and put into its point by Composed.
type Shard struct {
	Name, Kind string
	Mark       string     // of the copy that is meant; another one, of an earlier capture, does not do
	Captured   *time.Time // the moment that the content is of
	Failed     error      // why there is no such copy
	Skipped    string     // why there is not meant to be one
}

// WriteShard captures parts of a point that is composed later, and makes them last without publishing them. It returns how each part
// fared; an error means that the vault failed or that ctx ended.
func WriteShard(ctx context.Context, store Drafter, src Source, policy string) ([]point.Part, error) {
	op := "capture parts of " + src.Subject().Name
	draft, err := store.Begin(ctx, src.Subject(), policy)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	watched := &watch{Sink: draft}
	err = src.Capture(ctx, watched)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = draft.Checkpoint(ctx)
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	if err := errors.Join(err, draft.Abandon(tidy)); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return watched.parts(), nil
}

// Composed is the source of a point of that moment whose parts were written as shards. What has no copy with its mark fails.
func Composed(s point.Subject, at time.Time, shards []Shard) Source { return composed{s, at, shards} }

type composed struct {
	subject point.Subject
	at      time.Time
	shards  []Shard
}

func (c composed) Subject() point.Subject { return c.subject }

func (c composed) Capture(ctx context.Context, to point.Sink) error {
	if draft, is := to.(point.Dated); is {
		draft.At(c.at)
	}
	for _, s := range c.shards {
		if s.Skipped != "" {
			to.Skip(s.Name, s.Kind, s.Skipped)
			continue
		}
		w, err := to.Part(ctx, s.Name, s.Kind)
		if err != nil {
			return err
		}
		if err := s.compose(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (s Shard) compose(ctx context.Context, w point.PartWriter) error {
	prior := w.Prior()
	switch {
	case s.Failed != nil:
		return w.Fail(ctx, s.Failed)
	case prior == nil || prior.Part.Mark != s.Mark || prior.Part.State != point.Stored:
		return w.Fail(ctx, fault.New("compose the point", fault.ErrIncomplete, "what was captured of it is not in the vault", "back up again"))
	}
	if err := w.Keep(ctx, "."); err != nil {
		return err
	}
	stored := prior.Part
	stored.Captured = s.Captured
	return w.Store(ctx, stored)
}

// Found reports which of the shards are in the vault already, by name: who takes a run up again need not capture them again.
func Found(ctx context.Context, store Drafter, s point.Subject, policy string, shards []Shard) (map[string]point.Part, error) {
	parts, err := last(ctx, store, s, policy)
	if err != nil {
		return nil, err
	}
	found := map[string]point.Part{}
	for _, p := range parts {
		for _, want := range shards {
			if p.Name == want.Name && p.Mark == want.Mark && p.State == point.Stored {
				found[p.Name] = p
			}
		}
	}
	return found, nil
}

// Marked lists the shards in the vault whose mark begins so: those of a capture that made parts of names that nobody knew before.
func Marked(ctx context.Context, store Drafter, s point.Subject, policy, prefix string) ([]point.Part, error) {
	parts, err := last(ctx, store, s, policy)
	return slices.DeleteFunc(parts, func(p point.Part) bool { return p.State != point.Stored || !strings.HasPrefix(p.Mark, prefix) }), err
}

// last lists the newest copy of each part of a subject.
func last(ctx context.Context, store Drafter, s point.Subject, policy string) ([]point.Part, error) {
	draft, err := store.Begin(ctx, s, policy)
	if err != nil {
		return nil, err
	}
	parts, err := draft.Last(ctx)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	return parts, errors.Join(err, draft.Abandon(tidy))
}

// watch is a sink that remembers how its parts ended.
type watch struct {
	point.Sink
	mu    sync.Mutex
	ended []point.Part
}

func (w *watch) parts() []point.Part {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

func (w *watch) note(p point.Part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, p)
}

func (w *watch) Part(ctx context.Context, name, kind string) (point.PartWriter, error) {
	pw, err := w.Sink.Part(ctx, name, kind)
	if err != nil {
		return nil, err
	}
	return &watchedPart{PartWriter: pw, watch: w, part: point.Part{Name: name, Kind: kind}}, nil
}

func (w *watch) Skip(name, kind, reason string) {
	w.Sink.Skip(name, kind, reason)
	w.note(point.Part{Name: name, Kind: kind, State: point.Skipped, Reason: reason})
}

func (w *watch) Vanish(ctx context.Context, name, kind, reason string) error {
	if err := w.Sink.Vanish(ctx, name, kind, reason); err != nil {
		return err
	}
	w.note(point.Part{Name: name, Kind: kind, State: point.Vanished, Reason: reason})
	return nil
}

type watchedPart struct {
	point.PartWriter
	watch *watch
	part  point.Part
	bytes atomic.Int64
}

func (p *watchedPart) Put(ctx context.Context, e point.Entry, r io.Reader, c point.Content) (int64, error) {
	n, err := p.PartWriter.Put(ctx, e, r, c)
	p.bytes.Add(n)
	return n, err
}

func (p *watchedPart) Store(ctx context.Context, q point.Part) error {
	if err := p.PartWriter.Store(ctx, q); err != nil {
		return err
	}
	q.Name, q.Kind, q.State, q.NewBytes = p.part.Name, p.part.Kind, point.Stored, p.bytes.Load()
	p.watch.note(q)
	return nil
}

// Save makes what there is so far last, where the vault can do that.
func (p *watchedPart) Save(ctx context.Context, q point.Part) error {
	if saver, is := p.PartWriter.(point.Saver); is {
		return saver.Save(ctx, q)
	}
	return nil
}

func (p *watchedPart) Fail(ctx context.Context, reason error) error {
	if err := p.PartWriter.Fail(ctx, reason); err != nil {
		return err
	}
	failed := p.part
	failed.State, failed.Reason = point.Failed, reason.Error()
	p.watch.note(failed)
	return nil
}
