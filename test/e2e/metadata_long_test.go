//go:build e2e && long

package e2e

import (
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// TestHugeMetadata is of a repository with 40,000 issues and 200,000 comments.
func TestHugeMetadata(t *testing.T) {
	h := newTalk(t, 40_000, 200_000, 400)
	b := newBackstay(t, "HUB_TOKEN="+forgetest.Token)
	const limit = 200 << 20
	first := h.backUp(t, b, 0, 0).good(t)
	t.Logf("the first run: %d requests, %v, %d MiB of memory", h.requests, first.took, first.memory>>20)
	if first.memory > limit {
		t.Errorf("the first run took %d MiB of memory, want %d at most", first.memory>>20, limit>>20)
	}
	if budget := 405 + 2021 + 800 + 5 + 20; h.requests > budget { // and the lists of what there is little of
		t.Errorf("the first run made %d requests, want %d at most", h.requests, budget)
	}
	h.whole(t, b)
	again := h.backUp(t, b, 0, 0).good(t)
	t.Logf("unchanged: %d requests, %v, %d MiB of memory", h.requests, again.took, again.memory>>20)
	if h.requests > 0 || again.memory > limit {
		t.Errorf("an unchanged run made %d requests, and took %d MiB of memory", h.requests, again.memory>>20)
	}
	h.Edit(func(m *githubtest.Metadata) {
		c := m.Comments[77]
		c.Body, c.Updated = "edited", time.Now()
		m.Items[c.On-1].Updated = time.Now()
	})
	edited := h.backUp(t, b, 0, 0).good(t)
	t.Logf("a comment edited: %d requests, %v, %d MiB of memory", h.requests, edited.took, edited.memory>>20)
	if h.requests > 4 || edited.memory > limit { // beside the marks
		t.Errorf("an edited comment cost %d requests, and %d MiB of memory", h.requests, edited.memory>>20)
	}
	h.whole(t, b)
}

func TestHugeMetadataOfAProcessThatIsKilled(t *testing.T) { killedTalk(t, 40_000, 200_000, 2_500, 20) }
