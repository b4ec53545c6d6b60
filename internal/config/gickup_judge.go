package config

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/policy"
)

// hoursOf rounds a span of the clock up to hours.
func hoursOf(text string) (int, error) {
	span, err := time.ParseDuration(text)
	if err != nil || span < 0 {
		return 0, fmt.Errorf("years (y), months (M), days (d), then a span of the clock: 1y2M3d4h30m")
	}
	hours := int(span / time.Hour)
	if span%time.Hour > 0 {
		hours++
	}
	return hours, nil
}

// say adds a finding at a path of a document.
func (g *Gickup) say(d *gickupDocument, path string, s Severity, rule, message, gickup, backstay string) {
	f := d.finding(d.node(path), s, rule, message, gickup, backstay)
	f.Path = path
	g.add(f)
}

// judge finds what is to be said about documents that were read.
func (g *Gickup) judge() {
	for i := range g.confs {
		d := &g.confs[i]
		g.judgeCron(d, i)
		g.judgeMetrics(d, i)
		sources, destinations := d.conf.Source.entries(), d.conf.Destination.entries()
		if len(sources) == 0 {
			g.say(d, "", Warning, "no-source", fmt.Sprintf("document %d has no source: there is nothing to back up in it", d.number), "does nothing", "does nothing")
		}
		if len(sources) > 0 && len(destinations) == 0 {
			g.say(d, "", Warning, "no-destination", fmt.Sprintf("document %d has no destination", d.number),
				"copies nothing", "makes restore points with --location; fails without")
		}
		for _, e := range sources {
			g.judgeSource(d, e)
		}
		for _, e := range destinations {
			if e.repo != nil {
				g.judgeAccess(d, e)
				g.judgeMirror(d, e)
			}
		}
		g.judgePlaces(d)
		if d.conf.WebUI.Addr != "" {
			g.say(d, "webui", Info, "webui", "only a branch of gickup has it", "", "ignores it; its console is another")
		}
	}
}

func (g *Gickup) judgeCron(d *gickupDocument, i int) {
	cron := d.conf.Cron
	if cron == "" {
		return
	}
	_, err := policy.ParseSchedule(cron, "")
	first := g.confs[0].conf.Cron
	switch {
	case err != nil && i == 0:
		g.say(d, "cron", Error, "cron", message(err), "runs once, and ends", "refuses the file")
	case err != nil:
		g.say(d, "cron", Warning, "cron", message(err), "takes the first document's", "does so, too")
	case i > 0 && first == "":
		g.say(d, "cron", Warning, "cron-without-first", "the first document has no cron", "runs this document once, and ends", "does so, too")
	}
}

func (g *Gickup) judgeMetrics(d *gickupDocument, i int) {
	m, log := d.conf.Metrics, d.conf.Log
	if i > 0 {
		if log != (gickupLog{}) {
			g.say(d, "log", Warning, "first-document-only", "only the first document's counts", "ignores it without a word", "ignores it, too, and says so")
		}
		if m.Prometheus != (gickupPrometheus{}) {
			g.say(d, "metrics.prometheus", Warning, "first-document-only", "only the first document's counts", "ignores it without a word", "ignores it, too, and says so")
		}
	} else if (m.Prometheus.ListenAddr == "") != (m.Prometheus.Endpoint == "") {
		g.say(d, "metrics.prometheus", Error, "prometheus", "listen_addr and endpoint go together", "ends", "refuses the file")
	}
	if len(m.Heartbeat.URLs) > 0 {
		g.say(d, "metrics.heartbeat", Info, "heartbeat", "asked for after a run",
			"asks for it whatever became of the run, and logs the URL with its key", "asks for it only when everything is backed up, and logs no URL")
	}
	if len(m.Push.Ntfy)+len(m.Push.Gotify)+len(m.Push.Apprise) > 0 {
		g.say(d, "metrics.push", Info, "push", "sent after every run", "says that the backup is done, whatever became of it", "says what failed, and what to do")
	}
	if f := log.FileLogging; i == 0 && (f.Dir != "" || f.File != "" || f.MaxAge != 0) && (f.Dir == "" || f.File == "") {
		g.say(d, "log.file-logging", Warning, "file-logging", "dir and file go together", "guesses", "writes gickup.log, or into the working directory")
	}
}

// answers reports whether a forge has what a key of a source asks for.
func answers(kind, key string) bool {
	switch key {
	case "contributed", "gists":
		return kind == "github"
	case "starred":
		return kind == "github" || kind == "gitlab" || kind == "gitea"
	case "issues":
		return kind != "bitbucket" && kind != "sourcehut" && kind != "any"
	}
	return true
}

func (g *Gickup) judgeSource(d *gickupDocument, e entry) {
	r := e.repo
	g.judgeAccess(d, e)
	set := map[string]bool{"contributed": r.Contributed, "gists": r.Gists, "starred": r.Starred, "issues": r.Issues}
	for _, key := range []string{"contributed", "gists", "starred", "issues"} {
		if set[key] && !answers(e.kind, key) {
			g.say(d, join(e.path, key), Warning, "key-ignored", "no effect on "+e.kind, "ignores it without a word", "ignores it, too, and says so")
		}
	}
	if r.Organization != "" && e.kind != "bitbucket" {
		g.say(d, join(e.path, "organization"), Warning, "organization-of-source", "no effect on a source: includeorgs names organisations",
			"ignores it without a word", "ignores it, too, and says so")
	}
	if r.Issues && len(d.conf.Destination.Local) == 0 && e.kind != "bitbucket" {
		g.say(d, join(e.path, "issues"), Info, "issues", "no local destination takes issues", "reads them, and drops them", "keeps them in restore points")
	}
	if _, err := lastActivity(r.Filter.LastActivity); err != nil {
		g.say(d, join(e.path, "filter.lastactivity"), Warning, "lastactivity", err.Error(), "takes all repositories", "does so, too")
	}
	g.judgeNames(d, e)
	if e.kind == "any" && r.URL == "" {
		g.say(d, e.path, Error, "url-missing", "url is missing", "warns, and goes on", "refuses the file")
	}
	if e.kind == "gogs" && r.URL == "" {
		g.say(d, e.path, Error, "url-missing", "url is missing: gogs has no public instance", "fails", "refuses the file")
	}
	if e.kind == "bitbucket" {
		g.say(d, e.path, Info, "bitbucket-directory", "copies are below bitbucket.org", "puts them below api.bitbucket.org", "puts them below bitbucket.org")
	}
}

// judgeNames looks at the lists of names of a source.
func (g *Gickup) judgeNames(d *gickupDocument, e entry) {
	r := e.repo
	for key, names := range map[string][]string{"include": r.Include, "exclude": r.Exclude} {
		for i, name := range names {
			at := fmt.Sprintf("%s.%s[%d]", e.path, key, i)
			switch {
			case name == "":
				g.say(d, at, Warning, "name-empty", "an empty name", "matches nothing", "leaves it out")
			case strings.HasPrefix(name, "<") && strings.HasSuffix(name, ">"):
				g.say(d, at, Warning, "placeholder", "this still waits to be filled in", "matches nothing", "matches nothing, too")
			case strings.ContainsRune(name, '/'):
				g.say(d, at, Warning, "name-with-owner", "a name with its owner", "compares names without owners: it matches nothing", "does so, too: a native file has owner/name")
			case strings.ContainsAny(name, `*?[`):
				g.say(d, at, Warning, "name-with-glob", "names are compared letter by letter", "matches nothing", "does so, too: a native file has globs")
			}
		}
	}
	if len(r.Include) > 0 && len(r.IncludeOrgs) > 0 && filtersOwners(e.kind) {
		g.say(d, join(e.path, "includeorgs"), Warning, "includeorgs-unused", "no effect beside include", "ignores it", "does so, too")
	}
	if strings.HasPrefix(r.User, "<") {
		g.say(d, join(e.path, "user"), Error, "placeholder", "this still waits to be filled in", "fails", "refuses the file")
	}
}

// filtersOwners reports whether includeorgs of a forge chooses among everything listed; on others it says what is listed beside the
// user's own repositories.
func filtersOwners(kind string) bool { return kind == "github" || kind == "gitlab" }

// envName is a name that no token looks like: it must be that of a variable.
var envName = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)

// missing reports whether text is the name of an environment variable that is not set.
func (g *Gickup) missing(text string) bool {
	value, _ := g.env.Lookup(text)
	return value == "" && envName.MatchString(text)
}

func (g *Gickup) judgeSecret(d *gickupDocument, at, text string) {
	if text != "" && g.missing(text) {
		g.say(d, at, Warning, "variable-not-set", "there is no environment variable "+text, "sends its name to the server, as if it was the secret", "says that it is not set, and sends nothing")
	}
}

func (g *Gickup) judgeAccess(d *gickupDocument, e entry) {
	r := e.repo
	g.judgeSecret(d, join(e.path, "token"), r.Token)
	app := r.AppID != 0 || r.AppInstallationID != 0 || r.AppPrivateKeyFile != ""
	switch {
	case app && !r.hasApp():
		g.say(d, e.path, Warning, "app-incomplete", "app_id, app_installation_id and app_private_key_file go together", "ignores them without a word", "ignores them, too, and says so")
	case app && e.kind != "github":
		g.say(d, e.path, Warning, "key-ignored", "Apps are GitHub's", "ignores it without a word", "ignores it, too, and says so")
	}
	if r.Token != "" && r.TokenFile != "" {
		g.say(d, join(e.path, "token_file"), Info, "token-file-unused", "token wins", "ignores the file", "does so, too")
	}
	if (r.Token != "" || r.TokenFile != "") && r.Password != "" && e.kind != "bitbucket" {
		g.say(d, join(e.path, "password"), Info, "password-unused", "the token wins", "uses the token", "does so, too")
	}
	if r.SSH {
		g.say(d, join(e.path, "ssh"), Info, "host-keys", "the server's host key must be known: ssh-keyscan, compared with what the forge publishes",
			"takes any host key, also one that has changed", "checks it as ssh does, and tries ed25519 and other default keys, and the agent")
	}
	if strings.Contains(r.URL, "@") && strings.Contains(r.URL, "://") && !strings.HasPrefix(r.URL, "ssh://") {
		g.say(d, join(e.path, "url"), Warning, "password-in-url", "credentials in a URL", "logs them", "takes them out of the URL")
	}
}

func (g *Gickup) judgeMirror(d *gickupDocument, e entry) {
	r := e.repo
	if e.kind == "gogs" && r.URL == "" {
		g.say(d, e.path, Error, "url-missing", "url is missing: gogs has no public instance", "fails", "refuses the file")
	}
	if pullsByItself(e) {
		g.say(d, e.path, Warning, "pull-mirror", "the destination pulls by itself, and gets to know the source's token; mirror: {enabled: true} pushes instead",
			"does so", "does so, too")
	}
	for _, interval := range []string{r.Mirror.MirrorInterval, r.MirrorInterval} {
		if interval != "" && checkSpan(interval) != nil {
			g.say(d, join(e.path, "mirrorinterval"), Warning, "mirrorinterval", "a span of the clock is expected: 8h0m0s", "hands it to the server", "takes the default")
		}
	}
	if v := r.Visibility.Repositories; v != "" && !slices.Contains(visibilities(), v) {
		g.say(d, join(e.path, "visibility.repositories"), Warning, "visibility", list(visibilities())+" is expected", "takes private or public", "takes private")
	}
	if r.User+r.Organization == "" && !r.CreateOrg && d.severalOwners() {
		g.say(d, e.path, Warning, "same-names", "repositories of several owners go to one account",
			"takes two repositories of one name for the same", "fails the run, and overwrites nothing")
	}
}

// severalOwners reports whether the sources can have repositories of several owners.
func (d *gickupDocument) severalOwners() bool {
	sources := d.conf.Source.entries()
	if len(sources) > 1 {
		return true
	}
	for _, e := range sources {
		if e.kind != "any" && (e.repo.User == "" || e.repo.Starred || e.repo.Contributed || len(e.repo.IncludeOrgs) > 0) {
			return true
		}
	}
	return false
}

// judgePlaces looks at the places for plain copies.
func (g *Gickup) judgePlaces(d *gickupDocument) {
	several, remote := d.severalOwners(), 0
	sameNames := func(at string, structured bool) {
		if several && !structured {
			g.say(d, at, Warning, "same-names", "repositories of several owners go to one directory: structured: true keeps them apart",
				"never saves the second of two that have one name, and says that it is up to date", "fails the run, and overwrites nothing")
		}
	}
	zipped := func(at string, zip bool) {
		if zip {
			g.say(d, join(at, "zip"), Info, "zip", "one zip file a repository",
				"follows symbolic links out of the repository, and replaces the last file before the new one is whole", "follows none, and replaces it after")
		}
	}
	for i, l := range d.conf.Destination.Local {
		at := fmt.Sprintf("destination.local[%d]", i)
		if l.Path == "" {
			g.say(d, at, Error, "path-missing", "path is missing", "fails", "refuses the file")
		}
		if l.Keep < 0 {
			g.say(d, join(at, "keep"), Error, "keep", "less than 0", "keeps nothing", "refuses the file")
		}
		sameNames(at, l.Structured)
		zipped(at, l.Zip)
		if l.LFS && l.Bare && !l.Mirror {
			g.say(d, join(at, "lfs"), Warning, "lfs-bare", "with bare, and without mirror", "never updates branches after the first run", "updates them")
		}
		if l.Mirror || l.Bare {
			g.say(d, at, Info, "branches", "branches are copied as they are", "stops updating for ever when a branch foo is replaced by foo/bar", "goes on")
		}
	}
	for i, s := range d.conf.Destination.S3 {
		at := fmt.Sprintf("destination.s3[%d]", i)
		remote++
		g.judgeS3(d, at, s)
		sameNames(at, s.Structured)
		zipped(at, s.Zip)
	}
	for i, a := range d.conf.Destination.AzureBlob {
		at := fmt.Sprintf("destination.azureblob[%d]", i)
		remote++
		g.required(d, at, map[string]string{"url": a.URL, "container": a.Container})
		sameNames(at, a.Structured)
		zipped(at, a.Zip)
	}
	for i, w := range d.conf.Destination.WebDAV {
		at := fmt.Sprintf("destination.webdav[%d]", i)
		remote++
		g.required(d, at, map[string]string{"url": w.URL})
		sameNames(at, w.Structured)
		zipped(at, w.Zip)
	}
	if remote > 0 {
		g.say(d, "destination", Info, "upload-replaces", "uploads replace what is there", "deletes the last good copy when an upload fails", "deletes after everything new is there")
	}
	if remote > 1 {
		g.say(d, "destination", Info, "second-destination", "more than one remote place", "puts copies into another path at the second of two structured places", "puts them where they belong")
	}
	for i, r := range d.conf.Destination.Radicle {
		at := fmt.Sprintf("destination.radicle[%d]", i)
		if r.Issues {
			g.say(d, join(at, "issues"), Warning, "key-ignored", "not built in gickup either", "ignores it", "ignores it, too, and says so")
		}
		if r.Visibility != "" && !slices.Contains([]string{"public", "private", "source"}, r.Visibility) {
			g.say(d, join(at, "visibility"), Warning, "visibility", "public, private or source is expected", "takes source", "takes private")
		}
	}
}

func (g *Gickup) required(d *gickupDocument, at string, values map[string]string) {
	for key, value := range values {
		if value == "" {
			g.say(d, at, Error, key+"-missing", key+" is missing", "fails", "refuses the file")
		}
	}
}

func (g *Gickup) judgeS3(d *gickupDocument, at string, s gickupS3) {
	g.required(d, at, map[string]string{"bucket": s.Bucket, "endpoint": s.Endpoint})
	switch {
	case s.static() && (s.AccessKey == "" || s.SecretKey == ""):
		g.say(d, at, Error, "s3-keys", "accesskey and secretkey go with use_static_creds", "fails", "refuses the file")
	case s.static():
		g.judgeSecret(d, join(at, "accesskey"), s.AccessKey)
		g.judgeSecret(d, join(at, "secretkey"), s.SecretKey)
		g.judgeSecret(d, join(at, "token"), s.Token)
	case s.AccessKey+s.SecretKey != "":
		g.say(d, at, Warning, "s3-keys", "keys without use_static_creds: true",
			"ignores them and asks the machine for its own", "does so, too")
	}
	if !s.UseSSL {
		g.say(d, at, Warning, "s3-plain-http", "without usessl: true everything goes in clear", "does so without a word", "does so, too, and says so")
	}
}

// static reports whether the keys in the file are used: only where the file says so.
func (s gickupS3) static() bool { return s.UseStaticCreds != nil && *s.UseStaticCreds }

func (r gickupRepo) hasApp() bool {
	return r.AppID > 0 && r.AppInstallationID > 0 && r.AppPrivateKeyFile != ""
}

// baseName is a file's name without its directory and ending.
func baseName(file string) string {
	base := path.Base(strings.ReplaceAll(file, `\`, "/"))
	return strings.TrimSuffix(base, path.Ext(base))
}
