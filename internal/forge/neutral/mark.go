package neutral

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Mark is the provenance of a thing that was restored by API, as it stands in the thing's text: for people in its first paragraph, and
// for the next restore in an HTML comment at its end. It makes restores idempotent, and keeps the first origin over any number of them.
type Mark struct {
	Sort string `json:"sort"`
	Origin
	In string `json:"in,omitempty"` // ID of the review that a comment is of, or of the comment that it answers
	// Pending says that the text is not yet what it is to be: files that it refers to are not there.
	Pending bool `json:"pending,omitempty"`
	// More is what else the thing was and the forge has no place for: an object of the thing's fields, for Fill.
	More json.RawMessage `json:"more,omitempty"`
	// Notes are said to people below the first line; Unmark does not give them back.
	Notes []string `json:"-"`
	Quote string   `json:"-"` // a piece of a diff, shown below the notes
}

// Sorts of what bears a mark.
const (
	SortIssue         = "issue"
	SortPull          = "pull"
	SortComment       = "comment"
	SortReview        = "review"
	SortReviewText    = "review-text" // a review that became a comment
	SortReviewComment = "review-comment"
	SortDiscussion    = "discussion"
	SortRelease       = "release"
	SortPlaceholder   = "placeholder" // an item that only takes a number
)

// What of a text is the mark.
const (
	markBegin = "<!-- backstay:1 "
	markEnd   = " -->"
	maxMark   = 32 << 10 // bytes; longer ones are not read
	headBegin = "> by **"
	noteBegin = ">\n> "
)

// Write returns text with the mark in it. Marks that stand in text are defused, and mentions in it notify nobody.
func (m Mark) Write(text string) string {
	encoded, err := encodeMark(m)
	if err != nil || len(encoded) > maxMark {
		m.More = nil // it is the part that can be long, or no JSON
		encoded, _ = encodeMark(m)
	}
	var b strings.Builder
	b.WriteString(m.head())
	b.WriteString("\n\n")
	b.WriteString(Silence(defuse(text)))
	b.WriteString("\n\n" + markBegin + encoded + markEnd)
	return b.String()
}

// encodeMark makes JSON that cannot end the comment it stands in.
func encodeMark(m Mark) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b) // escapes < and >
	if err := e.Encode(m); err != nil {
		return "", err
	}
	// Older rules of HTML end a comment at two hyphens. In JSON they stand in strings only.
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "--", `-\u002d`), nil
}

// head is what people see above the text.
func (m Mark) head() string {
	name := Plain(m.Author.Login)
	switch full := Plain(m.Author.Name); {
	case name == "" && full == "":
		name = "somebody"
	case name == "":
		name = full
	case full != "" && full != name:
		name = full + " (" + name + ")"
	}
	head := headBegin + name + "**"
	if !m.Created.IsZero() {
		head += " on " + Stamp(m.Created)
	}
	if webAddress.MatchString(m.URL) {
		head += ", originally " + m.URL
	}
	for _, note := range m.Notes {
		head += "\n" + noteBegin + strings.Join(strings.Fields(note), " ")
	}
	if m.Quote != "" {
		head += "\n>\n" + quote(m.Quote)
	}
	return head
}

// quote shows lines of a diff, the last ones of a long one, in a block that they cannot end.
func quote(diff string) string {
	fence := "```"
	for strings.Contains(diff, fence) {
		fence += "`"
	}
	lines := strings.FieldsFunc(diff, func(r rune) bool { return r == '\n' || r == '\r' })
	lines = lines[max(0, len(lines)-12):]
	return "> " + fence + "diff\n> " + strings.Join(lines, "\n> ") + "\n> " + fence
}

var webAddress = regexp.MustCompile(`^https?://[!-;=?-~]{1,1000}$`)

// Stamp is a time as texts of restored things have it.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Plain is text by somebody, as Markdown of one line that says it and does nothing: no link, no mention, no reference, no HTML.
func Plain(s string) string {
	var b strings.Builder
	for i, r := range []rune(strings.Join(strings.Fields(s), " ")) {
		switch {
		case i == 300:
			b.WriteString("…")
			return b.String()
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			continue
		case strings.ContainsRune("\\`*_{}[]<>()#!|~&", r):
			b.WriteRune('\\')
		}
		b.WriteRune(r)
		if r == '@' || r == '#' {
			b.WriteString(joiner)
		}
	}
	return b.String()
}

// Unmark finds the mark at the end of a text, and gives back the text that was marked. Believe it only where the account wrote the
// text that restores are made with: anybody can write a mark.
func Unmark(marked string) (text string, m Mark, ok bool) {
	whole := strings.TrimRightFunc(marked, unicode.IsSpace)
	rest, hasEnd := strings.CutSuffix(whole, markEnd)
	begin := strings.LastIndex(rest, markBegin)
	if !hasEnd || begin < 0 || len(rest)-begin > maxMark+len(markBegin) || strings.Contains(rest[begin:], "-->") {
		return marked, Mark{}, false
	}
	if err := json.Unmarshal([]byte(rest[begin+len(markBegin):]), &m); err != nil || m.Sort == "" || m.Forge == "" || m.ID == "" {
		return marked, Mark{}, false
	}
	// Forges may have made other line ends of ours, and then of the text's.
	rest = rest[:begin]
	end := "\n\n"
	if strings.HasSuffix(rest, "\r\n\r\n") {
		end = "\r\n\r\n"
	}
	rest, hasEnd = strings.CutSuffix(rest, end)
	if head, below, found := strings.Cut(rest, end); hasEnd && found && strings.HasPrefix(head, headBegin) {
		return rearm(speak(below)), m, true
	}
	// Somebody edited the text: what is left of it counts.
	return rest, m, true
}

// Key names a thing by its first origin: "comment github.com 1234".
func (m Mark) Key() string { return m.Sort + " " + m.Forge + " " + m.ID }

// KeyOf names a thing that bears no mark by what the repository has only one of.
func KeyOf(t Thing) string {
	switch t := t.(type) {
	case *Label:
		return "label " + strings.ToLower(t.Name)
	case *Milestone:
		return "milestone " + t.Title
	case *Asset:
		return "asset " + t.Release + " " + t.Name
	case *Rule:
		if t.Tags {
			return "rule tags " + t.Pattern
		}
		return "rule " + t.Pattern
	}
	return ""
}

var (
	marks   = regexp.MustCompile(`<!-- backstay( *):`)
	defused = regexp.MustCompile(`<!-- backstay( *) :`)
)

// defuse makes marks that stand in text nobody's: a space more each time, so that rearm gives back what was there.
func defuse(text string) string { return marks.ReplaceAllString(text, "<!-- backstay$1 :") }

func rearm(text string) string { return defused.ReplaceAllString(text, "<!-- backstay$1:") }

// joiner stands between an @ and a name so that nobody is notified. It is not seen.
const joiner = "\u200d"

var (
	mentions = regexp.MustCompile(`(^|[^0-9A-Za-z_/` + "`" + `@])@(` + joiner + `*)([0-9A-Za-z_])`)
	silenced = regexp.MustCompile(`(^|[^0-9A-Za-z_/` + "`" + `@])@` + joiner + `(` + joiner + `*)([0-9A-Za-z_])`)
)

// Silence makes mentions in a Markdown text notify nobody, but for those in code, which do not.
func Silence(text string) string {
	return Prose(text, func(s string) string { return mentions.ReplaceAllString(s, "${1}@"+joiner+"${2}${3}") })
}

// speak is the way back from Silence.
func speak(text string) string {
	return Prose(text, func(s string) string { return silenced.ReplaceAllString(s, "${1}@${2}${3}") })
}
