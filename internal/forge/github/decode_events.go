package github

import (
	"context"
	"slices"
	"strings"
	"unicode"

	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// reaction is one of GraphQL's.
type reaction struct {
	Content words   `json:"content"`
	User    *person `json:"user"`
	Created moment  `json:"created_at"`
}

func (o reaction) neutral() neutral.Reaction {
	content := map[words]string{"THUMBS_UP": "+1", "THUMBS_DOWN": "-1"}[o.Content]
	if content == "" {
		content = strings.ToLower(string(o.Content))
	}
	return neutral.Reaction{Content: content, User: o.User.user(), Created: o.Created.Time}
}

func (s *source) reactions(ctx context.Context, on archive.Key, collection string) (found []neutral.Reaction, err error) {
	err = all(s.Children(ctx, on, collection), func(_ archive.Record, o *reaction) { found = append(found, o.neutral()) })
	slices.SortStableFunc(found, func(a, b neutral.Reaction) int { return a.Created.Compare(b.Created) })
	return found, err
}

// event is what texts of timelines are made of.
type event struct {
	Type     words                 `json:"__typename"`
	Actor    *person               `json:"actor"`
	Created  moment                `json:"created_at"`
	Label    *struct{ Name words } `json:"label"`
	Title    words                 `json:"milestone_title"`
	Previous words                 `json:"previous_title"`
	Current  words                 `json:"current_title"`
	Assignee *person               `json:"assignee"`
	Commit   *commit               `json:"commit"`
	Before   *commit               `json:"before_commit"`
	After    *commit               `json:"after_commit"`
	Reason   words                 `json:"lock_reason"`
	Message  words                 `json:"dismissal_message"`
	Reviewer *struct {
		Login words `json:"login"`
		Slug  words `json:"slug"`
	} `json:"reviewer"`
	Source    *mentioned `json:"source"`
	Canonical *mentioned `json:"canonical"`
	FromRef   words      `json:"previous_ref_name"`
	ToRef     words      `json:"current_ref_name"`
	From      *struct {
		FullName words `json:"full_name"`
	} `json:"from_repository"`
}

// mentioned is an issue or a pull request that another one speaks of.
type mentioned struct {
	Number     number `json:"number"`
	Repository struct {
		FullName words `json:"full_name"`
	} `json:"repository"`
}

func (m *mentioned) text() string {
	if m == nil || m.Number <= 0 {
		return ""
	}
	return string(m.Repository.FullName) + "#" + m.Number.text()
}

// kind is REST's word for an event: "cross-referenced", "labeled", "head_ref_force_pushed".
func (e *event) kind() string {
	switch e.Type {
	case "CrossReferencedEvent":
		return "cross-referenced"
	case "RenamedTitleEvent":
		return "renamed"
	}
	var b strings.Builder
	for i, r := range strings.TrimSuffix(string(e.Type), "Event") {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// text is what a person reads.
func (e *event) text() string {
	parts := []string{strings.ReplaceAll(e.kind(), "_", " ")}
	add := func(before, text string) {
		if text != "" {
			parts = append(parts, strings.TrimSpace(before+" "+text))
		}
	}
	if e.Label != nil {
		add("", string(e.Label.Name))
	}
	add("", string(e.Title))
	add("from", string(e.Previous))
	add("to", string(e.Current))
	add("from", string(e.FromRef))
	add("to", string(e.ToRef))
	if e.Assignee != nil {
		add("", string(e.Assignee.Login))
	}
	if e.Reviewer != nil {
		add("", string(e.Reviewer.Login+e.Reviewer.Slug))
	}
	if e.Commit != nil {
		add("by commit", string(e.Commit.OID))
	}
	if e.Before != nil {
		add("from", string(e.Before.OID))
	}
	if e.After != nil {
		add("to", string(e.After.OID))
	}
	add("in", e.Source.text())
	add("of", e.Canonical.text())
	if e.From != nil {
		add("from", string(e.From.FullName))
	}
	add("as", string(e.Reason))
	add("because", string(e.Message))
	return strings.Join(parts, " ")
}

// timeline reads what happened to an item, and what links it to others.
func (s *source) timeline(ctx context.Context, key archive.Key, item *neutral.Item) error {
	err := all(s.Children(ctx, key, "timeline"), func(_ archive.Record, e *event) {
		item.Events = append(item.Events, &neutral.Event{Kind: e.kind(), Actor: e.Actor.user(), Created: e.Created.Time, Text: e.text()})
		if to := e.Canonical.text(); e.Type == "MarkedAsDuplicateEvent" && to != "" {
			item.Links = append(item.Links, neutral.Link{Kind: "duplicate_of", To: to})
		}
	})
	slices.SortStableFunc(item.Events, func(a, b *neutral.Event) int { return a.Created.Compare(b.Created) })
	for _, e := range item.Events {
		if e.Kind == "closed" && item.Closed {
			item.ClosedBy = e.Actor
		}
	}
	return err
}
