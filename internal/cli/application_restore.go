package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// applicationRestore is what of an application is brought back, and where.
type applicationRestore struct {
	toNamespace    string
	only           string
	existing       string
	claims         []string
	objects        []string
	storageClasses map[string]string
	plan           bool
	undo           string
	yes            bool
}

func (o *applicationRestore) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.toNamespace, "to-namespace", "", "for an application: restore it into the `NAMESPACE` instead of its own")
	flags.StringVar(&o.only, "only", "", "for an application: only the data in its volumes, or only its objects: data or config")
	flags.StringVar(&o.existing, "existing", "", "for an application: what happens to objects that differ: keep (default), replace or fail")
	flags.StringSliceVar(&o.claims, "claim", nil, "for an application: only the data of the claim `NAME`; repeat for more")
	flags.StringSliceVar(&o.objects, "object", nil, "for an application: only the `KIND.GROUP/NAME`, or all of KIND.GROUP; repeat for more")
	flags.StringToStringVar(&o.storageClasses, "storage-class", nil, "for an application: `OLD=NEW`, the storage class to take instead; repeat for more")
	flags.BoolVar(&o.plan, "plan", false, "for an application, or with --metadata: only say what would happen")
	flags.StringVar(&o.undo, "undo", "", "for an application: put the volumes back that the `RESTORE` took out of use")
	flags.BoolVarP(&o.yes, "yes", "y", false, "for an application: do it without asking")
}

// restoreSpec says what is asked for. point is the name of a RestorePoint or the beginning of its point's id, "" or latest for the newest:
// which one that is, Backstay on the cluster decides, for it knows which of several clusters it is.
func (s *site) restoreSpec(ctx context.Context, application, point string, o restoreOptions) (v1alpha1.RestoreSpec, error) {
	spec := v1alpha1.RestoreSpec{
		Only: o.application.only, Existing: o.application.existing, Claims: o.application.claims, Objects: o.application.objects,
		StorageClasses: o.application.storageClasses, PlanOnly: o.application.plan,
	}
	if to := o.application.toNamespace; to != "" {
		spec.Namespaces = map[string]string{application: to}
	}
	points, err := s.pointsOf(ctx, application)
	if err != nil {
		return spec, err
	}
	op := "find a point of " + application
	hint := "`backstay points app/" + application + "` lists its points"
	if len(points) == 0 {
		return spec, fault.New(op, fault.ErrNotFound, "there is none in "+s.namespace, "a Location that has been applied is read within a minute; "+hint)
	}
	if point != "" && point != "latest" {
		spec.RestorePoint, err = restorePointCalled(op, points, point, hint)
		return spec, err
	}
	spec.Latest = &v1alpha1.LatestPoint{Location: points[0].Spec.Location, Application: application}
	for _, p := range points {
		if p.Spec.Location != spec.Latest.Location {
			return spec, fault.New(op, fault.ErrInvalid, "several locations have points of it", "choose with --location NAME, or name a point; "+hint)
		}
	}
	if !o.asOf.IsZero() {
		spec.Latest.AsOf = &metav1.Time{Time: o.asOf.Time}
	}
	return spec, nil
}

// restorePointCalled is the name of the one RestorePoint that is meant: by its name, or by the first digits of its point's id.
func restorePointCalled(op string, points []v1alpha1.RestorePoint, point, hint string) (string, error) {
	const fewest = 4
	var found []string
	for _, p := range points {
		if p.Name == point {
			return p.Name, nil
		}
		if len(point) >= fewest && strings.HasPrefix(p.Spec.Point, point) {
			found = append(found, p.Name)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.New(op, fault.ErrNotFound, fmt.Sprintf("none of %d is called %q", len(points), point), hint)
	case 1:
		return found[0], nil
	}
	return "", fault.New(op, fault.ErrInvalid, fmt.Sprintf("%q begins several: %s", point, strings.Join(found, ", ")), "")
}

// restoreApplication makes a Restore on the cluster and waits for it. What is there is not touched without a yes to the plan.
func (a *app) restoreApplication(ctx context.Context, application, point string, o restoreOptions) error {
	s, err := a.site(o.cluster)
	if err != nil {
		return err
	}
	if o.application.undo != "" {
		if point != "" || o.application.plan {
			return fault.New("restore "+application, fault.ErrInvalid, "--undo takes neither a point nor --plan", "")
		}
		return s.undoRestore(ctx, application, o.application)
	}
	spec, err := s.restoreSpec(ctx, application, point, o)
	if err != nil {
		return err
	}
	if !o.application.yes && !spec.PlanOnly {
		planned := spec
		planned.PlanOnly = true
		status, err := s.runRestore(ctx, application, planned)
		if err != nil {
			return err
		}
		if err := s.confirm("restore " + application); err != nil {
			return err
		}
		if spec, err = s.pinned(ctx, application, spec, status.Point); err != nil {
			return err
		}
	}
	_, err = s.runRestore(ctx, application, spec)
	return err
}

// undoRestore puts the volumes back that a Restore took out of use, after a yes to which they are.
func (s *site) undoRestore(ctx context.Context, application string, o applicationRestore) error {
	if !o.yes {
		var r v1alpha1.Restore
		if err := s.client.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: o.undo}, &r); err != nil {
			return answer("undo "+o.undo, err)
		}
		for _, v := range r.Status.Volumes {
			if v.OldVolume != "" {
				fmt.Fprintf(s.Stderr, "exchange  claim %s/%s: volume %s goes, %s comes back\n", v.Namespace, v.Claim, v.NewVolume, v.OldVolume)
			}
		}
		if err := s.confirm("undo " + o.undo); err != nil {
			return err
		}
	}
	_, err := s.runRestore(ctx, application, v1alpha1.RestoreSpec{Undo: o.undo})
	return err
}

// pinned is spec for the point that was planned with: there may be a newer one by now.
func (s *site) pinned(ctx context.Context, application string, spec v1alpha1.RestoreSpec, planned string) (v1alpha1.RestoreSpec, error) {
	if spec.Latest == nil {
		return spec, nil
	}
	points, err := s.pointsOf(ctx, application)
	if err != nil {
		return spec, err
	}
	for _, p := range points {
		if p.Spec.Point == planned && p.Spec.Location == spec.Latest.Location {
			spec.RestorePoint, spec.Latest = p.Name, nil
			return spec, nil
		}
	}
	return spec, fault.New("restore "+application, fault.ErrNotFound, "point "+planned+" was deleted meanwhile", "")
}

func (s *site) runRestore(ctx context.Context, application string, spec v1alpha1.RestoreSpec) (v1alpha1.RestoreStatus, error) {
	r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{GenerateName: nameFrom(application), Namespace: s.namespace}, Spec: spec}
	if err := s.client.Create(ctx, r); err != nil {
		return r.Status, answer("restore "+application, err)
	}
	err := s.follow(ctx, r, "restore", func() (v1alpha1.Phase, string) {
		filled := 0
		for _, v := range r.Status.Volumes {
			if v.NewVolume != "" {
				filled++
			}
		}
		return r.Status.Phase, progressOf(filled, len(r.Status.Volumes), "volumes filled")
	})
	if err != nil {
		return r.Status, err
	}
	return r.Status, errors.Join(s.tellRestored(ctx, r, application), outcome("restore "+application, r.Status.Phase, r.Status.Conditions, r.Status.Problems))
}

// confirm asks a person; without one it refuses.
func (s *site) confirm(what string) error {
	refused := fault.New(what, fault.ErrRefused, "nobody said yes", "say --yes to do it without being asked")
	if !isTerminal(s.Stdin) || s.global.json {
		return refused
	}
	fmt.Fprint(s.Stderr, "Do this? Type yes: ")
	line, err := bufio.NewReader(s.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return refused
	}
	return nil
}

func (s *site) tellRestored(ctx context.Context, r *v1alpha1.Restore, application string) error {
	if s.global.json {
		return s.document(applicationDocument[v1alpha1.RestoreStatus]{documentVersion, application, r.Name, r.Status})
	}
	if r.Spec.PlanOnly && r.Status.PlanName != "" {
		var plan corev1.ConfigMap
		if err := s.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Status.PlanName}, &plan); err != nil {
			return answer("read the plan", err)
		}
		fmt.Fprint(s.Stdout, printable(plan.Data[v1alpha1.PlanText]))
		return nil
	}
	if j := r.Status.GitOps; j != nil && j.Deployment != "" {
		s.tellRolledBack(r, application)
		s.say("%s: restore %s of %s", strings.ToLower(string(r.Status.Phase)), r.Name, application)
		return nil
	}
	if p := r.Status.Plan; p != nil {
		s.say("%d created, %d replaced, %d kept, %d the same, %d skipped, %s", p.Create, p.Replace, p.Keep, p.Same, p.Skip,
			plural(int64(p.Volumes), "volume", "volumes"))
		if p.Keep+p.Skip > 0 && r.Status.PlanName != "" {
			s.say("what is kept or skipped, and why: `kubectl get configmap -n %s %s -o yaml`", r.Namespace, r.Status.PlanName)
		}
	}
	if until := r.Status.UndoUntil; until != nil {
		s.say("the volumes that were there are kept until %s UTC: `backstay restore app/%s --undo %s` brings them back", stamp(until.Time), application, r.Name)
	}
	s.say("%s: restore %s of %s", strings.ToLower(string(r.Status.Phase)), r.Name, application)
	return nil
}

// misplaced refuses flags that were given and mean nothing here.
func misplaced(op string, flags *pflag.FlagSet, where string, names ...string) error {
	for _, name := range names {
		if flags.Changed(name) {
			return fault.New(op, fault.ErrInvalid, "--"+name+" means nothing "+where, "")
		}
	}
	return nil
}
