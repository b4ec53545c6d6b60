package restore

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
)

// Scratch has a point restored beside what is live, only to look at it: what would reach out of its namespaces, or have somebody else
// take it for the real thing, is left out or made harmless. The namespaces are there before.
type Scratch struct {
	// ExcludeKinds are left out beside those that always are, as PLURAL.GROUP or *.GROUP.
	ExcludeKinds []string
}

// notInScratch are kinds that do not come into scratch namespaces, by group or KIND.GROUP, and why. A group stands for those that end
// with it, too.
var notInScratch = []struct{ what, why string }{
	{"namespace", "the drill makes its own"},
	{"networkpolicy.networking.k8s.io", "the drill has its own, which others would only widen"},
	{"cilium.io", "the drill has a network policy of its own"},
	{"projectcalico.org", "the drill has a network policy of its own"},
	{"poddisruptionbudget.policy", "it would hold up who drains a node"},
	{"ingress.networking.k8s.io", "it would take what is meant for the live application"},
	{"ingress.extensions", "it would take what is meant for the live application"},
	{"gateway.networking.k8s.io", "it would take what is meant for the live application"},
	{"networking.istio.io", "it would take what is meant for the live application"},
	{"route.openshift.io", "it would take what is meant for the live application"},
	{"traefik.io", "it would take what is meant for the live application"},
	{"traefik.containo.us", "it would take what is meant for the live application"},
	{"projectcontour.io", "it would take what is meant for the live application"},
	{"getambassador.io", "it would take what is meant for the live application"},
	{"konghq.com", "it would take what is meant for the live application"},
	{"apisix.apache.org", "it would take what is meant for the live application"},
	{"externaldns.k8s.io", "it would change names that the live application has"},
	{"cert-manager.io", "it would ask for certificates; those of the point are in its Secrets"},
	{"external-secrets.io", "it reads and writes outside; what it had read is in the point's Secrets"},
	{"monitoring.coreos.com", "it would raise alarms"},
	{"application.argoproj.io", "it deploys"},
	{"applicationset.argoproj.io", "it deploys"},
	{"appproject.argoproj.io", "it deploys"},
	{"workflow.argoproj.io", "it would run again"},
	{"cronworkflow.argoproj.io", "it would run again"},
	{"toolkit.fluxcd.io", "it deploys"},
	{"fleet.cattle.io", "it deploys"},
	{"actionset.cr.kanister.io", "it would run again"},
	{v1alpha1.Group, "it backs up"},
	{"velero.io", "it backs up"},
	{"kio.kasten.io", "it backs up"},
	{"k8up.io", "it backs up"},
	{"stash.appscode.com", "it backs up"},
	{"volsync.backube", "it backs up"},
	{"crossplane.io", "it makes things outside of the cluster"},
	{"upbound.io", "it makes things outside of the cluster"},
	{"services.k8s.aws", "it makes things outside of the cluster"},
	{"cnrm.cloud.google.com", "it makes things outside of the cluster"},
	{"azure.com", "it makes things outside of the cluster"},
	{"cluster.x-k8s.io", "it makes things outside of the cluster"},
}

// leaves says why an object does not come into scratch; empty where it does.
func (s *Scratch) leaves(i *Item, mapper func(schema.GroupKind) string) string {
	if i.cluster && i.Kind != "Namespace" {
		return "objects of the cluster are left alone"
	}
	name := kindName(i.groupKind())
	for _, one := range notInScratch {
		if name == one.what || i.Group == one.what || strings.HasSuffix(i.Group, "."+one.what) {
			return one.why
		}
	}
	if len(s.ExcludeKinds) == 0 {
		return ""
	}
	resource := mapper(i.groupKind())
	for _, glob := range s.ExcludeKinds {
		if matched, err := path.Match(glob, resource); err == nil && matched {
			return "its kind is left out"
		}
	}
	return ""
}

// harmless makes of an object one that nobody outside of its namespace takes notice of.
func harmless(u *unstructured.Unstructured) {
	u.SetFinalizers(nil) // what they wait for was not done
	annotations := u.GetAnnotations()
	for key := range annotations {
		for _, foreign := range []string{"argocd.argoproj.io/", "external-dns.alpha.kubernetes.io/", "meta.helm.sh/", fluxKustomize, fluxHelm} {
			if strings.HasPrefix(key, foreign) {
				delete(annotations, key)
			}
		}
	}
	u.SetAnnotations(annotations)
	dropEmpty(u.Object, "metadata", "annotations")
	switch kindName(u.GroupVersionKind().GroupKind()) {
	case "service":
		inside(u)
	case "cronjob.batch":
		if spec, is := u.Object["spec"].(map[string]any); is {
			spec["suspend"] = true
		}
	}
	if spec := podSpec(u); spec != nil {
		off(spec)
	}
}

// inside makes of a Service one that only pods reach.
func inside(u *unstructured.Unstructured) {
	spec, is := u.Object["spec"].(map[string]any)
	if !is {
		return
	}
	if kind := spec["type"]; kind == "LoadBalancer" || kind == "NodePort" {
		spec["type"] = "ClusterIP"
	}
	for _, field := range []string{
		"externalIPs", "externalTrafficPolicy", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts",
		"healthCheckNodePort",
	} {
		delete(spec, field)
	}
	dropNodePorts(u)
}

// off takes from pods what they have of their node, and their right to push others off it.
func off(spec map[string]any) {
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC", "priorityClassName", "priority"} {
		delete(spec, field)
	}
	for _, field := range []string{"containers", "initContainers"} {
		containers, _ := spec[field].([]any)
		for _, c := range containers {
			container, _ := c.(map[string]any)
			ports, _ := container["ports"].([]any)
			for _, p := range ports {
				if port, is := p.(map[string]any); is {
					delete(port, "hostPort")
				}
			}
		}
	}
}
