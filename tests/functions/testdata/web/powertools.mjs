// Powertools for AWS Lambda (TypeScript), on the AWS SDK that the runtime brings.
import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency';
import { DynamoDBPersistenceLayer } from '@aws-lambda-powertools/idempotency/dynamodb';
import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { Tracer } from '@aws-lambda-powertools/tracer';

const logger = new Logger({ serviceName: 'orders' });
const metrics = new Metrics({ namespace: 'shop', serviceName: 'orders' });
const tracer = new Tracer({ serviceName: 'orders' });
const persistenceStore = new DynamoDBPersistenceLayer({ tableName: 'functions-idempotency' });

const order = makeIdempotent(async (event) => ({ order: event.order, made: crypto.randomUUID() }), {
  persistenceStore, config: new IdempotencyConfig({ eventKeyJmesPath: 'order' }),
});

export const handler = async (event, context) => {
  logger.addContext(context);
  logger.info('an order', { order: event.order });
  metrics.addMetric('orders', MetricUnit.Count, 1);
  metrics.publishStoredMetrics();
  tracer.putAnnotation('order', event.order);
  return order(event, context);
};
