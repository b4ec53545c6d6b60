//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	sharedRepositories = 18
	sharedTerm         = "20s"
	sharedTime         = 5 * time.Minute // for what ends by itself
)

// startS3 serves a directory as a bucket on loopback until the test ends.
func startS3(t *testing.T, dir string) (address string, env []string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	const key, secret = "backstay-test", "not-much-of-a-secret"
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	server := exec.CommandContext(context.WithoutCancel(t.Context()), program(t, "BACKSTAY_TEST_VERSITYGW"), "--port", address, "--quiet", "posix", dir)
	server.Env = append(cleanEnv(), "ROOT_ACCESS_KEY="+key, "ROOT_SECRET_KEY="+secret)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	for ended := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(ended) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
	return address, []string{"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secret}
}

// road is one process's way to the S3 server. Cut, it swallows what is sent, and nobody is told.
type road struct {
	address string
	mu      sync.Mutex
	open    chan struct{} // closed while the road is open
}

func newRoad(t *testing.T, to string) *road {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{address: l.Addr().String(), open: make(chan struct{})}
	close(r.open)
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.carry(ctx, conn, to) })
		}
	})
	t.Cleanup(func() {
		stop()
		l.Close()
		all.Wait()
	})
	return r
}

func (r *road) carry(ctx context.Context, from net.Conn, address string) {
	defer from.Close()
	to, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() {
		from.Close()
		to.Close()
	})()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer way[0].Close()
			defer way[1].Close()
			buffer := make([]byte, 64<<10)
			for {
				n, err := way[0].Read(buffer)
				if n > 0 && r.wait(ctx) == nil {
					_, _ = way[1].Write(buffer[:n])
				}
				if err != nil {
					return
				}
			}
		})
	}
	both.Wait()
}

// wait waits for the road to be open.
func (r *road) wait(ctx context.Context) error {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *road) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = make(chan struct{})
}

func (r *road) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.open)
}

// crew is three processes that share a run, told apart at the forge by their tokens.
type crew struct {
	hub      *hub
	backstay *backstay
	roads    map[string]*road
	args     map[string][]string

	mu      sync.Mutex
	fetched map[string][]string // who fetched a repository, by its name
	begun   map[string][]string // repositories that each has begun
	listed  map[string]chan struct{}
	held    map[string]chan struct{} // closed when that one is held up at its third repository
	late    bool                     // the lost one loses the vault only when it fetches
	free    chan struct{}            // closed when the third may fetch
}

const (
	lasting = "lasting"
	killed  = "killed"
	lost    = "lost"
)

func newCrew(t *testing.T, late bool) *crew {
	t.Helper()
	address, env := startS3(t, t.TempDir())
	h := newHub(t)
	for i := range sharedRepositories {
		h.add(t, owner, fmt.Sprintf("r%02d", i))
	}
	c := &crew{
		hub: h, backstay: bareBackstay(t, env...), roads: map[string]*road{}, args: map[string][]string{}, fetched: map[string][]string{},
		begun: map[string][]string{}, listed: map[string]chan struct{}{}, held: map[string]chan struct{}{}, late: late, free: make(chan struct{}),
	}
	for _, who := range []string{lasting, killed, lost} {
		c.roads[who], c.listed[who], c.held[who] = newRoad(t, address), make(chan struct{}), make(chan struct{})
		c.backstay.vault = "s3://vault/backstay?region=us-east-1&tls=false&endpoint=" + c.roads[who].address
		file := c.backstay.hubPolicy(t, h, "  parallel: 1\n")
		own := filepath.Join(c.backstay.home, who+".yaml")
		if err := os.Rename(file, own); err != nil {
			t.Fatal(err)
		}
		c.args[who] = []string{"run", "--once", "--json", "-f", own, "--shared-run", "tonight", "--shared-term", sharedTerm}
	}
	c.backstay.env = append(c.backstay.env, "BACKSTAY_LOCATION=s3://vault/backstay?region=us-east-1&tls=false&endpoint="+address)
	c.backstay.ok(t, "location", "create")
	h.refuse = c.ask
	return c
}

// ask sees each request to the forge before it is answered.
func (c *crew) ask(r *http.Request) int {
	who, token := "", ""
	if user, password, basic := r.BasicAuth(); basic {
		who, token, _ = strings.Cut(password, "-")
		r.SetBasicAuth(user, token)
	} else if scheme, all, found := strings.Cut(r.Header.Get("Authorization"), " "); found {
		who, token, _ = strings.Cut(all, "-")
		r.Header.Set("Authorization", scheme+" "+token)
	}
	if _, known := c.roads[who]; !known {
		return 0 // asked without credentials first, as git does
	}
	if _, api := c.hub.apiPath(r); api {
		c.mu.Lock()
		defer c.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/repos") && !isClosed(c.listed[who]) {
			close(c.listed[who])
		}
		return 0
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return http.StatusBadRequest
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	c.hold(r, who, name, bytes.Contains(body, []byte("command=fetch")))
	return 0
}

// hold keeps who is to be killed or lost at its third repository, and the lasting one until both are.
func (c *crew) hold(r *http.Request, who, name string, fetch bool) {
	c.mu.Lock()
	if !slices.Contains(c.begun[who], name) {
		c.begun[who] = append(c.begun[who], name)
	}
	third := len(c.begun[who]) == 3 && who != lasting
	if fetch {
		c.fetched[name] = append(c.fetched[name], who)
	}
	stop := third && (fetch || who == lost && !c.late)
	if stop && !isClosed(c.held[who]) {
		close(c.held[who])
	}
	c.mu.Unlock()
	switch {
	case who == lasting:
		select {
		case <-c.free:
		case <-r.Context().Done():
		}
	case stop && who == lost && c.late:
		<-c.free // what it fetches it cannot store any more
	case stop:
		<-r.Context().Done()
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// member is a process of the crew.
type member struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan error
}

func (c *crew) start(t *testing.T, who string) *member {
	t.Helper()
	m := &member{cmd: c.backstay.command(context.Background(), c.args[who]...), ended: make(chan error, 1)}
	m.cmd.Env = append(m.cmd.Env, "HUB_TOKEN="+who+"-"+c.hub.token)
	m.cmd.Stdout, m.cmd.Stderr = &m.stdout, &m.stderr
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	return m
}

// until waits for something that comes, or for the process to end, which it should not.
func (m *member) until(t *testing.T, what string, comes <-chan struct{}) {
	t.Helper()
	select {
	case <-comes:
	case err := <-m.ended:
		t.Fatalf("%s: it ended before: %v\n%s", what, err, m.stderr.String())
	case <-time.After(sharedTime):
		t.Fatalf("%s: it does not come", what)
	}
}

// report waits for the process to end well, and reads what it says.
func (m *member) report(t *testing.T) runs {
	t.Helper()
	select {
	case err := <-m.ended:
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, shorten(m.stdout.String()), m.stderr.String())
		}
	case <-time.After(sharedTime):
		t.Fatalf("it does not end\n%s", m.stderr.String())
	}
	var got runs
	decode(t, m.stdout.String(), &got)
	return got
}

// TestProcessesShareARun has three processes make one point: one is killed, and one loses its way to the vault and finds it again when all is
// over. Nothing is fetched twice but what the killed one had under way, and what the lost one had fetched and could not store.
func TestProcessesShareARun(t *testing.T) {
	for _, test := range []struct {
		lead string // who divides the work, and would make the point
		late bool
	}{{lead: killed}, {lead: lost, late: true}} {
		t.Run("lead "+test.lead, func(t *testing.T) {
			t.Parallel()
			c := newCrew(t, test.late)
			first := c.start(t, test.lead)
			first.until(t, "the lead lists", c.listed[test.lead])
			all := map[string]*member{test.lead: first}
			for _, who := range []string{lasting, killed, lost} {
				if who != test.lead {
					all[who] = c.start(t, who)
				}
			}
			all[killed].until(t, "the third repository of who is killed", c.held[killed])
			all[lost].until(t, "the third repository of who is lost", c.held[lost])
			c.roads[lost].cut()
			if err := all[killed].cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-all[killed].ended
			close(c.free)
			got := all[lasting].report(t).Runs[0]
			point := got.Sources[0].Point
			if s := got.Sources[0]; s.State != "complete" || !s.Ledger.Closed || len(s.Repositories) != sharedRepositories {
				t.Errorf("%s, ledger %+v, problems %+v", s.State, s.Ledger, s.Problems)
			}
			c.roads[lost].mend()
			if s := all[lost].report(t).Runs[0].Sources[0]; s.Point != point || s.State != "complete" {
				t.Errorf("who came back has point %q, %s; want %s", s.Point, s.State, point)
			}
			c.judge(t)
		})
	}
}

// judge looks at what was fetched, and at the vault.
func (c *crew) judge(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	again := map[string]bool{c.begun[killed][2]: true}
	if c.late {
		again[c.begun[lost][2]] = true
	}
	if len(c.fetched) != sharedRepositories {
		t.Errorf("%d repositories were fetched, want %d", len(c.fetched), sharedRepositories)
	}
	for name, by := range c.fetched {
		if len(by) > 1 && !again[name] || len(by) > 2 {
			t.Errorf("%s was fetched by %q", name, by)
		}
	}
	for _, who := range []string{killed, lost} {
		for _, name := range c.begun[who][:2] {
			if by := c.fetched[name]; !slices.Equal(by, []string{who}) {
				t.Errorf("%s was finished by %s, and fetched by %q", name, who, by)
			}
		}
	}
	c.mu.Unlock()
	c.backstay.ok(t, "verify", "--read-data")
	if n := strings.Count(c.backstay.ok(t, "points"), "complete"); n != 1 {
		t.Errorf("%d complete points, want 1", n)
	}
	// The next run, alone, finds all of it: nothing was spoiled by who came back.
	c.hub.reset()
	var unchanged runs
	c.backstay.env = append(c.backstay.env, "HUB_TOKEN="+lasting+"-"+c.hub.token)
	decode(t, c.backstay.ok(t, "run", "--once", "--json", "-f", c.args[lasting][4]), &unchanged)
	if s := unchanged.Runs[0].Sources[0]; s.State != "complete" || s.Ledger.Unchanged < sharedRepositories || sum(c.hub.fetches) > 0 {
		t.Errorf("the next run: %s, ledger %+v, %d packs", s.State, s.Ledger, sum(c.hub.fetches))
	}
}
