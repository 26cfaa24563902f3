//! Why a task is not done, in the reader's language: what `GET /api/tasks/{id}/why` knows, in sentences. Pure.

import type { Why } from './api/types'
import { count, dateTime, span } from './format'

type Say = (key: string, params?: Record<string, unknown>) => string

/** Silence about a running task that is worth a word, in milliseconds. */
const SILENT_MS = 5_000

export function sayWhy(why: Why, t: Say): string[] {
  const said: string[] = []
  const say = (key: string, params: Record<string, unknown> = {}) => said.push(t(`why.${key}`, params))
  const { queue, holder, next_attempt: next, end, rows } = why
  const limit = why.attempts_limit === null ? '' : ` / ${why.attempts_limit}`
  if (why.stand === 'queued' && queue) {
    if (queue.ahead === 0) say('next', { lane: queue.lane })
    else say('waits', { ahead: `${count(queue.ahead)}${queue.ahead_is_exact ? '' : '+'}`, lane: queue.lane, in_flight: count(queue.in_flight) })
    if (queue.eta_s !== null && queue.per_second !== null) say('pace', { pace: queue.per_second.toFixed(1), eta: span(queue.eta_s * 1000) })
    else if (queue.per_second === null) say('no_pace')
  }
  if (why.stand === 'taken') say('taken', { worker: holder?.worker ?? '–' })
  if (why.stand === 'running') say('runs', { worker: holder?.worker ?? '–', attempt: `${why.attempt}${limit}` })
  if (holder && !holder.alive) say('gone', { time: dateTime(holder.lease_ends_at) })
  else if (holder?.idle_ms && holder.idle_ms > SILENT_MS) say('silent', { span: span(holder.idle_ms) })
  if (why.stand === 'delayed' && next) say(next.overdue ? 'overdue' : 'delayed', { attempt: `${next.attempt}${limit}`, time: dateTime(next.due_at) })
  if (why.stand === 'unknown') say('unknown')
  if (why.remedy && !end) say('unserved', { remedy: why.remedy })
  if (why.expires_at && !end && why.stand !== 'running') say('expires', { time: dateTime(why.expires_at) })
  if (why.last_error && !end) say('last_error', { code: why.last_error.code, message: why.last_error.message })
  if (end) {
    if (why.status === 'completed') say('completed', { version: why.model_version, attempt: why.attempt })
    else if (why.status === 'cancelled') say('cancelled', { reason: why.last_error?.message ?? '–' })
    else say(why.attempt === 0 ? 'failed_before' : 'failed', { attempt: `${why.attempt}${limit}` })
    if (end.dead_letter) say('dead')
  }
  if (!rows.answer) say('tables_away')
  else if (rows.behind_events) say('behind', { count: count(rows.behind_events) })
  return said
}
