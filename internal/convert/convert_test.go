package convert_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/convert"
)

var update = flag.Bool("update", false, "write the golden files anew")

// converted reads documents and converts them.
func converted(t *testing.T, tool, text string) *convert.Result {
	t.Helper()
	objects, err := convert.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return convert.Convert(tool, objects, convert.Options{})
}

// load has the reader of our files take what was written.
func load(t *testing.T, r *convert.Result) *config.Set {
	t.Helper()
	file := filepath.Join(t.TempDir(), "all.yaml")
	var ours []string // gates are Jobs, which files of Backstay do not hold
	for _, d := range r.Documents {
		if d.Kind != "Job" {
			ours = append(ours, d.Text)
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(ours, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := config.Load(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.YAML())
	}
	return set
}

// TestGolden: whole sets of documents, and every line of the report.
func TestGolden(t *testing.T) {
	for _, tool := range []string{convert.K10, convert.Velero} {
		t.Run(tool, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", tool+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			r := converted(t, tool, string(text))
			load(t, r)
			for i := range r.Documents {
				if r.Documents[i].Kind == "Job" {
					r.Documents[i].Text = "# deploy/argocd/gate.yaml\n"
				}
			}
			var b strings.Builder
			b.WriteString(r.YAML() + "---\n")
			for _, e := range r.Entries {
				b.WriteString("# " + e.String() + "\n")
			}
			for _, line := range slices.Concat(r.Steps, r.Passed) {
				b.WriteString("# - " + line + "\n")
			}
			golden := filepath.Join("testdata", tool+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("differs from %s (go test -update):\n%s", golden, b.String())
			}
		})
	}
}

// k10Policy is a Policy of K10 with more lines in its spec.
func k10Policy(spec string) string {
	return "apiVersion: config.kio.kasten.io/v1alpha1\nkind: Policy\nmetadata: {name: p, namespace: kasten-io}\nspec:\n" + spec
}

const (
	backs  = "  actions: [{action: backup}]\n"
	inShop = "  selector: {matchLabels: {k10.kasten.io/appNamespace: shop}}\n"
)

// TestK10Schedules: frequencies and their parts become five fields, in UTC.
func TestK10Schedules(t *testing.T) {
	for _, test := range []struct{ name, spec, cron string }{
		{"hourly", "  frequency: '@hourly'\n", "0 * * * *"},
		{"hourly, at minutes", "  frequency: '@hourly'\n  subFrequency: {minutes: [15, 45]}\n", "15,45 * * * *"},
		{"daily", "  frequency: '@daily'\n", "0 0 * * *"},
		{"weekly", "  frequency: '@weekly'\n  subFrequency: {weekdays: [1], hours: [3]}\n", "0 3 * * 1"},
		{"monthly", "  frequency: '@monthly'\n  subFrequency: {days: [1, 15]}\n", "0 0 1,15 * *"},
		{"yearly", "  frequency: '@yearly'\n  subFrequency: {months: [6]}\n", "0 0 1 6 *"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := load(t, converted(t, convert.K10, k10Policy(test.spec+backs+inShop)))
			if got := set.Policies[0].Spec.Schedule; got == nil || got.Cron != test.cron || got.TimeZone != "UTC" {
				t.Errorf("%+v", got)
			}
		})
	}
	r := converted(t, convert.K10, k10Policy("  frequency: '@onDemand'\n"+backs+inShop))
	if got := load(t, r).Policies[0].Spec.Schedule; got != nil || !told(r, convert.Changed, "run-now") {
		t.Errorf("on demand: %+v, %v", got, r.Entries)
	}
}

func told(r *convert.Result, fate convert.Fate, part string) bool {
	return slices.ContainsFunc(r.Entries, func(e convert.Entry) bool { return e.Fate == fate && strings.Contains(e.String(), part) })
}

// TestNothingIsLostInSilence: what is not known, of the wrong kind, or without a counterpart is told as dropped.
func TestNothingIsLostInSilence(t *testing.T) {
	schedule := func(template string) string {
		return "apiVersion: velero.io/v1\nkind: Schedule\nmetadata: {name: s, namespace: velero}\nspec:\n  schedule: '@daily'\n  template: {" + template + "}\n"
	}
	for _, test := range []struct{ name, tool, text, part string }{
		{"unknown field", convert.K10, k10Policy(backs + inShop + "  colour: blue\n"), "spec.colour: dropped: not known here"},
		{"unknown below a known one", convert.K10, k10Policy("  actions: [{action: backup, backupParameters: {depth: 3}}]\n" + inShop), "spec.actions[0].backupParameters.depth"},
		{"number for text", convert.K10, k10Policy("  frequency: 5\n" + backs + inShop), "spec.frequency: dropped: text is expected"},
		{"text for a number", convert.K10, k10Policy("  retention: {daily: many}\n" + backs + inShop), "spec.retention.daily: dropped: a number"},
		{"hour 24", convert.K10, k10Policy("  frequency: '@daily'\n  subFrequency: {hours: [24]}\n" + backs + inShop), "numbers from 0 to 23"},
		{"preset", convert.K10, k10Policy("  presetRef: {name: gold, namespace: kasten-io}\n" + backs + inShop), "presets are not read"},
		{"virtual machines", convert.K10, k10Policy(backs + "  selector: {matchExpressions: [{key: k10.kasten.io/virtualMachineRef, operator: In, values: [a/b]}]}\n"), "no Policy is made"},
		{"no store", convert.K10, "apiVersion: config.kio.kasten.io/v1alpha1\nkind: Profile\nmetadata: {name: p}\nspec: {type: Location, locationSpec: {type: FileStore}}\n", "a FileStore is no place for a vault"},
		{"infrastructure", convert.K10, "apiVersion: config.kio.kasten.io/v1alpha1\nkind: Profile\nmetadata: {name: p}\nspec: {type: Infra}\n", "only location profiles"},
		{"binding without policy", convert.K10, "apiVersion: config.kio.kasten.io/v1alpha1\nkind: BlueprintBinding\nmetadata: {name: b}\nspec: {blueprintRef: {name: x}, resources: {matchAll: [{type: {group: apps, resource: statefulsets}}]}}\n", "no policy to which it belongs"},
		{"rules for volumes", convert.Velero, schedule("resourcePolicy: {kind: configmap, name: r}"), "rules for volumes are not read"},
		{"unknown kind", convert.Velero, schedule("excludedResources: [kafkas]"), "kafkas: the group is not known"},
		{"post alone", convert.Velero, schedule("hooks: {resources: [{name: h, labelSelector: {matchLabels: {a: b}}, post: [{exec: {command: [sync]}}]}]}"), "no command before the snapshot"},
		{"hook of some namespaces", convert.Velero, schedule("includedNamespaces: ['team-*'], hooks: {resources: [{name: h, includedNamespaces: ['team-a*'], pre: [{exec: {command: [sync]}}]}]}"), "it runs nowhere"},
		{"restore of nothing known", convert.Velero, "apiVersion: velero.io/v1\nkind: Restore\nmetadata: {name: r, namespace: velero}\nspec: {backupName: b}\n", "no Restore is made"},
		{"not valid here", convert.Velero, schedule("includedNamespaces: ['[']"), "what it becomes is not valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := converted(t, test.tool, test.text)
			if !told(r, convert.Dropped, test.part) {
				t.Errorf("%v", r.Entries)
			}
			load(t, r)
		})
	}
}

// TestSelections: which namespaces are chosen.
func TestSelections(t *testing.T) {
	in := func(key, operator, values string) string {
		return "{key: " + key + ", operator: " + operator + ", values: [" + values + "]}"
	}
	const app = "k10.kasten.io/appNamespace"
	for _, test := range []struct {
		name, selector    string
		namespaces, not   []string
		labels            bool
		changedWithReason string
	}{
		{"nothing said", "{}", []string{"*"}, nil, false, ""},
		{"names", "{matchNames: [b, a]}", []string{"a", "b"}, nil, false, ""},
		{"expression", "{matchExpressions: [" + in(app, "In", "shop, 'team-*'") + "]}", []string{"shop", "team-*"}, nil, false, ""},
		{"all but", "{matchExpressions: [" + in(app, "NotIn", "b, a") + "]}", []string{"*"}, []string{"a", "b"}, false, ""},
		{"labels", "{matchLabels: {tier: gold}}", nil, nil, true, "by labels of namespaces only"},
		{"the cluster", "{matchExpressions: [" + in(app, "In", "shop, kasten-io-cluster") + "]}", []string{"shop"}, nil, false, "objects of the cluster"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := converted(t, convert.K10, k10Policy(backs+"  selector: "+test.selector+"\n"))
			a := load(t, r).Policies[0].Spec.Sources[0].Applications
			if !slices.Equal(a.Namespaces, test.namespaces) || !slices.Equal(a.ExcludeNamespaces, test.not) || (a.NamespaceSelector != nil) != test.labels {
				t.Errorf("%+v", a)
			}
			if test.changedWithReason != "" && !told(r, convert.Changed, test.changedWithReason) {
				t.Errorf("%v", r.Entries)
			}
		})
	}
}

// TestHooksStayInTheirNamespaces: a command that Velero runs in one namespace runs in no other here.
func TestHooksStayInTheirNamespaces(t *testing.T) {
	hook := func(only string) string {
		return "apiVersion: velero.io/v1\nkind: Schedule\nmetadata: {name: s, namespace: velero}\nspec:\n  schedule: '@daily'\n" +
			"  template: {includedNamespaces: ['*'], hooks: {resources: [{name: h, " + only + ", pre: [{exec: {command: [pause]}}], post: [{exec: {command: [go], timeout: 2m}}]}]}}\n"
	}
	set := load(t, converted(t, convert.Velero, hook("includedNamespaces: [db]")))
	sources := set.Policies[0].Spec.Sources
	if len(sources) != 2 || !slices.Equal(sources[0].Applications.Namespaces, []string{"db"}) || len(sources[0].Applications.Hooks) != 1 ||
		len(sources[1].Applications.Hooks) != 0 || !slices.Equal(sources[1].Applications.ExcludeNamespaces, []string{"db"}) {
		t.Fatalf("%+v", sources)
	}
	if h := sources[0].Applications.Hooks[0]; !h.EachPod || !slices.Equal(h.After, []string{"go"}) || h.Timeout != "2m" {
		t.Errorf("%+v", h)
	}
	set = load(t, converted(t, convert.Velero, hook("excludedNamespaces: [db]")))
	for _, s := range set.Policies[0].Spec.Sources {
		if named := slices.Equal(s.Applications.Namespaces, []string{"db"}); named != (len(s.Applications.Hooks) == 0) {
			t.Errorf("%+v", s.Applications)
		}
	}
}

// TestArticle: a Job that has K10 back the application up before a sync becomes a gate, whatever else is known.
func TestArticle(t *testing.T) {
	const job = `apiVersion: batch/v1
kind: Job
metadata: {generateName: before-, annotations: {argocd.argoproj.io/hook: PreSync}}
spec:
  template:
    spec:
      containers: [{name: a, image: i, command: [sh, -c, "kubectl create -f - <<E\napiVersion: actions.kio.kasten.io/v1alpha1\nkind: KIND\nspec:\n  subject:\n    name: NAME\n    namespace: NAMESPACE\nE\n"]}]
`
	action := func(kind, name, namespace string) string {
		return strings.NewReplacer("KIND", kind, "NAMESPACE", namespace, "NAME", name).Replace(job)
	}
	right := "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: r}\nroleRef: {kind: ClusterRole, name: k10-basic}\nsubjects: [{kind: ServiceAccount, name: a, namespace: pets}]\n"
	for _, test := range []struct {
		name, text string
		policy     string // that asks for points before syncs
		namespace  string // of the gate
	}{
		{"no policy of it", action("BackupAction", "pets", "pets"), "pets", "pets"},
		{"the namespace is in the binding", action("BackupAction", "$NAMESPACE", "$NAMESPACE") + right, "pets", "pets"},
		{"the namespace is nowhere", action("BackupAction", "$NAMESPACE", "$NAMESPACE"), "", ""},
		{"a policy takes it", k10Policy(backs+inShop) + "---\n" + action("BackupAction", "shop", "shop"), "p", "shop"},
		{"it runs a policy", k10Policy(backs+inShop) + "---\n" + action("RunAction", "p", "kasten-io"), "p", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := converted(t, convert.K10, test.text)
			asking := ""
			for _, p := range load(t, r).Policies {
				if p.Spec.GitOps != nil {
					asking += p.Name
				}
			}
			if asking != test.policy {
				t.Errorf("asked for by %q: %v", asking, r.Entries)
			}
			if (test.policy == "") != told(r, convert.Dropped, "add gitops: {} to its policy") {
				t.Errorf("%v", r.Entries)
			}
			gate := r.Documents[len(r.Documents)-1]
			var job struct {
				Kind     string `json:"kind"`
				Metadata struct {
					Namespace   string            `json:"namespace"`
					Annotations map[string]string `json:"annotations"`
				} `json:"metadata"`
			}
			if err := yaml.Unmarshal([]byte(gate.Text), &job); err != nil || job.Kind != "Job" || job.Metadata.Namespace != test.namespace ||
				job.Metadata.Annotations["argocd.argoproj.io/hook"] != "PreSync" {
				t.Errorf("%v\n%s", err, gate.Text)
			}
		})
	}
}

// TestStores: where each store becomes a URL, and which Secret has its keys.
func TestStores(t *testing.T) {
	profile := func(store string) string {
		return "apiVersion: config.kio.kasten.io/v1alpha1\nkind: Profile\nmetadata: {name: p, namespace: kasten-io}\nspec:\n  type: Location\n  locationSpec:\n    type: ObjectStore\n" +
			"    objectStore: {name: b, " + store + "}\n    credential: {secret: {name: keys, namespace: kasten-io}}\n"
	}
	location := func(spec string) string {
		return "apiVersion: velero.io/v1\nkind: BackupStorageLocation\nmetadata: {name: p, namespace: velero}\nspec: {" + spec + "}\n"
	}
	for _, test := range []struct{ name, tool, text, url, credential string }{
		{"K10, S3", convert.K10, profile("objectStoreType: S3, region: eu-west-1"), "s3://b/backstay?region=eu-west-1", "AWS_ACCESS_KEY_ID"},
		{"K10, own S3 without TLS", convert.K10, profile("objectStoreType: S3, endpoint: 'http://minio:9000/', path: a/b"), "s3://b/a/b-backstay?endpoint=minio%3A9000&tls=false", "AWS_SECRET_ACCESS_KEY"},
		{"K10, Azure", convert.K10, profile("objectStoreType: AZ, region: x"), "azblob://b/backstay", "AZURE_STORAGE_ACCOUNT"},
		{"K10, Google", convert.K10, profile("objectStoreType: GCS, region: x"), "gs://b/backstay", ""},
		{"Velero, aws", convert.Velero, location("provider: aws, objectStorage: {bucket: b, prefix: v}"), "s3://b/v-backstay", "AWS_ACCESS_KEY_ID"},
		{"Velero, azure", convert.Velero, location("provider: velero.io/azure, objectStorage: {bucket: b}, config: {storageAccount: acme, resourceGroup: g}"), "azblob://b/backstay?account=acme", "AZURE_STORAGE_KEY"},
		{"Velero, gcp", convert.Velero, location("provider: gcp, objectStorage: {bucket: b}"), "gs://b/backstay", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := converted(t, test.tool, test.text)
			locations := load(t, r).Locations
			if len(locations) != 1 {
				t.Fatalf("%v", r.Entries)
			}
			l := locations[0].Spec
			if _, has := l.Credentials[test.credential]; l.URL != test.url || has != (test.credential != "") {
				t.Errorf("%s, %v", l.URL, l.Credentials)
			}
			if !slices.ContainsFunc(r.Steps, func(s string) bool { return strings.Contains(s, "vault-p") }) {
				t.Errorf("nobody makes its password: %v", r.Steps)
			}
		})
	}
}

// TestNamesAreKeptApart: objects of one name in two namespaces stay two.
func TestNamesAreKeptApart(t *testing.T) {
	one := k10Policy(backs + inShop)
	set := load(t, converted(t, convert.K10, one+"---\n"+strings.Replace(one, "kasten-io", "team-a", 1)+"---\n"+strings.Replace(one, "name: p,", "name: P.x,", 1)))
	var names []string
	for _, p := range set.Policies {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"p", "p-x", "team-a-p"}) {
		t.Errorf("%q", names)
	}
}

// TestWhatHasRunIsNotDoneAgain: records of Velero are no requests.
func TestWhatHasRunIsNotDoneAgain(t *testing.T) {
	r := converted(t, convert.Velero, `{kind: BackupList, apiVersion: velero.io/v1, items: [
	  {kind: Backup, apiVersion: velero.io/v1, metadata: {name: a}, spec: {ttl: 1h}, status: {phase: Failed}},
	  {kind: Restore, apiVersion: velero.io/v1, metadata: {name: b}, spec: {includedNamespaces: [x]}, status: {phase: Completed}}]}`)
	if len(r.Documents) != 0 || r.Dropped() != 0 || len(r.Entries) != 2 {
		t.Errorf("%v", r)
	}
}

// TestRestoresOnlyPlan: to apply what was converted overwrites nothing.
func TestRestoresOnlyPlan(t *testing.T) {
	r := converted(t, convert.Velero, "apiVersion: velero.io/v1\nkind: Restore\nmetadata: {name: r, namespace: velero}\nspec: {includedNamespaces: [a, b], existingResourcePolicy: update, restorePVs: false}\n")
	load(t, r)
	if len(r.Documents) != 2 {
		t.Fatalf("%v", r.Entries)
	}
	for _, d := range r.Documents {
		var found v1alpha1.Restore
		if err := yaml.Unmarshal([]byte(d.Text), &found); err != nil || !found.Spec.PlanOnly || found.Spec.Only != v1alpha1.OnlyConfig {
			t.Errorf("%v\n%s", err, d.Text)
		}
	}
}

// TestReadRefuses: what is no document of Kubernetes, and what is too large.
func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":     "a: [",
		"a list":      "- a\n",
		"deep":        "a: " + strings.Repeat("{a: ", 60) + strings.Repeat("}", 60),
		"too many":    strings.Repeat("kind: A\n---\n", 5001),
		"aliases":     "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e]\ng: &g [*f, *f, *f, *f, *f, *f]\nh: [*g, *g, *g, *g]\n",
		"a bad alias": "a: *nothing",
	} {
		if _, err := convert.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// FuzzConvert: whatever stands in documents, what is written is read again, and comments stay comments.
func FuzzConvert(f *testing.F) {
	for _, tool := range []string{convert.K10, convert.Velero} {
		text, err := os.ReadFile(filepath.Join("testdata", tool+".yaml"))
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range strings.Split(string(text), "---\n") {
			f.Add(tool, part)
		}
		f.Add(tool, string(text))
	}
	f.Add(convert.K10, "apiVersion: batch/v1\nkind: Job\nmetadata: {name: \"a\\nb: c\", namespace: \"x\\n  y: z\", annotations: {argocd.argoproj.io/hook: PreSync}}\nspec: {template: {spec: {containers: [{command: ['kind: RunAction']}]}}}\n")
	f.Fuzz(func(t *testing.T, tool, text string) {
		objects, err := convert.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		r := convert.Convert(tool, objects, convert.Options{})
		load(t, r)
		again, err := convert.Read(strings.NewReader(r.YAML()))
		if err != nil || len(again) != len(r.Documents) {
			t.Errorf("%d documents are read as %d: %v\n%s", len(r.Documents), len(again), err, r.YAML())
		}
	})
}
