//go:build e2e && long

package e2e

import (
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

// TestClusterDrillCauses: a probe and a pod that a drill waits for in vain, and a Drill that is deleted half way.
func TestClusterDrillCauses(t *testing.T) {
	c := startCluster(t, "backstay")
	d := newDrilled(t, c, "drilled")
	t.Run("probe", func(t *testing.T) {
		d.fails(t, "probe", v1alpha1.DrillSpec{DrillChecks: v1alpha1.DrillChecks{
			HTTP: []v1alpha1.HTTPCheck{{Service: "web", Path: "/broken"}},
		}}, `http web:/broken: it answers 500 Internal Server Error`)
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
	t.Run("pod", func(t *testing.T) {
		d.serves(t, "true")
		d.backstay(t, "backup", "app/"+d.namespace)
		d.settled(t)
		d.was = d.everything(t)
		spec := d.good()
		spec.ReadyWithin = "30s"
		d.fails(t, "pod", spec, `ready drilled/deployment\.apps/web: 0 of 1 pods are ready`)
	})
}
