package redact

// A tokenForm says which characters stand behind the prefix of a token.
type tokenForm uint8

const (
	wordForm   tokenForm = iota // letters, digits, - and _
	dottedForm                  // the same, and dots between them
	hexForm                     // hexadecimal digits in lower case, and nothing behind them
)

// A prefix begins a token of a known service.
type prefix struct {
	text string
	min  int // minimum number of characters behind the prefix
	form tokenForm
}

// prefixes are the fronts of tokens, as their services document them and secret scanners know them.
var prefixes = [...]prefix{
	// Forges and registries of packages and images.
	{"ghp_", 8, wordForm},
	{"gho_", 8, wordForm},
	{"ghu_", 8, wordForm},
	{"ghs_", 8, wordForm},
	{"ghr_", 8, wordForm},
	{"github_pat_", 8, wordForm},
	{"glpat-", 8, dottedForm},
	{"gldt-", 8, wordForm},
	{"glrt-", 8, dottedForm},
	{"glrtr-", 8, wordForm},
	{"glsoat-", 8, wordForm},
	{"glptt-", 8, wordForm},
	{"glcbt-", 8, wordForm},
	{"glft-", 8, wordForm},
	{"glimt-", 8, wordForm},
	{"glagent-", 8, wordForm},
	{"gloas-", 8, wordForm},
	{"glffct-", 8, wordForm},
	{"GR1348941", 12, wordForm},
	{"ATATT3", 8, wordForm},
	{"ATCTT3", 8, wordForm},
	{"ATBB", 20, wordForm},
	{"npm_", 20, wordForm},
	{"pypi-", 20, wordForm},
	{"rubygems_", 20, wordForm},
	{"CLOJARS_", 20, wordForm},
	{"dckr_pat_", 8, wordForm},
	{"dckr_oat_", 8, wordForm},
	{"AKCp", 40, wordForm},
	{"cmVmdGtu", 20, wordForm},
	{"sgp_", 20, wordForm},
	{"CCIPAT_", 16, wordForm},
	{"bkua_", 16, wordForm},

	// Clouds and hosting.
	{"AKIA", 12, wordForm},
	{"ASIA", 12, wordForm},
	{"ABIA", 12, wordForm},
	{"ACCA", 12, wordForm},
	{"AIza", 10, wordForm},
	{"ya29.", 16, dottedForm},
	{"GOCSPX-", 8, wordForm},
	{"LTAI", 16, wordForm},
	{"dop_v1_", 16, wordForm},
	{"doo_v1_", 16, wordForm},
	{"dor_v1_", 16, wordForm},
	{"HRKU-", 16, wordForm},
	{"fm1_", 20, wordForm},
	{"fm2_", 20, wordForm},
	{"fo1_", 20, wordForm},
	{"pul-", 20, wordForm},
	{"hvs.", 12, wordForm},
	{"hvb.", 12, wordForm},
	{"hvr.", 12, wordForm},
	{"tskey-", 8, wordForm},
	{"dapi", 32, hexForm},
	{"dp.pt.", 16, wordForm},
	{"dp.st.", 16, dottedForm},
	{"dp.ct.", 16, wordForm},
	{"pscale_tkn_", 16, dottedForm},
	{"pscale_pw_", 16, dottedForm},
	{"pscale_oauth_", 16, dottedForm},
	{"sbp_", 20, wordForm},
	{"sb_secret_", 8, wordForm},
	{"nfp_", 20, wordForm},
	{"mdb_sa_sk_", 16, wordForm},
	{"ops_eyJ", 20, wordForm},

	// Models.
	{"sk-ant-", 8, wordForm},
	{"sk-proj-", 8, wordForm},
	{"sk-svcacct-", 8, wordForm},
	{"sk-or-v1-", 8, wordForm},
	{"sk-", 20, wordForm},
	{"hf_", 20, wordForm},
	{"gsk_", 20, wordForm},
	{"pplx-", 20, wordForm},
	{"xai-", 20, wordForm},
	{"r8_", 20, wordForm},

	// Messages and mail.
	{"xoxa-", 8, wordForm},
	{"xoxb-", 8, wordForm},
	{"xoxc-", 8, wordForm},
	{"xoxd-", 8, wordForm},
	{"xoxo-", 8, wordForm},
	{"xoxp-", 8, wordForm},
	{"xoxr-", 8, wordForm},
	{"xoxs-", 8, wordForm},
	{"xoxe-", 8, wordForm},
	{"xapp-", 8, wordForm},
	{"SG.", 16, dottedForm},
	{"key-", 32, hexForm},
	{"xkeysib-", 16, wordForm},
	{"xsmtpsib-", 16, wordForm},

	// Payments and shops.
	{"sk_live_", 6, wordForm},
	{"sk_test_", 6, wordForm},
	{"rk_live_", 6, wordForm},
	{"rk_test_", 6, wordForm},
	{"whsec_", 8, wordForm},
	{"rzp_live_", 10, wordForm},
	{"shpat_", 8, wordForm},
	{"shpss_", 8, wordForm},
	{"shpca_", 8, wordForm},
	{"shppa_", 8, wordForm},
	{"sq0atp-", 16, wordForm},
	{"sq0csp-", 16, wordForm},
	{"shippo_live_", 16, wordForm},
	{"FLWSECK_TEST-", 12, wordForm},
	{"FLWSECK-", 12, wordForm},
	{"duffel_live_", 16, wordForm},

	// Monitoring, documents, work.
	{"glsa_", 12, wordForm},
	{"glc_", 20, wordForm},
	{"NRAK-", 8, wordForm},
	{"NRJS-", 8, wordForm},
	{"NRII-", 8, wordForm},
	{"NRIQ-", 8, wordForm},
	{"sntrys_", 20, wordForm},
	{"sntryu_", 20, wordForm},
	{"dt0c01.", 16, dottedForm},
	{"dt0s01.", 16, dottedForm},
	{"hcaik_", 16, wordForm},
	{"hcxik_", 16, wordForm},
	{"ntn_", 16, wordForm},
	{"secret_", 16, wordForm},
	{"lin_api_", 12, wordForm},
	{"lin_oauth_", 16, wordForm},
	{"figd_", 12, wordForm},
	{"PMAK-", 20, wordForm},
	{"rdme_", 20, wordForm},
	{"pnu_", 20, wordForm},
	{"tfp_", 20, dottedForm},
	{"CFPAT-", 20, wordForm},
	{"aio_", 20, wordForm},
	{"fio-u-", 20, wordForm},
	{"tk-us-", 20, wordForm},
	{"ddp_", 20, wordForm},
	{"AQVN", 20, wordForm},
	{"EAACEdEose0cBA", 8, wordForm},
	{"EAAG", 30, wordForm},
	{"vcp_", 20, wordForm},
	{"rnd_", 20, wordForm},
	{"1//0", 30, wordForm},
	{"amzn.mws.", 20, wordForm},
	{"pat-na1-", 20, wordForm},
	{"pat-eu1-", 20, wordForm},
	{"AGE-SECRET-KEY-", 8, wordForm},
	{"SWMTKN-", 16, wordForm},
}

// prefixesBy has the prefixes by their last byte.
var prefixesBy = func() (by [256][]int) {
	for i, p := range prefixes {
		last := p.text[len(p.text)-1]
		by[last] = append(by[last], i)
	}
	return by
}()

// prefixPairs has, for each byte, the bytes in front of it at the end of a prefix, as bits.
var prefixPairs = func() (pairs [128][2]uint64) {
	for _, p := range prefixes {
		last, before := p.text[len(p.text)-1], p.text[len(p.text)-2]
		pairs[last][before>>6] |= 1 << (before & 63)
	}
	return pairs
}()

// mayEndPrefix reports whether a prefix may end with text[pos], by that byte and the one before it.
func mayEndPrefix(text []byte, pos int) bool {
	if pos < 1 || text[pos] >= 128 || text[pos-1] >= 128 {
		return false
	}
	before := text[pos-1]
	return prefixPairs[text[pos]][before>>6]&(1<<(before&63)) != 0
}

// isTokenChar reports whether c may stand in a token of base64, base64url or hexadecimal digits.
func isTokenChar(c byte) bool {
	return folded[c] > separator || c == '-' || c == '_'
}

// tokenBehind reports whether a token whose prefix begins at pos is in text.
func tokenBehind(text []byte, pos int) bool {
	if pos > 0 && isTokenChar(text[pos-1]) {
		return false
	}
	for i := range prefixes {
		known := prefixes[i].text
		if len(text)-pos > len(known) && string(text[pos:pos+len(known)]) == known {
			if _, to := prefixAt(text, pos+len(known)-1); to > 0 {
				return true
			}
		}
	}
	return false
}

// prefixAt returns the token whose prefix ends with text[pos]: where it begins and ends; to is 0 if there is none.
func prefixAt(text []byte, pos int) (from, to int) {
	if !mayEndPrefix(text, pos) {
		return 0, 0
	}
	for _, i := range prefixesBy[text[pos]] {
		known := &prefixes[i]
		from = pos + 1 - len(known.text)
		if from < 0 || string(text[from:pos+1]) != known.text || from > 0 && isTokenChar(text[from-1]) {
			continue
		}
		if to = known.tokenEnd(text, pos+1); to-pos-1 >= known.min {
			return from, to
		}
	}
	return 0, 0
}

// tokenEnd returns the end of the characters from pos on that stand behind the prefix, or pos if they do not have its
// form.
func (p *prefix) tokenEnd(text []byte, pos int) int {
	to := pos
	for to < len(text) && (isTokenChar(text[to]) || p.form == dottedForm && text[to] == '.') {
		if p.form == hexForm && (hexDigit(text[to]) < 0 || text[to] < 'a' && text[to] > '9') {
			return pos
		}
		to++
	}
	for to > pos && text[to-1] == '.' {
		to--
	}
	if p.form == hexForm && to-pos != p.min || areJoinedWords(text[pos:to]) {
		return pos
	}
	return to
}

// areJoinedWords reports whether the text behind a prefix is a name of several words: npm_config_user_agent.
func areJoinedWords(text []byte) bool {
	joined := false
	for _, c := range text {
		if c >= '0' && c <= '9' {
			return false
		}
		joined = joined || c == '_' || c == '-'
	}
	return joined
}
