package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spf13/pflag"

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
	flags.BoolVar(&o.plan, "plan", false, "for an application: only say what would happen")
	flags.StringVar(&o.undo, "undo", "", "for an application: put the volumes back that the `RESTORE` took out of use")
	flags.BoolVarP(&o.yes, "yes", "y", false, "for an application: do it without asking")
}

// spec says what is asked for. point is the name of a RestorePoint or the beginning of its id, "" or latest for the newest.
func (s *site) restoreSpec(ctx context.Context, application, point string, o restoreOptions) (v1alpha1.RestoreSpec, error) {
	spec := v1alpha1.RestoreSpec{
		Only: o.application.only, Existing: o.application.existing, Claims: o.application.claims, Objects: o.application.objects,
		StorageClasses: o.application.storageClasses, PlanOnly: o.application.plan, Undo: o.application.undo,
	}
	if spec.Undo != "" {
		return spec, nil
	}
	if to := o.application.toNamespace; to != "" {
		spec.Namespaces = map[string]string{application: to}
	}
	points, err := s.pointsOf(ctx, application)
	if err != nil {
		return spec, err
	}
	op := "find a point of " + application
	for _, p := range points {
		late := !o.asOf.IsZero() && p.Spec.Time.After(o.asOf.Time)
		switch {
		case point != "" && point != "latest":
			if p.Name == point || len(point) >= 4 && strings.HasPrefix(p.Spec.Point, point) {
				spec.RestorePoint = p.Name
				return spec, nil
			}
		case p.Spec.State == "complete" && !late:
			spec.RestorePoint = p.Name
			return spec, nil
		}
	}
	if len(points) == 0 {
		return spec, fault.New(op, fault.ErrNotFound, "there is none in "+s.namespace, "a Location that has been applied is read within a minute; `backstay points app/"+application+"` lists its points")
	}
	return spec, fault.New(op, fault.ErrNotFound, fmt.Sprintf("none of %d is meant by %q, or none is complete", len(points), point), "name one that `backstay points app/"+application+"` lists")
}

// restoreApplication makes a Restore on the cluster and waits for it. What is there is not touched without a yes to the plan.
func (a *app) restoreApplication(ctx context.Context, application, point string, o restoreOptions) error {
	s, err := a.site(o.cluster)
	if err != nil {
		return err
	}
	spec, err := s.restoreSpec(ctx, application, point, o)
	if err != nil {
		return err
	}
	if !o.application.yes && !spec.PlanOnly && spec.Undo == "" {
		planned := spec
		planned.PlanOnly = true
		if err := s.runRestore(ctx, application, planned); err != nil {
			return err
		}
		if err := s.confirm("restore " + application); err != nil {
			return err
		}
	}
	return s.runRestore(ctx, application, spec)
}

func (s *site) runRestore(ctx context.Context, application string, spec v1alpha1.RestoreSpec) error {
	r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{GenerateName: nameFrom(application), Namespace: s.namespace}, Spec: spec}
	if err := s.client.Create(ctx, r); err != nil {
		return answer("restore "+application, err)
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
		return err
	}
	return errors.Join(s.tellRestored(ctx, r, application), outcome("restore "+application, r.Status.Phase, r.Status.Conditions, r.Status.Problems))
}

// confirm asks a person; without one it refuses.
func (s *site) confirm(what string) error {
	refused := fault.New(what, fault.ErrRefused, "nobody said yes", "say --yes to do as planned, or --plan to see the plan only")
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
	if p := r.Status.Plan; p != nil {
		s.say("%d created, %d replaced, %d kept, %d the same, %s", p.Create, p.Replace, p.Keep, p.Same, plural(int64(p.Volumes), "volume", "volumes"))
	}
	if until := r.Status.UndoUntil; until != nil {
		s.say("the volumes that were there are kept until %s UTC: `backstay restore app/%s --undo %s` brings them back", stamp(until.Time), application, r.Name)
	}
	s.say("%s: restore %s of %s", strings.ToLower(string(r.Status.Phase)), r.Name, application)
	return nil
}
