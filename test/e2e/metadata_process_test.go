//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// talk is a GitHub with one repository about which people have said much. It counts what it hands out.
type talk struct {
	*githubtest.Metadata
	url string

	mu       sync.Mutex
	busy     int              // requests to the API that are being answered
	run      int              // number of the client's run
	requests int              // to the API in this run, but for the account's list and the marks, which repositories share
	handed   int64            // bytes in this run
	given    map[string]int   // the first run in which a record was handed out
	again    map[string]int64 // bytes that were handed out in a later run as well, by collection
	most     int64            // bytes after which reached is called, and nothing more handed out; 0 for all
	reached  func()
}

// newTalk starts one with issues and comments whose texts have a length.
func newTalk(t *testing.T, issues, comments, length int) *talk {
	t.Helper()
	h := &talk{given: map[string]int{}, again: map[string]int64{}, Metadata: githubtest.Grow(time.Now().Add(-time.Hour), issues, comments)}
	noise := rand.NewChaCha8([32]byte{7})
	for _, c := range h.Comments {
		raw := make([]byte, length/2)
		noise.Read(raw)
		c.Body += fmt.Sprintf(" %x", raw)
	}
	api := &githubtest.API{World: forgetest.NewWorld(time.Now), Users: []string{"tester"}, Metadata: map[int64]*githubtest.Metadata{}}
	api.Metadata[api.World.Add(forgetest.Repo{Owner: "tester", Name: "api"}).ID] = h.Metadata
	code := forgetest.NewGit(t, "")
	code.Commit(t, "tester/api", "README", "hello\n")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api/") {
			code.ServeHTTP(w, r)
			return
		}
		h.answering(1)
		defer h.answering(-1)
		path := r.URL.Path
		asked, _ := io.ReadAll(r.Body) // it may have been killed; and the server sees a client go only when all that it sent is read
		if h.over() {
			<-r.Context().Done() // it is about to be killed
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(asked))
		answer := httptest.NewRecorder()
		api.ServeHTTP(answer, r)
		shared := strings.HasSuffix(path, "/user") || strings.HasSuffix(path, "/repos") || bytes.Contains(asked, []byte("on Repository { self: id"))
		h.count(path, answer.Body.Bytes(), shared)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the client may have been killed
	}))
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

// count notes what an answer hands out. Some requests are of all repositories at once.
func (h *talk) count(path string, answer []byte, shared bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	collection := path[strings.LastIndexByte(path, '/')+1:]
	var nodes []json.RawMessage
	switch collection {
	case "issues", "comments":
		_ = json.Unmarshal(answer, &nodes) // an object is no list of records
	case "graphql":
		var said struct {
			Data struct{ Nodes []json.RawMessage }
		}
		_ = json.Unmarshal(answer, &said) // nor is an error
		nodes = said.Data.Nodes
	}
	if !shared {
		h.requests++
	}
	for _, node := range nodes {
		var named struct{ ID json.RawMessage }
		_ = json.Unmarshal(node, &named) // what has no id is counted as one
		key := collection + " " + string(named.ID)
		switch first, known := h.given[key]; {
		case !known:
			h.given[key] = h.run
		case first != h.run:
			h.again[collection] += int64(len(node))
			h.given[key] = h.run
		}
	}
	before := h.handed
	if h.handed += int64(len(answer)); h.most > 0 && before < h.most && h.handed >= h.most {
		h.reached()
	}
}

// answering counts requests that are being answered.
func (h *talk) answering(more int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy += more
}

// quiet waits until nothing is answered any more: a client that was killed may have asked just before.
func (h *talk) quiet() {
	for {
		h.mu.Lock()
		busy := h.busy
		h.mu.Unlock()
		if busy == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// over tells whether this run was given all that it is to get.
func (h *talk) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.most > 0 && h.handed >= h.most
}

// next begins to count for another run, and calls reached after a number of bytes; 0 for never.
func (h *talk) next(most int64, reached func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.run++
	h.requests, h.handed, h.most, h.reached = 0, 0, most, reached
}

// talkRun is how the program ended, and the most memory that it had.
type talkRun struct {
	result
	memory int64 // bytes
	took   time.Duration
}

// backUp runs the policy. After a number of bytes from the forge, and a moment more, it is killed; 0 for never.
func (h *talk) backUp(t *testing.T, b *backstay, most int64, more time.Duration) talkRun {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := b.command(context.WithoutCancel(t.Context()), "run", "--once", "--json", "-f", b.talkPolicy(t, h))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill, ended := make(chan struct{}), make(chan struct{})
	h.next(most, func() { close(kill) })
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-kill:
			time.Sleep(more)
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be over
		case <-ended:
		}
	})
	var peak int64
	watching.Go(func() {
		for {
			peak = max(peak, peakMemory(cmd.Process.Pid))
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	err := cmd.Wait()
	close(ended)
	watching.Wait()
	h.quiet()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return talkRun{result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, peak, time.Since(began)}
}

// peakMemory is the most memory that a process had, in bytes; 0 once it has ended.
func peakMemory(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if value, is := strings.CutPrefix(line, "VmHWM:"); is {
			kb, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

func (b *backstay) talkPolicy(t *testing.T, h *talk) string {
	t.Helper()
	write(t, b.home, "policy.yaml", fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec: {url: %s, password: {env: BACKSTAY_PASSWORD}}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: nightly}
spec:
  location: main
  sources:
    - github: {url: %s, token: {env: HUB_TOKEN}, metadata: true}
`, b.vault, h.url))
	return filepath.Join(b.home, "policy.yaml")
}

// good is a run that came to its end, with a complete ledger.
func (r talkRun) good(t *testing.T) talkRun {
	t.Helper()
	var got runs
	if r.exit == 0 {
		decode(t, r.stdout, &got)
	}
	if r.exit != 0 || len(got.Runs) != 1 || len(got.Runs[0].Sources) != 1 || !got.Runs[0].Sources[0].Ledger.Closed {
		t.Fatalf("exit %d\n%s\n%s", r.exit, shorten(r.stdout), shorten(r.stderr))
	}
	return r
}

// whole compares what the newest point has with what the forge has, id by id.
func (h *talk) whole(t *testing.T, b *backstay) {
	t.Helper()
	part := b.metadataPart(t, "tester/api")
	for name, want := range map[string]int{"issues": len(h.Items), "comments": len(h.Comments), "timeline": len(h.Items), "pulls": len(h.Items) / 10} {
		if got := part.count(t, name); got != want {
			t.Errorf("%d of %s were counted, want %d", got, name, want)
		}
	}
	want := map[string]string{}
	for _, i := range h.Items {
		want["issues/"+strconv.FormatInt(i.Number, 10)] = i.Body
	}
	for _, c := range h.Comments {
		want["comments/"+strconv.FormatInt(c.ID, 10)] = c.Body
	}
	dir := filepath.Join(t.TempDir(), "restored")
	b.patient(t, "restore", "latest", "--part", "tester/api/metadata", "--to", dir)
	got := plainTexts(t, dir)
	for id, text := range want {
		if there, ok := got[id]; !ok || there != text {
			t.Fatalf("%s is %.40q (%v), want %.40q", id, there, ok, text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("there are %d issues and comments, want %d", len(got), len(want))
	}
}

// plainTexts reads the texts of issues and comments from plain files, as somebody without Backstay would.
func plainTexts(t *testing.T, dir string) map[string]string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, archive.SegmentDir, "*.ndjson"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	slices.Sort(segments)
	texts := map[string]string{}
	for _, segment := range segments {
		content, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			var record struct {
				Collection string                `json:"c"`
				ID         string                `json:"id"`
				Gone       string                `json:"gone"`
				Raw        struct{ Body string } `json:"raw"`
			}
			if err := json.Unmarshal(line, &record); err != nil {
				t.Fatalf("%s: %v", segment, err)
			}
			key := record.Collection + "/" + record.ID
			switch {
			case record.Collection != "issues" && record.Collection != "comments":
			case record.Gone != "":
				delete(texts, key)
			default:
				texts[key] = record.Raw.Body
			}
		}
	}
	return texts
}

// saved is how many bytes of records a reading takes at most before it saves them, and the two pages that may be on their way.
const saved = 16<<20 + 4<<20

// killedTalk kills the first reading again and again, and lets it come to its end then: what it has is complete, and was fetched once
// but for what a kill may cost.
func killedTalk(t *testing.T, issues, comments, length, kills int) {
	h := newTalk(t, issues, comments, length)
	b := newBackstay(t, "HUB_TOKEN="+forgetest.Token)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	// Together they get less than all there is. Some come before anything was saved, some after that or while it is.
	share := int64(comments / kills * (length + 1000) / kills) // a comment has a thousand bytes beside its text
	cost := int64(0)
	for _, n := range random.Perm(kills) {
		most, more := int64(n)*share+1+random.Int64N(share), time.Duration(random.IntN(300))*time.Millisecond
		if r := h.backUp(t, b, most, more); r.exit != -1 {
			t.Fatalf("exit %d\n%s\n%s", r.exit, shorten(r.stdout), r.stderr)
		}
		cost += min(h.handed, saved) // what was read since the last saving
		t.Logf("killed after %d KiB and %v; handed out again so far: %v", h.handed>>10, more, h.again)
	}
	r := h.backUp(t, b, 0, 0).good(t)
	var again int64
	for _, n := range h.again {
		again += n
	}
	t.Logf("%d MiB were handed out again after %d kills, which may cost %d; the last run took %v and %d MiB of memory",
		again>>20, kills, cost>>20, r.took, r.memory>>20)
	if again > cost {
		t.Errorf("%d MiB were handed out again, want %d at most: %v", again>>20, cost>>20, h.again)
	}
	h.whole(t, b)
}

func TestMetadataOfAProcessThatIsKilled(t *testing.T) { killedTalk(t, 300, 40_000, 4_000, 4) }

// patient is ok without a limit of time.
func (b *backstay) patient(t *testing.T, args ...string) string {
	t.Helper()
	r := finish(t, b.command(t.Context(), args...))
	if r.exit != 0 {
		t.Fatalf("backstay %s: exit %d\n%s%s", strings.Join(args, " "), r.exit, r.stdout, r.stderr)
	}
	return r.stdout
}
