package kube_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

// defineKind makes a kind whose objects may have any fields, until the end of the test.
func defineKind(t *testing.T, c *kube.Cluster, group, version, plural, name string) {
	t.Helper()
	define(t, c, fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %[3]s.%[1]s}, spec: {group: %[1]s, scope: Namespaced,
 names: {kind: %[4]s, plural: %[3]s}, versions: [{name: %[2]s, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`,
		group, version, plural, name), group+"/"+version)
}

// application is an Application of Argo CD that lists resources as GROUP/KIND/NAMESPACE/NAME.
func application(name, to string, resources ...string) string {
	var listed []string
	for _, r := range resources {
		f := strings.Split(r, "/")
		listed = append(listed, fmt.Sprintf("{group: %q, kind: %s, namespace: %q, name: %q, version: v1}", f[0], f[1], f[2], f[3]))
	}
	return fmt.Sprintf("{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: %s}, spec: {destination: {namespace: %s, server: 'https://kubernetes.default.svc'}}, status: {resources: [%s]}}",
		name, to, strings.Join(listed, ", "))
}

func TestFindDeployments(t *testing.T) {
	c := connect(t)
	const system = "find-system"
	argo := v1alpha1.Applications{ArgoCD: []string{"*"}}
	if _, err := c.Find(t.Context(), argo, system, system); !errors.Is(err, fault.ErrUnsupported) || len(fault.Hints(err)) == 0 {
		t.Errorf("without Argo CD: %v", err)
	}
	if _, err := c.Find(t.Context(), v1alpha1.Applications{Flux: []string{"*"}}, system, system); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("without Flux: %v", err)
	}
	defineKind(t, c, "argoproj.io", "v1alpha1", "applications", "Application")
	defineKind(t, c, "kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization")
	one, other, third := kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config)
	one, other = min(one, other), max(one, other) // of what is made in one second, the first by name has its name alone
	create(t, c, one, application("shop", third, "apps/Deployment/"+other+"/web", "/Namespace//"+third, "/Secret/no-such-namespace/s")+"\n---\n"+
		application("empty", other)+"\n---\n"+application("unborn", "no-such-namespace")+"\n---\n"+
		`{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: far}, spec: {destination: {namespace: x, server: "https://far.example"}}}`+"\n---\n"+
		`{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: hostile}, spec: [], status: {resources: {a: 1}}}`)
	create(t, c, other, application("shop", other, "/ConfigMap/"+other+"/a", "/ConfigMap/"+third+"/b"))
	create(t, c, one, `{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: infra}, spec: {}, status: {inventory: {entries: [
 {id: `+third+`_web_apps_Deployment, v: v1}, {id: _system__reader_rbac.authorization.k8s.io_ClusterRole, v: v1}, {id: broken, v: v1}]}}}`)
	tests := []struct {
		name string
		sel  v1alpha1.Applications
		home string
		want string // NAME=NAMESPACES
		err  error
	}{
		{
			name: "all", sel: argo, want: other + ".shop=" + other + "," + third + " empty=" + other + " hostile= shop=" + other + "," + third + " unborn=",
		},
		{name: "by name", sel: v1alpha1.Applications{ArgoCD: []string{"empty", "emp*"}}, want: "empty=" + other},
		{name: "by namespace", sel: v1alpha1.Applications{ArgoCD: []string{other + "/*"}}, want: other + ".shop=" + other + "," + third},
		{name: "as one", sel: v1alpha1.Applications{Name: "all", ArgoCD: []string{"shop"}}, want: "all=" + other + "," + third},
		{name: "missing", sel: v1alpha1.Applications{ArgoCD: []string{"empty", "gone", "gone-*"}}, want: "empty=" + other, err: fault.ErrNotFound},
		{name: "elsewhere", sel: v1alpha1.Applications{ArgoCD: []string{"far"}}, err: fault.ErrNotFound},
		{name: "no pattern", sel: v1alpha1.Applications{ArgoCD: []string{"["}}, err: fault.ErrInvalid},
		{name: "and namespaces", sel: v1alpha1.Applications{ArgoCD: []string{"*"}, Namespaces: []string{one}}, err: fault.ErrInvalid},
		{name: "flux", sel: v1alpha1.Applications{Flux: []string{one + "/infra"}}, want: "infra=" + one + "," + third},
		{name: "tenant", sel: argo, home: other, want: "empty=" + other + " shop=" + other},
		{name: "tenant by name", sel: v1alpha1.Applications{ArgoCD: []string{one + "/shop"}}, home: other, err: fault.ErrNotFound},
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
				to := slices.Clone(a.Namespaces)
				slices.Sort(to)
				got = append(got, a.Name+"="+strings.Join(to, ","))
				again, err := c.Find(t.Context(), a.Alone(test.sel), home, system)
				if err != nil || len(again) != 1 || again[0].Name != a.Name || !slices.Equal(again[0].Namespaces, a.Namespaces) {
					t.Errorf("alone %+v: %+v, %v", a.Alone(test.sel), again, err)
				}
			}
			want := strings.Fields(test.want)
			for i, w := range want {
				name, namespaces, _ := strings.Cut(w, "=")
				list := strings.Split(namespaces, ",")
				slices.Sort(list)
				want[i] = name + "=" + strings.Join(list, ",")
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	tenant, err := c.Find(t.Context(), argo, other, system)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range tenant {
		for _, o := range a.Deployed[0].Objects {
			if o.Namespace != other {
				t.Errorf("a tenant is given %+v", o)
			}
		}
	}
}

func TestAnApplicationInASharedNamespaceIsItsOwnObjects(t *testing.T) {
	c := connect(t)
	defineKind(t, c, "argoproj.io", "v1alpha1", "applications", "Application")
	ns, argocd := kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config)
	made := create(t, c, ns, strings.ReplaceAll(web, "NAMESPACE", ns)+`
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: neighbour}, spec: {selector: {matchLabels: {app: next}}, template: {metadata: {labels: {app: next}},
 spec: {containers: [{name: main, image: main, envFrom: [{configMapRef: {name: neighbours}}]}], volumes: [{name: d, persistentVolumeClaim: {claimName: neighbours}}]}}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: neighbours}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: neighbours}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: gate, labels: {backstay.io/gate: "true"}}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: g, image: g}]}}}}`)
	uid := made[slices.IndexFunc(made, func(u *unstructured.Unstructured) bool { return u.GetKind() == "Deployment" })].GetUID()
	create(t, c, ns, `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: `+
		string(uid)+`, controller: true}]}, spec: {selector: {matchLabels: {set: web-1}}, template: {metadata: {labels: {set: web-1}}, spec: {containers: [{name: web, image: web}]}}}}`)
	for _, u := range create(t, c, "", `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: deployed-urgent}, value: 7}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: deployed-binding}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`) {
		t.Cleanup(func() { _ = c.Client.Delete(context.Background(), u) })
	}
	create(t, c, argocd, application("shop", ns, "apps/Deployment/"+ns+"/web", "apps/StatefulSet/"+ns+"/db", "batch/Job/"+ns+"/gate",
		"/ConfigMap/"+ns+"/not-there-yet", "scheduling.k8s.io/PriorityClass//deployed-urgent", "rbac.authorization.k8s.io/ClusterRoleBinding//deployed-binding")+
		"\n---\n"+application("unborn", "no-such-namespace")+"\n---\n"+application("empty", ns))
	apps, err := c.Find(t.Context(), v1alpha1.Applications{ArgoCD: []string{"shop", "unborn", "empty"}}, "system", "system")
	if err != nil || len(apps) != 3 {
		t.Fatalf("%+v, %v", apps, err)
	}
	empty, shop, unborn := apps[0], apps[1], apps[2]

	got := capture(t, c, shop, moment(t, c))

	want := []string{
		"configmap/settings", "deployment/web", "namespace/" + ns, "persistentvolumeclaim/data-db-0", "persistentvolumeclaim/uploads",
		"replicaset/web-1", "role/web", "rolebinding/web", "secret/password", "secret/registry", "serviceaccount/web", "statefulset/db",
	}
	if objects := names(got.objects["kubernetes/"+ns]); !slices.Equal(objects, want) {
		t.Errorf("got %q, want %q", objects, want)
	}
	if objects := names(got.objects["kubernetes/_cluster"]); !slices.Equal(objects, []string{"clusterrolebinding/deployed-binding", "priorityclass/deployed-urgent"}) {
		t.Errorf("of the cluster %q", objects)
	}
	if got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
	claims, err := c.Claims(t.Context(), shop)
	if err != nil || len(claims) != 2 || claims[0].Name != "data-db-0" || claims[1].Name != "uploads" {
		t.Errorf("claims %v, %v", claims, err)
	}
	if got := capture(t, c, empty, moment(t, c)); got.state != point.Complete || len(got.objects["kubernetes/"+ns]) != 1 {
		t.Errorf("an application without objects: %s, %q", got.state, names(got.objects["kubernetes/"+ns]))
	}
	if got := capture(t, c, unborn, moment(t, c)); got.state != point.Complete || len(got.parts) != 1 {
		t.Errorf("an application without a namespace: %s, %+v", got.state, got.parts)
	}
}

func TestFluxApplicationsHaveWhatTheirReleasesMake(t *testing.T) {
	c := connect(t)
	defineKind(t, c, "kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization")
	defineKind(t, c, "helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease")
	ns, home := kubetest.Namespace(t, c.Config), kubetest.Namespace(t, c.Config)
	labels := fmt.Sprintf("labels: {helm.toolkit.fluxcd.io/name: cache, helm.toolkit.fluxcd.io/namespace: %s}", home)
	create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: applied}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: others}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: of-the-chart, `+labels+`}}`)
	create(t, c, home, `{apiVersion: helm.toolkit.fluxcd.io/v2, kind: HelmRelease, metadata: {name: cache}, spec: {targetNamespace: `+ns+`}}
---
{apiVersion: v1, kind: Secret, metadata: {name: sh.helm.release.v1.`+ns+`-cache.v1, labels: {owner: helm, name: `+ns+`-cache}}}
---
{apiVersion: v1, kind: Secret, metadata: {name: others, labels: {owner: helm, name: other}}}
---
{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: shop}, status: {inventory: {entries: [
 {id: `+ns+`_applied__ConfigMap, v: v1}, {id: `+home+`_cache_helm.toolkit.fluxcd.io_HelmRelease, v: v2}]}}}`)
	apps, err := c.Find(t.Context(), v1alpha1.Applications{Flux: []string{home + "/*"}}, "system", "system")
	if err != nil || len(apps) != 2 || apps[0].Name != "cache" || apps[1].Name != "shop" {
		t.Fatalf("%+v, %v", apps, err)
	}
	for i, want := range []string{"configmap/of-the-chart namespace/" + ns, "configmap/applied configmap/of-the-chart namespace/" + ns} {
		apps[i].Namespaces = append(slices.DeleteFunc(apps[i].Namespaces, func(n string) bool { return n == home }), home)
		got := capture(t, c, apps[i], moment(t, c))
		if objects := strings.Join(names(got.objects["kubernetes/"+ns]), " "); objects != want {
			t.Errorf("%s: %q, want %q", apps[i].Name, objects, want)
		}
		if objects := names(got.objects["kubernetes/"+home]); !slices.Equal(objects, []string{"helmrelease/cache", "namespace/" + home, "secret/sh.helm.release.v1." + ns + "-cache.v1"}) {
			t.Errorf("%s: %q", apps[i].Name, objects)
		}
	}
}
