"""Runs tasks: marks the row, runs the model, writes the outcome in one transaction, announces it."""

import hashlib
import hmac
import json
import os

import MySQLdb
import urllib3
from celery import Celery
from MySQLdb.constants import CLIENT, ER

from model import analyse
from servers import database_settings

app = Celery("analysis", broker=os.environ["REDIS_URL"])
app.conf.update(
    # A worker that dies hands its task back, and no result backend repeats what MySQL holds.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "64")),
    broker_connection_retry_on_startup=True,
    # What nobody listens to is not sent.
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    task_time_limit=120,
)

WEBHOOK_URL = os.environ["WEBHOOK_URL"]
WEBHOOK_SECRET = os.environ["WEBHOOK_SECRET"].encode()

BEGIN = """BEGIN;
UPDATE analysis_tasks SET status = 'processing', started_at = COALESCE(started_at, UTC_TIMESTAMP(6)),
  updated_at = UTC_TIMESTAMP(6) WHERE id = %s AND status IN ('pending', 'processing');
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (%s, 'processing', 'Analysis started', %s, UTC_TIMESTAMP(6));
COMMIT"""

# The unique key of analysis_results makes a second completion fail as a whole.
COMPLETE = """BEGIN;
INSERT INTO analysis_results (analysis_task_id, result_data, created_at, updated_at)
  VALUES (%s, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6));
UPDATE analysis_tasks SET status = 'completed', completed_at = UTC_TIMESTAMP(6), updated_at = UTC_TIMESTAMP(6)
  WHERE id = %s;
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (%s, 'completed', 'Analysis completed', %s, UTC_TIMESTAMP(6));
COMMIT"""

FAIL = """BEGIN;
UPDATE analysis_tasks SET status = 'failed', error_message = %s, completed_at = UTC_TIMESTAMP(6),
  updated_at = UTC_TIMESTAMP(6) WHERE id = %s;
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (%s, 'failed', 'Analysis failed', '{}', UTC_TIMESTAMP(6));
COMMIT"""

# One connection of each kind a worker process, opened on first use and so after the fork.
_database = None
_webhooks = urllib3.PoolManager(maxsize=1, retries=urllib3.Retry(3, backoff_factor=1.0, allowed_methods=None))


def transaction(sql: str, values: tuple) -> None:
    global _database
    if _database is None:
        _database = MySQLdb.connect(autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS, **database_settings())
    cursor = _database.cursor()
    try:
        cursor.execute(sql, values)
        while cursor.nextset() is not None:
            pass
    except MySQLdb.IntegrityError:
        _database.rollback()
        raise
    except MySQLdb.Error:
        # Whatever state it is in, the next attempt opens another.
        _database.close()
        _database = None
        raise
    finally:
        cursor.close()


def announce(task_id: str, version: str, status: str, result: dict | None, error: str | None) -> None:
    document = {"task_id": task_id, "status": status, "result": result, "error_message": error, "model_version": version}
    body = json.dumps(document, ensure_ascii=False).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Signature": hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest(),
    }
    answer = _webhooks.request("POST", WEBHOOK_URL, body=body, headers=headers)
    if answer.status >= 300:
        raise RuntimeError(f"the webhook was answered {answer.status}")


@app.task(bind=True, max_retries=2)
def analyse_task(self, row: int, task_id: str, task_type: str, version: str, data: str) -> None:
    details = json.dumps({"attempt": self.request.retries + 1})
    try:
        transaction(BEGIN, (row, row, details))
        result = analyse(task_type, json.loads(data)["text"])
        try:
            transaction(COMPLETE, (row, json.dumps(result, ensure_ascii=False), row, row, details))
        except MySQLdb.IntegrityError as error:
            # An attempt before this one wrote the outcome and did not get to announce it.
            if error.args[0] != ER.DUP_ENTRY:
                raise
        announce(task_id, version, "completed", result, None)
    except Exception as error:
        if self.request.retries < self.max_retries:
            raise self.retry(exc=error, countdown=2**self.request.retries)
        transaction(FAIL, (str(error), row, row))
        announce(task_id, version, "failed", None, str(error))
