//go:build e2e && long

package e2e

import (
	"strings"
	"testing"
)

// TestClusterApplicationGoesElsewhere restores into another namespace, and into a cluster that knows nothing but location and password.
func TestClusterApplicationGoesElsewhere(t *testing.T) {
	c := startCluster(t, "backstay")
	bucket := t.TempDir()
	i := install(t, c, bucket)
	const ns = "shop"
	c.shop(t, ns, 2000)
	mariadb, postgresql := c.shopData(t, ns)
	i.backstay(t, "backup", "app/"+ns)

	check := func(c *cluster, namespace string) {
		t.Helper()
		c.shopReady(t, namespace)
		gotMariaDB, gotPostgreSQL := c.shopData(t, namespace)
		if gotMariaDB != mariadb || gotPostgreSQL != postgresql {
			t.Errorf("%s: databases hold %q and %q, want %q and %q", namespace, gotMariaDB, gotPostgreSQL, mariadb, postgresql)
		}
		subject := c.kubectl(t, "-n", namespace, "get", "rolebinding", "shop", "-o", "jsonpath={.subjects[0].namespace}")
		if subject != namespace {
			t.Errorf("the role of %s is bound to an account of %s", namespace, subject)
		}
	}
	c.deleteNamespace(t, "copy")
	i.backstay(t, "restore", "app/"+ns, "--to-namespace", "copy", "--yes")
	check(c, "copy")
	c.deleteNamespace(t, "copy")

	other := startCluster(t, "elsewhere")
	t.Cleanup(func() { other.down(t) })
	there := install(t, other, bucket)
	if listed := there.backstay(t, "points", "app/"+ns); !strings.Contains(listed, ns) {
		t.Fatalf("points there: %s", listed)
	}
	there.backstay(t, "restore", "app/"+ns, "--yes")
	check(other, ns)
	other.settled(t)
	other.noLeftovers(t)
}
