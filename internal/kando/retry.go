package kando

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// A request is made so often, with pauses that double: a server may be away for a minute.
const (
	attempts = 7
	pause    = 500 * time.Millisecond
)

// requestTime bounds requests that carry no data.
const requestTime = 2 * time.Minute

// noLimit is for transfers whose length nobody knows: the caller's context bounds them.
const noLimit = 100 * 365 * 24 * time.Hour

// transferTime bounds the transfer of so many bytes: a server that takes less than 64 KiB a second is given up.
func transferTime(size int) time.Duration {
	return requestTime + time.Duration(size/(64<<10))*time.Second
}

// again makes a call until it succeeds or fails for good. Each has the time that limit says.
func again(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	wait := pause
	for n := 1; ; n++ {
		err := within(ctx, limit, call)
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if err == nil || n == attempts || !fault.Of(err).Retry {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
		wait *= 2
	}
}

func within(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return call(ctx)
}

// statusFault gives an answer of a server its class.
func statusFault(status int, cause error) error {
	kind, hint := fault.ErrRefused, ""
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		kind, hint = fault.ErrDenied, "check the profile's credentials and what they permit"
	case status == http.StatusNotFound, status == http.StatusGone:
		kind = fault.ErrNotFound
	case status == http.StatusTooManyRequests:
		kind = fault.ErrThrottled
	case status == http.StatusNotImplemented, status == http.StatusMethodNotAllowed:
		kind, hint = fault.ErrUnsupported, "check the profile's endpoint"
	case status == http.StatusRequestTimeout, status >= http.StatusInternalServerError && status != http.StatusInsufficientStorage:
		kind = fault.ErrUnavailable
	}
	return fault.Wrap("", kind, cause, hint)
}

// networkFault gives an error of a connection its class. The URL that net/http puts into its errors may carry a signature: it is cut.
func networkFault(err error) error {
	var request *url.Error
	lost := errors.As(err, &request)
	if lost {
		err = request.Err
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), fault.Of(err).Exit != 1:
		return err
	case errors.As(err, &authority), errors.As(err, &name):
		return fault.Wrap("", fault.ErrDenied, err, "the server's certificate is not trusted: see skipSSLVerify of the profile")
	case lost, errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return fault.Wrap("", fault.ErrUnavailable, err, "")
	}
	return fault.Wrap("", fault.ErrRefused, err, "")
}

// copyFrom writes what a server sends to w. It tells an error of the connection, after which one may go on, from one of w.
func copyFrom(w io.Writer, body io.Reader) (done int64, err error) {
	buffer := make([]byte, 256<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return done, err
			}
			done += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, networkFault(err)
		}
	}
}
