package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A dockerHost is a Docker host for one test: a network namespace with a real dockerd, and a second
// namespace that stands for the outside, behind a pair of interfaces that are both called eth0. Addresses
// are those reserved for documentation; nothing leaves the machine.
//
//	outside 198.51.100.1, 2001:db8:1::1  ── eth0 ──  198.51.100.2, 2001:db8:1::2 host ── docker0 172.17.0.0/16, 2001:db8:2::/64
//	                                                                                └─ br-…, a second network
type dockerHost struct {
	t                               *testing.T
	dir                             string
	hostNamespace, outsideNamespace string
	dockerd                         *exec.Cmd
}

const (
	hostIP     = "198.51.100.2"
	outsideIP  = "198.51.100.1"
	outsideIP6 = "2001:db8:1::1"
)

func newDockerHost(t *testing.T) *dockerHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and dockerd need root")
	}
	for _, tool := range []string{"dockerd", "ip", "nsenter", "iptables", "nginx", "redis-server", "mariadbd", "dnsmasq"} {
		if _, err := exec.LookPath(tool); err != nil && !fileExists("/usr/sbin/"+tool) {
			t.Fatalf("%s is missing; deploy/setup-test.sh installs it", tool)
		}
	}
	host := &dockerHost{t: t, dir: t.TempDir(), hostNamespace: fmt.Sprintf("tghost%d", os.Getpid()), outsideNamespace: fmt.Sprintf("tgout%d", os.Getpid())}
	t.Cleanup(host.shutDown)
	host.createNetwork()
	host.startDockerd()
	// Docker allows access to a container only through published ports; routed networks are the exception.
	host.mustRun(host.hostCommand("iptables", "-I", "DOCKER-USER", "-i", "eth0", "-j", "ACCEPT"))
	host.importImage()
	return host
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (h *dockerHost) createNetwork() {
	for _, args := range []string{
		"netns add " + h.hostNamespace, "netns add " + h.outsideNamespace,
		"-n " + h.hostNamespace + " link set lo up", "-n " + h.outsideNamespace + " link set lo up",
		"link add eth0 netns " + h.hostNamespace + " type veth peer name eth0 netns " + h.outsideNamespace,
		"-n " + h.hostNamespace + " addr add " + hostIP + "/24 dev eth0", "-n " + h.outsideNamespace + " addr add " + outsideIP + "/24 dev eth0",
		"-n " + h.hostNamespace + " addr add 2001:db8:1::2/64 dev eth0 nodad", "-n " + h.outsideNamespace + " addr add " + outsideIP6 + "/64 dev eth0 nodad",
		"-n " + h.hostNamespace + " link set eth0 up", "-n " + h.outsideNamespace + " link set eth0 up",
		"-n " + h.hostNamespace + " route add default via " + outsideIP,
		// Routed, without NAT: hosts outside have a route to the containers.
		"-n " + h.outsideNamespace + " route add 172.17.0.0/16 via " + hostIP, "-n " + h.outsideNamespace + " -6 route add 2001:db8:2::/64 via 2001:db8:1::2",
		"-n " + h.hostNamespace + " -6 route add default via " + outsideIP6,
	} {
		h.mustRun(exec.Command("ip", strings.Fields(args)...))
	}
}

// startDockerd starts dockerd with a /sys of its own, through which bridges are set up, and the cgroups of
// the machine.
func (h *dockerHost) startDockerd() {
	d := h.dir
	for _, sub := range []string{"root", "exec", "cg"} {
		h.check(os.MkdirAll(filepath.Join(d, sub), 0o755))
	}
	script := fmt.Sprintf(`mount --rbind /sys/fs/cgroup %[1]s/cg; mount -t sysfs sysfs /sys; mount --rbind %[1]s/cg /sys/fs/cgroup
exec dockerd --data-root %[1]s/root --exec-root %[1]s/exec -H unix://%[1]s/docker.sock --pidfile %[1]s/docker.pid --ipv6 --fixed-cidr-v6 2001:db8:2::/64`, d)
	h.dockerd = exec.Command("nsenter", "--net=/run/netns/"+h.hostNamespace, "unshare", "-m", "--propagation", "private", "bash", "-c", script)
	logs, err := os.Create(filepath.Join(d, "dockerd.log"))
	h.check(err)
	h.dockerd.Stdout, h.dockerd.Stderr = logs, logs
	h.check(h.dockerd.Start())
	for range 600 {
		if exec.Command("docker", "-H", h.socket(), "version").Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	output, _ := os.ReadFile(logs.Name())
	h.t.Fatalf("dockerd did not come up: %s", tail(output, 2000))
}

func tail(data []byte, limit int) []byte { return data[max(0, len(data)-limit):] }

// importImage imports a skeleton of folders. The programs of this machine are bind-mounted into it (binds).
func (h *dockerHost) importImage() {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, dir := range []string{"etc", "proc", "sys", "dev", "tmp", "run", "usr", "lib", "lib64", "bin", "sbin", "var", "var/log", "var/lib", "var/lib/tidegate", "var/lib/docker"} {
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

var programMounts = []string{"-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "-v", "/bin:/bin:ro", "-v", "/sbin:/sbin:ro"}

func (h *dockerHost) socket() string { return "unix://" + h.dir + "/docker.sock" }

// docker runs the client and returns its output without the last newline.
func (h *dockerHost) docker(args ...string) string {
	h.t.Helper()
	return h.mustRun(exec.Command("docker", append([]string{"-H", h.socket()}, args...)...))
}

// runContainer starts a container of the skeleton image. args are options, then --, then the command.
func (h *dockerHost) runContainer(args ...string) string {
	h.t.Helper()
	separator := len(args)
	for index, arg := range args {
		if arg == "--" {
			separator = index
			break
		}
	}
	full := append([]string{"run"}, programMounts...)
	full = append(append(full, args[:separator]...), "skel")
	if separator < len(args) {
		full = append(full, args[separator+1:]...)
	}
	return h.docker(full...)
}

func (h *dockerHost) containerAddress(container, network, family string) string {
	h.t.Helper()
	key := map[string]string{"4": "IPAddress", "6": "GlobalIPv6Address"}[family]
	return h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, key), container)
}

// hostCommand returns a command in the namespace of the host, outside one in the namespace outside. Neither
// is started.
func (h *dockerHost) hostCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.hostNamespace, name}, args...)...)
}

func (h *dockerHost) outsideCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.outsideNamespace, name}, args...)...)
}

func (h *dockerHost) mustRun(cmd *exec.Cmd) string {
	h.t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = io.MultiWriter(&stderr)
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%v: %v: %s%s", cmd.Args, err, out, stderr.Bytes())
	}
	return strings.TrimRight(string(out), "\n")
}

func (h *dockerHost) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// shutDown ends only what was started here. The mounts of dockerd disappear with its mount namespace.
func (h *dockerHost) shutDown() {
	if h.dockerd != nil && h.dockerd.Process != nil {
		if ids, err := exec.Command("docker", "-H", h.socket(), "ps", "-aq").Output(); err == nil && len(ids) > 0 {
			_ = exec.Command("docker", append([]string{"-H", h.socket(), "rm", "-f"}, strings.Fields(string(ids))...)...).Run()
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
