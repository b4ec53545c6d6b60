package notify_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
)

// mailServer is a small SMTP server. It takes one message a connection and notes the dialogue.
type mailServer struct {
	startTLS bool   // offers STARTTLS
	implicit bool   // speaks TLS at once
	auth     string // mechanisms offered once TLS is on
	refuse   map[string]string
	config   *tls.Config

	listener net.Listener
	wait     sync.WaitGroup
	mu       sync.Mutex
	dialogue []string // "tls: MAIL FROM:<…>", without "tls: " in clear
	message  string
}

// start runs the server until the test ends, and returns its address and whom to trust.
func (s *mailServer) start(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	// httptest has a certificate for 127.0.0.1.
	https := httptest.NewTLSServer(nil)
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	s.config = &tls.Config{Certificates: https.TLS.Certificates, MinVersion: tls.VersionTLS12}
	https.Close()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listener = listener
	s.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		s.wait.Wait()
	})
	return listener.Addr().String(), roots
}

func (s *mailServer) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	secured := ""
	if s.implicit {
		conn, secured = tls.Server(conn, s.config), "tls: "
	}
	r := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	hear := func() (string, bool) {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.dialogue = append(s.dialogue, secured+line)
		s.mu.Unlock()
		return line, err == nil
	}
	say("220 here")
	for {
		line, ok := hear()
		if !ok {
			return
		}
		verb := strings.ToUpper(strings.Fields(line + " .")[0])
		if answer := s.refuse[verb]; answer != "" {
			say("%s", strings.ReplaceAll(answer, "LINE", line))
			continue
		}
		switch verb {
		case "EHLO":
			if s.startTLS && secured == "" {
				say("250-here\r\n250 STARTTLS")
			} else {
				say("250-here\r\n250 AUTH %s", s.auth)
			}
		case "STARTTLS":
			say("220 go")
			conn, secured = tls.Server(conn, s.config), "tls: "
			r = bufio.NewReader(conn)
		case "AUTH":
			if strings.HasSuffix(line, "LOGIN") {
				say("334 VXNlcm5hbWU6")
				hear()
				say("334 UGFzc3dvcmQ6")
				hear()
			}
			say("235 welcome")
		case "DATA":
			say("354 go on")
			var body strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				body.WriteString(strings.TrimPrefix(line, "."))
			}
			s.mu.Lock()
			s.message = body.String()
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 fine")
		}
	}
}

// heard is the dialogue, with the message received.
func (s *mailServer) heard() (dialogue, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.dialogue, "\n"), s.message
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestEmailBySTARTTLS(t *testing.T) {
	for _, test := range []struct{ auth, want string }{
		{"LOGIN PLAIN", "tls: AUTH PLAIN " + encoded("\x00backstay\x00hunter22")},
		{"LOGIN", "tls: AUTH LOGIN\ntls: " + encoded("backstay") + "\ntls: " + encoded("hunter22")},
	} {
		s := &mailServer{startTLS: true, auth: test.auth}
		addr, roots := s.start(t)
		channel := notify.Email{
			Server: addr, From: "Backstay <backstay@example.com>", To: []string{"ops@example.com", "Anna <anna@example.org>"},
			Username: "backstay", Password: "hunter22", Roots: roots,
		}
		m := notify.MessageOf(badRun())
		if err := channel.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		dialogue, message := s.heard()
		want := "EHLO localhost\nSTARTTLS\ntls: EHLO localhost\n" + test.want + `
tls: MAIL FROM:<backstay@example.com>
tls: RCPT TO:<ops@example.com>
tls: RCPT TO:<anna@example.org>
tls: DATA
tls: QUIT`
		if dialogue != want {
			t.Errorf("got\n%s\nwant\n%s", dialogue, want)
		}
		checkLetter(t, message, m)
	}
}

func checkLetter(t *testing.T, message string, m notify.Message) {
	t.Helper()
	letter, err := mail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatalf("%v\n%s", err, message)
	}
	for name, want := range map[string]string{
		"From": `"Backstay" <backstay@example.com>`, "To": "<ops@example.com>, \"Anna\" <anna@example.org>",
		"Subject": m.Title, "Date": "Sat, 31 Jan 2026 12:01:30 +0000", "Content-Type": "text/plain; charset=utf-8",
		"Auto-Submitted": "auto-generated",
	} {
		if got := strings.ReplaceAll(letter.Header.Get(name), "\t", " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if id := letter.Header.Get("Message-ID"); !strings.HasSuffix(id, "@example.com>") || len(id) < 20 {
		t.Errorf("Message-ID: %q", id)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(letter.Body))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(strings.ReplaceAll(string(body), "\r\n", "\n")); got != m.Text {
		t.Errorf("got\n%s\nwant\n%s", got, m.Text)
	}
}

// to connects to addr, whatever is asked for.
func to(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func TestEmailInTLSFromTheStart(t *testing.T) {
	s := &mailServer{implicit: true, auth: "PLAIN"}
	addr, roots := s.start(t)
	channel := notify.Email{
		Server: "127.0.0.1:465", From: "a@example.com", To: []string{"b@example.com"}, Username: "me", Password: "hunter22", Roots: roots,
		Dial: to(addr),
	}
	if err := channel.Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Fatal(err)
	}
	if dialogue, message := s.heard(); !strings.HasPrefix(dialogue, "tls: EHLO") || message == "" {
		t.Errorf("got %s", dialogue)
	}
}

func TestEmailOnThisMachineGoesWithoutTLSButNoPasswordDoes(t *testing.T) {
	s := &mailServer{auth: "PLAIN LOGIN"}
	addr, _ := s.start(t)
	channel := notify.Email{Server: addr, From: "a@example.com", To: []string{"b@example.com"}}
	if err := channel.Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Error(err)
	}
	channel.Username, channel.Password = "me", "hunter22"
	err := channel.Send(t.Context(), notify.MessageOf(badRun()))
	dialogue, _ := s.heard()
	if !errors.Is(err, fault.ErrDenied) || strings.Contains(dialogue, "AUTH") {
		t.Errorf("%v\n%s", err, dialogue)
	}
}

func TestEmailIsNotSentInClearOverANetwork(t *testing.T) {
	s := &mailServer{}
	addr, _ := s.start(t)
	channel := notify.Email{
		Server: "mail.example.com:25", From: "a@example.com", To: []string{"b@example.com"}, Dial: to(addr),
	}
	err := channel.Send(t.Context(), notify.MessageOf(badRun()))
	if dialogue, _ := s.heard(); !errors.Is(err, fault.ErrDenied) || strings.Contains(dialogue, "MAIL") {
		t.Errorf("%v\n%s", err, dialogue)
	}
	channel.Insecure = true
	if err := channel.Send(t.Context(), notify.MessageOf(badRun())); err != nil {
		t.Errorf("asked for: %v", err)
	}
}

func TestEmailToAServerNobodyTrusts(t *testing.T) {
	s := &mailServer{startTLS: true, auth: "PLAIN"}
	addr, _ := s.start(t)
	channel := notify.Email{Server: addr, From: "a@example.com", To: []string{"b@example.com"}, Username: "me", Password: "hunter22"}
	err := channel.Send(t.Context(), notify.MessageOf(badRun()))
	if dialogue, _ := s.heard(); err == nil || strings.Contains(dialogue, "AUTH") {
		t.Errorf("%v\n%s", err, dialogue)
	}
}

func TestEmailThatIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		refuse map[string]string
		want   error
	}{
		{"password", map[string]string{"AUTH": "535 no: LINE"}, fault.ErrDenied},
		{"sender", map[string]string{"MAIL": "550 not you"}, fault.ErrInvalid},
		{"recipient", map[string]string{"RCPT": "550 nobody"}, fault.ErrInvalid},
		{"later", map[string]string{"MAIL": "451 \x1b[31m greylisted"}, fault.ErrUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &mailServer{startTLS: true, auth: "PLAIN", refuse: test.refuse}
			addr, roots := s.start(t)
			channel := notify.Email{
				Server: addr, From: "a@example.com", To: []string{"b@example.com"}, Username: "me", Password: "hunter22", Roots: roots,
			}
			err := channel.Send(t.Context(), notify.MessageOf(badRun()))
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			for _, secret := range []string{"hunter22", encoded("\x00me\x00hunter22"), "\x1b"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("it shows %q: %v", secret, err)
				}
			}
		})
	}
}

func TestEmailAddressesAddNothing(t *testing.T) {
	s := &mailServer{}
	addr, _ := s.start(t)
	good := notify.Email{Server: addr, From: "a@example.com", To: []string{"b@example.com"}}
	for name, spoil := range map[string]func(*notify.Email){
		"from": func(e *notify.Email) { e.From = "a@example.com>\r\nRCPT TO:<all@example.com" },
		"to":   func(e *notify.Email) { e.To = []string{"b@example.com\r\nBcc: all@example.com"} },
		"none": func(e *notify.Email) { e.To = nil },
	} {
		e := good
		spoil(&e)
		if err := e.Send(t.Context(), notify.MessageOf(badRun())); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	run := badRun()
	run.Policy = "nächtlich\r\nBcc: all@example.com"
	run.Sources[0].Alarms = []string{"x\r\n.\r\nMAIL FROM:<evil@example.com>"}
	m := notify.MessageOf(run)
	if err := good.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	dialogue, message := s.heard()
	letter, err := mail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if err != nil || subject != m.Title || letter.Header.Get("Bcc") != "" || strings.Contains(dialogue, "evil") {
		t.Errorf("subject %q, %v\n%s\n%s", subject, err, dialogue, message)
	}
}

func TestMailServersThatMisbehave(t *testing.T) {
	tests := map[string]func(net.Conn){
		"silent":    func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"talks on":  func(c net.Conn) { _, _ = io.Copy(c, endless{}) },
		"hangs up":  func(net.Conn) {},
		"no server": nil,
	}
	for name, serve := range tests {
		t.Run(name, func(t *testing.T) {
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wait sync.WaitGroup
			defer wait.Wait()
			defer listener.Close()
			if serve == nil {
				listener.Close()
			} else {
				wait.Go(func() {
					if conn, err := listener.Accept(); err == nil {
						serve(conn)
						conn.Close()
					}
				})
			}
			channel := notify.Email{
				Server: listener.Addr().String(), From: "a@example.com", To: []string{"b@example.com"}, Timeout: 50 * time.Millisecond,
			}
			err = channel.Send(t.Context(), notify.MessageOf(badRun()))
			if class := fault.Of(err); class.Reason != "Unavailable" || len(err.Error()) > 500 {
				t.Errorf("%s: %.500v", class.Reason, err)
			}
		})
	}
}

// endless is a greeting that does not end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "220-welcome\r\n"), nil }
