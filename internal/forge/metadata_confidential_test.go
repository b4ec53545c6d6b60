package forge_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// What only members see is not shown to everybody by restoring it.
func TestConfidentialThingsStayAmongMembers(t *testing.T) {
	source := func() *inMemory {
		return &inMemory{items: []*neutral.Item{
			{Origin: originOf("1", "ada", 1), Number: 1, Title: "for all", Comments: []*neutral.Comment{
				{Origin: originOf("3", "ada", 3), Item: 1, Body: "public words"},
				{Origin: originOf("4", "ada", 4), Item: 1, Body: "hidden words", Internal: true},
			}},
			{Origin: originOf("2", "ada", 2), Number: 2, Title: "hidden title", Confidential: true},
		}}
	}
	for _, private := range []bool{true, false} {
		board := newBoard()
		_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
			From: source(), Host: "forge.example.com", Repository: "acme/api", Target: board,
			To: forge.Repository{Owner: "acme", Name: "copy", Private: private},
		})
		if private != (err == nil) || !private && !errors.Is(err, fault.ErrIncomplete) {
			t.Errorf("private %v: %v", private, err)
		}
		text := asJSON(t, board)
		if strings.Contains(text, "hidden") != private || !strings.Contains(text, "public words") {
			t.Errorf("private %v: %s", private, text)
		}
	}
}
