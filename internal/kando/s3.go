package kando

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/backstay/backstay/internal/fault"
)

// s3Bucket is a bucket of an S3 server.
type s3Bucket struct {
	core *minio.Core
	name string
}

func openS3(d Document, env func(string) string) (bucket, error) {
	const op = "open profile of the type s3Compliant"
	host, secure, err := s3Endpoint(d.Location.Endpoint)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	transport, err := transportOf(d, secure)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	creds, err := awsCredentials(d, env, transport)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	lookup := minio.BucketLookupAuto
	if d.Location.Endpoint != "" {
		lookup = minio.BucketLookupPath // what is not Amazon's seldom has a host name for each bucket
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds: creds, Secure: secure, Region: d.Location.Region, BucketLookup: lookup, Transport: transport, MaxRetries: 1, // again makes the others
	})
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	return &s3Bucket{core, d.Location.Bucket}, nil
}

// s3Endpoint takes an endpoint apart: a URL, or a host that speaks https.
func s3Endpoint(endpoint string) (host string, secure bool, err error) {
	if endpoint == "" {
		return "s3.amazonaws.com", true, nil
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", false, fault.New("", fault.ErrInvalid, "its endpoint is not of the form https://HOST:PORT", "")
	}
	return u.Host, u.Scheme == "https", nil
}

// transportOf makes the transport of a profile, which may say not to check certificates.
func transportOf(d Document, secure bool) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	if d.SkipSSLVerify {
		if transport.TLSClientConfig == nil {
			transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the profile asks for it
	}
	return transport, nil
}

// sessionTime is how long a role is assumed for.
const sessionTime = time.Hour

// awsCredentials are those of the profile: a key pair, or a Secret, which may name a role to assume. A Secret without keys takes the web
// identity that the cluster gives the pod.
func awsCredentials(d Document, env func(string) string, transport http.RoundTripper) (*credentials.Credentials, error) {
	switch c := d.Credential; {
	case c.Type == CredentialKeyPair && c.KeyPair != nil:
		return credentials.NewStaticV4(c.KeyPair.ID, c.KeyPair.Secret, ""), nil
	case c.Type == CredentialSecret && c.Secret != nil:
		return awsSecret(d, env, transport)
	}
	return nil, noCredential(d)
}

func noCredential(d Document) error {
	return fault.New("", fault.ErrInvalid, fmt.Sprintf("it has no credential of its type %q", d.Credential.Type), "keyPair or secret")
}

// value is a value of the Secret, "" where there is none.
func (s *Secret) value(key string) string { return strings.TrimSpace(string(s.Data[key])) }

func awsSecret(d Document, env func(string) string, transport http.RoundTripper) (*credentials.Credentials, error) {
	s := d.Credential.Secret
	if err := s.is("secrets.kanister.io/aws"); err != nil {
		return nil, err
	}
	id, key, token, role := s.value("aws_access_key_id"), s.value("aws_secret_access_key"), s.value("aws_session_token"), s.value("role")
	if id == "" || key == "" {
		if env("AWS_WEB_IDENTITY_TOKEN_FILE") == "" {
			return nil, fault.New("", fault.ErrDenied, "its Secret has no aws_access_key_id and aws_secret_access_key", "")
		}
		web := credentials.New(&credentials.IAM{Client: &http.Client{Timeout: requestTime, Transport: transport}})
		if role == "" || role == env("AWS_ROLE_ARN") {
			return web, nil
		}
		v, err := web.GetWithContext(nil)
		if err != nil {
			return nil, fault.Wrap("take web identity", fault.ErrDenied, err, "")
		}
		id, key, token = v.AccessKeyID, v.SecretAccessKey, v.SessionToken
	}
	if role == "" {
		return credentials.NewStaticV4(id, key, token), nil
	}
	region := firstOf(d.Location.Region, env("AWS_REGION"), env("AWS_DEFAULT_REGION"), "us-east-1")
	return credentials.New(&credentials.STSAssumeRole{
		Client:      &http.Client{Timeout: requestTime, Transport: transport},
		STSEndpoint: firstOf(env("AWS_ENDPOINT_URL_STS"), "https://sts."+region+".amazonaws.com"),
		Options: credentials.STSAssumeRoleOptions{
			AccessKey: id, SecretKey: key, SessionToken: token, Location: region,
			RoleARN: role, RoleSessionName: "backstay-kando", DurationSeconds: int(sessionTime.Seconds()),
		},
	}), nil
}

// is checks the type of the Secret.
func (s *Secret) is(want string) error {
	if s.Type == want {
		return nil
	}
	return fault.New("", fault.ErrInvalid, fmt.Sprintf("its Secret is of the type %q", s.Type), "the location wants "+want)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func (b *s3Bucket) String() string { return "s3://" + b.name + " at " + b.core.EndpointURL().Host }

func (b *s3Bucket) begin(name string) upload { return &s3Upload{b: b, name: name} }

// s3Upload is an upload in parts. The first part begins it.
type s3Upload struct {
	b     *s3Bucket
	name  string
	id    string
	parts []minio.CompletePart
	size  int64
}

func (u *s3Upload) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{ContentType: "application/octet-stream"}
}

func (u *s3Upload) whole(ctx context.Context, data []byte) error {
	return again(ctx, transferTime(len(data)), func(ctx context.Context) error {
		_, err := u.b.core.PutObject(ctx, u.b.name, u.name, bytes.NewReader(data), int64(len(data)), "", "", u.options())
		return s3Fault(err)
	})
}

func (u *s3Upload) part(ctx context.Context, number int, data []byte) error {
	if u.id == "" {
		err := again(ctx, requestTime, func(ctx context.Context) (err error) {
			u.id, err = u.b.core.NewMultipartUpload(ctx, u.b.name, u.name, u.options())
			return s3Fault(err)
		})
		if err != nil {
			return err
		}
	}
	return again(ctx, transferTime(len(data)), func(ctx context.Context) error {
		p, err := u.b.core.PutObjectPart(ctx, u.b.name, u.name, u.id, number, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{})
		if err != nil {
			return s3Fault(err)
		}
		u.parts, u.size = append(u.parts, minio.CompletePart{PartNumber: number, ETag: p.ETag}), u.size+int64(len(data))
		return nil
	})
}

func (u *s3Upload) finish(ctx context.Context) error {
	tried := false
	return again(ctx, requestTime, func(ctx context.Context) error {
		_, err := u.b.core.CompleteMultipartUpload(ctx, u.b.name, u.name, u.id, u.parts, u.options())
		err = s3Fault(err)
		if tried && errors.Is(err, fault.ErrNotFound) && u.there(ctx) {
			return nil // the first request did it; its answer was lost
		}
		tried = true
		return err
	})
}

// there reports whether the object is there as it was sent.
func (u *s3Upload) there(ctx context.Context) bool {
	info, err := u.b.core.StatObject(ctx, u.b.name, u.name, minio.StatObjectOptions{})
	return err == nil && info.Size == u.size && strings.HasSuffix(strings.Trim(info.ETag, `"`), fmt.Sprintf("-%d", len(u.parts)))
}

func (u *s3Upload) abort(ctx context.Context) error {
	if u.id == "" {
		return nil
	}
	err := again(ctx, requestTime, func(ctx context.Context) error {
		return s3Fault(u.b.core.AbortMultipartUpload(ctx, u.b.name, u.name, u.id))
	})
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}

// read goes on where a connection broke, with the same object.
func (b *s3Bucket) read(ctx context.Context, name string, w io.Writer) error {
	r := &s3Reading{b: b, name: name}
	for {
		before := r.done
		err := again(ctx, noLimit, func(ctx context.Context) error { return r.rest(ctx, w) })
		if err == nil || r.done == before || ctx.Err() != nil || !fault.Of(err).Retry {
			return err
		}
	}
}

type s3Reading struct {
	b    *s3Bucket
	name string
	tag  string // of the object that was begun
	done int64  // bytes written
}

func (r *s3Reading) rest(ctx context.Context, w io.Writer) error {
	var o minio.GetObjectOptions
	if r.done > 0 {
		if err := errors.Join(o.SetRange(r.done, 0), o.SetMatchETag(r.tag)); err != nil {
			return fmt.Errorf("set range: %w", err)
		}
	}
	body, info, _, err := r.b.core.GetObject(ctx, r.b.name, r.name, o)
	if answer := minio.ToErrorResponse(err); r.done > 0 && answer.Code == "InvalidRange" {
		return nil // the connection broke after the last byte
	}
	if err != nil {
		return s3Fault(err)
	}
	defer body.Close()
	if r.done == 0 {
		r.tag = info.ETag
	}
	n, err := copyFrom(w, body)
	r.done += n
	return err
}

func (b *s3Bucket) list(ctx context.Context, prefix string, each func(string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing where each fails
	for o := range b.core.Client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return s3Fault(o.Err)
		}
		if err := each(o.Key); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *s3Bucket) remove(ctx context.Context, name string) error {
	return again(ctx, requestTime, func(ctx context.Context) error {
		return s3Fault(b.core.RemoveObject(ctx, b.name, name, minio.RemoveObjectOptions{}))
	})
}

func s3Fault(err error) error {
	var answer minio.ErrorResponse
	if err == nil || !errors.As(err, &answer) {
		return networkFault(err)
	}
	switch answer.Code {
	case "NoSuchBucket":
		return fault.Wrap("", fault.ErrInvalid, err, "make the bucket first")
	case "RequestTimeTooSkewed":
		return fault.Wrap("", fault.ErrDenied, err, "set this machine's clock")
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded":
		return fault.Wrap("", fault.ErrThrottled, err, "")
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException":
		return fault.Wrap("", fault.ErrInvalid, err, "name the bucket's region in the profile")
	case "NoSuchKey", "NotFound", "NoSuchUpload":
		return fault.Wrap("", fault.ErrNotFound, err, "")
	}
	return statusFault(answer.StatusCode, err)
}
