package worker

import (
	"context"
	"errors"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/backstay/backstay/internal/fault"
)

// errLeaseLost ends work on an application that another may have begun to work on.
var errLeaseLost = fault.New("hold the application", fault.ErrBusy, "the lease was lost", "")

// errEnded ends work on what the controller has ended as failed.
var errEnded = fault.New("write the status", fault.ErrRefused, "the controller has ended it", "")

// tooLong ends work for good whose time is over.
type tooLong struct {
	op       string
	deadline time.Duration
}

func (t *tooLong) Error() string { return t.op + ": it took longer than " + t.deadline.String() }

// overdue is err, or where it came about because the time is over, that.
func overdue(ctx context.Context, err error) error {
	var over *tooLong
	if err != nil && errors.As(context.Cause(ctx), &over) {
		return over
	}
	return err
}

// again reports whether work that ended with err should be taken up by another process: this one was told to stop, or something was
// away that may be back.
func again(ctx context.Context, err error) bool {
	var over *tooLong
	if errors.As(context.Cause(ctx), &over) {
		return false
	}
	return ctx.Err() != nil || fault.Of(err).Retry
}

// reasonOf is the reason that a condition gives for err.
func reasonOf(err error) string {
	var over *tooLong
	if errors.As(err, &over) {
		return batchv1.JobReasonDeadlineExceeded
	}
	return fault.Of(err).Reason
}
