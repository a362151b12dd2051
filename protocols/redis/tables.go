package redis

// containers are the commands whose first argument is a part of their name.
var containers = map[string]bool{
	"ACL": true, "CLIENT": true, "CLUSTER": true, "COMMAND": true, "CONFIG": true, "DEBUG": true,
	"FUNCTION": true, "LATENCY": true, "MEMORY": true, "MODULE": true, "OBJECT": true, "PUBSUB": true,
	"SCRIPT": true, "SENTINEL": true, "SLOWLOG": true, "XGROUP": true, "XINFO": true, "HOTKEYS": true,
}

// settings are those by which an attacker takes the server over, in upper case. In a CONFIG SET of many pairs they
// are kept wherever they stand.
var settings = map[string]bool{
	"DIR": true, "DBFILENAME": true, "APPENDDIRNAME": true, "APPENDFILENAME": true, "APPENDONLY": true, "ACLFILE": true,
	"LOGFILE": true, "PROTECTED-MODE": true, "REQUIREPASS": true, "MASTERAUTH": true, "MASTERUSER": true, "REPLICAOF": true,
	"SLAVEOF": true, "UNIXSOCKET": true, "ENABLE-DEBUG-COMMAND": true, "ENABLE-MODULE-COMMAND": true, "BIND": true,
	"ENABLE-PROTECTED-CONFIGS": true, "SLAVE-READ-ONLY": true, "REPLICA-READ-ONLY": true, "RDBCHECKSUM": true,
}

// keyless are the other commands without a key.
var keyless = map[string]bool{
	"ASKING": true, "AUTH": true, "BGREWRITEAOF": true, "BGSAVE": true, "DBSIZE": true, "DISCARD": true,
	"ECHO": true, "EXEC": true, "FAILOVER": true, "FLUSHALL": true, "FLUSHDB": true, "HELLO": true,
	"INFO": true, "KEYS": true, "LASTSAVE": true, "LOLWUT": true, "MONITOR": true, "MULTI": true,
	"PING": true, "PSUBSCRIBE": true, "PSYNC": true, "PUBLISH": true, "PUNSUBSCRIBE": true, "QUIT": true,
	"RANDOMKEY": true, "READONLY": true, "READWRITE": true, "REPLCONF": true, "REPLICAOF": true,
	"RESET": true, "ROLE": true, "SAVE": true, "SCAN": true, "SELECT": true, "SHUTDOWN": true,
	"SLAVEOF": true, "SPUBLISH": true, "SSUBSCRIBE": true, "SUBSCRIBE": true, "SUNSUBSCRIBE": true,
	"SWAPDB": true, "SYNC": true, "TIME": true, "UNSUBSCRIBE": true, "UNWATCH": true, "WAIT": true,
	"WAITAOF": true,
}

// keys has the position of the first key of each command that has keys. For commands with a number of keys it
// is the position of that number, which the key follows (isKey).
var keys = map[string]keyPosition{
	"APPEND": 1, "BITCOUNT": 1, "BITFIELD": 1, "BITFIELD_RO": 1, "BITOP": 2, "BITPOS": 1, "BLMOVE": 1,
	"BLMPOP": 2, "BLPOP": 1, "BRPOP": 1, "BRPOPLPUSH": 1, "BZMPOP": 2, "BZPOPMAX": 1, "BZPOPMIN": 1,
	"COPY": 1, "DEBUG OBJECT": 2, "DECR": 1, "DECRBY": 1, "DEL": 1, "DUMP": 1, "EVAL": 2, "EVALSHA": 2,
	"EVALSHA_RO": 2, "EVAL_RO": 2, "EXISTS": 1, "EXPIRE": 1, "EXPIREAT": 1, "EXPIRETIME": 1, "FCALL": 2,
	"FCALL_RO": 2, "GEOADD": 1, "GEODIST": 1, "GEOHASH": 1, "GEOPOS": 1, "GEORADIUS": 1,
	"GEORADIUSBYMEMBER": 1, "GEORADIUSBYMEMBER_RO": 1, "GEORADIUS_RO": 1, "GEOSEARCH": 1, "GEOSEARCHSTORE": 1,
	"GET": 1, "GETBIT": 1, "GETDEL": 1, "GETEX": 1, "GETRANGE": 1, "GETSET": 1, "HDEL": 1, "HEXISTS": 1,
	"HEXPIRE": 1, "HEXPIREAT": 1, "HEXPIRETIME": 1, "HGET": 1, "HGETALL": 1, "HGETDEL": 1, "HGETEX": 1,
	"HINCRBY": 1, "HINCRBYFLOAT": 1, "HKEYS": 1, "HLEN": 1, "HMGET": 1, "HMSET": 1, "HPERSIST": 1,
	"HPEXPIRE": 1, "HPEXPIREAT": 1, "HPEXPIRETIME": 1, "HPTTL": 1, "HRANDFIELD": 1, "HSCAN": 1, "HSET": 1,
	"HSETEX": 1, "HSETNX": 1, "HSTRLEN": 1, "HTTL": 1, "HVALS": 1, "INCR": 1, "INCRBY": 1, "INCRBYFLOAT": 1,
	"LCS": 1, "LINDEX": 1, "LINSERT": 1, "LLEN": 1, "LMOVE": 1, "LMPOP": 1, "LPOP": 1, "LPOS": 1, "LPUSH": 1,
	"LPUSHX": 1, "LRANGE": 1, "LREM": 1, "LSET": 1, "LTRIM": 1, "MEMORY USAGE": 2, "MGET": 1, "MIGRATE": 3,
	"MOVE": 1, "MSET": 1, "MSETNX": 1, "OBJECT ENCODING": 2, "OBJECT FREQ": 2, "OBJECT IDLETIME": 2,
	"OBJECT REFCOUNT": 2, "PERSIST": 1, "PEXPIRE": 1, "PEXPIREAT": 1, "PEXPIRETIME": 1, "PFADD": 1,
	"PFCOUNT": 1, "PFDEBUG": 2, "PFMERGE": 1, "PSETEX": 1, "PTTL": 1, "RENAME": 1, "RENAMENX": 1,
	"RESTORE": 1, "RESTORE-ASKING": 1, "RPOP": 1, "RPOPLPUSH": 1, "RPUSH": 1, "RPUSHX": 1, "SADD": 1,
	"SCARD": 1, "SDIFF": 1, "SDIFFSTORE": 1, "SET": 1, "SETBIT": 1, "SETEX": 1, "SETNX": 1, "SETRANGE": 1,
	"SINTER": 1, "SINTERCARD": 1, "SINTERSTORE": 1, "SISMEMBER": 1, "SMEMBERS": 1, "SMISMEMBER": 1,
	"SMOVE": 1, "SORT": 1, "SORT_RO": 1, "SPOP": 1, "SRANDMEMBER": 1, "SREM": 1, "SSCAN": 1, "STRLEN": 1,
	"SUBSTR": 1, "SUNION": 1, "SUNIONSTORE": 1, "TOUCH": 1, "TTL": 1, "TYPE": 1, "UNLINK": 1, "VADD": 1,
	"VSIM": 1, "WATCH": 1, "XACK": 1, "XADD": 1, "XAUTOCLAIM": 1, "XCLAIM": 1, "XDEL": 1, "XGROUP CREATE": 2,
	"XGROUP CREATECONSUMER": 2, "XGROUP DELCONSUMER": 2, "XGROUP DESTROY": 2, "XGROUP SETID": 2,
	"XINFO CONSUMERS": 2, "XINFO GROUPS": 2, "XINFO STREAM": 2, "XLEN": 1, "XPENDING": 1, "XRANGE": 1,
	"XREAD": behindStreams, "XREADGROUP": behindStreams, "XREVRANGE": 1, "XSETID": 1, "XTRIM": 1, "ZADD": 1,
	"ZCARD": 1, "ZCOUNT": 1, "ZDIFF": 1, "ZDIFFSTORE": 1, "ZINCRBY": 1, "ZINTER": 1, "ZINTERCARD": 1,
	"ZINTERSTORE": 1, "ZLEXCOUNT": 1, "ZMPOP": 1, "ZMSCORE": 1, "ZPOPMAX": 1, "ZPOPMIN": 1, "ZRANDMEMBER": 1,
	"ZRANGE": 1, "ZRANGEBYLEX": 1, "ZRANGEBYSCORE": 1, "ZRANGESTORE": 1, "ZRANK": 1, "ZREM": 1,
	"ZREMRANGEBYLEX": 1, "ZREMRANGEBYRANK": 1, "ZREMRANGEBYSCORE": 1, "ZREVRANGE": 1, "ZREVRANGEBYLEX": 1,
	"ZREVRANGEBYSCORE": 1, "ZREVRANK": 1, "ZSCAN": 1, "ZSCORE": 1, "ZUNION": 1, "ZUNIONSTORE": 1,
}

// isCommandName reports whether name, in upper case, is a command of Redis.
func isCommandName(name string) bool {
	if containers[name] || keyless[name] {
		return true
	}
	_, ok := keys[name]
	return ok
}

// typeName returns the value of redis.reply_type for the first byte of a reply.
func typeName(top byte, null bool) string {
	if null {
		return "null"
	}
	switch top {
	case '+':
		return "simple_string"
	case '-':
		return "error"
	case ':':
		return "integer"
	case '$':
		return "bulk_string"
	case '*':
		return "array"
	case '_':
		return "null"
	case '#':
		return "boolean"
	case ',':
		return "double"
	case '(':
		return "big_number"
	case '!':
		return "bulk_error"
	case '=':
		return "verbatim_string"
	case '%':
		return "map"
	case '~':
		return "set"
	case '>':
		return "push"
	}
	return ""
}

// isName reports whether data can be the name of a command: a letter, then letters, digits and the separators
// of modules and subcommands.
func isName(data []byte) bool {
	if len(data) == 0 || len(data) > 64 || !letter(data[0]) {
		return false
	}
	for _, c := range data {
		if !letter(c) && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' && c != '|' {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
