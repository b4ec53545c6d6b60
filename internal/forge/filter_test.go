package forge

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestGlobs(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"acme/*", "acme/api", true},
		{"acme/*", "acme/team/api", false},
		{"acme/**", "acme/team/api", true},
		{"**/api", "acme/team/api", true},
		{"*-archive", "old-archive", true},
		{"*-archive", "archive", false},
		{"a?i", "api", true},
		{"a?i", "a/i", false},
		{"a[a-p]i", "api", true},
		{"a[^p]i", "api", false},
		{"a[^p]i", "a/i", false},
		{`a\*`, "a*", true},
		{`a\*`, "ab", false},
		{"*", "", true},
		{"über*", "überall", true},
		{"*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 200), false},
	}
	for _, test := range tests {
		g, err := parseGlob(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
		} else if got := g.match(test.name); got != test.want {
			t.Errorf("%s matches %s: %v", test.pattern, test.name, got)
		}
	}
	for _, bad := range []string{"", "[", "[]", "a[b", `a\`, "[a/b]", "\xff", strings.Repeat("*", maxGlob+1)} {
		if _, err := parseGlob(bad); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range []string{"acme/*", "**", "a?b", "[a-z]", `\*`, "[^a]*", "[", "***", "*[!x]"} {
		f.Add(seed, "acme/api")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := parseGlob(pattern)
		if err != nil {
			if !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("class of %v", err)
			}
			return
		}
		matched := g.match(name)
		if !strings.ContainsAny(pattern, `*?[\`) && matched != (pattern == name) {
			t.Errorf("%q matches %q: %v", pattern, name, matched)
		}
	})
}

func TestFilter(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	api := Repository{
		Owner: "Acme/Team", Name: "api", Stars: 5, Fork: true, Archived: true, Languages: []string{"Go", "Shell"}, Active: now.AddDate(0, -2, 0),
	}
	tests := []struct {
		name  string
		rules Rules
		want  string // part of the reason; "" for taken
	}{
		{"nothing said", Rules{}, ""},
		{"included by name", Rules{Include: []string{"API"}}, ""},
		{"included by owner and name", Rules{Include: []string{"acme/**"}}, ""},
		{"not included", Rules{Include: []string{"web*"}}, "not among"},
		{"exclude beats include", Rules{Include: []string{"api"}, Exclude: []string{"a*"}}, "excluded by a*"},
		{"owner with subgroups", Rules{IncludeOwners: []string{"acme"}}, ""},
		{"owner's glob", Rules{ExcludeOwners: []string{"ac*"}}, "excluded by owner ac*"},
		{"another owner", Rules{IncludeOwners: []string{"team"}}, "not of the owners"},
		{"exact name", Rules{Exact: true, Include: []string{"api"}}, ""},
		{"exact name of another case", Rules{Exact: true, Include: []string{"API"}}, "not among"},
		{"exact means no glob", Rules{Exact: true, Exclude: []string{"*"}}, ""},
		{"exact owner of another case", Rules{Exact: true, IncludeOwners: []string{"acme"}}, "not of the owners"},
		{"exact owner with subgroups", Rules{Exact: true, IncludeOwners: []string{"Acme"}}, ""},
		{"stars enough", Rules{Stars: 5}, ""},
		{"too few stars", Rules{Stars: 6}, "5 stars"},
		{"active", Rules{ActiveWithin: 90 * 24 * time.Hour}, ""},
		{"quiet", Rules{ActiveWithin: 30 * 24 * time.Hour}, "no activity since 2026-01-01"},
		{"language of another case", Rules{Languages: []string{"shell"}}, ""},
		{"another language", Rules{Languages: []string{"Rust"}}, "in Go, Shell"},
		{"archived", Rules{ExcludeArchived: true}, "archived"},
		{"fork", Rules{ExcludeForks: true}, "a fork"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := NewFilter(test.rules)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Excludes(api, now); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	strict, err := NewFilter(Rules{Languages: []string{"Go"}, ActiveWithin: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if reason := strict.Excludes(Repository{Owner: "acme", Name: "unknown"}, now); reason != "" {
		t.Errorf("what is not known excludes: %s", reason)
	}
	if _, err := NewFilter(Rules{ExcludeOwners: []string{"a[b"}}); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("a broken pattern: %v", err)
	}
}

func TestFilterMissesNames(t *testing.T) {
	listed := []Repository{{Owner: "Acme", Name: "API"}, {Owner: "acme/team", Name: "web"}}
	tests := []struct {
		include []string
		exact   bool
		want    string
	}{
		{nil, false, ""},
		{[]string{"api", "acme/api", "acme/team/web"}, false, ""},
		{[]string{"apl", "acme/web", "apl"}, false, "apl acme/web"},
		{[]string{"apl*", "x/**", "[x]"}, false, ""},
		{[]string{"api", "API", "*"}, true, "api *"},
	}
	for _, test := range tests {
		f, err := NewFilter(Rules{Include: test.include, Exact: test.exact, Exclude: []string{"web"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.Missing(listed), " "); got != test.want {
			t.Errorf("%q: %q, want %q", test.include, got, test.want)
		}
	}
}
