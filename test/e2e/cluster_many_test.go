//go:build e2e && long

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

const (
	manyNamespaces = 500
	manyTime       = 10 * time.Minute
	mostController = 200 << 20 // bytes of memory
	mostWorker     = 400 << 20
)

// teamObjects are 20 objects of a namespace without volumes. Teams differ in all that they hold.
func teamObjects(namespace string) []client.Object {
	named := func(kind string, n int) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", kind, n), Labels: map[string]string{"team": namespace}}
	}
	var all []client.Object
	for n := range 11 {
		all = append(all, &corev1.ConfigMap{ObjectMeta: named("settings", n), Data: map[string]string{"greeting": strings.Repeat("hello "+namespace+"\n", 40)}})
	}
	for n := range 4 {
		all = append(all, &corev1.Secret{ObjectMeta: named("token", n), StringData: map[string]string{"token": namespace + strconv.Itoa(n)}})
	}
	for n := range 2 {
		all = append(all, &corev1.ServiceAccount{ObjectMeta: named("robot", n)})
	}
	return append(all,
		&corev1.Service{ObjectMeta: named("web", 0), Spec: corev1.ServiceSpec{ClusterIP: "None", Selector: map[string]string{"app": "web"}}},
		&rbacv1.Role{ObjectMeta: named("reader", 0), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}},
		&rbacv1.RoleBinding{
			ObjectMeta: named("reader", 0), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader-0"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "robot-0", Namespace: namespace}},
		})
}

// teams makes so many namespaces with their objects, team-0 and so on, which go with the test.
func (c *cluster) teams(t *testing.T, api client.Client, many int) {
	t.Helper()
	c.kubectl(t, "delete", "namespaces", "-l", "made-by=teams", "--ignore-not-found", "--timeout=10m")
	c.clean(t, "delete", "namespaces", "-l", "made-by=teams", "--wait=false")
	const atOnce = 16
	var all sync.WaitGroup
	for worker := range atOnce {
		all.Go(func() {
			for n := worker; n < many; n += atOnce {
				name := fmt.Sprintf("team-%d", n)
				ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"made-by": "teams"}}}
				for _, o := range append([]client.Object{ns}, teamObjects(name)...) {
					if err := api.Create(t.Context(), o); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
}

// TestClusterFiveHundredNamespaces backs up many small applications by one policy, twice: one Job works on all of them, in little memory, and
// the points of the first run expire with the second.
func TestClusterFiveHundredNamespaces(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	api := c.connect(t).Client
	began := time.Now()
	c.teams(t, api, manyNamespaces)
	t.Logf("%d namespaces were made in %s", manyNamespaces, time.Since(began).Round(time.Second))
	c.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: teams}
spec:
  location: main
  schedule: {cron: "@yearly"}
  retention: {last: 1}
  sources: [{applications: {namespaces: [team-*]}}]
`)
	for _, run := range []string{"first", "unchanged"} {
		meter := c.meter(t)
		began := time.Now()
		c.kubectl(t, "-n", system, "annotate", "--overwrite", "policies.backstay.io/teams", v1alpha1.AnnotationRunNow+"="+run)
		var mine []v1alpha1.Backup
		c.wait(t, run+" run ends", manyTime, func() (bool, string) {
			time.Sleep(time.Second) // to list them all is work
			mine = mine[:0]
			var all v1alpha1.BackupList
			if err := api.List(t.Context(), &all, client.InNamespace(system)); err != nil {
				return false, err.Error()
			}
			ended := 0
			for _, b := range all.Items {
				if !b.CreationTimestamp.Time.Before(began.Truncate(time.Second)) {
					mine = append(mine, b)
					if b.Status.Phase.Final() {
						ended++
					}
				}
			}
			return ended == manyNamespaces, fmt.Sprintf("%d of %d Backups have ended", ended, len(mine))
		})
		took := time.Since(began)
		c.settled(t)
		used := meter()
		t.Logf("%s: %s; controller %s; %d worker %s", run, took.Round(100*time.Millisecond), used["controller"], used["worker"].processes, used["worker"])

		runs := map[string]bool{}
		for _, b := range mine {
			runs[b.Labels[v1alpha1.LabelRun]] = true
			if s := b.Status; s.Phase != v1alpha1.PhaseComplete || s.Parts.Stored != 2 {
				t.Errorf("%s: %s, parts %+v, problems %q", b.Name, s.Phase, s.Parts, s.Problems)
			}
		}
		if len(runs) != 1 || used["worker"].processes != 1 {
			t.Errorf("%d runs, %d processes of workers; want one that works on all", len(runs), used["worker"].processes)
		}
		if most := used["controller"].memory; most == 0 || most > mostController {
			t.Errorf("the controller took %d MiB", most>>20)
		}
		if most := used["worker"].memory; most == 0 || most > mostWorker {
			t.Errorf("the worker took %d MiB", most>>20)
		}
	}
	points := c.list(t, "restorepoints.backstay.io", "-n", system)
	if len(points) != manyNamespaces {
		t.Errorf("%d RestorePoints, want %d", len(points), manyNamespaces)
	}
	if listed := strings.Count(i.fromVault(t, "points"), "complete"); listed != manyNamespaces {
		t.Errorf("%d points in the vault, want %d", listed, manyNamespaces)
	}
}

// usage is what the processes of a component took.
type usage struct {
	processes int
	memory    int64 // bytes, the peak of the largest process
	cpu       time.Duration
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB, %.1f s of CPU", u.memory>>20, u.cpu.Seconds())
}

// meter watches Backstay's processes on the cluster, which are visible from outside, until it is asked what they took: by component,
// worker (of backups) and controller.
func (c *cluster) meter(t *testing.T) func() map[string]usage {
	t.Helper()
	before := c.processes()
	last := map[string]process{}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			for pid, p := range c.processes() {
				last[pid] = p
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
	return func() map[string]usage {
		cancel()
		watching.Wait()
		sums := map[string]usage{}
		for pid, p := range last {
			u := sums[p.component]
			u.processes++
			u.memory, u.cpu = max(u.memory, p.memory), u.cpu+p.cpu-before[pid].cpu
			sums[p.component] = u
		}
		return sums
	}
}

type process struct {
	component string
	memory    int64
	cpu       time.Duration
}

// processes are Backstay's controller and workers of backups on the cluster, by process id.
func (c *cluster) processes() map[string]process {
	const tick = 10 * time.Millisecond // the kernel's unit of CPU time
	found := map[string]process{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline")
		args := strings.Split(string(line), "\x00")
		if len(args) < 3 || filepath.Base(args[0]) != "backstay" || args[1] != "controller" && (args[1] != "worker" || args[2] != "backup") {
			continue
		}
		if group, _ := os.ReadFile(dir + "/cgroup"); !strings.Contains(string(group), "/backstay-"+c.name+"/kubepods/") {
			continue // another cluster's
		}
		p := process{component: args[1]}
		status, _ := os.ReadFile(dir + "/status")
		for line := range strings.Lines(string(status)) {
			if value, is := strings.CutPrefix(line, "VmHWM:"); is {
				kb, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
				p.memory = kb << 10
			}
		}
		stat, _ := os.ReadFile(dir + "/stat")
		_, after, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(after); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			kernel, _ := strconv.Atoi(fields[12])
			p.cpu = time.Duration(user+kernel) * tick
		}
		if p.memory > 0 {
			found[filepath.Base(dir)] = p
		}
	}
	return found
}
