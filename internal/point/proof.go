package point

import "time"

// Proof is what a drill found: a point was restored into scratch, and looked at. The newest one of a point says whether it is proven.
type Proof struct {
	Point    string    `json:"point"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Proven   bool      `json:"proven"` // every check passed, but for what the drill was told to leave out
	// How long it took until what was restored could be used; 0 where it never came to that.
	RestoreSeconds float64 `json:"restoreSeconds"`
	Checks         []Check `json:"checks"`
	By             string  `json:"by"` // who made the drill: "HOST", "CLUSTER/NAMESPACE/NAME"
}

// Check is one thing that a drill looked at.
type Check struct {
	What string `json:"what"`         // "fsck", "refs", "ready", "http shop/web:80/health", "sql"
	Of   string `json:"of,omitempty"` // name of the part
	OK   bool   `json:"ok"`
	// Nobody looked at it, as the drill was told not to: it has neither passed nor failed.
	Excepted bool   `json:"excepted,omitempty"`
	Detail   string `json:"detail,omitempty"` // what was found: "412 refs", "wants 7, has 0"; without secrets
}

// Problems are the checks that did not pass.
func (p Proof) Problems() (failed []Check) {
	for _, c := range p.Checks {
		if !c.OK && !c.Excepted {
			failed = append(failed, c)
		}
	}
	return failed
}

// Excepted are the names of the parts at which nobody looked, as the drill was told not to.
func (p Proof) Excepted() (names []string) {
	for _, c := range p.Checks {
		if c.Excepted {
			names = append(names, c.Of)
		}
	}
	return names
}
