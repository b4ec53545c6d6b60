// Package volume captures and restores the data behind claims: CSI snapshots and clones of them, movers that read or fill them, and
// the exchange of the volume behind a claim.
package volume

import (
	"strings"

	"github.com/backstay/backstay/internal/point"
)

// ClaimOf is the claim whose data a part holds.
func ClaimOf(part string) (namespace, claim string, is bool) {
	rest, is := strings.CutPrefix(part, partPrefix)
	if !is {
		return "", "", false
	}
	namespace, claim, is = strings.Cut(rest, "/")
	return namespace, claim, is
}

// partPrefix begins the names of parts.
const partPrefix = "volumes/"

// Task is the whole input of a mover, a pod that has claims mounted and no access to the cluster. It is handed over as the file
// TaskFile in a Secret that goes with the Job.
type Task struct {
	// Backup or Restore.
	Operation string `json:"operation"`

	Location Location `json:"location"`
	// Of the point that the parts are for; Policy of the Backup.
	Subject point.Subject `json:"subject"`
	Policy  string        `json:"policy,omitempty"`
	// Point that is restored from.
	Point   string  `json:"point,omitempty"`
	Volumes []Mount `json:"volumes"`
}

// Operations of a mover.
const (
	Backup  = "backup"
	Restore = "restore"
)

// TaskFile is where a mover finds its Task; ResultFile takes its Result (a pod's termination message, 4096 bytes at most).
const (
	TaskFile   = "/run/backstay/task.json"
	ResultFile = "/dev/termination-log"
)

// Location is where the vault is, with its secrets.
type Location struct {
	URL      string `json:"url"`
	Password string `json:"password"` //nolint:gosec // it is in a Secret
	// The other one, while the vault's password is being changed; empty for none.
	OtherPassword string            `json:"otherPassword,omitempty"`
	Credentials   map[string]string `json:"credentials,omitempty"`
}

// Mount is one volume as the mover sees it.
type Mount struct {
	Part string `json:"part"` // of the point
	Kind string `json:"kind"` // point.KindVolume, mounted at Path, or point.KindBlock, a device at Path
	Path string `json:"path"`
	// Mark is what the part is marked with when it is stored, unique to this capture: by it the one who composes the point knows that
	// the copy it finds is of this run.
	Mark string `json:"mark,omitempty"`
	// Notes go into the part: "crash-inconsistent: …".
	Notes []string `json:"notes,omitempty"`
}

// Result is what a mover reports.
type Result struct {
	Parts []PartResult `json:"parts"`
	Error string       `json:"error,omitempty"` // of the mover as a whole
	Class string       `json:"class,omitempty"` // reason of its fault.Class
}

// PartResult is how one volume fared.
type PartResult struct {
	Part   string      `json:"part"`
	State  point.State `json:"state"` // Stored or Failed; of a restore, too
	Reason string      `json:"reason,omitempty"`
	Bytes  int64       `json:"bytes"`
}
