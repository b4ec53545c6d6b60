package git

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/point"
)

func TestAlarms(t *testing.T) {
	var first, second string
	cases := []struct {
		name   string
		change func(s *sourceRepo)
		want   []string // how the alarms begin
	}{
		{"growth", func(s *sourceRepo) {
			s.commit("refs/heads/main", "a", "more")
			s.commit("refs/heads/b1", "a", "more")
		}, nil},
		{"a merge of the default branch", func(s *sourceRepo) {
			other := s.commitOn(first, "z", "1")
			tree := s.git("rev-parse", "refs/heads/main^{tree}")
			s.git("update-ref", "refs/heads/main", s.git("commit-tree", tree, "-p", other, "-p", second, "-m", "merge"))
		}, nil},
		{"one branch of many rewritten", func(s *sourceRepo) {
			s.git("update-ref", "refs/heads/b1", s.commitOn("", "z", "1"))
		}, nil},
		{"four of twelve refs gone, too few to tell", func(s *sourceRepo) {
			for i := range 4 {
				s.git("update-ref", "-d", fmt.Sprintf("refs/heads/b%d", i))
			}
		}, nil},
		{"default branch rewritten", func(s *sourceRepo) {
			s.git("update-ref", "refs/heads/main", s.commitOn(first, "z", "1"))
		}, []string{"default branch refs/heads/main was rewritten: "}},
		{"default branch reset to an older commit", func(s *sourceRepo) {
			s.git("update-ref", "refs/heads/main", first)
		}, []string{"default branch refs/heads/main was rewritten: "}},
		{"default branch gone", func(s *sourceRepo) {
			s.git("update-ref", "-d", "refs/heads/main")
			s.git("symbolic-ref", "HEAD", "refs/heads/b1")
		}, []string{"default branch refs/heads/main is gone, HEAD names refs/heads/b1 now"}},
		{"default branch renamed, the old one kept", func(s *sourceRepo) {
			s.git("update-ref", "refs/heads/trunk", second)
			s.git("symbolic-ref", "HEAD", "refs/heads/trunk")
		}, nil},
		{"half of the refs gone", func(s *sourceRepo) {
			for i := range 6 {
				s.git("update-ref", "-d", fmt.Sprintf("refs/heads/b%d", i))
			}
		}, []string{"6 of 12 refs are gone"}},
		{"half of the branches rewritten", func(s *sourceRepo) {
			for i := range 6 {
				s.git("update-ref", fmt.Sprintf("refs/heads/b%d", i), s.commitOn("", "z", "1"))
			}
		}, []string{"6 of 11 branches were rewritten"}},
		{"everything gone", func(s *sourceRepo) {
			for ref := range strings.SplitSeq(s.git("for-each-ref", "--format=%(refname)"), "\n") {
				s.git("update-ref", "-d", ref)
			}
		}, []string{"all 12 refs are gone", "default branch refs/heads/main is gone"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newRepo(t)
			first = s.commit("refs/heads/main", "a", "1")
			second = s.commit("refs/heads/main", "a", "2")
			for i := range 10 {
				s.git("update-ref", fmt.Sprintf("refs/heads/b%d", i), first)
			}
			s.git("update-ref", "refs/tags/v1", first)
			b := newBench(t, s.dir)
			before := b.backup().Point.ID
			c.change(s)
			after := b.backup()

			var alarms []string
			for _, n := range after.Point.Parts[0].Notes {
				if finding, ok := strings.CutPrefix(n, "alarm: "); ok {
					alarms = append(alarms, finding)
				}
			}
			if !slices.EqualFunc(alarms, c.want, strings.HasPrefix) {
				t.Errorf("alarms are %q, want %q", alarms, c.want)
			}
			points, err := b.store.Points(t.Context(), point.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			if held := len(points[1].Holds) > 0; points[1].ID != before || held != (len(c.want) > 0) {
				t.Errorf("the last good point is held: %v", held)
			}
			if slices.ContainsFunc(b.backup().Point.Parts[0].Notes, func(n string) bool { return strings.HasPrefix(n, "alarm: ") }) {
				t.Error("the alarm is raised again though nothing changed")
			}
		})
	}
}
