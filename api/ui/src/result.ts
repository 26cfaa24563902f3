//! What a result says, by its shape, so that any model's result is drawn that has one of these. Pure.

import type { Json } from './api/types'

export interface Share {
  label: string
  share: number
}

export interface Entity {
  text: string
  type: string
  /** In characters (Unicode scalar values), as the API counts. */
  start: number
  end: number
  score: number | null
}

export interface Drawn {
  label: string | null
  score: number | null
  shares: Share[]
  entities: Entity[] | null
  language: string | null
  model: string | null
  /** Of members that are drawn nowhere. */
  rest: Record<string, Json>
}

export function drawnOf(result: Json): Drawn {
  const drawn: Drawn = { label: null, score: null, shares: [], entities: null, language: null, model: null, rest: {} }
  if (typeof result !== 'object' || result === null || Array.isArray(result)) {
    if (result !== null) drawn.rest = { result }
    return drawn
  }
  for (const [name, value] of Object.entries(result)) {
    if ((name === 'sentiment' || name === 'label') && typeof value === 'string') drawn.label = value
    else if (name === 'score' && typeof value === 'number') drawn.score = value
    else if (name === 'model_info' && typeof value === 'string') drawn.model = value
    else if (name === 'language' && typeof value === 'string') drawn.language = value
    else if (name === 'probabilities' && sharesOfObject(value)) drawn.shares = sharesOfObject(value) ?? []
    else if (name === 'labels' && sharesOfList(value)) drawn.shares = sharesOfList(value) ?? []
    else if (name === 'entities' && Array.isArray(value)) drawn.entities = entitiesOf(value)
    else drawn.rest[name] = value
  }
  drawn.shares.sort((a, b) => b.share - a.share)
  if (drawn.label && drawn.score !== null && !drawn.shares.length) drawn.shares = [{ label: drawn.label, share: drawn.score }]
  return drawn
}

function sharesOfObject(value: Json): Share[] | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null
  const entries = Object.entries(value)
  if (!entries.every(([, share]) => typeof share === 'number')) return null
  return entries.map(([label, share]) => ({ label, share: share as number }))
}

function sharesOfList(value: Json): Share[] | null {
  if (!Array.isArray(value)) return null
  const shares: Share[] = []
  for (const one of value) {
    if (typeof one !== 'object' || one === null || Array.isArray(one)) return null
    const share = one.score ?? one.probability
    if (typeof one.label !== 'string' || typeof share !== 'number') return null
    shares.push({ label: one.label, share })
  }
  return shares
}

function entitiesOf(value: Json[]): Entity[] {
  const entities: Entity[] = []
  for (const one of value) {
    if (typeof one !== 'object' || one === null || Array.isArray(one)) continue
    entities.push({
      text: String(one.text ?? ''),
      type: String(one.type ?? ''),
      start: typeof one.start === 'number' ? one.start : -1,
      end: typeof one.end === 'number' ? one.end : -1,
      score: typeof one.score === 'number' ? one.score : null,
    })
  }
  return entities
}

export interface Piece {
  text: string
  entity: Entity | null
}

/** The text cut at the entities; one that overlaps an earlier one, or lies beyond the text, is left out. */
export function piecesOf(text: string, entities: Entity[]): Piece[] {
  const chars = [...text]
  const pieces: Piece[] = []
  let at = 0
  for (const entity of [...entities].sort((a, b) => a.start - b.start)) {
    if (entity.start < at || entity.end <= entity.start || entity.end > chars.length) continue
    if (entity.start > at) pieces.push({ text: chars.slice(at, entity.start).join(''), entity: null })
    pieces.push({ text: chars.slice(entity.start, entity.end).join(''), entity })
    at = entity.end
  }
  if (at < chars.length) pieces.push({ text: chars.slice(at).join(''), entity: null })
  return pieces
}
