//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestClusterStorage holds the cluster's own CSI driver to what the tests of backups count on.
func TestClusterStorage(t *testing.T) {
	c := startCluster(t, "backstay")
	const ns = "storage"
	c.newNamespace(t, ns)
	c.apply(t, ns, `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk, labels: {group: one}}
spec: {storageClassName: csi-hostpath-sc, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a, labels: {group: one}}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: b, labels: {group: one}}
spec: {storageClassName: csi-hostpath-late, accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: counter
    image: lab.local/counter:1
    imagePullPolicy: Never
    args: [write, /a/count, /b/count]
    volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]
  - name: disk
    image: lab.local/mariadb:10.11
    imagePullPolicy: Never
    command: [bash, -c, "echo on the disk >/dev/disk; sync; sleep infinity & wait"]
    volumeDevices: [{name: disk, devicePath: /dev/disk}]
  volumes:
  - {name: a, persistentVolumeClaim: {claimName: a}}
  - {name: b, persistentVolumeClaim: {claimName: b}}
  - {name: disk, persistentVolumeClaim: {claimName: disk}}
`)
	c.kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "--timeout=240s", "pod/writer")
	c.apply(t, ns, `
apiVersion: groupsnapshot.storage.k8s.io/v1beta1
kind: VolumeGroupSnapshot
metadata: {name: all}
spec: {source: {selector: {matchLabels: {group: one}}}}
`)
	c.kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.readyToUse}=true", "--timeout=240s", "volumegroupsnapshot/all")
	c.kubectl(t, "-n", ns, "exec", "writer", "-c", "disk", "--", "bash", "-c", "echo later >/dev/disk; sync")
	c.apply(t, ns, c.clonesOf(t, ns, "a", "b", "disk")+`
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: counter
    image: lab.local/counter:1
    imagePullPolicy: Never
    args: [write, /a/count, /b/count]
    volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]
  - name: disk
    image: lab.local/mariadb:10.11
    imagePullPolicy: Never
    command: [sleep, infinity]
    volumeDevices: [{name: disk, devicePath: /dev/disk}]
  volumes:
  - {name: a, persistentVolumeClaim: {claimName: a-clone}}
  - {name: b, persistentVolumeClaim: {claimName: b-clone}}
  - {name: disk, persistentVolumeClaim: {claimName: disk-clone}}
`)
	c.kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "--timeout=240s", "pod/reader")
	first, second := both(t, strings.SplitN(c.kubectl(t, "-n", ns, "logs", "reader", "-c", "counter"), "\n", 2)[0])
	if first.Count == 0 || first.Count-second.Count < 0 || first.Count-second.Count > 1 {
		t.Errorf("a group snapshot holds the counters %d and %d, want them of one instant", first.Count, second.Count)
	}
	if disk := c.kubectl(t, "-n", ns, "exec", "reader", "-c", "disk", "--", "head", "-c", "12", "/dev/disk"); disk != "on the disk\n" {
		t.Errorf("the clone of the block volume holds %q", disk)
	}

	c.wait(t, "nothing is left over before anything was", 3*time.Minute, func() (bool, string) { // of a test before: its namespace goes by itself
		left := c.leftovers(t)
		return !slices.ContainsFunc(left, func(s string) bool { return !strings.Contains(s, "storage/") }), strings.Join(left, "\n")
	})
	c.storageFaults(t, "CreateSnapshot storage/a fail", "CreateSnapshot storage/b unready 10s") // long enough to see that it is not
	for _, claim := range []string{"a", "b"} {
		c.apply(t, ns, "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {name: of-"+claim+
			", labels: {backstay.io/owner: nobody}}\nspec: {source: {persistentVolumeClaimName: "+claim+"}}\n")
	}
	c.kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.creationTime}", "--timeout=240s", "volumesnapshot/of-b")
	if ready := c.kubectl(t, "-n", ns, "get", "volumesnapshot/of-b", "-o", "jsonpath={.status.readyToUse}"); ready != "false" {
		t.Errorf("a snapshot that is to be ready late is ready when it is cut: %q", ready)
	}
	c.kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.error.message}", "--timeout=240s", "volumesnapshot/of-a")
	c.kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.readyToUse}=true", "--timeout=240s", "volumesnapshot/of-b")
	if left := c.leftovers(t); !slices.Contains(left, "storage/volumesnapshot/of-a of nobody") || !slices.Contains(left, "storage/volumesnapshot/of-b of nobody") {
		t.Errorf("leftovers are %q, want the two snapshots of nobody among them", left)
	}
	c.deleteNamespace(t, ns)
	c.noLeftovers(t)
}

// clonesOf are manifests of claims that hold what the snapshots of a group have of others.
func (c *cluster) clonesOf(t *testing.T, namespace string, claims ...string) string {
	t.Helper()
	var manifests strings.Builder
	for _, claim := range claims {
		var snapshot string
		c.wait(t, "a snapshot of "+claim, 3*time.Minute, func() (bool, string) {
			snapshot = c.kubectl(t, "-n", namespace, "get", "volumesnapshots", "-o",
				`jsonpath={.items[?(@.spec.source.persistentVolumeClaimName=="`+claim+`")].metadata.name}`)
			return snapshot != "", "none"
		})
		mode := "Filesystem"
		if claim == "disk" {
			mode = "Block"
		}
		manifests.WriteString(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: ` + claim + `-clone}
spec:
  storageClassName: csi-hostpath-sc
  volumeMode: ` + mode + `
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 32Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: ` + snapshot + `}
---
`)
	}
	return manifests.String()
}
