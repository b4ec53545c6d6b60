package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

func TestDiffOfMetadataNamesWhatPeopleDid(t *testing.T) {
	store := memory.New(time.Now)
	var ids []string
	run := func(write func(add func(key, parent, raw string), gone func(key string))) {
		t.Helper()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		d, err := store.Begin(t.Context(), point.Subject{Kind: point.SubjectAccount, Name: "x"}, "daily")
		must(err)
		part, err := d.Part(t.Context(), "forge/x/y/z/metadata", point.KindMetadata)
		must(err)
		w, err := archive.NewWriter(t.Context(), part)
		must(err)
		write(func(key, parent, raw string) {
			_, err := w.Add(t.Context(), archive.Record{Key: keyOf(key), Parent: keyOf(parent), Raw: json.RawMessage(raw)})
			must(err)
		}, func(key string) { must(w.Gone(t.Context(), time.Now(), keyOf(key))) })
		must(w.Flush(t.Context()))
		must(part.Store(t.Context(), point.Part{}))
		receipt, err := d.Commit(t.Context())
		must(err)
		ids = append(ids, receipt.Point.ID)
	}
	long := strings.Repeat("The same words again. ", 20)
	run(func(add func(key, parent, raw string), gone func(string)) {
		add("issues/9", "", `{"title": "It breaks", "state": "open", "user": {"login": "ann"}, "updated_at": "1"}`)
		add("comments/5", "issues/9", `{"body": "`+long+`one"}`)
		add("comments/6", "issues/9", `{"body": "spam\n\u001b[2Jspam"}`)
		add("releases/1", "", `{"tag_name": "v1", "assets": [{"name": "a", "download_count": 1}]}`)
		add("downloads/a.zip", "", `{"name": "a.zip", "downloads": 1}`)
		add("comments/7", "pulls/3", `{"content": {"raw": "Bitbucket says it so", "html": "<p>"}}`)
		add("comments/8", "issues/9", `{"content": "OneDev says it so"}`)
	})
	run(func(add func(key, parent, raw string), gone func(string)) {
		add("issues/9", "", `{"title": "It breaks", "state": "closed", "user": {"login": "ann"}, "updated_at": "2"}`)
		add("comments/5", "issues/9", `{"body": "`+long+`two"}`)
		gone("comments/6")
		add("releases/1", "", `{"tag_name": "v1", "assets": [{"name": "a", "download_count": 2}]}`)
		add("downloads/a.zip", "", `{"name": "a.zip", "downloads": 2}`)
		gone("comments/7")
		gone("comments/8")
		add("issues/10", "", `{"title": "Another"}`)
	})
	var got []string
	differs := (&app{}).differs()
	err := protect.Diff(t.Context(), store, ids[0], ids[1], differs, func(c protect.Change) { got = append(got, printable(changeLine(c))) })
	if err != nil {
		t.Fatal(err)
	}
	const part = "forge/x/y/z/metadata "
	want := []string{
		"~ " + part + `comments/5  body: "…e same words again. one" -> body: "…e same words again. two"`,
		"- " + part + `comments/6  in issues/9: "spam �[2Jspam"`,
		"- " + part + `comments/7  in pulls/3: "Bitbucket says it so"`,
		"- " + part + `comments/8  in issues/9: "OneDev says it so"`,
		"~ " + part + `issues/9  state: "open", updated_at: "1" -> state: "closed", updated_at: "2"`,
		"+ " + part + `issues/10  "Another"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func keyOf(text string) archive.Key {
	collection, id, _ := strings.Cut(text, "/")
	return archive.Key{Collection: collection, ID: id}
}

func TestFieldsThatDifferAreFew(t *testing.T) {
	was, is := fieldsThatDiffer([]byte(`{"a":1,"b":1,"c":1,"d":1,"e":1,"body":null,"x":[1]}`), []byte(`{"a":2,"b":2,"c":2,"d":2,"e":2,"body":"w","x":[2]}`))
	if want := `body: "", a: "1", b: "1", c: "1", d: "1"`; was != want {
		t.Errorf("got %s, want %s", was, want)
	}
	if want := `body: "w", a: "2", b: "2", c: "2", d: "2", and 2 fields more`; is != want {
		t.Errorf("got %s, want %s", is, want)
	}
}

func TestCountsOfMetadataAreBrief(t *testing.T) {
	part := point.Part{Kind: point.KindMetadata, Counts: []point.Count{
		{Of: "issues", Expected: 2, Stored: 2},
		{Of: "timeline", Expected: 30, Stored: 30},
		{Of: "comments", Expected: 5, Stored: 4},
		{Of: "collections", Expected: 3, Stored: 3},
		{Of: "files", Expected: 3, Stored: 1, Excluded: 1, MissingAtSource: []string{"https://f.example/a"}},
	}}
	if got, want := countsOf(part), "32 of 32 records, 4 of 5 comments, 1 of 3 files (1 excluded)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := remarks(part), []string{"2 issues, 30 timeline, 4 comments", "missing at source: https://f.example/a"}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
