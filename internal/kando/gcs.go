package kando

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/backstay/backstay/internal/fault"
)

// gcsBucket is a bucket of Google Cloud Storage.
type gcsBucket struct {
	bucket *storage.BucketHandle
	name   string
}

func openGCS(d Document, _ func(string) string) (bucket, error) {
	const op = "open profile of the type gcs"
	key, err := gcsKey(d)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	// Only keys of service accounts: other documents of credentials name programs to run, or addresses to ask for tokens.
	options := []option.ClientOption{option.WithAuthCredentialsJSON(option.ServiceAccount, key), storage.WithJSONReads()}
	if d.Location.Endpoint != "" {
		options = append(options, option.WithEndpoint(d.Location.Endpoint))
	}
	client, err := storage.NewClient(context.Background(), options...)
	if err != nil {
		return nil, fault.New(op, fault.ErrInvalid, "the key of its service account is not accepted", "")
	}
	handle := client.Bucket(d.Location.Bucket).Retryer(storage.WithPolicy(storage.RetryAlways), storage.WithMaxAttempts(attempts))
	return &gcsBucket{handle, d.Location.Bucket}, nil
}

// gcsKey is the key of the profile's service account, as JSON.
func gcsKey(d Document) ([]byte, error) {
	var key []byte
	switch c := d.Credential; {
	case c.Type == CredentialKeyPair && c.KeyPair != nil:
		key = []byte(c.KeyPair.Secret)
	case c.Type == CredentialSecret && c.Secret != nil:
		if err := c.Secret.is("secrets.kanister.io/gcp"); err != nil {
			return nil, err
		}
		key = []byte(firstOf(c.Secret.value("service-account.json"), c.Secret.value("gcp_service_key")))
	default:
		return nil, noCredential(d)
	}
	var form struct{ Type string }
	if json.Unmarshal(key, &form) != nil || form.Type != "service_account" {
		return nil, fault.New("", fault.ErrInvalid, "its secret is not the JSON key of a service account", "")
	}
	return key, nil
}

func (b *gcsBucket) String() string { return "gs://" + b.name }

func (b *gcsBucket) begin(name string) upload { return &gcsUpload{b: b, name: name} }

// gcsUpload is a resumable upload. The library sends a chunk again that went wrong; the object is there when the writer is closed.
type gcsUpload struct {
	b      *gcsBucket
	name   string
	w      *storage.Writer
	cancel context.CancelFunc
}

func (u *gcsUpload) open(ctx context.Context) {
	ctx, u.cancel = context.WithCancel(ctx)
	u.w = u.b.bucket.Object(u.name).NewWriter(ctx)
	u.w.ContentType = "application/octet-stream"
	u.w.ChunkSize = partSize(1)
	u.w.ChunkRetryDeadline = requestTime
}

func (u *gcsUpload) whole(ctx context.Context, data []byte) error {
	if err := u.part(ctx, 1, data); err != nil {
		return errors.Join(err, u.abort(ctx))
	}
	return u.finish(ctx)
}

func (u *gcsUpload) part(ctx context.Context, _ int, data []byte) error {
	if u.w == nil {
		u.open(ctx)
	}
	_, err := io.Copy(u.w, bytes.NewReader(data))
	return gcsFault(err)
}

func (u *gcsUpload) finish(context.Context) error {
	defer u.cancel()
	return gcsFault(u.w.Close())
}

// abort ends the upload: what was sent is no object, and Google drops it.
func (u *gcsUpload) abort(context.Context) error {
	if u.w != nil {
		u.cancel()
		_ = u.w.Close() // which says that it was cancelled
	}
	return nil
}

func (b *gcsBucket) read(ctx context.Context, name string, w io.Writer) error {
	r, err := b.bucket.Object(name).NewReader(ctx)
	if err != nil {
		return gcsFault(err)
	}
	defer r.Close()         //nolint:errcheck // opened for reading
	_, err = copyFrom(w, r) // the reader goes on where a connection broke, and checks the sum of the object
	return gcsFault(err)
}

func (b *gcsBucket) list(ctx context.Context, prefix string, each func(string) error) error {
	objects := b.bucket.Objects(ctx, &storage.Query{Prefix: prefix})
	for {
		o, err := objects.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return gcsFault(err)
		}
		if err := each(o.Name); err != nil {
			return err
		}
	}
}

func (b *gcsBucket) remove(ctx context.Context, name string) error {
	return gcsFault(b.bucket.Object(name).Delete(ctx))
}

func gcsFault(err error) error {
	var answer *googleapi.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrObjectNotExist):
		return fault.Wrap("", fault.ErrNotFound, err, "")
	case errors.Is(err, storage.ErrBucketNotExist):
		return fault.Wrap("", fault.ErrInvalid, err, "make the bucket first")
	case errors.As(err, &answer):
		return statusFault(answer.Code, fmt.Errorf("%s (%d)", firstOf(answer.Message, http.StatusText(answer.Code)), answer.Code))
	}
	return networkFault(err)
}
