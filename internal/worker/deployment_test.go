package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

// argo makes the kinds of Argo CD known, whose controllers the test plays.
func (l *lab) argo() {
	l.Helper()
	for plural, kind := range map[string]string{"applications": "Application", "appprojects": "AppProject"} {
		crd := l.object(fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %[1]s.argoproj.io}, spec: {group: argoproj.io,
 scope: Namespaced, names: {kind: %[2]s, plural: %[1]s}, versions: [{name: v1alpha1, served: true, storage: true,
 schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`, plural, kind))
		if err := l.cluster.Client.Get(l.Context(), types.NamespacedName{Name: crd.GetName()}, crd.DeepCopy()); err == nil {
			continue
		}
		if err := l.cluster.Client.Create(l.Context(), crd); err != nil {
			l.Fatal(err)
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		l.cluster.Discovery.Invalidate()
		list, err := l.cluster.Discovery.ServerResourcesForGroupVersion("argoproj.io/v1alpha1")
		if err == nil && len(list.APIResources) == 2 {
			return
		}
		if time.Now().After(end) {
			l.Fatalf("served are %v, %v", list, err)
		}
	}
}

func (l *lab) object(text string) *unstructured.Unstructured {
	l.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "\t", " ")), &u.Object); err != nil {
		l.Fatal(err)
	}
	return u
}

// deploys makes an Application that deploys the ConfigMap settings into a namespace, with the fields of its status that are said.
func (l *lab) deploys(name, to, source, status string) {
	l.Helper()
	l.create(l.object(fmt.Sprintf(`{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: %s, namespace: %s}, spec: {project: default,
 source: %s, destination: {namespace: %s, server: "https://kubernetes.default.svc"}},
 status: {resources: [{kind: ConfigMap, namespace: %[4]s, name: settings, version: v1}], %[5]s}}`, name, l.system, source, to, status)))
}

// recorded is the record of the only point of a backup.
func (l *lab) recorded(s v1alpha1.BackupStatus) point.Point {
	l.Helper()
	record, _, err := l.store.Open(l.Context(), s.Point)
	if err != nil {
		l.Fatalf("%v: %s, %q", err, s.Phase, s.Problems)
	}
	return record.Point
}

const (
	oldRevision = "a111111111111111111111111111111111111111"
	newRevision = "b222222222222222222222222222222222222222"
	anyGit      = `{repoURL: "https://u:p@git.example/shop.git", path: deploy, targetRevision: main}`
)

func TestAPointKnowsTheRevisionThatWasLive(t *testing.T) {
	l := newLab(t)
	l.argo()
	begun := metav1.NewTime(time.Now().Add(-time.Minute).Truncate(time.Second))
	operation := func(phase string) string {
		return fmt.Sprintf("history: [{revision: %s}], operationState: {phase: %s, startedAt: %q, operation: {sync: {revision: %s}}}",
			oldRevision, phase, begun.UTC().Format(time.RFC3339), newRevision)
	}
	sync := &v1alpha1.Sync{From: []string{oldRevision}, To: []string{newRevision}, Started: &begun}
	gate := func(phase v1alpha1.GatePhase, backup string) *v1alpha1.GateStatus {
		return &v1alpha1.GateStatus{Phase: phase, Backup: backup, Sync: sync}
	}
	tests := []struct {
		name, status   string
		asked          bool // for the sync
		gate           *v1alpha1.GateStatus
		live, from, to string
		between        bool
	}{
		{name: "settled", status: "history: [{revision: " + newRevision + "}, {revision: " + oldRevision + "}]", live: oldRevision, from: oldRevision},
		{name: "never", status: "sync: {revision: " + newRevision + "}"},
		{name: "asked", status: operation("Running"), asked: true, live: oldRevision, from: oldRevision, to: newRevision},
		{name: "running", status: operation("Running"), from: oldRevision, to: newRevision, between: true},
		{name: "failed", status: operation("Failed"), from: oldRevision, to: newRevision, between: true},
		{name: "waiting", status: operation("Running"), gate: gate(v1alpha1.GateWaiting, ""), live: oldRevision, from: oldRevision, to: newRevision},
		{name: "joined", status: operation("Running"), gate: gate(v1alpha1.GateOpen, "deployed-joined"), live: oldRevision, from: oldRevision, to: newRevision},
		{name: "stopped", status: operation("Failed"), gate: gate(v1alpha1.GateClosed, ""), live: oldRevision, from: oldRevision},
		{name: "opened", status: operation("Running"), gate: gate(v1alpha1.GateOpen, "another"), from: oldRevision, to: newRevision, between: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			app, name := l.application(), "deployed-"+test.name
			l.deploys(name, app, anyGit, test.status)
			deployment := "argocd/" + l.system + "/" + name
			if test.gate != nil {
				g := &v1alpha1.Gate{ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: name}, Spec: v1alpha1.GateSpec{Deployment: deployment}}
				l.create(g)
				g.Status = *test.gate.DeepCopy()
				g.Status.Sync.Deployment = deployment
				if err := l.cluster.Client.Status().Update(t.Context(), g); err != nil {
					t.Fatal(err)
				}
			}
			s := l.backedUp(name, "", func(b *v1alpha1.Backup) {
				b.Spec.Application = v1alpha1.Applications{ArgoCD: []string{l.system + "/" + name}}
				if test.asked {
					b.Spec.Sync = sync.DeepCopy()
					b.Spec.Sync.Deployment = deployment
				}
			})
			p := l.recorded(s)
			if s.Phase != v1alpha1.PhaseComplete || p.Deployment == nil || p.Subject.Name != clusterName+"/"+name {
				t.Fatalf("%s, %q: %+v", s.Phase, s.Problems, p)
			}
			if got := p.Deployment.Sources; len(got) != 1 || got[0] != (point.DeployedSource{URL: "https://git.example/shop.git", Path: "deploy", From: test.from, To: test.to}) {
				t.Errorf("sources %+v", got)
			}
			if p.Revisions[deployment] != test.live || s.Deployed[0].Between != test.between || len(p.Deployment.Manifests) != 64 {
				t.Errorf("revisions %v, %+v, status %+v", p.Revisions, p.Deployment, s.Deployed)
			}
			o := l.restorePoints()[s.Point]
			if o.Spec.Deployment != deployment || strings.Join(o.Spec.Revisions, ",") != test.live || strings.Join(o.Spec.NextRevisions, ",") != test.to {
				t.Errorf("object %+v", o.Spec)
			}
			for _, secret := range []string{"u:p", ":p@"} {
				if strings.Contains(fmt.Sprintf("%+v %+v %+v", p, s, o), secret) {
					t.Errorf("%s shows", secret)
				}
			}
		})
	}
}

func TestANamespaceKnowsWhatDeploysIntoIt(t *testing.T) {
	l := newLab(t)
	l.argo()
	app := l.application()
	var settings corev1.ConfigMap
	if err := l.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: app, Name: "settings"}, &settings); err != nil {
		t.Fatal(err)
	}
	l.deploys("into", app, anyGit, "history: [{revision: "+oldRevision+"}]")
	if s := l.backedUp("untracked", app); s.Deployed != nil {
		t.Errorf("what Argo CD did not mark is said to be its own: %+v", s.Deployed)
	}
	settings.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "into:/ConfigMap:" + app + "/settings"}
	if err := l.cluster.Client.Update(t.Context(), &settings); err != nil {
		t.Fatal(err)
	}
	s := l.backedUp("tracked", app)
	p := l.recorded(s)
	deployment := "argocd/" + l.system + "/into"
	if s.Phase != v1alpha1.PhaseComplete || p.Deployment == nil || p.Deployment.Name != deployment || p.Revisions[deployment] != oldRevision {
		t.Fatalf("%s, %q: %+v", s.Phase, s.Problems, p)
	}
	l.deploys("beside", app, anyGit, "history: [{revision: "+newRevision+"}]")
	p = l.recorded(l.backedUp("both", app))
	if name, _ := p.DeployedBy(); p.Deployment != nil || name != "" || p.Revisions["argocd/"+l.system+"/beside"] != newRevision || p.Revisions[deployment] != oldRevision {
		t.Errorf("of two deployments: %+v", p)
	}
}

func TestLatestPointOfARevision(t *testing.T) {
	l := newLab(t)
	l.argo()
	app := l.application()
	of := func(b *v1alpha1.Backup) { b.Spec.Application = v1alpha1.Applications{ArgoCD: []string{"keyed"}} }
	l.deploys("keyed", app, anyGit, "history: [{revision: "+oldRevision+"}]")
	want := l.backedUp("first", "", of).Point
	u := l.object("{apiVersion: argoproj.io/v1alpha1, kind: Application}")
	l.get("keyed", u)
	if err := unstructured.SetNestedSlice(u.Object, []any{map[string]any{"revision": newRevision}}, "status", "history"); err != nil {
		t.Fatal(err)
	}
	if err := l.cluster.Client.Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // objects have times of whole seconds
	l.backedUp("second", "", of)
	for revision, found := range map[string]bool{oldRevision: true, oldRevision[:7]: true, oldRevision[:6]: false, "3333333": false, "": true} {
		r := &restoration{Worker: l.worker(), object: &v1alpha1.Restore{
			ObjectMeta: l.named("r"), Spec: v1alpha1.RestoreSpec{Latest: &v1alpha1.LatestPoint{Location: "main", Application: "keyed", Revision: revision}},
		}}
		p, err := r.pointObject(t.Context())
		if (err == nil) != found || found && revision != "" && p.Spec.Point != want || found && revision == "" && p.Spec.Point == want {
			t.Errorf("revision %q: %+v, %v", revision, p, err)
		}
	}
}

func TestSight(t *testing.T) {
	l := &lab{T: t}
	tracked := "annotations: {argocd.argoproj.io/tracking-id: 'x:/ConfigMap:shop/a'"
	d := kube.Deployed{Name: "argocd/argocd/shop", Objects: []kube.ObjectKey{{Kind: "ConfigMap", Namespace: "shop", Name: "a"}, {Kind: "Secret", Namespace: "shop", Name: "s"}}}
	look := func(objects ...string) *sight {
		s := newSight(false)
		for _, text := range objects {
			u := l.object(text)
			s.see(kube.ObjectKey{Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()}, u)
		}
		return s
	}
	plain := "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: shop, name: a, resourceVersion: '%s', " + tracked + "}}, data: {colour: %s}}"
	secret := "{apiVersion: v1, kind: Secret, metadata: {namespace: shop, name: s, " + tracked + "}}, data: {%s: %s}}"
	applied := "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: shop, name: a, " + tracked + ", " + annotationApplied + ": '{\"data\":{\"colour\":\"%s\"}}'}}, data: {colour: %s}}"
	other := "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: shop, name: b, " + tracked + "}}, data: {colour: %s}}"
	same := func(a, b *sight) bool { return a.manifests(d) == b.manifests(d) && a.manifests(d) != "" }
	for name, equal := range map[string]bool{
		"listed again":            same(look(fmt.Sprintf(plain, "1", "red"), fmt.Sprintf(secret, "k", "c2g=")), look(fmt.Sprintf(secret, "k", "c2g="), fmt.Sprintf(plain, "2", "red"))),
		"a secret of other bytes": same(look(fmt.Sprintf(secret, "k", "c2g=")), look(fmt.Sprintf(secret, "k", "c2hz"))),
		"live beside applied":     same(look(fmt.Sprintf(applied, "red", "red")), look(fmt.Sprintf(applied, "red", "green"))),
		"another's object":        same(look(fmt.Sprintf(plain, "1", "red")), look(fmt.Sprintf(plain, "1", "red"), fmt.Sprintf(other, "red"))),
	} {
		if !equal {
			t.Errorf("%s: the manifests differ", name)
		}
	}
	for name, equal := range map[string]bool{
		"another value":         same(look(fmt.Sprintf(plain, "1", "red")), look(fmt.Sprintf(plain, "1", "green"))),
		"another key":           same(look(fmt.Sprintf(secret, "k", "c2g=")), look(fmt.Sprintf(secret, "l", "c2g="))),
		"another applied value": same(look(fmt.Sprintf(applied, "red", "red")), look(fmt.Sprintf(applied, "green", "red"))),
	} {
		if equal {
			t.Errorf("%s: the manifests are the same", name)
		}
	}
	pod := `{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: p}, status: {initContainerStatuses: [{imageID: "docker-pullable://r.example/i@sha256:22"}],
 containerStatuses: [{imageID: r.example/web@sha256:11}, {imageID: ""}, 7]}}`
	images := look(pod, strings.ReplaceAll(pod, "name: p", "name: q")).images
	if len(images) != 2 || !images["r.example/i@sha256:22"] || !images["r.example/web@sha256:11"] {
		t.Errorf("images %v", images)
	}
	look(`{kind: Pod, metadata: {name: hostile}, status: {containerStatuses: {a: 1}}}`, `{kind: Secret, metadata: {name: hostile, `+tracked+`}}, data: [1]}`)
}

func TestAddressesWithoutCredentials(t *testing.T) {
	for address, want := range map[string]string{
		"https://u:p@git.example/a.git": "https://git.example/a.git",
		"https://token@git.example/a":   "https://git.example/a",
		"ssh://git:p@git.example/a.git": "ssh://git@git.example/a.git",
		"git@git.example:acme/a.git":    "git@git.example:acme/a.git",
		"https://git.example/%zz:p@":    "",
		"oci://registry.example/charts": "oci://registry.example/charts",
		"registry.example/charts/shop":  "registry.example/charts/shop",
	} {
		if got := withoutCredentials(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestTenantsAreToldOfTheirOwnDeploymentsOnly(t *testing.T) {
	l := newLab(t)
	l.argo()
	app, elsewhere := l.application(), kubetest.Namespace(t, l.config)
	l.deploys("own", app, anyGit, "")
	l.deploys("foreign", elsewhere, anyGit, "")
	a := kube.Application{Name: app, Namespaces: []string{app, elsewhere}}
	all, err := l.cluster.DeployedTo(t.Context(), a, l.system, l.system)
	own, err2 := l.cluster.DeployedTo(t.Context(), a, app, l.system)
	has := func(list []kube.Deployed, name string) bool {
		return slices.ContainsFunc(list, func(d kube.Deployed) bool { return d.Name == "argocd/"+l.system+"/"+name })
	}
	if err != nil || err2 != nil || !has(all, "own") || !has(all, "foreign") || !has(own, "own") || has(own, "foreign") {
		t.Errorf("all %+v, own %+v, %v, %v", all, own, err, err2)
	}
}
