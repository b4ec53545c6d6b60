package point

import "time"

// RunVersion is the version of Run that this build writes.
const RunVersion = 1

// RunDrill is the Kind of a run that drilled points, and made none.
const RunDrill = "drill"

// Run is how one run of a policy went: what scripts, metrics and messages are made from. It holds no secret.
type Run struct {
	Version  int         `json:"version"`
	Policy   string      `json:"policy"`
	Kind     string      `json:"kind,omitempty"` // RunDrill; else it backed up
	Started  time.Time   `json:"started"`
	Finished time.Time   `json:"finished"`
	State    State       `json:"state"`   // Complete; Incomplete, where something is lacking; Failed, where nothing was stored
	Sources  []SourceRun `json:"sources"` // in the order of the policy
	Expired  int         `json:"expired,omitempty"`
	Problems []Problem   `json:"problems,omitempty"` // of the run as a whole
	Warnings []string    `json:"warnings,omitempty"` // that somebody must see to, though the run is good: a token that expires soon
	Storage  *StorageRun `json:"storage,omitempty"`
	Proofs   []ProofRun  `json:"proofs,omitempty"` // of the policy's subjects, where it says how they are proven
}

// ProofRun is how far the points of a subject are proven after a run.
type ProofRun struct {
	Subject        Subject    `json:"subject"`
	Proven         *time.Time `json:"proven,omitempty"`         // when the newest proven point was made
	Drilled        *time.Time `json:"drilled,omitempty"`        // when the last drill ended
	Failed         bool       `json:"failed,omitempty"`         // that drill failed
	RestoreSeconds float64    `json:"restoreSeconds,omitempty"` // of the last drill that did not
	Lacking        bool       `json:"lacking,omitempty"`        // the policy asks for a later proven point than there is
}

// SourceRun is how one source of a policy fared.
type SourceRun struct {
	Subject      Subject         `json:"subject"`
	Type         string          `json:"type"` // "github", "git"
	Point        string          `json:"point,omitempty"`
	State        State           `json:"state"`
	Ledger       *Ledger         `json:"ledger,omitempty"`    // of the point
	Listed       int             `json:"listed"`              // repositories that the source has, before filters
	Requests     int64           `json:"requests"`            // to the forge's API and for git
	Remaining    *int            `json:"remaining,omitempty"` // requests that the forge still allows; nil where it sets no limit
	Seconds      float64         `json:"seconds"`
	Repositories []RepositoryRun `json:"repositories,omitempty"`
	Problems     []Problem       `json:"problems,omitempty"`
	Alarms       []string        `json:"alarms,omitempty"`
}

// RepositoryRun is how one repository fared.
type RepositoryRun struct {
	Host       string        `json:"host"`
	Owner      string        `json:"owner"`
	Name       string        `json:"name"`
	State      State         `json:"state"`
	Unchanged  bool          `json:"unchanged,omitempty"`
	Reason     string        `json:"reason,omitempty"` // why it is not Stored
	Seconds    float64       `json:"seconds,omitempty"`
	Bytes      int64         `json:"bytes,omitempty"`
	NewBytes   int64         `json:"newBytes,omitempty"`
	LastGood   *time.Time    `json:"lastGood,omitempty"` // when the newest good copy was captured
	Deliveries []DeliveryRun `json:"deliveries,omitempty"`
}

// DeliveryRun is how one copy of a repository fared: an export or a mirror.
type DeliveryRun struct {
	Type      string   `json:"type"`  // "local", "s3", "gitea"
	Place     string   `json:"place"` // path or URL, without secrets
	State     State    `json:"state"`
	Unchanged bool     `json:"unchanged,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Hints     []string `json:"hints,omitempty"` // what to do where it failed
	Seconds   float64  `json:"seconds,omitempty"`
}

// Problem is what went wrong, and what to do about it.
type Problem struct {
	What  string   `json:"what"`
	Class string   `json:"class"` // reason of fault.Class: "Denied"
	Hints []string `json:"hints,omitempty"`
}

// StorageRun is what the vault takes.
type StorageRun struct {
	Location    string `json:"location"`
	StoredBytes int64  `json:"storedBytes"` // written by this run
	TotalBytes  int64  `json:"totalBytes,omitempty"`
	Points      int    `json:"points,omitempty"`
}
