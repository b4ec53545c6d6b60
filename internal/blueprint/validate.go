package blueprint

// Validate returns every fault of a Blueprint that shows without a cluster. Each is fault.ErrInvalid, or fault.ErrUnsupported for a
// function that is not among fns.
func Validate(b *Blueprint, fns []Function) []error {
	return nil
}
