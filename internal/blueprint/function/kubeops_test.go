package function

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// ref refers to a ConfigMap, as published Blueprints do.
func (l *lab) ref(name string) map[string]any {
	return map[string]any{"apiVersion": "v1", "group": "", "resource": "configmaps", "name": name, "namespace": l.ns}
}

func (l *lab) configMap(name string) *corev1.ConfigMap {
	l.Helper()
	var m corev1.ConfigMap
	if err := l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.ns, Name: name}, &m); client.IgnoreNotFound(err) != nil {
		l.Fatal(err)
	}
	return &m
}

func TestKubeOps(t *testing.T) {
	l := newLab(t)
	create := map[string]any{
		"operation": "create", "namespace": l.ns,
		"spec": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: b-}\ndata: {x: \"1\"}\n",
	}
	want := map[string]any{"apiVersion": "v1", "group": "", "resource": "configmaps", "kind": "ConfigMap", "name": "b-abcde12345", "namespace": l.ns}
	for _, run := range []string{"first", "taken up"} {
		got, err := l.run(t.Context(), "KubeOps", l.call(create))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", run, got, err)
		}
	}
	other := l.call(create)
	other.ID = "another123"
	if _, err := l.run(t.Context(), "KubeOps", other); !errors.Is(err, fault.ErrExists) {
		t.Errorf("another phase: %v", err)
	}
	got, err := l.run(t.Context(), "KubeOps", l.call(map[string]any{
		"operation": "patch", "objectReference": l.ref("b-abcde12345"), "spec": "data: {z: \"2\", x: null}",
	}))
	if data := l.configMap("b-abcde12345").Data; err != nil || got["name"] != "b-abcde12345" || !maps.Equal(data, map[string]string{"z": "2"}) {
		t.Errorf("patch: %v, %v, %v", got, err, data)
	}
	for _, run := range []string{"first", "taken up"} {
		_, err := l.run(t.Context(), "KubeOps", l.call(map[string]any{"operation": "delete", "objectReference": l.ref("a")}))
		if err != nil || l.configMap("a").Name != "" {
			t.Errorf("delete, %s: %v", run, err)
		}
	}
}

func TestKubeOpsWaitsForDeletion(t *testing.T) {
	l := newLab(t)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: "held", Finalizers: []string{"test/held"}}}
	l.ok(l.cluster.Client.Create(t.Context(), held))
	ended := make(chan error, 1)
	go func() {
		_, err := l.run(t.Context(), "KubeOps", l.call(map[string]any{"operation": "delete", "objectReference": l.ref("held")}))
		ended <- err
	}()
	for l.configMap("held").DeletionTimestamp == nil {
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case err := <-ended:
		t.Fatalf("it is held, and gone: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	l.ok(l.cluster.Client.Patch(t.Context(), held, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))))
	l.ok(<-ended)
}

func TestKubeOpsRefuses(t *testing.T) {
	l := newLab(t)
	tests := []struct {
		name string
		args map[string]any
		want error
		says string
	}{
		{"another operation", map[string]any{"operation": "apply"}, fault.ErrInvalid, `"apply" is not create, patch or delete`},
		{"no spec", map[string]any{"operation": "create"}, fault.ErrInvalid, "it is needed to create"},
		{"an empty spec", map[string]any{"operation": "create", "spec": "---\n"}, fault.ErrInvalid, "it holds no object"},
		{"no object", map[string]any{"operation": "create", "spec": "a: 1"}, fault.ErrInvalid, "lacks apiVersion"},
		{"no YAML", map[string]any{"operation": "create", "spec": "a: [\t"}, fault.ErrInvalid, "argument spec"},
		{"an unknown kind", map[string]any{"operation": "create", "spec": "{apiVersion: a/v1, kind: B, metadata: {name: c}}"}, fault.ErrUnsupported, "no matches for a/v1"},
		{"no reference", map[string]any{"operation": "delete"}, fault.ErrInvalid, "it lacks a name"},
		{"an unknown resource", map[string]any{"operation": "delete", "objectReference": "{name: a, resource: bs, group: c}"}, fault.ErrUnsupported, "bs"},
		{"what is to be patched is not there", map[string]any{"operation": "patch", "spec": "a: b", "objectReference": l.ref("none")}, fault.ErrNotFound, `"none"`},
		{"no patch", map[string]any{"operation": "patch", "spec": "a: [", "objectReference": l.ref("none")}, fault.ErrInvalid, "argument spec"},
		{"too many", map[string]any{"operation": "create", "namespace": l.ns, "spec": many()}, fault.ErrInvalid, "more than 100"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := l.run(t.Context(), "KubeOps", l.call(test.args))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %v: %s", err, test.want, test.says)
			}
		})
	}
}

// many is one object more than a phase may create.
func many() string {
	return strings.Repeat("{apiVersion: v1, kind: ConfigMap, metadata: {name: same}}\n---\n", mostObjects+1)
}

func TestWait(t *testing.T) {
	l := newLab(t)
	l.ok(l.cluster.Client.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: "web"},
		Data:       map[string]string{"phase": "Bound", "count": "3", "want": "3", "evil": `x" "x") .Secrets }}{{ fail "x"`, "quote": `a"b\`},
	}))
	on := func(text string) any {
		return map[string]any{"condition": text, "objectReference": map[string]any{"apiVersion": "v1", "resource": "configmaps", "name": "{{ .Options.name }}", "namespace": l.ns}}
	}
	yes, no := on(`{{ if eq "{ $.data.phase }" "Bound" }}true{{ end }}`), on(`{{ if eq "{$.data.phase}" "Lost" }}true{{ else }}false{{ end }}`)
	tests := []struct {
		name, function string
		conditions     any
		met            bool
		says           string
	}{
		{"a path", "Wait", map[string]any{"allOf": []any{yes}}, true, ""},
		{"two numbers", "Wait", map[string]any{"anyOf": []any{on(`{{ if eq {$.data.count} {$.data.want} }} true {{ end }}`)}}, true, ""},
		{"all", "Wait", map[string]any{"allOf": []any{yes, no}}, false, "did not hold within 1m"},
		{"one", "Wait", map[string]any{"anyOf": []any{no, yes}}, true, ""},
		{"none", "Wait", map[string]any{"anyOf": []any{no}}, false, "did not hold"},
		{"a value with quotes", "Wait", map[string]any{"allOf": []any{on("{{ if eq \"{$.data.quote}\" `a\"b\\` }}true{{ end }}")}}, true, ""},
		{"a value that is a template", "Wait", map[string]any{"allOf": []any{on(`{{ if eq "{$.data.evil}" "x" }}true{{ end }}`)}}, false, "its value cannot stand in a template"},
		{"a path that is not there", "Wait", map[string]any{"allOf": []any{on(`{{ if eq "{$.data.none}" "x" }}true{{ end }}`)}}, false, "none is not found"},
		{"fields", "WaitV2", map[string]any{"allOf": []any{on(`{{ $all := false }}{{ range $k, $v := $.data }}{{ if eq $k "phase" }}{{ $all = eq $v "Bound" }}{{ end }}{{ end }}{{ $all }}`)}}, true, ""},
		{"fields that differ", "WaitV2", map[string]any{"allOf": []any{on(`{{ eq .data.phase "Lost" }}`)}}, false, "did not hold"},
		{"no template", "WaitV2", map[string]any{"allOf": []any{on(`{{ if }}`)}}, false, "missing value for if"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := l.call(map[string]any{"timeout": "1m", "conditions": test.conditions})
			c.Params.Options = map[string]string{"name": "web"}
			c.Render = func(text string, more map[string]any) (string, error) {
				l.later(10 * time.Second)
				return blueprint.Render(t.Context(), text, c.Params, more)
			}
			_, err := l.run(t.Context(), test.function, c)
			if test.met != (err == nil) || err != nil && (!errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
}

func TestWaitRefuses(t *testing.T) {
	l := newLab(t)
	for name, args := range map[string]map[string]any{
		"no time":       {"timeout": "soon", "conditions": map[string]any{"allOf": []any{map[string]any{}}}},
		"no conditions": {"timeout": "1m", "conditions": map[string]any{}},
		"a list":        {"timeout": "1m", "conditions": []any{}},
	} {
		if _, err := l.run(t.Context(), "Wait", l.call(args)); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
