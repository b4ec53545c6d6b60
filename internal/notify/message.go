package notify

import (
	"cmp"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/point"
)

// Outcome is how a run went, as far as who reads of it is concerned.
type Outcome int

// Outcomes.
const (
	Good    Outcome = iota
	Alarmed         // all was stored, and something about the source may be wrong, or its points are not proven
	Bad             // something is lacking, or nothing was stored
)

// OutcomeOf is the outcome of a run.
func OutcomeOf(run point.Run) Outcome {
	if run.State != point.Complete {
		return Bad
	}
	for _, s := range run.Sources {
		if len(s.Alarms) > 0 {
			return Alarmed
		}
	}
	if len(unproven(run)) > 0 {
		return Alarmed
	}
	return Good
}

// Message is what channels are told of a run. Title and Text have no control characters but line breaks in Text.
type Message struct {
	Outcome Outcome
	Title   string // one line
	Text    string // plain, at most maxText bytes
	Run     point.Run
}

// Limits of messages: items of a list, and bytes. ntfy makes an attachment of what is longer than 4096 bytes.
const (
	maxItems = 10
	maxItem  = 300
	maxTitle = 120
	maxText  = 3800
)

// MessageOf tells of a run: what was done, what failed and what to do about it, alarms and warnings.
func MessageOf(run point.Run) Message {
	var w strings.Builder
	for _, s := range run.Sources {
		fmt.Fprintln(&w, summary(run.Kind, s))
	}
	fmt.Fprintf(&w, "%s on %s", run.Finished.Sub(run.Started).Round(time.Second), run.Started.UTC().Format(time.DateOnly+" 15:04 UTC"))
	if run.Storage != nil {
		fmt.Fprintf(&w, ", %s stored", size(run.Storage.StoredBytes))
	}
	w.WriteByte('\n')
	var alarms []string
	for _, s := range run.Sources {
		for _, alarm := range s.Alarms {
			alarms = append(alarms, s.Subject.Name+": "+strings.TrimPrefix(alarm, point.AlarmNote))
		}
	}
	failures, hints := failuresOf(run)
	list(&w, "Alarms:", alarms)
	list(&w, "Failed:", failures)
	list(&w, "Not proven, as the policy asks for:", unproven(run))
	list(&w, "What to do:", hints)
	list(&w, "Warnings:", run.Warnings)
	return Message{
		Outcome: OutcomeOf(run),
		Title:   cut(clean(title(run, len(failures), len(alarms))), maxTitle),
		Text:    cut(strings.TrimSpace(w.String()), maxText),
		Run:     run,
	}
}

func title(run point.Run, failures, alarms int) string {
	what := "Backup"
	if run.Kind == point.RunDrill {
		what = "Drill"
	}
	t := fmt.Sprintf("%s %s: %s", what, cmp.Or(run.Policy, "run"), cmp.Or(run.State, point.Failed))
	if lacking := len(unproven(run)); lacking > 0 {
		t += fmt.Sprintf(", %d not proven", lacking)
	}
	if failures > 0 {
		t += ", " + several(failures, "problem", "problems")
	}
	if alarms > 0 {
		t += ", " + several(alarms, "alarm", "alarms")
	}
	return t
}

func several(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// unproven lists the subjects that lack a proven point which the policy asks for.
func unproven(run point.Run) (lacking []string) {
	for _, p := range run.Proofs {
		switch {
		case !p.Lacking:
		case p.Proven == nil:
			lacking = append(lacking, p.Subject.Name+": no point is")
		default:
			lacking = append(lacking, p.Subject.Name+": the newest that is proven was made on "+p.Proven.UTC().Format(time.DateOnly+" 15:04 UTC"))
		}
	}
	return lacking
}

// summary is one line about a source.
func summary(kind string, s point.SourceRun) string {
	if kind == point.RunDrill {
		verdict := "proven"
		if s.State != point.Complete {
			verdict = "not proven"
		}
		return cut(clean(s.Subject.Name+": "+verdict), maxItem)
	}
	line := cut(clean(fmt.Sprintf("%s: %s", s.Subject.Name, s.State)), maxItem)
	counts := map[point.State]int{}
	unchanged := 0
	for _, r := range s.Repositories {
		counts[r.State]++
		if r.Unchanged {
			unchanged++
		}
	}
	if len(s.Repositories) == 0 {
		return line
	}
	all := several(max(s.Listed, len(s.Repositories)), "repository", "repositories")
	line += fmt.Sprintf("; of %s %d stored (%d unchanged)", all, counts[point.Stored], unchanged)
	for _, state := range []point.State{point.Carried, point.Skipped, point.Failed, point.Vanished} {
		if counts[state] > 0 {
			line += fmt.Sprintf(", %d %s", counts[state], state)
		}
	}
	return line
}

// failuresOf lists what went wrong, the causes first, and what can be done about it, each hint once.
func failuresOf(run point.Run) (failures, hints []string) {
	seen := map[string]bool{}
	advise := func(all []string) {
		for _, hint := range all {
			if !seen[hint] {
				seen[hint] = true
				hints = append(hints, hint)
			}
		}
	}
	add := func(prefix string, problems []point.Problem) {
		for _, p := range problems {
			failures = append(failures, prefix+p.What)
			advise(p.Hints)
		}
	}
	add("", run.Problems)
	for _, s := range run.Sources {
		add(s.Subject.Name+": ", s.Problems)
	}
	for _, s := range run.Sources {
		for _, r := range s.Repositories {
			failures = append(failures, failuresOfRepository(r)...)
			for _, d := range r.Deliveries {
				advise(d.Hints)
			}
		}
	}
	return failures, hints
}

// failuresOfRepository has a line for each copy that failed, and one for the repository itself, unless it is as bad as its copies
// and no worse.
func failuresOfRepository(r point.RepositoryRun) []string {
	var copies []string
	own := failed(r.State)
	name := path.Join(r.Host, r.Owner, r.Name)
	for _, d := range r.Deliveries {
		if failed(d.State) {
			own = own && r.Reason != d.Reason
			copies = append(copies, fmt.Sprintf("%s to %s %s: %s", name, d.Type, d.Place, cmp.Or(d.Reason, string(d.State))))
		}
	}
	if own {
		return append([]string{fmt.Sprintf("%s (%s): %s", name, r.State, cmp.Or(r.Reason, "no reason given"))}, copies...)
	}
	return copies
}

func failed(s point.State) bool {
	return s != point.Stored && s != point.Skipped && s != point.Complete
}

// list writes the first items under a heading, and how many more there are.
func list(w *strings.Builder, heading string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", heading)
	for _, item := range items[:min(len(items), maxItems)] {
		fmt.Fprintf(w, "- %s\n", cut(clean(item), maxItem))
	}
	if more := len(items) - maxItems; more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
}

// clean makes one line of text that a stranger wrote: what does not print is escaped, so that it can neither drive a terminal nor
// begin a header, nor turn the direction of what follows.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	var w strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			w.WriteByte(' ')
		case unicode.IsPrint(r):
			w.WriteRune(r) // for an invalid byte, the replacement character
		default:
			fmt.Fprintf(&w, `\u%04x`, r)
		}
	}
	return w.String()
}

// cut shortens s to limit bytes, at the end of a character.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}

// size is a number of bytes for people.
func size(n int64) string {
	value, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	for value >= 1000 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
