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

// brokerCommand is the hidden command that runs the embedded broker. startBroker runs it in a child process,
// so that its CPU time is not counted as that of the measured code.
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
	input io.Closer // standard input of the process, which ends when input is closed
	addr  string
	dir   string // temporary folder, removed by close
}

// startBroker starts a broker on a temporary folder and waits until it listens.
func startBroker() (*broker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, brokerCommand, filepath.Join(dir, "broker"))
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	// A process group of its own keeps the interrupt of a terminal away from the broker.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	child := &broker{cmd: cmd, dir: dir}
	if child.input, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}

	// The broker prints its address once it listens.
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a broker: %w", err), child.close())
	}
	child.addr = strings.TrimSpace(line)
	return child, nil
}

// childEnv is set in the environment of a child process that must act as the bench program and not as the
// test binary.
const childEnv = "TIDEGATE_BENCH_CHILD"

// close ends the process, waits for it and removes its folder.
func (b *broker) close() error {
	_ = b.input.Close()
	return errors.Join(b.cmd.Wait(), os.RemoveAll(b.dir))
}

// client creates the topics and returns a client. It tries for ten seconds.
func (b *broker) client(ctx context.Context) (*kafka.Client, error) {
	client, err := kafka.New(b.config())
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = client.EnsureTopics(ctx); err == nil || time.Now().After(deadline) {
			return client, err
		}
	}
}

// partitions is the number of partitions of a topic, one per core of the reference machine.
const partitions = 2

func (b *broker) config() kafka.Config {
	cfg := kafka.Default()
	cfg.Brokers, cfg.Partitions, cfg.Assign = []string{b.addr}, partitions, kafka.AssignStatic
	return cfg
}
