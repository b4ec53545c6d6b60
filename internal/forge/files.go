package forge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// fileIdle is how long a download may bring nothing before it counts as broken off.
const fileIdle = 2 * time.Minute

// FileHosts says where a forge keeps release assets and attachments. Nothing else is ever asked, wherever a text or a redirect leads.
type FileHosts struct {
	// Own are addresses of the forge itself beside its API's: "https://github.com". Credentials go there and to the API, and only there.
	Own []string
	// Stores are hosts that the forge's downloads lead to: "objects.githubusercontent.com", or "*.example.com" for all below one. They
	// are asked over https, without credentials, and only where their addresses are public ones.
	Stores []string
}

// FileClient downloads files of a forge. Safe for concurrent use.
type FileClient struct {
	c       *Client
	own     []*url.URL
	stores  []string
	trusted []*url.URL        // may be at any IP address: the forge, and what the user named
	direct  http.RoundTripper // looks at the IP address before it connects
	proxy   http.RoundTripper // for what goes through a proxy, which looks hosts up itself
	via     func(*http.Request) (*url.URL, error)
	idle    time.Duration
	public  func(netip.Addr) bool // whether a store may have the address
}

// Files makes a client for the files of the forge, with the same credentials, certificate authorities and budget.
func (c *Client) Files(h FileHosts) (*FileClient, error) {
	f := &FileClient{c: c, own: []*url.URL{c.base}, idle: fileIdle, public: isPublic}
	for _, address := range h.Own {
		u, err := url.Parse(address)
		if err != nil || !plainAddress(u) {
			return nil, errAddress()
		}
		f.own = append(f.own, u)
	}
	for _, host := range slices.Concat(h.Stores, c.o.FileHosts) {
		f.stores = append(f.stores, strings.ToLower(host))
	}
	for _, host := range c.o.FileHosts {
		f.trusted = append(f.trusted, &url.URL{Scheme: "https", Host: host})
	}
	f.trusted = append(f.trusted, f.own...)
	return f, f.connect()
}

// connect prepares the transports.
func (f *FileClient) connect() error {
	base := f.c.http.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok { // one that a caller made is its own affair
		f.direct = base
		return nil
	}
	direct := transport.Clone()
	direct.DisableCompression, direct.ResponseHeaderTimeout = true, requestTimeout
	f.via = direct.Proxy
	f.proxy = direct.Clone()
	direct.Proxy, direct.DialContext = nil, f.dialer(direct.DialContext)
	f.direct = direct
	return nil
}

// dialer connects to the forge, and to what the user named, wherever they are, and to others by public addresses only: a name that leads into the network that this
// runs in is found out here, after it was looked up.
func (f *FileClient) dialer(own func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if own == nil {
		own = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	}
	guarded := net.Dialer{Timeout: 30 * time.Second, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !f.public(at.Addr().Unmap().WithZone("")) {
			return fault.New("", fault.ErrRefused, "it leads to "+address+", which is no public address", "")
		}
		return nil
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		for _, u := range f.trusted {
			if strings.EqualFold(address, net.JoinHostPort(u.Hostname(), portOf(u))) {
				return own(ctx, network, address)
			}
		}
		return guarded.DialContext(ctx, network, address)
	}
}

// notPublic are networks that netip does not know by name and that no forge keeps files in.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2002::/16"), // these carry addresses of IPv4 inside
}

// isPublic reports whether an address is of the internet at large.
func isPublic(a netip.Addr) bool {
	if b := a.As16(); netip.MustParsePrefix("64:ff9b::/96").Contains(a) { // an address of IPv4 as networks without IPv4 see it
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Allows reports whether an address is the forge's own, or one of its stores'.
func (f *FileClient) Allows(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (f.isOwn(u) || f.isStore(u))
}

func (f *FileClient) isOwn(u *url.URL) bool {
	return slices.ContainsFunc(f.own, func(own *url.URL) bool { return sameOrigin(u, own) })
}

func (f *FileClient) isStore(u *url.URL) bool {
	if u.Scheme != "https" || u.User != nil {
		return false
	}
	host := strings.ToLower(u.Host)
	if u.Port() == "443" {
		host = strings.ToLower(u.Hostname())
	}
	return slices.ContainsFunc(f.stores, func(store string) bool {
		if below, ok := strings.CutPrefix(store, "*"); ok {
			return strings.HasSuffix(host, below) && len(host) > len(below)
		}
		return host == store
	})
}

// TooLarge is the error of a file that has more bytes than it may.
type TooLarge struct {
	Size, Limit int64 // bytes; Size is 0 where it is not known
}

// Error names both.
func (t *TooLarge) Error() string {
	if t.Size == 0 {
		return fmt.Sprintf("it has more than %d bytes", t.Limit)
	}
	return fmt.Sprintf("it has %d bytes, and at most %d are taken", t.Size, t.Limit)
}

// Unwrap gives the class.
func (t *TooLarge) Unwrap() error { return fault.ErrRefused }

// Get asks for a file, with header besides, and yields its bytes as they come. The reader ends with an error where there are fewer of
// them than the server said, or more than limit (*TooLarge).
// Errors: fault.ErrNotFound; ErrDenied, also for a page that stands there instead; ErrRefused for an address that is not asked, and for a
// file that comes packed though that was not asked for: nothing is ever unpacked; ErrUnavailable.
func (f *FileClient) Get(ctx context.Context, address string, header http.Header, limit int64) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New("", fault.ErrInvalid, "it is no address", "")
	}
	l := call{op: "GET " + printable(u.Host+u.Path), method: http.MethodGet, url: u, idempotent: true}
	if !sameOrigin(u, f.c.base) {
		l.resource = "files" // the API's requests are counted apart
	}
	var body io.ReadCloser
	err = f.c.again(ctx, l, func() (err error) {
		body, err = f.try(ctx, l, header, limit)
		return err
	})
	return body, err
}

// try asks once, and follows redirects.
func (f *FileClient) try(ctx context.Context, l call, header http.Header, limit int64) (_ io.ReadCloser, err error) {
	ctx, watch := newWatch(ctx, f.idle)
	defer func() {
		if err = watch.reason(err); err != nil {
			watch.stop()
		}
	}()
	at := l.url
	for range maxRedirects + 1 {
		answer, credentials, err := f.ask(ctx, at, header)
		if err != nil {
			return nil, err
		}
		next, err := locationOf(answer)
		if next == nil && err == nil {
			return f.judge(l, answer, credentials, watch, limit)
		}
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return nil, fault.New("", fault.ErrRefused, "the server redirects in circles", "")
}

// ask sends one request. Credentials, and what belongs to the API, go to the forge itself only.
func (f *FileClient) ask(ctx context.Context, at *url.URL, header http.Header) (*http.Response, http.Header, error) {
	own := f.isOwn(at)
	if !own && !f.isStore(at) {
		return nil, nil, fault.New("", fault.ErrRefused, "it leads to "+printable(at.Scheme+"://"+at.Host)+", which is not the forge's", "")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, nil, fault.New("", fault.ErrInvalid, "it is no request that can be sent", "")
	}
	credentials := http.Header{}
	if own {
		if f.c.o.Authorize != nil {
			if err := f.c.o.Authorize(ctx, credentials); err != nil {
				return nil, nil, err
			}
		}
		maps.Copy(req.Header, header)
		maps.Copy(req.Header, credentials)
	}
	req.Header.Set("User-Agent", f.c.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	transport, err := f.transport(req)
	if err != nil {
		return nil, nil, f.c.unreachable(ctx, err, credentials)
	}
	f.c.requests.Add(1)
	answer, err := transport.RoundTrip(req)
	switch {
	case errors.Is(err, fault.ErrRefused):
		return nil, nil, fault.New("", fault.ErrRefused, printable(at.Host)+" is at an address that is not public, and not the forge's own", "")
	case err != nil:
		return nil, nil, f.c.unreachable(ctx, err, credentials)
	case sameOrigin(at, f.c.base):
		f.c.note("", answer.Header)
	}
	return answer, credentials, nil
}

// transport chooses how a request goes.
func (f *FileClient) transport(req *http.Request) (http.RoundTripper, error) {
	if f.via == nil {
		return f.direct, nil
	}
	switch proxy, err := f.via(req); {
	case err != nil:
		return nil, err
	case proxy != nil:
		return f.proxy, nil
	}
	return f.direct, nil
}

// locationOf is where an answer leads to; nil where it leads nowhere else.
func locationOf(answer *http.Response) (*url.URL, error) {
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil //nolint:nilnil // an answer that is none has no location
	}
	to, err := answer.Location()
	if err != nil {
		return nil, fault.New("", fault.ErrUnavailable, "the server redirects to nowhere", "")
	}
	return to, nil
}

// judge makes a reader of an answer that is a file, and an error of one that is none.
func (f *FileClient) judge(l call, answer *http.Response, credentials http.Header, watch *watch, limit int64) (io.ReadCloser, error) {
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		words, err := io.ReadAll(io.LimitReader(answer.Body, maxWords))
		if err != nil {
			words = nil // the status says enough
		}
		return nil, f.c.refused(l, &Response{Status: answer.StatusCode, Header: answer.Header, Body: words}, credentials)
	}
	err := unfitFile(answer, l.url, limit)
	if err != nil {
		answer.Body.Close()
		return nil, err
	}
	return &fileBody{body: answer.Body, expected: answer.ContentLength, limit: limit, watch: watch}, nil
}

// unfitFile says why an answer is not stored.
func unfitFile(answer *http.Response, asked *url.URL, limit int64) error {
	h := answer.Header
	switch coding := h.Get("Content-Encoding"); {
	case coding != "" && coding != "identity":
		return fault.New("", fault.ErrRefused, "the server sends it packed ("+printable(coding)+"), which was not asked for", "")
	case answer.ContentLength > limit:
		return &TooLarge{answer.ContentLength, limit}
	}
	page := strings.HasPrefix(strings.ToLower(strings.TrimSpace(h.Get("Content-Type"))), "text/html")
	named := strings.HasPrefix(strings.ToLower(path.Ext(asked.Path)), ".htm")
	if page && !named && !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		return fault.New("", fault.ErrDenied, "the forge answers with a page instead of the file", "check whether the token may read attachments")
	}
	return nil
}

// fileBody is a file on its way.
type fileBody struct {
	body     io.ReadCloser
	expected int64 // bytes, by the server's word; -1 where it does not say
	limit    int64
	read     int64
	watch    *watch
}

// Read reads on.
func (b *fileBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.watch.stir()
	b.read += int64(n)
	switch {
	case b.read > b.limit:
		return 0, &TooLarge{0, b.limit}
	case err == io.EOF && b.expected >= 0 && b.read < b.expected:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil && err != io.EOF:
		return n, b.broken(err)
	}
	return n, err
}

// broken is the error of a download that did not come to its end.
func (b *fileBody) broken(err error) error {
	text := fmt.Sprintf("it broke off after %d bytes", b.read)
	if b.expected >= 0 {
		text += fmt.Sprintf(" of %d", b.expected)
	}
	return b.watch.reason(fault.Wrap("", fault.ErrUnavailable, fmt.Errorf("%s: %w", text, err), ""))
}

// Close ends the download.
func (b *fileBody) Close() error {
	b.watch.stop()
	return b.body.Close()
}

// watch calls a download off that brings nothing for too long.
type watch struct {
	end   context.CancelFunc
	timer *time.Timer
	idle  time.Duration
	fired atomic.Bool
}

// newWatch returns the context that ends when the watch does.
func newWatch(ctx context.Context, idle time.Duration) (context.Context, *watch) {
	w := &watch{idle: idle}
	ctx, w.end = context.WithCancel(ctx)
	w.timer = time.AfterFunc(idle, func() {
		w.fired.Store(true)
		w.end()
	})
	return ctx, w
}

// stir says that something came.
func (w *watch) stir() { w.timer.Reset(w.idle) }

func (w *watch) stop() {
	w.timer.Stop()
	w.end()
}

// reason is the error of a request that failed: err, unless it was the watch that ended it.
func (w *watch) reason(err error) error {
	if err == nil || !w.fired.Load() {
		return err
	}
	return &passing{fault.New("", fault.ErrUnavailable, fmt.Sprintf("the server sent nothing for %s", w.idle), hintNetwork)}
}
