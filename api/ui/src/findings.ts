//! What the API finds, in the reader's language; what this page does not know is told in the API's own words. Pure.

import type { Finding } from './api/types'
import { count, percent, span } from './format'

type Say = (key: string, params: Record<string, unknown>) => string

export function sayFinding(finding: Finding, t: Say, knows: (key: string) => boolean): string {
  const key = `finding.${finding.code}`
  if (!knows(key)) return finding.text
  const params: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(finding.params)) {
    if (typeof value !== 'number') params[name] = value
    else if (name === 'oldest_s' || name === 'seconds') params[name] = about(value * 1000)
    else if (name === 'share') params[name] = percent(value)
    else params[name] = count(value)
  }
  const text = t(key, params)
  const more = finding.params.more
  return typeof more === 'number' && more > 0 ? `${text} ${t('finding.more', { count: more })}` : text
}

/** In a sentence the larger unit is enough. */
function about(ms: number): string {
  return span(ms).split(' ').slice(0, 2).join(' ')
}
