// Package v1alpha1 is the shape of what users declare: the kinds Location and Policy of the group backstay.io, the same in files
// off the cluster and as custom resources on it. It holds types only; package config reads and checks them.
package v1alpha1

// Group and Version make the apiVersion of every document.
const (
	Group      = "backstay.io"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version

	KindLocation = "Location"
	KindPolicy   = "Policy"
)

// Metadata names an object.
type Metadata struct {
	// Lowercase letters, digits and dashes; unique among objects of its kind.
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Secret says where a secret is. Exactly one field is set.
type Secret struct {
	// Name of the environment variable that holds it.
	Env string `json:"env,omitempty"`
	// Path of the file that holds it; a line break at its end is dropped.
	File string `json:"file,omitempty"`
	// Shell command that prints it.
	Command string `json:"command,omitempty"`
	// Key of a Kubernetes Secret in the same namespace; on a cluster only.
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`

	// Value is a secret that a foreign configuration file holds in clear. Native files cannot: they are kept in version control.
	Value string `json:"-"`
}

// SecretKeyRef names one key of a Kubernetes Secret.
type SecretKeyRef struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Location is where a vault lives.
type Location struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   Metadata     `json:"metadata"`
	Spec       LocationSpec `json:"spec"`
}

// LocationSpec says where a vault lives and how it is opened.
type LocationSpec struct {
	// Directory or URL, as --location takes it: /srv/vault, s3://bucket/prefix?endpoint=HOST.
	URL string `json:"url"`
	// The vault's password.
	Password Secret `json:"password"`
	// What the store asks for, under the names of environment variables that docs/locations.md lists: AWS_ACCESS_KEY_ID.
	Credentials map[string]Secret `json:"credentials,omitempty"`
}

// Policy says what is backed up, when, where to, and how long it is kept.
type Policy struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   Metadata   `json:"metadata"`
	Spec       PolicySpec `json:"spec"`
}

// PolicySpec is what a policy says. It has sources, and a location, exports or mirrors for them.
type PolicySpec struct {
	// When it runs; without a schedule it runs once, when it is started.
	Schedule *Schedule `json:"schedule,omitempty"`
	// Not run while true.
	Suspend bool `json:"suspend,omitempty"`
	// Name of the Location that takes restore points.
	Location string `json:"location,omitempty"`
	// Which points are kept; all of them where nothing is said.
	Retention *Retention `json:"retention,omitempty"`
	Sources   []Source   `json:"sources"`
	// Plain copies, in the ordinary formats, beside the restore points.
	Exports []Export `json:"exports,omitempty"`
	// Live copies on other forges.
	Mirrors []Mirror `json:"mirrors,omitempty"`
	// Who is told how a run went.
	Notify *Notify `json:"notify,omitempty"`
	// Repositories captured at once from one host. Default 4.
	Parallel int `json:"parallel,omitempty"`
}

// Schedule says when a policy runs.
type Schedule struct {
	// Five fields (minute, hour, day, month, weekday), or @hourly, @daily, @weekly, @monthly, @every 6h.
	Cron string `json:"cron"`
	// Of the fields, such as Europe/Berlin; default is the process's own (TZ).
	TimeZone string `json:"timeZone,omitempty"`
	// A run starts up to so much later, each time by another span, so that many hosts do not start at once: 10m.
	Jitter string `json:"jitter,omitempty"`
}

// Retention says which points are kept: those that any rule keeps. See docs/cli.md, expire.
type Retention struct {
	Last    int `json:"last,omitempty"`
	Hourly  int `json:"hourly,omitempty"`
	Daily   int `json:"daily,omitempty"`
	Weekly  int `json:"weekly,omitempty"`
	Monthly int `json:"monthly,omitempty"`
	Yearly  int `json:"yearly,omitempty"`
	// Every point at most so much older than the newest: 30d, 1y6m.
	Within string `json:"within,omitempty"`
}

// Source is where repositories are listed, or one repository. Exactly one of the forges, Git and Directory is set.
type Source struct {
	// Name of the account in restore points; default is the host and the account, as github.com/acme. Two sources of a policy
	// need different names.
	Name      string  `json:"name,omitempty"`
	GitHub    *Forge  `json:"github,omitempty"`
	GitLab    *Forge  `json:"gitlab,omitempty"`
	Gitea     *Forge  `json:"gitea,omitempty"`
	Forgejo   *Forge  `json:"forgejo,omitempty"`
	Gogs      *Forge  `json:"gogs,omitempty"`
	Bitbucket *Forge  `json:"bitbucket,omitempty"`
	OneDev    *Forge  `json:"onedev,omitempty"`
	Sourcehut *Forge  `json:"sourcehut,omitempty"`
	Git       *Git    `json:"git,omitempty"`
	Directory *string `json:"directory,omitempty"`
}

// Access says how a forge or a git server is reached.
type Access struct {
	// Of the instance (a forge) or the repository (git). Each forge that has a public instance takes that as default.
	URL string `json:"url,omitempty"`
	// For the API and for git over https.
	Token *Secret `json:"token,omitempty"`
	// With Password; or the name that goes with Token where a forge wants one (Bitbucket: the e-mail address).
	Username string  `json:"username,omitempty"`
	Password *Secret `json:"password,omitempty"`
	// A GitHub App instead of a token.
	App *App `json:"app,omitempty"`
	// Git over ssh instead of https.
	SSH *SSH `json:"ssh,omitempty"`
	// PEM file of certificate authorities trusted beside the system's.
	CAFile string `json:"caFile,omitempty"`
}

// App is a GitHub App as it is installed for an account.
type App struct {
	ID             int64 `json:"id"`
	InstallationID int64 `json:"installationID"`
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
	// Wikis of the repositories. Default true.
	Wikis *bool `json:"wikis,omitempty"`
	// Git LFS objects. Default true.
	LFS *bool `json:"lfs,omitempty"`
	// Also the repositories that the account has starred, has contributed to, and its gists or snippets.
	Starred     bool `json:"starred,omitempty"`
	Contributed bool `json:"contributed,omitempty"`
	Gists       bool `json:"gists,omitempty"`
	// Issues as the forge answers them, one file each.
	Issues bool `json:"issues,omitempty"`

	// Globs over owner/name, or over the name alone where there is no slash: acme/*, *-archive. Nothing said takes all;
	// exclude beats include.
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	// Globs over owners.
	IncludeOwners []string `json:"includeOwners,omitempty"`
	ExcludeOwners []string `json:"excludeOwners,omitempty"`
	// Only repositories with so many stars at least.
	Stars int `json:"stars,omitempty"`
	// Only repositories with activity in the last so much time: 1y, 90d.
	ActiveWithin string `json:"activeWithin,omitempty"`
	// Only repositories in one of these languages.
	Languages       []string `json:"languages,omitempty"`
	ExcludeArchived bool     `json:"excludeArchived,omitempty"`
	ExcludeForks    bool     `json:"excludeForks,omitempty"`
}

// Git is one repository.
type Git struct {
	Access `json:",inline"`
	LFS    *bool `json:"lfs,omitempty"`
	// Owner and name of the repository in restore points and copies; default is what the URL says.
	Owner string `json:"owner,omitempty"`
	Name  string `json:"name,omitempty"`
	// Also the wiki beside it, name.wiki.git.
	Wiki bool `json:"wiki,omitempty"`
}

// Export is a place for plain copies of repositories. Exactly one of Local, S3, Azure, WebDAV and Radicle is set.
type Export struct {
	Local  *Local  `json:"local,omitempty"`
	S3     *S3     `json:"s3,omitempty"`
	Azure  *Azure  `json:"azure,omitempty"`
	WebDAV *WebDAV `json:"webdav,omitempty"`
	// Layout of the copies below the place.
	Layout `json:",inline"`
}

// Layout says how copies lie in their place.
type Layout struct {
	// HOST/OWNER/NAME instead of NAME. Without it, two repositories of one name are an error.
	Structured bool `json:"structured,omitempty"`
	// worktree (a clone with files), bare (a bare repository), or mirror (the same with pull requests' refs). Places other than
	// local take bare and mirror only. Default bare.
	Form string `json:"form,omitempty"`
	// One zip file a repository.
	Zip bool `json:"zip,omitempty"`
	// Each run that finds something new makes a copy of its own in a directory named by its Unix time; the newest so many are
	// kept. 0 updates one copy.
	Keep int `json:"keep,omitempty"`
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
	Path string `json:"path"`
}

// S3 is a bucket of a store that speaks S3.
type S3 struct {
	Bucket   string `json:"bucket"`
	Endpoint string `json:"endpoint"` // host, or host:port
	Region   string `json:"region,omitempty"`
	// Without keys, those of the environment, the machine or the pod.
	AccessKey    *Secret `json:"accessKey,omitempty"`
	SecretKey    *Secret `json:"secretKey,omitempty"`
	SessionToken *Secret `json:"sessionToken,omitempty"`
	// Plain http; for a store on the same machine.
	Insecure     bool   `json:"insecure,omitempty"`
	StorageClass string `json:"storageClass,omitempty"`
	// Key of a tag on each object that holds the URL of its repository.
	SourceTag *string `json:"sourceTag,omitempty"`
}

// Azure is a container of Azure Blob Storage.
type Azure struct {
	URL       string `json:"url"` // of the account, may carry a shared access signature only in foreign files
	Container string `json:"container"`
	// Without a client, the credentials of the Azure command line.
	TenantID     string  `json:"tenantID,omitempty"`
	ClientID     string  `json:"clientID,omitempty"`
	ClientSecret *Secret `json:"clientSecret,omitempty"`
	// Shared access signature.
	SAS    *Secret `json:"sas,omitempty"`
	UseCLI bool    `json:"useCLI,omitempty"`
}

// WebDAV is a directory of a WebDAV server.
type WebDAV struct {
	URL      string  `json:"url"`
	Username string  `json:"username,omitempty"`
	Password *Secret `json:"password,omitempty"`
	Path     string  `json:"path,omitempty"`
}

// Mirror is a forge that takes live copies. Exactly one of the forges and Radicle is set.
type Mirror struct {
	GitHub    *Access  `json:"github,omitempty"`
	GitLab    *Access  `json:"gitlab,omitempty"`
	Gitea     *Access  `json:"gitea,omitempty"`
	Forgejo   *Access  `json:"forgejo,omitempty"`
	Gogs      *Access  `json:"gogs,omitempty"`
	OneDev    *Access  `json:"onedev,omitempty"`
	Sourcehut *Access  `json:"sourcehut,omitempty"`
	Radicle   *Radicle `json:"radicle,omitempty"`

	// Who owns the copies there; default is the token's own account. With Structured each owner of a source keeps its own, as an
	// organisation there.
	Owner string `json:"owner,omitempty"`
	// Make the owner where it is missing, as an organisation.
	CreateOwner bool `json:"createOwner,omitempty"`
	// private (default), public, internal, limited or unlisted, as the forge knows them.
	Visibility      string `json:"visibility,omitempty"`
	OwnerVisibility string `json:"ownerVisibility,omitempty"`
	// The forge itself pulls from the source, which gets to know the source's token. Otherwise Backstay pushes.
	Pull bool `json:"pull,omitempty"`
	// Between pulls: 8h.
	Interval string `json:"interval,omitempty"`
	// Overwrite refs there that are not ancestors of the source's.
	Force bool `json:"force,omitempty"`
	LFS   bool `json:"lfs,omitempty"`
}

// Radicle is the node of this machine, through its rad command.
type Radicle struct {
	// Delete refs there that the source has no more.
	Prune bool `json:"prune,omitempty"`
}

// Notify says who is told how a run went.
type Notify struct {
	// URLs asked for at the start, after success and after failure. A heartbeat that only has Success is left alone otherwise.
	Heartbeats []Heartbeat `json:"heartbeats,omitempty"`
	Messages   []Channel   `json:"messages,omitempty"`
	// failure (default): runs that failed or raised an alarm; always: every run.
	When string `json:"when,omitempty"`
}

// Heartbeat is a dead man's switch, as healthchecks.io and Uptime Kuma have them.
type Heartbeat struct {
	Success *Secret `json:"success,omitempty"`
	Start   *Secret `json:"start,omitempty"`
	Failure *Secret `json:"failure,omitempty"`
}

// Channel takes messages. Exactly one of its fields is set.
type Channel struct {
	Ntfy    *Push    `json:"ntfy,omitempty"`
	Gotify  *Push    `json:"gotify,omitempty"`
	Apprise *Apprise `json:"apprise,omitempty"`
	// Slack's incoming webhook, which Mattermost, Rocket.Chat and Discord (with /slack) understand.
	Slack *Secret `json:"slack,omitempty"`
	// The run report as JSON, posted to a URL.
	Webhook *Secret `json:"webhook,omitempty"`
	Email   *Email  `json:"email,omitempty"`
}

// Push is a push service.
type Push struct {
	URL      string  `json:"url"` // ntfy: with the topic
	Token    *Secret `json:"token,omitempty"`
	Username string  `json:"username,omitempty"`
	Password *Secret `json:"password,omitempty"`
	Email    string  `json:"email,omitempty"` // ntfy: also mail to this address
}

// Apprise is an Apprise API server.
type Apprise struct {
	URL    string   `json:"url"`
	Config string   `json:"config,omitempty"` // key of a stored configuration
	Tags   []string `json:"tags,omitempty"`
	// URLs of services, where no configuration is stored there.
	URLs []Secret `json:"urls,omitempty"`
}

// Email is a mail server.
type Email struct {
	// host:port; 465 speaks TLS at once, others start it.
	Server   string   `json:"server"`
	From     string   `json:"from"`
	To       []string `json:"to"`
	Username string   `json:"username,omitempty"`
	Password *Secret  `json:"password,omitempty"`
}
