package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cost is what one run of a program took.
type cost struct {
	wall     time.Duration
	cpu      time.Duration // of the process and of its children
	peak     int64         // bytes of resident memory of the process itself, at most
	children int64         // the same of the biggest of its descendants
	out      []byte
}

// measure runs a command to its end.
//
// The peak is the kernel's high-water mark of each process in the tree, read every few milliseconds. What wait4 reports is of no
// use here: it takes the larger of a process and its children, and counts what a child had of its parent before exec.
func measure(ctx context.Context, env []string, name string, args ...string) (cost, error) {
	return measureEvery(ctx, 5*time.Millisecond, env, name, args...)
}

// measureEvery looks at the peaks less often, where several programs are measured side by side and for long.
func measureEvery(ctx context.Context, often time.Duration, env []string, name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var c cost
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			c.wall, c.out = time.Since(start), out.Bytes()
			c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if err != nil {
				return c, fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
			}
			return c, nil
		case <-tick.C:
			c.sample(cmd.Process.Pid)
		}
	}
}

// sample raises the peaks to what the process and its descendants have reached.
func (c *cost) sample(pid int) {
	c.peak = max(c.peak, peakOf(pid))
	program := programOf(pid)
	for _, child := range descendants(pid) {
		// Between fork and exec a child is its parent: same program, same memory.
		if programOf(child) != program {
			c.children = max(c.children, peakOf(child))
		}
	}
}

func programOf(pid int) string {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "" // it has ended
	}
	return target
}

func peakOf(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kilobytes << 10
		}
	}
	return 0
}

func descendants(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
				all = append(all, descendants(child)...)
			}
		}
	}
	return all
}

// best runs f n times and returns the run with the least wall time, with the highest peaks of all.
func best(n int, f func() (cost, error)) (cost, error) {
	var least cost
	for i := range n {
		c, err := f()
		if err != nil {
			return c, err
		}
		c.peak, c.children = max(c.peak, least.peak), max(c.children, least.children)
		if i == 0 || c.wall < least.wall {
			least = c
		} else {
			least.peak, least.children = c.peak, c.children
		}
	}
	return least, nil
}

// size is the bytes of all files below dir.
func size(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

func git(ctx context.Context, args ...string) error {
	_, err := measure(ctx, nil, "git", args...)
	return err
}
