package config

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/policy"
)

// Process is what gickup's configuration says about the process, not about what is backed up.
type Process struct {
	Listen      string // address of the metrics server; "" for none
	MetricsPath string
	LogFile     string // "" for none
	LogMaxAge   int    // days; 0 keeps all
	TimeFormat  string // of log lines, a layout of Go; "" for the default
}

// entry is one item of gickup's lists of forges.
type entry struct {
	kind string
	path string // of the item
	repo *gickupRepo
}

func entriesOf(path, kind string, repos []gickupRepo) []entry {
	var all []entry
	for i := range repos {
		all = append(all, entry{kind, fmt.Sprintf("%s.%s[%d]", path, kind, i), &repos[i]})
	}
	return all
}

// entries lists the sources in gickup's order.
func (s *gickupSource) entries() []entry {
	return slices.Concat(
		entriesOf("source", "github", s.GitHub), entriesOf("source", "gitea", s.Gitea), entriesOf("source", "gogs", s.Gogs),
		entriesOf("source", "gitlab", s.GitLab), entriesOf("source", "bitbucket", s.Bitbucket), entriesOf("source", "any", s.Any),
		entriesOf("source", "onedev", s.OneDev), entriesOf("source", "sourcehut", s.Sourcehut))
}

// entries lists the destinations; repo is nil for those that are no forges.
func (d *gickupDestination) entries() []entry {
	all := slices.Concat(
		entriesOf("destination", "github", d.GitHub), entriesOf("destination", "gitlab", d.GitLab), entriesOf("destination", "gitea", d.Gitea),
		entriesOf("destination", "gogs", d.Gogs), entriesOf("destination", "onedev", d.OneDev), entriesOf("destination", "sourcehut", d.Sourcehut))
	for kind, n := range map[string]int{"local": len(d.Local), "s3": len(d.S3), "azureblob": len(d.AzureBlob), "webdav": len(d.WebDAV), "radicle": len(d.Radicle)} {
		for i := range n {
			all = append(all, entry{kind, fmt.Sprintf("destination.%s[%d]", kind, i), nil})
		}
	}
	return all
}

// Process returns what the first document says about logs and metrics. The environment has GICKUP_TIME_FORMAT.
func (g *Gickup) Process() Process {
	var p Process
	p.TimeFormat, _ = g.env.Lookup("GICKUP_TIME_FORMAT")
	if len(g.confs) == 0 {
		return p
	}
	first := g.confs[0].conf
	p.Listen, p.MetricsPath = first.Metrics.Prometheus.ListenAddr, first.Metrics.Prometheus.Endpoint
	if first.Log.TimeFormat != "" {
		p.TimeFormat = first.Log.TimeFormat
	}
	if f := first.Log.FileLogging; f.Dir != "" || f.File != "" {
		name := f.File
		if name == "" {
			name = "gickup.log"
		}
		p.LogFile, p.LogMaxAge = filepath.Join(expandHome(f.Dir, g.env.Home), name), f.MaxAge
	}
	return p
}

// Policies returns a policy for each document that has sources. Secrets that stand in the file in clear are in Secret.Value. Findings
// of severity Error are the error, a fault.ErrInvalid that holds Problems.
func (g *Gickup) Policies() ([]v1alpha1.Policy, error) {
	if err := g.failed(); err != nil {
		return nil, err
	}
	var all []v1alpha1.Policy
	names := map[string]bool{}
	for i := range g.confs {
		if d := &g.confs[i]; len(d.conf.Source.entries()) > 0 {
			all = append(all, v1alpha1.Policy{
				TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPolicy},
				ObjectMeta: metav1.ObjectMeta{Name: policyName(d, names)}, Spec: g.spec(d, i),
			})
		}
	}
	return all, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// policyName makes a name from those of the file and the number of the document.
func policyName(d *gickupDocument, taken map[string]bool) string {
	const longest = 40
	base := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(baseName(d.file)), "-"), "-")
	base = strings.Trim(base[:min(len(base), longest)], "-")
	if base == "" {
		base = "gickup"
	}
	if d.number > 1 {
		base = fmt.Sprintf("%s-%d", base, d.number)
	}
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[name] = true
	return name
}

func (g *Gickup) spec(d *gickupDocument, i int) v1alpha1.PolicySpec {
	spec := v1alpha1.PolicySpec{Schedule: g.schedule(d), Notify: g.notify(d, i)}
	names := map[string]bool{}
	for _, e := range d.conf.Source.entries() {
		s := g.source(e)
		name := sourceName(&s)
		for n := 2; names[sourceName(&s)]; n++ {
			s.Name = fmt.Sprintf("%s-%d", name, n)
		}
		names[sourceName(&s)] = true
		spec.Sources = append(spec.Sources, s)
	}
	spec.Exports = g.exports(&d.conf.Destination)
	for _, e := range d.conf.Destination.entries() {
		if e.repo != nil {
			spec.Mirrors = append(spec.Mirrors, g.mirror(d, e))
		}
	}
	for _, r := range d.conf.Destination.Radicle {
		spec.Mirrors = append(spec.Mirrors, radicle(r))
	}
	return spec
}

// schedule is the document's own where it is valid, else the first document's; without that nothing is scheduled.
func (g *Gickup) schedule(d *gickupDocument) *v1alpha1.Schedule {
	cron := g.confs[0].conf.Cron
	if cron == "" {
		return nil
	}
	if _, err := policy.ParseSchedule(d.conf.Cron, ""); err == nil {
		cron = d.conf.Cron
	}
	return &v1alpha1.Schedule{Cron: cron}
}

// secret follows gickup's rule: the name of an environment variable that is set, else the secret itself.
func (g *Gickup) secret(text string) *v1alpha1.Secret {
	value, _ := g.env.Lookup(text)
	switch {
	case text == "":
		return nil
	case value != "" || g.missing(text):
		return &v1alpha1.Secret{Env: text}
	default:
		return literal(text)
	}
}

// literal is a secret that is never looked up.
func literal(text string) *v1alpha1.Secret {
	if text == "" {
		return nil
	}
	return &v1alpha1.Secret{Value: text}
}

// access maps what a forge's entry says about reaching it.
func (g *Gickup) access(r *gickupRepo, kind string) v1alpha1.Access {
	var a v1alpha1.Access
	user, password := r.Username, r.Password
	a.URL = r.URL
	if u, err := url.Parse(r.URL); err == nil && u.User != nil && u.Scheme != "ssh" && u.Host != "" {
		if p, has := u.User.Password(); has && r.Password == "" {
			user, password = u.User.Username(), p
		}
		u.User = nil
		a.URL = u.String()
	}
	switch {
	case kind == "github" && r.hasApp():
		a.App = &v1alpha1.App{
			ID: r.AppID, InstallationID: r.AppInstallationID,
			PrivateKey: v1alpha1.Secret{File: expandHome(r.AppPrivateKeyFile, g.env.Home)},
		}
	case r.Token != "":
		a.Token = g.secret(r.Token)
	case r.TokenFile != "":
		a.Token = &v1alpha1.Secret{File: expandHome(r.TokenFile, g.env.Home)}
	case user != "" && password != "":
		a.Username, a.Password = user, literal(password)
	}
	if kind == "bitbucket" {
		a.Username = bitbucketName(r)
		if a.Token == nil && a.Password == nil {
			a.Password = literal(password)
		}
		if a.Token == nil && a.Password == nil {
			a.Username = ""
		}
	}
	if r.SSH {
		a.SSH = &v1alpha1.SSH{KeyFile: expandHome(r.SSHKey, g.env.Home)}
	}
	return a
}

// bitbucketName is the name that goes with a token or password.
func bitbucketName(r *gickupRepo) string {
	for _, name := range []string{r.Email, r.Username, r.User} {
		if name != "" {
			return name
		}
	}
	return ""
}

func (g *Gickup) source(e entry) v1alpha1.Source {
	var s v1alpha1.Source
	if e.kind == "any" {
		s.Git = g.git(e.repo)
		return s
	}
	f := g.forge(e)
	switch e.kind {
	case "github":
		s.GitHub = f
	case "gitlab":
		s.GitLab = f
	case "gitea":
		s.Gitea = f
	case "gogs":
		s.Gogs = f
	case "bitbucket":
		s.Bitbucket = f
	case "onedev":
		s.OneDev = f
	case "sourcehut":
		s.Sourcehut = f
	}
	return s
}

// git maps a repository by its URL. Its owner's label is the user, the name to log in with, or "git".
func (g *Gickup) git(r *gickupRepo) *v1alpha1.Git {
	repository := &v1alpha1.Git{Access: g.access(r, "any"), Owner: cmp.Or(r.User, r.Username, "git"), Wiki: r.Wiki}
	repository.URL = expandHome(repository.URL, g.env.Home)
	return repository
}

func (g *Gickup) forge(e entry) *v1alpha1.Forge {
	r, wikis := e.repo, e.repo.Wiki
	f := &v1alpha1.Forge{
		Access: g.access(r, e.kind), User: r.User, Wikis: &wikis,
		Starred: r.Starred && answers(e.kind, "starred"), Contributed: r.Contributed && answers(e.kind, "contributed"),
		Gists: r.Gists && answers(e.kind, "gists"), Issues: r.Issues && answers(e.kind, "issues"),
		Include: nonEmpty(r.Include), Exclude: nonEmpty(r.Exclude), ExcludeOwners: nonEmpty(r.ExcludeOrgs),
		Stars: max(r.Filter.Stars, 0), Languages: r.Filter.Languages,
		ExcludeArchived: r.Filter.ExcludeArchived, ExcludeForks: r.Filter.ExcludeForks,
	}
	f.ActiveWithin, _ = lastActivity(r.Filter.LastActivity) // judged already: no filter where it is wrong
	switch {
	case !filtersOwners(e.kind):
		f.Organizations = nonEmpty(r.IncludeOrgs)
	case len(f.Include) == 0:
		f.IncludeOwners = nonEmpty(r.IncludeOrgs)
	}
	if e.kind == "bitbucket" && r.Organization != "" {
		f.User, f.Organization, f.Organizations = "", r.Organization, nil
	}
	// gickup's lists may say the same thing on both sides; exclude wins there as here.
	f.Include = without(f.Include, f.Exclude)
	f.IncludeOwners = without(f.IncludeOwners, f.ExcludeOwners)
	f.ExactNames = len(f.Include)+len(f.Exclude)+len(f.IncludeOwners)+len(f.ExcludeOwners) > 0
	return f
}

func nonEmpty(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
}

// without leaves out what is excluded as well; but never all, for a list that is empty means everything.
func without(names, excluded []string) []string {
	left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(excluded, name) })
	if len(left) == 0 && len(names) > 0 {
		return []string{nothing}
	}
	return left
}

// nothing is a name that matches no repository or owner, for none has a space. It is told as one that is not there.
const nothing = "(all that are included are excluded, too)"

// visibilities are those that gickup's files know.
func visibilities() []string { return []string{"private", "public", "internal", "limited", "unlisted"} }

// pullsByItself reports whether a destination is told to pull, instead of being pushed to.
func pullsByItself(e entry) bool {
	return !e.repo.Mirror.Enabled && slices.Contains([]string{"gitea", "gogs", "gitlab"}, e.kind)
}

func (g *Gickup) mirror(d *gickupDocument, e entry) v1alpha1.Mirror {
	r := e.repo
	access := g.access(r, e.kind)
	m := v1alpha1.Mirror{Force: r.Force, LFS: r.LFS || d.conf.Source.lfs(), Pull: pullsByItself(e)}
	switch e.kind {
	case "github":
		m.GitHub, m.Owner = &access, r.Organization
	case "gitlab":
		m.GitLab, m.Owner, m.Visibility = &access, r.User, v1alpha1.VisibilitySource
	case "gitea":
		m.Gitea = &access
	case "gogs":
		m.Gogs = &access
	case "onedev":
		m.OneDev, m.Owner = &access, r.Organization
	case "sourcehut":
		m.Sourcehut = &access
	}
	if e.kind == "gitea" || e.kind == "gogs" {
		m.Owner, m.CreateOwner, m.KeepOwners = r.User, r.CreateOrg, r.CreateOrg && r.User == ""
		if v := r.Visibility.Organizations; m.CreateOwner && slices.Contains(visibilities()[:4], v) {
			m.OwnerVisibility = v
		}
	}
	if v := r.Visibility.Repositories; slices.Contains(visibilities(), v) {
		m.Visibility = v
	}
	if m.Pull {
		for _, interval := range []string{r.MirrorInterval, r.Mirror.MirrorInterval} {
			if interval != "" && checkSpan(interval) == nil {
				m.Interval = interval
			}
		}
		if m.Interval == "" && e.kind == "gitea" {
			m.Interval = "8h0m0s"
		}
	}
	return m
}

// lfs reports whether a source asks for LFS objects in mirrors.
func (s *gickupSource) lfs() bool {
	return slices.ContainsFunc(s.entries(), func(e entry) bool { return e.repo.LFS })
}

func radicle(r gickupRadicle) v1alpha1.Mirror {
	m := v1alpha1.Mirror{Radicle: &v1alpha1.Radicle{Prune: r.Prune}, Force: r.Force, Visibility: v1alpha1.VisibilitySource}
	switch r.Visibility {
	case "", v1alpha1.VisibilitySource:
	case v1alpha1.VisibilityPublic:
		m.Visibility = v1alpha1.VisibilityPublic
	default:
		m.Visibility = v1alpha1.VisibilityPrivate
	}
	return m
}

// exports maps the places for plain copies.
func (g *Gickup) exports(d *gickupDestination) []v1alpha1.Export {
	var all []v1alpha1.Export
	add := func(e v1alpha1.Export, layout v1alpha1.Layout) {
		e.Layout = layout
		all = append(all, e)
	}
	for _, l := range d.Local {
		form := v1alpha1.FormWorktree
		switch {
		case l.Mirror:
			form = v1alpha1.FormMirror
		case l.Bare:
			form = v1alpha1.FormBare
		}
		add(v1alpha1.Export{Local: &v1alpha1.Local{Path: expandHome(l.Path, g.env.Home)}},
			v1alpha1.Layout{Structured: l.Structured, Form: form, Zip: l.Zip, Keep: l.Keep, LFS: l.LFS})
	}
	for _, s := range d.S3 {
		bucket := &v1alpha1.S3{
			Bucket: s.Bucket, Endpoint: s.Endpoint, Region: s.Region, Insecure: !s.UseSSL, StorageClass: s.StorageClass, SourceTag: s.SrcRepoURLTagKey,
		}
		if s.static() {
			bucket.AccessKey, bucket.SecretKey, bucket.SessionToken = g.secret(s.AccessKey), g.secret(s.SecretKey), g.secret(s.Token)
		}
		add(v1alpha1.Export{S3: bucket}, remoteLayout(s.Structured, s.Zip, s.DateCreateDir))
	}
	for _, a := range d.AzureBlob {
		add(v1alpha1.Export{Azure: azure(a)}, remoteLayout(a.Structured, a.Zip, a.DateCreateDir))
	}
	for _, w := range d.WebDAV {
		place := &v1alpha1.WebDAV{URL: w.URL, Path: w.Path}
		if w.Username != "" && w.Password != "" {
			place.Username, place.Password = w.Username, literal(w.Password)
		}
		add(v1alpha1.Export{WebDAV: place}, remoteLayout(w.Structured, w.Zip, w.DateCreateDir))
	}
	return all
}

func remoteLayout(structured, zip, dated bool) v1alpha1.Layout {
	return v1alpha1.Layout{Structured: structured, Form: v1alpha1.FormBare, Zip: zip, Dated: dated}
}

// azure maps a container. Of several ways in, gickup takes the command line's, then the client's, then the signature in the URL.
func azure(a gickupAzure) *v1alpha1.Azure {
	place := &v1alpha1.Azure{URL: a.URL, Container: a.Container}
	signature := ""
	if before, after, found := strings.Cut(a.URL, "?"); found {
		place.URL, signature = before, after
	}
	switch {
	case a.UseCLICredential:
		place.UseCLI = true
	case a.TenantID != "" && a.ClientID != "" && a.ClientSecret != "":
		place.TenantID, place.ClientID, place.ClientSecret = a.TenantID, a.ClientID, literal(a.ClientSecret)
	default:
		place.SAS = literal(signature)
	}
	return place
}

// notify maps heartbeats and messages. Those who take messages are the first document's of the file where a document names none.
func (g *Gickup) notify(d *gickupDocument, i int) *v1alpha1.Notify {
	n := &v1alpha1.Notify{}
	for _, address := range d.conf.Metrics.Heartbeat.URLs {
		if address != "" {
			n.Heartbeats = append(n.Heartbeats, v1alpha1.Heartbeat{Success: literal(address)})
		}
	}
	push := d.conf.Metrics.Push
	if len(push.Ntfy)+len(push.Gotify)+len(push.Apprise) == 0 {
		first := slices.IndexFunc(g.confs[:i+1], func(other gickupDocument) bool { return other.file == d.file })
		push = g.confs[first].conf.Metrics.Push
	}
	for _, p := range push.Ntfy {
		n.Messages = append(n.Messages, v1alpha1.Channel{Ntfy: g.push(p)})
	}
	for _, p := range push.Gotify {
		channel := v1alpha1.Channel{Gotify: &v1alpha1.Push{URL: p.URL, Token: g.secret(p.Token)}}
		n.Messages = append(n.Messages, channel)
	}
	for _, p := range push.Apprise {
		apprise := &v1alpha1.Apprise{URL: p.URL, Config: p.Config, Tags: nonEmpty(p.Tags)}
		for _, address := range nonEmpty(p.NotificationURLs) {
			apprise.URLs = append(apprise.URLs, *literal(address))
		}
		n.Messages = append(n.Messages, v1alpha1.Channel{Apprise: apprise})
	}
	if len(n.Messages) > 0 {
		n.When = v1alpha1.WhenAlways
	}
	if len(n.Heartbeats)+len(n.Messages) == 0 {
		return nil
	}
	return n
}

// push maps a server of ntfy's: the token wins over a password.
func (g *Gickup) push(p gickupPush) *v1alpha1.Push {
	to := &v1alpha1.Push{URL: p.URL, Token: g.secret(p.Token), Email: p.Email}
	if mail, _ := g.env.Lookup(p.Email); mail != "" {
		to.Email = mail
	}
	if to.Token == nil && p.User != "" && p.Password != "" {
		to.Username, to.Password = p.User, g.secret(p.Password)
	}
	return to
}
