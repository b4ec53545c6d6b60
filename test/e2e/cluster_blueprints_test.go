//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The Blueprints of deploy/blueprints on real databases: backup, damage, restore, delete. Two of them go into a vault, two into a bucket as
// published profiles have it.

// readyBlueprint is one of deploy/blueprints, and a database for it in the namespace stores.
type readyBlueprint struct {
	name    string // of the Blueprint, its file, and the StatefulSet
	profile string // vault or bucket
	image   string
	start   string            // a script of bash in the database's container; the data goes below /data
	options map[string]string // of the actions
	ready   string            // scripts in the same container
	fill    string
	damage  string
	look    string
}

var readyBlueprints = []readyBlueprint{
	{
		name: "mariadb", profile: "vault", image: "lab.local/mariadb:10.11",
		start: `
mkdir -p /run/mysqld /data/db
chown mysql /run/mysqld /data/db
[ -d /data/db/mysql ] || mariadb-install-db --user=mysql --datadir=/data/db --auth-root-authentication-method=normal >/dev/null
printf '%s\n' "CREATE USER IF NOT EXISTS root@'%' IDENTIFIED BY '$PASSWORD';" "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;" >/tmp/init.sql
exec mariadbd --user=mysql --datadir=/data/db --skip-name-resolve --bind-address=0.0.0.0 --init-file=/tmp/init.sql --innodb-buffer-pool-size=32M`,
		ready: `mariadb -e "SELECT 1"`,
		fill: `mariadb -e "SET sql_mode = ANSI_QUOTES; CREATE DATABASE shop; USE shop; CREATE TABLE data (id INT PRIMARY KEY, text BLOB);
INSERT INTO data SELECT seq, MD5(seq) FROM seq_1_to_5000; CREATE VIEW v AS SELECT COUNT(*) FROM data;
CREATE DATABASE \"odd name\"; CREATE TABLE \"odd name\".t (i INT)"`,
		damage: `mariadb -e "DELETE FROM shop.data WHERE id > 100; CREATE TABLE shop.newer (i INT); DROP VIEW shop.v; CREATE VIEW shop.v AS SELECT 1"`,
		look:   `mariadb -N -e "SELECT COUNT(*), SUM(CRC32(text)) FROM shop.data; SELECT * FROM shop.v; SHOW TABLES IN shop; SHOW DATABASES"`,
	},
	{
		name: "postgresql", profile: "bucket", image: "lab.local/postgresql:15",
		start: `
mkdir -p /data/db
chown -R postgres /data
cd /tmp
[ -e /data/db/PG_VERSION ] || {
	echo "$PASSWORD" >/tmp/password
	chown postgres /tmp/password
	runuser -u postgres -- initdb --auth-host=scram-sha-256 --auth-local=trust --pwfile=/tmp/password --no-sync /data/db >/dev/null
	echo 'host all all all scram-sha-256' >>/data/db/pg_hba.conf
}
exec runuser -u postgres -- postgres -D /data/db -c unix_socket_directories=/tmp -c listen_addresses='*'`,
		ready:  `pg_isready -h /tmp`,
		fill:   `psql -q -h /tmp -U postgres -c "CREATE TABLE data AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n" -c "CREATE ROLE clerk LOGIN PASSWORD 'x'" -c 'CREATE DATABASE "odd name" OWNER clerk'`,
		damage: `psql -q -h /tmp -U postgres -c "DROP TABLE data" -c 'CREATE TABLE newer ()' -c 'DROP DATABASE "odd name"' -c "DROP ROLE clerk"`,
		look:   `psql -At -h /tmp -U postgres -c "SELECT count(*), sum(hashtext(md5)) FROM data" -c '\dt' -c "SELECT datname, datdba::regrole FROM pg_database ORDER BY 1"`,
	},
	{
		name: "redis", profile: "vault", image: "lab.local/redis:7.0",
		start: `
mkdir -p /data/db
printf '%s\n' 'dir /data/db' 'appendonly yes' 'bind 0.0.0.0' "requirepass \"$PASSWORD\"" | exec redis-server -`,
		ready:  `[ "$(REDISCLI_AUTH=$PASSWORD redis-cli PING)" = PONG ]`,
		fill:   `export REDISCLI_AUTH=$PASSWORD; for i in {1..500}; do echo "SET key$i value$i"; done | redis-cli --pipe; redis-cli LPUSH list a b c; redis-cli -n 3 SET other "$(head -c 100000 /dev/zero | tr '\0' x)"`,
		damage: `export REDISCLI_AUTH=$PASSWORD; redis-cli DEL key7 list; redis-cli SET newer 1; redis-cli -n 3 FLUSHDB`,
		look: `export REDISCLI_AUTH=$PASSWORD; redis-cli DBSIZE; redis-cli GET key7; redis-cli LRANGE list 0 -1; redis-cli -n 3 STRLEN other; redis-cli EXISTS newer
redis-cli CONFIG GET masterauth; redis-cli INFO replication | grep role`,
	},
	{
		name: "etcd", profile: "bucket", image: "lab.local/etcd:3.4", options: map[string]string{"tool": "etcdctl", "directory": "db"},
		start:  `exec etcd --name etcd-0 --data-dir /data/db --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://etcd.stores.svc:2379`,
		ready:  `ETCDCTL_API=3 etcdctl endpoint health`,
		fill:   `export ETCDCTL_API=3; for i in {1..100}; do etcdctl put key$i value$i; done`,
		damage: `export ETCDCTL_API=3; etcdctl del key7; etcdctl put newer 1`,
		look:   `export ETCDCTL_API=3; etcdctl get '' --prefix`,
	},
}

// manifest is a database of one pod. Its password is not one for a shell.
func (r readyBlueprint) manifest(t *testing.T) string {
	t.Helper()
	start, err := json.Marshal("set -e\n" + r.start)
	if err != nil {
		t.Fatal(err)
	}
	ready, err := json.Marshal(r.ready)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %[1]s}
stringData: {password: "p4ss $word"}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: %[1]s}, ports: [{port: 1}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s}
spec:
  serviceName: %[1]s
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: %[1]s
        image: %[2]s
        command: [bash, -c, %[3]s]
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: %[1]s, key: password}}}]
        readinessProbe: {exec: {command: [bash, -c, %[4]s]}, periodSeconds: 1, failureThreshold: 100}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, r.name, r.image, start, ready)
}

func TestClusterReadyBlueprints(t *testing.T) {
	c := startCluster(t, "backstay")
	c.kubectl(t, "apply", "--server-side", "-f", filepath.Join(root(t), "deploy", "kanister", "crds.yaml"))
	bucket := t.TempDir()
	i := install(t, c, bucket)
	i.profiles(t)
	c.newNamespace(t, "stores")
	for _, r := range readyBlueprints {
		content, err := os.ReadFile(filepath.Join(root(t), "deploy", "blueprints", r.name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		c.apply(t, system, strings.ReplaceAll(string(content), "backstay-toolbox:dev", toolboxImage))
		c.apply(t, "stores", r.manifest(t))
	}
	for _, r := range readyBlueprints {
		t.Run(r.name, func(t *testing.T) { i.comesBack(t, r, bucket) })
	}
	c.wait(t, "nothing of phases is left", 3*time.Minute, func() (bool, string) {
		left := c.list(t, "pods,secrets", "--all-namespaces", "-l", "backstay.io/actionset")
		return len(left) == 0, fmt.Sprint(left)
	})
}

// profiles makes the Profiles vault and bucket: of the Location main, and of a directory beside it, as published.
func (i *installed) profiles(t *testing.T) {
	t.Helper()
	address := i.url[strings.Index(i.url, "endpoint=")+len("endpoint="):]
	i.apply(t, system, fmt.Sprintf(`
apiVersion: cr.kanister.io/v1alpha1
kind: Profile
metadata: {name: vault, annotations: {backstay.io/location: main}}
location: {type: kopia, bucket: "", endpoint: "", prefix: "", region: ""}
---
apiVersion: cr.kanister.io/v1alpha1
kind: Profile
metadata: {name: bucket}
location: {type: s3Compliant, bucket: vault, endpoint: "http://%s", prefix: dumps, region: us-east-1}
credential:
  type: keyPair
  keyPair: {idField: id, secretField: key, secret: {apiVersion: v1, kind: Secret, name: vault, namespace: %s}}
skipSSLVerify: false
`, address, system))
}

// comesBack backs a database up, damages it, and has it as it was after the restore. What the backup made is gone after the delete.
func (i *installed) comesBack(t *testing.T, r readyBlueprint, bucket string) {
	i.kubectl(t, "-n", "stores", "rollout", "status", "--timeout=240s", "statefulset/"+r.name)
	do := func(script string) string {
		return i.exec(t, "stores", r.name+"-0", "bash", "-c", script)
	}
	do("set -e; " + r.fill)
	before := do(r.look)

	artifacts := i.act(t, r, "backup", nil)
	do(r.damage)
	if do(r.look) == before {
		t.Fatalf("the damage does not show: %s", before)
	}
	i.act(t, r, "restore", artifacts)
	i.kubectl(t, "-n", "stores", "rollout", "status", "--timeout=240s", "statefulset/"+r.name)
	if after := do(r.look); after != before {
		t.Errorf("before:\n%s\nafter the restore:\n%s", before, after)
	}
	i.act(t, r, "delete", artifacts)
	if r.profile == "vault" {
		if left := i.fromVault(t, "points"); strings.Contains(left, r.name) {
			t.Errorf("points are left:\n%s", left)
		}
		return
	}
	if left := dumps(t, bucket, r.name); len(left) != 0 {
		t.Errorf("objects are left: %v", left)
	}
}

// dumps are the files of a bucket's directory dumps whose path has a name in it.
func dumps(t *testing.T, bucket, name string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(bucket, "vault", "dumps"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(path, name) {
			found = append(found, path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// act runs one action by an ActionSet, which must complete, and gives its artifacts.
func (i *installed) act(t *testing.T, r readyBlueprint, action string, artifacts json.RawMessage) json.RawMessage {
	t.Helper()
	name := r.name + "-" + action
	spec := map[string]any{
		"name": action, "blueprint": r.name, "profile": map[string]string{"name": r.profile, "namespace": system},
		"object":  map[string]string{"kind": "StatefulSet", "name": r.name, "namespace": "stores"},
		"options": mergeOptions(r),
	}
	if artifacts != nil {
		spec["artifacts"] = artifacts
	}
	set, err := json.Marshal(map[string]any{
		"apiVersion": "cr.kanister.io/v1alpha1", "kind": "ActionSet", "metadata": map[string]string{"name": name},
		"spec": map[string]any{"actions": []any{spec}},
	})
	if err != nil {
		t.Fatal(err)
	}
	i.kubectlWith(t, string(set), "-n", system, "create", "-f", "-")
	var ended struct {
		Status struct {
			State string `json:"state"`
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
			Actions []struct {
				Artifacts json.RawMessage `json:"artifacts"`
			} `json:"actions"`
		} `json:"status"`
	}
	i.wait(t, name+" ends", 10*time.Minute, func() (bool, string) {
		said := i.kubectl(t, "-n", system, "get", "actionsets.cr.kanister.io", name, "-o", "json")
		decode(t, said, &ended)
		if bytes.Contains([]byte(said), []byte("p4ss $word")) {
			t.Errorf("the ActionSet tells the password:\n%s", said)
		}
		return ended.Status.State == "complete" || ended.Status.State == "failed", said
	})
	if ended.Status.State != "complete" || len(ended.Status.Actions) == 0 {
		t.Fatalf("%s: %s: %s", name, ended.Status.State, ended.Status.Error.Message)
	}
	return ended.Status.Actions[0].Artifacts
}

// mergeOptions are the options of a database's actions.
func mergeOptions(r readyBlueprint) map[string]string {
	options := map[string]string{"image": r.image}
	for name, value := range r.options {
		options[name] = value
	}
	return options
}
