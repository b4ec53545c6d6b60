package restore_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/kube/restore"
)

const claims = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, annotations: {mine: kept, pv.kubernetes.io/bind-completed: "yes"}}
spec: {accessModes: [ReadWriteOnce], storageClassName: NAMESPACE, volumeName: pvc-1, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: image}
spec: {accessModes: [ReadWriteOnce], storageClassName: NAMESPACE, volumeMode: Block, resources: {requests: {storage: 1Gi}}}`

const storageClass = `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: NAMESPACE}, provisioner: example.com/none}`

func TestVolumes(t *testing.T) {
	c := connect(t)
	type want struct {
		action restore.Action
		why    string
	}
	tests := []struct {
		name   string
		there  bool // the claims are on the cluster
		change func(o *restore.Options, namespace string)
		want   []want // of data, of image
	}{
		{"claims that are gone", false, nil, []want{{restore.Create, ""}, {restore.Create, ""}}},
		{"claims that are there", true, nil, []want{{restore.Exchange, "kept for undo"}, {restore.Exchange, "kept for undo"}}},
		{
			"elsewhere", true, func(o *restore.Options, n string) { o.Spec.Namespaces = map[string]string{n: n + "-copy"} },
			[]want{{restore.Create, ""}, {restore.Create, ""}},
		},
		{
			"nothing may be there", true, func(o *restore.Options, _ string) { o.Spec.Existing = v1alpha1.ExistingFail },
			[]want{{restore.Conflict, "the claim is there"}, {restore.Conflict, "the claim is there"}},
		},
		{
			"nothing may be there, but this very restore put it there", true,
			func(o *restore.Options, _ string) { o.Spec.Existing, o.Begun = v1alpha1.ExistingFail, true },
			[]want{{restore.Exchange, ""}, {restore.Exchange, ""}},
		},
		{"only objects", true, func(o *restore.Options, _ string) { o.Spec.Only = v1alpha1.OnlyConfig }, nil},
		{"only objects, gone", false, func(o *restore.Options, _ string) { o.Spec.Only = v1alpha1.OnlyConfig }, nil},
		{"only one claim, gone", false, func(o *restore.Options, _ string) { o.Spec.Claims = []string{"data"} }, []want{{restore.Create, ""}}},
		{"only one claim", true, func(o *restore.Options, _ string) { o.Spec.Claims = []string{"data"} }, []want{{restore.Exchange, ""}}},
		{"only data", true, func(o *restore.Options, _ string) { o.Spec.Only = v1alpha1.OnlyData }, []want{{restore.Exchange, ""}, {restore.Exchange, ""}}},
		{"only data, gone", false, func(o *restore.Options, _ string) { o.Spec.Only = v1alpha1.OnlyData }, []want{{restore.Create, ""}, {restore.Create, ""}}},
		{"only other objects", true, func(o *restore.Options, _ string) { o.Spec.Objects = []string{"configmap"} }, nil},
		{
			"only an object that is a claim", true, func(o *restore.Options, _ string) { o.Spec.Objects = []string{"persistentvolumeclaim/image"} },
			[]want{{restore.Exchange, ""}},
		},
		{
			"not in the point", true, func(o *restore.Options, _ string) { o.Data[0].Missing = "failed: no snapshots" },
			[]want{{restore.Conflict, "no snapshots"}, {restore.Exchange, ""}},
		},
		{
			"of another mode", true, func(o *restore.Options, _ string) { o.Data[0].Block = true },
			[]want{{restore.Conflict, "mode Filesystem"}, {restore.Exchange, ""}},
		},
		{
			"a class that is not there", false, func(o *restore.Options, n string) { o.Spec.StorageClasses = map[string]string{n: "none"} },
			[]want{{restore.Conflict, "no StorageClass none"}, {restore.Conflict, "no StorageClass none"}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			namespace, objects := shop(t, c, claims)
			put(t, c, parse(t, strings.ReplaceAll(storageClass, "NAMESPACE", namespace)))
			for n := range objects {
				statusOf(t, c, &objects[n], map[string]any{"phase": "Bound", "capacity": map[string]any{"storage": "1Gi"}})
			}
			if !test.there {
				remove(t, c, objects)
			}
			o := restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Taken: time.Unix(0, 0), Now: time.Unix(90, 0),
				Data: []restore.Data{{Namespace: namespace, Claim: "data", Bytes: 5}, {Namespace: namespace, Claim: "image", Block: true, Bytes: 2 << 30}},
			}
			if test.change != nil {
				test.change(&o, namespace)
			}
			p := build(t, o)
			if len(p.Volumes) != len(test.want) {
				t.Fatalf("%s", strings.Join(p.Lines(), "\n"))
			}
			for n, w := range test.want {
				v := p.Volumes[n]
				if v.Action != w.action || !strings.Contains(v.Why, w.why) {
					t.Errorf("%s: %s %q", v.Claim, v.Action, v.Why)
				}
				if v.Action == restore.Conflict {
					continue
				}
				if v.Wanted.Spec.VolumeName != "" || v.Wanted.UID != "" || v.Wanted.Namespace != v.Namespace {
					t.Errorf("%s: wanted %+v", v.Claim, v.Wanted)
				}
				if v.Claim == "data" && (len(v.Wanted.Annotations) != 1 || v.Size.String() != "1Gi") {
					t.Errorf("size %s, annotations %v", v.Size.String(), v.Wanted.Annotations)
				}
				if v.Claim == "image" && v.Size.String() != "2Gi" {
					t.Errorf("a volume of %s for an image of 2 GiB", v.Size.String())
				}
			}
			for _, i := range p.Items {
				if i.Kind == "PersistentVolumeClaim" && o.Spec.Only == "" && len(o.Spec.Objects)+len(o.Spec.Claims) == 0 {
					t.Errorf("a claim that comes with its data is an item, too: %s", i)
				}
			}
			for _, i := range p.Items {
				if i.Kind == "PersistentVolumeClaim" && (i.Action == restore.Create) != (test.name == "only objects, gone") {
					t.Errorf("%s without its data: %s %s", i, i.Action, i.Why)
				}
			}
			if len(test.want) > 0 && p.Lost != 90 {
				t.Errorf("lost %d", p.Lost)
			}
		})
	}
}

// TestDataThatIsLeftOutOnPurpose: the claim is an object like others, made empty where it is gone; who asks for its data is told.
func TestDataThatIsLeftOutOnPurpose(t *testing.T) {
	c := connect(t)
	for name, test := range map[string]struct {
		gone   bool
		asked  []string
		volume restore.Action
		object restore.Action // of the claim; none where it is no item
	}{
		"there":                {false, nil, restore.Skip, restore.Same},
		"gone":                 {true, nil, restore.Skip, restore.Create},
		"asked for by name":    {false, []string{"data"}, restore.Conflict, ""},
		"another is asked for": {false, []string{"image"}, restore.Exchange, restore.Same},
	} {
		t.Run(name, func(t *testing.T) {
			namespace, objects := shop(t, c, claims)
			put(t, c, parse(t, strings.ReplaceAll(storageClass, "NAMESPACE", namespace)))
			if test.gone {
				remove(t, c, objects)
			}
			p := build(t, restore.Options{
				Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, Spec: v1alpha1.RestoreSpec{Claims: test.asked},
				Data: []restore.Data{
					{Namespace: namespace, Claim: "data", Missing: "excluded", LeftOut: true},
					{Namespace: namespace, Claim: "image", Block: true},
				},
			})
			text := strings.Join(p.Lines(), "\n")
			if v := p.Volumes[0]; v.Action != test.volume || (v.Claim == "data") != strings.Contains(v.Why, "excluded") {
				t.Errorf("volume %+v", v)
			}
			i := slices.IndexFunc(p.Items, func(i *restore.Item) bool { return i.Kind == "PersistentVolumeClaim" && i.Name == "data" })
			switch {
			case test.object == "" && i >= 0, test.object != "" && (i < 0 || p.Items[i].Action != test.object):
				t.Errorf("the claim, as an object:\n%s", text)
			case test.gone && !strings.Contains(p.Items[i].Why, "it is empty"):
				t.Errorf("that it is empty is not told:\n%s", text)
			}
		})
	}
}

func TestWhatIsMissingOnTheCluster(t *testing.T) {
	c := connect(t)
	namespace := kubetest.Namespace(t, c.Config)
	objects := within(t, namespace, `
apiVersion: none.example.com/v1
kind: Gadget
metadata: {name: a}
---
apiVersion: autoscaling/v2beta9
kind: HorizontalPodAutoscaler
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a}
spec: {ingressClassName: nginx, defaultBackend: {service: {name: a, port: {number: 80}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a}
spec:
  serviceName: a
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {priorityClassName: urgent, runtimeClassName: gvisor, containers: [{name: a, image: a}]}}
  volumeClaimTemplates: [{metadata: {name: a}, spec: {storageClassName: gone, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1}}}}]
---
apiVersion: v1
kind: Service
metadata: {name: gate, finalizers: [lost.example.org/cleanup]}
spec: {ports: [{port: 443}]}`)
	cluster := parse(t, `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: urgent}, value: 1}`)
	put(t, c, parse(t, strings.ReplaceAll(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NAMESPACE}
webhooks:
- name: gate.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: gate, namespace: NAMESPACE}}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [gadgets]}]`, "NAMESPACE", namespace)))
	p := build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, ClusterObjects: cluster})
	var missing []string
	for _, m := range p.Missing {
		missing = append(missing, m.Kind+" "+m.Name)
	}
	want := []string{
		"CustomResourceDefinition gadget.none.example.com", "CustomResourceDefinition horizontalpodautoscaler.autoscaling",
		"IngressClass nginx", "RuntimeClass gvisor", "StorageClass gone",
	}
	if strings.Join(missing, ", ") != strings.Join(want, ", ") {
		t.Errorf("missing %q", missing)
	}
	if i := item(t, p, namespace+"/horizontalpodautoscaler.autoscaling/a"); i.Action != restore.Conflict || !strings.Contains(i.Why, "the cluster serves v") {
		t.Errorf("%s %s", i.Action, i.Why)
	}
	if i := item(t, p, namespace+"/service/gate"); !strings.Contains(i.Why, "finalizer lost.example.org/cleanup") {
		t.Errorf("why %q", i.Why)
	}
	text := strings.Join(p.Lines(), "\n")
	if !strings.Contains(text, "webhook gate.example.com") || !strings.Contains(text, "missing: StorageClass gone") {
		t.Errorf("the table does not tell:\n%s", text)
	}
	document, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(document), `"version":1`) {
		t.Errorf("as JSON: %v %s", err, document)
	}
	again, _ := json.Marshal(build(t, restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, ClusterObjects: cluster}))
	if string(again) != string(document) {
		t.Errorf("two plans of the same differ:\n%s\n%s", document, again)
	}
}
