// Package demo holds the bundled scenario that `tidegate run --demo` plays: a shop of three containers, one
// of which is broken into. Its files are a capture of the shop's bridge and the log files of the containers.
// The command in the folder generate makes them. event.demo marks every event of the scenario.
//
// cmd/tidegate plays the files through the code that live input takes: the packets of the capture go through
// a session table, and the log lines are written to files that a log source follows.
package demo

import (
	"embed"
	"strings"

	"tidegate/pipeline"
)

//go:generate go run ./generate .

// Files holds shop.pcap and <container name>.log for each container.
//
//go:embed shop.pcap *.log
var Files embed.FS

// FeedDomain is the domain to which the web container connects after the break-in; Feed lists its parent
// domain.
const FeedDomain = "sync.stats-relay.example"

// Feed is a feed of domains and addresses with the scenario's indicators, in the form that docs/OPERATING.md
// describes.
const Feed = `# indicator,confidence,note
stats-relay.example,90,demo: command and control of the bundled scenario
203.0.113.99,80,demo: where it is served
`

// Containers are the containers of the shop: web, cache and database.
var Containers = []*pipeline.Container{
	container("demo-shop-web", "shop/web:1.4", "172.30.0.2", "web"),
	container("demo-shop-cache", "redis:7.2", "172.30.0.3", "cache"),
	container("demo-shop-db", "mariadb:10.11", "172.30.0.4", "database"),
}

// container returns a container of the shop. Its id is recognisable and has the form of an id: 64 hex digits.
func container(name, image, ip, tier string) *pipeline.Container {
	return &pipeline.Container{
		Id: strings.Repeat("de30", 15) + hex4(ip), Name: name, Image: image, Ip: []string{ip}, Demo: true,
		Labels: []*pipeline.Label{{Key: "app", Value: "shop"}, {Key: "tier", Value: tier}},
	}
}

// hex4 returns four hex digits that differ for the addresses of one small network.
func hex4(ip string) string {
	const digits = "0123456789abcdef"
	last := ip[len(ip)-1]
	return "000" + string(digits[last&15])
}
