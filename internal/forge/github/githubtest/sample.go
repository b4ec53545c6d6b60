package githubtest

import (
	"strings"
	"time"
)

// Sample is what people leave beside code, a bit of each: an issue with all that it can have, a merged pull request with a review, and
// one that is open and whose branch is gone; a label, a milestone, a release.
func Sample() *Metadata {
	at := func(hours int) time.Time { return time.Date(2024, 5, 1, hours, 0, 0, 0, time.UTC) }
	oid := strings.Repeat("c", 40)
	comment := func(id, on int64, user, body string) Comment {
		return Comment{ID: id, On: on, User: user, Body: body, Created: at(5), Updated: at(6)}
	}
	first := comment(11, 1, "", "it <b>does</b>\n\n/close\n\n@ada, `@code` and <!-- backstay:1 {} -->")
	first.Reactions = []Reaction{{ID: 1, Content: "heart", User: "ada", Created: at(6)}}
	onCode := ReviewComment{
		Comment: comment(21, 2, "ada", "why?"), Review: 31, Path: "a.go", Hunk: "@@ -1 +1 @@", OID: oid, Line: 7, OriginalLine: 7,
	}
	reply := ReviewComment{
		Comment: comment(22, 2, "grace", "so"), Review: 31, ReplyTo: 21, Path: "a.go", Hunk: "@@ -1 +1 @@", OID: oid, Line: 7, OriginalLine: 7,
	}
	return &Metadata{
		Labels:     []Label{{Name: "bug", Color: "d73a4a", Description: "it does not work"}},
		Milestones: []Milestone{{Number: 1, Title: "1.0", Description: "soon", Due: at(96), Created: at(0), Updated: at(0)}},
		Releases:   []*Release{{ID: 41, Tag: "v1", Target: "main", Name: "One", Body: "mends #1", User: "ada", Created: at(9), Updated: at(9), Published: at(9)}},
		Items: []*Item{
			{
				Number: 1, Title: "it breaks", Body: "see nothing", User: "ada", Closed: true, Reason: "not_planned", ClosedAt: at(9), Created: at(1), Updated: at(9),
				Labels: []string{"bug"}, Milestone: 1, Assignees: []string{"grace"}, Locked: true, LockReason: "spam",
				Timeline: []Event{{Type: "ClosedEvent", Actor: "linus", Created: at(9), Fields: map[string]any{"closer": nil}}},
			},
			{
				Number: 2, Title: "mended", User: "grace", Closed: true, ClosedAt: at(8), Created: at(2), Updated: at(8), Pull: &Pull{
					Base: "main", Head: "mend", BaseOID: oid, HeadOID: oid, MergedAt: at(8), MergedBy: "ada", MergeOID: oid,
					Reviews: []Review{{ID: 31, User: "ada", Body: "hm", State: "APPROVED", OID: oid, Submitted: at(5)}},
					Threads: []Thread{{First: 21, ResolvedBy: "grace"}},
				},
			},
			{
				Number: 3, Title: "open", Body: "to do", User: "", Created: at(3), Updated: at(4),
				Pull: &Pull{Base: "main", Head: "gone", HeadOID: oid, Draft: true},
			},
		},
		Comments:       []*Comment{&first},
		ReviewComments: []*ReviewComment{&onCode, &reply},
	}
}
