package config

import (
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// logLevels are AWS's, from the finest on (Lambda developer guide, "Log-level filtering").
var logLevels = []string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}

// logging reads how a function's log is written, over l (AWS: LoggingConfig). Its words may be AWS's, or in lower case.
func (v value) logging(l gateway.Logging) gateway.Logging {
	o, ok := v.object()
	if !ok {
		return l
	}
	if v, ok := o.get("format"); ok {
		if word, ok := v.word("text", "json"); ok && (word == "json") != l.JSON {
			l = gateway.Logging{JSON: word == "json"}
			if l.JSON {
				l.ApplicationLevel, l.SystemLevel = "INFO", "INFO" // AWS's defaults
			}
		}
	}
	level := func(key string, allowed []string, to *string) {
		v, ok := o.get(key)
		if !ok {
			return
		}
		word, ok := v.word(allowed...)
		switch {
		case !ok:
		case !l.JSON:
			v.problemf("needs format: json: a log of text is not filtered (AWS)")
		default:
			*to = word
		}
	}
	level("application_level", logLevels, &l.ApplicationLevel)
	level("system_level", logLevels[1:4], &l.SystemLevel)
	o.close()
	return l
}

// word is oneOf, whatever the case.
func (v value) word(allowed ...string) (string, bool) {
	want := "one of " + strings.Join(allowed, ", ")
	text, _, ok := v.scalar(want)
	if !ok {
		return "", false
	}
	i := slices.IndexFunc(allowed, func(a string) bool { return strings.EqualFold(a, text) })
	if i < 0 {
		v.problemf("must be %s, got %q", want, text)
		return "", false
	}
	return allowed[i], true
}

// checkLogging refuses what would be accepted and ignored. own is the key of the function itself, if it has one.
func (o *object) checkLogging(f *gateway.Function) {
	v, own := o.fields["logging"]
	if f.Interface == gateway.RIE && f.Logging.JSON {
		if own {
			v.problemf("must be text with runtime_interface: rie: only lambda-init writes JSON")
			return
		}
		f.Logging = gateway.Logging{} // from defaults, which are for all functions
	}
	for _, name := range []string{"AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"} {
		if _, ok := f.Environment[name]; ok && f.Logging.JSON {
			o.doc.problemf(o.line, join(join(o.key, "environment"), name), "is set by logging: keep one")
		}
	}
}
