package config_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// object is a document with the given lines in its spec.
func object(kind, spec string) string {
	return "apiVersion: backstay.io/v1alpha1\nkind: " + kind + "\nmetadata: {name: one}\nspec:\n" + spec
}

func locationOf(url string) string {
	return object("Location", "  url: "+url+"\n  password: {secretKeyRef: {name: vault, key: password}}\n")
}

func policyOf(applications string) string {
	return object("Policy", "  location: vault\n  sources: [{applications: {"+applications+"}}]\n")
}

func backupOf(application string) string {
	return object("Backup", "  location: vault\n  application: {"+application+"}\n")
}

func restoreOf(more string) string { return object("Restore", "  restorePoint: shop-1\n"+more) }

// judged is a document, and what the reader of files and the API server say to it: part of the message, or nothing where they take it.
// Where only one of them does, because has the reason.
type judged struct{ name, text, reader, server, because string }

const (
	filesOnly = "sources, places and secrets of one machine are backstay run's"
	longer    = "the API server limits what an object holds; a file is limited as a whole"
)

func judgedByBoth() []judged {
	long := strings.Repeat("x", 1500)
	return []judged{
		{name: "location", text: locationOf("s3://bucket/prefix?endpoint=s3.example.com")},
		{name: "policy", text: object("Policy", `  schedule: {cron: "30 2 * * *", timeZone: Europe/Berlin, jitter: 10m}
  location: vault
  retention: {daily: 14, within: 30d}
  deadline: 2h
  sources:
    - applications:
        namespaces: [shop, team-*]
        excludeNamespaces: [team-x]
        namespaceSelector: {matchLabels: {backup: "yes"}}
        excludeKinds: [events.events.k8s.io, "*.metrics.k8s.io", endpoints]
        hooks:
          - selector: {matchExpressions: [{key: app, operator: In, values: [db]}]}
            before: [sync]
            after: ["true"]
            timeout: 90s
        volumes: {exclude: [cache-*], withoutSnapshot: live, keepSnapshots: 2}
        maxSkew: 2s
    - applications: {name: pay, namespaces: [pay-db, pay-web], objects: [deployment.apps/web, configmap/web]}
`)},
		{name: "backup", text: backupOf("namespaces: [shop]")},
		{name: "backup of a policy", text: object("Backup", "  policy: nightly\n  application: {name: pay}\n")},
		{name: "backup of the own namespace", text: backupOf("")},
		{name: "restore", text: restoreOf(`  namespaces: {shop: shop-copy}
  existing: replace
  objects: [configmap/web, deployment.apps]
  storageClasses: {fast: standard}
  transforms:
    - objects: ingress.networking.k8s.io
      patch: [{op: replace, path: /spec/rules/0/host, value: '"copy.example.com"'}, {op: move, from: /metadata/labels/a~1b, path: /metadata/labels/c}]
  planOnly: true
  keepOld: 0s
`)},
		{name: "restore of the latest", text: object("Restore", "  latest: {location: vault, application: shop, asOf: 2026-03-01T02:30:00Z}\n")},
		{name: "undo", text: object("Restore", "  undo: shop-abc\n")},
		{name: "point", text: object("RestorePoint", "  location: vault\n  point: k1\n  cluster: cluster-1\n  application: shop\n  time: 2026-03-01T02:30:00Z\n  state: complete\n  bytes: 1\n")},

		// Shapes.
		{"unknown field", policyOf("namespace: [shop]"), "no such field", `unknown field "spec.sources[0].applications.namespace"`, ""},
		{"wrong type", policyOf("namespaces: shop"), "a list is expected", "must be of type array", ""},
		{"a number as text", policyOf("namespaces: [0123]"), "read as a number", "must be of type string", ""},
		{"missing", object("Location", "  password: {secretKeyRef: {name: a, key: b}}\n"), "url is missing", "spec.url: Required value", ""},
		{"no sources", object("Policy", "  location: vault\n  sources: []\n"), "spec.sources: empty", "spec.sources: Invalid value", ""},
		{"a name of Location", strings.Replace(locationOf("s3://b"), "one", "vault.one", 1), "a name has lowercase letters", "a name has lowercase letters", ""},
		{"a name of another", backupOf("name: A"), "a name has lowercase letters", "spec.application.name", ""},
		{"negative", policyOf("volumes: {keepSnapshots: -1}"), "less than 0", "should be greater than or equal to 0", ""},
		{"enum", restoreOf("  existing: overwrite\n"), "keep, replace or fail is expected", `supported values: "keep", "replace", "fail"`, ""},
		{"span", restoreOf("  keepOld: 1d\n"), "a span of the clock is expected", "spec.keepOld", ""},
		{"duration", object("Policy", "  location: v\n  retention: {within: 5 days}\n  sources: [{applications: {}}]\n"), "spec.retention.within", "spec.retention.within", ""},
		{"cron", object("Policy", "  location: v\n  schedule: {cron: '* * * *'}\n  sources: [{applications: {}}]\n"), "expected exactly 5 fields", "five fields are expected", ""},
		{"time", object("Restore", "  latest: {location: v, application: shop, asOf: yesterday}\n"), "a time is expected", "must be of type date-time", ""},
		{"pointer", restoreOf("  transforms: [{objects: '*', patch: [{op: remove, path: spec.replicas}]}]\n"), "a JSON Pointer is expected", "patch[0].path", ""},
		{"object", policyOf("objects: [web]"), "KIND.GROUP/NAME is expected", "objects[0]", ""},
		{"every object of a restore", restoreOf("  objects: ['*']\n"), "KIND.GROUP/NAME is expected", "spec.objects[0]", ""},
		{"kinds", policyOf("excludeKinds: ['*']"), "PLURAL.GROUP is expected", "excludeKinds[0]", ""},
		{"hook without a command", policyOf("hooks: [{selector: {}, before: []}]"), "before: empty", "before", ""},
		{"operator", policyOf("selector: {matchExpressions: [{key: a, operator: Is}]}"), "is not a valid label selector operator", "supported values", ""},
		{"operator without values", policyOf("selector: {matchExpressions: [{key: a, operator: In}]}"), "selector", "In and NotIn have values", ""},

		// What fields cannot say alone.
		{"policy without a location", object("Policy", "  sources: [{applications: {namespaces: [shop]}}]\n"), "nowhere to keep anything", "location is missing", ""},
		{"retention of nothing", object("Policy", "  location: v\n  retention: {}\n  sources: [{applications: {}}]\n"), "keeps everything", "keeps everything", ""},
		{"a source's name", object("Policy", "  location: v\n  sources: [{name: a, applications: {}}]\n"), "applications are named by", "applications are named by", ""},
		{"no source", object("Policy", "  location: v\n  sources: [{}]\n"), "one of these is missing", "exactly one of these is given", ""},
		{"no secret", object("Location", "  url: s3://b\n  password: {}\n"), "one of these is missing", "secretKeyRef is missing", ""},
		{"a secret in clear", object("Location", "  url: s3://b\n  password: hunter22\n"), "a secret in clear", "must be of type object", ""},
		{"a secret in a URL", locationOf("https://me:hunter22@example.com"), "a password in a URL", "a password in a URL", ""},
		{"backup to nowhere", object("Backup", "  application: {namespaces: [shop]}\n"), "policy or location is missing", "policy or location is missing", ""},
		{"restore of nothing", object("Restore", "  planOnly: true\n"), "one of these is missing: restorePoint, latest, undo", "exactly one of these is given: restorePoint, latest, undo", ""},
		{"restore of two", restoreOf("  undo: a\n"), "only one of restorePoint and undo", "exactly one of these is given", ""},
		{"undo of a part", object("Restore", "  undo: a\n  claims: [data]\n"), "undo puts back", "undo puts back", ""},
		{"objects of data", restoreOf("  only: data\n  objects: [configmap]\n"), "only data is asked for", "only data is asked for", ""},
		{"claims of configuration", restoreOf("  only: config\n  claims: [data]\n"), "only configuration is asked for", "only configuration is asked for", ""},
		{"namespaces", restoreOf("  namespaces: {shop: Shop}\n"), "names of namespaces are expected", "names of namespaces are expected", ""},
		{"patch without a value", restoreOf("  transforms: [{objects: '*', patch: [{op: add, path: /a}]}]\n"), "need a value", "need a value", ""},
		{"patch without from", restoreOf("  transforms: [{objects: '*', patch: [{op: copy, path: /a}]}]\n"), "need from", "need from", ""},

		// What one of them takes.
		{name: "a directory", text: locationOf("/srv/vault"), server: "a directory is of one machine", because: filesOnly},
		{name: "a variable", text: object("Location", "  url: s3://b\n  password: {env: A}\n"), server: "on a cluster a secret is a key of a Secret", because: filesOnly},
		{name: "a command", text: object("Location", "  url: s3://b\n  password: {command: id}\n"), server: "on a cluster a secret is a key of a Secret", because: filesOnly},
		{
			name: "a credential's file", server: "on a cluster a secret is a key of a Secret", because: filesOnly,
			text: object("Location", "  url: s3://b\n  password: {secretKeyRef: {name: a, key: b}}\n  credentials: {A: {file: b}}\n"),
		},
		{name: "a forge", text: object("Policy", "  location: vault\n  sources: [{github: {user: acme, token: {secretKeyRef: {name: a, key: b}}}}]\n")},
		{name: "a source of one machine", text: object("Policy", "  location: vault\n  sources: [{directory: /srv}]\n"), server: "a directory is of one machine", because: filesOnly},
		{name: "ssh", text: object("Policy", "  location: vault\n  sources: [{github: {user: acme, ssh: {}}}]\n"), server: "on a cluster git goes over https", because: filesOnly},
		{name: "a path for a URL", text: object("Policy", "  location: vault\n  sources: [{git: {url: /srv/a.git}}]\n"), server: "on a cluster https://HOST", because: filesOnly},
		{name: "an export", text: object("Policy", "  location: vault\n  sources: [{applications: {}}]\n  exports: [{local: {path: /b}}]\n"), server: "exports, mirrors and notify are for files", because: filesOnly},
		{
			name: "jitter as long as the time between runs", reader: "as long as the time between two runs", because: "CEL knows no calendar; the controller bounds it",
			text: object("Policy", "  location: vault\n  schedule: {cron: '@hourly', jitter: 2h}\n  sources: [{applications: {}}]\n"),
		},
		{
			name: "zone", reader: "Atlantis", because: "zones are data; the controller says so in the policy's conditions",
			text: object("Policy", "  location: vault\n  schedule: {cron: '@daily', timeZone: Europe/Atlantis}\n  sources: [{applications: {}}]\n"),
		},
		{
			name: "cron out of range", reader: "99", because: "the controller says so in the policy's conditions",
			text: object("Policy", "  location: vault\n  schedule: {cron: '99 * * * *'}\n  sources: [{applications: {}}]\n"),
		},
		{name: "glob", text: policyOf("namespaces: ['[']"), reader: "not a glob", because: "the controller says so in the policy's conditions"},
		{
			name: "the same applications twice", reader: "the same account as", because: "rules cannot compare each source with each other within their cost",
			text: object("Policy", "  location: vault\n  sources: [{applications: {namespaces: [a]}}, {applications: {namespaces: [a]}}]\n"),
		},
		{name: "long text", text: policyOf("namespaces: [" + long + "]"), server: "Too long", because: longer},
		{
			name: "a name that is made", reader: `no such field: "generateName"`, because: "a name that the API server makes is for kubectl create, not for what is kept in files",
			text: strings.Replace(backupOf("namespaces: [shop]"), "name: one", "generateName: shop-", 1),
		},
	}
}

// TestReaderAgreesWithCluster has documents that `backstay config check` and the API server judge alike, and those few that they do not.
func TestReaderAgreesWithCluster(t *testing.T) {
	config := kubetest.Start(t)
	server, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, config)
	for _, test := range judgedByBoth() {
		t.Run(test.name, func(t *testing.T) {
			if (test.reader == "") != (test.server == "") && test.because == "" {
				t.Error("no reason is given why only one takes it")
			}
			agrees(t, "the reader", test.reader, read(t, test.text))
			agrees(t, "the API server", test.server, created(t, server, namespace, test.text))
		})
	}
}

func agrees(t *testing.T, who, want string, err error) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s refuses: %v", who, err)
	case want != "" && err == nil:
		t.Errorf("%s takes it; want %q", who, want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s says: %v; want %q", who, err, want)
	}
}

func read(t *testing.T, text string) error {
	t.Helper()
	files := map[string]string{"x.yaml": text}
	if !strings.Contains(text, "kind: Location") {
		files["vault.yaml"] = vaultFile
	}
	_, err := config.Load(write(t, files))
	return err
}

// created asks the API server to take an object, and to forget it again. Fields that it does not know are errors, as kubectl has it.
func created(t *testing.T, server client.Client, namespace, text string) error {
	t.Helper()
	return server.Create(t.Context(), parsed(t, namespace, text), client.DryRunAll, client.FieldValidation("Strict"))
}

func parsed(t *testing.T, namespace, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	o.SetNamespace(namespace)
	return o
}

// TestExamplesOfKubernetes: what the page shows is taken by the API server, by the reader of files, and by editors that know the schema.
func TestExamplesOfKubernetes(t *testing.T) {
	config := kubetest.Start(t)
	server, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const page = "kubernetes.md"
	documents := blocks(t, page, "yaml")
	for _, part := range strings.Split(blocks(t, page, "sh")[0], "<<EOF\n")[1:] {
		document, _, _ := strings.Cut(part, "\nEOF\n")
		documents = append(documents, strings.ReplaceAll(document, "$VAULT_URL", "s3://bucket")+"\n")
	}
	if len(documents) < 4 {
		t.Fatalf("%d examples", len(documents))
	}
	namespace := kubetest.Namespace(t, config)
	for _, text := range documents {
		agrees(t, "the reader", "", read(t, text))
		agrees(t, "the API server", "", created(t, server, namespace, text))
		for _, problem := range schemaProblems(t, text) {
			t.Errorf("the schema: %s", problem)
		}
	}
}

// TestStatusesAreKept: what the controller and workers write, as far as it is known, comes back whole. A definition drops in silence
// what it does not know, and refuses null where it is not told of it.
func TestStatusesAreKept(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	config := kubetest.Start(t)
	server, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Name: "one", Namespace: kubetest.Namespace(t, config)}
	moment := metav1.NewMicroTime(time.Date(2026, 3, 1, 2, 30, 0, 5000, time.Local))
	volume := v1alpha1.VolumeStatus{Namespace: "shop", Claim: "data", Part: "volumes/shop/data", Method: v1alpha1.MethodGroup, Taken: &moment}
	for _, o := range []client.Object{
		&v1alpha1.Backup{
			ObjectMeta: meta, Spec: v1alpha1.BackupSpec{Location: "vault"},
			Status: v1alpha1.BackupStatus{
				Phase: v1alpha1.PhaseQuiescing, Instant: &v1alpha1.Instant{Begun: moment}, // and nothing else of it yet
				Resting: []v1alpha1.RestingPod{{Namespace: "shop", Pod: "db-0"}}, Volumes: []v1alpha1.VolumeStatus{volume},
				Parts: &v1alpha1.PartsStatus{Expected: 1}, Problems: []string{strings.Repeat("long ", 10_000)},
			},
		},
		&v1alpha1.Restore{
			ObjectMeta: meta, Spec: v1alpha1.RestoreSpec{RestorePoint: "shop-1"},
			Status: v1alpha1.RestoreStatus{
				Phase: v1alpha1.PhaseSwapping, Plan: &v1alpha1.PlanStatus{Volumes: 1}, PlanName: "one-plan", Volumes: []v1alpha1.VolumeStatus{volume},
				Conditions: []metav1.Condition{{
					Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: "Swapping", LastTransitionTime: metav1.NewTime(moment.Truncate(time.Second)),
				}},
			},
		},
	} {
		written, _ := o.DeepCopyObject().(client.Object)
		if err := server.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		written.SetResourceVersion(o.GetResourceVersion())
		if err := server.Status().Update(t.Context(), written.DeepCopyObject().(client.Object), client.FieldValidation("Strict")); err != nil {
			t.Errorf("%T: %v", o, err)
		}
		if err := server.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			t.Fatal(err)
		}
		if got, want := statusOf(o), statusOf(written); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%T: %+v, want %+v", o, got, want)
		}
	}
}

func statusOf(o client.Object) any {
	switch o := o.(type) {
	case *v1alpha1.Backup:
		return o.Status
	case *v1alpha1.Restore:
		return o.Status
	}
	return nil
}

// TestSpecsThatDoNotChange: what was asked for is what a status tells of.
func TestSpecsThatDoNotChange(t *testing.T) {
	config := kubetest.Start(t)
	server, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, config)
	point := object("RestorePoint", "  location: vault\n  point: k1\n  cluster: c\n  application: shop\n  time: 2026-03-01T02:30:00Z\n  state: complete\n  bytes: 1\n")
	for _, test := range []struct {
		name, text, refused string
		path                []string
		value               any
	}{
		{"backup", backupOf("namespaces: [shop]"), "make a new Backup", []string{"spec", "location"}, "other"},
		{"backup, a field more", backupOf("namespaces: [shop]"), "make a new Backup", []string{"spec", "deadline"}, "1h"},
		{"restore", restoreOf(""), "make a new Restore", []string{"spec", "existing"}, "replace"},
		{"point", point, "a RestorePoint stands for one point", []string{"spec", "point"}, "k2"},
		{"point, its holds", point, "", []string{"spec", "holds"}, []any{"audit"}},
		{"policy", policyOf("namespaces: [shop]"), "", []string{"spec", "location"}, "other"},
		{"labels of a backup", backupOf(""), "", []string{"metadata", "labels"}, map[string]any{"a": "b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := parsed(t, namespace, test.text)
			if err := server.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if err := unstructured.SetNestedField(o.Object, test.value, test.path...); err != nil {
				t.Fatal(err)
			}
			agrees(t, "the API server", test.refused, server.Update(t.Context(), o))
			if err := server.Delete(t.Context(), o); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
}
