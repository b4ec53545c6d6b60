package restore

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// object reads one YAML document.
func object(t testing.TB, document string) *unstructured.Unstructured {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return u
}

// same fails where two objects are not.
func same(t *testing.T, got, want *unstructured.Unstructured) {
	t.Helper()
	d := &differ{}
	d.compare("", got.Object, want.Object)
	if len(d.fields) > 0 {
		text, _ := json.MarshalIndent(got.Object, "", " ")
		t.Errorf("differs in %q:\n%s", d.fields, text)
	}
}

func TestStripTakesOutWhatTheServerAssigns(t *testing.T) {
	tests := []struct{ name, object, want string }{
		{
			"metadata and status", `
apiVersion: v1
kind: ConfigMap
metadata:
  {name: a, namespace: b, uid: u, resourceVersion: "1", generation: 3, creationTimestamp: null, managedFields: [], selfLink: x, generateName: y,
  labels: {}, annotations: {}, deletionTimestamp: null, finalizers: [orphan, example.com/mine]}
status: {a: b}`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: b, finalizers: [example.com/mine]}`,
		},
		{
			"claim", `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a, annotations: {pv.kubernetes.io/bind-completed: "yes", volume.kubernetes.io/selected-node: n, mine: kept}, finalizers: [kubernetes.io/pvc-protection]}
spec: {volumeName: pvc-1, resources: {requests: {storage: 1Gi}}}`, `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a, annotations: {mine: kept}}
spec: {resources: {requests: {storage: 1Gi}}}`,
		},
		{
			"service", `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], healthCheckNodePort: 30000, type: ClusterIP}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP}}`,
		},
		{
			"headless service", `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None, clusterIPs: [None]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None, clusterIPs: [None]}}`,
		},
		{
			"account", `{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, secrets: [{name: a-token-xyz}, {name: mine}]}`,
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, secrets: [{name: mine}]}`,
		},
		{
			"job", `
apiVersion: batch/v1
kind: Job
metadata: {name: a, labels: {controller-uid: u, batch.kubernetes.io/controller-uid: u}}
spec: {selector: {matchLabels: {batch.kubernetes.io/controller-uid: u}}, template: {metadata: {labels: {job-name: a, mine: kept}}}}`,
			`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {template: {metadata: {labels: {mine: kept}}}}}`,
		},
		{
			"job with a selector of its own", `
apiVersion: batch/v1
kind: Job
metadata: {name: a}
spec: {manualSelector: true, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}`, `
apiVersion: batch/v1
kind: Job
metadata: {name: a}
spec: {manualSelector: true, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}`,
		},
		{
			"pod", `
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  nodeName: n
  priority: 0
  volumes: [{name: kube-api-access-x, projected: {}}, {name: data}]
  containers: [{name: a, volumeMounts: [{name: kube-api-access-x, mountPath: /t}]}, {name: b, volumeMounts: [{name: data}]}]`, `
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  volumes: [{name: data}]
  containers: [{name: a}, {name: b, volumeMounts: [{name: data}]}]`,
		},
		{
			"things where others should be",
			`{apiVersion: v1, kind: Pod, metadata: {name: a, labels: [], annotations: 3, finalizers: {}}, spec: [1], status: x}`,
			`{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: 3}, spec: [1]}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := object(t, test.object)
			strip(got)
			same(t, got, object(t, test.want))
		})
	}
}

func TestDifferencesNameFieldsAndNoValues(t *testing.T) {
	tests := []struct {
		name, point, live string
		want              []string
	}{
		{"none", `{a: 1, b: null}`, `{a: 1}`, nil},
		{"changed, gone, new", `{a: 1, b: 2}`, `{a: 2, c: 3}`, []string{"~ a", "+ b", "- c"}},
		{"named list", `{c: [{name: x, i: 1}, {name: z}]}`, `{c: [{name: z}, {name: x, i: 2}]}`, []string{"~ c.x.i"}},
		{"order of a named list", `{c: [{name: x}, {name: z}]}`, `{c: [{name: z}, {name: x}]}`, []string{"~ c (order)"}},
		{"list by position", `{c: [1, 2]}`, `{c: [1, 3]}`, []string{"~ c[1]"}},
		{"lists of other lengths", `{c: [1]}`, `{c: [1, 2]}`, []string{"~ c"}},
		{"other types", `{c: {a: b}}`, `{c: [1]}`, []string{"~ c"}},
		{"an empty selector is something", `{from: [{podSelector: {}}]}`, `{from: [{podSelector: {}, namespaceSelector: {}}]}`, []string{"- from[0].namespaceSelector"}},
		{"a key with dots", `{data: {a.b/c: x}}`, `{data: {}}`, []string{"+ data[a.b/c]"}},
		{"many", `{a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1}`, `{}`, []string{"+ a", "+ b", "+ c", "+ d", "+ e", "+ f", "+ g", "+ h", "and 2 more"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			point, live := object(t, "{kind: X, apiVersion: v1}"), object(t, "{kind: X, apiVersion: v1}")
			for u, text := range map[*unstructured.Unstructured]string{point: test.point, live: test.live} {
				if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
					t.Fatal(err)
				}
			}
			if got := differences(point, live); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestMapping(t *testing.T) {
	m := mapping{namespaces: map[string]string{"shop": "copy"}, classes: map[string]string{"fast": "slow"}, argo: true}
	tests := []struct{ name, object, want string }{
		{
			"binding", `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: a, namespace: shop}
subjects:
- {kind: ServiceAccount, name: a, namespace: shop}
- {kind: ServiceAccount, name: a, namespace: other}
- {kind: User, name: "system:serviceaccount:shop:b"}
- {kind: Group, name: "system:serviceaccounts:shop"}`, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: a, namespace: copy}
subjects:
- {kind: ServiceAccount, name: a, namespace: copy}
- {kind: ServiceAccount, name: a, namespace: other}
- {kind: User, name: "system:serviceaccount:copy:b"}
- {kind: Group, name: "system:serviceaccounts:copy"}`,
		},
		{
			"what is in a ConfigMap is nobody's business", `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: shop}
data: {name: a, namespace: shop, storageClassName: fast}`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: copy}
data: {name: a, namespace: shop, storageClassName: fast}`,
		},
		{
			"tracked by annotation", `
apiVersion: v1
kind: ServiceAccount
metadata:
  {name: a, namespace: shop, labels: {app.kubernetes.io/instance: shop, app: a, kustomize.toolkit.fluxcd.io/name: x},
  annotations: {argocd.argoproj.io/tracking-id: "shop:/ServiceAccount:shop/a", kubectl.kubernetes.io/last-applied-configuration: "{}"}}`,
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: copy, labels: {app.kubernetes.io/instance: shop, app: a}}}`,
		},
		{
			"tracked by label", `{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: shop, labels: {app.kubernetes.io/instance: shop}}}`,
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: copy}}`,
		},
		{
			"storage classes", `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a, namespace: shop}
spec: {volumeClaimTemplates: [{spec: {storageClassName: fast}}, {spec: {storageClassName: other}}]}`, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a, namespace: copy}
spec: {volumeClaimTemplates: [{spec: {storageClassName: slow}}, {spec: {storageClassName: other}}]}`,
		},
		{
			"peers of a policy", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}`, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: copy}
spec: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: copy}}}]}]}`,
		},
		{
			"ports of nodes", `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {ports: [{port: 80, nodePort: 30001}]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a, namespace: copy}, spec: {ports: [{port: 80}]}}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := object(t, test.object)
			m.apply(got, "shop", false)
			same(t, got, object(t, test.want))
		})
	}
	t.Run("in place", func(t *testing.T) {
		text := `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: other, annotations: {argocd.argoproj.io/tracking-id: "x"}}, spec: {ports: [{nodePort: 30001}]}}`
		got := object(t, text)
		m.apply(got, "other", false)
		same(t, got, object(t, text))
	})
	t.Run("webhook of the cluster", func(t *testing.T) {
		text := `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: a}, webhooks: [{clientConfig: {service: {name: a, namespace: shop}}}]}`
		got := object(t, text)
		m.apply(got, "", true)
		same(t, got, object(t, strings.Replace(text, "namespace: shop", "namespace: copy", 1)))
	})
}

func TestTransforms(t *testing.T) {
	const start = `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {color: blue}}`
	tests := []struct {
		name  string
		patch []v1alpha1.PatchOperation
		want  string
		why   string
	}{
		{"replaced", []v1alpha1.PatchOperation{{Op: "replace", Path: "/data/color", Value: `"red"`}}, strings.Replace(start, "blue", "red", 1), ""},
		{"does not fit", []v1alpha1.PatchOperation{{Op: "replace", Path: "/spec/x", Value: "1"}}, start, "transform 1 does not fit"},
		{"does not fit, and says so itself", []v1alpha1.PatchOperation{{Op: "test", Path: "/data/color", Value: `"green"`}, {Op: "remove", Path: "/data"}}, start, ""},
		{"half of it fits", []v1alpha1.PatchOperation{{Op: "remove", Path: "/data"}, {Op: "remove", Path: "/x"}}, start, "transform 1 does not fit"},
		{"leaves no object", []v1alpha1.PatchOperation{{Op: "remove", Path: "/kind"}}, start, "transform 1 does not fit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parsed, err := parseTransforms([]v1alpha1.Transform{{Objects: "*", Patch: test.patch}})
			if err != nil {
				t.Fatal(err)
			}
			got := object(t, start)
			if why := parsed[0].apply(got); why != test.why {
				t.Errorf("why %q, want %q", why, test.why)
			}
			same(t, got, object(t, test.want))
		})
	}
	for _, bad := range []v1alpha1.PatchOperation{
		{Op: "replace", Path: "/a", Value: "blue"},
		{Op: "replace", Path: "a", Value: "1"},
		{Op: "destroy", Path: "/a"},
		{Op: "copy", Path: "/a"},
		{Op: "add", Path: "", Value: "{}"},
	} {
		if _, err := parseTransforms([]v1alpha1.Transform{{Objects: "configmap", Patch: []v1alpha1.PatchOperation{bad}}}); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestACopyBombIsNoObject(t *testing.T) {
	var patch []v1alpha1.PatchOperation
	for range 40 { // doubles each time
		patch = append(patch, v1alpha1.PatchOperation{Op: "copy", From: "/data", Path: "/data/again"}, v1alpha1.PatchOperation{Op: "copy", From: "/data", Path: "/data/more"})
	}
	parsed, err := parseTransforms([]v1alpha1.Transform{{Objects: "*", Patch: patch}})
	if err != nil {
		t.Fatal(err)
	}
	if why := parsed[0].apply(object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {color: blue}}`)); why == "" {
		t.Error("it was applied")
	}
}

func TestSelectors(t *testing.T) {
	deployment, service := schema.GroupKind{Group: "apps", Kind: "Deployment"}, schema.GroupKind{Kind: "Service"}
	tests := []struct {
		text string
		kind schema.GroupKind
		name string
		want bool
	}{
		{"deployment.apps/web", deployment, "web", true},
		{"Deployment/web", deployment, "web", true},
		{"deployment.apps", deployment, "any", true},
		{"deployment.apps/web", deployment, "other", false},
		{"deployment.example.com/web", deployment, "web", false},
		{"service", service, "a", true},
		{"service", deployment, "a", false},
	}
	for _, test := range tests {
		s, err := parseSelector(test.text, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.matches(test.kind, test.name); got != test.want {
			t.Errorf("%s and %s/%s: %v", test.text, test.kind, test.name, got)
		}
	}
	for _, text := range []string{"", "*", "/", "a/", "/a", "a/b/c", "a.", "*/a", "a b"} {
		if _, err := parseSelector(text, false); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOrderPutsOwnersFirst(t *testing.T) {
	make := func(group, kind, name string, owners ...*Item) *Item {
		i := &Item{Ref: Ref{Group: group, Kind: kind, Name: name, Namespace: "n"}}
		for _, o := range owners {
			i.owners = append(i.owners, owner{item: o})
		}
		return i
	}
	custom := make("example.com", "Database", "z")
	child := make("example.com", "Backup", "a", custom)
	set := make("apps", "StatefulSet", "b", custom)
	password := make("", "Secret", "c", custom)
	service := make("", "Service", "d", set)
	web := make("apps", "Deployment", "e")
	hen, egg := make("example.com", "Hen", "f"), make("example.com", "Egg", "g")
	hen.owners, egg.owners = []owner{{item: egg}}, []owner{{item: hen}, {item: egg}}
	items := []*Item{child, set, password, service, web, custom, egg, hen}
	order(items)
	var got []string
	for _, i := range items {
		got = append(got, i.Name)
	}
	at := func(name string) int { return slices.Index(got, name) }
	switch {
	case at("c") != 0, at("e") != 1:
		t.Errorf("what others read comes first, and what has no owner keeps its place: %v", got)
	case at("z") > at("a"), at("z") > at("b"), at("b") > at("d"):
		t.Errorf("owners come before what they own: %v", got)
	}
}

func TestReadiness(t *testing.T) {
	tests := []struct{ name, object, why string }{
		{"deployment", `{kind: Deployment, apiVersion: apps/v1, metadata: {generation: 2}, spec: {replicas: 2}, status: {observedGeneration: 2, updatedReplicas: 2, availableReplicas: 2}}`, ""},
		{"deployment at zero", `{kind: Deployment, apiVersion: apps/v1, spec: {replicas: 0}, status: {observedGeneration: 1}}`, ""},
		{"deployment on its way", `{kind: Deployment, apiVersion: apps/v1, spec: {replicas: 2}, status: {observedGeneration: 1, updatedReplicas: 2, availableReplicas: 1}}`, "1 of 2 pods are ready"},
		{"deployment not seen", `{kind: Deployment, apiVersion: apps/v1, metadata: {generation: 2}, status: {observedGeneration: 1, updatedReplicas: 1, availableReplicas: 1}}`, "its controller has not seen it yet"},
		{"deployment that is new", `{kind: Deployment, apiVersion: apps/v1, metadata: {generation: 1}}`, "its controller has not seen it yet"},
		{"deployment that gave up", `{kind: Deployment, apiVersion: apps/v1, status: {observedGeneration: 1, conditions: [{type: Progressing, reason: ProgressDeadlineExceeded, message: late}]}}`, "late"},
		{"set", `{kind: StatefulSet, apiVersion: apps/v1, spec: {replicas: 3}, status: {observedGeneration: 1, readyReplicas: 2}}`, "2 of 3 pods are ready"},
		{"agents", `{kind: DaemonSet, apiVersion: apps/v1, status: {observedGeneration: 1, desiredNumberScheduled: 2, numberReady: 2}}`, ""},
		{"job that runs", `{kind: Job, apiVersion: batch/v1, status: {active: 1}}`, ""},
		{"job that failed", `{kind: Job, apiVersion: batch/v1, status: {conditions: [{type: Failed, status: "True", reason: R, message: m}]}}`, "it failed: R: m"},
		{"job that has not begun", `{kind: Job, apiVersion: batch/v1}`, "it has not begun"},
		{"claim", `{kind: PersistentVolumeClaim, apiVersion: v1, status: {phase: Pending}}`, "it has no volume"},
		{"pod", `{kind: Pod, apiVersion: v1, status: {phase: Running, conditions: [{type: Ready, status: "False"}]}}`, "the pod is running"},
		{"balanced service", `{kind: Service, apiVersion: v1, spec: {type: LoadBalancer}}`, "it has no load balancer"},
		{"custom resource", `{kind: X, apiVersion: example.com/v1, status: {conditions: [{type: Ready, status: "False", reason: R, message: m}]}}`, "not Ready: R: m"},
		{"custom resource at work", `{kind: X, apiVersion: example.com/v1, status: {conditions: [{type: Reconciling, status: "True", reason: R, message: m}, {type: Ready, status: "True"}]}}`, "Reconciling: R: m"},
		{"custom resource without conditions", `{kind: X, apiVersion: example.com/v1}`, ""},
		{"nonsense", `{kind: Deployment, apiVersion: apps/v1, spec: [], status: 3}`, "its controller has not seen it yet"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			why, not := unready(object(t, test.object))
			if why != test.why || not != (test.why != "") {
				t.Errorf("%q, %v", why, not)
			}
		})
	}
}

func TestReasonsTellNoSecrets(t *testing.T) {
	secret := object(t, `{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {password: aHVudGVyMjI=}, stringData: {other: swordfish}}`)
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "a", errors.New("hunter22, aHVudGVyMjI= and swordfish are weak"))
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "a", field.ErrorList{field.Invalid(field.NewPath("data"), "hunter22", "field is immutable")})
	for _, err := range []error{denied, invalid} {
		said := reason(err, secret)
		for _, word := range []string{"hunter22", "aHVudGVyMjI=", "swordfish"} {
			if strings.Contains(said, word) {
				t.Errorf("%q tells %s", said, word)
			}
		}
	}
	if said := reason(invalid, secret); said != "not valid: data field is immutable" {
		t.Errorf("said %q", said)
	}
}

func FuzzObjects(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","ownerReferences":[{"uid":"a","name":"b","kind":"c"}]},"spec":{"containers":[{"volumeMounts":[1]}]}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"a/../b","labels":[]},"spec":{"ports":[{"nodePort":1}]}}`,
		`{"apiVersion":"a/b/c","kind":"Job","metadata":3,"spec":{"template":[]}}`,
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"\u0000"},"secrets":[3,{"name":"a-token-b"}]}`,
		`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","finalizers":[1]},"spec":null}`,
		`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"a"},"spec":{"volumeClaimTemplates":[{"spec":{"storageClassName":3}}],"template":{"spec":[]}}}`,
		`{"apiVersion":"v1","kind":"X","metadata":{"name":"a","annotations":{"argocd.argoproj.io/tracking-id":":"}},"webhooks":[{"clientConfig":{"service":{"name":"a","namespace":"shop"}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	m := mapping{namespaces: map[string]string{"shop": "copy"}, classes: map[string]string{"fast": "slow"}, argo: true}
	patch, err := parseTransforms([]v1alpha1.Transform{{Objects: "*", Patch: []v1alpha1.PatchOperation{{Op: "move", From: "/spec", Path: "/data"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var raw map[string]any
		if json.Unmarshal(text, &raw) != nil {
			return
		}
		u, _ := copyOf(&unstructured.Unstructured{Object: raw})
		if u == nil {
			return
		}
		badIdentity(u)
		neverBack(u)
		unready(u)
		podTrouble(u)
		needs(u, func(string, string, string) {})
		before := u.DeepCopy()
		strip(u)
		again := u.DeepCopy()
		strip(again)
		same(t, again, u)
		differences(before, u)
		m.apply(u, "shop", false)
		update(u, before)
		u.SetOwnerReferences([]metav1.OwnerReference{{Name: "a"}})
		patch[0].apply(u)
	})
}

func FuzzPatch(f *testing.F) {
	f.Add("replace", "/data/color", "", `"red"`)
	f.Add("copy", "/data/x", "/data", "")
	f.Add("add", "/data/-", "", "[1]")
	f.Add("test", "/a~1b/~0", "", "null")
	f.Add("move", "/data/0", "/data/-1", "")
	f.Fuzz(func(t *testing.T, op, path, from, value string) {
		parsed, err := parseTransforms([]v1alpha1.Transform{{Objects: "*", Patch: []v1alpha1.PatchOperation{{Op: op, Path: path, From: from, Value: value}}}})
		if err != nil {
			return
		}
		u := object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {color: blue, list: [1, {a: b}]}}`)
		parsed[0].apply(u)
		if u.GetKind() == "" {
			t.Errorf("it left no object: %v", u.Object)
		}
	})
}
