package database

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// output is what a program writes, as it comes. Its end is seen only after the program has ended well.
type output struct {
	pipe  *os.File // embedded, io.Copy would find its WriteTo, and pass Read by
	stop  context.CancelFunc
	left  time.Duration // how long what a program left running may say nothing, and hold the pipe open
	done  chan struct{}
	ended error // what Run said; to be read after done
}

// start has a program write into a pipe of the system: a program of this machine gets its end, so that the bytes pass through no hand in
// between, and one that is wide, so that program and reader seldom wait for each other.
func start(ctx context.Context, r Runner, c Command) (*output, error) {
	reads, writes, err := os.Pipe()
	if err != nil {
		return nil, fault.Wrap("run a program", nil, err, "")
	}
	widen(writes)
	ctx, stop := context.WithCancel(ctx)
	o := &output{pipe: reads, stop: stop, left: killedTime, done: make(chan struct{})}
	c.Stdout = writes
	go func() {
		defer close(o.done)
		o.ended = r.Run(ctx, c)
		writes.Close()               //nolint:errcheck // nothing waits in it to be written
		reads.SetReadDeadline(now()) //nolint:errcheck // wakes who waits: what the program left running may hold the pipe open
	}()
	return o, nil
}

// Read reads on. Where the program ended badly that is the error, at the end or before it.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.pipe.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if <-o.done; o.ended == nil { // what is still in the pipe, however late it is read
			o.pipe.SetReadDeadline(now().Add(o.left)) //nolint:errcheck // pipes have deadlines
			n, err = o.pipe.Read(p)
		}
	}
	if err == nil {
		return n, nil
	}
	<-o.done
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = cutShort("the tool has ended, and what it left running holds its output open")
	}
	return n, cmp.Or(o.ended, err)
}

// Close stops the program where it still runs, and waits for its end. Idempotent.
func (o *output) Close() error {
	o.stop()
	err := o.pipe.Close() // a runner that still writes waits for nobody then
	<-o.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// ending looks at a dump as it passes, and knows whether it is whole.
type ending interface {
	io.Writer // fails never
	// end says, at the end of the dump, what it lacks.
	end() error
}

// dumped is a stream of a dump on its way into a part: counted, summed up, and checked at its end.
type dumped struct {
	from  io.Reader
	check ending
	sum   hash.Hash
	bytes int64
	err   error // what ended the stream before its end
}

func newDumped(from io.Reader, check ending) *dumped {
	return &dumped{from: from, check: check, sum: sha256.New()}
}

func (d *dumped) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.from.Read(p)
	d.bytes += int64(n)
	d.sum.Write(p[:n])
	if d.check != nil {
		d.check.Write(p[:n]) //nolint:errcheck // fails never
		if err == io.EOF {   //nolint:errorlint // as io.Reader has it
			err = cmp.Or(d.check.end(), err)
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader has it
		d.err = err
	}
	return n, err
}

func (d *dumped) sha256() string { return hex.EncodeToString(d.sum.Sum(nil)) }

// cutShort is a dump that ends before its end, whatever its program says.
func cutShort(what string) error {
	return fault.New("", fault.ErrIncomplete, "the dump is cut short: "+what, "the tool said that all is well; look at its version, and at the server's log")
}
