package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

// brokerCommand is this program as the broker of another one of it: the broker's CPU time must not count as
// ours.
const brokerCommand = "broker"

// serveBroker is a broker on the folder that is given, until its standard input ends. It prints its address.
func serveBroker(ctx context.Context, args []string) error {
	cfg := embedded.DefaultBroker()
	cfg.Dir, cfg.Addr, cfg.MaxBytes = args[0], "127.0.0.1:0", 8<<30
	b, err := embedded.StartBroker(ctx, cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	fmt.Println(b.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return b.Close()
}

// A broker is that process, seen from this one.
type broker struct {
	cmd   *exec.Cmd
	input io.Closer
	addr  string
	dir   string
}

// startBroker starts one on a folder of its own.
func startBroker() (*broker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	b := &broker{cmd: exec.Command(self, brokerCommand, filepath.Join(dir, "broker")), dir: dir}
	b.cmd.Env = append(os.Environ(), childEnv+"=1")
	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for us
	if b.input, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a broker: %w", err), b.close())
	}
	b.addr = strings.TrimSpace(line)
	return b, nil
}

// childEnv tells the test binary that it is to be the program.
const childEnv = "TIDEGATE_BENCH_CHILD"

func (b *broker) close() error {
	_ = b.input.Close()
	return errors.Join(b.cmd.Wait(), os.RemoveAll(b.dir))
}

// client is one with the topics there, of two partitions as two cores want them.
func (b *broker) client(ctx context.Context) (*kafka.Client, error) {
	c, err := kafka.New(b.config())
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = c.EnsureTopics(ctx); err == nil || time.Now().After(end) {
			return c, err
		}
	}
}

const partitions = 2

func (b *broker) config() kafka.Config {
	cfg := kafka.Default()
	cfg.Brokers, cfg.Partitions, cfg.Assign = []string{b.addr}, partitions, kafka.AssignStatic
	return cfg
}
