// Package offline writes what restore points hold of repositories beside their code for people to read without a forge: as pages of
// HTML (Site), or as one SQLite database (Database). Both take repositories one after another, and hold one item at a time.
package offline

import (
	"context"
	"io"
	"strings"
	"unicode"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// Repository is what is written of one.
type Repository struct {
	Name   string // "github.com/acme/api"
	Source neutral.Source
}

// Counts says how much was written.
type Counts struct {
	Repositories int64 `json:"repositories"`
	Issues       int64 `json:"issues"`
	Pulls        int64 `json:"pulls"`
	Discussions  int64 `json:"discussions"`
	Comments     int64 `json:"comments"` // those of reviews, too
	Reviews      int64 `json:"reviews"`
	Releases     int64 `json:"releases"`
	Projects     int64 `json:"projects"`
	Files        int64 `json:"files"`   // assets and attachments whose bytes the point has
	Missing      int64 `json:"missing"` // and whose bytes it has not
}

// item counts an issue or pull request with what belongs to it.
func (c *Counts) item(item *neutral.Item) {
	c.Comments += countComments(item.Comments)
	if item.Pull == nil {
		c.Issues++
		return
	}
	c.Pulls++
	c.Reviews += int64(len(item.Pull.Reviews))
	for _, r := range item.Pull.Reviews {
		c.Comments += countComments(r.Comments)
	}
}

// discussion counts one with its answers.
func (c *Counts) discussion(d *neutral.Discussion) {
	c.Discussions++
	c.Comments += countComments(d.Comments)
}

// file counts a file.
func (c *Counts) file(f *neutral.File) {
	if f.SHA256 == "" {
		c.Missing++
		return
	}
	c.Files++
}

func countComments(all []*neutral.Comment) int64 {
	n := int64(len(all))
	for _, c := range all {
		n += countComments(c.Replies)
	}
	return n
}

// Sorts of items, as paths and columns have them.
const (
	sortIssue      = "issue"
	sortPull       = "pull"
	sortDiscussion = "discussion"
)

func sortOf(item *neutral.Item) string {
	if item.Pull != nil {
		return sortPull
	}
	return sortIssue
}

// stateOf is "open", "closed" or "merged".
func stateOf(item *neutral.Item) string {
	switch {
	case item.Pull != nil && item.Pull.Merged:
		return "merged"
	case item.Closed:
		return "closed"
	}
	return "open"
}

// nameOf is how somebody is called; "" for nobody.
func nameOf(u neutral.User) string {
	if u.Login != "" {
		return u.Login
	}
	return u.Name
}

// clean is text by somebody, without what makes terminals and browsers show it as something else: control characters are left out,
// and those that turn the direction of what follows are named. Line ends stay.
func clean(s string) string {
	harmless := func(r rune) bool {
		return !turns(r) && (!unicode.IsControl(r) || r == '\n' || r == '\t') && r != unicode.ReplacementChar
	}
	if strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case turns(r):
			b.WriteString(turnNames[r])
		case harmless(r) || r == unicode.ReplacementChar: // bytes that are no UTF-8, too
			b.WriteRune(r)
		}
	}
	return b.String()
}

// turns reports whether a character overrides, embeds or isolates what follows it. Marks of direction, which Arabic and Hebrew are written with, do not.
func turns(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

var turnNames = map[rune]string{
	0x202a: "[U+202A]", 0x202b: "[U+202B]", 0x202c: "[U+202C]", 0x202d: "[U+202D]", 0x202e: "[U+202E]",
	0x2066: "[U+2066]", 0x2067: "[U+2067]", 0x2068: "[U+2068]", 0x2069: "[U+2069]",
}

// copyTo copies until ctx ends.
func copyTo(ctx context.Context, to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, interruptible{ctx.Err, from})
	return err
}

// interruptible is a reader that ends with an error once there is one.
type interruptible struct {
	err  func() error
	from io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := r.err(); err != nil {
		return 0, err
	}
	return r.from.Read(p)
}
