package forge

import (
	"path"
	"strings"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

// glob is a pattern: * stands for any characters but a slash, ** for any at all, ? for one but a slash, [a-z] for one of a class, and
// \ takes the next character as it is.
type glob struct {
	text   string
	tokens []token
}

type token struct {
	sort  tokenSort
	char  rune   // of literal
	class string // of class, with its brackets
}

type tokenSort int

const (
	literal tokenSort = iota
	anyChar
	class
	star
	doubleStar
)

// maxGlob bounds a pattern, in bytes.
const maxGlob = 1000

// parseGlob reads a pattern.
func parseGlob(text string) (glob, error) {
	bad := func(why string) (glob, error) {
		return glob{}, fault.New("pattern "+printable(text[:min(len(text), maxGlob)]), fault.ErrInvalid, why, "")
	}
	if text == "" || len(text) > maxGlob || !utf8.ValidString(text) {
		return bad("it is empty, too long or not UTF-8")
	}
	g := glob{text: text}
	for rest := text; rest != ""; {
		t, n := nextToken(rest)
		if n == 0 {
			return bad(`a bracket is not closed, or nothing follows the \`)
		}
		g.tokens, rest = append(g.tokens, t), rest[n:]
	}
	return g, nil
}

// nextToken reads the token at the start of s, and its length; 0 for none that is well formed.
func nextToken(s string) (token, int) {
	switch s[0] {
	case '*':
		if strings.HasPrefix(s, "**") {
			return token{sort: doubleStar}, 2
		}
		return token{sort: star}, 1
	case '?':
		return token{sort: anyChar}, 1
	case '[':
		for end := 1; end < len(s); end++ {
			if s[end] == '\\' {
				end++
			} else if s[end] == ']' && end > 1 {
				c := s[:end+1]
				if _, err := path.Match(c, "x"); err != nil || strings.Contains(c, "/") {
					return token{}, 0
				}
				return token{sort: class, class: c}, end + 1
			}
		}
		return token{}, 0
	case '\\':
		if len(s) == 1 {
			return token{}, 0
		}
		r, n := utf8.DecodeRuneInString(s[1:])
		return token{char: r}, 1 + n
	}
	r, n := utf8.DecodeRuneInString(s)
	return token{char: r}, n
}

// takes reports whether the token may stand for the character.
func (t token) takes(r rune) bool {
	switch t.sort {
	case literal:
		return t.char == r
	case anyChar, star:
		return r != '/'
	case class:
		ok, _ := path.Match(t.class, string(r)) // checked when it was parsed
		return ok && r != '/'
	}
	return true
}

func (t token) repeats() bool { return t.sort == star || t.sort == doubleStar }

// match compares all of name. It takes time in proportion to the lengths of both, whatever they are.
func (g glob) match(name string) bool {
	at := make([]bool, len(g.tokens)+1) // at[i]: the first i tokens match what was read so far
	at[0] = true
	g.skipStars(at)
	for _, r := range name {
		next := make([]bool, len(at))
		for i, t := range g.tokens {
			if !at[i] || !t.takes(r) {
				continue
			}
			if t.repeats() {
				next[i] = true
			} else {
				next[i+1] = true
			}
		}
		at = next
		g.skipStars(at)
	}
	return at[len(g.tokens)]
}

// skipStars lets stars stand for nothing.
func (g glob) skipStars(at []bool) {
	for i, t := range g.tokens {
		if at[i] && t.repeats() {
			at[i+1] = true
		}
	}
}
