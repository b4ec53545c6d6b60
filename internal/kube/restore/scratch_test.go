package restore

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestHarmless(t *testing.T) {
	tests := []struct{ name, object, want string }{
		{
			"a service on ports of the nodes", `
apiVersion: v1
kind: Service
metadata:
  name: a
  annotations: {external-dns.alpha.kubernetes.io/hostname: shop.example, note: kept}
  finalizers: [service.example/cleanup]
spec:
  type: LoadBalancer
  loadBalancerIP: 192.0.2.1
  externalIPs: [192.0.2.2]
  externalTrafficPolicy: Local
  allocateLoadBalancerNodePorts: true
  ports: [{port: 80, nodePort: 30080}]`, `
apiVersion: v1
kind: Service
metadata: {name: a, annotations: {note: kept}}
spec: {type: ClusterIP, ports: [{port: 80}]}`,
		},
		{
			"a service of pods alone stays one", `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: None, ports: [{port: 80}]}`, `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: None, ports: [{port: 80}]}`,
		},
		{
			"a job by the clock stands still", `
apiVersion: batch/v1
kind: CronJob
metadata: {name: a}
spec: {schedule: "* * * * *", jobTemplate: {spec: {template: {spec: {hostNetwork: true, containers: [{name: a}]}}}}}`, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: a}
spec: {schedule: "* * * * *", suspend: true, jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}`,
		},
		{
			"pods have nothing of their node, and push nobody off it", `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a, annotations: {argocd.argoproj.io/hook: PreSync, meta.helm.sh/release-name: a}}
spec:
  template:
    spec:
      hostNetwork: true
      hostPID: true
      hostIPC: true
      priorityClassName: system-node-critical
      priority: 2000001000
      containers: [{name: a, ports: [{containerPort: 80, hostPort: 80}]}]
      initContainers: [{name: b, ports: [{containerPort: 81, hostPort: 81}]}]`, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  template:
    spec:
      containers: [{name: a, ports: [{containerPort: 80}]}]
      initContainers: [{name: b, ports: [{containerPort: 81}]}]`,
		},
		{
			"what is no such thing is left to the server", `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: [LoadBalancer]`, `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: [LoadBalancer]`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := object(t, test.object)
			harmless(u)
			same(t, u, object(t, test.want))
		})
	}
}

func TestWhatDoesNotComeIntoScratch(t *testing.T) {
	s := &Scratch{ExcludeKinds: []string{"kafkas.kafka.strimzi.io", "*.example.org"}}
	plural := func(gk schema.GroupKind) string {
		return map[string]string{"Kafka": "kafkas.kafka.strimzi.io", "Widget": "widgets.example.org"}[gk.Kind]
	}
	tests := []struct {
		group, kind string
		cluster     bool
		comes       bool
	}{
		{"", "ConfigMap", false, true},
		{"apps", "Deployment", false, true},
		{"argoproj.io", "Rollout", false, true},
		{"argoproj.io", "Application", false, false},
		{"kustomize.toolkit.fluxcd.io", "Kustomization", false, false},
		{"networking.k8s.io", "NetworkPolicy", false, false},
		{"networking.k8s.io", "Ingress", false, false},
		{"gateway.networking.k8s.io", "HTTPRoute", false, false},
		{"crd.projectcalico.org", "NetworkPolicy", false, false},
		{"acme.cert-manager.io", "Order", false, false},
		{"rds.aws.upbound.io", "Instance", false, false},
		{"notcert-manager.io", "Order", false, true},
		{"backstay.io", "Policy", false, false},
		{"", "Namespace", true, false},
		{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration", true, false},
		{"admissionregistration.k8s.io", "MutatingWebhookConfiguration", true, false},
		{"rbac.authorization.k8s.io", "ClusterRoleBinding", true, false},
		{"kafka.strimzi.io", "Kafka", false, false},
		{"kafka.strimzi.io", "KafkaTopic", false, true},
		{"example.org", "Widget", false, false},
	}
	for _, test := range tests {
		i := &Item{Ref: Ref{Group: test.group, Kind: test.kind, Name: "a"}, cluster: test.cluster}
		if why := s.leaves(i, plural); (why == "") != test.comes {
			t.Errorf("%s.%s: %q, want it to come: %v", test.kind, test.group, why, test.comes)
		}
	}
}
