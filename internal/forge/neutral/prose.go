package neutral

import "strings"

// Prose returns a Markdown text with each piece of it changed that is no code, neither a fenced block nor a span between backquotes.
// A block that is code for being indented counts as prose.
func Prose(text string, change func(string) string) string {
	var out, prose strings.Builder
	flush := func() {
		out.WriteString(outsideSpans(prose.String(), change))
		prose.Reset()
	}
	fence := ""
	for line := range strings.SplitAfterSeq(text, "\n") {
		mark := fenceOf(line)
		switch {
		case fence != "":
			out.WriteString(line)
			if strings.HasPrefix(mark, fence) && strings.Trim(strings.TrimSpace(bare(line)), fence[:1]) == "" {
				fence = ""
			}
		case mark != "":
			flush()
			out.WriteString(line)
			fence = mark
		default:
			prose.WriteString(line)
		}
	}
	flush()
	return out.String()
}

// bare is a line without what quotes and lists put before it.
func bare(line string) string { return strings.TrimLeft(line, " \t>") }

// fenceOf returns the fence that a line begins with: three backquotes or tildes, or more.
func fenceOf(line string) string {
	line = bare(line)
	for _, c := range []string{"`", "~"} {
		n := len(line) - len(strings.TrimLeft(line, c))
		if n >= 3 && (c == "~" || !strings.Contains(line[n:], "`")) {
			return line[:n]
		}
	}
	return ""
}

// outsideSpans changes what stands outside of code spans: a run of backquotes up to the next run of the same length.
func outsideSpans(text string, change func(string) string) string {
	var out strings.Builder
	closing := map[int]int{} // by a run's length, before which place none closes it
	begin := 0
	for at := 0; at < len(text); {
		if text[at] != '`' {
			at++
			continue
		}
		n := runOf(text[at:])
		end := -1
		if at >= closing[n] {
			end = closeOf(text, at+n, n)
		}
		if end < 0 {
			closing[n] = len(text)
			at += n
			continue
		}
		out.WriteString(change(text[begin:at]))
		out.WriteString(text[at:end])
		at, begin = end, end
	}
	out.WriteString(change(text[begin:]))
	return out.String()
}

// runOf is how many backquotes text begins with.
func runOf(text string) int { return len(text) - len(strings.TrimLeft(text, "`")) }

// closeOf returns where the first run of exactly n backquotes from at on ends; -1 for nowhere.
func closeOf(text string, at, n int) int {
	for at < len(text) {
		next := strings.IndexByte(text[at:], '`')
		if next < 0 {
			return -1
		}
		at += next
		run := runOf(text[at:])
		at += run
		if run == n {
			return at
		}
	}
	return -1
}
