package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/backstay/backstay/internal/fault"
)

// documentVersion is the version of every JSON document that the command line prints.
const documentVersion = 1

// logFormat is how messages on standard error are written.
type logFormat string

const (
	logText logFormat = "text"
	logJSON logFormat = "json"
)

func (f *logFormat) String() string {
	if *f == "" {
		return string(logText)
	}
	return string(*f)
}

// Set and Type make logFormat a flag.
func (f *logFormat) Set(s string) error {
	if s != string(logText) && s != string(logJSON) {
		return fault.New("log format", fault.ErrInvalid, "neither text nor json", "")
	}
	*f = logFormat(s)
	return nil
}

func (*logFormat) Type() string { return "string" }

// messages writes to standard error: errors, hints and notices, as text or as one JSON document a line.
type messages struct {
	w     io.Writer
	clock func() time.Time
	json  bool
	quiet bool
	mu    sync.Mutex
}

// message is a line of standard error as JSON.
type message struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Level   string    `json:"level"` // "info", "warning" or "error"
	Message string    `json:"message"`
	Reason  string    `json:"reason,omitempty"` // class of an error
	Exit    int       `json:"exit,omitempty"`   // status the process ends with; only of the last error
	Hints   []string  `json:"hints,omitempty"`
	Part    string    `json:"part,omitempty"` // of progress
	Done    int64     `json:"done,omitempty"`
	Total   int64     `json:"total,omitempty"`
	Unit    string    `json:"unit,omitempty"`
}

// fail tells err and returns the exit status that it stands for.
func (m *messages) fail(err error) int {
	class := fault.Of(err)
	hints := fault.Hints(err)
	if class.Exit == 1 && len(hints) == 0 {
		hints = []string{"this may be a bug of Backstay; please report it with the command and this message"}
	}
	text := err.Error()
	switch class.Exit {
	case 1: // with its stack
	case 130:
		text, hints = "interrupted", nil
	default:
		text = strings.ReplaceAll(text, "\n", "; ") // several errors
	}
	m.write(message{Level: "error", Message: text, Reason: class.Reason, Exit: class.Exit, Hints: hints})
	return class.Exit
}

// notice tells something the user should know, also with --quiet.
func (m *messages) notice(format string, args ...any) {
	m.write(message{Level: "warning", Message: fmt.Sprintf(format, args...)})
}

// progress tells how far a run is.
func (m *messages) progress(line message) {
	line.Level = "info"
	m.write(line)
}

func (m *messages) write(line message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.json {
		line.Version, line.Time = documentVersion, m.clock().UTC()
		doc, err := json.Marshal(line)
		if err == nil {
			fmt.Fprintf(m.w, "%s\n", doc)
		}
		return
	}
	level := ""
	if line.Level != "info" {
		level = line.Level + ": "
	}
	fmt.Fprintf(m.w, "backstay: %s%s\n", level, printable(line.Message))
	for _, h := range line.Hints {
		fmt.Fprintf(m.w, "backstay: hint: %s\n", printable(h))
	}
}

// printable replaces what a terminal might act on: names and reasons come from servers and repositories. Lines stay lines.
func printable(s string) string {
	s = strings.TrimRight(s, "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return '\uFFFD'
	}, s)
}
