package git

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// errIdle is the cause of a context that a watch ended.
var errIdle = errors.New("the server sent nothing")

// watch ends an exchange in which nothing moves. Only time spent waiting for the other side counts.
type watch struct {
	limit time.Duration
	timer *time.Timer
	end   context.CancelCauseFunc
}

// newWatch starts a watch and returns the context that it ends. The caller must call stop.
func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{limit: limit, end: cancel}
	w.timer = time.AfterFunc(limit, func() { cancel(errIdle) })
	return ctx, w
}

func (w *watch) stop() {
	w.timer.Stop()
	w.end(nil)
}

// answer watches the reading of what the server sends.
func (w *watch) answer(r io.Reader) io.Reader { return &watchedReader{r: r, w: w, ours: true} }

// question watches the sending of what is read from r: each read tells that the part before was sent.
func (w *watch) question(r io.Reader) io.Reader { return &watchedReader{r: r, w: w} }

type watchedReader struct {
	r    io.Reader
	w    *watch
	ours bool // what is read is handled by us before the next read, in our own time
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.w.timer.Reset(r.w.limit)
	n, err := r.r.Read(p)
	if r.ours {
		r.w.timer.Stop()
	} else {
		r.w.timer.Reset(r.w.limit)
	}
	return n, err
}

// cause puts the reason for which ctx ended in the place of the error that followed from it.
func cause(ctx context.Context, limit time.Duration, err error) error {
	switch why := context.Cause(ctx); {
	case err == nil || why == nil:
		return err
	case errors.Is(why, errIdle):
		return fault.New("", fault.ErrUnavailable, errIdle.Error()+" for "+limit.String(), "raise the idle timeout if the server is known to be slow")
	default:
		return why
	}
}
