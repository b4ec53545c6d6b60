// Package forgetest holds what tests of forges share: a world of repositories that a test server renders in the API of one forge, a
// server that fails on demand, the conformance suite that every provider passes, and a git server that counts requests.
package forgetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Token is the one that a World accepts. Tests search for it where it must not be.
const Token = "forgetest-token-4f1c90d2a7"

// Repo is a repository of a World.
type Repo struct {
	ID            int64
	Owner, Name   string
	Description   string
	DefaultBranch string
	Private       bool
	Fork          bool
	Archived      bool
	Empty         bool
	Wiki          bool // enabled
	Blocked       bool // for legal reasons: asked for alone, it answers 451
	Stars         int
	Language      string
	Size          int64 // bytes
	Created       time.Time
	Updated       time.Time
	Pushed        time.Time
}

// FullName is "owner/name".
func (r Repo) FullName() string { return r.Owner + "/" + r.Name }

// Issue is an issue of a World.
type Issue struct {
	Number      int64
	Title, Body string
	Closed      bool
	Pull        bool // a pull request, where the forge lists those with the issues
	Updated     time.Time
}

// Credentials is what the World says of Token.
type Credentials struct {
	Account string
	Scopes  []string
	Expires time.Time // zero for never
}

// World is a forge's repositories. Dialects render it; tests change it between runs. Safe for concurrent use.
type World struct {
	Now func() time.Time // the server's clock

	mu     sync.Mutex
	owners map[string]int64 // organisations and users, with their IDs
	repos  map[int64]*Repo
	former map[string]int64 // full names of old, which still lead to the repository
	issues map[int64][]Issue
	token  Credentials
	nextID int64
}

// NewWorld returns an empty world with the account "tester", where it is now.
func NewWorld(now func() time.Time) *World {
	w := &World{
		Now: now, owners: map[string]int64{}, repos: map[int64]*Repo{}, former: map[string]int64{}, issues: map[int64][]Issue{}, nextID: 1000,
		token: Credentials{Account: "tester"},
	}
	w.AddOwner("tester")
	return w
}

// AddOwner adds an organisation or group; "group/subgroup" is one inside another.
func (w *World) AddOwner(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addOwner(name)
}

func (w *World) addOwner(name string) {
	if _, there := w.owners[name]; !there {
		w.nextID++
		w.owners[name] = w.nextID
	}
}

// Owners lists the owners by name.
func (w *World) Owners() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.owners))
}

// OwnerID is the number of an owner; 0 for one that is not there.
func (w *World) OwnerID(name string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owners[name]
}

// Add adds a repository, and its owner where that is missing, and gives it an ID. Where times or the branch are missing it was made
// and pushed a year ago, on main.
func (w *World) Add(r Repo) Repo {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addOwner(r.Owner)
	w.nextID++
	r.ID = w.nextID
	year := w.Now().AddDate(-1, 0, 0).UTC().Truncate(time.Second)
	for _, t := range []*time.Time{&r.Created, &r.Updated, &r.Pushed} {
		if t.IsZero() {
			*t = year
		}
	}
	if r.DefaultBranch == "" {
		r.DefaultBranch = "main"
	}
	w.repos[r.ID] = &r
	return r
}

// Grow adds n repositories "repo-0001" and so on to an owner, of every sort: private, archived, forks, empty ones, with and without
// wikis, starred, in several languages.
func (w *World) Grow(owner string, n int) []Repo {
	languages := []string{"Go", "Python", "", "C++"}
	var all []Repo
	for i := range n {
		all = append(all, w.Add(Repo{
			Owner: owner, Name: fmt.Sprintf("repo-%04d", i+1), Description: fmt.Sprintf("the %d. <of> them & \"more\"", i+1),
			Private: i%3 == 1, Fork: i%7 == 2, Archived: i%11 == 3, Empty: i%13 == 4, Wiki: i%2 == 0,
			Stars: i % 17, Language: languages[i%len(languages)], Size: int64(i+1) << 10,
		}))
	}
	return all
}

// Change applies f to a repository.
func (w *World) Change(id int64, f func(r *Repo)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.repos[id]
	before := r.FullName()
	f(r)
	w.addOwner(r.Owner)
	if r.FullName() != before {
		w.former[before] = id
	}
	delete(w.former, r.FullName())
}

// Rename gives a repository another name. Its old one still leads to it.
func (w *World) Rename(id int64, name string) { w.Change(id, func(r *Repo) { r.Name = name }) }

// Transfer gives a repository to another owner. Its old name still leads to it.
func (w *World) Transfer(id int64, owner string) { w.Change(id, func(r *Repo) { r.Owner = owner }) }

// Push moves a repository's time of the last push to now.
func (w *World) Push(id int64) {
	w.Change(id, func(r *Repo) { r.Pushed = w.Now().UTC().Truncate(time.Second); r.Updated = r.Pushed })
}

// Delete removes a repository for good.
func (w *World) Delete(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.repos, id)
	maps.DeleteFunc(w.former, func(_ string, former int64) bool { return former == id })
}

// All lists all repositories by ID.
func (w *World) All() []Repo { return w.where(func(Repo) bool { return true }) }

// Of lists the repositories of an owner by ID; with below also those of its subgroups.
func (w *World) Of(owner string, below bool) []Repo {
	return w.where(func(r Repo) bool { return r.Owner == owner || (below && strings.HasPrefix(r.Owner, owner+"/")) })
}

func (w *World) where(f func(Repo) bool) []Repo {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Repo
	for _, r := range w.repos {
		if f(*r) {
			all = append(all, *r)
		}
	}
	slices.SortFunc(all, func(a, b Repo) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// ByID finds a repository.
func (w *World) ByID(id int64) (Repo, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.repos[id]; ok {
		return *r, true
	}
	return Repo{}, false
}

// ByName finds a repository by "owner/name"; moved tells that this is its name no more.
func (w *World) ByName(full string) (r Repo, moved, found bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.repos {
		if r.FullName() == full {
			return *r, false, true
		}
	}
	if r, ok := w.repos[w.former[full]]; ok {
		return *r, true, true
	}
	return Repo{}, false, false
}

// AddIssues gives a repository n issues, every third closed.
func (w *World) AddIssues(id int64, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		number := int64(len(w.issues[id]) + 1)
		w.issues[id] = append(w.issues[id], Issue{
			Number: number, Title: fmt.Sprintf("issue %d", number), Body: "it does not work", Closed: number%3 == 0,
			Updated: w.Now().AddDate(0, -1, 0).UTC().Truncate(time.Second).Add(time.Duration(number) * time.Second),
		})
	}
}

// Issues lists a repository's issues by number.
func (w *World) Issues(id int64) []Issue {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.issues[id])
}

// Token is what the world says of its token.
func (w *World) Token() Credentials {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

// SetToken changes what the world says of its token.
func (w *World) SetToken(c Credentials) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = c
}
