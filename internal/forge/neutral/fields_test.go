package neutral

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
)

// What the forge has of the account's own in the places that a mark fills does not stay in them; what others did since does.
func TestRecallTellsTheRestoreFromWhatFollowed(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	robot := User{Login: "import", ID: "7", Email: "import@example.com"}
	eve, ada := User{Login: "eve", ID: "9"}, User{Login: "ada"}
	was := &Item{
		Origin: Origin{Forge: "github.com", ID: "1", Author: ada, Created: at(1)}, ClosedBy: ada, ClosedAt: at(2), Closed: true,
		Events:    []*Event{{Kind: "closed", Actor: ada, Created: at(2), Text: "closed"}},
		Reactions: []Reaction{{Content: "+1", User: ada}},
		Pull:      &Pull{Head: "topic", HeadOID: "ab12"},
	}
	m := Mark{Origin: was.Origin, Sort: "issue", More: More("item", was, Fidelity{})}
	label := &Event{Kind: "labeled", Actor: eve, Created: at(6), Text: "labeled bug"}
	review := &Review{Origin: Origin{Forge: "git.example.org", ID: "5", Author: eve}, Body: "fine"}
	now := &Item{
		Origin: Origin{Forge: "git.example.org", ID: "99", Author: robot, Created: at(5)}, Body: m.Write("it breaks"), Closed: true, ClosedBy: robot, ClosedAt: at(5),
		Events:    []*Event{{Kind: "closed", Actor: robot, Created: at(5), Text: "closed"}, label},
		Reactions: []Reaction{{Content: "+1", User: eve}, {Content: "+1", User: ada}},
		Pull:      &Pull{Head: "topic", HeadOID: "cd34", Reviews: []*Review{review}},
	}
	Recall(now, "import")
	want := &Item{
		Origin: now.Origin, Body: "it breaks", Closed: true, ClosedBy: ada, ClosedAt: at(2), Events: []*Event{was.Events[0], label},
		Reactions: []Reaction{{Content: "+1", User: ada}, {Content: "+1", User: eve}},
		Pull:      &Pull{Head: "topic", HeadOID: "ab12", Reviews: []*Review{review}},
	}
	if now.Author != ada || !reflect.DeepEqual(now, want) {
		got, _ := json.MarshalIndent(now, "", " ")
		t.Errorf("it is %s", got)
	}
}

func TestAMarkThatCannotBeReadChangesNothingElse(t *testing.T) {
	for _, more := range []string{``, `[]`, `{"origin":{"id":"x"},"mark":{},"closedBy":7,"events":[{"created":"never"}],"pull":"no","pinned":true}`} {
		item := &Item{ClosedBy: User{Login: "eve"}, Pull: &Pull{Head: "topic"}}
		refill(item, json.RawMessage(more))
		if item.ClosedBy.Login != "eve" || item.Pull.Head != "topic" || len(item.Events) > 0 || item.ID != "" {
			t.Errorf("%s made of it %+v", more, item)
		}
		if pinned := more != "" && more != "[]"; item.Pinned != pinned {
			t.Errorf("%s leaves it pinned: %v", more, item.Pinned)
		}
	}
}

func TestReactionsAreJoinedOnce(t *testing.T) {
	one, other := Reaction{Content: "+1", User: User{Login: "ada"}}, Reaction{Content: "heart", User: User{Login: "ada"}}
	if got := joinReactions([]Reaction{one}, []Reaction{one, other}); !slices.Equal(got, []Reaction{one, other}) {
		t.Errorf("they are %v", got)
	}
}
