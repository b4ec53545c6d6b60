package point

// Piece is a part of the work on a subject that one process can do alone: the capture of one repository of an account. Text that a source
// makes, and reads again in another process.
type Piece struct {
	Name string `json:"name"` // unique within the subject
	Size int64  `json:"size"` // bytes, roughly: the largest are begun first
	Spec []byte `json:"spec"` // for the source alone
}
