// The definitions of Flux's sources. Its source-controller itself is not built.
module github.com/backstay/backstay/test/servers/flux

go 1.26.0

require github.com/fluxcd/source-controller v1.9.5
