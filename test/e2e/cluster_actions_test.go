//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// actionsImage has bash, and no kando: what phases put out is echoed.
const actionsImage = "lab.local/mariadb:10.11"

// theatre is a cluster with Backstay on it, an application that Blueprints work on, and the definitions of ActionSets.
type theatre struct {
	*installed
	ns string // of the application: Deployment db, with the claim data at /data
}

// newTheatre makes the application anew.
func newTheatre(t *testing.T, ns string) *theatre {
	t.Helper()
	c := startCluster(t, "backstay")
	definitions, err := os.ReadFile("../../deploy/kanister/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.kubectlWith(t, string(definitions), "apply", "--server-side", "--force-conflicts", "-f", "-")
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=240s", "crd/actionsets.cr.kanister.io", "crd/blueprints.cr.kanister.io")
	for _, o := range c.list(t, "actionsets.cr.kanister.io", "--all-namespaces") { // of a test that failed: they would hold their namespace
		c.try(t, "", "-n", o.Metadata.Namespace, "patch", "actionsets.cr.kanister.io", o.Metadata.Name, "--type=merge", "-p", noFinalizers)
	}
	th := &theatre{installed: install(t, c, t.TempDir()), ns: ns}
	th.stage(t, ns)
	return th
}

// stage makes the application in a namespace.
func (c *theatre) stage(t *testing.T, ns string) {
	t.Helper()
	c.newNamespace(t, ns)
	c.apply(t, ns, `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: csi-hostpath-sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: `+actionsImage+`
          command: [bash, -c, "trap exit TERM; sleep infinity & wait"]
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`)
	c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=240s", "deployment/db")
}

// read is what a file of the application's volume has.
func (c *theatre) read(t *testing.T, ns, file string) string {
	t.Helper()
	c.kubectl(t, "-n", ns, "rollout", "status", "--timeout=240s", "deployment/db")
	return c.exec(t, ns, "deployment/db", "bash", "-c", "cat /data/"+file+" 2>/dev/null || true")
}

// withData is a podOverride that mounts the application's volume.
const withData = `{containers: [{name: container, volumeMounts: [{name: data, mountPath: /data}]}], volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]}`

// deferredInside is deferred in the application's own container.
const deferredInside = `
    deferPhase:
      func: KubeExec
      name: deferred
      args:
        namespace: "{{ .Object.metadata.namespace }}"
        pod: "{{ index .Deployment.Pods 0 }}"
        command: [bash, -c, "echo once >> /data/deferred-{{ .Options.set }}; sleep {{ .Options.linger }}"]
`

// deferred is a deferPhase that leaves a line for each time that it runs.
const deferred = `
    deferPhase:
      func: KubeTask
      name: deferred
      args:
        namespace: "{{ .Object.metadata.namespace }}"
        image: ` + actionsImage + `
        podOverride: ` + withData + `
        command: [bash, -c, "echo once >> /data/deferred-{{ .Options.set }}; sleep {{ .Options.linger }}"]
`

// actionSet makes an ActionSet of an action of a Blueprint on the application, whose deferPhase lingers for some seconds.
func (c *theatre) actionSet(t *testing.T, home, name, blueprint, action string, linger int, more string) {
	t.Helper()
	c.kubectlWith(t, fmt.Sprintf(`
apiVersion: cr.kanister.io/v1alpha1
kind: ActionSet
metadata: {name: %s}
spec:
  actions:
    - name: %s
      blueprint: %s
      object: {kind: Deployment, name: db, namespace: %s}
      options: {set: %[1]s, linger: "%[5]d"}
%[6]s`, name, action, blueprint, c.ns, linger, more), "-n", home, "create", "-f", "-")
}

// played is how an ActionSet stands.
type played struct {
	Metadata struct {
		UID        string   `json:"uid"`
		Finalizers []string `json:"finalizers"`
	} `json:"metadata"`
	Status struct {
		State   string `json:"state"`
		Actions []struct {
			Phases     []playedPhase `json:"phases"`
			DeferPhase playedPhase   `json:"deferPhase"`
			Artifacts  map[string]struct {
				KeyValue map[string]string `json:"keyValue"`
			} `json:"artifacts"`
		} `json:"actions"`
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
		Progress struct {
			PercentCompleted string `json:"percentCompleted"`
		} `json:"progress"`
	} `json:"status"`
}

type playedPhase struct {
	Name   string         `json:"name"`
	State  string         `json:"state"`
	Output map[string]any `json:"output"`
}

func (p played) final() bool { return p.Status.State == "complete" || p.Status.State == "failed" }

// phase is how a phase of the first action stands.
func (p played) phase(name string) string {
	for _, a := range p.Status.Actions {
		for _, f := range append(a.Phases, a.DeferPhase) {
			if f.Name == name {
				return f.State
			}
		}
	}
	return ""
}

func (p played) String() string {
	said := p.Status.State
	for _, a := range p.Status.Actions {
		for _, f := range append(a.Phases, a.DeferPhase) {
			said += fmt.Sprintf(" %s=%s", f.Name, f.State)
		}
	}
	return said + ": " + p.Status.Error.Message
}

func (c *theatre) standing(t *testing.T, home, name string) played {
	t.Helper()
	var p played
	decode(t, c.kubectl(t, "-n", home, "get", "actionsets.cr.kanister.io", name, "-o", "json"), &p)
	return p
}

// ended waits until an ActionSet has ended and was let go.
func (c *theatre) ended(t *testing.T, home, name string) played {
	t.Helper()
	var p played
	c.wait(t, "ActionSet "+name+" ends", 10*time.Minute, func() (bool, string) {
		p = c.standing(t, home, name)
		return p.final() && len(p.Metadata.Finalizers) == 0, p.String()
	})
	return p
}

// cleared waits until nothing is left that was made for phases, and no worker runs.
func (c *theatre) cleared(t *testing.T) {
	t.Helper()
	c.wait(t, "nothing of phases is left", 3*time.Minute, func() (bool, string) {
		var left []string
		for _, o := range c.list(t, "pods,secrets", "--all-namespaces", "-l", "backstay.io/actionset") {
			left = append(left, o.String())
		}
		return len(left) == 0, strings.Join(left, " ")
	})
}

// kinds is a Blueprint with a phase of each kind of function.
const kinds = `
apiVersion: cr.kanister.io/v1alpha1
kind: Blueprint
metadata: {name: kinds}
actions:
  backup:
    outputArtifacts:
      db: {keyValue: {who: "{{ .Phases.exec.Output.who }}", snapshot: "{{ .Phases.snapshot.Output.name }}"}}
    phases:
      - func: KubeExec
        name: exec
        args:
          namespace: "{{ .Deployment.Namespace }}"
          pod: "{{ index .Deployment.Pods 0 }}"
          container: db
          command: [bash, -c, "echo exec >> /data/ran; echo '###Phase-output###: {\"key\":\"who\",\"value\":\"exec\"}'"]
      - func: KubeExecAll
        name: all
        args:
          namespace: "{{ .Deployment.Namespace }}"
          pods: "{{ range .Deployment.Pods }} {{ . }}{{ end }}"
          containers: db
          command: [bash, -c, "echo all >> /data/ran"]
      - func: KubeTask
        name: task
        args:
          namespace: "{{ .Deployment.Namespace }}"
          image: ` + actionsImage + `
          podOverride: ` + withData + `
          command: [bash, -c, "echo task after {{ .Phases.exec.Output.who }} >> /data/ran"]
      - func: MultiContainerRun
        name: multi
        args:
          namespace: "{{ .Deployment.Namespace }}"
          sharedVolumeDir: /tmp
          backgroundImage: ` + actionsImage + `
          backgroundCommand: [bash, -c, "mkfifo /tmp/pipe; echo through > /tmp/pipe"]
          outputImage: ` + actionsImage + `
          outputCommand: [bash, -c, "until [ -p /tmp/pipe ]; do sleep 0.1; done; read -r line < /tmp/pipe; echo \"###Phase-output###: {\\\"key\\\":\\\"line\\\",\\\"value\\\":\\\"$line\\\"}\""]
      - func: ScaleWorkload
        name: down
        args: {namespace: "{{ .Deployment.Namespace }}", name: db, kind: deployment, replicas: 0}
      - func: PrepareData
        name: prepare
        args:
          namespace: "{{ .Deployment.Namespace }}"
          image: ` + actionsImage + `
          volumes: {data: /mnt}
          command: [bash, -c, "echo prepare with {{ .Phases.multi.Output.line }} >> /mnt/ran"]
      - func: CreateCSISnapshot
        name: snapshot
        args: {pvc: data, namespace: "{{ .Deployment.Namespace }}", snapshotClass: csi-hostpath-snapclass}
      - func: KubeOps
        name: made
        args:
          operation: create
          namespace: "{{ .Deployment.Namespace }}"
          spec: |
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: made}
            data: {by: "{{ .Phases.exec.Output.who }}"}
      - func: WaitV2
        name: waited
        args:
          timeout: 60s
          conditions:
            allOf:
              - condition: '{{ if eq .data.by "exec" }}true{{ else }}false{{ end }}'
                objectReference: {apiVersion: v1, resource: configmaps, name: made, namespace: "{{ .Deployment.Namespace }}"}
      - func: ScaleWorkload
        name: up
        args: {namespace: "{{ .Deployment.Namespace }}", name: db, kind: deployment, replicas: 1}
` + deferred + `
  delete:
    inputArtifactNames: [db]
    phases:
      - func: DeleteCSISnapshot
        name: gone
        args: {name: "{{ .ArtifactsIn.db.KeyValue.snapshot }}", namespace: "{{ .Deployment.Namespace }}"}
`

// TestClusterActionsOfEveryKind runs an ActionSet with a phase of each kind of function, and its delete action with what that made.
func TestClusterActionsOfEveryKind(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, kinds)
	c.actionSet(t, system, "first", "kinds", "backup", 0, "")
	p := c.ended(t, system, "first")
	if p.Status.State != "complete" || p.Status.Progress.PercentCompleted != "100" {
		t.Fatalf("%s, %s %%", p, p.Status.Progress.PercentCompleted)
	}
	if got, want := c.read(t, c.ns, "ran"), "exec\nall\ntask after exec\nprepare with through\n"; got != want {
		t.Errorf("phases left %q, want %q", got, want)
	}
	if got := c.read(t, c.ns, "deferred-first"); got != "once\n" {
		t.Errorf("the deferPhase left %q", got)
	}
	made := p.Status.Actions[0].Artifacts["db"].KeyValue
	if made["who"] != "exec" || made["snapshot"] == "" {
		t.Fatalf("artifacts %v", made)
	}
	snapshots := func() string { return c.kubectl(t, "-n", c.ns, "get", "volumesnapshots", "-o", "name") }
	if !strings.Contains(snapshots(), made["snapshot"]) {
		t.Errorf("no snapshot %s: %s", made["snapshot"], snapshots())
	}
	c.wait(t, "an event says so", time.Minute, func() (bool, string) { // a moment later
		events := c.kubectl(t, "-n", system, "get", "events", "--field-selector", "involvedObject.name=first", "-o", "jsonpath={.items[*].reason}")
		return strings.Contains(events, "Complete"), events
	})
	c.actionSet(t, system, "second", "kinds", "delete", 0, "      artifacts: {db: {keyValue: {snapshot: "+made["snapshot"]+"}}}\n")
	if p := c.ended(t, system, "second"); p.Status.State != "complete" || snapshots() != "" {
		t.Errorf("%s; snapshots left: %s", p, snapshots())
	}
	c.cleared(t)
}

// TestClusterActionsKilledInATask kills the worker in a phase, of which another takes up what runs by itself, and in one that runs in
// somebody else's container, which fails. What was to be done at the end is done once.
func TestClusterActionsKilledInATask(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, slow)
	for _, kind := range []string{"task", "exec"} {
		c.killed(t, kind, "worker", "inside")
	}
	c.cleared(t)
}

// slow has an action for each kind of phase: one of it that takes some seconds, one after it, and the deferPhase. Each has an artifact
// that is made before it ends.
var slow = func() string { //nolint:gochecknoglobals // a constant, but for how it is written
	text := "apiVersion: cr.kanister.io/v1alpha1\nkind: Blueprint\nmetadata: {name: slow}\nactions:\n"
	for kind, phase := range slowPhases {
		last := deferred
		if kind == "release" {
			last = deferredInside
		}
		text += "  " + kind + `:
    outputArtifacts:
      first: {keyValue: {made: "{{ .Phases.first.Output.made }}"}}
    phases:
      - func: KubeTask
        name: first
        args:
          namespace: "{{ .Deployment.Namespace }}"
          image: ` + actionsImage + `
          command: [bash, -c, "echo '###Phase-output###: {\"key\":\"made\",\"value\":\"first\"}'"]
      - name: slow
` + phase + `
      - func: KubeExec
        name: last
        args:
          namespace: "{{ .Deployment.Namespace }}"
          pod: "{{ index .Deployment.Pods 0 }}"
          command: [bash, -c, "echo last >> /data/last-{{ .Options.set }}"]
` + last
	}
	return text
}()

const inNamespace = `        args: {namespace: "{{ .Deployment.Namespace }}", `

// slowPhases take some seconds, by kind.
var slowPhases = map[string]string{ //nolint:gochecknoglobals // a constant, but for its type
	"exec":    "        func: KubeExec\n" + inNamespace + `pod: "{{ index .Deployment.Pods 0 }}", command: [bash, -c, "sleep 5"]}`,
	"all":     "        func: KubeExecAll\n" + inNamespace + `pods: "{{ index .Deployment.Pods 0 }}", containers: db, command: [bash, -c, "sleep 5"]}`,
	"task":    "        func: KubeTask\n" + inNamespace + `image: ` + actionsImage + `, command: [bash, -c, "sleep 8"]}`,
	"release": "        func: KubeTask\n" + inNamespace + `image: ` + actionsImage + `, command: [bash, -c, "sleep 1"]}`, // its deferPhase is a command
	"multi": "        func: MultiContainerRun\n" + inNamespace + `backgroundImage: ` + actionsImage + `, backgroundCommand: [sleep, "8"],
          outputImage: ` + actionsImage + `, outputCommand: [sleep, "8"]}`,
	"prepare": "        func: PrepareData\n" + inNamespace + `image: ` + actionsImage + `, volumes: {data: /mnt}, command: [bash, -c, "sleep 8"]}`,
	"scale":   "        func: ScaleWorkload\n" + inNamespace + `name: slow, kind: deployment, replicas: 1}`,
	"ops": "        func: KubeOps\n" + inNamespace + `operation: patch, objectReference: {apiVersion: v1, resource: configmaps, name: patched,
          namespace: "{{ .Deployment.Namespace }}"}, spec: "data: {by: \"{{ .Options.set }}\"}"}`,
	"wait": "        func: WaitV2\n" + `        args: {timeout: 120s, conditions: {anyOf: [{condition: '{{ if .data.now }}true{{ end }}',
          objectReference: {apiVersion: v1, resource: configmaps, name: awaited, namespace: "{{ .Deployment.Namespace }}"}}]}}`,
	"snapshot": "        func: CreateCSISnapshot\n" + inNamespace + `pvc: data, snapshotClass: csi-hostpath-snapclass, name: "of-{{ .Options.set }}"}`,
}

// slowed is what some of them work on, as it is before.
const slowed = `
apiVersion: v1
kind: ConfigMap
metadata: {name: patched}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: awaited}
data: {now: ""}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow}
spec:
  replicas: 0
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: slow
          image: ` + actionsImage + `
          command: [sleep, infinity]
          readinessProbe: {exec: {command: ["true"]}, initialDelaySeconds: 5}
`

// killed kills a part of Backstay while an ActionSet is in the slow phase of a kind, or at its boundary, and looks at the end of it.
func (c *theatre) killed(t *testing.T, kind, victim, when string) {
	t.Helper()
	name := kind + "-" + victim + "-" + when
	c.apply(t, c.ns, slowed)
	linger := 0
	if when == "deferred" {
		linger = 8
	}
	c.actionSet(t, system, name, "slow", kind, linger, "")
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		p := c.standing(t, system, name)
		at := p.phase("slow")
		if when == "inside" && at == "running" || when == "before" && p.phase("first") == "complete" || when == "after" && (at == "complete" || at == "failed") ||
			when == "deferred" && p.phase("deferred") == "running" || p.final() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: never seen %s: %s", name, when, p)
		}
	}
	if when == "deferred" { // it has done what it does, and lingers
		c.wait(t, "the deferPhase has begun", 3*time.Minute, func() (bool, string) { said := c.read(t, c.ns, "deferred-"+name); return said != "", said })
	}
	c.kubectl(t, "-n", system, "delete", "pods", "-l", "app.kubernetes.io/component="+victim, "--force", "--grace-period=0", "--wait=false")
	c.kubectl(t, "-n", c.ns, "patch", "configmap", "awaited", "--type=merge", "-p", `{"data":{"now":"yes"}}`)
	p := c.ended(t, system, name)
	t.Logf("%s: %s", name, p)
	if got := c.read(t, c.ns, "deferred-"+name); got != "once\n" {
		t.Errorf("%s: the deferPhase left %q", name, got)
	}
	if got := p.Status.Actions[0].Artifacts["first"].KeyValue["made"]; got != "first" {
		t.Errorf("%s: artifact %q", name, got)
	}
	if last := c.read(t, c.ns, "last-"+name); p.Status.State == "complete" != (last == "last\n") {
		t.Errorf("%s: it is %s, and the last phase left %q", name, p.Status.State, last)
	}
	if p.Status.State == "failed" && (kind != "exec" && kind != "all" && kind != "ops" || p.Status.Error.Message == "") {
		t.Errorf("%s: %s", name, p)
	}
}

// TestClusterActionsOfATenant: what a tenant's ActionSet asks for is done with the rights of its namespace.
func TestClusterActionsOfATenant(t *testing.T) {
	c := newTheatre(t, "acts")
	c.stage(t, "acts-tenant")
	c.account(t, "acts-tenant")
	c.apply(t, "acts", "{apiVersion: v1, kind: Secret, metadata: {name: theirs}, stringData: {key: the-others-secret}}")
	command := func(function, ns string) string {
		of := map[string]string{
			"KubeExec":      `pod: "{{ .Options.pod }}", command: [bash, -c, "echo tenant >> /data/ran"]`,
			"KubeTask":      "image: " + actionsImage + `, command: [bash, -c, "echo ran"]`,
			"ScaleWorkload": "kind: deployment, name: db, replicas: 0",
			"KubeOps":       `operation: create, spec: "{apiVersion: v1, kind: ConfigMap, metadata: {name: tenant}}"`,
		}
		return "{phases: [{func: " + function + ", name: it, args: {namespace: " + ns + ", " + of[function] + "}}]}"
	}
	text := "apiVersion: cr.kanister.io/v1alpha1\nkind: Blueprint\nmetadata: {name: reach}\nactions:\n"
	functions := []string{"KubeExec", "KubeTask", "ScaleWorkload", "KubeOps"}
	for _, f := range functions {
		text += "  theirs-" + strings.ToLower(f) + ": " + command(f, "acts") + "\n"
		text += "  own-" + strings.ToLower(f) + ": " + command(f, "acts-tenant") + "\n"
	}
	text += `  theirs-secret: {phases: [{func: KubeTask, name: it, objects: {s: {kind: Secret, name: theirs, namespace: acts}},
    args: {namespace: acts-tenant, image: ` + actionsImage + `, command: [echo, '{{ index .Phases.it.Secrets.s.Data "key" | toString }}']}}]}
`
	c.apply(t, "acts-tenant", text)
	before := c.state(t, "acts")
	set := func(action, pod, object string) played {
		t.Helper()
		c.kubectlWith(t, fmt.Sprintf(`{apiVersion: cr.kanister.io/v1alpha1, kind: ActionSet, metadata: {name: %[1]s}, spec: {actions: [
  {name: %[1]s, blueprint: reach, object: {kind: Namespace, name: %[3]s}, options: {pod: %[2]q}}]}}`, action, pod, object), "-n", "acts-tenant", "create", "-f", "-")
		return c.ended(t, "acts-tenant", action)
	}
	podOf := func(ns string) string {
		return c.kubectl(t, "-n", ns, "get", "pods", "-l", "app=db", "-o", "jsonpath={.items[0].metadata.name}")
	}
	for _, f := range functions {
		if p := set("theirs-"+strings.ToLower(f), podOf("acts"), "acts-tenant"); p.Status.State != "failed" || !strings.Contains(p.Status.Error.Message, "forbidden") {
			t.Errorf("%s in another namespace: %s", f, p)
		}
	}
	if p := set("theirs-secret", "", "acts-tenant"); p.Status.State != "failed" {
		t.Errorf("a Secret of another namespace: %s", p)
	}
	if now := c.state(t, "acts"); len(missing(now, before))+len(missing(before, now)) > 0 {
		t.Errorf("the other namespace changed: %v", append(missing(now, before), missing(before, now)...))
	}
	if got := c.read(t, "acts", "ran"); got != "" {
		t.Errorf("it ran: %q", got)
	}
	for _, f := range functions {
		if p := set("own-"+strings.ToLower(f), podOf("acts-tenant"), "acts-tenant"); p.Status.State != "complete" {
			t.Errorf("%s in its own namespace: %s", f, p)
		}
		if f == "ScaleWorkload" {
			c.kubectl(t, "-n", "acts-tenant", "scale", "deployment/db", "--replicas=1")
		}
	}
	c.cleared(t)
}

// TestClusterActionsDeleted: an ActionSet that is deleted while it runs ends, with its pods, once its deferPhase has run.
func TestClusterActionsDeleted(t *testing.T) {
	c := newTheatre(t, "acts")
	c.apply(t, system, strings.ReplaceAll(slow, "sleep 8", "sleep 600"))
	c.actionSet(t, system, "gone", "slow", "task", 0, "")
	c.wait(t, "it runs", 3*time.Minute, func() (bool, string) {
		p := c.standing(t, system, "gone")
		return p.phase("slow") == "running", p.String()
	})
	c.kubectl(t, "-n", system, "delete", "actionsets.cr.kanister.io", "gone", "--timeout=240s")
	if got := c.read(t, c.ns, "deferred-gone"); got != "once\n" {
		t.Errorf("the deferPhase left %q", got)
	}
	if last := c.read(t, c.ns, "last-gone"); last != "" {
		t.Errorf("the phase after it ran: %q", last)
	}
	c.cleared(t)
}
