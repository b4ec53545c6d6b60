//go:build e2e

package e2e

import (
	"archive/zip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// asGitHub lets the hub answer for github.com and api.github.com, over TLS and through a proxy, to programs that run with the
// environment it returns: configurations run as they are published.
func (h *hub) asGitHub(t *testing.T) []string {
	t.Helper()
	certificate, ca := certificateFor(t, "github.com", "api.github.com", "uploads.github.com")
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}} //nolint:gosec // the least version is the test server's own
	server.StartTLS()
	t.Cleanup(server.Close)
	h.mu.Lock()
	h.url = "https://github.com"
	h.mu.Unlock()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !strings.HasSuffix(r.Host, "github.com:443") {
			w.WriteHeader(http.StatusForbidden) // nothing else is to be reached
			return
		}
		tunnel(t, w, server.Listener.Addr().String())
	}))
	t.Cleanup(proxy.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + file}
}

// tunnel joins the client of a CONNECT request with an address.
func tunnel(t *testing.T, w http.ResponseWriter, address string) {
	far, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(far, near); far.Close() })
	both.Go(func() { io.Copy(near, far); near.Close() })
	both.Wait()
}

// certificateFor makes a certificate of some hosts, and the PEM of the authority that signed it.
func certificateFor(t *testing.T, hosts ...string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// The configuration that the article on backing up source code publishes, with its placeholders filled in and its directory
// moved, runs as it is.
func TestWalkthroughConfiguration(t *testing.T) {
	h := newHub(t)
	api := h.add(t, "octocat", "api")
	h.add(t, "octocat", "other")
	h.mu.Lock()
	h.login, api.Wiki, api.Issues = "octocat", true, 3
	h.mu.Unlock()
	git(t, h.dir, "clone", "--quiet", "--bare", newWorkTree(t), h.bare("octocat", "api.wiki"))
	d := newDrop(t, append(h.asGitHub(t), "GITHUB_TOKEN="+h.token)...)
	conf := d.conf(t, `
source:
  github:
    - token: GITHUB_TOKEN
      user: octocat
      include: 
        - api 
      wiki: true
      issues: true
destination:
  local:
    - path: `+d.path("backups")+`
      structured: true
      zip: true
      keep: 5
      bare: true
      lfs: true
log: # optional
  timeformat: 2006-01-02 15:04:05
  file-logging: # optional
    dir: `+d.path("backups/logs")+` # directory to log into
    file: gickup.log # file to log into
    maxage: 7 # keep logs for 7 days
`)
	d.ok(t, "gickup", conf)
	for name, issues := range map[string]int{"api": 3, "api.wiki": 0} {
		zips, err := filepath.Glob(d.path("backups/github.com/octocat", name+".git", "*.zip"))
		if err != nil || len(zips) != 1 {
			t.Fatalf("archives of %s: %v (%v); there is %v", name, zips, err, tree(t, d.path("backups")))
		}
		dir := t.TempDir()
		if n := unzip(t, zips[0], dir); n != issues {
			t.Errorf("%d issues beside %s, want %d: %v", n, name, issues, tree(t, dir))
		}
		repositories, err := filepath.Glob(filepath.Join(dir, "*", "HEAD"))
		if err != nil || len(repositories) != 1 {
			t.Fatalf("in the archive of %s: %v", name, tree(t, dir))
		}
		same(t, filepath.Dir(repositories[0]), h.bare("octocat", name))
	}
	if other, _ := filepath.Glob(d.path("backups/github.com/octocat/other*")); len(other) != 0 {
		t.Errorf("what was not included is there: %v", other)
	}
	log, err := os.ReadFile(d.path("backups/logs/gickup.log"))
	if err != nil || !strings.Contains(string(log), "octocat/api") || strings.Contains(string(log), h.token) {
		t.Errorf("the log file: %v\n%s", err, log)
	}
}

// unzip lays an archive out in dir, and counts the issues in it.
func unzip(t *testing.T, file, dir string) (issues int) {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if err := os.CopyFS(dir, &z.Reader); err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		if strings.Contains(f.Name, ".issues/") && strings.HasSuffix(f.Name, ".json") {
			issues++
		}
	}
	return issues
}

// tree lists the files below a directory.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error { //nolint:errcheck // for messages only
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	return files
}
