package git

import (
	"context"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// Lost returns those of before, tips that refs have left, that nothing in after reaches in the repository gitDir: after a force push
// git would drop them one day. Ids that the repository has no object of are not among them.
func Lost(ctx context.Context, gitDir string, before, after []string) ([]string, error) {
	const op = "look for what no ref reaches any more"
	for _, oid := range slices.Concat(before, after) {
		if !validOID(oid, formatOf(oid)) {
			return nil, fault.New(op, fault.ErrInvalid, "no object id: "+printable(oid), "")
		}
	}
	kinds := gitCommand(ctx, gitDir, "cat-file", "--batch-check=%(objectname) %(objecttype)")
	kinds.Stdin = strings.NewReader(strings.Join(before, "\n") + "\n")
	known, err := output(kinds)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	walk := gitCommand(ctx, gitDir, "rev-list", "--ignore-missing", "--stdin")
	var tips strings.Builder
	for _, oid := range before {
		tips.WriteString(oid + "\n")
	}
	for _, oid := range after {
		tips.WriteString("^" + oid + "\n")
	}
	walk.Stdin = strings.NewReader(tips.String())
	commits, err := output(walk)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	unreached := map[string]bool{}
	for oid := range strings.Lines(commits) {
		unreached[strings.TrimSpace(oid)] = true
	}
	var lost []string
	for line := range strings.Lines(known) {
		oid, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case kind == "commit" && unreached[oid], kind != "commit" && kind != "missing" && !slices.Contains(after, oid):
			lost = append(lost, oid)
		}
	}
	return lost, nil
}
