package setting

// stores are the settings of the native way's S3, DynamoDB API, VictoriaLogs and registry.
func stores() []Setting {
	return []Setting{
		{
			Names: []string{"ESB_HOME"},
			What:  `The folder of the stack's state.`,
		},
		{
			Names: []string{"ESB_DATA_DIR"}, Derived: "<ESB_HOME>/data",
			What: `Holds the data, a folder for each store: s3, db, logs, registry.`,
		},
		{
			Names: []string{"STORES_REPLACES"}, Default: "false",
			What: "Whether stores that run on the same ESB_DATA_DIR hand their sockets over and end. No setting of yours: `esb up` " +
				"sets it for those that it starts in the place of others. (true or false)",
		},
		{
			Names: []string{"STORES_SOCKETS"},
			What: "Sockets that the process was started with, as a JSON object of setting=address and descriptor. No setting of yours: " +
				"whoever starts stores again that have ended unexpectedly has held them, so that no client is refused meanwhile.",
		},
		{
			Names: []string{"ESB_LOG_DIR"}, Derived: "<ESB_HOME>/logs",
			What: `Takes the log of each store's process: store-s3.log, store-db.log, store-logs.log, store-registry.log.`,
		},
		{
			Names: []string{"ESB_BIN_DIR"}, Derived: "the folder of this program",
			What: `Holds versitygw, dynoxide, victoria-logs and registry.`,
		},
		{
			Names: []string{"ESB_SUBNET"},
			What:  `The function network; its first address is the box.`,
		},
		{
			Names: []string{"S3_ADDR"}, Derived: "port 9000 of 127.0.0.1 and of the box",
			What: `The S3 API.`,
		},
		{
			Names: []string{"S3_UI_ADDR"}, Default: "127.0.0.1:9001",
			What: `The S3 web UI; it asks for the S3 keys.`,
		},
		{
			Names: []string{"S3_PUBLIC_ENDPOINT"},
			What: `The URL at which clients outside reach S3: http://<host>:9000, or what a proxy in front offers, which must pass the
				header Host on. Links may be signed for it, also with a host for each bucket (https://<bucket>.files.example.com).
				Functions find it in ESB_S3_PUBLIC_ENDPOINT.`,
		},
		{
			Names: []string{"S3_ENCRYPTED_DISK"}, Default: "false",
			What: `To be true where ESB_DATA_DIR is on an encrypted disk: S3 then answers x-amz-server-side-encryption: AES256, as AWS's
				does of every object. The store itself encrypts nothing.`,
		},
		{
			Names: []string{"S3_LIFECYCLE_INTERVAL_SECONDS"}, Default: "3600", Unit: Seconds,
			What: `The pause between two searches for what has expired by the lifecycle rules of buckets. The first one is at the start.`,
		},
		{
			Names: []string{"DYNAMODB_ADDR"}, Derived: "port 8001 of 127.0.0.1 and of the box",
			What: `The DynamoDB API.`,
		},
		{
			Names: []string{"VICTORIALOGS_ADDR"}, Default: "127.0.0.1:9428",
			What: `VictoriaLogs: queries and inserts for who has its credentials. They would cross a network in the clear, so addresses
				that other machines reach need ESB_ALLOW_INSECURE_DEFAULTS=true. The box's address is the agent's, which takes the
				lines of functions there.`,
		},
		{
			Names: []string{"VICTORIALOGS_USER"}, Default: "esb",
			What: `The user of VictoriaLogs, for the agent and the operator.`,
		},
		{
			Names: []string{"VICTORIALOGS_PASSWORD"}, Derived: "what is in the file",
			What: `The password of VICTORIALOGS_USER.`,
		},
		{
			Names: []string{"VICTORIALOGS_PASSWORD_FILE"}, Derived: "<ESB_DATA_DIR>/logs.password",
			What: `The file of the password, which is made at the first start, where no password is set.`,
		},
		{
			Names: []string{"REGISTRY_ADDR"}, Default: "127.0.0.1:5010",
			What: `The image registry. Its credentials would cross a network in the clear, so addresses that other machines reach need
				ESB_ALLOW_INSECURE_DEFAULTS=true.`,
		},
		{
			Names: []string{"ESB_REGISTRY_USER"}, Default: "esb",
			What: `The user of the registry, for the agent and for who pushes images.`,
		},
		{
			Names: []string{"ESB_REGISTRY_PASSWORD"}, Derived: "what is in the file",
			What: `The password of ESB_REGISTRY_USER.`,
		},
		{
			Names: []string{"ESB_REGISTRY_PASSWORD_FILE"}, Derived: "<ESB_DATA_DIR>/registry.password",
			What: `The file of the password, which is made at the first start, where no password is set.`,
		},
		{
			Names: []string{"S3_ACCESS_KEY", "S3_SECRET_KEY"},
			What:  `The keys of S3.`,
		},
		{
			Names: []string{"DYNAMODB_ACCESS_KEY", "DYNAMODB_SECRET_KEY"},
			What:  `The keys of the DynamoDB API.`,
		},
		{
			Names: []string{"FUNCTION_KEYS_FILE"}, Derived: "<ESB_HOME>/function-keys",
			What: `The master secret of the functions' own keys, with which they may use S3 and the DynamoDB API. The gateway makes the
				file; it need not be there yet.`,
		},
		{
			Names: []string{"FUNCTION_ACCESS_FILE"}, Derived: "<ESB_HOME>/function-access.json",
			What: `Says which buckets and tables each function may use with its own keys. The gateway writes the file; while it is not
				there, functions may use nothing.`,
		},
		{
			Names: []string{"AWS_REGION"},
			What:  `The region of S3, and of the ARNs of DynamoDB.`,
		},
		{
			Names: []string{"AWS_ACCOUNT_ID"},
			What:  `The account in the ARNs of DynamoDB.`,
		},
		{
			Names: []string{"VICTORIALOGS_RETENTION_DAYS"}, Default: "7", Unit: Days,
			What: `How long log lines are kept.`,
		},
		{
			Names: []string{"VICTORIALOGS_MAX_MB"},
			What: `Bounds the disk that logs take. Half of it is for lines, the other half for VictoriaLogs, which writes files anew to
				merge them: at half, the oldest days go, and when the present one alone has so much, no line is taken until it is over.`,
		},
		{
			Names: []string{"DYNAMODB_TTL_INTERVAL_SECONDS"}, Default: "60", Unit: Seconds,
			What: `The pause between two searches for expired items in the tables that have TTL switched on.`,
		},
		{
			Names: []string{"LOG_LEVEL"},
			What:  `That of this program's own log. (DEBUG, INFO, WARN or ERROR)`,
		},
		{
			Names: []string{"ESB_ALLOW_INSECURE_DEFAULTS"},
			What: `Permits secrets that everybody knows, short ones, and credentials in the clear, where other machines reach the stores.
				(true or false)`,
		},
	}
}
