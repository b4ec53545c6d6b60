package volume

import (
	"testing"

	"github.com/backstay/backstay/internal/point"
)

// FuzzParseResult holds a mover's report to what it may say: of each volume of the task one result, stored or failed.
func FuzzParseResult(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"parts":null,"error":"x","class":"Denied"}`, `{"parts":[{"part":"p","state":"stored","bytes":-1}]}`,
		`{"parts":[{"part":"p","state":"stored"},{"part":"p","state":"failed"}]}`, `{"parts":[{"part":"q","state":"carried"}]}`, "{\"parts\":\"\xff\"}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		result, err := parseResult(message, []Mount{{Part: "p"}})
		if err != nil {
			if result.Parts != nil {
				t.Errorf("an error, and parts: %+v", result)
			}
			return
		}
		if len(result.Parts) != 1 || result.Parts[0].Part != "p" || result.Parts[0].Bytes < 0 ||
			result.Parts[0].State != point.Stored && result.Parts[0].State != point.Failed {
			t.Errorf("%q gives %+v", message, result)
		}
	})
}
