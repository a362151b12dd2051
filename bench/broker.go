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

// brokerCommand is the hidden command that runs the embedded broker in a process of its own. Its CPU time is
// then not counted as ours.
const brokerCommand = "broker"

// serveBroker runs a broker on the folder args[0] until its standard input ends. It prints the address of the
// broker.
func serveBroker(ctx context.Context, args []string) error {
	cfg := embedded.DefaultBroker()
	cfg.Dir, cfg.Addr, cfg.MaxBytes = args[0], "127.0.0.1:0", 8<<30
	broker, err := embedded.StartBroker(ctx, cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	fmt.Println(broker.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return broker.Close()
}

// A broker is a child process that runs serveBroker.
type broker struct {
	cmd   *exec.Cmd
	input io.Closer
	addr  string
	dir   string
}

// startBroker starts a broker on a temporary folder.
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

// childEnv is set in the environment of a child process that must act as the bench program and not as the
// test binary.
const childEnv = "TIDEGATE_BENCH_CHILD"

func (b *broker) close() error {
	_ = b.input.Close()
	return errors.Join(b.cmd.Wait(), os.RemoveAll(b.dir))
}

// client returns a client after the topics exist, with one partition per core of the reference machine.
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
