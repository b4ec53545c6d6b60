package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// What is kept of Backups that have ended. They are history, not data.
const (
	keepRuns   = 3
	keepFailed = 7 * 24 * time.Hour
	mostRuns   = 20 // of which Backups are kept because they failed
)

// run is what is there of one run of a policy.
type run struct {
	name     string
	began    time.Time
	ended    time.Time // of the last Backup that ended
	all      []*v1alpha1.Backup
	open     int
	complete int
}

// runsOf lists the runs of a policy that have Backups, the newest first.
func (c *controller) runsOf(ctx context.Context, p *v1alpha1.Policy) ([]run, error) {
	var all v1alpha1.BackupList
	err := c.client.List(ctx, &all, client.InNamespace(p.Namespace), client.MatchingLabels{v1alpha1.LabelPolicy: p.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list backups of policy %s: %w", p.Name, err)
	}
	byName := map[string]*run{}
	for i := range all.Items {
		b := &all.Items[i]
		name := runOf(b)
		r := byName[name]
		if r == nil {
			r = &run{name: name, began: b.CreationTimestamp.Time}
			byName[name] = r
		}
		r.add(b)
	}
	var runs []run
	for _, r := range byName {
		runs = append(runs, *r)
	}
	slices.SortFunc(runs, func(a, b run) int {
		return cmp.Or(b.began.Compare(a.began), strings.Compare(b.name, a.name))
	})
	return runs, nil
}

func (r *run) add(b *v1alpha1.Backup) {
	r.all = append(r.all, b)
	if b.CreationTimestamp.Time.Before(r.began) {
		r.began = b.CreationTimestamp.Time
	}
	if f := b.Status.Finished; f != nil && f.After(r.ended) {
		r.ended = f.Time
	}
	switch {
	case !b.Status.Phase.Final():
		r.open++
	case b.Status.Phase == v1alpha1.PhaseComplete:
		r.complete++
	}
}

// result is what a run that is over says of its policy.
func (r *run) result() verdict {
	text := fmt.Sprintf("run %s: %d of %d applications complete", r.name, r.complete, len(r.all))
	switch {
	case r.complete == len(r.all):
		return verdict{metav1.ConditionTrue, false, false, "Complete", text}
	case slices.ContainsFunc(r.all, func(b *v1alpha1.Backup) bool { return b.Status.Phase == v1alpha1.PhaseFailed }):
		return verdict{metav1.ConditionFalse, false, false, "Failed", text + firstProblem(r.all)}
	}
	return verdict{metav1.ConditionFalse, false, false, "Incomplete", text + firstProblem(r.all)}
}

func firstProblem(all []*v1alpha1.Backup) string {
	for _, b := range all {
		if b.Status.Phase != v1alpha1.PhaseComplete && len(b.Status.Problems) > 0 {
			return "; " + b.Name + ": " + b.Status.Problems[0]
		}
	}
	return ""
}

// sum writes how the newest run went, once it is over.
func (t *turn) sum(ctx context.Context) error {
	p := t.policy
	if len(t.runs) == 0 || t.runs[0].open > 0 || p.Status.Applications == 0 && !hasRepositories(p) {
		return nil // where the last run found no application, that is what is to be said
	}
	newest := &t.runs[0]
	v := newest.result()
	if judged(p.Status.Conditions, p.Generation, v) {
		return nil
	}
	said := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	known := said != nil && said.Message == shorten(v.message)
	err := t.save(ctx, p, func() {
		judge(&p.Status.Conditions, p.Generation, t.now, v)
		if v.ready == metav1.ConditionTrue && (p.Status.LastGood == nil || p.Status.LastGood.Time.Before(newest.ended)) {
			at := metav1.NewTime(newest.ended)
			p.Status.LastGood = &at
		}
	})
	if err != nil || known {
		return err
	}
	kind := corev1.EventTypeNormal
	if v.ready != metav1.ConditionTrue {
		kind = corev1.EventTypeWarning
	}
	t.tell(p, kind, v.reason, v.message)
	t.counted.add(p, v.reason)
	return nil
}

// prune deletes Backups that are history of no use any more.
func (t *turn) prune(ctx context.Context) error {
	for i, r := range t.runs {
		if i < keepRuns || r.open > 0 {
			continue
		}
		for _, b := range r.all {
			failed := b.Status.Phase != v1alpha1.PhaseComplete
			if failed && i < mostRuns && b.Status.Finished != nil && t.now.Sub(b.Status.Finished.Time) < keepFailed {
				continue
			}
			if b.DeletionTimestamp.IsZero() {
				if err := t.client.Delete(ctx, b.DeepCopy()); client.IgnoreNotFound(err) != nil {
					return fmt.Errorf("delete backup %s: %w", b.Name, err)
				}
			}
		}
	}
	return nil
}

// selected is what one Backup of a run is of.
type selected struct {
	application string
	by          v1alpha1.Applications
}

// choose resolves what the policy selects at present, one selection for each Backup. What is named and is not there gets one, too, so that
// it fails and is seen.
func (t *turn) choose(ctx context.Context) ([]selected, error) {
	p := t.policy
	var chosen []selected
	seen := map[string]bool{}
	for _, source := range applicationsOf(p) {
		found, err := t.Cluster.Find(ctx, source, p.Namespace, t.System)
		missing := errors.Is(err, fault.ErrNotFound)
		if err != nil && !missing {
			return nil, fault.Wrap("policy "+p.Name, nil, err, "")
		}
		of := deploymentsOf
		if len(source.ArgoCD)+len(source.Flux) == 0 {
			of = namespacesOf
		}
		for _, s := range of(source, found, missing) {
			if seen[s.application] {
				return nil, fault.New("policy "+p.Name, fault.ErrInvalid, "application "+s.application+" is selected twice", "give one of the sources another name")
			}
			seen[s.application] = true
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// deploymentsOf are the applications that GitOps engines deploy, and those that a selection names and that were not found.
func deploymentsOf(source v1alpha1.Applications, found []kube.Application, missing bool) []selected {
	if missing && source.Name != "" {
		return []selected{{source.Name, source}}
	}
	var all []selected
	there := map[string]bool{}
	for _, a := range found {
		all = append(all, selected{a.Name, a.Alone(source)})
		for _, d := range a.Deployed {
			engine, name, _ := strings.Cut(d.Name, "/")
			there[engine+" "+name], there[engine+" "+path.Base(name)] = true, true // as globs name it
		}
	}
	absent := func(engine string, globs []string, only func(glob string) v1alpha1.Applications) {
		for _, g := range globs {
			if missing && !there[engine+" "+g] && !strings.ContainsAny(g, `*?[\`) {
				all = append(all, selected{strings.ReplaceAll(g, "/", "."), only(g)})
			}
		}
	}
	absent(v1alpha1.EngineArgoCD, source.ArgoCD, func(g string) v1alpha1.Applications {
		return v1alpha1.Applications{ArgoCD: []string{g}, Capture: source.Capture}
	})
	absent(v1alpha1.EngineFlux, source.Flux, func(g string) v1alpha1.Applications {
		return v1alpha1.Applications{Flux: []string{g}, Capture: source.Capture}
	})
	return all
}

// namespacesOf are the applications that are namespaces.
func namespacesOf(source v1alpha1.Applications, found []kube.Application, missing bool) []selected {
	named := source
	named.NamespaceSelector, named.ExcludeNamespaces = nil, nil
	var namespaces []string
	for _, a := range found {
		namespaces = append(namespaces, a.Namespaces...)
	}
	if missing {
		namespaces = append(namespaces, absentees(source, namespaces)...)
	}
	var all []selected
	for _, group := range grouped(source.Name, namespaces) {
		named.Namespaces = group
		all = append(all, selected{cmp.Or(source.Name, group[0]), *named.DeepCopy()})
	}
	return all
}

// grouped is the namespaces of each application: all of them with a name, else each for itself.
func grouped(name string, namespaces []string) [][]string {
	if name != "" && len(namespaces) > 0 {
		return [][]string{namespaces}
	}
	var groups [][]string
	for _, n := range namespaces {
		groups = append(groups, []string{n})
	}
	return groups
}

// absentees are the namespaces that a selection names and that were not found.
func absentees(source v1alpha1.Applications, found []string) []string {
	var missing []string
	for _, n := range source.Namespaces {
		excluded := slices.ContainsFunc(source.ExcludeNamespaces, func(pattern string) bool {
			is, err := path.Match(pattern, n)
			return err == nil && is
		})
		if !strings.ContainsAny(n, `*?[\`) && !slices.Contains(found, n) && !slices.Contains(missing, n) && !excluded {
			missing = append(missing, n)
		}
	}
	return missing
}

// create makes the Backup of an application in a run; it may be there already.
func (t *turn) create(ctx context.Context, run string, s selected) error {
	b := t.backup(run, "-"+s.application)
	b.Spec.Application = s.by
	if len(validation.IsValidLabelValue(s.application)) == 0 {
		b.Labels[v1alpha1.LabelApplication] = s.application
	}
	return t.make(ctx, b)
}

// createRepositories makes the Backup of all sources that are no applications.
func (t *turn) createRepositories(ctx context.Context, run string) error {
	b := t.backup(run, ".repositories") // the name of no application's
	b.Spec.Repositories = true
	return t.make(ctx, b)
}

// backup is a Backup of a run, without what it is of.
func (t *turn) backup(run, what string) *v1alpha1.Backup {
	p := t.policy
	return &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{
			Name: short(run + what), Namespace: p.Namespace,
			Labels:     map[string]string{v1alpha1.LabelPolicy: p.Name, v1alpha1.LabelRun: run},
			Finalizers: []string{v1alpha1.FinalizerRunning},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPolicy, Name: p.Name, UID: p.UID}, // it blocks nobody's deletion
			},
		},
		Spec: v1alpha1.BackupSpec{Policy: p.Name, ServiceAccountName: p.Spec.ServiceAccountName, Deadline: p.Spec.Deadline},
	}
}

func (t *turn) make(ctx context.Context, b *v1alpha1.Backup) error {
	if err := t.client.Create(ctx, b); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create backup %s: %w", b.Name, err)
	}
	return nil
}

// runName is the label that holds the Backups of a run together.
func runName(policy, what string) string { return short(policy + "-" + what) }

// stamp is a time in names: to the minute, and to the second where it is of none.
func stamp(at time.Time) string {
	at = at.UTC()
	if at.Second() == 0 {
		return at.Format("200601021504")
	}
	return at.Format("20060102150405")
}

const (
	maxName    = 63
	nameDigits = 8
)

// short is a name as long as names and labels may be. One that is longer ends in digits of its hash.
func short(name string) string {
	if len(name) <= maxName {
		return name
	}
	return strings.TrimRight(name[:maxName-nameDigits-1], "-.") + "-" + digits(name)
}

func digits(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:nameDigits]
}

// number is a number that follows from texts, and looks like chance.
func number(texts ...string) uint64 {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\n")))
	return binary.BigEndian.Uint64(sum[:])
}
