package database

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/backstay/backstay/internal/fault"
)

// output is what a program writes, as it comes. Its end is seen only after the program has ended well.
type output struct {
	*io.PipeReader
	stop context.CancelFunc
	done chan struct{}
}

// errStopped ends a program whose output nobody wants any more.
var errStopped = errors.New("stopped")

func start(ctx context.Context, r Runner, c Command) *output {
	ctx, stop := context.WithCancel(ctx)
	reads, writes := io.Pipe()
	o := &output{PipeReader: reads, stop: stop, done: make(chan struct{})}
	c.Stdout = writes
	go func() {
		defer close(o.done)
		writes.CloseWithError(r.Run(ctx, c)) // nil is the end of the file
	}()
	return o
}

// Close stops the program where it still runs, and waits for its end.
func (o *output) Close() error {
	o.stop()
	err := o.CloseWithError(errStopped)
	<-o.done
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
			err = cmpErr(d.check.end(), err)
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader has it
		d.err = err
	}
	return n, err
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func (d *dumped) sha256() string { return hex.EncodeToString(d.sum.Sum(nil)) }

// cutShort is a dump that ends before its end, whatever its program says.
func cutShort(what string) error {
	return fault.New("", fault.ErrIncomplete, "the dump is cut short: "+what, "the tool said that all is well; look at its version, and at the server's log")
}
