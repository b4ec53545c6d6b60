package git

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
)

// daemonTransport speaks to a git daemon: git://.
type daemonTransport struct {
	url *URL
	opt Options
}

func (t *daemonTransport) open(ctx context.Context, _ *watch) (*stream, error) {
	port := t.url.Port
	if port == "" {
		port = defaultPort["git"]
	}
	conn, err := newAddressGuard(t.url.Host).dial(ctx, "tcp", net.JoinHostPort(t.url.Host, port))
	if err != nil {
		return nil, err
	}
	closeOnce := sync.OnceValue(conn.Close)
	line := fmt.Sprintf("git-upload-pack %s\x00host=%s\x00\x00version=%s\x00", t.url.Path, net.JoinHostPort(t.url.Host, port), t.opt.protocol)
	if _, err := fmt.Fprintf(conn, "%04x%s", len(line)+4, line); err != nil {
		closeOnce() //nolint:errcheck // the write's error is the one to tell
		return nil, err
	}
	return &stream{
		in:   conn,
		out:  bufio.NewReaderSize(conn, 64<<10),
		kill: func() { closeOnce() }, //nolint:errcheck // ends the conversation either way
		end:  closeOnce,
	}, nil
}
