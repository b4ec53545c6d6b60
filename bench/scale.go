package main

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// What things cost, as docs/performance.md and docs/metadata.md report it, where they were measured; the rest is said to be assumed.
const (
	listedAtOnce   = 100                    // repositories in a request that lists them, and in one that asks what else changed
	hourly         = 5000                   // requests an hour that GitHub allows a token
	perRequest     = 150 * time.Millisecond // assumed: GitHub's API, one request after the other
	gitRequests    = 2                      // of a repository that changed; they do not count against the allowance
	perGitRequest  = 200 * time.Millisecond // assumed
	ownTime        = 190 * time.Millisecond // of a lane, for a small repository: 800 took 38 s, four at a time
	metadataOfOne  = 12                     // requests for what people wrote in one repository since yesterday: 5, and one a list that moved
	perPut         = 30 * time.Millisecond  // assumed: the store
	putsOfPiece    = 4                      // pack, index, manifest, checksums: what makes a piece last
	listOfStore    = 100 * time.Millisecond // assumed: of a thousand names
	namesListed    = 1000                   // in a request to the store
	aloneAtFirst   = 256                    // checkpoints of one repository each; later ones have one more for each so many before
	notesOfShare   = 5                      // claim, two looks, done, removal
	lane           = 8 << 20                // assumed: bytes a second from the forge, for one repository
	station        = 60 << 20               // assumed: bytes a second into the store, for one worker
	recordOfOne    = 490 * time.Microsecond // of a repository that did not change: 10,000 took 4.9 s
	memoryBase     = 70 << 20               // of the lead, and for each repository below: 83 MiB with 1,000, 220 with 10,000
	memoryOfOne    = 16 << 10
	changedDaily   = 0.01
	sharesOfRun    = 256
	lanesOfWorker  = 4
	objectsSeconds = 4 * 223.0 / 500 // of a lane, for a namespace of 20 objects: 500 took 223 s, four at a time, on a busy machine
	callsOfOne     = 60              // assumed: requests to the API server for a namespace: its kinds, its Backup's status
	callsAllowed   = 400             // assumed: a second, that the API server answers all pods together before it says 429
)

// plan is one row: a run over an account, or over several with a token each.
type plan struct {
	repositories int
	changed      float64 // of 1
	metadata     bool    // also what people wrote
	tokens       int
	workers      int
}

// atScale works out what a run over very many repositories and namespaces takes, and prints the tables of docs/scale.md. Nothing is run.
func (b *bench) atScale(context.Context) error {
	fmt.Fprint(b.out, "\n| repositories | changed | metadata | tokens | workers | API requests | waiting for the allowance | capture | composing | run | memory of the lead |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range []plan{
		{10_000, changedDaily, true, 1, 1},
		{10_000, changedDaily, true, 1, 4},
		{100_000, changedDaily, false, 1, 1},
		{100_000, changedDaily, false, 1, 4},
		{100_000, changedDaily, false, 1, 16},
		{100_000, changedDaily, true, 1, 4},
		{100_000, changedDaily, true, 5, 4},
		{100_000, 1, false, 1, 1},
		{100_000, 1, false, 1, 16},
		{100_000, 1, true, 5, 16},
	} {
		b.repositoriesAtScale(p)
	}
	fmt.Fprint(b.out, "\n| namespaces | pods | requests to the API server | a second | run |\n|---|---|---|---|---|\n")
	for _, namespaces := range []int{500, 2500} {
		for _, pods := range []int{1, 4, 8} {
			b.namespacesAtScale(namespaces, pods)
		}
	}
	return nil
}

// repositoriesAtScale simulates one run: the lanes of all workers take the largest shares first, as a shared run deals them.
func (b *bench) repositoriesAtScale(p plan) {
	random := rand.New(rand.NewPCG(1, uint64(p.repositories))) //nolint:gosec // the same each time
	moved := int(float64(p.repositories) * p.changed)
	sizes := make([]float64, moved)
	for i := range sizes {
		sizes[i] = min(math.Exp(13+2.2*random.NormFloat64()), 10<<30) // assumed: half below 440 kB, one in a hundred above 70 MB
		if p.changed < 1 {
			sizes[i] = min(sizes[i], 2<<20) * 0.05 // a day's commits
		}
	}
	slices.SortFunc(sizes, func(a, b float64) int { return cmp.Compare(b, a) })
	asked, perPiece := (p.repositories+listedAtOnce-1)/listedAtOnce, 0
	if p.metadata {
		asked, perPiece = 2*asked, metadataOfOne
	}
	shares := make([]float64, min(moved, sharesOfRun))
	for i, size := range sizes {
		shares[i%len(shares)] += secondsOf(size, perPiece)
	}
	lanes := make(times, p.workers*lanesOfWorker)
	for _, seconds := range shares { // whoever is free first takes the next
		lanes[0] += seconds + (notesOfShare * perPut).Seconds()
		heap.Fix(&lanes, 0)
	}
	listing := time.Duration(asked) * perRequest
	capture := max(time.Duration(slices.Max(lanes)*float64(time.Second)), checkpointing(moved/p.workers, p.workers))
	requests, allowed := asked+moved*perPiece, hourly*p.tokens
	// The first hour's allowance is there at once, and more comes while the work is done.
	waiting := max(0, time.Duration(float64(requests-allowed)/float64(allowed)*float64(time.Hour))-listing-capture)
	composing := time.Duration(p.repositories)*recordOfOne + time.Duration(len(shares))*perPut
	fmt.Fprintf(b.out, "| %d | %g %% | %s | %d | %d | %d | %s | %s | %s | %s | %d MiB |\n", p.repositories, p.changed*100, yes(p.metadata), p.tokens,
		p.workers, requests, rounded(waiting), rounded(capture), rounded(composing), rounded(listing+waiting+capture+composing),
		(memoryBase+p.repositories*memoryOfOne)>>20)
}

// checkpointing is how long a worker makes its repositories last, which it does one checkpoint at a time beside all else. Each lists the
// indexes that all workers' checkpoints have written.
func checkpointing(repositories, workers int) time.Duration {
	checkpoints := float64(repositories)
	if repositories > aloneAtFirst { // the next takes checkpoints/aloneAtFirst repositories
		checkpoints = math.Sqrt(2 * aloneAtFirst * (checkpoints - aloneAtFirst/2))
	}
	lists := 1 + checkpoints*float64(workers)/2/namesListed // on average
	return time.Duration(checkpoints * (putsOfPiece*perPut.Seconds() + lists*listOfStore.Seconds()) * float64(time.Second))
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// secondsOf is how long a lane is busy with a repository of which so many bytes are fetched.
func secondsOf(size float64, requests int) float64 {
	fixed := ownTime + gitRequests*perGitRequest + putsOfPiece*perPut + time.Duration(requests)*perRequest
	return fixed.Seconds() + size/lane + size/(station/lanesOfWorker)
}

func (b *bench) namespacesAtScale(namespaces, pods int) {
	calls := namespaces * callsOfOne
	seconds := max(float64(namespaces)*objectsSeconds/float64(pods*lanesOfWorker), float64(calls)/callsAllowed)
	fmt.Fprintf(b.out, "| %d | %d | %d | %.0f | %s |\n", namespaces, pods, calls, float64(calls)/seconds, rounded(time.Duration(seconds*float64(time.Second))))
}

func rounded(d time.Duration) time.Duration {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// times is a heap: when each lane is free.
type times []float64

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push and Pop are not called: lanes neither come nor go.
func (t *times) Push(x any) { *t = append(*t, x.(float64)) } //nolint:forcetypeassert // of heap.Interface; never called
func (t *times) Pop() any   { return nil }
