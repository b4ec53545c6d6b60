package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// loops are the loop devices of published block volumes, by where they are published. Each is held open and detached by the kernel
// when it is closed, so none is left however the cluster ends.
type loops struct {
	sync.Mutex
	open map[string]*os.File
}

// attach makes a file a device and returns the device's path.
func (l *loops) attach(image, target string, readonly bool) (string, error) {
	flags := os.O_RDWR
	config := unix.LoopConfig{Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if readonly {
		flags = os.O_RDONLY
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	file, err := os.OpenFile(image, flags, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	config.Fd = uint32(file.Fd())
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find a loop device: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", number)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			l.Lock()
			defer l.Unlock()
			if l.open == nil {
				l.open = map[string]*os.File{}
			}
			l.open[target] = device
			return path, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // else somebody else was faster
			return "", fmt.Errorf("configure %s: %w", path, err)
		}
	}
}

// detach lets go of what is published at target, if anything is.
func (l *loops) detach(target string) {
	l.Lock()
	defer l.Unlock()
	if device := l.open[target]; device != nil {
		device.Close()
		delete(l.open, target)
	}
}
