package github_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/archive"
)

// TestRecordedMetadata captures what GitHub itself once answered, and decodes it.
func TestRecordedMetadata(t *testing.T) {
	var issues []json.RawMessage
	for _, a := range record(t, "paginate-issues").left {
		var page []json.RawMessage
		if err := json.Unmarshal(a.Response, &page); err != nil {
			t.Fatal(err)
		}
		issues = append(issues, page...)
	}
	list, err := json.Marshal(issues)
	if err != nil {
		t.Fatal(err)
	}
	release := record(t, "release-assets").left[0].Response
	p := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/issues") {
			w.Write(list) //nolint:errcheck // into memory
			return
		}
		io.WriteString(w, "["+string(release)+"]")
	})
	var records []archive.Record
	for _, name := range []string{"issues", "releases"} {
		found, err := collection(t, p, name)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, found...)
	}
	o, items, _ := decoded(t, records, "")
	if len(items) != 13 || len(o.Releases) != 1 || o.Releases[0].Tag != "v1.0.0" || o.Releases[0].Created.IsZero() {
		t.Fatalf("there are %d issues and %+v", len(items), o.Releases)
	}
	for i, item := range items {
		if item.Number != int64(i+1) || item.Title == "" || item.Author.Login == "ghost" || item.Author.ID == "" || item.ID == "0" || item.Created.IsZero() || item.Pull != nil {
			t.Errorf("issue %d is %+v", i+1, item)
		}
	}
}
