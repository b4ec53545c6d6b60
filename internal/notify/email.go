package notify

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Email is a mail server and whom it writes to.
type Email struct {
	Server   string // host:port; 465 speaks TLS at once, others start it; without a port 587
	From     string
	To       []string
	Username string
	Password fault.Secret
	// Insecure lets mail go without TLS to a host that is not this machine. A password never does.
	Insecure bool
	Roots    *x509.CertPool                                                       // nil for the system's
	Timeout  time.Duration                                                        // of a delivery; 0 for thirty seconds
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil for the net package's own
}

const (
	mailTimeout     = 30 * time.Second
	submissionPort  = "587"
	submissionsPort = "465"
	maxMailDialogue = 1 << 20 // bytes read of what a server says
)

// Send implements Channel.
func (e Email) Send(ctx context.Context, m Message) error {
	host, port, err := net.SplitHostPort(e.Server)
	if err != nil {
		host, port = e.Server, submissionPort
	}
	op := "e-mail through " + clean(host)
	from, to, err := e.addresses()
	if err != nil {
		return fault.New(op, fault.ErrInvalid, err.Error(), "give addresses as name@example.com")
	}
	timeout := e.Timeout
	if timeout == 0 {
		timeout = mailTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := e.deliver(ctx, host, port, from, to, letter(m, from, to)); err != nil {
		return e.explain(ctx, op, err)
	}
	return nil
}

// addresses parses the addresses, which also keeps line breaks out of the dialogue and the header.
func (e Email) addresses() (from *mail.Address, to []*mail.Address, err error) {
	if from, err = mail.ParseAddress(e.From); err != nil {
		return nil, nil, errors.New("the sender's address is none")
	}
	for _, a := range e.To {
		address, err := mail.ParseAddress(a)
		if err != nil {
			return nil, nil, errors.New("a recipient's address is none")
		}
		to = append(to, address)
	}
	if len(to) == 0 {
		return nil, nil, errors.New("it has no recipient")
	}
	return from, to, nil
}

// deliver speaks to the server, in TLS before anything is said of who writes to whom.
func (e Email) deliver(ctx context.Context, host, port string, from *mail.Address, to []*mail.Address, text []byte) error {
	dial := e.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	line, err := dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	hangUp := context.AfterFunc(ctx, func() { _ = line.Close() }) // the dialogue then ends with an error, which is returned
	defer func() {
		if hangUp() {
			_ = line.Close() // all that counts was answered
		}
	}()
	secure := &tls.Config{ServerName: host, RootCAs: e.Roots, MinVersion: tls.VersionTLS12}
	var conn net.Conn = &bounded{Conn: line, left: maxMailDialogue}
	if port == submissionsPort {
		conn = tls.Client(conn, secure)
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if err := e.secure(client, host, port, secure); err != nil {
		return err
	}
	if err := e.login(client, host); err != nil {
		return err
	}
	if err := client.Mail(from.Address); err != nil {
		return err
	}
	for _, a := range to {
		if err := client.Rcpt(a.Address); err != nil {
			return err
		}
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = client.Quit() // it has taken the message already
	return nil
}

// secure starts TLS where the connection has none. An attacker can hide that a server offers it, so its absence is an error.
func (e Email) secure(client *smtp.Client, host, port string, config *tls.Config) error {
	if port == submissionsPort {
		return nil
	}
	if offered, _ := client.Extension("STARTTLS"); offered {
		return client.StartTLS(config)
	}
	if e.Insecure || isLocal(host) {
		return nil
	}
	return fault.New("", fault.ErrDenied, "the server offers no STARTTLS", "use port 465, or a mail server on this machine")
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (e Email) login(client *smtp.Client, host string) error {
	if e.Password == "" {
		return nil
	}
	if _, secured := client.TLSConnectionState(); !secured {
		return fault.New("", fault.ErrDenied, "the password is not sent without TLS", "use a server with STARTTLS, or port 465")
	}
	_, offered := client.Extension("AUTH")
	switch ways := strings.Fields(strings.ToUpper(offered)); {
	case slices.Contains(ways, "PLAIN"):
		return client.Auth(smtp.PlainAuth("", e.Username, e.Password.Reveal(), host))
	case slices.Contains(ways, "LOGIN"):
		return client.Auth(&loginAuth{answers: []string{e.Username, e.Password.Reveal()}})
	}
	return fault.New("", fault.ErrUnsupported, "the server takes no password by PLAIN or LOGIN", "")
}

// loginAuth is the LOGIN mechanism, the only one that some servers have: they ask for the user name, and then for the password.
type loginAuth struct{ answers []string }

// Start implements smtp.Auth.
func (*loginAuth) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

// Next implements smtp.Auth.
func (a *loginAuth) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	if len(a.answers) == 0 {
		return nil, errors.New("the server asks for more than a user name and a password")
	}
	answer := a.answers[0]
	a.answers = a.answers[1:]
	return []byte(answer), nil
}

// explain gives an error of the dialogue its class, and masks what a server repeats.
func (e Email) explain(ctx context.Context, op string, err error) error {
	var ours *fault.Error
	if errors.As(err, &ours) {
		return fault.Wrap(op, nil, err, "")
	}
	kind, hint := fault.ErrUnavailable, ""
	var reply *textproto.Error
	if errors.As(err, &reply) && reply.Code >= 500 {
		kind, hint = fault.ErrInvalid, "see what the mail server's log says"
		if reply.Code == 530 || reply.Code == 534 || reply.Code == 535 {
			kind, hint = fault.ErrDenied, "check the user name and the password of the mail server"
		}
	}
	if ctx.Err() != nil {
		kind, err = ctx.Err(), errors.New("no answer in time")
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + e.Username + "\x00" + e.Password.Reveal()))
	login := base64.StdEncoding.EncodeToString([]byte(e.Password))
	return fault.New(op, kind, masked(err.Error(), []fault.Secret{e.Password, fault.Secret(plain), fault.Secret(login)}), hint)
}

// letter is a message as mail: header and plain text.
func letter(m Message, from *mail.Address, to []*mail.Address) []byte {
	recipients := make([]string, len(to))
	for i, a := range to {
		recipients[i] = a.String()
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	var w bytes.Buffer
	for _, field := range [][2]string{
		{"From", from.String()},
		{"To", strings.Join(recipients, ",\r\n\t")},
		{"Subject", mime.QEncoding.Encode("utf-8", clean(m.Title))},
		{"Date", m.Run.Finished.Format(time.RFC1123Z)},
		{"Message-ID", "<" + rand.Text() + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, // no out-of-office replies
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		fmt.Fprintf(&w, "%s: %s\r\n", field[0], field[1])
	}
	w.WriteString("\r\n")
	body := quotedprintable.NewWriter(&w)
	_, _ = io.WriteString(body, strings.ReplaceAll(m.Text, "\n", "\r\n")) // to memory
	_ = body.Close()
	return w.Bytes()
}

// bounded is a connection whose other end cannot talk for ever.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server says too much")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
