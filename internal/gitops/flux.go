package gitops

import (
	"context"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Groups of Flux's kinds.
const (
	fluxSources   = "source.toolkit.fluxcd.io"
	fluxKustomize = "kustomize.toolkit.fluxcd.io"
	fluxHelm      = "helm.toolkit.fluxcd.io"
)

// Kinds of Flux.
const (
	kindKustomization = "Kustomization"
	kindHelmRelease   = "HelmRelease"
	kindGitRepository = "GitRepository"
	kindOCIRepository = "OCIRepository"
)

// KustomizationKind is that of Flux's Kustomizations.
func KustomizationKind() schema.GroupVersionKind { return fluxKind(kindKustomization) }

func fluxKind(kind string) schema.GroupVersionKind {
	switch kind {
	case kindKustomization:
		return schema.GroupVersionKind{Group: fluxKustomize, Version: "v1", Kind: kind}
	case kindHelmRelease:
		return schema.GroupVersionKind{Group: fluxHelm, Version: "v2", Kind: kind}
	}
	return schema.GroupVersionKind{Group: fluxSources, Version: "v1", Kind: kind}
}

// flux is a Kustomization, or a HelmRelease where there is no Kustomization of the name.
type flux struct {
	client client.Client
	name   types.NamespacedName
}

func (f flux) full() string { return v1alpha1.EngineFlux + "/" + f.name.String() }

// read finds the object itself.
func (f flux) read(ctx context.Context) (*unstructured.Unstructured, error) {
	op := "read deployment " + f.full()
	for _, kind := range []string{kindKustomization, kindHelmRelease} {
		o, err := f.object(ctx, kind, f.name)
		if err != nil || o != nil {
			return o, fault.Wrap(op, nil, err, "")
		}
	}
	return nil, fault.New(op, fault.ErrNotFound, "there is no Kustomization and no HelmRelease of that name", "")
}

// object reads one of Flux's objects, nil for none.
func (f flux) object(ctx context.Context, kind string, name types.NamespacedName) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(fluxKind(kind))
	err := f.client.Get(ctx, name, o)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return o, fault.Wrap("read "+kind+" "+name.String(), kube.ClassOf(err), err, "")
}

// State reads how it stands. What syncs by itself is as it was before it was held off.
func (f flux) State(ctx context.Context) (State, error) {
	o, err := f.read(ctx)
	if err != nil {
		return State{}, err
	}
	if o.GetKind() == kindHelmRelease {
		return releaseState(f.full(), o), nil
	}
	was, err := heldBefore(o)
	if err != nil {
		return State{}, err
	}
	own, err := f.source(ctx, o, was.Source)
	if err != nil {
		return State{}, err
	}
	if sourceName(o) == was.Source {
		return kustomizationState(f.full(), o, own, nil, was.suspended()), nil
	}
	pin, err := f.source(ctx, o, sourceName(o))
	if err != nil {
		return State{}, err
	}
	if pin == nil { // Deploy makes it anew
		pin = &unstructured.Unstructured{}
	}
	return kustomizationState(f.full(), o, own, pin, was.suspended()), nil
}

// source reads what a Kustomization's manifests come from, under another name where one is said; nil for what is not there.
func (f flux) source(ctx context.Context, o *unstructured.Unstructured, name string) (*unstructured.Unstructured, error) {
	kind := text(o.Object, "spec", "sourceRef", "kind")
	if kind == "" || name == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return f.object(ctx, kind, types.NamespacedName{Namespace: sourceNamespace(o), Name: name})
}

func sourceName(o *unstructured.Unstructured) string {
	return text(o.Object, "spec", "sourceRef", "name")
}

func sourceNamespace(o *unstructured.Unstructured) string {
	if namespace := text(o.Object, "spec", "sourceRef", "namespace"); namespace != "" {
		return namespace
	}
	return o.GetNamespace()
}

// kustomizationState is how a Kustomization stands: own is the source that its user named, pin the one that it has while a Restore deploys,
// nil where none does.
func kustomizationState(name string, o, own, pin *unstructured.Unstructured, suspended bool) State {
	ready, used := conditionOf(o, "Ready"), own
	if pin != nil {
		used = pin
	}
	s := State{
		Name: name, UID: string(o.GetUID()), Namespace: text(o.Object, "spec", "targetNamespace"), Automated: !suspended,
		Sources: []Source{fluxSource(o, own)}, Live: fluxRevisions(text(o.Object, "status", "lastAppliedRevision")), Head: artifact(own),
		Healthy: ready.status == "True" && observed(o), Operation: kustomizationOperation(o, own, pin),
	}
	if s.Namespace == "" {
		s.Namespace = o.GetNamespace()
	}
	s.Synced = s.Healthy && same(artifact(used), s.Live)
	s.HeadLost = own == nil || unfetched(own)
	switch {
	case used == nil:
		s.Lost, s.Message = true, "there is no "+text(o.Object, "spec", "sourceRef", "kind")+" "+sourceName(o)
	case unfetched(used):
		s.Lost, s.Message = true, conditionOf(used, "FetchFailed").message
	case !s.Healthy:
		s.Message = ready.message
	}
	return s
}

// fluxDoubt is how long a source must fail to be fetched before it counts as lost: one try of Flux is not enough.
const fluxDoubt = 20 * time.Second

// unfetched reports whether a source cannot be read for some time.
func unfetched(source *unstructured.Unstructured) bool {
	failed := conditionOf(source, "FetchFailed")
	return failed.status == "True" && time.Since(failed.since) >= fluxDoubt
}

// kustomizationOperation is what a Kustomization does, is about to do, or did last.
func kustomizationOperation(o, own, pin *unstructured.Unstructured) *Operation {
	ready, reconciling := conditionOf(o, "Ready"), conditionOf(o, "Reconciling")
	applied, attempted := fluxRevisions(text(o.Object, "status", "lastAppliedRevision")), fluxRevisions(text(o.Object, "status", "lastAttemptedRevision"))
	next := artifact(own)
	if pin != nil {
		next = fluxRevisions(text(pin.Object, "spec", "ref", "commit") + text(pin.Object, "spec", "ref", "digest")) // one of them
	}
	// Flux tries these again by itself.
	waits := ready.status == "False" && slices.Contains([]string{"ArtifactFailed", "DependencyNotReady"}, ready.reason)
	op := &Operation{Revisions: attempted, Automated: true, Message: ready.message}
	switch {
	case pin != nil && unfetched(pin):
		op.Revisions, op.Phase, op.Message = next, "Failed", conditionOf(pin, "FetchFailed").message
	case pin != nil && !answered(o): // what the status says is of before
		op.Revisions = next
	case running(reconciling) && ready.status != "False":
		op.Revisions, op.Phase, op.Started, op.Message = next, "Running", reconciling.since, reconciling.message
	case next != nil && (waits || !same(next, attempted)) && !suspendedNow(o):
		op.Revisions = next
	case attempted == nil:
		return nil
	case same(attempted, applied) && ready.status == "True":
		op.Phase, op.Started = "Succeeded", ready.since
	default:
		op.Phase, op.Started = "Failed", ready.since
	}
	return op
}

// answered reports whether Flux has worked on the object since it was asked last: also, whether it has seen that it is suspended.
func answered(o *unstructured.Unstructured) bool {
	return o.GetAnnotations()[fluxRequested] == text(o.Object, "status", "lastHandledReconcileAt")
}

// releaseState is how a HelmRelease stands. Its revisions are versions of its chart; values come from who applies it.
func releaseState(name string, o *unstructured.Unstructured) State {
	ready, reconciling := conditionOf(o, "Ready"), conditionOf(o, "Reconciling")
	was, err := heldBefore(o)
	s := State{
		Name: name, UID: string(o.GetUID()), Namespace: text(o.Object, "spec", "targetNamespace"),
		Automated: err == nil && !was.suspended(), Head: fluxRevisions(text(o.Object, "status", "lastAttemptedRevision")),
		Healthy: ready.status == "True" && observed(o),
		Sources: []Source{{
			Chart:    text(o.Object, "spec", "chart", "spec", "chart"),
			Revision: text(o.Object, "spec", "chart", "spec", "version"),
		}},
	}
	if s.Namespace == "" {
		s.Namespace = o.GetNamespace()
	}
	history, _ := field(o.Object, "status", "history").([]any)
	for _, h := range history { // the newest first
		if entry, is := h.(map[string]any); is && text(entry, "status") == "deployed" {
			s.Live = fluxRevisions(text(entry, "chartVersion"))
			break
		}
	}
	s.Synced = s.Healthy && same(s.Live, s.Head)
	if !s.Healthy {
		s.Message = ready.message
	}
	s.Lost = ready.reason == "SourceNotReady" || ready.reason == "ArtifactFailed"
	s.HeadLost = s.Lost
	if s.Head == nil {
		return s
	}
	s.Operation = &Operation{Revisions: s.Head, Automated: true, Message: ready.message, Phase: "Failed", Started: ready.since}
	switch {
	case running(reconciling) && ready.status != "False":
		s.Operation.Phase, s.Operation.Started = "Running", reconciling.since
	case s.Synced:
		s.Operation.Phase = "Succeeded"
	}
	return s
}

// fluxSource says where manifests come from.
func fluxSource(o, source *unstructured.Unstructured) Source {
	s := Source{Path: strings.TrimPrefix(text(o.Object, "spec", "path"), "./")}
	if source == nil {
		return s
	}
	s.URL = text(source.Object, "spec", "url")
	for _, by := range []string{"commit", "digest", "name", "semver", "tag", "branch"} { // the first beats the others
		if revision := text(source.Object, "spec", "ref", by); revision != "" {
			s.Revision = revision
			break
		}
	}
	if s.Revision == "" && source.GetKind() == kindGitRepository {
		s.Revision = "master" // as Flux has it
	}
	return s
}

// artifact is the revision that a source had last.
func artifact(source *unstructured.Unstructured) []string {
	if source == nil {
		return nil
	}
	return fluxRevisions(text(source.Object, "status", "artifact", "revision"))
}

// fluxRevisions is the revision as others write it: main@sha1:COMMIT and sha1:COMMIT are COMMIT, latest@sha256:DIGEST is sha256:DIGEST, and
// the version of a chart is itself.
func fluxRevisions(revision string) []string {
	if at := strings.LastIndexByte(revision, '@'); at >= 0 {
		revision = revision[at+1:]
	}
	if revision = strings.TrimPrefix(revision, "sha1:"); revision == "" {
		return nil
	}
	return []string{revision}
}

func same(a, b []string) bool { return len(a) == 1 && len(b) == 1 && a[0] == b[0] }

// observed reports whether the status is of the spec as it is.
func observed(o *unstructured.Unstructured) bool {
	seen, _ := field(o.Object, "status", "observedGeneration").(int64)
	return seen == o.GetGeneration()
}

func suspendedNow(o *unstructured.Unstructured) bool {
	return field(o.Object, "spec", "suspend") == true
}

// condition is one of an object's conditions; empty for one that it lacks.
type condition struct {
	status, reason, message string
	since                   time.Time
}

func conditionOf(o *unstructured.Unstructured, name string) condition {
	all, _ := field(o.Object, "status", "conditions").([]any)
	for _, each := range all {
		if m, is := each.(map[string]any); is && text(m, "type") == name {
			since, _ := time.Parse(time.RFC3339, text(m, "lastTransitionTime")) // zero for what is no time
			return condition{text(m, "status"), text(m, "reason"), text(m, "message"), since}
		}
	}
	return condition{}
}

// running reports whether a condition Reconciling is that of work, and not of a pause before it is tried again.
func running(reconciling condition) bool {
	return reconciling.status == "True" && reconciling.reason != "ProgressingWithRetry"
}
