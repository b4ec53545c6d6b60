package vault

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStockKopia restores a point with kopia's own command, which BACKSTAY_TEST_KOPIA names.
func TestStockKopia(t *testing.T) {
	kopia := os.Getenv("BACKSTAY_TEST_KOPIA")
	if kopia == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("BACKSTAY_TEST_KOPIA must name kopia's command")
		}
		t.Skip("BACKSTAY_TEST_KOPIA does not name kopia's command")
	}
	dir, points := sample(t)
	v := openVault(t, dir, Options{})
	gone := backUp(t, v, repoA, 7, 1000).Point.ID
	must(t, v.Delete(t.Context(), gone))
	must(t, v.Close(t.Context()))
	home := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), kopia, args...)
		cmd.Env = []string{
			"HOME=" + home, "KOPIA_CONFIG_PATH=" + filepath.Join(home, "repo.config"), "KOPIA_PASSWORD=" + testPassword.Reveal(),
			"KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_CACHE_DIRECTORY=" + filepath.Join(home, "cache"), "KOPIA_LOG_DIR=" + home,
		}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("kopia %s: %v\n%s", strings.Join(args, " "), err, errs.Bytes())
		}
		return string(out)
	}
	run("repository", "connect", "filesystem", "--path", dir)
	list := run("snapshot", "list", "--all", "--tags", "id:"+anyKey(points))
	if !strings.Contains(list, "/repository/example.com/acme/api") {
		t.Errorf("kopia lists %q", list)
	}
	if list := run("snapshot", "list", "--all", "--json"); strings.Count(list, `"rootEntry"`) != len(points) {
		t.Errorf("kopia lists %s", list)
	}
	v = openVault(t, dir, Options{ReadOnly: true})
	l, err := v.manifests(t.Context())
	must(t, err)
	for _, s := range l.points {
		dest := filepath.Join(t.TempDir(), "kopia")
		run("snapshot", "restore", string(s.manifest), dest)
		ours := filepath.Join(t.TempDir(), "ours")
		_, r, err := v.Open(t.Context(), s.ID)
		must(t, err)
		must(t, r.Extract(t.Context(), ".", ours))
		sameTrees(t, ours, dest)
	}
	run("snapshot", "verify", "--verify-files-percent=100")
}

func anyKey(m map[string][]byte) string {
	for key := range m {
		return key
	}
	return ""
}

func sameTrees(t *testing.T, want, got string) {
	t.Helper()
	files := blobFiles(t, want, "")
	if g := blobFiles(t, got, ""); strings.Join(g, "\n") != strings.Join(files, "\n") {
		t.Fatalf("got files %q, want %q", g, files)
	}
	for _, f := range files {
		if !bytes.Equal(readFile(t, want, f), readFile(t, got, f)) {
			t.Errorf("%s differs", f)
		}
	}
}
