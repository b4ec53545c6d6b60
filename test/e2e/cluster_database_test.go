//go:build e2e

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
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
	port      string
	socket    string
	authority string // of its certificate, PEM
	server    *exec.Cmd
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
	d := &databaseServer{cluster: c, port: freePort(t), socket: filepath.Join(dir, "socket")}
	certificate, authority := certificateFor(t, nodeAddress)
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	d.authority = string(authority)
	for name, content := range map[string][]byte{"authority.pem": authority, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // the server is another user
			t.Fatal(err)
		}
	}
	if err := exec.CommandContext(ctx, "chown", "mysql", dir).Run(); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	d.sql(t, `CREATE USER backstay@'%' IDENTIFIED BY 'it\'s "secret"'; GRANT ALL ON *.* TO backstay@'%'`)
	return d
}

func (d *databaseServer) start(t *testing.T) {
	t.Helper()
	dir := filepath.Dir(d.socket)
	d.server = d.command(context.Background(), "mariadbd", "--no-defaults", "--user=mysql", "--datadir="+filepath.Join(dir, "data"), "--socket="+d.socket,
		"--bind-address="+nodeAddress, "--port="+d.port, "--pid-file="+filepath.Join(dir, "pid"), "--log-bin="+filepath.Join(dir, "data", "log"),
		"--ssl-cert="+filepath.Join(dir, "authority.pem"), "--ssl-key="+filepath.Join(dir, "key.pem"),
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

// secrets are those by which policies reach the server.
func (d *databaseServer) secrets(t *testing.T) {
	t.Helper()
	_, stranger := certificateFor(t, nodeAddress)
	d.kubectlWith(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: orders}\nstringData: {password: %q, ca: %q, stranger: %q, cache: %q}\n",
		databasePassword, d.authority, stranger, cachePassword), "-n", system, "apply", "--server-side", "--force-conflicts", "-f", "-")
}

// server is how policies reach the server, whose certificate an authority has signed that a key of a Secret has.
func (d *databaseServer) reached(authority string) string {
	return fmt.Sprintf("engine: mysql, host: %s, port: %s, tls: {mode: verify, ca: {secretKeyRef: {name: orders, key: %s}}}, username: backstay, "+
		"password: {secretKeyRef: {name: orders, key: password}}, databases: [orders]", nodeAddress, d.port, authority)
}

// source is the source of a policy: an application with its databases in pods, whose volumes are left out, and one outside.
func (d *databaseServer) source(t *testing.T, namespace string) string {
	t.Helper()
	d.secrets(t)
	return fmt.Sprintf(`{applications: {namespaces: [%s], maxSkew: 10m, volumes: {exclude: ["data-mariadb-*", postgresql]}, databases: [
  {name: orders, %s},
  {name: shop, engine: mysql, databases: [shop], pod: {selector: {matchLabels: {app: mariadb}}}},
  {name: ledger, engine: postgres, host: /tmp, pod: {selector: {matchLabels: {app: postgresql}}}},
  {name: cache, engine: redis, password: {secretKeyRef: {name: orders, key: cache}}, pod: {selector: {matchLabels: {app: redis}}}}]}}`,
		namespace, d.reached("ca"))
}

const cachePassword = "p4ss $word"

// cache puts a Redis beside an application, with keys of several kinds.
func (c *cluster) cache(t *testing.T, namespace string) {
	t.Helper()
	c.apply(t, namespace, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {password: %q}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis}
spec:
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: redis
        image: lab.local/redis:7.0
        imagePullPolicy: Never
        command: [bash, -c, 'printf "%%s\n" "requirepass \"$PASSWORD\"" "repl-diskless-sync-delay 0" | exec redis-server -']
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}]
        readinessProbe: {exec: {command: [bash, -c, '[ "$(REDISCLI_AUTH=$PASSWORD redis-cli PING)" = PONG ]']}, periodSeconds: 1, failureThreshold: 100}
`, cachePassword))
	c.kubectl(t, "-n", namespace, "rollout", "status", "--timeout=240s", "deployment/redis")
	c.redis(t, namespace, `for i in {1..2000}; do echo "SET key$i value$i"; done | redis-cli --pipe; redis-cli LPUSH list a b c; redis-cli HSET map one 1 two 2
redis-cli -n 3 SET other "$(head -c 100000 /dev/zero | tr '\0' x)" PXAT 4102444800000`)
}

// redis runs a script beside the application's Redis.
func (c *cluster) redis(t *testing.T, namespace, script string) string {
	t.Helper()
	return c.exec(t, namespace, "deployment/redis", "bash", "-c", "set -e; export REDISCLI_AUTH=$PASSWORD\n"+script)
}

// cached is what the application's Redis has.
func (c *cluster) cached(t *testing.T, namespace string) string {
	t.Helper()
	return c.redis(t, namespace, `redis-cli DBSIZE; for i in {1..2000}; do echo "GET key$i"; done | redis-cli | md5sum; redis-cli LRANGE list 0 -1; redis-cli HGETALL map
redis-cli -n 3 STRLEN other; redis-cli -n 3 PEXPIRETIME other; redis-cli EXISTS intruder`)
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

// backupEnds waits for the end of the newest Backup of a policy.
func (c *cluster) backupEnds(t *testing.T, policy string) v1alpha1.BackupStatus {
	t.Helper()
	var s v1alpha1.BackupStatus
	c.wait(t, "the Backup of policy "+policy+" ends", 10*time.Minute, func() (bool, string) {
		s = c.backupStatus(t, policy)
		return s.Phase.Final(), string(s.Phase)
	})
	return s
}

// TestClusterDatabases: a server outside of the cluster and those in an application's pods are in one point with it, and come back
// equal; a dump whose server is killed is none. A server that belongs to no application has points of its own.
func TestClusterDatabases(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "shop-databases"
	c.shop(t, ns, 1000)
	c.cache(t, ns)
	d := c.databaseServer(t)
	d.sql(t, "ALTER USER backstay@'%' REQUIRE SSL")
	orders := d.fill(t, 2000)
	shop, ledger := c.shopData(t, ns)
	cache := c.cached(t, ns)
	policy := func(name, rest string) {
		c.apply(t, system, fmt.Sprintf("apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: {name: %s}\nspec: {location: main, %s}", name, rest))
	}
	policy("databases", "suspend: true, sources: ["+d.source(t, ns)+"]")
	policy("server", "sources: [{name: orders.example, database: {"+d.reached("ca")+"}}]")
	policy("stranger", "sources: [{name: stranger.example, database: {"+d.reached("stranger")+"}}]")

	i.backstay(t, "backup", "app/"+ns, "--policy", "databases")
	s := c.backupStatus(t, "databases")
	if s.Phase != v1alpha1.PhaseComplete || len(s.Databases) != 4 {
		t.Fatalf("backup %+v", s)
	}
	for _, d := range s.Databases {
		if d.Captured == nil || d.Captured.Before(&s.Instant.Begun) || s.Instant.Released.Before(d.Captured) || d.Position == "" && d.Name == "orders" {
			t.Errorf("database %+v of an instant from %s to %s", d, s.Instant.Begun, s.Instant.Released)
		}
	}
	t.Logf("instant %+v\ndatabases %+v", s.Instant, s.Databases)
	own := c.backupEnds(t, "server")
	if own.Phase != v1alpha1.PhaseComplete || len(own.Sources) != 1 || own.Sources[0].Point == "" {
		t.Fatalf("the server's own backup: %+v", own)
	}
	if s := c.backupEnds(t, "stranger"); s.Phase == v1alpha1.PhaseComplete || !strings.Contains(strings.Join(s.Problems, " "), "certificate") {
		t.Errorf("a server whose certificate somebody else has signed: %+v", s)
	}
	if said := i.fromVault(t, "show", s.Point); !strings.Contains(said, "skew ") || strings.Count(said, "after the point's time") != 4 ||
		!strings.Contains(said, "databases/orders: at log.0") {
		t.Errorf("the moments of databases are not shown:\n%s", said)
	}

	spoil := func() {
		d.sql(t, "DELETE FROM orders.data WHERE id > 10; CREATE TABLE orders.intruder (a INT)")
		c.exec(t, ns, "statefulset/mariadb", "mariadb", "-e", "DELETE FROM shop.data WHERE id % 2 = 0")
		c.exec(t, ns, "deployment/postgresql", "psql", "-q", "-h", "/tmp", "-U", "postgres", "-c", "DELETE FROM data WHERE id % 3 = 0")
		c.redis(t, ns, "redis-cli DEL key7 list; redis-cli SET intruder 1; redis-cli -n 3 FLUSHDB")
	}
	back := func(when string) {
		t.Helper()
		if got := d.sum(t); got != orders {
			t.Errorf("%s: the server outside has %q, had %q", when, got, orders)
		}
		if m, p := c.shopData(t, ns); m != shop || p != ledger {
			t.Errorf("%s: the pods' servers have %q and %q, had %q and %q", when, m, p, shop, ledger)
		}
		if got := c.cached(t, ns); got != cache {
			t.Errorf("%s: Redis has %q, had %q", when, got, cache)
		}
	}
	spoil()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(databasePassword), 0o600); err != nil {
		t.Fatal(err)
	}
	i.fromVault(t, "restore", own.Sources[0].Point, "--to", "mysql://backstay@"+net.JoinHostPort(nodeAddress, d.port)+"?tls=verify",
		"--ca-file", filepath.Join(filepath.Dir(d.socket), "authority.pem"), "--database-password-file", password, "--replace")
	if got := d.sum(t); got != orders {
		t.Errorf("the server's own point: it has %q, had %q", got, orders)
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
	if v := restore("keeps", ""); v.phase != v1alpha1.PhaseIncomplete || strings.Count(v.problems, "not empty") != 3 || !strings.Contains(v.problems, "has keys") {
		t.Errorf("a restore that keeps what is there: %+v", v)
	}
	if got := d.sum(t); got == orders {
		t.Error("a restore that keeps has replaced the database outside")
	}
	if v := restore("replaces", ", existing: replace"); v.phase == v1alpha1.PhaseFailed || strings.Contains(v.problems, "database ") || strings.Contains(v.problems, "volume of claim") {
		t.Fatalf("a restore that replaces: %+v", v)
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
