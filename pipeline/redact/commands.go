package redact

import (
	"bytes"
	"strings"
)

// A command has options whose value is a secret, and no name says so. Each string has the letters of its
// options.
type command struct {
	name   string
	secret string // -p SECRET, and -pSECRET
	joined string // -pSECRET only
	apart  string // -p SECRET only
	user   string // -u user:SECRET, and -uuser:SECRET
	slash  string // /p:SECRET
	long   string // a long option: --value SECRET

	front     string // the front of an option with the secret: -hpSECRET
	slashWord string // an option of Windows: /rp SECRET
}

// commands are the commands with such options. A blank at the end of a name is one of the text.
var commands = [...]command{
	{name: "mysql", joined: "p"},
	{name: "mariadb", joined: "p"},
	{name: "mytop", joined: "p"},
	{name: "sshpass", secret: "p"},
	{name: "redis-cli", secret: "a"},
	{name: "keydb-cli", secret: "a"},
	{name: "valkey-cli", secret: "a"},
	{name: "redis-benchmark", secret: "a"},
	{name: "curl", user: "uUE"},
	{name: "wget", user: "uU"},
	{name: "smbclient", user: "U"},
	{name: "lftp", user: "u"},
	{name: "http ", user: "au"},
	{name: "xh ", user: "a"},
	{name: "ldapsearch", secret: "w"},
	{name: "ldapmodify", secret: "w"},
	{name: "ldapadd", secret: "w"},
	{name: "ldapwhoami", secret: "w"},
	{name: "ldapdelete", secret: "w"},
	{name: "ldappasswd", secret: "wsa"},
	{name: "mongo", secret: "p"},
	{name: "docker login", secret: "p"},
	{name: "podman login", secret: "p"},
	{name: "nerdctl login", secret: "p"},
	{name: "buildah login", secret: "p"},
	{name: "skopeo login", secret: "p"},
	{name: "oras login", secret: "p"},
	{name: "registry login", secret: "p"}, // helm
	{name: "auth login", secret: "p"},     // crane
	{name: "az login", secret: "p"},
	{name: "oc login", secret: "p"},
	{name: "cf login", secret: "p"},
	{name: "twine upload", secret: "p"},
	{name: "unzip", secret: "P"},
	{name: "zip ", secret: "P"},
	{name: "7z ", joined: "p"},
	{name: "7za", joined: "p"},
	{name: "7zr", joined: "p"},
	{name: "7zz", joined: "p"},
	{name: "unrar", joined: "p"},
	{name: "rar ", joined: "p", front: "-hp"},
	{name: "rpcclient", user: "U"},
	{name: "winexe", user: "U"},
	{name: "crackmapexec", secret: "p"},
	{name: "netexec", secret: "p"},
	{name: "nxc ", secret: "p"},
	{name: "evil-winrm", secret: "p"},
	{name: "hydra", secret: "p"},
	{name: "medusa", secret: "p"},
	{name: "racadm", secret: "p"},
	{name: "knife ", secret: "P"},
	{name: "certutil", secret: "p"},
	{name: "tsql", secret: "P"},
	{name: "vsql", secret: "w"},
	{name: "beeline", secret: "p"},
	{name: "mydumper", secret: "p"},
	{name: "myloader", secret: "p"},
	{name: "couchbase-cli", secret: "p"},
	{name: "arangosh", secret: "p"},
	{name: "glab auth", secret: "t"},
	{name: "rancher login", secret: "t"},
	{name: "ctr ", user: "u"},
	{name: "slappasswd", secret: "s"},
	{name: "doveadm pw", secret: "p"},
	{name: "kadmin", secret: "w"},
	{name: "dsconf", secret: "w"},
	{name: "ldapcompare", secret: "w"},
	{name: "ldapmodrdn", secret: "w"},
	{name: "ldapexop", secret: "w"},
	{name: "keyvault secret set", long: "--value"},
	{name: "hash-password", secret: "p", long: "--plaintext"},
	{name: "security add-", secret: "w"},
	{name: "security unlock-", secret: "p"},
	{name: "ab ", user: "AP"},
	{name: "signtool", slashWord: "/p"},
	{name: "schtasks", slashWord: "/rp"},
	{name: "openssl", apart: "kK"},
	{name: "ssh-keygen", secret: "NP"},
	{name: "sqlcmd", secret: "P"},
	{name: "isql", secret: "P"},
	{name: "bcp ", secret: "P"},
	{name: "cqlsh", secret: "p"},
	{name: "cypher-shell", secret: "p"},
	{name: "mosquitto_", secret: "P"}, //nolint:misspell // the name of a program
	{name: "ipmitool", secret: "P"},
	{name: "snmpwalk", secret: "AXc"},
	{name: "snmpget", secret: "AXc"},
	{name: "snmpset", secret: "AXc"},
	{name: "snmpbulk", secret: "AXc"},
	{name: "snmp", secret: "AX"},
	{name: "useradd", secret: "p"},
	{name: "usermod", secret: "p"},
	{name: "rdesktop", secret: "p"},
	{name: "xfreerdp", slash: "p"},
	{name: "wfreerdp", slash: "p"},
	{name: "ncftp", secret: "p"},
	{name: "psexec", secret: "p"},
	{name: "rabbitmqadmin", secret: "p"},
	{name: "doctl auth", secret: "t"},
	{name: "put-parameter", long: "--value"},
	{name: "secret set", secret: "b", long: "--body"},
}

// commandAt returns the command whose name is at pos, or nil. The name is a word: the name of a user agent,
// curl/8.5.0, is none. The names of tools of databases may have further letters: mysqldump.
func commandAt(text []byte, pos int) *command {
	if before := byteBefore(text, pos); folded[before] > separator || before == '_' || before == '-' {
		return nil
	}
	for _, i := range commandsBy[text[pos]] {
		known := &commands[i]
		end := pos + len(known.name)
		if end > len(text) || string(text[pos:end]) != known.name {
			continue
		}
		for end < len(text) && (isLetter(text[end]) || text[end] == '_' || text[end] == '-') && text[end-1] != ' ' {
			end++
		}
		if end == len(text) || text[end-1] == ' ' || text[end] <= ' ' || isQuote(text[end]) || text[end] == '\\' ||
			text[end] == '.' {
			return known
		}
	}
	return nil
}

// commandsBy has the commands by the first byte of their names.
var commandsBy = func() (by [256][]int) {
	for i, c := range commands {
		by[c.name[0]] = append(by[c.name[0]], i)
	}
	return by
}()

// commandIn returns the last command that a text names, or nil.
func commandIn(text []byte) (last *command) {
	for pos := range text {
		if found := commandAt(text, pos); found != nil {
			last = found
		}
	}
	return last
}

// hasOption reports whether option, the p of -p, is one of the letters.
func hasOption(letters string, option byte) bool { return strings.IndexByte(letters, option) >= 0 }

// isSecretOption reports whether an argument is an option whose value, a secret, is the next argument.
func isSecretOption(text []byte, by *command) bool {
	if len(text) < 2 || text[0] != '-' || optionEnd(text, 0) != len(text) {
		return false
	}
	if len(text) == 2 {
		return by != nil && (hasOption(by.secret, text[1]) || hasOption(by.apart, text[1]))
	}
	return SecretName(text) || isPinOption(text)
}

// userOptions are the long options whose value is user:password.
var userOptions = [...]string{"--user", "--proxy-user", "--creds", "--src-creds", "--dest-creds", "--basic-auth"}

// netUse is a command of Windows, whose options begin with a slash.
const netUse = "net use"

// A positionalSecret is a secret among the arguments of a command that are no options.
type positionalSecret struct {
	command       string
	afterArgument string   // an argument somewhere in front of it; "": there is none
	before        int      // the number of arguments before it, behind that argument
	count         int      // the number of secrets, if there are several
	followedBy    []string // the argument behind them is one of these
	prose         bool     // sentences have the words, too: the argument must look generated
	encoded       bool     // a digit in front of it may say how it is encoded
}

var positionalSecrets = [...]positionalSecret{
	{command: "rabbitmqctl add_user", before: 1},
	{command: "rabbitmqctl change_password", before: 1},
	{command: "rabbitmqctl authenticate_user", before: 1},
	{command: "vault login", prose: true},
	{command: "mc alias set", before: 3},
	{command: "mc config host add", before: 3},
	{command: "wpa_passphrase", before: 1},
	{command: "htpasswd -b", before: 2},
	{command: "htpasswd -nb", before: 1},
	{command: "htpasswd -cb", before: 2},
	{command: "htpasswd -bc", before: 2},
	{command: "htpasswd -bn", before: 1},
	{command: "sentinel auth-pass", before: 1},
	{command: "net user", before: 1, prose: true},
	{command: "db2 connect to", before: 4},
	{command: `db2 "connect to`, before: 4},
	{command: "reset-admin-password"},
	{command: "set-initial-password"},
	{command: "drush upwd", before: 1},
	{command: "drush user:password", before: 1},
	{command: "radtest", before: 1},
	{command: "doveadm auth test", before: 1},
	{command: "samba-tool user create", before: 1, prose: true},
	{command: "samba-tool user add", before: 1, prose: true},
	{command: "etcdctl user add"},
	{command: "ansible-vault encrypt_string"},
	{command: "openssl passwd", prose: true},
	{command: "vault operator unseal", prose: true},
	{command: "vault unseal", prose: true},
	{command: "vault token lookup", prose: true},
	{command: "vault token revoke", prose: true},
	{command: "vault token renew", prose: true},
	{command: "chamber write", before: 2, prose: true},
	{command: "bw unlock", prose: true},
	{command: "cargo login", prose: true},
	{command: "snyk auth", prose: true},
	{command: "snmp-server community", encoded: true},
	{command: "tacacs-server key", encoded: true},
	{command: "radius-server key", encoded: true},
	{command: "iwconfig", afterArgument: "key"},
	{command: "iwconfig", afterArgument: "enc"},
	{command: "qpdf", afterArgument: "--encrypt", count: 2, followedBy: []string{"40", "128", "256"}},
	{command: netUse, prose: true},
	{command: "ConvertTo-SecureString"},
}

// positionalAt returns the command at pos that has a secret among its arguments, and where these begin; nil
// if there is none.
func positionalAt(text []byte, pos int) (found *positionalSecret, arguments int) {
	if folded[byteBefore(text, pos)] > separator {
		return nil, 0
	}
	for i := range positionalSecrets {
		known := &positionalSecrets[i]
		end := pos + len(known.command)
		if end >= len(text) || string(text[pos:end]) != known.command {
			continue
		}
		for end < len(text) && isLetter(text[end]) { // htpasswd -nbB
			end++
		}
		if end == len(text) || text[end] != ' ' {
			continue
		}
		if known.afterArgument == "" {
			return known, end
		}
		if offset := offsetAfterArgument(text, end, known.afterArgument); offset > 0 {
			return known, offset
		}
	}
	return nil, 0
}

// offsetAfterArgument returns the offset behind an argument of a command whose arguments begin at pos; 0: it has no such
// one.
func offsetAfterArgument(text []byte, pos int, argument string) int {
	rest := text[pos:min(len(text), pos+maxPhrase)]
	i := bytes.Index(rest, []byte(" "+argument+" "))
	if i < 0 {
		return 0
	}
	return pos + i + 1 + len(argument)
}

// hidePositional hides the argument that is a secret of the command at pos, and returns the offset at which
// to continue.
func (r *Redactor) hidePositional(v view, pos int) int {
	text := v.text
	known, end := positionalAt(text, pos)
	if known == nil {
		return pos + 1
	}
	share := false    // a share, or the letter of a drive, was read
	isOption := false // the last argument is an option
	for n, limit := 0, end+maxPhrase; end < min(len(text), limit); {
		value := readArgument(text, end)
		end = max(value.next, value.from+1)
		word := value.of(text)
		if len(word) == 0 && !value.quoted || len(word) > 0 && word[0] == '|' {
			break
		}
		wasOption := isOption
		isOption = len(word) > 1 && word[0] == '-' && string(word) != "--"
		if len(word) > 0 && (word[0] == '-' || isSetting(word) ||
			known.command == netUse && (word[0] == '/' || word[0] == '\\' || word[len(word)-1] == ':')) {
			share = share || known.command == netUse && word[0] != '/'
			continue
		}
		if (known.encoded || wasOption) && len(word) == 1 && isDigitAt(word, 0) {
			continue // how the key is encoded, or the value of the option
		}
		if n == known.before && known.count > 1 {
			return r.hideArguments(v, value, known)
		}
		if n == known.before {
			isSecret := !known.prose || share || looksGenerated(word, len("secret"))
			if !isPlaceholder(word) && !isProseWord(word) && isSecret {
				r.hide(v, value.from, value.to, RuleFlag)
			}
			break
		}
		n++
	}
	return end
}

// hideArguments hides the secrets of a command that has several, of which value is the first, and returns the offset at
// which to continue.
func (r *Redactor) hideArguments(v view, value valueRange, known *positionalSecret) int {
	first, text := len(r.spans), v.text
	for range known.count {
		if !isPlaceholder(value.of(text)) {
			r.hide(v, value.from, value.to, RuleFlag)
		}
		value = readArgument(text, value.next)
	}
	if !isOneOf(value.of(text), known.followedBy) {
		r.spans = r.spans[:first]
	}
	return max(value.from, 1)
}

// isSetting reports whether an argument is name=value.
func isSetting(argument []byte) bool {
	i := bytes.IndexByte(argument, '=')
	return i > 0 && i+1 < len(argument) && argument[i+1] != '=' && shapeOf(argument[:i]).letters == i
}

// readArgument returns the argument of a command behind pos. The string that holds the command may end with
// it.
func readArgument(text []byte, pos int) valueRange {
	value := readValue(text, pos, false)
	if !value.quoted {
		value.to = value.from + len(bytes.TrimRight(text[value.from:value.to], "\"'`,]\\"))
	}
	return value
}
