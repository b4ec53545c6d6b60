package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

const (
	// maxBody is the longest answer of an API that is read, in bytes.
	maxBody = 64 << 20
	// requestTimeout bounds one request and its answer.
	requestTimeout = 2 * time.Minute
	// maxRedirects is how many redirects of one request are followed.
	maxRedirects = 5
)

// ClientOptions says how an API is reached.
type ClientOptions struct {
	Base      string                                              // URL of the API, without slash at its end
	Header    map[string]string                                   // of every request: Accept, versions
	Authorize func(ctx context.Context, header http.Header) error // adds credentials to the empty header it gets; nil for none
	Secrets   []fault.Secret                                      // masked in errors; they tell one account's rate budget from another's
	UserAgent string                                              // "" for "backstay"
	Transport http.RoundTripper                                   // nil for the default one
	CAFile    string                                              // PEM file of certificate authorities trusted beside the system's
	FileHosts []string                                            // HOST or HOST:PORT, where the forge keeps files beside those it is known for

	Budget  *Budget                                          // shared by the clients of one host and account; nil for one of its own
	Cache   *Cache                                           // answers kept for conditional requests; nil for none
	MaxWait time.Duration                                    // the longest wait for a forge that allows no more requests; 0 for DefaultMaxWait
	Waiting func(until time.Time)                            // told before a wait of more than a few seconds; nil for nobody
	Clock   func() time.Time                                 // nil for the system's
	Sleep   func(ctx context.Context, d time.Duration) error // nil for a timer; it returns the error of ctx where that ends first
}

// DefaultMaxWait outlasts the hour by which GitHub counts its requests.
const DefaultMaxWait = 65 * time.Minute

func (o ClientOptions) withDefaults() ClientOptions {
	if o.UserAgent == "" {
		o.UserAgent = "backstay"
	}
	if o.Budget == nil {
		o.Budget = &Budget{}
	}
	if o.MaxWait <= 0 {
		o.MaxWait = DefaultMaxWait
	}
	if o.Waiting == nil {
		o.Waiting = func(time.Time) {}
	}
	if o.Clock == nil {
		o.Clock = time.Now //nolint:forbidigo // rate limits end by the real clock
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Client speaks to the API of one forge with one set of credentials: it keeps the rate budget of host and token, waits as the forge
// asks, tries again what may succeed, sends conditional requests, and makes errors of package fault of what the forge refuses.
// Safe for concurrent use.
type Client struct {
	o        ClientOptions
	base     *url.URL
	http     *http.Client
	account  *allowance
	requests atomic.Int64

	mu   sync.Mutex
	seen Seen
}

// Seen is what the newest answer said of the credentials. Fields that no answer told are zero.
type Seen struct {
	Remaining, Limit int // requests; Limit is 0 where the forge sets none
	Reset            time.Time
	Expires          time.Time // of the token
	Scopes           []string  // of the token; nil where the forge does not say
}

// NewClient makes a client.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(o.Base, "/"))
	if err != nil || !plainAddress(base) {
		return nil, errAddress()
	}
	o = o.withDefaults()
	transport, err := transportOf(o)
	if err != nil {
		return nil, err
	}
	return &Client{
		o: o, base: base, account: o.Budget.of(accountKey(base, o.Secrets)),
		http: &http.Client{
			Transport: transport, Timeout: requestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// accountKey names host and credentials without giving them away.
func accountKey(base *url.URL, secrets []fault.Secret) string {
	sum := sha256.New()
	for _, s := range secrets {
		fmt.Fprintf(sum, "%d:%s", len(s), s.Reveal())
	}
	return strings.ToLower(base.Host) + " " + hex.EncodeToString(sum.Sum(nil))
}

func transportOf(o ClientOptions) (http.RoundTripper, error) {
	if o.Transport != nil || o.CAFile == "" {
		return o.Transport, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fault.Wrap("read CA file", fault.ErrInvalid, err, "")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New("read CA file "+o.CAFile, fault.ErrInvalid, "it holds no certificate in PEM form", "")
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default HTTP transport is not the standard library's")
	}
	transport = transport.Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return transport, nil
}

// Requests counts the requests sent so far.
func (c *Client) Requests() int64 { return c.requests.Load() }

// Sleep waits for d, or until ctx ends, whose error it returns.
func (c *Client) Sleep(ctx context.Context, d time.Duration) error { return c.o.Sleep(ctx, d) }

// Seen returns what the newest answer said of the credentials.
func (c *Client) Seen() Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Response is what is worth knowing of an answer beside its body.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Cached bool // the forge said that the body is the one of an earlier answer (304)
}

// Date is the time of the answer by the server's own clock; zero where it does not tell.
func (r *Response) Date() time.Time {
	date, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date
}

// call is one request as it may have to be repeated.
type call struct {
	op         string
	method     string
	url        *url.URL
	payload    []byte
	into       any
	allow      []int
	resource   string                // whose rate limit counts: "" for the API's own, "graphql"
	idempotent bool                  // may be sent again where it is not known whether it was carried out
	check      func(*Response) error // looks at an answer before it counts as good; nil for none
}

// Do sends one request. path is relative to the base, or a full URL on the same host, as Link headers have it. A body is sent as
// JSON; the answer is decoded into an unless that is nil. An answer of 400 and more is an error, unless its status is in allow: then
// nothing is decoded.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body, into any, allow ...int) (*Response, error) {
	return c.send(ctx, call{method: method, into: into, allow: allow, idempotent: method != http.MethodPost && method != http.MethodPatch}, path, query, body)
}

// send fills in the address and the body of a call, and makes it.
func (c *Client) send(ctx context.Context, l call, path string, query url.Values, body any) (*Response, error) {
	target, err := c.target(path, query)
	if err != nil {
		return nil, err
	}
	l.url, l.op = target, l.method+" "+printable(target.Host+target.Path)
	if body != nil {
		if l.payload, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("%s: encode: %w", l.op, err)
		}
	}
	return c.persist(ctx, l)
}

// try sends the request once, and judges the answer.
func (c *Client) try(ctx context.Context, l call) (*Response, error) {
	credentials := http.Header{}
	if c.o.Authorize != nil {
		if err := c.o.Authorize(ctx, credentials); err != nil {
			return nil, err
		}
	}
	entry := c.cached(l, credentials)
	answer, err := c.follow(ctx, l, credentials, entry)
	if err != nil {
		return nil, err
	}
	body, err := readBody(answer)
	if err != nil {
		return nil, err
	}
	c.note(l.resource, answer.Header)
	r := &Response{Status: answer.StatusCode, Header: answer.Header, Body: body}
	switch {
	case r.Status == http.StatusNotModified && entry != nil:
		r = entry.revived(answer.Header)
	case slices.Contains(l.allow, r.Status):
		return r, nil
	case r.Status >= 300:
		return nil, c.refused(l, r, credentials)
	}
	if l.check != nil {
		if err := l.check(r); err != nil {
			return nil, err
		}
	}
	if err := decode(r, l.into); err != nil {
		return nil, err
	}
	if !r.Cached {
		c.keep(l, credentials, r)
	}
	return r, nil
}

// follow sends the request and follows redirects on its own host.
func (c *Client) follow(ctx context.Context, l call, credentials http.Header, entry *cacheEntry) (*http.Response, error) {
	at := l.url
	for range maxRedirects + 1 {
		req, err := c.request(ctx, l, at, credentials, entry)
		if err != nil {
			return nil, err
		}
		c.requests.Add(1)
		answer, err := c.http.Do(req)
		if err != nil {
			return nil, c.unreachable(ctx, err, credentials)
		}
		next, err := c.redirect(answer, l.method)
		if next == nil && err == nil {
			return answer, nil
		}
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return nil, fault.New("", fault.ErrRefused, "the server redirects in circles", "")
}

func (c *Client) request(ctx context.Context, l call, at *url.URL, credentials http.Header, entry *cacheEntry) (*http.Request, error) {
	var body io.Reader
	if l.payload != nil {
		body = bytes.NewReader(l.payload)
	}
	req, err := http.NewRequestWithContext(ctx, l.method, at.String(), body)
	if err != nil {
		return nil, fault.New("", fault.ErrInvalid, "it is no request that can be sent", "")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.o.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.o.Header {
		req.Header.Set(name, value)
	}
	maps.Copy(req.Header, credentials)
	entry.condition(req.Header)
	return req, nil
}

// redirect gives where an answer leads to; nil where it is one. Credentials never go to another host: what leads there is refused.
func (c *Client) redirect(answer *http.Response, method string) (*url.URL, error) {
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if method != http.MethodGet && method != http.MethodHead {
			return nil, fault.New("", fault.ErrUnsupported, "the server redirects a "+method+" request", "check the URL of the forge")
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	to, err := answer.Location()
	if err != nil {
		return nil, fault.New("", fault.ErrUnavailable, "the server redirects to nowhere", "")
	}
	if !sameOrigin(to, c.base) {
		elsewhere := printable(to.Scheme + "://" + to.Host)
		return nil, fault.New("", fault.ErrRefused, "the server redirects to "+elsewhere+", where the credentials do not go",
			"if that is the forge, give its URL so")
	}
	return to, nil
}

// readBody reads an answer to its end, and closes it.
func readBody(answer *http.Response) ([]byte, error) {
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, &passing{fault.New("", fault.ErrUnavailable, "the answer broke off", hintNetwork)}
	case len(body) > maxBody:
		return nil, fault.New("", fault.ErrRefused, fmt.Sprintf("the answer is longer than %d MiB", maxBody>>20), "")
	}
	return body, nil
}

// decode reads an answer's JSON.
func decode(r *Response, into any) error {
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(r.Body, into); err != nil {
		return &passing{fault.Wrap("", fault.ErrUnavailable, errors.New("the answer is not the JSON that was expected"),
			"check that the URL is that of the forge's API")}
	}
	return nil
}

// target makes a URL of what Do was given.
func (c *Client) target(path string, query url.Values) (*url.URL, error) {
	u, err := url.Parse(path)
	if err != nil {
		return nil, fault.New("", fault.ErrInvalid, "it is no path of an API", "")
	}
	if u.Host == "" {
		raw := u.RawQuery
		u = c.base.JoinPath(u.EscapedPath())
		u.RawQuery = raw
	} else if !sameOrigin(u, c.base) {
		return nil, fault.New("", fault.ErrRefused, "the server leads to "+printable(u.Scheme+"://"+u.Host)+", where the credentials do not go", "")
	}
	if len(query) > 0 {
		all := u.Query()
		maps.Copy(all, query)
		u.RawQuery = all.Encode()
	}
	return u, nil
}

// sameOrigin reports whether a and b have scheme, host and port in common.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b) && a.User == nil
}

func portOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Port()
	}
	return standardPort(u)
}

func standardPort(u *url.URL) string {
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}
