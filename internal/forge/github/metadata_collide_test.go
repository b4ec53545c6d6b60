package github_test

import (
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

// TestNumbersThatCollide has a GitHub that gives one number to two comments, two labels and an item and a discussion.
func TestNumbersThatCollide(t *testing.T) {
	day := forgetest.NewClock().Now().Add(-48 * time.Hour)
	comment := func(on int64, body string) *githubtest.Comment {
		return &githubtest.Comment{ID: 7, On: on, User: "ada", Body: body, Created: day, Updated: day}
	}
	e := newEngine(t, &githubtest.Metadata{
		Items: []*githubtest.Item{
			{Number: 1, Title: "one", User: "ada", Created: day, Updated: day}, {Number: 2, Title: "two", User: "ada", Created: day, Updated: day},
		},
		Comments:    []*githubtest.Comment{comment(1, "first"), comment(2, "second")},
		Labels:      []githubtest.Label{{Name: "bug", Color: "ff0000"}, {Name: "bug", Color: "00ff00"}},
		Discussions: []*githubtest.Discussion{{Number: 1, Title: "a talk", User: "ada", Category: "General", Created: day, Updated: day}},
	})
	open, notes := e.run()
	if all := strings.Join(notes, "; "); strings.Count(all, "had one name") == 0 {
		t.Errorf("nobody is told: open %q, notes %q", open, notes)
	}
	s, err := github.Decode(e.archive())
	if err != nil {
		t.Fatal(err)
	}
	var titles, said []string
	for item, err := range s.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		titles = append(titles, item.Title)
		for _, c := range item.Comments {
			said = append(said, c.Body)
		}
	}
	for talk, err := range s.Discussions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		titles = append(titles, talk.Title)
	}
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(titles, " "); got != "one two a talk" || len(said) != 1 || len(o.Labels) != 1 {
		t.Errorf("there are %q, %q and %d labels", got, said, len(o.Labels))
	}
}
