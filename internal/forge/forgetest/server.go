package forgetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server serves an API, records what it was asked, and fails as told.
type Server struct {
	URL string

	t     testing.TB
	api   http.Handler
	etags bool
	date  func() time.Time

	mu       sync.Mutex
	recorded []Request
	breaks   []*Break
	header   http.Header
	previous *httptest.ResponseRecorder // the newest good answer to a request that a Break with Repeat matches
}

// Request is a request as it was recorded.
type Request struct {
	Method string
	Path   string
	Query  string
	Header http.Header
	Body   string
	Status int // of the answer
}

// Break makes some requests fail.
type Break struct {
	Match func(r *http.Request) bool // nil for all
	After int                        // so many matching requests are let through first
	Times int                        // so many are broken then; 0 for all that follow
	Fault Fault

	matched int
}

// Fault answers a request in place of the API. good is what the API would have answered, previous what it answered to the matching
// request before (nil for none).
type Fault func(w http.ResponseWriter, r *http.Request, good, previous *httptest.ResponseRecorder)

// NewServer serves an API until the test ends. With etags its answers to GET carry ETags and repeat as 304. now is the server's clock.
func NewServer(t testing.TB, api http.Handler, etags bool, now func() time.Time) *Server {
	t.Helper()
	s := &Server{t: t, api: api, etags: etags, date: now, header: http.Header{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Break adds a fault.
func (s *Server) Break(b Break) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks = append(s.breaks, &b)
}

// Mend takes all faults away, and forgets what was recorded.
func (s *Server) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks, s.recorded, s.previous = nil, nil, nil
	s.header = http.Header{}
}

// SetHeader adds a header to every answer.
func (s *Server) SetHeader(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header.Set(name, value)
}

// Requests lists the requests since the start or the last Mend.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.recorded...)
}

// Count counts the requests that f is true for.
func (s *Server) Count(f func(Request) bool) (n int) {
	for _, r := range s.Requests() {
		if f(r) {
			n++
		}
	}
	return n
}

// ServeHTTP answers with the API's answer, or with the fault that is due.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	good := httptest.NewRecorder()
	s.mu.Lock()
	maps.Copy(good.Header(), s.header)
	s.mu.Unlock()
	good.Header().Set("Date", s.date().UTC().Format(http.TimeFormat))
	s.api.ServeHTTP(good, r)
	r.Body = io.NopCloser(bytes.NewReader(body))

	status := &statusWriter{ResponseWriter: w, record: func(status int) { s.record(r, string(body), status) }}
	defer status.end()
	if fault, previous := s.due(r, good); fault != nil {
		status.Header().Set("Date", good.Header().Get("Date"))
		fault(status, r, good, previous)
		return
	}
	s.confirm(status, r, good)
}

// due finds the fault that is due for a request.
func (s *Server) due(r *http.Request, good *httptest.ResponseRecorder) (Fault, *httptest.ResponseRecorder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.breaks {
		if b.Match != nil && !b.Match(r) {
			continue
		}
		b.matched++
		if b.matched > b.After && (b.Times == 0 || b.matched <= b.After+b.Times) {
			return b.Fault, s.previous
		}
		s.previous = good
	}
	return nil, nil
}

// confirm answers, with 304 where the client has that answer already.
func (s *Server) confirm(w http.ResponseWriter, r *http.Request, good *httptest.ResponseRecorder) {
	if s.etags && r.Method == http.MethodGet && good.Code == http.StatusOK {
		tag := fmt.Sprintf(`W/"%x"`, sha256.Sum256([]byte(r.Header.Get("Authorization")+good.Body.String())))
		good.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			good.Header().Del("Content-Length")
			maps.Copy(w.Header(), good.Header())
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	Replay(w, good)
}

func (s *Server) record(r *http.Request, body string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recorded = append(s.recorded, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body, status})
}

// statusWriter records a request before anything of its answer is sent: who has the whole answer may look at once at what was recorded.
type statusWriter struct {
	http.ResponseWriter
	record   func(status int)
	recorded bool
}

func (w *statusWriter) WriteHeader(status int) {
	w.note(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	w.note(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// end records a request that was not answered.
func (w *statusWriter) end() { w.note(0) }

func (w *statusWriter) note(status int) {
	if !w.recorded {
		w.recorded = true
		w.record(status)
	}
}

// Replay sends a recorded answer.
func Replay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes()) //nolint:errcheck // the client may have gone away
}

// Answer is a Fault: another status, headers "Name: value", and body.
func Answer(status int, body string, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _, _ *httptest.ResponseRecorder) {
		w.Header().Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ":")
			w.Header().Set(name, strings.TrimSpace(value))
		}
		w.WriteHeader(status)
		io.WriteString(w, body) //nolint:errcheck // the client may have gone away
	}
}

// Truncate is a Fault: the answer breaks off in its middle.
func Truncate(w http.ResponseWriter, _ *http.Request, good, _ *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), good.Header())
	w.Header().Set("Content-Length", fmt.Sprint(good.Body.Len()))
	w.WriteHeader(good.Code)
	w.Write(good.Body.Bytes()[:good.Body.Len()/2]) //nolint:errcheck // that is the point
}

// Halve is a Fault: half of the answer, as if it were whole.
func Halve(w http.ResponseWriter, _ *http.Request, good, _ *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), good.Header())
	w.WriteHeader(good.Code)
	w.Write(good.Body.Bytes()[:good.Body.Len()/2]) //nolint:errcheck // the client may have gone away
}

// Repeat is a Fault: the answer to the request before, with its links.
func Repeat(w http.ResponseWriter, _ *http.Request, good, previous *httptest.ResponseRecorder) {
	if previous == nil {
		previous = good
	}
	Replay(w, previous)
}

// HangUp is a Fault: the connection ends without an answer.
func HangUp(w http.ResponseWriter, _ *http.Request, _, _ *httptest.ResponseRecorder) {
	panic(http.ErrAbortHandler)
}

// Secondary is a Fault: GitHub's secondary rate limit; after is the value of Retry-After, "" for none.
func Secondary(after string) Fault {
	const body = `{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}`
	if after == "" {
		return Answer(http.StatusForbidden, body)
	}
	return Answer(http.StatusForbidden, body, "Retry-After: "+after)
}
