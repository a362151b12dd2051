package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// nginxConfig makes nginx answer on port 8080 and write nothing but its access log and files in /tmp.
const nginxConfig = `user root; pid /tmp/nginx.pid; error_log stderr; daemon off; worker_processes 1; events {}
http {
 access_log /dev/stdout;
 client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
 scgi_temp_path /tmp/s;
 server { listen 8080; listen [::]:8080; location / { return 200 "from $remote_addr\n"; } }
}
`

// startServers starts nginx, redis-server, mariadbd and dnsmasq in containers that are named by their
// function: web, cache, db, dns. web is also published at port 9090 of the host.
func (h *dockerHost) startServers() {
	h.t.Helper()
	conf := filepath.Join(h.dir, "nginx.conf")
	h.check(os.WriteFile(conf, []byte(nginxConfig), 0o644))
	data := filepath.Join(h.dir, "mysql")
	h.mustRun(exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"))

	h.runContainer("-d", "--name", "web", "-p", "9090:8080", "--label", "app=shop", "-v", conf+":/n.conf:ro",
		"--", "nginx", "-c", "/n.conf")
	h.runContainer("-d", "--name", "cache", "--label", "app=shop",
		"--", "redis-server", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0", "::")
	h.runContainer("-d", "--name", "db", "--label", "app=shop", "-v", data+":/data",
		"--", "mariadbd", "--no-defaults", "--datadir=/data", "--skip-grant-tables", "--user=root",
		"--bind-address=*", "--socket=/tmp/s", "--pid-file=/tmp/p")
	h.runContainer("-d", "--name", "dns",
		"--", "dnsmasq", "-k", "-C", "/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
		"--log-facility=-", "--address=/example/192.0.2.10")

	for name, port := range map[string]string{"web": "8080", "cache": "6379", "db": "3306"} {
		h.waitTCP(h.containerAddress(name, "bridge", "4"), port)
	}
}

// waitTCP waits until something in the host's namespace accepts connections at an address.
func (h *dockerHost) waitTCP(ip, port string) {
	h.t.Helper()
	for range 400 {
		if h.hostCommand("bash", "-c", "exec 3<>/dev/tcp/"+ip+"/"+port).Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatalf("nothing answers at %s:%s: %s", ip, port, h.docker("ps", "-a"))
}
