package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
)

// applicationPrefix begins the name of an application where commands take a repository or a point.
const applicationPrefix = "app/"

// defaultNamespace is Backstay's own on a cluster, unless it was installed elsewhere.
const defaultNamespace = "backstay-system"

// lookEvery is how often a command that waits looks at its object.
const lookEvery = time.Second

// clusterOptions say which cluster is meant, and where on it Backstay's objects are.
type clusterOptions struct {
	kubeconfig string
	context    string
	namespace  string
}

func (o *clusterOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "reach the cluster as `FILE` says (default $KUBECONFIG, then ~/.kube/config, then the pod's own)")
	flags.StringVar(&o.context, "context", "", "use the `CONTEXT` of that file")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "`NAMESPACE` of Backstay's objects (default "+defaultNamespace+")")
}

// applicationOf returns the name of an application that an argument names.
func applicationOf(argument string) (name string, is bool) {
	name, is = strings.CutPrefix(argument, applicationPrefix)
	return name, is && name != ""
}

// site is a cluster with Backstay on it, as a user reaches it.
type site struct {
	*app
	client    client.Client
	namespace string
}

func (a *app) site(o clusterOptions) (*site, error) {
	cluster, err := kube.Connect(o.kubeconfig, o.context)
	if err != nil {
		return nil, err
	}
	return &site{a, cluster.Client, cmp.Or(o.namespace, defaultNamespace)}, nil
}

// answer classes an error of the API server.
func answer(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case meta.IsNoMatchError(err):
		return fault.Wrap(op, fault.ErrNotFound, err, "install Backstay on the cluster first; see docs/kubernetes.md")
	case apierrors.IsNotFound(err):
		return fault.Wrap(op, fault.ErrNotFound, err, "")
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fault.Wrap(op, fault.ErrDenied, err, "docs/rbac.md lists what is needed")
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fault.Wrap(op, fault.ErrInvalid, err, "")
	case apierrors.IsAlreadyExists(err):
		return fault.Wrap(op, fault.ErrExists, err, "")
	case fault.Of(err).Exit != 1:
		return fault.Wrap(op, nil, err, "")
	}
	return fault.Wrap(op, fault.ErrUnavailable, err, "is this the right cluster? --context names another")
}

// backupApplication makes a Backup on the cluster and waits for it.
func (a *app) backupApplication(ctx context.Context, application string, o backupOptions) error {
	s, err := a.site(o.cluster)
	if err != nil {
		return err
	}
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{GenerateName: nameFrom(application), Namespace: s.namespace, Labels: labelled(application)},
		Spec:       v1alpha1.BackupSpec{Policy: o.policy, Application: v1alpha1.Applications{Namespaces: []string{application}}},
	}
	if o.policy != "" {
		if b.Spec.Application, err = s.declaredApplication(ctx, o.policy, application); err != nil {
			return err
		}
	} else if b.Spec.Location, err = s.locationName(ctx); err != nil {
		return err
	}
	if err := s.client.Create(ctx, b); err != nil {
		return answer("back up "+application, err)
	}
	err = s.follow(ctx, b, "backup", func() (v1alpha1.Phase, string) {
		stored := 0
		for _, v := range b.Status.Volumes {
			if v.Stored {
				stored++
			}
		}
		return b.Status.Phase, progressOf(stored, len(b.Status.Volumes), "volumes stored")
	})
	if err != nil {
		return err
	}
	return errors.Join(s.tellBackedUp(b, application), outcome("back up "+application, b.Status.Phase, b.Status.Conditions, b.Status.Problems))
}

// declaredApplication is how a policy captures an application.
func (s *site) declaredApplication(ctx context.Context, policy, application string) (v1alpha1.Applications, error) {
	var p v1alpha1.Policy
	if err := s.client.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: policy}, &p); err != nil {
		return v1alpha1.Applications{}, answer("read policy "+policy, err)
	}
	for _, source := range p.Spec.Sources {
		if source.Applications == nil {
			continue
		}
		if one, is := deploymentNamed(*source.Applications, application); is {
			return one, nil
		}
		if source.Applications.Name == application {
			return *source.Applications, nil
		}
		if source.Applications.Name == "" && len(source.Applications.ArgoCD)+len(source.Applications.Flux) == 0 {
			one := *source.Applications
			one.Namespaces, one.ExcludeNamespaces, one.NamespaceSelector = []string{application}, nil, nil
			return one, nil
		}
	}
	return v1alpha1.Applications{}, fault.New("back up "+application, fault.ErrNotFound, "policy "+policy+" has no such application", "")
}

// deploymentNamed is a source narrowed to the one deployment of an application's name, where its globs take that.
func deploymentNamed(source v1alpha1.Applications, application string) (v1alpha1.Applications, bool) {
	takes := func(glob string) bool {
		is, err := path.Match(path.Base(glob), application)
		return err == nil && is
	}
	narrow := func(globs []string) []string {
		var chosen []string
		for _, g := range globs {
			if takes(g) {
				chosen = append(chosen, strings.TrimSuffix(g, path.Base(g))+application)
			}
		}
		return chosen
	}
	source.ArgoCD, source.Flux = narrow(source.ArgoCD), narrow(source.Flux)
	return source, source.Name == "" && len(source.ArgoCD)+len(source.Flux) > 0
}

// locationName is the Location that --location names, or the only one.
func (s *site) locationName(ctx context.Context) (string, error) {
	if s.global.location != "" {
		return s.global.location, nil
	}
	var all v1alpha1.LocationList
	if err := s.client.List(ctx, &all, client.InNamespace(s.namespace)); err != nil {
		return "", answer("list locations", err)
	}
	var names []string
	for _, l := range all.Items {
		names = append(names, l.Name)
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fault.New("choose a location", fault.ErrNotFound, "there is none in "+s.namespace, "apply a Location; docs/kubernetes.md has an example")
	}
	return "", fault.New("choose a location", fault.ErrInvalid, "there are several: "+strings.Join(names, ", "), "choose with --location NAME")
}

// follow waits until an object's work has ended, and tells how far it is. Interrupted, it leaves the work to the cluster.
func (s *site) follow(ctx context.Context, o client.Object, kind string, look func() (v1alpha1.Phase, string)) error {
	said := ""
	for {
		phase, detail := look()
		if line := strings.TrimSpace(string(phase) + " " + detail); line != said && line != "" && !s.global.quiet {
			s.told.progress(message{Message: fmt.Sprintf("%s %s: %s", kind, o.GetName(), line)})
			said = line
		}
		if phase.Final() {
			return nil
		}
		select {
		case <-ctx.Done():
			s.told.notice("%s %s goes on in the cluster; `kubectl -n %s delete %s %s` stops it", kind, o.GetName(), o.GetNamespace(), kind, o.GetName())
			return ctx.Err()
		case <-time.After(lookEvery):
		}
		if err := kube.Refresh(ctx, s.client, o); err != nil && !kube.Transient(err) { // else the API server may be back the next time
			return answer("follow "+kind+" "+o.GetName(), err)
		}
	}
}

func progressOf(done, all int, what string) string {
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("(%d of %d %s)", done, all, what)
}

// outcome is the error that a final phase stands for.
func outcome(op string, phase v1alpha1.Phase, conditions []metav1.Condition, problems []string) error {
	cause := strings.Join(problems, "; ")
	switch phase {
	case v1alpha1.PhaseComplete, v1alpha1.PhasePlanned:
		return nil
	case v1alpha1.PhaseIncomplete:
		return fault.New(op, fault.ErrIncomplete, cause, "")
	}
	class := fault.ErrUnavailable
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		class = cmp.Or(fault.Named(ready.Reason), class)
		cause = cmp.Or(cause, ready.Message)
	}
	return fault.New(op, class, cause, "")
}

// applicationDocument is what `backup app/NAME --json` and `restore app/NAME --json` print.
type applicationDocument[T any] struct {
	Version     int    `json:"version"`
	Application string `json:"application"`
	Name        string `json:"name"` // of the object
	Status      T      `json:"status"`
}

func (s *site) tellBackedUp(b *v1alpha1.Backup, application string) error {
	if s.global.json {
		return s.document(applicationDocument[v1alpha1.BackupStatus]{documentVersion, application, b.Name, b.Status})
	}
	if b.Status.Point == "" {
		return nil
	}
	s.say("point %s of %s", b.Status.Point, application)
	if p := b.Status.Parts; p != nil {
		s.say("%s: %d of %d parts, %s, %s new", strings.ToLower(string(b.Status.Phase)), p.Stored, p.Expected, size(p.Bytes), size(p.NewBytes))
	}
	return nil
}

// applicationPoints lists the restore points of an application.
func (a *app) applicationPoints(ctx context.Context, o pointsOptions) error {
	s, err := a.site(o.cluster)
	if err != nil {
		return err
	}
	points, err := s.pointsOf(ctx, o.application)
	if err != nil {
		return err
	}
	points = slices.DeleteFunc(points, func(p v1alpha1.RestorePoint) bool {
		return o.policy != "" && p.Spec.Policy != o.policy || o.revision != "" &&
			!slices.ContainsFunc(p.Spec.Revisions, func(r string) bool { return point.SameRevision(r, o.revision) })
	})
	return a.tellApplicationPoints(points)
}

func (a *app) tellApplicationPoints(points []v1alpha1.RestorePoint) error {
	if a.global.json {
		return a.document(applicationPointsOf(points))
	}
	if len(points) == 0 {
		a.say("no points")
		return nil
	}
	rows, revisions, proven := make([][]string, len(points)), make([][]string, len(points)), make([]string, len(points))
	for i, p := range points {
		rows[i] = []string{p.Name, stamp(p.Spec.Time.Time), p.Spec.Cluster + "/" + p.Spec.Application, p.Spec.State, size(p.Spec.Bytes), fit(strings.Join(p.Spec.Holds, "; "))}
		revisions[i] = p.Spec.Revisions
		if proof := p.Spec.Proof; proof != nil {
			proven[i] = provenOn(proof.Time.Time, proof.Proven, len(proof.Excepted) > 0)
		}
	}
	heads, rows := withRevisions([]string{"NAME", "TIME (UTC)", "APPLICATION", "STATE", "SIZE", "HOLD"}, rows, revisions)
	return a.table(withColumn(heads, rows, "PROVEN", proven))
}

// applicationPointsDocument is what `points app/NAME --json` prints.
type applicationPointsDocument struct {
	Version int                `json:"version"`
	Points  []applicationPoint `json:"points"`
}

type applicationPoint struct {
	Name string `json:"name"` // of the object
	v1alpha1.RestorePointSpec
}

func applicationPointsOf(points []v1alpha1.RestorePoint) applicationPointsDocument {
	document := applicationPointsDocument{documentVersion, []applicationPoint{}}
	for _, p := range points {
		document.Points = append(document.Points, applicationPoint{p.Name, p.Spec})
	}
	return document
}

// pointsOf lists the restore points of an application, newest first.
func (s *site) pointsOf(ctx context.Context, application string) ([]v1alpha1.RestorePoint, error) {
	var all v1alpha1.RestorePointList
	if err := s.client.List(ctx, &all, client.InNamespace(s.namespace)); err != nil {
		return nil, answer("list restore points", err)
	}
	points := slices.DeleteFunc(all.Items, func(p v1alpha1.RestorePoint) bool {
		return p.Spec.Application != application || s.global.location != "" && p.Spec.Location != s.global.location
	})
	slices.SortFunc(points, func(a, b v1alpha1.RestorePoint) int { return b.Spec.Time.Compare(a.Spec.Time.Time) })
	return points, nil
}

// labelled has the name of an application where it is fit to be a label: kubectl shows it.
func labelled(application string) map[string]string {
	if len(validation.IsValidLabelValue(application)) > 0 {
		return nil
	}
	return map[string]string{v1alpha1.LabelApplication: application}
}

// nameFrom begins the name of an object for an application.
func nameFrom(application string) string {
	const room = 40
	return strings.Trim(application[:min(len(application), room)], "-.") + "-"
}
