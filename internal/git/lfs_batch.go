package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
)

const (
	lfsBatchMax   = 100      // objects of one batch
	lfsAnswerMax  = 16 << 20 // bytes of an answer to a batch
	lfsMediaType  = "application/vnd.git-lfs+json"
	lfsExpiryEdge = 10 * time.Second // an action that expires so soon is not begun
)

// lfsServer speaks the LFS batch API.
type lfsServer struct {
	access func(ctx context.Context, operation string) (*lfsAccess, error)
	opt    Options
}

// lfsAccess is how the API is reached for one operation.
type lfsAccess struct {
	web      *web
	endpoint *url.URL
	header   http.Header // of requests to the endpoint
}

// The documents of the batch API.
type (
	lfsBatchRequest struct {
		Operation string      `json:"operation"`
		Transfers []string    `json:"transfers"`
		Objects   []lfsObject `json:"objects"`
		HashAlgo  string      `json:"hash_algo"`
	}
	lfsBatchAnswer struct {
		Transfer string      `json:"transfer"`
		Objects  []lfsObject `json:"objects"`
	}
	lfsObject struct {
		OID           string               `json:"oid"`
		Size          int64                `json:"size"`
		Authenticated bool                 `json:"authenticated,omitempty"`
		Actions       map[string]lfsAction `json:"actions,omitempty"`
		Error         *lfsObjectError      `json:"error,omitempty"`
	}
	lfsAction struct {
		Href      string            `json:"href"`
		Header    map[string]string `json:"header"`
		ExpiresAt string            `json:"expires_at"`
		ExpiresIn int64             `json:"expires_in"` // seconds
		asked     time.Time
	}
	lfsObjectError struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
)

// missing reports whether the server says that it does not have the object.
func (e *lfsObjectError) missing() bool {
	return e != nil && (e.Code == http.StatusNotFound || e.Code == http.StatusGone || e.Code == http.StatusUnprocessableEntity)
}

func (e *lfsObjectError) reason() string {
	return printable(fmt.Sprintf("%d %.200s", e.Code, e.Message))
}

// fault gives any other error of an object its class.
func (e *lfsObjectError) fault(oid string) error {
	kind, hint := (&statusError{code: e.Code}).class()
	return fault.New("LFS object "+oid, kind, "the server answers "+e.reason(), hint)
}

// expires reports whether the action is not to be begun any more.
func (a lfsAction) expires(now time.Time) bool {
	if a.ExpiresIn > 0 {
		return now.Add(lfsExpiryEdge).After(a.asked.Add(time.Duration(min(a.ExpiresIn, 1<<30)) * time.Second))
	}
	at, err := time.Parse(time.RFC3339, a.ExpiresAt)
	return err == nil && at.Year() > 1 && now.Add(lfsExpiryEdge).After(at) // Go servers send the zero time for none
}

// call is the request that the action stands for.
func (a lfsAction) call(method string, signed bool) (call, error) {
	at, err := url.Parse(a.Href)
	if err != nil || (at.Scheme != "https" && at.Scheme != "http") || at.Host == "" || at.User != nil {
		return call{}, fault.New("", fault.ErrCorrupt, "the LFS server gives a URL that cannot be used", "")
	}
	c := call{method: method, url: at, header: http.Header{}, signed: signed}
	for name, value := range a.Header {
		if strings.ContainsFunc(name+value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return call{}, fault.New("", fault.ErrCorrupt, "the LFS server gives a header that cannot be sent", "")
		}
		switch name = http.CanonicalHeaderKey(name); name {
		case "Content-Length", "Transfer-Encoding", "Host", "Connection": // ours to say
		default:
			c.header[name] = []string{value}
		}
	}
	return c, nil
}

// batch asks what to do with each object. The answer is by object id, for all that were asked for.
func (s *lfsServer) batch(ctx context.Context, a *lfsAccess, operation string, ps []Pointer) (map[string]lfsObject, error) {
	request := lfsBatchRequest{Operation: operation, Transfers: []string{"basic"}, HashAlgo: "sha256"}
	for _, p := range ps {
		request.Objects = append(request.Objects, lfsObject{OID: p.OID, Size: p.Size})
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Accept": {lfsMediaType}, "Content-Type": {lfsMediaType}}
	for name, values := range a.header {
		header[name] = values
	}
	var answer lfsBatchAnswer
	asked := time.Now()
	err = s.retrying(ctx, func() error {
		asked = time.Now()
		return s.askJSON(ctx, a.web, call{method: http.MethodPost, url: a.endpoint.JoinPath("objects", "batch"), header: header, body: body}, &answer)
	})
	if err != nil {
		return nil, batchError(err)
	}
	if answer.Transfer != "" && answer.Transfer != "basic" {
		return nil, errNoLFS(fmt.Sprintf("the server offers no basic transfer of LFS objects but %.40q", answer.Transfer), nil)
	}
	objects := map[string]lfsObject{}
	for _, o := range answer.Objects {
		for name, action := range o.Actions {
			action.asked = asked
			o.Actions[name] = action
		}
		objects[o.OID] = o
	}
	for _, p := range ps {
		if _, ok := objects[p.OID]; !ok {
			return nil, fault.New("LFS object "+p.OID, fault.ErrCorrupt, "the server was asked for it but says nothing about it", "")
		}
	}
	return objects, nil
}

// batchError tells a server without LFS from one that fails.
func batchError(err error) error {
	var status *statusError
	if errors.As(err, &status) && slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, status.code) {
		return errNoLFS("the server has no LFS for this repository, or the token cannot see it", status)
	}
	return err
}

// askJSON sends c and reads the JSON document that answers it into answer; nil for none.
func (s *lfsServer) askJSON(ctx context.Context, web *web, c call, answer any) error {
	watched, w := newWatch(ctx, s.opt.IdleTimeout)
	defer w.stop()
	resp, err := web.do(watched, w, c)
	if err != nil {
		return classify(cause(watched, s.opt.IdleTimeout, err))
	}
	defer discard(resp)
	if answer == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, lfsAnswerMax))
	if err != nil {
		return classify(cause(watched, s.opt.IdleTimeout, err))
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fault.New("", fault.ErrCorrupt, "the LFS server's answer is not the JSON that it should be", "")
	}
	return nil
}

// retrying calls f again, up to three times in all, while its error is one that passes.
func (s *lfsServer) retrying(ctx context.Context, f func() error) error {
	wait := s.opt.retryWait
	for try := 1; ; try++ {
		err := f()
		if err == nil || !fault.Of(err).Retry || try == tries || ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, err, wait); err != nil {
			return err
		}
		wait *= 3
	}
}

// pause waits before the next try after err: as long as the server asks, where that is bearable. It returns err where it is not.
func pause(ctx context.Context, err error, wait time.Duration) error {
	var status *statusError
	if errors.As(err, &status) {
		if status.retryAfter > maxRetryAfter {
			return err
		}
		wait = max(wait, status.retryAfter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (s *lfsServer) download(ctx context.Context, ps []Pointer, each eachObject) ([]LFSMissing, error) {
	a, err := s.access(ctx, "download")
	if err != nil {
		return nil, err
	}
	d := &lfsDownload{server: s, access: a, each: each}
	for chunk := range slices.Chunk(ps, lfsBatchMax) {
		objects, err := s.batch(ctx, a, "download", chunk)
		if err != nil {
			return d.missing, err
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(lfsParallel)
		for _, p := range chunk {
			g.Go(func() error { return d.object(gctx, p, objects[p.OID]) })
		}
		if err := g.Wait(); err != nil {
			return d.missing, err
		}
	}
	return d.missing, d.corrupt
}

// lfsDownload is one run of downloads.
type lfsDownload struct {
	server *lfsServer
	access *lfsAccess
	each   eachObject

	mu      sync.Mutex
	missing []LFSMissing
	corrupt error // the first object whose bytes were wrong
}

func (d *lfsDownload) miss(p Pointer, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.missing = append(d.missing, LFSMissing{p, reason})
}

// object brings one object in.
func (d *lfsDownload) object(ctx context.Context, p Pointer, o lfsObject) error {
	watched, w := newWatch(ctx, d.server.opt.IdleTimeout)
	defer w.stop()
	body := &resumingReader{size: p.Size, from: func(offset int64, renew bool) (io.ReadCloser, error) {
		if renew {
			objects, err := d.server.batch(ctx, d.access, "download", []Pointer{p})
			if err != nil {
				return nil, err
			}
			o = objects[p.OID]
		}
		r, err := d.open(watched, w, p, o, offset)
		return r, classifyNil(cause(watched, d.server.opt.IdleTimeout, err))
	}}
	body.classify = func(err error) error { return classify(cause(watched, d.server.opt.IdleTimeout, err)) }
	body.pause = func(err error) error { return pause(ctx, err, d.server.opt.retryWait) }
	defer body.close()
	if _, ok := o.Actions["download"]; ok || o.Error != nil {
		switch err := body.open(o.Error == nil && o.Actions["download"].expires(time.Now())); {
		case errors.Is(err, errMissing):
			d.miss(p, printable(err.Error()))
			return nil
		case err != nil:
			return err
		}
	}
	corrupt, stop := hand(ctx, p, body, d.each)
	if corrupt != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.corrupt == nil {
			d.corrupt = corrupt
		}
	}
	return stop
}

var errMissing = errors.New("missing at source")

func classifyNil(err error) error {
	if err == nil {
		return nil
	}
	return classify(err)
}

// open asks for an object from offset on.
func (d *lfsDownload) open(ctx context.Context, w *watch, p Pointer, o lfsObject, offset int64) (io.ReadCloser, error) {
	return nil, errors.New("todo" + strconv.FormatInt(offset, 10) + p.OID + o.OID)
}

type resumingReader struct {
	size     int64
	from     func(offset int64, renew bool) (io.ReadCloser, error)
	classify func(error) error
	pause    func(error) error
}

func (r *resumingReader) Read(p []byte) (int, error) { return 0, io.EOF }
func (r *resumingReader) open(renew bool) error      { return nil }
func (r *resumingReader) close()                     {}

func (s *lfsServer) upload(ctx context.Context, ps []Pointer, open func(p Pointer) (io.ReadCloser, error)) error {
	return nil
}

// sshLFS finds the LFS server of a source that is reached by ssh.
type sshLFS struct {
	ssh     *sshTransport
	traffic *traffic
}

func (l *sshLFS) access(ctx context.Context, operation string) (*lfsAccess, error) {
	return nil, nil
}
