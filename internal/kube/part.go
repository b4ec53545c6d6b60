package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// maxNamed is how many objects of a part that cannot be written are named.
const maxNamed = 20

// part is one part being captured. Its fields are guarded by mu while lists run.
type part struct {
	*capture
	w point.PartWriter

	mu       sync.Mutex
	objects  point.Count
	lacks    []lack         // kinds and groups
	refused  []lack         // objects
	notes    map[string]int // what was left out of single objects, by the rule
	live     []string       // kinds that were not listed at the moment
	captured time.Time
}

// lack is something that could not be captured.
type lack struct {
	what string // "lists of widgets.example.com"
	why  error
}

// errVault marks an error of the vault, with which the run cannot go on.
type errVault struct{ error }

func (e errVault) Unwrap() error { return e.error }

// part captures one part by fill. An error of fill fails it; what is returned ends the capture.
func (c *capture) part(ctx context.Context, to point.Sink, name string, fill func(*part) error) error {
	w, err := to.Part(ctx, name, point.KindObjects)
	if err != nil {
		return err
	}
	p := &part{capture: c, w: w, objects: point.Count{Of: "objects"}, notes: map[string]int{}, captured: c.at.At}
	err = fill(p)
	var vault errVault
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &vault):
		return vault.error
	case c.cluster.away(ctx, err):
		return err
	case err != nil:
		return w.Fail(ctx, err)
	case p.objects.Stored == 0 && len(p.lacks) > 0: // an older copy is better than nothing
		return w.Fail(ctx, p.lacks[0].why)
	}
	return w.Store(ctx, p.ended())
}

// ended is the part's entry in the ledger.
func (p *part) ended() point.Part {
	entry := point.Part{Mark: p.at.Mark, Revision: p.at.ResourceVersion, Captured: &p.captured, Counts: []point.Count{p.objects}}
	slices.SortFunc(p.lacks, func(a, b lack) int { return strings.Compare(a.what, b.what) })
	for _, l := range p.lacks {
		entry.Counts = append(entry.Counts, point.Count{Of: l.what, Expected: 1})
		entry.Notes = append(entry.Notes, fmt.Sprintf("missing: %s: %v", l.what, l.why))
	}
	for _, r := range p.refused[:min(len(p.refused), maxNamed)] {
		entry.Notes = append(entry.Notes, fmt.Sprintf("missing: %s: %v", r.what, r.why))
	}
	if more := len(p.refused) - maxNamed; more > 0 {
		entry.Notes = append(entry.Notes, fmt.Sprintf("missing: %d objects more", more))
	}
	for _, rule := range slices.Sorted(maps.Keys(p.notes)) {
		entry.Notes = append(entry.Notes, fmt.Sprintf("%s: %d", rule, p.notes[rule]))
	}
	if len(p.live) > 0 {
		slices.Sort(p.live)
		entry.Notes = append(entry.Notes, "listed as they were shortly after the moment: "+strings.Join(p.live, ", "))
	}
	return entry
}

// note counts an object to which a rule applies.
func (p *part) note(rule string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes[rule]++
}

// lackOf records that a kind could not be listed, and returns errors after which nothing else can be either.
func (p *part) lackOf(ctx context.Context, k kind, err error) error {
	var vault errVault
	if err == nil || ctx.Err() != nil || errors.As(err, &vault) || !answered(err) && !errors.Is(err, fault.ErrUnsupported) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lacks = append(p.lacks, lack{"lists of " + k.String(), err})
	return nil
}

// namespace captures what of a namespace belongs to the application, and the namespace itself.
func (p *part) namespace(ctx context.Context, namespace string) error {
	if err := p.namespaceItself(ctx, namespace); err != nil {
		return err
	}
	p.lacks = append(p.lacks, p.silent...)
	var rounds [3][]kind // each of what those before may need
	for _, k := range p.kinds {
		if k.namespaced && !p.excluded(k) {
			round := p.round(k)
			rounds[round] = append(rounds[round], k)
		}
	}
	for _, kinds := range rounds {
		err := atOnce(ctx, listsAtOnce, kinds, func(ctx context.Context, k kind) error {
			return p.lackOf(ctx, k, p.kind(ctx, k, namespace))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// excluded reports whether a kind is left out, and notes it.
func (p *part) excluded(k kind) bool {
	switch {
	case excludedByRule(k.GroupResource()):
		return true
	case excludedByPolicy(p.app.Capture.ExcludeKinds, k.GroupResource()):
		p.note("left out by the policy, kind " + k.String())
		return true
	}
	return false
}

// round is when a kind is listed. Where the whole namespace is captured there is no order.
func (p *part) round(k kind) int {
	if p.chosen == nil {
		return 0
	}
	switch k.String() {
	case "persistentvolumeclaims", "serviceaccounts", "rolebindings." + rbacGroup:
		return 1
	case "secrets", "configmaps", "roles." + rbacGroup:
		return 2
	}
	return 0
}

// namespaceItself captures the namespace's own object. Without the right to list namespaces it is read as it is now.
func (p *part) namespaceItself(ctx context.Context, namespace string) error {
	found := false
	k := kind{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, name: "Namespace", stored: true}
	err := p.list(ctx, k, "", "metadata.name="+namespace, func(u *unstructured.Unstructured) error {
		found = true
		return p.write(ctx, k, u)
	})
	if errors.Is(err, fault.ErrDenied) {
		found, err = true, p.presentNamespace(ctx, k, namespace)
	}
	if err == nil && !found {
		return fault.New("capture namespace "+namespace, fault.ErrNotFound, "there is none", "")
	}
	return p.lackOf(ctx, k, err)
}

func (p *part) presentNamespace(ctx context.Context, k kind, namespace string) error {
	asked := p.cluster.now()
	var raw []byte
	err := p.cluster.patiently(ctx, func() (err error) {
		raw, err = p.cluster.Discovery.RESTClient().Get().AbsPath("/api/v1/namespaces", namespace).Do(ctx).Raw()
		return err
	})
	if err != nil {
		return fault.Wrap("read namespace "+namespace, ClassOf(err), err, "")
	}
	u, err := k.decode(raw)
	if err != nil {
		return err
	}
	p.listed(k, listing{items: 1, expected: 1, live: true, first: asked, last: p.cluster.now()})
	return p.write(ctx, k, u)
}

// kind captures the objects of a kind in a namespace that belong to the application.
func (p *part) kind(ctx context.Context, k kind, namespace string) error {
	seen := map[string]bool{}
	return p.list(ctx, k, namespace, "", func(u *unstructured.Unstructured) error {
		name := u.GetName()
		switch rule := leftOut(k, u); {
		case u.GetNamespace() != namespace || name == "" || seen[name]:
			p.refuse(k, name, errors.New("the server lists it twice, without a name, or in another namespace"))
			return nil
		case !p.belongs(k, u):
			p.leave("not of the application")
			return nil
		case rule != "":
			p.leave("left out by rule, " + rule)
			return nil
		}
		seen[name] = true
		return p.write(ctx, k, u)
	})
}

// leftOut is the rule by which an object is left out: it is made anew from others, by Kubernetes or by Backstay; "" for none.
func leftOut(k kind, u *unstructured.Unstructured) string {
	set, name := u.GetLabels(), u.GetName()
	if name == "kubernetes" && u.GetNamespace() == "default" && (k.Resource == "services" || strings.HasPrefix(k.Resource, "endpoint")) {
		return "the API server's own service"
	}
	switch k.String() {
	case "endpoints":
		if _, timed := u.GetAnnotations()["endpoints.kubernetes.io/last-change-trigger-time"]; timed || set["endpoints.kubernetes.io/managed-by"] != "" {
			return "endpoints made of a service"
		}
	case "endpointslices.discovery.k8s.io":
		if strings.HasSuffix(set["endpointslice.kubernetes.io/managed-by"], ".k8s.io") {
			return "endpoints made of a service"
		}
	case "configmaps":
		if name == "kube-root-ca.crt" {
			return "certificates of the cluster"
		}
	case "jobs.batch", "pods":
		if set[v1alpha1.LabelGate] != "" {
			return "gates of syncs"
		}
	case "persistentvolumeclaims":
		if ephemeral(u) {
			return "claims that end with their pod"
		}
	case "volumesnapshots.snapshot.storage.k8s.io", "volumegroupsnapshots.groupsnapshot.storage.k8s.io":
		if set[v1alpha1.LabelOwner] != "" || set[v1alpha1.LabelPoint] != "" {
			return "snapshots of backups"
		}
	}
	return ""
}

// leave counts an object that is left out on purpose.
func (p *part) leave(rule string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.objects.Excluded++
	p.notes[rule]++
}

// refuse names an object that cannot be written.
func (p *part) refuse(k kind, name string, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = append(p.refused, lack{fmt.Sprintf("%s/%q", k, name), why})
}

// list hands over the objects of a kind as they were at the moment, and counts them.
func (p *part) list(ctx context.Context, k kind, namespace, selector string, each func(*unstructured.Unstructured) error) error {
	l, err := p.cluster.list(ctx, k, namespace, query{at: p.at.ResourceVersion, selector: selector}, each)
	p.listed(k, l)
	return err
}

// listed takes a list, however far it came, into the ledger and the skew.
func (p *part) listed(k kind, l listing) {
	p.seen(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.objects.Expected += l.expected
	if l.live && l.items > 0 {
		p.live = append(p.live, k.String())
	}
	if l.live && l.last.After(p.captured) {
		p.captured = l.last
	}
}

// write puts an object into the part.
func (p *part) write(ctx context.Context, k kind, u *unstructured.Unstructured) error {
	content, err := encode(u)
	if err != nil {
		p.refuse(k, u.GetName(), err)
		return nil
	}
	// The time of a file is the object's own, so that a directory of objects that are as they were is as it was.
	e := point.Entry{Name: filePath(k.GroupResource(), u.GetName()), Time: u.GetCreationTimestamp().Time}
	if _, err := p.w.Put(ctx, e, bytes.NewReader(content), point.Text); err != nil {
		return errVault{err}
	}
	p.needs.of(k, u)
	if p.Seen != nil {
		p.Seen(keyOf(k, u), u)
	}
	p.mu.Lock()
	p.objects.Stored++
	p.mu.Unlock()
	if k.Group == "" && (k.Resource == "serviceaccounts" || k.Resource == "services") {
		p.capture.mu.Lock()
		p.stored[need{k.GroupResource(), u.GetNamespace(), u.GetName()}] = true
		p.capture.mu.Unlock()
	}
	return nil
}
