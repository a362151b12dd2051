package redact

import "bytes"

// A redisState is the meaning of the next argument.
type redisState uint8

const (
	redisPlain       redisState = iota
	redisSecret                 // a password
	redisUser                   // a user's name, a password follows
	redisRules                  // ACL SETUSER: a rule, which may be a password
	redisSetting                // CONFIG SET: the name of a setting, its value follows
	redisSecretValue            // the value of a secret setting
	redisPlainValue             // the value of another setting
	redisOptions                // an option; a password follows AUTH
	redisUnknown                // after a lost argument, which may have been an option: treated as a secret
	redisKey                    // the key of a command with values
	redisField                  // HSET: the name of a field, its value follows
	redisFieldValue             // the value of a field that is no secret
	redisFieldSecret            // the value of a field that is one
	redisSeconds                // SETEX: a number, the value follows
	redisValue                  // a value under a key that is the name of a secret
)

// RedisArguments decides how much of each argument of a Redis command is secret: the passwords of AUTH, HELLO,
// MIGRATE and ACL SETUSER, the values of secret settings (CONFIG SET, SENTINEL SET), and the values of fields
// and keys with the names of secrets (HSET user password …, SETEX token:1 60 …). It does not allocate.
type RedisArguments struct {
	state   redisState
	command redisCommand
	first   bool // the next argument is the first
}

// A redisCommand is one of the commands with secrets.
type redisCommand uint8

const (
	otherCommand redisCommand = iota
	authCommand
	helloCommand
	migrateCommand
	setUserCommand
	configSetCommand
	sentinelCommand
	hashCommand  // HSET: key, then fields with their values
	setCommand   // SET: key, value
	listCommand  // LPUSH: key, values
	setexCommand // SETEX: key, seconds, value
	msetCommand  // MSET: keys with their values
)

// MaxRedisWord is the number of bytes of an argument that Next reads.
const MaxRedisWord = 64

// Begin starts a command. command is its name in upper case, with the subcommand if there is one ("CONFIG
// SET"). words is the number of words of the command, with its name.
func (r *RedisArguments) Begin(command string, words int64) {
	*r = RedisArguments{first: true}
	switch command {
	case "AUTH":
		r.command, r.state = authCommand, redisSecret
		if words > 2 {
			r.state = redisUser
		}
	case "HELLO":
		r.command, r.state = helloCommand, redisOptions
	case "MIGRATE":
		r.command, r.state = migrateCommand, redisOptions
	case "ACL SETUSER":
		r.command, r.state = setUserCommand, redisRules
	case "CONFIG SET":
		r.command, r.state = configSetCommand, redisSetting
	case "SENTINEL SET", "SENTINEL CONFIG":
		r.command, r.state = sentinelCommand, redisSetting
	case "HSET", "HMSET", "HSETNX", "HSETEX":
		r.command, r.state = hashCommand, redisKey
	case "SET", "SETNX", "GETSET", "APPEND":
		r.command, r.state = setCommand, redisKey
	case "LPUSH", "RPUSH", "LPUSHX", "RPUSHX", "SADD":
		r.command, r.state = listCommand, redisKey
	case "SETEX", "PSETEX":
		r.command, r.state = setexCommand, redisKey
	case "MSET", "MSETNX":
		r.command, r.state = msetCommand, redisField
	}
}

// Next reads the next argument, or its front, and returns how many of its first bytes are not secret, or −1 if
// none is secret. damaged reports that bytes of the argument were lost.
func (r *RedisArguments) Next(argument []byte, damaged bool) (visible int) {
	if r.state == redisPlain {
		return -1
	}
	return r.next(argument, damaged)
}

func (r *RedisArguments) next(argument []byte, damaged bool) (visible int) {
	const everything, nothing = -1, 0
	first := r.first
	r.first = false
	if damaged {
		r.state = redisUnknown
	}
	word := argument[:min(len(argument), MaxRedisWord)]
	switch r.state {
	case redisUnknown:
		return nothing
	case redisSecret:
		r.state = redisPlain
		if r.command != authCommand {
			r.state = redisOptions
		}
		return nothing
	case redisUser:
		r.state = redisSecret
	case redisOptions:
		switch {
		case bytes.EqualFold(word, []byte("AUTH")):
			r.state = redisSecret
			if r.command == helloCommand {
				r.state = redisUser
			}
		case bytes.EqualFold(word, []byte("AUTH2")):
			r.state = redisUser
		}
	case redisRules:
		if len(word) > 1 && (word[0] == '>' || word[0] == '<' || word[0] == '#' || word[0] == '!') {
			return 1 // the first byte is the kind of password
		}
	case redisSetting:
		r.state = redisPlainValue
		if SecretSetting(word) {
			r.state = redisSecretValue
		} else if r.command == sentinelCommand && first {
			r.state = redisSetting // the name of the master, or the word SET
		}
	case redisSecretValue:
		r.state = redisSetting
		return nothing
	case redisKey:
		r.readKey(word)
	case redisField:
		if r.state = redisFieldValue; SecretName(word) {
			r.state = redisFieldSecret
		}
	case redisFieldValue:
		r.state = redisField
	case redisFieldSecret:
		r.state = redisField
		return nothing
	case redisSeconds:
		r.state = redisValue
	case redisValue:
		if r.command != listCommand {
			r.state = redisPlain
		}
		return nothing
	case redisPlainValue:
		r.state = redisSetting
	}
	return everything
}

// readKey sets the state behind the key of a command with values.
func (r *RedisArguments) readKey(key []byte) {
	switch {
	case r.command == hashCommand:
		r.state = redisField
	case !SecretName(key):
		r.state = redisPlain
	case r.command == setexCommand:
		r.state = redisSeconds
	default:
		r.state = redisValue
	}
}

// RedisError returns an error message of a Redis server without quoted arguments, and reports whether there
// were any.
func (r *Redactor) RedisError(message []byte) ([]byte, bool) {
	const words = "with args beginning with:"
	i := bytes.Index(message, []byte(words))
	if i < 0 || i+len(words) >= len(message) {
		return message, false
	}
	r.out = append(append(r.out[:0], message[:i+len(words)]...), " "+Marker...)
	return r.out, true
}
