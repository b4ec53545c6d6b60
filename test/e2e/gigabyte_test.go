//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGigabyte takes a repository of a gigabyte there and back, and the little that a forced push put in its place.
func TestGigabyte(t *testing.T) {
	b := newBackstay(t)
	source := filepath.Join(t.TempDir(), "large.git")
	git(t, "", "init", "--quiet", "--bare", "--initial-branch=main", source)
	noise := rand.NewChaCha8([32]byte{1})
	const blobs, size = 1000, 1 << 20
	importBlobs(t, source, noise, blobs, size)
	first := b.backup(t, source)
	if first.StoredBytes < blobs*size || first.StoredBytes > blobs*size*11/10 {
		t.Errorf("%d bytes stored for %d", first.StoredBytes, blobs*size)
	}
	importBlobs(t, source, noise, 1, size)
	if more := b.backup(t, source); more.StoredBytes > size*11/10 {
		t.Errorf("%d bytes stored for a change of %d", more.StoredBytes, size)
	}
	dir := filepath.Join(t.TempDir(), "restored.git")
	b.ok(t, "restore", "latest", "--to", dir)
	same(t, dir, source)
}

// importBlobs commits files of bytes that nothing compresses.
func importBlobs(t *testing.T, dir string, noise io.Reader, blobs int, size int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "-C", dir, "-c", "core.bigFileThreshold=256k", "fast-import", "--quiet", "--force")
	cmd.Env = cleanEnv()
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(pipe, 1<<20)
	fmt.Fprintf(w, "commit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\ndata 0\n")
	for i := range blobs {
		fmt.Fprintf(w, "M 100644 inline blob%d-%d\ndata %d\n", blobs, i, size)
		io.CopyN(w, noise, size) // Flush tells of errors
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	pipe.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
