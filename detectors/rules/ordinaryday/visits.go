package ordinaryday

import (
	"fmt"
	"net/url"
	"time"

	"tidegate/pipeline"
)

var agents = []string{
	"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
	"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "curl/8.5.0", "python-requests/2.32.3", "okhttp/4.12.0",
}

// searches are what people look for, with words of SQL, shells and templates among them.
var searches = []string{
	"union select sofa", "1=1", "select * from orders where id = 1", "how to or 1=1 in sql", "student union select committee from london", "python sleep(5)",
	"drop table users", "order by date desc", "'cats' or 'dogs'", "'war and peace' or tolstoy", "O'Reilly and sons", "rock & roll", "c++ && templates",
	"select count(*) from sales group by day", "where 1=1 meaning", "information_schema columns", "insert into vs. replace", "benchmark cpu 2026", "C:\\Windows\\System32",
	"what is ../ in a path", "/etc/hosts file", "wget vs curl", "cat /etc/passwd explained", "docker.sock permission denied", "nsenter tutorial", "{{ page.title }} jekyll",
	"${HOME} variable", "<b>bold</b> html", "price < 100 and price > 10", "javascript: the good parts", "union station; id cards", "exec xp", "load_file mysql",
	"sofa (grey)", "table 120x80", "null pointer", "having a baby; gifts", "169.254.169.254 metadata", "127.0.0.1 vs localhost", "gopher tortoise", "7*7 puzzle", "jndi lookup",
	"group by having count(*) > 1", "cast iron pan", "if(a,b,c) excel", "50% off -- today", "mid century chair", "concat two columns", "sleeping bag", "char siu", "bench mark",
}

// pages are what visitors of the shop and its neighbours ask for; %d is a number.
var pages = []string{
	"/", "/catalog/sofas?page=%d&sort=price", "/item/%d", "/item/%d?color=grey&size=l", "/cart?items=%d", "/static/app.%d.js", "/images/%d.jpg", "/uploads/2026/%d.png",
	"/_next/image?url=https%%3A%%2F%%2Fcdn.example.com%%2F%d.jpg&w=640&q=75", "/go?to=https://partner.example.net/%d", "/login?next=%%2Faccount%%2F%d",
	"/oauth/authorize?client_id=%d&redirect_uri=http://localhost:3000/callback&state=eyJhbGciOiJIUzI1NiJ9", "/favicon.ico?v=%d", "/robots.txt?%d",
	"/articles/../images/%d.png", "/file;jsessionid=%d?id=5;b=2", "/export?format=csv&from=2026-01-01&to=2026-02-01&n=%d",
}

var apis = []string{
	"/api/v1/items/%d", "/api/v1/items?filter=%%7B%%22price%%22%%3A%%7B%%22lt%%22%%3A%d%%7D%%7D", "/api/articles?filters[title][$eq]=x&pagination[page]=%d",
	"/graphql?query=%%7Bitem(id%%3A%d)%%7Bname%%20price%%7D%%7D", "/api/v1/orders?where=status%%3D'open'&limit=%d", "/api/v1/users/%d/sessions", "/api/v2/search?select=id,name&order=price.asc&limit=%d",
	"/rest/v1/items?select=*&id=eq.%d", "/odata/Products?$filter=Price%%20gt%%2020%%20and%%20Price%%20lt%%20%d&$select=Name", "/solr/items/select?q=*:*&rows=%d",
}

// visit emits what one request of a visitor leads to.
func (d *day) visit(h *host) {
	visitor := addr(81+d.rng.IntN(8), d.rng.IntN(250), d.rng.IntN(250), d.rng.IntN(250)).String()
	agent, n := pick(d, agents), d.rng.IntN(90000)
	switch kind := d.rng.IntN(100); {
	case kind < 45:
		d.page(h, visitor, "shop", "shop.example.com", request{method: "GET", target: fmt.Sprintf(pick(d, pages), n), agent: agent, status: pick(d, []uint32{200, 200, 200, 200, 304, 304, 302, 404})})
	case kind < 55:
		target := pick(d, []string{"/search?q=", "/catalog?sort=rank&query=", "/?s="}) + url.QueryEscape(pick(d, searches))
		d.page(h, visitor, "shop", "shop.example.com", request{method: "GET", target: target, agent: agent, referrer: "https://shop.example.com/", status: 200})
	case kind < 65:
		target := "/index.php?title=Special:Search&search=" + url.QueryEscape(pick(d, searches))
		if d.rng.IntN(3) > 0 {
			target = "/wiki/" + url.PathEscape(pick(d, append(searches, "Main_Page", "Category:SQL", "Talk:Union_(set_theory)", "What_is_/etc/passwd", "Help:Math/\\frac{1}{2}")))
		}
		d.page(h, visitor, "wiki", "wiki.example.com", request{method: "GET", target: target, agent: agent, status: 200})
	case kind < 80:
		d.page(h, visitor, "api", "api.example.com", request{
			method: pick(d, []string{"GET", "GET", "POST", "PUT", "DELETE"}), target: fmt.Sprintf(pick(d, apis), n), agent: agent,
			status: pick(d, []uint32{200, 200, 200, 201, 204, 400, 401, 404, 409, 422, 500}),
		})
	case kind < 90:
		d.page(h, visitor, "blog", "blog.example.com", request{
			method: pick(d, []string{"GET", "POST"}), agent: agent, status: 200,
			target: pick(d, []string{"/wp-cron.php?doing_wp_cron=1764240000.1", "/wp-admin/admin-ajax.php", "/wp-json/wp/v2/posts?per_page=10&_fields=id,title", "/2026/11/hello/", "/xmlrpc.php", "/wp-content/uploads/2026/11/a.webp", "/feed/", "/wp-content/plugins/forms/assets/form.php?v=2"}),
		})
	case kind < 94: // a login, with a typing error now and then
		for range d.rng.IntN(3) {
			d.page(h, visitor, "shop", "shop.example.com", request{method: "POST", target: "/login", agent: agent, status: 401})
		}
		d.page(h, visitor, "shop", "shop.example.com", request{method: "POST", target: "/login", agent: agent, status: 302})
	case kind < 97:
		for _, target := range []string{"/org/shop.git/info/refs?service=git-upload-pack", "/org/shop.git/git-upload-pack"} {
			d.page(h, visitor, "git", "git.example.com", request{method: "GET", target: target, agent: "git/2.43.0", status: 200, mime: "application/x-git-upload-pack-advertisement"})
		}
	default: // an upload
		d.page(h, visitor, "shop", "shop.example.com", request{method: "POST", target: fmt.Sprintf("/profile/%d/photo", n), agent: agent, status: 201})
		d.page(h, visitor, "shop", "shop.example.com", request{method: "GET", target: fmt.Sprintf("/uploads/%d.jpg", n), agent: agent, status: 200})
	}
}

// page emits a request by way of the proxy, what the service asks of its databases, and the lines that are logged.
func (d *day) page(h *host, visitor, service, domain string, r request) {
	r.domain = domain
	if r.mime == "" {
		r.mime = pick(d, []string{"text/html", "text/html", "application/json", "image/jpeg", "text/javascript"})
	}
	inner := r
	inner.forwarded = visitor
	d.http(h, "proxy", service, 8080, inner)
	d.http(h, visitor, "proxy", 80, r)
	at := d.now.Format("02/Jan/2006:15:04:05 +0000")
	d.log(h, "proxy", `%s - - [%s] "%s %s HTTP/1.1" %d %d "%s" "%s"`, visitor, at, r.method, r.target, r.status, d.rng.IntN(90000), r.referrer, r.agent)
	if service == "shop" {
		d.log(h, "shop", `{"time":%q,"level":"info","method":%q,"uri":%q,"status":%d,"ms":%d}`, d.now.Format(time.RFC3339Nano), r.method, r.target, r.status, d.rng.IntN(400))
	}
	switch d.rng.IntN(6) {
	case 0:
		d.sql(h, service, service, fmt.Sprintf("SELECT id, name, price FROM items WHERE category = %d AND 1=1 AND state = 'open' ORDER BY price LIMIT 20", d.rng.IntN(90)), 20)
	case 1:
		d.sql(h, service, service, fmt.Sprintf("SELECT i.id FROM items i WHERE MATCH(i.title) AGAINST ('%s') UNION ALL SELECT a.id FROM archive a WHERE a.id = %d", "sofa or chair", d.rng.IntN(900)), 7)
	case 2:
		d.redis(h, service, "GET", fmt.Sprintf("session:%08x", d.rng.Uint32()))
		d.redis(h, service, "SETEX", fmt.Sprintf("page:%d", d.rng.IntN(900)), "60", "<html>")
	case 3:
		d.sql(h, service, service, fmt.Sprintf("UPDATE sessions SET seen = NOW() WHERE id = '%08x'", d.rng.Uint32()), 0)
	case 4:
		event := d.between(h, d.event(h, pipeline.Dataset_MEMCACHED), service, "sessions", 11211)
		event.Memcached = &pipeline.MemcachedCommand{Command: "get", Key: fmt.Sprintf("s:%d", d.rng.IntN(9000)), KeysCount: 1, Hits: 1, Status: "END"}
		d.emit(event)
	default:
		d.tls(h, service, pick(d, []string{"api.stripe.com", "api.paypal.com", "sentry.io", "storage.googleapis.com", "s3.eu-central-1.amazonaws.com", "fonts.gstatic.com"}), 1800, 4200)
	}
	if d.rng.IntN(60) == 0 { // an error of the program, with its trace
		for _, line := range trace {
			d.log(h, service, "%s", line)
		}
	}
}

var trace = []string{
	"2026-11-27 10:00:00.123 ERROR [http-nio-8080-exec-7] c.e.s.Orders : could not load order", "org.springframework.dao.DataAccessResourceFailureException: Unable to acquire JDBC Connection",
	"\tat org.springframework.orm.jpa.vendor.HibernateJpaDialect.convertHibernateAccessException(HibernateJpaDialect.java:290)", "\tat java.base/java.io.ObjectInputStream.readObject(ObjectInputStream.java:460)",
	"\tat com.sun.jndi.ldap.LdapCtx.connect(LdapCtx.java:2895)", "Caused by: java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not available, request timed out after 30000ms.", "\t... 47 more",
}
