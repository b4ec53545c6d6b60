//go:build e2e && long

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
)

// TestClusterPasswordIsChanged changes the password of a vault by the commands of docs/keys.md as they stand, while backups go on: none
// fails, and afterwards nobody needs the old one.
func TestClusterPasswordIsChanged(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "rotation"
	c.tally(t, ns, "csi-hostpath-sc")
	i.backstay(t, "backup", "app/"+ns)

	binary := i.binary(t)
	ctx, end := context.WithCancel(t.Context())
	var ended atomic.Int64
	var failed []string
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	all.Go(func() {
		for ctx.Err() == nil {
			if out, err := i.command(t.Context(), binary, "backup", "app/"+ns).CombinedOutput(); err != nil {
				failed = append(failed, err.Error()+"\n"+string(out))
			}
			ended.Add(1)
		}
	})
	another := func() { // one that is under way now, and one that begins later
		seen := ended.Load()
		c.wait(t, "two more backups end", 5*time.Minute, func() (bool, string) { return ended.Load() >= seen+2, "" })
	}
	another()
	dir := t.TempDir()
	i.runScript(t, dir, block(t, "docs/keys.md", "sh cluster"))
	another()
	end()
	all.Wait()
	for _, said := range failed {
		t.Errorf("a backup failed: %s", said)
	}

	next, err := os.ReadFile(filepath.Join(dir, "next"))
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "-n", system, "patch", "secret", "vault", "--type=json", "-p", `[{"op": "remove", "path": "/data/password"}]`)
	i.backstay(t, "backup", "app/"+ns)
	c.deleteNamespace(t, ns)
	i.backstay(t, "restore", "app/"+ns, "--yes")
	c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=120s", "deployment/counter")
	if r := i.off(t, t.TempDir(), "points"); r.exit != 5 {
		t.Errorf("with the old password: exit %d, %s", r.exit, r.stderr)
	}
	var list struct{ Points []point.Point }
	decode(t, i.offWith(t, strings.TrimSpace(string(next)), t.TempDir(), "points", "--json").stdout, &list)
	if want := int(ended.Load()) + 2; len(list.Points) != want {
		t.Errorf("%d points, want %d", len(list.Points), want)
	}
	c.settled(t)
	c.noLeftovers(t)
}
