package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type volume struct {
	ID, Claim string // NAMESPACE/NAME of the claim it was made for
	Bytes     int64
	Block     bool
}

type snapshot struct {
	ID, Volume, Claim string
	Cut, Group        string // the state of all volumes that it is a part of; the group snapshot, if any
	Bytes             int64
	Block             bool
	Created           time.Time
}

// store keeps volumes and the cuts that snapshots are parts of:
//
//	live/VOLUME/…         one btrfs subvolume holds all volumes; of a block volume there is the file image
//	cuts/CUT/VOLUME/…     what live was at one instant
//	state.json
type store struct {
	dir string
	sync.Mutex
	Volumes   map[string]*volume
	Snapshots map[string]*snapshot
}

const imageName = "image"

func openStore(dir string) (*store, error) {
	s := &store{dir: dir, Volumes: map[string]*volume{}, Snapshots: map[string]*snapshot{}}
	if err := os.MkdirAll(filepath.Join(dir, "cuts"), 0o755); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(content, s)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = run("btrfs", "subvolume", "create", s.live(""))
	}
	return s, err
}

func (s *store) live(volume string) string     { return filepath.Join(s.dir, "live", volume) }
func (s *store) cut(cut, volume string) string { return filepath.Join(s.dir, "cuts", cut, volume) }

// save is called with the lock held, after the files are as the state says.
func (s *store) save() error {
	content, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "state.json")
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// create makes a volume, as a copy of the directory from unless that is empty.
func (s *store) create(v *volume, from string) error {
	dir := s.live(v.ID)
	if err := os.RemoveAll(dir); err != nil { // what a call left that failed
		return err
	}
	if from == "" {
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask says
			return err
		}
	} else if err := run("cp", "-a", "--reflink=always", from, dir); err != nil {
		return err
	}
	if v.Block {
		image, err := os.OpenFile(filepath.Join(dir, imageName), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer image.Close()
		if err := image.Truncate(v.Bytes); err != nil {
			return err
		}
	}
	s.Volumes[v.ID] = v
	return s.save()
}

func (s *store) delete(id string) error {
	if s.Volumes[id] == nil {
		return nil
	}
	if err := os.RemoveAll(s.live(id)); err != nil {
		return err
	}
	delete(s.Volumes, id)
	return s.save()
}

// snapshot makes one cut, and of it a snapshot of each volume, under the ids given for them. What exists already is returned.
func (s *store) snapshot(cut, group string, ids map[string]string) ([]*snapshot, error) {
	var found []*snapshot
	for volume, id := range ids {
		if existing := s.Snapshots[id]; existing != nil {
			if existing.Volume != volume {
				return nil, status.Error(codes.AlreadyExists, id+" is a snapshot of another volume")
			}
			found = append(found, existing)
		} else if s.Volumes[volume] == nil {
			return nil, status.Error(codes.NotFound, "no volume "+volume)
		}
	}
	if len(found) == len(ids) {
		return found, nil
	}
	if err := s.deleteCut(cut); err != nil { // what a call left that failed
		return nil, err
	}
	if err := run("btrfs", "subvolume", "snapshot", "-r", s.live(""), s.cut(cut, "")); err != nil {
		return nil, err
	}
	created := time.Now()
	found = nil
	for id, snapshotID := range ids {
		v := s.Volumes[id]
		n := &snapshot{ID: snapshotID, Volume: id, Claim: v.Claim, Cut: cut, Group: group, Bytes: v.Bytes, Block: v.Block, Created: created}
		s.Snapshots[n.ID] = n
		found = append(found, n)
	}
	return found, s.save()
}

// deleteSnapshots forgets snapshots, and removes the cuts that none is a part of any more.
func (s *store) deleteSnapshots(which func(*snapshot) bool) error {
	cuts := map[string]bool{}
	for id, n := range s.Snapshots {
		if which(n) {
			cuts[n.Cut] = true
			delete(s.Snapshots, id)
		}
	}
	for _, n := range s.Snapshots {
		delete(cuts, n.Cut)
	}
	for cut := range cuts {
		if err := s.deleteCut(cut); err != nil {
			return err
		}
	}
	return s.save()
}

func (s *store) deleteCut(cut string) error {
	if _, err := os.Stat(s.cut(cut, "")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return run("btrfs", "subvolume", "delete", s.cut(cut, ""))
}

func run(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", program, args, err, out)
	}
	return nil
}
