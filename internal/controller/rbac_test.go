package controller_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/controller"
)

// documents reads a manifest of deploy/rbac for a namespace.
func documents(t *testing.T, name, system string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "rbac", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.ReplaceAll(string(text), "backstay-system", system), "\n---\n")
}

// rules are those of the roles in a manifest: of the cluster, and of Backstay's own namespace.
func rules(t *testing.T, name string) (cluster, own []rbacv1.PolicyRule) {
	t.Helper()
	for _, d := range documents(t, name, "backstay-system") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(d), &role); err != nil {
			t.Fatal(err)
		}
		switch role.Kind {
		case "ClusterRole":
			cluster = append(cluster, role.Rules...)
		case "Role":
			own = append(own, role.Rules...)
		}
	}
	return cluster, own
}

func TestTheControllerReadsNoSecretsAndMovesNothing(t *testing.T) {
	cluster, own := rules(t, "controller.yaml")
	if len(cluster) == 0 || len(own) == 0 {
		t.Fatal("no rules")
	}
	for _, r := range slices.Concat(cluster, own) {
		for _, forbidden := range []string{"*", "secrets", "pods/exec", "configmaps", "serviceaccounts"} {
			if slices.Contains(r.Resources, forbidden) {
				t.Errorf("%s of %s", r.Verbs, forbidden)
			}
		}
		if slices.Contains(r.Resources, "persistentvolumeclaims") && !slices.Equal(r.Verbs, []string{"list"}) {
			t.Errorf("%s of claims", r.Verbs)
		}
		for _, forbidden := range []string{"*", "impersonate", "escalate", "bind"} {
			if slices.Contains(r.Verbs, forbidden) {
				t.Errorf("%s of %s", forbidden, r.Resources)
			}
		}
	}
	for _, r := range cluster { // Jobs are pods, and pods are Secrets: it makes them in its own namespace only
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			for _, kind := range []string{"jobs", "pods", "persistentvolumeclaims"} {
				if slices.Contains(r.Resources, kind) && slices.Contains(r.Verbs, verb) {
					t.Errorf("%s of %s everywhere", verb, kind)
				}
			}
		}
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	w.apply("worker.yaml")
	w.apply("user.yaml")
	app := w.namespace()
	const controllers, workers, actions, movers = "backstay-controller", "backstay-worker", "backstay-actions", "default"
	all := []struct {
		account, verb, resource, namespace string
		want                               bool
	}{
		{controllers, "get", "/secrets", w.system, false},
		{controllers, "create", "batch/jobs", w.system, true},
		{controllers, "create", "batch/jobs", app, false},
		{controllers, "delete", "backstay.io/backups", app, true},
		{controllers, "delete", "backstay.io/restorepoints", app, false},
		{controllers, "update", "backstay.io/locations", app, false},
		{controllers, "patch", "cr.kanister.io/actionsets", app, true},
		{controllers, "get", "cr.kanister.io/profiles", app, false},
		{controllers, "create", "rbac.authorization.k8s.io/rolebindings", app, true},
		{controllers, "bind", "rbac.authorization.k8s.io/clusterroles", "", false},
		{controllers, "get", "argoproj.io/applications", app, true},
		{controllers, "patch", "argoproj.io/applications", app, true}, // of which a policy leaves little
		{controllers, "update", "argoproj.io/applications", app, false},
		{controllers, "create", "/pods", app, false},
		{workers, "get", "/secrets", app, true}, // captured with the application
		{workers, "impersonate", "/serviceaccounts", app, true},
		{workers, "impersonate", "/users", "", false},
		{workers, "impersonate", "/groups", "", false},
		{workers, "create", "snapshot.storage.k8s.io/volumesnapshots", app, true},
		{workers, "create", "batch/jobs", w.system, true},
		{workers, "patch", "cr.kanister.io/actionsets", app, true},
		{actions, "get", "/pods", app, false},
		{actions, "get", "/secrets", w.system, false},
		{movers, "get", "/secrets", w.system, false},
		{movers, "list", "/pods", w.system, false},
		{movers, "get", "backstay.io/locations", app, false},
	}
	allowed := func(i int) bool {
		test := all[i]
		group, resource, _ := strings.Cut(test.resource, "/")
		review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + w.system + ":" + test.account,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: test.namespace, Verb: test.verb, Group: group, Resource: resource,
			},
		}}
		w.create(&review)
		return review.Status.Allowed
	}
	for i, test := range all { // first, as the API server takes a moment to know of roles
		if test.want {
			w.eventually(fmt.Sprintf("%s may %s %s in %q", test.account, test.verb, test.resource, test.namespace), func() string {
				return map[bool]string{false: "no"}[allowed(i)]
			})
		}
	}
	for i, test := range all {
		if got := allowed(i); got != test.want {
			t.Errorf("%s may %s %s in %q: %v, want %v", test.account, test.verb, test.resource, test.namespace, got, test.want)
		}
	}
}

// TestWhatTheControllerMayChangeOfApplications: two fields, whatever a role allows.
func TestWhatTheControllerMayChangeOfApplications(t *testing.T) {
	w := newWorld(t)
	w.argo()
	a := w.application(w.system, "shop", w.namespace())
	w.annotate(a, "who", "ada")
	w.syncs(a, "Failed", full, `, message: one or more synchronization tasks completed unsuccessfully`)
	as := func(patch string) error {
		u := a.DeepCopy()
		return w.own.Client.Patch(t.Context(), u, client.RawPatch(types.MergePatchType, []byte(patch)), client.DryRunAll)
	}
	const words = "Backstay's controller"
	w.eventually("the policy", func() string { // the API server takes a moment to know of one
		if err := as(`{"spec": {"project": "other"}}`); err == nil || !strings.Contains(err.Error(), words) {
			return said(err)
		}
		return ""
	})
	for _, patch := range []string{
		`{"status": {"operationState": {"message": "why"}}}`,
		`{"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}`,
	} {
		if err := as(patch); err != nil {
			t.Errorf("%s: %v", patch, err)
		}
	}
	for _, patch := range []string{
		`{"spec": {"source": {"repoURL": "http://git/mine.git"}}}`,
		`{"spec": null}`,
		`{"operation": {"sync": {"revision": "bbb"}}}`,
		`{"metadata": {"annotations": {"backstay.io/break-glass": "now"}}}`,
		`{"metadata": {"annotations": {"who": null}}}`,
		`{"metadata": {"labels": {"a": "b"}}}`,
		`{"metadata": {"finalizers": ["backstay.io/x"]}}`,
		`{"status": {"history": null}}`,
		`{"status": {"sync": {"status": "Synced"}}}`,
		`{"status": {"operationState": null}}`,
		`{"status": {"operationState": {"phase": "Succeeded"}}}`,
		`{"status": {"operationState": {"retryCount": 1}}}`,
		`{"status": {"operationState": {"startedAt": null}}}`,
	} {
		if err := as(patch); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s is answered %s", patch, said(err))
		}
	}
}

func TestLeaderElectionAndMetrics(t *testing.T) {
	address := "127.0.0.1:" + freePort(t)
	w := newWorld(t, func(o *controller.Options) { o.LeaderElect, o.Metrics = true, address })
	stop := w.start()
	w.location(w.system)
	w.point(w.system)
	p := w.policy(w.system, nil, w.namespace())
	run := w.runs(p, 1)
	w.finish(p, run, "Complete")
	w.stands(p, &p.Status.Conditions, "Ready", "True/Complete")
	var lease coordinationv1.Lease
	if err := w.admin.Get(t.Context(), types.NamespacedName{Namespace: w.system, Name: "backstay-controller"}, &lease); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`backstay_policy_runs_total{namespace="` + w.system + `",policy="nightly",result="Complete"} 1`,
		`backstay_policy_applications{namespace="` + w.system + `",policy="nightly"} 1`,
		`backstay_restore_points{location="vault",namespace="` + w.system + `",state="complete"} 1`,
		`backstay_backups{phase="Complete"} 1`,
		`backstay_jobs{state="succeeded",work="backup"} 1`,
	} {
		w.eventually(want, func() string {
			if text := w.fetch("http://" + address + "/metrics"); !strings.Contains(text, "\n"+want+"\n") {
				return "there is no such line"
			}
			return ""
		})
	}
	stop()
}

// fetch is the body of an answer that is good.
func (w *world) fetch(url string) string {
	w.Helper()
	request, err := http.NewRequestWithContext(w.Context(), http.MethodGet, url, nil)
	if err != nil {
		w.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s", answer.Status, text)
	}
	return string(text)
}
