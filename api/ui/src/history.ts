//! A task's events as people look at them: by attempts, on a line of time, and as what they had made of the task at any of
//! them. Pure.

import type { Delivery, Json, JournalEvent } from './api/types'

/** What a task was after an event. */
export interface State {
  status: string
  attempt: number
  worker: string | null
  model_version: string | null
  error: string | null
  next_attempt_at: string | null
  result: Json
  dead_lettered: boolean
  redriven_as: string | null
}

/** Folds `events[0..=upTo]`; what an event does not say stays. */
export function stateAt(events: JournalEvent[], upTo: number): State {
  const state: State = { status: 'pending', attempt: 0, worker: null, model_version: null, error: null, next_attempt_at: null, result: null, dead_lettered: false, redriven_as: null }
  for (const event of events.slice(0, upTo + 1)) {
    const { data } = event
    const error = data.code ? `${String(data.code)}: ${String(data.message ?? '')}` : null
    switch (event.type) {
      case 'submitted':
        state.model_version = String(data.model_version ?? '')
        break
      case 'processing':
        Object.assign(state, { status: 'processing', attempt: event.attempt, worker: String(data.worker ?? ''), next_attempt_at: null })
        break
      case 'retry_scheduled':
        Object.assign(state, { status: 'pending', worker: null, error, next_attempt_at: timeOfMicros(data.due_us) })
        break
      case 'completed':
        Object.assign(state, { status: 'completed', error: null, model_version: String(data.model_version ?? state.model_version), result: data.result ?? null })
        break
      case 'failed':
        Object.assign(state, { status: 'failed', error, next_attempt_at: null })
        break
      case 'cancelled':
        Object.assign(state, { status: 'cancelled', next_attempt_at: null })
        break
      case 'dead_lettered':
        state.dead_lettered = true
        break
      case 'redriven':
        Object.assign(state, { dead_lettered: false, redriven_as: String(data.as_task ?? '') })
        break
      case 'purged':
        state.dead_lettered = false
        break
    }
  }
  return state
}

export function timeOfMicros(micros: Json | undefined): string | null {
  return typeof micros === 'number' ? new Date(micros / 1000).toISOString() : null
}

export interface AttemptGroup {
  attempt: number
  worker: string
  begun: string | null
  ended: string | null
  outcome: 'running' | 'completed' | 'failed' | 'retry' | 'cancelled'
  code: string | null
  message: string | null
  next_at: string | null
  inference_us: number | null
  events: number
}

/** The attempts, each with how it ended. */
export function attemptsOf(events: JournalEvent[]): AttemptGroup[] {
  const groups: AttemptGroup[] = []
  for (const event of events) {
    if (event.type === 'processing') {
      groups.push({ attempt: event.attempt, worker: String(event.data.worker ?? ''), begun: event.at, ended: null, outcome: 'running', code: null, message: null, next_at: null, inference_us: null, events: 1 })
      continue
    }
    const group = groups.at(-1)
    if (!group || group.outcome !== 'running') continue
    const outcome = ({ completed: 'completed', failed: 'failed', retry_scheduled: 'retry', cancelled: 'cancelled' } as const)[event.type as 'completed']
    if (!outcome) continue
    Object.assign(group, {
      outcome,
      ended: event.at,
      code: event.data.code ?? null,
      message: event.data.message ?? event.data.reason ?? null,
      next_at: timeOfMicros(event.data.due_us),
      inference_us: event.data.inference_us ?? null,
      events: group.events + 1,
    })
  }
  return groups
}

export interface Bar {
  kind: 'wait' | 'work' | 'inference' | 'backoff' | 'fold' | 'delivery'
  /** Of the attempt, or of the delivery's attempt. */
  number: number
  begin: number
  /** null: it goes on. */
  end: number | null
  endpoint?: string
  bad?: boolean
}

/**
 * Where the time went, in milliseconds since 1970. When the outcome came into the tables is known where somebody is told of
 * it: the announcement was written down with it.
 */
export function barsOf(events: JournalEvent[], deliveries: Delivery[]): Bar[] {
  const bars: Bar[] = []
  let since: number | null = null
  let kind: Bar['kind'] = 'wait'
  let terminal: number | null = null
  for (const event of events) {
    if (!event.at) continue
    const at = Date.parse(event.at)
    if (event.type === 'submitted') since = at
    else if (event.type === 'processing') {
      if (since !== null) bars.push({ kind, number: event.attempt, begin: since, end: at })
      since = at
      kind = 'work'
    } else if (['completed', 'failed', 'cancelled', 'retry_scheduled'].includes(event.type) && since !== null) {
      const inference = typeof event.data.inference_us === 'number' ? event.data.inference_us / 1000 : null
      bars.push({ kind: kind === 'work' ? 'work' : kind, number: event.attempt, begin: since, end: at, bad: event.type === 'failed' || event.type === 'retry_scheduled' })
      if (inference !== null) bars.push({ kind: 'inference', number: event.attempt, begin: Math.max(since, at - inference), end: at })
      if (event.type === 'retry_scheduled') {
        since = at
        kind = 'backoff'
      } else {
        since = null
        terminal = at
      }
    }
  }
  if (since !== null) bars.push({ kind, number: 0, begin: since, end: null })
  const folded = deliveries[0]?.created_at
  if (terminal !== null && folded && Date.parse(folded) >= terminal) bars.push({ kind: 'fold', number: 0, begin: terminal, end: Date.parse(folded) })
  for (const delivery of deliveries) {
    for (const attempt of delivery.attempts) {
      const end = Date.parse(attempt.at)
      bars.push({ kind: 'delivery', number: attempt.attempt, endpoint: delivery.endpoint, begin: end - attempt.duration_us / 1000, end, bad: attempt.outcome !== 'delivered' })
    }
  }
  return bars
}
