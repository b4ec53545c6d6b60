package archive

import (
	"encoding/json"
	"testing"
	"time"
)

func record(collection, id, parent, raw string) Record {
	r := Record{Key: Key{collection, id}, Raw: json.RawMessage(raw)}
	if parent != "" {
		r.Parent = Key{"issues", parent}
	}
	return r
}

func TestALaterRecordTakesThePlaceOfAnEarlierOne(t *testing.T) {
	gone := record("comments", "7", "2", `{"n":7}`)
	gone.Gone = time.Unix(1, 0)
	r, err := Of(Header{}, record("issues", "10", "", `{"n":10}`), record("issues", "2", "", `{"n":2}`), record("comments", "7", "2", `{"n":7}`),
		record("comments", "8", "2", `{"n":8}`), record("issues", "2", "", `{ "n": "two" }`), gone)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for issue, err := range r.All(t.Context(), "issues") {
		if err != nil {
			t.Fatal(err)
		}
		got += string(issue.Raw)
		for comment, err := range r.Children(t.Context(), issue.Key, "comments") {
			if err != nil {
				t.Fatal(err)
			}
			got += " " + string(comment.Raw)
		}
	}
	if want := `{"n":"two"} {"n":8}{"n":10}`; got != want {
		t.Errorf("living are %s, want %s", got, want)
	}
	if last, err := r.Get(t.Context(), gone.Key); err != nil || last.Gone.IsZero() || r.Count("comments") != 1 {
		t.Errorf("the comment that is gone: %+v, %v", last, err)
	}
}
