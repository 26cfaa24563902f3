//! The page's colours for charts, which draw on canvas and cannot read CSS by themselves.

import { shown } from '../settings'

export interface Colours {
  ink: string
  soft: string
  line: string
  surface: string
  accent: string
  good: string
  bad: string
  busy: string
  warn: string
  quiet: string
}

export function colours(): Colours {
  // Read so that whoever computes with it computes again when the theme changes.
  void shown.dark
  const style = getComputedStyle(document.documentElement)
  const read = (name: string) => style.getPropertyValue(name).trim()
  return {
    ink: read('--ink'),
    soft: read('--ink-3'),
    line: read('--line'),
    surface: read('--surface'),
    accent: read('--accent'),
    good: read('--good'),
    bad: read('--bad'),
    busy: read('--busy'),
    warn: read('--warn'),
    quiet: read('--quiet'),
  }
}

/** For what is many and has no meaning of its own: told apart also without colour sight, by lightness. */
export function series(): string[] {
  return shown.dark
    ? ['#7cc7c5', '#e0b567', '#8dbdf0', '#d99bbf', '#a9cf7f', '#f2a37e', '#b7a8ee', '#9aa3ab']
    : ['#17595d', '#c08a1e', '#3f7fc1', '#9c4a7c', '#5f8a34', '#c4623a', '#6b5bb0', '#7d858b']
}
