package kando

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/backstay/backstay/internal/fault"
)

const (
	s3Key    = "backstay-test"
	s3Secret = "not-much-of-a-secret"
	bucketB  = "backups"
)

// s3Server is a real S3 server with one bucket.
type s3Server struct {
	address string
	client  *minio.Client
}

// newS3 starts the S3 server whose program BACKSTAY_TEST_VERSITYGW names.
func newS3(t *testing.T) *s3Server {
	t.Helper()
	program := os.Getenv("BACKSTAY_TEST_VERSITYGW")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_VERSITYGW must name the S3 server versitygw")
		}
		t.Skip("set BACKSTAY_TEST_VERSITYGW to the S3 server versitygw: test/servers/build.sh versitygw")
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, program, "--port", address, "--quiet", "posix", t.TempDir())
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Key, "ROOT_SECRET_KEY="+s3Secret)
	must(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
	})
	client, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(s3Key, s3Secret, ""), Region: "us-east-1", MaxRetries: 1})
	must(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = client.MakeBucket(ctx, bucketB, minio.MakeBucketOptions{}); err == nil {
			return &s3Server{address, client}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// freeAddress is where a server may listen. It is one of the many hosts of the loopback device: at 127.0.0.1 other tests could have the port
// before the server has it.
func freeAddress(t *testing.T) string {
	t.Helper()
	host := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254))).String()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", host+":0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (s *s3Server) profile() Document {
	return Document{
		Location:   Location{Type: TypeS3, Bucket: bucketB, Endpoint: "http://" + s.address, Prefix: "/pre/fix/", Region: "us-east-1"},
		Credential: Credential{Type: CredentialKeyPair, KeyPair: &KeyPair{s3Key, s3Secret}},
	}
}

// names are the objects of the bucket.
func (s *s3Server) names(t *testing.T) []string {
	t.Helper()
	names := []string{}
	for o := range s.client.ListObjects(t.Context(), bucketB, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		names = append(names, o.Key)
	}
	return names
}

// unfinished are uploads in parts that nobody ended.
func (s *s3Server) unfinished(t *testing.T) int {
	t.Helper()
	n := 0
	for o := range s.client.ListIncompleteUploads(t.Context(), bucketB, "", true) {
		must(t, o.Err)
		n++
	}
	return n
}

func TestS3(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	secret := server.profile()
	secret.Credential = Credential{Type: CredentialSecret, Secret: &Secret{Type: "secrets.kanister.io/aws", Data: map[string][]byte{
		"aws_access_key_id": []byte(s3Key), "aws_secret_access_key": []byte(s3Secret + "\n"),
	}}}
	for i, d := range []Document{server.profile(), secret} {
		exchange(t, inline(t, d), fmt.Sprintf("/%d", i))
		if got := server.names(t); len(got) != 1 || got[0] != fmt.Sprintf("pre/fix/%d/dump-10", i) {
			t.Errorf("objects %v", got)
		}
		kando(t, "", "location", "delete", "--profile", inline(t, d), "--path", fmt.Sprintf("%d/dump-10", i))
	}
}

// exchange pushes, pulls and deletes below a path, and leaves one object there: dump-10.
func exchange(t *testing.T, profile, path string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "dump.sql")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB, two parts
	must(t, os.WriteFile(file, big, 0o600))
	if said := kando(t, "", "location", "push", file, "-p", profile, "-s", path+"/dump-1/a.sql"); said != "" {
		t.Errorf("push to objects printed %q", said)
	}
	kando(t, "from a pipe", "location", "push", "-", "-p", profile, "-s", path+"/dump-1/pipe")
	kando(t, "another", "location", "push", "-", "-p", profile, "-s", path+"/dump-10")
	if got := kando(t, "", "location", "pull", "-", "-p", profile, "-s", path+"/dump-1/pipe"); got != "from a pipe" {
		t.Errorf("pulled %q", got)
	}
	target := filepath.Join(dir, "back.sql")
	must(t, os.WriteFile(target, bytes.Repeat([]byte("x"), len(big)+10), 0o600)) // what is longer is replaced as a whole
	kando(t, "", "location", "pull", target, "-p", profile, "-s", path+"/dump-1/a.sql")
	if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, big) {
		t.Errorf("pulled %d bytes, %v", len(got), err)
	}
	refused(t, fault.ErrNotFound, "", "location", "pull", target, "-p", profile, "-s", path+"/absent")
	if got, err := os.ReadFile(target); err != nil || len(got) != len(big) {
		t.Errorf("a pull that failed left %d bytes, %v", len(got), err)
	}
	for range 2 { // deleting again is success
		kando(t, "", "location", "delete", "-p", profile, "-s", path+"/dump-1")
	}
	refused(t, fault.ErrNotFound, "", "location", "pull", target, "-p", profile, "-s", path+"/dump-1/a.sql")
	refused(t, fault.ErrUnsupported, "", "location", "push", dir, "-p", profile, "-s", path+"/dir")
	refused(t, fault.ErrInvalid, "x", "location", "push", "-", "-p", profile, "-s", "../elsewhere")
	refused(t, fault.ErrInvalid, "x", "location", "delete", "-p", profile)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("pulls left %v, %v", left, err)
	}
}

// broken yields some bytes and then an error.
func broken(n int64, err error) io.Reader {
	return io.MultiReader(io.LimitReader(zeros{}, n), failingReader{err})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestNothingIsListedOfAnUploadThatFailed(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	profile := inline(t, server.profile())
	reset := errors.New("connection reset")
	for _, size := range []int64{0, 5, 8 << 20, 20 << 20} {
		s := &session{stdin: broken(size, reset)}
		if err := s.run(t.Context(), "location", "push", "-", "-p", profile, "-s", "cut"); !errors.Is(err, reset) {
			t.Errorf("a stream that broke after %d bytes: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w, err := os.Pipe() // whose writer hangs
	must(t, err)
	defer r.Close()
	go func() {
		defer cancel()
		_, _ = w.Write(make([]byte, 10<<20)) // what the reader does with it is the test
	}()
	s := &session{stdin: r}
	if err := s.run(ctx, "location", "push", "-", "-p", profile, "-s", "interrupted"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	must(t, w.Close())
	if names, left := server.names(t), server.unfinished(t); len(names) > 0 || left > 0 {
		t.Errorf("objects %v, %d unfinished uploads", names, left)
	}
}

// unsteady is a server before which a proxy drops every nth request or cuts its answer short.
func unsteady(t *testing.T, server *s3Server, every int64) Document {
	t.Helper()
	target, err := url.Parse("http://" + server.address)
	must(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host // the signed one stays
	}}
	var n atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch k := n.Add(1); {
		case k%every != 0:
			proxy.ServeHTTP(w, r)
		case r.Method == http.MethodGet && r.Header.Get("Range") == "" && !strings.HasSuffix(r.URL.Path, "/"):
			proxy.ServeHTTP(&short{w, 1 << 20}, r)
		case r.Method == http.MethodPost && r.URL.Query().Has("uploadId"): // done, but not told
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			fallthrough
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	front.Config.ErrorLog = nil
	t.Cleanup(front.Close)
	d := server.profile()
	d.Location.Endpoint = front.URL
	return d
}

// short breaks the connection after some bytes of the answer.
type short struct {
	http.ResponseWriter
	left int
}

func (s *short) Write(b []byte) (int, error) {
	if len(b) > s.left {
		_, _ = s.ResponseWriter.Write(b[:s.left]) // the connection goes now
		panic(http.ErrAbortHandler)
	}
	s.left -= len(b)
	return s.ResponseWriter.Write(b)
}

func TestS3RequestsAreTriedAgain(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	for _, every := range []int64{2, 3} {
		profile := inline(t, unsteady(t, server, every))
		data := strings.Repeat(fmt.Sprintf("%07d\n", every), (3<<20)/2) // 12 MiB, two parts
		kando(t, data, "location", "push", "-", "-p", profile, "-s", "x")
		if got := kando(t, "", "location", "pull", "-", "-p", profile, "-s", "x"); got != data {
			t.Errorf("every %d: %d bytes came back", every, len(got))
		}
		kando(t, "", "location", "delete", "-p", profile, "-s", "x")
	}
	if names, left := server.names(t), server.unfinished(t); len(names) > 0 || left > 0 {
		t.Errorf("objects %v, %d unfinished uploads", names, left)
	}
}

func TestS3FaultsHaveClasses(t *testing.T) {
	t.Parallel()
	server := newS3(t)
	wrong, absent := server.profile(), server.profile()
	wrong.Credential.KeyPair = &KeyPair{s3Key, "something-else"}
	absent.Location.Bucket = "absent"
	for want, d := range map[error]Document{fault.ErrDenied: wrong, fault.ErrInvalid: absent} {
		for _, args := range [][]string{{"push", "-"}, {"pull", "-"}, {"delete"}} {
			refused(t, want, "x", slices.Concat([]string{"location"}, args, []string{"-p", inline(t, d), "-s", "x"})...)
		}
	}
}

func TestPartsMakeAnObjectOfFiveTebibytes(t *testing.T) {
	t.Parallel()
	total, at8GB := int64(0), 0
	for n := 1; n <= 10_000; n++ {
		total += int64(partSize(n))
		if total < 8<<30 {
			at8GB = partSize(n)
		}
		if partSize(n) > 5<<30 {
			t.Errorf("part %d has %d bytes", n, partSize(n))
		}
	}
	if total < 5<<40 || at8GB != 8<<20 {
		t.Errorf("%d bytes in all; parts of %d bytes at 8 GiB", total, at8GB)
	}
}
