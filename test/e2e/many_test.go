//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	manyRepositories = 1000
	manyKills        = 5
	// manyUnderWay is how many a kill may cost: four that are being captured, as policies have it by default, and those that wait for
	// the checkpoint that is being written, sixteen at most. On a disk that keeps up hardly any wait.
	manyUnderWay = 4 + 16
)

// runs is what `run --once --json` prints.
type runs struct {
	Version int `json:"version"`
	Runs    []struct {
		Policy  string `json:"policy"`
		State   string `json:"state"`
		Sources []struct {
			Subject struct {
				Name string `json:"name"`
			} `json:"subject"`
			Point    string `json:"point"`
			State    string `json:"state"`
			Listed   int    `json:"listed"`
			Requests int    `json:"requests"`
			Ledger   struct {
				Expected  int  `json:"expected"`
				Stored    int  `json:"stored"`
				Unchanged int  `json:"unchanged"`
				Skipped   int  `json:"skipped"`
				Carried   int  `json:"carried"`
				Failed    int  `json:"failed"`
				Vanished  int  `json:"vanished"`
				Closed    bool `json:"closed"`
			} `json:"ledger"`
			Repositories []struct {
				Owner      string `json:"owner"`
				Name       string `json:"name"`
				State      string `json:"state"`
				Reason     string `json:"reason"`
				Unchanged  bool   `json:"unchanged"`
				Deliveries []struct {
					Type   string `json:"type"`
					State  string `json:"state"`
					Reason string `json:"reason"`
				} `json:"deliveries"`
			} `json:"repositories"`
			Alarms   []string `json:"alarms"`
			Problems []struct {
				What string `json:"what"`
			} `json:"problems"`
		} `json:"sources"`
		Warnings []string `json:"warnings"`
	} `json:"runs"`
}

// hubPolicy writes a policy for the hub's account, and a location for its points.
func (b *backstay) hubPolicy(t *testing.T, h *hub, more string) string {
	t.Helper()
	file := filepath.Join(b.home, "policy.yaml")
	text := fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec:
  url: %s
  password: {env: BACKSTAY_PASSWORD}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: nightly}
spec:
  location: main
  sources:
    - github:
        url: %s
        token: {env: HUB_TOKEN}
%s`, b.vault, h.url, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestThousandRepositories(t *testing.T) {
	h := newHub(t)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := worker; i < manyRepositories; i += 4 {
				h.add(t, owner, fmt.Sprintf("r%04d", i))
			}
		})
	}
	all.Wait()
	b := newBackstay(t, "HUB_TOKEN="+h.token)
	args := []string{"run", "--once", "--json", "-f", b.hubPolicy(t, h, "")}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range manyKills {
		cmd := b.command(t.Context(), args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(1+random.IntN(4)) * time.Second)
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may be over
		cmd.Wait()
		t.Logf("killed after %d packs", h.packs())
	}
	first := b.many(t, args)
	if s := first.Runs[0].Sources[0]; s.State != "complete" || s.Listed != manyRepositories || len(s.Repositories) != manyRepositories || !s.Ledger.Closed {
		t.Fatalf("after the kills: %s, %d listed, ledger %+v, problems %v", s.State, s.Listed, s.Ledger, s.Problems)
	}
	twice := 0
	for name, n := range h.fetches {
		if n > 1 {
			twice += n - 1
			t.Logf("%s was fetched %d times", name, n)
		}
	}
	if len(h.fetches) != manyRepositories || twice > manyKills*manyUnderWay {
		t.Errorf("%d of %d repositories were fetched, %d of them again; only those under way at a kill may be", len(h.fetches), manyRepositories, twice)
	}

	h.reset()
	began := time.Now()
	unchanged := b.many(t, args)
	took := time.Since(began)
	if s := unchanged.Runs[0].Sources[0]; s.Ledger.Unchanged < manyRepositories || s.State != "complete" {
		t.Errorf("unchanged: %s, ledger %+v", s.State, s.Ledger)
	}
	t.Logf("unchanged: %v, %d requests to the API, %d lists of refs", took, h.api, sum(h.lists))
	if took > 10*time.Second {
		t.Errorf("an unchanged run took %v, want 10 s at most", took)
	}
	if most := manyRepositories/100 + 2; h.api > most || sum(h.lists)+sum(h.fetches) > 0 {
		t.Errorf("unchanged: %d requests to the API, want %d at most; %d to repositories, want none", h.api, most, sum(h.lists)+sum(h.fetches))
	}

	for i := range manyRepositories / 100 {
		h.push(t, h.repositories[i*97], "second")
	}
	h.reset()
	changed := b.many(t, args)
	if s := changed.Runs[0].Sources[0]; s.Ledger.Unchanged >= manyRepositories || s.State != "complete" {
		t.Errorf("changed: %s, ledger %+v", s.State, s.Ledger)
	}
	t.Logf("1 %% changed: %d requests to the API, %d lists of refs, %d packs", h.api, sum(h.lists), sum(h.fetches))
	if sum(h.fetches) != manyRepositories/100 || sum(h.lists) > manyRepositories/100 || h.api > manyRepositories/100+2 {
		t.Errorf("1 %% changed: %d requests to the API, %d lists of refs, %d packs", h.api, sum(h.lists), sum(h.fetches))
	}
	b.ok(t, "verify")
}

// many runs a policy to its end, within the memory that a run of a thousand repositories may take.
func (b *backstay) many(t *testing.T, args []string) runs {
	t.Helper()
	cmd := b.command(t.Context(), args...)
	began := time.Now()
	r := finish(t, cmd)
	took := time.Since(began)
	if r.exit != 0 {
		t.Fatalf("exit %d\n%s\n%s", r.exit, shorten(r.stdout), r.stderr)
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	t.Logf("%v, %d MiB of memory at most, %v of CPU", took, usage.Maxrss>>10, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	if usage.Maxrss>>10 > 200 {
		t.Errorf("%d MiB of memory, want 200 at most", usage.Maxrss>>10)
	}
	var got runs
	decode(t, r.stdout, &got)
	if got.Version != 1 || len(got.Runs) != 1 || len(got.Runs[0].Sources) != 1 {
		t.Fatalf("run --json: %s", shorten(r.stdout))
	}
	return got
}
