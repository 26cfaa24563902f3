//! Acts on many, request by request until there are no more. Pure but for the requests that it is
//! given.

import type { Acted } from './api/types'

/** What is told of more than are counted. */
const COUNTED = 50_000

/** What was counted or done by several requests together. */
export interface Sum {
  matched: number
  done: number
  already: number
  left: number
  /** Why the first of those that were left was left. */
  why: string
  /** Where it goes on; `null` at the end. */
  next: string | null
}

export const nothingYet: Sum = { matched: 0, done: 0, already: 0, left: 0, why: '', next: null }

export function plus(sum: Sum, acted: Acted): Sum {
  return {
    matched: sum.matched + acted.matched,
    done: sum.done + acted.done,
    already: sum.already + acted.already,
    left: sum.left + acted.left,
    why: sum.why || (acted.refused[0]?.detail ?? ''),
    next: acted.next,
  }
}

/** What is said of those that it was not done to now. */
export function besides(t: (key: string, slots: Record<string, string>, choice: number) => string, count: (of: number) => string, { already, left, why }: Sum): string[] {
  return [...(already ? [t('act.already', { count: count(already) }, already)] : []), ...(left ? [t('act.left', { count: count(left), why }, left)] : [])]
}

/**
 * Asks until there are no more, or as many are counted as are told; `tell` is told each sum, and says whether to go on. What
 * was done by a request that failed halfway is in the last sum, too; then the failure is thrown.
 */
export async function throughAll(ask: (next: string | null) => Promise<Acted>, begin: Sum, tell: (sum: Sum) => boolean): Promise<void> {
  let sum = begin
  do {
    let acted: Acted
    try {
      acted = await ask(sum.next)
    } catch (error) {
      const halfway = (error as { acted?: Acted | null }).acted
      if (halfway) tell(plus(sum, { ...halfway, next: halfway.next ?? sum.next }))
      throw error
    }
    sum = plus(sum, acted)
    if (!tell(sum) || (acted.dry_run && sum.matched >= COUNTED)) return
  } while (sum.next !== null)
}
