package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// replay makes a repository grow as a real one did: by the last tenth of the first-parent history of its default branch, in nine
// steps.
type replay struct {
	dir     string
	branch  string
	commits []string // oldest first
}

func newReplay(ctx context.Context, of, dir string) (*replay, error) {
	if err := git(ctx, "clone", "--quiet", "--bare", "--no-local", "--single-branch", "--no-tags", of, dir); err != nil {
		return nil, err
	}
	branch, err := exec.CommandContext(ctx, "git", "-C", dir, "symbolic-ref", "HEAD").Output()
	if err != nil {
		return nil, fmt.Errorf("git symbolic-ref: %w", err)
	}
	list, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-list", "--first-parent", "--reverse", "HEAD").Output()
	if err != nil {
		return nil, fmt.Errorf("git rev-list: %w", err)
	}
	return &replay{dir: dir, branch: strings.TrimSpace(string(branch)), commits: strings.Fields(string(list))}, nil
}

// goTo puts the branch where it was at step, 0 to 9.
func (r *replay) goTo(ctx context.Context, step int) error {
	n := len(r.commits)
	at := n - 1 - (9-step)*(n/10)/9
	return git(ctx, "-C", r.dir, "update-ref", r.branch, r.commits[at])
}
