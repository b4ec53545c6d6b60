//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fullSize is as many rows as make about 200 MB in each of the application's databases.
const fullSize = 200_000

// shop puts the application of test/cluster/app into a namespace of that name, with so many rows in each database, and waits until it
// is ready.
func (c *cluster) shop(t *testing.T, namespace string, rows int) {
	t.Helper()
	c.newNamespace(t, namespace)
	c.clean(t, "delete", "clusterrole/"+namespace+"-nodes", "clusterrolebinding/"+namespace+"-nodes", "--ignore-not-found")
	c.apply(t, namespace, manifest(t, "definition.yaml"))
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=240s", "crd/widgets.shop.backstay.io")
	fill := strings.NewReplacer("${NAMESPACE}", namespace, "${ROWS}", strconv.Itoa(rows))
	c.apply(t, namespace, fill.Replace(manifest(t, "app.yaml")))
	c.shopReady(t, namespace)
}

// shopReady waits until the application's workloads are ready, with their data.
func (c *cluster) shopReady(t *testing.T, namespace string) {
	t.Helper()
	for _, workload := range []string{"statefulset/mariadb", "deployment/postgresql", "deployment/counter"} {
		c.kubectl(t, "-n", namespace, "rollout", "status", "--timeout=240s", workload)
	}
}

func manifest(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "cluster", "app", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// shopData is what tells the data of two shops apart: checksums of the databases, that is of every row.
func (c *cluster) shopData(t *testing.T, namespace string) (mariadb, postgresql string) {
	t.Helper()
	mariadb = c.exec(t, namespace, "statefulset/mariadb", "mariadb", "-N", "-e", "CHECKSUM TABLE shop.data EXTENDED; SELECT COUNT(*) FROM shop.data")
	postgresql = c.exec(t, namespace, "deployment/postgresql", "psql", "-At", "-h", "/tmp", "-U", "postgres", "-c",
		"SELECT count(*), sum(hashtextextended(encode(payload, 'hex'), id)) FROM data")
	return strings.TrimSpace(mariadb), strings.TrimSpace(postgresql)
}

// count is how far the counter came on one volume, and when.
type count struct {
	Count int64     `json:"count"`
	At    time.Time `json:"at"`
}

// counters reads how far the counter is on both volumes, which have no gaps. The second volume is written after the first.
func (c *cluster) counters(t *testing.T, namespace string) (first, second count) {
	t.Helper()
	return both(t, c.exec(t, namespace, "deployment/counter", "/counter", "check", "/a/count", "/b/count"))
}

// countersFound is what the counter found on its volumes when its pod started, so what a restore brought.
func (c *cluster) countersFound(t *testing.T, namespace string) (first, second count) {
	t.Helper()
	line, _, _ := strings.Cut(c.kubectl(t, "-n", namespace, "logs", "deployment/counter"), "\n")
	return both(t, line)
}

func both(t *testing.T, said string) (first, second count) {
	t.Helper()
	var counts []count
	decode(t, said, &counts)
	if len(counts) != 2 {
		t.Fatalf("%d counters, want 2: %s", len(counts), said)
	}
	return counts[0], counts[1]
}

// TestClusterApplication holds the application, and the cluster below it, to what the tests of backups count on: its data is whole after
// every pod of it and the API server died.
func TestClusterApplication(t *testing.T) {
	c := startCluster(t, "backstay")
	const ns, rows = "shop-tried", 2000
	c.shop(t, ns, rows)
	mariadb, postgresql := c.shopData(t, ns)
	for database, said := range map[string]string{"MariaDB": mariadb, "PostgreSQL": postgresql} {
		if !strings.Contains(said, strconv.Itoa(rows)) {
			t.Errorf("%s says %q, want %d rows", database, said, rows)
		}
	}
	before, _ := c.counters(t, ns)

	c.kill(t, "kube-apiserver")
	c.wait(t, "the API server is back", 3*time.Minute, func() (bool, string) {
		r := c.try(t, "", "-n", ns, "delete", "pods", "--all", "--grace-period=0", "--force")
		return r.exit == 0, r.stderr
	})
	c.wait(t, "pods are there again", 4*time.Minute, func() (bool, string) {
		ready := c.kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
		return ready == "True True True", ready
	})
	if m, p := c.shopData(t, ns); m != mariadb || p != postgresql {
		t.Errorf("the databases say %q and %q, want %q and %q as before", m, p, mariadb, postgresql)
	}
	if first, second := c.countersFound(t, ns); first.Count < before.Count || first.Count-second.Count < 0 || first.Count-second.Count > 1 {
		t.Errorf("the counter found %d and %d, want equal or one apart, and no less than %d", first.Count, second.Count, before.Count)
	}

	if _, err := c.connect(t).Name(t.Context()); err != nil {
		t.Error("the API from outside: ", err)
	}
	url, env := c.s3(t, t.TempDir())
	vault := c.command(t.Context(), program(t, "BACKSTAY_TEST_BINARY"), "location", "create", url)
	vault.Env = append(append(vault.Env, "BACKSTAY_PASSWORD="+password, "HOME="+t.TempDir()), env...)
	if r := finish(t, vault); r.exit != 0 {
		t.Errorf("location create: exit %d\n%s", r.exit, r.stderr)
	}
}

// tally is the smallest application with two volumes: the counter, and a ConfigMap.
func (c *cluster) tally(t *testing.T, namespace, class string) {
	t.Helper()
	c.newNamespace(t, namespace)
	c.apply(t, namespace, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a}
spec: {storageClassName: %[1]s, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: b}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: counter}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: counter}}
  template:
    metadata: {labels: {app: counter}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: counter
        image: lab.local/counter:1
        imagePullPolicy: Never
        args: [write, /a/count, /b/count]
        volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]
      volumes:
      - {name: a, persistentVolumeClaim: {claimName: a}}
      - {name: b, persistentVolumeClaim: {claimName: b}}
`, class))
	c.kubectl(t, "-n", namespace, "rollout", "status", "--timeout=240s", "deployment/counter")
}
