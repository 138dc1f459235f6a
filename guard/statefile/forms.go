package statefile

// Stack is the form of run/stack.json: the settings that a box was started with.
func Stack() Form {
	return Form{
		Version: 1, Texts: true,
		Lost: "Lost is which settings the box was started with: set ESB_BRIDGE, ESB_SUBNET and ESB_RUN_DIR as then, where they were set, and `esb up` or `esb down` goes on with it.",
	}
}

// Supervisor is the form of run/supervisor.json: who watches the services, and how often each was started again.
func Supervisor() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is which process watches the services: end `esb run`, with SIGTERM, before that.",
	}
}

// Process is the form of run/NAME.pid: which process a service is.
func Process() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is which process the service is: make sure that it has ended before that.",
	}
}

// Schedules is the form of the gateway's schedules.json: up to which time each schedule has run.
func Schedules() Form {
	return Form{
		Version: 1,
		Lost:    "Lost are the ticks that were due while the box was down; rates count from the next start.",
	}
}

// Shipped is the form of shipped.json and shipped-since.json in the folder of logs: how far each log has been sent to VictoriaLogs, and
// what is other since.
func Shipped() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is how far logs have been sent: the lines that are still in files are sent once more.",
	}
}

// Configuration is the form of configuration.json of the gateway: functions.yml, routing.yml and resources.yml as they were taken last.
func Configuration() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is what the files said when they were last right: a gateway that starts while they have mistakes does not serve.",
	}
}

// FunctionAccess is the form of function-access.json: what functions may do at the stores.
func FunctionAccess() Form {
	return Form{
		Version: 1,
		Lost:    "Nothing is lost: the gateway writes it anew at its start, and functions may use no store until then.",
	}
}

// IssuerKeys is the form of the files in jwks of the gateway: the public keys of an OpenID Connect issuer.
func IssuerKeys() Form {
	return Form{
		Version: 1,
		Lost:    "Lost are the keys that an issuer has last shown: they are fetched anew, and its tokens are refused until then.",
	}
}

// CodeTree is the form of info.json beside each unpacked archive of function code.
func CodeTree() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is one unpacked archive: it is fetched and unpacked anew.",
	}
}

// Trial is the form of trial.json of an installation: which release is on trial, and which one was before it.
func Trial() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is which release an upgrade that was broken off began at: `esb rollback` or `esb upgrade` puts one in its place.",
	}
}

// Images is the form of run/images.json: which image archives of a release were put into the folder of archives.
func Images() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is which image archives are the release's: they are all brought again, also over those that somebody has changed.",
	}
}

// Proven is the form of the gateway's proven.json: the configurations that functions were last seen to work with.
func Proven() Form {
	return Form{
		Version: 1,
		Lost:    "Lost is what functions last worked with: one that has been changed and does not work cannot go back to what it was before this start.",
	}
}
