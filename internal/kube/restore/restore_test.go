package restore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/restore"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// patience is how long tests let Apply wait for what may pass.
const patience = time.Second

func connect(t *testing.T) *kube.Cluster {
	t.Helper()
	c, err := kube.New(kubetest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parse reads YAML documents.
func parse(t *testing.T, documents string) []unstructured.Unstructured {
	t.Helper()
	var all []unstructured.Unstructured
	for _, document := range strings.Split(documents, "\n---\n") {
		var u unstructured.Unstructured
		text, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if err := u.UnmarshalJSON(text); err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	return all
}

// within are objects of YAML documents in a namespace.
func within(t *testing.T, namespace, documents string) []unstructured.Unstructured {
	t.Helper()
	all := parse(t, documents)
	for n := range all {
		all[n].SetNamespace(namespace)
	}
	return all
}

// put creates objects and returns them as the server has them: what a capture takes.
func put(t *testing.T, c *kube.Cluster, objects []unstructured.Unstructured) []unstructured.Unstructured {
	t.Helper()
	for n := range objects {
		if err := c.Client.Create(t.Context(), &objects[n]); err != nil {
			t.Fatalf("create %s %s: %v", objects[n].GetKind(), objects[n].GetName(), err)
		}
	}
	return objects
}

func clone(objects []unstructured.Unstructured) []unstructured.Unstructured {
	var all []unstructured.Unstructured
	for _, u := range objects {
		all = append(all, *u.DeepCopy())
	}
	return all
}

// get reads an object; nil where there is none.
func get(t *testing.T, c *kube.Cluster, apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, u); err != nil {
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return nil
	}
	return u
}

// set changes a field of an object on the cluster.
func set(t *testing.T, c *kube.Cluster, u *unstructured.Unstructured, value any, path ...string) {
	t.Helper()
	now := get(t, c, u.GetAPIVersion(), u.GetKind(), u.GetNamespace(), u.GetName())
	if err := unstructured.SetNestedField(now.Object, value, path...); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

func build(t *testing.T, o restore.Options) *restore.Plan {
	t.Helper()
	p, err := restore.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, p *restore.Plan) restore.Outcome {
	t.Helper()
	o, err := p.Apply(t.Context(), patience)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// item finds what is planned for an object.
func item(t *testing.T, p *restore.Plan, name string) restore.Item {
	t.Helper()
	for _, i := range p.Items {
		if i.String() == name {
			return *i
		}
	}
	t.Fatalf("the plan has no %s:\n%s", name, strings.Join(p.Lines(), "\n"))
	return restore.Item{}
}

const plainObjects = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: hunter22}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: web, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: web, image: web:1}]}`

// shop puts an application into a new namespace and returns its objects.
func shop(t *testing.T, c *kube.Cluster, documents string) (string, []unstructured.Unstructured) {
	t.Helper()
	namespace := kubetest.Namespace(t, c.Config)
	return namespace, put(t, c, within(t, namespace, strings.ReplaceAll(documents, "NAMESPACE", namespace)))
}

func TestObjectsComeBack(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, plainObjects)
	o := restore.Options{
		Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
		Taken: time.Unix(1000, 0), Now: time.Unix(4600, 0),
	}

	p := build(t, o)
	if s := p.Status(); s != (v1alpha1.PlanStatus{Same: len(objects)}) {
		t.Fatalf("a point beside the very same objects: %+v\n%s", s, strings.Join(p.Lines(), "\n"))
	}

	for n := range objects {
		if err := c.Client.Delete(t.Context(), objects[n].DeepCopy()); err != nil {
			t.Fatal(err)
		}
	}
	p = build(t, o)
	if s := p.Status(); s != (v1alpha1.PlanStatus{Create: len(objects)}) {
		t.Fatalf("a point beside nothing: %+v\n%s", s, strings.Join(p.Lines(), "\n"))
	}
	var kinds []string
	for _, i := range p.Items {
		kinds = append(kinds, i.Kind)
	}
	want := []string{"ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "Service", "Deployment"}
	if !slices.Equal(kinds, want) {
		t.Errorf("order %v, want %v", kinds, want)
	}
	if got := apply(t, p); got.Created != len(objects) || len(got.Failed) > 0 || len(got.Notes) > 0 {
		t.Errorf("outcome %+v", got)
	}
	if s := build(t, o).Status(); s.Same != len(objects) {
		t.Errorf("after the restore: %+v", s)
	}
	made := get(t, c, "v1", "ConfigMap", namespace, "settings")
	if len(made.GetLabels()) != 1 || len(made.GetAnnotations()) > 0 || made.GetManagedFields()[0].Manager != "backstay" {
		t.Errorf("the restore left its mark: %v", made.Object)
	}
}

func TestWhatIsThereAndDiffers(t *testing.T) {
	c := connect(t)
	tests := []struct {
		existing string
		action   restore.Action
		color    string
	}{
		{"", restore.Keep, "red"},
		{v1alpha1.ExistingKeep, restore.Keep, "red"},
		{v1alpha1.ExistingReplace, restore.Replace, "blue"},
		{v1alpha1.ExistingFail, restore.Conflict, "red"},
	}
	for _, test := range tests {
		t.Run("existing "+test.existing, func(t *testing.T) {
			namespace, objects := shop(t, c, plainObjects)
			set(t, c, &objects[0], "red", "data", "color")
			set(t, c, &objects[0], "1", "data", "more")
			p := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Spec: v1alpha1.RestoreSpec{Existing: test.existing},
			})
			i := item(t, p, namespace+"/configmap/settings")
			if i.Action != test.action || !slices.Equal(i.Fields, []string{"~ data.color", "- data.more"}) {
				t.Errorf("planned %s %v", i.Action, i.Fields)
			}
			_, err := p.Apply(t.Context(), patience)
			if (err != nil) != (test.action == restore.Conflict) {
				t.Errorf("applied with %v", err)
			}
			color, _, _ := unstructured.NestedString(get(t, c, "v1", "ConfigMap", namespace, "settings").Object, "data", "color")
			if color != test.color {
				t.Errorf("the color is %s", color)
			}
		})
	}
}

func TestIntoAnotherNamespace(t *testing.T) {
	c := connect(t)
	namespace, objects := shop(t, c, plainObjects)
	target := namespace + "-copy"
	p := build(t, restore.Options{
		Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects},
		Spec: v1alpha1.RestoreSpec{Namespaces: map[string]string{namespace: target}},
	})
	if got := apply(t, p); got.Created != len(objects)+1 || len(got.Failed) > 0 {
		t.Fatalf("outcome %+v", got)
	}
	var ns corev1.Namespace
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: target}, &ns); err != nil {
		t.Fatal(err)
	}
	subjects, _, _ := unstructured.NestedSlice(get(t, c, "rbac.authorization.k8s.io/v1", "RoleBinding", target, "reader").Object, "subjects")
	if subject := subjects[0].(map[string]any); subject["namespace"] != target {
		t.Errorf("the binding is for %v", subject)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	const limit = 2 * time.Minute // it only ends a hang
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("%s: not within %s", what, limit)
}
