package vault

import (
	"bytes"
	"testing"

	"github.com/backstay/backstay/internal/point"
)

func FuzzDecodeManifests(f *testing.F) {
	f.Add([]byte(`{"entries":[{"id":"a","labels":{"type":"snapshot","tag:backstay":"point","tag:id":"00000000000000000000000000000000",` +
		`"tag:time":"2026-01-01T00:00:00Z","tag:revisions":"{\"a\":\"b\"}"},"modified":"2026-01-01T00:00:00Z","data":{"rootEntry":{"obj":"k1"}}}]}`))
	f.Add([]byte(`{"entries":[{"id":"a","labels":null,"deleted":true}]}`))
	f.Add([]byte(`{"entries":[{"id":"a","labels":{"type":"backstay-proof","point":"1"},"data":{"proof":{"point":"1","proven":true}}}]}`))
	f.Add([]byte(`{"entries":7}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodeManifests(bytes.NewReader(b))
		if err != nil {
			return
		}
		l := &listing{holds: map[string][]hold{}, proofs: map[string][]proof{}}
		for _, e := range entries {
			l.add(understand(e))
		}
		for _, p := range l.points {
			if !validID(p.ID) {
				t.Errorf("a point of the id %q", p.ID)
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"point":{"id":"0","parts":[{"name":"a","carriedFrom":"2026-01-01T00:00:00Z"}]}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil && r.Version > point.RecordVersion {
			t.Errorf("version %d was taken", r.Version)
		}
	})
}

func FuzzDecodeLeaf(f *testing.F) {
	b, err := encodeLeaf(&leaf{Version: 1, Sums: []sum{{ID: "p1", Len: 7, SHA256: "00"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLeaf(b); (l == nil) != (err != nil) {
			t.Errorf("leaf %v with error %v", l, err)
		}
	})
}
