package export

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
)

// inMemoryPlace is a place of one file.
type inMemoryPlace struct{ data []byte }

func (inMemoryPlace) String() string { return "memory" }

func (inMemoryPlace) List(context.Context, string) ([]point.Entry, error) { return nil, nil }

func (p inMemoryPlace) Open(context.Context, string) (io.ReadSeekCloser, error) {
	return sectionCloser{io.NewSectionReader(bytes.NewReader(p.data), 0, int64(len(p.data)))}, nil
}

func (inMemoryPlace) Put(context.Context, string, io.Reader) (int64, error) { return 0, nil }

func (inMemoryPlace) MakeDir(context.Context, string) error { return nil }

func (inMemoryPlace) Remove(context.Context, string) error { return nil }

func FuzzRecord(f *testing.F) {
	r := &record{
		Version: recordVersion, Of: "example.com/acme/api", Time: time.Unix(1, 0).UTC(), Kept: []string{strings.Repeat("a", 40)},
		Parts: map[slot]contents{slotGit: {Part: point.Part{Name: "git/example.com/acme/api.git"}, Sums: map[string]string{"HEAD": "00"}}},
	}
	f.Add(r.encode())
	f.Add([]byte(`{"version":1,"kept":["../../x"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRecord(raw)
		if err != nil {
			return
		}
		again, err := decodeRecord(r.encode())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		a, _ := json.Marshal(r)
		b, _ := json.Marshal(again)
		if !bytes.Equal(a, b) {
			t.Errorf("%s became %s", a, b)
		}
	})
}

func FuzzPackedRefs(f *testing.F) {
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	f.Add([]byte("# pack-refs with: peeled fully-peeled sorted \n" + a + " refs/heads/main\n" + a + " refs/tags/v1\n^" + b + "\n"))
	f.Add([]byte(a + " refs/aaa\n" + a + " refs/backstay/kept/x\n"))
	f.Add([]byte("\n^\n refs/\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := parsePackedRefs(data)
		if len(data) > 0 && data[len(data)-1] != '\n' {
			return // git writes whole lines
		}
		after := parsePackedRefs(withKept(data, []string{b}))
		if len(after) != len(before)+1 {
			t.Errorf("%d refs became %d", len(before), len(after))
		}
	})
}

func FuzzArchive(f *testing.F) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range map[string]string{"api.git/.backstay": `{"version":1,"of":"x"}`, "api.git/refs/": "", "../outside": "x"} {
		w, err := z.Create(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			f.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := openArchive(t.Context(), inMemoryPlace{raw}, "a.zip")
		if err != nil {
			return
		}
		defer a.close()
		_ = walk(t.Context(), a, ".", func(name string, _ point.Entry) error { // only that it neither panics nor leads out
			if strings.Contains(name, "..") && strings.Contains("/"+name+"/", "/../") {
				t.Errorf("name %q leads out", name)
			}
			if r, err := a.Open(t.Context(), name); err == nil {
				r.Close()
			}
			return nil
		})
	})
}

func FuzzPackIndex(f *testing.F) {
	empty := append([]byte("\xfftOc\x00\x00\x00\x02"), make([]byte, fanoutSize+40)...)
	f.Add(empty)
	one := bytes.Clone(empty)
	one[indexHeader+fanoutSize-1] = 1
	f.Add(append(one, make([]byte, 28)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePackIndex(raw)
		if err == nil && (!p.within([]*packIndex{p}) || p.len() > 0 && p.within(nil)) {
			t.Error("an index does not hold itself")
		}
	})
}

func TestSameRepository(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw  string
		want bool
	}{
		{"https://example.com/acme/api.git", true},
		{"https://user:token@example.com/acme/api", true},
		{"git@example.com:acme/api.git", true},
		{"ssh://git@example.com/acme/api.git/", true},
		{"https://example.com/acme/api2.git", false},
		{"https://example.org/acme/api.git", false},
		{"/srv/acme/api.git", false},
		{"", false},
	}
	for _, test := range tests {
		if got := sameRepository(test.raw, "example.com/acme/api"); got != test.want {
			t.Errorf("%q: %v", test.raw, got)
		}
	}
	if !sameRepository("http://127.0.0.1:3000/acme/api.git", "127.0.0.1_3000/acme/api") {
		t.Error("a port is not recognised")
	}
	for _, raw := range []string{"/srv/acme/api.git", "file:///srv/acme/api.git/"} {
		if !sameRepository(raw, "local/srv/acme/api.git") || sameRepository(raw, "local/srv/acme/web") {
			t.Errorf("%q: a directory is not told from another", raw)
		}
	}
}

func TestBlockFileReadsAndSeeks(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789abcdef"), blockSize/4) // four blocks
	fetched := 0
	f := newBlockFile(int64(len(data)), func(from, n int64) ([]byte, error) {
		fetched++
		return data[from : from+n], nil
	})
	all, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(all, data) {
		t.Fatalf("read %d bytes: %v", len(all), err)
	}
	if _, err := f.Seek(-5, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	end, err := io.ReadAll(f)
	if err != nil || string(end) != "bcdef" {
		t.Errorf("read %q: %v", end, err)
	}
	if fetched != 4 {
		t.Errorf("%d blocks were fetched", fetched)
	}
	if _, err := f.Seek(-1, io.SeekStart); err == nil {
		t.Error("it was sought before its start")
	}
}
