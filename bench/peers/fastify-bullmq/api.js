// Accepts uploads: the row and its first log entry in one transaction, then a job; answers queries from the row.

import { randomUUID } from "node:crypto";
import Fastify from "fastify";
import { QUEUE, JOB_OPTIONS, redis, pool } from "./servers.js";
import { Queue } from "bullmq";

const MODELS = { sentiment_analysis: ["v1.0"], named_entity_recognition: ["v1.0"] };

// Commands of requests that arrive together share one write to Redis.
const queue = new Queue(QUEUE, { connection: redis({ enableAutoPipelining: true }), defaultJobOptions: JOB_OPTIONS });
const database = pool(Number(process.env.API_POOL ?? 16));

// One round trip instead of four.
const INSERT = `BEGIN;
INSERT INTO analysis_tasks (task_id, task_type, data_payload, model_version, status, created_at, updated_at)
  VALUES (?, ?, ?, ?, 'pending', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6));
INSERT INTO task_logs (analysis_task_id, event_type, description, details, created_at)
  VALUES (LAST_INSERT_ID(), 'submitted', 'Task submitted', '{}', UTC_TIMESTAMP(6));
COMMIT`;

const app = Fastify({ logger: false, keepAliveTimeout: 120_000 });

function wrong(body) {
  const errors = {};
  for (const field of ["data", "task_type", "model_version"]) {
    if (typeof body?.[field] !== "string") errors[field] = ["must be a string"];
  }
  if (!errors.data) {
    try {
      const text = JSON.parse(body.data).text;
      if (typeof text !== "string" || text === "") errors.data = ["must hold a text"];
    } catch {
      errors.data = ["must be a JSON document"];
    }
  }
  const versions = MODELS[body?.task_type];
  if (!errors.task_type && !versions) errors.task_type = ["unknown"];
  if (!errors.model_version && versions && !versions.includes(body.model_version)) errors.model_version = ["unknown"];
  return Object.keys(errors).length > 0 ? errors : null;
}

app.post("/api/data/upload", async (request, reply) => {
  const body = request.body;
  const errors = wrong(body);
  if (errors) return reply.code(422).send({ message: "The given data was invalid.", errors });
  const taskId = randomUUID();
  const [results] = await database.query(INSERT, [taskId, body.task_type, body.data, body.model_version]);
  const row = results[1].insertId;
  await queue.add("analyse", { row, taskId, type: body.task_type, version: body.model_version, data: body.data });
  return reply.code(202).header("location", `/api/result/${taskId}`).send({ message: "任務已接收", task_id: taskId });
});

app.get("/api/result/:id", async (request, reply) => {
  const [rows] = await database.execute(
    `SELECT t.status, t.task_type, t.model_version, t.data_payload, t.error_message, r.result_data
       FROM analysis_tasks t LEFT JOIN analysis_results r ON r.analysis_task_id = t.id WHERE t.task_id = ?`,
    [request.params.id],
  );
  if (rows.length === 0) return reply.code(404).send({ detail: "任務不存在或已過期" });
  const { result_data: result, error_message: error, ...task } = rows[0];
  return { ...task, result, error };
});

app.get("/api/health", async () => ({ status: "ok" }));

await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    await app.close();
    process.exit(0);
  });
}
