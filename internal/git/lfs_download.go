package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backstay/backstay/internal/fault"
)

// lfsProgress is how much must come in, in bytes, for a download that broke again to be given new tries.
const lfsProgress = 1 << 20

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

// object brings one object in.
func (d *lfsDownload) object(ctx context.Context, p Pointer, o lfsObject) error {
	body := &resumingReader{wait: d.server.opt.retryWait, pause: func(err error, wait time.Duration) error { return pause(ctx, err, wait) }}
	body.open = func(offset int64) (body io.ReadCloser, err error) {
		body, o, err = d.get(ctx, p, o, offset)
		return body, err
	}
	defer body.close()
	err := body.begin()
	var missing *missingError
	if errors.As(err, &missing) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.missing = append(d.missing, LFSMissing{p, missing.reason})
		return nil
	}
	if err != nil {
		return fault.Wrap("LFS object "+p.OID, nil, err, "")
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

// missingError says that the source does not have an object. It has a class so that it is not tried again.
type missingError struct{ reason string }

func (e *missingError) Error() string { return "missing at source: " + e.reason }
func (e *missingError) Unwrap() error { return fault.ErrNotFound }

// get asks for an object from offset on. Where the way to it has expired or is refused, it asks for a new one, once; it returns the way that
// it took in the end.
func (d *lfsDownload) get(ctx context.Context, p Pointer, o lfsObject, offset int64) (io.ReadCloser, lfsObject, error) {
	renewed := false
	for {
		if !renewed && o.Error == nil && o.Actions["download"].expires(d.server.opt.now()) {
			renewed = true
			var err error
			if o, err = d.renew(ctx, p); err != nil {
				return nil, o, err
			}
		}
		body, err := d.getOnce(ctx, p, o, offset)
		if err == nil || renewed || !errors.Is(err, fault.ErrDenied) {
			return body, o, err
		}
		renewed = true
		if o, err = d.renew(ctx, p); err != nil {
			return nil, o, err
		}
	}
}

func (d *lfsDownload) renew(ctx context.Context, p Pointer) (lfsObject, error) {
	objects, err := d.server.batch(ctx, d.access, "download", []Pointer{p})
	return objects[p.OID], err
}

func (d *lfsDownload) getOnce(ctx context.Context, p Pointer, o lfsObject, offset int64) (io.ReadCloser, error) {
	action, ok := o.Actions["download"]
	switch {
	case o.Error.missing():
		return nil, &missingError{o.Error.reason()}
	case o.Error != nil:
		return nil, o.Error.fault(p.OID)
	case !ok:
		return nil, &missingError{"the server gives no way to download it"}
	}
	c, err := action.call(http.MethodGet, o.Authenticated)
	if err != nil {
		return nil, err
	}
	c.header.Set("Accept-Encoding", "identity") // offsets count the object's own bytes
	if offset > 0 {
		c.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := d.access.web.exchange(ctx, c)
	var status *statusError
	switch {
	case errors.As(err, &status) && (status.code == http.StatusNotFound || status.code == http.StatusGone):
		return nil, &missingError{status.Error()}
	case errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable:
		return http.NoBody, nil // there is no more of it
	case err != nil:
		return nil, err
	}
	return fromOffset(resp, offset)
}

// fromOffset gives the body from offset on, whether or not the server heeded the range.
func fromOffset(resp *http.Response, offset int64) (io.ReadCloser, error) {
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			discard(resp)
			return nil, fault.New("", fault.ErrCorrupt, "the LFS server sends another part of the object than it was asked for", "")
		}
		return resp.Body, nil
	}
	if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
		discard(resp)
		return nil, err
	}
	return resp.Body, nil
}

// resumingReader reads an object and takes up again where the connection broke.
type resumingReader struct {
	open  func(offset int64) (io.ReadCloser, error)
	pause func(err error, wait time.Duration) error // before another try; its error ends it
	wait  time.Duration

	body   io.ReadCloser // nil when it is to be opened
	at     int64         // offset of the next byte
	failed int           // tries since mark
	mark   int64         // the offset reached when failed was last zero
}

// begin opens the object, so that what is missing shows before anything is read.
func (r *resumingReader) begin() error {
	for r.body == nil {
		body, err := r.open(r.at)
		if err == nil {
			r.body = body
			return nil
		}
		if err := r.retry(err); err != nil {
			return err
		}
	}
	return nil
}

func (r *resumingReader) Read(p []byte) (int, error) {
	for {
		if err := r.begin(); err != nil {
			return 0, err
		}
		n, err := r.body.Read(p)
		r.at += int64(n)
		switch {
		case n > 0:
			return n, nil
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			r.close()
			if err := r.retry(err); err != nil {
				return 0, err
			}
		}
	}
}

// retry waits before another try, or returns err if there is none left.
func (r *resumingReader) retry(err error) error {
	if r.at-r.mark >= lfsProgress {
		r.mark, r.failed = r.at, 0
	}
	if r.failed++; r.failed >= tries || !passesInTime(err) {
		return err
	}
	return r.pause(err, r.wait*time.Duration(r.failed))
}

func (r *resumingReader) close() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}
