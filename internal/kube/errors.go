package kube

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/backstay/backstay/internal/fault"
)

// ClassOf is the class of what an API server, or the way to it, answered; nil for an error that has one already.
func ClassOf(err error) error {
	const none = 1 // exit status of errors without a class
	switch {
	case fault.Of(err).Exit != none:
		return nil
	case apierrors.IsNotFound(err):
		return fault.ErrNotFound
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return fault.ErrDenied
	case apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err):
		return fault.ErrExists
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		return fault.ErrInvalid
	case apierrors.IsMethodNotSupported(err):
		return fault.ErrUnsupported
	case apierrors.IsTooManyRequests(err):
		return fault.ErrThrottled
	}
	return fault.ErrUnavailable
}

// Transient reports whether an API server may answer otherwise in a moment: it cannot be reached, starts, or has no time.
func Transient(err error) bool {
	return err != nil && !answered(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err)
}

// answered reports whether err is what an API server said, not that it could not be reached.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}
