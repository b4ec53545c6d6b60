//go:build long

package github_test

import "testing"

func TestHugeBudget(t *testing.T) { budget(t, 40_000, 200_000) }
