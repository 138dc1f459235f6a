package setting

// gateway are the settings of the HTTP front door.
func gateway() []Setting {
	return []Setting{
		{
			Names:   []string{"GATEWAY_HTTPS_ADDR"},
			Derived: `port 443 of 127.0.0.1 and of the box on the function network, ":443" when X_API_KEY, AUTH_PASS and LAMBDA_ACCESS_KEYS are all set`,
			What:    `The addresses of the HTTPS listeners, "host:port" each, none when off. (a comma separated list or "off")`,
		},
		{
			Names: []string{"GATEWAY_HTTP_ADDR"}, Derived: "port 8000 of 127.0.0.1 and of the box on the function network",
			What: `The addresses of the plain HTTP listeners, "host:port" each, none when off. Secrets can be read on their way: other
				machines should use HTTPS. (a comma separated list or "off")`,
		},
		{
			Names: []string{"GATEWAY_ADMIN_ADDR"},
			What: `The address of metrics, readiness, pool state and reloads, for who sends the token in the file admin-token in
				GATEWAY_HOME ("Authorization: Bearer"). It has no TLS: an address that is not loopback needs
				ESB_ALLOW_INSECURE_DEFAULTS. Empty when off. (an address or "off")`,
		},
		{
			Names:   []string{"GATEWAY_MAX_CONNECTIONS"},
			Default: "0",
			Note:    ", which means 8192, or as many as fit into half of the descriptors (ulimit -n) and an eighth of the memory that the gateway may use",
			What: `Bounds the connections of clients at GATEWAY_HTTPS_ADDR and GATEWAY_HTTP_ADDR together; one more is closed at once. The
				admin listener has 64 of its own.`,
		},
		{
			Names: []string{"GATEWAY_MAX_CONNECTIONS_PER_ADDRESS"}, Default: "0", Note: ", which means a quarter of GATEWAY_MAX_CONNECTIONS",
			What: `Bounds those of one address, or of one IPv6 network /64. Set it to GATEWAY_MAX_CONNECTIONS when all clients come
				through one proxy.`,
		},
		{
			Names: []string{"GATEWAY_MAX_FUNCTION_CONNECTIONS"}, Default: "0", Note: ", which means a quarter of GATEWAY_MAX_CONNECTIONS",
			What: `Bounds those of all functions (ESB_SUBNET) together; one function's container may have an eighth of it.`,
		},
		{
			Names:   []string{"GATEWAY_BUFFER_MB"},
			Default: "0",
			Note:    ", which means 40 % of the memory that the gateway may use (GOMEMLIMIT, else 80 % of its control group's limit or half of the machine's memory), at most 1024",
			What: `The memory in MB (1048576 bytes) for the bodies, events and answers of all requests together. Who asks for more than is
				left is told 503, or 429 by Lambda's API; one client gets at most half.`,
		},
		{
			Names:   []string{"GATEWAY_MAX_WAITING"},
			Default: "0",
			Note:    ", which means 1000, or one for each 256 KB of the memory that the gateway may use if that is less",
			What: `Bounds the requests that wait for a worker, of all functions together. Where it is reached, functions have equal
				shares: one that has fewer waiting gets the place of one that has more, whose request that came last is told 429, as is
				each further one. The queue of each function (scaling.queue) holds besides.`,
		},
		{
			Names: []string{"AGENT_GRPC_ADDR"},
			What:  `The agent's gRPC address, "host:port".`,
		},
		{
			Names: []string{"AGENT_SOCKET"}, Default: "off",
			What: `The agent's unix socket, which takes the place of AGENT_GRPC_ADDR. It is open to root and to the user that the agent's
				GATEWAY_UID names. (a path or "off")`,
		},
		{
			Names: []string{"AGENT_TOKEN_FILE"}, Derived: "agent-token in GATEWAY_HOME",
			What: `Has the token that the agent asks for on AGENT_GRPC_ADDR, unless there is mutual TLS. The agent makes it.`,
		},
		{
			Names: []string{"FUNCTIONS_CONFIG_PATH"}, Default: "/etc/esb/functions.yml",
			What: `The file that says which functions there are.`,
		},
		{
			Names: []string{"ROUTING_CONFIG_PATH"}, Default: "/etc/esb/routing.yml",
			What: `The file that says which route calls which function.`,
		},
		{
			Names: []string{"RESOURCES_CONFIG_PATH"}, Default: "/etc/esb/resources.yml", Note: ", which need not be there",
			What: `The file that says which tables and buckets the box makes in its stores. One that is set must be.`,
		},
		{
			Names: []string{"ESB_HOME"},
			What:  `The folder of the box's state.`,
		},
		{
			Names: []string{"GATEWAY_HOME"}, Derived: "ESB_HOME",
			What: `The folder of what the gateway keeps: the development CA, the key that signs tokens, and (jwks) the keys of issuers,
				with which their tokens can be checked without a network. Natively it is the folder gateway in ESB_HOME, the gateway's
				user's alone.`,
		},
		{
			Names: []string{"GATEWAY_REPLACES"}, Default: "false",
			What: "Whether a gateway that runs on the same GATEWAY_HOME hands its sockets over and ends. No setting of yours: `esb up` " +
				"sets it for the one gateway that it starts in the place of another. Any other second gateway of a GATEWAY_HOME is " +
				"refused. (true or false)",
		},
		{
			Names: []string{"GATEWAY_SOCKETS"},
			What: "Sockets that the process was started with, as a JSON object of setting=address and descriptor. No setting of yours: " +
				"whoever starts a gateway again that has ended unexpectedly has held them, so that no client is refused meanwhile.",
		},
		{
			Names: []string{"TLS_CERT_FILE", "TLS_KEY_FILE"}, Derived: "a certificate that a development CA under GATEWAY_HOME signs",
			What: `The PEM certificate (with its chain) and key of the HTTPS listeners; a changed file is taken up without a restart.
				(both or neither)`,
		},
		{
			Names: []string{"X_API_KEY"}, Derived: "one that the box makes at its first start and keeps in the file credentials in GATEWAY_HOME", File: true,
			What: `What the header x-api-key must hold, at least 16 characters where other machines reach the gateway. (the key or a file
				with it)`,
		},
		{
			Names:   []string{"JWT_SECRET_KEY"},
			Derived: "a random one, which is made once and kept in GATEWAY_HOME, so that tokens outlive a restart",
			File:    true,
			What:    `Signs the tokens, at least 32 bytes. (the key or a file with it)`,
		},
		{
			Names: []string{"JWT_EXPIRES_DELTA"}, Default: "3000",
			What: `How long a token is good. (whole seconds)`,
		},
		{
			Names: []string{"AUTH_USER"},
			What:  `May log in at AUTH_ENDPOINT_PATH.`,
		},
		{
			Names: []string{"AUTH_PASS"}, Derived: "one that the box makes at its first start and keeps in the file credentials in GATEWAY_HOME", File: true,
			What: `The password of AUTH_USER, at least 12 characters where other machines reach the gateway. (the password or a file with
				it)`,
		},
		{
			Names: []string{"AUTH_ENDPOINT_PATH"},
			What:  `The path that hands out tokens.`,
		},
		{
			Names:   []string{"LAMBDA_ACCESS_KEYS"},
			Derived: "one that the box makes at its first start and keeps in the file credentials in GATEWAY_HOME",
			File:    true,
			What: `The secrets, by access key id, of those who may invoke every function through Lambda's API. Each function's own keys
				work besides, for what its invoke allows. (a comma separated list of id:secret, or "off" for none, or a file with that)`,
		},
		{
			Names: []string{"FUNCTION_KEYS_FILE"}, Derived: "function-keys in GATEWAY_HOME",
			What: `Holds the secret from which the functions' own access keys are made. It is made once, mode 0600; the stores read it
				too.`,
		},
		{
			Names: []string{"FUNCTION_ACCESS_FILE"}, Derived: "function-access.json in GATEWAY_HOME",
			What: `Where the gateway writes, at start and with each change of functions.yml, which buckets and tables each function may
				use with its own keys. The stores read it.`,
		},
		{
			Names: []string{"FUNCTION_KEYS"}, Derived: "on, off where S3_ENDPOINT or DYNAMODB_ENDPOINT leads to another machine",
			What: `Functions get access keys of their own, in AWS_ACCESS_KEY_ID and its like, with which they use the box's stores and
				Lambda's API. Stores elsewhere do not know these keys: without them functions get the agent's FUNCTION_ACCESS_KEY, for
				which LAMBDA_ACCESS_KEYS has to have an entry if functions are to call functions. (on or off)`,
		},
		{
			Names: []string{"ESB_ALLOW_INSECURE_DEFAULTS"},
			What: `Permits secrets that everybody knows, and short ones, on any listener, and an admin listener that other machines reach.
				(true or false)`,
		},
		{
			Names: []string{"IDLE_TIMEOUT_MINUTES"}, Default: "5", Unit: Minutes,
			What: `When an idle worker is destroyed, for functions that do not set scaling.idle_timeout.`,
		},
		{
			Names:   []string{"FUNCTION_RUNTIMES"},
			Derived: "nodejs24.x,provided.al2,provided.al2023,python3.11, natively those whose images are in the image folder",
			What: `The runtimes that the box has base images of, by AWS's names: functions.yml may name them without more.
				(comma-separated)`,
		},
		{
			Names: []string{"CODE_POLL_SECONDS"}, Default: "10", Unit: Seconds,
			What: `How often function code in S3 is asked for changes, and local code looked through for such that the system did not
				tell.`,
		},
		{
			Names:   []string{"IMAGE_POLL_SECONDS"},
			Default: "2",
			Note:    "; 0 for never: the next container that starts is the first with the new image then",
			Unit:    Seconds,
			What: `How often the agent is asked whether it has another image under a function's name: an archive in its folder that was
				replaced, or one that a start has pulled. Functions then get new containers. For functions with pull_policy always, the
				agent also asks a registry on this machine as often, others every REGISTRY_POLL_SECONDS. All the same the agent is told
				every 5 minutes at least which images functions have: it keeps those.`,
		},
		{
			Names: []string{"HEARTBEAT_INTERVAL"}, Default: "30", Unit: Seconds,
			What: `How often the pools are compared with the agent's list of containers.`,
		},
		{
			Names: []string{"ORPHAN_GRACE_PERIOD_SECONDS"}, Default: "60", Unit: Seconds,
			What: `How old a container that no pool knows must be before it is destroyed.`,
		},
		{
			Names: []string{"MAX_CONCURRENT_STARTS"}, Note: ", which means twice the number of CPUs",
			What: `Bounds the containers that start at the same time, over all functions.`,
		},
		{
			Names: []string{"CIRCUIT_BREAKER_FAILURES"}, Default: "5",
			What: `How many failures in a row, of the infrastructure and not of the function itself, open a function's circuit.`,
		},
		{
			Names: []string{"CIRCUIT_BREAKER_OPEN_SECONDS"}, Default: "10", Unit: Seconds,
			What: `How long a circuit stays open before one request probes it.`,
		},
		{
			Names: []string{"GATEWAY_STREAM_LIMIT_MB"}, Default: "200", Note: " (AWS), at most 1048576",
			What: `The most MB (1048576 bytes) of one streamed result; a longer one breaks off. It does not bound results that come as a
				whole: 6 MB.`,
		},
		{
			Names: []string{"INVOCATION_OUTLIVES_CLIENT"}, Default: "true",
			What: `A function runs to its end when its client leaves, or its route's timeout passes, as on AWS: its answer is dropped, and
				its container is busy until then, for at most the function's own timeout. With false the invocation ends there: its
				processes when the time is over, its container when the client leaves. Asynchronous events run to their end in any
				case. (true or false)`,
		},
		{
			Names: []string{"INVOCATION_CPU_TURNS"}, Default: "true",
			What: `While functions want more CPU than the machine has, about as many invocations run at the same time as keep it busy, and the
				others wait for their turn, those of functions with fewest running first: so a function that is hardly asked is not held up
				by those that are asked too much. Each function may always run one. With false all run at once. (true or false)`,
		},
		{
			Names: []string{"SHUTDOWN_GRACE_SECONDS"}, Unit: Seconds,
			What: `How long a stop waits for the requests in flight, and for functions that outlive their clients.`,
		},
		{
			Names: []string{"AWS_REGION"},
			What:  `The AWS region that events and ARNs name, and requests to the stores are signed for.`,
		},
		{
			Names: []string{"AWS_ACCOUNT_ID"},
			What:  `The AWS account that events and ARNs name, 12 digits.`,
		},
		{
			Names: []string{"ESB_SUBNET"},
			What: `The function network. The box's own address on it, its first, counts as local: the agent's firewall keeps other machines
				off it. (an IPv4 network)`,
		},
		{
			Names: []string{"ESB_LOG_DIR"}, Derived: "logs in GATEWAY_HOME",
			What: `The folder that takes gateway.log, from where the agent ships it when both have the same.`,
		},
		{
			Names: []string{"SERVICE_LOG_MAX_MB"},
			What:  `Bounds gateway.log and its rotated files together.`,
		},
		{
			Names: []string{"LOG_LEVEL"},
			What:  `The least level that is logged. (DEBUG, INFO, WARN or ERROR)`,
		},
		{
			Names: []string{"ESB_NATS_URL"}, Note: ": the gateway keeps them itself, in the folder async of GATEWAY_HOME",
			What: `A NATS cluster with JetStream that keeps the events, one or more URLs with commas between:
				"nats://user:password@host:4222". Its max_payload must be at least 8 MB.`,
		},
		{
			Names: []string{"ESB_NATS_CREDENTIALS"},
			What:  `A credentials file (JWT and key) for ESB_NATS_URL.`,
		},
		{
			Names: []string{"ESB_NATS_CA", "ESB_NATS_CERT", "ESB_NATS_KEY"}, Derived: "the system's CAs, no certificate",
			What: `The PEM files for tls:// URLs: the CA of the servers, and the gateway's own certificate and key where they ask for one.
				(both or neither)`,
		},
		{
			Names: []string{"ESB_NATS_REPLICAS"}, Default: "1",
			What: `How many servers of the cluster keep each event. (1 to 5)`,
		},
		{
			Names: []string{"ESB_NATS_PREFIX"}, Default: "esb-async",
			What: `Begins the names of the streams and subjects. Two boxes on one cluster need one each, or both run each event.`,
		},
		{
			Names: []string{"ASYNC_MAX_MB"}, Default: "1024",
			What: `Bounds the events in the queue, in MB (1048576 bytes); each counts 512 bytes besides its own. A full queue refuses
				events.`,
		},
		{
			Names: []string{"ASYNC_DEAD_LETTER_MAX_MB"}, Default: "256",
			What: `Bounds the dead-letter queue likewise. A failed event that it has no room for stays in the queue.`,
		},
		{
			Names: []string{"ASYNC_DEAD_LETTER_RETENTION_DAYS"}, Default: "14", Note: " (the longest of an AWS SQS queue)", Unit: Days,
			What: `When a dead letter is dropped; 0 is never.`,
		},
		{
			Names: []string{"ASYNC_RETRY_BASE_SECONDS"}, Default: "60", Note: " (AWS)", Unit: Seconds,
			What: `How long an event waits for its second try after the function failed; for the third it waits twice as long.`,
		},
		{
			Names: []string{"AGENT_TLS_CERT"},
			What:  `The gateway's certificate.`,
		},
		{
			Names: []string{"AGENT_TLS_KEY"},
			What:  `The key of AGENT_TLS_CERT.`,
		},
		{
			Names: []string{"AGENT_TLS_CA"},
			What:  `The CA that signed the agent's certificate.`,
		},
		{
			Names: []string{"S3_ENDPOINT", "DYNAMODB_ENDPOINT"},
			What:  `The stores' URLs; off when the box does without the store. (a URL or "off")`,
		},
		{
			Names: []string{"S3_ACCESS_KEY", "DYNAMODB_ACCESS_KEY"},
			What:  `Sign the requests to the stores.`,
		},
		{
			Names: []string{"S3_SECRET_KEY", "DYNAMODB_SECRET_KEY"},
			What:  `Belong to S3_ACCESS_KEY and DYNAMODB_ACCESS_KEY.`,
		},
	}
}
