package restore_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube/restore"
)

func TestNamespacesComeBeforeTheVolumesInThem(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, plainObjects)
	target := namespace + "-grounded"
	p := build(t, restore.Options{
		Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
		Spec: v1alpha1.RestoreSpec{Namespaces: map[string]string{namespace: target}},
	})
	for range 2 { // the second time as by a process that took it up again
		if err := p.Ground(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	get(t, c, "v1", "Namespace", "", target)
	if got := apply(t, p); len(got.Failed) > 0 {
		t.Errorf("outcome %+v", got)
	}
	get(t, c, "apps/v1", "Deployment", target, "web")
}

func TestClassesComeBeforeTheVolumesOfThem(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, claims)
	remove(t, c, objects)
	class := put(t, c, parse(t, strings.ReplaceAll(storageClass, "NAMESPACE", namespace)))
	remove(t, c, class)
	p := build(t, restore.Options{
		Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, ClusterObjects: class,
		Data: []restore.Data{{Namespace: namespace, Claim: "data"}},
	})
	if p.Volumes[0].Action != restore.Create {
		t.Fatalf("planned %+v", p.Volumes[0])
	}
	for range 2 {
		if err := p.Classes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if get(t, c, "storage.k8s.io/v1", "StorageClass", "", namespace) == nil {
		t.Error("it was not made")
	}
	if got := apply(t, p); len(got.Failed) > 0 {
		t.Errorf("outcome %+v", got)
	}
}
