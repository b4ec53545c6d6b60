package gitops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

// fluxLab is an API server that has Flux's kinds, and none of its controllers. The test plays their part.
type fluxLab struct {
	*testing.T
	client.Client
	namespace string
}

func newFluxLab(t *testing.T) fluxLab {
	t.Helper()
	config := kubetest.Start(t)
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := fluxLab{t, c, kubetest.Namespace(t, config)}
	l.define(kindKustomization, "kustomizations")
	l.define(kindHelmRelease, "helmreleases")
	l.define(kindGitRepository, "gitrepositories")
	l.define("Bucket", "buckets")
	return l
}

func (l fluxLab) define(kind, plural string) {
	l.Helper()
	k := fluxKind(kind)
	err := l.Create(l.Context(), object(l.T, fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %[3]s.%[1]s},
		spec: {group: %[1]s, scope: Namespaced, names: {kind: %[4]s, plural: %[3]s}, versions: [{name: %[2]s, served: true, storage: true, subresources: {status: {}},
			schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`, k.Group, k.Version, plural, kind)))
	if client.IgnoreAlreadyExists(err) != nil {
		l.Fatal(err)
	}
	all := &unstructured.UnstructuredList{}
	all.SetGroupVersionKind(k.GroupVersion().WithKind(kind + "List"))
	for l.List(l.Context(), all) != nil { // until it is served
		time.Sleep(20 * time.Millisecond)
	}
}

// add makes an object of Flux, with its status.
func (l fluxLab) add(kind, name, text string) *unstructured.Unstructured {
	l.Helper()
	u := object(l.T, text)
	u.SetGroupVersionKind(fluxKind(kind))
	u.SetName(name)
	u.SetNamespace(l.namespace)
	status := u.Object["status"]
	if err := l.Create(l.Context(), u); err != nil {
		l.Fatal(err)
	}
	if u.Object["status"] = status; status != nil {
		if err := l.Status().Update(l.Context(), u); err != nil {
			l.Fatal(err)
		}
	}
	return u
}

func (l fluxLab) read(kind, name string) *unstructured.Unstructured {
	l.Helper()
	u, err := flux{client: l}.object(l.Context(), kind, types.NamespacedName{Namespace: l.namespace, Name: name})
	if err != nil {
		l.Fatal(err)
	}
	return u
}

func (l fluxLab) deployment(name string) Deployment {
	l.Helper()
	d, err := Open(l, "flux/"+l.namespace+"/"+name)
	if err != nil {
		l.Fatal(err)
	}
	return d
}

// stopBriefly stops one for a caller who gives up when he has seen it suspended.
func (l fluxLab) stopBriefly(name, by string) error {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	l.Client = impatient{l.Client, func(o *unstructured.Unstructured) bool { return o.GetName() == name && suspendedNow(o) }, cancel}
	return l.deployment(name).Stop(ctx, by)
}

func (l fluxLab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

const (
	goodCommit = "0123456789012345678901234567890123456789"
	badCommit  = "bad3456789012345678901234567890123456789"
	// repository is at the bad commit, and has a Secret.
	repository = `{spec: {interval: 1m, url: "https://git.example/shop.git", secretRef: {name: git}, ref: {branch: main}},
		status: {artifact: {revision: "main@sha1:` + badCommit + `"}}}`
	sourceRef = `interval: 10m, path: ./deploy, prune: true, sourceRef: {kind: GitRepository, name: shop}`
)

func TestFluxState(t *testing.T) {
	l := newFluxLab(t)
	l.add(kindGitRepository, "shop", repository)
	l.add(kindGitRepository, "lost", `{spec: {url: "https://git.example/shop.git", ref: {tag: v1}}, status: {conditions: [
		{type: FetchFailed, status: "True", reason: GitOperationFailed, message: "repository not found"}], artifact: {revision: "v1@sha1:`+goodCommit+`"}}}`)
	l.add(kindKustomization, "settled", `{spec: {`+sourceRef+`, targetNamespace: front}, status: {observedGeneration: 1, lastAppliedRevision: "main@sha1:`+badCommit+`",
		lastAttemptedRevision: "main@sha1:`+badCommit+`", conditions: [{type: Ready, status: "True", lastTransitionTime: "2026-11-21T17:00:03Z"}]}}`)
	l.add(kindKustomization, "waiting", `{spec: {`+sourceRef+`}, status: {observedGeneration: 1, lastAppliedRevision: "main@sha1:`+goodCommit+`",
		lastAttemptedRevision: "main@sha1:`+goodCommit+`", conditions: [{type: Ready, status: "False", reason: DependencyNotReady, message: not yet}]}}`)
	l.add(kindKustomization, "failed", `{spec: {`+sourceRef+`}, status: {observedGeneration: 1, lastAppliedRevision: "main@sha1:`+goodCommit+`",
		lastAttemptedRevision: "main@sha1:`+badCommit+`", conditions: [{type: Ready, status: "False", message: immutable},
		{type: Reconciling, status: "True", reason: ProgressingWithRetry}]}}`)
	l.add(kindKustomization, "running", `{spec: {`+sourceRef+`}, status: {observedGeneration: 1, lastAppliedRevision: "main@sha1:`+goodCommit+`",
		conditions: [{type: Ready, status: Unknown}, {type: Reconciling, status: "True", reason: Progressing, lastTransitionTime: "2026-11-21T17:00:03Z"}]}}`)
	l.add(kindKustomization, "suspended", `{spec: {`+sourceRef+`, suspend: true}, status: {observedGeneration: 2, lastAppliedRevision: "main@sha1:`+goodCommit+`",
		lastAttemptedRevision: "main@sha1:`+goodCommit+`", conditions: [{type: Ready, status: "True"}]}}`)
	l.add(kindKustomization, "orphan", `{spec: {sourceRef: {kind: GitRepository, name: lost}}, status: {lastAppliedRevision: "v1@sha1:`+goodCommit+`"}}`)
	l.add(kindKustomization, "none", `{spec: {sourceRef: {kind: GitRepository, name: none}}}`)
	l.add(kindKustomization, "hostile", `{spec: {sourceRef: [], suspend: "true"}, status: {conditions: {}, lastAppliedRevision: 7}}`)
	l.add(kindHelmRelease, "settled", `{spec: {chart: {spec: {chart: db, version: 1.x}}}}`)
	l.add(kindHelmRelease, "release", `{spec: {chart: {spec: {chart: db, version: 1.x}}}, status: {observedGeneration: 1, lastAttemptedRevision: 1.2.3,
		history: [{status: failed, chartVersion: 1.2.3}, {status: deployed, chartVersion: 1.2.2}], conditions: [{type: Ready, status: "False", message: no}]}}`)
	for name, want := range map[string]string{ // live head automated synced healthy lost; operation
		"settled":   "[bad] [bad] true true true false; Succeeded [bad]",
		"waiting":   "[012] [bad] true false false false;  [bad]",
		"failed":    "[012] [bad] true false false false; Failed [bad]",
		"running":   "[012] [bad] true false false false; Running [bad]",
		"suspended": "[012] [bad] false false false false; Succeeded [012]",
		"orphan":    "[012] [012] true false false true;  [012]",
		"none":      "[] [] true false false true; none",
		"hostile":   "[] [] true false false true; none",
		"release":   "[1.2] [1.2] true false false false; Failed [1.2]",
	} {
		s, err := l.deployment(name).State(t.Context())
		l.must(err)
		op := "none"
		if s.Operation != nil {
			op = s.Operation.Phase + " " + short(s.Operation.Revisions)
		}
		got := fmt.Sprintf("%s %s %v %v %v %v; %s", short(s.Live), short(s.Head), s.Automated, s.Synced, s.Healthy, s.Lost, op)
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	s, err := l.deployment("settled").State(t.Context())
	l.must(err)
	if want := []Source{{URL: "https://git.example/shop.git", Path: "deploy", Revision: "main"}}; !slices.Equal(s.Sources, want) || s.Namespace != "front" {
		t.Errorf("sources %+v in %s, want %+v", s.Sources, s.Namespace, want)
	}
	if _, err := l.deployment("gone").State(t.Context()); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
}

func short(revisions []string) string {
	var all []string
	for _, r := range revisions {
		all = append(all, r[:3])
	}
	return "[" + strings.Join(all, " ") + "]"
}

// TestFluxTransaction holds a Kustomization, deploys an older commit, and puts it back, whatever it was like and as often as each is done.
func TestFluxTransaction(t *testing.T) {
	l := newFluxLab(t)
	l.add(kindGitRepository, "shop", repository)
	for name, spec := range map[string]string{
		"plain": sourceRef, "said-not": sourceRef + ", suspend: false", "was-suspended": sourceRef + ", suspend: true",
		"elsewhere": `interval: 10m, dependsOn: [{name: shop-gate}], sourceRef: {kind: GitRepository, name: shop, namespace: ` + l.namespace + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := l
			l.T = t
			l.transaction(name, spec)
		})
	}
}

func (l fluxLab) transaction(name, specText string) {
	const by = "11111111-2222-3333-4444-555555555555"
	ctx := l.Context()
	before := l.add(kindKustomization, name, `{metadata: {annotations: {kept: as it is}}, spec: {`+specText+`}, status: {lastAppliedRevision: "main@sha1:`+badCommit+`"}}`)
	d := l.deployment(name)
	all, err := d.Suspensions(ctx)
	l.must(err)
	if len(all) != 1 || all[0].Kind != kindKustomization || all[0].Before != (name == "was-suspended") {
		l.Fatalf("suspensions %+v", all)
	}
	if err := d.Deploy(ctx, []string{goodCommit}, by); !errors.Is(err, fault.ErrInvalid) {
		l.Errorf("deploy before it is suspended: %v", err)
	}
	for range 2 {
		l.must(d.Suspend(ctx, all[0], by))
	}
	held := l.read(kindKustomization, name)
	if !suspendedNow(held) || held.GetAnnotations()[fluxReconcile] != "disabled" || held.GetAnnotations()[v1alpha1.AnnotationRestore] != by {
		l.Fatalf("suspended: %v %v", held.Object["spec"], held.GetAnnotations())
	}
	l.stops(d, held, by)
	for range 2 {
		l.must(d.Deploy(ctx, []string{goodCommit}, by))
	}
	l.pinned(d, name)
	l.deploys(d, name)
	l.must(d.Suspend(ctx, all[0], by)) // by a Job that begins anew
	l.must(d.Stop(ctx, by))
	if suspendedNow(l.read(kindKustomization, name)) {
		l.Error("what was deployed is suspended again")
	}
	if err := l.stopBriefly(name, ""); !errors.Is(err, fault.ErrUnavailable) || !suspendedNow(l.read(kindKustomization, name)) {
		l.Errorf("what was deployed goes on: %v", err)
	}
	l.must(d.Deploy(ctx, []string{goodCommit}, by))
	for range 2 {
		l.must(d.Resume(ctx, all[0], by))
	}
	after := l.read(kindKustomization, name)
	if got, want := spec(l.T, after), spec(l.T, before); got != want {
		l.Errorf("spec %s\nwas  %s", got, want)
	}
	if left := after.GetAnnotations(); left[v1alpha1.AnnotationRestore]+left[annotationBefore]+left[fluxReconcile] != "" || left["kept"] != "as it is" {
		l.Errorf("annotations %v", left)
	}
	if pin := l.read(kindGitRepository, pinName(after)); pin != nil {
		l.Errorf("left behind: %v", pin.Object)
	}
}

// stops sees that Stop waits for the controller's word.
func (l fluxLab) stops(d Deployment, held *unstructured.Unstructured, by string) {
	l.Helper()
	if err := l.stopBriefly(held.GetName(), by); !errors.Is(err, fault.ErrUnavailable) {
		l.Errorf("stop without an answer: %v", err)
	}
	l.must(unstructured.SetNestedField(held.Object, held.GetAnnotations()[fluxRequested], "status", "lastHandledReconcileAt"))
	l.must(l.Status().Update(l.Context(), held))
	l.must(d.Stop(l.Context(), by))
}

// pinned sees that a Kustomization is at the good commit, and that its state is told of its own repository.
func (l fluxLab) pinned(d Deployment, name string) {
	l.Helper()
	o := l.read(kindKustomization, name)
	pin := l.read(kindGitRepository, sourceName(o))
	if suspendedNow(o) || sourceName(o) != pinName(o) || pin == nil {
		l.Fatalf("pinned: %v, source %v", o.Object["spec"], pin)
	}
	if got, want := spec(l.T, pin), `{"interval":"1m","ref":{"commit":"`+goodCommit+`"},"secretRef":{"name":"git"},"url":"https://git.example/shop.git"}`; got != want {
		l.Errorf("source %s, want %s", got, want)
	}
	s, err := d.State(l.Context())
	l.must(err)
	if !slices.Equal(s.Head, []string{badCommit}) || s.Sources[0].Revision != "main" || s.Healthy || s.Lost {
		l.Errorf("state %+v", s)
	}
	l.must(unstructured.SetNestedSlice(pin.Object, []any{map[string]any{"type": "FetchFailed", "status": "True", "message": "no such commit"}}, "status", "conditions"))
	l.must(l.Status().Update(l.Context(), pin))
	if s, err = d.State(l.Context()); err != nil || !s.Lost || s.HeadLost || s.Message != "no such commit" || s.Operation.Phase != "Failed" {
		l.Errorf("state %+v, %v", s, err)
	}
	l.must(unstructured.SetNestedSlice(pin.Object, []any{}, "status", "conditions"))
	l.must(l.Status().Update(l.Context(), pin))
}

// deploys sees that what was deployed counts as such only once Flux has worked on it, and not for what it had said before.
func (l fluxLab) deploys(d Deployment, name string) {
	l.Helper()
	o := l.read(kindKustomization, name)
	for _, step := range []struct{ handled, ready, reason, want string }{
		{"", "True", "ReconciliationSucceeded", " false"},
		{o.GetAnnotations()[fluxRequested], "False", "ArtifactFailed", " false"},
		{o.GetAnnotations()[fluxRequested], "False", "HealthCheckFailed", "Failed false"},
		{o.GetAnnotations()[fluxRequested], "True", "ReconciliationSucceeded", "Succeeded true"},
	} {
		o = l.read(kindKustomization, name)
		o.Object["status"] = object(l.T, `{lastAppliedRevision: "sha1:`+goodCommit+`", lastAttemptedRevision: "sha1:`+goodCommit+`",
			lastHandledReconcileAt: "`+step.handled+`", conditions: [{type: Ready, status: "`+step.ready+`", reason: `+step.reason+`}]}`).Object
		if step.want == "Succeeded true" {
			l.must(unstructured.SetNestedField(o.Object, o.GetGeneration(), "status", "observedGeneration"))
		}
		l.must(l.Status().Update(l.Context(), o))
		s, err := d.State(l.Context())
		l.must(err)
		if got := fmt.Sprintf("%s %v", s.Operation.Phase, s.Healthy); got != step.want || !slices.Equal(s.Operation.Revisions, []string{goodCommit}) {
			l.Errorf("after %+v: %s of %q, want %s", step, got, s.Operation.Revisions, step.want)
		}
	}
}

func TestFluxRefusals(t *testing.T) {
	l := newFluxLab(t)
	l.add(kindKustomization, "bucket", `{spec: {sourceRef: {kind: Bucket, name: shop}}}`)
	l.add("Bucket", "shop", `{spec: {bucketName: shop}}`)
	l.add(kindKustomization, "none", `{spec: {sourceRef: {kind: GitRepository, name: none}}}`)
	l.add(kindHelmRelease, "release", `{metadata: {labels: {kustomize.toolkit.fluxcd.io/name: shop, kustomize.toolkit.fluxcd.io/namespace: apps}}, spec: {}}`)
	for name, want := range map[string]error{"bucket": fault.ErrUnsupported, "none": fault.ErrNotFound, "release": fault.ErrUnsupported, "gone": fault.ErrNotFound} {
		d := l.deployment(name)
		all, err := d.Suspensions(t.Context())
		if name != "gone" {
			l.must(err)
		}
		for _, s := range all {
			l.must(d.Suspend(t.Context(), s, "me"))
		}
		if err := d.Deploy(t.Context(), []string{goodCommit}, "me"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		} else if name == "release" && !slices.Contains(fault.Hints(err), "roll back what applies it: flux/apps/shop") {
			t.Errorf("hints %q", fault.Hints(err))
		}
		for _, s := range all {
			l.must(d.Resume(t.Context(), s, "me"))
		}
	}
	l.must(l.deployment("gone").Resume(t.Context(), v1alpha1.Suspension{Kind: kindKustomization, Namespace: l.namespace, Name: "gone"}, "me"))
}

// TestFluxTakenOver has a second Restore hold what a first one left held: what comes back is how it was before both.
func TestFluxTakenOver(t *testing.T) {
	l := newFluxLab(t)
	l.add(kindGitRepository, "shop", repository)
	l.add(kindHelmRelease, "parent", `{spec: {interval: 1m}}`)
	before := l.add(kindKustomization, "shop", `{metadata: {labels: {helm.toolkit.fluxcd.io/name: parent, helm.toolkit.fluxcd.io/namespace: `+l.namespace+`}}, spec: {`+sourceRef+`}}`)
	d := l.deployment("shop")
	all, err := d.Suspensions(t.Context())
	l.must(err)
	if len(all) != 2 || all[1].Kind != kindHelmRelease || all[1].Name != "parent" {
		t.Fatalf("suspensions %+v", all)
	}
	for _, by := range []string{"first", "second"} {
		for _, s := range all {
			l.must(d.Suspend(t.Context(), s, by))
		}
		l.must(d.Deploy(t.Context(), []string{goodCommit}, by))
	}
	for _, s := range all {
		l.must(d.Resume(t.Context(), s, "first")) // is no business of its any more
	}
	if o := l.read(kindKustomization, "shop"); sourceName(o) != pinName(o) || l.read(kindGitRepository, pinName(o)) == nil {
		t.Errorf("the first Restore let go of what the second holds: %v", o.Object["spec"])
	}
	for _, s := range all {
		l.must(d.Resume(t.Context(), s, "second"))
	}
	if got, want := spec(t, l.read(kindKustomization, "shop")), spec(t, before); got != want {
		t.Errorf("spec %s, was %s", got, want)
	}
	if suspendedNow(l.read(kindHelmRelease, "parent")) {
		t.Error("the parent is suspended still")
	}
}
