//! One WebSocket with one subscription. When it breaks it comes back by itself and goes on behind the last event it saw, so
//! that nothing is missed; what comes twice is dropped by its position.

import { socketAddressOf } from '../api/base'
import type { JournalEvent } from '../api/types'

export type Subscription = 'all' | { task: string } | { type: string } | { query: string }
export type SocketState = 'connecting' | 'live' | 'reconnecting' | 'refused'

export interface Hears {
  event(event: JournalEvent): void
  state(state: SocketState, why?: string): void
  /** The server's sign that it is there, with its time. */
  alive?(at: string): void
  /** The subscription is in force; what was asked for of the past has come. */
  subscribed?(cursor: string): void
}

interface Message extends Partial<JournalEvent> {
  subscribed?: unknown
  alive?: string
  error?: { field?: string; detail: string }
}

const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 15_000
/** The server says every 15 s that it is there. */
const SILENCE_MS = 40_000
/** Positions that are remembered, to drop what comes twice after a resume. */
const REMEMBERED = 4096

export class LiveSocket {
  private socket: WebSocket | null = null
  private cursor: string | undefined
  private readonly seen = new Set<string>()
  private pauseMs = FIRST_PAUSE_MS
  private timer: ReturnType<typeof setTimeout> | undefined
  private watchdog: ReturnType<typeof setTimeout> | undefined
  private closed = false

  constructor(
    private readonly wanted: Subscription,
    private readonly hears: Hears,
    after?: string,
  ) {
    this.cursor = after
    this.connect()
  }

  close(): void {
    this.closed = true
    clearTimeout(this.timer)
    clearTimeout(this.watchdog)
    this.socket?.close(1000)
  }

  private connect(): void {
    this.hears.state(this.cursor === undefined ? 'connecting' : 'reconnecting')
    const socket = new WebSocket(socketAddressOf('/api/ws'))
    this.socket = socket
    socket.onopen = () => {
      socket.send(JSON.stringify(this.cursor === undefined ? { subscribe: this.wanted } : { subscribe: this.wanted, after: this.cursor }))
      this.watch()
    }
    socket.onmessage = (message) => {
      this.watch()
      this.take(JSON.parse(String(message.data)) as Message)
    }
    socket.onclose = (close) => this.lost(close)
  }

  private take(message: Message): void {
    if (message.position !== undefined) {
      if (message.cursor) this.cursor = message.cursor
      if (this.isNew(message.position)) this.hears.event(message as JournalEvent)
    } else if (message.subscribed !== undefined) {
      this.pauseMs = FIRST_PAUSE_MS
      if (message.cursor) this.cursor = message.cursor
      this.hears.state('live')
      this.hears.subscribed?.(message.cursor ?? '')
    } else if (message.alive !== undefined) {
      if (message.cursor) this.cursor = message.cursor
      this.hears.alive?.(message.alive)
    } else if (message.error) {
      this.hears.state('refused', message.error.detail)
    }
  }

  private isNew(position: string): boolean {
    if (this.seen.has(position)) return false
    this.seen.add(position)
    if (this.seen.size > REMEMBERED) {
      for (const oldest of this.seen) {
        this.seen.delete(oldest)
        if (this.seen.size <= REMEMBERED / 2) break
      }
    }
    return true
  }

  private lost(close: CloseEvent): void {
    clearTimeout(this.watchdog)
    if (this.closed) return
    const resume = cursorOf(close.reason)
    if (resume) this.cursor = resume
    this.hears.state('reconnecting', close.reason)
    // Not all at once when a server comes back.
    this.timer = setTimeout(() => this.connect(), this.pauseMs * (0.5 + Math.random() / 2))
    this.pauseMs = Math.min(this.pauseMs * 2, LONGEST_PAUSE_MS)
  }

  /** A connection that only looks open is given up. */
  private watch(): void {
    clearTimeout(this.watchdog)
    this.watchdog = setTimeout(() => this.socket?.close(4000, 'silent'), SILENCE_MS)
  }
}

/** `resume after <cursor>`, said to one that was cut off for being too slow. */
export function cursorOf(reason: string): string | undefined {
  return /^resume after (\S+)$/.exec(reason)?.[1]
}
