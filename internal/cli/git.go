package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// Environment variables for git servers.
const (
	envGitUsername = "BACKSTAY_GIT_USERNAME"
	envGitPassword = "BACKSTAY_GIT_PASSWORD"
)

func (a *app) gitSource(repository string, o gitOptions, observe point.Observer) (*git.Source, error) {
	connection, err := a.gitConnection(o)
	if err != nil {
		return nil, err
	}
	return git.NewSource(repository, git.SourceOptions{
		Options: connection, Hostname: a.Getenv(envHostname), AllRefs: o.allRefs, SkipLFS: o.skipLFS, Observe: observe,
	})
}

// gitConnection says how git servers are reached.
func (a *app) gitConnection(o gitOptions) (git.Options, error) {
	connection := git.Options{
		Username:  a.Getenv(envGitUsername),
		Password:  fault.Secret(a.Getenv(envGitPassword)),
		CAFile:    o.caFile,
		UserAgent: "backstay/" + a.Version,
	}
	if o.tokenFile == "" {
		return connection, nil
	}
	var err error
	connection.Password, err = readPasswordFile(o.tokenFile)
	return connection, err
}

// pushers are the restorers to a URL.
func (a *app) pushers(o restoreOptions, observe point.Observer) (map[string]protect.Restorer, error) {
	if o.checkout {
		return nil, fault.New("restore", fault.ErrInvalid, "what is pushed to a URL cannot be checked out there", "drop --checkout")
	}
	connection, err := a.gitConnection(o.gitOptions)
	if err != nil {
		return nil, err
	}
	push := func(ctx context.Context, from point.Reader, part point.Part, to string) ([]string, error) {
		report, err := git.Push(ctx, from, to, git.PushOptions{
			Options: connection, Refs: o.refs, PullRequests: o.pullRequests, Force: o.force, Part: part.Name, Observe: observe,
		})
		if report == nil {
			return nil, err
		}
		return append(report.Skipped, report.Notes...), err
	}
	return map[string]protect.Restorer{point.KindGit: push}, nil
}

// diffRefs tells which refs of a repository came, went or moved.
func diffRefs(ctx context.Context, before, after point.Reader, tell func(protect.Change)) error {
	old, err := refValues(ctx, before)
	if err != nil {
		return err
	}
	fresh, err := refValues(ctx, after)
	if err != nil {
		return err
	}
	names := maps.Clone(old)
	maps.Copy(names, fresh)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := old[name], fresh[name]
		switch {
		case was == is:
		case was == "":
			tell(protect.Change{Item: name, What: "added", After: is})
		case is == "":
			tell(protect.Change{Item: name, What: "removed", Before: was})
		default:
			tell(protect.Change{Item: name, What: "changed", Before: was, After: is})
		}
	}
	return nil
}

// refValues are the object ids of a repository's refs, and the targets of symbolic ones.
func refValues(ctx context.Context, r point.Reader) (map[string]string, error) {
	list, err := git.ReadRefs(ctx, r)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(list.Refs))
	for _, ref := range list.Refs {
		values[ref.Name] = refValue(ref)
	}
	return values, nil
}

func refValue(r git.Ref) string {
	if r.Target != "" {
		return "-> " + r.Target
	}
	return r.OID
}

// shownRef is a ref of one of a point's repositories.
type shownRef struct {
	Part   string `json:"part"`
	Name   string `json:"name"`
	OID    string `json:"oid,omitempty"`    // "" for an unborn HEAD
	Target string `json:"target,omitempty"` // of a symbolic ref
}

// refsOf reads the refs of the repositories that a point holds.
func refsOf(ctx context.Context, parts []point.Part, tree point.Reader) ([]shownRef, error) {
	refs := []shownRef{}
	for _, p := range parts {
		if p.Kind != point.KindGit || (p.State != point.Stored && p.State != point.Carried) {
			continue
		}
		list, err := git.ReadRefs(ctx, protect.Within(tree, p.Name))
		if err != nil {
			return nil, err
		}
		for _, r := range list.Refs {
			refs = append(refs, shownRef{p.Name, r.Name, r.OID, r.Target})
		}
	}
	return refs, nil
}

// tellRefs prints refs as `git show-ref` does, with the part before them where there are several.
func (a *app) tellRefs(refs []shownRef) error {
	several := len(refs) > 0 && refs[0].Part != refs[len(refs)-1].Part
	for _, r := range refs {
		line := r.OID + " " + r.Name
		if r.Target != "" {
			line += " -> " + r.Target
		}
		if several {
			line = r.Part + " " + line
		}
		if _, err := fmt.Fprintln(a.Stdout, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
