package restore

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Of a reason so many bytes are shown in a table.
const maxWhy = 300

// Lines is the plan as a table for people: what is lost, what is missing, volumes, then objects in the order in which they are applied.
// What happens to nothing (same) is counted only.
func (p *Plan) Lines() []string {
	var text bytes.Buffer
	s := p.Status()
	fmt.Fprintf(&text, "create %d, replace %d, keep %d, same %d, conflict %d, skip %d; volumes %d\n",
		s.Create, s.Replace, s.Keep, s.Same, s.Conflict, s.Skip, s.Volumes)
	if p.NotChosen > 0 {
		fmt.Fprintf(&text, "not chosen: %d\n", p.NotChosen)
	}
	if s.Volumes > 0 && p.Lost > 0 {
		fmt.Fprintf(&text, "data goes back to %s: %s before now\n", p.Taken.UTC().Format(time.RFC3339), time.Duration(p.Lost)*time.Second)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&text, "warning: %s\n", plain(w, maxWhy))
	}
	for _, m := range p.Missing {
		fmt.Fprintf(&text, "missing: %s %s: %s\n", m.Kind, m.Name, plain(m.Why, maxWhy))
	}
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, v := range p.Volumes {
		what := "volume"
		if v.Block {
			what = "block volume"
		}
		fmt.Fprintf(table, "%s\t%s/%s\t%s, %d bytes%s\n", v.Action, v.Namespace, v.Claim, what, v.Bytes, tail(v.From, v.Why, nil))
	}
	for _, i := range p.Items {
		if i.Action != Same {
			fmt.Fprintf(table, "%s\t%s\t%s\n", i.Action, plain(i.String(), maxWhy), strings.TrimPrefix(tail(i.From, i.Why, i.Fields), "; "))
		}
	}
	for _, a := range p.Actions {
		fmt.Fprintf(table, "act\t%s\n", plain(a, maxWhy))
	}
	table.Flush() //nolint:errcheck // a buffer takes everything
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	for n := range lines {
		lines[n] = strings.TrimRight(lines[n], " ")
	}
	return lines
}

func tail(from, why string, fields []string) string {
	var s string
	if from != "" {
		s += "; from " + plain(from, maxWhy)
	}
	if why != "" {
		s += "; " + plain(why, maxWhy)
	}
	if len(fields) > 0 {
		s += "; " + plain(strings.Join(fields, ", "), maxWhy)
	}
	return s
}
