package setting

// relay are the settings of what offers the stores to functions where Docker runs the stores.
func relay() []Setting {
	return []Setting{
		{
			Names: []string{"ESB_SUBNET"},
			What:  `The function network; its first address is the box.`,
		},
		{
			Names: []string{"ESB_RELAY_S3_PORT"}, Default: "9000",
			What: `S3, which functions use with keys of their own.`,
		},
		{
			Names: []string{"ESB_RELAY_DYNAMODB_PORT"}, Default: "8001",
			What: `The DynamoDB API, which functions use with keys of their own.`,
		},
		{
			Names: []string{"ESB_RELAY_PORTS"},
			What:  `What else is offered there, with nothing checked. (separated by spaces)`,
		},
		{
			Names: []string{"ESB_RELAY_EXTRA"},
			What:  `More listeners, "address:port", on which nothing is checked. (separated by spaces)`,
		},
		{
			Names: []string{"ESB_RELAY_EXTRA_FROM"}, Derived: "all",
			What: `The addresses whose connections to ESB_RELAY_EXTRA are taken; others are closed at once. (separated by spaces)`,
		},
		{
			Names: []string{"ESB_RELAY_S3_ADDR"},
			What: `More listeners, "address:port", at which S3 is offered as it is to functions: for clients outside, whose links
				functions have signed. (separated by spaces)`,
		},
		{
			Names: []string{"S3_PUBLIC_ENDPOINT"},
			What:  `The URL at which clients outside reach S3. Links may be signed for it, also with a host for each bucket.`,
		},
		{
			Names: []string{"AWS_REGION"},
			What:  `The stores'.`,
		},
		{
			Names: []string{"AWS_ACCOUNT_ID"},
			What:  `The one of tables that are named by their ARNs.`,
		},
		{
			Names: []string{"FUNCTION_KEYS_FILE"}, Default: "/var/lib/esb/function-keys",
			What: `The master secret of the functions' keys.`,
		},
		{
			Names: []string{"FUNCTION_ACCESS_FILE"}, Default: "/var/lib/esb/function-access.json",
			What: `Says which buckets and tables each function may use with its own keys. The gateway writes the file; while it is not
				there, functions may use nothing.`,
		},
		{
			Names: []string{"S3_ACCESS_KEY", "S3_SECRET_KEY", "DYNAMODB_ACCESS_KEY", "DYNAMODB_SECRET_KEY"},
			What:  `The keys that the stores know.`,
		},
	}
}
