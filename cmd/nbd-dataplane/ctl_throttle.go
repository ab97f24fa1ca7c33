package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/keyval"
)

// limitNames are the limits of a throttle group by the names of their flags, and what QMP calls them.
var limitNames = []struct{ flag, property, what string }{
	{"bps", "bps-total", "bytes a second"},
	{"bps-read", "bps-read", "bytes a second of reads"},
	{"bps-write", "bps-write", "bytes a second of writes"},
	{"iops", "iops-total", "requests a second"},
	{"iops-read", "iops-read", "reads a second"},
	{"iops-write", "iops-write", "writes a second"},
}

// throttleOrder is what the flags ask for.
type throttleOrder struct {
	limits  map[string]*string // by flags
	seconds int64
	group   string
	off     bool
	changed func(flag string) bool
}

func (t *ctl) newThrottle() *cobra.Command {
	o := &throttleOrder{limits: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "throttle EXPORT|GROUP [flags]",
		Short: "Limit how fast clients are, or show the limits",
		Long: "Sets limits on the clients of an export, live: those that are named are changed, the others stay; 0 takes one away,\n" +
			"with its burst. The export gets a throttle group of its own (throttle-EXPORT) unless it is in one or --group names one; exports in one group\n" +
			"share its limits. Without options the limits are shown. --off takes the export out of its group; of a group it takes all\n" +
			"limits away.",
		Example: "  nbd-dataplane ctl throttle root --bps 50M --iops 2000\n" +
			"  nbd-dataplane ctl throttle root --iops 500 --iops-burst 5000 --burst-seconds 10\n" +
			"  nbd-dataplane ctl throttle data --group shared --bps 100M\n" +
			"  nbd-dataplane ctl throttle root --off",
		Args:                  t.args(1, 1, "an export or a throttle group"),
		ValidArgsFunction:     t.completeFirst(exportIDs, throttleGroups),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.throttle(m, args[0], o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	for _, l := range limitNames {
		o.limits[l.flag] = flags.String(l.flag, "", "`N` "+l.what+" in the long run")
	}
	for _, l := range limitNames {
		o.limits[l.flag+"-burst"] = flags.String(l.flag+"-burst", "", "`N` "+l.what+" in bursts")
	}
	flags.Int64Var(&o.seconds, "burst-seconds", 0, "how many `SECONDS` the bursts that are named may last")
	o.limits["iops-size"] = flags.String("iops-size", "", "`SIZE` from which on a request counts as several")
	flags.StringVar(&o.group, "group", "", "put the export into the throttle group of this `NAME`")
	flags.BoolVar(&o.off, "off", false, "no limits any more")
	t.completeFlag(cmd, "group", throttleGroups)
	o.changed = flags.Changed
	return cmd
}

// properties are the limits as QMP wants them.
func (o *throttleOrder) properties() (map[string]int64, error) {
	set := map[string]int64{}
	bursts := false
	put := func(flag, property string) error {
		if !o.changed(flag) {
			return nil
		}
		n, err := rate(flag, *o.limits[flag])
		set[property] = n
		return err
	}
	for _, l := range limitNames {
		if err := put(l.flag, l.property); err != nil {
			return nil, err
		}
		if err := put(l.flag+"-burst", l.property+"-max"); err != nil {
			return nil, err
		}
		if o.changed(l.flag + "-burst") {
			bursts = true
			if o.changed("burst-seconds") {
				set[l.property+"-max-length"] = o.seconds
			}
		}
	}
	if o.changed("burst-seconds") && !bursts {
		return nil, usagef("--burst-seconds goes with a burst, such as --bps-burst")
	}
	return set, put("iops-size", "iops-size")
}

// rate reads a number of bytes with its unit, or a plain one of requests.
func rate(flag, text string) (int64, error) {
	if strings.HasPrefix(flag, "iops") && flag != "iops-size" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, usagef("--%s %s: use a number of requests a second", flag, printable(text))
		}
		return n, nil
	}
	n, err := keyval.Size(flag, text)
	if err != nil {
		return 0, usagef("--%s %s: use bytes, or k, M, G behind a number, such as 50M", flag, printable(text))
	}
	return n, nil
}

func (t *ctl) throttle(m *monitor, name string, o *throttleOrder) error {
	limits, err := o.properties()
	if err != nil {
		return err
	}
	if o.off && (len(limits) > 0 || o.group != "") {
		return usagef("--off goes without limits and --group")
	}
	groups, err := m.objects(typeGroup)
	if err != nil {
		return err
	}
	exports, err := m.exports()
	if err != nil {
		return err
	}
	e := exportNamed(exports, name)
	switch {
	case e != nil:
		return t.throttleExport(m, e, groups, o, limits)
	case !slices.Contains(groups, name):
		return notFound("%s: there is no such export or throttle group", printable(name))
	case o.group != "":
		return usagef("--group goes with an export, and %s is a throttle group", printable(name))
	}
	if o.off {
		for _, l := range limitNames {
			limits[l.property], limits[l.property+"-max"], limits[l.property+"-max-length"] = 0, 0, 1
		}
		limits["iops-size"] = 0
	}
	if err := m.completeLimitsOf(name, limits); err != nil {
		return err
	}
	return t.setAndShow(m, name, limits)
}

// throttleExport finds or makes the group of an export.
func (t *ctl) throttleExport(m *monitor, e *exportAnswer, groups []string, o *throttleOrder, limits map[string]int64) error {
	group := e.Throttle
	switch {
	case o.off:
		return t.unthrottle(m, e)
	case o.group != "":
		group = o.group
	case group == "" && len(limits) == 0:
		if t.asJSON {
			return t.printJSON(map[string]any{"export": e.ID, "group": nil, "limits": nil})
		}
		t.say("%s has no limits", printable(e.ID))
		return nil
	case group == "":
		group = ownGroup(e)
	}
	isNew := !slices.Contains(groups, group)
	if isNew {
		if err := m.addGroup(group, limits); err != nil {
			return err
		}
		limits = nil
	} else if err := m.completeLimitsOf(group, limits); err != nil { // before the export is put into it
		return err
	}
	if group != e.Throttle {
		if err := t.askTelling(m, target{e, e.Node}, "x-export-set-throttle", map[string]string{"id": e.ID, "group": group}); err != nil {
			if isNew {
				_ = m.ask("object-del", map[string]string{"id": group}, nil)
			}
			return err
		}
	}
	return t.setAndShow(m, group, limits)
}

// addGroup makes a throttle group.
func (m *monitor) addGroup(id string, limits map[string]int64) error {
	if len(limits) == 0 {
		return notFound("%s: there is no such throttle group; give the limits that it is to have, such as --bps 50M, to make it", printable(id))
	}
	if err := completeLimits(nil, limits); err != nil {
		return err
	}
	return m.ask("object-add", map[string]any{"qom-type": "throttle-group", "id": id, "limits": limits}, nil)
}

func ownGroup(e *exportAnswer) string { return "throttle-" + e.ID }

// unthrottle takes an export out of its group, and a group that was made for it away.
func (t *ctl) unthrottle(m *monitor, e *exportAnswer) error {
	if e.Throttle == "" {
		t.say("%s has no limits", printable(e.ID))
		return nil
	}
	if err := t.askTelling(m, target{e, e.Node}, "x-export-set-throttle", map[string]any{"id": e.ID, "group": nil}); err != nil {
		return err
	}
	if e.Throttle == ownGroup(e) {
		_ = m.ask("object-del", map[string]string{"id": e.Throttle}, nil) // others may have been put into it
	}
	t.say("%s has no limits any more", printable(e.ID))
	return nil
}

// setAndShow changes the limits of a group, if there are any to change, and shows all of them.
func (t *ctl) setAndShow(m *monitor, group string, limits map[string]int64) error {
	if len(limits) > 0 {
		if err := m.ask("qom-set", map[string]any{"path": groupPath(group), "property": "limits", "value": limits}, nil); err != nil {
			return err
		}
	}
	now, raw, err := m.limits(group)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(map[string]any{"group": group, "limits": raw})
	}
	t.say("throttle group %s", printable(group))
	list := newTable("LIMIT", ">PER SECOND", ">IN BURSTS", ">FOR")
	for _, l := range limitNames {
		if now[l.property] == 0 {
			continue
		}
		list.row(l.flag, amount(l.flag, now[l.property]), amount(l.flag, now[l.property+"-max"]), burstSeconds(now, l.property))
	}
	if len(list.rows) == 0 {
		t.say("no limits")
		return nil
	}
	list.write(t.c.out)
	return nil
}

func amount(flag string, n int64) string {
	switch {
	case n == 0:
		return ""
	case strings.HasPrefix(flag, "bps"):
		return sizeText(n)
	}
	return strconv.FormatInt(n, 10)
}

func burstSeconds(limits map[string]int64, property string) string {
	if limits[property+"-max"] == 0 {
		return ""
	}
	return fmt.Sprintf("%ds", limits[property+"-max-length"])
}
