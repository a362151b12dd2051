package redact

import "bytes"

// A redisState is what the arguments so far say of the next one.
type redisState uint8

const (
	redisPlain       redisState = iota
	redisSecret                 // this one is a password
	redisUser                   // this is a user's name, the next one a password
	redisRules                  // ACL SETUSER: rules, of which some are passwords
	redisSetting                // CONFIG SET: this is the name of a setting, its value follows
	redisSecretValue            // … and this is the value of a secret one
	redisPlainValue             // … and this is the value of another
	redisOptions                // options, of which AUTH is followed by a password
	redisUnknown                // a word before was lost that might have announced a password: everything is one
)

// RedisArguments follows the arguments of one command of Redis and decides of each how much of it is a
// secret: the passwords of AUTH, HELLO, MIGRATE, ACL SETUSER, and the values of secret settings (CONFIG SET,
// SENTINEL SET). It holds no memory.
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
)

// MaxRedisWord is how many bytes of an argument Next looks at.
const MaxRedisWord = 64

// Begin begins a command. command is its name in upper case, with its second word where that is a part of it
// ("CONFIG SET"); words is how many words the command has, with its name.
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
	}
}

// Next takes the next argument, or its front, and returns how many of its bytes are no secret: −1 says all.
// damaged says that bytes of the argument were lost.
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
			return 1 // the sign says what kind of password it is
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
	case redisPlainValue:
		r.state = redisSetting
	}
	return everything
}

// RedisError returns an error message of a Redis server without the arguments that it repeats, and reports
// whether it does.
func (r *Redactor) RedisError(message []byte) ([]byte, bool) {
	const words = "with args beginning with:"
	i := bytes.Index(message, []byte(words))
	if i < 0 || i+len(words) >= len(message) {
		return message, false
	}
	r.out = append(append(r.out[:0], message[:i+len(words)]...), " "+Marker...)
	return r.out, true
}
