//go:build long

package github_test

import (
	"runtime"
	"testing"
	"time"
)

// TestHugeBudget captures 40,000 issues with 200,000 comments. What the process holds is measured with the fake in it.
func TestHugeBudget(t *testing.T) {
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		for {
			select {
			case <-done:
				most <- peak
				return
			case <-time.After(200 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	budget(t, 40_000, 200_000)
	close(done)
	t.Logf("the heap was at most %d MiB, with the fake and the store in it", <-most>>20)
}
