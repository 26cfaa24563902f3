// Runs jobs: marks the row, runs the model, writes the outcome in one transaction, announces it.

import { createHmac } from "node:crypto";
import { Worker } from "bullmq";
import { Agent, request } from "undici";
import { analyse } from "./model.js";
import { QUEUE, pool, redis } from "./servers.js";

const CONCURRENCY = Number(process.env.WORKER_CONCURRENCY ?? 16);
const WEBHOOK_URL = process.env.WEBHOOK_URL;
const WEBHOOK_SECRET = process.env.WEBHOOK_SECRET;

const database = pool(Number(process.env.WORKER_POOL ?? 8));
const agent = new Agent({ connections: CONCURRENCY, keepAliveTimeout: 60_000 });

const BEGIN = `BEGIN;
UPDATE analysis_tasks SET status = 'processing', started_at = COALESCE(started_at, UTC_TIMESTAMP(6)),
  updated_at = UTC_TIMESTAMP(6) WHERE id = ? AND status IN ('pending', 'processing');
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (?, 'processing', 'Analysis started', ?, UTC_TIMESTAMP(6));
COMMIT`;

// The unique key of analysis_results makes a second completion fail as a whole.
const COMPLETE = `BEGIN;
INSERT INTO analysis_results (analysis_task_id, result_data, created_at, updated_at)
  VALUES (?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6));
UPDATE analysis_tasks SET status = 'completed', completed_at = UTC_TIMESTAMP(6), updated_at = UTC_TIMESTAMP(6)
  WHERE id = ?;
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (?, 'completed', 'Analysis completed', ?, UTC_TIMESTAMP(6));
COMMIT`;

const FAIL = `BEGIN;
UPDATE analysis_tasks SET status = 'failed', error_message = ?, completed_at = UTC_TIMESTAMP(6),
  updated_at = UTC_TIMESTAMP(6) WHERE id = ?;
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (?, 'failed', 'Analysis failed', '{}', UTC_TIMESTAMP(6));
COMMIT`;

// A failed statement leaves its transaction open on the pool's connection.
async function transaction(sql, values) {
  const connection = await database.getConnection();
  try {
    await connection.query(sql, values);
  } catch (error) {
    await connection.query("ROLLBACK");
    throw error;
  } finally {
    connection.release();
  }
}

async function announce(taskId, version, status, result, errorMessage) {
  const body = JSON.stringify({ task_id: taskId, status, result, error_message: errorMessage, model_version: version });
  const signature = createHmac("sha256", WEBHOOK_SECRET).update(body).digest("hex");
  const headers = { "content-type": "application/json", "x-webhook-signature": signature };
  const answer = await request(WEBHOOK_URL, { method: "POST", body, headers, dispatcher: agent });
  await answer.body.dump();
  if (answer.statusCode >= 300) throw new Error(`the webhook was answered ${answer.statusCode}`);
}

async function run(job) {
  const { row, taskId, type, version, data } = job.data;
  const details = JSON.stringify({ attempt: job.attemptsMade + 1 });
  await transaction(BEGIN, [row, row, details]);
  const result = analyse(type, JSON.parse(data).text);
  try {
    await transaction(COMPLETE, [row, JSON.stringify(result), row, row, details]);
  } catch (error) {
    // An attempt before this one wrote the outcome and did not get to announce it.
    if (error.code !== "ER_DUP_ENTRY") throw error;
  }
  await announce(taskId, version, "completed", result, null);
}

const worker = new Worker(QUEUE, run, { connection: redis(), concurrency: CONCURRENCY });

worker.on("failed", async (job, error) => {
  if (!job || job.attemptsMade < job.opts.attempts) return;
  await transaction(FAIL, [error.message, job.data.row, job.data.row]);
  await announce(job.data.taskId, job.data.version, "failed", null, error.message);
});
worker.on("error", (error) => console.error(error));

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    await worker.close();
    process.exit(0);
  });
}
