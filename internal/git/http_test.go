package git

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

const (
	testToken = "s3cret-token-for-tests"
	testOID   = "1234567890123456789012345678901234567890"
)

// pkts writes lines as packets; flushPkt and delimPkt stand for themselves.
func pkts(lines ...string) string {
	var b []byte
	for _, line := range lines {
		if line == flushPkt || line == delimPkt {
			b = append(b, line...)
		} else {
			b = appendPkt(b, line)
		}
	}
	return string(b)
}

// band is a packet of a multiplexed answer.
func band(n byte, data string) string { return fmt.Sprintf("%04x%c%s", len(data)+5, n, data) }

var greetingV2 = pkts("version 2", "agent=fake", "ls-refs=unborn", "fetch=shallow", "object-format=sha1", flushPkt)

// fakeServer answers every GET and POST with fixed text, as a git server would.
func fakeServer(t testing.TB, get, post string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			fmt.Fprint(w, get)
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client left
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		fmt.Fprint(w, post)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/x.git"
}

func TestHostileGreetings(t *testing.T) {
	ref := testOID + " refs/heads/x"
	for name, c := range map[string]struct {
		get  string
		want error
	}{
		"nothing":                {"", fault.ErrUnavailable},
		"not packets":            {"<html>hello", fault.ErrCorrupt},
		"length of three":        {"0003", fault.ErrCorrupt},
		"length too long":        {"fff1" + strings.Repeat("x", 70000), fault.ErrCorrupt},
		"cut in a packet":        {"0020abc", fault.ErrUnavailable},
		"cut before the flush":   {pkts("version 2", "ls-refs"), fault.ErrUnavailable},
		"error":                  {pkts("ERR Repository not found."), fault.ErrNotFound},
		"no commands":            {pkts("version 2", flushPkt), fault.ErrUnsupported},
		"unknown format":         {pkts("version 2", "ls-refs", "fetch", "object-format=md5", flushPkt), fault.ErrUnsupported},
		"endless capabilities":   {pkts(append(strings.Split("version 2"+strings.Repeat("\nx", 2000), "\n"), flushPkt)...), fault.ErrCorrupt},
		"name with dots":         {pkts(testOID+" refs/heads/../../x", flushPkt), fault.ErrCorrupt},
		"absolute name":          {pkts(testOID+" /etc/passwd", flushPkt), fault.ErrCorrupt},
		"name with line feed":    {pkts(testOID+" refs/heads/x\ny", flushPkt), fault.ErrCorrupt},
		"lock file":              {pkts(testOID+" refs/heads/x.lock", flushPkt), fault.ErrCorrupt},
		"name twice":             {pkts(ref, ref, flushPkt), fault.ErrCorrupt},
		"oid too short":          {pkts("12 refs/heads/x", flushPkt), fault.ErrCorrupt},
		"oid of none":            {pkts(strings.Repeat("0", 40)+" refs/heads/x", flushPkt), fault.ErrCorrupt},
		"peeled of something":    {pkts(ref, testOID+" refs/heads/y^{}", flushPkt), fault.ErrCorrupt},
		"peeled of nothing":      {pkts(testOID+" refs/heads/y^{}", flushPkt), fault.ErrCorrupt},
		"delimiter in a list":    {pkts(ref, delimPkt), fault.ErrCorrupt},
		"shallow":                {pkts(ref, "shallow "+testOID, flushPkt), fault.ErrUnsupported},
		"list cut":               {pkts(ref), fault.ErrUnavailable},
		"v1 cut":                 {pkts("version 1"), fault.ErrUnavailable},
		"service line and cut":   {pkts("# service=git-upload-pack", flushPkt), fault.ErrUnavailable},
		"v2 list is not a list":  {greetingV2, fault.ErrUnavailable},
		"terminal escape in ERR": {pkts("ERR \x1b[2J not found"), fault.ErrNotFound},
	} {
		_, err := dialTest(t, fakeServer(t, c.get, ""), testOptions()).ListRefs(context.Background())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v is not %v", name, err, c.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %q is not fit to print", name, err)
		}
	}
}

func TestHostileLists(t *testing.T) {
	for name, c := range map[string]struct {
		post string
		want error
	}{
		"delimiter":             {pkts(testOID+" refs/heads/x", delimPkt), fault.ErrCorrupt},
		"no name":               {pkts(testOID, flushPkt), fault.ErrCorrupt},
		"unborn without target": {pkts("unborn HEAD", flushPkt), fault.ErrCorrupt},
		"hostile target":        {pkts(testOID+" HEAD symref-target:../../x", flushPkt), fault.ErrCorrupt},
		"hostile peeled":        {pkts(testOID+" refs/tags/x peeled:../../x", flushPkt), fault.ErrCorrupt},
		"cut":                   {pkts(testOID + " refs/heads/x"), fault.ErrUnavailable},
		"no such command":       {pkts("ERR unknown words"), fault.ErrUnavailable},
	} {
		_, err := dialTest(t, fakeServer(t, greetingV2, c.post), testOptions()).ListRefs(context.Background())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v is not %v", name, err, c.want)
		}
	}
}

func TestHostilePacks(t *testing.T) {
	pack := "PACK\x00\x00\x00\x02\x00\x00\x00\x00" + strings.Repeat("x", 20)
	for name, c := range map[string]struct {
		post string
		want error
		says string
	}{
		"whole":              {pkts("packfile") + band(1, pack) + flushPkt, nil, ""},
		"in pieces":          {pkts("packfile") + band(1, "P") + band(2, "progress") + band(1, "") + band(1, pack[1:]) + flushPkt, nil, ""},
		"no flush":           {pkts("packfile") + band(1, pack), fault.ErrUnavailable, ""},
		"cut":                {pkts("packfile") + band(1, pack)[:20], fault.ErrUnavailable, ""},
		"too short":          {pkts("packfile") + band(1, pack[:20]) + flushPkt, fault.ErrUnavailable, ""},
		"empty":              {pkts("packfile", flushPkt), fault.ErrUnavailable, ""},
		"not a pack":         {pkts("packfile") + band(1, "JUNK"+pack[4:]) + flushPkt, fault.ErrCorrupt, ""},
		"unknown version":    {pkts("packfile") + band(1, "PACK\x00\x00\x01\x02"+pack[8:]) + flushPkt, fault.ErrCorrupt, ""},
		"error band":         {pkts("packfile") + band(1, pack) + band(3, "out of \x1b[1mcoffee\n"), fault.ErrUnavailable, "coffee"},
		"unknown band":       {pkts("packfile") + band(7, "x"), fault.ErrCorrupt, ""},
		"empty packet":       {pkts("packfile") + "0004", fault.ErrCorrupt, ""},
		"shallow":            {pkts("shallow-info", "shallow "+testOID, delimPkt, "packfile"), fault.ErrUnsupported, "shallow"},
		"packs from a URL":   {pkts("packfile-uris", testOID+" https://evil.example/", delimPkt, "packfile"), fault.ErrCorrupt, "packfile-uris"},
		"error in its place": {pkts("ERR upload-pack: not our ref " + testOID), fault.ErrUnavailable, "not our ref"},
		"nothing":            {"", fault.ErrUnavailable, ""},
		"only a flush":       {flushPkt, fault.ErrCorrupt, ""},
	} {
		r := dialTest(t, fakeServer(t, greetingV2, c.post), testOptions())
		_, err := r.Fetch(context.Background(), []string{testOID}, nil, io.Discard)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v is not %v", name, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\x1b\n")) {
			t.Errorf("%s: %q does not say %q, fit to print", name, err, c.says)
		}
	}
}

func TestServerThatCannotMultiplex(t *testing.T) {
	pack := "PACK\x00\x00\x00\x02\x00\x00\x00\x00" + strings.Repeat("x", 20)
	for name, c := range map[string]struct {
		post string
		want error
	}{
		"pack":               {pkts("NAK") + pack, nil},
		"pack after acks":    {pkts("ACK "+testOID, "ACK "+testOID) + pack, nil},
		"cut":                {pkts("NAK") + pack[:20], fault.ErrUnavailable},
		"no acknowledgement": {pack, fault.ErrCorrupt},
		"nothing":            {"", fault.ErrUnavailable},
	} {
		r := dialTest(t, fakeServer(t, pkts(testOID+" refs/heads/x\x00ofs-delta", flushPkt), c.post), testOptions())
		var got strings.Builder
		_, err := r.Fetch(t.Context(), []string{testOID}, []string{testOID}, &got)
		if !errors.Is(err, c.want) || err == nil && got.String() != pack {
			t.Errorf("%s: %q, %v is not %v", name, got.String(), err, c.want)
		}
	}
}

func TestEndlessRefs(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		for i := 0; r.Context().Err() == nil; i++ {
			if _, err := w.Write(appendPkt(nil, fmt.Sprintf("%s refs/heads/%d", testOID, i))); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	o := testOptions()
	o.MaxRefs = 20_000
	_, err := dialTest(t, server.URL+"/x", o).ListRefs(context.Background())
	if !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "more than 20000 refs") {
		t.Errorf("endless refs: %v", err)
	}
}

func TestStatusesHaveClasses(t *testing.T) {
	for status, want := range map[int]struct {
		kind     error
		requests int64
	}{
		401: {fault.ErrDenied, 1}, 403: {fault.ErrDenied, 1}, 404: {fault.ErrNotFound, 1}, 410: {fault.ErrNotFound, 1},
		400: {fault.ErrUnsupported, 1}, 418: {fault.ErrUnsupported, 1}, 501: {fault.ErrUnsupported, 1},
		429: {fault.ErrThrottled, 3}, 500: {fault.ErrUnavailable, 3}, 502: {fault.ErrUnavailable, 3}, 503: {fault.ErrUnavailable, 3},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			said := "you sent " + password + " as " + r.Header.Get("Authorization") + strings.Repeat(".", 300)
			http.Error(w, said+password, status) // the last one lies across the end of what is kept
		}))
		o := testOptions()
		o.Password = testToken
		r := dialTest(t, server.URL+"/x", o)
		_, err := r.ListRefs(context.Background())
		server.Close()
		if !errors.Is(err, want.kind) || r.Requests() != want.requests {
			t.Errorf("%d: %v after %d requests, want %v after %d", status, err, r.Requests(), want.kind, want.requests)
		}
		if strings.Contains(err.Error(), testToken[:8]) || strings.Contains(err.Error(), "Basic eC1") || !strings.Contains(err.Error(), "you sent [secret]") {
			t.Errorf("%d: %q tells the token, or not what the server said", status, err)
		}
	}
}

func TestHiccupIsTriedAgain(t *testing.T) {
	dir := sampleRepo(t)
	backend := httpBackend(filepath.Dir(dir))
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) <= 2 {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()
	r := dialTest(t, server.URL+"/sample/.git", testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil || formatRefs(list) != refsOf(t, dir) {
		t.Errorf("after two hiccups: %v", err)
	}
}

func TestLongRetryAfterIsNotWaitedFor(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()
	_, err := dialTest(t, server.URL+"/x", testOptions()).ListRefs(context.Background())
	if !errors.Is(err, fault.ErrThrottled) || !strings.Contains(err.Error(), "1h0m0s") {
		t.Errorf("%v does not say when to come back", err)
	}
}

func TestServersThatAreNotGit(t *testing.T) {
	for contentType, want := range map[string]error{"text/plain": fault.ErrUnsupported, "text/html; charset=utf-8": fault.ErrNotFound} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			fmt.Fprint(w, testOID+"\trefs/heads/main\n")
		}))
		_, err := dialTest(t, server.URL+"/x", testOptions()).ListRefs(context.Background())
		server.Close()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v is not %v", contentType, err, want)
		}
	}
}

// recorder is a server that notes the credentials it is sent.
type recorder struct {
	*httptest.Server
	mu    sync.Mutex
	creds []string
}

func newRecorder(t testing.TB, h http.Handler) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		r.mu.Lock()
		r.creds = append(r.creds, user+":"+password+req.Header.Get("X-Custom"))
		r.mu.Unlock()
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.creds, " ")
}

// flush sends what was written so far.
func flush(w http.ResponseWriter) {
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(err)
	}
}

func redirectTo(base string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, base+r.URL.RequestURI(), http.StatusMovedPermanently)
	})
}

func TestRedirectIsFollowedWithoutCredentials(t *testing.T) {
	dir := sampleRepo(t)
	target := newRecorder(t, httpBackend(filepath.Dir(dir)))
	first := newRecorder(t, redirectTo(target.URL+"/sample"))
	o := testOptions()
	o.Password = testToken
	r := dialTest(t, first.URL+"/.git", o)
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fetchInto(t, r, list, nil)
	if got, want := first.seen(), "x-access-token:"+testToken; got != want {
		t.Errorf("the source got %q, want %q and only one request", got, want)
	}
	if got, want := target.seen(), ": : :"; got != want {
		t.Errorf("the other host got %q, want three requests without credentials", got)
	}
}

func TestRedirectWithinTheHostKeepsCredentials(t *testing.T) {
	dir := sampleRepo(t)
	backend := httpBackend(filepath.Dir(dir))
	server := newRecorder(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			http.Redirect(w, r, "/sample/.git"+rest+"?"+r.URL.RawQuery, http.StatusFound)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	o := testOptions()
	o.Username, o.Password = "ana", testToken
	if _, err := dialTest(t, server.URL+"/old", o).ListRefs(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, one := server.seen(), "ana:"+testToken; got != one+" "+one+" "+one {
		t.Errorf("credentials sent: %q", got)
	}
}

func TestHostileRedirects(t *testing.T) {
	for name, c := range map[string]struct {
		to   string
		want error
	}{
		"metadata":           {"http://169.254.169.254/latest", fault.ErrRefused},
		"metadata by IPv6":   {"http://[fd00:ec2::254]/", fault.ErrRefused},
		"metadata in IPv6":   {"http://[::ffff:169.254.169.254]/", fault.ErrRefused},
		"metadata by NAT64":  {"http://[64:ff9b::a9fe:a9fe]/", fault.ErrRefused},
		"link-local":         {"http://[fe80::1%25eth0]/", fault.ErrRefused},
		"file":               {"file:///etc/passwd", fault.ErrRefused},
		"git":                {"git://127.0.0.1/x", fault.ErrRefused},
		"user":               {"http://user:pass@127.0.0.1/", fault.ErrRefused},
		"nowhere":            {"http:///", fault.ErrCorrupt},
		"itself":             {"", fault.ErrRefused},
		"a page for signing": {"/login?from=", fault.ErrUnsupported},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				return
			}
			w.Header().Set("Location", c.to+r.URL.RequestURI())
			w.WriteHeader(http.StatusFound)
		}))
		o := testOptions()
		o.Password = testToken
		_, err := dialTest(t, server.URL+"/x", o).ListRefs(context.Background())
		server.Close()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v is not %v", name, err, c.want)
		}
	}
}

func TestRedirectOfAPackRequestIsRefused(t *testing.T) {
	other := newRecorder(t, http.NotFoundHandler())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			fmt.Fprint(w, greetingV2)
			return
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer server.Close()
	if _, err := dialTest(t, server.URL+"/x", testOptions()).ListRefs(context.Background()); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if other.seen() != "" {
		t.Error("the other host was asked")
	}
}

func TestAddressGuard(t *testing.T) {
	for _, c := range []struct {
		host, dialed, address string
		refused               bool
	}{
		{"git.example", "git.example", "127.0.0.1:443", false}, // the user's own choice
		{"git.example", "git.example", "169.254.169.254:80", true},
		{"git.example", "other.example", "127.0.0.1:80", true},
		{"git.example", "other.example", "10.1.2.3:80", true},
		{"git.example", "other.example", "100.64.0.1:80", true},
		{"git.example", "other.example", "100.100.100.200:80", true},
		{"git.example", "other.example", "[::1]:80", true},
		{"git.example", "other.example", "[::ffff:10.0.0.1]:80", true},
		{"git.example", "other.example", "[64:ff9b::7f00:1]:80", true},
		{"git.example", "other.example", "0.0.0.0:80", true},
		{"git.example", "other.example", "[::]:80", true},
		{"git.example", "other.example", "[fd12::1]:80", true},
		{"git.example", "other.example", "224.0.0.1:80", true},
		{"git.example", "other.example", "192.0.2.7:443", false},
		{"10.0.0.1", "other.example", "10.1.2.3:80", false},
		{"localhost", "other.example", "127.0.0.1:80", false},
		{"10.0.0.1", "other.example", "169.254.169.254:80", true},
		{"localhost", "localhost", "[fe80::1]:80", true},
	} {
		err := newAddressGuard(c.host).check(c.address, c.host == c.dialed)
		if errors.Is(err, fault.ErrRefused) != c.refused {
			t.Errorf("from %s to %s at %s: %v", c.host, c.dialed, c.address, err)
		}
	}
}

func TestProxyIsAllowedWhereverItIs(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guard := newAddressGuard("git.example")
	if _, err := guard.dial(context.Background(), "tcp", l.Addr().String()); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("loopback from afar: %v", err)
	}
	guard.allowProxy(&url.URL{Scheme: "http", Host: l.Addr().String()})
	conn, err := guard.dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestProxyFromTheEnvironment runs itself again, for the environment is read once in a process.
func TestProxyFromTheEnvironment(t *testing.T) {
	const child = "IN_CHILD_OF_PROXY_TEST"
	if os.Getenv(child) != "" {
		list, err := dialTest(t, "http://git.example/sample/.git", testOptions()).ListRefs(t.Context())
		if err != nil || len(list.Refs) == 0 {
			t.Errorf("by the proxy: %v", err)
		}
		return
	}
	dir := sampleRepo(t)
	backend := httpBackend(filepath.Dir(dir))
	proxy := newRecorder(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "git.example" {
			t.Errorf("asked for host %q", r.URL.Host)
		}
		backend.ServeHTTP(w, r)
	}))
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1", "HTTP_PROXY="+proxy.URL, "http_proxy=", "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if proxy.seen() == "" {
		t.Error("nothing went by the proxy")
	}
}

// serveTLS serves h over TLS and HTTP/2, and returns the file of its certificate.
func serveTLS(t testing.TB, h http.Handler, connections *atomic.Int64) (server *httptest.Server, caFile string) {
	t.Helper()
	server = httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return server, caFile
}

func TestTLS(t *testing.T) {
	dir := sampleRepo(t)
	var connections, http1 atomic.Int64
	backend := httpBackend(filepath.Dir(dir))
	server, caFile := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			http1.Add(1)
		}
		backend.ServeHTTP(w, r)
	}), &connections)

	base := server.URL + "/sample/.git"
	if _, err := dialTest(t, base, testOptions()).ListRefs(context.Background()); !errors.Is(err, fault.ErrDenied) || len(fault.Hints(err)) == 0 {
		t.Errorf("unknown authority: %v, hints %q", err, fault.Hints(err))
	}
	connections.Store(0)
	o := testOptions()
	o.CAFile = caFile
	r := dialTest(t, base, o)
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fetchInto(t, r, list, nil)
	if connections.Load() != 1 || http1.Load() != 0 {
		t.Errorf("%d connections and %d requests not by HTTP/2, want one and none", connections.Load(), http1.Load())
	}
	o = testOptions()
	o.Insecure = true
	if _, err := dialTest(t, base, o).ListRefs(context.Background()); err != nil {
		t.Errorf("without checking: %v", err)
	}
	for _, content := range []string{"", "no certificate"} {
		o.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		if content != "" {
			if err := os.WriteFile(o.CAFile, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		u, _ := ParseURL(base)
		if _, err := Dial(context.Background(), u, o); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("CA file %q: %v", content, err)
		}
	}
}

func TestRedirectFromTLSToClearIsRefused(t *testing.T) {
	clear := newRecorder(t, http.NotFoundHandler())
	var connections atomic.Int64
	server, caFile := serveTLS(t, redirectTo(clear.URL), &connections)
	o := testOptions()
	o.CAFile, o.Password = caFile, testToken
	if _, err := dialTest(t, server.URL+"/x", o).ListRefs(context.Background()); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("%v", err)
	}
	if clear.seen() != "" {
		t.Errorf("the other server was asked with %q", clear.seen())
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	netrc := filepath.Join(dir, ".netrc")
	text := "machine other.example login no password no\nmacdef init\nmachine 127.0.0.1 login no password no\n\n" +
		"# a comment\nmachine 127.0.0.1\n\tlogin ana\n\tpassword pw-ana\nmachine 127.0.0.1 login bob password pw-bob\ndefault login anyone password pw-any\n"
	if err := os.WriteFile(netrc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		user string
		o    Options
		want string
	}{
		"none":               {"", Options{NetrcFile: os.DevNull}, ":"},
		"token":              {"", Options{Password: testToken}, "x-access-token:" + testToken},
		"token and user":     {"", Options{Username: "eve", Password: testToken}, "eve:" + testToken},
		"user in the URL":    {"eve@", Options{Password: testToken}, "eve:" + testToken},
		"netrc":              {"", Options{NetrcFile: netrc}, "ana:pw-ana"},
		"netrc for a user":   {"bob@", Options{NetrcFile: netrc}, "bob:pw-bob"},
		"netrc in home":      {"", Options{Env: []string{"HOME=" + dir}}, "ana:pw-ana"},
		"netrc by NETRC":     {"", Options{Env: []string{"HOME=/nowhere", "NETRC=" + netrc}}, "ana:pw-ana"},
		"netrc not there":    {"", Options{Env: []string{"HOME=/nowhere"}}, ":"},
		"netrc, other user":  {"zoe@", Options{NetrcFile: netrc}, ":"},
		"token before netrc": {"", Options{NetrcFile: netrc, Password: testToken}, "x-access-token:" + testToken},
	} {
		server := newRecorder(t, http.NotFoundHandler())
		r := dialTest(t, strings.Replace(server.URL, "http://", "http://"+c.user, 1)+"/x", c.o)
		if _, err := r.ListRefs(context.Background()); !errors.Is(err, fault.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if got := server.seen(); got != c.want {
			t.Errorf("%s: sent %q, want %q", name, got, c.want)
		}
	}
	u, _ := ParseURL("https://host/x")
	if _, err := Dial(context.Background(), u, Options{NetrcFile: filepath.Join(dir, "nowhere")}); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("netrc file that is not there: %v", err)
	}
	if login, password := findNetrc(strings.NewReader(text), "elsewhere.example", ""); login+":"+password.Reveal() != "anyone:pw-any" {
		t.Errorf("default entry gives %s:%s", login, password.Reveal())
	}
}

func FuzzNetrc(f *testing.F) {
	f.Add("machine host login ana password pw", "")
	f.Add("macdef x\nmachine host password no\n\ndefault login a password b", "a")
	f.Add("machine machine login login password password machine", "")
	f.Fuzz(func(t *testing.T, text, user string) {
		login, password := findNetrc(strings.NewReader(text), "host", user)
		if user != "" && password != "" && login != user {
			t.Errorf("%q gives the password of %q to %q", text, login, user)
		}
		if !strings.Contains(text, password.Reveal()) {
			t.Errorf("%q gives the password %q", text, password.Reveal())
		}
	})
}

func TestLongRequestIsCompressed(t *testing.T) {
	dir := sampleRepo(t)
	backend := httpBackend(filepath.Dir(dir))
	var compressed atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Encoding") == "gzip" {
			compressed.Add(1)
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()
	r := dialTest(t, server.URL+"/sample/.git", testOptions())
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	haves := make([]string, 5000)
	for i := range haves {
		haves[i] = fmt.Sprintf("%040x", i+1)
	}
	fetchInto(t, r, list, haves)
	if compressed.Load() != 1 {
		t.Errorf("%d compressed requests, want the one with many haves", compressed.Load())
	}
}

func TestSilentHTTPServer(t *testing.T) {
	for name, before := range map[string]string{"before the header": "", "in the list": pkts(testOID + " refs/heads/x")} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if before != "" {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				fmt.Fprint(w, before)
				flush(w)
			}
			<-r.Context().Done()
		}))
		o := testOptions()
		o.IdleTimeout = 100 * time.Millisecond
		began := time.Now()
		_, err := dialTest(t, server.URL+"/x", o).ListRefs(context.Background())
		if !errors.Is(err, fault.ErrUnavailable) || !strings.Contains(err.Error(), "100ms") || time.Since(began) > 10*time.Second {
			t.Errorf("%s: after %s: %v", name, time.Since(began), err)
		}
		server.CloseClientConnections()
		server.Close()
	}
}

func TestUnreachableServer(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(heldPort(t)))
	for _, scheme := range []string{"http", "https", "git"} {
		_, err := dialTest(t, scheme+"://"+address+"/x", testOptions()).ListRefs(context.Background())
		if !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestSlowReaderIsNotTheServersFault(t *testing.T) {
	dir := sampleRepo(t)
	o := testOptions()
	o.IdleTimeout = 2 * time.Second // in which the server answers, also on a busy machine
	r := dialTest(t, dir, o)
	list, err := r.ListRefs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(context.Background(), oidsOf(list), nil, &slowWriter{time: o.IdleTimeout + 500*time.Millisecond}); err != nil {
		t.Errorf("a slow writer: %v", err)
	}
	if !r.transport.ready() {
		t.Error("the time of a slow writer was counted, and the conversation was ended")
	}
}

// slowWriter takes its time with the first bytes.
type slowWriter struct {
	time    time.Duration
	written bool
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if !w.written {
		time.Sleep(w.time)
	}
	w.written = true
	return len(p), nil
}
