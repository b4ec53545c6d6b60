package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/blueprint/function"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

const blueprintRunHelp = `
Run makes an ActionSet on the cluster for an action of a Blueprint there, and follows it until it has ended; Backstay's controller runs it.
Interrupted, it leaves the ActionSet to the cluster. A Blueprint in a file is written to the cluster first.

Objects are KIND/NAMESPACE/NAME, of kind deployment, statefulset, deploymentconfig or pvc; namespace/NAME; or
RESOURCE.VERSION.GROUP/NAMESPACE/NAME for any other. With --from the action is for the objects of an earlier ActionSet, with its artifacts.`

// blueprintRun is what `blueprint run` is asked for.
type blueprintRun struct {
	cluster    clusterOptions
	action     string
	objects    []string
	profile    string
	artifacts  []string
	from       string
	options    map[string]string
	secrets    map[string]string
	configMaps map[string]string
}

func newBlueprintRunCommand(a *app) *cobra.Command {
	var o blueprintRun
	cmd := &cobra.Command{
		Use:   "run NAME|FILE --action ACTION",
		Short: "Run an action of a Blueprint on a cluster",
		Long:  exits(blueprintRunHelp, "3   the action failed"),
		Example: "  backstay blueprint run mysql --action backup --object statefulset/shop/mysql --profile shop/s3\n" +
			"  backstay blueprint run mysql --action restore --from backup-x7k2p",
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.runBlueprint(ctx, args[0], o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.action, "action", "", "run the `ACTION` of the Blueprint")
	flags.StringArrayVar(&o.objects, "object", nil, "run it on `KIND/NAMESPACE/NAME`; repeat for more")
	flags.StringVar(&o.profile, "profile", "", "store artifacts as the Profile `NAMESPACE/NAME` says")
	flags.StringArrayVar(&o.artifacts, "artifact", nil, "give it the artifact `NAME:KEY=VALUE`, or NAME=VALUE for one of kopia's; repeat for more")
	flags.StringVar(&o.from, "from", "", "take objects, artifacts and the rest from the `ACTIONSET`")
	flags.StringToStringVar(&o.options, "option", nil, "give it the option `NAME=VALUE`; repeat for more")
	flags.StringToStringVar(&o.secrets, "secret", nil, "give it the Secret `NAME=NAMESPACE/SECRET`; repeat for more")
	flags.StringToStringVar(&o.configMaps, "config-map", nil, "give it the ConfigMap `NAME=NAMESPACE/CONFIGMAP`; repeat for more")
	o.cluster.bind(flags)
	return cmd
}

// runBlueprint makes an ActionSet and follows it.
func (a *app) runBlueprint(ctx context.Context, which string, o blueprintRun) error {
	if o.action == "" {
		return fault.New("blueprint run", fault.ErrInvalid, "no action", "say --action backup")
	}
	var fromFile *blueprint.Blueprint
	if isFile(which) {
		var err error
		if fromFile, err = a.oneBlueprint(which); err != nil {
			return err
		}
	}
	cluster, err := kube.Connect(o.cluster.kubeconfig, o.cluster.context, blueprint.AddToScheme)
	if err != nil {
		return err
	}
	s := &site{a, cluster.Client, cmp.Or(o.cluster.namespace, defaultNamespace)}
	b, err := s.blueprint(ctx, which, fromFile)
	if err != nil {
		return err
	}
	if b.Actions[o.action] == nil {
		return fault.New("Blueprint "+b.Name, fault.ErrNotFound, "it has no action "+o.action,
			"it has "+strings.Join(slices.Sorted(maps.Keys(b.Actions)), ", "))
	}
	set, err := s.actionSet(ctx, b, o)
	if err != nil {
		return err
	}
	if err := s.client.Create(ctx, set); err != nil {
		return answer("make ActionSet", err)
	}
	if err := s.followActions(ctx, set); err != nil {
		return err
	}
	return s.tellActions(set)
}

// isFile reports whether an argument is of a file, not a name of an object.
func isFile(argument string) bool {
	extension := filepath.Ext(argument)
	return argument == "-" || strings.ContainsAny(argument, `/\`) || extension == ".yaml" || extension == ".yml" || extension == ".json"
}

// oneBlueprint reads the Blueprint of a file that is good, and has one.
func (a *app) oneBlueprint(file string) (*blueprint.Blueprint, error) {
	documents, err := a.readBlueprints(file)
	if err != nil {
		return nil, fault.Wrap(file, nil, err, "")
	}
	if n := len(documents.Blueprints); n != 1 {
		return nil, fault.New(file, fault.ErrInvalid, fmt.Sprintf("it has %s, and one is run", plural(int64(n), "Blueprint", "Blueprints")), "")
	}
	b := documents.Blueprints[0]
	return b, errors.Join(blueprint.Validate(b, function.All(function.Options{}))...)
}

// blueprint is the Blueprint on the cluster; one of a file is written there.
func (s *site) blueprint(ctx context.Context, name string, fromFile *blueprint.Blueprint) (*blueprint.Blueprint, error) {
	if fromFile != nil {
		name = fromFile.Name
	}
	var b blueprint.Blueprint
	err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, &b)
	switch {
	case fromFile == nil:
		return &b, answer("read Blueprint "+name, err)
	case apierrors.IsNotFound(err):
		fromFile.Namespace = s.namespace
		return fromFile, answer("make Blueprint "+name, s.client.Create(ctx, fromFile))
	case err != nil:
		return nil, answer("read Blueprint "+name, err)
	}
	b.Actions, b.Annotations = fromFile.Actions, fromFile.Annotations
	return &b, answer("change Blueprint "+name, s.client.Update(ctx, &b))
}

// actionSet is what is to be made.
func (s *site) actionSet(ctx context.Context, b *blueprint.Blueprint, o blueprintRun) (*blueprint.ActionSet, error) {
	actions, err := s.beginning(ctx, b, o)
	if err != nil {
		return nil, err
	}
	given, err := artifactsOf(o.artifacts)
	if err != nil {
		return nil, err
	}
	for i := range actions {
		action := &actions[i]
		action.Name, action.Blueprint = o.action, b.Name
		if o.profile != "" {
			ref, err := referenceTo("--profile", o.profile)
			if err != nil {
				return nil, err
			}
			action.Profile = &ref
		}
		for name, artifact := range given {
			set(&action.Artifacts, name, artifact)
		}
		for name, value := range o.options {
			set(&action.Options, name, value)
		}
		for flag, refs := range map[string]struct {
			given map[string]string
			into  *map[string]blueprint.ObjectReference
		}{"--secret": {o.secrets, &action.Secrets}, "--config-map": {o.configMaps, &action.ConfigMaps}} {
			for name, value := range refs.given {
				ref, err := referenceTo(flag, value)
				if err != nil {
					return nil, err
				}
				set(refs.into, name, ref)
			}
		}
	}
	return &blueprint.ActionSet{
		ObjectMeta: metav1.ObjectMeta{GenerateName: nameFrom(strings.ToLower(o.action)), Namespace: s.namespace},
		Spec:       &blueprint.ActionSetSpec{Actions: actions},
	}, nil
}

func set[V any](m *map[string]V, name string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[name] = value
}

// beginning is an action for each object, or those of an earlier ActionSet with the artifacts that it made.
func (s *site) beginning(ctx context.Context, b *blueprint.Blueprint, o blueprintRun) ([]blueprint.ActionSpec, error) {
	var objects []blueprint.ObjectReference
	for _, text := range o.objects {
		ref, err := objectReference(text)
		if err != nil {
			return nil, err
		}
		objects = append(objects, ref)
	}
	var actions []blueprint.ActionSpec
	if o.from == "" {
		for _, ref := range objects {
			actions = append(actions, blueprint.ActionSpec{Object: ref})
		}
		if len(actions) == 0 {
			return nil, fault.New("blueprint run", fault.ErrInvalid, "no object", "say --object KIND/NAMESPACE/NAME, or --from ACTIONSET")
		}
		return actions, nil
	}
	op := "ActionSet " + o.from
	var parent blueprint.ActionSet
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: o.from}, &parent); err != nil {
		return nil, answer("read "+op, err)
	}
	if parent.Spec == nil || parent.Status == nil || len(parent.Status.Actions) != len(parent.Spec.Actions) {
		return nil, fault.New(op, fault.ErrInvalid, "it has not run", "")
	}
	for i, action := range parent.Spec.Actions {
		if action.Blueprint != b.Name {
			continue
		}
		action.Artifacts = parent.Status.Actions[i].Artifacts
		actions = append(actions, action)
	}
	switch {
	case len(actions) == 0:
		return nil, fault.New(op, fault.ErrInvalid, "none of its actions is of Blueprint "+b.Name, "")
	case len(objects) == 0:
	case len(objects) == 1 && len(actions) == 1:
		actions[0].Object = objects[0]
	default:
		return nil, fault.New("blueprint run", fault.ErrInvalid, "--object with --from takes the place of one object by one other", "")
	}
	return actions, nil
}

// objectReference reads KIND/NAMESPACE/NAME.
func objectReference(text string) (blueprint.ObjectReference, error) {
	kind, rest, _ := strings.Cut(text, "/")
	namespace, name, found := strings.Cut(rest, "/")
	bad := func(why string) error {
		return fault.New("--object "+text, fault.ErrInvalid, why, "statefulset/shop/mysql, namespace/shop, clusters.v1.postgresql.cnpg.io/shop/db")
	}
	switch strings.ToLower(kind) {
	case "namespace":
		if found || rest == "" {
			return blueprint.ObjectReference{}, bad("it is not namespace/NAME")
		}
		return blueprint.ObjectReference{Kind: "Namespace", Name: rest, Namespace: rest}, nil
	case "statefulset", "deployment", "deploymentconfig", "pvc":
	default:
		gvr, _ := schema.ParseResourceArg(kind)
		if gvr == nil {
			return blueprint.ObjectReference{}, bad("there is no such kind")
		}
		if !found { // of no namespace
			namespace, name = "", rest
		}
		ref := blueprint.ObjectReference{Group: gvr.Group, APIVersion: gvr.Version, Resource: gvr.Resource, Namespace: namespace, Name: name}
		if name == "" {
			return ref, bad("it has no name")
		}
		return ref, nil
	}
	if !found || namespace == "" || name == "" || strings.Contains(name, "/") {
		return blueprint.ObjectReference{}, bad("it is not KIND/NAMESPACE/NAME")
	}
	return blueprint.ObjectReference{Kind: kind, Namespace: namespace, Name: name}, nil
}

// referenceTo reads NAMESPACE/NAME.
func referenceTo(flag, text string) (blueprint.ObjectReference, error) {
	namespace, name, err := namespaced(text)
	return blueprint.ObjectReference{Namespace: namespace, Name: name}, fault.Wrap(flag, nil, err, "")
}

// artifactsOf reads NAME:KEY=VALUE and NAME=VALUE.
func artifactsOf(texts []string) (map[string]blueprint.Artifact, error) {
	all := map[string]blueprint.Artifact{}
	for _, text := range texts {
		left, value, found := strings.Cut(text, "=")
		name, key, keyed := strings.Cut(left, ":")
		if !found || name == "" || keyed && key == "" {
			return nil, fault.New("--artifact "+text, fault.ErrInvalid, "it is not NAME:KEY=VALUE", "")
		}
		artifact := all[name]
		if keyed {
			set(&artifact.KeyValue, key, value)
		} else {
			artifact.KopiaSnapshot = value
		}
		all[name] = artifact
	}
	return all, nil
}

// followActions waits until an ActionSet has ended, and tells how its phases fare.
func (s *site) followActions(ctx context.Context, set *blueprint.ActionSet) error {
	const lonely = 30 * time.Second
	began, said, wondered := s.Clock(), map[string]blueprint.State{}, false
	for {
		if set.Status != nil {
			s.tellPhases(set, said)
			if set.Status.State.Final() {
				return nil
			}
		} else if !wondered && s.Clock().Sub(began) > lonely {
			s.told.notice("nobody has taken up ActionSet %s yet; does Backstay's controller run, and see to ActionSets of %s?", set.Name, set.Namespace)
			wondered = true
		}
		if err := kube.Pause(ctx, lookEvery); err != nil {
			s.told.notice("ActionSet %s goes on in the cluster; `kubectl -n %s get actionset %s -o yaml` shows how it fares", set.Name, set.Namespace, set.Name)
			return err
		}
		fresh := &blueprint.ActionSet{}
		err := s.client.Get(ctx, client.ObjectKeyFromObject(set), fresh)
		switch {
		case err == nil:
			*set = *fresh
		case !kube.Transient(err): // else the API server may be back the next time
			return answer("follow ActionSet "+set.Name, err)
		}
	}
}

// tellPhases tells which phases are in another state than was said.
func (s *site) tellPhases(set *blueprint.ActionSet, said map[string]blueprint.State) {
	for i, action := range set.Status.Actions {
		for _, p := range append(slices.Clone(action.Phases), action.DeferPhase) {
			key := fmt.Sprintf("%d/%s", i, p.Name)
			if p.Name == "" || said[key] == p.State || p.State == blueprint.StatePending {
				continue
			}
			said[key] = p.State
			if !s.global.quiet {
				object := strings.Trim(action.Object.Namespace+"/"+action.Object.Name, "/")
				s.told.progress(message{Message: fmt.Sprintf("%s: %s of %s: phase %s: %s", set.Name, action.Name, object, p.Name, p.State)})
			}
		}
	}
}

// actionSetDocument is what `blueprint run --json` prints.
type actionSetDocument struct {
	Version   int                        `json:"version"`
	Name      string                     `json:"name"`
	Namespace string                     `json:"namespace"`
	Status    *blueprint.ActionSetStatus `json:"status"`
}

func (s *site) tellActions(set *blueprint.ActionSet) error {
	if s.global.json {
		if err := s.document(actionSetDocument{documentVersion, set.Name, set.Namespace, set.Status}); err != nil {
			return err
		}
	}
	for _, action := range set.Status.Actions {
		for _, name := range slices.Sorted(maps.Keys(action.Artifacts)) {
			artifact := action.Artifacts[name]
			for _, key := range slices.Sorted(maps.Keys(artifact.KeyValue)) {
				s.say("artifact %s: %s=%s", name, key, artifact.KeyValue[key])
			}
			if artifact.KopiaSnapshot != "" {
				s.say("artifact %s: %s", name, artifact.KopiaSnapshot)
			}
		}
	}
	if set.Status.State == blueprint.StateFailed {
		return fault.New("ActionSet "+set.Name, fault.ErrIncomplete, set.Status.Error.Message, "")
	}
	s.say("complete: ActionSet %s", set.Name)
	return nil
}
