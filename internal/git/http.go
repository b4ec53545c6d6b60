package git

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// maxRedirects is how many redirects of one request are followed.
const maxRedirects = 5

// web is an HTTP client for one source: its credentials go to the source's own origin only, redirects are followed by its rules.
type web struct {
	client   *http.Client
	origin   *url.URL // scheme and host that the credentials are for
	user     string
	password fault.Secret
	agent    string
	idle     time.Duration
	traffic  *traffic
}

// newWeb prepares a client for a source at u.
func newWeb(ctx context.Context, u *URL, o Options, guard *addressGuard, t *traffic) (*web, error) {
	origin, err := url.Parse(u.String())
	if err != nil {
		return nil, fault.New("", fault.ErrInvalid, "it is not a well-formed URL", "")
	}
	user, password, err := credentials(ctx, u, o)
	if err != nil {
		return nil, err
	}
	client, err := newHTTPClient(o, guard)
	if err != nil {
		return nil, err
	}
	return &web{client: client, origin: origin, user: user, password: password, agent: o.UserAgent, idle: o.IdleTimeout, traffic: t}, nil
}

// credentials chooses them: the options' before the netrc file's. Beside a lone token servers take nearly any user name; x-access-token is
// GitHub's own, and good for GitLab, Gitea, Forgejo and Azure DevOps; Bitbucket wants another.
func credentials(ctx context.Context, u *URL, o Options) (user string, password fault.Secret, err error) {
	user, password = o.Username, o.Password
	if o.Credentials != nil {
		if user, password, err = o.Credentials(ctx); err != nil {
			return "", "", err
		}
	}
	if user == "" {
		user = u.User
	}
	switch {
	case password == "":
		login, found, err := netrcCredentials(o, u.Host, user)
		if err != nil || found == "" {
			return "", "", err
		}
		return login, found, nil
	case user != "":
	case u.Host == "bitbucket.org":
		user = "x-token-auth"
	default:
		user = "x-access-token"
	}
	return user, password, nil
}

// newHTTPClient makes a client that follows no redirects by itself.
func newHTTPClient(o Options, guard *addressGuard) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.Insecure} //nolint:gosec // the user's own choice
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fault.Wrap("read CA file", fault.ErrInvalid, err, "")
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New("read CA file "+o.CAFile, fault.ErrInvalid, "it holds no certificate in PEM form", "")
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 proxyOf(guard),
			DialContext:           guard.dial,
			TLSClientConfig:       config,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   connectTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   lfsParallel,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// proxyOf takes the proxy from the environment, and tells the guard that the user named its address.
func proxyOf(guard *addressGuard) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		proxy, err := http.ProxyFromEnvironment(req)
		if err == nil && proxy != nil {
			guard.allowProxy(proxy)
		}
		return proxy, err
	}
}

// call is one HTTP request, as it may have to be repeated for a redirect.
type call struct {
	method string
	url    *url.URL
	header http.Header
	own    http.Header                   // more headers, which only the origin of url may see
	body   []byte                        // nil for none
	stream func() (io.ReadCloser, error) // a body too large for memory, in place of body
	size   int64                         // of stream, in bytes
	signed bool                          // the URL itself is the credential: none is added
}

// do sends a request and follows its redirects, up to five, never from https to http. It adds the source's credentials on the source's own
// origin only.
// The answer has a status below 300, its URL is in Request.URL, and its body must be closed.
func (w *web) do(ctx context.Context, watch *watch, c call) (*http.Response, error) {
	at := c.url
	for range maxRedirects + 1 {
		resp, err := w.send(ctx, watch, c, at)
		if err != nil {
			return nil, err
		}
		next, err := redirectTarget(resp, c.method)
		if err != nil {
			discard(resp)
			return nil, err
		}
		if next == nil {
			return w.accept(resp)
		}
		discard(resp)
		at = next
	}
	return nil, fault.New("", fault.ErrRefused, "the server redirects in circles", "")
}

// exchange is do under a watch of its own, which lasts until the answer's body is closed. Errors, also of the body, have their class.
func (w *web) exchange(ctx context.Context, c call) (*http.Response, error) {
	watched, watch := newWatch(ctx, w.idle)
	resp, err := w.do(watched, watch, c)
	if err != nil {
		defer watch.stop()
		return nil, watch.explain(watched, err)
	}
	body := *resp
	resp.Body = &readCloser{
		Reader: readFunc(func(p []byte) (int, error) {
			n, err := body.Body.Read(p)
			if err != nil && !errors.Is(err, io.EOF) {
				err = watch.explain(watched, err)
			}
			return n, err
		}),
		Closer: closeFunc(func() error {
			defer watch.stop()
			discard(&body)
			return nil
		}),
	}
	return resp, nil
}

// send makes one request to at.
func (w *web) send(ctx context.Context, watch *watch, c call, at *url.URL) (*http.Response, error) {
	if err := refuseLiteral(at.Hostname()); err != nil {
		return nil, err
	}
	body, size, err := c.open(watch)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, c.method, at.String(), body)
	if err != nil {
		return nil, fault.New("", fault.ErrCorrupt, "the server gives a URL that is none", "")
	}
	if size >= 0 {
		req.ContentLength = size
	}
	if c.body != nil { // lets the client repeat it where the server had just closed a connection kept open
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(watch.question(bytes.NewReader(c.body))), nil }
	}
	maps.Copy(req.Header, c.header)
	if sameOrigin(at, c.url) {
		maps.Copy(req.Header, c.own)
	}
	if w.password != "" && !c.signed && sameOrigin(at, w.origin) && req.Header.Get("Authorization") == "" {
		req.SetBasicAuth(w.user, w.password.Reveal())
	}
	req.Header.Set("User-Agent", w.agent)
	w.traffic.requests.Add(1)
	watch.wait()
	resp, err := w.client.Do(req)
	watch.rest()
	if err != nil {
		return nil, redacted(err)
	}
	resp.Body = &readCloser{Reader: watch.answer(w.traffic.counted(resp.Body)), Closer: resp.Body}
	return resp, nil
}

// open gives the body to send, and its size; -1 for none.
func (c call) open(w *watch) (io.Reader, int64, error) {
	switch {
	case c.stream != nil && c.size == 0:
		return http.NoBody, 0, nil
	case c.stream != nil:
		body, err := c.stream()
		if err != nil {
			return nil, 0, err
		}
		return &readCloser{Reader: w.question(body), Closer: body}, c.size, nil
	case c.body != nil:
		return w.question(bytes.NewReader(c.body)), int64(len(c.body)), nil
	}
	return nil, -1, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// redacted is an error of the HTTP client without the query of the URL, which may be a signature.
func redacted(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return fmt.Errorf("%s %s: %w", strings.ToUpper(wrapped.Op), withoutQuery(wrapped.URL), wrapped.Err)
	}
	return err
}

// withoutQuery drops what of a URL may be secret.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the server"
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// redirectTarget gives where resp redirects to; nil where it does not.
func redirectTarget(resp *http.Response, method string) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if method != http.MethodGet {
			return nil, fault.New("", fault.ErrUnsupported, "the server redirects a "+method+" request", "use the URL it redirects to")
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	to, err := resp.Location()
	switch {
	case err != nil:
		return nil, fault.New("", fault.ErrCorrupt, "the server redirects to nowhere", "")
	case to.Scheme != "https" && to.Scheme != "http":
		return nil, fault.New("", fault.ErrRefused, fmt.Sprintf("the server redirects to scheme %.20q", to.Scheme), "")
	case to.Host == "":
		return nil, fault.New("", fault.ErrCorrupt, "the server redirects to nowhere", "")
	case resp.Request.URL.Scheme == "https" && to.Scheme == "http":
		return nil, fault.New("", fault.ErrRefused, "the server redirects from https to http", "")
	case to.User != nil:
		return nil, fault.New("", fault.ErrRefused, "the server redirects to a URL with a user name in it", "")
	}
	return to, nil
}

// sameOrigin reports whether a and b have scheme, host and port in common.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return defaultPort[u.Scheme]
}

// accept turns a status that means failure into an error.
func (w *web) accept(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	said := w.sayingOf(resp)
	discard(resp)
	e := &statusError{code: resp.StatusCode, said: said, retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"))}
	hint, kind := e.class()
	if kind == fault.ErrDenied && !sameOrigin(resp.Request.URL, w.origin) { //nolint:errorlint // a class, not an error that happened
		hint = "the server redirects to " + resp.Request.URL.Scheme + "://" + resp.Request.URL.Host + ", where its credentials are not sent: use that URL"
	}
	return nil, fault.Wrap("", kind, e, hint)
}

// sayingKept bounds what is kept of a server's own words, in bytes.
const sayingKept = 400

// sayingOf reads what the server says in plain text.
func (w *web) sayingOf(resp *http.Response) string {
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16*sayingKept)) // cut later, lest half a secret is not known as one
	if err != nil {
		return ""
	}
	said := fault.Redact(string(text), w.password, basicAuth(w.user, w.password))
	return printable(strings.ToValidUTF8(said[:min(len(said), sayingKept)], ""))
}

// basicAuth is what a header says of a user and a password.
func basicAuth(user string, password fault.Secret) fault.Secret {
	return fault.Secret(base64.StdEncoding.EncodeToString([]byte(user + ":" + password.Reveal())))
}

// discard reads the little that is left of a body, so that the connection can be used again.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 16<<10) //nolint:errcheck // where it fails, the connection is not used again
	resp.Body.Close()
}

// statusError is an answer whose status means failure.
type statusError struct {
	code       int
	said       string
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	text := "the server answers " + strings.TrimSpace(strconv.Itoa(e.code)+" "+http.StatusText(e.code))
	if e.retryAfter > 0 {
		text += ", and to come back in " + e.retryAfter.String()
	}
	if e.said != "" {
		text += ": " + e.said
	}
	return text
}

func (e *statusError) class() (hint string, kind error) {
	switch {
	case e.code == http.StatusUnauthorized:
		return "give a token or password that may read this repository", fault.ErrDenied
	case e.code == http.StatusForbidden && e.retryAfter > 0:
		return "", fault.ErrThrottled
	case e.code == http.StatusForbidden:
		return "check what the token may do: it needs to read this repository", fault.ErrDenied
	case e.code == http.StatusProxyAuthRequired:
		return "give the proxy's user and password in HTTPS_PROXY", fault.ErrDenied
	case e.code == http.StatusNotFound, e.code == http.StatusGone:
		return "check the URL; it is not there, or the token cannot see it", fault.ErrNotFound
	case e.code == http.StatusTooManyRequests:
		return "", fault.ErrThrottled
	case e.code == http.StatusNotImplemented, e.code < 500:
		return "", fault.ErrUnsupported
	}
	return "", fault.ErrUnavailable
}

// parseRetryAfter reads seconds; a date is as good as none, for our clock may differ.
func parseRetryAfter(value string) time.Duration {
	seconds, err := strconv.Atoi(value)
	if err != nil || seconds < 0 || seconds > 1<<20 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
