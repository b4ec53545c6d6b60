//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gitea is a running Gitea behind a proxy that speaks TLS with a certificate of its own.
type gitea struct {
	url    string // https://127.0.0.1:PORT
	ca     string // file of the certificate
	token  string // of owner
	ssh    string // port of git over ssh
	client *http.Client
	dir    string // its data

	watch atomic.Pointer[func(*http.Request)] // called with every request before it is answered
	end   func()                              // ends it
}

const owner = "acme"

// startGitea starts a fresh Gitea, which ends with the test.
func startGitea(t *testing.T) *gitea {
	t.Helper()
	binary := program(t, "BACKSTAY_TEST_GITEA")
	dir := t.TempDir()
	port := freePort(t)
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "127.0.0.1:" + port})
			r.Out.Host = r.In.Host
			r.SetXForwarded() // Gitea makes the addresses of LFS objects from it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }, // it is not up yet
	}
	g := &gitea{dir: dir, ca: filepath.Join(dir, "ca.pem"), ssh: freePort(t)}
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if watch := g.watch.Load(); watch != nil {
			(*watch)(r)
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	g.url, g.client = proxy.URL, proxy.Client()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw})
	if err := os.WriteFile(g.ca, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "app.ini")
	if err := os.WriteFile(config, []byte(giteaConfig(dir, filepath.Dir(binary), port, g.ssh, g.url)), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), binary, append([]string{"--config", config}, args...)...)
		cmd.Env = append(cleanEnv(), "HOME="+dir, "GITEA_WORK_DIR="+dir)
		r := finish(t, cmd)
		if r.exit != 0 {
			t.Fatalf("gitea %v: exit %d\n%s%s", args, r.exit, r.stdout, r.stderr)
		}
		return r.stdout
	}
	run("migrate")
	run("admin", "user", "create", "--admin", "--username", owner, "--password", "unused-but-long", "--email", "a@example.com",
		"--must-change-password=false")
	said := run("admin", "user", "generate-access-token", "--username", owner, "--scopes", "all", "--raw")
	if g.token = regexp.MustCompile(`(?m)^[0-9a-f]{40}$`).FindString(said); g.token == "" { // among lines of its log
		t.Fatalf("there is no token in\n%s", said)
	}

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	serve := exec.CommandContext(ctx, binary, "--config", config, "web")
	serve.Env = append(cleanEnv(), "HOME="+dir, "GITEA_WORK_DIR="+dir)
	serve.Cancel = func() error { return serve.Process.Signal(os.Interrupt) }
	serve.WaitDelay = 10 * time.Second
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	g.end = sync.OnceFunc(func() {
		stop()
		serve.Wait() // it was interrupted
	})
	t.Cleanup(func() {
		g.end()
		if t.Failed() {
			t.Logf("gitea said:\n%s", log.Bytes())
		}
	})
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if g.healthy(t) {
			return g
		}
		if time.Now().After(deadline) {
			t.Fatal("gitea is not up after three minutes")
		}
	}
}

// wipe ends the server, and removes all that it had.
func (g *gitea) wipe(t *testing.T) {
	t.Helper()
	g.end()
	entries, err := os.ReadDir(g.dir)
	for _, e := range entries {
		if err == nil && e.Name() != filepath.Base(g.ca) {
			err = os.RemoveAll(filepath.Join(g.dir, e.Name()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (g *gitea) healthy(t *testing.T) bool {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/api/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := g.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func giteaConfig(dir, program, port, ssh, root string) string {
	return fmt.Sprintf(`
RUN_USER = %[1]s
RUN_MODE = prod
WORK_PATH = %[2]s
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[4]s
ROOT_URL = %[5]s/
STATIC_ROOT_PATH = %[3]s/static
OFFLINE_MODE = true
START_SSH_SERVER = true
SSH_DOMAIN = 127.0.0.1
SSH_PORT = %[6]s
SSH_LISTEN_HOST = 127.0.0.1
SSH_LISTEN_PORT = %[6]s
BUILTIN_SSH_SERVER_USER = git
LFS_START_SERVER = true
LFS_JWT_SECRET = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
[lfs]
PATH = %[2]s/lfs
[migrations]
ALLOW_LOCALNETWORKS = true
SKIP_TLS_VERIFY = true
[repository]
ROOT = %[2]s/repositories
[database]
DB_TYPE = sqlite3
PATH = %[2]s/gitea.db
SQLITE_TIMEOUT = 60000
[security]
INSTALL_LOCK = true
SECRET_KEY = test
[oauth2]
JWT_SECRET = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
[log]
MODE = console
LEVEL = Warn
[indexer]
ISSUE_INDEXER_TYPE = db
[cron]
ENABLED = false
`, userName(), dir, program, port, root, ssh)
}

func userName() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// create makes an empty repository of owner and returns its URL.
func (g *gitea) create(t *testing.T, name string) string {
	t.Helper()
	g.call(t, http.MethodPost, "/user/repos", map[string]any{"name": name, "private": true, "default_branch": "main"}, nil)
	return g.url + "/" + owner + "/" + name + ".git"
}

// call asks the API, as owner, and decodes the answer into a value that is not nil.
func (g *gitea) call(t *testing.T, method, path string, body, into any) {
	t.Helper()
	payload, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, g.url+"/api/v1"+path, bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "token "+g.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := g.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s (%v)", method, path, response.Status, text, err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// gitEnv makes git trust the certificate and send the token.
func (g *gitea) gitEnv() []string {
	return []string{
		"GIT_SSL_CAINFO=" + g.ca, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader",
		"GIT_CONFIG_VALUE_0=Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(owner+":"+g.token)),
	}
}
