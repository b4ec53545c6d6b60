//go:build e2e

package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A vault outlives Backstay: docs/recovery.md shows these commands.
func TestStockKopiaRestoresAPoint(t *testing.T) {
	kopia := program(t, "BACKSTAY_TEST_KOPIA")
	source := newWorkTree(t)
	b := newBackstay(t, "BACKSTAY_HOSTNAME=example.org")
	first := b.backup(t, source)
	want := t.TempDir()
	git(t, "", "clone", "--quiet", "--mirror", source, want+"/mirror")
	git(t, source, "commit", "--quiet", "--amend", "--allow-empty", "-m", "history rewritten") // the first point stands on its own
	b.backup(t, source)

	dir := t.TempDir()
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), kopia, append(args, "--config-file", filepath.Join(dir, "config"), "--log-dir", filepath.Join(dir, "logs"))...)
		cmd.Env = append(cleanEnv(), "HOME="+dir, "KOPIA_PASSWORD="+password, "KOPIA_CHECK_FOR_UPDATES=false")
		r := finish(t, cmd)
		if r.exit != 0 {
			t.Fatalf("kopia %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
		}
		return r.stdout
	}
	run("repository", "connect", "filesystem", "--readonly", "--path", b.vault)
	var snapshots []struct {
		ID   string            `json:"id"`
		Tags map[string]string `json:"tags"`
	}
	if err := json.Unmarshal([]byte(run("snapshot", "list", "--all", "--json")), &snapshots); err != nil {
		t.Fatal(err)
	}
	manifest := ""
	for _, s := range snapshots {
		for _, tag := range s.Tags {
			if tag == first.Point.ID {
				manifest = s.ID
			}
		}
	}
	if manifest == "" {
		t.Fatalf("no snapshot is tagged with the point's id %s: %+v", first.Point.ID, snapshots)
	}
	restored := filepath.Join(dir, "restored")
	run("snapshot", "restore", manifest, restored)
	same(t, filepath.Join(restored, first.Point.Parts[0].Name), filepath.Join(want, "mirror"))
	run("snapshot", "verify", "--verify-files-percent=100")
}
