//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/webdav"
)

// secrets are those of a configuration that uses every place where one may stand.
func secrets() map[string]string {
	named := map[string]string{}
	for _, name := range []string{
		"VAULT", "GIT", "DAV", "S3KEY", "S3SECRET", "NTFY", "GOTIFY", "MAIL", "BEAT", "SLACK", "APPRISE", "MIRROR",
		"LAB", "BITBUCKET", "TEA", "WRONG", "AZURE", "SAS",
	} {
		named[name] = "secret-of-" + strings.ToLower(name) + "-7f3a9c"
	}
	return named
}

// Every secret of a configuration is searched for in the log, the report, the metrics, the messages, the arguments of all processes,
// temporary files, copies and restored points of runs that go well and badly.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	h := newHub(t)
	h.add(t, owner, "api")
	all := secrets()
	all["HUB"] = h.token
	var received lockedBuffer
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.HasSuffix(r.URL.Path, "/notify") && !strings.HasSuffix(r.URL.Path, "/notify/") { // Apprise is told the URLs of services
			fmt.Fprintf(&received, "%s\n", body)
		}
		if strings.HasPrefix(r.URL.Path, "/failing") {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusForbidden)
			_, password, _ := r.BasicAuth()
			for _, sent := range []string{password, r.Header.Get("Private-Token"), r.Header.Get("Authorization"), r.URL.String()} {
				fmt.Fprintf(w, "not with %s\n", sent) // servers echo what they get
			}
		}
	}))
	defer listener.Close()
	dav := httptest.NewServer(guarded(t, all["DAV"]))
	defer dav.Close()
	env := []string{}
	for name, value := range all {
		env = append(env, name+"_SECRET="+value)
	}
	for _, place := range []string{"BEAT", "SLACK"} {
		env = append(env, place+"_URL="+listener.URL+"/failing/"+all[place])
	}
	key := appKey(t)
	b := bareBackstay(t, append(env, "APP_KEY="+key)...)
	all["key of an App"] = strings.Split(key, "\n")[1]
	all["token made with the key"] = "eyJhbGciOi" // of every JWT
	b.env = append(b.env, "BACKSTAY_PASSWORD="+all["VAULT"], "TMPDIR="+filepath.Join(b.home, "tmp"))
	if err := os.Mkdir(filepath.Join(b.home, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.ok(t, "location", "create")
	write(t, b.home, "git-password", all["GIT"]+"\n")
	if err := os.Chmod(filepath.Join(b.home, "git-password"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, b.home, "policy.yaml", secretPolicy(b, h.url, dav.URL, listener.URL, freePort(t)))

	metrics := "127.0.0.1:" + freePort(t)
	cmd := b.command(t.Context(), "run", "-f", filepath.Join(b.home, "policy.yaml"), "--metrics-listen", metrics, "--log-file", filepath.Join(b.home, "run.log"))
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := watchProcess(t, cmd.Process.Pid, filepath.Join(b.home, "tmp"))
	until(t, &said, func() bool {
		return strings.Contains(said.String(), "run ends") && strings.Contains(received.String(), `"policy":"everything"`)
	})
	scraped := get(t, "http://"+metrics+"/metrics")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	once := b.run(t, "run", "--once", "--json", "--log-format", "json", "-f", filepath.Join(b.home, "policy.yaml"))
	all["CLEAR"] = "secret-in-clear-7f3a9c"
	write(t, b.home, "conf.yml", fmt.Sprintf(`source: {gitlab: [{url: "%[1]s/failing/lab", token: %[2]s}], any: [{url: "%[1]s/failing/a/b.git", username: ann, password: %[2]s}]}
destination: {local: [{path: %[3]s/plain}]}
metrics: {push: {ntfy: [{url: "%[1]s/failing/t", token: %[2]s}]}}
`, listener.URL, all["CLEAR"], b.home))
	gickup := b.run(t, "gickup", "--debug", filepath.Join(b.home, "conf.yml"))
	lint := b.run(t, "gickup", "--lint", "--json", filepath.Join(b.home, "conf.yml"))
	restored := filepath.Join(b.home, "restored")
	b.ok(t, "restore", "latest", "--to", restored)
	shown := b.ok(t, "show", "latest", "--json")

	texts := map[string]string{
		"log": said.String(), "messages": received.String(), "metrics": scraped, "arguments and temporary files": seen(),
		"report": once.stdout + once.stderr, "point": shown, "gickup": gickup.stdout + gickup.stderr, "lint": lint.stdout + lint.stderr,
	}
	for _, dir := range []string{"run.log", "plain", "restored", ".cache", "vault"} {
		filepath.WalkDir(filepath.Join(b.home, dir), func(path string, e os.DirEntry, err error) error { //nolint:errcheck // what is not there holds nothing
			if err == nil && e.Type().IsRegular() {
				content, _ := os.ReadFile(path)
				texts[path] = string(content)
			}
			return nil
		})
	}
	if !strings.Contains(said.String(), "incomplete") || !strings.Contains(scraped, "backstay_") || len(texts) < 10 {
		t.Errorf("nothing was searched: %d texts, log %s", len(texts), shorten(said.String()))
	}
	for _, refused := range []string{"/failing/lab", "/failing/bitbucket", "/failing/tea", "/failing/hub", "/failing/acme/api.git", ".blob."} {
		if !strings.Contains(once.stdout, refused) {
			t.Errorf("%s was not asked: %s", refused, shorten(once.stdout))
		}
	}
	for place, text := range texts {
		for name, secret := range all {
			for _, spelled := range []string{secret, base64.StdEncoding.EncodeToString([]byte("ann:" + secret)), base64.StdEncoding.EncodeToString([]byte(secret))} {
				if i := strings.Index(text, spelled); i >= 0 {
					t.Errorf("the secret %s stands in %s: …%s…", name, place, text[max(0, i-80):min(len(text), i+80)])
				}
			}
		}
	}
}

// appKey is a private key as GitHub makes them for Apps.
func appKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func secretPolicy(b *backstay, hub, dav, listener, closed string) string {
	return fmt.Sprintf(`apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec:
  url: %[1]s
  password: {env: VAULT_SECRET}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: everything}
spec:
  location: main
  sources:
    - github: {url: "%[2]s", token: {env: HUB_SECRET}}
    - git: {url: "http://127.0.0.1:%[6]s/gone/api.git", username: ann, password: {file: %[5]s/git-password}}
    - git: {url: "%[2]s/acme/denied.git", username: ann, password: {file: %[5]s/git-password}}
    - git: {url: "%[4]s/failing/acme/api.git", username: ann, password: {env: WRONG_SECRET}}
    - name: lab
      gitlab: {url: "%[4]s/failing/lab", token: {env: LAB_SECRET}}
    - name: bitbucket
      bitbucket: {url: "%[4]s/failing/bitbucket", username: ann, password: {env: BITBUCKET_SECRET}, organization: acme}
    - name: tea
      gitea: {url: "%[4]s/failing/tea", username: ann, password: {env: TEA_SECRET}}
    - name: hub
      github: {url: "%[4]s/failing/hub", app: {id: 1, installationID: 2, privateKey: {env: APP_KEY}}}
  exports:
    - {local: {path: %[5]s/plain}, structured: true}
    - {webdav: {url: "%[3]s", username: ann, password: {env: DAV_SECRET}}, structured: true}
    - {s3: {bucket: copies, endpoint: "127.0.0.1:%[6]s", insecure: true, accessKey: {env: S3KEY_SECRET}, secretKey: {env: S3SECRET_SECRET}}, structured: true}
    - {azure: {url: "http://127.0.0.1:%[6]s/account.blob.local", container: copies, sas: {env: SAS_SECRET}}, structured: true}
  mirrors:
    - {gitea: {url: "%[4]s/failing", token: {env: MIRROR_SECRET}}}
  notify:
    when: always
    heartbeats:
      - {success: {env: BEAT_URL}, failure: {env: BEAT_URL}, start: {env: BEAT_URL}}
    messages:
      - ntfy: {url: "%[4]s/failing/topic", token: {env: NTFY_SECRET}}
      - gotify: {url: "%[4]s/failing", token: {env: GOTIFY_SECRET}}
      - slack: {env: SLACK_URL}
      - apprise: {url: "%[4]s/failing", urls: [{env: APPRISE_SECRET}]}
      - email: {server: "127.0.0.1:%[6]s", from: a@example.com, to: [b@example.com], username: ann, password: {env: MAIL_SECRET}}
      - webhook: {command: "echo %[4]s/hook"}
`, b.vault, hub, dav, listener, b.home, closed)
}

// guarded is a WebDAV server in a directory of the test, behind a password.
func guarded(t *testing.T, password string) http.Handler {
	t.Helper()
	files := &webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="dav"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	})
}

func get(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// watchProcess looks, again and again, at the arguments of a process and of all below it, and at a directory's files. What it
// returns ends the watch and gives all that was seen.
func watchProcess(t *testing.T, pid int, dir string) func() string {
	t.Helper()
	var (
		seen strings.Builder
		wait sync.WaitGroup
		end  = make(chan struct{})
	)
	wait.Go(func() {
		for {
			for _, arguments := range argumentsBelow(pid) {
				seen.WriteString(arguments + "\n")
			}
			filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error { //nolint:errcheck // files come and go
				if err == nil && e.Type().IsRegular() {
					content, _ := os.ReadFile(path)
					seen.Write(content)
				}
				return nil
			})
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	var once sync.Once
	return func() string {
		once.Do(func() { close(end) })
		wait.Wait()
		return seen.String()
	}
}

// argumentsBelow are the arguments of a process and its descendants.
func argumentsBelow(pid int) (all []string) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	all = append(all, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range children {
		list, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(list)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, argumentsBelow(n)...)
			}
		}
	}
	return all
}
