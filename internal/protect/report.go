package protect

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// ProblemOf is an error as reports have it.
func ProblemOf(err error) point.Problem {
	return point.Problem{What: err.Error(), Class: fault.Of(err).Reason, Hints: fault.Hints(err)}
}

// repositoriesOf sums up the parts of a point by repository, in the order of their names.
func repositoriesOf(record *point.Record) []point.RepositoryRun {
	parts := byRepository(record.Point.Parts)
	var all []point.RepositoryRun
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		host, owner, repository := splitName(name)
		r := point.RepositoryRun{Host: host, Owner: owner, Name: repository, State: parts[name][0].State, Unchanged: true}
		for _, p := range parts[name] {
			add(&r, p, record.Point.Time)
		}
		all = append(all, r)
	}
	return all
}

// byRepository groups the parts of a point by what they are of, "<host>/<owner>/<name>": a repository with its Git LFS objects, its
// wiki, its issues and its metadata. Parts that are of no repository are left out.
func byRepository(parts []point.Part) map[string][]point.Part {
	groups := map[string][]point.Part{}
	for _, p := range parts {
		if name, ok := repositoryOf(p); ok {
			groups[name] = append(groups[name], p)
		}
	}
	for name, wiki := range groups {
		if of, is := strings.CutSuffix(name, ".wiki"); is && groups[of] != nil {
			groups[of] = append(groups[of], wiki...)
			delete(groups, name)
		}
	}
	return groups
}

// repositoryOf is "<host>/<owner>/<name>" of what a part belongs to.
func repositoryOf(p point.Part) (string, bool) {
	if rest, ok := strings.CutPrefix(p.Name, "forge/"); ok && (p.Kind == point.KindIssues || p.Kind == point.KindMetadata) {
		return path.Dir(rest), true
	}
	rest, ok := strings.CutPrefix(p.Name, "git/")
	if !ok {
		return "", false
	}
	rest += "/"
	end := strings.LastIndex(rest, ".git/")
	if end < 0 {
		return "", false
	}
	return rest[:end], true
}

// add counts a part of a repository: the worst state of its parts is the repository's.
func add(r *point.RepositoryRun, p point.Part, captured time.Time) {
	if severity(p.State) > severity(r.State) {
		r.State = p.State
	}
	if p.Reason != "" && severity(p.State) >= severity(r.State) {
		r.Reason = p.Reason
	}
	r.Unchanged = r.Unchanged && (p.Unchanged || p.State == point.Skipped) // a wiki that nobody has begun
	r.Bytes += p.Bytes
	r.NewBytes += p.NewBytes
	if p.Kind != point.KindGit {
		return
	}
	switch p.State {
	case point.Stored:
		r.LastGood = &captured
	case point.Carried:
		r.LastGood = p.CarriedFrom
	}
}

// severity orders states: the higher, the worse.
func severity(s point.State) int {
	return slices.Index([]point.State{point.Skipped, point.Stored, point.Carried, point.Vanished, point.Failed}, s)
}

func splitName(name string) (host, owner, repository string) {
	host, rest, _ := strings.Cut(name, "/")
	return host, strings.Trim(path.Dir(rest), "."), path.Base(rest)
}

// withHeld joins what the forge says of repositories with what the point has of them.
func withHeld(listed []Repository, held *Held) []Repository {
	there := map[string]Source{}
	for _, r := range heldRepositories(held) {
		there[r.Part] = r.Source
	}
	all := slices.Clone(listed)
	for i := range all {
		if source, has := there[all[i].Part]; has {
			all[i].Source, all[i].Held = source, held
		}
	}
	return all
}

// heldRepositories are those that a point has.
func heldRepositories(held *Held) []Repository {
	groups := byRepository(held.Record.Point.Parts)
	var all []Repository
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		parts := slices.DeleteFunc(groups[name], func(p point.Part) bool { return p.State == point.Vanished })
		main := "git/" + name + ".git"
		if !slices.ContainsFunc(parts, func(p point.Part) bool { return p.Name == main && p.State != point.Skipped }) {
			continue
		}
		host, owner, repository := splitName(name)
		subject := held.Record.Point.Subject
		if subject.Kind != point.SubjectRepository { // else it may lie under another name than its own
			subject = point.Subject{Kind: point.SubjectRepository, Name: name}
		}
		all = append(all, Repository{
			Source: CopyOf(subject, held.Tree, parts),
			Part:   main, Host: host, Owner: owner, Name: repository, Held: held,
		})
	}
	return all
}

// entryOf finds or makes the report's line of a repository.
func entryOf(report *point.SourceRun, repository Repository) *point.RepositoryRun {
	i := slices.IndexFunc(report.Repositories, func(e point.RepositoryRun) bool {
		return e.Host == repository.Host && e.Owner == repository.Owner && e.Name == repository.Name
	})
	if i < 0 {
		i = len(report.Repositories)
		report.Repositories = append(report.Repositories, point.RepositoryRun{
			Host: repository.Host, Owner: repository.Owner, Name: repository.Name, State: point.Stored, Unchanged: true,
		})
	}
	return &report.Repositories[i]
}

// sumUp makes the repository's line of its deliveries, where no point says more.
func sumUp(entry *point.RepositoryRun, delivery Delivery, did point.DeliveryRun) {
	entry.Unchanged = entry.Unchanged && did.Unchanged
	if did.State == point.Failed {
		entry.State, entry.Reason = point.Failed, did.Reason
		return
	}
	if delivery.Receipt == nil {
		return
	}
	entry.Bytes = max(entry.Bytes, delivery.Receipt.Ledger.Bytes)
	entry.NewBytes += delivery.Receipt.Ledger.NewBytes
	captured := delivery.Receipt.Point.Time
	entry.LastGood = &captured
}

// stateOf is how a source came out.
func stateOf(s *point.SourceRun) point.State {
	good, bad := 0, len(s.Problems)
	for _, r := range s.Repositories {
		switch r.State {
		case point.Stored:
			good++
		case point.Skipped:
		default:
			bad++
		}
		for _, d := range r.Deliveries {
			if d.State != point.Stored {
				bad++
			}
		}
	}
	if s.Ledger != nil && !s.Ledger.Closed {
		bad++
	}
	switch {
	case bad == 0:
		return point.Complete
	case good == 0 && s.Point == "":
		return point.Failed
	}
	return point.Incomplete
}

func shortcomingsOf(report *point.Run) string {
	var all []string
	for _, s := range report.Sources {
		for _, p := range s.Problems {
			all = append(all, p.What)
		}
		for _, r := range s.Repositories {
			name := path.Join(r.Host, r.Owner, r.Name)
			if severity(r.State) > severity(point.Stored) && len(r.Deliveries) == 0 {
				all = append(all, fmt.Sprintf("%s %s: %s", name, r.State, r.Reason))
			}
			for _, d := range r.Deliveries {
				if d.State != point.Stored {
					all = append(all, fmt.Sprintf("%s to %s %s: %s", name, d.Type, d.Place, d.Reason))
				}
			}
		}
		if s.Ledger != nil && !s.Ledger.Closed && len(all) == 0 {
			all = append(all, s.Subject.Name+": the ledger is open")
		}
	}
	if len(all) == 0 {
		return "not all of it was done"
	}
	return firstOf(all)
}

// firstOf joins shortcomings, as many as an error names.
func firstOf(all []string) string {
	if n := len(all); n > shownShortcomings {
		all = append(slices.Clone(all[:shownShortcomings]), fmt.Sprintf("and %d more", n-shownShortcomings))
	}
	return strings.Join(all, "; ")
}
