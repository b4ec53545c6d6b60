//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// databaseServer is a MariaDB outside of a cluster, on its node's network.
type databaseServer struct {
	*cluster
	port   string
	socket string
	server *exec.Cmd
}

const databasePassword = "it's \"secret\""

// databaseServer starts a server that pods reach at nodeAddress, as user backstay. It ends with the test.
func (c *cluster) databaseServer(t *testing.T) *databaseServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "backstay-e2e-") //nolint:usetesting // a socket has a short name, and the server is another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db")
	if r := finish(t, install); r.exit != 0 {
		t.Fatalf("mariadb-install-db: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
	}
	if err := exec.CommandContext(ctx, "chown", "mysql", dir).Run(); err != nil {
		t.Fatal(err)
	}
	d := &databaseServer{cluster: c, port: freePort(t), socket: filepath.Join(dir, "socket")}
	d.start(t)
	d.sql(t, `CREATE USER backstay@'%' IDENTIFIED BY 'it\'s "secret"'; GRANT ALL ON *.* TO backstay@'%'`)
	return d
}

func (d *databaseServer) start(t *testing.T) {
	t.Helper()
	dir := filepath.Dir(d.socket)
	d.server = d.command(context.Background(), "mariadbd", "--no-defaults", "--user=mysql", "--datadir="+filepath.Join(dir, "data"), "--socket="+d.socket,
		"--bind-address="+nodeAddress, "--port="+d.port, "--pid-file="+filepath.Join(dir, "pid"), "--log-bin="+filepath.Join(dir, "data", "log"),
		"--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0")
	said := &lockedBuffer{}
	d.server.Stdout, d.server.Stderr = said, said
	if err := d.server.Start(); err != nil {
		t.Fatal(err)
	}
	server := d.server
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the database server said: %s", said)
		}
	})
	d.wait(t, "the database server answers", 2*time.Minute, func() (bool, string) {
		conn, err := d.dial(t.Context(), "tcp", net.JoinHostPort(nodeAddress, d.port))
		if err != nil {
			return false, err.Error() + said.String()
		}
		return conn.Close() == nil, ""
	})
}

// signal is sent to the server itself: nsenter has become it.
func (d *databaseServer) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := d.server.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (d *databaseServer) sql(t *testing.T, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mariadb", "--no-defaults", "--socket="+d.socket, "--user=root", "--batch", "--skip-column-names")
	cmd.Stdin = strings.NewReader(text)
	r := finish(t, cmd)
	if r.exit != 0 {
		t.Fatalf("mariadb: exit %d\n%s", r.exit, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// fill makes a table of so many rows of a thousand bytes, and gives its checksum.
func (d *databaseServer) fill(t *testing.T, rows int) string {
	t.Helper()
	d.sql(t, fmt.Sprintf("DROP DATABASE IF EXISTS orders; CREATE DATABASE orders; USE orders; CREATE TABLE orders.data (id INT PRIMARY KEY, payload BLOB); "+
		"INSERT INTO orders.data SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_%d", rows))
	return d.sum(t)
}

func (d *databaseServer) sum(t *testing.T) string {
	t.Helper()
	return d.sql(t, "CHECKSUM TABLE orders.data EXTENDED; SELECT COUNT(*) FROM orders.data")
}

// source is the source of a policy: an application with its two databases in pods, whose volumes are left out, and one outside.
func (d *databaseServer) source(t *testing.T, namespace string) string {
	t.Helper()
	d.kubectlWith(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: orders}\nstringData: {password: %q}\n", databasePassword),
		"-n", system, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return fmt.Sprintf(`{applications: {namespaces: [%s], maxSkew: 10m, volumes: {exclude: ["data-mariadb-*", postgresql]}, databases: [
  {name: orders, engine: mysql, host: %s, port: %s, tls: {mode: disable}, username: backstay, password: {secretKeyRef: {name: orders, key: password}}, databases: [orders]},
  {name: shop, engine: mysql, databases: [shop], pod: {selector: {matchLabels: {app: mariadb}}}},
  {name: ledger, engine: postgres, host: /tmp, pod: {selector: {matchLabels: {app: postgresql}}}}]}}`, namespace, nodeAddress, d.port)
}

// backupStatus is how the newest Backup of a policy stands.
func (c *cluster) backupStatus(t *testing.T, policy string) v1alpha1.BackupStatus {
	t.Helper()
	var all v1alpha1.BackupList
	if err := c.connect(t).Client.List(t.Context(), &all, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	var newest *v1alpha1.Backup
	for i := range all.Items {
		b := &all.Items[i]
		if b.Spec.Policy == policy && (newest == nil || newest.CreationTimestamp.Before(&b.CreationTimestamp)) {
			newest = b
		}
	}
	if newest == nil {
		return v1alpha1.BackupStatus{}
	}
	return newest.Status
}

// TestClusterDatabases: a server outside of the cluster and those in an application's pods are in one point with it, and come back
// equal; a dump whose server is killed is none.
func TestClusterDatabases(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "shop-databases"
	c.shop(t, ns, 1000)
	d := c.databaseServer(t)
	orders := d.fill(t, 2000)
	shop, ledger := c.shopData(t, ns)
	c.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: databases}
spec: {location: main, suspend: true, sources: [`+d.source(t, ns)+`]}`)

	i.backstay(t, "backup", "app/"+ns, "--policy", "databases")
	s := c.backupStatus(t, "databases")
	if s.Phase != v1alpha1.PhaseComplete || len(s.Databases) != 3 {
		t.Fatalf("backup %+v", s)
	}
	for _, d := range s.Databases {
		if d.Captured == nil || d.Captured.Before(&s.Instant.Begun) || s.Instant.Released.Before(d.Captured) || d.Position == "" && d.Name == "orders" {
			t.Errorf("database %+v of an instant from %s to %s", d, s.Instant.Begun, s.Instant.Released)
		}
	}
	t.Logf("instant %+v\ndatabases %+v", s.Instant, s.Databases)

	spoil := func() {
		d.sql(t, "DELETE FROM orders.data WHERE id > 10; CREATE TABLE orders.intruder (a INT)")
		c.exec(t, ns, "statefulset/mariadb", "mariadb", "-e", "DELETE FROM shop.data WHERE id % 2 = 0")
		c.exec(t, ns, "deployment/postgresql", "psql", "-q", "-h", "/tmp", "-U", "postgres", "-c", "DELETE FROM data WHERE id % 3 = 0")
	}
	back := func(when string) {
		t.Helper()
		if got := d.sum(t); got != orders {
			t.Errorf("%s: the server outside has %q, had %q", when, got, orders)
		}
		if m, p := c.shopData(t, ns); m != shop || p != ledger {
			t.Errorf("%s: the pods' servers have %q and %q, had %q and %q", when, m, p, shop, ledger)
		}
	}
	spoil()
	restore := func(name, more string) verdictOfRestore {
		c.apply(t, system, fmt.Sprintf("apiVersion: backstay.io/v1alpha1\nkind: Restore\nmetadata: {name: %s}\nspec: {restorePoint: %s, only: data%s}\n", name, s.RestorePoint, more))
		var r v1alpha1.Restore
		c.wait(t, "restore "+name+" ends", 10*time.Minute, func() (bool, string) {
			if err := c.connect(t).Client.Get(t.Context(), client.ObjectKey{Namespace: system, Name: name}, &r); err != nil {
				return false, err.Error()
			}
			return r.Status.Phase.Final(), string(r.Status.Phase)
		})
		return verdictOfRestore{r.Status.Phase, strings.Join(r.Status.Problems, "; ")}
	}
	if v := restore("keeps", ""); v.phase != v1alpha1.PhaseIncomplete || strings.Count(v.problems, "not empty") != 3 {
		t.Errorf("a restore that keeps what is there: %+v", v)
	}
	if got := d.sum(t); got == orders {
		t.Error("a restore that keeps has replaced the database outside")
	}
	if v := restore("replaces", ", existing: replace"); v.phase == v1alpha1.PhaseFailed || strings.Contains(v.problems, "database ") {
		t.Fatalf("a restore that replaces: %+v", v) // it names the claims that are left out
	}
	back("restored")

	t.Run("the server is killed", func(t *testing.T) {
		d.fill(t, 200_000)
		said := make(chan result, 1)
		go func() { said <- i.run(t, "backup", "app/"+ns, "--policy", "databases") }()
		c.wait(t, "the dump is under way", 5*time.Minute, func() (bool, string) {
			now := c.backupStatus(t, "databases")
			return now.Point == "" && now.Instant != nil && now.Databases[0].Captured != nil, string(now.Phase)
		})
		d.signal(t, syscall.SIGSTOP) // it writes no more
		if now := c.backupStatus(t, "databases"); !now.Dumping() || now.Databases[0].Stored {
			t.Fatalf("the dump was too fast: %+v", now.Databases)
		}
		d.signal(t, syscall.SIGKILL)
		if r := <-said; r.exit != 3 {
			t.Errorf("backup: exit %d\n%s%s", r.exit, r.stdout, r.stderr)
		}
		now := c.backupStatus(t, "databases")
		if now.Phase != v1alpha1.PhaseIncomplete || now.Databases[0].Stored || !now.Databases[1].Stored || now.Parts.Carried != 1 {
			t.Errorf("backup %+v", now)
		}
		t.Log(now.Databases[0].Problem)
		s.RestorePoint = now.RestorePoint
		_ = d.server.Wait()
		d.start(t)
		if v := restore("carried", ", existing: replace"); v.phase == v1alpha1.PhaseFailed {
			t.Errorf("a restore of the older copy: %+v", v)
		}
		back("carried")
	})
}

type verdictOfRestore struct {
	phase    v1alpha1.Phase
	problems string
}
