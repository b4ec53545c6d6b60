//go:build e2e && long

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

const (
	clusterShards             = 3
	clusterShardsRepositories = 12
	clusterShardsTime         = 10 * time.Minute
)

// flight is the packs that are being fetched, which wait for each other.
type flight struct {
	hub *hub

	mu      sync.Mutex
	fetched map[string]int
	first   []string      // that were under way when as many were as there are pods
	all     chan struct{} // closed then
	free    chan struct{} // closed when they may go on
}

func (f *flight) ask(r *http.Request) int {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return http.StatusBadRequest
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !bytes.Contains(body, []byte("command=fetch")) {
		return 0
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	f.mu.Lock()
	f.fetched[name]++
	if len(f.first) < clusterShards {
		if f.first = append(f.first, name); len(f.first) == clusterShards {
			close(f.all)
		}
	}
	f.mu.Unlock()
	select {
	case <-f.free:
	case <-r.Context().Done():
	}
	return 0
}

// TestClusterShardsMakeOnePoint has the pods of an Indexed Job make one point of an account. One of them is killed within a repository:
// that is all that is fetched twice.
func TestClusterShardsMakeOnePoint(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	api := c.connect(t).Client
	h := newHub(t)
	for n := range clusterShardsRepositories {
		h.add(t, owner, fmt.Sprintf("r%02d", n))
	}
	f := &flight{hub: h, fetched: map[string]int{}, all: make(chan struct{}), free: make(chan struct{})}
	h.refuse, h.url = f.ask, c.serve(t, h.ServeHTTP)
	c.apply(t, system, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: hub}
stringData: {token: %s}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: sharded}
spec:
  location: main
  shards: %d
  parallel: 1
  sources: [{github: {url: %q, token: {secretKeyRef: {name: hub, key: token}}}}]
`, h.token, clusterShards, h.url))
	select {
	case <-f.all:
	case <-time.After(clusterShardsTime):
		t.Fatalf("no %d pods fetch at once: %s", clusterShards, c.kubectl(t, "-n", system, "get", "jobs,pods", "-o", "wide"))
	}
	c.kubectl(t, "-n", system, "delete", "pod", "--force", "--grace-period=0", "-l",
		"backstay.io/work=backup,batch.kubernetes.io/job-completion-index=1")
	close(f.free)

	var backup v1alpha1.Backup
	c.wait(t, "the Backup ends", clusterShardsTime, func() (bool, string) {
		var all v1alpha1.BackupList
		if err := api.List(t.Context(), &all, client.InNamespace(system), client.MatchingLabels{v1alpha1.LabelPolicy: "sharded"}); err != nil {
			return false, err.Error()
		}
		if len(all.Items) != 1 {
			return false, fmt.Sprintf("%d Backups", len(all.Items))
		}
		backup = all.Items[0]
		return backup.Status.Phase.Final(), string(backup.Status.Phase)
	})
	if s := backup.Status; s.Phase != v1alpha1.PhaseComplete || len(s.Sources) != 1 || s.Sources[0].Repositories != clusterShardsRepositories {
		text, _ := json.Marshal(s)
		t.Errorf("Backup: %s", text)
	}
	c.wait(t, "the Job ends", clusterShardsTime, func() (bool, string) {
		var j batchv1.Job
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: backup.Status.Job}, &j); err != nil {
			return false, err.Error()
		}
		for _, condition := range j.Status.Conditions {
			if condition.Type == batchv1.JobFailed && condition.Status == corev1.ConditionTrue {
				t.Fatalf("the Job failed: %s", condition.Message)
			}
		}
		if j.Spec.CompletionMode == nil || *j.Spec.CompletionMode != batchv1.IndexedCompletion {
			t.Fatalf("it is no Indexed Job: %+v", j.Spec)
		}
		return j.Status.Succeeded == clusterShards, fmt.Sprintf("%+v", j.Status)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	var again []string
	for name, n := range f.fetched {
		if n > 1 {
			again = append(again, name)
		}
	}
	if len(f.fetched) != clusterShardsRepositories || len(again) > 1 || len(again) == 1 && !strings.Contains(strings.Join(f.first, " "), again[0]) {
		t.Errorf("%d repositories were fetched, again: %q, under way when one was killed: %q", len(f.fetched), again, f.first)
	}
	if points := strings.Count(i.fromVault(t, "points"), "complete"); points != 1 {
		t.Errorf("%d points in the vault, want 1", points)
	}
}
