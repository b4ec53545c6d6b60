package gitops

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func application(t *testing.T, text string) Application {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return Application{u}
}

func TestOperation(t *testing.T) {
	started := time.Date(2026, 11, 21, 17, 0, 3, 0, time.UTC)
	for _, test := range []struct {
		name, text string
		want       *Operation
		deployed   []string
		hooks      bool
	}{
		{name: "none yet", text: `{status: {sync: {revision: aaa}}}`},
		{
			name: "asked for, not begun", text: `{operation: {sync: {revision: bbb}, initiatedBy: {automated: true}}, status: {history: [{revision: aaa}],
				operationState: {phase: Succeeded, operation: {sync: {revision: aaa}}, startedAt: "2026-11-20T00:00:00Z"}}}`,
			want: &Operation{Revisions: []string{"bbb"}, Automated: true}, deployed: []string{"aaa"}, hooks: true,
		},
		{
			name: "in its first hook", text: `{operation: {sync: {revision: bbb}}, status: {history: [{revision: zzz}, {revision: aaa}], sync: {revision: ccc},
				operationState: {phase: Running, message: waiting, startedAt: "2026-11-21T17:00:03Z", operation: {sync: {revision: bbb}, initiatedBy: {username: ada}}}}}`,
			want: &Operation{Revisions: []string{"bbb"}, Phase: "Running", Message: "waiting", Started: started, User: "ada"}, deployed: []string{"aaa"}, hooks: true,
		},
		{
			name: "a revision that the user did not say", text: `{status: {operationState: {phase: Running, startedAt: "2026-11-21T17:00:03Z",
				syncResult: {revision: bbb}, operation: {sync: {}}}}}`,
			want: &Operation{Revisions: []string{"bbb"}, Phase: "Running", Started: started}, hooks: true,
		},
		{
			name: "several sources", text: `{status: {history: [{revisions: [a, b]}], operationState: {phase: Running, startedAt: "2026-11-21T17:00:03Z",
				operation: {sync: {revisions: [c, d]}}}}}`,
			want: &Operation{Revisions: []string{"c", "d"}, Phase: "Running", Started: started}, deployed: []string{"a", "b"}, hooks: true,
		},
		{
			name: "self-heal", text: `{operation: {sync: {revision: aaa, autoHealAttemptsCount: 1, resources: [{kind: Deployment, name: web}]}, initiatedBy: {automated: true}}}`,
			want: &Operation{Revisions: []string{"aaa"}, Automated: true, Resources: 1},
		},
		{
			name: "Argo CD's own rollback", text: `{operation: {sync: {revision: aaa, syncStrategy: {apply: {}}}}}`,
			want: &Operation{Revisions: []string{"aaa"}, Applies: true},
		},
		{name: "hostile", text: `{operation: {sync: [], initiatedBy: 7}, status: {history: {}, operationState: "x"}}`, want: &Operation{}, hooks: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := application(t, test.text)
			got := a.Operation()
			switch {
			case (got == nil) != (test.want == nil):
				t.Fatalf("operation %+v, want %+v", got, test.want)
			case got == nil:
			case !slices.Equal(got.Revisions, test.want.Revisions) || got.Phase != test.want.Phase || got.Message != test.want.Message ||
				!got.Started.Equal(test.want.Started) || got.Automated != test.want.Automated || got.User != test.want.User ||
				got.Resources != test.want.Resources || got.Applies != test.want.Applies || got.Hooks() != test.hooks:
				t.Errorf("operation %+v, want %+v", got, test.want)
			}
			if d := a.Deployed(); !slices.Equal(d, test.deployed) {
				t.Errorf("deployed %q, want %q", d, test.deployed)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	for _, test := range []struct{ name, text, kind, owner string }{
		{"nobody", `{metadata: {name: shop, namespace: argocd}}`, "", ""},
		{"a set", `{metadata: {name: shop, namespace: argocd, ownerReferences: [{apiVersion: argoproj.io/v1alpha1, kind: ApplicationSet, name: shops}]}}`, "ApplicationSet", "shops"},
		{"a parent", `{metadata: {name: shop, namespace: argocd, annotations: {argocd.argoproj.io/tracking-id: "all:argoproj.io/Application:argocd/shop"}}}`, "Application", "all"},
		{"a parent in another namespace", `{metadata: {name: shop, namespace: argocd, annotations: {argocd.argoproj.io/tracking-id: "teams_all:argoproj.io/Application:argocd/shop"}}}`, "Application", "all"},
		{"a copy", `{metadata: {name: copy, namespace: argocd, annotations: {argocd.argoproj.io/tracking-id: "all:argoproj.io/Application:argocd/shop"}}}`, "", ""},
		{"by label", `{metadata: {name: shop, namespace: argocd, labels: {app.kubernetes.io/instance: all}}}`, "Application", "all"},
		{"itself, by Helm's label", `{metadata: {name: shop, namespace: argocd, labels: {app.kubernetes.io/instance: shop}}}`, "", ""},
	} {
		if kind, owner := application(t, test.text).Owner(); kind != test.kind || owner != test.owner {
			t.Errorf("%s: %s %s, want %s %s", test.name, kind, owner, test.kind, test.owner)
		}
	}
}
