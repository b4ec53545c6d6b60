//go:build e2e && long

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// store is an application that Argo CD deploys behind Backstay's gate, with a MariaDB in a pod, whose volume is left to the dump, and
// another one outside of the cluster. A migration is a hook.
type store struct {
	*shop
	outside *databaseServer
}

// files are those of a revision.
func (s *store) files(t *testing.T, version, migration string) map[string]string {
	t.Helper()
	return map[string]string{
		"gate.yaml":     gateOf(t),
		"settings.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {version: " + version + "}}\n",
		"stock.yaml": `
apiVersion: v1
kind: Service
metadata: {name: stock}
spec: {selector: {app: stock}, ports: [{port: 3306}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: stock}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 512Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stock}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: stock}}
  template:
    metadata: {labels: {app: stock}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
        - name: mariadb
          image: "lab.local/mariadb:10.11"
          imagePullPolicy: Never
          command: [bash, -c]
          args:
            - |
              mkdir -p /run/mysqld; chown mysql /run/mysqld /var/lib/mysql
              [ -d /var/lib/mysql/mysql ] || mariadb-install-db --user=mysql --auth-root-authentication-method=normal >/dev/null
              printf '%s;\n' "CREATE USER IF NOT EXISTS migration@'%'" "GRANT ALL ON *.* TO migration@'%'" > /run/mysqld/init
              exec mariadbd --user=mysql --bind-address='*' --skip-name-resolve --init-file=/run/mysqld/init --innodb-log-file-size=16M
          readinessProbe: {exec: {command: [mariadb, -e, SELECT 1]}, periodSeconds: 2, failureThreshold: 100}
          volumeMounts: [{name: data, mountPath: /var/lib/mysql}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: stock}}]
`,
		"migration.yaml": fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata:
  name: migration
  annotations: {argocd.argoproj.io/hook: PreSync, argocd.argoproj.io/hook-delete-policy: BeforeHookCreation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: migration
          image: "lab.local/mariadb:10.11"
          imagePullPolicy: Never
          env: [{name: PASSWORD, value: %q}]
          command: [bash, -ec]
          args:
            - |
              stock() { mariadb --host="$STOCK_SERVICE_HOST" --user=migration --execute="$1"; }
              orders() { MYSQL_PWD="$PASSWORD" mariadb --host=%s --port=%s --user=backstay --execute="$1"; }
              %s
`, databasePassword, nodeAddress, s.outside.port, migration),
	}
}

// wrecks is a migration that takes a table for unused, and mixes up the rows of others.
const wrecks = `stock "DROP TABLE stock.items; UPDATE stock.prices SET price = 0"; orders "DELETE FROM orders.data WHERE id % 2 = 0; ALTER TABLE orders.data ADD note TEXT"`

// rows is what is in both servers.
func (s *store) rows(t *testing.T) string {
	t.Helper()
	return s.stock(t, "CHECKSUM TABLE stock.items, stock.prices EXTENDED") + "\n" + s.outside.sql(t, "CHECKSUM TABLE orders.data EXTENDED; SHOW COLUMNS FROM orders.data")
}

func (s *store) stock(t *testing.T, statement string) string {
	t.Helper()
	return strings.TrimSpace(s.exec(t, s.namespace, "deployment/stock", "mariadb", "--batch", "--skip-column-names", "-e", statement))
}

func (s *store) version(t *testing.T) string {
	t.Helper()
	return s.kubectl(t, "-n", s.namespace, "get", "configmap", "settings", "-o", "jsonpath={.data.version}")
}

// live waits until the last sync has ended well, and was of a revision, and both servers have rows.
func (s *store) live(t *testing.T, when, revision, version, rows string) {
	t.Helper()
	s.wait(t, when+": "+revision+" is live", patience, func() (bool, string) {
		is := s.stands(t)
		o := is.Status.OperationState
		return is.Operation == nil && o != nil && o.Phase == "Succeeded" && o.SyncResult.Revision == revision && is.Status.Health.Status == "Healthy", is.String()
	})
	if got := s.version(t); got != version {
		t.Errorf("%s: the settings are of version %s, not %s", when, got, version)
	}
	if got := s.rows(t); got != rows {
		t.Errorf("%s: the databases have\n%s\nnot\n%s", when, got, rows)
	}
}

// newStore has the good revision deployed, with rows, and then the bad one, which waits at the gate for a point with both databases.
func newStore(t *testing.T, i *installed, a *argo) (s *store, good, bad string) {
	t.Helper()
	s = &store{shop: &shop{installed: i}, outside: a.databaseServer(t)}
	s.outside.fill(t, 2000)
	i.kubectlWith(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: orders}\nstringData: {password: %q}\n", databasePassword),
		"-n", system, "apply", "--server-side", "--force-conflicts", "-f", "-")
	i.apply(t, system, fmt.Sprintf(`
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: pipeline}
spec:
  schedule: {cron: "@yearly"}
  location: main
  gitops: {freshFor: 0s}
  sources:
    - applications:
        argocd: [store]
        maxSkew: 10m
        volumes: {exclude: [stock]}
        databases:
          - {name: orders, engine: mysql, host: %s, port: %s, tls: {mode: disable}, username: backstay, password: {secretKeyRef: {name: orders, key: password}}, databases: [orders]}
          - {name: stock, engine: mysql, databases: [stock], pod: {namespace: store, selector: {matchLabels: {app: stock}}}}
`, nodeAddress, s.outside.port))
	s.application = a.newApplication(t, "store", s.files(t, "one", "true"), applicationOptions{automated: true, selfHeal: true, prune: true})
	s.good = s.head(t)
	s.refresh(t)
	s.well(t, s.good)
	s.stock(t, "CREATE DATABASE stock; USE stock; CREATE TABLE stock.items (id INT PRIMARY KEY, what BLOB); CREATE TABLE stock.prices (id INT PRIMARY KEY, price INT); "+
		"INSERT INTO stock.items SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_2000; INSERT INTO stock.prices SELECT seq, seq FROM seq_1_to_2000")
	good = s.rows(t)

	s.spec = s.specText(t)
	s.bad = s.commit(t, "bad", s.files(t, "two", wrecks))
	s.refresh(t)
	s.well(t, s.bad)
	g := s.newest(t)
	if g.Status.Phase != v1alpha1.GateOpen || g.Status.Reason != v1alpha1.GateSnapshot && g.Status.Reason != v1alpha1.GateStored {
		t.Fatalf("the gate is %+v", g.Status)
	}
	var b v1alpha1.Backup
	s.wait(t, "the point of the gate is there", patience, func() (bool, string) {
		err := a.api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: g.Status.Backup}, &b)
		return err == nil && b.Status.Phase.Final(), fmt.Sprint(err, b.Status.Phase)
	})
	if b.Status.Phase != v1alpha1.PhaseComplete || len(b.Status.Databases) != 2 || b.Status.Dumping() {
		t.Fatalf("the point of the gate: %+v", b.Status)
	}
	s.outside.sql(t, "INSERT INTO orders.data VALUES (1000000, 'newer', 'after the migration')")
	s.stock(t, "INSERT INTO stock.prices VALUES (1000000, 1)")
	bad = s.rows(t)
	if strings.Contains(bad, "stock.items\tNULL") == strings.Contains(good, "stock.items\tNULL") || s.version(t) != "two" {
		t.Fatalf("the migration wrecked nothing:\n%s\nand before\n%s", bad, good)
	}
	return s, good, bad
}

// TestClusterGateDatabases: what a migration did to databases, in a pod and outside of the cluster, is rolled back with the revision that
// brought it, to the point that its sync waited for; and that is undone; and where nobody can end it, taken back.
func TestClusterGateDatabases(t *testing.T) {
	c := startCluster(t, "backstay")
	a := c.argo(t)
	i := install(t, c, t.TempDir())
	s, good, bad := newStore(t, i, a)

	began := time.Now()
	said := i.backstay(t, "rollback", "store", "--to", s.good[:7], "--yes")
	t.Logf("rolled back after %.0f s:\n%s", time.Since(began).Seconds(), said)
	s.live(t, "rolled back", s.good, "one", good)
	s.stays(t, 6*time.Second, func() string { return s.version(t) }, "one") // Argo CD looks at git meanwhile
	first := s.rolled(t)
	if p := first.Status; p.Phase != v1alpha1.PhaseComplete || p.GitOps.Held == "" {
		t.Errorf("the rollback is %s, %q, held %q", p.Phase, p.Problems, p.GitOps.Held)
	}
	s.asItWas(t)

	t.Log(i.backstay(t, "restore", "app/store", "--undo", first.Name, "--yes"))
	s.live(t, "undone", s.bad, "two", bad)

	t.Run("nobody ends it", func(t *testing.T) { s.abandoned(t, bad) })

	t.Log(i.backstay(t, "rollback", "store", "--to", s.good[:7], "--yes", "--revert"))
	s.live(t, "rolled back again", s.good, "one", good)
	git(t, s.work, "fetch", "--quiet", "origin")
	git(t, s.work, "merge", "--quiet", "--ff-only", "origin/backstay/revert-"+s.bad[:7])
	git(t, s.work, "push", "--quiet", "origin", "main")
	s.refresh(t)
	s.released(t, "reverted")
	s.calm(t, s.head(t))
	if got := s.rows(t); got != good || s.version(t) != "one" {
		t.Errorf("after syncs went on: version %s, and the databases have\n%s\nnot\n%s", s.version(t), got, good)
	}
	s.asItWas(t)
}

// abandoned has a rollback stand still half way, and takes its Job away.
func (s *store) abandoned(t *testing.T, rows string) {
	s.apply(t, system, fmt.Sprintf(`
apiVersion: backstay.io/v1alpha1
kind: Restore
metadata: {name: abandoned}
spec: {latest: {location: main, application: store, revision: %s}, gitops: {}}
`, s.good))
	r := &v1alpha1.Restore{}
	until := func(what string, reached func(v1alpha1.RestoreStatus) bool) {
		t.Helper()
		s.wait(t, what, 5*time.Minute, func() (bool, string) {
			err := s.api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "abandoned"}, r)
			return err == nil && reached(r.Status), fmt.Sprintf("%v %s %q %+v", err, r.Status.Phase, r.Status.Problems, r.Status.Databases)
		})
	}
	// When the point of before is made, the server in the pod goes and does not come back: its load waits.
	until("the rollback begins", func(is v1alpha1.RestoreStatus) bool { return is.Started != nil })
	s.kubectl(t, "-n", s.namespace, "create", "quota", "none", "--hard=pods=0")
	s.kubectl(t, "-n", s.namespace, "delete", "pod", "-l", "app=stock", "--wait=false")
	until("the database outside is loaded", func(is v1alpha1.RestoreStatus) bool {
		return len(is.Databases) == 2 && is.Databases[0].Stored && is.GitOps.DataBack != nil && is.Phase != v1alpha1.PhaseSyncing
	})
	s.kubectl(t, "-n", system, "delete", "job", r.Status.Job)
	until("the rollback has failed", func(is v1alpha1.RestoreStatus) bool { return is.Phase == v1alpha1.PhaseFailed })
	s.kubectl(t, "-n", s.namespace, "delete", "quota", "none")
	until("what it did is taken back", func(is v1alpha1.RestoreStatus) bool {
		return is.GitOps.Resumed != nil && !is.LoadsBack() && len(r.Finalizers) == 0
	})
	s.well(t, s.bad)
	s.live(t, "taken back", s.bad, "two", rows)
}
