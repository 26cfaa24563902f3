//! What the pill in the head shows, and the two ways a page stays up to date: a socket, or asking again.

import { onScopeDispose, reactive, ref, shallowRef, watch } from 'vue'
import { asFailure, isAbort, type Failure } from '../api/client'
import type { JournalEvent } from '../api/types'
import { serverNow } from '../clock'
import { LiveSocket, type SocketState, type Subscription } from './socket'

export const live = reactive({
  state: 'connecting' as SocketState | 'paused',
  /** Between an event and the moment it was here, in milliseconds. */
  lagMs: null as number | null,
  /** Of this page; null: it needs none. */
  why: '',
  paused: false,
})

/** Hears of events while the scope lives; `subscription` may change. Paused, nothing is taken; afterwards it goes on there. */
export function useSocket(
  subscription: () => Subscription | null,
  take: (events: JournalEvent[]) => void,
  options: { after?: () => string | undefined; ready?: () => void } = {},
): void {
  let socket: LiveSocket | null = null
  let waiting: JournalEvent[] = []
  let frame = 0

  // All that comes within a frame is taken at once.
  const flush = () => {
    frame = 0
    if (live.paused) return
    const events = waiting
    waiting = []
    if (events.length) take(events)
  }
  const open = (wanted: Subscription | null) => {
    socket?.close()
    socket = null
    waiting = []
    if (!wanted) return
    socket = new LiveSocket(
      wanted,
      {
        event(event) {
          if (event.at) measureLag(event.at)
          waiting.push(event)
          if (waiting.length > 50_000) waiting.splice(0, waiting.length - 50_000)
          if (!frame) frame = window.setTimeout(flush, 60)
        },
        state(state, why = '') {
          live.state = state
          live.why = why
        },
        subscribed: options.ready,
      },
      options.after?.(),
    )
  }
  watch(subscription, (now, before) => JSON.stringify(now) === JSON.stringify(before) || open(now), { immediate: true })
  watch(() => live.paused, (paused) => paused || flush())
  onScopeDispose(() => {
    socket?.close()
    clearTimeout(frame)
  })
}

function measureLag(at: string): void {
  const lag = serverNow() - Date.parse(at)
  // What is older came from the past, on purpose.
  if (lag > -2_000 && lag < 60_000) live.lagMs = Math.max(0, lag)
}

/** Asks again every `everyMs` while the scope lives and the page is seen. `marks` whether it moves the pill. */
export function usePoll<T>(ask: (signal: AbortSignal) => Promise<T>, everyMs: number, marks = true) {
  const data = shallowRef<T | null>(null)
  const failure = ref<Failure | null>(null)
  const loading = ref(true)
  let timer: ReturnType<typeof setTimeout> | undefined
  let control = new AbortController()
  let stopped = false

  const load = async () => {
    clearTimeout(timer)
    control.abort()
    control = new AbortController()
    const mine = control
    try {
      const answer = await ask(mine.signal)
      if (mine.signal.aborted) return
      data.value = answer
      failure.value = null
      if (marks) Object.assign(live, { state: 'live', why: '', lagMs: null })
    } catch (error) {
      if (isAbort(error) || mine.signal.aborted) return
      failure.value = asFailure(error)
      if (marks && failure.value.status === 0) Object.assign(live, { state: 'reconnecting', why: failure.value.detail })
    }
    loading.value = false
    if (!stopped) timer = setTimeout(tick, everyMs)
  }
  const tick = () => (document.hidden || live.paused ? (timer = setTimeout(tick, everyMs)) : void load())

  if (marks) live.state = 'connecting'
  void load()
  onScopeDispose(() => {
    stopped = true
    clearTimeout(timer)
    control.abort()
  })
  return { data, failure, loading, reload: load }
}

/** Asks once, and again when told. */
export function useOnce<T>(ask: (signal: AbortSignal) => Promise<T>) {
  const data = shallowRef<T | null>(null)
  const failure = ref<Failure | null>(null)
  const loading = ref(true)
  let control = new AbortController()
  const load = async () => {
    control.abort()
    control = new AbortController()
    const mine = control
    loading.value = true
    try {
      const answer = await ask(mine.signal)
      if (mine.signal.aborted) return
      data.value = answer
      failure.value = null
    } catch (error) {
      if (isAbort(error) || mine.signal.aborted) return
      failure.value = asFailure(error)
    }
    loading.value = false
  }
  void load()
  onScopeDispose(() => control.abort())
  return { data, failure, loading, reload: load }
}
