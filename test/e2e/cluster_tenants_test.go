//go:build e2e && long

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// tenantUser may edit namespace team-a, as RoleBindings to Kubernetes' own roles let people; tenantOwner has every right in it.
const (
	tenantUser  = "alice"
	tenantOwner = "system:serviceaccount:team-a:owner"
)

// tenants makes team-a, whose user may edit it, and team-b, of which no tenant may see anything. Both have the same application.
func (i *installed) tenants(t *testing.T) {
	t.Helper()
	i.apply(t, "default", manifest(t, "definition.yaml"))
	for _, ns := range []string{"team-a", "team-b"} {
		i.tally(t, ns, "csi-hostpath-sc")
	}
	i.account(t, "team-a")
	i.apply(t, "team-a", `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: alice}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: owner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: backstay}
subjects: [{kind: ServiceAccount, name: owner, namespace: team-a}]
`)
}

// as runs kubectl as somebody in a namespace; nobody is the administrator.
func (c *cluster) as(t *testing.T, who, namespace, input string, args ...string) result {
	t.Helper()
	if who != "" {
		args = append([]string{"--as", who}, args...)
	}
	return c.try(t, input, append([]string{"-n", namespace}, args...)...)
}

// makes has somebody make one of Backstay's objects, which must be allowed; what is wrong with it is Backstay's to say.
func (c *cluster) makes(t *testing.T, who, namespace, kind, name, spec string) {
	t.Helper()
	manifest := fmt.Sprintf("apiVersion: backstay.io/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)
	if r := c.as(t, who, namespace, manifest, "create", "-f", "-"); r.exit != 0 {
		t.Fatalf("%s may not make %s %s: %s", who, kind, name, r.stderr)
	}
}

// verdict is what all of Backstay's objects say of themselves.
type verdict struct {
	Phase      v1alpha1.Phase     `json:"phase"`
	Problems   []string           `json:"problems"`
	Conditions []metav1.Condition `json:"conditions"`
}

func (v verdict) String() string {
	said := string(v.Phase)
	for _, c := range v.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			said += " " + c.Reason + ": " + c.Message
		}
	}
	return said + "\n" + strings.Join(v.Problems, "\n")
}

// stands waits until an object has ended, or is stalled.
func (c *cluster) stands(t *testing.T, namespace, kind, name string) verdict {
	t.Helper()
	var o struct {
		Status verdict `json:"status"`
	}
	c.wait(t, kind+" "+namespace+"/"+name+" ends", 4*time.Minute, func() (bool, string) {
		o.Status = verdict{}
		decode(t, c.kubectl(t, "-n", namespace, "get", strings.ToLower(kind)+".backstay.io", name, "-o", "json"), &o)
		stalled := slices.ContainsFunc(o.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionStalled && c.Status == metav1.ConditionTrue
		})
		return stalled || o.Status.Phase.Final(), o.Status.String()
	})
	return o.Status
}

// wantRefused checks that an object was refused, and that it says why.
func (c *cluster) wantRefused(t *testing.T, namespace, kind, name string, says ...string) {
	t.Helper()
	v := c.stands(t, namespace, kind, name)
	if v.Phase != v1alpha1.PhaseFailed && (kind == "Backup" || kind == "Restore") {
		t.Errorf("%s: %s, want it to fail", name, v)
	}
	t.Logf("%s %s: %s", kind, name, v)
	for _, s := range says {
		if !strings.Contains(v.String(), s) {
			t.Errorf("%s: %s\nwhich does not say %q", name, v, s)
		}
	}
}

// TestClusterTenantsReachTheirOwnNamespace: what a tenant's objects ask for is done in their own namespace, and nowhere else.
func TestClusterTenantsReachTheirOwnNamespace(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	i.tenants(t)
	i.backstay(t, "backup", "app/team-b")                                   // the vault holds what another namespace has
	i.location(t, "team-a", "own")                                          // the same vault: whoever knows its password sees all of it
	c.kubectl(t, "delete", "clusterrolebinding", "backstay-worker-restore") // tenants need no more than the worker's smaller role
	theirs := func() []string { return append(i.state(t, "team-b"), i.state(t, "backstay-system")...) }
	before, pods := theirs(), c.kubectl(t, "-n", "team-b", "get", "pods,pvc", "-o", "name")

	t.Run("backs up and restores", func(t *testing.T) {
		state := i.state(t, "team-a")
		i.makes(t, tenantUser, "team-a", "Backup", "mine", "{location: own, application: {}}")
		if v := i.stands(t, "team-a", "Backup", "mine"); v.Phase != v1alpha1.PhaseComplete {
			t.Fatal(v)
		}
		if r := i.as(t, tenantUser, "team-a", "", "delete", "configmap/settings", "deployment/counter", "pvc/a", "pvc/b"); r.exit != 0 {
			t.Fatal(r.stderr)
		}
		i.makes(t, tenantUser, "team-a", "Restore", "mine", "{latest: {location: own, application: team-a}}")
		if v := i.stands(t, "team-a", "Restore", "mine"); v.Phase != v1alpha1.PhaseComplete {
			t.Fatal(v)
		}
		i.kubectl(t, "-n", "team-a", "rollout", "status", "--timeout=60s", "deployment/counter")
		if lost := missing(i.state(t, "team-a"), state); len(lost) > 0 {
			t.Errorf("not as it was: %s", strings.Join(lost, "\n"))
		}
		if first, _ := i.countersFound(t, "team-a"); first.Count == 0 {
			t.Error("the volumes came back empty")
		}
	})

	t.Run("names no other namespace", func(t *testing.T) {
		point := i.kubectl(t, "-n", "team-a", "get", "restorepoints.backstay.io", "-l", "backstay.io/application=team-b", "-o", "jsonpath={.items[0].metadata.name}")
		own := i.kubectl(t, "-n", "team-a", "get", "restorepoints.backstay.io", "-l", "backstay.io/application=team-a", "-o", "jsonpath={.items[0].metadata.name}")
		refused := []struct{ kind, name, spec, says string }{
			{"Backup", "named", "{location: own, application: {namespaces: [team-b]}}", "namespace team-b"},
			{"Backup", "named-too", "{location: own, application: {name: all, namespaces: [team-a, team-b]}}", "namespace team-b"},
			{"Backup", "glob", `{location: own, application: {namespaces: ["team-*"]}}`, "namespace team-*"},
			{"Backup", "selected", "{location: own, application: {namespaceSelector: {}}}", "namespaceSelector"},
			{"Policy", "named", "{location: own, sources: [{applications: {namespaces: [team-b]}}]}", "namespace team-b"},
			{"Policy", "glob", `{location: own, sources: [{applications: {namespaces: ["*"]}}]}`, "namespace *"},
			{"Policy", "selected", "{location: own, sources: [{applications: {namespaceSelector: {matchLabels: {a: b}}}}]}", "namespaceSelector"},
			{"Restore", "mapped", "{restorePoint: " + own + ", namespaces: {team-a: team-b}}", "team-b"},
			{"Restore", "theirs", "{restorePoint: " + point + "}", "team-b"},
			{"Restore", "their-data", "{restorePoint: " + point + ", only: data}", "team-b"},
			{"Restore", "of-the-cluster", "{restorePoint: " + own + ", clusterObjects: true}", "clusterObjects"},
		}
		for _, r := range refused {
			i.makes(t, tenantUser, "team-a", r.kind, r.name, r.spec)
		}
		for _, r := range refused {
			i.wantRefused(t, "team-a", r.kind, r.name, "Denied", r.says)
		}
		i.makes(t, tenantUser, "team-a", "Restore", "moved", "{restorePoint: "+own+`, existing: replace,
  transforms: [{objects: configmap/settings, patch: [{op: replace, path: /metadata/namespace, value: '"team-b"'}]}]}`)
		if v := i.stands(t, "team-a", "Restore", "moved"); v.Phase == v1alpha1.PhaseComplete || !strings.Contains(v.String(), "team-b") {
			t.Errorf("an object that a transform moves: %s", v)
		}
	})

	t.Run("names no location of another namespace", func(t *testing.T) {
		i.makes(t, tenantUser, "team-a", "Backup", "main", "{location: main, application: {}}")
		i.makes(t, tenantUser, "team-a", "Restore", "main", "{latest: {location: main, application: team-a}}")
		i.makes(t, tenantOwner, "team-a", "RestorePoint", "forged", // nobody else may
			"{location: main, point: \"0123\", cluster: c, application: team-b, time: 2026-01-01T00:00:00Z, state: complete, bytes: 1}")
		i.makes(t, tenantUser, "team-a", "Restore", "forged", "{restorePoint: forged}")
		i.wantRefused(t, "team-a", "Restore", "forged", "location team-a/main")
		i.wantRefused(t, "team-a", "Backup", "main", "no location main in namespace team-a")
		i.wantRefused(t, "team-a", "Restore", "main", "no location main in namespace team-a")
	})

	t.Run("statuses that lie", func(t *testing.T) {
		volume := i.kubectl(t, "-n", "team-b", "get", "pvc/a", "-o", "jsonpath={.spec.volumeName}")
		lie := func(kind, name, status string) {
			t.Helper()
			r := i.as(t, tenantOwner, "team-a", "", "patch", strings.ToLower(kind)+".backstay.io", name, "--subresource=status", "--type=merge", "-p", `{"status":`+status+`}`)
			if r.exit != 0 {
				t.Fatal(r.stderr)
			}
		}
		now := metav1.NowMicro().UTC().Format(metav1.RFC3339Micro)
		theirs := `{"namespace":"team-b","claim":"a","part":"volumes/team-b/a","method":"live","newVolume":"` + volume + `","oldVolume":"` + volume + `"}`
		i.makes(t, tenantOwner, "team-a", "Backup", "liar", "{location: own, application: {}}")
		lie("Backup", "liar", `{"instant":{"begun":"`+now+`","released":"`+now+`","versioned":"`+now+`"},"volumes":[`+theirs+`]}`)
		i.makes(t, tenantOwner, "team-a", "Restore", "liar", "{latest: {location: own, application: team-a}, only: data}")
		lie("Restore", "liar", `{"volumes":[`+theirs+`]}`)
		i.wantRefused(t, "team-a", "Backup", "liar", "Denied", "team-b/a")
		i.wantRefused(t, "team-a", "Restore", "liar", "Denied", "team-b/a")
		i.makes(t, tenantOwner, "team-a", "Restore", "undo", "{undo: liar}")
		i.wantRefused(t, "team-a", "Restore", "undo", "Denied", "team-b/a")

		i.makes(t, tenantOwner, "team-a", "Restore", "thief", "{latest: {location: own, application: team-a}, only: data}")
		lie("Restore", "thief", `{"volumes":[`+strings.ReplaceAll(theirs, "team-b", "team-a")+`]}`)
		i.wantRefused(t, "team-a", "Restore", "thief", volume)
		i.kubectl(t, "-n", "team-a", "rollout", "status", "--timeout=60s", "deployment/counter")
	})

	t.Run("credentials of Backstay's own pods", func(t *testing.T) {
		i.makes(t, tenantUser, "team-a", "Location", "ambient", "{url: '"+i.url+"', password: {secretKeyRef: {name: vault, key: password}}}")
		i.wantRefused(t, "team-a", "Location", "ambient", "Denied", "it brings none")
		i.kubectl(t, "-n", "team-a", "delete", "location.backstay.io", "ambient")
	})

	t.Run("a service account without rights", func(t *testing.T) {
		i.newNamespace(t, "team-c")
		i.location(t, "team-c", "own")
		i.makes(t, "", "team-c", "Backup", "early", "{location: own, application: {}}")
		i.wantRefused(t, "team-c", "Backup", "early", "system:serviceaccount:team-c:backstay")
		i.makes(t, "", "team-c", "Backup", "foreign", `{location: own, serviceAccountName: backstay, application: {namespaces: [team-c]}}`)
		i.wantRefused(t, "team-c", "Backup", "foreign", "system:serviceaccount:team-c:backstay")
		r := i.as(t, "", "team-c", "apiVersion: backstay.io/v1alpha1\nkind: Backup\nmetadata: {name: sly}\nspec: {location: own, application: {}, serviceAccountName: 'x:system:serviceaccount:team-b:backstay'}\n",
			"create", "-f", "-")
		if r.exit == 0 || !strings.Contains(r.stderr, "serviceAccountName") {
			t.Errorf("a service account's name that is none: exit %d, %s", r.exit, r.stderr)
		}
	})

	if now := theirs(); !slices.Equal(now, before) {
		t.Errorf("others' objects changed:\n%s", strings.Join(append(missing(now, before), missing(before, now)...), "\n"))
	}
	if now := c.kubectl(t, "-n", "team-b", "get", "pods,pvc", "-o", "name"); now != pods {
		t.Errorf("others' pods or claims changed: %s, were %s", now, pods)
	}
	c.settled(t)
	c.noLeftovers(t)
}

// TestClusterTenantsSecretsStay searches everything on the cluster for what opens a location.
func TestClusterTenantsSecretsStay(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	i.tenants(t)
	i.location(t, "team-a", "own")
	secrets := []string{vaultPassword}
	for _, pair := range i.env {
		if name, value, _ := strings.Cut(pair, "="); name == "AWS_SECRET_ACCESS_KEY" {
			secrets = append(secrets, value)
		}
	}
	kinds := strings.Join(strings.Fields(c.kubectl(t, "api-resources", "--verbs=list", "-o", "name")), ",")
	allowed := []string{"backstay-system/secret/vault", "team-a/secret/vault"}
	tasks := map[string]bool{}
	look := func() {
		t.Helper()
		for _, holder := range holders(t, c.try(t, "", "get", kinds, "-A", "-o", "json").stdout, secrets) {
			if strings.HasPrefix(holder, "backstay-system/secret/backstay-") {
				tasks[holder] = true
			} else if !slices.Contains(allowed, holder) {
				t.Errorf("%s holds a location's secret", holder)
			}
		}
		logs := c.try(t, "", "-n", system, "logs", "-l", "app.kubernetes.io/name=backstay", "--tail=-1", "--prefix", "--max-log-requests=50").stdout
		if holds(logs, secrets) {
			t.Error("a secret stands in the logs")
		}
	}
	until := func(namespace, kind, name string) {
		t.Helper()
		c.wait(t, kind+" "+name+" ends", 4*time.Minute, func() (bool, string) {
			look()
			phase := c.kubectl(t, "-n", namespace, "get", kind+".backstay.io", name, "-o", "jsonpath={.status.phase}")
			return v1alpha1.Phase(phase).Final(), phase
		})
		if v := c.stands(t, namespace, kind, name); v.Phase != v1alpha1.PhaseComplete {
			t.Errorf("%s %s: %s", kind, name, v)
		}
	}
	c.storageFaults(t, "CreateSnapshot team-a/* unready 1s", "CreateVolumeGroupSnapshot team-a/* unready 1s")
	i.makes(t, tenantUser, "team-a", "Backup", "mine", "{location: own, application: {}}")
	until("team-a", "backup", "mine")
	i.makes(t, "", system, "Backup", "theirs", "{location: main, application: {namespaces: [team-b]}}")
	until(system, "backup", "theirs")
	i.makes(t, tenantUser, "team-a", "Restore", "mine", "{latest: {location: own, application: team-a}, only: data}")
	until("team-a", "restore", "mine")
	if len(tasks) == 0 {
		t.Error("no mover's task was ever seen: the search finds nothing")
	}
	c.settled(t)
	clear(tasks)
	look()
	if len(tasks) > 0 {
		t.Errorf("tasks of movers are left: %v", tasks)
	}
	if r := i.as(t, tenantUser, "team-a", "", "get", "secrets", "-n", system); r.exit == 0 {
		t.Error("a tenant reads Secrets of Backstay's namespace")
	}
	c.noLeftovers(t)
}

// holders are the objects of a list in which one of some secrets stands, as text or as base64.
func holders(t *testing.T, list string, secrets []string) []string {
	t.Helper()
	var objects struct {
		Items []json.RawMessage `json:"items"`
	}
	decode(t, list, &objects)
	var found []string
	for _, raw := range objects.Items {
		var o object
		var whole any
		decode(t, string(raw), &o)
		decode(t, string(raw), &whole)
		if holds(whole, secrets) {
			found = append(found, o.String())
		}
	}
	return found
}

func holds(value any, secrets []string) bool {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if holds(key, secrets) || holds(inner, secrets) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(inner any) bool { return holds(inner, secrets) })
	case string:
		decoded, err := base64.StdEncoding.DecodeString(v)
		return slices.ContainsFunc(secrets, func(s string) bool {
			return strings.Contains(v, s) || strings.Contains(v, base64.StdEncoding.EncodeToString([]byte(s))) || err == nil && strings.Contains(string(decoded), s)
		})
	}
	return false
}

// TestClusterTenantsHostileObjects backs up and restores objects that are as bad as the API server lets them be.
func TestClusterTenantsHostileObjects(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "hostile"
	c.newNamespace(t, ns)
	c.apply(t, "default", relics)
	defer c.kubectl(t, "delete", "crd", "relics.dead.backstay.io", "--timeout=60s")
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", "crd/relics.dead.backstay.io")
	create := func(manifest string) {
		t.Helper()
		c.kubectlWith(t, manifest, "-n", ns, "create", "-f", "-")
	}
	large := strings.Repeat("0123456789abcdef", 1<<16-1000)
	create(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"large"},"data":{"it":"` + large + `"}}`)
	create(`{"apiVersion":"dead.backstay.io/v1","kind":"Relic","metadata":{"name":"larger"},"it":"` + strings.Repeat("x", 1_400_000) + `"}`)
	const deep = 2000
	create(`{"apiVersion":"dead.backstay.io/v1","kind":"Relic","metadata":{"name":"deep"},"it":` + strings.Repeat(`{"a":[`, deep) + strings.Repeat(`]}`, deep) + `}`)
	create(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"binary","annotations":{"example.com/odd":"%2F..%00 \u0000 \u202e"}},"binaryData":{"it":"//79AMMo7aCA"}}`)
	create(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"odd:..:name"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`)
	create(`{"apiVersion":"dead.backstay.io/v1","kind":"Relic","metadata":{"name":"stuck","finalizers":["example.com/nobody"]}}`)
	defer c.try(t, "", "-n", ns, "patch", "relics.dead.backstay.io", "stuck", "--type=merge", "-p", noFinalizers)
	c.kubectl(t, "-n", ns, "delete", "relics.dead.backstay.io", "stuck", "--wait=false")
	for _, name := range []string{"hen", "egg"} {
		create(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"}}`)
	}
	for name, of := range map[string]string{"hen": "egg", "egg": "hen"} {
		uid := c.kubectl(t, "-n", ns, "get", "configmap", of, "-o", "jsonpath={.metadata.uid}")
		c.kubectl(t, "-n", ns, "patch", "configmap", name, "--type=merge", "-p",
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"`+of+`","uid":"`+uid+`","controller":true}]}}`)
	}
	if r := c.try(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"a%2fb"},"rules":[]}`, "-n", ns, "create", "-f", "-"); r.exit == 0 {
		t.Error("names may have % now: then that is to be tested, too")
	}

	everything := func() []string {
		return normalised(t, c.kubectl(t, "-n", ns, "get", "configmaps,roles,relics.dead.backstay.io", "-o", "json"))
	}
	before := everything()
	i.backstay(t, "backup", "app/"+ns)
	c.kubectl(t, "-n", ns, "patch", "relics.dead.backstay.io", "stuck", "--type=merge", "-p", noFinalizers)
	c.deleteNamespace(t, ns)
	r := i.run(t, "restore", "app/"+ns, "--yes")
	t.Logf("restore: exit %d\n%s", r.exit, r.stderr)
	after := everything()
	lost := slices.DeleteFunc(missing(after, before), func(line string) bool { return strings.Contains(line, "example.com/nobody") })
	for _, line := range lost {
		t.Errorf("not as it was: %.300s", line)
	}
	if r.exit != 0 && r.exit != 3 {
		t.Errorf("exit %d", r.exit)
	}
	c.settled(t)
	c.noLeftovers(t)
}

// TestClusterTenantsBackstayGoes deletes Backstay's namespace with everything in it, and then tenants' that hold its objects.
func TestClusterTenantsBackstayGoes(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	i.tenants(t)
	i.location(t, "team-a", "own")
	i.backstay(t, "backup", "app/team-b")
	i.makes(t, tenantUser, "team-a", "Backup", "mine", "{location: own, application: {}}")
	if v := i.stands(t, "team-a", "Backup", "mine"); v.Phase != v1alpha1.PhaseComplete {
		t.Fatal(v)
	}
	// One that is under way, for as long as it takes.
	c.storageFaults(t, "CreateSnapshot team-b/* unready 100s", "CreateVolumeGroupSnapshot team-b/* unready 100s")
	i.makes(t, "", system, "Backup", "cut-short", "{location: main, application: {namespaces: [team-b]}}")
	c.wait(t, "it is under way", time.Minute, func() (bool, string) {
		phase := c.kubectl(t, "-n", system, "get", "backup.backstay.io", "cut-short", "-o", "jsonpath={.status.phase}")
		return phase == string(v1alpha1.PhaseMoving), phase
	})
	begun := time.Now()
	c.kubectl(t, "delete", "namespace", system, "--timeout=200s")
	t.Logf("Backstay's namespace was gone after %v", time.Since(begun).Round(time.Second))
	c.kubectl(t, "delete", "namespace", "team-a", "--timeout=100s")
	points := i.fromVault(t, "points")
	for _, application := range []string{"team-a", "team-b"} {
		if !strings.Contains(points, application) {
			t.Errorf("the point of %s is gone: %s", application, points)
		}
	}
}
