package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// late is a TCP proxy on loopback. What a client sends reaches the server after a delay, in order and at full speed: each request takes
// that much longer, and no byte is held up behind another.
type late struct {
	listener net.Listener
	target   string
	delay    time.Duration
	open     sync.WaitGroup
}

func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// newLate starts a proxy. Close it.
func newLate(ctx context.Context, target string, delay time.Duration) (*late, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &late{listener: l, target: target, delay: delay}
	p.open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.open.Go(func() { p.join(ctx, client) })
		}
	})
	return p, nil
}

func (p *late) address() string { return p.listener.Addr().String() }

// await waits until the server behind the proxy takes connections.
func (p *late) await(ctx context.Context) error {
	for range 200 {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", p.target)
		if err == nil {
			return conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the S3 server does not start")
}

func (p *late) join(ctx context.Context, client net.Conn) {
	defer client.Close()
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, "tcp", p.target)
	if err != nil {
		return // the client sees a closed connection
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() {
		delayed(server, client, p.delay)
		server.(*net.TCPConn).CloseWrite() // dialed by TCP
	})
	both.Go(func() {
		io.Copy(client, server) // ends when either side does
		client.Close()
	})
	both.Wait()
}

// delayed copies, and lets each piece wait for its time.
func delayed(to io.Writer, from io.Reader, delay time.Duration) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 256)
	var writer sync.WaitGroup
	writer.Go(func() {
		var gone error // of the server; the client sees it at the other side
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if gone == nil {
				_, gone = to.Write(p.bytes)
			}
		}
	})
	for {
		buffer := make([]byte, 64<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{buffer[:n], time.Now().Add(delay)}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writer.Wait()
}

// Close ends the proxy and waits for its connections, which their clients have closed.
func (p *late) Close() error {
	err := p.listener.Close()
	p.open.Wait()
	return err
}
