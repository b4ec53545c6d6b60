//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// installed is a cluster with Backstay on it, as deploy/backstay.yaml installs it, and a Location main in a bucket.
type installed struct {
	*cluster
	url string
	env []string // of the bucket's credentials
}

const (
	system        = "backstay-system"
	vaultPassword = "correct horse battery staple"
)

// install puts Backstay on a cluster, with the image of bin/backstay as it is now, and gives it the location in the directory.
func install(t *testing.T, c *cluster, bucket string) *installed {
	t.Helper()
	i := &installed{cluster: c}
	i.url, i.env = c.s3(t, bucket)
	c.deploy(t)
	i.location(t, system, "main")
	return i
}

// deploy puts Backstay on a cluster that has none, nor any of its objects.
func (c *cluster) deploy(t *testing.T) {
	t.Helper()
	manifests, err := os.ReadFile("../../deploy/backstay.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.uninstall(t)
	text := strings.ReplaceAll(string(manifests), "backstay:dev", backstayImage)
	text = strings.Replace(text, "- controller\n", "- controller\n            - --kubelet-dir=/run/node/kubelet\n", 1) // as test/cluster has it
	c.kubectlWith(t, text, "apply", "--server-side", "--force-conflicts", "-f", "-")
	c.kubectl(t, "-n", system, "rollout", "status", "--timeout=240s", "deployment/backstay-controller")
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
		}
	})
}

// uninstall takes Backstay off a cluster as docs/kubernetes.md says where the controller does not run, with all its objects. Finalizers go
// when its namespace is on its way, for a worker that lives a little longer makes no new objects there.
func (c *cluster) uninstall(t *testing.T) {
	t.Helper()
	c.try(t, "", "-n", system, "delete", "deployment", "backstay-controller", "--ignore-not-found", "--timeout=60s")
	c.kubectl(t, "delete", "namespace", system, "--ignore-not-found", "--wait=false")
	api := c.connect(t).Client
	for end := time.Now().Add(200 * time.Second); ; time.Sleep(time.Second) { // a worker has 150 s to end
		for _, list := range []client.ObjectList{&v1alpha1.RestorePointList{}, &v1alpha1.BackupList{}, &v1alpha1.RestoreList{}, &v1alpha1.DrillList{}} {
			if api.List(t.Context(), list) != nil {
				continue // Backstay was never there
			}
			_ = meta.EachListItem(list, func(o runtime.Object) error { // there may be many
				return api.Patch(t.Context(), o.(client.Object), client.RawPatch(types.MergePatchType, []byte(noFinalizers)))
			})
		}
		left := c.kubectl(t, "get", "namespace", system, "--ignore-not-found", "-o", "yaml")
		if left == "" {
			return
		}
		if time.Now().After(end) {
			c.explain(t)
			t.Fatalf("namespace %s does not go:\n%s", system, left)
		}
	}
}

// location makes a Location and its Secret in a namespace, and waits until it is ready.
func (i *installed) location(t *testing.T, namespace, name string) {
	t.Helper()
	values := map[string]string{}
	for _, pair := range i.env {
		key, value, _ := strings.Cut(pair, "=")
		values[key] = value
	}
	i.apply(t, namespace, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: vault}
stringData: {password: %q, id: %q, key: %q}
---
apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: %s}
spec:
  url: %q
  password: {secretKeyRef: {name: vault, key: password}}
  credentials:
    AWS_ACCESS_KEY_ID: {secretKeyRef: {name: vault, key: id}}
    AWS_SECRET_ACCESS_KEY: {secretKeyRef: {name: vault, key: key}}
`, vaultPassword, values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"], name, i.url))
	i.kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "--timeout=240s", "locations.backstay.io/"+name)
}

// explain logs what the cluster has to say about a failure.
func (c *cluster) explain(t *testing.T) {
	kubectl := filepath.Join(c.dir, "programs", "kubectl")
	for _, args := range [][]string{
		{"get", "pods", "-A"},
		{"-n", system, "get", "backups.backstay.io,restores.backstay.io,jobs,pvc,volumesnapshots"},
		{"get", "backups.backstay.io,restores.backstay.io,drills.backstay.io", "-A", "-o", "jsonpath={range .items[*]}{.metadata.name}{\": \"}{.status.phase}{\" \"}{.status.problems}{\"\\n\"}{end}"},
		{"-n", system, "logs", "deployment/backstay-controller", "--tail=30"},
		{"-n", system, "logs", "-l", "app.kubernetes.io/component=worker", "--tail=30", "--prefix"},
	} {
		out, _ := c.command(context.Background(), kubectl, args...).CombinedOutput()
		t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}

// binary is the program under test.
func (i *installed) binary(t *testing.T) string {
	t.Helper()
	binary, err := filepath.Abs(program(t, "BACKSTAY_TEST_BINARY"))
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// run runs backstay against the cluster.
func (i *installed) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	return finish(t, i.command(ctx, i.binary(t), args...))
}

// backstay runs backstay, which must succeed.
func (i *installed) backstay(t *testing.T, args ...string) string {
	t.Helper()
	r := i.run(t, args...)
	if r.exit != 0 {
		t.Fatalf("backstay %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}

// state is all that users made in a namespace, normalised: one line of JSON for each object.
func (c *cluster) state(t *testing.T, namespace string) []string {
	t.Helper()
	kinds := "configmaps,secrets,services,serviceaccounts,roles,rolebindings,deployments,statefulsets,persistentvolumeclaims"
	if strings.Contains(c.kubectl(t, "get", "crd", "-o", "name"), "widgets.shop") {
		kinds += ",widgets.shop.backstay.io"
	}
	return normalised(t, c.kubectl(t, "-n", namespace, "get", kinds, "-o", "json"))
}

// missing are the lines of want that got lacks.
func missing(got, want []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(line string) bool { return slices.Contains(got, line) })
}

// settled waits until the controller has no Job under way.
func (c *cluster) settled(t *testing.T) {
	t.Helper()
	c.wait(t, "all Jobs of Backstay end", 5*time.Minute, func() (bool, string) {
		said := c.kubectl(t, "-n", system, "get", "jobs", "-o",
			`jsonpath={range .items[?(@.status.active)]}{.metadata.name}{"\n"}{end}`)
		return said == "", said
	})
}

// down ends a cluster.
func (c *cluster) down(t *testing.T) {
	t.Helper()
	if r := finish(t, exec.CommandContext(context.Background(), "../cluster/down.sh", c.name)); r.exit != 0 {
		t.Errorf("down.sh %s: exit %d\n%s", c.name, r.exit, r.stderr)
	}
}

// create makes an object, although the API server may just be on its way back.
func create(t *testing.T, api client.Client, o client.Object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		err := api.Create(ctx, o)
		if err == nil || strings.Contains(err.Error(), "already exists") {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// metrics is the page that the controller serves, without comments.
func (i *installed) metrics(t *testing.T) string {
	t.Helper()
	address := i.kubectl(t, "-n", system, "get", "service", "backstay-metrics", "-o", "jsonpath={.spec.clusterIP}")
	asker := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: i.dial, DisableKeepAlives: true}}
	answer, err := asker.Get("http://" + address + ":8080/metrics") //nolint:noctx // it has a timeout
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s %v", answer.Status, err)
	}
	return "\n" + string(page)
}
