package redact

import (
	"iter"
	"slices"
	"strings"
)

// A needle is a text without which no pass finds a secret: a part of the names of secrets, the front of a
// token, a command with options for secrets. Needles are in lower case. At most four bytes of it are searched
// for.
type needle struct {
	text string
	kind needleKind
}

// A needleKind says what is examined where a needle is found.
type needleKind uint8

const (
	nameNeedle       needleKind = iota // a part of the names of secrets
	sqlNeedle                          // the same, and a word without which no statement has a secret
	bearerNeedle                       // the word Bearer, a name, too
	basicNeedle                        // the word Basic
	tokenNeedle                        // the front of a token, see prefixes
	jwtNeedle                          // the front of a JSON web token
	pemNeedle                          // base64 of the first line of a private key
	keyNeedle                          // the first line of a private key
	commandNeedle                      // a command, or an option, whose value is a secret
	positionalNeedle                   // a command with a secret among its arguments
	digestNeedle                       // the word Digest
	phraseNeedle                       // words in front of a secret
	pipeNeedle                         // a command that reads a secret
	routineNeedle                      // a routine of SQL, see routines.go
	loginNeedle                        // a word behind which user/password may stand
	connectNeedle                      // a call with a password, see connectCalls
	pathNeedle                         // a segment of a path behind which a secret stands
	redisNeedle                        // the front of a command of Redis, see redisPhrases
	escapeNeedle                       // an escaped character, or a slash in a path
	colourNeedle                       // a colour of a terminal
	entityNeedle                       // a reference to a character, as in XML
	byteNeedle                         // a byte next to which a secret may be: @ % $
)

// needles are all needles but those of prefixes and commands, and rareNeedles.
var needles = [...]needle{
	{"pass", sqlNeedle},
	{"pwd", sqlNeedle},
	{"psw", sqlNeedle},
	{"pw", sqlNeedle},
	{"secret", sqlNeedle},
	{"token", sqlNeedle},
	{"key", sqlNeedle},
	{"cred", sqlNeedle},
	{"auth", sqlNeedle},
	{"crypt", sqlNeedle},
	{"code", sqlNeedle},
	{"identified", sqlNeedle},
	{"otp", sqlNeedle},
	{"jwt", sqlNeedle},
	{"sig", sqlNeedle},
	{"hmac", sqlNeedle},
	{"kennwort", nameNeedle},
	{"psk", nameNeedle},
	{"securestring", nameNeedle},
	{"senha", nameNeedle},
	{"wachtwoord", nameNeedle},
	{"haslo", nameNeedle},
	{"lozinka", nameNeedle},
	{"heslo", nameNeedle},
	{"mdp", nameNeedle},
	{"contrasen", nameNeedle},
	{"losenord", nameNeedle},
	{"salasana", nameNeedle},
	{"adgangskode", nameNeedle},
	{"kodeord", nameNeedle},
	{"sifre", nameNeedle},
	{"jelszo", nameNeedle},
	{"katasandi", nameNeedle},
	{"slaptazodis", nameNeedle},
	{"geslo", nameNeedle},
	{"zaporka", nameNeedle},
	{"parool", nameNeedle},
	{"parola", nameNeedle},
	{"clave", nameNeedle},
	{"losung", nameNeedle},
	{"policy", nameNeedle},
	{"reset=", nameNeedle},
	{"access=", nameNeedle},
	{"appid", nameNeedle},
	{"sas", nameNeedle},
	{"sharedaccess", nameNeedle},
	{"kata sandi", phraseNeedle},
	{"palabra de paso", phraseNeedle},
	{"clave de acceso", phraseNeedle},
	{"parola d'ordine", phraseNeedle},
	{"cook", nameNeedle},
	{"sess", nameNeedle},
	{"sid", nameNeedle},
	{"otc", nameNeedle},
	{"pin", nameNeedle},
	{"puk", nameNeedle},
	{"nonce", nameNeedle},
	{"ticket", nameNeedle},
	{"bearer", bearerNeedle},
	{"basic ", basicNeedle},
	{"assert", nameNeedle},
	{"saml", nameNeedle},
	{"verif", nameNeedle},
	{"mnemonic", nameNeedle},
	{"phrase", nameNeedle},
	{"cvv", nameNeedle},
	{"cvc", nameNeedle},
	{"val", nameNeedle},
	{`"v"`, nameNeedle},
	{`"v\`, nameNeedle},

	{"eyj", jwtNeedle},
	{"ls0tls1crudjti", pemNeedle},
	{"-----begin ", keyNeedle},
	{"--user", commandNeedle},
	{"--proxy-user", commandNeedle},
	{hashesOption, commandNeedle},
	{"digest", digestNeedle},
	{"setuser", phraseNeedle},
	{`"config" "`, phraseNeedle},
	{`"sentinel" "`, phraseNeedle},
	{"on >", phraseNeedle},
	{"off >", phraseNeedle},
	{"identified by", phraseNeedle},
	{"arameters: $", phraseNeedle},
	{":5432:", phraseNeedle},
	{":*:", phraseNeedle},
	{"dockerconfig", nameNeedle},
	{"chpasswd", pipeNeedle},
	{"passwd --stdin", pipeNeedle},
	{"sudo -s", pipeNeedle},
	{"-stdin", pipeNeedle},
	{"cryptsetup", pipeNeedle},
	{"kinit ", pipeNeedle},
	{"--with-token", pipeNeedle},
	{"login", loginNeedle},
	{"signin", routineNeedle},
	{"sign_in", routineNeedle},
	{"authenticate", routineNeedle},
	{"user(", routineNeedle},
	{"user_login", routineNeedle},
	{"register(", routineNeedle},
	{"register_user", routineNeedle},
	{"sp_adduser", routineNeedle},
	{"s3(", routineNeedle},
	{"s3cluster(", routineNeedle},
	{"s3queue(", routineNeedle},
	{"gcs(", routineNeedle},
	{"cosn(", routineNeedle},
	{"oss(", routineNeedle},
	{"hudi(", routineNeedle},
	{"deltalake(", routineNeedle},
	{"iceberg(", routineNeedle},
	{"icebergs3(", routineNeedle},
	{"blobstorage(", routineNeedle},
	{"mysql(", routineNeedle},
	{"postgresql(", routineNeedle},
	{"mongodb(", routineNeedle},
	{"remote(", routineNeedle},
	{"remotesecure(", routineNeedle},
	{"distributed(", routineNeedle},
	{"redis(", routineNeedle},
	{"set_external_", routineNeedle},
	{"logon", loginNeedle},
	{"sqlplus", loginNeedle},
	{"impdp", loginNeedle},
	{"expdp", loginNeedle},
	{`\u`, escapeNeedle},
	{"\x1b[", colourNeedle},
	{"&#", entityNeedle},
	{"&quot;", entityNeedle},
	{"&apos;", entityNeedle},
	{"&lt;", entityNeedle},
	{"&gt;", entityNeedle},
	{"&amp;", entityNeedle},
	{"@", byteNeedle},
	{"%", byteNeedle},
	{"$", byteNeedle},

	{"/bot", pathNeedle},
	{"magic", pathNeedle},
	{"confirm", pathNeedle},
	{"activat", pathNeedle},
	{"invit", pathNeedle},
	{"unsubscribe", pathNeedle},
	{"sso/", pathNeedle},
	{"services/", pathNeedle},
	{"workflows/", pathNeedle},
	{"triggers/", pathNeedle},
	{"hook/", pathNeedle},
	{"hooks/", pathNeedle},
	{"reset/", pathNeedle},
	{`\/bot`, escapeNeedle},
	{`sso\/`, escapeNeedle},
	{`services\/`, escapeNeedle},
	{`workflows\/`, escapeNeedle},
	{`triggers\/`, escapeNeedle},
	{`hook\/`, escapeNeedle},
	{`hooks\/`, escapeNeedle},
	{`reset\/`, escapeNeedle},
}

// rareNeedles are needles of texts that logs seldom have. Their windows are chosen last: those of the others are better then.
var rareNeedles = [...]needle{
	{"unseal key ", phraseNeedle},
	{"recovery key ", phraseNeedle},
	{"__construct(", connectNeedle},
	{"pdo(", connectNeedle},
	{"mysqli(", connectNeedle},
	{"connect(", connectNeedle},
	{"ftp_login(", connectNeedle},
	{"imap_open(", connectNeedle},
	{"ldap_bind(", connectNeedle},
	{"ssh2_auth_password(", connectNeedle},
	{"connection(", connectNeedle},
	{"password_verify(", connectNeedle},
	{"password_hash(", connectNeedle},
	{"crypt(", connectNeedle},
	{"encode(", connectNeedle},
	{"decode(", connectNeedle},
	{"hmac(", connectNeedle},
	{"_bytea(", connectNeedle},
	{"tan=", nameNeedle},
	{"tan:", nameNeedle},
	{"tan ", nameNeedle},
	{"tan\t", nameNeedle},
	{"tan,", nameNeedle},
	{"tan)", nameNeedle},
	{`tan"`, nameNeedle},
	{"tan'", nameNeedle},
	{"tan`", nameNeedle},
	{`tan\`, nameNeedle},
	{"nickserv", phraseNeedle},
	{"ns identify ", phraseNeedle},
	{"pasw", nameNeedle},
	{"pssw", nameNeedle},
	{"loginpas", nameNeedle},
	{"userpas", nameNeedle},
}

// codeOf returns the six bits by which a byte is searched for: the two cases of a letter have one code,
// letters and other bytes different ones. Bytes that are rare in text share a code with others.
func codeOf(c byte) uint32 { return uint32(c&0x1f | c>>1&0x20) }

const (
	codeBits = 6
	anyCode  = 1<<codeBits - 1
	pairBits = 2 * codeBits
	anyPair  = 1<<pairBits - 1
)

// pairsOf returns the pairs of codes of eight bytes, each in sixteen bits.
func pairsOf(word uint64) uint64 {
	const low, high, first = 0x1f1f1f1f1f1f1f1f, 0x2020202020202020, 0x003f003f003f003f
	codes := word&low | word>>1&high
	return codes&first | codes>>2&(first<<codeBits)
}

// numBuckets is the number of groups of windows that are searched for at once.
const numBuckets = 32

// A window is a part of a needle that is searched for: four bytes at an even offset of the text. Bytes before
// or behind the needle may be any.
type window struct {
	codes, mask uint32 // the first byte is in the lowest bits
	needle      *needle
	offset      int // of the window in the needle; −1: any byte is before it
}

// A needleTable finds needles. For each pair of codes it has the buckets of the windows that begin with it
// (the upper half), and of those that end with it (the lower). The windows themselves are found by
// their hash, or, if they have fewer than four bytes of a needle, by their second byte.
type needleTable struct {
	pairs [1 << pairBits]uint64
	whole [1 << hashBits][]window
	short [1 << codeBits][]window
}

const (
	hashBits  = 9
	wholeMask = 1<<(2*pairBits) - 1
)

func windowHash(codes uint32) uint32 { return codes * 0x9E3779B1 >> (32 - hashBits) }

var lineNeedles = newNeedleTable(allNeedles())

// maxFront is the length of the longest front of a token that is a needle.
const maxFront = 8

// allNeedles returns all needles.
func allNeedles() []needle {
	list := needles[:]
	fronts := map[string]bool{}
	for _, known := range prefixes {
		front := lowered(known.text)
		front = front[:min(len(front), maxFront)]
		if !fronts[front] {
			list = append(list, needle{front, tokenNeedle})
		}
		fronts[front] = true
	}
	for i, known := range commands {
		isLonger := slices.ContainsFunc(commands[i+1:], func(other command) bool { return strings.HasPrefix(known.name, other.name) })
		if !isLonger {
			list = append(list, needle{known.name, commandNeedle})
		}
	}
	for i, known := range positionalSecrets {
		if i == 0 || known.command != positionalSecrets[i-1].command {
			list = append(list, needle{known.command, positionalNeedle})
		}
	}
	for _, phrase := range redisPhrases {
		if phrase.front != "user " { // found by its rules
			list = append(list, needle{phrase.front, redisNeedle})
		}
	}
	return append(list, rareNeedles[:]...)
}

// wordsOf returns the needles of these kinds that are parts of names.
func wordsOf(kinds ...needleKind) (list []string) {
	for _, table := range [...][]needle{needles[:], rareNeedles[:]} {
		for _, n := range table {
			if slices.Contains(kinds, n.kind) && n.text[0] != '"' {
				list = append(list, n.text)
			}
		}
	}
	return list
}

func lowered(text string) string {
	out := []byte(text)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] = c | 0x20
		}
	}
	return string(out)
}

// newNeedleTable returns the table of needles. A needle has two windows, for even and for odd offsets. Each
// is the part of the needle, and has the bucket, by which the fewest ordinary texts look like a window and
// are none.
func newNeedleTable(list []needle) *needleTable {
	table, usual := new(needleTable), usualPairs()
	var sums [numBuckets]bucketSums
	for i := range list {
		n := &list[i]
		for parity := range 2 {
			var best window
			bucket, least := numBuckets-1, -1.0
			for offset := -parity; offset < len(n.text)-1; offset += 2 {
				w := n.windowAt(offset)
				for at := range numBuckets - 1 {
					next := table.sumsWith(w, at, sums[at], usual)
					cost := next.first*next.second - sums[at].first*sums[at].second
					if usual.hasWindow(w) {
						cost += usual.all
					}
					if least < 0 || cost < least {
						best, bucket, least = w, at, cost
					}
				}
			}
			if len(n.text) == 1 {
				best, bucket = n.windowAt(-parity), numBuckets-1
			}
			sums[bucket] = table.sumsWith(best, bucket, sums[bucket], usual)
			table.addWindow(best, bucket)
		}
	}
	return table
}

// bucketSums are the frequencies of the pairs with which the windows of a bucket begin, and end.
type bucketSums struct{ first, second float64 }

// sumsWith returns the sums of a bucket, which are sums, after w was added to it.
func (t *needleTable) sumsWith(w window, bucket int, sums bucketSums, usual *pairFrequencies) bucketSums {
	return bucketSums{
		t.sumWith(w.codes, w.mask, uint64(1)<<numBuckets<<bucket, sums.first, usual),
		t.sumWith(w.codes>>pairBits, w.mask>>pairBits, uint64(1)<<bucket, sums.second, usual),
	}
}

// sumWith returns the frequency of the pairs that have bit in the table, which is sum, together with those
// that are equal to codes where mask is set.
func (t *needleTable) sumWith(codes, mask uint32, bit uint64, sum float64, usual *pairFrequencies) float64 {
	if mask&anyPair == 0 {
		return usual.all
	}
	for pair := range pairsLike(codes, mask) {
		if t.pairs[pair]&bit == 0 {
			sum += usual.each[pair]
		}
	}
	return sum
}

// windowAt returns the window at an offset of the needle.
func (n *needle) windowAt(offset int) window {
	w := window{needle: n, offset: offset}
	for i := range 4 {
		if at := offset + i; at >= 0 && at < len(n.text) {
			w.codes |= codeOf(n.text[at]) << (codeBits * i)
			w.mask |= anyCode << (codeBits * i)
		}
	}
	return w
}

// pairsLike returns the pairs of codes that are equal to codes where mask is set.
func pairsLike(codes, mask uint32) iter.Seq[uint32] {
	codes, mask = codes&anyPair, mask&anyPair
	return func(yield func(uint32) bool) {
		// The subsets of the bits that are not in mask, from all to none.
		for free := ^mask & anyPair; yield(codes|free) && free != 0; {
			free = (free - 1) & ^mask & anyPair
		}
	}
}

// addWindow adds a window to a bucket.
func (t *needleTable) addWindow(w window, bucket int) {
	if w.mask == wholeMask {
		hash := windowHash(w.codes)
		t.whole[hash] = append(t.whole[hash], w)
	} else {
		for code := range t.short {
			if (uint32(code)<<codeBits^w.codes)&w.mask&(anyCode<<codeBits) == 0 {
				t.short[code] = append(t.short[code], w)
			}
		}
	}
	for pair := range pairsLike(w.codes, w.mask) {
		t.pairs[pair] |= uint64(1) << numBuckets << bucket
	}
	for pair := range pairsLike(w.codes>>pairBits, w.mask>>pairBits) {
		t.pairs[pair] |= uint64(1) << bucket
	}
}

// usualText has the pairs of ordinary log lines.
const usualText = `172.17.0.1 - - [24/Nov/2026:23:08:00 +0000] "GET /api/v1/items?page=2 HTTP/1.1" 200 5120 "-" "Mozilla/5.0 (X11; Linux x86_64)"
level=info ts=2026-11-24T23:08:00.123Z caller=main.go:42 msg="request done" method=GET path=/healthz status=200 took=1.2ms component=server
2026-11-24 23:08:00.123  INFO 1 --- [nio-8080-exec-1] c.e.OrderService : order 4711 was placed by customer 12 with 3 articles
{"level":"warn","time":1764025680.123,"msg":"cache miss","user":"4711","took":0.0012,"service":"catalog","request_id":"550e8400-e29b-41d4"}
2026/11/24 23:08:00 [error] 12#12: *1 open() "/usr/share/nginx/html/favicon.ico" failed (2: No such file or directory), client: 172.17.0.1
I1124 23:08:00.123456       1 controller.go:5] Starting controller, waiting for caches to sync; node is ready, version 1.29.3 of the scheduler
[2026-11-24 23:08:00,123] WARN [Broker id=1] Partition test-0 marked as failed (kafka.server.ReplicaManager), retrying in 500 milliseconds
Setting up libssl3:amd64 (3.0.11) ... Processing triggers for man-db ... status installed, remove unpacked, configure, upgrade; reading lists
<Debug> executeQuery: Read 1 rows, 1.00 B in 0.001 sec., 1000 rows/sec., memory tracker: Current usage 1.00 MiB, background pool, merge parts
Traceback (most recent call last): File "/app/main.py", line 12, in module; ValueError: invalid literal for int with base 10, connection refused
checking whether the compiler works... yes; loading configuration from /etc/app/config.yml; listening on 0.0.0.0:8080, process exited, shutdown`

// pairFrequencies has the frequency of each pair of codes in ordinary text, and their sum.
type pairFrequencies struct {
	each [1 << pairBits]float64
	all  float64
	four [1 << fourBits / 64]uint64 // hashes of the groups of four bytes in ordinary text
}

const fourBits = 14

// hasWindow reports whether ordinary text has the four bytes of a window, or others with their hash.
func (f *pairFrequencies) hasWindow(w window) bool {
	hash := w.codes * 0x9E3779B1 >> (32 - fourBits)
	return w.mask == wholeMask && f.four[hash>>6]&(1<<(hash&63)) != 0
}

// usualPairs returns how often each pair of codes is in usualText. No pair is impossible.
func usualPairs() *pairFrequencies {
	usual := new(pairFrequencies)
	for pair := range usual.each {
		usual.each[pair] = 0.1
	}
	for i := range len(usualText) - 1 {
		usual.each[codeOf(usualText[i])|codeOf(usualText[i+1])<<codeBits]++
	}
	codes := uint32(0) // of the last four bytes
	for i := range len(usualText) {
		codes = codes>>codeBits | codeOf(usualText[i])<<(3*codeBits)
		hash := codes * 0x9E3779B1 >> (32 - fourBits)
		usual.four[hash>>6] |= 1 << (hash & 63)
	}
	for _, frequency := range usual.each {
		usual.all += frequency
	}
	return usual
}
