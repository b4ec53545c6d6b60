// counter writes counters to volumes for tests of consistency, and checks what came back.
//
//	counter write FILE FILE...            says what the files hold, then adds a line to each in turn, every 10 ms
//	counter check FILE FILE...            says what the files hold
//
// A line is a number, one more than the last, and the time in nanoseconds: "17 1700000000000000000". It is synced before the next file
// has it, so at any instant the first file is as far as the second, or one further. What the files hold is JSON, on one line: the last
// number of each and its time. A file with a gap fails, as it is no prefix of what was written; how far apart files may be is for the
// caller to judge. A counter that starts goes on after the highest number, and marks its first line: only there may one be left out.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const interval = 10 * time.Millisecond

func main() {
	var err error
	switch {
	case len(os.Args) >= 3 && os.Args[1] == "write":
		err = write(os.Stdout, os.Args[2:])
	case len(os.Args) >= 3 && os.Args[1] == "check":
		_, err = check(os.Stdout, os.Args[2:])
	default:
		err = errors.New("say write or check, and files")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write goes on where the files end, until it is told to stop.
func write(out io.Writer, paths []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	states, err := check(out, paths)
	if err != nil {
		return err
	}
	var last int64
	var files []*os.File
	for i, path := range paths {
		last = max(last, states[i].Count)
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := file.Truncate(states[i].whole); err != nil { // a line that was cut off
			return err
		}
		files = append(files, file)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	mark := " " + began
	for n := last + 1; ; n++ {
		line := fmt.Sprintf("%d %d%s\n", n, time.Now().UnixNano(), mark)
		for _, file := range files {
			if _, err := file.WriteString(line); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
		mark = ""
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}

// began marks the first line of a counter that was started.
const began = "began"

// state is what one file holds.
type state struct {
	Count int64     `json:"count"` // the last number, 0 of a file that is not there
	At    time.Time `json:"at"`    // when it was written
	whole int64     // bytes of whole lines
}

// check prints what the files hold.
func check(out io.Writer, paths []string) ([]state, error) {
	states := make([]state, 0, len(paths))
	for _, path := range paths {
		s, err := read(path)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, json.NewEncoder(out).Encode(states)
}

// read follows the numbers of a file. A last line without its end is what a crash leaves, and does not count.
func read(path string) (state, error) {
	var s state
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer file.Close()
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		var n, nanoseconds int64
		var mark string
		if words, _ := fmt.Sscan(line, &n, &nanoseconds, &mark); words < 2 {
			return s, fmt.Errorf("%s: %q is no number and time", path, line)
		}
		if n != s.Count+1 && (mark != began || n <= s.Count) {
			return s, fmt.Errorf("%s: %d follows %d", path, n, s.Count)
		}
		s = state{Count: n, At: time.Unix(0, nanoseconds).UTC(), whole: s.whole + int64(len(line))}
	}
}
