package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os/exec"
	"strings"
)

// history makes a repository that is the same on every machine: text under edit, and blobs that nothing compresses. It keeps the
// working tree in memory, so that a repository can grow in steps.
type history struct {
	dir     string // the bare repository
	random  *rand.Rand
	noise   *rand.ChaCha8
	files   [][]string // lines of each text file
	commits int
	blobs   int

	importing bool // the running import has a commit
}

// growth is what one step adds.
type growth struct {
	commits   int // each edits five lines in each of three files; every 20th adds a file, and every 50th is tagged
	blobs     int // spread over the commits
	blobBytes int
}

// newHistory creates a bare repository at dir with a first commit of files text files of 200 lines.
func newHistory(ctx context.Context, dir string, files int) (*history, error) {
	h := &history{dir: dir, random: rand.New(rand.NewPCG(1, 2)), noise: rand.NewChaCha8([32]byte{3})}
	if err := git(ctx, "init", "--quiet", "--bare", "--initial-branch=main", dir); err != nil {
		return nil, err
	}
	return h, h.write(ctx, func(w *bufio.Writer) {
		h.commit(w, "first")
		for range files {
			h.addFile(w)
		}
	})
}

// grow adds commits and repacks, as a server does from time to time.
func (h *history) grow(ctx context.Context, g growth) error {
	err := h.write(ctx, func(w *bufio.Writer) {
		for i := range g.commits {
			h.commit(w, "change")
			for range 3 {
				h.editFile(w)
			}
			if h.commits%20 == 0 {
				h.addFile(w)
			}
			for range g.blobs*(i+1)/g.commits - g.blobs*i/g.commits {
				h.addBlob(w, g.blobBytes)
			}
			if h.commits%50 == 0 {
				fmt.Fprintf(w, "tag v%d\nfrom refs/heads/main\ntagger %s\ndata 0\n", h.commits, h.who())
			}
		}
	})
	if err != nil {
		return err
	}
	return git(ctx, "-C", h.dir, "-c", "core.bigFileThreshold=256k", "repack", "-adfq") // fast-import's own deltas are poor
}

// addRefs adds n branches on commits of the history.
func (h *history) addRefs(ctx context.Context, n int) error {
	list, err := exec.CommandContext(ctx, "git", "-C", h.dir, "rev-list", "main").Output()
	if err != nil {
		return fmt.Errorf("git rev-list: %w", err)
	}
	commits := strings.Fields(string(list))
	var updates strings.Builder
	for i := range n {
		fmt.Fprintf(&updates, "create refs/heads/topic/%d %s\n", i, commits[i%len(commits)])
	}
	update := exec.CommandContext(ctx, "git", "-C", h.dir, "update-ref", "--stdin")
	update.Stdin = strings.NewReader(updates.String())
	if out, err := update.CombinedOutput(); err != nil {
		return fmt.Errorf("git update-ref: %w: %s", err, out)
	}
	return git(ctx, "-C", h.dir, "pack-refs", "--all")
}

// write pipes what fill writes into git fast-import.
func (h *history) write(ctx context.Context, fill func(*bufio.Writer)) error {
	r, pipe := io.Pipe()
	cmd := exec.CommandContext(ctx, "git", "-C", h.dir, "-c", "core.bigFileThreshold=256k", "fast-import", "--quiet", "--force")
	cmd.Stdin = r
	h.importing = false
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		w := bufio.NewWriterSize(pipe, 1<<20)
		fill(w)
		pipe.CloseWithError(w.Flush())
	}()
	out, err := cmd.CombinedOutput()
	r.Close()
	<-filled
	if err != nil {
		return fmt.Errorf("git fast-import: %w: %s", err, out)
	}
	return nil
}

func (h *history) who() string {
	return fmt.Sprintf("A U Thor <author@example.com> %d +0000", 1_700_000_000+600*h.commits)
}

func (h *history) commit(w io.Writer, message string) {
	h.commits++
	message = fmt.Sprintf("%s %d\n\n%s\n", message, h.commits, h.line())
	fmt.Fprintf(w, "commit refs/heads/main\ncommitter %s\ndata %d\n%s\n", h.who(), len(message), message)
	if !h.importing && h.commits > 1 {
		fmt.Fprintf(w, "from refs/heads/main^0\n") // where the import before left it
	}
	h.importing = true
}

func (h *history) addFile(w io.Writer) {
	lines := make([]string, 200)
	for i := range lines {
		lines[i] = h.line()
	}
	h.files = append(h.files, lines)
	h.put(w, len(h.files)-1)
}

func (h *history) editFile(w io.Writer) {
	n := int(float64(len(h.files)) * math.Pow(h.random.Float64(), 7)) // four in five edits go to one file in five
	for range 5 {
		h.files[n][h.random.IntN(len(h.files[n]))] = h.line()
	}
	h.put(w, n)
}

func (h *history) put(w io.Writer, n int) {
	text := strings.Join(h.files[n], "\n")
	fmt.Fprintf(w, "M 100644 inline src/%02d/file%d.txt\ndata %d\n%s\n", n%40, n, len(text), text)
}

func (h *history) addBlob(w io.Writer, size int) {
	h.blobs++
	fmt.Fprintf(w, "M 100644 inline assets/%02d/blob%d.bin\ndata %d\n", h.blobs%100, h.blobs, size)
	io.CopyN(w, h.noise, int64(size)) // a bufio.Writer keeps its error for Flush
	fmt.Fprintln(w)
}

// line is a line of words of a made-up language of 4,096 words, short ones more often.
func (h *history) line() string {
	var b strings.Builder
	for i := range 8 + h.random.IntN(6) {
		if i > 0 {
			b.WriteByte(' ')
		}
		word := h.random.IntN(1 << (4 + h.random.IntN(9)))
		for {
			b.WriteString([]string{"ba", "ke", "lo", "mi", "nu", "ra", "si", "te"}[word%8])
			if word /= 8; word == 0 {
				break
			}
		}
	}
	return b.String()
}
