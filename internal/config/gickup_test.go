package config_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
)

// environment has the given variables, and the home directory /home/me.
func environment(variables map[string]string) config.Environment {
	return config.Environment{Home: "/home/me", Lookup: func(name string) (string, bool) {
		value, found := variables[name]
		return value, found
	}}
}

// readGickup reads one file's text.
func readGickup(t *testing.T, text string, variables map[string]string) *config.Gickup {
	t.Helper()
	g, err := config.ReadGickup(environment(variables), filepath.Join(write(t, map[string]string{"conf.yml": text}), "conf.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func everyKey(t *testing.T) *config.Gickup {
	t.Helper()
	env := environment(map[string]string{"TEST_GITHUB_TOKEN": "x", "TEST_S3_KEY": "x", "TEST_GOTIFY_TOKEN": "x", "TEST_MAIL": "me@example.com"})
	g, err := config.ReadGickup(env, filepath.Join("testdata", "gickup", "every-key.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func rules(findings []config.Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, f.Rule)
	}
	return all
}

func TestGickupEveryKey(t *testing.T) {
	g := everyKey(t)
	for _, f := range g.Lint() {
		if f.Rule == "unknown-key" || f.Severity == config.Error {
			t.Errorf("%s", f)
		}
	}
	policies, err := g.Policies()
	if err != nil || len(policies) != 2 {
		t.Fatalf("%d policies, %v", len(policies), err)
	}
	spec := policies[0].Spec
	f := spec.Sources[0].GitHub
	checks := []struct {
		what      string
		got, want any
	}{
		{"name", policies[0].Name, "every-key"},
		{"second name", policies[1].Name, "every-key-2"},
		{"cron", spec.Schedule.Cron, "0 22 * * *"},
		{"cron inherited", policies[1].Spec.Schedule.Cron, "0 22 * * *"},
		{"token", f.Token.Env, "TEST_GITHUB_TOKEN"},
		{"key", f.SSH.KeyFile, "/home/me/.ssh/backup"},
		{"names", f.Include, []string{"api", "web.app", "1.10"}},
		{"includeorgs beside include", f.IncludeOwners, []string(nil)},
		{"excludeorgs", f.ExcludeOwners, []string{"archive-org"}},
		{"activity", f.ActiveWithin, "1y2m3d5h"},
		{"flags", []bool{f.Starred, f.Contributed, f.Gists, f.Issues, *f.Wikis, f.ExcludeArchived, f.ExcludeForks}, []bool{true, true, true, true, true, true, true}},
		{"app", *spec.Sources[1].GitHub.App, v1alpha1.App{ID: 12, InstallationID: 34, PrivateKey: v1alpha1.Secret{File: "/home/me/app.pem"}}},
		{"gitea's orgs", spec.Sources[2].Gitea.Organizations, []string{"team"}},
		{"gitlab's token file", spec.Sources[4].GitLab.Token.File, "/home/me/gitlab.token"},
		{"gitlab's groups", spec.Sources[4].GitLab.IncludeOwners, []string{"group"}},
		{"bitbucket", *spec.Sources[5].Bitbucket.Token, v1alpha1.Secret{Value: "literal-bitbucket-token"}},
		{"bitbucket's name", spec.Sources[5].Bitbucket.Username, "me@example.com"},
		{"bitbucket's workspace", spec.Sources[5].Bitbucket.Organization, "workspace"},
		{"any", spec.Sources[6].Git.Owner, "label"},
		{"any, local", spec.Sources[7].Git.URL, "/home/me/src/local"},
		{"onedev", spec.Sources[8].OneDev.Password.Value, "literal-onedev-password"},
		{"local", spec.Exports[0], v1alpha1.Export{
			Local: &v1alpha1.Local{Path: "/home/me/backup"}, Layout: v1alpha1.Layout{Structured: true, Form: "mirror", Zip: true, Keep: 5, LFS: true},
		}},
		{"s3", []any{spec.Exports[1].S3.AccessKey.Env, spec.Exports[1].S3.SecretKey.Value, *spec.Exports[1].S3.SourceTag, spec.Exports[1].Dated, spec.Exports[1].S3.Insecure}, []any{"TEST_S3_KEY", "literal-s3-secret", "source", true, false}},
		{"azure", spec.Exports[2].Azure.ClientSecret.Value, "literal-azure-secret"},
		{"webdav", spec.Exports[3].WebDAV.Path, "repos"},
		{"heartbeat", spec.Notify.Heartbeats[0].Success.Value, "https://hc.example.com/literal-heartbeat-key"},
		{"heartbeat, own", policies[1].Spec.Notify.Heartbeats[0].Success.Value, "https://hc.example.com/literal-second-key"},
		{"messages, inherited", policies[1].Spec.Notify.Messages, spec.Notify.Messages},
		{"mail", spec.Notify.Messages[0].Ntfy.Email, "me@example.com"},
		{"process", g.Process(), config.Process{Listen: ":6178", MetricsPath: "/metrics", LogFile: "/home/me/logs/gickup.log", LogMaxAge: 7, TimeFormat: "2006-01-02 15:04:05"}},
	}
	for _, c := range checks {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.what, c.got, c.want)
		}
	}
	mirrors := map[string]v1alpha1.Mirror{}
	for _, m := range spec.Mirrors {
		switch {
		case m.Gitea != nil:
			mirrors["gitea"] = m
		case m.GitLab != nil:
			mirrors["gitlab"] = m
		case m.Radicle != nil:
			mirrors["radicle"] = m
		case m.GitHub != nil:
			mirrors["github"] = m
		}
	}
	if m := mirrors["gitea"]; !m.Pull || m.Interval != "2h" || m.Owner != "mirrors" || !m.CreateOwner || m.OwnerVisibility != "limited" || !m.LFS {
		t.Errorf("gitea: %+v", m)
	}
	if m := mirrors["gitlab"]; m.Pull || !m.Force || m.Visibility != "source" || !m.LFS {
		t.Errorf("gitlab: %+v", m)
	}
	if m := mirrors["radicle"]; !m.Force || !m.Radicle.Prune || m.Visibility != "source" {
		t.Errorf("radicle: %+v", m)
	}
	if m := mirrors["github"]; m.Owner != "mirrors" || m.Visibility != "public" {
		t.Errorf("github: %+v", m)
	}
}

// walkthrough is the file of the published walk-through, with its placeholders filled in.
const walkthrough = `source:
  github:
    - token: GITHUB_TOKEN
      user: octo
      include:
        - spoon
      wiki: true
      issues: true
destination:
  local:
    - path: /backups
      structured: true
      zip: true
      keep: 5
      bare: true
      lfs: true
log: # optional
  timeformat: 2006-01-02 15:04:05 # a layout
  file-logging: # optional
    dir: /backups/logs # directory to log into
    file: gickup.log # file to log into
    maxage: 7 # keep logs for 7 days
`

func TestGickupWalkthrough(t *testing.T) {
	g := readGickup(t, walkthrough, map[string]string{"GITHUB_TOKEN": "x"})
	policies, err := g.Policies()
	if err != nil || len(policies) != 1 {
		t.Fatal(policies, err)
	}
	spec := policies[0].Spec
	if spec.Schedule != nil || spec.Sources[0].GitHub.User != "octo" || spec.Sources[0].GitHub.Include[0] != "spoon" || spec.Exports[0].Keep != 5 || spec.Exports[0].Form != "bare" {
		t.Errorf("%+v", spec)
	}
	if got := rules(g.Lint()); !slices.Equal(got, []string{"branches", "zip", "lfs-bare"}) {
		t.Errorf("findings: %q", got)
	}
	unfilled := strings.Replace(walkthrough, "octo", "<add your github username>", 1)
	if _, err := readGickup(t, unfilled, nil).Policies(); !errors.Is(err, fault.ErrInvalid) || !strings.Contains(err.Error(), ":4:7: source.github[0].user: this still waits") {
		t.Errorf("%v", err)
	}
}

func TestGickupFindings(t *testing.T) {
	const local = "\ndestination: {local: [{path: /b, structured: true}]}\n"
	source := func(s string) string { return "source: {github: [{user: u, token: secret22, " + s + "}]}" + local }
	tests := []struct {
		name, text string
		rule       string // "" for none
		severity   config.Severity
		line       int
	}{
		{"nothing", "# nothing\n", "nothing-said", config.Error, 0},
		{"only null", "~\n", "nothing-said", config.Error, 0},
		{"fine", source("wiki: true"), "", "", 0},
		{"unknown key", source("wikis: true"), "unknown-key", config.Warning, 1},
		{"other case", source("Wiki: true"), "unknown-key", config.Warning, 1},
		{"unknown list", "source: {gihub: [], github: [{user: u}]}" + local, "unknown-key", config.Warning, 1},
		{"heartbeat of a later version", source("") + "metrics: {heartbeat: {failure: [a]}}\n", "unknown-key", config.Warning, 3},
		{"byte order mark", "\ufeff" + source(""), "byte-order-mark", config.Warning, 1},
		{"leading zero", source("include: [0123]"), "number-as-text", config.Warning, 1},
		{"trailing zero", source("include: [1.10]"), "number-as-text", config.Warning, 1},
		{"hexadecimal", source("include: [0x1F]"), "number-as-text", config.Warning, 1},
		{"separated", source("include: [1_000]"), "number-as-text", config.Warning, 1},
		{"infinite", source("include: [.inf]"), "number-as-text", config.Warning, 1},
		{"plain number", source("include: [12345]"), "", "", 0},
		{"exponent", source("include: [1e5]"), "", "", 0},
		{"quoted", source("include: ['0123']"), "", "", 0},
		{"true as text", source("include: [true]"), "", "", 0},
		{"date", source("include: [2024-01-01]"), "", "", 0},
		{"null in a list", source("include: [~]"), "name-empty", config.Warning, 1},
		{"yes", source("wiki: yes"), "type", config.Error, 1},
		{"quoted true", source("wiki: 'true'"), "type", config.Error, 1},
		{"True", source("wiki: True"), "", "", 0},
		{"null bool", source("wiki: ~"), "", "", 0},
		{"quoted number", source("filter: {stars: '10'}"), "", "", 0},
		{"number with a point", source("filter: {stars: 12.0}"), "", "", 0},
		{"half a star", source("filter: {stars: 1.5}"), "type", config.Error, 1},
		{"no list", source("include: foo"), "type", config.Error, 1},
		{"map for a list", "source: {github: {token: a}}\n", "type", config.Error, 1},
		{"said twice", source("wiki: true, wiki: true"), "type", config.Error, 1},
		{"unquoted @", source("") + "cron: @daily\n", "syntax", config.Error, 3},
		{"quoted @", source("") + "cron: '@daily'\n", "", "", 0},
		{"cron", source("") + "cron: '* * *'\n", "cron", config.Error, 3},
		{"cron of the second only", source("") + "---\n" + source("") + "cron: '@daily'\n", "cron-without-first", config.Warning, 6},
		{"cron of the second wrong", source("") + "cron: '@daily'\n---\n" + source("") + "cron: never\n", "cron", config.Warning, 7},
		{"empty document between", source("") + "---\n# only a comment\n---\n" + source(""), "empty-document", config.Warning, 5},
		{"two dashes first", "---\n---\n" + source(""), "empty-document", config.Warning, 2},
		{"empty document last", source("") + "---\n", "", "", 0},
		{"empty mapping between", source("") + "---\n{}\n---\n" + source(""), "", "", 0},
		{"null between", source("") + "---\n~\n---\n" + source(""), "null-document", config.Warning, 4},
		{"log of the second", source("") + "---\n" + source("") + "log: {timeformat: x}\n", "first-document-only", config.Warning, 6},
		{"half a prometheus", source("") + "metrics: {prometheus: {endpoint: /m}}\n", "prometheus", config.Error, 3},
		{"variable", "source: {github: [{user: u, token: MY_TOKEN}]}" + local, "variable-not-set", config.Warning, 1},
		{"name with owner", source("include: [acme/api]"), "name-with-owner", config.Warning, 1},
		{"name with a star", source("include: ['api-*']"), "name-with-glob", config.Warning, 1},
		{"placeholder", source("include: ['<add here>']"), "placeholder", config.Warning, 1},
		{"includeorgs beside include", source("include: [a], includeorgs: [b]"), "includeorgs-unused", config.Warning, 1},
		{"organization", source("organization: acme"), "organization-of-source", config.Warning, 1},
		{"gists elsewhere", "source: {gitlab: [{user: u, gists: true}]}" + local, "key-ignored", config.Warning, 1},
		{"half an app", source("app_id: 5"), "app-incomplete", config.Warning, 1},
		{"activity", source("filter: {lastactivity: soon}"), "lastactivity", config.Warning, 1},
		{"ssh", source("ssh: true"), "host-keys", config.Info, 1},
		{"heartbeat", source("") + "metrics: {heartbeat: {urls: [https://hc.example.com/secret22]}}\n", "heartbeat", config.Info, 3},
		{"same names", "source: {github: [{token: a}]}\ndestination: {local: [{path: /b}]}\n", "same-names", config.Warning, 2},
		{"no destination", "source: {github: [{user: a}]}\n", "no-destination", config.Warning, 0},
		{"no source", "destination: {local: [{path: /b, structured: true}]}\n", "no-source", config.Warning, 0},
		{"keys without static", "source: {github: [{user: u}]}\ndestination: {s3: [{bucket: b, endpoint: e, accesskey: a, secretkey: secret22, usessl: true, structured: true}]}\n", "s3-keys", config.Warning, 2},
		{"plain http", "source: {github: [{user: u}]}\ndestination: {s3: [{bucket: b, endpoint: e, structured: true}]}\n", "s3-plain-http", config.Warning, 2},
		{"pull mirror", "source: {github: [{user: u}]}\ndestination: {gitea: [{url: 'https://g', token: secret22, user: m}]}\n", "pull-mirror", config.Warning, 2},
		{"password in a URL", "source: {any: [{url: 'https://me:secret22@example.com/a.git'}]}" + local, "password-in-url", config.Warning, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := readGickup(t, test.text, nil)
			findings := slices.DeleteFunc(g.Lint(), func(f config.Finding) bool { return f.Rule == "upload-replaces" || f.Rule == "branches" })
			if document, err := json.Marshal(g.Lint()); err != nil || strings.Contains(string(document), "secret22") {
				t.Errorf("%v, or the secret is told: %s", err, document)
			}
			if test.rule == "" {
				if len(findings) != 0 {
					t.Errorf("got %s", findings)
				}
				return
			}
			at := slices.IndexFunc(findings, func(f config.Finding) bool { return f.Rule == test.rule })
			if at < 0 {
				t.Fatalf("got %s", findings)
			}
			f := findings[at]
			if f.Severity != test.severity || test.line > 0 && f.Line != test.line {
				t.Errorf("got %s", f)
			}
			if _, err := g.Policies(); (err != nil) != (f.Severity == config.Error) {
				t.Errorf("policies: %v", err)
			}
		})
	}
}

// TestGickupKeepsText has tokens and names that gickup changes as it reads them.
func TestGickupKeepsText(t *testing.T) {
	for _, token := range []string{"0123", "0x1F", "0o17", "1_000", "1.10", ".inf", "12345", "true", "1e5", "123456789012345678901234567890", "2024-01-01"} {
		g := readGickup(t, "source: {github: [{user: u, token: "+token+"}]}\ndestination: {local: [{path: /b}]}\n", nil)
		policies, err := g.Policies()
		if err != nil || policies[0].Spec.Sources[0].GitHub.Token.Value != token {
			t.Errorf("%s: %+v, %v", token, policies, err)
		}
	}
}

func TestGickupAllDocuments(t *testing.T) {
	one := func(user string) string {
		return "source: {github: [{user: " + user + "}]}\ndestination: {local: [{path: /b, structured: true}]}\n"
	}
	g := readGickup(t, "---\n---\n"+one("a")+"---\n# comment\n---\n"+one("b")+"---\n{}\n---\n~\n---\n"+one("c"), nil)
	policies, err := g.Policies()
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	for _, p := range policies {
		users = append(users, p.Spec.Sources[0].GitHub.User)
	}
	if !slices.Equal(users, []string{"a", "b", "c"}) {
		t.Errorf("%q", users)
	}
}

func TestGickupSelection(t *testing.T) {
	forge := func(kind, s string) *v1alpha1.Forge {
		t.Helper()
		policies, err := readGickup(t, "source: {"+kind+": [{url: 'https://h.example', "+s+"}]}\ndestination: {local: [{path: /b}]}\n", nil).Policies()
		if err != nil {
			t.Fatal(err)
		}
		source := policies[0].Spec.Sources[0]
		if kind == "gitea" {
			return source.Gitea
		}
		return source.GitHub
	}
	if f := forge("github", "include: ['a*', 'b[', a], exclude: [a]"); !slices.Equal(f.Include, []string{"a*", "b["}) || !f.ExactNames {
		t.Errorf("%q", f.Include)
	}
	if f := forge("github", "include: [a], exclude: [a]"); len(f.Include) != 1 || f.Include[0] == "a" {
		t.Errorf("include and exclude cancel out, and now everything is taken: %q", f.Include)
	}
	if f := forge("github", "includeorgs: [acme]"); !slices.Equal(f.IncludeOwners, []string{"acme"}) || f.Organizations != nil {
		t.Errorf("%+v", f)
	}
	if f := forge("gitea", "includeorgs: [acme]"); !slices.Equal(f.Organizations, []string{"acme"}) || f.IncludeOwners != nil {
		t.Errorf("%+v", f)
	}
}

// TestGickupOwnerOfURL: directories of copies are named after it.
func TestGickupOwnerOfURL(t *testing.T) {
	for access, owner := range map[string]string{
		"": "git", "user: ann": "ann", "username: bob, password: p": "bob", "user: ann, username: bob": "ann",
	} {
		g := readGickup(t, "source: {any: [{url: 'https://h.example/acme/api', "+access+"}]}\ndestination: {local: [{path: /b}]}\n", nil)
		policies, err := g.Policies()
		if err != nil || policies[0].Spec.Sources[0].Git.Owner != owner {
			t.Errorf("%s: %+v, %v; want %s", access, policies, err, owner)
		}
	}
}

// TestGickupConvert: the native files load, and mean what gickup's file means.
func TestGickupConvert(t *testing.T) {
	for name, read := range map[string]func(*testing.T) *config.Gickup{
		"every key":   everyKey,
		"walkthrough": func(t *testing.T) *config.Gickup { return readGickup(t, walkthrough, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			g := read(t)
			dir := filepath.Join(t.TempDir(), "new")
			wrote, err := g.Convert(dir)
			if err != nil {
				t.Fatal(err)
			}
			set, err := config.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			want, err := g.Policies()
			if err != nil {
				t.Fatal(err)
			}
			for i := range set.Policies {
				reveal(t, reflect.ValueOf(&set.Policies[i]).Elem(), filepath.Join(dir, "secrets"))
			}
			got, expected := string(asJSON(t, set.Policies)), string(asJSON(t, want))
			if got != expected {
				t.Errorf("got\n%s\nwant\n%s", got, expected)
			}
			for _, path := range slices.Concat(wrote.Files, wrote.Secrets) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(path)
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
				if filepath.Base(filepath.Dir(path)) != "secrets" && strings.Contains(string(data), "literal") {
					t.Errorf("%s holds a secret", path)
				}
			}
			if _, err := g.Convert(dir); !errors.Is(err, fault.ErrExists) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
	wrote, err := everyKey(t).Convert(t.TempDir())
	if err != nil || strings.Join(wrote.Flags, " ") != "--metrics-listen :6178 --metrics-path /metrics --log-file /home/me/logs/gickup.log --log-max-age 7d --log-time-format 2006-01-02 15:04:05" || len(wrote.Secrets) < 20 {
		t.Errorf("%+v, %v", wrote, err)
	}
}

// asJSON writes policies with the secrets that they hold in clear.
func asJSON(t *testing.T, policies []v1alpha1.Policy) []byte {
	t.Helper()
	type clear struct {
		Policy  v1alpha1.Policy
		Secrets []string
	}
	var all []clear
	for _, p := range policies {
		all = append(all, clear{p, secretsOf(reflect.ValueOf(p))})
	}
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func secretsOf(v reflect.Value) []string {
	var all []string
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			all = secretsOf(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, secretsOf(v.Index(i))...)
		}
	case reflect.Struct:
		if s, ok := v.Interface().(v1alpha1.Secret); ok {
			return []string{s.Value}
		}
		for i := range v.NumField() {
			all = append(all, secretsOf(v.Field(i))...)
		}
	}
	return all
}

// reveal puts secrets from files below dir back to where they were.
func reveal(t *testing.T, v reflect.Value, dir string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			reveal(t, v.Elem(), dir)
		}
	case reflect.Slice:
		for i := range v.Len() {
			reveal(t, v.Index(i), dir)
		}
	case reflect.Struct:
		if s, ok := v.Addr().Interface().(*v1alpha1.Secret); ok {
			if strings.HasPrefix(s.File, dir) {
				data, err := os.ReadFile(s.File)
				if err != nil {
					t.Fatal(err)
				}
				*s = v1alpha1.Secret{Value: strings.TrimSuffix(string(data), "\n")}
			}
			return
		}
		for i := range v.NumField() {
			reveal(t, v.Field(i), dir)
		}
	}
}
