package convert

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

const hookAnnotation = "argocd.argoproj.io/hook"

// The action that a hook's script makes, and what it is for.
var (
	hookAction  = regexp.MustCompile(`(?m)kind:\s*"?(BackupAction|RunAction)\b`)
	hookSubject = regexp.MustCompile(`(?m)subject:\s*\n((?:[ \t]+\S.*\n?)+)`)
	hookField   = regexp.MustCompile(`(?m)^\s*(name|namespace):\s*"?([a-z0-9][-a-z0-9.]*)"?\s*$`)
)

// isK10Hook recognises a Job that has K10 make a backup before a sync.
func isK10Hook(o Object) bool {
	s := source{Object: o}
	return o.group() == "batch" && o.text("kind") == "Job" && strings.Contains(s.marked("annotations", hookAnnotation), "PreSync") &&
		hookAction.MatchString(script(o))
}

// script is what the containers of a Job are told to do.
func script(o Object) string {
	var words []string
	var walk func(value any)
	walk = func(value any) {
		switch value := value.(type) {
		case string:
			words = append(words, value)
		case []any:
			for _, one := range value {
				walk(one)
			}
		case map[string]any:
			walk(value["command"])
			walk(value["args"])
		}
	}
	spec, _ := o["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	pod, _ := template["spec"].(map[string]any)
	walk(pod["initContainers"])
	walk(pod["containers"])
	return strings.Join(words, "\n")
}

// isK10Right recognises what lets such a Job speak to K10.
func isK10Right(o Object) bool {
	role, _ := o["roleRef"].(map[string]any)
	name, _ := role["name"].(string)
	return o.group() == "rbac.authorization.k8s.io" && strings.HasPrefix(name, "k10-")
}

func (c *conversion) k10Right(s *source) {
	subjects, _ := s.tree["subjects"].([]any)
	for _, raw := range subjects {
		subject, _ := raw.(map[string]any)
		if namespace, _ := subject["namespace"].(string); namespace != "" {
			c.hookNamespaces = append(c.hookNamespaces, namespace)
		}
	}
	s.drop(Needless, "Backstay lets the gate of an application in by itself: delete it, and the service account that it is for")
}

// k10Hook puts a gate in the place of the Job, and has the policy of its application ask for points before syncs.
func (c *conversion) k10Hook(s *source) {
	text := script(s.Object)
	kind, subject := hookAction.FindStringSubmatch(text)[1], map[string]string{}
	if found := hookSubject.FindStringSubmatch(text); found != nil {
		for _, field := range hookField.FindAllStringSubmatch(found[1], -1) {
			subject[field[1]] = field[2]
		}
	}
	namespace := s.namespace()
	var governing *v1alpha1.Policy
	if kind == "RunAction" && subject["name"] != "" {
		governing = c.policyOf(k10Namespace, subject["namespace"], subject["name"])
	} else if namespace == "" {
		namespace = subject["namespace"]
	}
	if bound := sorted(c.hookNamespaces); namespace == "" && len(bound) == 1 {
		namespace = bound[0]
	}
	if fit(namespace) != namespace {
		namespace = ""
	}
	if governing == nil {
		governing = c.policyFor(namespace)
	}
	switch {
	case governing != nil:
	case namespace == "":
		s.tell("spec.template", Dropped, "", "which application it is for is not in the document: add gitops: {} to its policy")
	default:
		governing = c.makeGoverning(s, namespace)
	}
	if governing != nil {
		governing.Spec.GitOps = &v1alpha1.GitOps{}
		s.tell("spec.template", Changed, "spec.gitops of Policy "+governing.Name,
			"syncs of all its applications wait for the snapshots, 15 minutes at most, and fail where none can be taken; the script waited until K10 was done")
	}
	s.tree = nil
	c.gates = append(c.gates, Document{s.String(), "Job", "backstay-gate", gateJob(namespace)})
	c.step("Put the Job backstay-gate in the place of %s in the application's repository, and delete its ServiceAccount and RoleBinding.", printable(s.String()))
}

// policyOf finds the policy that one of K10 has become.
func (c *conversion) policyOf(otherwise, namespace, name string) *v1alpha1.Policy {
	if namespace == "" {
		namespace = otherwise
	}
	i := slices.IndexFunc(c.policies, func(p made[*v1alpha1.Policy]) bool { return p.from == "Policy "+namespace+"/"+name })
	if i < 0 {
		return nil
	}
	return c.policies[i].object
}

// policyFor finds the policy that takes a namespace by its name.
func (c *conversion) policyFor(namespace string) *v1alpha1.Policy {
	for _, p := range c.policies {
		if namespace != "" && governs(p.object, namespace) {
			return p.object
		}
	}
	return nil
}

// makeGoverning makes a policy for an application that no other backs up: it runs before syncs only.
func (c *conversion) makeGoverning(s *source, namespace string) *v1alpha1.Policy {
	const kept = 14 // points; K10 keeps those of its actions until they are deleted
	p := &v1alpha1.Policy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPolicy},
		ObjectMeta: metav1.ObjectMeta{Name: c.name(v1alpha1.KindPolicy, "gate", namespace), Namespace: c.namespace},
		Spec: v1alpha1.PolicySpec{
			Location: c.location, Retention: &v1alpha1.Retention{Last: kept},
			Sources: []v1alpha1.Source{{Applications: &v1alpha1.Applications{Namespaces: []string{namespace}}}},
		},
	}
	c.policies = append(c.policies, made[*v1alpha1.Policy]{s.String(), p})
	c.needLocation(c.location)
	s.tell("", Changed, "Policy "+p.Name, fmt.Sprintf("no policy takes the namespace; this one keeps the newest %d points before syncs", kept))
	return p
}
