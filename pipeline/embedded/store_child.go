package embedded

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"tidegate/pipeline/clickhouse"
)

// childSleep is the query that the child lives by; the library serves the network in no other way.
const childSleep = "select sleepEachRow(3) from system.numbers settings"

// childQuery is the child's whole life: listen, then sleep until the query is killed.
func (s *StoreServer) childQuery() string {
	q := "SYSTEM START LISTEN HTTP; "
	if s.cfg.TCPPort != 0 {
		q += "SYSTEM START LISTEN TCP; "
	}
	return q + childSleep + " function_sleep_max_microseconds_per_block=0, max_block_size=1 format Null"
}

// startTimeout is for a store with much on its disk; an empty one answers within a second.
const startTimeout = 2 * time.Minute

// supervise keeps a child running until ctx ends. On first it tells how the first one came up, and ends if it did not; a later one that
// ends by itself is started again, after 0.2 s and then ever later, up to 10 s, while none stays up for a minute.
func (s *StoreServer) supervise(ctx context.Context, first chan<- error) {
	defer close(s.stopped)
	// PDEATHSIG follows the thread that forked: this one, which lives as long as this goroutine.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const least, most = 200 * time.Millisecond, 10 * time.Second
	for wait := least; ; wait = min(2*wait, most) {
		began := time.Now()
		up, err := s.runChild(ctx, first)
		if ctx.Err() != nil || first != nil && !up {
			return
		}
		first = nil
		if time.Since(began) > time.Minute {
			wait = least
		}
		s.metrics.restarts.Inc()
		s.log.Error("embedded clickhouse ended and is started again", "err", err, "ran", time.Since(began).Round(time.Millisecond), "wait", wait, "last_line", s.console.lastLine())
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// runChild is one life of the child: up tells whether it ever answered, err why it ended.
func (s *StoreServer) runChild(ctx context.Context, first chan<- error) (up bool, err error) {
	cmd := s.childCommand()
	if err = cmd.Start(); err == nil {
		s.setChild(cmd.Process)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if err = s.awaitReady(ctx, ended); err == nil {
			if first != nil {
				first <- nil
			}
			s.metrics.up.Set(1)
			err = <-ended
			s.metrics.up.Set(0)
			s.setChild(nil)
			return true, err
		}
		_ = cmd.Process.Kill()
		<-ended
		s.setChild(nil)
	}
	if first != nil {
		first <- fmt.Errorf("start the embedded ClickHouse: %w", err)
	}
	return false, err
}

func (s *StoreServer) childCommand() *exec.Cmd {
	args := []string{
		s.cfg.Library, s.cfg.Dir,
		"--path=" + filepath.Join(s.cfg.Dir, "data"), "--config-file=" + filepath.Join(s.cfg.Dir, "config.xml"),
		"--listen_host=127.0.0.1", "--http_port=" + strconv.Itoa(s.cfg.HTTPPort),
		"--logger.console=1", "--log-level=warning", "--multiquery", "--query", s.childQuery(),
	}
	if s.cfg.TCPPort != 0 {
		args = append(args, "--tcp_port="+strconv.Itoa(s.cfg.TCPPort))
	}
	cmd := exec.Command(s.cfg.Program, args...)
	cmd.Env = []string{"TZ=UTC", "PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(s.cfg.Dir, "work")}
	cmd.Stdout, cmd.Stderr = s.console, s.console
	cmd.WaitDelay = time.Second
	// A group of its own: an interrupt at the terminal is for us, and we stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// awaitReady waits until our user can log in. A child that ended gives its ending back to ended, for whoever reaps it next.
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
			return fmt.Errorf("it ended at once (%s): %s", exitText(e), s.console.lastLine())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// adminConfig reaches the store before our database exists.
func (s *StoreServer) adminConfig() clickhouse.Config {
	c := s.Config()
	c.Database, c.Timeout = "system", time.Second
	return c
}

// requestStop kills the query that the child lives by.
func (s *StoreServer) requestStop(ctx context.Context) error {
	if s.PID() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return clickhouse.Query(ctx, s.adminConfig(), "KILL QUERY WHERE query LIKE '"+childSleep+"%' ASYNC", "TSV", io.Discard)
}

func (s *StoreServer) killChild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != nil {
		_ = s.child.Kill()
	}
}

func (s *StoreServer) setChild(p *os.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = p
}
