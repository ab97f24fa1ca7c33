package main

import (
	"slices"
	"strings"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
)

// objectProperties are what an object of each kind can be given, each with its type as QEMU calls it. What we refuse is left out.
var objectProperties = map[string][]string{
	"authz-list":      {"policy=<QAuthZListPolicy>", "rules=<QAuthZListRule>"},
	"authz-list-file": {"filename=<string>", "refresh=<bool>"},
	"authz-simple":    {"identity=<string>"},
	"iothread": {
		"aio-max-batch=<int>", "poll-grow=<int>", "poll-max-ns=<int>", "poll-shrink=<int>", "thread-pool-max=<int>", "thread-pool-min=<int>",
	},
	"main-loop":      {"aio-max-batch=<int>", "thread-pool-max=<int>", "thread-pool-min=<int>"},
	"secret":         {"data=<string>", "file=<string>", "format=<QCryptoSecretFormat>", "iv=<string>", "keyid=<string>"},
	"secret_keyring": {"format=<QCryptoSecretFormat>", "iv=<string>", "keyid=<string>", "serial=<int32_t>"},
	"throttle-group": throttleProperties(),
	"tls-creds-x509": {"dir=<string>", "endpoint=<QCryptoTLSCredsEndpoint>", "passwordid=<string>", "sanity-check=<bool>", "verify-peer=<bool>"},
}

func throttleProperties() []string {
	list := []string{}
	for _, p := range blockcore.ThrottleProperties {
		list = append(list, p.Legacy+"=<int>")
	}
	slices.Sort(list)
	return slices.Insert(list, 0, "limits=<ThrottleLimits>")
}

// objectHelp is what `--object help` and `--object KIND,help` print; "" = the argument asks for no help.
func objectHelp(argument string) string {
	if strings.HasPrefix(argument, "{") {
		return ""
	}
	words := strings.Split(strings.ReplaceAll(argument, ",,", "\x00"), ",") // a comma that is doubled is in a value
	if !slices.ContainsFunc(words, isHelp) {
		return ""
	}
	kind := strings.TrimPrefix(words[0], "qom-type=")
	if properties, known := objectProperties[kind]; known {
		return listing(kind+" options:", properties)
	}
	return listing("List of user creatable objects:", control.ObjectKinds())
}

func isHelp(word string) bool { return word == "help" || word == "?" }

// listing is a head with its lines below it.
func listing(head string, lines []string) string {
	return head + "\n  " + strings.Join(lines, "\n  ") + "\n"
}
