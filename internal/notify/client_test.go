package notify_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
)

const token = "tk_4f1bc1cc25d3" // of every service here; no error may show it

// channels are all channels over HTTP, at address.
func channels(address fault.Secret) map[string]notify.Channel {
	c := newClient()
	return map[string]notify.Channel{
		"ntfy":    notify.Ntfy{Client: c, URL: address, Token: token},
		"gotify":  notify.Gotify{Client: c, URL: address, Token: token},
		"apprise": notify.Apprise{Client: c, URL: address, Config: token, URLs: []fault.Secret{"json://" + token}},
		"slack":   notify.Slack{Client: c, URL: address + "/" + token},
		"webhook": notify.Webhook{Client: c, URL: address + "?token=" + token},
	}
}

func TestWhatServicesAnswer(t *testing.T) {
	tests := []struct {
		status int
		want   error
		tries  int
	}{
		{http.StatusUnauthorized, fault.ErrDenied, 1},
		{http.StatusForbidden, fault.ErrDenied, 1},
		{http.StatusNotFound, fault.ErrNotFound, 1},
		{http.StatusBadRequest, fault.ErrInvalid, 1},
		{http.StatusTooManyRequests, fault.ErrThrottled, 3},
		{http.StatusInternalServerError, fault.ErrUnavailable, 3},
		{http.StatusServiceUnavailable, fault.ErrUnavailable, 3},
	}
	for _, test := range tests {
		s := newService(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(test.status)
			_, _ = w.Write([]byte("no such thing \x1b[31m " + r.URL.String() + r.Header.Get("Authorization") + r.Header.Get("X-Gotify-Key")))
		})
		for name, channel := range channels(s.url("/a")) {
			before := len(s.all())
			err := channel.Send(t.Context(), notify.MessageOf(badRun()))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("%s, %d: %v, want %v", name, test.status, err, test.want)
			}
			if strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%s, %d: it shows a secret, or drives the terminal: %q", name, test.status, err)
			}
			if tries := len(s.all()) - before; tries != test.tries {
				t.Errorf("%s, %d: %d tries, want %d", name, test.status, tries, test.tries)
			}
		}
	}
}

func TestAServiceThatComesBack(t *testing.T) {
	var tries atomic.Int32
	s := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{healthchecks(s)}}
	if err := n.Ended(t.Context(), goodRun()); err != nil {
		t.Error(err)
	}
	if tries.Load() != 3 {
		t.Errorf("%d tries", tries.Load())
	}
}

func TestAServiceThatDoesNotAnswer(t *testing.T) {
	release := make(chan struct{})
	s := newService(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	client := notify.NewClient(notify.ClientOptions{Timeout: 5 * time.Millisecond, Backoff: time.Millisecond})
	n := notify.Notifier{Client: client, Heartbeats: []notify.Heartbeat{{Success: s.url("/" + token)}}}
	err := n.Ended(t.Context(), goodRun())
	if !errors.Is(err, fault.ErrUnavailable) || strings.Contains(err.Error(), token) || !strings.HasSuffix(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerWithoutEnd(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		line := strings.Repeat("x", 4096)
		for range 256 {
			if _, err := w.Write([]byte(line)); err != nil {
				return
			}
		}
	})
	if err := (notify.Webhook{Client: newClient(), URL: s.url("/")}).Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Error(err)
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	for _, address := range []fault.Secret{"secretword", "file:///secretword", "https://", "https://host/%zzsecretword", "ht!tp://secretword"} {
		n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{{Start: address, Success: address, Failure: address}}}
		err := n.Ended(t.Context(), badRun())
		if !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "secretword") {
			t.Errorf("%q: %v", address.Reveal(), err)
		}
	}
}

// What was sent to one host is for that host alone: credentials, the message, and the address itself.
func TestRedirectsTakeNothingElsewhere(t *testing.T) {
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		other := newService(t, nil)
		elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
		s := newService(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere+"/"+token, status) })
		for name, channel := range channels(s.url("/a")) {
			if err := channel.Send(t.Context(), notify.MessageOf(badRun())); err == nil || strings.Contains(err.Error(), token) {
				t.Errorf("%s, %d: %v", name, status, err)
			}
		}
		n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{healthchecks(s)}}
		if err := n.Ended(t.Context(), badRun()); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("heartbeat, %d: %v", status, err)
		}
		if got := other.all(); len(got) != 0 {
			t.Errorf("%d: the other host got %+v", status, got)
		}
	}
}

func TestRedirectsWithinAHost(t *testing.T) {
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/moved") {
				http.Redirect(w, r, "/moved"+r.URL.Path, status)
			}
		}
	}
	s := newService(t, redirect(http.StatusTemporaryRedirect))
	if err := (notify.Gotify{Client: newClient(), URL: s.url(""), Token: token}).Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Error(err)
	}
	if got := s.all(); len(got) != 2 || got[1].Path != "/moved/message" || got[1].Method != "POST" || got[1].Body == "" ||
		got[1].Header.Get("X-Gotify-Key") != token || got[1].Header.Get("Referer") != "" {
		t.Errorf("got %+v", got)
	}
	// A POST that is answered by "see other" would be followed by a GET: nothing is delivered then.
	s = newService(t, redirect(http.StatusFound))
	if err := (notify.Webhook{Client: newClient(), URL: s.url("/")}).Send(t.Context(), notify.MessageOf(badRun())); err == nil {
		t.Error("a message that was not delivered counts as delivered")
	}
	loop := newService(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) })
	n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{{Success: loop.url("/")}}}
	if err := n.Ended(t.Context(), goodRun()); err == nil || !strings.Contains(err.Error(), "too many redirects") {
		t.Errorf("got %v", err)
	}
}
