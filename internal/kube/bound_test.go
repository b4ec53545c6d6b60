package kube_test

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestBound(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	const pod = `{metadata: {labels: {app: x}}, spec: {containers: [{name: x, image: x}], volumes: [{name: d, persistentVolumeClaim: {claimName: files}}]}}`
	create(t, c, ns, strings.ReplaceAll(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {tier: front}, annotations: {kanister.kasten.io/blueprint: dump}},
  spec: {selector: {matchLabels: {app: x}}, template: POD}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: plain, labels: {tier: front}}, spec: {selector: {matchLabels: {app: x}}, template: POD}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, annotations: {kanister.kasten.io/blueprint: sql}},
  spec: {serviceName: db, selector: {matchLabels: {app: x}}, template: POD, volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: files, labels: {keep: "yes"}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`, "POD", pod))
	names := func(a kube.Application) []string {
		t.Helper()
		all, err := c.Bound(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range all {
			text := b.Resource.Resource + "/" + b.Name + "=" + b.Binding.Name
			for _, claim := range []string{"files", "data-db-0", "data-db-12", "data-db-x", "other"} {
				if b.Mounts(ns, claim) {
					text += " " + claim
				}
			}
			if b.Mounts("elsewhere", "files") {
				t.Errorf("%s mounts a claim of another namespace", b.Name)
			}
			got = append(got, text)
		}
		return got
	}
	a := whole(ns)
	annotated := []string{"deployments/web=dump files", "statefulsets/db=sql files data-db-0 data-db-12"}
	if got := names(a); !slices.Equal(got, annotated) {
		t.Errorf("annotated: %q", got)
	}
	a.Capture.Blueprints = []v1alpha1.BlueprintBinding{
		{Name: "bound", Kind: "deployments.apps", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}}},
		{Name: "second", Kind: "deployments.apps"},
		{Name: "copy", Kind: "persistentvolumeclaims", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"keep": "yes"}}},
	}
	want := []string{"deployments/plain=bound files", annotated[0], "persistentvolumeclaims/files=copy files", annotated[1]}
	if got := names(a); !slices.Equal(got, want) {
		t.Errorf("bound by kind and labels: %q, want %q", got, want)
	}
	chosen := a
	chosen.Objects = []string{"statefulset.apps/db"}
	if got := names(chosen); !slices.Equal(got, annotated[1:]) {
		t.Errorf("of chosen objects: %q", got)
	}
	a.Capture.Blueprints = []v1alpha1.BlueprintBinding{{Name: "x", Kind: "nothings.example.org"}}
	if _, err := c.Bound(t.Context(), a); err == nil || !strings.Contains(err.Error(), "nothings.example.org") {
		t.Errorf("of a kind that is not there: %v", err)
	}
	bound := kubetest.Namespace(t, c.Config)
	update(t, c, create(t, c, "", `{apiVersion: v1, kind: Namespace, metadata: {name: `+bound+`-n, annotations: {kanister.kasten.io/blueprint: all}}}`)[0], "v", "metadata", "labels", "l")
	if got := names(whole(bound + "-n")); !slices.Equal(got, []string{"namespaces/" + bound + "-n=all"}) {
		t.Errorf("of a namespace: %q", got)
	}
}
