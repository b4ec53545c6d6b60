package config

import (
	"slices"
	"strings"
)

// closest returns the candidate that word is most likely meant to be, or "".
func closest(word string, candidates []string) string {
	const longest = 40
	if len(word) > longest {
		return ""
	}
	best, least := "", 3
	for _, c := range candidates {
		if strings.EqualFold(plain(word), plain(c)) {
			return c
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least && d <= max(1, len(c)/3) {
			best, least = c, d
		}
	}
	return best
}

// plain leaves out what separates words.
func plain(s string) string { return strings.NewReplacer("_", "", "-", "").Replace(s) }

// distance counts the letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, now := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			now[j] = min(last[j]+1, now[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}

// list writes words as "a, b or c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// sorted is a sorted copy.
func sorted(words []string) []string { return slices.Sorted(slices.Values(words)) }
