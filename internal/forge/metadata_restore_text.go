package forge

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// references rewrites what texts of a repository refer to: its issues and pull requests, by number or address.
type references struct {
	pattern *regexp.Regexp
	from    string // address of the source's repository: "https://github.com/acme/api"
	to      string // and of the target's
	last    int64  // number of the source
	items   map[itemRef]neutral.Written
	same    bool // every item has the number it had, and so has what is no item
}

// itemRef is how the source calls an item.
type itemRef struct {
	pull   bool
	number int64
}

// referencePattern finds references to the issues of a repository by its host and name. The first group is what stands before one.
func referencePattern(host, repository string) *regexp.Regexp {
	name := regexp.QuoteMeta(repository)
	return regexp.MustCompile(`(?i)` +
		`(https?://` + regexp.QuoteMeta(strings.ReplaceAll(host, "_", ":")) + `/` + name +
		`/(?:-/)?(issues|pull|pulls|merge_requests|discussions)/([0-9]{1,9})(?:#[0-9A-Za-z_-]+)?)` +
		`|(^|[^0-9A-Za-z_/.#&!-])(` + name + `)?([#!])([0-9]{1,9})\b`)
}

// rewrite puts the target's references in the place of the source's, in prose.
func (r *references) rewrite(text string) string { return neutral.Prose(text, r.rewriteProse) }

func (r *references) rewriteProse(text string) string {
	var b strings.Builder
	at := 0
	for _, m := range r.pattern.FindAllStringSubmatchIndex(text, -1) {
		group := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return text[m[2*i]:m[2*i+1]]
		}
		b.WriteString(text[at:m[0]])
		at = m[1]
		if group(1) != "" {
			b.WriteString(r.address(group(1), group(2), group(3)))
			continue
		}
		before, whole := group(4), text[m[0]:m[1]]
		b.WriteString(before + r.short(whole[len(before):], group(6), group(7), group(5) != ""))
	}
	b.WriteString(text[at:])
	return b.String()
}

// address rewrites the address of an item's page.
func (r *references) address(whole, kind, number string) string {
	n, _ := strconv.ParseInt(number, 10, 64)
	w, ok := r.find(strings.HasPrefix(strings.ToLower(kind), "pull") || strings.EqualFold(kind, "merge_requests"), n, true)
	switch {
	case !ok:
		return whole
	case w.URL != "":
		return w.URL
	}
	return r.to + "/issues/" + strconv.FormatInt(w.Number, 10)
}

// short rewrites "#12" and "!12". What refers to nothing that is restored, but to something that was, gets the address it had.
func (r *references) short(whole, sign, number string, named bool) string {
	n, _ := strconv.ParseInt(number, 10, 64)
	w, ok := r.find(sign == "!", n, sign == "#")
	switch {
	case ok:
		return cmp.Or(w.Ref, fmt.Sprintf("#%d", w.Number))
	case sign == "!" || n == 0 || n > r.last && !named || r.same && !named:
		return whole
	}
	return fmt.Sprintf("%s/issues/%d", r.from, n)
}

// find looks an item up. Where either will do, an issue and a pull request do not have the same number.
func (r *references) find(pull bool, number int64, either bool) (neutral.Written, bool) {
	w, ok := r.items[itemRef{pull, number}]
	if !ok && either {
		w, ok = r.items[itemRef{!pull, number}]
	}
	return w, ok
}

// replaceAddresses puts other addresses in the place of those of links. One that begins with another is not mistaken for it.
func replaceAddresses(text string, links []string, with map[string]string) string {
	slices.SortFunc(links, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, link := range links {
		pairs = append(pairs, link, cmp.Or(with[link], link))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// itemNotes says to people what the target has no place for.
func itemNotes(n *numberedItem, keeps neutral.Fidelity) []string {
	var notes []string
	if d := n.discussion; d != nil {
		notes = append(notes, "discussion in "+orNothing(neutral.Plain(d.Category)))
	}
	lost := func(field string) bool { return keeps.Of(field).State != neutral.Kept }
	if p := n.Pull; p != nil {
		notes = append(notes, pullNotes(p)...)
	}
	merged := n.Pull != nil && n.Pull.Merged
	if n.Closed && !merged && (lost("item.closedAt") || lost("item.closedBy") || lost("item.reason")) {
		notes = append(notes, "closed"+by(n.ClosedBy)+on(n.ClosedAt)+inBrackets(strings.ReplaceAll(n.Reason, "_", " ")))
	}
	if len(n.Assignees) > 0 && lost("item.assignees") {
		notes = append(notes, "assigned to "+names(n.Assignees))
	}
	if n.LockReason != "" && lost("item.lockReason") {
		notes = append(notes, "locked: "+neutral.Plain(n.LockReason))
	}
	if !n.Due.IsZero() && lost("item.due") {
		notes = append(notes, "due"+on(n.Due))
	}
	for _, link := range n.Links {
		if lost("item.links") {
			notes = append(notes, neutral.Plain(strings.ReplaceAll(link.Kind, "_", " ")+" "+link.To))
		}
	}
	return append(notes, reactionNotes(n.Reactions, lost("item.reactions"))...)
}

func pullNotes(p *neutral.Pull) []string {
	from := neutral.Plain(p.Head)
	if p.HeadRepository != "" {
		from += " of " + neutral.Plain(p.HeadRepository)
	}
	note := "pull request from " + orNothing(from) + " into " + orNothing(neutral.Plain(p.Base))
	if p.Merged {
		note += ", merged" + by(p.MergedBy) + on(p.MergedAt) + inBrackets(p.MergeOID)
	}
	notes := []string{note}
	if p.HeadOID != "" {
		notes = append(notes, "commits up to "+neutral.Plain(p.HeadOID))
	}
	if p.Draft {
		notes = append(notes, "a draft")
	}
	if len(p.RequestedReviewers) > 0 {
		notes = append(notes, "review asked of "+names(p.RequestedReviewers))
	}
	return notes
}

func codeNotes(c *neutral.Code) []string {
	if c == nil {
		return nil
	}
	note := "on " + orNothing(neutral.Plain(c.Path))
	if line := cmp.Or(c.Line, c.OriginalLine); line > 0 {
		note += fmt.Sprintf(" line %d", line)
	}
	if c.Side != "" {
		note += " (" + neutral.Plain(c.Side) + ")"
	}
	if oid := cmp.Or(c.OID, c.OriginalOID); oid != "" {
		note += " of " + neutral.Plain(oid)
	}
	if c.Resolved {
		note += ", resolved" + by(c.ResolvedBy)
	}
	return []string{note}
}

func reactionNotes(all []neutral.Reaction, lost bool) []string {
	if len(all) == 0 || !lost {
		return nil
	}
	who := map[string][]neutral.User{}
	var order []string
	for _, r := range all {
		if who[r.Content] == nil {
			order = append(order, r.Content)
		}
		who[r.Content] = append(who[r.Content], r.User)
	}
	var said []string
	for _, content := range order {
		said = append(said, neutral.Plain(content)+" "+names(who[content]))
	}
	return []string{"reactions: " + strings.Join(said, "; ")}
}

// names lists people, the first hundred.
func names(users []neutral.User) string {
	var all []string
	for i, u := range users {
		if i == 100 {
			all = append(all, fmt.Sprintf("and %d more", len(users)-i))
			break
		}
		all = append(all, orNothing(neutral.Plain(cmp.Or(u.Login, u.Name))))
	}
	return strings.Join(all, ", ")
}

func by(u neutral.User) string {
	if name := neutral.Plain(cmp.Or(u.Login, u.Name)); name != "" {
		return " by **" + name + "**"
	}
	return ""
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + neutral.Plain(s) + ")"
}

func orNothing(s string) string { return cmp.Or(s, "somewhere unknown") }

func on(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " on " + neutral.Stamp(t)
}
