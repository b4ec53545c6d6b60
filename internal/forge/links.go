package forge

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// longestAddress bounds an address that is taken out of a text, in bytes. Those that GitHub signs have about a thousand.
const longestAddress = 4096

// Links lists the addresses that a text of Markdown or HTML refers to, in their order, each once: of links, images and references,
// and those that stand bare. It is no renderer: what stands as code is named, too, and an address that is none costs a look, where one
// that is overlooked costs a file. Relative addresses come as they stand.
func Links(text string) []string {
	s := linkScanner{text: text, seen: map[string]bool{}}
	for s.at < len(s.text) {
		s.step()
	}
	return s.found
}

// LinksIn lists the links of a JSON value's texts that stand under one of the keys, however deep: of "body", "description".
func LinksIn(raw json.RawMessage, keys ...string) []string {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return nil
	}
	s := linkScanner{seen: map[string]bool{}}
	s.walk(value, "", keys)
	return s.found
}

// linkScanner goes through texts once.
type linkScanner struct {
	text  string
	at    int
	found []string
	seen  map[string]bool
}

// walk looks at the texts of a JSON value that stand under keys. The decoder bounds how deep it is.
func (s *linkScanner) walk(value any, key string, keys []string) {
	switch v := value.(type) {
	case string:
		if slices.Contains(keys, key) {
			for s.text, s.at = v, 0; s.at < len(s.text); {
				s.step()
			}
		}
	case []any:
		for _, inner := range v {
			s.walk(inner, key, keys)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			s.walk(v[name], name, keys)
		}
	}
}

// step looks at what stands here, and goes on behind it.
func (s *linkScanner) step() {
	rest := s.text[s.at:]
	switch c := rest[0]; {
	case c == 'h' || c == 'H':
		if !startsAddress(rest) || s.at > 0 && isWord(s.text[s.at-1]) {
			s.at++
			return
		}
		s.take(bare(rest))
	case strings.HasPrefix(rest, "](") || strings.HasPrefix(rest, "]:"):
		s.at += 2
		s.at += len(s.text[s.at:]) - len(strings.TrimLeft(s.text[s.at:], " \t\n"))
		if strings.HasPrefix(s.text[s.at:], "<") {
			s.at++
			s.take(until(s.text[s.at:], ">\n"))
			return
		}
		s.take(destination(s.text[s.at:]))
	case c == '=':
		s.attribute()
	default:
		s.at++
	}
}

// attribute looks at the value of an HTML attribute that is an address; s stands at its equals sign.
func (s *linkScanner) attribute() {
	name := strings.TrimRight(s.text[max(s.at-20, 0):s.at], " \t\n")
	s.at++
	isAddress := slices.ContainsFunc([]string{"src", "href", "poster"}, func(attribute string) bool {
		before, ok := cutSuffixFold(name, attribute)
		return ok && (before == "" || !isWord(before[len(before)-1]))
	})
	if !isAddress {
		return
	}
	rest := strings.TrimLeft(s.text[s.at:], " \t\n")
	s.at = len(s.text) - len(rest)
	switch {
	case rest == "":
	case rest[0] == '"' || rest[0] == '\'':
		s.at++
		s.take(until(rest[1:], rest[:1]))
	default:
		s.take(until(rest, " \t\r\n>"))
	}
}

// take notes an address, if it is one, and goes on behind it.
func (s *linkScanner) take(raw string) {
	s.at += max(len(raw), 1)
	address := strings.ReplaceAll(strings.TrimSpace(raw), "&amp;", "&")
	if s.seen[address] || !isAddress(address) {
		return
	}
	s.seen[address] = true
	s.found = append(s.found, address)
}

// isAddress reports whether a file can be at an address.
func isAddress(address string) bool {
	if address == "" || len(address) > longestAddress || strings.ContainsAny(address, "\x00\n\r\t <>") || address[0] == '#' || address[0] == '?' {
		return false
	}
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" {
		return false
	}
	if u.Scheme == "" {
		return u.Path != ""
	}
	return (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

func startsAddress(text string) bool {
	for _, scheme := range []string{"https://", "http://"} {
		if len(text) > len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) {
			return true
		}
	}
	return false
}

// bare is the address that a text begins with, without the punctuation of the sentence around it.
func bare(text string) string {
	return strings.TrimRight(addressBefore(text, " \t\r\n<>\"'`|\\^{}\x00"), ".,;:!?*_~")
}

// destination is the address of a Markdown link, up to its title or its end.
func destination(text string) string { return addressBefore(text, " \t\r\n<>\"'") }

// addressBefore is what stands before the first of the characters in ends, or before a parenthesis that closes and was not opened in it:
// "(https://a.example/b)c".
func addressBefore(text, ends string) string {
	text = text[:min(len(text), longestAddress+1)]
	depth := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			if depth--; depth < 0 {
				return text[:i]
			}
		case strings.IndexByte(ends, c) >= 0:
			return text[:i]
		}
	}
	return text
}

// until is what stands before the first of the characters in ends, and no longer than an address can be.
func until(text, ends string) string {
	text = text[:min(len(text), longestAddress+1)]
	if i := strings.IndexAny(text, ends); i >= 0 {
		return text[:i]
	}
	return text
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

func cutSuffixFold(text, suffix string) (before string, found bool) {
	at := len(text) - len(suffix)
	if at < 0 || !strings.EqualFold(text[at:], suffix) {
		return text, false
	}
	return text[:at], true
}
