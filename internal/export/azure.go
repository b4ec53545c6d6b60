package export

import (
	"context"
	"errors"
	"io"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// AzureOptions says where a container is and who asks: the Azure command line, a client of a tenant, or whoever holds a shared access
// signature, in this order.
type AzureOptions struct {
	URL          string // of the account
	Container    string
	UseCLI       bool
	TenantID     string
	ClientID     string
	ClientSecret fault.Secret
	SAS          fault.Secret // the query of a URL, with or without "?"
	Scratch      string
}

// Azure is a container of Azure Blob Storage.
type Azure struct {
	client *container.Client
	o      AzureOptions
	shown  string
}

// NewAzure checks the options; it does not ask the server.
func NewAzure(o AzureOptions) (*Azure, error) {
	const op = "open Azure export"
	u, err := url.Parse(o.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http", u.User != nil:
		return nil, fault.New(op, fault.ErrInvalid, "its URL is not of the form https://ACCOUNT.blob.core.windows.net", "")
	case o.Container == "":
		return nil, fault.New(op, fault.ErrInvalid, "it has no container", "")
	}
	if u.RawQuery != "" && o.SAS == "" { // as foreign files have it
		o.SAS = fault.Secret(u.RawQuery)
	}
	u.RawQuery, u.Fragment = "", ""
	u = u.JoinPath(o.Container)
	a := &Azure{o: o, shown: u.String()}
	options := &container.ClientOptions{ClientOptions: policy.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}} // again does
	credential, err := o.credential()
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	if credential != nil {
		a.client, err = container.NewClient(u.String(), credential, options)
	} else {
		u.RawQuery = strings.TrimPrefix(o.SAS.Reveal(), "?")
		a.client, err = container.NewClientWithNoCredential(u.String(), options)
	}
	if err != nil {
		return nil, fault.New(op, fault.ErrInvalid, fault.Redact(err.Error(), o.SAS, o.ClientSecret), "")
	}
	return a, nil
}

func (o AzureOptions) credential() (azcore.TokenCredential, error) {
	switch {
	case o.UseCLI:
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: o.TenantID})
	case o.TenantID != "" && o.ClientID != "" && o.ClientSecret != "":
		return azidentity.NewClientSecretCredential(o.TenantID, o.ClientID, o.ClientSecret.Reveal(), nil)
	}
	return nil, nil
}

// String is the container's URL.
func (a *Azure) String() string { return a.shown }

// do makes a call until it succeeds or fails for good. What the library says may hold the URL with its signature.
func (a *Azure) do(ctx context.Context, op, name string, limit time.Duration, call func(ctx context.Context) error) error {
	return again(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return a.fault(op+" "+name+" in "+a.shown, call(ctx))
	})
}

func (a *Azure) fault(op string, err error) error {
	var answer *azcore.ResponseError
	var authentication *azidentity.AuthenticationFailedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &authentication):
		return fault.New(op, fault.ErrDenied, "the credentials were not accepted", "check tenant, client and secret, or run `az login`")
	case errors.As(err, &answer) && answer.ErrorCode == "ContainerNotFound":
		return fault.New(op, fault.ErrInvalid, "there is no such container", "make the container first")
	case errors.As(err, &answer):
		return statusFault(op, answer.StatusCode, errors.New(answer.ErrorCode))
	}
	return networkFault(op, err)
}

// List lists blobs and prefixes.
func (a *Azure) List(ctx context.Context, dir string) (entries []point.Entry, err error) {
	err = a.do(ctx, "list", dir, requestTime, func(ctx context.Context) error {
		entries = nil
		p := prefix(dir)
		pages := a.client.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: &p})
		for pages.More() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, b := range page.Segment.BlobPrefixes {
				entries = append(entries, dirEntry(strings.TrimSuffix(strings.TrimPrefix(deref(b.Name), p), "/")))
			}
			for _, b := range page.Segment.BlobItems {
				entries = append(entries, blobEntry(b, strings.TrimPrefix(deref(b.Name), p)))
			}
		}
		return nil
	})
	return entries, err
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func blobEntry(b *container.BlobItem, name string) point.Entry {
	if b.Properties == nil {
		return fileEntry(name, 0, time.Time{})
	}
	return fileEntry(name, deref(b.Properties.ContentLength), deref(b.Properties.LastModified))
}

// Walk lists all below a directory in as few requests as the server allows.
func (a *Azure) Walk(ctx context.Context, dir string, each func(name string, e point.Entry) error) error {
	p := prefix(dir)
	var all []*container.BlobItem
	err := a.do(ctx, "list", dir, requestTime, func(ctx context.Context) error {
		all = nil
		pages := a.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &p})
		for pages.More() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			all = append(all, page.Segment.BlobItems...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range all {
		name := strings.TrimPrefix(deref(b.Name), p)
		if err := each(name, blobEntry(b, path.Base(name))); err != nil {
			return err
		}
	}
	return nil
}

// Open reads a blob by blocks.
func (a *Azure) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	client := a.client.NewBlobClient(key(name))
	var size int64
	var tag *azcore.ETag
	err := a.do(ctx, "read", name, requestTime, func(ctx context.Context) error {
		info, err := client.GetProperties(ctx, nil)
		size, tag = deref(info.ContentLength), info.ETag
		return err
	})
	if err != nil {
		return nil, err
	}
	return newBlockFile(size, func(from, n int64) (data []byte, err error) {
		err = a.do(ctx, "read", name, requestTime, func(ctx context.Context) error {
			r, err := client.DownloadStream(ctx, &blob.DownloadStreamOptions{
				Range:            blob.HTTPRange{Offset: from, Count: n},
				AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: tag}},
			})
			if err != nil {
				return err
			}
			defer r.Body.Close()
			data, err = io.ReadAll(io.LimitReader(r.Body, n))
			return err
		})
		return data, err
	}), nil
}

// oneUpload is the size up to which a blob goes up in one request; larger ones go in blocks, and are there once all have come.
const oneUpload = 64 << 20

// Put uploads a blob.
func (a *Azure) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	from, err := newSpool(a.o.Scratch, body)
	if err != nil {
		return 0, err
	}
	defer from.close()
	client := a.client.NewBlockBlobClient(key(name))
	err = a.do(ctx, "write", name, transferTime(from.size), func(ctx context.Context) error {
		if from.size <= oneUpload {
			_, err := client.Upload(ctx, streaming.NopCloser(from.content()), nil)
			return err
		}
		_, err := client.UploadFile(ctx, from.file, &blockblob.UploadFileOptions{BlockSize: max(8<<20, from.size/40_000), Concurrency: 2})
		return err
	})
	return from.size, err
}

// MakeDir does nothing: containers have no directories.
func (a *Azure) MakeDir(ctx context.Context, _ string) error { return ctx.Err() }

// Remove removes a blob, and all below the name.
func (a *Azure) Remove(ctx context.Context, name string) error {
	names := []string{key(name)}
	err := a.Walk(ctx, name, func(below string, _ point.Entry) error {
		names = append(names, path.Join(key(name), below))
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		err := a.do(ctx, "remove", n, requestTime, func(ctx context.Context) error {
			_, err := a.client.NewBlobClient(n).Delete(ctx, nil)
			return err
		})
		if err != nil && !errors.Is(err, fault.ErrNotFound) {
			return err
		}
	}
	return nil
}
