package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
)

// write makes a directory of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const vaultFile = `apiVersion: backstay.io/v1alpha1
kind: Location
metadata:
  name: vault
spec:
  url: s3://bucket/backstay?endpoint=s3.example.com
  password: {file: /etc/backstay/password}
  credentials:
    AWS_ACCESS_KEY_ID: {env: KEY}
    AWS_SECRET_ACCESS_KEY: {command: pass show s3}
`

// policyFile is a policy with the given lines in its spec, from line 6 on.
func policyFile(spec string) string {
	return "apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata:\n  name: nightly\nspec:\n" + spec
}

const plainSpec = `  location: vault
  sources:
    - github: {user: acme, token: {env: TOKEN}}
`

func TestLoad(t *testing.T) {
	dir := write(t, map[string]string{
		"a/10-vault.yaml": vaultFile,
		"a/20-policy.yml": "# two in one file, and an empty document\n---\n---\n" + policyFile(plainSpec+`  schedule: {cron: "@every 6h", jitter: 10m}
  retention: {daily: 7, within: 30d}
  exports:
    - s3: {bucket: b, endpoint: "s3.example.com:9000"}
      structured: true
      form: mirror
`) + "---\n" + strings.Replace(policyFile(plainSpec), "nightly", "another", 1),
		"a/30.json":       `{"apiVersion": "backstay.io/v1alpha1", "kind": "Policy", "metadata": {"name": "json"},` + "\n\t" + `"spec": {"location": "vault", "sources": [{"directory": "/etc"}]}}`,
		"a/notes.txt":     "not read",
		"a/.hidden.yaml":  "not: read",
		"a/deploy.yaml":   "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
		"a/sub/more.yaml": "not: read",
		"a/secrets/token": "not: read",
	})
	set, err := config.Load(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range set.Policies {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "another json nightly" {
		t.Errorf("policies: %s", got)
	}
	if l, found := set.Location("vault"); !found || l.Spec.Credentials["AWS_SECRET_ACCESS_KEY"].Command != "pass show s3" {
		t.Errorf("location: %+v, %v", l, found)
	}
	p := set.Policies[2].Spec
	if p.Schedule.Jitter != "10m" || p.Retention.Daily != 7 || p.Sources[0].GitHub.Token.Env != "TOKEN" || p.Exports[0].S3.Endpoint != "s3.example.com:9000" || p.Exports[0].Form != "mirror" {
		t.Errorf("policy: %+v", p)
	}
	if len(set.Notes) != 2 || !strings.Contains(set.Notes[0].String(), "apps/v1") || !strings.Contains(set.Notes[1].String(), "sub: a directory") {
		t.Errorf("notes: %q", set.Notes)
	}
}

func TestLoadConfigMap(t *testing.T) {
	dir := write(t, map[string]string{"..2026_01/policy.yaml": vaultFile})
	for link, to := range map[string]string{"..data": "..2026_01", "policy.yaml": "..data/policy.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if set, err := config.Load(dir); err != nil || len(set.Locations) != 1 || len(set.Notes) != 0 {
		t.Errorf("%+v, %v", set, err)
	}
}

// TestLoadRefuses has one slip a case; want is what the error says, after the file's name.
func TestLoadRefuses(t *testing.T) {
	spec := func(s string) string { return policyFile(s) }
	tests := []struct{ name, text, want string }{
		{"unknown field", spec("  locaton: vault\n  sources: [{directory: /etc}]\n"), `:6:3: spec: no such field: "locaton"; did you mean location?`},
		{"unknown field, nothing near", spec(plainSpec + "  colour: red\n"), `:9:3: spec: no such field: "colour"; known are deadline, drill, exports, gitops, location`},
		{"other case", spec("  location: vault\n  sources: [{GitHub: {}}]\n"), `did you mean github?`},
		{"wrong type", spec(plainSpec + "  parallel: many\n"), `:9:13: spec.parallel: a whole number is expected`},
		{"yes is no bool", spec(plainSpec + "  suspend: yes\n"), `:9:12: spec.suspend: true or false is expected`},
		{"number as text", spec("  location: vault\n  sources: [{github: {user: 0123}}]\n"), `:7:29: spec.sources[0].github.user: read as a number: put it in quotes`},
		{"list expected", spec("  location: vault\n  sources: {directory: /etc}\n"), `:7:12: spec.sources: fields where a list is expected`},
		{"said twice", spec(plainSpec + "  location: vault\n"), `:9:3: spec: "location" is said twice`},
		{"null", spec(plainSpec + "  retention:\n"), `:9:13: spec.retention: says nothing`},
		{"missing", "apiVersion: backstay.io/v1alpha1\nkind: Policy\nspec:\n" + plainSpec, `:1:1: metadata is missing`},
		{"bad name", strings.Replace(spec(plainSpec), "nightly", "Nightly Run", 1), `:4:3: metadata.name: a name has lowercase`},
		{"secret in clear", spec("  location: vault\n  sources: [{github: {token: ghp_hunter22}}]\n"), `:7:30: spec.sources[0].github.token: a secret in clear`},
		{"secret as value", spec("  location: vault\n  sources: [{github: {token: {value: ghp_hunter22}}}]\n"), `a secret in clear`},
		{"secret in a URL", spec("  location: vault\n  sources: [{git: {url: 'https://me:hunter22@example.com/x.git'}}]\n"), `:7:20: spec.sources[0].git.url: a password in a URL`},
		{"secret as an alias", spec("  location: vault\n  sources: [{github: {token: *hunter22}}]\n"), `: not YAML: an alias to nothing`},
		{"secret as a key", spec("  location: vault\n  sources: [{github: {token: {ghp_hunter22hunter22hunter22: }}}]\n"), `no such field: (28 characters)`},
		{"secret from two places", spec("  location: vault\n  sources: [{github: {token: {env: A, file: B}}}]\n"), `only one of env and file`},
		{"secret from nowhere", spec("  location: vault\n  sources: [{github: {token: {}}}]\n"), `one of these is missing: env, file, command, secretKeyRef`},
		{"two forges", spec("  location: vault\n  sources: [{github: {}, gitlab: {}}]\n"), `spec.sources[0]: only one of github and gitlab`},
		{"no sources", spec("  location: vault\n  sources: []\n"), `:7:3: spec.sources: empty`},
		{"no place", spec("  sources: [{directory: /etc}]\n"), `nowhere to keep anything`},
		{"no such location", spec("  location: valt\n  sources: [{directory: /etc}]\n"), `:6:3: spec.location: no Location of this name is declared; did you mean vault?`},
		{"cron", spec(plainSpec + "  schedule: {cron: '* * * *'}\n"), `:9:14: spec.schedule.cron: schedule "* * * *": expected exactly 5 fields`},
		{"zone", spec(plainSpec + "  schedule: {cron: '@daily', timeZone: Europe/Atlantis}\n"), `spec.schedule.timeZone: time zone "Europe/Atlantis": unknown`},
		{"jitter", spec(plainSpec + "  schedule: {cron: '@hourly', jitter: 60m}\n"), `spec.schedule.jitter: as long as the time between two runs`},
		{"duration", spec(plainSpec + "  retention: {within: 5}\n"), `spec.retention.within: read as a number`},
		{"span", spec(plainSpec + "  schedule: {cron: '@daily', jitter: 1d}\n"), `spec.schedule.jitter: a span of the clock is expected`},
		{"retention says nothing", spec(plainSpec + "  retention: {}\n"), `spec.retention: keeps everything`},
		{"retention of nothing", spec("  sources: [{directory: /etc}]\n  exports: [{local: {path: /b}}]\n  retention: {last: 1}\n"), `spec.retention: it is of restore points`},
		{"a directory into copies", spec("  sources: [{directory: /etc}]\n  exports: [{local: {path: /b}}]\n"), `spec.sources[0].directory: it goes into restore points only`},
		{"less than 0", spec(plainSpec + "  retention: {last: -1}\n"), `spec.retention.last: less than 0`},
		{"glob", spec("  location: vault\n  sources: [{github: {include: ['[']}}]\n"), `spec.sources[0].github.include[0]: not a glob`},
		{"excluded, too", spec("  location: vault\n  sources: [{github: {include: [a], exclude: [a]}}]\n"), `include[0]: excluded, too`},
		{"enum", spec(plainSpec + "  exports: [{local: {path: /b}, form: bar}]\n"), `form: worktree, bare or mirror is expected; did you mean bare?`},
		{"worktree in a bucket", spec(plainSpec + "  exports: [{s3: {bucket: b, endpoint: e}, form: worktree}]\n"), `worktree is for local places`},
		{"one place twice", spec(plainSpec + "  exports: [{local: {path: /b}}, {local: {path: /b}, form: mirror}]\n"), `spec.exports[1]: the same place as spec.exports[0]`},
		{"one account twice", spec("  location: vault\n  sources: [{github: {user: a}}, {github: {user: a, starred: true}}]\n"), `spec.sources[1]: the same account as spec.sources[0]`},
		{"user and organization", spec("  location: vault\n  sources: [{github: {user: a, organization: b}}]\n"), `either a user or an organization`},
		{"app elsewhere", spec("  location: vault\n  sources: [{gitlab: {app: {id: 1, installationID: 2, privateKey: {file: k}}}}]\n"), `Apps are GitHub's`},
		{"pull on github", spec(plainSpec + "  mirrors: [{github: {}, pull: true}]\n"), `only GitLab, Gitea, Forgejo and Gogs pull`},
		{"empty heartbeat", spec(plainSpec + "  notify: {heartbeats: [{}]}\n"), `success, start or failure is missing`},
		{"metadata into copies", spec("  sources: [{github: {metadata: true}}]\n  exports: [{local: {path: /b}}]\n"), `spec.sources[0].github.metadata: it goes into restore points only`},
		{"metadata as fields", spec("  location: vault\n  sources: [{github: {metadata: {files: true}}}]\n"), `spec.sources[0].github.metadata: fields where one value`},
		{"files of nothing", spec("  location: vault\n  sources: [{github: {files: true}}]\n"), `spec.sources[0].github.files: it goes with metadata: true`},
		{"a size of no files", spec("  location: vault\n  sources: [{github: {metadata: true, files: false, maxFile: 1GiB}}]\n"), `maxFile: no files are taken`},
		{"size", spec("  location: vault\n  sources: [{github: {metadata: true, maxFile: 2 GB}}]\n"), `maxFile: a size is expected: 500MB, 2GiB`},
		{"host", spec("  location: vault\n  sources: [{gitea: {metadata: true, fileHosts: ['https://a.example']}}]\n"), `fileHosts[0]: HOST or HOST:PORT is expected`},
		{"two of a name", spec(plainSpec) + "---\n" + spec(plainSpec), `:13:3: metadata.name: Policy nightly is declared at`},
		{"next version", "apiVersion: backstay.io/v2\nkind: Policy\n", `apiVersion: this program reads backstay.io/v1alpha1`},
		{"unknown kind", "apiVersion: backstay.io/v1alpha1\nkind: Polcy\n", `kind: files declare Location, Policy, Backup, RestorePoint, Restore, Gate or Drill; did you mean Policy?`},
		{"no version", "kind: Policy\n", `apiVersion: missing`},
		{"gickup's", "source: {}\n", `this is gickup's configuration`},
		{"no object", "- a\n", `a list where an object is expected`},
		{"not YAML", "a: b: c\n", `:1: not YAML: mapping values are not allowed`},
		{"unquoted @", spec(plainSpec + "  schedule: {cron: @daily}\n"), `not YAML: a value that begins with @`},
		{"cycle", "apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: &a\n  labels: *a\n", `metadata`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, map[string]string{"vault.yaml": vaultFile, "x.yaml": test.text})
			set, err := config.Load(dir)
			if !errors.Is(err, fault.ErrInvalid) || set != nil {
				t.Fatalf("%+v, %v", set, err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter22") {
				t.Errorf("the secret is told: %v", err)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"500MB": 500e6, "2GiB": 2 << 30, "2Gi": 2 << 30, "1K": 1000, "3TiB": 3 << 40,
		"": 0, "0GiB": 0, "1": 0, "1.5GiB": 0, "-1GiB": 0, "1PB": 0, "GiB": 0, "1 GiB": 0, "999999999TiB": 0,
	} {
		got, err := config.ParseSize(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestLoadFindsEverythingAtOnce(t *testing.T) {
	dir := write(t, map[string]string{"x.yaml": policyFile("  location: nowhere\n  suspend: yes\n  sources: [{git: {url: a, tokn: {env: A}}}]\n  foo: 1\n")})
	_, err := config.Load(dir)
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Fatalf("%v", err)
	}
	for i, line := range []int{6, 7, 8, 9} {
		if problems[i].Line != line {
			t.Errorf("problem %d is at line %d: %s", i, problems[i].Line, problems[i])
		}
	}
}

func TestLoadAliasesAndMerge(t *testing.T) {
	text := policyFile("  location: vault\n  sources:\n    - github: &all {token: &t {env: TOKEN}, starred: true}\n    - gitlab: {<<: *all, token: *t, starred: false}\n")
	set, err := config.Load(write(t, map[string]string{"vault.yaml": vaultFile, "x.yaml": text}))
	if err != nil {
		t.Fatal(err)
	}
	s := set.Policies[0].Spec.Sources
	if !s[0].GitHub.Starred || s[1].GitLab.Starred || s[1].GitLab.Token.Env != "TOKEN" {
		t.Errorf("%+v, %+v", s[0].GitHub, s[1].GitLab)
	}
}

// TestLoadBounded reads a file whose aliases mean 10^9 values.
func TestLoadBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: {name: x}\nspec:\n  sources:\n    - github: &s0 {token: {env: A}}\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "    - github: &s%d\n        <<: [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*s%d, ", i-1), 10), ", "))
	}
	_, err := config.Load(write(t, map[string]string{"x.yaml": b.String()}))
	if err == nil || !strings.Contains(err.Error(), "aliases that make the document too large") {
		t.Errorf("%v", err)
	}
	b.Reset() // a mapping of many keys, merged many times
	b.WriteString("apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: &m {name: x")
	for i := range 50_000 {
		fmt.Fprintf(&b, ", k%d: 1", i)
	}
	b.WriteString("}\nspec: {<<: [" + strings.TrimSuffix(strings.Repeat("*m, ", 50_000), ", ") + "]}\n")
	_, err = config.Load(write(t, map[string]string{"x.yaml": b.String()}))
	if err == nil { // without the bound it never comes so far
		t.Error("2.5·10^9 keys were taken")
	}
	_, err = config.Load(write(t, map[string]string{"x.yaml": strings.Repeat("#", 5<<20)}))
	if err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("%v", err)
	}
}

func TestLoadPaths(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := config.Load(t.TempDir(), "/dev/null"); err != nil {
		t.Errorf("nothing declared is no error here: %v", err)
	}
}
