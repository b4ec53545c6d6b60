package worker

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// repositories backs up the sources of a policy that are no applications. Taken up again, it asks the forges anew; what is in the vault
// already is not fetched once more.
func (b *backup) repositories(ctx context.Context) (err error) {
	if b.policy, _, err = b.locationOf(ctx, b.object); err != nil {
		return err
	}
	op := "backup " + b.object.Name
	if b.policy == nil || b.object.Namespace != b.System { // anybody's Git server is reached from Backstay's own pods
		return fault.New(op, fault.ErrDenied, "repositories are backed up by policies in Backstay's own namespace", "say policy, in namespace "+b.System)
	}
	if !b.Share.first() {
		return b.help(ctx)
	}
	err = b.save(ctx, func(s *v1alpha1.BackupStatus) {
		if now := metav1.NewTime(b.Now()); s.Started == nil {
			s.Started = &now
		}
		s.Phase = v1alpha1.PhaseMoving
	})
	if err != nil {
		return err
	}
	run, err := b.captureRepositories(ctx)
	if run == nil || ctx.Err() != nil {
		return err
	}
	return b.finishRun(ctx, run)
}

// captureRepositories runs the policy's sources that are no applications.
func (b *backup) captureRepositories(ctx context.Context) (*point.Run, error) {
	p := b.policy.DeepCopy()
	p.Spec.Sources = nil
	for _, s := range b.policy.Spec.Sources {
		if s.Applications == nil {
			p.Spec.Sources = append(p.Spec.Sources, s)
		}
	}
	secret := func(ctx context.Context, ref v1alpha1.SecretKeyRef) ([]byte, error) {
		value, err := b.secret(ctx, p.Namespace, v1alpha1.Secret{SecretKeyRef: &ref})
		return []byte(value), err
	}
	return b.Worker.Repositories(ctx, *p, b.store, secret, b.shared())
}

// finishRun ends a Backup of repositories with what its run reports.
func (b *backup) finishRun(ctx context.Context, run *point.Run) error {
	var problems []string
	for _, p := range run.Problems {
		problems = append(problems, p.What)
	}
	var sources []v1alpha1.SourceStatus
	for _, s := range run.Sources {
		status := v1alpha1.SourceStatus{Name: s.Subject.Name, State: string(s.State), Point: s.Point, Repositories: len(s.Repositories)}
		for _, p := range s.Problems {
			problems = append(problems, s.Subject.Name+": "+p.What)
		}
		for _, r := range s.Repositories {
			if r.State != point.Stored && r.State != point.Skipped {
				status.Lacking++
				problems = append(problems, fmt.Sprintf("%s/%s/%s %s: %s", r.Host, r.Owner, r.Name, r.State, r.Reason))
			}
		}
		sources = append(sources, status)
	}
	phases := map[point.State]v1alpha1.Phase{point.Complete: v1alpha1.PhaseComplete, point.Incomplete: v1alpha1.PhaseIncomplete}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) {
		s.Sources, s.Problems = sources, listed(append(problems, run.Warnings...))
		phase := phases[run.State]
		if phase == "" {
			phase = v1alpha1.PhaseFailed
		}
		message := ""
		if len(problems) > 0 {
			message = problems[0]
		}
		b.end(s, phase, message)
	})
}
