package forge_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/point"
)

func TestALongReadingIsForetold(t *testing.T) {
	h := newHub(10_000, 2)
	_, requests := forge.Estimate(h.Collections(acme), map[string]int64{"issues": 10_000, "comments": 20_000, "releases": 4})
	if want := int64(5 + 1 + 100 + 200 + 200 + 1 + 1); requests != want {
		t.Errorf("the estimate is %d requests, want %d", requests, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var said []string
	a, err := forge.NewAccount(forge.AccountOptions{
		Provider: h, Name: "hub.example/acme", Clock: func() time.Time { return h.now }, Metadata: &forge.MetadataOptions{},
		Observe: func(e point.Event) {
			said = append(said, e.Text)
			cancel() // before anything is read
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf(t, h)
	d, err := s.store.Begin(t.Context(), a.Subject(), "daily")
	if err != nil {
		t.Fatal(err)
	}
	if err := forge.CaptureMetadata(ctx, a, d, acme); err == nil {
		t.Error("a run that was called off ended well")
	}
	if !strings.HasPrefix(strings.Join(said, ""), "hub.example/acme/api: about 508 requests for what is beside the code: ") {
		t.Errorf("it said %q", said)
	}
}

// town is a hub of many repositories that are all the same.
type town struct {
	*hub
	repositories, asked int
}

func (t *town) Repositories(context.Context, forge.Selection) iter.Seq2[forge.Repository, error] {
	return func(yield func(forge.Repository, error) bool) {
		for n := range t.repositories {
			if !yield(t.repository(n), nil) {
				return
			}
		}
	}
}

func (t *town) repository(n int) forge.Repository {
	return forge.Repository{ID: fmt.Sprint(n + 1), Owner: "acme", Name: fmt.Sprintf("r%03d", n)}
}

func (t *town) MetadataMarks(_ context.Context, all []forge.Repository) (map[string]string, error) {
	t.asked++
	words := map[string]string{}
	for _, r := range all {
		words[r.ID] = "mark"
	}
	return words, nil
}

func TestMarksAreAskedInBulk(t *testing.T) {
	town := &town{hub: newHub(2, 1), repositories: 250}
	s := newShelf(t, town.hub)
	for run := range 2 {
		a, err := forge.NewAccount(forge.AccountOptions{
			Provider: town, Name: "hub.example/acme", Clock: func() time.Time { return town.now }, Metadata: &forge.MetadataOptions{},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Repositories(t.Context()); err != nil {
			t.Fatal(err)
		}
		town.asked, town.requests = 0, 0
		d, err := s.store.Begin(t.Context(), a.Subject(), "daily")
		if err != nil {
			t.Fatal(err)
		}
		for n := range town.repositories {
			if err := forge.CaptureMetadata(t.Context(), a, d, town.repository(n)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if town.asked != 3 || (run == 1 && town.requests != 0) {
			t.Errorf("run %d: %d requests for marks, %d for records", run, town.asked, town.requests)
		}
	}
}
