package forgetest

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// Capturing makes restore points of what a provider reads beside the code, one after the other.
type Capturing struct {
	Provider forge.Provider
	Clock    *Clock
	Files    bool

	store *memory.Store
}

// Captured is what became of the only repository in a restore point.
type Captured struct {
	*archive.Reader
	Part  point.Part
	Notes []string
	Open  []string // counts that do not close
}

// Run makes a point, some hours after the one before.
func (c *Capturing) Run(t *testing.T) Captured {
	t.Helper()
	c.Clock.Advance(3 * time.Hour)
	if c.store == nil {
		c.store = memory.New(c.Clock.Now)
	}
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: codeless(c.Provider), Name: "tester", Clock: c.Clock.Now, Metadata: &forge.MetadataOptions{Files: c.Files},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.store.Begin(t.Context(), a.Subject(), "daily")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Capture(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	receipt, err := d.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var made Captured
	for _, p := range receipt.Point.Parts {
		if p.Kind == point.KindMetadata {
			made.Part, made.Notes = p, p.Notes
		}
	}
	for _, n := range made.Part.Counts {
		if !n.Closes() {
			made.Open = append(made.Open, n.Of)
		}
	}
	next, err := c.store.Begin(t.Context(), a.Subject(), "daily")
	if err != nil {
		t.Fatal(err)
	}
	w, err := next.Part(t.Context(), made.Part.Name, point.KindMetadata)
	if err != nil {
		t.Fatal(err)
	}
	if w.Prior() == nil {
		t.Fatalf("there is no metadata: %+v", receipt.Point.Parts)
	}
	if made.Reader, err = archive.Open(t.Context(), w.Prior()); err != nil {
		t.Fatal(err)
	}
	return made
}

// withoutCode is a provider whose repositories have no address for git: their parts fail, and their metadata is captured.
type withoutCode struct {
	forge.Provider
	forge.MetadataReader
}

// The abilities of a provider as the engine looks for them.
type (
	counts struct {
		withoutCode
		forge.MetadataCounter
	}
	getsFiles struct {
		withoutCode
		forge.FileGetter
	}
	countsAndGets struct {
		withoutCode
		forge.MetadataCounter
		forge.FileGetter
	}
)

func codeless(p forge.Provider) forge.Provider {
	reader, _ := p.(forge.MetadataReader)
	counter, isCounter := p.(forge.MetadataCounter)
	getter, isGetter := p.(forge.FileGetter)
	bare := withoutCode{p, reader}
	switch {
	case isCounter && isGetter:
		return countsAndGets{bare, counter, getter}
	case isCounter:
		return counts{bare, counter}
	case isGetter:
		return getsFiles{bare, getter}
	}
	return bare
}

// Repositories implements forge.Provider.
func (c withoutCode) Repositories(ctx context.Context, s forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for r, err := range c.Provider.Repositories(ctx, s) {
			r.HTTPURL, r.SSHURL, r.WikiHTTPURL, r.WikiSSHURL = "", "", "", ""
			if !yield(r, err) {
				return
			}
		}
	}
}

// Record makes one of "comments/1 in issues/7".
func Record(name string, raw string) archive.Record {
	key := func(s string) (k archive.Key) {
		k.Collection, k.ID, _ = strings.Cut(s, "/")
		return k
	}
	own, parent, _ := strings.Cut(name, " in ")
	return archive.Record{Key: key(own), Parent: key(parent), Raw: json.RawMessage(raw)}
}

// DecodeHostile decodes records that all have one raw: it has to end, and what it yields has to be fit for use.
func DecodeHostile(t *testing.T, decode forge.Decoder, h archive.Header, raw string, names ...string) {
	t.Helper()
	var records []archive.Record
	for _, name := range names {
		records = append(records, Record(name, raw))
	}
	r, err := archive.Of(h, records...)
	if err != nil {
		return
	}
	s, err := decode(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Overview(t.Context()) // only that it ends is asked
	for item, err := range s.Items(t.Context()) {
		if err == nil && item.Number <= 0 {
			t.Errorf("an item has the number %d", item.Number)
		}
	}
	for file, err := range s.Files(t.Context()) {
		if err == nil && file == nil {
			t.Error("a file is nil")
		}
	}
}

// Decoded is what a decoder makes of an archive: the items by their numbers, and the rest.
func Decoded(t *testing.T, decode forge.Decoder, r *archive.Reader) (map[int64]*neutral.Item, *neutral.Overview) {
	t.Helper()
	s, err := decode(r)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return Items(t, s), o
}

// Items are those of a source, by number.
func Items(t *testing.T, s neutral.Source) map[int64]*neutral.Item {
	t.Helper()
	all := map[int64]*neutral.Item{}
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[item.Number] = item
	}
	return all
}
