package forge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"sync"

	"github.com/backstay/backstay/internal/fault"
)

// Upload is a file on its way to a forge.
type Upload struct {
	Name string
	Type string // media type; "" for "application/octet-stream"
	Size int64  // bytes
	Body io.Reader
	// Field is the name of the form's field that the file is sent in; "" to send the bytes alone.
	Field string
}

// Send uploads a file as it comes, and decodes the answer into an unless that is nil. It is sent again where the forge puts it off, or,
// being PUT, breaks off, if Body is an io.Seeker.
// Errors: those of Do; whatever Body ends with.
func (c *Client) Send(ctx context.Context, method, path string, query url.Values, u Upload, into any) error {
	target, err := c.target(path, query)
	if err != nil {
		return err
	}
	before, after, mediaType, err := u.frame()
	if err != nil {
		return err
	}
	l := call{op: method + " " + printable(target.Host+target.Path), method: method, url: target, into: into, idempotent: method == http.MethodPut}
	sent := false
	return c.again(ctx, l, func() error {
		if err := u.rewind(sent); err != nil {
			return err
		}
		sent = true
		ctx, watch := newWatch(ctx, fileIdle)
		defer watch.stop()
		body := &stirring{from: io.MultiReader(bytes.NewReader(before), io.LimitReader(u.Body, u.Size), bytes.NewReader(after)), watch: watch}
		defer body.end()
		req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
		if err != nil {
			return fault.New("", fault.ErrInvalid, "it is no request that can be sent", "")
		}
		req.ContentLength = int64(len(before)) + u.Size + int64(len(after))
		req.Header.Set("Content-Type", mediaType)
		return watch.reason(c.deliver(ctx, l, req))
	})
}

// frame is what comes before and after the bytes.
func (u Upload) frame() (before, after []byte, mediaType string, err error) {
	if u.Field == "" {
		if u.Type == "" {
			u.Type = "application/octet-stream"
		}
		return nil, nil, u.Type, nil
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if _, err := w.CreateFormFile(u.Field, u.Name); err != nil {
		return nil, nil, "", err
	}
	head := form.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return form.Bytes()[:head], form.Bytes()[head:], w.FormDataContentType(), nil
}

// rewind goes back to the beginning of what was sent before.
func (u Upload) rewind(sent bool) error {
	if !sent {
		return nil
	}
	if s, ok := u.Body.(io.Seeker); ok {
		_, err := s.Seek(0, io.SeekStart)
		return err
	}
	return fault.New("", fault.ErrUnavailable, "it broke off, and cannot be read from its beginning", "run it again")
}

// deliver sends one request that carries a file, and judges the answer. No redirect is followed: the bytes go to the forge alone.
func (c *Client) deliver(ctx context.Context, l call, req *http.Request) error {
	credentials := http.Header{}
	if c.o.Authorize != nil {
		if err := c.o.Authorize(ctx, credentials); err != nil {
			return err
		}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.o.UserAgent)
	for name, value := range c.o.Header {
		req.Header.Set(name, value)
	}
	maps.Copy(req.Header, credentials)
	c.requests.Add(1)
	client := http.Client{Transport: c.http.Transport, CheckRedirect: c.http.CheckRedirect} // no time limit on the whole: files are long
	answer, err := client.Do(req)
	if err != nil {
		return c.unreachable(ctx, err, credentials)
	}
	body, err := readBody(answer)
	if err != nil {
		return err
	}
	c.note(l.resource, answer.Header)
	r := &Response{Status: answer.StatusCode, Header: answer.Header, Body: body}
	if r.Status >= 300 {
		return c.refused(l, r, credentials)
	}
	return decode(r, l.into)
}

// stirring is a body that tells the watch that something is sent. An answer may come while the body is still being read, which goes on
// beside what follows; once it has ended, nothing is read any more.
type stirring struct {
	mu    sync.Mutex
	ended bool
	from  io.Reader
	watch *watch
}

// Read implements io.Reader.
func (s *stirring) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, errAnswered
	}
	s.watch.stir()
	return s.from.Read(p)
}

// end waits for a read that is under way, and lets no other begin.
func (s *stirring) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

var errAnswered = errors.New("the answer came before the file was sent") //nolint:gochecknoglobals // a constant, but for its type
