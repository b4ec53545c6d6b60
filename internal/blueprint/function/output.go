package function

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
)

// marker begins an output in what a command prints: {"key":"k","value":"v"} follows, to the end of the line.
const marker = "###Phase-output###:"

// Bounds of what is kept of a stream, in bytes.
const (
	mostOutputs    = 256 << 10 // all keys and values of a phase: they go into a status
	mostOutputLine = 1 << 20   // JSON may take six times what it says
	mostLogLine    = 4 << 10
	mostPiece      = 32 << 10 // of a line, at a time
)

// validKey is what a key may be.
var validKey = regexp.MustCompile(`^[A-Za-z0-9_]{1,256}$`)

// outputs gathers the outputs in streams of any size, in constant memory; the other lines go into the log. Of a key the last value holds.
type outputs struct {
	log func(line string)

	mu    sync.Mutex // streams of one command are written side by side
	found map[string]string
	size  int
	fresh bool  // there are outputs that news has not told
	err   error // what was wrong with the first output that was no good
}

func newOutputs(log func(string)) *outputs { return &outputs{log: log, found: map[string]string{}} }

// result is what was put out, once the streams have ended. An output that cannot be read, or too much of them, is fault.ErrInvalid: what
// stands in it is not shown.
func (o *outputs) result() (map[string]any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, fault.Wrap("read the phase's output", fault.ErrInvalid, o.err, "print outputs with: kando output KEY VALUE")
	}
	return o.all(), nil
}

func (o *outputs) all() map[string]any {
	result := make(map[string]any, len(o.found))
	for key, value := range o.found {
		result[key] = value
	}
	return result
}

// news is what was put out so far, if something came since it was asked last; else nil.
func (o *outputs) news() map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.fresh {
		return nil
	}
	o.fresh = false
	return o.all()
}

// add takes what follows a marker.
func (o *outputs) add(text []byte) error {
	var output struct {
		Key   string  `json:"key"`
		Value *string `json:"value"`
	}
	switch err := json.Unmarshal(text, &output); {
	case err != nil || output.Value == nil:
		return fault.New("", fault.ErrInvalid, fmt.Sprintf(`a line has %s without {"key":"…","value":"…"} behind it`, marker), "")
	case !validKey.MatchString(output.Key):
		return fault.New("", fault.ErrInvalid, fmt.Sprintf("key %.64q is not made of letters, digits and _", output.Key), "")
	}
	value := *output.Value
	if old, there := o.found[output.Key]; there {
		o.size -= len(output.Key) + len(old)
	}
	if o.size += len(output.Key) + len(value); o.size > mostOutputs {
		return errTooMuch()
	}
	o.found[output.Key], o.fresh = value, true
	return nil
}

func errTooMuch() error {
	return fault.New("", fault.ErrInvalid, fmt.Sprintf("it is more than %d KiB", mostOutputs>>10), "store large things at the location")
}

// stream is one stream of outputs.
type stream struct {
	outputs *outputs
	quiet   int64 // so many bytes at the beginning are not for the log: they are there already
	plain   bool  // it has no outputs: complaints

	read   int64  // bytes, of the whole stream
	length int64  // of the line so far
	start  []byte // of the line, for the log
	carry  []byte // the end of what came, where a marker may begin
	output []byte // what follows the marker; nil until there is one
}

// stream begins to read a stream.
func (o *outputs) stream() *stream { return &stream{outputs: o} }

// Write never fails: what is wrong shows in the result, and the command goes on to its end.
func (s *stream) Write(p []byte) (int, error) {
	s.outputs.mu.Lock()
	defer s.outputs.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		s.read += int64(len(rest) - len(after))
		for piece := range slices.Chunk(line, mostPiece) {
			s.feed(piece)
		}
		if ended {
			s.end()
		}
		rest = after
	}
	return len(p), nil
}

// close ends the last line, also where no newline does.
func (s *stream) close() {
	s.outputs.mu.Lock()
	defer s.outputs.mu.Unlock()
	if s.length > 0 {
		s.end()
	}
}

// feed takes a piece of a line.
func (s *stream) feed(piece []byte) {
	s.length += int64(len(piece))
	if s.output != nil {
		s.output = append(s.output, piece[:min(len(piece), mostOutputLine+1-len(s.output))]...)
		return
	}
	s.start = append(s.start, piece[:min(len(piece), mostLogLine+1-len(s.start))]...)
	if s.plain {
		return
	}
	s.carry = append(s.carry, piece...)
	before, behind, found := bytes.Cut(s.carry, []byte(marker))
	if found {
		offset := s.length - int64(len(s.carry)-len(before)) // of the marker in the line
		s.start = s.start[:min(int64(len(s.start)), offset)]
		s.output = append([]byte{}, behind[:min(len(behind), mostOutputLine+1)]...)
		s.carry = s.carry[:0]
		return
	}
	s.carry = append(s.carry[:0], s.carry[max(0, len(s.carry)-len(marker)+1):]...)
}

// end ends a line.
func (s *stream) end() {
	o := s.outputs
	if text := bytes.TrimSpace(s.output); len(text) > 0 && o.err == nil {
		err := errTooMuch()
		if len(s.output) <= mostOutputLine {
			err = o.add(text)
		}
		if !bytes.HasPrefix(s.start, []byte("+")) { // else a shell shows the command that is to print it
			o.err = err
		}
	}
	if line := s.shown(); line != "" && s.read > s.quiet {
		o.log(line)
	}
	s.length, s.start, s.carry, s.output = 0, s.start[:0], s.carry[:0], nil
}

// shown is the line as the log has it. One that is too long is cut between words: half a secret would not be known as one.
func (s *stream) shown() string {
	text := s.start
	if len(text) > mostLogLine {
		text = text[:max(0, bytes.LastIndexAny(text[:mostLogLine], " \t\r"))]
		return fmt.Sprintf("%s … (%d bytes)", strings.ToValidUTF8(string(text), "?"), s.length)
	}
	return strings.ToValidUTF8(strings.TrimRight(string(text), " \t\r"), "?")
}
