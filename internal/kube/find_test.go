package kube_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

func TestFind(t *testing.T) {
	c := connect(t)
	create(t, c, "", `{apiVersion: v1, kind: Namespace, metadata: {name: find-a, labels: {find: "yes"}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: find-b}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: find-c, labels: {find: "yes"}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: find-system, labels: {find: "yes"}}}`)
	const system = "find-system"
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"find": "yes"}}
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "find", Operator: "Like"}}}
	tests := []struct {
		name string
		sel  v1alpha1.Applications
		home string // system where empty
		want string // NAME=NAMESPACES
		err  error
	}{
		{name: "named", sel: v1alpha1.Applications{Namespaces: []string{"find-b", "find-a"}}, want: "find-a=find-a find-b=find-b"},
		{name: "glob", sel: v1alpha1.Applications{Namespaces: []string{"find-*"}}, want: "find-a=find-a find-b=find-b find-c=find-c"},
		{name: "class and mark", sel: v1alpha1.Applications{Namespaces: []string{"find-[ab]", "fin?-c"}}, want: "find-a=find-a find-b=find-b find-c=find-c"},
		{
			name: "excluded beats named",
			sel:  v1alpha1.Applications{Namespaces: []string{"find-*", "find-b", "find-gone"}, ExcludeNamespaces: []string{"*-b", "find-gone"}},
			want: "find-a=find-a find-c=find-c",
		},
		{name: "labels beside names", sel: v1alpha1.Applications{Namespaces: []string{"find-b"}, NamespaceSelector: labelled}, want: "find-a=find-a find-b=find-b find-c=find-c"},
		{name: "labels", sel: v1alpha1.Applications{NamespaceSelector: labelled, ExcludeNamespaces: []string{"find-a"}}, want: "find-c=find-c"},
		{name: "one application", sel: v1alpha1.Applications{Name: "shop", Namespaces: []string{"find-c", "find-a"}}, want: "shop=find-a,find-c"},
		{name: "kube-* by its name", sel: v1alpha1.Applications{Namespaces: []string{"kube-public", "kube-s*"}}, want: "kube-public=kube-public"},
		{name: "Backstay's own by its name", sel: v1alpha1.Applications{Namespaces: []string{"find-system"}}, want: "find-system=find-system"},
		{name: "no match", sel: v1alpha1.Applications{Name: "shop", Namespaces: []string{"nothing-*"}}},
		{name: "missing", sel: v1alpha1.Applications{Namespaces: []string{"find-a", "find-gone"}}, want: "find-a=find-a", err: fault.ErrNotFound},
		{name: "missing beside a glob", sel: v1alpha1.Applications{Namespaces: []string{"find-[a]", "find-gone"}}, want: "find-a=find-a", err: fault.ErrNotFound},
		{name: "nothing selected", err: fault.ErrInvalid},
		{name: "no pattern", sel: v1alpha1.Applications{Namespaces: []string{"find-["}}, err: fault.ErrInvalid},
		{name: "no selector", sel: v1alpha1.Applications{Namespaces: []string{"find-a"}, Selector: broken}, err: fault.ErrInvalid},
		{name: "no namespace selector", sel: v1alpha1.Applications{NamespaceSelector: broken}, err: fault.ErrInvalid},
		{name: "no reference", sel: v1alpha1.Applications{Namespaces: []string{"find-a"}, Objects: []string{"web"}}, err: fault.ErrInvalid},
		{name: "tenant", home: "find-a", want: "find-a=find-a"},
		{name: "tenant by name", sel: v1alpha1.Applications{Name: "shop", Namespaces: []string{"find-a"}}, home: "find-a", want: "shop=find-a"},
		{name: "tenant without itself", sel: v1alpha1.Applications{ExcludeNamespaces: []string{"find-*"}}, home: "find-a"},
		{name: "tenant elsewhere", sel: v1alpha1.Applications{Namespaces: []string{"find-a", "find-b"}}, home: "find-a", err: fault.ErrDenied},
		{name: "tenant by glob", sel: v1alpha1.Applications{Namespaces: []string{"find-*"}}, home: "find-a", err: fault.ErrDenied},
		{name: "tenant by labels", sel: v1alpha1.Applications{NamespaceSelector: labelled}, home: "find-a", err: fault.ErrDenied},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			home := test.home
			if home == "" {
				home = system
			}
			apps, err := c.Find(t.Context(), test.sel, home, system)
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			var got []string
			for _, a := range apps {
				got = append(got, a.Name+"="+strings.Join(a.Namespaces, ","))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// web is an application with all that one usually has, and a neighbour.
const web = `{apiVersion: v1, kind: ServiceAccount, metadata: {name: web}, imagePullSecrets: [{name: registry}]}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: other}}
---
{apiVersion: v1, kind: Secret, metadata: {name: registry}}
---
{apiVersion: v1, kind: Secret, metadata: {name: password}}
---
{apiVersion: v1, kind: Secret, metadata: {name: others}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: chosen, labels: {app: web}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: uploads}, spec: {storageClassName: slow, accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-0}, spec: {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-x}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: scratch, labels: {app: web}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers: [{name: web, image: web, env: [{name: P, valueFrom: {secretKeyRef: {name: password, key: p}}}], envFrom: [{configMapRef: {name: settings}}]}]
      volumes: [{name: uploads, persistentVolumeClaim: {claimName: uploads}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, labels: {app: web}}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: db}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: web}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: other}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: web},
 subjects: [{kind: ServiceAccount, name: web, namespace: NAMESPACE}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: other},
 subjects: [{kind: ServiceAccount, name: other, namespace: NAMESPACE}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: other}}`

func TestAChoiceComesWithWhatItNeeds(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	made := create(t, c, ns, strings.ReplaceAll(web, "NAMESPACE", ns))
	web := made[slices.IndexFunc(made, func(u *unstructured.Unstructured) bool { return u.GetKind() == "Deployment" })]
	set := create(t, c, ns, `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: `+
		string(web.GetUID())+`, controller: true}]}, spec: {selector: {matchLabels: {set: web-1}},
 template: {metadata: {labels: {set: web-1}}, spec: {serviceAccountName: web, containers: [{name: web, image: web}]}}}}`)[0]
	create(t, c, ns, `{apiVersion: v1, kind: Pod, metadata: {name: web-1-x, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: `+
		string(set.GetUID())+`, controller: true}]}, spec: {serviceAccountName: web, containers: [{name: web, image: web}],
 volumes: [{name: injected, persistentVolumeClaim: {claimName: injected}}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: injected}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`)
	at := moment(t, c)
	ofWeb := []string{
		"configmap/settings", "deployment/web", "namespace/" + ns, "persistentvolumeclaim/injected", "persistentvolumeclaim/uploads",
		"pod/web-1-x", "replicaset/web-1", "role/web", "rolebinding/web", "secret/password", "secret/registry", "serviceaccount/web",
	}
	tests := []struct {
		name    string
		sel     v1alpha1.Applications
		want    []string
		claims  []string
		missing string // the count that does not close
	}{
		{
			name: "by labels", sel: v1alpha1.Applications{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			want:   append([]string{"configmap/chosen", "persistentvolumeclaim/data-db-0", "persistentvolumeclaim/scratch", "statefulset/db"}, ofWeb...),
			claims: []string{"data-db-0", "injected", "scratch", "uploads"},
		},
		{
			name: "one object", sel: v1alpha1.Applications{Objects: []string{"deployment.apps/web"}},
			want: ofWeb, claims: []string{"injected", "uploads"},
		},
		{
			name: "without groups", sel: v1alpha1.Applications{Objects: []string{"sts/db", "ConfigMap/chosen"}},
			want:   []string{"configmap/chosen", "namespace/" + ns, "persistentvolumeclaim/data-db-0", "statefulset/db"},
			claims: []string{"data-db-0"},
		},
		{
			name: "one that is not there", sel: v1alpha1.Applications{Objects: []string{"deployment.apps/web", "deployment.batch/web"}},
			want: ofWeb, claims: []string{"injected", "uploads"}, missing: "objects deployment.batch/web",
		},
		{
			name: "labels that nothing has", sel: v1alpha1.Applications{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "none"}}},
			want: []string{"namespace/" + ns}, missing: "objects with labels app=none",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.sel.Namespaces = []string{ns}
			apps, err := c.Find(t.Context(), test.sel, "system", "system")
			if err != nil {
				t.Fatal(err)
			}
			got := capture(t, c, apps[0], at)
			slices.Sort(test.want)
			objects := slices.DeleteFunc(names(got.objects["kubernetes/"+ns]), func(n string) bool { return n == "serviceaccount/default" })
			if !slices.Equal(objects, test.want) {
				t.Errorf("got %q, want %q", objects, test.want)
			}
			var open []string
			for _, count := range got.parts["kubernetes/"+ns].Counts {
				if !count.Closes() {
					open = append(open, count.Of)
				}
			}
			if strings.Join(open, ",") != test.missing {
				t.Errorf("open counts %q, want %q", open, test.missing)
			}
			claims, err := c.Claims(t.Context(), apps[0])
			if err != nil {
				t.Fatal(err)
			}
			var claimed []string
			for _, claim := range claims {
				claimed = append(claimed, claim.Name)
			}
			if !slices.Equal(claimed, test.claims) {
				t.Errorf("claims %q, want %q", claimed, test.claims)
			}
		})
	}
}

func TestWhatIsNeededOfTheClusterComesAlong(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	create(t, c, ns, strings.ReplaceAll(web, "NAMESPACE", ns)+`
---
{apiVersion: v1, kind: Service, metadata: {name: hook}, spec: {clusterIP: None, ports: [{port: 443}]}}
---
{apiVersion: v1, kind: PodTemplate, metadata: {name: urgent}, template: {spec: {priorityClassName: needed-urgent, runtimeClassName: needed-runtime, containers: [{name: a, image: a}]}}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web}, spec: {ingressClassName: needed-ingress, defaultBackend: {service: {name: web, port: {number: 80}}}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: wide},
 subjects: [{kind: ServiceAccount, name: web, namespace: `+ns+`}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: needed-reader}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: standard},
 subjects: [{kind: ServiceAccount, name: web, namespace: `+ns+`}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`)
	for _, u := range create(t, c, "", `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: example.com/fast}
---
{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: unused}, provisioner: example.com/unused}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: needed-urgent}, value: 7}
---
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: needed-runtime}, handler: runc}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: needed-ingress}, spec: {controller: example.com/ingress}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: needed-reader}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: needed-lister}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: needed-lister},
 subjects: [{kind: ServiceAccount, name: web, namespace: `+ns+`}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: needed-lister}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: needed-by-all},
 subjects: [{kind: Group, name: "system:serviceaccounts:`+ns+`"}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: needed-reader}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: needed-elsewhere},
 subjects: [{kind: ServiceAccount, name: web, namespace: elsewhere}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: needed-reader}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: needed-hook}, webhooks: [{name: a.example.com,
 admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Ignore, clientConfig: {service: {namespace: `+ns+`, name: hook}}}]}`) {
		t.Cleanup(func() {
			if err := c.Client.Delete(context.Background(), u); err != nil {
				t.Error(err)
			}
		})
	}

	got := capture(t, c, whole(ns), moment(t, c))

	want := []string{
		"clusterrole/needed-lister", "clusterrole/needed-reader", "clusterrolebinding/needed-by-all", "clusterrolebinding/needed-lister",
		"ingressclass/needed-ingress", "priorityclass/needed-urgent", "runtimeclass/needed-runtime", "storageclass/fast",
		"validatingwebhookconfiguration/needed-hook",
	}
	if found := names(got.objects["kubernetes/_cluster"]); !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	if got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
	a := whole(ns)
	a.Capture.ClusterObjects = v1alpha1.ClusterObjectsNone
	if got := capture(t, c, a, moment(t, c)); len(got.parts) != 1 || got.state != point.Complete {
		t.Errorf("without objects of the cluster: point %s of %d parts", got.state, len(got.parts))
	}
}

func TestTenantsReadWithTheirOwnRights(t *testing.T) {
	c := connect(t)
	ns, other := kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config)
	create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: backstay}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: backstay},
 subjects: [{kind: ServiceAccount, name: backstay, namespace: `+ns+`}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: backstay}}`)
	tenant, err := c.As(ns, "backstay")
	if err != nil {
		t.Fatal(err)
	}
	var got captured
	eventually(t, "the rights are there", func() bool {
		got = capture(t, tenant, whole(ns), moment(t, tenant))
		return got.state == point.Complete
	})
	find(t, got.objects["kubernetes/"+ns], "configmap/settings")
	find(t, got.objects["kubernetes/"+ns], "namespace/"+ns)
	if notes := got.parts["kubernetes/_cluster"].Notes; len(notes) == 0 || !strings.HasPrefix(notes[0], "not readable for the service account, ") {
		t.Errorf("notes %q do not say that objects of the cluster were out of reach", notes)
	}
	both := kube.Application{Name: "both", Namespaces: []string{ns, other}}
	if got := capture(t, tenant, both, moment(t, tenant)).parts["kubernetes/"+other]; got.State != point.Failed {
		t.Errorf("another namespace is %s: %+v", got.State, got)
	}
}
