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
/** Rows that a list grows to by what comes in at its top. */
const KEPT = 5_000
/** Under a flood. */
const RELOAD_EVERY_MS = 2_000
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
  let loadedAt = 0

  async function load(cursor: string | null): Promise<void> {
    control.abort()
    control = new AbortController()
    const { signal } = control
    loading.value = true
    try {
      const page = await get<TaskPage>('/api/tasks', { q: query(), limit: PAGE, cursor }, signal)
      if (signal.aborted) return
      if (!cursor) {
        loadedAt = Date.now()
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
      const told = new Map(fresh.value.map((task) => [task.task_id, task]))
      for (const task of page.tasks) {
        const known = at.get(task.task_id) ?? told.get(task.task_id)
        if (known) Object.assign(known, later(known, task))
        if (!at.has(task.task_id)) unknown.push(known ?? task)
        told.delete(task.task_id)
      }
      // What events told of may not be in the tables yet.
      offer([...told.values(), ...unknown])
      triggerRef(rows)
    } catch {
      // The next event asks again; the list itself says when nobody answers.
    }
  }

  function peekSoon(): void {
    if (timer !== undefined) return
    const every = /(^|\s)-?text:|(^|\s)[^\s:]+(\s|$)/.test(query()) ? PEEK_TEXT_EVERY_MS : PEEK_EVERY_MS
    timer = setTimeout(() => void peek(), Math.max(120, peekedAt + every - Date.now()))
  }

  /** Holds what is new ready; shows it at once where that moves nothing that somebody looks at. */
  function offer(tasks: ListedTask[]): void {
    fresh.value = tasks.slice(0, PEEK)
    const tooSoon = mustReload() && Date.now() - loadedAt < RELOAD_EVERY_MS
    if (tasks.length && mayMove() && !tooSoon) showFresh()
  }

  /** There may be more between what is new and the rest; or the list has become long, and what is looked at is its top. */
  function mustReload(): boolean {
    return fresh.value.length >= PEEK || rows.value.length > KEPT
  }

  /** Puts what is new on top. */
  function showFresh(): void {
    if (mustReload()) {
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
    const told: ListedTask[] = []
    for (const event of events) {
      const known = at.get(event.task_id) ?? told.find((task) => task.task_id === event.task_id) ?? fresh.value.find((task) => task.task_id === event.task_id)
      if (known) changed = applyTo(known, event) || changed
      else if (event.type === 'submitted' && query() === '' && told.length < PEEK) told.unshift(rowOf(event))
      else mayBeNew = true
    }
    if (told.length) offer([...told, ...fresh.value])
    if (changed) triggerRef(rows)
    if (mayBeNew || told.length) peekSoon()
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

/** A task as its first event tells of it, before the tables have it. */
function rowOf(event: JournalEvent): ListedTask {
  const { data } = event
  return {
    task_id: event.task_id,
    status: 'pending',
    task_type: String(data.task_type ?? ''),
    model_version: String(data.model_version ?? ''),
    attempt: 0,
    error_code: null,
    error_message: null,
    dead_lettered: false,
    batch_id: typeof data.batch_id === 'string' ? data.batch_id : null,
    batch_line: typeof data.batch_line === 'number' ? data.batch_line : null,
    created_at: event.at ?? new Date().toISOString(),
    started_at: null,
    completed_at: null,
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
