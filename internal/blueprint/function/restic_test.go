package function

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

const (
	s3Key    = "backstay-test"
	s3Secret = "not-much-of-a-secret"
)

// s3Server starts a real S3 server, whose program BACKSTAY_TEST_VERSITYGW names, with one bucket.
func s3Server(t *testing.T, bucket string) (endpoint string) {
	t.Helper()
	program := os.Getenv("BACKSTAY_TEST_VERSITYGW")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_VERSITYGW must name the S3 server versitygw")
		}
		t.Skip("set BACKSTAY_TEST_VERSITYGW to the S3 server versitygw: test/servers/build.sh versitygw")
	}
	// One of the many hosts of the loopback device: at 127.0.0.1 other tests could have the port before the server has it.
	host := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254))).String()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", host+":0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, bucket), 0o755))
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, program, "--port", address, "--quiet", "posix", root)
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Key, "ROOT_SECRET_KEY="+s3Secret)
	must(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			c.Close()
			return "http://" + address
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// local is a shell in a container that is this machine.
func local(t *testing.T) shell {
	t.Helper()
	return shellAt(t.TempDir(), os.Getenv("PATH"))
}

func shellAt(home, path string) shell {
	return func(ctx context.Context, script string, stdout, stderr io.Writer) (int, error) {
		c := exec.CommandContext(ctx, "sh")
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(script), stdout, stderr
		c.Env = []string{"HOME=" + home, "PATH=" + path}
		err := c.Run()
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			return ended.ExitCode(), nil
		}
		return 0, err
	}
}

func TestRunThatIsRepeatedLeavesOneSnapshot(t *testing.T) {
	t.Parallel()
	const bucket = "data"
	at, err := repositoryOf(stored(t, s3Server(t, bucket), bucket, nil).Params, "apps/shop", "key", false)
	must(t, err)
	r := restic{repository: at, run: local(t), log: func(line string) { t.Log(line) }}
	from := filepath.Join(t.TempDir(), "it's data")
	must(t, os.Mkdir(from, 0o755))
	must(t, os.WriteFile(filepath.Join(from, "a"), []byte("a"), 0o600))
	_, err = r.backUp(t.Context(), "tag", from, "")
	must(t, err)
	second, err := r.backUp(t.Context(), "tag", from, "")
	must(t, err)
	left, err := r.snapshots(t.Context(), "tag")
	must(t, err)
	if len(left) != 1 || !strings.HasPrefix(left[0].ID, second.ID) {
		t.Errorf("left %v, want only %s", left, second.ID)
	}
	if _, err := r.backUp(t.Context(), "other", filepath.Join(from, "none"), ""); err == nil {
		t.Error("a backup of nothing passes")
	}
}

func TestNothingSecretIsInACommandLine(t *testing.T) {
	t.Parallel()
	r := restic{
		repository: repository{url: "gs:b:/p", password: "pass'word", googleFile: `{"private_key":"PEM"}`},
		log:        func(string) {},
	}
	dir := t.TempDir()
	fake := "#!/bin/sh\ntr '\\0' ' ' </proc/$$/cmdline\nstat -c %a \"$GOOGLE_APPLICATION_CREDENTIALS\"\n" +
		"cat \"$GOOGLE_APPLICATION_CREDENTIALS\"\necho\necho \"$RESTIC_PASSWORD\"\necho \"$GOOGLE_APPLICATION_CREDENTIALS\"\n"
	must(t, os.WriteFile(filepath.Join(dir, "restic"), []byte(fake), 0o755))
	script, err := r.repository.script([]string{"snapshots", "$(touch " + dir + "/hacked)"})
	must(t, err)
	c := exec.CommandContext(t.Context(), "sh")
	c.Stdin, c.Env = strings.NewReader(script), []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	said, err := c.CombinedOutput()
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	command, file := lines[0], lines[len(lines)-1]
	if !strings.HasSuffix(command, "600") || strings.Contains(command, "word") || !strings.Contains(command, "$(touch") {
		t.Errorf("command line and mode %q", command)
	}
	if want := []string{`{"private_key":"PEM"}`, "pass'word"}; lines[1] != want[0] || lines[2] != want[1] {
		t.Errorf("restic saw %q, want %q", lines[1:3], want)
	}
	for _, gone := range []string{file, filepath.Join(dir, "hacked")} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", gone, err)
		}
	}
}

func TestScriptCutOffDoesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "restic"), []byte("#!/bin/sh\necho ran >"+dir+"/ran\n"), 0o755))
	script, err := repository{url: "s3:x/y"}.script([]string{"prune"})
	must(t, err)
	for n := 0; n < len(script)-len("\nmain\nexit\n"); n += 7 {
		c := exec.CommandContext(t.Context(), "sh")
		c.Stdin, c.Env = strings.NewReader(script[:n]), []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
		_ = c.Run() // it may complain
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("restic ran")
	}
}

func TestFailureIsClassed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		said   string
		want   error
	}{
		{1, "Fatal: wrong password or no key found", fault.ErrDenied},
		{12, "Fatal: bad", fault.ErrDenied},
		{1, "Fatal: unable to open config\nIs there a repository at the following location?\ns3:x", fault.ErrNotFound},
		{10, "Fatal: repository does not exist", fault.ErrNotFound},
		{1, "unable to create lock in backend: repository is already locked exclusively by PID 1", fault.ErrLocked},
		{11, "", fault.ErrLocked},
		{3, "Warning: at least one source file could not be read", fault.ErrIncomplete},
		{127, "sh: 3: restic: not found", fault.ErrInvalid},
		{1, "Fatal: something", fault.ErrRefused},
	} {
		if got := failed(test.status, test.said); !errors.Is(got, test.want) {
			t.Errorf("status %d, %q: %v, want %v", test.status, test.said, got, test.want)
		}
	}
}

func TestRepositoryURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ kind, endpoint, bucket, prefix, want string }{
		{"s3Compliant", "", "b", "p/q", "s3:s3.amazonaws.com/b/p/q"},
		{"s3Compliant", "https://s3.example.com//", "b", "b/p", "s3:https://s3.example.com/b/p"},
		{"gcs", "", "b", "p", "gs:b:/p"},
		{"azure", "", "b", "b/p", "azure:b:/p"},
		{"s3Compliant", "", "b", "../other", ""},
		{"s3Compliant", "", "b", "b/../../other", ""},
		{"s3Compliant", "", "", "p", ""},
		{"kopia", "", "b", "p", ""},
	} {
		within, err := inBucket(test.bucket, test.prefix)
		got := ""
		if err == nil {
			got, err = repositoryURL(blueprint.ProfileLocation{Type: test.kind, Endpoint: test.endpoint, Bucket: test.bucket}, within)
		}
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
}

func TestBytesInUnits(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.500 KiB", 3 << 20: "3.000 MiB", 5 << 40: "5.000 TiB", 5 << 50: "5120.000 TiB"} {
		if got := inUnits(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestPrunedBytes(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]int64{
		"to delete: 5 blobs / 1 B\ntotal prune:           5 blobs / 2.862 MiB\ndone": 3001024,
		"will delete 2 packs and rewrite 0 packs, this frees 1.000 KiB":              1024,
		"total prune: 0 blobs / 0 B":                                                 0,
		"done":                                                                       0,
	} {
		if got := pruned([]byte(said)); got-want > 1<<10 || want-got > 1<<10 {
			t.Errorf("%q: %d, want %d", said, got, want)
		}
	}
}

func FuzzResticAnswers(f *testing.F) {
	f.Add([]byte(`{"message_type":"summary","snapshot_id":"7bff8a04","total_files_processed":2}`))
	f.Add([]byte("total prune: 5 blobs / 9999999999999999999999 TiB"))
	f.Add([]byte("[{\"id\":\"--all\"}]\n{\"snapshot_id\":\"--all\"}"))
	f.Fuzz(func(t *testing.T, said []byte) {
		if k, err := lastSummary(said); err == nil && !snapshotID.MatchString(k.ID) {
			t.Errorf("id %q", k.ID)
		}
		pruned(said)
		r := restic{run: func(_ context.Context, _ string, out, _ io.Writer) (int, error) {
			_, err := out.Write(said)
			return 0, err
		}, log: func(string) {}}
		found, _ := r.snapshots(t.Context(), "tag")
		for _, s := range found {
			if !snapshotID.MatchString(s.ID) {
				t.Errorf("id %q", s.ID)
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
