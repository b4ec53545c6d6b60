// Package git reads and writes git repositories: it speaks the upload-pack protocol to the source, keeps refs as data and
// packs as they came, and makes bare repositories of them again.
package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Options says how a repository is reached. The zero value asks for no credentials but those of the user's netrc file.
type Options struct {
	Username string       // "" with a Password: the name that servers expect beside a token
	Password fault.Secret // a token or a password; http and https only
	// Credentials, where not nil, is asked for both at each connection, in place of the above: tokens expire in long runs.
	Credentials    func(ctx context.Context) (username string, password fault.Secret, err error)
	NetrcFile      string        // "" for $NETRC or .netrc in the home directory; os.DevNull for none
	CAFile         string        // PEM file of certificate authorities trusted beside the system's
	Insecure       bool          // the server's certificate is not checked
	SSHCommand     string        // shell words run in place of ssh; "" for $GIT_SSH_COMMAND, $GIT_SSH, or ssh
	KeyFile        string        // private key, the only one that ssh offers; "" for the agent's and those that ssh looks for
	KnownHostsFile string        // file of the only host keys that ssh believes; "" for those that ssh looks at
	MaxRefs        int           // 0 for DefaultMaxRefs
	MaxRefBytes    int64         // bytes of a ref list; 0 for DefaultMaxRefBytes
	IdleTimeout    time.Duration // how long the server may be silent; 0 for DefaultIdleTimeout
	UserAgent      string        // "" for "git/backstay"
	Env            []string      // environment, "NAME=value"; nil for the process's own

	protocol  string           // version asked for; "" for 2
	retryWait time.Duration    // before the second try; 0 for a second
	now       func() time.Time // nil for the system's clock
}

// Defaults of Options.
const (
	DefaultMaxRefs     = 1_000_000
	DefaultMaxRefBytes = 256 << 20
	DefaultIdleTimeout = time.Minute
)

func (o Options) withDefaults() Options {
	if o.MaxRefs <= 0 {
		o.MaxRefs = DefaultMaxRefs
	}
	if o.MaxRefBytes <= 0 {
		o.MaxRefBytes = DefaultMaxRefBytes
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	if o.UserAgent == "" {
		o.UserAgent = "git/backstay" // some servers serve git only to what calls itself git
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.protocol == "" {
		o.protocol = "2"
	}
	if o.retryWait <= 0 {
		o.retryWait = time.Second
	}
	if o.now == nil {
		o.now = time.Now //nolint:forbidigo // links to LFS objects expire by the real clock
	}
	return o
}

// env looks a variable up; the last one of a name counts, as for programs.
func (o Options) env(name string) string {
	for i := len(o.Env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(o.Env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// transport carries requests to one repository and answers back.
type transport interface {
	// greet begins a conversation, ending one that is open, and returns the server's first words.
	greet(ctx context.Context, w *watch) (io.ReadCloser, error)
	// ready reports whether a request can be sent without a greeting.
	ready() bool
	// request sends a request and returns the answer, which must be closed before the next.
	request(ctx context.Context, w *watch, body []byte) (io.ReadCloser, error)
	// hangUp ends the conversation. Another one can be begun.
	hangUp()
}

// traffic counts what went over a connection.
type traffic struct{ requests, received atomic.Int64 }

// counted counts the bytes read from r.
func (t *traffic) counted(r io.Reader) io.Reader { return &countingReader{r: r, n: &t.received} }

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Remote is a connection to one repository. It takes one call at a time.
type Remote struct {
	url       *URL
	opt       Options
	transport transport
	server    *server // what the greeting said; nil before
	lfs       lfsStore
	traffic   *traffic
}

// Dial prepares a connection. A local repository is looked for at once; what fails on the way to a server fails in the first call.
func Dial(ctx context.Context, u *URL, o Options) (*Remote, error) {
	r := &Remote{url: u, opt: o.withDefaults(), traffic: &traffic{}}
	if err := r.connect(ctx); err != nil {
		return nil, fault.Wrap("open "+u.String(), nil, err, "")
	}
	return r, nil
}

// connect chooses how to speak to the repository and where its LFS objects are.
func (r *Remote) connect(ctx context.Context) error {
	switch r.url.Scheme {
	case "http", "https":
		web, err := newWeb(ctx, r.url, r.opt, newAddressGuard(r.url.Host), r.traffic)
		if err != nil {
			return err
		}
		t := newHTTPTransport(web, r.opt.protocol)
		r.transport, r.lfs = t, &lfsServer{access: t.lfsAccess, opt: r.opt}
	case "ssh":
		args, err := sshArgs(r.opt)
		if err != nil {
			return err
		}
		ssh := &sshTransport{url: r.url, opt: r.opt, args: args}
		r.transport = &streamTransport{open: ssh.open, traffic: r.traffic}
		r.lfs = &lfsServer{access: (&sshLFS{ssh: ssh, traffic: r.traffic}).access, opt: r.opt}
	case "git":
		daemon := &daemonTransport{url: r.url, opt: r.opt}
		r.transport, r.lfs = &streamTransport{open: daemon.open, traffic: r.traffic}, noLFS{}
	default:
		dir, err := openGitDir(r.url.Path)
		if err != nil {
			return err
		}
		local := &localTransport{dir: dir, opt: r.opt}
		r.transport, r.lfs = &streamTransport{open: local.open, traffic: r.traffic}, lfsDir(dir.common)
	}
	return nil
}

// Ref is one name that a repository advertises.
type Ref struct {
	Name   string // bytes as git has them, not always UTF-8
	OID    string // hexadecimal; "" for an unborn HEAD
	Peeled string // what an annotated tag comes down to; "" for anything else
	Target string // of a symbolic ref; "" for any other
}

// RefList is what a repository advertises at one time.
type RefList struct {
	Format string // of object ids: "sha1" or "sha256"
	Refs   []Ref  // HEAD first where it is advertised, then sorted by the bytes of their names
}

// ListRefs asks for all refs, in one request beside the greeting. Of an older server (v0, v1) the greeting is the list. A server over
// http that is unavailable for the moment is tried again, three times in all.
// Errors: fault.ErrNotFound, ErrDenied, ErrUnsupported (a shallow source among others), ErrRefused (too many refs, or a redirect that is not
// followed), ErrThrottled, ErrUnavailable, ErrCorrupt.
func (r *Remote) ListRefs(ctx context.Context) (*RefList, error) {
	var list *RefList
	err := retrying(ctx, r.opt.retryWait, isHiccup, func() error {
		return r.converse(ctx, func(ctx context.Context, w *watch) (err error) {
			list, err = r.listRefs(ctx, w)
			return err
		})
	})
	if err != nil {
		return nil, fault.Wrap("list the refs of "+r.url.String(), nil, err, "")
	}
	return list, nil
}

// Fetch writes to pack a self-contained pack of all that wants reach and haves do not, in one request, and returns its bytes. The pack
// is not checked beyond its first bytes and the server's word that it is whole. An error of pack comes back as it is.
// Errors: as of ListRefs; fault.ErrUnavailable where the connection broke, or a want is no longer there.
func (r *Remote) Fetch(ctx context.Context, wants, haves []string, pack io.Writer) (received int64, err error) {
	out := &packWriter{w: pack}
	err = r.converse(ctx, func(ctx context.Context, w *watch) error {
		if err := r.greet(ctx, w); err != nil {
			return err
		}
		if err := r.fetch(ctx, w, wants, haves, out); err != nil {
			return err
		}
		return out.complete(r.server.format)
	})
	if out.err != nil {
		err = out.err
	}
	return out.n, fault.Wrap("fetch from "+r.url.String(), nil, err, "")
}

// converse runs f under a watch, hangs up when it fails or ctx has ended, and gives its error a class.
func (r *Remote) converse(ctx context.Context, f func(ctx context.Context, w *watch) error) error {
	watched, w := newWatch(ctx, r.opt.IdleTimeout)
	defer w.stop()
	err := w.explain(watched, f(watched, w))
	if err == nil && watched.Err() == nil { // one that ended may have killed what answered, to its last word
		return nil
	}
	r.server = nil
	r.transport.hangUp()
	return err
}

// greet makes sure that a conversation is open whose server can take a request.
func (r *Remote) greet(ctx context.Context, w *watch) error {
	if r.server != nil && r.transport.ready() {
		return nil
	}
	_, err := r.readGreeting(ctx, w)
	return err
}

// readGreeting begins a conversation. Servers of v0 and v1 list their refs in the greeting.
func (r *Remote) readGreeting(ctx context.Context, w *watch) (*refCollector, error) {
	body, err := r.transport.greet(ctx, w)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	refs := &refCollector{maxRefs: r.opt.MaxRefs, maxBytes: r.opt.MaxRefBytes}
	r.server, err = parseGreeting(newPktReader(body), refs)
	return refs, err
}

func (r *Remote) listRefs(ctx context.Context, w *watch) (*RefList, error) {
	var refs *refCollector
	if r.server == nil || r.server.version < 2 || !r.transport.ready() {
		var err error
		if refs, err = r.readGreeting(ctx, w); err != nil {
			return nil, err
		}
	}
	if r.server.version == 2 {
		refs = &refCollector{maxRefs: r.opt.MaxRefs, maxBytes: r.opt.MaxRefBytes, format: r.server.format}
		if err := r.lsRefs(ctx, w, refs); err != nil {
			return nil, err
		}
	}
	return refs.list()
}

func (r *Remote) lsRefs(ctx context.Context, w *watch, refs *refCollector) error {
	body, err := r.transport.request(ctx, w, lsRefsRequest(r.server, r.opt.UserAgent))
	if err != nil {
		return err
	}
	defer body.Close()
	return parseLsRefs(newPktReader(body), refs)
}

func (r *Remote) fetch(ctx context.Context, w *watch, wants, haves []string, pack io.Writer) error {
	if len(wants) == 0 {
		return fault.New("", fault.ErrInvalid, "nothing is wanted", "")
	}
	for _, oid := range slices.Concat(wants, haves) {
		if !validOID(oid, r.server.format) {
			return fault.New("", fault.ErrInvalid, fmt.Sprintf("%.100q is no object id of a %s repository", oid, r.server.format), "")
		}
	}
	request, parse := fetchRequestV2, parseFetchV2
	if r.server.version < 2 {
		request, parse = fetchRequestV0, parseFetchV0
	}
	body, err := r.transport.request(ctx, w, request(r.server, r.opt.UserAgent, wants, haves))
	if err != nil {
		return err
	}
	defer body.Close()
	answer, err := parse(r.server, newPktReader(body))
	if err != nil {
		return err
	}
	if _, err := io.Copy(pack, answer); err != nil {
		return err
	}
	if r.server.version < 2 {
		r.transport.hangUp() // the server leaves after the pack
	}
	return nil
}

// Requests counts the requests made so far, LFS included: over http every one, else the greeting and each command.
func (r *Remote) Requests() int64 { return r.traffic.requests.Load() }

// BytesReceived counts the bytes of answers so far, LFS included.
func (r *Remote) BytesReceived() int64 { return r.traffic.received.Load() }

// Protocol is the version the server speaks: "v0", "v1" or "v2"; "" before the first answer.
func (r *Remote) Protocol() string {
	if r.server == nil {
		return ""
	}
	return "v" + string(rune('0'+r.server.version))
}

// Close ends the connection. It returns nil: how the server's side ended does not matter any more.
func (r *Remote) Close() error {
	r.transport.hangUp()
	if t, ok := r.transport.(*httpTransport); ok {
		t.web.client.CloseIdleConnections()
	}
	return nil
}

// packWriter watches a pack go by and tells the errors of the writer behind it from those of the way here.
type packWriter struct {
	w    io.Writer
	n    int64
	head []byte
	err  error
}

// packHead is the length of a pack's header: "PACK", version, number of objects.
const packHead = 12

func (p *packWriter) Write(b []byte) (int, error) {
	if missing := packHead - len(p.head); missing > 0 {
		p.head = append(p.head, b[:min(missing, len(b))]...)
	}
	if !strings.HasPrefix("PACK\x00\x00\x00", string(p.head[:min(len(p.head), 7)])) {
		return 0, malformed("%q where a pack should begin", p.head)
	}
	n, err := p.w.Write(b)
	p.n += int64(n)
	p.err = err
	return n, err
}

// complete reports whether there was as much as the smallest pack. That the last byte came is the server's to say.
func (p *packWriter) complete(format string) error {
	trailer := int64(oidLength(format) / 2)
	if p.n < packHead+trailer {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// errHangUp stands for a conversation that ended too early.
var errHangUp = errors.New("the connection ended before the answer did")
