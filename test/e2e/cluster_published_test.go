//go:build e2e && published

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The Blueprints of github.com/kanisterio/blueprints, of which a checkout is in BACKSTAY_TEST_BLUEPRINTS, as they are but for the names of
// images: on MariaDB, PostgreSQL and volumes.

// publishedPassword is of the databases' root. The Blueprints give it to shells without quotes.
const publishedPassword = "p4ssword-of-root"

// publishedClients is a podOverride that gives the databases' own image a kando, and a mysqldump that knows an option of MySQL's, which
// MariaDB's refuses.
const publishedClients = `
initContainers:
- name: tools
  image: ` + toolboxImage + `
  command:
  - bash
  - -ec
  - |
    cp /usr/bin/backstay /tools/kando
    cat >/tools/mysqldump <<'END'
    #!/bin/bash
    for option; do shift; [ "$option" = --column-statistics=0 ] || set -- "$@" "$option"; done
    exec /usr/bin/mysqldump "$@"
    END
    chmod +x /tools/mysqldump
  volumeMounts: [{name: tools, mountPath: /tools}]
containers:
- name: container
  env: [{name: PATH, value: "/tools:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"}]
  volumeMounts: [{name: tools, mountPath: /tools}]
volumes: [{name: tools, emptyDir: {}}]
`

// publishedBlueprint is one of the collection, and a workload of the shop for it.
type publishedBlueprint struct {
	file, image string
	profile     string // vault or bucket
	object      string // the workload
	stored      string // what its dumps are called in a bucket
	pod         string // of the database, with scripts for bash in it
	damage      string
	look        string
}

const (
	mariaDamage = `mariadb -e "DROP TABLE shop.data"`
	mariaLook   = `mariadb -N -e "CHECKSUM TABLE shop.data EXTENDED; SELECT COUNT(*) FROM shop.data; SHOW TABLES IN shop"`
)

var publishedBlueprints = map[string]publishedBlueprint{ //nolint:gochecknoglobals // a constant, but for its type
	"maria": {
		file: "maria/maria-blueprint.yaml", image: "lab.local/mariadb:10.11", profile: "bucket", object: "mariadb", stored: "maria-backups",
		pod: "mariadb-0", damage: mariaDamage, look: mariaLook,
	},
	"maria-v2": {
		file: "maria/blueprint-v2/maria-blueprint.yaml", image: "lab.local/mariadb:10.11", profile: "vault", object: "mariadb",
		pod: "mariadb-0", damage: mariaDamage, look: mariaLook,
	},
	"mysql": {
		file: "mysql/mysql-blueprint.yaml", image: "lab.local/mariadb:10.11", profile: "bucket", object: "mariadb", stored: "mysql-backups",
		pod: "mariadb-0", damage: mariaDamage, look: mariaLook,
	},
	"postgres": {
		file: "postgres/postgres-blueprint.yaml", image: "lab.local/postgresql:15", profile: "bucket", object: "store", stored: "pg_backups",
		pod: "store-0", damage: `psql -q -h /tmp -U postgres -c "DROP TABLE data" -c 'DROP DATABASE "odd name"' -c "DROP ROLE clerk"`,
		look: `psql -At -h /tmp -U postgres -c "SELECT count(*), sum(hashtextextended(encode(payload, 'hex'), id)) FROM data" -c "SELECT datname, datdba::regrole FROM pg_database ORDER BY 1"`,
	},
}

// publishedStage is what the Blueprints take for granted: Secrets and labels of the charts that they are for, and a class of that name.
const publishedStage = `
apiVersion: v1
kind: Secret
metadata: {name: mariadb}
stringData: {mariadb-root-password: ` + publishedPassword + `, mysql-root-password: ` + publishedPassword + `}
---
apiVersion: v1
kind: Secret
metadata: {name: store-postgresql}
stringData: {postgres-password: ` + publishedPassword + `}
---
apiVersion: v1
kind: Service
metadata: {name: store-postgresql}
spec: {selector: {app: store}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, labels: {app.kubernetes.io/instance: store}}
spec:
  serviceName: store
  replicas: 1
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: postgresql
        image: lab.local/postgresql:15
        command: [bash, /scripts/postgresql]
        env: [{name: ROWS, valueFrom: {configMapKeyRef: {name: databases, key: rows}}}]
        readinessProbe: {exec: {command: [psql, -q, -h, /tmp, -U, postgres, -c, SELECT FROM loaded]}, periodSeconds: 1, failureThreshold: 100}
        volumeMounts: [{name: scripts, mountPath: /scripts}, {name: data, mountPath: /var/lib/postgresql}]
      volumes: [{name: scripts, configMap: {name: databases}}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: do-block-storage}
provisioner: hostpath.csi.k8s.io
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: do-block-storage}
driver: hostpath.csi.k8s.io
deletionPolicy: Delete
`

// publishedText is a Blueprint of the checkout, with the images that the cluster has.
func publishedText(t *testing.T, file, image string) string {
	t.Helper()
	checkout := os.Getenv("BACKSTAY_TEST_BLUEPRINTS")
	if checkout == "" {
		t.Fatal("BACKSTAY_TEST_BLUEPRINTS has no checkout of github.com/kanisterio/blueprints")
	}
	text, err := os.ReadFile(filepath.Join(checkout, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	tools := regexp.MustCompile(`ghcr\.io/kanisterio/kanister-tools:\S+`).ReplaceAllLiteralString(string(text), toolboxImage)
	return regexp.MustCompile(`(ghcr\.io/kanisterio|bitnamilegacy)/\S+`).ReplaceAllLiteralString(tools, image)
}

// newPublished is the shop with Backstay beside it, as the Blueprints want it.
func newPublished(t *testing.T, bucket string) *theatre {
	t.Helper()
	publishedText(t, "csi-snapshot/csi-snapshot-blueprint.yaml", "")
	c := startCluster(t, "backstay")
	c.kubectl(t, "apply", "--server-side", "--force-conflicts", "-f", filepath.Join(root(t), "deploy", "kanister", "crds.yaml"))
	p := &theatre{installed: install(t, c, bucket), ns: "shop-published"}
	p.profiles(t)
	p.shop(t, p.ns, 500)
	p.apply(t, p.ns, publishedStage)
	p.clean(t, "delete", "storageclass/do-block-storage", "volumesnapshotclass/do-block-storage")
	p.kubectl(t, "-n", p.ns, "label", "statefulset/mariadb", "app.kubernetes.io/instance=mariadb")
	p.kubectl(t, "-n", p.ns, "rollout", "status", "--timeout=180s", "statefulset/store")
	p.exec(t, p.ns, "mariadb-0", "mariadb", "-e", "CREATE USER root@'%' IDENTIFIED BY '"+publishedPassword+"'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")
	p.exec(t, p.ns, "store-0", "bash", "-ec", `
psql -q -h /tmp -U postgres -c "ALTER ROLE postgres PASSWORD '`+publishedPassword+`'" -c "CREATE ROLE clerk LOGIN PASSWORD 'x'" -c 'CREATE DATABASE "odd name" OWNER clerk'
psql -q -h /tmp -U postgres -c "ALTER SYSTEM SET checkpoint_completion_target = 0" # else a backup begins after minutes
echo 'host all all all scram-sha-256' >>/var/lib/postgresql/data/pg_hba.conf
psql -q -h /tmp -U postgres -c "SELECT pg_reload_conf()"`)
	return p
}

// TestClusterPublishedBlueprints backs databases up, damages them, and has them as they were; what was stored goes with the delete.
func TestClusterPublishedBlueprints(t *testing.T) {
	bucket := t.TempDir()
	c := newPublished(t, bucket)
	for name, b := range publishedBlueprints {
		t.Run(name, func(t *testing.T) {
			c.apply(t, system, publishedText(t, b.file, b.image)) // two have one name
			look := func() string { return c.exec(t, c.ns, b.pod, "bash", "-c", b.look) }
			before := look()
			object := fmt.Sprintf("{kind: StatefulSet, name: %s, namespace: %s}", b.object, c.ns)
			artifacts := c.publishedAction(t, b, name+"-backup", object, nil)
			if left := dumps(t, bucket, b.stored); b.stored != "" && len(left) != 1 {
				t.Errorf("the bucket has %v", left)
			}
			c.exec(t, c.ns, b.pod, "bash", "-c", b.damage)
			c.publishedAction(t, b, name+"-restore", object, artifacts)
			if after := look(); after != before {
				t.Errorf("before:\n%s\nafter the restore:\n%s", before, after)
			}
			c.publishedAction(t, b, name+"-delete", fmt.Sprintf("{kind: Namespace, name: %s, namespace: %[1]s}", c.ns), artifacts)
			if left := dumps(t, bucket, b.stored); b.stored != "" && len(left) != 0 {
				t.Errorf("the bucket still has %v", left)
			}
		})
	}
	c.cleared(t)
}

// publishedAction runs an action, the last word of its ActionSet's name, which must complete, and gives its artifacts.
func (c *theatre) publishedAction(t *testing.T, b publishedBlueprint, name, object string, artifacts json.RawMessage) json.RawMessage {
	t.Helper()
	var blueprint struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	decode(t, c.kubectlWith(t, publishedText(t, b.file, b.image), "create", "--dry-run=client", "-o", "json", "-f", "-"), &blueprint)
	if artifacts == nil {
		artifacts = json.RawMessage("{}")
	}
	c.kubectlWith(t, fmt.Sprintf(`
apiVersion: cr.kanister.io/v1alpha1
kind: ActionSet
metadata: {name: %s}
spec:
  actions:
  - name: %s
    blueprint: %s
    object: %s
    profile: {name: %s, namespace: %s}
    artifacts: %s
    podOverride: %s
`, name, name[strings.LastIndex(name, "-")+1:], blueprint.Metadata.Name, object, b.profile, system, artifacts,
		strings.ReplaceAll(publishedClients, "\n", "\n      ")), "-n", system, "create", "-f", "-")
	if p := c.ended(t, system, name); p.Status.State != "complete" {
		t.Fatal(p)
	}
	text := c.kubectl(t, "-n", system, "get", "actionsets.cr.kanister.io", name, "-o", "json")
	if strings.Contains(text, publishedPassword) {
		t.Errorf("the ActionSet tells the password:\n%s", text)
	}
	var ended struct {
		Status struct {
			Actions []struct {
				Artifacts json.RawMessage `json:"artifacts"`
			} `json:"actions"`
		} `json:"status"`
	}
	decode(t, text, &ended)
	return ended.Status.Actions[0].Artifacts
}

// TestClusterBlueprintRun follows the published Blueprint of CSI snapshots with `blueprint run`, to good ends and bad, and not to the end.
func TestClusterBlueprintRun(t *testing.T) {
	c := newPublished(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "csi.yaml")
	if err := os.WriteFile(file, []byte(publishedText(t, "csi-snapshot/csi-snapshot-blueprint.yaml", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	object := "deployment/" + c.ns + "/postgresql"
	_, before := c.shopData(t, c.ns)

	r, set := c.follow(t, file, "--action", "backup", "--object", object)
	for _, want := range []string{"phase createCSISnapshot: running", "phase createCSISnapshot: complete", "artifact snapshotInfo: name=", "complete: ActionSet " + set} {
		if r.exit != 0 || set == "" || !strings.Contains(r.stdout+r.stderr, want) {
			t.Fatalf("exit %d, not said: %s", r.exit, want)
		}
	}
	c.exec(t, c.ns, "deployment/postgresql", "psql", "-q", "-h", "/tmp", "-U", "postgres", "-c", "DELETE FROM data WHERE id % 2 = 0")
	r, _ = c.follow(t, "csi-snapshot-bp", "--action", "restore", "--from", set)
	if r.exit != 0 || !strings.Contains(r.stderr, "phase scaleUpSS: complete") {
		t.Errorf("exit %d", r.exit)
	}
	c.shopReady(t, c.ns)
	if _, after := c.shopData(t, c.ns); after != before {
		t.Errorf("restored %s, want %s", after, before)
	}

	r, _ = c.follow(t, "csi-snapshot-bp", "--action", "restore", "--object", object)
	if r.exit != 3 || !strings.Contains(r.stderr, "snapshotInfo") { // the artifact is not given
		t.Errorf("exit %d: %s%s", r.exit, r.stdout, r.stderr)
	}
	if r, _ = c.follow(t, "csi-snapshot-bp", "--action", "restart", "--object", object); r.exit == 0 || r.exit == 3 {
		t.Errorf("an action that is not there: exit %d: %s%s", r.exit, r.stdout, r.stderr)
	}

	c.storageFaults(t, "CreateSnapshot "+c.ns+"/* fail")
	r, _ = c.follow(t, "csi-snapshot-bp", "--action", "backup", "--object", object)
	if r.exit != 3 || !strings.Contains(r.stderr, "phase createCSISnapshot: failed") {
		t.Errorf("exit %d", r.exit)
	}
	c.storageFaults(t, "CreateSnapshot "+c.ns+"/* unready 15s")
	left := c.interrupted(t, "blueprint", "run", "csi-snapshot-bp", "--action", "backup", "--object", object)
	p := c.ended(t, system, left)
	if p.Status.State != "complete" {
		t.Errorf("left alone: %s", p)
	}
	for _, from := range []string{left, set} {
		if r, _ = c.follow(t, "csi-snapshot-bp", "--action", "delete", "--from", from); r.exit != 0 {
			t.Errorf("delete: exit %d: %s%s", r.exit, r.stdout, r.stderr)
		}
	}
	if snapshots := c.kubectl(t, "-n", c.ns, "get", "volumesnapshots", "-o", "name"); snapshots != "" {
		t.Errorf("left: %s", snapshots)
	}
}

// follow runs `blueprint run`, and gives the ActionSet that is complete.
func (c *theatre) follow(t *testing.T, args ...string) (r result, set string) {
	t.Helper()
	r = c.run(t, append([]string{"blueprint", "run"}, args...)...)
	t.Logf("blueprint run %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	if found := regexp.MustCompile(`complete: ActionSet (\S+)`).FindStringSubmatch(r.stdout); found != nil {
		set = found[1]
	}
	return r, set
}

// interrupted presses Ctrl-C once `blueprint run` tells of a phase, and gives the ActionSet that still runs.
func (c *theatre) interrupted(t *testing.T, args ...string) string {
	t.Helper()
	cmd := c.command(t.Context(), c.binary(t), args...)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "a phase is told of", time.Minute, func() (bool, string) { return strings.Contains(said.String(), ": running"), said.String() })
	if err := cmd.Process.Signal(os.Interrupt); err != nil { // nsenter has become the program
		t.Fatal(err)
	}
	_ = cmd.Wait()
	t.Logf("interrupted: exit %d\n%s", cmd.ProcessState.ExitCode(), said)
	found := regexp.MustCompile(`ActionSet (\S+) goes on in the cluster`).FindStringSubmatch(said.String())
	if found == nil || cmd.ProcessState.ExitCode() != 130 {
		t.Fatalf("exit %d: %s", cmd.ProcessState.ExitCode(), said)
	}
	if p := c.standing(t, system, found[1]); p.final() {
		t.Errorf("it had ended already: %s", p)
	}
	return found[1]
}

// TestClusterPublishedCopies runs Blueprints that copy volumes into restic repositories: that of the time log, with the application that it
// is for, and of PostgreSQL in backup mode, whose repository is in a bucket of the name in the Blueprint.
func TestClusterPublishedCopies(t *testing.T) {
	bucket := t.TempDir()
	c := newPublished(t, bucket)
	if err := os.Mkdir(filepath.Join(bucket, "s3-bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	profile := c.kubectl(t, "-n", system, "get", "profiles.cr.kanister.io", "bucket", "-o", "json")
	profile = regexp.MustCompile(`"(uid|resourceVersion)": "\S+",?`).ReplaceAllString(profile, "")
	c.apply(t, system, strings.NewReplacer(`"name": "bucket"`, `"name": "whole"`, `"bucket": "vault"`, `"bucket": "s3-bucket"`, `"prefix": "dumps"`, `"prefix": ""`).Replace(profile))
	c.apply(t, c.ns, publishedText(t, "time-log/time-logger-deployment.yaml", ""))
	c.kubectl(t, "-n", c.ns, "rollout", "status", "--timeout=60s", "deployment/time-logger")

	t.Run("time-log", func(t *testing.T) {
		begins := func() string {
			line, _, _ := strings.Cut(c.exec(t, c.ns, "deployment/time-logger", "cat", "/var/log/time.log"), "\n")
			return line
		}
		before := begins()
		c.copied(t, "time-log/time-log-blueprint.yaml", "deployment/"+c.ns+"/time-logger",
			func() { c.exec(t, c.ns, "deployment/time-logger", "rm", "/var/log/time.log") },
			func() {
				c.kubectl(t, "-n", c.ns, "rollout", "status", "--timeout=60s", "deployment/time-logger")
				if after := begins(); after != before {
					t.Errorf("the log begins with %s, want %s", after, before)
				}
			})
		if left, err := filepath.Glob(filepath.Join(bucket, "s3-bucket", "time-log", "*", "*")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
	t.Run("postgres-start-stop", func(t *testing.T) {
		b := publishedBlueprints["postgres"]
		look := func() string {
			c.kubectl(t, "-n", c.ns, "rollout", "status", "--timeout=120s", "statefulset/store")
			return c.exec(t, c.ns, b.pod, "bash", "-c", b.look)
		}
		before := look()
		c.copied(t, "postgres/postgres-start-stop-blueprint.yaml", "statefulset/"+c.ns+"/store",
			func() { c.exec(t, c.ns, b.pod, "bash", "-c", b.damage) },
			func() {
				if after := look(); after != before {
					t.Errorf("before:\n%s\nafter the restore:\n%s", before, after)
				}
			})
		if left, err := filepath.Glob(filepath.Join(bucket, "s3-bucket", "path", "artifactPrefix", "snapshots", "*")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
	c.cleared(t)
}

// copied runs backup, restore and delete of a Blueprint with what is done between.
func (c *theatre) copied(t *testing.T, file, object string, damage, look func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(path, []byte(publishedText(t, file, "lab.local/postgresql:15")), 0o600); err != nil {
		t.Fatal(err)
	}
	r, set := c.follow(t, path, "--action", "backup", "--object", object, "--profile", system+"/whole")
	if r.exit != 0 {
		t.FailNow()
	}
	damage()
	if r, _ := c.follow(t, path, "--action", "restore", "--from", set); r.exit != 0 {
		t.FailNow()
	}
	look()
	if r, _ := c.follow(t, path, "--action", "delete", "--from", set); r.exit != 0 {
		t.FailNow()
	}
}
