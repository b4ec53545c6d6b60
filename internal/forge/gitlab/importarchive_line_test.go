package gitlab

import (
	"errors"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func TestALineThatGitLabWouldCutIsRefused(t *testing.T) {
	i := importer{Import: Import{Scratch: t.TempDir()}}
	f, err := i.open("issues")
	if err != nil {
		t.Fatal(err)
	}
	defer f.close() //nolint:errcheck // nothing is in it
	err = f.line(object{"title": "Huge", "description": strings.Repeat("x", longestImported)})
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), "Huge") {
		t.Errorf("it came out as %v", err)
	}
}

func TestLinesHaveNoZero(t *testing.T) {
	got, err := encoded(object{"a\x00": `b\u0000` + "\x00\\\x00c"})
	if want := `{"a":"b\\u0000\\c"}` + "\n"; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}
