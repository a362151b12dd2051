package redact

import (
	"strings"
	"testing"
)

// TestSecretsInRedisArgumentsAreRedacted: the cases are the commands with a password. "?" stands for an argument
// that has lost bytes.
func TestSecretsInRedisArgumentsAreRedacted(t *testing.T) {
	check := func(command, arguments, want string) {
		t.Helper()
		words := strings.Fields(arguments)
		var redactor RedisArguments
		redactor.Begin(command, int64(len(strings.Fields(command))+len(words)))
		for i, word := range words {
			if keep := redactor.Next([]byte(word), word == "?"); keep >= 0 {
				words[i] = word[:keep] + Marker
			}
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%s %s: %s, want %s", command, arguments, got, want)
		}
	}
	check("AUTH", "pw", "REDACTED")
	check("AUTH", "user pw", "user REDACTED")
	check("HELLO", "3 AUTH user pw SETNAME x", "3 AUTH user REDACTED SETNAME x")
	check("ACL SETUSER", "bob on >pw #abc ~* +@all", "bob on >REDACTED #REDACTED ~* +@all")
	check("CONFIG SET", "maxmemory 1 MasterAuth pw save x", "maxmemory 1 MasterAuth REDACTED save x")
	check("CONFIG SET", "requirepass requirepass maxmemory 1", "requirepass REDACTED maxmemory 1")
	check("CONFIG SET", "tls-key-file-pass pw user bob", "tls-key-file-pass REDACTED user REDACTED")
	check("MIGRATE", "h 6379 k 0 10 COPY AUTH pw", "h 6379 k 0 10 COPY AUTH REDACTED")
	check("MIGRATE", "h 6379 k 0 10 AUTH2 u pw KEYS", "h 6379 k 0 10 AUTH2 u REDACTED KEYS")
	check("SENTINEL SET", "mymaster auth-pass pw", "mymaster auth-pass REDACTED")
	check("HELLO", "3 ? user pw", "3 REDACTED REDACTED REDACTED")
	check("SET", "password x", "password REDACTED")
	check("SET", "user:1 x EX 5", "user:1 x EX 5")
	check("SET", "auth:token:7 x EX 5", "auth:token:7 REDACTED EX 5")
	check("SADD", "valid_tokens:7 x y", "valid_tokens:7 REDACTED REDACTED")
	check("SETEX", "token:1 60 x", "token:1 60 REDACTED")
	check("HSET", "user:1 name bob password x email e", "user:1 name bob password REDACTED email e")
	check("HMSET", "user:1 api_key x age 5", "user:1 api_key REDACTED age 5")
	check("MSET", "a 1 refresh_token:7 x b 2", "a 1 refresh_token:7 REDACTED b 2")
	check("LPUSH", "jobs x y", "jobs x y")
}
