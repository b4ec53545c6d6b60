// Package v1alpha1 is the shape of what users declare: the kinds Location, Policy, Backup, RestorePoint, Restore, Gate and Drill of the
// group backstay.io. Location and Policy are the same in files off the cluster and as custom resources on it. It holds types only; package
// config reads and checks files, and the API server checks objects by the definitions made from these types.
//
// Tags beside json say what a value may be. The reader, the schema and the definitions of custom resources follow them:
//
//	oneof:"group"   exactly one field of the struct's fields of that group is set
//	enum:"a,b"      the value is one of these words
//	check:"name"    the value, or each of a list, is a: name, url, cron, zone, duration (30d, 1y6m: of the calendar),
//	                span (90s, 8h: of the clock), count (not negative), pointer (/spec/replicas: a JSON Pointer), glob,
//	                object (KIND.GROUP/NAME), objects (that, or KIND.GROUP), every (that, or *), kinds (PLURAL.GROUP, *.GROUP),
//	                deployments (globs NAME or NAMESPACE/NAME), size (2GiB), host (HOST or HOST:PORT)
//	max:"N"         the value, or each of a list, may be longer on a cluster than text is otherwise
//	cluster:"-"     not on a cluster: the definition of the custom resource refuses the field
//	file:"-"        not in files: the controller's alone
//
// +kubebuilder:object:generate=true
package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Group and Version make the apiVersion of every document.
const (
	Group      = "backstay.io"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version

	KindLocation     = "Location"
	KindPolicy       = "Policy"
	KindBackup       = "Backup"
	KindRestorePoint = "RestorePoint"
	KindRestore      = "Restore"
	KindGate         = "Gate"
	KindDrill        = "Drill"
)

// Secret says where a secret is. Exactly one field is set.
type Secret struct {
	// Name of the environment variable that holds it.
	Env string `json:"env,omitempty" oneof:"place" cluster:"-"`
	// Path of the file that holds it; a line break at its end is dropped.
	File string `json:"file,omitempty" oneof:"place" cluster:"-"`
	// Shell command that prints it.
	Command string `json:"command,omitempty" oneof:"place" cluster:"-"`
	// Key of a Kubernetes Secret in the same namespace; on a cluster only.
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty" oneof:"place"`

	// Value is a secret that a foreign configuration file holds in clear. Native files cannot: they are kept in version control.
	Value string `json:"-"`
}

// SecretKeyRef names one key of a Kubernetes Secret.
type SecretKeyRef struct {
	// Of the Secret.
	Name string `json:"name"`
	// Of its data.
	Key string `json:"key"`
}

// Location is where a vault lives.
//
// +kubebuilder:object:root=true
type Location struct {
	metav1.TypeMeta `json:",inline"`
	// Its name, and on a cluster its namespace; labels and annotations are free for use.
	metav1.ObjectMeta `json:"metadata"`
	// What it says.
	Spec LocationSpec `json:"spec"`
	// What became of it; the controller's alone.
	Status LocationStatus `json:"status,omitzero" file:"-"`
}

// LocationSpec says where a vault lives and how it is opened.
type LocationSpec struct {
	// Directory or URL, as --location takes it: /srv/vault, s3://bucket/prefix?endpoint=HOST.
	URL string `json:"url" check:"location"`
	// The vault's password.
	Password Secret `json:"password"`
	// The password that it is to have from now on. What does not open with password is opened with this one; on a cluster the vault is
	// given it at once. status.passwordChanged says when it has it: then put it in the place of password. docs/keys.md
	NewPassword *Secret `json:"newPassword,omitempty"`
	// What the store asks for, under the names of environment variables that docs/locations.md lists: AWS_ACCESS_KEY_ID.
	Credentials map[string]Secret `json:"credentials,omitempty"`
}

// Policy says what is backed up, when, where to, and how long it is kept.
//
// +kubebuilder:object:root=true
type Policy struct {
	metav1.TypeMeta `json:",inline"`
	// Its name, and on a cluster its namespace; labels and annotations are free for use.
	metav1.ObjectMeta `json:"metadata"`
	// What it says.
	Spec PolicySpec `json:"spec"`
	// What became of it; the controller's alone.
	Status PolicyStatus `json:"status,omitzero" file:"-"`
}

// PolicySpec is what a policy says. It has sources, and a location, exports or mirrors for them.
type PolicySpec struct {
	// When it runs; without a schedule it runs once, when it is started.
	Schedule *Schedule `json:"schedule,omitempty"`
	// Not run while true. On a cluster it is not run when the annotation backstay.io/run-now asks for it, either; an event says so.
	Suspend bool `json:"suspend,omitempty"`
	// Name of the Location that takes restore points.
	Location string `json:"location,omitempty" check:"name"`
	// Which points are kept; all of them where nothing is said.
	Retention *Retention `json:"retention,omitempty"`
	// Where repositories come from; at least one.
	Sources []Source `json:"sources"`
	// Plain copies, in the ordinary formats, beside the restore points.
	Exports []Export `json:"exports,omitempty" cluster:"-"`
	// Live copies on other forges.
	Mirrors []Mirror `json:"mirrors,omitempty" cluster:"-"`
	// Who is told how a run went.
	Notify *Notify `json:"notify,omitempty" cluster:"-"`
	// Repositories captured at once from one host, or applications of the cluster. Default 4.
	Parallel int `json:"parallel,omitempty" check:"count"`
	// Pods that share the work of a run, on a cluster: each application is one pod's, and the repositories of an account are captured by all.
	// Default 1; Backstay's --max-shards bounds it.
	Shards int `json:"shards,omitempty" check:"count"`
	// Service account that captures applications, of the policy's namespace, for a Policy outside Backstay's own. Default backstay.
	ServiceAccountName string `json:"serviceAccountName,omitempty" check:"name"`
	// Syncs of its applications wait for a point; on a cluster only.
	GitOps *GitOps `json:"gitops,omitempty"`
	// A Backup of the policy fails when it has taken so long. Default 4h.
	Deadline string `json:"deadline,omitempty" check:"span"`
	// How its points are proven.
	Drill *DrillPlan `json:"drill,omitempty"`
}

// Schedule says when a policy runs.
type Schedule struct {
	// Five fields (minute, hour, day, month, weekday), or @hourly, @daily, @weekly, @monthly, @yearly, @every 6h. In quotes where
	// it begins with @ or *.
	Cron string `json:"cron" check:"cron"`
	// Of the fields, such as Europe/Berlin; default is the process's own (TZ).
	TimeZone string `json:"timeZone,omitempty" check:"zone"`
	// A run starts up to so much later, each time by another span, so that many hosts do not start at once: 10m.
	Jitter string `json:"jitter,omitempty" check:"span"`
}

// Retention says which points are kept: those that any rule keeps. See docs/cli.md, expire.
type Retention struct {
	// The newest so many points.
	Last int `json:"last,omitempty" check:"count"`
	// The newest point of each of the newest so many hours that have one.
	Hourly int `json:"hourly,omitempty" check:"count"`
	// The same of days.
	Daily int `json:"daily,omitempty" check:"count"`
	// The same of weeks, from Monday.
	Weekly int `json:"weekly,omitempty" check:"count"`
	// The same of months.
	Monthly int `json:"monthly,omitempty" check:"count"`
	// The same of years.
	Yearly int `json:"yearly,omitempty" check:"count"`
	// Every point at most so much older than the newest: 30d, 1y6m.
	Within string `json:"within,omitempty" check:"duration"`
}

// Source is where repositories are listed, or one repository. Exactly one of the forges, Git and Directory is set.
type Source struct {
	// Of the account in restore points; default is the host and the account, as github.com/acme. Two sources of a policy need
	// different names.
	Name string `json:"name,omitempty"`
	// github.com, or GitHub Enterprise Server with a URL.
	GitHub *Forge `json:"github,omitempty" oneof:"forge"`
	// gitlab.com, or an instance of one's own with a URL.
	GitLab *Forge `json:"gitlab,omitempty" oneof:"forge"`
	// gitea.com, or an instance of one's own with a URL.
	Gitea *Forge `json:"gitea,omitempty" oneof:"forge"`
	// codeberg.org, or an instance of one's own with a URL.
	Forgejo *Forge `json:"forgejo,omitempty" oneof:"forge"`
	// An instance; its URL must be said.
	Gogs *Forge `json:"gogs,omitempty" oneof:"forge"`
	// Bitbucket Cloud.
	Bitbucket *Forge `json:"bitbucket,omitempty" oneof:"forge"`
	// code.onedev.io, or an instance of one's own with a URL.
	OneDev *Forge `json:"onedev,omitempty" oneof:"forge"`
	// git.sr.ht, or an instance of one's own with a URL.
	Sourcehut *Forge `json:"sourcehut,omitempty" oneof:"forge"`
	// One repository, by its URL.
	Git *Git `json:"git,omitempty" oneof:"forge"`
	// A directory of this machine, as it is.
	Directory *string `json:"directory,omitempty" oneof:"forge" cluster:"-"`
	// Applications of the cluster; on a cluster only.
	Applications *Applications `json:"applications,omitempty" oneof:"forge"`
	// A database server, or a file of SQLite.
	Database *Database `json:"database,omitempty" oneof:"forge"`
}

// Access says how a forge or a git server is reached.
type Access struct {
	// Of the instance (a forge) or the repository (git). Each forge that has a public instance takes that as default.
	URL string `json:"url,omitempty" check:"url"`
	// For the API and for git over https.
	Token *Secret `json:"token,omitempty"`
	// With a password; or the name that goes with the token where a forge wants one (Bitbucket: the e-mail address).
	Username string `json:"username,omitempty"`
	// Instead of a token.
	Password *Secret `json:"password,omitempty"`
	// A GitHub App instead of a token.
	App *App `json:"app,omitempty"`
	// Git over ssh instead of https.
	SSH *SSH `json:"ssh,omitempty" cluster:"-"`
	// PEM file of certificate authorities trusted beside the system's.
	CAFile string `json:"caFile,omitempty" cluster:"-"`
	// The same, out of a secret.
	CA *Secret `json:"ca,omitempty"`
}

// App is a GitHub App as it is installed for an account.
type App struct {
	// The App's own number.
	ID int64 `json:"id" check:"count"`
	// The number of its installation for the account.
	InstallationID int64 `json:"installationID" check:"count"`
	// PEM.
	PrivateKey Secret `json:"privateKey"`
}

// SSH says how git goes over ssh. Host keys are always checked.
type SSH struct {
	// Default: the agent, and the keys that ssh itself looks for.
	KeyFile string `json:"keyFile,omitempty"`
	// Default: the known_hosts that ssh itself looks at.
	KnownHostsFile string `json:"knownHostsFile,omitempty"`
}

// Forge is the repositories of a forge that a policy takes.
type Forge struct {
	Access `json:",inline"`
	// The account whose repositories are listed; default is the token's own, with all that it may see as owner or member.
	User string `json:"user,omitempty"`
	// The organisation, group (with its subgroups), workspace or parent project instead of a user.
	Organization string `json:"organization,omitempty"`
	// Listed beside the user's own repositories, with their subgroups, instead of every organisation that the user is a member of.
	Organizations []string `json:"organizations,omitempty"`
	// Wikis of the repositories. Default true.
	Wikis *bool `json:"wikis,omitempty"`
	// Git LFS objects. Default true.
	LFS *bool `json:"lfs,omitempty"`
	// Also the repositories that the account has starred.
	Starred bool `json:"starred,omitempty"`
	// Also those that it has contributed to (GitHub).
	Contributed bool `json:"contributed,omitempty"`
	// Also its gists (GitHub) or snippets (GitLab).
	Gists bool `json:"gists,omitempty"`
	// Issues as the forge answers them, one file each.
	Issues bool `json:"issues,omitempty"`
	// What the forge knows of the repositories beside their code: issues and pull requests with all that belongs to them, discussions,
	// releases, labels, rules and more.
	Metadata bool `json:"metadata,omitempty"`
	// With metadata, also release assets and attachments. Default true.
	Files *bool `json:"files,omitempty"`
	// The largest of these that is taken: 500MB, 4GiB. Default 2GiB. Larger ones are named as left out.
	MaxFile string `json:"maxFile,omitempty" check:"size"`
	// Where a forge of one's own keeps these, beside itself: minio.example.com:9000. Asked over https and without credentials. Hosts
	// that it does not name here are not asked.
	FileHosts []string `json:"fileHosts,omitempty" check:"host"`

	// Globs over owner/name, or over the name alone where there is no slash, whatever the case: acme/*, *-archive. * stands for
	// anything but a slash, ** for anything. Nothing said takes all; exclude beats include.
	Include []string `json:"include,omitempty"`
	// Globs as those of include.
	Exclude []string `json:"exclude,omitempty"`
	// Globs over owners; a group's subgroups go with it.
	IncludeOwners []string `json:"includeOwners,omitempty"`
	// Globs as those of includeOwners.
	ExcludeOwners []string `json:"excludeOwners,omitempty"`
	// The four lists above hold names, compared letter by letter, and names of repositories without their owner. As in gickup.
	ExactNames bool `json:"exactNames,omitempty"`
	// Only repositories with so many stars at least.
	Stars int `json:"stars,omitempty" check:"count"`
	// Only repositories with activity in the last so much time: 1y, 90d.
	ActiveWithin string `json:"activeWithin,omitempty" check:"duration"`
	// Only repositories in one of these languages; upper and lower case are the same. One whose language the forge does not know
	// is taken.
	Languages []string `json:"languages,omitempty"`
	// No archived repositories.
	ExcludeArchived bool `json:"excludeArchived,omitempty"`
	// No forks.
	ExcludeForks bool `json:"excludeForks,omitempty"`
}

// Git is one repository.
type Git struct {
	Access `json:",inline"`
	// Git LFS objects. Default true.
	LFS *bool `json:"lfs,omitempty"`
	// Of the repository in restore points and copies; default is what the URL says.
	Owner string `json:"owner,omitempty"`
	// Of the repository, likewise.
	Name string `json:"name,omitempty"`
	// Also the wiki beside it, name.wiki.git.
	Wiki bool `json:"wiki,omitempty"`
}

// Export is a place for plain copies of repositories, and how they lie there. Exactly one place is set.
type Export struct {
	// A directory.
	Local *Local `json:"local,omitempty" oneof:"place"`
	// A bucket.
	S3 *S3 `json:"s3,omitempty" oneof:"place"`
	// A container of Azure Blob Storage.
	Azure *Azure `json:"azure,omitempty" oneof:"place"`
	// A directory of a WebDAV server.
	WebDAV *WebDAV `json:"webdav,omitempty" oneof:"place"`
	Layout `json:",inline"`
}

// Layout says how copies lie in their place.
type Layout struct {
	// HOST/OWNER/NAME instead of NAME. Without it, two repositories of one name are an error.
	Structured bool `json:"structured,omitempty"`
	// worktree (a clone with files), bare (a bare repository), or mirror (the same with pull requests' refs). Places other than
	// local take bare and mirror only. Default bare.
	Form string `json:"form,omitempty" enum:"worktree,bare,mirror"`
	// One zip file a repository.
	Zip bool `json:"zip,omitempty"`
	// Each run that finds something new makes a copy of its own in a directory named by its Unix time; the newest so many are
	// kept. 0 updates one copy.
	Keep int `json:"keep,omitempty" check:"count"`
	// Each day makes a copy of its own below YYYY-MM-DD.
	Dated bool `json:"dated,omitempty"`
	// Git LFS objects, too.
	LFS bool `json:"lfs,omitempty"`
}

// Forms of copies.
const (
	FormWorktree = "worktree"
	FormBare     = "bare"
	FormMirror   = "mirror"
)

// Local is a directory.
type Local struct {
	// Of this machine; ~ is the home directory.
	Path string `json:"path"`
}

// S3 is a bucket of a store that speaks S3.
type S3 struct {
	// Its name; it must exist.
	Bucket string `json:"bucket"`
	// Host, or host:port.
	Endpoint string `json:"endpoint"`
	// Where the store wants one: eu-central-1.
	Region string `json:"region,omitempty"`
	// Without keys, those of the environment, the machine or the pod.
	AccessKey *Secret `json:"accessKey,omitempty"`
	// Goes with accessKey.
	SecretKey *Secret `json:"secretKey,omitempty"`
	// Of temporary keys.
	SessionToken *Secret `json:"sessionToken,omitempty"`
	// Plain http; for a store on the same machine.
	Insecure bool `json:"insecure,omitempty"`
	// As the store names them: STANDARD_IA.
	StorageClass string `json:"storageClass,omitempty"`
	// Key of a tag on each object that holds the URL of its repository.
	SourceTag *string `json:"sourceTag,omitempty"`
}

// Azure is a container of Azure Blob Storage.
type Azure struct {
	// Of the account: https://ACCOUNT.blob.core.windows.net.
	URL string `json:"url" check:"url"`
	// Its name; it must exist.
	Container string `json:"container"`
	// An application's credentials: its tenant, client and secret.
	TenantID string `json:"tenantID,omitempty"`
	// Goes with tenantID.
	ClientID string `json:"clientID,omitempty"`
	// Goes with tenantID.
	ClientSecret *Secret `json:"clientSecret,omitempty"`
	// A shared access signature instead: the part of its URL after the question mark.
	SAS *Secret `json:"sas,omitempty"`
	// The credentials of the Azure command line instead.
	UseCLI bool `json:"useCLI,omitempty"`
}

// WebDAV is a directory of a WebDAV server.
type WebDAV struct {
	// Of the server.
	URL string `json:"url" check:"url"`
	// With a password.
	Username string `json:"username,omitempty"`
	// Goes with username.
	Password *Secret `json:"password,omitempty"`
	// Below the URL.
	Path string `json:"path,omitempty"`
}

// Mirror is a forge that takes live copies. Exactly one forge is set.
type Mirror struct {
	// github.com, or GitHub Enterprise Server with a URL.
	GitHub *Access `json:"github,omitempty" oneof:"forge"`
	// gitlab.com, or an instance.
	GitLab *Access `json:"gitlab,omitempty" oneof:"forge"`
	// gitea.com, or an instance.
	Gitea *Access `json:"gitea,omitempty" oneof:"forge"`
	// codeberg.org, or an instance.
	Forgejo *Access `json:"forgejo,omitempty" oneof:"forge"`
	// An instance.
	Gogs *Access `json:"gogs,omitempty" oneof:"forge"`
	// code.onedev.io, or an instance.
	OneDev *Access `json:"onedev,omitempty" oneof:"forge"`
	// git.sr.ht, or an instance.
	Sourcehut *Access `json:"sourcehut,omitempty" oneof:"forge"`
	// The node of this machine, through its rad command.
	Radicle *Radicle `json:"radicle,omitempty" oneof:"forge"`

	// Who owns the copies there; default is the token's own account.
	Owner string `json:"owner,omitempty"`
	// Each owner at the source owns its copies there, too. Without it, two repositories of one name are an error.
	KeepOwners bool `json:"keepOwners,omitempty"`
	// Make the owner where it is missing, as an organisation.
	CreateOwner bool `json:"createOwner,omitempty"`
	// Of copies that are made: private (default), public, internal, limited or unlisted, as far as the forge knows them; source
	// for the source's own.
	Visibility string `json:"visibility,omitempty" enum:"private,public,internal,limited,unlisted,source"`
	// Of owners that are made.
	OwnerVisibility string `json:"ownerVisibility,omitempty" enum:"private,public,internal,limited"`
	// The forge itself pulls from the source, which gets to know the source's token. Otherwise Backstay pushes.
	Pull bool `json:"pull,omitempty"`
	// Between pulls: 8h, 30m.
	Interval string `json:"interval,omitempty" check:"span"`
	// Overwrite refs there that are not ancestors of the source's.
	Force bool `json:"force,omitempty"`
	// Git LFS objects, too.
	LFS bool `json:"lfs,omitempty"`
}

// Values of Mirror.Visibility that are no forge's.
const (
	VisibilityPrivate = "private"
	VisibilityPublic  = "public"
	VisibilitySource  = "source"
)

// Radicle is the node of this machine, through its rad command. RAD_HOME and RAD_PASSPHRASE are its own.
type Radicle struct {
	// Delete refs there that the source has no more.
	Prune bool `json:"prune,omitempty"`
}

// Notify says who is told how a run went.
type Notify struct {
	// Asked for at the start, after success and after failure.
	Heartbeats []Heartbeat `json:"heartbeats,omitempty"`
	// Take a message after a run.
	Messages []Channel `json:"messages,omitempty"`
	// failure (default): runs that failed or raised an alarm; always: every run.
	When string `json:"when,omitempty" enum:"failure,always"`
}

// Values of Notify.When.
const (
	WhenFailure = "failure"
	WhenAlways  = "always"
)

// Heartbeat is a dead man's switch, as healthchecks.io and Uptime Kuma have them: URLs that are asked for. Each holds a key, so they
// are secrets.
type Heartbeat struct {
	// After a run that is complete. It is never asked for after another.
	Success *Secret `json:"success,omitempty"`
	// Before a run.
	Start *Secret `json:"start,omitempty"`
	// After a run that failed or is incomplete.
	Failure *Secret `json:"failure,omitempty"`
}

// Channel takes messages. Exactly one of its fields is set.
type Channel struct {
	// A topic of ntfy.
	Ntfy *Push `json:"ntfy,omitempty" oneof:"service"`
	// A Gotify server.
	Gotify *Push `json:"gotify,omitempty" oneof:"service"`
	// An Apprise API server.
	Apprise *Apprise `json:"apprise,omitempty" oneof:"service"`
	// Slack's incoming webhook, which Mattermost, Rocket.Chat and Discord (with /slack) understand.
	Slack *Secret `json:"slack,omitempty" oneof:"service"`
	// The run report as JSON, posted to a URL.
	Webhook *Secret `json:"webhook,omitempty" oneof:"service"`
	// A mail server.
	Email *Email `json:"email,omitempty" oneof:"service"`
}

// Push is a push service.
type Push struct {
	// Of the server; ntfy: with the topic.
	URL string `json:"url" check:"url"`
	// An access token (ntfy), or an application's (Gotify).
	Token *Secret `json:"token,omitempty"`
	// With a password, instead of a token (ntfy).
	Username string `json:"username,omitempty"`
	// Goes with username.
	Password *Secret `json:"password,omitempty"`
	// Also mail to this address (ntfy).
	Email string `json:"email,omitempty"`
}

// Apprise is an Apprise API server.
type Apprise struct {
	// Of the server.
	URL string `json:"url" check:"url"`
	// Key of a configuration that is stored there.
	Config string `json:"config,omitempty"`
	// Of the services that are told; all of them where nothing is said.
	Tags []string `json:"tags,omitempty"`
	// URLs of services, where no configuration is stored there.
	URLs []Secret `json:"urls,omitempty"`
}

// Email is a mail server.
type Email struct {
	// host:port; 465 speaks TLS at once, others start it.
	Server string `json:"server"`
	// Address of the sender.
	From string `json:"from"`
	// Addresses of the receivers.
	To []string `json:"to"`
	// With a password.
	Username string `json:"username,omitempty"`
	// Goes with username.
	Password *Secret `json:"password,omitempty"`
}
