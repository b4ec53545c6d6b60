package gitops

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// FluxGate is a Kustomization that deploys nothing: it is suspended, bears the label v1alpha1.LabelGate with the name of another one of its
// namespace, and that one depends on it. Flux holds the other at the revision that the gate says it has applied, where both have the same
// source. As it is suspended, Flux never writes its status: that is Backstay's.
type FluxGate struct {
	object, gated, source *unstructured.Unstructured
}

// reasonHeld is what a gate says while a Restore holds what it is before.
const reasonHeld = "Restore"

// FluxGateKinds are what has to be watched for gates: Kustomizations, and the sources that they share.
func FluxGateKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{fluxKind(kindKustomization), fluxKind(kindGitRepository), fluxKind(kindOCIRepository)}
}

// ReadFluxGate reads a gate, what it is before, and their source. Nil is no gate.
func ReadFluxGate(ctx context.Context, c client.Client, name types.NamespacedName) (*FluxGate, error) {
	f := flux{client: c}
	o, err := f.object(ctx, kindKustomization, name)
	if o == nil || err != nil || o.GetLabels()[v1alpha1.LabelGate] == "" || o.GetDeletionTimestamp() != nil {
		return nil, err
	}
	g := &FluxGate{object: o}
	if g.gated, err = f.object(ctx, kindKustomization, types.NamespacedName{Namespace: name.Namespace, Name: o.GetLabels()[v1alpha1.LabelGate]}); err != nil {
		return nil, err
	}
	g.source, err = f.source(ctx, o, sourceName(o))
	return g, err
}

// Object is the gate itself.
func (g FluxGate) Object() *unstructured.Unstructured { return g.object }

// Gated is what it is before; nil where that is not there.
func (g FluxGate) Gated() *unstructured.Unstructured { return g.gated }

// Unfit is why the gate would not hold anything; nil for one that does.
func (g FluxGate) Unfit() error {
	op := "gate " + g.object.GetName()
	no := func(cause, hint string) error { return fault.New(op, fault.ErrInvalid, cause, hint) }
	if g.gated == nil {
		return fault.New(op, fault.ErrNotFound, "there is no Kustomization "+g.object.GetLabels()[v1alpha1.LabelGate], "its label "+v1alpha1.LabelGate+" names what it is before")
	}
	if !suspendedNow(g.object) {
		return no("it is not suspended", "set spec.suspend: true, or Flux answers in the place of Backstay")
	}
	was, err := heldBefore(g.gated)
	if err != nil {
		return err
	}
	if was.Source != sourceName(g.object) || sourceNamespace(g.gated) != sourceNamespace(g.object) ||
		text(g.gated.Object, "spec", "sourceRef", "kind") != text(g.object.Object, "spec", "sourceRef", "kind") {
		return no("it has another source than "+g.gated.GetName(), "Flux compares revisions of the same source only: give both the same spec.sourceRef")
	}
	all, _ := field(g.gated.Object, "spec", "dependsOn").([]any)
	for _, d := range all {
		m, _ := d.(map[string]any)
		here := text(m, "namespace") == "" || text(m, "namespace") == g.object.GetNamespace()
		if here && text(m, "name") == g.object.GetName() && text(m, "readyExpr") == "" {
			return nil
		}
	}
	return no(g.gated.GetName()+" does not depend on it", fmt.Sprintf("add `dependsOn: [{name: %s}]`, without a readyExpr: that takes the place of comparing revisions", g.object.GetName()))
}

// Held reports whether a Restore holds what the gate is before: what it deploys then passes.
func (g FluxGate) Held() bool { return g.gated.GetAnnotations()[v1alpha1.AnnotationRestore] != "" }

// Next is the revision that the source has, as Flux writes it; empty before the first.
func (g FluxGate) Next() string {
	if g.source == nil {
		return ""
	}
	return text(g.source.Object, "status", "artifact", "revision")
}

// Passed reports whether a revision went through the gate last, or is live without it.
func (g FluxGate) Passed(revision string) bool {
	return text(g.object.Object, "status", "lastAppliedRevision") == revision || text(g.gated.Object, "status", "lastAppliedRevision") == revision
}

// Open reports whether the gate says already, of its own accord, that a revision may pass.
func (g FluxGate) Open(revision string) bool {
	ready := conditionOf(g.object, v1alpha1.ConditionReady)
	return text(g.object.Object, "status", "lastAppliedRevision") == revision && ready.status == "True" && ready.reason != reasonHeld && observed(g.object)
}

// Suspended reports whether nothing would be deployed anyway.
func (g FluxGate) Suspended() bool { return suspendedNow(g.gated) }

// Asked is when somebody asked for a sync last: `flux reconcile`.
func (g FluxGate) Asked() time.Time {
	at, err := time.Parse(time.RFC3339Nano, g.gated.GetAnnotations()[fluxRequested])
	if err != nil {
		return time.Time{}
	}
	return at
}

// Empty reports whether what the gate is before has never deployed anything.
func (g FluxGate) Empty() bool {
	all, _ := field(g.gated.Object, "status", "inventory", "entries").([]any)
	return len(all) == 0 && text(g.gated.Object, "status", "lastAppliedRevision") == ""
}

// State is how what the gate is before stands, with the sync to Next as its operation, which begins when the source had that.
func (g FluxGate) State() State {
	name := types.NamespacedName{Namespace: g.gated.GetNamespace(), Name: g.gated.GetName()}
	s := kustomizationState(flux{name: name}.full(), g.gated, g.source, nil, suspendedNow(g.gated))
	since, _ := time.Parse(time.RFC3339, text(g.source.Object, "status", "artifact", "lastUpdateTime")) // zero for what is no time
	s.Operation = &Operation{Revisions: fluxRevisions(g.Next()), Started: since, Automated: true}
	return s
}

// Say writes into the gate's status what Flux and people read there: True lets Next through, Unknown is a wait, False holds it. It reports
// false where the status says so already.
func (g FluxGate) Say(ready metav1.ConditionStatus, reason, message string, now time.Time) bool {
	status, _ := field(g.object.Object, "status").(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	was := conditionOf(g.object, v1alpha1.ConditionReady)
	revision := text(status, "lastAppliedRevision")
	if next := g.Next(); ready == metav1.ConditionTrue && !g.Held() && next != "" {
		revision = next
	}
	said := condition{status: string(ready), reason: reason, message: message, since: was.since}
	if said == was && revision == text(status, "lastAppliedRevision") && observed(g.object) {
		return false
	}
	if was.status != said.status {
		said.since = now
	}
	if status["observedGeneration"] = g.object.GetGeneration(); revision != "" {
		status["lastAppliedRevision"] = revision
	}
	status["conditions"] = []any{map[string]any{
		"type": v1alpha1.ConditionReady, "status": said.status, "reason": said.reason, "message": said.message,
		"lastTransitionTime": said.since.UTC().Format(time.RFC3339), "observedGeneration": g.object.GetGeneration(),
	}}
	g.object.Object["status"] = status
	return true
}

// GatesOfFlux are the gates among Kustomizations that another Kustomization, or a source, may have to do with.
func GatesOfFlux(all []unstructured.Unstructured, changed client.Object) []types.NamespacedName {
	var names []types.NamespacedName
	for i := range all {
		o := &all[i]
		before := o.GetLabels()[v1alpha1.LabelGate]
		own := o.GetNamespace() == changed.GetNamespace() && slices.Contains([]string{before, o.GetName()}, changed.GetName())
		if before != "" && (own || sourceNamespace(o) == changed.GetNamespace() && sourceName(o) == changed.GetName()) {
			names = append(names, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
		}
	}
	return names
}
