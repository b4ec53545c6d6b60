package export_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/protect"
)

const (
	s3Key    = "backstay-test"
	s3Secret = "not-much-of-a-secret"
)

// s3Server starts a real S3 server, whose program BACKSTAY_TEST_VERSITYGW names, with one bucket.
func s3Server(t *testing.T, bucket string) (endpoint string, client *minio.Client) {
	t.Helper()
	program := os.Getenv("BACKSTAY_TEST_VERSITYGW")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_VERSITYGW must name the S3 server versitygw")
		}
		t.Skip("set BACKSTAY_TEST_VERSITYGW to the S3 server versitygw: test/servers/build.sh versitygw")
	}
	endpoint = heldPort(t)
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, program, "--port", endpoint, "--quiet", "posix", t.TempDir())
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Key, "ROOT_SECRET_KEY="+s3Secret)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	must(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
		if t.Failed() {
			t.Logf("the server said: %s", said.String())
		}
	})
	client, err := minio.New(endpoint, &minio.Options{Creds: credentials.NewStaticV4(s3Key, s3Secret, ""), Region: "us-east-1", MaxRetries: 1})
	must(t, err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err == nil {
			return endpoint, client
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// heldPort is an address whose port nobody is given by chance until the test ends. A server that asks for it by its number gets it, for it
// is bound with leave to reuse it, and not listened on.
func heldPort(t *testing.T) string {
	t.Helper()
	held, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(held)) })
	must(t, unix.SetsockoptInt(held, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(held, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := unix.Getsockname(held)
	must(t, err)
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

// objects are the names in a bucket, with what tells one version from another.
func objects(t *testing.T, client *minio.Client, bucket string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for o := range client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		all[o.Key] = o.ETag + o.LastModified.String()
	}
	return all
}

// download copies a bucket to the disk, as any tool does: files only.
func download(t *testing.T, client *minio.Client, bucket string) string {
	t.Helper()
	dir := t.TempDir()
	for name := range objects(t, client, bucket) {
		must(t, client.FGetObject(t.Context(), bucket, name, filepath.Join(dir, name), minio.GetObjectOptions{}))
	}
	return dir
}

func TestS3CopyCostsWhatChanged(t *testing.T) {
	t.Parallel()
	const bucket = "copies"
	endpoint, client := s3Server(t, bucket)
	place, err := export.NewS3(export.S3Options{
		Endpoint: endpoint, Bucket: bucket, Region: "us-east-1", AccessKey: s3Key, SecretKey: s3Secret, Insecure: true,
		SourceTag: "source", Scratch: t.TempDir(),
	})
	must(t, err)
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{Structured: true}})
	u := newUpstream(t, "example.com/acme/api")
	backUp(t, e, u)
	same(t, u, filepath.Join(download(t, client, bucket), "example.com/acme/api"))

	before := objects(t, client, bucket)
	backUp(t, e, u)
	if after := objects(t, client, bucket); !equal(before, after) {
		t.Errorf("objects were put though nothing had changed: %v", after)
	}

	run(t, u.dir, "branch", "more")
	u.commit(t)
	backUp(t, e, u)
	after := objects(t, client, bucket)
	var put []string
	for name, version := range after {
		if before[name] != version {
			put = append(put, strings.TrimPrefix(name, "example.com/acme/api/"))
		}
	}
	slices.Sort(put)
	packs := 0
	put = slices.DeleteFunc(put, func(name string) bool {
		if strings.HasPrefix(name, "objects/pack/") {
			packs++
			return true
		}
		return false
	})
	if want := []string{".backstay", "backstay-refs", "packed-refs"}; packs != 2 || !slices.Equal(put, want) {
		t.Errorf("put were %d files of packs and %v, want 2 and %v", packs, put, want)
	}
	same(t, u, filepath.Join(download(t, client, bucket), "example.com/acme/api"))

	tags, err := client.GetObjectTagging(t.Context(), bucket, "example.com/acme/api/HEAD", minio.GetObjectTaggingOptions{})
	must(t, err)
	if got := tags.ToMap()["source"]; got != "https://example.com/acme/api" {
		t.Errorf("tag %q", got)
	}

	// An empty repository is one, too.
	empty := &upstream{dir: filepath.Join(t.TempDir(), "empty"), name: "example.com/acme/empty"}
	run(t, ".", "init", "-q", "-b", "main", empty.dir)
	backUp(t, e, empty)
	if out, err := tryGit(t, filepath.Join(download(t, client, bucket), "example.com/acme/empty"), "fsck"); err != nil {
		t.Errorf("fsck of the empty one: %v\n%s", err, out)
	}
}

func TestS3CopiesBesideEachOther(t *testing.T) {
	t.Parallel()
	for name, layout := range map[string]export.Layout{"keep": {Keep: 2}, "dated-zip": {Dated: true, Zip: true}} {
		t.Run(name, func(t *testing.T) {
			endpoint, client := s3Server(t, name)
			place, err := export.NewS3(export.S3Options{
				Endpoint: endpoint, Bucket: name, Region: "us-east-1", AccessKey: s3Key, SecretKey: s3Secret, Insecure: true, Scratch: t.TempDir(),
			})
			must(t, err)
			e := exporter(t, export.Options{Place: place, Layout: layout})
			u := newUpstream(t, "example.com/acme/api")
			for range 3 {
				u.commit(t)
				backUp(t, e, u)
			}
			dir := download(t, client, name)
			if layout.Zip {
				if got := objects(t, client, name); len(got) != 1 {
					t.Errorf("objects %v", got)
				}
				unzip(t, filepath.Join(dir, "2026-05-01/api.zip"), dir)
				same(t, u, filepath.Join(dir, "api"))
				return
			}
			copies := names(t, filepath.Join(dir, "api"))
			if len(copies) != 2 {
				t.Fatalf("copies %v", copies)
			}
			same(t, u, filepath.Join(dir, "api", copies[1]))
		})
	}
}

func TestS3FaultsHaveClasses(t *testing.T) {
	t.Parallel()
	endpoint, _ := s3Server(t, "copies")
	u := newUpstream(t, "example.com/acme/api")
	tests := []struct {
		name string
		o    export.S3Options
		want error
	}{
		{"wrong secret", export.S3Options{Bucket: "copies", SecretKey: "some-other-secret"}, fault.ErrDenied},
		{"no bucket", export.S3Options{Bucket: "absent", SecretKey: s3Secret}, fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.o.Endpoint, test.o.Region, test.o.AccessKey, test.o.Insecure = endpoint, "us-east-1", s3Key, true
			place, err := export.NewS3(test.o)
			must(t, err)
			_, err = protect.Backup(t.Context(), exporter(t, export.Options{Place: place}), u.source(t), "")
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want class %v", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), test.o.SecretKey.Reveal()) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}
