package setting

// native are the settings of `esb up`, which hands them on to the services.
func native() []Setting {
	return []Setting{
		{
			Names: []string{"ESB_HOME"}, Derived: ".esb in the repository; /var/lib/esb in an installation",
			What: `The folder of the stack's state: images, containers, certificates, logs. Two stacks on one machine need different ones.`,
		},
		{
			Names: []string{"ESB_LOG_DIR"}, Derived: "logs in ESB_HOME",
			What: `Holds the log files of the services and, below functions, of the containers.`,
		},
		{
			Names: []string{"ESB_BIN_DIR"}, Derived: ".esb/bin in the repository; /opt/esb/current in an installation",
			What: `Holds the binaries; stacks share them.`,
		},
		{
			Names: []string{"IMAGE_ARCHIVES_DIR"}, Derived: "images in ESB_HOME",
			What: `Holds the archives of function images.`,
		},
		{
			Names:   []string{"GATEWAY_HTTPS_ADDR"},
			Derived: `port 443 of 127.0.0.1 and of the box's own address on the function network; with X_API_KEY, AUTH_PASS and LAMBDA_ACCESS_KEYS of one's own, ":443"`,
			What:    `A comma-separated list of host:port.`,
		},
		{
			Names: []string{"GATEWAY_HTTP_ADDR"}, Derived: "port 8000 of 127.0.0.1 and of the box's own address on the function network",
			What: `The same for plain HTTP, where secrets can be read on the way. One of the two may be "off".`,
		},
		{
			Names: []string{"GATEWAY_ADMIN_ADDR"},
			What:  `The gateway's admin listener.`,
		},
		{
			Names: []string{"AGENT_GRPC_ADDR"},
			What:  `The agent's listener.`,
		},
		{
			Names: []string{"AGENT_SOCKET"}, Derived: "agent.sock in ESB_RUN_DIR",
			What: `The agent's unix socket, by which gateway and esb speak to it. (a path or "off")`,
		},
		{
			Names: []string{"AGENT_TOKEN_FILE"}, Derived: "agent-token in ESB_HOME",
			What: `Has the token that the agent asks for at AGENT_GRPC_ADDR.`,
		},
		{
			Names: []string{"CODE_ROOTS"}, Derived: "the folder of FUNCTIONS_CONFIG_PATH",
			What: `Where function code and layers may lie, besides in S3. (comma-separated folders)`,
		},
		{
			Names: []string{"AGENT_TLS_CERT", "AGENT_TLS_KEY", "AGENT_TLS_CA"},
			What:  `The files of mutual TLS with the agent, for an AGENT_GRPC_ADDR that is not loopback.`,
		},
		{
			Names: []string{"CONTAINERD_ADDRESS"}, Note: ", the agent starts its own",
			What: `The socket of a containerd that somebody else runs.`,
		},
		{
			Names: []string{"ESB_SUBNET"},
			What:  `The function network.`,
		},
		{
			Names: []string{"ESB_BRIDGE"},
			What: `The function network's bridge, and names the stack's cgroup, firewall table and run folder: two stacks on one machine
				need different ones.`,
		},
		{
			Names: []string{"ESB_RUN_DIR"}, Derived: "/run/esb/<bridge>",
			What: `Holds the agent's sockets, whose paths must be short.`,
		},
		{
			Names: []string{"FUNCTIONS_CONFIG_PATH"}, Derived: "functions/functions.yml in the repository; in /etc/esb in an installation",
			What: `The file of the functions.`,
		},
		{
			Names: []string{"ROUTING_CONFIG_PATH"}, Derived: "functions/routing.yml in the repository; in /etc/esb in an installation",
			What: `The file of the routes.`,
		},
		{
			Names: []string{"RESOURCES_CONFIG_PATH"}, Derived: "functions/resources.yml in the repository; in /etc/esb in an installation",
			What: `The file of tables and buckets.`,
		},
		{
			Names:   []string{"FUNCTION_HOST_PORTS"},
			Derived: "the real ports of the gateway and of the stores; 9000, 8001 and 9428 for stores that are not the native ones",
			What:    `The ports of the box that functions may reach.`,
		},
		{
			Names: []string{"ESB_DATA_DIR"}, Derived: "data in ESB_HOME",
			What: "Holds the data of the native stores, which `down` keeps.",
		},
		{
			Names: []string{"ESB_STORES"}, Default: "on",
			What: `Off does without all native stores. (on or off)`,
		},
		{
			Names:   []string{"S3_ADDR", "DYNAMODB_ADDR", "VICTORIALOGS_ADDR", "REGISTRY_ADDR"},
			Derived: "ports 9000 and 8001 of 127.0.0.1 and of the box's own address on the function network; 127.0.0.1:9428 and 127.0.0.1:5010",
			What: `Where the native stores listen, comma-separated lists of host:port; "off" does without that one, and is the default
				where an endpoint of another store is given.`,
		},
		{
			Names: []string{"S3_UI_ADDR"}, Derived: `127.0.0.1:9001, "off" without the native S3`,
			What: `Where the native S3's web UI listens, likewise.`,
		},
		{
			Names:   []string{"S3_ENDPOINT", "DYNAMODB_ENDPOINT", "VICTORIALOGS_URL", "ESB_REGISTRY"},
			Derived: `the native stores; "off" where there is none, and 127.0.0.1:5010 for the registry`,
			What: `S3_ENDPOINT, DYNAMODB_ENDPOINT and VICTORIALOGS_URL are where the services find the stores, a URL or "off".
				ESB_REGISTRY is host:port of the registry of images without a host in their names.`,
		},
		{
			Names:   []string{"VICTORIALOGS_USER", "VICTORIALOGS_PASSWORD_FILE"},
			Derived: "esb and logs.password in ESB_DATA_DIR, which the native VictoriaLogs makes at its first start; none with another one",
			What:    "The credentials of VictoriaLogs, which also `esb logs` uses; VICTORIALOGS_PASSWORD goes before the file.",
		},
		{
			Names: []string{"VICTORIALOGS_PASSWORD"},
			What:  `The password of VictoriaLogs.`,
		},
		{
			Names:   []string{"ESB_REGISTRY_USER", "ESB_REGISTRY_PASSWORD_FILE"},
			Derived: "esb and registry.password in ESB_DATA_DIR, which the native registry makes at its first start; none with another one",
			What: `The credentials of the registry; ESB_REGISTRY_PASSWORD goes before
				the file.`,
		},
		{
			Names: []string{"FUNCTION_LOGS_ADDR"}, Derived: "the box's own address on the function network, with the port of VictoriaLogs",
			What: `Where functions may post log lines, or "off".`,
		},
		{
			Names: []string{"FUNCTION_LAMBDA_ENDPOINT"}, Derived: `the gateway's HTTP listener at the box's own address; "off" when it does not listen there`,
			What: `Where functions find the gateway's Invoke API, a URL or "off".`,
		},
		{
			Names: []string{"SHUTDOWN_GRACE_SECONDS"}, Unit: Seconds,
			What: `How long the gateway may finish requests in flight.`,
		},
		{
			Names: []string{"ESB_START_TIMEOUT_SECONDS"}, Default: "60", Unit: Seconds,
			What: `How long a service may take to become ready.`,
		},
		{
			Names: []string{"ESB_SUPERVISOR"}, Default: "on",
			What: "On or off: whether `esb up` leaves a process behind that starts again what ends or hangs.",
		},
		{
			Names: []string{"AUTH_USER", "AUTH_ENDPOINT_PATH"},
			What:  `The user of the auth endpoint, for the printed example, and where the endpoint is.`,
		},
		{
			Names: []string{"FUNCTION_UID_BASE"},
			What: `The first of the user and group ids that the box takes for its own, of which natively the gateway has the one 65537
				above it, the stores have the next, and both the group 65536 above it. Nobody else on the machine may have one of
				these.`,
		},
		{
			Names:   []string{"X_API_KEY", "AUTH_PASS", "LAMBDA_ACCESS_KEYS", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DYNAMODB_ACCESS_KEY", "DYNAMODB_SECRET_KEY"},
			Derived: "those that the box makes at its first start and keeps in the file credentials in ESB_HOME",
			What: `The secrets of the gateway and of the native stores. Where one of the gateway's is set to what everybody knows, the box
				serves this machine alone.`,
		},
		{
			Names: []string{"X_API_KEY_FILE", "AUTH_PASS_FILE", "LAMBDA_ACCESS_KEYS_FILE"},
			What:  `Files with these secrets, which the gateway reads.`,
		},
		{
			Names: []string{"ESB_ALLOW_INSECURE_DEFAULTS"},
			What:  `Permits secrets that everybody knows. (true or false)`,
		},
	}
}
