package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/scratchdir"
)

// PushOptions says how a stored repository is pushed. The zero value pushes all refs that servers take to one that is empty,
// or has some of them already.
type PushOptions struct {
	Options
	Refs         []string          // full names, or patterns that end in "/*"; none means all
	PullRequests bool              // push the heads of pull and merge requests, too, as refs/heads/backup-pr/<number>
	Force        bool              // push also where the target has other refs: those of the same name are overwritten, others stay
	Update       bool              // push also where the target has other refs, but overwrite none that is no ancestor
	Rename       map[string]string // full names of refs that go by another one at the target, with that
	NoLFS        bool              // leave Git LFS objects out
	Scratch      string            // directory for scratch files; "" for the system's
	Limits       Limits
	Part         string // name of the part, for progress
	Observe      point.Observer
}

// PushReport is what Push did.
type PushReport struct {
	Pushed  int      // refs
	There   int      // refs that the target had already
	Skipped []string // refs that servers do not take, each with the reason
	Notes   []string // what is left to do
}

// Push makes the repository at raw, a URL or path, what the point holds: LFS objects first, then the refs, the default branch
// before all others. Afterwards the target's refs are compared with the point's: those that differ make the error
// fault.ErrIncomplete and are named. A target that has other refs is refused. r is opened on the repository's part.
func Push(ctx context.Context, r point.Reader, raw string, o PushOptions) (*PushReport, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	op := "push to " + u.String()
	l, err := ReadRefs(ctx, r)
	if err == nil {
		l, err = chooseRefs(l, o.Refs)
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	p := &push{o: o, url: u, from: r, refs: l, report: &PushReport{}}
	p.plan()
	return p.report, fault.Wrap(op, nil, p.run(ctx), "")
}

// push is one run of Push.
type push struct {
	o      PushOptions
	url    *URL
	from   point.Reader
	refs   *RefList
	wanted []Ref // as they shall be at the target, the default branch first
	report *PushReport
	said   []string // what git said about refs that were not taken
}

// pullRequest matches the names under which forges keep the heads of pull and merge requests.
var pullRequest = regexp.MustCompile(`^refs/(?:pull|merge-requests|pull-requests)/([0-9]+)/(?:head|from)$`)

// hiddenRefs begin the names that forges keep for themselves and let nobody push.
func hiddenRefs() []string {
	return []string{"refs/pull/", "refs/merge-requests/", "refs/pull-requests/", "refs/keep-around/", "refs/environments/", "refs/pipelines/", "refs/remotes/"}
}

func hidden(name string) bool {
	for _, prefix := range hiddenRefs() {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// plan decides which refs are pushed and in which order: the default branch, the other branches, tags, all else.
func (p *push) plan() {
	main := ""
	if h := p.refs.find(head); h != nil {
		main = h.Target
	}
	var groups [4][]Ref
	for _, r := range p.refs.Refs {
		name, why := p.targetName(r)
		if why != "" {
			p.report.Skipped = append(p.report.Skipped, printable(r.Name)+": "+why)
			continue
		}
		group := 3
		switch {
		case name == "":
			continue
		case r.Name == main:
			group = 0
		case strings.HasPrefix(name, "refs/heads/"):
			group = 1
		case strings.HasPrefix(name, "refs/tags/"):
			group = 2
		}
		groups[group] = append(groups[group], Ref{Name: name, OID: r.OID})
	}
	for _, g := range groups {
		p.wanted = append(p.wanted, g...)
	}
}

// targetName is the name of a ref at the target, or why there is none. Both are empty for HEAD, which servers set themselves.
func (p *push) targetName(r Ref) (name, why string) {
	switch number := pullRequest.FindStringSubmatch(r.Name); {
	case r.Name == head:
		return "", ""
	case r.Target != "":
		return "", "a symbolic ref cannot be pushed"
	case p.o.Rename[r.Name] != "":
		return p.o.Rename[r.Name], ""
	case number != nil && p.o.PullRequests:
		name = "refs/heads/backup-pr/" + number[1]
		if p.refs.find(name) != nil {
			return "", name + " is a branch of the point already"
		}
		return name, ""
	case number != nil:
		return "", "servers make such refs themselves; ask for pull requests to push it as a branch"
	case hidden(r.Name):
		return "", "servers keep such refs to themselves"
	}
	return r.Name, ""
}

func (p *push) run(ctx context.Context) error {
	before, err := p.targetRefs(ctx)
	if err != nil {
		return err
	}
	todo, err := p.lacking(before)
	if err != nil {
		return err
	}
	p.report.There = len(p.wanted) - len(todo)
	if err := p.uploadLFS(ctx); err != nil {
		return err
	}
	if len(todo) == 0 {
		return p.compare(before)
	}
	if err := p.pushRefs(ctx, todo); err != nil {
		return err
	}
	after, err := p.targetRefs(ctx)
	if err != nil {
		return err
	}
	return p.compare(after)
}

// dial opens a connection for one purpose.
func (p *push) dial(ctx context.Context, use func(*Remote) error) error {
	remote, err := Dial(ctx, p.url, p.o.Options)
	if err != nil {
		return err
	}
	defer remote.Close() //nolint:errcheck // all that was wanted has arrived
	return use(remote)
}

// targetRefs asks the target for its refs.
func (p *push) targetRefs(ctx context.Context) (l *RefList, err error) {
	err = p.dial(ctx, func(remote *Remote) error {
		l, err = remote.ListRefs(ctx)
		return err
	})
	if err == nil && l.Format != p.refs.Format && len(l.Refs) > 0 {
		err = fault.New("", fault.ErrRefused, fmt.Sprintf("the target's object format is %s, the point's %s", l.Format, p.refs.Format), "")
	}
	return l, err
}

// lacking returns the wanted refs that the target does not have. It refuses a target that has others, unless told to go on.
func (p *push) lacking(target *RefList) ([]Ref, error) {
	wanted := map[string]string{}
	for _, r := range p.wanted {
		wanted[r.Name] = r.OID
	}
	var others []string
	there := map[string]bool{}
	for _, r := range target.Refs {
		switch {
		case r.Name == head || hidden(r.Name):
		case wanted[r.Name] == r.OID:
			there[r.Name] = true
		default:
			others = append(others, r.Name)
		}
	}
	if len(others) > 0 && !p.o.Force && !p.o.Update {
		return nil, fault.New("", fault.ErrRefused, "the target has refs that the point does not have so: "+nameSome(others), "push to an empty repository, or use --force to overwrite refs of the same name")
	}
	var todo []Ref
	for _, r := range p.wanted {
		if !there[r.Name] {
			todo = append(todo, r)
		}
	}
	return todo, nil
}

// nameSome names the first few of a list.
func nameSome(names []string) string {
	const few = 10
	shown := names[:min(len(names), few)]
	text := printable(strings.Join(shown, ", "))
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// uploadLFS sends the LFS objects of the point straight from the vault.
func (p *push) uploadLFS(ctx context.Context) error {
	if p.o.NoLFS {
		return nil
	}
	raw, err := readAll(ctx, p.from, "lfs/"+lfsFile, maxPointerList)
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	all, missing, err := decodePointers(raw)
	if err != nil {
		return err
	}
	var have []Pointer
	for _, pointer := range all {
		if !missing[pointer.OID] {
			have = append(have, pointer)
		}
	}
	if len(missing) > 0 {
		p.report.Notes = append(p.report.Notes, fmt.Sprintf("%d LFS objects were missing at the source and are not in the point", len(missing)))
	}
	if len(have) == 0 {
		return nil
	}
	return p.dial(ctx, func(remote *Remote) error {
		return remote.LFSUpload(ctx, have, func(pointer Pointer) (io.ReadCloser, error) {
			return p.from.Open(ctx, "lfs/"+objectPath(pointer.OID))
		})
	})
}

// pushRefs restores the repository into a scratch directory and pushes from there.
func (p *push) pushRefs(ctx context.Context, todo []Ref) error {
	dir, err := scratchdir.New(p.o.Scratch, scratchPrefix)
	if err != nil {
		return scratchError("make scratch directory", err)
	}
	defer dir.Remove()
	repository := filepath.Join(dir.Path, "repository.git")
	restore := RestoreOptions{Refs: p.o.Refs, NoLFS: true, Limits: p.o.Limits, Part: p.o.Part, Observe: p.o.Observe}
	if err := RestoreBare(ctx, p.from, repository, restore); err != nil {
		return err
	}
	done := 0
	for _, batch := range batches(todo) {
		if err := p.pushBatch(ctx, repository, batch); err != nil {
			return err
		}
		done += len(batch)
		if p.o.Observe != nil {
			p.o.Observe(point.Event{Part: p.o.Part, What: "pushing", Done: int64(done), Total: int64(len(todo)), Unit: "refs"})
		}
	}
	return nil
}

// batches divides refs so that each command line is one that every system takes. The first holds the default branch alone, for
// servers take the first branch they get for the default.
func batches(refs []Ref) [][]Ref {
	const (
		mostRefs  = 500
		mostBytes = 64 << 10
	)
	var all [][]Ref
	start, size := 0, 0
	for i, r := range refs {
		size += len(r.Name) + len(r.OID) + 2
		if i == start {
			continue
		}
		if start == 0 || i-start == mostRefs || size > mostBytes {
			all = append(all, refs[start:i])
			start, size = i, len(r.Name)+len(r.OID)+2
		}
	}
	return append(all, refs[start:])
}

// pushBatch pushes some refs. Refs that the target does not take are found by the comparison afterwards, not here.
func (p *push) pushBatch(ctx context.Context, repository string, refs []Ref) error {
	args := []string{"push", "--quiet", "--no-verify", "--no-signed", p.url.String()}
	for _, r := range refs {
		spec := r.OID + ":" + r.Name
		if p.o.Force {
			spec = "+" + spec
		}
		args = append(args, spec)
	}
	cmd := gitCommand(ctx, repository, args...)
	secrets, err := p.access(ctx, cmd)
	if err != nil {
		return err
	}
	err = run(cmd, 0, secrets...)
	var failed *programError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &failed) && failed.said != "":
		p.said = append(p.said, failed.said)
		return nil
	}
	return err
}

// access lets a git command reach the target: with credentials in its environment only, and without redirects, which could
// lead them elsewhere.
func (p *push) access(ctx context.Context, cmd *exec.Cmd) (secrets []fault.Secret, err error) {
	config := []string{"protocol." + p.url.Scheme + ".allow", "always", "http.followRedirects", "false", "push.negotiate", "false"}
	o := p.o.withDefaults()
	switch p.url.Scheme {
	case "http", "https":
		user, password, err := credentials(ctx, p.url, o)
		if err != nil {
			return nil, err
		}
		if password != "" {
			basic := basicAuth(user, password)
			config = append(config, "http."+p.url.String()+".extraHeader", "Authorization: Basic "+basic.Reveal())
			secrets = []fault.Secret{password, basic}
		}
		if o.CAFile != "" {
			config = append(config, "http.sslCAInfo", o.CAFile)
		}
		config = append(config, "http.sslVerify", strconv.FormatBool(!o.Insecure), "http.userAgent", o.UserAgent)
	case "ssh":
		args, err := sshArgs(o)
		if err != nil {
			return nil, err
		}
		command := sshCommand(o)
		for _, arg := range args {
			command += " " + quoteShell(arg)
		}
		cmd.Env = append(cmd.Env, "HOME="+o.env("HOME"), "GIT_SSH_VARIANT=ssh", "GIT_SSH_COMMAND="+command)
	}
	addConfig(cmd, config...)
	return secrets, nil
}

// sshCommand is ssh, or what the user has put in its place.
func sshCommand(o Options) string {
	for _, command := range []string{o.SSHCommand, o.env("GIT_SSH_COMMAND")} {
		if command != "" {
			return command
		}
	}
	if program := o.env("GIT_SSH"); program != "" {
		return quoteShell(program)
	}
	return "ssh"
}

// addConfig adds configuration to that which gitCommand gives by environment.
func addConfig(cmd *exec.Cmd, pairs ...string) {
	var before []string
	values := map[string]string{}
	for _, kv := range cmd.Env {
		name, value, _ := strings.Cut(kv, "=")
		values[name] = value
	}
	count, _ := strconv.Atoi(values["GIT_CONFIG_COUNT"]) // we wrote it; 0 where there is none
	for i := range count {
		n := strconv.Itoa(i)
		before = append(before, values["GIT_CONFIG_KEY_"+n], values["GIT_CONFIG_VALUE_"+n])
	}
	cmd.Env = append(cmd.Env, configEnviron(append(before, pairs...)...)...)
}

// compare tells how the target's refs differ from the point's in the end.
func (p *push) compare(after *RefList) error {
	there := map[string]string{}
	for _, r := range after.Refs {
		there[r.Name] = r.OID
	}
	var differ []string
	for _, r := range p.wanted {
		if there[r.Name] != r.OID {
			differ = append(differ, r.Name)
		}
	}
	p.report.Pushed = len(p.wanted) - p.report.There - len(differ)
	p.noteHead(after)
	if len(differ) == 0 {
		return nil
	}
	cause := fmt.Sprintf("the target did not take %d of %d refs: %s", len(differ), len(p.wanted), nameSome(differ))
	if len(p.said) > 0 {
		cause += " (" + p.said[0] + ")"
	}
	return fault.New("", fault.ErrIncomplete, cause, "")
}

// noteHead says so where the target's default branch is another than the point's: only the server's owner can set it.
func (p *push) noteHead(target *RefList) {
	ours, theirs := p.refs.find(head), target.find(head)
	if ours != nil && ours.Target == "" && !slices.ContainsFunc(p.wanted, func(r Ref) bool { return r.OID == ours.OID }) {
		p.report.Skipped = append(p.report.Skipped, "HEAD: it was detached at "+ours.OID+", which is the tip of no ref that was pushed; restore to a directory to have it")
	}
	if ours == nil || ours.Target == "" || (theirs != nil && (theirs.Target == ours.Target || theirs.Target == p.o.Rename[ours.Target])) {
		return
	}
	p.report.Notes = append(p.report.Notes, "the default branch was "+printable(strings.TrimPrefix(ours.Target, "refs/heads/"))+": set it at the target")
}
