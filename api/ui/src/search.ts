//! The words of a search, as far as the page itself must know them: to switch one on and off, and to complete what is
//! typed. What they mean the API decides. Pure.

export const WORDS = ['status', 'type', 'model', 'error', 'age', 'from', 'to', 'text', 'batch', 'id'] as const
export type Word = (typeof WORDS)[number]

export const STATUS_VALUES = ['pending', 'processing', 'completed', 'failed', 'cancelled', 'open', 'dead']

export interface Part {
  /** Empty for a bare word. */
  word: string
  value: string
  not: boolean
}

/** Splits at spaces outside of quotes. */
export function parse(query: string): Part[] {
  const parts: Part[] = []
  for (const match of query.matchAll(/(-?)(?:([a-z_]+):)?("(?:[^"\\]|\\.)*"?|[^\s"]+)/g)) {
    const value = match[3] ?? ''
    parts.push({ not: match[1] === '-', word: match[2] ?? '', value: unquote(value) })
  }
  return parts
}

export function write(parts: Part[]): string {
  return parts.map((part) => `${part.not ? '-' : ''}${part.word ? `${part.word}:` : ''}${quote(part.value)}`).join(' ')
}

/** The values of `word:a,b`. */
export function valuesOf(query: string, word: string): string[] {
  return parse(query)
    .filter((part) => part.word === word && !part.not)
    .flatMap((part) => part.value.split(','))
}

/** Switches one value of a word on or off; the rest stays. */
export function toggle(query: string, word: string, value: string): string {
  const parts = parse(query)
  const found = parts.find((part) => part.word === word && !part.not)
  if (!found) return write([...parts, { word, value, not: false }])
  const values = found.value.split(',')
  const left = values.includes(value) ? values.filter((one) => one !== value) : [...values, value]
  if (left.length) found.value = left.join(',')
  return write(left.length ? parts : parts.filter((part) => part !== found))
}

/** Puts `word:value` in the place of whatever the word was. */
export function put(query: string, word: string, value: string): string {
  const parts = parse(query).filter((part) => part.word !== word)
  return write([...parts, { word, value, not: false }])
}

function quote(value: string): string {
  return /[\s"]/.test(value) || value === '' ? `"${value.replace(/[\\"]/g, '\\$&')}"` : value
}

function unquote(value: string): string {
  if (!value.startsWith('"')) return value
  const inside = value.endsWith('"') && value.length > 1 ? value.slice(1, -1) : value.slice(1)
  return inside.replace(/\\(.)/g, '$1')
}
