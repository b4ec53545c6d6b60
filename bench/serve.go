package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
)

// server speaks git:// on loopback for the repositories below a directory, and counts what goes through it.
type server struct {
	listener    net.Listener
	connections atomic.Int64
	sent        atomic.Int64 // bytes to clients
	open        sync.WaitGroup
}

// serve starts a server. Close it.
func serve(ctx context.Context, root string) (*server, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{listener: l}
	s.open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			s.open.Go(func() { s.answer(ctx, root, conn.(*net.TCPConn)) }) // it listens on TCP
		}
	})
	return s, nil
}

func (s *server) answer(ctx context.Context, root string, conn *net.TCPConn) {
	defer conn.Close()
	cmd := exec.CommandContext(ctx, "git", "daemon", "--inetd", "--export-all", "--base-path="+root, root)
	cmd.Stdin = conn
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return // the client sees a closed connection
	}
	// A client that ends early breaks the copy, and git daemon ends, too, for its output is closed.
	io.CopyBuffer(conn, counted{out, &s.sent}, make([]byte, 128<<10))
	out.Close()
	conn.CloseRead() // ends git daemon's input
	cmd.Wait()       // its failure is the client's failure
}

// counted adds what is read to sum before anybody sees it.
type counted struct {
	io.Reader
	sum *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sum.Add(int64(n))
	return n, err
}

// url is where the repository name below the root is served.
func (s *server) url(name string) string {
	return fmt.Sprintf("git://%s/%s", s.listener.Addr(), name)
}

// count runs f and returns the connections it made and the bytes it received.
func (s *server) count(f func() error) (connections, received int64, err error) {
	c, b := s.connections.Load(), s.sent.Load()
	err = f()
	return s.connections.Load() - c, s.sent.Load() - b, err
}

// Close ends the server and waits for its connections.
func (s *server) Close() error {
	err := s.listener.Close()
	s.open.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
