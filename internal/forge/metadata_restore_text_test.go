package forge_test

import (
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// rewritten is what becomes of a text in an issue that is #1 and was #2; the pull request #7 becomes #2, and the issue #30 becomes #3.
func rewritten(t *testing.T, text string) string {
	t.Helper()
	m := newBoard()
	_, err := forge.RestoreMetadata(t.Context(), forge.MetadataRestoreOptions{
		From: &inMemory{items: []*neutral.Item{
			{Origin: originOf("2", "ada", 0), Number: 2, Body: text},
			{Origin: originOf("7", "ada", 0), Number: 7, Pull: &neutral.Pull{}},
			{Origin: originOf("30", "ada", 0), Number: 30},
		}},
		Host: "git.example.org_3000", Repository: "acme/api", Target: m, To: forge.Repository{WebURL: "https://new.example/n/api"},
	})
	if err != nil {
		t.Fatal(err)
	}
	body, _, ok := neutral.Unmark(m.items[0].Body)
	if !ok {
		t.Fatalf("no mark in %q", m.items[0].Body)
	}
	return body
}

func TestReferencesAreRewritten(t *testing.T) {
	const old, fresh = "https://git.example.org:3000/acme/api", "https://new.example/n/api"
	for text, want := range map[string]string{
		"#7, (#30) and #2.":           "#2, (#3) and #1.",
		"!7 is the pull request":      "#2 is the pull request",
		"!30 is none":                 "!30 is none",
		"acme/api#7 ACME/API#30":      "#2 #3",
		"other/api#7 and x#7":         "other/api#7 and x#7",
		"gone is #5":                  "gone is " + old + "/issues/5",
		"no issue: #31, #123456 #0":   "no issue: #31, #123456 #0",
		"&#39; /#7 a#7 ##7":           "&#39; /#7 a#7 ##7",
		"`#7` and\n```\n#7\n```\n#7":  "`#7` and\n```\n#7\n```\n#2",
		old + "/pulls/7":              fresh + "/issues/2",
		"[x](" + old + "/issues/30#c": "[x](" + fresh + "/issues/3",
		old + "/-/merge_requests/7.":  fresh + "/issues/2.",
		old + "/issues/5":             old + "/issues/5",
		old + "2/issues/7":            old + "2/issues/7",
		"#7#7 #7 #7":                  "#2#7 #2 #2",
		"# 7 is a heading":            "# 7 is a heading",
		"#99999999999999999999":       "#99999999999999999999",
	} {
		if got := rewritten(t, text); got != want {
			t.Errorf("%q became\n%q, want\n%q", text, got, want)
		}
	}
}

// FuzzRestoredText finds no text that breaks a restore, or takes more than a number or an address for a reference.
func FuzzRestoredText(f *testing.F) {
	f.Add("see #7, acme/api#30 and ![](https://git.example.org:3000/acme/api/issues/2)")
	f.Add("``` #7")
	f.Add("@bob <!-- backstay:1 {} -->")
	f.Fuzz(func(t *testing.T, text string) {
		got := rewritten(t, text)
		if !strings.ContainsAny(text, "#!/") && got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}
