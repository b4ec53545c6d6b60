//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// The walkthrough of docs/walkthrough-source-code.md, as that page has it: its files, its commands.

const walkthrough = "docs/walkthrough-source-code.md"

// toolboxImage is made of bin/backstay when a cluster is attached to. It trusts what signs the certificates of stand-ins.
const toolboxImage = "lab.local/backstay-toolbox:dev"

// walk is a cluster on which github.com is a Gitea, and a bucket under object lock.
type walk struct {
	*cluster
	forge  *gitea
	bucket *lockedBucket
	work   string   // the repository's clone
	files  string   // directory with the page's files
	env    []string // of the page's commands
}

// newWalk stands everything up but Backstay. The repository acme/api has a commit, a wiki and two issues.
func newWalk(t *testing.T) *walk {
	t.Helper()
	c := startCluster(t, "backstay")
	w := &walk{cluster: c, forge: startGitea(t), bucket: c.lockedBucket(t), work: newWorkTree(t), files: t.TempDir()}
	address := w.forge.create(t, "api")
	gitEnv(t, w.forge.gitEnv(), w.work, "push", "--quiet", "--mirror", address)
	w.forge.page(t, owner+"/api", "Home")
	for _, title := range []string{"it does not start", "it does not stop"} {
		w.forge.call(t, http.MethodPost, "/repos/"+owner+"/api/issues", map[string]any{"title": title, "body": secretInIssue}, nil)
	}
	w.forge.create(t, "other")
	c.standIn(t, "github.com", w.forge.asGitHub())
	for _, name := range filesOf(t, walkthrough) {
		write(t, w.files, name, block(t, walkthrough, "yaml "+name))
	}
	w.env = append(c.commands(t), "TOOLBOX="+toolboxImage,
		"VAULT_URL="+w.bucket.url, "VAULT_PASSWORD="+vaultPassword, "GITHUB_TOKEN="+w.forge.token, "GITHUB_USER="+owner, "GITHUB_REPOSITORY=api",
		"AWS_ACCESS_KEY_ID="+bucketKey, "AWS_SECRET_ACCESS_KEY="+bucketSecret)
	return w
}

// secretInIssue is looked for where nothing may be read.
const secretInIssue = "the-alarm-code-is-4711"

// filesOf are the names of a page's files: its blocks of YAML that have one.
func filesOf(t *testing.T, page string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^.{3}yaml (\S+)$`).FindAllSubmatch(text, -1) {
		names = append(names, string(found[1]))
	}
	return names
}

// commands lets a page's script run kubectl, backstay and other programs in the cluster's network, as its administrator.
func (c *cluster) commands(t *testing.T, others ...string) (env []string) {
	t.Helper()
	bin := t.TempDir()
	paths := map[string]string{"kubectl": filepath.Join(c.dir, "programs", "kubectl"), "backstay": program(t, "BACKSTAY_TEST_BINARY")}
	for _, path := range others {
		paths[filepath.Base(path)] = path
	}
	for name, path := range paths {
		script := fmt.Sprintf("#!/bin/sh\nexec nsenter -t %s -n %s \"$@\"\n", c.node, path)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(c.dir, "kubeconfig", "admin")}
}

// script runs one of the page's in the directory of its files.
func (w *walk) script(t *testing.T, name string) string {
	t.Helper()
	said := runScript(t, t.TempDir(), w.files, block(t, walkthrough, name), w.env...)
	if t.Failed() {
		t.FailNow()
	}
	return said
}

func TestClusterWalkthroughSourceCode(t *testing.T) {
	w := newWalk(t)
	w.deploy(t)
	w.kubectl(t, "apply", "--server-side", "-f", filepath.Join(root(t), "deploy", "kanister", "crds.yaml"))
	if t.Run("as the article has it", w.asTheArticle) { // which makes the Location
		t.Run("without pod and volume", w.withoutPod)
	}
}

func (w *walk) asTheArticle(t *testing.T) {
	w.withoutDefaultClass(t)
	w.deleteNamespace(t, "gickup")
	w.clean(t, "delete", "namespace", "gickup", "--wait=false", "--ignore-not-found")
	w.kubectl(t, "delete", "persistentvolume", "gickup-pv", "--ignore-not-found")
	w.clean(t, "delete", "persistentvolume", "gickup-pv", "--ignore-not-found", "--wait=false")
	backups := filepath.Join(w.dir, "source-code") // on the node it is /run/node/source-code
	if err := os.RemoveAll(backups); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "HOST_DIRECTORY=/run/node/source-code")

	said := w.script(t, "sh")
	if !strings.Contains(said, "complete") {
		t.Fatalf("the backup is not complete:\n%s", said)
	}
	w.holdsRepository(t, backups)
	w.withinLimits(t)
	w.bucket.keeps(t)

	before := treeOf(t, backups)
	w.exec(t, "gickup", "deployment/gickup-deployment", "bash", "-c", "cd /backups && rm -r github.com && echo lost >logs/gickup.log")
	w.script(t, "sh restore")
	if after := treeOf(t, backups); after != before {
		t.Errorf("/backups before:\n%s\nafter the restore:\n%s", before, after)
	}
}

func (w *walk) withoutPod(t *testing.T) {
	authority, err := os.ReadFile(filepath.Join(w.dir, "..", ".images", "authority.crt"))
	if err != nil {
		t.Fatal(err)
	}
	w.kubectl(t, "-n", system, "create", "secret", "generic", "authority", "--from-literal=ca="+string(authority))
	script := strings.Replace(block(t, walkthrough, "sh own"), "issues: true", // Backstay's own image does not trust the stand-in
		"issues: true\n        ca: {secretKeyRef: {name: authority, key: ca}}", 1)
	runScript(t, t.TempDir(), w.files, script, w.env...)
	restored := tree(t, filepath.Join(w.files, "restored"))
	for _, part := range []string{"/api.git/HEAD", "/api.wiki.git/HEAD"} {
		at := slices.IndexFunc(restored, func(file string) bool { return strings.HasSuffix(file, part) })
		if at < 0 {
			t.Fatalf("%s is not in %v", part, restored)
		}
		if part == "/api.git/HEAD" {
			same(t, filepath.Dir(filepath.Join(w.files, "restored", restored[at])), w.work)
		}
	}
	issues := func(file string) bool { return strings.Contains(file, "issues") && strings.HasSuffix(file, ".json") }
	if n := len(slices.DeleteFunc(slices.Clone(restored), func(file string) bool { return !issues(file) })); n != 2 {
		t.Errorf("%d issues, want 2: %v", n, restored)
	}
	if left := w.kubectl(t, "-n", system, "get", "persistentvolumeclaims", "-o", "name"); left != "" {
		t.Errorf("there are claims: %s", left)
	}
	w.bucket.keeps(t)
}

// holdsRepository looks at what gickup's file asks for: archives of the repository with its issues, and of its wiki.
func (w *walk) holdsRepository(t *testing.T, backups string) {
	t.Helper()
	for name, issues := range map[string]int{"api": 2, "api.wiki": 0} {
		zips, err := filepath.Glob(filepath.Join(backups, "github.com", owner, name+".git", "*.zip"))
		if err != nil || len(zips) != 1 {
			t.Fatalf("archives of %s: %v (%v); there is %v", name, zips, err, tree(t, backups))
		}
		dir := t.TempDir()
		if n := unzip(t, zips[0], dir); n != issues {
			t.Errorf("%d issues beside %s, want %d: %v", n, name, issues, tree(t, dir))
		}
		repositories, err := filepath.Glob(filepath.Join(dir, "*", "HEAD"))
		if err != nil || len(repositories) != 1 {
			t.Fatalf("in the archive of %s: %v", name, tree(t, dir))
		}
		if name == "api" {
			same(t, filepath.Dir(repositories[0]), w.work)
		}
	}
	log, err := os.ReadFile(filepath.Join(backups, "logs", "gickup.log"))
	if err != nil || !strings.Contains(string(log), owner+"/api") || strings.Contains(string(log), w.forge.token) {
		t.Errorf("the log file: %v\n%s", err, log)
	}
	if other, _ := filepath.Glob(filepath.Join(backups, "github.com", owner, "other*")); len(other) != 0 {
		t.Errorf("what was not included is there: %v", other)
	}
}

// withinLimits fails when the pod was killed for want of memory. The kernel counts what was read from files too, and takes it back.
func (w *walk) withinLimits(t *testing.T) {
	t.Helper()
	restarts := w.kubectl(t, "-n", "gickup", "get", "pods", "-l", "app=gickup", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
	if restarts != "0" {
		t.Errorf("the pod was started again: %s", restarts)
	}
	killed := w.exec(t, "gickup", "deployment/gickup-deployment", "bash", "-c",
		"cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null | grep -w oom_kill")
	for line := range strings.Lines(killed) {
		if !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			t.Errorf("a process of the pod was killed for want of memory: %s", killed)
		}
	}
}

// treeOf describes all that is below a directory: one line for each name, with its mode, owner and content.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&all, "%s %s", info.Mode(), name)
		if e.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, " %d %s %s", len(content), sha256Hex(string(content)), info.ModTime().UTC().Format(time.RFC3339Nano))
		}
		all.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// withoutDefaultClass leaves the cluster without a default storage class until the test ends, as the article's had none.
func (c *cluster) withoutDefaultClass(t *testing.T) {
	t.Helper()
	mark := func(value string) []string {
		return []string{"annotate", "--overwrite", "storageclass", "csi-hostpath-sc", "storageclass.kubernetes.io/is-default-class=" + value}
	}
	c.kubectl(t, mark("false")...)
	t.Cleanup(func() {
		_ = c.command(context.Background(), filepath.Join(c.dir, "programs", "kubectl"), mark("true")...).Run()
	})
}

// standIn answers for a host and for its api. to the cluster's pods, over TLS with a certificate that toolboxes trust. Pods look
// names up in svc.cluster.local first, so a Service github in the namespace com is github.com to them.
func (c *cluster) standIn(t *testing.T, host string, h http.Handler) {
	t.Helper()
	service, namespace, _ := strings.Cut(host, ".")
	l := c.listen(t, net.JoinHostPort(nodeAddress, "443"))
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.certificate(t, host, "api."+host)}, MinVersion: tls.VersionTLS12},
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	c.newNamespace(t, namespace)
	c.apply(t, namespace, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {clusterIP: None, ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{port: 443}]
endpoints: [{addresses: [%[2]s], hostname: api}]
`, service, nodeAddress))
}

// listen listens in the cluster's network. A socket stays in the network of the thread that made it.
func (c *cluster) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	type made struct {
		l   net.Listener
		err error
	}
	done := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is of no use to others any more, and ends
		l, err := func() (net.Listener, error) {
			ns, err := os.Open("/proc/" + c.node + "/ns/net")
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
		}()
		done <- made{l, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatalf("listen on %s in cluster %s: %v", address, c.name, m.err)
	}
	return m.l
}

// certificate makes one of hosts, signed by the authority that images of toolboxes trust.
func (c *cluster) certificate(t *testing.T, hosts ...string) tls.Certificate {
	t.Helper()
	authority, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "..", ".images", "authority.crt"), filepath.Join(c.dir, "..", ".images", "authority.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority.Leaf, &key.PublicKey, authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// asGitHub has a Gitea answer as github.com and api.github.com do, as far as gickup's files ask. Their APIs are of one family; what
// differs for those who list repositories and issues is done here: paths, the size of pages, and a field.
func (g *gitea) asGitHub() http.Handler {
	const web, api = "https://github.com", "https://api.github.com"
	return &httputil.ReverseProxy{
		Transport: g.client.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			to, _ := url.Parse(g.url)
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, to.Host
			r.Out.Header.Del("Accept-Encoding")
			if !strings.HasPrefix(r.In.Host, "api.") {
				return
			}
			r.Out.URL.Path = "/api/v1" + r.In.URL.Path
			query := r.In.URL.Query()
			if size := query.Get("per_page"); size != "" {
				query.Del("per_page")
				query.Set("limit", "50")
			}
			r.Out.URL.RawQuery = query.Encode()
		},
		ModifyResponse: func(r *http.Response) error {
			if link := r.Header.Get("Link"); link != "" {
				r.Header.Set("Link", strings.ReplaceAll(link, g.url+"/api/v1", api))
			}
			if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
				return nil
			}
			body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
			if err != nil {
				return err
			}
			body = bytes.ReplaceAll(body, []byte(g.url), []byte(web))
			body = bytes.ReplaceAll(body, []byte(`"updated_at":`), []byte(`"pushed_at":null,"updated_at":`))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
			return nil
		},
	}
}

// lockedBucket is a bucket with object lock on a server in the cluster's network.
type lockedBucket struct {
	url    string // of a vault in it
	dir    string // where the server keeps its files
	client *minio.Client
}

const (
	bucketName   = "immutable"
	bucketKey    = "backstay-test"
	bucketSecret = "not-much-of-a-secret"
)

func (c *cluster) lockedBucket(t *testing.T) *lockedBucket {
	t.Helper()
	b := &lockedBucket{dir: t.TempDir()}
	data, versions := filepath.Join(b.dir, "data"), filepath.Join(b.dir, "versions")
	for _, dir := range []string{data, versions} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	address := net.JoinHostPort(nodeAddress, freePort(t))
	b.url = "s3://" + bucketName + "/backstay?region=us-east-1&tls=false&endpoint=" + address
	server := c.command(context.Background(), program(t, "BACKSTAY_TEST_VERSITYGW"), "--port", address, "--quiet", "posix",
		"--versioning-dir", versions, data)
	server.Env = append(server.Env, "ROOT_ACCESS_KEY="+bucketKey, "ROOT_SECRET_KEY="+bucketSecret)
	said := &lockedBuffer{}
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Logf("the S3 server said: %s", said)
		}
	})
	client, err := minio.New(address, &minio.Options{
		Creds: credentials.NewStaticV4(bucketKey, bucketSecret, ""), Region: "us-east-1", MaxRetries: 1,
		Transport: &http.Transport{DialContext: c.dial},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.client = client
	c.wait(t, "the bucket is there", 2*time.Minute, func() (bool, string) {
		err := client.MakeBucket(t.Context(), bucketName, minio.MakeBucketOptions{ObjectLocking: true})
		return err == nil, fmt.Sprint(err, said)
	})
	return b
}

// keeps fails unless the vault's blobs cannot be deleted with the bucket's own credentials, nor read without its password.
func (b *lockedBucket) keeps(t *testing.T) {
	t.Helper()
	locked := 0
	for o := range b.client.ListObjects(t.Context(), bucketName, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if blob := strings.TrimPrefix(o.Key, "backstay/"); o.IsDeleteMarker || !regexp.MustCompile(`^([pqnx][0-9a-f_]|kopia\.(repository|blobcfg)$)`).MatchString(blob) {
			continue // leases, schedules and marks of sessions have their day
		}
		err := b.client.RemoveObject(t.Context(), bucketName, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID, GovernanceBypass: true})
		if err == nil {
			t.Errorf("%s could be deleted", o.Key)
		}
		locked++
	}
	if locked < 6 {
		t.Errorf("%d blobs are locked: too few for a vault", locked)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(secretInIssue))
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, clear := range []string{secretInIssue, encoded, owner + "/api", "gickup", "refs/heads"} {
			if bytes.Contains(content, []byte(clear)) {
				t.Errorf("%s can be read in %s", clear, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
