package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"tidegate/pipeline/embedded"
)

// TestScenarios runs testdata/*.txtar: whole programs are started, fed, queried, killed and stopped from the
// command line. README.md beside the scripts describes their commands, and so do the functions in
// scenario_commands_test.go.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("they start whole systems")
	}
	bin := binary(t)
	if _, err := os.Stat(embedded.LibraryPath()); err != nil {
		if out, err := exec.Command("../../deploy/fetch-libchdb.sh").CombinedOutput(); err != nil {
			t.Fatalf("fetch libchdb: %v: %s", err, out)
		}
	}
	cache := embedded.CacheDir()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TIDEGATE_CACHE", cache)
			env.Setenv("REPO", repo)
			for _, name := range portVariables {
				env.Setenv(name, strconv.Itoa(nextFreePort()))
			}
			if err := os.MkdirAll(filepath.Join(env.WorkDir, "docker", "containers"), 0o700); err != nil {
				return err
			}
			current := &scenario{processes: map[string]*scenarioProcess{}}
			env.Values[scenarioKey{}] = current
			env.Defer(current.stopAll)
			return nil
		},
		Cmds: strictCommands(scenarioCommands),
	})
}

// portVariables are the variables of a script that hold free ports.
var portVariables = []string{
	"BROKER_PORT", "STORE_PORT", "LISTEN_PORT", "HOOK_PORT", "LISTEN_PORT2", "LISTEN_PORT3", "LISTEN_PORT4",
}

// scenarioKey is the key of a script's *scenario in testscript.
type scenarioKey struct{}

// A scenario holds what one script has started and mounted.
type scenario struct {
	processes map[string]*scenarioProcess
	mounts    []string
}

// A scenarioProcess is a process that runs in the background of a script.
type scenarioProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// scenarioOf returns the scenario of a script.
func scenarioOf(ts *testscript.TestScript) *scenario { return ts.Value(scenarioKey{}).(*scenario) }

// stopAll kills all processes and removes all mounts.
func (s *scenario) stopAll() {
	for _, child := range s.processes {
		_ = child.cmd.Process.Kill()
		<-child.done
	}
	for _, dir := range s.mounts {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// strictCommands returns commands that fail behind `!`: none of them has a meaning for it.
func strictCommands(
	commands map[string]func(ts *testscript.TestScript, args []string),
) map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	strict := map[string]func(ts *testscript.TestScript, neg bool, args []string){}
	for name, command := range commands {
		strict[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("%s cannot be negated", name)
			}
			command(ts, args)
		}
	}
	return strict
}

// scenarioPorts counts the ports that nextFreePort has returned or found in use.
var scenarioPorts struct {
	sync.Mutex
	last int
}

// nextFreePort returns a free port that no other caller has, below the ephemeral ports of the kernel.
func nextFreePort() int {
	scenarioPorts.Lock()
	defer scenarioPorts.Unlock()
	for {
		if scenarioPorts.last == 0 || scenarioPorts.last > 31900 {
			scenarioPorts.last = 20100 + rand.IntN(10000)
		}
		scenarioPorts.last++
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(scenarioPorts.last)))
		if err == nil {
			_ = listener.Close()
			return scenarioPorts.last
		}
	}
}

// scenarioConfigBase is the start of every configuration that a script writes.
const scenarioConfigBase = `data_dir: ${WORK}/state
host: scenario
metrics:
  listen: 127.0.0.1:${LISTEN_PORT}
embedded:
  broker:
    addr: 127.0.0.1:${BROKER_PORT}
  store:
    http_port: ${STORE_PORT}
containers:
  docker_host: ""
capture:
  interfaces: [none0]
logs:
  docker_data_root: ${WORK}/docker
`

// startProcess starts a process in the folder of the script. Its output is appended to NAME.out and NAME.err.
func (s *scenario) startProcess(ts *testscript.TestScript, name string, cmd *exec.Cmd) {
	openOutput := func(suffix string) *os.File {
		file, err := os.OpenFile(ts.MkAbs(name+suffix), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		return file
	}
	stdout, stderr := openOutput(".out"), openOutput(".err")
	defer func() { _, _ = stdout.Close(), stderr.Close() }()
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(cmd.Start())

	child := &scenarioProcess{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(child.done)
	}()
	s.processes[name] = child
}

// runningProcess returns a process by its name. The script fails if no process of that name was started.
func (s *scenario) runningProcess(ts *testscript.TestScript, name string) *scenarioProcess {
	child := s.processes[name]
	if child == nil {
		ts.Fatalf("%s does not run", name)
	}
	return child
}

// waitExit waits until a process ends, and requires its exit code.
func (s *scenario) waitExit(ts *testscript.TestScript, name string, within time.Duration, code int) {
	child := s.runningProcess(ts, name)
	select {
	case <-child.done:
	case <-time.After(within):
		ts.Fatalf("%s has not ended within %s\n%s", name, within, outputTail(ts, name))
	}
	delete(s.processes, name)
	if got := child.cmd.ProcessState.ExitCode(); got != code {
		ts.Fatalf("%s ended with %d (%s), want %d\n%s", name, got, child.cmd.ProcessState, code, outputTail(ts, name))
	}
}

// outputTail returns the end of the output of a process.
func outputTail(ts *testscript.TestScript, name string) string {
	var text []byte
	for _, file := range []string{name + ".out", name + ".err"} {
		output, _ := os.ReadFile(ts.MkAbs(file))
		text = fmt.Appendf(text, "--- %s\n%s\n", file, tail(output, 2500))
	}
	return string(text)
}

// outputTails returns the end of the output of every process of the script.
func outputTails(ts *testscript.TestScript) string {
	var text strings.Builder
	paths, _ := filepath.Glob(filepath.Join(ts.Getenv("WORK"), "*.err"))
	for _, path := range paths {
		text.WriteString(outputTail(ts, strings.TrimSuffix(filepath.Base(path), ".err")))
	}
	return text.String()
}

// scenarioTimeout bounds the time that a command waits for its condition.
const scenarioTimeout = 40 * time.Second

// eventually waits until check returns "". Otherwise check returns what is wrong.
func eventually(ts *testscript.TestScript, what string, check func() string) {
	var objection string
	for end := time.Now().Add(scenarioTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if objection = check(); objection == "" {
			return
		}
	}
	ts.Fatalf("%s: %s\n%s", what, objection, outputTails(ts))
}
