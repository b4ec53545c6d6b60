package forge

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

const (
	// tries is how often a request is made that fails for reasons that may pass.
	tries = 4
	// throttledTries is how often a request is made that the forge puts off.
	throttledTries = 6
	// firstPause is the wait before the second try; it doubles.
	firstPause = time.Second
)

const hintNetwork = "check the address and the network, and try again"

// passing is an error that may be gone when the request is made again.
type passing struct{ error }

func (p *passing) Unwrap() error { return p.error }

// throttled is a forge's word that it wants fewer requests.
type throttled struct {
	error
	after time.Duration // as it asked; 0 where it did not say
}

func (t *throttled) Unwrap() error { return t.error }

// persist makes a call until it succeeds, or fails for good.
func (c *Client) persist(ctx context.Context, l call) (r *Response, err error) {
	err = c.again(ctx, l, func() (err error) {
		r, err = c.try(ctx, l)
		return err
	})
	return r, err
}

// again tries until it succeeds, or fails for good, as the forge allows it.
func (c *Client) again(ctx context.Context, l call, try func() error) error {
	failed, putOff := 0, 0
	for {
		if err := c.admit(ctx, l.resource); err != nil {
			return fault.Wrap(l.op, nil, err, "")
		}
		err := try()
		if err == nil {
			c.account.relax()
			return nil
		}
		if ctx.Err() != nil {
			return fault.Wrap(l.op, nil, ctx.Err(), "")
		}
		var limit *throttled
		var passes *passing
		switch {
		case errors.As(err, &limit):
			putOff++
			c.account.pushBack(c.o.Clock(), limit.after)
			if putOff < throttledTries {
				continue // admit waits
			}
		case errors.As(err, &passes) && l.idempotent:
			failed++
			if failed < tries {
				if err := c.o.Sleep(ctx, pauseBefore(failed)); err != nil {
					return fault.Wrap(l.op, nil, err, "")
				}
				continue
			}
		}
		return fault.Wrap(l.op, nil, err, "")
	}
}

// pauseBefore is how long to wait after the n-th failure: twice as long each time, and never quite the same, so that many clients do
// not come back together.
func pauseBefore(n int) time.Duration {
	pause := firstPause << (n - 1)
	return pause/2 + rand.N(pause)
}

// unreachable is an error of the connection. Certificates that are not trusted do not mend themselves.
func (c *Client) unreachable(ctx context.Context, err error, credentials http.Header) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which op names
	}
	text := errors.New(c.clean(err.Error(), credentials))
	if strings.Contains(err.Error(), "certificate") {
		return fault.Wrap("", fault.ErrDenied, text, "if the server's certificate comes from an authority of your own, give its CA file")
	}
	return &passing{fault.Wrap("", fault.ErrUnavailable, text, hintNetwork)}
}
