package neutral

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Of returns what becomes of a field: of "item.author", else of all of "item". What a Fidelity does not name is lost.
func (f Fidelity) Of(field string) Fate {
	if fate, ok := f[field]; ok {
		return fate
	}
	sort, _, _ := strings.Cut(field, ".")
	if fate, ok := f[sort]; ok {
		return fate
	}
	return Fate{Lost, "the forge takes none by its API"}
}

// apart are fields that other things than the one they are in are made of, or that are not a matter of fidelity.
var apart = map[string]bool{
	"Forge": true, "URL": true, "ID": true, "Was": true, "Item": true, "Number": true, "Comments": true, "Reviews": true, "Replies": true,
	"Pull": true, "Code": true, "Assets": true, "Release": true, "Content": true, "On": true, "SHA256": true, "Size": true, "Reason": true,
	"Items": true,
}

// Fields calls each with the name, "item.closedAt", and the value of every field that a thing has something in. thing is a pointer to
// one of the model's structs.
func Fields(sort string, thing any, each func(field string, value any)) {
	eachField(reflect.ValueOf(thing).Elem(), func(name string, value reflect.Value) {
		_, isItem := thing.(*Item)
		_, isHook := thing.(*Hook)
		if !apart[name] || name == "Reason" && isItem || name == "URL" && isHook {
			each(sort+"."+lowerFirst(name), value.Interface())
		}
	})
}

func eachField(v reflect.Value, each func(name string, value reflect.Value)) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		switch {
		case field.Anonymous && value.Kind() == reflect.Struct:
			eachField(value, each)
		case field.IsExported() && !value.IsZero() && !(value.Kind() == reflect.Slice && value.Len() == 0):
			each(field.Name, value)
		}
	}
}

func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if strings.ToUpper(s) == s {
		return strings.ToLower(s)
	}
	return string(unicode.ToLower(r)) + s[n:]
}

// maxMore bounds what a mark says of a thing beside where it comes from, in bytes: bodies have limits, too.
const maxMore = 12 << 10

// More is what of a thing a target has no place for, for Mark.More. What a pull request has more than an issue is all in it, for a
// target makes an issue of one whose branches are gone.
func More(sort string, thing any, f Fidelity) json.RawMessage {
	more := map[string]any{}
	Fields(sort, thing, func(field string, value any) {
		if f.Of(field).State != Kept && field != sort+".body" && field != sort+".author" && field != sort+".created" && field != sort+".updated" {
			more[strings.TrimPrefix(field, sort+".")] = value
		}
	})
	switch t := thing.(type) {
	case *Item:
		if t.Pull != nil {
			pull := map[string]any{}
			Fields("pull", t.Pull, func(field string, value any) { pull[strings.TrimPrefix(field, "pull.")] = value })
			more["pull"] = pull
		}
	case *Comment:
		if t.Code != nil {
			more["code"] = t.Code
		}
	}
	for _, longest := range []string{"", "events", "reactions", "code"} {
		delete(more, longest)
		if len(more) == 0 {
			return nil
		}
		if raw, err := json.Marshal(more); err == nil && len(raw) <= maxMore {
			return raw
		}
	}
	return nil
}

// Recall gives an item back what it was before it was restored: wherever a text by account, whose credentials restored it, bears a
// mark, the text before, the first origin, and what the forge had no place for. Reviews that became comments are reviews again.
func Recall(item *Item, account string) {
	recall(&item.Origin, &item.Body, account, item)
	for _, c := range item.Comments {
		recallComment(c, account)
	}
	if item.Pull == nil {
		return
	}
	for _, r := range item.Pull.Reviews {
		recall(&r.Origin, &r.Body, account, r)
		for _, c := range r.Comments {
			recallComment(c, account)
		}
	}
	regroup(item)
}

// RecallRelease is Recall for a release.
func RecallRelease(r *Release, account string) { recall(&r.Origin, &r.Body, account, r) }

func recallComment(c *Comment, account string) {
	if m, ok := recall(&c.Origin, &c.Body, account, c); ok {
		c.mark = m
	}
	for _, reply := range c.Replies {
		recallComment(reply, account)
	}
}

// recall reads the mark of a text. thing gets what else the mark holds.
func recall(o *Origin, body *string, account string, thing any) (Mark, bool) {
	if account == "" || !strings.EqualFold(o.Author.Login, account) {
		return Mark{}, false
	}
	text, m, ok := Unmark(*body)
	if !ok {
		return Mark{}, false
	}
	*body, *o = text, m.Origin
	if i, isItem := thing.(*Item); isItem && strings.EqualFold(i.ClosedBy.Login, account) {
		i.ClosedBy, i.Reason = User{}, "" // the restore closed it
	}
	switch t := thing.(type) {
	case *Item:
		events, reactions := t.Events, t.Reactions
		t.Events, t.Reactions = nil, nil
		refill(t, m.More)
		t.Events, t.Reactions = joinEvents(t.Events, events, account), joinReactions(t.Reactions, reactions)
	case *Comment:
		reactions := t.Reactions
		t.Reactions = nil
		refill(t, m.More)
		t.Reactions = joinReactions(t.Reactions, reactions)
	default:
		refill(t, m.More)
	}
	return m, true
}

// refill gives a thing the fields that a mark has more, each as a whole: nothing of what the forge has in its place stays in it. A field
// that cannot be read stays as the forge has it.
func refill(thing any, more json.RawMessage) {
	var given map[string]json.RawMessage
	if len(more) == 0 || json.Unmarshal(more, &given) != nil {
		return
	}
	v := reflect.ValueOf(thing).Elem()
	for _, field := range reflect.VisibleFields(v.Type()) {
		raw, ok := given[lowerFirst(field.Name)]
		if !ok || field.Anonymous || !field.IsExported() {
			continue
		}
		place := v.FieldByIndex(field.Index)
		if pull, is := place.Interface().(*Pull); is && pull != nil {
			refill(pull, raw) // of a pull request that stayed one, the forge has the reviews
			continue
		}
		if fresh := reflect.New(place.Type()); json.Unmarshal(raw, fresh.Interface()) == nil {
			place.Set(fresh.Elem())
		}
	}
}

// joinEvents adds what happened since to what a mark has. What the account did was the restore.
func joinEvents(before, since []*Event, account string) []*Event {
	since = slices.DeleteFunc(since, func(e *Event) bool { return strings.EqualFold(e.Actor.Login, account) })
	return append(before, since...)
}

// joinReactions adds those that people had since.
func joinReactions(before, since []Reaction) []Reaction {
	for _, r := range since {
		same := func(other Reaction) bool { return other.Content == r.Content && other.User.Login == r.User.Login }
		if !slices.ContainsFunc(before, same) {
			before = append(before, r)
		}
	}
	return before
}

// regroup makes reviews of what stands among the comments of a pull request and was one, and threads of answers.
func regroup(item *Item) {
	g := threads{reviews: map[string]*Review{}, heads: map[string]*Comment{}, pull: item.Pull}
	for _, r := range item.Pull.Reviews {
		g.reviews[r.ID] = r
		all := r.Comments
		r.Comments = nil
		for _, c := range all {
			if !g.take(c) {
				r.Comments = append(r.Comments, c)
				g.heads[c.ID] = c
			}
		}
	}
	for _, c := range item.Comments {
		if c.mark.Sort == SortReviewText {
			r := &Review{Origin: c.Origin, Item: item.Number, Body: c.Body}
			refill(r, c.mark.More)
			g.reviews[r.ID] = r
			item.Pull.Reviews = append(item.Pull.Reviews, r)
		}
	}
	item.Comments = slices.DeleteFunc(item.Comments, func(c *Comment) bool { return c.mark.Sort == SortReviewText || g.take(c) })
}

// threads are the reviews of a pull request and the comments on code that others answer.
type threads struct {
	reviews map[string]*Review
	heads   map[string]*Comment
	pull    *Pull
}

// take puts a comment of a review where it belongs.
func (g threads) take(c *Comment) bool {
	if c.mark.Sort != SortReviewComment {
		return false
	}
	if head := g.heads[c.mark.In]; head != nil {
		if !bytes.Contains(c.mark.More, []byte(`"code":`)) {
			c.Code = nil // it was an answer, and has its place from there
		}
		head.Replies = append(head.Replies, c)
		g.heads[c.ID] = head
		return true
	}
	review := g.reviews[c.mark.In]
	if review == nil {
		return false
	}
	review.Comments = append(review.Comments, c)
	g.heads[c.ID] = c
	return true
}
