package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// document prints v as the command's JSON document.
func (a *app) document(v any) error {
	encoder := json.NewEncoder(a.Stdout)
	encoder.SetEscapeHTML(false)
	return unwritten(encoder.Encode(v))
}

// unwritten is the error of standard output: what was asked for is done, but nobody was told.
func unwritten(err error) error {
	return fault.Wrap("write the result", fault.ErrRefused, err, "")
}

// say prints a line of the command's result, unless --quiet or --json ask for none.
func (a *app) say(format string, args ...any) {
	if a.global.quiet || a.global.json {
		return
	}
	for i, arg := range args {
		switch arg := arg.(type) {
		case coloured:
			args[i] = string(arg)
		case string, fmt.Stringer:
			args[i] = printable(fmt.Sprint(arg))
		}
	}
	fmt.Fprintf(a.Stdout, format+"\n", args...)
}

// table prints rows under a header, columns aligned.
func (a *app) table(header []string, rows [][]string) error {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.Map(oneLine, printable(cell))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(a.Stdout, strings.TrimRight(line, " \n")); err != nil {
			return unwritten(err)
		}
	}
	return nil
}

func oneLine(r rune) rune {
	if r == '\n' || r == '\t' {
		return ' '
	}
	return r
}

// Colours of states on a terminal.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// coloured is text with colours of ours.
type coloured string

// verdict is the word for a state: green only where the ledger closed.
func (a *app) verdict(s point.State) coloured {
	if !isTerminal(a.Stdout) || a.Getenv("NO_COLOR") != "" || a.Getenv("TERM") == "dumb" {
		return coloured(printable(string(s)))
	}
	colour := yellow
	if s == point.Complete {
		colour = green
	}
	return coloured(colour + printable(string(s)) + plain)
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ledgerLine says in one line what a point holds: "1 repository, 12 refs, 1.2 MiB, 300 KiB new".
func ledgerLine(parts []point.Part, l point.Ledger) string {
	var said []string
	repositories, wikis := 0, 0
	for _, p := range parts {
		switch {
		case p.Kind != point.KindGit || (p.State != point.Stored && p.State != point.Carried):
		case strings.HasSuffix(p.Name, ".wiki.git"):
			wikis++
		default:
			repositories++
		}
	}
	if repositories > 0 {
		said = append(said, plural(int64(repositories), "repository", "repositories"))
	}
	if wikis > 0 {
		said = append(said, plural(int64(wikis), "wiki", "wikis"))
	}
	for _, c := range totals(parts) {
		if c.Of == "repositories" && c.Stored == c.Expected && repositories > 0 {
			continue // of the forge's list; those that are here were just counted
		}
		text := plural(c.Stored, singular(c.Of), c.Of)
		if c.Stored != c.Expected {
			text = fmt.Sprintf("%d of %d %s", c.Stored, c.Expected, c.Of)
		}
		said = append(said, text)
	}
	for _, n := range []struct {
		n    int
		what string
	}{{l.Carried, "carried"}, {l.Skipped, "skipped"}, {l.Failed, "failed"}, {l.Vanished, "vanished"}, {l.MissingAtSource, "missing at source"}} {
		if n.n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n.n, n.what))
		}
	}
	return strings.Join(append(said, size(l.Bytes), size(l.NewBytes)+" new"), ", ")
}

// totals sums the counts of all parts by what they are of, in the order of their first appearance.
func totals(parts []point.Part) []point.Count {
	var sums []point.Count
	at := map[string]int{}
	for _, p := range parts {
		for _, c := range briefCounts(p) {
			i, known := at[c.Of]
			if !known {
				i = len(sums)
				at[c.Of] = i
				sums = append(sums, point.Count{Of: c.Of})
			}
			sums[i].Expected += c.Expected
			sums[i].Stored += c.Stored
		}
	}
	return sums
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// singular is the name of one of the items that a count is of.
func singular(items string) string {
	if stem, ok := strings.CutSuffix(items, "ies"); ok {
		return stem + "y"
	}
	if strings.HasSuffix(items, "ches") || strings.HasSuffix(items, "uses") {
		return strings.TrimSuffix(items, "es")
	}
	return strings.TrimSuffix(items, "s")
}

// size writes bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// stamp writes a time for people, in UTC as it is in ids, tags and logs.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// seconds is a span as JSON documents give it.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}
