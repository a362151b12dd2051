package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// scenarioCommands holds the commands of the scripts. The comment of each function begins with the form of
// its command.
var scenarioCommands = map[string]func(ts *testscript.TestScript, args []string){
	"alone":    cmdAlone,
	"answer":   cmdAnswer,
	"balanced": cmdBalanced,
	"config":   cmdConfig,
	"damage":   cmdDamage,
	"ends":     cmdEnds,
	"columns":  cmdColumns,
	"counters": cmdCounters,
	"fill":     cmdFill,
	"halt":     cmdHalt,
	"jsonl":    cmdJSONL,
	"lines":    cmdLines,
	"login":    cmdLogin,
	"metric":   cmdMetric,
	"mount":    cmdMount,
	"pause":    cmdPause,
	"signal":   cmdSignal,
	"start":    cmdStart,
	"until":    cmdUntil,
	"webhook":  cmdWebhook,
}

// config NAME [PART…] writes a configuration with free ports, followed by the parts, in which variables of
// the script are expanded.
func cmdConfig(ts *testscript.TestScript, args []string) {
	text := scenarioConfigBase
	for _, part := range args[1:] {
		text += ts.ReadFile(part)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(text, ts.Getenv)), 0o600))
}

// start NAME [VAR=VALUE…] ARG… runs tidegate in the background. Its output is appended to NAME.out and
// NAME.err.
func cmdStart(ts *testscript.TestScript, args []string) {
	name, args := args[0], args[1:]
	current := scenarioOf(ts)
	if current.processes[name] != nil {
		ts.Fatalf("%s runs already", name)
	}
	env := []string{
		"TIDEGATE_CACHE=" + ts.Getenv("TIDEGATE_CACHE"), "PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("WORK"),
	}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	bin, err := buildBinary()
	ts.Check(err)
	cmd := exec.Command(bin, args...)
	cmd.Env = env
	current.startProcess(ts, name, cmd)
}

// webhook FILE receives webhooks at $HOOK_PORT and appends each to the file, after its key.
func cmdWebhook(ts *testscript.TestScript, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	server := workload{ListenAddr: "127.0.0.1:" + ts.Getenv("HOOK_PORT"), BodyFile: ts.MkAbs(args[0])}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TIDEGATE_WORK="+server.String())
	scenarioOf(ts).startProcess(ts, "webhook", cmd)
}

// halt NAME sends SIGINT and requires exit code 0 within 10 s; halt NAME KILL sends SIGKILL.
func cmdHalt(ts *testscript.TestScript, args []string) {
	name, current := args[0], scenarioOf(ts)
	child := current.runningProcess(ts, name)
	if len(args) == 2 && args[1] == "KILL" {
		ts.Check(child.cmd.Process.Signal(syscall.SIGKILL))
		<-child.done
		delete(current.processes, name)
		return
	}
	_ = child.cmd.Process.Signal(syscall.SIGINT)
	current.waitExit(ts, name, 10*time.Second, 0)
}

// signal NAME HUP sends SIGHUP.
func cmdSignal(ts *testscript.TestScript, args []string) {
	if args[1] != "HUP" {
		ts.Fatalf("%s is not HUP", args[1])
	}
	ts.Check(scenarioOf(ts).runningProcess(ts, args[0]).cmd.Process.Signal(syscall.SIGHUP))
}

// ends NAME CODE waits until a process ends with an exit code.
func cmdEnds(ts *testscript.TestScript, args []string) {
	code := parseInt(ts, args[1])
	scenarioOf(ts).waitExit(ts, args[0], 90*time.Second, code)
}

// until FILE REGEXP [COUNT] waits until the file has COUNT matches, one by default.
func cmdUntil(ts *testscript.TestScript, args []string) {
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	least := 1
	if len(args) > 2 {
		least = parseInt(ts, args[2])
	}
	eventually(ts, args[0], func() string {
		text, _ := os.ReadFile(ts.MkAbs(args[0]))
		if got := len(re.FindAll(text, -1)); got < least {
			return fmt.Sprintf("%d matches of %s", got, re)
		}
		return ""
	})
}

// answer WANT SQL [CONFIG] runs `tidegate query` until its result, without header and with a blank between
// columns, is WANT. A moment later it still must be.
func cmdAnswer(ts *testscript.TestScript, args []string) {
	config := "tidegate.yaml"
	if len(args) > 2 {
		config = args[2]
	}
	bin, err := buildBinary()
	ts.Check(err)
	ask := func() string {
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
	}
	eventually(ts, args[1], ask)

	// A duplicate may come later than what it duplicates.
	time.Sleep(answerPause)
	if objection := ask(); objection != "" {
		ts.Fatalf("%s: %s later: %s", args[1], answerPause, objection)
	}
}

// answerPause is the time after which answer looks once more.
const answerPause = 300 * time.Millisecond

// metric PORT NAME LEAST waits until the sum of the samples whose name and labels begin with NAME is at least
// LEAST.
func cmdMetric(ts *testscript.TestScript, args []string) {
	least, err := strconv.ParseFloat(args[2], 64)
	ts.Check(err)
	eventually(ts, args[1], func() string {
		out, err := exec.Command("curl", "-sf", "http://127.0.0.1:"+args[0]+"/metrics").Output()
		if err != nil {
			return err.Error()
		}
		if value := sumSamples(string(out), args[1]); value < least {
			return fmt.Sprintf("%v, want at least %v", value, least)
		}
		return ""
	})
}

// ofWorker matches the counters that begin with a worker of an interface, of which scripts have none, or with the
// first sample of a rule.
var ofWorker = regexp.MustCompile(`^tidegate_(capture_kernel|sessions|protocols|detectors_rules_sampled)_`)

// counters PORT requires that /metrics has each counter that docs/OPERATING.md names, before it has counted.
func cmdCounters(ts *testscript.TestScript, args []string) {
	out, err := exec.Command("curl", "-sf", "http://127.0.0.1:"+args[0]+"/metrics").Output()
	ts.Check(err)
	found := 0
	for _, name := range metricName.FindAllString(ts.ReadFile(filepath.Join(ts.Getenv("REPO"), "docs", "OPERATING.md")), -1) {
		if !strings.HasSuffix(name, "_total") || ofWorker.MatchString(name) {
			continue
		}
		found++
		if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).Match(out) {
			ts.Fatalf("/metrics has no %s", name)
		}
	}
	if found < 20 {
		ts.Fatalf("docs/OPERATING.md names %d counters", found)
	}
}

// lines CONTAINER FROM TO [WIDTH] appends numbered lines to the log of a container in the form of dockerd.
// Lines are padded to WIDTH.
func cmdLines(ts *testscript.TestScript, args []string) {
	container, from, to, width := args[0], parseInt(ts, args[1]), parseInt(ts, args[2]), 0
	if len(args) > 3 {
		width = parseInt(ts, args[3])
	}

	// The id of the container is made from its name.
	id := strings.Repeat(fmt.Sprintf("%x", container), 64)[:64]
	dir := filepath.Join(ts.Getenv("WORK"), "docker", "containers", id)
	ts.Check(os.MkdirAll(dir, 0o700))

	var records bytes.Buffer
	encoder := json.NewEncoder(&records)
	for number := from; number <= to; number++ {
		line := fmt.Sprintf("%s line %d", container, number)
		line += strings.Repeat(".", max(width-len(line), 0))
		ts.Check(encoder.Encode(demoLogRecord{Log: line + "\n", Stream: "stdout", Time: time.Now()}))
	}
	file, err := os.OpenFile(filepath.Join(dir, id+"-json.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = file.Write(records.Bytes())
	ts.Check(errors.Join(err, file.Close()))
}

// alone waits until no process has the folder of the script in its command line.
func cmdAlone(ts *testscript.TestScript, _ []string) {
	eventually(ts, "processes are left", func() string {
		var left []string
		paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range paths {
			cmdline, err := os.ReadFile(path)
			if err == nil && bytes.Contains(cmdline, []byte(ts.Getenv("WORK")+"/")) {
				left = append(left, path+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte(" "))))
			}
		}
		return strings.Join(left, "\n")
	})
}

// totalsLine matches the totals of the collector at the end of a process.
var totalsLine = regexp.MustCompile(`(?m)^collector` +
	` +read ([\d,]+) +delivered ([\d,]+) +buffered ([\d,]+) +dropped ([\d,]+) +lost ([\d,]+)$`)

// balanced FILE [LEAST] requires that the last totals of the file add up, that no event is lost, and that at least
// LEAST events were read.
func cmdBalanced(ts *testscript.TestScript, args []string) {
	all := totalsLine.FindAllStringSubmatch(ts.ReadFile(args[0]), -1)
	if len(all) == 0 {
		ts.Fatalf("%s has no totals", args[0])
	}
	last := all[len(all)-1]
	var counts [5]int // read, delivered, buffered, dropped, lost
	for i, field := range last[1:] {
		counts[i] = parseInt(ts, strings.ReplaceAll(field, ",", ""))
	}
	if counts[0] != counts[1]+counts[2]+counts[3]+counts[4] {
		ts.Fatalf("the totals do not add up: %s", last[0])
	}
	if counts[4] != 0 {
		ts.Fatalf("events are lost: %s", last[0])
	}
	checkEngineTotals(ts, args[0])
	if len(args) > 1 && counts[0] < parseInt(ts, args[1]) {
		ts.Fatalf("read %d, want at least %s", counts[0], args[1])
	}
}

// engineTotalsLine matches the totals of the engine at the end of a process.
var engineTotalsLine = regexp.MustCompile(`(?m)^engine` +
	` +read ([\d,]+) +stored ([\d,]+) +duplicates ([\d,]+) +rejected ([\d,]+) +unfinished ([\d,]+) `)

// checkEngineTotals requires that each of the engine's totals in a file adds up: what was read is stored, a duplicate,
// rejected, or unfinished and read again after the next start.
func checkEngineTotals(ts *testscript.TestScript, file string) {
	for _, line := range engineTotalsLine.FindAllStringSubmatch(ts.ReadFile(file), -1) {
		var counts [5]int
		for i, field := range line[1:] {
			counts[i] = parseInt(ts, strings.ReplaceAll(field, ",", ""))
		}
		if counts[0] != counts[1]+counts[2]+counts[3]+counts[4] {
			ts.Fatalf("the totals do not add up: %s", line[0])
		}
	}
}

// jsonl FILE [LEAST] requires nested ECS objects, one a line, each with its id, dataset and time, and no id
// twice.
func cmdJSONL(ts *testscript.TestScript, args []string) {
	seen := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("%v: %s", err, line)
		}
		event, _ := object["event"].(map[string]any)
		id, _ := event["id"].(string)
		dataset, _ := event["dataset"].(string)
		at, _ := object["@timestamp"].(string)
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil || len(id) != 36 || dataset == "" {
			ts.Fatalf("no id, dataset or time: %s", line)
		}
		for key := range object {
			if strings.Contains(key, ".") {
				ts.Fatalf("%s is not nested: %s", key, line)
			}
		}
		if seen[id] {
			ts.Fatalf("the id %s occurs twice", id)
		}
		seen[id] = true
	}
	if len(args) > 1 && len(seen) < parseInt(ts, args[1]) {
		ts.Fatalf("%d events, want at least %s", len(seen), args[1])
	}
}

// loginLine matches the line of the welcome that has the login of the SQL page.
var loginLine = regexp.MustCompile(`SQL page +(http://\S+?)(/play\S*) +user (\S+), password (\S+)`)

// login FILE sets $URL, $PLAY, $LOGIN and $PASSWORD from the output of run.
func cmdLogin(ts *testscript.TestScript, args []string) {
	match := loginLine.FindStringSubmatch(ts.ReadFile(args[0]))
	if match == nil {
		ts.Fatalf("%s has no login", args[0])
	}
	for i, name := range []string{"URL", "PLAY", "LOGIN", "PASSWORD"} {
		ts.Setenv(name, match[i+1])
	}
}

// columns NAME… sets variables to the columns of the last row that `tidegate query -o tsv` has printed.
func cmdColumns(ts *testscript.TestScript, args []string) {
	rows := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	columns := strings.Split(rows[len(rows)-1], "\t")
	if len(rows) < 2 || len(columns) != len(args) {
		ts.Fatalf("no row with %d columns", len(args))
	}
	for i, name := range args {
		ts.Setenv(name, columns[i])
	}
}

// mount DIR SIZE mounts a small disk at DIR.
func cmdMount(ts *testscript.TestScript, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]); err != nil {
		ts.Fatalf("mount a small disk, which needs root: %v", err)
	}
	current := scenarioOf(ts)
	current.mounts = append(current.mounts, dir)
}

// fill DIR uses all the space that is left on the disk of DIR, with a file named ballast.
func cmdFill(ts *testscript.TestScript, args []string) {
	file, err := os.Create(filepath.Join(ts.MkAbs(args[0]), "ballast"))
	ts.Check(err)
	defer func() { _ = file.Close() }()
	// When a block does not fit, half of it may.
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// pause TIME waits. It is for scripts that have no condition to wait for.
func cmdPause(ts *testscript.TestScript, args []string) {
	duration, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(duration)
}

// damage cut IN OUT N writes the first N bytes of IN to OUT; damage garble IN OUT N writes 4,000 bytes of
// garbage behind them.
func cmdDamage(ts *testscript.TestScript, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	data = data[:min(parseInt(ts, args[3]), len(data))]
	if args[0] == "garble" {
		data = append(data, bytes.Repeat([]byte{0xa7}, 4000)...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

// parseInt returns the number that an argument of a command is.
func parseInt(ts *testscript.TestScript, text string) int {
	number, err := strconv.Atoi(text)
	ts.Check(err)
	return number
}
