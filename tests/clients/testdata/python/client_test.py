"""boto3 as Debian 12 has it (1.26) against a box. It does not know AWS_ENDPOINT_URL_*, so endpoints are given; all else is its
default, the signature of links and forms among it."""
import base64
import json
import os
import unittest
import urllib.error
import urllib.request
import uuid

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError


def client(service, **more):
    name = {"dynamodbstreams": "DYNAMODB_STREAMS"}.get(service, service.upper())
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL_" + name], **more)


def code_of(call, *args, **more):
    try:
        call(*args, **more)
    except ClientError as e:
        return e.response["Error"]["Code"]
    return None


def fetch(url, method="GET", data=None, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method, headers=headers or {})) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def post(form, name, data):
    """Sends a form as a browser does."""
    boundary = uuid.uuid4().hex
    body = b""
    for key, value in form["fields"].items():
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'.encode()
    body += data + f"\r\n--{boundary}--\r\n".encode()
    return fetch(form["url"], "POST", body, {"Content-Type": "multipart/form-data; boundary=" + boundary})


class Lambda(unittest.TestCase):
    payload = json.dumps({"body": json.dumps({"n": 1})})

    def test_invoke(self):
        api = client("lambda")
        answer = api.invoke(FunctionName="lambda-respond", Payload=self.payload, LogType="Tail")
        self.assertEqual((answer["StatusCode"], answer.get("FunctionError")), (200, None))
        self.assertEqual(json.load(answer["Payload"]), {"n": 1})
        self.assertIn("REPORT RequestId: ", base64.b64decode(answer["LogResult"]).decode())
        self.assertEqual(api.invoke(FunctionName="lambda-respond", InvocationType="Event", Payload=self.payload)["StatusCode"], 202)
        self.assertEqual(api.invoke(FunctionName="lambda-respond", InvocationType="DryRun", Payload=self.payload)["StatusCode"], 204)

    def test_errors(self):
        api = client("lambda")
        self.assertRaises(api.exceptions.ResourceNotFoundException, api.invoke, FunctionName="nobody")
        self.assertRaises(api.exceptions.InvalidRequestContentException, api.invoke, FunctionName="lambda-respond", Payload="{")
        failed = api.invoke(FunctionName="lambda-chaos", Payload=json.dumps({"body": '{"action":"panic"}'}))
        self.assertEqual(failed["FunctionError"], "Unhandled")
        self.assertIn("errorType", json.load(failed["Payload"]))


class S3(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s3, cls.bucket = client("s3"), "py-" + uuid.uuid4().hex
        cls.s3.create_bucket(Bucket=cls.bucket)

    def test_objects_and_conditions(self):
        put = self.s3.put_object(Bucket=self.bucket, Key="a b/ü+1", Body=b"hello", Metadata={"owner": "me"}, ContentType="text/plain")
        got = self.s3.get_object(Bucket=self.bucket, Key="a b/ü+1", Range="bytes=1-3")
        self.assertEqual(got["Body"].read(), b"ell")
        self.assertEqual(got["Metadata"], {"owner": "me"})
        self.assertEqual(code_of(self.s3.get_object, Bucket=self.bucket, Key="a b/ü+1", IfNoneMatch=put["ETag"]), "304")
        self.assertEqual(code_of(self.s3.get_object, Bucket=self.bucket, Key="none"), "NoSuchKey")
        self.assertEqual(code_of(self.s3.put_object_tagging, Bucket=self.bucket, Key="a b/ü+1", Tagging={"TagSet": [{"Key": "aws:x", "Value": "1"}]}), "InvalidTag")
        attributes = self.s3.get_object_attributes(Bucket=self.bucket, Key="a b/ü+1", ObjectAttributes=["ETag", "ObjectSize"])
        self.assertEqual(attributes["ObjectSize"], 5)

    def test_multipart(self):
        data = os.urandom(12 << 20)
        with open("/dev/shm/esb-py-" + self.bucket, "wb+") as file:
            os.unlink(file.name)
            file.write(data)
            file.seek(0)
            self.s3.upload_fileobj(file, self.bucket, "big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
        head = self.s3.head_object(Bucket=self.bucket, Key="big", PartNumber=1)
        self.assertEqual(head["PartsCount"], 3)
        parts = self.s3.get_object_attributes(Bucket=self.bucket, Key="big", ObjectAttributes=["ObjectParts"])
        self.assertEqual(parts["ObjectParts"]["TotalPartsCount"], 3)
        with open("/dev/shm/esb-py-" + self.bucket, "wb+") as file:
            os.unlink(file.name)
            self.s3.download_fileobj(self.bucket, "big", file)
            file.seek(0)
            self.assertEqual(file.read(), data)

    def test_links_by_default(self):
        self.s3.put_object(Bucket=self.bucket, Key="a b+ü", Body=b"by link")
        link = self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "a b+ü", "ResponseContentType": "text/x y"})
        self.assertIn("AWSAccessKeyId=", link, "the default of this boto3 is signature version 2")
        self.assertEqual(fetch(link), (200, b"by link"))
        self.assertEqual(fetch(link.replace("a%20b", "a"))[0], 403)
        self.assertEqual(fetch(link, "DELETE")[0], 403)
        self.assertEqual(fetch(self.s3.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "a b+ü"}, ExpiresIn=-5))[0], 403)
        put = self.s3.generate_presigned_url("put_object", Params={"Bucket": self.bucket, "Key": "put", "ContentType": "text/csv", "Metadata": {"who": "me"}})
        self.assertEqual(fetch(put, "PUT", b"x", {"Content-Type": "text/csv"})[0], 200)
        self.assertEqual(fetch(put, "PUT", b"x", {"Content-Type": "text/html"})[0], 403)
        head = self.s3.head_object(Bucket=self.bucket, Key="put")
        self.assertEqual((head["ContentType"], head["Metadata"]), ("text/csv", {"who": "me"}))
        listed = self.s3.generate_presigned_url("list_objects", Params={"Bucket": self.bucket, "Prefix": "pu"})
        self.assertIn(b"<Key>put</Key>", fetch(listed)[1])

    def test_forms_by_default(self):
        form = self.s3.generate_presigned_post(self.bucket, "up/${filename}", Conditions=[["content-length-range", 1, 10]])
        self.assertIn("signature", form["fields"])
        self.assertEqual(post(form, "name.txt", b"12345")[0], 204)
        self.assertEqual(self.s3.get_object(Bucket=self.bucket, Key="up/name.txt")["Body"].read(), b"12345")
        self.assertIn(b"EntityTooLarge", post(form, "name.txt", b"12345678901")[1])
        form["fields"]["key"] = "elsewhere"
        self.assertEqual(post(form, "name.txt", b"12345")[0], 403)

    def test_lists(self):
        for i in range(5):
            self.s3.put_object(Bucket=self.bucket, Key=f"list/{i} ü")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="list/", PaginationConfig={"PageSize": 2})
        self.assertEqual([o["Key"] for page in pages for o in page["Contents"]], [f"list/{i} ü" for i in range(5)])
        folders = self.s3.list_objects_v2(Bucket=self.bucket, Delimiter="/", Prefix="li")
        self.assertEqual([p["Prefix"] for p in folders["CommonPrefixes"]], ["list/"])
        after = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="list/", StartAfter="list/3 ü")
        self.assertEqual([o["Key"] for o in after["Contents"]], ["list/4 ü"])
        gone = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": f"list/{i} ü"} for i in range(5)]})
        self.assertEqual(len(gone["Deleted"]), 5)

    def test_lifecycle(self):
        rules = {"Rules": [{"ID": "tmp", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}}]}
        self.s3.put_bucket_lifecycle_configuration(Bucket=self.bucket, LifecycleConfiguration=rules)
        self.assertEqual(self.s3.get_bucket_lifecycle_configuration(Bucket=self.bucket)["Rules"], rules["Rules"])


class DynamoDB(unittest.TestCase):
    def test_index_transactions_and_stream(self):
        db, table = client("dynamodb"), "py-" + uuid.uuid4().hex[:8]
        made = db.create_table(
            TableName=table, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}, {"AttributeName": "state", "AttributeType": "S"}],
            GlobalSecondaryIndexes=[{"IndexName": "by-state", "KeySchema": [{"AttributeName": "state", "KeyType": "HASH"}], "Projection": {"ProjectionType": "ALL"}}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        arn = "arn:aws:dynamodb:us-east-1:123456789012:table/" + table
        self.assertEqual(made["TableDescription"]["TableArn"], arn)
        db.get_waiter("table_exists").wait(TableName=table)
        resource = boto3.resource("dynamodb", endpoint_url=os.environ["AWS_ENDPOINT_URL_DYNAMODB"]).Table(table)
        with resource.batch_writer() as batch:
            for i in range(3):
                batch.put_item(Item={"id": str(i), "state": "open" if i else "done", "n": i})
        found = db.query(TableName=table, IndexName="by-state", KeyConditionExpression="#s = :s", ExpressionAttributeNames={"#s": "state"}, ExpressionAttributeValues={":s": {"S": "open"}})
        self.assertEqual(found["Count"], 2)
        self.assertRaises(db.exceptions.ConditionalCheckFailedException, db.put_item, TableName=table, Item={"id": {"S": "1"}}, ConditionExpression="attribute_not_exists(id)")
        db.transact_write_items(TransactItems=[{"Put": {"TableName": table, "Item": {"id": {"S": "9"}}}}, {"Delete": {"TableName": table, "Key": {"id": {"S": "0"}}}}])
        with self.assertRaises(db.exceptions.TransactionCanceledException) as raised:
            db.transact_write_items(TransactItems=[
                {"Put": {"TableName": table, "Item": {"id": {"S": "10"}}}},
                {"ConditionCheck": {"TableName": table, "Key": {"id": {"S": "none"}}, "ConditionExpression": "attribute_exists(id)"}}])
        self.assertEqual([r["Code"] for r in raised.exception.response["CancellationReasons"]], ["None", "ConditionalCheckFailed"])
        streams = client("dynamodbstreams")
        stream = streams.list_streams(TableName=table)["Streams"][0]["StreamArn"]
        self.assertTrue(stream.startswith(arn + "/stream/"), stream)
        shard = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"][0]["ShardId"]
        iterator = streams.get_shard_iterator(StreamArn=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        records = streams.get_records(ShardIterator=iterator)["Records"]
        self.assertEqual([r["eventName"] for r in records], ["INSERT"] * 4 + ["REMOVE"])
        self.assertEqual({r["awsRegion"] for r in records}, {"us-east-1"})
        db.delete_table(TableName=table)


if __name__ == "__main__":
    unittest.main()
