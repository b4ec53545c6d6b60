package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// ClientOptions says how services are reached.
type ClientOptions struct {
	UserAgent string
	Transport http.RoundTripper // nil for one of its own
	Timeout   time.Duration     // of one try; 0 for ten seconds
	Backoff   time.Duration     // before the second try, twice that before the third; 0 for two seconds
}

// Client sends requests that carry no more than a yes or no back: with timeouts, tried again where that may help, and without
// showing an address or a credential to anyone but the host that it is for. Safe for concurrent use.
type Client struct {
	o    ClientOptions
	http *http.Client
}

const (
	defaultTimeout = 10 * time.Second
	defaultBackoff = 2 * time.Second
	tries          = 3
	maxBackoff     = 20 * time.Second // whatever Retry-After says
	maxAnswer      = 4 << 10          // bytes read of an answer
	maxHeader      = 64 << 10         // bytes read of an answer's header
	maxRedirects   = 3
)

// NewClient makes a client.
func NewClient(o ClientOptions) *Client {
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Backoff = cmp.Or(o.Backoff, defaultBackoff)
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeader,
			TLSHandshakeTimeout: o.Timeout, IdleConnTimeout: time.Minute,
		}
	}
	return &Client{o: o, http: &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect}}
}

// request is one thing to send.
type request struct {
	method  string
	address fault.Secret
	header  map[string]string
	login   *url.Userinfo
	body    []byte
	secrets []fault.Secret // in header, login and body
	quote   bool           // errors quote what the server answered
}

// checkRedirect follows within a host, by the same method, and never back to http. Everything that was sent stays with the host it
// is for; and a POST that became a GET would look delivered and be lost.
func checkRedirect(next *http.Request, sent []*http.Request) error {
	next.Header.Del("Referer") // it holds the address
	last := sent[len(sent)-1]
	same := next.URL.Scheme == last.URL.Scheme && next.URL.Host == last.URL.Host
	upgraded := next.URL.Scheme == "https" && last.URL.Scheme == "http" && next.URL.Hostname() == last.URL.Hostname()
	switch {
	case len(sent) > maxRedirects:
		return errors.New("too many redirects")
	case !same && !upgraded:
		return errors.New("it redirects to another host: use the address that it points to")
	case next.Method != last.Method:
		return errors.New("it redirects: use the address that it points to")
	}
	return nil
}

// post sends a document as JSON.
func (c *Client) post(ctx context.Context, op string, r request, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", op, err)
	}
	r.method, r.body, r.quote = http.MethodPost, body, true
	r.header = withHeader(r.header, "Content-Type", "application/json")
	return c.send(ctx, op, r)
}

func withHeader(header map[string]string, name, value string) map[string]string {
	all := map[string]string{name: value}
	for k, v := range header {
		all[k] = v
	}
	return all
}

// send sends r, up to three times where it may succeed later.
func (c *Client) send(ctx context.Context, op string, r request) error {
	u, err := url.Parse(r.address.Reveal())
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fault.New(op, fault.ErrInvalid, "its address is no http or https URL", "")
	}
	op += " to " + clean(u.Host)
	r.secrets = append(r.secrets, secretsOf(u)...)
	backoff := c.o.Backoff
	for try := 1; ; try++ {
		after, err := c.try(ctx, op, u, r)
		if err == nil || try == tries || !fault.Of(err).Retry {
			return err
		}
		pause := time.NewTimer(min(max(after, backoff), maxBackoff))
		backoff *= 2
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

// secretsOf lists what of an address could be a secret, as an answer or an error may repeat it.
func secretsOf(u *url.URL) []fault.Secret {
	const token = 12 // a segment so long is no word
	all := []fault.Secret{fault.Secret(u.String()), fault.Secret(u.RequestURI())}
	if password, set := u.User.Password(); set {
		all = append(all, fault.Secret(password))
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if len(segment) >= token {
			all = append(all, fault.Secret(segment))
		}
	}
	for _, values := range u.Query() {
		for _, value := range values {
			all = append(all, fault.Secret(value))
		}
	}
	return all
}

// try sends r once, and says how long to wait at least before the next time.
func (c *Client) try(ctx context.Context, op string, u *url.URL, r request) (after time.Duration, err error) {
	attempt, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(attempt, r.method, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return 0, fault.New(op, fault.ErrInvalid, "its address is no http or https URL", "")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	if c.o.UserAgent != "" {
		req.Header.Set("User-Agent", c.o.UserAgent)
	}
	if password, set := r.login.Password(); set {
		req.SetBasicAuth(r.login.Username(), password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, unreached(ctx, op, err, r.secrets)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status says whether it was taken
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return 0, nil
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		after = time.Duration(min(max(seconds, 0), int(maxBackoff/time.Second))) * time.Second
	}
	if !r.quote {
		answer = nil
	}
	return after, refused(op, resp.StatusCode, string(answer), r.secrets)
}

// unreached is the error of a request without an answer. It repeats no address: net/http's own errors do.
func unreached(ctx context.Context, op string, err error, secrets []fault.Secret) error {
	kind := fault.ErrUnavailable
	if ctx.Err() != nil {
		kind = ctx.Err()
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in time")
	}
	return fault.New(op, kind, masked(err.Error(), secrets), "")
}

// refused is the error of an answer that is no success.
func refused(op string, status int, answer string, secrets []fault.Secret) error {
	kind, hint := fault.ErrInvalid, ""
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		kind, hint = fault.ErrDenied, "check the token, or the user name and password, of this service"
	case status == http.StatusNotFound || status == http.StatusGone:
		kind, hint = fault.ErrNotFound, "check the address of this service"
	case status == http.StatusTooManyRequests:
		kind = fault.ErrThrottled
	case status >= http.StatusInternalServerError:
		kind = fault.ErrUnavailable
	}
	cause := fmt.Sprintf("it answered %d %s", status, http.StatusText(status))
	if answer = strings.TrimSpace(answer); answer != "" {
		cause += ": " + answer
	}
	return fault.New(op, kind, masked(cause, secrets), hint)
}

// masked is text for an error: short, printable and without secrets.
func masked(text string, secrets []fault.Secret) string {
	return cut(clean(fault.Redact(text, secrets...)), maxItem)
}
