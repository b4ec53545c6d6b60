package forgetest

import (
	"os"
	"testing"
)

// Recordings is the path in an environment variable that test/recordings.sh sets. Without it the test fails in CI, and is skipped
// elsewhere: what it names is fetched, and not everybody who changes a line is on a network.
func Recordings(t testing.TB, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set: eval \"$(test/recordings.sh)\"", variable)
		}
		t.Skipf("%s is not set: eval \"$(test/recordings.sh)\"", variable)
	}
	return path
}
