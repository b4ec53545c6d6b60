package worker

import (
	"errors"
	"net"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/backstay/backstay/internal/fault"
)

// classOf is the class of an answer of the API server; nil where the error has one, or none fits.
func classOf(err error) error {
	switch {
	case fault.Of(err).Exit != 1:
		return nil
	case apierrors.IsNotFound(err):
		return fault.ErrNotFound
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fault.ErrDenied
	case apierrors.IsAlreadyExists(err):
		return fault.ErrExists
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fault.ErrInvalid
	case transient(err):
		return fault.ErrUnavailable
	}
	return nil
}

// transient reports whether the API server may answer otherwise in a moment.
func transient(err error) bool {
	var network net.Error
	return errors.As(err, &network) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err)
}

func isConflict(err error) bool { return apierrors.IsConflict(err) }

// errLeaseLost ends work on an application that another may have begun to work on.
var errLeaseLost = fault.New("hold the application", fault.ErrBusy, "the lease was lost", "")
