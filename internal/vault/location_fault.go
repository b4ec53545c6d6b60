package vault

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/studio-b12/gowebdav"
	"golang.org/x/crypto/ssh/knownhosts"
	"google.golang.org/api/googleapi"

	"github.com/backstay/backstay/internal/fault"
)

// providerClass finds the class of an error from a location, and a hint; nil where it knows none. The order matters: what a server
// answered says more than how the call ended.
func providerClass(err error) (kind error, hint string) {
	for _, class := range []func(error) (error, string){serverClass, systemClass, networkClass} {
		if kind, hint = class(err); kind != nil {
			return kind, hint
		}
	}
	return nil, ""
}

// serverClass reads the answers of servers, each library's own type of them.
func serverClass(err error) (kind error, hint string) {
	var s3 minio.ErrorResponse
	var azure *azcore.ResponseError
	var google *googleapi.Error
	var dav gowebdav.StatusError
	switch {
	case errors.As(err, &s3):
		return s3Class(s3)
	case errors.As(err, &azure):
		if azure.ErrorCode == "BlobImmutableDueToPolicy" {
			return fault.ErrLocked, ""
		}
		return statusClass(azure.StatusCode)
	case errors.As(err, &google):
		return statusClass(google.Code)
	case errors.As(err, &dav):
		return statusClass(dav.Status)
	case errors.Is(err, blob.ErrInvalidCredentials):
		return fault.ErrDenied, "the credentials have expired"
	case errors.Is(err, blob.ErrUnsupportedObjectLock), errors.Is(err, blob.ErrUnsupportedPutBlobOption):
		return fault.ErrUnsupported, "object lock needs an s3, gs or azblob location"
	case strings.Contains(err.Error(), "bucket doesn't exist"): // storage.ErrBucketNotExist of Google's library
		return fault.ErrNotFound, "make the bucket first"
	case strings.Contains(err.Error(), "could not find default credentials"): // also Google's
		return fault.ErrDenied, "set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials"
	}
	return nil, ""
}

func s3Class(e minio.ErrorResponse) (kind error, hint string) {
	message := strings.ToLower(e.Message)
	switch {
	case strings.Contains(message, "worm protected"), strings.Contains(message, "object lock") && e.StatusCode == http.StatusForbidden:
		return fault.ErrLocked, "" // 400 from MinIO, 403 from others
	case strings.Contains(message, "object lock") && e.StatusCode == http.StatusBadRequest,
		e.Code == "InvalidBucketState", e.Code == "ObjectLockConfigurationNotFoundError":
		return fault.ErrUnsupported, "object lock is switched on when a bucket is made"
	}
	switch e.Code {
	case "NoSuchBucket":
		return fault.ErrNotFound, "make the bucket first"
	case "RequestTimeTooSkewed":
		return fault.ErrDenied, "set this machine's clock"
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded":
		return fault.ErrThrottled, ""
	case "XMinioStorageFull", "QuotaExceeded", "StorageFull":
		return fault.ErrRefused, spaceHint
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException":
		return fault.ErrInvalid, "name the bucket's region with ?region="
	}
	return statusClass(e.StatusCode)
}

const spaceHint = "the store is full: free or add space"

func statusClass(status int) (kind error, hint string) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fault.ErrDenied, "check the credentials and what they permit"
	case http.StatusNotFound, http.StatusGone:
		return fault.ErrNotFound, ""
	case http.StatusTooManyRequests:
		return fault.ErrThrottled, ""
	case http.StatusInsufficientStorage:
		return fault.ErrRefused, spaceHint
	}
	if status >= http.StatusInternalServerError || status == http.StatusRequestTimeout {
		return fault.ErrUnavailable, ""
	}
	return nil, ""
}

func systemClass(err error) (kind error, hint string) {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fault.ErrRefused, "the disk is mounted read-only"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.ErrRefused, spaceHint
	case errors.Is(err, fs.ErrPermission):
		return fault.ErrDenied, "check who owns the directory and what its mode permits"
	case errors.Is(err, fs.ErrNotExist):
		return fault.ErrNotFound, ""
	case errors.Is(err, syscall.ENOTDIR):
		return fault.ErrInvalid, "a part of the path is not a directory"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		return fault.ErrUnavailable, "the disk or its server fails"
	}
	return nil, ""
}

func networkClass(err error) (kind error, hint string) {
	var unknownHost *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &unknownHost), errors.As(err, &revoked):
		return fault.ErrDenied, unknownHostHint
	case errors.As(err, &authority), errors.As(err, &name):
		return fault.ErrDenied, "the server's certificate is not trusted; for S3 AWS_CA_BUNDLE names a file of more authorities"
	case strings.Contains(err.Error(), "ssh: unable to authenticate"), strings.Contains(err.Error(), "ssh: this private key"):
		return fault.ErrDenied, "check the user, and BACKSTAY_SFTP_KEYFILE (a key without passphrase) or BACKSTAY_SFTP_PASSWORD"
	case errors.As(err, &dns) && dns.IsNotFound:
		return fault.ErrUnavailable, "there is no host of that name"
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNRESET):
		return fault.ErrUnavailable, ""
	}
	return nil, ""
}

// plain cuts the chain of prefixes down to the error at its root where the prefixes are a library's inner life: kopia's SFTP
// provider prints its whole client configuration into one of them.
func plain(err error) error {
	if !strings.Contains(err.Error(), "&ssh.ClientConfig{") {
		return err
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
