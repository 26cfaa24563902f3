//! What the API answers, as far as the pages read it. `/docs` has all of it.

export type Status = 'pending' | 'processing' | 'completed' | 'failed' | 'cancelled'
export const STATUSES: Status[] = ['pending', 'processing', 'completed', 'failed', 'cancelled']
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }
export type Time = string | null

export interface ListedTask {
  task_id: string
  status: Status
  task_type: string
  model_version: string
  attempt: number
  error_code: string | null
  error_message: string | null
  dead_lettered: boolean
  batch_id: string | null
  batch_line: number | null
  created_at: string
  started_at: Time
  completed_at: Time
}

export interface TaskPage {
  tasks: ListedTask[]
  next: string | null
  searched?: { tasks: number; all: boolean } | null
}

export interface Count {
  value: string
  count: number
}

export interface Facets extends Record<'status' | 'task_type' | 'model_version' | 'error_code', Count[]> {
  matched: number
  matched_is_exact: boolean
}

/** The whole task; of one that the tables do not have yet, some times are not known. */
export interface Task extends Omit<ListedTask, 'created_at'> {
  data_payload: Json
  result: Json
  worker: string | null
  inference_us: number | null
  model_digest: string | null
  backend: string | null
  route_reason: string | null
  user_id: number | null
  retry_of: string | null
  redriven_as: string | null
  webhook_url: string | null
  expires_at: Time
  position: string
  created_at: Time
  updated_at: Time
  links: { cancel?: string; retry?: string; batch?: string }
}

export interface JournalEvent {
  position: string
  type: string
  task_id: string
  at: Time
  actor: string
  attempt: number
  trace?: string | null
  data: { [name: string]: Json }
  cursor?: string
}

export interface History {
  events: JournalEvent[]
  complete: boolean
  next: number | null
}

export interface Server {
  name: string
  in_flight: number
  last_read_at: Time
  seen_at: Time
}

export interface Why {
  status: Status
  stand: 'queued' | 'taken' | 'running' | 'delayed' | 'ended' | 'unknown'
  model_version: string
  attempt: number
  attempts_limit: number | null
  expires_at: Time
  last_error: { code: string; message: string } | null
  queue: { lane: string; ahead: number; ahead_is_exact: boolean; in_flight: number; per_second: number | null; eta_s: number | null } | null
  holder: { worker: string; alive: boolean; idle_ms: number | null; lease_ends_at: Time } | null
  next_attempt: { attempt: number; due_at: Time; overdue: boolean } | null
  end: { at: Time; dead_letter: boolean; redriven_as: string | null } | null
  analyzers: Server[]
  remedy: string | null
  rows: { answer: boolean; status: string | null; behind_events: number | null; folded_at: Time }
}

export interface Attempt {
  attempt: number
  outcome: string
  status_code: number | null
  error: string | null
  duration_us: number
  at: string
}

export interface Delivery {
  id?: string
  position: string
  endpoint: string
  task_id?: string
  url: string | null
  state: 'due' | 'sending' | 'delivered' | 'given_up'
  due_at: Time
  created_at: string
  finished_at: Time
  attempt_count?: number
  attempts: Attempt[]
}

export interface SentRequest {
  method: string
  headers: { name: string; value: string }[]
  signed_prefix: string
}

export interface Exchanges {
  delivery: Delivery
  body: string
  signed: boolean
  attempts: (Attempt & { request: SentRequest | null; answer: { content_type: string | null; body: string; cut: boolean } | null })[]
}

export interface DeliveryPage {
  deliveries: Delivery[]
  next?: string | null
}

export interface Endpoint {
  endpoint: string
  url: string | null
  configured: boolean
  tried: number
  delivered: number
  success: number | null
  p95_ms: number | null
  outstanding: number
  given_up: number
  last_attempt_at: Time
  last_error: string | null
  last_delivered_at: Time
}

export interface Order {
  order: number
  kind: string
  state: 'waiting' | 'done'
  resent: number | null
  status_code: number | null
  error: string | null
  duration_us: number | null
}

export type Level = 'ok' | 'warn' | 'bad'

export interface Finding {
  level: Level
  code: string
  params: Record<string, string | number>
  text: string
}

export interface Quantiles {
  p50: number
  p95: number
  p99: number
}

export interface Worker extends Server {
  lanes: string[]
  started_at: Time
}

export interface Lane {
  task_type: string
  model_version: string
  waiting: number
  in_flight: number
  oldest_s: number | null
  analyzers: number | null
}

export interface Minute {
  minute: string
  submitted: number
  completed: number
  failed: number
  cancelled: number
}

export type Stage = 'end_to_end_ms' | 'wait_ms' | 'inference_ms' | 'fold_ms' | 'delivery_ms'

export interface Overview {
  at: string
  state: Finding
  problems: Finding[]
  per_minute: Minute[]
  per_minute_complete: boolean
  now: { waiting: number; in_flight: number; delayed: number; dead_letters: number; limit: number } | null
  lanes: Lane[]
  analyzers: { alive: number; workers: Worker[] } | null
  latency: ({ sample: number } & Record<Stage, Quantiles | null>) | null
  failures: { error_code: string; count: number }[]
  webhooks: { tried: number; delivered: number; success: number | null; p95_ms: number | null; outstanding: number; overdue: number } | null
  projector: { lag_events: number; lag_seconds: number } | null
}

export interface Insight {
  matched: number
  matched_is_exact: boolean
  sampled: number
  from: Time
  to: Time
  bucket_s: number
  labels: { label: string; count: number; share: number }[]
  over_time: { at: string; labels: Record<string, number>; mean_score: number | null; count: number }[]
  scores: { from: number; to: number; count: number }[]
  mean_score: number | null
  entities: { text: string; type: string; count: number }[]
  models: { task_type: string; model_version: string; count: number }[]
}

export interface ListedModel {
  task_type: string
  version: string
  name: string
  description: string
  languages: string[]
  state: 'announced' | 'registered' | 'gone' | 'retired'
  roles: string[]
  digest: string
  engine: string
  device: string
  license: string
  analyzers: number | null
}

export interface Routes {
  task_type: string
  stable: string | null
  candidate: string | null
  latest: string | null
  canary: { version: string; share: number } | null
  shadows: string[]
  earlier: string[]
  retired: string[]
  versions: string[]
}

export interface VersionFigures {
  version: string
  tasks: number
  tasks_are_exact: boolean
  sampled: number
  completed: number
  failed: number
  failed_is_exact: boolean
  failure_share: number | null
  inference_ms: Quantiles | null
  total_ms: Quantiles | null
  labels: { label: string; count: number; share: number }[]
}

export interface Figures {
  task_type: string
  from: string
  versions: VersionFigures[]
}

export interface Models {
  models: ListedModel[]
  task_types: Routes[]
  refused: { folder: string; task_type: string | null; version: string | null; reason: string; worker: string; at: Time }[]
  position: number
}

export interface Schema {
  type?: string | string[]
  title?: string
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  enum?: Json[]
  default?: Json
  examples?: Json[]
  minLength?: number
  maxLength?: number
  minimum?: number
  maximum?: number
}

/** A model's card: what the list says of it, and all else. */
export interface Card extends Omit<ListedModel, 'analyzers'> {
  labels: string[]
  input_schema: Schema
  output_schema: Schema
  limits: string
  training: string
  data: { name: string; source: string; license: string; used_for: string }[]
  quality: { set: string; metric: string; value: number; published?: number; published_source?: string }[]
  weaknesses: string[]
  speed: string
  resident_bytes: number
  package_bytes: number
  memory_mb: number
  timeout_ms: number
  checks_passed: number
  batch: { max_items: number; max_cost: number; cost: string }
}

export interface RegistryEvent {
  n: number
  at: Time
  event: string
  actor: string
  reason: string | null
  data: { [name: string]: Json }
}

export interface ShadowComparison {
  versions: { version: string; compared: number; agreed: number; failed: number; mean_us: number; answered_by: string | null }[]
  disagreements: { task_id: string; version: string; at: string; answer: Json; shadow: Json; error_code: string | null }[]
}

export interface DeadLetter {
  task_id: string
  failed_at: Time
  task_type?: string
  model_version?: string
  attempts?: number
  error_code?: string | null
  error_message?: string | null
}

export interface DeadLetters {
  dead_letters: DeadLetter[]
  next: string | null
  unreadable: number
}

export interface Acted {
  dry_run: boolean
  matched: number
  more: boolean
  next: string | null
  done: number
  already: number
  left: number
  refused: { task_id: string; detail: string }[]
}

export interface Account {
  batch_id: string
  accepted: number
  rejected: number
  repeated: number
  errors: { line: number; errors: Record<string, string[]> }[]
}

export interface BatchProgress {
  batch_id: string
  received: boolean
  received_at: Time
  accepted: number | null
  rejected: number | null
  done: boolean
  tasks: Record<Status, number> | null
}

export interface Side {
  rows: number
  checksum: string
}

export interface Rebuild {
  rebuild: number
  owner: string
  state: 'loading' | 'indexing' | 'comparing' | 'swapping' | 'swapped' | 'different' | 'failed' | 'died'
  events: number
  events_whole: number | null
  started_at: string
  updated_at: string
  ended_at: Time
  report: { equal: boolean; seconds: number; projector_held_ms: number; swapped_at: string; tables: { table: string; equal: boolean; live: Side; fresh: Side }[] } | null
  error: string | null
}

export interface Rebuilds {
  rebuilds: Rebuild[]
  check: { checked_at: string; tasks: number; events: number; differences: number; differed_at: Time; difference: string | null } | null
}

export interface System {
  at: string
  build: Record<string, string>
  checks: { level: 'good' | 'weak' | 'broken'; what: string; remedy: string }[]
  settings: { name: string; value: string | null; given: boolean; hidden: boolean }[]
}

export interface Health {
  status: 'ok' | 'degraded' | 'down'
  version: string
  problems: string[]
}
