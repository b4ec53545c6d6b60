package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

const (
	shownFields = 5  // of a record, beside which others are not named
	shownRunes  = 60 // of a value
)

// diffMetadata tells which issues, comments, releases and so on came, went or were edited.
func diffMetadata(ctx context.Context, before, after point.Reader, tell func(protect.Change)) error {
	for d, err := range archive.Diff(ctx, before, after) {
		if err != nil {
			return err
		}
		c := protect.Change{Item: d.String()}
		switch {
		case d.Before == nil:
			c.What, c.After = "added", labelOf(d.After)
		case d.After == nil:
			c.What, c.Before = "removed", labelOf(d.Before)
		default:
			c.What = "changed"
			if c.Before, c.After = fieldsThatDiffer(d.Before.Raw, d.After.Raw); c.Before+c.After == "" {
				continue
			}
		}
		tell(c)
	}
	return nil
}

// labelOf says in a few words what a record is, whatever forge it is of: what it belongs to, and how it is called or begins.
func labelOf(r *archive.Record) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(r.Raw, &fields) != nil {
		return ""
	}
	var words []string
	if !r.Parent.IsZero() {
		words = append(words, "in "+r.Parent.String())
	}
	for _, name := range []string{"title", "subject", "name", "tag_name", "tagName", "url", "body", "note", "content"} {
		if text := textOf(fields[name]); text != "" {
			words = append(words, quoted(text, 0))
			break
		}
	}
	return strings.Join(words, ": ")
}

// textOf is a text, or the one in an object that has it as people wrote it and as it is shown.
func textOf(raw json.RawMessage) string {
	var text string
	var rendered struct {
		Raw string `json:"raw"`
	}
	if json.Unmarshal(raw, &text) == nil || json.Unmarshal(raw, &rendered) == nil {
		return cmp.Or(text, rendered.Raw)
	}
	return ""
}

// fieldsThatDiffer names the fields of two objects that are not the same, with their values.
func fieldsThatDiffer(before, after json.RawMessage) (was, is string) {
	old, fresh := map[string]string{}, map[string]string{}
	flatten(before, "", old)
	flatten(after, "", fresh)
	names := maps.Clone(old)
	maps.Copy(names, fresh)
	maps.DeleteFunc(names, func(name, _ string) bool { return old[name] == fresh[name] })
	sorted := slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Or(cmp.Compare(weight(a), weight(b)), cmp.Compare(a, b)) })
	var olds, freshes []string
	for _, name := range sorted[:min(len(sorted), shownFields)] {
		x, y := old[name], fresh[name]
		from := commonPrefix(x, y)
		olds, freshes = append(olds, name+": "+quoted(x, from)), append(freshes, name+": "+quoted(y, from))
	}
	if more := len(sorted) - shownFields; more > 0 {
		freshes = append(freshes, fmt.Sprintf("and %s more", plural(int64(more), "field", "fields")))
	}
	return strings.Join(olds, ", "), strings.Join(freshes, ", ")
}

// weight sorts times behind what people wrote.
func weight(name string) int {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "title", "subject", "body", "note", "content", "raw", "text", "name", "state", "status", "description":
		return 0
	case "updated_at", "updatedAt", "lastEditedAt", "updated_on":
		return 2
	}
	return 1
}

// flatten notes the values of an object by their paths: "user.login", "assets[0].name". How often something was downloaded, by us,
// too, is no change of it.
func flatten(raw json.RawMessage, path string, into map[string]string) {
	var fields map[string]json.RawMessage
	var list []json.RawMessage
	var text string
	switch {
	case strings.HasSuffix(path, "download_count"), strings.HasSuffix(path, "downloadCount"), path == "downloads":
	case json.Unmarshal(raw, &fields) == nil && fields != nil:
		for name, value := range fields {
			flatten(value, strings.TrimPrefix(path+"."+name, "."), into)
		}
	case json.Unmarshal(raw, &list) == nil && list != nil:
		for i, value := range list {
			flatten(value, fmt.Sprintf("%s[%d]", path, i), into)
		}
	case json.Unmarshal(raw, &text) == nil:
		into[path] = text
	default:
		into[path] = string(raw)
	}
}

// commonPrefix is how many bytes two texts begin with alike.
func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// quoted is a text of one line, from a bit before a byte on.
func quoted(text string, from int) string {
	const before = 20
	cut := ""
	if from > shownRunes/2 {
		text, cut = strings.ToValidUTF8(text[from-before:], ""), "…"
	}
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > shownRunes {
		text = string(runes[:shownRunes]) + "…"
	}
	return `"` + cut + text + `"`
}

// briefCounts are the counts of a part, those of metadata as one, for a repository has two dozen of them. What does not close is not
// hidden in a sum.
func briefCounts(p point.Part) []point.Count {
	if p.Kind != point.KindMetadata {
		return p.Counts
	}
	records := point.Count{Of: "records"}
	var beside []point.Count
	for _, c := range p.Counts {
		switch {
		case c.Of == archive.FilesCollection, !c.Closes():
			beside = append(beside, c)
		case c.Of != "collections":
			records.Expected += c.Expected
			records.Stored += c.Stored
			records.Excluded += c.Excluded
		}
	}
	return append([]point.Count{records}, beside...)
}

// recordsOf says how many records of each sort metadata has.
func recordsOf(p point.Part) string {
	var all []string
	for _, c := range p.Counts {
		if c.Of != archive.FilesCollection && c.Of != "collections" {
			all = append(all, plural(c.Stored, singular(c.Of), c.Of))
		}
	}
	return strings.Join(all, ", ")
}
