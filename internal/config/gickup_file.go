package config

// The shape of gickup's configuration file. Every key parses everywhere, as in gickup; what it means depends on the place.

type gickupConf struct {
	Source      gickupSource      `json:"source,omitempty"`
	Destination gickupDestination `json:"destination,omitempty"`
	Cron        string            `json:"cron,omitempty"`
	Log         gickupLog         `json:"log,omitempty"`
	Metrics     gickupMetrics     `json:"metrics,omitempty"`
	WebUI       gickupWebUI       `json:"webui,omitempty"`
}

type gickupSource struct {
	GitHub    []gickupRepo `json:"github,omitempty"`
	GitLab    []gickupRepo `json:"gitlab,omitempty"`
	Gitea     []gickupRepo `json:"gitea,omitempty"`
	Gogs      []gickupRepo `json:"gogs,omitempty"`
	Bitbucket []gickupRepo `json:"bitbucket,omitempty"`
	OneDev    []gickupRepo `json:"onedev,omitempty"`
	Sourcehut []gickupRepo `json:"sourcehut,omitempty"`
	Any       []gickupRepo `json:"any,omitempty"`
}

type gickupDestination struct {
	GitHub    []gickupRepo    `json:"github,omitempty"`
	GitLab    []gickupRepo    `json:"gitlab,omitempty"`
	Gitea     []gickupRepo    `json:"gitea,omitempty"`
	Gogs      []gickupRepo    `json:"gogs,omitempty"`
	OneDev    []gickupRepo    `json:"onedev,omitempty"`
	Sourcehut []gickupRepo    `json:"sourcehut,omitempty"`
	Local     []gickupLocal   `json:"local,omitempty"`
	S3        []gickupS3      `json:"s3,omitempty"`
	AzureBlob []gickupAzure   `json:"azureblob,omitempty"`
	WebDAV    []gickupWebDAV  `json:"webdav,omitempty"`
	Radicle   []gickupRadicle `json:"radicle,omitempty"`
}

// gickupRepo is a forge's account, as a source or as a destination.
type gickupRepo struct {
	Token             string           `json:"token,omitempty"`
	TokenFile         string           `json:"token_file,omitempty"`
	User              string           `json:"user,omitempty"`
	Email             string           `json:"email,omitempty"`
	Organization      string           `json:"organization,omitempty"`
	SSH               bool             `json:"ssh,omitempty"`
	SSHKey            string           `json:"sshkey,omitempty"`
	Username          string           `json:"username,omitempty"`
	Password          string           `json:"password,omitempty"`
	URL               string           `json:"url,omitempty"`
	Exclude           []string         `json:"exclude,omitempty"`
	ExcludeOrgs       []string         `json:"excludeorgs,omitempty"`
	Include           []string         `json:"include,omitempty"`
	IncludeOrgs       []string         `json:"includeorgs,omitempty"`
	Issues            bool             `json:"issues,omitempty"`
	Wiki              bool             `json:"wiki,omitempty"`
	Starred           bool             `json:"starred,omitempty"`
	CreateOrg         bool             `json:"createorg,omitempty"`
	Visibility        gickupVisibility `json:"visibility,omitempty"`
	Filter            gickupFilter     `json:"filter,omitempty"`
	Force             bool             `json:"force,omitempty"`
	Contributed       bool             `json:"contributed,omitempty"`
	MirrorInterval    string           `json:"mirrorinterval,omitempty"`
	LFS               bool             `json:"lfs,omitempty"`
	Mirror            gickupMirror     `json:"mirror,omitempty"`
	Gists             bool             `json:"gists,omitempty"`
	AppID             int64            `json:"app_id,omitempty"`
	AppInstallationID int64            `json:"app_installation_id,omitempty"`
	AppPrivateKeyFile string           `json:"app_private_key_file,omitempty"`
}

type gickupMirror struct {
	MirrorInterval string `json:"mirrorinterval,omitempty"`
	Enabled        bool   `json:"enabled,omitempty"`
}

type gickupVisibility struct {
	Repositories  string `json:"repositories,omitempty"`
	Organizations string `json:"organizations,omitempty"`
}

type gickupFilter struct {
	LastActivity    string   `json:"lastactivity,omitempty"`
	Stars           int      `json:"stars,omitempty"`
	Languages       []string `json:"languages,omitempty"`
	ExcludeArchived bool     `json:"excludearchived,omitempty"`
	ExcludeForks    bool     `json:"excludeforks,omitempty"`
}

type gickupLocal struct {
	Path       string `json:"path,omitempty"`
	Structured bool   `json:"structured,omitempty"`
	Zip        bool   `json:"zip,omitempty"`
	Keep       int    `json:"keep,omitempty"`
	Bare       bool   `json:"bare,omitempty"`
	Mirror     bool   `json:"mirror,omitempty"`
	LFS        bool   `json:"lfs,omitempty"`
}

type gickupS3 struct {
	Bucket           string  `json:"bucket,omitempty"`
	Endpoint         string  `json:"endpoint,omitempty"`
	UseStaticCreds   *bool   `json:"use_static_creds,omitempty"`
	AccessKey        string  `json:"accesskey,omitempty"`
	SecretKey        string  `json:"secretkey,omitempty"`
	Token            string  `json:"token,omitempty"`
	Region           string  `json:"region,omitempty"`
	UseSSL           bool    `json:"usessl,omitempty"`
	Structured       bool    `json:"structured,omitempty"`
	Zip              bool    `json:"zip,omitempty"`
	StorageClass     string  `json:"storageclass,omitempty"`
	DateCreateDir    bool    `json:"datecreatedir,omitempty"`
	SrcRepoURLTagKey *string `json:"src_repo_url_tag_key,omitempty"`
}

type gickupAzure struct {
	URL              string `json:"url,omitempty"`
	Container        string `json:"container,omitempty"`
	UseCLICredential bool   `json:"useclicredential,omitempty"`
	TenantID         string `json:"tenantid,omitempty"`
	ClientID         string `json:"clientid,omitempty"`
	ClientSecret     string `json:"clientsecret,omitempty"`
	Structured       bool   `json:"structured,omitempty"`
	Zip              bool   `json:"zip,omitempty"`
	DateCreateDir    bool   `json:"datecreatedir,omitempty"`
}

type gickupWebDAV struct {
	URL           string `json:"url,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Path          string `json:"path,omitempty"`
	Structured    bool   `json:"structured,omitempty"`
	Zip           bool   `json:"zip,omitempty"`
	DateCreateDir bool   `json:"datecreatedir,omitempty"`
}

type gickupRadicle struct {
	Force      bool   `json:"force,omitempty"`
	Prune      bool   `json:"prune,omitempty"`
	Visibility string `json:"visibility,omitempty"`
	Issues     bool   `json:"issues,omitempty"`
}

type gickupLog struct {
	TimeFormat  string            `json:"timeformat,omitempty"`
	FileLogging gickupFileLogging `json:"file-logging,omitempty"`
}

type gickupFileLogging struct {
	Dir    string `json:"dir,omitempty"`
	File   string `json:"file,omitempty"`
	MaxAge int    `json:"maxage,omitempty"`
}

type gickupMetrics struct {
	Prometheus gickupPrometheus `json:"prometheus,omitempty"`
	Heartbeat  gickupHeartbeat  `json:"heartbeat,omitempty"`
	Push       gickupPushes     `json:"push,omitempty"`
}

type gickupPrometheus struct {
	ListenAddr string `json:"listen_addr,omitempty"`
	Endpoint   string `json:"endpoint,omitempty"`
}

type gickupHeartbeat struct {
	URLs []string `json:"urls,omitempty"`
}

type gickupPushes struct {
	Ntfy    []gickupPush    `json:"ntfy,omitempty"`
	Gotify  []gickupPush    `json:"gotify,omitempty"`
	Apprise []gickupApprise `json:"apprise,omitempty"`
}

type gickupPush struct {
	URL      string `json:"url,omitempty"`
	Token    string `json:"token,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Email    string `json:"email,omitempty"`
}

type gickupApprise struct {
	URL              string   `json:"url,omitempty"`
	Config           string   `json:"config,omitempty"`
	Tags             []string `json:"tags,omitempty"`
	NotificationURLs []string `json:"notification_urls,omitempty"`
}

// gickupWebUI is a key of a branch of gickup that is not released.
type gickupWebUI struct {
	Addr string `json:"addr,omitempty"`
}
