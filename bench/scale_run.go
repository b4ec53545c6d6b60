package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// sharedProcesses is how many processes make one point.
const sharedProcesses = 3

const sharedPolicy = `apiVersion: backstay.io/v1alpha1
kind: Location
metadata: {name: main}
spec:
  url: file://%s
  password: {file: %s}
---
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: nightly}
spec:
  location: main
  sources: [{github: {url: %q, user: acme}}]
`

// crew is processes that share runs, each with a home of its own, as if they were on machines of their own.
type crew struct {
	bench   *bench
	account *account
	policy  string
	vault   string
	runs    int
}

// shared: very many small repositories, of which several processes make one point, run after run.
func (b *bench) shared(ctx context.Context) error {
	a, err := newAccount(ctx, b.path("shared"), b.scaled(10_000))
	if err != nil {
		return err
	}
	defer a.http.Close()
	if err := b.createVault(ctx, "shared-vault"); err != nil {
		return err
	}
	c := crew{bench: b, account: a, policy: b.path("shared.yaml"), vault: b.path("shared-vault")}
	text := fmt.Sprintf(sharedPolicy, c.vault, b.path("password"), a.http.URL)
	if err := os.WriteFile(c.policy, []byte(text), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n### %d repositories by %d processes\n\n| run | processes | wall | CPU of all | requests to the API | to repositories | stored | peak memory of each | the machine's load |\n"+
		"|---|---|---|---|---|---|---|---|---|\n", len(a.names), sharedProcesses)
	if err := c.run(ctx, "first", sharedProcesses); err != nil {
		return err
	}
	for i, processes := range []int{sharedProcesses, 1} {
		if err := c.run(ctx, "unchanged", processes); err != nil {
			return err
		}
		if err := c.push(ctx, []string{"second", "the third"}[i]); err != nil {
			return err
		}
		if err := c.run(ctx, "1 % changed", processes); err != nil {
			return err
		}
	}
	return nil
}

// push changes one repository of a hundred.
func (c *crew) push(ctx context.Context, text string) error {
	for i := range max(1, len(c.account.names)/100) {
		if err := c.account.push(ctx, i*97%len(c.account.names), text); err != nil {
			return err
		}
	}
	return nil
}

// run has the processes make one point, and prints its row.
func (c *crew) run(ctx context.Context, what string, processes int) error {
	c.runs++
	c.account.api.Store(0)
	c.account.git.Store(0)
	before, err := size(c.vault)
	if err != nil {
		return err
	}
	load := loadOfMachine()
	costs := make([]cost, processes)
	group, inner := errgroup.WithContext(ctx)
	began := time.Now()
	for i := range costs {
		group.Go(func() (err error) {
			costs[i], err = c.process(inner, i, processes > 1)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	wall := time.Since(began)
	after, err := size(c.vault)
	if err != nil {
		return err
	}
	var peaks []string
	var cpu time.Duration
	for _, one := range costs {
		cpu += one.cpu
		peaks = append(peaks, fmt.Sprint(one.peak>>20))
	}
	fmt.Fprintf(c.bench.out, "| %s | %d | %s | %s | %d | %d | %s | %s MiB | %s, then %s |\n", what, processes, rounded(wall), rounded(cpu), c.account.api.Load(), c.account.git.Load(),
		megabytes(after-before), strings.Join(peaks, ", "), load, loadOfMachine())
	return nil
}

// process is one of those that share the current run, or who makes it alone.
func (c *crew) process(ctx context.Context, i int, shares bool) (cost, error) {
	home := c.bench.path(fmt.Sprintf("shared-home-%d", i))
	if err := os.MkdirAll(home, 0o700); err != nil {
		return cost{}, err
	}
	args := []string{"run", "--once", "--json", "-f", c.policy}
	if shares {
		args = append(args, "--shared-run", fmt.Sprintf("run-%d", c.runs))
	}
	return measureEvery(ctx, 50*time.Millisecond, []string{"HOME=" + home, "XDG_CACHE_HOME=" + home}, c.bench.backstay, args...)
}

// loadOfMachine is how many processes wanted a core during the last minute.
func loadOfMachine() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}
