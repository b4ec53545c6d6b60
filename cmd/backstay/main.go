// Command backstay protects source repositories and Kubernetes applications in restore points.
package main

func main() {}
