package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/worker"
)

const rollbackHelp = `
Rollback brings data and configuration of an application back together, of one that Argo CD or Flux deploys out of git.

APP is an application as ` + "`points app/NAME`" + ` names it, or what deploys it: NAME, NAMESPACE/NAME, argocd/NAMESPACE/NAME. --to is a revision, by its
first 7 digits at least; or a point. Of a revision it is the newest complete point made while it was live, of data that no sync to another one
has touched since: where an engine went back to a revision, or a sync away from it failed, what was done to the data is still in it.

A point is made of the application as it is. Then syncs are held off, the one that is under way is ended, the volumes are exchanged, and the
engine deploys the revision. When that runs, syncs go on as before, unless git still has what was rolled back: then they stay held until it is
mended or reverted there. --revert pushes a branch with a commit that does so, for you to merge. --release has that looked at now, and with
--force lets syncs go whatever git has.

The plan is shown first, and done with --yes.`

const rollbackExample = `  backstay rollback shop --to 4f2a91c
  backstay rollback shop --to 4f2a91c --plan
  backstay rollback shop --to shop-20260301-0230 --yes --revert
  backstay rollback shop --to 4f2a91c --data-only
  backstay rollback shop --release`

type rollbackOptions struct {
	cluster     clusterOptions
	to          string
	dataOnly    bool
	configOnly  bool
	plan        bool
	revert      bool
	hold        bool
	noUndoPoint bool
	release     bool
	force       bool
	yes         bool
}

func newRollbackCommand(a *app) *cobra.Command {
	var o rollbackOptions
	cmd := &cobra.Command{
		Use:     "rollback APP --to REVISION|POINT",
		GroupID: groupPoints,
		Short:   "Bring data and configuration of a deployed application back together",
		Long: exits(rollbackHelp, "3   rolled back, but something of it lacks or does not run",
			"6   refused: nobody said yes, or syncs stay held", "7   the stored data is damaged"),
		Example: rollbackExample,
		Args:    takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			s, err := a.site(o.cluster)
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(args[0], applicationPrefix)
			if o.release {
				return s.release(ctx, name, o.force)
			}
			return s.rollback(ctx, name, o)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.to, "to", "", "`REVISION` that was live, or a point")
	flags.BoolVar(&o.dataOnly, "data-only", false, "data alone; the configuration stays as it is")
	flags.BoolVar(&o.configOnly, "config-only", false, "the revision alone; data stays as it is")
	flags.BoolVar(&o.plan, "plan", false, "only say what would happen")
	flags.BoolVar(&o.revert, "revert", false, "push a branch with a commit that reverts what was rolled back")
	flags.BoolVar(&o.hold, "hold", false, "hold syncs off afterwards in any case")
	flags.BoolVar(&o.noUndoPoint, "no-undo-point", false, "make no point of the application as it is")
	flags.BoolVar(&o.release, "release", false, "let syncs go that a rollback holds off, if git has been mended")
	flags.BoolVar(&o.force, "force", false, "with --release: whatever git has")
	flags.BoolVarP(&o.yes, "yes", "y", false, "do it without asking")
	o.cluster.bind(flags)
	return cmd
}

func (o rollbackOptions) check() error {
	const op = "rollback"
	switch {
	case o.release && (o.to != "" || o.plan || o.revert || o.hold || o.dataOnly || o.configOnly):
		return fault.New(op, fault.ErrInvalid, "--release goes with --force alone", "")
	case o.release:
		return nil
	case o.force:
		return fault.New(op, fault.ErrInvalid, "--force goes with --release", "")
	case o.to == "":
		return fault.New(op, fault.ErrInvalid, "it says not what to roll back to", "say --to REVISION; `backstay points app/NAME` lists them")
	case o.dataOnly && o.configOnly:
		return fault.New(op, fault.ErrInvalid, "--data-only and --config-only leave nothing", "")
	case o.dataOnly && o.revert:
		return fault.New(op, fault.ErrInvalid, "--revert goes with configuration", "")
	}
	return nil
}

// rollback makes a Restore that is a transaction, and waits for it.
func (s *site) rollback(ctx context.Context, name string, o rollbackOptions) error {
	points, err := s.deployedPoints(ctx, name)
	if err != nil {
		return err
	}
	past, err := worker.ReadPast(ctx, s.client, s.namespace, points)
	if err != nil {
		return err
	}
	choice, err := rolledTo(name, points, past, o.to)
	if err != nil {
		return err
	}
	s.tellDoubts(choice, o.to)
	p := choice.Point
	spec := v1alpha1.RestoreSpec{
		RestorePoint: p.Name, PlanOnly: o.plan, GitOps: &v1alpha1.Transaction{NoUndoPoint: o.noUndoPoint, Revert: o.revert},
	}
	switch {
	case o.dataOnly:
		spec.Only = v1alpha1.OnlyData
	case o.configOnly:
		spec.Only = v1alpha1.OnlyConfig
	}
	if o.hold {
		spec.GitOps.Resume = v1alpha1.ResumeHold
	}
	if !o.yes && !o.plan {
		planned := spec
		planned.PlanOnly = true
		if _, err := s.runRestore(ctx, p.Spec.Application, planned); err != nil {
			return err
		}
		if err := s.confirm("roll back " + name); err != nil {
			return err
		}
	}
	_, err = s.runRestore(ctx, p.Spec.Application, spec)
	return err
}

// deployedPoints lists the points of an application, newest first, by its name or that of what deploys it.
func (s *site) deployedPoints(ctx context.Context, name string) ([]v1alpha1.RestorePoint, error) {
	var all v1alpha1.RestorePointList
	if err := s.client.List(ctx, &all, client.InNamespace(s.namespace)); err != nil {
		return nil, answer("list restore points", err)
	}
	points := slices.DeleteFunc(all.Items, func(p v1alpha1.RestorePoint) bool {
		return !isOf(name, p.Spec.Application, p.Spec.Deployment) || s.global.location != "" && p.Spec.Location != s.global.location
	})
	slices.SortFunc(points, func(a, b v1alpha1.RestorePoint) int { return b.Spec.Time.Compare(a.Spec.Time.Time) })
	if len(points) == 0 {
		return nil, fault.New("roll back "+name, fault.ErrNotFound, "there is no point of it in "+s.namespace, "`backstay points app/NAME` lists those of an application")
	}
	return points, nil
}

// isOf reports whether a user may mean an application by a name.
func isOf(name, application, deployment string) bool {
	return name == application || deployment != "" && (name == deployment || strings.HasSuffix(deployment, "/"+name))
}

// rolledTo is the point that is meant: by its name, by the first digits of its id, or the one that goes with a revision.
func rolledTo(name string, points []v1alpha1.RestorePoint, past map[string]worker.Past, to string) (c worker.Choice, _ error) {
	op := "roll back " + name
	hint := "`backstay points app/" + points[0].Spec.Application + "` lists points and their revisions"
	named := func(name string) worker.Choice {
		return worker.Choice{Point: &points[slices.IndexFunc(points, func(p v1alpha1.RestorePoint) bool { return p.Name == name })]}
	}
	called, err := restorePointCalled(op, points, to, hint)
	if called == to {
		return named(called), nil
	}
	for _, onCluster := range past {
		if of := onCluster.PointOf(to); of.Point != nil && (c.Point == nil || c.Point.Spec.Time.Before(&of.Point.Spec.Time)) {
			c = of
		}
	}
	switch {
	case c.Point == nil && err != nil:
		cause := fmt.Sprintf("no complete point was made while a revision %q was live, and none is called so", to)
		return c, fault.New(op, fault.ErrNotFound, cause, hint)
	case c.Point == nil:
		return named(called), nil
	case err == nil && called != c.Point.Name:
		return c, fault.New(op, fault.ErrInvalid, fmt.Sprintf("%q begins a revision and the id of point %s", to, called), "say more digits")
	}
	return c, nil
}

// tellDoubts says what another revision may have done to the data of points.
func (s *site) tellDoubts(c worker.Choice, revision string) {
	taken := fmt.Sprintf("point %s of %s UTC", c.Point.Name, stamp(c.Point.Spec.Time.Time))
	if c.Touched {
		s.say("%s is taken, the newest of %s; before each of those another revision was tried or live, and may have changed the data", taken, revision)
	}
	if len(c.Passed) == 0 {
		return
	}
	const named = 3
	var names []string
	for _, p := range c.Passed[:min(len(c.Passed), named)] {
		names = append(names, fmt.Sprintf("%s of %s", p.Name, stamp(p.Spec.Time.Time)))
	}
	if more := len(c.Passed) - named; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	s.say("%s is taken, the newest of %s before another revision was tried or live", taken, revision)
	s.say("newer ones may hold what that did to the data: %s; --to POINT takes one all the same", strings.Join(names, ", "))
}

// tellRolledBack says what a transaction came to, and what is to be done next.
func (s *site) tellRolledBack(r *v1alpha1.Restore, application string) {
	j := r.Status.GitOps
	if j == nil || j.Deployment == "" {
		return
	}
	to := cmp.Or(strings.Join(shortRevisions(j.To), ", "), "nothing")
	switch {
	case j.Settled == nil:
	case r.Spec.Undo != "" && len(j.To) == 0:
		s.say("the volumes that were there before are back after %s; the configuration is as it was", j.Took)
	case r.Spec.Undo != "":
		s.say("what was there before is back after %s: %s is live", j.Took, to)
	case r.Spec.Only == v1alpha1.OnlyData:
		s.say("rows are back after %s; the configuration is %s, as it was", j.Took, to)
	case r.Spec.Only == v1alpha1.OnlyConfig:
		s.say("the configuration of %s is back after %s", to, j.Took)
	default:
		s.say("rows and configuration of %s are back after %s", to, j.Took)
	}
	if j.FromPoint {
		s.say("the configuration came out of the point: git does not have it any more")
	}
	for _, branch := range j.Reverts {
		s.say("pushed %s: merge it, and git has what runs now", branch)
	}
	name := strings.SplitN(j.Deployment, "/", 2)[1]
	switch {
	case j.Held != "":
		s.say("syncs of %s are held off: %s", j.Deployment, j.Held)
		s.say("mend or revert that in git, and they go on by themselves; `backstay rollback %s --release --force` lets them go whatever git has", name)
	case j.Resumed != nil:
		s.say("syncs of %s go on as before", j.Deployment)
	}
	if j.UndoBackup != "" {
		s.say("as it was before, it is in %s", cmp.Or("point "+j.UndoPoint, "the point of backup "+j.UndoBackup))
	}
	if until := r.Status.UndoUntil; until != nil && r.Spec.Undo == "" {
		s.say("the volumes that were there are kept until %s UTC: `backstay restore app/%s --undo %s` brings them back, and %s",
			stamp(until.Time), application, r.Name, cmp.Or(strings.Join(shortRevisions(j.From), ", "), "nothing"))
	}
}

// shortRevisions are commits by their first digits, and versions as they are.
func shortRevisions(all []string) []string {
	const digits, sha1, sha256 = 7, 40, 64
	var short []string
	for _, r := range all {
		if len(r) == sha1 || len(r) == sha256 {
			r = r[:digits]
		}
		short = append(short, r)
	}
	return short
}

// release has Restores looked at that hold syncs of an application off.
func (s *site) release(ctx context.Context, name string, force bool) error {
	op := "release " + name
	held, err := s.heldRestores(ctx, op, name)
	if err != nil {
		return err
	}
	if len(held) == 0 {
		return fault.New(op, fault.ErrNotFound, "no rollback holds its syncs off", "")
	}
	value := v1alpha1.ReleaseMended
	if force {
		value = v1alpha1.ReleaseForce
	}
	for i := range held {
		r := &held[i]
		before := r.DeepCopy()
		metav1.SetMetaDataAnnotation(&r.ObjectMeta, v1alpha1.AnnotationRelease, value)
		if err := s.client.Patch(ctx, r, client.MergeFrom(before)); err != nil {
			return answer(op, err)
		}
		if err := s.followRelease(ctx, op, r); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) heldRestores(ctx context.Context, op, name string) ([]v1alpha1.Restore, error) {
	points, err := s.deployedPoints(ctx, name)
	if err != nil {
		return nil, err
	}
	var all v1alpha1.RestoreList
	if err := s.client.List(ctx, &all, client.InNamespace(s.namespace)); err != nil {
		return nil, answer(op, err)
	}
	return slices.DeleteFunc(all.Items, func(r v1alpha1.Restore) bool {
		j := r.Status.GitOps
		return j == nil || j.Held == "" || !isOf(name, "", j.Deployment) &&
			!slices.ContainsFunc(points, func(p v1alpha1.RestorePoint) bool { return p.Spec.Deployment == j.Deployment })
	}), nil
}

// followRelease waits until somebody has looked.
func (s *site) followRelease(ctx context.Context, op string, r *v1alpha1.Restore) error {
	for {
		j := r.Status.GitOps
		switch {
		case j != nil && j.Held == "" && j.Resumed != nil:
			if s.global.json {
				return s.document(applicationDocument[v1alpha1.RestoreStatus]{documentVersion, j.Deployment, r.Name, r.Status})
			}
			s.say("syncs of %s go on as before restore %s", j.Deployment, r.Name)
			return nil
		case r.Annotations[v1alpha1.AnnotationRelease] == "" && j != nil:
			return fault.New(op, fault.ErrRefused, j.Held, "--force lets syncs go whatever git has")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
		if err := kube.Refresh(ctx, s.client, r); err != nil && !kube.Transient(err) {
			return answer(op, err)
		}
	}
}
