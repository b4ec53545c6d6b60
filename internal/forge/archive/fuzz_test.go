package archive_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// FuzzArchive reads an archive that somebody made up, and goes on with it. What a Reader gives and what a Writer takes over is the same.
func FuzzArchive(f *testing.F) {
	line := `{"c":"issues","id":"1","pc":"","p":"","updated":"2026-01-01T00:00:00Z","raw":{"a":"<b>"}}` + "\n"
	gone := `{"c":"issues","id":"1","gone":"2026-01-02T00:00:00Z","raw":null}` + "\n"
	index := `{"c":"issues","id":"1","at":0,"n":87,"sum":"000102030405060708090a0b"}` + "\n"
	f.Add([]byte(`{"version":1,"dialect":"github"}`), []byte(line), []byte(nil))
	f.Add([]byte(`{"version":1,"collections":{"issues":{"living":1,"total":-1}}}`), []byte(line+gone+line), []byte(nil))
	f.Add([]byte(`{"version":1}`), []byte(line), []byte(index))
	f.Add([]byte(`{"version":1}`), []byte(line), []byte(`{"c":"issues","id":"1","at":-1,"n":1099511627776,"sum":"zz"}`))
	f.Add([]byte(`{"version":2}`), []byte(`{"c":`), []byte("\x00"))
	f.Fuzz(func(t *testing.T, header, segment, index []byte) {
		store := memory.New(func() time.Time { return time.Unix(1, 0) })
		subject := point.Subject{Kind: point.SubjectRepository, Name: "x"}
		part := func() (point.Draft, point.PartWriter) {
			d, err := store.Begin(t.Context(), subject, "daily")
			if err != nil {
				t.Fatal(err)
			}
			w, err := d.Part(t.Context(), "m", point.KindMetadata)
			if err != nil {
				t.Fatal(err)
			}
			return d, w
		}
		d, w := part()
		files := map[string][]byte{archive.HeaderFile: header, archive.SegmentDir + "/00000001.ndjson": segment}
		if len(index) > 0 {
			files[archive.IndexDir+"/00000001.ndjson"] = index
		}
		for name, content := range files {
			if _, err := w.Put(t.Context(), point.Entry{Name: name}, bytes.NewReader(content), point.Text); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Store(t.Context(), point.Part{}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, w = part()
		r, readError := archive.Open(t.Context(), w.Prior())
		again, err := archive.NewWriter(t.Context(), w)
		if (err == nil) != (readError == nil) {
			t.Fatalf("read: %v; gone on with: %v", readError, err)
		}
		if err != nil {
			return
		}
		if got, want := again.Count("issues"), int64(r.Count("issues")); got != want {
			t.Errorf("the writer has %d issues, the reader %d", got, want)
		}
		for record, err := range r.All(t.Context(), "issues") {
			if err != nil {
				break // an index may lie
			}
			if len(index) == 0 {
				if found, err := again.Add(t.Context(), record); err == nil && found != archive.Same && string(record.Raw) != "null" {
					t.Errorf("%s is found to be another one: %s", record.Key, record.Raw)
				}
			}
		}
	})
}
