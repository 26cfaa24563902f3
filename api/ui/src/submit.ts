//! What is uploaded from a form, and files that are looked at before. Pure.

import type { Json, Schema } from './api/types'

export interface Upload {
  task_type: string
  model_version?: string
  data: string
  webhook_url?: string
  expires_in_s?: number
}

/** The document a form's fields make; fields that were left empty are left out. */
export function documentOf(schema: Schema, fields: Record<string, string>): Record<string, Json> {
  const document: Record<string, Json> = {}
  for (const [name, part] of Object.entries(schema.properties ?? {})) {
    const text = fields[name] ?? ''
    if (text === '') continue
    document[name] = valueOf(part, text)
  }
  return document
}

function valueOf(schema: Schema, text: string): Json {
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  if (schema.enum) return schema.enum.find((one) => String(one) === text) ?? text
  if (type === 'number' || type === 'integer') return Number.isNaN(Number(text)) ? text : Number(text)
  if (type === 'boolean') return text === 'true'
  if (type === 'string') return text
  try {
    return JSON.parse(text) as Json
  } catch {
    return text
  }
}

export interface Preview {
  format: 'csv' | 'jsonl'
  columns: string[]
  rows: string[][]
  /** Lines in what was looked at, which may be only the file's beginning. */
  lines: number
  whole: boolean
  wrong: string
}

export const PREVIEW_ROWS = 6
const PREVIEW_BYTES = 256 * 1024

/** The beginning of a file as a table. */
export async function previewOf(file: File): Promise<Preview> {
  const text = await file.slice(0, PREVIEW_BYTES).text()
  return previewText(text, /\.(jsonl|ndjson|json)$/i.test(file.name) || text.trimStart().startsWith('{') ? 'jsonl' : 'csv', file.size <= PREVIEW_BYTES)
}

export function previewText(text: string, format: 'csv' | 'jsonl', whole: boolean): Preview {
  const preview: Preview = { format, columns: [], rows: [], lines: 0, whole, wrong: '' }
  if (format === 'csv') {
    const records = csv(text)
    // The last one may be cut off.
    if (!whole) records.pop()
    preview.columns = records[0] ?? []
    preview.rows = records.slice(1, 1 + PREVIEW_ROWS)
    preview.lines = Math.max(0, records.length - 1)
    return preview
  }
  const lines = text.split('\n').filter((line) => line.trim())
  if (!whole) lines.pop()
  preview.lines = lines.length
  const documents: Record<string, unknown>[] = []
  for (const line of lines.slice(0, PREVIEW_ROWS)) {
    try {
      const value: unknown = JSON.parse(line)
      documents.push(typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : { '': value })
    } catch (error) {
      preview.wrong = `${documents.length + 1}: ${String(error instanceof Error ? error.message : error)}`
      break
    }
  }
  preview.columns = [...new Set(documents.flatMap((document) => Object.keys(document)))]
  preview.rows = documents.map((document) => preview.columns.map((column) => cell(document[column])))
  return preview
}

function cell(value: unknown): string {
  if (value === undefined) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** RFC 4180, as far as a preview needs it. */
export function csv(text: string): string[][] {
  const records: string[][] = []
  let record: string[] = []
  let field = ''
  let quoted = false
  const source = text.replace(/^\ufeff/, '')
  for (let at = 0; at < source.length; at++) {
    const char = source[at]
    if (quoted) {
      if (char !== '"') field += char
      else if (source[at + 1] === '"') {
        field += '"'
        at++
      } else quoted = false
    } else if (char === '"' && field === '') quoted = true
    else if (char === ',') {
      record.push(field)
      field = ''
    } else if (char === '\n') {
      record.push(field.replace(/\r$/, ''))
      if (record.length > 1 || record[0] !== '') records.push(record)
      record = []
      field = ''
    } else field += char
  }
  if (field !== '' || record.length) {
    record.push(field)
    records.push(record)
  }
  return records
}
