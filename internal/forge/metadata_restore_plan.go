package forge

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// MetadataPlan says what becomes of a repository's metadata at a target: a line for each field that has something.
type MetadataPlan struct {
	Lines []PlanLine `json:"lines"`
	// What it is of, by sort: "issue", "pull", "comment".
	Counts map[string]int64 `json:"counts"`

	numbers []itemNumber // of the source, in their order
}

// PlanLine is one of them.
type PlanLine struct {
	Field string `json:"field"` // "item.author"
	Count int64  `json:"count"` // things that have it
	State string `json:"state"` // neutral.Kept, Changed or Lost
	How   string `json:"how,omitempty"`
}

func (l PlanLine) String() string {
	text := l.Field + ": " + l.State
	if l.How != "" {
		text += " (" + l.How + ")"
	}
	return fmt.Sprintf("%s %d", text, l.Count)
}

// itemNumber is what an item is called.
type itemNumber struct {
	pull   bool
	number int64
	key    string        // of its mark
	item   *neutral.Item // what Foresee is told of it
}

// PlanMetadata says what becomes of all that the source has.
func PlanMetadata(ctx context.Context, from neutral.Source, keeps neutral.Fidelity) (*MetadataPlan, error) {
	c := counter{fields: map[string]int64{}, sorts: map[string]int64{}}
	overview, err := from.Overview(ctx)
	if err != nil {
		return nil, err
	}
	c.overview(overview)
	p := &MetadataPlan{Counts: c.sorts}
	for item, err := range numbered(ctx, from) {
		if err != nil {
			return nil, err
		}
		c.item(item)
		p.numbers = append(p.numbers, itemNumber{item.Pull != nil, item.Number, item.mark().Key(), item.outline()})
	}
	for file, err := range from.Files(ctx) {
		if err != nil {
			return nil, err
		}
		if c.add("file", file); file.SHA256 == "" {
			c.fields["file.missing"]++
		}
	}
	keeps = maps.Clone(keeps)
	if _, told := keeps["file.missing"]; !told {
		keeps["file.missing"] = neutral.Fate{State: neutral.Lost, How: "its bytes are not in the point; texts keep its address"}
	}
	if _, told := keeps["discussion"]; !told {
		keeps["discussion"] = neutral.Fate{State: neutral.Changed, How: "becomes an issue"}
	}
	for field, n := range c.fields {
		fate := keeps.Of(field)
		p.Lines = append(p.Lines, PlanLine{field, n, fate.State, fate.How})
	}
	slices.SortFunc(p.Lines, func(a, b PlanLine) int { return cmp.Compare(a.Field, b.Field) })
	return p, nil
}

// outline is what of an item says which number and address it will have.
func (n *numberedItem) outline() *neutral.Item {
	item := &neutral.Item{Number: n.Number, Closed: n.Closed, Confidential: n.Confidential}
	if p := n.Pull; p != nil {
		item.Pull = &neutral.Pull{
			Base: p.Base, Head: p.Head, HeadRepository: p.HeadRepository, BaseOID: p.BaseOID, HeadOID: p.HeadOID, Merged: p.Merged, Draft: p.Draft,
		}
	}
	return item
}

// counter counts fields that have something, and things by their sort.
type counter struct{ fields, sorts map[string]int64 }

func (c counter) add(sort string, thing any) {
	c.sorts[sort]++
	c.count(sort, thing)
}

func (c counter) count(sort string, thing any) {
	neutral.Fields(sort, thing, func(field string, _ any) { c.fields[field]++ })
}

func (c counter) overview(o *neutral.Overview) {
	c.count("settings", &o.Settings)
	addAll(c, "label", o.Labels)
	addAll(c, "milestone", o.Milestones)
	addAll(c, "rule", o.Rules)
	addAll(c, "hook", o.Hooks)
	addAll(c, "key", o.Keys)
	addAll(c, "collaborator", o.Collaborators)
	addAll(c, "project", o.Projects)
	for _, p := range o.Projects {
		addAll(c, "project-item", p.Items)
	}
	for _, r := range o.Releases {
		c.add(neutral.SortRelease, r)
		addAll(c, "asset", r.Assets)
	}
}

func addAll[T any](c counter, sort string, all []*T) {
	for _, thing := range all {
		c.add(sort, thing)
	}
}

func (c counter) item(n *numberedItem) {
	if n.discussion != nil {
		c.add(neutral.SortDiscussion, n.discussion)
		c.comments(neutral.SortComment, n.Comments)
		return
	}
	sort := neutral.SortIssue
	if n.Pull != nil {
		sort = neutral.SortPull
		c.count("pull", n.Pull)
		for _, r := range n.Pull.Reviews {
			c.add(neutral.SortReview, r)
			c.comments(neutral.SortReviewComment, r.Comments)
		}
	}
	c.sorts[sort]++
	c.count("item", n.Item)
	c.fields["item.number"]++
	c.comments(neutral.SortComment, n.Comments)
}

func (c counter) comments(sort string, all []*neutral.Comment) {
	for _, comment := range all {
		c.add(sort, comment)
		if comment.Code != nil {
			c.fields[sort+".code"]++
		}
		c.comments(sort, comment.Replies)
	}
}
