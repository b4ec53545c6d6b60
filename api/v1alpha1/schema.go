package v1alpha1

import _ "embed" // schema.json

//go:embed schema.json
var document string

// Schema returns the JSON Schema (draft 7) of the files, for editors.
func Schema() []byte { return []byte(document) }
