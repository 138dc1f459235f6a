package setting

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Path reads a path and makes it absolute; empty where there is none.
func (r *Reader) Path(name string, derived ...string) string {
	v := r.Text(name, derived...)
	if v == "" {
		return ""
	}
	abs, err := filepath.Abs(v)
	if err != nil {
		r.Fail(name, v, "must be a path: "+err.Error())
	}
	return abs
}

// Int reads a whole number.
func (r *Reader) Int(name string, least, most int, derived ...string) int {
	v := r.Text(name, derived...)
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		r.Fail(name, v, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return 0
	}
	return n
}

// Duration reads a number of the unit that the table says, decimals allowed.
func (r *Reader) Duration(name string, least, most float64) time.Duration {
	unit := r.declaration(name).Unit
	if unit.duration() == 0 {
		panic(fmt.Sprintf("setting: %s reads %s as a duration, whose table has no unit", r.service, name))
	}
	v := r.Text(name)
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(n) || n < least || n > most {
		r.Fail(name, v, fmt.Sprintf("must be a number of %s from %s to %s", unit, number(least), number(most)))
		return 0
	}
	return time.Duration(n * float64(unit.duration()))
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// Bool reads true or false.
func (r *Reader) Bool(name string) bool {
	v := r.Text(name)
	switch strings.ToLower(v) {
	case "true", "1":
		return true
	case "false", "0":
	default:
		r.Fail(name, v, "must be true or false")
	}
	return false
}

// OnOff reads on or off.
func (r *Reader) OnOff(name string, derived ...string) bool {
	return r.Choice(name, []string{"on", Off}, derived...) == "on"
}

// Choice reads one of some texts.
func (r *Reader) Choice(name string, choices []string, derived ...string) string {
	v := r.Text(name, derived...)
	for _, c := range choices {
		if v == c {
			return v
		}
	}
	last := len(choices) - 1
	r.Fail(name, v, "must be "+strings.Join(choices[:last], ", ")+" or "+choices[last])
	return ""
}

// Matching reads a text of a form.
func (r *Reader) Matching(name string, pattern *regexp.Regexp, must string) string {
	v := r.Text(name)
	if !pattern.MatchString(v) {
		r.Fail(name, v, must)
	}
	return v
}

// Region reads the name of an AWS region.
func (r *Reader) Region(name string) string {
	return r.Matching(name, regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`), "must be a region name such as us-east-1")
}

// Account reads the number of an AWS account.
func (r *Reader) Account(name string) string {
	return r.Matching(name, regexp.MustCompile(`^[0-9]{12}$`), "must be 12 digits")
}

// List reads texts that are separated by commas. Commas alone are a mistake: they could mean none, or those of the default.
func (r *Reader) List(name string, derived ...string) []string {
	var all []string
	given := r.Text(name, derived...)
	for v := range strings.SplitSeq(given, ",") {
		if v = strings.TrimSpace(v); v != "" {
			all = append(all, v)
		}
	}
	if given != "" && len(all) == 0 {
		r.Fail(name, given, "must be a list separated by commas, or empty for the default")
	}
	return all
}

// Fields reads texts that are separated by blanks.
func (r *Reader) Fields(name string) []string { return strings.Fields(r.Text(name)) }

// Level reads the least level that is logged.
func (r *Reader) Level(name string) slog.Level {
	v := r.Text(name)
	switch strings.ToUpper(v) {
	case "DEBUG":
		return slog.LevelDebug
	case "WARN", "WARNING":
		return slog.LevelWarn
	case "ERROR":
		return slog.LevelError
	case "INFO":
	default:
		r.Fail(name, v, "must be DEBUG, INFO, WARN or ERROR")
	}
	return slog.LevelInfo
}

// Subnet reads an IPv4 network of /8 to longest bits.
func (r *Reader) Subnet(name string, longest int) netip.Prefix {
	v := r.Text(name)
	p, err := netip.ParsePrefix(v)
	switch {
	case err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > longest:
		r.Fail(name, v, fmt.Sprintf("must be an IPv4 network from /8 to /%d, such as %s", longest, r.declaration(name).value(name)))
		return netip.Prefix{}
	case p != p.Masked():
		r.Problemf("%s: %q has host bits set; the network is %s", name, v, p.Masked())
		return netip.Prefix{}
	}
	return p
}

// URL reads where a service is, empty for none and for "off". Credentials in it would be shown in errors and are refused.
func (r *Reader) URL(name string, derived ...string) string {
	v := strings.TrimRight(r.Text(name, derived...), "/")
	if v == "" || v == Off {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		example := r.fallback(name, derived)
		if example == "" || example == Off {
			example = "http://host:port"
		}
		r.Problemf("%s: must be an http or https URL without credentials and query, such as %s, or off", name, example)
		return ""
	}
	return v
}

// Port reads the number of a port.
func (r *Reader) Port(name string) uint16 {
	v := r.Text(name)
	n, ok := port(v)
	if !ok {
		r.Fail(name, v, "must be a port from 1 to 65535")
	}
	return n
}

// Ports reads numbers of ports that are separated by commas.
func (r *Reader) Ports(name string, derived ...string) []uint16 {
	var all []uint16
	for _, v := range r.List(name, derived...) {
		n, ok := port(v)
		if !ok {
			r.Fail(name, v, "must be ports from 1 to 65535, separated by commas")
			continue
		}
		all = append(all, n)
	}
	return all
}

func port(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n != 0
}

// Addr reads host:port.
func (r *Reader) Addr(name string) string {
	v := r.Text(name)
	if !isAddr(v) {
		r.Fail(name, v, "must be host:port, such as "+r.declaration(name).value(name))
		return ""
	}
	return v
}

// AddrOrOff reads host:port, empty for "off".
func (r *Reader) AddrOrOff(name string) string {
	v := r.Text(name)
	if v == Off {
		return ""
	}
	if !isAddr(v) {
		r.Fail(name, v, "must be host:port, such as "+r.declaration(name).value(name)+", or off")
		return ""
	}
	return v
}

// Addrs reads addresses that are separated by commas, none for "off".
func (r *Reader) Addrs(name string, derived ...string) []string {
	fallback, _, _ := strings.Cut(r.fallback(name, derived), ",")
	_, example, _ := net.SplitHostPort(fallback)
	return r.addrs(name, isAddr, "must be a comma separated list of host:port, such as 127.0.0.1:"+example+", or off", derived)
}

const aListener = "host:port with an IP address, localhost, or no host for all addresses, and a port from 1 to 65535"

// Listener reads the address of a listener, which has a port.
func (r *Reader) Listener(name string) string {
	v := r.Text(name)
	if !isListener(v) {
		r.Fail(name, v, "must be "+aListener)
	}
	return v
}

// Listeners reads addresses of listeners that are separated by commas, none for "off".
func (r *Reader) Listeners(name string, derived ...string) []string {
	return r.addrs(name, isListener, "must be "+aListener+", a comma separated list of these, or off", derived)
}

func (r *Reader) addrs(name string, right func(string) bool, must string, derived []string) []string {
	v := r.Text(name, derived...)
	if v == Off {
		return nil
	}
	var addrs []string
	for addr := range strings.SplitSeq(v, ",") {
		if addr = strings.TrimSpace(addr); !right(addr) {
			r.Fail(name, addr, must)
			continue
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

func isAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(host, " \t/") {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func isListener(addr string) bool {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if _, ok := port(p); !ok {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil || host == "" || host == "localhost"
}
