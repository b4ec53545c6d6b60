package kube

import (
	"context"
	"errors"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// choice is what was chosen of namespaces by labels and names, with all that it owns.
type choice struct {
	references []reference
	deployed   deployedObjects
	uids       map[types.UID]bool
	found      map[string]bool // of references, by their text; "" for what labels chose
}

// owned are the objects that an object owns, while a choice is made.
type owned map[types.UID][]types.UID

// choose finds out which objects of an application are chosen. Kinds that cannot be listed are passed over: who captures them will say.
func (c *Cluster) choose(ctx context.Context, a Application, kinds []kind, at string) (*choice, error) {
	chosen := &choice{deployed: a.deployed(), uids: map[types.UID]bool{}, found: map[string]bool{}}
	for _, o := range a.Objects {
		r, err := parseReference(o)
		if err != nil {
			return nil, err
		}
		chosen.references = append(chosen.references, r)
	}
	below := owned{}
	for _, namespace := range a.Namespaces {
		for _, k := range kinds {
			if !k.namespaced || excludedByRule(k.GroupResource()) {
				continue
			}
			_, err := c.list(ctx, k, namespace, query{at: at, metadata: true}, func(u *unstructured.Unstructured) error {
				for _, owner := range u.GetOwnerReferences() {
					below[owner.UID] = append(below[owner.UID], u.GetUID())
				}
				if by, ok := chosen.takes(a.Selector, k, u); ok {
					chosen.found[by], chosen.uids[u.GetUID()] = true, true
				}
				return nil
			})
			if err != nil && (ctx.Err() != nil || !answered(err)) {
				return nil, err
			}
		}
	}
	delete(chosen.uids, "") // of servers that give none: it would be that of others, too
	chosen.add(below)
	return chosen, nil
}

// takes reports whether an object itself is chosen, and by which reference; "" is the selector, or a deployment.
func (c *choice) takes(all labels.Selector, k kind, u *unstructured.Unstructured) (by string, ok bool) {
	for _, r := range c.references {
		if r.of(k) && r.name == u.GetName() {
			return r.text, true
		}
	}
	return "", all != nil && all.Matches(labels.Set(u.GetLabels())) || c.deployed.has(keyOf(k, u), u.GetLabels())
}

// add adds all that what is chosen owns, however far down, and though it may own itself.
func (c *choice) add(below owned) {
	var queue []types.UID
	for uid := range c.uids {
		queue = append(queue, uid)
	}
	for len(queue) > 0 {
		owner := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, uid := range below[owner] {
			if !c.uids[uid] {
				c.uids[uid] = true
				queue = append(queue, uid)
			}
		}
	}
}

// has reports whether an object is chosen, or owned by one that is.
func (c *choice) has(o metav1.Object) bool { return c.uids[o.GetUID()] }

// lacks lists what was to be chosen and is not there: who chose it must know.
func (c *choice) lacks(a Application) []lack {
	none := errors.New("there is none")
	var lacks []lack
	for _, r := range c.references {
		if !c.found[r.text] {
			lacks = append(lacks, lack{"objects " + r.text, none})
		}
	}
	if a.Selector != nil && !c.found[""] {
		lacks = append(lacks, lack{"objects with labels " + a.Selector.String(), none})
	}
	return lacks
}

// belongs reports whether an object is of the application: chosen, or needed by one that is.
func (c *capture) belongs(k kind, u *unstructured.Unstructured) bool {
	return c.chosen == nil || c.chosen.has(u) || c.needs.has(k.GroupResource(), u.GetNamespace(), u.GetName()) ||
		k.String() == "rolebindings."+rbacGroup && c.binds(u)
}

// binds reports whether a binding is of service accounts of the application.
func (c *capture) binds(binding *unstructured.Unstructured) bool {
	accounts := schema.GroupResource{Resource: "serviceaccounts"}
	for _, a := range accountsOf(binding) {
		namespace, name, _ := strings.Cut(a, "/")
		switch {
		case name == "*":
			if c.chosen == nil && slices.Contains(c.app.Namespaces, namespace) {
				return true
			}
		case c.has(accounts, namespace, name) || c.needs.has(accounts, namespace, name):
			return true
		}
	}
	return false
}

// has reports whether a service account or service was captured.
func (c *capture) has(r schema.GroupResource, namespace, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stored[need{r, namespace, name}]
}
