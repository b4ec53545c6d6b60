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

// newWatch makes a watch and returns the context that it ends. It begins to count with the first wait. The caller must call stop.
func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{limit: limit, end: cancel}
	w.timer = time.AfterFunc(limit, func() { cancel(errIdle) })
	w.timer.Stop()
	return ctx, w
}

// wait counts from now on, rest no more.
func (w *watch) wait() { w.timer.Reset(w.limit) }
func (w *watch) rest() { w.timer.Stop() }

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
	r.w.wait()
	n, err := r.r.Read(p)
	if r.ours {
		r.w.rest()
	} else {
		r.w.wait()
	}
	return n, err
}

// explain gives err, which ended an exchange under ctx, its class: the reason for which ctx ended, if it did, is the true one.
func (w *watch) explain(ctx context.Context, err error) error {
	switch why := context.Cause(ctx); {
	case err == nil:
		return nil
	case why == nil:
		return classify(err)
	case errors.Is(why, errIdle):
		return fault.New("", fault.ErrUnavailable, errIdle.Error()+" for "+w.limit.String(), "raise the idle timeout if the server is known to be slow")
	default:
		return classify(why)
	}
}
