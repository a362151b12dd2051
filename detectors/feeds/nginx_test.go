package feeds

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
)

const nginxConfig = `user root; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err; daemon off; master_process off; events {}
http {
 log_format oracle '$request_uri $status etag="$http_if_none_match" since="$http_if_modified_since" range="$http_range" user="$remote_user" referer="$http_referer"';
 access_log %[1]s/access.log oracle;
 client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
 types { text/plain txt; application/gzip gz; text/html html; }
 server { listen 127.0.0.1:%[2]d; root %[1]s/www;
  location /zip/ { alias %[1]s/www/; gzip on; gzip_types text/plain; gzip_min_length 1; }
  location /noetag/ { alias %[1]s/www/; etag off; }
  location /slow/ { alias %[1]s/www/; limit_rate 100; }
  location /moved { return 302 /list.txt; }
  location /away { return 302 http://169.254.169.254/latest/; }
  location /broken { return 503; }
 }
}
`

// A nginx is a real server, whose log says what it was asked and what it answered.
type nginx struct {
	*testing.T
	dir     string
	port    int
	cfg     Config
	entries int // lines of the log that were read
}

func startNginx(t *testing.T) *nginx {
	if testing.Short() {
		t.Skip("it starts nginx")
	}
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("nginx is not installed; deploy/setup-test.sh installs it")
	}
	n := &nginx{T: t, dir: t.TempDir()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.port = listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	if err := os.Mkdir(filepath.Join(n.dir, "www"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConfig, n.dir, n.port), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(path, "-c", conf, "-e", filepath.Join(n.dir, "nginx.err"))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = server.Wait(); close(exited) }()
	t.Cleanup(func() { _ = server.Process.Kill(); <-exited })
	for {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.port)); err == nil {
			_ = conn.Close()
			break
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(filepath.Join(n.dir, "nginx.err"))
			t.Fatalf("nginx ends: %s", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	n.cfg = Config{Name: "f", Path: filepath.Join(n.dir, "state", "f.feed")}
	return n
}

// put writes a file of the server, with a modification time.
func (n *nginx) put(name, text string, modified time.Time) {
	n.Helper()
	path := filepath.Join(n.dir, "www", name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		n.Fatal(err)
	}
	if err := os.Chtimes(path+".new", modified, modified); err != nil {
		n.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		n.Fatal(err)
	}
}

// update downloads once and checks the error, the indicators of the file, and what the server logged of each request: its path
// and status, and after ? which conditions it had.
func (n *nginx) update(path, wantErr string, indicators int, wantLog ...string) {
	n.Helper()
	n.cfg.URL = fmt.Sprintf("http://reader:secret@127.0.0.1:%d%s", n.port, path)
	err := (&download{cfg: n.cfg, log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry())}).update(n.Context())
	if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
		n.Errorf("%s: error %v, want %q", path, err, wantErr)
	}
	set, _, err := Load(n.Context(), []Config{{Name: "f", Path: n.cfg.Path}})
	if err != nil || set.Len() != indicators {
		n.Errorf("%s: %v; %d indicators, want %d", path, err, set.Len(), indicators)
	}
	var got []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // a request is logged after its answer
		text, _ := os.ReadFile(filepath.Join(n.dir, "access.log"))
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) >= n.entries+len(wantLog) || time.Now().After(deadline) {
			lines = lines[n.entries:]
			n.entries += len(lines)
			for _, line := range lines {
				fields := strings.SplitN(line, " ", 3)
				entry := fields[0] + " " + fields[1]
				if !strings.Contains(line, `etag="-"`) {
					entry += " etag"
				}
				if !strings.Contains(line, `since="-"`) {
					entry += " since"
				}
				if !strings.HasSuffix(line, `range="-" user="reader" referer="-"`) {
					n.Errorf("the server was asked %s", line)
				}
				got = append(got, entry)
			}
			break
		}
	}
	if !slices.Equal(got, wantLog) {
		n.Errorf("%s: the server logged %q, want %q", path, got, wantLog)
	}
}

// TestDownloadsFromNginx: what is asked again is answered with 304, whatever nginx does to the ETag; a file with another content
// or time is sent; no part of a file is asked for; errors and redirects leave the file as it was.
func TestDownloadsFromNginx(t *testing.T) {
	n := startNginx(t)
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	n.put("list.txt", names("a", 20), at)
	n.update("/list.txt", "", 20, "/list.txt 200")
	n.update("/list.txt", "", 20, "/list.txt 304 etag since")
	n.put("list.txt", names("b", 20), at.Add(time.Second)) // of the same size
	n.update("/list.txt", "", 20, "/list.txt 200 etag since")
	if text, _ := os.ReadFile(n.cfg.Path); string(text) != names("b", 20) {
		t.Errorf("the file has %.30q", text)
	}
	n.put("list.txt", names("b", 30), at) // older, and longer
	n.update("/list.txt", "", 30, "/list.txt 200 etag since")
	n.update("/list.txt", "", 30, "/list.txt 304 etag since")

	// nginx marks the ETag of what it compresses as weak, and has none at all.
	n.update("/zip/list.txt", "", 30, "/zip/list.txt 200")
	n.update("/zip/list.txt", "", 30, "/zip/list.txt 304 etag since")
	n.update("/noetag/list.txt", "", 30, "/noetag/list.txt 200")
	n.update("/noetag/list.txt", "", 30, "/noetag/list.txt 304 since")
	n.put("list.gz", string(zip(names("c", 40))), at)
	n.update("/list.gz", "", 40, "/list.gz 200")
	n.update("/list.gz", "", 40, "/list.gz 304 etag since")

	// A file that was changed here is asked for whole.
	if err := os.WriteFile(n.cfg.Path, []byte(names("x", 39)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.update("/list.gz", "", 40, "/list.gz 200")

	n.update("/moved", "", 30, "/moved 302", "/list.txt 200")
	n.update("/moved", "", 30, "/moved 302 etag since", "/list.txt 304 etag since")
	n.update("/away", "169.254.169.254, which is not on the Internet: link-local", 30, "/away 302")
	n.update("/broken", "503 Service Unavailable", 30, "/broken 503")
	n.update("/gone.txt", "404 Not Found", 30, "/gone.txt 404")
	n.put("page.html", errorPage, at)
	n.update("/page.html", "web page", 30, "/page.html 200")
	n.cfg.MaxSize = 100
	n.update("/list.txt", "more than 100 bytes", 30, "/list.txt 200")
	n.cfg.MaxSize, n.cfg.MaxUnpackedSize = 0, 100
	n.update("/list.gz", "more than 100 bytes, decompressed", 30, "/list.gz 200")
	n.cfg.MaxUnpackedSize = config.MiB
	n.cfg.Timeout = 300 * time.Millisecond
	n.update("/slow/list.txt", "deadline exceeded", 30, "/slow/list.txt "+fmt.Sprint(http.StatusOK))
}
