package kando

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

// kopiaServer is a kopia API server of a repository on the disk.
type kopiaServer struct {
	program string
	dir     string
	address string
}

const kopiaPassword = "hunter2-of-kopia"

// newKopia starts the API server of kopia's own command, which BACKSTAY_TEST_KOPIA names.
func newKopia(t *testing.T) *kopiaServer {
	t.Helper()
	program := os.Getenv("BACKSTAY_TEST_KOPIA")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_KOPIA must name kopia's command")
		}
		t.Skip("BACKSTAY_TEST_KOPIA does not name kopia's command")
	}
	s := &kopiaServer{program: program, dir: t.TempDir(), address: freeAddress(t)}
	s.kopia(t, "repository", "create", "filesystem", "--path", t.TempDir(), "--no-check-for-updates")
	s.kopia(t, "server", "users", "add", "kando@pod", "--user-password", kopiaPassword)
	ctx, cancel := context.WithCancel(context.Background())
	server := s.command(ctx, "server", "start", "--address", s.address, "--tls-generate-cert", "--tls-cert-file", s.file("cert"),
		"--tls-key-file", s.file("key"), "--server-password", "not-of-the-tests")
	must(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
	})
	return s
}

func (s *kopiaServer) file(name string) string { return filepath.Join(s.dir, name) }

func (s *kopiaServer) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program, append(args, "--config-file", s.file("config"), "--log-dir", s.file("log"))...)
	cmd.Env = append(os.Environ(), "KOPIA_PASSWORD=correct horse", "KOPIA_CACHE_DIRECTORY="+s.file("cache"), "KOPIA_CHECK_FOR_UPDATES=false")
	return cmd
}

func (s *kopiaServer) kopia(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(t.Context(), args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("kopia %v: %v: %s", args, err, failed.Stderr)
	}
	must(t, err)
	return string(out)
}

// profile waits for the certificate that the server makes.
func (s *kopiaServer) profile(t *testing.T) Document {
	t.Helper()
	var cert []byte
	must(t, again(t.Context(), requestTime, func(context.Context) (err error) {
		cert, err = os.ReadFile(s.file("cert"))
		if err != nil || len(cert) == 0 {
			return fault.ErrUnavailable
		}
		return nil
	}))
	return Document{
		Location: Location{Type: TypeKopia, Bucket: "b", Endpoint: "https://" + s.address},
		Credential: Credential{Type: CredentialKopia, KopiaServerSecret: &KopiaServer{
			Username: "kando", Hostname: "pod", Password: kopiaPassword, Cert: string(cert), ConnectOptions: map[string]int{"dataStoreGeneralContentCacheSize": 0},
		}},
	}
}

// sources are what stock kopia lists, with the number of files of each.
func (s *kopiaServer) sources(t *testing.T) map[string]int {
	t.Helper()
	var list []struct {
		Source struct{ Path string }
		Stats  struct{ FileCount int }
	}
	must(t, json.Unmarshal([]byte(s.kopia(t, "snapshot", "list", "--all", "--incomplete", "--json")), &list))
	found := map[string]int{}
	for _, m := range list {
		found[m.Source.Path] = m.Stats.FileCount
	}
	return found
}

func TestKopiaServer(t *testing.T) {
	t.Parallel()
	server := newKopia(t)
	d := server.profile(t)
	profile, dir := inline(t, d), newTree(t)
	value, made := printed(t, kando(t, "", "location", "push", "--profile", profile, "--path", "b/gickup-backups", "-o", "kopiaOutput", dir), "kopiaOutput")
	stream, _ := printed(t, kando(t, "select 1;", "location", "push", "-p", profile, "-s", "/mysql/1/dump.sql", "-"), "kandoOutput")
	loose, _ := printed(t, kando(t, "loose", "location", "push", "-p", profile, "-s", "dump.sql", "-"), "kandoOutput")
	file, _ := printed(t, kando(t, "", "location", "push", "-p", profile, filepath.Join(dir, "logs", "gickup.log")), "kandoOutput")
	if made.LogicalSize != 7 || made.PhysicalSize == 0 {
		t.Errorf("printed %+v", made)
	}
	if got := server.sources(t); len(got) != 4 || got[dir] != 3 || got["/mysql/1"] != 1 || got["/kanister-backups"] != 1 {
		t.Errorf("kopia lists %v", got)
	}
	over := t.TempDir()
	must(t, os.WriteFile(filepath.Join(over, "empty"), []byte("written since"), 0o600))
	kando(t, "", "location", "pull", "-p", profile, "-s", "/backups", "-k", value, over)
	same(t, tree(t, over), tree(t, dir))
	for id, want := range map[string]string{stream: "select 1;", loose: "loose", file: "done\n"} {
		if got := kando(t, "", "location", "pull", "-p", profile, "-s", "x/dump.sql", "-k", id, "-"); got != want {
			t.Errorf("pulled %q, want %q", got, want)
		}
	}
	to := filepath.Join(t.TempDir(), "log")
	kando(t, "", "location", "pull", "-p", profile, "-k", file, to)
	if b, err := os.ReadFile(to); err != nil || string(b) != "done\n" {
		t.Errorf("the file is %q, %v", b, err)
	}
	for range 2 {
		kando(t, "", "location", "delete", "-p", profile, "-s", "x", "-k", value)
	}
	refused(t, fault.ErrNotFound, "", "location", "pull", "-p", profile, "-k", value, over)
	refused(t, fault.ErrNotFound, "", "location", "pull", "-p", profile, "-s", "another.sql", "-k", stream, "-")
	if got := server.sources(t); len(got) != 3 || got[dir] != 0 {
		t.Errorf("kopia lists %v", got)
	}
}

func TestKopiaServerListsNothingThatFailed(t *testing.T) {
	t.Parallel()
	server := newKopia(t)
	d := server.profile(t)
	reset := errors.New("connection reset")
	s := &session{stdin: broken(10<<20, reset)}
	if err := s.run(t.Context(), "location", "push", "-p", inline(t, d), "-s", "x", "-"); !errors.Is(err, reset) || s.stdout.Len() > 0 {
		t.Errorf("a stream that broke: %v, printed %q", err, s.stdout.String())
	}
	if got := server.sources(t); len(got) > 0 {
		t.Errorf("kopia lists %v", got)
	}
	other := *d.Credential.KopiaServerSecret
	other.Password = "battery staple"
	wrong := d
	wrong.Credential.KopiaServerSecret = &other
	if err := refused(t, fault.ErrDenied, "x", "location", "push", "-p", inline(t, wrong), "-s", "x", "-"); strings.Contains(err.Error(), "staple") {
		t.Errorf("the password shows: %v", err)
	}
	other.Cert = "none"
	refused(t, fault.ErrInvalid, "x", "location", "push", "-p", inline(t, wrong), "-s", "x", "-")
}
