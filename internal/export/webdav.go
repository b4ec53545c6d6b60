package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/studio-b12/gowebdav"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// WebDAVOptions says where a server is and who asks.
type WebDAVOptions struct {
	URL      string // http or https, without credentials
	Path     string // directory below it
	Username string
	Password fault.Secret
	Scratch  string
}

// WebDAV is a directory of a WebDAV server.
type WebDAV struct {
	o    WebDAVOptions
	url  *url.URL
	auth gowebdav.Authorizer
	http *http.Transport
}

// NewWebDAV checks the options; it does not ask the server.
func NewWebDAV(o WebDAVOptions) (*WebDAV, error) {
	const op = "open WebDAV export"
	u, err := url.Parse(o.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(op, fault.ErrInvalid, "its URL is not of the form https://host/path", "")
	case u.User != nil:
		return nil, fault.New(op, fault.ErrInvalid, "its URL holds credentials", "give user name and password apart from the URL")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // it is one
	transport.ResponseHeaderTimeout = requestTime
	return &WebDAV{o: o, url: u, auth: gowebdav.NewAutoAuth(o.Username, o.Password.Reveal()), http: transport}, nil
}

// String is the URL.
func (d *WebDAV) String() string { return d.url.JoinPath(d.o.Path).Redacted() }

// at is the path of a name on the server.
func (d *WebDAV) at(name string) string { return path.Join("/", d.o.Path, name) }

// maxListing is the longest answer that is no file, in bytes.
const maxListing = 64 << 20

// bound sends requests that end with a context, which the library does not know.
type bound func(*http.Request) (*http.Response, error)

// RoundTrip sends the request.
func (b bound) RoundTrip(r *http.Request) (*http.Response, error) { return b(r) }

func (d *WebDAV) client(ctx context.Context) *gowebdav.Client {
	c := gowebdav.NewAuthClient(d.url.String(), d.auth)
	c.SetTransport(bound(func(r *http.Request) (*http.Response, error) { return d.send(r.WithContext(ctx)) }))
	return c
}

// send sends a request to the server, and nowhere else: the library follows redirects, and has a kind of login that does, to wherever
// an answer says.
func (d *WebDAV) send(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != d.url.Scheme || r.URL.Host != d.url.Host {
		return nil, fault.New("", fault.ErrRefused, fmt.Sprintf("the server sends us to %.300q", r.URL.Scheme+"://"+r.URL.Host),
			"if that is the server, give its URL so")
	}
	answer, err := d.http.RoundTrip(r)
	if err == nil && r.Method != http.MethodGet {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxListing)
	}
	return answer, err
}

// do makes a call until it succeeds or fails for good.
func (d *WebDAV) do(ctx context.Context, op, name string, limit time.Duration, call func(c *gowebdav.Client) error) error {
	return again(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return davFault(op+" "+name+" on "+d.String(), call(d.client(ctx)))
	})
}

func davFault(op string, err error) error {
	var answer gowebdav.StatusError
	if err == nil || !errors.As(err, &answer) {
		return networkFault(op, err)
	}
	return statusFault(op, answer.Status, err)
}

// List reads a collection.
func (d *WebDAV) List(ctx context.Context, dir string) ([]point.Entry, error) {
	var infos []os.FileInfo
	err := d.do(ctx, "list", dir, requestTime, func(c *gowebdav.Client) (err error) {
		infos, err = c.ReadDir(d.at(dir))
		return err
	})
	var answer gowebdav.StatusError
	if errors.Is(err, fault.ErrNotFound) || (errors.As(err, &answer) && answer.Status == http.StatusMethodNotAllowed) { // a file, the library says
		return nil, nil
	}
	var entries []point.Entry
	for _, i := range infos {
		switch name := i.Name(); {
		case !fs.ValidPath(name) || strings.Contains(name, "/"):
		case i.IsDir():
			entries = append(entries, dirEntry(name))
		default:
			entries = append(entries, fileEntry(name, i.Size(), i.ModTime()))
		}
	}
	return entries, err
}

// Open reads a file by blocks.
func (d *WebDAV) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	var info os.FileInfo
	err := d.do(ctx, "read", name, requestTime, func(c *gowebdav.Client) (err error) {
		info, err = c.Stat(d.at(name))
		return err
	})
	if err == nil && info.IsDir() {
		err = fault.New("read "+name, fault.ErrNotFound, "a directory", "")
	}
	if err != nil {
		return nil, err
	}
	return newBlockFile(info.Size(), func(from, n int64) (data []byte, err error) {
		err = d.do(ctx, "read", name, requestTime, func(c *gowebdav.Client) error {
			r, err := c.ReadStreamRange(d.at(name), from, n)
			if err != nil {
				return err
			}
			defer r.Close()
			data, err = io.ReadAll(io.LimitReader(r, n))
			return err
		})
		return data, err
	}), nil
}

// Put uploads beside and moves: not every server takes back what a broken connection left.
func (d *WebDAV) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	from, err := newSpool(d.o.Scratch, body)
	if err != nil {
		return 0, err
	}
	defer from.close()
	beside := path.Join(path.Dir(name), unfinished())
	err = d.do(ctx, "write", name, transferTime(from.size), func(c *gowebdav.Client) error {
		return c.WriteStreamWithLength(d.at(beside), from.content(), from.size, 0)
	})
	if err == nil {
		err = d.do(ctx, "write", name, requestTime, func(c *gowebdav.Client) error { return c.Rename(d.at(beside), d.at(name), true) })
	}
	if err != nil {
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime/4)
		defer cancel()
		_ = d.client(tidy).Remove(d.at(beside)) // the first error says more
		return 0, err
	}
	return from.size, nil
}

// MakeDir makes a collection and those above.
func (d *WebDAV) MakeDir(ctx context.Context, dir string) error {
	return d.do(ctx, "make", dir, requestTime, func(c *gowebdav.Client) error { return c.MkdirAll(d.at(dir), 0) })
}

// Remove removes a file or a collection.
func (d *WebDAV) Remove(ctx context.Context, name string) error {
	return d.do(ctx, "remove", name, requestTime, func(c *gowebdav.Client) error { return c.RemoveAll(d.at(name)) })
}

// Copy has the server copy a file.
func (d *WebDAV) Copy(ctx context.Context, from, to string) error {
	return d.do(ctx, "copy to", to, requestTime, func(c *gowebdav.Client) error {
		if err := c.MkdirAll(d.at(path.Dir(to)), 0); err != nil {
			return err
		}
		return c.Copy(d.at(from), d.at(to), true)
	})
}
