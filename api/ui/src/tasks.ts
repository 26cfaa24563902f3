//! The list of tasks: pages one after another as they are scrolled to, kept up to date without moving anything that
//! somebody looks at.

import { onScopeDispose, ref, shallowRef, triggerRef, watch } from 'vue'
import { asFailure, get, isAbort, type Failure } from './api/client'
import type { JournalEvent, ListedTask, TaskPage } from './api/types'
import { live, useSocket } from './live/state'

const PAGE = 200
/** Of the newest, to find what is new. */
const PEEK = 50
const PEEK_EVERY_MS = 700
/** A search through texts is dear. */
const PEEK_TEXT_EVERY_MS = 10_000

export function useTaskList(query: () => string, mayMove: () => boolean) {
  const rows = shallowRef<ListedTask[]>([])
  const fresh = shallowRef<ListedTask[]>([])
  const failure = ref<Failure | null>(null)
  const loading = ref(true)
  const next = ref<string | null>(null)
  const searched = ref<TaskPage['searched']>(null)
  let at = new Map<string, ListedTask>()
  let control = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let peekedAt = 0

  async function load(cursor: string | null): Promise<void> {
    control.abort()
    control = new AbortController()
    const { signal } = control
    loading.value = true
    try {
      const page = await get<TaskPage>('/api/tasks', { q: query(), limit: PAGE, cursor }, signal)
      if (signal.aborted) return
      if (!cursor) {
        rows.value = []
        fresh.value = []
        at = new Map()
      }
      append(page.tasks)
      next.value = page.next
      searched.value = page.searched ?? null
      failure.value = null
    } catch (error) {
      if (isAbort(error) || signal.aborted) return
      failure.value = asFailure(error)
      if (!cursor) rows.value = []
    }
    loading.value = false
  }

  function append(tasks: ListedTask[]): void {
    for (const task of tasks) {
      if (at.has(task.task_id)) continue
      at.set(task.task_id, task)
      rows.value.push(task)
    }
    triggerRef(rows)
  }

  /** Looks for what is new at the top. */
  async function peek(): Promise<void> {
    timer = undefined
    peekedAt = Date.now()
    const asked = query()
    try {
      const page = await get<TaskPage>('/api/tasks', { q: asked, limit: PEEK })
      if (asked !== query()) return
      const unknown: ListedTask[] = []
      for (const task of page.tasks) {
        const known = at.get(task.task_id)
        if (known) Object.assign(known, later(known, task))
        else unknown.push(task)
      }
      fresh.value = unknown
      triggerRef(rows)
      if (unknown.length && mayMove()) showFresh()
    } catch {
      // The next event asks again; the list itself says when nobody answers.
    }
  }

  function peekSoon(): void {
    if (timer !== undefined) return
    const every = /(^|\s)-?text:|(^|\s)[^\s:]+(\s|$)/.test(query()) ? PEEK_TEXT_EVERY_MS : PEEK_EVERY_MS
    timer = setTimeout(() => void peek(), Math.max(120, peekedAt + every - Date.now()))
  }

  /** Puts what is new on top. */
  function showFresh(): void {
    if (fresh.value.length >= PEEK) {
      // There may be more between these and the rest.
      void load(null)
      return
    }
    for (const task of fresh.value) at.set(task.task_id, task)
    rows.value = [...fresh.value, ...rows.value]
    fresh.value = []
  }

  function take(events: JournalEvent[]): void {
    let changed = false
    let mayBeNew = false
    for (const event of events) {
      const known = at.get(event.task_id)
      if (known) changed = applyTo(known, event) || changed
      else mayBeNew = true
    }
    if (changed) triggerRef(rows)
    if (mayBeNew) peekSoon()
  }

  watch(query, () => load(null), { immediate: true })
  // Between the list's first answer and the first event something may have come.
  useSocket(() => 'all', take, { ready: peekSoon })
  watch(() => live.paused, (paused) => paused || peekSoon())
  onScopeDispose(() => {
    control.abort()
    clearTimeout(timer)
  })
  return {
    rows,
    fresh,
    failure,
    loading,
    next,
    searched,
    showFresh,
    reload: () => load(null),
    more: () => {
      if (!loading.value && next.value && !failure.value) void load(next.value)
    },
  }
}

const RANK = { pending: 0, processing: 1, completed: 2, failed: 2, cancelled: 2 }

/** The tables may be behind what an event has said already. */
function later(known: ListedTask, row: ListedTask): Partial<ListedTask> {
  return RANK[row.status] >= RANK[known.status] ? row : {}
}

/** Changes a row as the event says; tells whether it did. */
export function applyTo(row: ListedTask, event: JournalEvent): boolean {
  const { data } = event
  switch (event.type) {
    case 'processing':
      if (RANK[row.status] === 2) return false
      Object.assign(row, { status: 'processing', attempt: event.attempt, started_at: row.started_at ?? event.at })
      return true
    case 'completed':
      Object.assign(row, { status: 'completed', attempt: event.attempt, completed_at: event.at, model_version: data.model_version ?? row.model_version, error_code: null, error_message: null })
      return true
    case 'failed':
      Object.assign(row, { status: 'failed', attempt: event.attempt, completed_at: event.at, error_code: data.code ?? null, error_message: data.message ?? null })
      return true
    case 'retry_scheduled':
      if (RANK[row.status] === 2) return false
      Object.assign(row, { status: 'pending', error_code: data.code ?? null, error_message: data.message ?? null })
      return true
    case 'cancelled':
      Object.assign(row, { status: 'cancelled', completed_at: event.at })
      return true
    case 'dead_lettered':
      row.dead_lettered = true
      return true
    case 'redriven':
    case 'purged':
      row.dead_lettered = false
      return true
    default:
      return false
  }
}
