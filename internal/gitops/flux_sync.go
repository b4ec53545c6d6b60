package gitops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Annotations that Flux obeys.
const (
	fluxReconcile = fluxKustomize + "/reconcile" // disabled: who applies the object leaves it as it is
	fluxRequested = "reconcile.fluxcd.io/requestedAt"
)

// annotationBefore on what a Restore holds says how it was, beside v1alpha1.AnnotationRestore.
const annotationBefore = v1alpha1.Group + "/before"

// Suspensions are the Kustomization or HelmRelease, and each HelmRelease that applies it. A Kustomization that applies it goes on with all
// else that it applies: an annotation has it leave this one alone.
func (f flux) Suspensions(ctx context.Context) ([]v1alpha1.Suspension, error) {
	o, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	const most = 10 // more is a ring
	var all []v1alpha1.Suspension
	for len(all) < most {
		was, err := heldBefore(o)
		if err != nil {
			return nil, err
		}
		all = append(all, v1alpha1.Suspension{
			Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(), Of: []string{f.name.Name}, Before: was.suspended(),
		})
		parent := types.NamespacedName{Namespace: o.GetLabels()[fluxHelm+"/namespace"], Name: o.GetLabels()[fluxHelm+"/name"]}
		if parent.Name == "" || parent.Namespace == "" {
			break
		}
		if o, err = f.object(ctx, kindHelmRelease, parent); err != nil {
			return nil, err
		}
		if o == nil {
			break
		}
	}
	return all, nil
}

// Suspend has Flux leave an object, and who applies the object leave it as it is from now on. An object that another Restore holds is taken
// over: how it was before that one is what comes back.
func (f flux) Suspend(ctx context.Context, s v1alpha1.Suspension, by string) error {
	return f.change(ctx, "suspend", s, func(o *unstructured.Unstructured) error {
		holder := o.GetAnnotations()[v1alpha1.AnnotationRestore]
		if holder == by {
			return nil
		}
		was, err := heldBefore(o)
		if err != nil {
			return err
		}
		record, err := json.Marshal(was)
		if err != nil {
			return err
		}
		annotate(o, map[string]string{
			v1alpha1.AnnotationRestore: by, annotationBefore: string(record), fluxReconcile: "disabled", fluxRequested: token("suspend", by),
		})
		return unstructured.SetNestedField(o.Object, true, "spec", "suspend")
	})
}

// Resume puts an object back as it was.
func (f flux) Resume(ctx context.Context, s v1alpha1.Suspension, by string) error {
	pin := types.NamespacedName{Namespace: s.Namespace}
	kind, mine := "", false
	err := f.change(ctx, "resume", s, func(o *unstructured.Unstructured) error {
		holder := o.GetAnnotations()[v1alpha1.AnnotationRestore]
		if mine = holder == "" || holder == by; !mine {
			return nil
		}
		pin.Namespace, pin.Name, kind = sourceNamespace(o), pinName(o), text(o.Object, "spec", "sourceRef", "kind")
		if holder == "" {
			return nil
		}
		was, err := heldBefore(o)
		if err != nil {
			return err
		}
		return was.restore(o)
	})
	if err != nil || !mine || kind == "" {
		return err
	}
	return f.unpin(ctx, kind, pin)
}

// unpin deletes the source that Deploy made.
func (f flux) unpin(ctx context.Context, kind string, pin types.NamespacedName) error {
	o, err := f.object(ctx, kind, pin)
	if err != nil || o == nil || o.GetLabels()[v1alpha1.AnnotationRestore] == "" {
		return err
	}
	err = client.IgnoreNotFound(f.client.Delete(ctx, o))
	return fault.Wrap("delete "+kind+" "+pin.String(), kube.ClassOf(err), err, "")
}

// Stop waits until what was begun before Suspend has ended: Flux does not break it off, and says when it has seen that it is suspended.
// What was deployed for another Restore than by is suspended again.
func (f flux) Stop(ctx context.Context, by string) error {
	const pause = 500 * time.Millisecond
	for {
		o, err := f.read(ctx)
		if err != nil {
			return err
		}
		holder := o.GetAnnotations()[v1alpha1.AnnotationRestore]
		switch {
		case holder == "", holder == by && !suspendedNow(o):
			return nil
		case !suspendedNow(o):
			if err := f.halt(ctx, o, holder); err != nil {
				return err
			}
		case answered(o):
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.Wrap("stop "+f.full(), fault.ErrUnavailable, fmt.Errorf("it did not come to rest: %w", ctx.Err()),
				"does Flux's controller run? What it applies and waits for ends at the latest after spec.timeout")
		case <-time.After(pause):
		}
	}
}

// halt suspends what is deployed for a Restore.
func (f flux) halt(ctx context.Context, o *unstructured.Unstructured, holder string) error {
	s := v1alpha1.Suspension{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
	return f.change(ctx, "suspend", s, func(o *unstructured.Unstructured) error {
		annotate(o, map[string]string{fluxRequested: token("stop", holder)})
		return unstructured.SetNestedField(o.Object, true, "spec", "suspend")
	})
}

// Deploy has a Kustomization apply a revision: from a source of our own beside the user's, of that revision alone. Until Resume nobody else
// changes the Kustomization, so it stays there.
func (f flux) Deploy(ctx context.Context, revisions []string, by string) error {
	op := "deploy " + f.full() + " at " + strings.Join(revisions, ", ")
	o, err := f.read(ctx)
	if err != nil {
		return err
	}
	if o.GetKind() == kindHelmRelease {
		return fault.New(op, fault.ErrUnsupported, "a HelmRelease has no revision of its values: they are of what applies it", applierHint(o))
	}
	if len(revisions) != 1 {
		return fault.New(op, fault.ErrInvalid, fmt.Sprintf("a Kustomization has one source, not %d", len(revisions)), "")
	}
	if o.GetAnnotations()[v1alpha1.AnnotationRestore] != by {
		return fault.New(op, fault.ErrInvalid, "it was not suspended for "+by, "")
	}
	was, err := heldBefore(o)
	if err != nil {
		return err
	}
	source, err := f.source(ctx, o, was.Source)
	if err != nil {
		return err
	}
	if source == nil {
		return fault.New(op, fault.ErrNotFound, "there is no source "+was.Source, "")
	}
	if err := f.pin(ctx, op, o, source, revisions[0], by); err != nil {
		return err
	}
	s := v1alpha1.Suspension{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
	return f.change(ctx, "deploy", s, func(o *unstructured.Unstructured) error {
		if o.GetAnnotations()[v1alpha1.AnnotationRestore] != by {
			return fault.New(op, fault.ErrInvalid, "it is not suspended for "+by+" any more", "")
		}
		annotate(o, map[string]string{fluxRequested: token(revisions[0], by)})
		unstructured.RemoveNestedField(o.Object, "spec", "suspend")
		return unstructured.SetNestedField(o.Object, pinName(o), "spec", "sourceRef", "name")
	})
}

// pin makes the source of one revision, or has the one that is there be of it.
func (f flux) pin(ctx context.Context, op string, o, source *unstructured.Unstructured, revision, by string) error {
	spec, _ := field(source.Object, "spec").(map[string]any)
	spec = runtime.DeepCopyJSON(spec)
	delete(spec, "suspend")
	switch kind := source.GetKind(); {
	case kind == kindGitRepository:
		spec["ref"] = map[string]any{"commit": revision}
	case kind == kindOCIRepository && strings.HasPrefix(revision, "sha256:"):
		spec["ref"] = map[string]any{"digest": revision}
	default:
		return fault.New(op, fault.ErrUnsupported, "a "+kind+" keeps no older revisions", "")
	}
	pin := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	pin.SetGroupVersionKind(source.GroupVersionKind())
	pin.SetNamespace(source.GetNamespace())
	pin.SetName(pinName(o))
	pin.SetLabels(map[string]string{v1alpha1.AnnotationRestore: by})
	pin.SetAnnotations(map[string]string{fluxReconcile: "disabled"})
	err := f.client.Create(ctx, pin)
	if apierrors.IsAlreadyExists(err) {
		err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
			there := &unstructured.Unstructured{}
			there.SetGroupVersionKind(pin.GroupVersionKind())
			if err := f.client.Get(ctx, client.ObjectKeyFromObject(pin), there); err != nil {
				return err
			}
			there.Object["spec"] = spec
			there.SetLabels(pin.GetLabels())
			return f.client.Update(ctx, there)
		})
	}
	return fault.Wrap(op, kube.ClassOf(err), err, "")
}

// change reads an object, changes it, and writes it if that changed something. What is not there is left.
func (f flux) change(ctx context.Context, verb string, s v1alpha1.Suspension, change func(*unstructured.Unstructured) error) error {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		o, err := f.object(ctx, s.Kind, name)
		if err != nil || o == nil {
			return err
		}
		before := o.DeepCopy()
		if err := change(o); err != nil || equal(before, o) {
			return err
		}
		return f.client.Update(ctx, o)
	})
	return fault.Wrap(verb+" "+s.Kind+" "+name.String(), kube.ClassOf(err), err, "")
}

// before is how an object was before the first Restore that holds it: as much as a Restore changes.
type before struct {
	Suspend   *bool   `json:"suspend,omitempty"`
	Reconcile *string `json:"reconcile,omitempty"` // the annotation fluxReconcile
	Source    string  `json:"source,omitempty"`    // spec.sourceRef.name
}

func (b before) suspended() bool { return b.Suspend != nil && *b.Suspend }

// heldBefore reads how an object was; one that is not held is that at present.
func heldBefore(o *unstructured.Unstructured) (before, error) {
	var b before
	if record, held := o.GetAnnotations()[annotationBefore]; held {
		if err := json.Unmarshal([]byte(record), &b); err != nil {
			return b, fault.Wrap("read annotation "+annotationBefore+" of "+o.GetKind()+" "+o.GetName(), fault.ErrCorrupt, err, "")
		}
		return b, nil
	}
	if suspend, is := field(o.Object, "spec", "suspend").(bool); is {
		b.Suspend = &suspend
	}
	if reconcile, is := o.GetAnnotations()[fluxReconcile]; is {
		b.Reconcile = &reconcile
	}
	b.Source = sourceName(o)
	return b, nil
}

// restore puts an object back, so that its spec is byte for byte what it was.
func (b before) restore(o *unstructured.Unstructured) error {
	annotations := o.GetAnnotations()
	for _, ours := range []string{v1alpha1.AnnotationRestore, annotationBefore, fluxReconcile} {
		delete(annotations, ours)
	}
	if b.Reconcile != nil {
		annotations[fluxReconcile] = *b.Reconcile
	}
	o.SetAnnotations(annotations)
	unstructured.RemoveNestedField(o.Object, "spec", "suspend")
	if b.Suspend != nil {
		if err := unstructured.SetNestedField(o.Object, *b.Suspend, "spec", "suspend"); err != nil {
			return err
		}
	}
	if b.Source == "" {
		return nil
	}
	return unstructured.SetNestedField(o.Object, b.Source, "spec", "sourceRef", "name")
}

func annotate(o *unstructured.Unstructured, more map[string]string) {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(annotations, more)
	o.SetAnnotations(annotations)
}

func equal(a, b *unstructured.Unstructured) bool {
	return apiequality.Semantic.DeepEqual(a.Object, b.Object)
}

// token is what a controller of Flux answers with once it has worked on an object that a Restore changed.
func token(what, by string) string { return "backstay-" + what + "-" + by }

// pinName is the source that a Kustomization has while it is held at a revision.
func pinName(o *unstructured.Unstructured) string {
	sum := sha256.Sum256([]byte(o.GetUID()))
	return "backstay-" + hex.EncodeToString(sum[:8])
}

// applierHint says what to roll back in the place of a HelmRelease.
func applierHint(o *unstructured.Unstructured) string {
	namespace, name := o.GetLabels()[fluxKustomize+"/namespace"], o.GetLabels()[fluxKustomize+"/name"]
	if name == "" {
		return "restore the point's configuration: `backstay application restore`, without --to"
	}
	return "roll back what applies it: " + v1alpha1.EngineFlux + "/" + namespace + "/" + name
}
