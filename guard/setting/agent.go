package setting

// agent are the settings of what runs function containers.
func agent() []Setting {
	return []Setting{
		{
			Names: []string{"ESB_HOME"},
			What: `The folder of everything that outlives a reboot: containerd's content, image archives, function logs, function code.
				Address leases are in ESB_RUN_DIR: they end with a reboot.`,
		},
		{
			Names: []string{"ESB_RUN_DIR"}, Derived: "/run/esb/<ESB_BRIDGE>",
			What: `The folder of what does not outlive a reboot: sockets and the files of running containers. It must be short: unix
				sockets live in it, and their paths have 107 bytes.`,
		},
		{
			Names: []string{"ESB_BIN_DIR"}, Derived: "the folder of the agent's executable",
			What: `Holds containerd, containerd-shim-runc-v2, runc, esb-runc, the CNI plugins and lambda-init.`,
		},
		{
			Names: []string{"AGENT_GRPC_ADDR"},
			What: `Where the agent serves, beside its socket. Every call needs the token of AGENT_TOKEN_FILE. An address that is not
				loopback needs all three of AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA, which take the token's place; the agent
				refuses to start without.`,
		},
		{
			Names: []string{"AGENT_SOCKET"}, Derived: "agent.sock in ESB_RUN_DIR",
			What: `A unix socket on which the agent serves root and GATEWAY_UID, without a token. Empty when off. (a path or "off")`,
		},
		{
			Names: []string{"AGENT_TOKEN_FILE"}, Derived: "<ESB_HOME>/agent-token",
			What: `Has the token that calls over TCP bring. The agent makes it when it is not there; it is GATEWAY_UID's, and closed to
				all others but root.`,
		},
		{
			Names: []string{"GATEWAY_UID"}, Default: "0",
			What: `The user that the gateway runs as, by number. Beside root, that user alone may use the agent's socket and token,
				reach the functions' containers from this machine, and thaw those that are frozen.`,
		},
		{
			Names: []string{"AGENT_TLS_CERT", "AGENT_TLS_KEY", "AGENT_TLS_CA"},
			What:  `The agent's certificate and key, and the authority whose certificates clients must show (mutual TLS). (PEM files)`,
		},
		{
			Names: []string{"CONTAINERD_ADDRESS"},
			What:  `The socket of a containerd that somebody else runs. Empty: the agent starts one of its own from ESB_BIN_DIR.`,
		},
		{
			Names: []string{"ESB_SUBNET"},
			What:  `The IPv4 network of function containers; its first address is the box.`,
		},
		{
			Names: []string{"ESB_BRIDGE"}, Note: ", at most 15 characters",
			What: `The bridge of that network; it also names the cgroup and the folder of this stack, so two stacks on one machine need
				two.`,
		},
		{
			Names: []string{"ESB_MTU"}, Default: "0",
			What: `That of function networks in bytes; 0 takes that of the link with the default route.`,
		},
		{
			Names: []string{"ESB_DNS"}, Derived: "the host's nameservers that are not loopback",
			What: `The nameservers of function containers. (comma-separated IPv4 addresses)`,
		},
		{
			Names: []string{"FUNCTION_HOST_PORTS"}, Default: "443,8000,9000,8001,9428",
			What: `The TCP ports of the box that functions may reach: gateway, S3, DynamoDB API and logs.`,
		},
		{
			Names: []string{"FUNCTION_EGRESS_DENY"},
			What: `Networks that functions may not reach: name the box's own other networks here, such as
				192.168.1.0/24. 169.254.0.0/16, where clouds tell a machine its keys, is never reachable. Nameservers (ESB_DNS) are, on port 53. What
				is sent there is dropped. (comma-separated IPv4 networks)`,
		},
		{
			Names: []string{"NETWORK_POOL_SIZE"}, Default: "2",
			What: `How many network namespaces are made ahead; 0 switches that off.`,
		},
		{
			Names: []string{"IMAGE_ARCHIVES_DIR"}, Derived: "<ESB_HOME>/images",
			What: `Holds image archives, *.tar as "docker save" or any OCI tool makes them; new and changed ones are imported.`,
		},
		{
			Names: []string{"IMAGE_MAX_MB"}, Default: "10240", Note: " as AWS's",
			What: `Bounds the layers of one image, unpacked; one that is larger is not used.`,
		},
		{
			Names: []string{"IMAGE_UNUSED_DAYS"}, Default: "30", Note: "; 0 for never", Unit: Days,
			What: `After how many days without a container of it, or a function that names it, an image is removed. It comes again, from
				its archive or registry, when a function needs it.`,
		},
		{
			Names: []string{"IMAGE_STORE_MAX_MB"}, Default: "0", Note: " for no bound",
			What: `How many MB all images may take: above that those that no function uses are removed, the longest unused first.`,
		},
		{
			Names: []string{"IMAGE_ARCHIVES_UNUSED_DAYS"}, Default: "0", Note: " for never", Unit: Days,
			What: `After how many days an archive is removed whose images nothing has used. Those of base images for code stay. Of one
				whose images are not in containerd counts how long the agent has run.`,
		},
		{
			Names: []string{"IMAGE_ARCHIVES_MAX_MB"}, Default: "0", Note: " for no bound",
			What: `How many MB all archives may take: above that those whose images nothing uses, and has not for a day, are removed, the
				longest unused first. Those of base images for code stay.`,
		},
		{
			Names: []string{"ESB_REGISTRY"}, Default: "127.0.0.1:5010",
			What: `The registry of references without a host.`,
		},
		{
			Names: []string{"REGISTRY_PLAIN_HTTP"},
			What:  `The registries spoken to without TLS; loopback ones always are. (comma-separated hosts)`,
		},
		{
			Names: []string{"REGISTRY_POLL_SECONDS"}, Default: "60", Note: "; 0 for never", Unit: Seconds,
			What: `How often a registry elsewhere is asked, for functions with pull_policy always, whether it has another image under a
				tag: those that are warm get new containers then. It is asked with HEAD, with ever longer pauses while it does not
				answer. One on this machine is asked every IMAGE_POLL_SECONDS.`,
		},
		{
			Names: []string{"REGISTRY_CONFIG"},
			What:  `A Docker config.json with credentials under "auths".`,
		},
		{
			Names: []string{"ESB_REGISTRY_USER", "ESB_REGISTRY_PASSWORD", "ESB_REGISTRY_PASSWORD_FILE"},
			What: `The credentials for ESB_REGISTRY, when there is a user, before those of
				REGISTRY_CONFIG. ESB_REGISTRY_PASSWORD_FILE is a file with the password, readable by its owner alone, for when
				ESB_REGISTRY_PASSWORD is not set.`,
		},
		{
			Names: []string{"S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY"},
			What:  `The store that function code at s3:// locations is read from, and its keys. (a URL or "off")`,
		},
		{
			Names: []string{"FUNCTION_S3_ENDPOINT", "FUNCTION_DYNAMODB_ENDPOINT"}, Derived: "S3_ENDPOINT and DYNAMODB_ENDPOINT",
			What: `What functions find in AWS_ENDPOINT_URL_S3,
				AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_DYNAMODB_STREAMS, which AWS SDKs follow. In the defaults a loopback
				address is replaced by the box's own on the function network. Off sets no variable. SDKs address buckets by path there,
				because the host is an IP address. (a URL or "off")`,
		},
		{
			Names: []string{"DYNAMODB_ENDPOINT"},
			What:  `The DynamoDB API, of which FUNCTION_DYNAMODB_ENDPOINT is made. (a URL or "off")`,
		},
		{
			Names: []string{"S3_PUBLIC_ENDPOINT"},
			What:  `Where clients outside reach S3. Functions find it in ESB_S3_PUBLIC_ENDPOINT, to sign links for it. (a URL)`,
		},
		{
			Names: []string{"FUNCTION_LAMBDA_ENDPOINT"}, Derived: "http://<box>:8000, the gateway",
			What: `The same for AWS_ENDPOINT_URL_LAMBDA. (a URL or "off")`,
		},
		{
			Names: []string{"FUNCTION_ACCESS_KEY", "FUNCTION_SECRET_KEY"}, Derived: "S3_ACCESS_KEY and S3_SECRET_KEY",
			What: `The credentials of functions, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to which the gateway gives no keys of their
				own (its FUNCTION_KEYS is off). SDKs have one pair for all services: give the stores the same one.`,
		},
		{
			Names: []string{"CODE_ROOTS"}, Default: "/etc/esb", Note: ", natively the folder of FUNCTIONS_CONFIG_PATH",
			What: `Where function code and layers may lie on this machine. The agent reads nothing outside of them, also not by a symbolic
				link in them. (comma-separated absolute folders)`,
		},
		{
			Names: []string{"CODE_CACHE_MB"}, Default: "2048",
			What: `Bounds the unpacked code under <ESB_HOME>/code that no container uses; what was not used the longest goes first.`,
		},
		{
			Names: []string{"FUNCTION_TMP_SIZE_MB"}, Default: "512", Note: " as AWS's",
			What: `The size of /tmp where a function does not say.`,
		},
		{
			Names: []string{"FUNCTION_TMP"}, Default: "disk",
			What: `What /tmp of functions is. Disk: room on the disk of ESB_HOME, in a file of its own for each container, which takes
				what is written and goes with the container; it needs loop devices, ext4 and mkfs.ext4, and where one is missing the
				agent says so and takes memory. Memory counts towards the function's memory_size as far as it is used. Containers that
				run keep what they have. (disk or memory)`,
		},
		{
			Names: []string{"FUNCTION_TMP_RESERVE_MB"}, Default: "256",
			What: `What stays free on the disk of ESB_HOME: with less than that and the size of its /tmp, a container is not started.
				Files of several containers may grow at the same time: the disk should have room for as many as run.`,
		},
		{
			Names: []string{"FUNCTION_CPU_WEIGHT"}, Default: "12", Note: "; 1 to 10000",
			What: `What all functions together count against everything else that wants the CPU, or the disk, at the same moment; any
				other process or group of the machine has 100. With the default the gateway, the agent and the stores come first, and a
				box whose functions take all of the CPU still answers; other programs on the machine come first too. Raise it where
				functions have to hold their own against those. Functions lose nothing while there is enough for all. In a container it
				counts within the agent's container.`,
		},
		{
			Names:   []string{"FUNCTION_MEMORY_BUDGET"},
			Default: "80%",
			Note:    "; a percentage of the machine's memory, or of the agent's container's if that has a limit, a number of megabytes, or off",
			What: `What all functions together may hold. What counts is what their containers really hold, the cache of files left out,
				not their memory_size: those may add up to much more than there is. A container is only started when 64 MB of it, or
				its memory_size if that is less, are left, and 2 % of the machine besides; where they are not, idle workers of any
				function are ended first, and a start that finds no memory even so is refused.`,
		},
		{
			Names: []string{"FUNCTION_PIDS_LIMIT"}, Default: "1024", Note: " as AWS's",
			What: `Bounds the processes and threads of a container.`,
		},
		{
			Names: []string{"FUNCTION_NOFILE"}, Default: "1024", Note: " as AWS's",
			What: `Bounds the open files of a process.`,
		},
		{
			Names: []string{"FUNCTION_UID_BASE"},
			What: `The first of the 67 239 936 user and group ids that the box takes for its own: those from 65536 above it are its
				services', and each container has 65536 further up. Nobody else on the machine may have one of them: two boxes on one
				machine may share them, since containers see their own alone.`,
		},
		{
			Names: []string{"ESB_LOG_DIR"}, Derived: "<ESB_HOME>/logs",
			What: `The folder of log files: the agent's own, agent.log; functions/ with one file a container; and gateway.log, there or in
				the folder gateway, which is shipped with them.`,
		},
		{
			Names: []string{"SERVICE_LOG_MAX_MB"},
			What:  `Bounds agent.log and its rotated files together.`,
		},
		{
			Names: []string{"FUNCTION_OUTPUT_KB_PER_SECOND"}, Default: "4096",
			What: `How much log a container may write a second, after a burst of twice as much; a function that writes more waits in its
				write call. It keeps FUNCTION_LOG_MAX_MB true. It does not apply to images with runtime_interface: rie.`,
		},
		{
			Names: []string{"FUNCTION_LOG_MAX_MB"}, Default: "256",
			What: `Bounds what the function logs take on disk together. With VICTORIALOGS_URL, shipped lines make room from half of it on,
				the oldest first; lines that are not shipped are dropped only when the bound itself is reached, and counted in the
				agent's log. Without it, the oldest lines make room.`,
		},
		{
			Names: []string{"VICTORIALOGS_URL"}, Note: ", which is the same as off",
			What: `The VictoriaLogs that gets all log lines of functions, gateway and agent. Empty: nothing is shipped, the files are kept
				within their bounds. (such as http://127.0.0.1:9428)`,
		},
		{
			Names: []string{"VICTORIALOGS_USER", "VICTORIALOGS_PASSWORD", "VICTORIALOGS_PASSWORD_FILE"},
			What: `Sent as basic authentication when there is a user.
				VICTORIALOGS_PASSWORD_FILE is a file with the password, readable by its owner alone, for when VICTORIALOGS_PASSWORD is
				not set.`,
		},
		{
			Names: []string{"FUNCTION_LOGS_ADDR"}, Derived: "port 9428 of the box",
			What: `Where functions may post log lines, as to VictoriaLogs' /insert/jsonline. They are stored under the function's own
				name. It is off without VICTORIALOGS_URL. (host:port or "off")`,
		},
		{
			Names: []string{"FUNCTION_LOGS_KB_PER_SECOND"}, Default: "256",
			What: `How much one container may post there, and 1000 lines a second; four times as much at once. What is above it is
				answered with 429.`,
		},
		{
			Names: []string{"FUNCTION_LOG_DAY_MB"}, Derived: "a quarter of VICTORIALOGS_MAX_MB; 0 for no bound",
			What: `How many megabytes of lines of one function the log store gets in a day (UTC), so that one leaves room for the others.
				Its further lines stay in the files alone, and are counted in the agent's log and metrics. It counts anew when the
				agent is started.`,
		},
		{
			Names: []string{"VICTORIALOGS_MAX_MB"},
			What:  `The disk that VictoriaLogs may take, of which FUNCTION_LOG_DAY_MB is made.`,
		},
		{
			Names: []string{"LOG_SHIP_BATCH_BYTES"}, Default: "1048576",
			What: `The size of a batch: this much is in memory at most, beside one line, and this much is delivered twice at most when the
				agent is killed.`,
		},
		{
			Names: []string{"LOG_SHIP_INTERVAL_MS"}, Default: "1000", Unit: Milliseconds,
			What: `How long a line waits at most until it is sent.`,
		},
		{
			Names: []string{"CONTAINER_READY_TIMEOUT_SECONDS"}, Default: "10", Unit: Seconds,
			What: `How long a started container may take until its worker endpoint answers; after it, the container is removed and the
				start has failed.`,
		},
		{
			Names: []string{"MAX_CONCURRENT_STARTS"},
			What:  `Bounds containers being made at once; 0 means twice the CPUs, because starting is CPU-bound.`,
		},
		{
			Names: []string{"PARKED_SANDBOXES"}, Derived: "2 for each CPU",
			What: `How many containers are made ahead for no function in particular. A function that needs one has it in some
				milliseconds; it is never another one's then. Each takes some 6 MB and an address of ESB_SUBNET: they take at most a 16th
				of FUNCTION_MEMORY_BUDGET and a quarter of the addresses, and go when either is short. 0 switches that off. Images with a
				USER of their own, and runtime_interface: rie, do not use them.`,
		},
		{
			Names: []string{"PARKED_SANDBOXES_MAX"}, Derived: "8 for each CPU",
			What: `Up to how many PARKED_SANDBOXES grows: to as many as functions needed within 2 s in the last 5 minutes. A number that is not larger keeps it as it is.`,
		},
		{
			Names: []string{"STEM_CELLS"}, Default: "1",
			What: `How many runtimes are started ahead of their function, in containers that PARKED_SANDBOXES has made: of each runtime that a
				function of code has started with in the last day (for Node.js, of each memory_size, which bounds its heap), at most 8 kinds. Such
				a function's cold start is spared the start of its interpreter. Each takes about 5 MB for Python and 12 MB for Node.js, beyond the
				pages of the program (6 and 40 MB), which all of them share; they go first when memory is short. 0 switches that off, and so does
				PARKED_SANDBOXES=0. Functions whose environment changes how an interpreter starts have theirs started in the plain way.`,
		},
		{
			Names: []string{"AWS_REGION", "AWS_ACCOUNT_ID"},
			What:  `What functions see.`,
		},
		{
			Names: []string{"AGENT_METRICS_ADDR"}, Default: "off",
			What: `Where GET /metrics has the agent's counters of shipped and dropped log lines, for Prometheus. It needs no credentials:
				it must be a loopback address.`,
		},
		{
			Names: []string{"LOG_LEVEL"},
			What:  `That of the agent's own log. (DEBUG, INFO, WARN or ERROR)`,
		},
	}
}
