package blueprint

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// known are functions as Blueprints call them.
func known() []Function {
	return []Function{
		{Name: "KubeExec", Required: []string{"namespace", "pod", "command"}, Optional: []string{"container"}},
		{Name: "WaitV2", Required: []string{"timeout", "conditions"}, Raw: []string{"conditions"}},
	}
}

func readDocuments(t *testing.T, text string) *Documents {
	t.Helper()
	d, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseAndValidateWhatIsGood(t *testing.T) {
	text, err := os.ReadFile("testdata/gickup.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := readDocuments(t, string(text))
	if len(d.Blueprints) != 1 || len(d.Profiles) != 1 || len(d.ActionSets) != 1 || !reflect.DeepEqual(d.Others, []string{"ConfigMap other"}) {
		t.Fatalf("%+v", d)
	}
	if faults := d.Validate(known()); len(faults) > 0 {
		t.Error(errors.Join(faults...))
	}
	if b := d.Blueprints[0]; !reflect.DeepEqual(b.DeepCopy(), b) {
		t.Error("a copy is another Blueprint")
	}
	if s := d.ActionSets[0]; !reflect.DeepEqual(s.DeepCopy(), s) {
		t.Error("a copy is another ActionSet")
	}
	if p := d.Profiles[0]; !reflect.DeepEqual(p.DeepCopy(), p) {
		t.Error("a copy is another Profile")
	}
}

func TestCopiesShareNothing(t *testing.T) {
	set := &ActionSet{
		Spec: &ActionSetSpec{Actions: []ActionSpec{{
			Artifacts: map[string]Artifact{"a": {KeyValue: map[string]string{"k": "v"}}}, Options: map[string]string{"o": "1"},
			PodOverride: map[string]any{"list": []any{map[string]any{"deep": "1"}}}, Profile: &ObjectReference{Name: "p"},
		}}},
		Status: &ActionSetStatus{Actions: []ActionStatus{{Phases: []PhaseStatus{{Output: map[string]any{"o": "1"}}}}}},
	}
	c := set.DeepCopy()
	a := &c.Spec.Actions[0]
	a.Artifacts["a"].KeyValue["k"] = "w"
	a.Options["o"] = "2"
	a.PodOverride["list"].([]any)[0].(map[string]any)["deep"] = "2"
	a.Profile.Name = "q"
	c.Status.Actions[0].Phases[0].Output["o"] = "2"
	b := set.Spec.Actions[0]
	if b.Artifacts["a"].KeyValue["k"] != "v" || b.Options["o"] != "1" || b.Profile.Name != "p" ||
		b.PodOverride["list"].([]any)[0].(map[string]any)["deep"] != "1" || set.Status.Actions[0].Phases[0].Output["o"] != "1" {
		t.Errorf("a change of the copy shows in %+v", set)
	}
}

func TestFaults(t *testing.T) {
	const head = "apiVersion: cr.kanister.io/v1alpha1\nkind: Blueprint\nmetadata: {name: b}\n"
	phase := func(args string) string {
		return head + "actions: {backup: {phases: [{func: KubeExec, name: one, args: {namespace: n, pod: p, " + args + "}}]}}"
	}
	const exec = "{func: KubeExec, name: %, args: {namespace: n, pod: p, command: [x]}}"
	tests := []struct{ name, text, want string }{
		{"no actions", head, "it has no actions"},
		{"no phases", head + "actions: {backup: {}}", "action backup: it has no phases"},
		{"unknown field", head + "actions: {backup: {type: Deployment, phases: []}}", `unknown field "actions.backup.type"`},
		{"twice", head + "actions: {a: {phases: []}}\nactions: {a: {phases: []}}", `already set`},
		{"unknown function", head + "actions: {backup: {phases: [{func: kubeExec, name: one}]}}", `there is no function "kubeExec"`},
		{"missing argument", phase(""), "KubeExec needs argument command"},
		{"unknown argument", phase("command: [x], pods: y"), "KubeExec has no argument pods"},
		{"template", phase("command: [a, '{{ if }}']"), "argument command[1]: template: line 1: missing value for if"},
		{"unknown template function", phase("command: ['{{ env `HOME` }}']"), `function "env" not defined`},
		{"unknown parameter", phase("command: ['{{ .ArtifactsOut.x }}']"), ".ArtifactsOut.x: there is no ArtifactsOut in templates"},
		{"unknown field of one", phase("command: ['{{ .Deployment.Podz }}']"), "there is no Podz in .Deployment"},
		{"through $", phase("command: ['{{ range .Deployment.Pods }}{{ . }}{{ $.Deploy }}{{ end }}']"), "there is no Deploy in templates"},
		{"later phase", phase("command: ['{{ .Phases.two.Output.x }}']"), "no phase two runs before"},
		{"own output", phase("command: ['{{ .Phases.one.Output.x }}']"), "the phase has put out nothing yet"},
		{"no such object", phase("command: ['{{ .Phases.one.Secrets.x }}']"), "phase one has no Secret x among its objects"},
		{"no deferPhase", phase("command: ['{{ .DeferPhase.Output.x }}']"), "the action has no deferPhase"},
		{
			"same name", head + "actions: {backup: {phases: [" + strings.ReplaceAll(exec, "%", "one") + "," + strings.ReplaceAll(exec, "%", "one") + "]}}",
			"phase one: there are two of that name",
		},
		{"object", head + "actions: {backup: {phases: [{func: KubeExec, name: one, objects: {x: {kind: Pod, name: db}}}]}}", `object x: it is of kind "Pod"`},
		{"annotation", strings.Replace(phase("command: [x]"), "{name: b}", "{name: b, annotations: {backstay.io/repeat: two}}", 1), `there is no phase "two"`},
		{"deadline", strings.Replace(phase("command: [x]"), "{name: b}", "{name: b, annotations: {backstay.io/deadline: -1h}}", 1), "is no time to do anything"},
		{
			"ActionSet", "apiVersion: cr.kanister.io/v1alpha1\nkind: ActionSet\nmetadata: {name: s}\nspec: {actions: [{name: backup, object: {kind: Pod, name: p}}]}",
			"ActionSet s: action backup: object Pod p: it has no resource",
		},
		{"Profile", "apiVersion: cr.kanister.io/v1alpha1\nkind: Profile\nmetadata: {name: p}\nlocation: {type: ftp}", `there is no type of location "ftp"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := errors.Join(readDocuments(t, test.text).Validate(known())...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
	unknown := readDocuments(t, head+"actions: {backup: {phases: [{func: Other, name: one}]}}").Validate(known())
	if len(unknown) != 1 || fault.Of(unknown[0]).Reason != "Unsupported" {
		t.Errorf("an unknown function is %v", unknown)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]string{
		"no YAML":    "a: [",
		"no object":  "- 1",
		"wrong type": "apiVersion: cr.kanister.io/v1alpha1\nkind: Blueprint\nactions: 7",
		"aliases": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n" +
			"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]",
		"too long": strings.Repeat("# long\n", 1<<20),
		"too many": strings.Repeat("---\na: 1\n", 2000),
	}
	for name, text := range tests {
		if _, err := Parse(strings.NewReader(text)); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzBlueprint holds that no file makes Parse, Validate or Run panic, or go on for ever.
func FuzzBlueprint(f *testing.F) {
	good, err := os.ReadFile("testdata/gickup.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	const head = "apiVersion: cr.kanister.io/v1alpha1\nkind: Blueprint\nmetadata: {name: b}\nactions: {backup: {phases: [{func: Say, name: one, args: {a: "
	for _, bomb := range bombs() {
		if len(bomb) < 1000 {
			f.Add([]byte(head + "'" + strings.ReplaceAll(bomb, "'", "''") + "'}}]}}"))
		}
	}
	f.Add([]byte("---\n---\nkind: x\n--- \n"))
	f.Add([]byte(head + "[1, {b: [null, 2.5, true]}]}}], deferPhase: {}, outputArtifacts: {x: {kopiaSnapshot: '{{ . }}'}}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		s := newStage(t)
		_ = d.Validate(s.functions())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for _, b := range d.Blueprints {
			set := &ActionSet{Spec: &ActionSetSpec{}}
			for name := range b.Actions {
				set.Spec.Actions = append(set.Spec.Actions, ActionSpec{Name: name, Blueprint: "b"})
			}
			r := s.runner(func(error) {})
			r.Functions = r.Functions[:2] // those that end
			if err := r.Run(ctx, set, map[string]*Blueprint{"b": b}); err != nil || !set.Status.State.Final() {
				t.Fatalf("%v, %+v", err, set.Status)
			}
		}
	})
}
