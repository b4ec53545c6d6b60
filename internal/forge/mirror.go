package forge

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

// WikiMaker readies the wiki of a repository for a push. It is for forges where the wiki of a new repository cannot be pushed as it is.
type WikiMaker interface {
	MakeWiki(ctx context.Context, r Repository) (NewWiki, error)
}

// NewWiki is a wiki that can be pushed.
type NewWiki struct {
	HTTPURL, SSHURL string
	Branch          string // that the forge shows; "" where any will do
	Fresh           bool   // it holds nothing but what the forge began it with
}

// GitAccess says what git over https is to answer when the forge asks. Both are "" where nothing is known.
type GitAccess interface {
	GitCredentials(ctx context.Context) (username string, password fault.Secret, err error)
}

// MirrorOptions says where live copies go, and how.
type MirrorOptions struct {
	To Provider // a Maker; for Pull a Puller

	Owner           string // of the copies; "" for the account that To is asked as
	Structured      bool   // each owner of a source keeps its own, as an organisation or group
	Nested          bool   // groups of To have groups: "group/subgroup" stays as it is, and becomes "group-subgroup" elsewhere
	MakeOwners      bool   // make owners that are not there
	Visibility      string // of the repositories, as NewRepository has it; "" for private
	OwnerVisibility string

	LFS      bool
	Force    bool          // overwrite refs at the target that are no ancestors of the source's
	Interval time.Duration // between pulls; 0 for the forge's default
	SSH      bool          // push over ssh

	Git     git.Options // how git reaches the target; without a Password, with To's own credentials
	Observe point.Observer
}

// Mirror makes live copies of repositories on another forge. It is for one run: it remembers which source took which name. Safe for
// concurrent use.
type Mirror struct {
	o     MirrorOptions
	maker Maker

	mu     sync.Mutex
	taken  map[string]string // sources by target, both "owner/name"
	owners map[string]bool   // those that are there
}

// MirrorReport is what became of one repository.
type MirrorReport struct {
	Unchanged bool // the target had all of it already
	Notes     []string
}

// NewMirror makes a Mirror. It sends nothing.
func NewMirror(o MirrorOptions) (*Mirror, error) {
	maker, ok := o.To.(Maker)
	if !ok {
		return nil, fault.New("mirror to "+o.To.Host(), fault.ErrUnsupported, "repositories cannot be made there", "")
	}
	return &Mirror{o: o, maker: maker, taken: map[string]string{}, owners: map[string]bool{}}, nil
}

// descriptionOf marks a copy as one of source, "github.com/acme/api".
func descriptionOf(source string) string { return describes + source }

const describes = "Mirror of "

// place is where a part comes from and goes to.
type place struct {
	source      string // "github.com/acme/api"
	owner, name string // of the copy
	wiki        bool
}

// Push makes the target's repository what the part holds, and the repository itself where it is missing. from is opened on the part.
// Refs that the source has no more stay. Two sources that would take one name are refused (fault.ErrExists), as is a repository that
// says that it is a copy of another source. A wiki goes to the wiki of its repository's copy; where the forge has none that git can
// push, a note says so.
func (m *Mirror) Push(ctx context.Context, from point.Reader, part point.Part) (*MirrorReport, error) {
	op := "mirror " + part.Name + " to " + m.o.To.Host()
	at, err := m.place(part.Name)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	refs, err := git.ReadRefs(ctx, from)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	main := defaultBranch(refs)
	made, err := m.make(ctx, at, main)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	o := git.PushOptions{
		Options: m.o.Git, Update: true, Force: m.o.Force, NoLFS: !m.o.LFS, Part: part.Name, Observe: m.o.Observe,
	}
	address := m.choose(made.HTTPURL, made.SSHURL)
	if at.wiki {
		wiki, err := m.makeWiki(ctx, made)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		if address = m.choose(wiki.HTTPURL, wiki.SSHURL); address == "" {
			return &MirrorReport{Unchanged: true, Notes: []string{part.Name + ": the forge has no wikis that can be pushed"}}, nil
		}
		o.Force = o.Force || wiki.Fresh
		o.Rename = shown(refs, main, wiki.Branch)
	}
	report, err := m.push(ctx, from, address, o)
	return report, fault.Wrap(op, nil, err, "")
}

// Repository makes the repository of a part's copy, or finds it. part is named as for Push.
func (m *Mirror) Repository(ctx context.Context, part string) (Repository, error) {
	at, err := m.place(part)
	if err == nil {
		var made Repository
		if made, err = m.make(ctx, at, ""); err == nil {
			return made, nil
		}
	}
	return Repository{}, fault.Wrap("restore "+part+" to "+m.o.To.Host(), nil, err, "")
}

func (m *Mirror) push(ctx context.Context, from point.Reader, address string, o git.PushOptions) (*MirrorReport, error) {
	if address == "" {
		return nil, fault.New("", fault.ErrUnsupported, "the forge gives no address to push to", "")
	}
	if access, ok := m.o.To.(GitAccess); ok && o.Password == "" && o.Credentials == nil {
		o.Credentials = access.GitCredentials
	}
	pushed, err := git.Push(ctx, from, address, o)
	if err != nil {
		hint := ""
		if errors.Is(err, fault.ErrIncomplete) && !o.Force {
			hint = "the copy has commits that the source has not: force overwrites them"
		}
		return nil, fault.Wrap("", nil, err, hint)
	}
	return &MirrorReport{Unchanged: pushed.Pushed == 0, Notes: pushed.Notes}, nil
}

// Pull lets the target pull a repository of the forge host by itself, with the given credentials, which that forge then keeps.
func (m *Mirror) Pull(ctx context.Context, host string, r Repository, username string, password fault.Secret) (*MirrorReport, error) {
	op := "mirror " + host + "/" + r.FullName() + " to " + m.o.To.Host()
	puller, ok := m.o.To.(Puller)
	if !ok {
		return nil, fault.New(op, fault.ErrUnsupported, "it does not pull by itself", "mirror by pushing")
	}
	if !strings.HasPrefix(r.HTTPURL, "https://") && !strings.HasPrefix(r.HTTPURL, "http://") {
		return nil, fault.New(op, fault.ErrUnsupported, "the source has no address for git over https", "mirror by pushing")
	}
	at, err := m.place("git/" + host + "/" + r.FullName() + ".git")
	if err == nil {
		err = m.claim(ctx, at)
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	err = puller.PullMirror(ctx, PullMirror{
		NewRepository: NewRepository{
			Owner: at.owner, Name: at.name, Description: descriptionOf(at.source), DefaultBranch: r.DefaultBranch, Visibility: m.o.Visibility,
		},
		From: r.HTTPURL, Username: username, Password: password, Interval: m.o.Interval, LFS: m.o.LFS, Wiki: r.WikiHTTPURL != "",
	})
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return &MirrorReport{}, nil
}

// place derives from a part's name, git/<host>/<owner…>/<name>.git, where its copy goes.
func (m *Mirror) place(part string) (place, error) {
	inner, isGit := strings.CutPrefix(part, "git/")
	inner, isBare := strings.CutSuffix(inner, ".git")
	segments := strings.Split(inner, "/")
	if !isGit || !isBare || len(segments) < 2 {
		return place{}, fault.New("", fault.ErrUnsupported, "it is no repository", "")
	}
	var at place
	inner, at.wiki = strings.CutSuffix(inner, ".wiki")
	at.source = inner
	segments = strings.Split(inner, "/")
	owner, name := segments[1:len(segments)-1], segments[len(segments)-1]
	if len(owner) > 1 && owner[len(owner)-1] == "gists" {
		owner, name = owner[:len(owner)-1], "gist-"+name
	}
	at.owner, at.name = m.o.Owner, safeName(name)
	if m.o.Structured && len(owner) > 0 {
		between := "-"
		if m.o.Nested {
			between = "/"
		}
		for i := range owner {
			owner[i] = safeName(owner[i])
		}
		at.owner = strings.Join(owner, between)
	}
	return at, nil
}

// safeName makes a name of what all forges take: letters and digits of ASCII, "-", "_" and ".", and no dot at the beginning. s is a
// segment of a part's name.
func safeName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, strings.TrimLeft(unescaped(s), "~."))
	if s == "" {
		return "-"
	}
	return s
}

// claim takes the name of a copy for its source, and makes the owner where that is wanted.
func (m *Mirror) claim(ctx context.Context, at place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	target := strings.ToLower(at.owner + "/" + at.name)
	if other, taken := m.taken[target]; taken && other != at.source {
		return errTaken(at, other)
	}
	m.taken[target] = at.source
	if !m.o.MakeOwners || at.owner == "" || m.owners[at.owner] {
		return nil
	}
	if err := m.maker.MakeOwner(ctx, at.owner, m.o.OwnerVisibility); err != nil { // others wait: most will want the same owner
		return err
	}
	m.owners[at.owner] = true
	return nil
}

func errTaken(at place, other string) error {
	return fault.New("", fault.ErrExists, "both "+other+" and "+at.source+" would be "+strings.TrimPrefix(at.owner+"/"+at.name, "/"),
		"keep the owners of the sources (keepOwners), or choose another owner for one of them")
}

// make makes the copy's repository, or finds it.
func (m *Mirror) make(ctx context.Context, at place, main string) (Repository, error) {
	if err := m.claim(ctx, at); err != nil {
		return Repository{}, err
	}
	n := NewRepository{Owner: at.owner, Name: at.name, Description: descriptionOf(at.source), Visibility: m.o.Visibility}
	if !at.wiki {
		n.DefaultBranch = main
	}
	made, err := m.maker.Make(ctx, n)
	if err != nil {
		return made, err
	}
	if other, marked := strings.CutPrefix(made.Description, describes); marked && other != at.source {
		return made, errTaken(at, other)
	}
	return made, n.RefusePublic(made)
}

// makeWiki readies the wiki of a copy. Its addresses are "" where the forge has none that git can push.
func (m *Mirror) makeWiki(ctx context.Context, made Repository) (NewWiki, error) {
	if wikis, ok := m.o.To.(WikiMaker); ok {
		return wikis.MakeWiki(ctx, made)
	}
	return NewWiki{HTTPURL: made.WikiHTTPURL, SSHURL: made.WikiSSHURL}, nil
}

// choose takes the address over ssh where that is wanted, or the only one.
func (m *Mirror) choose(http, ssh string) string {
	if m.o.SSH || http == "" {
		return ssh
	}
	return http
}

// defaultBranch is the branch that HEAD names, "" for none.
func defaultBranch(l *git.RefList) string {
	for _, r := range l.Refs {
		if branch, ok := strings.CutPrefix(r.Target, "refs/heads/"); ok && r.Name == "HEAD" {
			return branch
		}
	}
	return ""
}

// shown makes the default branch the one that a forge shows, where that is another one and free.
func shown(l *git.RefList, main, branch string) map[string]string {
	ours, theirs := "refs/heads/"+main, "refs/heads/"+branch
	taken := func(r git.Ref) bool { return r.Name == theirs }
	if main == "" || branch == "" || slices.ContainsFunc(l.Refs, taken) {
		return nil
	}
	return map[string]string{ours: theirs}
}
