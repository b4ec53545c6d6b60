package git

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// saying tells what it means when git, ssh or a server says some words.
type saying struct {
	words string // lowercase
	kind  error
	hint  string
}

// hintNetwork goes with what has no better explanation than the network.
const hintNetwork = "check the address and the network, and try again"

// sayings, the more telling ones first.
var sayings = []saying{
	{"dubious ownership", fault.ErrDenied, "the repository belongs to another user: if you trust it, run git config --global --add safe.directory DIR"},
	{"remote host identification has changed", fault.ErrDenied, "the server's host key is not the known one: find out why before you trust it"},
	{"host key verification failed", fault.ErrDenied, "connect once with ssh to check and accept the server's host key"},
	{"permission denied", fault.ErrDenied, "check that the key or token may read this repository"},
	{"access denied", fault.ErrDenied, "check that the key or token may read this repository, and that the server exports it"},
	{"authentication failed", fault.ErrDenied, "check that the key or token may read this repository"},
	{"too many authentication failures", fault.ErrDenied, "name the right key in the ssh configuration"},
	{"not our ref", fault.ErrUnavailable, "the source changed meanwhile: try again"},
	{"does not appear to be a git repository", fault.ErrNotFound, ""},
	{"not a git repository", fault.ErrNotFound, ""},
	{"repository not exported", fault.ErrNotFound, ""},
	{"not found", fault.ErrNotFound, "check the URL; a repository that the key or token cannot see is not found either"},
	{"could not be found", fault.ErrNotFound, "check the URL; a repository that the key or token cannot see is not found either"},
	{"does not exist", fault.ErrNotFound, ""},
	{"could not resolve hostname", fault.ErrUnavailable, hintNetwork},
	{"possible repository corruption", fault.ErrCorrupt, "run git fsck in the source"},
	{"bad object", fault.ErrCorrupt, "run git fsck in the source"},
	{"missing blob", fault.ErrCorrupt, "run git fsck in the source"},
	{"lazy fetching disabled", fault.ErrUnsupported, "the source is a partial clone: back up the repository it was cloned from"},
	{"rate limit", fault.ErrThrottled, ""},
}

// classify gives an error of an exchange its class, where it has none yet.
func classify(err error) error {
	if fault.Of(err).Exit != 1 {
		return err
	}
	var program *programError
	var remote *remoteError
	switch {
	case errors.As(err, &remote):
		return heed(remote.said, err)
	case errors.As(err, &program):
		return heed(program.said, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, errHangUp):
		return fault.Wrap("", fault.ErrUnavailable, errHangUp, hintNetwork)
	case isCertificateError(err):
		return fault.Wrap("", fault.ErrDenied, err, "if the server's certificate comes from an authority of your own, give its CA file")
	}
	return fault.Wrap("", fault.ErrUnavailable, err, hintNetwork)
}

// heed finds the class of what somebody said; what is not known may pass.
func heed(said string, err error) error {
	said = strings.ToLower(said)
	for _, s := range sayings {
		if strings.Contains(said, s.words) {
			return fault.Wrap("", s.kind, err, s.hint)
		}
	}
	return fault.Wrap("", fault.ErrUnavailable, err, hintNetwork)
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}
