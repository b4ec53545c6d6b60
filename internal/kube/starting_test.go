package kube

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// start is an API server that refuses everything until it has said so many times that it is not ready.
type start struct {
	refuses atomic.Int64
	code    int
	kind    string // of its refusals
	asked   atomic.Int64
	always  bool // it refuses, though it is ready
	quick   bool // it is ready when it is asked, though it was not before
	silent  bool // it refuses to say whether it is ready
}

func (s *start) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/readyz":
		if s.refuses.Add(-1) >= 0 && !s.quick {
			w.WriteHeader(map[bool]int{false: http.StatusInternalServerError, true: http.StatusForbidden}[s.silent])
		}
		return
	case s.refuses.Load() > 0 || s.always:
		s.asked.Add(1)
		w.Header().Set("Content-Type", s.kind)
		w.WriteHeader(s.code)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden"}`))
		return
	}
	s.asked.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop"}}`))
}

func TestServerThatStartsIsAskedAgain(t *testing.T) {
	const text, document = "text/plain; charset=utf-8", "application/json"
	for name, test := range map[string]struct {
		code   int
		kind   string
		always bool
		quick  bool
		silent bool
		asked  int64 // in all
		fails  bool
	}{
		"rights that come":      {http.StatusForbidden, document, false, false, false, 3, false},
		"users that come":       {http.StatusUnauthorized, document, false, false, false, 3, false},
		"kinds that come":       {http.StatusNotFound, text, false, false, false, 3, false},
		"an object that is not": {http.StatusNotFound, document, false, false, false, 1, true},
		"ready meanwhile":       {http.StatusForbidden, document, false, true, false, 2, false},
		"a right that is not":   {http.StatusForbidden, document, true, false, false, 4, true},
		"rights and all":        {http.StatusForbidden, document, false, false, true, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &start{code: test.code, kind: test.kind, always: test.always, quick: test.quick, silent: test.silent}
			s.refuses.Store(2)
			if test.quick {
				s.refuses.Store(1)
			}
			server := httptest.NewServer(s)
			defer server.Close()
			config := &rest.Config{Host: server.URL, WrapTransport: awaitStart}
			core, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = core.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
			if (err != nil) != test.fails || s.asked.Load() != test.asked {
				t.Errorf("asked %d times, %v; want %d", s.asked.Load(), err, test.asked)
			}
			if test.always && !apierrors.IsForbidden(err) {
				t.Errorf("refused for good: %v", err)
			}
		})
	}
}

// A server that does not let us ask is believed after a while, and one that did is not ready when it refuses.
func TestServerThatDoesNotSay(t *testing.T) {
	for name, test := range map[string]struct {
		told  bool // it was ready once
		after time.Duration
		code  int
	}{
		"at first":        {false, 0, http.StatusServiceUnavailable},
		"after a while":   {false, silence + time.Second, http.StatusForbidden},
		"that said so":    {true, 0, http.StatusServiceUnavailable},
		"and still later": {true, time.Hour, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mute := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
			server := httptest.NewServer(mute)
			defer server.Close()
			begun := time.Now()
			now := begun
			s := &startingServer{next: http.DefaultTransport, now: func() time.Time { return now }, tells: test.told}
			get := func() int {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/namespaces/shop", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				response, err := s.RoundTrip(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				return response.StatusCode
			}
			if code := get(); code != http.StatusServiceUnavailable {
				t.Fatalf("the first answer is %d, want %d", code, http.StatusServiceUnavailable)
			}
			now = begun.Add(test.after)
			if code := get(); code != test.code {
				t.Errorf("after %s the answer is %d, want %d", test.after, code, test.code)
			}
		})
	}
}
