package main

import (
	"encoding/json"
	"strings"
)

// limits are those of a group, by property, and as the server told them.
func (m *monitor) limits(group string) (now map[string]int64, raw json.RawMessage, err error) {
	raw, err = m.query("qom-get", map[string]string{"path": groupPath(group), "property": "limits"}, &now)
	return now, raw, err
}

func groupPath(group string) string { return "/objects/" + group }

// completeLimitsOf is completeLimits for a group that is there.
func (m *monitor) completeLimitsOf(group string, set map[string]int64) error {
	if len(set) == 0 {
		return nil
	}
	now, _, err := m.limits(group)
	if err != nil {
		return err
	}
	return completeLimits(now, set)
}

// completeLimits puts what goes with what is taken away beside it - with a limit its burst, with a burst its length, and the size of requests after the last limit on their
// number - and says in the words of the flags what QEMU's errors say in those of a structure. now is what the group has; set is
// what it is to get.
func completeLimits(now, set map[string]int64) error {
	then := func(property string) int64 {
		if n, given := set[property]; given {
			return n
		}
		return now[property]
	}
	counted := int64(0)
	for _, l := range limitNames {
		burst := l.property + "-max"
		if n, given := set[l.property]; given && n == 0 && set[burst] == 0 {
			set[burst] = 0
		}
		if n, given := set[burst]; given && n == 0 {
			set[burst+"-length"] = 1
		}
		switch limit, most := then(l.property), then(burst); {
		case most > 0 && limit == 0:
			return usagef("--%s-burst: a burst goes with a limit in the long run; give --%s too", l.flag, l.flag)
		case most > 0 && most < limit:
			return usagef("--%s %s: its burst would be less, %s; give a larger --%s-burst, or 0 for none", l.flag, amount(l.flag, limit), amount(l.flag, most), l.flag)
		}
		if kind, direction, _ := strings.Cut(l.flag, "-"); direction != "" && then(l.property) > 0 && then(kind+"-total") > 0 {
			return usagef("--%s %s and --%s %s: a limit on reads and writes together excludes those on either; take one away with 0",
				kind, amount(kind, then(kind+"-total")), l.flag, amount(l.flag, then(l.property)))
		}
		if strings.HasPrefix(l.flag, "iops") {
			counted += then(l.property)
		}
	}
	if _, given := set["iops-size"]; !given && counted == 0 && now["iops-size"] > 0 {
		set["iops-size"] = 0
	}
	if counted == 0 && then("iops-size") > 0 {
		return usagef("--iops-size: it goes with a limit on requests, such as --iops")
	}
	return nil
}
