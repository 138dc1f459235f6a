package awsapi

import "strings"

// Protocol is how a service of AWS and its clients speak (Smithy, "AWS protocols").
type Protocol int

// Protocols.
const (
	// Query: a form with Action in it, XML back.
	Query Protocol = iota + 1
	// EC2 is Query with another form of errors.
	EC2
	// JSON is AWS JSON 1.0 and 1.1: the header X-Amz-Target names the operation.
	JSON
	// RESTJSON and RESTXML: method and path name the operation.
	RESTJSON
	RESTXML
	// CBOR is Smithy RPC v2: the path names the operation.
	CBOR
)

// Service is a service of AWS as signatures name it.
type Service struct {
	Name     string
	Protocol Protocol
	// Namespace is that of a Query service's XML.
	Namespace string
}

// services are AWS's by the name in a signature's scope, with the protocol of their clients when the request does not say it
// itself (the service models of botocore 1.43.11). What is not here is recognised by the form of its requests: those of JSON and
// CBOR cannot be mistaken. execute-api and lambda are not here: a route may be what is meant.
var services = func() map[string]Service {
	all := map[string]Service{
		"ec2":        {Protocol: EC2},
		"cloudfront": {Protocol: RESTXML},
		"route53":    {Protocol: RESTXML},
		"s3":         {Protocol: RESTXML},
	}
	for name := range strings.FieldsSeq(restJSON) {
		all[name] = Service{Protocol: RESTJSON}
	}
	for name, namespace := range queryNamespaces {
		if s, both := all[name]; both { // its older interface; the form of the request decides
			s.Namespace = namespace
			all[name] = s
			continue
		}
		all[name] = Service{Protocol: Query, Namespace: namespace}
	}
	for name, s := range all {
		s.Name = name
		all[name] = s
	}
	return all
}()

var queryNamespaces = map[string]string{
	"autoscaling":          "http://autoscaling.amazonaws.com/doc/2011-01-01/",
	"cloudformation":       "http://cloudformation.amazonaws.com/doc/2010-05-15/",
	"cloudsearch":          "http://cloudsearch.amazonaws.com/doc/2013-01-01/",
	"elasticache":          "http://elasticache.amazonaws.com/doc/2015-02-02/",
	"elasticbeanstalk":     "http://elasticbeanstalk.amazonaws.com/docs/2010-12-01/",
	"elasticloadbalancing": "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
	"iam":                  "https://iam.amazonaws.com/doc/2010-05-08/",
	"monitoring":           "http://monitoring.amazonaws.com/doc/2010-08-01/",
	"rds":                  "http://rds.amazonaws.com/doc/2014-10-31/",
	"redshift":             "http://redshift.amazonaws.com/doc/2012-12-01/",
	"sdb":                  "http://sdb.amazonaws.com/doc/2009-04-15/",
	"ses":                  "http://ses.amazonaws.com/doc/2010-12-01/",
	"sns":                  "http://sns.amazonaws.com/doc/2010-03-31/",
	"sqs":                  "http://queue.amazonaws.com/doc/2012-11-05/",
	"sts":                  "https://sts.amazonaws.com/doc/2011-06-15/",
}

const restJSON = `
	access-analyzer account aidevops aiops airflow amplify amplifybackend amplifyuibuilder apigateway app-integrations appconfig appfabric
	appflow application-cost-profiler application-signals appmesh appsync aps arc-zonal-shift artifact auditmanager aws-marketplace
	awsssoportal backup backup-search batch bedrock bedrock-agentcore billingconductor braket cases chatbot chime cleanrooms cleanrooms-ml
	clouddirectory cloudfront-keyvaluestore cloudsearch cloudtrail-data codeartifact codecatalyst codeguru-profiler codeguru-reviewer
	codeguru-security codestar-notifications cognito-sync connect connect-campaigns controlcatalog controltower databrew dataexchange
	datazone deadline detective devops-guru dlm docdb-elastic drs ds-data dsql ebs eks eks-auth elasticfilesystem elemental-inference
	emr-containers emr-serverless entityresolution es finspace finspace-api fis gameliftstreams geo geo-maps geo-places geo-routes glacier
	grafana greengrass groundstation guardduty health-agent imagebuilder inspector-scan inspector2 internetmonitor iot iot-jobs-data
	iotdata iotdeviceadvisor iotevents ioteventsdata iotmanagedintegrations iotsitewise iottwinmaker iotwireless ivs ivschat kafka
	kafkaconnect kinesisvideo lakeformation launchwizard lex license-manager-linux-subscriptions license-manager-user-subscriptions m2
	macie2 managedblockchain managedblockchain-query mediaconnect mediaconvert medialive mediapackage mediapackage-vod mediapackagev2
	mediastore mediatailor medical-imaging mgn migrationhub-orchestrator migrationhub-strategy mobiletargeting mpa mq neptune-db
	neptune-graph networkflowmonitor networkmanager networkmonitor notifications notifications-contacts nova-act oam observabilityadmin
	omics osis outposts panorama payment-cryptography pca-connector-ad pca-connector-scep personalize pipes polly profile qapps qbusiness
	quicksight ram rbin rds-data refactor-spaces repostspace resiliencehub resource-explorer-2 resource-groups rolesanywhere
	route53-recovery-control-config route53-recovery-readiness route53globalresolver route53profiles rtbfabric rum s3-outposts s3files
	s3tables s3vectors sagemaker sagemaker-geospatial savingsplans scheduler schemas scn sdb security-ir securityagent securityhub
	securitylake serverlessrepo servicecatalog ses signer signin simspaceweaver sms-voice snow-device-management social-messaging
	ssm-guiconnect ssm-incidents ssm-quicksetup ssm-sap sso-oauth supportapp sustainability synthetics tax thinclient tnb trustedadvisor
	uxc vpc-lattice wellarchitected wickr wisdom workdocs workmailmessageflow workspaces-web xray
`
