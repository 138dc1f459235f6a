"""The AWS SDK that the runtime brings, with its defaults."""
import boto3
from boto3.dynamodb.types import TypeDeserializer


def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket="functions-files", Key="python", Body=b"from python")
    text = s3.get_object(Bucket="functions-files", Key="python")["Body"].read().decode()
    table = boto3.resource("dynamodb").Table("functions-idempotency")
    table.put_item(Item={"id": "python", "price": TypeDeserializer().deserialize({"N": "0.1234567890123456789012345"})})
    item = table.get_item(Key={"id": "python"})["Item"]
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "functions-files", "Key": "python"})
    return {"text": text, "price": item["price"], "url": url, "version": boto3.__version__}
