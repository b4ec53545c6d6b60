package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/policy"
)

// FuzzLoad: hostile files give errors or objects, and objects can be written and read again.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: {name: a}\nspec:\n  sources: [{github: {token: {env: A}, include: ['a*']}}]\n  exports: [{local: {path: /b}, keep: 3}]\n  schedule: {cron: '@daily', jitter: 1m}\n",
		"apiVersion: backstay.io/v1alpha1\nkind: Policy\nmetadata: {name: a, namespace: b}\nspec:\n  location: v\n  sources: [{applications: {namespaces: ['a*'], selector: {matchExpressions: [{key: a, operator: Exists}]}, hooks: [{selector: {}, before: [x]}], volumes: {keepSnapshots: 1}}}]\n",
		"apiVersion: backstay.io/v1alpha1\nkind: Restore\nmetadata: {name: a}\nspec:\n  latest: {location: v, application: a, asOf: 2026-03-01T02:30:00Z}\n  transforms: [{objects: '*', patch: [{op: test, path: /a, value: '1'}]}]\n",
		"apiVersion: backstay.io/v1alpha1\nkind: Location\nmetadata: {name: a}\nspec: {url: /v, password: secret}\n",
		"---\n---\na: &a [*a, *a]\n<<: *a\n", "\ufeff{}", "a: b: c", "[[[[[[", "? [a]\n: b\n", "token: *secret", "- ~\n- !!binary x\n",
		"apiVersion: backstay.io/v1alpha1\nkind: Policy\nspec: {sources: [{git: {url: 'https://u:secret@h/x'}}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := loader{set: &Set{}, places: map[string]Problem{}}
		l.read("x.yaml", data)
		set, err := l.finish()
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Errorf("%v", err)
			}
			return
		}
		for _, p := range set.Policies {
			written, err := Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			again := loader{set: &Set{Locations: set.Locations}, places: map[string]Problem{}}
			again.read("again.yaml", written)
			if _, err := again.finish(); err != nil {
				t.Errorf("%s\nis not read again: %v", written, err)
			}
		}
	})
}

// FuzzGickup: what runs can be written as native files, which are read as they were written.
func FuzzGickup(f *testing.F) {
	if example, err := os.ReadFile(filepath.Join("testdata", "gickup", "every-key.yml")); err == nil {
		f.Add(example)
	}
	for _, seed := range []string{
		"source: {github: [{token: 0123, user: u, include: ['a/b', '*', ~]}]}\ndestination: {local: [{path: /b, keep: 2}]}\ncron: '@daily'\n",
		"---\n---\nsource: {any: [{url: 'https://u:p@h/x.git'}]}\n", "\ufeffsource: {}\n---\n~\n---\n{}\n", "source: &a {<<: *a}", "x-a: &a {wiki: yes}\n",
		"source: {gitlab: [{filter: {lastactivity: 1y2M3d4h, stars: '5'}, visibility: {repositories: x}}]}\ndestination: {gitea: [{mirror: {mirrorinterval: 8}}]}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &Gickup{env: Environment{Lookup: func(string) (string, bool) { return "", false }, Home: "/home/me"}, Files: []string{"conf.yml"}}
		g.read("conf.yml", data)
		if len(g.confs) == 0 {
			return
		}
		g.judge()
		g.Process()
		policies, err := g.Policies()
		if (err != nil) != (g.failed() != nil) {
			t.Errorf("%v, %v", err, g.Lint())
		}
		for _, p := range policies {
			if checkName(p.Name) != nil {
				t.Errorf("name %q", p.Name)
			}
			w := conversion{dir: "/new", contents: map[string][]byte{}}
			w.hide(reflect.ValueOf(&p).Elem(), p.Name)
			written, err := Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			d := newDecoder("new.yaml", strict{})
			documents, broken := parse("new.yaml", written)
			if broken != nil || len(documents) != 1 {
				t.Fatalf("%s\nis no YAML: %v", written, broken)
			}
			var again v1alpha1.Policy
			d.decode(documents[0].root, reflect.ValueOf(&again).Elem(), "", 0)
			if rewritten, err := Encode(again); err != nil || string(rewritten) != string(written) {
				t.Errorf("%s\nis read as\n%s", written, rewritten)
			}
		}
	})
}

func FuzzLastActivity(f *testing.F) {
	for _, seed := range []string{"1y2M3d4h30m", "30m", "90d", "", " 1y ", "-1d", "1e9y", "y", "999999h", "1y1y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		written, err := lastActivity(text)
		if err != nil || written == "" {
			return
		}
		if _, err := policy.ParseDuration(written); err != nil || strings.HasPrefix(written, "0") {
			t.Errorf("%q gives %q: %v", text, written, err)
		}
	})
}
