package kube

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/backstay/backstay/internal/fault"
)

// Patience with an API server that cannot be reached, starts, or has no time: about a minute, for as long as it takes to start one.
const (
	mostAttempts = 11
	firstPause   = 500 * time.Millisecond // before the second attempt; it doubles
	longestPause = 8 * time.Second
)

// patiently reads something, again where it may come out differently in a moment.
func (c *Cluster) patiently(ctx context.Context, read func() error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := read()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil: // whatever the server said last
			return context.Cause(ctx)
		case attempt >= c.attemptsAt(ctx, err):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// attemptsAt is how often something is read that fails with err.
func (c *Cluster) attemptsAt(ctx context.Context, err error) int {
	switch {
	case errors.Is(err, errPageSize) || unknownVersion(err):
		return 1 // the caller asks otherwise
	case !answered(err) || apierrors.IsTooManyRequests(err) || c.starting(ctx):
		return mostAttempts
	case apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err):
		return 2
	}
	return 1
}

// starting reports whether the API server says that it is not ready: until then it may lack kinds, and rights, that it has.
func (c *Cluster) starting(ctx context.Context) bool { return notReady(c.readiness(ctx)) }

// away reports whether err came about because the API server cannot be reached, or is not ready.
func (c *Cluster) away(ctx context.Context, err error) bool {
	if !errors.Is(err, fault.ErrUnavailable) || answered(err) {
		return false
	}
	now := c.readiness(ctx)
	return now != nil && (!answered(now) || notReady(now))
}

func (c *Cluster) readiness(ctx context.Context) error {
	return c.Discovery.RESTClient().Get().AbsPath("/readyz").MaxRetries(0).Do(ctx).Error()
}

func notReady(err error) bool {
	return apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
}
