package vault

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/webdav"
	"golang.org/x/sys/unix"

	"github.com/backstay/backstay/internal/fault"
)

// tryOut makes a vault in a location, writes a point, opens the vault again and reads it.
func tryOut(t *testing.T, l Location) {
	t.Helper()
	if _, err := Open(t.Context(), l, testPassword, Options{}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("before it was made: got %v, want not found", err)
	}
	must(t, Create(t.Context(), l, testPassword, Options{}))
	v, err := Open(t.Context(), l, testPassword, Options{})
	must(t, err)
	id := pointOf(t, v, "a", noise(1, 2<<20))
	noSecretOnDisk(t, v)
	_, err = v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	must(t, v.Close(t.Context()))
	readsBack(t, openLocation(t, l, Options{}), id, noise(1, 2<<20))
}

func TestWebDAVVault(t *testing.T) {
	dir := t.TempDir()
	dav := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, ok := r.BasicAuth(); !ok || name != "ann" || password != s3Secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		dav.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	l := mustParse(t, "webdav://"+strings.TrimPrefix(server.URL, "http://")+"/some/where")
	t.Setenv("BACKSTAY_WEBDAV_USERNAME", "ann")
	t.Setenv("BACKSTAY_WEBDAV_PASSWORD", "hunter22")
	if _, err := l.storage(t.Context(), os.Getenv, false); !errors.Is(err, fault.ErrDenied) || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("wrong password: got %v, want denied", err)
	}
	t.Setenv("BACKSTAY_WEBDAV_PASSWORD", s3Secret)
	tryOut(t, l)
}

// TestCredentialsFromElsewhere opens a location with credentials that are not in the environment.
func TestCredentialsFromElsewhere(t *testing.T) {
	handler := &webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, ok := r.BasicAuth(); !ok || name != "ann" || password != s3Secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	l := mustParse(t, "webdav://"+strings.TrimPrefix(server.URL, "http://")+"/vault")
	o := Options{Env: func(name string) string {
		return map[string]string{"BACKSTAY_WEBDAV_USERNAME": "ann", "BACKSTAY_WEBDAV_PASSWORD": s3Secret}[name]
	}}
	must(t, Create(t.Context(), l, testPassword, o))
	v, err := Open(t.Context(), l, testPassword, o)
	must(t, err)
	must(t, v.Close(t.Context()))
	if _, err := Open(t.Context(), l, testPassword, Options{}); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("without them: got %v, want denied", err)
	}
	gs := mustParse(t, "gs://bucket")
	if got := gcsOptions(gs, func(string) string { return "/etc/key.json" }).ServiceAccountCredentialsFile; got != "/etc/key.json" {
		t.Errorf("gs takes credentials from %q", got)
	}
	if got := gcsOptions(gs, os.Getenv).ServiceAccountCredentialsFile; got != "" {
		t.Errorf("gs takes the environment's credentials from %q itself", got)
	}
}

// sshServer starts the system's sshd for one user, and gives the location of a directory on it.
func sshServer(t *testing.T) (l Location, home string) {
	t.Helper()
	const sshd = "/usr/sbin/sshd"
	if _, err := os.Stat(sshd); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and sshd (package openssh-server)")
		}
		t.Skip("needs root and sshd (package openssh-server)")
	}
	me, err := user.Current()
	must(t, err)
	must(t, os.MkdirAll("/run/sshd", 0o755)) // where sshd shuts its children in
	home = t.TempDir()
	must(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
	file := func(name string) string { return filepath.Join(home, ".ssh", name) }
	for _, name := range []string{"host", "id_ed25519", "stranger"} {
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file(name)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	address := freeAddress(t)
	host, err := os.ReadFile(file("host.pub"))
	must(t, err)
	ip, port, _ := strings.Cut(address, ":")
	must(t, os.WriteFile(file("known_hosts"), []byte("["+ip+"]:"+port+" "+string(host)), 0o600))
	config := strings.Join([]string{
		"ListenAddress " + address, "HostKey " + file("host"), "AuthorizedKeysFile " + file("id_ed25519.pub"), "StrictModes no",
		"UsePAM no", "PidFile none", "PermitRootLogin yes", "Subsystem sftp internal-sftp",
	}, "\n") + "\n"
	must(t, os.WriteFile(file("sshd_config"), []byte(config), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, sshd, "-D", "-e", "-f", file("sshd_config"))
	var said bytes.Buffer
	server.Stderr = &said
	must(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
		if t.Failed() {
			t.Logf("sshd said: %s", said.String())
		}
	})
	for k, v := range map[string]string{
		"HOME": home, "BACKSTAY_SFTP_KEYFILE": "", "BACKSTAY_SFTP_PASSWORD": "", "BACKSTAY_SFTP_KNOWN_HOSTS": "",
	} {
		t.Setenv(k, v)
	}
	l = mustParse(t, "sftp://"+me.Username+"@"+address+filepath.Join(home, "vault"))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		st, err := l.storage(t.Context(), os.Getenv, true)
		if err == nil {
			must(t, st.Close(t.Context()))
			return l, home
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not answer: %v", err)
		}
	}
}

func TestSFTPVault(t *testing.T) {
	l, home := sshServer(t)
	tryOut(t, l)
	t.Run("a key that the server does not know", func(t *testing.T) {
		t.Setenv("BACKSTAY_SFTP_KEYFILE", filepath.Join(home, ".ssh", "stranger"))
		deniedWith(t, l, "BACKSTAY_SFTP_KEYFILE")
	})
	t.Run("a server whose key is another than is known", func(t *testing.T) {
		stranger, err := os.ReadFile(filepath.Join(home, ".ssh", "stranger.pub"))
		must(t, err)
		known := filepath.Join(t.TempDir(), "known_hosts")
		must(t, os.WriteFile(known, []byte("["+strings.Replace(l.host, ":", "]:", 1)+" "+string(stranger)), 0o600))
		t.Setenv("BACKSTAY_SFTP_KNOWN_HOSTS", known)
		deniedWith(t, l, "known_hosts")
	})
	t.Run("no known hosts at all", func(t *testing.T) {
		t.Setenv("BACKSTAY_SFTP_KNOWN_HOSTS", filepath.Join(t.TempDir(), "none"))
		deniedWith(t, l, "known_hosts")
	})
	t.Run("no key", func(t *testing.T) {
		t.Setenv("BACKSTAY_SFTP_KNOWN_HOSTS", filepath.Join(home, ".ssh", "known_hosts"))
		t.Setenv("HOME", t.TempDir())
		deniedWith(t, l, "BACKSTAY_SFTP_KEYFILE")
	})
}

func deniedWith(t *testing.T, l Location, hint string) {
	t.Helper()
	_, err := l.storage(t.Context(), os.Getenv, false)
	if !errors.Is(err, fault.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), " "), hint) {
		t.Errorf("got %v, hints %q, want denied: %s", err, fault.Hints(err), hint)
	}
	if err != nil && strings.Contains(err.Error(), "ClientConfig") {
		t.Errorf("the error tells too much: %v", err)
	}
}

// smallDisk mounts a file system of a few megabytes.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("needs leave to mount: %v", err)
		}
		t.Skipf("needs leave to mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := filepath.Join(smallDisk(t), "vault")
	l := mustParse(t, dir)
	must(t, Create(t.Context(), l, testPassword, Options{}))
	v := openLocation(t, l, Options{})
	kept := pointOf(t, v, "a", noise(1, 1<<20))
	_, err := tryPoint(t, v, "b", noise(2, 8<<20))
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(strings.Join(fault.Hints(err), " "), "full") {
		t.Errorf("got %v, hints %q, want refused: full", err, fault.Hints(err))
	}
	readsBack(t, openLocation(t, l, Options{ReadOnly: true}), kept, noise(1, 1<<20))
}

func TestReadOnlyDisk(t *testing.T) {
	disk := smallDisk(t)
	l := mustParse(t, filepath.Join(disk, "vault"))
	must(t, Create(t.Context(), l, testPassword, Options{}))
	v := openLocation(t, l, Options{})
	kept := pointOf(t, v, "a", noise(1, 1<<20))
	must(t, v.Close(t.Context()))
	must(t, unix.Mount("none", disk, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	v = openLocation(t, l, Options{})
	readsBack(t, v, kept, noise(1, 1<<20))
	for name, try := range map[string]func() error{
		"back up":  func() error { _, err := tryPoint(t, v, "b", []byte("x")); return err },
		"maintain": func() error { _, err := v.Maintain(t.Context(), MaintainOptions{}); return err },
		"create": func() error {
			return Create(t.Context(), mustParse(t, filepath.Join(disk, "other")), testPassword, Options{})
		},
	} {
		if err := try(); !errors.Is(err, fault.ErrRefused) || !strings.Contains(strings.Join(fault.Hints(err), " "), "read-only") {
			t.Errorf("%s: got %v, hints %q, want refused: read-only", name, err, fault.Hints(err))
		}
	}
}
