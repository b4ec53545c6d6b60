//go:build e2e && long

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// backup makes a Backup of an application and waits until it is complete.
func (i *installed) backup(t *testing.T, api client.Client, name string, of v1alpha1.Applications) v1alpha1.BackupStatus {
	t.Helper()
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name},
		Spec:       v1alpha1.BackupSpec{Location: "main", Application: of},
	}
	create(t, api, b)
	i.wait(t, "backup "+name, 3*time.Minute, func() (bool, string) {
		err := api.Get(t.Context(), client.ObjectKeyFromObject(b), b)
		return err == nil && b.Status.Phase.Final(), fmt.Sprintf("%s %v", b.Status.Phase, err)
	})
	if b.Status.Phase != v1alpha1.PhaseComplete {
		t.Fatalf("backup %s: %s %q", name, b.Status.Phase, b.Status.Problems)
	}
	return b.Status
}

// restore makes a Restore and waits until it is complete.
func (i *installed) restore(t *testing.T, api client.Client, name string, spec v1alpha1.RestoreSpec) v1alpha1.RestoreStatus {
	t.Helper()
	r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}, Spec: spec}
	create(t, api, r)
	i.wait(t, "restore "+name, 3*time.Minute, func() (bool, string) {
		err := api.Get(t.Context(), client.ObjectKeyFromObject(r), r)
		return err == nil && r.Status.Phase.Final(), fmt.Sprintf("%s %v", r.Status.Phase, err)
	})
	if r.Status.Phase != v1alpha1.PhaseComplete {
		t.Fatalf("restore %s: %s %q", name, r.Status.Phase, r.Status.Problems)
	}
	return r.Status
}

func latest(application string) *v1alpha1.LatestPoint {
	return &v1alpha1.LatestPoint{Location: "main", Application: application}
}

// bytesBelow is how much lies in a directory.
func bytesBelow(t *testing.T, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestClusterBlockDevice backs up a claim in block mode, twice, loses it, and restores it.
func TestClusterBlockDevice(t *testing.T) {
	c := startCluster(t, "backstay")
	bucket := t.TempDir()
	i := install(t, c, bucket)
	const ns = "disks"
	c.newNamespace(t, ns)
	c.apply(t, ns, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: raw}
spec:
  serviceName: raw
  replicas: 1
  selector: {matchLabels: {app: raw}}
  template:
    metadata: {labels: {app: raw}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: raw
        image: lab.local/mariadb:10.11
        imagePullPolicy: Never
        command: [bash, -c, "sleep infinity & wait"]
        volumeDevices: [{name: disk, devicePath: /dev/disk}]
  volumeClaimTemplates:
  - metadata: {name: disk}
    spec: {storageClassName: csi-hostpath-sc, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
`)
	ready := func() { c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=120s", "statefulset/raw") }
	sum := func() string { return c.exec(t, ns, "raw-0", "sha256sum", "/dev/disk") }
	ready()
	c.exec(t, ns, "raw-0", "bash", "-c", "head -c 32M /dev/urandom | dd of=/dev/disk bs=1M seek=8 iflag=fullblock conv=fsync status=none")
	i.backstay(t, "backup", "app/"+ns)
	first := bytesBelow(t, bucket)
	if first < 32<<20 || first > 40<<20 {
		t.Errorf("the bucket holds %d bytes after a backup of 32 MiB of noise", first)
	}
	c.exec(t, ns, "raw-0", "bash", "-c", "head -c 100K /dev/urandom | dd of=/dev/disk bs=1K seek=20000 iflag=fullblock conv=fsync status=none")
	want := sum()
	i.backstay(t, "backup", "app/"+ns)
	if more := bytesBelow(t, bucket) - first; more > 8<<20 {
		t.Errorf("a second backup after a change of 100 KiB stored %d bytes", more)
	}
	c.deleteNamespace(t, ns)
	i.backstay(t, "restore", "app/"+ns, "--yes")
	ready()
	if got := sum(); got != want {
		t.Errorf("the device holds %s, want %s", got, want)
	}
	c.settled(t)
	c.noLeftovers(t)
}

// configMaps are the names of what a namespace has, but for the cluster's own.
func (c *cluster) configMaps(t *testing.T, namespace string) []string {
	t.Helper()
	names := strings.Fields(c.kubectl(t, "-n", namespace, "get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"))
	return slices.DeleteFunc(names, func(n string) bool { return n == "kube-root-ca.crt" })
}

// TestClusterApplicationsAreChosen backs up applications that are more, or less, than a namespace, and brings them to other places.
func TestClusterApplicationsAreChosen(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	api := c.connect(t).Client
	settings := func(namespace, names string) {
		t.Helper()
		for name := range strings.FieldsSeq(names) {
			c.apply(t, namespace, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, labels: {app: %[1]s}}\ndata: {of: %s}\n", name, namespace))
		}
	}
	has := func(namespace string, want ...string) {
		t.Helper()
		if got := c.configMaps(t, namespace); !slices.Equal(got, want) {
			t.Errorf("%s has the config maps %q, want %q", namespace, got, want)
		}
	}

	t.Run("two namespaces by a name", func(t *testing.T) {
		for _, ns := range []string{"pay-db", "pay-web"} {
			c.newNamespace(t, ns)
			settings(ns, "one two")
		}
		s := i.backup(t, api, "pay", v1alpha1.Applications{Name: "pay", Namespaces: []string{"pay-web", "pay-db"}})
		if s.Parts.Stored != 3 {
			t.Errorf("parts %+v, want two namespaces and the cluster", s.Parts)
		}
		c.deleteNamespace(t, "pay-db")
		c.kubectl(t, "-n", "pay-web", "delete", "configmap", "two")
		i.backstay(t, "restore", "app/pay", "--yes")
		has("pay-db", "one", "two")
		has("pay-web", "one", "two")
		if of := c.kubectl(t, "-n", "pay-db", "get", "configmap", "one", "-o", "jsonpath={.data.of}"); of != "pay-db" {
			t.Errorf("the config map is of %s", of)
		}
	})

	c.tally(t, "mixed", "csi-hostpath-sc")
	c.kubectl(t, "-n", "mixed", "label", "deployment/counter", "app=web")
	settings("mixed", "web other")
	c.newNamespace(t, "mixed-copy")
	t.Run("by labels, to another class", func(t *testing.T) {
		s := i.backup(t, api, "labelled", v1alpha1.Applications{
			Name: "labelled", Namespaces: []string{"mixed"}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		})
		if len(s.Volumes) != 2 {
			t.Errorf("volumes %+v, want those that the chosen workload mounts", s.Volumes)
		}
		i.restore(t, api, "labelled", v1alpha1.RestoreSpec{
			Latest: latest("labelled"), Namespaces: map[string]string{"mixed": "mixed-copy"},
			StorageClasses: map[string]string{"csi-hostpath-sc": "csi-hostpath-late"},
			Transforms: []v1alpha1.Transform{
				{Objects: "configmap/web", Patch: []v1alpha1.PatchOperation{{Op: "replace", Path: "/data/of", Value: `"a transform"`}}},
				{Objects: "deployment.apps", Patch: []v1alpha1.PatchOperation{{Op: "add", Path: "/metadata/labels/copied", Value: `"yes"`}}},
			},
		})
		has("mixed-copy", "web")
		if got := c.kubectl(t, "-n", "mixed-copy", "get", "configmap", "web", "-o", "jsonpath={.data.of}"); got != "a transform" {
			t.Errorf("the config map holds %q", got)
		}
		if got := c.kubectl(t, "-n", "mixed-copy", "get", "deployment", "counter", "-o", "jsonpath={.metadata.labels.copied}"); got != "yes" {
			t.Errorf("the label is %q", got)
		}
		if got := c.kubectl(t, "-n", "mixed-copy", "get", "pvc", "-o", "jsonpath={.items[*].spec.storageClassName}"); got != "csi-hostpath-late csi-hostpath-late" {
			t.Errorf("classes %q", got)
		}
		c.kubectl(t, "-n", "mixed-copy", "rollout", "status", "--timeout=120s", "deployment/counter")
		if first, second := c.countersFound(t, "mixed-copy"); first.Count < 1 || first.Count-second.Count > 1 {
			t.Errorf("the counter found %d and %d", first.Count, second.Count)
		}
	})
	c.newNamespace(t, "mixed-one")
	t.Run("by their names", func(t *testing.T) {
		s := i.backup(t, api, "listed", v1alpha1.Applications{Name: "listed", Namespaces: []string{"mixed"}, Objects: []string{"configmap/other"}})
		if len(s.Volumes) != 0 {
			t.Errorf("volumes %+v, want none", s.Volumes)
		}
		i.restore(t, api, "listed", v1alpha1.RestoreSpec{Latest: latest("listed"), Namespaces: map[string]string{"mixed": "mixed-one"}})
		has("mixed-one", "other")
	})
	c.settled(t)
	c.noLeftovers(t)
}

// points counts the RestorePoints of an application.
func (c *cluster) points(t *testing.T, application string) int {
	t.Helper()
	return len(c.list(t, "restorepoints.backstay.io", "-n", system, "-l", v1alpha1.LabelApplication+"="+application))
}

// keptSnapshots counts the snapshots of points in a namespace.
func (c *cluster) keptSnapshots(t *testing.T, namespace string) int {
	t.Helper()
	return len(c.list(t, "volumesnapshots.snapshot.storage.k8s.io", "-n", namespace, "-l", v1alpha1.LabelPoint))
}

// jobsMade lists the Jobs whose pods were started in Backstay's namespace, also of those that are gone.
func (c *cluster) jobsMade(t *testing.T) []string {
	t.Helper()
	said := c.kubectl(t, "-n", system, "get", "events", "--field-selector", "involvedObject.kind=Job,reason=SuccessfulCreate", "-o",
		`jsonpath={range .items[*]}{.involvedObject.name}{"\n"}{end}`)
	return strings.Fields(said)
}

// TestClusterPointsAndSnapshotsComeAndGo follows points, the objects that stand for them and the snapshots kept beside them, from the
// first backup of a policy until a cluster that was emptied finds them again.
func TestClusterPointsAndSnapshotsComeAndGo(t *testing.T) {
	c := startCluster(t, "backstay")
	bucket := t.TempDir()
	i := install(t, c, bucket)
	const ns = "kept"
	c.tally(t, ns, "csi-hostpath-sc")
	c.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: kept}
spec:
  location: main
  schedule: {cron: "@yearly"}
  retention: {last: 3}
  sources: [{applications: {namespaces: [kept], volumes: {keepSnapshots: 2}}}]
`)
	inVault := func() int { return strings.Count(i.fromVault(t, "points"), "complete") }
	for n := range 4 {
		i.backstay(t, "backup", "app/"+ns, "--policy", "kept")
		c.settled(t)
		points, snapshots := min(n+1, 3), 2*min(n+1, 2)
		if got := c.points(t, ns); got != points {
			t.Errorf("after %d backups there are %d RestorePoints, want %d", n+1, got, points)
		}
		if got := inVault(); got != points {
			t.Errorf("after %d backups there are %d points in the vault, want %d", n+1, got, points)
		}
		if got := c.keptSnapshots(t, ns); got != snapshots {
			t.Errorf("after %d backups there are %d snapshots, want %d", n+1, got, snapshots)
		}
	}
	c.noLeftovers(t)

	before := c.jobsMade(t)
	i.backstay(t, "restore", "app/"+ns, "--only", "data", "--yes")
	c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=120s", "deployment/counter")
	if first, second := c.countersFound(t, ns); first.Count < 1 || first.Count-second.Count < 0 || first.Count-second.Count > 1 {
		t.Errorf("the counter found %d and %d", first.Count, second.Count)
	}
	for _, job := range c.jobsMade(t) {
		if !slices.Contains(before, job) && !strings.HasPrefix(job, "backstay-restore-") {
			t.Errorf("a restore from snapshots started the Job %s", job)
		}
	}

	newest := strings.Fields(c.kubectl(t, "-n", system, "get", "restorepoints.backstay.io", "--sort-by=.spec.time", "-o", "jsonpath={.items[*].metadata.name}"))
	c.kubectl(t, "-n", system, "delete", "restorepoints.backstay.io", newest[len(newest)-1], "--timeout=120s")
	c.settled(t)
	if got := inVault(); got != 2 {
		t.Errorf("after the newest RestorePoint was deleted there are %d points in the vault, want 2", got)
	}
	if got := c.keptSnapshots(t, ns); got != 2 {
		t.Errorf("after the newest RestorePoint was deleted there are %d snapshots, want 2", got)
	}

	metrics := i.metrics(t)
	for _, line := range []string{
		`backstay_restore_points{location="main",namespace="backstay-system",state="complete"} 2`,
		`backstay_policy_applications{namespace="backstay-system",policy="kept"} 1`,
		`backstay_backups{phase="Complete"} `,
		`backstay_application_last_success_timestamp_seconds{application="kept",namespace="backstay-system",policy="kept"} `,
		`backstay_jobs{`,
	} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("metrics have no %s", line)
		}
	}
	c.kubectl(t, "-n", system, "annotate", "policies.backstay.io/kept", v1alpha1.AnnotationRunNow+"=now")
	c.wait(t, "the run that was asked for", 3*time.Minute, func() (bool, string) {
		said := c.kubectl(t, "-n", system, "get", "events", "--field-selector", "involvedObject.kind=Policy", "-o",
			`jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
		return strings.Contains(said, "Started: ") && strings.Contains(said, "Complete: "), said
	})
	c.settled(t)

	again := install(t, c, bucket) // everything that was on the cluster goes; what is in the bucket stays
	if got := c.points(t, ns); got != 3 {
		t.Errorf("an empty cluster lists %d points, want 3\n%s", got, again.backstay(t, "points", "app/"+ns))
	}
}

// TestClusterPage runs what docs/kubernetes.md opens with, as it stands, on a cluster that has never seen Backstay.
func TestClusterPage(t *testing.T) {
	c := startCluster(t, "backstay")
	c.uninstall(t)
	url, env := c.s3(t, t.TempDir())
	c.tally(t, "shop", "csi-hostpath-sc")
	c.newNamespace(t, "team-a")
	bin := t.TempDir()
	for name, path := range map[string]string{"kubectl": filepath.Join(c.dir, "programs", "kubectl"), "backstay": program(t, "BACKSTAY_TEST_BINARY")} {
		var script bytes.Buffer
		fmt.Fprintf(&script, "#!/bin/sh\nexec nsenter -t %s -n %s \"$@\"\n", c.node, path)
		if err := os.WriteFile(filepath.Join(bin, name), script.Bytes(), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
		}
	})
	env = append(env, "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(c.dir, "kubeconfig", "admin"),
		"IMAGE="+backstayImage, "VAULT_URL="+url, "VAULT_PASSWORD="+vaultPassword)
	said := runScript(t, t.TempDir(), root(t), block(t, filepath.Join("docs", "kubernetes.md"), "sh"), env...)
	for _, want := range []string{"policy.backstay.io/nightly", "restorepoint.backstay.io/shop-"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page's commands do not list %s:\n%s", want, said)
		}
	}
	c.kubectl(t, "-n", "shop", "rollout", "status", "--timeout=120s", "deployment/counter")
}
