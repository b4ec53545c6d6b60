package convert

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

const (
	k10Group     = "config.kio.kasten.io"
	k10Namespace = "kasten-io"
	// k10App is the label by which K10 names namespaces.
	k10App = "k10.kasten.io/appNamespace"
)

func (c *conversion) k10Readers() []reader {
	return []reader{
		{kind(k10Group, "Profile"), c.k10Profile},
		{kind(k10Group, "Policy"), c.k10Policy},
		{kind(k10Group, "BlueprintBinding"), c.k10Binding},
		{isK10Right, c.k10Right},
		{isK10Hook, c.k10Hook},
		{kind(k10Group, "PolicyPreset"), func(s *source) {
			s.drop(Needless, "policies have what it says where they name it: see presetRef there")
		}},
	}
}

// k10Profile turns a location profile into a Location.
func (c *conversion) k10Profile(s *source) {
	if what := s.take("spec.type"); what.text() != "Location" {
		s.drop(Dropped, "only location profiles have a counterpart: volumes are captured by CSI snapshots, with no credentials of an infrastructure")
		return
	}
	place := s.take("spec.locationSpec.type")
	if place.text() != "ObjectStore" {
		s.drop(Dropped, "a "+place.text()+" is no place for a vault: an object store, SFTP or WebDAV is")
		return
	}
	s.take("spec.locationSpec.infraPortable").needless("points are read on any cluster")
	const store = "spec.locationSpec.objectStore."
	b := bucket{options: url.Values{}}
	name := s.take(store + "name")
	b.name = name.text()
	name.kept("spec.url")
	within := s.take(store + "path")
	b.prefix = within.text()
	within.changed("spec.url", "beside K10's data, not within it")
	s.take(store + "pathType").needless("it goes with path")
	if region := s.take(store + "region"); region.text() != "" {
		b.options.Set("region", region.text())
		region.kept("spec.url")
	}
	b.endpoint(s.take(store + "endpoint"))
	if skip := s.take(store + "skipSSLVerify"); skip.flag() {
		skip.dropped("certificates are always checked: have the store's authority in the image, or tls=false for a store without")
	}
	s.take(store + "protectionPeriod").dropped("locks are of the vault, and are set when it is made: backstay location create URL --lock compliance --lock-period 30d")
	c.k10Credentials(s, b, s.take(store+"objectStoreType"))
}

// k10Credentials finishes a location with the Secret that its profile names.
func (c *conversion) k10Credentials(s *source, b bucket, store *value) {
	s.take("spec.locationSpec.credential.secretType").needless("the location's URL says it")
	for _, needless := range []string{"apiVersion", "kind"} {
		s.take("spec.locationSpec.credential.secret." + needless).needless("it is a Secret")
	}
	named := s.take("spec.locationSpec.credential.secret.name")
	secret := named.text()
	namespace := s.take("spec.locationSpec.credential.secret.namespace")
	from := namespace.text()
	namespace.needless("Secrets are of the Location's namespace")
	var credentials map[string]v1alpha1.Secret
	switch store.text() {
	case "S3":
		b.scheme = "s3"
		credentials = map[string]v1alpha1.Secret{
			"AWS_ACCESS_KEY_ID": key(secret, "aws_access_key_id"), "AWS_SECRET_ACCESS_KEY": key(secret, "aws_secret_access_key"),
		}
	case "AZ", "Azure":
		b.scheme = "azblob"
		b.options.Del("region")
		b.options.Del("endpoint")
		credentials = map[string]v1alpha1.Secret{
			"AZURE_STORAGE_ACCOUNT": key(secret, "azure_storage_account_id"), "AZURE_STORAGE_KEY": key(secret, "azure_storage_key"),
		}
	case "GCS":
		b.scheme, b.options = "gs", nil
		named.dropped("on a cluster Google's stores are opened by the identity of Backstay's pods (workload identity), not by a key")
		secret = ""
	default:
		s.drop(Dropped, "no such store: S3, GCS and AZ are")
		return
	}
	store.kept("spec.url")
	if secret != "" {
		named.changed("spec.credentials", "the Secret is copied into Backstay's namespace")
		c.copySecret(from, secret)
	} else if credentials != nil {
		credentials = nil
		s.tell("spec.locationSpec.credential.secret", Dropped, "", "no Secret is named: say spec.credentials, or give Backstay's pods a role")
	}
	c.makeLocation(s, b, credentials)
	c.makeSecret(c.name(v1alpha1.KindLocation, s.namespace(), s.name()), "")
}

// k10Policy turns a policy of backups and exports into a Policy.
func (c *conversion) k10Policy(s *source) {
	from := &k10Work{conversion: c, source: s, policy: v1alpha1.Policy{}}
	s.take("spec.comment").needless("it is a comment")
	s.each("spec.actions", from.action)
	if !from.backs {
		fate := Dropped
		if from.imports {
			fate = Needless
		}
		s.drop(fate, "it makes no backups")
		return
	}
	version, name := c.meta(s, v1alpha1.KindPolicy)
	p := &from.policy
	p.TypeMeta = metav1.TypeMeta{APIVersion: version, Kind: v1alpha1.KindPolicy}
	p.ObjectMeta = metav1.ObjectMeta{Name: name, Namespace: c.namespace}
	from.schedule()
	from.retain()
	from.locate()
	a := &from.applications
	if !from.choose() {
		return
	}
	p.Spec.Sources = []v1alpha1.Source{{Applications: a}}
	c.policies = append(c.policies, made[*v1alpha1.Policy]{s.String(), p})
}

// k10Work is one policy of K10 under conversion.
type k10Work struct {
	*conversion
	source       *source
	policy       v1alpha1.Policy
	applications v1alpha1.Applications
	backs        bool                // it has the action backup
	imports      bool                // it has the action import
	exported     *v1alpha1.Retention // of the action export, where it has its own
	exports      bool
	location     string // name of the location that exports go to, else of that which the backup names
}

func (w *k10Work) action(s *source) {
	what := s.take("action")
	switch what.text() {
	case "backup":
		w.backs = true
		what.kept("kind: Policy")
		w.backup(s)
	case "export":
		w.exports = true
		what.kept("spec.location")
		w.export(s)
	case "import":
		w.imports = true
		s.drop(Needless, "points of another cluster show up where its Location is declared")
	default:
		s.drop(Dropped, what.text()+" is not done by a Policy")
	}
}

func (w *k10Work) backup(s *source) {
	const parameters = "backupParameters."
	profile := w.profile(s, parameters+"profile")
	if profile != "" && w.location == "" {
		w.location = profile
	}
	w.profile(s, parameters+"imageRepoProfile")
	if ignore := s.take(parameters + "ignoreExceptions"); ignore.flag() {
		ignore.changed("", "a point that lacks something is made in any case, and is incomplete")
	}
	for _, hook := range []string{"preHook", "onSuccess", "onFailure"} {
		s.take(parameters + "hooks." + hook).dropped("no action of a Blueprint runs for a whole policy: hooks of applications run commands in pods, and Blueprints run for objects")
	}
	w.filters(s, parameters+"filters.")
}

func (w *k10Work) export(s *source) {
	const parameters = "exportParameters."
	if profile := w.profile(s, parameters+"profile"); profile != "" {
		w.location = profile
	}
	if block := w.profile(s, parameters+"blockModeProfile"); block != "" {
		s.tell(parameters+"blockModeProfile", Changed, "spec.location", "claims in block mode go where the others go")
	}
	frequency := s.take(parameters + "frequency")
	if whole, _ := w.source.tree["spec"].(map[string]any); whole["frequency"] != frequency.raw {
		frequency.changed("spec.schedule", "every point is stored, not only some")
	} else {
		frequency.needless("every point is stored")
	}
	s.take(parameters + "migrationToken").needless("points show up wherever the Location is declared")
	s.take(parameters + "receiveString").needless("points show up wherever the Location is declared")
	if enabled := s.take(parameters + "exportData.enabled"); enabled.there && !enabled.flag() {
		enabled.changed("spec.location", "data always goes to the location: snapshots alone are no backup")
	} else {
		enabled.needless("data always goes to the location")
	}
	s.take(parameters + "exportData.exporterStorageClassName").needless("the clone of a snapshot has the storage class of its claim")
	w.exported = retention(s, "retention")
}

// profile takes a reference to a profile and returns its location's name.
func (w *k10Work) profile(s *source, path string) string {
	name, namespace := s.take(path+".name"), s.take(path+".namespace")
	if name.text() == "" {
		return ""
	}
	if strings.HasSuffix(path, "imageRepoProfile") {
		name.dropped("images are not captured")
		return ""
	}
	from := namespace.text()
	if from == "" {
		from = w.source.namespace()
	}
	name.kept("spec.location")
	namespace.needless("a Policy and its Location are of one namespace")
	return w.name(v1alpha1.KindLocation, from, name.text())
}

// locate says where points go, and asks for the Location where none of the profiles is it.
func (w *k10Work) locate() {
	w.policy.Spec.Location = w.location
	if w.location == "" {
		w.policy.Spec.Location = w.conversion.location
		w.source.tell("spec.actions", Changed, "spec.location: "+w.conversion.location,
			"K10 leaves these backups on the cluster, as snapshots; here every point goes to a location")
	}
	w.needLocation(w.policy.Spec.Location)
}

// needLocation asks for a Location that is not written here.
func (c *conversion) needLocation(name string) {
	if !slices.ContainsFunc(c.locations, func(l made[*v1alpha1.Location]) bool { return l.object.Name == name }) {
		c.step("Make a Location %s in namespace %s: docs/kubernetes.md.", name, c.namespace)
	}
}

// schedule turns frequency and subFrequency into five fields. K10's are in UTC.
func (w *k10Work) schedule() {
	s := w.source
	if preset := s.take("spec.presetRef"); preset.there {
		preset.dropped("presets are not read: say spec.schedule, retention and location in the Policy")
	}
	if paused := s.take("spec.paused"); paused.flag() {
		w.policy.Spec.Suspend = true
		paused.kept("spec.suspend")
	}
	for _, path := range []string{"spec.backupWindow", "spec.enableStaggering"} {
		if v := s.take(path); v.there && v.raw != false {
			v.dropped("say spec.schedule.jitter: starts are spread over so long a time")
		}
	}
	frequency := s.take("spec.frequency")
	sub := func(key string, least, most int, otherwise string) string {
		v := s.take("spec.subFrequency." + key)
		numbers := v.counts(least, most)
		if len(numbers) == 0 {
			return otherwise
		}
		v.kept("spec.schedule.cron")
		var fields []string
		for _, n := range numbers {
			fields = append(fields, strconv.Itoa(n))
		}
		return strings.Join(fields, ",")
	}
	hour, day, weekday, month := "*", "*", "*", "*"
	switch frequency.text() {
	case "@onDemand", "":
		frequency.changed("", "without a schedule it runs when its annotation backstay.io/run-now gets a new value")
		return
	case "@hourly":
	case "@daily":
		hour = sub("hours", 0, 23, "0")
	case "@weekly":
		hour, weekday = sub("hours", 0, 23, "0"), sub("weekdays", 0, 6, "0")
	case "@monthly":
		hour, day = sub("hours", 0, 23, "0"), sub("days", 1, 31, "1")
	case "@yearly":
		hour, day, month = sub("hours", 0, 23, "0"), sub("days", 1, 31, "1"), sub("months", 1, 12, "1")
	default:
		frequency.dropped("not known: say spec.schedule.cron")
		return
	}
	cron := fmt.Sprintf("%s %s %s %s %s", sub("minutes", 0, 59, "0"), hour, day, month, weekday)
	w.policy.Spec.Schedule = &v1alpha1.Schedule{Cron: cron, TimeZone: "UTC"}
	frequency.kept("spec.schedule")
}

// retain says how long points are kept: as long as exports, where these have a retention of their own.
func (w *k10Work) retain() {
	s := w.source
	snapshots := retention(s, "spec.retention")
	w.policy.Spec.Retention = w.exported
	if w.exported == nil {
		w.policy.Spec.Retention = snapshots
	}
	if snapshots == nil {
		return
	}
	keep := max(snapshots.Last, snapshots.Hourly, snapshots.Daily, snapshots.Weekly, snapshots.Monthly, snapshots.Yearly)
	if w.exports && keep > 0 {
		w.applications.Volumes.KeepSnapshots = keep
		s.tell("spec.retention", Changed, fmt.Sprintf("volumes.keepSnapshots: %d", keep),
			"snapshots of the newest points stay on the cluster, and retention is that of exports")
	}
}

// retention reads what K10 keeps; nil for nothing.
func retention(s *source, path string) *v1alpha1.Retention {
	var r v1alpha1.Retention
	for _, rule := range []struct {
		key  string
		into *int
	}{{"hourly", &r.Hourly}, {"daily", &r.Daily}, {"weekly", &r.Weekly}, {"monthly", &r.Monthly}, {"yearly", &r.Yearly}} {
		v := s.take(path + "." + rule.key)
		*rule.into = v.count()
		v.kept("spec.retention." + rule.key)
	}
	if r == (v1alpha1.Retention{}) {
		return nil
	}
	return &r
}

// choose says which namespaces are backed up. Without that there is no Policy.
func (w *k10Work) choose() bool {
	s, a := w.source, &w.applications
	names := s.take("spec.selector.matchNames")
	a.Namespaces = append(a.Namespaces, names.texts()...)
	names.kept("namespaces")
	selects := &metav1.LabelSelector{}
	labels := s.take("spec.selector.matchLabels")
	for name, value := range labels.words() {
		if name == k10App {
			a.Namespaces = append(a.Namespaces, value)
			continue
		}
		metav1.AddLabelToSelector(selects, name, value)
	}
	labels.kept("namespaces, namespaceSelector")
	unclear := false
	expressions := s.each("spec.selector.matchExpressions", func(one *source) { unclear = !w.expression(one, selects) || unclear })
	if unclear {
		s.drop(Dropped, "no Policy is made: what it would choose is not clear")
		return false
	}
	if !names.there && !labels.there && expressions == 0 {
		a.Namespaces = []string{"*"}
		s.tell("spec.selector", Kept, "namespaces: all", "")
	}
	if len(selects.MatchLabels)+len(selects.MatchExpressions) > 0 {
		a.NamespaceSelector = selects
		s.tell("spec.selector", Changed, "namespaceSelector", "by labels of namespaces only; K10 chooses a namespace by labels of what is in it, too")
	}
	if slices.Contains(a.Namespaces, "kasten-io-cluster") {
		a.Namespaces = slices.DeleteFunc(a.Namespaces, func(n string) bool { return n == "kasten-io-cluster" })
		s.tell("spec.selector", Changed, "clusterObjects", "objects of the cluster are captured with the applications that need them, and not by themselves")
	}
	if len(a.Namespaces) == 0 && a.NamespaceSelector == nil {
		s.drop(Dropped, "no Policy is made: it chooses no namespace")
		return false
	}
	a.Namespaces, a.ExcludeNamespaces = sorted(a.Namespaces), sorted(a.ExcludeNamespaces)
	return true
}

// expression reads one requirement of a selector. It reports whether what is chosen is known.
func (w *k10Work) expression(s *source, selects *metav1.LabelSelector) bool {
	name, operator, values := s.take("key"), s.take("operator"), s.take("values")
	list := values.texts()
	requirement := metav1.LabelSelectorRequirement{Key: name.text(), Operator: metav1.LabelSelectorOperator(operator.text()), Values: list}
	a := &w.applications
	switch {
	case requirement.Key == k10App && requirement.Operator == metav1.LabelSelectorOpIn:
		a.Namespaces = append(a.Namespaces, list...)
		values.kept("namespaces")
	case requirement.Key == k10App && requirement.Operator == metav1.LabelSelectorOpNotIn:
		a.Namespaces, a.ExcludeNamespaces = append(a.Namespaces, "*"), append(a.ExcludeNamespaces, list...)
		values.kept("excludeNamespaces")
	case strings.HasPrefix(requirement.Key, "k10.kasten.io/"):
		name.dropped("virtual machines and the like are no applications here")
		return false
	default:
		trial := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{requirement}}
		if _, err := metav1.LabelSelectorAsSelector(trial); err != nil {
			name.dropped("no label selector of Kubernetes")
			return false
		}
		selects.MatchExpressions = append(selects.MatchExpressions, requirement)
		name.kept("namespaceSelector")
	}
	return true
}

// filters says what is left out of an application, or taken of it.
func (w *k10Work) filters(s *source, path string) {
	a := &w.applications
	s.each(path+"excludeResources", func(one *source) {
		kind, name, ok := w.resource(one)
		switch claims := kind == "persistentvolumeclaims"; {
		case !ok:
		case name == "" && !claims:
			a.ExcludeKinds = append(a.ExcludeKinds, kind)
			one.tell("resource", Kept, "excludeKinds", "")
		case claims:
			if name == "" {
				name = "*"
			}
			a.Volumes.Exclude = append(a.Volumes.Exclude, name)
			one.tell("resource", Changed, "volumes.exclude", "the claim itself is captured, its data is not")
		default:
			one.tell("name", Dropped, "", "whole kinds are left out, not single objects; a Restore takes the objects that it names")
		}
	})
	s.each(path+"includeResources", func(one *source) {
		kind, name, ok := w.resource(one)
		switch {
		case !ok:
		case name != "":
			a.Objects = append(a.Objects, kind+"/"+name)
			one.tell("name", Changed, "objects", "with what it needs")
		default:
			one.tell("resource", Changed, "", "all kinds are captured; a Restore takes the kinds that it names")
		}
	})
	if s.take(path + "includeResources"); len(a.Objects) > 0 && len(a.ExcludeKinds) > 0 {
		a.ExcludeKinds = nil
		s.tell(path+"excludeResources", Needless, "", "only the objects named are captured")
	}
}

// resource reads a filter: PLURAL.GROUP and a name.
func (w *k10Work) resource(s *source) (kind, name string, ok bool) {
	group, plural, named := s.take("group"), s.take("resource"), s.take("name")
	s.take("version").needless("kinds are captured in the version that the cluster prefers")
	kind = dotted(plural.text(), group.text())
	ok = plural.text() != ""
	for _, path := range []string{"matchLabels", "matchExpressions"} {
		if v := s.take(path); v.there {
			v.dropped("filters by labels are not known: applications.selector chooses objects by labels")
			ok = false
		}
	}
	if !ok && group.there && !plural.there {
		kind, ok = "*."+group.text(), group.text() != "" && !named.there
	}
	return kind, named.text(), ok
}
