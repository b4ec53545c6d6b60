package restore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/restore"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// capture makes a point of a namespace and reads it back.
func capture(t *testing.T, c *kube.Cluster, namespace string) restore.Options {
	t.Helper()
	version, at, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	application := kube.Application{Name: namespace, Namespaces: []string{namespace}}
	subject := point.Subject{Kind: point.SubjectApplication, Name: "test/" + namespace}
	store := memory.New(time.Now)
	source := kube.NewObjects(c, application, subject, kube.Moment{ResourceVersion: version, At: at, Mark: version})
	receipt, err := protect.Backup(t.Context(), store, source, "policy")
	if err != nil {
		t.Fatal(err)
	}
	_, tree, err := store.Open(t.Context(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	o := restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{}, Taken: at, Now: at}
	for _, p := range receipt.Point.Parts {
		objects, err := kube.ReadObjects(t.Context(), protect.Within(tree, p.Name))
		if err != nil {
			t.Fatal(err)
		}
		if of, _ := kube.NamespaceOf(p.Name); of == "" {
			o.ClusterObjects = objects
		} else {
			o.Objects[of] = objects
		}
	}
	return o
}

// names lists the objects of a namespace as KIND/NAME.
func names(o restore.Options, namespace string) []string {
	var all []string
	for _, u := range o.Objects[namespace] {
		if u.GetKind() != "Namespace" {
			all = append(all, u.GetKind()+"/"+u.GetName())
		}
	}
	slices.Sort(all)
	return all
}

func TestCaptureRestoreCapture(t *testing.T) {
	c := connect(t)
	const group = "circle.example.com"
	put(t, c, []unstructured.Unstructured{define(t, group, "Gadget", "Namespaced")})
	eventually(t, "definition", func() bool { return served(t, c, group, "Gadget") })
	namespace, objects := shop(t, c, strings.NewReplacer("GROUP", group, "NODEPORT", "30002").Replace(everyKind))
	role := put(t, c, parse(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s}
subjects: [{kind: ServiceAccount, name: pulls, namespace: %[1]s}]`, namespace)))
	before := capture(t, c, namespace)

	remove(t, c, objects)
	remove(t, c, role)
	p := build(t, before)
	if got := apply(t, p); len(got.Failed)+len(got.Notes) > 0 {
		t.Fatalf("outcome %+v\n%s", got, strings.Join(p.Lines(), "\n"))
	}
	if s := build(t, before).Status(); s.Create+s.Replace+s.Keep+s.Conflict > 0 {
		t.Errorf("after the restore: %s", strings.Join(build(t, before).Lines(), "\n"))
	}
	if after := names(capture(t, c, namespace), namespace); !slices.Equal(after, names(before, namespace)) || len(after) < len(objects) {
		t.Errorf("captured again: %q, not %q", after, names(before, namespace))
	}
	if get(t, c, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", namespace) == nil {
		t.Error("what the application needs of the cluster did not come back")
	}
}
