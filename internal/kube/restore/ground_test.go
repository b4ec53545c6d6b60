package restore_test

import (
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
