// counter writes counters to volumes for tests of consistency, and checks what came back.
//
//	counter write FILE FILE...            adds a line to each file in turn, every 10 ms, each synced before the next
//	counter check FILE FILE...            the files are what one instant may have left, or two that are the skew apart
//
// A line is a number, one more than the last, and the time in nanoseconds: "17 1700000000000000000". A number stands in the second file
// only after it was on the disk of the first, so at any instant the first has as many lines as the second, or one more.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const interval = 10 * time.Millisecond

func main() {
	var err error
	switch {
	case len(os.Args) >= 3 && os.Args[1] == "write":
		err = write(os.Args[2:])
	case len(os.Args) >= 3 && os.Args[1] == "check":
		err = check(os.Stdout, os.Args[2:])
	default:
		err = errors.New("counter write|check FILE...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write goes on where the files end, until it is told to stop.
func write(paths []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	var files []*os.File
	var last int64
	for _, path := range paths {
		state, err := read(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		last = max(last, state.Count)
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		defer file.Close()
		files = append(files, file)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := last + 1; ; n++ {
		line := fmt.Sprintf("%d %d\n", n, time.Now().UnixNano())
		for _, file := range files {
			if _, err := file.WriteString(line); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}

// state is what one file says.
type state struct {
	Count int64     `json:"count"` // the last number
	At    time.Time `json:"at"`    // when it was written
}

// check prints the files' states as JSON. It fails where a file has a gap, so is no prefix of what was written. How far apart the files
// may be is the caller's to judge: Count for one instant, At for a skew.
func check(out io.Writer, paths []string) error {
	states := make([]state, 0, len(paths))
	for _, path := range paths {
		s, err := read(path)
		if err != nil {
			return err
		}
		states = append(states, s)
	}
	return json.NewEncoder(out).Encode(states)
}

// read follows the numbers of a file. A last line without its end is what a crash leaves, and does not count. A writer that was started
// again after a restore goes on after the highest number of all files, so a number may be left out where the time jumps too.
func read(path string) (state, error) {
	file, err := os.Open(path)
	if err != nil {
		return state{}, err
	}
	defer file.Close()
	var s state
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		number, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return s, fmt.Errorf("%s: line %q: %w", path, line, err)
		}
		nanoseconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return s, fmt.Errorf("%s: line %q: %w", path, line, err)
		}
		if written := time.Unix(0, nanoseconds); n == s.Count+1 || n == s.Count+2 && written.Sub(s.At) > interval {
			s = state{Count: n, At: written}
		} else {
			return s, fmt.Errorf("%s: %d follows %d", path, n, s.Count)
		}
	}
}
