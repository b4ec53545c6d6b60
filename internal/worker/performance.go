package worker

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
)

// performance is one action on one object, for a Backup, a Restore or a point that goes. Taken up again, it goes on where it stood.
type performance struct {
	home   string // namespace of the object that it is for, and of its Blueprint
	owner  string // uid
	name   string // among the owner's
	action string
	rights *kube.Cluster
	made   made
	vault  *blueprint.VaultDocument // for what made names no Profile for
}

// setName is the name of the ActionSet.
func (p performance) setName() string {
	const digits = 8
	return "backstay-" + p.owner[:min(digits, len(p.owner))] + "-" + p.name
}

// perform runs an action as an ActionSet of its own, which others can look at. It returns what it made. An error of the class
// fault.ErrIncomplete is the action's.
func (w *Worker) perform(ctx context.Context, p performance) (map[string]blueprint.Artifact, error) {
	set, err := w.actionSet(ctx, p)
	if err != nil {
		return nil, err
	}
	o := blueprint.ResolveOptions{Confined: p.home != w.System, Vault: w.vaultOf, Now: w.Now}
	if p.made.Profile == "" {
		o.Profile = &blueprint.ProfileDocument{Vault: p.vault}
		o.Profile.Location.Type, o.Profile.Credential.Type = blueprint.LocationKopia, blueprint.CredentialVault
	}
	if err := w.runActions(ctx, set, p.rights, map[string]*blueprint.Blueprint{p.made.Blueprint.Name: p.made.Blueprint}, o); err != nil {
		return nil, err
	}
	if set.Status.State != blueprint.StateComplete {
		return nil, fault.New("action "+p.action, fault.ErrIncomplete, set.Status.Error.Message, "")
	}
	return set.Status.Actions[0].Artifacts, nil
}

// actionSet makes the ActionSet of a performance, or finds the one that an earlier process made.
func (w *Worker) actionSet(ctx context.Context, p performance) (*blueprint.ActionSet, error) {
	action := blueprint.ActionSpec{
		Name: p.action, Object: p.made.Object, Blueprint: p.made.Blueprint.Name, Options: p.made.Options, Artifacts: p.made.Artifacts,
	}
	labels := map[string]string{v1alpha1.LabelOwner: p.owner}
	if p.action == actionDelete {
		labels[v1alpha1.LabelPoint] = p.owner // nobody tidies it away but who made it
	}
	if p.made.Profile != "" {
		action.Profile = &blueprint.ObjectReference{Name: p.made.Profile, Namespace: p.home}
	}
	set := &blueprint.ActionSet{
		ObjectMeta: metav1.ObjectMeta{Name: p.setName(), Namespace: p.home, Labels: labels},
		Spec:       &blueprint.ActionSetSpec{Actions: []blueprint.ActionSpec{action}},
	}
	op := "make ActionSet " + set.Name
	err := w.Cluster.Client.Create(ctx, set)
	if !apierrors.IsAlreadyExists(err) {
		return set, fault.Wrap(op, kube.ClassOf(err), err, "Blueprints need the kinds in deploy/kanister/crds.yaml, unless Kanister is installed")
	}
	if err := w.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	if set.Labels[v1alpha1.LabelOwner] != p.owner {
		return nil, fault.New(op, fault.ErrExists, "there is one of that name that is not ours", "")
	}
	return set, nil
}

// dropActionSet removes the ActionSet of a performance.
func (w *Worker) dropActionSet(ctx context.Context, p performance) error {
	set := &blueprint.ActionSet{ObjectMeta: metav1.ObjectMeta{Name: p.setName(), Namespace: p.home}}
	return client.IgnoreNotFound(w.Cluster.Client.Delete(ctx, set))
}

// dropActionSets removes the ActionSets of owners that have ended.
func (w *Worker) dropActionSets(ctx context.Context, ended func(owner string) bool) error {
	var all blueprint.ActionSetList
	err := w.Cluster.Client.List(ctx, &all, client.HasLabels{v1alpha1.LabelOwner})
	if meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return fault.Wrap("list ActionSets", kube.ClassOf(err), err, "")
	}
	var failed []error
	for i := range all.Items {
		if set := &all.Items[i]; set.Labels[v1alpha1.LabelPoint] == "" && ended(set.Labels[v1alpha1.LabelOwner]) {
			failed = append(failed, client.IgnoreNotFound(w.Cluster.Client.Delete(ctx, set)))
		}
	}
	return errors.Join(failed...)
}

// letting is a store whose points take along what Blueprints keep for them elsewhere.
type letting struct {
	Store
	worker *Worker
	home   string
	vault  volume.Location
}

// Delete runs the action delete of each Blueprint that made something for a point, before the point goes. Where that fails, the point
// stays, and is refused with the reason.
func (l letting) Delete(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if err := l.worker.unmake(ctx, l, id); err != nil {
			return err
		}
	}
	return l.Store.Delete(ctx, ids...)
}

func (w *Worker) unmake(ctx context.Context, l letting, id string) error {
	record, tree, err := l.Open(ctx, id)
	if err != nil {
		return err
	}
	all, err := readMade(ctx, record, tree)
	if err != nil {
		return err
	}
	for i, m := range all {
		now, err := w.blueprint(ctx, l.home, m.Blueprint.Name)
		if err != nil {
			return err
		}
		if now != nil && now.Actions[actionDelete] != nil {
			m.Blueprint = now
		}
		if m.Blueprint.Actions[actionDelete] == nil {
			continue
		}
		rights, err := w.tenant(l.home, "")
		if err != nil {
			return err
		}
		subject := record.Point.Subject
		p := performance{
			home: l.home, owner: record.Point.ID, name: fmt.Sprintf("delete-%d", i), action: actionDelete, rights: rights, made: m,
			vault: &blueprint.VaultDocument{
				URL: l.vault.URL, Password: l.vault.Password, OtherPassword: l.vault.OtherPassword, Credentials: l.vault.Credentials,
				Subject: blueprint.VaultSubject{Kind: subject.Kind, Name: subject.Name}, Point: record.Point.ID,
			},
		}
		_, err = w.perform(ctx, p)
		if err == nil || !again(ctx, err) { // it is begun anew when the point is to go once more
			err = errors.Join(err, w.dropActionSet(ctx, p))
		}
		switch {
		case err != nil && again(ctx, err):
			return err
		case err != nil:
			cause := fmt.Sprintf("what Blueprint %s keeps for it elsewhere was not removed: %v", m.Blueprint.Name, err)
			return fault.New("delete point "+id, fault.ErrRefused, cause, "")
		}
	}
	return nil
}
