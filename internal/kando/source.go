package kando

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// standard names standard input and standard output on the command line.
const standard = "-"

// source is what is pushed: a stream, a file or a directory.
type source struct {
	name  string
	dir   bool
	read  *counter // nil for a directory
	close func()
}

// counter counts what was read, and remembers what went wrong.
type counter struct {
	r    io.Reader
	n    int64
	fail error
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.fail = err
	}
	return n, err
}

// openSource opens what the command line names. Reading ends with ctx, also where a stream's writer hangs.
func (t *tool) openSource(ctx context.Context, name string) (*source, error) {
	op := "read " + name
	if name == standard {
		return t.openStdin(ctx)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, localFault(op, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(localFault(op, err), f.Close())
	}
	s := &source{name: name, dir: info.IsDir(), close: func() { _ = f.Close() }} // opened for reading
	if !s.dir {
		s.read = &counter{r: checked{ctx, f, op}}
	}
	return s, nil
}

func (t *tool) openStdin(ctx context.Context) (*source, error) {
	const op = "read standard input"
	f, isFile := t.Stdin.(*os.File)
	if !isFile {
		return &source{name: standard, read: &counter{r: checked{ctx, t.Stdin, op}}, close: func() {}}, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, localFault(op, err)
	}
	if info.Mode()&fs.ModeCharDevice != 0 { // a terminal; or /dev/null, which a container has where nobody gave it any
		return nil, fault.New(op, fault.ErrInvalid, "nothing is piped into it", "pipe data into kando, or name a file")
	}
	r, done := interruptible(ctx, f)
	return &source{name: standard, read: &counter{r: checked{ctx, r, op}}, close: done}, nil
}

// interruptible lets reads of a pipe end with ctx. For that the pipe is opened once more, since a deadline needs it not to block, which
// others that have it open would notice. Where that is not possible, reads end with the pipe's writer.
func interruptible(ctx context.Context, f *os.File) (io.Reader, func()) {
	again, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return f, func() {}
	}
	if again.SetReadDeadline(time.Time{}) != nil { // a file, which never blocks; opened again it would begin at its start
		_ = again.Close() // opened for reading
		return f, func() {}
	}
	stop := context.AfterFunc(ctx, func() { _ = again.SetReadDeadline(time.Unix(1, 0)) })
	return again, func() {
		stop()
		_ = again.Close() // opened for reading
	}
}

// checked is a reader whose errors have a class, and which ends with ctx.
type checked struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way to be told
	r   io.Reader
	op  string
}

func (c checked) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(b)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case c.ctx.Err() != nil:
		return n, context.Cause(c.ctx)
	}
	return n, localFault(c.op, err)
}

// localFault gives an error of the disk its class.
func localFault(op string, err error) error {
	kind, hint := fault.ErrRefused, ""
	switch {
	case err == nil:
		return nil
	case fault.Of(err).Exit != 1:
		kind = nil
	case errors.Is(err, fs.ErrNotExist):
		kind = fault.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		kind = fault.ErrDenied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "free or add space"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		kind = fault.ErrUnavailable
	}
	return fault.Wrap(op, kind, err, hint)
}
