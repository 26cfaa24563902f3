//! The server's clock, as far as its answers tell it: what is said to be so long ago must not depend on this machine's.

let skewMs = 0

/** Differences below this are the way of an answer, or of whole seconds. */
const NOTICED_MS = 2_000

/** Takes an answer's `Date` header, which has whole seconds. */
export function learn(date: string | null): void {
  const at = date ? Date.parse(date) : Number.NaN
  if (Number.isNaN(at)) return
  const difference = at + 500 - Date.now()
  skewMs = Math.abs(difference) > NOTICED_MS ? difference : 0
}

export function serverNow(): number {
  return Date.now() + skewMs
}
