package kube

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startingServer takes an API server that has just started at its word only when it is ready. Until then it may lack the rights that
// users have, and kinds: such an answer becomes "try again in a moment", which clients do by themselves, and then take for a server that
// is away.
type startingServer struct {
	next http.RoundTripper
	now  func() time.Time

	mu     sync.Mutex
	tells  bool      // it has said that it is ready: it lets us ask
	silent time.Time // since when it has refused to say; zero where it did not
}

// silence is how long a server that does not let us ask whether it is ready is thought to start.
const silence = 15 * time.Second

func awaitStart(next http.RoundTripper) http.RoundTripper {
	return &startingServer{next: next, now: time.Now} //nolint:forbidigo // the server is away by the real clock
}

// RoundTrip makes a request.
func (s *startingServer) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := s.next.RoundTrip(request)
	if err != nil || !doubtful(response) {
		return response, err
	}
	if !s.ready(request) {
		response.Body.Close()
		return tryAgain(request), nil
	}
	again, ok := repeated(request)
	if !ok {
		return response, nil
	}
	response.Body.Close()
	return s.next.RoundTrip(again) // it may have become ready since it answered
}

// repeated is a request once more, if what it sends can be sent again.
func repeated(request *http.Request) (*http.Request, bool) {
	again := request.Clone(request.Context())
	if request.Body == nil || request.Body == http.NoBody {
		return again, true
	}
	if request.GetBody == nil {
		return nil, false
	}
	body, err := request.GetBody()
	again.Body = body
	return again, err == nil
}

// doubtful reports whether an answer may be otherwise once the server is ready: a refusal, or a path that it does not know. That there
// is no object of a kind that it does know is certain.
func doubtful(r *http.Response) bool {
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusNotFound:
		return strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain")
	}
	return false
}

// ready asks the server whether it has started, with the credentials of a request. Everybody may ask, but where an administrator took
// that right away, or before the server knows who may what: one that refuses to say starts if it has said so before, else for a while.
func (s *startingServer) ready(request *http.Request) bool {
	ask, err := http.NewRequestWithContext(request.Context(), http.MethodGet, request.URL.Scheme+"://"+request.URL.Host+"/readyz", http.NoBody)
	if err != nil {
		return true
	}
	if credentials := request.Header.Get("Authorization"); credentials != "" {
		ask.Header.Set("Authorization", credentials)
	}
	response, err := s.next.RoundTrip(ask)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch response.StatusCode {
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		return false
	case http.StatusOK:
		s.tells = true
	case http.StatusUnauthorized, http.StatusForbidden:
		if s.silent.IsZero() {
			s.silent = s.now()
		}
		return !s.tells && s.now().Sub(s.silent) > silence
	}
	return true
}

// tryAgain is the answer of a server that has no time.
func tryAgain(request *http.Request) *http.Response {
	const code = http.StatusServiceUnavailable
	text, _ := json.Marshal(metav1.Status{ //nolint:errchkjson // it is known to encode
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code,
		Reason: metav1.StatusReasonServiceUnavailable, Message: "the API server is starting",
	})
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {"1"}},
		Body:   io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)),
	}
}
