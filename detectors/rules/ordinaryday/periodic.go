package ordinaryday

import (
	"fmt"
	"time"

	"tidegate/pipeline"
)

// periodic emits what happens at fixed times. second is that of the day, shifted by host.
func (d *day) periodic(h *host, second int) {
	every := func(seconds, offset int) bool { return second%seconds == offset%seconds }
	if every(60, 3) { // health checks, of Docker and of Kubernetes
		for _, service := range []string{"shop", "api", "wiki", "git"} {
			d.http(h, "proxy", service, 8080, request{method: "GET", target: "/healthz", domain: service, agent: "kube-probe/1.31", status: 200})
			d.log(h, service, `10.0.0.1 - - [%s] "GET /healthz HTTP/1.1" 200 2 "-" "kube-probe/1.31"`, d.now.Format("02/Jan/2006:15:04:05 +0000"))
		}
		for _, action := range []string{"exec_create", "exec_start", "exec_die"} {
			d.change(h, "pg", action, 0)
		}
		d.redis(h, "worker", "PING")
		d.sql(h, "worker", "monitor", "SELECT 1", 1)
	}
	if every(30, 5) { // scrapes
		for _, service := range []string{"shop", "api", "cache", "db", "pg"} {
			target := map[string]string{"shop": "/actuator/prometheus", "api": "/metrics"}[service]
			if target == "" {
				target = "/metrics?collect[]=global_status"
			}
			d.http(h, "prometheus", service, 9100, request{method: "GET", target: target, domain: service + ":9100", agent: "Prometheus/2.54.1", status: 200, mime: "text/plain"})
		}
		d.tls(h, "agent", "intake.logs.datadoghq.com", 2400, 600)
		d.redis(h, "worker", "BRPOP", "jobs", "5")
	}
	if every(60, 11) {
		d.minute(h)
	}
	if every(3600, 77) {
		d.hour(h)
	}
	if second >= 2*3600+900 && second < 2*3600+900+2 {
		d.backup(h)
	}
	if hour := second / 3600; (hour == 10 || hour == 15) && second%3600 == 1200 {
		d.deploy(h)
	}
}

var cdnNames = []string{
	"d1a2b3c4d5e6f7.cloudfront.net", "a1961.g2.akamai.net", "r3---sn-4g5ednsl.googlevideo.com", "ec2-52-29-12-7.eu-central-1.compute.amazonaws.com",
	"prod-eu-central-1-starfort-0123456789abcdef.elb.eu-central-1.amazonaws.com", "e4578.dscb.akamaiedge.net", "dualstack.j.sni.global.fastly.net",
	"0a1b2c3d4e5f60718293a4b5c6d7e8f9.gr7.eu-central-1.eks.amazonaws.com", "cdn-0123456789abcdef0123456789abcdef.edge.example-cdn.net",
}

func (d *day) minute(h *host) {
	for range 3 {
		name := pick(d, cdnNames)
		d.dns(h, pick(d, []string{"shop", "api", "worker", "agent"}), name, pick(d, []string{"A", "AAAA"}), "NOERROR", d.outside(name))
	}
	for _, suffix := range []string{".shop.svc.cluster.local", ".svc.cluster.local", ".cluster.local"} { // the search list of a pod
		d.dns(h, "api", "api.stripe.com"+suffix, "A", "NXDOMAIN")
	}
	d.dns(h, "shop", "db", "A", "NOERROR", h.addresses["db"].String())
	d.dns(h, "agent", "_http._tcp.local", "PTR", "")
	d.dns(h, "agent", fmt.Sprintf("%d.0.0.10.in-addr.arpa", d.rng.IntN(250)), "PTR", "NOERROR", "node1.example.internal")
	d.session(h, "worker", "193.0.0.123", 123, 48, 48, 20*time.Millisecond, "timeout")
	d.tls(h, "worker", pick(d, []string{"dns.google", "cloudflare-dns.com"}), 900, 1200) // DNS over HTTPS
	d.log(h, "", "CRON[%d]: (root) CMD (test -x /usr/sbin/anacron || run-parts --report /etc/cron.hourly)", d.rng.IntN(30000))
	d.log(h, "pg", `%s UTC [%d] LOG:  checkpoint complete: wrote %d buffers (0.3%%); write=4.1 s, sync=0.01 s`, d.now.Format("2006-01-02 15:04:05.000"), d.rng.IntN(900), d.rng.IntN(900))
	d.log(h, "pg", `%s UTC [%d] ERROR:  duplicate key value violates unique constraint "orders_pkey"`, d.now.Format("2006-01-02 15:04:05.000"), d.rng.IntN(900))
	d.log(h, "db", `%s %d [Warning] Aborted connection %d to db: 'shop' user: 'shop' host: '172.17.0.3' (Got timeout reading communication packets)`, d.now.Format("2006-01-02 15:04:05"), d.rng.IntN(900), d.rng.IntN(900))
	d.log(h, "cache", `1:M %s * 100 changes in 300 seconds. Saving...`, d.now.Format("02 Jan 2006 15:04:05.000"))
	d.log(h, "mail", `postfix/smtpd[%d]: connect from mail-ed1-f41.example.org[198.51.100.41]`, d.rng.IntN(30000))
	d.log(h, "mail", `postfix/smtp[%d]: 4Xy: to=<anna@example.org>, relay=mx.example.org[198.51.100.25]:25, delay=0.4, status=sent (250 2.0.0 Ok: queued as 7F)`, d.rng.IntN(30000))
	d.log(h, "worker", `level=info msg="new job from queue" queue=mail attempts=%d pool=primary`, d.rng.IntN(3))
	d.log(h, "worker", `{"level":"warn","msg":"retry in 5s","error":"Get \"http://169.254.169.254/latest/meta-data/\": context deadline exceeded"}`)
	d.dns(h, "mail", fmt.Sprintf("%d.%d.100.198.zen.spamhaus.org", d.rng.IntN(250), d.rng.IntN(250)), "A", "NXDOMAIN")
	for _, name := range []string{"example.org", "selector1._domainkey.example.org", "_dmarc.example.org"} {
		d.dns(h, "mail", name, "TXT", "NOERROR", "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB")
	}
	d.session(h, "mail", d.outside("mx.example.org"), 25, 9000, 900, 2*time.Second, "fin")
	if d.rng.IntN(5) == 0 { // a person logs in, after a typing error or two
		for range d.rng.IntN(3) {
			d.log(h, "", "sshd[%d]: Failed password for anna from 10.0.0.7 port %d ssh2", d.rng.IntN(30000), 40000+d.rng.IntN(9000))
		}
		d.log(h, "", "sshd[%d]: Accepted publickey for anna from 10.0.0.7 port %d ssh2: ED25519 SHA256:0123456789abcdef", d.rng.IntN(30000), 40000+d.rng.IntN(9000))
		d.log(h, "", "sudo:     anna : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/docker logs shop-1")
	}
	d.log(h, "", `kubelet[812]: I1127 10:00:00.1 kubelet.go:2412] "SyncLoop (probe)" probe="readiness" status="ready" pod="shop/web-1"`)
	d.log(h, "", `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods?limit=500","verb":"list","user":{"username":"system:serviceaccount:monitoring:prometheus"},"objectRef":{"resource":"pods","namespace":"shop"},"responseStatus":{"code":200}}`)
	d.log(h, "", `type=SYSCALL msg=audit(%d.1:%d): arch=c000003e syscall=59 success=yes exit=0 ppid=1 pid=%d auid=1000 uid=0 comm="run-parts" exe="/usr/bin/run-parts" key="exec"`, d.now.Unix(), d.count, d.rng.IntN(30000))
	d.log(h, "", `type=PATH msg=audit(%d.1:%d): item=0 name="/etc/ld.so.cache" inode=9 mode=0100644 nametype=NORMAL`, d.now.Unix(), d.count)
	d.redis(h, "worker", "EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "1", "rate:7")
	d.redis(h, "agent", "INFO", "all")
	d.redis(h, "agent", "CONFIG GET", "maxmemory")
	d.sql(h, "agent", "monitor", "SHOW GLOBAL STATUS", 500)
	d.sql(h, "agent", "monitor", "SELECT table_schema, SUM(data_length) FROM information_schema.tables GROUP BY table_schema", 8)
}

func (d *day) hour(h *host) {
	d.log(h, "", "logrotate[%d]: rotating pattern: /var/log/nginx/*.log after 1 days (14 rotations)", d.rng.IntN(30000))
	d.log(h, "", "rsyslogd: [origin software=\"rsyslogd\" swVersion=\"8.2302.0\"] rsyslogd was HUPed")
	d.log(h, "", "kernel: [ 7321.12] device veth9a1b2c entered promiscuous mode")
	d.log(h, "", "dockerd[700]: time=\"2026-11-27T10:00:00Z\" level=info msg=\"API listen on /var/run/docker.sock\"")
	d.log(h, "builder", "#7 RUN curl -sSL https://install.python-poetry.org | python3 -")
	d.log(h, "builder", "#8 RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/* /var/log/apt/*")
	for n := range 40 { // packages for a build
		name := pick(d, []string{"deb.debian.org", "dl-cdn.alpinelinux.org", "archive.ubuntu.com"})
		if n == 0 {
			d.dns(h, "builder", name, "A", "NOERROR", d.outside(name))
		}
		d.http(h, "builder", d.outside(name), 80, request{
			method: "GET", target: fmt.Sprintf("/debian/pool/main/libx/libx%d_1.2-%d_amd64.deb", n, d.rng.IntN(9)), domain: name, agent: "Debian APT-HTTP/1.3 (2.6.1)", status: 200,
			mime: "application/vnd.debian.binary-package",
		})
	}
	for _, name := range []string{"proxy.golang.org", "registry.npmjs.org", "pypi.org", "ghcr.io", "github.com"} {
		d.tls(h, "builder", name, 4000, 90_000_000)
	}
	for n := range 12 { // a deployment tool logs in everywhere
		d.session(h, h.addr.String(), addr(10, 0, 0, 40+n).String(), 22, 4100, 5200, 3*time.Second, "fin")
	}
	for range 25 { // a reader of the wiki, with an old list of links
		d.page(h, "81.4.5.6", "wiki", "wiki.example.com", request{method: "GET", target: fmt.Sprintf("/wiki/Old_page_%d", d.rng.IntN(9000)), agent: agents[3], status: 404})
	}
	d.sql(h, "worker", "report", "SELECT customer_id, SUM(total) FROM orders WHERE created > NOW() - INTERVAL 1 DAY GROUP BY customer_id HAVING SUM(total) > 0", 48_000)
	d.redis(h, "worker", "SCAN", "0", "MATCH", "session:*", "COUNT", "1000")
	d.session(h, "worker", "db", 3306, 90_000, 30_000_000, 4*time.Second, "fin")
}

// backup dumps the databases and sends them outside.
func (d *day) backup(h *host) {
	d.log(h, "backup", "backup started")
	for _, table := range []string{"items", "orders", "customers", "users", "sessions"} {
		d.sql(h, "backup", "backup", "SELECT /*!40001 SQL_NO_CACHE */ * FROM `"+table+"`", 120_000)
	}
	d.log(h, "pg", `%s UTC [77] LOG:  statement: COPY public.orders (id, total) TO stdout;`, d.now.Format("2006-01-02 15:04:05.000"))
	for range 4 {
		d.session(h, "backup", d.outside("backup.example.net"), 443, 900_000_000, 90_000, 90*time.Second, "fin")
	}
	d.redis(h, "backup", "BGSAVE")
	d.log(h, "backup", "backup finished")
}

// deploy replaces the containers of the shop and the API.
func (d *day) deploy(h *host) {
	for _, service := range []string{"shop", "api", "worker"} {
		d.change(h, service, "kill", 0)
		d.change(h, service, "die", 143)
		d.change(h, service, "destroy", 0)
		d.start(h, service)
		d.change(h, service, "create", 0)
		d.change(h, service, "start", 0)
		for range 30 { // until it listens
			d.session(h, "proxy", service, 8080, 0, 0, time.Millisecond, "refused")
		}
		for range 8 {
			d.page(h, "81.9.8.7", service, service+".example.com", request{method: "GET", target: "/", agent: agents[0], status: 502})
		}
		d.log(h, service, "Started Application in 4.2 seconds (process running for 4.9)")
	}
	d.sql(h, "shop", "shop", "ALTER TABLE items ADD COLUMN colour VARCHAR(20)", 0)
	d.sql(h, "shop", "shop", "DROP TABLE IF EXISTS tmp_items", 0)
	event := d.between(h, d.event(h, pipeline.Dataset_MYSQL), "shop", "db", 3306)
	event.Mysql = &pipeline.MySQLCommand{Command: "COM_CONNECT", UserName: "shop", Database: "shop"}
	event.Outcome = pipeline.Outcome_SUCCESS
	d.emit(event)
	d.redis(h, "shop", "FLUSHDB")
}
