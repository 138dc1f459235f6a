package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
)

// cors reads true, false, or a mapping; nil is none.
func (v value) cors() *gateway.CORS {
	c := &gateway.CORS{
		AllowOrigins: []string{"*"},
		// The default of AWS's console.
		AllowHeaders: []string{"Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key", "X-Amz-Security-Token"},
		AllowMethods: slices.Clone(methods),
		MaxAge:       -1,
	}
	if v.node.Kind != yaml.MappingNode {
		if on, ok := v.boolean(); ok && !on {
			return nil
		}
		return c
	}
	o, ok := v.object()
	if !ok {
		return nil
	}
	if v, ok := o.need("allow_origins", "a list of origins such as https://shop.example.com, or [\"*\"]"); ok {
		c.AllowOrigins = v.corsList("an origin such as https://shop.example.com, without a slash at its end", corsOrigin, false)
	}
	if v, ok := o.get("allow_methods"); ok {
		c.AllowMethods = v.corsList("one of "+strings.Join(methods, ", "), regexp.MustCompile(`^(?:`+strings.Join(methods, "|")+`)$`), true)
	}
	if v, ok := o.get("allow_headers"); ok {
		c.AllowHeaders = v.corsList("the name of a header", headerName, false)
	}
	if v, ok := o.get("expose_headers"); ok {
		c.ExposeHeaders = v.corsList("the name of a header", headerName, false)
	}
	if v, ok := o.get("max_age"); ok {
		if n, ok := v.integer(0, maxCORSAge, "seconds"); ok {
			c.MaxAge = time.Duration(n) * time.Second
		}
	}
	if v, ok := o.get("allow_credentials"); ok {
		c.AllowCredentials, _ = v.boolean()
		for _, list := range []struct {
			key    string
			values []string
		}{{"allow_origins", c.AllowOrigins}, {"allow_methods", c.AllowMethods}, {"allow_headers", c.AllowHeaders}, {"expose_headers", c.ExposeHeaders}} {
			if c.AllowCredentials && slices.Contains(list.values, "*") {
				v.problemf("true does not go with \"*\" in %s: browsers refuse it; list what is allowed", list.key)
			}
		}
	}
	o.close()
	return c
}

// corsList reads "*" or a list of texts that match.
func (v value) corsList(want string, pattern *regexp.Regexp, upper bool) []string {
	items := []value{v}
	if v.node.Kind == yaml.SequenceNode {
		items, _ = v.nonEmptyList()
	}
	var list []string
	for _, item := range items {
		s, ok := item.text(want)
		if !ok {
			continue
		}
		if upper {
			s = strings.ToUpper(s)
		}
		if s != "*" && (!pattern.MatchString(s) || strings.Contains(s, ",")) {
			item.problemf("must be %s, or \"*\", got %q", want, s)
			continue
		}
		if slices.Contains(list, s) {
			item.problemf("%s is listed twice", s)
			continue
		}
		list = append(list, s)
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		v.problemf("must be \"*\" alone, or a list without it")
	}
	return list
}

// routeCORS gives a route its own rules, or those of all; the methods that nobody listed are the route's.
func (r *routing) routeCORS(o *object, rt *gateway.Route) {
	c, own := r.access.CORS, false
	if v, ok := o.get("cors"); ok {
		c = v.cors()
		if own = v.node.Kind != yaml.MappingNode; !own {
			_, listed := fieldOf(v, "allow_methods")
			own = !listed
		}
	}
	if c != nil && own && len(rt.Methods) > 0 {
		c.AllowMethods = rt.Methods
	}
	rt.CORS = c
}
