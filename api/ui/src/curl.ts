//! A request as a command to paste. Pure but for where the page is.

import { addressOf } from './api/base'

export function curlOf(path: string, method = 'GET', body?: unknown, headers: string[] = []): string {
  const parts = ['curl']
  if (method !== 'GET') parts.push('-X', method)
  parts.push(quote(addressOf(path)))
  if (body !== undefined) {
    parts.push('-H', quote('Content-Type: application/json'), '-d', quote(JSON.stringify(body)))
  }
  for (const header of headers) parts.push('-H', quote(header))
  return parts.join(' ')
}

/** The same where the private network comes; the setting says where that is. */
export function insideCurlOf(path: string, method = 'GET', body?: unknown): string {
  return curlOf(path, method, body).replace(quote(addressOf(path)), `"http://$INSIGHTFORGE_INTERNAL_ADDR${path}"`)
}

/** For a POSIX shell. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
