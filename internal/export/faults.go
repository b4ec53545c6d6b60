package export

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/backstay/backstay/internal/fault"
)

const spaceHint = "the place is full: free or add space"

// systemFault gives an error of the disk its class.
func systemFault(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case fault.Of(err).Exit != 1:
		return fault.Wrap(op, nil, err, "")
	case errors.Is(err, syscall.EROFS):
		return fault.Wrap(op, fault.ErrRefused, err, "the disk is mounted read-only")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fault.Wrap(op, fault.ErrRefused, err, spaceHint)
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(op, fault.ErrDenied, err, "check who owns the directory and what its mode permits")
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(op, fault.ErrNotFound, err, "")
	case errors.Is(err, fs.ErrExist):
		return fault.Wrap(op, fault.ErrExists, err, "")
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		return fault.Wrap(op, fault.ErrUnavailable, err, "the disk or its server fails")
	}
	return fault.Wrap(op, fault.ErrRefused, err, "")
}

// isNoDir tells whether err says that a part of a path is a file.
func isNoDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// statusFault gives an answer of a server its class; nil for one that is no error.
func statusFault(op string, status int, cause error) error {
	kind, hint := error(nil), ""
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		kind, hint = fault.ErrDenied, "check the credentials and what they permit"
	case status == http.StatusNotFound, status == http.StatusGone:
		kind = fault.ErrNotFound
	case status == http.StatusTooManyRequests:
		kind = fault.ErrThrottled
	case status == http.StatusInsufficientStorage, status == http.StatusRequestEntityTooLarge:
		kind, hint = fault.ErrRefused, spaceHint
	case status == http.StatusLocked:
		kind = fault.ErrBusy
	case status == http.StatusNotImplemented, status == http.StatusMethodNotAllowed:
		kind, hint = fault.ErrUnsupported, "check that the URL leads to what the export names"
	case status == http.StatusRequestTimeout, status >= http.StatusInternalServerError:
		kind = fault.ErrUnavailable
	case status >= http.StatusBadRequest:
		kind = fault.ErrRefused
	default:
		return networkFault(op, cause)
	}
	return fault.Wrap(op, kind, cause, hint)
}

// networkFault gives an error of a connection its class. The URL that net/http puts into its errors may carry a signature: it is cut.
func networkFault(op string, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), fault.Of(err).Exit != 1:
		return fault.Wrap(op, nil, err, "")
	case errors.As(err, &authority), errors.As(err, &name):
		return fault.Wrap(op, fault.ErrDenied, err, "the server's certificate is not trusted")
	case errors.As(err, &dns) && dns.IsNotFound:
		return fault.Wrap(op, fault.ErrUnavailable, err, "there is no host of that name")
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(op, fault.ErrUnavailable, err, "")
	}
	return fault.Wrap(op, fault.ErrRefused, err, "")
}
