package restore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/restore"
)

// definition defines the kind KIND of the group GROUP.
const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.GROUP}
spec:
  group: GROUP
  scope: SCOPE
  names: {kind: KIND, plural: PLURAL, singular: SINGULAR, listKind: KINDList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-preserve-unknown-fields: true
            properties:
              fixed: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: fixed is immutable}]}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}`

// define is the definition of a kind of a group that only this test has.
func define(t *testing.T, group, kind, scope string) unstructured.Unstructured {
	t.Helper()
	singular := strings.ToLower(kind)
	text := strings.NewReplacer("GROUP", group, "KIND", kind, "PLURAL", singular+"s", "SINGULAR", singular, "SCOPE", scope).Replace(definition)
	return parse(t, text)[0]
}

// everyKind has an object of each kind. GROUP is that of the custom one. NODEPORT is below 30086, for others are given to services by
// chance, and one that comes back first could be given it.
const everyKind = `
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed}
immutable: true
data: {a: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: bytes}
binaryData: {a: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: tls}
type: kubernetes.io/tls
data: {tls.crt: "", tls.key: ""}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: pulls}
imagePullSecrets: [{name: registry}]
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {memory: 1Gi}, defaultRequest: {memory: "1024"}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {configmaps: "100"}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: pulls}, {kind: User, name: ann, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: manual, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: node}
spec: {type: NodePort, selector: {app: a}, ports: [{port: 80, nodePort: NODEPORT}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.1]}]
ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {deployment.kubernetes.io/revision: "7"}}
spec:
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a, resources: {requests: {cpu: 1000m}}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: database}
spec:
  serviceName: headless
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: a}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: c}}
  template: {metadata: {labels: {app: c}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: bare}
spec:
  selector: {matchLabels: {app: d}}
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: apps/v1
kind: ControllerRevision
metadata: {name: kept}
revision: 3
data: {a: b}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  selector: {app: e}
  template: {metadata: {labels: {app: e}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: v1
kind: PodTemplate
metadata: {name: template}
template: {metadata: {labels: {app: f}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: single}
spec: {containers: [{name: a, image: a}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  suspend: true
  template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: 0 3 * * *
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: plain, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}]}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 3}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}
---
apiVersion: GROUP/v1
kind: Gadget
metadata: {name: custom, finalizers: [GROUP/cleanup]}
spec: {size: 3, deep: {er: [1, 2.5, null, "x"]}}`

// clusterKinds are objects of the cluster; TEST makes their names unique.
const clusterKinds = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: TEST}
provisioner: example.com/none
parameters: {a: b}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: TEST}
value: 10
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: TEST}
spec: {controller: example.com/none}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: TEST}
handler: runc
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: TEST}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: TEST}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: TEST}
subjects: [{kind: ServiceAccount, name: pulls, namespace: NAMESPACE}, {kind: Group, name: "system:serviceaccounts:NAMESPACE", apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: TEST}
webhooks:
- name: none.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: plain, namespace: NAMESPACE}}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nones]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: TEST}
webhooks:
- name: none.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: plain, namespace: NAMESPACE}}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nones]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: TEST}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nones]}]}
  validations: [{expression: "true"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: TEST}
spec: {policyName: TEST, validationActions: [Deny]}`

// remove deletes objects, whatever finalizers they have.
func remove(t *testing.T, c *kube.Cluster, objects []unstructured.Unstructured) {
	t.Helper()
	for n := len(objects) - 1; n >= 0; n-- {
		u := objects[n]
		if err := c.Client.Delete(t.Context(), u.DeepCopy()); err != nil {
			t.Fatalf("delete %s %s: %v", u.GetKind(), u.GetName(), err)
		}
		collect(t, c, &u)
	}
}

// collect plays the controllers that remove finalizers from what is being deleted.
func collect(t *testing.T, c *kube.Cluster, u *unstructured.Unstructured) {
	t.Helper()
	eventually(t, "deletion of "+u.GetKind()+" "+u.GetName(), func() bool {
		left := get(t, c, u.GetAPIVersion(), u.GetKind(), u.GetNamespace(), u.GetName())
		if left == nil || left.GetUID() != u.GetUID() {
			return true
		}
		if f := left.GetFinalizers(); len(f) > 0 && !slices.Contains(f, "customresourcecleanup.apiextensions.k8s.io") {
			left.SetFinalizers(nil)
			_ = c.Client.Update(t.Context(), left) // tried again
		}
		return false
	})
}

func TestEveryKindComesBackAsItWas(t *testing.T) {
	c := connect(t)
	const group = "every.example.com"
	definitions := put(t, c, []unstructured.Unstructured{define(t, group, "Gadget", "Namespaced"), define(t, group, "World", "Cluster")})
	eventually(t, "definitions", func() bool { return served(t, c, group, "Gadget") && served(t, c, group, "World") })
	namespace, objects := shop(t, c, strings.NewReplacer("GROUP", group, "NODEPORT", "30001").Replace(everyKind))
	names := strings.NewReplacer("TEST", namespace, "NAMESPACE", namespace)
	cluster := put(t, c, parse(t, names.Replace(clusterKinds)+fmt.Sprintf(`
---
apiVersion: %s/v1
kind: World
metadata: {name: %s}
spec: {a: b}`, group, namespace)))
	all := append(clone(cluster), definitions...)
	o := restore.Options{Cluster: c, Objects: map[string][]unstructured.Unstructured{namespace: objects}, ClusterObjects: all}

	if s := build(t, o).Status(); s.Same != len(objects)+len(all) {
		t.Fatalf("beside itself: %+v\n%s", s, strings.Join(build(t, o).Lines(), "\n"))
	}
	remove(t, c, objects)
	remove(t, c, cluster)
	remove(t, c, definitions)

	fresh := connect(t) // nothing is remembered of the kinds that were
	o.Cluster = fresh
	p := build(t, o)
	if s := p.Status(); s.Create != len(objects)+len(all) {
		t.Fatalf("beside nothing: %+v\n%s", s, strings.Join(p.Lines(), "\n"))
	}
	if got := apply(t, p); got.Created != len(objects)+len(all) || len(got.Failed)+len(got.Notes) > 0 {
		t.Errorf("outcome %+v", got)
	}
	p = build(t, o)
	if s := p.Status(); s != (v1alpha1.PlanStatus{Same: len(objects) + len(all)}) {
		t.Errorf("after the restore: %+v\n%s", s, strings.Join(p.Lines(), "\n"))
	}
	if first := p.Items[0].Kind; first != "CustomResourceDefinition" {
		t.Errorf("%s comes first", first)
	}
	if last := p.Items[len(p.Items)-1].Group; last != "admissionregistration.k8s.io" {
		t.Errorf("%s comes last", last)
	}
}

// served reports whether a kind can be used: a definition is established a moment before.
func served(t *testing.T, c *kube.Cluster, group, kind string) bool {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(group + "/v1")
	list.SetKind(kind + "List")
	return c.Client.List(t.Context(), list) == nil
}
