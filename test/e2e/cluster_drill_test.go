//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
)

// web is beside the shop what would reach out of its namespace: a service on ports of the nodes, a route, a job by the clock, a network
// policy that lets everything through, and a pod that is ready in ${NAMESPACE} only where ${ONLY} is so. Its server answers /broken
// with 500.
const web = `
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data:
  server: |
    use IO::Socket::INET;
    my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!;
    while (my $c = $s->accept) {
      my $path = (split / /, scalar <$c>)[1];
      while (defined(my $line = <$c>)) { last if $line =~ /^\r?\n$/ }
      my $status = $path eq '/broken' ? '500 Internal Server Error' : '200 OK';
      print $c "HTTP/1.1 $status\r\nConnection: close\r\nContent-Length: 5\r\n\r\nshop\n";
      close $c;
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {argocd.argoproj.io/tracking-id: "shop:apps/Deployment:${NAMESPACE}/web"}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: lab.local/mariadb:10.11
        imagePullPolicy: Never
        command: [perl, /scripts/server]
        readinessProbe:
          exec: {command: [bash, -c, "! ${ONLY} || grep -qx ${NAMESPACE} /var/run/secrets/kubernetes.io/serviceaccount/namespace"]}
          periodSeconds: 1
        volumeMounts: [{name: scripts, mountPath: /scripts}]
      volumes: [{name: scripts, configMap: {name: web}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: shop.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: yearly}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: yearly, image: "lab.local/pause:1"}]}}}}
`

// drilled is an application with a point of it, and how the cluster is without a drill.
type drilled struct {
	*installed
	api       client.Client
	namespace string
	bucket    string // where the location's blobs are
	was       []string
}

// newDrilled puts the shop with its web on a cluster.
func newDrilled(t *testing.T, c *cluster, namespace string) *drilled {
	t.Helper()
	bucket := t.TempDir()
	d := &drilled{installed: install(t, c, bucket), api: c.connect(t).Client, namespace: namespace, bucket: bucket}
	d.shop(t, namespace, 100)
	d.serves(t, "false")
	d.dumps(t, "")
	d.backup(t)
	d.noLeftovers(t)
	return d
}

// dumps has the application's points hold a dump of its MariaDB, and of other databases.
func (d *drilled) dumps(t *testing.T, others string) {
	t.Helper()
	d.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: drilled}
spec:
  location: main
  suspend: true
  sources:
  - applications:
      namespaces: [`+d.namespace+`]
      databases:
      - {name: shop, engine: mysql, databases: [shop], pod: {selector: {matchLabels: {app: mariadb}}}}
`+others)
}

// backup makes a point of the application, and notes how the cluster is.
func (d *drilled) backup(t *testing.T) {
	t.Helper()
	d.backstay(t, "backup", "app/"+d.namespace, "--policy", "drilled")
	d.settled(t)
	d.was = d.everything(t)
}

// serves has the web be ready everywhere, or only where it is now.
func (d *drilled) serves(t *testing.T, only string) {
	t.Helper()
	d.apply(t, d.namespace, strings.NewReplacer("${NAMESPACE}", d.namespace, "${ONLY}", only).Replace(web))
	d.kubectl(t, "-n", d.namespace, "rollout", "status", "--timeout=240s", "deployment/web")
}

// everything is what a drill may not change: what the application has, at which version each object is, and of the cluster what there is.
// Objects that change by themselves, pods and the like, are not of it.
func (d *drilled) everything(t *testing.T) []string {
	t.Helper()
	const version = `{range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{"\n"}{end}`
	const name = `{range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}`
	objects := d.kubectl(t, "-n", d.namespace, "get", "-o", "jsonpath="+version,
		"deployments,statefulsets,services,ingresses,networkpolicies,cronjobs,configmaps,secrets,serviceaccounts,roles,rolebindings,"+
			"persistentvolumeclaims,widgets.shop.backstay.io")
	cluster := d.kubectl(t, "get", "-o", "jsonpath="+name,
		"namespaces,persistentvolumes,customresourcedefinitions,clusterroles,clusterrolebindings,storageclasses,priorityclasses,"+
			"validatingwebhookconfigurations,mutatingwebhookconfigurations,volumesnapshotcontents.snapshot.storage.k8s.io")
	lines := strings.Split(strings.TrimSpace(objects+"\n"+cluster), "\n")
	slices.Sort(lines)
	return lines
}

// make makes a Drill of the newest point and waits for its end.
func (d *drilled) make(t *testing.T, name string, spec v1alpha1.DrillSpec, during ...func(*v1alpha1.Drill)) *v1alpha1.Drill {
	t.Helper()
	spec.Latest = &v1alpha1.LatestPoint{Location: "main", Application: d.namespace}
	o := &v1alpha1.Drill{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}, Spec: spec}
	create(t, d.api, o)
	d.wait(t, "drill "+name+" ends", 10*time.Minute, func() (bool, string) {
		if err := d.api.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return false, err.Error()
		}
		for _, look := range during {
			look(o)
		}
		return o.Status.Phase.Final(), fmt.Sprintf("%s %q", o.Status.Phase, o.Status.Problems)
	})
	return o
}

// asItWas checks that a drill left nothing, and that nothing that is live was touched.
func (d *drilled) asItWas(t *testing.T) {
	t.Helper()
	d.settled(t)
	d.noLeftovers(t)
	now := d.everything(t)
	if more, fewer := missing(d.was, now), missing(now, d.was); len(more)+len(fewer) > 0 {
		t.Errorf("there is more:\n%s\nand less:\n%s", strings.Join(more, "\n"), strings.Join(fewer, "\n"))
	}
}

// proof is what the newest point's object says of it: Proven's status and message.
func (d *drilled) proof(t *testing.T, o *v1alpha1.Drill, want string) (message string) {
	t.Helper()
	d.wait(t, "the point says Proven="+want, 3*time.Minute, func() (bool, string) {
		said := d.kubectl(t, "-n", system, "get", "restorepoints.backstay.io", o.Status.RestorePoint, "-o",
			`jsonpath={.status.conditions[?(@.type=="Proven")].status} {.status.conditions[?(@.type=="Proven")].message}`)
		status, rest, _ := strings.Cut(said, " ")
		message = rest
		return status == want, said
	})
	return message
}

// fails makes a drill that must not prove the point, and checks that its cause is named everywhere.
func (d *drilled) fails(t *testing.T, name string, spec v1alpha1.DrillSpec, cause string, during ...func(*v1alpha1.Drill)) {
	t.Helper()
	o := d.make(t, name, spec, during...)
	pattern := regexp.MustCompile(cause)
	if o.Status.Phase != v1alpha1.PhaseIncomplete || !pattern.MatchString(strings.Join(o.Status.Problems, "\n")) {
		t.Fatalf("%s: problems %q, want %s; checks %+v", o.Status.Phase, o.Status.Problems, cause, o.Status.Checks)
	}
	if message := d.proof(t, o, "False"); !pattern.MatchString(message) {
		t.Errorf("the point says %q, want %s", message, cause)
	}
	d.wait(t, "an event says "+cause, time.Minute, func() (bool, string) { // a moment later
		events := d.kubectl(t, "-n", system, "get", "events", "--field-selector", "involvedObject.kind=RestorePoint,reason=NotProven", "-o",
			`jsonpath={range .items[*]}{.message}{"\n"}{end}`)
		return pattern.MatchString(events), events
	})
	d.asItWas(t)
}

// counts waits until the controller serves a line like that.
func (d *drilled) counts(t *testing.T, want string) {
	t.Helper()
	pattern := regexp.MustCompile(want)
	d.wait(t, "metrics have "+want, 3*time.Minute, func() (bool, string) {
		said := d.metrics(t)
		return pattern.MatchString(said), said
	})
}

func text(s string) *string { return &s }

func mariadb(query, want string) v1alpha1.ExecCheck {
	return v1alpha1.ExecCheck{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "mariadb"}}, Command: []string{"mariadb", "-NBe", query}, Want: text(want),
	}
}

// good asks what is so.
func (d *drilled) good() v1alpha1.DrillSpec {
	return v1alpha1.DrillSpec{DrillChecks: v1alpha1.DrillChecks{
		HTTP: []v1alpha1.HTTPCheck{{Service: "web", Port: "http", Path: "/health", Contains: "shop"}},
		SQL:  []v1alpha1.SQLCheck{{Query: "SELECT COUNT(*) FROM data", Want: text("100")}},
		Exec: []v1alpha1.ExecCheck{mariadb("SELECT COUNT(*) FROM shop.data", "100")},
	}}
}

// checked reports whether a drill made a check that passed and found that.
func checked(o *v1alpha1.Drill, what, found string) bool {
	return slices.ContainsFunc(o.Status.Checks, func(c v1alpha1.DrillCheck) bool { return c.What == what && c.OK && strings.Contains(c.Detail, found) })
}

// TestClusterDrill proves a point of an application in a scratch namespace, and finds a row that is missing and bytes that are not as stored.
func TestClusterDrill(t *testing.T) {
	c := startCluster(t, "backstay")
	d := newDrilled(t, c, "drilled")
	good := d.good()

	var seen []string
	proven := d.make(t, "good", good, func(o *v1alpha1.Drill) {
		if len(seen) == 0 && o.Status.Phase == v1alpha1.PhaseWaiting {
			seen = d.inScratch(t, o.Status.Namespaces[0])
		}
	})
	if proven.Status.Phase != v1alpha1.PhaseComplete || proven.Status.RestoreTook == "" || len(proven.Status.Problems) > 0 {
		t.Fatalf("status %+v", proven.Status)
	}
	if !checked(proven, "sql", `"100"`) || !checked(proven, "database", "loaded") {
		t.Errorf("checks %+v", proven.Status.Checks)
	}
	for _, want := range []string{"service/web ClusterIP", "cronjob/yearly suspended", "networkpolicy/backstay-drill", "deployment/web"} {
		if !slices.Contains(seen, want) {
			t.Errorf("scratch has %q, and no %q", seen, want)
		}
	}
	for _, line := range seen {
		if strings.HasPrefix(line, "ingress/") || line == "networkpolicy/open" || strings.Contains(line, "tracking-id") || strings.Contains(line, "finalizer") {
			t.Errorf("scratch has %s", line)
		}
	}
	d.proof(t, proven, "True")
	d.asItWas(t)
	for _, want := range []string{
		`backstay_drills\{phase="Complete"\} 1\n`, `backstay_application_proven_timestamp_seconds\{application="drilled",namespace="` + system + `",policy="drilled"\} [1-9]`,
		`backstay_application_drill_restore_seconds\{application="drilled",namespace="` + system + `",policy="drilled"\} [1-9]`,
	} {
		d.counts(t, want)
	}

	t.Run("row", func(t *testing.T) {
		d.fails(t, "row", v1alpha1.DrillSpec{DrillChecks: v1alpha1.DrillChecks{
			SQL: []v1alpha1.SQLCheck{{Database: "shop", Query: "SELECT id FROM data WHERE id = 4711"}},
		}}, `sql shop: "SELECT id FROM data WHERE id = 4711": has ""`)
		d.counts(t, `backstay_application_proven_timestamp_seconds\{application="drilled".*\} 0\n`)
	})
	t.Run("blob", func(t *testing.T) {
		flipped(t, d.bucket)
		d.fails(t, "blob", good, `restore volumes/drilled/.*checksum`)
	})
}

// inScratch lists what came into a scratch namespace, as far as the test looks at it.
func (d *drilled) inScratch(t *testing.T, namespace string) []string {
	t.Helper()
	var lines []string
	var list struct {
		Items []struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name        string            `json:"name"`
				Annotations map[string]string `json:"annotations"`
				Finalizers  []string          `json:"finalizers"`
			} `json:"metadata"`
			Spec struct {
				Type    string `json:"type"`
				Suspend bool   `json:"suspend"`
			} `json:"spec"`
		} `json:"items"`
	}
	decode(t, d.kubectl(t, "-n", namespace, "get", "deployments,services,ingresses,networkpolicies,cronjobs,widgets.shop.backstay.io", "-o", "json"), &list)
	for _, o := range list.Items {
		line := strings.ToLower(o.Kind) + "/" + o.Metadata.Name
		if o.Spec.Type != "" {
			line += " " + o.Spec.Type
		}
		if o.Spec.Suspend {
			line += " suspended"
		}
		for _, f := range o.Metadata.Finalizers {
			line += " finalizer " + f
		}
		for key := range o.Metadata.Annotations {
			if strings.HasPrefix(key, "argocd.argoproj.io/") {
				line += " " + key
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// flipped turns bits in the largest blob of data that a bucket holds: it has some of a volume.
func flipped(t *testing.T, bucket string) {
	t.Helper()
	var largest string
	var most int64
	err := filepath.WalkDir(bucket, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(entry.Name(), "p") {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > most {
			largest, most = path, info.Size()
		}
		return err
	})
	if err != nil || largest == "" {
		t.Fatalf("no blob of data: %v", err)
	}
	content, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	for at := range content {
		content[at] ^= 0x55
	}
	if err := os.WriteFile(largest, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
