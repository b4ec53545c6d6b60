//go:build e2e && long

package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
