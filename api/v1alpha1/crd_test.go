package v1alpha1_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
)

// TestDefinitionsAreOfTheTypes makes the definitions of the custom resources of the types, their comments and tags, and compares them
// with what is in deploy/crds.
func TestDefinitionsAreOfTheTypes(t *testing.T) {
	types := parseTypes(t)
	for _, r := range resources() {
		text, err := yaml.Marshal(types.crd(r))
		if err != nil {
			t.Fatal(err)
		}
		// kubectl apply keeps a copy of what it applied in an annotation, as JSON; annotations are 256 KiB at most.
		kept, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if limit := 200 << 10; len(kept) > limit {
			t.Errorf("%s: %d bytes are too many for kubectl apply", r.plural, len(kept))
		}
		made := "# Made by go test ./api/v1alpha1 -update, of the types there.\n" + string(text)
		written(t, filepath.Join("..", "..", "deploy", "crds", v1alpha1.Group+"_"+r.plural+".yaml"), []byte(made))
	}
}

// resource is how a kind shows on a cluster.
type resource struct {
	kind, plural, short string
	columns             []column
	fixed               []rule // what does not change
}

// column is one of those that kubectl get prints; wide ones only with -o wide.
type column struct {
	name, kind, path string
	wide             bool
}

func resources() []resource {
	age := column{"Age", "date", ".metadata.creationTimestamp", false}
	ready := column{"Ready", "string", `.status.conditions[?(@.type=="Ready")].status`, false}
	message := column{"Message", "string", `.status.conditions[?(@.type=="Ready")].message`, true}
	application := column{"Application", "string", `.metadata.labels.backstay\.io/application`, false}
	return []resource{
		{kind: v1alpha1.KindLocation, plural: "locations", short: "bsl", columns: []column{
			{"URL", "string", ".spec.url", false},
			ready,
			{"Points", "integer", ".status.points", false},
			{"Synced", "date", ".status.synced", false},
			{"Maintained", "date", ".status.maintained", true},
			message, age,
		}},
		{kind: v1alpha1.KindPolicy, plural: "policies", short: "bsp", columns: []column{
			{"Schedule", "string", ".spec.schedule.cron", false},
			{"Suspended", "boolean", ".spec.suspend", true},
			{"Location", "string", ".spec.location", false},
			{"Applications", "integer", ".status.applications", false},
			ready,
			{"Last good", "date", ".status.lastGood", false},
			{"Next run", "string", ".status.nextRun", false}, // a date to come would print as <invalid>
			message, age,
		}},
		{kind: v1alpha1.KindBackup, plural: "backups", short: "bsb", fixed: unchanged(v1alpha1.KindBackup), columns: []column{
			application,
			{"Phase", "string", ".status.phase", false},
			{"Point", "string", ".status.point", false},
			{"Stored", "integer", ".status.parts.stored", false},
			{"Expected", "integer", ".status.parts.expected", false},
			{"Bytes", "integer", ".status.parts.bytes", true},
			message, age,
		}},
		{kind: v1alpha1.KindRestorePoint, plural: "restorepoints", short: "bsrp", fixed: samePoint(), columns: []column{
			{"Application", "string", ".spec.application", false},
			{"State", "string", ".spec.state", false},
			{"Taken", "date", ".spec.time", false},
			{"Proven", "string", `.status.conditions[?(@.type=="Proven")].status`, false},
			{"Location", "string", ".spec.location", false},
			{"Bytes", "integer", ".spec.bytes", false},
			{"Local", "integer", ".status.localSnapshots", false},
			{"Revision", "string", ".spec.revisions[0]", true},
			{"Cluster", "string", ".spec.cluster", true},
			{"Policy", "string", ".spec.policy", true},
			age,
		}},
		{kind: v1alpha1.KindRestore, plural: "restores", short: "bsr", fixed: unchanged(v1alpha1.KindRestore), columns: []column{
			{"Phase", "string", ".status.phase", false},
			{"Point", "string", ".status.point", false},
			{"Create", "integer", ".status.plan.create", false},
			{"Replace", "integer", ".status.plan.replace", false},
			{"Keep", "integer", ".status.plan.keep", false},
			{"Volumes", "integer", ".status.plan.volumes", false},
			{"Undo until", "string", ".status.undoUntil", true},
			{"Took", "string", ".status.gitops.took", true},
			message, age,
		}},
		{kind: v1alpha1.KindGate, plural: "gates", short: "bsg", fixed: unchanged(v1alpha1.KindGate), columns: []column{
			{"Deployment", "string", ".status.sync.deployment", false},
			{"From", "string", ".status.sync.from[0]", true},
			{"To", "string", ".status.sync.to[0]", false},
			{"Phase", "string", ".status.phase", false},
			{"Reason", "string", ".status.reason", false},
			{"Point", "string", ".status.point", false},
			{"By", "string", ".status.sync.by", true},
			{"Message", "string", ".status.message", true},
			age,
		}},
		{kind: v1alpha1.KindDrill, plural: "drills", short: "bsd", fixed: unchanged(v1alpha1.KindDrill), columns: []column{
			application,
			{"Phase", "string", ".status.phase", false},
			{"Proven", "string", `.status.conditions[?(@.type=="Ready")].status`, false},
			{"Took", "string", ".status.restoreTook", false},
			{"Point", "string", ".status.point", false},
			message, age,
		}},
	}
}

// unchanged holds while all of a spec is as it was made.
func unchanged(kind string) []rule {
	return []rule{{"self == oldSelf", "spec does not change: make a new " + kind}}
}

// samePoint lets the controller correct what a location says of a point, but not make it stand for another one.
func samePoint() []rule {
	return []rule{{
		"self.location == oldSelf.location && self.point == oldSelf.point && self.cluster == oldSelf.cluster && " +
			"self.application == oldSelf.application && self.time == oldSelf.time",
		"a RestorePoint stands for one point: location, point, cluster, application and time do not change",
	}}
}

// rule is what a field cannot say alone, as CEL, with what users read when it does not hold.
type rule struct{ holds, message string }

// rules of structs, beside those that tags make. internal/config says the same of files.
func rules(name string) []rule {
	named := rule{
		fmt.Sprintf("self.metadata.name.matches('%s')", namePattern),
		"a name has lowercase letters, digits and dashes, at most 63, and neither begins nor ends with a dash",
	}
	switch name {
	case v1alpha1.KindLocation, v1alpha1.KindPolicy:
		return []rule{named}
	case "PolicySpec":
		return []rule{
			{"has(self.location)", "location is missing: the Location that takes the points of applications"},
		}
	case "Source":
		return []rule{{"!has(self.name) || !has(self.applications)", "applications are named by applications.name, or by their namespaces"}}
	case "Retention":
		return []rule{{
			"has(self.last) || has(self.hourly) || has(self.daily) || has(self.weekly) || has(self.monthly) || has(self.yearly) || has(self.within)",
			"keeps everything, as without it: say last, daily or another rule, or leave it out",
		}}
	case "BackupSpec":
		return []rule{{"has(self.policy) || has(self.location)", "policy or location is missing"}}
	case "RestoreSpec":
		return []rule{
			{
				"!has(self.undo) || !(has(self.namespaces) || has(self.only) || has(self.objects) || has(self.claims) || has(self.existing) || " +
					"has(self.storageClasses) || has(self.transforms) || has(self.clusterObjects))",
				"undo puts back what a Restore exchanged; nothing is chosen or changed with it",
			},
			{"!has(self.only) || self.only != 'data' || !(has(self.objects) || has(self.transforms))", "only data is asked for: objects and transforms go with configuration"},
			{
				fmt.Sprintf("!has(self.namespaces) || self.namespaces.all(from, from.matches('%[1]s') && self.namespaces[from].matches('%[1]s'))", namePattern),
				"names of namespaces are expected, those in the point to those on the cluster",
			},
			{"!has(self.only) || self.only != 'config' || !has(self.claims)", "only configuration is asked for: claims go with data"},
		}
	case "PatchOperation":
		return []rule{
			{"!(self.op in ['add', 'replace', 'test']) || has(self.value)", "add, replace and test need a value"},
			{"!(self.op in ['move', 'copy']) || has(self.from)", "move and copy need from"},
		}
	}
	return nil
}

// refusals say why fields with the tag cluster:"-" are refused.
func refusals(name string) string {
	switch name {
	case "Secret":
		return "on a cluster a secret is a key of a Secret: secretKeyRef; env, file and command are for files"
	case "Source":
		return "on a cluster a policy takes applications and repositories; a directory is of one machine"
	case "Access", "Forge", "Git":
		return "on a cluster git goes over https, and authorities come out of a Secret, as ca; ssh and caFile are for files"
	default:
		return "on a cluster a policy takes restore points into a location; exports, mirrors and notify are for files, which backstay run takes"
	}
}

// checkRules are those of single values.
func checkRules(check string) []rule {
	switch check {
	case "url":
		return []rule{{"self.matches('^https?://[^/?#@]+([/?#]|$)')", "on a cluster https://HOST… or http://HOST… is expected, without credentials: those go with token or password"}}
	case "location":
		return []rule{
			{`!self.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*:[^/?#]*@')`, "a password in a URL: say where it is, as password: {secretKeyRef: {name: NAME, key: KEY}}"},
			{"self.matches('^(s3|gs|azblob|sftp|webdav|webdavs)://.')", "on a cluster a location is s3://, gs://, azblob://, sftp://, webdav:// or webdavs://: a directory is of one machine"},
		}
	case "cron":
		return []rule{{
			`self.matches('^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|@every [0-9hms.]+|[^\\s@]+(\\s+[^\\s@]+){4})$')`,
			"five fields are expected (minute, hour, day, month, weekday), or @hourly, @daily, @weekly, @monthly, @yearly, @every 6h",
		}}
	default:
		return nil
	}
}

// bounds let the API server reckon what rules cost, and keep objects within what etcd takes.
const (
	maxText    = 1024
	maxName    = 63
	maxSpan    = 32
	maxTexts   = 1000 // in a list
	maxStructs = 100  // in a list or map
)

func (m model) crd(r resource) object {
	root := m.structure(m.find(r.kind), true)
	properties := root["properties"].(object)
	properties["apiVersion"] = object{"type": "string", "description": "The version of this shape."}
	properties["kind"] = object{"type": "string", "description": r.kind + "."}
	properties["metadata"] = object{"type": "object"}
	root["required"] = []string{"spec"}
	if len(r.fixed) > 0 {
		spec := properties["spec"].(object)
		existing, _ := spec["x-kubernetes-validations"].([]object)
		spec["x-kubernetes-validations"] = append(existing, objects(r.fixed)...)
	}
	var columns []object
	for _, c := range r.columns {
		one := object{"name": c.name, "type": c.kind, "jsonPath": c.path}
		if c.wide {
			one["priority"] = 1
		}
		columns = append(columns, one)
	}
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": r.plural + "." + v1alpha1.Group},
		"spec": object{
			"group": v1alpha1.Group, "scope": "Namespaced",
			"names": object{
				"kind": r.kind, "listKind": r.kind + "List", "plural": r.plural, "singular": strings.ToLower(r.kind),
				"shortNames": []string{r.short}, "categories": []string{"backstay"},
			},
			"versions": []object{{
				"name": v1alpha1.Version, "served": true, "storage": true, "subresources": object{"status": object{}},
				"additionalPrinterColumns": columns, "schema": object{"openAPIV3Schema": root},
			}},
		},
	}
}

func objects(rules []rule) []object {
	var all []object
	for _, r := range rules {
		all = append(all, object{"rule": r.holds, "message": r.message})
	}
	return all
}

// structure is the schema of a struct. What users write is bounded; what the controller writes is not, lest a long message keeps it
// from telling anything.
func (m model) structure(s structType, bounded bool) object {
	properties := object{}
	d := object{"type": "object", "description": s.doc, "properties": properties}
	var required, refused []string
	var all []rule
	groups := map[string][]string{}
	for _, f := range m.flat(s) {
		clusters := f.tag.Get("cluster") != "-"
		if !clusters {
			refused = append(refused, f.name)
			properties[f.name] = m.refused(f)
			continue
		}
		properties[f.name] = m.field(f, bounded && !f.status())
		if f.required && f.name != "metadata" {
			required = append(required, f.name)
		}
		if group := f.tag.Get("oneof"); group != "" {
			groups[group] = append(groups[group], f.name)
		}
	}
	if len(refused) > 0 {
		all = append(all, rule{"!(" + anyOf(refused) + ")", refusals(s.name)})
	}
	for _, names := range groups { // no struct has two
		all = append(all, exactlyOne(names))
	}
	all = append(all, rules(s.name)...)
	if len(required) > 0 {
		d["required"] = required
	}
	if len(all) > 0 {
		d["x-kubernetes-validations"] = objects(all)
	}
	return d
}

func anyOf(names []string) string { return "has(self." + strings.Join(names, ") || has(self.") + ")" }

func exactlyOne(names []string) rule {
	if len(names) == 1 {
		return rule{anyOf(names), names[0] + " is missing"}
	}
	return rule{
		"[has(self." + strings.Join(names, "), has(self.") + ")].exists_one(given, given)",
		"exactly one of these is given: " + strings.Join(names, ", "),
	}
}

// refused is a field that is for files only: of its shape no more is said than a rule needs that sees it.
func (m model) refused(f structField) object {
	hollow := object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	p := hollow
	switch kind := f.kind.(type) {
	case *ast.ArrayType:
		p = object{"type": "array", "items": hollow, "maxItems": maxStructs}
	case *ast.Ident:
		if kind.Name == "string" {
			p = object{"type": "string", "maxLength": maxText}
		}
	}
	p["description"] = "For files; not on a cluster. " + f.doc
	return p
}

func (m model) field(f structField, bounded bool) object {
	p := m.kind(f.kind, f, bounded)
	if f.doc != "" {
		p["description"] = f.doc
	}
	if f.required && p["type"] == "array" && bounded {
		p["minItems"] = 1
	}
	if f.name == "conditions" {
		p["x-kubernetes-list-type"] = "map"
		p["x-kubernetes-list-map-keys"] = []string{"type"}
	}
	return p
}

func (m model) kind(kind ast.Expr, f structField, bounded bool) object {
	switch kind := kind.(type) {
	case *ast.ArrayType:
		p := object{"type": "array", "items": m.kind(kind.Elt, f, bounded)}
		if bounded {
			p["maxItems"] = maxStructs
			if typeName(kind.Elt) == "string" {
				p["maxItems"] = maxTexts
			}
		}
		return p
	case *ast.MapType:
		p := object{"type": "object", "additionalProperties": m.kind(kind.Value, structField{}, bounded)}
		if bounded {
			p["maxProperties"] = maxStructs
		}
		return p
	}
	switch name := typeName(kind); name {
	case "string":
		return text(f, bounded)
	case "bool":
		return object{"type": "boolean"}
	case "int", "int64":
		p := object{"type": "integer", "format": "int64"}
		if f.tag.Get("check") == "count" {
			p["minimum"] = 0
		}
		return p
	case "metav1.Time", "metav1.MicroTime":
		p := object{"type": "string", "format": "date-time"}
		if !bounded { // Go writes a time that is not yet known as null
			p["nullable"] = true
		}
		return p
	case "metav1.LabelSelector":
		return selector()
	case "metav1.Condition":
		return condition()
	case "metav1.ObjectMeta":
		return object{"type": "object"}
	default:
		return m.named(name, bounded)
	}
}

// named is a type of this package.
func (m model) named(name string, bounded bool) object {
	for _, one := range m.texts {
		if one == name {
			return object{"type": "string"}
		}
	}
	s := m.find(name)
	if s.name == "" {
		panic("no schema for " + name)
	}
	return m.structure(s, bounded)
}

func text(f structField, bounded bool) object {
	p := object{"type": "string"}
	if !bounded {
		return p
	}
	check := f.tag.Get("check")
	longest, err := strconv.Atoi(cmp.Or(f.tag.Get("max"), strconv.Itoa(maxText)))
	if err != nil {
		panic(err)
	}
	p["maxLength"] = longest
	switch check {
	case "name":
		p["maxLength"] = maxName
	case "span", "duration":
		p["maxLength"] = maxSpan
	}
	if f.required || check == "glob" {
		p["minLength"] = 1
	}
	if enum := f.tag.Get("enum"); enum != "" {
		p["enum"] = strings.Split(enum, ",")
	}
	if pattern := patterns[check]; pattern != "" {
		p["pattern"] = pattern
	}
	if more := checkRules(check); len(more) > 0 {
		p["x-kubernetes-validations"] = objects(more)
	}
	return p
}

// selector is Kubernetes' own label selector.
func selector() object {
	word := object{"type": "string", "maxLength": maxText}
	words := object{"type": "array", "items": word, "maxItems": maxTexts, "x-kubernetes-list-type": "atomic"}
	expression := object{
		"type": "object", "required": []string{"key", "operator"},
		"properties": object{
			"key": word, "operator": object{"type": "string", "enum": []string{"In", "NotIn", "Exists", "DoesNotExist"}}, "values": words,
		},
		"x-kubernetes-validations": objects([]rule{{
			"(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)", "In and NotIn have values, Exists and DoesNotExist none",
		}}),
	}
	return object{
		"type": "object", "x-kubernetes-map-type": "atomic",
		"properties": object{
			"matchLabels": object{"type": "object", "additionalProperties": word, "maxProperties": maxStructs},
			"matchExpressions": object{
				"type": "array", "items": expression, "maxItems": 20, "x-kubernetes-list-type": "atomic",
			},
		},
	}
}

// condition is Kubernetes' own.
func condition() object {
	return object{
		"type": "object", "required": []string{"lastTransitionTime", "message", "reason", "status", "type"},
		"properties": object{
			"type":               object{"type": "string", "maxLength": 316},
			"status":             object{"type": "string", "enum": []string{"True", "False", "Unknown"}},
			"reason":             object{"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
			"message":            object{"type": "string", "maxLength": 32768},
			"lastTransitionTime": object{"type": "string", "format": "date-time"},
			"observedGeneration": object{"type": "integer", "format": "int64", "minimum": 0},
		},
	}
}
