package config

import (
	"cmp"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/policy"
)

// checker judges a policy as a whole: what no field can be judged by alone.
type checker struct {
	*decoder
	notes []Problem
}

func (c *checker) wrong(path, format string, args ...any) {
	c.problem(c.node(path), path, format, args...)
}

func (c *checker) note(path, format string, args ...any) {
	c.notes = append(c.notes, c.at(c.node(path), path, fmt.Sprintf(format, args...)))
}

func (c *checker) policy(p *v1alpha1.Policy, set *Set) {
	spec := &p.Spec
	if len(spec.Sources) > 0 && spec.Location == "" && len(spec.Exports) == 0 && len(spec.Mirrors) == 0 {
		c.wrong("spec", "nowhere to keep anything: location, exports or mirrors is missing")
	}
	c.location(p, set)
	c.retention(spec)
	c.schedule(spec.Schedule, "spec.schedule")
	c.drill(p)
	c.sources(spec)
	several := severalOwners(spec.Sources)
	for i := range spec.Exports {
		c.export(&spec.Exports[i], fmt.Sprintf("spec.exports[%d]", i), several)
	}
	for i := range spec.Mirrors {
		c.mirror(&spec.Mirrors[i], fmt.Sprintf("spec.mirrors[%d]", i), several)
	}
	for i := range spec.Exports {
		for j := range i {
			if reflect.DeepEqual(place(spec.Exports[i]), place(spec.Exports[j])) {
				c.wrong(fmt.Sprintf("spec.exports[%d]", i), "the same place as spec.exports[%d], and the same names there", j)
			}
		}
	}
	c.notify(spec.Notify)
}

// location judges the name of a policy's location. What only a cluster takes may lie there already.
func (c *checker) location(p *v1alpha1.Policy, set *Set) {
	if p.Spec.Location == "" {
		return
	}
	var names, namespaces []string
	for _, l := range set.Locations {
		names = append(names, l.Name)
		if l.Name == p.Spec.Location {
			namespaces = append(namespaces, l.Namespace)
		}
	}
	switch here := runsHere(p); {
	case here && len(namespaces) == 0:
		c.wrong("spec.location", "no Location of this name is declared%s", didYouMean(p.Spec.Location, names))
	case here && len(namespaces) > 1:
		c.wrong("spec.location", "Locations of this name are declared in several namespaces, and a run knows no namespaces")
	case !here && !slices.Contains(namespaces, p.Namespace):
		c.note("spec.location", "no Location of this name and namespace is declared: it must be on the cluster%s", didYouMean(p.Spec.Location, names))
	}
}

// place is an export with no more of its layout than decides on the names of copies.
func place(e v1alpha1.Export) v1alpha1.Export {
	dotGit := v1alpha1.FormBare
	if e.Form == v1alpha1.FormWorktree {
		dotGit = v1alpha1.FormWorktree
	}
	e.Layout = v1alpha1.Layout{Structured: e.Structured, Form: dotGit, Zip: e.Zip, Dated: e.Dated}
	return e
}

func (c *checker) retention(spec *v1alpha1.PolicySpec) {
	r := spec.Retention
	switch {
	case r == nil:
	case *r == v1alpha1.Retention{}:
		c.wrong("spec.retention", "keeps everything, as without it: say last, daily or another rule, or leave it out")
	case spec.Location == "":
		c.wrong("spec.retention", "it is of restore points, and there is no location for them (exports have keep)")
	}
}

func (c *checker) schedule(s *v1alpha1.Schedule, path string) {
	if s == nil {
		return
	}
	schedule, err := policy.ParseSchedule(s.Cron, s.TimeZone)
	if err != nil {
		if !said(c.decoder, path+".cron") && !said(c.decoder, path+".timeZone") {
			if _, err := policy.ParseSchedule(s.Cron, ""); err == nil {
				c.wrong(path+".timeZone", "cron names another time zone")
			}
		}
		return
	}
	jitter, err := time.ParseDuration(s.Jitter)
	if s.Jitter == "" || err != nil {
		return
	}
	first := schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	if second := schedule.Next(first); !second.IsZero() && jitter >= second.Sub(first) {
		c.wrong(path+".jitter", "as long as the time between two runs, or longer")
	}
}

// drill judges how points are proven.
func (c *checker) drill(p *v1alpha1.Policy) {
	d := p.Spec.Drill
	if d == nil {
		return
	}
	c.schedule(d.Schedule, "spec.drill.schedule")
	if p.Spec.Location == "" && runsHere(p) {
		c.wrong("spec.drill", "there is nothing to drill: a location for restore points is missing")
	}
}

// forges lists the forges of a source by their field's name.
func forges(s *v1alpha1.Source) map[string]*v1alpha1.Forge {
	return map[string]*v1alpha1.Forge{
		"github": s.GitHub, "gitlab": s.GitLab, "gitea": s.Gitea, "forgejo": s.Forgejo, "gogs": s.Gogs, "bitbucket": s.Bitbucket,
		"onedev": s.OneDev, "sourcehut": s.Sourcehut,
	}
}

func (c *checker) sources(spec *v1alpha1.PolicySpec) {
	names := map[string]string{}
	for i := range spec.Sources {
		s := &spec.Sources[i]
		path := fmt.Sprintf("spec.sources[%d]", i)
		for kind, f := range forges(s) {
			if f == nil {
				continue
			}
			c.forge(f, kind, join(path, kind))
			if f.Metadata && spec.Location == "" {
				c.wrong(join(path, kind+".metadata"), "it goes into restore points only, and there is no location for them")
			}
		}
		if s.Git != nil {
			if s.Git.URL == "" {
				c.wrong(join(path, "git"), "url is missing")
			}
			c.access(&s.Git.Access, "git", join(path, "git"))
		}
		if s.Applications != nil {
			c.source(s, spec, path)
		}
		if s.Directory != nil && *s.Directory == "" && !said(c.decoder, join(path, "directory")) {
			c.wrong(join(path, "directory"), "empty")
		}
		if s.Directory != nil && spec.Location == "" && len(spec.Exports)+len(spec.Mirrors) > 0 {
			c.wrong(join(path, "directory"), "it goes into restore points only, and there is no location for them")
		}
		name := sourceName(s)
		if first, found := names[name]; found {
			c.wrong(path, "the same account as %s: their restore points need a name of their own each", first)
			continue
		}
		names[name] = path
	}
}

// sourceName is what tells a source from others of its policy: its name, or what it will be named after.
func sourceName(s *v1alpha1.Source) string {
	if s.Name != "" {
		return s.Name
	}
	for kind, f := range forges(s) {
		if f != nil {
			return strings.TrimSuffix(cmp.Or(addressName(f.URL), kind)+"/"+f.Organization+f.User, "/")
		}
	}
	switch {
	case s.Git != nil:
		return cmp.Or(addressName(s.Git.URL), s.Git.URL)
	case s.Directory != nil:
		return *s.Directory
	case s.Applications != nil:
		return applicationNames(s.Applications)
	}
	return ""
}

// addressName is "<host>/<path>" of a URL, a port after a low line; "" for what is none.
func addressName(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return strings.ReplaceAll(u.Host, ":", "_") + strings.TrimSuffix(strings.TrimRight(u.Path, "/"), ".git")
}

func (c *checker) forge(f *v1alpha1.Forge, kind, path string) {
	c.access(&f.Access, kind, path)
	if f.User != "" && f.Organization != "" {
		c.wrong(join(path, "organization"), "either a user or an organization")
	}
	if f.Organization != "" && len(f.Organizations) > 0 {
		c.wrong(join(path, "organizations"), "these are listed beside a user, and organization is listed instead of one")
	}
	if kind == "gogs" && f.URL == "" {
		c.wrong(path, "url is missing: gogs has no public instance")
	}
	if f.Contributed && kind != "github" {
		c.wrong(join(path, "contributed"), "only GitHub tells")
	}
	if f.Gists && kind != "github" && kind != "gitlab" {
		c.wrong(join(path, "gists"), "only GitHub has gists, and GitLab snippets")
	}
	if f.Issues && kind == "sourcehut" {
		c.wrong(join(path, "issues"), "not read from Sourcehut")
	}
	c.metadata(f, path)
	c.names(f, path)
}

// metadata judges what goes with it.
func (c *checker) metadata(f *v1alpha1.Forge, path string) {
	for name, given := range map[string]bool{"files": f.Files != nil, "maxFile": f.MaxFile != "", "fileHosts": len(f.FileHosts) > 0} {
		switch at := join(path, name); {
		case given && !f.Metadata:
			c.wrong(at, "it goes with metadata: true")
		case given && name != "files" && f.Files != nil && !*f.Files:
			c.wrong(at, "no files are taken: files is false")
		}
	}
}

// names judges the lists that choose repositories and owners.
func (c *checker) names(f *v1alpha1.Forge, path string) {
	for _, pair := range []struct {
		include, exclude   []string
		included, excluded string
	}{
		{f.Include, f.Exclude, "include", "exclude"},
		{f.IncludeOwners, f.ExcludeOwners, "includeOwners", "excludeOwners"},
	} {
		for i, text := range pair.include {
			at := fmt.Sprintf("%s.%s[%d]", path, pair.included, i)
			if c.name(text, at, f.ExactNames); slices.Contains(pair.exclude, text) {
				c.wrong(at, "excluded, too, and exclude wins")
			}
		}
		for i, text := range pair.exclude {
			c.name(text, fmt.Sprintf("%s.%s[%d]", path, pair.excluded, i), f.ExactNames)
		}
	}
}

func (c *checker) name(text, at string, exact bool) {
	if err := checkGlob(text); err != nil && (!exact || text == "") {
		c.wrong(at, "%s", err)
	}
}

// access judges the combination of credentials.
func (c *checker) access(a *v1alpha1.Access, kind, path string) {
	switch {
	case a.App != nil && kind != "github":
		c.wrong(join(path, "app"), "Apps are GitHub's")
	case a.App != nil && (a.Token != nil || a.Password != nil):
		c.wrong(join(path, "app"), "an App instead of a token or password")
	case a.Token != nil && a.Password != nil:
		c.wrong(join(path, "password"), "either a token or a password")
	case a.Password != nil && a.Username == "":
		c.wrong(join(path, "password"), "username is missing")
	case a.Username != "" && a.Password == nil && a.Token == nil:
		c.wrong(join(path, "username"), "password is missing (for git over ssh the name stands in the URL)")
	case kind == "bitbucket" && a.Token != nil && a.Username == "":
		c.wrong(join(path, "token"), "username is missing: Bitbucket wants the e-mail address that goes with the token")
	}
	if strings.HasPrefix(a.URL, "http://") && (a.Token != nil || a.Password != nil) && !loopback(a.URL) {
		c.note(join(path, "url"), "credentials go over this connection in clear")
	}
}

func loopback(text string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
}

// severalOwners reports whether repositories of more than one owner can come from the sources.
func severalOwners(sources []v1alpha1.Source) bool {
	owners := map[string]bool{}
	for i := range sources {
		s := &sources[i]
		for kind, f := range forges(s) {
			if f == nil {
				continue
			}
			subgroups := kind == "gitlab" && f.Organization != ""
			if f.User+f.Organization == "" || len(f.Organizations) > 0 || f.Starred || f.Contributed || subgroups {
				return true
			}
			owners[kind+f.URL+"/"+f.User+f.Organization] = true
		}
		if s.Git != nil {
			owner, _, _ := cutLast(strings.ReplaceAll(s.Git.URL, "/", "."))
			owners["git/"+owner+s.Git.Owner] = true
		}
	}
	return len(owners) > 1
}

func (c *checker) export(e *v1alpha1.Export, path string, several bool) {
	if several && !e.Structured {
		c.note(path, "without structured, a run fails as soon as two owners have repositories of one name")
	}
	if e.Form == v1alpha1.FormWorktree && e.Local == nil {
		c.wrong(join(path, "form"), "worktree is for local places; others take bare or mirror")
	}
	if e.Keep > 0 && e.Dated {
		c.wrong(join(path, "dated"), "either keep or dated")
	}
	if s := e.S3; s != nil {
		if (s.AccessKey == nil) != (s.SecretKey == nil) {
			c.wrong(join(path, "s3"), "accessKey and secretKey go together")
		}
		if s.SessionToken != nil && s.AccessKey == nil {
			c.wrong(join(path, "s3.sessionToken"), "it goes with accessKey and secretKey")
		}
		if strings.Contains(s.Endpoint, "://") {
			c.wrong(join(path, "s3.endpoint"), "a host, or host:port (insecure: true for plain http)")
		}
	}
	if a := e.Azure; a != nil {
		c.azure(a, join(path, "azure"))
	}
	if w := e.WebDAV; w != nil && (w.Password == nil) != (w.Username == "") {
		c.wrong(join(path, "webdav"), "username and password go together")
	}
}

func (c *checker) azure(a *v1alpha1.Azure, path string) {
	client := 0
	for _, set := range []bool{a.TenantID != "", a.ClientID != "", a.ClientSecret != nil} {
		if set {
			client++
		}
	}
	ways := 0
	for _, way := range []bool{client > 0, a.SAS != nil, a.UseCLI} {
		if way {
			ways++
		}
	}
	switch {
	case client > 0 && client < 3:
		c.wrong(path, "tenantID, clientID and clientSecret go together")
	case ways > 1:
		c.wrong(path, "either a client, or sas, or useCLI")
	}
	if u, err := url.Parse(a.URL); err == nil && u.RawQuery != "" {
		c.wrong(join(path, "url"), "a shared access signature in a URL: say where it is, as sas: {env: NAME}")
	}
}

func (c *checker) mirror(m *v1alpha1.Mirror, path string, several bool) {
	pulls := false
	for kind, a := range map[string]*v1alpha1.Access{
		"github": m.GitHub, "gitlab": m.GitLab, "gitea": m.Gitea, "forgejo": m.Forgejo, "gogs": m.Gogs, "onedev": m.OneDev,
		"sourcehut": m.Sourcehut,
	} {
		if a == nil {
			continue
		}
		c.access(a, kind, join(path, kind))
		pulls = slices.Contains([]string{"gitlab", "gitea", "forgejo", "gogs"}, kind)
		if kind == "gogs" && a.URL == "" {
			c.wrong(join(path, kind), "url is missing: gogs has no public instance")
		}
	}
	if m.Pull && !pulls {
		c.wrong(join(path, "pull"), "only GitLab, Gitea, Forgejo and Gogs pull by themselves")
	}
	if m.Interval != "" && !m.Pull {
		c.wrong(join(path, "interval"), "between pulls, and pull is not set")
	}
	if m.Owner != "" && m.KeepOwners {
		c.wrong(join(path, "keepOwners"), "either owner or keepOwners")
	}
	if m.CreateOwner && m.Owner == "" && !m.KeepOwners {
		c.wrong(join(path, "createOwner"), "whom: owner or keepOwners is missing")
	}
	if several && !m.KeepOwners && m.Radicle == nil {
		c.note(path, "without keepOwners, a run fails as soon as two owners have repositories of one name")
	}
}

func (c *checker) notify(n *v1alpha1.Notify) {
	if n == nil {
		return
	}
	for i, h := range n.Heartbeats {
		if h.Start == nil && h.Success == nil && h.Failure == nil {
			c.wrong(fmt.Sprintf("spec.notify.heartbeats[%d]", i), "success, start or failure is missing")
		}
	}
	for i, m := range n.Messages {
		path := fmt.Sprintf("spec.notify.messages[%d]", i)
		for kind, push := range map[string]*v1alpha1.Push{"ntfy": m.Ntfy, "gotify": m.Gotify} {
			if push != nil && push.Token != nil && push.Password != nil {
				c.wrong(join(path, kind), "either a token or a password")
			}
		}
		if a := m.Apprise; a != nil && a.Config == "" && len(a.URLs) == 0 {
			c.wrong(join(path, "apprise"), "config or urls is missing")
		}
	}
}
