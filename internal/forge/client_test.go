package forge

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// script is a server that answers one request after the other as it is told; the last answer repeats.
type script struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []http.HandlerFunc
	requests []*http.Request
}

func serve(t *testing.T, answers ...http.HandlerFunc) *script {
	t.Helper()
	s := &script{answers: answers}
	s.Server = httptest.NewServer(s.handler())
	t.Cleanup(s.Close)
	return s
}

func (s *script) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		answer := s.answers[min(len(s.requests), len(s.answers))-1]
		s.mu.Unlock()
		answer(w, r)
	})
}

func (s *script) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// say answers with a status, a body and headers "Name: value".
func say(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ":")
			w.Header().Set(name, strings.TrimSpace(value))
		}
		w.WriteHeader(status)
		w.Write([]byte(body)) //nolint:errcheck // a test's own server
	}
}

// stand is a clock that moves by sleeping only.
type stand struct {
	mu     sync.Mutex
	now    time.Time
	sleeps []time.Duration
}

func newStand() *stand { return &stand{now: time.Now().Truncate(time.Second)} }

func (s *stand) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *stand) sleep(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.sleeps = s.now.Add(d), append(s.sleeps, d)
	return ctx.Err()
}

const secret = fault.Secret("sesame-0042")

func clientOf(t *testing.T, base string, s *stand, change ...func(*ClientOptions)) *Client {
	t.Helper()
	o := ClientOptions{
		Base: base, Secrets: []fault.Secret{secret}, Clock: s.clock, Sleep: s.sleep,
		Authorize: func(_ context.Context, h http.Header) error {
			h.Set("Authorization", "token "+secret.Reveal())
			return nil
		},
	}
	for _, f := range change {
		f(&o)
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c *Client, path string) error {
	t.Helper()
	var into any
	_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil, &into)
	return err
}

func TestRetries(t *testing.T) {
	tests := []struct {
		name    string
		method  string
		answers []http.HandlerFunc
		asked   int
		want    error
	}{
		{"500 of a GET", http.MethodGet, []http.HandlerFunc{say(500, ""), say(502, ""), say(200, "{}")}, 3, nil},
		{"500 for ever", http.MethodGet, []http.HandlerFunc{say(500, "")}, tries, fault.ErrUnavailable},
		{"500 of a POST", http.MethodPost, []http.HandlerFunc{say(500, ""), say(200, "{}")}, 1, fault.ErrUnavailable},
		{"503 of a POST that is to come back", http.MethodPost, []http.HandlerFunc{say(503, "", "Retry-After: 1"), say(200, "{}")}, 1, fault.ErrUnavailable},
		{"429 of a POST", http.MethodPost, []http.HandlerFunc{say(429, ""), say(200, "{}")}, 2, nil},
		{"429 for ever", http.MethodGet, []http.HandlerFunc{say(429, "", "Retry-After: 1")}, throttledTries, fault.ErrThrottled},
		{"no JSON", http.MethodGet, []http.HandlerFunc{say(200, "<html>"), say(200, "{}")}, 2, nil},
		{"shorter than it says", http.MethodGet, []http.HandlerFunc{say(200, "[]", "Content-Length: 100"), say(200, "{}")}, 2, nil},
		{"longer than it says", http.MethodGet, []http.HandlerFunc{say(200, "[1]", "Content-Length: 2"), say(200, "{}")}, 2, nil},
		{"shorter than it says for ever", http.MethodGet, []http.HandlerFunc{say(200, "[]", "Content-Length: 100")}, tries, fault.ErrUnavailable},
		{"404", http.MethodGet, []http.HandlerFunc{say(404, `{"message":"Not Found"}`)}, 1, fault.ErrNotFound},
		{"409", http.MethodPost, []http.HandlerFunc{say(409, "{}")}, 1, fault.ErrExists},
		{"422", http.MethodGet, []http.HandlerFunc{say(422, "{}")}, 1, fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.answers...)
			var into any
			c := clientOf(t, s.URL, newStand())
			_, err := c.Do(t.Context(), test.method, "/x", nil, map[string]int{"a": 1}, &into)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if s.asked() != test.asked || c.Requests() != int64(test.asked) {
				t.Errorf("asked %d times, counted %d, want %d", s.asked(), c.Requests(), test.asked)
			}
		})
	}
}

// An answer of a few kilobytes may unpack to any length.
func TestAnAnswerThatUnpacksWithoutEnd(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	blank := bytes.Repeat([]byte{' '}, 1<<20)
	for range maxBody>>20 + 1 {
		if _, err := z.Write(blank); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s := serve(t, say(200, bomb.String(), "Content-Encoding: gzip"))
	if err := get(t, clientOf(t, s.URL, newStand()), "/x"); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("%d bytes came out as %v", bomb.Len(), err)
	}
	if s.asked() != 1 {
		t.Errorf("it was asked for %d times", s.asked())
	}
}

func TestSecondaryLimitsBackOffTwiceAsLongEachTime(t *testing.T) {
	limit := say(403, `{"message":"You have exceeded a secondary rate limit"}`)
	s, clock := serve(t, limit, limit, limit, say(200, "{}"), limit, say(200, "{}")), newStand()
	told := 0
	c := clientOf(t, s.URL, clock, func(o *ClientOptions) {
		o.Waiting = func(until time.Time) {
			if told++; until.Sub(clock.clock()) < time.Minute {
				t.Errorf("told of a wait until %s", until)
			}
		}
	})
	for range 2 {
		if err := get(t, c, "/x"); err != nil {
			t.Fatal(err)
		}
	}
	if told != 4 {
		t.Errorf("told of %d waits", told)
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, time.Minute}
	if !slices.Equal(clock.sleeps, want) {
		t.Errorf("slept %v, want %v", clock.sleeps, want)
	}
}

func TestBudgetIsSharedByClientsOfOneAccount(t *testing.T) {
	clock := newStand()
	reset := fmt.Sprint(clock.now.Add(10 * time.Minute).Unix())
	s := serve(t, say(200, "{}", "X-RateLimit-Limit: 5000", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: "+reset,
		"Date: "+clock.now.UTC().Format(http.TimeFormat)), say(200, "{}"))
	budget := &Budget{}
	shared := func(o *ClientOptions) { o.Budget = budget }
	if err := get(t, clientOf(t, s.URL, clock, shared), "/x"); err != nil {
		t.Fatal(err)
	}
	other := func(o *ClientOptions) { o.Budget, o.Secrets = budget, []fault.Secret{"another-token"} }
	if err := get(t, clientOf(t, s.URL, clock, other), "/x"); err != nil || len(clock.sleeps) > 0 {
		t.Errorf("another account slept %v: %v", clock.sleeps, err)
	}
	c := clientOf(t, s.URL, clock, shared)
	if err := get(t, c, "/x"); err != nil {
		t.Fatal(err)
	}
	if len(clock.sleeps) != 1 || clock.sleeps[0] < 10*time.Minute || clock.sleeps[0] > 11*time.Minute {
		t.Errorf("slept %v before the limit's end", clock.sleeps)
	}
}

func TestWaitTooLongIsThrottled(t *testing.T) {
	s, clock := serve(t, say(429, "", "Retry-After: 1000")), newStand()
	until := clock.now.Add(1000 * time.Second).UTC().Format(time.DateTime)
	c := clientOf(t, s.URL, clock, func(o *ClientOptions) { o.MaxWait = time.Minute })
	for range 2 {
		err := get(t, c, "/x")
		if !errors.Is(err, fault.ErrThrottled) || !strings.Contains(strings.Join(fault.Hints(err), " "), until) {
			t.Errorf("got %v with %q, want %s", err, fault.Hints(err), until)
		}
	}
	if len(clock.sleeps) > 0 || s.asked() != 1 {
		t.Errorf("slept %v, asked %d times", clock.sleeps, s.asked())
	}
}

// One answer with nonsense in it must not keep a process that runs on from asking that forge for years.
func TestNonsenseIsForgottenAfterADay(t *testing.T) {
	for name, nonsense := range map[string]http.HandlerFunc{
		"retry after": say(429, "", "Retry-After: 999999999"),
		"reset":       say(200, "{}", "X-RateLimit-Remaining: 0", "X-RateLimit-Limit: 1", "X-RateLimit-Reset: 9999999999"),
	} {
		s, clock := serve(t, nonsense, say(200, "{}")), newStand()
		c := clientOf(t, s.URL, clock)
		first := get(t, c, "/x")
		if err := get(t, c, "/x"); !errors.Is(err, fault.ErrThrottled) || s.asked() != 1 {
			t.Errorf("%s: %v, then %v after %d requests", name, first, err, s.asked())
		}
		clock.now = clock.now.Add(25 * time.Hour)
		if err := get(t, c, "/x"); err != nil {
			t.Errorf("%s, a day later: %v", name, err)
		}
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	s, clock := serve(t, say(429, "", "Retry-After: 100")), newStand()
	ctx, cancel := context.WithCancel(t.Context())
	c := clientOf(t, s.URL, clock, func(o *ClientOptions) {
		o.Sleep = func(ctx context.Context, _ time.Duration) error {
			cancel()
			return ctx.Err()
		}
	})
	if _, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLimitsOfHeaders(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ahead := now.Add(time.Hour) // the server's clock
	tests := []struct {
		name   string
		header []string
		want   quota
		ok     bool
	}{
		{"none", nil, quota{}, false},
		{"GitHub", []string{"X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "4999", "X-RateLimit-Reset", fmt.Sprint(now.Unix())}, quota{4999, 5000, now.Add(time.Second)}, true},
		{"server whose clock is ahead", []string{
			"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", fmt.Sprint(ahead.Add(time.Minute).Unix()), "Date", ahead.Format(http.TimeFormat),
		}, quota{0, 0, now.Add(time.Minute + time.Second)}, true},
		{"GitLab", []string{"RateLimit-Limit", "60", "RateLimit-Remaining", "1", "RateLimit-Reset", fmt.Sprint(now.Unix())}, quota{1, 60, now.Add(time.Second)}, true},
		{"IETF, in seconds", []string{"RateLimit-Limit", "60", "RateLimit-Remaining", "1", "RateLimit-Reset", "30"}, quota{1, 60, now.Add(30 * time.Second)}, true},
		{"nonsense", []string{"X-RateLimit-Remaining", "many"}, quota{}, false},
		{"absurd", []string{"X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "99999999999999999"}, quota{}, false},
		{"before the beginning", []string{"X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "-1"}, quota{}, false},
	}
	for _, test := range tests {
		h := http.Header{}
		for i := 0; i < len(test.header); i += 2 {
			h.Set(test.header[i], test.header[i+1])
		}
		got, ok := quotaOf(h, now)
		if ok != test.ok || got.remaining != test.want.remaining || got.limit != test.want.limit || !got.reset.Equal(test.want.reset) {
			t.Errorf("%s: got %+v %v, want %+v", test.name, got, ok, test.want)
		}
	}
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, now.Add(time.Minute).Format(http.TimeFormat): 61 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", value, got, want)
		}
	}
}

func TestSeen(t *testing.T) {
	s := serve(t, say(200, "{}", "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 59", "X-RateLimit-Reset: 30", "X-OAuth-Scopes: repo, read:org",
		"GitHub-Authentication-Token-Expiration: 2026-04-01 10:00:00 +0200"), say(200, "{}", "X-RateLimit-Resource: search", "X-RateLimit-Remaining: 3",
		"X-RateLimit-Reset: 30"))
	c := clientOf(t, s.URL, newStand())
	for range 2 {
		if err := get(t, c, "/x"); err != nil {
			t.Fatal(err)
		}
	}
	seen := c.Seen()
	if seen.Limit != 60 || seen.Remaining != 59 || !slices.Equal(seen.Scopes, []string{"repo", "read:org"}) ||
		!seen.Expires.Equal(time.Date(2026, 4, 1, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", seen)
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	tests := []struct {
		answer http.HandlerFunc
		kind   error
		says   string // in the error or its hints
	}{
		{say(401, `{"message":"Bad credentials"}`), fault.ErrDenied, "the token is not accepted or has expired: the forge answers 401 Unauthorized: Bad credentials"},
		{say(403, `{"message":"no"}`, "X-OAuth-Scopes: gist", "X-Accepted-OAuth-Scopes: repo, admin:org"), fault.ErrDenied, "scope repo or admin:org"},
		{say(403, `{"message":"no"}`, "X-Accepted-GitHub-Permissions: contents=read"), fault.ErrDenied, "permission contents=read"},
		{say(403, `{"error":"insufficient_scope","error_description":"higher privileges"}`), fault.ErrDenied, "insufficient_scope: higher privileges"},
		{say(451, `{"message":"Repository access blocked"}`), fault.ErrDenied, "blocked for legal reasons"},
		{say(422, `{"errors":[{"message":"name is taken"}]}`), fault.ErrInvalid, "name is taken"},
		{say(400, `{"message":{"base":["no more projects"]}}`), fault.ErrInvalid, "base no more projects"},
		{say(404, `{"type":"error","error":{"message":"No such workspace"}}`), fault.ErrNotFound, "No such workspace"},
		{say(400, "a\x1b[2Jb", "Content-Type: text/plain"), fault.ErrInvalid, `a\x1b[2Jb`},
		{say(400, `{"message":"`+strings.Repeat("x", 9999)+`"}`), fault.ErrInvalid, "xxx…"},
		{say(400, `{"message":"you sent `+secret.Reveal()+`"}`), fault.ErrInvalid, "you sent [secret]"},
		{say(200, strings.Repeat("[", 20000)), fault.ErrUnavailable, "not the JSON"},
	}
	for _, test := range tests {
		s := serve(t, test.answer)
		err := get(t, clientOf(t, s.URL, newStand()), "/x")
		if !errors.Is(err, test.kind) {
			t.Errorf("%v: not %v", err, test.kind)
			continue
		}
		text := err.Error() + " " + strings.Join(fault.Hints(err), " ")
		if !strings.Contains(text, test.says) || strings.Contains(text, secret.Reveal()) || strings.ContainsRune(text, '\x1b') || len(text) > 1200 {
			t.Errorf("got %q, want %q", text, test.says)
		}
	}
}

func TestBasicCredentialsAreMasked(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("me:rotated-pass"))
	s := serve(t, say(400, `{"message":"`+encoded+` is me:rotated-pass, rotated-pass"}`))
	c := clientOf(t, s.URL, newStand(), func(o *ClientOptions) {
		o.Authorize = func(_ context.Context, h http.Header) error {
			h.Set("Authorization", "Basic "+encoded)
			return nil
		}
	})
	if err := get(t, c, "/x"); err == nil || strings.Contains(err.Error(), "rotated-pass") || strings.Contains(err.Error(), encoded) {
		t.Errorf("got %v", err)
	}
}

func TestRedirectsStayOnTheHost(t *testing.T) {
	elsewhere := serve(t, say(200, "{}"))
	to := func(status int, target string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, status) }
	}
	tests := []struct {
		name   string
		method string
		answer http.HandlerFunc
		want   error
	}{
		{"renamed", http.MethodGet, to(301, "/new"), nil},
		{"found", http.MethodGet, to(302, "/new"), nil},
		{"for a time", http.MethodGet, to(307, "/new"), nil},
		{"for good", http.MethodPost, to(308, "/new"), nil},
		{"a POST that would become a GET", http.MethodPost, to(301, "/new"), fault.ErrUnsupported},
		{"another host", http.MethodGet, to(302, elsewhere.URL+"/x"), fault.ErrRefused},
		{"a password for us", http.MethodGet, to(302, "http://a:b@127.0.0.1/"), fault.ErrRefused},
		{"nowhere", http.MethodGet, say(302, ""), fault.ErrUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.answer, say(200, "{}"))
			_, err := clientOf(t, s.URL, newStand()).Do(t.Context(), test.method, "/x", nil, nil, nil)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if err == nil && (s.requests[1].URL.Path != "/new" || s.requests[1].Method != test.method || s.requests[1].Header.Get("Authorization") == "") {
				t.Errorf("asked %s %s", s.requests[1].Method, s.requests[1].URL)
			}
		})
	}
	circle := serve(t, to(302, "/x"))
	if err := get(t, clientOf(t, circle.URL, newStand()), "/x"); !errors.Is(err, fault.ErrRefused) || circle.asked() != maxRedirects+1 {
		t.Errorf("in circles %d times: %v", circle.asked(), err)
	}
	if elsewhere.asked() > 0 {
		t.Error("another host was asked")
	}
	if err := get(t, clientOf(t, circle.URL, newStand()), elsewhere.URL+"/x"); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a full URL of another host: %v", err)
	}
}

func TestOwnAuthority(t *testing.T) {
	s := &script{answers: []http.HandlerFunc{say(200, "{}")}}
	s.Server = httptest.NewTLSServer(s.handler())
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := get(t, clientOf(t, s.URL, newStand(), func(o *ClientOptions) { o.CAFile = file }), "/x"); err != nil {
		t.Error(err)
	}
	if err := get(t, clientOf(t, s.URL, newStand()), "/x"); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("an unknown authority: %v", err)
	}
	for _, bad := range []string{file + "-not", os.DevNull} {
		if _, err := NewClient(ClientOptions{Base: s.URL, CAFile: bad}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "git.example.com", "ftp://git.example.com", "https://user:pass@git.example.com", "https://"} {
		if _, err := NewClient(ClientOptions{Base: bad}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// pagesOf collects a listing of numbers.
func pagesOf(t *testing.T, c *Client, at string) (items []string, _ error) {
	t.Helper()
	for p, err := range c.Pages(t.Context(), "/list", url.Values{"per_page": {"2"}}, at) {
		if err != nil {
			return items, err
		}
		for _, item := range p.Items {
			items = append(items, string(item))
		}
	}
	return items, nil
}

func TestPages(t *testing.T) {
	link := func(to string) string { return `Link: </list?page=0>; rel="prev", <` + to + `>; rel="next"` }
	tests := []struct {
		name    string
		at      string
		answers []http.HandlerFunc
		want    string
		err     error
	}{
		{"three", "", []http.HandlerFunc{say(200, "[1,2]", link("/list?page=2")), say(200, "[3,4]", link("/list?page=3")), say(200, "[5]")}, "1,2,3,4,5", nil},
		{"under a key", "items", []http.HandlerFunc{say(200, `{"items":[1]}`)}, "1", nil},
		{"null for none", "", []http.HandlerFunc{say(200, "null")}, "", nil},
		{"no such key", "items", []http.HandlerFunc{say(200, `{"values":[1]}`)}, "", fault.ErrUnavailable},
		{"no array", "", []http.HandlerFunc{say(200, `{}`)}, "", fault.ErrUnavailable},
		{"more than any page has", "", []http.HandlerFunc{say(200, "[1"+strings.Repeat(",1", maxItems)+"]")}, "", fault.ErrUnavailable},
		{"an empty page between", "", []http.HandlerFunc{say(200, "[]", link("/list?page=2")), say(200, "[]", link("/list?page=3")), say(200, "[5]")}, "5", nil},
		{"to itself", "", []http.HandlerFunc{say(200, "[1]", link("/list?page=2")), say(200, "[2]", link("/list?page=2"))}, "1,2", fault.ErrUnavailable},
		{"the same again", "", []http.HandlerFunc{say(200, "[1]", link("/list?page=2")), say(200, "[1]", link("/list?page=3"))}, "1", fault.ErrUnavailable},
		{"to another host", "", []http.HandlerFunc{say(200, "[1]", link("http://other.example/list"))}, "1", fault.ErrRefused},
		{"all", "", []http.HandlerFunc{say(200, "[1]", "X-Total-Count: 2", link("/list?page=2")), say(200, "[2]", "X-Total-Count: 2")}, "1,2", nil},
		{"fewer than there are", "", []http.HandlerFunc{say(200, "[1]", "X-Total: 3", link("/list?page=2")), say(200, "[2]", "X-Total: 2")}, "1", fault.ErrIncomplete},
		{"more than there were", "", []http.HandlerFunc{say(200, "[1,2]", "X-Total: 1")}, "1,2", nil},
		{"422 on a deep page", "", []http.HandlerFunc{say(200, "[1]", link("/list?page=2")), say(422, `{"message":"too deep"}`)}, "1", fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.answers...)
			got, err := pagesOf(t, clientOf(t, s.URL, newStand()), test.at)
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) || strings.Join(got, ",") != test.want {
				t.Errorf("got %v, %v; want %s, %v", got, err, test.want, test.err)
			}
			if s.requests[0].URL.RawQuery != "per_page=2" {
				t.Errorf("the first page was asked for with %q", s.requests[0].URL.RawQuery)
			}
		})
	}
}

func TestListingsOfOtherForms(t *testing.T) {
	s := serve(t, say(200, `{"values":[1,2],"next":"/list?page=2","size":3}`), say(200, `{"values":[3],"size":3}`))
	l := Listing{
		Path: "/list", At: "values", Total: func(Page) int { return 4 },
		Next: func(p Page) (string, error) {
			var body struct{ Next string }
			err := json.Unmarshal(p.Response.Body, &body)
			return body.Next, err
		},
	}
	n := 0
	var failed error
	for p, err := range clientOf(t, s.URL, newStand()).List(t.Context(), l) {
		n, failed = n+len(p.Items), err
	}
	if n != 2 || !errors.Is(failed, fault.ErrIncomplete) {
		t.Errorf("got %d items and %v", n, failed)
	}
}

func FuzzLink(f *testing.F) {
	for _, seed := range []string{
		`<https://api.example/x?page=2>; rel="next", <https://api.example/x?page=9>; rel="last"`,
		`<a>;rel=next`, `<a>; title="x, <b>; rel=\"next\""; rel="prev", <c>; rel="start next"`, `<`, `<a`, `,,,`, `<a>;rel="`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if target := linkTo(header, "next"); target != "" && !strings.Contains(header, target) {
			t.Errorf("%q is not in %q", target, header)
		}
	})
}

func TestLinks(t *testing.T) {
	for header, want := range map[string]string{
		`<a>;rel=next`: "a", `<a>; REL="Next"`: "a", `<a>; rel="prev", <b>; rel="last next"`: "b",
		`<a>; title="x, <b>; rel=next"; rel="prev", <c>; rel="next"`: "c", `<a>; rel="nextish"`: "", `<a`: "", "": "",
	} {
		if got := linkTo(header, "next"); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "answers")
	cache, err := NewCache(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	confirm := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("X-RateLimit-Remaining", "7")
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Link", `</x?page=2>; rel="next"`)
		w.Write([]byte(`{"token":"` + r.Header.Get("Authorization") + `"}`)) //nolint:errcheck // a test's own server
	}
	s := serve(t, confirm)
	with := func(token fault.Secret) func(o *ClientOptions) {
		return func(o *ClientOptions) {
			o.Cache = cache
			o.Authorize = func(_ context.Context, h http.Header) error {
				h.Set("Authorization", token.Reveal())
				return nil
			}
		}
	}
	read := func(token fault.Secret) *Response {
		t.Helper()
		r, err := clientOf(t, s.URL, newStand(), with(token)).Do(t.Context(), http.MethodGet, "/x", nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Body) != `{"token":"`+token.Reveal()+`"}` || r.Header.Get("Link") == "" || r.Header.Get("X-RateLimit-Remaining") != "7" || r.Status != 200 {
			t.Errorf("got %d %s with %v", r.Status, r.Body, r.Header)
		}
		return r
	}
	if read("one").Cached || !read("one").Cached {
		t.Error("the second answer is not the kept one")
	}
	if read("two").Cached {
		t.Error("one token's answer was given to another")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v: %v", info.Mode(), err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)-2] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if read("one").Cached {
		t.Error("a damaged answer was used")
	}
}

func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	cache, err := NewCache(dir, 40<<10)
	if err != nil {
		t.Fatal(err)
	}
	s, clock := serve(t, say(200, `"`+strings.Repeat("x", 4<<10)+`"`, `ETag: "a"`)), newStand()
	c := clientOf(t, s.URL, clock, func(o *ClientOptions) { o.Cache = cache })
	for i := range 40 {
		if err := get(t, c, fmt.Sprintf("/x?page=%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			size += info.Size()
		}
	}
	if size > 40<<10 || len(files) < 4 {
		t.Errorf("%d bytes in %d files", size, len(files))
	}
}

func FuzzCacheEntry(f *testing.F) {
	sum := sha256.Sum256([]byte("{}"))
	f.Add([]byte(`{"header":{"Etag":["a"]},"sha256":"` + hex.EncodeToString(sum[:]) + "\"}\n{}"))
	f.Add([]byte("{}\n"))
	f.Add([]byte("null\nnull"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if e := parseEntry(content); e != nil && (e.Sum != sumOf(e.body) || !strings.HasSuffix(string(content), string(e.body))) {
			t.Errorf("an entry with a body that is not the file's: %q", content)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, seed := range []string{`{"message":"x"}`, `{"error":{"message":["a","b"]}}`, `{"errors":[{"field":{"x":{"y":"z"}}}]}`, "{", `{"message":1e9999}`} {
		f.Add(seed)
	}
	c := &Client{}
	f.Fuzz(func(t *testing.T, body string) {
		text := c.clean(messageOf(&Response{Header: http.Header{}, Body: []byte(body)}), nil)
		if len([]rune(text)) > saidLength+1 || strings.ContainsAny(text, "\n\x1b\x00") {
			t.Errorf("%q", text)
		}
	})
}

func TestGraphQL(t *testing.T) {
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		asked   int
		want    error
		data    string
	}{
		{"data", []http.HandlerFunc{say(200, `{"data":{"a":"b"}}`)}, 1, nil, "b"},
		{"a burst", []http.HandlerFunc{say(502, ""), say(200, `{"data":{"a":"b"}}`)}, 2, nil, "b"},
		{"limited", []http.HandlerFunc{say(200, `{"errors":[{"type":"RATE_LIMITED","message":"slow"}]}`, "Retry-After: 3"), say(200, `{"data":{"a":"b"}}`)}, 2, nil, "b"},
		{"not found, with other data", []http.HandlerFunc{say(200, `{"data":{"a":"b"},"errors":[{"type":"NOT_FOUND","message":"no such"}]}`)}, 1, fault.ErrNotFound, "b"},
		{"forbidden", []http.HandlerFunc{say(200, `{"errors":[{"type":"INSUFFICIENT_SCOPES","message":"no"}]}`)}, 1, fault.ErrDenied, ""},
		{"a code", []http.HandlerFunc{say(200, `{"errors":[{"message":"no","extensions":{"code":"ERR_NOT_FOUND"}}]}`)}, 1, fault.ErrNotFound, ""},
		{"wrong query", []http.HandlerFunc{say(200, `{"errors":[{"message":"no field x"}]}`)}, 1, fault.ErrInvalid, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.answers...)
			var data struct{ A string }
			_, err := clientOf(t, s.URL, newStand()).GraphQL(t.Context(), "/graphql", "{a}", map[string]any{"x": 1}, &data)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || data.A != test.data || s.asked() != test.asked {
				t.Errorf("got %q, %v after %d requests", data.A, err, s.asked())
			}
		})
	}
}

func TestMarkOf(t *testing.T) {
	listed := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "", 59 * time.Second: "", -time.Hour: "", time.Minute: "2026-03-01T11:59:00Z",
	} {
		if got := MarkOf(listed.Add(-ago), listed); got != want {
			t.Errorf("pushed %s before: %q, want %q", ago, got, want)
		}
	}
	if MarkOf(time.Time{}, listed) != "" || MarkOf(listed.Add(-time.Hour), time.Time{}) != "" {
		t.Error("an unknown time makes a mark")
	}
}
