package vault

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/azure"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/blob/gcs"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/kopia/kopia/repo/blob/sftp"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/kopia/kopia/repo/blob/webdav"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/studio-b12/gowebdav"

	"github.com/backstay/backstay/internal/fault"
)

// openTimeout bounds the first exchange with a server, which its client library repeats many times.
const openTimeout = 20 * time.Second

// storage opens the store behind a location. With create a missing directory is made (mode 0700); buckets and containers are never
// made. The result holds credentials: its ConnectionInfo must never be written anywhere.
//
// A location that is not there gives fault.ErrNotFound, one that cannot be reached fault.ErrUnavailable, one that refuses us
// fault.ErrDenied.
func (l Location) storage(ctx context.Context, env func(string) string, create bool) (blob.Storage, error) {
	st, err := l.inTime(ctx, env, create)
	if err == nil {
		return st, nil
	}
	return nil, storageFault("open location "+l.String(), plain(err))
}

// inTime gives the provider openTimeout. Its context is not cancelled after success, because some clients keep it.
func (l Location) inTime(ctx context.Context, env func(string) string, create bool) (blob.Storage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(openTimeout, func() {
		cancel(fault.New("", fault.ErrUnavailable, "no answer within "+openTimeout.String(), ""))
	})
	st, err := l.provider(ctx, env, create)
	inTime := timer.Stop()
	cause := context.Cause(ctx)
	switch {
	case err == nil && inTime:
		return st, nil
	case err == nil:
		_ = st.Close(ctx) // it came too late to be of use
		err = cause
	case cause != nil:
		err = cause // what the library says is only that it was cancelled
	}
	cancel(nil)
	return nil, err
}

func (l Location) provider(ctx context.Context, env func(string) string, create bool) (blob.Storage, error) {
	switch l.scheme {
	case schemeFile:
		return openDirectory(ctx, l.path, create)
	case schemeS3:
		return openS3(ctx, l, env)
	case schemeGCS:
		return gcs.New(ctx, gcsOptions(l, env), create)
	case schemeAzure:
		o, err := azureOptions(l, env)
		if err != nil {
			return nil, err
		}
		return azure.New(ctx, o, create)
	case schemeSFTP:
		o, err := sftpOptions(l, env)
		if err != nil {
			return nil, err
		}
		return sftp.New(ctx, o, create)
	case schemeWebDAV, schemeWebDAVS:
		return openWebDAV(ctx, l, env, create)
	}
	return nil, invalidLocation("it is empty", "")
}

// layout is how blobs are spread over directories. A vault notes it in its file .shards; where that is lost, kopia would take one
// layout for making a vault and another for opening it, and find nothing.
func layout() sharded.Options { return sharded.Options{DirectoryShards: []int{1, 3}} }

// prefix is what the names of all blobs in a bucket begin with.
func (l Location) prefix() string {
	if l.path == "" {
		return ""
	}
	return l.path + "/"
}

func openDirectory(ctx context.Context, dir string, create bool) (blob.Storage, error) {
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New("", fault.ErrNotFound, "there is no such directory",
			"create a vault there with `backstay location create`, or mount the disk")
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fault.New("", fault.ErrInvalid, "it is not a directory", "")
	}
	return filesystem.New(ctx, &filesystem.Options{Path: dir, Options: layout()}, create)
}

// openS3 also asks the bucket for its names, because the provider takes a bucket that is not there for an empty one.
func openS3(ctx context.Context, l Location, env func(string) string) (blob.Storage, error) {
	o, err := s3Options(l, env)
	if err != nil {
		return nil, err
	}
	st, err := s3.New(ctx, o, false)
	if err != nil {
		return nil, err
	}
	err = st.ListBlobs(ctx, "kopia.repository", func(blob.Metadata) error { return nil })
	if err != nil {
		return nil, errors.Join(err, st.Close(ctx))
	}
	return st, nil
}

func s3Options(l Location, env func(string) string) (*s3.Options, error) {
	o := &s3.Options{
		BucketName:  l.host,
		Prefix:      l.prefix(),
		Endpoint:    l.option("endpoint"),
		Region:      firstOf(l.option("region"), env("AWS_REGION"), env("AWS_DEFAULT_REGION")),
		DoNotUseTLS: l.option("tls") == "false",
	}
	if o.Endpoint == "" {
		o.Endpoint = "s3.amazonaws.com"
	}
	if file := env("AWS_CA_BUNDLE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fault.Wrap("read AWS_CA_BUNDLE", fault.ErrInvalid, err, "")
		}
		o.RootCA = pem
	}
	return o, s3Credentials(o, env)
}

// s3Credentials fills in what the environment or the shared credentials file says. Where both are silent the provider goes on to
// the web identity, container and instance roles.
func s3Credentials(o *s3.Options, env func(string) string) error {
	id, key := env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")
	if (id == "") != (key == "") {
		return fault.New("read credentials", fault.ErrInvalid, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set", "set both")
	}
	if id != "" && env("AWS_PROFILE") == "" {
		o.AccessKeyID, o.SecretAccessKey, o.SessionToken = id, key, env("AWS_SESSION_TOKEN")
		return nil
	}
	profile := firstOf(env("AWS_PROFILE"), "default")
	file := firstOf(env("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(env("HOME"), ".aws", "credentials"))
	if _, err := os.Stat(file); err != nil && env("AWS_PROFILE") == "" && env("AWS_SHARED_CREDENTIALS_FILE") == "" {
		return nil
	}
	v, err := credentials.NewFileAWSCredentials(file, profile).GetWithContext(nil)
	if err != nil {
		return fault.Wrap("read credentials of profile "+profile, fault.ErrInvalid, err, "check AWS_PROFILE and "+file)
	}
	o.AccessKeyID, o.SecretAccessKey, o.SessionToken = v.AccessKeyID, v.SecretAccessKey, v.SessionToken
	return nil
}

// gcsOptions leaves the credentials to Google's own chain, which knows all kinds of them, unless they come from elsewhere than the
// process's environment.
func gcsOptions(l Location, env func(string) string) *gcs.Options {
	const variable = "GOOGLE_APPLICATION_CREDENTIALS"
	o := &gcs.Options{BucketName: l.host, Prefix: l.prefix()}
	if file := env(variable); file != os.Getenv(variable) {
		o.ServiceAccountCredentialsFile = file
	}
	return o
}

func azureOptions(l Location, env func(string) string) (*azure.Options, error) {
	o := &azure.Options{
		Container:               l.host,
		Prefix:                  l.prefix(),
		StorageAccount:          firstOf(l.option("account"), env("AZURE_STORAGE_ACCOUNT")),
		StorageKey:              env("AZURE_STORAGE_KEY"),
		SASToken:                env("AZURE_STORAGE_SAS_TOKEN"),
		TenantID:                env("AZURE_TENANT_ID"),
		ClientID:                env("AZURE_CLIENT_ID"),
		ClientSecret:            env("AZURE_CLIENT_SECRET"),
		AzureFederatedTokenFile: env("AZURE_FEDERATED_TOKEN_FILE"),
		StorageDomain:           l.option("domain"),
		DoNotUseTLS:             l.option("tls") == "false",
	}
	if o.StorageAccount == "" {
		return nil, fault.New("", fault.ErrInvalid, "no storage account is named", "set AZURE_STORAGE_ACCOUNT or add ?account=NAME")
	}
	principal := o.TenantID != "" && o.ClientID != "" && (o.ClientSecret != "" || o.AzureFederatedTokenFile != "")
	if o.StorageKey == "" && o.SASToken == "" && !principal {
		return nil, fault.New("", fault.ErrDenied, "no credentials for the storage account", "set AZURE_STORAGE_KEY, "+
			"AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE")
	}
	return o, nil
}

func sftpOptions(l Location, env func(string) string) (*sftp.Options, error) {
	host, port := l.host, 22
	if h, p, err := net.SplitHostPort(l.host); err == nil {
		host = h
		if port, err = strconv.Atoi(p); err != nil {
			return nil, err
		}
	}
	ssh := filepath.Join(env("HOME"), ".ssh")
	o := &sftp.Options{
		Path: l.path, Host: host, Port: port,
		Username:       firstOf(l.user, env("USER"), env("LOGNAME")),
		Password:       env("BACKSTAY_SFTP_PASSWORD"),
		Options:        layout(),
		KnownHostsFile: firstOf(env("BACKSTAY_SFTP_KNOWN_HOSTS"), filepath.Join(ssh, "known_hosts")),
	}
	if o.Username == "" {
		return nil, fault.New("", fault.ErrInvalid, "no user is named", "write sftp://user@host/path")
	}
	if _, err := os.Stat(o.KnownHostsFile); err != nil {
		return nil, fault.Wrap("read known hosts", fault.ErrDenied, err, unknownHostHint)
	}
	if o.Password != "" {
		return o, nil
	}
	if o.Keyfile = env("BACKSTAY_SFTP_KEYFILE"); o.Keyfile != "" {
		return o, nil
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		if _, err := os.Stat(filepath.Join(ssh, name)); err == nil {
			o.Keyfile = filepath.Join(ssh, name)
			return o, nil
		}
	}
	return nil, fault.New("", fault.ErrDenied, "there is no key to sign in with", "set BACKSTAY_SFTP_KEYFILE or BACKSTAY_SFTP_PASSWORD")
}

const unknownHostHint = "known_hosts must hold the host's key: `ssh-keyscan -p PORT HOST` prints its keys of all kinds; compare them first"

// openWebDAV makes the collection where it is missing: the provider makes only those below it.
func openWebDAV(ctx context.Context, l Location, env func(string) string, create bool) (blob.Storage, error) {
	u := url.URL{Scheme: "http", Host: l.host}
	if l.scheme == schemeWebDAVS {
		u.Scheme = "https"
	}
	user, password := env("BACKSTAY_WEBDAV_USERNAME"), env("BACKSTAY_WEBDAV_PASSWORD")
	client := gowebdav.NewClient(u.String(), user, password)
	client.SetTimeout(openTimeout)
	info, err := client.Stat(l.path)
	if create && gowebdav.IsErrNotFound(err) {
		err = client.MkdirAll(l.path, 0o700)
	} else if err == nil && !info.IsDir() {
		return nil, fault.New("", fault.ErrInvalid, "it is not a collection", "")
	}
	if err != nil {
		return nil, err
	}
	u.Path = l.path
	return webdav.New(ctx, &webdav.Options{URL: u.String(), Username: user, Password: password, Options: layout()}, create)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
