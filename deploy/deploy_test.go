// Package deploy_test holds what users install to the chart it is made of, and to a real API server.
package deploy_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/kube/kubetest"
)

var update = flag.Bool("update", false, "write backstay.yaml")

const (
	chart     = "chart/backstay"
	system    = "backstay-system"
	manifests = "backstay.yaml"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// helm is a program.
type helm string

// findHelm finds the pinned version, which is compiled at the first run.
func findHelm(t *testing.T) helm {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join("..", "tools", "helm.mod"))
	if err != nil {
		t.Fatal(err)
	}
	path, err := run(t, "go", "tool", "-n", "-modfile="+modules, "helm")
	if err != nil {
		t.Fatal(err, path)
	}
	return helm(strings.TrimSpace(path))
}

// run returns what a program prints, or what it says where it fails.
func run(t *testing.T, name string, arguments ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return said.String(), err
	}
	return string(out), nil
}

// render is the chart with some values, as NAME=VALUE.
func (h helm) render(t *testing.T, namespace string, values ...string) (string, error) {
	t.Helper()
	arguments := []string{"template", "backstay", chart, "--namespace", namespace, "--kube-version", "1.34.4", "--include-crds"}
	for _, v := range values {
		arguments = append(arguments, "--set", v)
	}
	return run(t, string(h), arguments...)
}

// TestManifestsAreOfTheChart: one source of both.
func TestManifestsAreOfTheChart(t *testing.T) {
	rendered, err := findHelm(t).render(t, system, "namespace.create=true")
	if err != nil {
		t.Fatal(err, rendered)
	}
	var text strings.Builder
	text.WriteString("# Backstay, for kubectl apply --server-side. Made of chart/backstay by go test ./deploy -update.\n")
	for line := range strings.Lines(rendered) {
		if !strings.HasPrefix(line, "# Source: ") {
			text.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(manifests, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(manifests); err != nil || string(got) != text.String() {
		t.Errorf("%s is stale: go test ./deploy -update (%v)", manifests, err)
	}
}

func TestChart(t *testing.T) {
	h := findHelm(t)
	if said, err := run(t, string(h), "lint", "--strict", "--kube-version", "1.34.4", chart); err != nil {
		t.Error(err, said)
	}
	for _, test := range []struct {
		values []string
		want   []string // in what is rendered, or in what is said where it is refused
		absent string
		fails  bool
	}{
		{[]string{"image.repository=registry.example.com/backstay,image.tag=1.2,image.pullPolicy=Always,imagePullSecrets={pull}"}, []string{
			"image: registry.example.com/backstay:1.2\n", "--image=registry.example.com/backstay:1.2\n", "imagePullPolicy: Always", "- name: pull",
			"--image-pull-policy=Always", "--image-pull-secret=pull",
		}, "kind: Namespace", false},
		{[]string{"volumes.live=true,namespace.create=true,volumes.kubeletDir=/data/kubelet"}, []string{"enforce: privileged", "--kubelet-dir=/data/kubelet"}, "", false},
		{[]string{"namespace.create=true"}, []string{"enforce: baseline"}, "enforce: privileged", false},
		{[]string{"tenants.aggregate=false,tenants.namespaces={team-a,team-b}"}, []string{"namespace: team-b"}, "aggregate-to", false},
		{[]string{"restore.everywhere=false"}, []string{"name: backstay-worker\n"}, "escalate", false},
		{[]string{"clusterName=berlin,controller.replicas=2,controller.parallelJobs=5,controller.nodeSelector.disk=fast,controller.podAnnotations.a=b"}, []string{
			"--cluster-name=berlin", "replicas: 2", "--parallel-jobs=5", "disk: fast", "a: b",
		}, "", false},
		{[]string{"controller.maxJobs=6,controller.maxJobsPerNamespace=1,controller.maxShards=16,controller.locationEvery=30m,controller.tidyEvery=1h30m"}, []string{
			"--max-jobs=6\n", "--max-jobs-per-namespace=1\n", "--max-shards=16\n", "--location-every=30m\n", "--tidy-every=1h30m\n",
		}, "", false},
		{[]string{"controller.foreignActionSets={k10,kanister}"}, []string{"--foreign-actionsets=k10,kanister\n"}, "", false},
		{[]string{"controller.foreignActionSets=null"}, []string{"--foreign-actionsets=\n"}, "", false},
		{[]string{"metrics.serviceMonitor=true,metrics.annotations=null"}, []string{"kind: ServiceMonitor"}, "prometheus.io", false},
		{[]string{"controller.tolerations[0].key=backup,controller.priorityClassName=high"}, []string{"- key: backup", "priorityClassName: high"}, "", false},
		{[]string{"gate.webhook.enabled=true"}, []string{
			"--webhook-listen=:9443", "kind: ValidatingWebhookConfiguration", "name: backstay-webhook, namespace: elsewhere", "failurePolicy: Ignore",
		}, "", false},
		{[]string{"gate.webhook.enabled=false"}, nil, "name: backstay-webhook", false},
		{[]string{"controler.replicas=2"}, []string{"controler"}, "", true},
		{[]string{"clusterName=Not A Name"}, []string{"clusterName"}, "", true},
		{[]string{"controller.maxShards=17"}, []string{"maxShards"}, "", true},
		{[]string{"controller.tidyEvery=daily"}, []string{"tidyEvery"}, "", true},
		{[]string{"metrics.port=80"}, []string{"port"}, "", true},
	} {
		t.Run(strings.Join(test.values, " "), func(t *testing.T) {
			text, err := h.render(t, "elsewhere", test.values...)
			if (err != nil) != test.fails {
				t.Fatal(err, text)
			}
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if test.absent != "" && strings.Contains(text, test.absent) {
				t.Errorf("%q is there", test.absent)
			}
			if !test.fails && strings.Contains(text, system) {
				t.Errorf("%s is named, and the installation is elsewhere", system)
			}
		})
	}
}

// installed is what the manifests hold.
func installed(t *testing.T) []unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(manifests)
	if err != nil {
		t.Fatal(err)
	}
	var all []unstructured.Unstructured
	for _, document := range strings.Split(string(text), "\n---\n") {
		o := unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatal(err, document)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
	return all
}

// TestManifestsAreWhole: nothing twice, and whoever is given a right is there.
func TestManifestsAreWhole(t *testing.T) {
	names := map[string]bool{}
	counts := map[string]int{}
	all := installed(t)
	for _, o := range all {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if names[name] {
			t.Errorf("%s is there twice", name)
		}
		names[name] = true
		counts[o.GetKind()]++
	}
	for _, o := range all {
		subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
		for _, s := range subjects {
			s := s.(map[string]any)
			if account := "ServiceAccount " + s["namespace"].(string) + "/" + s["name"].(string); !names[account] {
				t.Errorf("%s binds %s, which is not there", o.GetName(), account)
			}
		}
	}
	if counts["CustomResourceDefinition"] != 7 || counts["Deployment"] != 1 || counts["Namespace"] != 1 || counts["ClusterRole"] == 0 {
		t.Errorf("%v", counts)
	}
}

// TestManifestsAreTaken installs them in an API server, each field known to it, and has the controller's pod judged by pod security.
func TestManifestsAreTaken(t *testing.T) {
	config := kubetest.Start(t)
	server, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var pod *corev1.Pod
	for _, o := range installed(t) {
		err := server.Patch(t.Context(), &o, client.Apply, client.FieldOwner("test"), client.ForceOwnership, client.FieldValidation("Strict"))
		if err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
		if o.GetKind() == "Deployment" {
			pod = podOf(t, o)
		}
	}
	restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "restricted-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := server.Create(t.Context(), restricted); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: restricted.Name, Name: pod.Spec.ServiceAccountName}}
	if err := server.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	pod.Namespace = restricted.Name
	rooted := pod.DeepCopy()
	rooted.Name, rooted.Spec.SecurityContext.RunAsNonRoot = "rooted", nil
	if err := server.Create(t.Context(), pod); err != nil {
		t.Errorf("the controller does not fit restricted pod security: %v", err)
	}
	if err := server.Create(t.Context(), rooted); err == nil || !strings.Contains(err.Error(), "runAsNonRoot") {
		t.Errorf("pod security does not judge: %v", err)
	}
}

// podOf is the pod that a Deployment makes.
func podOf(t *testing.T, deployment unstructured.Unstructured) *corev1.Pod {
	t.Helper()
	spec, _, _ := unstructured.NestedMap(deployment.Object, "spec", "template", "spec")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "controller"}}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &pod.Spec); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.Containers) != 1 || !slices.Contains(pod.Spec.Containers[0].Args, "controller") {
		t.Fatalf("%+v", pod.Spec)
	}
	return pod
}
