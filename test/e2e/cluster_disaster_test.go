//go:build e2e && long

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClusterDisaster loses a cluster with its application. Another, with nothing but the store and the password, brings it back by the
// commands of docs/disaster.md as they stand.
func TestClusterDisaster(t *testing.T) {
	c := startCluster(t, "backstay")
	bucket := t.TempDir()
	i := install(t, c, bucket)
	const ns = "shop"
	c.shop(t, ns, 500)
	mariadb, postgresql := c.shopData(t, ns)
	i.backstay(t, "backup", "app/"+ns)
	c.down(t)

	other := startCluster(t, "backstay2")
	t.Cleanup(func() { other.down(t) })
	install(t, other, bucket)
	bin := t.TempDir()
	for name, path := range map[string]string{
		"kubectl": filepath.Join(other.dir, "programs", "kubectl"), "backstay": program(t, "BACKSTAY_TEST_BINARY"),
	} {
		var script bytes.Buffer
		fmt.Fprintf(&script, "#!/bin/sh\nexec nsenter -t %s -n %s \"$@\"\n", other.node, path)
		if err := os.WriteFile(filepath.Join(bin, name), script.Bytes(), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	said := runScript(t, t.TempDir(), root(t), block(t, filepath.Join("docs", "disaster.md"), "sh cluster"),
		"PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(other.dir, "kubeconfig", "admin"))
	if !strings.Contains(said, "shop-") {
		t.Errorf("the commands list no point: %s", said)
	}
	other.shopReady(t, ns)
	if gotMariaDB, gotPostgreSQL := other.shopData(t, ns); gotMariaDB != mariadb || gotPostgreSQL != postgresql {
		t.Errorf("databases hold %q and %q, want %q and %q", gotMariaDB, gotPostgreSQL, mariadb, postgresql)
	}
	other.noLeftovers(t)
}
