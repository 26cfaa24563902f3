// Where Redis and MySQL are, and how the processes talk to them.

import { Redis } from "ioredis";
import mysql from "mysql2/promise";

export const QUEUE = "analysis";

// Three attempts; ended jobs leave Redis at once, their truth is in MySQL.
export const JOB_OPTIONS = {
  attempts: 3,
  backoff: { type: "exponential", delay: 1000 },
  removeOnComplete: true,
  removeOnFail: 1000,
};

export function redis(options = {}) {
  return new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null, ...options });
}

export function pool(connectionLimit) {
  return mysql.createPool({ uri: process.env.DATABASE_URL, connectionLimit, multipleStatements: true, timezone: "Z" });
}
