// Package worker is what runs in the Jobs that the controller starts: it works on Backups, Restores and Locations, with the cluster on
// one side and a vault on the other. Killed at any instant, it takes the work up again.
package worker
