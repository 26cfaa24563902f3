//! Numbers, times and spans for people. Pure.

import { settings } from './settings'

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : new Intl.NumberFormat(settings.language).format(value)
}

export function percent(share: number | null | undefined, digits = 1): string {
  if (share === null || share === undefined) return '–'
  return new Intl.NumberFormat(settings.language, { style: 'percent', maximumFractionDigits: digits }).format(share)
}

/** A span of time: `0.42 ms`, `18 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`. */
export function span(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return '–'
  if (ms < 0) return '0 ms'
  if (ms < 10) return `${trim(ms, ms < 1 ? 2 : 1)} ms`
  if (ms < 1000) return `${Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 10) return `${trim(s, 1)} s`
  if (s < 60) return `${Math.round(s)} s`
  const whole = Math.round(s)
  if (s < 3600) return pair(Math.floor(whole / 60), 'min', whole % 60, 's')
  const minutes = Math.round(s / 60)
  if (s < 86_400) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min')
  const hours = Math.round(s / 3600)
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function pair(first: number, unit: string, second: number, smaller: string): string {
  return second === 0 ? `${first} ${unit}` : `${first} ${unit} ${second} ${smaller}`
}

function trim(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)))
}

export function bytes(size: number): string {
  if (size < 1024) return `${size} B`
  if (size < 1024 ** 2) return `${(size / 1024).toFixed(1)} KiB`
  return `${(size / 1024 ** 2).toFixed(1)} MiB`
}

/** `2026-11-25 23:04:05.123`, local or UTC as chosen. */
export function dateTime(at: string | number | null | undefined, fine = false): string {
  if (at === null || at === undefined) return '–'
  const iso = shift(at)
  return `${iso.slice(0, 10)} ${iso.slice(11, fine ? 23 : 19)}`
}

/** `23:04:05.123`. */
export function clock(at: string | number | null | undefined, fine = false): string {
  if (at === null || at === undefined) return '–'
  return shift(at).slice(11, fine ? 23 : 19)
}

export function hourMinute(at: string | number): string {
  return shift(at).slice(11, 16)
}

function shift(at: string | number): string {
  const time = new Date(at)
  if (Number.isNaN(time.getTime())) return String(at)
  return (settings.utc ? time : new Date(time.getTime() - time.getTimezoneOffset() * 60_000)).toISOString()
}

/** The beginning and the end of an id: enough for people to tell apart, short enough for a table. */
export function shortId(id: string): string {
  return id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id
}
