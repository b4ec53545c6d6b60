package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// leaveDelay is how long a program may take to end after its input was closed.
const leaveDelay = 2 * time.Second

// stream is an open conversation with one upload-pack.
type stream struct {
	in   io.Writer
	out  *bufio.Reader
	kill func()       // ends it at once; may be called at any time, also twice
	end  func() error // closes it, waits, and tells why it ended; called once
}

// streamTransport speaks to an upload-pack over one lasting stream.
type streamTransport struct {
	open    func(ctx context.Context, w *watch) (*stream, error)
	traffic *traffic
	conn    *stream // nil while none is open
}

func (t *streamTransport) ready() bool { return t.conn != nil }

func (t *streamTransport) greet(ctx context.Context, w *watch) (io.ReadCloser, error) {
	t.hangUp()
	conn, err := t.open(ctx, w)
	if err != nil {
		return nil, err
	}
	t.conn = conn
	t.traffic.requests.Add(1)
	return t.answer(ctx, w), nil
}

func (t *streamTransport) request(ctx context.Context, w *watch, body []byte) (io.ReadCloser, error) {
	if t.conn == nil {
		return nil, errHangUp
	}
	t.traffic.requests.Add(1)
	answer := t.answer(ctx, w)
	if _, err := io.Copy(t.conn.in, w.question(bytes.NewReader(body))); err != nil {
		answer.Close()
		// what the server said before it left tells more than the broken pipe
		if _, why := io.Copy(io.Discard, w.answer(&streamReader{t: t})); why != nil {
			err = why
		}
		return nil, err
	}
	return answer, nil
}

// answer reads from the stream; ctx kills it.
func (t *streamTransport) answer(ctx context.Context, w *watch) io.ReadCloser {
	stop := context.AfterFunc(ctx, t.conn.kill)
	return &streamAnswer{Reader: bufio.NewReaderSize(w.answer(&streamReader{t: t}), pktMax), stop: stop}
}

// hangUp ends the conversation. What upload-pack says about being left is of no interest.
func (t *streamTransport) hangUp() {
	if t.conn == nil {
		return
	}
	conn := t.conn
	t.conn = nil
	io.WriteString(conn.in, flushPkt) //nolint:errcheck // a courtesy: no more requests
	timer := time.AfterFunc(leaveDelay, conn.kill)
	defer timer.Stop()
	conn.end() //nolint:errcheck // see above
}

type streamAnswer struct {
	io.Reader
	stop func() bool
}

func (a *streamAnswer) Close() error {
	a.stop()
	return nil
}

// streamReader reads what the server sends. Where the stream ends it finds out why.
type streamReader struct{ t *streamTransport }

func (r *streamReader) Read(p []byte) (int, error) {
	conn := r.t.conn
	if conn == nil {
		return 0, io.EOF
	}
	n, err := conn.out.Read(p)
	r.t.traffic.received.Add(int64(n))
	if n > 0 || err == nil {
		return n, nil
	}
	r.t.conn = nil
	timer := time.AfterFunc(leaveDelay, conn.kill)
	defer timer.Stop()
	why := conn.end()
	if why != nil && errors.Is(err, io.EOF) && !errors.Is(why, context.Canceled) { // canceled: killed by the timer, not by itself
		return 0, why
	}
	return 0, err
}

// startStream starts a program that speaks upload-pack on its standard input and output. It lives until the conversation ends, which may
// be after ctx.
func startStream(ctx context.Context, prepare func(ctx context.Context) *exec.Cmd, secrets ...fault.Secret) (*stream, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd := prepare(ctx)
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, fault.Wrap("start "+cmd.Args[0], nil, err, "")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, fault.Wrap("start "+cmd.Args[0], nil, err, "")
	}
	widenPipe(out)
	c, err := start(cmd, 0, secrets...)
	if err != nil {
		cancel()
		return nil, err
	}
	end := func() error {
		defer cancel()
		in.Close()
		out.Close() // a program that still writes ends on it
		return c.wait()
	}
	return &stream{in: in, out: bufio.NewReaderSize(out, 64<<10), kill: cancel, end: end}, nil
}
