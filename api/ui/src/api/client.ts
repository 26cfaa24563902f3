//! Requests. What goes wrong is one type, [Failure], with the API's own words and the fields it names.

import { learn } from '../clock'
import { addressOf } from './base'
import type { Acted } from './types'

export type Query = Record<string, string | number | boolean | null | undefined>

/** A request that did not give what was asked for. */
export class Failure extends Error {
  constructor(
    /** 0: nobody answered. */
    readonly status: number,
    readonly detail: string,
    readonly errors: Record<string, string[]> = {},
    readonly kind = '',
    /** What was done before it went wrong. */
    readonly acted: Acted | null = null,
  ) {
    super(detail)
  }

  /** The path is served only where the private network comes. */
  get isPrivate(): boolean {
    // 405: the path is another's there, with other methods.
    return this.status === 403 || this.status === 405 || (this.status === 404 && this.detail === 'there is nothing at this path')
  }
}

export function pathWith(path: string, query: Query = {}): string {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') params.set(name, String(value))
  }
  const text = params.toString()
  return text ? `${path}?${text}` : path
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  return send<T>(pathWith(path, query), { signal: signal ?? null })
}

export async function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return send<T>(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
}

async function send<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response
  try {
    response = await fetch(addressOf(path), { ...init, headers: { Accept: 'application/json', ...init.headers } })
  } catch (error) {
    if (isAbort(error)) throw error
    throw new Failure(0, 'no answer')
  }
  learn(response.headers.get('Date'))
  const text = await response.text()
  // Health answers 503 with the report that was asked for.
  if (response.ok || isReport(response, text)) return JSON.parse(text) as T
  throw failureOf(response.status, text)
}

function isReport(response: Response, text: string): boolean {
  return response.status === 503 && text.startsWith('{"status"') && !isProblem(response.headers.get('Content-Type'))
}

function isProblem(type: string | null): boolean {
  return type?.startsWith('application/problem+json') ?? false
}

/** What an answer that is no success says. */
export function failureOf(status: number, text: string): Failure {
  try {
    const problem = JSON.parse(text) as { detail?: string; message?: string; errors?: Record<string, string[]>; type?: string; acted?: Acted }
    return new Failure(status, problem.detail ?? problem.message ?? `HTTP ${status}`, problem.errors ?? {}, problem.type ?? '', problem.acted ?? null)
  } catch {
    return new Failure(status, `HTTP ${status}`)
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

export function asFailure(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure(0, String(error))
}
