package forge

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rules say which repositories of a listing are taken. What a forge does not tell of a repository never excludes it.
type Rules struct {
	// Include and Exclude are patterns over owner/name, or over the name alone where they have no slash, whatever the case: "acme/*",
	// "**/*-archive". No Include takes all; Exclude beats Include.
	Include, Exclude []string
	// IncludeOwners and ExcludeOwners are patterns over owners; one that names a group means its subgroups, too.
	IncludeOwners, ExcludeOwners []string
	// Exact takes all of these as names, as they are written, without owner: what gickup's files mean.
	Exact bool

	Stars           int           // at least
	ActiveWithin    time.Duration // 0 for however long ago
	Languages       []string      // one of them, whatever the case
	ExcludeArchived bool
	ExcludeForks    bool
}

// Filter chooses repositories by Rules. Nil takes all.
type Filter struct {
	rules                        Rules
	include, exclude             []glob
	includeOwners, excludeOwners []glob
}

// NewFilter checks the patterns.
func NewFilter(rules Rules) (*Filter, error) {
	f := &Filter{rules: rules}
	for _, list := range []struct {
		texts []string
		into  *[]glob
	}{
		{rules.Include, &f.include},
		{rules.Exclude, &f.exclude},
		{rules.IncludeOwners, &f.includeOwners},
		{rules.ExcludeOwners, &f.excludeOwners},
	} {
		for _, text := range list.texts {
			g, err := f.pattern(text)
			if err != nil {
				return nil, err
			}
			*list.into = append(*list.into, g)
		}
	}
	return f, nil
}

func (f *Filter) pattern(text string) (glob, error) {
	if !f.rules.Exact {
		return parseGlob(strings.ToLower(text))
	}
	g := glob{text: text}
	for _, r := range text {
		g.tokens = append(g.tokens, token{char: r})
	}
	return g, nil
}

// Excludes tells why a repository is left out; "" for one that is taken.
func (f *Filter) Excludes(r Repository, now time.Time) (reason string) {
	if f == nil {
		return ""
	}
	for _, rule := range []func(Repository, time.Time) string{f.byOwner, f.byName, f.byKind, f.byActivity, f.byLanguage} {
		if reason := rule(r, now); reason != "" {
			return reason
		}
	}
	return ""
}

func (f *Filter) byOwner(r Repository, _ time.Time) string {
	owner := f.fold(r.Owner)
	matches := func(g glob) bool { return g.matchOwner(owner) }
	if i := slices.IndexFunc(f.excludeOwners, matches); i >= 0 {
		return "excluded by owner " + f.excludeOwners[i].text
	}
	if len(f.includeOwners) > 0 && !slices.ContainsFunc(f.includeOwners, matches) {
		return "not of the owners included"
	}
	return ""
}

// matchOwner compares with an owner, and with the groups that it is in.
func (g glob) matchOwner(owner string) bool {
	for {
		if g.match(owner) {
			return true
		}
		i := strings.LastIndexByte(owner, '/')
		if i < 0 {
			return false
		}
		owner = owner[:i]
	}
}

func (f *Filter) byName(r Repository, _ time.Time) string {
	matches := func(g glob) bool { return f.named(g, r) }
	if i := slices.IndexFunc(f.exclude, matches); i >= 0 {
		return "excluded by " + f.exclude[i].text
	}
	if len(f.include) > 0 && !slices.ContainsFunc(f.include, matches) {
		return "not among those included"
	}
	return ""
}

// Missing are the names of Include that no repository of the listing has. Patterns need not match any.
func (f *Filter) Missing(all []Repository) []string {
	if f == nil {
		return nil
	}
	var names []string
	for _, g := range f.include {
		there := !g.isName() || slices.ContainsFunc(all, func(r Repository) bool { return f.named(g, r) })
		if !there && !slices.Contains(names, g.text) {
			names = append(names, g.text)
		}
	}
	return names
}

// isName reports whether the pattern has nothing but characters that stand for themselves.
func (g glob) isName() bool {
	return !slices.ContainsFunc(g.tokens, func(t token) bool { return t.sort != literal })
}

// named compares with the name, and with the owner's before it where the pattern has one.
func (f *Filter) named(g glob, r Repository) bool {
	if f.rules.Exact || !strings.Contains(g.text, "/") {
		return g.match(f.fold(r.Name))
	}
	return g.match(f.fold(r.FullName()))
}

func (f *Filter) fold(name string) string {
	if f.rules.Exact {
		return name
	}
	return strings.ToLower(name)
}

func (f *Filter) byKind(r Repository, _ time.Time) string {
	switch {
	case f.rules.ExcludeArchived && r.Archived:
		return "archived"
	case f.rules.ExcludeForks && r.Fork:
		return "a fork"
	case r.Stars < f.rules.Stars:
		return fmt.Sprintf("it has %d stars of the %d wanted", r.Stars, f.rules.Stars)
	}
	return ""
}

func (f *Filter) byActivity(r Repository, now time.Time) string {
	if f.rules.ActiveWithin > 0 && !r.Active.IsZero() && r.Active.Before(now.Add(-f.rules.ActiveWithin)) {
		return "no activity since " + r.Active.UTC().Format(time.DateOnly)
	}
	return ""
}

// byLanguage lets repositories through of which no language is known, such as those of plain text.
func (f *Filter) byLanguage(r Repository, _ time.Time) string {
	if len(f.rules.Languages) == 0 || len(r.Languages) == 0 {
		return ""
	}
	for _, language := range r.Languages {
		if slices.ContainsFunc(f.rules.Languages, func(wanted string) bool { return strings.EqualFold(wanted, language) }) {
			return ""
		}
	}
	return "in " + printable(strings.Join(r.Languages, ", "))
}
