package neutral

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func markOf(id string) Mark {
	return Mark{Sort: "comment", Origin: Origin{
		Forge: "github.com", ID: id, URL: "https://github.com/acme/api/issues/12#issuecomment-" + id,
		Author: User{Login: "ada", Name: "Ada --> Lovelace"}, Created: time.Date(2024, 3, 1, 12, 30, 0, 0, time.UTC),
	}}
}

func TestMarkReads(t *testing.T) {
	m := markOf("7")
	m.Author.Name = "Ada *Byron*"
	m.Notes = []string{"reactions: +1 by bob\nand more"}
	want := "> by **Ada \\*Byron\\* (ada)** on 2024-03-01 12:30 UTC, originally https://github.com/acme/api/issues/12#issuecomment-7\n" +
		">\n> reactions: +1 by bob and more\n\nHello @\u200dbob, `@code` stays.\n\n<!-- backstay:1 "
	if got := m.Write("Hello @bob, `@code` stays."); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s…", got, want)
	}
}

func TestUnmarkGivesBackWhatWasMarked(t *testing.T) {
	for _, text := range []string{
		"", "plain", "\n\nblank lines\n\n", "> quoted\n\n> more", "a\r\nb\r\n\r\nc",
		"mail a@b.org, @bob, (@carl) and @\u200ddora, @@eve", "```\n@code\n```\n@prose `@span` ``@`span`` `@open",
		"somebody's <!-- backstay:1 {\"sort\":\"issue\",\"forge\":\"x\",\"id\":\"1\"} -->", "<!-- backstay  : -->",
		markOf("6").Write("restored before"),
	} {
		for _, ends := range []string{"", "\n", "\r\n \n"} {
			got, m, ok := Unmark(markOf("7").Write(text) + ends)
			if !ok || got != text || m.ID != "7" || m.Author.Name != "Ada --> Lovelace" {
				t.Errorf("%q came back as %q, %+v, %v", text, got, m, ok)
			}
		}
	}
}

func TestUnmarkOfOtherLineEnds(t *testing.T) {
	got, _, ok := Unmark(strings.ReplaceAll(markOf("7").Write("a\nb"), "\n", "\r\n"))
	if want := "a\r\nb"; !ok || got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsNoMark(t *testing.T) {
	good := markOf("7").Write("text")
	for name, text := range map[string]string{
		"none":             "text",
		"not at the end":   good + "\nmore",
		"cut":              good[:len(good)-5],
		"no JSON":          "x\n\n<!-- backstay:1 {sort} -->",
		"no sort":          "x\n\n<!-- backstay:1 {\"forge\":\"f\",\"id\":\"1\"} -->",
		"no forge":         "x\n\n<!-- backstay:1 {\"sort\":\"f\",\"id\":\"1\"} -->",
		"of a later build": strings.Replace(good, "backstay:1", "backstay:2", 1),
		"defused":          defuse(good),
		"too long":         "<!-- backstay:1 {\"sort\":\"s\",\"forge\":\"f\",\"id\":\"" + strings.Repeat("1", maxMark) + "\"} -->",
	} {
		if got, _, ok := Unmark(text); ok || got != text {
			t.Errorf("%s: a mark was found in %q", name, text)
		}
	}
}

func TestAMarkLeavesOutWhatIsTooLong(t *testing.T) {
	m := markOf("7")
	m.More = json.RawMessage(`{"Reason":"` + strings.Repeat("x", maxMark) + `"}`)
	if _, got, ok := Unmark(m.Write("text")); !ok || got.More != nil || got.ID != "7" {
		t.Errorf("got %v, %d bytes of More", ok, len(got.More))
	}
}

func TestWhatSomebodyEditedStays(t *testing.T) {
	edited := strings.Replace(markOf("7").Write("text"), "> by **", "By ", 1)
	if got, m, ok := Unmark(edited); !ok || m.ID != "7" || !strings.HasPrefix(got, "By Ada") {
		t.Errorf("got %q, %+v, %v", got, m, ok)
	}
}

func TestPlainDoesNothing(t *testing.T) {
	got := Plain("a\n<b> [x](y) @bob #12 \u202eevil *bold*")
	if want := "a \\<b\\> \\[x\\]\\(y\\) @\u200dbob \\#\u200d12 evil \\*bold\\*"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzMark finds no text that does not come back, and no mark that a text of somebody else could put in its place.
func FuzzMark(f *testing.F) {
	f.Add("text", "ada", "1")
	f.Add("<!-- backstay:1 {} -->", "-->", "--")
	f.Add("```\n`@a\n~~~\n@b", "@\u200d", "`")
	f.Fuzz(func(t *testing.T, text, name, id string) {
		m := markOf(strings.ToValidUTF8(id, "") + "7")
		m.Author.Login = name
		m.Notes = []string{Plain(name)}
		got, back, ok := Unmark(m.Write(text))
		if len(id)+len(name) > maxMark/16 {
			return
		}
		if !ok || back.ID != m.ID || back.Key() != m.Key() {
			t.Fatalf("the mark is lost: %q", m.Write(text))
		}
		if got != text {
			t.Fatalf("%q came back as %q", text, got)
		}
	})
}

// FuzzUnmark reads anything.
func FuzzUnmark(f *testing.F) {
	f.Add(markOf("7").Write("text"))
	f.Add("<!-- backstay:1 {\"sort\":[]} -->")
	f.Fuzz(func(t *testing.T, text string) {
		if got, _, ok := Unmark(text); !ok && got != text {
			t.Fatalf("%q is no mark, and was changed to %q", text, got)
		}
	})
}
