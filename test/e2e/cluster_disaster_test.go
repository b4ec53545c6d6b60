//go:build e2e && long

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClusterDisaster loses a cluster with its application, the forge and the machine, which shared one vault. New ones, with nothing but
// the store and the password, bring all back by the commands of docs/disaster.md as they stand, and an auditor sees that it is all.
func TestClusterDisaster(t *testing.T) {
	c := startCluster(t, "backstay")
	bucket := t.TempDir()
	i := install(t, c, bucket)
	const ns = "shop"
	c.shop(t, ns, 500)
	mariadb, postgresql := c.shopData(t, ns)
	i.backstay(t, "backup", "app/"+ns)
	address, env := startS3(t, bucket) // the store as machines outside of the cluster see it
	url := "s3://vault/backstay?region=us-east-1&tls=false&endpoint=" + address
	machine := bareBackstay(t, append(env, "BACKSTAY_LOCATION="+url, "BACKSTAY_PASSWORD="+vaultPassword)...)
	lost := loseForge(t, machine)
	keys := []string{i.evidenceKeys(t), machine.ok(t, "evidence", "key")}
	if err := os.RemoveAll(machine.home); err != nil {
		t.Fatal(err)
	}
	c.down(t)

	lost.comesBack(t, append(env, "VAULT_URL="+url, "VAULT_PASSWORD="+vaultPassword)...)
	other := startCluster(t, "elsewhere")
	t.Cleanup(func() { other.down(t) })
	there := install(t, other, bucket)
	said := there.runScript(t, t.TempDir(), block(t, "docs/disaster.md", "sh cluster"))
	if !strings.Contains(said, "shop-") {
		t.Errorf("the commands list no point: %s", said)
	}
	other.shopReady(t, ns)
	if gotMariaDB, gotPostgreSQL := other.shopData(t, ns); gotMariaDB != mariadb || gotPostgreSQL != postgresql {
		t.Errorf("databases hold %q and %q, want %q and %q", gotMariaDB, gotPostgreSQL, mariadb, postgresql)
	}
	other.settled(t)
	other.noLeftovers(t)

	there.backstay(t, "backup", "app/"+ns)
	if found := there.evidence(t, keys...); found.exit != 0 || found.Statements != 3 || len(found.Signers) != 3 {
		t.Errorf("evidence %+v, want three points, each signed with a key of its own", found)
	}
}

// runScript runs a script of sh in dir, with kubectl and backstay that reach the cluster.
func (i *installed) runScript(t *testing.T, dir, script string) string {
	t.Helper()
	bin := t.TempDir()
	for name, path := range map[string]string{"kubectl": filepath.Join(i.dir, "programs", "kubectl"), "backstay": i.binary(t)} {
		text := fmt.Sprintf("#!/bin/sh\nexec nsenter -t %s -n %s \"$@\"\n", i.node, path)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return runScript(t, t.TempDir(), dir, script, "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(i.dir, "kubeconfig", "admin"))
}
