package kando

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/backstay/backstay/internal/fault"
)

// azureBucket is a container of Azure Blob Storage.
type azureBucket struct {
	client *container.Client
	shown  string
}

// azureAccount is who asks: with the key of the account, or with a shared access signature that the cluster has put into a file.
type azureAccount struct{ name, key, signature, environment string }

func openAzure(d Document, env func(string) string) (bucket, error) {
	const op = "open profile of the type azure"
	a, err := azureCredential(d, env)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	u, err := a.url(d.Location)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	transport, err := transportOf(d, u.Scheme == "https")
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	options := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: -1}, Transport: &http.Client{Transport: transport}, // again does
	}}
	b := &azureBucket{shown: u.String()}
	if a.signature != "" {
		u.RawQuery = strings.TrimPrefix(a.signature, "?")
		b.client, err = container.NewClientWithNoCredential(u.String(), options)
	} else {
		var key *container.SharedKeyCredential
		if key, err = container.NewSharedKeyCredential(a.name, a.key); err == nil {
			b.client, err = container.NewClientWithSharedKeyCredential(u.String(), key, options)
		}
	}
	if err != nil {
		return nil, fault.New(op, fault.ErrInvalid, "its account and key are not accepted", "the key is base64")
	}
	return b, nil
}

func azureCredential(d Document, env func(string) string) (a azureAccount, err error) {
	switch c := d.Credential; {
	case c.Type == CredentialKeyPair && c.KeyPair != nil:
		a = azureAccount{name: c.KeyPair.ID, key: c.KeyPair.Secret}
	case c.Type == CredentialSecret && c.Secret != nil:
		if err := c.Secret.is("secrets.kanister.io/azure"); err != nil {
			return a, err
		}
		a = azureAccount{
			name: c.Secret.value("azure_storage_account_id"), key: c.Secret.value("azure_storage_key"),
			environment: c.Secret.value("azure_storage_environment"),
		}
		if strings.EqualFold(c.Secret.value("azure_federated_identity"), "true") {
			a.signature, err = signatureOf(env)
		}
	default:
		err = noCredential(d)
	}
	if err == nil && (a.name == "" || a.key == "" && a.signature == "") {
		err = fault.New("", fault.ErrDenied, "the storage account or its key is missing", "")
	}
	return a, err
}

// signatureOf reads the file in which a cluster that uses workload identities hands out signatures.
func signatureOf(env func(string) string) (string, error) {
	const variable = "AZURE_SAS_TOKEN_FILE"
	op := "read " + variable
	name := env(variable)
	if name == "" {
		return "", fault.New(op, fault.ErrDenied, "it is not set", "the profile uses a workload identity")
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fault.Wrap(op, fault.ErrDenied, err, "")
	}
	return strings.TrimSpace(string(b)), nil
}

// url is that of the container.
func (a azureAccount) url(l Location) (*url.URL, error) {
	domain, known := map[string]string{
		"": "core.windows.net", "AzurePublicCloud": "core.windows.net", "AzureChinaCloud": "core.chinacloudapi.cn",
		"AzureUSGovernmentCloud": "core.usgovcloudapi.net",
	}[a.environment]
	if !known {
		return nil, fault.New("", fault.ErrInvalid, fmt.Sprintf("unknown Azure environment %q", a.environment), "")
	}
	u, err := url.Parse(firstOf(l.Endpoint, "https://"+a.name+".blob."+domain))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return nil, fault.New("", fault.ErrInvalid, "its endpoint is not of the form https://ACCOUNT.blob.core.windows.net", "")
	}
	return u.JoinPath(l.Bucket), nil
}

func (b *azureBucket) String() string { return b.shown }

func (b *azureBucket) begin(name string) upload {
	return &azureUpload{client: b.client.NewBlockBlobClient(name)}
}

// azureUpload is a blob in blocks. Azure drops blocks that nobody commits after a week.
type azureUpload struct {
	client *blockblob.Client
	ids    []string
}

func (u *azureUpload) whole(ctx context.Context, data []byte) error {
	return again(ctx, transferTime(len(data)), func(ctx context.Context) error {
		_, err := u.client.Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), nil)
		return azureFault(err)
	})
}

func (u *azureUpload) part(ctx context.Context, number int, data []byte) error {
	id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", number)) // all of one length
	u.ids = append(u.ids, id)
	return again(ctx, transferTime(len(data)), func(ctx context.Context) error {
		_, err := u.client.StageBlock(ctx, id, streaming.NopCloser(bytes.NewReader(data)), nil)
		return azureFault(err)
	})
}

func (u *azureUpload) finish(ctx context.Context) error {
	return again(ctx, requestTime, func(ctx context.Context) error {
		_, err := u.client.CommitBlockList(ctx, u.ids, nil)
		return azureFault(err)
	})
}

func (u *azureUpload) abort(context.Context) error { return nil }

func (b *azureBucket) read(ctx context.Context, name string, w io.Writer) error {
	var answer blob.DownloadStreamResponse
	err := again(ctx, noLimit, func(ctx context.Context) (err error) {
		answer, err = b.client.NewBlobClient(name).DownloadStream(context.WithoutCancel(ctx), nil) // the body is read later
		return azureFault(err)
	})
	if err != nil {
		return err
	}
	body := answer.NewRetryReader(ctx, &blob.RetryReaderOptions{MaxRetries: attempts}) // of the same blob
	defer body.Close()                                                                 //nolint:errcheck // opened for reading
	_, err = copyFrom(w, body)
	return err
}

func (b *azureBucket) list(ctx context.Context, prefix string, each func(string) error) error {
	pages := b.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix})
	for pages.More() {
		var page container.ListBlobsFlatResponse
		err := again(ctx, requestTime, func(ctx context.Context) (err error) {
			page, err = pages.NextPage(ctx)
			return azureFault(err)
		})
		if err != nil {
			return err
		}
		for _, item := range page.Segment.BlobItems {
			if item.Name == nil {
				continue
			}
			if err := each(*item.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *azureBucket) remove(ctx context.Context, name string) error {
	return again(ctx, requestTime, func(ctx context.Context) error {
		_, err := b.client.NewBlobClient(name).Delete(ctx, nil)
		return azureFault(err)
	})
}

// azureFault gives an error its class. What the library says may hold the URL with its signature.
func azureFault(err error) error {
	var answer *azcore.ResponseError
	switch {
	case errors.As(err, &answer) && answer.ErrorCode == "ContainerNotFound":
		return fault.New("", fault.ErrInvalid, "there is no such container", "make the container first")
	case errors.As(err, &answer):
		return statusFault(answer.StatusCode, fmt.Errorf("%s (%d)", answer.ErrorCode, answer.StatusCode))
	}
	return networkFault(err)
}
