package kube

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/backstay/backstay/internal/fault"
)

// classOf is the class of what an API server, or the way to it, answered; nil for one that has a class already.
func classOf(err error) error {
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
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

// answered reports whether err is what an API server said, not that it could not be reached.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}
