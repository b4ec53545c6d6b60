package kube

// Encode is encode, for tests.
var Encode = encode
