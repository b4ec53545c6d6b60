package export

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// requestTime bounds requests that carry no file: lists, removals, copies.
const requestTime = 2 * time.Minute

// S3Options says where a bucket is and who asks. Without keys, those of the environment, of the shared configuration, of the machine
// or of the pod are taken.
type S3Options struct {
	Endpoint     string // host, or host:port; "" for AWS
	Bucket       string
	Region       string
	AccessKey    fault.Secret
	SecretKey    fault.Secret
	SessionToken fault.Secret
	Insecure     bool // plain http
	StorageClass string
	SourceTag    string // key of a tag on each object that holds its repository's URL; "" for none
	Scratch      string
}

// S3 is a bucket.
type S3 struct {
	client *minio.Client
	o      S3Options
	tags   map[string]string
}

// NewS3 checks the options; it does not ask the server.
func NewS3(o S3Options) (*S3, error) {
	const op = "open S3 export"
	if o.Bucket == "" {
		return nil, fault.New(op, fault.ErrInvalid, "it has no bucket", "")
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return nil, fault.New(op, fault.ErrInvalid, "one of the access key and the secret key is missing", "give both, or neither for those of the machine")
	}
	if o.Endpoint == "" {
		o.Endpoint = "s3.amazonaws.com"
	}
	client, err := minio.New(o.Endpoint, &minio.Options{
		Creds: s3Credentials(o), Secure: !o.Insecure, Region: o.Region, MaxRetries: 1, // again makes the others
	})
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "the endpoint is a host, or host:port, without https://")
	}
	return &S3{client: client, o: o}, nil
}

func s3Credentials(o S3Options) *credentials.Credentials {
	if o.AccessKey != "" {
		return credentials.NewStaticV4(o.AccessKey.Reveal(), o.SecretKey.Reveal(), o.SessionToken.Reveal())
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Timeout: 10 * time.Second}},
	})
}

// String names the bucket and where it is.
func (s *S3) String() string { return "s3://" + s.o.Bucket + " at " + s.o.Endpoint }

// Tagged returns the same bucket, whose objects get the tag that was asked for.
func (s *S3) Tagged(url string) Place {
	if s.o.SourceTag == "" {
		return s
	}
	tagged := *s
	tagged.tags = map[string]string{s.o.SourceTag: url}
	return &tagged
}

// do makes a call until it succeeds or fails for good.
func (s *S3) do(ctx context.Context, op, name string, limit time.Duration, call func(ctx context.Context) error) error {
	return again(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return s3Fault(op+" "+name+" in "+s.String(), call(ctx))
	})
}

// key is the name of an object.
func key(name string) string { return strings.TrimPrefix(path.Clean(name), "./") }

// prefix is what the names of all objects below a directory begin with.
func prefix(dir string) string {
	if k := key(dir); k != "." {
		return k + "/"
	}
	return ""
}

// List lists objects and common prefixes.
func (s *S3) List(ctx context.Context, dir string) (entries []point.Entry, err error) {
	err = s.do(ctx, "list", dir, requestTime, func(ctx context.Context) error {
		entries = nil
		return s.each(ctx, dir, false, func(o minio.ObjectInfo) error {
			switch name := strings.TrimPrefix(o.Key, prefix(dir)); {
			case strings.HasSuffix(name, "/"):
				entries = append(entries, dirEntry(strings.TrimSuffix(name, "/")))
			case name != "":
				entries = append(entries, fileEntry(name, o.Size, o.LastModified))
			}
			return nil
		})
	})
	return entries, err
}

func (s *S3) each(ctx context.Context, dir string, recursive bool, each func(o minio.ObjectInfo) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing where each fails
	for o := range s.client.ListObjects(ctx, s.o.Bucket, minio.ListObjectsOptions{Prefix: prefix(dir), Recursive: recursive}) {
		if o.Err != nil {
			return o.Err
		}
		if err := each(o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Walk lists all below a directory in as few requests as the server allows.
func (s *S3) Walk(ctx context.Context, dir string, each func(name string, e point.Entry) error) error {
	var all []minio.ObjectInfo
	err := s.do(ctx, "list", dir, requestTime, func(ctx context.Context) error {
		all = nil
		return s.each(ctx, dir, true, func(o minio.ObjectInfo) error {
			if !strings.HasSuffix(o.Key, "/") {
				all = append(all, o)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, o := range all {
		name := strings.TrimPrefix(o.Key, prefix(dir))
		if err := each(name, fileEntry(path.Base(name), o.Size, o.LastModified)); err != nil {
			return err
		}
	}
	return nil
}

// Open reads an object by blocks.
func (s *S3) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	var info minio.ObjectInfo
	err := s.do(ctx, "read", name, requestTime, func(ctx context.Context) (err error) {
		info, err = s.client.StatObject(ctx, s.o.Bucket, key(name), minio.StatObjectOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return newBlockFile(info.Size, func(from, n int64) (data []byte, err error) {
		err = s.do(ctx, "read", name, requestTime, func(ctx context.Context) error {
			var o minio.GetObjectOptions
			if err := o.SetRange(from, from+n-1); err != nil {
				return err
			}
			if err := o.SetMatchETag(info.ETag); err != nil {
				return err
			}
			r, _, _, err := (&minio.Core{Client: s.client}).GetObject(ctx, s.o.Bucket, key(name), o)
			if err != nil {
				return err
			}
			defer r.Close()
			data, err = io.ReadAll(io.LimitReader(r, n))
			return err
		})
		return data, err
	}), nil
}

// Put uploads an object. Servers make it visible when all of it has come.
func (s *S3) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	from, err := newSpool(s.o.Scratch, body)
	if err != nil {
		return 0, err
	}
	defer from.close()
	err = s.do(ctx, "write", name, transferTime(from.size), func(ctx context.Context) error {
		// A section can be read at any place: parts are sent from the disk, not from memory.
		_, err := s.client.PutObject(ctx, s.o.Bucket, key(name), from.content(), from.size, minio.PutObjectOptions{
			StorageClass: s.o.StorageClass, UserTags: s.tags, ContentType: "application/octet-stream",
		})
		return err
	})
	return from.size, err
}

// transferTime bounds the transfer of so many bytes: a server that takes less than 64 KiB a second is given up.
func transferTime(size int64) time.Duration {
	return requestTime + time.Duration(size/(64<<10))*time.Second
}

// MakeDir does nothing: buckets have no directories.
func (s *S3) MakeDir(ctx context.Context, _ string) error { return ctx.Err() }

// Remove removes an object, and all below the name.
func (s *S3) Remove(ctx context.Context, name string) error {
	names := []string{key(name)}
	err := s.Walk(ctx, name, func(below string, _ point.Entry) error {
		names = append(names, path.Join(key(name), below))
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		err := s.do(ctx, "remove", n, requestTime, func(ctx context.Context) error {
			return s.client.RemoveObject(ctx, s.o.Bucket, n, minio.RemoveObjectOptions{})
		})
		if err != nil && !errors.Is(err, fault.ErrNotFound) {
			return err
		}
	}
	return nil
}

// copyMost is how large an object the server copies in one call.
const copyMost = 5 << 30

// Copy has the server copy an object.
func (s *S3) Copy(ctx context.Context, from, to string) error {
	info, err := s.client.StatObject(ctx, s.o.Bucket, key(from), minio.StatObjectOptions{})
	if err != nil || info.Size > copyMost {
		return copyThrough(ctx, s, from, s, to)
	}
	return s.do(ctx, "copy to", to, transferTime(info.Size), func(ctx context.Context) error {
		metadata := map[string]string{}
		if s.o.StorageClass != "" {
			metadata["x-amz-storage-class"] = s.o.StorageClass
		}
		_, err := s.client.CopyObject(ctx, minio.CopyDestOptions{
			Bucket: s.o.Bucket, Object: key(to), UserMetadata: metadata, ReplaceMetadata: len(metadata) > 0,
			UserTags: s.tags, ReplaceTags: len(s.tags) > 0,
		}, minio.CopySrcOptions{Bucket: s.o.Bucket, Object: key(from)})
		return err
	})
}

func s3Fault(op string, err error) error {
	var answer minio.ErrorResponse
	if err == nil || !errors.As(err, &answer) {
		return networkFault(op, err)
	}
	switch answer.Code {
	case "NoSuchBucket":
		return fault.Wrap(op, fault.ErrInvalid, err, "make the bucket first")
	case "RequestTimeTooSkewed":
		return fault.Wrap(op, fault.ErrDenied, err, "set this machine's clock")
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded":
		return fault.Wrap(op, fault.ErrThrottled, err, "")
	case "XMinioStorageFull", "QuotaExceeded", "StorageFull":
		return fault.Wrap(op, fault.ErrRefused, err, spaceHint)
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException":
		return fault.Wrap(op, fault.ErrInvalid, err, "name the bucket's region")
	case "PreconditionFailed":
		return fault.Wrap(op, fault.ErrUnavailable, err, "")
	case "NoSuchKey", "NotFound":
		return fault.Wrap(op, fault.ErrNotFound, err, "")
	}
	return statusFault(op, answer.StatusCode, err)
}
