package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// received is what a service got.
type received struct {
	Method, Path, Query, Body string
	Header                    http.Header
}

// service is a server that notes what it gets, and answers with a function's statuses.
type service struct {
	*httptest.Server
	mu  sync.Mutex
	got []received
}

func newService(t *testing.T, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		s.mu.Lock()
		s.got = append(s.got, received{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header.Clone()})
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) all() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

// only returns the single thing that was received.
func (s *service) only(t *testing.T) received {
	t.Helper()
	got := s.all()
	if len(got) != 1 {
		t.Fatalf("%d requests, want 1: %+v", len(got), got)
	}
	return got[0]
}

func (s *service) url(path string) fault.Secret { return fault.Secret(s.URL + path) }

// newClient is a client that is quick to try again, and gives up on no server that is merely slow: tests count what a server got.
func newClient() *notify.Client {
	return notify.NewClient(notify.ClientOptions{UserAgent: "backstay/test", Timeout: 30 * time.Second, Backoff: time.Millisecond})
}

func TestNtfy(t *testing.T) {
	s := newService(t, nil)
	channel := notify.Ntfy{Client: newClient(), URL: s.url("/alerts"), Token: "tk_secret", Email: "ops@example.com"}
	m := notify.MessageOf(badRun())
	if err := channel.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := s.only(t)
	if got.Method != "POST" || got.Path != "/alerts" || got.Body != m.Text {
		t.Errorf("got %+v", got)
	}
	for name, want := range map[string]string{
		"Title": m.Title, "Priority": "high", "Tags": "rotating_light", "Email": "ops@example.com",
		"Authorization": "Bearer tk_secret", "User-Agent": "backstay/test",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
}

func TestNtfyWithAPassword(t *testing.T) {
	s := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "hunter22" {
			t.Errorf("user %q, password %q", user, password)
		}
	})
	run := goodRun()
	run.Policy = "nächtlich"
	channel := notify.Ntfy{Client: newClient(), URL: s.url("/alerts"), Username: "me", Password: "hunter22"}
	if err := channel.Send(t.Context(), notify.MessageOf(run)); err != nil {
		t.Fatal(err)
	}
	got := s.only(t)
	if got.Header.Get("Title") != "=?utf-8?b?QmFja3VwIG7DpGNodGxpY2g6IGNvbXBsZXRl?=" || got.Header.Get("Priority") != "default" {
		t.Errorf("got %v", got.Header)
	}
}

// document decodes what was received.
func document(t *testing.T, body string) map[string]any {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return d
}

func TestGotify(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		s := newService(t, nil)
		m := notify.MessageOf(badRun())
		if err := (notify.Gotify{Client: newClient(), URL: s.url("/push" + slash), Token: "Asecret"}).Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got := s.only(t)
		if got.Path != "/push/message" || got.Query != "" || got.Header.Get("X-Gotify-Key") != "Asecret" {
			t.Errorf("got %+v", got)
		}
		if d := document(t, got.Body); d["title"] != m.Title || d["message"] != m.Text || d["priority"] != 8.0 {
			t.Errorf("got %v", d)
		}
	}
}

func TestApprise(t *testing.T) {
	s := newService(t, nil)
	m := notify.MessageOf(badRun())
	stored := notify.Apprise{Client: newClient(), URL: s.url("/"), Config: "a key", Tags: []string{"ops", "dev"}}
	stateless := notify.Apprise{Client: newClient(), URL: s.url(""), URLs: []fault.Secret{"tgram://secret/1"}}
	for _, channel := range []notify.Channel{stored, stateless} {
		if err := channel.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	got := s.all()
	if got[0].Path != "/notify/a key" || got[1].Path != "/notify/" {
		t.Errorf("paths %q and %q", got[0].Path, got[1].Path)
	}
	first, second := document(t, got[0].Body), document(t, got[1].Body)
	if first["title"] != m.Title || first["body"] != m.Text || first["type"] != "failure" || first["urls"] != nil ||
		len(first["tags"].([]any)) != 2 {
		t.Errorf("got %v", first)
	}
	if urls := second["urls"].([]any); len(urls) != 1 || urls[0] != "tgram://secret/1" || second["tags"] != nil {
		t.Errorf("got %v", second)
	}
}

func TestSlackMentionsNobody(t *testing.T) {
	s := newService(t, nil)
	run := badRun()
	run.Sources[0].Repositories[1].Reason = "<!channel> ``` @everyone " + strings.Repeat("x", 250)
	for i := range 20 {
		run.Warnings = append(run.Warnings, strings.Repeat("w", 200+i))
	}
	if err := (notify.Slack{Client: newClient(), URL: s.url("/services/T0/B0/secret")}).Send(t.Context(), notify.MessageOf(run)); err != nil {
		t.Fatal(err)
	}
	text := document(t, s.only(t).Body)["text"].(string)
	if strings.Contains(text, "<!") || strings.Count(text, "```") != 2 || !strings.HasSuffix(text, "\n```") || len(text) > 2000 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	if !strings.HasPrefix(text, "*Backup nightly: incomplete, 4 problems, 1 alarm*\n```\n") || !strings.Contains(text, "&lt;!channel&gt;") {
		t.Errorf("got %s", text)
	}
}

func TestWebhookTakesTheReport(t *testing.T) {
	s := newService(t, nil)
	if err := (notify.Webhook{Client: newClient(), URL: s.url("/hook")}).Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Fatal(err)
	}
	var run point.Run
	if err := json.Unmarshal([]byte(s.only(t).Body), &run); err != nil {
		t.Fatal(err)
	}
	if run.Policy != "nightly" || run.State != point.Incomplete || len(run.Sources[0].Repositories) != 3 {
		t.Errorf("got %+v", run)
	}
}

func TestHeartbeats(t *testing.T) {
	tests := []struct {
		name      string
		heartbeat func(s *service) notify.Heartbeat
		state     point.State
		want      []string
	}{
		{"all, success", healthchecks, point.Complete, []string{"/ping/uuid/start", "/ping/uuid"}},
		{"all, incomplete", healthchecks, point.Incomplete, []string{"/ping/uuid/start", "/ping/uuid/fail"}},
		{"all, failed", healthchecks, point.Failed, []string{"/ping/uuid/start", "/ping/uuid/fail"}},
		{"success only, success", successOnly, point.Complete, []string{"/beat"}},
		{"success only, incomplete", successOnly, point.Incomplete, nil},
		{"success only, failed", successOnly, point.Failed, nil},
		{"success only, no state", successOnly, "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, nil)
			n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{test.heartbeat(s)}}
			run := goodRun()
			run.State = test.state
			if err := errors.Join(n.Started(t.Context()), n.Ended(t.Context(), run)); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range s.all() {
				if r.Method != "GET" || r.Body != "" || r.Query != "k=v" {
					t.Errorf("got %+v", r)
				}
				got = append(got, r.Path)
			}
			if strings.Join(got, " ") != strings.Join(test.want, " ") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// healthchecks are the URLs of a check as healthchecks.io has them.
func healthchecks(s *service) notify.Heartbeat {
	return notify.Heartbeat{Start: s.url("/ping/uuid/start?k=v"), Success: s.url("/ping/uuid?k=v"), Failure: s.url("/ping/uuid/fail?k=v")}
}

func successOnly(s *service) notify.Heartbeat { return notify.Heartbeat{Success: s.url("/beat?k=v")} }

func TestAnInterruptedRunIsToldAllTheSame(t *testing.T) {
	s := newService(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := notify.Notifier{Client: newClient(), Heartbeats: []notify.Heartbeat{healthchecks(s)}}
	if err := n.Ended(ctx, badRun()); err != nil {
		t.Fatal(err)
	}
	if got := s.only(t); got.Path != "/ping/uuid/fail" {
		t.Errorf("got %+v", got)
	}
}

func TestWhenMessagesAreSent(t *testing.T) {
	alarmed := goodRun()
	alarmed.Sources[0].Alarms = []string{"the default branch was rewritten"}
	tests := []struct {
		name   string
		always bool
		run    point.Run
		want   int
	}{
		{"good", false, goodRun(), 0},
		{"good, always", true, goodRun(), 1},
		{"bad", false, badRun(), 1},
		{"alarm", false, alarmed, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, nil)
			n := notify.Notifier{Always: test.always, Channels: []notify.Channel{notify.Webhook{Client: newClient(), URL: s.url("/")}}}
			if err := n.Ended(t.Context(), test.run); err != nil {
				t.Fatal(err)
			}
			if got := len(s.all()); got != test.want {
				t.Errorf("%d messages, want %d", got, test.want)
			}
		})
	}
}

func TestOneServiceThatIsDownKeepsNoOtherFromBeingTold(t *testing.T) {
	up, down := newService(t, nil), newService(t, nil)
	down.Close()
	n := notify.Notifier{
		Client: newClient(), Heartbeats: []notify.Heartbeat{{Failure: down.url("/secretpath")}, {Failure: up.url("/beat")}},
		Channels: []notify.Channel{notify.Webhook{Client: newClient(), URL: down.url("/secretpath")}, notify.Webhook{Client: newClient(), URL: up.url("/hook")}},
	}
	err := n.Ended(t.Context(), badRun())
	if !errors.Is(err, fault.ErrUnavailable) || strings.Count(err.Error(), "\n") != 1 || strings.Contains(err.Error(), "secretpath") {
		t.Errorf("got %v", err)
	}
	if got := up.all(); len(got) != 2 {
		t.Errorf("%d requests, want 2", len(got))
	}
}
