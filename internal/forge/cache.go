package forge

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// DefaultCacheBytes is how much a Cache keeps unless told otherwise.
const DefaultCacheBytes = 256 << 20

// keptHeaders are those of an answer that matter when its body is used again.
var keptHeaders = []string{"Content-Type", "Link", "X-Total", "X-Total-Count", "X-Next-Page", "X-Total-Pages", "X-Hasmore"}

// Cache keeps answers in a directory, so that forges can say that nothing changed. What cannot be read or written there is as if it
// were not there. Files are readable by the user alone. Safe for concurrent use, also by several processes.
type Cache struct {
	dir string
	max int64

	mu   sync.Mutex
	size int64 // bytes in the directory; -1 before they were counted
}

// NewCache opens a cache of at most maxBytes (0 for DefaultCacheBytes) in dir, which is made if need be.
func NewCache(dir string, maxBytes int64) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap("cache", fault.ErrInvalid, err, "")
	}
	if maxBytes <= 0 {
		maxBytes = DefaultCacheBytes
	}
	return &Cache{dir: dir, max: maxBytes, size: -1}, nil
}

// cacheEntry is one answer. It lies in its file as a line of JSON, followed by the body.
type cacheEntry struct {
	Header http.Header `json:"header"`
	Sum    string      `json:"sha256"` // of the body
	body   []byte
}

// condition asks for the answer only where it changed. A nil entry asks for it anyway.
func (e *cacheEntry) condition(h http.Header) {
	if e == nil {
		return
	}
	if tag := e.Header.Get("ETag"); tag != "" {
		h.Set("If-None-Match", tag)
	} else {
		h.Set("If-Modified-Since", e.Header.Get("Last-Modified"))
	}
}

// revived is the kept answer, as the forge confirmed it by a 304 with the headers h.
func (e *cacheEntry) revived(h http.Header) *Response {
	merged := h.Clone()
	for name, values := range e.Header {
		if _, newer := merged[name]; !newer {
			merged[name] = values
		}
	}
	return &Response{Status: http.StatusOK, Header: merged, Body: e.body, Cached: true}
}

// cached finds the kept answer to a call.
func (c *Client) cached(l call, credentials http.Header) *cacheEntry {
	if c.o.Cache == nil || l.method != http.MethodGet {
		return nil
	}
	return c.o.Cache.load(c.cacheName(l, credentials), c.o.Clock())
}

// keep puts an answer by, where the forge could confirm it later.
func (c *Client) keep(l call, credentials http.Header, r *Response) {
	if c.o.Cache == nil || l.method != http.MethodGet || r.Status != http.StatusOK ||
		(r.Header.Get("ETag") == "" && r.Header.Get("Last-Modified") == "") {
		return
	}
	e := &cacheEntry{Header: http.Header{}, body: r.Body}
	for _, name := range append([]string{"Etag", "Last-Modified"}, keptHeaders...) {
		if values := r.Header.Values(name); len(values) > 0 {
			e.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	c.o.Cache.save(c.cacheName(l, credentials), e)
}

// cacheName is made of all that the answer may depend on: what one token sees, another may not.
func (c *Client) cacheName(l call, credentials http.Header) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", l.url.String())
	credentials.Write(sum)                  //nolint:errcheck // a hash takes everything
	json.NewEncoder(sum).Encode(c.o.Header) //nolint:errcheck // the same; maps are encoded in order
	return hex.EncodeToString(sum.Sum(nil))
}

func (c *Cache) load(name string, now time.Time) *cacheEntry {
	path := filepath.Join(c.dir, name)
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxBody+maxBody/8 {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	e := parseEntry(content)
	if e == nil {
		os.Remove(path) //nolint:errcheck // the next answer replaces it
		return nil
	}
	os.Chtimes(path, now, now) //nolint:errcheck // it only goes sooner then
	return e
}

// parseEntry reads a file; nil for one that is damaged.
func parseEntry(content []byte) *cacheEntry {
	head, body, ok := bytes.Cut(content, []byte("\n"))
	e := &cacheEntry{body: body}
	if !ok || json.Unmarshal(head, e) != nil || e.Sum != sumOf(body) || (e.Header.Get("ETag") == "" && e.Header.Get("Last-Modified") == "") {
		return nil
	}
	return e
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func (c *Cache) save(name string, e *cacheEntry) {
	e.Sum = sumOf(e.body)
	head, err := json.Marshal(e)
	if err != nil {
		return
	}
	size := int64(len(head)) + 1 + int64(len(e.body))
	if size > c.max/4 {
		return
	}
	f, err := os.CreateTemp(c.dir, ".new-*") // with mode 0600
	if err != nil {
		return
	}
	_, err = f.Write(slices.Concat(head, []byte("\n"), e.body))
	if closeErr := f.Close(); err != nil || closeErr != nil {
		os.Remove(f.Name()) //nolint:errcheck // a leftover is removed with the oldest
		return
	}
	if os.Rename(f.Name(), filepath.Join(c.dir, name)) != nil {
		os.Remove(f.Name()) //nolint:errcheck // the same
		return
	}
	c.grow(size)
}

// grow counts what was written, and makes room where it is too much.
func (c *Cache) grow(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size >= 0 && c.size+bytes <= c.max {
		c.size += bytes
		return
	}
	c.size = c.shrink()
}

// shrink removes the files that were not used for longest, down to three quarters of the limit where it is passed, and returns what is left.
func (c *Cache) shrink() (size int64) {
	type file struct {
		name string
		size int64
		used time.Time
	}
	var files []file
	entries, _ := os.ReadDir(c.dir) // what cannot be listed is not removed
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, file{entry.Name(), info.Size(), info.ModTime()})
			size += info.Size()
		}
	}
	if size <= c.max {
		return size
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name)) })
	for _, f := range files {
		if size <= c.max/4*3 {
			break
		}
		if os.Remove(filepath.Join(c.dir, f.name)) == nil {
			size -= f.size
		}
	}
	return size
}
