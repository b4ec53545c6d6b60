//go:build e2e && long

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

func drillWork(name, namespace string) work {
	d := &v1alpha1.Drill{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: system}, Spec: v1alpha1.DrillSpec{Latest: latest(namespace)}}
	return work{
		d, func() (v1alpha1.Phase, string, []string) { return d.Status.Phase, d.Status.Job, d.Status.Problems },
		[]v1alpha1.Phase{v1alpha1.PhasePlanning, v1alpha1.PhaseMoving, v1alpha1.PhaseWaiting},
	}
}

// TestClusterDrillKilledInEveryPhase kills the worker of a drill in each of its phases, once and again and again, and looks at what is left.
func TestClusterDrillKilledInEveryPhase(t *testing.T) {
	cl := startCluster(t, "backstay")
	c := &crashes{installed: install(t, cl, t.TempDir()), api: cl.connect(t).Client}
	const namespace = "crash-drill"
	c.tally(t, namespace, "csi-hostpath-sc")
	c.backstay(t, "backup", "app/"+namespace)
	once := victim{name: "worker", kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.workers()) }}
	pod := victim{name: "worker-pod", kill: func(t *testing.T, c *crashes, w work) bool {
		return c.remove(t, w.workers(), corev1.PodPending, corev1.PodRunning)
	}}
	always := victim{name: "workers", only: []v1alpha1.Phase{v1alpha1.PhaseMoving}, always: true, kill: once.kill}
	for _, v := range []victim{once, pod, always} {
		for _, at := range drillWork("", "").phases {
			if len(v.only) > 0 && v.only[0] != at {
				continue
			}
			t.Run(v.name+"/"+string(at), func(t *testing.T) {
				c.crash(t, namespace, drillWork, at, v)
				c.wait(t, "namespaces of drills are gone", 2*time.Minute, func() (bool, string) {
					left := c.kubectl(t, "get", "namespaces", "-l", v1alpha1.LabelOwner, "-o", "name")
					return left == "", left
				})
				c.noLeftovers(t)
			})
		}
	}
}

// TestClusterDrillCauses: a probe and a pod that a drill waits for in vain, a Drill that is deleted half way, and a database that it does not
// look at.
func TestClusterDrillCauses(t *testing.T) {
	c := startCluster(t, "backstay")
	d := newDrilled(t, c, "drilled")
	t.Run("probe", func(t *testing.T) {
		d.fails(t, "probe", v1alpha1.DrillSpec{DrillChecks: v1alpha1.DrillChecks{
			HTTP: []v1alpha1.HTTPCheck{{Service: "web", Path: "/broken"}},
			Exec: []v1alpha1.ExecCheck{mariadb("SELECT COUNT(*) FROM shop.data WHERE id = 4711", "1")},
		}}, `(?s)http web:/broken: it answers 500 Internal Server Error.*exec mariadb: it prints "0", and not "1"`)
	})
	t.Run("deleted", func(t *testing.T) {
		o := &v1alpha1.Drill{
			ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "deleted"},
			Spec:       v1alpha1.DrillSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: d.namespace}},
		}
		create(t, d.api, o)
		d.wait(t, "the drill is half way", 3*time.Minute, func() (bool, string) {
			err := d.api.Get(t.Context(), client.ObjectKeyFromObject(o), o)
			return err == nil && o.Status.Phase == v1alpha1.PhaseWaiting, string(o.Status.Phase)
		})
		d.kubectl(t, "-n", system, "delete", "drills.backstay.io", "deleted", "--timeout=300s")
		d.asItWas(t)
	})
	t.Run("outside", func(t *testing.T) {
		server := c.databaseServer(t)
		server.fill(t, 100)
		d.kubectlWith(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: orders}\nstringData: {password: %q}\n", databasePassword),
			"-n", system, "apply", "--server-side", "-f", "-")
		d.dumps(t, fmt.Sprintf("      - {name: orders, engine: mysql, host: %s, port: %s, tls: {mode: disable}, username: backstay, databases: [orders], "+
			"password: {secretKeyRef: {name: orders, key: password}}}\n", nodeAddress, server.port))
		d.backup(t)
		server.sql(t, "DELETE FROM orders.data WHERE id > 10")
		now := server.sum(t)
		d.fails(t, "outside", d.good(), `database databases/orders: not looked at`)
		spec := d.good()
		spec.ExceptDatabases = []string{"orders"}
		o := d.make(t, "excepted", spec)
		if o.Status.Phase != v1alpha1.PhaseComplete || !checked(o, "sql", `"100"`) {
			t.Fatalf("status %+v", o.Status)
		}
		if message := d.proof(t, o, "True"); !strings.Contains(message, "nobody looked at databases/orders") {
			t.Errorf("the point says %q", message)
		}
		if said := d.backstay(t, "points", "app/"+d.namespace); !strings.Contains(said, "PROVEN") || !strings.Contains(said, " in part\n") {
			t.Errorf("points:\n%s", said)
		}
		d.asItWas(t)
		if got := server.sum(t); got != now {
			t.Errorf("the server outside has %q, had %q", got, now)
		}
	})
	t.Run("pod", func(t *testing.T) {
		d.serves(t, "true")
		d.dumps(t, "")
		d.backup(t)
		spec := d.good()
		spec.ReadyWithin = "30s"
		d.fails(t, "pod", spec, `ready drilled/deployment\.apps/web: 0 of 1 pods are ready`)
	})
}
