package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// What Blueprints make is in parts blueprints/NAMESPACE/KIND/NAME/…: artifacts, which says what it is, and data/… for what kando pushed.
const (
	partBlueprints = "blueprints"
	partArtifacts  = "artifacts"
	partData       = "data"
	kindArtifacts  = "artifacts"
	artifactsFile  = "artifacts.json"
	maxArtifacts   = 4 << 20 // bytes
)

// Actions of Blueprints that take part in points.
const (
	actionBackup  = "backup"
	actionRestore = "restore"
	actionDelete  = "delete"
)

// blueprint reads a Blueprint of a namespace; nil where there is none.
func (w *Worker) blueprint(ctx context.Context, namespace, name string) (*blueprint.Blueprint, error) {
	var b blueprint.Blueprint
	err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &b)
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, nil //nolint:nilnil // there is none
	case err != nil:
		return nil, fault.Wrap(fmt.Sprintf("read Blueprint %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	b.ObjectMeta = metav1.ObjectMeta{Name: b.Name, Namespace: b.Namespace, Annotations: b.Annotations}
	return &b, nil
}

// referenceTo is an object as ActionSets name it.
func referenceTo(b kube.Bound) blueprint.ObjectReference {
	kinds := map[string]string{
		"deployments.apps": "deployment", "statefulsets.apps": "statefulset", "persistentvolumeclaims": "pvc", "namespaces": "namespace",
		"deploymentconfigs.apps.openshift.io": "deploymentconfig",
	}
	if kind := kinds[b.Resource.GroupResource().String()]; kind != "" {
		return blueprint.ObjectReference{Kind: kind, Namespace: b.Namespace, Name: b.Name}
	}
	return blueprint.ObjectReference{
		APIVersion: b.Resource.Version, Group: b.Resource.Group, Resource: b.Resource.Resource, Namespace: b.Namespace, Name: b.Name,
	}
}

// act has Blueprints capture what is bound to them. It goes before the snapshots: a claim whose object fared badly is captured by
// those after all. One that fails fails for its object.
func (b *backup) act(ctx context.Context) error {
	bound, err := b.rights.Bound(ctx, b.app)
	if err != nil || len(bound) == 0 && len(b.object.Status.Actions) == 0 {
		return err
	}
	b.bound = map[string]kube.Bound{}
	var actions []v1alpha1.ActionStatus
	for _, o := range bound {
		a := v1alpha1.ActionStatus{
			Kind: o.Resource.GroupResource().String(), Namespace: o.Namespace, Name: o.Name, Blueprint: o.Binding.Name,
		}
		a.Part = path.Join(partBlueprints, a.Namespace, a.Kind, a.Name)
		b.bound[a.Part] = o
		actions = append(actions, a)
	}
	if b.object.Status.Actions == nil {
		if err := b.save(ctx, func(s *v1alpha1.BackupStatus) { s.Phase, s.Actions = v1alpha1.PhaseActing, actions }); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(volumesAtOnce)
	for i, a := range b.object.Status.DeepCopy().Actions { // which is written to meanwhile
		if a.Done || a.Problem != "" {
			continue
		}
		group.Go(func() error {
			err := b.actOn(groupCtx, i, a)
			if err != nil && again(groupCtx, err) {
				return err
			}
			return b.save(groupCtx, func(s *v1alpha1.BackupStatus) {
				if s.Actions[i].Done = err == nil; err != nil {
					s.Actions[i].Problem = shorten(err.Error())
				}
			})
		})
	}
	return group.Wait()
}

// actOn runs the action backup on one object, and puts what it made into the vault.
func (b *backup) actOn(ctx context.Context, i int, a v1alpha1.ActionStatus) error {
	home := b.object.Namespace
	o, is := b.bound[a.Part]
	if !is {
		return fault.New("back up "+a.Kind+" "+a.Name, fault.ErrNotFound, "it is bound to Blueprint "+a.Blueprint+" no more", "")
	}
	of, err := b.blueprint(ctx, home, a.Blueprint)
	switch {
	case err != nil:
		return err
	case of == nil:
		return fault.New("back up "+a.Kind+" "+a.Name, fault.ErrNotFound, fmt.Sprintf("there is no Blueprint %s/%s", home, a.Blueprint),
			"`kubectl apply` it there, or take the annotation off")
	case of.Actions[actionBackup] == nil:
		return fault.New("back up "+a.Kind+" "+a.Name, fault.ErrInvalid, fmt.Sprintf("Blueprint %s has no action backup", a.Blueprint), "")
	}
	what := made{
		Object: referenceTo(o), Kind: o.Kind, Profile: o.Binding.Profile, Options: o.Binding.Options, Blueprint: of,
	}
	p := performance{
		home: home, owner: string(b.object.UID), name: fmt.Sprintf("backup-%d", i), action: actionBackup, rights: b.rights, made: what,
		vault: &blueprint.VaultDocument{
			URL: b.secrets.URL, Password: b.secrets.Password, OtherPassword: b.secrets.OtherPassword, Credentials: b.secrets.Credentials,
			Subject: blueprint.VaultSubject{Kind: b.subject().Kind, Name: b.subject().Name}, Policy: b.object.Spec.Policy,
			Part: path.Join(a.Part, partData), Mark: b.mark(partBlueprints),
		},
	}
	if a.Started == nil {
		now := metav1.NewMicroTime(b.Now())
		a.Started = &now
		err := b.save(ctx, func(s *v1alpha1.BackupStatus) { s.Actions[i].Started, s.Actions[i].ActionSet = &now, p.setName() })
		if err != nil {
			return err
		}
	}
	if what.Artifacts, err = b.perform(ctx, p); err != nil {
		return err
	}
	claims, err := b.rights.Claims(ctx, b.app)
	if err != nil {
		return err
	}
	for _, claim := range claims {
		if o.Mounts(claim.Namespace, claim.Name) {
			what.Claims = append(what.Claims, claim.Namespace+"/"+claim.Name)
		}
	}
	if err := b.holds(ctx, a, what.Artifacts); err != nil {
		return err
	}
	source := artifactsSource{subject: b.subject(), name: path.Join(a.Part, partArtifacts), mark: b.mark(a.Part), at: a.Started.Time, made: what}
	_, err = protect.WriteShard(ctx, b.store, source, b.object.Spec.Policy)
	return err
}

// holds checks that the vault has what artifacts say it has.
func (b *backup) holds(ctx context.Context, a v1alpha1.ActionStatus, artifacts map[string]blueprint.Artifact) error {
	stored, err := b.pushed(ctx, a)
	if err != nil {
		return err
	}
	for name, artifact := range artifacts {
		var snapshot struct {
			ID string `json:"id"`
		}
		if json.Unmarshal([]byte(artifact.KopiaSnapshot), &snapshot) != nil || !strings.HasPrefix(snapshot.ID, path.Join(a.Part, partData)+"/") {
			continue // it is somewhere else
		}
		if !slices.ContainsFunc(stored, func(p point.Part) bool { return p.Name == snapshot.ID }) {
			return fault.New("check artifact "+name, fault.ErrIncomplete, "its data is not in the vault", "")
		}
	}
	return nil
}

// pushed are the parts that kando wrote into the vault for an action of this Backup.
func (b *backup) pushed(ctx context.Context, a v1alpha1.ActionStatus) ([]point.Part, error) {
	parts, err := protect.Marked(ctx, b.store, b.subject(), b.object.Spec.Policy, b.mark(partBlueprints)+" ")
	prefix := path.Join(a.Part, partData) + "/"
	return slices.DeleteFunc(parts, func(p point.Part) bool { return !strings.HasPrefix(p.Name, prefix) }), err
}

// leaves reports to which Blueprint the data of a claim is left; empty for none.
func (b *backup) leaves(namespace, claim string) (to string) {
	for _, a := range b.object.Status.Actions {
		if o, is := b.bound[a.Part]; is && a.Done && o.Mounts(namespace, claim) {
			return a.Blueprint
		}
	}
	return ""
}

// acted are the parts that Blueprints made, and those that they did not.
func (b *backup) acted(ctx context.Context) ([]protect.Shard, error) {
	var shards []protect.Shard
	for _, a := range b.object.Status.Actions {
		s := protect.Shard{Name: path.Join(a.Part, partArtifacts), Kind: kindArtifacts, Mark: b.mark(a.Part)}
		if a.Started != nil {
			s.Captured = &a.Started.Time
		}
		if a.Problem != "" {
			s.Failed = fmt.Errorf("Blueprint %s: %s", a.Blueprint, a.Problem) //nolint:revive,staticcheck // it is a name
			shards = append(shards, s)
			continue
		}
		parts, err := b.pushed(ctx, a)
		if err != nil {
			return nil, err
		}
		shards = append(shards, s)
		for _, p := range parts {
			shards = append(shards, protect.Shard{Name: p.Name, Kind: p.Kind, Mark: p.Mark, Captured: s.Captured})
		}
	}
	return shards, nil
}

// acts are the actions that bring back what Blueprints captured, in the order of the point.
func (r *restoration) acts(all []made) []made {
	if r.object.Spec.Only == v1alpha1.OnlyConfig || len(r.object.Spec.Claims) > 0 || len(r.object.Spec.Objects) > 0 {
		return nil // data of what is not all of the application comes back where it is asked for by claim
	}
	return all
}

// act has Blueprints bring back what they captured, once the application runs.
func (r *restoration) act(ctx context.Context) (problems []string, _ error) {
	acts := r.acts(r.made)
	if len(acts) == 0 {
		return nil, nil
	}
	if _, err := r.plan.Ready(ctx, readyTime); err != nil { // what lags is said at the end
		return nil, err
	}
	err := r.save(ctx, func(s *v1alpha1.RestoreStatus) {
		s.Phase = v1alpha1.PhaseActing
		for i := len(s.Actions); i < len(acts); i++ {
			o := acts[i].Object
			s.Actions = append(s.Actions, v1alpha1.ActionStatus{
				Kind: acts[i].Kind, Namespace: r.to(o.Namespace), Name: o.Name, Blueprint: acts[i].Blueprint.Name, Part: acts[i].name(),
			})
		}
	})
	if err != nil {
		return nil, err
	}
	for i, m := range acts {
		a := &r.object.Status.Actions[i]
		if !a.Done && a.Problem == "" {
			err := r.actOn(ctx, i, m)
			if err != nil && again(ctx, err) {
				return nil, err
			}
			err = r.save(ctx, func(s *v1alpha1.RestoreStatus) {
				if s.Actions[i].Done = err == nil; err != nil {
					s.Actions[i].Problem = shorten(err.Error())
				}
			})
			if err != nil {
				return nil, err
			}
		}
		if a = &r.object.Status.Actions[i]; a.Problem != "" {
			problems = append(problems, "Blueprint "+a.Blueprint+" for "+m.name()+": "+a.Problem)
		}
	}
	return problems, nil
}

// to is where a namespace of the point goes.
func (r *restoration) to(namespace string) string {
	if to := r.object.Spec.Namespaces[namespace]; to != "" {
		return to
	}
	return namespace
}

// actOn runs the action restore on one object. The Blueprint that is on the cluster now goes before the one in the point: it may have
// been mended since.
func (r *restoration) actOn(ctx context.Context, i int, m made) error {
	now, err := r.blueprint(ctx, r.object.Namespace, m.Blueprint.Name)
	if err != nil {
		return err
	}
	if now != nil {
		m.Blueprint = now
	}
	if m.Blueprint.Actions[actionRestore] == nil {
		return fault.New("bring it back", fault.ErrUnsupported, "the Blueprint has no action restore; what it captured stays in the point", "")
	}
	if m.Object.Namespace != "" {
		m.Object.Namespace = r.to(m.Object.Namespace)
	} else {
		m.Object.Name = r.to(m.Object.Name) // a namespace itself
	}
	subject := r.record.Point.Subject
	p := performance{
		home: r.object.Namespace, owner: string(r.object.UID), name: fmt.Sprintf("restore-%d", i), action: actionRestore, rights: r.rights, made: m,
		vault: &blueprint.VaultDocument{
			URL: r.secrets.URL, Password: r.secrets.Password, OtherPassword: r.secrets.OtherPassword, Credentials: r.secrets.Credentials,
			Subject: blueprint.VaultSubject{Kind: subject.Kind, Name: subject.Name}, Point: r.record.Point.ID,
		},
	}
	if err := r.save(ctx, func(s *v1alpha1.RestoreStatus) { s.Actions[i].ActionSet = p.setName() }); err != nil {
		return err
	}
	_, err = r.perform(ctx, p)
	return err
}
