package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faults is the path of a file that a test writes while the driver runs. Each line is an operation of CSI, a pattern for
// NAMESPACE/CLAIM that the volume was made for, and what is to happen:
//
//	CreateSnapshot shop/* fail
//	CreateSnapshot shop/data wait 20s
//	CreateSnapshot shop/data unready 20s
//	CreateVolumeGroupSnapshot shop/* fail
//	CreateVolume backstay-system/* fail
//	NodePublishVolume backstay-system/* wait 20s
//
// fail answers with an error, wait answers late, unready gives a snapshot that was cut at once and cannot be read yet, as disks in
// clouds do. Of a group, each volume is asked.
type faults string

type fault struct {
	what string
	time time.Duration
}

// find returns the first line that fits, or nothing.
func (f faults) find(operation, claim string) (fault, error) {
	if f == "" {
		return fault{}, nil
	}
	content, err := os.ReadFile(string(f))
	if err != nil {
		return fault{}, nil // most tests want none
	}
	for line := range strings.Lines(string(content)) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != operation {
			continue
		}
		if fits, err := path.Match(words[1], claim); err != nil {
			return fault{}, fmt.Errorf("faults: %q: %w", line, err)
		} else if !fits {
			continue
		}
		found := fault{what: words[2]}
		if len(words) > 3 {
			if found.time, err = time.ParseDuration(words[3]); err != nil {
				return fault{}, fmt.Errorf("faults: %q: %w", line, err)
			}
		}
		return found, nil
	}
	return fault{}, nil
}

// befall lets happen to an operation what is wanted.
func (f faults) befall(ctx context.Context, operation, claim string) error {
	found, err := f.find(operation, claim)
	switch {
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	case found.what == "fail":
		return status.Errorf(codes.Internal, "%s of %s fails, as the test wants it", operation, claim)
	case found.what == "wait":
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(found.time):
		}
	}
	return nil
}

// unready says how long after its cut a snapshot cannot be read.
func (f faults) unready(claim string) time.Duration {
	if found, err := f.find("CreateSnapshot", claim); err == nil && found.what == "unready" {
		return found.time
	}
	return 0
}
