package git

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/scratchdir"
)

// RadicleOptions says how repositories go to the Radicle node of this machine. Its programs, rad and git-remote-rad, must be in PATH.
// They find the node's home and its passphrase in RAD_HOME and RAD_PASSPHRASE.
type RadicleOptions struct {
	Force   bool     // overwrite refs that are no ancestors of the point's
	Prune   bool     // delete branches and tags that the point has not
	Scratch string   // directory for scratch files; "" for the system's
	Env     []string // environment, "NAME=value"; nil for the process's own
	Limits  Limits
	Observe point.Observer
}

// RadicleRepository is what a new repository on Radicle is to be called.
type RadicleRepository struct {
	Source      string // where it comes from, by which it is found again: "https://github.com/acme/api"; no secrets, for nodes publish it
	Name        string
	Description string
	Private     bool
	Part        string // name of the part, for progress
}

// RadicleReport is what became of a repository.
type RadicleReport struct {
	ID        string // Radicle's own: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5"
	New       bool
	Unchanged bool
	Notes     []string
}

// Radicle copies repositories to the Radicle node of this machine. It is for one run: it looks at what the node has once. Safe for
// concurrent use; repositories are pushed one after the other.
//
// No Radicle could be had to check it: it was tried against programs of the same names that do as little of their documented work as
// is needed.
type Radicle struct {
	o    RadicleOptions
	mu   sync.Mutex
	node string            // ID of the node, once asked for
	ids  map[string]string // repositories by source
}

// NewRadicle makes a Radicle. It runs nothing.
func NewRadicle(o RadicleOptions) *Radicle {
	if o.Env == nil {
		o.Env = os.Environ()
	}
	return &Radicle{o: o}
}

// nodeForm and idForm are multibase keys and identifiers. What else a program prints becomes no argument of another.
var (
	nodeForm = regexp.MustCompile(`^z[1-9A-HJ-NP-Za-km-z]{1,100}$`)
	idForm   = regexp.MustCompile(`^(?:rad:)?(z[1-9A-HJ-NP-Za-km-z]{1,100})$`)
)

// Push makes the node's copy what the point holds: branches and tags, and the repository itself where the node has none of this
// source. r is opened on the repository's part. Afterwards the copy's refs are compared with the point's: those that differ make the
// error fault.ErrIncomplete and are named.
func (r *Radicle) Push(ctx context.Context, from point.Reader, repository RadicleRepository) (*RadicleReport, error) {
	op := "push " + printable(repository.Source) + " to Radicle"
	r.mu.Lock()
	defer r.mu.Unlock()
	l, err := ReadRefs(ctx, from)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := r.meet(ctx); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	p := &radiclePush{r: r, from: from, what: repository, wanted: radicleRefs(l), head: l.find(head)}
	err = p.run(ctx)
	return &p.report, fault.Wrap(op, nil, err, "")
}

// radicleRefs are the refs that go to Radicle.
func radicleRefs(l *RefList) map[string]string {
	wanted := map[string]string{}
	for _, r := range l.Refs {
		if r.Target == "" && (strings.HasPrefix(r.Name, "refs/heads/") || strings.HasPrefix(r.Name, "refs/tags/")) {
			wanted[r.Name] = r.OID
		}
	}
	return wanted
}

// meet finds the node, and what it has.
func (r *Radicle) meet(ctx context.Context) error {
	if r.ids != nil {
		return nil
	}
	for _, program := range []string{"rad", "git-remote-rad"} {
		if _, err := lookPath(program, r.o.Env); err != nil {
			return fault.New("", fault.ErrUnsupported, program+" is not installed", "install Radicle and make sure that rad and git-remote-rad are in PATH")
		}
	}
	node, err := r.rad(ctx, "", "self", "--nid")
	if err != nil {
		return err
	}
	if !nodeForm.MatchString(node) {
		return fault.New("", fault.ErrUnsupported, "rad self --nid gives no ID of a node", "make an identity with `rad auth`")
	}
	r.node = node
	r.ids, err = r.copies(ctx)
	return err
}

// lookPath finds a program in the PATH of an environment.
func lookPath(program string, env []string) (string, error) {
	for _, dir := range filepath.SplitList(Options{Env: env}.env("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// maxRadicle is how many repositories of a node are looked at.
const maxRadicle = 100_000

// copies finds the repositories of the node that are copies which this node's own key vouches for, by source.
func (r *Radicle) copies(ctx context.Context) (map[string]string, error) {
	home, err := r.rad(ctx, "", "self", "--home")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(home, "storage"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap("read what the node has", nil, err, "")
	}
	ids := map[string]string{}
	for _, e := range entries[:min(len(entries), maxRadicle)] {
		m := idForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		payload, err := r.rad(ctx, "", "inspect", "rad:"+m[1], "--payload")
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		source := sourceIn(payload)
		if err != nil || source == "" || !r.vouches(ctx, m[1]) { // somebody else's, or still being fetched
			continue
		}
		if other := ids[source]; other != "" {
			return nil, fault.New("", fault.ErrExists, "the node has two copies of "+printable(source)+": rad:"+other+" and rad:"+m[1], "remove one of them")
		}
		ids[source] = m[1]
	}
	return ids, nil
}

// vouches reports whether the node is a delegate of a repository: anybody can say of a repository of theirs that it is a copy.
func (r *Radicle) vouches(ctx context.Context, id string) bool {
	delegates, err := r.rad(ctx, "", "inspect", "rad:"+id, "--delegates")
	return err == nil && slices.ContainsFunc(strings.Split(delegates, "\n"), func(line string) bool {
		words := strings.Fields(line)
		return len(words) > 0 && words[0] == "did:key:"+r.node
	})
}

// copyMark ends the description of a copy. It is there from the moment that the repository is made, so no crash makes a second one.
const copyMark = "(mirror of "

// sourceIn reads from a repository's identity where it comes from; "" for one that is no copy. Copies that gickup made say it in a
// field of their own as well.
func sourceIn(payload string) string {
	var p struct {
		Project struct {
			Description string `json:"description"`
		} `json:"xyz.radicle.project"`
		Gickup struct {
			Source string `json:"source"`
		} `json:"dev.gickup"`
	}
	if json.Unmarshal([]byte(payload), &p) != nil {
		return ""
	}
	at := strings.LastIndex(p.Project.Description, copyMark)
	if source, ended := strings.CutSuffix(p.Project.Description, ")"); at >= 0 && ended {
		return source[at+len(copyMark):]
	}
	return p.Gickup.Source
}

// radiclePush is the push of one repository.
type radiclePush struct {
	r      *Radicle
	from   point.Reader
	what   RadicleRepository
	wanted map[string]string // refs
	head   *Ref
	report RadicleReport
}

func (p *radiclePush) run(ctx context.Context) error {
	p.noteLFS(ctx)
	if len(p.wanted) == 0 {
		p.report.Unchanged = true
		p.report.Notes = append(p.report.Notes, "it is empty, and Radicle takes no repository without commits")
		return nil
	}
	if id := p.r.ids[p.what.Source]; id != "" {
		p.report.ID = "rad:" + id
		there, err := p.there(ctx)
		if err != nil {
			return err
		}
		if len(p.differing(there)) == 0 {
			p.report.Unchanged = true
			return nil
		}
	}
	dir, err := scratchdir.New(p.r.o.Scratch, scratchPrefix)
	if err != nil {
		return scratchError("make scratch directory", err)
	}
	defer dir.Remove()
	repository := filepath.Join(dir.Path, "repository.git")
	restore := RestoreOptions{NoLFS: true, Limits: p.r.o.Limits, Part: p.what.Part, Observe: p.r.o.Observe}
	if err := RestoreBare(ctx, p.from, repository, restore); err != nil {
		return err
	}
	if p.report.ID == "" {
		if err := p.init(ctx, repository); err != nil {
			return err
		}
	} else if p.r.o.Force || p.r.o.Prune {
		// Radicle signs all of a repository's refs anew and wants to find the objects of the old ones.
		if err := p.git(ctx, repository, "fetch", "--quiet", "--no-tags", p.address(), "+refs/heads/*:refs/before/heads/*", "+refs/tags/*:refs/before/tags/*"); err != nil {
			return err
		}
	}
	return p.push(ctx, repository)
}

func (p *radiclePush) noteLFS(ctx context.Context) {
	if f, err := p.from.Open(ctx, "lfs/"+lfsFile); err == nil {
		f.Close()
		p.report.Notes = append(p.report.Notes, "Radicle takes no Git LFS objects: those stay behind")
	}
}

// address is that of this node's own view of the repository.
func (p *radiclePush) address() string {
	return "rad://" + strings.TrimPrefix(p.report.ID, "rad:") + "/" + p.r.node
}

// init makes the repository on the node.
func (p *radiclePush) init(ctx context.Context, repository string) error {
	branch := p.branch()
	if branch == "" {
		return fault.New("", fault.ErrUnsupported, "it has no branch, and Radicle takes no repository without", "")
	}
	visibility := "--public"
	if p.what.Private {
		visibility = "--private"
	}
	description := strings.TrimSpace(printable(p.what.Description) + " " + copyMark + p.what.Source + ")")
	_, err := p.r.rad(ctx, repository, "init", "--name="+p.what.Name, "--description="+description, "--default-branch="+branch, visibility, "--no-confirm")
	if err != nil {
		return err
	}
	said, err := p.r.rad(ctx, repository, ".")
	if err != nil {
		return err
	}
	m := idForm.FindStringSubmatch(said)
	if m == nil {
		return fault.New("", fault.ErrUnsupported, "rad names no repository after it made one", "")
	}
	p.r.ids[p.what.Source] = m[1]
	p.report.ID, p.report.New = "rad:"+m[1], true
	return nil
}

// branch is the one that HEAD names, or any where it names none that is there.
func (p *radiclePush) branch() string {
	if p.head != nil && p.wanted[p.head.Target] != "" {
		return strings.TrimPrefix(p.head.Target, "refs/heads/")
	}
	var branches []string
	for name := range p.wanted {
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			branches = append(branches, branch)
		}
	}
	if len(branches) == 0 {
		return ""
	}
	return slices.Min(branches)
}

// push sends branches and tags, and compares. What is refused is found by the comparison.
func (p *radiclePush) push(ctx context.Context, repository string) error {
	args := []string{"push", "--quiet", "--no-verify"}
	if p.r.o.Prune {
		args = append(args, "--prune")
	}
	force := ""
	if p.r.o.Force {
		force = "+"
	}
	args = append(args, p.address(), force+"refs/heads/*:refs/heads/*", force+"refs/tags/*:refs/tags/*")
	pushed := p.git(ctx, repository, args...)
	var failed *programError
	if pushed != nil && !errors.As(pushed, &failed) {
		return pushed
	}
	there, err := p.there(ctx)
	if err != nil {
		return errors.Join(pushed, err)
	}
	differ := p.differing(there)
	if len(differ) == 0 {
		return nil
	}
	cause := fmt.Sprintf("the node did not take %d of %d refs: %s", len(differ), len(p.wanted), nameSome(differ))
	if failed != nil && failed.said != "" {
		cause += " (" + failed.said + ")"
	}
	return fault.New("", fault.ErrIncomplete, cause, "")
}

// there reads the refs of the copy.
func (p *radiclePush) there(ctx context.Context) (map[string]string, error) {
	cmd := p.r.gitCommand(ctx, "", "ls-remote", "--quiet", "--refs", p.address(), "refs/heads/*", "refs/tags/*")
	said, err := p.r.output(cmd)
	if err != nil {
		return nil, err
	}
	there := map[string]string{}
	for line := range strings.SplitSeq(said, "\n") {
		if oid, name, ok := strings.Cut(line, "\t"); ok {
			there[name] = oid
		}
	}
	return there, nil
}

// differing lists the refs that the copy lacks or has otherwise, and, where those go, those that it has too many.
func (p *radiclePush) differing(there map[string]string) []string {
	var differ []string
	for name, oid := range p.wanted {
		if there[name] != oid {
			differ = append(differ, name)
		}
	}
	for name := range there {
		if p.r.o.Prune && p.wanted[name] == "" {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	return differ
}

func (p *radiclePush) git(ctx context.Context, repository string, args ...string) error {
	_, err := p.r.output(p.r.gitCommand(ctx, repository, args...))
	return err
}

// gitCommand prepares git, which may run Radicle's helper and nothing else.
func (r *Radicle) gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := gitCommand(ctx, dir, args...)
	cmd.Env = append(cmd.Env, r.environ()...)
	addConfig(cmd, "protocol.rad.allow", "always")
	return cmd
}

// rad runs rad in a directory, and returns what it prints.
func (r *Radicle) rad(ctx context.Context, dir string, args ...string) (string, error) {
	path, err := lookPath("rad", r.o.Env)
	if err != nil {
		return "", fault.Wrap("rad", fault.ErrUnsupported, err, "")
	}
	cmd := command(ctx, path, args...)
	cmd.Args[0] = "rad"
	cmd.Dir = dir
	if dir == "" {
		cmd.Dir = string(os.PathSeparator)
	}
	cmd.Env = append(cleanEnviron(nil), r.environ()...)
	return r.output(cmd)
}

// environ is what Radicle's programs need, and no more.
func (r *Radicle) environ() []string {
	env := neededEnviron(r.o.Env)
	for _, kv := range r.o.Env {
		if strings.HasPrefix(kv, "RAD_") {
			env = append(env, kv)
		}
	}
	return env
}

// output runs a program and returns what it prints, without space around it. Errors do not hold the passphrase.
func (r *Radicle) output(cmd *exec.Cmd) (string, error) {
	var out boundedBuffer
	cmd.Stdout = &out
	err := run(cmd, 0, fault.Secret(Options{Env: r.o.Env}.env("RAD_PASSPHRASE")))
	return strings.TrimSpace(out.kept.String()), err
}

// boundedBuffer takes what a program prints, up to a limit.
type boundedBuffer struct{ kept bytes.Buffer }

// Write fails for what is beyond the limit, which ends the program.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	const most = 64 << 20
	if b.kept.Len()+len(p) > most {
		return 0, fault.New("", fault.ErrRefused, "it prints more than 64 MiB", "")
	}
	return b.kept.Write(p)
}
