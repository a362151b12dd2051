package embedded

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/retry"
)

// childQuery returns the statements of the child. After them it waits at the prompt of its session (see terminal).
func (s *StoreServer) childQuery() string {
	if s.cfg.TCPPort != 0 {
		return "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP"
	}
	return "SYSTEM START LISTEN HTTP"
}

// startTimeout is the time that the child may take to answer queries. A store with much data needs minutes;
// an empty one answers within a second.
const startTimeout = 2 * time.Minute

// supervise runs the child until ctx ends and restarts it with back-off: 0.2 s to 10 s, reset after a child
// that ran for a minute. The result of the first start is sent on first; if it failed, supervise returns.
func (s *StoreServer) supervise(ctx context.Context, first chan<- error) {
	defer close(s.stopped)
	// The kernel sends PDEATHSIG when the thread that forked ends. The lock keeps that thread until this
	// goroutine ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	backoff := retry.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for {
		began := time.Now()
		answered, err := s.runChild(ctx, first)
		if ctx.Err() != nil || first != nil && !answered {
			return
		}
		first = nil

		ran := time.Since(began)
		if ran > time.Minute {
			backoff.Reset()
		}
		wait := backoff.Next()
		s.metrics.restarts.Inc()
		s.log.Error("embedded clickhouse ended, restarting it",
			"err", err, "ran", ran.Round(time.Millisecond), "wait", wait, "last_line", s.console.lastLine())
		if retry.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// runChild starts the child and waits until it ends. It reports whether the child ever answered a query, and
// why it ended.
func (s *StoreServer) runChild(ctx context.Context, first chan<- error) (answered bool, err error) {
	child, err := s.startChild()
	if err == nil {
		s.setChild(child)
		ended := make(chan error, 1)
		go func() { ended <- child.wait() }()
		if err = s.awaitReady(ctx, ended); err == nil {
			s.removeUsers()
			if first != nil {
				first <- nil
			}
			s.metrics.up.Set(1)
			err = <-ended
			s.metrics.up.Set(0)
			s.setChild(nil)
			return true, err
		}
		_ = child.command.Process.Kill()
		<-ended
		s.setChild(nil)
		s.removeUsers()
	}
	if first != nil {
		first <- fmt.Errorf("start the embedded ClickHouse: %w", err)
	}
	return false, err
}

// A storeChild is a running child with what it is connected to.
type storeChild struct {
	command  *exec.Cmd
	terminal *terminal
	output   *childOutput
}

func (s *StoreServer) startChild() (*storeChild, error) {
	if err := s.writeUsers(); err != nil {
		return nil, err
	}
	session, input, err := openTerminal()
	if err != nil {
		return nil, err
	}
	defer input.Close()
	output, console, err := copyOutput(s.console)
	if err != nil {
		session.close()
		return nil, err
	}

	child := &storeChild{s.childCommand(), session, output}
	child.command.Stdin, child.command.Stdout, child.command.Stderr = input, console, console
	err = child.command.Start()
	_ = console.Close()
	if err != nil {
		session.close()
		output.close()
		return nil, err
	}
	return child, nil
}

// wait returns when the child has ended and its last line is in the log.
func (c *storeChild) wait() error {
	err := c.command.Wait()
	c.terminal.close()
	c.output.close()
	return err
}

func (s *StoreServer) childCommand() *exec.Cmd {
	firstStep := "fence"
	if s.cfg.AllowUnfenced {
		firstStep = "fence-if-possible"
	}
	args := []string{
		firstStep, strconv.Itoa(s.cfg.UID), s.cfg.Library, s.cfg.Dir,
		"--path=" + filepath.Join(s.cfg.Dir, "data"), "--config-file=" + filepath.Join(s.cfg.Dir, "config.xml"),
		"--listen_host=127.0.0.1", "--http_port=" + strconv.Itoa(s.serverPort),
		"--logger.console=1", "--log-level=warning", "--multiquery", "--query", s.childQuery(),
		"--interactive", "--progress=off", "--disable_suggestion",
	}
	if s.cfg.TCPPort != 0 {
		args = append(args, "--tcp_port="+strconv.Itoa(s.cfg.TCPPort))
	}
	cmd := exec.Command(s.cfg.Program, args...)
	cmd.Env = []string{"TZ=UTC", "HOME=" + filepath.Join(s.cfg.Dir, "work"), "TERM=dumb"}
	// A session of its own: an interrupt at our terminal reaches only us, and the child has no part of it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	return cmd
}

// awaitReady waits until storeUser can log in, and writes the ports to their file. If the child ends first,
// awaitReady sends its result back to ended, because runChild receives from ended too.
func (s *StoreServer) awaitReady(ctx context.Context, ended chan error) error {
	deadline := time.Now().Add(startTimeout)
	admin := s.adminConfig()
	for {
		err := clickhouse.Query(ctx, admin, "SELECT 1", "TSV", io.Discard)
		if err == nil {
			return s.writePorts()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it did not answer within %s: %w", startTimeout, err)
		}
		select {
		case e := <-ended:
			ended <- e
			return fmt.Errorf("it ended at once (%s): %s%s", exitText(e), s.console.lastLine(), s.startRemedy())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// startRemedy returns the end of the error of a child that ended with an exception of ClickHouse, "" for others.
func (s *StoreServer) startRemedy() string {
	line := s.console.lastLine()
	switch {
	case strings.Contains(line, "No space left on device"):
		return "; free space on the disk of " + s.cfg.Dir + ", or set data_dir"
	case strings.Contains(line, "DB::"):
		return "; more in " + s.logPath() + ". If " + filepath.Join(s.cfg.Dir, "data") + " is damaged, restore it from a " +
			"backup, or move " + s.cfg.Dir + " away to begin with an empty store"
	}
	return ""
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// adminConfig returns the configuration for statements that do not need our database, which may not exist
// yet.
func (s *StoreServer) adminConfig() clickhouse.Config {
	cfg := s.Config()
	cfg.Database, cfg.Timeout = "system", time.Second
	return cfg
}

// requestStop ends the session of the child, so that it ends by itself.
func (s *StoreServer) requestStop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != nil {
		s.child.terminal.exit()
	}
}

func (s *StoreServer) killChild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != nil {
		_ = s.child.command.Process.Kill()
	}
}

func (s *StoreServer) setChild(child *storeChild) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = child
}
