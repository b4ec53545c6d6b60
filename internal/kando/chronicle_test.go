package kando

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestChronicleKeepsTheNewestOutput(t *testing.T) {
	t.Parallel()
	server := newAzure(t)
	dir := t.TempDir()
	profile, artifact, env := filepath.Join(dir, "profile.json"), filepath.Join(dir, "path"), filepath.Join(dir, "env")
	must(t, os.WriteFile(artifact, []byte("db/chronicle\n"), 0o600))
	must(t, os.MkdirAll(filepath.Join(env, "..data"), 0o700)) // as Kubernetes mounts a Secret
	must(t, os.WriteFile(filepath.Join(env, "..data", "WHO"), []byte("it was me\n"), 0o600))
	must(t, os.Symlink("..data/WHO", filepath.Join(env, "WHO")))
	count := filepath.Join(dir, "count")
	command := `echo x >> ` + count + `; echo "$WHO $(wc -l < ` + count + `)"; test $(wc -l < ` + count + `) -lt 4`
	args := []string{"chronicle", "push", "-p", profile, "-s", artifact, "-e", env, "-f", "20ms", command}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := (&session{}).run(ctx, args...); err != nil {
		t.Errorf("without a profile: %v", err)
	}
	must(t, os.WriteFile(profile, []byte(inline(t, server.profile())), 0o600))
	if err := (&session{}).run(t.Context(), args...); !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("the command fails the fourth time: %v", err)
	}
	var names []string
	for name := range server.blobs {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"pre/fix/db/chronicle", "pre/fix/db/chronicle-2"}) {
		t.Errorf("blobs %v", names)
	}
	if got := kando(t, "", "chronicle", "pull", "-p", inline(t, server.profile()), "-s", "db/chronicle", "-"); got != "it was me 3\n" {
		t.Errorf("pulled %q", got)
	}
	must(t, os.Remove(count)) // another process goes on where this one ended
	if err := (&session{}).run(t.Context(), args...); !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("once more: %v", err)
	}
	if string(server.blobs["pre/fix/db/chronicle"]) != "db/chronicle-5" || len(server.blobs) != 2 {
		t.Errorf("the chronicle names %q of %d blobs", server.blobs["pre/fix/db/chronicle"], len(server.blobs))
	}
}

func TestWhatIsNoChronicleIsNotFollowed(t *testing.T) {
	t.Parallel()
	server := newAzure(t)
	profile := inline(t, server.profile())
	for _, text := range []string{"../secret", "db/chronicle-x", "db/chronicle-1/../../x", strings.Repeat("x", maxName+1)} {
		server.blobs["pre/fix/db/chronicle"] = []byte(text)
		refused(t, fault.ErrInvalid, "", "chronicle", "pull", "-p", profile, "-s", "db/chronicle", "-")
	}
	refused(t, fault.ErrNotFound, "", "chronicle", "pull", "-p", profile, "-s", "absent", "-")
	refused(t, fault.ErrInvalid, "", "chronicle", "push", "-p", "x", "true")
	refused(t, fault.ErrInvalid, "", "chronicle", "push", "-p", "x", "-s", "y")
}

func TestStreamGoesIntoTheConnectedRepository(t *testing.T) {
	t.Parallel()
	repository := newKopia(t)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/disk":
			_, _ = w.Write([]byte("sectors")) // the client watches
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("sectors"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(source.Close)
	args := []string{"stream", "push", "-c", repository.file("config"), "-d", "/mnt/data", "-f", "dir/disk.img"}
	push := func(password, path string) error {
		s := &session{env: map[string]string{"KOPIA_PASSWORD": password}}
		return s.run(t.Context(), append(args, source.URL+path)...)
	}
	if err := push("correct horse", "/cut"); !errors.Is(err, fault.ErrUnavailable) && !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a source that breaks: %v", err)
	}
	if err := push("correct horse", "/absent"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a source that is not there: %v", err)
	}
	if err := push("battery staple", "/disk"); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("a wrong password: %v", err)
	}
	if got := repository.sources(t); len(got) > 0 {
		t.Errorf("kopia lists %v", got)
	}
	must(t, push("correct horse", "/disk"))
	if got := repository.sources(t); len(got) != 1 || got["/mnt/data"] != 1 {
		t.Errorf("kopia lists %v", got)
	}
}
