//go:build e2e && long

package e2e

import (
	"bytes"
	"context"
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

// flight is the pods' requests to repositories. The first three pods that come are stopped there, each in its role: who lasts and who is killed
// when they fetch for the first time, who loses the vault before.
type flight struct {
	mu      sync.Mutex
	fetched map[string]int
	pods    map[string]string        // roles of pods, by their addresses
	begun   map[string]string        // the repository that a role was stopped at
	held    map[string]chan struct{} // closed when it is
	free    chan struct{}            // closed when who lasts may go on
}

func newFlight() *flight {
	f := &flight{
		fetched: map[string]int{}, pods: map[string]string{}, begun: map[string]string{}, held: map[string]chan struct{}{}, free: make(chan struct{}),
	}
	for _, role := range []string{lasting, killed, lost} {
		f.held[role] = make(chan struct{})
	}
	return f
}

func (f *flight) ask(r *http.Request) int {
	name, _, repository := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if !repository {
		return 0
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return http.StatusBadRequest
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	goOn := f.begins(r.RemoteAddr, name, bytes.Contains(body, []byte("command=fetch")))
	select {
	case <-goOn:
	case <-r.Context().Done():
	}
	return 0
}

// begins notes a request, and tells when it may be answered.
func (f *flight) begins(address, name string, fetch bool) (goOn <-chan struct{}) {
	now := make(chan struct{})
	close(now)
	pod, _, _ := strings.Cut(address, ":")
	f.mu.Lock()
	defer f.mu.Unlock()
	if fetch {
		f.fetched[name]++
	}
	roles := []string{lost, killed, lasting}
	if n := len(f.pods); n < len(roles) && f.pods[pod] == "" {
		f.pods[pod] = roles[n]
	}
	role := f.pods[pod]
	if role == "" || !fetch && role != lost {
		return now
	}
	if !isClosed(f.held[role]) {
		f.begun[role] = name
		close(f.held[role])
	}
	if role == lasting {
		return f.free
	}
	return nil // never
}

// address is that of the pod in a role.
func (f *flight) address(role string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for pod, is := range f.pods {
		if is == role {
			return pod
		}
	}
	return ""
}

// cut has the node drop what a pod sends to an address, without a word, until mend or the end of the test.
func (c *cluster) cut(t *testing.T, pod, address string) (mend func()) {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	nft := func(input string, args ...string) result {
		cmd := c.command(context.Background(), "nft", args...)
		cmd.Stdin = strings.NewReader(input)
		return finish(t, cmd)
	}
	rules := fmt.Sprintf("table ip cut { chain in { type filter hook input priority 0; ip saddr %s ip daddr %s tcp dport %s drop; }; }\n", pod, host, port)
	if r := nft(rules, "-f", "-"); r.exit != 0 {
		t.Fatalf("nft: exit %d\n%s", r.exit, r.stderr)
	}
	mend = sync.OnceFunc(func() {
		if r := nft("", "delete", "table", "ip", "cut"); r.exit != 0 {
			t.Errorf("nft: exit %d\n%s", r.exit, r.stderr)
		}
	})
	t.Cleanup(mend)
	return mend
}

// TestClusterShardsMakeOnePoint has the pods of an Indexed Job make one point of an account. One of them is killed within a repository, and
// one loses its way to the vault, and finds it again when the point is made. What the killed one was at is all that is fetched twice.
func TestClusterShardsMakeOnePoint(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	api := c.connect(t).Client
	h := newHub(t)
	for n := range clusterShardsRepositories {
		h.add(t, owner, fmt.Sprintf("r%02d", n))
	}
	f := newFlight()
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
	for role, held := range f.held {
		select {
		case <-held:
		case <-time.After(clusterShardsTime):
			t.Fatalf("nobody comes who is %s: %s", role, c.kubectl(t, "-n", system, "get", "jobs,pods", "-o", "wide"))
		}
	}
	_, store, _ := strings.Cut(i.url, "endpoint=")
	mend := c.cut(t, f.address(lost), store)
	c.kubectl(t, "-n", system, "delete", "pod", "--force", "--grace-period=0", "--field-selector=status.podIP="+f.address(killed))
	close(f.free)
	c.wait(t, "the point is made", clusterShardsTime, func() (bool, string) {
		said := i.fromVault(t, "points")
		return strings.Contains(said, "complete"), said
	})
	mend()

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
	for name, n := range f.fetched {
		if n != 1 && (n != 2 || name != f.begun[killed]) {
			t.Errorf("%s was fetched %d times; one was killed in %s, one lost the vault before %s", name, n, f.begun[killed], f.begun[lost])
		}
	}
	if len(f.fetched) != clusterShardsRepositories {
		t.Errorf("%d repositories were fetched, want %d", len(f.fetched), clusterShardsRepositories)
	}
	if points := strings.Count(i.fromVault(t, "points"), "complete"); points != 1 {
		t.Errorf("%d points in the vault, want 1", points)
	}
}
