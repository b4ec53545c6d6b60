package git

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// tries is how often something is tried that fails for reasons that may pass.
const tries = 3

// maxRetryAfter is the longest time that a server can make us wait between two tries.
const maxRetryAfter = 30 * time.Second

// retrying calls f again, three times in all, while passes says of its error that it may pass.
func retrying(ctx context.Context, wait time.Duration, passes func(error) bool, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == tries || ctx.Err() != nil || !passes(err) {
			return err
		}
		if err := pause(ctx, err, wait); err != nil {
			return err
		}
		wait *= 3
	}
}

// isHiccup reports whether a server is there but cannot answer right now. A server that cannot be reached is none.
func isHiccup(err error) bool {
	var status *statusError
	return fault.Of(err).Retry && (errors.As(err, &status) || errors.Is(err, errHangUp) || errors.Is(err, syscall.ECONNRESET))
}

// passesInTime reports whether err is of a class that passes without anybody changing anything.
func passesInTime(err error) bool { return fault.Of(err).Retry }

// pause waits before the next try after err: as long as the server asks, where that is bearable. Where it is not, pause returns err.
func pause(ctx context.Context, err error, wait time.Duration) error {
	var status *statusError
	if errors.As(err, &status) {
		if status.retryAfter > maxRetryAfter {
			return err
		}
		wait = max(wait, status.retryAfter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
