package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// runs is a runner that is a function.
type runs func(ctx context.Context, c Command) error

func (r runs) Run(ctx context.Context, c Command) error { return r(ctx, c) }

// shell starts a script.
func shell(ctx context.Context, t *testing.T, script string) *output {
	t.Helper()
	return started(ctx, t, Local{}, Command{Argv: []string{"sh", "-c", script}})
}

func started(ctx context.Context, t *testing.T, r Runner, c Command) *output {
	t.Helper()
	o, err := start(ctx, r, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error("closed once more: ", err)
		}
	})
	return o
}

// forever writes until nobody takes it any more, and says what became of that.
func forever(to io.Writer) error {
	chunk := make([]byte, 64<<10)
	for {
		if _, err := to.Write(chunk); err != nil {
			return err
		}
	}
}

func TestOutputIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	const most = 3 << 20 // more than any pipe takes
	script := fmt.Sprintf("head -c %d /dev/zero", most)
	for name, reader := range map[string]func(io.Reader) io.Reader{
		"as it comes": func(r io.Reader) io.Reader { return r },
		"in small pieces": func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(iotest.OneByteReader(r), 1000), iotest.HalfReader(r))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := shell(t.Context(), t, script)
			n, err := io.Copy(io.Discard, reader(o))
			if n != most || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	t.Run("long after its end", func(t *testing.T) {
		o := shell(t.Context(), t, "echo first; head -c 30000 /dev/zero")
		<-o.done
		if err := o.pipe.SetReadDeadline(time.Unix(1, 0)); err != nil { // as if it had been long ago
			t.Fatal(err)
		}
		content, err := io.ReadAll(o)
		if len(content) != 30006 || err != nil {
			t.Errorf("%d bytes, %v", len(content), err)
		}
	})
}

func TestAProgramThatEndsBadly(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"with a status":               "echo some; echo why >&2; exit 3",
		"killed":                      "echo some; kill -9 $$",
		"after it closed its output":  "echo some; exec >&-; exit 3",
		"with something left running": "sleep 300 2>/dev/null & echo some; echo $! >&2; exit 3",
	} {
		t.Run(name, func(t *testing.T) {
			o := shell(t.Context(), t, script)
			content, err := io.ReadAll(o)
			var ended *Ended
			if !errors.As(err, &ended) || len(content) > len("some\n") {
				t.Fatalf("%q, %v", content, err)
			}
			killLeft(t, ended.Said)
		})
	}
}

// killLeft ends a process that a script left running.
func killLeft(t *testing.T, said string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(said))
	if err != nil {
		return // it left none
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestWhatAProgramLeavesRunning may write on after a good end of the program, but not hold its output for ever.
func TestWhatAProgramLeavesRunning(t *testing.T) {
	t.Parallel()
	t.Run("writes on", func(t *testing.T) {
		reads, writes, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o := started(t.Context(), t, Local{}, Command{Argv: []string{"sh", "-c", "exec 3<&0 2>/dev/null; (cat <&3) & echo first"}, Stdin: reads})
		o.left = time.Minute // it writes as soon as it can
		<-o.done
		reads.Close()
		if _, err := writes.WriteString("second\n"); err != nil {
			t.Fatal(err)
		}
		writes.Close()
		if content, err := io.ReadAll(o); string(content) != "first\nsecond\n" && string(content) != "second\nfirst\n" || err != nil {
			t.Errorf("%q, %v", content, err)
		}
	})
	t.Run("holds on", func(t *testing.T) {
		o := shell(t.Context(), t, "sleep 300 2>/dev/null & echo $!")
		o.left = time.Second // in which what is there already is read, also on a busy machine
		content, err := io.ReadAll(o)
		killLeft(t, string(content))
		if !errors.Is(err, fault.ErrIncomplete) || len(content) == 0 {
			t.Errorf("%q, %v", content, err)
		}
	})
}

// TestAProgramIsStopped while it waits for its reader, and while its reader waits for it.
func TestAProgramIsStopped(t *testing.T) {
	t.Parallel()
	endless := func(_ context.Context, c Command) error { return forever(c.Stdout) }
	deaf := func(ctx context.Context, c Command) error { // as in a pod: nothing stops what runs there
		go forever(c.Stdout) // it ends when nobody takes any more
		<-ctx.Done()
		return ctx.Err()
	}
	for name, r := range map[string]Runner{
		"a program": runs(func(ctx context.Context, c Command) error {
			return Local{}.Run(ctx, Command{Argv: []string{"cat", "/dev/zero"}, Stdout: c.Stdout})
		}),
		"a runner that sees when nobody reads": runs(endless),
		"a runner that goes on writing":        runs(deaf),
	} {
		t.Run(name+", its reader stops early", func(t *testing.T) {
			o := started(t.Context(), t, r, Command{})
			if _, err := io.ReadFull(o, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			if n, err := o.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
				t.Errorf("read after it: %d, %v", n, err)
			}
		})
	}
	for name, r := range map[string]Runner{
		"silent": runs(func(ctx context.Context, c Command) error {
			return Local{}.Run(ctx, Command{Argv: []string{"sleep", "300"}, Stdout: c.Stdout})
		}),
		"talkative": runs(func(ctx context.Context, c Command) error {
			return Local{}.Run(ctx, Command{Argv: []string{"cat", "/dev/zero"}, Stdout: c.Stdout})
		}),
		"deaf": runs(deaf),
	} {
		t.Run(name+", the run is over", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := started(ctx, t, r, Command{})
			time.AfterFunc(10*time.Millisecond, cancel) // before, while or after it is read: all is one
			if n, err := io.Copy(io.Discard, o); !errors.Is(err, context.Canceled) {
				t.Errorf("after %d bytes: %v", n, err)
			}
		})
		t.Run(name+", the run is over while the vault takes nothing", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := started(ctx, t, r, Command{})
			cancel()
			<-o.done
			if n, err := io.Copy(io.Discard, o); !errors.Is(err, context.Canceled) || n > 1<<20 { // what the pipe held
				t.Errorf("after %d bytes: %v", n, err)
			}
		})
	}
}

// TestWhatIsReadBehindAProgramsBack is of runners that go on reading when a program has ended: the file in the vault is closed then.
func TestWhatIsReadBehindAProgramsBack(t *testing.T) {
	t.Parallel()
	closed := false
	chunks := make(chan int)
	r := &countedReader{from: readerFunc(func(p []byte) (int, error) {
		if closed {
			t.Error("it is read after the end")
		}
		return len(p), nil
	})}
	gone := make(chan error)
	go func() {
		for {
			n, err := r.Read(make([]byte, 10))
			if err != nil {
				gone <- err
				return
			}
			chunks <- n
		}
	}()
	for range 3 {
		<-chunks
	}
	n, err := r.end()
	closed = true
	if n < 30 || n > 50 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	for {
		select {
		case <-chunks:
			continue
		case err := <-gone:
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
			return
		}
	}
}

type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

// TestManyOutputs has several dumps at once, as a point of several servers does: none hears of the other's end.
func TestManyOutputs(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for i := range 8 {
		o := shell(t.Context(), t, fmt.Sprintf("head -c %d /dev/zero; exit %d", 100_000*i, i%2))
		all.Go(func() {
			var got bytes.Buffer
			_, err := io.Copy(&got, o)
			if i%2 == 0 && (err != nil || got.Len() != 100_000*i) || i%2 == 1 && err == nil {
				t.Errorf("program %d: %d bytes, %v", i, got.Len(), err)
			}
		})
	}
	all.Wait()
}
