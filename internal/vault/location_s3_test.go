package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const (
	s3Key    = "backstay-test"
	s3Secret = "not-much-of-a-secret"
)

// s3Server starts a real S3 server, whose program BACKSTAY_TEST_VERSITYGW names, with object versions and object lock.
func s3Server(t *testing.T) (endpoint string, client *minio.Client) {
	t.Helper()
	program := os.Getenv("BACKSTAY_TEST_VERSITYGW")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_VERSITYGW must name the S3 server versitygw")
		}
		t.Skip("set BACKSTAY_TEST_VERSITYGW to the S3 server versitygw: test/servers/build.sh versitygw")
	}
	dir := t.TempDir()
	data, versions := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	must(t, os.Mkdir(data, 0o700))
	must(t, os.Mkdir(versions, 0o700))
	endpoint = freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, program, "--port", endpoint, "--quiet", "posix", "--versioning-dir", versions, data)
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
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Secret, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "us-east-1",
	} {
		t.Setenv(k, v)
	}
	client, err := minio.New(endpoint, &minio.Options{Creds: credentials.NewStaticV4(s3Key, s3Secret, ""), Region: "us-east-1", MaxRetries: 1})
	must(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = client.ListBuckets(ctx); err == nil {
			return endpoint, client
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// freeAddress is one that nobody listens on, and that nobody is given by chance until the test ends. Who asks for it by its port and
// reuses addresses gets it, as servers do.
func freeAddress(t *testing.T) string {
	t.Helper()
	held, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(held)) })
	must(t, unix.SetsockoptInt(held, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(held, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})) // and no Listen, which would keep the server out
	at, err := unix.Getsockname(held)
	must(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(at.(*unix.SockaddrInet4).Port))
}

func bucket(t *testing.T, client *minio.Client, endpoint, name string, lock bool) Location {
	t.Helper()
	must(t, client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: lock}))
	return mustParse(t, "s3://"+name+"/deep/prefix?tls=false&endpoint="+endpoint)
}

func openLocation(t *testing.T, l Location, o Options) *Vault {
	t.Helper()
	v, err := Open(t.Context(), l, testPassword, o)
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	return v
}

// versionsOf lists all versions of the objects that hold blobs that ought to be locked.
func versionsOf(t *testing.T, client *minio.Client, bucket string) []minio.ObjectInfo {
	t.Helper()
	var all []minio.ObjectInfo
	for o := range client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		must(t, o.Err)
		if id, ok := strings.CutPrefix(o.Key, "deep/prefix/"); ok && lockable(blob.ID(id)) && !o.IsDeleteMarker {
			all = append(all, o)
		}
	}
	if len(all) < 6 {
		t.Fatalf("%d objects: too few for a vault", len(all))
	}
	return all
}

// lockedUntil reads the lock of a version from its headers.
func lockedUntil(t *testing.T, client *minio.Client, bucket string, o minio.ObjectInfo) (string, time.Time) {
	t.Helper()
	info, err := client.StatObject(t.Context(), bucket, o.Key, minio.StatObjectOptions{VersionID: o.VersionID})
	must(t, err)
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		t.Fatalf("%s has no retention: %v", o.Key, info.Metadata)
	}
	return info.Metadata.Get("X-Amz-Object-Lock-Mode"), until
}

func TestS3VaultUnderObjectLock(t *testing.T) {
	endpoint, client := s3Server(t)
	for _, lock := range []Lock{{"GOVERNANCE", 48 * time.Hour}, {"COMPLIANCE", 30 * 24 * time.Hour}} {
		t.Run(lock.Mode, func(t *testing.T) {
			name := strings.ToLower(lock.Mode)
			l := bucket(t, client, endpoint, name, true)
			must(t, Create(t.Context(), l, testPassword, Options{Lock: lock}))
			v := openLocation(t, l, Options{})
			kept, gone := pointOf(t, v, "kept", noise(1, 1<<20)), pointOf(t, v, "gone", noise(2, 1<<20))
			noSecretOnDisk(t, v)

			before := versionsOf(t, client, name)
			for _, o := range before {
				if o.IsLatest { // the server does not say how a superseded version is locked
					mode, until := lockedUntil(t, client, name, o)
					if left := time.Until(until); mode != lock.Mode || left < lock.Period-time.Minute || left > lock.Period+time.Minute {
						t.Errorf("%s is locked in mode %s for %s", o.Key, mode, left)
					}
				}
				refusesToLose(t, client, name, o, lock)
			}

			must(t, v.Delete(t.Context(), gone))
			time.Sleep(1100 * time.Millisecond) // retention counts in seconds
			extendedAt := time.Now()
			r, err := v.Maintain(t.Context(), MaintainOptions{})
			must(t, err)
			if r.ExtendedBlobs < 6 || r.Lock.Alarm != "" || r.Lock.SafeUntil.Before(extendedAt.Add(lock.Period-time.Minute)) {
				t.Errorf("got %+v, %+v", r, r.Lock)
			}
			// Whatever was there is there still, the expired point's blobs among it, and what is live is locked anew.
			for _, o := range versionsOf(t, client, name) {
				if !o.IsLatest {
					continue
				}
				if _, until := lockedUntil(t, client, name, o); until.Before(extendedAt.Add(lock.Period - time.Second)) {
					t.Errorf("%s was not extended: %s", o.Key, until)
				}
			}
			for _, o := range before {
				if _, err := client.StatObject(t.Context(), name, o.Key, minio.StatObjectOptions{VersionID: o.VersionID}); err != nil {
					t.Errorf("%s version %s is gone: %v", o.Key, o.VersionID, err)
				}
			}
			readsBack(t, v, kept, noise(1, 1<<20))
		})
	}
}

// refusesToLose tries with the vault's own credentials to delete a version, to shorten its lock, and to overwrite it.
func refusesToLose(t *testing.T, client *minio.Client, bucket string, o minio.ObjectInfo, lock Lock) {
	t.Helper()
	err := client.RemoveObject(t.Context(), bucket, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID})
	if err == nil {
		t.Fatalf("%s could be deleted", o.Key)
	}
	if err := storageFault("delete", err); !errors.Is(err, fault.ErrLocked) && !errors.Is(err, fault.ErrDenied) {
		t.Errorf("refusing to delete %s is taken for %s: %v", o.Key, fault.Of(err).Reason, err)
	}
	soon, mode := time.Now().Add(time.Minute), minio.Governance
	if err := client.PutObjectRetention(t.Context(), bucket, o.Key, minio.PutObjectRetentionOptions{
		RetainUntilDate: &soon, Mode: &mode, VersionID: o.VersionID,
	}); err == nil {
		t.Errorf("the lock of %s could be shortened", o.Key)
	}
	if !o.IsLatest || !strings.HasSuffix(o.Key, "/kopia.repository") {
		return // one is enough to show that overwriting leaves the version alone
	}
	original := objectBytes(t, client, bucket, o.Key, o.VersionID)
	_, err = client.PutObject(t.Context(), bucket, o.Key, strings.NewReader("overwritten"), -1, minio.PutObjectOptions{})
	if err != nil {
		return
	}
	if !bytes.Equal(objectBytes(t, client, bucket, o.Key, o.VersionID), original) {
		t.Errorf("%s was overwritten", o.Key)
	}
	_, err = client.PutObject(t.Context(), bucket, o.Key, bytes.NewReader(original), int64(len(original)), minio.PutObjectOptions{
		Mode: minio.RetentionMode(lock.Mode), RetainUntilDate: time.Now().Add(lock.Period), SendContentMd5: true,
	})
	must(t, err)
}

func objectBytes(t *testing.T, client *minio.Client, bucket, key, version string) []byte {
	t.Helper()
	o, err := client.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{VersionID: version})
	must(t, err)
	defer o.Close()
	b, err := io.ReadAll(o)
	must(t, err)
	return b
}

// noSecretOnDisk looks through what the vault keeps on the local disk.
func noSecretOnDisk(t *testing.T, v *Vault) {
	t.Helper()
	must(t, filepath.WalkDir(v.dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(file)
		for _, secret := range []string{s3Key, s3Secret, testPassword.Reveal()} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q", file, secret)
			}
		}
		return err
	}))
}

func readsBack(t *testing.T, v *Vault, id string, want []byte) {
	t.Helper()
	_, r, err := v.Open(t.Context(), id)
	must(t, err)
	f, err := r.Open(t.Context(), "git/x.git/pack")
	must(t, err)
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("point %s reads %d bytes, want %d: %v", id, len(got), len(want), err)
	}
}

func TestS3VaultWithoutLock(t *testing.T) {
	endpoint, client := s3Server(t)
	l := bucket(t, client, endpoint, "plain", false)
	must(t, Create(t.Context(), l, testPassword, Options{}))
	if err := Create(t.Context(), l, testPassword, Options{}); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a second vault: got %v, want exists", err)
	}
	v := openLocation(t, l, Options{})
	id := pointOf(t, v, "a", noise(1, 3<<20))
	r, err := v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	if r.Lock != nil || r.ExtendedBlobs != 0 {
		t.Errorf("got %+v, want no lock", r)
	}
	if points, err := v.Points(t.Context(), point.Filter{}); err != nil || len(points) != 1 {
		t.Errorf("got %v, %v", points, err)
	}
	readsBack(t, v, id, noise(1, 3<<20))
	if _, err := Open(t.Context(), l, "wrong", Options{}); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("wrong password: got %v, want denied", err)
	}
}

func TestS3BucketsThatWillNotDo(t *testing.T) {
	endpoint, client := s3Server(t)
	unlocked := bucket(t, client, endpoint, "unlocked", false)
	standing := bucket(t, client, endpoint, "standing", true)
	mode, days, unit := minio.Governance, uint(1), minio.Days
	must(t, client.SetObjectLockConfig(t.Context(), "standing", &mode, &days, &unit))
	lock := Lock{"COMPLIANCE", 48 * time.Hour}
	tests := []struct {
		name string
		l    Location
		lock Lock
		want error
		hint string
	}{
		{"made without object lock", unlocked, lock, fault.ErrUnsupported, "with object lock enabled"},
		{"default retention", standing, lock, fault.ErrRefused, "default retention off"},
		{"default retention, vault without lock", standing, Lock{}, fault.ErrRefused, "default retention off"},
		{"not there", mustParse(t, "s3://nowhere?tls=false&endpoint="+endpoint), Lock{}, fault.ErrNotFound, "bucket"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Create(t.Context(), test.l, testPassword, Options{Lock: test.lock})
			if !errors.Is(err, test.want) || !strings.Contains(strings.Join(fault.Hints(err), " "), test.hint) {
				t.Errorf("got %v, hints %q, want %v: %s", err, fault.Hints(err), test.want, test.hint)
			}
		})
	}
	for _, name := range []string{"unlocked", "standing"} {
		for o := range client.ListObjects(t.Context(), name, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
			t.Errorf("%s was left in bucket %s: %v", o.Key, name, o.Err)
		}
	}
	t.Run("wrong key", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
		_, err := unlocked.storage(t.Context(), os.Getenv, false)
		if !errors.Is(err, fault.ErrDenied) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("got %v, want denied", err)
		}
	})
}

// MinIO answers 400 to the deletion of a locked object, others 403.
func TestBothRefusalsOfALockedDeletionAreKnown(t *testing.T) {
	for _, answer := range []minio.ErrorResponse{
		{StatusCode: http.StatusBadRequest, Code: "InvalidRequest", Message: "Object is WORM protected and cannot be overwritten"},
		{StatusCode: http.StatusForbidden, Code: "AccessDenied", Message: "Access Denied because object protected by object lock."},
	} {
		if err := storageFault("delete", answer); !errors.Is(err, fault.ErrLocked) {
			t.Errorf("%d %s: got %v", answer.StatusCode, answer.Code, fault.Of(err).Reason)
		}
	}
}
