//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every page that opens with an example opens with one that works: its first block of sh is run here as it stands, in a directory with a
// repository named api, by a user who has never run Backstay.
func TestPagesOpenWithExamplesThatWork(t *testing.T) {
	for _, page := range []string{"git.md", "locations.md", "recovery.md"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
			if err != nil {
				t.Fatal(err)
			}
			_, rest, found := strings.Cut(string(text), "\n```sh\n")
			script, _, closed := strings.Cut(rest, "\n```\n")
			if !found || !closed {
				t.Fatal("it has no block of sh")
			}
			home, bin := t.TempDir(), t.TempDir()
			for name, variable := range map[string]string{"backstay": "BACKSTAY_TEST_BINARY", "kopia": "BACKSTAY_TEST_KOPIA"} {
				if err := os.Symlink(program(t, variable), filepath.Join(bin, name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(newWorkTree(t), filepath.Join(home, "api")); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-eux")
			cmd.Stdin = strings.NewReader(script)
			cmd.Dir = home
			cmd.Env = append(cleanEnv(), "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "KOPIA_CHECK_FOR_UPDATES=false")
			if r := finish(t, cmd); r.exit != 0 {
				t.Errorf("exit %d\n%s%s", r.exit, r.stdout, r.stderr)
			}
		})
	}
}
