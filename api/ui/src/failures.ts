//! Errors that are the same but for what is particular to one task. Pure.

import type { DeadLetter } from './api/types'

export interface Group {
  code: string
  pattern: string
  letters: DeadLetter[]
  types: string[]
}

/** Ids, numbers, addresses and quoted texts stand for themselves in every message. */
export function normalized(message: string): string {
  return message
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, '‹id›')
    .replace(/\b[a-z0-9-]+-\d+-[0-9a-f]{4,}\b/gi, '‹analyzer›')
    .replace(/\b[0-9a-f]{16,}\b/gi, '‹hash›')
    .replace(/\d{4}-\d\d-\d\d[T ][\d:.]+Z?/g, '‹time›')
    .replace(/"[^"]{1,200}"/g, '‹text›')
    .replace(/\d+(\.\d+)?/g, '‹n›')
}

/** Those with the same code and the same kind of message together, most first. */
export function groupsOf(letters: DeadLetter[]): Group[] {
  const groups = new Map<string, Group>()
  for (const letter of letters) {
    const code = letter.error_code ?? ''
    const pattern = normalized(letter.error_message ?? '')
    const key = `${code}\n${pattern}`
    const group = groups.get(key) ?? { code, pattern, letters: [], types: [] }
    group.letters.push(letter)
    if (letter.task_type && !group.types.includes(letter.task_type)) group.types.push(letter.task_type)
    groups.set(key, group)
  }
  return [...groups.values()].sort((a, b) => b.letters.length - a.letters.length)
}

/** The longest part of a message that all of its kind have: what the API can look for. */
export function commonPart(pattern: string): string {
  return pattern
    .split(/‹[a-z]+›/)
    .map((part) => part.trim())
    .reduce((longest, part) => (part.length > longest.length ? part : longest), '')
    .slice(0, 200)
}
