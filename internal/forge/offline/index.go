package offline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/forge/neutral"
)

const (
	chunkSize = 1 << 20 // bytes of the index in one file, which a browser reads as a whole
	maxWords  = 2000    // different words of an item that are searched
	maxWord   = 40      // runes; longer ones are several
)

// found is what the search knows of an item.
type found struct {
	Place      string   `json:"p"`
	Repository string   `json:"r"`
	Sort       string   `json:"k"`
	Number     int64    `json:"n"`
	Title      string   `json:"t"`
	State      string   `json:"s"`
	Labels     []string `json:"l"`
	Milestone  string   `json:"m"`
	Author     string   `json:"a"`
	Day        string   `json:"d"`
	Words      string   `json:"w"`
}

// index writes what is searched, as scripts of about chunkSize: a page on a disk may load scripts, and nothing else.
type index struct {
	dir    string
	chunk  bytes.Buffer
	chunks int
}

func newIndex(dir string) *index { return &index{dir: filepath.Join(dir, "search")} }

func (x *index) add(f found) error {
	raw, err := json.Marshal(f) // escapes what could end a script
	if err != nil {
		return err
	}
	if x.chunk.Len() > 0 {
		x.chunk.WriteString(",\n")
	}
	x.chunk.Write(raw)
	if x.chunk.Len() < chunkSize {
		return nil
	}
	return x.flush()
}

func (x *index) flush() error {
	if x.chunk.Len() == 0 {
		return nil
	}
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	x.chunks++
	text := "backstay([\n" + x.chunk.String() + "\n]);\n"
	x.chunk.Reset()
	return os.WriteFile(filepath.Join(x.dir, fmt.Sprintf("%05d.js", x.chunks)), []byte(text), 0o600)
}

// finish tells how many chunks there are.
func (x *index) finish() (int, error) {
	err := x.flush()
	return x.chunks, err
}

// eachText calls take with the texts of an item, until it wants no more.
func eachText(item *neutral.Item, take func(text string) bool) {
	if !take(item.Body) || !eachComment(item.Comments, take) || item.Pull == nil {
		return
	}
	for _, r := range item.Pull.Reviews {
		if !take(r.Body) || !eachComment(r.Comments, take) {
			return
		}
	}
}

func eachComment(all []*neutral.Comment, take func(text string) bool) bool {
	for _, c := range all {
		if !take(c.Body) || !eachComment(c.Replies, take) {
			return false
		}
	}
	return true
}

// wordsOf is the different words of texts in their order, in small letters.
func wordsOf(each func(take func(string) bool)) string {
	var b strings.Builder
	seen := map[string]bool{}
	each(func(text string) bool {
		for word := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) }) {
			for word != "" && len(seen) < maxWords {
				var piece string
				piece, word = cut(word)
				if seen[piece] || utf8.RuneCountInString(piece) < 2 && piece[0] < utf8.RuneSelf {
					continue
				}
				seen[piece] = true
				b.WriteString(piece + " ")
			}
		}
		return len(seen) < maxWords
	})
	return strings.TrimSuffix(b.String(), " ")
}

// cut cuts a word off that is not too long.
func cut(word string) (piece, rest string) {
	n := 0
	for at := range word {
		if n == maxWord {
			return word[:at], word[at:]
		}
		n++
	}
	return word, ""
}
