//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/backstay/backstay/internal/kube"
)

// cluster is a Kubernetes of one node, in namespaces of its own; test/cluster has the scripts. The test stays outside: it reaches in
// with nsenter, or with sockets made inside.
type cluster struct {
	name string
	node string // process id of its node
	dir  string // its files, as /run/node inside
}

// The node's address, for what a test serves to pods. The same in each cluster: their networks know nothing of each other.
const nodeAddress = "10.77.0.1"

// backstayImage is made of bin/backstay when a cluster is attached to.
const backstayImage = "lab.local/backstay:dev"

// startCluster attaches to a cluster, which is started when it does not run. It goes on after the test: `make e2e-down` ends it. Its
// image of Backstay is made of bin/backstay as it is now.
func startCluster(t *testing.T, name string) *cluster {
	t.Helper()
	program(t, "BACKSTAY_TEST_KUBERNETES")
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("run as root: a cluster has namespaces, mounts and devices of its own")
		}
		t.Skip("run as root: a cluster has namespaces, mounts and devices of its own")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if r := finish(t, exec.CommandContext(ctx, "../cluster/up.sh", name)); r.exit != 0 {
		t.Fatalf("up.sh %s: exit %d\n%s%s", name, r.exit, r.stdout, r.stderr)
	}
	dir := os.Getenv("BACKSTAY_TEST_CLUSTER")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "backstay", "cluster")
	}
	c := &cluster{name: name, dir: filepath.Join(dir, name)}
	pid, err := os.ReadFile(filepath.Join(c.dir, "node.pid"))
	if err != nil {
		t.Fatal(err)
	}
	c.node = strings.TrimSpace(string(pid))
	return c
}

// command runs a program in the cluster's network, as its administrator: kubectl, or bin/backstay.
func (c *cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", c.node, "-n", program}, args...)...)
	cmd.Env = append(cleanEnv(), "KUBECONFIG="+filepath.Join(c.dir, "kubeconfig", "admin"))
	return cmd
}

// try runs kubectl with some input.
func (c *cluster) try(t *testing.T, input string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := c.command(ctx, filepath.Join(c.dir, "programs", "kubectl"), args...)
	cmd.Stdin = strings.NewReader(input)
	return finish(t, cmd)
}

// kubectl runs kubectl, which must succeed. An API server that is away is waited for.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.kubectlWith(t, "", args...)
}

// apply makes objects of manifests, in a namespace where they name none.
func (c *cluster) apply(t *testing.T, namespace, manifests string) {
	t.Helper()
	c.kubectlWith(t, manifests, "-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", "-")
}

func (c *cluster) kubectlWith(t *testing.T, input string, args ...string) string {
	t.Helper()
	r := c.try(t, input, args...)
	for deadline := time.Now().Add(3 * time.Minute); r.exit != 0 && away(r.stderr) && time.Now().Before(deadline); time.Sleep(time.Second) {
		r = c.try(t, input, args...)
	}
	if r.exit != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// away reports whether kubectl failed for want of an API server: a test may have killed it.
func away(said string) bool {
	return slices.ContainsFunc([]string{"was refused", "connection refused", "EOF", "connection reset", "the server is currently unable", "http2: ", "TLS handshake timeout"},
		func(sign string) bool { return strings.Contains(said, sign) })
}

// connect gives the API to what speaks Go, with all rights.
func (c *cluster) connect(t *testing.T) *kube.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, "kubeconfig", "admin"))
	if err != nil {
		t.Fatal(err)
	}
	config.Dial = c.dial
	k, err := kube.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// dial connects from inside the cluster's network. A socket stays in the network of the thread that made it.
func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type made struct {
		conn net.Conn
		err  error
	}
	done := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is of no use to others any more, and ends
		conn, err := func() (net.Conn, error) {
			ns, err := os.Open("/proc/" + c.node + "/ns/net")
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("enter the network of cluster %s: %w", c.name, err)
			}
			return new(net.Dialer).DialContext(ctx, network, address) // of an address: no other thread is asked
		}()
		done <- made{conn, err}
	}()
	m := <-done
	return m.conn, m.err
}

// wait looks again and again until done says so, and fails with what it said last.
func (c *cluster) wait(t *testing.T, what string, patience time.Duration, done func() (ok bool, said string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(300 * time.Millisecond) {
		ok, said := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %s", what, patience, said)
		}
	}
}

// newNamespace makes a namespace that goes with the test; what is left of an earlier one goes first.
func (c *cluster) newNamespace(t *testing.T, name string) {
	t.Helper()
	c.deleteNamespace(t, name)
	c.kubectl(t, "create", "namespace", name)
	c.clean(t, "delete", "namespace", name, "--wait=false", "--ignore-not-found")
	c.clean(t, "-n", name, "patch", "widgets.shop.backstay.io", "green", "--type=merge", "-p", noFinalizers)
}

// noFinalizers lets go of an object whose finalizer nobody serves: the application has a widget of that kind.
const noFinalizers = `{"metadata":{"finalizers":null}}`

// clean runs kubectl when the test has ended, the last asked for first, unless it failed: then one may want to look.
func (c *cluster) clean(t *testing.T, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			_ = c.command(context.Background(), filepath.Join(c.dir, "programs", "kubectl"), args...).Run()
		}
	})
}

// deleteNamespace is done when the namespace is gone.
func (c *cluster) deleteNamespace(t *testing.T, name string) {
	t.Helper()
	c.try(t, "", "-n", name, "patch", "widgets.shop.backstay.io", "green", "--type=merge", "-p", noFinalizers)
	c.kubectl(t, "delete", "namespace", name, "--ignore-not-found", "--timeout=240s")
}

// exec runs a command in a pod, or in one of a workload: deployment/postgresql.
func (c *cluster) exec(t *testing.T, namespace, pod string, command ...string) string {
	t.Helper()
	return c.kubectl(t, append([]string{"-n", namespace, "exec", pod, "--"}, command...)...)
}

// kill ends a program of the node, which starts it again: kube-apiserver, kubelet, containerd, csihost-hostpath.csi.k8s.io, …
func (c *cluster) kill(t *testing.T, program string) {
	t.Helper()
	if r := finish(t, exec.CommandContext(t.Context(), "../cluster/kill.sh", c.name, program)); r.exit != 0 {
		t.Fatalf("kill.sh %s: exit %d\n%s", program, r.exit, r.stderr)
	}
}

// storageFaults orders failures of the CSI drivers until the test ends; test/servers/kubernetes/csihost/faults.go has their language.
func (c *cluster) storageFaults(t *testing.T, lines ...string) {
	t.Helper()
	path := filepath.Join(c.dir, "faults")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
}

// object is what leftovers read of any object.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		CSI struct {
			VolumeHandle string `json:"volumeHandle"`
		} `json:"csi"`
	} `json:"spec"`
	Status struct {
		Phase          string `json:"phase"`
		SnapshotHandle string `json:"snapshotHandle"`
	} `json:"status"`
}

func (o object) String() string {
	return strings.TrimPrefix(o.Metadata.Namespace+"/", "/") + strings.ToLower(o.Kind) + "/" + o.Metadata.Name
}

func (c *cluster) list(t *testing.T, args ...string) []object {
	t.Helper()
	var list struct {
		Items []object `json:"items"`
	}
	decode(t, c.kubectl(t, append([]string{"get", "-o", "json"}, args...)...), &list)
	return list.Items
}

// working are the kinds of objects that a backup or a restore makes for itself.
const working = "volumesnapshots.snapshot.storage.k8s.io,volumesnapshotcontents.snapshot.storage.k8s.io," +
	"volumegroupsnapshots.groupsnapshot.storage.k8s.io,volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io," +
	"persistentvolumeclaims,persistentvolumes,jobs,pods,secrets,configmaps,statefulsets,deployments"

// leftovers lists what backups and restores left behind on the whole cluster: objects labelled as somebody's who is done, volumes that
// are behind no claim and are no undo, and volumes and snapshots that the storage has and no object speaks of. Ask when nothing runs.
func (c *cluster) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, o := range c.list(t, working, "--all-namespaces", "-l", "backstay.io/owner") {
		left = append(left, o.String()+" of "+o.Metadata.Labels["backstay.io/owner"])
	}
	spoken := map[string]bool{}
	for _, o := range c.list(t, "persistentvolumes") {
		spoken[o.Spec.CSI.VolumeHandle] = true
		if _, undo := o.Metadata.Labels["backstay.io/undo"]; !undo && o.Status.Phase != "Bound" {
			left = append(left, o.String()+" is "+o.Status.Phase)
		}
	}
	for _, o := range c.list(t, "volumesnapshotcontents.snapshot.storage.k8s.io") {
		spoken[o.Status.SnapshotHandle] = true
	}
	for _, driver := range []string{"hostpath.csi.k8s.io", "plain.csi.backstay.io"} {
		for _, id := range c.stored(t, driver) {
			if !spoken[id] {
				left = append(left, driver+" has "+id)
			}
		}
	}
	slices.Sort(left)
	return slices.Compact(left)
}

// noLeftovers waits for the controllers of the cluster, which delete in their own time.
func (c *cluster) noLeftovers(t *testing.T) {
	t.Helper()
	c.wait(t, "nothing is left behind", 3*time.Minute, func() (bool, string) {
		left := c.leftovers(t)
		return len(left) == 0, strings.Join(left, "\n")
	})
}

// stored lists the volumes and snapshots that a CSI driver has.
func (c *cluster) stored(t *testing.T, driver string) []string {
	t.Helper()
	content, err := os.ReadFile("/proc/" + c.node + "/root/run/node/csi/" + driver + "/state.json")
	if os.IsNotExist(err) {
		return nil // it never had any
	}
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Volumes, Snapshots map[string]any }
	if err := json.Unmarshal(content, &state); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, of := range []map[string]any{state.Volumes, state.Snapshots} {
		for id := range of {
			ids = append(ids, id)
		}
	}
	return ids
}

// s3 serves a directory as a bucket to the cluster's pods and to programs in its network, until the test ends. Two clusters may serve
// the same directory. It gives the location's URL, and the environment of credentials.
func (c *cluster) s3(t *testing.T, dir string) (url string, env []string) {
	t.Helper()
	const bucket, key, secret = "vault", "backstay-test", "not-much-of-a-secret"
	if err := os.MkdirAll(filepath.Join(dir, bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // free here, and so in there
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	address := net.JoinHostPort(nodeAddress, port)
	server := c.command(context.Background(), program(t, "BACKSTAY_TEST_VERSITYGW"), "--port", address, "--quiet", "posix", dir)
	server.Env = append(server.Env, "ROOT_ACCESS_KEY="+key, "ROOT_SECRET_KEY="+secret)
	said := &lockedBuffer{}
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Logf("the S3 server said: %s", said)
		}
	})
	c.wait(t, "the S3 server answers", 2*time.Minute, func() (bool, string) {
		conn, err := c.dial(t.Context(), "tcp", address)
		if err != nil {
			return false, err.Error() + said.String()
		}
		return conn.Close() == nil, ""
	})
	return "s3://" + bucket + "/backstay?region=us-east-1&tls=false&endpoint=" + address,
		[]string{"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secret}
}

// account gives a namespace the service account that docs/rbac.md describes.
func (c *cluster) account(t *testing.T, namespace string) {
	t.Helper()
	c.apply(t, namespace, strings.ReplaceAll(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: backstay}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: backstay}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: backstay}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: backstay}
subjects: [{kind: ServiceAccount, name: backstay, namespace: NAMESPACE}]
`, "NAMESPACE", namespace))
}
