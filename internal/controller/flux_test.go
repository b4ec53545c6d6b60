package controller_test

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// flux installs the definitions of Flux's kinds that gates have to do with.
func (w *world) flux() {
	w.Helper()
	for _, kind := range [][3]string{
		{"kustomize.toolkit.fluxcd.io", "Kustomization", "kustomizations"},
		{"source.toolkit.fluxcd.io", "GitRepository", "gitrepositories"},
		{"source.toolkit.fluxcd.io", "OCIRepository", "ocirepositories"},
	} {
		err := w.admin.Create(w.Context(), w.parse(strings.NewReplacer("GROUP", kind[0], "KIND", kind[1], "PLURAL", kind[2]).Replace(
			`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: PLURAL.GROUP}, spec: {group: GROUP, scope: Namespaced,
				names: {kind: KIND, listKind: KINDList, plural: PLURAL}, versions: [{name: v1, served: true, storage: true, subresources: {status: {}},
				schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`)))
		if client.IgnoreAlreadyExists(err) != nil {
			w.Fatal(err)
		}
		w.served(kind[0], "v1", kind[1])
	}
}

// kustomized is an application that Flux deploys, with a gate before it. The test plays Flux's controllers.
type kustomized struct {
	*world
	namespace          string
	source, shop, gate *unstructured.Unstructured
}

func (w *world) kustomized(status string) kustomized {
	w.Helper()
	k := kustomized{world: w, namespace: w.namespace()}
	k.source = k.add(`{apiVersion: source.toolkit.fluxcd.io/v1, kind: GitRepository, metadata: {name: shop}, spec: {url: "https://git.example/shop.git"}}`)
	k.shop = k.add(`{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: shop},
		spec: {path: ./deploy, dependsOn: [{name: shop-gate}], sourceRef: {kind: GitRepository, name: shop}}}`)
	if status != "" {
		k.status(k.shop, func() { k.shop.Object["status"] = w.parse(status).Object })
	}
	k.gate = k.add(`{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: shop-gate, labels: {backstay.io/gate: shop}},
		spec: {suspend: true, path: ./none, sourceRef: {kind: GitRepository, name: shop}}}`)
	return k
}

func (k kustomized) add(text string) *unstructured.Unstructured {
	k.Helper()
	u := k.parse(text)
	u.SetNamespace(k.namespace)
	k.eventually("make "+u.GetKind(), func() string { // its definition may be a moment old
		if err := k.admin.Create(k.Context(), u); err != nil {
			return err.Error()
		}
		return ""
	})
	k.Cleanup(func() { _ = k.admin.Delete(context.Background(), u) }) // the test's own context is over
	return u
}

// pushes is the source finding a commit.
func (k kustomized) pushes(commit string) {
	k.Helper()
	k.status(k.source, func() {
		k.source.Object["status"] = map[string]any{"artifact": map[string]any{
			"revision": "main@sha1:" + commit, "lastUpdateTime": k.clock.now().UTC().Format(time.RFC3339),
		}}
	})
}

// applies is Flux applying what passed.
func (k kustomized) applies(commit string) {
	k.Helper()
	k.status(k.shop, func() {
		k.shop.Object["status"] = k.parse(`{lastAppliedRevision: "main@sha1:` + commit + `", inventory: {entries: [{id: x}]}}`).Object
	})
}

// says waits until the gate says something: Ready, its reason, and the commit that may pass, as READY/REASON COMMIT.
func (k kustomized) says(want string) {
	k.Helper()
	k.eventually("the gate says "+want, func() string {
		if err := k.get(k.gate); err != nil {
			return err.Error()
		}
		said := "nothing "
		all, _, err := unstructured.NestedSlice(k.gate.Object, "status", "conditions")
		if err != nil {
			return err.Error()
		}
		for _, c := range all {
			if m, is := c.(map[string]any); is && m["type"] == "Ready" {
				said = m["status"].(string) + "/" + m["reason"].(string) + " "
			}
		}
		revision, _, err := unstructured.NestedString(k.gate.Object, "status", "lastAppliedRevision")
		if err != nil {
			return err.Error()
		}
		if said += strings.TrimPrefix(revision, "main@sha1:"); said != want {
			return said
		}
		return ""
	})
}

// asked waits until the controller has made the n-th Backup, and returns the newest.
func (k kustomized) asked(n int) *v1alpha1.Backup {
	k.Helper()
	var newest v1alpha1.Backup
	k.eventually("backup for the sync", func() string {
		var all v1alpha1.BackupList
		if err := k.admin.List(k.Context(), &all, client.InNamespace(k.system)); err != nil {
			return err.Error()
		}
		if len(all.Items) != n {
			return "there are not as many"
		}
		newest = all.Items[0]
		for _, b := range all.Items {
			if newest.Spec.Sync.Started.Before(b.Spec.Sync.Started) || strings.HasPrefix(b.Name, newest.Name) {
				newest = b
			}
		}
		return ""
	})
	return &newest
}

func (k kustomized) complete(b *v1alpha1.Backup) {
	k.Helper()
	k.status(b, func() { b.Status.Phase, b.Status.Point = v1alpha1.PhaseComplete, "p1" })
}

func TestGateBeforeAKustomization(t *testing.T) {
	w := newWorld(t)
	w.flux()
	k := w.kustomized("")
	w.location(w.system)
	w.guards(k.namespace)
	w.start()

	k.pushes("aaa")
	k.says("True/FirstSync aaa")
	k.applies("aaa")

	w.clock.forward(time.Minute)
	k.pushes("bbb")
	k.says("Unknown/Waiting aaa")
	b := k.asked(1)
	if s := b.Spec.Sync; s.Deployment != "flux/"+k.namespace+"/shop" || s.From[0] != "aaa" || s.To[0] != "bbb" {
		t.Errorf("sync %+v", s)
	}
	k.complete(b)
	k.says("True/Stored bbb")
	k.asked(1) // however often it was looked at

	w.status(b, func() {}) // nothing new
	if g := w.recorded(k.namespace, v1alpha1.GateStored); g.Status.Backup != b.Name || g.Spec.Deployment != b.Spec.Sync.Deployment {
		t.Errorf("gate %+v", g)
	}

	k.applies("bbb")
	w.clock.forward(time.Minute)
	k.pushes("ccc")
	b = k.asked(2)
	w.status(b, func() {
		before := metav1.NewTime(time.Now().Add(-time.Minute)) // the next Gate has the API server's time
		b.Status.Phase, b.Status.Finished, b.Status.Problems = v1alpha1.PhaseFailed, &before, []string{"no room"}
	})
	k.says("False/BackupFailed bbb")
	w.clock.forward(10 * time.Minute)
	k.annotate("reconcile.fluxcd.io/requestedAt", w.clock.now().Add(time.Minute).Format(time.RFC3339Nano)) // flux reconcile
	k.complete(k.asked(3))
	k.says("True/Stored ccc")

	k.applies("ccc")
	w.clock.forward(time.Minute)
	k.pushes("ddd")
	k.says("Unknown/Waiting ccc")
	w.clock.forward(time.Minute)
	k.pushes("eee")
	w.recorded(k.namespace, v1alpha1.GateSuperseded)
	k.says("Unknown/Waiting ccc")
}

// annotate changes what people change.
func (k kustomized) annotate(key, value string) {
	k.Helper()
	k.eventually("annotate", func() string {
		if err := k.get(k.shop); err != nil {
			return err.Error()
		}
		k.shop.SetAnnotations(map[string]string{key: value})
		if err := k.admin.Update(k.Context(), k.shop); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestGateBeforeAKustomizationStaysShut(t *testing.T) {
	w := newWorld(t)
	w.flux()
	k := w.kustomized(`{lastAppliedRevision: "main@sha1:aaa", inventory: {entries: [{id: x}]}}`)
	w.start()
	k.pushes("bbb")
	k.says("False/Unprotected ") // no policy
	k.annotate(v1alpha1.AnnotationBreakGlass, "the vault is away, INC-7")
	w.clock.forward(6 * time.Minute)
	k.pushes("ccc")
	k.says("True/BreakGlass ccc")
	k.annotate(v1alpha1.AnnotationRestore, "uid")
	k.pushes("ddd")
	k.says("True/Restore ccc") // what a Restore deploys has a source of its own
	k.annotate("nothing", "")
	k.says("False/Unprotected ccc")

	w.eventually("another source", func() string {
		if err := k.get(k.gate); err != nil {
			return err.Error()
		}
		if err := unstructured.SetNestedField(k.gate.Object, "other", "spec", "sourceRef", "name"); err != nil {
			t.Fatal(err)
		}
		if err := w.admin.Update(w.Context(), k.gate); err != nil {
			return err.Error()
		}
		return ""
	})
	k.says("False/Unfit ccc")
}
