//go:build e2e && long

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// victim is a part of Backstay, or what it stands on, that is killed without warning.
type victim struct {
	name string
	kill func(t *testing.T, i *installed)
}

func victims() []victim {
	pods := func(selector string) func(t *testing.T, i *installed) {
		return func(t *testing.T, i *installed) {
			i.try(t, "", "-n", system, "delete", "pods", "-l", selector, "--force", "--grace-period=0", "--wait=false")
		}
	}
	return []victim{
		{"controller", pods("app.kubernetes.io/component=controller")},
		{"worker", pods("app.kubernetes.io/component=worker")},
		{"mover", pods("app.kubernetes.io/component=mover")},
		{"apiserver", func(t *testing.T, i *installed) { i.kill(t, "kube-apiserver") }},
	}
}

// strike waits until an object's work has reached a phase, or is past it, and kills the victim; then it waits for the end.
func strike(t *testing.T, i *installed, api client.Client, o client.Object, look func() v1alpha1.Phase, at v1alpha1.Phase, phases []v1alpha1.Phase, v victim) v1alpha1.Phase {
	t.Helper()
	reached := func(phase v1alpha1.Phase) bool {
		return phase.Final() || slices.Index(phases, phase) >= slices.Index(phases, at)
	}
	struck := false
	deadline := time.Now().Add(4 * time.Minute)
	for time.Now().Before(deadline) {
		err := api.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if err == nil && !struck && reached(look()) {
			v.kill(t, i)
			struck = true
		}
		if err == nil && struck && look().Final() {
			return look()
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s killed at %s: it does not end; its phase is %s", v.name, at, look())
	return ""
}

// TestClusterKilledInEveryPhase kills everything that takes part in a backup, and in a restore, in each of its phases.
func TestClusterKilledInEveryPhase(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	api := c.connect(t).Client
	const ns = "tally"
	c.tally(t, ns, "csi-hostpath-sc")
	state := c.state(t, ns)
	// Snapshots that are cut at once and readable later, so that there is time to strike.
	c.storageFaults(t, "CreateSnapshot tally/* unready 1s", "CreateVolumeGroupSnapshot tally/* unready 1s")
	i.backstay(t, "backup", "app/"+ns)
	points := 1

	backups := []v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhaseQuiescing, v1alpha1.PhaseListing, v1alpha1.PhaseMoving, v1alpha1.PhaseTidying}
	restores := []v1alpha1.Phase{
		v1alpha1.PhasePending, v1alpha1.PhasePlanning, v1alpha1.PhaseMoving, v1alpha1.PhaseSwapping, v1alpha1.PhaseApplying, v1alpha1.PhaseWaiting,
	}
	asItWas := func(t *testing.T) {
		t.Helper()
		c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=120s", "deployment/counter")
		now := c.state(t, ns)
		if changed := append(missing(now, state), missing(state, now)...); len(changed) > 0 {
			t.Errorf("other than it was: %s", strings.Join(changed, "\n"))
		}
		first, second := c.countersFound(t, ns)
		if first.Count < second.Count || first.Count-second.Count > 1 {
			t.Errorf("the counters are %d and %d, not of one instant", first.Count, second.Count)
		}
	}
	for _, v := range victims() {
		for n, phase := range backups {
			t.Run(fmt.Sprintf("backup/%s/%s", v.name, phase), func(t *testing.T) {
				b := &v1alpha1.Backup{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("b-%s-%d", v.name, n), Namespace: system},
					Spec:       v1alpha1.BackupSpec{Location: "main", Application: v1alpha1.Applications{Namespaces: []string{ns}}},
				}
				create(t, api, b)
				switch ended := strike(t, i, api, b, func() v1alpha1.Phase { return b.Status.Phase }, phase, backups, v); ended {
				case v1alpha1.PhaseComplete:
					points++
				case v1alpha1.PhaseFailed:
				default:
					t.Errorf("it ended %s: %q", ended, b.Status.Problems)
				}
				asItWas(t)
			})
		}
		for n, phase := range restores {
			t.Run(fmt.Sprintf("restore/%s/%s", v.name, phase), func(t *testing.T) {
				r := &v1alpha1.Restore{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r-%s-%d", v.name, n), Namespace: system},
					Spec:       v1alpha1.RestoreSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: ns}, KeepOld: "0s"},
				}
				create(t, api, r)
				ended := strike(t, i, api, r, func() v1alpha1.Phase { return r.Status.Phase }, phase, restores, v)
				if ended != v1alpha1.PhaseComplete && ended != v1alpha1.PhaseFailed {
					t.Errorf("it ended %s: %q", ended, r.Status.Problems)
				}
				asItWas(t)
			})
		}
	}
	c.kubectl(t, "-n", system, "rollout", "restart", "deployment/backstay-controller") // whoever leads anew tidies first
	c.kubectl(t, "-n", system, "rollout", "status", "--timeout=120s", "deployment/backstay-controller")
	c.wait(t, "a tidying after the restart", 2*time.Minute, func() (bool, string) {
		c.settled(t)
		left := c.leftovers(t)
		return len(left) == 0, strings.Join(left, "\n")
	})
	if listed := strings.Count(i.backstay(t, "points", "app/"+ns), "complete"); listed < points {
		t.Errorf("%d points are listed, %d were made", listed, points)
	}
}
