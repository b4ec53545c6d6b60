package notify

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// LogOptions says how a log looks.
type LogOptions struct {
	JSON       bool
	Level      slog.Leveler // nil for info
	TimeFormat string       // Go's layout; "" for RFC 3339
	Secrets    *Secrets     // masked in every line; may be nil
}

// NewLogger makes a logger that writes lines to w, one Write each.
func NewLogger(w io.Writer, o LogOptions) *slog.Logger {
	layout := cmp.Or(o.TimeFormat, time.RFC3339)
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime:
			return slog.String(slog.TimeKey, a.Value.Time().Format(layout))
		case a.Key == slog.MessageKey && o.JSON:
			a.Key = "message"
		case a.Key == slog.LevelKey && o.JSON:
			return slog.String(slog.LevelKey, levelName(a.Value.Any()))
		}
		return a
	}}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if o.JSON {
		handler = slog.NewJSONHandler(w, options).WithAttrs([]slog.Attr{slog.Int("version", lineVersion)})
	}
	if o.Secrets != nil {
		handler = o.Secrets.Handler(handler)
	}
	return slog.New(handler)
}

// lineVersion is the version of lines in JSON, whose names are those of docs/scripting.md.
const lineVersion = 1

func levelName(level any) string {
	if level == slog.LevelWarn {
		return "warning"
	}
	return strings.ToLower(fmt.Sprint(level))
}

// LogFileOptions says where a log file lies and how it is kept from growing.
type LogFileOptions struct {
	Dir     string // made where it is missing
	Name    string
	MaxAge  time.Duration // older lines are removed, a day at a time; 0 keeps all
	MaxSize int64         // bytes after which another file is begun; 0 for 100 MB
	Now     func() time.Time
}

// LogFile is a log file that only its owner reads. It is set aside under a name with the time when it is full and, where lines have
// an age at which they go, at each new day; then what is too old is removed. Safe for concurrent use.
type LogFile struct {
	o      LogFileOptions
	mu     sync.Mutex
	file   *os.File
	size   int64
	latest time.Time // when it was last written
	device bool      // it is /dev/stdout or the like: everybody's, and not ours to set aside
}

const (
	defaultMaxSize = 100_000_000
	// asideLayout is part of the name of a file set aside. gickup's have the same, so that they go in their time.
	asideLayout = "2006-01-02T15-04-05.000"
)

// OpenLogFile opens a log file to write to its end.
func OpenLogFile(o LogFileOptions) (*LogFile, error) {
	op := "open log file " + filepath.Join(o.Dir, o.Name)
	if o.Name == "" || filepath.Base(o.Name) != o.Name {
		return nil, fault.New(op, fault.ErrInvalid, "the name is that of no file", "give the directory apart from the name")
	}
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fault.Wrap(op, refusal(err), err, "")
	}
	l := &LogFile{o: o}
	if err := l.open(); err != nil {
		return nil, fault.Wrap(op, refusal(err), err, "")
	}
	l.expire()
	return l, nil
}

func refusal(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.ErrDenied
	}
	return fault.ErrRefused
}

// open opens the current file.
func (l *LogFile) open() error {
	file, err := os.OpenFile(l.path(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = file.Chmod(0o600) // it may be another program's
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.size, l.latest, l.device = file, info.Size(), info.ModTime(), !info.Mode().IsRegular()
	return nil
}

// Write adds p, which is one line or more, whole.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	if l.size > 0 && !l.device && (l.size+int64(len(p)) > l.o.MaxSize || l.o.MaxAge > 0 && day(now) != day(l.latest)) {
		l.setAside(now)
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	l.latest = now
	return n, err
}

// Close ends the file.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// setAside begins another file. Where that fails, the log goes on in the one it has: a line in the wrong file is better than none.
func (l *LogFile) setAside(now time.Time) {
	full := l.file
	if err := os.Rename(l.path(), l.aside(now)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if l.open() != nil {
		return
	}
	full.Close() //nolint:errcheck // every line of it was written already
	l.expire()
}

func (l *LogFile) path() string { return filepath.Join(l.o.Dir, l.o.Name) }

func (l *LogFile) aside(now time.Time) string {
	extension := filepath.Ext(l.o.Name)
	return filepath.Join(l.o.Dir, strings.TrimSuffix(l.o.Name, extension)+"-"+now.UTC().Format(asideLayout)+extension)
}

// expire removes files set aside that are too old. One that cannot be removed stays.
func (l *LogFile) expire() {
	if l.o.MaxAge <= 0 {
		return
	}
	entries, err := os.ReadDir(l.o.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if began, ok := l.asideTime(e.Name()); ok && l.o.Now().Sub(began) > l.o.MaxAge {
			_ = os.Remove(filepath.Join(l.o.Dir, e.Name()))
		}
	}
}

// asideTime is when a file of this log was set aside, by its name.
func (l *LogFile) asideTime(name string) (time.Time, bool) {
	extension := filepath.Ext(l.o.Name)
	rest, ok := strings.CutPrefix(strings.TrimSuffix(name, ".gz"), strings.TrimSuffix(l.o.Name, extension)+"-")
	if !ok {
		return time.Time{}, false
	}
	stamp, ok := strings.CutSuffix(rest, extension)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(asideLayout, stamp)
	return t, err == nil
}
