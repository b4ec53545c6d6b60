//go:build e2e && long

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClusterActionsKilledEverywhere kills worker and controller inside each kind of phase, at its boundaries, and in the deferPhase.
func TestClusterActionsKilledEverywhere(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, slow)
	c.storageFaults(t, "CreateSnapshot acts/* unready 3s")
	for _, victim := range []string{"worker", "controller"} {
		for kind := range slowPhases {
			c.killed(t, kind, victim, "inside")
		}
		for _, when := range []string{"before", "after", "deferred"} {
			c.killed(t, "task", victim, when)
			c.killed(t, "exec", victim, when)
			c.killed(t, "release", victim, when)
		}
	}
	c.settled(t)
	c.cleared(t)
}

// TestClusterActionsOutput has phases print a gigabyte, and measures what that costs the worker and the controller.
func TestClusterActionsOutput(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, `
apiVersion: cr.kanister.io/v1alpha1
kind: Blueprint
metadata: {name: loud}
actions:
  both:
    phases:
      - func: KubeTask
        name: task
        args: {namespace: acts, image: `+actionsImage+`, command: [bash, -c, "yes \"$(printf '%0200d' 0)\" | head -c 1000000000; echo; echo '###Phase-output###: {\"key\":\"k\",\"value\":\"v\"}'"]}
      - func: KubeExec
        name: exec
        args: {namespace: acts, pod: "{{ index .Deployment.Pods 0 }}", command: [bash, -c, "head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo '###Phase-output###: {\"key\":\"k\",\"value\":\"v\"}'"]}
  endless:
    phases:
      - func: KubeExec
        name: exec
        args: {namespace: acts, pod: "{{ index .Deployment.Pods 0 }}", command: [bash, -c, "for i in {1..4000}; do echo \"###Phase-output###: {\\\"key\\\":\\\"k$i\\\",\\\"value\\\":\\\"$(printf '%0200d' 0)\\\"}\"; done"]}
`)
	peak := c.peaks(t)
	c.actionSet(t, system, "loud", "loud", "both", 0, "")
	p := c.ended(t, system, "loud")
	if p.Status.State != "complete" || p.Status.Actions[0].Phases[0].Output["k"] != "v" || p.Status.Actions[0].Phases[1].Output["k"] != "v" {
		t.Error(p)
	}
	for component, bytes := range peak() {
		t.Logf("%s: %d MiB", component, bytes>>20)
		if most := int64(200 << 20); bytes > most || bytes == 0 {
			t.Errorf("%s took %d MiB", component, bytes>>20)
		}
	}
	c.actionSet(t, system, "endless", "loud", "endless", 0, "")
	if p := c.ended(t, system, "endless"); p.Status.State != "failed" || !strings.Contains(p.Status.Error.Message, "256 KiB") {
		t.Error(p)
	}
}

// peaks watches the memory of Backstay's pods as the kernel counts it for them, without what it holds of files, until it is asked for the
// most that a component took.
func (c *theatre) peaks(t *testing.T) func() map[string]int64 {
	t.Helper()
	most := map[string]int64{}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			for component, bytes := range c.resident() {
				most[component] = max(most[component], bytes)
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	return func() map[string]int64 {
		cancel()
		watching.Wait()
		return map[string]int64{"controller": most["controller"], "worker": most["worker"]}
	}
}

// resident is what the cgroups of Backstay's processes on the cluster hold now.
func (c *theatre) resident() map[string]int64 {
	found := map[string]int64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline")
		args := strings.Split(string(line), "\x00")
		if len(args) < 3 || filepath.Base(args[0]) != "backstay" || args[1] != "controller" && args[1] != "worker" {
			continue
		}
		groups, _ := os.ReadFile(dir + "/cgroup")
		for group := range strings.Lines(string(groups)) {
			parts := strings.SplitN(strings.TrimSpace(group), ":", 3)
			if len(parts) != 3 || !strings.Contains(parts[2], "/backstay-"+c.name+"/kubepods/") || parts[1] != "" && parts[1] != "memory" {
				continue
			}
			at := filepath.Join("/sys/fs/cgroup", parts[1], parts[2])
			found[args[1]] = max(found[args[1]], anonymous(filepath.Join(at, "memory.stat")))
		}
	}
	return found
}

// anonymous is the memory of a cgroup that is not of files.
func anonymous(file string) int64 {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "anon" || name == "total_rss" {
			bytes, _ := strconv.ParseInt(value, 10, 64)
			return bytes
		}
	}
	return 0
}
