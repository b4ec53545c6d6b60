package function

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

// read gathers the outputs of a stream that comes in pieces of some size, and its log.
func read(text string, piece int) (map[string]any, []string, error) {
	var log []string
	said := newOutputs(func(line string) { log = append(log, line) })
	s := said.stream()
	for p := range slices.Chunk([]byte(text), piece) {
		_, _ = s.Write(p)
	}
	s.close()
	result, err := said.result()
	return result, log, err
}

func TestOutputs(t *testing.T) {
	const a1, a2, b = marker + ` {"key":"a","value":"1"}`, marker + `{"key":"a","value":"2"}`, marker + ` {"key":"b_2","value":"{\"id\":\"x\"}"}`
	long := strings.Repeat("long words ", 1000)
	tests := []struct {
		name, text string
		want       map[string]any
		log        []string
	}{
		{"nothing", "", map[string]any{}, nil},
		{"one, no newline", a1, map[string]any{"a": "1"}, nil},
		{"the last value holds", a1 + "\nbetween\n" + b + "\r\n" + a2 + "\n", map[string]any{"a": "2", "b_2": `{"id":"x"}`}, []string{"between"}},
		{"behind a progress bar", "50%\r100%\r" + a1 + "\nend\n", map[string]any{"a": "1"}, []string{"50%\r100%", "end"}},
		{"an empty marker", marker + "\n" + marker + "  \n", map[string]any{}, nil},
		{"what a shell is about to run", "+ echo '" + a1 + "'\n" + a2 + "\n", map[string]any{"a": "2"}, []string{"+ echo '"}},
		{"almost a marker", "###Phase-output##\n####Phase-output###: {\"key\":\"a\",\"value\":\"1\"}\n", map[string]any{"a": "1"}, []string{"###Phase-output##", "#"}},
		{"a long line", long + "\n" + a1, map[string]any{"a": "1"}, []string{long[:4091] + " … (11000 bytes)"}},
		{"a long word", strings.Repeat("x", 5000) + "\n", map[string]any{}, []string{" … (5000 bytes)"}},
		{"a marker behind a long word", strings.Repeat("x", 100_000) + a1 + "\n", map[string]any{"a": "1"}, []string{" … (100043 bytes)"}},
		{"an empty value", marker + ` {"key":"a","value":""}`, map[string]any{"a": ""}, nil},
	}
	for _, test := range tests {
		for _, piece := range []int{1, 7, 4096, 1 << 20} {
			t.Run(fmt.Sprint(test.name, ", ", piece), func(t *testing.T) {
				got, log, err := read(test.text, piece)
				if err != nil || !maps.Equal(got, test.want) {
					t.Errorf("got %v, %v, want %v", got, err, test.want)
				}
				if !slices.Equal(log, test.log) {
					t.Errorf("log %.200q, want %.200q", log, test.log)
				}
			})
		}
	}
}

func TestOutputsThatAreNoGood(t *testing.T) {
	large := func(key string, size int) string {
		return fmt.Sprintf("%s {\"key\":%q,\"value\":%q}\n", marker, key, strings.Repeat("v", size))
	}
	tests := []struct{ name, text, want string }{
		{"cut JSON", marker + ` {"key":"a","value":"hunter2`, `without {"key":"…","value":"…"}`},
		{"no JSON", marker + ` hunter2`, "without"},
		{"more behind it", marker + ` {"key":"a","value":"hunter2"} hunter2`, "without"},
		{"a number", marker + ` {"key":"a","value":5}`, "without"},
		{"no value", marker + ` {"key":"a"}`, "without"},
		{"no key", marker + ` {"value":"hunter2"}`, `key "" is not made of letters`},
		{"a key with a dash", marker + ` {"key":"my-key","value":"hunter2"}`, `key "my-key" is not made of letters`},
		{"one too large", large("a", mostOutputs), "more than 256 KiB"},
		{"too large together", large("a", mostOutputs/2) + large("b", mostOutputs/2), "more than 256 KiB"},
		{"a line without end", marker + ` {"key":"a","value":"` + strings.Repeat("hunter2", 1<<20), "more than 256 KiB"},
		{"a good one after it", marker + " hunter2\n" + large("a", 5), "without"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := read(test.text, 4096)
			if !errors.Is(err, fault.ErrInvalid) || got != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want one with %q", got, err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows what was put out: %v", err)
			}
		})
	}
	t.Run("the same key again", func(t *testing.T) {
		if _, _, err := read(strings.Repeat(large("a", mostOutputs-1), 5), 4096); err != nil {
			t.Error(err)
		}
	})
}

// TestOutputsInConstantMemory reads many lines, and endless ones. What it takes does not depend on the size.
func TestOutputsInConstantMemory(t *testing.T) {
	const size = 64 << 20
	lines := bytes.Repeat([]byte("a line of output that goes into the log\n"), 800)
	for name, piece := range map[string][]byte{
		"lines": lines, "one line": bytes.Repeat([]byte("x"), 32<<10), "one output": append([]byte(marker), bytes.Repeat([]byte("x"), 32<<10)...),
	} {
		t.Run(name, func(t *testing.T) {
			said := newOutputs(func(string) {})
			s := said.stream()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for left := size; left > 0; left -= len(piece) {
				_, _ = s.Write(piece)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
			if made := after.TotalAlloc - before.TotalAlloc; name != "lines" && made > 16<<20 {
				t.Errorf("%d bytes were allocated", made)
			}
			_, _ = io.WriteString(s, "\n"+marker+` {"key":"a","value":"1"}`)
			s.close()
			result, err := said.result()
			if name == "one output" {
				if err == nil {
					t.Error("an output of a gigabyte is fine")
				}
			} else if err != nil || result["a"] != "1" {
				t.Errorf("then came %v, %v", result, err)
			}
		})
	}
}

func FuzzOutputs(f *testing.F) {
	f.Add("hello\n"+marker+` {"key":"a","value":"1"}`+"\n", 3)
	f.Add(marker+` {"key":"a","value":"\u00e9"}`+"\r\n"+marker+marker+"{}", 1)
	f.Add("+ "+marker+` {"key":"a"`, 9)
	f.Add(strings.Repeat("x", mostLogLine)+marker+` {"key":"a","value":"1"}`, 100)
	f.Add("###Phase-out\n put###: {}\x00\xff", 2)
	f.Fuzz(func(t *testing.T, text string, piece int) {
		if piece < 1 {
			piece = 1
		}
		got, log, err := read(text, piece)
		whole, wholeLog, wholeErr := read(text, len(text)+1)
		if !maps.Equal(got, whole) || !slices.Equal(log, wholeLog) || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
			t.Errorf("in pieces %v, %q, %v, at once %v, %q, %v", got, log, err, whole, wholeLog, wholeErr)
		}
		for key := range got {
			if !validKey.MatchString(key) {
				t.Errorf("key %q", key)
			}
		}
		for _, line := range log {
			if len(line) > mostLogLine+100 || strings.Contains(line, "\n") || strings.Contains(line, marker) && !strings.Contains(text, "+") {
				t.Errorf("logged %q", line)
			}
		}
	})
}
