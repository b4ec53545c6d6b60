package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/protect"
)

// History is what a repository holds of its revisions.
type History interface {
	// Files are the files of a commit below a directory, "" for all, with what tells their contents apart. A commit that is not there is
	// fault.ErrNotFound.
	Files(ctx context.Context, revision, dir string) (map[string]string, error)
	// Revert makes a commit upon head in which a directory is as in good. It is head where that is so already.
	Revert(ctx context.Context, head, good, dir, message string) (commit string, err error)
	// Push pushes a commit as a branch to where the repository came from.
	Push(ctx context.Context, branch, commit string) error
	Close()
}

// mostNamed is how many files a sentence names.
const mostNamed = 5

// judge says why syncs that go on by themselves would bring back what was rolled back; empty where they would not.
func (w *Worker) judge(ctx context.Context, r *v1alpha1.Restore, s gitops.State) (why string) {
	j := r.Status.GitOps
	switch g := r.Spec.GitOps; {
	case g != nil && g.Resume == v1alpha1.ResumeHold && r.Annotations[v1alpha1.AnnotationRelease] == "":
		return "gitops.resume is Hold"
	case s.HeadLost, len(s.Head) == 0, j.FromPoint && slices.Equal(s.Head, j.To): // the last is of before git lost it
		return "git cannot be read: " + s.Message
	case slices.Equal(s.Head, j.To):
		return ""
	case j.FromPoint && len(j.RolledBack) == 0:
		return "git had lost " + strings.Join(shortened(j.To), ", ") + ", and the configuration came out of the point"
	case !s.Automated && !j.FromPoint, len(j.RolledBack) == 0:
		return ""
	case len(s.Head) != len(j.To) || len(s.Sources) != len(j.To):
		return "the deployment has other sources than it had"
	}
	var all []string
	for i, source := range s.Sources {
		if one := w.judgeSource(ctx, r, source, revisions{good: j.To[i], bad: j.RolledBack[i], head: s.Head[i]}, i); one != "" {
			all = append(all, one)
		}
	}
	return strings.Join(all, "; ")
}

// revisions are those of one source.
type revisions struct{ good, bad, head string }

func (w *Worker) judgeSource(ctx context.Context, r *v1alpha1.Restore, source gitops.Source, of revisions, number int) (why string) {
	head, bad := shortened([]string{of.head})[0], shortened([]string{of.bad})[0]
	switch {
	case of.head == of.good, of.bad == of.good, source.Chart != "" && of.head != of.bad:
		return ""
	case source.Chart != "":
		return fmt.Sprintf("chart %s still has version %s", source.Chart, bad)
	}
	left, err := w.unmended(ctx, r, source, of, number)
	switch {
	case err != nil && of.head == of.bad && r.Status.GitOps.FromPoint: // the engine may only not have noticed yet
		return "git cannot be read: " + err.Error()
	case err != nil && of.head == of.bad:
		return "git still has " + bad + ", which was rolled back"
	case err != nil:
		return fmt.Sprintf("git has %s, and whether it mends %s is not known: %s", head, bad, err.Error())
	case len(left) == 0 && of.head == of.bad: // nothing of it is in git: a chart's or an image's change
		return "git still has " + bad + ", which was rolled back"
	case len(left) == 0:
		return ""
	}
	still := "git has " + head + ", with "
	if of.head == of.bad {
		still = "git still has "
	}
	return fmt.Sprintf("%s%s as in %s, which was rolled back", still, named(left), bad)
}

func named(files []string) string {
	if more := len(files) - mostNamed; more > 0 {
		return strings.Join(files[:mostNamed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(files, ", ")
}

// unmended are the files that the bad revision had changed, and that are at the head as they were in it.
func (w *Worker) unmended(ctx context.Context, r *v1alpha1.Restore, source gitops.Source, of revisions, number int) ([]string, error) {
	repository, err := w.opened(ctx, r.Status.GitOps.Deployment, source.URL)
	if err != nil {
		return nil, err
	}
	h, err := w.Git(ctx, repository, of.good, of.bad)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, dir := range []string{source.Path, ""} { // what is deployed may be made of files elsewhere in the repository
		good, err := h.Files(ctx, of.good, dir)
		if errors.Is(err, fault.ErrNotFound) {
			good, err = w.storedFiles(ctx, r, number, of.good, dir)
		}
		if err != nil {
			return nil, err
		}
		bad, err := h.Files(ctx, of.bad, dir)
		if err != nil {
			return nil, err
		}
		head, err := h.Files(ctx, of.head, dir)
		if err != nil {
			return nil, err
		}
		if !maps.Equal(good, bad) {
			return stillBad(good, bad, head), nil
		}
	}
	return nil, nil
}

// stillBad are the files that differ between good and bad and are at the head as in bad: none where all is as in good.
func stillBad(good, bad, head map[string]string) []string {
	var left []string
	for name, is := range bad {
		if good[name] != is && head[name] == is {
			left = append(left, name)
		}
	}
	for name := range good {
		if bad[name] == "" && head[name] == "" {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	return left
}

// storedFiles are the files of a revision in the copy of its repository that the Restore's point holds.
func (w *Worker) storedFiles(ctx context.Context, r *v1alpha1.Restore, number int, revision, dir string) (files map[string]string, err error) {
	back := &restoration{Worker: w, object: r}
	if err := back.read(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, back.store.Close(context.WithoutCancel(ctx))) }()
	d := back.record.Point.Deployment
	if d == nil || number >= len(d.Sources) || d.Sources[number].Part == "" {
		return nil, fault.New("find "+revision, fault.ErrNotFound, "neither git nor the point has it", "")
	}
	h, err := w.StoredGit(ctx, protect.Within(back.tree, d.Sources[number].Part))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Files(ctx, revision, dir)
}

// revert pushes a branch with a commit that takes back what was rolled back, for each source that has it. What fails is a problem, and no
// more: all else is done.
func (t *transaction) revert(ctx context.Context) (problems []string, _ error) {
	j := t.object.Status.GitOps
	if g := t.object.Spec.GitOps; g == nil || !g.Revert || len(j.Reverts) > 0 || len(j.RolledBack) == 0 {
		return nil, nil
	}
	s, err := t.engine.State(ctx)
	if err != nil {
		return nil, err
	}
	var pushed []string
	for i, source := range s.Sources {
		if source.Chart != "" || i >= len(j.To) || i >= len(s.Head) || s.Head[i] == j.To[i] {
			continue
		}
		branch, err := t.revertSource(ctx, source, revisions{good: j.To[i], bad: j.RolledBack[i], head: s.Head[i]})
		if err != nil {
			problems = append(problems, err.Error())
		} else if branch != "" {
			pushed = append(pushed, withoutCredentials(source.URL)+" "+branch)
		}
	}
	return problems, t.journal(ctx, func(j *v1alpha1.TransactionStatus) { j.Reverts = pushed })
}

func (t *transaction) revertSource(ctx context.Context, source gitops.Source, of revisions) (branch string, _ error) {
	repository, err := t.opened(ctx, t.object.Status.GitOps.Deployment, source.URL)
	if err != nil {
		return "", err
	}
	h, err := t.Git(ctx, repository, of.good)
	if err != nil {
		return "", err
	}
	defer h.Close()
	message := fmt.Sprintf("Revert %s to %s\n\nBackstay rolled %s back to %s, with its data. This takes back in git what was rolled back.\n",
		cmp.Or(source.Path, "."), shortened([]string{of.good})[0], t.object.Status.GitOps.Deployment, of.good)
	commit, err := h.Revert(ctx, of.head, of.good, source.Path, message)
	if err != nil || commit == of.head {
		return "", err
	}
	branch = "backstay/revert-" + shortened([]string{of.bad})[0]
	return branch, h.Push(ctx, branch, commit)
}

// opened is a repository as the engine itself opens it.
func (w *Worker) opened(ctx context.Context, deployment, address string) (Repository, error) {
	op := "reach " + withoutCredentials(address)
	if !isGit(address) {
		return Repository{}, fault.New(op, fault.ErrUnsupported, "it is no address of a git server", "")
	}
	r, err := w.repository(ctx, deployment, address)
	if err != nil {
		return Repository{}, err
	}
	if r == nil {
		return Repository{}, fault.New(op, fault.ErrUnsupported, "it is no git", "")
	}
	return *r, nil
}
