package git

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// RefMove says that refs below one prefix become refs below another: "refs/pull/", "refs/merge-requests/".
type RefMove struct{ From, To string }

// WriteBundle writes a bundle of all refs of a bare repository, which `git clone` reads, to a file that is not there. Refs that moves
// name are moved in the repository, too. A repository without refs has no bundle: no file is written, and there is no error.
func WriteBundle(ctx context.Context, dir, file string, moves ...RefMove) error {
	op := "bundle " + dir
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if file, err = filepath.Abs(file); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	for _, m := range moves {
		if err := moveRefs(ctx, dir, m); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
	}
	ref, err := output(gitCommand(ctx, dir, "for-each-ref", "--count=1"))
	if err != nil || ref == "" {
		return fault.Wrap(op, nil, err, "")
	}
	err = runLarge(ctx, gitCommand(ctx, dir, "bundle", "create", "--quiet", file, "--all"), Limits{}, func(err error) error { return err })
	if err != nil {
		os.Remove(file) //nolint:errcheck // the first error is the one to tell
	}
	return fault.Wrap(op, nil, err, "")
}

// moveRefs makes each ref anew under its other name.
func moveRefs(ctx context.Context, dir string, m RefMove) error {
	all, err := output(gitCommand(ctx, dir, "for-each-ref", "--format=%(objectname) %(refname)", m.From))
	if err != nil || all == "" {
		return err
	}
	var script strings.Builder
	for line := range strings.Lines(all) {
		oid, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		script.WriteString("update " + m.To + strings.TrimPrefix(name, m.From) + " " + oid + "\ndelete " + name + "\n")
	}
	cmd := gitCommand(ctx, dir, "update-ref", "--no-deref", "--stdin")
	cmd.Stdin = strings.NewReader(script.String())
	return run(cmd, 0)
}
