package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

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
	hint, kind := (&statusError{code: e.Code}).class()
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

var headerForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// call is the request that the action stands for.
func (a lfsAction) call(method string, signed bool) (call, error) {
	at, err := url.Parse(a.Href)
	if err != nil || (at.Scheme != "https" && at.Scheme != "http") || at.Host == "" || at.User != nil {
		return call{}, fault.New("", fault.ErrCorrupt, "the LFS server gives a URL that cannot be used", "")
	}
	c := call{method: method, url: at, header: http.Header{}, own: http.Header{}, signed: signed}
	for name, value := range a.Header {
		if !headerForm.MatchString(name) || strings.ContainsFunc(value, unicode.IsControl) {
			return call{}, fault.New("", fault.ErrCorrupt, "the LFS server gives a header that cannot be sent", "")
		}
		switch name = http.CanonicalHeaderKey(name); name {
		case "Content-Length", "Transfer-Encoding", "Host", "Connection": // ours to say
		default:
			c.own[name] = []string{value}
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
	c := call{
		method: http.MethodPost, url: a.endpoint.JoinPath("objects", "batch"), own: a.header, body: body,
		header: http.Header{"Accept": {lfsMediaType}, "Content-Type": {lfsMediaType}},
	}
	var answer lfsBatchAnswer
	var asked time.Time
	err = retrying(ctx, s.opt.retryWait, passesInTime, func() error {
		asked = s.opt.now()
		return askJSON(ctx, a.web, c, &answer)
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

// askJSON sends c and reads the JSON document that answers it.
func askJSON(ctx context.Context, web *web, c call, answer any) error {
	resp, err := web.exchange(ctx, c)
	if err != nil {
		return err
	}
	defer discard(resp)
	text, err := io.ReadAll(io.LimitReader(resp.Body, lfsAnswerMax))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fault.New("", fault.ErrCorrupt, "the LFS server's answer is not the JSON that it should be", "")
	}
	return nil
}

func (s *lfsServer) upload(ctx context.Context, ps []Pointer, open func(p Pointer) (io.ReadCloser, error)) error {
	a, err := s.access(ctx, "upload")
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(ps, lfsBatchMax) {
		objects, err := s.batch(ctx, a, "upload", chunk)
		if err != nil {
			return err
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(lfsParallel)
		for _, p := range chunk {
			g.Go(func() error {
				return retrying(gctx, s.opt.retryWait, passesInTime, func() error { return put(gctx, a.web, p, objects[p.OID], open) })
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// put sends one object, if the server wants it, and has the server verify it, if the server wants that.
func put(ctx context.Context, web *web, p Pointer, o lfsObject, open func(p Pointer) (io.ReadCloser, error)) error {
	if o.Error != nil {
		return o.Error.fault(p.OID)
	}
	action, ok := o.Actions["upload"]
	if !ok {
		return nil // it is there
	}
	c, err := action.call(http.MethodPut, o.Authenticated)
	if err != nil {
		return err
	}
	c.header.Set("Content-Type", "application/octet-stream") // unless the action names one
	c.stream, c.size = func() (io.ReadCloser, error) { return open(p) }, p.Size
	if err := tell(ctx, web, c); err != nil {
		return fault.Wrap("LFS object "+p.OID, nil, err, "")
	}
	action, ok = o.Actions["verify"]
	if !ok {
		return nil
	}
	if c, err = action.call(http.MethodPost, o.Authenticated); err != nil {
		return err
	}
	c.header.Set("Accept", lfsMediaType)
	c.header.Set("Content-Type", lfsMediaType)
	if c.body, err = json.Marshal(lfsObject{OID: p.OID, Size: p.Size}); err != nil {
		return err
	}
	return fault.Wrap("verify LFS object "+p.OID, nil, tell(ctx, web, c), "")
}

// tell sends c; that the server takes it is all of the answer.
func tell(ctx context.Context, web *web, c call) error {
	resp, err := web.exchange(ctx, c)
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}
