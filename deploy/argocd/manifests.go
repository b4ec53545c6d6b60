// Package argocd holds manifests for applications that Argo CD deploys.
package argocd

import _ "embed"

// Gate is the Job that waits at Backstay's gate.
//
//go:embed gate.yaml
var Gate string
