package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A dockerHost is a Docker host for one test: a network namespace with a real dockerd, and a second namespace
// for the outside, behind a pair of interfaces that are both called eth0. The addresses are reserved for
// documentation; no packet leaves the machine.
//
//	outside 198.51.100.1, 2001:db8:1::1
//	   │ eth0
//	host    198.51.100.2, 2001:db8:1::2 ──┬─ docker0, 172.17.0.0/16, 2001:db8:2::/64
//	                                      └─ br-…, a second network
type dockerHost struct {
	t                               *testing.T
	dir                             string // holds everything that the test writes
	hostNamespace, outsideNamespace string // names of the network namespaces
	dockerd                         *exec.Cmd
}

const (
	hostIP     = "198.51.100.2"
	hostIP6    = "2001:db8:1::2"
	outsideIP  = "198.51.100.1"
	outsideIP6 = "2001:db8:1::1"
)

// newDockerHost starts a Docker host that stops at the end of the test.
func newDockerHost(t *testing.T) *dockerHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and dockerd need root")
	}
	tools := []string{"dockerd", "ip", "nsenter", "iptables", "nginx", "redis-server", "mariadbd", "dnsmasq"}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil && !fileExists("/usr/sbin/"+tool) {
			t.Fatalf("%s is missing; deploy/setup-test.sh installs it", tool)
		}
	}

	host := &dockerHost{
		t: t, dir: t.TempDir(),
		hostNamespace: fmt.Sprintf("tghost%d", os.Getpid()), outsideNamespace: fmt.Sprintf("tgout%d", os.Getpid()),
	}
	t.Cleanup(host.shutDown)
	host.createNetwork()
	host.startDockerd()
	// Docker blocks routed access to containers: only published ports are open. This rule allows it.
	host.mustRun(host.hostCommand("iptables", "-I", "DOCKER-USER", "-i", "eth0", "-j", "ACCEPT"))
	host.importImage()
	return host
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// createNetwork creates both namespaces and the interfaces between them. Outside has routes to the
// containers, so that it reaches them without NAT.
func (h *dockerHost) createNetwork() {
	onHost, onOutside := "-n "+h.hostNamespace, "-n "+h.outsideNamespace
	for _, args := range []string{
		"netns add " + h.hostNamespace,
		"netns add " + h.outsideNamespace,
		onHost + " link set lo up",
		onOutside + " link set lo up",

		"link add eth0 netns " + h.hostNamespace + " type veth peer name eth0 netns " + h.outsideNamespace,
		onHost + " addr add " + hostIP + "/24 dev eth0",
		onOutside + " addr add " + outsideIP + "/24 dev eth0",
		onHost + " addr add " + hostIP6 + "/64 dev eth0 nodad",
		onOutside + " addr add " + outsideIP6 + "/64 dev eth0 nodad",
		onHost + " link set eth0 up",
		onOutside + " link set eth0 up",

		onHost + " route add default via " + outsideIP,
		onOutside + " route add 172.17.0.0/16 via " + hostIP,
		onOutside + " -6 route add 2001:db8:2::/64 via " + hostIP6,
		onHost + " -6 route add default via " + outsideIP6,
	} {
		h.mustRun(exec.Command("ip", strings.Fields(args)...))
	}
}

// startDockerd starts dockerd and waits until it answers. dockerd has a /sys of its own, because bridges are
// set up through the /sys of a network namespace, and the cgroups of the machine.
func (h *dockerHost) startDockerd() {
	for _, sub := range []string{"root", "exec", "cg"} {
		h.check(os.MkdirAll(filepath.Join(h.dir, sub), 0o755))
	}
	script := fmt.Sprintf(`mount --rbind /sys/fs/cgroup %[1]s/cg
mount -t sysfs sysfs /sys
mount --rbind %[1]s/cg /sys/fs/cgroup
exec dockerd --data-root %[1]s/root --exec-root %[1]s/exec --pidfile %[1]s/docker.pid \
	-H unix://%[1]s/docker.sock --ipv6 --fixed-cidr-v6 2001:db8:2::/64`, h.dir)
	h.dockerd = h.hostCommand("unshare", "-m", "--propagation", "private", "bash", "-c", script)
	logFile, err := os.Create(filepath.Join(h.dir, "dockerd.log"))
	h.check(err)
	h.dockerd.Stdout, h.dockerd.Stderr = logFile, logFile
	h.check(h.dockerd.Start())

	for range 600 {
		if exec.Command("docker", "-H", h.socket(), "version").Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	output, _ := os.ReadFile(logFile.Name())
	h.t.Fatalf("dockerd did not answer: %s", tail(output, 2000))
}

// tail returns the last bytes of data, at most limit.
func tail(data []byte, limit int) []byte { return data[max(0, len(data)-limit):] }

// importImage imports the image skel, which has only folders. The containers have the programs of this
// machine (programMounts).
func (h *dockerHost) importImage() {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, dir := range []string{
		"etc", "proc", "sys", "dev", "tmp", "run", "usr", "lib", "lib64", "bin", "sbin",
		"var", "var/log", "var/lib", "var/lib/tidegate", "var/lib/docker",
	} {
		h.check(writer.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o777}))
	}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		content, err := os.ReadFile(file)
		h.check(err)
		h.check(writer.WriteHeader(&tar.Header{Name: file[1:], Mode: 0o644, Size: int64(len(content))}))
		_, err = writer.Write(content)
		h.check(err)
	}
	h.check(writer.Close())
	cmd := exec.Command("docker", "-H", h.socket(), "import", "-", "skel")
	cmd.Stdin = &archive
	h.mustRun(cmd)
}

// programMounts are the options of docker that mount the programs of this machine.
var programMounts = []string{
	"-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "-v", "/bin:/bin:ro", "-v", "/sbin:/sbin:ro",
}

// socket returns the address of the Docker API.
func (h *dockerHost) socket() string { return "unix://" + h.dir + "/docker.sock" }

// docker runs the Docker client and returns its output without the last newline.
func (h *dockerHost) docker(args ...string) string {
	h.t.Helper()
	return h.mustRun(exec.Command("docker", append([]string{"-H", h.socket()}, args...)...))
}

// runContainer runs `docker run` with the image skel. args are the options, then --, then the command.
func (h *dockerHost) runContainer(args ...string) string {
	h.t.Helper()
	options, command := args, []string(nil)
	if separator := slices.Index(args, "--"); separator >= 0 {
		options, command = args[:separator], args[separator+1:]
	}
	return h.docker(slices.Concat([]string{"run"}, programMounts, options, []string{"skel"}, command)...)
}

// containerAddress returns the address of a container in a network; family is 4 or 6.
func (h *dockerHost) containerAddress(container, network, family string) string {
	h.t.Helper()
	key := map[string]string{"4": "IPAddress", "6": "GlobalIPv6Address"}[family]
	template := fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, key)
	return h.docker("inspect", "-f", template, container)
}

// hostCommand returns a command that runs in the namespace of the host.
func (h *dockerHost) hostCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.hostNamespace, name}, args...)...)
}

// outsideCommand returns a command that runs in the namespace outside.
func (h *dockerHost) outsideCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.outsideNamespace, name}, args...)...)
}

// mustRun runs a command and returns its standard output without the last newlines. The test ends if the
// command fails.
func (h *dockerHost) mustRun(cmd *exec.Cmd) string {
	h.t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%v: %v: %s%s", cmd.Args, err, out, stderr.Bytes())
	}
	return strings.TrimRight(string(out), "\n")
}

// check ends the test after an error.
func (h *dockerHost) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// shutDown removes the containers, stops dockerd and deletes the namespaces. The mounts of dockerd disappear
// with its mount namespace.
func (h *dockerHost) shutDown() {
	if h.dockerd != nil && h.dockerd.Process != nil {
		if ids, err := exec.Command("docker", "-H", h.socket(), "ps", "-aq").Output(); err == nil && len(ids) > 0 {
			remove := append([]string{"-H", h.socket(), "rm", "-f"}, strings.Fields(string(ids))...)
			_ = exec.Command("docker", remove...).Run()
		}
		_ = h.dockerd.Process.Signal(os.Interrupt)
		ended := make(chan struct{})
		go func() { _ = h.dockerd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = h.dockerd.Process.Kill()
			<-ended
		}
	}
	_ = exec.Command("ip", "netns", "del", h.hostNamespace).Run()
	_ = exec.Command("ip", "netns", "del", h.outsideNamespace).Run()
}
