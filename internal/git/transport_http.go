package git

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// httpTransport speaks git's smart HTTP protocol. Its conversation is in single requests; a greeting only fixes where they go.
type httpTransport struct {
	web     *web
	base    *url.URL // of the repository, after the redirects of the greeting
	version string   // of the protocol, asked for
	greeted bool
}

func newHTTPTransport(web *web, version string) *httpTransport {
	return &httpTransport{web: web, base: web.origin, version: version}
}

const (
	uploadPack   = "git-upload-pack"
	infoRefs     = "/info/refs"
	infoRefsArgs = "service=" + uploadPack
	gzipAbove    = 1024 // bytes of a request
)

func (t *httpTransport) ready() bool { return t.greeted }

func (t *httpTransport) hangUp() { t.greeted = false }

func (t *httpTransport) greet(ctx context.Context, w *watch) (io.ReadCloser, error) {
	at := t.web.origin.JoinPath(infoRefs)
	at.RawQuery = infoRefsArgs
	resp, err := t.web.do(ctx, w, call{method: http.MethodGet, url: at, header: http.Header{
		"Git-Protocol": {"version=" + t.version}, "Cache-Control": {"no-cache"},
	}})
	if err != nil {
		return nil, err
	}
	if got := resp.Header.Get("Content-Type"); got != "application/x-"+uploadPack+"-advertisement" {
		discard(resp)
		return nil, errNotSmart(got)
	}
	base, ok := cutPath(resp.Request.URL, infoRefs)
	if !ok {
		discard(resp)
		return nil, fault.New("", fault.ErrUnsupported, "the server redirects to "+withoutQuery(resp.Request.URL.String())+", which is no repository's",
			"use the repository's own URL")
	}
	t.base, t.greeted = base, true
	return drained(resp), nil
}

// cutPath is u without query and without suffix at the end of its path; false where the path ends otherwise.
func cutPath(u *url.URL, suffix string) (*url.URL, bool) {
	path, ok := strings.CutSuffix(u.EscapedPath(), suffix)
	if !ok {
		return u, false
	}
	cut, err := url.Parse(u.Scheme + "://" + u.Host + path)
	return cut, err == nil
}

// errNotSmart tells a plain file server from something else entirely.
func errNotSmart(contentType string) error {
	if strings.HasPrefix(contentType, "text/html") {
		return fault.New("", fault.ErrNotFound, "the server answers with a web page", "check the URL: it should be the one that git clone takes")
	}
	return fault.New("", fault.ErrUnsupported, "the server does not speak git's smart HTTP protocol", "the dumb HTTP protocol is not supported: use another URL")
}

func (t *httpTransport) request(ctx context.Context, w *watch, body []byte) (io.ReadCloser, error) {
	header := http.Header{
		"Content-Type": {"application/x-" + uploadPack + "-request"},
		"Accept":       {"application/x-" + uploadPack + "-result"},
		"Git-Protocol": {"version=" + t.version},
	}
	if len(body) > gzipAbove {
		var err error
		if body, err = gzipped(body); err != nil {
			return nil, err
		}
		header["Content-Encoding"] = []string{"gzip"}
	}
	resp, err := t.web.do(ctx, w, call{method: http.MethodPost, url: t.base.JoinPath(uploadPack), header: header, body: body})
	if err != nil {
		return nil, err
	}
	if got := resp.Header.Get("Content-Type"); got != "application/x-"+uploadPack+"-result" {
		discard(resp)
		return nil, errNotSmart(got)
	}
	return drained(resp), nil
}

func gzipped(body []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// lfsAccess is where LFS objects are found, with the source's own credentials.
func (t *httpTransport) lfsAccess(context.Context, string) (*lfsAccess, error) {
	return &lfsAccess{web: t.web, endpoint: t.lfsEndpoint()}, nil
}

// lfsEndpoint is where the source's LFS server is by convention.
func (t *httpTransport) lfsEndpoint() *url.URL {
	base := t.base
	for _, suffix := range []string{"/", ".git"} {
		if shorter, ok := cutPath(base, suffix); ok {
			base = shorter
		}
	}
	endpoint, err := url.Parse(base.Scheme + "://" + base.Host + base.EscapedPath() + ".git/info/lfs")
	if err != nil {
		return base // cannot be: base was parsed before
	}
	return endpoint
}

// drained is the body of resp; closing it reads a little of what is left, so that the connection can be used again.
func drained(resp *http.Response) io.ReadCloser {
	return &readCloser{Reader: resp.Body, Closer: closeFunc(func() error {
		discard(resp)
		return nil
	})}
}
