package convert

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
)

// isModifier recognises a ConfigMap of changes to objects that are restored.
func isModifier(o Object) bool {
	data, _ := o["data"].(map[string]any)
	for _, raw := range data {
		if text, _ := raw.(string); strings.Contains(text, "resourceModifierRules:") {
			return o.text("kind") == "ConfigMap" && o.group() == ""
		}
	}
	return false
}

// veleroModifier reads changes for the Restores that name them.
func (c *conversion) veleroModifier(s *source) {
	data, _ := s.take("data").raw.(map[string]any)
	var rules *source
	for _, raw := range data { // Velero wants exactly one key
		text, _ := raw.(string)
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(text), &tree); err != nil || tooDeep(tree, mostDepth) || rules != nil {
			s.drop(Dropped, "no rules can be read of it")
			return
		}
		rules = &source{Object: s.Object, place: "data", tree: tree, result: s.result}
	}
	if rules == nil {
		return
	}
	rules.take("version")
	var transforms []v1alpha1.Transform
	rules.each("resourceModifierRules", func(rule *source) {
		if t, ok := transform(rule); ok {
			transforms = append(transforms, t)
		}
	})
	rules.tellRest()
	c.modifiers[s.namespace()+"/"+s.name()] = &modifier{transforms: transforms, from: s.String()}
}

// unusedModifiers tells of changes that no Restore makes.
func (c *conversion) unusedModifiers() {
	for _, name := range slices.Sorted(maps.Keys(c.modifiers)) {
		if m := c.modifiers[name]; !m.used && len(m.transforms) > 0 {
			c.result.Entries = append(c.result.Entries, Entry{Object: m.from, Fate: Dropped, Why: "no Restore among the documents names it"})
		}
	}
}

// modifier is what a ConfigMap changes.
type modifier struct {
	transforms []v1alpha1.Transform
	from       string
	used       bool
}

// exactly reads an expression that is a name and no more.
var exactly = regexp.MustCompile(`^\^([a-z0-9][-a-z0-9.]*)\$$`)

// transform turns a rule into a Transform.
func transform(s *source) (v1alpha1.Transform, bool) {
	var t v1alpha1.Transform
	resource, name := s.take("conditions.groupResource"), s.take("conditions.resourceNameRegex")
	kind, ok := single(resource.text())
	if !ok && resource.text() != "*" {
		s.drop(Dropped, "the rule is not there: transforms name a kind as KIND.GROUP, and which "+resource.text()+" is, is not known")
		return t, false
	}
	t.Objects = kind
	if resource.text() == "*" {
		t.Objects = "*"
	}
	resource.kept("transforms.objects")
	if found := exactly.FindStringSubmatch(name.text()); found != nil && t.Objects != "*" {
		t.Objects += "/" + found[1]
		name.kept("transforms.objects")
	} else if name.there && name.text() != ".*" && name.text() != "^.*$" {
		s.drop(Dropped, "the rule is not there: transforms name one object, or all of a kind, by no expression")
		return t, false
	}
	for _, path := range []string{"conditions.namespaces", "conditions.labelSelector", "mergePatches", "strategicPatches"} {
		if s.take(path).there {
			s.drop(Dropped, "the rule is not there: "+path+" has no counterpart; a JSON patch with a test may do the same")
			return t, false
		}
	}
	s.each("conditions.matches", func(one *source) {
		path, value := one.take("path"), one.take("value")
		t.Patch = append(t.Patch, v1alpha1.PatchOperation{Op: "test", Path: path.text(), Value: asJSON(value.text())})
		path.kept("transforms.patch: test")
	})
	s.each("patches", func(one *source) {
		operation, path, from, value := one.take("operation"), one.take("path"), one.take("from"), one.take("value")
		o := v1alpha1.PatchOperation{Op: operation.text(), Path: path.text(), From: from.text()}
		if o.Op == "add" || o.Op == "replace" || o.Op == "test" {
			o.Value = asJSON(value.text())
		}
		t.Patch = append(t.Patch, o)
		path.kept("transforms.patch: " + o.Op)
	})
	return t, len(t.Patch) > 0
}

// asJSON is a value of a rule as JSON text: Velero takes text for JSON where it can be.
func asJSON(text string) string {
	if text != "" && json.Valid([]byte(text)) {
		return text
	}
	quoted, _ := json.Marshal(text) // text can always be quoted
	return string(quoted)
}

// veleroRestore turns a Restore that has not run into Restores, one for each namespace.
func (c *conversion) veleroRestore(s *source) {
	if phase := s.status("phase"); phase != "" && phase != "New" {
		s.drop(Needless, "it has been done")
		return
	}
	w := &restoreWork{conversion: c, source: s}
	w.spec.PlanOnly = true
	w.from()
	w.what()
	w.how()
	if len(w.namespaces) == 0 {
		s.drop(Dropped, "no Restore is made: which namespaces it is of is not in the documents; say spec.includedNamespaces, or bring the Backup or Schedule")
		return
	}
	for _, namespace := range w.namespaces {
		w.one(namespace)
	}
	s.tell("", Changed, "spec.planOnly: true", "applied, it plans only; take the line away to have it done")
}

// restoreWork is one Restore of Velero under conversion.
type restoreWork struct {
	*conversion
	source     *source
	location   string
	namespaces []string // in the point
	mapping    map[string]string
	spec       v1alpha1.RestoreSpec
}

// from says of which application's point, by the Schedule or Backup that is named.
func (w *restoreWork) from() {
	s := w.source
	schedule, backup := s.take("spec.scheduleName"), s.take("spec.backupName")
	w.location = w.conversion.location
	take := func(location string, sources []v1alpha1.Source) {
		w.location = location
		for _, source := range sources {
			for _, namespace := range source.Applications.Namespaces {
				if !isGlob(namespace) {
					w.namespaces = append(w.namespaces, namespace)
				}
			}
		}
	}
	if p := w.policyOf("velero", s.namespace(), schedule.text()); p != nil {
		take(p.Spec.Location, p.Spec.Sources)
	}
	for _, b := range w.backups {
		if b.from == "Backup "+s.namespace()+"/"+backup.text() {
			take(b.object.Spec.Location, []v1alpha1.Source{{Applications: &b.object.Spec.Application}})
		}
	}
	const why = "the newest complete point, as Backstay does not read Velero's data"
	schedule.changed("spec.latest", why)
	backup.changed("spec.latest", why)
}

// what says which namespaces and objects.
func (w *restoreWork) what() {
	s := w.source
	included, excluded, mapped := s.take("spec.includedNamespaces"), s.take("spec.excludedNamespaces"), s.take("spec.namespaceMapping")
	if names := included.texts(); included.there && !slices.Contains(names, "*") {
		w.namespaces = slices.DeleteFunc(names, isGlob)
		included.kept("spec.latest.application")
	}
	w.mapping = mapped.words()
	mapped.kept("spec.namespaces")
	out := excluded.texts()
	w.namespaces = slices.DeleteFunc(sorted(w.namespaces), func(n string) bool { return covers(out, n) })
	excluded.kept("spec.latest.application")
	kinds := s.take("spec.includedResources")
	for _, text := range kinds.texts() {
		if text == "*" {
			continue
		}
		kind, ok := single(text)
		if !ok {
			s.tell("spec.includedResources", Dropped, "", text+": objects are named by KIND.GROUP, and the kind is not known")
			continue
		}
		w.spec.Objects = append(w.spec.Objects, kind)
		s.tell("spec.includedResources", Kept, "spec.objects: "+kind, "")
	}
	s.take("spec.excludedResources").dropped("a Restore says what it takes, not what it leaves: spec.objects, spec.only")
	for _, path := range []string{"spec.labelSelector", "spec.orLabelSelectors"} {
		s.take(path).dropped("a Restore names objects, and does not choose them by labels: spec.objects")
	}
	if all := s.take("spec.includeClusterResources"); all.there {
		on := all.flag()
		w.spec.ClusterObjects = &on
		all.kept("spec.clusterObjects")
	}
}

// how says what happens to what is there, and what is changed.
func (w *restoreWork) how() {
	s := w.source
	existing := s.take("spec.existingResourcePolicy")
	switch existing.text() {
	case "update":
		w.spec.Existing = v1alpha1.ExistingReplace
		existing.changed("spec.existing: replace", "objects become as in the point, and volumes, too: their data is exchanged, which Velero does not do")
	case "none":
		w.spec.Existing = v1alpha1.ExistingKeep
		existing.changed("spec.existing: keep", "of objects; data in claims is exchanged, unless spec.only is config")
	default:
		existing.dropped("not known")
	}
	if volumes := s.take("spec.restorePVs"); volumes.there && !volumes.flag() {
		w.spec.Only = v1alpha1.OnlyConfig
		volumes.kept("spec.only: config")
	} else {
		volumes.needless("volumes are restored")
	}
	s.take("spec.preserveNodePorts").changed("", "ports of nodes stay where they are free")
	s.take("spec.restoreStatus").dropped("states are left to those who write them")
	s.take("spec.hooks").dropped("no commands run in restored pods; Blueprints bring data back by their action restore")
	s.take("spec.itemOperationTimeout").needless("a Restore as a whole has a deadline: 4h, spec.deadline")
	s.take("spec.uploaderConfig").needless("found out by itself")
	s.take("spec.resourceModifier.kind").needless("it is a ConfigMap")
	named := s.take("spec.resourceModifier.name")
	found := w.modifiers[s.namespace()+"/"+named.text()]
	if named.there && found == nil {
		named.dropped("the ConfigMap is not among the documents")
	}
	if found == nil {
		return
	}
	found.used = true
	w.spec.Transforms = found.transforms
	named.kept("spec.transforms")
}

// one makes the Restore of one namespace.
func (w *restoreWork) one(namespace string) {
	key := w.source.name()
	if len(w.namespaces) > 1 {
		key += "-" + namespace
	}
	r := &v1alpha1.Restore{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindRestore},
		ObjectMeta: metav1.ObjectMeta{Name: w.name(v1alpha1.KindRestore, w.source.namespace(), key), Namespace: w.namespace},
	}
	w.spec.DeepCopyInto(&r.Spec)
	r.Spec.Latest = &v1alpha1.LatestPoint{Location: cmp.Or(w.location, w.conversion.location), Application: namespace}
	if to := w.mapping[namespace]; to != "" {
		r.Spec.Namespaces = map[string]string{namespace: to}
	}
	w.restores = append(w.restores, made[*v1alpha1.Restore]{w.source.String(), r})
}
