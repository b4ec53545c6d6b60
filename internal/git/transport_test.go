package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
)

// serveDaemon serves all repositories below root by git daemon, and returns the base of their URLs.
func serveDaemon(t testing.TB, root string) string {
	t.Helper()
	port := strconv.Itoa(heldPort(t))
	address := net.JoinHostPort("127.0.0.1", port)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := command(ctx, "git", "daemon", "--listen=127.0.0.1", "--port="+port, "--export-all", "--base-path="+root, "--reuseaddr", root)
	cmd.Env = append(cleanEnviron(os.Environ()), "HOME="+os.DevNull)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
			return "git://" + address
		}
		if time.Now().After(deadline) {
			t.Fatalf("git daemon does not listen: %v", err)
		}
	}
}

// heldPort is a port that nobody listens on, and that nobody is given by chance until the test ends. Who asks for it by its number and
// reuses addresses gets it.
func heldPort(t testing.TB) int {
	t.Helper()
	held, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(held) })
	err = errors.Join(
		unix.SetsockoptInt(held, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(held, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), // and no Listen, which would keep the server out
	)
	if err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(held)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*unix.SockaddrInet4).Port
}

// stubSSH is a program that takes ssh's place: it notes its arguments in a file and runs the remote command here.
func stubSSH(t testing.TB) (program, args string) {
	t.Helper()
	dir := t.TempDir()
	program, args = filepath.Join(dir, "ssh stub"), filepath.Join(dir, "args")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >'" + args + "'\nfor last; do :; done\nexec sh -c \"$last\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, args
}

func withSSH(o Options, program string) Options {
	o.SSHCommand = "'" + program + "' -F none"
	return o
}

func TestDaemon(t *testing.T) {
	dir := sampleRepo(t)
	base := serveDaemon(t, filepath.Dir(dir))
	for _, version := range []string{"0", "1", "2"} {
		t.Run("v"+version, func(t *testing.T) {
			o := testOptions()
			o.protocol = version
			r := dialTest(t, base+"/sample", o)
			list, err := r.ListRefs(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := formatRefs(list), refsOf(t, dir); got != want || r.Protocol() != "v"+version {
				t.Errorf("%s refs:\n%s\nwant:\n%s", r.Protocol(), got, want)
			}
			stockGit(t, fetchInto(t, r, list, nil), "fsck", "--strict")
		})
	}
	r := dialTest(t, base+"/nowhere", testOptions())
	if _, err := r.ListRefs(context.Background()); !errors.Is(err, fault.ErrNotFound) && !errors.Is(err, fault.ErrDenied) {
		t.Errorf("repository that is not there: %v", err)
	}
}

func TestSSH(t *testing.T) {
	dir := sampleRepo(t)
	odd := filepath.Join(filepath.Dir(dir), "it's odd!")
	if err := os.Rename(dir, odd); err != nil {
		t.Fatal(err)
	}
	program, argsFile := stubSSH(t)
	r := dialTest(t, "ssh://git@git.example:2222"+strings.ReplaceAll(odd, " ", "%20"), withSSH(testOptions(), program))
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := formatRefs(list), refsOf(t, odd); got != want || r.Protocol() != "v2" {
		t.Errorf("%s refs:\n%s\nwant:\n%s", r.Protocol(), got, want)
	}
	stockGit(t, fetchInto(t, r, list, nil), "fsck", "--strict")
	args, err := os.ReadFile(argsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-F\nnone\n", "BatchMode=yes\n", "SendEnv=GIT_PROTOCOL\n", "-p\n2222\n", "git@git.example\ngit-upload-pack '"} {
		if !strings.Contains(string(args), want) {
			t.Errorf("ssh's arguments lack %q:\n%s", want, args)
		}
	}
}

func TestSSHFailuresHaveClasses(t *testing.T) {
	for said, want := range map[string]error{
		"Host key verification failed.":                                      fault.ErrDenied,
		"git@git.example: Permission denied (publickey).":                    fault.ErrDenied,
		"ERROR: Repository not found.":                                       fault.ErrNotFound,
		"fatal: '/x' does not appear to be a git repository":                 fault.ErrNotFound,
		"ssh: Could not resolve hostname git.example: Name not known":        fault.ErrUnavailable,
		"ssh: connect to host git.example port 22: Connection refused":       fault.ErrUnavailable,
		"@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key ...": fault.ErrDenied,
		"\x1b[31mred\x07 words that nobody knows":                            fault.ErrUnavailable,
	} {
		script := filepath.Join(t.TempDir(), "ssh")
		if err := os.WriteFile(script, []byte("#!/bin/sh\ncat >&2 <<'END'\n"+said+"\nEND\nexit 255\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		r := dialTest(t, "git@git.example:x", withSSH(testOptions(), script))
		_, err := r.ListRefs(context.Background())
		if !errors.Is(err, want) {
			t.Errorf("%s: %v is not %v", said, err, want)
		}
		if text := err.Error(); strings.ContainsAny(text, "\x1b\x07\n") || !strings.Contains(text, strings.Fields(printable(said))[1]) {
			t.Errorf("%q does not tell what ssh said, fit to print", text)
		}
	}
}

func TestProgramMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := dialTest(t, "git@git.example:x", testOptions())
	_, err := r.ListRefs(context.Background())
	if !errors.Is(err, fault.ErrUnsupported) || len(fault.Hints(err)) == 0 || !strings.Contains(err.Error(), "ssh is not installed") {
		t.Errorf("without ssh: %v, hints %q", err, fault.Hints(err))
	}
}

func TestGitMissing(t *testing.T) {
	dir := sampleRepo(t)
	t.Setenv("PATH", t.TempDir())
	r := dialTest(t, dir, testOptions())
	_, err := r.ListRefs(context.Background())
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), "git is not installed") {
		t.Errorf("without git: %v", err)
	}
}

// headOf finds HEAD in a list; a zero Ref stands for none.
func headOf(l *RefList) Ref {
	if len(l.Refs) > 0 && l.Refs[0].Name == "HEAD" {
		return l.Refs[0]
	}
	return Ref{}
}

func TestHeads(t *testing.T) {
	dir := sampleRepo(t)
	root := filepath.Dir(dir)
	tip := stockGit(t, dir, "rev-parse", "HEAD")
	stockGit(t, "", "init", "-q", "--bare", "-b", "trunk", filepath.Join(root, "empty.git"))
	stockGit(t, "", "clone", "-q", "--bare", dir, filepath.Join(root, "unborn.git"))
	stockGit(t, filepath.Join(root, "unborn.git"), "symbolic-ref", "HEAD", "refs/heads/not/yet")
	stockGit(t, "", "clone", "-q", "--bare", dir, filepath.Join(root, "detached.git"))
	stockGit(t, filepath.Join(root, "detached.git"), "update-ref", "--no-deref", "HEAD", tip+"~1")
	before := stockGit(t, dir, "rev-parse", "HEAD~1")

	bases := endpoints(t, root)
	bases["git"] = serveDaemon(t, root) + "/"
	for name, base := range bases {
		for repo, want := range map[string]Ref{
			"empty.git":    {Name: "HEAD", Target: "refs/heads/trunk"},
			"unborn.git":   {Name: "HEAD", Target: "refs/heads/not/yet"},
			"detached.git": {Name: "HEAD", OID: before},
		} {
			for _, version := range []string{"0", "2"} {
				t.Run(name+"/"+repo+"/v"+version, func(t *testing.T) {
					o := testOptions()
					o.protocol = version
					list, err := dialTest(t, base+repo, o).ListRefs(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					want := want
					if version == "0" && want.OID == "" {
						want = Ref{} // which v0 cannot tell
					}
					if got := headOf(list); got != want {
						t.Errorf("HEAD %+v, want %+v", got, want)
					}
				})
			}
		}
	}
}

func TestLocalShapes(t *testing.T) {
	dir := sampleRepo(t)
	root := filepath.Dir(dir)
	stockGit(t, dir, "worktree", "add", "-q", "-b", "side", filepath.Join(root, "linked"))
	stockGit(t, "", "clone", "-q", "--bare", dir, filepath.Join(root, "bare.git"))
	stockGit(t, "", "clone", "-q", "--separate-git-dir", filepath.Join(root, "apart"), dir, filepath.Join(root, "gitfile"))
	for path, head := range map[string]string{
		dir: "refs/heads/main", filepath.Join(dir, ".git"): "refs/heads/main", filepath.Join(root, "linked"): "refs/heads/side",
		filepath.Join(root, "bare.git"): "refs/heads/main", filepath.Join(root, "bare"): "refs/heads/main",
		filepath.Join(root, "gitfile"): "refs/heads/main",
	} {
		list, err := dialTest(t, path, testOptions()).ListRefs(context.Background())
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := headOf(list); got.Target != head {
			t.Errorf("%s: HEAD %+v, want one of %s", path, got, head)
		}
	}
}

func TestLocalRefusals(t *testing.T) {
	dir := sampleRepo(t)
	root := filepath.Dir(dir)
	stockGit(t, "", "clone", "-q", "--depth=1", "file://"+dir, filepath.Join(root, "shallow"))
	stockGit(t, dir, "config", "uploadpack.allowFilter", "true")
	stockGit(t, "", "clone", "-q", "--filter=blob:none", "--bare", "file://"+dir, filepath.Join(root, "partial"))
	if err := os.Mkdir(filepath.Join(root, "plain"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"shallow": fault.ErrUnsupported, "partial": fault.ErrUnsupported, "plain": fault.ErrNotFound, "nowhere": fault.ErrNotFound,
	} {
		u, err := ParseURL(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Dial(context.Background(), u, testOptions())
		if !errors.Is(err, want) || len(fault.Hints(err)) == 0 {
			t.Errorf("%s: %v, hints %q, want %v with a hint", name, err, fault.Hints(err), want)
		}
	}
}

func TestShallowServer(t *testing.T) {
	dir := sampleRepo(t)
	root := filepath.Dir(dir)
	stockGit(t, "", "clone", "-q", "--bare", "--depth=1", "file://"+dir, filepath.Join(root, "shallow.git"))
	base := serveHTTP(t, root).URL
	for _, version := range []string{"0", "2"} {
		o := testOptions()
		o.protocol = version
		r := dialTest(t, base+"/shallow.git", o)
		list, err := r.ListRefs(context.Background())
		if version == "2" { // whose list of refs does not tell
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Fetch(context.Background(), oidsOf(list), nil, &strings.Builder{})
		}
		if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), "shallow") {
			t.Errorf("v%s: %v", version, err)
		}
	}
}

func TestDubiousOwnership(t *testing.T) {
	if os.Getuid() != 0 {
		const why = "only root can give a repository away"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir := sampleRepo(t)
	if err := os.Chown(filepath.Join(dir, ".git"), 4711, 4711); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=")
	_, err := dialTest(t, dir, o).ListRefs(context.Background())
	if !errors.Is(err, fault.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), " "), "safe.directory") {
		t.Errorf("%v, hints %q", err, fault.Hints(err))
	}
	config := filepath.Join(t.TempDir(), ".gitconfig")
	stockGit(t, "", "config", "-f", config, "safe.directory", filepath.Join(dir, ".git"))
	o.Env = append(o.Env, "HOME="+filepath.Dir(config))
	if _, err := dialTest(t, dir, o).ListRefs(context.Background()); err != nil {
		t.Errorf("with the user's safe.directory: %v", err)
	}
}

func TestHiddenRefsOfLocalRepositoryAreShown(t *testing.T) {
	dir := sampleRepo(t)
	stockGit(t, dir, "update-ref", "refs/hidden/x", "HEAD")
	stockGit(t, dir, "config", "transfer.hideRefs", "refs/hidden")
	stockGit(t, dir, "config", "--add", "uploadpack.hideRefs", "refs/tags")
	r := dialTest(t, dir, testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := formatRefs(list), refsOf(t, dir); got != want {
		t.Errorf("refs:\n%s\nwant:\n%s", got, want)
	}
	stockGit(t, fetchInto(t, r, list, nil), "fsck", "--strict")
}

func TestNothingOfALocalRepositoryRuns(t *testing.T) {
	dir := sampleRepo(t)
	trap := filepath.Join(t.TempDir(), "sprung")
	script := filepath.Join(t.TempDir(), "trap")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntouch '"+trap+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"uploadpack.packObjectsHook", "core.fsmonitor", "core.pager", "core.sshCommand", "core.alternateRefsCommand", "alias.upload-pack"} {
		stockGit(t, dir, "config", key, script)
	}
	stockGit(t, dir, "config", "core.hooksPath", filepath.Dir(script))
	for _, hook := range []string{"post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman"} {
		if err := os.Symlink(script, filepath.Join(filepath.Dir(script), hook)); err != nil {
			t.Fatal(err)
		}
	}
	r := dialTest(t, dir, testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fetchInto(t, r, list, nil)
	if _, err := os.Lstat(trap); err == nil {
		t.Error("the repository's own program ran")
	}
}

func TestCorruptLocalRepository(t *testing.T) {
	dir := sampleRepo(t)
	blob := stockGit(t, dir, "rev-parse", "HEAD~1:file.txt")
	if err := os.Remove(filepath.Join(dir, ".git", "objects", blob[:2], blob[2:])); err != nil {
		t.Fatal(err)
	}
	r := dialTest(t, dir, testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(context.Background(), oidsOf(list), nil, &strings.Builder{}); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("with a blob gone: %v", err)
	}
}

func TestManyRefs(t *testing.T) {
	dir := sampleRepo(t)
	tip := stockGit(t, dir, "rev-parse", "HEAD")
	var packed strings.Builder // written by hand: git takes seconds for so many loose refs
	for i := range 5000 {
		fmt.Fprintf(&packed, "%s refs/pull/%d/head\n", tip, i)
	}
	if err := os.WriteFile(filepath.Join(dir, ".git", "packed-refs"), []byte(packed.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	want := refsOf(t, dir)
	for name, base := range endpoints(t, filepath.Dir(dir)) {
		for _, version := range []string{"0", "2"} {
			o := testOptions()
			o.protocol = version
			r := dialTest(t, base+"sample/.git", o)
			list, err := r.ListRefs(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if formatRefs(list) != want {
				t.Errorf("%s v%s: %d refs that are not the repository's", name, version, len(list.Refs))
			}
			o.MaxRefs = 5000
			if _, err := dialTest(t, base+"sample/.git", o).ListRefs(context.Background()); !errors.Is(err, fault.ErrRefused) {
				t.Errorf("%s v%s: more refs than allowed: %v", name, version, err)
			}
			o.MaxRefs, o.MaxRefBytes = 0, 10_000
			if _, err := dialTest(t, base+"sample/.git", o).ListRefs(context.Background()); !errors.Is(err, fault.ErrRefused) {
				t.Errorf("%s v%s: longer list than allowed: %v", name, version, err)
			}
		}
	}
}

func TestUnreachableWant(t *testing.T) {
	dir := sampleRepo(t)
	for name, base := range endpoints(t, filepath.Dir(dir)) {
		r := dialTest(t, base+"sample/.git", testOptions())
		if _, err := r.Fetch(context.Background(), []string{strings.Repeat("ab", 20)}, nil, &strings.Builder{}); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("%s: want of an object that is gone: %v", name, err)
		}
	}
}

func TestFetchRefusesWhatIsNoObjectID(t *testing.T) {
	r := dialTest(t, sampleRepo(t), testOptions())
	for _, oids := range [][]string{nil, {""}, {"HEAD"}, {testOID + "\n0000"}, {strings.Repeat("0", 40)}, {testOID + testOID[:24]}} {
		if _, err := r.Fetch(t.Context(), oids, nil, &strings.Builder{}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("want %q: %v", oids, err)
		}
	}
	if _, err := r.Fetch(t.Context(), []string{testOID}, []string{"x"}, &strings.Builder{}); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("have x: %v", err)
	}
}

func TestRequestsAreFew(t *testing.T) {
	dir := sampleRepo(t)
	r := dialTest(t, serveHTTP(t, filepath.Dir(dir)).URL+"/sample/.git", testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Requests(); n != 2 {
		t.Errorf("%d requests for a list of refs, want greeting and ls-refs", n)
	}
	fetchInto(t, r, list, nil)
	if n := r.Requests(); n != 3 {
		t.Errorf("%d requests for list and pack, want 3", n)
	}
	if r.BytesReceived() == 0 {
		t.Error("no bytes were counted")
	}
}

func TestWriterErrorComesBackAsItIs(t *testing.T) {
	dir := sampleRepo(t)
	full := errors.New("disk full")
	r := dialTest(t, dir, testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Fetch(context.Background(), oidsOf(list), nil, failingWriter{full})
	if !errors.Is(err, full) || fault.Of(err).Retry {
		t.Errorf("error %v, want the writer's own", err)
	}
	if _, err := r.ListRefs(context.Background()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCancelKillsTheProgram(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	script := filepath.Join(dir, "ssh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 600 &\necho $! >"+pidFile+"\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := dialTest(t, "git@git.example:x", withSSH(testOptions(), script))
	go func() {
		for {
			if text, err := os.ReadFile(pidFile); err == nil && len(text) > 1 {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if _, err := r.ListRefs(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	state := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, err := exec.CommandContext(t.Context(), "ps", "-o", "stat=", "-p", strings.TrimSpace(string(pid))).Output()
		if state = string(out); err != nil || strings.HasPrefix(state, "Z") {
			return
		}
	}
	t.Errorf("the program's child still runs: %s", state)
}

func TestSilentServerEndsTheCall(t *testing.T) {
	script := filepath.Join(t.TempDir(), "ssh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := withSSH(testOptions(), script)
	o.IdleTimeout = 100 * time.Millisecond
	began := time.Now()
	_, err := dialTest(t, "git@git.example:x", o).ListRefs(context.Background())
	if !errors.Is(err, fault.ErrUnavailable) || len(fault.Hints(err)) == 0 || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// A fetch that was called off as its last bytes arrived has what it wanted, and who answered it may be killed all the same.
func TestFetchAfterOneCalledOffAtItsEnd(t *testing.T) {
	r := dialTest(t, sampleRepo(t), testOptions())
	list, err := r.ListRefs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.Fetch(ctx, oidsOf(list), nil, callingOff(cancel)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), oidsOf(list), nil, io.Discard); err != nil {
		t.Errorf("the next fetch: %v", err)
	}
}

// callingOff is a writer that calls a context off when all has been sent, and waits for what that brings.
type callingOff context.CancelFunc

func (cancel callingOff) Write(p []byte) (int, error) {
	time.Sleep(time.Second) // what the server has yet to send is a few bytes, also on a busy machine
	cancel()
	time.Sleep(50 * time.Millisecond)
	return len(p), nil
}
