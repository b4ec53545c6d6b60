package git

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestParsePointer(t *testing.T) {
	oid := strings.Repeat("ab", 32)
	good := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12345\n"
	for name, text := range map[string]string{
		"plain":        good,
		"CRLF":         strings.ReplaceAll(good, "\n", "\r\n"),
		"no newline":   strings.TrimSpace(good),
		"old name":     strings.Replace(good, "git-lfs.github.com", "hawser.github.com", 1),
		"with filters": strings.Replace(good, "oid", "ext-0-foo sha256:"+oid+"\noid", 1),
	} {
		if p, ok := ParsePointer([]byte(text)); !ok || p != (Pointer{oid, 12345}) {
			t.Errorf("%s: %+v, %v", name, p, ok)
		}
	}
	for name, text := range map[string]string{
		"empty":         "",
		"prose":         "version of a text that begins alike\n",
		"other version": strings.Replace(good, "v1", "v9", 1),
		"no size":       good[:strings.Index(good, "size")],
		"no oid":        strings.Replace(good, "oid sha256:"+oid+"\n", "", 1),
		"sha1":          strings.Replace(good, "sha256:", "sha1:", 1),
		"short oid":     strings.Replace(good, "abab", "", 1),
		"upper case":    strings.Replace(good, "abab", "ABAB", 1),
		"a path":        strings.Replace(good, oid, "../../../../"+oid[12:], 1),
		"negative size": strings.Replace(good, "12345", "-1", 1),
		"two sizes":     good + "size 7\n",
		"huge size":     strings.Replace(good, "12345", "99999999999999999999", 1),
		"other line":    good + "what is this\n",
		"too long":      good + "ext-0-x " + strings.Repeat("x", pointerMax),
	} {
		if p, ok := ParsePointer([]byte(text)); ok {
			t.Errorf("%s is taken for %+v", name, p)
		}
	}
}

func FuzzParsePointer(f *testing.F) {
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n"))
	f.Add([]byte("version https://hawser.github.com/spec/v1\r\next-0-x y\r\nsize 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := ParsePointer(b); ok && p.check() != nil {
			t.Errorf("%q gives %+v", b, p)
		}
	})
}

func pointerOf(content string) Pointer {
	sum := sha256.Sum256([]byte(content))
	return Pointer{hex.EncodeToString(sum[:]), int64(len(content))}
}

// lfsHost is a small working LFS server: batch API and storage. Its fields bend what it does.
type lfsHost struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	objects  map[string]string // content by oid
	errors   map[string]int    // code by oid, in the answer to a batch
	href     string            // base of hrefs, "" for the server itself
	expired  int               // how many answers to batches give links that have expired
	denied   int               // how many requests for objects are refused
	breaks   int               // how many bodies break off in the middle
	stalls   int               // how many bodies stop in the middle
	noRange  bool
	batches  []int // number of objects of each
	verified []string
	headers  []string // Authorization of requests for objects
	batchErr int      // status of answers to batches
}

func newLFSHost(t testing.TB, contents ...string) *lfsHost {
	t.Helper()
	h := &lfsHost{t: t, objects: map[string]string{}, errors: map[string]int{}}
	for _, c := range contents {
		h.objects[pointerOf(c).OID] = c
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /acme/x.git/info/lfs/objects/batch", h.batch)
	mux.HandleFunc("GET /objects/{oid}", h.get)
	mux.HandleFunc("PUT /objects/{oid}", h.put)
	mux.HandleFunc("POST /verify", h.verify)
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

func (h *lfsHost) source() string { return h.URL + "/acme/x" }

func (h *lfsHost) batch(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batchErr != 0 {
		w.WriteHeader(h.batchErr)
		return
	}
	var request struct {
		Operation string
		Objects   []Pointer
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	if errors.Is(err, io.ErrUnexpectedEOF) { // another download failed, and this request was called off
		return
	}
	if err != nil || r.Header.Get("Accept") != lfsMediaType || r.Header.Get("Content-Type") != lfsMediaType {
		h.t.Errorf("batch request of %q: %v", r.Header.Get("Content-Type"), err)
	}
	h.batches = append(h.batches, len(request.Objects))
	base := h.href
	if base == "" {
		base = "http://" + r.Host
	}
	var objects []map[string]any
	for _, p := range request.Objects {
		o := map[string]any{"oid": p.OID, "size": p.Size}
		action := func(path string) map[string]any {
			a := map[string]any{"href": base + path, "header": map[string]string{"Authorization": "RemoteAuth " + p.OID[:4]}}
			if h.expired > 0 {
				a["expires_in"] = 1
			} else {
				a["expires_at"] = time.Now().Add(time.Hour).Format(time.RFC3339)
			}
			return a
		}
		_, have := h.objects[p.OID]
		switch code := h.errors[p.OID]; {
		case code != 0:
			o["error"] = map[string]any{"code": code, "message": "no \x1b such object"}
		case request.Operation == "download" && !have:
			o["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
		case request.Operation == "download":
			o["actions"] = map[string]any{"download": action("/objects/" + p.OID)}
		case !have:
			o["actions"] = map[string]any{"upload": action("/objects/" + p.OID), "verify": action("/verify")}
		}
		objects = append(objects, o)
	}
	if h.expired > 0 {
		h.expired--
	}
	answer, err := json.Marshal(map[string]any{"transfer": "basic", "objects": objects})
	if err != nil {
		h.t.Error(err)
	}
	fmt.Fprint(w, string(answer))
}

func (h *lfsHost) get(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.headers = append(h.headers, r.Header.Get("Authorization"))
	if h.denied > 0 {
		h.denied--
		w.WriteHeader(http.StatusForbidden)
		return
	}
	content, ok := h.objects[r.PathValue("oid")]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	var at int
	if rng := r.Header.Get("Range"); rng != "" && !h.noRange {
		if _, err := fmt.Sscanf(rng, "bytes=%d-", &at); err != nil {
			h.t.Errorf("range %q", rng)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(content)-1, len(content)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)-at))
	if at > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	if h.stalls > 0 {
		h.stalls--
		fmt.Fprint(w, content[at:at+(len(content)-at)/2])
		flush(w)
		<-r.Context().Done()
		return
	}
	if h.breaks > 0 {
		h.breaks--
		fmt.Fprint(w, content[at:at+(len(content)-at)/2])
		flush(w)
		panic(http.ErrAbortHandler)
	}
	fmt.Fprint(w, content[at:])
}

func (h *lfsHost) put(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil || r.ContentLength != int64(len(content)) || pointerOf(string(content)).OID != r.PathValue("oid") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.headers = append(h.headers, r.Header.Get("Authorization"))
	h.objects[r.PathValue("oid")] = string(content)
}

func (h *lfsHost) verify(w http.ResponseWriter, r *http.Request) {
	var p Pointer
	h.mu.Lock()
	defer h.mu.Unlock()
	if json.NewDecoder(r.Body).Decode(&p) != nil || int64(len(h.objects[p.OID])) != p.Size {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h.verified = append(h.verified, p.OID)
}

// downloadAll downloads and returns what came, by oid.
func downloadAll(r *Remote, ps []Pointer) (map[string]string, []LFSMissing, error) {
	var mu sync.Mutex
	got := map[string]string{}
	missing, err := r.LFSDownload(context.Background(), ps, func(_ context.Context, p Pointer, body io.Reader) error {
		content, err := io.ReadAll(body)
		if err != nil {
			return fmt.Errorf("store %s: %w", p.OID, err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[p.OID] = string(content)
		return nil
	})
	return got, missing, err
}

func contentsFor(t testing.TB, n int) (contents []string, ps []Pointer, byOID map[string]string) {
	t.Helper()
	byOID = map[string]string{}
	for i := range n {
		c := strings.Repeat(fmt.Sprintf("content %d ", i), 1+i*7)
		contents = append(contents, c)
		ps = append(ps, pointerOf(c))
		byOID[pointerOf(c).OID] = c
	}
	return contents, ps, byOID
}

func TestLFSDownload(t *testing.T) {
	contents, ps, want := contentsFor(t, 230)
	h := newLFSHost(t, contents...)
	o := testOptions()
	o.Password = testToken
	r := dialTest(t, h.source(), o)
	got, missing, err := downloadAll(r, ps)
	if err != nil || len(missing) > 0 || !maps.Equal(got, want) {
		t.Fatalf("%d of %d objects, %d missing: %v", len(got), len(want), len(missing), err)
	}
	if !slices.Equal(h.batches, []int{100, 100, 30}) {
		t.Errorf("batches of %v", h.batches)
	}
	if n := r.Requests(); n != 233 {
		t.Errorf("%d requests", n)
	}
	for _, header := range h.headers {
		if !strings.HasPrefix(header, "RemoteAuth ") {
			t.Errorf("an object was asked for with %q", header)
		}
	}
}

func TestLFSMissingAtSource(t *testing.T) {
	contents, ps, _ := contentsFor(t, 6)
	h := newLFSHost(t, contents...)
	h.errors[ps[0].OID], h.errors[ps[1].OID], h.errors[ps[2].OID] = 404, 410, 422
	delete(h.objects, ps[3].OID)
	got, missing, err := downloadAll(dialTest(t, h.source(), testOptions()), ps)
	if err != nil || len(got) != 2 || len(missing) != 4 {
		t.Fatalf("%d objects, missing %v: %v", len(got), missing, err)
	}
	for _, m := range missing {
		if !slices.Contains(ps[:4], m.Pointer) || m.Reason == "" || strings.ContainsAny(m.Reason, "\x1b\n") {
			t.Errorf("missing %+v", m)
		}
	}
}

func TestLFSObjectGoneBehindItsLink(t *testing.T) {
	contents, ps, _ := contentsFor(t, 2)
	h := newLFSHost(t, contents...)
	empty := newLFSHost(t)
	h.href = empty.URL
	got, missing, err := downloadAll(dialTest(t, h.source(), testOptions()), ps)
	if err != nil || len(got) != 0 || len(missing) != 2 {
		t.Errorf("%d objects, missing %v: %v", len(got), missing, err)
	}
}

func TestLFSResumes(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	for _, noRange := range []bool{false, true} {
		h := newLFSHost(t, content)
		h.breaks, h.noRange = 2, noRange
		r := dialTest(t, h.source(), testOptions())
		got, _, err := downloadAll(r, []Pointer{pointerOf(content)})
		if err != nil || got[pointerOf(content).OID] != content {
			t.Errorf("after two breaks, noRange %v: %v", noRange, err)
		}
		if !noRange && r.BytesReceived() > int64(len(content)+10_000) {
			t.Errorf("%d bytes received for %d", r.BytesReceived(), len(content))
		}
		h.breaks = 9
		if _, _, err := downloadAll(r, []Pointer{pointerOf(content)}); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("when it never comes whole: %v", err)
		}
	}
}

func TestLFSServerThatStalls(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	h := newLFSHost(t, content)
	o := testOptions()
	o.IdleTimeout = 2 * time.Second // in which the rest comes, also on a busy machine
	h.stalls = 1
	got, _, err := downloadAll(dialTest(t, h.source(), o), []Pointer{pointerOf(content)})
	if err != nil || got[pointerOf(content).OID] != content {
		t.Errorf("after a stall: %v", err)
	}
	h.mu.Lock() // one that was given up may be at it still
	h.stalls = 9
	h.mu.Unlock()
	o.IdleTimeout = 100 * time.Millisecond
	if _, _, err := downloadAll(dialTest(t, h.source(), o), []Pointer{pointerOf(content)}); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("when it always stalls: %v", err)
	}
}

func TestLFSCanceled(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	h := newLFSHost(t, content)
	h.stalls = 1
	ctx, cancel := context.WithCancel(t.Context())
	_, err := dialTest(t, h.source(), testOptions()).LFSDownload(ctx, []Pointer{pointerOf(content)}, func(_ context.Context, _ Pointer, body io.Reader) error {
		cancel()
		_, err := io.Copy(io.Discard, body)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func FuzzLFSAction(f *testing.F) {
	f.Add([]byte(`{"href":"https://host/x?sig=1","header":{"Authorization":"Bearer x"},"expires_in":600}`))
	f.Add([]byte(`{"href":"file:///etc/passwd","header":{"X":"a\r\nb"},"expires_at":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"href":"http://u:p@h","header":{"transfer-encoding":"chunked","":"x","a b":"c"},"expires_in":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a lfsAction
		if json.Unmarshal(b, &a) != nil {
			return
		}
		a.expires(time.Now())
		c, err := a.call(http.MethodGet, false)
		if err != nil {
			return
		}
		if c.url.User != nil || c.url.Host == "" || (c.url.Scheme != "http" && c.url.Scheme != "https") {
			t.Errorf("%q gives %s", b, c.url)
		}
		if err := c.own.Write(io.Discard); err != nil || c.own.Get("Content-Length")+c.own.Get("Host") != "" {
			t.Errorf("%q gives headers %v: %v", b, c.own, err)
		}
	})
}

func TestLFSLinksAreRenewed(t *testing.T) {
	contents, ps, want := contentsFor(t, 3)
	for name, bend := range map[string]func(h *lfsHost){
		"expired": func(h *lfsHost) { h.expired = 1 },
		"denied":  func(h *lfsHost) { h.denied = 1 },
	} {
		h := newLFSHost(t, contents...)
		bend(h)
		got, missing, err := downloadAll(dialTest(t, h.source(), testOptions()), ps)
		if err != nil || len(missing) > 0 || !maps.Equal(got, want) || len(h.batches) < 2 {
			t.Errorf("%s: %d objects after %d batches: %v", name, len(got), len(h.batches), err)
		}
	}
	h := newLFSHost(t, contents...)
	h.denied = 1000
	if _, _, err := downloadAll(dialTest(t, h.source(), testOptions()), ps); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("denied for good: %v", err)
	}
}

func TestLFSWrongBytes(t *testing.T) {
	for name, content := range map[string]string{"other": "Good content", "shorter": "good", "longer": "good content and more", "empty": ""} {
		h := newLFSHost(t, "good content", "another one")
		p := pointerOf("good content")
		h.objects[p.OID] = content
		got, missing, err := downloadAll(dialTest(t, h.source(), testOptions()), []Pointer{p, pointerOf("another one")})
		if !errors.Is(err, fault.ErrCorrupt) || len(missing) > 0 || !strings.Contains(err.Error(), p.OID) {
			t.Errorf("%s: missing %v, error %v", name, missing, err)
		}
		if len(got) != 1 {
			t.Errorf("%s: the good object did not come: %v", name, got)
		}
	}
}

func TestLFSConsumer(t *testing.T) {
	h := newLFSHost(t, "content")
	r := dialTest(t, h.source(), testOptions())
	full := errors.New("vault is full")
	_, err := r.LFSDownload(context.Background(), []Pointer{pointerOf("content")}, func(context.Context, Pointer, io.Reader) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("the consumer's error came back as %v", err)
	}
	_, err = r.LFSDownload(context.Background(), []Pointer{pointerOf("content")}, func(context.Context, Pointer, io.Reader) error { return nil })
	if err == nil {
		t.Error("an object that nobody read counts as good")
	}
}

func TestLFSHostileLinks(t *testing.T) {
	_, ps, _ := contentsFor(t, 1)
	for href, want := range map[string]error{
		"http://169.254.169.254/latest": fault.ErrRefused, "http://[fd00:ec2::254]/": fault.ErrRefused,
		"file:///etc": fault.ErrCorrupt, "//nowhere": fault.ErrCorrupt, "http://user:pw@127.0.0.1/": fault.ErrCorrupt,
		"http://127.0.0.1:0x/": fault.ErrCorrupt,
	} {
		h := newLFSHost(t)
		h.objects[ps[0].OID], h.href = "x", href
		if _, _, err := downloadAll(dialTest(t, h.source(), testOptions()), ps); !errors.Is(err, want) {
			t.Errorf("%s: %v is not %v", href, err, want)
		}
	}
}

func TestLFSOtherHostGetsOnlyItsOwnHeaders(t *testing.T) {
	h := newLFSHost(t, "content")
	other := newRecorder(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "RemoteAuth "+pointerOf("content").OID[:4] {
			t.Errorf("Authorization %q", got)
		}
		fmt.Fprint(w, "content")
	}))
	h.href = other.URL
	o := testOptions()
	o.Password = testToken
	if _, _, err := downloadAll(dialTest(t, h.source(), o), []Pointer{pointerOf("content")}); err != nil {
		t.Error(err)
	}
	third := newRecorder(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("after the redirect: Authorization %q", got)
		}
		fmt.Fprint(w, "content")
	}))
	h.href = newRecorder(t, redirectTo(third.URL)).URL
	if _, _, err := downloadAll(dialTest(t, h.source(), o), []Pointer{pointerOf("content")}); err != nil {
		t.Error(err)
	}
}

func TestServersWithoutLFS(t *testing.T) {
	_, ps, _ := contentsFor(t, 1)
	if _, _, err := downloadAll(dialTest(t, "git://127.0.0.1/x", testOptions()), ps); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("git daemon: %v", err)
	}
	for status, want := range map[int]error{
		404: fault.ErrUnsupported, 405: fault.ErrUnsupported, 501: fault.ErrUnsupported, 401: fault.ErrDenied, 403: fault.ErrDenied,
		429: fault.ErrThrottled, 503: fault.ErrUnavailable,
	} {
		h := newLFSHost(t)
		h.batchErr = status
		_, _, err := downloadAll(dialTest(t, h.source(), testOptions()), ps)
		if !errors.Is(err, want) {
			t.Errorf("%d: %v is not %v", status, err, want)
		}
		if errors.Is(want, fault.ErrUnsupported) && !strings.Contains(err.Error(), "no LFS") {
			t.Errorf("%d: %v does not say that there is no LFS", status, err)
		}
	}
}

func TestLFSAnswersThatAreNone(t *testing.T) {
	_, ps, _ := contentsFor(t, 1)
	for name, c := range map[string]struct {
		answer string
		want   error
	}{
		"no JSON":          {"<html>", fault.ErrCorrupt},
		"nothing":          {`{}`, fault.ErrCorrupt},
		"other object":     {`{"objects":[{"oid":"` + strings.Repeat("cd", 32) + `"}]}`, fault.ErrCorrupt},
		"other transfer":   {`{"transfer":"tus","objects":[]}`, fault.ErrUnsupported},
		"header injection": {`{"objects":[{"oid":"` + ps[0].OID + `","actions":{"download":{"href":"http://127.0.0.1:1/","header":{"X":"a\r\nY: b"}}}}]}`, fault.ErrCorrupt},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.answer) }))
		_, _, err := downloadAll(dialTest(t, server.URL+"/x", testOptions()), ps)
		server.Close()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v is not %v", name, err, c.want)
		}
	}
}

func TestLFSUpload(t *testing.T) {
	contents, ps, want := contentsFor(t, 120)
	h := newLFSHost(t, contents[0])
	o := testOptions()
	o.Password = testToken
	r := dialTest(t, h.source(), o)
	var mu sync.Mutex
	opened := map[string]int{}
	open := func(p Pointer) (io.ReadCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		opened[p.OID]++
		return io.NopCloser(strings.NewReader(want[p.OID])), nil
	}
	if err := r.LFSUpload(context.Background(), ps, open); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(h.objects, want) || len(h.verified) != len(ps)-1 || len(opened) != len(ps)-1 {
		t.Errorf("%d objects there, %d verified, %d opened", len(h.objects), len(h.verified), len(opened))
	}
	wrong := func(Pointer) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("1234567")), nil }
	if err := r.LFSUpload(context.Background(), []Pointer{pointerOf("7654321")}, wrong); err == nil {
		t.Error("an object with wrong bytes was uploaded without error")
	}
	h.errors[ps[0].OID] = 403
	if err := r.LFSUpload(context.Background(), ps[:1], open); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("an object that the server refuses: %v", err)
	}
}

func TestLFSOfLocalRepository(t *testing.T) {
	dir := sampleRepo(t)
	root := filepath.Dir(dir)
	stockGit(t, dir, "worktree", "add", "-q", "-b", "side", filepath.Join(root, "linked"))
	r := dialTest(t, dir, testOptions())
	contents, ps, want := contentsFor(t, 5)
	open := func(p Pointer) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(want[p.OID])), nil }
	if err := r.LFSUpload(context.Background(), ps, open); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, ".git", "lfs", "objects", ps[0].OID[:2], ps[0].OID[2:4], ps[0].OID)
	if b, err := os.ReadFile(first); err != nil || string(b) != contents[0] {
		t.Fatalf("%q where git-lfs would look: %v", b, err)
	}
	got, missing, err := downloadAll(dialTest(t, filepath.Join(root, "linked"), testOptions()), append(ps, pointerOf("nowhere")))
	if err != nil || !maps.Equal(got, want) || len(missing) != 1 {
		t.Errorf("%d objects, missing %v: %v", len(got), missing, err)
	}
	short := func(Pointer) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
	if err := r.LFSUpload(context.Background(), []Pointer{pointerOf("longer")}, short); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("wrong bytes: %v", err)
	}

	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(secret, []byte(contents[0]), 0o600), os.Remove(first), os.Symlink(secret, first)); err != nil {
		t.Fatal(err)
	}
	second := filepath.Dir(filepath.Join(dir, ".git", "lfs", "objects", ps[1].OID[:2], ps[1].OID[2:4], ps[1].OID))
	if err := errors.Join(os.Rename(second, second+"-away"), os.Symlink(second+"-away", second)); err != nil {
		t.Fatal(err)
	}
	_, missing, err = downloadAll(r, ps)
	if err != nil || len(missing) != 2 || !strings.Contains(missing[0].Reason, "symbolic link") {
		t.Errorf("behind symbolic links: missing %v: %v", missing, err)
	}
}

func TestLFSOverSSH(t *testing.T) {
	contents, ps, want := contentsFor(t, 3)
	h := newLFSHost(t, contents...)
	script := filepath.Join(t.TempDir(), "ssh")
	answer := fmt.Sprintf(`{"href":"%s/acme/x.git/info/lfs","header":{"Authorization":"Bearer xyz"},"expires_in":600}`, h.URL)
	text := "#!/bin/sh\nfor last; do :; done\ncase $last in\n\"git-lfs-authenticate 'acme/x' download\") echo '" + answer + "' ;;\n*) echo \"$last?\" >&2; exit 127 ;;\nesac\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	got, missing, err := downloadAll(dialTest(t, "git@127.0.0.1:acme/x", withSSH(testOptions(), script)), ps)
	if err != nil || len(missing) > 0 || !maps.Equal(got, want) {
		t.Errorf("%d objects, missing %v: %v", len(got), missing, err)
	}
	if _, _, err := downloadAll(dialTest(t, "git@192.0.2.1:acme/x", withSSH(testOptions(), script)), ps); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a server elsewhere that sends us to this machine: %v", err)
	}
	if _, _, err := downloadAll(dialTest(t, "git@127.0.0.1:acme/none", withSSH(testOptions(), script)), ps); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("a server without LFS: %v", err)
	}
}

func TestLFSRefusesWhatIsNoPointer(t *testing.T) {
	r := dialTest(t, sampleRepo(t), testOptions())
	for _, p := range []Pointer{{OID: "../../x", Size: 1}, {OID: strings.Repeat("ab", 32), Size: -1}, {}} {
		if _, err := r.LFSDownload(context.Background(), []Pointer{p}, nil); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
		if err := r.LFSUpload(context.Background(), []Pointer{p}, nil); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestCheckedReaderChecksAtTheEnd(t *testing.T) {
	p := pointerOf("content")
	var out bytes.Buffer
	if _, err := io.Copy(&out, newCheckedReader(strings.NewReader("content"), p)); err != nil || out.String() != "content" {
		t.Errorf("%q: %v", out.String(), err)
	}
	if _, err := io.Copy(io.Discard, newCheckedReader(strings.NewReader("contenT"), p)); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("other bytes: %v", err)
	}
}
