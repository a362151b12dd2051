package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
// command line. The functions below describe the commands of the scripts, and so does the README.md beside the
// scripts.
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
			for _, name := range []string{"BROKER_PORT", "STORE_PORT", "LISTEN_PORT", "HOOK_PORT", "LISTEN_PORT2", "LISTEN_PORT3", "LISTEN_PORT4"} {
				env.Setenv(name, strconv.Itoa(scenarioPort()))
			}
			if err := os.MkdirAll(filepath.Join(env.WorkDir, "docker", "containers"), 0o700); err != nil {
				return err
			}
			s := &scenario{procs: map[string]*scenarioProcess{}}
			env.Values[scenarioKey{}] = s
			env.Defer(s.stopAll)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"config": cmdConfig, "start": cmdStart, "halt": cmdStop, "ends": cmdEnds, "until": cmdUntil, "answer": cmdAnswer,
			"lines": cmdLines, "alone": cmdAlone, "balanced": cmdBalanced, "jsonl": cmdJSONL, "login": cmdLogin, "mount": cmdMount,
			"fill": cmdFill, "webhook": cmdWebhook, "metric": cmdMetric, "pause": cmdPause, "damage": cmdDamage,
		},
	})
}

type scenarioKey struct{}

// A scenario holds the processes that one script has started.
type scenario struct {
	procs  map[string]*scenarioProcess
	mounts []string
}

type scenarioProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func scenarioOf(ts *testscript.TestScript) *scenario { return ts.Value(scenarioKey{}).(*scenario) }

func (s *scenario) stopAll() {
	for _, p := range s.procs {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	for _, m := range s.mounts {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
}

var scenarioPorts struct {
	sync.Mutex
	next int
}

// scenarioPort returns a free port that no other caller has, below the ephemeral ports of the kernel.
func scenarioPort() int {
	scenarioPorts.Lock()
	defer scenarioPorts.Unlock()
	for {
		if scenarioPorts.next == 0 || scenarioPorts.next > 31900 {
			scenarioPorts.next = 20100 + rand.IntN(10000)
		}
		scenarioPorts.next++
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(scenarioPorts.next))); err == nil {
			_ = l.Close()
			return scenarioPorts.next
		}
	}
}

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

// config NAME [PART…] writes a configuration with free ports, followed by the parts, in which variables of the
// script are expanded.
func cmdConfig(ts *testscript.TestScript, _ bool, args []string) {
	text := scenarioConfigBase
	for _, part := range args[1:] {
		text += ts.ReadFile(part)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(text, ts.Getenv)), 0o600))
}

// start NAME [VAR=VALUE…] ARG… runs tidegate in the background. Its output is appended to NAME.out and NAME.err.
func cmdStart(ts *testscript.TestScript, _ bool, args []string) {
	name, args := args[0], args[1:]
	s := scenarioOf(ts)
	if p := s.procs[name]; p != nil {
		ts.Fatalf("%s runs already", name)
	}
	env := []string{"TIDEGATE_CACHE=" + ts.Getenv("TIDEGATE_CACHE"), "PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("WORK")}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	bin, err := buildBinary()
	ts.Check(err)
	cmd := exec.Command(bin, args...)
	cmd.Env = env
	s.startProcess(ts, name, cmd)
}

func (s *scenario) startProcess(ts *testscript.TestScript, name string, cmd *exec.Cmd) {
	p := &scenarioProcess{cmd: cmd, done: make(chan struct{})}
	p.cmd.Dir = ts.Getenv("WORK")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := os.OpenFile(ts.MkAbs(name+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer func() { _ = out.Close() }()
	errs, err := os.OpenFile(ts.MkAbs(name+".err"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer func() { _ = errs.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	ts.Check(p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	s.procs[name] = p
}

// webhook FILE receives webhooks at $HOOK_PORT and appends each to the file, after its key.
func cmdWebhook(ts *testscript.TestScript, _ bool, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TIDEGATE_WORK="+workload{Serve: "127.0.0.1:" + ts.Getenv("HOOK_PORT"), Sink: ts.MkAbs(args[0])}.String())
	scenarioOf(ts).startProcess(ts, "webhook", cmd)
}

// halt NAME sends SIGINT and requires exit code 0 within 10 s; halt NAME KILL sends SIGKILL.
func cmdStop(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 2 && args[1] == "KILL" {
		p := scenarioOf(ts).procs[args[0]]
		if p == nil {
			ts.Fatalf("%s does not run", args[0])
		}
		ts.Check(p.cmd.Process.Signal(syscall.SIGKILL))
		<-p.done
		delete(scenarioOf(ts).procs, args[0])
		return
	}
	p := scenarioOf(ts).procs[args[0]]
	if p == nil {
		ts.Fatalf("%s does not run", args[0])
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	awaitExit(ts, args[0], 10*time.Second, 0)
}

// ends NAME CODE waits until a process ends with an exit code.
func cmdEnds(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[1])
	ts.Check(err)
	awaitExit(ts, args[0], 90*time.Second, code)
}

func awaitExit(ts *testscript.TestScript, name string, within time.Duration, code int) {
	s := scenarioOf(ts)
	p := s.procs[name]
	if p == nil {
		ts.Fatalf("%s does not run", name)
	}
	select {
	case <-p.done:
	case <-time.After(within):
		ts.Fatalf("%s has not ended within %s\n%s", name, within, logTail(ts, name))
	}
	delete(s.procs, name)
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		ts.Fatalf("%s ended with %d (%s), want %d\n%s", name, got, p.cmd.ProcessState, code, logTail(ts, name))
	}
}

func logTail(ts *testscript.TestScript, name string) string {
	var all []byte
	for _, f := range []string{name + ".out", name + ".err"} {
		b, _ := os.ReadFile(ts.MkAbs(f))
		all = fmt.Appendf(all, "--- %s\n%s\n", f, tail(b, 2500))
	}
	return string(all)
}

// tailOfEveryProcess returns logTail of every process of the script.
func (s *scenario) tailOfEveryProcess(ts *testscript.TestScript) string {
	var all string
	names, _ := filepath.Glob(filepath.Join(ts.Getenv("WORK"), "*.err"))
	for _, n := range names {
		all += logTail(ts, strings.TrimSuffix(filepath.Base(n), ".err"))
	}
	return all
}

const scenarioTimeout = 40 * time.Second

func eventually(ts *testscript.TestScript, what string, f func() string) {
	var objection string
	for end := time.Now().Add(scenarioTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if objection = f(); objection == "" {
			return
		}
	}
	ts.Fatalf("%s: %s\n%s", what, objection, scenarioOf(ts).tailOfEveryProcess(ts))
}

// until FILE REGEXP [COUNT] waits until the file has COUNT matches, one by default.
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	n := 1
	if len(args) > 2 {
		n, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	eventually(ts, args[0], func() string {
		b, _ := os.ReadFile(ts.MkAbs(args[0]))
		if got := len(re.FindAll(b, -1)); got < n {
			return fmt.Sprintf("%d matches of %s", got, re)
		}
		return ""
	})
}

// answer WANT SQL [CONFIG] runs `tidegate query` until its result, without header and with a blank between
// columns, is WANT.
func cmdAnswer(ts *testscript.TestScript, _ bool, args []string) {
	config := "tidegate.yaml"
	if len(args) > 2 {
		config = args[2]
	}
	bin, err := buildBinary()
	ts.Check(err)
	eventually(ts, args[1], func() string {
		cmd := exec.Command(bin, "query", "--config", ts.MkAbs(config), "-o", "tsv", args[1])
		cmd.Dir = ts.Getenv("WORK")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return string(out)
		}
		_, rows, _ := strings.Cut(string(out), "\n")
		rows = strings.ReplaceAll(strings.TrimSuffix(rows, "\n"), "\t", " ")
		if rows != args[0] {
			return fmt.Sprintf("got %q, want %q", rows, args[0])
		}
		return ""
	})
}

// metric PORT NAME LEAST waits until the sum of the samples whose names and labels begin with NAME is at least
// LEAST.
func cmdMetric(ts *testscript.TestScript, _ bool, args []string) {
	least, err := strconv.ParseFloat(args[2], 64)
	ts.Check(err)
	eventually(ts, args[1], func() string {
		out, err := exec.Command("curl", "-sf", "http://127.0.0.1:"+args[0]+"/metrics").Output()
		if err != nil {
			return err.Error()
		}
		if v := metric(string(out), args[1]); v < least {
			return fmt.Sprintf("%v, want at least %v", v, least)
		}
		return ""
	})
}

// lines CONTAINER FROM TO [WIDTH] appends numbered lines to the log of a container in the form of dockerd. Lines
// are padded to WIDTH.
func cmdLines(ts *testscript.TestScript, _ bool, args []string) {
	from, err := strconv.Atoi(args[1])
	ts.Check(err)
	to, err := strconv.Atoi(args[2])
	ts.Check(err)
	width := 0
	if len(args) > 3 {
		width, err = strconv.Atoi(args[3])
		ts.Check(err)
	}
	id := strings.Repeat(fmt.Sprintf("%x", args[0]), 64)[:64]
	dir := filepath.Join(ts.Getenv("WORK"), "docker", "containers", id)
	ts.Check(os.MkdirAll(dir, 0o700))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := from; i <= to; i++ {
		line := fmt.Sprintf("%s line %d", args[0], i)
		line += strings.Repeat(".", max(width-len(line), 0))
		ts.Check(enc.Encode(demoLogRecord{Log: line + "\n", Stream: "stdout", Time: time.Now()}))
	}
	f, err := os.OpenFile(filepath.Join(dir, id+"-json.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = f.Write(b.Bytes())
	ts.Check(errors.Join(err, f.Close()))
}

// alone requires that no process works in the folder of the script.
func cmdAlone(ts *testscript.TestScript, _ bool, _ []string) {
	eventually(ts, "processes are left", func() string {
		var left []string
		names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && bytes.Contains(b, []byte(ts.Getenv("WORK")+"/")) {
				left = append(left, n+" "+string(bytes.ReplaceAll(b, []byte{0}, []byte(" "))))
			}
		}
		return strings.Join(left, "\n")
	})
}

var totalsLine = regexp.MustCompile(`(?m)^collector +read ([\d,]+) +delivered ([\d,]+) +buffered ([\d,]+) +dropped ([\d,]+) +lost ([\d,]+)$`)

// balanced FILE [LEAST] requires that the last totals of the file add up and that at least LEAST events were
// read.
func cmdBalanced(ts *testscript.TestScript, _ bool, args []string) {
	all := totalsLine.FindAllStringSubmatch(ts.ReadFile(args[0]), -1)
	if len(all) == 0 {
		ts.Fatalf("%s has no totals", args[0])
	}
	var n [5]int
	for i, field := range all[len(all)-1][1:] {
		var err error
		n[i], err = strconv.Atoi(strings.ReplaceAll(field, ",", ""))
		ts.Check(err)
	}
	if n[0] != n[1]+n[2]+n[3]+n[4] {
		ts.Fatalf("the totals do not add up: %s", all[len(all)-1][0])
	}
	if len(args) > 1 {
		least, err := strconv.Atoi(args[1])
		ts.Check(err)
		if n[0] < least {
			ts.Fatalf("read %d, want at least %d", n[0], least)
		}
	}
}

// jsonl FILE [LEAST] requires nested ECS objects, one a line, each with its id, dataset and time, and no id
// twice.
func cmdJSONL(ts *testscript.TestScript, _ bool, args []string) {
	seen := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			ts.Fatalf("%v: %s", err, line)
		}
		event, _ := e["event"].(map[string]any)
		id, _ := event["id"].(string)
		dataset, _ := event["dataset"].(string)
		at, _ := e["@timestamp"].(string)
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil || len(id) != 36 || dataset == "" {
			ts.Fatalf("no id, dataset or time: %s", line)
		}
		for key := range e {
			if strings.Contains(key, ".") {
				ts.Fatalf("%s is not nested: %s", key, line)
			}
		}
		if seen[id] {
			ts.Fatalf("id %s is there twice", id)
		}
		seen[id] = true
	}
	if len(args) > 1 {
		least, err := strconv.Atoi(args[1])
		ts.Check(err)
		if len(seen) < least {
			ts.Fatalf("%d events, want at least %d", len(seen), least)
		}
	}
}

var loginLine = regexp.MustCompile(`SQL page +(http://\S+?)(/play\S*) +user (\S+), password (\S+)`)

// login FILE sets $URL, $PLAY, $LOGIN and $PASSWORD from the output of run.
func cmdLogin(ts *testscript.TestScript, _ bool, args []string) {
	m := loginLine.FindStringSubmatch(ts.ReadFile(args[0]))
	if m == nil {
		ts.Fatalf("%s tells no login", args[0])
	}
	for i, name := range []string{"URL", "PLAY", "LOGIN", "PASSWORD"} {
		ts.Setenv(name, m[i+1])
	}
}

// mount DIR SIZE mounts a small disk at DIR.
func cmdMount(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]); err != nil {
		ts.Fatalf("mount a small disk, which needs root: %v", err)
	}
	s := scenarioOf(ts)
	s.mounts = append(s.mounts, dir)
}

// fill DIR uses all the space that is left on the disk of DIR, with a file named ballast.
func cmdFill(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(filepath.Join(ts.MkAbs(args[0]), "ballast"))
	ts.Check(err)
	defer func() { _ = f.Close() }()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// pause TIME waits. Where there is something to wait for, until is better.
func cmdPause(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

// damage cut IN OUT N writes the first N bytes of IN; damage garble IN OUT N appends random bytes to them.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	b = b[:min(n, len(b))]
	if args[0] == "garble" {
		b = append(b, bytes.Repeat([]byte{0xa7}, 4000)...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b, 0o600))
}
