package convert

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

const (
	veleroGroup = "velero.io"
	// veleroSchedule is the label of what a Schedule has made.
	veleroSchedule = "velero.io/schedule-name"
	// veleroKeeps is how long Velero keeps a backup of which nothing is said.
	veleroKeeps = "720h"
)

func (c *conversion) veleroReaders() []reader {
	return []reader{
		{isModifier, c.veleroModifier},
		{kind(veleroGroup, "BackupStorageLocation"), c.veleroLocation},
		{kind(veleroGroup, "VolumeSnapshotLocation"), func(s *source) {
			s.drop(Dropped, "snapshots are taken by CSI drivers: volumes of others are read live (volumes.withoutSnapshot) or not at all")
		}},
		{kind(veleroGroup, "Schedule"), c.veleroSchedule},
		{kind(veleroGroup, "Backup"), c.veleroBackup},
		{kind(veleroGroup, "Restore"), c.veleroRestore},
	}
}

// veleroLocation turns a storage location into a Location.
func (c *conversion) veleroLocation(s *source) {
	b := bucket{options: url.Values{}}
	provider := s.take("spec.provider")
	name := s.take("spec.objectStorage.bucket")
	b.name = name.text()
	name.kept("spec.url")
	within := s.take("spec.objectStorage.prefix")
	b.prefix = within.text()
	within.changed("spec.url", "beside Velero's data, not within it")
	if !within.there {
		s.tell("spec.objectStorage.bucket", Changed, "spec.url",
			"Velero calls a bucket broken that has another directory at its top: name another bucket while both run")
	}
	s.take("spec.objectStorage.caCert").dropped("have the store's authority in the image, as AWS_CA_BUNDLE names it")
	if mode := s.take("spec.accessMode"); mode.text() == "ReadOnly" {
		mode.dropped("a Location is written to by whatever names it")
	}
	s.take("spec.backupSyncPeriod").needless("points are read from the location every few minutes")
	s.take("spec.validationFrequency").needless("the condition Ready says what was found last")
	if standard := s.take("spec.default"); standard.flag() {
		c.location = c.name(v1alpha1.KindLocation, s.namespace(), s.name())
		standard.kept("spec.location of each Policy")
	}
	location := c.name(v1alpha1.KindLocation, s.namespace(), s.name())
	credential := s.take("spec.credential")
	credential.changed("spec.credentials", "keys are named one by one; Velero has them in a file")
	secret := vaultSecret(location)
	var credentials map[string]v1alpha1.Secret
	more := ""
	switch strings.TrimPrefix(provider.text(), "velero.io/") {
	case "aws":
		b.scheme = "s3"
		c.veleroS3(s, b)
		credentials = map[string]v1alpha1.Secret{"AWS_ACCESS_KEY_ID": key(secret, "id"), "AWS_SECRET_ACCESS_KEY": key(secret, "key")}
		more = ` --from-literal=id="$AWS_ACCESS_KEY_ID" --from-literal=key="$AWS_SECRET_ACCESS_KEY"`
	case "azure":
		b.scheme = "azblob"
		account := s.take("spec.config.storageAccount")
		if account.text() != "" {
			b.options.Set("account", account.text())
		}
		account.kept("spec.url")
		for _, needless := range []string{"resourceGroup", "subscriptionId", "storageAccountKeyEnvVar", "useAAD", "storageAccountURI"} {
			s.take("spec.config." + needless).needless("the account and its key are enough")
		}
		credentials = map[string]v1alpha1.Secret{"AZURE_STORAGE_KEY": key(secret, "key")}
		more = ` --from-literal=key="$AZURE_STORAGE_KEY"`
	case "gcp":
		b.scheme, b.options = "gs", nil
		s.tell("spec.credential", Dropped, "", "on a cluster Google's stores are opened by the identity of Backstay's pods (workload identity), not by a key")
	default:
		s.drop(Dropped, "no such store: aws, azure and gcp are")
		return
	}
	provider.kept("spec.url")
	c.makeLocation(s, b, credentials)
	c.makeSecret(location, more)
}

func (c *conversion) veleroS3(s *source, b bucket) {
	if region := s.take("spec.config.region"); region.text() != "" {
		b.options.Set("region", region.text())
		region.kept("spec.url")
	}
	b.endpoint(s.take("spec.config.s3Url"))
	s.take("spec.config.s3ForcePathStyle").needless("found out by itself")
	s.take("spec.config.publicUrl").needless("only pods speak to the store")
	s.take("spec.config.profile").needless("keys are named one by one")
	s.take("spec.config.checksumAlgorithm").needless("found out by itself")
	if skip := s.take("spec.config.insecureSkipTLSVerify"); skip.text() == "true" {
		skip.dropped("certificates are always checked: have the store's authority in the image, or tls=false for a store without")
	}
	for _, lacking := range []string{"kmsKeyId", "serverSideEncryption", "customerKeyEncryptionFile"} {
		s.take("spec.config." + lacking).dropped("a vault is encrypted before it is stored; have the bucket encrypt by default where that is asked for")
	}
}

// veleroSchedule turns a Schedule into a Policy.
func (c *conversion) veleroSchedule(s *source) {
	version, name := c.meta(s, v1alpha1.KindPolicy)
	p := &v1alpha1.Policy{
		TypeMeta:   metav1.TypeMeta{APIVersion: version, Kind: v1alpha1.KindPolicy},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace},
	}
	cron := s.take("spec.schedule")
	p.Spec.Schedule = &v1alpha1.Schedule{Cron: cron.text()}
	if strings.HasPrefix(cron.text(), "@every") || strings.Contains(cron.text(), "TZ=") {
		cron.kept("spec.schedule.cron")
	} else {
		p.Spec.Schedule.TimeZone = "UTC"
		cron.kept("spec.schedule, in UTC")
	}
	if paused := s.take("spec.paused"); paused.flag() {
		p.Spec.Suspend = true
		paused.kept("spec.suspend")
	}
	s.take("spec.useOwnerReferencesInBackup").needless("deleting a Policy deletes no points")
	s.take("spec.skipImmediately").needless("a Policy runs at its times, not when it is made")
	template := &source{Object: s.Object, place: "spec.template", result: s.result}
	if tree, is := s.take("spec.template").raw.(map[string]any); is {
		template.tree = tree
	}
	p.Spec.Retention = timeToLive(template.take("ttl"))
	w := &veleroWork{conversion: c, source: template}
	w.read()
	template.tellRest()
	p.Spec.Location = w.location()
	p.Spec.Sources = w.sources
	c.needLocation(p.Spec.Location)
	c.policies = append(c.policies, made[*v1alpha1.Policy]{s.String(), p})
}

// veleroBackup turns a Backup that has not run into a Backup.
func (c *conversion) veleroBackup(s *source) {
	if phase := s.status("phase"); phase != "" && phase != "New" || s.marked("labels", veleroSchedule) != "" {
		s.drop(Needless, "it has been made: its data stays with Velero, which is needed for as long as the backup is")
		return
	}
	spec := &source{Object: s.Object, place: "spec", result: s.result}
	if tree, is := s.take("spec").raw.(map[string]any); is {
		spec.tree = tree
	}
	spec.take("ttl").dropped("a point that no policy made is kept until it is deleted")
	w := &veleroWork{conversion: c, source: spec}
	w.read()
	spec.tellRest()
	version, name := c.meta(s, v1alpha1.KindBackup)
	b := &v1alpha1.Backup{
		TypeMeta:   metav1.TypeMeta{APIVersion: version, Kind: v1alpha1.KindBackup},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace},
		Spec:       v1alpha1.BackupSpec{Location: w.location()},
	}
	if len(w.sources) > 1 {
		s.drop(Dropped, "no Backup is made: its hooks are of some of its namespaces only; write a Backup for each namespace")
		return
	}
	b.Spec.Application = *w.sources[0].Applications
	if a := &b.Spec.Application; len(a.Namespaces) != 1 || isGlob(a.Namespaces[0]) {
		a.Name = name
		s.tell("spec.includedNamespaces", Changed, "spec.application.name: "+name, "all namespaces are one application")
	}
	c.needLocation(b.Spec.Location)
	c.backups = append(c.backups, made[*v1alpha1.Backup]{s.String(), b})
}

// veleroWork is what a backup of Velero says, under conversion.
type veleroWork struct {
	*conversion
	source  *source
	named   string // the storage location
	sources []v1alpha1.Source
}

// location is the name of the Location that takes the points.
func (w *veleroWork) location() string { return cmp.Or(w.named, w.conversion.location) }

// read reads a BackupSpec.
func (w *veleroWork) read() {
	s := w.source
	if named := s.take("storageLocation"); named.text() != "" {
		w.named = w.name(v1alpha1.KindLocation, s.namespace(), named.text())
		named.kept("spec.location")
	}
	a := &v1alpha1.Applications{}
	w.namespaces(a)
	w.resources(a)
	w.volumes(a)
	if labels := s.take("labelSelector"); labels.there {
		a.Selector = labels.selector()
		labels.changed("selector", "with what the objects chosen need: claims, service accounts")
	}
	s.take("orLabelSelectors").dropped("one selector chooses the objects: write a Policy for each")
	s.take("orderedResources").needless("objects are captured as they were at one moment")
	s.take("resourcePolicy").dropped("rules for volumes are not read: volumes.exclude names claims, volumes.withoutSnapshot says what becomes of those without snapshots")
	s.take("resourcePolices").dropped("rules for volumes are not read: volumes.exclude names claims, volumes.withoutSnapshot says what becomes of those without snapshots")
	s.take("metadata").needless("labels of what is made are Backstay's own")
	for _, path := range []string{"itemOperationTimeout", "csiSnapshotTimeout"} {
		s.take(path).needless("a Backup as a whole has a deadline: 4h, spec.deadline")
	}
	w.sources = []v1alpha1.Source{{Applications: a}}
	s.each("hooks.resources", w.hook)
}

// timeToLive turns how long Velero keeps a backup into retention.
func timeToLive(ttl *value) *v1alpha1.Retention {
	text := ttl.text()
	span, err := time.ParseDuration(cmp.Or(text, veleroKeeps))
	if err != nil || span < 0 {
		ttl.dropped("a span of time is expected: nothing expires")
		return nil
	}
	if span == 0 {
		span, _ = time.ParseDuration(veleroKeeps) // as Velero takes it
	}
	const day = 24 * time.Hour
	within := fmt.Sprintf("%dd", span/day)
	if span%day != 0 {
		within = fmt.Sprintf("%dh", (span+time.Hour-1)/time.Hour)
	}
	ttl.changed("spec.retention.within: "+within, "counted from the newest point, so that an application that is backed up no more keeps its last points")
	return &v1alpha1.Retention{Within: within}
}

// namespaces says which are backed up.
func (w *veleroWork) namespaces(a *v1alpha1.Applications) {
	s := w.source
	included, excluded := s.take("includedNamespaces"), s.take("excludedNamespaces")
	a.Namespaces, a.ExcludeNamespaces = sorted(included.texts()), sorted(excluded.texts())
	if len(a.Namespaces) == 0 || slices.Contains(a.Namespaces, "*") {
		a.Namespaces = []string{"*"}
		s.tell("includedNamespaces", Changed, "namespaces: all", "but kube-* and Backstay's own, which have to be named")
	} else {
		included.kept("namespaces")
	}
	excluded.kept("excludeNamespaces")
	if len(a.Namespaces) > 1 || isGlob(a.Namespaces[0]) {
		s.tell("includedNamespaces", Changed, "", "each namespace is an application with points of its own")
	}
}

// resources says which kinds are backed up.
func (w *veleroWork) resources(a *v1alpha1.Applications) {
	s := w.source
	for _, path := range []string{"includedResources", "includedNamespaceScopedResources", "includedNamespacedResources"} {
		if v := s.take(path); v.there && !slices.Equal(v.texts(), []string{"*"}) {
			v.changed("", "all kinds are captured; a Restore takes the kinds that it names")
		}
	}
	for _, path := range []string{"excludedResources", "excludedNamespaceScopedResources", "excludedNamespacedResources"} {
		w.exclude(a, s.take(path))
	}
	for _, path := range []string{"includedClusterScopedResources", "includedClusterScopeResources"} {
		s.take(path).changed("clusterObjects: needed", "those that applications need are captured")
	}
	for _, path := range []string{"excludedClusterScopedResources", "excludedClusterScopeResources"} {
		if v := s.take(path); slices.Equal(v.texts(), []string{"*"}) {
			a.ClusterObjects = v1alpha1.ClusterObjectsNone
			v.kept("clusterObjects: none")
		} else {
			v.changed("clusterObjects: needed", "those that applications need are captured, of all kinds")
		}
	}
	if all := s.take("includeClusterResources"); all.there && all.flag() {
		all.changed("clusterObjects: needed", "those that applications need are captured")
	} else if all.there {
		a.ClusterObjects = v1alpha1.ClusterObjectsNone
		all.kept("clusterObjects: none")
	}
}

// exclude leaves kinds out.
func (w *veleroWork) exclude(a *v1alpha1.Applications, v *value) {
	for _, text := range v.texts() {
		kind, ok := plural(text)
		switch {
		case kind == "persistentvolumeclaims" || kind == "persistentvolumes":
			a.Volumes.Exclude = sorted(append(a.Volumes.Exclude, "*"))
			w.source.tell(v.path, Changed, "volumes.exclude", text+": claims themselves are captured, their data is not")
		case !ok || strings.ContainsAny(kind, "*/ "):
			w.source.tell(v.path, Dropped, "", text+": the group is not known: say PLURAL.GROUP in excludeKinds")
		default:
			a.ExcludeKinds = sorted(append(a.ExcludeKinds, kind))
			w.source.tell(v.path, Kept, "excludeKinds: "+kind, "")
		}
	}
}

// volumes says how their data is captured.
func (w *veleroWork) volumes(a *v1alpha1.Applications) {
	s := w.source
	files := s.take("defaultVolumesToFsBackup")
	if !files.there {
		files = s.take("defaultVolumesToRestic")
	}
	live := files.flag()
	if live {
		a.Volumes.WithoutSnapshot = v1alpha1.WithoutSnapshotLive
		files.changed("volumes.withoutSnapshot: live", "snapshots where the driver takes them; other volumes are read under their pods, which the chart's volumes.live must allow")
	} else {
		files.needless("snapshots are the rule")
	}
	snapshots := s.take("snapshotVolumes")
	if on := snapshots.flag(); snapshots.there && !on && !live {
		a.Volumes.Exclude = []string{"*"}
		snapshots.changed("volumes.exclude", "no data of claims is captured: pod annotations that ask for it are not read")
	} else if snapshots.there {
		snapshots.needless("snapshots are the rule")
	}
	if moved := s.take("snapshotMoveData"); moved.there && moved.flag() {
		moved.kept("spec.location")
	} else {
		moved.changed("spec.location", "data always goes to the location: snapshots alone are no backup")
	}
	s.take("volumeSnapshotLocations").dropped("snapshots are taken by CSI drivers")
	s.take("volumeGroupSnapshotLabelKey").changed("", "all claims of a namespace are cut at one instant where the driver can; labels are not asked for")
	s.take("datamover").needless("Backstay's own")
	s.take("uploaderConfig").needless("found out by itself")
}
