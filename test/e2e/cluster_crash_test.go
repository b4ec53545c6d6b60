//go:build e2e && long

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// crashes is a cluster on which things are killed.
type crashes struct {
	*installed
	api client.Client
}

// work is a Backup or a Restore.
type work struct {
	object client.Object
	status func() (phase v1alpha1.Phase, job string, problems []string)
	phases []v1alpha1.Phase // that it goes through
}

func backupWork(name, namespace string) work {
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: system},
		Spec:       v1alpha1.BackupSpec{Location: "main", Application: v1alpha1.Applications{Namespaces: []string{namespace}}},
	}
	return work{
		b, func() (v1alpha1.Phase, string, []string) { return b.Status.Phase, b.Status.Job, b.Status.Problems },
		[]v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhaseQuiescing, v1alpha1.PhaseListing, v1alpha1.PhaseMoving, v1alpha1.PhaseTidying},
	}
}

func restoreWork(name, namespace string) work {
	r := &v1alpha1.Restore{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: system},
		Spec:       v1alpha1.RestoreSpec{Latest: latest(namespace), KeepOld: "0s"},
	}
	return work{
		r, func() (v1alpha1.Phase, string, []string) { return r.Status.Phase, r.Status.Job, r.Status.Problems },
		[]v1alpha1.Phase{
			v1alpha1.PhasePending, v1alpha1.PhasePlanning, v1alpha1.PhaseMoving, v1alpha1.PhaseSwapping, v1alpha1.PhaseApplying, v1alpha1.PhaseWaiting,
		},
	}
}

func (w work) phase() v1alpha1.Phase {
	phase, _, _ := w.status()
	return phase
}

// workers selects the pods of a work's Job, movers those of its movers.
func (w work) workers() client.MatchingLabels {
	_, job, _ := w.status()
	return client.MatchingLabels{"job-name": job, "app.kubernetes.io/component": "worker"}
}

func (w work) movers() client.MatchingLabels {
	return client.MatchingLabels{v1alpha1.LabelOwner: string(w.object.GetUID()), "app.kubernetes.io/component": "mover"}
}

// victim is a part of Backstay, or what it stands on, that is killed without warning.
type victim struct {
	name   string
	kill   func(t *testing.T, c *crashes, w work) bool // whether there was something to kill
	only   []v1alpha1.Phase                            // in which it is there; none for all
	always bool                                        // also each that takes its place
	fatal  bool                                        // nothing takes its place: the work may fail
}

// lanes are the victims: those of a lane die one after the other, and lanes go side by side, each with an application of its own.
func lanes() map[string][]victim {
	moving := []v1alpha1.Phase{v1alpha1.PhaseMoving}
	return map[string][]victim{
		"crash-a": {{name: "controller", kill: killController}},
		"crash-b": {
			{name: "apiserver", kill: func(t *testing.T, c *crashes, _ work) bool { c.kill(t, "kube-apiserver"); return true }},
			{name: "mover", only: moving, kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.movers()) }},
			{name: "mover-pod", only: moving, kill: func(t *testing.T, c *crashes, w work) bool { return c.remove(t, w.movers(), corev1.PodRunning) }},
		},
		"crash-c": {{name: "worker", kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.workers()) }}},
		"crash-d": {
			// The pod of a node that nobody hears of any more: the next worker begins while this one still runs.
			{name: "worker-pod", kill: func(t *testing.T, c *crashes, w work) bool {
				return c.remove(t, w.workers(), corev1.PodPending, corev1.PodRunning)
			}},
			{
				name: "workers", only: []v1alpha1.Phase{v1alpha1.PhaseMoving, v1alpha1.PhaseWaiting}, always: true,
				kill: func(t *testing.T, c *crashes, w work) bool { return c.slay(t, w.workers()) },
			},
		},
	}
}

// killController kills the controller. Its pod goes with it: it would wait longer each time before it starts again.
func killController(t *testing.T, c *crashes, _ work) bool {
	t.Helper()
	controllers := client.MatchingLabels{"app.kubernetes.io/component": "controller"}
	return c.slay(t, controllers) && c.remove(t, controllers, corev1.PodRunning)
}

// removeJob deletes the Job of some work, with its pods.
func (c *crashes) removeJob(t *testing.T, w work) bool {
	t.Helper()
	_, name, _ := w.status()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}}
	return name != "" && c.api.Delete(t.Context(), job, client.PropagationPolicy(metav1.DeletePropagationBackground)) == nil
}

// pods lists pods of Backstay; none while the API server is away.
func (c *crashes) pods(t *testing.T, which client.MatchingLabels) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := c.api.List(t.Context(), &list, client.InNamespace(system), which); err != nil {
		return nil
	}
	return list.Items
}

// remove deletes pods that are in some phase by force: nobody waits until they have ended.
func (c *crashes) remove(t *testing.T, which client.MatchingLabels, in ...corev1.PodPhase) (some bool) {
	t.Helper()
	for _, p := range c.pods(t, which) {
		if slices.Contains(in, p.Status.Phase) {
			some = c.api.Delete(t.Context(), &p, client.GracePeriodSeconds(0)) == nil || some
		}
	}
	return some
}

// slay ends the processes of pods as no memory and no power do: without a word.
func (c *crashes) slay(t *testing.T, which client.MatchingLabels) (some bool) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.pods(t, which) {
		for _, dir := range processes {
			program, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			group, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
			if !bytes.HasPrefix(program, []byte("/usr/bin/backstay\x00")) || !bytes.Contains(group, []byte("pod"+p.UID)) {
				continue
			}
			if id, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				process, err := os.FindProcess(id)
				some = err == nil && process.Kill() == nil || some
			}
		}
	}
	return some
}

// strike has work begin, kills the victim as soon as the work is in a phase, and waits for the end. It reports whether the phase was
// seen: some are short.
func (c *crashes) strike(t *testing.T, w work, at v1alpha1.Phase, v victim) (struck bool) {
	t.Helper()
	create(t, c.api, w.object)
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		if c.api.Get(t.Context(), client.ObjectKeyFromObject(w.object), w.object) == nil {
			phase := w.phase()
			switch due := phase == at || struck && v.always; {
			case phase.Final():
				return struck
			case due && (!struck || v.always):
				struck = v.kill(t, c, w) || struck
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s killed in %s: it does not end; it is in %s", v.name, at, w.phase())
	return false
}

// crash strikes a victim in a phase of some work, and looks at what has become of everything.
func (c *crashes) crash(t *testing.T, namespace string, makeWork func(name, namespace string) work, at v1alpha1.Phase, v victim) {
	t.Helper()
	const tries = 3 // to see a phase
	for try := range tries {
		state, volumes := c.state(t, namespace), c.volumesOf(t, namespace)
		w := makeWork(strings.ToLower(fmt.Sprintf("%s-%s-%d", v.name, at, try)), namespace)
		began := time.Now()
		struck := c.strike(t, w, at, v)
		phase, _, problems := w.status()
		t.Logf("killed: %v; %s after %.0f s %q", struck, phase, time.Since(began).Seconds(), problems)
		if phase != v1alpha1.PhaseComplete && phase != v1alpha1.PhaseFailed || phase == v1alpha1.PhaseFailed && !v.always {
			t.Errorf("it ended %s: %q", phase, problems)
		}
		c.asItWas(t, namespace, w, state, volumes)
		if struck {
			return
		}
	}
	t.Errorf("it was never seen in %s with a %s", at, v.name)
}

// volumesOf are the volumes behind a namespace's claims.
func (c *crashes) volumesOf(t *testing.T, namespace string) []string {
	t.Helper()
	return strings.Fields(c.kubectl(t, "-n", namespace, "get", "persistentvolumeclaims", "-o", "jsonpath={.items[*].spec.volumeName}"))
}

// asItWas checks that work which ended left the application as it was, with all of its data from one instant: the point's after a restore
// that is complete, else its own; and that nothing is left of the work.
func (c *crashes) asItWas(t *testing.T, namespace string, w work, state, volumes []string) {
	t.Helper()
	failed := w.phase() == v1alpha1.PhaseFailed
	c.wait(t, "what it left is gone", 3*time.Minute, func() (bool, string) {
		if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(w.object), w.object); err != nil {
			return false, err.Error()
		}
		left := c.leftBy(t, string(w.object.GetUID()))
		return len(left) == 0 && len(w.object.GetFinalizers()) == 0, strings.Join(left, "\n") // one that failed is let go when it was tidied up after
	})
	c.kubectl(t, "-n", namespace, "rollout", "status", "--timeout=120s", "deployment/counter")
	now := c.state(t, namespace)
	if changed := append(missing(now, state), missing(state, now)...); len(changed) > 0 {
		t.Errorf("other than it was: %s", strings.Join(changed, "\n"))
	}
	_, restored := w.object.(*v1alpha1.Restore)
	want := 0
	if restored && !failed {
		want = len(volumes)
	}
	if changed := missing(c.volumesOf(t, namespace), volumes); len(changed) != want {
		t.Errorf("%d of %d volumes are others, want %d", len(changed), len(volumes), want)
	}
	first, second := c.countersFound(t, namespace)
	if first.Count < second.Count || first.Count-second.Count > 1 {
		t.Errorf("the counters are %d and %d, not of one instant", first.Count, second.Count)
	}
}

// leftBy lists what there is that somebody made who has ended.
func (c *crashes) leftBy(t *testing.T, uid string) []string {
	t.Helper()
	var left []string
	for _, kind := range strings.Split(working, ",") {
		resource, group, _ := strings.Cut(kind, ".")
		for _, label := range []string{v1alpha1.LabelOwner, v1alpha1.LabelUndo} {
			gvk, err := c.api.RESTMapper().KindFor(schema.GroupVersionResource{Group: group, Resource: resource})
			var list metav1.PartialObjectMetadataList
			list.SetGroupVersionKind(gvk)
			if err == nil {
				err = c.api.List(t.Context(), &list, client.MatchingLabels{label: uid})
			}
			if err != nil {
				left = append(left, fmt.Sprintf("%s: %v", kind, err))
			}
			for _, o := range list.Items {
				left = append(left, kind+" "+o.Namespace+"/"+o.Name)
			}
		}
	}
	return left
}

// TestClusterKilledInEveryPhase kills everything that takes part in a backup, and in a restore, in each of its phases.
func TestClusterKilledInEveryPhase(t *testing.T) {
	cl := startCluster(t, "backstay")
	c := &crashes{installed: install(t, cl, t.TempDir()), api: cl.connect(t).Client}
	// Snapshots that are cut at once and readable later, so that there is time to strike.
	c.storageFaults(t, "CreateSnapshot crash-*/* unready 1s", "CreateVolumeGroupSnapshot crash-*/* unready 1s")
	for namespace := range lanes() {
		c.tally(t, namespace, "csi-hostpath-sc")
		c.backstay(t, "backup", "app/"+namespace)
	}
	t.Run("each", func(t *testing.T) {
		for namespace, victims := range lanes() {
			t.Run(namespace, func(t *testing.T) {
				t.Parallel()
				for _, v := range victims {
					c.killInEveryPhase(t, namespace, v)
				}
			})
		}
	})
	c.kubectl(t, "-n", system, "rollout", "restart", "deployment/backstay-controller") // whoever leads anew tidies first
	c.kubectl(t, "-n", system, "rollout", "status", "--timeout=120s", "deployment/backstay-controller")
	c.wait(t, "a tidying after the restart", 2*time.Minute, func() (bool, string) {
		c.settled(t)
		left := c.leftovers(t)
		return len(left) == 0, strings.Join(left, "\n")
	})
	var backups v1alpha1.BackupList
	if err := c.api.List(t.Context(), &backups); err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	for _, b := range backups.Items {
		if b.Status.Phase == v1alpha1.PhaseComplete || b.Status.Phase == v1alpha1.PhaseIncomplete {
			made[b.Spec.Application.Namespaces[0]]++
		}
	}
	for namespace := range lanes() {
		if listed := strings.Count(c.backstay(t, "points", "app/"+namespace), "complete"); listed != made[namespace] { // or "incomplete"
			t.Errorf("%s: %d points are listed, %d backups made one", namespace, listed, made[namespace])
		}
	}
}

// killInEveryPhase kills a victim in each phase of a backup and of a restore that it takes part in.
func (c *crashes) killInEveryPhase(t *testing.T, namespace string, v victim) {
	for _, kind := range []string{"backup", "restore"} {
		makeWork := map[string]func(string, string) work{"backup": backupWork, "restore": restoreWork}[kind]
		for _, at := range makeWork("", "").phases {
			if len(v.only) > 0 && !slices.Contains(v.only, at) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s/%s", v.name, kind, at), func(t *testing.T) { c.crash(t, namespace, makeWork, at, v) })
		}
	}
}
