package gitops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// lab is an API server that has Argo CD's kinds, as Argo CD defines them: Applications without a subresource for their status.
type lab struct {
	*testing.T
	client.WithWatch
	namespace string
}

func newLab(t *testing.T) lab {
	t.Helper()
	config := kubetest.Start(t)
	c, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := lab{t, c, kubetest.Namespace(t, config)}
	for _, kind := range []string{"Application", "AppProject", "ApplicationSet"} {
		l.define(kind)
	}
	return l
}

func (l lab) define(kind string) {
	l.Helper()
	plural := strings.ToLower(kind) + "s"
	err := l.Create(l.Context(), object(l.T, fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %s.argoproj.io},
		spec: {group: argoproj.io, scope: Namespaced, names: {kind: %s, plural: %s}, versions: [{name: v1alpha1, served: true, storage: true,
			schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`, plural, kind, plural)))
	if client.IgnoreAlreadyExists(err) != nil {
		l.Fatal(err)
	}
	all := &unstructured.UnstructuredList{}
	all.SetGroupVersionKind(argoKind(kind + "List"))
	for l.List(l.Context(), all) != nil { // until it is served
		time.Sleep(20 * time.Millisecond)
	}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// add makes an object of Argo CD in the lab's namespace, for which text says NS.
func (l lab) add(kind, name, text string) {
	l.Helper()
	u := object(l.T, strings.ReplaceAll(text, "NS", l.namespace))
	u.SetGroupVersionKind(argoKind(kind))
	u.SetName(name)
	if u.GetNamespace() == "" {
		u.SetNamespace(l.namespace)
	}
	if err := l.Create(l.Context(), u); err != nil {
		l.Fatal(err)
	}
}

func (l lab) read(kind, name string) *unstructured.Unstructured {
	l.Helper()
	u, err := get(l.Context(), l, kind, types.NamespacedName{Namespace: l.namespace, Name: name})
	if err != nil {
		l.Fatal(err)
	}
	return u
}

func (l lab) deployment(name string) Deployment {
	l.Helper()
	d, err := Open(l, "argocd/"+l.namespace+"/"+name)
	if err != nil {
		l.Fatal(err)
	}
	return d
}

// changing does something after each patch of an Application: what Argo CD's controller would do.
func (l lab) changing(after func(Application) bool) lab {
	inner := l.WithWatch
	l.WithWatch = interceptor.NewClient(inner, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			err := c.Patch(ctx, o, p, opts...)
			if u, is := o.(*unstructured.Unstructured); is && err == nil && u.GetKind() == "Application" {
				if now := u.DeepCopy(); after(Application{now}) {
					err = inner.Update(ctx, now)
				}
			}
			return err
		},
	})
	return l
}

// impatient gives up once it has read what it waits for.
type impatient struct {
	client.Client
	enough func(*unstructured.Unstructured) bool
	giveUp context.CancelFunc
}

// Get implements client.Reader.
func (c impatient) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	err := c.Client.Get(ctx, key, o, opts...)
	if u, is := o.(*unstructured.Unstructured); is && err == nil && c.enough(u) {
		c.giveUp()
	}
	return err
}

func spec(t *testing.T, u *unstructured.Unstructured) string {
	t.Helper()
	text, err := json.Marshal(u.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSuspensions(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "shops", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "bootstrap:argoproj.io/AppProject:NS/shops"}}, spec: {}}`)
	l.add("AppProject", "default", `{spec: {}}`)
	l.add("AppProject", "infra", `{spec: {}}`)
	l.add("Application", "shop", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "root:argoproj.io/Application:NS/shop"}}, spec: {project: shops}}`)
	// It has itself in git, and bootstrap.
	l.add("Application", "root", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "root:argoproj.io/Application:NS/root"}}, spec: {project: default}}`)
	l.add("Application", "bootstrap", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "root:argoproj.io/Application:NS/bootstrap"}}, spec: {project: infra}}`)
	// Made by a set, which another has in git; by a chart whose label means nothing; by one whose label means something.
	l.add("ApplicationSet", "teams", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "bootstrap:argoproj.io/ApplicationSet:NS/teams"}}}`)
	l.add("Application", "team", `{metadata: {ownerReferences: [{apiVersion: argoproj.io/v1alpha1, kind: ApplicationSet, name: teams, uid: u}]}, spec: {project: default}}`)
	l.add("Application", "charted", `{metadata: {labels: {app.kubernetes.io/instance: bootstrap}}, spec: {project: default}}`)
	l.add("Application", "labelled", `{metadata: {labels: {app.kubernetes.io/instance: lister}}, spec: {project: default}}`)
	l.add("Application", "lister", `{spec: {project: infra}, status: {resources: [{group: argoproj.io, kind: Application, namespace: NS, name: labelled}]}}`)
	l.add("Application", "orphan", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: "gone:argoproj.io/Application:NS/orphan"}}, spec: {project: default}}`)

	for name, want := range map[string]string{
		"shop":     "default [root], infra [bootstrap], shops [shop]",
		"team":     "default [root team], infra [bootstrap]",
		"charted":  "default [charted]",
		"labelled": "infra [lister], default [labelled]",
		"orphan":   "default [orphan]",
	} {
		all, err := l.deployment(name).Suspensions(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, s := range all {
			if s.Kind != "AppProject" || s.Namespace != l.namespace || s.Before {
				t.Errorf("%s: %+v", name, s)
			}
			got = append(got, fmt.Sprintf("%s %v", s.Name, s.Of))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: held off by %s, want %s", name, got, want)
		}
	}
	l.add("Application", "astray", `{spec: {project: nowhere}}`)
	if _, err := l.deployment("astray").Suspensions(t.Context()); !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("an AppProject that is not there: %v", err)
	}
}

func TestLabelOfOnesOwn(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "default", `{spec: {}}`)
	l.add("Application", "shop", `{metadata: {labels: {argo.example/app: all, app.kubernetes.io/instance: shop}}, spec: {project: default}}`)
	l.add("Application", "all", `{spec: {project: default}, status: {resources: [{group: argoproj.io, kind: Application, namespace: NS, name: shop}]}}`)
	err := l.Create(t.Context(), object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: argocd-cm, namespace: `+l.namespace+`},
		data: {application.instanceLabelKey: argo.example/app}}`))
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.deployment("shop").Suspensions(t.Context())
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Of, []string{"all", "shop"}) {
		t.Errorf("held off by %+v, %v; want all and shop", all, err)
	}
}

// Whatever an Application looks like, it is read without a panic, and an operation for it is one that Argo CD can read.
func FuzzApplication(f *testing.F) {
	for _, text := range []string{
		`{"spec":{"sources":[{"repoURL":"u"}],"syncPolicy":{"automated":{"prune":true},"syncOptions":["a"]}},"status":{"history":[{"revisions":["a"],"sources":[{}]}]}}`,
		`{"operation":{"sync":{"revision":"a"},"info":[{"name":"backstay.io/restore","value":"x"}]},"status":{"operationState":{"phase":"Running"},"conditions":[7,{}]}}`,
		`{"metadata":{"annotations":{"argocd.argoproj.io/tracking-id":"a_b:argoproj.io/Application:x/y"},"labels":{"app.kubernetes.io/instance":"_"}},"spec":[]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		u := &unstructured.Unstructured{}
		if json.Unmarshal(text, &u.Object) != nil || u.Object == nil {
			return
		}
		a := Application{u}
		s := a.State()
		operation, err := a.rollback(s.Live, "me")
		if err == nil && restoreOf(operation) != "me" {
			t.Errorf("operation %v", operation)
		}
		if err != nil && !errors.Is(err, fault.ErrInvalid) {
			t.Error(err)
		}
		a.Has(u)
		a.controlPlane()
		tracking(u, labelInstance)
		windows, _ := a.field("spec", "syncWindows").([]any)
		others, _ := divide(windows, "me")
		if w := window(others, []string{"a"}, "me"); !isWindow(w, []string{"a"}) {
			t.Errorf("window %v", w)
		}
	})
}

func TestApplicationsInAnyNamespace(t *testing.T) {
	l := newLab(t)
	teams := kubetest.Namespace(t, kubetest.Start(t))
	l.add("AppProject", "default", `{spec: {}}`)
	l.add("Application", "shop", fmt.Sprintf(`{metadata: {namespace: %s, annotations: {argocd.argoproj.io/tracking-id: "%s_all:argoproj.io/Application:%s/shop"}},
		spec: {project: default}, status: {controllerNamespace: NS}}`, teams, teams, teams))
	l.add("Application", "all", fmt.Sprintf(`{metadata: {namespace: %s, annotations: {argocd.argoproj.io/tracking-id: "root:argoproj.io/Application:%s/all"}},
		spec: {project: default}, status: {controllerNamespace: NS}}`, teams, teams))
	l.add("Application", "root", `{spec: {project: default}, status: {controllerNamespace: NS}}`)
	d, err := Open(l, "argocd/"+teams+"/shop")
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Suspensions(t.Context())
	if err != nil || len(all) != 1 || all[0].Namespace != l.namespace || !slices.Equal(all[0].Of, []string{"all", "root", "shop"}) {
		t.Errorf("held off by %+v, %v; want all, root and shop of the project in Argo CD's own namespace", all, err)
	}
}

func TestWindow(t *testing.T) {
	for name, before := range map[string]string{
		"no windows":     `{spec: {description: of shops}}`,
		"nothing at all": `{metadata: {labels: {a: b}}}`,
		"another's":      `{spec: {syncWindows: [{kind: allow, schedule: "0 1 * * *", duration: 1h, applications: ["*"]}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.add("AppProject", "shops", before)
			l.add("Application", "shop", `{spec: {project: shops}}`)
			was := spec(t, l.read("AppProject", "shops"))
			d, s := l.deployment("shop"), v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "shops", Of: []string{"root", "shop"}}
			do := func(what func(context.Context, v1alpha1.Suspension, string) error, by string) string {
				t.Helper()
				if err := what(t.Context(), s, by); err != nil {
					t.Fatal(err)
				}
				return l.read("AppProject", "shops").GetResourceVersion()
			}
			if once := do(d.Suspend, "one"); do(d.Suspend, "one") != once {
				t.Error("what is held off already is written again")
			}
			do(d.Suspend, "two")
			windows, _ := field(l.read("AppProject", "shops").Object, "spec", "syncWindows").([]any)
			if len(windows) < 2 {
				t.Fatalf("windows %v", windows)
			}
			ours := windows[len(windows)-2:]
			for i, by := range []string{"one", "two"} {
				w := asMap(ours[i])
				if w["kind"] != "deny" || w["schedule"] != "* * * * *" || w["manualSync"] != true || w["description"] != "backstay "+by || !isWindow(w, s.Of) {
					t.Errorf("window %v", w)
				}
			}
			if asMap(ours[0])["duration"] == asMap(ours[1])["duration"] {
				t.Error("two windows that differ in their description alone: Argo CD refuses such a project")
			}
			do(d.Resume, "one")
			do(d.Resume, "two")
			if once := do(d.Resume, "two"); do(d.Resume, "two") != once {
				t.Error("what is resumed already is written again")
			}
			if is := spec(t, l.read("AppProject", "shops")); is != was && (was != "null" || is != "{}") {
				t.Errorf("afterwards\n%s, was\n%s", is, was)
			}
		})
	}
}

func TestWindowThatSomebodyChanged(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "shops", `{spec: {syncWindows: [{kind: deny, schedule: "0 1 * * *", duration: 1h, applications: [shop], description: backstay one}]}}`)
	s := v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "shops", Of: []string{"shop"}}
	if err := l.deployment("shop").Suspend(t.Context(), s, "one"); err != nil {
		t.Fatal(err)
	}
	windows, _ := field(l.read("AppProject", "shops").Object, "spec", "syncWindows").([]any)
	if len(windows) != 1 || !isWindow(windows[0], s.Of) {
		t.Errorf("windows %v, want ours anew", windows)
	}
}

func TestProjectIsChangedMeanwhile(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "shops", `{spec: {}}`)
	inner, first := l.WithWatch, true
	l.WithWatch = interceptor.NewClient(inner, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if first {
				first = false
				other := l.read("AppProject", "shops")
				other.Object["spec"] = map[string]any{"syncWindows": []any{map[string]any{"kind": "allow"}}}
				if err := inner.Update(ctx, other); err != nil {
					return err
				}
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
	s := v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "shops", Of: []string{"shop"}}
	if err := l.deployment("shop").Suspend(t.Context(), s, "one"); err != nil {
		t.Fatal(err)
	}
	if windows, _ := field(l.read("AppProject", "shops").Object, "spec", "syncWindows").([]any); len(windows) != 2 {
		t.Errorf("windows %v, want the other's and ours", windows)
	}
}

func TestResumeOfWhatIsGone(t *testing.T) {
	l := newLab(t)
	s := v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "gone", Of: []string{"shop"}}
	if err := l.deployment("shop").Resume(t.Context(), s, "one"); err != nil {
		t.Errorf("neither project nor Application is there: %v", err)
	}
	if err := l.deployment("shop").Suspend(t.Context(), s, "one"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("suspend: %v", err)
	}
}

// ends plays Argo CD's controller: it ends what is Terminating, but not an automated sync while a window is there.
func ends(a Application) bool {
	state := asMap(a.field("status", "operationState"))
	if state["phase"] != "Terminating" || field(state, "operation", "initiatedBy", "automated") == true || a.object.Object["operation"] == nil {
		return false
	}
	state["phase"], state["message"] = "Failed", "Operation terminated"
	delete(a.object.Object, "operation")
	return true
}

func TestStop(t *testing.T) {
	const operation = `operation: {sync: {revision: bbb}, initiatedBy: {automated: true}}`
	for _, test := range []struct{ name, text, phase string }{
		{"none", `{spec: {}}`, ""},
		{"ended", `{status: {operationState: {phase: Succeeded, ` + operation + `}}}`, "Succeeded"},
		{"automated", `{` + operation + `, status: {operationState: {phase: Running, ` + operation + `}}}`, "Failed"},
		{"terminated already, and blocked by a window", `{` + operation + `, status: {operationState: {phase: Terminating, ` + operation + `}}}`, "Failed"},
		{"not begun", `{` + operation + `, status: {operationState: {phase: Succeeded, operation: {sync: {revision: aaa}}}}}`, "Failed"},
		{"not begun, the first", `{` + operation + `}`, "Failed"},
		{"asked for by nobody any more", `{status: {operationState: {phase: Running, ` + operation + `}}}`, "Failed"},
		{"for nobody", `{` + operation + `, status: {operationState: {phase: Running, ` + operation + `}}}`, "Failed"},
		{
			"our own",
			`{operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}, status: {operationState: {phase: Running,
				operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
			"Running",
		},
		{
			"another Restore's",
			`{operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: other}]}, status: {operationState: {phase: Running,
				operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: other}]}}}}`,
			"Failed",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			l.add("Application", "shop", test.text)
			// Once the controller writes its own state over the first attempt, as one does that had begun to sync.
			late := true
			l = l.changing(func(a Application) bool {
				if late {
					late = false
					state := asMap(a.field("status", "operationState"))
					asMap(state["operation"])["initiatedBy"] = map[string]any{"automated": true}
					return true
				}
				return ends(a)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			by := "me"
			if test.name == "for nobody" {
				by = ""
			}
			if err := l.deployment("shop").Stop(ctx, by); err != nil {
				t.Fatal(err)
			}
			a := Application{l.read("Application", "shop")}
			if got := a.text("status", "operationState", "phase"); got != test.phase {
				t.Errorf("phase %q, want %q", got, test.phase)
			}
			if test.phase == "Failed" && (a.object.Object["operation"] != nil || slices.Equal(a.Operation().Revisions, []string{"aaa"}) != (test.name == "another Restore's")) {
				t.Errorf("left is %v", a.object.Object)
			}
		})
	}
}

func TestStopIsBounded(t *testing.T) {
	l := newLab(t)
	l.add("Application", "shop", `{operation: {sync: {}}, status: {operationState: {phase: Running, operation: {sync: {}}}}}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	terminating := func(o *unstructured.Unstructured) bool {
		return text(o.Object, "status", "operationState", "phase") == "Terminating"
	}
	d := argoCD{impatient{l, terminating, cancel}, types.NamespacedName{Namespace: l.namespace, Name: "shop"}}
	err := d.Stop(ctx, "me") // with nobody who would end it
	if !errors.Is(err, fault.ErrUnavailable) || len(fault.Hints(err)) == 0 {
		t.Errorf("got %v, want unavailable and a hint", err)
	}
}

func TestResumeEndsWhatTheWindowBlocked(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "shops", `{spec: {}}`)
	l.add("Application", "shop", `{operation: {sync: {revision: bbb}, initiatedBy: {automated: true}}, status: {operationState: {phase: Running,
		operation: {sync: {revision: bbb}, initiatedBy: {automated: true}}, message: Sync operation blocked by sync window}}}`)
	l = l.changing(ends)
	s := v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "shops", Of: []string{"shop"}}
	if err := l.deployment("shop").Resume(t.Context(), s, "me"); err != nil {
		t.Fatal(err)
	}
	if o := (Application{l.read("Application", "shop")}).Operation(); o.Phase != "Failed" {
		t.Errorf("operation %+v would go on without the window", o)
	}
}

// While data comes back nobody syncs by hand either; Deploy ends what was asked for meanwhile, which Argo CD cannot end behind a closed window.
func TestStopKeepsSyncsByHandOff(t *testing.T) {
	l := newLab(t)
	l.add("AppProject", "shops", `{spec: {}}`)
	l.add("Application", "shop", `{spec: {project: shops, source: {}}}`)
	plain := l
	closed := func() bool {
		windows, _ := field(plain.read("AppProject", "shops").Object, "spec", "syncWindows").([]any)
		return len(windows) == 1 && asMap(windows[0])["manualSync"] == false
	}
	l = l.changing(func(a Application) bool {
		if closed() { // it looks, and can do nothing
			a.object.SetAnnotations(nil)
			return true
		}
		return ends(a)
	})
	d, s := l.deployment("shop"), v1alpha1.Suspension{Kind: "AppProject", Namespace: l.namespace, Name: "shops", Of: []string{"shop"}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		if err := errors.Join(d.Suspend(ctx, s, "me"), d.Stop(ctx, "me")); err != nil || !closed() {
			t.Fatalf("closed %v, %v", closed(), err)
		}
	}
	asked := l.read("Application", "shop")
	asked.Object["operation"] = map[string]any{"sync": map[string]any{"revision": "bbb"}, "initiatedBy": map[string]any{"username": "ada"}}
	if err := l.Update(ctx, asked); err != nil {
		t.Fatal(err)
	}
	if err := d.Deploy(ctx, []string{"aaa"}, "me"); err != nil || closed() {
		t.Fatalf("closed %v, %v", closed(), err)
	}
	if err := d.Stop(ctx, "me"); err != nil || closed() {
		t.Fatalf("a process that comes after: closed %v, %v", closed(), err)
	}
	if o := (Application{l.read("Application", "shop")}).Operation(); o.Restore != "me" || o.Ended() {
		t.Errorf("operation %+v", o)
	}
}

func TestDeployEndsWhatTheWindowBlocked(t *testing.T) {
	l := newLab(t)
	l.add("Application", "shop", `{spec: {source: {}}, operation: {sync: {revision: bbb}, initiatedBy: {automated: true}}}`)
	l = l.changing(ends)
	if err := l.deployment("shop").Deploy(t.Context(), []string{"aaa"}, "me"); err != nil {
		t.Fatal(err)
	}
	if o := (Application{l.read("Application", "shop")}).Operation(); o.Restore != "me" || !slices.Equal(o.Revisions, []string{"aaa"}) {
		t.Errorf("operation %+v", o)
	}
}

func TestDeploy(t *testing.T) {
	const ours = `initiatedBy: {username: backstay}, info: [{name: backstay.io/restore, value: me}],
		retry: {limit: 3, backoff: {duration: 5s, factor: 2, maxDuration: 30s}}`
	const ended = `operationState: {phase: Succeeded, operation: {sync: {revision: old}, info: [{name: backstay.io/restore, value: other}]}, syncResult: {revision: old}}`
	for _, test := range []struct {
		name, text, want string
		to               []string
		class            error
	}{
		{
			name: "by hand, without history", text: `{spec: {source: {repoURL: u, path: p, targetRevision: main}}}`, to: []string{"aaa"},
			want: `{sync: {revision: aaa, prune: false, source: {repoURL: u, path: p, targetRevision: main}, syncStrategy: {apply: {}}}, ` + ours + `}`,
		},
		{
			name: "automated, with options, of what the revision had then", to: []string{"aaa"},
			text: `{spec: {source: {repoURL: u, path: new}, syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true], retry: {refresh: true}}},
				status: {history: [{revision: aaa, source: {repoURL: u, path: older}}, {revision: aaa, source: {repoURL: u, path: old}}, {revision: bbb,
				source: {repoURL: u, path: new}}], ` + ended + `}}`,
			want: `{sync: {revision: aaa, prune: true, source: {repoURL: u, path: old}, syncOptions: [CreateNamespace=true], syncStrategy: {apply: {}}}, ` + ours + `}`,
		},
		{
			name: "several sources", to: []string{"aaa", "1.2.3"}, text: `{spec: {sources: [{repoURL: u}, {repoURL: c, chart: db}]}, status: {` + ended + `}}`,
			want: `{sync: {revisions: [aaa, 1.2.3], sources: [{repoURL: u}, {repoURL: c, chart: db}], prune: false, syncStrategy: {apply: {}}}, ` + ours + `}`,
		},
		{name: "too few", to: []string{"aaa"}, text: `{spec: {sources: [{repoURL: u}, {repoURL: c}]}}`, class: fault.ErrInvalid},
		{name: "none", text: `{spec: {source: {}}}`, class: fault.ErrInvalid},
		{
			name: "another is under way", to: []string{"aaa"}, want: `{sync: {revision: aaa, prune: false, source: {}, syncStrategy: {apply: {}}}, ` + ours + `}`,
			text: `{operation: {sync: {revision: bbb}}, spec: {source: {}}, status: {operationState: {phase: Running, operation: {sync: {revision: bbb}}}}}`,
		},
		{
			name: "ours is asked for", to: []string{"aaa"}, text: `{operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}`,
			want: `{sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}`,
		},
		{
			name: "ours has been", to: []string{"aaa"}, want: `null`,
			text: `{status: {operationState: {phase: Succeeded, operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
		},
		{
			name: "ours has failed", to: []string{"aaa"}, want: `{sync: {revision: aaa, prune: false, source: {}, syncStrategy: {apply: {}}}, ` + ours + `}`,
			text: `{spec: {source: {}}, status: {operationState: {phase: Failed, operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t).changing(ends)
			l.add("Application", "shop", test.text)
			before := l.read("Application", "shop")
			err := l.deployment("shop").Deploy(t.Context(), test.to, "me")
			if fault.Of(err) != fault.Of(test.class) {
				t.Fatalf("got %v, want %v", err, test.class)
			}
			after := l.read("Application", "shop")
			if test.class != nil {
				if before.GetResourceVersion() != after.GetResourceVersion() {
					t.Error("it was changed")
				}
				return
			}
			want, got := yamlJSON(t, test.want), asJSON(t, after.Object["operation"])
			if got != want {
				t.Errorf("operation\n%s, want\n%s", got, want)
			}
			if asMap(after.Object["operation"])["retry"] != nil && field(after.Object, "status", "operationState") != nil {
				t.Error("the state of the operation before is still there")
			}
			if spec(t, before) != spec(t, after) {
				t.Error("its spec was changed")
			}
			version := after.GetResourceVersion()
			if err := l.deployment("shop").Deploy(t.Context(), test.to, "me"); err != nil || l.read("Application", "shop").GetResourceVersion() != version {
				t.Errorf("asked for twice: %v", err)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func yamlJSON(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return asJSON(t, v)
}

func TestState(t *testing.T) {
	for _, test := range []struct {
		name, text, message             string
		synced, healthy, lost, headLost bool
	}{
		{name: "well", text: `{status: {sync: {status: Synced}, health: {status: Healthy}, operationState: {phase: Succeeded, message: synced}}}`, synced: true, healthy: true},
		{name: "in a hook", text: `{status: {sync: {status: OutOfSync}, health: {status: Healthy}, operationState: {phase: Running, message: waiting}}}`, healthy: true, message: "OutOfSync, Healthy; sync: waiting"},
		{
			name: "its repository is gone", lost: true, headLost: true, message: "Unknown, Healthy; ComparisonError: Failed to load target state: failed to list refs: repository not found", healthy: true,
			text: `{status: {sync: {status: Unknown}, health: {status: Healthy}, conditions: [{type: OrphanedResourceWarning, message: one},
				{type: ComparisonError, message: "Failed to load target state: failed to list refs: repository not found"}]}}`,
		},
		{
			name: "its manifests are wrong", message: "Unknown, Unknown; ComparisonError: kustomize build failed",
			text: `{status: {sync: {status: Unknown}, health: {status: Unknown}, conditions: [{type: ComparisonError, message: kustomize build failed}]}}`,
		},
		{
			name: "HEAD is gone, and what a Restore asked for is there", headLost: true, message: "Unknown, Healthy; ComparisonError: unable to resolve 'main' to a commit SHA", healthy: true,
			text: `{status: {sync: {status: Unknown}, health: {status: Healthy}, conditions: [{type: ComparisonError, message: "unable to resolve 'main' to a commit SHA"}],
				operationState: {phase: Succeeded, operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
		},
		{
			name: "a forge that is away", message: "Synced, Progressing; sync: failed to list refs: no route. Retrying attempt #1 at 11:50AM.", synced: true,
			text: `{status: {sync: {status: Synced}, health: {status: Progressing}, operationState: {phase: Running, message: "failed to list refs: no route. Retrying attempt #1 at 11:50AM.",
				operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
		},
		{
			name: "a revision that is gone", message: "sync: fatal: remote error: upload-pack: not our ref aaa (retried 3 times).", synced: true, healthy: true, lost: true,
			text: `{status: {sync: {status: Synced}, health: {status: Healthy}, operationState: {phase: Error, message: "fatal: remote error: upload-pack: not our ref aaa (retried 3 times).",
				operation: {sync: {revision: aaa}, info: [{name: backstay.io/restore, value: me}]}}}}`,
		},
		{
			name: "what a sync asked for was not there", message: "OutOfSync, Healthy; SyncError: Failed last sync attempt to [aaa]: unable to resolve 'aaa'", healthy: true, lost: true,
			text: `{status: {sync: {status: OutOfSync}, health: {status: Healthy}, conditions: [{type: SyncError, message: "Failed last sync attempt to [aaa]: unable to resolve 'aaa'"}]}}`,
		},
		{name: "hostile", text: `{status: {sync: 7, health: [], conditions: {}, operationState: [], history: 1}, spec: {sources: x}, operation: []}`, message: ", "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := application(t, test.text).State()
			if s.Synced != test.synced || s.Healthy != test.healthy || s.Lost != test.lost || s.HeadLost != test.headLost || s.Message != test.message {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestFind(t *testing.T) {
	l := newLab(t)
	other := kubetest.Namespace(t, kubetest.Start(t))
	l.add("Application", "shop-"+l.namespace, `{}`)
	l.add("Application", "both-"+l.namespace, `{}`)
	l.add("Application", "both-"+l.namespace, `{metadata: {namespace: `+other+`}}`)
	whole := "argocd/" + l.namespace + "/shop-" + l.namespace
	for name, want := range map[string]any{
		"shop-" + l.namespace:                whole,
		l.namespace + "/shop-" + l.namespace: whole,
		whole:                                whole,
		"flux/" + l.namespace + "/shop-" + l.namespace: fault.ErrNotFound,
		"nobody":                       fault.ErrNotFound,
		"both-" + l.namespace:          fault.ErrInvalid,
		other + "/both-" + l.namespace: "argocd/" + other + "/both-" + l.namespace,
		"":                             fault.ErrInvalid,
		"a//b":                         fault.ErrInvalid,
		"a/b/c/d":                      fault.ErrInvalid,
	} {
		got, err := Find(t.Context(), l, name)
		if class, is := want.(error); is && !errors.Is(err, class) || !is && (err != nil || got != want) {
			t.Errorf("%q: %q, %v; want %v", name, got, err, want)
		}
	}
}
