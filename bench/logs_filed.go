package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// filedConfig is the configuration of file.d: it reads the records of one folder, parses their JSON and
// discards the events. It neither redacts nor detects levels.
const filedConfig = `pipelines:
  bench:
    settings: {capacity: 1024}
    input:
      type: file
      watching_dir: %[1]s
      filename_pattern: "*-json.log"
      offsets_file: %[2]s
      persistence_mode: async
      offsets_op: reset
    output: {type: devnull}
`

// measureFiled measures file.d on the log at path: the CPU time of its whole process, from its start until
// its offset is the size of the file.
func (o *options) measureFiled(ctx context.Context, path string, lines, size int) error {
	dir, err := os.MkdirTemp("", "tidegate-bench-filed-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	offsets := filepath.Join(dir, "offsets.yaml")
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, filedConfig, filepath.Dir(path), offsets), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, o.filedPath, "--config", config, "--http", "off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	err = awaitOffset(ctx, offsets, size)
	wall := time.Since(started)
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait() // it was killed
	if err != nil {
		return err
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	perGB := used.Seconds() / float64(size) * 1e9
	report(o.out, "Logs/by=file.d", "lines", lines, usage{wall: wall, self: used}, figure{perGB, "cpu-s/GB"})
	return nil
}

// awaitOffset waits until the file of offsets says that all bytes were read.
func awaitOffset(ctx context.Context, path string, size int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(filepath.Clean(path))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for field := range strings.FieldsSeq(string(data)) {
			if offset, err := strconv.Atoi(field); err == nil && offset == size {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
