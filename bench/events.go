package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"tidegate/pipeline"
)

// mixedEvents returns n events as a collector ships them: 35 % HTTP, 15 % DNS, 15 % sessions, 15 % log lines,
// 10 % MySQL, 10 % Redis. Containers and host belong to the batch.
func mixedEvents(n int) []*pipeline.Event {
	rng := rand.New(rand.NewPCG(5, 5))
	now := time.Now().UnixNano()
	out := make([]*pipeline.Event, n)
	for i := range out {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 18, byte(rng.IntN(4)), byte(2 + rng.IntN(250))}), uint16(32768+rng.IntN(28000)))
		server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + rng.IntN(20))}), 80)
		event := &pipeline.Event{
			Id: binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, rng.Uint64()), uint64(i)), Timestamp: now - rng.Int64N(1e9),
			Duration: rng.Uint64N(5e7), Outcome: pipeline.Outcome_SUCCESS, Interfaces: []string{"docker0"}, ContainerIndex: 1 + rng.Uint32N(20),
		}
		fillBody(event, rng)
		if event.Dataset != pipeline.Dataset_LOG {
			if event.Transport = pipeline.Transport_TCP; event.Dataset == pipeline.Dataset_DNS {
				event.Transport = pipeline.Transport_UDP
			}
			id := pipeline.CommunityID(event.Transport, client, server)
			event.CommunityId = id[:]
			event.Source = &pipeline.Endpoint{Ip: client.Addr().AsSlice(), Port: uint32(client.Port()), Bytes: rng.Uint64N(2000)}
			event.Destination = &pipeline.Endpoint{Ip: server.Addr().AsSlice(), Port: uint32(server.Port()), Bytes: rng.Uint64N(60000), ContainerIndex: event.ContainerIndex}
		}
		out[i] = event
	}
	return out
}

func fillBody(event *pipeline.Event, rng *rand.Rand) {
	switch k := rng.IntN(20); {
	case k < 7:
		event.Dataset = pipeline.Dataset_HTTP
		path, query := fmt.Sprintf("/catalog/items/%d", rng.IntN(5000)), fmt.Sprintf("page=%d&sort=price&session=%08x", rng.IntN(20), rng.Uint32())
		event.Http = &pipeline.HTTPExchange{
			Version: "1.1", Method: "GET", UrlOriginal: path + "?" + query, UrlPath: path, UrlQuery: query, UrlDomain: "shop.example.com",
			UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", StatusCode: 200, StatusPhrase: "OK",
			ResponseMimeType: "text/html", ResponseBodyBytes: rng.Uint64N(60000), Server: "nginx", RequestHeaderBytes: 400, ResponseHeaderBytes: 200,
		}
	case k < 10:
		event.Dataset = pipeline.Dataset_DNS
		name := fmt.Sprintf("cdn%d.images.example.net", rng.IntN(900))
		event.Dns = &pipeline.DNSMessage{
			Type: "answer", Id: rng.Uint32N(65536), OpCode: "QUERY", QuestionName: name, QuestionType: "A", QuestionClass: "IN", ResponseCode: "NOERROR",
			HeaderFlags: []string{"RD", "RA"}, AnswersCount: 1, AnswersName: []string{name}, AnswersType: []string{"A"}, AnswersData: []string{"203.0.113.9"},
			AnswersTtl: []uint32{60}, ResolvedIp: []string{"203.0.113.9"}, RegisteredDomain: "example.net",
		}
	case k < 13:
		event.Dataset = pipeline.Dataset_SESSION
		event.Session = &pipeline.Session{History: "ShADadFf", State: "fin", RttClient: rng.Uint64N(1e6), RttServer: rng.Uint64N(1e6), ResponseTime: rng.Uint64N(1e7), DirectionConfidence: 100, Protocol: "http"}
	case k < 16:
		event.Dataset = pipeline.Dataset_LOG
		event.Log = &pipeline.LogLine{
			Message: fmt.Sprintf("2026-03-01T12:%02d:%02d.123Z INFO order %d accepted from customer %d in %d ms", rng.IntN(60), rng.IntN(60), rng.IntN(99999), rng.IntN(9999), rng.IntN(300)),
			Stream:  "stderr", Path: "/var/lib/docker/containers/ab/ab-json.log", Offset: rng.Uint64N(1e9), Bytes: 90, Level: "info",
		}
	case k < 18:
		event.Dataset = pipeline.Dataset_MYSQL
		event.Mysql = &pipeline.MySQLCommand{
			Command: "COM_QUERY", Method: "SELECT", Rows: rng.Uint64N(40), Columns: 4, Database: "shop", UserName: "shop",
			Query: fmt.Sprintf("SELECT id, name, price, stock FROM items WHERE category = %d AND price < %d ORDER BY price LIMIT 40", rng.IntN(90), rng.IntN(900)),
		}
	default:
		event.Dataset = pipeline.Dataset_REDIS
		key := fmt.Sprintf("cart:%d", rng.IntN(5000))
		event.Redis = &pipeline.RedisCommand{Command: "GET", Key: key, Args: []string{key}, ArgsCount: 1, ArgsBytes: 9, ReplyType: "bulk_string", ReplyBytes: rng.Uint64N(500)}
	}
}

// encodeBatches encodes events as batches of one producer epoch, perBatch events in each. The batches go to
// the partitions in turn.
func encodeBatches(events []*pipeline.Event, perBatch int) (values [partitions][][]byte, err error) {
	var sequence [partitions]uint64
	for i := 0; i < len(events); i += perBatch {
		p := i / perBatch % partitions
		sequence[p]++
		batch := &pipeline.Batch{
			Schema: pipeline.Schema, Collector: make([]byte, 16), Epoch: 1, Partition: uint32(p), Sequence: sequence[p], Shipped: time.Now().UnixNano(),
			Host: &pipeline.Host{Name: "bench", Id: "00112233445566778899aabbccddeeff"}, Containers: containers[:20], Events: events[i:min(i+perBatch, len(events))],
		}
		data, err := batch.MarshalVT()
		if err != nil {
			return values, err
		}
		values[p] = append(values[p], data)
	}
	return values, nil
}
